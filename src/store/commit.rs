//! The commit pipeline: sequence, log, (sync,) apply, publish.
//!
//! ```text
//!   throttle -> prepare -> [log lock: sequence, append] -> (sync) -> [apply lock: apply, publish]
//! ```
//!
//! - The **log lock** orders commits: numbers are given and records appended under it. An append is
//!   a copy into a preallocated segment, not I/O.
//! - The **apply lock** is taken before the log lock is released, so commits are applied in the
//!   order in which they were logged, while the next one is already being logged. Only memory is
//!   touched under it. Snapshots take it, and nothing else, to stand between two commits; but they
//!   do not wait for a large batch ([`Pipeline::between_commits`]).
//! - A lone **buffered** commit runs through on its own thread: two uncontended locks, no queue, no
//!   hand-over.
//! - A **sync** commit joins the queue of logged but unapplied commits. The first to find no leader
//!   leads: it syncs without holding a lock, applies everything that its sync covered, wakes the
//!   owners, and passes the lead to the first commit that came meanwhile. A lone writer always
//!   leads, so it never waits for another thread. Buffered commits behind a queued
//!   sync commit join the queue too.
//! - A change of the keyspaces goes the same way. What is applied is the list of open keyspaces.
//!
//! Invariants:
//! - P1: commits are applied and published in the order of their sequence numbers, without a gap.
//! - P2: a `Sync` commit is applied only after its record is durable: no reader sees what a power
//!   loss could take back together with its acknowledgement.
//! - P3: after a failed sync or apply nothing more is logged, applied or acknowledged. A panic is
//!   such a failure: it leaves a change applied in part.

use std::cmp::Reverse;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use super::commit_values::{CommitValues, PlacedValues};
use super::conflicts::ConflictTracker;
use super::coordinator::Coordinator;
use super::keyspaces::{KeyspaceChange, Keyspaces, OpenKeyspace};
use crate::engine::{LARGE_BATCH_OPS, SnapshotTracker};
use crate::error::{Error, Result};
use crate::kv::{Batch, OpHeading, op_payload};
use crate::options::Durability;
use crate::types::{KeyRange, MAX_BATCH_LEN_BYTES, Op, SeqNo, SequencedOp};
use crate::util::mutants::mutated;
use crate::util::sync::atomic::{AtomicU8, AtomicU64, Ordering, fence};
use crate::util::sync::thread::Thread;
use crate::util::sync::{Condvar, Mutex, MutexGuard, thread};
use crate::values::{EncodedRef, ValueFiles};
use crate::wal::{Log, PayloadPlace, Writer};

/// What one commit changes.
#[derive(Debug)]
pub(crate) enum Change<'a> {
    /// One operation: the path without allocation.
    One {
        keyspace: &'a Arc<OpenKeyspace>,
        op: Op<'a>,
    },
    /// A batch for each of several keyspaces. No keyspace appears twice, so each engine
    /// is handed its share in one call.
    Many(Vec<(Arc<OpenKeyspace>, Batch)>),
}

/// What a commit relies on: that no key of `ranges` was written after the watch began.
#[derive(Debug)]
pub(crate) struct Condition<'a> {
    pub(crate) watch: &'a Watch<'a>,
    pub(crate) keyspace: &'a Arc<OpenKeyspace>,
    pub(crate) ranges: &'a [KeyRange],
}

impl Condition<'_> {
    /// The latest operation that breaks it.
    fn conflict(&self, conflicts: &ConflictTracker) -> Option<SeqNo> {
        let (since, keyspace) = (self.watch.since, self.keyspace.id);
        let of_range = |range| conflicts.conflict(since, keyspace, range);
        self.ranges.iter().filter_map(of_range).max()
    }
}

/// A change of several keyspaces, no keyspace twice.
pub(crate) type Parts = [(Arc<OpenKeyspace>, Batch)];

/// What happens when a commit is applied.
#[derive(Debug)]
enum Effect {
    /// With references to the values that are stored apart.
    Ops(Vec<(Arc<OpenKeyspace>, Batch)>, PlacedValues),
    Keyspaces(KeyspaceChange),
}

/// Is told of the parts of a commit once it is logged, before any reader sees it.
type Logged<'a> = &'a dyn Fn(&Parts);

/// How a conditional commit ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Committed; the last operation has this number.
    Committed(SeqNo),
    /// Nothing was written: this operation changed what the commit relies on.
    Conflict(SeqNo),
}

/// While it lives, the pipeline remembers which keys are written.
#[derive(Debug)]
pub struct Watch<'a> {
    pipeline: &'a Pipeline,
    /// Everything up to here is visible to reads that begin now.
    since: SeqNo,
}

impl Watch<'_> {
    /// Everything up to here is visible to reads that begin during the watch.
    pub(crate) fn since(&self) -> SeqNo {
        self.since
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        self.pipeline.log.lock().conflicts.end(self.since);
    }
}

/// Figures about commits since the store was opened.
#[derive(Debug, Default)]
pub(crate) struct CommitCounters {
    pub(crate) commits: AtomicU64,
    pub(crate) ops: AtomicU64,
    pub(crate) groups: AtomicU64,
}

/// The commit pipeline of one store.
#[derive(Debug)]
pub(crate) struct Pipeline {
    log: Mutex<Sequencer>,
    apply: Mutex<()>,
    shared_log: Arc<Log>,
    coordinator: Arc<Coordinator>,
    snapshot_tracker: Arc<SnapshotTracker>,
    keyspaces: Arc<Keyspaces>,
    values: Arc<ValueFiles>,
    publications: Publications,
    pub(crate) counters: CommitCounters,
}

/// Threads that wait for a commit of another thread to become visible. There are some only while
/// there is a watch, so commits look here only then.
#[derive(Debug, Default)]
struct Publications {
    sleepers: AtomicU64,
    lock: Mutex<()>,
    condvar: Condvar,
}

/// Longest sleep in front of a publication; it only bounds the harm of a failed store.
const PUBLICATION_WAIT: Duration = Duration::from_millis(50);

/// From so much on a commit that is being applied is not waited for by snapshots.
const LONG_APPLY: Duration = Duration::from_millis(1);

/// Guarded by the log lock.
#[derive(Debug)]
struct Sequencer {
    writer: Writer,
    next: SeqNo,
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
    owner: Thread,
    state: AtomicU8,
    error: Mutex<Option<Error>>,
}

const WAITING: u8 = 0;
const LEADS: u8 = 1;
const DONE: u8 = 2;

impl Queued {
    fn tell(&self, state: u8) {
        self.state.store(state, Ordering::Release);
        self.owner.unpark();
    }

    fn finish(&self, error: Option<Error>) {
        *self.error.lock() = error;
        self.tell(DONE);
    }

    fn ops(&self) -> u64 {
        match self.effect {
            Effect::Ops(..) => self.last.0 - self.first.0 + 1,
            Effect::Keyspaces(_) => 0,
        }
    }

    fn result(&self) -> Result<()> {
        self.error.lock().take().map_or(Ok(()), Err)
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
            queue: Vec::new(),
            led: false,
            conflicts: ConflictTracker::default(),
        };
        Self {
            log: Mutex::new(sequencer),
            apply: Mutex::new(()),
            shared_log,
            coordinator,
            snapshot_tracker,
            keyspaces,
            values,
            publications: Publications::default(),
            counters: CommitCounters::default(),
        }
    }

    /// Takes what `attempt` gives. It is mostly called while commits are kept from being applied:
    /// every engine stands at the published sequence number then. If one is being applied for long,
    /// it is called beside that: engines show the time before a large batch until that is
    /// published. `attempt` gives nothing if another commit was published meanwhile, and must not
    /// wait for I/O.
    pub(crate) fn between_commits<R>(&self, mut attempt: impl FnMut() -> Option<R>) -> R {
        loop {
            let apply = match mutated!("snapshot-waits-for-a-large-batch") {
                true => Some(self.apply.lock()),
                false => self.apply.try_lock_for(LONG_APPLY),
            };
            let taken = attempt();
            drop(apply);
            if let Some(taken) = taken {
                return taken;
            }
        }
    }

    /// Commits `change`: all of it, or on an error none of it.
    ///
    /// An error after the record was logged (a failed sync) leaves open whether the change is
    /// there after reopening; until then it is not visible.
    ///
    /// Returns the number of the last operation.
    pub(crate) fn commit(&self, change: Change<'_>, durability: Durability) -> Result<SeqNo> {
        match change {
            Change::One { keyspace, op } => self.commit_one(keyspace, op, durability),
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
        if let Outcome::Conflict(seq) = outcome {
            self.wait_published(seq)?;
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
        let effect = Effect::Keyspaces(change);
        if durability == Durability::Sync || log.led {
            return self.join_queue(log, effect, seq, seq);
        }
        let apply = self.lock_apply();
        drop(log);
        let apply = apply?;
        let published = self.publish(seq, 0, self.apply(&effect, seq));
        drop(apply);
        published?;
        self.after_commit();
        Ok(seq)
    }

    /// Begins to remember which keys are written. Waits for commits that are being applied, and
    /// for no I/O.
    pub(crate) fn watch(&self) -> Watch<'_> {
        let mut log = self.log.lock();
        // With both locks, what is logged is either applied or in the queue.
        let apply = self.apply.lock();
        let since = self.snapshot_tracker.published();
        log.conflicts.begin(since);
        let Sequencer {
            queue, conflicts, ..
        } = &mut *log;
        for queued in queue {
            if let Effect::Ops(parts, _) = &queued.effect {
                note(conflicts, parts, queued.first);
            }
        }
        drop(apply);
        drop(log);
        Watch {
            pipeline: self,
            since,
        }
    }

    /// Has the log go on in a small segment, so that the long one can be deleted. The segment is
    /// made before the log lock is taken.
    pub(super) fn shorten_log(&self) -> Result<bool> {
        self.shared_log.prepare_small()?;
        self.log.lock().writer.shorten()
    }

    /// Waits until the operation `seq`, which is logged, is visible.
    fn wait_published(&self, seq: SeqNo) -> Result<()> {
        let mut guard = self.publications.lock.lock();
        self.publications.sleepers.fetch_add(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        let outcome = loop {
            if self.snapshot_tracker.published() >= seq {
                break Ok(());
            }
            if let Err(error) = self.coordinator.check_writable() {
                break Err(error);
            }
            self.publications
                .condvar
                .wait_for(&mut guard, PUBLICATION_WAIT);
        };
        self.publications.sleepers.fetch_sub(1, Ordering::SeqCst);
        outcome
    }

    /// Wakes threads that wait for what was just published, or for the failure of the store.
    #[cold]
    fn announce_publication(&self) {
        fence(Ordering::SeqCst);
        if self.publications.sleepers.load(Ordering::SeqCst) > 0 {
            // Taking the lock orders this announcement after the sleeper's last look.
            drop(self.publications.lock.lock());
            self.publications.condvar.notify_all();
        }
    }

    fn commit_one(
        &self,
        keyspace: &Arc<OpenKeyspace>,
        op: Op<'_>,
        durability: Durability,
    ) -> Result<SeqNo> {
        keyspace.check_alive()?;
        let mut ops = [SequencedOp::new(SeqNo::ZERO, op)];
        keyspace.engine.prepare(&ops)?;
        let digest = match op {
            Op::Put { value, .. } if keyspace.options.stores_apart(value.len()) => {
                Some((self.values.digest(value), value.len() as u64))
            }
            _ => None,
        };
        let value_bytes = digest.as_ref().map_or(0, |(_, len_bytes)| *len_bytes);
        let heading = OpHeading::new(keyspace.id, &op);
        let (a, b) = op_payload(&op);
        let parts = [heading.as_bytes(), a, b];

        let mut log = self.log.lock();
        self.coordinator.check_writable()?;
        let (seq, place) = log.append(1, &parts, value_bytes)?;
        // The value is the end of the payload.
        let value_at = place.offset + (heading.as_bytes().len() + a.len()) as u64;
        let value_ref = digest.map(|(digest, _)| digest.place(place.segment, value_at));
        let watched = log.conflicts.is_active();
        if watched {
            log.conflicts.note(keyspace.id, &op, seq);
        }
        if durability == Durability::Sync || log.led {
            let mut batch = Batch::new();
            batch.push(&op);
            let mut values = PlacedValues::default();
            if let Some(value_ref) = &value_ref {
                values.push(seq, value_ref);
            }
            let effect = Effect::Ops(vec![(Arc::clone(keyspace), batch)], values);
            return self.join_queue(log, effect, seq, seq);
        }
        // Taking the second lock before releasing the first keeps the order (P1).
        let apply = self.lock_apply();
        drop(log);
        let apply = apply?;
        ops[0].seq = seq;
        ops[0].value_ref = value_ref.as_ref().map(EncodedRef::as_bytes);
        let applied = keyspace.engine.apply(&ops);
        let published = self.publish(seq, 1, applied);
        drop(apply);
        if watched {
            self.announce_publication();
        }
        published?;
        self.after_commit();
        Ok(seq)
    }

    fn commit_many(
        &self,
        parts: Vec<(Arc<OpenKeyspace>, Batch)>,
        durability: Durability,
        condition: Option<(&Condition<'_>, Logged<'_>)>,
    ) -> Result<Outcome> {
        let mut count = 0;
        let mut bytes = 0;
        for (keyspace, batch) in &parts {
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
        if count == 0 {
            // Nothing to log, but a promise to keep: what came before is durable.
            if durability == Durability::Sync {
                self.coordinator.sync_log()?;
            }
            return Ok(Outcome::Committed(self.snapshot_tracker.published()));
        }
        let unplaced = PlacedValues::default();
        for (keyspace, batch) in &parts {
            keyspace
                .engine
                .prepare(&sequenced(batch, SeqNo::ZERO, &unplaced))?;
        }
        let headings: Vec<_> = parts
            .iter()
            .map(|(ks, _)| OpHeading::group(ks.id))
            .collect();
        let mut payload = Vec::with_capacity(2 * parts.len());
        for (heading, (_, batch)) in headings.iter().zip(&parts) {
            payload.push(heading.as_bytes());
            payload.push(batch.encoded());
        }
        let values = self.values_of(&parts, &headings);

        let mut log = self.log.lock();
        self.coordinator.check_writable()?;
        if let Some((condition, _)) = condition
            && let Some(seq) = condition.conflict(&log.conflicts)
            && !mutated!("condition-of-a-commit-ignored")
        {
            return Ok(Outcome::Conflict(seq));
        }
        let (first, place) = log.append(count, &payload, values.bytes())?;
        let values = values.place(first, place);
        let last = SeqNo(first.0 + count - 1);
        if let Some((_, logged)) = condition {
            logged(&parts);
        }
        let watched = log.conflicts.is_active();
        if watched {
            note(&mut log.conflicts, &parts, first);
        }
        if durability == Durability::Sync || log.led {
            drop(payload);
            return self
                .join_queue(log, Effect::Ops(parts, values), first, last)
                .map(Outcome::Committed);
        }
        let apply = self.lock_apply();
        drop(log);
        let apply = apply?;
        if mutated!("published-before-applied") {
            self.snapshot_tracker.publish(last);
        }
        let applied = apply_parts(&parts, first, &values);
        let published = self.publish(last, count, applied);
        tell_published(&parts);
        drop(apply);
        if watched {
            self.announce_publication();
        }
        published?;
        self.after_commit();
        Ok(Outcome::Committed(last))
    }

    /// The values of `parts` that are stored apart. Their headings are in front of their batches in
    /// the payload.
    fn values_of(&self, parts: &Parts, headings: &[OpHeading]) -> CommitValues {
        let mut values = CommitValues::default();
        let (mut first_op, mut at) = (0, 0);
        for ((keyspace, batch), heading) in parts.iter().zip(headings) {
            at += heading.as_bytes().len() as u64;
            let is_apart = |len: usize| keyspace.options.stores_apart(len);
            // Most batches are too short to hold such a value, which need not be looked for then.
            if is_apart(batch.len_bytes()) {
                values.add_batch(&self.values, batch, first_op, at, is_apart);
            }
            first_op += batch.len() as u64;
            at += batch.len_bytes() as u64;
        }
        values
    }

    /// The apply lock, unless a commit before this one was applied in part (P3).
    fn lock_apply(&self) -> Result<ApplyGuard<'_>> {
        let lock = self.apply.lock();
        match self.snapshot_tracker.abandoned() {
            Some(error) => Err(error.clone()),
            None => Ok(ApplyGuard {
                pipeline: self,
                _lock: lock,
            }),
        }
    }

    /// Nothing may build on what is applied now.
    fn abandon(&self, error: &Error) {
        self.coordinator.fail(error);
        self.snapshot_tracker.abandon(error);
    }

    /// Called with the apply lock held, for a commit of `ops` operations that ends with `last`. An
    /// engine that could not apply a logged change has a state that nothing may build on: the
    /// store stops writing (P3).
    fn publish(&self, last: SeqNo, ops: u64, applied: Result<()>) -> Result<()> {
        if let Err(error) = applied {
            self.abandon(&error);
            return Err(error);
        }
        self.snapshot_tracker.publish(last);
        // A change of the keyspaces has none.
        self.counters
            .commits
            .fetch_add((ops > 0).into(), Ordering::Relaxed);
        self.counters.ops.fetch_add(ops, Ordering::Relaxed);
        Ok(())
    }

    /// Called with the apply lock held.
    fn apply(&self, effect: &Effect, first: SeqNo) -> Result<()> {
        match effect {
            Effect::Ops(parts, values) => apply_parts(parts, first, values),
            Effect::Keyspaces(change) => {
                self.keyspaces.change(change);
                Ok(())
            }
        }
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
            owner: thread::current(),
            state: AtomicU8::new(WAITING),
            error: Mutex::new(None),
        });
        log.queue.push(Arc::clone(&queued));
        if log.led {
            drop(log);
            loop {
                match queued.state.load(Ordering::Acquire) {
                    WAITING => thread::park(),
                    LEADS => break self.lead(),
                    _ => break,
                }
            }
        } else {
            log.led = true;
            drop(log);
            self.lead();
        }
        self.after_commit();
        queued.result().map(|()| last)
    }

    /// One round of leading. A panic in it, be it in an engine or in a file system, ends all
    /// commits that wait for it with an error: no other thread would wake them.
    fn lead(&self) {
        let mut covered = Vec::new();
        let round = catch_unwind(AssertUnwindSafe(|| self.lead_round(&mut covered)));
        let Err(panic) = round else { return };
        let error = Error::panicked("a commit", &*panic);
        self.abandon(&error);
        let mut log = self.log.lock();
        covered.append(&mut log.queue);
        log.led = false;
        drop(log);
        for queued in covered {
            queued.finish(Some(error.clone()));
        }
        self.announce_publication();
    }

    /// Syncs, takes what the sync covered, passes the lead on, applies, wakes. The leader's own
    /// commit is covered by its first round.
    fn lead_round(&self, covered: &mut Vec<Arc<Queued>>) {
        self.counters.groups.fetch_add(1, Ordering::Relaxed);
        let upto = self.log.lock().next.prev();
        let synced = match self.coordinator.check_writable() {
            Ok(()) if mutated!("acknowledged-before-sync") => Ok(upto),
            Ok(()) => self.shared_log.sync(),
            Err(error) => Err(error),
        };
        if let Ok(synced) = synced {
            self.coordinator.note_synced(synced);
        }
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
            self.announce_publication();
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
            Some(next) => next.tell(LEADS),
            None => log.led = false,
        }
        let watched = log.conflicts.is_active();
        let apply = self.lock_apply();
        drop(log);
        let (apply, mut failed) = match apply {
            Ok(apply) => (Some(apply), None),
            Err(error) => (None, Some(error)),
        };
        for queued in &*covered {
            // After one failure the rest must not be applied: that would leave a gap (P1).
            if failed.is_none() {
                let applied = self.apply(&queued.effect, queued.first);
                failed = self.publish(queued.last, queued.ops(), applied).err();
                if let Effect::Ops(parts, _) = &queued.effect {
                    tell_published(parts);
                }
            }
            if let Some(error) = &failed {
                *queued.error.lock() = Some(error.clone());
            }
        }
        drop(apply);
        if watched {
            self.announce_publication();
        }
        for queued in covered.drain(..) {
            queued.tell(DONE);
        }
    }
}

/// The apply lock. If the thread panics while it holds it, a change may be applied in part.
struct ApplyGuard<'a> {
    pipeline: &'a Pipeline,
    _lock: MutexGuard<'a, ()>,
}

impl Drop for ApplyGuard<'_> {
    fn drop(&mut self) {
        // Before the lock is released, which is when the next commit looks.
        if std::thread::panicking() && !mutated!("panic-in-apply-goes-unnoticed") {
            let error = Error::panicked("a commit", &"it was being applied");
            self.pipeline.abandon(&error);
        }
    }
}

impl Sequencer {
    /// Appends a record of `count` operations; returns the first one's number and where the payload
    /// is, of which `value_bytes` are values that engines will refer to.
    fn append(
        &mut self,
        count: u64,
        parts: &[&[u8]],
        value_bytes: u64,
    ) -> Result<(SeqNo, PayloadPlace)> {
        let first = self.next;
        let last = SeqNo(first.0 + count - 1);
        if last > SeqNo::MAX {
            return Err(Error::invalid(
                "the store has used all of its sequence numbers",
            ));
        }
        let place = self.writer.append(first, last, parts, value_bytes)?;
        self.next = last.next();
        Ok((first, place))
    }
}

/// Has `conflicts` remember the operations of a commit, numbered from `first`.
#[cold]
fn note(conflicts: &mut ConflictTracker, parts: &[(Arc<OpenKeyspace>, Batch)], first: SeqNo) {
    let mut seq = first;
    for (keyspace, batch) in parts {
        for op in batch.iter() {
            conflicts.note(keyspace.id, &op, seq);
            seq = seq.next();
        }
    }
}

/// The operations of a batch, numbered from `first`, with references to those of their values that
/// are stored apart.
fn sequenced<'a>(batch: &'a Batch, first: SeqNo, values: &'a PlacedValues) -> Vec<SequencedOp<'a>> {
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

fn apply_parts(parts: &Parts, first: SeqNo, values: &PlacedValues) -> Result<()> {
    let mut next = first;
    let mut shares = Vec::with_capacity(parts.len());
    for (keyspace, batch) in parts {
        shares.push((keyspace, batch, next));
        next = next.plus(batch.len() as u64);
    }
    if parts
        .iter()
        .any(|(_, batch)| batch.len() >= LARGE_BATCH_OPS)
    {
        // The longest first. Of a large share the engine shows readers the time before, until the
        // commit is published. Those of a small share wait for that, but for small ones only.
        shares.sort_by_key(|(_, batch, _)| Reverse(batch.len()));
    }
    for (keyspace, batch, first) in shares {
        if !batch.is_empty() {
            keyspace.engine.apply(&sequenced(batch, first, values))?;
        }
    }
    Ok(())
}

/// The engines need no longer show the time before the commit, if it was published. With the apply
/// lock held.
fn tell_published(parts: &Parts) {
    for (keyspace, _) in parts {
        keyspace.engine.published();
    }
}
