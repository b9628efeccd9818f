//! What engines, writers and background threads tell each other.
//!
//! The coordinator outlives none of them and owns none of them: engines hold it as their
//! [`EngineHost`], so that they can ask for durability and announce work without knowing the log
//! or the store.

use std::io;
use std::sync::{Arc, OnceLock};
use std::task::Waker;
use std::time::{Duration, Instant};

use super::durable_waiters::DurableWaiters;
use crate::engine::EngineHost;
use crate::error::{Error, Result};
use crate::types::SeqNo;
use crate::util::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::util::sync::{Condvar, Mutex};
use crate::wal::Log;

/// Longer ones may not be representable.
const LONGEST_SLEEP: Duration = Duration::from_secs(365 * 24 * 3600);

/// Signals of one store.
#[derive(Debug, Default)]
pub(crate) struct Coordinator {
    /// Set once recovery has finished and the log takes records. Never in a read-only store.
    log: OnceLock<Arc<Log>>,
    /// What recovery found in the log and made durable, before the log takes records.
    recovered: AtomicU64,
    /// Why the store takes no more writes, once it does not.
    failure: OnceLock<Error>,
    /// The store is being closed.
    closing: AtomicBool,
    /// Writers wait until flushes have let the log become shorter.
    log_is_too_long: AtomicBool,
    /// Futures that wait for the log to be durable up to a number.
    durable_waiters: DurableWaiters,
    /// One of them asked for a sync.
    sync_requested: AtomicBool,
    /// Counts announcements of work; sleeping threads compare it.
    work: Signal,
    /// Counts progress of background work; stalled writers compare it.
    progress: Signal,
    /// Counts to one when the store is being closed.
    closed: Signal,
}

/// A counter that threads can wait on.
#[derive(Debug, Default)]
struct Signal {
    count: AtomicU64,
    sleepers: AtomicU64,
    lock: Mutex<()>,
    condvar: Condvar,
}

impl Signal {
    fn now(&self) -> u64 {
        self.count.load(Ordering::SeqCst)
    }

    /// Cheap when no thread sleeps: one atomic addition and one load.
    fn notify(&self) {
        self.count.fetch_add(1, Ordering::SeqCst);
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            // Taking the lock orders this notification after the sleeper's last look.
            drop(self.lock.lock());
            self.condvar.notify_all();
        }
    }

    /// Sleeps until the count differs from `seen`, or for `timeout`.
    fn wait(&self, seen: u64, timeout: Duration) {
        let mut guard = self.lock.lock();
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        if self.now() == seen {
            self.condvar.wait_for(&mut guard, timeout);
        }
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Coordinator {
    /// From now on durability is the business of `log`.
    pub(crate) fn attach_log(&self, log: Arc<Log>) {
        let attached = self.log.set(log);
        debug_assert!(attached.is_ok(), "a store has one log");
    }

    /// The log is durable up to `seq`, though it takes no records yet.
    pub(crate) fn note_recovered(&self, seq: SeqNo) {
        self.recovered.store(seq.0, Ordering::SeqCst);
    }

    /// Up to where what recovery found is durable, as far as it knows.
    pub(crate) fn recovered(&self) -> SeqNo {
        SeqNo(self.recovered.load(Ordering::SeqCst))
    }

    /// The log, in a store that takes writes.
    pub(crate) fn log(&self) -> Option<&Arc<Log>> {
        self.log.get()
    }

    /// The store takes no more writes. The first reason stays.
    pub(crate) fn fail(&self, error: &Error) {
        let _ = self.failure.set(Error::writes_stopped(error));
        self.progress.notify();
        self.work.notify();
    }

    /// Has the log synced by background work, and `waker` woken when it is durable up to `seq`, or
    /// when the store stops writing or closes. An error if there is no thread to wake it.
    pub(crate) fn request_durable(&self, seq: SeqNo, waker: &Waker) -> io::Result<()> {
        self.durable_waiters.add(seq, waker)?;
        self.sync_requested.store(true, Ordering::SeqCst);
        self.work.notify();
        Ok(())
    }

    /// True if a sync was asked for since the last call.
    pub(crate) fn take_sync_request(&self) -> bool {
        self.sync_requested.load(Ordering::Relaxed)
            && self.sync_requested.swap(false, Ordering::SeqCst)
    }

    /// The log is durable up to `seq`. Called by the thread that took a request, also where another
    /// one has synced.
    pub(crate) fn note_synced(&self, seq: SeqNo) {
        self.durable_waiters.wake_upto(seq);
    }

    /// Wakes every future that waits for durability: the store stops writing.
    pub(crate) fn wake_durable_waiters(&self) {
        self.durable_waiters.wake_all();
    }

    /// Wakes every future that waits for durability, for the last time: the store is closed.
    pub(crate) fn close_durable_waiters(&self) {
        self.durable_waiters.close();
    }

    /// An error if the store takes no more writes.
    #[inline]
    pub(crate) fn check_writable(&self) -> Result<()> {
        match self.failure.get() {
            // A writer may have synced, and that may have failed.
            None => self.log.get().map_or(Ok(()), |log| log.check_not_failed()),
            Some(error) => Err(error.clone()),
        }
    }

    /// Whether writers are to wait until the log is shorter.
    #[inline]
    pub(crate) fn log_is_too_long(&self) -> bool {
        self.log_is_too_long.load(Ordering::Relaxed)
    }

    /// Says whether writers are to wait until the log is shorter.
    pub(crate) fn note_log_length(&self, is_too_long: bool) {
        if self.log_is_too_long.swap(is_too_long, Ordering::Relaxed) && !is_too_long {
            self.progress.notify();
        }
    }

    /// Has those look up who wait for background work.
    pub(crate) fn note_progress(&self) {
        self.progress.notify();
    }

    /// Has long work end early and threads return, and wakes every thread that waits.
    pub(crate) fn begin_closing(&self) {
        self.closing.store(true, Ordering::SeqCst);
        self.closed.notify();
        self.progress.notify();
        self.work.notify();
    }

    /// How often work was announced so far.
    pub(crate) fn work_count(&self) -> u64 {
        self.work.now()
    }

    /// Sleeps until more work was announced than `seen`, or for `timeout`.
    pub(crate) fn wait_for_work(&self, seen: u64, timeout: Duration) {
        self.work.wait(seen, timeout);
    }

    /// Sleeps for `duration`, or until the store is being closed, which is an error.
    pub(crate) fn sleep_unless_closed(&self, duration: Duration) -> Result<()> {
        let until = Instant::now() + duration.min(LONGEST_SLEEP);
        loop {
            self.check_running()?;
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            self.closed.wait(0, left);
        }
    }

    /// How often progress was announced so far.
    pub(crate) fn progress_count(&self) -> u64 {
        self.progress.now()
    }

    /// Sleeps until more progress was announced than `seen`, or for `timeout`.
    pub(crate) fn wait_for_progress(&self, seen: u64, timeout: Duration) {
        self.progress.wait(seen, timeout);
    }

    /// Syncs the log. A failure is final: it is never retried.
    pub(crate) fn sync_log(&self) -> Result<()> {
        let Some(log) = self.log() else { return Ok(()) };
        self.check_writable()?;
        match log.sync() {
            Ok(_) => Ok(()),
            Err(error) => {
                self.fail(&error);
                Err(error)
            }
        }
    }
}

impl EngineHost for Coordinator {
    fn make_durable(&self, seq: SeqNo) -> Result<()> {
        match self.log() {
            None if self.recovered.load(Ordering::SeqCst) >= seq.0 => Ok(()),
            // Nothing is logged in a read-only store, and engines persist nothing there. During
            // recovery they persist nothing that was not made durable before.
            None => Err(Error::ReadOnly),
            Some(log) if log.synced_seq() >= seq => Ok(()),
            Some(_) => self.sync_log(),
        }
    }

    fn check_running(&self) -> Result<()> {
        match self.closing.load(Ordering::Relaxed) {
            true => Err(Error::Closed),
            false => Ok(()),
        }
    }

    fn wake(&self) {
        self.work.notify();
    }

    fn progressed(&self) {
        self.progress.notify();
        // Log segments may be deleted, which is background work.
        self.work.notify();
    }
}
