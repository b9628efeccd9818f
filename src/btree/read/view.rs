//! Immutable views.
//!
//! A view owns the root of a sealed tree. Its nodes in memory never change; its pages are kept by its
//! registration ([`Tree::register_view`]). [`super::cursor`] walks over it.

use std::fmt;
use std::sync::Arc;

use super::cursor::TreeCursor;
use super::shared::{FoundLeaf, Tree, find_in_state};
use crate::btree::file::pager::PageMap;
use crate::btree::memory::node::Child;
use crate::btree::write::state::Writer;
use crate::engine::{Cursor, ReadView};
use crate::error::{Error, Result};
use crate::types::SeqNo;

/// A sealed tree.
pub(crate) struct View {
    tree: Arc<Tree>,
    root: Child,
    seq: SeqNo,
    /// Generation of the file whose pages the view may read.
    generation: u64,
    /// The file's map when the view was taken, for the cursors to read from as long as it is the present one.
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
    /// Seals the tree between two batches. Whoever calls it keeps the view ([`Tree::latest_view`]).
    pub(crate) fn seal(tree: &Arc<Tree>, writer: &mut Writer) -> Self {
        let guard = crossbeam_epoch::pin();
        writer.seal_for_view();
        Self {
            tree: Arc::clone(tree),
            root: tree.root.load(&guard).to_owned(),
            seq: writer.applied,
            generation: tree.register_view(),
            map: tree.pager.map(&guard),
            failed: tree.apply_failed.get().cloned(),
        }
    }

    /// The last operation in the view.
    pub(crate) fn seq(&self) -> SeqNo {
        self.seq
    }

    pub(crate) fn tree(&self) -> &Arc<Tree> {
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
}

impl ReadView for View {
    fn get(&self, key: &[u8], read: &mut dyn FnMut(&[u8])) -> Result<bool> {
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

    fn cursor(self: Arc<Self>) -> Box<dyn Cursor> {
        Box::new(TreeCursor::new(self))
    }
}
