//! Checkpoints: the sealed tree goes to free places of the file, then a meta page makes it the
//! file's tree.
//!
//! # The steps
//!
//! 1. *Seal.* With the writer's mutex: the present tree becomes immutable; what it took off the books
//!    ([`Interval`]) comes along. Commits go on in copies.
//! 2. *Write*, without locks: nodes in key order, children before parents, which hold the fingerprints of
//!    their children, each to a place that nothing refers to; overflow values; the freelist. A change over a page is merged here.
//! 3. *Sync.* Then the log is made durable up to the last operation of the sealed tree (E3): a power
//!    loss must not keep an operation here that an earlier one, in the log, did not survive.
//! 4. *Flip.* Meta page 0, sync, meta page 1, sync (see [`super::meta`] for the order).
//! 5. *Publish.* With the writer's mutex, no I/O: references to nodes that were written become
//!    references to their pages; changes over old pages become changes over the new ones.
//!
//! # When a step fails
//!
//! Up to 3 nothing on disk refers to what was written: the interval goes back to the writer, the copy
//! of the free space is forgotten, and a later checkpoint starts over. From the first write
//! of a meta page on, it is unknown which tree a reopen would find, so no page of either may be
//! reused: checkpoints then fail with the first error until the store is reopened. The same after
//! a failed sync, about which nothing is known. Commits and reads are not affected; the log keeps
//! what the file does not have.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crossbeam_epoch::Guard;

use super::freespace::{FreeSpace, Run, encode_runs};
use super::mem::{Body, LargeValue, LeafState, MemInner, find_large, pending_number};
use super::meta::{META_BYTES, Meta};
use super::node;
use super::node::inner::Inner;
use super::node::leaf::{Leaf, LeafMut, LeafValue};
use super::node::{Link, inner};
use super::slot::{Child, ChildRef, Slot};
use super::tree::Tree;
use super::writer::Interval;
use crate::error::{Error, Result};
use crate::format::checksum::checksum;
use crate::types::{KeyspaceId, PageId, SeqNo};
use crate::util::mutants::mutated;

/// Nodes are gathered into writes of this size where their places are contiguous.
const WRITE_BYTES: usize = 1 << 20;

/// Attempts to find readers of the previous tree gone, which ordinarily takes three.
const QUIET_ATTEMPTS: u32 = 64;

/// What one checkpoint hands to the next.
#[derive(Debug)]
pub(super) struct Checkpointer {
    store_id: u64,
    keyspace: KeyspaceId,
    /// The file's tree.
    meta: Meta,
    free: FreeSpace,
    /// A meta page that is not like `meta` and must be before anything is reused.
    stale_meta_page: Option<u64>,
    /// Meta page 1 reads like `meta`, and yet may not be on the disk.
    is_second_unproven: bool,
    /// Why no checkpoint is possible any more.
    broken: Option<Error>,
}

impl Checkpointer {
    /// For a file as it was found. Meta page 1 was written last: if that failed in an earlier process, it may
    /// be in the operating system's cache only.
    pub(super) fn new(
        store_id: u64,
        keyspace: KeyspaceId,
        meta: Meta,
        free: FreeSpace,
        stale_meta_page: Option<u64>,
    ) -> Self {
        Self {
            store_id,
            keyspace,
            meta,
            free,
            stale_meta_page,
            is_second_unproven: true,
            broken: None,
        }
    }

    pub(super) fn meta(&self) -> &Meta {
        &self.meta
    }

    pub(super) fn free(&self) -> &FreeSpace {
        &self.free
    }

    pub(super) fn free_pages(&self) -> u64 {
        self.free.free_pages()
    }

    /// What is wrong with meta page `page` in the file, if anything.
    pub(super) fn meta_page_problem(&self, tree: &Tree, page: u64) -> Result<Option<String>> {
        let mut bytes = [0; META_BYTES];
        let offset = page * tree.page_size() as u64;
        let file = tree.pager.file();
        file.read_exact_at(&mut bytes, offset)?;
        Ok(
            match Meta::decode(&bytes, self.store_id, self.keyspace, file.path(), offset) {
                Ok(meta) if meta == self.meta => None,
                // A crash between the two writes leaves this; the next checkpoint mends it.
                Ok(meta) if meta.generation < self.meta.generation => None,
                Ok(_) => Some("the meta page is not of the present tree".into()),
                // Likewise, torn.
                Err(_) if self.stale_meta_page == Some(page) => None,
                Err(error) => Some(error.to_string()),
            },
        )
    }

    /// Writes meta page `page` (0 or 1) and syncs.
    fn write_meta(&self, tree: &Tree, page: u64, meta: &Meta) -> Result<()> {
        let bytes = meta.encode(self.store_id, self.keyspace);
        let file = tree.pager.file();
        file.write_all_at(&bytes, page * tree.page_size() as u64)?;
        if mutated!("meta-page-not-synced") {
            return Ok(());
        }
        file.sync_data()
    }
}

/// A tree that no longer changes, and what belongs to it.
struct Sealed {
    root: Child,
    /// Its last operation.
    seq: SeqNo,
    interval: Interval,
}

/// What writing a sealed tree gave.
struct Written {
    meta: Meta,
    free: FreeSpace,
    nodes: HashMap<usize, NewPlace>,
    large: Vec<(Arc<LargeValue>, PageId, u32)>,
    bytes: u64,
}

/// Where a node in memory was written.
#[derive(Clone, Copy)]
struct NewPlace {
    link: Link,
    pages: u64,
    /// Of a leaf.
    entries: u64,
}

impl Tree {
    /// True when there is enough to write for a checkpoint.
    pub(super) fn flush_is_due(&self) -> bool {
        !self.read_only
            && self.dirty_bytes.load(Ordering::Relaxed) >= self.settings.write_buffer_bytes()
    }

    /// Brings everything applied so far into the file. False if it was there already.
    pub(super) fn checkpoint(&self) -> Result<bool> {
        let mut checkpointer = self.checkpointer.lock();
        self.checkpoint_locked(&mut checkpointer, false)
    }

    /// The same for a caller that holds the lock; `force` writes even if nothing was applied.
    pub(super) fn checkpoint_locked(
        &self,
        checkpointer: &mut Checkpointer,
        force: bool,
    ) -> Result<bool> {
        if self.read_only {
            return Ok(false);
        }
        if let Some(error) = &checkpointer.broken {
            return Err(error.clone());
        }
        self.counters.woken.store(false, Ordering::Release);
        let Some(sealed) = self.seal_for_checkpoint(checkpointer, force)? else {
            return Ok(false);
        };
        let written = self
            .write_sealed(checkpointer, &sealed)
            .and_then(|written| self.make_durable(checkpointer, written, sealed.seq));
        match written {
            Ok(written) => {
                self.publish(checkpointer, &sealed, written);
                // Dropping the sealed tree may free many nodes; nobody waits for that.
                drop(sealed);
                self.host.progressed();
                Ok(true)
            }
            Err(error) => {
                let mut writer = self.writer.lock();
                writer.interval.absorb(sealed.interval);
                writer.checkpointing = false;
                Err(error)
            }
        }
    }

    /// Step 1.
    fn seal_for_checkpoint(
        &self,
        checkpointer: &Checkpointer,
        force: bool,
    ) -> Result<Option<Sealed>> {
        let guard = crossbeam_epoch::pin();
        let mut writer = self.writer.lock();
        if let Some(error) = self.apply_failed.get() {
            return Err(error.clone());
        }
        let nothing_new = writer.applied == checkpointer.meta.persisted_seq;
        if nothing_new && !force {
            return Ok(None);
        }
        writer.seal();
        // An idle one would keep pages from this checkpoint. Its root is the tree's too: nothing is freed here.
        drop(self.take_latest(&mut writer));
        writer.checkpointing = true;
        writer.checkpoint_generation = writer.generation;
        writer.first_since_checkpoint = None;
        Ok(Some(Sealed {
            root: self.root.load(&guard).to_owned(),
            seq: writer.applied,
            interval: std::mem::take(&mut writer.interval),
        }))
    }

    /// Step 2.
    fn write_sealed(&self, checkpointer: &mut Checkpointer, sealed: &Sealed) -> Result<Written> {
        if let Some(page) = checkpointer.stale_meta_page {
            checkpointer.write_meta(self, page, &checkpointer.meta)?;
            checkpointer.stale_meta_page = None;
            checkpointer.is_second_unproven &= page != 1;
        }
        if checkpointer.is_second_unproven {
            checkpointer.write_meta(self, 1, &checkpointer.meta)?;
            checkpointer.is_second_unproven = false;
        }
        let old = &checkpointer.meta;
        let generation = old.generation + 1;
        self.wait_quiet(old.generation);
        let mut free = checkpointer.free.clone();
        free.release(match mutated!("page-reused-under-a-view") {
            true => u64::MAX,
            false => self.reusable_generation(),
        });

        let interval = &sealed.interval;
        let mut freed = interval.freed.clone();
        let dropped = self.walk_dropped(&interval.dropped, old.overflow_pages > 0, &mut freed)?;
        if mutated!("free-page-reused-too-early") {
            for run in freed.drain(..) {
                free.give(run);
            }
        }
        let mut output = Output {
            tree: self,
            free,
            buffer: Vec::new(),
            buffer_at: 0,
            nodes: HashMap::new(),
            large: Vec::new(),
            large_pages: 0,
            entries: 0,
            bytes: 0,
        };
        let (root, level) = output.write_child(&sealed.root.as_ref(), None)?;
        let removed = interval.removed_entries + dropped.entries;
        let entries = (old.entries + output.entries).saturating_sub(removed);
        let overflow_pages = (old.overflow_pages + output.large_pages)
            .saturating_sub(interval.freed_overflow_pages + dropped.overflow_pages);
        let entries_exact = old.entries_exact && dropped.exact;

        // The freelist describes itself too: its old extent is freed, its new one taken, before it
        // is encoded. Taking can only lessen the number of runs.
        if old.freelist_runs > 0 {
            let bytes = old.freelist_runs as usize * super::freespace::RUN_BYTES;
            freed.push(Run {
                start: old.freelist.0,
                len: self.pager.pages_for(bytes),
            });
        }
        if mutated!("freed-pages-forgotten") {
            freed.clear();
        }
        output.free.hold(generation, freed);
        output.free.trim();
        let room = output.free.run_count() * super::freespace::RUN_BYTES;
        let freelist_pages = self.pager.pages_for(room);
        let freelist = if freelist_pages == 0 {
            PageId(0)
        } else {
            output.allocate(freelist_pages)?
        };
        let mut bytes = encode_runs(&output.free.all_runs());
        // Empty runs stand in for one that the allocation used up, so that the number of runs
        // always tells the length of the extent.
        while self.pager.pages_for(bytes.len()) < freelist_pages {
            bytes.extend_from_slice(&[0; super::freespace::RUN_BYTES]);
        }
        let runs = (bytes.len() / super::freespace::RUN_BYTES) as u64;
        let freelist_checksum = checksum(self.pager.seed_of_page(freelist), &bytes);
        if !bytes.is_empty() {
            output.write_at(freelist, &bytes)?;
        }
        output.write_out()?;
        let meta = Meta {
            page_size: old.page_size,
            generation,
            root,
            height: u32::from(level) + 1,
            persisted_seq: sealed.seq,
            file_pages: output.free.file_pages,
            freelist,
            freelist_runs: runs,
            freelist_checksum,
            entries,
            entries_exact,
            overflow_pages,
        };
        let guard = crossbeam_epoch::pin();
        self.pager.grow(meta.file_pages, &guard)?;
        Ok(Written {
            meta,
            free: output.free,
            nodes: output.nodes,
            large: output.large,
            bytes: output.bytes,
        })
    }

    /// Waits a little until no reader from before `generation` is left, so that the pages that it freed can
    /// be used. Deferred work, which announces that, only runs when somebody pins.
    fn wait_quiet(&self, generation: u64) {
        for attempt in 0..QUIET_ATTEMPTS {
            if self.quiet_generation.load(Ordering::Acquire) >= generation {
                break;
            }
            crossbeam_epoch::pin().flush();
            if attempt > QUIET_ATTEMPTS / 4 {
                // Some reader was interrupted. Its pages are worth more than the time.
                std::thread::sleep(Duration::from_micros(50));
            }
        }
    }

    /// Steps 3 and 4.
    fn make_durable(
        &self,
        checkpointer: &mut Checkpointer,
        written: Written,
        seq: SeqNo,
    ) -> Result<Written> {
        if !mutated!("checkpoint-before-its-log-is-durable") {
            self.host.make_durable(seq)?;
        }
        let synced = match mutated!("checkpoint-meta-written-before-its-pages") {
            true => Ok(()),
            false => self.pager.file().sync_data(),
        };
        let durable = synced
            .and_then(|()| checkpointer.write_meta(self, 0, &written.meta))
            .and_then(|()| checkpointer.write_meta(self, 1, &written.meta));
        if let Err(error) = durable {
            checkpointer.broken = Some(error.clone());
            return Err(error);
        }
        Ok(written)
    }

    /// Step 5.
    fn publish(&self, checkpointer: &mut Checkpointer, sealed: &Sealed, written: Written) {
        let guard = crossbeam_epoch::pin();
        let Written {
            meta,
            mut free,
            nodes,
            large,
            bytes,
        } = written;
        let generation = meta.generation;
        let mut writer = self.writer.lock();
        // First, so that whoever sees a reference to a new page sees this (E4).
        self.disk_seq.store(meta.persisted_seq.0, Ordering::Release);
        let mut publication = Publication {
            nodes,
            dirty_bytes: 0,
            guard: &guard,
        };
        publication.convert(&self.root);
        // Written, and superseded meanwhile: the pages are in the file's tree but not in ours.
        for place in publication.nodes.values() {
            writer.interval.free(place.link.page(), place.pages);
            writer.interval.removed_entries += place.entries;
        }
        for (value, page, checksum) in large {
            let pages = self.pager.pages_for(value.bytes.len());
            value.set_extent(page, checksum);
            if value.dropped.load(Ordering::Acquire) {
                writer.interval.free(page, pages);
                writer.interval.freed_overflow_pages += pages;
            }
        }
        writer.dirty_bytes = publication.dirty_bytes;
        writer.checkpointing = false;
        self.dirty_bytes
            .store(writer.dirty_bytes, Ordering::Relaxed);
        self.disk_generation.store(generation, Ordering::Release);
        self.disk_root.store(meta.root.bits(), Ordering::Release);
        let oldest = writer.first_since_checkpoint.map_or(0, |seq| seq.0);
        self.oldest_unpersisted.store(oldest, Ordering::Release);
        // They keep what this checkpoint freed.
        let kept = self.take_latest(&mut writer);
        drop(writer);
        drop(kept);

        // Views of the sealed tree read its pages from now on, and its nodes need no memory. The
        // generation that such a view registered keeps the pages.
        if let Child::Inner(root) = &sealed.root {
            let new_root = self.disk_node(meta.root, None, &guard);
            if let Ok(image) = new_root {
                let node = Inner::from_image(&image);
                if node.child_count() == root.slots.len() {
                    for (i, slot) in root.slots.iter().enumerate() {
                        if !matches!(slot.load(&guard), ChildRef::Disk(_)) {
                            slot.store(Child::Disk(node.child(i)), &guard);
                        }
                    }
                }
            }
        }

        let counters = &self.counters;
        counters.entries.store(meta.entries, Ordering::Relaxed);
        counters
            .height
            .store(u64::from(meta.height), Ordering::Relaxed);
        counters
            .checkpoint_bytes
            .fetch_add(bytes, Ordering::Relaxed);
        counters.checkpoints.fetch_add(1, Ordering::Relaxed);
        free.file_pages = meta.file_pages;
        counters
            .free_pages
            .store(free.free_pages(), Ordering::Relaxed);
        checkpointer.meta = meta;
        checkpointer.free = free;

        let quiet = Arc::clone(&self.quiet_generation);
        guard.defer(move || quiet.fetch_max(generation, Ordering::AcqRel));
        guard.flush();
    }

    /// Pages, extents and entries of subtrees that were cut off. What is damaged is not freed:
    /// `verify` will name those pages, and nothing else is wrong with them. What cannot be read now
    /// may be readable when the checkpoint is tried again.
    fn walk_dropped(
        &self,
        roots: &[(Link, u8)],
        has_overflow: bool,
        freed: &mut Vec<Run>,
    ) -> Result<Dropped> {
        let guard = crossbeam_epoch::pin();
        let mut dropped = Dropped {
            exact: true,
            ..Dropped::default()
        };
        let mut leaves = Vec::new();
        let mut todo = roots.to_vec();
        // Hostile pages may all refer to the same ones.
        let mut rest = self.pager.pages();
        while let Some((link, level)) = todo.pop() {
            if rest == 0 {
                dropped.exact = false;
                break;
            }
            rest -= 1;
            if level == 0 {
                leaves.push(link);
                continue;
            }
            let image = match self.disk_node(link, Some(level), &guard) {
                Err(error) if error.is_corruption() => {
                    dropped.exact = false;
                    continue;
                }
                other => other?,
            };
            freed.push(Run {
                start: link.page().0,
                len: u64::from(node::page_count(&image)),
            });
            let inner = Inner::from_image(&image);
            todo.extend((0..inner.child_count()).map(|i| (inner.child(i), level - 1)));
        }
        for link in &leaves {
            // A leaf's own length is in its first page, so each must be looked at.
            let image = match self.disk_node(*link, Some(0), &guard) {
                Err(error) if error.is_corruption() => {
                    dropped.exact = false;
                    continue;
                }
                other => other?,
            };
            freed.push(Run {
                start: link.page().0,
                len: u64::from(node::page_count(&image)),
            });
            let leaf = Leaf::from_image(&image);
            dropped.entries += leaf.len() as u64;
            if !has_overflow {
                continue;
            }
            for i in 0..leaf.len() {
                if let LeafValue::Overflow { page, len, .. } = leaf.value(i) {
                    let pages = self.pager.pages_for(len as usize);
                    freed.push(Run {
                        start: page.0,
                        len: pages,
                    });
                    dropped.overflow_pages += pages;
                }
            }
        }
        Ok(dropped)
    }
}

#[derive(Default)]
struct Dropped {
    entries: u64,
    overflow_pages: u64,
    exact: bool,
}

/// Writes a sealed tree.
struct Output<'t> {
    tree: &'t Tree,
    free: FreeSpace,
    /// Bytes gathered for the file from `buffer_at` on.
    buffer: Vec<u8>,
    buffer_at: u64,
    nodes: HashMap<usize, NewPlace>,
    large: Vec<(Arc<LargeValue>, PageId, u32)>,
    large_pages: u64,
    entries: u64,
    bytes: u64,
}

impl Output<'_> {
    fn allocate(&mut self, pages: u64) -> Result<PageId> {
        let page = PageId(self.free.allocate(pages));
        if self.free.file_pages > Link::PAGES_MAX {
            let what = "the file has as many pages as a B-tree can have";
            return Err(Error::invalid(what));
        }
        let guard = crossbeam_epoch::pin();
        self.tree.pager.reuse(page, pages, &guard);
        Ok(page)
    }

    /// Link to a node, and its level. It is written first if it is in memory.
    fn write_child(&mut self, child: &ChildRef<'_>, level: Option<u8>) -> Result<(Link, u8)> {
        match child {
            ChildRef::Disk(link) => {
                let level = match level {
                    Some(level) => level,
                    None => {
                        let guard = crossbeam_epoch::pin();
                        node::level(&self.tree.disk_node(*link, None, &guard)?)
                    }
                };
                Ok((*link, level))
            }
            ChildRef::Leaf(leaf) => {
                let state = leaf.read();
                Ok((self.write_leaf(&state, child.address())?, 0))
            }
            ChildRef::Inner(inner) => {
                let level = inner.node().level();
                Ok((self.write_inner(inner, child.address())?, level))
            }
        }
    }

    fn write_leaf(&mut self, state: &LeafState, address: Option<usize>) -> Result<Link> {
        let mut image = match &state.body {
            Body::Whole { image, .. } => image.clone(),
            Body::Changes(changes) => {
                let guard = crossbeam_epoch::pin();
                self.tree.merged_image(changes, &guard)?
            }
        };
        if let Body::Whole { large, .. } = &state.body
            && !large.is_empty()
        {
            for slot in 0..Leaf::from_image(&image).len() {
                if let LeafValue::Overflow { page, len, .. } = Leaf::from_image(&image).value(slot)
                    && let Some(number) = pending_number(page)
                {
                    let value = find_large(large, number).expect("beside its reference");
                    let (page, checksum) = self.write_large(value)?;
                    let reference = LeafValue::Overflow {
                        page,
                        len,
                        checksum,
                    };
                    LeafMut::from_image(&mut image)
                        .set_value(slot, reference)
                        .expect("a reference takes the place of a reference");
                }
            }
        }
        let entries = Leaf::from_image(&image).len() as u64;
        node::set_last_seq(&mut image, state.last_seq);
        let place = self.place(image, entries)?;
        self.entries += entries;
        if let Some(address) = address {
            self.nodes.insert(address, place);
        }
        Ok(place.link)
    }

    fn write_inner(&mut self, inner: &MemInner, address: Option<usize>) -> Result<Link> {
        let mut image: Box<[u8]> = (*inner.image).into();
        let below = inner.node().level().checked_sub(1);
        for (i, slot) in inner.slots.iter().enumerate() {
            // The pin is short: a checkpoint must not hold up the reclaiming of memory. The node stays
            // alive without it, because sealed slots change only in `publish`.
            let child = slot.load(&crossbeam_epoch::pin()).to_owned();
            let (link, _) = self.write_child(&child.as_ref(), below)?;
            inner::set_child(&mut image, i, link);
        }
        let place = self.place(image, 0)?;
        if let Some(address) = address {
            self.nodes.insert(address, place);
        }
        Ok(place.link)
    }

    /// Gives a node a place, its checksum, and to the file.
    fn place(&mut self, mut image: Box<[u8]>, entries: u64) -> Result<NewPlace> {
        let pages = self.tree.pager.pages_for(image.len());
        let page = self.allocate(pages)?;
        node::set_page_id(&mut image, page);
        node::seal(&mut image, self.tree.pager.seed_of_page(page));
        self.write_at(page, &image)?;
        Ok(NewPlace {
            link: Link::to(&image),
            pages,
            entries,
        })
    }

    /// Place and checksum of a large value, which is written unless it was before.
    fn write_large(&mut self, value: &Arc<LargeValue>) -> Result<(PageId, u32)> {
        if let Some(extent) = value.extent() {
            return Ok(extent);
        }
        let pages = self.tree.pager.pages_for(value.bytes.len());
        let page = self.allocate(pages)?;
        let checksum = checksum(self.tree.pager.seed_of_page(page), &value.bytes);
        self.write_out()?;
        self.bytes += value.bytes.len() as u64;
        self.tree
            .pager
            .file()
            .write_all_at(&value.bytes, self.tree.pager.offset(page))?;
        self.large_pages += pages;
        self.large.push((Arc::clone(value), page, checksum));
        Ok((page, checksum))
    }

    /// Writes `bytes` to `page`, some time before [`Output::write_out`] returns.
    fn write_at(&mut self, page: PageId, bytes: &[u8]) -> Result<()> {
        let at = self.tree.pager.offset(page);
        let contiguous = at == self.buffer_at + self.buffer.len() as u64;
        if !contiguous || self.buffer.len() + bytes.len() > WRITE_BYTES {
            self.write_out()?;
            self.buffer_at = at;
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    fn write_out(&mut self) -> Result<()> {
        if !self.buffer.is_empty() {
            self.tree
                .pager
                .file()
                .write_all_at(&self.buffer, self.buffer_at)?;
            self.bytes += self.buffer.len() as u64;
            self.buffer_at += self.buffer.len() as u64;
            self.buffer.clear();
        }
        Ok(())
    }
}

/// Turns references to nodes that were written into references to their pages.
struct Publication<'g> {
    /// What was written and not found in the current tree yet.
    nodes: HashMap<usize, NewPlace>,
    /// Bytes of what stays in memory.
    dirty_bytes: u64,
    guard: &'g Guard,
}

impl Publication<'_> {
    fn convert(&mut self, slot: &Slot) {
        let child = slot.load(self.guard);
        let Some(address) = child.address() else {
            return;
        };
        if self.nodes.contains_key(&address) {
            // Unchanged since it was sealed, and so is everything below it: changing a node
            // copies the nodes above it first.
            self.forget(&child);
            let place = self.nodes.remove(&address);
            let link = place.expect("looked at").link;
            slot.store(Child::Disk(link), self.guard);
            return;
        }
        match child {
            ChildRef::Inner(inner) => {
                self.dirty_bytes += inner.size_bytes() as u64;
                for slot in inner.get().slots.iter() {
                    self.convert(slot);
                }
            }
            ChildRef::Leaf(leaf) => {
                let state = leaf.read();
                if let Body::Changes(changes) = &state.body
                    && let Some(address) = changes.base(self.guard).address()
                    && let Some(place) = self.nodes.get(&address)
                {
                    // Changed after it was sealed (W5). The place stays among those to be freed:
                    // the changed leaf will be written to another one.
                    changes.move_base(place.link, self.guard);
                }
                self.dirty_bytes += state.size_bytes() as u64;
            }
            ChildRef::Disk(_) => {}
        }
    }

    /// Everything below an unchanged node is in the file's tree.
    fn forget(&mut self, child: &ChildRef<'_>) {
        if let ChildRef::Inner(inner) = child {
            for slot in inner.slots.iter() {
                let child = slot.load(self.guard);
                if let Some(address) = child.address() {
                    self.nodes.remove(&address);
                }
                self.forget(&child);
            }
        }
    }
}
