//! Views and cursors: how an engine is read.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use crate::error::Result;
use crate::types::{KeyRange, Value, is_from};
use crate::values::OpenValue;

/// What `copy` makes of the value that `get` lends, if it finds one.
pub(super) fn copied(
    get: impl FnOnce(&mut dyn FnMut(&[u8])) -> Result<bool>,
    copy: impl Fn(&[u8]) -> Value,
) -> Result<Option<Value>> {
    let mut value = None;
    get(&mut |bytes| value = Some(copy(bytes)))?;
    Ok(value)
}

/// An immutable view of one keyspace. Holding one keeps the files it needs.
pub(crate) trait ReadView: fmt::Debug + Send + Sync {
    /// As [`Engine::get`](super::Engine::get).
    fn get(&self, key: &[u8], read: &mut dyn FnMut(&[u8])) -> Result<bool>;

    /// As [`Engine::get_value`](super::Engine::get_value).
    fn get_value(&self, key: &[u8]) -> Result<Option<Value>> {
        copied(|read| self.get(key, read), Value::copy_from)
    }

    /// As [`Engine::contains`](super::Engine::contains).
    fn contains(&self, key: &[u8]) -> Result<bool> {
        self.get(key, &mut |_| ())
    }

    /// As [`Engine::get_part`](super::Engine::get_part).
    fn get_part(&self, key: &[u8], part: Range<usize>) -> Result<Option<Value>> {
        copied(
            |read| self.get(key, read),
            |bytes| Value::copy_part(bytes, &part),
        )
    }

    /// As [`Engine::open_value`](super::Engine::open_value).
    fn open_value(&self, key: &[u8]) -> Result<Option<OpenValue>> {
        Ok(self.get_value(key)?.map(OpenValue::Whole))
    }

    /// The values of `keys`, in their order.
    fn multi_get(&self, keys: &[&[u8]]) -> Result<Vec<Option<Value>>> {
        keys.iter().map(|key| self.get_value(key)).collect()
    }

    /// `range` in pieces with rising starts, at least `at_least` of them if there are as many
    /// entries: what estimates are made of. Empty for an empty range. [`entry_pieces`] does for
    /// short ranges.
    fn pieces(self: Arc<Self>, range: &KeyRange, at_least: usize) -> Result<Vec<Piece>>;

    /// A cursor over the view, positioned nowhere.
    fn cursor(self: Arc<Self>) -> Box<dyn Cursor>;
}

/// `range` with a piece for each entry.
pub(crate) fn entry_pieces(view: Arc<dyn ReadView>, range: &KeyRange) -> Result<Vec<Piece>> {
    let mut pieces = Vec::new();
    if range.is_empty() {
        return Ok(pieces);
    }
    let mut cursor = view.cursor();
    cursor.keep_within(range);
    cursor.seek(&range.start)?;
    while cursor.is_valid() {
        let (key, value) = cursor.entry()?;
        if range.end.as_ref().is_some_and(|end| key >= end.as_slice()) {
            break;
        }
        pieces.push(Piece {
            start: key.to_vec(),
            entries: 1,
            bytes: (key.len() + value.len()) as u64,
        });
        cursor.next()?;
    }
    Ok(pieces)
}

/// A part of a range: what lies from `start` to the next piece's start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Where it begins.
    pub(crate) start: Vec<u8>,
    /// Entries in it, about.
    pub(crate) entries: u64,
    /// Bytes that they take, about.
    pub(crate) bytes: u64,
}

/// A position in a [`ReadView`].
///
/// A cursor stands on an entry or nowhere ([`Cursor::is_valid`]). After an
/// error it stands nowhere. `next` and `prev` may be mixed freely, and are only
/// called on a valid cursor.
pub(crate) trait Cursor: Send {
    /// Entries outside of `range` will not be wanted: where there is none in it, the cursor may
    /// stand nowhere instead of on one outside. A hint, given before the cursor is positioned.
    fn keep_within(&mut self, range: &KeyRange) {
        let _ = range;
    }
    /// Goes to the first entry.
    fn seek_first(&mut self) -> Result<()>;
    /// Goes to the last entry.
    fn seek_last(&mut self) -> Result<()>;
    /// Goes to the first entry whose key is `>= key`.
    fn seek(&mut self, key: &[u8]) -> Result<()>;
    /// Goes to the last entry whose key is `< key`.
    fn seek_before(&mut self, key: &[u8]) -> Result<()>;
    /// Goes to the next entry in key order.
    fn next(&mut self) -> Result<()>;
    /// Goes to the previous entry in key order.
    fn prev(&mut self) -> Result<()>;
    /// True if the cursor stands on an entry.
    fn is_valid(&self) -> bool;
    /// The key of the entry. Only on a valid cursor.
    fn key(&self) -> &[u8];
    /// The key and the value of the entry. Only on a valid cursor. May read: a large
    /// value is loaded when it is asked for.
    fn entry(&mut self) -> Result<Entry<'_>>;

    /// Goes to the next entry and lends it; `None` if there is none, or if its key is not below
    /// `end`. All that a step of a scan takes, in one call.
    fn next_below(&mut self, end: Option<&[u8]>) -> Result<Option<Entry<'_>>> {
        self.next()?;
        if !self.is_valid() || end.is_some_and(|end| self.key() >= end) {
            return Ok(None);
        }
        self.entry().map(Some)
    }

    /// Goes to the previous entry and lends it; `None` if there is none, or if its key is below
    /// `start`.
    fn prev_from(&mut self, start: &[u8]) -> Result<Option<Entry<'_>>> {
        self.prev()?;
        if !self.is_valid() || !is_from(self.key(), start) {
            return Ok(None);
        }
        self.entry().map(Some)
    }
}

/// A key and its value, lent.
pub(crate) type Entry<'a> = (&'a [u8], &'a [u8]);
