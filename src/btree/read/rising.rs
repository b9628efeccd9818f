//! The way down for keys that rise.
//!
//! From the leaf of one key to that of the next, the nearest inner node in memory is searched from
//! where the last search ended, in steps that double. Only a key beyond that node goes down from
//! the root. For a batch in key order that is a comparison or two for each key instead of a search
//! on each level.

use crossbeam_epoch::Guard;

use super::shared::SharedTree;
use crate::btree::memory::node::{ChildRef, MemInner};
use crate::btree::node::packs::PackedLeaf;

/// Where the last key was.
///
/// It may be used as long as the tree does not change, or, by readers that take what they find for
/// a hint, as long as their pin lasts.
#[derive(Default)]
pub(crate) struct RisingKeys<'g> {
    /// The lowest inner node in memory on the way, and the child that was taken.
    parent: Option<(&'g MemInner, usize)>,
}

impl<'g> RisingKeys<'g> {
    /// The first node on the way to `key` that is no inner node in memory, and its level (if that
    /// is known). `key` is not below the last one.
    #[inline]
    pub(crate) fn next(
        &mut self,
        tree: &'g SharedTree,
        key: &[u8],
        guard: &'g Guard,
    ) -> (ChildRef<'g>, Option<u8>) {
        let further = self.parent.and_then(|(inner, i)| {
            let next = inner.node().find_child_from(i, key)?;
            Some((inner, next))
        });
        let mut child = match further {
            Some((inner, i)) => inner.slots[i].load(guard),
            None => tree.root.load(guard),
        };
        self.parent = further;
        while let ChildRef::Inner(inner) = child {
            let inner = inner.get();
            let i = inner.node().find_child(key);
            self.parent = Some((inner, i));
            child = inner.slots[i].load(guard);
        }
        let above = self.parent.map(|(inner, _)| inner.node().level());
        (child, above.and_then(|level| level.checked_sub(1)))
    }

    /// The inner node in memory above what was found last, and which child of it that is.
    pub(crate) fn parent(&self) -> Option<(&'g MemInner, usize)> {
        self.parent
    }

    /// `child`, which was found last, with its packs, if it is a leaf of the file that has any.
    pub(crate) fn packed(&self, child: ChildRef<'_>) -> Option<PackedLeaf> {
        match (child, self.parent) {
            (ChildRef::Disk(page), Some((inner, i))) => inner.packed(i, page),
            _ => None,
        }
    }

    /// The upper fence of the child that was found last, into `upper`; false if there is none.
    pub(crate) fn write_upper_fence(&self, upper: &mut Vec<u8>) -> bool {
        match self.parent {
            Some((inner, i)) => inner.node().write_child_upper(i, upper),
            None => false,
        }
    }

    /// The tree has changed: the next key goes down from the root.
    pub(crate) fn start_over(&mut self) {
        self.parent = None;
    }
}
