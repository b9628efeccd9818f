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
/// The type is cheap to clone, because one failed sync is reported to every
/// writer that waited for it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused an operation. Retrying may help when the
    /// cause (a full disk, say) is removed.
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
    InvalidArgument {
        /// Which argument, and which limit.
        what: String,
    },
    /// Another handle, in this process or another, has the store open.
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// The file is a hedgerow file of a format version that this build does
    /// not read.
    UnsupportedFormat {
        /// The file.
        file: PathBuf,
        /// The version found in it.
        found: u32,
        /// The version this build reads and writes.
        supported: u32,
    },
    /// The store takes no more writes: it was opened read-only, or a sync
    /// failed and it must be reopened. Reads go on.
    ReadOnly {
        /// Why.
        reason: String,
    },
    /// There is no keyspace of that name, or it has been dropped.
    NoSuchKeyspace {
        /// The name asked for.
        name: String,
    },
    /// The store has been closed through another handle.
    Closed,
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
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io {
                op,
                path,
                offset: Some(offset),
                source,
            } => {
                write!(
                    f,
                    "{op} of {} at byte {offset} failed: {source}",
                    path.display()
                )
            }
            Self::Io {
                op,
                path,
                offset: None,
                source,
            } => {
                write!(f, "{op} of {} failed: {source}", path.display())
            }
            Self::Corruption { file, offset, what } => {
                write!(f, "{} is damaged at byte {offset}: {what}", file.display())
            }
            Self::InvalidArgument { what } => write!(f, "invalid argument: {what}"),
            Self::Locked { path } => {
                write!(
                    f,
                    "the store is open elsewhere (lock file {})",
                    path.display()
                )
            }
            Self::UnsupportedFormat {
                file,
                found,
                supported,
            } => write!(
                f,
                "{} has format version {found}; this build reads version {supported} only",
                file.display()
            ),
            Self::ReadOnly { reason } => write!(f, "the store is read-only: {reason}"),
            Self::NoSuchKeyspace { name } => write!(f, "there is no keyspace named {name:?}"),
            Self::Closed => write!(f, "the store has been closed"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source.as_ref()),
            _ => None,
        }
    }
}
