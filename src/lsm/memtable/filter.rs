//! Which keys a memtable does not have: a Bloom filter of one cache line for each key, as that of a
//! table ([`super::super::table::filter`]), but filled while it is asked.
//!
//! A memtable is searched on the way to most keys that it does not have, and that costs several
//! cache misses; the filter costs one.
//!
//! Bits are only ever set, by one thread at a time (LM1), before the entry is in the index. A
//! reader that knows of an entry, because the number that it reads at was published after the
//! insertion, sees its bits. The filter is as large as the budget says and not as the keys do, so
//! with very small entries it lets more pass.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::util::prefetch::prefetch;

/// Bytes of a memtable for each byte of its filter.
const SHARE: u64 = 128;
/// Bits of a key.
const PROBES: u32 = 6;
/// As in the filters of tables.
const PROBE_STEP: u32 = 0x9E37_79B9;

/// A cache line.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Line([AtomicU64; 8]);

/// The filter.
#[derive(Debug)]
pub(super) struct MemtableFilter {
    lines: Box<[Line]>,
}

impl MemtableFilter {
    /// For a memtable that takes about so many bytes.
    pub(super) fn new(memtable_bytes: u64) -> Self {
        let lines = memtable_bytes / SHARE / size_of::<Line>() as u64;
        Self {
            lines: (0..lines.clamp(1, 1 << 20))
                .map(|_| Line::default())
                .collect(),
        }
    }

    #[inline]
    fn line(&self, hash: u64) -> &Line {
        &self.lines[(((hash >> 32) * self.lines.len() as u64) >> 32) as usize]
    }

    /// Adds a key by its hash.
    #[inline]
    pub(super) fn add(&self, hash: u64) {
        let line = self.line(hash);
        for (word, bit) in probes(hash) {
            let bits = line.0[word].load(Ordering::Relaxed);
            if bits & bit == 0 {
                // One writer: a store is cheaper than an atomic change.
                line.0[word].store(bits | bit, Ordering::Relaxed);
            }
        }
    }

    /// False if no key of that hash was added.
    #[inline]
    pub(super) fn may_contain(&self, hash: u64) -> bool {
        let line = self.line(hash);
        probes(hash).all(|(word, bit)| line.0[word].load(Ordering::Relaxed) & bit != 0)
    }

    /// Asks for the line of a key.
    #[inline]
    pub(super) fn prefetch(&self, hash: u64) {
        prefetch(self.line(hash));
    }
}

/// Words of a line, and the bit in each.
#[inline]
fn probes(hash: u64) -> impl Iterator<Item = (usize, u64)> {
    let mut bits = hash as u32;
    (0..PROBES).map(move |_| {
        let at = bits >> 23;
        bits = bits.wrapping_mul(PROBE_STEP);
        ((at / 64) as usize, 1 << (at % 64))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lsm::table::filter_hash;

    #[test]
    fn every_key_is_found_and_few_others() {
        for (bytes, keys, most) in [(1 << 20, 7_000_u64, 25), (0, 2, 1000), (100, 1, 100)] {
            let filter = MemtableFilter::new(bytes);
            let hash = |key: u64| filter_hash(&key.to_be_bytes());
            (0..keys).for_each(|key| filter.add(hash(key)));
            assert!((0..keys).all(|key| filter.may_contain(hash(key))));
            let others = keys..keys + 1000;
            let wrong = others.filter(|key| filter.may_contain(hash(*key))).count();
            assert!(wrong < most, "{wrong} of 1000 with {bytes} bytes");
        }
    }
}
