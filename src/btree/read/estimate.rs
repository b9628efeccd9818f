//! Ranges in pieces, for estimates: from inner nodes, reading a few leaves.
//!
//! The tree is opened level by level until there are enough subtrees that meet the range; each is a
//! piece. How much a subtree holds is learnt from samples: a path from each of some of them down to
//! a leaf.

use crossbeam_epoch::Guard;

use super::view::View;
use crate::btree::memory::node::{Body, Child, ChildRef};
use crate::btree::node::inner::Inner;
use crate::btree::node::leaf::{self, Leaf, Stored};
use crate::btree::node::{self, NodeKind};
use crate::engine::Piece;
use crate::error::Result;
use crate::types::KeyRange;

/// Subtrees that are looked into.
const SAMPLES: usize = 16;

/// A subtree and the lowest key that it may hold.
struct Subtree {
    start: Vec<u8>,
    child: Child,
    /// Of the node at its top, but for the root. Without it a walk through hostile pages has no
    /// end.
    level: Option<u8>,
}

/// What a node turned out to be.
enum Opened {
    /// Its children that meet the range.
    Inner(Vec<Subtree>),
    /// Its entries and their bytes.
    Leaf { entries: u64, bytes: u64 },
}

impl View {
    /// The range in at least `at_least` pieces; `None` if it meets fewer leaves than that, so that
    /// a walk over its entries is cheap and exact.
    pub(super) fn subtree_pieces(
        &self,
        range: &KeyRange,
        at_least: usize,
    ) -> Result<Option<Vec<Piece>>> {
        self.check_usable()?;
        let mut row = vec![Subtree {
            start: Vec::new(),
            child: self.root().clone(),
            level: None,
        }];
        while row.len() < at_least {
            let mut below = Vec::new();
            for subtree in &row {
                match self.open_subtree(subtree, range)? {
                    Opened::Inner(children) => below.extend(children),
                    // All leaves are on one level.
                    Opened::Leaf { .. } => return Ok(None),
                }
            }
            row = below;
        }
        let (entries, bytes) = self.sample(&row)?;
        let piece = |subtree: Subtree| Piece {
            start: subtree.start.max(range.start.clone()),
            entries,
            bytes,
        };
        Ok(Some(row.into_iter().map(piece).collect()))
    }

    /// The mean of entries and bytes below each of `row`.
    fn sample(&self, row: &[Subtree]) -> Result<(u64, u64)> {
        let everything = KeyRange::new(&..);
        let (mut entries, mut bytes) = (0, 0);
        let samples = SAMPLES.min(row.len());
        for sample in 0..samples {
            let at = sample * row.len() / samples;
            let mut leaves = 1;
            let mut subtree = Subtree {
                start: Vec::new(),
                child: row[at].child.clone(),
                level: row[at].level,
            };
            loop {
                match self.open_subtree(&subtree, &everything)? {
                    Opened::Inner(mut children) => {
                        leaves *= children.len() as u64;
                        let middle = children.len() / 2;
                        subtree = children.swap_remove(middle);
                    }
                    Opened::Leaf {
                        entries: n,
                        bytes: len,
                    } => {
                        entries += leaves * n;
                        bytes += leaves * len;
                        break;
                    }
                }
            }
        }
        let samples = samples.max(1) as u64;
        Ok((entries / samples, bytes / samples))
    }

    /// Looks at the node at the top of a subtree, under a pin of its own.
    fn open_subtree(&self, subtree: &Subtree, range: &KeyRange) -> Result<Opened> {
        let guard = crossbeam_epoch::pin();
        match subtree.child.as_ref() {
            ChildRef::Inner(inner) => {
                let slots = &inner.get().slots;
                let child = |i: usize, guard: &Guard| slots[i].load(guard).to_owned();
                Ok(children_in(inner.get().node(), range, |i| child(i, &guard)))
            }
            ChildRef::Leaf(leaf) => {
                let state = leaf.read();
                let merged;
                let image = match &state.body {
                    Body::Whole { image, .. } => image,
                    Body::Changes(changes) => {
                        merged = self.tree().merged_image(changes, &guard)?;
                        &merged
                    }
                    Body::Packed(leaf) => {
                        merged = self.tree().packed_image(leaf, &guard)?;
                        &merged
                    }
                };
                Ok(leaf_in(image))
            }
            ChildRef::Disk(link) => {
                let image = self.tree().disk_node(link, subtree.level, &guard)?;
                if node::kind(&image) == Some(NodeKind::Leaf) {
                    return Ok(leaf_in(&image));
                }
                let inner = Inner::from_image(&image);
                Ok(children_in(inner, range, |i| Child::Disk(inner.child(i))))
            }
        }
    }
}

fn leaf_in(image: &[u8]) -> Opened {
    let leaf = Leaf::from_image(image);
    let apart =
        leaf::references(image).map(|reference| Stored::Apart(reference).value_len() as u64);
    Opened::Leaf {
        entries: leaf.len() as u64,
        bytes: leaf.live_bytes() as u64 + apart.sum::<u64>(),
    }
}

/// The children of `node` that meet `range`.
fn children_in(node: Inner<'_>, range: &KeyRange, child: impl Fn(usize) -> Child) -> Opened {
    let first = node.find_child(&range.start);
    let last = match &range.end {
        Some(end) => node.find_child_before(end),
        None => node.child_count() - 1,
    };
    let subtree = |i: usize| {
        let mut start = Vec::new();
        node.write_child_lower(i, &mut start);
        Subtree {
            start,
            child: child(i),
            level: node.level().checked_sub(1),
        }
    };
    Opened::Inner((first..=last.max(first)).map(subtree).collect())
}
