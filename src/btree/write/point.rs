//! Operations on one key: the way down to its leaf.

use super::editor::{EditOutcome, Editor};
use super::leaf::LeafOp;
use crate::btree::memory::node::{Child, ChildRef, LeafState, MemInner, Slot};
use crate::btree::node::packs::PackedLeaf;
use crate::btree::node::{Link, inner};
use crate::error::Result;

impl<'g> Editor<'g, '_> {
    pub(super) fn edit_tree(&mut self, key: &[u8], op: LeafOp<'_>) -> Result<()> {
        let root = &self.tree.root;
        if let EditOutcome::Split {
            left,
            separator,
            right,
        } = self.edit(root, None, None, key, op)?
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
            self.store_inner(root, image.into(), vec![left, right], None);
        }
        if self.shrunk {
            self.collapse_root();
        }
        Ok(())
    }

    /// Goes down to the leaf for `key` and does `op`. The node is the child of that number of the
    /// one `above`.
    fn edit(
        &mut self,
        slot: &'g Slot,
        above: Option<(&'g MemInner, usize)>,
        level: Option<u8>,
        key: &[u8],
        mut op: LeafOp<'_>,
    ) -> Result<EditOutcome> {
        loop {
            let child = slot.load(self.guard);
            match child {
                ChildRef::Disk(link) => {
                    let packed = above.and_then(|(inner, i)| inner.packed(i, link));
                    if self.is_idle(&mut op, (child, packed), level, key)? {
                        return Ok(EditOutcome::Done);
                    }
                    self.load_page(slot, link, packed, level, Some(key))?;
                }
                ChildRef::Inner(inner) => {
                    let inner = inner.get();
                    let node = inner.node();
                    let i = node.find_child(key);
                    if !self.is_own(inner, i) {
                        if self.is_idle(&mut op, (child, None), level, key)? {
                            return Ok(EditOutcome::Done);
                        }
                        self.copy_inner(slot, inner, i);
                        continue;
                    }
                    if matches!(op, LeafOp::Fill) && node.level() == 1 {
                        return Ok(self.fill_child(slot, inner, i, key));
                    }
                    let below = node.level().checked_sub(1);
                    let known = self.check_child(inner, i)?;
                    if let (LeafOp::Put(_), Some(facts)) = (op, known)
                        && let ChildRef::Disk(page) = inner.slots[i].load(self.guard)
                    {
                        let packed = inner.packed(i, page);
                        let leaf = packed.unwrap_or_else(|| PackedLeaf::alone(page));
                        self.load_known_leaf(&inner.slots[i], &leaf, &facts);
                    }
                    return match self.edit(&inner.slots[i], Some((inner, i)), below, key, op)? {
                        EditOutcome::Done => Ok(EditOutcome::Done),
                        EditOutcome::Split {
                            left,
                            separator,
                            right,
                        } => Ok(self.absorb_split(slot, inner, i, left, &separator, right)),
                        EditOutcome::Underfull => self.merge_child(slot, inner, i),
                    };
                }
                ChildRef::Leaf(leaf) => {
                    let edit =
                        |editor: &mut Self, state: &mut LeafState| editor.edit_leaf(state, key, op);
                    if let Some(outcome) = self.with_current_leaf(&leaf, edit) {
                        return outcome;
                    }
                    if self.is_idle(&mut op, (child, None), level, key)? {
                        return Ok(EditOutcome::Done);
                    }
                    let leaf = self.copy_leaf(slot, leaf)?;
                    return self.edit_leaf(&mut leaf.write(), key, op);
                }
            }
        }
    }

    /// True for a delete of a key that is not in the subtree `child`, which is at `level`, nor in
    /// its packs. Asked before anything is copied or loaded (BW6). A key that is there is not
    /// looked for again.
    fn is_idle(
        &self,
        op: &mut LeafOp<'_>,
        (child, packed): (ChildRef<'g>, Option<PackedLeaf>),
        level: Option<u8>,
        key: &[u8],
    ) -> Result<bool> {
        let LeafOp::Delete { is_there } = op else {
            return Ok(false);
        };
        if !*is_there {
            *is_there = self.tree.holds(child, packed, level, key, self.guard)?;
        }
        Ok(!*is_there)
    }
}
