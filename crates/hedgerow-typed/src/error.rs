//! What can go wrong with a typed table.

use std::fmt;
use std::sync::Arc;

use hedgerow::MAX_KEY_LEN_BYTES;

use crate::key::KeyError;

/// A result whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a codec could not encode or decode a value.
pub type CodecError = Box<dyn std::error::Error + Send + Sync>;

/// Why an operation on a typed table failed.
///
/// Nothing was written by a call that failed, and a transaction is as before the call and may go
/// on; so says each variant for which it is otherwise. `Display` says what failed and leaves the
/// cause to [`source`](std::error::Error::source).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Error {
    /// The store failed, or a transaction met a conflict.
    Store(hedgerow::Error),
    /// Bytes in a table or an index are no key of its type: something else wrote them.
    #[non_exhaustive]
    Key {
        /// The table, or the index as `table.index`.
        table: String,
        /// The bytes.
        key: Vec<u8>,
        /// What is wrong with them.
        source: KeyError,
    },
    /// The bytes of a value are none of its type, or a value cannot be encoded.
    #[non_exhaustive]
    Value {
        /// The table.
        table: String,
        /// The bytes of the key.
        key: Vec<u8>,
        /// What the codec says.
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// A key, or the key of an index together with that of the row, is longer than
    /// [`MAX_KEY_LEN_BYTES`].
    #[non_exhaustive]
    KeyTooLong {
        /// The table, or the index as `table.index`.
        table: String,
        /// How long it is.
        len_bytes: usize,
    },
    /// Another row has the same key in a unique index.
    #[non_exhaustive]
    NotUnique {
        /// The index as `table.index`.
        index: String,
        /// The bytes of the key in the index.
        key: Vec<u8>,
        /// The bytes of the key of the row that has it.
        taken_by: Vec<u8>,
    },
    /// A table or an index has other types than those that it is opened with.
    #[non_exhaustive]
    Schema {
        /// The table, or the index as `table.index`.
        table: String,
        /// What is stored.
        stored: String,
        /// What it was opened with.
        wanted: String,
    },
    /// A table has another version than the one it is opened with, and no migration leads there.
    #[non_exhaustive]
    Version {
        /// The table.
        table: String,
        /// The version that it has.
        stored: u32,
        /// The version that it was opened with.
        wanted: u32,
    },
    /// A migration cannot convert a row, or converts two rows to the same key. The table is at its
    /// old version.
    #[non_exhaustive]
    Migration {
        /// The table.
        table: String,
        /// What is wrong with which row.
        what: String,
    },
    /// An index is stored that the definition of the table does not have, or the other way round.
    #[non_exhaustive]
    Index {
        /// The table.
        table: String,
        /// The index.
        index: String,
        /// What is wrong with it.
        what: String,
    },
    /// There is no table of that name.
    #[non_exhaustive]
    NoTable {
        /// The name asked for.
        table: String,
    },
    /// The name cannot be used for a table: a table or a keyspace with something in it has it.
    #[non_exhaustive]
    NameTaken {
        /// The name.
        name: String,
    },
    /// Since this handle was opened, the table was migrated, renamed or dropped, or an index of it
    /// was added or dropped. Open it again.
    #[non_exhaustive]
    TableChanged {
        /// The table.
        table: String,
    },
    /// A snapshot or a transaction began before the table was created, migrated or given an index,
    /// as it was opened. Take another one.
    #[non_exhaustive]
    OtherMoment {
        /// The table.
        table: String,
    },
    /// What is stored about a table cannot be read: it is damaged, or of a later version of this
    /// crate.
    #[non_exhaustive]
    Catalog {
        /// The table.
        table: String,
        /// What is wrong.
        what: String,
    },
}

impl Error {
    /// For a migration that cannot convert a row: its closure returns this.
    pub fn migration(what: impl Into<String>) -> Self {
        Self::Migration {
            table: String::new(),
            what: what.into(),
        }
    }

    /// True if a transaction met a conflict: run it again.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_conflict())
    }

    /// True if the same call may succeed later. See [`hedgerow::Error::is_retryable`].
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_retryable())
    }

    /// True for [`Error::NotUnique`].
    pub fn is_not_unique(&self) -> bool {
        matches!(self, Self::NotUnique { .. })
    }

    pub(crate) fn of_key(table: impl Into<String>, key: &[u8], source: KeyError) -> Self {
        Self::Key {
            table: table.into(),
            key: key.to_vec(),
            source,
        }
    }

    pub(crate) fn of_value(table: impl Into<String>, key: &[u8], source: CodecError) -> Self {
        Self::Value {
            table: table.into(),
            key: key.to_vec(),
            source: source.into(),
        }
    }
}

/// [`Error::KeyTooLong`] if `key` is.
pub(crate) fn check_key_len(len_bytes: usize, table: impl Fn() -> String) -> Result<()> {
    if len_bytes <= MAX_KEY_LEN_BYTES {
        return Ok(());
    }
    Err(Error::KeyTooLong {
        table: table(),
        len_bytes,
    })
}

impl From<hedgerow::Error> for Error {
    fn from(error: hedgerow::Error) -> Self {
        Self::Store(error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(error) => error.fmt(f),
            Self::Key { table, key, .. } => {
                let key = key.escape_ascii();
                write!(f, "\"{key}\" is no key of the type that {table:?} has")
            }
            Self::Value { table, key, .. } => {
                let key = key.escape_ascii();
                write!(
                    f,
                    "the value of \"{key}\" in table {table:?} is none of its type"
                )
            }
            Self::KeyTooLong { table, len_bytes } => write!(
                f,
                "a key of {len_bytes} bytes for {table:?}: {MAX_KEY_LEN_BYTES} are possible"
            ),
            Self::NotUnique {
                index,
                key,
                taken_by,
            } => write!(
                f,
                "the unique index {index:?} has \"{}\" already, of the row \"{}\"",
                key.escape_ascii(),
                taken_by.escape_ascii()
            ),
            Self::Schema {
                table,
                stored,
                wanted,
            } => write!(f, "{table:?} holds {stored}, and was opened with {wanted}"),
            Self::Version {
                table,
                stored,
                wanted,
            } => write!(
                f,
                "table {table:?} has version {stored}, and no migration leads to version {wanted}"
            ),
            Self::Migration { table, what } => {
                write!(f, "the migration of table {table:?} failed: {what}")
            }
            Self::Index { table, index, what } => {
                write!(f, "index {index:?} of table {table:?}: {what}")
            }
            Self::NoTable { table } => write!(f, "there is no table named {table:?}"),
            Self::NameTaken { name } => write!(
                f,
                "{name:?} is the name of a table, or of a keyspace that holds something else"
            ),
            Self::TableChanged { table } => write!(
                f,
                "table {table:?} has changed since it was opened: open it again"
            ),
            Self::OtherMoment { table } => write!(
                f,
                "table {table:?} became what it was opened as after this snapshot or transaction \
                 had begun"
            ),
            Self::Catalog { table, what } => {
                write!(
                    f,
                    "what is stored about table {table:?} cannot be read: {what}"
                )
            }
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            // Its own text is this one's.
            Self::Store(error) => error.source(),
            Self::Key { source, .. } => Some(source),
            Self::Value { source, .. } => Some(source.as_ref()),
            _ => None,
        }
    }
}
