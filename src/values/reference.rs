//! References: where a value lies that is stored apart from its key, and what it must read like.
//!
//! An engine keeps a reference as bytes, in the place of the value:
//!
//! ```text
//! reference := file:varint offset:varint length:varint checksum:u32+
//! ```
//!
//! A value has a checksum for each of its *chunks* ([`chunk_len`]), so that a part of a long value
//! is read and checked without the rest, and a reference stays shorter than a kilobyte.

use std::ops::Range;

use crate::format::checksum::{Checksum, checksum};
use crate::format::coding::{MAX_VARINT_LEN_BYTES, Malformed, Reader, encode_varint, get_u32};
use crate::types::MAX_VALUE_LEN_BYTES;
use crate::util::mutants::mutated;

/// Shortest chunk: values up to this length have one checksum.
const MIN_CHUNK_LEN_BYTES: usize = 64 << 10;
/// Most chunks of a value.
const MAX_CHUNKS: usize = 64;
/// Longest reference.
pub(crate) const MAX_REF_LEN_BYTES: usize = 3 * MAX_VARINT_LEN_BYTES + 4 * MAX_CHUNKS;
/// Files have numbers below this, and lengths up to it.
const NUMBER_END: u64 = 1 << 62;

/// Length of all chunks but the last of a value of `len_bytes`: 64 KiB, or the lowest power of two
/// above it of which 64 are enough.
pub(crate) fn chunk_len(len_bytes: usize) -> usize {
    let mut chunk = MIN_CHUNK_LEN_BYTES;
    while chunk * MAX_CHUNKS < len_bytes {
        chunk *= 2;
    }
    chunk
}

/// The checksums of a value's chunks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Digest {
    len_bytes: usize,
    count: usize,
    checksums: [u32; MAX_CHUNKS],
}

impl Digest {
    /// Of `value`, which has at most [`MAX_VALUE_LEN_BYTES`], with checksums bound to `seed`.
    pub(crate) fn new(seed: u64, value: &[u8]) -> Self {
        let mut digest = Self {
            len_bytes: value.len(),
            count: 0,
            checksums: [0; MAX_CHUNKS],
        };
        for chunk in value.chunks(chunk_len(value.len())) {
            digest.checksums[digest.count] = checksum(seed, chunk);
            digest.count += 1;
        }
        digest
    }

    /// Length of the value.
    pub(crate) fn len_bytes(&self) -> usize {
        self.len_bytes
    }

    /// `changed` of `value`, of which this is the digest, is other bytes now.
    pub(crate) fn renew(&mut self, seed: u64, value: &[u8], changed: Range<usize>) {
        let len = chunk_len(value.len());
        for (at, chunk) in value.chunks(len).enumerate() {
            if at * len < changed.end && changed.start < at * len + chunk.len() {
                self.checksums[at] = checksum(seed, chunk);
            }
        }
    }

    /// The reference to the value, if it lies at `offset` of value file `file`.
    pub(crate) fn place(&self, file: u64, offset: u64) -> EncodedRef {
        let mut encoded = EncodedRef {
            bytes: [0; MAX_REF_LEN_BYTES],
            len: 0,
        };
        for number in [file, offset, self.len_bytes as u64] {
            let mut varint = [0; MAX_VARINT_LEN_BYTES];
            let len = encode_varint(&mut varint, number);
            encoded.push(&varint[..len]);
        }
        for checksum in &self.checksums[..self.count] {
            encoded.push(&checksum.to_le_bytes());
        }
        encoded
    }
}

/// The checksums of a value that comes in pieces, and whose length is not known before its end.
///
/// What is a chunk depends on the length. So there is a checksum without a seed for each of at most
/// 64 chunks that would do for what has come so far; when there are more, neighbours are joined.
#[derive(Debug)]
pub(crate) struct GrowingDigest {
    seed: u64,
    len_bytes: usize,
    chunk_len: usize,
    /// Of chunks that are full, but for the last one.
    chunks: Vec<Checksum>,
}

impl GrowingDigest {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            seed,
            len_bytes: 0,
            chunk_len: MIN_CHUNK_LEN_BYTES,
            chunks: Vec::new(),
        }
    }

    /// Adds bytes. All of them together are at most [`MAX_VALUE_LEN_BYTES`].
    pub(crate) fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let in_last = self.len_bytes % self.chunk_len;
            if in_last == 0 {
                if self.chunks.len() == MAX_CHUNKS && !mutated!("growing-digest-keeps-its-chunks") {
                    self.join_neighbours();
                    continue;
                }
                self.chunks.push(Checksum::of_rest());
            }
            let (now, later) = bytes.split_at(bytes.len().min(self.chunk_len - in_last));
            let last = self.chunks.last_mut().expect("one was begun");
            last.update(now);
            self.len_bytes += now.len();
            bytes = later;
        }
    }

    /// Has chunks of twice the length. There is an even number of them, all full.
    fn join_neighbours(&mut self) {
        self.chunk_len *= 2;
        let pairs = self.chunks.chunks(2);
        let joined = pairs.map(|pair| {
            let mut sum = pair[0].clone();
            pair[1..].iter().for_each(|rest| sum.join(rest));
            sum
        });
        self.chunks = joined.collect();
    }

    /// The checksums of the value, which has ended.
    pub(crate) fn finish(self) -> Digest {
        let mut digest = Digest {
            len_bytes: self.len_bytes,
            count: 0,
            checksums: [0; MAX_CHUNKS],
        };
        for chunk in &self.chunks {
            let mut sum = Checksum::seeded(self.seed);
            sum.join(chunk);
            if let Some(place) = digest.checksums.get_mut(digest.count) {
                *place = sum.finish();
                digest.count += 1;
            }
        }
        digest
    }
}

/// An encoded reference, on the stack.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EncodedRef {
    bytes: [u8; MAX_REF_LEN_BYTES],
    len: usize,
}

impl EncodedRef {
    fn push(&mut self, bytes: &[u8]) {
        self.bytes[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// A decoded reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ValueRef<'a> {
    /// Number of the value file.
    pub(crate) file: u64,
    /// Where the value begins in it.
    pub(crate) offset: u64,
    /// Length of the value.
    pub(crate) len_bytes: usize,
    checksums: &'a [u8],
}

impl<'a> ValueRef<'a> {
    /// Decodes what [`Digest::place`] made.
    pub(crate) fn decode(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let (file, offset) = (reader.varint()?, reader.varint()?);
        let len_bytes = reader.len(MAX_VALUE_LEN_BYTES)?;
        let chunks = len_bytes.div_ceil(chunk_len(len_bytes));
        let checksums = reader.take(4 * chunks)?;
        let is_possible = (1..NUMBER_END).contains(&file) && offset < NUMBER_END;
        if !is_possible || !reader.is_empty() {
            return Err(Malformed);
        }
        Ok(Self {
            file,
            offset,
            len_bytes,
            checksums,
        })
    }

    /// Length of the longest reference to a value of `len_bytes`.
    pub(crate) fn len_max(len_bytes: usize) -> usize {
        3 * MAX_VARINT_LEN_BYTES + 4 * len_bytes.div_ceil(chunk_len(len_bytes))
    }

    /// Length of the value's chunks.
    pub(crate) fn chunk_len(&self) -> usize {
        chunk_len(self.len_bytes)
    }

    /// The first chunk of `chunks`, the bytes of some from chunk `first` on, that differs from what
    /// was written: its number.
    pub(crate) fn first_damaged(&self, seed: u64, first: usize, chunks: &[u8]) -> Option<usize> {
        let expected = |chunk: usize| get_u32(self.checksums, 4 * chunk);
        (first..)
            .zip(chunks.chunks(self.chunk_len()))
            .find(|(chunk, bytes)| checksum(seed, bytes) != expected(*chunk))
            .map(|(chunk, _)| chunk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes() {
        let digest = Digest::new(7, b"0123456789abcdef");
        let sum = checksum(7, b"0123456789abcdef").to_le_bytes();
        let encoded = digest.place(300, 5);
        assert_eq!(
            encoded.as_bytes(),
            [&b"\xac\x02\x05\x10"[..], &sum].concat()
        );
    }

    #[test]
    fn references_round_trip_and_name_what_is_damaged() {
        for len in [0, 1, 65_536, 65_537, (4 << 20) - 1, 4 << 20, (4 << 20) + 1] {
            let mut value: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
            let encoded = Digest::new(1, &value).place(u64::from(u32::MAX), 1 << 40);
            let found = ValueRef::decode(encoded.as_bytes()).unwrap();
            assert_eq!((found.file, found.offset), (u64::from(u32::MAX), 1 << 40));
            assert_eq!(found.len_bytes, len);
            assert_eq!(found.first_damaged(1, 0, &value), None);
            let chunk = found.chunk_len();
            assert!(len <= chunk * MAX_CHUNKS);
            for at in [0, len / 2, len.saturating_sub(1)] {
                if len > 0 {
                    value[at] ^= 1;
                    assert_eq!(found.first_damaged(1, 0, &value), Some(at / chunk));
                    let from = at / chunk * chunk;
                    let rest = &value[from..];
                    assert_eq!(found.first_damaged(1, at / chunk, rest), Some(at / chunk));
                    value[at] ^= 1;
                }
            }
        }
    }

    #[test]
    fn longest_values_have_references_of_bounded_length() {
        assert_eq!(chunk_len(MAX_VALUE_LEN_BYTES), 4 << 20);
        assert_eq!(
            MAX_VALUE_LEN_BYTES.div_ceil(chunk_len(MAX_VALUE_LEN_BYTES)),
            64
        );
        const { assert!(MAX_REF_LEN_BYTES < 1024) };
    }

    #[test]
    fn a_value_in_pieces_has_the_checksums_of_the_whole() {
        let chunk = MIN_CHUNK_LEN_BYTES;
        let mut piece_len = 1;
        for len in [
            0,
            1,
            chunk,
            chunk + 1,
            64 * chunk - 1,
            64 * chunk,
            64 * chunk + 1,
            65 * chunk,
            128 * chunk + 1,
            300 * chunk + 5,
        ] {
            let value: Vec<u8> = (0..len).map(|at| (at % 253) as u8).collect();
            let mut growing = GrowingDigest::new(9);
            let mut rest = &value[..];
            while !rest.is_empty() {
                piece_len = (piece_len * 5 + 77) % (5 * chunk) + 1;
                let (piece, later) = rest.split_at(piece_len.min(rest.len()));
                growing.update(piece);
                rest = later;
            }
            let (pieces, whole) = (growing.finish(), Digest::new(9, &value));
            let (pieces, whole) = (pieces.place(3, 64), whole.place(3, 64));
            assert_eq!(pieces.as_bytes(), whole.as_bytes(), "{len}");
        }
    }

    #[test]
    fn malformed_references_are_refused() {
        let encoded = Digest::new(1, &[1; 70_000]).place(9, 128);
        let bytes = encoded.as_bytes();
        for len in 0..bytes.len() {
            assert_eq!(
                ValueRef::decode(&bytes[..len]),
                Err(Malformed),
                "cut to {len}"
            );
        }
        let longer = [bytes, &[0]].concat();
        assert_eq!(ValueRef::decode(&longer), Err(Malformed));
        let none = Digest::new(1, b"v").place(0, 128);
        assert_eq!(ValueRef::decode(none.as_bytes()), Err(Malformed));
        let beyond = Digest::new(1, b"v").place(1, u64::MAX);
        assert_eq!(ValueRef::decode(beyond.as_bytes()), Err(Malformed));
    }
}
