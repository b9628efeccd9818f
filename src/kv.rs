//! The one trait over both engines and the model, and the types it speaks.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use bytes::Bytes;

use crate::batch::Batch;
use crate::engine::{Cursor, EngineStats, ReadView};
use crate::error::Result;
use crate::key::{KeyBounds, KeyRange, is_from};
use crate::options::Durability;
use crate::trace::ScanProbe;

/// A key or a value that was read: immutable bytes, cheap to clone, `Send + Sync`.
///
/// It owns its bytes (clones share them), so it keeps no page, block or snapshot alive.
#[derive(Clone, Default, Eq, PartialOrd, Ord)]
pub struct Value(Bytes);

impl Value {
    /// A value with a copy of `bytes`.
    pub fn copy_from(bytes: &[u8]) -> Self {
        Self(Bytes::copy_from_slice(bytes))
    }

    /// The bytes, as the `bytes` crate's type, without copying.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }
}

impl Deref for Value {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for Value {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl From<Vec<u8>> for Value {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }
}

impl From<Bytes> for Value {
    fn from(bytes: Bytes) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::hash::Hash for Value {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl<T: AsRef<[u8]> + ?Sized> PartialEq<T> for Value {
    fn eq(&self, other: &T) -> bool {
        self.0.as_ref() == other.as_ref()
    }
}

/// What `read` makes of the value that `get` finds, and the value's length. `get` calls what it is given once at the
/// most: a closure that can be called once is enough.
#[inline]
pub(crate) fn read_once<R>(
    read: impl FnOnce(&[u8]) -> R,
    get: impl FnOnce(&mut dyn FnMut(&[u8])) -> Result<bool>,
) -> Result<Option<(R, usize)>> {
    let mut read = Some(read);
    let mut found = None;
    get(&mut |value| {
        if let Some(read) = read.take() {
            found = Some((read(value), value.len()));
        }
    })?;
    Ok(found)
}

/// Reading from an ordered map of byte strings.
///
/// Implemented by a keyspace of either engine, by a snapshot of one, and by the in-memory
/// [`Model`](crate::Model). An absent key is `Ok(None)`, never an error.
pub trait KvRead {
    /// The value of `key`.
    fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Value>>;

    /// Calls `read` with the value of `key`, without copying it where the engine can lend it.
    /// `read` must not call back into the store.
    fn get_with<R>(
        &self,
        key: impl AsRef<[u8]>,
        read: impl FnOnce(&[u8]) -> R,
    ) -> Result<Option<R>>;

    /// True if `key` has a value.
    fn contains(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        Ok(self.get_with(key, |_| ())?.is_some())
    }

    /// The values of several keys, in the order given, all from one moment. Faster than as many
    /// calls of [`KvRead::get`].
    fn multi_get<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<Vec<Option<Value>>>;

    /// The entries with keys in `bounds`, in key order, as of now: writes made later do not
    /// appear. An error while starting is the iterator's first item.
    fn range(&self, bounds: impl KeyBounds) -> Scan;

    /// The entries whose keys start with `prefix`, in key order, as of now.
    fn prefix(&self, prefix: impl AsRef<[u8]>) -> Scan;

    /// All entries in key order, as of now.
    fn iter(&self) -> Scan {
        self.range(..)
    }
}

/// Reading from and writing to an ordered map of byte strings.
///
/// Code that is generic over `Kv` runs on a [`Keyspace`](crate::Keyspace) of either engine and
/// on the in-memory [`Model`](crate::Model).
///
/// ```
/// use hedgerow::{Kv, KvRead, Model, Result};
///
/// fn increment(kv: &impl Kv, counter: &str) -> Result<u64> {
///     let old = kv.get_with(counter, |b| u64::from_le_bytes(b.try_into().unwrap()))?;
///     let new = old.unwrap_or(0) + 1;
///     kv.put(counter, new.to_le_bytes())?;
///     Ok(new)
/// }
///
/// let kv = Model::new();
/// increment(&kv, "visits")?;
/// assert_eq!(increment(&kv, "visits")?, 2);
/// # Ok::<(), hedgerow::Error>(())
/// ```
pub trait Kv: KvRead {
    /// What [`Kv::snapshot`] returns.
    type Snapshot: KvRead;

    /// Sets `key` to `value`, with the store's default durability.
    fn put(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()>;

    /// Removes `key`, which may be absent, with the store's default durability.
    fn delete(&self, key: impl AsRef<[u8]>) -> Result<()>;

    /// Removes every key in `bounds`, with the store's default durability. Empty or inverted
    /// bounds remove nothing.
    fn delete_range(&self, bounds: impl KeyBounds) -> Result<()>;

    /// Commits all operations of `batch`, or none, with the durability named.
    fn write(&self, batch: Batch, durability: Durability) -> Result<()>;

    /// An immutable view of everything committed so far.
    fn snapshot(&self) -> Self::Snapshot;

    /// Brings everything committed so far into the engine's own files, durably.
    fn flush(&self) -> Result<()>;

    /// Figures about the keyspace, now.
    fn stats(&self) -> EngineStats;
}

/// A scan: entries in key order, from both ends.
///
/// As an [`Iterator`] and [`DoubleEndedIterator`] it yields owned keys and values;
/// [`Scan::next_with`] lends them instead. [`Scan::seek`] jumps ahead. After an error the scan
/// is over: it never skips what it could not read.
///
/// A scan holds a view of the keyspace: while it lives, files and memory that the view needs are
/// kept.
pub struct Scan {
    state: State,
    range: KeyRange,
    /// Stands on the last entry that the front yielded, once `started`.
    front: Option<Box<dyn Cursor>>,
    /// Stands on the last entry that the back yielded, once `back_started`.
    back: Option<Box<dyn Cursor>>,
    started: bool,
    back_started: bool,
    /// Counts what is taken, in a store that records its operations.
    probe: Option<Box<ScanProbe>>,
}

enum State {
    Ready(Arc<dyn ReadView>),
    Failed(crate::Error),
    Done,
}

impl fmt::Debug for Scan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scan")
            .field("range", &self.range)
            .finish_non_exhaustive()
    }
}

impl Scan {
    /// A scan of `range` over a view, or one that reports why there is none.
    pub(crate) fn new(view: Result<Arc<dyn ReadView>>, range: KeyRange) -> Self {
        let state = match view {
            Ok(_) if range.is_empty() => State::Done,
            Ok(view) => State::Ready(view),
            Err(error) => State::Failed(error),
        };
        Self {
            state,
            range,
            front: None,
            back: None,
            started: false,
            back_started: false,
            probe: None,
        }
    }

    /// Has `probe` count what is taken.
    pub(crate) fn probed(mut self, probe: Option<Box<ScanProbe>>) -> Self {
        self.probe = probe;
        self
    }

    fn finish(&mut self) {
        self.state = State::Done;
        self.front = None;
        self.back = None;
    }

    fn fail<T>(&mut self, error: crate::Error) -> Result<T> {
        self.finish();
        Err(error)
    }

    /// A new cursor, or `None` once the scan is over.
    #[cold]
    fn open(&mut self) -> Result<Option<Box<dyn Cursor>>> {
        match std::mem::replace(&mut self.state, State::Done) {
            State::Done => Ok(None),
            State::Failed(error) => self.fail(error),
            State::Ready(view) => {
                let cursor = Arc::clone(&view).cursor();
                self.state = State::Ready(view);
                Ok(Some(cursor))
            }
        }
    }

    /// Moves the front to its next entry; false at the end.
    fn advance_front(&mut self) -> Result<bool> {
        if self.front.is_none() {
            self.front = self.open()?;
        }
        let Some(cursor) = &mut self.front else {
            return Ok(false);
        };
        let moved = if self.started {
            cursor.next()
        } else {
            self.started = true;
            match self.range.start.as_slice() {
                [] => cursor.seek_first(),
                start => cursor.seek(start),
            }
        };
        if let Err(error) = moved {
            return self.fail(error);
        }
        let inside = cursor.is_valid()
            && self
                .range
                .end
                .as_ref()
                .is_none_or(|end| cursor.key() < end.as_slice())
            && match &self.back {
                Some(back) if self.back_started => cursor.key() < back.key(),
                _ => true,
            };
        if !inside {
            self.finish();
        }
        Ok(inside)
    }

    /// Moves the back to its next entry; false at the end.
    fn advance_back(&mut self) -> Result<bool> {
        if self.back.is_none() {
            self.back = self.open()?;
        }
        let Some(cursor) = &mut self.back else {
            return Ok(false);
        };
        let moved = if self.back_started {
            cursor.prev()
        } else {
            self.back_started = true;
            match &self.range.end {
                Some(end) => cursor.seek_before(end),
                None => cursor.seek_last(),
            }
        };
        if let Err(error) = moved {
            return self.fail(error);
        }
        let inside = cursor.is_valid()
            && is_from(cursor.key(), &self.range.start)
            && match &self.front {
                Some(front) if self.started => cursor.key() > front.key(),
                _ => true,
            };
        if !inside {
            self.finish();
        }
        Ok(inside)
    }

    /// Lends the next entry to `read`; `None` at the end. Copies nothing.
    ///
    /// ```
    /// # use hedgerow::{Kv, KvRead, Model};
    /// # let kv = Model::new();
    /// # kv.put(b"ada", b"1815")?;
    /// let mut scan = kv.iter();
    /// let mut bytes = 0;
    /// while let Some(len) = scan.next_with(|_key, value| value.len())? {
    ///     bytes += len;
    /// }
    /// assert_eq!(bytes, 4);
    /// # Ok::<(), hedgerow::Error>(())
    /// ```
    pub fn next_with<R>(&mut self, read: impl FnOnce(&[u8], &[u8]) -> R) -> Result<Option<R>> {
        let entry = match &mut self.front {
            Some(cursor) if self.started && !self.back_started => {
                cursor.next_below(self.range.end.as_deref())
            }
            _ => match self.advance_front()? {
                true => self.front.as_mut().expect("positioned").entry().map(Some),
                false => Ok(None),
            },
        };
        match entry {
            Ok(Some((key, value))) => {
                if let Some(probe) = &mut self.probe {
                    probe.forward(key.len() + value.len());
                }
                Ok(Some(read(key, value)))
            }
            Ok(None) => {
                self.finish();
                Ok(None)
            }
            Err(error) => self.fail(error),
        }
    }

    /// Lends the next entry from the back to `read`; `None` at the end. Copies nothing.
    pub fn next_back_with<R>(&mut self, read: impl FnOnce(&[u8], &[u8]) -> R) -> Result<Option<R>> {
        let entry = match &mut self.back {
            Some(cursor) if self.back_started && !self.started => {
                cursor.prev_from(&self.range.start)
            }
            _ => match self.advance_back()? {
                true => self.back.as_mut().expect("positioned").entry().map(Some),
                false => Ok(None),
            },
        };
        match entry {
            Ok(Some((key, value))) => {
                if let Some(probe) = &mut self.probe {
                    probe.backward(key.len() + value.len());
                }
                Ok(Some(read(key, value)))
            }
            Ok(None) => {
                self.finish();
                Ok(None)
            }
            Err(error) => self.fail(error),
        }
    }

    /// The next key, without reading its value; `None` at the end.
    pub fn next_key(&mut self) -> Result<Option<Value>> {
        if !self.advance_front()? {
            return Ok(None);
        }
        let key = self.front.as_ref().expect("positioned").key();
        if let Some(probe) = &mut self.probe {
            probe.forward(key.len());
        }
        Ok(Some(Value::copy_from(key)))
    }

    /// Skips ahead: the next entry from the front is the first one with a key `>= key`. Never
    /// moves back: a key at or before what was yielded changes nothing.
    ///
    /// ```
    /// # use hedgerow::{Kv, KvRead, Model};
    /// # let kv = Model::new();
    /// for key in ["a", "b", "c", "d"] {
    ///     kv.put(key, "")?;
    /// }
    /// let mut scan = kv.range("a".."d");
    /// scan.seek("c");
    /// assert_eq!(scan.next().unwrap()?.0, b"c");
    /// assert!(scan.next().is_none());
    /// # Ok::<(), hedgerow::Error>(())
    /// ```
    pub fn seek(&mut self, key: impl AsRef<[u8]>) {
        let key = key.as_ref();
        if let Some(probe) = &mut self.probe {
            probe.seek();
        }
        let ahead = match &self.front {
            Some(cursor) if self.started => cursor.key() < key,
            _ => true,
        };
        if ahead && key > self.range.start.as_slice() {
            self.range.start = key.to_vec();
            // The next step seeks from the new start.
            self.started = false;
        }
        if self.range.is_empty() {
            self.finish();
        }
    }
}

impl Iterator for Scan {
    type Item = Result<(Value, Value)>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_with(|key, value| (Value::copy_from(key), Value::copy_from(value)))
            .transpose()
    }
}

impl DoubleEndedIterator for Scan {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.next_back_with(|key, value| (Value::copy_from(key), Value::copy_from(value)))
            .transpose()
    }
}

impl std::iter::FusedIterator for Scan {}
