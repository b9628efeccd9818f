//! Why a run could not be done, or must not be trusted.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// A result whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a run failed.
///
/// As a rule an error and its [sources](std::error::Error::source) each say one thing;
/// [`with_causes`] puts them in a line.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The request makes no sense: an unknown workload, an impossible size. Nothing was run.
    Usage(String),
    /// A store answered wrongly: its figures are worth nothing.
    WrongResult(String),
    /// The run was not completed for another reason, such as a measuring process that was killed.
    Failed(String),
    /// A store or the operating system reported an error.
    Store(Box<dyn std::error::Error + Send + Sync>),
    /// The operating system reported an error about a file that is not a store's.
    Io {
        /// What was attempted, such as `reading`.
        what: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The error.
        source: io::Error,
    },
    /// The process was [asked to stop](crate::stop).
    Interrupted,
    /// Another error, and what was being done.
    During {
        /// What was being done.
        what: String,
        /// The error.
        source: Box<Self>,
    },
}

impl Error {
    /// A mistake in the request.
    pub fn usage(what: impl Into<String>) -> Self {
        Self::Usage(what.into())
    }

    /// A wrong answer.
    pub fn wrong(what: impl Into<String>) -> Self {
        Self::WrongResult(what.into())
    }

    /// A run that was not completed.
    pub fn failed(what: impl Into<String>) -> Self {
        Self::Failed(what.into())
    }

    /// Wraps an error of a store.
    pub fn store(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Store(error.into())
    }

    /// An error of the operating system about a file that is not a store's.
    pub fn io(what: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io {
            what,
            path: path.to_path_buf(),
            source,
        }
    }

    /// Says what was being done when this happened.
    #[must_use]
    pub fn during(self, what: impl Into<String>) -> Self {
        Self::During {
            what: what.into(),
            source: Box::new(self),
        }
    }

    /// The error without what was being done.
    pub fn root(&self) -> &Self {
        match self {
            Self::During { source, .. } => source.root(),
            other => other,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(what) | Self::Failed(what) => f.write_str(what),
            Self::WrongResult(what) => write!(f, "WRONG RESULT: {what}"),
            Self::Store(error) => error.fmt(f),
            Self::Io { what, path, .. } => write!(f, "{what} {}", path.display()),
            Self::Interrupted => f.write_str("interrupted"),
            Self::During { what, .. } => f.write_str(what),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Store(error) => error.source(),
            Self::Io { source, .. } => Some(source),
            Self::During { source, .. } => Some(source),
            _ => None,
        }
    }
}

impl From<hedgerow::Error> for Error {
    fn from(error: hedgerow::Error) -> Self {
        Self::store(error)
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::store(error)
    }
}

/// An error and what caused it, on one line. A cause whose text its parent already ends with is not
/// repeated.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        if !line.ends_with(&text) {
            line = format!("{line}: {text}");
        }
        next = cause.source();
    }
    line.replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_what_was_done_and_every_cause_once() {
        let cause = io::Error::new(io::ErrorKind::NotFound, "no such file");
        let error = Error::io("reading", Path::new("/x"), cause).during("round 1, lsm");
        assert_eq!(
            with_causes(&error),
            "round 1, lsm: reading /x: no such file"
        );
        let cause = io::Error::new(io::ErrorKind::NotFound, "no such file");
        let error = Error::from(hedgerow::Error::io("open", Path::new("/y"), cause));
        assert_eq!(with_causes(&error), "open of /y failed: no such file");
        assert!(matches!(
            Error::Interrupted.during("a").during("b").root(),
            Error::Interrupted
        ));
    }
}
