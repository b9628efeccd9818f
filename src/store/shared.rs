//! What the threads and the handles of a store share.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

use super::apply::Parts;
use super::backpressure::Waits;
use super::catalog_state::CatalogState;
use super::commit::{Change, Condition, Outcome, Pipeline};
use super::coordinator::Coordinator;
use super::health::{LogJobs, Turns};
use super::keyspaces::{Keyspaces, OpenKeyspace};
use super::scrub_state::Scrub;
use super::stored_form::{parts_in_stored_form, stored_form};
use super::wal_manifest::OpenWalManifest;
use crate::cache::BlockCache;
use crate::engine::{SnapshotTracker, Work};
use crate::error::{Error, Result};
use crate::fs::fork::Owner;
use crate::fs::{LockGuard, OpenFiles};
use crate::kv::Batch;
use crate::options::{Durability, Options};
use crate::resolve::{OperandStamp, Stamp};
use crate::trace::Recorder;
use crate::types::{KeyspaceId, Op, SeqNo};
use crate::util::gate::{Gate, Pass, Stay};
use crate::util::mutants::mutated;
use crate::values::{MIN_VALUE_THRESHOLD_BYTES, ValueFiles};

/// What threads and handles share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) dir: PathBuf,
    pub(crate) coordinator: Arc<Coordinator>,
    pub(crate) snapshot_tracker: Arc<SnapshotTracker>,
    pub(crate) cache: Arc<BlockCache>,
    pub(crate) open_files: Arc<OpenFiles>,
    pub(super) values: Arc<ValueFiles>,
    pub(crate) keyspaces: Arc<Keyspaces>,
    /// The catalogue. Guards making, dropping and renaming keyspaces, over I/O: neither readers nor
    /// writers take it. Locked after `wal_manifest`, or alone.
    pub(super) catalog: Mutex<CatalogState>,
    /// Of the directory: asked before a file is made or replaced that another process may have.
    pub(super) lock_guard: LockGuard,
    /// The WAL manifest as it is in its file. Guards deleting log segments, over I/O.
    pub(super) wal_manifest: Mutex<OpenWalManifest>,
    pub(super) store_id: u64,
    /// None in a read-only store.
    pub(crate) pipeline: Option<Pipeline>,
    pub(super) waits: Waits,
    pub(super) log_jobs: LogJobs,
    /// Held by the thread that works on value files.
    pub(super) collecting: Mutex<()>,
    /// Held by the thread that flushes what keeps the log too long.
    pub(super) flushing_debtors: Mutex<()>,
    /// Nothing was written for long.
    pub(super) log_is_idle: AtomicBool,
    /// Trees are merged for their sake from so many bytes of them on.
    pub(super) merge_values_from: AtomicU64,
    /// A merge of them has failed, and is to be tried again when there is nothing else to do.
    pub(super) owes_merge_of_values: AtomicBool,
    /// Whose turn it is: theirs, or that of the engines.
    pub(super) values_are_next: AtomicBool,
    /// Likewise for sweeps.
    pub(super) sweeps_are_next: AtomicBool,
    pub(super) scrub: Scrub,
    pub(super) turns: Turns,
    /// Of the log, when its length was last looked at by a writer.
    switches_seen: AtomicU64,
    /// Records every operation, if that was asked for.
    pub(crate) recorder: Option<Arc<Recorder>>,
    /// Closed when the store is: every call that uses its files passes here.
    pub(super) gate: Arc<Gate>,
    /// The process that opened the store: a forked child does nothing with it.
    pub(crate) owner: Owner,
    /// Units of background work that are running.
    pub(super) busy: AtomicUsize,
    pub(super) last_background_sync_ms: AtomicU64,
    pub(super) opened: Instant,
}

impl Shared {
    #[expect(
        clippy::too_many_arguments,
        reason = "called once, by recovery, which made each part"
    )]
    pub(crate) fn new(
        options: Options,
        dir: PathBuf,
        coordinator: Arc<Coordinator>,
        snapshot_tracker: Arc<SnapshotTracker>,
        cache: Arc<BlockCache>,
        open_files: Arc<OpenFiles>,
        values: Arc<ValueFiles>,
        keyspaces: Arc<Keyspaces>,
        catalog: CatalogState,
        lock_guard: LockGuard,
        wal_manifest: OpenWalManifest,
        pipeline: Option<Pipeline>,
        recorder: Option<Arc<Recorder>>,
        gate: Arc<Gate>,
    ) -> Self {
        Self {
            options,
            dir,
            coordinator,
            snapshot_tracker,
            cache,
            open_files,
            values,
            keyspaces,
            store_id: catalog.current().store_id,
            catalog: Mutex::new(catalog),
            lock_guard,
            wal_manifest: Mutex::new(wal_manifest),
            pipeline,
            waits: Waits::default(),
            log_jobs: LogJobs::default(),
            collecting: Mutex::default(),
            flushing_debtors: Mutex::default(),
            log_is_idle: AtomicBool::new(false),
            merge_values_from: AtomicU64::new(0),
            owes_merge_of_values: AtomicBool::new(false),
            values_are_next: AtomicBool::new(false),
            sweeps_are_next: AtomicBool::new(false),
            scrub: Scrub::default(),
            turns: Turns::default(),
            switches_seen: AtomicU64::new(0),
            recorder,
            gate,
            owner: Owner::this_process(),
            busy: AtomicUsize::new(0),
            last_background_sync_ms: AtomicU64::new(0),
            opened: Instant::now(),
        }
    }

    /// Goes in for a call that ends by itself: closing waits until the pass is dropped. Held by
    /// every call that uses the files of the store, and never over code of the user.
    #[inline]
    pub(crate) fn enter(&self) -> Result<Pass<'_>> {
        if !mutated!("forked-child-calls") {
            self.owner.check()?;
        }
        self.gate.enter().ok_or(Error::Closed)
    }

    /// Goes in for as long as the user likes: closing does not wait, but the directory stays locked
    /// until the last of these is dropped.
    #[inline]
    pub(crate) fn stay(&self) -> Result<Stay> {
        self.owner.check()?;
        self.gate.stay().ok_or(Error::Closed)
    }

    /// As [`Shared::enter`], for a call that writes.
    pub(crate) fn enter_to_write(&self) -> Result<(&Pipeline, Pass<'_>)> {
        let pass = self.enter()?;
        Ok((self.takes_writes()?, pass))
    }

    /// The pipeline, in a store that takes writes.
    pub(crate) fn takes_writes(&self) -> Result<&Pipeline> {
        self.pipeline.as_ref().ok_or(Error::ReadOnly)
    }

    /// An error once the store is closed, for what waits outside the gate.
    pub(super) fn check_open(&self) -> Result<()> {
        self.owner.check()?;
        match self.gate.is_closed() {
            true => Err(Error::Closed),
            false => Ok(()),
        }
    }

    /// Flushes a keyspace on this thread.
    pub(crate) fn flush(&self, keyspace: &OpenKeyspace) -> Result<()> {
        if keyspace.staging.visible().is_some() {
            // A large batch is visible before its engine has it.
            keyspace.keyspace_gate.wait();
        }
        let flushed = keyspace.engine.flush();
        self.note(keyspace.health(Work::Flush), &flushed);
        flushed
    }

    /// Brings the files of a keyspace into their best shape, on this thread.
    pub(crate) fn compact(&self, keyspace: &Arc<OpenKeyspace>) -> Result<()> {
        self.sweep_all(keyspace)?;
        let compacted = keyspace.engine.compact();
        if compacted.is_ok() {
            self.note(keyspace.health(Work::Compact), &compacted);
        }
        compacted
    }

    /// Commits `change` once background work has room for it.
    pub(crate) fn commit(&self, change: Change<'_>, durability: Durability) -> Result<SeqNo> {
        let pipeline = self.takes_writes()?;
        let is_one = matches!(change, Change::One { .. });
        match &change {
            Change::One { keyspace, op } => {
                self.make_room(keyspace, taken_bytes(keyspace, op) as u64)?;
            }
            Change::Streamed { keyspace, key, .. } => {
                let bytes = key.len() as u64 + u64::from(MIN_VALUE_THRESHOLD_BYTES);
                self.make_room(keyspace, bytes)?;
            }
            Change::Many(parts) => {
                for (keyspace, batch) in parts {
                    self.make_room(keyspace, taken_bytes_of(keyspace, batch) as u64)?;
                }
            }
        }
        // Neither before: what expires counts from the commit, and closing does not wait for
        // background work to make room.
        let (mut change, _merges) = stored_form(change)?;
        let _pass = self.enter()?;
        if let Change::Many(parts) = &mut change {
            pipeline.expect_number(parts);
        }
        if let Some(recorder) = &self.recorder {
            record_commit(recorder, &change, is_one, durability);
        }
        let seq = pipeline.commit(change, durability)?;
        self.after_commit();
        Ok(seq)
    }

    /// Commits `parts` if `condition` holds.
    pub(crate) fn commit_if(
        &self,
        mut parts: Vec<(Arc<OpenKeyspace>, Batch)>,
        durability: Durability,
        condition: &Condition<'_>,
    ) -> Result<Outcome> {
        let pipeline = self.takes_writes()?;
        for (keyspace, batch) in &parts {
            self.make_room(keyspace, taken_bytes_of(keyspace, batch) as u64)?;
        }
        let _merges = parts_in_stored_form(&mut parts)?;
        pipeline.expect_number(&mut parts);
        let _pass = self.enter()?;
        // Only now is it known whether anything is written.
        let logged = |parts: &Parts| {
            if let Some(recorder) = &self.recorder {
                record_parts(recorder, parts, durability);
            }
        };
        if mutated!("foiled-commit-recorded") {
            logged(&parts);
        }
        let outcome = pipeline.commit_if(parts, durability, condition, &logged)?;
        self.after_commit();
        Ok(outcome)
    }

    /// Looks whether the log is too long, once for each segment: the thread of the log may be far
    /// behind the writers.
    #[inline]
    pub(super) fn after_commit(&self) {
        if let Some(log) = self.coordinator.log()
            && log.switches() != self.switches_seen.load(Ordering::Relaxed)
        {
            self.switches_seen.store(log.switches(), Ordering::Relaxed);
            self.watch_log_length();
        }
    }
}

/// Bytes that the engine takes of an operation: a reference, if the value is stored apart.
fn taken_bytes(keyspace: &OpenKeyspace, op: &Op<'_>) -> usize {
    match op {
        Op::Put { key, value } if keyspace.options.stores_apart(value.len()) => {
            key.len() + MIN_VALUE_THRESHOLD_BYTES as usize
        }
        Op::Put { key, value } => key.len() + value.len(),
        Op::Merge { key, operand } => key.len() + operand.len(),
        Op::Delete { key } => key.len(),
        Op::DeleteRange { .. } => 0,
    }
}

/// The same of a batch.
fn taken_bytes_of(keyspace: &OpenKeyspace, batch: &Batch) -> usize {
    match keyspace.options.stores_apart(batch.len_bytes()) {
        true => batch.iter().map(|op| taken_bytes(keyspace, &op)).sum(),
        false => batch.len_bytes(),
    }
}

/// Records a commit that begins, of one operation if it `is_one`. One that is refused for its
/// limits has no place in a trace.
#[cold]
fn record_commit(recorder: &Recorder, change: &Change<'_>, is_one: bool, durability: Durability) {
    match change {
        Change::One { keyspace, op } => recorder.write_one(keyspace.id, op, durability),
        Change::Streamed {
            keyspace,
            key,
            len_bytes,
            ..
        } => recorder.write_streamed(keyspace.id, key, *len_bytes, durability),
        Change::Many(parts) if parts.iter().all(|(_, batch)| batch.check().is_ok()) => {
            match ops_as_given(parts).next() {
                Some((keyspace, op)) if is_one => recorder.write_one(keyspace, &op, durability),
                _ => record_parts(recorder, parts, durability),
            }
        }
        Change::Many(_) => {}
    }
}

#[cold]
fn record_parts(recorder: &Recorder, parts: &Parts, durability: Durability) {
    recorder.write_batch(ops_as_given(parts), durability);
}

/// The operations of a commit as they were before they got their stored form.
fn ops_as_given(parts: &Parts) -> impl Iterator<Item = (KeyspaceId, Op<'_>)> {
    let ops = parts
        .iter()
        .flat_map(|(keyspace, batch)| batch.iter().map(move |op| (keyspace, op)));
    ops.map(|(keyspace, op)| {
        let given = match op {
            op if !keyspace.resolver.expires() => op,
            Op::Put { key, value } => Op::Put {
                key,
                value: Stamp::split(value).0,
            },
            Op::Merge { key, operand } => Op::Merge {
                key,
                operand: OperandStamp::split(operand).0,
            },
            op => op,
        };
        (keyspace.id, given)
    })
}
