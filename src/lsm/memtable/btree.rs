//! The default index: a B+tree in an arena, with key heads side by side.
//!
//! A search touches, on each level, one array of eight-byte key heads, and mostly no key at all; a
//! skip list touches a node per step, each a cache miss. Nodes hold up to 64 slots. The bytes that
//! all keys of a node share are left out of the heads (up to 16 of them), so that keys with a
//! common prefix still differ in their heads.
//!
//! # Readers beside the writer
//!
//! Every node has a version that is odd while the writer changes the node. A reader remembers the
//! version, reads, and starts again if the version has changed: a sequence lock (H.-J. Boehm, "Can
//! seqlocks get along with programming language memory models?", 2012). All fields are atomics, so
//! that a read that turns out to be void is a race, not undefined behaviour. Splits move the upper
//! half of a node to a new *right* neighbour before the parent knows (Lehman and Yao, 1981); a
//! reader that finds nothing at or above its key in a leaf goes on to the right.
//!
//! # Invariants
//!
//! - **LB1** Nodes and records live in the arena until the index is dropped, and are never freed,
//!   moved or reused before. Every pointer that a slot ever held stays valid.
//! - **LB2** A record is complete before a pointer to it is stored, with release ordering, and
//!   never changes.
//! - **LB3** In slots `0..count` of a leaf, and `1..count` of an inner node, records rise in
//!   internal order and heads do not fall. Slots below `count` hold pointers, even while the node
//!   changes.
//! - **LB4** Entries only move to the right: to a leaf that `next` leads to. So a reader that
//!   starts at a formerly correct leaf finds every entry in it or to its right.
//! - **LB5** One thread changes the tree at a time: the one that holds the lock of `arena`.

#![allow(unsafe_code)]

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::cmp::Ordering as Order;
use std::fmt;
use std::ptr;
use std::slice;
use std::sync::Arc;

use super::index::MemtableIndex;
use crate::error::Result;
use crate::lsm::entry::{Entry, EntryCursor, seek_word, split_word};
use crate::lsm::offset_value::{Direction, NOWHERE, code_over};
use crate::types::SeqNo;
use crate::util::key_prefix::{common_prefix_len, head64};
use crate::util::prefetch::prefetch;
use crate::util::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use crate::util::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, fence};
use crate::util::sync::{Mutex, hint, thread};

/// Slots of a node. Heads and pointers of 64 slots are 16 cache lines. Where every step is
/// expensive, there are so few that some insertions make a deep tree: with shuttle, which tries
/// their interleavings, and under Miri.
const SLOTS: usize = if cfg!(all(test, shuttle)) {
    4
} else if cfg!(miri) {
    8
} else {
    64
};
/// Longest prefix that is left out of heads.
const MAX_SKIP: usize = 16;
/// Size of an arena's chunks, but for records that need more. Small under Miri, which looks at
/// every byte.
const CHUNK_LEN_BYTES: usize = if cfg!(miri) { 8 << 10 } else { 256 << 10 };
/// Alignment of everything in the arena: nodes begin on cache lines.
const CHUNK_ALIGN: usize = 64;

/// Size of the first one; each later one is twice as large as the one before it. A store may have
/// many memtables with little in them.
const FIRST_CHUNK_LEN_BYTES: usize = CHUNK_LEN_BYTES / 32;

/// Head of a record; key and value follow.
#[repr(C)]
struct Record {
    word: u64,
    key_len: u32,
    value_len: u32,
}

impl Record {
    /// The key.
    ///
    /// # Safety
    ///
    /// `record` is a pointer that a slot held, and the index lives for `'a` (LB1, LB2).
    #[inline]
    unsafe fn key<'a>(record: *const Self) -> &'a [u8] {
        // SAFETY: by LB2 `key_len` bytes follow the head of a record, initialised; by LB1 they
        // live as long as the index.
        unsafe { slice::from_raw_parts(record.add(1).cast(), (*record).key_len as usize) }
    }

    /// The entry. Safety as for [`Record::key`].
    #[inline]
    unsafe fn entry<'a>(record: *const Self) -> Entry<'a> {
        // SAFETY: as for `key`; the value follows the key.
        unsafe {
            let (seq, kind) = split_word((*record).word).expect("made from an entry");
            let key = Self::key(record);
            // From the record: a pointer out of the key's slice would not extend to the value.
            let value_at = record.add(1).cast::<u8>().add(key.len());
            Entry {
                key,
                seq,
                kind,
                value: slice::from_raw_parts(value_at, (*record).value_len as usize),
            }
        }
    }

    /// Compares in internal order. Safety as for [`Record::key`].
    #[inline]
    unsafe fn cmp(record: *const Self, key: &[u8], word: u64) -> Order {
        // SAFETY: the caller's.
        unsafe { Self::key(record).cmp(key).then(word.cmp(&(*record).word)) }
    }
}

/// A leaf or an inner node.
#[repr(C, align(64))]
struct Node {
    /// Odd while the node changes.
    version: AtomicU32,
    count: AtomicU32,
    /// How many bytes of `prefix` all keys share; heads begin behind them.
    skip: AtomicU32,
    /// 0 for a leaf. Never changes.
    height: u32,
    prefix: [AtomicU64; 2],
    /// Null for a leaf. Apart from the node, since most nodes are leaves. Never changes.
    children: *const Children,
    next: AtomicPtr<Node>,
    prev: AtomicPtr<Node>,
    heads: [AtomicU64; SLOTS],
    /// Entries of a leaf. In an inner node: the first entry that each child had when it was
    /// made; slot 0 is not compared, since the first child takes everything below.
    records: [AtomicPtr<Record>; SLOTS],
}

/// Children of an inner node.
type Children = [AtomicPtr<Node>; SLOTS];

/// Slots in front of a cursor whose records are asked for.
const PREFETCHED_SLOTS: usize = 4;

/// Head of `key` behind its first `skip` bytes.
#[inline]
fn head_at(key: &[u8], skip: usize) -> u64 {
    head64(&key[skip.min(key.len())..])
}

impl Node {
    fn new(height: u32, children: *const Children) -> Self {
        Self {
            children,
            version: AtomicU32::new(0),
            count: AtomicU32::new(0),
            skip: AtomicU32::new(0),
            height,
            prefix: [const { AtomicU64::new(0) }; 2],
            next: AtomicPtr::default(),
            prev: AtomicPtr::default(),
            heads: [const { AtomicU64::new(0) }; SLOTS],
            records: [const { AtomicPtr::new(ptr::null_mut()) }; SLOTS],
        }
    }

    /// The first slot that is compared.
    #[inline]
    fn first_slot(&self) -> usize {
        usize::from(self.height > 0)
    }

    #[inline]
    fn count(&self) -> usize {
        (self.count.load(Acquire) as usize).min(SLOTS)
    }

    /// Reads with `read` until nothing changed meanwhile; returns the version too.
    #[inline]
    fn read<T>(&self, mut read: impl FnMut() -> T) -> (T, u32) {
        let mut tries = 0_u32;
        loop {
            let version = self.version.load(Acquire);
            if version.is_multiple_of(2) {
                let value = read();
                // Orders the reads above before the second load of the version.
                fence(Acquire);
                if self.version.load(Relaxed) == version {
                    return (value, version);
                }
            }
            tries += 1;
            if tries.is_multiple_of(64) {
                // The writer may have been suspended in the middle of a change.
                thread::yield_now();
            } else {
                hint::spin_loop();
            }
        }
    }

    /// Changes the node (LB5).
    #[inline]
    fn write(&self, change: impl FnOnce()) {
        let version = self.version.load(Relaxed);
        self.version.store(version.wrapping_add(1), Relaxed);
        // Orders the odd version before the stores of the change.
        fence(Release);
        change();
        self.version.store(version.wrapping_add(2), Release);
    }

    fn prefix_bytes(&self) -> [u8; MAX_SKIP] {
        let mut bytes = [0; MAX_SKIP];
        bytes[..8].copy_from_slice(&self.prefix[0].load(Relaxed).to_be_bytes());
        bytes[8..].copy_from_slice(&self.prefix[1].load(Relaxed).to_be_bytes());
        bytes
    }

    /// The first compared slot whose record is at or after `(key, word)`; `count` if none is. A
    /// void answer (within `0..=SLOTS`) if the node changes meanwhile.
    #[inline]
    fn search(&self, key: &[u8], word: u64) -> usize {
        let (first, count) = (self.first_slot(), self.count());
        let skip = (self.skip.load(Relaxed) as usize).min(MAX_SKIP);
        if skip > 0 {
            let prefix = self.prefix_bytes();
            match key[..skip.min(key.len())].cmp(&prefix[..skip]) {
                Order::Less => return first.min(count),
                Order::Greater => return count,
                Order::Equal => {}
            }
        }
        let head = head_at(key, skip);
        let mut low = first;
        let mut high = count;
        while low < high {
            let middle = (low + high) / 2;
            let order = match self.heads[middle].load(Relaxed).cmp(&head) {
                Order::Equal => {
                    let record = self.records[middle].load(Acquire);
                    if record.is_null() {
                        return count;
                    }
                    // SAFETY: a slot held it, and `self` is borrowed from the living index.
                    unsafe { Record::cmp(record, key, word) }
                }
                order => order,
            };
            if order == Order::Less {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// The children of an inner node.
    #[inline]
    fn children(&self) -> &Children {
        assert!(self.height > 0);
        // SAFETY: inner nodes are made with their children (`Arena::node`), which live as long
        // (LB1).
        unsafe { &*self.children }
    }

    /// Child `slot` of an inner node; may be null in a void read.
    #[inline]
    fn child(&self, slot: usize) -> *mut Node {
        self.children()[slot.min(SLOTS - 1)].load(Acquire)
    }

    fn set_child(&self, slot: usize, child: *mut Node) {
        self.children()[slot].store(child, Release);
    }

    /// Key of a slot below `count` (LB3), for the writer.
    fn key(&self, slot: usize) -> &[u8] {
        // SAFETY: by LB3 the slot holds a record; `self` is borrowed from the living index.
        unsafe { Record::key(self.records[slot].load(Relaxed)) }
    }

    /// Chooses the prefix to skip for the keys that are there, and makes the heads anew. Within
    /// [`Node::write`], or before the node can be reached.
    fn set_skip(&self, skip: usize) {
        let (first, count) = (self.first_slot(), self.count());
        let mut prefix = [0; MAX_SKIP];
        if first < count {
            prefix[..skip].copy_from_slice(&self.key(first)[..skip]);
        }
        let (a, b) = prefix.split_at(8);
        self.prefix[0].store(
            u64::from_be_bytes(a.try_into().expect("eight bytes")),
            Relaxed,
        );
        self.prefix[1].store(
            u64::from_be_bytes(b.try_into().expect("eight bytes")),
            Relaxed,
        );
        self.skip.store(skip as u32, Relaxed);
        for slot in first..count {
            self.heads[slot].store(head_at(self.key(slot), skip), Relaxed);
        }
    }

    /// The longest prefix that may be skipped.
    fn best_skip(&self) -> usize {
        let (first, count) = (self.first_slot(), self.count());
        if count < first + 2 {
            return 0;
        }
        common_prefix_len(self.key(first), self.key(count - 1)).min(MAX_SKIP)
    }

    /// Inserts at `slot`. The node is not full. `child` goes with it in an inner node.
    fn insert_at(&self, slot: usize, record: *mut Record, child: *mut Node) {
        // SAFETY: the record is complete, and lives as long as the index (LB1, LB2).
        let key = unsafe { Record::key(record) };
        let skip = self.skip.load(Relaxed) as usize;
        let shared = common_prefix_len(key, &self.prefix_bytes()[..skip]);
        self.write(|| {
            if shared < skip {
                self.set_skip(shared);
            }
            let count = self.count();
            // The slot above the last first, and published with the count, for LB3.
            for at in (slot..count).rev() {
                self.heads[at + 1].store(self.heads[at].load(Relaxed), Relaxed);
                self.records[at + 1].store(self.records[at].load(Relaxed), Release);
                if self.height > 0 {
                    self.set_child(at + 1, self.child(at));
                }
            }
            self.heads[slot].store(head_at(key, shared), Relaxed);
            self.records[slot].store(record, Release);
            if self.height > 0 {
                self.set_child(slot, child);
            }
            self.count.store(count as u32 + 1, Release);
        });
    }

    /// Moves slots `from..` to `right`, which is new and empty, and makes it the right neighbour.
    fn split_to(&self, from: usize, right: *mut Node) {
        // SAFETY: the writer has just made it in the arena (LB1), and only shares it below.
        let right_node = unsafe { &*right };
        let count = self.count();
        for (to, slot) in (from..count).enumerate() {
            right_node.records[to].store(self.records[slot].load(Relaxed), Release);
            if self.height > 0 {
                right_node.set_child(to, self.child(slot));
            }
        }
        right_node.count.store((count - from) as u32, Release);
        right_node.set_skip(right_node.best_skip());
        let next = self.next.load(Relaxed);
        right_node.next.store(next, Release);
        right_node
            .prev
            .store(ptr::from_ref(self).cast_mut(), Release);
        self.write(|| {
            self.count.store(from as u32, Release);
            self.next.store(right, Release);
            let best = self.best_skip();
            if best > self.skip.load(Relaxed) as usize {
                self.set_skip(best);
            }
        });
        if !next.is_null() {
            // SAFETY: by LB1. The pointer to the left is a hint: readers go right from there.
            unsafe { &*next }.prev.store(right, Release);
        }
    }
}

/// Memory that is given back all at once.
#[derive(Default)]
struct Arena {
    chunks: Vec<(*mut u8, Layout)>,
    /// Where in the last chunk the free bytes begin and end.
    at: usize,
    end: usize,
    used_bytes: usize,
}

// SAFETY: the chunks are owned by the arena alone; the pointers are only used to give them back.
unsafe impl Send for Arena {}

impl Arena {
    /// `len` bytes, aligned to `align`, which divides [`CHUNK_ALIGN`].
    fn take(&mut self, len: usize, align: usize) -> *mut u8 {
        let at = self.at.next_multiple_of(align);
        if let Some((chunk, _)) = self.chunks.last()
            && len <= self.end.saturating_sub(at)
        {
            self.at = at + len;
            self.used_bytes += len;
            // SAFETY: `at + len` lies within the chunk.
            return unsafe { chunk.add(at) };
        }
        let next = FIRST_CHUNK_LEN_BYTES << self.chunks.len().min(16);
        let size = len.max(next.min(CHUNK_LEN_BYTES));
        let layout = Layout::from_size_align(size, CHUNK_ALIGN).expect("below isize::MAX");
        // SAFETY: the size is not zero.
        let chunk = unsafe { alloc(layout) };
        if chunk.is_null() {
            handle_alloc_error(layout);
        }
        self.used_bytes += len;
        self.chunks.push((chunk, layout));
        let last = self.chunks.len() - 1;
        if len > CHUNK_LEN_BYTES / 4 && last > 0 {
            // A large record has its own chunk; the one before goes on.
            self.chunks.swap(last, last - 1);
        } else {
            self.at = len;
            self.end = size;
        }
        chunk
    }

    fn record(&mut self, key: &[u8], word: u64, value: &[u8]) -> *mut Record {
        let len = size_of::<Record>() + key.len() + value.len();
        let record: *mut Record = self.take(len, align_of::<Record>()).cast();
        // SAFETY: `len` bytes, aligned, are the writer's own.
        unsafe {
            record.write(Record {
                word,
                key_len: key.len() as u32,
                value_len: value.len() as u32,
            });
            let key_at: *mut u8 = record.add(1).cast();
            ptr::copy_nonoverlapping(key.as_ptr(), key_at, key.len());
            ptr::copy_nonoverlapping(value.as_ptr(), key_at.add(key.len()), value.len());
        }
        record
    }

    fn node(&mut self, height: u32) -> *mut Node {
        let mut children: *mut Children = ptr::null_mut();
        if height > 0 {
            children = self
                .take(size_of::<Children>(), align_of::<Children>())
                .cast();
            // SAFETY: the bytes are aligned, long enough, and the writer's own.
            unsafe { children.write([const { AtomicPtr::new(ptr::null_mut()) }; SLOTS]) };
        }
        let node: *mut Node = self.take(size_of::<Node>(), align_of::<Node>()).cast();
        // SAFETY: as above.
        unsafe { node.write(Node::new(height, children)) };
        node
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        for (chunk, layout) in &self.chunks {
            // SAFETY: allocated with this layout, and given back once. Nothing in the arena needs
            // to be dropped.
            unsafe { dealloc(*chunk, *layout) };
        }
    }
}

/// An index in a B+tree.
pub(crate) struct BTreeIndex {
    root: AtomicPtr<Node>,
    arena: Mutex<Arena>,
    /// Bytes of the arena that are in use, for threads that do not hold its lock.
    bytes: AtomicUsize,
}

impl fmt::Debug for BTreeIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.bytes.load(Relaxed);
        f.debug_struct("BTreeIndex")
            .field("bytes", &bytes)
            .finish_non_exhaustive()
    }
}

impl Default for BTreeIndex {
    fn default() -> Self {
        let mut arena = Arena::default();
        let root = arena.node(0);
        Self {
            root: AtomicPtr::new(root),
            arena: Mutex::new(arena),
            bytes: AtomicUsize::new(size_of::<Node>()),
        }
    }
}

/// A place in a leaf. `record` is null for no place.
#[derive(Clone, Copy)]
struct Place {
    leaf: *const Node,
    slot: usize,
    /// Of the leaf, when `slot` was right.
    version: u32,
    record: *const Record,
}

impl Place {
    const NOWHERE: Self = Self {
        leaf: ptr::null(),
        slot: 0,
        version: 0,
        record: ptr::null(),
    };
}

impl BTreeIndex {
    fn root(&self) -> &Node {
        // SAFETY: by LB1, and the pointer is never null.
        unsafe { &*self.root.load(Acquire) }
    }

    /// Goes down from the root, to the child that `choose` names in each inner node.
    #[inline]
    fn descend(&self, choose: impl Fn(&Node) -> usize) -> &Node {
        let mut node = self.root();
        while node.height > 0 {
            let (child, _) = node.read(|| node.child(choose(node)));
            // SAFETY: by LB1, and by LB3 not null, since the read was not void.
            node = unsafe { &*child };
        }
        node
    }

    /// The leaf where an entry would be, or one to the left of it (LB4).
    #[inline]
    fn leaf_of(&self, key: &[u8], word: u64) -> &Node {
        // A child holds what is at or after its own first entry: the child to the left of the first
        // one that begins after the position.
        self.descend(|node| {
            let slot = node.search(key, word);
            let begins_there = slot < node.count() && {
                let record = node.records[slot].load(Acquire);
                // SAFETY: a slot held it; by LB1.
                !record.is_null() && unsafe { Record::cmp(record, key, word) } == Order::Equal
            };
            if begins_there {
                slot
            } else {
                slot.saturating_sub(1)
            }
        })
    }

    /// The first entry at or after the position.
    #[inline]
    fn at_or_after(&self, key: &[u8], word: u64) -> Place {
        let mut leaf = self.leaf_of(key, word);
        loop {
            let ((slot, record, next), version) = leaf.read(|| {
                let slot = leaf.search(key, word);
                let is_inside = slot < leaf.count();
                let record = if is_inside {
                    leaf.records[slot].load(Acquire)
                } else {
                    ptr::null_mut()
                };
                (slot, record, leaf.next.load(Acquire))
            });
            if !record.is_null() {
                return Place {
                    leaf,
                    slot,
                    version,
                    record,
                };
            }
            if next.is_null() {
                return Place::NOWHERE;
            }
            // SAFETY: by LB1.
            leaf = unsafe { &*next };
        }
    }

    /// The last entry before the position.
    fn before(&self, key: &[u8], word: u64) -> Place {
        self.last_from(self.leaf_of(key, word), |leaf| leaf.search(key, word))
    }

    /// The last of the entries that `count_of` counts in each leaf, found from `leaf` on.
    fn last_from(&self, mut leaf: &Node, count_of: impl Fn(&Node) -> usize) -> Place {
        loop {
            let ((slot, is_all, record, next, prev), version) = leaf.read(|| {
                let slot = count_of(leaf);
                let record = match slot.checked_sub(1) {
                    Some(last) => leaf.records[last.min(SLOTS - 1)].load(Acquire),
                    None => ptr::null_mut(),
                };
                let (next, prev) = (leaf.next.load(Acquire), leaf.prev.load(Acquire));
                (slot, slot == leaf.count(), record, next, prev)
            });
            // SAFETY: by LB1, if not null.
            let (next, prev) = unsafe { (next.as_ref(), prev.as_ref()) };
            if is_all
                && let Some(next) = next
                && next.read(|| count_of(next)).0 > 0
            {
                leaf = next;
            } else if slot > 0 {
                return Place {
                    leaf,
                    slot: slot - 1,
                    version,
                    record,
                };
            } else if let Some(prev) = prev {
                leaf = prev;
            } else {
                return Place::NOWHERE;
            }
        }
    }

    /// The entry after a place. The place is not nowhere.
    #[inline]
    fn after(&self, mut place: Place) -> Place {
        loop {
            // SAFETY: places are of this index; by LB1.
            let leaf = unsafe { &*place.leaf };
            let ((record, next), version) = leaf.read(|| {
                let slot = place.slot + 1;
                let is_inside = slot < leaf.count();
                let record = if is_inside {
                    leaf.records[slot].load(Acquire)
                } else {
                    ptr::null_mut()
                };
                (record, leaf.next.load(Acquire))
            });
            if version != place.version {
                // SAFETY: as above. The entry itself is found again: nothing is removed.
                let entry = unsafe { Record::entry(place.record) };
                place = self.at_or_after(entry.key, entry.word());
                continue;
            }
            if !record.is_null() {
                // Records lie in the order in which they came: each costs a cache miss, which
                // begins early.
                let soon = (place.slot + 1 + PREFETCHED_SLOTS).min(SLOTS - 1);
                prefetch(leaf.records[soon].load(Relaxed));
                return Place {
                    slot: place.slot + 1,
                    record,
                    ..place
                };
            }
            // SAFETY: by LB1, if not null.
            let Some(next) = (unsafe { next.as_ref() }) else {
                return Place::NOWHERE;
            };
            // Only the last leaf can be empty, and only before the first insertion.
            let (record, version) = next.read(|| next.records[0].load(Acquire));
            return Place {
                leaf: next,
                slot: 0,
                version,
                record,
            };
        }
    }
}

impl BTreeIndex {
    /// Asks for the leaf that `key` would be inserted into, and touches the way to it.
    #[inline]
    pub(super) fn prefetch(&self, key: &[u8]) {
        let mut node = self.root();
        while node.height > 0 {
            let choose = || node.child(node.search(key, u64::MAX).saturating_sub(1));
            let (child, _) = node.read(choose);
            if node.height == 1 {
                for line in 0..size_of::<Node>() / CHUNK_ALIGN {
                    prefetch(child.cast::<u8>().wrapping_add(line * CHUNK_ALIGN));
                }
                return;
            }
            // SAFETY: by LB1, and by LB3 not null, since the read was not void.
            node = unsafe { &*child };
        }
    }

    /// A cursor that keeps the index, standing nowhere.
    pub(crate) fn walk(self: Arc<Self>) -> BTreeCursor {
        BTreeCursor {
            index: self,
            place: Place::NOWHERE,
        }
    }

    /// The entry before a place. The place is not nowhere.
    #[inline]
    fn preceding(&self, place: Place) -> Place {
        if let Some(slot) = place.slot.checked_sub(1) {
            // SAFETY: places are of this index; by LB1.
            let leaf = unsafe { &*place.leaf };
            let (record, version) = leaf.read(|| leaf.records[slot].load(Acquire));
            // The leaf is as it was when the place was found, so by LB3 nothing is in between.
            if version == place.version {
                return Place {
                    slot,
                    record,
                    ..place
                };
            }
        }
        // SAFETY: a slot held it, and the index is borrowed.
        let entry = unsafe { Record::entry(place.record) };
        self.before(entry.key, entry.word())
    }
}

impl MemtableIndex for BTreeIndex {
    fn insert(&self, key: &[u8], word: u64, value: &[u8]) {
        let mut arena = self.arena.lock();
        let mut record = arena.record(key, word, value);
        let mut child = ptr::null_mut::<Node>();
        // Inner nodes on the way, and the child taken in each. No tree is higher.
        let mut path = [(ptr::null::<Node>(), 0_usize); 16];
        let mut node = self.root();
        while node.height > 0 {
            let slot = node.search(key, word).saturating_sub(1);
            path[node.height as usize] = (node, slot);
            // SAFETY: by LB1 and LB3.
            node = unsafe { &*node.child(slot) };
        }
        let mut slot = node.search(key, word);
        loop {
            if node.count() < SLOTS {
                node.insert_at(slot, record, child);
                break;
            }
            // Rising keys leave full nodes behind.
            let rises = slot == SLOTS && node.next.load(Relaxed).is_null();
            let from = if rises { SLOTS - 1 } else { SLOTS / 2 };
            let right = arena.node(node.height);
            // SAFETY: made just now (LB1).
            let right_node = unsafe { &*right };
            node.split_to(from, right);
            // At `from` itself it comes before all that moved.
            if slot > from {
                right_node.insert_at(slot - from, record, child);
            } else {
                node.insert_at(slot, record, child);
            }
            // The parent gets the right node, under the first entry that it has.
            record = right_node.records[0].load(Relaxed);
            child = right;
            let height = node.height as usize + 1;
            if ptr::eq(node, self.root()) {
                let root = arena.node(height as u32);
                // SAFETY: made just now (LB1).
                let root_node = unsafe { &*root };
                let left = self.root.load(Relaxed);
                root_node.insert_at(0, node.records[0].load(Relaxed), left);
                root_node.insert_at(1, record, child);
                self.root.store(root, Release);
                break;
            }
            let (parent, at) = path[height];
            // SAFETY: on the path from the root; by LB1.
            node = unsafe { &*parent };
            slot = at + 1;
        }
        self.bytes.store(arena.used_bytes, Relaxed);
    }

    #[inline]
    fn get(&self, key: &[u8], word: u64, read: &mut dyn FnMut(&Entry<'_>)) -> bool {
        let place = self.at_or_after(key, word);
        if place.record.is_null() {
            return false;
        }
        // SAFETY: a slot held it, and `self` lives through the call.
        let entry = unsafe { Record::entry(place.record) };
        if entry.key != key {
            return false;
        }
        read(&entry);
        true
    }

    fn cursor(self: Arc<Self>) -> Box<dyn EntryCursor> {
        Box::new(self.walk())
    }

    fn memory_bytes(&self) -> usize {
        self.bytes.load(Relaxed)
    }
}

/// A cursor over a [`BTreeIndex`].
pub(crate) struct BTreeCursor {
    index: Arc<BTreeIndex>,
    place: Place,
}

// SAFETY: the pointers lead into the arena of `index`, which the cursor keeps, and whose
// contents any thread may read.
unsafe impl Send for BTreeCursor {}

impl BTreeCursor {
    /// Goes to the entry beside this one; returns the code of its key over this one's, or
    /// [`NOWHERE`].
    #[inline]
    pub(crate) fn step(&mut self, direction: Direction) -> u64 {
        assert!(self.is_valid(), "only on a valid cursor");
        let last = self.place.record;
        self.place = match direction {
            Direction::Forward => self.index.after(self.place),
            Direction::Backward => self.index.preceding(self.place),
        };
        if self.place.record.is_null() {
            return NOWHERE;
        }
        // SAFETY: slots held both, and `self` keeps the index.
        let (key, last) = unsafe { (Record::key(self.place.record), Record::key(last)) };
        code_over(key, last, direction)
    }
}

impl EntryCursor for BTreeCursor {
    fn seek_first(&mut self) -> Result<()> {
        // The empty key's newest possible version stands before everything.
        self.place = self.index.at_or_after(b"", u64::MAX);
        Ok(())
    }

    fn seek_last(&mut self) -> Result<()> {
        let leaf = self.index.descend(|node| node.count().saturating_sub(1));
        self.place = self.index.last_from(leaf, Node::count);
        Ok(())
    }

    fn seek(&mut self, key: &[u8], seq: SeqNo) -> Result<()> {
        self.place = self.index.at_or_after(key, seek_word(seq));
        Ok(())
    }

    fn seek_before(&mut self, key: &[u8]) -> Result<()> {
        self.place = self.index.before(key, u64::MAX);
        Ok(())
    }

    #[inline]
    fn next(&mut self) -> Result<()> {
        self.place = self.index.after(self.place);
        Ok(())
    }

    fn prev(&mut self) -> Result<()> {
        assert!(self.is_valid(), "only on a valid cursor");
        self.place = self.index.preceding(self.place);
        Ok(())
    }

    #[inline]
    fn is_valid(&self) -> bool {
        !self.place.record.is_null()
    }

    #[inline]
    fn entry(&self) -> Entry<'_> {
        assert!(self.is_valid(), "only on a valid cursor");
        // SAFETY: a slot held it, and `self` keeps the index.
        unsafe { Record::entry(self.place.record) }
    }

    #[inline]
    fn key(&self) -> &[u8] {
        assert!(self.is_valid(), "only on a valid cursor");
        // SAFETY: as for `entry`.
        unsafe { Record::key(self.place.record) }
    }
}

#[cfg(test)]
mod tests;
