//! Why a benchmark could not be run, or must not be believed.

use std::fmt;

/// A result whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a benchmark failed.
#[derive(Debug)]
pub enum Error {
    /// The request makes no sense: an unknown workload, an impossible size. Nothing was run.
    Usage(String),
    /// A store answered wrongly: its figures are worth nothing.
    WrongResult(String),
    /// A store or the operating system reported an error.
    Store(Box<dyn std::error::Error + Send + Sync>),
}

impl Error {
    pub(crate) fn usage(what: impl Into<String>) -> Self {
        Self::Usage(what.into())
    }

    pub(crate) fn wrong(what: impl Into<String>) -> Self {
        Self::WrongResult(what.into())
    }

    /// Wraps an error of a store.
    pub fn store(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Store(error.into())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(what) => f.write_str(what),
            Self::WrongResult(what) => write!(f, "wrong result: {what}"),
            Self::Store(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Store(error) => error.source(),
            _ => None,
        }
    }
}

impl From<hedgerow::Error> for Error {
    fn from(error: hedgerow::Error) -> Self {
        Self::store(error)
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Self::store(error)
    }
}
