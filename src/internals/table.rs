//! Windows into the parts of a table, for fuzz targets and benches.

use super::lsm::Entry;
use crate::format::coding::Reader;
use crate::lsm::entry;
use crate::lsm::entry::{seek_word, split_word};
use crate::lsm::table::{block, compression, filter, index, meta};
use crate::options::Compression;
use crate::types::SeqNo;

/// Builds the body of a block.
#[derive(Debug, Default)]
pub struct BlockBuilder(block::BlockBuilder);

impl BlockBuilder {
    /// Appends an entry, which comes after the last one in internal order.
    pub fn add(&mut self, entry: Entry<'_>) {
        self.0.add(&entry::Entry::from(entry));
    }

    /// Appends the body to `out`. Only if there are entries.
    pub fn encode(&self, out: &mut Vec<u8>) {
        self.0.encode(out);
    }

    /// Forgets the entries.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// About how long the body is.
    pub fn len_estimate(&self) -> usize {
        self.0.len_estimate()
    }
}

/// The body of a block.
#[derive(Debug, Clone, Copy)]
pub struct Block<'a>(block::Block<'a>);

impl<'a> Block<'a> {
    /// Reads the header.
    pub fn parse(body: &'a [u8]) -> Result<Self, &'static str> {
        block::Block::parse(body).map(Self)
    }

    /// Number of entries.
    pub fn count(&self) -> u32 {
        self.0.count()
    }

    /// What all keys begin with.
    pub fn prefix(&self) -> &'a [u8] {
        self.0.prefix()
    }

    /// Sequence number and kind, key behind the prefix, and value of entry `i < count`.
    pub fn record(&self, i: u32) -> Result<(u64, &'a [u8], &'a [u8]), &'static str> {
        let record = self.0.record(i)?;
        Ok((record.word, record.suffix, record.value))
    }

    /// The entry `i < count` with its key behind the prefix; `None` for an unknown kind.
    pub fn entry(&self, i: u32) -> Result<Option<Entry<'a>>, &'static str> {
        let record = self.0.record(i)?;
        Ok(split_word(record.word).map(|(seq, kind)| {
            entry::Entry {
                key: record.suffix,
                seq,
                kind,
                value: record.value,
            }
            .into()
        }))
    }

    /// Index of the first entry at or after `(key, seq)` in internal order.
    pub fn lower_bound(&self, key: &[u8], seq: u64) -> Result<u32, &'static str> {
        self.0.lower_bound(key, seek_word(SeqNo(seq)))
    }

    /// Checks order, heads and kinds.
    pub fn check(&self) -> Result<(), &'static str> {
        self.0.check().map(drop)
    }
}

/// Hash of a key for filters.
pub fn filter_hash(key: &[u8]) -> u64 {
    filter::filter_hash(key)
}

/// False if no key of that hash went into the filter.
pub fn filter_may_contain(lines: &[u8], probes: u8, hash: u64) -> bool {
    filter::may_contain(lines, probes, hash)
}

/// Builds a filter.
#[derive(Debug, Default)]
pub struct FilterBuilder(filter::FilterBuilder);

impl FilterBuilder {
    /// Adds a key by its hash.
    pub fn add(&mut self, hash: u64) {
        self.0.add(hash);
    }

    /// The lines, and how many probes a key makes.
    pub fn finish(self, bits_per_key: u32) -> (Vec<u8>, u8) {
        self.0.finish(bits_per_key)
    }
}

/// Uncompresses what follows the frame, with that tag, of a compressed block; a frame's length of
/// zeros comes before the body.
pub fn decompress(tag: u8, payload: &[u8]) -> Result<std::sync::Arc<[u8]>, &'static str> {
    compression::decompress(tag, payload)
}

/// Appends `body` to `out` as a block has it behind its frame, and returns the frame's tag. The
/// compression is available.
pub fn compress(kind: Compression, body: &[u8], out: &mut Vec<u8>) -> u8 {
    compression::Packer::new(kind).pack(body, out)
}

/// Reads and checks an index, and searches it for `key`: the number of blocks, of separators up to
/// the key, and whether the index is in order.
pub fn index_check(
    bytes: &[u8],
    blocks_end: u64,
    key: &[u8],
) -> Result<(u32, u32, bool), &'static str> {
    let index = index::Index::parse(
        bytes,
        blocks_end,
        crate::lsm::table::footer::FRAME_LEN_BYTES as u64,
    )?;
    let blocks = index.layout().blocks;
    for no in 0..blocks {
        let (separator, _) = index.separator(no);
        let _ = (index.separator_is(no, &separator), index.block_at(no));
    }
    let found = index.separators_up_to(key, seek_word(SeqNo::MAX));
    Ok((blocks, found, index.check().is_ok()))
}

/// Length of the meta at the start of `bytes`, if there is one.
pub fn meta_len_bytes(bytes: &[u8]) -> Option<usize> {
    let mut reader = Reader::new(bytes);
    meta::TableMeta::decode(&mut reader).ok()?;
    Some(reader.position())
}
