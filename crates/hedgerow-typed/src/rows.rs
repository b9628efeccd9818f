//! Iterators over rows.

use std::fmt;
use std::sync::Arc;

use hedgerow::Scan;

use crate::codec::Codec;
use crate::core::Core;
use crate::error::Result;
use crate::key::{AsKey, Key, encoded};

/// Rows of a table in the order of their keys, from both ends. After an error it is over.
///
/// It reads the moment at which it was made, and keeps files and memory that this needs as long as
/// it lives.
pub struct Rows<K, V: ?Sized, C> {
    scan: Option<Scan>,
    core: Arc<Core<K, V, C>>,
}

impl<K, V: ?Sized, C> fmt::Debug for Rows<K, V, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rows").finish_non_exhaustive()
    }
}

impl<K: Key, V: ?Sized, C: Codec<V>> Rows<K, V, C> {
    pub(crate) fn new(scan: Scan, core: Arc<Core<K, V, C>>) -> Self {
        Self {
            scan: Some(scan),
            core,
        }
    }

    /// Takes what `step` reads of the scan; the end and errors end the iteration.
    fn step<T>(
        &mut self,
        step: impl FnOnce(&mut Scan, &Core<K, V, C>) -> Result<Option<T>>,
    ) -> Option<Result<T>> {
        let item = step(self.scan.as_mut()?, &self.core).transpose();
        if !matches!(item, Some(Ok(_))) {
            self.scan = None;
        }
        item
    }

    fn key(&mut self) -> Option<Result<K>> {
        self.step(|scan, core| scan.next_key()?.map(|key| core.key(&key)).transpose())
    }

    fn key_back(&mut self) -> Option<Result<K>> {
        self.step(|scan, core| scan.next_back_key()?.map(|key| core.key(&key)).transpose())
    }

    /// Skips ahead: the next row from the front is the first one with a key of `key` or above. It
    /// never moves back. See [`Scan::seek`].
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = hedgerow::Db::open(dir.path().join("my.db"))?;
    /// use hedgerow_typed::TableDefinition;
    ///
    /// let squares = TableDefinition::<i32, i32>::new("squares").open(&db)?;
    /// squares.extend([(-2, &4), (-1, &1), (0, &0), (1, &1), (2, &4)])?;
    /// let mut rows = squares.iter();
    /// rows.seek(0);
    /// assert_eq!(rows.next().transpose()?, Some((0, 0)));
    /// rows.seek_back(1);
    /// assert_eq!(rows.next_back().transpose()?, Some((1, 1)));
    /// assert!(rows.next().is_none());
    /// # Ok::<(), hedgerow_typed::Error>(())
    /// ```
    pub fn seek(&mut self, key: impl AsKey<K>) {
        if let Some(scan) = &mut self.scan {
            scan.seek(encoded(key));
        }
    }

    /// The same from the back: the next row from there is the last one with a key of `key` or
    /// below.
    pub fn seek_back(&mut self, key: impl AsKey<K>) {
        if let Some(scan) = &mut self.scan {
            scan.seek_back(encoded(key));
        }
    }

    /// The keys alone, without reading values that are stored apart from them.
    pub fn keys(self) -> impl DoubleEndedIterator<Item = Result<K>> {
        Both {
            next: |rows: &mut Self| rows.key(),
            next_back: |rows: &mut Self| rows.key_back(),
            rows: self,
        }
    }

    /// The values alone, without decoding keys.
    pub fn values(self) -> impl DoubleEndedIterator<Item = Result<C::Owned>> {
        Both {
            next: |rows: &mut Self| {
                rows.step(|scan, core| scan.next_with(|key, v| core.value(key, v))?.transpose())
            },
            next_back: |rows: &mut Self| {
                rows.step(|scan, core| {
                    scan.next_back_with(|key, v| core.value(key, v))?
                        .transpose()
                })
            },
            rows: self,
        }
    }

    /// Counts the rows that are left, without decoding them. Unlike [`Iterator::count`], which
    /// counts an error as an item, it reports errors.
    ///
    /// # Errors
    ///
    /// Those of the store.
    pub fn try_count(self) -> Result<u64> {
        Ok(self.scan.map_or(Ok(0), Scan::try_count)?)
    }
}

impl<K: Key, V: ?Sized, C: Codec<V>> Iterator for Rows<K, V, C> {
    type Item = Result<(K, C::Owned)>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step(|scan, core| {
            scan.next_with(|key, value| Ok((core.key(key)?, core.value(key, value)?)))?
                .transpose()
        })
    }
}

impl<K: Key, V: ?Sized, C: Codec<V>> DoubleEndedIterator for Rows<K, V, C> {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.step(|scan, core| {
            scan.next_back_with(|key, value| Ok((core.key(key)?, core.value(key, value)?)))?
                .transpose()
        })
    }
}

impl<K: Key, V: ?Sized, C: Codec<V>> std::iter::FusedIterator for Rows<K, V, C> {}

/// An iterator of two functions over the same.
struct Both<R, F, B> {
    rows: R,
    next: F,
    next_back: B,
}

impl<R, T, F: FnMut(&mut R) -> Option<T>, B> Iterator for Both<R, F, B> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        (self.next)(&mut self.rows)
    }
}

impl<R, T, F, B> DoubleEndedIterator for Both<R, F, B>
where
    F: FnMut(&mut R) -> Option<T>,
    B: FnMut(&mut R) -> Option<T>,
{
    fn next_back(&mut self) -> Option<T> {
        (self.next_back)(&mut self.rows)
    }
}
