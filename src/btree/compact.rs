//! Making the file small: nodes and values at its end move into free places in front, sparse
//! leaves are joined, and the free end is cut off.
//!
//! Moving is nothing special: a leaf that is loaded into memory is written by the next checkpoint,
//! to the lowest free place. So compaction touches leaves in portions of the write buffer, and runs
//! checkpoints. It goes on while that makes the file smaller. Views keep old pages, so the
//! file becomes no smaller than they allow.

use std::sync::atomic::Ordering;

use super::checkpoint::checkpointer::Checkpointer;
use super::node;
use super::node::inner::Inner;
use super::node::leaf::{Leaf, LeafValue};
use super::node::{Link, NodeKind};
use super::state::Tree;
use crate::error::Result;
use crate::types::SeqNo;

/// Rounds of moving; each at least halves what lies too far back, unless views hold it.
const ROUNDS_MAX: usize = 8;

impl Tree {
    /// As [`crate::engine::Engine::compact`]. With `quiet_since`, ends early and returns false when
    /// operations come after it: their checkpoint should not have to wait.
    pub(super) fn compact(&self, quiet_since: Option<SeqNo>) -> Result<bool> {
        if self.read_only {
            return Ok(true);
        }
        let mut checkpointer = self.checkpointer.lock();
        let written_before = self.counters.checkpoint_bytes.load(Ordering::Relaxed);
        self.checkpoint_locked(&mut checkpointer, false)?;
        for _ in 0..ROUNDS_MAX {
            let before = checkpointer.meta().file_pages;
            // Hostile pages may have been freed many times over.
            let live = before.saturating_sub(checkpointer.free_pages());
            let keys = self.misplaced_leaves(&checkpointer, live)?;
            let moved = !keys.is_empty();
            if !self.move_leaves(&mut checkpointer, &keys, live, quiet_since)? {
                return Ok(false);
            }
            // What a checkpoint frees is reusable in the next one, and cut off in the one after.
            for _ in 0..2 {
                self.checkpoint_locked(&mut checkpointer, true)?;
            }
            if !moved || checkpointer.meta().file_pages >= before {
                break;
            }
        }
        self.shared.pager.shrink(checkpointer.meta().file_pages)?;
        let written = self.counters.checkpoint_bytes.load(Ordering::Relaxed) - written_before;
        self.counters
            .compaction_bytes
            .fetch_add(written, Ordering::Relaxed);
        self.counters.compactions.fetch_add(1, Ordering::Relaxed);
        Ok(true)
    }

    fn must_give_way(&self, quiet_since: Option<SeqNo>) -> bool {
        quiet_since.is_some_and(|seq| self.applied() > seq)
    }

    /// Lower bounds of the leaves that lie, or have a parent or a value that lies, at page `limit`
    /// or behind it, and of those that are less than a third full.
    fn misplaced_leaves(&self, checkpointer: &Checkpointer, limit: u64) -> Result<Vec<Vec<u8>>> {
        let mut found = Vec::new();
        self.collect_misplaced(checkpointer.meta().root, None, false, limit, &mut found)?;
        Ok(found)
    }

    fn collect_misplaced(
        &self,
        link: Link,
        level: Option<u8>,
        parent_misplaced: bool,
        limit: u64,
        found: &mut Vec<Vec<u8>>,
    ) -> Result<()> {
        // A pin for each node: the walk is long, and memory should be reclaimed meanwhile. The
        // pages stay, because the checkpoint lock is held.
        let guard = crossbeam_epoch::pin();
        let image = self.shared.pager.owned_node(link, &guard)?;
        drop(guard);
        self.shared.check_level(&image, link.page(), level)?;
        let end = link.page().0 + u64::from(node::page_count(&image));
        if node::kind(&image) == Some(NodeKind::Leaf) {
            let leaf = Leaf::from_image(&image);
            let far = parent_misplaced || end > limit;
            let sparse = leaf.live_bytes() < self.shared.page_size() / 3;
            if far || sparse || has_value_beyond(leaf, limit) {
                found.push(leaf.lower_fence().to_vec());
            }
            return Ok(());
        }
        let inner = Inner::from_image(&image);
        for i in 0..inner.child_count() {
            // Moving one child moves the parent.
            let misplaced = i == 0 && (parent_misplaced || end > limit);
            let below = inner.level().checked_sub(1);
            self.collect_misplaced(inner.child(i), below, misplaced, limit, found)?;
        }
        Ok(())
    }

    /// Loads leaves into memory, with a checkpoint whenever they fill the write buffer. False if it
    /// gave way.
    fn move_leaves(
        &self,
        checkpointer: &mut Checkpointer,
        keys: &[Vec<u8>],
        limit: u64,
        quiet_since: Option<SeqNo>,
    ) -> Result<bool> {
        for key in keys {
            if self.must_give_way(quiet_since) {
                return Ok(false);
            }
            self.move_leaf(key, limit)?;
            // Untouched leaves count little as changes in memory, and a page each in the file.
            if self.flush_is_due() {
                self.checkpoint_locked(checkpointer, true)?;
            }
        }
        Ok(true)
    }
}

fn has_value_beyond(leaf: Leaf<'_>, limit: u64) -> bool {
    (0..leaf.len())
        .any(|i| matches!(leaf.value(i), LeafValue::Overflow { page, .. } if page.0 >= limit))
}
