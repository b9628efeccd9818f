//! Seeded random numbers for tests: splitmix64, so that a seed printed by one machine
//! repeats the run on any other.

/// Where decisions come from: a seed, or the bytes that a fuzzer made up.
pub trait Source {
    /// The next 64 bits.
    fn bits(&mut self) -> u64;

    /// A number below `limit`, which is not zero. Biased by less than the tests can notice.
    fn below(&mut self, limit: u64) -> u64 {
        self.bits() % limit
    }

    /// True once in `n` calls on average.
    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// One element of a non-empty slice.
    fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len() as u64) as usize]
    }

    /// An index into `weights`, each with the chance that its weight gives it.
    fn weighted(&mut self, weights: &[u32]) -> usize {
        let total = weights.iter().map(|w| u64::from(*w)).sum();
        let mut at = self.below(total);
        for (index, weight) in weights.iter().enumerate() {
            match at.checked_sub(u64::from(*weight)) {
                Some(rest) => at = rest,
                None => return index,
            }
        }
        unreachable!("the weights add up to the limit")
    }
}

/// Sebastiano Vigna's splitmix64.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// Numbers that follow from a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// `len` bytes, half of them compressible: runs of one byte between random ones.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(len);
        while bytes.len() < len {
            let word = self.bits();
            bytes.extend_from_slice(&word.to_le_bytes());
            bytes.extend_from_slice(&[word as u8; 8]);
        }
        bytes.truncate(len);
        bytes
    }

    /// Puts `items` into a random order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for end in (1..items.len()).rev() {
            items.swap(end, self.below(end as u64 + 1) as usize);
        }
    }
}

impl Source for Random {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}
