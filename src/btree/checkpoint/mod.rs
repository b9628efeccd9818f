//! Checkpoints: the frozen tree goes to free places of the file, then a meta page makes it the
//! file's tree.
//!
//! # The steps
//!
//! 1. *Freeze.* With the writer's mutex: the current tree becomes immutable; what is to be freed
//!    comes along ([`PendingFrees`](super::write::state::PendingFrees)). Commits go on in copies.
//! 2. *Write*, without locks: nodes in key order, children before parents, which hold the
//!    fingerprints of their children, each to a place that nothing refers to; overflow values; the
//!    freelist. A change over a page is merged here.
//! 3. *Sync.* Then the log is made durable up to the last operation of the frozen tree (E3): a
//!    power loss must not keep an operation here that an earlier one, in the log, did not survive.
//! 4. *Flip.* Meta page 0, sync, meta page 1, sync (see [`crate::btree::file::meta`] for the
//!    order).
//! 5. *Publish.* With the writer's mutex, no I/O: references to nodes that were written become
//!    references to their pages; changes over old pages become changes over the new ones.
//!
//! # When a step fails
//!
//! Up to 3 nothing on disk refers to what was written: the pending frees go back to the writer,
//! what was taken of the free space goes back to it, and a later checkpoint starts over. From the
//! first write of a meta page on, it is unknown which tree a reopen would find, so no page of
//! either may be reused: checkpoints then fail with the first error until the store is reopened.
//! The same after a failed sync, about which nothing is known. Commits and reads are not affected;
//! the log keeps what the file does not have.

mod branch;
pub(crate) mod checkpointer;
mod count;
mod new_entries;
mod publish;
mod write;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use crate::btree::state::Tree;
use crate::error::{Error, Result};
use crate::types::SeqNo;
use crate::util::mutants::mutated;
use checkpointer::Checkpointer;
use write::{FrozenTree, Written};

impl Tree {
    /// Writes everything applied so far to the file. False if it was there already.
    pub(crate) fn checkpoint(&self) -> Result<bool> {
        let written = self.checkpoint_locked(&mut self.checkpointer.lock(), false);
        self.announce_checkpoint();
        written
    }

    /// The same for a caller that holds the lock; `force` writes even if nothing was applied.
    pub(crate) fn checkpoint_locked(
        &self,
        checkpointer: &mut Checkpointer,
        force: bool,
    ) -> Result<bool> {
        if self.read_only {
            return Ok(false);
        }
        checkpointer.check_usable()?;
        let written = self.write_checkpoint(checkpointer, force);
        self.checkpoint_was_done();
        written
    }

    fn write_checkpoint(&self, checkpointer: &mut Checkpointer, force: bool) -> Result<bool> {
        let Some(frozen) = self.freeze_for_checkpoint(checkpointer, force)? else {
            return Ok(false);
        };
        let write = || {
            let _open = self.shared.pager.begin_writing()?;
            let written = self.shared.write_frozen(checkpointer, &frozen)?;
            self.make_durable(checkpointer, written, frozen.seq)
        };
        let (written, panic) = match catch_unwind(AssertUnwindSafe(write)) {
            Ok(written) => (written, None),
            Err(panic) => {
                // What it has written is not known.
                let error = Error::panicked("a checkpoint", &*panic);
                checkpointer.broken = Some(error.clone());
                (Err(error), Some(panic))
            }
        };
        match written {
            Ok(written) => {
                let replaced = self.publish(checkpointer, &frozen, written);
                self.host.progressed();
                // Dropping these may free many nodes. No thread waits for that, and once no reader
                // of the time before is left, no reader does it either.
                self.shared.wait_quiet(checkpointer.meta.generation);
                self.shared.release_files();
                drop(replaced);
                drop(frozen);
                Ok(true)
            }
            Err(error) => {
                checkpointer.free.take_back_changes();
                let mut writer = self.writer.lock();
                writer.pending_frees.absorb(frozen.pending_frees);
                writer.value_files.extend(frozen.value_files);
                writer.checkpointing = false;
                drop(writer);
                match panic {
                    Some(panic) => resume_unwind(panic),
                    None => Err(error),
                }
            }
        }
    }

    /// Step 1.
    fn freeze_for_checkpoint(
        &self,
        checkpointer: &Checkpointer,
        force: bool,
    ) -> Result<Option<FrozenTree>> {
        let mut writer = self.writer.lock();
        let guard = crossbeam_epoch::pin();
        if let Some(error) = self.shared.apply_failed.get() {
            return Err(error.clone());
        }
        let for_scans = self.shared.merge_cost.is_due();
        self.shared.merge_cost.begin_checkpoint();
        let nothing_new = writer.applied == checkpointer.meta.persisted_seq;
        // Leaves that a compaction moved and could not write are not new, and fill the buffer.
        let is_full = self.buffer_is_full() && !mutated!("full-buffer-of-old-leaves-refused");
        if nothing_new && !force && !is_full {
            return Ok(None);
        }
        writer.freeze();
        // An idle one would keep pages from this checkpoint. Its root is the tree's too: nothing is
        // freed here.
        drop(self.take_cached_views(&mut writer));
        writer.checkpointing = true;
        writer.checkpoint_generation = writer.generation;
        writer.first_since_checkpoint = None;
        Ok(Some(FrozenTree {
            root: self.shared.root.load(&guard).to_owned(),
            seq: writer.applied,
            pending_frees: std::mem::take(&mut writer.pending_frees),
            value_files: std::mem::take(&mut writer.value_files),
            for_scans,
        }))
    }

    /// Steps 3 and 4.
    fn make_durable(
        &self,
        checkpointer: &mut Checkpointer,
        written: Written,
        seq: SeqNo,
    ) -> Result<Written> {
        let host = &self.host;
        mutated!(
            "checkpoint-before-its-log-is-durable",
            (),
            host.make_durable(seq)?
        );
        if mutated!("value-files-leave-before-the-checkpoint-is-durable") {
            self.shared
                .held_files
                .leave_now(|file| written.value_table.has(file));
        }
        let file = self.shared.pager.file()?;
        let synced = mutated!(
            "checkpoint-meta-written-before-its-pages",
            Ok(()),
            file.sync_data()
        );
        let durable = synced
            .and_then(|()| checkpointer.write_meta(&self.shared.pager, 0, &written.meta))
            .and_then(|()| checkpointer.write_meta(&self.shared.pager, 1, &written.meta));
        if let Err(error) = durable {
            checkpointer.broken = Some(error.clone());
            return Err(error);
        }
        Ok(written)
    }
}
