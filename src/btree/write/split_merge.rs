//! Splits and merges of nodes, and what they change in the parent.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::editor::{EditOutcome, Editor};
use crate::btree::memory::node::{
    Body, Child, ChildRef, LargeValues, LeafState, MemInner, Slot, is_jumbo, large_values_of,
};
use crate::btree::node;
use crate::btree::node::inner::Inner;
use crate::btree::node::leaf::Leaf;
use crate::btree::node::packs::Packs;
use crate::btree::node::{Link, Rebuilt, inner, leaf};
use crate::error::Result;
use crate::types::SeqNo;
use crate::util::mutants::mutated;

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
        let packs = inner.change_packs(|packs| packs.with_split(i));
        match rebuilt {
            Rebuilt::One(image) => {
                self.store_inner(slot, image.into(), children, packs);
                EditOutcome::Done
            }
            Rebuilt::Two {
                left,
                separator,
                right,
            } => {
                let at = Inner::from_image(&left).child_count();
                let tail = children.split_off(at);
                let (left_packs, right_packs) = packs.map(|packs| packs.cut(at)).unzip();
                let generation = self.writer.generation;
                let left = MemInner::new(generation, left.into(), children)
                    .with_packs(left_packs.map(Arc::new));
                let right = MemInner::new(generation, right.into(), tail)
                    .with_packs(right_packs.map(Arc::new));
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
        // A neighbour that cannot be read, or is of no use, is left alone: merging is housekeeping.
        let mut found = None;
        for left in self.pairs_with(i, node.child_count()) {
            let (low, high) = (&inner.slots[left], &inner.slots[left + 1]);
            if !self.is_pair(inner, left) {
                continue;
            }
            let merged = if node.level() == 1 {
                self.merged_leaves(inner, left)
            } else {
                self.merged_inners(low, high, node.level() - 1)
            };
            if let Some(merged) = merged {
                found = Some((left, merged));
                break;
            }
        }
        let Some((left, merged)) = found else {
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
        let packs = inner.change_packs(|packs| packs.without(left + 1..left + 2, left));
        self.store_inner(slot, image.into(), children, packs);
        Ok(if underfull {
            EditOutcome::Underfull
        } else {
            EditOutcome::Done
        })
    }

    /// Child `left` of `inner` and the one after it have the fences that their parent gives them.
    fn is_pair(&self, inner: &MemInner, left: usize) -> bool {
        (left..left + 2).all(|i| self.check_child(inner, i).is_ok())
    }

    /// The left ones of the pairs of neighbours that child `i` of so many is part of. The pair with
    /// the child before it comes first: entries that are deleted in rising order leave sparse nodes
    /// behind, and full ones ahead.
    fn pairs_with(&self, i: usize, children: usize) -> impl Iterator<Item = usize> + use<> {
        let before = i
            .checked_sub(1)
            .filter(|_| !mutated!("merge-with-the-right-only"));
        let after = (i + 1 < children).then_some(i);
        before.into_iter().chain(after)
    }

    /// Children `left` and the one after it as one.
    fn merged_leaves(&mut self, inner: &'g MemInner, left: usize) -> Option<Child> {
        let parts = [
            self.leaf_to_merge(inner, left)?,
            self.leaf_to_merge(inner, left + 1)?,
        ];
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
        let (large, last_seq) = self.take_parts(parts);
        Some(self.new_leaf(image, last_seq, large))
    }

    /// The leaf that `image` is, with those of `large` that it refers to.
    fn new_leaf(&mut self, image: Box<[u8]>, last_seq: SeqNo, large: LargeValues) -> Child {
        let state = LeafState::whole(self.writer.generation, last_seq, image, large);
        self.writer.add_dirty(state.size_bytes());
        state.into_child()
    }

    /// Two leaves leave the tree. Returns their large values, and the last operation of a leaf
    /// that gets entries of both: as late as the later of the two, or as this one, since the reader
    /// of a key that moved must not see it too early.
    fn take_parts(&mut self, parts: [LeafToMerge; 2]) -> (LargeValues, SeqNo) {
        let mut large: LargeValues = Vec::new();
        let mut last_seq = self.seq;
        for part in parts {
            large.extend(part.large);
            last_seq = last_seq.max(part.last_seq);
            match part.origin {
                Origin::Disk {
                    link,
                    pages,
                    entries,
                } => {
                    self.writer.pending_frees.free_node(link, pages);
                    self.writer.pending_frees.removed_entries += entries;
                }
                Origin::Memory { generation, bytes } => self.writer.sub_dirty(generation, bytes),
            }
        }
        large.sort_unstable_by_key(|entry| entry.0);
        (large, last_seq)
    }

    /// Fills child `i` of `inner`, the leaf for `key`, with entries of the one after it, as far as
    /// they go.
    pub(super) fn fill_child(
        &mut self,
        slot: &Slot,
        inner: &'g MemInner,
        i: usize,
        key: &[u8],
    ) -> EditOutcome {
        let mut next = Vec::new();
        let has_next = inner.node().write_child_upper(i, &mut next);
        self.next_to_fill = (has_next && i + 1 < inner.slots.len()).then_some(next);
        let Some((leaves, separator)) = self.filled_leaves(inner, i) else {
            return EditOutcome::Done;
        };
        let page_size = self.page_size();
        let mut image = inner::without_children(&inner.image, i + 1..i + 2, page_size);
        if let Some(separator) = &separator {
            let links = (Link::NOWHERE, Link::NOWHERE);
            let rebuilt = inner::with_split(&image, i, separator, links.0, links.1, page_size);
            let Rebuilt::One(rebuilt) = rebuilt else {
                // The new separator is longer than the old one, and the node is full.
                return EditOutcome::Done;
            };
            image = rebuilt;
        }
        // The same leaf again if there is space in it.
        self.next_to_fill = Some(separator.clone().unwrap_or_else(|| key.to_vec()));
        let (images, parts) = leaves;
        let (large, last_seq) = self.take_parts(parts);
        let filled: Vec<Child> = images
            .into_iter()
            .map(|image| {
                let large = large_values_of(&image, &large);
                self.new_leaf(image, last_seq, large)
            })
            .collect();
        let mut children = self.owned_children(inner);
        children.splice(i..i + 2, filled);
        let few = children.len() == 1;
        self.shrunk |= few;
        self.writer.sub_dirty(inner.generation, inner.size_bytes());
        let packs = inner.change_packs(|packs| {
            let joined = packs.without(i + 1..i + 2, i);
            if separator.is_some() {
                joined.with_split(i)
            } else {
                joined
            }
        });
        self.store_inner(slot, image.into(), children, packs);
        if few {
            EditOutcome::Underfull
        } else {
            EditOutcome::Done
        }
    }

    /// Images that take the place of leaves `i` and `i + 1`, the separator if they are two, and
    /// what they are made of. `None` if nothing is to be gained.
    fn filled_leaves(&self, inner: &'g MemInner, i: usize) -> Option<(Filled, Option<Vec<u8>>)> {
        if i + 1 >= inner.slots.len() || !self.is_pair(inner, i) {
            return None;
        }
        let page_size = self.page_size();
        let parts = [
            self.leaf_to_merge(inner, i)?,
            self.leaf_to_merge(inner, i + 1)?,
        ];
        let [a, b] = [&parts[0], &parts[1]].map(|part| Leaf::from_image(&part.image));
        let is_full = a.live_bytes() > page_size - page_size / 16;
        let is_jumbo = parts.iter().any(|part| is_jumbo(&part.image, page_size));
        let mut fence = Vec::new();
        if is_full || is_jumbo || !a.write_upper_fence(&mut fence) || fence != b.lower_fence() {
            return None;
        }
        match leaf::pour(&parts[0].image, &parts[1].image, page_size)? {
            Rebuilt::One(image) => Some(((vec![image], parts), None)),
            Rebuilt::Two {
                left,
                separator,
                right,
            } => Some(((vec![left, right], parts), Some(separator))),
        }
    }

    fn leaf_to_merge(&self, inner: &'g MemInner, i: usize) -> Option<LeafToMerge> {
        match inner.slots[i].load(self.guard) {
            ChildRef::Disk(link) => {
                let page = link.page();
                let image = self
                    .tree
                    .disk_node_to_rewrite(link, Some(0), self.guard)
                    .ok()?;
                self.check_no_pending(page, &image).ok()?;
                let mut entries = Leaf::from_image(&image).len() as i64;
                let merged = match inner.packed(i, link) {
                    Some(leaf) => {
                        entries += i64::from(leaf.held.entries);
                        self.tree.packed_image(&leaf, self.guard).ok()?
                    }
                    None => (*image).into(),
                };
                Some(LeafToMerge {
                    image: merged,
                    large: Vec::new(),
                    last_seq: SeqNo(self.tree.disk_seq.load(Ordering::Acquire)),
                    origin: Origin::Disk {
                        link,
                        pages: u64::from(node::unit_count(&image)),
                        entries,
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
                    Body::Packed(_) => return None,
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
        let (low, high) = (Inner::from_image(&a.image), Inner::from_image(&b.image));
        if low.live_bytes() + high.live_bytes() > self.page_size() * 3 / 4
            || !low.write_upper_fence(&mut fence)
            || fence != high.lower_fence()
        {
            return None;
        }
        let image = inner::merge(&a.image, &b.image, self.page_size())?;
        for part in [&a, &b] {
            let leaves_now = part.is_from_disk || mutated!("packs-of-a-loaded-node-freed-again");
            if let (true, Some(packs)) = (leaves_now, &part.packs) {
                self.writer.pending_frees.free_packs(packs);
            }
        }
        for origin in [a_origin, b_origin] {
            match origin {
                Origin::Disk { link, pages, .. } => {
                    self.writer.pending_frees.free(link.page(), pages);
                }
                Origin::Memory { generation, bytes } => self.writer.sub_dirty(generation, bytes),
            }
        }
        let packs = match (a.packs, b.packs) {
            (None, None) => None,
            (low, high) => {
                let none = |children: &[Child]| Arc::new(Packs::none(children.len()));
                let low = low.unwrap_or_else(|| none(&a.children));
                let high = high.unwrap_or_else(|| none(&b.children));
                Some(Arc::new(low.join(&high)))
            }
        };
        let mut children = a.children;
        children.extend(b.children);
        let inner = MemInner::new(self.writer.generation, image.into(), children).with_packs(packs);
        self.writer.add_dirty(inner.size_bytes());
        Some(Child::Inner(Arc::new(inner)))
    }

    fn inner_to_merge(&self, slot: &'g Slot, level: u8) -> Option<(InnerToMerge, Origin)> {
        match slot.load(self.guard) {
            ChildRef::Disk(link) => {
                let image = self
                    .tree
                    .disk_node_to_rewrite(link, Some(level), self.guard)
                    .ok()?;
                let node = Inner::from_image(&image);
                let children = (0..node.child_count())
                    .map(|i| Child::Disk(node.child(i)))
                    .collect();
                let pages = u64::from(node::unit_count(&image));
                let part = InnerToMerge {
                    packs: node.packs().map(|packs| Arc::new(packs.decode())),
                    image: (*image).into(),
                    children,
                    is_from_disk: true,
                };
                let entries = 0;
                let origin = Origin::Disk {
                    link,
                    pages,
                    entries,
                };
                Some((part, origin))
            }
            ChildRef::Inner(inner) => {
                let origin = Origin::Memory {
                    generation: inner.generation,
                    bytes: inner.size_bytes(),
                };
                let part = InnerToMerge {
                    packs: inner.packs.clone(),
                    image: Arc::clone(&inner.image),
                    children: self.owned_children(&inner),
                    is_from_disk: false,
                };
                Some((part, origin))
            }
            ChildRef::Leaf(_) => None,
        }
    }

    /// A root with one child gives way to it.
    pub(super) fn collapse_root(&mut self) {
        while let ChildRef::Inner(inner) = self.tree.root.load(self.guard)
            && inner.slots.len() == 1
        {
            let inner = inner.get();
            if let Some(leaf) = inner.packed_child(0, self.guard) {
                // Nothing would refer to its packs.
                let (slot, page) = (&inner.slots[0], leaf.page);
                if self
                    .load_page(slot, page, Some(leaf), Some(0), None)
                    .is_err()
                {
                    return;
                }
            }
            let only = inner.slots[0].load(self.guard).to_owned();
            self.writer.sub_dirty(inner.generation, inner.size_bytes());
            self.store(&self.tree.root, only);
        }
    }
}

/// Images of leaves, and the leaves that they take the place of.
type Filled = (Vec<Box<[u8]>>, [LeafToMerge; 2]);

struct InnerToMerge {
    image: Arc<[u8]>,
    children: Vec<Child>,
    packs: Option<Arc<Packs>>,
    is_from_disk: bool,
}

struct LeafToMerge {
    image: Box<[u8]>,
    large: LargeValues,
    last_seq: SeqNo,
    origin: Origin,
}

/// Where a node that was merged away came from.
enum Origin {
    Disk {
        link: Link,
        pages: u64,
        /// As they were counted, of a leaf with its packs.
        entries: i64,
    },
    Memory {
        generation: u64,
        bytes: usize,
    },
}
