//! Applying operations: the one writer's side of the tree.
//!
//! # How a change is made
//!
//! The writer goes down from the root and makes every node on the way its own: a page of the file is
//! brought into memory, a node of an older generation is copied; its parent's slot is replaced.
//! The leaf is then changed in place under its lock. After the first change of a generation
//! the way down finds nothing to copy.
//!
//! # Invariants
//!
//! - **W1** A node whose generation is not current is never changed (views and checkpoints share it).
//! - **W2** A split or merge leaves the old leaf as it was and puts new nodes into the tree. A
//!   reader that reached the old leaf through an old parent finds in it everything that
//!   was applied before the replacement, hence everything published when the read began.
//! - **W3** A page leaves the current tree at most once: when it is brought into memory, when the
//!   subtree that it heads is cut off, or when a checkpoint wrote a node that was superseded
//!   meanwhile. Then it is recorded in [`Interval`]; the next checkpoint frees it.
//! - **W4** An error comes before the change of a node, never in the middle of one.
//! - **W5** While a checkpoint runs, changes to a leaf that it is writing lie over that leaf, and the
//!   checkpoint's end puts the new page in its place. So after a checkpoint nothing in the current
//!   tree lies over a page that the checkpoint took out of use.

mod editor;
mod leaf;
mod point;
mod range_delete;
mod split_merge;
pub(crate) mod state;

use std::sync::atomic::Ordering;

use crate::btree::read::shared::Tree;
use crate::error::Result;
use crate::types::{Op, SequencedOp};
use editor::Editor;
use leaf::LeafOp;

impl Tree {
    /// As [`crate::engine::Engine::apply`].
    pub(crate) fn apply(&self, ops: &[SequencedOp<'_>]) -> Result<()> {
        let (Some(first), Some(last)) = (ops.first(), ops.last()) else {
            return Ok(());
        };
        let mut writer = self.writer.lock();
        if let Some(error) = self.apply_failed.get() {
            return Err(error.clone());
        }
        // Before the change, so that a log segment that it needs is never let go.
        if self.oldest_unpersisted.load(Ordering::Relaxed) == 0 {
            self.oldest_unpersisted
                .store(first.seq.0, Ordering::Release);
        }
        writer.first_since_checkpoint.get_or_insert(first.seq);
        self.begin_change(&mut writer);
        for op in ops {
            let guard = crossbeam_epoch::pin();
            let mut editor = Editor {
                tree: self,
                writer: &mut writer,
                guard: &guard,
                seq: op.seq,
                shrunk: false,
            };
            if let Err(error) = editor.apply(&op.op) {
                let _ = self.apply_failed.set(error.clone());
                return Err(error);
            }
        }
        writer.applied = last.seq;
        self.dirty_bytes
            .store(writer.dirty_bytes, Ordering::Relaxed);
        drop(writer);
        if self.flush_is_due() && !self.counters.woken.swap(true, Ordering::AcqRel) {
            self.host.wake();
        }
        Ok(())
    }

    /// Sees to it that the next checkpoint writes the leaf for `key` to another place, and those of
    /// its overflow values that are at page `limit` or behind it.
    pub(crate) fn move_leaf(&self, key: &[u8], limit: u64) -> Result<()> {
        let guard = crossbeam_epoch::pin();
        let mut writer = self.writer.lock();
        self.begin_change(&mut writer);
        let seq = writer.applied;
        let mut editor = Editor {
            tree: self,
            writer: &mut writer,
            guard: &guard,
            seq,
            shrunk: false,
        };
        editor.edit_tree(key, LeafOp::Move(limit))?;
        self.dirty_bytes
            .store(writer.dirty_bytes, Ordering::Relaxed);
        Ok(())
    }
}

impl Editor<'_, '_> {
    fn apply(&mut self, op: &Op<'_>) -> Result<()> {
        match *op {
            Op::Put { key, value } => self.edit_tree(key, LeafOp::Put(value)),
            Op::Delete { key } => self.edit_tree(key, LeafOp::Delete),
            Op::DeleteRange { start, end } => self.delete_range(start, end),
        }
    }
}
