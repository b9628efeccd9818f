//! Keeps commits from a keyspace while a bulk load or a large batch is made a part of it.
//!
//! A load comes after everything that was committed before, and the engine has to persist that
//! first. So the gate is closed for that, and until the load is visible. For a large batch it is
//! closed until the engine has applied it. It is closed and looked at under the log lock; a commit
//! that finds it closed waits without that lock, so that commits to other keyspaces go on.

use std::time::Duration;

use crate::util::sync::atomic::{AtomicBool, Ordering};
use crate::util::sync::{Condvar, Mutex};

/// How long a commit sleeps before it looks again. It is woken; this only bounds the harm of a lost
/// wake-up.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// Of one keyspace.
#[derive(Debug, Default)]
pub(super) struct KeyspaceGate {
    is_closed: AtomicBool,
    lock: Mutex<()>,
    opened: Condvar,
}

impl KeyspaceGate {
    /// True if a commit has to wait. Under the log lock.
    #[inline]
    pub(super) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Acquire)
    }

    /// Closes the gate; false if it is closed. Under the log lock.
    pub(super) fn close(&self) -> bool {
        !self.is_closed.swap(true, Ordering::AcqRel)
    }

    pub(super) fn open(&self) {
        let guard = self.lock.lock();
        self.is_closed.store(false, Ordering::Release);
        drop(guard);
        self.opened.notify_all();
    }

    /// Waits until the gate is open.
    #[cold]
    pub(super) fn wait(&self) {
        let mut guard = self.lock.lock();
        while self.is_closed() {
            self.opened.wait_for(&mut guard, LONGEST_WAIT);
        }
    }
}
