//! What readers share: the root, what is durable, which pages are kept, and the way to a leaf.

use std::fmt;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crossbeam_epoch::Guard;

use super::held_files::HeldFiles;
use super::merge_cost::MergeCost;
use super::pack_cost::PackCost;
use super::readers::{Readers, Span, Spans};
use crate::btree::file::meta::Meta;
use crate::btree::file::pager::{PageRef, Pager};
use crate::btree::memory::delta::Delta;
use crate::btree::memory::node::{
    Body, Changes, Child, ChildRef, MemLeaf, Slot, is_jumbo, is_large,
};
use crate::btree::memory::slot::NodeRef;
use crate::btree::node;
use crate::btree::node::inner::Inner;
use crate::btree::node::leaf::{self, Leaf, LeafValue, Stored};
use crate::btree::node::pack::Pack;
use crate::btree::node::packs::PackedLeaf;
use crate::btree::node::{Link, NodeKind, PACK_LEVEL};
use crate::engine::{EngineHost, SnapshotTracker};
use crate::error::{Error, Result};
use crate::options::KeyspaceSettings;
use crate::resolve::Resolver;
use crate::types::{PageId, SeqNo};
use crate::util::key_prefix::common_prefix_len;
use crate::util::mutants::mutated;
use crate::values::ValueRef;

/// What readers of a tree share with its writer and its checkpoints: nodes in memory over a file.
///
/// # Thread safety
///
/// - Constant: `pager` and `resolver` (which look after themselves), `snapshot_tracker`, `host`.
/// - `root` and everything under it: changed by the holder of the writer's mutex, read by all under
///   a pin.
/// - `readers`, `held_files`, `settings`, `merge_cost`, `pack_cost`: look after themselves.
/// - Numbers are atomics; each says where it is stored.
pub(crate) struct SharedTree {
    pub(crate) pager: Pager,
    pub(crate) held_files: HeldFiles,
    settings: Arc<KeyspaceSettings>,
    pub(crate) resolver: Arc<Resolver>,
    pub(crate) snapshot_tracker: Arc<SnapshotTracker>,
    host: Arc<dyn EngineHost>,
    pub(crate) root: Slot,
    /// Counted up after each store of a node into a slot of the current tree (BF1 in
    /// [`crate::btree::write::finger`]), with the writer's mutex held.
    pub(crate) structure: AtomicU64,
    /// See [`SharedTree::take_deferred_tree`].
    has_deferred_tree: AtomicBool,
    /// Generation of the last checkpoint; stored with the writer's mutex held.
    pub(crate) disk_generation: AtomicU64,
    /// Latest operation in pages that the tree refers to, those of the file's tree and those of a
    /// bulk load; stored with the writer's mutex held, before references to those pages appear.
    pub(crate) disk_seq: AtomicU64,
    /// Views, and others that keep pages.
    readers: Readers,
    /// No point reader that began before this generation was published is still under way.
    pub(crate) quiet_generation: Arc<AtomicU64>,
    /// What scans of the current tree pay for changes that no checkpoint has written.
    pub(crate) merge_cost: MergeCost,
    /// What reads of the current tree pay for packs.
    pub(crate) pack_cost: PackCost,
    /// Why `apply` failed, if it did. The tree then holds part of a batch, which no reader may see.
    pub(crate) apply_failed: OnceLock<Error>,
}

/// Everything that readers share from the beginning.
pub(crate) struct SharedParts<'a> {
    pub(crate) pager: Pager,
    /// Those of the file's tree are held.
    pub(crate) held_files: HeldFiles,
    pub(crate) settings: Arc<KeyspaceSettings>,
    pub(crate) resolver: Arc<Resolver>,
    pub(crate) snapshot_tracker: Arc<SnapshotTracker>,
    pub(crate) host: Arc<dyn EngineHost>,
    pub(crate) meta: &'a Meta,
}

impl fmt::Debug for SharedTree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedTree")
            .field("file", &self.pager.path())
            .field("persisted_seq", &self.disk_seq)
            .finish_non_exhaustive()
    }
}

/// How to wait.
#[derive(Debug, PartialEq, Eq)]
enum Pause {
    Spin,
    Yield,
    Sleep(Duration),
}

/// How to wait after so many attempts: about as long again as all pauses so far, up to half a
/// millisecond.
fn pause(attempt: u32) -> Pause {
    match attempt {
        0..64 => Pause::Spin,
        64..72 => Pause::Yield,
        _ => Pause::Sleep(Duration::from_micros(8 << (attempt - 72).min(6))),
    }
}

/// What pages are read for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReadFor {
    /// To be looked at, by a reader or for bookkeeping.
    Use,
    /// What is in them is written anew: they are checked again (BP5 in
    /// [`crate::btree::file::pager`]).
    Rewrite,
}

/// The leaf for a key, wherever it is.
pub(crate) enum FoundLeaf<'g> {
    Memory(NodeRef<'g, MemLeaf>),
    Page(PageRef<'g>),
    /// A page and the packs with changes to it; none has been looked at.
    Packed(PackedLeaf),
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

/// A value in a leaf to which changes are made.
#[derive(Clone, Copy)]
pub(crate) enum InBase {
    /// In the leaf, of so many bytes.
    Inline(usize),
    /// In an extent of its own.
    Outside,
}

impl InBase {
    /// Bytes that it takes in the leaf, unless it is outside.
    pub(crate) fn inline_len(self) -> Option<usize> {
        match self {
            Self::Inline(len) => Some(len),
            Self::Outside => None,
        }
    }
}

/// A change in a pack.
pub(crate) struct PackSlot<'g> {
    image: PageRef<'g>,
    slot: usize,
}

impl PackSlot<'_> {
    /// The new value; none for a delete.
    pub(crate) fn value(&self) -> Option<Stored<'_>> {
        Pack::from_image(&self.image).value(self.slot)
    }
}

/// Keeps pages of the file from being reused, for a reader that holds neither a pin nor a view.
pub(crate) struct PagesKept<'t> {
    tree: &'t SharedTree,
    span: Span,
}

impl Drop for PagesKept<'_> {
    fn drop(&mut self) {
        self.tree.unregister_view(self.span);
    }
}

impl SharedTree {
    /// The tree of the file that `pager` reads, as `meta` describes it.
    pub(crate) fn new(parts: SharedParts<'_>) -> Self {
        let meta = parts.meta;
        Self {
            pager: parts.pager,
            held_files: parts.held_files,
            settings: parts.settings,
            resolver: parts.resolver,
            snapshot_tracker: parts.snapshot_tracker,
            host: parts.host,
            root: Slot::new(Child::Disk(meta.root)),
            structure: AtomicU64::new(0),
            has_deferred_tree: AtomicBool::new(false),
            disk_generation: AtomicU64::new(meta.generation),
            disk_seq: AtomicU64::new(meta.persisted_seq.0),
            readers: Readers::default(),
            quiet_generation: Arc::new(AtomicU64::new(meta.generation)),
            merge_cost: MergeCost::default(),
            pack_cost: PackCost::default(),
            apply_failed: OnceLock::new(),
        }
    }

    /// The file has so many units in nodes and values: what it costs to write all leaves whole.
    pub(crate) fn count_leaves(&self, units: u64) {
        // A leaf is three quarters full, about.
        let of_leaf = (self.pager.units_for(self.page_size()) * 3).div_ceil(4);
        self.pack_cost.set_leaves(units / of_leaf);
    }

    /// A read of the current tree paid so much for packs. Wakes a thread when it is time to write
    /// leaves whole.
    #[inline]
    pub(crate) fn pay_for_packs(&self, ns: u64) {
        if self.pack_cost.add(ns) && !mutated!("reads-that-paid-for-packs-wake-no-thread") {
            self.host.wake();
        }
    }

    /// A leaf of the file, or one that a checkpoint is writing, is about to be changed.
    pub(crate) fn count_changed_leaf(&self) {
        self.merge_cost.add_leaf();
        self.pack_cost.add_changed_leaf();
    }

    /// Puts `child` into a slot of the current tree. The caller holds the writer's mutex.
    pub(crate) fn store(&self, slot: &Slot, child: Child, guard: &Guard) {
        if slot.store(child, guard) {
            self.has_deferred_tree.store(true, Ordering::Relaxed);
        }
        self.structure.fetch_add(1, Ordering::Release);
    }

    /// True if an inner node was replaced since the last call. Then the thread that did so must not
    /// keep it in its own list of what is to be freed, where it stays until the thread has filled
    /// that list ([`Guard::flush`]). With the writer's mutex held.
    pub(crate) fn take_deferred_tree(&self) -> bool {
        self.has_deferred_tree.load(Ordering::Relaxed)
            && self.has_deferred_tree.swap(false, Ordering::Relaxed)
    }

    pub(crate) fn page_size(&self) -> usize {
        self.pager.page_size()
    }

    /// Keeps the pages that a view of the tree as it is may come to look at. With the writer's
    /// mutex held, so that no checkpoint is published meanwhile; `checkpointing` says that one is
    /// under way. Ends with [`SharedTree::unregister_view`].
    pub(crate) fn register_view(&self, checkpointing: bool) -> Span {
        let first = self.disk_generation.load(Ordering::Acquire);
        let last = first + 1 + u64::from(checkpointing);
        let span = Span {
            first,
            last: mutated!("view-reads-no-page-of-a-later-checkpoint", first, last),
        };
        self.readers.add(span);
        span
    }

    pub(crate) fn unregister_view(&self, span: Span) {
        self.readers.remove(span);
        if self.held_files.has_left() {
            self.release_files();
        }
    }

    /// Releases the value files that have left the tree and that no reader may look at (BH5).
    pub(crate) fn release_files(&self) {
        // The spans after the quiet generation: a reader gives up its pin when it has registered.
        let quiet = self.quiet_generation();
        let spans = self.reader_spans();
        self.held_files.release(|generation| {
            let is_needed = spans.needs(0, generation);
            generation <= quiet && (!is_needed || mutated!("value-file-released-under-a-view"))
        });
    }

    /// Bytes that a value takes beside its key, at most.
    pub(crate) fn stored_len(&self, key: &[u8], value: &[u8]) -> usize {
        let reference = ValueRef::len_max(value.len());
        let is_apart =
            self.settings.stores_apart(value.len()) && !is_large(key, reference, self.page_size());
        if is_apart { reference } else { value.len() }
    }

    /// Keeps the pages that were in the file's tree of generation `oldest` or any later one until
    /// now. The caller has been pinned since before it read `oldest`.
    pub(crate) fn keep_since(&self, oldest: u64) -> PagesKept<'_> {
        // References to new pages appear before their generation does.
        let last = self.disk_generation.load(Ordering::Acquire) + 1;
        let span = Span {
            first: oldest,
            last,
        };
        self.readers.add(span);
        PagesKept { tree: self, span }
    }

    /// Keeps the pages of the file's tree of generation `generation`, which is the current one
    /// because the caller holds the checkpoint lock or the writer's mutex.
    pub(crate) fn keep_generation(&self, generation: u64) -> PagesKept<'_> {
        let span = Span {
            first: generation,
            last: generation,
        };
        self.readers.add(span);
        PagesKept { tree: self, span }
    }

    /// Pages freed by checkpoints up to this one are looked at by none but the readers that
    /// [`SharedTree::reader_spans`] gives, which is asked afterwards.
    pub(crate) fn quiet_generation(&self) -> u64 {
        self.quiet_generation.load(Ordering::Acquire)
    }

    /// What readers that keep pages may look at.
    pub(crate) fn reader_spans(&self) -> Spans {
        self.readers.spans()
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
    /// publishing holds no I/O of ours and is short, unless a batch is long. So this spins a
    /// little, and then sleeps longer and longer: a reader that waits for a batch takes no
    /// processor from it.
    #[cold]
    pub(crate) fn wait_published(&self, seq: SeqNo) -> Result<()> {
        let mut attempt = 0;
        while !self.is_published(seq) {
            if let Some(error) = self.apply_failed.get() {
                return Err(error.clone());
            }
            if let Some(error) = self.snapshot_tracker.abandoned() {
                return Err(error.clone());
            }
            match pause(attempt) {
                Pause::Spin => std::hint::spin_loop(),
                Pause::Yield => std::thread::yield_now(),
                Pause::Sleep(time) => std::thread::sleep(time),
            }
            attempt += 1;
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
        let choose = |node: Inner<'_>| node.find_child(key);
        self.descend(root, None, choose, ReadFor::Use, guard)
    }

    /// Loads a leaf of the file and its packs into memory: all that a change of it looks at.
    pub(crate) fn load_packed(&self, leaf: &PackedLeaf, guard: &Guard) -> Result<()> {
        let packs = leaf.packs.as_slice();
        self.ask_for(leaf, guard);
        let image = self.disk_node(leaf.page, Some(0), guard)?;
        self.pager.touch_whole(&image, guard);
        for link in packs {
            let image = self.disk_pack(*link, guard)?;
            self.pager.touch_whole(&image, guard);
        }
        Ok(())
    }

    /// Checks a leaf of the file and its packs again (BP5), for a change that will write them anew:
    /// so that damage is an error before the commit is in the log.
    pub(crate) fn check_again(&self, leaf: &PackedLeaf, guard: &Guard) -> Result<()> {
        if !self.pager.is_mapped(guard) {
            return Ok(());
        }
        self.disk_node_to_rewrite(leaf.page, Some(0), guard)?;
        for link in leaf.packs.as_slice() {
            self.disk_pack_for(*link, ReadFor::Rewrite, guard)?;
        }
        Ok(())
    }

    /// Asks for the pages of a leaf of the file and its packs, and does not wait for them.
    pub(crate) fn ask_for(&self, leaf: &PackedLeaf, guard: &Guard) {
        self.pager.will_need(leaf.page, guard);
        for link in leaf.packs.as_slice() {
            self.pager.will_need(*link, guard);
        }
    }

    /// The leaf under `child`, which is at `level` (if that is known), to which `choose` leads, and
    /// how many pages of the file were looked at.
    #[inline]
    pub(crate) fn descend<'g>(
        &'g self,
        mut child: ChildRef<'g>,
        mut level: Option<u8>,
        choose: impl Fn(Inner<'_>) -> usize,
        read_for: ReadFor,
        guard: &'g Guard,
    ) -> Result<(FoundLeaf<'g>, u64)> {
        let mut pages = 0;
        loop {
            match child {
                ChildRef::Leaf(leaf) => return Ok((FoundLeaf::Memory(leaf), pages)),
                ChildRef::Inner(inner) => {
                    let inner = inner.get();
                    let node = inner.node();
                    level = node.level().checked_sub(1);
                    let i = choose(node);
                    child = inner.slots[i].load(guard);
                    if let ChildRef::Disk(page) = child
                        && let Some(leaf) = inner.packed(i, page)
                    {
                        return Ok((FoundLeaf::Packed(leaf), pages));
                    }
                }
                ChildRef::Disk(link) => {
                    let image = self.disk_node_for(link, level, read_for, guard)?;
                    pages += self.pager.pages_of(&image);
                    if node::kind(&image) == Some(NodeKind::Leaf) {
                        return Ok((FoundLeaf::Page(image), pages));
                    }
                    let inner = Inner::from_image(&image);
                    level = inner.level().checked_sub(1);
                    let i = choose(inner);
                    if let Some(leaf) = inner.packed(i) {
                        return Ok((FoundLeaf::Packed(leaf), pages));
                    }
                    child = ChildRef::Disk(inner.child(i));
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

    /// The same, read for this.
    #[inline]
    pub(crate) fn disk_node_for<'g>(
        &'g self,
        link: Link,
        level: Option<u8>,
        read_for: ReadFor,
        guard: &'g Guard,
    ) -> Result<PageRef<'g>> {
        match read_for {
            ReadFor::Use => self.disk_node(link, level, guard),
            ReadFor::Rewrite => self.disk_node_to_rewrite(link, level, guard),
        }
    }

    /// The same, of which the bytes will be written anew (BP5).
    #[inline(never)]
    pub(crate) fn disk_node_to_rewrite<'g>(
        &'g self,
        link: Link,
        level: Option<u8>,
        guard: &'g Guard,
    ) -> Result<PageRef<'g>> {
        let image = self.pager.node_to_rewrite(link, guard)?;
        self.check_level(&image, link.page(), level)?;
        Ok(image)
    }

    /// The pack that `link` means.
    pub(crate) fn disk_pack<'g>(&'g self, link: Link, guard: &'g Guard) -> Result<PageRef<'g>> {
        self.disk_pack_for(link, ReadFor::Use, guard)
    }

    fn disk_pack_for<'g>(
        &'g self,
        link: Link,
        read_for: ReadFor,
        guard: &'g Guard,
    ) -> Result<PageRef<'g>> {
        let image = match read_for {
            ReadFor::Use => self.pager.node(link, guard)?,
            ReadFor::Rewrite => self.pager.node_to_rewrite(link, guard)?,
        };
        if node::kind(&image) == Some(NodeKind::Pack) {
            return Ok(image);
        }
        let what = "there is another node where a pack was referred to";
        Err(self.pager.damaged(link.page(), what))
    }

    /// The changes that packs hold for `leaf`, whose image this is.
    pub(crate) fn packed_changes(
        &self,
        leaf: &PackedLeaf,
        image: &[u8],
        read_for: ReadFor,
        guard: &Guard,
    ) -> Result<Delta> {
        let mut upper = Vec::new();
        let (lower, upper) = Leaf::from_image(image).fences(&mut upper);
        self.changes_between(leaf, lower, upper, read_for, guard)
    }

    /// The same for a leaf between these fences.
    pub(crate) fn changes_between(
        &self,
        leaf: &PackedLeaf,
        lower: &[u8],
        upper: Option<&[u8]>,
        read_for: ReadFor,
        guard: &Guard,
    ) -> Result<Delta> {
        let prefix_len = upper.map_or(0, |upper| common_prefix_len(lower, upper));
        let mut changes = Delta::new(prefix_len);
        let mut key = Vec::new();
        let oldest_last = mutated!("older-pack-wins");
        let links = leaf.packs.as_slice();
        self.pager.read_ahead(links, guard);
        for n in 0..links.len() {
            let link = links[if oldest_last { links.len() - 1 - n } else { n }];
            let image = self.disk_pack_for(link, read_for, guard)?;
            let pack = Pack::from_image(&image);
            if !pack.spans(lower, upper) {
                let what = "a pack ends before a leaf to which it is said to have changes";
                return Err(self.pager.damaged(link.page(), what));
            }
            for i in pack.range(lower, upper) {
                key.clear();
                key.extend_from_slice(pack.prefix());
                key.extend_from_slice(pack.key_suffix(i));
                changes.set(changes.search(&key), &key, pack.value(i));
            }
        }
        Ok(changes)
    }

    /// The newest change that packs hold to `key` of `leaf`, and how many pages were looked at.
    pub(crate) fn newest_in_packs<'g>(
        &'g self,
        leaf: &PackedLeaf,
        key: &[u8],
        guard: &'g Guard,
    ) -> Result<(Option<PackSlot<'g>>, u64)> {
        let mut packs = 0;
        self.pager.read_ahead(leaf.packs.as_slice(), guard);
        for link in leaf.packs.as_slice().iter().rev() {
            let image = self.disk_pack(*link, guard)?;
            packs += self.pager.pages_of(&image);
            if let Ok(slot) = Pack::from_image(&image).search(key) {
                return Ok((Some(PackSlot { image, slot }), packs));
            }
        }
        Ok((None, packs))
    }

    /// The whole image of a leaf of the file with the changes that packs hold for it. It may be
    /// written anew (BP5).
    pub(crate) fn packed_image(&self, leaf: &PackedLeaf, guard: &Guard) -> Result<Box<[u8]>> {
        let base = self.disk_node_to_rewrite(leaf.page, Some(0), guard)?;
        let changes = self.packed_changes(leaf, &base, ReadFor::Rewrite, guard)?;
        self.check_merged(leaf::merged(&base, changes.iter(), self.page_size()))
    }

    /// A leaf that was merged is no longer than a page.
    fn check_merged(&self, image: Box<[u8]>) -> Result<Box<[u8]>> {
        if is_jumbo(&image, self.page_size()) {
            let what = "the leaf has less free space than its header says";
            return Err(self.pager.damaged(node::page_id(&image), what));
        }
        Ok(image)
    }

    #[inline]
    pub(crate) fn check_level(&self, image: &[u8], page: PageId, level: Option<u8>) -> Result<()> {
        let found = node::level(image);
        if level.map_or(found == PACK_LEVEL, |level| level != found) {
            return Err(self.pager.damaged(
                page,
                "the node is not at the level where it was referred to",
            ));
        }
        Ok(())
    }

    /// The whole image of a leaf in memory, merged if it is changes over a page. It may be written
    /// anew (BP5).
    pub(crate) fn merged_image(&self, changes: &Changes, guard: &Guard) -> Result<Box<[u8]>> {
        let base = self.base_image(changes, ReadFor::Rewrite, guard)?;
        self.check_merged(changes.merged(&base, self.page_size()))
    }

    /// The image that the changes are made to.
    pub(crate) fn base_image<'g>(
        &'g self,
        changes: &'g Changes,
        read_for: ReadFor,
        guard: &'g Guard,
    ) -> Result<BaseImage<'g>> {
        match changes.base(guard) {
            ChildRef::Disk(link) => {
                let page = self.disk_node_for(link, Some(0), read_for, guard)?;
                Ok(BaseImage::Page(page))
            }
            ChildRef::Leaf(frozen) => Ok(BaseImage::Built(match &frozen.read().body {
                Body::Whole { image, .. } => image.clone(),
                Body::Changes(below) => self.merged_image(below, guard)?,
                Body::Packed(leaf) => self.packed_image(leaf, guard)?,
            })),
            ChildRef::Inner(_) => unreachable!("changes lie over leaves"),
        }
    }

    /// What `base`, to which changes are made, has under `key`, if anything.
    pub(crate) fn look_in_base(
        &self,
        base: ChildRef<'_>,
        key: &[u8],
        guard: &Guard,
    ) -> Result<Option<InBase>> {
        match base {
            ChildRef::Disk(link) => Ok(in_image(&self.disk_node(link, Some(0), guard)?, key)),
            ChildRef::Leaf(frozen) => match &frozen.read().body {
                Body::Whole { image, .. } => Ok(in_image(image, key)),
                Body::Changes(below) => match below.delta.search(key) {
                    Ok(i) => Ok(below
                        .delta
                        .get(i)
                        .1
                        .map(|value| InBase::Inline(value.len()))),
                    Err(_) => self.look_in_base(below.base(guard), key, guard),
                },
                Body::Packed(leaf) => self.look_in_packed(leaf, key, guard),
            },
            ChildRef::Inner(_) => Ok(None),
        }
    }

    /// The same in a leaf of the file and its packs.
    pub(crate) fn look_in_packed(
        &self,
        leaf: &PackedLeaf,
        key: &[u8],
        guard: &Guard,
    ) -> Result<Option<InBase>> {
        match self.newest_in_packs(leaf, key, guard)?.0 {
            Some(change) => Ok(change.value().map(|value| InBase::Inline(value.len()))),
            None => Ok(in_image(&self.disk_node(leaf.page, Some(0), guard)?, key)),
        }
    }
}

/// What the leaf in `image` has under `key`, if anything.
fn in_image(image: &[u8], key: &[u8]) -> Option<InBase> {
    let leaf = Leaf::from_image(image);
    let slot = leaf.search(key).ok()?;
    Some(match leaf.value(slot) {
        LeafValue::Inline(bytes) | LeafValue::Apart(bytes) => InBase::Inline(bytes.len()),
        LeafValue::Overflow { .. } => InBase::Outside,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_wait_spins_no_more_than_a_moment() {
        let spins = (0..10_000).filter(|attempt| pause(*attempt) == Pause::Spin);
        assert_eq!(spins.count(), 64);
        let slept: Duration = (0..200)
            .filter_map(|attempt| match pause(attempt) {
                Pause::Sleep(time) => Some(time),
                _ => None,
            })
            .sum();
        assert!(slept > Duration::from_millis(50), "{slept:?}");
    }
}
