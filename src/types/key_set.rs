//! Sets of keys that are made of single keys and of ranges.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::key_range::KeyRange;

/// What a part takes beside its bounds, about, in bytes.
const PART_COST_BYTES: usize = 64;

/// A set of keys: single keys and ranges, sorted, none of which overlap.
#[derive(Debug, Clone, Default)]
pub struct KeySet {
    /// Where each part begins, and where it ends.
    parts: BTreeMap<Vec<u8>, End>,
    bytes: usize,
}

/// Where a part ends.
#[derive(Debug, Clone, PartialEq, Eq)]
enum End {
    /// It is the one key where it begins.
    Key,
    Before(Vec<u8>),
    Nowhere,
}

impl End {
    /// The end of a part from `start`, in the form that compares: exclusive.
    fn of(start: &[u8], end: Option<Vec<u8>>) -> Self {
        match end {
            None => Self::Nowhere,
            Some(end) if is_successor(start, &end) => Self::Key,
            Some(end) => Self::Before(end),
        }
    }

    /// The exclusive end of a part from `start`; `None` if there is none.
    fn exclusive(&self, start: &[u8]) -> Option<Vec<u8>> {
        match self {
            Self::Key => KeyRange::one(start).end,
            Self::Before(end) => Some(end.clone()),
            Self::Nowhere => None,
        }
    }

    /// True if a part from `start`, which is at or before `key`, has it.
    fn covers(&self, start: &[u8], key: &[u8]) -> bool {
        match self {
            Self::Key => start == key,
            Self::Before(end) => key < end.as_slice(),
            Self::Nowhere => true,
        }
    }

    fn len_bytes(&self) -> usize {
        match self {
            Self::Before(end) => end.len(),
            Self::Key | Self::Nowhere => 0,
        }
    }
}

/// What an insertion put in the place of what: enough to take it back.
#[derive(Debug)]
pub(crate) struct Inserted {
    start: Vec<u8>,
    replaced: Vec<(Vec<u8>, End)>,
}

fn is_successor(key: &[u8], next: &[u8]) -> bool {
    next.len() == key.len() + 1 && next.starts_with(key) && next.ends_with(&[0])
}

/// True if an exclusive end is at `key` or behind it.
fn reaches(end: Option<&[u8]>, key: &[u8]) -> bool {
    end.is_none_or(|end| end >= key)
}

impl KeySet {
    /// The keys of one range.
    pub(crate) fn of(range: &KeyRange) -> Self {
        let mut set = Self::default();
        set.insert(range.clone());
        set
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Bytes of memory that it takes, about.
    pub(crate) fn len_bytes(&self) -> usize {
        self.bytes
    }

    /// The parts, in order.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = KeyRange> + '_ {
        self.parts.iter().map(|(start, end)| KeyRange {
            start: start.clone(),
            end: end.exclusive(start),
        })
    }

    /// The part that has `key`: where it begins, and its exclusive end.
    fn part_of(&self, key: &[u8]) -> Option<(&[u8], &End)> {
        let upto = (Bound::Unbounded, Bound::Included(key));
        let (start, end) = self.parts.range::<[u8], _>(upto).next_back()?;
        end.covers(start, key).then_some((start.as_slice(), end))
    }

    pub(crate) fn contains(&self, key: &[u8]) -> bool {
        self.part_of(key).is_some()
    }

    /// The range that has `key`.
    pub(crate) fn range_of(&self, key: &[u8]) -> Option<KeyRange> {
        let (start, end) = self.part_of(key)?;
        Some(KeyRange {
            start: start.to_vec(),
            end: end.exclusive(start),
        })
    }

    /// True if it has a key from `start` on that is below `end`.
    pub(crate) fn overlaps(&self, start: &[u8], end: Option<&[u8]>) -> bool {
        if end.is_some_and(|end| end <= start) {
            return false;
        }
        let end = end.map_or(Bound::Unbounded, Bound::Excluded);
        let within = (Bound::Included(start), end);
        self.contains(start) || self.parts.range::<[u8], _>(within).next().is_some()
    }

    /// Adds a key.
    pub(crate) fn insert_key(&mut self, key: &[u8]) {
        if !self.contains(key) {
            self.add(key.to_vec(), End::Key);
        }
    }

    /// Adds a range, joined with what it overlaps or touches. `None` if nothing changed.
    pub(crate) fn insert(&mut self, range: KeyRange) -> Option<Inserted> {
        if range.is_empty() {
            return None;
        }
        let KeyRange { mut start, mut end } = range;
        let upto = (Bound::Unbounded, Bound::Included(start.as_slice()));
        if let Some((before, its_end)) = self.parts.range::<[u8], _>(upto).next_back() {
            let its_end = its_end.exclusive(before);
            let has_all = match (&its_end, &end) {
                (None, _) => true,
                (Some(its), Some(end)) => its >= end,
                (Some(_), None) => false,
            };
            if has_all {
                return None;
            }
            if reaches(its_end.as_deref(), &start) {
                start = before.clone();
            }
        }
        let mut replaced = Vec::new();
        while let Some((next, _)) = self.parts.range(start.clone()..).next()
            && reaches(end.as_deref(), next)
        {
            let (next, its_end) = self.take(&next.clone());
            let its_exclusive = its_end.exclusive(&next);
            end = match (end, its_exclusive) {
                (Some(end), Some(its)) => Some(end.max(its)),
                _ => None,
            };
            replaced.push((next, its_end));
        }
        let part_end = End::of(&start, end);
        self.add(start.clone(), part_end);
        Some(Inserted { start, replaced })
    }

    /// Takes an insertion back. Those after it were taken back before.
    pub(crate) fn undo(&mut self, inserted: Inserted) {
        self.take(&inserted.start);
        for (start, end) in inserted.replaced {
            self.add(start, end);
        }
    }

    /// Joins neighbours in pairs, with what is between them: about half the parts are left, and no
    /// key goes. One part becomes all keys.
    pub(crate) fn coarsen(&mut self) {
        if self.parts.len() == 1 {
            *self = Self::default();
            self.add(Vec::new(), End::Nowhere);
            return;
        }
        let mut parts = std::mem::take(self).parts.into_iter();
        while let Some((start, end)) = parts.next() {
            let end = match parts.next() {
                Some((next, its_end)) => End::of(&start, its_end.exclusive(&next)),
                None => end,
            };
            self.add(start, end);
        }
    }

    fn add(&mut self, start: Vec<u8>, end: End) {
        self.bytes += start.len() + end.len_bytes() + PART_COST_BYTES;
        self.parts.insert(start, end);
    }

    fn take(&mut self, start: &[u8]) -> (Vec<u8>, End) {
        let (start, end) = self.parts.remove_entry(start).expect("a part of the set");
        self.bytes -= start.len() + end.len_bytes() + PART_COST_BYTES;
        (start, end)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::testing::Random;

    /// Every key of up to two bytes out of three.
    fn all_keys() -> Vec<Vec<u8>> {
        let bytes = [0, 1, 255];
        let mut keys = vec![Vec::new()];
        keys.extend(bytes.map(|byte| vec![byte]));
        keys.extend(bytes.iter().flat_map(|a| bytes.map(|b| vec![*a, b])));
        keys
    }

    fn random_range(random: &mut Random, keys: &[Vec<u8>]) -> KeyRange {
        let mut pick = || keys[random.index(keys.len())].clone();
        let (start, end) = (pick(), pick());
        match random.below(3) {
            0 => KeyRange::one(&start),
            1 => KeyRange { start, end: None },
            _ => KeyRange {
                start,
                end: Some(end),
            },
        }
    }

    fn has(range: &KeyRange, key: &[u8]) -> bool {
        key >= range.start.as_slice() && range.end.as_deref().is_none_or(|end| key < end)
    }

    fn check(set: &KeySet, expected: &BTreeSet<Vec<u8>>, keys: &[Vec<u8>]) {
        for key in keys {
            assert_eq!(set.contains(key), expected.contains(key), "{key:?}");
            assert!(set.range_of(key).is_none_or(|range| has(&range, key)));
        }
        let ranges: Vec<_> = set.ranges().collect();
        let gap = |pair: &[KeyRange]| pair[0].end.as_ref().is_some_and(|end| *end < pair[1].start);
        assert!(ranges.windows(2).all(gap), "{ranges:?}");
        let bytes = |(start, end): (&Vec<u8>, &End)| start.len() + end.len_bytes() + 64;
        assert_eq!(set.len_bytes(), set.parts.iter().map(bytes).sum::<usize>());
    }

    #[test]
    fn agrees_with_a_set_of_single_keys() {
        let keys = all_keys();
        for seed in 0..3000 {
            let mut random = Random::new(seed);
            let mut set = KeySet::default();
            let mut expected = BTreeSet::new();
            let mut undo = Vec::new();
            for _ in 0..random.below(7) {
                let range = random_range(&mut random, &keys);
                let before = expected.clone();
                expected.extend(keys.iter().filter(|key| has(&range, key)).cloned());
                if let Some(inserted) = set.insert(range) {
                    undo.push((inserted, before));
                }
                check(&set, &expected, &keys);
                let asked = random_range(&mut random, &keys);
                // Between the keys of the test there are others, so it may say yes more often.
                let one_has = expected.iter().any(|key| has(&asked, key));
                assert!(set.overlaps(&asked.start, asked.end.as_deref()) || !one_has);
            }
            if random.one_in(2) {
                while let Some((inserted, before)) = undo.pop() {
                    set.undo(inserted);
                    check(&set, &before, &keys);
                }
                assert!(set.is_empty() && set.len_bytes() == 0);
            } else {
                let parts = set.parts.len();
                set.coarsen();
                assert_eq!(set.parts.len(), parts.div_ceil(2));
                assert!(expected.iter().all(|key| set.contains(key)));
            }
        }
    }

    #[test]
    fn single_keys_touch_what_is_next_to_them_only() {
        let mut set = KeySet::default();
        set.insert_key(b"b");
        set.insert_key(b"b");
        assert!(!set.overlaps(b"a", Some(b"b")) && !set.overlaps(b"b\0", Some(b"c")));
        assert!(set.overlaps(b"a", None) && set.overlaps(b"b", Some(b"c")));
        assert!(!set.overlaps(b"c", Some(b"a")));
        assert_eq!(set.parts.len(), 1);
    }
}
