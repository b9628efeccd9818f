//! Tables with any number of values for a key.

use std::fmt;
use std::ops::Bound::{Excluded, Included, Unbounded};
use std::sync::Arc;

use hedgerow::{Db, Keyspace, KeyspaceOptions, Snapshot, Transaction};

use crate::bounds::{Bounds, prefix_end};
use crate::codec::Codec;
use crate::definition::TableDefinition;
use crate::error::{CodecError, Result};
use crate::key::{AsKey, AsPrefix, Delimited, Key, encoded};
use crate::rows::Rows;
use crate::source::{ByteBounds, Sink, Source};
use crate::table::Table;
use crate::verify::TableReport;

/// The values of a multimap are in its keys.
#[derive(Debug, Clone, Copy)]
pub(crate) enum InKey {}

impl Codec<()> for InKey {
    type Owned = ();

    fn encode((): &(), _: &mut Vec<u8>) -> Result<(), CodecError> {
        Ok(())
    }

    fn decode(bytes: &[u8]) -> Result<(), CodecError> {
        match bytes {
            [] => Ok(()),
            _ => Err("an entry of a multimap has no value".into()),
        }
    }

    fn schema() -> String {
        "multimap".into()
    }
}

/// What a [`Multimap`] is: its name, and the types of its keys and values.
#[derive(Debug)]
pub struct MultimapDefinition<K, V> {
    table: TableDefinition<(K, V), (), InKey>,
}

impl<K: Delimited, V: Key> MultimapDefinition<K, V> {
    /// A multimap of this name.
    pub const fn new(name: &'static str) -> Self {
        Self {
            table: TableDefinition::with_codec(name),
        }
    }

    /// The options of the keyspace of a multimap that is created: a B-tree by default.
    #[must_use]
    pub fn keyspace_options(mut self, options: KeyspaceOptions) -> Self {
        self.table = self.table.keyspace_options(options);
        self
    }

    /// Opens the multimap, and creates it if there is none.
    ///
    /// # Errors
    ///
    /// As those of [`TableDefinition::open`].
    pub fn open(&self, db: &Db) -> Result<Multimap<K, V>> {
        self.table.open(db).map(Multimap)
    }
}

/// A table with any number of values for a key, which are a set: sorted, each there once.
///
/// A pair of key and value is a key of the store, so there may be millions of values for a key, and
/// adding one does not read the others. Otherwise it is as a [`Table`].
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let db = hedgerow::Db::open(dir.path().join("my.db"))?;
/// use hedgerow::{EngineKind, KeyspaceOptions};
/// use hedgerow_typed::{Error, MultimapDefinition};
///
/// const TAGS: MultimapDefinition<u64, String> = MultimapDefinition::new("tags");
///
/// let tags = TAGS.keyspace_options(KeyspaceOptions::new(EngineKind::Lsm)).open(&db)?;
/// assert!(tags.insert(1, "red")? && tags.insert(1, "blue")? && !tags.insert(1, "red")?);
/// tags.put(2, "red")?;
/// assert_eq!(tags.get(1).collect::<Result<Vec<_>, _>>()?, ["blue", "red"]);
/// assert_eq!(tags.values_in(1, "c".to_owned()..).count(), 1);
/// assert!(tags.contains(1, "blue")? && !tags.contains(2, "blue")?);
/// assert_eq!(tags.range((2,)..).next().unwrap()?, (2, "red".to_owned()));
/// assert_eq!(tags.iter().rev().count(), 3);
/// assert_eq!((tags.count(1)?, tags.len()?, tags.is_empty()?), (2, 3, false));
///
/// let before = db.snapshot();
/// assert!(tags.remove(1, "red")? && !tags.remove(1, "red")?);
/// tags.remove_all(1)?;
/// assert_eq!((tags.len()?, tags.at(&before)?.len()?), (1, 3));
/// db.transact(|tx| {
///     tags.within(tx)?.delete(2, "red")?;
///     tags.within(tx)?.put(3, "green")
/// })?;
/// assert_eq!(tags.first()?, Some((3, "green".to_owned())));
/// assert_eq!((tags.pop_first()?.unwrap().0, tags.last()?), (3, None));
/// tags.extend([(4, "a"), (4, "b"), (5, "c")])?;
/// assert_eq!(tags.pop_last()?, Some((5, "c".to_owned())));
/// tags.remove_range((4, "b")..)?;
/// assert!(tags.verify()?.is_clean() && tags.len()? == 1 && tags.keyspaces().len() == 2);
/// tags.clear()?;
/// assert_eq!((tags.name(), tags.keyspace().engine()), ("tags", EngineKind::Lsm));
/// # Ok::<(), Error>(())
/// ```
pub struct Multimap<K, V, S = Db>(Table<(K, V), (), InKey, S>);

impl<K, V, S: Clone> Clone for Multimap<K, V, S> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K, V, S> fmt::Debug for Multimap<K, V, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Multimap").field(&self.0).finish()
    }
}

/// Pairs of a multimap, in order, from both ends. After an error it is over.
#[derive(Debug)]
pub struct Pairs<K, V>(Rows<(K, V), (), InKey>);

/// The values of a key, in order, from both ends. After an error it is over.
#[derive(Debug)]
pub struct ValuesOfKey<K, V>(Pairs<K, V>);

impl<K: Delimited, V: Key> Multimap<K, V> {
    /// The multimap at the moment of a snapshot. See [`Table::at`].
    pub fn at(&self, snapshot: &Snapshot) -> Result<Multimap<K, V, Snapshot>> {
        self.0.at(snapshot).map(Multimap)
    }

    /// The multimap within a transaction. See [`Table::within`].
    pub fn within<'a>(&self, tx: &'a Transaction) -> Result<Multimap<K, V, &'a Transaction>> {
        self.0.within(tx).map(Multimap)
    }
}

impl<K: Delimited, V: Key, S: Source> Multimap<K, V, S> {
    /// Its name, when it was opened.
    pub fn name(&self) -> &str {
        self.0.name()
    }

    /// The keyspace that it is in. See [`Table::keyspace`].
    pub fn keyspace(&self) -> &Keyspace {
        self.0.keyspace()
    }

    /// The values of `key`, in order.
    pub fn get(&self, key: impl AsPrefix<K>) -> ValuesOfKey<K, V> {
        ValuesOfKey(Pairs(self.0.prefix((key,))))
    }

    /// The values of `key` in `bounds`, in order.
    pub fn values_in(&self, key: impl AsKey<K>, bounds: impl Bounds<V>) -> ValuesOfKey<K, V> {
        let core = Arc::clone(&self.0.core);
        let reader = self.0.source.reader(&self.0.core.data);
        let bounds = bounds_of_pairs(&encoded(key), bounds.encode());
        ValuesOfKey(Pairs(Rows::new(reader.range(bounds), core)))
    }

    /// True if `key` has `value`.
    pub fn contains(&self, key: impl AsKey<K>, value: impl AsKey<V>) -> Result<bool> {
        self.0.contains_key((key, value))
    }

    /// The pairs in `bounds`, which are pairs, or keys as tuples of one: `(a,)..=(b,)`.
    pub fn range(&self, bounds: impl Bounds<(K, V)>) -> Pairs<K, V> {
        Pairs(self.0.range(bounds))
    }

    /// All pairs, in order.
    pub fn iter(&self) -> Pairs<K, V> {
        self.range(..)
    }

    /// The first pair.
    pub fn first(&self) -> Result<Option<(K, V)>> {
        self.iter().next().transpose()
    }

    /// The last pair.
    pub fn last(&self) -> Result<Option<(K, V)>> {
        self.iter().next_back().transpose()
    }

    /// Number of values of `key`, by a walk over them.
    pub fn count(&self, key: impl AsPrefix<K>) -> Result<u64> {
        self.0.prefix((key,)).try_count()
    }

    /// Number of pairs, exactly, by a walk over all of them.
    pub fn len(&self) -> Result<u64> {
        self.0.len()
    }

    /// All keyspaces that it uses. See [`Table::keyspaces`].
    pub fn keyspaces(&self) -> &[Keyspace] {
        self.0.keyspaces()
    }

    /// Reads everything and checks that it can be decoded. See [`Table::verify`].
    pub fn verify(&self) -> Result<TableReport> {
        self.0.verify()
    }

    /// True if there is no pair.
    pub fn is_empty(&self) -> Result<bool> {
        self.0.is_empty()
    }
}

impl<K: Delimited, V: Key, S: Sink> Multimap<K, V, S> {
    /// Adds `value` to those of `key`, and returns whether it was not there.
    ///
    /// # Errors
    ///
    /// As those of [`Table::put`]; so it is with all methods that write.
    pub fn insert(&self, key: impl AsKey<K>, value: impl AsKey<V>) -> Result<bool> {
        Ok(self.0.insert((key, value), &())?.is_none())
    }

    /// Adds `value` to those of `key`, without reading.
    pub fn put(&self, key: impl AsKey<K>, value: impl AsKey<V>) -> Result<()> {
        self.0.put((key, value), &())
    }

    /// Removes `value` from those of `key`, and returns whether it was there.
    pub fn remove(&self, key: impl AsKey<K>, value: impl AsKey<V>) -> Result<bool> {
        Ok(self.0.remove((key, value))?.is_some())
    }

    /// Removes `value` from those of `key`, without reading.
    pub fn delete(&self, key: impl AsKey<K>, value: impl AsKey<V>) -> Result<()> {
        self.0.delete((key, value))
    }

    /// Removes all values of `key`, at the cost of one.
    pub fn remove_all(&self, key: impl AsPrefix<K>) -> Result<()> {
        self.0.remove_range((&(&key,))..=(&(&key,)))
    }

    /// Removes the first pair and returns it.
    pub fn pop_first(&self) -> Result<Option<(K, V)>> {
        Ok(self.0.pop_first()?.map(|(pair, ())| pair))
    }

    /// Removes the last pair and returns it.
    pub fn pop_last(&self) -> Result<Option<(K, V)>> {
        Ok(self.0.pop_last()?.map(|(pair, ())| pair))
    }

    /// Adds several pairs in one commit.
    pub fn extend<A: AsKey<K>, B: AsKey<V>>(
        &self,
        pairs: impl IntoIterator<Item = (A, B)>,
    ) -> Result<()> {
        self.0.extend(pairs.into_iter().map(|pair| (pair, &())))
    }

    /// Removes the pairs in `bounds`, which are as those of [`Multimap::range`], at the cost of
    /// one.
    pub fn remove_range(&self, bounds: impl Bounds<(K, V)>) -> Result<()> {
        self.0.remove_range(bounds)
    }

    /// Removes all pairs, at the cost of one.
    pub fn clear(&self) -> Result<()> {
        self.0.clear()
    }
}

/// Bounds of the values of a key as bounds of pairs.
fn bounds_of_pairs(key: &[u8], (start, end): ByteBounds) -> ByteBounds {
    let pair = |value: Vec<u8>| [key, &value].concat();
    let start = match start {
        Included(value) => Included(pair(value)),
        Excluded(value) => Excluded(pair(value)),
        Unbounded => Included(key.to_vec()),
    };
    let end = match end {
        Included(value) => Included(pair(value)),
        Excluded(value) => Excluded(pair(value)),
        Unbounded => prefix_end(key.to_vec()).map_or(Unbounded, Excluded),
    };
    (start, end)
}

impl<K: Delimited, V: Key> Iterator for Pairs<K, V> {
    type Item = Result<(K, V)>;

    fn next(&mut self) -> Option<Self::Item> {
        let row = self.0.next()?;
        Some(row.map(|(pair, ())| pair))
    }
}

impl<K: Delimited, V: Key> DoubleEndedIterator for Pairs<K, V> {
    fn next_back(&mut self) -> Option<Self::Item> {
        let row = self.0.next_back()?;
        Some(row.map(|(pair, ())| pair))
    }
}

impl<K: Delimited, V: Key> Iterator for ValuesOfKey<K, V> {
    type Item = Result<V>;

    fn next(&mut self) -> Option<Self::Item> {
        let pair = self.0.next()?;
        Some(pair.map(|(_, value)| value))
    }
}

impl<K: Delimited, V: Key> DoubleEndedIterator for ValuesOfKey<K, V> {
    fn next_back(&mut self) -> Option<Self::Item> {
        let pair = self.0.next_back()?;
        Some(pair.map(|(_, value)| value))
    }
}
