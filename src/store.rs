//! The parts of an open store, joined.
//!
//! [`Store`] is what handles share; its last owner stops the threads. [`Parts`] is what the threads
//! share with it. The threads are thin loops around plain functions
//! ([`Parts::run_engines_once`], [`Parts::run_log_once`]), so tests and simulators call the same
//! functions without threads.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::cache::BlockCache;
use crate::catalog::{CATALOG_FILE, Catalog};
use crate::commit::{Change, Pipeline};
use crate::engine::{Front, Pressure, VerifyReport, Work};
use crate::error::{Error, Result};
use crate::fs::FsLock;
use crate::horizon::{HORIZON_FILE, Horizon};
use crate::hub::Hub;
use crate::options::{Durability, Options};
use crate::registry::{OpenKeyspace, Registry};
use crate::teeth::planted;
use crate::throttle::Throttle;
use crate::trace::Recorder;
use crate::types::SeqNo;
use crate::visibility::Visibility;

/// How long a thread waits before it tries again what failed: a full disk, say.
const RETRY_AFTER_ERROR: Duration = Duration::from_millis(200);
/// Longest sleep of an idle thread. Work is announced; this only bounds the harm of a lost one.
const IDLE_WAIT: Duration = Duration::from_secs(5);

/// What threads and handles share.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) options: Options,
    pub(crate) dir: PathBuf,
    pub(crate) hub: Arc<Hub>,
    pub(crate) visibility: Arc<Visibility>,
    pub(crate) cache: Arc<BlockCache>,
    pub(crate) registry: Registry,
    /// The catalogue as it is on disk. Guards making and dropping keyspaces, over I/O: neither
    /// readers nor writers take it.
    pub(crate) catalog: Mutex<Catalog>,
    /// The horizon as it is on disk. Guards letting go of log segments, over I/O.
    horizon: Mutex<Horizon>,
    store_id: u64,
    /// None in a read-only store.
    pub(crate) pipeline: Option<Pipeline>,
    pub(crate) throttle: Throttle,
    /// Records every operation, if that was asked for.
    pub(crate) recorder: Option<Arc<Recorder>>,
    pub(crate) closed: AtomicBool,
    stop: AtomicBool,
    /// Units of background work that are running.
    busy: AtomicUsize,
    last_background_sync_ms: AtomicU64,
    opened: Instant,
}

/// What handles share. Stops the threads and syncs the log when the last handle goes.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) parts: Arc<Parts>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Released after everything else has stopped.
    lock: Mutex<Option<Box<dyn FsLock>>>,
}

impl Parts {
    #[expect(
        clippy::too_many_arguments,
        reason = "called once, by recovery, which made each part"
    )]
    pub(crate) fn new(
        options: Options,
        dir: PathBuf,
        hub: Arc<Hub>,
        visibility: Arc<Visibility>,
        cache: Arc<BlockCache>,
        registry: Registry,
        catalog: Catalog,
        horizon: Horizon,
        pipeline: Option<Pipeline>,
        recorder: Option<Arc<Recorder>>,
    ) -> Self {
        Self {
            options,
            dir,
            hub,
            visibility,
            cache,
            registry,
            store_id: catalog.store_id,
            catalog: Mutex::new(catalog),
            horizon: Mutex::new(horizon),
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
            return Err(Error::ReadOnly {
                reason: "it was opened read-only".into(),
            });
        };
        Ok(pipeline)
    }

    /// Commits `change` once background work has room for it.
    pub(crate) fn commit(&self, change: Change<'_>, durability: Durability) -> Result<()> {
        let pipeline = self.writable()?;
        if let Some(recorder) = &self.recorder {
            record_commit(recorder, &change, durability);
        }
        match &change {
            Change::One { keyspace, op } => {
                let bytes = match op {
                    crate::engine::Op::Put { key, value } => key.len() + value.len(),
                    crate::engine::Op::Delete { key } => key.len(),
                    crate::engine::Op::DeleteRange { .. } => 0,
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

    /// Waits, without any lock, as long as the keyspace's background work asks for.
    fn make_room(&self, keyspace: &OpenKeyspace, bytes: u64) -> Result<()> {
        match keyspace.engine.pressure() {
            Pressure::None => Ok(()),
            Pressure::Slow(pressure) => {
                if let Some(wait) = self.throttle.delay(pressure, bytes) {
                    std::thread::sleep(wait);
                    self.throttle.note(Pressure::Slow(pressure), wait);
                }
                Ok(())
            }
            Pressure::Stop => self.wait_for_room(keyspace),
        }
    }

    #[cold]
    fn wait_for_room(&self, keyspace: &OpenKeyspace) -> Result<()> {
        let began = Instant::now();
        let outcome = loop {
            let seen = self.hub.progress_count();
            if keyspace.engine.pressure() != Pressure::Stop {
                break Ok(());
            }
            if let Err(error) = self.check_open().and_then(|()| self.hub.check_writable()) {
                break Err(error);
            }
            if let Some(error) = self.hub.background_error() {
                break Err(error);
            }
            if self.options.background_threads == 0 {
                match self.run_engines_once(&[Work::Flush, Work::Compact]) {
                    Ok(true) => {}
                    Ok(false) => break Ok(()),
                    Err(error) => break Err(error),
                }
            } else {
                self.hub.wake();
                self.hub.wait_for_progress(seen, RETRY_AFTER_ERROR);
            }
        };
        self.throttle.note(Pressure::Stop, began.elapsed());
        outcome
    }

    /// Does one unit of engine work of the first kind that is due; false if none is.
    pub(crate) fn run_engines_once(&self, kinds: &[Work]) -> Result<bool> {
        let _busy = Busy::begin(&self.busy);
        if kinds.contains(&Work::Flush) && self.flush_for_log_limit()? {
            return Ok(true);
        }
        for kind in kinds {
            for keyspace in self.registry.all().iter() {
                if keyspace.check_alive().is_ok() && keyspace.engine.run_once(*kind)? {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Flushes the keyspace that needs the oldest segment, if the log is too long.
    fn flush_for_log_limit(&self) -> Result<bool> {
        let Some(keyspace) = self.log_limit_debtor() else {
            return Ok(false);
        };
        keyspace.engine.flush()?;
        self.hub.progressed();
        Ok(true)
    }

    /// The keyspace that needs the oldest segment, if the log is too long and flushing it would
    /// let a segment go.
    fn log_limit_debtor(&self) -> Option<Arc<OpenKeyspace>> {
        let log = self.hub.log()?;
        if log.live_bytes() <= self.options.log_limit_bytes {
            return None;
        }
        let all = self.registry.all();
        let (seq, keyspace) = all
            .iter()
            .filter_map(|keyspace| Some((keyspace.engine.oldest_unpersisted()?, keyspace)))
            .min_by_key(|(seq, _)| *seq)?;
        log.would_retire_after(seq).then(|| Arc::clone(keyspace))
    }

    /// Lets go of the segments that no keyspace needs, once a horizon says so (H2).
    fn retire_log(&self) -> Result<()> {
        let Some(log) = self.hub.log() else {
            return Ok(());
        };
        let mut horizon = self.horizon.lock();
        let needed = self.oldest_needed();
        let first = log.first_after_retiring(needed);
        if first > horizon.first {
            // Taken after `needed`: what a keyspace has persisted only rises.
            let floor =
                |keyspace: &Arc<OpenKeyspace>| (keyspace.id, keyspace.engine.persisted_seq());
            let new = Horizon {
                first,
                end: log.synced_seq(),
                floors: self.registry.all().iter().map(floor).collect(),
            };
            if planted("log-let-go-before-its-horizon") {
                log.retire(Some(first))?;
            }
            if !planted("horizon-not-written") {
                new.store(&*self.options.fs, &self.dir, self.store_id)?;
            }
            *horizon = new;
        }
        // Not `needed`: segments that began meanwhile are not in the horizon.
        let beyond = planted("more-let-go-than-the-horizon-says");
        log.retire(Some(if beyond { needed } else { first }))
    }

    /// Says how far the log is durable, so that damage of its last records can be told from a torn tail. The store is
    /// being closed.
    fn note_end(&self) -> Result<()> {
        let Some(log) = self.hub.log() else {
            return Ok(());
        };
        let mut horizon = self.horizon.lock();
        let end = log.synced_seq();
        if end > horizon.end {
            let new = Horizon {
                end,
                ..horizon.clone()
            };
            new.store(&*self.options.fs, &self.dir, self.store_id)?;
            *horizon = new;
        }
        Ok(())
    }

    /// Compares catalogue and horizon with what is on the disk.
    pub(crate) fn verify_own_files(&self, report: &mut VerifyReport) -> Result<()> {
        let fs = &*self.options.fs;
        let mut judge = |same: Result<bool>, name: &str| {
            report.files += 1;
            match same {
                Ok(true) => {}
                Ok(false) => {
                    let path = self.dir.join(name);
                    let problem = format!("{}: the file is not the one in use", path.display());
                    report.problems.push(problem);
                }
                Err(error) if error.is_corruption() => report.problems.push(error.to_string()),
                Err(error) => return Err(error),
            }
            Ok(())
        };
        let catalog = self.catalog.lock();
        let is_same = |stored: Option<Catalog>| stored.is_some_and(|s| s.is_stored_like(&catalog));
        judge(Catalog::load(fs, &self.dir).map(is_same), CATALOG_FILE)?;
        drop(catalog);
        let horizon = self.horizon.lock();
        let stored = Horizon::load(fs, &self.dir, self.store_id);
        // A replacement that reported an error may have worked, and is true as well (H1).
        let fits = |stored: Horizon| stored == *horizon || stored.first > horizon.first;
        judge(stored.map(fits), HORIZON_FILE)
    }

    /// The first sequence number that recovery would need from the log.
    fn oldest_needed(&self) -> SeqNo {
        // Published is read first: what is at or below it has been applied, so the engines
        // know whether they need it; what is above it is needed in any case.
        let published = self.visibility.published();
        if planted("log-segment-unlinked-early") {
            return published.next();
        }
        let all = self.registry.all();
        all.iter()
            .filter_map(|keyspace| keyspace.engine.oldest_unpersisted())
            .fold(published.next(), SeqNo::min)
    }

    /// Does one unit of work on the log: prepares the next segment, lets old ones go, or syncs
    /// buffered commits that have waited long enough. False if nothing was due.
    pub(crate) fn run_log_once(&self) -> Result<bool> {
        let Some(log) = self.hub.log() else {
            return Ok(false);
        };
        self.hub.check_writable()?;
        if log.prepare()? {
            return Ok(true);
        }
        let interval_ms = self.options.background_sync_ms;
        let now_ms = self.opened.elapsed().as_millis() as u64;
        let last_ms = self.last_background_sync_ms.load(Ordering::Relaxed);
        let mut worked = false;
        if interval_ms > 0 && now_ms.saturating_sub(last_ms) >= interval_ms {
            self.last_background_sync_ms
                .store(now_ms, Ordering::Relaxed);
            if log.synced_seq() < log.appended_seq() {
                self.hub.sync_log()?;
                worked = true;
            }
        }
        self.retire_log()?;
        Ok(worked)
    }

    /// Does one unit of any background work; false if none is due.
    pub(crate) fn run_background_once(&self) -> Result<bool> {
        Ok(self.run_log_once()? || self.run_engines_once(&[Work::Flush, Work::Compact])?)
    }

    /// Returns when no background work is due or running.
    pub(crate) fn wait_idle(&self) -> Result<()> {
        loop {
            let seen = self.hub.progress_count();
            self.check_open()?;
            self.hub.check_writable()?;
            if let Some(error) = self.hub.background_error() {
                return Err(error);
            }
            if self.options.background_threads == 0 {
                if !self.run_background_once()? {
                    return self.retire_log();
                }
                continue;
            }
            let due = self
                .registry
                .all()
                .iter()
                .any(|ks| ks.engine.work_due().is_some());
            if !due && self.busy.load(Ordering::SeqCst) == 0 {
                return Ok(());
            }
            self.hub.wake();
            self.hub.wait_for_progress(seen, Duration::from_millis(10));
        }
    }

    /// A thin loop around `step` until the store closes.
    fn run_thread(&self, idle_wait: Duration, step: impl Fn(&Self) -> Result<bool>) {
        let mut has_failed = false;
        while !self.stop.load(Ordering::SeqCst) {
            let seen = self.hub.work_count();
            let outcome = step(self);
            // What failed may have been done by somebody else meanwhile, a caller of `flush` perhaps: then
            // nothing is due, and the error is over as well.
            if matches!(outcome, Ok(worked) if worked || has_failed) {
                self.hub.note_background(Ok(()));
                has_failed = false;
            }
            match outcome {
                Ok(true) => self.hub.progressed(),
                Ok(false) => self.hub.wait_for_work(seen, idle_wait),
                Err(error) => {
                    has_failed = true;
                    self.hub.note_background(Err(error));
                    self.hub
                        .wait_for_work(self.hub.work_count(), RETRY_AFTER_ERROR);
                }
            }
        }
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

/// Counts a running unit of work.
struct Busy<'a>(&'a AtomicUsize);

impl<'a> Busy<'a> {
    fn begin(counter: &'a AtomicUsize) -> Self {
        counter.fetch_add(1, Ordering::SeqCst);
        Self(counter)
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Store {
    /// Starts the threads of a recovered store.
    pub(crate) fn start(parts: Parts, lock: Option<Box<dyn FsLock>>) -> Result<Arc<Self>> {
        let parts = Arc::new(parts);
        let store = Arc::new(Self {
            parts: Arc::clone(&parts),
            threads: Mutex::new(Vec::new()),
            lock: Mutex::new(lock),
        });
        if parts.pipeline.is_some() && parts.options.background_threads > 0 {
            let log_wait = match parts.options.background_sync_ms {
                0 => IDLE_WAIT,
                interval_ms => Duration::from_millis(interval_ms).min(IDLE_WAIT),
            };
            store.spawn("hedgerow-log", move |parts| {
                parts.run_thread(log_wait, Parts::run_log_once);
            })?;
            for index in 0..parts.options.background_threads {
                // The first thread flushes and does nothing else if it has a helper, so that a
                // long compaction never holds up a flush.
                let kinds: &'static [Work] = if index == 0 && parts.options.background_threads > 1 {
                    &[Work::Flush]
                } else if index == 0 {
                    &[Work::Flush, Work::Compact]
                } else {
                    &[Work::Compact]
                };
                store.spawn("hedgerow-work", move |parts| {
                    parts.run_thread(IDLE_WAIT, |parts| parts.run_engines_once(kinds));
                })?;
            }
        }
        Ok(store)
    }

    fn spawn(&self, name: &str, body: impl FnOnce(&Parts) + Send + 'static) -> Result<()> {
        let parts = Arc::clone(&self.parts);
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || body(&parts))
            .map_err(|e| Error::io("start a thread for", &self.parts.dir, e))?;
        self.threads.lock().push(thread);
        Ok(())
    }

    /// Stops the threads, syncs the log, releases the lock. The second call does nothing.
    pub(crate) fn close(&self) -> Result<()> {
        if self.parts.closed.swap(true, Ordering::SeqCst) {
            return Ok(());
        }
        self.parts.stop.store(true, Ordering::SeqCst);
        self.parts.hub.progressed();
        for thread in self.threads.lock().drain(..) {
            // A panic in a background thread has been printed; there is nothing to add.
            let _ = thread.join();
        }
        let synced = match &self.parts.pipeline {
            // A commit that is under way finishes first: it holds the log lock.
            Some(_) => self.parts.hub.sync_log(),
            None => Ok(()),
        };
        if synced.is_ok() {
            // Best effort: everything is durable, only a witness is missing.
            let _ = self.parts.note_end();
        }
        if let Some(recorder) = &self.parts.recorder {
            recorder.finish();
        }
        *self.lock.lock() = None;
        synced
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // Errors have nowhere to go here; `Db::close` reports them.
        let _ = self.close();
    }
}
