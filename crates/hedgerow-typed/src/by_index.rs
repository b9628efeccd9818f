//! Reading a table by an index.

use std::borrow::Borrow;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Bound;
use std::sync::Arc;

use hedgerow::{Db, MAX_KEY_LEN_BYTES, Scan};

use crate::bounds::{Bounds, prefix_end};
use crate::codec::{Codec, Postcard};
use crate::core::{Core, IndexPart};
use crate::error::{Error, Result};
use crate::index::Index;
use crate::key::{AsKey, AsPrefix, Delimited, Key, KeyDecoder, KeyError, encoded};
use crate::source::{ByteBounds, Moment, Reader, Source};
use crate::table::Table;

/// A table as one of its indexes shows it. Made by [`Table::by`].
///
/// What is read is of one moment: rows and index agree. Of the store as it is, each call but
/// [`ByIndex::get`] takes a snapshot for that; for many calls take one yourself ([`Table::at`]), or
/// use a transaction.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let db = hedgerow::Db::open(dir.path().join("my.db"))?;
/// use hedgerow_typed::{Index, TableDefinition};
///
/// // The value is a name and a country.
/// type City = (String, String);
/// let by_name = Index::unique("by name", |_: &u64, city: &City| [city.0.clone()]);
/// let by_country = Index::new("by country", |_: &u64, city: &City| [city.1.clone()]);
/// let cities = TableDefinition::<u64, City>::new("cities")
///     .index(&by_name)
///     .index(&by_country)
///     .open(&db)?;
/// for (id, name, country) in [(1, "Ulm", "DE"), (2, "Oslo", "NO"), (3, "Bonn", "DE")] {
///     cities.put(id, &(name.into(), country.into()))?;
/// }
/// let taken = cities.put(4, &("Ulm".into(), "US".into())).unwrap_err();
/// assert!(taken.is_not_unique());
///
/// let names = cities.by(&by_name)?;
/// assert_eq!(names.get("Oslo")?.unwrap().0, 2);
/// assert!(names.contains("Ulm")? && !names.contains("Rome")?);
/// assert_eq!(names.range("B".."P").count(), 2);
/// let countries = cities.by(&by_country)?;
/// assert_eq!(countries.get_all("DE").count(), 2);
/// assert_eq!(countries.get("NO")?.unwrap().0, 2);
/// assert_eq!(countries.keys(..).map(|key| key.unwrap().1).collect::<Vec<_>>(), [1, 3, 2]);
/// assert_eq!(countries.prefix(hedgerow_typed::StartsWith("D")).rev().next().unwrap()?.1, 3);
/// assert_eq!(countries.iter().count(), 3);
/// # Ok::<(), hedgerow_typed::Error>(())
/// ```
pub struct ByIndex<'a, K, V: ?Sized, I, C = Postcard, S = Db> {
    table: &'a Table<K, V, C, S>,
    /// Its place among the indexes of the table.
    at: usize,
    marker: PhantomData<fn() -> I>,
}

impl<K, V: ?Sized, I, C, S> fmt::Debug for ByIndex<'_, K, V, I, C, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let index = &self.table.core.indexes[self.at];
        f.debug_struct("ByIndex")
            .field("table", &self.table.core.name)
            .field("index", &index.name)
            .finish_non_exhaustive()
    }
}

impl<K: Key, V: ?Sized, C: Codec<V>, S: Source> Table<K, V, C, S> {
    /// The rows by the keys of an index.
    ///
    /// # Errors
    ///
    /// [`Error::Index`] if the table was not opened with this index.
    pub fn by<I: Delimited>(&self, index: &Index<K, V, I>) -> Result<ByIndex<'_, K, V, I, C, S>> {
        let is_same = |part: &IndexPart<K, V>| Arc::ptr_eq(&part.keys, index.keys());
        let at = self.core.indexes.iter().position(is_same);
        let at = at.ok_or_else(|| Error::Index {
            table: self.core.name.clone(),
            index: index.name().into(),
            what: "the table was opened without it".into(),
        })?;
        Ok(ByIndex {
            table: self,
            at,
            marker: PhantomData,
        })
    }
}

impl<'a, K: Key, V: ?Sized, I: Delimited, C: Codec<V>, S: Source> ByIndex<'a, K, V, I, C, S> {
    fn index(&self) -> &'a IndexPart<K, V> {
        &self.table.core.indexes[self.at]
    }

    /// The row that has `key`: of an index that is not unique the one with the lowest key of the
    /// table.
    pub fn get(&self, key: impl AsKey<I>) -> Result<Option<(K, C::Owned)>> {
        let index_key = encoded(key);
        if S::CHANGES && self.index().is_unique {
            match self.get_unique(&index_key)? {
                Found::Nothing => return Ok(None),
                Found::Row(key, value) => return Ok(Some((key, value))),
                Found::Changed => {}
            }
        }
        RowsWithKey(self.entries(&index_key)).next().transpose()
    }

    /// Looks a row up without a snapshot: what it finds is true of the moment at which the row was
    /// read, since the row itself says whether it belongs to the key.
    fn get_unique(&self, index_key: &[u8]) -> Result<Found<K, C::Owned>> {
        let core = &self.table.core;
        let index = self.index();
        let reader = self.table.source.reader(&index.keyspace);
        let Some(row) = reader.get(index_key)? else {
            return Ok(Found::Nothing);
        };
        let Some(value) = self.table.source.reader(&core.data).get(&row)? else {
            return Ok(Found::Changed);
        };
        let key = core.key(&row)?;
        let value = core.value(&row, &value)?;
        let keys = core.keys_in(index, &row, &key, value.borrow())?;
        match keys.iter().any(|key| key == index_key) {
            true => Ok(Found::Row(key, value)),
            false => Ok(Found::Changed),
        }
    }

    /// True if a row has `key`.
    pub fn contains(&self, key: impl AsKey<I>) -> Result<bool> {
        let mut entries = self.entries(&encoded(key));
        Ok(entries.step(Scan::next_with).transpose()?.is_some())
    }

    /// The rows that have `key`, in the order of the keys of the table, from both ends.
    pub fn get_all(&self, key: impl AsKey<I>) -> RowsWithKey<'a, K, V, I, C> {
        RowsWithKey(self.entries(&encoded(key)))
    }

    /// The rows with keys of the index in `bounds`, in the order of these and then of the keys of
    /// the table, from both ends. A row is there as often as it has keys.
    pub fn range(&self, bounds: impl Bounds<I>) -> IndexRows<'a, K, V, I, C> {
        let bounds = entry_bounds(bounds.encode());
        self.rows(|reader| reader.range(bounds))
    }

    /// The rows whose keys in the index begin with `prefix`, likewise.
    pub fn prefix(&self, prefix: impl AsPrefix<I>) -> IndexRows<'a, K, V, I, C> {
        let mut bytes = Vec::new();
        prefix.encode_prefix(&mut bytes);
        self.entries(&bytes)
    }

    /// All rows that the index has, likewise.
    pub fn iter(&self) -> IndexRows<'a, K, V, I, C> {
        self.range(..)
    }

    /// The keys of the index in `bounds` with the keys of their rows, from both ends, without
    /// reading the rows.
    pub fn keys(&self, bounds: impl Bounds<I>) -> IndexKeys<'a, K, V, I, C> {
        IndexKeys(self.range(bounds))
    }

    /// The entries that begin with `prefix`: those of a key, since keys are delimited.
    fn entries(&self, prefix: &[u8]) -> IndexRows<'a, K, V, I, C> {
        self.rows(|reader| reader.prefix(prefix))
    }

    fn rows(&self, scan: impl FnOnce(&Reader<'_>) -> Scan) -> IndexRows<'a, K, V, I, C> {
        let moment = self.table.source.moment();
        let scan = scan(&moment.reader(&self.index().keyspace));
        IndexRows {
            scan: Some(scan),
            moment,
            core: Arc::clone(&self.table.core),
            at: self.at,
            marker: PhantomData,
        }
    }
}

/// What a look-up without a snapshot has found.
enum Found<K, V> {
    Nothing,
    Row(K, V),
    /// The index and the row were of two moments.
    Changed,
}

/// Bounds of the keys of an index as bounds of its entries, in which the key of the row follows.
fn entry_bounds((start, end): ByteBounds) -> ByteBounds {
    let start = match start {
        Bound::Excluded(key) => match prefix_end(key.clone()) {
            Some(behind) => Bound::Included(behind),
            // Nothing is behind it.
            None => Bound::Excluded(vec![0xFF; MAX_KEY_LEN_BYTES]),
        },
        start => start,
    };
    let end = match end {
        Bound::Included(key) => prefix_end(key).map_or(Bound::Unbounded, Bound::Excluded),
        end => end,
    };
    (start, end)
}

/// Rows of a table in the order of an index, from both ends, each with its key there. After an
/// error it is over. It reads one moment.
pub struct IndexRows<'a, K, V: ?Sized, I, C> {
    scan: Option<Scan>,
    moment: Moment<'a>,
    core: Arc<Core<K, V, C>>,
    at: usize,
    marker: PhantomData<fn() -> I>,
}

impl<K, V: ?Sized, I, C> fmt::Debug for IndexRows<'_, K, V, I, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IndexRows").finish_non_exhaustive()
    }
}

/// The entry of an index: its key, and the bytes of that of the row.
type Entry<I> = (I, Vec<u8>);

impl<K: Key, V: ?Sized, I: Delimited, C: Codec<V>> IndexRows<'_, K, V, I, C> {
    /// The entry that `next` gives, decoded; the end and errors end the iteration.
    fn step<N>(&mut self, next: N) -> Option<Result<Entry<I>>>
    where
        N: FnOnce(
            &mut Scan,
            fn(&[u8], &[u8]) -> (Vec<u8>, Vec<u8>),
        ) -> hedgerow::Result<Option<(Vec<u8>, Vec<u8>)>>,
    {
        let entry = next(self.scan.as_mut()?, |key, value| {
            (key.to_vec(), value.to_vec())
        });
        let item = match entry {
            Ok(Some((key, value))) => Some(self.decode(&key, value)),
            Ok(None) => None,
            Err(error) => Some(Err(error.into())),
        };
        if !matches!(item, Some(Ok(_))) {
            self.scan = None;
        }
        item
    }

    fn decode(&self, key: &[u8], value: Vec<u8>) -> Result<Entry<I>> {
        let index = &self.core.indexes[self.at];
        decode_entry(index.is_unique, key, value)
            .map_err(|error| Error::of_key(self.core.index_name(index), key, error))
    }

    fn row(&mut self, entry: Entry<I>) -> Result<(I, K, C::Owned)> {
        let (index_key, row) = entry;
        let Some(value) = self.moment.reader(&self.core.data).get(&row)? else {
            return Err(Error::Index {
                table: self.core.name.clone(),
                index: self.core.indexes[self.at].name.clone(),
                what: format!("there is no row \"{}\"", row.escape_ascii()),
            });
        };
        Ok((
            index_key,
            self.core.key(&row)?,
            self.core.value(&row, &value)?,
        ))
    }

    fn finish<T>(&mut self, item: Result<T>) -> Result<T> {
        if item.is_err() {
            self.scan = None;
        }
        item
    }
}

/// The key of the index and the bytes of that of the row, of an entry.
pub(crate) fn decode_entry<I: Key>(
    is_unique: bool,
    key: &[u8],
    value: Vec<u8>,
) -> Result<Entry<I>, KeyError> {
    let mut input = KeyDecoder::new(key);
    let index_key = I::decode(&mut input)?;
    if !is_unique {
        return Ok((index_key, input.rest()));
    }
    input.finish()?;
    Ok((index_key, value))
}

impl<K: Key, V: ?Sized, I: Delimited, C: Codec<V>> Iterator for IndexRows<'_, K, V, I, C> {
    type Item = Result<(I, K, C::Owned)>;

    fn next(&mut self) -> Option<Self::Item> {
        let entry = self.step(Scan::next_with)?;
        let row = entry.and_then(|entry| self.row(entry));
        Some(self.finish(row))
    }
}

impl<K: Key, V: ?Sized, I: Delimited, C: Codec<V>> DoubleEndedIterator
    for IndexRows<'_, K, V, I, C>
{
    fn next_back(&mut self) -> Option<Self::Item> {
        let entry = self.step(Scan::next_back_with)?;
        let row = entry.and_then(|entry| self.row(entry));
        Some(self.finish(row))
    }
}

/// The rows of a table that have a key in an index, in the order of the table, from both ends.
/// After an error it is over.
#[derive(Debug)]
pub struct RowsWithKey<'a, K, V: ?Sized, I, C>(IndexRows<'a, K, V, I, C>);

impl<K: Key, V: ?Sized, I: Delimited, C: Codec<V>> Iterator for RowsWithKey<'_, K, V, I, C> {
    type Item = Result<(K, C::Owned)>;

    fn next(&mut self) -> Option<Self::Item> {
        let row = self.0.next()?;
        Some(row.map(|(_, key, value)| (key, value)))
    }
}

impl<K: Key, V: ?Sized, I: Delimited, C: Codec<V>> DoubleEndedIterator
    for RowsWithKey<'_, K, V, I, C>
{
    fn next_back(&mut self) -> Option<Self::Item> {
        let row = self.0.next_back()?;
        Some(row.map(|(_, key, value)| (key, value)))
    }
}

/// Keys of an index with the keys of their rows, in order, from both ends. After an error it is
/// over.
#[derive(Debug)]
pub struct IndexKeys<'a, K, V: ?Sized, I, C>(IndexRows<'a, K, V, I, C>);

impl<K: Key, V: ?Sized, I: Delimited, C: Codec<V>> IndexKeys<'_, K, V, I, C> {
    fn keys(&mut self, entry: Result<Entry<I>>) -> Result<(I, K)> {
        let keys = entry.and_then(|(key, row)| Ok((key, self.0.core.key(&row)?)));
        self.0.finish(keys)
    }
}

impl<K: Key, V: ?Sized, I: Delimited, C: Codec<V>> Iterator for IndexKeys<'_, K, V, I, C> {
    type Item = Result<(I, K)>;

    fn next(&mut self) -> Option<Self::Item> {
        let entry = self.0.step(Scan::next_with)?;
        Some(self.keys(entry))
    }
}

impl<K: Key, V: ?Sized, I: Delimited, C: Codec<V>> DoubleEndedIterator
    for IndexKeys<'_, K, V, I, C>
{
    fn next_back(&mut self) -> Option<Self::Item> {
        let entry = self.0.step(Scan::next_back_with)?;
        Some(self.keys(entry))
    }
}
