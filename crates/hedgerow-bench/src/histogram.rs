//! A histogram of latencies with a bounded relative error.
//!
//! Log-linear, as HdrHistogram is: every power of two is divided into 128 equal buckets, so a
//! bucket is at most 1/128 of its values wide, and the middle of a bucket is within 0.4 % of
//! everything in it. Small numbers, count, sum, minimum and maximum are exact. One histogram
//! belongs to one thread; the results of threads are merged.

/// Buckets per power of two, as a power of two.
const SUB_BITS: u32 = 7;
const SUB_BUCKETS: u64 = 1 << SUB_BITS;
/// Numbers below `SUB_BUCKETS` have a bucket each; every further power of two has as many.
const BUCKETS: usize = ((64 - SUB_BITS as usize) + 1) << SUB_BITS;

/// Counts of recorded numbers, which are nanoseconds throughout the benchmarks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram {
    counts: Box<[u64]>,
    count: u64,
    sum: u128,
    min: u64,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            counts: vec![0; BUCKETS].into(),
            count: 0,
            sum: 0,
            min: u64::MAX,
            max: 0,
        }
    }
}

#[inline]
fn bucket_of(value: u64) -> usize {
    // Numbers below 2 * SUB_BUCKETS are not shifted: they have a bucket each.
    let shift = 63 - SUB_BITS - (value | SUB_BUCKETS).leading_zeros();
    ((u64::from(shift) << SUB_BITS) + (value >> shift)) as usize
}

/// The middle of a bucket.
fn middle_of(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < 2 * SUB_BUCKETS {
        return bucket;
    }
    let shift = (bucket >> SUB_BITS) - 1;
    let low = (bucket - (shift << SUB_BITS)) << shift;
    low + ((1 << shift) >> 1)
}

impl Histogram {
    /// An empty histogram.
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts `value`.
    #[inline]
    pub fn record(&mut self, value: u64) {
        self.counts[bucket_of(value)] += 1;
        self.count += 1;
        self.sum += u128::from(value);
        self.min = self.min.min(value);
        self.max = self.max.max(value);
    }

    /// Adds everything that `other` counted.
    pub fn merge(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.count += other.count;
        self.sum += other.sum;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
    }

    /// How many numbers were counted.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// True if nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.count == 0
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
        self.sum as f64 / self.count as f64
    }

    /// A number that `percent` per cent of the counted ones do not exceed, within 0.4 %; 0 if
    /// nothing was counted.
    pub fn percentile(&self, percent: f64) -> u64 {
        let rank = (percent / 100.0 * self.count as f64).ceil() as u64;
        let rank = rank.clamp(1, self.count.max(1));
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return middle_of(bucket).clamp(self.min, self.max);
            }
        }
        0
    }

    /// How many counted numbers are at least `value`, to the precision of a bucket.
    pub fn count_at_least(&self, value: u64) -> u64 {
        self.counts[bucket_of(value)..].iter().sum()
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
    fn buckets_are_narrow_and_in_order() {
        let mut last = 0;
        for shift in 0..64 {
            for offset in [0u64, 1, 3, 77] {
                let value = (1u64 << shift).saturating_add(offset << (shift / 2));
                let bucket = bucket_of(value);
                assert!(bucket < BUCKETS, "{value}");
                assert!(bucket_of(value.saturating_add(1)) >= bucket);
                let error = middle_of(bucket).abs_diff(value) as f64 / value as f64;
                assert!(error <= 1.0 / 256.0, "{value}: {error}");
            }
            assert!(bucket_of(1 << shift) >= last);
            last = bucket_of(1 << shift);
        }
        assert!(bucket_of(u64::MAX) < BUCKETS);
        for value in 0..256 {
            assert_eq!(
                middle_of(bucket_of(value)),
                value,
                "small numbers are exact"
            );
        }
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
