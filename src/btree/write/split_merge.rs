//! Splits and merges of nodes, and what they change in the parent.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::editor::{EditOutcome, Editor};
use crate::btree::memory::node::{Body, Child, ChildRef, LargeValues, LeafState, MemInner, Slot};
use crate::btree::node;
use crate::btree::node::inner::Inner;
use crate::btree::node::leaf::Leaf;
use crate::btree::node::{Link, Rebuilt, inner, leaf};
use crate::error::Result;
use crate::types::{PageId, SeqNo};

impl<'g> Editor<'g, '_> {
    /// Child `i` of `inner`, which `slot` holds, became two.
    pub(super) fn absorb_split(
        &mut self,
        slot: &Slot,
        inner: &MemInner,
        i: usize,
        left: Child,
        separator: &[u8],
        right: Child,
    ) -> EditOutcome {
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
        self.writer.sub_dirty(inner.generation, inner.size_bytes());
        match rebuilt {
            Rebuilt::One(image) => {
                self.store_inner(slot, image.into(), children);
                EditOutcome::Done
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
                self.writer
                    .add_dirty(left.size_bytes() + right.size_bytes());
                EditOutcome::Split {
                    left: Child::Inner(Arc::new(left)),
                    separator,
                    right: Child::Inner(Arc::new(right)),
                }
            }
        }
    }

    /// Child `i` of `inner`, which `slot` holds, became small: merges it with a neighbour if
    /// the two fit one page with space to spare.
    pub(super) fn merge_child(
        &mut self,
        slot: &Slot,
        inner: &'g MemInner,
        i: usize,
    ) -> Result<EditOutcome> {
        let node = inner.node();
        if node.child_count() == 1 {
            return Ok(EditOutcome::Underfull);
        }
        let left = if i + 1 < node.child_count() { i } else { i - 1 };
        let merged = if node.level() == 1 {
            self.merged_leaves(&inner.slots[left], &inner.slots[left + 1])
        } else {
            self.merged_inners(&inner.slots[left], &inner.slots[left + 1], node.level() - 1)
        };
        // A neighbour that cannot be read, or is of no use, is left alone: merging is housekeeping.
        let Some(merged) = merged else {
            return Ok(EditOutcome::Done);
        };
        self.shrunk = true;
        let image = inner::without_children(&inner.image, left + 1..left + 2, self.page_size());
        let mut children = self.owned_children(inner);
        children.remove(left + 1);
        children[left] = merged;
        let few = children.len() == 1;
        let underfull = few || Inner::from_image(&image).live_bytes() < self.underfull_bytes();
        self.writer.sub_dirty(inner.generation, inner.size_bytes());
        self.store_inner(slot, image.into(), children);
        Ok(if underfull {
            EditOutcome::Underfull
        } else {
            EditOutcome::Done
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
                    self.writer.pending_frees.free(page, pages);
                    self.writer.pending_frees.removed_entries += entries as u64;
                }
                Origin::Memory { generation, bytes } => self.writer.sub_dirty(generation, bytes),
            }
        }
        large.sort_unstable_by_key(|entry| entry.0);
        let state = LeafState::whole(self.writer.generation, last_seq, image, large);
        self.writer.add_dirty(state.size_bytes());
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
                Origin::Disk { page, pages } => self.writer.pending_frees.free(page, pages),
                Origin::Memory { generation, bytes } => self.writer.sub_dirty(generation, bytes),
            }
        }
        let mut children = a.1;
        children.extend(b.1);
        let inner = MemInner::new(self.writer.generation, image.into(), children);
        self.writer.add_dirty(inner.size_bytes());
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

    /// A root with one child gives way to it.
    pub(super) fn collapse_root(&mut self) {
        while let ChildRef::Inner(inner) = self.tree.root.load(self.guard)
            && inner.slots.len() == 1
        {
            let only = inner.slots[0].load(self.guard).to_owned();
            self.writer.sub_dirty(inner.generation, inner.size_bytes());
            self.tree.root.store(only, self.guard);
        }
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
