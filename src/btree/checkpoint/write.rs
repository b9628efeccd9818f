//! Writing a frozen tree to free places of the file.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use super::checkpointer::{Checkpointer, birth_of};
use super::new_entries::NewEntries;
use crate::btree::file::freelist;
use crate::btree::file::freespace::{FreeSpace, Run};
use crate::btree::file::known_leaves::KnownLeaf;
use crate::btree::file::meta::{META_UNITS, Meta};
use crate::btree::file::value_table::{ENTRY_BYTES, ValueTable};
use crate::btree::memory::node::{
    Body, Child, ChildRef, LargeValue, LeafState, MemInner, find_large, pending_number,
};
use crate::btree::node;
use crate::btree::node::inner::Inner;
use crate::btree::node::leaf::{self, Leaf, LeafMut, LeafValue};
use crate::btree::node::packs::{ChildPacks, Group, PackedLeaf, Packs};
use crate::btree::node::{Link, inner};
use crate::btree::read::shared::SharedTree;
use crate::btree::write::state::PendingFrees;
use crate::error::{Error, Result};
use crate::format::checksum::checksum;
use crate::types::{PageId, SeqNo};
use crate::util::mutants::mutated;

/// Nodes are gathered into writes of this size where their places are contiguous.
const WRITE_BYTES: usize = 1 << 20;

/// Attempts to find readers of the previous tree gone, which ordinarily takes three.
const QUIET_ATTEMPTS: u32 = 64;

/// A tree that no longer changes, and what belongs to it.
pub(super) struct FrozenTree {
    pub(super) root: Child,
    /// Its last operation.
    pub(super) seq: SeqNo,
    pub(super) pending_frees: PendingFrees,
    /// Value files to which its operations since the last checkpoint refer.
    pub(super) value_files: BTreeSet<u64>,
    /// Scans have paid for changes: no leaf is to have any left.
    pub(super) for_scans: bool,
}

/// What writing a frozen tree gave.
pub(super) struct Written {
    pub(super) meta: Meta,
    /// First pages of what was freed, and of what was written.
    pub(super) freed: Vec<u64>,
    pub(super) starts: Vec<u64>,
    pub(super) nodes: HashMap<usize, NewPlace>,
    pub(super) packed: PackedBranches,
    pub(super) large: Vec<(Arc<LargeValue>, PageId, u32)>,
    pub(super) sparse_leaves: u64,
    pub(super) value_table: ValueTable,
    pub(super) bytes: u64,
}

/// What packs hold for the leaves below the nodes of level 1 that were written.
#[derive(Default)]
pub(super) struct PackedBranches {
    /// By the page number of the leaf: its group, what is held, and its number among the children.
    leaves: HashMap<u64, (usize, ChildPacks, usize)>,
    groups: Vec<Group>,
    /// By the address of the node: the groups below it.
    branches: HashMap<usize, Range<usize>>,
}

impl PackedBranches {
    /// A node was written whose children have these links.
    pub(super) fn note(&mut self, address: usize, links: &[Link], packs: Packs) {
        if packs.is_empty() {
            return;
        }
        let first = self.groups.len();
        for (i, (held, link)) in packs.children.iter().zip(links).enumerate() {
            if held.mask != 0 {
                let group = first + packs.group_of(i);
                self.leaves.insert(link.page().0, (group, *held, i));
            }
        }
        self.groups.extend(packs.groups);
        self.branches.insert(address, first..self.groups.len());
    }

    pub(super) fn is_empty(&self) -> bool {
        self.leaves.is_empty()
    }

    /// The leaf at `page`, if packs hold changes to it, with its group.
    pub(super) fn leaf(&self, page: Link) -> Option<(usize, PackedLeaf, usize)> {
        let (group, held, i) = *self.leaves.get(&page.page().0)?;
        let packs = self.groups[group].links(i, held.mask);
        Some((group, PackedLeaf { page, packs, held }, i))
    }

    pub(super) fn group(&self, group: usize) -> &Group {
        &self.groups[group]
    }

    /// The packs of a node.
    pub(super) fn links(&self, address: usize) -> impl Iterator<Item = Link> {
        let groups = self.branches.get(&address).cloned().unwrap_or_default();
        self.groups[groups].iter().flat_map(Group::packs)
    }

    /// Where the packs of a node are.
    pub(super) fn extents(&self, address: usize) -> impl Iterator<Item = (PageId, u64)> {
        let groups = self.branches.get(&address).cloned().unwrap_or_default();
        self.groups[groups].iter().flat_map(Group::extents)
    }
}

/// Where a node in memory was written, or the page that it stays.
#[derive(Clone, Copy)]
pub(super) struct NewPlace {
    pub(super) link: Link,
    pub(super) pages: u64,
    /// Of a leaf.
    pub(super) entries: i64,
}

impl SharedTree {
    /// Step 2.
    pub(super) fn write_frozen(
        &self,
        checkpointer: &mut Checkpointer,
        frozen: &FrozenTree,
    ) -> Result<Written> {
        if let Some(page) = checkpointer.stale_meta_page {
            checkpointer.write_meta(&self.pager, page, &checkpointer.meta)?;
            checkpointer.stale_meta_page = None;
            checkpointer.is_second_unproven &= page != 1;
        }
        if checkpointer.is_second_unproven {
            checkpointer.write_meta(&self.pager, 1, &checkpointer.meta)?;
            checkpointer.is_second_unproven = false;
        }
        let Checkpointer {
            meta: old,
            free,
            births,
            value_table: old_table,
            new_entries,
            ..
        } = checkpointer;
        let generation = old.generation + 1;
        self.wait_quiet(old.generation);
        // The spans after the quiet generation: a reader gives up its pin when it has registered.
        let quiet = self.quiet_generation();
        let spans = self.reader_spans();
        free.release(|birth, freed_by| {
            let is_needed = freed_by > quiet || spans.needs(birth, freed_by);
            is_needed && !mutated!("page-reused-under-a-view")
        });
        free.begin();
        mutated!("pages-of-a-load-stay-free", (), free.release_attached());

        let frees = &frozen.pending_frees;
        let mut freed = frees.freed.clone();
        let refers = Refers {
            // A load may have brought the first ones.
            to_extents: old.overflow_units > 0
                || frees.loaded_overflow_units > 0 && !mutated!("values-of-a-deleted-load-stay"),
            to_files: !old_table.is_empty(),
        };
        let dropped = self.walk_dropped(&frees.dropped, refers, &mut freed)?;
        mutated!("free-page-reused-too-early", free.give_all(&mut freed), ());
        let mut output = Output {
            tree: self,
            free,
            buffer: Vec::new(),
            buffer_at: 0,
            starts: Vec::new(),
            nodes: HashMap::new(),
            leaves: Vec::new(),
            seq: frozen.seq,
            writes_whole_leaves: frozen.for_scans,
            carried: HashSet::new(),
            packed: PackedBranches::default(),
            large: Vec::new(),
            large_units: 0,
            entries: 0,
            new_entries: new_entries.clone(),
            sparse_leaves: 0,
            counts_files: refers.to_files || !frozen.value_files.is_empty(),
            value_table: old_table.clone(),
            bytes: 0,
        };
        let (root, level) = output.write_child(&frozen.root.as_ref(), None)?;
        let removed = frees.removed_entries + dropped.entries;
        let entries = old.entries.saturating_add_signed(output.entries - removed);
        // Pages and packs that only their parent was loaded from.
        freed.retain(|run| !output.carried.contains(&run.start));
        let added_units = output.large_units + frees.loaded_overflow_units;
        let overflow_units = (old.overflow_units + added_units)
            .saturating_sub(frees.freed_overflow_units + dropped.overflow_units);
        let is_all = match refers.to_files {
            true => {
                output.count_leaving(&frees.nodes)? && output.value_table.subtract(&dropped.files)
            }
            false => true,
        };
        let mut adds_up = old.adds_up && dropped.is_all && is_all;

        let old_table_bytes = old_table.len() * ENTRY_BYTES;
        if old_table_bytes > 0 {
            freed.push(Run {
                start: old.value_table.0,
                len: self.pager.units_for(old_table_bytes),
            });
        }
        let (value_table, value_table_checksum) = output.write_value_table()?;
        // The freelist describes itself too: its old extent is freed, its new one taken, before it
        // is encoded.
        if old.freelist_bytes > 0 {
            freed.push(Run {
                start: old.freelist.0,
                len: self.pager.units_for(old.freelist_bytes as usize),
            });
        }
        let mut freed = mutated!("freed-pages-forgotten", Vec::new(), freed);
        if !mutated!("impossible-runs-are-freed") {
            adds_up &= output.free.leave_out_impossible(META_UNITS, &mut freed);
        }
        let freed: Vec<_> = freed
            .into_iter()
            .map(|run| (birth_of(births, run.start), run))
            .collect();
        let freed_starts = freed.iter().map(|(_, run)| run.start).collect();
        output.free.hold(generation, freed);
        output.free.trim();
        let freelist_units = match freelist::encoded_len(&output.free.all_runs()) {
            0 => 0,
            len => self.pager.units_for(len + freelist::GROWTH_BYTES),
        };
        let freelist = if freelist_units == 0 {
            PageId(0)
        } else {
            output.allocate(freelist_units)?
        };
        let mut bytes = freelist::encode(&output.free.all_runs());
        debug_assert!(self.pager.units_for(bytes.len()) <= freelist_units);
        // So that its length always gives that of the extent.
        while self.pager.units_for(bytes.len()) < freelist_units {
            bytes.push(0);
        }
        let freelist_checksum = checksum(self.pager.seed_of_page(freelist), &bytes);
        if !bytes.is_empty() {
            output.write_at(freelist, &bytes)?;
        }
        output.write_out()?;
        let meta = Meta {
            page_size: old.page_size,
            unit: old.unit,
            generation,
            root,
            height: u32::from(level) + 1,
            persisted_seq: frozen.seq,
            file_units: output.free.file_units,
            freelist,
            freelist_bytes: bytes.len() as u64,
            freelist_checksum,
            entries,
            overflow_units,
            value_table,
            value_files: output.value_table.len() as u64,
            value_table_checksum,
            adds_up,
        };
        *new_entries = output.new_entries;
        self.pager.grow(meta.file_units)?;
        // Before anything refers to them (BP4).
        self.pager
            .note_leaves(output.leaves, &crossbeam_epoch::pin());
        Ok(Written {
            meta,
            freed: freed_starts,
            starts: output.starts,
            nodes: output.nodes,
            packed: output.packed,
            large: output.large,
            sparse_leaves: output.sparse_leaves,
            value_table: output.value_table,
            bytes: output.bytes,
        })
    }

    /// Waits a little until no reader from before `generation` is left, so that the pages that it
    /// freed can be used. Deferred work, which announces that, only runs when a thread pins.
    pub(super) fn wait_quiet(&self, generation: u64) {
        for attempt in 0..QUIET_ATTEMPTS {
            if self.quiet_generation() >= generation {
                break;
            }
            crossbeam_epoch::pin().flush();
            if attempt > QUIET_ATTEMPTS / 4 {
                // Some reader was interrupted. Its pages are worth more than the time.
                std::thread::sleep(Duration::from_micros(50));
            }
        }
    }

    /// Adds what the node that `link` means refers to. False if it is damaged. The pin is short.
    fn count_references(&self, link: Link, files: &mut ValueTable) -> Result<bool> {
        match self.pager.node(link, &crossbeam_epoch::pin()) {
            Ok(image) => files.add_node(&image),
            Err(error) if error.is_corruption() => return Ok(false),
            Err(error) => return Err(error),
        }
        Ok(true)
    }

    /// Pages, packs, extents and entries of subtrees that were cut off. What is damaged is not
    /// freed: `verify` will name those pages, and nothing else is wrong with them. What cannot be
    /// read now may be readable when the checkpoint is tried again.
    fn walk_dropped(
        &self,
        roots: &[(Link, u8)],
        refers: Refers,
        freed: &mut Vec<Run>,
    ) -> Result<Dropped> {
        let mut dropped = Dropped {
            is_all: true,
            ..Dropped::default()
        };
        let mut leaves = Vec::new();
        let mut todo = roots.to_vec();
        // Hostile pages may all refer to the same ones.
        let mut rest = self.pager.units();
        while let Some((link, level)) = todo.pop() {
            if rest == 0 {
                dropped.is_all = false;
                break;
            }
            rest -= 1;
            if level == 0 {
                leaves.push(link);
                continue;
            }
            // The pins are short: a long range has many pages to read. They stay as they are, since
            // no other checkpoint runs.
            let guard = crossbeam_epoch::pin();
            let image = match self.disk_node_to_rewrite(link, Some(level), &guard) {
                Err(error) if error.is_corruption() => {
                    dropped.is_all = false;
                    continue;
                }
                other => other?,
            };
            freed.push(Run {
                start: link.page().0,
                len: u64::from(node::unit_count(&image)),
            });
            let inner = Inner::from_image(&image);
            todo.extend((0..inner.child_count()).map(|i| (inner.child(i), level - 1)));
            let Some(packs) = inner.packs() else { continue };
            let packs = packs.decode();
            freed.extend(packs.extents().map(|(page, units)| Run {
                start: page.0,
                len: units,
            }));
            let held = packs.children.iter().map(|child| i64::from(child.entries));
            dropped.entries += held.sum::<i64>();
            for link in packs.links().filter(|_| refers.to_files) {
                dropped.is_all &= self.count_references(link, &mut dropped.files)?;
            }
        }
        for link in &leaves {
            // A leaf's own length is in its first page, so each must be looked at.
            let guard = crossbeam_epoch::pin();
            let image = match self.disk_node(*link, Some(0), &guard) {
                Err(error) if error.is_corruption() => {
                    dropped.is_all = false;
                    continue;
                }
                other => other?,
            };
            freed.push(Run {
                start: link.page().0,
                len: u64::from(node::unit_count(&image)),
            });
            let leaf = Leaf::from_image(&image);
            dropped.entries += leaf.len() as i64;
            if refers.to_files {
                dropped.files.add_node(&image);
            }
            if !refers.to_extents {
                continue;
            }
            for i in 0..leaf.len() {
                if let LeafValue::Overflow { page, len, .. } = leaf.value(i) {
                    let pages = self.pager.units_for(len as usize);
                    freed.push(Run {
                        start: page.0,
                        len: pages,
                    });
                    dropped.overflow_units += pages;
                }
            }
        }
        Ok(dropped)
    }
}

/// What nodes of a tree may refer to besides nodes.
#[derive(Clone, Copy)]
struct Refers {
    to_extents: bool,
    to_files: bool,
}

#[derive(Default)]
struct Dropped {
    entries: i64,
    overflow_units: u64,
    files: ValueTable,
    /// Nothing that was cut off is left out.
    is_all: bool,
}

/// Writes a frozen tree.
pub(super) struct Output<'t> {
    pub(super) tree: &'t SharedTree,
    /// Last operation of the tree.
    pub(super) seq: SeqNo,
    /// No changes are left in packs for a leaf that is written.
    pub(super) writes_whole_leaves: bool,
    pub(super) free: &'t mut FreeSpace,
    /// Bytes gathered for the file from `buffer_at` on.
    buffer: Vec<u8>,
    buffer_at: u64,
    /// First pages of all that was written.
    starts: Vec<u64>,
    pub(super) nodes: HashMap<usize, NewPlace>,
    /// What is to be known of the leaves that were written.
    leaves: Vec<(PageId, KnownLeaf)>,
    /// First units of what was noted as leaving the tree, and stays.
    pub(super) carried: HashSet<u64>,
    pub(super) packed: PackedBranches,
    large: Vec<(Arc<LargeValue>, PageId, u32)>,
    large_units: u64,
    pub(super) entries: i64,
    pub(super) new_entries: NewEntries,
    /// Leaves that are less than a quarter full.
    sparse_leaves: u64,
    /// There may be references to values that are stored apart.
    counts_files: bool,
    /// What the file's tree refers to.
    pub(super) value_table: ValueTable,
    bytes: u64,
}

impl Output<'_> {
    pub(super) fn allocate(&mut self, pages: u64) -> Result<PageId> {
        let page = PageId(self.free.allocate(pages));
        if self.free.file_units > Link::UNITS_MAX {
            let what = "the file has as many pages as a B-tree can have";
            return Err(Error::invalid(what));
        }
        self.starts.push(page.0);
        let guard = crossbeam_epoch::pin();
        self.tree.pager.reuse(page, pages, &guard);
        Ok(page)
    }

    /// Link to a node, and its level. It is written first if it is in memory.
    pub(super) fn write_child(
        &mut self,
        child: &ChildRef<'_>,
        level: Option<u8>,
    ) -> Result<(Link, u8)> {
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
            Body::Packed(leaf) => {
                let guard = crossbeam_epoch::pin();
                self.tree.packed_image(leaf, &guard)?
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
        if let Some(trimmed) = leaf::trimmed(&image, self.tree.page_size()) {
            image = trimmed;
        }
        let leaf = Leaf::from_image(&image);
        let entries = leaf.len() as i64;
        self.sparse_leaves += u64::from(leaf.live_bytes() < self.tree.page_size() / 4);
        let known = self
            .tree
            .pager
            .known_from(&image, leaf.fences(&mut Vec::new()));
        node::set_last_seq(&mut image, state.last_seq);
        let place = self.place(image, entries)?;
        self.leaves
            .extend(known.map(|known| (place.link.page(), known)));
        self.entries += entries;
        if let Some(address) = address {
            self.nodes.insert(address, place);
        }
        Ok(place.link)
    }

    fn write_inner(&mut self, inner: &MemInner, address: Option<usize>) -> Result<Link> {
        if inner.node().level() == 1 {
            return self.write_branch(inner, address);
        }
        let mut image: Box<[u8]> = (*inner.image).into();
        let below = inner.node().level().checked_sub(1);
        for (i, slot) in inner.slots.iter().enumerate() {
            // The pin is short: a checkpoint must not hold up the reclaiming of memory. The node
            // stays alive without it, because frozen slots change only in `publish`.
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
    pub(super) fn place(&mut self, mut image: Box<[u8]>, entries: i64) -> Result<NewPlace> {
        let pages = self.tree.pager.units_for(image.len());
        let page = self.allocate(pages)?;
        node::set_page_id(&mut image, page);
        node::write_checksum(&mut image, self.tree.pager.seed_of_page(page));
        self.write_node(page, &image)?;
        Ok(NewPlace {
            link: Link::to(&image),
            pages,
            entries,
        })
    }

    /// Writes a node, which is part of the tree from now on.
    pub(super) fn write_node(&mut self, page: PageId, image: &[u8]) -> Result<()> {
        if self.counts_files {
            self.value_table.add_node(image);
        }
        self.write_at(page, image)
    }

    /// Takes what `nodes` refer to, which leave the tree, off the table; not so those that are
    /// carried over. False if one cannot be read, or the table does not have as much (BH2).
    fn count_leaving(&mut self, nodes: &[Link]) -> Result<bool> {
        let mut files = ValueTable::default();
        let mut is_all = true;
        for link in nodes {
            let is_carried = self.carried.contains(&link.page().0);
            if !is_carried || mutated!("references-that-stay-taken-off-the-table") {
                is_all &= self.tree.count_references(*link, &mut files)?;
            }
        }
        Ok(self.value_table.subtract(&files) && is_all)
    }

    /// Writes the table of value files: its place and its checksum, zero if it is empty.
    fn write_value_table(&mut self) -> Result<(PageId, u32)> {
        let bytes = self.value_table.encode();
        let page = match self.tree.pager.units_for(bytes.len()) {
            0 => return Ok((PageId(0), 0)),
            units => self.allocate(units)?,
        };
        self.write_at(page, &bytes)?;
        Ok((page, checksum(self.tree.pager.seed_of_page(page), &bytes)))
    }

    /// Place and checksum of a large value, which is written unless it was before.
    fn write_large(&mut self, value: &Arc<LargeValue>) -> Result<(PageId, u32)> {
        if let Some(extent) = value.extent() {
            return Ok(extent);
        }
        let pages = self.tree.pager.units_for(value.bytes.len());
        let page = self.allocate(pages)?;
        let checksum = checksum(self.tree.pager.seed_of_page(page), &value.bytes);
        self.write_out()?;
        self.bytes += value.bytes.len() as u64;
        self.tree
            .pager
            .file()?
            .write_all_at(&value.bytes, self.tree.pager.offset(page))?;
        self.large_units += pages;
        self.large.push((Arc::clone(value), page, checksum));
        Ok((page, checksum))
    }

    /// Writes `bytes` to `page`, some time before [`Output::write_out`] returns.
    pub(super) fn write_at(&mut self, page: PageId, bytes: &[u8]) -> Result<()> {
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
                .file()?
                .write_all_at(&self.buffer, self.buffer_at)?;
            self.bytes += self.buffer.len() as u64;
            self.buffer_at += self.buffer.len() as u64;
            self.buffer.clear();
        }
        Ok(())
    }
}
