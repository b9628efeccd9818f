//! Inner nodes: `n` children and the `n - 1` separators between them. Images are never changed in place,
//! except for the child page ids (`set_child`).
use super::Rebuilt;
use crate::types::PageId;
use std::ops::Range;

/// Reads an inner node. Child `i` covers `[separator(i - 1), separator(i))`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Inner<'a>(&'a [u8]);

impl<'a> Inner<'a> {
    pub(crate) fn from_image(image: &'a [u8]) -> Self {
        Self(image)
    }
    pub(crate) fn level(self) -> u8 {
        todo!()
    }
    /// At least 1.
    pub(crate) fn child_count(self) -> usize {
        todo!()
    }
    /// As stored in the image.
    pub(crate) fn child(self, _i: usize) -> PageId {
        todo!()
    }
    /// Index of the child that covers `key` (key must be inside the fences). Reads no child ids.
    pub(crate) fn find_child(self, _key: &[u8]) -> usize {
        todo!()
    }
    pub(crate) fn prefix(self) -> &'a [u8] {
        todo!()
    }
    pub(crate) fn lower_fence(self) -> &'a [u8] {
        todo!()
    }
    pub(crate) fn write_upper_fence(self, _out: &mut Vec<u8>) -> bool {
        todo!()
    }
    pub(crate) fn covers(self, _key: &[u8]) -> bool {
        todo!()
    }
    /// Replaces `out` with separator `i` (between children `i` and `i + 1`).
    pub(crate) fn write_separator(self, _i: usize, _out: &mut Vec<u8>) {
        todo!()
    }
    /// Replaces `out` with the lower bound of child `i`.
    pub(crate) fn write_child_lower(self, _i: usize, _out: &mut Vec<u8>) {
        todo!()
    }
    /// Replaces `out` with the upper bound of child `i`; false for no bound.
    pub(crate) fn write_child_upper(self, _i: usize, _out: &mut Vec<u8>) -> bool {
        todo!()
    }
    pub(crate) fn free_bytes(self) -> usize {
        todo!()
    }
    pub(crate) fn live_bytes(self) -> usize {
        todo!()
    }
}

/// Sets the page id of child `i`.
pub(crate) fn set_child(_image: &mut [u8], _i: usize, _page: PageId) {
    todo!()
}

/// A node from its parts; `children.len() == separators.len() + 1`. One page, or as many as it needs.
/// (A new root is `build(level, b"", None, &[separator], &[left, right], page_size)`.)
pub(crate) fn build(
    _level: u8,
    _lower: &[u8],
    _upper: Option<&[u8]>,
    _separators: &[&[u8]],
    _children: &[PageId],
    _page_size: usize,
) -> Box<[u8]> {
    todo!()
}

/// Child `i` became `left` and `right`. Two nodes if that exceeds a page: the left one keeps the
/// first `Inner::child_count` children of the result, the separator moves up.
pub(crate) fn with_split(
    _image: &[u8],
    _i: usize,
    _separator: &[u8],
    _left: PageId,
    _right: PageId,
    _page_size: usize,
) -> Rebuilt {
    todo!()
}

/// Without children `range` (never all). The child before the range covers the gap, or, if the range starts at
/// 0, the child after it. (Children i and i + 1 merged: `without_children(image, i + 1..i + 2)`, then `set_child(i)`.)
pub(crate) fn without_children(
    _image: &[u8],
    _range: Range<usize>,
    _page_size: usize,
) -> Box<[u8]> {
    todo!()
}

/// Two neighbours as one; the separator between them is their common fence. `None` if that needs more pages than
/// the larger of them.
pub(crate) fn merge(_left: &[u8], _right: &[u8], _page_size: usize) -> Option<Box<[u8]>> {
    todo!()
}

/// The same children between other fences. Every separator must be inside.
pub(crate) fn with_fences(
    _image: &[u8],
    _lower: &[u8],
    _upper: Option<&[u8]>,
    _page_size: usize,
) -> Box<[u8]> {
    todo!()
}
