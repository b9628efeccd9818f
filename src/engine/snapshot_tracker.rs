//! Which operations can be seen, and by whom.
//!
//! The store *publishes* a sequence number when every operation up to it has
//! been applied; a read without a snapshot sees what was published when it
//! began. A snapshot registers the number that it reads at, so that engines
//! keep what it can see.
//!
//! A snapshot's number is taken and registered in one critical section, and
//! [`SnapshotTracker::live`] answers from the same one. Hence: any snapshot that is missing from an
//! answer will have a number at or above the `published` in that answer.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use crate::error::Error;
use crate::types::SeqNo;
use crate::util::sync::Mutex;
use crate::util::sync::atomic::{AtomicU64, Ordering};

/// Published sequence number and live snapshots of one store.
#[derive(Debug, Default)]
pub(crate) struct SnapshotTracker {
    published: CacheLine<AtomicU64>,
    /// What was applied above `published` will never be published.
    abandoned: OnceLock<Error>,
    snapshots: Mutex<Snapshots>,
}

#[derive(Debug, Default)]
struct Snapshots {
    /// Live snapshots: sequence number and how many read at it.
    counts: BTreeMap<SeqNo, usize>,
    /// The lowest number that background work waits for all reads to reach.
    awaited: Option<SeqNo>,
}

impl Snapshots {
    fn oldest(&self) -> Option<SeqNo> {
        self.counts.keys().next().copied()
    }
}

/// Keeps the word that every reader loads away from words that writers change.
#[derive(Debug, Default)]
#[repr(align(128))]
struct CacheLine<T>(T);

/// The sequence numbers that reads may use, now and later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LiveSnapshots {
    /// Numbers of live snapshots, rising, without repetition.
    pub(crate) snapshots: Vec<SeqNo>,
    /// Published at the moment of asking; later snapshots have this number or a higher one.
    pub(crate) published: SeqNo,
}

impl SnapshotTracker {
    /// Everything up to `seq` has been applied. Called in commit order only.
    pub(crate) fn publish(&self, seq: SeqNo) {
        self.published.0.store(seq.0, Ordering::Release);
    }

    /// The last published sequence number.
    #[inline]
    pub(crate) fn published(&self) -> SeqNo {
        let seq = SeqNo(self.published.0.load(Ordering::Acquire));
        #[cfg(test)]
        crate::testing::just_after_a_number_was_taken();
        seq
    }

    /// A change was applied in part, because of `cause`, and will never be published: nothing may
    /// wait for it.
    pub(crate) fn abandon(&self, cause: &Error) {
        let _ = self.abandoned.set(Error::writes_stopped(cause));
    }

    /// What a wait for that change ends with, after [`SnapshotTracker::abandon`].
    pub(crate) fn abandoned(&self) -> Option<&Error> {
        self.abandoned.get()
    }

    /// Registers a snapshot at the published sequence number and returns it. The caller
    /// must keep commits from publishing meanwhile if views are taken with it.
    pub(crate) fn register(&self) -> SeqNo {
        let mut snapshots = self.snapshots.lock();
        let seq = self.published();
        *snapshots.counts.entry(seq).or_insert(0) += 1;
        seq
    }

    /// Ends a registration. True if background work [waited](Self::await_release) for that, and is
    /// to be woken.
    #[must_use]
    pub(crate) fn unregister(&self, seq: SeqNo) -> bool {
        let mut snapshots = self.snapshots.lock();
        match snapshots.counts.get_mut(&seq) {
            Some(1) => {
                snapshots.counts.remove(&seq);
            }
            Some(count) => *count -= 1,
            None => debug_assert!(false, "snapshot {seq} was not registered"),
        }
        let oldest_read = snapshots.oldest().unwrap_or_else(|| self.published());
        snapshots
            .awaited
            .take_if(|awaited| *awaited <= oldest_read)
            .is_some()
    }

    /// Background work becomes due when all reads are at `seq` or above. True if they are;
    /// otherwise the [`unregister`](Self::unregister) that makes it so returns true, to one waiter
    /// for all: a thread that is woken and still has something to wait for asks again.
    pub(crate) fn await_release(&self, seq: SeqNo) -> bool {
        let mut snapshots = self.snapshots.lock();
        let oldest_read = snapshots.oldest().unwrap_or_else(|| self.published());
        if oldest_read >= seq {
            return true;
        }
        let lowest = snapshots.awaited.map_or(seq, |awaited| awaited.min(seq));
        snapshots.awaited = Some(lowest);
        false
    }

    /// Everything that reads may still use.
    pub(crate) fn live(&self) -> LiveSnapshots {
        let snapshots = self.snapshots.lock();
        LiveSnapshots {
            snapshots: snapshots.counts.keys().copied().collect(),
            published: self.published(),
        }
    }

    /// The lowest number that reads use or may use, now or later.
    pub(crate) fn oldest_read(&self) -> SeqNo {
        let snapshots = self.snapshots.lock();
        snapshots.oldest().unwrap_or_else(|| self.published())
    }

    /// The oldest live snapshot, if any, and how many live.
    pub(crate) fn oldest(&self) -> (Option<SeqNo>, usize) {
        let snapshots = self.snapshots.lock();
        (snapshots.oldest(), snapshots.counts.values().sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshots_are_counted() {
        let snapshot_tracker = SnapshotTracker::default();
        snapshot_tracker.publish(SeqNo(5));
        let a = snapshot_tracker.register();
        let b = snapshot_tracker.register();
        snapshot_tracker.publish(SeqNo(9));
        let c = snapshot_tracker.register();
        assert_eq!((a, b, c), (SeqNo(5), SeqNo(5), SeqNo(9)));
        assert!(!snapshot_tracker.unregister(a));
        assert_eq!(snapshot_tracker.live().snapshots, [SeqNo(5), SeqNo(9)]);
        assert!(!snapshot_tracker.unregister(b));
        assert_eq!(snapshot_tracker.oldest(), (Some(SeqNo(9)), 1));
    }

    /// What a snapshot held came back when a thread woke up for another reason, seconds later.
    #[test]
    fn the_snapshot_that_was_waited_for_says_so_when_it_goes() {
        let snapshot_tracker = SnapshotTracker::default();
        let mut snapshots = Vec::new();
        for seq in [5, 7, 9] {
            snapshot_tracker.publish(SeqNo(seq));
            snapshots.push(snapshot_tracker.register());
        }
        snapshot_tracker.publish(SeqNo(20));
        assert!(snapshot_tracker.await_release(SeqNo(5)));
        // Two wait; the one that is woken first asks again, as the other does.
        assert!(!snapshot_tracker.await_release(SeqNo(12)));
        assert!(!snapshot_tracker.await_release(SeqNo(8)));
        assert!(!snapshot_tracker.unregister(SeqNo(5)));
        assert!(snapshot_tracker.unregister(SeqNo(7)));
        assert!(!snapshot_tracker.await_release(SeqNo(12)));
        assert!(snapshot_tracker.unregister(SeqNo(9)));
        assert!(snapshot_tracker.await_release(SeqNo(12)));
        let seq = snapshot_tracker.register();
        assert!(!snapshot_tracker.unregister(seq), "nothing waits");
    }
}
