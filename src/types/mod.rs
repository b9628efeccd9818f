//! Newtypes shared by every room, and the store's limits.

mod key_builder;
mod key_range;
mod key_set;
mod op;
mod value;

use std::fmt;

pub use key_builder::{KeyBuilder, KeyReader};
pub(crate) use key_range::is_from;
#[cfg(feature = "internals")]
pub(crate) use key_range::prefix_end;
pub use key_range::{KeyBounds, KeyRange};
pub(crate) use key_set::{Inserted, KeySet};
pub(crate) use op::{Op, SequencedOp};
pub use value::Value;

/// Longest key, in bytes.
pub const MAX_KEY_LEN_BYTES: usize = 65_535;
/// Longest value, in bytes (256 MiB).
pub const MAX_VALUE_LEN_BYTES: usize = 256 << 20;
/// Largest batch, in encoded bytes (1 GiB).
pub const MAX_BATCH_LEN_BYTES: usize = 1 << 30;
/// Longest keyspace name, in bytes.
pub const MAX_KEYSPACE_NAME_LEN_BYTES: usize = 255;
/// Largest number of keyspaces in a store.
pub const MAX_KEYSPACES: usize = 65_536;

/// Position of an operation in the store's single order of commits.
///
/// Every operation of a batch has its own number; the numbers of a batch are
/// consecutive. Zero is before the first operation. Only 56 bits are used, so
/// that a table can pack a number and an operation kind into one word; at ten
/// million operations a second they last for two centuries.
///
/// ```
/// use hedgerow::SeqNo;
///
/// let seq = SeqNo::ZERO.plus(2);
/// assert_eq!((seq.prev(), seq.next()), (SeqNo(1), SeqNo(3)));
/// assert_eq!(SeqNo::ZERO.prev(), SeqNo::ZERO);
/// assert!(seq < SeqNo::MAX && seq.to_string() == "2");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SeqNo(pub u64);

impl SeqNo {
    /// Before the first operation.
    pub const ZERO: Self = Self(0);
    /// Above every operation: reads at `MAX` see everything.
    pub const MAX: Self = Self((1 << 56) - 1);

    /// The number `n` further on.
    pub const fn plus(self, n: u64) -> Self {
        Self(self.0 + n)
    }

    /// The number after this one.
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The number before this one; zero stays zero.
    pub const fn prev(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

impl fmt::Display for SeqNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Number of a keyspace. Never reused within a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyspaceId(pub u32);

impl fmt::Display for KeyspaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Number of a file of an LSM keyspace. Never reused within the keyspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(pub u64);

/// Number of a page of a B-tree file: its byte offset is the number times the
/// page size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageId(pub u64);
