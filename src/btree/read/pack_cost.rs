//! What reads have paid for packs, and when it is cheaper to write all leaves whole.
//!
//! A read of a leaf with packs looks into two or three pieces instead of one. A compaction in the
//! background writes leaves whole, which costs once; then no read pays any more. When it begins is
//! decided by what reads have paid since the last one ended:
//!
//! - A quarter of what the compaction costs is enough while no commits come. It has a processor of
//!   its own then, as a rule, and the reads that go on gain until commits come again.
//! - All of what it costs is enough beside commits, if they changed no more leaves meanwhile than
//!   there are: then most leaves stay without packs until as much would be paid again. If they
//!   changed more, the count begins anew.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use crate::util::mutants::mutated;
use crate::util::sharded::ShardedCounter;

/// What a lookup in a pack costs, in nanoseconds, where half of the pages are in no cache of the
/// processor.
pub(crate) const LOOKUP_NS: u64 = 1000;
/// The same for a scan, which copies the changes of the leaf.
pub(crate) const SCAN_NS: u64 = 2500;

/// Merging a leaf, its checksum, and writing it.
const LEAF_NS: u64 = 25_000;
/// What a compaction costs whatever it writes: the syncs of its checkpoints.
const SYNCS_NS: u64 = 5_000_000;
/// This part of the cost is enough while no commits come.
const PART_IF_QUIET: u64 = 4;

/// A thread looks at the sum of all threads about once in so much of its own.
const BETWEEN_LOOKS_NS: u64 = 50_000;

/// How urgent it is that leaves are written whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Due {
    No,
    /// As soon as no commits come.
    IfQuiet,
    /// Beside commits.
    Always,
}

/// What was paid so far.
///
/// Thread-safe. Counting is cheap and exact; that something is due is found out a little late.
#[derive(Debug)]
pub(crate) struct PackCost {
    paid_ns: ShardedCounter,
    /// How much of it has been acted on.
    settled_ns: AtomicU64,
    /// Leaves of the file.
    leaves: AtomicU64,
    /// Leaves that commits have changed since the count began.
    changed: AtomicU64,
    due: AtomicU8,
}

impl Default for PackCost {
    fn default() -> Self {
        Self {
            paid_ns: ShardedCounter::default(),
            settled_ns: AtomicU64::new(0),
            leaves: AtomicU64::new(0),
            changed: AtomicU64::new(0),
            due: AtomicU8::new(Due::No as u8),
        }
    }
}

impl PackCost {
    /// A read of the current tree has paid so much. True if it made something due.
    #[inline]
    pub(crate) fn add(&self, ns: u64) -> bool {
        let of_thread = self.paid_ns.add_to_shard(ns);
        of_thread / BETWEEN_LOOKS_NS != (of_thread - ns) / BETWEEN_LOOKS_NS && self.look()
    }

    #[cold]
    fn look(&self) -> bool {
        let settled = self.settled_ns.load(Ordering::Relaxed);
        let paid = self.paid_ns.sum().saturating_sub(settled);
        let leaves = self.leaves.load(Ordering::Relaxed);
        let cost = SYNCS_NS + leaves * LEAF_NS;
        let due = if paid < cost / PART_IF_QUIET {
            Due::No
        } else if paid < cost {
            Due::IfQuiet
        } else if self.changed.load(Ordering::Relaxed) <= leaves
            || mutated!("packs-settled-under-a-stream-of-changes")
        {
            Due::Always
        } else {
            self.changed.store(0, Ordering::Relaxed);
            self.settled_ns.store(settled + paid, Ordering::Relaxed);
            Due::IfQuiet
        };
        self.due.fetch_max(due as u8, Ordering::Relaxed) < due as u8
    }

    /// A commit changes a leaf of the file, or one that a checkpoint is writing.
    pub(crate) fn add_changed_leaf(&self) {
        self.changed.fetch_add(1, Ordering::Relaxed);
    }

    /// The file has so many leaves.
    pub(crate) fn set_leaves(&self, leaves: u64) {
        self.leaves.store(leaves, Ordering::Relaxed);
    }

    /// All leaves were written whole.
    pub(crate) fn settle(&self) {
        self.changed.store(0, Ordering::Relaxed);
        self.settled_ns.store(self.paid_ns.sum(), Ordering::Relaxed);
        self.due.store(Due::No as u8, Ordering::Relaxed);
    }

    /// Whether leaves are to be written whole.
    #[inline]
    pub(crate) fn due(&self) -> Due {
        match self.due.load(Ordering::Relaxed) {
            due if due == Due::No as u8 => Due::No,
            due if due == Due::IfQuiet as u8 => Due::IfQuiet,
            _ => Due::Always,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pays until that is due; returns how much.
    fn pay_until(cost: &PackCost, due: Due) -> u64 {
        let mut paid = 0;
        while cost.due() < due {
            let became_due = cost.add(LOOKUP_NS);
            paid += LOOKUP_NS;
            assert!(!became_due || cost.due() > Due::No);
            assert!(paid < 1 << 40, "never due");
        }
        paid
    }

    #[test]
    fn whole_leaves_are_due_when_they_would_have_been_cheaper() {
        for leaves in [0, 10, 1000] {
            let cost = PackCost::default();
            cost.set_leaves(leaves);
            let price = SYNCS_NS + leaves * LEAF_NS;
            let about = |paid: u64, price: u64| {
                assert!(paid >= price, "{paid} of {price}");
                assert!(paid <= price + 2 * BETWEEN_LOOKS_NS, "{paid} of {price}");
            };
            for _ in 0..2 {
                let quiet = pay_until(&cost, Due::IfQuiet);
                about(quiet, price / PART_IF_QUIET);
                // Changes of all leaves are no reason against it.
                (0..leaves).for_each(|_| cost.add_changed_leaf());
                about(quiet + pay_until(&cost, Due::Always), price);
                cost.settle();
                assert_eq!(cost.due(), Due::No);
            }
        }
    }

    #[test]
    fn under_a_stream_of_changes_whole_leaves_wait_for_a_pause() {
        let cost = PackCost::default();
        cost.set_leaves(10);
        let price = SYNCS_NS + 10 * LEAF_NS;
        for _ in 0..5 {
            (0..11).for_each(|_| cost.add_changed_leaf());
            let mut paid = 0;
            while paid < price + 2 * BETWEEN_LOOKS_NS {
                cost.add(SCAN_NS);
                paid += SCAN_NS;
            }
            assert_eq!(cost.due(), Due::IfQuiet);
        }
        // The stream ends, and reads pay again for what it left.
        pay_until(&cost, Due::Always);
    }
}
