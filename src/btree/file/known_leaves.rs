//! What is known of leaves of the file, so that a put need not look at them.
//!
//! A put of a short value needs three numbers of the leaf that it changes, and the promise that the
//! leaf is the one which its parent says. They are kept from the time the leaf was written or
//! looked at until its place is written anew: eight bytes for each unit of the file, in chunks that
//! are allocated when the first of their leaves is known.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use crate::btree::node::leaf::LeafFacts;
use crate::format::checksum::Checksum;

/// Units that a chunk stands for.
const UNITS_PER_CHUNK: u64 = 4096;

/// Layout of a word, from the lowest bit: one that is set, then these.
const ENTRIES_BITS: u32 = 13;
/// In steps of [`LIVE_STEP`].
const LIVE_BITS: u32 = 14;
const PREFIX_BITS: u32 = 8;
const UNITS_BITS: u32 = 5;
const FENCES_BITS: u32 = 23;

const LIVE_STEP: usize = 4;

/// Facts, and the number of the fences that the leaf is sure to have, as a word that is not zero.
/// `None` if one of them is too large.
fn to_word(facts: LeafFacts, fences: u64) -> Option<u64> {
    let parts = [
        (facts.entries as u64, ENTRIES_BITS),
        (facts.live_bytes.div_ceil(LIVE_STEP) as u64, LIVE_BITS),
        (facts.prefix_len as u64, PREFIX_BITS),
        (facts.units, UNITS_BITS),
        (fences, FENCES_BITS),
    ];
    let (mut word, mut at) = (1, 1);
    for (part, bits) in parts {
        if part >> bits != 0 {
            return None;
        }
        word |= part << at;
        at += bits;
    }
    Some(word)
}

/// What [`to_word`] was given; `None` of zero.
fn of_word(word: u64) -> Option<(LeafFacts, u64)> {
    let mut rest = word >> 1;
    let mut part = |bits: u32| {
        let part = rest & ((1 << bits) - 1);
        rest >>= bits;
        part
    };
    let facts = LeafFacts {
        entries: part(ENTRIES_BITS) as usize,
        live_bytes: part(LIVE_BITS) as usize * LIVE_STEP,
        prefix_len: part(PREFIX_BITS) as usize,
        units: part(UNITS_BITS),
    };
    let fences = part(FENCES_BITS);
    (word != 0).then_some((facts, fences))
}

/// A number for the fences of a leaf: a leaf that two parents refer to, in a damaged file, is not
/// taken for one that was looked at from the other.
fn number_of((lower, upper): (&[u8], Option<&[u8]>)) -> u64 {
    let mut sum = Checksum::seeded(lower.len() as u64 * 2 + u64::from(upper.is_some()));
    sum.update(lower);
    sum.update(upper.unwrap_or_default());
    u64::from(sum.finish()) & ((1 << FENCES_BITS) - 1)
}

/// What is to be known of a leaf.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KnownLeaf(u64);

impl KnownLeaf {
    /// `None` if one of the numbers is too large.
    pub(super) fn new(facts: LeafFacts, fences: (&[u8], Option<&[u8]>)) -> Option<Self> {
        to_word(facts, number_of(fences)).map(Self)
    }
}

type Chunk = OnceLock<Box<[AtomicU64]>>;

/// The facts of all leaves of a file that are known.
///
/// Thread-safe. What is found may be outdated only if the place is being written, which no leaf
/// that a reader can reach is.
pub(super) struct KnownLeaves {
    units: u64,
    chunks: Vec<Arc<Chunk>>,
}

impl KnownLeaves {
    /// Of a file with `units` units, of which `old` was known.
    pub(super) fn new(units: u64, old: Option<&Self>) -> Self {
        let count = units.div_ceil(UNITS_PER_CHUNK) as usize;
        let mut chunks: Vec<_> = old.map_or(Vec::new(), |old| old.chunks.clone());
        chunks.resize_with(count, Arc::default);
        let known = Self { units, chunks };
        // Units that were cut off may come back as others.
        for page in units
            ..old
                .map_or(0, |old| old.units)
                .min(count as u64 * UNITS_PER_CHUNK)
        {
            known.forget(page);
        }
        known
    }

    /// What is known of the leaf at `page`, which is to have these fences.
    #[inline]
    pub(super) fn find(&self, page: u64, fences: (&[u8], Option<&[u8]>)) -> Option<LeafFacts> {
        let word = self.word(page)?.load(Ordering::Acquire);
        let (facts, number) = of_word(word)?;
        (number == number_of(fences)).then_some(facts)
    }

    /// Notes what the leaf at `page` is.
    pub(super) fn note(&self, page: u64, KnownLeaf(word): KnownLeaf) {
        if let Some(chunk) = self.chunks.get((page / UNITS_PER_CHUNK) as usize) {
            let new_chunk = || (0..UNITS_PER_CHUNK).map(|_| AtomicU64::new(0)).collect();
            let chunk = chunk.get_or_init(new_chunk);
            chunk[(page % UNITS_PER_CHUNK) as usize].store(word, Ordering::Release);
        }
    }

    /// The place is about to be written anew.
    pub(super) fn forget(&self, page: u64) {
        if let Some(word) = self.word(page) {
            word.store(0, Ordering::Release);
        }
    }

    fn word(&self, page: u64) -> Option<&AtomicU64> {
        let chunk = self.chunks.get((page / UNITS_PER_CHUNK) as usize)?.get()?;
        chunk.get((page % UNITS_PER_CHUNK) as usize)
    }

    /// Memory that it takes.
    pub(super) fn size_bytes(&self) -> usize {
        let chunks = self.chunks.iter().filter(|chunk| chunk.get().is_some());
        chunks.count() * UNITS_PER_CHUNK as usize * size_of::<AtomicU64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FENCES: (&[u8], Option<&[u8]>) = (b"a", Some(b"b"));

    fn facts(entries: usize) -> LeafFacts {
        LeafFacts {
            entries,
            live_bytes: 16_000,
            prefix_len: 3,
            units: 4,
        }
    }

    fn leaf(facts: LeafFacts) -> Option<KnownLeaf> {
        KnownLeaf::new(facts, FENCES)
    }

    #[test]
    fn what_was_noted_is_found_between_the_same_fences_only() {
        let known = KnownLeaves::new(10_000, None);
        known.note(9_999, leaf(facts(5)).unwrap());
        assert_eq!(known.find(9_999, FENCES), Some(facts(5)));
        assert_eq!(known.find(9_998, FENCES), None);
        for other in [
            (&b""[..], None),
            (b"a", None),
            (b"", Some(&b"ab"[..])),
            (b"ab", Some(b"")),
        ] {
            assert_eq!(known.find(9_999, other), None);
        }
        assert_eq!(known.find(1 << 40, FENCES), None);
        known.forget(9_999);
        assert_eq!(known.find(9_999, FENCES), None);
    }

    #[test]
    fn numbers_that_are_too_large_are_not_noted() {
        for (entries, live_bytes, prefix_len, units) in [
            (1 << ENTRIES_BITS, 0, 0, 0),
            (0, 1 << (LIVE_BITS + 2), 0, 0),
            (0, 0, 1 << PREFIX_BITS, 0),
            (0, 0, 0, 1 << UNITS_BITS),
        ] {
            let facts = LeafFacts {
                entries,
                live_bytes,
                prefix_len,
                units,
            };
            assert!(leaf(facts).is_none());
        }
        let odd = LeafFacts {
            live_bytes: 9,
            ..facts(8191)
        };
        let known = KnownLeaves::new(10, None);
        known.note(1, leaf(odd).unwrap());
        let found = known.find(1, FENCES).unwrap();
        assert_eq!(found.entries, 8191);
        // Rounded up, so that no put is taken to fit that does not.
        assert_eq!(found.live_bytes, 12);
    }

    #[test]
    fn units_that_were_cut_off_come_back_unknown() {
        let first = KnownLeaves::new(10_000, None);
        for page in [5, 4999, 5000, 9999] {
            first.note(page, leaf(facts(1)).unwrap());
        }
        let cut = KnownLeaves::new(5000, Some(&first));
        let grown = KnownLeaves::new(10_000, Some(&cut));
        let is_known = |page| grown.find(page, FENCES).is_some();
        assert!(is_known(5) && is_known(4999));
        assert!(!is_known(5000) && !is_known(9999));
        assert_eq!(grown.size_bytes(), 2 * 8 * UNITS_PER_CHUNK as usize);
    }
}
