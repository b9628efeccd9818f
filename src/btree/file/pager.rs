//! Reading pages of the file: from its memory map, or through the block cache.
//!
//! # Invariants
//!
//! - **BP1** A page is checked (checksum, structure, its own number) before anything decodes it:
//!   mapped pages at their first touch, which a bitmap remembers; others when they enter the cache.
//!   That it is the version which a reference means ([`Link`]) is checked each time the reference
//!   is followed: what is remembered is of the page, and two references may mean different versions
//!   of it.
//! - **BP2** A page's bytes never change while a reference to them can exist: a checkpoint writes
//!   only to pages that no view and no pinned reader can reach (see [`super::freespace`]), and
//!   announces them with [`Pager::reuse`] first.
//! - **BP3** Every mapping ever made stays valid for its holder: the file grows under new
//!   mappings, and is cut only behind the last page that a reader can reach.
//! - **BP4** What is known of a leaf ([`super::known_leaves`]) was found when it was written, or
//!   read under its parent, with the fences that the parent gives it, and is void when its page is
//!   announced (BP2). It answers no read: a leaf is read and checked before its entries are.
//! - **BP5** What is read in order to be written anew is copied, and the copy is checked, whatever
//!   was checked before ([`Pager::node_to_rewrite`], [`Pager::overflow_to_rewrite`]): a map may
//!   show other bytes by now, and what is written gets a new checksum.
//!
//! Thread safety: everything takes `&self`. [`Pager::reuse`] and [`Pager::grow`] belong to the
//! thread that holds the checkpoint lock.

use std::fmt;
use std::io::ErrorKind;
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crossbeam_epoch::Guard;
use parking_lot::Mutex;

use super::known_leaves::{KnownLeaf, KnownLeaves};
use super::meta::META_UNITS;
use super::new_file::NewFile;
use crate::btree::memory::slot::EpochArc;
use crate::btree::node;
use crate::btree::node::leaf::{LeafFacts, has_overflow};
use crate::btree::node::{Link, NodeKind};
use crate::cache::{BlockCache, BlockKey, CachedBlock};
use crate::engine::{EngineContext, Keep};
use crate::error::{Error, Result};
use crate::format::checksum::{Checksum, checksum, seed_of};
use crate::fs;
use crate::fs::{Advice, File, LazyFile, Mapping, OpenMode};
use crate::types::PageId;
use crate::util::mutants::mutated;
use crate::util::residency::Residency;
use crate::util::sharded::ShardedCounter;

/// A mapping of the file and which of its pages have been checked.
pub(crate) struct PageMap {
    mapping: Option<Mapping>,
    /// Page faults read nothing but the page of memory that was touched.
    is_scattered: bool,
    /// Units that may be read.
    units: u64,
    /// Four bits a unit, of which three are used: what is known of a node, or an overflow value,
    /// that starts there, since the unit was last written.
    checked: Box<[AtomicU64]>,
    known_leaves: KnownLeaves,
}

/// What is known of a unit.
#[derive(Clone, Copy)]
enum CheckedAs {
    /// A node starts there and was checked.
    Node = 1,
    /// An overflow value starts there and was checked.
    Value = 2,
    /// The node is a leaf, and all of its values are in it.
    Inline = 4,
}

/// Bits of the bitmap for a unit.
const CHECKED_BITS: u64 = 4;

/// A thread asks the system once for so many nodes whether they are in memory.
const NODES_BETWEEN_LOOKS: u64 = 16;

/// Nodes that begin more apart than that are no neighbours: they are asked for one by one.
const APART_UNITS: u64 = 32;

/// Units for which one word of the bitmap stands.
const UNITS_PER_WORD: u64 = u64::BITS as u64 / CHECKED_BITS;

impl PageMap {
    #[inline]
    fn is_checked(&self, page: u64, kind: CheckedAs) -> bool {
        let word = self.checked[(page / UNITS_PER_WORD) as usize].load(Ordering::Acquire);
        word >> (page % UNITS_PER_WORD * CHECKED_BITS) & kind as u64 != 0
    }

    fn set_checked(&self, page: u64, kind: CheckedAs) {
        let bit = (kind as u64) << (page % UNITS_PER_WORD * CHECKED_BITS);
        self.checked[(page / UNITS_PER_WORD) as usize].fetch_or(bit, Ordering::Release);
    }

    fn clear_checked(&self, page: u64) {
        let bits = ((1 << CHECKED_BITS) - 1) << (page % UNITS_PER_WORD * CHECKED_BITS);
        self.checked[(page / UNITS_PER_WORD) as usize].fetch_and(!bits, Ordering::Release);
    }
}

/// The pages of one B-tree file.
pub(crate) struct Pager {
    file: LazyFile,
    /// The file while a checkpoint writes it.
    writing: Mutex<Option<Arc<dyn File>>>,
    /// Of a tree that was new when it was opened.
    new_file: Option<Arc<NewFile>>,
    /// Keeps the file where it can be opened, also when the keyspace is dropped.
    _keep: Arc<dyn Keep>,
    /// What nodes are cut to. Most have no more bytes.
    page_size: usize,
    /// Bytes of the pieces in which the file is numbered and given out.
    unit: usize,
    seed: u64,
    map: EpochArc<PageMap>,
    use_mmap: bool,
    cache: Arc<BlockCache>,
    file_tag: u64,
    /// The file may be longer than the tree that was found in it.
    has_excess: AtomicBool,
    /// Pages that lookups and scans have looked at.
    pages_read: ShardedCounter,
    residency: Residency,
}

impl fmt::Debug for Pager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pager").field("file", &self.file).finish()
    }
}

/// A checked node image, lent for the time of a pin.
pub(crate) enum PageRef<'g> {
    Mapped(&'g [u8]),
    Cached(CachedBlock),
}

impl Deref for PageRef<'_> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(bytes) => bytes,
            Self::Cached(block) => block,
        }
    }
}

/// A checked node image that needs no pin. Its holder keeps the page from being reused
/// by other means (a view's registration).
pub(crate) enum OwnedPage {
    Mapped {
        map: Arc<PageMap>,
        at: usize,
        len: usize,
    },
    Cached(CachedBlock),
}

impl Deref for OwnedPage {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped { map, at, len } => map
                .mapping
                .as_ref()
                .and_then(|mapping| mapping.bytes(*at, *len))
                .expect("the range was read before"),
            Self::Cached(block) => block,
        }
    }
}

/// A checked node image to keep, lent by the owner of the map that it is in. So a scan takes no
/// count of the map, which all scans share.
pub(crate) enum KeptPage {
    InMap { at: usize, len: usize },
    Owned(OwnedPage),
}

impl KeptPage {
    /// The image. `map` is the one that the page was taken with.
    #[inline]
    pub(crate) fn image<'a>(&'a self, map: &'a PageMap) -> &'a [u8] {
        match self {
            Self::InMap { at, len } => map
                .mapping
                .as_ref()
                .and_then(|mapping| mapping.bytes(*at, *len))
                .expect("the range was read before"),
            Self::Owned(page) => page,
        }
    }
}

/// The file stays open. See [`Pager::begin_writing`].
pub(crate) struct Writing<'p>(&'p Pager);

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        // Closed after the lock is released.
        let file = self.0.writing.lock().take();
        drop(file);
    }
}

impl Pager {
    /// Reads the keyspace's file, of which `units` units may be read now. It is open as `file`,
    /// which the caller closes: a mapped file needs no descriptor to be read, and one that is not
    /// mapped is opened when it is read.
    /// There is none yet if the tree is a new one.
    pub(crate) fn new(
        context: &EngineContext,
        file: &dyn File,
        new_file: Option<Arc<NewFile>>,
        units: u64,
    ) -> Result<Self> {
        let page_size = context.options.page_size_bytes as usize;
        let cache = Arc::clone(&context.cache);
        let (use_mmap, capacity_bytes) = (context.use_mmap, cache.capacity_bytes());
        let unit = node::unit_size(page_size);
        let map = map_file(file, unit, use_mmap, units, capacity_bytes, None)?;
        let mode = if context.read_only {
            OpenMode::Read
        } else {
            OpenMode::ReadWrite
        };
        let open_files = &context.open_files;
        Ok(Self {
            file: open_files.file(&context.fs, file.path(), mode),
            new_file,
            writing: Mutex::default(),
            _keep: Arc::clone(&context.keep),
            page_size,
            unit,
            seed: seed_of(&[context.store_id, u64::from(context.keyspace.0)]),
            map: EpochArc::new(Arc::new(map)),
            use_mmap,
            file_tag: cache.new_file_tag(),
            has_excess: AtomicBool::new(!context.read_only),
            cache,
            pages_read: ShardedCounter::default(),
            residency: Residency::new(NODES_BETWEEN_LOOKS),
        })
    }

    /// The file, open as long as the caller has it.
    pub(crate) fn file(&self) -> Result<Arc<dyn File>> {
        if let Some(file) = &*self.writing.lock() {
            return Ok(Arc::clone(file));
        }
        match self.unmade_file() {
            Some(new_file) => Ok(Arc::clone(new_file) as _),
            None => self.file.open(),
        }
    }

    /// What stands for the file as long as there is none.
    #[inline]
    fn unmade_file(&self) -> Option<&Arc<NewFile>> {
        self.new_file.as_ref().filter(|file| !file.is_made())
    }

    /// False as long as nothing was persisted.
    pub(crate) fn has_file(&self) -> bool {
        self.unmade_file().is_none()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        match self.unmade_file() {
            Some(new_file) => new_file.read_exact_at(buf, offset),
            None => self.file.read_exact_at(buf, offset),
        }
    }

    /// Cuts off what the file had behind its tree when that was opened. The file may look longer
    /// than it is on the disk, after a sync that failed in an earlier process, and growing it must
    /// not count on that: so it comes before the first checkpoint. Otherwise it waits until
    /// recovery has succeeded, as all that takes something away. By then the meta page is durable;
    /// an older one may need more.
    pub(crate) fn cut_excess(&self) -> Result<()> {
        if !self.has_excess.load(Ordering::Acquire) {
            return Ok(());
        }
        let file = self.file()?;
        let needed = self.file_bytes();
        if file.len()? > needed && !mutated!("excess-of-a-page-file-stays") {
            file.set_len(needed)?;
        }
        self.has_excess.store(false, Ordering::Release);
        Ok(())
    }

    /// Keeps the file open from the first write of a checkpoint to its last sync, so that each of
    /// them goes to the same open file. Belongs to the thread that holds the checkpoint lock.
    pub(crate) fn begin_writing(&self) -> Result<Writing<'_>> {
        if let Some(new_file) = self.unmade_file() {
            new_file.make()?;
        }
        self.cut_excess()?;
        let file = self.file()?;
        *self.writing.lock() = Some(file);
        Ok(Writing(self))
    }

    pub(crate) fn path(&self) -> &Path {
        self.file.path()
    }

    pub(crate) fn page_size(&self) -> usize {
        self.page_size
    }

    /// Bytes of the pieces in which the file is numbered and given out.
    pub(crate) fn unit(&self) -> usize {
        self.unit
    }

    pub(crate) fn pages_read(&self) -> u64 {
        self.pages_read.sum()
    }

    /// A lookup or a scan looked at `pages` pages of nodes. Values outside are counted here.
    #[inline]
    pub(crate) fn count_read(&self, pages: u64) {
        if pages > 0 {
            self.pages_read.add(pages);
        }
    }

    /// What a read of `node` counts for: two pages if it is longer than one, because it takes two
    /// requests then.
    #[inline]
    pub(crate) fn pages_of(&self, node: &[u8]) -> u64 {
        1 + u64::from(node.len() > self.page_size)
    }

    /// Memory that belongs to the file's map: what is known of its pages.
    pub(crate) fn pinned_bytes(&self) -> u64 {
        let guard = crossbeam_epoch::pin();
        let map = self.map.load(&guard);
        (size_of_val(&*map.checked) + map.known_leaves.size_bytes()) as u64
    }

    /// Seed of everything that starts at `page`.
    pub(crate) fn seed_of_page(&self, page: PageId) -> u64 {
        seed_of(&[self.seed, page.0])
    }

    /// Byte offset of `page`.
    pub(crate) fn offset(&self, page: PageId) -> u64 {
        page.0.saturating_mul(self.unit as u64)
    }

    /// Units that `len` bytes take.
    pub(crate) fn units_for(&self, len: usize) -> u64 {
        len.div_ceil(self.unit) as u64
    }

    /// Damage found at `page`.
    pub(crate) fn damaged(&self, page: PageId, what: impl Into<String>) -> Error {
        Error::corruption(self.path(), self.offset(page), what)
    }

    /// The node that `link` means.
    #[inline]
    pub(crate) fn node<'g>(&'g self, link: Link, guard: &'g Guard) -> Result<PageRef<'g>> {
        let page = link.page();
        let map = self.map.load(guard).get();
        if let Some(mapping) = &map.mapping
            && page.0 < map.units
        {
            if !map.is_checked(page.0, CheckedAs::Node) {
                self.check_mapped(map, mapping, page)?;
            }
            let at = page.0 as usize * self.unit;
            let first = mapping.bytes(at, self.unit).unwrap_or_default();
            self.check_meant(first, link)?;
            let len = match node::unit_count(first) {
                1 => return Ok(PageRef::Mapped(first)),
                units => units as usize * self.unit,
            };
            return match mapping.bytes(at, len) {
                Some(bytes) => Ok(PageRef::Mapped(bytes)),
                None => Err(self.damaged(page, "the node reaches beyond the file")),
            };
        }
        let block = self.node_by_reading(map, page)?;
        self.check_meant(&block, link)?;
        Ok(PageRef::Cached(block))
    }

    /// The node that `link` means, whose bytes will be written to another place (BP5). What is in
    /// the cache was checked there.
    pub(crate) fn node_to_rewrite<'g>(
        &'g self,
        link: Link,
        guard: &'g Guard,
    ) -> Result<PageRef<'g>> {
        let bytes = match self.node(link, guard)? {
            PageRef::Mapped(bytes) if !mutated!("damage-gets-a-new-checksum") => bytes,
            checked => return Ok(checked),
        };
        let copy = CachedBlock::from(bytes);
        let page = link.page();
        // The sum says whether these are the bytes that were validated.
        let checked = node::check(&copy, self.seed_of_page(page));
        checked.map_err(|what| {
            self.distrust(page, guard);
            self.damaged(page, what)
        })?;
        // The first look may have been at another version.
        self.check_meant(&copy, link)?;
        Ok(PageRef::Cached(copy))
    }

    /// True if the file is mapped: then bytes may not be any more what they were when they were
    /// checked.
    pub(crate) fn is_mapped(&self, guard: &Guard) -> bool {
        self.map.load(guard).get().mapping.is_some()
    }

    /// Damage was found at `page`: readers are to find it too.
    #[cold]
    fn distrust(&self, page: PageId, guard: &Guard) {
        let map = self.map.load(guard).get();
        if page.0 < map.units {
            map.clear_checked(page.0);
        }
    }

    /// The node that `link` means, to keep.
    pub(crate) fn owned_node(&self, link: Link, guard: &Guard) -> Result<OwnedPage> {
        Ok(match self.node(link, guard)? {
            PageRef::Mapped(bytes) => OwnedPage::Mapped {
                map: self.map.load(guard).to_arc(),
                at: link.page().0 as usize * self.unit,
                len: bytes.len(),
            },
            PageRef::Cached(block) => OwnedPage::Cached(block),
        })
    }

    /// The map that pages are read from now.
    pub(crate) fn map(&self, guard: &Guard) -> Arc<PageMap> {
        self.map.load(guard).to_arc()
    }

    /// A node that was just read, to keep beside `map`.
    pub(crate) fn keep(&self, node: PageRef<'_>, map: &PageMap, guard: &Guard) -> KeptPage {
        let bytes = match node {
            PageRef::Mapped(bytes) => bytes,
            PageRef::Cached(block) => return KeptPage::Owned(OwnedPage::Cached(block)),
        };
        let at = node::page_id(bytes).0 as usize * self.unit;
        let len = bytes.len();
        let current = self.map.load(guard);
        if std::ptr::eq(current.get(), map) {
            return KeptPage::InMap { at, len };
        }
        KeptPage::Owned(OwnedPage::Mapped {
            map: current.to_arc(),
            at,
            len,
        })
    }

    /// First touch of a mapped node (BP1).
    #[cold]
    fn check_mapped(&self, map: &PageMap, mapping: &Mapping, page: PageId) -> Result<()> {
        // It is checked from end to end now.
        self.ask_for(map, mapping, page);
        let at = page.0 as usize * self.unit;
        let first = mapping.bytes(at, self.unit);
        let first = first.ok_or_else(|| self.damaged(page, "the page is beyond the file"))?;
        let len = self.node_len(first, page, map.units)?;
        let image = mapping.bytes(at, len);
        let image = image.ok_or_else(|| self.damaged(page, "the node reaches beyond the file"))?;
        self.check_node(image, page)?;
        if is_inline_leaf(image) {
            map.set_checked(page.0, CheckedAs::Inline);
        }
        // Last: who finds this set relies on the other.
        map.set_checked(page.0, CheckedAs::Node);
        Ok(())
    }

    /// True if `node`, which was just read from `page`, is a leaf whose values are all in it. Of a
    /// mapped page that is known since it was checked: looking would touch all of it.
    pub(crate) fn has_all_values(&self, node: &PageRef<'_>, page: PageId, guard: &Guard) -> bool {
        let map = self.map.load(guard).get();
        let page = page.0;
        // The map may be another one than that which the node was checked in.
        let is_known = page < map.units && map.is_checked(page, CheckedAs::Node);
        match node {
            PageRef::Mapped(_) if is_known => map.is_checked(page, CheckedAs::Inline),
            _ => is_inline_leaf(node),
        }
    }

    /// What is known of the leaf at `page`, of which its parent says that it has these fences.
    pub(crate) fn known_leaf(
        &self,
        page: PageId,
        fences: (&[u8], Option<&[u8]>),
        guard: &Guard,
    ) -> Option<LeafFacts> {
        let map = self.map.load(guard).get();
        map.known_leaves.find(page.0, fences)
    }

    /// Notes what is to be known of `node`, which was just read from `page`, if it is a leaf with
    /// all of its values and no longer than a page. It has these fences.
    pub(crate) fn note_leaf(
        &self,
        node: &PageRef<'_>,
        page: PageId,
        fences: (&[u8], Option<&[u8]>),
        guard: &Guard,
    ) {
        if node.len() <= self.page_size && self.has_all_values(node, page, guard) {
            let known = KnownLeaf::new(LeafFacts::of(node), fences);
            self.note_leaves(known.map(|known| (page, known)), guard);
        }
    }

    /// What is to be known of the leaf in `image`, which has these fences, as in
    /// [`Pager::note_leaf`].
    pub(crate) fn known_from(
        &self,
        image: &[u8],
        fences: (&[u8], Option<&[u8]>),
    ) -> Option<KnownLeaf> {
        let is_known = image.len() <= self.page_size && is_inline_leaf(image);
        is_known.then(|| KnownLeaf::new(LeafFacts::of(image), fences))?
    }

    /// Notes what leaves are that were read or written.
    pub(crate) fn note_leaves(
        &self,
        leaves: impl IntoIterator<Item = (PageId, KnownLeaf)>,
        guard: &Guard,
    ) {
        let map = self.map.load(guard).get();
        for (page, leaf) in leaves {
            map.known_leaves.note(page.0, leaf);
        }
    }

    /// Asks for all of the node that `link` means with one request, unless it seems to be in
    /// memory, and does not wait for it.
    pub(crate) fn will_need(&self, link: Link, guard: &Guard) {
        let map = self.map.load(guard).get();
        if let Some(mapping) = &map.mapping {
            self.ask_for(map, mapping, link.page());
        }
    }

    /// Where page faults read nothing but what is touched, a reader of all of a node would wait for
    /// each part of it in turn.
    fn ask_for(&self, map: &PageMap, mapping: &Mapping, page: PageId) {
        let look = || self.file.is_in_memory(self.offset(page));
        if map.is_scattered && page.0 < map.units && self.residency.is_in_doubt(look) {
            // The length of the node is not known before its first unit is read, and few nodes are
            // longer than this.
            let rest = (map.units - page.0) as usize * self.unit;
            let at = page.0 as usize * self.unit;
            mapping.advise(Advice::WillNeed, at, self.page_size.min(rest));
        }
    }

    /// Waits until all of a node is in memory, after [`Pager::will_need`].
    pub(crate) fn touch_whole(&self, node: &PageRef<'_>, guard: &Guard) {
        if let PageRef::Mapped(bytes) = node
            && self.map.load(guard).is_scattered
        {
            let touched = bytes.iter().step_by(FAULT_BYTES);
            std::hint::black_box(touched.fold(0, |sum, byte| sum ^ byte));
        }
    }

    /// True if nodes that will be read may not be in memory, and [`Pager::ask_for_all`] may help.
    pub(crate) fn may_lack_nodes(&self) -> bool {
        let guard = crossbeam_epoch::pin();
        self.residency.has_doubts() && self.map.load(&guard).get().is_scattered
    }

    /// Asks for nodes that will be read later, with a request for all that are neighbours, or
    /// nearly, and does not wait for them. `links` are sorted by their places. Nothing is asked for
    /// if they seem to be in memory.
    pub(crate) fn ask_for_all(&self, links: &[Link], guard: &Guard) {
        let map = self.map.load(guard).get();
        let Some(mapping) = map.mapping.as_ref().filter(|_| map.is_scattered) else {
            return;
        };
        let is_new = |page: &u64| *page < map.units && !map.is_checked(*page, CheckedAs::Node);
        let pages = links.iter().map(|link| link.page().0).filter(is_new);
        let pages: Vec<u64> = pages.collect();
        let (Some(first), Some(last)) = (pages.first(), pages.last()) else {
            return;
        };
        let samples = [*first, pages[pages.len() / 2], *last];
        let is_here = |page| self.file.is_in_memory(self.offset(PageId(page))) == Some(true);
        if samples.into_iter().all(is_here) {
            return;
        }
        self.residency.doubt();
        for piece in pages.chunk_by(|a, b| b - a < APART_UNITS) {
            // The length of the last one is not known yet.
            let end = piece[piece.len() - 1] + self.units_for(self.page_size);
            let (at, len) = (piece[0] as usize, (end.min(map.units) - piece[0]) as usize);
            mapping.advise(Advice::WillNeed, at * self.unit, len * self.unit);
        }
    }

    /// Asks for nodes that are about to be read, where they lie in one piece, with one request.
    /// `links` rise in time; the last ones are neighbours, or nearly.
    pub(crate) fn read_ahead(&self, links: &[Link], guard: &Guard) {
        let map = self.map.load(guard).get();
        let Some(mapping) = map.mapping.as_ref().filter(|_| map.is_scattered) else {
            return;
        };
        let pages = links.iter().map(|link| link.page().0);
        let is_known = |page: &u64| *page >= map.units || map.is_checked(*page, CheckedAs::Node);
        let pages: Vec<u64> = pages.collect();
        if pages.len() < 2 || pages.iter().all(is_known) {
            return;
        }
        for piece in pages.chunk_by(|a, b| a <= b && b - a < APART_UNITS) {
            let (first, last) = (piece[0], piece[piece.len() - 1]);
            if piece.len() > 1 && last < map.units {
                // The length of the last one is not known yet.
                let end = (last + self.units_for(self.page_size)).min(map.units);
                let (at, len) = (first as usize, (end - first) as usize);
                mapping.advise(Advice::WillNeed, at * self.unit, len * self.unit);
            }
        }
    }

    /// Length of the node whose first unit this is, in bytes; the unit is not trusted yet.
    fn node_len(&self, first: &[u8], page: PageId, file_units: u64) -> Result<usize> {
        let units = u64::from(node::unit_count(first));
        if page.0 < META_UNITS || units == 0 || units > file_units.saturating_sub(page.0) {
            return Err(self.damaged(page, "there is no node at this page"));
        }
        Ok(units as usize * self.unit)
    }

    /// All checks of a node (BP1).
    pub(crate) fn check_node(&self, image: &[u8], page: PageId) -> Result<()> {
        node::check(image, self.seed_of_page(page))
            .and_then(|()| node::validate(image))
            .map_err(|what| self.damaged(page, what))?;
        if node::page_id(image) != page {
            return Err(self.damaged(page, "the node belongs to another page"));
        }
        Ok(())
    }

    /// The node in `image`, which is intact, is the one that `link` means.
    #[inline]
    pub(crate) fn check_meant(&self, image: &[u8], link: Link) -> Result<()> {
        if link.means(image) || mutated!("child-fingerprint-ignored") {
            return Ok(());
        }
        Err(self.not_meant(image, link))
    }

    #[cold]
    fn not_meant(&self, image: &[u8], link: Link) -> Error {
        let found = Link::to(image).fingerprint();
        let meant = link.fingerprint();
        let what = format!(
            "the node is not the one that is referred to, perhaps an older version of it: its \
             fingerprint is {found:#08x} and should be {meant:#08x}"
        );
        self.damaged(link.page(), what)
    }

    #[cold]
    fn node_by_reading(&self, map: &PageMap, page: PageId) -> Result<CachedBlock> {
        let key = BlockKey {
            file_tag: self.file_tag,
            offset: self.offset(page),
        };
        if let Some(block) = self.cache.get(&key) {
            return Ok(block);
        }
        if page.0 < META_UNITS || page.0 >= map.units {
            return Err(self.damaged(page, "a reference leads outside the file"));
        }
        let image = self.read_node(page, map.units, |bytes, at| self.read_exact_at(bytes, at))?;
        self.check_node(&image, page)?;
        let block: CachedBlock = image.into();
        self.cache.insert(key, Arc::clone(&block));
        Ok(block)
    }

    /// The bytes of the node at `page` of a file with `file_units` units, which `read` reads from;
    /// unchecked.
    pub(crate) fn read_node(
        &self,
        page: PageId,
        file_units: u64,
        read: impl Fn(&mut [u8], u64) -> Result<()>,
    ) -> Result<Vec<u8>> {
        let offset = self.offset(page);
        // Most nodes are no longer than a page, and take one request.
        let rest = file_units
            .saturating_sub(page.0)
            .saturating_mul(self.unit as u64);
        let mut image = vec![0; rest.min(self.page_size as u64) as usize];
        match read(&mut image, offset) {
            // Behind the node the file may be cut at any time.
            Err(error) if error.io_kind() == Some(ErrorKind::UnexpectedEof) => {
                image.truncate(self.unit);
                read(&mut image, offset)?;
            }
            at_once => at_once?,
        }
        let at_first = image.len();
        let len = self.node_len(&image, page, file_units)?;
        image.resize(len, 0);
        if len > at_first {
            // Not trusted yet: a lie about the length costs no more memory than the file has bytes.
            read(&mut image[at_first..], offset + at_first as u64)?;
        }
        Ok(image)
    }

    /// Calls `read` with the overflow value at `page`. Its pages are kept from being reused by
    /// other means than a pin: a long value takes long to read.
    pub(crate) fn overflow<R>(
        &self,
        page: PageId,
        len: u32,
        sum: u32,
        read: impl FnOnce(&[u8]) -> R,
    ) -> Result<R> {
        let map = self.map_with_overflow(page, len)?;
        if let Some(bytes) = self.mapped_overflow(&map, page, len)? {
            if !map.is_checked(page.0, CheckedAs::Value) {
                self.check_overflow(bytes, page, sum)?;
                map.set_checked(page.0, CheckedAs::Value);
            }
            return Ok(read(bytes));
        }
        let mut bytes = vec![0; len as usize];
        self.read_exact_at(&mut bytes, self.offset(page))?;
        self.check_overflow(&bytes, page, sum)?;
        Ok(read(&bytes))
    }

    /// The overflow value at `page`, which will be written to another place (BP5). Its pages are
    /// kept as for [`Pager::overflow`].
    pub(crate) fn overflow_to_rewrite(&self, page: PageId, len: u32, sum: u32) -> Result<Vec<u8>> {
        let map = self.map_with_overflow(page, len)?;
        let bytes = match self.mapped_overflow(&map, page, len)? {
            Some(bytes) => bytes.to_vec(),
            None => {
                let mut bytes = vec![0; len as usize];
                self.read_exact_at(&mut bytes, self.offset(page))?;
                bytes
            }
        };
        let checked = self.check_overflow(&bytes, page, sum);
        checked.inspect_err(|_| self.distrust(page, &crossbeam_epoch::pin()))?;
        Ok(bytes)
    }

    /// The map, which has the `len` bytes at `page`.
    fn map_with_overflow(&self, page: PageId, len: u32) -> Result<Arc<PageMap>> {
        let map = self.map(&crossbeam_epoch::pin());
        let units = self.units_for(len as usize);
        if page.0 < META_UNITS || page.0 >= map.units || units > map.units - page.0 {
            return Err(self.damaged(page, "an overflow value reaches beyond the file"));
        }
        self.pages_read.add(units);
        Ok(map)
    }

    /// The bytes of an overflow value, if the file is mapped.
    fn mapped_overflow<'m>(
        &self,
        map: &'m PageMap,
        page: PageId,
        len: u32,
    ) -> Result<Option<&'m [u8]>> {
        let Some(mapping) = &map.mapping else {
            return Ok(None);
        };
        match mapping.bytes(page.0 as usize * self.unit, len as usize) {
            Some(bytes) => Ok(Some(bytes)),
            None => Err(self.damaged(page, "an overflow value reaches beyond the file")),
        }
    }

    fn check_overflow(&self, bytes: &[u8], page: PageId, sum: u32) -> Result<()> {
        let computed = checksum(self.seed_of_page(page), bytes);
        if computed == sum || mutated!("overflow-checksum-ignored") {
            return Ok(());
        }
        Err(self.damaged(page, "the checksum of an overflow value does not match"))
    }

    /// Reads the overflow value at `page`, which is inside the file, from the file itself; returns
    /// what is wrong with it.
    pub(crate) fn recheck_overflow(
        &self,
        file: &dyn File,
        page: PageId,
        len: u32,
        sum: u32,
    ) -> Result<Option<&'static str>> {
        let mut running = Checksum::seeded(self.seed_of_page(page));
        let mut buffer = vec![0; (len as usize).min(1 << 20)];
        let (mut at, mut rest) = (self.offset(page), len as usize);
        while rest > 0 {
            let part = rest.min(buffer.len());
            file.read_exact_at(&mut buffer[..part], at)?;
            running.update(&buffer[..part]);
            at += part as u64;
            rest -= part;
        }
        let good = running.finish() == sum;
        Ok((!good).then_some("the checksum of an overflow value does not match"))
    }

    /// True if the page was checked as a node, and is not read before it is used.
    #[cfg(test)]
    pub(crate) fn is_known(&self, page: u64) -> bool {
        let guard = crossbeam_epoch::pin();
        let map = self.map.load(&guard).get();
        page < map.units && map.is_checked(page, CheckedAs::Node)
    }

    /// `units` units from `start` are about to be written anew: what was known of them is void.
    pub(crate) fn reuse(&self, start: PageId, units: u64, guard: &Guard) {
        let map = self.map.load(guard).get();
        for page in start.0..start.0 + units {
            if page < map.units {
                map.clear_checked(page);
            }
            // Of pages behind the map's end, too: a load knows its leaves before the map has them.
            if page < map.units || !mutated!("facts-of-a-dropped-load") {
                mutated!("facts-of-an-older-leaf", (), map.known_leaves.forget(page));
            }
            // Behind the map's end, too: the file may have been longer, and been cut.
            if map.mapping.is_none() {
                self.cache.remove(&BlockKey {
                    file_tag: self.file_tag,
                    offset: self.offset(PageId(page)),
                });
            }
        }
    }

    /// Makes the first `units` units readable. The file is extended in steps of a sixteenth, so
    /// that a growing file is mapped anew rarely.
    pub(crate) fn grow(&self, units: u64) -> Result<()> {
        let old = self.map(&crossbeam_epoch::pin());
        if units <= old.units {
            return Ok(());
        }
        let units = units + (units / 16).min((64 << 20) / self.unit as u64);
        let bytes = units * self.unit as u64;
        let file = self.file()?;
        if file.len()? < bytes {
            file.set_len(bytes)?;
        }
        let map = self.map_file(&*file, units, &old)?;
        self.map.store(Arc::new(map), &crossbeam_epoch::pin());
        Ok(())
    }

    fn map_file(&self, file: &dyn File, units: u64, old: &PageMap) -> Result<PageMap> {
        map_file(
            file,
            self.unit,
            self.use_mmap,
            units,
            self.cache.capacity_bytes(),
            Some(old),
        )
    }

    /// Cuts the file behind `units` units, none of which a reader can reach (BP3).
    pub(crate) fn shrink(&self, units: u64) -> Result<()> {
        let old = self.map(&crossbeam_epoch::pin());
        let file = self.file()?;
        // A load has pages behind the end that it has not written yet.
        if file.len()? < units * self.unit as u64 && !mutated!("file-cut-to-more-than-it-has") {
            return Ok(());
        }
        let map = self.map_file(&*file, units, &old)?;
        self.map.store(Arc::new(map), &crossbeam_epoch::pin());
        file.set_len(units * self.unit as u64)
    }

    /// Units that may be read.
    pub(crate) fn units(&self) -> u64 {
        let guard = crossbeam_epoch::pin();
        self.map.load(&guard).units
    }

    /// Bytes of the file.
    pub(crate) fn file_bytes(&self) -> u64 {
        self.units() * self.unit as u64
    }
}

/// Bytes that a page fault reads at least.
const FAULT_BYTES: usize = 4096;

/// True if the node in `image`, which was checked, is a leaf whose values are all in it.
fn is_inline_leaf(image: &[u8]) -> bool {
    node::kind(image) == Some(NodeKind::Leaf) && !has_overflow(image)
}

/// Maps `units` units of the file, taking over what `old` knew of them.
///
/// A file that is larger than the cache may be will not stay in memory as a whole, as far as
/// its user is concerned: page faults read no neighbourhood then, which would push out
/// what is needed. Of a smaller one they do, since that loads all of it with few requests.
fn map_file(
    file: &dyn File,
    unit: usize,
    use_mmap: bool,
    units: u64,
    cache_bytes: u64,
    old: Option<&PageMap>,
) -> Result<PageMap> {
    let mapping = if use_mmap {
        fs::map(file, units * unit as u64)?
    } else {
        None
    };
    let checked: Box<[AtomicU64]> = (0..units.div_ceil(UNITS_PER_WORD))
        .map(|_| AtomicU64::new(0))
        .collect();
    if let Some(old) = old {
        for (new, old) in checked.iter().zip(&old.checked) {
            new.store(old.load(Ordering::Acquire), Ordering::Relaxed);
        }
        // Units that were cut off may come back as others.
        if !units.is_multiple_of(UNITS_PER_WORD)
            && let Some(last) = checked.last()
        {
            let kept = (1 << (units % UNITS_PER_WORD * CHECKED_BITS)) - 1;
            last.fetch_and(kept, Ordering::Relaxed);
        }
    }
    let is_scattered = units.saturating_mul(unit as u64) > cache_bytes;
    if let Some(mapping) = mapping.as_ref().filter(|_| is_scattered) {
        mapping.advise(Advice::Random, 0, mapping.len());
    }
    let known_leaves = KnownLeaves::new(units, old.map(|old| &old.known_leaves));
    Ok(PageMap {
        mapping,
        is_scattered,
        units,
        checked,
        known_leaves,
    })
}
