//! Scans: entries in key order, from both ends.

use std::fmt;
use std::sync::Arc;

use crate::engine::{Cursor, ReadView};
use crate::error::{Error, Result};
use crate::fs::fork::Owner;
use crate::types::{KeyRange, Value, is_from};
use crate::util::gate::Stay;
use crate::util::mutants::mutated;

/// A scan: entries in key order, from both ends.
///
/// As an [`Iterator`] and [`DoubleEndedIterator`] it yields owned keys and values;
/// [`Scan::next_with`] lends them instead. [`Scan::seek`] jumps ahead. After an error the scan
/// is over: it never skips what it could not read.
///
/// A scan holds a view of the keyspace: while it lives, files and memory that the view needs are
/// kept.
///
/// ```
/// use hedgerow::{Kv, Model};
///
/// let kv = Model::new();
/// for key in ["ada", "bob", "cyd", "dan", "eve", "fay"] {
///     kv.put(key, key.to_uppercase())?;
/// }
/// let mut scan = kv.range(..);
/// assert_eq!(scan.next().unwrap()?.0, "ada");
/// assert_eq!(scan.next_with(|key, value| (key.len(), value.len()))?, Some((3, 3)));
/// assert_eq!(scan.next_key()?.unwrap(), "cyd");
/// assert_eq!(scan.next_back_with(|key, _| key.to_vec())?.unwrap(), b"fay");
/// assert_eq!(scan.next_back_key()?.unwrap(), "eve");
/// assert_eq!(scan.next_back_entry()?.unwrap().1, b"DAN");
/// assert!(scan.next_entry()?.is_none());
/// # Ok::<(), hedgerow::Error>(())
/// ```
pub struct Scan {
    state: State,
    range: KeyRange,
    /// Stands on the last entry that the front yielded, once `started`.
    front: Option<Box<dyn Cursor>>,
    /// Stands on the last entry that the back yielded, once `back_started`.
    back: Option<Box<dyn Cursor>>,
    started: bool,
    back_started: bool,
    /// Told of what is taken, in a store that records its operations.
    observer: Option<Box<dyn ScanObserver>>,
    /// The process that opened the store, if there is one: what a child finds at the places that
    /// its copy knows may be something else by now, so every step asks.
    owner: Option<Owner>,
    /// A place in the store, whose directory stays locked meanwhile. Dropped last.
    stay: Option<Stay>,
}

/// Is told what a scan does. Dropped with the scan.
pub(crate) trait ScanObserver: Send + Sync {
    /// An entry of `len_bytes` bytes was taken from the front.
    fn forward(&mut self, len_bytes: usize);
    /// An entry of `len_bytes` bytes was taken from the back.
    fn backward(&mut self, len_bytes: usize);
    /// The scan jumped ahead.
    fn seek(&mut self);
}

enum State {
    Ready(Arc<dyn ReadView>),
    Failed(Error),
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
            observer: None,
            owner: None,
            stay: None,
        }
    }

    /// Stays in the store as long as there are a view or cursors.
    pub(crate) fn staying(mut self, stay: Stay) -> Self {
        if matches!(self.state, State::Ready(_)) {
            self.stay = Some(stay);
        }
        self
    }

    /// Has `observer` told of what is taken.
    pub(crate) fn observed_by(mut self, observer: Option<Box<dyn ScanObserver>>) -> Self {
        self.observer = observer;
        self
    }

    /// Is of a store that `owner` has opened.
    pub(crate) fn owned_by(mut self, owner: Owner) -> Self {
        self.owner = Some(owner);
        self
    }

    /// An error in a forked child, once.
    #[inline]
    fn check_owner(&mut self) -> Result<()> {
        match &self.owner {
            Some(owner) if !owner.is_this_process() && !mutated!("forked-child-scans-on") => {
                self.fail(Error::Forked)
            }
            _ => Ok(()),
        }
    }

    fn finish(&mut self) {
        self.state = State::Done;
        self.owner = None;
        self.front = None;
        self.back = None;
        self.stay = None;
    }

    fn fail<T>(&mut self, error: Error) -> Result<T> {
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
                let mut cursor = Arc::clone(&view).cursor();
                cursor.keep_within(&self.range);
                self.state = State::Ready(view);
                Ok(Some(cursor))
            }
        }
    }

    /// Moves the front to its next entry; false at the end.
    fn advance_front(&mut self) -> Result<bool> {
        self.check_owner()?;
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
        self.check_owner()?;
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
        self.check_owner()?;
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
                if let Some(observer) = &mut self.observer {
                    observer.forward(key.len() + value.len());
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
        self.check_owner()?;
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
                if let Some(observer) = &mut self.observer {
                    observer.backward(key.len() + value.len());
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
        if let Some(observer) = &mut self.observer {
            observer.forward(key.len());
        }
        Ok(Some(Value::copy_from(key)))
    }

    /// The next key from the back, without reading its value; `None` at the end.
    pub fn next_back_key(&mut self) -> Result<Option<Value>> {
        if !self.advance_back()? {
            return Ok(None);
        }
        let key = self.back.as_ref().expect("positioned").key();
        if let Some(observer) = &mut self.observer {
            observer.backward(key.len());
        }
        Ok(Some(Value::copy_from(key)))
    }

    /// The next entry, lent until the next call; `None` at the end. Copies nothing.
    ///
    /// ```
    /// # let kv = hedgerow::Model::new();
    /// # kv.put("ada", "1815")?;
    /// let mut scan = kv.iter();
    /// while let Some((key, value)) = scan.next_entry()? {
    ///     assert!(key == b"ada" && value == b"1815");
    /// }
    /// # Ok::<(), hedgerow::Error>(())
    /// ```
    pub fn next_entry(&mut self) -> Result<Option<(&[u8], &[u8])>> {
        if self.next_with(|_, _| ())?.is_none() {
            return Ok(None);
        }
        // The cursor stands on it and has its value at hand.
        self.front.as_mut().map(|cursor| cursor.entry()).transpose()
    }

    /// The next entry from the back, lent until the next call; `None` at the end. Copies nothing.
    pub fn next_back_entry(&mut self) -> Result<Option<(&[u8], &[u8])>> {
        if self.next_back_with(|_, _| ())?.is_none() {
            return Ok(None);
        }
        self.back.as_mut().map(|cursor| cursor.entry()).transpose()
    }

    /// Counts the entries that are left, without reading values that are stored apart. Unlike
    /// [`Iterator::count`], which counts an error as an item, it reports errors.
    ///
    /// ```
    /// # let kv = hedgerow::Model::new();
    /// # kv.put("ada", "1815")?;
    /// assert_eq!(kv.prefix("a").try_count()?, 1);
    /// # Ok::<(), hedgerow::Error>(())
    /// ```
    pub fn try_count(mut self) -> Result<u64> {
        let mut count = 0;
        while self.advance_front()? {
            count += 1;
            if let Some(observer) = &mut self.observer {
                observer.forward(self.front.as_ref().map_or(0, |cursor| cursor.key().len()));
            }
        }
        Ok(count)
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
        if let Some(observer) = &mut self.observer {
            observer.seek();
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
        self.finish_if_empty();
    }

    /// Skips ahead from the back: the next entry from the back is the last one with a key
    /// `<= key`. Never moves towards the end: a key at or behind what was yielded changes nothing.
    ///
    /// ```
    /// # let kv = hedgerow::Model::new();
    /// for key in ["a", "b", "c", "d"] {
    ///     kv.put(key, "")?;
    /// }
    /// let mut scan = kv.range("b"..);
    /// scan.seek_back("c");
    /// assert_eq!(scan.next_back().unwrap()?.0, b"c");
    /// assert_eq!(scan.next_back().unwrap()?.0, b"b");
    /// assert!(scan.next_back().is_none());
    /// # Ok::<(), hedgerow::Error>(())
    /// ```
    pub fn seek_back(&mut self, key: impl AsRef<[u8]>) {
        let key = key.as_ref();
        if let Some(observer) = &mut self.observer {
            observer.seek();
        }
        let ahead = match &self.back {
            Some(cursor) if self.back_started => cursor.key() > key,
            _ => true,
        };
        if ahead {
            let end = KeyRange::one(key).end;
            if self.range.end.is_none() || end < self.range.end {
                self.range.end = end;
                // The next step from the back seeks from the new end.
                self.back_started = false;
            }
        }
        self.finish_if_empty();
    }

    /// An error that was met when the scan began is its first item all the same.
    fn finish_if_empty(&mut self) {
        if self.range.is_empty() && !matches!(self.state, State::Failed(_)) {
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
