//! Which keys a memtable does not have: a Bloom filter of one cache line for each key, as that of a
//! table ([`super::super::table::filter`]), but filled while it is asked.
//!
//! A memtable is searched on the way to most keys that it does not have, and that costs several
//! cache misses; the filter costs one.
//!
//! Bits are only ever set, by one thread at a time (LM1), before the entry is in the index. A
//! reader that knows of an entry, because the number that it reads at was published after the
//! insertion, sees its bits. The filter is as large as the budget says and not as the keys do, so
//! with very small entries it lets more pass. It takes no memory before the first key: a store may
//! have tens of thousands of keyspaces that nothing is written to.

use std::sync::OnceLock;
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
    /// None before the first key.
    lines: OnceLock<Box<[Line]>>,
    count: usize,
}

impl MemtableFilter {
    /// For a memtable that takes about so many bytes.
    pub(super) fn new(memtable_bytes: u64) -> Self {
        let lines = memtable_bytes / SHARE / size_of::<Line>() as u64;
        Self {
            lines: OnceLock::new(),
            count: lines.clamp(1, 1 << 20) as usize,
        }
    }

    /// The line of a key, if there is any key.
    #[inline]
    fn line(&self, hash: u64) -> Option<&Line> {
        self.lines.get().map(|lines| line_in(lines, hash))
    }

    /// Adds a key by its hash.
    #[inline]
    pub(super) fn add(&self, hash: u64) {
        let new = || (0..self.count).map(|_| Line::default()).collect();
        let line = line_in(self.lines.get_or_init(new), hash);
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
        let Some(line) = self.line(hash) else {
            return false;
        };
        probes(hash).all(|(word, bit)| line.0[word].load(Ordering::Relaxed) & bit != 0)
    }

    /// Asks for the line of a key.
    #[inline]
    pub(super) fn prefetch(&self, hash: u64) {
        if let Some(line) = self.line(hash) {
            prefetch(line);
        }
    }

    /// Memory that it takes.
    #[cfg(test)]
    fn size_bytes(&self) -> usize {
        let lines = self.lines.get().map_or(0, |lines| lines.len());
        lines * size_of::<Line>()
    }
}

/// The line of a key.
#[inline]
fn line_in(lines: &[Line], hash: u64) -> &Line {
    &lines[(((hash >> 32) * lines.len() as u64) >> 32) as usize]
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

    /// 65,536 keyspaces that nothing was written to took 10.9 GiB.
    #[test]
    fn a_filter_without_keys_takes_no_memory() {
        let filter = MemtableFilter::new(64 << 20);
        assert!(!filter.may_contain(7));
        filter.prefetch(7);
        assert_eq!(filter.size_bytes(), 0);
        filter.add(7);
        assert!(filter.may_contain(7));
        assert_eq!(filter.size_bytes(), 512 << 10);
    }
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
