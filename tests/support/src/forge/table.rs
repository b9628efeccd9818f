//! Tables.

use super::{bytes, head, optional, varint};
use crate::repair::{self, FRAME_LEN, Owner};

const FOOTER_LEN: usize = 64;

/// The body of a block that holds these entries, in this order: key, sequence number, value.
pub fn block_body(entries: &[(Vec<u8>, u64, Vec<u8>)]) -> Vec<u8> {
    let mut out = (entries.len() as u32).to_le_bytes().to_vec();
    out.extend_from_slice(&[0, 0, 8, 4]);
    out.extend_from_slice(&[0; 8]);
    for (key, _, _) in entries {
        out.extend_from_slice(&head::<4>(key));
    }
    let mut records = Vec::new();
    let records_at = out.len() + 4 * entries.len();
    for (key, seq, value) in entries {
        out.extend_from_slice(&((records_at + records.len()) as u32).to_le_bytes());
        records.extend_from_slice(&(seq << 8 | 1).to_le_bytes());
        bytes(&mut records, key);
        records.extend_from_slice(value);
    }
    out.extend(records);
    out
}

/// A frame of zstd with `content` in it as it is, up to 64 KiB: what a build without zstd can
/// make, and the same whatever version of it there is.
pub fn zstd_frame(content: &[u8]) -> Vec<u8> {
    let mut out = 0xFD2F_B528_u32.to_le_bytes().to_vec();
    // A single segment, with four bytes for its length; one last block, raw.
    out.push(0b1010_0000);
    out.extend_from_slice(&(content.len() as u32).to_le_bytes());
    let header = (content.len() as u32) << 3 | 1;
    out.extend_from_slice(&header.to_le_bytes()[..3]);
    out.extend_from_slice(content);
    out
}

/// A block in its frame.
#[derive(Debug, Clone)]
pub struct Block {
    /// Its key in the index.
    pub separator: Vec<u8>,
    /// What the frame says of compression: 0 for none, 1 for LZ4, 2 for zstd.
    pub tag: u8,
    /// What is in the frame.
    pub bytes: Vec<u8>,
}

/// A table, and what its properties and the manifest say about it, true or not.
#[derive(Debug, Clone, Default)]
pub struct Table {
    /// In the order in which they stand in the file.
    pub blocks: Vec<Block>,
    /// Lower end of its keys.
    pub smallest: Vec<u8>,
    /// Upper end of its keys; `None` if a range tombstone goes on without end.
    pub largest: Option<Vec<u8>>,
    /// The lowest and the highest sequence number.
    pub seqs: (u64, u64),
    /// Number of entries.
    pub entries: u64,
    /// Number of entries that delete.
    pub deletes: u64,
    /// Number of range tombstones.
    pub range_tombstones: u64,
    /// Number of entries that follow another one of their key.
    pub older_versions: u64,
    /// Length of all keys.
    pub key_bytes: u64,
    /// Length of all values.
    pub value_bytes: u64,
    /// Files that its values lie in, and how many bytes of each.
    pub value_files: Vec<(u64, u64)>,
    /// What the properties say of compression and filter: kind, level, bits for each key.
    pub form: [u8; 3],
    /// The range tombstones themselves, each made by [`add_tombstone`].
    pub tombstones: Vec<u8>,
}

/// Appends an encoded range tombstone.
pub fn add_tombstone(out: &mut Vec<u8>, seq: u64, start: &[u8], end: Option<&[u8]>) {
    varint(out, seq);
    bytes(out, start);
    optional(out, end);
}

impl Table {
    fn meta(&self, number: u64, len: u64) -> Vec<u8> {
        let mut out = number.to_le_bytes().to_vec();
        out.extend_from_slice(&len.to_le_bytes());
        bytes(&mut out, &self.smallest);
        optional(&mut out, self.largest.as_deref());
        for field in [
            self.seqs.0,
            self.seqs.1,
            self.entries,
            self.deletes,
            self.range_tombstones,
            self.older_versions,
            self.key_bytes,
            self.value_bytes,
        ] {
            varint(&mut out, field);
        }
        varint(&mut out, self.value_files.len() as u64);
        for (file, bytes) in &self.value_files {
            varint(&mut out, *file);
            varint(&mut out, *bytes);
        }
        // Nothing in it expires.
        out.extend_from_slice(&[0, 0]);
        out
    }

    /// The file and its meta, as the manifest has it, with checksums.
    pub fn file(&self, owner: Owner, number: u64) -> (Vec<u8>, Vec<u8>) {
        let (mut file, meta) = self.without_checksums(number);
        repair::table(&mut file, owner, number);
        (file, meta)
    }

    /// The file, with zeros where checksums belong, and its meta. It has no filter.
    pub fn without_checksums(&self, number: u64) -> (Vec<u8>, Vec<u8>) {
        let mut out = Vec::new();
        let mut starts = Vec::new();
        for block in &self.blocks {
            starts.push(out.len() as u64);
            out.extend_from_slice(&[0, 0, 0, 0, block.tag, 0, 0, 0]);
            out.extend_from_slice(&block.bytes);
        }
        let blocks_end = out.len() as u64;
        starts.push(blocks_end);
        // The frame of a filter stands there even if there is none.
        out.resize(repair::filter_at(blocks_end) as usize, 0);
        out.extend_from_slice(&[0; FRAME_LEN]);
        let index_at = out.len() as u64;
        out.extend_from_slice(&[0; FRAME_LEN]);
        self.index(&mut out, &starts);
        let tombstones_at = out.len() as u64;
        out.extend_from_slice(&[0; FRAME_LEN]);
        varint(&mut out, self.range_tombstones);
        out.extend_from_slice(&self.tombstones);
        let properties_at = out.len() as u64;
        let compressed = self.blocks.iter().filter(|block| block.tag != 0).count() as u64;
        let mut counts = Vec::new();
        varint(&mut counts, self.blocks.len() as u64);
        varint(&mut counts, compressed);
        counts.extend_from_slice(&self.form);
        let meta_len = self.meta(number, 0).len();
        let len = properties_at + (FRAME_LEN + meta_len + counts.len() + FOOTER_LEN) as u64;
        let meta = self.meta(number, len);
        out.extend_from_slice(&[0; FRAME_LEN]);
        out.extend_from_slice(&meta);
        out.extend(counts);
        for field in [
            number,
            blocks_end,
            index_at,
            tombstones_at,
            properties_at,
            0,
        ] {
            out.extend_from_slice(&field.to_le_bytes());
        }
        out.extend_from_slice(&8u32.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(b"HEDGETBL");
        (out, meta)
    }

    /// The index, of blocks that start at `starts`; the last of these is their end.
    fn index(&self, out: &mut Vec<u8>, starts: &[u64]) {
        out.extend_from_slice(&(self.blocks.len() as u32).to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        for block in &self.blocks {
            out.extend_from_slice(&head::<8>(&block.separator));
        }
        for start in starts {
            out.extend_from_slice(&start.to_le_bytes());
        }
        let mut suffix_at = 0u32;
        for block in &self.blocks {
            out.extend_from_slice(&suffix_at.to_le_bytes());
            suffix_at += block.separator.len() as u32;
        }
        out.extend_from_slice(&suffix_at.to_le_bytes());
        for block in &self.blocks {
            out.extend_from_slice(&block.separator);
        }
    }
}
