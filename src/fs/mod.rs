//! The file system as the store sees it.
//!
//! Everything below the store goes through [`Fs`] and [`File`]; `std::fs` appears nowhere else.
//! [`StdFs`] is the operating system; [`SimFs`] lives in memory, knows which bytes were synced, and
//! can forget the rest; [`FaultFs`] wraps either and fails as planned.
//!
//! # Laws that every implementation keeps
//!
//! 1. Reads and writes name their offset; there is no file position, so a
//!    handle may be shared between threads.
//! 2. After [`File::sync_data`] returns `Ok`, all bytes written to that file
//!    before the call, and the length needed to read them, survive a power
//!    loss. Nothing written later is promised.
//! 3. A created, renamed or removed *name* survives a power loss only after
//!    [`Fs::sync_dir`] of its directory.
//! 4. A failed operation may have happened in part. After a failed sync
//!    nothing is known about the bytes it covered; it is never retried.
//!
//! # Memory maps
//!
//! The store asks a file for a [`MapSource`], and uses calls that read and write where it gets
//! none. Only the store can use one: the bytes of a map are a `&[u8]`, which is sound only while
//! they do not change, and the promise that they do not is the store's. What is mapped:
//!
//! - for reading, tables of LSM trees, page files of B-trees, and segments of the log and value
//!   files that values stored apart from their keys are read from, with
//!   [`Options::mmap_reads`](crate::Options::mmap_reads);
//! - for writing, the log's active segment and the one prepared to follow it, with
//!   [`Options::mmap_log`](crate::Options::mmap_log), on Linux, on a file system that overwrites
//!   allocated blocks in place: ext4 (and its elders), XFS, tmpfs.
//!
//! Nothing else is, in recovery and `verify` neither. Both options are on unless they are switched
//! off. What that means when something goes wrong:
//!
//! - What the store does itself never breaks the promise: it maps only lengths that are allocated,
//!   and neither changes nor cuts bytes that a reference can reach.
//! - What others do to the store's files can: the lock keeps out other stores, and file modes
//!   (0600, 0700) keep out other users. A process of the same user that cuts a mapped file makes
//!   the next access to the lost pages end this process with SIGBUS; one that overwrites mapped
//!   bytes changes them under a reference, which Rust calls undefined behaviour.
//! - A medium that cannot read a mapped page also ends the process with SIGBUS, where a read
//!   would return an error. A program that needs the error (removable media, network file systems)
//!   switches `mmap_reads` and `mmap_log` off; then no file of the store is mapped.
//! - On a file system that writes elsewhere what is overwritten (btrfs, ZFS, bcachefs), a store
//!   into a map needs a free block, and on a full disk ends the process with SIGBUS. So the log is
//!   not mapped there, nor on one that is not known (a network, FUSE, an overlay), nor on other
//!   operating systems. On XFS a segment shares its blocks with a copy that
//!   `cp --reflink` made of it; a program that copies so beside a running store, on a disk that
//!   may be full, switches `mmap_log` off.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::util::mutants::mutated;

mod fault;
pub(crate) mod fork;
mod guarded;
mod lock;
mod lock_guard;
mod map;
mod open_files;
mod overwrites;
mod sim;
mod std_fs;
#[cfg(test)]
mod tests;
#[cfg(target_os = "linux")]
mod uncached;
#[cfg(all(target_os = "linux", not(miri)))]
mod writeback;

pub use fault::{Fault, FaultFs, FaultPlan, OpKind};
pub(crate) use guarded::GuardedFs;
pub(crate) use lock_guard::LockGuard;
pub use map::MapSource;
pub(crate) use map::{Advice, Mapping, MappingMut};
pub(crate) use open_files::{Held, LazyFile, OpenFiles};
pub use sim::{CrashPolicy, CrashState, CrashStates, Operation, SimFs};
pub use std_fs::StdFs;

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// An existing file, for reading.
    Read,
    /// An existing file, for reading and writing.
    ReadWrite,
    /// A file that must not exist yet, for reading and writing; mode 0600,
    /// never through a symbolic link.
    CreateNew,
}

/// Which other holders a lock excludes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockMode {
    /// All others.
    Exclusive,
    /// Exclusive holders only.
    Shared,
}

/// A file system.
///
/// ```
/// use std::path::Path;
/// use hedgerow::fs::{Fs, LockMode, OpenMode, SimFs};
///
/// let fs = SimFs::new(); // or a type of your own, given to `Options::fs`
/// let (dir, old, new) = (Path::new("/d"), Path::new("/d/old"), Path::new("/d/new"));
/// fs.create_dir_all(dir)?;
/// let file = fs.open(old, OpenMode::CreateNew)?;
/// assert_eq!((file.path(), file.is_empty()?), (old, true));
/// file.write_all_at(b"bytes", 0)?;
/// file.start_writeback(0, 5)?; // they are asked for soon
/// file.set_len(4)?;
/// file.sync_data()?; // the bytes are durable, the name is not
/// fs.rename(old, new)?; // would replace a file of that name; this would not:
/// assert!(fs.rename_new(new, new).is_err());
/// fs.sync_dir(dir)?;
/// assert_eq!(fs.absolute(new)?, new);
/// assert!(fs.for_this_process().is_none(), "it knows of no processes");
///
/// let mut bytes = [0; 4];
/// file.read_exact_at(&mut bytes, 0)?;
/// assert_eq!((&bytes, file.len()?), (b"byte", 4));
/// assert_eq!(fs.open_uncached(new)?.len()?, 4);
/// assert!(file.map_source().is_none(), "it has no memory maps");
/// assert_eq!(file.is_in_memory(0), None, "it cannot tell");
/// let lock = fs.lock(new, LockMode::Exclusive)?;
/// assert!(fs.lock(new, LockMode::Shared).is_err());
/// lock.check()?; // its file is still there
/// assert!(fs.lock_dir(dir).is_err(), "a writer excludes readers without a lock file");
/// drop(lock);
///
/// assert_eq!(fs.read_dir(dir)?, ["new"]);
/// fs.remove_file(new)?;
/// assert!(!fs.exists(new)?);
/// fs.remove_dir(dir)?;
/// # Ok::<(), hedgerow::Error>(())
/// ```
pub trait Fs: fmt::Debug + Send + Sync + 'static {
    /// `path` in a form that leads to the same place for as long as the process lives, whatever
    /// its working directory becomes. A store asks once, when it is opened.
    fn absolute(&self, path: &Path) -> Result<PathBuf> {
        Ok(path.to_path_buf())
    }

    /// This file system for a store of this process, if it can tell one process from another:
    /// after a fork it changes nothing in the child, as the files that it opens. A store asks
    /// once, when it is opened; `None` means that this one is used as it is.
    fn for_this_process(&self) -> Option<Arc<dyn Fs>> {
        None
    }

    /// Opens or creates a file.
    fn open(&self, path: &Path, mode: OpenMode) -> Result<Arc<dyn File>>;

    /// Opens an existing file for reading what storage holds, and not what the operating system
    /// remembers of it, where these can be told apart. As here, it is opened like any other.
    fn open_uncached(&self, path: &Path) -> Result<Arc<dyn File>> {
        self.open(path, OpenMode::Read)
    }

    /// Creates a directory (mode 0700) and its missing parents; an existing one is fine.
    /// Does not sync the parent.
    fn create_dir_all(&self, path: &Path) -> Result<()>;

    /// Names of the entries of a directory, sorted, without `.` and `..`.
    /// A name that is not UTF-8 is left out: the store never made it.
    fn read_dir(&self, path: &Path) -> Result<Vec<String>>;

    /// True if a file or directory of that name exists.
    fn exists(&self, path: &Path) -> Result<bool>;

    /// Renames a file, replacing the target atomically.
    fn rename(&self, from: &Path, to: &Path) -> Result<()>;

    /// Renames a file to a name that nothing has: an [`Error::Io`] of kind `AlreadyExists` if
    /// something has it. As one step where the operating system can; as here, something that
    /// takes the name between the look and the rename is replaced.
    fn rename_new(&self, from: &Path, to: &Path) -> Result<()> {
        if self.exists(to)? {
            return Err(name_taken(to));
        }
        self.rename(from, to)
    }

    /// Removes a file.
    fn remove_file(&self, path: &Path) -> Result<()>;

    /// Removes a directory, which must be empty.
    fn remove_dir(&self, path: &Path) -> Result<()>;

    /// Makes the names in a directory durable.
    fn sync_dir(&self, path: &Path) -> Result<()>;

    /// Takes a lock on a file; for an exclusive one the file is created if needed. The lock ends
    /// when the returned value is dropped or the process ends.
    /// [`Error::Locked`] if another lock, of this process or another, excludes it. An exclusive
    /// lock on a file and a [shared one on its directory](Self::lock_dir) exclude each other.
    fn lock(&self, path: &Path, mode: LockMode) -> Result<Box<dyn FsLock>>;

    /// Takes a shared lock on a directory, which changes nothing in it: for a reader who finds no
    /// file to lock. `None` if the file system has no such locks.
    fn lock_dir(&self, path: &Path) -> Result<Option<Box<dyn FsLock>>> {
        let _ = path;
        Ok(None)
    }
}

/// A held lock; dropping it releases the lock.
pub trait FsLock: fmt::Debug + Send + Sync {
    /// [`Error::LockLost`] if the lock excludes others no more, because its file was removed or
    /// replaced: another one may hold a lock on the new file. [`Error::Forked`] in a child of the
    /// process that took it.
    fn check(&self) -> Result<()> {
        Ok(())
    }
}

/// An open file.
pub trait File: fmt::Debug + Send + Sync {
    /// The path it was opened under, for error messages.
    fn path(&self) -> &Path;

    /// Length in bytes.
    fn len(&self) -> Result<u64>;

    /// True if the file has no bytes.
    fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Fills `buf` from `offset`. Reading past the end is an
    /// [`Error::Io`] of kind `UnexpectedEof`.
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()>;

    /// Writes all of `buf` at `offset`, extending the file if needed.
    fn write_all_at(&self, buf: &[u8], offset: u64) -> Result<()>;

    /// Cuts the file to `len` bytes or extends it with zeros (which may be a hole).
    fn set_len(&self, len: u64) -> Result<()>;

    /// Makes data and length durable (`fdatasync`).
    fn sync_data(&self) -> Result<()>;

    /// Bytes that were written and that [`sync_data`](Self::sync_data) will be asked for soon: a
    /// file system may begin to write them to the device, so that the sync waits for less.
    /// Ordinarily it does not wait itself. As here, nothing need be done.
    ///
    /// An error says that bytes may be lost, as that of a sync does.
    fn start_writeback(&self, offset: u64, len: u64) -> Result<()> {
        let _ = (offset, len);
        Ok(())
    }

    /// Whether the byte at `offset` can be read without waiting for a device, if the file system
    /// can tell. Costs a system call on some; nothing is fetched for it.
    fn is_in_memory(&self, offset: u64) -> Option<bool> {
        let _ = offset;
        None
    }

    /// What the store maps this file through, if this file system has memory maps. Without, as
    /// here, it uses [`File::read_exact_at`] and [`File::write_all_at`]. A file system that wraps
    /// another one may pass its answer on.
    fn map_source(&self) -> Option<MapSource<'_>> {
        None
    }
}

/// Maps the first `len` bytes of `file` for reading, if its file system can; `None` means: use
/// [`File::read_exact_at`]. `len` must not exceed the file's length.
///
/// The caller promises not to change or cut bytes while there is a reference to them.
pub(crate) fn map(file: &dyn File, len: u64) -> Result<Option<Mapping>> {
    match file.map_source() {
        Some(source) => source.map(len),
        None => Ok(None),
    }
}

/// Maps the first `len` bytes of `file` for writing, if its file system can, and overwrites in
/// place what is allocated; `None` means: use [`File::write_all_at`]. Only bytes that were written
/// with that since the file was made may be stored to: a store into a hole could find the disk
/// full, which ends the process.
pub(crate) fn map_mut(file: &dyn File, len: u64) -> Result<Option<MappingMut>> {
    match file.map_source() {
        Some(source) => source.map_mut(len),
        None => Ok(None),
    }
}

/// The error of a rename to a name that something has.
fn name_taken(to: &Path) -> Error {
    let taken = io::Error::new(
        io::ErrorKind::AlreadyExists,
        "there is a file of that name, and it is not replaced",
    );
    Error::io("rename", to, taken)
}

/// The error of opening what has a name that is a symbolic link: none is followed, so that nothing
/// outside the store's directory is written to.
#[cfg(unix)]
fn explain_link(e: io::Error) -> io::Error {
    if e.raw_os_error() != Some(rustix::io::Errno::LOOP.raw_os_error()) {
        return e;
    }
    io::Error::new(
        e.kind(),
        "it is a symbolic link, and a store follows none to its files: put the file itself there, \
         or link the whole directory",
    )
}

#[cfg(not(unix))]
fn explain_link(e: io::Error) -> io::Error {
    e
}

/// Reads a whole file, refusing one that is longer than `limit` bytes.
pub(crate) fn read_all(file: &dyn File, limit: u64) -> Result<Vec<u8>> {
    read_all_into(file, limit, Vec::new())
}

/// The same into memory that is no longer needed for something else.
pub(crate) fn read_all_into(file: &dyn File, limit: u64, memory: Vec<u8>) -> Result<Vec<u8>> {
    let len = file.len()?;
    if len > limit {
        return Err(Error::corruption(
            file.path(),
            limit,
            format!("the file has {len} bytes, more than the {limit} that are possible"),
        ));
    }
    let mut bytes = memory;
    match bytes.capacity() >= len as usize {
        true => bytes.resize(len as usize, 0),
        // Zeros that come from the system need not be written.
        false => bytes = vec![0; len as usize],
    }
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// A file was not replaced.
#[derive(Debug)]
pub(crate) struct NotReplaced {
    /// Why.
    pub(crate) error: Error,
    /// The new content is in place but may not be durable: after a crash either may be there.
    pub(crate) is_unknown: bool,
}

impl From<NotReplaced> for Error {
    fn from(failure: NotReplaced) -> Self {
        failure.error
    }
}

/// Replaces the file `dir/name` by `bytes` so that after a crash either the
/// old or the new content is there: write a temporary file, sync it, rename it
/// over the old one, sync the directory. The order is the point: a rename
/// that is durable before the data would leave an empty file.
pub(crate) fn replace_file(
    fs: &dyn Fs,
    dir: &Path,
    name: &str,
    bytes: &[u8],
) -> Result<(), NotReplaced> {
    let temporary = dir.join(format!("{name}.tmp"));
    let old_counts = |error| NotReplaced {
        error,
        is_unknown: false,
    };
    write_temporary(fs, &temporary, bytes).map_err(old_counts)?;
    fs.rename(&temporary, &dir.join(name))
        .map_err(|error| NotReplaced {
            error,
            // A failed operation may have happened (law 4).
            is_unknown: !matches!(fs.exists(&temporary), Ok(true)),
        })?;
    let synced = mutated!("directory-not-synced", Ok(()), fs.sync_dir(dir));
    synced.map_err(|error| NotReplaced {
        error,
        is_unknown: true,
    })
}

fn write_temporary(fs: &dyn Fs, temporary: &Path, bytes: &[u8]) -> Result<()> {
    if fs.exists(temporary)? {
        fs.remove_file(temporary)?;
    }
    let file = fs.open(temporary, OpenMode::CreateNew)?;
    file.write_all_at(bytes, 0)?;
    mutated!("renamed-before-sync", Ok(()), file.sync_data())
}
