//! What scans have paid for changes that are not in the file yet, and when a checkpoint is cheaper.
//!
//! A scan over a leaf with changes in memory merges them with its page at each step, and pays for
//! every change that it comes to. A checkpoint merges them once. When scans have paid as much as a
//! checkpoint would cost, one is due, though the write buffer is not full: so reads never pay more
//! than twice what the best choice of the moment would have cost them, whatever comes next.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::util::sharded::ShardedCounter;

/// Steps over changes that cost about as much as a checkpoint does whatever it writes: its syncs,
/// at 50 ns a step.
const STEPS_PER_CHECKPOINT: u64 = 100_000;

/// Steps that cost about as much as merging a leaf, its checksum, and writing it.
const STEPS_PER_LEAF: u64 = 500;

/// A thread looks at the sum of all threads about once in so many steps of its own.
const STEPS_BETWEEN_LOOKS: u64 = 1024;

/// The cost of merging so far.
///
/// Thread-safe. Counting is cheap and exact; that a checkpoint is due is found out a little late.
#[derive(Debug, Default)]
pub(crate) struct MergeCost {
    steps: ShardedCounter,
    /// How many of them were before the last checkpoint.
    paid: AtomicU64,
    /// Leaves that the next checkpoint writes, about.
    leaves: AtomicU64,
    is_due: AtomicBool,
}

impl MergeCost {
    /// A scan of the current tree came to `steps` changes.
    #[inline]
    pub(crate) fn add(&self, steps: u64) {
        let of_thread = self.steps.add_to_shard(steps);
        if of_thread / STEPS_BETWEEN_LOOKS != (of_thread - steps) / STEPS_BETWEEN_LOOKS {
            self.look();
        }
    }

    #[cold]
    fn look(&self) {
        let steps = self
            .steps
            .sum()
            .saturating_sub(self.paid.load(Ordering::Relaxed));
        let leaves = self.leaves.load(Ordering::Relaxed);
        if steps > STEPS_PER_CHECKPOINT + leaves * STEPS_PER_LEAF {
            self.is_due.store(true, Ordering::Relaxed);
        }
    }

    /// A leaf of the file, or one that a checkpoint is writing, is about to be changed.
    pub(crate) fn add_leaf(&self) {
        self.leaves.fetch_add(1, Ordering::Relaxed);
    }

    /// A checkpoint begins to write all leaves that have been changed.
    pub(crate) fn begin_checkpoint(&self) {
        self.leaves.store(0, Ordering::Relaxed);
        self.settle();
    }

    /// Begins to count anew. When a checkpoint ends, what scans paid while it ran is no reason for
    /// the next one.
    pub(crate) fn settle(&self) {
        self.paid.store(self.steps.sum(), Ordering::Relaxed);
        self.is_due.store(false, Ordering::Relaxed);
    }

    /// Scans have paid as much as a checkpoint would cost.
    #[inline]
    pub(crate) fn is_due(&self) -> bool {
        self.is_due.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_is_due_when_it_would_have_been_cheaper() {
        let cost = MergeCost::default();
        for leaves in [0, 10, 1000] {
            cost.begin_checkpoint();
            (0..leaves).for_each(|_| cost.add_leaf());
            let price = STEPS_PER_CHECKPOINT + leaves * STEPS_PER_LEAF;
            let mut paid = 0;
            while !cost.is_due() {
                cost.add(7);
                paid += 7;
            }
            assert!(paid > price, "{paid} of {price}");
            assert!(paid < price + 2 * STEPS_BETWEEN_LOOKS, "{paid} of {price}");
            cost.settle();
            cost.add(price / 2);
            assert!(!cost.is_due());
        }
    }
}
