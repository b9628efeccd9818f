//! Windows into the nodes of the B-tree, for fuzz targets and benches.

use crate::btree::node;
use crate::btree::node::inner::Inner;
use crate::btree::node::leaf::{LeafValue, Pending, Stored};
use crate::btree::node::pack::{self, Pack};
use crate::btree::node::packs::{ChildPacks, Group, PackRef, Packs};
use crate::btree::node::{Link, NodeKind, Rebuilt, inner, leaf};
use crate::types::{PageId, SeqNo};
use crate::values::Digest;

/// Sets the checksum of an image.
pub fn write_checksum(image: &mut [u8], seed: u64) {
    node::write_checksum(image, seed);
}

/// Verifies the checksum of an image.
pub fn check(image: &[u8], seed: u64) -> Result<(), String> {
    node::check(image, seed)
}

/// Checks the structure of an image.
pub fn validate(image: &[u8]) -> Result<(), String> {
    node::validate(image)
}

/// A value of a leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageValue<'a> {
    /// The value itself.
    Inline(&'a [u8]),
    /// A reference: page, length and checksum.
    Overflow(u64, u32, u32),
    /// A reference to a value that is stored apart.
    Apart(&'a [u8]),
}

impl<'a> From<LeafValue<'a>> for PageValue<'a> {
    fn from(value: LeafValue<'a>) -> Self {
        match value {
            LeafValue::Inline(bytes) => Self::Inline(bytes),
            LeafValue::Overflow {
                page,
                len,
                checksum,
            } => Self::Overflow(page.0, len, checksum),
            LeafValue::Apart(reference) => Self::Apart(reference),
        }
    }
}

/// An empty leaf without fences, one unit long: it grows through [`split_leaf`], to a page.
pub fn new_leaf(page_size: usize) -> Box<[u8]> {
    leaf::new(b"", None, page_size)
}

/// A leaf to read. The image was validated, or made here.
#[derive(Debug, Clone, Copy)]
pub struct Leaf<'a>(leaf::Leaf<'a>);

impl<'a> Leaf<'a> {
    /// The leaf in `image`.
    pub fn from_image(image: &'a [u8]) -> Self {
        Self(leaf::Leaf::from_image(image))
    }

    /// Number of entries.
    pub fn len(self) -> usize {
        self.0.len()
    }

    /// True if there are none.
    pub fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// True if `key` lies inside the fences.
    pub fn covers(self, key: &[u8]) -> bool {
        self.0.covers(key)
    }

    /// The slot of `key`, or where it belongs.
    pub fn search(self, key: &[u8]) -> Result<usize, usize> {
        self.0.search(key)
    }

    /// Replaces `out` with key `i`.
    pub fn write_key(self, i: usize, out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(self.0.prefix());
        out.extend_from_slice(self.0.key_suffix(i));
    }

    /// Value `i`.
    pub fn value(self, i: usize) -> PageValue<'a> {
        self.0.value(i).into()
    }

    /// Bytes that inserts may still use.
    pub fn free_bytes(self) -> usize {
        self.0.free_bytes()
    }
}

/// A leaf to change. The image was validated, or made here.
#[derive(Debug)]
pub struct LeafMut<'a>(leaf::LeafMut<'a>);

impl<'a> LeafMut<'a> {
    /// The leaf in `image`.
    pub fn from_image(image: &'a mut [u8]) -> Self {
        Self(leaf::LeafMut::from_image(image))
    }

    /// Inserts at slot `i`, which [`Leaf::search`] gave; false if there is no room.
    pub fn insert(&mut self, i: usize, key: &[u8], value: &[u8]) -> bool {
        self.0.insert(i, key, LeafValue::Inline(value)).is_ok()
    }

    /// Replaces value `i`; false if there is no room.
    pub fn set_value(&mut self, i: usize, value: &[u8]) -> bool {
        self.0.set_value(i, LeafValue::Inline(value)).is_ok()
    }

    /// Removes entry `i`.
    pub fn remove(&mut self, i: usize) {
        self.0.remove(i);
    }
}

/// What a split gives: one larger node, or two around a separator.
#[derive(Debug)]
pub enum LeafSplit {
    /// One node.
    One(Box<[u8]>),
    /// Two nodes and what is between them.
    Two(Box<[u8]>, Vec<u8>, Box<[u8]>),
}

/// Rebuilds a leaf that had no room for `key` at slot `at`.
pub fn split_leaf(
    image: &[u8],
    at: usize,
    replaces: bool,
    key: &[u8],
    value: &[u8],
    page_size: usize,
) -> LeafSplit {
    let pending = Pending {
        at,
        replaces,
        key,
        value: LeafValue::Inline(value),
    };
    match leaf::split(image, pending, page_size) {
        Rebuilt::One(image) => LeafSplit::One(image),
        Rebuilt::Two {
            left,
            separator,
            right,
        } => LeafSplit::Two(left, separator, right),
    }
}

/// A leaf and a pack of one entry each, under `key`: a reference to a value that is stored apart.
pub fn with_reference(key: &[u8], page_size: usize) -> [Box<[u8]>; 2] {
    let reference = Digest::new(1, &[7; 100]).place(3, 128);
    let value = Stored::Apart(reference.as_bytes());
    let leaf = leaf::new(b"", None, page_size);
    let changes = [(key, Some(value))];
    let leaf = leaf::merged(&leaf, changes.iter().copied(), page_size);
    [leaf, pack::build(b"", None, &changes, SeqNo(1), page_size)]
}

/// An inner node of level 1 without fences, with children numbered from 2.
pub fn inner_build(separators: &[&[u8]], page_size: usize) -> Box<[u8]> {
    let children: Vec<_> = (2..)
        .take(separators.len() + 1)
        .map(|page| Link::new(PageId(page), 0))
        .collect();
    inner::build(1, b"", None, separators, &children, page_size)
}

/// A pack of changes between two fences: a new value each, or none for a delete.
pub fn pack_build(
    fences: (&[u8], Option<&[u8]>),
    changes: &[(&[u8], Option<&[u8]>)],
    page_size: usize,
) -> Box<[u8]> {
    let stored = |(key, value): &(_, Option<_>)| (*key, value.map(Stored::Inline));
    let changes: Vec<_> = changes.iter().map(stored).collect();
    pack::build(fences.0, fences.1, &changes, SeqNo(1), page_size)
}

/// The inner node of [`inner_build`] with packs: all children in one group, each with changes in an
/// old and in a recent pack.
pub fn inner_with_packs(separators: &[&[u8]], page_size: usize) -> Box<[u8]> {
    let count = separators.len() + 1;
    let child = ChildPacks {
        mask: 0b11,
        is_estimate: false,
        entries: 1,
        growth: -1,
        bytes: 20,
    };
    let pack = |page| PackRef {
        link: Link::new(PageId(page), 0),
        units: 1,
        first: 0,
    };
    let mut group = Group::new(0);
    group.old = vec![pack(100)];
    group.recent = vec![pack(101)];
    (group.area.start, group.area.units, group.area.used) = (101, 7, 1);
    let packs = Packs {
        children: vec![child; count],
        groups: vec![group],
    };
    let children: Vec<_> = (2..)
        .take(count)
        .map(|page| Link::new(PageId(page), 0))
        .collect();
    inner::with_packs(
        &inner_build(separators, page_size),
        &children,
        &packs,
        page_size,
    )
}

/// Index of the child of an inner node that covers `key`.
pub fn inner_find_child(image: &[u8], key: &[u8]) -> usize {
    Inner::from_image(image).find_child(key)
}

/// Reads everything in a validated image, and looks for `key`; returns what was visited, so that
/// nothing is left out by an optimiser.
pub fn walk(image: &[u8], key: &[u8]) -> usize {
    let mut buffer = Vec::new();
    let mut visited = 0;
    match node::kind(image) {
        Some(NodeKind::Leaf) => {
            let leaf = leaf::Leaf::from_image(image);
            for i in 0..leaf.len() {
                visited += leaf.prefix().len() + leaf.key_suffix(i).len();
                visited += match leaf.value(i) {
                    LeafValue::Inline(bytes) => bytes.len(),
                    LeafValue::Apart(reference) => Stored::Apart(reference).value_len(),
                    LeafValue::Overflow { .. } => 0,
                };
            }
            visited += leaf.search(key).unwrap_or_else(|at| at);
            visited += leaf.live_bytes() + leaf.lower_fence().len();
            leaf.write_upper_fence(&mut buffer);
        }
        Some(NodeKind::Inner) => {
            let inner = Inner::from_image(image);
            for i in 0..inner.child_count() {
                inner.write_child_lower(i, &mut buffer);
                visited += buffer.len();
                inner.write_child_upper(i, &mut buffer);
                visited += buffer.len() + inner.child(i).bits() as usize % 2;
                visited += inner
                    .packed(i)
                    .map_or(0, |leaf| leaf.packs.as_slice().len());
            }
            visited += inner.packs().map_or(0, |packs| packs.decode().groups.len());
            visited += inner.find_child(key) + inner.live_bytes() + usize::from(inner.level());
        }
        Some(NodeKind::Pack) => {
            let pack = Pack::from_image(image);
            for i in 0..pack.len() {
                visited += pack.prefix().len() + pack.key_suffix(i).len();
                visited += pack.value(i).map_or(0, Stored::value_len);
            }
            visited += usize::from(pack.find(key).is_some()) + pack.range(key, None).len();
            visited += usize::from(pack.spans(key, None));
        }
        None => {}
    }
    visited
}
