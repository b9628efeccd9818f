//! Immutable views.
//!
//! A view owns the root of a frozen tree. Its nodes in memory never change; its pages are kept by
//! its registration ([`SharedTree::register_view`]). The cursor over it, and the engine's trait for
//! it, are in [`crate::btree::read::cursor`].

use std::fmt;
use std::sync::Arc;

use super::shared::{FoundLeaf, SharedTree, find_in_state};
use crate::btree::file::pager::PageMap;
use crate::btree::memory::node::Child;
use crate::error::{Error, Result};
use crate::types::SeqNo;

/// A frozen tree.
pub(crate) struct View {
    tree: Arc<SharedTree>,
    root: Child,
    seq: SeqNo,
    /// Generation of the file whose pages the view may read.
    generation: u64,
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
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

impl Drop for View {
    fn drop(&mut self) {
        self.tree.unregister_view(self.generation);
    }
}

impl View {
    /// A view of the tree as it is, which the writer has just frozen and does not change meanwhile.
    pub(crate) fn of_frozen(tree: &Arc<SharedTree>, seq: SeqNo) -> Self {
        let guard = crossbeam_epoch::pin();
        Self {
            tree: Arc::clone(tree),
            root: tree.root.load(&guard).to_owned(),
            seq,
            generation: tree.register_view(),
            map: tree.pager.map(&guard),
            failed: tree.apply_failed.get().cloned(),
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

    /// An error if part of a batch that failed is in the tree.
    pub(crate) fn check_usable(&self) -> Result<()> {
        match &self.failed {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        }
    }

    /// As [`crate::engine::ReadView::get`].
    pub(crate) fn read_key(&self, key: &[u8], read: &mut dyn FnMut(&[u8])) -> Result<bool> {
        self.check_usable()?;
        let guard = crossbeam_epoch::pin();
        let (found, pages) = self.tree.find_leaf(self.root.as_ref(), key, &guard)?;
        self.tree.pager.count_read(pages);
        match found {
            FoundLeaf::Memory(leaf) => {
                let place = find_in_state(&leaf.read(), key, read, &guard);
                self.tree.finish_read(place, key, read, &guard)
            }
            FoundLeaf::Page(image) => self.tree.read_page(&image, key, read, &guard),
        }
    }
}
