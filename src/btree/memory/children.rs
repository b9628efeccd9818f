//! The children of an inner node in memory, in blocks that versions of the node share.
//!
//! An inner node has hundreds of children. Copying all of them for one change would touch the count
//! of each, a line of memory per child that is in no cache; and once more when the copy is dropped.
//! So a copy shares the blocks of its original, and has its own of the one block that changes.
//!
//! # Invariants
//!
//! - **BC1** The writer stores into a block's slots only while the block is of the tree's current
//!   generation, and such a block is reached from one version of the tree. (The end of a checkpoint
//!   may store into any block: it puts the page of a node in the place of the node, which is the
//!   same to every reader.)
//! - **BC2** A node keeps its blocks. So what S3 in [`super::slot`] says of slots in a node holds
//!   for those in its blocks.

use std::ops::Index;
use std::sync::Arc;

use crossbeam_epoch::Guard;

use super::slot::{Child, Slot};
use crate::util::mutants::mutated;

/// Children of a block. A copy of a node with `n` children takes the counts of `n / 16` blocks and
/// of 16 children.
const BLOCK_LEN: usize = 16;

struct Block<L, I> {
    /// The tree's generation when the block was made.
    generation: u64,
    slots: Arc<[Slot<L, I>]>,
}

impl<L, I> Clone for Block<L, I> {
    fn clone(&self) -> Self {
        Self {
            generation: self.generation,
            slots: Arc::clone(&self.slots),
        }
    }
}

impl<L: Send + Sync + 'static, I: Send + Sync + 'static> Block<L, I> {
    fn new(generation: u64, children: impl Iterator<Item = Child<L, I>>) -> Self {
        Self {
            generation,
            slots: children.map(Slot::new).collect(),
        }
    }
}

/// The children of an inner node: leaves `L`, inner nodes `I` or pages.
pub(crate) struct Children<L, I> {
    blocks: Box<[Block<L, I>]>,
    len: usize,
}

impl<L: Send + Sync + 'static, I: Send + Sync + 'static> Children<L, I> {
    /// `children`, in blocks of their own.
    pub(crate) fn new(
        generation: u64,
        children: impl ExactSizeIterator<Item = Child<L, I>>,
    ) -> Self {
        let len = children.len();
        let mut children = children;
        let blocks = (0..len.div_ceil(BLOCK_LEN))
            .map(|_| Block::new(generation, children.by_ref().take(BLOCK_LEN)))
            .collect();
        Self { blocks, len }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Slot<L, I>> {
        self.blocks.iter().flat_map(|block| block.slots.iter())
    }

    /// True if child `i` may be replaced in the generation (BC1).
    #[inline]
    pub(crate) fn is_own(&self, i: usize, generation: u64) -> bool {
        self.blocks[i / BLOCK_LEN].generation == generation
            || mutated!("children-changed-in-a-shared-block")
    }

    /// True if any child may be.
    pub(crate) fn are_own(&self, generation: u64) -> bool {
        self.blocks
            .iter()
            .all(|block| block.generation == generation)
    }

    /// The same children, for child `i` to be replaced in the generation: its block is a copy.
    pub(crate) fn copy_for(&self, i: usize, generation: u64, guard: &Guard) -> Self {
        let mut blocks = self.blocks.clone();
        let block = &mut blocks[i / BLOCK_LEN];
        let children = self.blocks[i / BLOCK_LEN].slots.iter();
        *block = Block::new(generation, children.map(|slot| slot.load(guard).to_owned()));
        Self {
            blocks,
            len: self.len,
        }
    }

    pub(crate) fn size_bytes(&self) -> usize {
        self.len * size_of::<Slot<L, I>>() + self.blocks.len() * 2 * size_of::<Block<L, I>>()
    }
}

impl<L, I> Index<usize> for Children<L, I> {
    type Output = Slot<L, I>;

    #[inline]
    fn index(&self, i: usize) -> &Slot<L, I> {
        &self.blocks[i / BLOCK_LEN].slots[i % BLOCK_LEN]
    }
}

#[cfg(test)]
mod tests {
    use super::super::slot::ChildRef;
    use super::*;
    use crate::btree::node::Link;
    use crate::types::PageId;

    /// No leaf and no inner node is made here.
    type Pages = Children<u32, u64>;

    fn link(page: u64) -> Link {
        Link::new(PageId(page), 7)
    }

    fn pages(children: &Pages) -> Vec<u64> {
        let guard = crossbeam_epoch::pin();
        let page = |slot: &Slot<u32, u64>| match slot.load(&guard) {
            ChildRef::Disk(link) => link.page().0,
            _ => panic!("a page"),
        };
        let found: Vec<_> = children.iter().map(page).collect();
        let indexed: Vec<_> = (0..children.len()).map(|i| page(&children[i])).collect();
        assert_eq!(found, indexed);
        found
    }

    #[test]
    fn a_copy_can_be_changed_and_its_original_stays() {
        let guard = crossbeam_epoch::pin();
        for len in [1, 2, 15, 16, 17, 32, 100] {
            let numbers: Vec<u64> = (0..len).collect();
            let made = numbers.iter().map(|n| Child::Disk(link(*n)));
            let original = Pages::new(1, made);
            assert!(original.are_own(1) && !original.are_own(2));
            for i in 0..len as usize {
                let copy = original.copy_for(i, 2, &guard);
                assert!(copy.is_own(i, 2) && copy.len() == original.len());
                copy[i].store(Child::Disk(link(1000)), &guard);
                let mut expected = numbers.clone();
                expected[i] = 1000;
                assert_eq!(pages(&copy), expected);
                assert_eq!(pages(&original), numbers);
                let own = (0..copy.len()).filter(|i| copy.is_own(*i, 2));
                assert!(own.count() <= BLOCK_LEN);
            }
        }
    }
}
