//! Snapshots of one keyspace.

use std::ops::{Range, RangeBounds};
use std::sync::Arc;

use super::pinned_views::PinnedViews;
use crate::engine::{Cursor, Entry, Piece, ReadView};
use crate::error::{Error, Result};
use crate::fs::fork::Owner;
use crate::kv::{KvRead, Readable, Scan, ValueReader, inherent_reads, part_of_value, read_once};
use crate::store::{OpenKeyspace, Store};
use crate::trace::Hook;
use crate::types::{KeyBounds, KeyRange, KeyspaceId, Value};
use crate::values::OpenValue;

/// A [`Snapshot`](crate::Snapshot) of one keyspace: [`KvRead`] as of its moment.
///
/// Taking one cannot fail. If the store was closed before, or the keyspace dropped or of another
/// store, every read of the snapshot returns that error.
#[derive(Debug, Clone)]
pub struct KeyspaceSnapshot {
    /// `None` for a keyspace that did not exist yet: it is empty.
    view: Result<Option<Arc<dyn ReadView>>>,
    id: KeyspaceId,
    views: PinnedViews,
}

impl KeyspaceSnapshot {
    /// The view of one keyspace among `views`.
    pub(crate) fn new(views: PinnedViews, store: &Arc<Store>, keyspace: &OpenKeyspace) -> Self {
        let view = if Arc::ptr_eq(views.store(), store) {
            views.view(keyspace)
        } else {
            Err(Error::invalid(format!(
                "keyspace {:?} belongs to another store than the snapshot",
                keyspace.name()
            )))
        };
        Self {
            view,
            id: keyspace.id,
            views,
        }
    }

    /// One whose every read fails with `error`.
    pub(crate) fn failed(views: PinnedViews, keyspace: &OpenKeyspace, error: Error) -> Self {
        Self {
            view: Err(error),
            id: keyspace.id,
            views,
        }
    }

    /// An error if every read would be that.
    #[inline]
    pub(crate) fn check(&self) -> Result<()> {
        self.view().map(drop)
    }

    /// The view, unless the keyspace did not exist yet. Asked by every read.
    #[inline]
    fn view(&self) -> Result<Option<&Arc<dyn ReadView>>> {
        self.owner().check()?;
        match &self.view {
            Ok(view) => Ok(view.as_ref()),
            Err(error) => Err(error.clone()),
        }
    }

    pub(crate) fn scan(&self, range: KeyRange) -> Scan {
        self.scan_with(range, |view| view)
    }

    /// A scan of what `over` makes of this view.
    pub(crate) fn scan_with(
        &self,
        range: KeyRange,
        over: impl FnOnce(Arc<dyn ReadView>) -> Arc<dyn ReadView>,
    ) -> Scan {
        let observer = self.hook().and_then(|hook| hook.scan(&range));
        let view = self.view().map(|_| over(Arc::new(self.clone())));
        Scan::new(view, range)
            .observed_by(observer)
            .owned_by(self.owner())
    }

    fn value(&self, key: &[u8]) -> Result<Option<Value>> {
        self.view()?.map_or(Ok(None), |view| view.get_value(key))
    }

    /// The process that opened the store.
    #[inline]
    fn owner(&self) -> Owner {
        self.views.store().shared.owner
    }

    /// What reads are recorded with, if they are.
    #[inline]
    fn hook(&self) -> Option<Hook<'_>> {
        Some(
            self.views
                .store()
                .shared
                .recorder
                .as_ref()?
                .hook(self.id, true),
        )
    }
}

/// A scan over a snapshot keeps the snapshot registered: it holds this view, not the engine's.
impl ReadView for KeyspaceSnapshot {
    fn get(&self, key: &[u8], read: &mut dyn FnMut(&[u8])) -> Result<bool> {
        self.view()?.map_or(Ok(false), |view| view.get(key, read))
    }

    fn contains(&self, key: &[u8]) -> Result<bool> {
        self.view()?.map_or(Ok(false), |view| view.contains(key))
    }

    fn get_part(&self, key: &[u8], part: Range<usize>) -> Result<Option<Value>> {
        self.view()?
            .map_or(Ok(None), |view| view.get_part(key, part))
    }

    fn open_value(&self, key: &[u8]) -> Result<Option<OpenValue>> {
        self.view()?.map_or(Ok(None), |view| view.open_value(key))
    }

    fn pieces(self: Arc<Self>, range: &KeyRange, at_least: usize) -> Result<Vec<Piece>> {
        Readable::pieces(&*self, range, at_least)
    }

    fn cursor(self: Arc<Self>) -> Box<dyn Cursor> {
        match &self.view {
            Ok(Some(view)) => {
                let cursor = Arc::clone(view).cursor();
                Box::new(HoldingCursor {
                    cursor,
                    _views: self.views.clone(),
                })
            }
            // Of a view that is an error no scan is made.
            Ok(None) | Err(_) => Box::new(NoEntries),
        }
    }
}

/// A cursor that keeps its snapshot registered.
struct HoldingCursor {
    cursor: Box<dyn Cursor>,
    _views: PinnedViews,
}

impl Cursor for HoldingCursor {
    fn keep_within(&mut self, range: &KeyRange) {
        self.cursor.keep_within(range);
    }

    fn seek_first(&mut self) -> Result<()> {
        self.cursor.seek_first()
    }

    fn seek_last(&mut self) -> Result<()> {
        self.cursor.seek_last()
    }

    fn seek(&mut self, key: &[u8]) -> Result<()> {
        self.cursor.seek(key)
    }

    fn seek_before(&mut self, key: &[u8]) -> Result<()> {
        self.cursor.seek_before(key)
    }

    fn next(&mut self) -> Result<()> {
        self.cursor.next()
    }

    fn prev(&mut self) -> Result<()> {
        self.cursor.prev()
    }

    fn is_valid(&self) -> bool {
        self.cursor.is_valid()
    }

    fn key(&self) -> &[u8] {
        self.cursor.key()
    }

    fn entry(&mut self) -> Result<Entry<'_>> {
        self.cursor.entry()
    }

    fn next_below(&mut self, end: Option<&[u8]>) -> Result<Option<Entry<'_>>> {
        self.cursor.next_below(end)
    }

    fn prev_from(&mut self, start: &[u8]) -> Result<Option<Entry<'_>>> {
        self.cursor.prev_from(start)
    }
}

/// The cursor of an empty keyspace.
struct NoEntries;

impl Cursor for NoEntries {
    fn seek_first(&mut self) -> Result<()> {
        Ok(())
    }

    fn seek_last(&mut self) -> Result<()> {
        Ok(())
    }

    fn seek(&mut self, _: &[u8]) -> Result<()> {
        Ok(())
    }

    fn seek_before(&mut self, _: &[u8]) -> Result<()> {
        Ok(())
    }

    fn next(&mut self) -> Result<()> {
        Ok(())
    }

    fn prev(&mut self) -> Result<()> {
        Ok(())
    }

    fn is_valid(&self) -> bool {
        false
    }

    fn key(&self) -> &[u8] {
        &[]
    }

    fn entry(&mut self) -> Result<(&[u8], &[u8])> {
        Ok((&[], &[]))
    }
}

inherent_reads!(KeyspaceSnapshot);

impl Readable for KeyspaceSnapshot {
    fn pieces(&self, range: &KeyRange, at_least: usize) -> Result<Vec<Piece>> {
        self.view()?.map_or(Ok(Vec::new()), |view| {
            Arc::clone(view).pieces(range, at_least)
        })
    }
}

impl KvRead for KeyspaceSnapshot {
    fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Value>> {
        let key = key.as_ref();
        let value = self.value(key)?;
        if let Some(hook) = self.hook() {
            hook.get(key, value.as_ref().map(|value| value.len()));
        }
        Ok(value)
    }

    fn get_with<R>(
        &self,
        key: impl AsRef<[u8]>,
        read: impl FnOnce(&[u8]) -> R,
    ) -> Result<Option<R>> {
        let key = key.as_ref();
        let found = read_once(read, |visit| ReadView::get(self, key, visit))?;
        if let Some(hook) = self.hook() {
            hook.get(key, found.as_ref().map(|(_, len_bytes)| *len_bytes));
        }
        Ok(found.map(|(result, _)| result))
    }

    fn get_range(
        &self,
        key: impl AsRef<[u8]>,
        part: impl RangeBounds<usize>,
    ) -> Result<Option<Value>> {
        let key = key.as_ref();
        let found = ReadView::get_part(self, key, part_of_value(&part))?;
        if let Some(hook) = self.hook() {
            // How long the whole value is was not asked.
            hook.contains(key, found.is_some());
        }
        Ok(found)
    }

    fn reader(&self, key: impl AsRef<[u8]>) -> Result<Option<ValueReader>> {
        let key = key.as_ref();
        let found = ReadView::open_value(self, key)?;
        let reader = found
            .map(|value| ValueReader::new(value, self.owner(), self.views.stay()))
            .transpose()?;
        if let Some(hook) = self.hook() {
            hook.get(key, reader.as_ref().map(|reader| reader.len() as usize));
        }
        Ok(reader)
    }

    fn contains_key(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        let key = key.as_ref();
        let found = ReadView::contains(self, key)?;
        if let Some(hook) = self.hook() {
            hook.contains(key, found);
        }
        Ok(found)
    }

    fn multi_get<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<Vec<Option<Value>>> {
        let keys: Vec<&[u8]> = keys.iter().map(AsRef::as_ref).collect();
        let values = match self.view()? {
            Some(view) => view.multi_get(&keys)?,
            None => vec![None; keys.len()],
        };
        if let Some(hook) = self.hook() {
            hook.multi_get(&keys, &values);
        }
        Ok(values)
    }

    fn range(&self, bounds: impl KeyBounds) -> Scan {
        self.scan(KeyRange::new(&bounds))
    }

    fn prefix(&self, prefix: impl AsRef<[u8]>) -> Scan {
        self.scan(KeyRange::prefix(prefix.as_ref()))
    }
}
