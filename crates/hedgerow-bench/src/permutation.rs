//! A keyed permutation of `0..n`, computed, not stored.
//!
//! A random fill must write every key exactly once: drawn with replacement, 37 % of the keys
//! would never exist (1/e), and a later read of a random key would miss that often. A shuffled
//! list of numbers would cost memory and a cache miss for each operation, so the order is computed:
//! a balanced Feistel network permutes the smallest power of four that holds `n`, and a result
//! outside `0..n` is permuted again until it falls inside (*cycle walking*: the path from a number
//! inside follows its cycle of the larger permutation, and so comes back inside). The domain is
//! below four times `n`, so that takes less than four rounds on average.

use crate::rng::mix64;

/// Rounds of the Feistel network. Four are enough for a pseudo-random permutation (Luby and
/// Rackoff).
const ROUNDS: usize = 4;

/// A permutation of `0..len`, chosen by a seed.
#[derive(Debug, Clone)]
pub struct Permutation {
    len: u64,
    half_bits: u32,
    keys: [u64; ROUNDS],
}

impl Permutation {
    /// The permutation of `0..len` that belongs to `seed`. `len` is at most 2^62.
    pub fn new(len: u64, seed: u64) -> Self {
        assert!(len <= 1 << 62, "a permutation of {len} numbers");
        let bits = u64::BITS - len.saturating_sub(1).leading_zeros();
        Self {
            len,
            half_bits: bits.div_ceil(2).max(1),
            keys: std::array::from_fn(|round| mix64(mix64(seed) ^ round as u64)),
        }
    }

    /// How many numbers are permuted.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// True for the permutation of nothing.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where `index`, which must be below [`Permutation::len`], goes.
    #[inline]
    pub fn at(&self, index: u64) -> u64 {
        assert!(index < self.len, "{index} is not below {}", self.len);
        let mut value = self.feistel(index);
        while value >= self.len {
            value = self.feistel(value);
        }
        value
    }

    #[inline]
    fn feistel(&self, value: u64) -> u64 {
        let mask = (1 << self.half_bits) - 1;
        let (mut left, mut right) = (value >> self.half_bits, value & mask);
        for key in self.keys {
            (left, right) = (right, left ^ (mix64(right ^ key) & mask));
        }
        (left << self.half_bits) | right
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn covers_every_number_once() {
        for len in [1, 2, 3, 4, 5, 15, 16, 17, 1000, 65_536, 65_537, 100_003] {
            let permutation = Permutation::new(len, 42);
            let mut seen = vec![false; len as usize];
            for index in 0..len {
                let value = permutation.at(index) as usize;
                assert!(!seen[value], "{value} came twice of {len}");
                seen[value] = true;
            }
        }
        assert!(Permutation::new(0, 1).is_empty());
    }

    #[test]
    fn is_not_the_identity_and_depends_on_the_seed() {
        let (one, two) = (Permutation::new(10_000, 1), Permutation::new(10_000, 2));
        let fixed = (0..10_000).filter(|&i| one.at(i) == i).count();
        let equal = (0..10_000).filter(|&i| one.at(i) == two.at(i)).count();
        // Either count is one on average.
        assert!(fixed < 10, "{fixed} fixed points");
        assert!(equal < 10, "{equal} equal places");
    }

    #[test]
    fn neighbours_are_scattered() {
        let permutation = Permutation::new(1_000_000, 9);
        let ascending = (1..10_000)
            .filter(|&i| permutation.at(i - 1) < permutation.at(i))
            .count();
        assert!((4_700..5_300).contains(&ascending), "{ascending}");
    }

    #[test]
    #[should_panic(expected = "is not below")]
    fn refuses_what_is_outside() {
        Permutation::new(10, 1).at(10);
    }
}
