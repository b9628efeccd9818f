//! Background work, as plain functions, and the loop that a thread runs around them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::shared::Shared;
use crate::engine::{EngineHost, Work};
use crate::error::Result;

/// How long a thread waits before it tries again what failed: a full disk, say.
pub(super) const RETRY_AFTER_ERROR: Duration = Duration::from_millis(200);

impl Shared {
    /// Does one unit of engine work of the first kind that is due; false if none is.
    pub(crate) fn run_engines_once(&self, kinds: &[Work]) -> Result<bool> {
        let _busy = Busy::begin(&self.busy);
        if kinds.contains(&Work::Flush) && self.flush_for_log_limit()? {
            return Ok(true);
        }
        for kind in kinds {
            for keyspace in self.keyspaces.all().iter() {
                if keyspace.check_alive().is_ok() && keyspace.engine.run_once(*kind)? {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Does one unit of work on the log: prepares the next segment, lets old ones go, or syncs
    /// buffered commits that have waited long enough. False if nothing was due.
    pub(crate) fn run_log_once(&self) -> Result<bool> {
        let Some(log) = self.coordinator.log() else {
            return Ok(false);
        };
        self.coordinator.check_writable()?;
        if self.coordinator.take_sync_request() && log.synced_seq() < log.appended_seq() {
            self.coordinator.sync_log()?;
            return Ok(true);
        }
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
                self.coordinator.sync_log()?;
                worked = true;
            }
        }
        self.retire_log()?;
        self.shrink_idle_log(log.ages(Instant::now()))?;
        Ok(worked)
    }

    /// Does one unit of any background work; false if none is due.
    pub(crate) fn run_background_once(&self) -> Result<bool> {
        Ok(self.run_log_once()? || self.run_engines_once(&[Work::Flush, Work::Compact])?)
    }

    /// Returns when no background work is due or running.
    pub(crate) fn wait_idle(&self) -> Result<()> {
        loop {
            let seen = self.coordinator.progress_count();
            self.check_open()?;
            self.coordinator.check_writable()?;
            if let Some(error) = self.coordinator.background_error() {
                return Err(error);
            }
            if self.options.background_threads == 0 {
                if !self.run_background_once()? {
                    return self.retire_log();
                }
                continue;
            }
            let due = self
                .keyspaces
                .all()
                .iter()
                .any(|ks| ks.engine.work_due().is_some());
            if !due && self.busy.load(Ordering::SeqCst) == 0 {
                return Ok(());
            }
            self.coordinator.wake();
            self.coordinator
                .wait_for_progress(seen, Duration::from_millis(10));
        }
    }

    /// A thin loop around `step` until the store closes.
    pub(super) fn run_thread(&self, idle_wait: Duration, step: impl Fn(&Self) -> Result<bool>) {
        let mut has_failed = false;
        while !self.stop.load(Ordering::SeqCst) {
            let seen = self.coordinator.work_count();
            let outcome = step(self);
            // What failed may have been done by another thread meanwhile, in `flush` perhaps: then
            // nothing is due, and the error is over as well.
            if matches!(outcome, Ok(worked) if worked || has_failed) {
                self.coordinator.note_background(Ok(()));
                has_failed = false;
            }
            match outcome {
                Ok(true) => self.coordinator.progressed(),
                Ok(false) => self.coordinator.wait_for_work(seen, idle_wait),
                Err(error) => {
                    has_failed = true;
                    self.coordinator.note_background(Err(error));
                    self.coordinator
                        .wait_for_work(self.coordinator.work_count(), RETRY_AFTER_ERROR);
                }
            }
        }
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
