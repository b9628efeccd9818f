//! The parts of a table file: frames around blocks and sections, tombstones, properties, footer.
//!
//! ```text
//! blocks | zeros | filter | index | range tombstones | properties | footer
//! ```
//!
//! Every block and section is framed: a checksum of all that follows in it, seeded with table
//! and offset, then what it is. The frame comes first, so that a lookup in a block meets it in the
//! cache line that it needs anyway.

use super::block::Damage;
use super::meta::{Summary, read_seq};
use super::{TableForm, TableMeta, filter};
use crate::format::checksum::{checksum, seed_of};
use crate::format::coding::{Malformed, Reader, get_u32, get_u64, put_bytes, put_varint};
use crate::lsm::entry::RangeTombstone;
use crate::options::Compression;
use crate::types::{FileId, MAX_KEY_LEN_BYTES};
use crate::util::mutants::mutated;

/// Bytes of a frame.
pub(crate) const FRAME_LEN_BYTES: usize = 8;
/// Bytes of the footer.
pub(crate) const FOOTER_LEN_BYTES: usize = 64;
/// Version of the format.
pub(crate) const VERSION: u32 = 8;
/// Version of a table whose entries have no numbers (LT8). The rest is as in the other one. A build
/// that does not know such tables refuses it by name.
const VERSION_UNNUMBERED: u32 = 9;
/// The last bytes of a table.
const MAGIC: [u8; 8] = *b"HEDGETBL";

/// How the bytes after a frame are to be read. For a block, its encoding; for a filter, its
/// kind; zero for the other sections.
pub(crate) mod tag {
    /// A block as it is; a section of which there is one kind.
    pub(crate) const PLAIN: u8 = 0;
    /// A block compressed with LZ4, after its uncompressed length as a `u32`.
    pub(crate) const LZ4: u8 = 1;
    /// A block compressed with zstd, after its uncompressed length as a `u32`.
    pub(crate) const ZSTD: u8 = 2;
    /// There is no filter.
    pub(crate) const NO_FILTER: u8 = 0;
    /// A Bloom filter of 64-byte lines; the frame's parameter is the number of probes.
    pub(crate) const BLOCKED_BLOOM: u8 = 1;
}

/// What a frame says besides the checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) tag: u8,
    pub(crate) parameter: u8,
}

impl Frame {
    /// Fills in the frame at the start of `framed`, which will stand at `offset`.
    pub(crate) fn seal(self, framed: &mut [u8], table_seed: u64, offset: u64) {
        framed[4] = self.tag;
        framed[5] = self.parameter;
        framed[6] = 0;
        framed[7] = 0;
        let sum = checksum(seed_of(&[table_seed, offset]), &framed[4..]);
        framed[..4].copy_from_slice(&sum.to_le_bytes());
    }

    /// Checks the checksum of `framed`, which stands at `offset`, and reads its frame.
    pub(crate) fn verify(framed: &[u8], table_seed: u64, offset: u64) -> Result<Self, Damage> {
        let Some(frame) = framed.first_chunk::<FRAME_LEN_BYTES>() else {
            return Err("the block or section is shorter than its frame");
        };
        let sum = checksum(seed_of(&[table_seed, offset]), &framed[4..]);
        if get_u32(frame, 0) != sum && !mutated!("block-checksum-ignored") {
            return Err("the checksum does not match");
        }
        if frame[6..] != [0, 0] {
            return Err("the frame is malformed");
        }
        Ok(Self {
            tag: frame[4],
            parameter: frame[5],
        })
    }
}

/// Seed of all checksums of a table: which store and keyspace, and which file.
pub(crate) fn table_seed(seed: u64, id: FileId) -> u64 {
    seed_of(&[seed, id.0])
}

/// Where the filter's frame stands when the blocks end at `blocks_end`: so that its lines, which
/// follow the frame, are aligned to cache lines in the map.
pub(crate) fn filter_at(blocks_end: u64) -> u64 {
    let line = filter::LINE_LEN_BYTES as u64;
    (blocks_end + FRAME_LEN_BYTES as u64).next_multiple_of(line) - FRAME_LEN_BYTES as u64
}

/// The fixed end of a table: where the sections are. Each ends where the next begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Footer {
    pub(crate) id: FileId,
    pub(crate) blocks_end: u64,
    pub(crate) index_at: u64,
    pub(crate) tombstones_at: u64,
    pub(crate) properties_at: u64,
    /// LT8.
    pub(crate) is_unnumbered: bool,
}

impl Footer {
    pub(crate) fn encode(&self, table_seed: u64, footer_at: u64) -> [u8; FOOTER_LEN_BYTES] {
        let mut out = [0; FOOTER_LEN_BYTES];
        let fields = [
            self.id.0,
            self.blocks_end,
            self.index_at,
            self.tombstones_at,
            self.properties_at,
            0, // Reserved.
        ];
        for (field, bytes) in fields.iter().zip(out.chunks_exact_mut(8)) {
            bytes.copy_from_slice(&field.to_le_bytes());
        }
        let version = match self.is_unnumbered {
            true => VERSION_UNNUMBERED,
            false => VERSION,
        };
        out[48..52].copy_from_slice(&version.to_le_bytes());
        let sum = checksum(seed_of(&[table_seed, footer_at]), &out[..52]);
        out[52..56].copy_from_slice(&sum.to_le_bytes());
        out[56..].copy_from_slice(&MAGIC);
        out
    }

    /// Reads the footer at `footer_at`, which is the length of everything before it.
    pub(crate) fn decode(
        bytes: &[u8; FOOTER_LEN_BYTES],
        table_seed: u64,
        footer_at: u64,
    ) -> Result<Self, FooterDamage> {
        if bytes[56..] != MAGIC {
            return Err(FooterDamage::Damaged("the file is not a table"));
        }
        let version = get_u32(bytes, 48);
        if get_u32(bytes, 52) != checksum(seed_of(&[table_seed, footer_at]), &bytes[..52]) {
            // A later version may compute the checksum otherwise, so its number is accepted.
            return Err(if version > VERSION_UNNUMBERED && version < 1 << 16 {
                FooterDamage::Version(version)
            } else {
                FooterDamage::Damaged("the checksum of the footer does not match")
            });
        }
        if version != VERSION && version != VERSION_UNNUMBERED {
            return Err(FooterDamage::Version(version));
        }
        Self::parse(bytes, footer_at).map_err(FooterDamage::Damaged)
    }

    /// Reads the fields and checks that the sections fill the file.
    pub(crate) fn parse(bytes: &[u8; FOOTER_LEN_BYTES], footer_at: u64) -> Result<Self, Damage> {
        let footer = Self {
            id: FileId(get_u64(bytes, 0)),
            blocks_end: get_u64(bytes, 8),
            index_at: get_u64(bytes, 16),
            tombstones_at: get_u64(bytes, 24),
            properties_at: get_u64(bytes, 32),
            is_unnumbered: get_u32(bytes, 48) == VERSION_UNNUMBERED,
        };
        let frame = FRAME_LEN_BYTES as u64;
        let fits = |from: u64, to: u64| to.checked_sub(from).is_some_and(|len| len >= frame);
        if get_u64(bytes, 40) != 0
            || footer.blocks_end > footer_at
            || !fits(filter_at(footer.blocks_end), footer.index_at)
            || !fits(footer.index_at, footer.tombstones_at)
            || !fits(footer.tombstones_at, footer.properties_at)
            || !fits(footer.properties_at, footer_at)
        {
            return Err("the sections of the table overlap");
        }
        Ok(footer)
    }
}

/// Why a footer was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FooterDamage {
    Damaged(Damage),
    /// A version that this build does not read.
    Version(u32),
}

/// What a table says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Properties {
    pub(crate) meta: TableMeta,
    pub(crate) blocks: u64,
    /// How many of the blocks are compressed.
    pub(crate) compressed_blocks: u64,
    /// How the table was written.
    pub(crate) form: TableForm,
}

impl Properties {
    /// Stands in until the properties of table `id` have been read.
    pub(crate) fn unread(id: FileId) -> Self {
        Self {
            meta: Summary::default().finish(id, 0),
            blocks: 0,
            compressed_blocks: 0,
            form: TableForm {
                compression: Compression::None,
                filter_bits_per_key: 0,
            },
        }
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        self.meta.encode(out);
        put_varint(out, self.blocks);
        put_varint(out, self.compressed_blocks);
        self.form.encode(out);
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Damage> {
        let mut reader = Reader::new(bytes);
        let mut read = || {
            let properties = Self {
                meta: TableMeta::decode(&mut reader)?,
                blocks: reader.varint()?,
                compressed_blocks: reader.varint()?,
                form: TableForm::decode(&mut reader)?,
            };
            if reader.is_empty() {
                Ok(properties)
            } else {
                Err(Malformed)
            }
        };
        read().map_err(|Malformed| "the properties are malformed")
    }
}

/// Appends range tombstones.
pub(crate) fn encode_tombstones(tombstones: &[RangeTombstone], out: &mut Vec<u8>) {
    put_varint(out, tombstones.len() as u64);
    for tombstone in tombstones {
        put_varint(out, tombstone.seq.0);
        put_bytes(out, &tombstone.start);
        match &tombstone.end {
            Some(end) => {
                out.push(1);
                put_bytes(out, end);
            }
            None => out.push(0),
        }
    }
}

/// Reads range tombstones.
pub(crate) fn decode_tombstones(bytes: &[u8]) -> Result<Vec<RangeTombstone>, Damage> {
    // Ends of ranges can be one byte longer than keys.
    const MAX_BOUND_LEN_BYTES: usize = MAX_KEY_LEN_BYTES + 1;
    let mut reader = Reader::new(bytes);
    let mut read = || {
        // The count is not trusted with an allocation; a tombstone takes at least three bytes.
        let count = reader.varint()?;
        let mut tombstones = Vec::new();
        for _ in 0..count {
            let seq = read_seq(&mut reader)?;
            let start = reader.bytes()?;
            let end = match reader.u8()? {
                0 => None,
                1 => Some(reader.bytes()?),
                _ => return Err(Malformed),
            };
            if start.len().max(end.map_or(0, <[u8]>::len)) > MAX_BOUND_LEN_BYTES
                || end.is_some_and(|end| end <= start)
            {
                return Err(Malformed);
            }
            tombstones.push(RangeTombstone {
                start: start.to_vec(),
                end: end.map(<[u8]>::to_vec),
                seq,
            });
        }
        if reader.is_empty() {
            Ok(tombstones)
        } else {
            Err(Malformed)
        }
    };
    read().map_err(|Malformed| "the range tombstones are malformed")
}
