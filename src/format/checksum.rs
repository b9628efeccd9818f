//! Checksums of everything that reaches a disk.
//!
//! CRC-32 (the IEEE polynomial) detects every burst of up to 32 bits and every
//! odd number of flipped bits. It protects against accidents, not against an
//! adversary (see SECURITY.md).
//!
//! A checksum is *seeded* with where the bytes belong (store, file, offset,
//! generation), so that intact bytes in the wrong place do not pass.

use std::ops::Range;

/// A running CRC-32 that was started with a seed.
#[derive(Debug, Clone)]
pub(crate) struct Checksum(crc32fast::Hasher);

impl Checksum {
    /// Starts a checksum bound to `seed`.
    pub(crate) fn seeded(seed: u64) -> Self {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&seed.to_le_bytes());
        Self(hasher)
    }

    /// Starts a checksum of bytes that are to follow others, see [`Checksum::join`].
    pub(crate) fn of_rest() -> Self {
        Self(crc32fast::Hasher::new())
    }

    /// Adds the bytes of `rest`, which was started with [`Checksum::of_rest`].
    pub(crate) fn join(&mut self, rest: &Self) {
        self.0.combine(&rest.0);
    }

    /// Adds bytes.
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The checksum of the seed and all bytes added.
    pub(crate) fn finish(self) -> u32 {
        self.0.finalize()
    }
}

/// Checksums of any parts of some bytes, each at the price of a few dozen bytes, however long it
/// is: from sums of beginnings, by what makes the sum of two parts that of the whole.
#[derive(Debug)]
pub(crate) struct PartSums<'a> {
    bytes: &'a [u8],
    /// Of what comes before each multiple of [`MARK_BYTES`].
    marks: Vec<u32>,
}

/// Bytes between two beginnings of which sums are kept.
const MARK_BYTES: usize = 64;

impl<'a> PartSums<'a> {
    /// Goes through `bytes` once.
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        let mut running = crc32fast::Hasher::new();
        let mut marks = vec![0];
        for piece in bytes.chunks_exact(MARK_BYTES) {
            running.update(piece);
            marks.push(running.clone().finalize());
        }
        Self { bytes, marks }
    }

    fn of_beginning(&self, len: usize) -> u32 {
        let mark = len / MARK_BYTES;
        let mut sum = crc32fast::Hasher::new_with_initial(self.marks[mark]);
        sum.update(&self.bytes[mark * MARK_BYTES..len]);
        sum.finalize()
    }

    /// As [`checksum`] of that part of the bytes, which lies within them.
    pub(crate) fn checksum(&self, seed: u64, part: Range<usize>) -> u32 {
        let len = part.len() as u64;
        let mut before = crc32fast::Hasher::new_with_initial(self.of_beginning(part.start));
        before.combine(&crc32fast::Hasher::new_with_initial_len(0, len));
        let own = self.of_beginning(part.end) ^ before.finalize();
        let mut sum = Checksum::seeded(seed);
        sum.join(&Checksum(crc32fast::Hasher::new_with_initial_len(own, len)));
        sum.finish()
    }
}

/// Checksum of `bytes` bound to `seed`.
pub(crate) fn checksum(seed: u64, bytes: &[u8]) -> u32 {
    let mut sum = Checksum::seeded(seed);
    sum.update(bytes);
    sum.finish()
}

/// Mixes identifiers into one checksum seed. Order matters.
pub(crate) fn seed_of(parts: &[u64]) -> u64 {
    // splitmix64's finaliser over a running sum: full avalanche, so that
    // neighbouring file numbers or offsets give unrelated seeds.
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    for part in parts {
        state = mix64(
            state
                .wrapping_add(*part)
                .wrapping_mul(0xD6E8_FEB8_6659_FD93),
        );
    }
    state
}

/// splitmix64's finaliser (Steele, Lea, Flood 2014).
pub(crate) fn mix64(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seed_changes_the_checksum() {
        assert_ne!(checksum(1, b"hedge"), checksum(2, b"hedge"));
        assert_ne!(seed_of(&[1, 2]), seed_of(&[2, 1]));
    }

    #[test]
    fn pieces_and_whole_agree() {
        let mut sum = Checksum::seeded(7);
        sum.update(b"hedge");
        sum.update(b"row");
        assert_eq!(sum.finish(), checksum(7, b"hedgerow"));
    }

    #[test]
    fn sums_of_parts_are_those_of_the_parts() {
        let bytes: Vec<u8> = (0..300_u32).map(|n| (n * n / 7) as u8).collect();
        let sums = PartSums::new(&bytes);
        for start in 0..=bytes.len() {
            for end in [start, start + 1, start + 63, start + 64, 256, bytes.len()] {
                if (start..=bytes.len()).contains(&end) {
                    let wanted = checksum(9, &bytes[start..end]);
                    assert_eq!(sums.checksum(9, start..end), wanted, "{start}..{end}");
                }
            }
        }
    }

    #[test]
    fn parts_that_were_summed_apart_can_be_joined() {
        let mut sum = Checksum::seeded(7);
        for part in [&b"hedge"[..], b"", b"row"] {
            let mut rest = Checksum::of_rest();
            rest.update(part);
            sum.join(&rest);
        }
        assert_eq!(sum.finish(), checksum(7, b"hedgerow"));
    }
}
