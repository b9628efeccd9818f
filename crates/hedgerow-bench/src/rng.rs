//! Random numbers of the benchmarks: a run is repeatable from its seed.
//!
//! The generator is xoshiro256** (Blackman and Vigna, <https://prng.di.unimi.it/>), seeded by
//! SplitMix64 as its authors recommend, of the crate `rand_xoshiro`: benchmarks draw a number or
//! two for each operation, so it must cost about a nanosecond. What is made of its 64 bits stays
//! here, because records, values and orders of earlier runs follow from it: another way to draw
//! from a range would change them all. Not for secrets.

use rand_xoshiro::Xoshiro256StarStar;
use rand_xoshiro::rand_core::{Rng as _, SeedableRng as _};

/// A pseudo-random generator; equal seeds give equal sequences.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rng {
    bits: Xoshiro256StarStar,
}

/// The finalizer of SplitMix64: a bijection of the 64-bit integers without visible structure.
#[inline]
pub const fn mix64(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

impl Rng {
    /// A generator that starts from `seed`; any seed will do.
    pub fn new(seed: u64) -> Self {
        Self {
            bits: Xoshiro256StarStar::seed_from_u64(seed),
        }
    }

    /// The generator of stream number `stream` of a run: threads get independent sequences.
    pub fn of_stream(seed: u64, stream: u64) -> Self {
        Self::new(mix64(seed) ^ mix64(stream.wrapping_add(0x5851_f42d_4c95_7f2d)))
    }

    /// The next 64 bits.
    #[inline]
    pub fn next_u64(&mut self) -> u64 {
        self.bits.next_u64()
    }

    /// A number in `0..n`; `n` must not be zero.
    ///
    /// Lemire's multiply-and-shift without the rejection step: the bias is below `n / 2^64`, far
    /// under what any run could notice.
    #[inline]
    pub fn below(&mut self, n: u64) -> u64 {
        debug_assert!(n > 0, "an empty range has no members");
        ((u128::from(self.next_u64()) * u128::from(n)) >> 64) as u64
    }

    /// A number in `0.0..1.0`, with 53 random bits.
    #[inline]
    pub fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Fills `bytes` with random bytes.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let word = self.next_u64().to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As drawn before the generator came from a crate, and by the authors' own code: records and
    /// values of all runs follow from these numbers.
    #[test]
    fn sequences_are_those_of_earlier_runs() {
        let mut state = [0; 4];
        let mut seed = 7u64;
        for word in &mut state {
            seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
            *word = mix64(seed);
        }
        let mut rng = Rng::new(7);
        for _ in 0..100 {
            let expected = state[1].wrapping_mul(5).rotate_left(7).wrapping_mul(9);
            let shifted = state[1] << 17;
            state[2] ^= state[0];
            state[3] ^= state[1];
            state[1] ^= state[2];
            state[0] ^= state[3];
            state[2] ^= shifted;
            state[3] = state[3].rotate_left(45);
            assert_eq!(rng.next_u64(), expected);
        }
    }

    #[test]
    fn the_finalizer_matches_its_reference() {
        // The first outputs of the reference implementation of SplitMix64 for seed 1234567.
        let outputs = [1u64, 2]
            .map(|step| mix64(1_234_567u64.wrapping_add(step.wrapping_mul(0x9e37_79b9_7f4a_7c15))));
        assert_eq!(
            outputs,
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973]
        );
    }

    #[test]
    fn streams_and_seeds_differ() {
        let first = |seed, stream| Rng::of_stream(seed, stream).next_u64();
        assert_eq!(first(1, 2), first(1, 2));
        assert_ne!(first(1, 2), first(1, 3));
        assert_ne!(first(1, 2), first(2, 2));
        assert_ne!(first(1, 2), first(2, 1));
    }

    #[test]
    fn ranges_are_kept_and_even() {
        let mut rng = Rng::new(7);
        let mut counts = [0u32; 10];
        for _ in 0..100_000 {
            counts[rng.below(10) as usize] += 1;
            assert!((0.0..1.0).contains(&rng.unit()));
        }
        for count in counts {
            assert!((9_500..10_500).contains(&count), "{counts:?}");
        }
        let mut bytes = [0; 13];
        rng.fill(&mut bytes);
        assert!(bytes.iter().any(|&byte| byte != 0));
    }
}
