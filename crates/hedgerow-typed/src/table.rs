//! A table: what it is, and reading it.

use std::fmt;
use std::ops::RangeBounds;
use std::sync::Arc;

use hedgerow::{Db, Durability, Keyspace, RangeSize, Snapshot, Transaction, Value};

use crate::bounds::Bounds;
use crate::codec::{Codec, Postcard};
use crate::core::Core;
use crate::error::Result;
use crate::key::{AsKey, AsPrefix, Key, encoded};
use crate::rows::Rows;
use crate::source::Source;

/// A table of rows with keys of type `K` and values of type `V`, which are stored by the codec `C`,
/// as `S` shows it: the store as it is, a snapshot, or a transaction.
///
/// Opened by [`TableDefinition::open`](crate::TableDefinition::open). A handle is cheap to clone
/// and may be used from any thread. Keys are given as they are or borrowed ([`AsKey`]): a `String`
/// as `"ada"`, a `(String, u64)` as `("ada", 7)`.
///
/// | to read and write | use |
/// | --- | --- |
/// | by itself: each call is a commit of its own | the table as it was opened |
/// | one moment, of all tables | [`Table::at`] a [`Snapshot`] |
/// | several calls, of several tables, in one serializable commit | [`Table::within`] a [`Transaction`] |
/// | the same without reading in between | a [`TableBatch`](crate::TableBatch) |
///
/// A call that writes is a transaction of the store, which runs again if it meets a conflict (100
/// times at most); what it does to the indexes of the table is in the same commit.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("my.db");
/// use hedgerow::Db;
/// use hedgerow_typed::{Error, TableDefinition};
///
/// let db = Db::open(&path)?;
/// let years = TableDefinition::<String, u32>::new("years").open(&db)?;
/// years.extend([("ada", &1815), ("bob", &1970), ("cyd", &1990)])?;
///
/// assert_eq!(years.get("ada")?, Some(1815));
/// assert_eq!(years.get_many(&["bob", "eve"])?, [Some(1970), None]);
/// assert!(years.contains_key("bob")?);
/// assert_eq!(years.get_with("bob", <[u8]>::len)?, Some(2));
/// for row in years.range("a".."c") {
///     let (name, year) = row?;
///     assert!(name.len() == 3 && year > 1800);
/// }
/// assert_eq!(years.iter().rev().next().unwrap()?.0, "cyd");
/// assert_eq!((years.first()?.unwrap().1, years.last()?.unwrap().1), (1815, 1990));
/// assert!(years.len()? == 3 && !years.is_empty()?);
///
/// let before = db.snapshot();
/// assert_eq!(years.insert("ada", &1816)?, Some(1815));
/// assert_eq!(years.at(&before)?.get("ada")?, Some(1815));
///
/// let pensions = TableDefinition::<(u32, String), ()>::new("pensions").open(&db)?;
/// db.transact(|tx| {
///     let year = years.within(tx)?.get("cyd")?.unwrap_or_default();
///     pensions.within(tx)?.put((year + 67, "cyd"), &())?;
///     Ok::<_, Error>(())
/// })?;
/// assert_eq!(pensions.prefix((2057,)).count(), 1);
/// assert!(pensions.size_of_range(..)?.entries <= 1);
/// assert_eq!((years.name(), years.keyspace().name()), ("years", "years".to_owned()));
/// # Ok::<(), Error>(())
/// ```
pub struct Table<K, V: ?Sized, C = Postcard, S = Db> {
    pub(crate) core: Arc<Core<K, V, C>>,
    pub(crate) source: S,
}

impl<K, V: ?Sized, C, S: Clone> Clone for Table<K, V, C, S> {
    fn clone(&self) -> Self {
        Self {
            core: Arc::clone(&self.core),
            source: self.source.clone(),
        }
    }
}

impl<K, V: ?Sized, C, S> fmt::Debug for Table<K, V, C, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table")
            .field("name", &self.core.name)
            .finish_non_exhaustive()
    }
}

impl<K: Key, V: ?Sized, C: Codec<V>> Table<K, V, C> {
    /// The table at the moment of a snapshot. Two tables at the same snapshot agree.
    ///
    /// # Errors
    ///
    /// [`Error::OtherMoment`](crate::Error::OtherMoment) if the table was created, migrated or
    /// given an index after the snapshot, [`Error::TableChanged`](crate::Error::TableChanged) if
    /// that was between its opening and the snapshot; those of the store.
    pub fn at(&self, snapshot: &Snapshot) -> Result<Table<K, V, C, Snapshot>> {
        let record = snapshot.get(&self.core.catalog, &self.core.name)?;
        self.core.check_moment(record.as_deref())?;
        Ok(Table {
            core: Arc::clone(&self.core),
            source: snapshot.clone(),
        })
    }

    /// The table within a transaction: it reads what the transaction sees, and its commit depends
    /// on that; what is written is committed with the transaction.
    ///
    /// # Errors
    ///
    /// As those of [`Table::at`].
    pub fn within<'a>(&self, tx: &'a Transaction) -> Result<Table<K, V, C, &'a Transaction>> {
        let record = tx.get(&self.core.catalog, &self.core.name)?;
        self.core.check_moment(record.as_deref())?;
        Ok(Table {
            core: Arc::clone(&self.core),
            source: tx,
        })
    }

    /// A handle whose calls commit with `durability`, rather than with that of the store.
    #[must_use]
    pub fn with_durability(&self, durability: Durability) -> Self {
        let core = &self.core;
        let indexes = core.indexes.iter().map(|index| crate::core::IndexPart {
            name: index.name.clone(),
            is_unique: index.is_unique,
            keyspace: index.keyspace.clone(),
            keys: Arc::clone(&index.keys),
        });
        Self {
            core: Arc::new(Core {
                name: core.name.clone(),
                catalog: core.catalog.clone(),
                data: core.data.clone(),
                generation: core.generation,
                indexes: indexes.collect(),
                keyspaces: core.keyspaces.clone(),
                durability: Some(durability),
                marker: core.marker,
            }),
            source: self.source.clone(),
        }
    }
}

impl<K: Key, V: ?Sized, C: Codec<V>, S: Source> Table<K, V, C, S> {
    /// Its name, when it was opened.
    pub fn name(&self) -> &str {
        &self.core.name
    }

    /// The keyspace that its rows are in, to look at and to maintain. What is written to it past
    /// the table is not checked, and missing in indexes.
    pub fn keyspace(&self) -> &Keyspace {
        &self.core.data
    }

    /// All keyspaces that it uses: for
    /// [`TransactionOptions::keyspaces`](hedgerow::TransactionOptions::keyspaces), where a transaction is to
    /// name those that it needs.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = hedgerow::Db::open(dir.path().join("my.db"))?;
    /// use hedgerow::TransactionOptions;
    /// use hedgerow_typed::{Error, TableDefinition};
    ///
    /// let years = TableDefinition::<String, u32>::new("years").open(&db)?;
    /// let options = TransactionOptions::new().keyspaces(years.keyspaces());
    /// db.transact_with(options, |tx| years.within(tx)?.put("ada", &1815))?;
    /// # Ok::<(), Error>(())
    /// ```
    pub fn keyspaces(&self) -> &[Keyspace] {
        &self.core.keyspaces
    }

    /// The value of `key`.
    ///
    /// # Errors
    ///
    /// Those of the store; [`Error::Value`](crate::Error::Value) if the bytes that are there have
    /// no value. So it is with all methods that read; of those that give keys also
    /// [`Error::Key`](crate::Error::Key).
    pub fn get(&self, key: impl AsKey<K>) -> Result<Option<C::Owned>> {
        let key = encoded(key);
        let found = self.get_bytes(&key, |bytes| self.core.value(&key, bytes))?;
        found.transpose()
    }

    /// Calls `read` with the bytes of the value of `key`, without copying or decoding them. No lock
    /// is held meanwhile.
    pub fn get_with<R>(
        &self,
        key: impl AsKey<K>,
        read: impl FnOnce(&[u8]) -> R,
    ) -> Result<Option<R>> {
        self.get_bytes(&encoded(key), read)
    }

    fn get_bytes<R>(&self, key: &[u8], read: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        self.source.reader(&self.core.data).get_with(key, read)
    }

    /// The bytes `part` of the value of `key`, as far as it has them. Of a long value no more is
    /// read than these need; see [`KvRead::get_range`](hedgerow::KvRead::get_range).
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = hedgerow::Db::open(dir.path().join("my.db"))?;
    /// use hedgerow_typed::{Raw, TableDefinition};
    ///
    /// let files = TableDefinition::<String, [u8], Raw>::with_codec("files").open(&db)?;
    /// files.put("a", &[7; 100_000])?;
    /// assert_eq!(files.get_part("a", 99_998..)?.unwrap(), [7, 7]);
    /// # Ok::<(), hedgerow_typed::Error>(())
    /// ```
    pub fn get_part(
        &self,
        key: impl AsKey<K>,
        part: impl RangeBounds<usize>,
    ) -> Result<Option<Value>> {
        let reader = self.source.reader(&self.core.data);
        reader.get_range(&encoded(key), part)
    }

    /// The values of several keys, in the order given, all from one moment. Faster than as many
    /// calls of [`Table::get`].
    pub fn get_many<Q: AsKey<K>>(&self, keys: &[Q]) -> Result<Vec<Option<C::Owned>>> {
        let keys: Vec<Vec<u8>> = keys.iter().map(encoded).collect();
        let values = self.source.reader(&self.core.data).multi_get(&keys)?;
        let values = keys.iter().zip(values).map(|(key, bytes)| match bytes {
            Some(bytes) => self.core.value(key, &bytes).map(Some),
            None => Ok(None),
        });
        values.collect()
    }

    /// True if there is a row of `key`.
    pub fn contains_key(&self, key: impl AsKey<K>) -> Result<bool> {
        let reader = self.source.reader(&self.core.data);
        reader.contains_key(&encoded(key))
    }

    /// The rows with keys in `bounds`, in the order of keys, from both ends.
    pub fn range(&self, bounds: impl Bounds<K>) -> Rows<K, V, C> {
        let scan = self.source.reader(&self.core.data).range(bounds.encode());
        Rows::new(scan, Arc::clone(&self.core))
    }

    /// The rows whose keys begin with `prefix`, in the order of keys, from both ends: of keys
    /// `(A, B, C)` a prefix is `(a,)` or `(a, b)`, of strings [`StartsWith`](crate::StartsWith).
    pub fn prefix(&self, prefix: impl AsPrefix<K>) -> Rows<K, V, C> {
        let mut bytes = Vec::new();
        prefix.encode_prefix(&mut bytes);
        let scan = self.source.reader(&self.core.data).prefix(&bytes);
        Rows::new(scan, Arc::clone(&self.core))
    }

    /// All rows in the order of their keys, from both ends. [`Rows::keys`] and [`Rows::values`]
    /// give one of both.
    pub fn iter(&self) -> Rows<K, V, C> {
        self.range(..)
    }

    /// The row with the lowest key.
    pub fn first(&self) -> Result<Option<(K, C::Owned)>> {
        self.iter().next().transpose()
    }

    /// The row with the highest key.
    pub fn last(&self) -> Result<Option<(K, C::Owned)>> {
        self.iter().next_back().transpose()
    }

    /// Number of rows, exactly. Walks over all keys: the cost is that of a scan.
    /// [`Table::size_of_range`] estimates at next to no cost.
    pub fn len(&self) -> Result<u64> {
        self.iter().try_count()
    }

    /// True if there are no rows. Looks at one at most.
    pub fn is_empty(&self) -> Result<bool> {
        self.source.reader(&self.core.data).is_empty()
    }

    /// About how many rows and bytes there are in `bounds`. See
    /// [`KvRead::size_of_range`](hedgerow::KvRead::size_of_range).
    pub fn size_of_range(&self, bounds: impl Bounds<K>) -> Result<RangeSize> {
        let reader = self.source.reader(&self.core.data);
        reader.size_of_range(bounds.encode())
    }
}

impl<K: Key, V: ?Sized, C: Codec<V>, S: Source> IntoIterator for &Table<K, V, C, S> {
    type Item = Result<(K, C::Owned)>;
    type IntoIter = Rows<K, V, C>;

    /// All rows in the order of their keys.
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}
