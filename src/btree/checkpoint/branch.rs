//! Writing the leaves below an inner node of level 1: whole, or as changes in packs.
//!
//! A leaf with few changes stays where it is, and its changes go into a pack, together with those
//! of its neighbours. A leaf is written whole when the changes in memory and in packs have reached
//! a share of a page, or when it is whole in memory (it was split, merged, or has large values).
//!
//! A group of leaves ([`crate::btree::node::packs`]) has one of three things done to it:
//!
//! - nothing, if none of its leaves has new changes to be packed;
//! - the new changes are appended to its area, as a pack of their own;
//! - when that is full, everything that packs hold for it is *repacked*: merged, without what is
//!   older than its leaf, and written as old packs of new groups. Neighbouring groups that are
//!   repacked in one checkpoint are divided anew, by what came in since the last one: so that packs
//!   fill their units.
//!
//! What is not carried over into the new tree is freed: pages and packs were noted when their
//! parent was loaded (BW3 in [`crate::btree::write`]).

use super::count::{Counted, packed_bytes};
use super::write::{NewPlace, Output};
use crate::btree::file::freespace::Run;
use crate::btree::file::meta::META_UNITS;
use crate::btree::memory::delta::Delta;
use crate::btree::memory::node::{Body, Changes, Child, MemInner};
use crate::btree::node::inner::Inner;
use crate::btree::node::pack::{self, Change};
use crate::btree::node::packs::{Area, ChildPacks, Group, PackRef, PackedLeaf, Packs, RECENT_MAX};
use crate::btree::node::{self, Link, inner};
use crate::btree::read::shared::ReadFor;
use crate::error::Result;
use crate::types::PageId;
use crate::util::mutants::mutated;
use std::ops::Range;

/// Packs are written only where they take this part of what the leaves would, or less: readers pay
/// for packs, and a checkpoint that finds many changes in each leaf writes little more without.
const PACKS_SAVE: u64 = 6;
/// The same where a leaf takes one unit, and its neighbours' changes soon take as much.
const PACKS_SAVE_OF_SMALL_LEAVES: u64 = 2;
/// Units of new changes for which a group is made: a pack wastes half a unit, about.
const RECENT_UNITS: u64 = 3;
/// Units of an area, at most. It is read with one request.
const AREA_UNITS_MAX: u64 = 24;
/// Units of an old pack, about. It is read as a whole for each change in it.
const OLD_UNITS: u64 = 4;

/// True if the deletes in memory and in packs leave a quarter of the leaf at most, about. In packs
/// they would keep the space of all that they delete.
fn is_sparse(leaf: &PackedLeaf, changes: &Changes) -> bool {
    let in_packs = usize::from(leaf.held.entries.min(0).unsigned_abs());
    let gone = in_packs + changes.delta.deletes();
    let is_sparse = gone > 0 && gone >= 3 * changes.entries_left();
    is_sparse && !mutated!("sparse-leaf-left-to-packs")
}

/// A leaf while its parent is written.
enum Fate {
    /// Nothing of it is new; packs may hold changes to it.
    Kept(PackedLeaf),
    /// It has changes in memory, which lie over this.
    Changed(PackedLeaf, Child),
    /// It is written as a whole.
    Whole(Child),
}

impl Fate {
    /// The leaf of the file, if that stays.
    fn below(&self) -> Option<&PackedLeaf> {
        match self {
            Self::Kept(below) | Self::Changed(below, _) => Some(below),
            Self::Whole(_) => None,
        }
    }
}

/// What is done to a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Carry,
    Append,
    Repack,
}

/// A node of level 1 while it is written.
struct Branch<'t> {
    node: Inner<'t>,
    fates: Vec<Fate>,
    /// Of changed leaves that need not be looked at.
    estimates: Vec<Option<Counted>>,
    links: Vec<Link>,
    children: Vec<ChildPacks>,
    groups: Vec<Group>,
}

impl Branch<'_> {
    /// Fences of child `i`.
    fn fences(&self, i: usize) -> (Vec<u8>, Option<Vec<u8>>) {
        self.fences_of(i..i + 1)
    }

    fn fences_of(&self, children: Range<usize>) -> (Vec<u8>, Option<Vec<u8>>) {
        let (mut lower, mut upper) = (Vec::new(), Vec::new());
        self.node.write_child_lower(children.start, &mut lower);
        let bounded = self.node.write_child_upper(children.end - 1, &mut upper);
        (lower, bounded.then_some(upper))
    }
}

impl Output<'_> {
    /// Writes a node of level 1 and everything below it that is new.
    pub(super) fn write_branch(
        &mut self,
        inner: &MemInner,
        address: Option<usize>,
    ) -> Result<Link> {
        let count = inner.slots.len();
        let old = match &inner.packs {
            Some(packs) => Packs::clone(packs),
            None => Packs::none(count),
        };
        let mut branch = Branch {
            node: inner.node(),
            fates: Vec::with_capacity(count),
            estimates: vec![None; count],
            links: vec![Link::NOWHERE; count],
            children: vec![ChildPacks::default(); count],
            groups: Vec::new(),
        };
        for (i, slot) in inner.slots.iter().enumerate() {
            let child = slot.load(&crossbeam_epoch::pin()).to_owned();
            branch.fates.push(self.fate(child, i, &old));
        }
        let ranges = ranges_of(&old, count);
        let mut actions = Vec::with_capacity(ranges.len());
        for (group, range) in old.groups.iter().zip(&ranges) {
            self.keep_out_of_packs(&mut branch, range.clone());
            actions.push(self.action(&branch, group, range.clone()));
        }
        for i in 0..count {
            branch.estimates[i] = self.estimate_child(&branch, i);
        }
        self.read_ahead(&branch, &ranges, &actions);
        for i in 0..count {
            self.write_or_keep(&mut branch, i)?;
        }
        let mut at = 0;
        while at < actions.len() {
            let mut end = at + 1;
            match actions[at] {
                Action::Carry => self.carry(&mut branch, &old.groups[at], ranges[at].clone()),
                Action::Append => {
                    self.append(&mut branch, &old.groups[at], ranges[at].clone())?;
                }
                Action::Repack => {
                    if mutated!("repacked-packs-reused-at-once") {
                        self.give_back(&old.groups[at]);
                    }
                    while actions.get(end) == Some(&Action::Repack) {
                        end += 1;
                    }
                    self.repack(&mut branch, ranges[at].start..ranges[end - 1].end)?;
                }
            }
            at = end;
        }
        self.close_branch(branch, inner, address)
    }

    /// What packs hold for child `i` with its changes in memory, if it has any and they can do
    /// without a look at it.
    fn estimate_child(&mut self, branch: &Branch<'_>, i: usize) -> Option<Counted> {
        let Fate::Changed(leaf, child) = &branch.fates[i] else {
            return None;
        };
        let (lower, upper) = branch.fences(i);
        let fences = (&*lower, upper.as_deref());
        changes_of(child, |delta| self.estimate(leaf, fences, delta))
    }

    /// Asks for what will be looked at, all at once: leaves that are written whole, or compared
    /// with their changes, which puts have not looked at, and packs that are merged.
    fn read_ahead(&self, branch: &Branch<'_>, ranges: &[Range<usize>], actions: &[Action]) {
        for (fate, estimate) in branch.fates.iter().zip(&branch.estimates) {
            let below = match fate {
                Fate::Changed(below, _) if estimate.is_none() => Some(*below),
                Fate::Whole(child) => page_below(child),
                Fate::Kept(_) | Fate::Changed(..) => None,
            };
            if let Some(below) = below {
                self.tree.ask_for(&below, &crossbeam_epoch::pin());
            }
        }
        for (range, action) in ranges.iter().zip(actions) {
            if *action != Action::Repack {
                continue;
            }
            let leaves = branch.fates[range.clone()].iter().filter_map(Fate::below);
            let packs = leaves.flat_map(|leaf| leaf.packs.as_slice());
            let mut packs: Vec<Link> = packs.copied().collect();
            packs.sort_unstable_by_key(|link| link.page());
            packs.dedup();
            for link in packs {
                self.tree.pager.will_need(link, &crossbeam_epoch::pin());
            }
        }
    }

    /// The node itself.
    fn close_branch(
        &mut self,
        branch: Branch<'_>,
        inner: &MemInner,
        address: Option<usize>,
    ) -> Result<Link> {
        let Branch {
            links,
            children,
            groups,
            ..
        } = branch;
        let packs = Packs { children, groups };
        let image = if packs.is_empty() {
            let mut image = inner::without_packs(&inner.image, self.page_size());
            for (i, link) in links.iter().enumerate() {
                inner::set_child(&mut image, i, *link);
            }
            image
        } else {
            inner::with_packs(&inner.image, &links, &packs, self.page_size())
        };
        let place = self.place(image, 0)?;
        if let Some(address) = address {
            self.nodes.insert(address, place);
            self.packed.note(address, &links, packs);
        }
        Ok(place.link)
    }

    /// What becomes of child `i`, looked at alone.
    fn fate(&self, child: Child, i: usize, old: &Packs) -> Fate {
        let leaf = match &child {
            Child::Disk(page) => {
                let packed = old.packed(i, *page);
                return Fate::Kept(packed.unwrap_or_else(|| PackedLeaf::alone(*page)));
            }
            Child::Leaf(leaf) => leaf,
            Child::Inner(_) => return Fate::Whole(child),
        };
        let state = leaf.read();
        let Body::Changes(changes) = &state.body else {
            drop(state);
            return Fate::Whole(child);
        };
        let below = changes.base_in_file(&crossbeam_epoch::pin());
        let bytes = packed_bytes(&changes.delta);
        let fate = match below {
            Some(below)
                if usize::from(below.held.bytes) + bytes <= self.packed_bytes_max()
                    && !is_sparse(&below, changes) =>
            {
                Some(below)
            }
            _ => None,
        };
        drop(state);
        match fate {
            Some(below) => Fate::Changed(below, child),
            None => Fate::Whole(child),
        }
    }

    /// Leaves whose packs would save little are written whole.
    fn keep_out_of_packs(&self, branch: &mut Branch<'_>, range: Range<usize>) {
        let (mut leaves, mut bytes) = (0, 0);
        for fate in &branch.fates[range.clone()] {
            if let Fate::Changed(_, child) = fate {
                let new_bytes = changes_of(child, packed_bytes);
                leaves += u64::from(new_bytes > 0);
                bytes += new_bytes;
            }
        }
        // A leaf is three quarters full, about.
        let leaf_units = (self.units_for(self.page_size()) * 3).div_ceil(4);
        let pack_units = self.units_for(bytes + PACK_OVERHEAD_BYTES);
        let save = match leaf_units {
            1 => PACKS_SAVE_OF_SMALL_LEAVES,
            _ => PACKS_SAVE,
        };
        if bytes == 0 || save * pack_units <= leaves * leaf_units {
            return;
        }
        for fate in &mut branch.fates[range] {
            if let Fate::Changed(_, child) = fate {
                *fate = Fate::Whole(child.clone());
            }
        }
    }

    fn action(&self, branch: &Branch<'_>, group: &Group, range: Range<usize>) -> Action {
        let mut bytes = 0;
        let (mut is_held, mut is_strange) = (false, false);
        for (fate, i) in branch.fates[range.clone()].iter().zip(range) {
            let below = match fate {
                Fate::Kept(below) => below,
                Fate::Changed(below, child) => {
                    bytes += changes_of(child, packed_bytes);
                    below
                }
                Fate::Whole(_) => continue,
            };
            is_held |= below.held.mask != 0;
            // A leaf that was loaded with packs that are not the group's any more.
            is_strange |= group.links(i, below.held.mask) != below.packs;
        }
        let Area { units, used, .. } = group.area;
        let needed = self.units_for(bytes + PACK_OVERHEAD_BYTES);
        let has_place = match units {
            0 => needed <= AREA_UNITS_MAX,
            units => needed + u64::from(used) <= u64::from(units) && self.is_in_file(group.area),
        };
        let can_append = !group.is_empty() && group.recent.len() < RECENT_MAX && has_place;
        let is_cut = group.is_cut && !mutated!("cut-group-carried-by-both");
        match (bytes > 0, is_held) {
            (_, true) if is_cut || is_strange => Action::Repack,
            (true, _) if can_append && !is_cut => Action::Append,
            (true, _) => Action::Repack,
            (false, true) => Action::Carry,
            // Such groups are joined with those beside them.
            (false, false) => Action::Repack,
        }
    }

    /// Writes a leaf that is to be whole; of one that stays, its page is carried over.
    fn write_or_keep(&mut self, branch: &mut Branch<'_>, i: usize) -> Result<()> {
        match &branch.fates[i] {
            Fate::Kept(leaf) => {
                branch.links[i] = leaf.page;
                branch.children[i] = leaf.held;
            }
            Fate::Whole(child) => {
                let (link, _) = self.write_child(&child.as_ref(), Some(0))?;
                branch.links[i] = link;
                if mutated!("changes-older-than-their-leaf-count") {
                    branch.children[i] = held_below(child);
                }
            }
            Fate::Changed(leaf, child) => {
                let Counted { facts, held } = match branch.estimates[i] {
                    Some(estimate) => estimate,
                    None => self.compare(leaf, &delta_of(child))?,
                };
                branch.links[i] = leaf.page;
                branch.children[i] = held;
                let entries = facts.entries as i64 + i64::from(held.entries);
                let place = NewPlace {
                    link: leaf.page,
                    pages: facts.units,
                    entries,
                };
                self.entries += entries;
                self.carried.insert(leaf.page.page().0);
                if let Some(address) = child.as_ref().address() {
                    self.nodes.insert(address, place);
                }
            }
        }
        Ok(())
    }

    /// The group stays as it is.
    fn carry(&mut self, branch: &mut Branch<'_>, group: &Group, range: Range<usize>) {
        self.carry_extents(group);
        branch.groups.push(Group {
            first: range.start,
            is_cut: false,
            ..group.clone()
        });
    }

    /// True if the area is where one can be.
    fn is_in_file(&self, area: Area) -> bool {
        let end = area.start.checked_add(area.units.into());
        area.start >= META_UNITS && end.is_some_and(|end| end <= self.free.file_units)
    }

    /// A mistake, for the tests to find: views may look at the packs.
    fn give_back(&mut self, group: &Group) {
        for (page, units) in group.extents() {
            self.free.give(Run {
                start: page.0,
                len: units,
            });
        }
    }

    fn carry_extents(&mut self, group: &Group) {
        let extents = group.extents().map(|(page, _)| page.0);
        // Recent packs lie in an area, which is one extent.
        let starts = extents.chain(group.packs().map(|pack| pack.page().0));
        mutated!("packs-that-stay-are-freed", (), self.carried.extend(starts));
    }

    /// The new changes of the group become one more recent pack.
    fn append(
        &mut self,
        branch: &mut Branch<'_>,
        group: &Group,
        range: Range<usize>,
    ) -> Result<()> {
        let mut changed = Vec::new();
        let mut deltas = Vec::new();
        for i in range.clone() {
            if let Fate::Changed(_, child) = &branch.fates[i] {
                let delta = delta_of(child);
                if delta.len() > 0 {
                    changed.push(i);
                    deltas.push(delta);
                }
            }
        }
        let image = self.pack_image(branch, range.clone(), &deltas);
        let units = self.units_for(image.len());
        let mut area = group.area;
        let left = u64::from(area.units - area.used);
        if area.units > 0 && units > left && !mutated!("pack-longer-than-its-area") {
            // The fences are longer than was expected.
            return self.repack(branch, range);
        }
        self.carry_extents(group);
        let mut group = Group {
            first: range.start,
            ..group.clone()
        };
        if area.units == 0 {
            area.units = (units * RECENT_MAX as u64).min(AREA_UNITS_MAX).max(units) as u16;
            area.start = self.allocate(area.units.into())?.0;
        }
        let taken = mutated!("pack-over-the-one-before-it", 0, area.used);
        let page = PageId(area.start + u64::from(taken));
        // It was given out with the area, and written by a checkpoint that failed, perhaps.
        let guard = crossbeam_epoch::pin();
        self.tree.pager.reuse(page, units, &guard);
        drop(guard);
        area.used += units as u16;
        group.area = area;
        let link = self.write_pack(image, page)?;
        group.recent.push(PackRef {
            link,
            units: units as u32,
            first: 0,
        });
        for i in changed {
            branch.children[i].mask |= 1 << group.recent.len();
        }
        branch.groups.push(group);
        Ok(())
    }

    /// Everything that packs hold for the children, and their new changes, become old packs.
    fn repack(&mut self, branch: &mut Branch<'_>, range: Range<usize>) -> Result<()> {
        let recent_bytes = (RECENT_UNITS * self.unit()) as usize;
        let old_bytes = (OLD_UNITS * self.unit()) as usize;
        let mut group = Group::new(range.start);
        let mut new_bytes = 0;
        let mut packs = Vec::new();
        let mut deltas = Vec::new();
        let mut bytes = 0;
        let mut first = range.start;
        for i in range.clone() {
            let (delta, newer) = self.changes_to(branch, i)?;
            if new_bytes + newer > recent_bytes && new_bytes > 0 {
                packs.push((first..i, std::mem::take(&mut deltas)));
                self.close_group(branch, group, std::mem::take(&mut packs))?;
                group = Group::new(i);
                (new_bytes, bytes, first) = (0, 0, i);
            } else if bytes + packed_bytes(&delta) > old_bytes && bytes > 0 {
                packs.push((first..i, std::mem::take(&mut deltas)));
                (bytes, first) = (0, i);
            }
            new_bytes += newer;
            bytes += packed_bytes(&delta);
            branch.children[i].mask = u8::from(delta.len() > 0);
            if delta.len() > 0 {
                branch.children[i].bytes = u16::try_from(packed_bytes(&delta)).unwrap_or(u16::MAX);
            } else {
                branch.children[i] = ChildPacks::default();
            }
            deltas.push(delta);
        }
        packs.push((first..range.end, deltas));
        self.close_group(branch, group, packs)
    }

    fn close_group(
        &mut self,
        branch: &mut Branch<'_>,
        mut group: Group,
        packs: Vec<(Range<usize>, Vec<Delta>)>,
    ) -> Result<()> {
        for (range, deltas) in packs {
            if deltas.iter().all(|delta| delta.len() == 0) {
                continue;
            }
            let first = range.start;
            let image = self.pack_image(branch, range, &deltas);
            let units = self.units_for(image.len());
            let page = self.allocate(units)?;
            let link = self.write_pack(image, page)?;
            group.old.push(PackRef {
                link,
                units: units as u32,
                first,
            });
        }
        branch.groups.push(group);
        Ok(())
    }

    /// All that packs hold for child `i` with its new changes, and how many bytes of them are new.
    fn changes_to(&self, branch: &Branch<'_>, i: usize) -> Result<(Delta, usize)> {
        let (below, newer) = match &branch.fates[i] {
            Fate::Whole(_) => return Ok((Delta::new(0), 0)),
            Fate::Kept(below) => (below, None),
            Fate::Changed(below, child) => (below, Some(child)),
        };
        let (lower, upper) = branch.fences(i);
        let guard = crossbeam_epoch::pin();
        let tree = self.tree;
        let mut all =
            tree.changes_between(below, &lower, upper.as_deref(), ReadFor::Rewrite, &guard)?;
        let mut bytes = 0;
        if let Some(newer) = newer {
            let newer = delta_of(newer);
            bytes = packed_bytes(&newer);
            for (key, value) in newer.iter() {
                all.set(all.search(key), key, value);
            }
        }
        Ok((all, bytes))
    }

    fn pack_image(&self, branch: &Branch<'_>, range: Range<usize>, deltas: &[Delta]) -> Box<[u8]> {
        let changes: Vec<Change<'_>> = deltas.iter().flat_map(Delta::iter).collect();
        let (lower, upper) = branch.fences_of(range);
        let upper = upper.as_deref();
        pack::build(&lower, upper, &changes, self.seq, self.page_size())
    }

    fn write_pack(&mut self, mut image: Box<[u8]>, page: PageId) -> Result<Link> {
        node::set_page_id(&mut image, page);
        node::write_checksum(&mut image, self.tree.pager.seed_of_page(page));
        self.write_node(page, &image)?;
        Ok(Link::to(&image))
    }

    /// Bytes of changes to a leaf from which on it is written whole.
    fn packed_bytes_max(&self) -> usize {
        match self.writes_whole_leaves {
            true => 0,
            false => self.page_size() * 3 / 8,
        }
    }

    fn page_size(&self) -> usize {
        self.tree.page_size()
    }

    fn unit(&self) -> u64 {
        self.tree.pager.unit() as u64
    }

    fn units_for(&self, bytes: usize) -> u64 {
        self.tree.pager.units_for(bytes)
    }
}

/// Header and fences of a pack, about.
const PACK_OVERHEAD_BYTES: usize = 160;

/// The leaf of the file over which the changes in memory lie.
fn page_below(child: &Child) -> Option<PackedLeaf> {
    match child {
        Child::Leaf(leaf) => match &leaf.read().body {
            Body::Changes(changes) => changes.base_in_file(&crossbeam_epoch::pin()),
            Body::Whole { .. } | Body::Packed(_) => None,
        },
        Child::Disk(_) | Child::Inner(_) => None,
    }
}

/// What packs hold for a leaf that has changes in memory.
fn held_below(child: &Child) -> ChildPacks {
    page_below(child).map_or_else(ChildPacks::default, |leaf| leaf.held)
}

/// What `look` finds in the changes of a leaf.
fn changes_of<R: Default>(child: &Child, look: impl FnOnce(&Delta) -> R) -> R {
    if let Child::Leaf(leaf) = child
        && let Body::Changes(changes) = &leaf.read().body
    {
        return look(&changes.delta);
    }
    R::default()
}

fn delta_of(child: &Child) -> Delta {
    changes_of(child, |delta| Some(delta.clone())).unwrap_or_else(|| Delta::new(0))
}

/// Children of each group.
fn ranges_of(packs: &Packs, count: usize) -> Vec<Range<usize>> {
    let groups = &packs.groups;
    let end = |n: usize| groups.get(n + 1).map_or(count, |group| group.first);
    let ranges = groups.iter().enumerate();
    ranges.map(|(n, group)| group.first..end(n)).collect()
}
