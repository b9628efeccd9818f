//! What the threads and the handles of a store share.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

use super::backpressure::Throttle;
use super::catalog::Catalog;
use super::commit::{Change, Condition, Outcome, Pipeline};
use super::coordinator::Coordinator;
use super::keyspaces::Keyspaces;
use super::wal_manifest::WalManifest;
use crate::cache::BlockCache;
use crate::engine::SnapshotTracker;
use crate::error::{Error, Result};
use crate::fs::OpenFiles;
use crate::kv::Batch;
use crate::options::{Durability, Options};
use crate::trace::Recorder;
use crate::types::SeqNo;

/// What threads and handles share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) dir: PathBuf,
    pub(crate) coordinator: Arc<Coordinator>,
    pub(crate) snapshot_tracker: Arc<SnapshotTracker>,
    pub(crate) cache: Arc<BlockCache>,
    pub(crate) open_files: Arc<OpenFiles>,
    pub(crate) keyspaces: Keyspaces,
    /// The catalogue as it is on disk. Guards making and dropping keyspaces, over I/O: neither
    /// readers nor writers take it.
    pub(crate) catalog: Mutex<Catalog>,
    /// The WAL manifest as it is on disk. Guards deleting log segments, over I/O.
    pub(super) wal_manifest: Mutex<WalManifest>,
    pub(super) store_id: u64,
    /// None in a read-only store.
    pub(crate) pipeline: Option<Pipeline>,
    pub(crate) throttle: Throttle,
    /// Records every operation, if that was asked for.
    pub(crate) recorder: Option<Arc<Recorder>>,
    pub(crate) closed: AtomicBool,
    pub(super) stop: AtomicBool,
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
        keyspaces: Keyspaces,
        catalog: Catalog,
        wal_manifest: WalManifest,
        pipeline: Option<Pipeline>,
        recorder: Option<Arc<Recorder>>,
    ) -> Self {
        Self {
            options,
            dir,
            coordinator,
            snapshot_tracker,
            cache,
            open_files,
            keyspaces,
            store_id: catalog.store_id,
            catalog: Mutex::new(catalog),
            wal_manifest: Mutex::new(wal_manifest),
            pipeline,
            throttle: Throttle::new(),
            recorder,
            closed: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            busy: AtomicUsize::new(0),
            last_background_sync_ms: AtomicU64::new(0),
            opened: Instant::now(),
        }
    }

    /// Refuses use after the store was closed.
    #[inline]
    pub(crate) fn check_open(&self) -> Result<()> {
        if self.closed.load(Ordering::Relaxed) {
            Err(Error::Closed)
        } else {
            Ok(())
        }
    }

    /// The pipeline, in a store that takes writes.
    pub(crate) fn writable(&self) -> Result<&Pipeline> {
        self.check_open()?;
        let Some(pipeline) = &self.pipeline else {
            return Err(Error::ReadOnly);
        };
        Ok(pipeline)
    }

    /// Commits `change` once background work has room for it.
    pub(crate) fn commit(&self, change: Change<'_>, durability: Durability) -> Result<SeqNo> {
        let pipeline = self.writable()?;
        if let Some(recorder) = &self.recorder {
            record_commit(recorder, &change, durability);
        }
        match &change {
            Change::One { keyspace, op } => {
                let bytes = match op {
                    crate::types::Op::Put { key, value } => key.len() + value.len(),
                    crate::types::Op::Delete { key } => key.len(),
                    crate::types::Op::DeleteRange { .. } => 0,
                };
                self.make_room(keyspace, bytes as u64)?;
            }
            Change::Many(parts) => {
                for (keyspace, batch) in parts {
                    self.make_room(keyspace, batch.len_bytes() as u64)?;
                }
            }
        }
        pipeline.commit(change, durability)
    }

    /// Commits `batch` if `condition` holds.
    pub(crate) fn commit_if(
        &self,
        batch: Batch,
        durability: Durability,
        condition: &Condition<'_>,
    ) -> Result<Outcome> {
        let pipeline = self.writable()?;
        let keyspace = condition.keyspace;
        self.make_room(keyspace, batch.len_bytes() as u64)?;
        let change = Change::Many(vec![(Arc::clone(keyspace), batch)]);
        if let Some(recorder) = &self.recorder {
            record_commit(recorder, &change, durability);
        }
        let Change::Many(parts) = change else {
            unreachable!("made here")
        };
        pipeline.commit_if(parts, durability, condition)
    }
}

/// Records a commit that begins. One that is refused for its limits has no place in a trace.
#[cold]
fn record_commit(recorder: &Recorder, change: &Change<'_>, durability: Durability) {
    match change {
        Change::One { keyspace, op } => recorder.write_one(keyspace.id, op, durability),
        Change::Many(parts) if parts.iter().all(|(_, batch)| batch.check().is_ok()) => {
            let ops = parts
                .iter()
                .flat_map(|(keyspace, batch)| batch.iter().map(|op| (keyspace.id, op)));
            recorder.write_batch(ops, durability);
        }
        Change::Many(_) => {}
    }
}
