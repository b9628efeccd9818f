//! The definition of an index.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use crate::key::{Delimited, Key};

/// Gives the keys of a row in an index, as bytes.
pub(crate) type KeysOfRow<K, V> = dyn Fn(&K, &V, &mut Vec<Vec<u8>>) + Send + Sync;

/// A secondary index: rows of a table by keys of type `I` that a function makes of them.
///
/// The function gives any number of keys for a row: none, so that the row is not in the index, one,
/// as an `Option` or an array of one, or several, such as the words of a text. Equal ones count
/// once. What it makes of a row must never change: the index is kept by calling it with a row
/// before and after a change. So a function that does something else is another index, with
/// another name.
///
/// An index is part of the [definition](crate::TableDefinition::index) of a table, and is read with
/// [`Table::by`](crate::Table::by).
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let db = hedgerow::Db::open(dir.path().join("my.db"))?;
/// use hedgerow_typed::{Index, TableDefinition};
///
/// let by_word = Index::new("by word", |_: &u64, text: &String| {
///     text.split(' ').map(str::to_lowercase).collect::<Vec<_>>()
/// });
/// let notes = TableDefinition::<u64, String>::new("notes").index(&by_word).open(&db)?;
/// notes.put(1, &"A hedge of hawthorn".to_owned())?;
/// notes.put(2, &"The hedge".to_owned())?;
///
/// let found: Vec<_> = notes.by(&by_word)?.get_all("hedge").collect::<Result<_, _>>()?;
/// assert_eq!((found.len(), found[0].0), (2, 1));
/// # Ok::<(), hedgerow_typed::Error>(())
/// ```
pub struct Index<K, V: ?Sized, I> {
    name: &'static str,
    is_unique: bool,
    keys: Arc<KeysOfRow<K, V>>,
    marker: PhantomData<fn() -> I>,
}

impl<K, V: ?Sized, I> Clone for Index<K, V, I> {
    fn clone(&self) -> Self {
        Self {
            name: self.name,
            is_unique: self.is_unique,
            keys: Arc::clone(&self.keys),
            marker: PhantomData,
        }
    }
}

impl<K, V: ?Sized, I> fmt::Debug for Index<K, V, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Index")
            .field("name", &self.name)
            .field("is_unique", &self.is_unique)
            .finish_non_exhaustive()
    }
}

impl<K: Key, V: ?Sized, I: Delimited> Index<K, V, I> {
    /// An index in which any number of rows have the same key.
    pub fn new<T: IntoIterator<Item = I>>(
        name: &'static str,
        keys: impl Fn(&K, &V) -> T + Send + Sync + 'static,
    ) -> Self {
        Self::with(name, false, keys)
    }

    /// An index in which one row at most has a key: writing a second one fails with
    /// [`Error::NotUnique`](crate::Error::NotUnique), whatever is written at the same time.
    pub fn unique<T: IntoIterator<Item = I>>(
        name: &'static str,
        keys: impl Fn(&K, &V) -> T + Send + Sync + 'static,
    ) -> Self {
        Self::with(name, true, keys)
    }

    fn with<T: IntoIterator<Item = I>>(
        name: &'static str,
        is_unique: bool,
        keys: impl Fn(&K, &V) -> T + Send + Sync + 'static,
    ) -> Self {
        let keys = move |key: &K, value: &V, out: &mut Vec<Vec<u8>>| {
            out.extend(keys(key, value).into_iter().map(|key| {
                let mut bytes = Vec::new();
                key.encode(&mut bytes);
                bytes
            }));
        };
        Self {
            name,
            is_unique,
            keys: Arc::new(keys),
            marker: PhantomData,
        }
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Whether one row at most has a key.
    pub fn is_unique(&self) -> bool {
        self.is_unique
    }

    pub(crate) fn keys(&self) -> &Arc<KeysOfRow<K, V>> {
        &self.keys
    }
}
