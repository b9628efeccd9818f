//! The tree that everybody shares: the root, what is durable, who looks at it, and point reads.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use crossbeam_epoch::Guard;
use parking_lot::Mutex;

use super::checkpoint::Checkpointer;
use super::latest::Latest;
use super::mem::{Body, Changes, LargeValue, LeafState, MemLeaf, find_large, pending_number};
use super::node;
use super::node::inner::Inner;
use super::node::leaf::{Leaf, LeafValue};
use super::node::{Link, NodeKind};
use super::pager::{PageRef, Pager};
use super::slot::{Child, ChildRef, NodeRef, Slot};
use super::writer::Writer;
use crate::engine::{EngineHost, LevelStats, SnapshotTracker};
use crate::error::{Error, Result};
use crate::options::KeyspaceSettings;
use crate::types::{PageId, SeqNo};

/// Inner pages that are looked at for figures.
const COUNTED_PAGES_MAX: u32 = 4096;

/// A B-tree: nodes in memory over a file.
///
/// # Thread safety
///
/// - Constant: `pager` (which looks after itself), `visibility`, `front`, `settings`, `read_only`.
/// - `root` and everything under it: changed by the holder of `writer`, read by all under a pin.
/// - `writer`: held by `apply`, and for moments by whoever seals or publishes. Never held over I/O.
/// - `checkpointer`: held for a whole checkpoint, over I/O; never waited for by reads or `apply`.
///   Locked before `writer`.
/// - `latest`: its shards are locked for moments, after `writer` or alone.
/// - Counters are atomics; each says who stores it.
pub(super) struct Tree {
    pub(super) pager: Pager,
    pub(super) snapshot_tracker: Arc<SnapshotTracker>,
    pub(super) host: Arc<dyn EngineHost>,
    /// Size that memory for changes should not exceed.
    pub(super) settings: Arc<KeyspaceSettings>,
    pub(super) read_only: bool,

    pub(super) root: Slot,
    pub(super) writer: Mutex<Writer>,
    pub(super) latest: Latest,
    pub(super) checkpointer: Mutex<Checkpointer>,

    /// Generation of the last checkpoint; stored with `writer` held.
    pub(super) disk_generation: AtomicU64,
    /// Link to the root of the file's tree; stored with `writer` held.
    pub(super) disk_root: AtomicU64,
    /// Latest operation in the file's tree; stored with `writer` held, before references to
    /// those pages appear.
    pub(super) disk_seq: AtomicU64,
    /// First operation that is not in the file's tree, 0 for none; stored with `writer` held.
    pub(super) oldest_unpersisted: AtomicU64,
    /// Bytes of the nodes in memory that the next checkpoint writes; stored with `writer` held.
    pub(super) dirty_bytes: AtomicU64,
    /// Views by the generation of the file that they may read, and how many.
    views: Mutex<BTreeMap<u64, usize>>,
    /// No point reader that began before this generation was published is still under way.
    pub(super) quiet_generation: Arc<AtomicU64>,
    /// Why `apply` failed, if it did. The tree then holds part of a batch, which nobody may see.
    pub(super) apply_failed: OnceLock<Error>,
    pub(super) counters: Counters,
}

/// Figures since open.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) checkpoint_bytes: AtomicU64,
    pub(super) checkpoints: AtomicU64,
    pub(super) compaction_bytes: AtomicU64,
    pub(super) compactions: AtomicU64,
    pub(super) entries: AtomicU64,
    pub(super) free_pages: AtomicU64,
    pub(super) height: AtomicU64,
    /// The front was told that a checkpoint is due; it is not told again before one begins.
    pub(super) woken: AtomicBool,
}

impl fmt::Debug for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tree")
            .field("file", &self.pager.path())
            .field("persisted_seq", &self.disk_seq)
            .finish_non_exhaustive()
    }
}

/// Everything that opening a file finds out.
pub(super) struct TreeParts {
    pub(super) pager: Pager,
    pub(super) snapshot_tracker: Arc<SnapshotTracker>,
    pub(super) host: Arc<dyn EngineHost>,
    pub(super) settings: Arc<KeyspaceSettings>,
    pub(super) read_only: bool,
    pub(super) checkpointer: Checkpointer,
}

/// The leaf for a key, wherever it is.
pub(super) enum FoundLeaf<'g> {
    Memory(NodeRef<'g, MemLeaf>),
    Page(PageRef<'g>),
}

/// The image that changes are made to.
pub(super) enum BaseImage<'g> {
    Page(PageRef<'g>),
    /// Of a sealed leaf.
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
pub(super) enum ValuePlace {
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
pub(super) fn find_in_state(
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
                ChildRef::Leaf(sealed) => find_in_state(&sealed.read(), key, read, guard),
                ChildRef::Inner(_) => ValuePlace::Nowhere,
            },
        },
    }
}

impl Tree {
    pub(super) fn new(parts: TreeParts) -> Self {
        let meta = parts.checkpointer.meta().clone();
        let counters = Counters::default();
        counters.entries.store(meta.entries, Ordering::Relaxed);
        counters
            .height
            .store(u64::from(meta.height), Ordering::Relaxed);
        counters
            .free_pages
            .store(parts.checkpointer.free_pages(), Ordering::Relaxed);
        Self {
            pager: parts.pager,
            snapshot_tracker: parts.snapshot_tracker,
            host: parts.host,
            settings: parts.settings,
            read_only: parts.read_only,
            root: Slot::new(Child::Disk(meta.root)),
            writer: Mutex::new(Writer::new(meta.persisted_seq)),
            latest: Latest::default(),
            checkpointer: Mutex::new(parts.checkpointer),
            disk_generation: AtomicU64::new(meta.generation),
            disk_root: AtomicU64::new(meta.root.bits()),
            disk_seq: AtomicU64::new(meta.persisted_seq.0),
            oldest_unpersisted: AtomicU64::new(0),
            dirty_bytes: AtomicU64::new(0),
            views: Mutex::default(),
            quiet_generation: Arc::new(AtomicU64::new(meta.generation)),
            apply_failed: OnceLock::new(),
            counters,
        }
    }

    pub(super) fn page_size(&self) -> usize {
        self.pager.page_size()
    }

    /// Pages per level of the file's tree, from the root, without looking at leaves. `None` if it has too many
    /// inner pages to look at for a figure, or one cannot be read.
    pub(super) fn count_levels(&self) -> Option<Vec<LevelStats>> {
        // Registered like a view, so that no page of the tree is reused meanwhile.
        let (generation, root) = {
            let _writer = self.writer.lock();
            let root = Link::from_bits(self.disk_root.load(Ordering::Acquire));
            (self.register_view(), root)
        };
        let levels = self.count_levels_below(root);
        self.unregister_view(generation);
        levels
    }

    fn count_levels_below(&self, root: Link) -> Option<Vec<LevelStats>> {
        let page_size = self.page_size() as u64;
        let level_of = |pages: u64| LevelStats {
            files: pages,
            bytes: pages * page_size,
        };
        let mut levels = Vec::new();
        let mut row = vec![root];
        let mut looked_at = 0;
        loop {
            let mut below = Vec::new();
            let mut pages = 0;
            let mut leaves = 0;
            for link in row {
                let guard = crossbeam_epoch::pin();
                let image = self.disk_node(link, None, &guard).ok()?;
                pages += u64::from(node::page_count(&image));
                looked_at += 1;
                if looked_at > COUNTED_PAGES_MAX {
                    return None;
                }
                if node::kind(&image) == Some(NodeKind::Leaf) {
                    continue;
                }
                let inner = Inner::from_image(&image);
                if inner.level() == 1 {
                    leaves += inner.child_count() as u64;
                } else {
                    below.extend((0..inner.child_count()).map(|i| inner.child(i)));
                }
            }
            levels.push(level_of(pages));
            if leaves > 0 {
                levels.push(level_of(leaves));
            }
            if below.is_empty() {
                return Some(levels);
            }
            row = below;
        }
    }

    /// The last operation applied.
    pub(super) fn applied(&self) -> SeqNo {
        self.writer.lock().applied
    }

    /// Keeps every page that the file's tree has now from being reused. With `writer` held, so
    /// that no checkpoint is published meanwhile.
    pub(super) fn register_view(&self) -> u64 {
        let generation = self.disk_generation.load(Ordering::Acquire);
        *self.views.lock().entry(generation).or_insert(0) += 1;
        generation
    }

    pub(super) fn unregister_view(&self, generation: u64) {
        let mut views = self.views.lock();
        if let Some(count) = views.get_mut(&generation) {
            *count -= 1;
            if *count == 0 {
                views.remove(&generation);
            }
        }
    }

    /// Pages freed by checkpoints up to the one returned can be reached by nobody.
    pub(super) fn reusable_generation(&self) -> u64 {
        let quiet = self.quiet_generation.load(Ordering::Acquire);
        match self.views.lock().keys().next() {
            Some(oldest) => quiet.min(*oldest),
            None => quiet,
        }
    }

    /// True if every operation up to `seq` may be seen.
    #[inline]
    pub(super) fn is_published(&self, seq: SeqNo) -> bool {
        seq <= self.snapshot_tracker.published()
    }

    /// Waits until every operation up to `seq` may be seen (E4). The gap between applying and
    /// publishing holds no I/O of ours, so this spins before it yields.
    #[cold]
    pub(super) fn wait_published(&self, seq: SeqNo) -> Result<()> {
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
    pub(super) fn find_leaf<'g>(
        &'g self,
        root: ChildRef<'g>,
        key: &[u8],
        guard: &'g Guard,
    ) -> Result<(FoundLeaf<'g>, u64)> {
        self.descend(root, |node| node.find_child(key), guard)
    }

    /// The leaf under `root` to which `choose` leads, and how many pages of the file were looked at.
    #[inline]
    pub(super) fn descend<'g>(
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
    pub(super) fn disk_node<'g>(
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
    pub(super) fn check_level(&self, image: &[u8], page: PageId, level: Option<u8>) -> Result<()> {
        if level.is_some_and(|level| level != node::level(image)) {
            return Err(self.pager.damaged(
                page,
                "the node is not at the level where it was referred to",
            ));
        }
        Ok(())
    }

    /// As [`crate::engine::Engine::get`]. `Ok(None)` if the answer may not be seen yet: try again after
    /// [`Tree::wait_published`] of the number.
    #[inline]
    pub(super) fn try_get(
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

    /// Reads what [`find_in_state`] did not find in memory. The leaf is no longer locked: this may take
    /// I/O, which the writer must not wait for. Pages stay as they are while `guard` is pinned.
    #[inline]
    pub(super) fn finish_read(
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
    pub(super) fn read_page(
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
    pub(super) fn merged_image(&self, changes: &Changes, guard: &Guard) -> Result<Box<[u8]>> {
        let base = self.base_image(changes, guard)?;
        changes.merged(&base).map_err(|node::Full| {
            self.pager
                .damaged(node::page_id(&base), "the leaf has less room than it said")
        })
    }

    /// The image that the changes are made to.
    pub(super) fn base_image<'g>(
        &'g self,
        changes: &'g Changes,
        guard: &'g Guard,
    ) -> Result<BaseImage<'g>> {
        match changes.base(guard) {
            ChildRef::Disk(link) => Ok(BaseImage::Page(self.disk_node(link, Some(0), guard)?)),
            ChildRef::Leaf(sealed) => Ok(BaseImage::Built(match &sealed.read().body {
                Body::Whole { image, .. } => image.clone(),
                Body::Changes(below) => self.merged_image(below, guard)?,
            })),
            ChildRef::Inner(_) => unreachable!("changes lie over leaves"),
        }
    }

    /// Length of the value of `key` in what changes are made to, unless it is an overflow value.
    pub(super) fn length_in_base(
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
            ChildRef::Leaf(sealed) => match &sealed.read().body {
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
