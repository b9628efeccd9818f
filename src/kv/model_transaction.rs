//! Transactions of the model.
//!
//! A transaction has a map of its own, a copy that it changes, and a list of what it has read, a
//! range for each step. While there is one the model keeps a list of what is written, as it does
//! for what reads, changes and writes back in one step. A commit holds the one list against the
//! other, whole. Nothing of it is shared with the transactions of a store
//! ([`db/transaction`](crate::db)), whose oracle it is.

use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::atomic::Watching;
use super::batch::Batch;
use super::inherent::inherent_reads;
use super::model::{Map, Model, ModelSnapshot, ModelWatch, apply_op, range_of};
use super::read::{KvRead, Readable};
use super::scan::Scan;
use super::transaction::transaction_of_inherent;
use crate::engine::{Cursor, Piece, ReadView};
use crate::error::{Error, Result};
use crate::types::{KeyBounds, KeyRange, MAX_BATCH_LEN_BYTES, Op, SeqNo, Value};

/// How often [`Model::transact`] runs a transaction at most.
const ATTEMPTS: u32 = 100;

/// What was read, a range for each step.
type Reads = Arc<Mutex<Vec<KeyRange>>>;

/// A transaction of a [`Model`]: serializable, like those of a store, and with the methods that
/// these have for a keyspace.
///
/// Made by [`Model::transaction`]; [`Model::transact`] runs a closure with one, again if there is a
/// conflict. Dropping it rolls it back. The commit fails with
/// [`Error::Conflict`], and writes nothing, if a key or a part of a range that it has read was
/// written by another commit since it began; what is written without being read conflicts with
/// nothing, and a transaction that has written nothing always commits.
///
/// It is made for tests: the first write copies the model, and what is read is never joined.
///
/// ```
/// use hedgerow::{Model, Result};
///
/// let model = Model::new();
/// model.put("on call/ada", "")?;
/// model.put("on call/bob", "")?;
/// let (ada, bob) = (model.transaction(), model.transaction());
/// for (tx, doctor) in [(&ada, "on call/ada"), (&bob, "on call/bob")] {
///     if tx.prefix("on call/").try_count()? > 1 {
///         tx.delete(doctor)?;
///     }
/// }
/// ada.commit()?;
/// assert!(bob.commit().unwrap_err().is_conflict());
///
/// let tx = model.transaction();
/// let began = tx.seq();
/// tx.put("key", "value")?;
/// let savepoint = tx.savepoint();
/// tx.delete_range(..)?;
/// assert!(tx.is_empty()? && tx.untracked().is_empty()?);
/// tx.rollback_to(savepoint)?;
/// assert_eq!(tx.get_for_update("key")?.unwrap(), "value");
/// tx.put_versionstamped_key("event/", "", "a hedge")?;
/// tx.put_versionstamped_value("last", "", "")?;
/// let seq = tx.commit()?;
/// assert!(seq > began);
/// assert_eq!(model.get("last")?.unwrap(), seq.0.to_be_bytes());
///
/// model.transaction().rollback();
/// # Ok::<(), hedgerow::Error>(())
/// ```
#[derive(Debug)]
pub struct ModelTransaction {
    watch: ModelWatch,
    /// In milliseconds since 1970.
    began_ms: u64,
    own: Mutex<Own>,
    reads: Reads,
}

/// A place in a [`ModelTransaction`] to which it can return; made by
/// [`ModelTransaction::savepoint`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModelSavepoint {
    transaction: u64,
    serial: u64,
}

/// What a transaction has done so far.
#[derive(Debug, Default)]
struct Own {
    now: Written,
    /// Serial numbers, rising, each with what there was.
    savepoints: Vec<(u64, Written)>,
    next_serial: u64,
    /// Which transaction of the model it is.
    number: u64,
}

#[derive(Debug, Clone, Default)]
struct Written {
    /// The map as the transaction sees it.
    map: Arc<Map>,
    /// The keys and ranges that it has written.
    ranges: Vec<KeyRange>,
    batch: Batch,
    /// What gets the number of the commit.
    stamped: Batch,
}

impl Written {
    fn check_growth(&self, more: &Batch) -> Result<()> {
        let bytes = self.batch.len_bytes() + self.stamped.len_bytes() + more.len_bytes();
        if bytes + 64 > MAX_BATCH_LEN_BYTES {
            return Err(Error::invalid(format!(
                "a transaction writes more than {MAX_BATCH_LEN_BYTES} bytes"
            )));
        }
        Ok(())
    }
}

impl Model {
    /// Begins a transaction.
    pub fn transaction(&self) -> ModelTransaction {
        let mut state = self.state.write();
        let number = state.number_transaction();
        let now = Written {
            map: Arc::clone(&state.map),
            ..Written::default()
        };
        ModelTransaction {
            watch: self.watch_from(&mut state),
            began_ms: self.resolver.now_ms(),
            own: Mutex::new(Own {
                now,
                number,
                ..Own::default()
            }),
            reads: Reads::default(),
        }
    }

    /// Runs `run` in a transaction and commits it; after a conflict again, 100 times at most. If
    /// `run` fails, nothing is written. As [`Db::transact`](crate::Db::transact).
    ///
    /// ```
    /// use hedgerow::{Error, Model};
    /// let model = Model::new();
    /// let count = model.transact(|tx| {
    ///     let count = tx.get("count")?.map_or(0, |bytes| bytes[0]) + 1;
    ///     tx.put("count", [count])?;
    ///     Ok::<_, Error>(count)
    /// })?;
    /// assert_eq!(count, 1);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn transact<T, E: From<Error>>(
        &self,
        mut run: impl FnMut(&ModelTransaction) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut attempts = 1;
        loop {
            let transaction = self.transaction();
            let value = run(&transaction)?;
            match transaction.commit() {
                Ok(_) => return Ok(value),
                Err(error) if error.is_conflict() && attempts < ATTEMPTS => {
                    attempts += 1;
                    std::thread::yield_now();
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl ModelTransaction {
    /// The moment that it reads.
    pub fn seq(&self) -> SeqNo {
        self.watch.since()
    }

    /// What it sees now, for reads on which the commit does not depend. What it writes later does
    /// not appear.
    pub fn untracked(&self) -> ModelSnapshot {
        self.seen(self.map())
    }

    /// The value of `key`, on which the commit does not depend.
    pub fn get_untracked(&self, key: impl AsRef<[u8]>) -> Result<Option<Value>> {
        self.untracked().get(key)
    }

    /// A place to which [`ModelTransaction::rollback_to`] returns.
    pub fn savepoint(&self) -> ModelSavepoint {
        let mut own = self.own.lock();
        let serial = own.next_serial;
        own.next_serial += 1;
        let now = own.now.clone();
        own.savepoints.push((serial, now));
        ModelSavepoint {
            transaction: own.number,
            serial,
        }
    }

    /// Takes back everything that was written after `savepoint`. It can be used again; savepoints
    /// made after it are gone. What was read meanwhile stays read.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] if the savepoint is gone, or of another transaction.
    pub fn rollback_to(&self, savepoint: ModelSavepoint) -> Result<()> {
        let mut own = self.own.lock();
        let is_it = |(serial, _): &(u64, _)| *serial == savepoint.serial;
        let at = own.savepoints.iter().position(is_it);
        let Some(at) = at.filter(|_| own.number == savepoint.transaction) else {
            return Err(Error::invalid(
                "the savepoint is gone, or is of another transaction",
            ));
        };
        own.savepoints.truncate(at + 1);
        own.now = own.savepoints[at].1.clone();
        Ok(())
    }

    /// Commits all writes, or none. Returns the number of the commit; of one that has written
    /// nothing, [`ModelTransaction::seq`].
    ///
    /// # Errors
    ///
    /// [`Error::Conflict`] if something that it has read was written since it began.
    pub fn commit(self) -> Result<SeqNo> {
        let Written {
            mut batch, stamped, ..
        } = self.own.into_inner().now;
        batch.append(&stamped);
        if batch.is_empty() {
            return Ok(self.watch.since());
        }
        let stored = self.watch.model.stored(&batch)?.unwrap_or(batch);
        let mut state = self.watch.model.state.write();
        let reads = self.reads.lock();
        let since = state.written_since(self.watch.since());
        let met = since.rev().find(|written| {
            let mut reads = reads.iter();
            reads.any(|read| overlap(read, written))
        });
        if let Some(written) = met {
            return Err(Error::Conflict {
                keyspace: "model".to_owned(),
                key: cfg!(debug_assertions).then(|| written.start.clone()),
            });
        }
        let resolver = &self.watch.model.resolver;
        let seq = state.commit(stored, resolver);
        drop(state);
        Ok(seq)
    }

    /// Ends the transaction without writing anything, as dropping it does.
    pub fn rollback(self) {}

    /// Sets `key` to `value`.
    pub fn put(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        self.write(|batch| batch.put(key, value))
    }

    /// Sets `key` to `value`, which expires `ttl` after the commit; until then the transaction sees
    /// it.
    pub fn put_with_ttl(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        ttl: Duration,
    ) -> Result<()> {
        self.write(|batch| batch.put_with_ttl(key, value, ttl))
    }

    /// Merges `operand` into the value of `key`, without reading it.
    pub fn merge(&self, key: impl AsRef<[u8]>, operand: impl AsRef<[u8]>) -> Result<()> {
        self.write(|batch| batch.merge(key, operand))
    }

    /// Removes `key`, which may be absent.
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Result<()> {
        self.write(|batch| batch.delete(key))
    }

    /// Removes every key in `bounds`. Empty or inverted bounds remove nothing.
    pub fn delete_range(&self, bounds: impl KeyBounds) -> Result<()> {
        self.write(|batch| batch.delete_range(bounds))
    }

    /// The value of `key`, on which the commit depends also if the transaction has written it.
    pub fn get_for_update(&self, key: impl AsRef<[u8]>) -> Result<Option<Value>> {
        let key = key.as_ref();
        self.reads.lock().push(KeyRange::one(key));
        Ok(self.seen(self.map()).visible(key).map(Value::copy_from))
    }

    /// Sets a key with the number of the commit in it: see
    /// [`Batch::put_versionstamped_key`](crate::Batch::put_versionstamped_key). It happens at the
    /// commit, after everything else, and reads of the transaction do not see it.
    pub fn put_versionstamped_key(
        &self,
        prefix: impl AsRef<[u8]>,
        suffix: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
    ) -> Result<()> {
        self.put_stamped(|batch| batch.put_versionstamped_key(prefix, suffix, value))
    }

    /// Sets `key` to a value with the number of the commit in it, likewise.
    pub fn put_versionstamped_value(
        &self,
        key: impl AsRef<[u8]>,
        prefix: impl AsRef<[u8]>,
        suffix: impl AsRef<[u8]>,
    ) -> Result<()> {
        self.put_stamped(|batch| batch.put_versionstamped_value(key, prefix, suffix))
    }

    fn put_stamped(&self, put: impl FnOnce(&mut Batch)) -> Result<()> {
        let mut one = Batch::new();
        put(&mut one);
        one.check()?;
        let mut own = self.own.lock();
        own.now.check_growth(&one)?;
        own.now.stamped.append(&one);
        Ok(())
    }

    fn write(&self, write: impl FnOnce(&mut Batch)) -> Result<()> {
        let mut one = Batch::new();
        write(&mut one);
        one.check()?;
        let mut own = self.own.lock();
        let now = &mut own.now;
        now.check_growth(&one)?;
        let model = &self.watch.model;
        let stored = model.stored(&one)?;
        for op in stored.as_ref().unwrap_or(&one).iter() {
            // What is merged into depends on what the model has: a read of it counts.
            if !matches!(op, Op::Merge { .. }) {
                now.ranges.push(range_of(&op));
            }
            apply_op(Arc::make_mut(&mut now.map), &op, &model.resolver);
        }
        now.batch.append(&one);
        Ok(())
    }

    /// What is seen of a map at the time of the transaction.
    fn seen(&self, map: Arc<Map>) -> ModelSnapshot {
        ModelSnapshot {
            map,
            resolver: Arc::clone(&self.watch.model.resolver),
            now_ms: self.began_ms,
        }
    }

    fn map(&self) -> Arc<Map> {
        Arc::clone(&self.own.lock().now.map)
    }

    /// The map as it is now. The commit depends on what the model has of `key`, unless the
    /// transaction has written that.
    fn seen_of(&self, key: &[u8]) -> ModelSnapshot {
        let own = self.own.lock();
        let one = KeyRange::one(key);
        if !own.now.ranges.iter().any(|written| overlap(written, &one)) {
            self.reads.lock().push(one);
        }
        self.seen(Arc::clone(&own.now.map))
    }

    fn scan(&self, range: KeyRange) -> Scan {
        let view = TrackedView {
            seen: self.seen(self.map()).view(),
            reads: Arc::clone(&self.reads),
        };
        Scan::new(Ok(Arc::new(view)), range)
    }
}

/// True if there can be a key that is in both.
fn overlap(a: &KeyRange, b: &KeyRange) -> bool {
    let begins_before_the_end =
        |a: &KeyRange, b: &KeyRange| b.end.as_ref().is_none_or(|end| a.start < *end);
    let is_empty = a.is_empty() || b.is_empty();
    !is_empty && begins_before_the_end(a, b) && begins_before_the_end(b, a)
}

inherent_reads!(ModelTransaction);

impl Readable for ModelTransaction {
    fn pieces(&self, range: &KeyRange, at_least: usize) -> Result<Vec<Piece>> {
        self.seen(self.map()).view().pieces(range, at_least)
    }
}

impl KvRead for ModelTransaction {
    fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Value>> {
        let key = key.as_ref();
        Ok(self.seen_of(key).visible(key).map(Value::copy_from))
    }

    fn get_with<R>(
        &self,
        key: impl AsRef<[u8]>,
        read: impl FnOnce(&[u8]) -> R,
    ) -> Result<Option<R>> {
        let key = key.as_ref();
        Ok(self.seen_of(key).visible(key).map(read))
    }

    fn multi_get<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<Vec<Option<Value>>> {
        keys.iter().map(|key| KvRead::get(self, key)).collect()
    }

    fn range(&self, bounds: impl KeyBounds) -> Scan {
        self.scan(KeyRange::new(&bounds))
    }

    fn prefix(&self, prefix: impl AsRef<[u8]>) -> Scan {
        self.scan(KeyRange::prefix(prefix.as_ref()))
    }
}

transaction_of_inherent!(ModelTransaction);

/// A view of which every step is noted.
#[derive(Debug)]
struct TrackedView {
    seen: Arc<dyn ReadView>,
    reads: Reads,
}

impl ReadView for TrackedView {
    fn get(&self, key: &[u8], read: &mut dyn FnMut(&[u8])) -> Result<bool> {
        self.reads.lock().push(KeyRange::one(key));
        self.seen.get(key, read)
    }

    fn pieces(self: Arc<Self>, range: &KeyRange, at_least: usize) -> Result<Vec<Piece>> {
        Arc::clone(&self.seen).pieces(range, at_least)
    }

    fn cursor(self: Arc<Self>) -> Box<dyn Cursor> {
        Box::new(TrackedCursor {
            cursor: Arc::clone(&self.seen).cursor(),
            within: KeyRange::new(&..),
            reads: Arc::clone(&self.reads),
        })
    }
}

/// Notes for each step what lies between where it began and the entry that it found; if it found
/// none in the range that is asked for, everything up to the end of that.
struct TrackedCursor {
    cursor: Box<dyn Cursor>,
    within: KeyRange,
    reads: Reads,
}

impl TrackedCursor {
    /// It looked for the first entry from `from` on.
    fn note(&self, from: Bound<&[u8]>) {
        let found = self.cursor.is_valid().then(|| self.cursor.key());
        let end = self.within.end.as_deref();
        let found = found.filter(|key| end.is_none_or(|end| *key < end));
        let start = KeyRange::new(&(from, Bound::Unbounded)).start;
        let end = match found {
            Some(key) => KeyRange::one(key).end,
            None => self.within.end.clone(),
        };
        self.reads.lock().push(KeyRange {
            start: start.max(self.within.start.clone()),
            end,
        });
    }

    /// It looked for the last entry below `upto`.
    fn note_back(&self, upto: Option<&[u8]>) {
        let found = self.cursor.is_valid().then(|| self.cursor.key());
        let found = found.filter(|key| *key >= self.within.start.as_slice());
        let end = match (upto, self.within.end.as_deref()) {
            (Some(upto), Some(end)) => Some(upto.min(end)),
            (upto, end) => upto.or(end),
        };
        self.reads.lock().push(KeyRange {
            start: found.unwrap_or(&self.within.start).to_vec(),
            end: end.map(<[u8]>::to_vec),
        });
    }
}

impl Cursor for TrackedCursor {
    fn keep_within(&mut self, range: &KeyRange) {
        self.within = range.clone();
    }

    fn seek_first(&mut self) -> Result<()> {
        self.cursor.seek_first()?;
        self.note(Bound::Unbounded);
        Ok(())
    }

    fn seek_last(&mut self) -> Result<()> {
        self.cursor.seek_last()?;
        self.note_back(None);
        Ok(())
    }

    fn seek(&mut self, key: &[u8]) -> Result<()> {
        self.cursor.seek(key)?;
        self.note(Bound::Included(key));
        Ok(())
    }

    fn seek_before(&mut self, key: &[u8]) -> Result<()> {
        self.cursor.seek_before(key)?;
        self.note_back(Some(key));
        Ok(())
    }

    fn next(&mut self) -> Result<()> {
        let from = self.cursor.key().to_vec();
        self.cursor.next()?;
        self.note(Bound::Excluded(&from));
        Ok(())
    }

    fn prev(&mut self) -> Result<()> {
        let from = self.cursor.key().to_vec();
        self.cursor.prev()?;
        self.note_back(Some(&from));
        Ok(())
    }

    fn is_valid(&self) -> bool {
        self.cursor.is_valid()
    }

    fn key(&self) -> &[u8] {
        self.cursor.key()
    }

    fn entry(&mut self) -> Result<(&[u8], &[u8])> {
        self.cursor.entry()
    }
}
