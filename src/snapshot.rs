//! Snapshots: immutable views, consistent over keyspaces and engines.

use std::sync::Arc;

use crate::engine::{Cursor, Entry, ReadView};
use crate::error::Result;
use crate::key::{KeyBounds, KeyRange};
use crate::keyspace::Keyspace;
use crate::kv::{KvRead, Scan, Value, read_once};
use crate::registry::OpenKeyspace;
use crate::store::Store;
use crate::trace::Hook;
use crate::types::{KeyspaceId, SeqNo};

/// An immutable view of all keyspaces of a store at one moment.
///
/// Cheap to take and to clone, and may be used from any thread. While it lives, the engines keep
/// the old versions, files and pages that it can see; drop it when it is no longer needed
/// ([`DbStats::oldest_snapshot_age_ops`](crate::DbStats) shows forgotten ones).
#[derive(Debug, Clone)]
pub struct Snapshot {
    inner: Arc<Inner>,
}

/// A [`Snapshot`] of one keyspace: [`KvRead`] as of its moment.
#[derive(Debug, Clone)]
pub struct KeyspaceSnapshot {
    /// `None` for a keyspace that did not exist yet: it is empty.
    view: Option<Arc<dyn ReadView>>,
    id: KeyspaceId,
    snapshot: Snapshot,
}

#[derive(Debug)]
struct Inner {
    /// Ordered by keyspace. Fields drop in order: the views before the registration.
    views: Vec<(KeyspaceId, Arc<dyn ReadView>)>,
    registration: Registration,
}

#[derive(Debug)]
struct Registration {
    seq: SeqNo,
    store: Arc<Store>,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.store.parts.visibility.unregister(self.seq);
    }
}

impl Snapshot {
    pub(crate) fn of_all(store: &Arc<Store>) -> Self {
        Self::take(store, &store.parts.registry.all())
    }

    pub(crate) fn of_one(store: &Arc<Store>, keyspace: &Arc<OpenKeyspace>) -> Self {
        Self::take(store, std::slice::from_ref(keyspace))
    }

    fn take(store: &Arc<Store>, keyspaces: &[Arc<OpenKeyspace>]) -> Self {
        let parts = &store.parts;
        let take = || {
            let seq = parts.visibility.register();
            let registration = Registration {
                seq,
                store: Arc::clone(store),
            };
            let view = |open: &Arc<OpenKeyspace>| (open.id, open.engine.snapshot_view(seq));
            Inner {
                views: keyspaces.iter().map(view).collect(),
                registration,
            }
        };
        let inner = match &parts.pipeline {
            // Between two commits every engine stands at the same sequence number.
            Some(pipeline) => pipeline.between_commits(take),
            None => take(),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// The moment: everything up to this sequence number is visible.
    pub fn seq(&self) -> SeqNo {
        self.inner.registration.seq
    }

    /// This snapshot's view of `keyspace`. A keyspace that was created later is empty.
    pub fn keyspace(&self, keyspace: &Keyspace) -> KeyspaceSnapshot {
        self.clone().into_keyspace(keyspace.open())
    }

    pub(crate) fn into_keyspace(self, open: &Arc<OpenKeyspace>) -> KeyspaceSnapshot {
        let views = &self.inner.views;
        let at = views.binary_search_by_key(&open.id, |(id, _)| *id);
        let view = at.ok().map(|at| Arc::clone(&views[at].1));
        KeyspaceSnapshot {
            view,
            id: open.id,
            snapshot: self,
        }
    }

    /// As [`KvRead::get`] on a keyspace of the snapshot.
    pub fn get(&self, keyspace: &Keyspace, key: impl AsRef<[u8]>) -> Result<Option<Value>> {
        KvRead::get(&self.keyspace(keyspace), key)
    }

    /// As [`KvRead::range`] on a keyspace of the snapshot.
    pub fn range(&self, keyspace: &Keyspace, bounds: impl KeyBounds) -> Scan {
        self.keyspace(keyspace).range(bounds)
    }

    /// As [`KvRead::prefix`] on a keyspace of the snapshot.
    pub fn prefix(&self, keyspace: &Keyspace, prefix: impl AsRef<[u8]>) -> Scan {
        self.keyspace(keyspace).prefix(prefix)
    }

    /// As [`KvRead::iter`] on a keyspace of the snapshot.
    pub fn iter(&self, keyspace: &Keyspace) -> Scan {
        self.keyspace(keyspace).iter()
    }
}

impl KeyspaceSnapshot {
    fn scan(&self, range: KeyRange) -> Scan {
        let probe = self.hook().and_then(|hook| hook.scan(&range));
        let view: Arc<dyn ReadView> = Arc::new(self.clone());
        Scan::new(Ok(view), range).probed(probe)
    }

    fn value(&self, key: &[u8]) -> Result<Option<Value>> {
        self.view
            .as_ref()
            .map_or(Ok(None), |view| view.get_value(key))
    }

    /// What reads are recorded with, if they are.
    #[inline]
    fn hook(&self) -> Option<Hook<'_>> {
        let store = &self.snapshot.inner.registration.store;
        Some(store.parts.recorder.as_ref()?.hook(self.id, true))
    }
}

/// A scan over a snapshot keeps the snapshot registered: it holds this view, not the engine's.
impl ReadView for KeyspaceSnapshot {
    fn get(&self, key: &[u8], read: &mut dyn FnMut(&[u8])) -> Result<bool> {
        self.view
            .as_ref()
            .map_or(Ok(false), |view| view.get(key, read))
    }

    fn cursor(self: Arc<Self>) -> Box<dyn Cursor> {
        match &self.view {
            Some(view) => {
                let cursor = Arc::clone(view).cursor();
                Box::new(HoldingCursor {
                    cursor,
                    _snapshot: self.snapshot.clone(),
                })
            }
            None => Box::new(NoEntries),
        }
    }
}

/// A cursor that keeps its snapshot registered.
struct HoldingCursor {
    cursor: Box<dyn Cursor>,
    _snapshot: Snapshot,
}

impl Cursor for HoldingCursor {
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

    fn contains(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        let key = key.as_ref();
        let found = ReadView::get(self, key, &mut |_| ())?;
        if let Some(hook) = self.hook() {
            hook.contains(key, found);
        }
        Ok(found)
    }

    fn multi_get<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<Vec<Option<Value>>> {
        let keys: Vec<&[u8]> = keys.iter().map(AsRef::as_ref).collect();
        let values: Vec<_> = keys
            .iter()
            .map(|key| self.value(key))
            .collect::<Result<_>>()?;
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
