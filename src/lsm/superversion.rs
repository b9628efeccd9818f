//! Views: everything a read needs, behind one pointer.
//!
//! A [`Superversion`] names the memtables and the version of one moment. The engine keeps the
//! current one in an atomic pointer; a read loads it once and holds no lock. Rotation, flush and
//! compaction replace it.
//!
//! # View first, number second
//!
//! A read loads its superversion *first* and the published number *second*. The other way round it
//! could miss what it must see. Say it takes number 10 and is suspended; meanwhile operation 11
//! overwrites key k and is published, and a flush, for which no read below 11 exists, keeps only
//! version 11 of k and installs its table. With a view loaded now, the read at 10 would find
//! version 11 (too new) and no other, and report k absent. Taken in the right order the read either
//! has the older view, which still has the memtable with both versions, or a number of at least 11.
//! In general: tables made with published number `p` are installed after `p` was published, so a
//! read that sees them is at `p` or higher; and [`super::retention`] keeps what such reads need. A
//! read never sees *less* than what was published when it began (E4), since the number is taken
//! after it began, and memtables reach the superversion before anything is inserted into them.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::empty_ranges::EmptyRanges;
use super::entry::{Entry, EntryKind};
use super::fold::{Folding, Merged};
use super::lookup::find;
use super::memtable::Memtable;
use super::scan::{ScanCursor, ScanKeep, is_seen};
use super::version::Version;
use crate::engine::{Cursor, Piece, ReadView};
use crate::error::Result;
use crate::resolve::Resolver;
use crate::types::{KeyRange, SeqNo, Value};
use crate::values::{OpenValue, ValueFiles};

/// Memtables and version of one moment. Immutable, but for the active memtable's growth.
#[derive(Debug, Clone)]
pub(crate) struct Superversion {
    /// Where writes go.
    pub(crate) active: Arc<Memtable>,
    /// Full memtables that wait for their flush, newest first.
    pub(crate) immutable: Vec<Arc<Memtable>>,
    /// The tables.
    pub(crate) version: Arc<Version>,
    /// Where there is nothing to see: one list for all superversions of a tree.
    pub(crate) empty_ranges: Arc<EmptyRanges>,
    /// Where values are that are stored apart.
    pub(crate) values: Arc<ValueFiles>,
    /// What values may do besides being there.
    pub(crate) resolver: Arc<Resolver>,
}

impl Superversion {
    /// The memtables, newest first.
    pub(crate) fn memtables(&self) -> impl Iterator<Item = &Arc<Memtable>> {
        std::iter::once(&self.active).chain(&self.immutable)
    }

    /// Lends the value of `key` as of `seq` to `read` and returns true, or returns false.
    pub(crate) fn get(&self, key: &[u8], seq: SeqNo, read: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let mut lent = Ok(());
        let mut merged = None;
        let found = self.find(key, seq, &mut |entry| match entry.kind {
            EntryKind::Put => read(entry.value),
            EntryKind::Merge => merged = Some(Merged::of(entry)),
            _ => lent = self.values.get(entry.value).map(|value| read(&value)),
        })?;
        if let Some(merged) = merged {
            read(&self.fold(key, &merged)?);
        }
        lent.map(|()| found)
    }

    /// The value of a key whose newest entry is a merge.
    #[cold]
    pub(super) fn fold(&self, key: &[u8], newest: &Merged) -> Result<Vec<u8>> {
        let folding = Folding {
            version: &self.version,
            resolver: &self.resolver,
            values: &self.values,
            find: |seq, visit: &mut dyn FnMut(&Entry<'_>)| self.find(key, seq, visit),
        };
        folding.fold(key, newest)
    }

    /// True if `key` has a value as of `seq`.
    pub(crate) fn contains(&self, key: &[u8], seq: SeqNo) -> Result<bool> {
        self.find(key, seq, &mut |_| ())
    }

    /// `part` of the value of `key` as of `seq`.
    pub(crate) fn get_part(
        &self,
        key: &[u8],
        part: Range<usize>,
        seq: SeqNo,
    ) -> Result<Option<Value>> {
        let mut value = Ok(None);
        let mut merged = None;
        self.find(key, seq, &mut |entry| {
            value = match entry.kind {
                EntryKind::Merge => {
                    merged = Some(Merged::of(entry));
                    Ok(None)
                }
                EntryKind::PutRef => self
                    .values
                    .get_part(entry.value, part.clone())
                    .map(|found| Some(Value::copy_from(&found))),
                _ => Ok(Some(Value::copy_part(entry.value, &part))),
            };
        })?;
        if let Some(merged) = merged {
            let folded = self.fold(key, &merged)?;
            return Ok(Some(Value::copy_part(&folded, &part)));
        }
        value
    }

    /// The value of `key` as of `seq`, to be read by and by.
    pub(crate) fn open_value(&self, key: &[u8], seq: SeqNo) -> Result<Option<OpenValue>> {
        let mut value = Ok(None);
        let mut merged = None;
        self.find(key, seq, &mut |entry| {
            value = match entry.kind {
                // VF1: what the entry is in holds the file.
                EntryKind::PutRef => self
                    .values
                    .hold_value(entry.value)
                    .map(|held| Some(OpenValue::Apart(held))),
                EntryKind::Merge => {
                    merged = Some(Merged::of(entry));
                    Ok(None)
                }
                _ => Ok(Some(OpenValue::Whole(Value::copy_from(entry.value)))),
            };
        })?;
        if let Some(merged) = merged {
            let folded = self.fold(key, &merged)?;
            return Ok(Some(OpenValue::Whole(folded.into())));
        }
        value
    }

    /// Lends the entry of `key` as of `seq`, if that sets it, to `visit` and returns true, or
    /// returns false.
    ///
    /// Sources are searched from the newest on, and the first that knows the key decides: by LV3 of
    /// [`super::version`], and because memtables are older the further back they are. A range
    /// tombstone in a source hides what is older in the same source, and everything in later ones.
    #[inline]
    pub(crate) fn find(
        &self,
        key: &[u8],
        seq: SeqNo,
        visit: &mut dyn FnMut(&Entry<'_>),
    ) -> Result<bool> {
        find(self.memtables(), &self.version, key, seq, visit)
    }

    /// A cursor over what reads at `seq` see, standing nowhere.
    pub(crate) fn scan(&self, seq: SeqNo) -> ScanCursor {
        let keep = ScanKeep {
            version: Arc::clone(&self.version),
            memtables: self
                .memtables()
                .filter(|memtable| is_seen(memtable, seq) || memtable.tombstones().len() > 0)
                .cloned()
                .collect(),
            values: Arc::clone(&self.values),
            empty_ranges: Arc::clone(&self.empty_ranges),
            resolver: Arc::clone(&self.resolver),
        };
        ScanCursor::over(keep, seq)
    }
}

/// A view for one scan: holds the superversion.
#[derive(Debug)]
pub(crate) struct ScanView {
    pub(crate) superversion: Arc<Superversion>,
    pub(crate) seq: SeqNo,
}

impl ReadView for ScanView {
    fn get(&self, key: &[u8], read: &mut dyn FnMut(&[u8])) -> Result<bool> {
        self.superversion.get(key, self.seq, read)
    }

    fn contains(&self, key: &[u8]) -> Result<bool> {
        self.superversion.contains(key, self.seq)
    }

    fn get_part(&self, key: &[u8], part: Range<usize>) -> Result<Option<Value>> {
        self.superversion.get_part(key, part, self.seq)
    }

    fn open_value(&self, key: &[u8]) -> Result<Option<OpenValue>> {
        self.superversion.open_value(key, self.seq)
    }

    fn multi_get(&self, keys: &[&[u8]]) -> Result<Vec<Option<Value>>> {
        self.superversion.multi_get(keys, self.seq)
    }

    fn pieces(self: Arc<Self>, range: &KeyRange, at_least: usize) -> Result<Vec<Piece>> {
        self.superversion.pieces(range, at_least)
    }

    fn cursor(self: Arc<Self>) -> Box<dyn Cursor> {
        Box::new(self.superversion.scan(self.seq))
    }
}

/// A view for a snapshot, which may live long: it holds no memtable and no table. Its number is
/// registered with the snapshot tracker, so flushes and compactions keep what it sees, and it reads
/// from the current superversion.
pub(crate) struct SnapshotView {
    current: Arc<ArcSwap<Superversion>>,
    seq: SeqNo,
}

impl SnapshotView {
    /// A view at `seq` of the tree that `current` holds.
    pub(crate) fn new(current: Arc<ArcSwap<Superversion>>, seq: SeqNo) -> Self {
        Self { current, seq }
    }
}

impl fmt::Debug for SnapshotView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SnapshotView")
            .field("seq", &self.seq)
            .finish_non_exhaustive()
    }
}

impl ReadView for SnapshotView {
    fn get(&self, key: &[u8], read: &mut dyn FnMut(&[u8])) -> Result<bool> {
        self.current.load().get(key, self.seq, read)
    }

    fn contains(&self, key: &[u8]) -> Result<bool> {
        self.current.load().contains(key, self.seq)
    }

    fn get_part(&self, key: &[u8], part: Range<usize>) -> Result<Option<Value>> {
        self.current.load().get_part(key, part, self.seq)
    }

    fn open_value(&self, key: &[u8]) -> Result<Option<OpenValue>> {
        self.current.load().open_value(key, self.seq)
    }

    fn multi_get(&self, keys: &[&[u8]]) -> Result<Vec<Option<Value>>> {
        self.current.load_full().multi_get(keys, self.seq)
    }

    fn pieces(self: Arc<Self>, range: &KeyRange, at_least: usize) -> Result<Vec<Piece>> {
        self.current.load_full().pieces(range, at_least)
    }

    fn cursor(self: Arc<Self>) -> Box<dyn Cursor> {
        Box::new(self.current.load().scan(self.seq))
    }
}
