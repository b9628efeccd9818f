//! Memtables: what was written since the last flush.
//!
//! A [`Memtable`] is an ordered index of entries in internal order, the range tombstones
//! among them, and a few figures. The commit pipeline inserts, reads look up and walk, and
//! a flush walks it once and drops it.
//!
//! # Invariants
//!
//! - **LM1** One thread inserts at a time, batches with rising sequence numbers (E1 of the engine
//!   contract). Readers run meanwhile and never wait. What they see of a batch before it is
//!   complete does not count (E4); so within a large one, entries go in by rising keys.
//! - **LM2** An entry is visible to index readers when `insert` returns, at the latest; a reader
//!   that finds it reads all of it.
//! - **LM3** Nothing is ever removed or changed. Memory is given back all at once, when the
//!   memtable is dropped.
//!
//! Two indexes stand behind [`MemtableIndex`]; [`Memtable::new`] is where the choice is made.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::entry::{
    Entry, EntryCursor, EntryKind, RangeTombstone, merge_parts, merge_value, seek_word,
};
use super::table::filter_hash;
use super::tombstones::GrowingTombstones;
use crate::engine::{in_key_order, touch};
use crate::error::Result;
use crate::format::coding::Malformed;
use crate::options::MemtableKind;
use crate::resolve::{NEVER, Resolver};
use crate::types::{Op, SeqNo, SequencedOp};
use crate::util::mutants::mutated;
use crate::util::sync::Mutex;
use crate::values::{FileHold, ValueFiles, ValueRef};

mod btree;
mod filter;
mod index;
mod skiplist;

pub(crate) use btree::{BTreeCursor, BTreeIndex};
use filter::MemtableFilter;
pub(crate) use index::MemtableIndex;
pub(crate) use skiplist::SkipListIndex;

/// Batches of so many operations are inserted by rising keys: neighbours find the nodes on their
/// way in the processor's caches.
const SORTED_FROM_OPS: usize = 64;

/// So many of them are brought into the caches together, which lie anywhere in the batch.
const OPS_TOGETHER: usize = 32;

/// Longer values and operands are not folded as they are inserted: every merge would copy what is
/// there.
const MAX_FOLDED_LEN_BYTES: usize = 64;

/// The index of a memtable, which is of one of these kinds.
#[derive(Debug)]
pub(crate) enum MemtableKinds {
    BTree(Arc<BTreeIndex>),
    SkipList(Arc<SkipListIndex>),
}

/// What was written since the last flush.
#[derive(Debug)]
pub(crate) struct Memtable {
    index: MemtableKinds,
    filter: MemtableFilter,
    tombstones: GrowingTombstones,
    tombstone_bytes: AtomicU64,
    value_files: Mutex<Vec<FileHold>>,
    entries: AtomicU64,
    /// Sequence number of the first operation; `u64::MAX` while there is none.
    first_seq: AtomicU64,
    last_seq: AtomicU64,
    /// When the earliest merge was committed that was folded as it was applied, in milliseconds
    /// since 1970; [`NEVER`] while there is none.
    earliest_merge_ms: AtomicU64,
    resolver: Arc<Resolver>,
}

impl Memtable {
    /// An empty memtable, which is flushed when it has about `budget_bytes`.
    pub(crate) fn new(kind: MemtableKind, budget_bytes: u64, resolver: Arc<Resolver>) -> Self {
        Self {
            index: match kind {
                MemtableKind::BTree => MemtableKinds::BTree(Arc::default()),
                MemtableKind::SkipList => MemtableKinds::SkipList(Arc::default()),
            },
            filter: MemtableFilter::new(budget_bytes),
            tombstones: GrowingTombstones::default(),
            tombstone_bytes: AtomicU64::new(0),
            value_files: Mutex::default(),
            entries: AtomicU64::new(0),
            first_seq: AtomicU64::new(u64::MAX),
            last_seq: AtomicU64::new(0),
            earliest_merge_ms: AtomicU64::new(NEVER),
            resolver,
        }
    }

    /// Holds the value files that `ops` refer to, which are inserted after that (VF1).
    pub(crate) fn hold_values(&self, ops: &[SequencedOp<'_>], values: &ValueFiles) -> Result<()> {
        let mut last = 0;
        for reference in ops.iter().filter_map(|op| op.value_ref) {
            let file = match ValueRef::decode(reference) {
                Ok(value) => value.file,
                Err(Malformed) => unreachable!("the store makes references"),
            };
            if file == last || mutated!("memtable-holds-no-value-files") {
                continue;
            }
            last = file;
            let mut held = self.value_files.lock();
            if held.iter().all(|hold| hold.number() != file) {
                held.push(values.hold(file)?);
            }
        }
        Ok(())
    }

    /// Applies the operations of a batch (LM1). If `order` is given, it is what [`in_key_order`]
    /// gives.
    pub(crate) fn insert(&self, ops: &[SequencedOp<'_>], order: Option<&[u32]>) {
        let (Some(first), Some(last)) = (ops.first(), ops.last()) else {
            return;
        };
        debug_assert!(self.last_seq() < first.seq, "LM1: numbers rise");
        // Before the entries: a watermark may be too low for a moment, never too high.
        if self.first_seq.load(Ordering::Relaxed) == u64::MAX {
            self.first_seq.store(first.seq.0, Ordering::Release);
        }
        match order {
            Some(order) => self.insert_in_order(ops, order),
            None if ops.len() < SORTED_FROM_OPS => ops.iter().for_each(|op| self.insert_one(op)),
            None => self.insert_in_order(ops, &in_key_order(ops)),
        }
        self.last_seq.store(last.seq.0, Ordering::Release);
    }

    fn insert_in_order(&self, ops: &[SequencedOp<'_>], order: &[u32]) {
        for places in order.chunks(OPS_TOGETHER) {
            let some = || places.iter().map(|at| &ops[*at as usize]);
            touch(ops, places);
            for key in some().filter_map(|op| op.op.key()) {
                self.filter.prefetch(filter_hash(key));
            }
            some().for_each(|op| self.insert_one(op));
        }
    }

    #[inline]
    fn insert_one(&self, op: &SequencedOp<'_>) {
        let (key, kind, value): (_, _, &[u8]) = match op.op {
            Op::Put { key, value } => match op.value_ref {
                Some(reference) => (key, EntryKind::PutRef, reference),
                None => (key, EntryKind::Put, value),
            },
            Op::Delete { key } => (key, EntryKind::Delete, &[]),
            Op::Merge { key, operand } => return self.insert_merge(op.seq, key, operand),
            Op::DeleteRange { start, end } => return self.insert_tombstone(op.seq, start, end),
        };
        self.insert_entry(Entry {
            key,
            seq: op.seq,
            kind,
            value,
        });
    }

    #[inline]
    fn insert_entry(&self, entry: Entry<'_>) {
        let Entry { key, value, .. } = entry;
        let word = entry.word();
        // Before the entry: who finds nothing in the filter does not look further.
        if !mutated!("memtable-filter-misses-keys") {
            self.filter.add(filter_hash(key));
        }
        match &self.index {
            MemtableKinds::BTree(index) => index.insert(key, word, value),
            MemtableKinds::SkipList(index) => index.insert(key, word, value),
        }
        // One writer: a load and a store are cheaper than an atomic addition.
        self.entries
            .store(self.entries.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    #[cold]
    fn insert_merge(&self, seq: SeqNo, key: &[u8], operand: &[u8]) {
        let (kind, value) = match self.fold_small(seq, key, operand) {
            Some(folded) => folded,
            None => (EntryKind::Merge, merge_value(seq.prev(), operand)),
        };
        self.insert_entry(Entry {
            key,
            seq,
            kind,
            value: &value,
        });
    }

    /// What an operand makes of what the memtable has of the key, if that is as short as a counter:
    /// so many merges of one key are one to a read.
    fn fold_small(&self, seq: SeqNo, key: &[u8], operand: &[u8]) -> Option<(EntryKind, Vec<u8>)> {
        let is_small = |bytes: &[u8]| bytes.len() <= MAX_FOLDED_LEN_BYTES;
        if !is_small(operand) {
            return None;
        }
        let onto = |base: Option<&[u8]>| {
            let folded = self.resolver.fold(key, base, &[operand]);
            Some((EntryKind::Put, folded))
        };
        let cover = self.tombstones.newest_covering(key, seq);
        let mut folded = None;
        let is_known = self.get(key, filter_hash(key), seq, &mut |entry| {
            let is_covered = cover.is_some_and(|cover| cover > entry.seq)
                && !mutated!("merge-reaches-behind-a-range-delete");
            folded = match entry.kind {
                _ if is_covered => onto(None),
                EntryKind::Delete => onto(None),
                EntryKind::Put if is_small(entry.value) => onto(Some(entry.value)),
                EntryKind::Merge => match merge_parts(entry.value, entry.seq) {
                    Some((since, older)) if is_small(older) => {
                        let combined = self.resolver.combine(key, &[older, operand]);
                        combined.map(|operand| (entry.kind, merge_value(since, &operand)))
                    }
                    _ => None,
                },
                EntryKind::Put | EntryKind::PutRef => None,
            };
        });
        if !is_known && cover.is_some() {
            folded = onto(None);
        }
        folded.filter(|(_, value)| value.len() <= 2 * MAX_FOLDED_LEN_BYTES)
    }

    fn insert_tombstone(&self, seq: SeqNo, start: &[u8], end: Option<&[u8]>) {
        if end.is_some_and(|end| start >= end) {
            return;
        }
        let end_len = end.map_or(0, <[u8]>::len);
        // Twice the bounds and some words per level: what a tombstone index takes.
        let bytes = 2 * (start.len() + end_len) + 256;
        self.tombstone_bytes
            .fetch_add(bytes as u64, Ordering::Relaxed);
        self.tombstones.add(RangeTombstone {
            start: start.to_vec(),
            end: end.map(<[u8]>::to_vec),
            seq,
        });
    }

    /// Asks for the memory that inserting `key` touches. For a thread that has something else to do
    /// before it inserts.
    #[inline]
    pub(crate) fn prefetch(&self, key: &[u8]) {
        self.filter.prefetch(filter_hash(key));
        if let MemtableKinds::BTree(index) = &self.index {
            index.prefetch(key);
        }
    }

    /// Asks for the memory with which a lookup begins.
    #[inline]
    pub(crate) fn prefetch_filter(&self, key_hash: u64) {
        self.filter.prefetch(key_hash);
    }

    /// Takes note of a merge that is folded as it is applied.
    pub(crate) fn note_merge(&self, committed_ms: u64) {
        self.earliest_merge_ms
            .fetch_min(committed_ms, Ordering::AcqRel);
    }

    /// The earliest time that was [noted](Self::note_merge); [`NEVER`] for none.
    pub(crate) fn earliest_merge_ms(&self) -> u64 {
        self.earliest_merge_ms.load(Ordering::Acquire)
    }

    /// True if reads at `seq` see nothing of the memtable.
    #[inline]
    pub(crate) fn is_newer_than(&self, seq: SeqNo) -> bool {
        self.first_seq.load(Ordering::Acquire) > seq.0
    }

    /// Lends the newest entry of `key` at or below `seq` to `read`, and returns true, or
    /// returns false. `key_hash` is the key's [`filter_hash`]. Range tombstones are not considered.
    #[inline]
    pub(crate) fn get(
        &self,
        key: &[u8],
        key_hash: u64,
        seq: SeqNo,
        read: &mut dyn FnMut(&Entry<'_>),
    ) -> bool {
        if self.entries.load(Ordering::Relaxed) == 0 || !self.filter.may_contain(key_hash) {
            return false;
        }
        let word = seek_word(seq);
        match &self.index {
            MemtableKinds::BTree(index) => index.get(key, word, read),
            MemtableKinds::SkipList(index) => index.get(key, word, read),
        }
    }

    /// The index of the entries.
    pub(crate) fn index(&self) -> &MemtableKinds {
        &self.index
    }

    /// A cursor over the entries, standing nowhere.
    pub(crate) fn cursor(&self) -> Box<dyn EntryCursor> {
        match &self.index {
            MemtableKinds::BTree(index) => Arc::clone(index).cursor(),
            MemtableKinds::SkipList(index) => Arc::clone(index).cursor(),
        }
    }

    /// The range tombstones.
    pub(crate) fn tombstones(&self) -> &GrowingTombstones {
        &self.tombstones
    }

    /// Bytes of memory held.
    pub(crate) fn size_bytes(&self) -> u64 {
        let index_bytes = match &self.index {
            MemtableKinds::BTree(index) => index.memory_bytes(),
            MemtableKinds::SkipList(index) => index.memory_bytes(),
        };
        index_bytes as u64 + self.tombstone_bytes.load(Ordering::Relaxed)
    }

    /// Number of entries, range tombstones not counted.
    pub(crate) fn entries(&self) -> u64 {
        self.entries.load(Ordering::Relaxed)
    }

    /// Sequence number of the first operation, if any.
    pub(crate) fn first_seq(&self) -> Option<SeqNo> {
        let first = self.first_seq.load(Ordering::Acquire);
        (first != u64::MAX).then_some(SeqNo(first))
    }

    /// Sequence number of the last operation; zero if none.
    pub(crate) fn last_seq(&self) -> SeqNo {
        SeqNo(self.last_seq.load(Ordering::Acquire))
    }
}
