//! One value file: a segment of the log that holds values which engines refer to.

use std::ops::{Deref, Range};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use super::reference::ValueRef;
use crate::error::{Error, Result};
use crate::fs;
use crate::fs::{Advice, File, Fs, LazyFile, Mapping, OpenFiles, OpenMode};
use crate::types::SeqNo;
use crate::util::mutants::mutated;

/// How value files are read.
#[derive(Debug)]
pub(super) struct Access {
    pub(super) fs: Arc<dyn Fs>,
    pub(super) open_files: Arc<OpenFiles>,
    /// Through memory maps, where there are some.
    pub(super) use_mmap: bool,
    /// Of the checksums of values.
    pub(super) seed: u64,
}

/// A file that values lie in. It is read in the same way while it is a segment of the log and when
/// it has left it.
#[derive(Debug)]
pub(crate) struct ValueFile {
    pub(super) number: u64,
    pub(super) len_bytes: u64,
    access: Arc<Access>,
    /// The file under its current name. Locked while it gets another one, and while it is opened.
    file: Mutex<Arc<LazyFile>>,
    /// `None` where there are no maps.
    map: OnceLock<Option<Mapping>>,
    /// How many hold it.
    pub(super) holds: AtomicUsize,
    pub(super) has_left_log: AtomicBool,
    /// It had no header of the store's when the store was opened: it stays, whatever it is.
    pub(super) is_foreign: AtomicBool,
    /// Number behind the last operation in it, if it left the log since the store was opened.
    pub(super) end: OnceLock<SeqNo>,
    /// Its live values were written again: it goes when nothing refers to it any more.
    pub(super) is_collected: AtomicBool,
    /// Damage ended that: it is not tried again.
    pub(super) is_damaged: AtomicBool,
}

impl ValueFile {
    pub(super) fn new(access: Arc<Access>, number: u64, path: PathBuf, len_bytes: u64) -> Self {
        let file = access.open_files.file(&access.fs, &path, OpenMode::Read);
        Self {
            number,
            len_bytes,
            access,
            file: Mutex::new(Arc::new(file)),
            map: OnceLock::new(),
            holds: AtomicUsize::new(0),
            has_left_log: AtomicBool::new(false),
            is_foreign: AtomicBool::new(false),
            end: OnceLock::new(),
            is_collected: AtomicBool::new(false),
            is_damaged: AtomicBool::new(false),
        }
    }

    /// Where it is now.
    pub(super) fn path(&self) -> PathBuf {
        self.file.lock().path().to_path_buf()
    }

    /// Gives the file the name `path`, by `rename`.
    pub(super) fn rename(&self, path: PathBuf, rename: impl FnOnce() -> Result<()>) -> Result<()> {
        let mut file = self.file.lock();
        rename()?;
        let access = &self.access;
        *file = Arc::new(access.open_files.file(&access.fs, &path, OpenMode::Read));
        Ok(())
    }

    /// The bytes of `range`, which lie in the file.
    fn bytes(self: &Arc<Self>, range: Range<usize>) -> Result<ValueBytes> {
        if self.access.use_mmap {
            if self.map.get().is_none() {
                let opened = self.file.lock().open()?;
                let map = fs::map(&*opened, self.len_bytes)?;
                if let Some(map) = &map {
                    map.advise(Advice::Random, 0, map.len());
                }
                // Another thread may have been faster; its map is as good.
                let _ = self.map.set(map);
            }
            if let Some(Some(_)) = self.map.get() {
                return Ok(ValueBytes::Mapped(Arc::clone(self), range));
            }
        }
        let mut bytes = vec![0; range.len()];
        self.read(&mut bytes, range.start as u64)?;
        Ok(ValueBytes::Read(bytes))
    }

    fn read(&self, bytes: &mut [u8], at: u64) -> Result<()> {
        loop {
            let file = Arc::clone(&self.file.lock());
            match file.read_exact_at(bytes, at) {
                // It got its name meanwhile.
                Err(error) if error.is_not_found() && !Arc::ptr_eq(&file, &self.file.lock()) => {}
                read => return read,
            }
        }
    }

    /// The chunks of a value that `part` of it touches, checked, and where the part is in them.
    pub(super) fn value(
        self: &Arc<Self>,
        reference: &ValueRef<'_>,
        part: Range<usize>,
    ) -> Result<PartOfValue> {
        let (chunk, len) = (reference.chunk_len(), reference.len_bytes);
        self.check_extent(reference)?;
        let (start, end) = (
            part.start.min(len),
            part.end.clamp(part.start.min(len), len),
        );
        let first = start / chunk;
        let from = first * chunk;
        let to = end.next_multiple_of(chunk).min(len);
        let at = reference.offset as usize;
        let bytes = self.bytes(at + from..at + to)?;
        self.check(reference, first, &bytes)?;
        Ok(PartOfValue {
            bytes,
            part: start - from..end - from,
        })
    }

    /// Opens the file for a reader of its own.
    pub(super) fn open(&self, uncached: bool) -> Result<Arc<dyn File>> {
        let file = self.file.lock();
        match uncached {
            true => self.access.fs.open_uncached(file.path()),
            false => file.open(),
        }
    }

    /// Reads a value from `opened`, and checks it.
    pub(super) fn check_stored(&self, opened: &dyn File, reference: &ValueRef<'_>) -> Result<()> {
        self.check_extent(reference)?;
        let mut bytes = vec![0; reference.len_bytes];
        opened.read_exact_at(&mut bytes, reference.offset)?;
        self.check(reference, 0, &bytes)
    }

    /// Refuses a reference to what the file has not.
    fn check_extent(&self, reference: &ValueRef<'_>) -> Result<()> {
        let len = reference.len_bytes;
        if reference.offset.saturating_add(len as u64) > self.len_bytes {
            let what = format!("a value of {len} bytes does not lie in the file");
            return Err(Error::corruption(&self.path(), reference.offset, what));
        }
        Ok(())
    }

    fn check(&self, reference: &ValueRef<'_>, first: usize, bytes: &[u8]) -> Result<()> {
        match reference.first_damaged(self.access.seed, first, bytes) {
            Some(chunk) if !mutated!("value-checksum-ignored") => {
                let at = reference.offset + (chunk * reference.chunk_len()) as u64;
                let what = "the value differs from what was written";
                Err(Error::corruption(&self.path(), at, what))
            }
            _ => Ok(()),
        }
    }
}

/// Bytes of a value file.
#[derive(Debug)]
pub(crate) enum ValueBytes {
    /// Where in its map.
    Mapped(Arc<ValueFile>, Range<usize>),
    Read(Vec<u8>),
}

impl Deref for ValueBytes {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(file, range) => match file.map.get() {
                Some(Some(map)) => map.range(range.clone()),
                _ => unreachable!("only a mapped file has mapped bytes"),
            },
            Self::Read(bytes) => bytes,
        }
    }
}

/// A part of a value, with what was read to check it.
#[derive(Debug)]
pub(crate) struct PartOfValue {
    bytes: ValueBytes,
    part: Range<usize>,
}

impl Deref for PartOfValue {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.bytes[self.part.clone()]
    }
}

/// Keeps a value file. What has a reference to a value in it holds it.
#[derive(Debug)]
pub(crate) struct FileHold(Arc<ValueFile>);

impl FileHold {
    /// With the list of files locked, so that a file which nothing holds is not held again.
    pub(super) fn new(file: &Arc<ValueFile>) -> Self {
        file.holds.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(file))
    }

    /// Number of the file.
    pub(crate) fn number(&self) -> u64 {
        self.0.number
    }

    pub(super) fn file(&self) -> &Arc<ValueFile> {
        &self.0
    }
}

impl Drop for FileHold {
    fn drop(&mut self) {
        // What was read through the hold was read before.
        self.0.holds.fetch_sub(1, Ordering::Release);
    }
}
