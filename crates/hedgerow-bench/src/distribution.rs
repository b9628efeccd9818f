//! Which key an operation touches: uniform, zipfian, scrambled zipfian, latest, hot set.
//!
//! The zipfian generator is that of Gray et al., "Quickly Generating Billion-Record Synthetic
//! Databases" (SIGMOD 1994), with the constant 0.99 that YCSB made customary. There are two of
//! them, and they are not the same load:
//!
//! - [`Distribution::Zipfian`] draws ranks among the keys that exist. The hottest 1 % of a million
//!   keys gets 66 % of the accesses.
//! - [`Distribution::Scrambled`] is what YCSB calls "zipfian" by default: ranks among ten billion
//!   items, hashed with 64-bit FNV-1a and folded onto the keys that exist. Most of the mass lies on
//!   ranks that are folded evenly, so the hottest 1 % of a million keys gets only about 39 %.
//!
//! Ranks say how hot a key is, not where it lies: [`Distribution::Zipfian`] scatters them over the
//! key space with a [`Permutation`], so that hot keys are not neighbours by accident.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::permutation::Permutation;
use crate::rng::Rng;

/// YCSB's zipfian constant.
pub const THETA: f64 = 0.99;
/// How many items YCSB's scrambled generator draws from.
pub const SCRAMBLED_ITEMS: u64 = 10_000_000_000;
/// `zeta(SCRAMBLED_ITEMS, THETA)`, precomputed as in YCSB: summing it takes a minute.
pub const SCRAMBLED_ZETA: f64 = 26.469_028_201_783_02;
/// The hot set of [`Distribution::Hot`]: one key in this many.
const HOT_ONE_IN: u64 = 100;

/// A way to choose keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Distribution {
    /// Every key is as likely as any other.
    Uniform,
    /// Zipf over the keys that exist, hot keys scattered over the key space.
    Zipfian,
    /// YCSB's scrambled zipfian: flatter than [`Distribution::Zipfian`].
    Scrambled,
    /// Zipf by age: the newest key is the hottest.
    Latest,
    /// Uniform over the first hundredth of the keys (db_bench's `readhot`).
    Hot,
}

impl Distribution {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Uniform,
        Self::Zipfian,
        Self::Scrambled,
        Self::Latest,
        Self::Hot,
    ];

    /// Its name on the command line and in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Uniform => "uniform",
            Self::Zipfian => "zipfian",
            Self::Scrambled => "scrambled",
            Self::Latest => "latest",
            Self::Hot => "hot",
        }
    }
}

impl fmt::Display for Distribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Distribution {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|known| known.name() == name);
        found.ok_or_else(|| {
            let known = Self::ALL.map(Self::name).join(", ");
            Error::usage(format!("unknown distribution {name:?}: use one of {known}"))
        })
    }
}

/// `sum of i^-theta for i in 1..=n`.
pub fn zeta(n: u64, theta: f64) -> f64 {
    (1..=n).map(|i| (i as f64).powf(-theta)).sum()
}

/// 64-bit FNV-1a.
pub fn fnv1a64(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// YCSB's hash of an item number: FNV-1a of its little-endian bytes, without the sign.
fn ycsb_hash(item: u64) -> u64 {
    (fnv1a64(&item.to_le_bytes()) as i64).unsigned_abs()
}

/// Draws ranks `0..n` with probability proportional to `1 / (rank + 1)^theta`.
#[derive(Debug, Clone)]
pub struct Zipf {
    n: u64,
    zeta_n: f64,
    alpha: f64,
    eta: f64,
    /// Below this, `u * zeta(n)` means rank 1.
    second: f64,
}

impl Zipf {
    /// Ranks `0..n` with YCSB's constant. Sums `n` terms: 20 ms for a million.
    pub fn new(n: u64) -> Self {
        Self::with_zeta(n, zeta(n, THETA))
    }

    /// Ranks `0..n` where `zeta(n)` is known.
    pub fn with_zeta(n: u64, zeta_n: f64) -> Self {
        assert!(n > 0, "nothing to draw from");
        let zeta_2 = zeta(2, THETA);
        Self {
            n,
            zeta_n,
            alpha: 1.0 / (1.0 - THETA),
            // For n <= 2 the ranks 0 and 1 are decided before eta is used.
            eta: (1.0 - (2.0 / n as f64).powf(1.0 - THETA)) / (1.0 - zeta_2 / zeta_n),
            second: zeta_2,
        }
    }

    /// The next rank.
    #[inline]
    pub fn draw(&self, rng: &mut Rng) -> u64 {
        let u = rng.unit();
        let uz = u * self.zeta_n;
        if uz < 1.0 || self.n == 1 {
            return 0;
        }
        if uz < self.second || self.n == 2 {
            return 1;
        }
        let rank = self.n as f64 * (self.eta * u - self.eta + 1.0).powf(self.alpha);
        // Rounding may give n itself when u is next to 1.
        (rank as u64).min(self.n - 1)
    }
}

/// Chooses among the records `0..records`, by one [`Distribution`]. Immutable: threads share it,
/// each with its own [`Rng`].
#[derive(Debug, Clone)]
pub struct Chooser {
    shape: Shape,
}

#[derive(Debug, Clone)]
enum Shape {
    Uniform,
    Zipfian { zipf: Zipf, place: Permutation },
    Scrambled(Zipf),
    Latest(Zipf),
    Hot,
}

impl Chooser {
    /// Prepares to choose among `records` records, at least one.
    pub fn new(distribution: Distribution, records: u64, seed: u64) -> Self {
        let shape = match distribution {
            Distribution::Uniform => Shape::Uniform,
            Distribution::Zipfian => Shape::Zipfian {
                zipf: Zipf::new(records),
                place: Permutation::new(records, seed),
            },
            Distribution::Scrambled => {
                Shape::Scrambled(Zipf::with_zeta(SCRAMBLED_ITEMS, SCRAMBLED_ZETA))
            }
            Distribution::Latest => Shape::Latest(Zipf::new(records)),
            Distribution::Hot => Shape::Hot,
        };
        Self { shape }
    }

    /// Chooses a record among `0..records`, where `records` may have grown since the chooser was
    /// made. Zipfian ranks stay among the original ones; the latest follows the newest.
    #[inline]
    pub fn choose(&self, rng: &mut Rng, records: u64) -> u64 {
        match &self.shape {
            Shape::Uniform => rng.below(records),
            Shape::Zipfian { zipf, place } => place.at(zipf.draw(rng)),
            Shape::Scrambled(zipf) => ycsb_hash(zipf.draw(rng)) % records,
            Shape::Latest(zipf) => records - 1 - zipf.draw(rng).min(records - 1),
            Shape::Hot => rng.below(records.div_ceil(HOT_ONE_IN)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeta_sums_are_known() {
        assert_eq!(zeta(0, THETA), 0.0);
        assert_eq!(zeta(1, THETA), 1.0);
        assert!((zeta(2, THETA) - 1.503_478).abs() < 1e-6);
        // The harmonic numbers are zeta with theta 1.
        assert!((zeta(100, 1.0) - 5.187_377_517_639_621).abs() < 1e-12);
        // Euler-Maclaurin joins our sum to YCSB's constant for ten billion items:
        // zeta(n) ~ C + n^(1-theta)/(1-theta), with the same C for all large n.
        let rest = |n: f64| n.powf(1.0 - THETA) / (1.0 - THETA);
        let constant = zeta(1_000_000, THETA) - rest(1e6);
        let joined = constant + rest(SCRAMBLED_ITEMS as f64);
        assert!((joined - SCRAMBLED_ZETA).abs() < 1e-5, "{joined}");
    }

    #[test]
    fn fnv_matches_its_test_vectors() {
        assert_eq!(fnv1a64(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a64(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv1a64(b"foobar"), 0x8594_4171_f739_67e8);
    }

    /// The share of accesses that the hottest `hot` of `records` keys get.
    fn hottest_share(distribution: Distribution, records: u64, hot: usize) -> f64 {
        let chooser = Chooser::new(distribution, records, 3);
        let mut rng = Rng::new(11);
        let draws = 2_000_000;
        let mut counts = vec![0u32; records as usize];
        for _ in 0..draws {
            counts[chooser.choose(&mut rng, records) as usize] += 1;
        }
        counts.sort_unstable_by(|a, b| b.cmp(a));
        f64::from(counts[..hot].iter().sum::<u32>()) / f64::from(draws)
    }

    #[test]
    fn hottest_hundredth_gets_its_share() {
        let zipfian = hottest_share(Distribution::Zipfian, 1_000_000, 10_000);
        assert!((0.64..0.69).contains(&zipfian), "{zipfian}");
        let scrambled = hottest_share(Distribution::Scrambled, 1_000_000, 10_000);
        assert!((0.36..0.42).contains(&scrambled), "{scrambled}");
        let latest = hottest_share(Distribution::Latest, 1_000_000, 10_000);
        assert!((0.64..0.69).contains(&latest), "{latest}");
        let uniform = hottest_share(Distribution::Uniform, 1_000_000, 10_000);
        assert!((0.01..0.05).contains(&uniform), "{uniform}");
        let hot = hottest_share(Distribution::Hot, 1_000_000, 10_000);
        assert_eq!(hot, 1.0);
    }

    #[test]
    fn ranks_have_the_probability_of_zipf() {
        let n = 1000;
        let (zipf, zeta_n) = (Zipf::new(n), zeta(n, THETA));
        let mut rng = Rng::new(5);
        let draws = 1_000_000;
        let mut counts = vec![0u32; n as usize];
        for _ in 0..draws {
            counts[zipf.draw(&mut rng) as usize] += 1;
        }
        for rank in [0, 1] {
            let expected = ((rank + 1) as f64).powf(-THETA) / zeta_n;
            let drawn = f64::from(counts[rank]) / f64::from(draws);
            assert!(
                (drawn / expected - 1.0).abs() < 0.02,
                "rank {rank}: {drawn} {expected}"
            );
        }
        // The generator approximates the tail; its sum must be right.
        let tail = f64::from(counts[10..].iter().sum::<u32>()) / f64::from(draws);
        let expected = 1.0 - zeta(10, THETA) / zeta_n;
        assert!((tail / expected - 1.0).abs() < 0.03, "{tail} {expected}");
    }

    #[test]
    fn small_and_growing_sets_stay_in_range() {
        let mut rng = Rng::new(8);
        for distribution in Distribution::ALL {
            for records in [1, 2, 3, 7, 1000] {
                let chooser = Chooser::new(distribution, records, 1);
                for grown in [records, records + 5] {
                    for _ in 0..2000 {
                        assert!(chooser.choose(&mut rng, grown) < grown, "{distribution}");
                    }
                }
            }
        }
    }

    #[test]
    fn latest_follows_the_newest() {
        let chooser = Chooser::new(Distribution::Latest, 1000, 1);
        let mut rng = Rng::new(2);
        let newest = (0..10_000)
            .filter(|_| chooser.choose(&mut rng, 5000) == 4999)
            .count();
        assert!(newest > 1000, "{newest}");
    }

    #[test]
    fn names_parse_back() {
        for distribution in Distribution::ALL {
            assert_eq!(
                distribution.name().parse::<Distribution>().unwrap(),
                distribution
            );
        }
        let error = "pareto".parse::<Distribution>().unwrap_err().to_string();
        assert!(
            error.contains("pareto") && error.contains("scrambled"),
            "{error}"
        );
    }
}
