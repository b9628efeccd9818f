//! Applying operations: the one writer's side of the tree.
//!
//! # How a change is made
//!
//! The writer goes down from the root and makes every node on the way its own: it loads a page of
//! the file, copies a node of an older generation, and replaces the slot in the parent. Then it
//! changes the leaf in place under its lock. After the first change of a generation it finds
//! nothing to copy on the way down.
//!
//! # Invariants
//!
//! - **BW1** A node whose generation is not current is never changed (views and checkpoints share
//!   it).
//! - **BW2** A split or merge leaves the old leaf as it was and puts new nodes into the tree. A
//!   reader that reached the old leaf through an old parent finds in it everything that was applied
//!   before the replacement, hence everything published when the read began.
//! - **BW3** A page leaves the current tree at most once: when it is loaded into memory, when the
//!   subtree that it heads is cut off, or when a checkpoint wrote a node that was superseded
//!   meanwhile. Then it is recorded in [`state::PendingFrees`], as are the packs of an inner node;
//!   the next checkpoint frees it, unless it carries it over: a leaf that stays, with its changes
//!   in packs, and packs that stay.
//! - **BW4** An error comes before the change of a node, never in the middle of one.
//! - **BW5** While a checkpoint runs, changes to a leaf that it is writing lie over that leaf, and
//!   the end of the checkpoint puts the new page in its place. So after a checkpoint nothing in the
//!   current tree lies over a page that the checkpoint took out of use.
//! - **BW6** A delete copies and loads nothing before it knows that its key is there: otherwise one
//!   of an absent key would have all nodes on the way written anew.
//!
//! Merges do not come here: what they make of the values that are there is put in their place
//! before ([`FoldedMerges`](crate::engine::FoldedMerges)). An LSM tree keeps operands, since to
//! look a value up would cost it more than all the rest of a write. Here a write goes to the leaf
//! that has the value anyway, `prepare` has brought that into memory, and no read, scan, checkpoint
//! or pack knows of merges. Kept operands would save the look at a leaf that is only on the disk;
//! but they would have every reader of the key pay for it until the leaf is written.

pub(crate) mod editor;
pub(crate) mod finger;
pub(crate) mod leaf;
mod point;
mod range_delete;
mod split_merge;
pub(crate) mod state;

use std::sync::atomic::Ordering;

use crate::btree::memory::node::{ChildRef, MemLeaf};
use crate::btree::memory::slot::NodeRef;
use crate::btree::read::rising::RisingKeys;
use crate::error::Result;
use crate::types::{Op, SequencedOp};
use editor::Editor;
use leaf::{LeafOp, MovedValues};

impl<'g> Editor<'g, '_> {
    /// Does one operation.
    pub(crate) fn apply(&mut self, op: &SequencedOp<'_>) -> Result<()> {
        self.shrunk = false;
        match op.op {
            Op::DeleteRange { start, end } => self.delete_range(start, end),
            _ => match LeafOp::of(op, self.page_size()) {
                Some((key, op)) => self.edit_tree(key, op),
                None => Ok(()),
            },
        }
    }

    /// Does operations that are sorted by their keys. Those in one leaf find it at hand.
    pub(crate) fn apply_in_order<'a>(
        &mut self,
        ops: impl Iterator<Item = &'a SequencedOp<'a>>,
    ) -> Result<()> {
        // The leaf for the keys from the last one on to `upper`, and the tree's structure then.
        let mut at_hand: Option<NodeRef<'g, MemLeaf>> = None;
        let mut structure = None;
        let (mut upper, mut is_bounded) = (Vec::new(), false);
        let mut way = RisingKeys::default();
        for op in ops {
            let Some((key, change)) = LeafOp::of(op, self.page_size()) else {
                self.apply(op)?;
                continue;
            };
            let now = Some(self.tree.structure.load(Ordering::Relaxed));
            if structure != now {
                structure = now;
                at_hand = None;
                way.start_over();
            }
            if at_hand.is_none() || (is_bounded && key >= upper.as_slice()) {
                at_hand = match way.next(self.tree, key, self.guard).0 {
                    ChildRef::Leaf(leaf) => {
                        is_bounded = way.write_upper_fence(&mut upper);
                        Some(leaf)
                    }
                    ChildRef::Inner(_) | ChildRef::Disk(_) => None,
                };
            }
            match &at_hand {
                Some(leaf) if self.edit_only_leaf(leaf, key, change)? => {}
                _ => self.apply(op)?,
            }
        }
        Ok(())
    }

    /// Sees to it that the next checkpoint writes the leaf for `key` to another place, and those of
    /// its overflow values that are among `values`.
    pub(crate) fn move_leaf(&mut self, key: &[u8], values: &MovedValues) -> Result<()> {
        self.edit_tree(key, LeafOp::Move(values))
    }

    /// Fills the leaf for `key` with entries of the one after it, if both have the same parent.
    /// Returns a key in the leaf that may be filled next, if there is one.
    pub(crate) fn fill_leaf(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.edit_tree(key, LeafOp::Fill)?;
        Ok(self.next_to_fill.take())
    }
}
