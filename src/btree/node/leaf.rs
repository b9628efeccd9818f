//! Leaf nodes.
use super::{Full, Rebuilt};
use crate::types::PageId;
use std::cmp::Ordering;
use std::ops::Range;

/// A value as a leaf holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LeafValue<'a> {
    Inline(&'a [u8]),
    Overflow {
        page: PageId,
        len: u32,
        checksum: u32,
    },
}

/// Reads a leaf.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Leaf<'a>(&'a [u8]);

impl<'a> Leaf<'a> {
    pub(crate) fn from_image(image: &'a [u8]) -> Self {
        Self(image)
    }
    pub(crate) fn len(self) -> usize {
        todo!()
    }
    pub(crate) fn is_empty(self) -> bool {
        todo!()
    }
    /// What every key in the node starts with.
    pub(crate) fn prefix(self) -> &'a [u8] {
        todo!()
    }
    /// Inclusive; stored whole.
    pub(crate) fn lower_fence(self) -> &'a [u8] {
        todo!()
    }
    /// The exclusive upper fence after the prefix; `None` for no bound.
    pub(crate) fn upper_fence_suffix(self) -> Option<&'a [u8]> {
        todo!()
    }
    /// Replaces `out` with the upper fence; false (and empty) for no bound.
    pub(crate) fn write_upper_fence(self, _out: &mut Vec<u8>) -> bool {
        todo!()
    }
    /// True if `key` is inside the fences.
    pub(crate) fn covers(self, _key: &[u8]) -> bool {
        todo!()
    }
    /// `Ok(slot)` of the key, or `Err(slot)` where it would go. Right for any key.
    pub(crate) fn search(self, _key: &[u8]) -> Result<usize, usize> {
        todo!()
    }
    pub(crate) fn key_suffix(self, _i: usize) -> &'a [u8] {
        todo!()
    }
    /// Replaces `out` with key `i`.
    pub(crate) fn write_key(self, _i: usize, _out: &mut Vec<u8>) {
        todo!()
    }
    /// Key `i` compared with `key`.
    pub(crate) fn compare_key(self, _i: usize, _key: &[u8]) -> Ordering {
        todo!()
    }
    pub(crate) fn value(self, _i: usize) -> LeafValue<'a> {
        todo!()
    }
    /// Bytes that inserts may still use: contiguous ones and those a compaction of the heap gives.
    pub(crate) fn free_bytes(self) -> usize {
        todo!()
    }
    /// Bytes of the image that are in use (header and fences included).
    pub(crate) fn live_bytes(self) -> usize {
        todo!()
    }
}

/// Changes a leaf in place. (page id, last_seq: `super::set_page_id`, `super::set_last_seq`.)
#[derive(Debug)]
pub(crate) struct LeafMut<'a>(&'a mut [u8]);

impl<'a> LeafMut<'a> {
    pub(crate) fn from_image(image: &'a mut [u8]) -> Self {
        Self(image)
    }
    pub(crate) fn as_leaf(&self) -> Leaf<'_> {
        Leaf(self.0)
    }
    /// Inserts at `i`, which `search` gave for `key`.
    pub(crate) fn insert(
        &mut self,
        _i: usize,
        _key: &[u8],
        _value: LeafValue<'_>,
    ) -> Result<(), Full> {
        todo!()
    }
    pub(crate) fn set_value(&mut self, _i: usize, _value: LeafValue<'_>) -> Result<(), Full> {
        todo!()
    }
    pub(crate) fn remove(&mut self, _i: usize) {
        todo!()
    }
    pub(crate) fn remove_range(&mut self, _slots: Range<usize>) {
        todo!()
    }
}

/// An empty leaf with these fences: one page, or as many as the fences need.
pub(crate) fn new(_lower: &[u8], _upper: Option<&[u8]>, _page_size: usize) -> Box<[u8]> {
    todo!()
}

/// The entry that did not fit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pending<'a> {
    /// Slot where it goes, or of the entry that it replaces.
    pub(crate) at: usize,
    pub(crate) replaces: bool,
    pub(crate) key: &'a [u8],
    pub(crate) value: LeafValue<'a>,
}

/// Rebuilds a leaf that was [`Full`] with the pending entry put in: two nodes, or one
/// larger node if that is the only entry. Splits for an insert at the end leave the left node full.
pub(crate) fn split(_image: &[u8], _pending: Pending<'_>, _page_size: usize) -> Rebuilt {
    todo!()
}

/// Two neighbours (left.upper == right.lower) as one; `None` if that needs more pages than the larger of them.
pub(crate) fn merge(_left: &[u8], _right: &[u8], _page_size: usize) -> Option<Box<[u8]>> {
    todo!()
}

/// The same entries between other fences, in as many pages as that needs. Every key must be inside.
/// Carries last_seq and page id over. Also the way to shrink a jumbo that became sparse, or
/// to compact (pass the present fences).
pub(crate) fn with_fences(
    _image: &[u8],
    _lower: &[u8],
    _upper: Option<&[u8]>,
    _page_size: usize,
) -> Box<[u8]> {
    todo!()
}
