//! Writes that lie over a view of an engine: those of a transaction, or of a large batch that the
//! engine does not have yet.

use std::fmt;
use std::ops::{Bound, Range};
use std::sync::Arc;

use super::cursor::{Cursor, Entry, Piece, ReadView};
use crate::error::Result;
use crate::types::{KeyRange, Value};
use crate::util::mutants::mutated;
use crate::values::OpenValue;

/// What lies over a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Laid<V> {
    /// Nothing: what is below shows.
    Nothing,
    Put(V),
    Deleted,
    /// What [`Overlay::merge`] makes of what is below.
    Merged,
}

impl<V> Laid<V> {
    pub(crate) fn map<W>(self, change: impl FnOnce(V) -> W) -> Laid<W> {
        match self {
            Self::Nothing => Laid::Nothing,
            Self::Put(value) => Laid::Put(change(value)),
            Self::Deleted => Laid::Deleted,
            Self::Merged => Laid::Merged,
        }
    }

    /// What shows of an overlay without merges: the value that was put, or what `below` gives if
    /// nothing lies over the key.
    pub(crate) fn or_below(self, below: impl FnOnce() -> Result<Option<V>>) -> Result<Option<V>> {
        match self {
            Self::Nothing | Self::Merged => below(),
            Self::Put(value) => Ok(Some(value)),
            Self::Deleted => Ok(None),
        }
    }
}

/// A key of an overlay that has a value, and that unless it depends on what is below.
pub(crate) type OwnEntry = (Vec<u8>, Option<Value>);

/// Writes that lie over a view: the outcome, not the operations one by one.
pub(crate) trait Overlay: fmt::Debug + Send + Sync + 'static {
    /// What lies over `key`.
    fn over(&self, key: &[u8]) -> Laid<&[u8]>;

    /// What operands that lie over `key` make of what is below. Only of one that has them.
    fn merge(&self, key: &[u8], below: Option<&[u8]>) -> Vec<u8> {
        let _ = key;
        below.unwrap_or_default().to_vec()
    }

    /// The deleted range that hides `key`, if there is one.
    fn removed_range(&self, key: &[u8]) -> Option<KeyRange>;

    /// The first key from `start` on that is put; `None` for its value if that is
    /// [merged](Laid::Merged).
    fn first_put(&self, start: Bound<&[u8]>) -> Option<OwnEntry>;

    /// The last key up to `end` that is put, likewise.
    fn last_put(&self, end: Bound<&[u8]>) -> Option<OwnEntry>;
}

/// A view with writes over it.
#[derive(Debug)]
pub(crate) struct OverlaidView<O> {
    base: Arc<dyn ReadView>,
    own: Arc<O>,
}

impl<O: Overlay> OverlaidView<O> {
    pub(crate) fn new(base: Arc<dyn ReadView>, own: Arc<O>) -> Self {
        Self { base, own }
    }

    /// The value of `key` if what lies over it is a merge.
    fn merged(&self, key: &[u8]) -> Result<Option<Value>> {
        match self.own.over(key) {
            Laid::Merged => merge_below(&*self.base, &*self.own, key).map(Some),
            _ => Ok(None),
        }
    }
}

/// What the operands over `key` make of what `base` has.
fn merge_below<O: Overlay>(base: &dyn ReadView, own: &O, key: &[u8]) -> Result<Value> {
    let below = base.get_value(key)?;
    Ok(own.merge(key, below.as_deref()).into())
}

impl<O: Overlay> ReadView for OverlaidView<O> {
    fn get(&self, key: &[u8], read: &mut dyn FnMut(&[u8])) -> Result<bool> {
        if let Some(merged) = self.merged(key)? {
            read(&merged);
            return Ok(true);
        }
        let laid = self.own.over(key).map(&mut *read);
        let below = || Ok(self.base.get(key, read)?.then_some(()));
        Ok(laid.or_below(below)?.is_some())
    }

    fn get_value(&self, key: &[u8]) -> Result<Option<Value>> {
        if let Some(merged) = self.merged(key)? {
            return Ok(Some(merged));
        }
        let laid = self.own.over(key).map(Value::copy_from);
        laid.or_below(|| self.base.get_value(key))
    }

    fn contains(&self, key: &[u8]) -> Result<bool> {
        if matches!(self.own.over(key), Laid::Merged) {
            return Ok(true);
        }
        let below = || Ok(self.base.contains(key)?.then_some(()));
        Ok(self.own.over(key).map(|_| ()).or_below(below)?.is_some())
    }

    fn get_part(&self, key: &[u8], part: Range<usize>) -> Result<Option<Value>> {
        if let Some(merged) = self.merged(key)? {
            return Ok(Some(Value::copy_part(&merged, &part)));
        }
        let laid = self.own.over(key);
        let laid = laid.map(|value| Value::copy_part(value, &part));
        laid.or_below(|| self.base.get_part(key, part))
    }

    fn open_value(&self, key: &[u8]) -> Result<Option<OpenValue>> {
        if let Some(merged) = self.merged(key)? {
            return Ok(Some(OpenValue::Whole(merged)));
        }
        let laid = self.own.over(key);
        let laid = laid.map(|value| OpenValue::Whole(Value::copy_from(value)));
        laid.or_below(|| self.base.open_value(key))
    }

    fn multi_get(&self, keys: &[&[u8]]) -> Result<Vec<Option<Value>>> {
        over_many(&*self.own, keys, |rest| self.base.multi_get(rest))
    }

    fn pieces(self: Arc<Self>, range: &KeyRange, at_least: usize) -> Result<Vec<Piece>> {
        Arc::clone(&self.base).pieces(range, at_least)
    }

    fn cursor(self: Arc<Self>) -> Box<dyn Cursor> {
        let base = Arc::clone(&self.base).cursor();
        let own = Arc::clone(&self.own);
        Box::new(OverlaidCursor::new(Arc::clone(&self.base), base, own))
    }
}

/// The values of `keys` as they are with `own` over what `below` gives.
pub(crate) fn over_many(
    own: &impl Overlay,
    keys: &[&[u8]],
    below: impl FnOnce(&[&[u8]]) -> Result<Vec<Option<Value>>>,
) -> Result<Vec<Option<Value>>> {
    let laid: Vec<_> = keys.iter().map(|key| own.over(key)).collect();
    let is_below =
        |(_, laid): &(&&[u8], &Laid<&[u8]>)| matches!(laid, Laid::Nothing | Laid::Merged);
    let rest: Vec<&[u8]> = keys
        .iter()
        .zip(&laid)
        .filter(is_below)
        .map(|(key, _)| *key)
        .collect();
    let mut rest = below(&rest)?.into_iter();
    let value = |(key, laid): (&&[u8], _)| match laid {
        Laid::Nothing => rest.next().flatten(),
        Laid::Put(value) => Some(Value::copy_from(value)),
        Laid::Deleted => None,
        Laid::Merged => Some(own.merge(key, rest.next().flatten().as_deref()).into()),
    };
    Ok(keys.iter().zip(laid).map(value).collect())
}

/// Entries of a view, with those that lie over it in their places.
///
/// Both stand, in the direction of the last move, at or behind the entry that the cursor is on. To
/// turn round is to be positioned anew.
struct OverlaidCursor<O> {
    view: Arc<dyn ReadView>,
    base: Box<dyn Cursor>,
    own: Arc<O>,
    at: At,
    /// The own entry that is next, or that the cursor is on.
    own_entry: Option<OwnEntry>,
    /// Nothing of the view is left in the direction of the last move.
    base_is_over: bool,
    is_forward: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Nowhere,
    Base,
    Own,
}

impl<O: Overlay> OverlaidCursor<O> {
    fn new(view: Arc<dyn ReadView>, base: Box<dyn Cursor>, own: Arc<O>) -> Self {
        Self {
            view,
            base,
            own,
            at: At::Nowhere,
            own_entry: None,
            base_is_over: false,
            is_forward: true,
        }
    }

    fn has_base(&self) -> bool {
        !self.base_is_over && self.base.is_valid()
    }

    /// Moves the cursor of the view forwards to an entry that nothing lies over.
    fn skip_changed(&mut self) -> Result<()> {
        while self.has_base() {
            let key = self.base.key();
            match self.own.over(key) {
                Laid::Nothing => return Ok(()),
                Laid::Put(_) | Laid::Merged => self.base.next()?,
                Laid::Deleted => match self.own.removed_range(key) {
                    None => self.base.next()?,
                    Some(KeyRange { end: None, .. }) => self.base_is_over = true,
                    Some(KeyRange { end: Some(end), .. }) => self.base.seek(&end)?,
                },
            }
        }
        Ok(())
    }

    /// The same backwards.
    fn skip_changed_back(&mut self) -> Result<()> {
        while self.has_base() {
            let key = self.base.key();
            match self.own.over(key) {
                Laid::Nothing => return Ok(()),
                Laid::Put(_) | Laid::Merged => self.base.prev()?,
                Laid::Deleted => match self.own.removed_range(key) {
                    None => self.base.prev()?,
                    Some(KeyRange { start, .. }) => self.base.seek_before(&start)?,
                },
            }
        }
        Ok(())
    }

    /// Stands on the first of both.
    fn settle(&mut self) -> Result<()> {
        self.skip_changed()?;
        self.at = match &self.own_entry {
            Some((own, _)) if !self.has_base() || own.as_slice() < self.base.key() => At::Own,
            _ if self.has_base() => At::Base,
            _ => At::Nowhere,
        };
        Ok(())
    }

    /// Stands on the last of both.
    fn settle_back(&mut self) -> Result<()> {
        self.skip_changed_back()?;
        self.at = match &self.own_entry {
            Some((own, _)) if !self.has_base() || own.as_slice() > self.base.key() => At::Own,
            _ if self.has_base() => At::Base,
            _ => At::Nowhere,
        };
        Ok(())
    }

    /// A move forwards begins: after an error in it the cursor stands nowhere.
    fn begin(&mut self, own_from: Bound<&[u8]>) {
        self.at = At::Nowhere;
        self.is_forward = true;
        self.own_entry = self.own.first_put(own_from);
    }

    fn begin_back(&mut self, own_upto: Bound<&[u8]>) {
        self.at = At::Nowhere;
        self.is_forward = false;
        self.own_entry = match mutated!("own-writes-missed-by-a-backward-scan") {
            true => None,
            false => self.own.last_put(own_upto),
        };
    }
}

impl<O: Overlay> Cursor for OverlaidCursor<O> {
    fn keep_within(&mut self, range: &KeyRange) {
        self.base.keep_within(range);
    }

    fn seek_first(&mut self) -> Result<()> {
        self.begin(Bound::Unbounded);
        self.base_is_over = false;
        self.base.seek_first()?;
        self.settle()
    }

    fn seek_last(&mut self) -> Result<()> {
        self.begin_back(Bound::Unbounded);
        self.base_is_over = false;
        self.base.seek_last()?;
        self.settle_back()
    }

    fn seek(&mut self, key: &[u8]) -> Result<()> {
        self.begin(Bound::Included(key));
        self.base_is_over = false;
        self.base.seek(key)?;
        self.settle()
    }

    fn seek_before(&mut self, key: &[u8]) -> Result<()> {
        self.begin_back(Bound::Excluded(key));
        self.base_is_over = false;
        self.base.seek_before(key)?;
        self.settle_back()
    }

    fn next(&mut self) -> Result<()> {
        if !self.is_forward {
            let mut after = self.key().to_vec();
            after.push(0);
            return self.seek(&after);
        }
        match std::mem::replace(&mut self.at, At::Nowhere) {
            At::Own => {
                let (key, _) = self.own_entry.take().expect("it stands on it");
                self.begin(Bound::Excluded(&key));
            }
            _ => self.base.next()?,
        }
        self.settle()
    }

    fn prev(&mut self) -> Result<()> {
        if self.is_forward {
            let key = self.key().to_vec();
            return self.seek_before(&key);
        }
        match std::mem::replace(&mut self.at, At::Nowhere) {
            At::Own => {
                let (key, _) = self.own_entry.take().expect("it stands on it");
                self.begin_back(Bound::Excluded(&key));
            }
            _ => self.base.prev()?,
        }
        self.settle_back()
    }

    fn is_valid(&self) -> bool {
        self.at != At::Nowhere
    }

    fn key(&self) -> &[u8] {
        match (self.at, &self.own_entry) {
            (At::Own, Some((key, _))) => key,
            _ => self.base.key(),
        }
    }

    fn entry(&mut self) -> Result<Entry<'_>> {
        let Self {
            view,
            base,
            own,
            at,
            own_entry,
            ..
        } = self;
        match (*at, own_entry) {
            (At::Own, Some((key, Some(value)))) => Ok((key, value)),
            (At::Own, Some((key, value @ None))) => {
                let merged = merge_below(&**view, &**own, key)?;
                Ok((key, value.insert(merged)))
            }
            _ => base.entry(),
        }
    }
}
