//! What a transaction has read, of which its commit depends.

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::types::{KeyRange, KeySet, KeyspaceId};
use crate::util::keyed_list::KeyedList;
use crate::util::mutants::mutated;

/// From so many bytes on keys that are next to one another are joined, with what lies between them.
const MAX_BYTES: usize = 4 << 20;

/// Keys and ranges that were read, over any number of keyspaces. Exact, as long as they take less
/// than [`MAX_BYTES`].
#[derive(Debug, Default)]
pub(super) struct ReadSet {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    parts: KeyedList<KeyspaceId, KeySet>,
    /// What the parts take, all together.
    bytes: usize,
    /// What each part takes, and its place. Empty until they take too much for the first time.
    sizes: BTreeSet<(usize, usize)>,
    /// What cursors that live have passed since they were positioned.
    passed: Vec<Option<(KeyspaceId, KeyRange)>>,
    /// Places among them of cursors that are gone.
    free: Vec<usize>,
}

impl ReadSet {
    /// A key was read, be it there or not.
    pub(super) fn note_key(&self, keyspace: KeyspaceId, key: &[u8]) {
        let mut inner = self.inner.lock();
        inner.change(keyspace, |keys| keys.insert_key(key));
    }

    /// Takes everything that was read, ordered by keyspace: what is read from then on belongs to no
    /// commit.
    pub(super) fn take(&self) -> Vec<(KeyspaceId, KeySet)> {
        let mut inner = self.inner.lock();
        for at in 0..inner.passed.len() {
            inner.keep(at);
        }
        inner.bytes = 0;
        inner.sizes.clear();
        let mut parts = std::mem::take(&mut inner.parts).into_entries();
        parts.sort_unstable_by_key(|(keyspace, _)| *keyspace);
        parts
    }
}

impl Inner {
    /// Changes what was read of a keyspace, and then makes it coarser if all take too much.
    fn change(&mut self, keyspace: KeyspaceId, change: impl FnOnce(&mut KeySet)) {
        let place = self.parts.place_or_add(keyspace, KeySet::default);
        self.change_at(place, change);
        if self.bytes > MAX_BYTES {
            self.shrink();
        }
    }

    fn change_at(&mut self, place: usize, change: impl FnOnce(&mut KeySet)) {
        let keys = self.parts.at_mut(place);
        let before = keys.len_bytes();
        change(keys);
        let after = keys.len_bytes();
        self.bytes = self.bytes - before + after;
        if !self.sizes.is_empty() {
            self.sizes.remove(&(before, place));
            self.sizes.insert((after, place));
        }
    }

    /// Adds what a cursor has passed.
    fn keep(&mut self, at: usize) {
        if let Some((keyspace, range)) = self.passed[at].take() {
            self.change(keyspace, |keys| {
                keys.insert(range);
            });
        }
    }

    /// Makes the largest part coarser if they take too much. That ends: what is left of one in the
    /// end is the whole keyspace, and there are not so many keyspaces.
    #[cold]
    fn shrink(&mut self) {
        if self.sizes.is_empty() {
            let sizes = self.parts.values().map(KeySet::len_bytes);
            self.sizes = sizes.zip(0..).collect();
        }
        while self.bytes > MAX_BYTES {
            let (_, largest) = *self.sizes.last().expect("there is one");
            self.change_at(largest, KeySet::coarsen);
        }
    }
}

/// What one cursor passes: from where it was positioned to where it has come.
#[derive(Debug)]
pub(super) struct Passed {
    reads: Arc<ReadSet>,
    keyspace: KeyspaceId,
    at: usize,
}

impl Passed {
    /// Nothing so far.
    pub(super) fn new(reads: &Arc<ReadSet>, keyspace: KeyspaceId) -> Self {
        let mut inner = reads.inner.lock();
        let at = inner.free.pop().unwrap_or_else(|| {
            inner.passed.push(None);
            inner.passed.len() - 1
        });
        Self {
            reads: Arc::clone(reads),
            keyspace,
            at,
        }
    }

    /// The cursor was positioned anew, and has passed this. A range without a key is one of which
    /// it is outside, and that it may come into.
    pub(super) fn begin(&self, range: KeyRange) {
        let mut inner = self.reads.inner.lock();
        inner.keep(self.at);
        inner.passed[self.at] = Some((self.keyspace, range));
    }

    /// It has come forwards to `key`; or to `end`, and found no other.
    pub(super) fn extend_to(&self, key: Option<&[u8]>, end: Option<&[u8]>) {
        if mutated!("range-read-not-tracked") {
            return;
        }
        let mut inner = self.reads.inner.lock();
        let Some((_, KeyRange { end: passed, .. })) = &mut inner.passed[self.at] else {
            return;
        };
        match (key, passed) {
            (None, passed) => *passed = end.map(<[u8]>::to_vec),
            // Not if it has turned round, and been there before.
            (Some(key), Some(passed)) if passed.as_slice() <= key => {
                passed.clear();
                passed.extend_from_slice(key);
                passed.push(0);
            }
            (Some(_), _) => {}
        }
    }

    /// It has come backwards to `key`.
    pub(super) fn extend_back_to(&self, key: &[u8]) {
        let mut inner = self.reads.inner.lock();
        if let Some((_, KeyRange { start, .. })) = &mut inner.passed[self.at]
            && key < start.as_slice()
        {
            start.clear();
            start.extend_from_slice(key);
        }
    }
}

impl Drop for Passed {
    fn drop(&mut self) {
        let mut inner = self.reads.inner.lock();
        inner.keep(self.at);
        inner.free.push(self.at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Random, comparisons_of};

    /// The parts that a plain list of them would have.
    #[derive(Default)]
    struct Plain(Vec<(KeyspaceId, KeySet)>);

    impl Plain {
        fn insert(&mut self, keyspace: KeyspaceId, range: &KeyRange) {
            let found = self.0.iter().position(|(id, _)| *id == keyspace);
            let at = found.unwrap_or_else(|| {
                self.0.push((keyspace, KeySet::default()));
                self.0.len() - 1
            });
            self.0[at].1.insert(range.clone());
            let bytes = |plain: &Self| -> usize {
                let parts = plain.0.iter();
                parts.map(|(_, keys)| keys.len_bytes()).sum()
            };
            while bytes(self) > MAX_BYTES {
                let parts = self.0.iter_mut();
                let largest = parts.max_by_key(|(_, keys)| keys.len_bytes());
                largest.unwrap().1.coarsen();
            }
        }
    }

    fn ranges(parts: &[(KeyspaceId, KeySet)]) -> Vec<(KeyspaceId, Vec<KeyRange>)> {
        let ranges = |(id, keys): &(KeyspaceId, KeySet)| (*id, keys.ranges().collect());
        parts.iter().map(ranges).collect()
    }

    /// Each read looked through the keyspaces that were read before, and added up what all of them
    /// took.
    #[test]
    fn a_read_of_one_of_many_keyspaces_is_noted_with_few_comparisons() {
        const COUNT: usize = 1000;
        let reads = ReadSet::default();
        let compared = comparisons_of(|| {
            for key in [b"a", b"b"] {
                for keyspace in (0..COUNT as u32).rev().map(KeyspaceId) {
                    reads.note_key(keyspace, key);
                }
            }
        });
        assert!((COUNT..8 * COUNT).contains(&compared), "{compared}");
        let parts = reads.take();
        let ids = parts.iter().map(|(id, _)| id.0);
        assert!(ids.eq(0..COUNT as u32), "in the order of keyspaces");
        assert!(parts.iter().all(|(_, keys)| keys.ranges().count() == 2));
    }

    /// What is kept is what a list keeps that is added up at each read: few keyspaces and many, in
    /// parts of one size and of several.
    #[test]
    fn the_largest_part_is_made_coarser_whenever_all_take_too_much() {
        for count in [1, 5, 40] {
            let mut random = Random::new(count);
            let reads = Arc::new(ReadSet::default());
            for _ in 0..2 {
                let mut plain = Plain::default();
                for n in 0..200_u64 {
                    let upto = 1 + random.below(count);
                    let keyspace = KeyspaceId(random.below(upto) as u32);
                    let key = random.below(1 << 20).to_be_bytes();
                    let long = vec![n as u8; 30_000 + 10_000 * random.index(3)];
                    let range = KeyRange::one(&[&key[..], &long].concat());
                    if random.one_in(3) {
                        Passed::new(&reads, keyspace).begin(range.clone());
                    } else {
                        reads.note_key(keyspace, &range.start);
                    }
                    plain.insert(keyspace, &range);
                    let inner = reads.inner.lock();
                    let bytes: usize = inner.parts.values().map(KeySet::len_bytes).sum();
                    assert_eq!(inner.bytes, bytes, "of {count}");
                    assert!(bytes <= MAX_BYTES);
                }
                assert!(!reads.inner.lock().sizes.is_empty(), "all fitted");
                plain.0.sort_by_key(|(id, _)| *id);
                assert_eq!(ranges(&reads.take()), ranges(&plain.0), "of {count}");
                let inner = reads.inner.lock();
                assert!(inner.bytes == 0 && inner.sizes.is_empty());
            }
        }
    }
}
