//! Checksummed framing of records, shared by the log and the LSM manifest.
//!
//! A frame is a 4-byte checksum, a 4-byte payload length, and the payload (docs/format.md, "Record
//! framing"). The checksum covers the length and the payload and is seeded with the caller's seed
//! (store, file) and the frame's offset, so a frame that was moved, or belongs to another file,
//! does not pass.
//!
//! [`append_record`] and [`RecordReader`] serve files that only grow; the log, which writes into
//! preallocated segments and has its own notion of an end, uses [`frame_header`] and [`frame_at`].
//!
//! # Invariants
//!
//! - **R1** a caller that appends with [`append_record`] syncs a record before appending the next.
//!   Then only the last record can be torn, and an invalid record in front of a valid one is
//!   damage.
//! - **R2** nothing is allocated by a length found in a file: payloads are borrowed.

use crate::format::checksum::{Checksum, PartSums, seed_of};
use crate::format::coding::get_u32;
use crate::util::mutants::mutated;

/// Places that claim to be records which are looked at behind one that is torn: half a minute.
const CLAIMS_MAX: usize = 1 << 24;

/// Bytes in front of a payload.
pub(crate) const FRAME_HEADER_LEN_BYTES: usize = 8;

/// The header of a frame at `offset` of its file whose payload is `prefix` and `parts` joined. They
/// must not exceed `u32::MAX` bytes together.
pub(crate) fn frame_header(
    seed: u64,
    offset: u64,
    prefix: &[u8],
    parts: &[&[u8]],
) -> [u8; FRAME_HEADER_LEN_BYTES] {
    let len = prefix.len() + parts.iter().map(|part| part.len()).sum::<usize>();
    let len = u32::try_from(len)
        .expect("records are limited far below 4 GiB")
        .to_le_bytes();
    let mut sum = Checksum::seeded(seed_of(&[seed, offset]));
    sum.update(&len);
    sum.update(prefix);
    for part in parts {
        sum.update(part);
    }
    let mut header = [0; FRAME_HEADER_LEN_BYTES];
    header[..4].copy_from_slice(&sum.finish().to_le_bytes());
    header[4..].copy_from_slice(&len);
    header
}

/// The payload length that the frame at `at` claims, if that many bytes follow.
pub(crate) fn frame_len(bytes: &[u8], at: usize) -> Option<usize> {
    let header_end = at.checked_add(FRAME_HEADER_LEN_BYTES)?;
    if header_end > bytes.len() {
        return None;
    }
    let len = get_u32(bytes, at + 4) as usize;
    (len <= bytes.len() - header_end).then_some(len)
}

/// The payload of the frame at `bytes[at..]`, which lies at `offset` of its file, if it is intact.
pub(crate) fn frame_at(bytes: &[u8], at: usize, seed: u64, offset: u64) -> Option<&[u8]> {
    let len = frame_len(bytes, at)?;
    let payload_at = at + FRAME_HEADER_LEN_BYTES;
    let payload = &bytes[payload_at..payload_at + len];
    let mut sum = Checksum::seeded(seed_of(&[seed, offset]));
    sum.update(&bytes[at + 4..payload_at]);
    sum.update(payload);
    (sum.finish() == get_u32(bytes, at) || mutated!("record-checksum-ignored")).then_some(payload)
}

/// Looks whether frames that bytes claim to have at many places are intact, each at the same small
/// price: summing them one by one costs the square of what claims to be long.
#[derive(Debug)]
pub(crate) struct FrameSearch<'a> {
    bytes: &'a [u8],
    /// From when the first frame is looked at.
    sums: Option<PartSums<'a>>,
}

impl<'a> FrameSearch<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, sums: None }
    }

    /// As [`frame_at`] finds it.
    pub(crate) fn is_intact_at(&mut self, at: usize, seed: u64, offset: u64) -> bool {
        let Some(len) = frame_len(self.bytes, at) else {
            return false;
        };
        let bytes = self.bytes;
        let sums = self.sums.get_or_insert_with(|| PartSums::new(bytes));
        let part = at + 4..at + FRAME_HEADER_LEN_BYTES + len;
        sums.checksum(seed_of(&[seed, offset]), part) == get_u32(bytes, at)
    }
}

/// Appends a record to `out`. `offset` is where in the file the record will stand, `seed` what else
/// identifies the file. Empty payloads are refused by the reader, so `payload` must not be
/// empty.
pub(crate) fn append_record(out: &mut Vec<u8>, seed: u64, offset: u64, payload: &[u8]) {
    assert!(!payload.is_empty(), "an empty record says nothing");
    out.extend_from_slice(&frame_header(seed, offset, payload, &[]));
    out.extend_from_slice(payload);
}

/// What stands at the reader's position.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step<'a> {
    /// An intact record.
    Record {
        /// Where it begins in the file.
        offset: u64,
        payload: &'a [u8],
    },
    /// The file ends after the last record.
    End,
    /// The file ends in a record that was not written whole: cut the file to `offset`, or write
    /// there.
    Torn { offset: u64 },
    /// The record at `offset` is not intact, and an intact one follows: by R1 not a torn write.
    Damaged { offset: u64 },
}

/// Reads records from the front of a file's bytes. After anything but a record it repeats itself.
#[derive(Debug)]
pub(crate) struct RecordReader<'a> {
    bytes: &'a [u8],
    /// Offset in the file of `bytes[0]`.
    base: u64,
    seed: u64,
    at: usize,
}

impl<'a> RecordReader<'a> {
    /// Reads `bytes`, the rest of a file from `base` on.
    pub(crate) fn new(bytes: &'a [u8], seed: u64, base: u64) -> Self {
        Self {
            bytes,
            base,
            seed,
            at: 0,
        }
    }

    /// Offset in the file of the next record.
    pub(crate) fn offset(&self) -> u64 {
        self.base + self.at as u64
    }

    /// The next record, or why there is none.
    pub(crate) fn step(&mut self) -> Step<'a> {
        if self.at == self.bytes.len() {
            return Step::End;
        }
        let offset = self.offset();
        if let Some(payload) = self.record_at(self.at) {
            self.at += FRAME_HEADER_LEN_BYTES + payload.len();
            return Step::Record { offset, payload };
        }
        if self.a_record_follows() {
            Step::Damaged { offset }
        } else {
            Step::Torn { offset }
        }
    }

    fn record_at(&self, at: usize) -> Option<&'a [u8]> {
        // A run of zeros must never look like records.
        let payload = frame_at(self.bytes, at, self.seed, self.base + at as u64)?;
        (!payload.is_empty()).then_some(payload)
    }

    /// True if an intact record begins anywhere behind the position. In a record of many numbers
    /// nearly every offset claims one. The work is bounded all the same, because hostile bytes may
    /// fill a long file with such claims: one that exhausts the bound is called damaged.
    fn a_record_follows(&self) -> bool {
        let rest = &self.bytes[self.at..];
        let mut search = FrameSearch::new(rest);
        let claims = (1..rest.len()).filter(|at| frame_len(rest, *at).is_some_and(|len| len > 0));
        for (number, at) in claims.enumerate() {
            let offset = self.offset() + at as u64;
            if number == CLAIMS_MAX || search.is_intact_at(at, self.seed, offset) {
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: u64 = 77;

    fn file(payloads: &[&[u8]]) -> Vec<u8> {
        let mut out = Vec::new();
        for payload in payloads {
            let offset = 100 + out.len() as u64;
            append_record(&mut out, SEED, offset, payload);
        }
        out
    }

    fn read(bytes: &[u8]) -> (Vec<Vec<u8>>, Step<'_>) {
        let mut reader = RecordReader::new(bytes, SEED, 100);
        let mut found = Vec::new();
        loop {
            match reader.step() {
                Step::Record { payload, .. } => found.push(payload.to_vec()),
                other => return (found, other),
            }
        }
    }

    #[test]
    fn records_come_back_and_every_cut_is_a_torn_tail() {
        let bytes = file(&[b"first", b"the second", b"3"]);
        assert_eq!(read(&bytes).0.len(), 3);
        assert_eq!(read(&bytes).1, Step::End);
        let ends = [0, 13, 31, 40];
        for cut in 0..bytes.len() {
            let (found, end) = read(&bytes[..cut]);
            let whole = ends.iter().rposition(|end| *end <= cut).unwrap();
            assert_eq!(found.len(), whole, "cut at {cut}");
            if ends.contains(&cut) {
                assert_eq!(end, Step::End);
            } else {
                let offset = 100 + ends[whole] as u64;
                assert_eq!(end, Step::Torn { offset });
            }
        }
    }

    #[test]
    fn every_flipped_bit_is_found_and_only_the_last_record_counts_as_torn() {
        let bytes = file(&[b"first", b"the second", b"the third"]);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let (found, end) = read(&flipped);
            let (whole, offset) = match bit / 8 {
                0..13 => (0, 100),
                13..31 => (1, 113),
                _ => (2, 131),
            };
            assert_eq!(found.len(), whole, "bit {bit}");
            match whole {
                2 => assert_eq!(end, Step::Torn { offset }),
                _ => assert_eq!(end, Step::Damaged { offset }, "bit {bit}"),
            }
        }
    }

    #[test]
    fn zeros_and_moved_records_are_no_records() {
        assert_eq!(read(&[0; 64]).1, Step::Torn { offset: 100 });
        let mut moved = file(&[b"first", b"again"]);
        moved.drain(..13);
        assert_eq!(read(&moved).1, Step::Torn { offset: 100 });
    }

    #[test]
    fn golden_bytes() {
        let bytes = file(&[b"hedge"]);
        assert_eq!(bytes[4..], *b"\x05\0\0\0hedge");
        let sum = crate::format::checksum::checksum(seed_of(&[SEED, 100]), b"\x05\0\0\0hedge");
        assert_eq!(bytes[..4], sum.to_le_bytes());
        assert_eq!(sum, 3_738_952_771, "golden");
    }
}
