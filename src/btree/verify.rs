//! Checking everything that the running code relies on.
//!
//! - Both meta pages are whole and alike.
//! - Every page of the file's tree has its checksum, its structure, and the fingerprint, the level
//!   and the fences that its parent gives it; hence keys ascend across leaves.
//! - Every overflow value has its checksum, and every value that is stored apart.
//! - Every pack has its checksum, its structure and the fingerprint that its owner gives it, and
//!   holds for each leaf what the leaf's parent says.
//! - Every unit is exactly one of: meta, node, pack or area of packs, overflow, freelist, table of
//!   value files, free.
//! - Entries, as leaves and their parents count them, and overflow pages are as many as the meta
//!   page says; the table of value files counts the references in leaves and packs.
//! - The tree in memory nests in the same way, and its changes lie inside their leaves.

use super::checkpoint::checkpointer::Checkpointer;
use super::file::meta::{META_UNITS, Meta};
use super::file::value_table::{self, ValueTable};
use super::memory::node::{Body, Child, ChildRef, is_jumbo};
use super::node;
use super::node::inner::Inner;
use super::node::leaf::{self, Leaf, LeafValue, has_overflow};
use super::node::pack::ENTRY_BYTES_MIN;
use super::node::packs::{Area, PackRef, PackedLeaf, Packs};
use super::node::{Link, NodeKind, PACK_LEVEL};
use super::read::shared::ReadFor;
use super::state::Tree;
use crate::engine::{Problem, VerifyReport};
use crate::error::Result;
use crate::fs::File;
use crate::types::PageId;
use crate::values::StoredValues;

/// What a node must lie between: the lower bound, and the upper bound if there is one.
pub(super) type Fences = (Vec<u8>, Option<Vec<u8>>);

/// Pages that are named as damaged before the rest is only counted.
const PAGES_NAMED_MAX: usize = 100;

/// Walks over a tree and notes what is wrong.
pub(super) struct Verifier<'t> {
    tree: &'t Tree,
    /// What pages are read from.
    file: &'t dyn File,
    file_units: u64,
    pub(super) report: VerifyReport,
    /// What each unit of the file is used for; `None` if that does not matter.
    owners: Option<Vec<u8>>,
    overflow_units: u64,
    /// What leaves and packs refer to.
    value_table: ValueTable,
    stored: StoredValues<'t>,
    /// Entries that the parents of leaves count and that are not there.
    entries_too_many: i64,
    /// Bytes read.
    pub(super) bytes: u64,
}

const UNOWNED: u8 = 0;
const USED: u8 = 1;
const FREE: u8 = 2;

impl Tree {
    /// As [`crate::engine::Engine::verify`]. The file's tree is that of the moment of asking. Its
    /// pages are kept, so that commits and checkpoints go on meanwhile.
    pub(super) fn verify(&self) -> Result<VerifyReport> {
        let checkpointer = self.checkpointer.lock();
        let meta = checkpointer.meta().clone();
        let file = self.shared.pager.file()?;
        let mut verifier = Verifier::new(self, &*file, meta.file_units, false);
        verifier.report.files = 1;
        verifier.owners = Some(vec![UNOWNED; meta.file_units as usize]);
        // The meta pages are not of a generation: the next checkpoint replaces them.
        verifier.check_meta_pages(&checkpointer)?;
        let free = checkpointer.free().all_runs();
        let value_table = checkpointer.value_table().clone();
        let _kept = self.shared.keep_generation(meta.generation);
        drop(checkpointer);

        let level = root_level(&meta);
        let everything = (Vec::new(), None);
        verifier.check_disk(meta.root, None, level, &everything)?;
        let problems_in_tree = !verifier.report.problems.is_empty();
        let freelist_units = self.shared.pager.units_for(meta.freelist_bytes as usize);
        verifier.own(meta.freelist, freelist_units, USED);
        let table_bytes = value_table.len() * value_table::ENTRY_BYTES;
        let table_units = self.shared.pager.units_for(table_bytes);
        verifier.own(meta.value_table, table_units, USED);
        for run in free {
            // What a bulk load has reserved may lie behind the file's tree.
            let end = run.start.saturating_add(run.len).min(meta.file_units);
            let len = end.saturating_sub(run.start);
            verifier.own(PageId(run.start), len, FREE);
        }
        // Behind damage nothing can be reached, so nothing can be said about what is lost.
        if !problems_in_tree {
            verifier.check_totals(&meta, &value_table);
        }
        verifier.check_memory()?;
        Ok(verifier.report)
    }
}

impl<'t> Verifier<'t> {
    /// For pages of `file`, which has `file_units` units. With `uncached`, values that are stored
    /// apart are read past what the operating system remembers.
    pub(super) fn new(tree: &'t Tree, file: &'t dyn File, file_units: u64, uncached: bool) -> Self {
        Self {
            tree,
            file,
            file_units,
            report: VerifyReport::default(),
            owners: None,
            overflow_units: 0,
            value_table: ValueTable::default(),
            stored: tree.shared.held_files.values().stored(uncached),
            entries_too_many: 0,
            bytes: 0,
        }
    }

    pub(super) fn problem(&mut self, page: PageId, what: impl std::fmt::Display) {
        let pager = &self.tree.shared.pager;
        let problem = Problem::at(pager.path(), pager.offset(page), what.to_string());
        self.report.problem(problem);
    }

    pub(super) fn check_meta_pages(&mut self, checkpointer: &Checkpointer) -> Result<()> {
        let unit = self.tree.shared.pager.unit();
        for page in 0..META_UNITS {
            if let Some(problem) = checkpointer.meta_page_problem(self.file, unit, page)? {
                self.problem(PageId(page), problem);
            }
            self.own(PageId(page), 1, USED);
        }
        Ok(())
    }

    /// Records an owner of pages; two owners are a problem, and false.
    fn own(&mut self, page: PageId, pages: u64, owner: u8) -> bool {
        let Some(owners) = &mut self.owners else {
            return true;
        };
        for number in page.0..page.0.saturating_add(pages) {
            match owners.get_mut(number as usize) {
                Some(place) if *place == UNOWNED => *place = owner,
                Some(_) => {
                    self.problem(PageId(number), "the page is in use twice");
                    return false;
                }
                None => {
                    self.problem(PageId(number), "the page is beyond the file");
                    return false;
                }
            }
        }
        true
    }

    fn check_totals(&mut self, meta: &Meta, value_table: &ValueTable) {
        let owners = self.owners.iter().flatten();
        let lost: Vec<_> = (0..)
            .zip(owners)
            .filter(|(_, owner)| **owner == UNOWNED)
            .map(|(page, _)| PageId(page))
            .take(PAGES_NAMED_MAX)
            .collect();
        for page in lost {
            self.problem(page, "the page is neither in use nor free");
        }
        let entries = self.report.entries;
        let counted = entries.saturating_add_signed(self.entries_too_many);
        if meta.adds_up && meta.entries != counted {
            let what = format!(
                "the meta page counts {} entries where nodes count {counted}, and there are {entries}",
                meta.entries
            );
            self.problem(PageId(0), what);
        }
        if meta.adds_up && *value_table != self.value_table {
            let what = "the table of value files counts other references than there are";
            self.problem(meta.value_table, what);
        }
        if meta.adds_up && meta.overflow_units != self.overflow_units {
            let what = format!(
                "the meta page counts {} overflow pages where there are {}",
                meta.overflow_units, self.overflow_units
            );
            self.problem(PageId(0), what);
        }
    }

    /// Reads and checks the node that `link` means; `None` if it is damaged.
    pub(super) fn read_node(
        &mut self,
        link: Link,
        level: u8,
        fences: &Fences,
    ) -> Result<Option<Vec<u8>>> {
        let page = link.page();
        let pager = &self.tree.shared.pager;
        if page.0 < META_UNITS || page.0 >= self.file_units {
            self.problem(page, "a reference leads outside the file");
            return Ok(None);
        }
        let read = |bytes: &mut [u8], at| self.file.read_exact_at(bytes, at);
        let image = match pager.read_node(page, self.file_units, read) {
            Err(error) if error.is_corruption() => {
                self.report.problem(error);
                return Ok(None);
            }
            image => image?,
        };
        self.bytes += image.len() as u64;
        self.report.blocks += 1;
        let checked = pager.check_node(&image, page);
        if let Err(error) = checked.and_then(|()| pager.check_meant(&image, link)) {
            self.report.problem(error);
            return Ok(None);
        }
        if node::level(&image) != level {
            let what = "the node is not at the level where it was referred to";
            self.problem(page, what);
            return Ok(None);
        }
        self.check_fences(&image, fences, page);
        Ok(Some(image))
    }

    /// Checks the file's tree from `link` down, from the file itself. `packed` is what packs hold
    /// for it.
    fn check_disk(
        &mut self,
        link: Link,
        packed: Option<PackedLeaf>,
        level: u8,
        fences: &Fences,
    ) -> Result<()> {
        let page = link.page();
        let Some(image) = self.read_node(link, level, fences)? else {
            return Ok(());
        };
        if !self.own(page, node::unit_count(&image).into(), USED) {
            // What is below has been seen, or will be: hostile pages that all refer to the same
            // ones would keep this busy forever.
            return Ok(());
        }
        if node::kind(&image) == Some(NodeKind::Leaf) {
            self.check_values(&image, page)?;
            if let Some(packed) = packed
                && let Some(merged) = self.check_packed(&packed, &image)?
            {
                let len = |image: &[u8]| Leaf::from_image(image).len() as i64;
                let more = len(&merged) - len(&image);
                self.report.entries = self.report.entries.saturating_add_signed(more);
                self.entries_too_many += i64::from(packed.held.entries) - more;
                if let Err(what) = node::validate(&merged) {
                    self.problem(page, what);
                }
            }
            return Ok(());
        }
        let inner = Inner::from_image(&image);
        let are_sound = match inner.packs() {
            Some(packs) => self.check_packs(&packs.decode())?,
            None => true,
        };
        for i in 0..inner.child_count() {
            let fences = child_fences(inner, i);
            let below = level.saturating_sub(1);
            let packed = inner.packed(i).filter(|_| are_sound);
            self.check_disk(inner.child(i), packed, below, &fences)?;
        }
        Ok(())
    }

    /// Checks the packs of a node of level 1, from the file itself, and who owns their units. False
    /// if what they hold cannot be looked at.
    pub(super) fn check_packs(&mut self, packs: &Packs) -> Result<bool> {
        let mut are_sound = true;
        for group in &packs.groups {
            for (page, units) in group.extents() {
                are_sound &= self.own(page, units, USED);
            }
            let Area { start, used, .. } = group.area;
            let mut next = start;
            for pack in &group.recent {
                let page = pack.link.page();
                if page.0 != next {
                    self.problem(page, "a recent pack is not where the one before it ends");
                }
                next = page.0.saturating_add(pack.units.into());
            }
            if next != start.saturating_add(used.into()) {
                let what = "an area has other units in use than its packs have";
                self.problem(PageId(start), what);
            }
            if !are_sound {
                // Hostile nodes that all refer to the same packs would keep this busy forever.
                return Ok(false);
            }
            for pack in group.old.iter().chain(&group.recent) {
                are_sound &= self.check_pack(pack)?;
            }
        }
        Ok(are_sound)
    }

    /// Checks one pack by itself.
    fn check_pack(&mut self, pack: &PackRef) -> Result<bool> {
        let page = pack.link.page();
        if page.0 < META_UNITS || page.0 >= self.file_units {
            self.problem(page, "a reference leads outside the file");
            return Ok(false);
        }
        let pager = &self.tree.shared.pager;
        let read = |bytes: &mut [u8], at| self.file.read_exact_at(bytes, at);
        let checked = pager
            .read_node(page, self.file_units, read)
            .and_then(|image| {
                pager.check_node(&image, page)?;
                pager.check_meant(&image, pack.link)?;
                Ok(image)
            });
        self.report.blocks += 1;
        let image = match checked {
            Err(error) if error.is_corruption() => {
                self.report.problem(error);
                return Ok(false);
            }
            image => image?,
        };
        self.bytes += image.len() as u64;
        if node::kind(&image) != Some(NodeKind::Pack) {
            self.problem(page, "there is another node where a pack was referred to");
            return Ok(false);
        }
        if pager.units_for(image.len()) != u64::from(pack.units) {
            self.problem(page, "a pack has other units than its owner says");
        }
        self.check_references(&image);
        Ok(true)
    }

    /// Checks that packs hold for a leaf of the file what its parent says. Returns the leaf with
    /// the changes made.
    fn check_packed(&mut self, packed: &PackedLeaf, image: &[u8]) -> Result<Option<Box<[u8]>>> {
        let tree = &self.tree.shared;
        let guard = crossbeam_epoch::pin();
        let page = packed.page.page();
        let changes = match tree.packed_changes(packed, image, ReadFor::Use, &guard) {
            Err(error) if error.is_corruption() => {
                self.report.problem(error);
                return Ok(None);
            }
            changes => changes?,
        };
        if has_overflow(image) {
            self.problem(page, "packs hold changes to a leaf with overflow values");
            return Ok(None);
        }
        let merged = leaf::merged(image, changes.iter(), tree.page_size());
        let (leaf, base) = (Leaf::from_image(&merged), Leaf::from_image(image));
        let more = |merged: usize, base: usize| merged as i64 - base as i64;
        if is_jumbo(&merged, tree.page_size()) {
            self.problem(page, "the changes in packs do not fit their page");
        }
        let held = packed.held;
        let entries = more(leaf.len(), base.len());
        // Bytes that the leaf does not have more, though its parent says so.
        let excess = i64::from(held.growth) - more(leaf.live_bytes(), base.live_bytes());
        if excess < 0 {
            self.problem(page, "packs hold more for the leaf than its parent says");
        }
        // An entry that an estimate has too many was there before: `growth` has its bytes twice.
        // One that it has too few is among the changes.
        let (too_few, too_many) = match held.is_estimate {
            true => (changes.len() as i64, excess / ENTRY_BYTES_MIN as i64),
            false => (0, 0),
        };
        if !(entries - too_few..=entries + too_many).contains(&held.entries.into()) {
            self.problem(page, "packs hold another number of entries for the leaf");
        }
        Ok(Some(merged))
    }

    /// Reads what the node in `image` refers to among the values that are stored apart.
    fn check_references(&mut self, image: &[u8]) {
        self.value_table.add_node(image);
        for reference in leaf::references(image) {
            match self.stored.check(reference) {
                Ok(bytes) => self.bytes += bytes,
                Err(error) => self.report.problem(error),
            }
        }
    }

    pub(super) fn check_values(&mut self, image: &[u8], page: PageId) -> Result<()> {
        let leaf = Leaf::from_image(image);
        self.report.entries += leaf.len() as u64;
        self.check_references(image);
        for i in 0..leaf.len() {
            if let LeafValue::Overflow {
                page: extent,
                len,
                checksum,
            } = leaf.value(i)
            {
                let pages = self.tree.shared.pager.units_for(len as usize);
                let inside = extent.0 >= META_UNITS
                    && extent
                        .0
                        .checked_add(pages)
                        .is_some_and(|end| end <= self.file_units);
                if !inside {
                    self.problem(page, "an overflow reference leads outside the file");
                    continue;
                }
                self.own(extent, pages, USED);
                self.overflow_units += pages;
                self.report.blocks += 1;
                self.bytes += u64::from(len);
                let pager = &self.tree.shared.pager;
                if let Some(problem) = pager.recheck_overflow(self.file, extent, len, checksum)? {
                    self.problem(extent, problem);
                }
            }
        }
        Ok(())
    }

    fn check_fences(&mut self, image: &[u8], fences: &Fences, page: PageId) {
        if fences_of(image) != *fences {
            self.problem(
                page,
                "the node's fences are not those that its parent gives it",
            );
        }
    }

    /// Checks the tree in memory, as a view of it: its nodes do not change, and its pages are kept.
    fn check_memory(&mut self) -> Result<()> {
        let view = self.tree.latest_view();
        self.check_child(view.root(), None, None, &(Vec::new(), None))
    }

    /// A pin for each node: the walk is long, and memory should be reclaimed meanwhile. `packed` is
    /// what packs hold for the child.
    fn check_child(
        &mut self,
        child: &Child,
        packed: Option<PackedLeaf>,
        level: Option<u8>,
        fences: &Fences,
    ) -> Result<()> {
        let tree = &self.tree.shared;
        match child.as_ref() {
            // The file's tree was checked; that the reference is right shows in the fences.
            ChildRef::Disk(link) => {
                let guard = crossbeam_epoch::pin();
                match tree.disk_node(link, level, &guard) {
                    Ok(image) => {
                        self.check_fences(&image, fences, link.page());
                        if let Some(packed) = packed
                            && let Some(merged) = self.check_packed(&packed, &image)?
                        {
                            self.check_image(&merged, level, fences);
                        }
                    }
                    Err(error) => self.report.problem(error),
                }
            }
            ChildRef::Inner(inner) => {
                self.check_image(&inner.image, level, fences);
                let node = inner.node();
                let below = node.level().checked_sub(1);
                for (i, slot) in inner.slots.iter().enumerate() {
                    let fences = child_fences(node, i);
                    let child = slot.load(&crossbeam_epoch::pin()).to_owned();
                    let packed = match &child {
                        Child::Disk(page) => inner.packed(i, *page),
                        _ => None,
                    };
                    self.check_child(&child, packed, below, &fences)?;
                }
            }
            ChildRef::Leaf(leaf) => match &leaf.read().body {
                Body::Whole { image, .. } => self.check_image(image, level, fences),
                Body::Changes(changes) => {
                    let guard = crossbeam_epoch::pin();
                    match tree.base_image(changes, ReadFor::Use, &guard) {
                        Ok(base) => {
                            if has_overflow(&base) {
                                self.memory_problem("changes lie over overflow values");
                            }
                            let page_size = tree.page_size();
                            let image = changes.merged(&base, page_size);
                            if is_jumbo(&image, page_size) {
                                self.memory_problem("changes do not fit their page");
                            }
                            self.check_image(&image, level, fences);
                        }
                        Err(error) => self.report.problem(error),
                    }
                }
                Body::Packed(_) => self.memory_problem("a leaf of the file is in memory"),
            },
        }
        Ok(())
    }

    fn check_image(&mut self, image: &[u8], level: Option<u8>, fences: &Fences) {
        if let Err(what) = node::validate(image) {
            self.memory_problem(&what);
        } else if level.is_some_and(|level| level != node::level(image)) {
            self.memory_problem("a node is at the wrong level");
        } else if fences_of(image) != *fences {
            self.memory_problem("a node's fences are not those that its parent gives it");
        }
    }

    fn memory_problem(&mut self, what: &str) {
        let what = format!("in memory: {what}");
        let path = self.tree.shared.pager.path();
        self.report.problem(Problem::in_file(path, what));
    }
}

/// The level of the root. One that no root can have becomes another one that none has.
pub(super) fn root_level(meta: &Meta) -> u8 {
    (meta.height - 1).min(u32::from(PACK_LEVEL) - 1) as u8
}

fn fences_of(image: &[u8]) -> Fences {
    let mut upper = Vec::new();
    if node::kind(image) == Some(NodeKind::Leaf) {
        let leaf = Leaf::from_image(image);
        let bounded = leaf.write_upper_fence(&mut upper);
        (leaf.lower_fence().to_vec(), bounded.then_some(upper))
    } else {
        let inner = Inner::from_image(image);
        let bounded = inner.write_upper_fence(&mut upper);
        (inner.lower_fence().to_vec(), bounded.then_some(upper))
    }
}

pub(super) fn child_fences(inner: Inner<'_>, i: usize) -> Fences {
    let (mut lower, mut upper) = (Vec::new(), Vec::new());
    inner.write_child_lower(i, &mut lower);
    let bounded = inner.write_child_upper(i, &mut upper);
    (lower, bounded.then_some(upper))
}
