//! A keyspace as a transaction sees it.

use std::ops::RangeBounds;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::own_writes::{Own, OwnWrites};
use super::state::State;
use super::view::transaction_view;
use super::write_set::WriteSet;
use crate::db::keyspace::Keyspace;
use crate::db::keyspace_snapshot::KeyspaceSnapshot;
use crate::engine::{Laid, Overlay, Piece};
use crate::error::Result;
use crate::kv::{
    Batch, Expiry, KvRead, Readable, Scan, ValueReader, inherent_reads, part_of_value,
    transaction_of_inherent,
};
use crate::types::{KeyBounds, KeyRange, Op, Value};
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
        self.put_expiring(key.as_ref(), value.as_ref(), None)
    }

    /// Sets `key` to `value`, which expires `ttl` after the commit; until then the transaction sees
    /// it. See [`Kv::put_with_ttl`](crate::Kv::put_with_ttl).
    pub fn put_with_ttl(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        ttl: Duration,
    ) -> Result<()> {
        let expiry = Expiry::after(ttl);
        self.put_expiring(key.as_ref(), value.as_ref(), Some(expiry))
    }

    /// Sets `key` to `value`, which expires at `time`; until the commit the transaction sees it.
    /// See [`Kv::put_until`](crate::Kv::put_until).
    pub fn put_until(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        time: SystemTime,
    ) -> Result<()> {
        let expiry = Expiry::at(time);
        self.put_expiring(key.as_ref(), value.as_ref(), Some(expiry))
    }

    /// Merges `operand` into the value of `key`. See
    /// [`Transaction::merge`](crate::Transaction::merge).
    pub fn merge(&self, key: impl AsRef<[u8]>, operand: impl AsRef<[u8]>) -> Result<()> {
        let (key, operand) = (key.as_ref(), operand.as_ref());
        self.state.check_writes(self.keyspace)?;
        let open = self.keyspace.open();
        open.with_stored_form(|form| form.check(&Op::Merge { key, operand }))?;
        loop {
            let own = self.state.writes.lock().own(open.id);
            let merged = WriteSet::merged(open, own.as_deref(), key, operand)?;
            let mut writes = self.state.writes.lock();
            if writes.is_still(open.id, own.as_ref()) {
                drop(own);
                return writes.merge(open, key, operand, merged);
            }
            // Another thread has written meanwhile.
        }
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
        let open = self.keyspace.open();
        let mut one = Batch::new();
        put(&mut one);
        open.with_stored_form(|form| one.iter().try_for_each(|op| form.check(&op)))?;
        self.state.writes.lock().put_stamped(open, &one)
    }

    /// Removes `key`, which may be absent. See [`Transaction::delete`](crate::Transaction::delete).
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Result<()> {
        self.write(key.as_ref(), Own::Deleted)
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
        self.own(key)?.or_below(|| self.snapshot.get(key))
    }

    fn put_expiring(&self, key: &[u8], value: &[u8], expiry: Option<Expiry>) -> Result<()> {
        let open = self.keyspace.open();
        open.with_stored_form(|form| {
            expiry.map_or(Ok(()), |expiry| form.check_expiry(expiry))?;
            form.check(&Op::Put { key, value })
        })?;
        self.write(key, Own::Put(Value::copy_from(value), expiry))
    }

    fn write(&self, key: &[u8], own: Own) -> Result<()> {
        self.state.check_writes(self.keyspace)?;
        let mut writes = self.state.writes.lock();
        writes.write(self.keyspace.open(), key, own)
    }

    /// What the transaction has done to a key. What it has merged into one is the value that makes.
    fn own(&self, key: &[u8]) -> Result<Laid<Value>> {
        self.check_reads()?;
        let id = self.keyspace.open().id;
        let writes = self.state.writes.lock();
        match writes.get(id, key) {
            Laid::Merged => {
                let own = writes.own(id).expect("it has operands");
                drop(writes);
                self.merged(&own, key).map(Laid::Put)
            }
            laid => Ok(laid),
        }
    }

    /// An error if it may not read here. Own writes are known by the number of their keyspace,
    /// which one of another store may have as well: so this comes before they are looked at.
    #[inline]
    fn check_reads(&self) -> Result<()> {
        match mutated!("own-writes-read-through-another-store") {
            true => Ok(()),
            false => self.snapshot.check(),
        }
    }

    /// The value of a key that has operands in `own`: it depends on what the store has.
    #[cold]
    fn merged(&self, own: &OwnWrites, key: &[u8]) -> Result<Value> {
        let below = self.snapshot.get(key)?;
        self.note(key, below.is_some());
        Ok(own.merge(key, below.as_deref()).into())
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

transaction_of_inherent!(TransactionKeyspace<'_>);

impl KvRead for TransactionKeyspace<'_> {
    fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Value>> {
        let key = key.as_ref();
        match self.own(key)? {
            Laid::Nothing | Laid::Merged => {}
            Laid::Put(value) => return Ok(Some(value)),
            Laid::Deleted => return Ok(None),
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
        match self.own(key)? {
            Laid::Nothing | Laid::Merged => {}
            Laid::Put(value) => return Ok(Some(read(&value))),
            Laid::Deleted => return Ok(None),
        }
        // Before it is lent: what was seen was read, though the closure panics.
        let lend = |value: &[u8]| {
            self.note(key, true);
            read(value)
        };
        let found = self.snapshot.get_with(key, lend)?;
        if found.is_none() {
            self.note(key, false);
        }
        Ok(found)
    }

    fn get_range(
        &self,
        key: impl AsRef<[u8]>,
        part: impl RangeBounds<usize>,
    ) -> Result<Option<Value>> {
        let key = key.as_ref();
        let copy = |value: &Value| Value::copy_part(value, &part_of_value(&part));
        match self.own(key)? {
            Laid::Nothing | Laid::Merged => {}
            Laid::Put(value) => return Ok(Some(copy(&value))),
            Laid::Deleted => return Ok(None),
        }
        let found = self.snapshot.get_range(key, part)?;
        self.note(key, found.is_some());
        Ok(found)
    }

    fn reader(&self, key: impl AsRef<[u8]>) -> Result<Option<ValueReader>> {
        let key = key.as_ref();
        match self.own(key)? {
            Laid::Nothing | Laid::Merged => {}
            Laid::Put(value) => return Ok(Some(ValueReader::of(value))),
            Laid::Deleted => return Ok(None),
        }
        let found = self.snapshot.reader(key)?;
        self.note(key, found.is_some());
        Ok(found)
    }

    fn contains_key(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        let key = key.as_ref();
        self.check_reads()?;
        let laid = {
            let writes = self.state.writes.lock();
            writes.get(self.keyspace.open().id, key)
        };
        match laid {
            Laid::Nothing => {}
            // A merge makes a value in any case.
            Laid::Put(_) | Laid::Merged => return Ok(true),
            Laid::Deleted => return Ok(false),
        }
        let found = self.snapshot.contains_key(key)?;
        self.note(key, found);
        Ok(found)
    }

    fn multi_get<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<Vec<Option<Value>>> {
        let mut values = self.snapshot.multi_get(keys)?;
        let own = self.state.writes.lock().own(self.keyspace.open().id);
        for (key, value) in keys.iter().map(AsRef::as_ref).zip(&mut values) {
            match own.as_ref().map_or(Laid::Nothing, |own| own.get(key)) {
                Laid::Put(own) => *value = Some(own.clone()),
                Laid::Deleted => *value = None,
                Laid::Nothing => self.note(key, value.is_some()),
                Laid::Merged => {
                    self.note(key, value.is_some());
                    let own = own.as_ref().expect("it has operands");
                    *value = Some(own.merge(key, value.as_deref()).into());
                }
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
