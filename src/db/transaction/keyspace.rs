//! A keyspace as a transaction sees it.

use std::ops::RangeBounds;
use std::sync::Arc;

use super::state::State;
use super::view::transaction_view;
use crate::db::keyspace::Keyspace;
use crate::db::keyspace_snapshot::KeyspaceSnapshot;
use crate::engine::Piece;
use crate::error::Result;
use crate::kv::{
    Batch, KvRead, KvTransaction, Readable, Scan, ValueReader, inherent_reads, part_of_value,
};
use crate::types::{KeyBounds, KeyRange, Value};
use crate::util::mutants::mutated;

/// A keyspace as a [`Transaction`](crate::Transaction) sees it: [`KvRead`] of the moment at which
/// that began, with what it has written itself.
///
/// Made by [`Transaction::keyspace`](crate::Transaction::keyspace), or by
/// [`Transaction::untracked`](crate::Transaction::untracked), whose reads the commit does not
/// depend on. [`size_of_range`](KvRead::size_of_range) and [`split_points`](KvRead::split_points)
/// are estimates, know nothing of what the transaction has written, and are not tracked.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let db = hedgerow::Db::open(dir.path().join("my.db"))?;
/// use hedgerow::{EngineKind, KvRead, Result};
///
/// /// For any keyspace, snapshot or transaction.
/// fn longest(kv: &impl KvRead) -> Result<usize> {
///     let mut longest = 0;
///     for value in kv.values() {
///         longest = longest.max(value?.len());
///     }
///     Ok(longest)
/// }
///
/// let notes = db.keyspace("notes", EngineKind::BTree)?;
/// let tx = db.transaction()?;
/// let of_tx = tx.keyspace(&notes);
/// of_tx.put("monday", "rain")?;
/// of_tx.put("tuesday", "sunshine")?;
/// of_tx.delete("monday")?;
/// assert_eq!(of_tx.get_for_update("monday")?, None);
/// assert_eq!(longest(&of_tx)?, 8);
/// of_tx.delete_range("a"..)?;
/// assert!(of_tx.is_empty()? && longest(&notes)? == 0);
/// tx.rollback();
/// # Ok::<(), hedgerow::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct TransactionKeyspace<'a> {
    state: &'a State,
    keyspace: &'a Keyspace,
    snapshot: KeyspaceSnapshot,
    is_tracked: bool,
}

impl<'a> TransactionKeyspace<'a> {
    pub(super) fn new(state: &'a State, keyspace: &'a Keyspace, is_tracked: bool) -> Self {
        Self {
            state,
            keyspace,
            snapshot: state.snapshot(keyspace),
            is_tracked,
        }
    }

    /// Sets `key` to `value`. See [`Transaction::put`](crate::Transaction::put).
    pub fn put(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        self.write(key.as_ref(), Some(value.as_ref()))
    }

    /// Sets a key with the number of the commit in it. See
    /// [`Transaction::put_versionstamped_key`](crate::Transaction::put_versionstamped_key).
    pub fn put_versionstamped_key(
        &self,
        prefix: impl AsRef<[u8]>,
        suffix: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
    ) -> Result<()> {
        self.put_stamped(|batch| batch.put_versionstamped_key(prefix, suffix, value))
    }

    /// Sets `key` to a value with the number of the commit in it. See
    /// [`Transaction::put_versionstamped_key`](crate::Transaction::put_versionstamped_key).
    pub fn put_versionstamped_value(
        &self,
        key: impl AsRef<[u8]>,
        prefix: impl AsRef<[u8]>,
        suffix: impl AsRef<[u8]>,
    ) -> Result<()> {
        self.put_stamped(|batch| batch.put_versionstamped_value(key, prefix, suffix))
    }

    fn put_stamped(&self, put: impl FnOnce(&mut Batch)) -> Result<()> {
        self.state.check_writes(self.keyspace)?;
        let mut writes = self.state.writes.lock();
        writes.put_stamped(self.keyspace.open(), put)
    }

    /// Removes `key`, which may be absent. See [`Transaction::delete`](crate::Transaction::delete).
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Result<()> {
        self.write(key.as_ref(), None)
    }

    /// Removes every key in `bounds`. See
    /// [`Transaction::delete_range`](crate::Transaction::delete_range).
    pub fn delete_range(&self, bounds: impl KeyBounds) -> Result<()> {
        self.state.check_writes(self.keyspace)?;
        let range = KeyRange::new(&bounds);
        self.state.writes.lock().remove(self.keyspace.open(), range)
    }

    /// The value of `key`, on which the commit depends from now on, whatever the isolation. See
    /// [`Transaction::get_for_update`](crate::Transaction::get_for_update).
    pub fn get_for_update(&self, key: impl AsRef<[u8]>) -> Result<Option<Value>> {
        let key = key.as_ref();
        self.state.check_writes(self.keyspace)?;
        self.state.reads.note_key(self.keyspace.open().id, key);
        match self.own(key) {
            Some(own) => Ok(own),
            None => self.snapshot.get(key),
        }
    }

    fn write(&self, key: &[u8], value: Option<&[u8]>) -> Result<()> {
        self.state.check_writes(self.keyspace)?;
        let mut writes = self.state.writes.lock();
        writes.write(self.keyspace.open(), key, value)
    }

    /// What the transaction has done to a key: nothing, or its value now.
    fn own(&self, key: &[u8]) -> Option<Option<Value>> {
        let writes = self.state.writes.lock();
        writes.get(self.keyspace.open().id, key)
    }

    /// The commit depends on what the store has of `key`, if reads are tracked.
    fn note(&self, key: &[u8], is_there: bool) {
        if self.is_tracked && (is_there || !mutated!("absent-key-not-tracked")) {
            self.state.reads.note_key(self.keyspace.open().id, key);
        }
    }

    fn scan(&self, range: KeyRange) -> Scan {
        let id = self.keyspace.open().id;
        let own = self.state.writes.lock().own(id);
        if own.is_none() && !self.is_tracked {
            return self.snapshot.scan(range);
        }
        let reads = self.is_tracked.then(|| (Arc::clone(&self.state.reads), id));
        self.snapshot
            .scan_with(range, |base| transaction_view(base, own, reads))
    }
}

inherent_reads!(TransactionKeyspace<'_>);

impl Readable for TransactionKeyspace<'_> {
    fn pieces(&self, range: &KeyRange, at_least: usize) -> Result<Vec<Piece>> {
        self.snapshot.pieces(range, at_least)
    }
}

impl KvTransaction for TransactionKeyspace<'_> {
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

impl KvRead for TransactionKeyspace<'_> {
    fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Value>> {
        let key = key.as_ref();
        if let Some(own) = self.own(key) {
            return Ok(own);
        }
        let value = self.snapshot.get(key)?;
        self.note(key, value.is_some());
        Ok(value)
    }

    fn get_with<R>(
        &self,
        key: impl AsRef<[u8]>,
        read: impl FnOnce(&[u8]) -> R,
    ) -> Result<Option<R>> {
        let key = key.as_ref();
        if let Some(own) = self.own(key) {
            return Ok(own.map(|value| read(&value)));
        }
        let found = self.snapshot.get_with(key, read)?;
        self.note(key, found.is_some());
        Ok(found)
    }

    fn get_range(
        &self,
        key: impl AsRef<[u8]>,
        part: impl RangeBounds<usize>,
    ) -> Result<Option<Value>> {
        let key = key.as_ref();
        if let Some(own) = self.own(key) {
            let part = part_of_value(&part);
            return Ok(own.map(|value| Value::copy_part(&value, &part)));
        }
        let found = self.snapshot.get_range(key, part)?;
        self.note(key, found.is_some());
        Ok(found)
    }

    fn reader(&self, key: impl AsRef<[u8]>) -> Result<Option<ValueReader>> {
        let key = key.as_ref();
        if let Some(own) = self.own(key) {
            return Ok(own.map(ValueReader::of));
        }
        let found = self.snapshot.reader(key)?;
        self.note(key, found.is_some());
        Ok(found)
    }

    fn contains_key(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        let key = key.as_ref();
        if let Some(own) = self.own(key) {
            return Ok(own.is_some());
        }
        let found = self.snapshot.contains_key(key)?;
        self.note(key, found);
        Ok(found)
    }

    fn multi_get<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<Vec<Option<Value>>> {
        let mut values = self.snapshot.multi_get(keys)?;
        for (key, value) in keys.iter().map(AsRef::as_ref).zip(&mut values) {
            match self.own(key) {
                Some(own) => *value = own,
                None => self.note(key, value.is_some()),
            }
        }
        Ok(values)
    }

    fn range(&self, bounds: impl KeyBounds) -> Scan {
        self.scan(KeyRange::new(&bounds))
    }

    fn prefix(&self, prefix: impl AsRef<[u8]>) -> Scan {
        self.scan(KeyRange::prefix(prefix.as_ref()))
    }
}
