//! What a trace records: one [`Event`] for each operation.

use crate::options::Durability;
use crate::types::Value;

/// An operation, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Microseconds since the trace began: the start of a write, the end of a read or a scan.
    pub time_us: u64,
    /// Which of the recorder's buffers it came through. A thread always uses the same one, and few
    /// threads share one.
    pub lane: u16,
    /// What was done.
    pub op: Op,
}

/// What was done. Keyspaces are numbers; [`Reader::keyspace`](super::Reader::keyspace) knows them.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Op {
    /// A key was looked up for its value.
    Get {
        /// The keyspace.
        keyspace: u32,
        /// The key, and the length of its value if it has one.
        lookup: Lookup,
        /// True if it was read from a snapshot.
        snapshot: bool,
    },
    /// A key was looked up without its value, or for a part of it.
    Contains {
        /// The keyspace.
        keyspace: u32,
        /// The key.
        key: Key,
        /// True if it has a value.
        hit: bool,
        /// True if it was read from a snapshot.
        snapshot: bool,
    },
    /// Several keys were looked up in one call.
    MultiGet {
        /// The keyspace.
        keyspace: u32,
        /// The keys in the order asked for.
        lookups: Vec<Lookup>,
        /// True if it was read from a snapshot.
        snapshot: bool,
        /// True if the next event of this lane goes on with the same call: very long calls are
        /// recorded in pieces.
        continued: bool,
    },
    /// A commit.
    Write {
        /// What it survives.
        durability: Durability,
        /// The changes in order; exactly one unless `batch`.
        changes: Vec<Change>,
        /// True for a batch, false for a put, delete or range delete of its own.
        batch: bool,
        /// True if the next event of this lane goes on with the same batch: very large batches are
        /// recorded in pieces.
        continued: bool,
    },
    /// A scan that has ended.
    Scan {
        /// The keyspace.
        keyspace: u32,
        /// Where the range begins, inclusive.
        start: Key,
        /// Where it ends, exclusive; `None` for no end.
        end: Option<Key>,
        /// Entries taken from the front.
        forward: u64,
        /// Entries taken from the back.
        backward: u64,
        /// Bytes of the keys and values taken.
        bytes: u64,
        /// Calls of [`Scan::seek`](crate::Scan::seek).
        seeks: u64,
        /// How long the scan was open, in microseconds.
        open_us: u64,
        /// True if it was over a snapshot.
        snapshot: bool,
    },
    /// A snapshot was taken, of one keyspace or of all.
    Snapshot {
        /// The keyspace; `None` for all.
        keyspace: Option<u32>,
    },
    /// A flush of one keyspace or of all.
    Flush {
        /// The keyspace; `None` for all.
        keyspace: Option<u32>,
    },
    /// A compaction of one keyspace or of all, asked for by the program.
    Compact {
        /// The keyspace; `None` for all.
        keyspace: Option<u32>,
    },
    /// A sync of the log.
    Sync,
}

/// A key that was looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lookup {
    /// The key.
    pub key: Key,
    /// Length of its value in bytes; `None` if it had none.
    pub value_len_bytes: Option<u64>,
}

/// One change of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A key was set.
    Put {
        /// The keyspace.
        keyspace: u32,
        /// The key.
        key: Key,
        /// Length of the value in bytes.
        value_len_bytes: u64,
        /// The value, where contents were recorded.
        value: Option<Value>,
    },
    /// A key was removed.
    Delete {
        /// The keyspace.
        keyspace: u32,
        /// The key.
        key: Key,
    },
    /// All keys of a range were removed.
    DeleteRange {
        /// The keyspace.
        keyspace: u32,
        /// Where the range begins, inclusive.
        start: Key,
        /// Where it ends, exclusive; `None` for no end.
        end: Option<Key>,
    },
}

impl Change {
    /// The keyspace changed.
    pub fn keyspace(&self) -> u32 {
        match self {
            Self::Put { keyspace, .. }
            | Self::Delete { keyspace, .. }
            | Self::DeleteRange { keyspace, .. } => *keyspace,
        }
    }
}

/// A key as it was recorded.
///
/// ```
/// use hedgerow::trace::Key;
///
/// let hashed = Key::Hashed { hash: 7, len_bytes: 20 };
/// assert_eq!(hashed.len_bytes(), 20);
/// assert_eq!(hashed.to_value().len(), 20);
/// assert_eq!(Key::Contents("ada".into()).to_value(), "ada");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Key {
    /// Its bytes.
    Contents(Value),
    /// A hash of it.
    Hashed {
        /// Equal for equal keys of one trace.
        hash: u64,
        /// Length of the key in bytes.
        len_bytes: u32,
    },
}

impl Key {
    /// Length of the key that was recorded, in bytes.
    pub fn len_bytes(&self) -> usize {
        match self {
            Self::Contents(bytes) => bytes.len(),
            Self::Hashed { len_bytes, .. } => *len_bytes as usize,
        }
    }

    /// Bytes to replay the key with: the key itself, or one made from its hash that has its length
    /// (but at least 8 bytes, so that different keys stay different).
    pub fn to_value(&self) -> Value {
        match self {
            Self::Contents(bytes) => bytes.clone(),
            Self::Hashed { hash, len_bytes } => {
                let mut bytes = hash.to_be_bytes().to_vec();
                bytes.resize((*len_bytes as usize).max(8), b'.');
                bytes.into()
            }
        }
    }
}
