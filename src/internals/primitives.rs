//! Windows into checksums, keys and framed records.

use crate::format::framing::{RecordReader, Step};
use crate::format::{checksum as sums, framing};
use crate::types;
use crate::util::key_prefix as key;

/// Checksum of `bytes` bound to `seed`.
pub fn checksum(seed: u64, bytes: &[u8]) -> u32 {
    sums::checksum(seed, bytes)
}

/// Mixes identifiers into one seed.
pub fn seed_of(parts: &[u64]) -> u64 {
    sums::seed_of(parts)
}

/// First four bytes of a key as an integer.
pub fn head32(key: &[u8]) -> u32 {
    key::head32(key)
}

/// First eight bytes of a key as an integer.
pub fn head64(key: &[u8]) -> u64 {
    key::head64(key)
}

/// Length of the longest common prefix.
pub fn common_prefix_len(a: &[u8], b: &[u8]) -> usize {
    key::common_prefix_len(a, b)
}

/// Shortest key above `low` and not above `high`. Requires `low < high`.
pub fn shortest_separator<'a>(low: &[u8], high: &'a [u8]) -> &'a [u8] {
    key::shortest_separator(low, high)
}

/// Smallest key above all that start with `prefix`.
pub fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    types::prefix_end(prefix)
}

/// The header of a frame at `offset` around `payload`.
pub fn frame_header(seed: u64, offset: u64, payload: &[u8]) -> [u8; 8] {
    framing::frame_header(seed, offset, payload, &[])
}

/// Appends a framed record.
pub fn append_record(out: &mut Vec<u8>, seed: u64, offset: u64, payload: &[u8]) {
    framing::append_record(out, seed, offset, payload);
}

/// How a sequence of framed records ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordsEnd {
    /// With the file.
    End,
    /// With a record that was not written whole.
    Torn {
        /// Where it begins.
        offset: u64,
    },
    /// With a damaged record, behind which intact ones follow.
    Damaged {
        /// Where it begins.
        offset: u64,
    },
}

/// All framed records in front of the first that is not intact, with their offsets.
pub fn read_records(bytes: &[u8], seed: u64, base: u64) -> (Vec<(u64, &[u8])>, RecordsEnd) {
    let mut reader = RecordReader::new(bytes, seed, base);
    let mut records = Vec::new();
    loop {
        match reader.step() {
            Step::Record { offset, payload } => records.push((offset, payload)),
            Step::End => return (records, RecordsEnd::End),
            Step::Torn { offset } => return (records, RecordsEnd::Torn { offset }),
            Step::Damaged { offset } => return (records, RecordsEnd::Damaged { offset }),
        }
    }
}
