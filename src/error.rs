//! The one error type of the store.
//!
//! A variant says what the reader can do about it; its fields say where it
//! happened. Local outcomes (a key that is absent, a log that simply ends) are
//! values, not errors, and never appear here.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A result whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an operation failed.
///
/// The type is cheap to clone, because one failed sync is reported to every writer that waited
/// for it. `Display` says what failed and leaves the cause to
/// [`source`](std::error::Error::source), as error reporters expect; `{:#}` prints the whole
/// chain on one line.
///
/// ```
/// let error = hedgerow::Db::open("/dev/null/store").unwrap_err();
/// let line = format!("{error:#}");
/// assert!(line.starts_with(&error.to_string()));
/// ```
///
/// What a program can do about an error is asked in these ways:
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("my.db");
/// use hedgerow::{Db, Error, Options};
///
/// let absent = Options::new().read_only(true).open(&path).unwrap_err();
/// assert!(absent.is_not_found() && !absent.is_retryable());
///
/// let db = Db::open(&path)?;
/// let second = Db::open(&path).unwrap_err();
/// assert!(second.is_locked() && second.is_retryable());
///
/// let full = Error::io("write", &path, std::io::ErrorKind::StorageFull.into());
/// assert!(full.is_out_of_space() && !full.is_corruption());
/// # drop(db);
/// # Ok::<(), hedgerow::Error>(())
/// ```
///
/// A file system of your own ([`Fs`](crate::fs::Fs)) makes them:
///
/// ```
/// use std::path::Path;
/// use hedgerow::{Error, LockHolder};
///
/// let file = Path::new("/store/LOCK");
/// let io = |kind: std::io::ErrorKind| std::io::Error::from(kind);
/// for error in [
///     Error::io("open", file, io(std::io::ErrorKind::PermissionDenied)),
///     Error::io_at("read", file, 4096, io(std::io::ErrorKind::UnexpectedEof)),
///     Error::corruption(file, 4096, "no block begins here"),
///     Error::locked(file, LockHolder::ThisProcess),
///     Error::invalid("a path without a name"),
/// ] {
///     assert!(!error.to_string().is_empty());
/// }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused an operation. Retrying may help when the
    /// cause (a full disk, say) is removed.
    #[non_exhaustive]
    Io {
        /// What was attempted: `"write"`, `"fdatasync"`, `"open"`, ...
        op: &'static str,
        /// The file or directory concerned.
        path: PathBuf,
        /// Where in the file, when the operation has a place.
        offset: Option<u64>,
        /// The operating system's own error.
        source: Arc<io::Error>,
    },
    /// Bytes on disk are not what was written. Nothing was guessed; restore the
    /// file from a backup, or salvage what is readable.
    #[non_exhaustive]
    Corruption {
        /// The damaged file.
        file: PathBuf,
        /// Byte offset of the damaged structure within the file.
        offset: u64,
        /// What was found to be wrong.
        what: String,
    },
    /// The caller asked for something outside the documented limits. Nothing
    /// was written.
    #[non_exhaustive]
    InvalidArgument {
        /// Which argument, and which limit.
        what: String,
    },
    /// The store is open already, in this process or in another.
    #[non_exhaustive]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// Which process has it open.
        holder: LockHolder,
    },
    /// The store's lock file was removed or replaced while the store was open, so another process
    /// may have opened the store, too. Nothing more is written through this handle where it
    /// matters; close it, and see that one process only has the store open.
    #[non_exhaustive]
    LockLost {
        /// The lock file.
        path: PathBuf,
    },
    /// The file is a hedgerow file of a format version that this build does not read. Damage that
    /// cannot be told from it has the same error.
    #[non_exhaustive]
    UnsupportedFormat {
        /// The file.
        file: PathBuf,
        /// The version found in it.
        found: u32,
        /// The version this build reads and writes.
        supported: u32,
    },
    /// The file was written by a later build and needs something that this one does not know.
    #[non_exhaustive]
    UnsupportedFeature {
        /// The file.
        file: PathBuf,
        /// What it needs.
        what: String,
    },
    /// The store was opened with [`Options::read_only`](crate::Options::read_only) and takes no
    /// writes.
    ReadOnly,
    /// A write or a sync failed in a way that leaves open what is on disk, so the store takes no
    /// more writes until it is opened again. Reads go on. The first such failure is the
    /// [`source`](std::error::Error::source).
    #[non_exhaustive]
    WritesStopped {
        /// The failure that stopped them.
        cause: Arc<Error>,
    },
    /// There is no keyspace of that name, or it has been dropped.
    #[non_exhaustive]
    NoSuchKeyspace {
        /// The name asked for.
        name: String,
    },
    /// A transaction was not committed, and nothing of it was written: what it relies on was
    /// changed by a commit after it began. Run it again from its beginning, as
    /// [`Db::transact`](crate::Db::transact) does.
    #[non_exhaustive]
    Conflict {
        /// The keyspace that both used; if it was dropped, which is what the other one did, `#`
        /// and its number.
        keyspace: String,
        /// What the other one wrote: the key, or where the range that it deleted begins. Only in
        /// builds with debug assertions.
        key: Option<Vec<u8>>,
    },
    /// A transaction was not committed, and nothing of it was written: so much was written since it
    /// began that it is not known whether any of that concerns it. Run it again from its beginning,
    /// and if it takes long, do less in one.
    TransactionTooOld,
    /// The handle is a copy that a forked process has of its parent's. It does nothing: two
    /// processes that write one store destroy it, and what the parent writes is not in the child's
    /// copy, which would read other bytes at the places that it knows. So snapshots, scans and
    /// readers that were begun before the fork end as well. Open the store in the child if the
    /// parent has closed it, talk to the parent if it has not, or fork before opening.
    Forked,
    /// The store was closed by [`Db::close`](crate::Db::close), through this handle or another.
    Closed,
    /// A thread panicked in the midst of a commit or of background work: a fault of this library,
    /// or of a merge operator, a filter or a file system that it was given. The commit that it
    /// concerns gets this error, and later ones an [`Error::WritesStopped`] of which it is the
    /// cause. What was committed is in the log.
    #[non_exhaustive]
    Panicked {
        /// What the thread did, and the message.
        what: String,
    },
}

/// Which process keeps a store locked; part of [`Error::Locked`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LockHolder {
    /// This one: a handle of the store or of one of its keyspaces, a snapshot or a scan is alive.
    /// The store closes when the last of them is dropped, or by
    /// [`Db::close`](crate::Db::close).
    ThisProcess,
    /// Another one.
    #[non_exhaustive]
    OtherProcess {
        /// Its process id, as it sees itself (in a container, another number than outside).
        /// `None` if it is not known: a process that opened the store read-only leaves no name,
        /// and a name may not be readable.
        pid: Option<u32>,
    },
}

impl Error {
    /// An I/O error of `op` on `path`.
    pub fn io(op: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io {
            op,
            path: path.to_path_buf(),
            offset: None,
            source: Arc::new(source),
        }
    }

    /// An I/O error of `op` on `path` at byte `offset`.
    pub fn io_at(op: &'static str, path: &Path, offset: u64, source: io::Error) -> Self {
        Self::Io {
            op,
            path: path.to_path_buf(),
            offset: Some(offset),
            source: Arc::new(source),
        }
    }

    /// Damage in `file` at byte `offset`.
    pub fn corruption(file: &Path, offset: u64, what: impl Into<String>) -> Self {
        Self::Corruption {
            file: file.to_path_buf(),
            offset,
            what: what.into(),
        }
    }

    /// [`Error::UnsupportedFormat`] unless `file` has the version that this build reads.
    pub(crate) fn check_version(file: &Path, found: u32, supported: u32) -> Result<()> {
        if found == supported {
            return Ok(());
        }
        Err(Self::UnsupportedFormat {
            file: file.to_path_buf(),
            found,
            supported,
        })
    }

    /// The error of a panic in `place`, from what it was raised with.
    pub(crate) fn panicked(place: &str, panic: &(dyn std::any::Any + Send)) -> Self {
        let message = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied());
        Self::Panicked {
            what: match message {
                Some(message) => format!("{place}: {message}"),
                None => place.to_owned(),
            },
        }
    }

    /// The error of a lock on `path` that `holder` keeps from being taken.
    pub fn locked(path: &Path, holder: LockHolder) -> Self {
        Self::Locked {
            path: path.to_path_buf(),
            holder,
        }
    }

    /// The error of every write after `cause`. A cause that is of this kind itself is passed on,
    /// so that the chain ends at the first failure.
    pub(crate) fn writes_stopped(cause: &Self) -> Self {
        match cause {
            Self::WritesStopped { .. } => cause.clone(),
            cause => Self::WritesStopped {
                cause: Arc::new(cause.clone()),
            },
        }
    }

    /// A limit or usage violation.
    pub fn invalid(what: impl Into<String>) -> Self {
        Self::InvalidArgument { what: what.into() }
    }

    /// True for [`Error::Corruption`].
    pub fn is_corruption(&self) -> bool {
        matches!(self, Self::Corruption { .. })
    }

    /// True for an [`Error::Io`] that says the file does not exist.
    pub fn is_not_found(&self) -> bool {
        self.io_kind() == Some(io::ErrorKind::NotFound)
    }

    /// True if the file system or the user's quota is full. Also true for
    /// [`Error::WritesStopped`] with that cause.
    pub fn is_out_of_space(&self) -> bool {
        match self {
            Self::WritesStopped { cause } => cause.is_out_of_space(),
            other => matches!(
                other.io_kind(),
                Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
            ),
        }
    }

    /// True for [`Error::Conflict`] and [`Error::TransactionTooOld`]: the transaction has written
    /// nothing, and may be run again.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Conflict { .. } | Self::TransactionTooOld)
    }

    /// True for [`Error::Locked`].
    pub fn is_locked(&self) -> bool {
        matches!(self, Self::Locked { .. })
    }

    /// True if the same call on the same handle may succeed later, because what stands in its way
    /// can pass: a lock of another process, a full disk, too many open files, an interrupted call;
    /// and of a transaction that met a [conflict](Self::is_conflict), which is run again from its
    /// beginning. False for what needs another argument, a reopened store or a
    /// repaired file, hence for [`Error::WritesStopped`] whatever its cause.
    pub fn is_retryable(&self) -> bool {
        if self.is_locked() || self.is_conflict() || self.is_out_of_space() {
            return !matches!(self, Self::WritesStopped { .. });
        }
        match self {
            Self::Io { source, .. } => {
                matches!(
                    source.kind(),
                    io::ErrorKind::Interrupted
                        | io::ErrorKind::WouldBlock
                        | io::ErrorKind::TimedOut
                        | io::ErrorKind::ResourceBusy
                        | io::ErrorKind::OutOfMemory
                ) || is_out_of_descriptors(source)
            }
            _ => false,
        }
    }

    pub(crate) fn io_kind(&self) -> Option<io::ErrorKind> {
        match self {
            Self::Io { source, .. } => Some(source.kind()),
            _ => None,
        }
    }

    /// What failed, without its cause.
    fn write_what(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io {
                op, path, offset, ..
            } => {
                write!(f, "{op} of {}", path.display())?;
                if let Some(offset) = offset {
                    write!(f, " at byte {offset}")?;
                }
                f.write_str(" failed")
            }
            Self::Corruption { file, offset, what } => {
                write!(f, "{} is damaged at byte {offset}: {what}", file.display())
            }
            Self::InvalidArgument { what } => write!(f, "invalid argument: {what}"),
            Self::Locked { path, holder } => {
                write!(
                    f,
                    "the store is open {holder} (lock file {})",
                    path.display()
                )
            }
            Self::LockLost { path } => write!(
                f,
                "the lock file {} was removed or replaced while the store was open: another \
                 process may have opened it",
                path.display()
            ),
            Self::UnsupportedFormat {
                file,
                found,
                supported,
            } => write!(
                f,
                "{} has format version {found}; this build reads version {supported} only (another \
                 build wrote it, or it is damaged)",
                file.display()
            ),
            Self::UnsupportedFeature { file, what } => write!(
                f,
                "{} needs {what}, which this build does not know",
                file.display()
            ),
            Self::ReadOnly => f.write_str("the store was opened read-only"),
            Self::WritesStopped { .. } => {
                f.write_str("the store takes no more writes until it is reopened: one has failed")
            }
            Self::NoSuchKeyspace { name } => write!(f, "there is no keyspace named {name:?}"),
            Self::Conflict { keyspace, key } => {
                write!(f, "a transaction met a conflict in keyspace {keyspace:?}")?;
                match key {
                    Some(key) => write!(f, " at key \"{}\"", key.escape_ascii()),
                    None => Ok(()),
                }
            }
            Self::TransactionTooOld => f.write_str(
                "a transaction took too long: too much was written beside it to tell whether it \
                 met a conflict",
            ),
            Self::Forked => f.write_str(
                "this handle belongs to the process that opened the store, and does nothing in a \
                 forked child: open the store after forking",
            ),
            Self::Closed => f.write_str("the store has been closed"),
            Self::Panicked { what } => write!(f, "a panic in {what}"),
        }
    }
}

/// True if the process or the system has no more file descriptors; std has no kind for it.
fn is_out_of_descriptors(error: &io::Error) -> bool {
    // EMFILE and ENFILE, the same on every Unix; ERROR_TOO_MANY_OPEN_FILES.
    let codes: &[i32] = if cfg!(windows) { &[4] } else { &[24, 23] };
    error
        .raw_os_error()
        .is_some_and(|code| codes.contains(&code))
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_what(f)?;
        if f.alternate() {
            let mut cause = std::error::Error::source(self);
            while let Some(error) = cause {
                write!(f, ": {error}")?;
                cause = error.source();
            }
        }
        Ok(())
    }
}

impl fmt::Display for LockHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ThisProcess => {
                f.write_str("in this process: a handle, snapshot or scan keeps it open")
            }
            Self::OtherProcess { pid: Some(pid) } => write!(f, "in another process, {pid}"),
            Self::OtherProcess { pid: None } => f.write_str("in another process"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source.as_ref()),
            Self::WritesStopped { cause } => Some(cause.as_ref()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full(kind: io::ErrorKind) -> Error {
        Error::io_at("write", Path::new("d/wal/1.log"), 4096, kind.into())
    }

    #[test]
    fn display_leaves_the_cause_to_the_chain() {
        let io = full(io::ErrorKind::StorageFull);
        let cause = io::Error::from(io::ErrorKind::StorageFull).to_string();
        assert_eq!(io.to_string(), "write of d/wal/1.log at byte 4096 failed");
        assert_eq!(format!("{io:#}"), format!("{io}: {cause}"));
        let stopped = Error::writes_stopped(&io);
        assert!(!stopped.to_string().contains("1.log"), "{stopped}");
        assert_eq!(format!("{stopped:#}"), format!("{stopped}: {io}: {cause}"));
    }

    #[test]
    fn the_first_failure_stays_the_cause() {
        let first = Error::writes_stopped(&full(io::ErrorKind::StorageFull));
        let again = Error::writes_stopped(&first);
        assert_eq!(format!("{again:#}"), format!("{first:#}"));
    }

    #[test]
    fn kinds() {
        for kind in [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded] {
            let error = full(kind);
            assert!(error.is_out_of_space() && error.is_retryable());
            let stopped = Error::writes_stopped(&error);
            assert!(stopped.is_out_of_space() && !stopped.is_retryable());
        }
        let other = LockHolder::OtherProcess { pid: Some(7) };
        let locked = Error::locked(Path::new("LOCK"), other);
        assert!(locked.is_locked() && locked.is_retryable() && !locked.is_out_of_space());
        let missing = full(io::ErrorKind::NotFound);
        assert!(missing.is_not_found() && !missing.is_retryable());
        let damage = Error::corruption(Path::new("f"), 1, "torn");
        assert!(damage.is_corruption() && !damage.is_retryable());
        #[cfg(unix)]
        assert!(Error::io("open", Path::new("f"), io::Error::from_raw_os_error(24)).is_retryable());
        for error in [Error::ReadOnly, Error::Closed, Error::invalid("x")] {
            assert!(!error.is_retryable() && !error.is_locked() && !error.is_out_of_space());
        }
    }

    #[test]
    fn a_lock_says_who_has_it() {
        let locked = |holder| Error::locked(Path::new("LOCK"), holder).to_string();
        let pid = |pid| LockHolder::OtherProcess { pid };
        assert!(locked(LockHolder::ThisProcess).contains("in this process: a handle, snapshot"));
        assert!(locked(pid(Some(4711))).contains("in another process, 4711"));
        assert!(locked(pid(None)).contains("in another process (lock file LOCK)"));
    }
}
