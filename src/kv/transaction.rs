//! [`KvTransaction`]: reading and writing one ordered map in a transaction.

use super::read::KvRead;
use crate::error::Result;
use crate::types::{KeyBounds, Value};

/// What a transaction does with one ordered map: [`KvRead`], with what it has written itself, and
/// writes, which no other reader sees before the commit.
///
/// Implemented by a keyspace of a [`Transaction`](crate::Transaction)
/// ([`TransactionKeyspace`](crate::TransactionKeyspace)), whichever its engine, and by a
/// [`ModelTransaction`](crate::ModelTransaction); both have the same methods without the trait. It
/// cannot be implemented elsewhere. A transaction begins and commits by methods of its own, since
/// one of a store has many keyspaces.
///
/// ```
/// use hedgerow::{EngineKind, Error, KvTransaction, Model, Result};
///
/// /// Moves an entry, in any transaction.
/// fn rename(tx: &impl KvTransaction, old: &str, new: &str) -> Result<bool> {
///     let Some(value) = tx.get(old)? else { return Ok(false) };
///     tx.delete(old)?;
///     tx.put(new, value)?;
///     Ok(true)
/// }
///
/// let model = Model::new();
/// model.put("ada", "1815")?;
/// assert!(model.transact(|tx| rename(tx, "ada", "lovelace"))?);
/// assert!(model.contains_key("lovelace")?);
///
/// # let dir = tempfile::tempdir().unwrap();
/// # let db = hedgerow::Db::open(dir.path().join("my.db"))?;
/// let users = db.keyspace("users", EngineKind::BTree)?;
/// assert!(!db.transact(|tx| rename(&tx.keyspace(&users), "ada", "lovelace"))?);
/// # Ok::<(), Error>(())
/// ```
pub trait KvTransaction: KvRead {
    /// Sets `key` to `value`.
    fn put(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()>;

    /// Removes `key`, which may be absent.
    fn delete(&self, key: impl AsRef<[u8]>) -> Result<()>;

    /// Removes every key in `bounds`: those that the transaction sees, and those that other commits
    /// add before this one. Empty or inverted bounds remove nothing.
    fn delete_range(&self, bounds: impl KeyBounds) -> Result<()>;

    /// The value of `key`, on which the commit depends as if the transaction had written the key.
    fn get_for_update(&self, key: impl AsRef<[u8]>) -> Result<Option<Value>>;

    /// Sets the key that consists of `prefix`, the number of the commit and `suffix` to `value`, at
    /// the commit: see [`Batch::put_versionstamped_key`](crate::Batch::put_versionstamped_key).
    fn put_versionstamped_key(
        &self,
        prefix: impl AsRef<[u8]>,
        suffix: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
    ) -> Result<()>;

    /// Sets `key` to the value that consists of `prefix`, the number of the commit and `suffix`, at
    /// the commit.
    fn put_versionstamped_value(
        &self,
        key: impl AsRef<[u8]>,
        prefix: impl AsRef<[u8]>,
        suffix: impl AsRef<[u8]>,
    ) -> Result<()>;
}

/// Implements [`KvTransaction`] by the inherent methods of a type.
macro_rules! transaction_of_inherent {
    ($type:ty) => {
        impl $crate::kv::KvTransaction for $type {
            fn put(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
                Self::put(self, key, value)
            }

            fn delete(&self, key: impl AsRef<[u8]>) -> Result<()> {
                Self::delete(self, key)
            }

            fn delete_range(&self, bounds: impl KeyBounds) -> Result<()> {
                Self::delete_range(self, bounds)
            }

            fn get_for_update(&self, key: impl AsRef<[u8]>) -> Result<Option<Value>> {
                Self::get_for_update(self, key)
            }

            fn put_versionstamped_key(
                &self,
                prefix: impl AsRef<[u8]>,
                suffix: impl AsRef<[u8]>,
                value: impl AsRef<[u8]>,
            ) -> Result<()> {
                Self::put_versionstamped_key(self, prefix, suffix, value)
            }

            fn put_versionstamped_value(
                &self,
                key: impl AsRef<[u8]>,
                prefix: impl AsRef<[u8]>,
                suffix: impl AsRef<[u8]>,
            ) -> Result<()> {
                Self::put_versionstamped_value(self, key, prefix, suffix)
            }
        }
    };
}
pub(crate) use transaction_of_inherent;
