//! Packs: changes to leaves that stay as they are.
//!
//! A pack is a node of the third kind. It holds puts and deletes for the leaves of a group of
//! neighbours ([`super::packs`]), in key order, like a leaf whose records may also be deletes.
//! Its fences are the bounds that the group had when the pack was written. What it holds for a leaf
//! counts only if the leaf's parent says so: the leaf may have been written later.

use std::ops::Range;

use super::header::{
    CAPACITY_AT, COUNT_AT, Fences, Frame, HEAP_LIVE_AT, HEAP_START_AT, KIND_PACK, PACK_LEVEL,
    SLOT_LEN, put_size, put_u16, put_u32, set_last_seq, unit_size,
};
use super::leaf::{APART_FLAG, DELETED, Leaf, LeafValue, RECORD_HEADER_LEN, Stored};
use crate::format::coding::{get_u16, get_u32};
use crate::types::SeqNo;
use crate::util::key_prefix::head32;

/// The least that an entry takes in a leaf, slot included.
pub(crate) const ENTRY_BYTES_MIN: usize = SLOT_LEN + RECORD_HEADER_LEN;

/// A key, and its new value or none.
pub(crate) type Change<'a> = (&'a [u8], Option<Stored<'a>>);

/// Reads a pack.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pack<'a>(&'a [u8]);

impl<'a> Pack<'a> {
    /// The pack in `image`, which passed `validate` or was made here.
    pub(crate) fn from_image(image: &'a [u8]) -> Self {
        Self(image)
    }

    fn frame(self) -> Frame<'a> {
        Frame(self.0)
    }

    /// Number of changes.
    pub(crate) fn len(self) -> usize {
        self.frame().count()
    }

    /// The change to `key`, if there is one: a new value, or none for a delete.
    #[cfg(any(test, feature = "internals"))]
    pub(crate) fn find(self, key: &[u8]) -> Option<Option<Stored<'a>>> {
        let slot = self.search(key).ok()?;
        Some(self.value(slot))
    }

    /// The slot of `key`, or the slot where it would go.
    pub(crate) fn search(self, key: &[u8]) -> Result<usize, usize> {
        // A search looks at keys only, which lie in the records as they do in a leaf.
        Leaf::from_image(self.0).search(key)
    }

    /// The changes to keys from `lower` up to `upper`.
    pub(crate) fn range(self, lower: &[u8], upper: Option<&[u8]>) -> Range<usize> {
        let at = |key: &[u8]| self.search(key).unwrap_or_else(|slot| slot);
        let from = at(lower);
        from..upper.map_or(self.len(), at).max(from)
    }

    /// What every key in the pack starts with.
    pub(crate) fn prefix(self) -> &'a [u8] {
        self.frame().prefix()
    }

    /// Key `i` after the prefix.
    pub(crate) fn key_suffix(self, i: usize) -> &'a [u8] {
        Leaf::from_image(self.0).key_suffix(i)
    }

    /// The new value of change `i`, none for a delete.
    pub(crate) fn value(self, i: usize) -> Option<Stored<'a>> {
        let at = self.frame().record_at(i);
        let key_len = usize::from(get_u16(self.0, at));
        let word = get_u32(self.0, at + 2);
        let at = at + RECORD_HEADER_LEN + key_len;
        (word != DELETED).then(|| Stored::at(self.0, at, word))
    }

    /// True if the fences have all keys from `lower` up to `upper` between them.
    pub(crate) fn spans(self, lower: &[u8], upper: Option<&[u8]>) -> bool {
        let frame = self.frame();
        let is_above = match (frame.upper(), upper) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(own), Some(upper)) => upper <= own.as_slice(),
        };
        is_above && frame.lower() <= lower
    }
}

/// Lengths of the key suffix and the value, which a delete has not, of the record at `at`.
pub(crate) fn record_lens(image: &[u8], at: usize) -> (usize, Option<usize>) {
    let key_len = usize::from(get_u16(image, at));
    let word = get_u32(image, at + 2);
    let len = (word & !APART_FLAG) as usize;
    (key_len, (word != DELETED).then_some(len))
}

/// Bytes of a record, slot included, at most: between fences a key loses its prefix.
pub(crate) fn record_bytes((key, value): Change<'_>) -> usize {
    SLOT_LEN + RECORD_HEADER_LEN + key.len() + value.map_or(0, Stored::len)
}

/// What a change adds to a leaf whose prefix has `prefix_len` bytes and which has `old` under the
/// key.
pub(crate) fn growth(change: Change<'_>, old: Option<LeafValue<'_>>, prefix_len: usize) -> isize {
    let (key, value) = change;
    let entry = ENTRY_BYTES_MIN + key.len() - prefix_len;
    let bytes = |len: Option<usize>| len.map_or(0, |len| entry + len) as isize;
    bytes(value.map(Stored::len)) - bytes(old.map(LeafValue::stored_len))
}

/// A pack of `changes`, which ascend and lie between the fences, the last of them operation `seq`
/// or an earlier one.
pub(crate) fn build(
    lower: &[u8],
    upper: Option<&[u8]>,
    changes: &[Change<'_>],
    seq: SeqNo,
    page_size: usize,
) -> Box<[u8]> {
    let fences = Fences { lower, upper };
    let prefix_len = fences.prefix_len();
    let heads_at = fences.heads_offset();
    let live: usize = changes
        .iter()
        .map(|change| record_bytes(*change) - SLOT_LEN - prefix_len)
        .sum();
    let count = changes.len();
    let unit = unit_size(page_size);
    let units = (heads_at + SLOT_LEN * count + live).div_ceil(unit);
    let mut image = vec![0; units * unit].into_boxed_slice();
    fences.write(&mut image, KIND_PACK, PACK_LEVEL, units);
    set_last_seq(&mut image, seq);
    let slots_at = heads_at + 4 * count;
    let mut at = image.len() - live;
    put_size(&mut image, COUNT_AT, count);
    put_size(&mut image, CAPACITY_AT, count);
    put_size(&mut image, HEAP_START_AT, at);
    put_size(&mut image, HEAP_LIVE_AT, live);
    for (i, (key, value)) in changes.iter().enumerate() {
        let suffix = &key[prefix_len..];
        put_u32(&mut image, heads_at + 4 * i, head32(suffix));
        put_size(&mut image, slots_at + 4 * i, at);
        put_u16(&mut image, at, suffix.len() as u16);
        let word = value.map_or(DELETED, Stored::word);
        put_u32(&mut image, at + 2, word);
        at += RECORD_HEADER_LEN;
        image[at..at + suffix.len()].copy_from_slice(suffix);
        at += suffix.len();
        let value = value.map(Stored::bytes).unwrap_or_default();
        image[at..at + value.len()].copy_from_slice(value);
        at += value.len();
    }
    image
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::btree::node::{NodeKind, kind, validate};
    use crate::values::{Digest, EncodedRef};

    fn reference() -> EncodedRef {
        Digest::new(1, b"a long value").place(3, 700)
    }

    #[test]
    fn a_pack_reads_as_it_was_written() {
        let reference = reference();
        let changes: Vec<Change<'_>> = vec![
            (b"ka", Some(Stored::Inline(b"one"))),
            (b"kab", None),
            (b"kb", Some(Stored::Inline(b""))),
            (b"kc", Some(Stored::Apart(reference.as_bytes()))),
            (b"kz", None),
        ];
        for page_size in [1024, 16_384] {
            for (lower, upper) in [
                (&b"k"[..], Some(&b"l"[..])),
                (b"ka", Some(b"kzz")),
                (b"", None),
            ] {
                let image = build(lower, upper, &changes, SeqNo(9), page_size);
                assert_eq!(validate(&image), Ok(()));
                assert_eq!(kind(&image), Some(NodeKind::Pack));
                let pack = Pack::from_image(&image);
                let read: Vec<_> = (0..pack.len())
                    .map(|i| ([pack.prefix(), pack.key_suffix(i)].concat(), pack.value(i)))
                    .collect();
                let written = changes.iter().map(|(key, value)| (key.to_vec(), *value));
                assert!(read.into_iter().eq(written));
                for (key, value) in &changes {
                    assert_eq!(pack.find(key), Some(*value));
                }
                assert_eq!(pack.find(b"kaa"), None);
                assert_eq!(pack.range(b"kab", Some(b"kz")), 1..4);
                assert_eq!(pack.range(b"kab", None), 1..5);
                assert_eq!(pack.range(b"", Some(b"")), 0..0);
                assert!(pack.spans(lower, upper));
                assert!(pack.spans(b"kb", Some(b"kc")));
                assert_eq!(pack.spans(b"kb", None), upper.is_none());
            }
        }
    }

    #[test]
    fn growth_is_what_the_leaf_gains() {
        let old = Some(LeafValue::Inline(b"12345"));
        let put = Some(Stored::Inline(b"123"));
        assert_eq!(growth((b"pkey", put), None, 1), 14 + 3 + 3);
        assert_eq!(growth((b"pkey", put), old, 1), -2);
        assert_eq!(growth((b"pkey", None), old, 1), -(14 + 3 + 5));
        assert_eq!(growth((b"pkey", None), None, 1), 0);
    }
}
