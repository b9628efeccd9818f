//! Range deletes: subtrees inside the range are cut off, the leaves at its ends are trimmed.

use std::sync::Arc;

use super::editor::{Editor, external};
use super::leaf::LeafOp;
use crate::btree::memory::delta::Delta;
use crate::btree::memory::merged::{Standing, Walk};
use crate::btree::memory::node::{Body, Child, ChildRef, LeafState, MemInner, Slot};
use crate::btree::node;
use crate::btree::node::leaf::Leaf;
use crate::btree::node::packs::PackedLeaf;
use crate::btree::node::{Link, inner, leaf};
use crate::btree::read::shared::{FoundLeaf, ReadFor};
use crate::error::Result;
use crate::util::mutants::mutated;

/// Leaves that are looked at before a range is taken not to be empty.
const EMPTY_LEAVES_MAX: usize = 4;

/// What comes at a key or after it.
enum NextKey {
    /// An entry of the leaf.
    Entry(Vec<u8>),
    /// No entry of the leaf, which ends here.
    Fence(Vec<u8>),
    /// No entry of the last leaf.
    End,
}

/// What comes at `from` or after it in a leaf with changes to it.
fn next_key(leaf: Leaf<'_>, delta: Option<&Delta>, from: &[u8]) -> NextKey {
    let none = Delta::new(leaf.prefix().len());
    let delta = delta.unwrap_or(&none);
    let (Ok(slot) | Err(slot)) = leaf.search(from);
    let (Ok(change) | Err(change)) = delta.search(from);
    let mut walk = Walk::at(slot, change);
    let mut key = Vec::new();
    if walk.forward(leaf, delta) {
        match walk.standing() {
            Standing::Slot(slot) => {
                key.extend_from_slice(leaf.prefix());
                key.extend_from_slice(leaf.key_suffix(slot));
            }
            Standing::Change(change) => key.extend_from_slice(delta.get(change).0),
        }
        return NextKey::Entry(key);
    }
    match leaf.write_upper_fence(&mut key) {
        true => NextKey::Fence(key),
        false => NextKey::End,
    }
}

impl<'g> Editor<'g, '_> {
    /// Removes `[start, end)`: whole subtrees are cut off unread, the two edges are trimmed.
    pub(super) fn delete_range(&mut self, start: &[u8], end: Option<&[u8]>) -> Result<()> {
        if end.is_some_and(|end| end <= start) {
            return Ok(());
        }
        if self.is_empty_range(start, end)? && !mutated!("range-delete-does-not-look-first") {
            return Ok(());
        }
        let root = &self.tree.root;
        if start.is_empty() && end.is_none() {
            self.drop_subtree(root.load(self.guard), None)?;
            let image = leaf::new(b"", None, self.page_size());
            let state = LeafState::whole(self.writer.generation, self.seq, image, Vec::new());
            self.writer.add_dirty(state.size_bytes());
            self.store(root, state.into_child());
            return Ok(());
        }
        let mut seams = vec![start.to_vec()];
        seams.extend(end.map(<[u8]>::to_vec));
        self.cut(root, None, None, start, end, &mut seams)?;
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

    /// True if there is nothing in `[start, end)`. Looks at a few leaves only: false where more
    /// are empty.
    fn is_empty_range(&self, start: &[u8], end: Option<&[u8]>) -> Result<bool> {
        let mut from = start.to_vec();
        for _ in 0..EMPTY_LEAVES_MAX {
            let root = self.tree.root.load(self.guard);
            let (leaf, _) = self.tree.find_leaf(root, &from, self.guard)?;
            let next = match &leaf {
                FoundLeaf::Page(image) => next_key(Leaf::from_image(image), None, &from),
                FoundLeaf::Packed(leaf) => {
                    let image = self.tree.packed_image(leaf, self.guard)?;
                    next_key(Leaf::from_image(&image), None, &from)
                }
                FoundLeaf::Memory(leaf) => match &leaf.read().body {
                    Body::Whole { image, .. } => next_key(Leaf::from_image(image), None, &from),
                    Body::Changes(changes) => {
                        let base = self.tree.base_image(changes, ReadFor::Use, self.guard)?;
                        next_key(Leaf::from_image(&base), Some(&changes.delta), &from)
                    }
                    Body::Packed(leaf) => {
                        let image = self.tree.packed_image(leaf, self.guard)?;
                        next_key(Leaf::from_image(&image), None, &from)
                    }
                },
            };
            match next {
                NextKey::Entry(key) => return Ok(end.is_some_and(|end| key.as_slice() >= end)),
                NextKey::Fence(fence) if end.is_none_or(|end| fence.as_slice() < end) => {
                    from = fence;
                }
                NextKey::Fence(_) | NextKey::End => return Ok(true),
            }
        }
        Ok(false)
    }

    /// Removes `[start, end)` below `slot`. Notes in `seams` keys of leaves that may be merged.
    fn cut(
        &mut self,
        slot: &'g Slot,
        packed: Option<PackedLeaf>,
        level: Option<u8>,
        start: &[u8],
        end: Option<&[u8]>,
        seams: &mut Vec<Vec<u8>>,
    ) -> Result<()> {
        loop {
            match slot.load(self.guard) {
                ChildRef::Disk(link) => self.load_page(slot, link, packed, level, None)?,
                ChildRef::Inner(inner) if !inner.slots.are_own(self.writer.generation) => {
                    self.copy_whole_inner(slot, &inner);
                }
                ChildRef::Inner(inner) => {
                    return self.cut_inner(slot, inner.get(), start, end, seams);
                }
                ChildRef::Leaf(leaf) => {
                    let cut = |editor: &mut Self, state: &mut LeafState| {
                        editor.cut_leaf(state, start, end)
                    };
                    if let Some(done) = self.with_current_leaf(&leaf, cut) {
                        return done;
                    }
                    let leaf = self.copy_leaf(slot, leaf)?;
                    return self.cut_leaf(&mut leaf.write(), start, end);
                }
            }
        }
    }

    /// Removes what a leaf has of `[start, end)`.
    fn cut_leaf(&mut self, state: &mut LeafState, start: &[u8], end: Option<&[u8]>) -> Result<()> {
        self.make_whole(state)?;
        let Body::Whole { image, .. } = &state.body else {
            unreachable!("just made whole")
        };
        let leaf = Leaf::from_image(image);
        let from = leaf.search(start).unwrap_or_else(|slot| slot);
        let to = end.map_or(leaf.len(), |end| {
            leaf.search(end).unwrap_or_else(|slot| slot)
        });
        self.remove_slots(state, from..to.max(from));
        Ok(())
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
            let packed = inner.packed_child(first, self.guard);
            self.cut(&inner.slots[first], packed, below, start, end, seams)?;
        }
        if whole_to == last && (last != first || first == whole_from) {
            self.check_child(inner, last)?;
            let packed = inner.packed_child(last, self.guard);
            self.cut(&inner.slots[last], packed, below, start, end, seams)?;
        }
        if whole_from >= whole_to {
            return Ok(());
        }

        for i in whole_from..whole_to {
            self.drop_child(inner, i)?;
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
            self.store(&inner.slots[whole_from], gap);
            return Ok(());
        }
        let image =
            inner::without_children(&inner.image, whole_from + 1..whole_to, self.page_size());
        let mut children = self.owned_children(inner);
        children.drain(whole_from + 1..whole_to);
        children[whole_from] = gap;
        self.writer.sub_dirty(inner.generation, inner.size_bytes());
        let packs = inner.change_packs(|packs| packs.without(whole_from + 1..whole_to, whole_from));
        self.store_inner(slot, image.into(), children, packs);
        Ok(())
    }

    /// An empty leaf under as many inner nodes as reach `level`.
    fn empty_subtree(&mut self, level: u8, lower: &[u8], upper: Option<&[u8]>) -> Child {
        let generation = self.writer.generation;
        if level == 0 {
            let image = leaf::new(lower, upper, self.page_size());
            let state = LeafState::whole(generation, self.seq, image, Vec::new());
            self.writer.add_dirty(state.size_bytes());
            return state.into_child();
        }
        let child = self.empty_subtree(level - 1, lower, upper);
        let image = inner::build(level, lower, upper, &[], &[Link::NOWHERE], self.page_size());
        let inner = MemInner::new(generation, image.into(), vec![child]);
        self.writer.add_dirty(inner.size_bytes());
        Child::Inner(Arc::new(inner))
    }

    /// Child `i` leaves the current tree.
    fn drop_child(&mut self, inner: &'g MemInner, i: usize) -> Result<()> {
        if let Some(leaf) = inner.packed_child(i, self.guard) {
            let entries = mutated!("entries-in-packs-not-counted", 0, leaf.held.entries);
            self.writer.pending_frees.removed_entries += i64::from(entries);
        }
        let below = inner.node().level().checked_sub(1);
        self.drop_subtree(inner.slots[i].load(self.guard), below)
    }

    /// A subtree leaves the current tree. Pages of the file are only noted: the checkpoint walks
    /// them.
    fn drop_subtree(&mut self, child: ChildRef<'g>, level: Option<u8>) -> Result<()> {
        match child {
            ChildRef::Disk(link) => {
                let level = match level {
                    Some(level) => level,
                    None => node::level(&self.tree.disk_node(link, None, self.guard)?),
                };
                self.writer.pending_frees.dropped.push((link, level));
            }
            ChildRef::Inner(inner) => {
                let inner = inner.get();
                self.writer.sub_dirty(inner.generation, inner.size_bytes());
                for i in 0..inner.slots.len() {
                    self.drop_child(inner, i)?;
                }
            }
            ChildRef::Leaf(leaf) => {
                let state = leaf.read();
                self.writer.sub_dirty(state.generation, state.size_bytes());
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
