//! Immutable views and the cursor over them.
//!
//! A view owns the root of a sealed tree. Its nodes in memory never change; its pages are kept by its
//! registration ([`Tree::register_view`]). So a cursor takes no lock that anybody waits for: it keeps a
//! sealed leaf locked for reading while it stands in it, and the writer copies sealed leaves.

use std::fmt;
use std::sync::Arc;

use crossbeam_epoch::Guard;
use parking_lot::{ArcRwLockReadGuard, RawRwLock};

use super::mem::{Body, Changes, LeafState, MemInner, find_large, pending_number};
use super::node::inner::Inner;
use super::node::leaf::{Leaf, LeafValue};
use super::node::{self, NodeKind};
use super::pager::OwnedPage;
use super::slot::{Child, ChildRef};
use super::tree::{BaseImage, FoundLeaf, Tree, find_in_state};
use crate::engine::{Cursor, ReadView};
use crate::error::{Error, Result};
use crate::types::SeqNo;

/// A sealed tree.
pub(super) struct View {
    tree: Arc<Tree>,
    root: Child,
    seq: SeqNo,
    /// Generation of the file whose pages the view may read.
    generation: u64,
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
    /// Seals the tree between two batches.
    pub(super) fn seal(tree: &Arc<Tree>) -> Self {
        let guard = crossbeam_epoch::pin();
        let mut writer = tree.writer.lock();
        writer.seal();
        Self {
            tree: Arc::clone(tree),
            root: tree.root.load(&guard).to_owned(),
            seq: writer.applied,
            generation: tree.register_view(),
            failed: tree.apply_failed.get().cloned(),
        }
    }

    /// The last operation in the view.
    pub(super) fn seq(&self) -> SeqNo {
        self.seq
    }

    fn check(&self) -> Result<()> {
        match &self.failed {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        }
    }

    pub(super) fn check_usable(&self) -> Result<()> {
        self.check()
    }
}

impl ReadView for View {
    fn get(&self, key: &[u8], read: &mut dyn FnMut(&[u8])) -> Result<bool> {
        self.check()?;
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
        Box::new(TreeCursor {
            view: self,
            path: Vec::new(),
            leaf: None,
            slot: 0,
            key: Vec::new(),
            prefix_len: 0,
            value: Vec::new(),
            border: Vec::new(),
        })
    }
}

/// An inner node on a cursor's path.
enum PathNode {
    Memory(Arc<MemInner>),
    Page(OwnedPage),
}

impl PathNode {
    fn node(&self) -> Inner<'_> {
        match self {
            Self::Memory(inner) => inner.node(),
            Self::Page(page) => Inner::from_image(page),
        }
    }

    fn child(&self, i: usize) -> Child {
        match self {
            Self::Memory(inner) => inner.slots[i].load(&crossbeam_epoch::pin()).to_owned(),
            Self::Page(page) => Child::Disk(Inner::from_image(page).child(i)),
        }
    }
}

type LeafGuard = ArcRwLockReadGuard<RawRwLock, LeafState>;

/// The leaf in which a cursor stands.
enum CursorLeaf {
    Page(OwnedPage),
    /// A whole leaf in memory.
    Whole(LeafGuard),
    Merged(MergedLeaf),
}

/// Changes over a page, as one sequence of entries.
struct MergedLeaf {
    leaf: LeafGuard,
    base: OwnedPage,
    /// The live entries in key order: slots of the page, or indexes of changes with the top bit set.
    order: Vec<u32>,
}

/// In [`MergedLeaf::order`]: the entry is a change.
const CHANGED: u32 = 1 << 31;

impl MergedLeaf {
    fn new(leaf: LeafGuard, base: OwnedPage) -> Self {
        let mut order = Vec::new();
        if let Body::Changes(changes) = &leaf.body {
            let node = Leaf::from_image(&base);
            order.reserve(node.len() + changes.delta.len());
            let mut next = 0;
            for (i, (key, value)) in changes.delta.iter().enumerate() {
                // Changes replace the page's entry of the same key.
                let (until, then) = match node.search(key) {
                    Ok(slot) => (slot, slot + 1),
                    Err(slot) => (slot, slot),
                };
                order.extend(next as u32..until as u32);
                next = then;
                if value.is_some() {
                    order.push(i as u32 | CHANGED);
                }
            }
            order.extend(next as u32..node.len() as u32);
        }
        Self { leaf, base, order }
    }

    fn changes(&self) -> &Changes {
        match &self.leaf.body {
            Body::Changes(changes) => changes,
            Body::Whole { .. } => unreachable!("sealed leaves do not change"),
        }
    }

    /// Key and value of a change.
    fn change(&self, entry: u32) -> (&[u8], &[u8]) {
        let (key, value) = self.changes().delta.get((entry & !CHANGED) as usize);
        (key, value.unwrap_or_default())
    }

    /// Index of the first entry with a key `>= key`.
    fn lower_bound(&self, key: &[u8]) -> usize {
        let node = Leaf::from_image(&self.base);
        self.order.partition_point(|entry| {
            if entry & CHANGED != 0 {
                self.change(*entry).0 < key
            } else {
                node.compare_key(*entry as usize, key).is_lt()
            }
        })
    }
}

impl CursorLeaf {
    /// The image, for leaves that are one.
    fn image(&self) -> &[u8] {
        match self {
            Self::Page(page) => page,
            Self::Whole(leaf) => match &leaf.body {
                Body::Whole { image, .. } => image,
                Body::Changes(_) => unreachable!("sealed leaves do not change"),
            },
            Self::Merged(merged) => &merged.base,
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Merged(merged) => merged.order.len(),
            _ => Leaf::from_image(self.image()).len(),
        }
    }

    fn lower_bound(&self, key: &[u8]) -> usize {
        match self {
            Self::Merged(merged) => merged.lower_bound(key),
            _ => match Leaf::from_image(self.image()).search(key) {
                Ok(slot) | Err(slot) => slot,
            },
        }
    }
}

/// What changes are made to, to keep.
fn owned_base(tree: &Tree, changes: &Changes, guard: &Guard) -> Result<OwnedPage> {
    match changes.base(guard) {
        ChildRef::Disk(page) => {
            let base = tree.pager.owned_node(page, guard)?;
            tree.pager.count_read(1);
            tree.check_level(&base, page, Some(0))?;
            Ok(base)
        }
        // A leaf that a checkpoint is writing: rare, and worth a copy.
        _ => Ok(match tree.base_image(changes, guard)? {
            BaseImage::Page(page) => OwnedPage::Cached((*page).into()),
            BaseImage::Built(image) => OwnedPage::Cached(image.into()),
        }),
    }
}

/// Where a descent goes.
#[derive(Clone, Copy)]
enum Towards<'k> {
    First,
    Last,
    Key(&'k [u8]),
}

struct TreeCursor {
    view: Arc<View>,
    /// Inner nodes from the root to the leaf, and which child the path takes.
    path: Vec<(PathNode, usize)>,
    /// `None` when the cursor stands nowhere.
    leaf: Option<CursorLeaf>,
    slot: usize,
    /// Key of the entry; its first `prefix_len` bytes are those of every key in the leaf.
    key: Vec<u8>,
    prefix_len: usize,
    /// A large value that was asked for.
    value: Vec<u8>,
    /// The fence over which the cursor last went to another leaf.
    border: Vec<u8>,
}

impl TreeCursor {
    /// Goes down from `child` to a leaf and makes it the current one.
    fn descend(&mut self, mut child: Child, towards: Towards<'_>) -> Result<()> {
        let tree = Arc::clone(&self.view.tree);
        let guard = crossbeam_epoch::pin();
        loop {
            let level = match self.path.last() {
                Some((node, _)) => node.node().level().checked_sub(1),
                None => None,
            };
            let node = match child {
                Child::Leaf(leaf) => {
                    let leaf = leaf.read_arc();
                    let merged = match &leaf.body {
                        Body::Whole { .. } => None,
                        Body::Changes(changes) => Some(owned_base(&tree, changes, &guard)?),
                    };
                    self.enter(match merged {
                        None => CursorLeaf::Whole(leaf),
                        Some(base) => CursorLeaf::Merged(MergedLeaf::new(leaf, base)),
                    });
                    return Ok(());
                }
                Child::Inner(inner) => PathNode::Memory(inner),
                Child::Disk(page) => {
                    let image = tree.pager.owned_node(page, &guard)?;
                    tree.check_level(&image, page, level)?;
                    tree.pager.count_read(1);
                    if node::kind(&image) == Some(NodeKind::Leaf) {
                        self.enter(CursorLeaf::Page(image));
                        return Ok(());
                    }
                    PathNode::Page(image)
                }
            };
            let i = match towards {
                Towards::First => 0,
                Towards::Last => node.node().child_count() - 1,
                Towards::Key(key) => node.node().find_child(key),
            };
            child = node.child(i);
            self.path.push((node, i));
        }
    }

    fn enter(&mut self, leaf: CursorLeaf) {
        self.key.clear();
        self.key
            .extend_from_slice(Leaf::from_image(leaf.image()).prefix());
        self.prefix_len = self.key.len();
        self.leaf = Some(leaf);
    }

    /// Goes down from the root.
    fn restart(&mut self, towards: Towards<'_>) -> Result<()> {
        self.view.check()?;
        self.path.clear();
        self.leaf = None;
        self.descend(self.view.root.clone(), towards)
    }

    /// Goes to the leaf after the current one; false if there is none.
    fn next_leaf(&mut self) -> Result<bool> {
        self.border.clear();
        if let Some(leaf) = &self.leaf {
            Leaf::from_image(leaf.image()).write_upper_fence(&mut self.border);
        }
        self.leaf = None;
        while let Some((node, i)) = self.path.last_mut() {
            if *i + 1 < node.node().child_count() {
                *i += 1;
                let child = node.child(*i);
                self.descend(child, Towards::First)?;
                // An upper fence is never empty: without one there is no next leaf.
                self.expect_border(|leaf, border| {
                    !border.is_empty() && leaf.lower_fence() == border
                })?;
                return Ok(true);
            }
            self.path.pop();
        }
        Ok(false)
    }

    fn previous_leaf(&mut self) -> Result<bool> {
        self.border.clear();
        if let Some(leaf) = &self.leaf {
            let fence = Leaf::from_image(leaf.image()).lower_fence();
            self.border.extend_from_slice(fence);
        }
        self.leaf = None;
        while let Some((node, i)) = self.path.last_mut() {
            if *i > 0 {
                *i -= 1;
                let child = node.child(*i);
                self.descend(child, Towards::Last)?;
                let mut upper = Vec::new();
                self.expect_border(|leaf, border| {
                    leaf.write_upper_fence(&mut upper) && upper == border
                })?;
                return Ok(true);
            }
            self.path.pop();
        }
        Ok(false)
    }

    /// Neighbouring leaves meet at a fence. Each page is checked by itself only, and inner pages that all refer to
    /// the same few leaves would keep a scan going round for ever.
    fn expect_border(&self, meets: impl FnOnce(Leaf<'_>, &[u8]) -> bool) -> Result<()> {
        let Some(leaf) = &self.leaf else {
            return Ok(());
        };
        if meets(Leaf::from_image(leaf.image()), &self.border) {
            return Ok(());
        }
        let what = "the leaf does not begin or end where its neighbour does";
        let page = node::page_id(leaf.image());
        Err(self.view.tree.pager.damaged(page, what))
    }

    /// Stands on entry `slot` of the current leaf, or on the first one after it. Leaves may be empty.
    fn settle_forward(&mut self, slot: usize) -> Result<()> {
        self.slot = slot;
        while let Some(leaf) = &self.leaf {
            if self.slot < leaf.len() {
                self.load_key();
                return Ok(());
            }
            self.next_leaf()?;
            self.slot = 0;
        }
        Ok(())
    }

    /// Stands on the last entry before `end` in the current leaf, or before it.
    fn settle_backward(&mut self, end: usize) -> Result<()> {
        let mut end = end;
        while self.leaf.is_some() {
            if end > 0 {
                self.slot = end - 1;
                self.load_key();
                return Ok(());
            }
            self.previous_leaf()?;
            end = self.leaf.as_ref().map_or(0, CursorLeaf::len);
        }
        Ok(())
    }

    #[inline]
    fn load_key(&mut self) {
        let Some(leaf) = &self.leaf else { return };
        let slot = match leaf {
            CursorLeaf::Merged(merged) => {
                let entry = merged.order[self.slot];
                if entry & CHANGED != 0 {
                    let key = merged.change(entry).0;
                    self.key.truncate(self.prefix_len);
                    self.key.extend_from_slice(&key[self.prefix_len..]);
                    return;
                }
                entry as usize
            }
            _ => self.slot,
        };
        self.key.truncate(self.prefix_len);
        self.key
            .extend_from_slice(Leaf::from_image(leaf.image()).key_suffix(slot));
    }

    /// After an error the cursor stands nowhere.
    fn settled(&mut self, result: Result<()>) -> Result<()> {
        if result.is_err() {
            self.leaf = None;
            self.path.clear();
        }
        result
    }
}

impl Cursor for TreeCursor {
    fn seek_first(&mut self) -> Result<()> {
        let result = self
            .restart(Towards::First)
            .and_then(|()| self.settle_forward(0));
        self.settled(result)
    }

    fn seek_last(&mut self) -> Result<()> {
        let result = self.restart(Towards::Last).and_then(|()| {
            let end = self.leaf.as_ref().map_or(0, CursorLeaf::len);
            self.settle_backward(end)
        });
        self.settled(result)
    }

    fn seek(&mut self, key: &[u8]) -> Result<()> {
        let result = self.restart(Towards::Key(key)).and_then(|()| {
            let slot = self.leaf.as_ref().map_or(0, |leaf| leaf.lower_bound(key));
            self.settle_forward(slot)
        });
        self.settled(result)
    }

    fn seek_before(&mut self, key: &[u8]) -> Result<()> {
        let result = self.restart(Towards::Key(key)).and_then(|()| {
            let end = self.leaf.as_ref().map_or(0, |leaf| leaf.lower_bound(key));
            self.settle_backward(end)
        });
        self.settled(result)
    }

    fn next(&mut self) -> Result<()> {
        let result = self.settle_forward(self.slot + 1);
        self.settled(result)
    }

    fn prev(&mut self) -> Result<()> {
        let result = self.settle_backward(self.slot);
        self.settled(result)
    }

    fn is_valid(&self) -> bool {
        self.leaf.is_some()
    }

    fn key(&self) -> &[u8] {
        &self.key
    }

    fn entry(&mut self) -> Result<(&[u8], &[u8])> {
        let Some(leaf) = &self.leaf else {
            return Err(Error::invalid("the cursor stands nowhere"));
        };
        let slot = match leaf {
            CursorLeaf::Merged(merged) => {
                let entry = merged.order[self.slot];
                if entry & CHANGED != 0 {
                    return Ok((&self.key, merged.change(entry).1));
                }
                entry as usize
            }
            _ => self.slot,
        };
        match Leaf::from_image(leaf.image()).value(slot) {
            LeafValue::Inline(bytes) => Ok((&self.key, bytes)),
            LeafValue::Overflow {
                page,
                len,
                checksum,
            } => {
                if let CursorLeaf::Whole(state) = leaf
                    && let Body::Whole { large, .. } = &state.body
                    && let Some(number) = pending_number(page)
                {
                    let value = find_large(large, number).expect("beside its reference");
                    return Ok((&self.key, &value.bytes));
                }
                let guard = crossbeam_epoch::pin();
                let value = &mut self.value;
                self.view
                    .tree
                    .pager
                    .overflow(page, len, checksum, &guard, |bytes| {
                        value.clear();
                        value.extend_from_slice(bytes);
                    })?;
                Ok((&self.key, &self.value))
            }
        }
    }
}
