//! The parts of an open store, joined.
//!
//! [`Store`] is what handles share; its last owner stops the threads. [`Shared`] is what the
//! threads share with it. The threads are thin loops around plain functions
//! ([`Shared::run_engines_once`], [`Shared::run_log_once`]), so tests and simulators call the same
//! functions without threads.

mod admission;
mod background;
mod backpressure;
pub(crate) mod catalog;
pub(crate) mod commit;
mod conflicts;
pub(crate) mod coordinator;
mod durability;
mod engines;
mod inspect;
mod keyspace_options;
pub(crate) mod keyspaces;
mod log_retention;
mod recovery;
mod shared;
mod stats;
mod verify;
pub(crate) mod wal_manifest;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;

use crate::engine::{EngineHost, Work};
use crate::error::{Error, Result};
use crate::fs::FsLock;
use shared::Shared;

pub(crate) use catalog::{CatalogEntry, check_name};
pub use commit::Watch;
pub(crate) use commit::{Change, Condition, Outcome};
pub(crate) use engines::make_keyspace;
pub(crate) use keyspace_options::change_options;
pub(crate) use keyspaces::OpenKeyspace;
pub(crate) use recovery::open;
pub use stats::{DbStats, KeyspaceStats};

/// Longest sleep of an idle thread. Work is announced; this only bounds the harm of a lost one.
const IDLE_WAIT: Duration = Duration::from_secs(5);

/// What handles share. Stops the threads and syncs the log when the last handle goes.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Released after everything else has stopped.
    lock: Mutex<Option<Arc<dyn FsLock>>>,
}

impl Store {
    /// Starts the threads of a recovered store.
    pub(crate) fn start(shared: Shared, lock: Option<Arc<dyn FsLock>>) -> Result<Arc<Self>> {
        let shared = Arc::new(shared);
        let store = Arc::new(Self {
            shared: Arc::clone(&shared),
            threads: Mutex::new(Vec::new()),
            lock: Mutex::new(lock),
        });
        if shared.pipeline.is_some() && shared.options.background_threads > 0 {
            let log_wait = match shared.options.background_sync_ms {
                0 => IDLE_WAIT,
                interval_ms => Duration::from_millis(interval_ms).min(IDLE_WAIT),
            };
            store.spawn("hedgerow-log", move |shared| {
                shared.run_thread(log_wait, Shared::run_log_once);
            })?;
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
                    shared.run_thread(IDLE_WAIT, |shared| shared.run_engines_once(kinds));
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
        self.threads.lock().push(thread);
        Ok(())
    }

    /// Stops the threads, syncs the log, releases the lock. The second call does nothing.
    pub(crate) fn close(&self) -> Result<()> {
        if self.shared.closed.swap(true, Ordering::SeqCst) {
            return Ok(());
        }
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.coordinator.progressed();
        for thread in self.threads.lock().drain(..) {
            // A panic in a background thread has been printed; there is nothing to add.
            let _ = thread.join();
        }
        let synced = match &self.shared.pipeline {
            // A commit that is under way finishes first: it holds the log lock.
            Some(_) => self.shared.coordinator.sync_log(),
            None => Ok(()),
        };
        if synced.is_ok() {
            // Best effort: everything is durable, only space is held, and a witness is missing.
            let _ = self.shared.retire_log();
            let _ = self.shared.shrink_log(true);
            let _ = self.shared.note_end();
        }
        if let Some(recorder) = &self.shared.recorder {
            recorder.finish();
        }
        self.shared.coordinator.wake_durable_waiters();
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
