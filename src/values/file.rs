//! One value file: a segment of the log that holds values which engines refer to.

use std::ops::{Deref, Range};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::reference::ValueRef;
use crate::error::{Error, Result};
use crate::fs;
use crate::fs::{Advice, File, Fs, LazyFile, Mapping, OpenFiles, OpenMode};
use crate::types::{KeyspaceId, SeqNo};
use crate::util::mutants::mutated;
use crate::util::residency::Residency;

/// How value files are read.
#[derive(Debug)]
pub(super) struct Access {
    pub(super) fs: Arc<dyn Fs>,
    pub(super) open_files: Arc<OpenFiles>,
    /// Through memory maps, where there are some.
    pub(super) use_mmap: bool,
    /// Of the checksums of values.
    pub(super) seed: u64,
    /// Of what is read through maps.
    pub(super) residency: Residency,
    /// Files that are mapped.
    pub(super) mapped: AtomicUsize,
}

/// Files that are mapped at once. Each streamed value is a file of its own, and a process may have
/// some 65,000 maps, for everything.
const MAPS_MAX: usize = 4096;

/// Chunks of at least this length are known to be good once they were checked. No two of them begin
/// in the same cell of so many bytes.
const CELL_LEN_BYTES: usize = 512;

/// Why the collection of a file was not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Postponed {
    /// When it is worth a try again, and how long that is from the last one.
    pub(crate) until: Instant,
    pub(crate) wait: Duration,
    /// A keyspace that had values in it, and could not take them again.
    pub(crate) by: KeyspaceId,
}

/// The names that a file may be found under.
#[derive(Debug, Clone)]
struct Names {
    current: Arc<LazyFile>,
    /// The one that it gets just now, or got though an error was reported.
    next: Option<Arc<LazyFile>>,
}

impl Names {
    fn are(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.current, &other.current)
            && self.next.as_ref().map(Arc::as_ptr) == other.next.as_ref().map(Arc::as_ptr)
    }
}

/// A file that values lie in. It is read in the same way while it is a segment of the log and when
/// it has left it.
#[derive(Debug)]
pub(crate) struct ValueFile {
    pub(super) number: u64,
    /// What values may lie in: it gets less if a segment of the log is cut behind them.
    len_bytes: AtomicU64,
    access: Arc<Access>,
    /// Locked for moments.
    names: Mutex<Names>,
    /// `None` where there are no maps. Not set of one that is read without, as others are mapped.
    map: OnceLock<Option<Mapping>>,
    /// A bit for each cell in which a chunk begins that was checked in the map since the file left
    /// the log: its bytes are durable since then, and as good as those of a table.
    checked: OnceLock<Box<[AtomicU64]>>,
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
    /// Some of its live values could not be written again yet.
    pub(super) postponed: Mutex<Option<Postponed>>,
    /// It holds one value, which was streamed into it, and never was a segment of the log.
    pub(super) is_streamed: AtomicBool,
    /// The commit of that value, once it is known.
    pub(super) committed: OnceLock<(KeyspaceId, SeqNo)>,
}

impl ValueFile {
    pub(super) fn new(access: Arc<Access>, number: u64, path: PathBuf, len_bytes: u64) -> Self {
        let file = access.open_files.file(&access.fs, &path, OpenMode::Read);
        Self {
            number,
            len_bytes: AtomicU64::new(len_bytes),
            access,
            names: Mutex::new(Names {
                current: Arc::new(file),
                next: None,
            }),
            map: OnceLock::new(),
            checked: OnceLock::new(),
            holds: AtomicUsize::new(0),
            has_left_log: AtomicBool::new(false),
            is_foreign: AtomicBool::new(false),
            end: OnceLock::new(),
            is_collected: AtomicBool::new(false),
            is_damaged: AtomicBool::new(false),
            postponed: Mutex::new(None),
            is_streamed: AtomicBool::new(false),
            committed: OnceLock::new(),
        }
    }

    /// Length of what values may lie in.
    pub(super) fn len_bytes(&self) -> u64 {
        self.len_bytes.load(Ordering::Acquire)
    }

    /// The file is going to be cut to `len_bytes`, which hold all values.
    pub(super) fn note_len(&self, len_bytes: u64) {
        self.len_bytes.store(len_bytes, Ordering::Release);
    }

    /// Where it is now.
    pub(super) fn path(&self) -> PathBuf {
        self.names.lock().current.path().to_path_buf()
    }

    /// Gives the file the name `path`, by `rename`. If that fails, it is found under either name.
    pub(super) fn rename(&self, path: PathBuf, rename: impl FnOnce() -> Result<()>) -> Result<()> {
        let access = &self.access;
        let file = access.open_files.file(&access.fs, &path, OpenMode::Read);
        self.names.lock().next = Some(Arc::new(file));
        rename()?;
        let mut names = self.names.lock();
        if let Some(next) = names.next.take() {
            names.current = next;
        }
        Ok(())
    }

    /// Uses the file under the name that it has.
    fn under_its_name<T>(&self, using: impl Fn(&LazyFile) -> Result<T>) -> Result<T> {
        loop {
            let names = self.names.lock().clone();
            let mut used = using(&names.current);
            if let Some(next) = &names.next
                && matches!(&used, Err(error) if error.is_not_found())
                && !mutated!("value-file-has-one-name")
            {
                used = using(next);
            }
            match used {
                // It got its name meanwhile.
                Err(error) if error.is_not_found() && !names.are(&self.names.lock()) => {}
                used => return used,
            }
        }
    }

    /// Maps the file, unless too many are, or the system gives no more maps.
    #[cold]
    fn try_to_map(&self) -> Result<()> {
        let mapped = &self.access.mapped;
        let may_map = mapped.load(Ordering::Relaxed) < MAPS_MAX;
        if !may_map && !mutated!("value-files-mapped-without-bound") {
            return Ok(());
        }
        let opened = self.under_its_name(LazyFile::open)?;
        let len_bytes = self.len_bytes();
        let mut map = fs::map(&*opened, len_bytes);
        if map.is_err() && self.len_bytes() < len_bytes {
            // It was cut meanwhile.
            map = fs::map(&*opened, self.len_bytes());
        }
        let map = match map {
            Err(error) if !error.is_corruption() && !mutated!("value-read-needs-its-map") => {
                return Ok(());
            }
            map => map?,
        };
        if let Some(map) = &map {
            map.advise(Advice::Random, 0, map.len());
        }
        let is_mapped = map.is_some();
        // Another thread may have been faster; its map is as good.
        if self.map.set(map).is_ok() && is_mapped {
            mapped.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// The bytes of `range`, which lie in the file.
    fn bytes(self: &Arc<Self>, range: Range<usize>) -> Result<ValueBytes> {
        if self.access.use_mmap {
            if self.map.get().is_none() {
                self.try_to_map()?;
            }
            if let Some(Some(_)) = self.map.get() {
                return Ok(ValueBytes::Mapped(Arc::clone(self), range));
            }
        }
        let read = |file: &LazyFile| {
            let mut bytes = vec![0; range.len()];
            file.read_exact_at(&mut bytes, range.start as u64)?;
            Ok(ValueBytes::Read(bytes))
        };
        self.under_its_name(read)
    }

    /// The chunks of a value that `part` of it touches, checked, and where the part is in them.
    /// `in_doubt` is called before it is read if it may not be in memory.
    pub(super) fn value(
        self: &Arc<Self>,
        reference: &ValueRef<'_>,
        part: Range<usize>,
        in_doubt: impl FnOnce(),
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
        if let ValueBytes::Mapped(_, range) = &bytes
            && self.is_in_doubt(range.start as u64)
        {
            // All of it at once; reading it would wait for one page after the other.
            self.ask_for(range.clone());
            in_doubt();
        }
        if !bytes.is_mapped() || !self.has_left_log.load(Ordering::Acquire) {
            self.check(reference, first, &bytes)?;
        } else {
            self.check_once(reference, first, &bytes)?;
        }
        Ok(PartOfValue {
            bytes,
            part: start - from..end - from,
        })
    }

    /// True if what is mapped at `offset` may not be in memory.
    fn is_in_doubt(&self, offset: u64) -> bool {
        // A mapped file is not kept open, and is not to be for this.
        let look = || {
            let opened = self.under_its_name(LazyFile::open);
            opened.ok()?.is_in_memory(offset)
        };
        self.access.residency.is_in_doubt(look)
    }

    /// Asks for bytes that are about to be read, if the file is mapped, and does not wait for them.
    pub(super) fn ask_for(&self, range: Range<usize>) {
        if let Some(Some(map)) = self.map.get()
            && range.end <= map.len()
        {
            map.advise(Advice::WillNeed, range.start, range.len());
        }
    }

    /// Opens the file for a reader of its own.
    pub(super) fn open(&self, uncached: bool) -> Result<Arc<dyn File>> {
        self.under_its_name(|file| match uncached {
            true => self.access.fs.open_uncached(file.path()),
            false => file.open(),
        })
    }

    /// Reads a value from `opened`, a chunk at a time, and checks it.
    pub(super) fn check_stored(&self, opened: &dyn File, reference: &ValueRef<'_>) -> Result<()> {
        self.check_extent(reference)?;
        let chunk_len = reference.chunk_len();
        let mut buffer = vec![0; chunk_len.min(reference.len_bytes)];
        let mut from = 0;
        while from < reference.len_bytes {
            let bytes = &mut buffer[..chunk_len.min(reference.len_bytes - from)];
            opened.read_exact_at(bytes, reference.offset + from as u64)?;
            self.check(reference, from / chunk_len, bytes)?;
            from += bytes.len();
        }
        Ok(())
    }

    /// Refuses a reference to what the file has not.
    fn check_extent(&self, reference: &ValueRef<'_>) -> Result<()> {
        let len = reference.len_bytes;
        if reference.offset.saturating_add(len as u64) > self.len_bytes() {
            let what = format!("a value of {len} bytes does not lie in the file");
            return Err(Error::corruption(&self.path(), reference.offset, what));
        }
        Ok(())
    }

    /// As [`ValueFile::check`], of bytes of the map, unless that was done before.
    fn check_once(&self, reference: &ValueRef<'_>, first: usize, bytes: &[u8]) -> Result<()> {
        let cells = (self.len_bytes() as usize).div_ceil(CELL_LEN_BYTES);
        let new = || (0..cells.div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        let checked = self.checked.get_or_init(new);
        let chunk_len = reference.chunk_len();
        for (chunk, bytes) in (first..).zip(bytes.chunks(chunk_len)) {
            let cell = (reference.offset as usize + chunk * chunk_len) / CELL_LEN_BYTES;
            let (word, bit) = (&checked[cell / 64], 1 << (cell % 64));
            let counts =
                bytes.len() >= CELL_LEN_BYTES || mutated!("short-value-trusted-with-its-neighbour");
            if !counts || word.load(Ordering::Relaxed) & bit == 0 {
                self.check(reference, chunk, bytes)?;
                if counts {
                    word.fetch_or(bit, Ordering::Relaxed);
                }
            }
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

impl ValueBytes {
    fn is_mapped(&self) -> bool {
        matches!(self, Self::Mapped(..))
    }
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

impl Drop for ValueFile {
    fn drop(&mut self) {
        if let Some(Some(_)) = self.map.get() {
            self.access.mapped.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;
    use crate::fs::StdFs;
    use crate::values::reference::Digest;

    const SEED: u64 = 5;

    /// Values one behind the other, the first at the beginning of the file.
    fn file_of(
        lens: &[usize],
        use_mmap: bool,
    ) -> (tempfile::TempDir, PathBuf, Arc<ValueFile>, Vec<Vec<u8>>) {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("values");
        let (mut bytes, mut references) = (Vec::new(), Vec::new());
        for (len, fill) in lens.iter().zip(1..) {
            let reference = Digest::new(SEED, &vec![fill; *len]).place(1, bytes.len() as u64);
            references.push(reference.as_bytes().to_vec());
            bytes.resize(bytes.len() + len, fill);
        }
        std::fs::write(&path, &bytes).unwrap();
        let access = Access {
            fs: Arc::new(StdFs::new()),
            open_files: Arc::new(OpenFiles::new(4)),
            use_mmap,
            seed: SEED,
            residency: Residency::new(16),
            mapped: AtomicUsize::new(0),
        };
        let file = ValueFile::new(Arc::new(access), 1, path.clone(), bytes.len() as u64);
        (scratch, path, Arc::new(file), references)
    }

    fn read(file: &Arc<ValueFile>, reference: &[u8]) -> Result<usize> {
        let reference = ValueRef::decode(reference).unwrap();
        file.value(&reference, 0..usize::MAX, || ())
            .map(|value| value.len())
    }

    fn damage(path: &std::path::Path, at: u64) {
        use std::os::unix::fs::FileExt;
        let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
        file.write_all_at(&[0xFF], at).unwrap();
    }

    #[test]
    fn a_file_is_read_under_the_name_that_it_has_though_renaming_it_fails() {
        for use_mmap in [false, true] {
            let (_scratch, path, file, references) = file_of(&[1000], use_mmap);
            let new = path.with_extension("val");
            let all_ways = |file: &Arc<ValueFile>| {
                assert_eq!(read(file, &references[0]).unwrap(), 1000);
                for uncached in [false, true] {
                    let opened = file.open(uncached).unwrap();
                    let reference = ValueRef::decode(&references[0]).unwrap();
                    file.check_stored(&*opened, &reference).unwrap();
                }
            };
            // A rename that did nothing, and one that worked all the same; read for the first time
            // when it has happened.
            let failed = |error: &str| Err(Error::corruption(&path, 0, error.to_owned()));
            file.rename(new.clone(), || failed("nothing")).unwrap_err();
            if !use_mmap {
                all_ways(&file);
            }
            let arrived = || {
                std::fs::rename(&path, &new).unwrap();
                all_ways(&file);
                failed("too late")
            };
            file.rename(new.clone(), arrived).unwrap_err();
            all_ways(&file);
            file.rename(new.clone(), || Ok(())).unwrap();
            all_ways(&file);
            assert_eq!(file.path(), new);
            std::fs::remove_file(&new).unwrap();
            assert!(file.open(false).unwrap_err().is_not_found());
        }
    }

    #[test]
    fn a_value_is_checked_once_after_its_file_has_left_the_log() {
        let (_scratch, path, file, references) = file_of(&[1000, 200_000], true);
        for reference in &references {
            read(&file, reference).unwrap();
        }
        // Of a segment of the log each time: a sync may fail yet.
        damage(&path, 500);
        assert!(read(&file, &references[0]).unwrap_err().is_corruption());
        file.has_left_log.store(true, Ordering::Release);
        assert!(read(&file, &references[0]).unwrap_err().is_corruption());
        // A part of it, and the rest by its own chunks.
        let long = ValueRef::decode(&references[1]).unwrap();
        file.value(&long, 0..10, || ()).unwrap();
        damage(&path, 1000 + 150_000);
        assert!(read(&file, &references[1]).unwrap_err().is_corruption());
        damage(&path, 1000 + 5);
        let first = file.value(&long, 0..10, || ()).unwrap();
        assert_eq!(first.len(), 10);
    }

    #[test]
    fn short_values_are_checked_each_time_and_do_not_stand_for_their_neighbours() {
        let (_scratch, path, file, references) = file_of(&[600, 100, 600], true);
        file.has_left_log.store(true, Ordering::Release);
        read(&file, &references[0]).unwrap();
        read(&file, &references[1]).unwrap();
        damage(&path, 650);
        assert!(read(&file, &references[1]).unwrap_err().is_corruption());
        damage(&path, 750);
        assert!(read(&file, &references[2]).unwrap_err().is_corruption());
    }

    /// Each was mapped for as long as it was there, until the process had no more maps.
    #[test]
    fn a_bounded_number_of_files_is_mapped() {
        let scratch = tempfile::tempdir().unwrap();
        let access = Arc::new(Access {
            fs: Arc::new(StdFs::new()),
            open_files: Arc::new(OpenFiles::new(4)),
            use_mmap: true,
            seed: SEED,
            residency: Residency::new(16),
            mapped: AtomicUsize::new(0),
        });
        let reference = Digest::new(SEED, &[1; 1000]).place(1, 0);
        let open = |number: usize| {
            let path = scratch.path().join(number.to_string());
            std::fs::write(&path, [1; 1000]).unwrap();
            let file = Arc::new(ValueFile::new(Arc::clone(&access), 1, path, 1000));
            assert_eq!(read(&file, reference.as_bytes()).unwrap(), 1000);
            file
        };
        let mut files: Vec<_> = (0..MAPS_MAX + 100).map(open).collect();
        let is_mapped = |file: &&Arc<ValueFile>| matches!(file.map.get(), Some(Some(_)));
        assert_eq!(files.iter().filter(is_mapped).count(), MAPS_MAX);
        files.drain(..200);
        assert_eq!(access.mapped.load(Ordering::Relaxed), MAPS_MAX - 200);
        assert_eq!(
            read(files.last().unwrap(), reference.as_bytes()).unwrap(),
            1000
        );
        assert!(is_mapped(&files.last().unwrap()));
    }
}
