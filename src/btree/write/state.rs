//! State of the one writer: the generation that it may change, and what the next checkpoint frees.

use std::collections::BTreeSet;

use crate::btree::file::freespace::Run;
use crate::btree::node::Link;
use crate::btree::node::packs::Packs;
use crate::types::{PageId, SeqNo};
use crate::util::mutants::mutated;

/// What the next checkpoint has to free (BW3).
#[derive(Debug, Default)]
pub(crate) struct PendingFrees {
    /// Nodes and extents, packs and their areas: but for those that the checkpoint carries over.
    pub(crate) freed: Vec<Run>,
    /// The leaves and packs among them, each by itself.
    pub(crate) nodes: Vec<Link>,
    /// How many of them were of overflow extents.
    pub(crate) freed_overflow_units: u64,
    /// Units of overflow extents that came into the tree with a bulk load.
    pub(crate) loaded_overflow_units: u64,
    /// Entries of the leaves among them, as they were counted: with what packs were said to add.
    pub(crate) removed_entries: i64,
    /// Whole subtrees that were cut off, and their levels. They are walked by the checkpoint.
    pub(crate) dropped: Vec<(Link, u8)>,
}

impl PendingFrees {
    pub(crate) fn free(&mut self, page: PageId, pages: u64) {
        self.freed.push(Run {
            start: page.0,
            len: pages,
        });
    }

    /// The same for a node, of which it is known that it is no inner one, or not what it is.
    pub(crate) fn free_node(&mut self, link: Link, pages: u64) {
        self.free(link.page(), pages);
        self.nodes.push(link);
    }

    /// The packs of an inner node that leaves the file's tree.
    pub(crate) fn free_packs(&mut self, packs: &Packs) {
        self.nodes.extend(packs.links());
        for (page, units) in packs.extents() {
            self.free(page, units);
        }
    }

    /// Adds what a failed checkpoint was given and did not free.
    pub(crate) fn absorb(&mut self, other: Self) {
        self.freed.extend(other.freed);
        self.nodes.extend(other.nodes);
        self.freed_overflow_units += other.freed_overflow_units;
        self.loaded_overflow_units += other.loaded_overflow_units;
        self.removed_entries += other.removed_entries;
        self.dropped.extend(other.dropped);
    }
}

/// The generation before a freeze that can be undone.
pub(crate) struct ViewFreeze(u64);

/// State of the one writer.
#[derive(Debug)]
pub(crate) struct WriterState {
    /// Nodes of this generation may be changed in place.
    pub(crate) generation: u64,
    /// Something changed since the tree was last frozen.
    changed: bool,
    /// Last operation applied.
    pub(crate) applied: SeqNo,
    /// First operation applied since the last checkpoint began.
    pub(crate) first_since_checkpoint: Option<SeqNo>,
    pub(crate) pending_frees: PendingFrees,
    /// The current tree was frozen for views only, all of which are in the view cache.
    frozen_for_views: bool,
    /// Shards of the view cache that hold a view, a bit each.
    pub(crate) cached_views: u16,
    /// A checkpoint is under way: frozen nodes stay in memory until it ends.
    pub(crate) checkpointing: bool,
    /// Nodes of an older generation were there when the last checkpoint froze the tree.
    pub(crate) checkpoint_generation: u64,
    /// Bytes of the nodes in memory that are to be written.
    pub(crate) dirty_bytes: u64,
    pub(super) next_large: u64,
    /// Value files to which operations since the last checkpoint began refer.
    pub(crate) value_files: BTreeSet<u64>,
}

impl WriterState {
    pub(crate) fn new(applied: SeqNo) -> Self {
        Self {
            generation: 1,
            changed: false,
            frozen_for_views: false,
            cached_views: 0,
            applied,
            first_since_checkpoint: None,
            pending_frees: PendingFrees::default(),
            checkpointing: false,
            checkpoint_generation: 0,
            dirty_bytes: 0,
            next_large: 0,
            value_files: BTreeSet::new(),
        }
    }

    /// From now on the nodes of the current tree never change.
    pub(crate) fn freeze(&mut self) {
        self.freeze_for_view();
        self.keep_freeze();
    }

    /// The same for a view that goes into the view cache: such a freeze can be undone.
    pub(crate) fn freeze_for_view(&mut self) {
        if self.changed && !mutated!("snapshot-of-the-tree-not-frozen") {
            self.generation += 1;
            self.changed = false;
            self.frozen_for_views = true;
        }
    }

    /// The freeze that only views rely on, all of which are cached.
    pub(crate) fn view_freeze(&self) -> Option<ViewFreeze> {
        self.frozen_for_views
            .then(|| ViewFreeze(self.generation - 1))
    }

    /// Others may rely on the current freeze, too.
    pub(crate) fn keep_freeze(&mut self) {
        self.frozen_for_views = false;
    }

    /// The views are gone, and nothing has changed since the freeze: nodes may be changed again.
    pub(crate) fn undo_freeze(&mut self, freeze: ViewFreeze) {
        debug_assert!(!self.changed && self.generation == freeze.0 + 1);
        self.generation = freeze.0;
    }

    /// A change of the current tree begins.
    pub(crate) fn begin_change(&mut self) {
        self.changed = true;
        self.keep_freeze();
    }

    /// A node of `bytes` in memory came into the current tree, or grew by that.
    pub(super) fn add_dirty(&mut self, bytes: usize) {
        self.dirty_bytes += bytes as u64;
    }

    /// A node left the current tree. If a checkpoint is under way it may still hold it.
    pub(super) fn sub_dirty(&mut self, generation: u64, bytes: usize) {
        if generation == self.generation || !self.checkpointing {
            self.dirty_bytes = self.dirty_bytes.saturating_sub(bytes as u64);
        }
    }
}
