//! The editor: what every change of the tree is made of.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crossbeam_epoch::Guard;

use super::state::WriterState;
use crate::btree::file::pager::PageRef;
use crate::btree::memory::node::{
    Body, Changes, Child, ChildRef, LargeValues, LeafState, MemInner, MemLeaf, Slot, find_large,
    is_jumbo, pending_number,
};
use crate::btree::memory::slot::NodeRef;
use crate::btree::node;
use crate::btree::node::inner::Inner;
use crate::btree::node::leaf::{Leaf, LeafFacts, LeafValue};
use crate::btree::node::packs::{PackedLeaf, Packs};
use crate::btree::node::{Link, NodeKind};
use crate::btree::read::shared::SharedTree;
use crate::error::Result;
use crate::types::{PageId, SeqNo};

/// What happened below a slot.
pub(super) enum EditOutcome {
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

/// One operation on the tree.
pub(crate) struct Editor<'g, 'w> {
    pub(super) tree: &'g SharedTree,
    pub(super) writer: &'w mut WriterState,
    pub(super) guard: &'g Guard,
    pub(super) seq: SeqNo,
    /// A merge took place.
    pub(super) shrunk: bool,
    /// A key in the leaf that may be filled next.
    pub(super) next_to_fill: Option<Vec<u8>>,
}

impl<'g, 'w> Editor<'g, 'w> {
    /// For operation `seq`.
    pub(crate) fn new(
        tree: &'g SharedTree,
        writer: &'w mut WriterState,
        guard: &'g Guard,
        seq: SeqNo,
    ) -> Self {
        Self {
            tree,
            writer,
            guard,
            seq,
            shrunk: false,
            next_to_fill: None,
        }
    }

    pub(super) fn page_size(&self) -> usize {
        self.tree.page_size()
    }

    /// A node with less than this is merged with a neighbour, if the two leave a quarter of
    /// a page free.
    pub(super) fn underfull_bytes(&self) -> usize {
        self.page_size() / 4
    }

    /// Puts `child` into `slot`.
    pub(super) fn store(&self, slot: &Slot, child: Child) {
        self.tree.store(slot, child, self.guard);
    }

    /// Puts a new inner node into `slot`.
    pub(super) fn store_inner(
        &mut self,
        slot: &Slot,
        image: Arc<[u8]>,
        children: Vec<Child>,
        packs: Option<Arc<Packs>>,
    ) {
        let inner = MemInner::new(self.writer.generation, image, children).with_packs(packs);
        self.put_inner(slot, inner);
    }

    fn put_inner(&mut self, slot: &Slot, inner: MemInner) {
        self.writer.add_dirty(inner.size_bytes());
        self.store(slot, Child::Inner(Arc::new(inner)));
    }

    /// Loads the page that `slot` refers to into memory; it leaves the tree (BW3). `packed` is what
    /// packs hold for it.
    #[cold]
    pub(super) fn load_page(
        &mut self,
        slot: &Slot,
        link: Link,
        packed: Option<PackedLeaf>,
        level: Option<u8>,
        key: Option<&[u8]>,
    ) -> Result<()> {
        let page = link.page();
        let image = self.tree.disk_node(link, level, self.guard)?;
        if level.is_none() {
            self.check_root(&image, page)?;
        }
        if node::kind(&image) == Some(NodeKind::Leaf) {
            if key.is_some_and(|key| !Leaf::from_image(&image).covers(key)) {
                return Err(self
                    .tree
                    .pager
                    .damaged(page, "the leaf does not cover a key that leads to it"));
            }
            let leaf = packed.unwrap_or_else(|| PackedLeaf::alone(link));
            let facts = LeafFacts::of(&image);
            let body = self.leaf_from_disk(&leaf, &image, &facts)?;
            self.put_leaf(slot, &leaf, &facts, body);
        } else {
            let image = self.tree.disk_node_to_rewrite(link, level, self.guard)?;
            let inner = MemInner::from_disk(self.writer.generation, &image);
            if let Some(packs) = &inner.packs {
                self.writer.pending_frees.free_packs(packs);
            }
            self.writer.add_dirty(inner.size_bytes());
            let pages = u64::from(node::unit_count(&image));
            self.writer.pending_frees.free(page, pages);
            self.store(slot, Child::Inner(Arc::new(inner)));
        }
        Ok(())
    }

    /// Loads the leaf that `slot` refers to without a look at its page; it leaves the tree (BW3).
    /// A page of which this much is known has the fences that lead to it, and all of its values.
    pub(super) fn load_known_leaf(&mut self, slot: &Slot, leaf: &PackedLeaf, facts: &LeafFacts) {
        let changes = Changes::new(leaf, facts, self.page_size());
        self.put_leaf(slot, leaf, facts, Body::Changes(changes));
    }

    /// Puts a leaf of the file, which leaves the tree, into memory.
    fn put_leaf(&mut self, slot: &Slot, leaf: &PackedLeaf, facts: &LeafFacts, body: Body) {
        let state = LeafState {
            generation: self.writer.generation,
            last_seq: SeqNo(self.tree.disk_seq.load(Ordering::Acquire)),
            body,
        };
        let entries = facts.entries as i64 + i64::from(leaf.held.entries);
        self.writer.pending_frees.removed_entries += entries;
        self.tree.count_changed_leaf();
        self.writer.add_dirty(state.size_bytes());
        self.writer.pending_frees.free_node(leaf.page, facts.units);
        self.store(slot, state.into_child());
    }

    /// A leaf in memory for the page: changes to it, unless it has overflow values, whose
    /// bookkeeping wants a whole leaf, or is a jumbo.
    fn leaf_from_disk(
        &self,
        leaf: &PackedLeaf,
        image: &PageRef<'_>,
        facts: &LeafFacts,
    ) -> Result<Body> {
        let pager = &self.tree.pager;
        if !is_jumbo(image, self.page_size())
            && pager.has_all_values(image, leaf.page.page(), self.guard)
        {
            let changes = Changes::new(leaf, facts, self.page_size());
            return Ok(Body::Changes(changes));
        }
        let page = leaf.page.page();
        if !leaf.packs.is_empty() {
            let what = "packs hold changes to a leaf that cannot have any";
            return Err(self.tree.pager.damaged(page, what));
        }
        self.check_no_pending(page, image)?;
        let image = self
            .tree
            .disk_node_to_rewrite(leaf.page, Some(0), self.guard)?;
        Ok(Body::Whole {
            image: (*image).into(),
            large: Vec::new(),
        })
    }

    /// Page numbers that mean pending values in memory must not come from the file.
    pub(super) fn check_no_pending(&self, page: PageId, image: &[u8]) -> Result<()> {
        let leaf = Leaf::from_image(image);
        let bad = (0..leaf.len()).any(|i| match leaf.value(i) {
            LeafValue::Overflow { page, .. } => pending_number(page).is_some(),
            LeafValue::Inline(_) | LeafValue::Apart(_) => false,
        });
        if bad {
            return Err(self
                .tree
                .pager
                .damaged(page, "an overflow reference leads outside the file"));
        }
        Ok(())
    }

    /// Copies an inner node of which child `i` is of an older generation (BW1).
    pub(super) fn copy_inner(&mut self, slot: &Slot, old: &MemInner, i: usize) {
        let copy = old.copy_for(i, self.writer.generation, self.guard);
        self.writer.sub_dirty(old.generation, old.size_bytes());
        self.put_inner(slot, copy);
    }

    /// The same for one that may be changed in many places.
    pub(super) fn copy_whole_inner(&mut self, slot: &Slot, old: &MemInner) {
        let children = self.owned_children(old);
        self.writer.sub_dirty(old.generation, old.size_bytes());
        self.store_inner(slot, Arc::clone(&old.image), children, old.packs.clone());
    }

    /// Child `i` may be replaced.
    pub(super) fn is_own(&self, inner: &MemInner, i: usize) -> bool {
        let generation = self.writer.generation;
        inner.generation == generation && inner.slots.is_own(i, generation)
    }

    pub(super) fn owned_children(&self, inner: &MemInner) -> Vec<Child> {
        let slots = inner.slots.iter();
        slots.map(|slot| slot.load(self.guard).to_owned()).collect()
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

    /// A child that is about to be loaded from the file has the fences that its parent gives it.
    /// Pages are checked each by itself, and a key must not be put into a leaf that cannot hold it.
    /// Returns what is known of a leaf afterwards.
    pub(super) fn check_child(&self, inner: &MemInner, i: usize) -> Result<Option<LeafFacts>> {
        let ChildRef::Disk(link) = inner.slots[i].load(self.guard) else {
            return Ok(None);
        };
        let (page, level) = (link.page(), inner.node().level().checked_sub(1));
        let (lower, upper) = inner.child_fences(i);
        let fences = (&*lower, upper.as_deref());
        if let Some(facts) = self.tree.pager.known_leaf(page, fences, self.guard) {
            return Ok(Some(facts));
        }
        let image = self.tree.disk_node(link, level, self.guard)?;
        let mut found = Vec::new();
        if node::kind(&image) == Some(NodeKind::Leaf) {
            if Leaf::from_image(&image).fences(&mut found) == fences {
                self.tree.pager.note_leaf(&image, page, fences, self.guard);
                return Ok(self.tree.pager.known_leaf(page, fences, self.guard));
            }
        } else {
            let inner = Inner::from_image(&image);
            let is_bounded = inner.write_upper_fence(&mut found);
            if (inner.lower_fence(), is_bounded.then_some(&*found)) == fences {
                return Ok(None);
            }
        }
        let what = "the node's fences are not those that its parent gives it";
        Err(self.tree.pager.damaged(page, what))
    }

    /// Calls `change` with the leaf, locked, if it is of the current generation.
    pub(super) fn with_current_leaf<R>(
        &mut self,
        leaf: &MemLeaf,
        change: impl FnOnce(&mut Self, &mut LeafState) -> R,
    ) -> Option<R> {
        // A frozen leaf may be locked by a cursor for long, so it is not waited for; a current one
        // is locked by point readers only.
        if let Some(mut state) = leaf.try_write() {
            return (state.generation == self.writer.generation).then(|| change(self, &mut state));
        }
        let is_current = leaf.read().generation == self.writer.generation;
        is_current.then(|| change(self, &mut leaf.write()))
    }

    /// Puts a copy of a leaf of an older generation into `slot`.
    pub(super) fn copy_leaf(
        &mut self,
        slot: &'g Slot,
        leaf: NodeRef<'g, MemLeaf>,
    ) -> Result<&'g MemLeaf> {
        let state = leaf.get().read();
        let copy = self.copy_of_frozen(leaf, &state)?;
        if self.writer.checkpointing {
            self.tree.count_changed_leaf();
        }
        self.writer.sub_dirty(state.generation, state.size_bytes());
        drop(state);
        self.writer.add_dirty(copy.size_bytes());
        self.store(slot, copy.into_child());
        let ChildRef::Leaf(leaf) = slot.load(self.guard) else {
            unreachable!("only this thread stores")
        };
        Ok(leaf.get())
    }

    /// A leaf of the current generation with the content of a frozen one.
    fn copy_of_frozen(&self, leaf: NodeRef<'g, MemLeaf>, state: &LeafState) -> Result<LeafState> {
        let body = if !self.writer.checkpointing
            || state.generation >= self.writer.checkpoint_generation
        {
            state.body.clone()
        } else if let Some(changes) = Changes::over(leaf, state, self.page_size(), self.guard) {
            Body::Changes(changes)
        } else {
            // A copy must not lie over a page that the checkpoint takes out of use (BW5).
            match &state.body {
                Body::Changes(changes) => Body::Whole {
                    image: self.tree.merged_image(changes, self.guard)?,
                    large: Vec::new(),
                },
                whole @ (Body::Whole { .. } | Body::Packed(_)) => whole.clone(),
            }
        };
        Ok(LeafState {
            generation: self.writer.generation,
            last_seq: state.last_seq,
            body,
        })
    }

    /// Merges changes with their page.
    pub(super) fn make_whole(&mut self, state: &mut LeafState) -> Result<()> {
        if let Body::Changes(changes) = &state.body {
            let image = self.tree.merged_image(changes, self.guard)?;
            let before = state.size_bytes();
            state.body = Body::Whole {
                image,
                large: Vec::new(),
            };
            self.writer.add_dirty(state.size_bytes());
            self.writer.sub_dirty(state.generation, before);
        }
        Ok(())
    }

    pub(super) fn underfull(&self, state: &LeafState) -> EditOutcome {
        match &state.body {
            Body::Whole { image, .. }
                if Leaf::from_image(image).live_bytes() < self.underfull_bytes() =>
            {
                EditOutcome::Underfull
            }
            _ => EditOutcome::Done,
        }
    }

    /// The current tree gives up a value that is outside its leaf.
    pub(super) fn release(&mut self, (page, len): (PageId, u32), large: &LargeValues) {
        let extent = match pending_number(page) {
            None => Some(page),
            Some(number) => {
                let value = find_large(large, number).expect("beside its reference");
                value.dropped.store(true, Ordering::Release);
                value.extent().map(|(page, _)| page)
            }
        };
        if let Some(page) = extent {
            let pages = self.tree.pager.units_for(len as usize);
            self.writer.pending_frees.free(page, pages);
            self.writer.pending_frees.freed_overflow_units += pages;
        }
    }
}

/// Page and length of a value outside the leaf.
pub(super) fn external(value: LeafValue<'_>) -> Option<(PageId, u32)> {
    match value {
        LeafValue::Inline(_) | LeafValue::Apart(_) => None,
        LeafValue::Overflow { page, len, .. } => Some((page, len)),
    }
}
