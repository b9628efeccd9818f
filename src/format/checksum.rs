//! Checksums of everything that reaches a disk.
//!
//! CRC-32 (the IEEE polynomial) detects every burst of up to 32 bits and every
//! odd number of flipped bits. It protects against accidents, not against an
//! adversary (see SECURITY.md).
//!
//! A checksum is *seeded* with where the bytes belong (store, file, offset,
//! generation), so that intact bytes in the wrong place do not pass.

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
