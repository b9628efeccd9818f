//! The commit pipeline: sequence, log, (sync,) apply, publish.
//!
//! ```text
//!   throttle -> prepare -> [log lock: sequence, append] -> (sync) -> [apply queue: apply, publish]
//! ```
//!
//! - The **log lock** orders commits: numbers are given and records appended under it. An append is
//!   a copy into a preallocated segment, not I/O.
//! - The **apply queue** of its keyspace is entered before the log lock is released, so the commits
//!   of a keyspace are applied by one thread at a time, in the order in which they were logged,
//!   while the next one is already being logged ([`ApplyQueue`](super::apply_queue)). Commits of
//!   different keyspaces are applied side by side, and become visible in the order of their numbers
//!   ([`publication`](super::publication)). A commit to several keyspaces waits until all before it
//!   are visible.
//! - A **large batch** becomes visible before its engines have it ([`large`]): what comes behind it
//!   in the log does not wait for that. No other commit to its keyspaces is logged meanwhile.
//! - A snapshot is taken without a lock. If an engine has gone beyond its number, it keeps commits
//!   from being logged for a moment, but waits for none that is long in being applied
//!   ([`Pipeline::between_commits`]).
//! - A lone **buffered** commit runs through on its own thread: free locks, and no hand-over.
//! - A **sync** commit joins the queue of logged but unapplied commits. The first to find no leader
//!   leads: it syncs without holding a lock, applies everything that its sync covered, wakes the
//!   owners, and passes the lead to the first commit that came meanwhile. A lone writer always
//!   leads, so it never waits for another thread. Buffered commits behind a queued
//!   sync commit join the queue too.
//! - A change of the keyspaces goes the same way. What is applied is the list of open keyspaces.
//! - So does a bulk load, always as a `Sync` commit. From before the engine flushes what comes
//!   before the load until that is visible, no other commit to the keyspace is logged ([`load`]).
//! - A commit may hold only if nothing that it relies on has changed ([`condition`], [`watch`]).
//!
//! Invariants:
//! - P1: commits are published in the order of their sequence numbers, without a gap, and those of
//!   a keyspace are applied in that order, but for large batches before they are published.
//! - P2: a `Sync` commit is applied, or published, only after its record is durable: no reader sees
//!   what a power loss could take back together with its acknowledgement.
//! - P3: after a failed sync or apply nothing more is logged, applied or acknowledged. A panic is
//!   such a failure: it leaves a change applied in part.

mod condition;
mod large;
mod load;
pub(super) mod watch;

use std::sync::Arc;
use std::time::Duration;

pub(crate) use condition::Condition;
use condition::{note, note_change};

use super::apply::{Applier, Effect, Parts, Taken, Turn, apply_parts, sequenced};
use super::apply_queue::Waiting;
use super::commit_values::{CommitValues, PlacedValues};
use super::conflicts::{Conflict, ConflictTracker};
use super::coordinator::Coordinator;
use super::handover::{Handed, Handover};
use super::keyspaces::{KeyspaceChange, Keyspaces, OpenKeyspace};
use super::staging::can_be_staged;
use super::streamed_put::LoggedStreamedPut;
use crate::engine::SnapshotTracker;
use crate::error::{Error, Result};
use crate::kv::{Batch, OpHeading, op_payload};
use crate::options::Durability;
use crate::types::{MAX_BATCH_LEN_BYTES, Op, SeqNo, SequencedOp};
use crate::util::mutants::mutated;
use crate::util::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::util::sync::{Mutex, MutexGuard};
use crate::values::{Digest, EncodedRef, ValueFiles};
use crate::wal::{Log, PayloadPlace, Writer};

/// What one commit changes.
#[derive(Debug)]
pub(crate) enum Change<'a> {
    /// One operation: the path without allocation.
    One {
        keyspace: &'a Arc<OpenKeyspace>,
        op: Op<'a>,
    },
    /// A put of a value of `len_bytes` that is durable in a file of its own.
    Streamed {
        keyspace: &'a Arc<OpenKeyspace>,
        key: &'a [u8],
        len_bytes: usize,
        streamed: Streamed<'a>,
    },
    /// A batch for each of several keyspaces. No keyspace appears twice, so each engine
    /// is handed its share in one call.
    Many(Vec<(Arc<OpenKeyspace>, Batch)>),
}

/// What a put has in the place of a value that was streamed into a file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Streamed<'a> {
    pub(crate) reference: &'a EncodedRef,
    /// Set when the log may have the put, whatever becomes of the commit.
    pub(crate) may_be_logged: &'a AtomicBool,
}

/// Is told of the parts of a commit once it is logged, before any reader sees it.
type Logged<'a> = &'a dyn Fn(&Parts);

/// What a conditional commit relies on, and who is told that it is logged.
type Conditional<'a> = (&'a Condition<'a>, Logged<'a>);

/// First and last number of a commit that is logged, and where its values are.
type LoggedParts = (SeqNo, SeqNo, PlacedValues);

/// Batches in the form that the log takes.
struct EncodedParts {
    /// In front of each.
    headings: Vec<OpHeading>,
    values: CommitValues,
}

/// How a conditional commit ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Committed; the last operation has this number.
    Committed(SeqNo),
    /// Nothing was written: this operation changed what the commit relies on.
    Conflict(Conflict),
}

/// Figures about commits since the store was opened.
pub(super) struct CommitFigures {
    pub(super) commits: u64,
    pub(super) ops: u64,
    pub(super) groups: u64,
}

/// The commit pipeline of one store.
#[derive(Debug)]
pub(crate) struct Pipeline {
    log: Mutex<Sequencer>,
    shared_log: Arc<Log>,
    coordinator: Arc<Coordinator>,
    values: Arc<ValueFiles>,
    applier: Applier,
    /// Syncs that made queued commits durable.
    groups: AtomicU64,
    /// A commit of so many operations that can be staged is.
    large_batch_ops: usize,
}

/// From so much on a commit that is being applied is not waited for by snapshots.
const LONG_APPLY: Duration = Duration::from_millis(1);

/// Guarded by the log lock.
#[derive(Debug)]
struct Sequencer {
    writer: Writer,
    next: SeqNo,
    taken: Taken,
    /// Logged, not applied, in order. Empty unless a sync commit is on its way.
    queue: Vec<Arc<Queued>>,
    /// A thread is syncing and will empty the queue, or has been told to.
    led: bool,
    conflicts: ConflictTracker,
}

/// A commit that waits for the log to be synced.
#[derive(Debug)]
struct Queued {
    effect: Effect,
    first: SeqNo,
    last: SeqNo,
    handover: Handover,
}

impl Queued {
    fn finish(&self, error: Option<Error>) {
        self.handover.note(error);
        self.handover.finish();
    }

    fn ops(&self) -> u64 {
        match self.effect {
            Effect::Ops { .. } | Effect::Staged(_) => self.last.0 - self.first.0 + 1,
            Effect::Keyspaces(_) | Effect::Load(_) => 0,
        }
    }
}

impl Pipeline {
    /// A pipeline whose next commit follows `last`.
    pub(crate) fn new(
        writer: Writer,
        shared_log: Arc<Log>,
        last: SeqNo,
        coordinator: Arc<Coordinator>,
        snapshot_tracker: Arc<SnapshotTracker>,
        keyspaces: Arc<Keyspaces>,
        values: Arc<ValueFiles>,
    ) -> Self {
        let sequencer = Sequencer {
            writer,
            next: last.next(),
            taken: Taken::new(last),
            queue: Vec::new(),
            led: false,
            conflicts: ConflictTracker::default(),
        };
        Self {
            log: Mutex::new(sequencer),
            shared_log,
            applier: Applier::new(Arc::clone(&coordinator), snapshot_tracker, keyspaces),
            coordinator,
            values,
            groups: AtomicU64::new(0),
            large_batch_ops: usize::MAX,
        }
    }

    /// Has batches of `ops` operations for one keyspace, or more, be visible before their engines
    /// have them. Without this none are.
    #[must_use]
    pub(crate) fn staging_batches_of(self, ops: usize) -> Self {
        Self {
            large_batch_ops: ops,
            ..self
        }
    }

    /// Takes what `attempt` gives. It is called beside commits first, and gives nothing if an
    /// engine has gone beyond the published sequence number. Then it is called while commits are
    /// kept from being logged, when those that are being applied have been published: every engine
    /// stands at the published number. Neither is waited for if that takes long: engines may stand
    /// there again all the same. `attempt` must not wait for I/O.
    ///
    /// An error if a commit was applied in part: what an engine has of it is never published.
    pub(crate) fn between_commits<R>(&self, mut attempt: impl FnMut() -> Option<R>) -> Result<R> {
        if let Some(taken) = attempt() {
            return Ok(taken);
        }
        loop {
            let log = self.log.try_lock_for(LONG_APPLY);
            if let Some(log) = &log {
                let publisher = &self.applier.publisher;
                publisher.wait_briefly(log.taken.upto, LONG_APPLY);
            }
            let taken = attempt();
            drop(log);
            if let Some(taken) = taken {
                return Ok(taken);
            }
            self.applier.publisher.check_not_abandoned()?;
        }
    }

    /// Figures about commits since the store was opened.
    pub(super) fn figures(&self) -> CommitFigures {
        let (commits, ops) = self.applier.publisher.commits_and_ops();
        CommitFigures {
            commits,
            ops,
            groups: self.groups.load(Ordering::Relaxed),
        }
    }

    /// Commits `change`: all of it, or on an error none of it.
    ///
    /// An error after the record was logged (a failed sync) leaves open whether the change is
    /// there after reopening; until then it is not visible, unless it is a large batch that was
    /// synced and that an engine could not apply.
    ///
    /// Returns the number of the last operation.
    pub(crate) fn commit(&self, change: Change<'_>, durability: Durability) -> Result<SeqNo> {
        match change {
            Change::One { keyspace, op } => self.commit_one(keyspace, op, None, durability),
            Change::Streamed {
                keyspace,
                key,
                streamed,
                ..
            } => {
                let op = Op::Put { key, value: &[] };
                self.commit_one(keyspace, op, Some(streamed), durability)
            }
            Change::Many(parts) => match self.commit_many(parts, durability, None)? {
                Outcome::Committed(last) => Ok(last),
                Outcome::Conflict(_) => unreachable!("there was no condition"),
            },
        }
    }

    /// Commits `parts` if `condition` holds at their place in the order of commits, or nothing.
    /// On a conflict it waits until the operation in question is visible, so that the caller can
    /// read and try again.
    ///
    /// `logged` is called with the parts if they are logged, before any reader sees them. It runs
    /// under the log lock, and must neither wait nor do I/O.
    pub(crate) fn commit_if(
        &self,
        parts: Vec<(Arc<OpenKeyspace>, Batch)>,
        durability: Durability,
        condition: &Condition<'_>,
        logged: &dyn Fn(&Parts),
    ) -> Result<Outcome> {
        let outcome = self.commit_many(parts, durability, Some((condition, logged)))?;
        if let Outcome::Conflict(conflict) = &outcome {
            let check = || self.coordinator.check_writable();
            self.applier.publisher.wait_unless(conflict.seq, &check)?;
        }
        Ok(outcome)
    }

    /// Commits a change of the keyspaces, whose record has `payload`. Returns its number.
    pub(super) fn commit_keyspaces(
        &self,
        payload: &[u8],
        change: KeyspaceChange,
        durability: Durability,
    ) -> Result<SeqNo> {
        let mut log = self.log.lock();
        self.coordinator.check_writable()?;
        let (seq, _) = log.append(1, &[payload], 0)?;
        if log.conflicts.is_active() {
            note_change(&mut log.conflicts, &change, seq);
        }
        let effect = Effect::Keyspaces(change);
        if durability == Durability::Sync || log.led {
            return self.join_queue(log, effect, seq, seq);
        }
        self.applier.take(&mut log.taken, seq)?;
        drop(log);
        let applied = self.applier.apply(&effect, seq);
        self.applier.note_applied(seq, seq, 0, applied)?;
        self.applier.publisher.wait_for(seq)?;
        self.after_commit();
        Ok(seq)
    }

    /// Has the log go on in a small segment, so that the long one can be deleted. The segment is
    /// made before the log lock is taken.
    pub(super) fn shorten_log(&self) -> Result<bool> {
        self.shared_log.prepare_small()?;
        self.log.lock().writer.shorten()
    }

    /// Cuts the log's last segment if much of it is free. Nothing is committed afterwards.
    pub(super) fn cut_log(&self) -> Result<()> {
        self.log.lock().writer.cut()
    }

    /// Commits one operation. If it puts a value that was `streamed` into a file, the operation has
    /// none.
    fn commit_one(
        &self,
        keyspace: &Arc<OpenKeyspace>,
        op: Op<'_>,
        streamed: Option<Streamed<'_>>,
        durability: Durability,
    ) -> Result<SeqNo> {
        keyspace.check_alive()?;
        let mut ops = [SequencedOp::new(SeqNo::ZERO, op)];
        let reference = streamed.map(|streamed| streamed.reference);
        ops[0].value_ref = reference.map(EncodedRef::as_bytes);
        keyspace.engine.prepare(&ops)?;
        let digest = self.digest_of(keyspace, &op);
        let value_bytes = digest.as_ref().map_or(0, Digest::len_bytes) as u64;
        let heading = OpHeading::new(keyspace.id, &op);
        let (a, b) = op_payload(&op);
        let of_streamed = reference.map(|reference| streamed_payload(keyspace, &op, reference));
        let parts = match &of_streamed {
            Some(payload) => [payload.as_slice(), &[], &[]],
            None => [heading.as_bytes(), a, b],
        };

        let copy = || {
            let mut batch = Batch::new();
            batch.push(&op);
            batch
        };
        // Before the log is locked: the value may be long.
        let mut copied = (durability == Durability::Sync).then(copy);
        let prepare = || keyspace.engine.prepare(&ops);
        let mut log = self.lock_log(std::iter::once(keyspace), prepare)?;
        self.coordinator.check_writable()?;
        if let Some(streamed) = streamed {
            // What fails on a full disk, and is tried again; nothing of the record is written.
            if !mutated!("stream-that-finds-no-segment-keeps-its-file") {
                log.make_room(1, &parts)?;
            }
            streamed.may_be_logged.store(true, Ordering::Relaxed);
        }
        let (seq, place) = log.append(1, &parts, value_bytes)?;
        // The value is the end of the payload.
        let value_at = place.offset + (heading.as_bytes().len() + a.len()) as u64;
        let in_log = || digest.map(|digest| digest.place(place.segment, value_at));
        let value_ref = reference.copied().or_else(in_log);
        if log.conflicts.is_active() {
            log.conflicts.note(keyspace.id, &op, seq);
        }
        let mut owned = || {
            let batch = copied.take().unwrap_or_else(copy);
            let mut values = PlacedValues::default();
            if let Some(value_ref) = &value_ref {
                values.push(seq, value_ref.as_bytes());
            }
            (batch, values)
        };
        if durability == Durability::Sync || log.led {
            let (batch, values) = owned();
            let effect = Effect::Ops {
                parts: vec![(Arc::clone(keyspace), batch)],
                values,
                is_unseen: false,
            };
            return self.join_queue(log, effect, seq, seq);
        }
        self.applier.take(&mut log.taken, seq)?;
        // Entering before the lock is released keeps the order (P1).
        let waiting = keyspace.apply_queue.enter_or(|| {
            let (batch, values) = owned();
            Waiting::new(batch, values, seq, seq)
        });
        drop(log);
        if let Some(waiting) = waiting {
            self.applier.wait_applied(keyspace, &waiting)?;
        } else {
            let _turn = Turn(&self.applier, keyspace);
            ops[0].seq = seq;
            ops[0].value_ref = value_ref.as_ref().map(EncodedRef::as_bytes);
            let applied = keyspace.engine.apply(&ops);
            self.applier.note_applied(seq, seq, 1, applied)?;
        }
        self.applier.publisher.wait_for(seq)?;
        self.after_commit();
        Ok(seq)
    }

    /// The checksums of the value that `op` puts, if it is stored apart, in the log.
    #[inline]
    fn digest_of(&self, keyspace: &OpenKeyspace, op: &Op<'_>) -> Option<Digest> {
        match op {
            Op::Put { value, .. } if keyspace.options.stores_apart(value.len()) => {
                Some(self.values.digest(value))
            }
            _ => None,
        }
    }

    fn commit_many(
        &self,
        mut parts: Vec<(Arc<OpenKeyspace>, Batch)>,
        durability: Durability,
        condition: Option<Conditional<'_>>,
    ) -> Result<Outcome> {
        let count = check_parts(&parts)?;
        if count == 0 {
            // Nothing to log, but a promise to keep: what came before is durable.
            let published = self.applier.publisher.published();
            if durability == Durability::Sync {
                self.coordinator.sync_log()?;
            }
            return Ok(Outcome::Committed(published));
        }
        let stageable = parts.iter().filter(|(_, batch)| can_be_staged(batch));
        let stageable_ops: usize = stageable.map(|(_, batch)| batch.len()).sum();
        if stageable_ops >= self.large_batch_ops {
            return self.commit_large(parts, count, durability, condition);
        }
        let unplaced = PlacedValues::default();
        let prepare = || {
            parts.iter().try_for_each(|(keyspace, batch)| {
                let ops = sequenced(batch, SeqNo::ZERO, &unplaced);
                keyspace.engine.prepare(&ops)
            })
        };
        prepare()?;
        let mut encoded = self.encode(&parts);
        let validated = match self.validate_before(condition) {
            Ok(upto) => upto,
            Err(conflict) => return Ok(Outcome::Conflict(conflict)),
        };

        let keyspaces = parts.iter().map(|(keyspace, _)| keyspace);
        let mut log = self.lock_log(keyspaces, prepare)?;
        let logged = self.log_parts(
            &mut log,
            &mut parts,
            &mut encoded,
            count,
            validated,
            condition,
        )?;
        let (first, last, values) = match logged {
            Ok(logged) => logged,
            Err(conflict) => return Ok(Outcome::Conflict(conflict)),
        };
        if durability == Durability::Sync || log.led {
            let effect = Effect::Ops {
                parts,
                values,
                is_unseen: condition.is_some_and(|(condition, _)| condition.is_unseen),
            };
            return self
                .join_queue(log, effect, first, last)
                .map(Outcome::Committed);
        }
        match parts.len() {
            1 => self.apply_one(log, parts.swap_remove(0), values, first, last)?,
            _ => self.apply_many(log, &parts, &values, first, last)?,
        }
        self.after_commit();
        Ok(Outcome::Committed(last))
    }

    /// What of a condition can be looked at before the log is locked.
    fn validate_before(&self, condition: Option<Conditional<'_>>) -> Result<SeqNo, Conflict> {
        condition.map_or(Ok(SeqNo::ZERO), |(condition, _)| {
            self.validate_early(condition)
        })
    }

    /// Encodes what is not encoded yet.
    fn encode(&self, parts: &Parts) -> EncodedParts {
        let headings: Vec<_> = parts
            .iter()
            .map(|(ks, _)| OpHeading::group(ks.id))
            .collect();
        let values = self.values_of(parts, &headings);
        EncodedParts { headings, values }
    }

    /// Puts the number that a commit of `parts` will have, as far as that is known now, where it
    /// belongs: engines prepare for keys that are near to those that they will get.
    pub(super) fn expect_number(&self, parts: &mut Parts) {
        if has_stamps(parts) {
            let count: usize = parts.iter().map(|(_, batch)| batch.len()).sum();
            let expected = self.applier.publisher.published().plus(count as u64);
            stamp(parts, expected);
        }
    }

    /// Logs `parts`, which have `count` operations, if the condition holds that held up to
    /// `validated`. From here on the number of the commit is where it belongs.
    fn log_parts(
        &self,
        log: &mut Sequencer,
        parts: &mut Parts,
        encoded: &mut EncodedParts,
        count: u64,
        validated: SeqNo,
        condition: Option<Conditional<'_>>,
    ) -> Result<Result<LoggedParts, Conflict>> {
        self.coordinator.check_writable()?;
        if let Some((condition, _)) = condition
            && let Some(conflict) = log.conflicts.conflict(validated, condition.reads)
            && !mutated!("condition-of-a-commit-ignored")
        {
            return Ok(Err(conflict));
        }
        if has_stamps(parts) && !mutated!("number-of-a-commit-guessed") {
            stamp(parts, log.next.prev().plus(count));
            let batch = |at: usize| &parts[at].1;
            encoded.values.renew_stamped(&self.values, batch);
        }
        let mut payload = Vec::with_capacity(2 * parts.len());
        for (heading, (_, batch)) in encoded.headings.iter().zip(&*parts) {
            payload.push(heading.as_bytes());
            payload.push(batch.encoded());
        }
        let (first, place) = log.append(count, &payload, encoded.values.bytes())?;
        let values = encoded.values.place(first, place);
        if let Some((_, logged)) = condition {
            logged(parts);
        }
        let is_unseen = condition.is_some_and(|(condition, _)| condition.is_unseen);
        if log.conflicts.is_active() && !is_unseen {
            let parts = parts.iter().map(|(keyspace, batch)| (keyspace.id, batch));
            note(&mut log.conflicts, parts, first);
        }
        Ok(Ok((first, SeqNo(first.0 + count - 1), values)))
    }

    /// The values of `parts` that are stored apart. Their headings are in front of their batches in
    /// the payload.
    fn values_of(&self, parts: &Parts, headings: &[OpHeading]) -> CommitValues {
        let mut values = CommitValues::default();
        let (mut first_op, mut at) = (0, 0);
        for (part, ((keyspace, batch), heading)) in parts.iter().zip(headings).enumerate() {
            at += heading.as_bytes().len() as u64;
            let is_apart = |len: usize| keyspace.options.stores_apart(len);
            // Most batches are too short to hold such a value, which need not be looked for then.
            if is_apart(batch.len_bytes()) {
                values.add_batch(&self.values, (part, batch), first_op, at, is_apart);
            }
            first_op += batch.len() as u64;
            at += batch.len_bytes() as u64;
        }
        values
    }

    /// Applies a batch to one keyspace, or has it applied.
    fn apply_one(
        &self,
        mut log: MutexGuard<'_, Sequencer>,
        (keyspace, batch): (Arc<OpenKeyspace>, Batch),
        values: PlacedValues,
        first: SeqNo,
        last: SeqNo,
    ) -> Result<()> {
        self.applier.take(&mut log.taken, last)?;
        let commit = Waiting::new(batch, values, first, last);
        let waiting = keyspace.apply_queue.enter_or(|| Arc::clone(&commit));
        drop(log);
        match waiting {
            Some(waiting) => self.applier.wait_applied(&keyspace, &waiting)?,
            None => {
                let _turn = Turn(&self.applier, &keyspace);
                self.applier.apply_waiting(&keyspace, &commit)?;
            }
        }
        self.applier.publisher.wait_for(last)
    }

    /// Applies a batch for each of several keyspaces.
    fn apply_many(
        &self,
        mut log: MutexGuard<'_, Sequencer>,
        parts: &Parts,
        values: &PlacedValues,
        first: SeqNo,
        last: SeqNo,
    ) -> Result<()> {
        let count = last.0 - first.0 + 1;
        let keyspaces = parts.iter().map(|(keyspace, _)| keyspace);
        let turns = self.applier.take_turns(&mut log.taken, last, keyspaces)?;
        drop(log);
        let applied = apply_parts(parts, first, values);
        let applied = self.applier.note_applied(first, last, count, applied);
        drop(turns);
        applied?;
        self.applier.publisher.wait_for(last)
    }

    fn after_commit(&self) {
        if self.shared_log.claim_prepare() {
            use crate::engine::EngineHost;
            self.coordinator.wake();
        }
    }

    /// Waits until the log is synced up to this commit and the commit is applied, doing it if
    /// no other thread is.
    fn join_queue(
        &self,
        mut log: MutexGuard<'_, Sequencer>,
        effect: Effect,
        first: SeqNo,
        last: SeqNo,
    ) -> Result<SeqNo> {
        let queued = Arc::new(Queued {
            effect,
            first,
            last,
            handover: Handover::new(),
        });
        log.queue.push(Arc::clone(&queued));
        let is_led = std::mem::replace(&mut log.led, true);
        drop(log);
        if !is_led || queued.handover.wait() == Handed::Turn {
            self.lead();
        }
        self.after_commit();
        queued.handover.result().map(|()| last)
    }

    /// One round of leading. A panic in it ends all commits that wait for it with an error: no
    /// other thread would wake them.
    fn lead(&self) {
        let mut covered = Vec::new();
        let round = self.applier.caught(|| {
            self.lead_round(&mut covered);
            Ok(())
        });
        let Err(error) = round else { return };
        let mut log = self.log.lock();
        covered.append(&mut log.queue);
        log.led = false;
        drop(log);
        for queued in covered {
            queued.finish(Some(error.clone()));
        }
        self.applier.publisher.announce_failure();
    }

    /// Syncs, takes what the sync covered, passes the lead on, applies, wakes. The leader's own
    /// commit is covered by its first round.
    fn lead_round(&self, covered: &mut Vec<Arc<Queued>>) {
        self.groups.fetch_add(1, Ordering::Relaxed);
        let upto = self.log.lock().next.prev();
        let synced = match self.coordinator.check_writable() {
            Ok(()) if mutated!("acknowledged-before-sync") => Ok(upto),
            Ok(()) => self.shared_log.sync(),
            Err(error) => Err(error),
        };
        let mut log = self.log.lock();
        if let Err(error) = synced {
            if !mutated!("writes-go-on-after-a-failed-sync") {
                self.coordinator.fail(&error);
            }
            // Everything queued shares the fate of the sync, later arrivals included.
            let failed = std::mem::take(&mut log.queue);
            log.led = false;
            drop(log);
            for queued in failed {
                queued.finish(Some(error.clone()));
            }
            self.applier.publisher.announce_failure();
            return;
        }
        let upto = mutated!(
            "records-beside-a-sync-taken-for-synced",
            log.next.prev(),
            upto
        );
        let count = log.queue.partition_point(|queued| queued.last <= upto);
        let later = log.queue.split_off(count);
        *covered = std::mem::replace(&mut log.queue, later);
        match log.queue.first() {
            Some(next) => next.handover.give_turn(),
            None => log.led = false,
        }
        let Some(last) = covered.last().map(|queued| queued.last) else {
            return;
        };
        let keyspaces = covered.iter().flat_map(|queued| queued.effect.keyspaces());
        let turns = self.applier.take_turns(&mut log.taken, last, keyspaces);
        drop(log);
        self.apply_in_turn(covered, turns);
        for queued in covered.drain(..) {
            queued.handover.finish();
        }
    }

    /// Applies commits that were synced, waits until they are visible, and notes how that ended.
    fn apply_in_turn(&self, covered: &[Arc<Queued>], turns: Result<Vec<Turn<'_>>>) {
        let mut failed = turns.as_ref().err().cloned();
        for queued in covered {
            // After one failure the rest must not be applied: that would leave a gap (P1).
            if failed.is_none() {
                let applied = self.applier.apply(&queued.effect, queued.first);
                failed = self
                    .applier
                    .note_applied(queued.first, queued.last, queued.ops(), applied)
                    .err();
            }
            queued.handover.note(failed.clone());
        }
        drop(turns);
        for queued in covered {
            let Err(error) = self.applier.publisher.wait_for(queued.last) else {
                queued.effect.tell_published();
                continue;
            };
            queued.handover.note(Some(failed.clone().unwrap_or(error)));
        }
    }
}

impl Sequencer {
    /// Has the log ready for [`append`](Self::append), so that only writing may fail.
    fn make_room(&mut self, count: u64, parts: &[&[u8]]) -> Result<()> {
        let first = self.next;
        let last = numbered(first, count)?;
        self.writer.make_room(first, last, parts).map(drop)
    }

    /// Appends a record of `count` operations; returns the first one's number and where the payload
    /// is, of which `value_bytes` are values that engines will refer to.
    fn append(
        &mut self,
        count: u64,
        parts: &[&[u8]],
        value_bytes: u64,
    ) -> Result<(SeqNo, PayloadPlace)> {
        let first = self.next;
        let last = numbered(first, count)?;
        let place = self.writer.append(first, last, parts, value_bytes)?;
        self.next = last.next();
        Ok((first, place))
    }
}

/// The last of `count` numbers from `first` on, if there are as many.
fn numbered(first: SeqNo, count: u64) -> Result<SeqNo> {
    let last = SeqNo(first.0 + count - 1);
    if last > SeqNo::MAX {
        return Err(Error::invalid(
            "the store has used all of its sequence numbers",
        ));
    }
    Ok(last)
}

/// The payload of the record of a put whose value was streamed.
#[cold]
fn streamed_payload(keyspace: &OpenKeyspace, op: &Op<'_>, reference: &EncodedRef) -> Vec<u8> {
    let put = LoggedStreamedPut {
        keyspace: keyspace.id,
        key: op.key().unwrap_or_default(),
        reference: reference.as_bytes(),
    };
    put.encode()
}

fn has_stamps(parts: &Parts) -> bool {
    parts.iter().any(|(_, batch)| !batch.stamps().is_empty())
}

/// Puts the number of the commit into `parts`, wherever it belongs.
fn stamp(parts: &mut Parts, commit: SeqNo) {
    for (_, batch) in parts {
        batch.stamp(commit);
    }
}

/// How many operations there are in `parts`, if all of them keep to the limits and their keyspaces
/// are there.
fn check_parts(parts: &Parts) -> Result<u64> {
    let mut count = 0;
    let mut bytes = 0;
    for (keyspace, batch) in parts {
        keyspace.check_alive()?;
        batch.check()?;
        count += batch.len() as u64;
        bytes += batch.len_bytes() + 16;
    }
    if bytes > MAX_BATCH_LEN_BYTES {
        return Err(Error::invalid(format!(
            "a batch is longer than {MAX_BATCH_LEN_BYTES} bytes"
        )));
    }
    Ok(count)
}
