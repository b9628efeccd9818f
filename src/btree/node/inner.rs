//! Inner nodes: `n` children and the `n - 1` separators between them.
//!
//! Separators never change in place: whatever changes them makes a new image
//! ([`rebuild`]). So the tree can share an image between versions and keep the children
//! of each version beside it; the links in the image are set when a checkpoint has
//! given every child its place.

mod rebuild;

use super::header::{Frame, SLOT_LEN, get_size, level, put_u64};
use super::link::Link;
use super::packs::{PackSection, PackedLeaf};
use super::search;
use crate::format::coding::get_u64;
use crate::util::key_prefix::head32;

#[cfg(test)]
pub(crate) use rebuild::with_fences;
pub(crate) use rebuild::{build, merge, with_packs, with_split, without_children, without_packs};

/// Bytes of a record before its separator: the length (u32). A separator can be one byte
/// longer than the longest key, too long for a u16.
pub(crate) const RECORD_HEADER_LEN: usize = 4;
/// Bytes of a child: the link to it.
pub(crate) const CHILD_LEN: usize = 8;

/// Reads an inner node. Child `i` covers the keys in `[separator(i - 1), separator(i))`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Inner<'a>(&'a [u8]);

impl<'a> Inner<'a> {
    /// The inner node in `image`, which passed `validate` or was made here.
    #[inline]
    pub(crate) fn from_image(image: &'a [u8]) -> Self {
        Self(image)
    }

    #[inline]
    fn frame(self) -> Frame<'a> {
        Frame(self.0)
    }

    /// Distance from the leaves, at least 1.
    pub(crate) fn level(self) -> u8 {
        level(self.0)
    }

    /// Number of children, at least 1.
    #[inline]
    pub(crate) fn child_count(self) -> usize {
        self.frame().count() + 1
    }

    /// The link to child `i`, as the image has it.
    pub(crate) fn child(self, i: usize) -> Link {
        debug_assert!(i < self.child_count());
        Link::from_bits(get_u64(self.0, self.frame().slots_end() + CHILD_LEN * i))
    }

    /// The packs of the children, if there are any.
    #[inline]
    pub(crate) fn packs(self) -> Option<PackSection<'a>> {
        let count = self.child_count();
        let at = self.frame().slots_end() + CHILD_LEN * count;
        PackSection::new(self.0, at, count)
    }

    /// Child `i` and its packs, if any hold changes to it.
    #[inline]
    pub(crate) fn packed(self, i: usize) -> Option<PackedLeaf> {
        self.packs()?.packed(i, self.child(i))
    }

    /// Index of the child that covers `key`, which the node covers. Reads no links.
    #[inline]
    pub(crate) fn find_child(self, key: &[u8]) -> usize {
        match self.search(key) {
            // A separator belongs to the child on its right.
            Ok(i) => i + 1,
            Err(i) => i,
        }
    }

    /// Index of the child that covers `key`, which is not before child `i`; `None` if it is beyond
    /// the node. Looks in steps that double: the child is likely to be near.
    pub(crate) fn find_child_from(self, i: usize, key: &[u8]) -> Option<usize> {
        let frame = self.frame();
        let suffix = key.strip_prefix(frame.prefix())?;
        let count = frame.count();
        let is_before = |separator: usize| suffix < self.separator_suffix(separator);
        // The key is before separator `high`, if there is one, and not before any below `low`.
        let (mut low, mut high, mut step) = (i, count, 1);
        while low < high {
            let probe = (low + step - 1).min(high - 1);
            if is_before(probe) {
                high = probe;
                break;
            }
            low = probe + 1;
            step *= 2;
        }
        while low < high {
            let middle = low.midpoint(high);
            if is_before(middle) {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        let is_beyond = low == count && frame.upper_suffix().is_some_and(|upper| suffix >= upper);
        (!is_beyond).then_some(low)
    }

    /// Index of the child that covers the keys right before `key`; the first if there are none.
    #[inline]
    pub(crate) fn find_child_before(self, key: &[u8]) -> usize {
        self.search(key).unwrap_or_else(|i| i)
    }

    /// The separator that is `key`, or the one before which it would go.
    #[inline]
    fn search(self, key: &[u8]) -> Result<usize, usize> {
        let frame = self.frame();
        let prefix = frame.prefix();
        let Some(suffix) = key.strip_prefix(prefix) else {
            return Err(if key < prefix { 0 } else { frame.count() });
        };
        let slots_at = frame.slots_at();
        search::find(frame.heads(), head32(suffix), suffix, |i| {
            self.suffix_at(get_size(self.0, slots_at + 4 * i))
        })
    }

    #[inline]
    fn suffix_at(self, record_at: usize) -> &'a [u8] {
        let len = get_size(self.0, record_at);
        let at = record_at + RECORD_HEADER_LEN;
        &self.0[at..at + len]
    }

    /// Separator `i` after the prefix.
    pub(crate) fn separator_suffix(self, i: usize) -> &'a [u8] {
        self.suffix_at(self.frame().record_at(i))
    }

    /// What every key below this node starts with.
    pub(crate) fn prefix(self) -> &'a [u8] {
        self.frame().prefix()
    }

    /// The inclusive lower fence.
    pub(crate) fn lower_fence(self) -> &'a [u8] {
        self.frame().lower()
    }

    /// Replaces `out` with the upper fence; false, and `out` empty, for no bound.
    pub(crate) fn write_upper_fence(self, out: &mut Vec<u8>) -> bool {
        self.frame().write_upper(out)
    }

    #[cfg(test)]
    /// True if `key` is inside the fences.
    pub(crate) fn covers(self, key: &[u8]) -> bool {
        self.frame().covers(key)
    }

    /// Replaces `out` with separator `i`, the one between children `i` and `i + 1`.
    pub(crate) fn write_separator(self, i: usize, out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(self.prefix());
        out.extend_from_slice(self.separator_suffix(i));
    }

    /// Replaces `out` with the inclusive lower bound of child `i`.
    pub(crate) fn write_child_lower(self, i: usize, out: &mut Vec<u8>) {
        if i == 0 {
            out.clear();
            out.extend_from_slice(self.lower_fence());
        } else {
            self.write_separator(i - 1, out);
        }
    }

    /// Replaces `out` with the exclusive upper bound of child `i`; false, and `out` empty,
    /// for no bound.
    pub(crate) fn write_child_upper(self, i: usize, out: &mut Vec<u8>) -> bool {
        if i == self.frame().count() {
            self.write_upper_fence(out)
        } else {
            self.write_separator(i, out);
            true
        }
    }

    /// Bytes of the image that are not in use.
    #[cfg(test)]
    pub(crate) fn free_bytes(self) -> usize {
        self.0.len() - self.live_bytes()
    }

    /// Bytes of the image that are in use, header and fences included.
    pub(crate) fn live_bytes(self) -> usize {
        let frame = self.frame();
        let entries = SLOT_LEN * frame.count() + CHILD_LEN * self.child_count();
        frame.heads_at() + entries + frame.heap_live()
    }
}

/// Sets the link to child `i`.
pub(crate) fn set_child(image: &mut [u8], i: usize, link: Link) {
    debug_assert!(i < Inner::from_image(image).child_count());
    let at = Frame(image).slots_end() + CHILD_LEN * i;
    put_u64(image, at, link.bits());
}
