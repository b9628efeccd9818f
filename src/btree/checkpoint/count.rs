//! What packs hold for a leaf when they hold its changes in memory, too.
//!
//! The leaf's parent is told how many entries and bytes they add to it. There are two ways to know:
//!
//! - Changes are *compared* with the leaf and its packs. That is exact, and reads them.
//! - Puts are *estimated*, if the leaf is known ([`crate::btree::file::known_leaves`]) to have room
//!   for each of them as an entry more. Nothing is read. The bytes are an upper bound, so that the
//!   changes are sure to fit their page; how many of the puts are new entries is a guess
//!   ([`super::new_entries`]).
//!
//! The bound rises with each estimate, though it be the same entries that are put again and again.
//! Before puts would have to look whether there is room in truth, changes are compared, and what is
//! known of the leaf is exact again.

use super::write::Output;
use crate::btree::memory::delta::Delta;
use crate::btree::memory::node::free_bytes;
use crate::btree::node::leaf::{Leaf, LeafFacts, LeafValue, Stored};
use crate::btree::node::pack::{self, Change};
use crate::btree::node::packs::{ChildPacks, PackedLeaf};
use crate::btree::read::shared::ReadFor;
use crate::error::Result;
use crate::util::mutants::mutated;

/// An estimate leaves this part of a page free, and no less than it takes: puts that do not know of
/// room for themselves would look at the leaf, each by itself.
const LEFT_FREE: usize = 16;

/// A leaf that stays, and what packs hold for it with its changes. In which packs is not known yet.
#[derive(Clone, Copy)]
pub(super) struct Counted {
    pub(super) facts: LeafFacts,
    pub(super) held: ChildPacks,
}

/// What changes add to a leaf.
#[derive(Clone, Copy, Default)]
struct Gain {
    entries: isize,
    growth: isize,
}

impl Gain {
    /// What packs are said to add.
    fn of(held: &ChildPacks) -> Self {
        Self {
            entries: held.entries.into(),
            growth: held.growth.into(),
        }
    }

    /// One more change, of a key that has `old`, in a leaf whose prefix has `prefix_len` bytes.
    fn add(&mut self, change: Change<'_>, old: Option<LeafValue<'_>>, prefix_len: usize) {
        self.entries += isize::from(change.1.is_some()) - isize::from(old.is_some());
        self.growth += pack::growth(change, old, prefix_len);
    }
}

impl Output<'_> {
    /// What packs hold for `leaf` with `delta`, without a look at it. `None` if it is to be
    /// compared.
    pub(super) fn estimate(
        &mut self,
        leaf: &PackedLeaf,
        fences: (&[u8], Option<&[u8]>),
        delta: &Delta,
    ) -> Option<Counted> {
        let (facts, growth) = self.known_with_room(leaf, fences, delta)?;
        if self.new_entries.is_sample() {
            return None;
        }
        let new = self.new_entries.estimate(delta.len()) as i16;
        let held = ChildPacks {
            is_estimate: leaf.held.is_estimate || delta.len() > 0,
            entries: leaf.held.entries.saturating_add(new),
            growth,
            bytes: bytes_with(leaf, delta),
            ..leaf.held
        };
        Some(Counted { facts, held })
    }

    /// What is known of `leaf`, and the bytes that packs add to it with `delta`, at most: if those
    /// changes are puts, and there is room for all of them as entries more, and for others later.
    fn known_with_room(
        &self,
        leaf: &PackedLeaf,
        fences: (&[u8], Option<&[u8]>),
        delta: &Delta,
    ) -> Option<(LeafFacts, i16)> {
        if delta.deletes() > 0 {
            return None;
        }
        let guard = crossbeam_epoch::pin();
        let pager = &self.tree.pager;
        let facts = pager.known_leaf(leaf.page.page(), fences, &guard)?;
        let sizes = delta
            .iter()
            .map(|put| pack::growth(put, None, facts.prefix_len));
        let more = mutated!("estimated-changes-take-no-room", 0, sizes.sum::<isize>());
        let page_size = self.tree.page_size();
        let left = free_bytes(leaf, &facts, page_size) as isize - more;
        if left < more.max((page_size / LEFT_FREE) as isize) {
            return None;
        }
        let growth = i16::try_from(isize::from(leaf.held.growth) + more).ok()?;
        Some((facts, growth))
    }

    /// The same from a look at the leaf and its packs: exact, also where it was an estimate before.
    pub(super) fn compare(&mut self, leaf: &PackedLeaf, delta: &Delta) -> Result<Counted> {
        let guard = crossbeam_epoch::pin();
        let image = self.tree.disk_node(leaf.page, Some(0), &guard)?;
        let base = Leaf::from_image(&image);
        let prefix_len = base.prefix().len();
        let in_base = |key: &[u8]| Some(base.value(base.search(key).ok()?));
        let mut gain = Gain::of(&leaf.held);
        if leaf.held.is_estimate {
            gain = Gain::default();
            for change in self
                .tree
                .packed_changes(leaf, &image, ReadFor::Use, &guard)?
                .iter()
            {
                gain.add(change, in_base(change.0), prefix_len);
            }
        }
        let mut new = 0;
        for change in delta.iter() {
            let (packed, _) = self.tree.newest_in_packs(leaf, change.0, &guard)?;
            let old = match &packed {
                Some(slot) => slot.value().map(LeafValue::from),
                None => in_base(change.0),
            };
            gain.add(change, old, prefix_len);
            new += usize::from(change.1.is_some() && old.is_none());
        }
        self.new_entries.learn(delta.len() - delta.deletes(), new);
        let clamped = |value: isize| value.clamp(i16::MIN.into(), i16::MAX.into()) as i16;
        let held = ChildPacks {
            is_estimate: false,
            entries: clamped(gain.entries),
            growth: clamped(gain.growth),
            bytes: bytes_with(leaf, delta),
            ..leaf.held
        };
        let facts = LeafFacts::of(&image);
        Ok(Counted { facts, held })
    }
}

/// Bytes that changes take in a pack.
pub(super) fn packed_bytes(delta: &Delta) -> usize {
    let record = pack::record_bytes((&[], None));
    delta.iter().fold(0, |sum, (key, value)| {
        sum + record + key.len() + value.map_or(0, Stored::len)
    })
}

/// Bytes of the changes that packs hold for `leaf`, and of `delta`.
fn bytes_with(leaf: &PackedLeaf, delta: &Delta) -> u16 {
    let bytes = usize::from(leaf.held.bytes) + packed_bytes(delta);
    u16::try_from(bytes).unwrap_or(u16::MAX)
}
