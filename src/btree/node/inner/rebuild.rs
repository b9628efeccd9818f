//! Making new images of inner nodes from old ones.

use std::ops::Range;

use super::{CHILD_LEN, Inner, RECORD_HEADER_LEN};
use crate::btree::node::header::{
    CAPACITY_AT, COUNT_AT, Fences, GROUPS_AT, HEAP_LIVE_AT, HEAP_START_AT, KIND_INNER, SLOT_LEN,
    level, page_id, put_size, put_u16, put_u32, put_u64, set_page_id, unit_size,
};
use crate::btree::node::key_parts::KeyParts;
use crate::btree::node::packs::Packs;
use crate::btree::node::{Cut, Link, Rebuilt, choose_cut};

/// A node with fewer children is not cut but grows beyond a page: with separators of
/// tens of kilobytes, a tree of one-page nodes would have no branching.
const MIN_CHILDREN_TO_CUT: usize = 8;

/// Separators and children on their way from one image to another.
#[derive(Debug)]
struct Parts<'a> {
    separators: Vec<KeyParts<'a>>,
    children: Vec<Link>,
}

impl<'a> Parts<'a> {
    fn of(node: Inner<'a>) -> Self {
        let count = node.child_count();
        let mut separators = Vec::with_capacity(count);
        separators
            .extend((0..count - 1).map(|i| KeyParts::new(node.prefix(), node.separator_suffix(i))));
        let mut children = Vec::with_capacity(count + 1);
        children.extend((0..count).map(|i| node.child(i)));
        Self {
            separators,
            children,
        }
    }
}

/// A node from its parts, with one child more than separators: one page, or as many as it
/// needs. A new root is `build(level, b"", None, &[separator], &[left, right], page_size)`.
pub(crate) fn build(
    level: u8,
    lower: &[u8],
    upper: Option<&[u8]>,
    separators: &[&[u8]],
    children: &[Link],
    page_size: usize,
) -> Box<[u8]> {
    let separators: Vec<_> = separators.iter().map(|key| KeyParts::whole(key)).collect();
    let fences = Fences { lower, upper };
    build_parts(level, fences, &separators, children, page_size)
}

/// Child `i` became `left` and `right`.
///
/// Gives two nodes if one would exceed a page: the left one has the first children of the result,
/// as many as its [`Inner::child_count`] says, and the separator moves up. A cut behind the last
/// child leaves the left node full, as in [`leaf::split`](crate::btree::node::leaf::split).
pub(crate) fn with_split(
    image: &[u8],
    i: usize,
    separator: &[u8],
    left: Link,
    right: Link,
    page_size: usize,
) -> Rebuilt {
    let node = Inner::from_image(image);
    let prefix = node.prefix();
    let upper = node.frame().upper();
    let fences = Fences {
        lower: node.lower_fence(),
        upper: upper.as_deref(),
    };
    let last = node.child_count() - 1;
    let Parts {
        mut separators,
        mut children,
    } = Parts::of(node);
    separators.insert(i, KeyParts::new(prefix, &separator[prefix.len()..]));
    children[i] = left;
    children.insert(i + 1, right);

    let weights: Vec<usize> = separators
        .iter()
        .map(|separator| weight(*separator, prefix.len()))
        .collect();
    let entries: usize = weights.iter().sum();
    let fixed = fences.heads_offset() + CHILD_LEN;
    let fits = fixed + entries <= page_size;
    // Where the fences are what fills the node, two nodes would be as full as one.
    let by_fences = entries <= page_size / 2;
    if fits || by_fences || children.len() < MIN_CHILDREN_TO_CUT {
        let level = node.level();
        return Rebuilt::One(build_parts(
            level,
            fences,
            &separators,
            &children,
            page_size,
        ));
    }

    // Either side gets at least two children.
    let cuts = 1..separators.len() - 1;
    let wanted = if i == last {
        Cut::Last
    } else if i == 0 && fences.lower.is_empty() {
        Cut::First
    } else {
        Cut::Middle
    };
    let cut = choose_cut(
        wanted,
        &weights,
        1,
        page_size,
        cuts,
        |cut| separators[cut].len(),
        |separator_len| {
            let (left, right) = fences.cut_offsets(prefix.len(), separator_len);
            (left + CHILD_LEN, right + CHILD_LEN)
        },
    );
    let separator = separators[cut].to_vec();
    let (low, high) = fences.cut_at(&separator);
    let half = |fences: Fences<'_>, separators: &[KeyParts<'_>], children: &[Link]| {
        build_parts(node.level(), fences, separators, children, page_size)
    };
    let left = half(low, &separators[..cut], &children[..=cut]);
    let right = half(high, &separators[cut + 1..], &children[cut + 1..]);
    Rebuilt::Two {
        left,
        separator,
        right,
    }
}

/// Without the children in `range`, which must leave at least one. The child before the
/// range takes over what they covered, or, if there is none, the child after it.
///
/// When children `i` and `i + 1` were merged: `without_children(image, i + 1..i + 2, ..)`, then
/// [`set_child`](super::set_child) for `i`.
pub(crate) fn without_children(image: &[u8], range: Range<usize>, page_size: usize) -> Box<[u8]> {
    let node = Inner::from_image(image);
    assert!(range.len() < node.child_count(), "a node keeps a child");
    let mut parts = Parts::of(node);
    // With a child before the range, its upper bound becomes that of the last child removed.
    let first = range.start.saturating_sub(1);
    parts.separators.drain(first..first + range.len());
    parts.children.drain(range);
    let upper = node.frame().upper();
    let fences = Fences {
        lower: node.lower_fence(),
        upper: upper.as_deref(),
    };
    rebuilt(image, fences, &parts, page_size)
}

/// Two neighbours as one node, with their common fence as the separator in between.
/// `None` if that needs more than a page, and more than the larger of them.
pub(crate) fn merge(left: &[u8], right: &[u8], page_size: usize) -> Option<Box<[u8]>> {
    let (low, high) = (Inner::from_image(left), Inner::from_image(right));
    let between = high.lower_fence();
    debug_assert_eq!(low.frame().upper().as_deref(), Some(between));
    let upper = high.frame().upper();
    let fences = Fences {
        lower: low.lower_fence(),
        upper: upper.as_deref(),
    };
    let mut parts = Parts::of(low);
    let other = Parts::of(high);
    parts.separators.push(KeyParts::whole(between));
    parts.separators.extend(other.separators);
    parts.children.extend(other.children);
    let most = left.len().max(right.len()).max(page_size);
    if image_bytes(fences, &parts.separators) > most {
        return None;
    }
    let level = low.level();
    Some(build_parts(
        level,
        fences,
        &parts.separators,
        &parts.children,
        page_size,
    ))
}

/// The same children between other fences; every separator must be inside. Keeps the
/// page id.
#[cfg(test)]
pub(crate) fn with_fences(
    image: &[u8],
    lower: &[u8],
    upper: Option<&[u8]>,
    page_size: usize,
) -> Box<[u8]> {
    let parts = Parts::of(Inner::from_image(image));
    rebuilt(image, Fences { lower, upper }, &parts, page_size)
}

/// The same node with its children's links and packs.
pub(crate) fn with_packs(
    image: &[u8],
    children: &[Link],
    packs: &Packs,
    page_size: usize,
) -> Box<[u8]> {
    let node = Inner::from_image(image);
    let upper = node.frame().upper();
    let fences = Fences {
        lower: node.lower_fence(),
        upper: upper.as_deref(),
    };
    let separators = Parts::of(node).separators;
    let (section, groups) = packs.encode();
    let level = node.level();
    let mut image = build_with(level, fences, &separators, children, &section, page_size);
    put_u16(&mut image, GROUPS_AT, groups);
    image
}

/// The same node without packs.
pub(crate) fn without_packs(image: &[u8], page_size: usize) -> Box<[u8]> {
    let node = Inner::from_image(image);
    if node.packs().is_none() {
        return image.into();
    }
    let upper = node.frame().upper();
    let fences = Fences {
        lower: node.lower_fence(),
        upper: upper.as_deref(),
    };
    rebuilt(image, fences, &Parts::of(node), page_size)
}

fn rebuilt(image: &[u8], fences: Fences<'_>, parts: &Parts<'_>, page_size: usize) -> Box<[u8]> {
    let (separators, children) = (&parts.separators, &parts.children);
    let mut rebuilt = build_parts(level(image), fences, separators, children, page_size);
    set_page_id(&mut rebuilt, page_id(image));
    rebuilt
}

/// Bytes of a separator and the child on its right.
fn weight(separator: KeyParts<'_>, prefix_len: usize) -> usize {
    SLOT_LEN + CHILD_LEN + RECORD_HEADER_LEN + separator.len() - prefix_len
}

fn image_bytes(fences: Fences<'_>, separators: &[KeyParts<'_>]) -> usize {
    let prefix_len = fences.prefix_len();
    let entries: usize = separators.iter().map(|s| weight(*s, prefix_len)).sum();
    fences.heads_offset() + CHILD_LEN + entries
}

fn build_parts(
    level: u8,
    fences: Fences<'_>,
    separators: &[KeyParts<'_>],
    children: &[Link],
    page_size: usize,
) -> Box<[u8]> {
    build_with(level, fences, separators, children, &[], page_size)
}

/// With bytes behind the children.
fn build_with(
    level: u8,
    fences: Fences<'_>,
    separators: &[KeyParts<'_>],
    children: &[Link],
    section: &[u8],
    page_size: usize,
) -> Box<[u8]> {
    assert_eq!(children.len(), separators.len() + 1);
    let prefix_len = fences.prefix_len();
    let bytes = image_bytes(fences, separators) + section.len();
    let unit = unit_size(page_size);
    let units = bytes.div_ceil(unit);
    let mut image = vec![0; units * unit].into_boxed_slice();
    fences.write(&mut image, KIND_INNER, level, units);

    let count = separators.len();
    let heads_at = fences.heads_offset();
    let slots_at = heads_at + 4 * count;
    let children_at = slots_at + 4 * count;
    let section_at = children_at + CHILD_LEN * children.len();
    let live = bytes - section_at - section.len();
    let mut at = image.len() - live;
    put_size(&mut image, COUNT_AT, count);
    put_size(&mut image, CAPACITY_AT, count);
    put_size(&mut image, HEAP_START_AT, at);
    put_size(&mut image, HEAP_LIVE_AT, live);
    for (i, separator) in separators.iter().enumerate() {
        let suffix = separator.skip(prefix_len);
        put_u32(&mut image, heads_at + 4 * i, suffix.head());
        put_size(&mut image, slots_at + 4 * i, at);
        put_size(&mut image, at, suffix.len());
        let key_at = at + RECORD_HEADER_LEN;
        at = key_at + suffix.len();
        suffix.copy_to(&mut image[key_at..at]);
    }
    for (i, child) in children.iter().enumerate() {
        put_u64(&mut image, children_at + CHILD_LEN * i, child.bits());
    }
    image[section_at..section_at + section.len()].copy_from_slice(section);
    image
}
