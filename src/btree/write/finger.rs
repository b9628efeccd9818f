//! Fingers: the leaf of a thread's last change, so that its next one need not look for it.
//!
//! Keys are often written one after the other. [`Tree::prepare`](crate::btree::state::Tree) goes
//! down to the leaf of a change and leaves a finger there; `apply` uses it instead of going down
//! again. And as long as the keys of a thread stay in one leaf, `prepare` needs not go down either.
//!
//! # Invariants
//!
//! - **BF1** [`SharedTree::structure`](crate::btree::read::shared::SharedTree) is counted up after
//!   every store of a node into a slot of the current tree. So if it is the same, with the writer's
//!   mutex held, as it was before a descent began, the descent has led to a leaf of the current
//!   tree, though it ran without the mutex.
//! - **BF2** A finger is used only for keys that its leaf covers: the one that led there, or those
//!   between the fences that its parent gives it.
//! - **BF3** A finger is used only for changes that nothing but the leaf takes part in: a change
//!   that splits or empties it goes down from the root. A leaf that is frozen is not changed either
//!   (BW1); if it is not frozen, neither is any node above it.
//!
//! A finger keeps its leaf in memory, also when it is no longer in the tree: one for each thread
//! that writes, until the next checkpoint.

use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use crate::btree::memory::node::{MemInner, MemLeaf};
use crate::btree::memory::slot::NodeRef;
use crate::util::mutants::mutated;
use crate::util::sharded::{SHARDS, shard_of_thread};

/// Which keys a leaf covers, as far as a finger knows.
#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Span {
    /// The key that led there.
    #[default]
    Key,
    /// All from the lower fence on.
    From,
    /// Those between the fences.
    Between,
}

/// A leaf of the tree, and which keys it covers.
#[derive(Default)]
pub(crate) struct Finger {
    leaf: Option<Arc<MemLeaf>>,
    /// The number of the tree's structure before the leaf was looked for.
    structure: u64,
    span: Span,
    /// The lower fence, or the key.
    lower: Vec<u8>,
    upper: Vec<u8>,
}

impl Finger {
    /// The leaf for `key` in a tree whose structure has that number, if the finger is there.
    #[inline]
    pub(crate) fn leaf_for(&self, key: &[u8], structure: u64) -> Option<&Arc<MemLeaf>> {
        if self.structure != structure && !mutated!("finger-in-an-older-tree") {
            return None;
        }
        let lower = self.lower.as_slice();
        let covers = match self.span {
            Span::Key => key == lower,
            Span::From => key >= lower,
            Span::Between => {
                key >= lower && (key < self.upper.as_slice() || mutated!("finger-beyond-its-leaf"))
            }
        };
        self.leaf.as_ref().filter(|_| covers)
    }

    /// Points to `leaf`, where a descent for `key` has led by child `i` of `parent`; the root has
    /// none. The fences are found out when keys seem to stay in the leaf.
    pub(crate) fn point_to(
        &mut self,
        leaf: NodeRef<'_, MemLeaf>,
        structure: u64,
        key: &[u8],
        parent: Option<(&MemInner, usize)>,
    ) {
        let pointed_to = self.leaf.as_ref().map(|leaf| Arc::as_ptr(leaf).addr());
        let is_same = pointed_to == Some(std::ptr::from_ref(leaf.get()).addr());
        if !is_same {
            self.leaf = Some(leaf.to_arc());
        }
        self.structure = structure;
        self.span = match parent {
            Some((inner, i)) if is_same => {
                let node = inner.node();
                node.write_child_lower(i, &mut self.lower);
                match node.write_child_upper(i, &mut self.upper) {
                    true => Span::Between,
                    false => Span::From,
                }
            }
            None if is_same => {
                self.lower.clear();
                Span::From
            }
            _ => {
                self.lower.clear();
                self.lower.extend_from_slice(key);
                Span::Key
            }
        };
    }

    /// Points nowhere; what it pointed to is dropped by the caller.
    #[must_use]
    pub(crate) fn take(&mut self) -> Option<Arc<MemLeaf>> {
        self.leaf.take()
    }
}

/// The fingers of a tree, by shards of threads.
#[derive(Default)]
pub(crate) struct Fingers([Shard; SHARDS]);

/// Two cache lines of its own, since processors fetch them in pairs.
#[derive(Default)]
#[repr(align(128))]
struct Shard(Mutex<Finger>);

impl Fingers {
    /// The calling thread's, unless another thread that shares it is using it.
    #[inline]
    pub(crate) fn of_thread(&self) -> Option<MutexGuard<'_, Finger>> {
        self.0[shard_of_thread()].0.try_lock()
    }

    /// Takes the leaves of all of them that are not in use, to be dropped.
    #[must_use]
    pub(crate) fn take_all(&self) -> Vec<Arc<MemLeaf>> {
        let fingers = self.0.iter().filter_map(|shard| shard.0.try_lock()?.take());
        fingers.collect()
    }
}
