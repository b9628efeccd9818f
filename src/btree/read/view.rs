//! Immutable views.
//!
//! A view owns the root of a frozen tree. Its nodes in memory never change; its pages are kept by
//! its registration ([`SharedTree::register_view`]). Reading one key of it is in
//! [`crate::btree::read::point`]; the cursor over it, and the engine's trait for it, are in
//! [`crate::btree::read::cursor`].

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::pack_cost::SCAN_NS;
use super::readers::Span;
use super::shared::SharedTree;
use crate::btree::file::pager::PageMap;
use crate::btree::memory::node::Child;
use crate::btree::node::Link;
use crate::error::{Error, Result};
use crate::types::SeqNo;

/// A frozen tree.
pub(crate) struct View {
    tree: Arc<SharedTree>,
    root: Child,
    seq: SeqNo,
    /// Generations of the file whose pages the view may read.
    span: Span,
    /// The file's map when the view was taken, for the cursors to read from as long as it is
    /// the current one.
    map: Arc<PageMap>,
    /// Why nothing can be read: part of a batch that failed is in the tree.
    failed: Option<Error>,
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View")
            .field("seq", &self.seq)
            .field("span", &self.span)
            .finish_non_exhaustive()
    }
}

impl Drop for View {
    fn drop(&mut self) {
        self.tree.unregister_view(self.span);
    }
}

impl View {
    /// A view of the tree as it is, which the writer has just frozen and does not change meanwhile.
    /// `checkpointing` says that a checkpoint is under way.
    pub(crate) fn of_frozen(tree: &Arc<SharedTree>, seq: SeqNo, checkpointing: bool) -> Self {
        let guard = crossbeam_epoch::pin();
        Self {
            tree: Arc::clone(tree),
            root: tree.root.load(&guard).to_owned(),
            seq,
            span: tree.register_view(checkpointing),
            map: tree.pager.map(&guard),
            failed: tree.apply_failed.get().cloned(),
        }
    }

    /// A view of the tree below `root`, which is in the file and does not change: no operation is
    /// in it.
    pub(crate) fn of_pages(tree: &Arc<SharedTree>, root: Link) -> Self {
        let guard = crossbeam_epoch::pin();
        Self {
            tree: Arc::clone(tree),
            root: Child::Disk(root),
            seq: SeqNo::ZERO,
            span: tree.register_view(false),
            map: tree.pager.map(&guard),
            failed: None,
        }
    }

    /// The last operation in the view.
    pub(crate) fn seq(&self) -> SeqNo {
        self.seq
    }

    pub(crate) fn tree(&self) -> &Arc<SharedTree> {
        &self.tree
    }

    pub(crate) fn root(&self) -> &Child {
        &self.root
    }

    pub(crate) fn map(&self) -> &PageMap {
        &self.map
    }

    /// A scan has come to `steps` changes in a leaf. What a checkpoint cannot help is not counted:
    /// an older view keeps its changes.
    pub(crate) fn count_merge_steps(&self, steps: u64) {
        let generation = self.tree.disk_generation.load(Ordering::Acquire);
        if self.span.first == generation {
            self.tree.merge_cost.add(steps);
        }
    }

    /// A scan came to a leaf with `packs` packs. Of an older view it is not counted either.
    pub(crate) fn count_packs(&self, packs: u64) {
        let generation = self.tree.disk_generation.load(Ordering::Acquire);
        if self.span.first == generation {
            self.tree.pay_for_packs(SCAN_NS * packs);
        }
    }

    /// An error if part of a batch that failed is in the tree.
    pub(crate) fn check_usable(&self) -> Result<()> {
        match &self.failed {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        }
    }
}
