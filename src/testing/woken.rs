//! A waker for tests.

use std::sync::Arc;
use std::task::Wake;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// Until a wake-up that does not come is a failure; it says nothing about time.
const PATIENCE: Duration = Duration::from_secs(60);

/// A waker that remembers that it was called.
#[derive(Debug, Default)]
pub(crate) struct Woken {
    is_woken: Mutex<bool>,
    woken: Condvar,
}

impl Woken {
    pub(crate) fn is_woken(&self) -> bool {
        *self.is_woken.lock()
    }

    /// Returns when it was called.
    pub(crate) fn wait(&self) {
        let mut is_woken = self.is_woken.lock();
        while !*is_woken {
            let waited = self.woken.wait_for(&mut is_woken, PATIENCE);
            assert!(!waited.timed_out(), "it is not woken");
        }
    }
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        *self.is_woken.lock() = true;
        self.woken.notify_all();
    }
}
