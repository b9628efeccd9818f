//! The value files of a store.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::{Mutex, RwLock};

use super::file::{Access, FileHold, PartOfValue, Postponed, ValueFile};
use super::open_value::HeldValue;
use super::reference::{Digest, GrowingDigest, ValueRef};
use crate::error::{Error, Result};
use crate::format::checksum::seed_of;
use crate::format::coding::Malformed;
use crate::fs::{File, Fs, OpenFiles};
use crate::types::{KeyspaceId, SeqNo};
use crate::util::mutants::mutated;
use crate::util::residency::Residency;

/// Separates the checksums of values from others.
const SEED_VALUES: u64 = u64::from_le_bytes(*b"valuesum");

/// A thread asks the system once for so many values whether they are in memory. That opens a file,
/// and takes as long as to read a dozen.
const VALUES_BETWEEN_LOOKS: u64 = 256;

/// Every file that values may lie in: the segments of the log, and those that have left it.
#[derive(Debug)]
pub(crate) struct ValueFiles {
    access: Arc<Access>,
    /// Where they are.
    dir: PathBuf,
    /// By number. Locked for moments.
    files: RwLock<BTreeMap<u64, Arc<ValueFile>>>,
    /// Files whose commit failed in a way that leaves open whether it is in the log.
    in_doubt: Mutex<Vec<FileHold>>,
}

/// What a file with the name of a value file is, by its header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileKind {
    /// It was a segment of the log.
    Segment,
    /// It was made for one value.
    Streamed,
    /// It may be anybody's.
    Foreign,
}

/// What is known of a value file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ValueFileFacts {
    pub(crate) number: u64,
    pub(crate) len_bytes: u64,
    /// It is no segment of the log any more.
    pub(crate) has_left_log: bool,
    /// Its live values were written again.
    pub(crate) is_collected: bool,
    /// Damage ended that, or will: it is not tried.
    pub(crate) is_damaged: bool,
    /// It was made for one value.
    pub(crate) is_streamed: bool,
    /// Its collection has to wait.
    pub(crate) postponed: Option<Postponed>,
}

/// Files that are removed at once: removing takes time, and the thread that does it has other work.
const REMOVED_AT_ONCE: usize = 64;

/// Reads values again, to check them.
pub(crate) struct StoredValues<'a> {
    files: &'a ValueFiles,
    uncached: bool,
    /// The file that was read last.
    open: Option<(Arc<ValueFile>, Arc<dyn File>)>,
}

impl StoredValues<'_> {
    /// Reads the value that `reference` leads to and checks it; returns its length.
    pub(crate) fn check(&mut self, reference: &[u8]) -> Result<u64> {
        let reference = self.files.decode(reference)?;
        if self
            .open
            .as_ref()
            .is_none_or(|(file, _)| file.number != reference.file)
        {
            let file = self.files.file(reference.file)?;
            let opened = file.open(self.uncached)?;
            self.open = Some((file, opened));
        }
        if let Some((file, opened)) = &self.open {
            file.check_stored(&**opened, &reference)?;
        }
        Ok(reference.len_bytes as u64)
    }
}

impl ValueFiles {
    /// Of store `store_id`, whose log is in `dir`. None is known yet.
    pub(crate) fn new(
        fs: Arc<dyn Fs>,
        open_files: Arc<OpenFiles>,
        dir: &Path,
        store_id: u64,
        use_mmap: bool,
    ) -> Self {
        Self {
            access: Arc::new(Access {
                fs,
                open_files,
                use_mmap,
                seed: seed_of(&[SEED_VALUES, store_id]),
                residency: Residency::new(VALUES_BETWEEN_LOOKS),
                mapped: AtomicUsize::new(0),
            }),
            dir: dir.to_path_buf(),
            files: RwLock::default(),
            in_doubt: Mutex::default(),
        }
    }

    /// The checksums of a value.
    pub(crate) fn digest(&self, value: &[u8]) -> Digest {
        Digest::new(self.access.seed, value)
    }

    /// The same of a value that comes in pieces.
    pub(crate) fn growing_digest(&self) -> GrowingDigest {
        GrowingDigest::new(self.access.seed)
    }

    /// `changed` of `value`, which has this digest, is other bytes now.
    pub(crate) fn renew(&self, digest: &mut Digest, value: &[u8], changed: Range<usize>) {
        digest.renew(self.access.seed, value, changed);
    }

    // ---- for the log ----

    /// Segment `number` of the log, which is at `path`, may take values. It may be known already.
    pub(crate) fn add_segment(&self, number: u64, path: &Path, len_bytes: u64) {
        let access = &self.access;
        let file = || ValueFile::new(Arc::clone(access), number, path.to_path_buf(), len_bytes);
        let mut files = self.files.write();
        files.entry(number).or_insert_with(|| Arc::new(file()));
    }

    /// Segment `number` is going to be cut to `len_bytes`, which hold all values.
    pub(crate) fn note_len(&self, number: u64, len_bytes: u64) {
        if let Some(file) = self.files.read().get(&number) {
            file.note_len(len_bytes);
        }
    }

    /// As [`ValueFiles::add_segment`], of a file that is not in the log. A foreign one is not
    /// removed.
    pub(crate) fn add_value_file(&self, number: u64, path: &Path, len_bytes: u64, kind: FileKind) {
        let file = self.new_value_file(number, path, len_bytes, kind);
        self.files.write().insert(number, file);
    }

    fn new_value_file(
        &self,
        number: u64,
        path: &Path,
        len_bytes: u64,
        kind: FileKind,
    ) -> Arc<ValueFile> {
        let access = Arc::clone(&self.access);
        let file = ValueFile::new(access, number, path.to_path_buf(), len_bytes);
        let is_foreign = kind == FileKind::Foreign && !mutated!("foreign-value-file-removed");
        file.is_foreign.store(is_foreign, Ordering::Relaxed);
        let is_streamed = kind == FileKind::Streamed;
        file.is_streamed.store(is_streamed, Ordering::Relaxed);
        file.has_left_log.store(true, Ordering::Relaxed);
        Arc::new(file)
    }

    /// True if something refers to values in segment `number`. If not, then never again (VF2).
    pub(crate) fn is_held(&self, number: u64) -> bool {
        if mutated!("segment-recycled-under-its-references") {
            return false;
        }
        let files = self.files.read();
        files
            .get(&number)
            .is_some_and(|file| file.holds.load(Ordering::Acquire) > 0)
    }

    /// Segment `number` is held, and leaves the log with the name `path`, which `rename` gives it.
    /// Its operations are those before `end`.
    pub(crate) fn leave_log(
        &self,
        number: u64,
        end: SeqNo,
        path: PathBuf,
        rename: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let Some(file) = self.files.read().get(&number).cloned() else {
            return rename();
        };
        file.rename(path, rename)?;
        let _ = file.end.set(end);
        file.has_left_log.store(true, Ordering::Release);
        Ok(())
    }

    /// Segment `number`, which is not held, is no more.
    pub(crate) fn forget(&self, number: u64) {
        let forgotten = self.files.write().remove(&number);
        // Unmapped without the lock.
        drop(forgotten);
    }

    /// Removes files that have left the log and are not held, some of them; false if there are
    /// none. One that cannot be removed is tried again when the store is opened.
    pub(crate) fn remove_unheld(&self) -> Result<bool> {
        let is_unheld = |file: &ValueFile| {
            file.has_left_log.load(Ordering::Acquire)
                && !file.is_foreign.load(Ordering::Relaxed)
                && (file.holds.load(Ordering::Acquire) == 0
                    || mutated!("value-file-removed-under-a-snapshot")
                        && file.is_collected.load(Ordering::Relaxed))
        };
        let some = mutated!(
            "value-files-removed-all-at-once",
            usize::MAX,
            REMOVED_AT_ONCE
        );
        let unheld: Vec<u64> = {
            let files = self.files.read();
            let unheld = files.values().filter(|file| is_unheld(file));
            unheld.take(some).map(|file| file.number).collect()
        };
        if unheld.is_empty() {
            return Ok(false);
        }
        let removed: Vec<_> = {
            let mut files = self.files.write();
            // One may be held again by now.
            let mut remove = |number: &u64| {
                let is_unheld = files.get(number).is_some_and(|file| is_unheld(file));
                is_unheld.then(|| files.remove(number)).flatten()
            };
            unheld.iter().filter_map(&mut remove).collect()
        };
        let mut outcome = Ok(!removed.is_empty());
        for file in removed {
            match self.access.fs.remove_file(&file.path()) {
                Err(error) if !error.is_not_found() => outcome = outcome.and(Err(error)),
                _ => {}
            }
        }
        outcome
    }

    // ---- for values that are streamed ----

    /// A value was streamed into file `number`, which is durable. It stays while it is held.
    pub(crate) fn add_streamed(&self, number: u64, path: &Path, len_bytes: u64) -> FileHold {
        let file = self.new_value_file(number, path, len_bytes, FileKind::Streamed);
        let hold = FileHold::new(&file);
        self.files.write().insert(number, file);
        hold
    }

    /// The value that was streamed into the file of `reference` was put by operation `seq`.
    pub(crate) fn note_streamed(&self, reference: &[u8], keyspace: KeyspaceId, seq: SeqNo) {
        if let Ok(reference) = self.decode(reference)
            && let Ok(file) = self.file(reference.file)
        {
            let _ = file.committed.set((keyspace, seq));
        }
    }

    /// Whether the log refers to the file of `hold` is not known: it stays until the store is
    /// opened again, which will know.
    pub(crate) fn keep_in_doubt(&self, hold: FileHold) {
        self.in_doubt.lock().push(hold);
    }

    /// Bytes of the values that were streamed into `keyspace` by operations from `seq` on, and are
    /// still there.
    pub(crate) fn streamed_bytes_since(&self, keyspace: KeyspaceId, seq: SeqNo) -> u64 {
        let files = self.files.read();
        let of_these = files.values().filter(|file| {
            let committed = file.committed.get();
            committed.is_some_and(|(of, at)| *of == keyspace && *at >= seq)
        });
        of_these.map(|file| file.len_bytes()).sum()
    }

    // ---- for engines ----

    /// Holds file `number`, which something else holds, or the log.
    pub(crate) fn hold(&self, number: u64) -> Result<FileHold> {
        let files = self.files.read();
        match files.get(&number) {
            Some(file) => Ok(FileHold::new(file)),
            None => Err(self.missing(number)),
        }
    }

    /// The value that `reference` leads to, checked.
    pub(crate) fn get(&self, reference: &[u8]) -> Result<PartOfValue> {
        self.get_part(reference, 0..usize::MAX)
    }

    /// `part` of the value that `reference` leads to, as far as the value has it. The chunks that
    /// it lies in are read and checked, and no others.
    pub(crate) fn get_part(&self, reference: &[u8], part: Range<usize>) -> Result<PartOfValue> {
        let reference = self.decode(reference)?;
        self.file(reference.file)?.value(&reference, part, || ())
    }

    /// The value that `reference` leads to, to be read by and by. Something else holds its file, or
    /// the log.
    pub(crate) fn hold_value(&self, reference: &[u8]) -> Result<HeldValue> {
        let file = self.decode(reference)?.file;
        Ok(HeldValue::new(reference, self.hold(file)?))
    }

    /// As [`ValueFiles::get`], for a scan. `in_doubt` is called before the value is read if it may
    /// not be in memory.
    pub(crate) fn get_in_scan(
        &self,
        reference: &[u8],
        in_doubt: impl FnOnce(),
    ) -> Result<PartOfValue> {
        let reference = self.decode(reference)?;
        let file = self.file(reference.file)?;
        file.value(&reference, 0..usize::MAX, in_doubt)
    }

    /// Asks for the value that `reference` leads to, if its file is mapped, and does not wait for
    /// it. Returns its length.
    pub(crate) fn ask_for(&self, reference: &[u8]) -> Result<u64> {
        let reference = self.decode(reference)?;
        let from = reference.offset as usize;
        let file = self.file(reference.file)?;
        file.ask_for(from..from.saturating_add(reference.len_bytes));
        Ok(reference.len_bytes as u64)
    }

    /// For reading many values again, past maps; if `uncached`, also past what the operating system
    /// remembers.
    pub(crate) fn stored(&self, uncached: bool) -> StoredValues<'_> {
        StoredValues {
            files: self,
            uncached,
            open: None,
        }
    }

    fn decode<'a>(&self, reference: &'a [u8]) -> Result<ValueRef<'a>> {
        ValueRef::decode(reference).map_err(|Malformed| {
            let what = "a reference to a value is malformed";
            Error::corruption(&self.dir, 0, what)
        })
    }

    fn file(&self, number: u64) -> Result<Arc<ValueFile>> {
        let found = self.files.read().get(&number).cloned();
        found.ok_or_else(|| self.missing(number))
    }

    #[cold]
    fn missing(&self, number: u64) -> Error {
        let path = self.dir.join(format!("{number:016x}.val"));
        Error::corruption(
            &path,
            0,
            "a file with values that are referred to is missing",
        )
    }

    // ---- for collection and figures ----

    /// True if there is a file that has left the log.
    pub(crate) fn has_value_files(&self) -> bool {
        let files = self.files.read();
        let has_left = |file: &Arc<ValueFile>| file.has_left_log.load(Ordering::Acquire);
        // Those that were segments are older than the segments; there are few of these.
        files.values().any(has_left)
    }

    /// All files, rising by number.
    pub(crate) fn facts(&self) -> Vec<ValueFileFacts> {
        let files = self.files.read();
        let facts = files.values().map(|file| ValueFileFacts {
            number: file.number,
            len_bytes: file.len_bytes(),
            has_left_log: file.has_left_log.load(Ordering::Acquire),
            is_collected: file.is_collected.load(Ordering::Relaxed),
            is_damaged: file.is_damaged.load(Ordering::Relaxed)
                || file.is_foreign.load(Ordering::Relaxed),
            is_streamed: file.is_streamed.load(Ordering::Relaxed),
            postponed: *file.postponed.lock(),
        });
        facts.collect()
    }

    /// Where the file of a hold is now.
    pub(crate) fn path(&self, hold: &FileHold) -> PathBuf {
        hold.file().path()
    }

    /// Number behind the last operation in the file of a hold, if that is known.
    pub(crate) fn end(&self, hold: &FileHold) -> Option<SeqNo> {
        hold.file().end.get().copied()
    }

    /// The file after number `number` that was in the log and has left it, and where it is.
    pub(crate) fn following(&self, number: u64) -> Option<(u64, PathBuf)> {
        let files = self.files.read();
        let mut later = files.range(number + 1..).map(|(_, file)| file);
        let file = later.find(|file| {
            file.has_left_log.load(Ordering::Acquire) && !file.is_streamed.load(Ordering::Relaxed)
        })?;
        Some((file.number, file.path()))
    }

    /// What was alive in file `number` was written again.
    pub(crate) fn note_collected(&self, number: u64) {
        if let Some(file) = self.files.read().get(&number) {
            file.is_collected.store(true, Ordering::Relaxed);
        }
    }

    /// What is alive in file `number` could not be written again, all of it. False if that is
    /// known.
    pub(crate) fn postpone(&self, number: u64, postponed: Postponed) -> bool {
        let files = self.files.read();
        let file = files.get(&number);
        file.is_some_and(|file| file.postponed.lock().replace(postponed).is_none())
    }

    /// File `number` is damaged: what is alive in it cannot be written again.
    pub(crate) fn note_damaged(&self, number: u64) {
        if let Some(file) = self.files.read().get(&number) {
            file.is_damaged.store(true, Ordering::Relaxed);
        }
    }
}
