//! Nodes of the B-tree: images of leaves and inner nodes in byte buffers.
//!
//! A node is an *image*: the very bytes that go to the file, normally a page or less, in whole
//! *units* ([`unit_size`]). Reads
//! run on the image where it lies, in a memory map or in memory; nothing is
//! decoded first. docs/format.md, section "B-tree: node", describes the bytes:
//!
//! ```text
//! | header | lower fence, upper fence | heads | slots | (children) | free | heap of records |
//! ```
//!
//! - *Fences* are the bounds that the parent gives the node. Their common prefix is the
//!   prefix of every key in between, and is left out of the records.
//! - *Heads* are the first four bytes of every key after the prefix, as integers
//!   in one contiguous array, so that a search touches few cache lines and mostly
//!   decides without looking at a key ([`search`]).
//! - A *jumbo* node has more bytes than a page, because keys may be longer than a
//!   page. Everything works on it as on any other, with 32-bit offsets.
//! - An image has as many units as it needs, and grows by units until it has a page.
//! - A *pack* holds changes to leaves that stay as they are ([`pack`]); the inner nodes of level 1
//!   know which packs there are ([`packs`]).
//! - A *link* is what a parent says of a child: its page, and the fingerprint of the node that was
//!   written there ([`link`]).
//!
//! The tree descends through [`inner`] nodes, reads and changes a [`leaf`], and when a
//! change does not fit ([`Full`]) asks for a rebuild, which gives new images. Nothing
//! here knows of files, caches or concurrency.
//!
//! # Invariants, checked by [`validate()`]
//!
//! - **N1** Every offset and length stays inside the image; records do not overlap.
//! - **N2** Keys ascend strictly; `lower <= key < upper`, and `lower < separator < upper`.
//! - **N3** The prefix is exactly the common prefix of the fences; without an upper fence it
//!   is empty.
//! - **N4** Every head is the head of its key.
//! - **N5** The live bytes in the header are the sum of the records, so that a
//!   compaction of the heap cannot run over.
//! - **N6** A reference to a value that is stored apart can be decoded.
//!
//! Bytes from a disk go through [`check`] and [`validate()`] once. After that the
//! accessors rely on N1: they are safe code, and panic on an image that `validate` refuses.
//!
//! # What is missing on purpose
//!
//! Records are not compressed. Sequence numbers are kept per node, not per entry: versions are
//! whole pages.

pub(crate) mod header;
pub(crate) mod inner;
mod key_parts;
pub(crate) mod leaf;
mod link;
pub(crate) mod pack;
pub(crate) mod packs;
mod search;
mod validate;

#[cfg(test)]
mod tests;

pub(crate) use header::{
    NodeKind, PACK_LEVEL, check, kind, level, page_id, set_last_seq, set_page_id, unit_count,
    unit_size, write_checksum,
};
pub(crate) use link::Link;
pub(crate) use validate::validate;

/// The node has too little free space; nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full;

/// What a rebuild that takes in one more entry gives.
///
/// The images have page id 0 and carry the sequence number of the node they replace.
#[derive(Debug)]
pub(crate) enum Rebuilt {
    /// One node, which may have more units than before.
    One(Box<[u8]>),
    /// Two nodes: keys on the left are below `separator`, keys on the right are not.
    Two {
        left: Box<[u8]>,
        separator: Vec<u8>,
        right: Box<[u8]>,
    },
}

/// Where to cut a node in two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    /// In the middle.
    Middle,
    /// As far right as pages allow: an append.
    Last,
    /// As far left as pages allow: a prepend.
    First,
}

/// Finds the best place to cut a node in two.
///
/// The place is a number `c` in `cuts`: entries before `c` go left, those from `c + moves_up`
/// on go right. `weights` are the bytes of the entries, `separator_len` gives the length of
/// the separator of a cut, and `fixed` the bytes of header and fences left and right of a
/// separator of that length. Of the cuts that need the fewest pages and come close to the
/// middle, the one with the shortest separator wins, because separators are what inner
/// nodes are made of.
fn choose_cut(
    wanted: Cut,
    weights: &[usize],
    moves_up: usize,
    page_size: usize,
    cuts: std::ops::Range<usize>,
    separator_len: impl Fn(usize) -> usize,
    fixed: impl Fn(usize) -> (usize, usize),
) -> usize {
    struct Candidate {
        cut: usize,
        pages: usize,
        skew: usize,
        separator_len: usize,
    }
    let sum: usize = weights.iter().sum();
    let mut left: usize = weights[..cuts.start].iter().sum();
    let mut candidates = Vec::with_capacity(cuts.len());
    for cut in cuts {
        let right = sum - left - weights[cut..cut + moves_up].iter().sum::<usize>();
        let separator_len = separator_len(cut);
        let (fixed_left, fixed_right) = fixed(separator_len);
        candidates.push(Candidate {
            cut,
            pages: (fixed_left + left).div_ceil(page_size)
                + (fixed_right + right).div_ceil(page_size),
            skew: left.abs_diff(right),
            separator_len,
        });
        left += weights[cut];
    }
    let pages = candidates.iter().map(|c| c.pages).min();
    candidates.retain(|c| Some(c.pages) == pages);
    let best = match wanted {
        Cut::First => candidates.first(),
        Cut::Last => candidates.last(),
        Cut::Middle => {
            // An eighth of the node either way keeps both halves above 40% and usually
            // offers a dozen separators to choose from.
            let skew = candidates.iter().map(|c| c.skew).min().unwrap_or(0) + sum / 8;
            let close = candidates.iter().filter(|c| c.skew <= skew);
            close.min_by_key(|c| (c.separator_len, c.skew))
        }
    };
    best.expect("a node that is cut has a place for it").cut
}
