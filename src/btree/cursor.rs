//! The cursor over a view.
//!
//! It takes no lock that anybody waits for: it keeps a sealed leaf locked for reading while it stands
//! in it, and the writer copies sealed leaves.

use std::sync::Arc;

use crossbeam_epoch::Guard;
use parking_lot::{ArcRwLockReadGuard, RawRwLock};

use super::mem::{Body, Changes, LeafState, MemInner, find_large, pending_number};
use super::merged::{Standing, Walk};
use super::node::inner::Inner;
use super::node::leaf::{Leaf, LeafValue};
use super::node::{self, NodeKind};
use super::pager::OwnedPage;
use super::slot::{Child, ChildRef};
use super::tree::{BaseImage, Tree};
use super::view::View;
use crate::engine::Cursor;
use crate::error::{Error, Result};

/// Room for the path of a tree of ordinary height, and for an ordinary key: made at once, because
/// a short scan costs little more than its allocations.
const PATH_LEN: usize = 4;
const KEY_LEN_BYTES: usize = 48;

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

    fn child(&self, i: usize, guard: &Guard) -> Child {
        match self {
            Self::Memory(inner) => inner.slots[i].load(guard).to_owned(),
            Self::Page(page) => Child::Disk(Inner::from_image(page).child(i)),
        }
    }
}

type LeafGuard = ArcRwLockReadGuard<RawRwLock, LeafState>;

/// What a leaf's entries are read from.
enum Source {
    Page(OwnedPage),
    /// A whole leaf in memory.
    Whole(LeafGuard),
    /// Changes over a page.
    Merged {
        leaf: LeafGuard,
        base: OwnedPage,
    },
}

/// The leaf in which a cursor is. It is at a gap between two entries, or stands on the entry
/// after the gap.
struct CursorLeaf {
    source: Source,
    /// Entries before the gap, of an unchanged leaf.
    slot: usize,
    /// The gap in a leaf with changes.
    walk: Walk,
}

impl CursorLeaf {
    fn new(source: Source) -> Self {
        Self {
            source,
            slot: 0,
            walk: Walk::default(),
        }
    }

    /// The image of the leaf, or of the page that is changed.
    #[inline]
    fn image(&self) -> &[u8] {
        match &self.source {
            Source::Page(page) => page,
            Source::Whole(leaf) => match &leaf.body {
                Body::Whole { image, .. } => image,
                Body::Changes(_) => unreachable!("sealed leaves do not change"),
            },
            Source::Merged { base, .. } => base,
        }
    }

    /// Goes before the first entry with a key `>= key`.
    fn seek(&mut self, key: &[u8]) {
        let (Ok(slot) | Err(slot)) = Leaf::from_image(self.image()).search(key);
        match &self.source {
            Source::Merged { leaf, .. } => {
                let (Ok(change) | Err(change)) = changes(leaf).delta.search(key);
                self.walk = Walk::at(slot, change);
            }
            _ => self.slot = slot,
        }
    }

    /// Goes behind the last entry.
    fn seek_end(&mut self) {
        let len = Leaf::from_image(self.image()).len();
        match &self.source {
            Source::Merged { leaf, .. } => self.walk = Walk::at(len, changes(leaf).delta.len()),
            _ => self.slot = len,
        }
    }

    /// Stands on the entry after the gap; false if there is none.
    #[inline]
    fn stand_forward(&mut self) -> bool {
        match &self.source {
            Source::Merged { leaf, base } => self
                .walk
                .forward(Leaf::from_image(base), &changes(leaf).delta),
            _ => self.slot < Leaf::from_image(self.image()).len(),
        }
    }

    /// Stands on the entry before the gap; false if there is none.
    #[inline]
    fn stand_backward(&mut self) -> bool {
        match &self.source {
            Source::Merged { leaf, base } => self
                .walk
                .backward(Leaf::from_image(base), &changes(leaf).delta),
            _ => match self.slot.checked_sub(1) {
                Some(slot) => {
                    self.slot = slot;
                    true
                }
                None => false,
            },
        }
    }

    /// Goes behind the entry on which it stands.
    #[inline]
    fn pass(&mut self) {
        match &self.source {
            Source::Merged { .. } => self.walk.pass(),
            _ => self.slot += 1,
        }
    }

    /// Where the entry is.
    #[inline]
    fn standing(&self) -> Standing {
        match &self.source {
            Source::Merged { .. } => self.walk.standing(),
            _ => Standing::Slot(self.slot),
        }
    }

    /// Key and new value of a change.
    fn change(&self, change: usize) -> (&[u8], &[u8]) {
        match &self.source {
            Source::Merged { leaf, .. } => {
                let (key, value) = changes(leaf).delta.get(change);
                (key, value.unwrap_or_default())
            }
            _ => unreachable!("only changed leaves have changes"),
        }
    }
}

fn changes(leaf: &LeafGuard) -> &Changes {
    match &leaf.body {
        Body::Changes(changes) => changes,
        Body::Whole { .. } => unreachable!("sealed leaves do not change"),
    }
}

/// What changes are made to, to keep.
fn owned_base(tree: &Tree, changes: &Changes, guard: &Guard) -> Result<OwnedPage> {
    match changes.base(guard) {
        ChildRef::Disk(link) => {
            let base = tree.pager.owned_node(link, guard)?;
            tree.pager.count_read(1);
            tree.check_level(&base, link.page(), Some(0))?;
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

/// A position in a view.
pub(super) struct TreeCursor {
    view: Arc<View>,
    /// Inner nodes from the root to the leaf, and which child the path takes.
    path: Vec<(PathNode, usize)>,
    /// `None` when the cursor stands nowhere.
    leaf: Option<CursorLeaf>,
    /// Key of the entry; its first `prefix_len` bytes are those of every key in the leaf.
    key: Vec<u8>,
    prefix_len: usize,
    /// A large value that was asked for.
    value: Vec<u8>,
    /// The fence over which the cursor last went to another leaf.
    border: Vec<u8>,
}

impl TreeCursor {
    /// A cursor that stands nowhere.
    pub(super) fn new(view: Arc<View>) -> Self {
        Self {
            view,
            path: Vec::with_capacity(PATH_LEN),
            leaf: None,
            key: Vec::with_capacity(KEY_LEN_BYTES),
            prefix_len: 0,
            value: Vec::new(),
            border: Vec::new(),
        }
    }

    /// Goes down from `child` to a leaf and makes it the current one, at the gap before its
    /// first entry.
    fn descend(&mut self, mut child: Child, towards: Towards<'_>, guard: &Guard) -> Result<()> {
        loop {
            let level = match self.path.last() {
                Some((node, _)) => node.node().level().checked_sub(1),
                None => None,
            };
            let tree = self.view.tree();
            let node = match child {
                Child::Leaf(leaf) => {
                    let leaf = leaf.read_arc();
                    let base = match &leaf.body {
                        Body::Whole { .. } => None,
                        Body::Changes(changes) => Some(owned_base(tree, changes, guard)?),
                    };
                    self.enter(match base {
                        None => Source::Whole(leaf),
                        Some(base) => Source::Merged { leaf, base },
                    });
                    return Ok(());
                }
                Child::Inner(inner) => PathNode::Memory(inner),
                Child::Disk(link) => {
                    let image = tree.pager.owned_node(link, guard)?;
                    tree.check_level(&image, link.page(), level)?;
                    tree.pager.count_read(1);
                    if node::kind(&image) == Some(NodeKind::Leaf) {
                        self.enter(Source::Page(image));
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
            child = node.child(i, guard);
            self.path.push((node, i));
        }
    }

    fn enter(&mut self, source: Source) {
        let leaf = CursorLeaf::new(source);
        self.key.clear();
        self.key
            .extend_from_slice(Leaf::from_image(leaf.image()).prefix());
        self.prefix_len = self.key.len();
        self.leaf = Some(leaf);
    }

    /// Goes down from the root.
    fn restart(&mut self, towards: Towards<'_>) -> Result<()> {
        self.view.check_usable()?;
        self.path.clear();
        self.leaf = None;
        let root = self.view.root().clone();
        self.descend(root, towards, &crossbeam_epoch::pin())
    }

    /// Goes to the leaf after the current one, if there is one.
    fn next_leaf(&mut self) -> Result<()> {
        self.border.clear();
        if let Some(leaf) = &self.leaf {
            Leaf::from_image(leaf.image()).write_upper_fence(&mut self.border);
        }
        self.leaf = None;
        while let Some((node, i)) = self.path.last_mut() {
            if *i + 1 < node.node().child_count() {
                *i += 1;
                let guard = crossbeam_epoch::pin();
                let child = node.child(*i, &guard);
                self.descend(child, Towards::First, &guard)?;
                // An upper fence is never empty: without one there is no next leaf.
                return self.expect_border(|leaf, border| {
                    !border.is_empty() && leaf.lower_fence() == border
                });
            }
            self.path.pop();
        }
        Ok(())
    }

    /// Goes to the end of the leaf before the current one, if there is one.
    fn previous_leaf(&mut self) -> Result<()> {
        self.border.clear();
        if let Some(leaf) = &self.leaf {
            let fence = Leaf::from_image(leaf.image()).lower_fence();
            self.border.extend_from_slice(fence);
        }
        self.leaf = None;
        while let Some((node, i)) = self.path.last_mut() {
            if *i > 0 {
                *i -= 1;
                let guard = crossbeam_epoch::pin();
                let child = node.child(*i, &guard);
                self.descend(child, Towards::Last, &guard)?;
                let mut upper = Vec::new();
                self.expect_border(|leaf, border| {
                    leaf.write_upper_fence(&mut upper) && upper == border
                })?;
                if let Some(leaf) = &mut self.leaf {
                    leaf.seek_end();
                }
                return Ok(());
            }
            self.path.pop();
        }
        Ok(())
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
        Err(self.view.tree().pager.damaged(page, what))
    }

    /// Stands on the first entry after the gap. Leaves may be empty.
    fn settle_forward(&mut self) -> Result<()> {
        while let Some(leaf) = &mut self.leaf {
            if leaf.stand_forward() {
                self.load_key();
                break;
            }
            self.next_leaf()?;
        }
        Ok(())
    }

    /// Stands on the last entry before the gap.
    fn settle_backward(&mut self) -> Result<()> {
        while let Some(leaf) = &mut self.leaf {
            if leaf.stand_backward() {
                self.load_key();
                break;
            }
            self.previous_leaf()?;
        }
        Ok(())
    }

    #[inline]
    fn load_key(&mut self) {
        let Some(leaf) = &self.leaf else { return };
        let suffix = match leaf.standing() {
            Standing::Slot(slot) => Leaf::from_image(leaf.image()).key_suffix(slot),
            Standing::Change(change) => &leaf.change(change).0[self.prefix_len..],
        };
        self.key.truncate(self.prefix_len);
        self.key.extend_from_slice(suffix);
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
            .and_then(|()| self.settle_forward());
        self.settled(result)
    }

    fn seek_last(&mut self) -> Result<()> {
        let result = self.restart(Towards::Last).and_then(|()| {
            if let Some(leaf) = &mut self.leaf {
                leaf.seek_end();
            }
            self.settle_backward()
        });
        self.settled(result)
    }

    fn seek(&mut self, key: &[u8]) -> Result<()> {
        let result = self.restart(Towards::Key(key)).and_then(|()| {
            if let Some(leaf) = &mut self.leaf {
                leaf.seek(key);
            }
            self.settle_forward()
        });
        self.settled(result)
    }

    fn seek_before(&mut self, key: &[u8]) -> Result<()> {
        let result = self.restart(Towards::Key(key)).and_then(|()| {
            if let Some(leaf) = &mut self.leaf {
                leaf.seek(key);
            }
            self.settle_backward()
        });
        self.settled(result)
    }

    fn next(&mut self) -> Result<()> {
        if let Some(leaf) = &mut self.leaf {
            leaf.pass();
        }
        let result = self.settle_forward();
        self.settled(result)
    }

    fn prev(&mut self) -> Result<()> {
        let result = self.settle_backward();
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
        let slot = match leaf.standing() {
            Standing::Slot(slot) => slot,
            Standing::Change(change) => return Ok((&self.key, leaf.change(change).1)),
        };
        match Leaf::from_image(leaf.image()).value(slot) {
            LeafValue::Inline(bytes) => Ok((&self.key, bytes)),
            LeafValue::Overflow {
                page,
                len,
                checksum,
            } => {
                if let Source::Whole(state) = &leaf.source
                    && let Body::Whole { large, .. } = &state.body
                    && let Some(number) = pending_number(page)
                {
                    let value = find_large(large, number).expect("beside its reference");
                    return Ok((&self.key, &value.bytes));
                }
                let guard = crossbeam_epoch::pin();
                let value = &mut self.value;
                self.view
                    .tree()
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
