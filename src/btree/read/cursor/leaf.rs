//! The leaf in which a cursor is, and where in it.

use crossbeam_epoch::Guard;
use parking_lot::{ArcRwLockReadGuard, RawRwLock};

use crate::btree::file::pager::{KeptPage, OwnedPage, PageMap};
use crate::btree::memory::delta::Delta;
use crate::btree::memory::merged::{Standing, Walk};
use crate::btree::memory::node::{Body, Changes, LeafState};
use crate::btree::node::leaf::{Leaf, Record, Slots, Stored};
use crate::btree::node::packs::PackedLeaf;
use crate::btree::read::shared::{BaseImage, ReadFor, SharedTree};
use crate::error::Result;

type LeafGuard = ArcRwLockReadGuard<RawRwLock, LeafState>;

/// What a leaf's entries are read from.
pub(super) enum Source {
    Page(KeptPage),
    /// A whole leaf in memory.
    Whole(LeafGuard),
    /// Changes over a page.
    Merged {
        leaf: LeafGuard,
        base: KeptPage,
    },
    /// Changes over a page that were put together out of packs, and perhaps of a leaf in memory.
    Packed {
        delta: Box<Delta>,
        base: KeptPage,
        /// There are changes in memory among them, which a checkpoint would merge.
        is_changed: bool,
    },
}

impl Source {
    /// The changes and the page that they are made to, of a leaf with changes.
    #[inline(always)]
    fn changed(&self) -> Option<(&Delta, &KeptPage)> {
        match self {
            Self::Merged { leaf, base } => Some((&changes(leaf).delta, base)),
            Self::Packed { delta, base, .. } => Some((delta, base)),
            Self::Page(_) | Self::Whole(_) => None,
        }
    }

    /// The image of the leaf, or the page that is changed.
    #[inline(always)]
    fn image<'a>(&'a self, map: &'a PageMap) -> &'a [u8] {
        match self {
            Self::Page(page) => page.image(map),
            Self::Whole(leaf) => match &leaf.body {
                Body::Whole { image, .. } => image,
                _ => unreachable!("frozen leaves do not change"),
            },
            Self::Merged { base, .. } | Self::Packed { base, .. } => base.image(map),
        }
    }
}

/// The leaf in which a cursor is. It is at a gap between two entries, or stands on the entry
/// after the gap.
pub(super) struct CursorLeaf {
    pub(super) source: Source,
    /// Of the image.
    pub(super) slots: Slots,
    /// Entries before the gap, of an unchanged leaf.
    slot: usize,
    /// The gap in a leaf with changes.
    pub(super) walk: Walk,
    /// The entry on which it stands, if it is in the image.
    pub(super) record: Record,
}

impl CursorLeaf {
    pub(super) fn new(source: Source, map: &PageMap) -> Self {
        let mut leaf = Self {
            source,
            slots: Slots::default(),
            slot: 0,
            walk: Walk::default(),
            record: Record::default(),
        };
        leaf.slots = leaf.image(map).slots();
        leaf
    }

    /// The leaf, or the page that is changed.
    #[inline(always)]
    pub(super) fn image<'a>(&'a self, map: &'a PageMap) -> Leaf<'a> {
        Leaf::from_image(self.source.image(map))
    }

    /// Goes before the first entry with a key `>= key`.
    pub(super) fn seek(&mut self, key: &[u8], map: &PageMap) {
        let (Ok(slot) | Err(slot)) = self.image(map).search(key);
        match self.source.changed() {
            Some((delta, _)) => {
                let (Ok(change) | Err(change)) = delta.search(key);
                self.walk = Walk::at(slot, change);
            }
            None => self.slot = slot,
        }
    }

    /// Goes behind the last entry.
    pub(super) fn seek_end(&mut self) {
        let len = self.slots.len();
        match self.source.changed() {
            Some((delta, _)) => self.walk = Walk::at(len, delta.len()),
            None => self.slot = len,
        }
    }

    /// Stands on the entry after the gap; false if there is none.
    #[inline(always)]
    pub(super) fn stand_forward(&mut self, map: &PageMap) -> bool {
        match self.source.changed() {
            Some((delta, base)) => self.walk.forward(Leaf::from_image(base.image(map)), delta),
            None => self.slot < self.slots.len(),
        }
    }

    /// Stands on the entry before the gap; false if there is none.
    #[inline(always)]
    pub(super) fn stand_backward(&mut self, map: &PageMap) -> bool {
        match self.source.changed() {
            Some((delta, base)) => self.walk.backward(Leaf::from_image(base.image(map)), delta),
            None => match self.slot.checked_sub(1) {
                Some(slot) => {
                    self.slot = slot;
                    true
                }
                None => false,
            },
        }
    }

    /// Goes behind the entry on which it stands.
    #[inline(always)]
    pub(super) fn pass(&mut self) {
        match self.source.changed() {
            Some(_) => self.walk.pass(),
            None => self.slot += 1,
        }
    }

    /// Where the entry is.
    #[inline(always)]
    pub(super) fn standing(&self) -> Standing {
        match self.source.changed() {
            Some(_) => self.walk.standing(),
            None => Standing::Slot(self.slot),
        }
    }

    /// Key and new value of a change.
    pub(super) fn change(&self, change: usize) -> (&[u8], Stored<'_>) {
        let (delta, _) = self.source.changed().expect("it stands on a change");
        let (key, value) = delta.get(change);
        (key, value.unwrap_or(Stored::Inline(&[])))
    }
}

fn changes(leaf: &LeafGuard) -> &Changes {
    match &leaf.body {
        Body::Changes(changes) => changes,
        _ => unreachable!("frozen leaves do not change"),
    }
}

/// A leaf of the file with the changes in its packs, and over them `newer` ones.
pub(super) fn packed_source(
    tree: &SharedTree,
    leaf: &PackedLeaf,
    newer: Option<&Delta>,
    map: &PageMap,
    read_for: ReadFor,
    guard: &Guard,
) -> Result<Source> {
    let image = tree.disk_node_for(leaf.page, Some(0), read_for, guard)?;
    let mut delta = Box::new(tree.packed_changes(leaf, &image, read_for, guard)?);
    for (key, value) in newer.into_iter().flat_map(Delta::iter) {
        delta.set(delta.search(key), key, value);
    }
    tree.pager
        .count_read(1 + leaf.packs.as_slice().len() as u64);
    let base = tree.pager.keep(image, map, guard);
    let is_changed = newer.is_some();
    Ok(Source::Packed {
        delta,
        base,
        is_changed,
    })
}

/// What changes are made to, to keep.
pub(super) fn kept_base(
    tree: &SharedTree,
    changes: &Changes,
    map: &PageMap,
    read_for: ReadFor,
    guard: &Guard,
) -> Result<KeptPage> {
    match tree.base_image(changes, read_for, guard)? {
        BaseImage::Page(page) => {
            tree.pager.count_read(1);
            Ok(tree.pager.keep(page, map, guard))
        }
        // A leaf that a checkpoint is writing: rare, and worth a copy.
        BaseImage::Built(image) => Ok(KeptPage::Owned(OwnedPage::Cached(image.into()))),
    }
}
