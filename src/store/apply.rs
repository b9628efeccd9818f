//! Applying commits to their keyspaces, and making them visible.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::apply_queue::Waiting;
use super::commit_values::PlacedValues;
use super::coordinator::Coordinator;
use super::handover::Handed;
use super::keyspaces::{KeyspaceChange, Keyspaces, OpenKeyspace};
use super::publication::Publisher;
use super::staging::StagedBatch;
use crate::engine::{EngineHost, HandedViews, Registered, SnapshotTracker};
use crate::error::{Error, Result};
use crate::kv::Batch;
use crate::types::{KeyRange, KeyspaceId, Op, SeqNo, SequencedOp};
use crate::util::mutants::mutated;

/// A change of several keyspaces, no keyspace twice.
pub(crate) type Parts = [(Arc<OpenKeyspace>, Batch)];

/// What happens when a commit is applied.
#[derive(Debug)]
pub(super) enum Effect {
    Ops {
        parts: Vec<(Arc<OpenKeyspace>, Batch)>,
        /// References to those that are stored apart.
        values: PlacedValues,
        /// See [`Condition::is_unseen`](super::commit::Condition).
        is_unseen: bool,
    },
    /// A large batch.
    Staged(LargeBatch),
    Keyspaces(KeyspaceChange),
    Load(Load),
}

/// A large batch. Its keyspaces are held.
#[derive(Debug, Clone)]
pub(super) struct LargeBatch {
    /// What is laid over its keyspace.
    pub(super) staged: Vec<(Arc<OpenKeyspace>, Arc<StagedBatch>)>,
    /// What cannot be staged: it is applied before the batch is visible.
    pub(super) direct: Arc<[DirectPart]>,
    /// References to values that are stored apart.
    pub(super) values: Arc<PlacedValues>,
}

/// A part of a large batch that engines take as they do other commits.
#[derive(Debug)]
pub(super) struct DirectPart {
    pub(super) keyspace: Arc<OpenKeyspace>,
    pub(super) batch: Batch,
    /// Of its operations.
    pub(super) first: SeqNo,
}

impl LargeBatch {
    /// What it writes, in the order of its numbers.
    pub(super) fn parts(&self) -> Vec<(KeyspaceId, &Batch)> {
        let staged = self.staged.iter();
        let staged = staged.map(|(open, staged)| (staged.first, open.id, &staged.batch));
        let direct = self.direct.iter();
        let direct = direct.map(|part| (part.first, part.keyspace.id, &part.batch));
        let mut parts: Vec<_> = staged.chain(direct).collect();
        parts.sort_by_key(|(first, ..)| *first);
        parts
            .into_iter()
            .map(|(_, id, batch)| (id, batch))
            .collect()
    }

    fn apply(&self) -> Result<()> {
        for part in &*self.direct {
            let ops = sequenced(&part.batch, part.first, &self.values);
            part.keyspace.engine.apply(&ops)?;
        }
        for (keyspace, batch) in &self.staged {
            keyspace.staging.stage(batch);
        }
        Ok(())
    }
}

/// A bulk load.
#[derive(Debug)]
pub(super) struct Load {
    pub(super) keyspace: Arc<OpenKeyspace>,
    /// For its engine.
    pub(super) content: Vec<u8>,
    /// The last of its numbers.
    pub(super) last: SeqNo,
    /// Holds all of its keys.
    pub(super) range: KeyRange,
}

impl Load {
    /// What it is to a commit that relies on its keys: a change of all in its range.
    pub(super) fn as_op(&self) -> Op<'_> {
        Op::DeleteRange {
            start: &self.range.start,
            end: self.range.end.as_deref(),
        }
    }
}

impl Effect {
    /// Those that it is applied to.
    pub(super) fn keyspaces(&self) -> impl Iterator<Item = &Arc<OpenKeyspace>> {
        let (parts, load) = match self {
            Self::Ops { parts, .. } => (parts.as_slice(), None),
            // Their keyspaces are held: nothing else is on its way there.
            Self::Staged(_) | Self::Keyspaces(_) => (&[][..], None),
            Self::Load(load) => (&[][..], Some(&load.keyspace)),
        };
        parts.iter().map(|(keyspace, _)| keyspace).chain(load)
    }

    /// It is visible: engines need no longer show the time before.
    pub(super) fn tell_published(&self) {
        if let Self::Load(load) = self {
            load.keyspace.engine.published();
        }
    }
}

/// What commits are applied to.
#[derive(Debug)]
pub(super) struct Applier {
    coordinator: Arc<Coordinator>,
    snapshot_tracker: Arc<SnapshotTracker>,
    keyspaces: Arc<Keyspaces>,
    pub(super) publisher: Publisher,
}

/// Which commits have gone to their keyspaces. Guarded by the log lock.
#[derive(Debug)]
pub(super) struct Taken {
    /// Up to here they are applied, or are in the queues of their keyspaces.
    pub(super) upto: SeqNo,
}

impl Taken {
    /// All up to `upto`.
    pub(super) fn new(upto: SeqNo) -> Self {
        Self { upto }
    }
}

impl Applier {
    pub(super) fn new(
        coordinator: Arc<Coordinator>,
        snapshot_tracker: Arc<SnapshotTracker>,
        keyspaces: Arc<Keyspaces>,
    ) -> Self {
        Self {
            coordinator,
            publisher: Publisher::new(Arc::clone(&snapshot_tracker)),
            snapshot_tracker,
            keyspaces,
        }
    }

    /// Notes that a commit which ends with `last` goes to its keyspaces. An error if a commit was
    /// applied in part (P3).
    pub(super) fn take(&self, taken: &mut Taken, last: SeqNo) -> Result<()> {
        taken.upto = last;
        self.publisher.check_not_abandoned()
    }

    /// The same for commits to several keyspaces, which this thread then applies.
    pub(super) fn take_turns<'a>(
        &'a self,
        taken: &mut Taken,
        last: SeqNo,
        keyspaces: impl Iterator<Item = &'a Arc<OpenKeyspace>>,
    ) -> Result<Vec<Turn<'a>>> {
        // Then nothing is left in the queues, and nothing comes while the log is locked.
        self.publisher.wait_for(taken.upto)?;
        self.take(taken, last)?;
        let mut keyspaces: Vec<_> = keyspaces.collect();
        keyspaces.sort_by_key(|keyspace| keyspace.id);
        keyspaces.dedup_by_key(|keyspace| keyspace.id);
        let turn = |keyspace: &'a Arc<OpenKeyspace>| {
            keyspace.apply_queue.enter();
            Turn(self, keyspace)
        };
        Ok(keyspaces.into_iter().map(turn).collect())
    }

    /// Waits until another thread has applied the commit; or goes on with it and what follows it.
    pub(super) fn wait_applied(&self, keyspace: &OpenKeyspace, waiting: &Waiting) -> Result<()> {
        if waiting.handover.wait() == Handed::Turn {
            self.leave(keyspace);
        }
        waiting.handover.result()
    }

    /// Applies what other threads have left in the queue of the keyspace. Does not wait until it is
    /// visible: what it comes after may be in another queue that this thread has to empty.
    fn leave(&self, keyspace: &OpenKeyspace) {
        for count in 0.. {
            let Some(waiting) = keyspace.apply_queue.next(count) else {
                return;
            };
            let applied = self
                .publisher
                .check_not_abandoned()
                .and_then(|()| self.caught(|| self.apply_waiting(keyspace, &waiting)));
            waiting.handover.note(applied.err());
            waiting.handover.finish();
        }
    }

    /// Applies a commit of one keyspace, by the thread whose turn it is.
    pub(super) fn apply_waiting(&self, keyspace: &OpenKeyspace, commit: &Waiting) -> Result<()> {
        let Waiting {
            batch,
            values,
            first,
            last,
            ..
        } = commit;
        if mutated!("published-before-applied") {
            self.snapshot_tracker.publish(*last);
        }
        let applied = keyspace.engine.apply(&sequenced(batch, *first, values));
        self.note_applied(*first, *last, batch.len() as u64, applied)
    }

    /// Registers a snapshot that takes its views late, at the number up to which commits are taken.
    /// The caller has the log locked.
    pub(super) fn register_late(&self, seq: SeqNo) -> (Registered, Arc<HandedViews>) {
        self.snapshot_tracker.register_late(seq)
    }

    /// Ends that, where nothing was read.
    pub(super) fn unregister_late(&self, at: Registered) {
        if self.snapshot_tracker.unregister_late(at) {
            self.coordinator.wake();
        }
    }

    /// What `apply` gives. A panic in it, be it in an engine or in a file system, is an error of
    /// the store.
    pub(super) fn caught(&self, apply: impl FnOnce() -> Result<()>) -> Result<()> {
        catch_unwind(AssertUnwindSafe(apply)).unwrap_or_else(|panic| {
            let error = Error::panicked("a commit", &*panic);
            self.abandon(&error);
            Err(error)
        })
    }

    /// Applies what is visible already. If that fails the store stops writing (P3).
    pub(super) fn apply_published(&self, apply: impl FnOnce() -> Result<()>) -> Result<()> {
        let applied = self.caught(apply);
        if let Err(error) = &applied {
            self.abandon(error);
        }
        applied
    }

    /// Nothing may build on what is applied now.
    fn abandon(&self, error: &Error) {
        self.coordinator.fail(error);
        self.snapshot_tracker.abandon(error);
        self.publisher.announce_failure();
    }

    /// Called by the thread that applied it, for a commit of `ops` operations, `first` to `last`.
    /// An engine that could not apply a logged change has a state that nothing may build on: the
    /// store stops writing (P3).
    pub(super) fn note_applied(
        &self,
        first: SeqNo,
        last: SeqNo,
        ops: u64,
        applied: Result<()>,
    ) -> Result<()> {
        if let Err(error) = applied {
            self.abandon(&error);
            return Err(error);
        }
        self.publisher.applied(first, last, ops);
        Ok(())
    }

    /// Does what a commit does to keyspaces, by the thread whose turn it is.
    pub(super) fn apply(&self, effect: &Effect, first: SeqNo) -> Result<()> {
        match effect {
            Effect::Ops { parts, values, .. } => apply_parts(parts, first, values),
            Effect::Staged(large) => large.apply(),
            Effect::Keyspaces(change) => {
                self.keyspaces.change(change);
                Ok(())
            }
            Effect::Load(load) => {
                let engine = &load.keyspace.engine;
                engine.apply_load(&load.content, first, load.last)
            }
        }
    }
}

/// The right to apply commits to a keyspace, and the duty to apply what comes meanwhile. If the
/// thread panics while it has it, a change may be applied in part.
pub(super) struct Turn<'a>(pub(super) &'a Applier, pub(super) &'a OpenKeyspace);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let Self(applier, keyspace) = self;
        // Before others go on.
        if std::thread::panicking() && !mutated!("panic-in-apply-goes-unnoticed") {
            let error = Error::panicked("a commit", &"it was being applied");
            applier.abandon(&error);
        }
        applier.leave(keyspace);
    }
}

/// The operations of a batch, numbered from `first`, with references to those of their values that
/// are stored apart.
pub(super) fn sequenced<'a>(
    batch: &'a Batch,
    first: SeqNo,
    values: &'a PlacedValues,
) -> Vec<SequencedOp<'a>> {
    let mut ops = Vec::with_capacity(batch.len());
    ops.extend((first.0..).zip(batch.iter()).map(|(seq, op)| SequencedOp {
        seq: if mutated!("sequence-number-reused") {
            first
        } else {
            SeqNo(seq)
        },
        op,
        value_ref: values.of(SeqNo(seq)),
    }));
    ops
}

/// Applies a commit of several keyspaces, by the thread whose turn it is at all of them.
pub(super) fn apply_parts(parts: &Parts, first: SeqNo, values: &PlacedValues) -> Result<()> {
    let mut next = first;
    for (keyspace, batch) in parts {
        if !batch.is_empty() {
            keyspace.engine.apply(&sequenced(batch, next, values))?;
        }
        next = next.plus(batch.len() as u64);
    }
    Ok(())
}
