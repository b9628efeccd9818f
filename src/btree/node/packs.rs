//! Which packs hold changes to the children of an inner node of level 1.
//!
//! The children, which are leaves, are divided into *groups* of neighbours. Each checkpoint that
//! finds changes in a group writes one *recent* pack for all of it. The recent packs of a group lie
//! in its *area*, an extent that is given out as a whole and filled from its front: so those of one
//! leaf are read with one request. When the area is full, or there are [`RECENT_MAX`] of them, they
//! and what was there before are merged into *old* packs, which stand side by side: of these a leaf
//! has at most one. So a leaf takes at most three requests.
//!
//! Of each child the node knows which packs hold changes to it that count (a mask), and what they
//! come to, so that neither a read of another leaf nor a put has to look into them. Where puts were
//! packed without a look at their leaf, that is an estimate ([`ChildPacks::is_estimate`]).
//!
//! docs/format.md, "B-tree: node", has the bytes, which stand behind the children in the image:
//!
//! ```text
//! packs:u32 | mask:u8 is_estimate:u8 entries:i16 growth:i16 bytes:u16, per child
//!   | first child:u16 first pack:u16 old packs:u16 used:u16 area units:u16 zero:u16 area:u64, per
//!   group | link:u64 units:u32 first child:u16 zero:u16, per pack
//! ```

use super::header::{GROUPS_AT, get_size, put_u16, put_u32, put_u64};
use super::link::Link;
use crate::format::coding::{get_u16, get_u32, get_u64};
use crate::types::PageId;

/// Most recent packs of a group: the bits of a mask above the lowest.
pub(crate) const RECENT_MAX: usize = 7;
/// Most packs with changes to one child.
const PACKS_MAX: usize = RECENT_MAX + 1;
/// Bytes of a child, of a group and of a pack in the section.
const CHILD_LEN: usize = 8;
const GROUP_LEN: usize = 20;
const PACK_LEN: usize = 16;

/// What packs hold for one child.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ChildPacks {
    /// Which packs hold changes to the child that count: the lowest bit stands for the old pack,
    /// the others for the group's recent packs, the oldest first.
    pub(crate) mask: u8,
    /// Some of the changes are puts that were not compared with the leaf: in `growth` each is an
    /// entry more, in `entries` some of them are.
    pub(crate) is_estimate: bool,
    /// Entries that the leaf has more with them than by itself, or about as many.
    pub(crate) entries: i16,
    /// Bytes that it has more, at most.
    pub(crate) growth: i16,
    /// Bytes of the changes.
    pub(crate) bytes: u16,
}

/// A pack as its owner knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PackRef {
    pub(crate) link: Link,
    pub(crate) units: u32,
    /// Of an old pack: the first child that it may have changes to.
    pub(crate) first: usize,
}

/// An extent of the file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Area {
    /// First unit.
    pub(crate) start: u64,
    /// None if the group has no area.
    pub(crate) units: u16,
    /// Units that packs have taken, from the front.
    pub(crate) used: u16,
}

/// Neighbours with common packs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Group {
    /// First child; the group ends where the next begins.
    pub(crate) first: usize,
    /// By their first children.
    pub(crate) old: Vec<PackRef>,
    /// The oldest first.
    pub(crate) recent: Vec<PackRef>,
    pub(crate) area: Area,
    /// In memory: another node may have children of the group, too. The next checkpoint writes the
    /// changes anew for each.
    pub(crate) is_cut: bool,
}

impl Group {
    /// Without packs.
    pub(crate) fn new(first: usize) -> Self {
        Self {
            first,
            old: Vec::new(),
            recent: Vec::new(),
            area: Area::default(),
            is_cut: false,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.old.is_empty() && self.recent.is_empty()
    }

    /// Where its packs are in the file: page number and units.
    pub(crate) fn extents(&self) -> impl Iterator<Item = (PageId, u64)> {
        let area =
            (self.area.units > 0).then(|| (PageId(self.area.start), u64::from(self.area.units)));
        let old = self.old.iter();
        old.map(|pack| (pack.link.page(), u64::from(pack.units)))
            .chain(area)
    }

    /// Its packs.
    pub(crate) fn packs(&self) -> impl Iterator<Item = Link> {
        let packs = self.old.iter().chain(&self.recent);
        packs.map(|pack| pack.link)
    }

    /// The old pack that may have changes to child `i`.
    pub(crate) fn old_pack(&self, i: usize) -> Option<PackRef> {
        let after = self.old.partition_point(|pack| pack.first <= i);
        Some(self.old[after.checked_sub(1)?])
    }

    /// Links to the packs with changes to child `i`, whose mask this is, the oldest first.
    pub(crate) fn links(&self, i: usize, mask: u8) -> PackLinks {
        let mut links = PackLinks::NONE;
        if mask & 1 != 0
            && let Some(old) = self.old_pack(i)
        {
            links.push(old.link);
        }
        for (n, pack) in self.recent.iter().enumerate() {
            if mask >> (n + 1) & 1 != 0 {
                links.push(pack.link);
            }
        }
        links
    }

    /// Calls `change` with the numbers of children.
    fn renumber(&mut self, change: impl Fn(usize) -> usize) {
        self.first = change(self.first);
        for pack in &mut self.old {
            pack.first = change(pack.first);
        }
    }
}

/// Links to packs, the oldest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PackLinks {
    len: u8,
    links: [Link; PACKS_MAX],
}

impl PackLinks {
    pub(crate) const NONE: Self = Self {
        len: 0,
        links: [Link::NOWHERE; PACKS_MAX],
    };

    fn push(&mut self, link: Link) {
        if let Some(place) = self.links.get_mut(usize::from(self.len)) {
            *place = link;
            self.len += 1;
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn as_slice(&self) -> &[Link] {
        &self.links[..usize::from(self.len)]
    }
}

/// A leaf of the file and the packs with changes to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PackedLeaf {
    pub(crate) page: Link,
    pub(crate) packs: PackLinks,
    pub(crate) held: ChildPacks,
}

impl PackedLeaf {
    /// Without packs.
    pub(crate) fn alone(page: Link) -> Self {
        Self {
            page,
            packs: PackLinks::NONE,
            held: ChildPacks::default(),
        }
    }
}

/// The packs of a node's children.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Packs {
    /// Of each child.
    pub(crate) children: Vec<ChildPacks>,
    /// Rising; the first begins with the first child.
    pub(crate) groups: Vec<Group>,
}

impl Packs {
    /// Of `count` children without any.
    pub(crate) fn none(count: usize) -> Self {
        Self {
            children: vec![ChildPacks::default(); count],
            groups: vec![Group::new(0)],
        }
    }

    /// All of them.
    pub(crate) fn links(&self) -> impl Iterator<Item = Link> {
        self.groups.iter().flat_map(Group::packs)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.groups.iter().all(Group::is_empty)
    }

    /// The group of child `i`.
    pub(crate) fn group_of(&self, i: usize) -> usize {
        let after = self.groups.partition_point(|group| group.first <= i);
        after.saturating_sub(1)
    }

    /// What packs hold for child `i`, which is at `page`.
    pub(crate) fn packed(&self, i: usize, page: Link) -> Option<PackedLeaf> {
        let held = *self.children.get(i).filter(|child| child.mask != 0)?;
        Some(PackedLeaf {
            page,
            packs: self.groups[self.group_of(i)].links(i, held.mask),
            held,
        })
    }

    /// Child `i` became two that are whole.
    pub(crate) fn with_split(&self, i: usize) -> Self {
        let mut packs = self.clone();
        packs.children[i] = ChildPacks::default();
        packs.children.insert(i + 1, ChildPacks::default());
        for group in &mut packs.groups {
            group.renumber(|first| first + usize::from(first > i));
        }
        packs
    }

    /// Without the children in `range`; child `whole` of the rest is whole.
    pub(crate) fn without(&self, range: std::ops::Range<usize>, whole: usize) -> Self {
        let mut packs = self.clone();
        packs.children.drain(range.clone());
        if let Some(child) = packs.children.get_mut(whole) {
            *child = ChildPacks::default();
        }
        for group in &mut packs.groups {
            group.renumber(|first| first - (first.min(range.end) - first.min(range.start)));
        }
        packs.drop_empty();
        packs
    }

    /// Groups and old packs without children go; of several that begin with the same child the last
    /// one has it.
    fn drop_empty(&mut self) {
        let count = self.children.len();
        let firsts: Vec<usize> = self.groups.iter().map(|group| group.first).collect();
        let mut i = 0;
        self.groups.retain_mut(|group| {
            i += 1;
            let end = firsts.get(i).copied().unwrap_or(count);
            let firsts: Vec<usize> = group.old.iter().map(|pack| pack.first).collect();
            let mut n = 0;
            group.old.retain(|pack| {
                n += 1;
                pack.first < firsts.get(n).copied().unwrap_or(end)
            });
            group.first < end
        });
        if self.groups.is_empty() {
            self.groups.push(Group::new(0));
        }
    }

    /// Those of the first `at` children, and those of the others.
    pub(crate) fn cut(&self, at: usize) -> (Self, Self) {
        let mut left = self.clone();
        let mut right = Self {
            children: left.children.split_off(at),
            groups: self.groups.clone(),
        };
        let cut = self.group_of(at);
        if self.groups[cut].first < at {
            left.groups[cut].is_cut = true;
            right.groups[cut].is_cut = true;
        }
        left.groups.retain(|group| group.first < at);
        left.drop_empty();
        for group in &mut right.groups {
            group.renumber(|first| first.saturating_sub(at));
        }
        right.drop_empty();
        (left, right)
    }

    /// These, and behind them those of the node after it.
    pub(crate) fn join(&self, other: &Self) -> Self {
        let mut packs = self.clone();
        let count = packs.children.len();
        packs.children.extend_from_slice(&other.children);
        packs
            .groups
            .extend(other.groups.iter().cloned().map(|mut group| {
                group.renumber(|first| first + count);
                group
            }));
        packs
    }

    /// Where packs are in the file.
    pub(crate) fn extents(&self) -> impl Iterator<Item = (PageId, u64)> {
        self.groups.iter().flat_map(Group::extents)
    }

    /// The section of the image, and the number of groups for its header.
    pub(super) fn encode(&self) -> (Vec<u8>, u16) {
        if self.is_empty() {
            return (Vec::new(), 0);
        }
        let packs = |group: &Group| group.old.len() + group.recent.len();
        let packs: usize = self.groups.iter().map(packs).sum();
        let len =
            4 + CHILD_LEN * self.children.len() + GROUP_LEN * self.groups.len() + PACK_LEN * packs;
        let mut out = vec![0; len];
        put_u32(&mut out, 0, packs as u32);
        let mut at = 4;
        for child in &self.children {
            out[at] = child.mask;
            out[at + 1] = child.is_estimate.into();
            put_u16(&mut out, at + 2, child.entries.cast_unsigned());
            put_u16(&mut out, at + 4, child.growth.cast_unsigned());
            put_u16(&mut out, at + 6, child.bytes);
            at += CHILD_LEN;
        }
        let mut first_pack = 0;
        for group in &self.groups {
            put_u16(&mut out, at, group.first as u16);
            put_u16(&mut out, at + 2, first_pack as u16);
            put_u16(&mut out, at + 4, group.old.len() as u16);
            put_u16(&mut out, at + 6, group.area.used);
            put_u16(&mut out, at + 8, group.area.units);
            put_u64(&mut out, at + 12, group.area.start);
            first_pack += group.old.len() + group.recent.len();
            at += GROUP_LEN;
        }
        for group in &self.groups {
            for pack in group.old.iter().chain(&group.recent) {
                put_u64(&mut out, at, pack.link.bits());
                put_u32(&mut out, at + 8, pack.units);
                put_u16(&mut out, at + 12, pack.first as u16);
                at += PACK_LEN;
            }
        }
        (out, self.groups.len() as u16)
    }
}

/// Reads the section of an image.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PackSection<'a> {
    image: &'a [u8],
    at: usize,
    children: usize,
    groups: usize,
}

impl<'a> PackSection<'a> {
    /// The section at `at` of the image of a node with `children` children.
    #[inline]
    pub(super) fn new(image: &'a [u8], at: usize, children: usize) -> Option<Self> {
        let groups = usize::from(get_u16(image, GROUPS_AT));
        (groups > 0).then_some(Self {
            image,
            at,
            children,
            groups,
        })
    }

    fn pack_count(self) -> usize {
        get_size(self.image, self.at)
    }

    fn child_at(self, i: usize) -> usize {
        self.at + 4 + CHILD_LEN * i
    }

    fn group_at(self, group: usize) -> usize {
        self.child_at(self.children) + GROUP_LEN * group
    }

    fn pack_at(self, pack: usize) -> usize {
        self.group_at(self.groups) + PACK_LEN * pack
    }

    /// First byte behind the section, if it ends before `limit`. For bytes that are not trusted.
    pub(super) fn end_below(self, limit: usize) -> Option<usize> {
        (self.group_at(self.groups) <= limit).then_some(())?;
        let packs = (self.pack_count() <= limit / PACK_LEN).then(|| self.pack_count())?;
        Some(self.pack_at(packs)).filter(|end| *end <= limit)
    }

    /// What is wrong with the section, which lies inside the image.
    pub(super) fn problem(self) -> Option<&'static str> {
        let mut packs_before = 0;
        for group in 0..self.groups {
            let at = self.group_at(group);
            let first = self.first_child(group);
            let (from, to) = (self.first_pack(group), self.first_pack(group + 1));
            let end = self.first_child(group + 1);
            if first >= end || end > self.children || group == 0 && first != 0 {
                return Some("groups of packs do not ascend");
            }
            if from != packs_before || to < from || to > self.pack_count() {
                return Some("packs of groups do not ascend");
            }
            let old = self.old_count(group);
            if old > to - from || to - from - old > RECENT_MAX {
                return Some("a group has too many packs");
            }
            if get_u16(self.image, at + 6) > get_u16(self.image, at + 8)
                || get_u16(self.image, at + 10) != 0
            {
                return Some("an area of packs is too short");
            }
            packs_before = to;
            let mut next = first;
            for pack in from..from + old {
                if self.pack(pack).first < next {
                    return Some("old packs do not ascend");
                }
                next = self.pack(pack).first + 1;
            }
            let first_with_old = if old > 0 { self.pack(from).first } else { end };
            let recent = to - from - old;
            for child in first..end {
                let at = self.child_at(child);
                let mask = usize::from(self.image[at]);
                let has_no_pack = mask >> (recent + 1) != 0;
                if has_no_pack || mask & 1 != 0 && child < first_with_old {
                    return Some("a child has changes in a pack that is not there");
                }
                if self.image[at + 1] > 1 {
                    return Some("what packs hold for a child is neither exact nor an estimate");
                }
            }
        }
        (packs_before != self.pack_count()).then_some("packs belong to no group")
    }

    fn first_child(self, group: usize) -> usize {
        match group < self.groups {
            true => usize::from(get_u16(self.image, self.group_at(group))),
            false => self.children,
        }
    }

    fn first_pack(self, group: usize) -> usize {
        match group < self.groups {
            true => usize::from(get_u16(self.image, self.group_at(group) + 2)),
            false => self.pack_count(),
        }
    }

    fn old_count(self, group: usize) -> usize {
        usize::from(get_u16(self.image, self.group_at(group) + 4))
    }

    fn pack(self, pack: usize) -> PackRef {
        let at = self.pack_at(pack);
        PackRef {
            link: Link::from_bits(get_u64(self.image, at)),
            units: get_u32(self.image, at + 8),
            first: usize::from(get_u16(self.image, at + 12)),
        }
    }

    fn child(self, i: usize) -> ChildPacks {
        let at = self.child_at(i);
        ChildPacks {
            mask: self.image[at],
            is_estimate: self.image[at + 1] != 0,
            entries: get_u16(self.image, at + 2).cast_signed(),
            growth: get_u16(self.image, at + 4).cast_signed(),
            bytes: get_u16(self.image, at + 6),
        }
    }

    /// What packs hold for child `i`, which is at `page`.
    #[inline]
    pub(crate) fn packed(self, i: usize, page: Link) -> Option<PackedLeaf> {
        if self.image[self.child_at(i)] == 0 {
            return None;
        }
        let held = self.child(i);
        let (mut low, mut high) = (0, self.groups);
        while high - low > 1 {
            let middle = (low + high) / 2;
            match self.first_child(middle) <= i {
                true => low = middle,
                false => high = middle,
            }
        }
        let mut packs = PackLinks::NONE;
        let from = self.first_pack(low);
        let recent = from + self.old_count(low);
        if held.mask & 1 != 0 {
            let old = (from..recent).rev().map(|pack| self.pack(pack));
            if let Some(pack) = old.into_iter().find(|pack| pack.first <= i) {
                packs.push(pack.link);
            }
        }
        for (n, pack) in (recent..self.first_pack(low + 1)).enumerate() {
            if held.mask >> (n + 1) & 1 != 0 {
                packs.push(self.pack(pack).link);
            }
        }
        Some(PackedLeaf { page, packs, held })
    }

    pub(crate) fn decode(self) -> Packs {
        let group = |group: usize| {
            let at = self.group_at(group);
            let from = self.first_pack(group);
            let recent = from + self.old_count(group);
            let packs = |packs: std::ops::Range<usize>| packs.map(|pack| self.pack(pack)).collect();
            Group {
                first: self.first_child(group),
                old: packs(from..recent),
                recent: packs(recent..self.first_pack(group + 1)),
                area: Area {
                    used: get_u16(self.image, at + 6),
                    units: get_u16(self.image, at + 8),
                    start: get_u64(self.image, at + 12),
                },
                is_cut: false,
            }
        };
        Packs {
            children: (0..self.children).map(|i| self.child(i)).collect(),
            groups: (0..self.groups).map(group).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pack(page: u64, first: usize) -> PackRef {
        PackRef {
            link: Link::new(PageId(page), page as u32),
            units: 2,
            first,
        }
    }

    /// Children with as many bytes as their number, in groups that begin with these.
    fn packs(count: usize, firsts: &[usize]) -> Packs {
        let child = |i: usize| ChildPacks {
            mask: 1,
            bytes: i as u16,
            ..ChildPacks::default()
        };
        let group = |first: &usize| Group {
            old: vec![pack(100 + *first as u64, *first)],
            ..Group::new(*first)
        };
        Packs {
            children: (0..count).map(child).collect(),
            groups: firsts.iter().map(group).collect(),
        }
    }

    /// Bytes of a child and the page of its pack.
    fn held(packs: &Packs) -> Vec<(u16, u64)> {
        let page = |i: usize| {
            let packed = packs.packed(i, Link::NOWHERE).expect("it has a mask");
            packed.packs.as_slice()[0].page().0
        };
        let children = packs.children.iter().enumerate();
        children
            .filter(|(_, child)| child.mask != 0)
            .map(|(i, child)| (child.bytes, page(i)))
            .collect()
    }

    #[test]
    fn children_keep_their_packs_whatever_happens_beside_them() {
        let firsts = [0, 3, 4, 8];
        let all = packs(10, &firsts);
        for i in 0..10 {
            let split = all.with_split(i);
            assert_eq!(split.children.len(), 11);
            let others = |packs: &Packs, gone: &[u16]| -> Vec<_> {
                let held = held(packs).into_iter();
                held.filter(|(bytes, _)| !gone.contains(bytes)).collect()
            };
            assert_eq!(held(&split), others(&all, &[i as u16]));
            for to in i..10 {
                let without = all.without(i..to, i);
                let gone: Vec<u16> = (i..=to).map(|i| i as u16).collect();
                assert_eq!(held(&without), others(&all, &gone), "{i}..{to}");
                assert_eq!(without.children.len(), 10 - (to - i));
                assert_eq!(without.groups[0].first, 0);
            }
            if i == 0 {
                continue;
            }
            let (left, right) = all.cut(i);
            assert_eq!([held(&left), held(&right)].concat(), held(&all));
            let is_cut = !firsts.contains(&i);
            assert_eq!(left.groups.iter().any(|group| group.is_cut), is_cut);
            assert_eq!(right.groups.iter().any(|group| group.is_cut), is_cut);
            assert_eq!(right.groups[0].first, 0);
            assert_eq!(held(&left.join(&right)), held(&all));
        }
    }

    #[test]
    fn an_area_is_one_extent() {
        let group = Group {
            old: vec![pack(7, 0), pack(9, 3)],
            recent: vec![pack(20, 0), pack(22, 0)],
            area: Area {
                start: 20,
                units: 16,
                used: 4,
            },
            ..Group::new(0)
        };
        let extents: Vec<_> = group.extents().collect();
        assert_eq!(extents, [(PageId(7), 2), (PageId(9), 2), (PageId(20), 16)]);
        let links = |i, mask| group.links(i, mask).as_slice().to_vec();
        assert_eq!(links(2, 0b101), [group.old[0].link, group.recent[1].link]);
        assert_eq!(links(3, 0b011), [group.old[1].link, group.recent[0].link]);
        assert!(links(2, 0).is_empty());
    }

    #[test]
    fn the_bytes_read_as_they_were_written() {
        let mut all = packs(10, &[0, 4]);
        all.groups[1].recent = vec![pack(30, 0)];
        all.groups[1].old.push(pack(200, 6));
        all.groups[1].area = Area {
            start: 30,
            units: 14,
            used: 2,
        };
        all.children[7] = ChildPacks {
            mask: 0b10,
            is_estimate: true,
            entries: -3,
            growth: -70,
            bytes: 99,
        };
        let (section, groups) = all.encode();
        let mut image = vec![0; 100];
        put_u16(&mut image, GROUPS_AT, groups);
        image.extend_from_slice(&section);
        let read = PackSection::new(&image, 100, 10).unwrap();
        assert_eq!(read.end_below(image.len()), Some(image.len()));
        assert_eq!(read.end_below(image.len() - 1), None);
        assert_eq!(read.problem(), None);
        assert_eq!(read.decode(), all);
        for i in 0..10 {
            let page = Link::new(PageId(i as u64), 1);
            assert_eq!(read.packed(i, page), all.packed(i, page));
        }
        let estimate_at = read.child_at(7) + 1;
        assert_eq!(image[estimate_at], 1);
        image[estimate_at] = 2;
        let read = PackSection::new(&image, 100, 10).unwrap();
        assert!(read.problem().is_some());
        image[estimate_at] = 1;
        for at in 100..image.len() {
            for bit in 0..8 {
                let mut bad = image.clone();
                bad[at] ^= 1 << bit;
                let read = PackSection::new(&bad, 100, 10).unwrap();
                if read.end_below(bad.len()).is_some() && read.problem().is_none() {
                    for i in 0..10 {
                        read.packed(i, Link::NOWHERE);
                    }
                    read.decode();
                }
            }
        }
    }
}
