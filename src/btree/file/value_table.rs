//! How much of which value files the nodes of the file's tree refer to.
//!
//! A value that is stored apart ([`crate::values`]) lies in a value file, which stays as long as
//! something holds it. The table says what the tree has to hold: every file to which a leaf or a
//! pack of the file's tree has a reference. What counts is that the reference is in a page, not
//! that a reader would find it: a pack may supersede what a leaf has, and is written without a look
//! at the leaf.
//!
//! # Invariants
//!
//! - **BH1** A checkpoint adds what it writes in leaves and packs, and takes away what is in those
//!   that leave the tree ([`crate::btree::write::state::PendingFrees`]), which it reads once more.
//!   So the table counts the leaves and packs of the file's tree, no more and no less.
//! - **BH2** What cannot be read is not taken away. Then the table has too much, and keeps files
//!   that could go; never too little. The meta page says so, as of entries that do not add up.
//!
//! The table is an extent of the file; docs/format.md, "B-tree: page file", has its bytes.

use std::collections::BTreeMap;

use crate::btree::node::{self, NodeKind, leaf};
use crate::format::coding::{Malformed, Reader};
use crate::util::mutants::mutated;
use crate::values::ValueRef;

/// Bytes of a file in the table.
pub(crate) const ENTRY_BYTES: usize = 24;

/// More bytes than these no tree refers to.
const TOTAL_MAX: u64 = 1 << 60;

/// Bytes of values in one file that are referred to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Referred {
    pub(crate) by_leaves: u64,
    pub(crate) by_packs: u64,
}

/// The table, or what is to be added to one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ValueTable {
    files: BTreeMap<u64, Referred>,
}

impl ValueTable {
    /// The files, rising by number.
    pub(crate) fn files(&self) -> impl Iterator<Item = (u64, Referred)> {
        self.files.iter().map(|(file, referred)| (*file, *referred))
    }

    pub(crate) fn has(&self, file: u64) -> bool {
        self.files.contains_key(&file)
    }

    pub(crate) fn len(&self) -> usize {
        self.files.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Adds what the node in `image` refers to, which passed `validate` or was made here.
    pub(crate) fn add_node(&mut self, image: &[u8]) {
        let kind = node::kind(image);
        if kind == Some(NodeKind::Pack) && mutated!("references-in-packs-not-counted") {
            return;
        }
        for reference in leaf::references(image) {
            // N6: each can be decoded.
            let Ok(value) = ValueRef::decode(reference) else {
                continue;
            };
            let referred = self.files.entry(value.file).or_default();
            // No file that is referred to counts for nothing.
            let bytes = (value.len_bytes as u64).max(1);
            match kind {
                Some(NodeKind::Pack) => referred.by_packs += bytes,
                _ => referred.by_leaves += bytes,
            }
        }
    }

    /// Takes another table away. False if there is less than that: of such a file all stays (BH2).
    pub(crate) fn subtract(&mut self, other: &Self) -> bool {
        let mut is_all = true;
        for (file, less) in other.files() {
            let Some(referred) = self.files.get_mut(&file) else {
                is_all = false;
                continue;
            };
            let leaves = referred.by_leaves.checked_sub(less.by_leaves);
            let packs = referred.by_packs.checked_sub(less.by_packs);
            match (leaves, packs) {
                (Some(0), Some(0)) => drop(self.files.remove(&file)),
                (Some(by_leaves), Some(by_packs)) => {
                    *referred = Referred {
                        by_leaves,
                        by_packs,
                    };
                }
                _ => is_all = false,
            }
        }
        is_all
    }

    /// The bytes of the extent.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.len() * ENTRY_BYTES);
        for (file, referred) in self.files() {
            for number in [file, referred.by_leaves, referred.by_packs] {
                out.extend_from_slice(&number.to_le_bytes());
            }
        }
        out
    }

    /// Decodes what [`ValueTable::encode`] made.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let mut table = Self::default();
        let mut total = 0_u64;
        while !reader.is_empty() {
            let file = reader.u64()?;
            let referred = Referred {
                by_leaves: reader.u64()?,
                by_packs: reader.u64()?,
            };
            let rises = table
                .files
                .last_key_value()
                .is_none_or(|(last, _)| *last < file);
            for bytes in [referred.by_leaves, referred.by_packs] {
                total = total.saturating_add(bytes);
            }
            if !rises || referred == Referred::default() || total > TOTAL_MAX {
                return Err(Malformed);
            }
            table.files.insert(file, referred);
        }
        Ok(table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::btree::node::leaf::{LeafMut, LeafValue, Stored};
    use crate::btree::node::pack;
    use crate::types::SeqNo;
    use crate::values::Digest;

    fn table(files: &[(u64, u64, u64)]) -> ValueTable {
        let referred = |by_leaves, by_packs| Referred {
            by_leaves,
            by_packs,
        };
        let files = files.iter().map(|(file, a, b)| (*file, referred(*a, *b)));
        ValueTable {
            files: files.collect(),
        }
    }

    #[test]
    fn golden_bytes() {
        let table = table(&[(3, 1000, 0), (300, 5, 6)]);
        let bytes = table.encode();
        let mut expected = Vec::new();
        for number in [3_u64, 1000, 0, 300, 5, 6] {
            expected.extend_from_slice(&number.to_le_bytes());
        }
        assert_eq!(bytes, expected);
        assert_eq!(ValueTable::decode(&bytes), Ok(table));
    }

    #[test]
    fn malformed_tables_are_refused() {
        let bytes = table(&[(3, 1000, 0), (300, 5, 6)]).encode();
        for len in (1..bytes.len()).filter(|len| len % ENTRY_BYTES != 0) {
            assert_eq!(ValueTable::decode(&bytes[..len]), Err(Malformed), "{len}");
        }
        let (first, second) = bytes.split_at(ENTRY_BYTES);
        for refused in [[second, first], [first, first]] {
            assert_eq!(ValueTable::decode(&refused.concat()), Err(Malformed));
        }
        for (by_leaves, by_packs) in [(0, 0), (u64::MAX, 1), (1 << 60, 1)] {
            let impossible = table(&[(3, by_leaves, by_packs)]).encode();
            assert_eq!(ValueTable::decode(&impossible), Err(Malformed));
        }
    }

    #[test]
    fn what_is_in_nodes_is_counted_by_file_and_taken_away_again() {
        let value = [7; 100];
        let reference = |file| Digest::new(1, &value).place(file, 64);
        let (a, b) = (reference(2), reference(9));
        let mut image = leaf::new(b"", None, 4096);
        let mut page = LeafMut::from_image(&mut image);
        page.insert(0, b"a", LeafValue::Apart(a.as_bytes()))
            .unwrap();
        page.insert(1, b"b", LeafValue::Inline(a.as_bytes()))
            .unwrap();
        page.insert(2, b"c", LeafValue::Apart(b.as_bytes()))
            .unwrap();
        let changes: [pack::Change<'_>; 3] = [
            (b"a", None),
            (b"b", Some(Stored::Apart(b.as_bytes()))),
            (b"c", Some(Stored::Inline(b.as_bytes()))),
        ];
        let pack = pack::build(b"", None, &changes, SeqNo(1), 4096);
        let mut of_leaf = ValueTable::default();
        of_leaf.add_node(&image);
        assert_eq!(of_leaf, table(&[(2, 100, 0), (9, 100, 0)]));
        let mut all = of_leaf.clone();
        all.add_node(&pack);
        assert_eq!(all, table(&[(2, 100, 0), (9, 100, 100)]));
        assert!(all.subtract(&of_leaf));
        assert_eq!(all, table(&[(9, 0, 100)]));
    }

    /// A table that has too little would let a file go that is referred to.
    #[test]
    fn what_is_not_there_is_not_taken_away() {
        let mut all = table(&[(2, 100, 0), (9, 100, 100)]);
        assert!(!all.subtract(&table(&[(1, 1, 0), (2, 101, 0), (9, 100, 100)])));
        assert_eq!(all, table(&[(2, 100, 0)]));
    }
}
