//! The parts of an open store, joined.
//!
//! [`Store`] is what handles share; its last owner stops the threads. [`Shared`] is what the
//! threads share with it. The threads are thin loops around plain functions
//! ([`Shared::run_engines_once`], [`Shared::run_log_once`]), so tests and simulators call the same
//! functions without threads.

mod admission;
mod apply;
mod apply_queue;
mod background;
mod backpressure;
mod batch_index;
mod bulk_load;
pub(crate) mod catalog;
pub(crate) mod catalog_change;
mod catalog_checkpoint;
mod catalog_replay;
mod catalog_state;
pub(crate) mod commit;
mod commit_values;
mod conflicts;
pub(crate) mod coordinator;
mod durability;
mod durable_waiters;
mod engines;
mod handover;
mod health;
mod inspect;
mod keyspace_changes;
mod keyspace_gate;
pub(crate) mod keyspaces;
mod load_record;
mod log_retention;
mod publication;
mod reads;
mod recovery;
mod replay;
mod scrub;
mod scrub_state;
mod shared;
mod side_by_side;
mod staging;
mod stats;
mod stored_form;
mod streamed_put;
mod sweep;
#[cfg(all(test, not(shuttle)))]
mod tests;
mod value_collection;
mod value_stream;
mod verify;
pub(crate) mod wal_manifest;

use std::sync::Arc;
use std::thread::{JoinHandle, ThreadId};
use std::time::Duration;

use parking_lot::Mutex;

use crate::engine::Work;
use crate::error::{Error, Result};
use crate::fs::FsLock;
use crate::util::mutants::mutated;
use shared::Shared;

pub use commit::watch::Watch;
pub(crate) use commit::{Change, Condition, Outcome};
pub(crate) use conflicts::{Conflict, place_among_reads};
pub(crate) use keyspaces::OpenKeyspace;
pub(crate) use recovery::open;
pub use scrub_state::ScrubStats;
pub use stats::{DbStats, KeyspaceStats};

/// What handles share. Stops the threads and syncs the log when the last handle goes.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// The same, by which they are known.
    thread_ids: Mutex<Vec<ThreadId>>,
    /// Of the directory; the gate gets it when everything else has stopped.
    lock: Mutex<Option<Arc<dyn FsLock>>>,
    /// How closing ended. Locked while it runs, so that a second one waits for the first.
    closing: Mutex<Option<Result<()>>>,
}

impl Store {
    /// Starts the threads of a recovered store.
    pub(crate) fn start(shared: Shared, lock: Option<Arc<dyn FsLock>>) -> Result<Arc<Self>> {
        let shared = Arc::new(shared);
        let store = Arc::new(Self {
            shared: Arc::clone(&shared),
            threads: Mutex::new(Vec::new()),
            thread_ids: Mutex::new(Vec::new()),
            lock: Mutex::new(lock),
            closing: Mutex::new(None),
        });
        if shared.pipeline.is_some() && shared.options.background_threads > 0 {
            // Apart from the next, which writes the zeros of a segment: a sync waits for that only
            // if both share a thread.
            let shares_thread = mutated!("sync-waits-for-segments-that-are-prepared");
            store.spawn("hedgerow-sync", move |shared| {
                shared.run_thread(Shared::sync_wait, |shared| match shares_thread {
                    true => shared.run_log_once(),
                    false => shared.run_sync_once(),
                });
            })?;
            if !shares_thread {
                store.spawn("hedgerow-log", |shared| {
                    shared.run_thread(Shared::segments_wait, Shared::run_segments_once);
                })?;
            }
            for index in 0..shared.options.background_threads {
                // The first thread flushes and does nothing else if it has a helper, so that a
                // long compaction never holds up a flush.
                let kinds: &'static [Work] = if index == 0 && shared.options.background_threads > 1
                {
                    &[Work::Flush]
                } else if index == 0 {
                    &[Work::Flush, Work::Compact]
                } else {
                    &[Work::Compact]
                };
                store.spawn("hedgerow-work", move |shared| {
                    let idle_wait = |shared: &Shared| shared.engines_wait(kinds);
                    shared.run_thread(idle_wait, |shared| shared.run_engines_once(kinds));
                })?;
            }
            if let Some(period) = shared.options.scrub_period {
                store.spawn("hedgerow-scrub", move |shared| {
                    let never = |_: &Shared| Duration::ZERO;
                    shared.run_thread(never, |shared| {
                        shared.scrub_until_closed(period).map(|()| false)
                    });
                })?;
            }
        }
        Ok(store)
    }

    fn spawn(&self, name: &str, body: impl FnOnce(&Shared) + Send + 'static) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || body(&shared))
            .map_err(|e| Error::io("start a thread for", &self.shared.dir, e))?;
        self.thread_ids.lock().push(thread.thread().id());
        self.threads.lock().push(thread);
        Ok(())
    }

    /// Refuses new calls, waits for those that run, stops the threads, syncs the log, and releases
    /// the lock, unless a scan or a snapshot still reads: then the last of them does. A second call
    /// waits for the first and returns what it returned. In a forked child it does nothing.
    pub(crate) fn close(&self) -> Result<()> {
        self.check_not_forked()?;
        let is_own = {
            let own = self.thread_ids.lock();
            own.contains(&std::thread::current().id()) && !mutated!("filter-waits-for-a-close")
        };
        if is_own {
            // Code of the user on a thread of the store: a close waits for calls and threads, of
            // which some may wait for this one.
            self.begin_closing();
            let synced = match &self.shared.pipeline {
                Some(_) => self.shared.coordinator.sync_log(),
                None => Ok(()),
            };
            if !mutated!("begun-close-leaves-futures-asleep") {
                self.shared.coordinator.wake_durable_waiters();
            }
            return synced;
        }
        self.close_and_wait()
    }

    fn check_not_forked(&self) -> Result<()> {
        if let Err(forked) = self.shared.owner.check_exactly() {
            // Threads and locks are the parent's. Nothing is dropped: a thread that does not exist
            // here may have been in the middle of it.
            std::mem::forget(Arc::clone(&self.shared));
            return Err(forked);
        }
        Ok(())
    }

    fn begin_closing(&self) {
        self.shared.gate.close();
        self.shared.coordinator.begin_closing();
    }

    fn close_and_wait(&self) -> Result<()> {
        let mut closing = self.closing.lock();
        closing.get_or_insert_with(|| self.close_once()).clone()
    }

    fn close_once(&self) -> Result<()> {
        let shared = &self.shared;
        self.begin_closing();
        if !mutated!("closed-beside-running-calls") {
            shared.gate.wait_until_empty();
        }
        for thread in self.threads.lock().drain(..) {
            // A thread that drops the last handle, in a filter, cannot wait for itself. A panic in
            // a thread has stopped the writes.
            if thread.thread().id() != std::thread::current().id() {
                let _ = thread.join();
            }
        }
        let synced = match &shared.pipeline {
            Some(_) => shared.coordinator.sync_log(),
            None => Ok(()),
        };
        if synced.is_ok() {
            // Best effort: everything is durable, only space is held, and a witness is missing.
            let _ = shared.retire_log();
            let _ = shared.shrink_log(true);
            let _ = shared.note_end();
            let _ = shared.cut_log();
        }
        shared.coordinator.close_durable_waiters();
        if let Some(recorder) = &shared.recorder {
            recorder.finish();
        }
        if let Some(lock) = self.lock.lock().take() {
            shared.gate.keep(Box::new(lock));
        }
        synced
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // Errors have nowhere to go here; `Db::close` reports them.
        let _ = self.check_not_forked().and_then(|()| self.close_and_wait());
    }
}
