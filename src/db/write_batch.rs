//! Batches over several keyspaces.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::keyspace::Keyspace;
use crate::error::{Error, Result};
use crate::kv::Batch;
use crate::store::{OpenKeyspace, Store};
use crate::types::KeyBounds;
use crate::util::keyed_list::KeyedList;

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
    /// One part for each keyspace, in the order of their first use. The key is the address of what
    /// is open: keyspaces of different stores have the same numbers. The part keeps it alive.
    parts: KeyedList<usize, (Keyspace, Batch)>,
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
        self.batches().map(Batch::len).sum()
    }

    /// True if there are no operations.
    pub fn is_empty(&self) -> bool {
        self.batches().all(Batch::is_empty)
    }

    /// Encoded length, in bytes.
    pub fn len_bytes(&self) -> usize {
        self.batches().map(Batch::len_bytes).sum()
    }

    fn batches(&self) -> impl Iterator<Item = &Batch> {
        self.parts.values().map(|(_, batch)| batch)
    }

    fn part(&mut self, keyspace: &Keyspace) -> &mut Batch {
        let address = Arc::as_ptr(keyspace.open()).addr();
        let new = || (keyspace.clone(), Batch::new());
        let at = self.parts.place_or_add(address, new);
        &mut self.parts.at_mut(at).1
    }

    /// The parts, if all keyspaces belong to `store`.
    pub(crate) fn into_parts(self, store: &Arc<Store>) -> Result<Vec<(Arc<OpenKeyspace>, Batch)>> {
        let part = |(_, (keyspace, batch)): (usize, (Keyspace, Batch))| {
            if !Arc::ptr_eq(keyspace.store(), store) {
                return Err(Error::invalid(format!(
                    "keyspace {:?} belongs to another store",
                    keyspace.name()
                )));
            }
            Ok((Arc::clone(keyspace.open()), batch))
        };
        self.parts.into_entries().into_iter().map(part).collect()
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::fs::SimFs;
    use crate::options::{Durability, EngineKind, Options};
    use crate::testing::comparisons_of;

    /// Each operation looked through the keyspaces of the batch.
    #[test]
    fn a_batch_over_many_keyspaces_finds_each_with_few_comparisons() {
        const COUNT: usize = 200;
        let options = Options::new().fs(Arc::new(SimFs::new()));
        let db = options.open(Path::new("/store")).unwrap();
        let keyspace = |n: usize| db.keyspace(&n.to_string(), EngineKind::Lsm).unwrap();
        let keyspaces: Vec<_> = (0..COUNT).map(keyspace).collect();
        let mut batch = db.batch();
        let compared = comparisons_of(|| {
            for round in [b"1", b"2"] {
                for keyspace in &keyspaces {
                    batch.put(keyspace, "key", round);
                }
            }
        });
        assert!((COUNT..8 * COUNT).contains(&compared), "{compared}");
        assert_eq!(batch.len(), 2 * COUNT);
        let parts = batch.clone().into_parts(&db.store).unwrap();
        let ids = parts.iter().map(|(open, _)| open.id);
        assert!(ids.eq(keyspaces.iter().map(|keyspace| keyspace.open().id)));
        assert!(parts.iter().all(|(_, batch)| batch.len() == 2));
        db.write(batch, Durability::Buffered).unwrap();
        for keyspace in &keyspaces {
            assert_eq!(keyspace.get("key").unwrap().unwrap(), b"2");
        }
    }
}
