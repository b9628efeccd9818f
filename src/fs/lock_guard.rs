//! Asking whether the lock on a directory is still held.

use std::sync::{Arc, Weak};

use super::FsLock;
use crate::error::{Error, Result};
use crate::util::mutants::mutated;

/// Whether the lock on a store is still held: what is made or replaced after it was lost or
/// released could take the place of a file of another process.
#[derive(Debug, Clone, Default)]
pub(crate) struct LockGuard(Option<Weak<dyn FsLock>>);

impl LockGuard {
    /// The guard of what `lock` protects. It does not keep the lock.
    pub(crate) fn by(lock: &Arc<dyn FsLock>) -> Self {
        Self(Some(Arc::downgrade(lock)))
    }

    /// An error if the lock was lost or released. Nothing is guarded without a lock.
    pub(crate) fn check(&self) -> Result<()> {
        match &self.0 {
            _ if mutated!("lock-not-looked-at") => Ok(()),
            Some(lock) => lock.upgrade().ok_or(Error::Closed)?.check(),
            // Of a reader, or of a log without a store, in tests.
            None => Ok(()),
        }
    }
}
