//! Batches over several keyspaces.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::keyspace::Keyspace;
use crate::error::{Error, Result};
use crate::kv::Batch;
use crate::store::{OpenKeyspace, Store};
use crate::types::KeyBounds;

/// Operations on any number of keyspaces, of either engine, that are committed together by
/// [`Db::write`](crate::Db::write).
///
/// Later operations on a keyspace win over earlier ones. Limits are checked as operations are
/// added and reported when the batch is written; nothing is written then.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let db = hedgerow::Db::open(dir.path().join("my.db"))?;
/// use hedgerow::{Durability, EngineKind, WriteBatch};
///
/// let users = db.keyspace("users", EngineKind::BTree)?;
/// let events = db.keyspace("events", EngineKind::Lsm)?;
/// let mut batch = WriteBatch::new(); // or db.batch()
/// batch.put(&users, "ada", "1815");
/// batch.delete(&users, "bob");
/// batch.delete_range(&events, .."2020");
/// assert_eq!((batch.len(), batch.is_empty()), (3, false));
/// assert!(batch.len_bytes() > 0);
/// db.write(batch, Durability::Sync)?;
/// # Ok::<(), hedgerow::Error>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct WriteBatch {
    /// One part for each keyspace, in the order of their first use.
    parts: Vec<(Keyspace, Batch)>,
}

impl WriteBatch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets `key` to `value` in `keyspace`.
    pub fn put(&mut self, keyspace: &Keyspace, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        self.part(keyspace).put(key, value);
    }

    /// Sets the key that consists of `prefix`, the number of the commit and `suffix` to `value` in
    /// `keyspace`: see [`Batch::put_versionstamped_key`]. It is one number for all keyspaces.
    pub fn put_versionstamped_key(
        &mut self,
        keyspace: &Keyspace,
        prefix: impl AsRef<[u8]>,
        suffix: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
    ) {
        let part = self.part(keyspace);
        part.put_versionstamped_key(prefix, suffix, value);
    }

    /// Sets `key` in `keyspace` to the value that consists of `prefix`, the number of the commit
    /// and `suffix`: see [`Batch::put_versionstamped_key`].
    pub fn put_versionstamped_value(
        &mut self,
        keyspace: &Keyspace,
        key: impl AsRef<[u8]>,
        prefix: impl AsRef<[u8]>,
        suffix: impl AsRef<[u8]>,
    ) {
        let part = self.part(keyspace);
        part.put_versionstamped_value(key, prefix, suffix);
    }

    /// Removes `key`, which may be absent, from `keyspace`.
    pub fn delete(&mut self, keyspace: &Keyspace, key: impl AsRef<[u8]>) {
        self.part(keyspace).delete(key);
    }

    /// Sets `key` to `value` in `keyspace`, which expires `ttl` after the commit. See
    /// [`Kv::put_with_ttl`](crate::Kv::put_with_ttl).
    pub fn put_with_ttl(
        &mut self,
        keyspace: &Keyspace,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        ttl: Duration,
    ) {
        self.part(keyspace).put_with_ttl(key, value, ttl);
    }

    /// Sets `key` to `value` in `keyspace`, which expires at `time`. See
    /// [`Kv::put_until`](crate::Kv::put_until).
    pub fn put_until(
        &mut self,
        keyspace: &Keyspace,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        time: SystemTime,
    ) {
        self.part(keyspace).put_until(key, value, time);
    }

    /// Merges `operand` into the value of `key` in `keyspace`. See
    /// [`Kv::merge`](crate::Kv::merge).
    pub fn merge(&mut self, keyspace: &Keyspace, key: impl AsRef<[u8]>, operand: impl AsRef<[u8]>) {
        self.part(keyspace).merge(key, operand);
    }

    /// Removes every key in `bounds` from `keyspace`. Empty or inverted bounds remove nothing.
    pub fn delete_range(&mut self, keyspace: &Keyspace, bounds: impl KeyBounds) {
        self.part(keyspace).delete_range(bounds);
    }

    /// Number of operations.
    pub fn len(&self) -> usize {
        self.parts.iter().map(|(_, batch)| batch.len()).sum()
    }

    /// True if there are no operations.
    pub fn is_empty(&self) -> bool {
        self.parts.iter().all(|(_, batch)| batch.is_empty())
    }

    /// Encoded length, in bytes.
    pub fn len_bytes(&self) -> usize {
        self.parts.iter().map(|(_, batch)| batch.len_bytes()).sum()
    }

    fn part(&mut self, keyspace: &Keyspace) -> &mut Batch {
        // Batches touch few keyspaces, and mostly the same one again.
        let same = |(other, _): &(Keyspace, Batch)| Arc::ptr_eq(other.open(), keyspace.open());
        let at = self.parts.iter().rposition(same).unwrap_or_else(|| {
            self.parts.push((keyspace.clone(), Batch::new()));
            self.parts.len() - 1
        });
        &mut self.parts[at].1
    }

    /// The parts, if all keyspaces belong to `store`.
    pub(crate) fn into_parts(self, store: &Arc<Store>) -> Result<Vec<(Arc<OpenKeyspace>, Batch)>> {
        let part = |(keyspace, batch): (Keyspace, Batch)| {
            if !Arc::ptr_eq(keyspace.store(), store) {
                return Err(Error::invalid(format!(
                    "keyspace {:?} belongs to another store",
                    keyspace.name()
                )));
            }
            Ok((Arc::clone(keyspace.open()), batch))
        };
        self.parts.into_iter().map(part).collect()
    }
}
