//! About how many of the puts that are packed without a look at their leaf are new entries.
//!
//! A share of the leaves that could do without are looked at all the same, and what they show is
//! taken for the others. Nothing but figures depends on that.

/// Leaves that are looked at before the first estimate.
const FIRST_SAMPLES: u64 = 8;
/// One leaf in so many is looked at afterwards. A prime: checkpoints that find as many leaves as
/// each other do not look at the same ones.
const SAMPLED_ONE_IN: u64 = 17;
/// Puts after which what was seen counts half, so that the share follows the workload.
const PUTS_REMEMBERED: u64 = 512;
/// A share of one, and an entry, in the fixed-point numbers here.
const ONE: u64 = 1 << 16;

/// What was learnt from the puts to a tree that were compared with their leaf.
#[derive(Debug, Clone, Default)]
pub(super) struct NewEntries {
    /// Leaves that could be estimated.
    leaves: u64,
    /// Puts that were compared, those of late, and how many of them were new entries.
    puts: u64,
    new: u64,
    /// What estimates left over, in parts of [`ONE`]: otherwise those for one put each would never
    /// add up to an entry.
    rest: u64,
}

impl NewEntries {
    /// A leaf could be estimated. True if it is to be looked at all the same.
    pub(super) fn is_sample(&mut self) -> bool {
        self.leaves += 1;
        self.leaves <= FIRST_SAMPLES || self.leaves.is_multiple_of(SAMPLED_ONE_IN)
    }

    /// Of `puts` that were compared with their leaf, `new` were new entries.
    pub(super) fn learn(&mut self, puts: usize, new: usize) {
        self.puts += puts as u64;
        self.new += new as u64;
        while self.puts > PUTS_REMEMBERED {
            self.puts /= 2;
            self.new /= 2;
        }
    }

    /// About how many of the next `puts` are new entries: none of them, all, or any number between.
    pub(super) fn estimate(&mut self, puts: usize) -> usize {
        let share = (self.new * ONE).checked_div(self.puts).unwrap_or(0);
        let sum = puts as u64 * share + self.rest;
        self.rest = sum % ONE;
        (sum / ONE) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn estimates_add_up_to_the_share_that_was_seen() {
        for new in [0, 1, 37, 99, 100] {
            let mut entries = NewEntries::default();
            assert_eq!(entries.estimate(5), 0);
            entries.learn(100, new);
            for each in [1, 3, 50] {
                let sum: usize = (0..1000)
                    .map(|_| {
                        let estimate = entries.estimate(each);
                        assert!(estimate <= each);
                        estimate
                    })
                    .sum();
                let expected = 10 * each * new;
                assert!(
                    sum.abs_diff(expected) <= 1 + each / 10,
                    "{sum}, not {expected}"
                );
            }
        }
    }

    #[test]
    fn the_share_follows_the_workload() {
        let mut entries = NewEntries::default();
        entries.learn(1_000_000, 1_000_000);
        assert_eq!(entries.estimate(100), 100);
        for _ in 0..50 {
            entries.learn(100, 0);
        }
        assert!(entries.estimate(100) < 10);
    }

    #[test]
    fn a_few_leaves_are_looked_at() {
        let mut entries = NewEntries::default();
        let samples = (0..1700).filter(|_| entries.is_sample()).count();
        assert_eq!(samples as u64, FIRST_SAMPLES + 1700 / SAMPLED_ONE_IN);
    }
}
