//! Applying operations: the one writer's side of the tree.
//!
//! # How a change is made
//!
//! The writer goes down from the root and makes every node on the way its own: a page of the file is
//! brought into memory, a node of an older generation is copied; its parent's slot is replaced.
//! The leaf is then changed in place under its lock. After the first change of a generation
//! the way down finds nothing to copy.
//!
//! # Invariants
//!
//! - **W1** A node whose generation is not current is never changed (views and checkpoints share it).
//! - **W2** A split or merge leaves the old leaf as it was and puts new nodes into the tree. A
//!   reader that reached the old leaf through an old parent finds in it everything that
//!   was applied before the replacement, hence everything published when the read began.
//! - **W3** A page leaves the current tree at most once: when it is brought into memory, when the
//!   subtree that it heads is cut off, or when a checkpoint wrote a node that was superseded
//!   meanwhile. Then it is recorded in [`Interval`]; the next checkpoint frees it.
//! - **W4** An error comes before the change of a node, never in the middle of one.
//! - **W5** While a checkpoint runs, changes to a leaf that it is writing lie over that leaf, and the
//!   checkpoint's end puts the new page in its place. So after a checkpoint nothing in the current
//!   tree lies over a page that the checkpoint took out of use.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crossbeam_epoch::Guard;

use crate::btree::file::freespace::Run;
use crate::btree::memory::node::{
    Body, Changes, LargeValue, LargeValues, LeafState, MemInner, MemLeaf, find_large, has_overflow,
    is_single_page, large_values_of, pending_number, pending_ref,
};
use crate::btree::memory::slot::{Child, ChildRef, NodeRef, Slot};
use crate::btree::node;
use crate::btree::node::inner::Inner;
use crate::btree::node::leaf::{Leaf, LeafMut, LeafValue, Pending};
use crate::btree::node::{Link, NodeKind, Rebuilt, inner, leaf};
use crate::btree::read::shared::Tree;
use crate::btree::read::view_cache::Kept;
use crate::error::Result;
use crate::types::{Op, PageId, SeqNo, SequencedOp};
use crate::util::mutants::mutated;

/// What the next checkpoint has to take off the books (W3).
#[derive(Debug, Default)]
pub(crate) struct Interval {
    /// Pages of nodes and of overflow extents.
    pub(crate) freed: Vec<Run>,
    /// How many of them were of overflow extents.
    pub(crate) freed_overflow_pages: u64,
    /// Entries of the leaves among them.
    pub(crate) removed_entries: u64,
    /// Whole subtrees that were cut off, and their levels. They are walked by the checkpoint.
    pub(crate) dropped: Vec<(Link, u8)>,
}

impl Interval {
    pub(crate) fn free(&mut self, page: PageId, pages: u64) {
        self.freed.push(Run {
            start: page.0,
            len: pages,
        });
    }

    /// Takes back what a failed checkpoint was given.
    pub(crate) fn absorb(&mut self, other: Self) {
        self.freed.extend(other.freed);
        self.freed_overflow_pages += other.freed_overflow_pages;
        self.removed_entries += other.removed_entries;
        self.dropped.extend(other.dropped);
    }
}

/// The generation before a seal that can be taken back.
pub(crate) struct SealOfViews(u64);

/// State of the one writer.
#[derive(Debug)]
pub(crate) struct Writer {
    /// Nodes of this generation may be changed in place.
    pub(crate) generation: u64,
    /// Something changed since the tree was last sealed.
    changed: bool,
    /// Last operation applied.
    pub(crate) applied: SeqNo,
    /// First operation applied since the last checkpoint began.
    pub(crate) first_since_checkpoint: Option<SeqNo>,
    pub(crate) interval: Interval,
    /// The present tree was sealed for views only, and all of them were kept in [`Tree::latest`].
    sealed_for_views: bool,
    /// Shards of [`Tree::latest`] that keep a view.
    pub(crate) kept: Kept,
    /// A checkpoint is under way: sealed nodes stay in memory until it ends.
    pub(crate) checkpointing: bool,
    /// Nodes of an older generation were there when the last checkpoint sealed the tree.
    pub(crate) checkpoint_generation: u64,
    /// Bytes of the nodes in memory that are to be written.
    pub(crate) dirty_bytes: u64,
    next_large: u64,
}

impl Writer {
    pub(crate) fn new(applied: SeqNo) -> Self {
        Self {
            generation: 1,
            changed: false,
            sealed_for_views: false,
            kept: 0,
            applied,
            first_since_checkpoint: None,
            interval: Interval::default(),
            checkpointing: false,
            checkpoint_generation: 0,
            dirty_bytes: 0,
            next_large: 0,
        }
    }

    /// From now on the nodes of the present tree never change.
    pub(crate) fn seal(&mut self) {
        self.seal_for_view();
        self.keep_seal();
    }

    /// The same for a view that is about to be kept in [`Tree::latest`]: such a seal can be taken back.
    pub(crate) fn seal_for_view(&mut self) {
        if self.changed && !mutated!("snapshot-of-the-tree-not-sealed") {
            self.generation += 1;
            self.changed = false;
            self.sealed_for_views = true;
        }
    }

    /// The seal that only views rely on, all of which are kept.
    pub(crate) fn seal_of_views(&self) -> Option<SealOfViews> {
        self.sealed_for_views
            .then(|| SealOfViews(self.generation - 1))
    }

    /// Others may rely on the present seal, too.
    pub(crate) fn keep_seal(&mut self) {
        self.sealed_for_views = false;
    }

    /// The views are gone, and nothing has changed since the seal: the nodes may be changed again.
    pub(crate) fn take_back(&mut self, seal: SealOfViews) {
        debug_assert!(!self.changed && self.generation == seal.0 + 1);
        self.generation = seal.0;
    }

    /// A change of the present tree begins ([`Tree::begin_change`]).
    pub(crate) fn begin_change(&mut self) {
        self.changed = true;
        self.keep_seal();
    }

    fn made(&mut self, bytes: usize) {
        self.dirty_bytes += bytes as u64;
    }

    /// A node left the current tree. If a checkpoint is under way it may still hold it.
    fn replaced(&mut self, generation: u64, bytes: usize) {
        if generation == self.generation || !self.checkpointing {
            self.dirty_bytes = self.dirty_bytes.saturating_sub(bytes as u64);
        }
    }
}

/// What happened below a slot.
enum Change {
    Done,
    /// The node became two, which are not in the tree yet.
    Split {
        left: Child,
        separator: Vec<u8>,
        right: Child,
    },
    /// The node is in the tree and has become small.
    Underfull,
}

/// What to do to a leaf.
#[derive(Clone, Copy)]
enum LeafOp<'a> {
    Put(&'a [u8]),
    Delete,
    /// Nothing; report if it is underfull.
    Touch,
    /// Nothing, but overflow values at this page or behind it are to be written anew; report if
    /// it is sparse.
    Move(u64),
}

impl Tree {
    /// As [`crate::engine::Engine::apply`].
    pub(crate) fn apply(&self, ops: &[SequencedOp<'_>]) -> Result<()> {
        let (Some(first), Some(last)) = (ops.first(), ops.last()) else {
            return Ok(());
        };
        let mut writer = self.writer.lock();
        if let Some(error) = self.apply_failed.get() {
            return Err(error.clone());
        }
        // Before the change, so that a log segment that it needs is never let go.
        if self.oldest_unpersisted.load(Ordering::Relaxed) == 0 {
            self.oldest_unpersisted
                .store(first.seq.0, Ordering::Release);
        }
        writer.first_since_checkpoint.get_or_insert(first.seq);
        self.begin_change(&mut writer);
        for op in ops {
            let guard = crossbeam_epoch::pin();
            let mut editor = Editor {
                tree: self,
                writer: &mut writer,
                guard: &guard,
                seq: op.seq,
                shrunk: false,
            };
            if let Err(error) = editor.apply(&op.op) {
                let _ = self.apply_failed.set(error.clone());
                return Err(error);
            }
        }
        writer.applied = last.seq;
        self.dirty_bytes
            .store(writer.dirty_bytes, Ordering::Relaxed);
        drop(writer);
        if self.flush_is_due() && !self.counters.woken.swap(true, Ordering::AcqRel) {
            self.host.wake();
        }
        Ok(())
    }
}

impl Tree {
    /// Sees to it that the next checkpoint writes the leaf for `key` to another place, and those of
    /// its overflow values that are at page `limit` or behind it.
    pub(crate) fn move_leaf(&self, key: &[u8], limit: u64) -> Result<()> {
        let guard = crossbeam_epoch::pin();
        let mut writer = self.writer.lock();
        self.begin_change(&mut writer);
        let seq = writer.applied;
        let mut editor = Editor {
            tree: self,
            writer: &mut writer,
            guard: &guard,
            seq,
            shrunk: false,
        };
        editor.edit_tree(key, LeafOp::Move(limit))?;
        self.dirty_bytes
            .store(writer.dirty_bytes, Ordering::Relaxed);
        Ok(())
    }
}

struct Editor<'g, 'w> {
    tree: &'g Tree,
    writer: &'w mut Writer,
    guard: &'g Guard,
    seq: SeqNo,
    /// A merge took place.
    shrunk: bool,
}

impl<'g> Editor<'g, '_> {
    fn apply(&mut self, op: &Op<'_>) -> Result<()> {
        match *op {
            Op::Put { key, value } => self.edit_tree(key, LeafOp::Put(value)),
            Op::Delete { key } => self.edit_tree(key, LeafOp::Delete),
            Op::DeleteRange { start, end } => self.delete_range(start, end),
        }
    }

    fn page_size(&self) -> usize {
        self.tree.page_size()
    }

    /// A node with less than this is merged with a neighbour, if the two leave a quarter of
    /// a page free.
    fn underfull_bytes(&self) -> usize {
        self.page_size() / 4
    }

    fn edit_tree(&mut self, key: &[u8], op: LeafOp<'_>) -> Result<()> {
        let root = &self.tree.root;
        if let Change::Split {
            left,
            separator,
            right,
        } = self.edit(root, None, key, op)?
        {
            let level = match &left {
                Child::Inner(inner) => inner.node().level() + 1,
                Child::Leaf(_) | Child::Disk(_) => 1,
            };
            let image = inner::build(
                level,
                b"",
                None,
                &[&separator],
                &[Link::NOWHERE; 2],
                self.page_size(),
            );
            self.store_inner(root, image.into(), vec![left, right]);
        }
        if self.shrunk {
            self.collapse_root();
        }
        Ok(())
    }

    /// A root with one child gives way to it.
    fn collapse_root(&mut self) {
        while let ChildRef::Inner(inner) = self.tree.root.load(self.guard)
            && inner.slots.len() == 1
        {
            let only = inner.slots[0].load(self.guard).to_owned();
            self.writer.replaced(inner.generation, inner.size_bytes());
            self.tree.root.store(only, self.guard);
        }
    }

    /// Puts a new inner node into `slot`.
    fn store_inner(&mut self, slot: &Slot, image: Arc<[u8]>, children: Vec<Child>) {
        let inner = MemInner::new(self.writer.generation, image, children);
        self.put_inner(slot, inner);
    }

    fn put_inner(&mut self, slot: &Slot, inner: MemInner) {
        self.writer.made(inner.size_bytes());
        slot.store(Child::Inner(Arc::new(inner)), self.guard);
    }

    /// Brings the page that `slot` refers to into memory; it leaves the tree (W3).
    #[cold]
    fn bring_in(
        &mut self,
        slot: &Slot,
        link: Link,
        level: Option<u8>,
        key: Option<&[u8]>,
    ) -> Result<()> {
        let page = link.page();
        let image = self.tree.disk_node(link, level, self.guard)?;
        if level.is_none() {
            self.check_root(&image, page)?;
        }
        let child = if node::kind(&image) == Some(NodeKind::Leaf) {
            if key.is_some_and(|key| !Leaf::from_image(&image).covers(key)) {
                return Err(self
                    .tree
                    .pager
                    .damaged(page, "the leaf does not cover a key that leads to it"));
            }
            self.writer.interval.removed_entries += Leaf::from_image(&image).len() as u64;
            let state = self.leaf_from_disk(link, &image)?;
            self.writer.made(state.size_bytes());
            state.into_child()
        } else {
            let inner = MemInner::from_disk(self.writer.generation, &image);
            self.writer.made(inner.size_bytes());
            Child::Inner(Arc::new(inner))
        };
        let pages = u64::from(node::page_count(&image));
        self.writer.interval.free(page, pages);
        slot.store(child, self.guard);
        Ok(())
    }

    /// A leaf in memory for the page: changes to it, unless it has overflow values, whose bookkeeping
    /// wants a whole leaf, or several pages.
    fn leaf_from_disk(&self, link: Link, image: &[u8]) -> Result<LeafState> {
        let generation = self.writer.generation;
        let last_seq = SeqNo(self.tree.disk_seq.load(Ordering::Acquire));
        if is_single_page(image) && !has_overflow(image) {
            return Ok(LeafState {
                generation,
                last_seq,
                body: Body::Changes(Changes::new(link, image)),
            });
        }
        self.check_no_pending(link.page(), image)?;
        Ok(LeafState::whole(
            generation,
            last_seq,
            image.into(),
            Vec::new(),
        ))
    }

    /// Page numbers that mean pending values in memory must not come from the file.
    fn check_no_pending(&self, page: PageId, image: &[u8]) -> Result<()> {
        let leaf = Leaf::from_image(image);
        let bad = (0..leaf.len()).any(|i| match leaf.value(i) {
            LeafValue::Overflow { page, .. } => pending_number(page).is_some(),
            LeafValue::Inline(_) => false,
        });
        if bad {
            return Err(self
                .tree
                .pager
                .damaged(page, "an overflow reference leads outside the file"));
        }
        Ok(())
    }

    /// Copies an inner node of which child `i` is of an older generation (W1).
    fn copy_inner(&mut self, slot: &Slot, old: &MemInner, i: usize) {
        let copy = old.copy_for(i, self.writer.generation, self.guard);
        self.writer.replaced(old.generation, old.size_bytes());
        self.put_inner(slot, copy);
    }

    /// The same for one that may be changed in many places.
    fn copy_whole_inner(&mut self, slot: &Slot, old: &MemInner) {
        let children = self.owned_children(old);
        self.writer.replaced(old.generation, old.size_bytes());
        self.store_inner(slot, Arc::clone(&old.image), children);
    }

    /// Child `i` may be replaced.
    fn is_own(&self, inner: &MemInner, i: usize) -> bool {
        let generation = self.writer.generation;
        inner.generation == generation && inner.slots.is_own(i, generation)
    }

    fn owned_children(&self, inner: &MemInner) -> Vec<Child> {
        let slots = inner.slots.iter();
        slots.map(|slot| slot.load(self.guard).to_owned()).collect()
    }

    /// Goes down to the leaf for `key` and does `op`.
    fn edit(
        &mut self,
        slot: &'g Slot,
        level: Option<u8>,
        key: &[u8],
        op: LeafOp<'_>,
    ) -> Result<Change> {
        loop {
            match slot.load(self.guard) {
                ChildRef::Disk(link) => self.bring_in(slot, link, level, Some(key))?,
                ChildRef::Inner(inner) => {
                    let inner = inner.get();
                    let node = inner.node();
                    let i = node.find_child(key);
                    if !self.is_own(inner, i) {
                        self.copy_inner(slot, inner, i);
                        continue;
                    }
                    let below = node.level().checked_sub(1);
                    self.check_child(inner, i)?;
                    return match self.edit(&inner.slots[i], below, key, op)? {
                        Change::Done => Ok(Change::Done),
                        Change::Split {
                            left,
                            separator,
                            right,
                        } => Ok(self.absorb_split(slot, inner, i, left, &separator, right)),
                        Change::Underfull => self.merge_child(slot, inner, i),
                    };
                }
                ChildRef::Leaf(leaf) => {
                    return self.with_own_leaf(slot, leaf, |editor, state| {
                        editor.edit_leaf(state, key, op)
                    });
                }
            }
        }
    }

    /// The root's keys have no bounds.
    fn check_root(&self, image: &[u8], page: PageId) -> Result<()> {
        let mut upper = Vec::new();
        let (is_open, is_bounded) = if node::kind(image) == Some(NodeKind::Leaf) {
            let leaf = Leaf::from_image(image);
            (
                leaf.lower_fence().is_empty(),
                leaf.write_upper_fence(&mut upper),
            )
        } else {
            let inner = Inner::from_image(image);
            (
                inner.lower_fence().is_empty(),
                inner.write_upper_fence(&mut upper),
            )
        };
        if is_open && !is_bounded {
            return Ok(());
        }
        Err(self.tree.pager.damaged(page, "the root has fences"))
    }

    /// A child that is about to be brought in from the file has the fences that its parent gives it. Pages are checked
    /// each by itself, and a key must not be put into a leaf that cannot hold it.
    fn check_child(&self, inner: &MemInner, i: usize) -> Result<()> {
        let ChildRef::Disk(link) = inner.slots[i].load(self.guard) else {
            return Ok(());
        };
        let node = inner.node();
        let image = self
            .tree
            .disk_node(link, node.level().checked_sub(1), self.guard)?;
        let (mut wanted, mut upper) = (Vec::new(), Vec::new());
        node.write_child_lower(i, &mut wanted);
        let (lower_fits, is_bounded) = if node::kind(&image) == Some(NodeKind::Leaf) {
            let leaf = Leaf::from_image(&image);
            let fits = leaf.lower_fence() == wanted;
            (fits, leaf.write_upper_fence(&mut upper))
        } else {
            let inner = Inner::from_image(&image);
            let fits = inner.lower_fence() == wanted;
            (fits, inner.write_upper_fence(&mut upper))
        };
        if lower_fits && node.write_child_upper(i, &mut wanted) == is_bounded && wanted == upper {
            return Ok(());
        }
        let what = "the node's fences are not those that its parent gives it";
        Err(self.tree.pager.damaged(link.page(), what))
    }

    /// Calls `change` with the leaf, locked, after copying it if it is of an older generation.
    fn with_own_leaf<R>(
        &mut self,
        slot: &'g Slot,
        leaf: NodeRef<'g, MemLeaf>,
        change: impl FnOnce(&mut Self, &mut LeafState) -> Result<R>,
    ) -> Result<R> {
        let node = leaf;
        let leaf = node.get();
        // A sealed leaf may be locked by a cursor for long, so it is not waited for; a current one
        // is locked by point readers only.
        if let Some(mut state) = leaf.try_write()
            && state.generation == self.writer.generation
        {
            return change(self, &mut state);
        }
        let state = leaf.read();
        if state.generation == self.writer.generation {
            drop(state);
            return change(self, &mut leaf.write());
        }
        let copy = self.copy_of_sealed(node, &state)?;
        self.writer.replaced(state.generation, state.size_bytes());
        drop(state);
        self.writer.made(copy.size_bytes());
        slot.store(copy.into_child(), self.guard);
        let ChildRef::Leaf(leaf) = slot.load(self.guard) else {
            unreachable!("only this thread stores")
        };
        change(self, &mut leaf.get().write())
    }

    /// A leaf of the current generation with the content of a sealed one.
    fn copy_of_sealed(&self, leaf: NodeRef<'g, MemLeaf>, state: &LeafState) -> Result<LeafState> {
        let body = if !self.writer.checkpointing
            || state.generation >= self.writer.checkpoint_generation
        {
            state.body.clone()
        } else if let Some(changes) = Changes::over(leaf, state, self.guard) {
            Body::Changes(changes)
        } else {
            // A copy must not lie over a page that the checkpoint takes out of use (W5).
            match &state.body {
                Body::Changes(changes) => Body::Whole {
                    image: self.tree.merged_image(changes, self.guard)?,
                    large: Vec::new(),
                },
                whole @ Body::Whole { .. } => whole.clone(),
            }
        };
        Ok(LeafState {
            generation: self.writer.generation,
            last_seq: state.last_seq,
            body,
        })
    }

    /// Does `op` to a leaf of the current generation.
    fn edit_leaf(&mut self, state: &mut LeafState, key: &[u8], op: LeafOp<'_>) -> Result<Change> {
        if let Body::Changes(changes) = &mut state.body {
            let before = changes.delta.size_bytes();
            let recorded = match op {
                LeafOp::Touch => return Ok(Change::Done),
                LeafOp::Move(_) => false,
                LeafOp::Put(value) if self.is_large(value) => false,
                // With many deletes the leaf may have become underfull: find out.
                LeafOp::Delete if changes.delta.deletes() * 2 >= changes.base_len => false,
                LeafOp::Put(_) | LeafOp::Delete => {
                    let value = match op {
                        LeafOp::Put(value) => Some(value),
                        _ => None,
                    };
                    let (tree, guard) = (self.tree, self.guard);
                    let limit_bytes = self.page_size() * 3 / 4;
                    changes.try_set(key, value, limit_bytes, guard, |base| {
                        tree.length_in_base(base, key, guard)
                    })?
                }
            };
            if recorded {
                let after = changes.delta.size_bytes();
                self.writer.dirty_bytes += after as u64;
                self.writer.dirty_bytes -= (before as u64).min(self.writer.dirty_bytes);
                state.last_seq = self.seq;
                return Ok(Change::Done);
            }
        }
        self.make_whole(state)?;
        match op {
            LeafOp::Put(value) => Ok(self.put_whole(state, key, value)),
            LeafOp::Delete => Ok(self.delete_whole(state, key)),
            LeafOp::Touch => Ok(self.underfull(state)),
            LeafOp::Move(limit) => self.move_values(state, limit),
        }
    }

    /// Turns overflow values at page `limit` or behind it into pending ones.
    fn move_values(&mut self, state: &mut LeafState, limit: u64) -> Result<Change> {
        let Body::Whole { image, large } = &mut state.body else {
            unreachable!("made whole by the caller")
        };
        let before: usize = large.iter().map(|(_, value)| value.bytes.len()).sum();
        for slot in 0..Leaf::from_image(image).len() {
            if let LeafValue::Overflow {
                page,
                len,
                checksum,
            } = Leaf::from_image(image).value(slot)
                && pending_number(page).is_none()
                && page.0 >= limit
            {
                let bytes =
                    self.tree
                        .pager
                        .overflow(page, len, checksum, self.guard, <[u8]>::to_vec)?;
                self.release((page, len), large);
                let number = self.writer.next_large;
                self.writer.next_large += 1;
                large.push((number, Arc::new(LargeValue::new(bytes))));
                LeafMut::from_image(image)
                    .set_value(slot, pending_ref(number, len as usize))
                    .expect("a reference takes the place of a reference");
            }
        }
        let after: usize = large.iter().map(|(_, value)| value.bytes.len()).sum();
        self.writer.made(after - before);
        if Leaf::from_image(image).live_bytes() < self.page_size() / 3 {
            return Ok(Change::Underfull);
        }
        Ok(Change::Done)
    }

    /// Values longer than this live outside the leaf.
    fn is_large(&self, value: &[u8]) -> bool {
        value.len() > self.page_size() / 4
    }

    /// Merges changes with their page.
    fn make_whole(&mut self, state: &mut LeafState) -> Result<()> {
        if let Body::Changes(changes) = &state.body {
            let image = self.tree.merged_image(changes, self.guard)?;
            let before = state.size_bytes();
            state.body = Body::Whole {
                image,
                large: Vec::new(),
            };
            self.writer.made(state.size_bytes());
            self.writer.replaced(state.generation, before);
        }
        Ok(())
    }

    fn underfull(&self, state: &LeafState) -> Change {
        match &state.body {
            Body::Whole { image, .. }
                if Leaf::from_image(image).live_bytes() < self.underfull_bytes() =>
            {
                Change::Underfull
            }
            _ => Change::Done,
        }
    }

    fn put_whole(&mut self, state: &mut LeafState, key: &[u8], value: &[u8]) -> Change {
        let size_before = state.size_bytes();
        let seq = self.seq;
        let (is_large, page_size) = (self.is_large(value), self.page_size());
        let Body::Whole { image, large } = &mut state.body else {
            unreachable!("made whole by the caller")
        };
        let mut added = None;
        let reference = if is_large {
            let number = self.writer.next_large;
            self.writer.next_large += 1;
            added = Some((number, Arc::new(LargeValue::new(value.to_vec()))));
            pending_ref(number, value.len())
        } else {
            LeafValue::Inline(value)
        };
        let leaf = Leaf::from_image(image);
        let place = leaf.search(key);
        let old = place.ok().map(|slot| external(leaf.value(slot)));
        let mut editable = LeafMut::from_image(image);
        let done = match place {
            Ok(slot) => editable.set_value(slot, reference),
            Err(slot) => editable.insert(slot, key, reference),
        };
        if let Some(Some(old)) = old {
            self.release(old, large);
        }
        let (at, replaces) = match place {
            Ok(at) => (at, true),
            Err(at) => (at, false),
        };
        let pending = Pending {
            at,
            replaces,
            key,
            value: reference,
        };
        let rebuilt = match done {
            Ok(()) => None,
            Err(node::Full) => Some(leaf::split(image, pending, page_size)),
        };
        match rebuilt {
            Some(Rebuilt::Two {
                left,
                separator,
                right,
            }) => {
                // The old leaf stays as it is (W2).
                let mut all = large.clone();
                all.extend(added);
                let generation = self.writer.generation;
                let mut child = |image: Box<[u8]>| {
                    let large = large_values_of(&image, &all);
                    let state = LeafState::whole(generation, seq, image, large);
                    self.writer.made(state.size_bytes());
                    state.into_child()
                };
                let (left, right) = (child(left), child(right));
                self.writer.replaced(generation, size_before);
                return Change::Split {
                    left,
                    separator,
                    right,
                };
            }
            Some(Rebuilt::One(rebuilt)) => *image = rebuilt,
            None => {}
        }
        large.extend(added);
        if let Some(Some((page, _))) = old {
            forget(large, page);
        }
        state.last_seq = seq;
        let size_after = state.size_bytes();
        if size_after != size_before {
            self.writer.made(size_after);
            self.writer.replaced(state.generation, size_before);
        }
        Change::Done
    }

    fn delete_whole(&mut self, state: &mut LeafState, key: &[u8]) -> Change {
        let Body::Whole { image, .. } = &state.body else {
            unreachable!("made whole by the caller")
        };
        match Leaf::from_image(image).search(key) {
            Ok(slot) => self.remove_slots(state, slot..slot + 1),
            Err(_) => Change::Done,
        }
    }

    /// Removes entries from a whole leaf.
    fn remove_slots(&mut self, state: &mut LeafState, slots: std::ops::Range<usize>) -> Change {
        if slots.is_empty() {
            return self.underfull(state);
        }
        let size_before = state.size_bytes();
        let page_size = self.page_size();
        let Body::Whole { image, large } = &mut state.body else {
            unreachable!("made whole by the caller")
        };
        let leaf = Leaf::from_image(image);
        let outside: Vec<_> = slots
            .clone()
            .filter_map(|slot| external(leaf.value(slot)))
            .collect();
        for value in outside {
            self.release(value, large);
            forget(large, value.0);
        }
        LeafMut::from_image(image).remove_range(slots);
        let leaf = Leaf::from_image(image);
        if image.len() > page_size && leaf.live_bytes() * 2 < image.len() {
            let mut upper = Vec::new();
            let bounded = leaf.write_upper_fence(&mut upper);
            let upper = bounded.then_some(&*upper);
            let smaller = leaf::with_fences(image, leaf.lower_fence(), upper, page_size);
            *image = smaller;
        }
        state.last_seq = self.seq;
        let size_after = state.size_bytes();
        self.writer.made(size_after);
        self.writer.replaced(state.generation, size_before);
        self.underfull(state)
    }

    /// The current tree gives up a value that is outside its leaf.
    fn release(&mut self, (page, len): (PageId, u32), large: &LargeValues) {
        let extent = match pending_number(page) {
            None => Some(page),
            Some(number) => {
                let value = find_large(large, number).expect("beside its reference");
                value.dropped.store(true, Ordering::Release);
                value.extent().map(|(page, _)| page)
            }
        };
        if let Some(page) = extent {
            let pages = self.tree.pager.pages_for(len as usize);
            self.writer.interval.free(page, pages);
            self.writer.interval.freed_overflow_pages += pages;
        }
    }

    /// Child `i` of `inner`, which `slot` holds, became two.
    fn absorb_split(
        &mut self,
        slot: &Slot,
        inner: &MemInner,
        i: usize,
        left: Child,
        separator: &[u8],
        right: Child,
    ) -> Change {
        let page_size = self.page_size();
        let rebuilt = inner::with_split(
            &inner.image,
            i,
            separator,
            Link::NOWHERE,
            Link::NOWHERE,
            page_size,
        );
        let mut children = self.owned_children(inner);
        children[i] = left;
        children.insert(i + 1, right);
        self.writer.replaced(inner.generation, inner.size_bytes());
        match rebuilt {
            Rebuilt::One(image) => {
                self.store_inner(slot, image.into(), children);
                Change::Done
            }
            Rebuilt::Two {
                left,
                separator,
                right,
            } => {
                let tail = children.split_off(Inner::from_image(&left).child_count());
                let generation = self.writer.generation;
                let left = MemInner::new(generation, left.into(), children);
                let right = MemInner::new(generation, right.into(), tail);
                self.writer.made(left.size_bytes() + right.size_bytes());
                Change::Split {
                    left: Child::Inner(Arc::new(left)),
                    separator,
                    right: Child::Inner(Arc::new(right)),
                }
            }
        }
    }

    /// Child `i` of `inner`, which `slot` holds, became small: merges it with a neighbour if
    /// the two fit one page with room to spare.
    fn merge_child(&mut self, slot: &Slot, inner: &'g MemInner, i: usize) -> Result<Change> {
        let node = inner.node();
        if node.child_count() == 1 {
            return Ok(Change::Underfull);
        }
        let left = if i + 1 < node.child_count() { i } else { i - 1 };
        let merged = if node.level() == 1 {
            self.merged_leaves(&inner.slots[left], &inner.slots[left + 1])
        } else {
            self.merged_inners(&inner.slots[left], &inner.slots[left + 1], node.level() - 1)
        };
        // A neighbour that cannot be read, or is of no use, is left alone: merging is housekeeping.
        let Some(merged) = merged else {
            return Ok(Change::Done);
        };
        self.shrunk = true;
        let image = inner::without_children(&inner.image, left + 1..left + 2, self.page_size());
        let mut children = self.owned_children(inner);
        children.remove(left + 1);
        children[left] = merged;
        let few = children.len() == 1;
        let underfull = few || Inner::from_image(&image).live_bytes() < self.underfull_bytes();
        self.writer.replaced(inner.generation, inner.size_bytes());
        self.store_inner(slot, image.into(), children);
        Ok(if underfull {
            Change::Underfull
        } else {
            Change::Done
        })
    }

    fn merged_leaves(&mut self, left: &'g Slot, right: &'g Slot) -> Option<Child> {
        let parts = [self.leaf_to_merge(left)?, self.leaf_to_merge(right)?];
        let [a, b] = [&parts[0], &parts[1]].map(|part| Leaf::from_image(&part.image));
        let mut fence = Vec::new();
        let crowded = a.live_bytes() + b.live_bytes() > self.page_size() * 3 / 4;
        if (crowded && !a.is_empty() && !b.is_empty())
            || !a.write_upper_fence(&mut fence)
            || fence != b.lower_fence()
        {
            return None;
        }
        let image = leaf::merge(&parts[0].image, &parts[1].image, self.page_size())?;
        let mut large: LargeValues = Vec::new();
        // A leaf into which another one was merged has a change as late as the later of the two,
        // or as this operation: the reader of a key that moved must not see it too early.
        let mut last_seq = self.seq;
        for part in parts {
            large.extend(part.large);
            last_seq = last_seq.max(part.last_seq);
            match part.origin {
                Origin::Disk { page, pages } => {
                    let entries = Leaf::from_image(&part.image).len();
                    self.writer.interval.free(page, pages);
                    self.writer.interval.removed_entries += entries as u64;
                }
                Origin::Memory { generation, bytes } => self.writer.replaced(generation, bytes),
            }
        }
        large.sort_unstable_by_key(|entry| entry.0);
        let state = LeafState::whole(self.writer.generation, last_seq, image, large);
        self.writer.made(state.size_bytes());
        Some(state.into_child())
    }

    fn leaf_to_merge(&self, slot: &'g Slot) -> Option<LeafToMerge> {
        match slot.load(self.guard) {
            ChildRef::Disk(link) => {
                let page = link.page();
                let image = self.tree.disk_node(link, Some(0), self.guard).ok()?;
                self.check_no_pending(page, &image).ok()?;
                Some(LeafToMerge {
                    image: (*image).into(),
                    large: Vec::new(),
                    last_seq: SeqNo(self.tree.disk_seq.load(Ordering::Acquire)),
                    origin: Origin::Disk {
                        page,
                        pages: u64::from(node::page_count(&image)),
                    },
                })
            }
            ChildRef::Leaf(leaf) => {
                let state = leaf.read();
                let (image, large) = match &state.body {
                    Body::Whole { image, large } => (image.clone(), large.clone()),
                    Body::Changes(changes) => (
                        self.tree.merged_image(changes, self.guard).ok()?,
                        Vec::new(),
                    ),
                };
                Some(LeafToMerge {
                    image,
                    large,
                    last_seq: state.last_seq,
                    origin: Origin::Memory {
                        generation: state.generation,
                        bytes: state.size_bytes(),
                    },
                })
            }
            ChildRef::Inner(_) => None,
        }
    }

    fn merged_inners(&mut self, left: &'g Slot, right: &'g Slot, level: u8) -> Option<Child> {
        let (a, a_origin) = self.inner_to_merge(left, level)?;
        let (b, b_origin) = self.inner_to_merge(right, level)?;
        let mut fence = Vec::new();
        let (low, high) = (Inner::from_image(&a.0), Inner::from_image(&b.0));
        if low.live_bytes() + high.live_bytes() > self.page_size() * 3 / 4
            || !low.write_upper_fence(&mut fence)
            || fence != high.lower_fence()
        {
            return None;
        }
        let image = inner::merge(&a.0, &b.0, self.page_size())?;
        for origin in [a_origin, b_origin] {
            match origin {
                Origin::Disk { page, pages } => self.writer.interval.free(page, pages),
                Origin::Memory { generation, bytes } => self.writer.replaced(generation, bytes),
            }
        }
        let mut children = a.1;
        children.extend(b.1);
        let inner = MemInner::new(self.writer.generation, image.into(), children);
        self.writer.made(inner.size_bytes());
        Some(Child::Inner(Arc::new(inner)))
    }

    fn inner_to_merge(&self, slot: &'g Slot, level: u8) -> Option<(InnerToMerge, Origin)> {
        match slot.load(self.guard) {
            ChildRef::Disk(link) => {
                let page = link.page();
                let image = self.tree.disk_node(link, Some(level), self.guard).ok()?;
                let node = Inner::from_image(&image);
                let children = (0..node.child_count())
                    .map(|i| Child::Disk(node.child(i)))
                    .collect();
                let pages = u64::from(node::page_count(&image));
                let image: Arc<[u8]> = (*image).into();
                Some(((image, children), Origin::Disk { page, pages }))
            }
            ChildRef::Inner(inner) => {
                let origin = Origin::Memory {
                    generation: inner.generation,
                    bytes: inner.size_bytes(),
                };
                let children = self.owned_children(&inner);
                Some(((Arc::clone(&inner.image), children), origin))
            }
            ChildRef::Leaf(_) => None,
        }
    }

    /// Removes `[start, end)`: whole subtrees are cut off unread, the two edges are trimmed.
    fn delete_range(&mut self, start: &[u8], end: Option<&[u8]>) -> Result<()> {
        if end.is_some_and(|end| end <= start) {
            return Ok(());
        }
        let root = &self.tree.root;
        if start.is_empty() && end.is_none() {
            self.drop_subtree(root.load(self.guard), None)?;
            let image = leaf::new(b"", None, self.page_size());
            let state = LeafState::whole(self.writer.generation, self.seq, image, Vec::new());
            self.writer.made(state.size_bytes());
            root.store(state.into_child(), self.guard);
            return Ok(());
        }
        let mut seams = vec![start.to_vec()];
        seams.extend(end.map(<[u8]>::to_vec));
        self.cut(root, None, start, end, &mut seams)?;
        // What is left on both sides of the cut, and the empty leaf in it, may be merged; each pass
        // joins at most one pair of nodes on every level.
        for key in &seams {
            loop {
                self.shrunk = false;
                self.edit_tree(key, LeafOp::Touch)?;
                if !self.shrunk {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Removes `[start, end)` below `slot`. Notes in `seams` keys of leaves that may be merged.
    fn cut(
        &mut self,
        slot: &'g Slot,
        level: Option<u8>,
        start: &[u8],
        end: Option<&[u8]>,
        seams: &mut Vec<Vec<u8>>,
    ) -> Result<()> {
        loop {
            match slot.load(self.guard) {
                ChildRef::Disk(link) => self.bring_in(slot, link, level, None)?,
                ChildRef::Inner(inner) if !inner.slots.are_own(self.writer.generation) => {
                    self.copy_whole_inner(slot, &inner);
                }
                ChildRef::Inner(inner) => {
                    return self.cut_inner(slot, inner.get(), start, end, seams);
                }
                ChildRef::Leaf(leaf) => {
                    return self.with_own_leaf(slot, leaf, |editor, state| {
                        editor.make_whole(state)?;
                        let Body::Whole { image, .. } = &state.body else {
                            unreachable!("just made whole")
                        };
                        let leaf = Leaf::from_image(image);
                        let from = leaf.search(start).unwrap_or_else(|slot| slot);
                        let to = end.map_or(leaf.len(), |end| {
                            leaf.search(end).unwrap_or_else(|slot| slot)
                        });
                        editor.remove_slots(state, from..to.max(from));
                        Ok(())
                    });
                }
            }
        }
    }

    fn cut_inner(
        &mut self,
        slot: &Slot,
        inner: &'g MemInner,
        start: &[u8],
        end: Option<&[u8]>,
        seams: &mut Vec<Vec<u8>>,
    ) -> Result<()> {
        let node = inner.node();
        let below = node.level().checked_sub(1);
        let first = node.find_child(start);
        let last = end.map_or(node.child_count() - 1, |end| node.find_child(end));
        let mut bound = Vec::new();
        node.write_child_lower(first, &mut bound);
        // Children `whole` lie inside the range; `first` and `last` may stick out of it.
        let whole_from = if start <= bound.as_slice() {
            first
        } else {
            first + 1
        };
        let bounded = node.write_child_upper(last, &mut bound);
        let last_is_whole = match end {
            None => true,
            Some(end) => bounded && bound.as_slice() <= end,
        };
        let whole_to = if last_is_whole { last + 1 } else { last };
        if first < whole_from {
            self.check_child(inner, first)?;
            self.cut(&inner.slots[first], below, start, end, seams)?;
        }
        if whole_to == last && (last != first || first == whole_from) {
            self.check_child(inner, last)?;
            self.cut(&inner.slots[last], below, start, end, seams)?;
        }
        if whole_from >= whole_to {
            return Ok(());
        }

        for i in whole_from..whole_to {
            self.drop_subtree(inner.slots[i].load(self.guard), below)?;
        }
        // One empty leaf takes the place of what was cut off, so that the neighbours' fences stay
        // right; merging makes it disappear.
        node.write_child_lower(whole_from, &mut bound);
        let mut upper = Vec::new();
        let bounded = node.write_child_upper(whole_to - 1, &mut upper);
        let gap = self.empty_subtree(
            below.unwrap_or_default(),
            &bound,
            bounded.then_some(&*upper),
        );
        seams.push(bound);
        if whole_to - whole_from == 1 {
            inner.slots[whole_from].store(gap, self.guard);
            return Ok(());
        }
        let image =
            inner::without_children(&inner.image, whole_from + 1..whole_to, self.page_size());
        let mut children = self.owned_children(inner);
        children.drain(whole_from + 1..whole_to);
        children[whole_from] = gap;
        self.writer.replaced(inner.generation, inner.size_bytes());
        self.store_inner(slot, image.into(), children);
        Ok(())
    }

    /// An empty leaf under as many inner nodes as reach `level`.
    fn empty_subtree(&mut self, level: u8, lower: &[u8], upper: Option<&[u8]>) -> Child {
        let generation = self.writer.generation;
        if level == 0 {
            let image = leaf::new(lower, upper, self.page_size());
            let state = LeafState::whole(generation, self.seq, image, Vec::new());
            self.writer.made(state.size_bytes());
            return state.into_child();
        }
        let child = self.empty_subtree(level - 1, lower, upper);
        let image = inner::build(level, lower, upper, &[], &[Link::NOWHERE], self.page_size());
        let inner = MemInner::new(generation, image.into(), vec![child]);
        self.writer.made(inner.size_bytes());
        Child::Inner(Arc::new(inner))
    }

    /// A subtree leaves the current tree. Pages of the file are only noted: the checkpoint walks them.
    fn drop_subtree(&mut self, child: ChildRef<'g>, level: Option<u8>) -> Result<()> {
        match child {
            ChildRef::Disk(link) => {
                let level = match level {
                    Some(level) => level,
                    None => node::level(&self.tree.disk_node(link, None, self.guard)?),
                };
                self.writer.interval.dropped.push((link, level));
            }
            ChildRef::Inner(inner) => {
                let inner = inner.get();
                self.writer.replaced(inner.generation, inner.size_bytes());
                let below = inner.node().level().checked_sub(1);
                for slot in inner.slots.iter() {
                    self.drop_subtree(slot.load(self.guard), below)?;
                }
            }
            ChildRef::Leaf(leaf) => {
                let state = leaf.read();
                self.writer.replaced(state.generation, state.size_bytes());
                if let Body::Whole { image, large } = &state.body {
                    let leaf = Leaf::from_image(image);
                    for i in 0..leaf.len() {
                        if let Some(value) = external(leaf.value(i)) {
                            self.release(value, large);
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

/// Page and length of a value outside the leaf.
fn external(value: LeafValue<'_>) -> Option<(PageId, u32)> {
    match value {
        LeafValue::Inline(_) => None,
        LeafValue::Overflow { page, len, .. } => Some((page, len)),
    }
}

/// Takes a pending value off a leaf's list.
fn forget(large: &mut LargeValues, page: PageId) {
    if let Some(number) = pending_number(page) {
        large.retain(|entry| entry.0 != number);
    }
}

type InnerToMerge = (Arc<[u8]>, Vec<Child>);

struct LeafToMerge {
    image: Box<[u8]>,
    large: LargeValues,
    last_seq: SeqNo,
    origin: Origin,
}

/// Where a node that was merged away came from.
enum Origin {
    Disk { page: PageId, pages: u64 },
    Memory { generation: u64, bytes: usize },
}
