//! The one trait over both engines and the model, and the types it speaks.

mod batch;
mod model;
mod scan;

use crate::engine::EngineStats;
use crate::error::Result;
use crate::options::Durability;
use crate::types::{KeyBounds, Value};

pub use batch::Batch;
pub(crate) use batch::{OpHeading, check_op, decode_payload, op_payload};
#[cfg(any(test, feature = "internals"))]
pub(crate) use batch::{encode_keyspace, encode_op};
pub use model::{Model, ModelSnapshot};
pub use scan::Scan;
pub(crate) use scan::ScanObserver;

/// What `read` makes of the value that `get` finds, and the value's length. `get` calls what it is given once at the
/// most: a closure that can be called once is enough.
#[inline]
pub(crate) fn read_once<R>(
    read: impl FnOnce(&[u8]) -> R,
    get: impl FnOnce(&mut dyn FnMut(&[u8])) -> Result<bool>,
) -> Result<Option<(R, usize)>> {
    let mut read = Some(read);
    let mut found = None;
    get(&mut |value| {
        if let Some(read) = read.take() {
            found = Some((read(value), value.len()));
        }
    })?;
    Ok(found)
}

/// Reading from an ordered map of byte strings.
///
/// Implemented by a keyspace of either engine, by a snapshot of one, and by the in-memory
/// [`Model`](crate::Model). An absent key is `Ok(None)`, never an error.
pub trait KvRead {
    /// The value of `key`.
    fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Value>>;

    /// Calls `read` with the value of `key`, without copying it where the engine can lend it.
    /// `read` must not call back into the store.
    fn get_with<R>(
        &self,
        key: impl AsRef<[u8]>,
        read: impl FnOnce(&[u8]) -> R,
    ) -> Result<Option<R>>;

    /// True if `key` has a value.
    fn contains(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        Ok(self.get_with(key, |_| ())?.is_some())
    }

    /// The values of several keys, in the order given, all from one moment. Faster than as many
    /// calls of [`KvRead::get`].
    fn multi_get<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<Vec<Option<Value>>>;

    /// The entries with keys in `bounds`, in key order, as of now: writes made later do not
    /// appear. An error while starting is the iterator's first item.
    fn range(&self, bounds: impl KeyBounds) -> Scan;

    /// The entries whose keys start with `prefix`, in key order, as of now.
    fn prefix(&self, prefix: impl AsRef<[u8]>) -> Scan;

    /// All entries in key order, as of now.
    fn iter(&self) -> Scan {
        self.range(..)
    }
}

/// Reading from and writing to an ordered map of byte strings.
///
/// Code that is generic over `Kv` runs on a [`Keyspace`](crate::Keyspace) of either engine and
/// on the in-memory [`Model`](crate::Model).
///
/// ```
/// use hedgerow::{Kv, KvRead, Model, Result};
///
/// fn increment(kv: &impl Kv, counter: &str) -> Result<u64> {
///     let old = kv.get_with(counter, |b| u64::from_le_bytes(b.try_into().unwrap()))?;
///     let new = old.unwrap_or(0) + 1;
///     kv.put(counter, new.to_le_bytes())?;
///     Ok(new)
/// }
///
/// let kv = Model::new();
/// increment(&kv, "visits")?;
/// assert_eq!(increment(&kv, "visits")?, 2);
/// # Ok::<(), hedgerow::Error>(())
/// ```
pub trait Kv: KvRead {
    /// What [`Kv::snapshot`] returns.
    type Snapshot: KvRead;

    /// Sets `key` to `value`, with the store's default durability.
    fn put(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()>;

    /// Removes `key`, which may be absent, with the store's default durability.
    fn delete(&self, key: impl AsRef<[u8]>) -> Result<()>;

    /// Removes every key in `bounds`, with the store's default durability. Empty or inverted
    /// bounds remove nothing.
    fn delete_range(&self, bounds: impl KeyBounds) -> Result<()>;

    /// Commits all operations of `batch`, or none, with the durability named.
    fn write(&self, batch: Batch, durability: Durability) -> Result<()>;

    /// An immutable view of everything committed so far.
    fn snapshot(&self) -> Self::Snapshot;

    /// Brings everything committed so far into the engine's own files, durably.
    fn flush(&self) -> Result<()>;

    /// Figures about the keyspace, now.
    fn stats(&self) -> EngineStats;
}
