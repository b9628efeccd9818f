//! A file system in which a store changes names only while it holds its lock.
//!
//! If the directory of a store is removed, or moved away, another process may make a store of the
//! same name there. The lock of the first one is on a file that has no name any more, and its files
//! that are open are its own; but what it did by path would be done to the files of the other.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{File, Fs, FsLock, LockGuard, LockMode, OpenMode};
use crate::error::Result;

/// A file system behind a guard, which is asked before files and directories are made, replaced,
/// removed, or opened for writing.
#[derive(Debug)]
pub(crate) struct GuardedFs {
    fs: Arc<dyn Fs>,
    guard: LockGuard,
}

impl GuardedFs {
    pub(crate) fn new(fs: Arc<dyn Fs>, guard: LockGuard) -> Self {
        Self { fs, guard }
    }
}

impl Fs for GuardedFs {
    fn absolute(&self, path: &Path) -> Result<PathBuf> {
        self.fs.absolute(path)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> Result<Arc<dyn File>> {
        if mode != OpenMode::Read {
            self.guard.check()?;
        }
        self.fs.open(path, mode)
    }

    fn open_uncached(&self, path: &Path) -> Result<Arc<dyn File>> {
        self.fs.open_uncached(path)
    }

    fn create_dir_all(&self, path: &Path) -> Result<()> {
        self.guard.check()?;
        self.fs.create_dir_all(path)
    }

    fn read_dir(&self, path: &Path) -> Result<Vec<String>> {
        self.fs.read_dir(path)
    }

    fn exists(&self, path: &Path) -> Result<bool> {
        self.fs.exists(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.guard.check()?;
        self.fs.rename(from, to)
    }

    fn rename_new(&self, from: &Path, to: &Path) -> Result<()> {
        self.guard.check()?;
        self.fs.rename_new(from, to)
    }

    fn remove_file(&self, path: &Path) -> Result<()> {
        self.guard.check()?;
        self.fs.remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> Result<()> {
        self.guard.check()?;
        self.fs.remove_dir(path)
    }

    fn sync_dir(&self, path: &Path) -> Result<()> {
        self.fs.sync_dir(path)
    }

    fn lock(&self, path: &Path, mode: LockMode) -> Result<Box<dyn FsLock>> {
        self.fs.lock(path, mode)
    }

    fn lock_dir(&self, path: &Path) -> Result<Option<Box<dyn FsLock>>> {
        self.fs.lock_dir(path)
    }
}
