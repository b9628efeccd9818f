//! A histogram of latencies with a bounded relative error.
//!
//! The buckets are those of HdrHistogram: every power of two is divided into 128 equal ones, so the
//! middle of a bucket is within 0.4 % of everything in it, and numbers below 256 are exact. Beside
//! it stand what buckets would round and tables show: sum, minimum and maximum. One histogram
//! belongs to one thread; the results of threads are merged.

use hdrhistogram::Histogram as Buckets;

/// Significant decimal digits, for which 128 buckets in each power of two are enough.
const DIGITS: u8 = 2;
/// Larger numbers count as this one: 292 years, in nanoseconds.
const LARGEST: u64 = i64::MAX as u64;

/// Counts of recorded numbers, which are nanoseconds throughout the benchmarks.
#[derive(Debug, Clone, PartialEq)]
pub struct Histogram {
    buckets: Buckets<u64>,
    sum: u128,
    min: u64,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            buckets: Buckets::new_with_bounds(1, LARGEST, DIGITS).expect("the bounds are constant"),
            sum: 0,
            min: u64::MAX,
            max: 0,
        }
    }
}

impl Histogram {
    /// An empty histogram.
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts `value`.
    #[inline]
    pub fn record(&mut self, value: u64) {
        self.buckets.saturating_record(value);
        self.sum += u128::from(value);
        self.min = self.min.min(value);
        self.max = self.max.max(value);
    }

    /// Adds everything that `other` counted.
    pub fn merge(&mut self, other: &Self) {
        let merged = self.buckets.add(&other.buckets);
        merged.expect("all histograms have the same bounds");
        self.sum += other.sum;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
    }

    /// How many numbers were counted.
    pub fn count(&self) -> u64 {
        self.buckets.len()
    }

    /// True if nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }

    /// The smallest number; 0 if there is none.
    pub fn min(&self) -> u64 {
        if self.is_empty() { 0 } else { self.min }
    }

    /// The largest number; 0 if there is none.
    pub fn max(&self) -> u64 {
        self.max
    }

    /// The mean; 0 if nothing was counted.
    pub fn mean(&self) -> f64 {
        if self.is_empty() {
            return 0.0;
        }
        self.sum as f64 / self.count() as f64
    }

    /// A number that `percent` per cent of the counted ones do not exceed, within 0.4 %; 0 if
    /// nothing was counted.
    pub fn percentile(&self, percent: f64) -> u64 {
        if self.is_empty() {
            return 0;
        }
        let edge = self.buckets.value_at_quantile(percent / 100.0);
        // The middle of the bucket: its edges are twice as far from what may be in it.
        self.buckets
            .median_equivalent(edge)
            .clamp(self.min, self.max)
    }

    /// How many counted numbers are at least `value`, to the precision of a bucket.
    pub fn count_at_least(&self, value: u64) -> u64 {
        self.buckets.count_between(value, LARGEST)
    }

    /// The points of the curve that plots draw: percentiles, denser towards the top, with their
    /// values.
    pub fn curve(&self) -> Vec<(f64, u64)> {
        const PERCENTS: [f64; 16] = [
            0.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 98.0, 99.0, 99.5, 99.8, 99.9, 99.95, 99.99,
            99.999, 100.0,
        ];
        if self.is_empty() {
            return Vec::new();
        }
        let point = |percent| (percent, self.percentile(percent));
        PERCENTS.map(point).to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    #[test]
    fn buckets_are_narrow_and_small_numbers_exact() {
        let middle_of = |value: u64| {
            let mut histogram = Histogram::new();
            histogram.record(value);
            // Others on both sides, so that least and most do not correct the middle.
            histogram.record(0);
            histogram.record(u64::MAX);
            histogram.percentile(50.0)
        };
        for value in 0..256 {
            assert_eq!(middle_of(value), value, "small numbers are exact");
        }
        for shift in 8..63 {
            for offset in [0u64, 1, 3, 77] {
                let value = (1u64 << shift) + (offset << (shift / 2));
                let error = middle_of(value).abs_diff(value) as f64 / value as f64;
                assert!(error <= 1.0 / 256.0, "{value}: {error}");
            }
        }
        let mut largest = Histogram::new();
        largest.record(u64::MAX);
        assert_eq!(
            (largest.max(), largest.percentile(100.0)),
            (u64::MAX, u64::MAX)
        );
    }

    #[test]
    fn percentiles_agree_with_a_sorted_list() {
        for seed in 0..5 {
            let mut rng = Rng::new(seed);
            let mut histogram = Histogram::new();
            let mut all = Vec::new();
            for _ in 0..20_000 {
                // From nanoseconds to minutes.
                let value = rng.next_u64() >> (24 + rng.below(38));
                histogram.record(value);
                all.push(value);
            }
            all.sort_unstable();
            for percent in [0.0, 1.0, 25.0, 50.0, 90.0, 99.0, 99.9, 99.99, 100.0] {
                let rank = ((percent / 100.0 * all.len() as f64).ceil() as usize).max(1);
                let (exact, found) = (all[rank - 1], histogram.percentile(percent));
                let error = exact.abs_diff(found) as f64 / (exact as f64).max(1.0);
                assert!(
                    error <= 0.01,
                    "seed {seed}, {percent} %: {found}, exactly {exact}"
                );
            }
            assert_eq!((histogram.min(), histogram.max()), (all[0], all[19_999]));
            let mean = all.iter().sum::<u64>() as f64 / all.len() as f64;
            assert!((histogram.mean() / mean - 1.0).abs() < 1e-9);
            let exact = all.iter().filter(|&&value| value >= 1 << 20).count() as u64;
            assert_eq!(histogram.count_at_least(1 << 20), exact);
        }
    }

    #[test]
    fn merging_is_recording_in_one() {
        let mut rng = Rng::new(3);
        let (mut whole, mut parts) = (Histogram::new(), vec![Histogram::new(); 4]);
        for i in 0..10_000 {
            let value = rng.below(1 << 30);
            whole.record(value);
            parts[i % 4].record(value);
        }
        let mut merged = Histogram::new();
        for part in &parts {
            merged.merge(part);
        }
        assert_eq!(merged, whole);
    }

    #[test]
    fn an_empty_one_answers_zero() {
        let empty = Histogram::new();
        assert_eq!(
            (empty.min(), empty.max(), empty.percentile(99.0)),
            (0, 0, 0)
        );
        assert_eq!(empty.mean(), 0.0);
        assert!(empty.curve().is_empty());
    }
}
