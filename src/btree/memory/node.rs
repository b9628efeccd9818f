//! Nodes in memory: those that differ from the file.
//!
//! An inner node's separators never change; its child slots do, while its generation and that of
//! their block ([`super::children`]) are the tree's current one. A leaf changes in place under its
//! own lock while its generation is current. A node of an older generation is *frozen*: views and
//! checkpoints share it, and the writer copies it before changing anything.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crossbeam_epoch::Guard;
use parking_lot::RwLock;

use super::children::Children;
use super::delta::Delta;
use super::slot::{self, NodeRef};
use crate::btree::node::Link;
use crate::btree::node::inner::Inner;
use crate::btree::node::leaf::{self, Leaf, LeafFacts, LeafValue, Stored, has_overflow};
use crate::btree::node::packs::{PackedLeaf, Packs};
use crate::types::{PageId, SeqNo};
use crate::util::mutants::mutated;

/// A leaf in memory and its lock.
pub(crate) type MemLeaf = RwLock<LeafState>;

/// A node, owned.
pub(crate) type Child = slot::Child<MemLeaf, MemInner>;

/// A node, lent for the time of a pin.
pub(crate) type ChildRef<'g> = slot::ChildRef<'g, MemLeaf, MemInner>;

/// A place that holds a reference to a node.
pub(crate) type Slot = slot::Slot<MemLeaf, MemInner>;

/// Bytes of bookkeeping charged for each node in memory besides its content.
const NODE_OVERHEAD_BYTES: usize = 160;

/// Marks a page number in a leaf image in memory: the value is not in the file yet, and the
/// other bits are its number among the leaf's [`LargeValue`]s.
const PENDING: u64 = 1 << 63;

/// An inner node in memory.
pub(crate) struct MemInner {
    /// The tree's generation when the node was made.
    pub(crate) generation: u64,
    /// Separators and fences; the links to children in it mean nothing.
    pub(crate) image: Arc<[u8]>,
    /// The children.
    pub(crate) slots: Children<MemLeaf, MemInner>,
    /// Of a node of level 1: packs with changes to those children that are pages. It never changes,
    /// and a child that is a page where packs hold changes to it does not become another page.
    pub(crate) packs: Option<Arc<Packs>>,
}

impl MemInner {
    pub(crate) fn new(generation: u64, image: Arc<[u8]>, children: Vec<Child>) -> Self {
        debug_assert_eq!(Inner::from_image(&image).child_count(), children.len());
        Self {
            generation,
            image,
            slots: Children::new(generation, children.into_iter()),
            packs: None,
        }
    }

    /// With these packs.
    pub(crate) fn with_packs(mut self, packs: Option<Arc<Packs>>) -> Self {
        self.packs = packs;
        self
    }

    /// What packs hold for child `i`, which is at `page`.
    #[inline]
    pub(crate) fn packed(&self, i: usize, page: Link) -> Option<PackedLeaf> {
        self.packs.as_ref()?.packed(i, page)
    }

    /// The fences of child `i`.
    pub(crate) fn child_fences(&self, i: usize) -> (Vec<u8>, Option<Vec<u8>>) {
        let node = self.node();
        let (mut lower, mut upper) = (Vec::new(), Vec::new());
        node.write_child_lower(i, &mut lower);
        let bounded = node.write_child_upper(i, &mut upper);
        (lower, bounded.then_some(upper))
    }

    /// Child `i`, if it is a page to which packs hold changes.
    pub(crate) fn packed_child(&self, i: usize, guard: &Guard) -> Option<PackedLeaf> {
        match self.slots[i].load(guard) {
            ChildRef::Disk(page) => self.packed(i, page),
            _ => None,
        }
    }

    /// The packs, or that there are none, for a node made of this one.
    pub(crate) fn change_packs(&self, change: impl FnOnce(&Packs) -> Packs) -> Option<Arc<Packs>> {
        self.packs.as_ref().map(|packs| Arc::new(change(packs)))
    }

    /// A node in memory like the one on disk with this image.
    pub(crate) fn from_disk(generation: u64, image: &[u8]) -> Self {
        let inner = Inner::from_image(image);
        Self {
            generation,
            image: image.into(),
            slots: Children::new(
                generation,
                (0..inner.child_count()).map(|i| Child::Disk(inner.child(i))),
            ),
            packs: inner.packs().map(|packs| Arc::new(packs.decode())),
        }
    }

    /// The same node, for child `i` to be replaced in a newer generation.
    pub(crate) fn copy_for(&self, i: usize, generation: u64, guard: &Guard) -> Self {
        Self {
            generation,
            image: Arc::clone(&self.image),
            slots: self.slots.copy_for(i, generation, guard),
            packs: self.packs.clone(),
        }
    }

    pub(crate) fn node(&self) -> Inner<'_> {
        Inner::from_image(&self.image)
    }

    pub(crate) fn size_bytes(&self) -> usize {
        self.image.len() + self.slots.size_bytes() + NODE_OVERHEAD_BYTES
    }
}

/// A value too long for a leaf that no checkpoint has published yet.
#[derive(Debug)]
pub(crate) struct LargeValue {
    pub(crate) bytes: Vec<u8>,
    /// First page of its extent once a checkpoint published it; 0 before.
    page: AtomicU64,
    checksum: AtomicU64,
    /// The current tree no longer holds it.
    pub(crate) dropped: AtomicBool,
}

impl LargeValue {
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        Self {
            bytes,
            page: AtomicU64::new(0),
            checksum: AtomicU64::new(0),
            dropped: AtomicBool::new(false),
        }
    }

    /// Its extent, if it has one, and the checksum. Stored by one thread under the writer's mutex.
    pub(crate) fn extent(&self) -> Option<(PageId, u32)> {
        match self.page.load(Ordering::Acquire) {
            0 => None,
            page => Some((PageId(page), self.checksum.load(Ordering::Relaxed) as u32)),
        }
    }

    pub(crate) fn set_extent(&self, page: PageId, checksum: u32) {
        self.checksum.store(u64::from(checksum), Ordering::Relaxed);
        self.page.store(page.0, Ordering::Release);
    }
}

/// Large values of one leaf by number, rising.
pub(crate) type LargeValues = Vec<(u64, Arc<LargeValue>)>;

/// The reference that stands in a leaf image for pending value `number`.
pub(crate) fn pending_ref(number: u64, len: usize) -> LeafValue<'static> {
    LeafValue::Overflow {
        page: PageId(PENDING | number),
        len: len as u32,
        checksum: 0,
    }
}

/// Number of the pending value that `page` refers to, if it is one.
pub(crate) fn pending_number(page: PageId) -> Option<u64> {
    (page.0 & PENDING != 0).then_some(page.0 & !PENDING)
}

/// The large value of that number. Every pending reference in an image has its value beside it.
pub(crate) fn find_large(large: &LargeValues, number: u64) -> Option<&Arc<LargeValue>> {
    let at = large.binary_search_by_key(&number, |entry| entry.0).ok()?;
    Some(&large[at].1)
}

/// What a leaf holds.
#[derive(Clone)]
pub(crate) enum Body {
    /// Everything, as a page image.
    Whole {
        image: Box<[u8]>,
        large: LargeValues,
    },
    /// Changes to a leaf of the file, or to a frozen leaf, that holds no overflow values.
    Changes(Changes),
    /// A leaf of the file with the changes in packs. It stands in no tree: changes lie over it.
    Packed(PackedLeaf),
}

/// Changes to a leaf of the file, or to one that a checkpoint is writing.
pub(crate) struct Changes {
    /// The page, the page with its packs, or the frozen leaf. Each stays while anything refers to
    /// it. A checkpoint that has written the leaf, or its packs, puts that here, without a lock:
    /// both hold the same entries, so readers may use either.
    base: Slot,
    pub(crate) delta: Delta,
    /// Bytes that the page still has for the changes: the merged leaf always fits (see
    /// [`Changes::try_set`]).
    pub(crate) free_bytes: usize,
    /// Entries in the page, or about as many in the frozen leaf, or fewer; fewer also where packs
    /// have an estimate of what they add.
    pub(crate) base_len: usize,
}

/// Changes to a page of that size take no more than this; with more it becomes whole.
pub(crate) fn changes_bytes_max(page_size: usize) -> usize {
    page_size * 3 / 4
}

/// Upper bound of what an entry costs in a leaf besides its key and value.
const ENTRY_COST_BYTES: usize = 24;

impl Changes {
    /// Changes to a leaf of the file. It has no overflow values and is no jumbo.
    pub(crate) fn new(base: &PackedLeaf, facts: &LeafFacts, page_size: usize) -> Self {
        Self {
            base: Slot::new(in_file(base)),
            delta: Delta::new(facts.prefix_len),
            free_bytes: free_bytes(base, facts, page_size),
            base_len: base_len(base, facts),
        }
    }

    /// No changes yet to `leaf`, which a checkpoint is writing and whose content is `state`. `None`
    /// if changes cannot lie over it: it is a jumbo, holds overflow values, or lies over a
    /// frozen leaf itself.
    pub(crate) fn over(
        leaf: NodeRef<'_, MemLeaf>,
        state: &LeafState,
        page_size: usize,
        guard: &Guard,
    ) -> Option<Self> {
        let (prefix_len, free_bytes, base_len) = match &state.body {
            Body::Whole { image, large } => {
                if !large.is_empty() || is_jumbo(image, page_size) || has_overflow(image) {
                    return None;
                }
                let leaf = Leaf::from_image(image);
                let free_bytes = page_size.saturating_sub(leaf.live_bytes());
                (leaf.prefix().len(), free_bytes, leaf.len())
            }
            Body::Changes(changes) => {
                changes.base_in_file(guard)?;
                let delta = &changes.delta;
                (
                    delta.prefix_len(),
                    changes.free_bytes,
                    changes.entries_left(),
                )
            }
            Body::Packed(_) => return None,
        };
        Some(Self {
            base: Slot::new(Child::Leaf(leaf.to_arc())),
            delta: Delta::new(prefix_len),
            free_bytes,
            base_len,
        })
    }

    /// What the changes are made to, if that is a leaf of the file.
    pub(crate) fn base_in_file(&self, guard: &Guard) -> Option<PackedLeaf> {
        match self.base(guard) {
            ChildRef::Disk(page) => Some(PackedLeaf::alone(page)),
            ChildRef::Leaf(leaf) => match &leaf.read().body {
                Body::Packed(leaf) => Some(*leaf),
                Body::Whole { .. } | Body::Changes(_) => None,
            },
            ChildRef::Inner(_) => None,
        }
    }

    /// The leaf of the file that lies below the changes, and below those that they are made to.
    pub(crate) fn leaf_below(&self, guard: &Guard) -> Option<PackedLeaf> {
        if let ChildRef::Leaf(leaf) = self.base(guard)
            && let Body::Changes(frozen) = &leaf.read().body
        {
            return frozen.leaf_below(guard);
        }
        self.base_in_file(guard)
    }

    /// What the changes are made to: a page or a leaf that does not change.
    #[inline]
    pub(crate) fn base<'g>(&'g self, guard: &'g Guard) -> ChildRef<'g> {
        self.base.load(guard)
    }

    /// What the changes are made to is here in the file now. Only the writer calls it. `free_bytes`
    /// stays right: it is a lower bound for the leaf as it was.
    pub(crate) fn move_base(&self, leaf: &PackedLeaf, guard: &Guard) {
        self.base.store(in_file(leaf), guard);
    }

    /// True if a put, after others of `more_bytes`, may need to know what the page has, or that the
    /// changes be merged with it.
    pub(crate) fn is_short_of(
        &self,
        entry: (&[u8], usize),
        more_bytes: usize,
        page_size: usize,
    ) -> bool {
        let free_bytes = self.free_bytes.saturating_sub(more_bytes);
        let changes_bytes = self.delta.live_bytes() + more_bytes;
        is_short_of(free_bytes, changes_bytes, entry, page_size)
    }

    /// Whether a put, after others of `more_bytes`, goes among the changes, as
    /// [`Changes::try_set`] will find.
    pub(crate) fn room_for(
        &self,
        (key, value_len): (&[u8], usize),
        more_bytes: usize,
        page_size: usize,
    ) -> Room {
        let held = match self.delta.search(key) {
            Ok(i) => self.delta.get(i).1.map(Stored::len),
            Err(_) => None,
        };
        let free_bytes = self.free_bytes.saturating_sub(more_bytes);
        let changes_bytes = self.delta.live_bytes() + more_bytes;
        let entry = (key, value_len);
        room_for((free_bytes, changes_bytes), entry, held, page_size)
    }

    /// True if so many of the changes are deletes that the leaf may have become underfull.
    pub(crate) fn has_many_deletes(&self) -> bool {
        self.has_many_deletes_with(0)
    }

    /// The same after so many more.
    pub(crate) fn has_many_deletes_with(&self, more: usize) -> bool {
        (self.delta.deletes() + more) * 2 >= self.base_len
    }

    /// Entries of the base that the changes leave, without those that they add.
    pub(crate) fn entries_left(&self) -> usize {
        let gone = mutated!(
            "deletes-below-a-checkpoint-not-counted",
            0,
            self.delta.deletes()
        );
        self.base_len.saturating_sub(gone)
    }

    /// Records a change if the merged leaf is sure to fit its page; `limit_bytes` bounds the
    /// changes. `place` is what [`Delta::search`] gives for the key. `length_in_base` gives the
    /// length of the key's value in the base, and is only asked when space is scarce: it costs a
    /// search.
    pub(crate) fn try_set<E>(
        &mut self,
        place: Result<usize, usize>,
        key: &[u8],
        value: Option<Stored<'_>>,
        limit_bytes: usize,
        guard: &Guard,
        length_in_base: impl FnOnce(ChildRef<'_>) -> Result<Option<usize>, E>,
    ) -> Result<bool, E> {
        let mut cost = 0;
        if let Some(value) = value {
            let held = match place {
                Ok(i) => self.delta.get(i).1.map(Stored::len),
                Err(_) => None,
            };
            cost = match held {
                // The entry was paid for, at this length, when it was put before.
                Some(len) => value.len().saturating_sub(len),
                None => key.len() + value.len() + ENTRY_COST_BYTES,
            };
            if cost > self.free_bytes
                && held.is_none()
                && length_in_base(self.base.load(guard))?.is_some_and(|len| value.len() <= len)
            {
                // It takes the place of an entry that is at least as long.
                cost = 0;
            }
            if cost > self.free_bytes {
                return Ok(false);
            }
        }
        if self.delta.live_bytes() + key.len() + value.map_or(0, Stored::len) > limit_bytes {
            return Ok(false);
        }
        self.free_bytes -= cost;
        self.delta.set(place, key, value);
        Ok(true)
    }

    /// The image of the base with the changes made. By the accounting of `free_bytes` it is no
    /// longer than a page.
    pub(crate) fn merged(&self, base: &[u8], page_size: usize) -> Box<[u8]> {
        leaf::merged(base, self.delta.iter(), page_size)
    }
}

/// True if the first change to a page of the file, a put, may need to know what the page has.
/// Others of `more_bytes` come before it.
pub(crate) fn needs_base(
    base: &PackedLeaf,
    facts: &LeafFacts,
    entry: (&[u8], usize),
    more_bytes: usize,
    page_size: usize,
) -> bool {
    let free_bytes = free_bytes(base, facts, page_size).saturating_sub(more_bytes);
    is_short_of(free_bytes, more_bytes, entry, page_size)
}

/// Room for a put among the changes to a leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    Enough,
    /// In the place of a value in the base that is at least as long.
    InPlace,
    None,
}

/// Bytes that a put takes of what a leaf has for changes, at most.
pub(crate) fn put_cost(key: &[u8], value_len: usize) -> usize {
    key.len() + value_len + ENTRY_COST_BYTES
}

/// Room for a change to a page of the file, the first but for others of `more_bytes`.
pub(crate) fn room_in_page(
    base: &PackedLeaf,
    facts: &LeafFacts,
    entry: (&[u8], usize),
    more_bytes: usize,
    page_size: usize,
) -> Room {
    let free_bytes = free_bytes(base, facts, page_size).saturating_sub(more_bytes);
    room_for((free_bytes, more_bytes), entry, None, page_size)
}

/// `held` is the length of the key's value among the changes, if there is one.
fn room_for(
    (free_bytes, changes_bytes): (usize, usize),
    (key, value_len): (&[u8], usize),
    held: Option<usize>,
    page_size: usize,
) -> Room {
    let is_too_much = changes_bytes + key.len() + value_len > changes_bytes_max(page_size);
    if is_too_much || is_large(key, value_len, page_size) {
        return Room::None;
    }
    match held {
        Some(held) if value_len.saturating_sub(held) <= free_bytes => Room::Enough,
        Some(_) => Room::None,
        None if put_cost(key, value_len) <= free_bytes => Room::Enough,
        None => Room::InPlace,
    }
}

fn is_short_of(
    free_bytes: usize,
    changes_bytes: usize,
    (key, value_len): (&[u8], usize),
    page_size: usize,
) -> bool {
    let needed = key.len() + value_len + ENTRY_COST_BYTES;
    needed > free_bytes
        || changes_bytes + needed > changes_bytes_max(page_size)
        || is_large(key, value_len, page_size)
}

/// Values that live outside the leaf: those longer than a quarter of a page, unless two such
/// entries go into a page.
pub(crate) fn is_large(key: &[u8], value_len: usize, page_size: usize) -> bool {
    let fits_twice = key.len() + value_len <= page_size / 2 - page_size / 32;
    value_len > page_size / 4 && !fits_twice
}

/// Entries of a page of the file with its packs. What an estimate adds is left out: in a leaf that
/// is taken to have more than it has, too many deletes would pass before one finds it underfull.
fn base_len(base: &PackedLeaf, facts: &LeafFacts) -> usize {
    let entries = match base.held.is_estimate {
        true => base.held.entries.min(0),
        false => base.held.entries,
    };
    facts.entries.saturating_add_signed(entries.into())
}

/// Bytes that a page of the file with its packs still has for changes, at least.
pub(crate) fn free_bytes(base: &PackedLeaf, facts: &LeafFacts, page_size: usize) -> usize {
    let growth = base.held.growth.into();
    page_size.saturating_sub(facts.live_bytes.saturating_add_signed(growth))
}

/// What changes to a leaf of the file lie over.
fn in_file(leaf: &PackedLeaf) -> Child {
    if leaf.packs.is_empty() {
        return Child::Disk(leaf.page);
    }
    let state = LeafState {
        generation: 0,
        last_seq: SeqNo::ZERO,
        body: Body::Packed(*leaf),
    };
    state.into_child()
}

impl Clone for Changes {
    fn clone(&self) -> Self {
        Self {
            base: Slot::new(self.base(&crossbeam_epoch::pin()).to_owned()),
            delta: self.delta.clone(),
            free_bytes: self.free_bytes,
            base_len: self.base_len,
        }
    }
}

/// A leaf in memory.
#[derive(Clone)]
pub(crate) struct LeafState {
    /// The tree's generation when this copy was made.
    pub(crate) generation: u64,
    /// Number of the latest change (E4).
    pub(crate) last_seq: SeqNo,
    pub(crate) body: Body,
}

impl LeafState {
    pub(crate) fn whole(
        generation: u64,
        last_seq: SeqNo,
        image: Box<[u8]>,
        large: LargeValues,
    ) -> Self {
        Self {
            generation,
            last_seq,
            body: Body::Whole { image, large },
        }
    }

    pub(crate) fn into_child(self) -> Child {
        Child::Leaf(Arc::new(RwLock::new(self)))
    }

    pub(crate) fn size_bytes(&self) -> usize {
        NODE_OVERHEAD_BYTES
            + match &self.body {
                Body::Whole { image, large } => {
                    image.len() + large.iter().map(|(_, v)| v.bytes.len()).sum::<usize>()
                }
                Body::Changes(changes) => changes.delta.size_bytes(),
                Body::Packed(_) => 0,
            }
    }
}

/// The large values that `image` refers to, out of `all`.
pub(crate) fn large_values_of(image: &[u8], all: &LargeValues) -> LargeValues {
    if all.is_empty() {
        return Vec::new();
    }
    let leaf = Leaf::from_image(image);
    let mut found: LargeValues = (0..leaf.len())
        .filter_map(|i| match leaf.value(i) {
            LeafValue::Overflow { page, .. } => {
                let number = pending_number(page)?;
                Some((number, Arc::clone(find_large(all, number)?)))
            }
            LeafValue::Inline(_) | LeafValue::Apart(_) => None,
        })
        .collect();
    found.sort_unstable_by_key(|entry| entry.0);
    found
}

/// True if the image is longer than a page.
pub(crate) fn is_jumbo(image: &[u8], page_size: usize) -> bool {
    image.len() > page_size
}
