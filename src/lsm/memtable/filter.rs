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
//!
//! It takes no memory before the first key, and little for the first [`FEW`]: a store may have tens
//! of thousands of keyspaces that little or nothing is written to. Those keys are in small lines,
//! beside their hashes; the next key has all of them added to the large lines, which then are shown
//! to readers. A reader that does not see the large lines knows of none of the keys that are only
//! there, by the same order.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::util::mutants::mutated;
use crate::util::prefetch::prefetch;

/// Bytes of a memtable for each byte of its filter.
const SHARE: u64 = 128;
/// Bits of a key.
const PROBES: u32 = 6;
/// As in the filters of tables.
const PROBE_STEP: u32 = 0x9E37_79B9;

/// So many keys do without the large lines.
const FEW: usize = 512;
/// Lines for those.
const FEW_LINES: usize = 16;

/// A cache line.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Line([AtomicU64; 8]);

/// The filter.
#[derive(Debug)]
pub(super) struct MemtableFilter {
    /// None before the first key.
    few: OnceLock<Box<FewKeys>>,
    /// None before there are many keys.
    lines: OnceLock<Box<[Line]>>,
    count: usize,
}

/// The first keys.
#[derive(Debug)]
struct FewKeys {
    lines: [Line; FEW_LINES],
    hashes: [AtomicU64; FEW],
    /// How many hashes there are. Only the thread that adds keys looks at it.
    len: AtomicUsize,
}

impl FewKeys {
    fn new() -> Box<Self> {
        Box::new(Self {
            lines: Default::default(),
            hashes: [const { AtomicU64::new(0) }; FEW],
            len: AtomicUsize::new(0),
        })
    }

    /// Adds a key. False if there are too many.
    fn add(&self, hash: u64) -> bool {
        let len = self.len.load(Ordering::Relaxed);
        let Some(place) = self.hashes.get(len) else {
            return false;
        };
        place.store(hash, Ordering::Relaxed);
        self.len.store(len + 1, Ordering::Relaxed);
        set_bits(line_in(&self.lines, hash), hash);
        true
    }

    /// Lines with the same keys.
    fn in_lines(&self, count: usize) -> Box<[Line]> {
        let lines: Box<[Line]> = (0..count).map(|_| Line::default()).collect();
        let len = self.len.load(Ordering::Relaxed);
        let first = usize::from(mutated!("first-keys-not-in-the-large-filter"));
        for hash in &self.hashes[first..len] {
            let hash = hash.load(Ordering::Relaxed);
            set_bits(line_in(&lines, hash), hash);
        }
        lines
    }
}

impl MemtableFilter {
    /// For a memtable that takes about so many bytes.
    pub(super) fn new(memtable_bytes: u64) -> Self {
        let lines = memtable_bytes / SHARE / size_of::<Line>() as u64;
        Self {
            few: OnceLock::new(),
            lines: OnceLock::new(),
            count: lines.clamp(1, 1 << 20) as usize,
        }
    }

    /// The line of a key, if there is any key.
    #[inline]
    fn line(&self, hash: u64) -> Option<&Line> {
        match self.lines.get() {
            Some(lines) => Some(line_in(lines, hash)),
            None => self.few.get().map(|few| line_in(&few.lines, hash)),
        }
    }

    /// Adds a key by its hash.
    #[inline]
    pub(super) fn add(&self, hash: u64) {
        match self.lines.get() {
            Some(lines) => set_bits(line_in(lines, hash), hash),
            None => self.add_to_few(hash),
        }
    }

    #[cold]
    fn add_to_few(&self, hash: u64) {
        let few = self.few.get_or_init(FewKeys::new);
        if !few.add(hash) {
            let lines = few.in_lines(self.count.max(FEW_LINES));
            set_bits(line_in(&lines, hash), hash);
            self.lines.get_or_init(|| lines);
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
        let few = self.few.get().map_or(0, |_| size_of::<FewKeys>());
        let lines = self.lines.get().map_or(0, |lines| lines.len());
        few + lines * size_of::<Line>()
    }
}

/// Sets the bits of a key in its line.
#[inline]
fn set_bits(line: &Line, hash: u64) {
    for (word, bit) in probes(hash) {
        let bits = line.0[word].load(Ordering::Relaxed);
        if bits & bit == 0 {
            // One writer: a store is cheaper than an atomic change.
            line.0[word].store(bits | bit, Ordering::Relaxed);
        }
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
    use crate::lsm::table::filter_hash;

    /// 65,536 keyspaces that nothing was written to took 10.9 GiB; 1,000 with few keys 256 MiB.
    #[test]
    fn a_filter_takes_as_little_memory_as_it_has_keys() {
        let filter = MemtableFilter::new(64 << 20);
        assert!(!filter.may_contain(7));
        filter.prefetch(7);
        assert_eq!(filter.size_bytes(), 0);
        let hash = |key: usize| filter_hash(&key.to_be_bytes());
        for key in 0..=FEW {
            assert!(filter.size_bytes() < 6 << 10);
            filter.add(hash(key));
            assert!((0..=key).all(|key| filter.may_contain(hash(key))));
        }
        assert_eq!(filter.size_bytes() >> 10, 512 + 5);
    }

    #[test]
    fn few_keys_let_few_others_pass() {
        let filter = MemtableFilter::new(64 << 20);
        let hash = |key: usize| filter_hash(&key.to_be_bytes());
        (0..FEW).for_each(|key| filter.add(hash(key)));
        let wrong = (FEW..10 * FEW).filter(|key| filter.may_contain(hash(*key)));
        assert!(wrong.count() < FEW / 20);
    }

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
