//! A bounded number of open files.
//!
//! Every table of an LSM tree is a file, and so is every B-tree; a store may have more of them than
//! a process may have descriptors. So a [`LazyFile`] is opened when it is read, and [`OpenFiles`]
//! closes the one that was read longest ago when too many are open. A file that was read while it
//! is closed stays open until that read has ended: so there can be one more for each thread that
//! reads.
//!
//! Files that must stay open, because what was written to them is not synced yet, take a [`Held`]
//! each, of which there are half as many as files may be open; without one they are synced and
//! closed. A file that is written and synced by one unit of work is kept by it
//! ([`LazyFile::open`]): there are no more of those than threads.
//!
//! Nothing is opened, read or closed while the list is locked.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::{File, Fs, OpenMode};
use crate::error::Result;
use crate::util::mutants::mutated;

/// The open files of one store.
#[derive(Debug)]
pub(crate) struct OpenFiles {
    /// Lazy files that are open at most.
    limit: usize,
    list: Mutex<List>,
    /// Of [`Held`].
    hold_limit: usize,
    held: AtomicUsize,
}

#[derive(Debug, Default)]
struct List {
    /// By number, with the time of the last read.
    files: HashMap<u64, (u64, Arc<dyn File>)>,
    /// Counts reads.
    now: u64,
    next_number: u64,
}

impl OpenFiles {
    /// No more than `limit` files, which is at least 2.
    pub(crate) fn new(limit: usize) -> Self {
        let hold_limit = limit / 2;
        Self {
            limit: (limit - hold_limit).max(1),
            list: Mutex::default(),
            hold_limit,
            held: AtomicUsize::new(0),
        }
    }

    /// The file `path`, which is opened when it is used.
    pub(crate) fn file(
        self: &Arc<Self>,
        fs: &Arc<dyn Fs>,
        path: &Path,
        mode: OpenMode,
    ) -> LazyFile {
        let mut list = self.list.lock();
        list.next_number += 1;
        LazyFile {
            fs: Arc::clone(fs),
            path: path.to_path_buf(),
            mode,
            number: list.next_number,
            open_files: Arc::clone(self),
        }
    }

    /// Lets the caller keep one file open, if not too many do.
    pub(crate) fn hold(self: &Arc<Self>) -> Option<Held> {
        let one_more = |held| (held < self.hold_limit).then_some(held + 1);
        let held = &self.held;
        held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more)
            .ok()
            .map(|_| Held(Arc::clone(self)))
    }

    /// How many files are open.
    pub(crate) fn count(&self) -> usize {
        self.list.lock().files.len() + self.held.load(Ordering::Relaxed)
    }

    fn find(&self, number: u64) -> Option<Arc<dyn File>> {
        let list = &mut *self.list.lock();
        let (used, file) = list.files.get_mut(&number)?;
        list.now += 1;
        *used = list.now;
        Some(Arc::clone(file))
    }

    /// Lists an open file; returns those that it displaces, to be closed by the caller.
    #[must_use]
    fn add(&self, number: u64, file: Arc<dyn File>) -> Vec<Arc<dyn File>> {
        let list = &mut *self.list.lock();
        list.now += 1;
        let displaced = list.files.insert(number, (list.now, file));
        let mut closed: Vec<_> = displaced.map(|(_, file)| file).into_iter().collect();
        while list.files.len() > self.limit && !mutated!("open-files-without-a-limit") {
            let by_use = |(number, (used, _)): (&u64, &(u64, _))| (*used, *number);
            let oldest = list.files.iter().map(by_use).min();
            let removed = oldest.and_then(|(_, number)| list.files.remove(&number));
            closed.extend(removed.map(|(_, file)| file));
        }
        closed
    }

    fn remove(&self, number: u64) -> Option<Arc<dyn File>> {
        let removed = self.list.lock().files.remove(&number);
        removed.map(|(_, file)| file)
    }
}

/// Permission to keep a file open.
#[derive(Debug)]
pub(crate) struct Held(Arc<OpenFiles>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.held.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A file that is opened when it is used.
#[derive(Debug)]
pub(crate) struct LazyFile {
    fs: Arc<dyn Fs>,
    path: PathBuf,
    mode: OpenMode,
    number: u64,
    open_files: Arc<OpenFiles>,
}

impl LazyFile {
    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// As [`File::read_exact_at`].
    pub(crate) fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.to_read()?.read_exact_at(buf, offset)
    }

    /// As [`File::is_in_memory`].
    pub(crate) fn is_in_memory(&self, offset: u64) -> Option<bool> {
        self.to_read().ok()?.is_in_memory(offset)
    }

    /// The file, from among those that are kept open.
    fn to_read(&self) -> Result<Arc<dyn File>> {
        if let Some(file) = self.open_files.find(self.number) {
            return Ok(file);
        }
        let file = self.open()?;
        drop(self.open_files.add(self.number, Arc::clone(&file)));
        Ok(file)
    }

    /// Opens the file for the caller, who keeps it open while it has what is returned. A caller
    /// that writes syncs through the same: a failure to write may be reported to that one only.
    pub(crate) fn open(&self) -> Result<Arc<dyn File>> {
        self.fs.open(&self.path, self.mode)
    }
}

impl Drop for LazyFile {
    fn drop(&mut self) {
        drop(self.open_files.remove(self.number));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::SimFs;

    #[test]
    fn the_file_that_was_read_longest_ago_is_closed() {
        let fs: Arc<dyn Fs> = Arc::new(SimFs::new());
        let open_files = Arc::new(OpenFiles::new(6));
        let files: Vec<_> = (0..5)
            .map(|number| {
                let path = PathBuf::from(format!("/{number}"));
                let file = fs.open(&path, OpenMode::CreateNew).unwrap();
                file.write_all_at(&[number; 8], 0).unwrap();
                open_files.file(&fs, &path, OpenMode::Read)
            })
            .collect();
        assert_eq!(open_files.count(), 0);
        let is_open = |at: usize| open_files.list.lock().files.contains_key(&files[at].number);
        for (at, open) in [(0, 1), (1, 2), (2, 3), (0, 3), (3, 3), (0, 3), (4, 3)] {
            let mut buf = [9; 4];
            files[at].read_exact_at(&mut buf, 2).unwrap();
            assert_eq!(buf, [at as u8; 4]);
            assert_eq!(open_files.count(), open);
        }
        assert!(is_open(0) && is_open(3) && is_open(4));
        drop(files);
        assert_eq!(open_files.count(), 0);
    }

    #[test]
    fn half_of_the_files_may_be_held() {
        let open_files = Arc::new(OpenFiles::new(5));
        let held: Vec<_> = std::iter::from_fn(|| open_files.hold()).collect();
        assert_eq!((held.len(), open_files.count()), (2, 2));
        drop(held);
        assert!(open_files.hold().is_some());
        assert_eq!(open_files.count(), 0);
    }
}
