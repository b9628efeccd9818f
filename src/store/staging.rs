//! Large batches that are committed and that their engines do not have yet.
//!
//! To apply a batch of a million operations takes a second. If it were visible only after that, no
//! commit behind it could be: they become visible in their order. So a large batch is *staged*: as
//! soon as it is logged (and durable, if it has to be) it is laid over each of its keyspaces, which
//! takes no time, and is visible. Then its thread has the engines apply it; until that is done
//! reads look into the batch first, and commits to these keyspaces wait, before they are logged. To
//! commits of other keyspaces a large batch is one record of the log, no more.
//!
//! # Invariants
//!
//! - **ST1** A batch that is staged in a keyspace is what the keyspace has, where it has
//!   something, whatever part of it the engine has by then: nothing else is applied meanwhile.
//! - **ST2** It counts once it is published, for all of its keyspaces in the same moment, and not
//!   for snapshots before that.
//! - **ST3** A view, an answer about several keys, and that a key is absent, is taken in one state
//!   of the keyspace: without a batch, or with one over what the engine has. If that has changed
//!   meanwhile, it is taken again. A view of an engine that has a part of a batch is never used
//!   without the batch.
//! - **ST4** The log keeps the record of a staged batch.

use std::ops::Bound;
use std::sync::Arc;

use arc_swap::ArcSwapOption;

use super::batch_index::BatchIndex;
use super::commit_values::PlacedValues;
use crate::engine::{Laid, Overlay, OwnEntry, SnapshotTracker};
use crate::error::Result;
use crate::kv::Batch;
use crate::types::{KeyRange, SeqNo, SequencedOp, Value};
use crate::util::mutants::mutated;
use crate::util::sync::atomic::{AtomicU64, Ordering};

/// True if a batch for a keyspace can be laid over what its engine has. For that it has to be in
/// the order of its keys before it is logged, when keys that hold its number are not known; and
/// what a merge makes of a value is known where the value is.
pub(super) fn can_be_staged(batch: &Batch) -> bool {
    !batch.has_stamped_keys() && !batch.has_merges()
}

/// A batch for one keyspace that is logged, and that its engine does not have yet.
#[derive(Debug)]
pub(super) struct StagedBatch {
    pub(super) batch: Batch,
    pub(super) index: BatchIndex,
    /// Of its operations.
    pub(super) first: SeqNo,
    pub(super) last: SeqNo,
    /// The last operation of the commit that it is a part of: they are visible together.
    pub(super) commit: SeqNo,
    /// References to values of the commit that are stored apart.
    pub(super) values: Arc<PlacedValues>,
}

impl StagedBatch {
    /// What the engine is to apply.
    pub(super) fn ops(&self) -> Vec<SequencedOp<'_>> {
        let value_ref = |seq| self.values.of(seq);
        self.index
            .ops(&self.batch, (self.first, self.last), value_ref)
    }

    /// The reference that lies over `key`.
    pub(super) fn value_ref(&self, key: &[u8]) -> Laid<Option<Vec<u8>>> {
        self.index.over(&self.batch, key).map(|(_, number)| {
            let seq = self.first.plus(u64::from(number));
            self.values.of(seq).map(<[u8]>::to_vec)
        })
    }
}

impl Overlay for StagedBatch {
    fn over(&self, key: &[u8]) -> Laid<&[u8]> {
        self.index.over(&self.batch, key).map(|(value, _)| value)
    }

    fn removed_range(&self, key: &[u8]) -> Option<KeyRange> {
        self.index.removed_range(key).cloned()
    }

    fn first_put(&self, start: Bound<&[u8]>) -> Option<OwnEntry> {
        self.index.first_put(&self.batch, start).map(owned)
    }

    fn last_put(&self, end: Bound<&[u8]>) -> Option<OwnEntry> {
        self.index.last_put(&self.batch, end).map(owned)
    }
}

fn owned((key, value): (&[u8], &[u8])) -> OwnEntry {
    (key.to_vec(), Some(Value::copy_from(value)))
}

/// Where a large batch lies over one keyspace.
///
/// Aligned so that what reads load is on a line that other writes do not touch.
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct Staging {
    /// Odd while there is a batch.
    generation: AtomicU64,
    batch: ArcSwapOption<StagedBatch>,
    snapshot_tracker: Arc<SnapshotTracker>,
}

impl Staging {
    pub(super) fn new(snapshot_tracker: Arc<SnapshotTracker>) -> Self {
        Self {
            generation: AtomicU64::new(0),
            batch: ArcSwapOption::empty(),
            snapshot_tracker,
        }
    }

    /// Lays a batch over the keyspace. There is none.
    pub(super) fn stage(&self, batch: &Arc<StagedBatch>) {
        let generation = self.generation.load(Ordering::Relaxed);
        debug_assert!(generation.is_multiple_of(2), "ST1: one at a time");
        self.batch.store(Some(Arc::clone(batch)));
        self.generation.store(generation + 1, Ordering::Release);
    }

    /// The engine has all of the batch.
    pub(super) fn clear(&self) {
        let generation = self.generation.load(Ordering::Relaxed);
        debug_assert!(!generation.is_multiple_of(2), "there is one");
        self.generation.store(generation + 1, Ordering::Release);
        self.batch.store(None);
    }

    /// The batch that lies over the keyspace, for a read of one key. If there is none, the engine
    /// has everything that was visible when this was called.
    #[inline]
    pub(super) fn visible(&self) -> Option<Arc<StagedBatch>> {
        if self.generation.load(Ordering::Acquire).is_multiple_of(2) {
            return None;
        }
        self.find_visible()
    }

    #[cold]
    fn find_visible(&self) -> Option<Arc<StagedBatch>> {
        let batch = self.batch.load_full();
        batch.filter(|batch| {
            batch.commit <= self.snapshot_tracker.published()
                || mutated!("staged-batch-read-before-it-is-published")
        })
    }

    /// What `read` finds under one key: it is told of the batch that lies over the keyspace. A key
    /// that is found was there, or is; but one that is not may be in the part of a batch that came
    /// meanwhile, of which the engine has another part that hides what was there before.
    #[inline]
    pub(super) fn of_one_key<T>(
        &self,
        mut read: impl FnMut(Option<&StagedBatch>) -> Result<Option<T>>,
    ) -> Result<Option<T>> {
        loop {
            let generation = self.generation.load(Ordering::Acquire);
            let batch = match generation.is_multiple_of(2) {
                true => None,
                false => self.find_visible(),
            };
            let found = read(batch.as_deref())?;
            if found.is_some()
                || mutated!("lookup-in-a-part-of-a-batch")
                || self.generation.load(Ordering::Acquire) == generation
                    && (batch.is_some() || self.visible().is_none())
            {
                return Ok(found);
            }
        }
    }

    /// What `read` makes of the keyspace in one state (ST3), which it is told.
    pub(super) fn in_one_state<T>(
        &self,
        read: impl Fn(Option<Arc<StagedBatch>>) -> Result<T>,
    ) -> Result<T> {
        loop {
            let generation = self.generation.load(Ordering::Acquire);
            let batch = self.visible();
            let is_visible = batch.is_some();
            let found = read(batch)?;
            if mutated!("view-of-a-part-of-a-batch")
                || self.generation.load(Ordering::Acquire) == generation
                    && (is_visible || self.visible().is_none())
            {
                return Ok(found);
            }
        }
    }

    /// What `read` makes of the keyspace as it was when everything up to `seq` was published, and
    /// nothing else (ST2). `None` if `read` gives that.
    pub(super) fn at<T>(
        &self,
        seq: SeqNo,
        read: impl Fn(Option<Arc<StagedBatch>>) -> Option<T>,
    ) -> Option<T> {
        loop {
            let generation = self.generation.load(Ordering::Acquire);
            let batch = match generation.is_multiple_of(2) {
                true => None,
                false => self.batch.load_full(),
            };
            let counts = |batch: &Arc<StagedBatch>| batch.commit <= seq;
            let found = read(batch.filter(counts))?;
            if self.generation.load(Ordering::Acquire) == generation {
                return Some(found);
            }
        }
    }

    /// The first operation that the engine may not have (ST4). What the engine says of itself has
    /// to be asked for after this.
    pub(super) fn first_staged(&self) -> Option<SeqNo> {
        if self.generation.load(Ordering::Acquire).is_multiple_of(2)
            || mutated!("log-of-a-staged-batch-released")
        {
            return None;
        }
        self.batch.load().as_ref().map(|batch| batch.first)
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn staging(published: u64) -> (Staging, Arc<SnapshotTracker>) {
        let tracker = Arc::new(SnapshotTracker::default());
        tracker.publish(SeqNo(published));
        (Staging::new(Arc::clone(&tracker)), tracker)
    }

    /// Operations 11 and 12, of a commit that ends with number 15.
    fn batch() -> Arc<StagedBatch> {
        let mut batch = Batch::new();
        batch.put("a", "1");
        batch.delete("b");
        Arc::new(StagedBatch {
            index: BatchIndex::new(&batch),
            batch,
            first: SeqNo(11),
            last: SeqNo(12),
            commit: SeqNo(15),
            values: Arc::default(),
        })
    }

    #[test]
    fn a_batch_counts_once_all_of_its_commit_is_published() {
        let (staging, tracker) = staging(12);
        assert!(staging.visible().is_none() && staging.first_staged().is_none());
        staging.stage(&batch());
        assert_eq!(staging.first_staged(), Some(SeqNo(11)));
        assert!(staging.visible().is_none());
        let is_seen = |seq| staging.at(SeqNo(seq), |batch| Some(batch.is_some()));
        assert_eq!(
            [12, 14, 15, 16].map(is_seen),
            [false, false, true, true].map(Some)
        );
        tracker.publish(SeqNo(15));
        let visible = staging.visible().expect("it is published");
        assert_eq!(visible.over(b"a"), Laid::Put(&b"1"[..]));
        assert_eq!(
            (visible.over(b"b"), visible.over(b"c")),
            (Laid::Deleted, Laid::Nothing)
        );
        // A snapshot that was taken before sees nothing of it.
        assert_eq!(
            [12, 14, 15, 16].map(is_seen),
            [false, false, true, true].map(Some)
        );
        staging.clear();
        assert!(staging.visible().is_none() && staging.first_staged().is_none());
    }

    #[test]
    fn what_was_read_while_a_batch_came_or_went_is_read_again() {
        let (staging, tracker) = staging(12);
        // It comes, is published, goes, and comes and goes again.
        let steps: [&dyn Fn(); 5] = [
            &|| staging.stage(&batch()),
            &|| tracker.publish(SeqNo(15)),
            &|| staging.clear(),
            &|| {
                staging.stage(&batch());
                staging.clear();
            },
            &|| (),
        ];
        let mut seen = Vec::new();
        for step in steps {
            let reads = Cell::new(0);
            let read = |batch: Option<Arc<StagedBatch>>| {
                if reads.replace(reads.get() + 1) == 0 {
                    step();
                }
                Ok(batch.is_some())
            };
            seen.push((staging.in_one_state(read).unwrap(), reads.get()));
        }
        assert_eq!(
            seen,
            [(false, 2), (true, 2), (false, 2), (false, 2), (false, 1)]
        );
    }

    #[test]
    fn a_view_of_a_moment_is_taken_again_if_a_batch_goes_meanwhile() {
        let (staging, _tracker) = staging(15);
        staging.stage(&batch());
        let reads = Cell::new(0);
        let seen = staging.at(SeqNo(15), |batch| {
            if reads.replace(reads.get() + 1) == 0 {
                staging.clear();
            }
            Some(batch.is_some())
        });
        assert_eq!((seen, reads.get()), (Some(false), 2));
        assert_eq!(staging.at(SeqNo(15), |_| None::<()>), None);
    }
}
