//! Windows into the memtable's indexes, merges and the manifest, for fuzz targets and benches.

use std::sync::Arc;

use crate::error::Result;
use crate::lsm::entry;
use crate::lsm::entry::{EntryCursor, EntryKind};
use crate::lsm::memtable::{BTreeIndex, MemtableIndex, SkipListIndex};
use crate::lsm::merge::MergeCursor;
use crate::lsm::source::Source;
use crate::options::MemtableKind;
use crate::types::SeqNo;

/// One version of one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The key.
    pub key: &'a [u8],
    /// When it was written.
    pub seq: u64,
    /// The value; `None` for a tombstone.
    pub value: Option<&'a [u8]>,
}

impl<'a> From<entry::Entry<'a>> for Entry<'a> {
    fn from(entry: entry::Entry<'a>) -> Self {
        Self {
            key: entry.key,
            seq: entry.seq.0,
            value: entry.kind.is_put().then_some(entry.value),
        }
    }
}

impl<'a> From<Entry<'a>> for entry::Entry<'a> {
    fn from(entry: Entry<'a>) -> Self {
        Self {
            key: entry.key,
            seq: SeqNo(entry.seq),
            kind: match entry.value {
                Some(_) => EntryKind::Put,
                None => EntryKind::Delete,
            },
            value: entry.value.unwrap_or_default(),
        }
    }
}

/// An index of a memtable. One thread inserts at a time, readers run beside it.
#[derive(Debug, Clone)]
pub struct Memtable(Index);

#[derive(Debug, Clone)]
enum Index {
    BTree(Arc<BTreeIndex>),
    SkipList(Arc<SkipListIndex>),
}

impl Index {
    fn any(&self) -> &dyn MemtableIndex {
        match self {
            Self::BTree(index) => &**index,
            Self::SkipList(index) => &**index,
        }
    }
}

impl Memtable {
    /// An empty one.
    pub fn new(kind: MemtableKind) -> Self {
        match kind {
            MemtableKind::BTree => Self(Index::BTree(Arc::default())),
            MemtableKind::SkipList => Self(Index::SkipList(Arc::default())),
        }
    }

    /// Adds an entry; none of that key and sequence number is there yet.
    pub fn insert(&self, entry: Entry<'_>) {
        let entry = entry::Entry::from(entry);
        let word = entry.word();
        self.0.any().insert(entry.key, word, entry.value);
    }

    /// Lends the newest entry of `key` at or below `seq`; false if there is none.
    pub fn get(&self, key: &[u8], seq: u64, mut read: impl FnMut(Entry<'_>)) -> bool {
        let word = entry::seek_word(SeqNo(seq));
        self.0
            .any()
            .get(key, word, &mut |entry| read((*entry).into()))
    }

    /// A cursor over the entries.
    pub fn cursor(&self) -> Cursor {
        Cursor(match &self.0 {
            Index::BTree(index) => Source::Memtable(Arc::clone(index).walk()),
            Index::SkipList(index) => Source::other(Arc::clone(index).cursor()),
        })
    }

    /// Bytes of memory held.
    pub fn memory_bytes(&self) -> usize {
        self.0.any().memory_bytes()
    }
}

/// A position in a sorted run.
pub struct Cursor(Source);

impl std::fmt::Debug for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cursor").finish_non_exhaustive()
    }
}

impl Cursor {
    /// Goes to the first entry.
    pub fn seek_first(&mut self) -> Result<()> {
        self.0.seek_first()
    }

    /// Goes to the last entry.
    pub fn seek_last(&mut self) -> Result<()> {
        self.0.seek_last()
    }

    /// Goes to the first entry at or after `(key, seq)` in internal order.
    pub fn seek(&mut self, key: &[u8], seq: u64) -> Result<()> {
        self.0.seek(key, SeqNo(seq))
    }

    /// Goes to the next entry.
    #[expect(clippy::should_implement_trait, reason = "a cursor lends its entries")]
    pub fn next(&mut self) -> Result<()> {
        self.0.next()
    }

    /// Goes to the entry before.
    pub fn prev(&mut self) -> Result<()> {
        self.0.prev()
    }

    /// True on an entry.
    pub fn is_valid(&self) -> bool {
        self.0.is_valid()
    }

    /// The entry. Only on a valid cursor.
    pub fn entry(&self) -> Entry<'_> {
        self.0.entry().into()
    }
}

/// The entries of all runs in one order.
pub fn merge(runs: Vec<Cursor>) -> Cursor {
    let sources = runs.into_iter().map(|run| run.0).collect();
    Cursor(Source::other(Box::new(MergeCursor::new(sources))))
}

/// Decodes an edit of the manifest and encodes it again; `None` if it is malformed.
pub fn edit_round_trip(payload: &[u8]) -> Option<Vec<u8>> {
    crate::lsm::manifest::round_trip(payload)
}
