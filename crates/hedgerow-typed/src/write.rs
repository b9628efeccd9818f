//! Writing to a table.

use std::borrow::Borrow;
use std::ops::Bound;

use hedgerow::{Transaction, Value};

use crate::bounds::Bounds;
use crate::codec::Codec;
use crate::error::Result;
use crate::key::{AsKey, Key, encoded};
use crate::source::{ByteBounds, Sink};
use crate::table::Table;
use crate::upkeep::NewRow;

/// Rows that [`Table::retain`] looks at between two commits.
const RETAIN_ROWS: usize = 1000;
/// Bytes of them, likewise.
const RETAIN_BYTES: usize = 1 << 20;

/// Writing. Within a transaction a call is a part of it; otherwise it is a commit of its own, which
/// returns when it has the durability of the handle.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let db = hedgerow::Db::open(dir.path().join("my.db"))?;
/// use hedgerow_typed::TableDefinition;
///
/// let stock = TableDefinition::<String, u32>::new("stock").open(&db)?;
/// stock.put("hedge", &1)?;
/// assert_eq!(stock.insert("hedge", &2)?, Some(1));
/// assert_eq!(stock.insert_if_absent("hedge", &9)?, Err(2));
/// assert!(stock.insert_if_absent("rake", &4)?.is_ok());
///
/// let left = stock.update("rake", |count| {
///     *count = count.and_then(|count| count.checked_sub(1));
///     *count
/// })?;
/// assert_eq!(left, Some(3));
/// assert_eq!(stock.compare_and_swap("rake", Some(&4), None)?, Err(Some(3)));
/// assert!(stock.compare_and_swap("rake", Some(&3), None)?.is_ok());
///
/// assert_eq!(stock.remove("hedge")?, Some(2));
/// stock.delete("hedge")?;
/// stock.extend([("a", &1), ("b", &2), ("c", &3), ("d", &4), ("e", &5)])?;
/// assert_eq!(stock.pop_first()?, Some(("a".into(), 1)));
/// assert_eq!(stock.pop_last()?, Some(("e".into(), 5)));
/// assert_eq!(stock.retain(|_, count| count % 2 == 0)?, 1);
/// stock.remove_range("c"..)?;
/// assert_eq!(stock.len()?, 1);
/// stock.clear()?;
/// assert!(stock.is_empty()?);
/// # Ok::<(), hedgerow_typed::Error>(())
/// ```
impl<K: Key, V: ?Sized, C: Codec<V>, S: Sink> Table<K, V, C, S> {
    /// Runs `run` in a transaction that depends on the table being as it was opened.
    fn transact<T>(&self, mut run: impl FnMut(&Transaction) -> Result<T>) -> Result<T> {
        let core = &self.core;
        self.source
            .transact(&core.keyspaces, core.durability, |tx| {
                core.check(tx)?;
                run(tx)
            })
    }

    /// Sets the row of `key` to `new`, or removes it, without returning the old value.
    fn write(&self, key: &[u8], new: Option<&NewRow>) -> Result<()> {
        self.transact(|tx| self.core.write(tx, key, new))
    }

    /// The same with the old value, which is decoded first: what cannot be returned stays.
    fn replace(&self, key: &[u8], new: Option<&NewRow>) -> Result<Option<C::Owned>> {
        self.transact(|tx| {
            let old = tx.get(&self.core.data, key)?;
            let value = match &old {
                Some(bytes) => Some(self.core.value(key, bytes)?),
                None => None,
            };
            self.core.replace(tx, key, old.as_deref(), new)?;
            Ok(value)
        })
    }

    /// Sets the value of `key`. Does not read the old one unless there are indexes;
    /// [`Table::insert`] returns it.
    ///
    /// # Errors
    ///
    /// [`Error::NotUnique`](crate::Error::NotUnique),
    /// [`Error::KeyTooLong`](crate::Error::KeyTooLong),
    /// [`Error::TableChanged`](crate::Error::TableChanged), [`Error::Value`](crate::Error::Value)
    /// if a value cannot be encoded or decoded, and those of the store. Nothing was written then.
    /// So it is with all methods that write.
    pub fn put(&self, key: impl AsKey<K>, value: &V) -> Result<()> {
        let key = encoded(key);
        let row = self.core.prepare(&key, value)?;
        self.write(&key, Some(&row))
    }

    /// Sets the value of `key`, and returns the old one.
    pub fn insert(&self, key: impl AsKey<K>, value: &V) -> Result<Option<C::Owned>> {
        let key = encoded(key);
        let row = self.core.prepare(&key, value)?;
        self.replace(&key, Some(&row))
    }

    /// Sets the value of `key` if it has none. Otherwise nothing is written, and the inner error is
    /// the value that is there.
    pub fn insert_if_absent(&self, key: impl AsKey<K>, value: &V) -> Result<Result<(), C::Owned>> {
        let swapped = self.compare_and_swap(key, None, Some(value))?;
        Ok(swapped.or_else(|current| current.map_or(Ok(()), Err)))
    }

    /// Removes the row of `key`, which may be absent. Does not read unless there are indexes;
    /// [`Table::remove`] returns the value.
    pub fn delete(&self, key: impl AsKey<K>) -> Result<()> {
        self.write(&encoded(key), None)
    }

    /// Removes the row of `key`, and returns its value.
    pub fn remove(&self, key: impl AsKey<K>) -> Result<Option<C::Owned>> {
        self.replace(&encoded(key), None)
    }

    /// Replaces the value of `key` by what `change` makes of it, `None` being no row, and returns
    /// what it returns. It may be called again, after a conflict, with the value that is there
    /// then; so it should have no other effect. A value with the same bytes is not written.
    pub fn update<T>(
        &self,
        key: impl AsKey<K>,
        mut change: impl FnMut(&mut Option<C::Owned>) -> T,
    ) -> Result<T> {
        let key = encoded(key);
        self.transact(|tx| {
            let old = tx.get(&self.core.data, &key)?;
            let mut value = match &old {
                Some(bytes) => Some(self.core.value(&key, bytes)?),
                None => None,
            };
            let result = change(&mut value);
            let new = match &value {
                Some(value) => Some(self.core.prepare(&key, value.borrow())?),
                None => None,
            };
            if old.as_deref() != new.as_ref().map(|row| row.value.as_slice()) {
                self.core.replace(tx, &key, old.as_deref(), new.as_ref())?;
            }
            Ok(result)
        })
    }

    /// Sets the value of `key` to `new` if it is `expected`, as bytes; `None` is no row on either
    /// side. Otherwise nothing is written, and the inner error is what is there.
    pub fn compare_and_swap(
        &self,
        key: impl AsKey<K>,
        expected: Option<&V>,
        new: Option<&V>,
    ) -> Result<Result<(), Option<C::Owned>>> {
        let key = encoded(key);
        let expected = match expected {
            Some(value) => Some(self.core.encode(&key, value)?),
            None => None,
        };
        let new = match new {
            Some(value) => Some(self.core.prepare(&key, value)?),
            None => None,
        };
        let found = self.transact(|tx| {
            let old = tx.get(&self.core.data, &key)?;
            if old.as_deref() != expected.as_deref() {
                return Ok(Err(old));
            }
            self.core.replace(tx, &key, old.as_deref(), new.as_ref())?;
            Ok(Ok(()))
        })?;
        match found {
            Ok(()) => Ok(Ok(())),
            Err(None) => Ok(Err(None)),
            Err(Some(bytes)) => Ok(Err(Some(self.core.value(&key, &bytes)?))),
        }
    }

    /// Sets the values of several keys in one commit; of a key that is there twice, the last one
    /// counts.
    pub fn extend<'a, Q: AsKey<K>>(&self, rows: impl IntoIterator<Item = (Q, &'a V)>) -> Result<()>
    where
        V: 'a,
    {
        let rows = rows.into_iter().map(|(key, value)| {
            let key = encoded(key);
            let row = self.core.prepare(&key, value)?;
            Ok((key, row))
        });
        let rows: Vec<_> = rows.collect::<Result<_>>()?;
        self.transact(|tx| {
            for (key, row) in &rows {
                self.core.write(tx, key, Some(row))?;
            }
            Ok(())
        })
    }

    /// Removes the row with the lowest key and returns it: two threads never get the same one.
    pub fn pop_first(&self) -> Result<Option<(K, C::Owned)>> {
        self.pop(|tx| tx.iter(&self.core.data).next().transpose())
    }

    /// Removes the row with the highest key and returns it.
    pub fn pop_last(&self) -> Result<Option<(K, C::Owned)>> {
        self.pop(|tx| tx.iter(&self.core.data).next_back().transpose())
    }

    fn pop(
        &self,
        end: impl Fn(&Transaction) -> hedgerow::Result<Option<(Value, Value)>>,
    ) -> Result<Option<(K, C::Owned)>> {
        self.transact(|tx| {
            let Some((key, value)) = end(tx)? else {
                return Ok(None);
            };
            // Decoded first: a row that cannot be read stays.
            let row = (self.core.key(&key)?, self.core.value(&key, &value)?);
            self.core.replace(tx, &key, Some(&value), None)?;
            Ok(Some(row))
        })
    }

    /// Removes every row with a key in `bounds`, in one commit. Without indexes that costs as much
    /// as one row; with them every row is read.
    pub fn remove_range(&self, bounds: impl Bounds<K>) -> Result<()> {
        let bounds = bounds.encode();
        self.transact(|tx| {
            if self.core.indexes.is_empty() {
                return Ok(tx.delete_range(&self.core.data, bounds.clone())?);
            }
            // Row by row: rows that others add meanwhile stay, as their entries do.
            for entry in tx.range(&self.core.data, bounds.clone()) {
                let (key, value) = entry?;
                self.core.replace(tx, &key, Some(&value), None)?;
            }
            Ok(())
        })
    }

    /// Removes all rows, in one commit, at the cost of one.
    pub fn clear(&self) -> Result<()> {
        self.transact(|tx| {
            tx.delete_range(&self.core.data, ..)?;
            for index in &self.core.indexes {
                tx.delete_range(&index.keyspace, ..)?;
            }
            Ok(())
        })
    }

    /// Removes every row for which `keep` returns false; returns how many.
    ///
    /// Within a transaction that is a part of it. Otherwise rows are looked at in their order, some
    /// hundred in a commit: each is atomic, the whole is not. `keep` may be called again for a row,
    /// after a conflict. After an error, what was removed stays removed.
    pub fn retain(&self, keep: impl FnMut(&K, &V) -> bool) -> Result<u64> {
        self.retain_in(.., keep)
    }

    /// The same for the rows with keys in `bounds`; the others stay.
    pub fn retain_in(
        &self,
        bounds: impl Bounds<K>,
        mut keep: impl FnMut(&K, &V) -> bool,
    ) -> Result<u64> {
        let mut bounds = bounds.encode();
        let mut removed = 0;
        loop {
            let (count, last) = self.transact(|tx| self.retain_some(tx, &bounds, &mut keep))?;
            removed += count;
            let Some(last) = last else {
                return Ok(removed);
            };
            bounds.0 = Bound::Excluded(last);
        }
    }

    /// Looks at the first rows in `bounds`. Returns how many it has removed, and the last key that
    /// it has seen if there may be more.
    fn retain_some(
        &self,
        tx: &Transaction,
        bounds: &ByteBounds,
        keep: &mut impl FnMut(&K, &V) -> bool,
    ) -> Result<(u64, Option<Vec<u8>>)> {
        let (mut rows, mut bytes, mut removed) = (0, 0, 0);
        for entry in tx.range(&self.core.data, bounds.clone()) {
            let (key, value) = entry?;
            let decoded = self.core.value(&key, &value)?;
            if !keep(&self.core.key(&key)?, decoded.borrow()) {
                self.core.replace(tx, &key, Some(&value), None)?;
                removed += 1;
            }
            rows += 1;
            bytes += key.len() + value.len();
            if rows >= RETAIN_ROWS || bytes >= RETAIN_BYTES {
                return Ok((removed, Some(key.to_vec())));
            }
        }
        Ok((removed, None))
    }
}
