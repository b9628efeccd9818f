//! Many keys at once: looking for their leaves level by level.
//!
//! A lookup waits for memory once or twice on each level, and each wait is for an address that the
//! one before has brought. Lookups of different keys do not depend on each other, so while the
//! processor waits for one of them it can go on with others, if they are at the same point. So a
//! group of keys goes down together, a level at a time, and in the pages of their leaves a step at
//! a time. The steps in the leaves find nothing out that is used: they bring into the processor's
//! cache what the lookups that follow will look at.

use crossbeam_epoch::Guard;

use super::shared::{FoundLeaf, ReadFor, SharedTree};
use crate::btree::memory::node::ChildRef;
use crate::btree::node;
use crate::btree::node::inner::Inner;
use crate::btree::node::leaf::Leaf;
use crate::btree::node::packs::PackedLeaf;
use crate::btree::node::{Link, NodeKind};
use crate::error::Result;

/// Keys that go down together: about as many as there can be loads under way.
pub(crate) const KEYS_TOGETHER: usize = 16;

/// How far the lookup of a key has come.
pub(crate) enum Way<'g> {
    /// To this node, which is at that level (if it is known).
    To(ChildRef<'g>, Option<u8>),
    Found(FoundLeaf<'g>),
}

impl Way<'_> {
    /// To a leaf of the file with packs.
    pub(crate) fn to_packed(leaf: PackedLeaf) -> Self {
        Self::Found(FoundLeaf::Packed(leaf))
    }
}

/// Inner nodes of the file that were checked again on the way to keys that rise, the last one in
/// each round: a change of those keys will write them anew (BP5 in [`crate::btree::file::pager`]).
#[derive(Default)]
pub(crate) struct CheckedAgain(Vec<Link>);

impl CheckedAgain {
    /// What the node that `link` means is to be read for now, in this round.
    fn read_for(&mut self, round: usize, link: Link) -> ReadFor {
        if self.0.len() <= round {
            self.0.resize(round + 1, Link::NOWHERE);
        }
        match std::mem::replace(&mut self.0[round], link) == link {
            true => ReadFor::Use,
            false => ReadFor::Rewrite,
        }
    }
}

impl SharedTree {
    /// The leaves under `root` for `keys`, and how many pages of the file were looked at.
    pub(crate) fn find_leaves<'g>(
        &'g self,
        root: ChildRef<'g>,
        keys: &[&[u8]],
        guard: &'g Guard,
    ) -> Result<(Vec<FoundLeaf<'g>>, u64)> {
        let ways = keys.iter().map(|_| Way::To(root, None)).collect();
        self.go_down(ways, keys, None, guard)
    }

    /// The same on ways that have begun already. For a change, which gives `checked`, all of each
    /// leaf in the file is asked for before any is waited for, and inner nodes are checked again,
    /// but those that it has.
    pub(crate) fn go_down<'g>(
        &'g self,
        mut ways: Vec<Way<'g>>,
        keys: &[&[u8]],
        mut checked: Option<&mut CheckedAgain>,
        guard: &'g Guard,
    ) -> Result<(Vec<FoundLeaf<'g>>, u64)> {
        let mut pages = 0;
        let mut are_on_their_way = true;
        let mut round = 0;
        while are_on_their_way {
            are_on_their_way = false;
            if checked.is_some() {
                for way in &ways {
                    if let Way::To(ChildRef::Disk(link), Some(0)) = way {
                        self.pager.will_need(*link, guard);
                    }
                }
            }
            for (way, key) in ways.iter_mut().zip(keys) {
                let Way::To(child, level) = *way else {
                    continue;
                };
                *way = match child {
                    ChildRef::Leaf(leaf) => Way::Found(FoundLeaf::Memory(leaf)),
                    ChildRef::Inner(inner) => {
                        let inner = inner.get();
                        let node = inner.node();
                        let i = node.find_child(key);
                        let child = inner.slots[i].load(guard);
                        let packed = match child {
                            ChildRef::Disk(page) => inner.packed(i, page),
                            _ => None,
                        };
                        let to = Way::To(child, node.level().checked_sub(1));
                        packed.map_or(to, Way::to_packed)
                    }
                    ChildRef::Disk(link) => {
                        let read_for = match &mut checked {
                            Some(checked) if level != Some(0) => checked.read_for(round, link),
                            _ => ReadFor::Use,
                        };
                        let image = self.disk_node_for(link, level, read_for, guard)?;
                        pages += self.pager.pages_of(&image);
                        if node::kind(&image) == Some(NodeKind::Leaf) {
                            Way::Found(FoundLeaf::Page(image))
                        } else {
                            let inner = Inner::from_image(&image);
                            let i = inner.find_child(key);
                            let child = ChildRef::Disk(inner.child(i));
                            let to = Way::To(child, inner.level().checked_sub(1));
                            inner.packed(i).map_or(to, Way::to_packed)
                        }
                    }
                };
                are_on_their_way |= matches!(way, Way::To(..));
            }
            round += 1;
        }
        let found = ways.into_iter().filter_map(|way| match way {
            Way::Found(leaf) => Some(leaf),
            Way::To(..) => None,
        });
        Ok((found.collect(), pages))
    }
}

/// Where in its leaf the lookup of a key begins: as [`Leaf::first_slot_by_head`].
pub(crate) type FirstSlots = [Option<usize>; KEYS_TOGETHER];

fn page<'a>(leaf: &'a FoundLeaf<'_>) -> Option<Leaf<'a>> {
    match leaf {
        FoundLeaf::Page(image) => Some(Leaf::from_image(image)),
        FoundLeaf::Memory(_) | FoundLeaf::Packed(_) => None,
    }
}

/// Brings into the processor's cache what lookups of `keys` in their `leaves` will look at, of
/// those that are pages. What it finds out on the way saves them half of their search.
pub(crate) fn warm(leaves: &[FoundLeaf<'_>], keys: &[&[u8]]) -> FirstSlots {
    let mut first_slots = [None; KEYS_TOGETHER];
    for ((slot, leaf), key) in first_slots.iter_mut().zip(leaves).zip(keys) {
        *slot = page(leaf).and_then(|leaf| leaf.first_slot_by_head(key));
    }
    let mut records = [None; KEYS_TOGETHER];
    for ((record, leaf), slot) in records.iter_mut().zip(leaves).zip(first_slots) {
        *record = page(leaf).and_then(|leaf| leaf.record_offset(slot?));
    }
    let mut bytes = 0;
    for (leaf, record) in leaves.iter().zip(records) {
        if let (Some(leaf), Some(at)) = (page(leaf), record) {
            bytes ^= leaf.touch_record(at);
        }
    }
    std::hint::black_box(bytes);
    first_slots
}
