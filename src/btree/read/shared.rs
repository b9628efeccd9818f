//! What readers share: the root, what is durable, which views there are, and point reads.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use crossbeam_epoch::Guard;
use parking_lot::Mutex;

use crate::btree::file::meta::Meta;
use crate::btree::file::pager::{PageRef, Pager};
use crate::btree::memory::node::{
    Body, Changes, Child, ChildRef, LargeValue, LeafState, MemLeaf, Slot, find_large,
    pending_number,
};
use crate::btree::memory::slot::NodeRef;
use crate::btree::node;
use crate::btree::node::inner::Inner;
use crate::btree::node::leaf::{Leaf, LeafValue};
use crate::btree::node::{Link, NodeKind};
use crate::engine::SnapshotTracker;
use crate::error::{Error, Result};
use crate::types::{PageId, SeqNo};

/// What readers of a tree share with its writer and its checkpoints: nodes in memory over a file.
///
/// # Thread safety
///
/// - Constant: `pager` (which looks after itself), `snapshot_tracker`.
/// - `root` and everything under it: changed by the holder of the writer's mutex, read by all under
///   a pin.
/// - `views`: locked for moments.
/// - Numbers are atomics; each says where it is stored.
pub(crate) struct SharedTree {
    pub(crate) pager: Pager,
    snapshot_tracker: Arc<SnapshotTracker>,
    pub(crate) root: Slot,
    /// Generation of the last checkpoint; stored with the writer's mutex held.
    pub(crate) disk_generation: AtomicU64,
    /// Latest operation in the file's tree; stored with the writer's mutex held, before references
    /// to those pages appear.
    pub(crate) disk_seq: AtomicU64,
    /// Views by the generation of the file that they may read, and how many.
    views: Mutex<BTreeMap<u64, usize>>,
    /// No point reader that began before this generation was published is still under way.
    pub(crate) quiet_generation: Arc<AtomicU64>,
    /// Why `apply` failed, if it did. The tree then holds part of a batch, which no reader may see.
    pub(crate) apply_failed: OnceLock<Error>,
}

impl fmt::Debug for SharedTree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedTree")
            .field("file", &self.pager.path())
            .field("persisted_seq", &self.disk_seq)
            .finish_non_exhaustive()
    }
}

/// The leaf for a key, wherever it is.
pub(crate) enum FoundLeaf<'g> {
    Memory(NodeRef<'g, MemLeaf>),
    Page(PageRef<'g>),
}

/// The image that changes are made to.
pub(crate) enum BaseImage<'g> {
    Page(PageRef<'g>),
    /// Of a frozen leaf.
    Built(Box<[u8]>),
}

impl Deref for BaseImage<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Page(page) => page,
            Self::Built(image) => image,
        }
    }
}

/// Where the value of a key is.
pub(crate) enum ValuePlace {
    /// It was in memory and has been read.
    Read,
    /// The key has none.
    Nowhere,
    Large(Arc<LargeValue>),
    Extent {
        page: PageId,
        len: u32,
        checksum: u32,
    },
    /// In this page, if anywhere.
    InPage(Link),
}

/// Reads the value of `key` if the leaf has it in memory, or says where to look.
#[inline]
pub(crate) fn find_in_state(
    state: &LeafState,
    key: &[u8],
    read: &mut dyn FnMut(&[u8]),
    guard: &Guard,
) -> ValuePlace {
    match &state.body {
        Body::Whole { image, large } => {
            let leaf = Leaf::from_image(image);
            let Ok(slot) = leaf.search(key) else {
                return ValuePlace::Nowhere;
            };
            match leaf.value(slot) {
                LeafValue::Inline(bytes) => {
                    read(bytes);
                    ValuePlace::Read
                }
                LeafValue::Overflow {
                    page,
                    len,
                    checksum,
                } => match pending_number(page) {
                    Some(number) => {
                        let value = find_large(large, number).expect("beside its reference");
                        ValuePlace::Large(Arc::clone(value))
                    }
                    None => ValuePlace::Extent {
                        page,
                        len,
                        checksum,
                    },
                },
            }
        }
        Body::Changes(changes) => match changes.delta.search(key) {
            Ok(i) => match changes.delta.get(i).1 {
                Some(value) => {
                    read(value);
                    ValuePlace::Read
                }
                None => ValuePlace::Nowhere,
            },
            Err(_) => match changes.base(guard) {
                ChildRef::Disk(link) => ValuePlace::InPage(link),
                ChildRef::Leaf(frozen) => find_in_state(&frozen.read(), key, read, guard),
                ChildRef::Inner(_) => ValuePlace::Nowhere,
            },
        },
    }
}

impl SharedTree {
    /// The tree of the file that `pager` reads, as `meta` describes it.
    pub(crate) fn new(pager: Pager, snapshot_tracker: Arc<SnapshotTracker>, meta: &Meta) -> Self {
        Self {
            pager,
            snapshot_tracker,
            root: Slot::new(Child::Disk(meta.root)),
            disk_generation: AtomicU64::new(meta.generation),
            disk_seq: AtomicU64::new(meta.persisted_seq.0),
            views: Mutex::default(),
            quiet_generation: Arc::new(AtomicU64::new(meta.generation)),
            apply_failed: OnceLock::new(),
        }
    }

    pub(crate) fn page_size(&self) -> usize {
        self.pager.page_size()
    }

    /// Keeps every page that the file's tree has now from being reused. With the writer's mutex
    /// held, so that no checkpoint is published meanwhile.
    pub(crate) fn register_view(&self) -> u64 {
        let generation = self.disk_generation.load(Ordering::Acquire);
        *self.views.lock().entry(generation).or_insert(0) += 1;
        generation
    }

    pub(crate) fn unregister_view(&self, generation: u64) {
        let mut views = self.views.lock();
        if let Some(count) = views.get_mut(&generation) {
            *count -= 1;
            if *count == 0 {
                views.remove(&generation);
            }
        }
    }

    /// No reader can reach pages freed by checkpoints up to the one returned.
    pub(crate) fn reusable_generation(&self) -> u64 {
        let quiet = self.quiet_generation.load(Ordering::Acquire);
        match self.views.lock().keys().next() {
            Some(oldest) => quiet.min(*oldest),
            None => quiet,
        }
    }

    /// The last operation that may be seen.
    pub(crate) fn published(&self) -> SeqNo {
        self.snapshot_tracker.published()
    }

    /// True if every operation up to `seq` may be seen.
    #[inline]
    pub(crate) fn is_published(&self, seq: SeqNo) -> bool {
        seq <= self.snapshot_tracker.published()
    }

    /// Waits until every operation up to `seq` may be seen (E4). The gap between applying and
    /// publishing holds no I/O of ours, so this spins before it yields.
    #[cold]
    pub(crate) fn wait_published(&self, seq: SeqNo) -> Result<()> {
        let mut spins = 0_u32;
        while !self.is_published(seq) {
            if let Some(error) = self.apply_failed.get() {
                return Err(error.clone());
            }
            if let Some(error) = self.snapshot_tracker.abandoned() {
                return Err(error.clone());
            }
            spins += 1;
            if spins < 64 {
                std::hint::spin_loop();
                continue;
            }
            std::thread::yield_now();
        }
        Ok(())
    }

    /// The leaf under `root` that covers `key`, and how many pages of the file were looked at.
    #[inline]
    pub(crate) fn find_leaf<'g>(
        &'g self,
        root: ChildRef<'g>,
        key: &[u8],
        guard: &'g Guard,
    ) -> Result<(FoundLeaf<'g>, u64)> {
        self.descend(root, |node| node.find_child(key), guard)
    }

    /// The leaf under `root` to which `choose` leads, and how many pages of the file were looked
    /// at.
    #[inline]
    pub(crate) fn descend<'g>(
        &'g self,
        root: ChildRef<'g>,
        choose: impl Fn(Inner<'_>) -> usize,
        guard: &'g Guard,
    ) -> Result<(FoundLeaf<'g>, u64)> {
        let mut child = root;
        let mut level = None;
        let mut pages = 0;
        loop {
            match child {
                ChildRef::Leaf(leaf) => return Ok((FoundLeaf::Memory(leaf), pages)),
                ChildRef::Inner(inner) => {
                    let inner = inner.get();
                    let node = inner.node();
                    level = node.level().checked_sub(1);
                    child = inner.slots[choose(node)].load(guard);
                }
                ChildRef::Disk(link) => {
                    let image = self.disk_node(link, level, guard)?;
                    pages += 1;
                    if node::kind(&image) == Some(NodeKind::Leaf) {
                        return Ok((FoundLeaf::Page(image), pages));
                    }
                    let inner = Inner::from_image(&image);
                    level = inner.level().checked_sub(1);
                    child = ChildRef::Disk(inner.child(choose(inner)));
                }
            }
        }
    }

    /// The node that `link` means, which must be at `level` (if given): so a descent ends, whatever
    /// damaged or hostile pages say.
    #[inline]
    pub(crate) fn disk_node<'g>(
        &'g self,
        link: Link,
        level: Option<u8>,
        guard: &'g Guard,
    ) -> Result<PageRef<'g>> {
        let image = self.pager.node(link, guard)?;
        self.check_level(&image, link.page(), level)?;
        Ok(image)
    }

    #[inline]
    pub(crate) fn check_level(&self, image: &[u8], page: PageId, level: Option<u8>) -> Result<()> {
        if level.is_some_and(|level| level != node::level(image)) {
            return Err(self.pager.damaged(
                page,
                "the node is not at the level where it was referred to",
            ));
        }
        Ok(())
    }

    /// As [`crate::engine::Engine::get`]. `Ok(None)` if the answer may not be seen yet: try again
    /// after [`SharedTree::wait_published`] of the number.
    #[inline]
    pub(crate) fn try_get(
        &self,
        key: &[u8],
        published: Option<SeqNo>,
        read: &mut dyn FnMut(&[u8]),
        guard: &Guard,
    ) -> Result<Result<bool, SeqNo>> {
        let (found, pages) = self.find_leaf(self.root.load(guard), key, guard)?;
        self.pager.count_read(pages);
        match found {
            FoundLeaf::Memory(leaf) => {
                let state = leaf.read();
                let seen = published.unwrap_or_else(|| self.snapshot_tracker.published());
                if state.last_seq > seen {
                    return Ok(Err(state.last_seq));
                }
                let place = find_in_state(&state, key, read, guard);
                drop(state);
                self.finish_read(place, key, read, guard).map(Ok)
            }
            FoundLeaf::Page(image) => {
                // After the reference was loaded: `disk_seq` was stored before the reference.
                let disk_seq = SeqNo(self.disk_seq.load(Ordering::Acquire));
                let seen = published.unwrap_or_else(|| self.snapshot_tracker.published());
                if disk_seq > seen {
                    return Ok(Err(disk_seq));
                }
                self.read_page(&image, key, read, guard).map(Ok)
            }
        }
    }

    /// Reads what [`find_in_state`] did not find in memory. The leaf is no longer locked: this may
    /// take I/O, which the writer must not wait for. Pages stay as they are while `guard` is
    /// pinned.
    #[inline]
    pub(crate) fn finish_read(
        &self,
        place: ValuePlace,
        key: &[u8],
        read: &mut dyn FnMut(&[u8]),
        guard: &Guard,
    ) -> Result<bool> {
        match place {
            ValuePlace::Read => {}
            ValuePlace::Nowhere => return Ok(false),
            ValuePlace::Large(value) => read(&value.bytes),
            ValuePlace::Extent {
                page,
                len,
                checksum,
            } => self.pager.overflow(page, len, checksum, guard, read)?,
            ValuePlace::InPage(link) => {
                let image = self.disk_node(link, Some(0), guard)?;
                self.pager.count_read(1);
                return self.read_page(&image, key, read, guard);
            }
        }
        Ok(true)
    }

    /// The value of `key` in a leaf of the file.
    #[inline]
    pub(crate) fn read_page(
        &self,
        image: &[u8],
        key: &[u8],
        read: &mut dyn FnMut(&[u8]),
        guard: &Guard,
    ) -> Result<bool> {
        let leaf = Leaf::from_image(image);
        let Ok(slot) = leaf.search(key) else {
            return Ok(false);
        };
        match leaf.value(slot) {
            LeafValue::Inline(bytes) => read(bytes),
            LeafValue::Overflow {
                page,
                len,
                checksum,
            } => self.pager.overflow(page, len, checksum, guard, read)?,
        }
        Ok(true)
    }

    /// The whole image of a leaf in memory, merged if it is changes over a page.
    pub(crate) fn merged_image(&self, changes: &Changes, guard: &Guard) -> Result<Box<[u8]>> {
        let base = self.base_image(changes, guard)?;
        changes.merged(&base).map_err(|node::Full| {
            self.pager.damaged(
                node::page_id(&base),
                "the leaf has less free space than its header says",
            )
        })
    }

    /// The image that the changes are made to.
    pub(crate) fn base_image<'g>(
        &'g self,
        changes: &'g Changes,
        guard: &'g Guard,
    ) -> Result<BaseImage<'g>> {
        match changes.base(guard) {
            ChildRef::Disk(link) => Ok(BaseImage::Page(self.disk_node(link, Some(0), guard)?)),
            ChildRef::Leaf(frozen) => Ok(BaseImage::Built(match &frozen.read().body {
                Body::Whole { image, .. } => image.clone(),
                Body::Changes(below) => self.merged_image(below, guard)?,
            })),
            ChildRef::Inner(_) => unreachable!("changes lie over leaves"),
        }
    }

    /// Length of the value of `key` in what changes are made to, unless it is an overflow value.
    pub(crate) fn length_in_base(
        &self,
        base: ChildRef<'_>,
        key: &[u8],
        guard: &Guard,
    ) -> Result<Option<usize>> {
        let in_image = |image: &[u8]| {
            let leaf = Leaf::from_image(image);
            match leaf.search(key).map(|slot| leaf.value(slot)) {
                Ok(LeafValue::Inline(bytes)) => Some(bytes.len()),
                _ => None,
            }
        };
        match base {
            ChildRef::Disk(link) => Ok(in_image(&self.disk_node(link, Some(0), guard)?)),
            ChildRef::Leaf(frozen) => match &frozen.read().body {
                Body::Whole { image, .. } => Ok(in_image(image)),
                Body::Changes(below) => match below.delta.search(key) {
                    Ok(i) => Ok(below.delta.get(i).1.map(<[u8]>::len)),
                    Err(_) => self.length_in_base(below.base(guard), key, guard),
                },
            },
            ChildRef::Inner(_) => Ok(None),
        }
    }
}
