//! What a batch comes to: for each key that it has, what becomes of it, and which ranges are empty
//! but for those.

use std::ops::{Bound, Range};

use crate::engine::Laid;
use crate::kv::Batch;
use crate::types::{KeyRange, KeySet, Op, SeqNo, SequencedOp};
use crate::util::key_prefix::{common_prefix_len, head64};
use crate::util::mutants::mutated;

/// The outcome of a batch, by key. It refers to places in the batch, which is handed in with each
/// call.
#[derive(Debug)]
pub(super) struct BatchIndex {
    /// Rising by key, one for each key.
    points: Vec<Point>,
    /// What all of their keys begin with.
    shared_len: usize,
    /// Ranges that are deleted, disjoint and rising. What is in `points` came later.
    removed: Vec<KeyRange>,
}

/// The last operation on a key.
#[derive(Debug, Clone, Copy)]
struct Point {
    /// The first bytes of the key behind what all keys share.
    head: u64,
    /// Where it begins in the batch.
    at: u32,
    /// The how manieth operation it is.
    number: u32,
}

fn key_at<'a>(batch: &'a Batch, point: &Point) -> &'a [u8] {
    let op = batch.op_at(point.at as usize);
    op.key().expect("points are at keys")
}

impl BatchIndex {
    /// Of a batch that keeps to the limits, which are below what a `u32` holds.
    pub(super) fn new(batch: &Batch) -> Self {
        let ends = batch.iter_with_ends().map(|(_, end)| end as u32);
        let begins: Vec<u32> = std::iter::once(0).chain(ends).take(batch.len()).collect();
        let mut removed = KeySet::default();
        let mut points = Vec::with_capacity(batch.len());
        // From the last on: what comes later is known.
        for (number, at) in begins.into_iter().enumerate().rev() {
            let number = number as u32;
            match batch.op_at(at as usize) {
                // Batches with merges are not staged.
                Op::Put { key, .. } | Op::Delete { key } | Op::Merge { key, .. } => {
                    let is_removed = !removed.is_empty() && removed.contains(key);
                    if !is_removed || mutated!("put-before-a-range-delete-of-its-batch-stays") {
                        let head = 0;
                        points.push(Point { head, at, number });
                    }
                }
                Op::DeleteRange { start, end } => {
                    let (start, end) = (start.to_vec(), end.map(<[u8]>::to_vec));
                    removed.insert(KeyRange { start, end });
                }
            }
        }
        let shared_len = sort(batch, &mut points);
        Self {
            points,
            shared_len,
            removed: removed.ranges().collect(),
        }
    }

    /// The outcome as operations on each key and range once, numbered with rising numbers of those
    /// from `first` to `last`, which are the batch's: ranges before keys, and these in order.
    /// `value_ref` knows which values are stored apart.
    pub(super) fn ops<'a>(
        &'a self,
        batch: &'a Batch,
        (first, last): (SeqNo, SeqNo),
        value_ref: impl Fn(SeqNo) -> Option<&'a [u8]>,
    ) -> Vec<SequencedOp<'a>> {
        let mut ops = Vec::with_capacity(self.removed.len() + self.points.len());
        // The last operation has the last number, be it on a range or on a key: by that number
        // engines know how much of the log they have.
        let from = |count: usize| last.0.saturating_add(1).saturating_sub(count as u64);
        let has_points =
            !self.points.is_empty() || mutated!("last-range-of-a-batch-has-not-its-last-number");
        let ranges_from = if has_points {
            first.0
        } else {
            from(self.removed.len())
        };
        ops.extend((ranges_from..).zip(&self.removed).map(|(seq, range)| {
            let op = Op::DeleteRange {
                start: &range.start,
                end: range.end.as_deref(),
            };
            SequencedOp::new(SeqNo(seq), op)
        }));
        let points_from = from(self.points.len());
        ops.extend(
            (points_from..)
                .zip(&self.points)
                .map(|(seq, point)| SequencedOp {
                    seq: SeqNo(seq),
                    op: batch.op_at(point.at as usize),
                    value_ref: value_ref(first.plus(u64::from(point.number))),
                }),
        );
        ops
    }

    /// Where `key` is among the points, or would be.
    fn find(&self, batch: &Batch, key: &[u8]) -> Result<usize, usize> {
        let Some(first) = self.points.first() else {
            return Err(0);
        };
        let shared = &key_at(batch, first)[..self.shared_len];
        if !key.starts_with(shared) {
            return Err(if key < shared { 0 } else { self.points.len() });
        }
        let head = head64(&key[self.shared_len..]);
        self.points.binary_search_by(|point| {
            let heads = point.head.cmp(&head);
            heads.then_with(|| key_at(batch, point).cmp(key))
        })
    }

    /// What the batch does to `key`, and the number of the operation that does it.
    pub(super) fn over<'a>(&self, batch: &'a Batch, key: &[u8]) -> Laid<(&'a [u8], u32)> {
        match self.find(batch, key) {
            Ok(at) => match batch.op_at(self.points[at].at as usize) {
                Op::Put { value, .. } => Laid::Put((value, self.points[at].number)),
                _ => Laid::Deleted,
            },
            Err(_) if self.removed_range(key).is_some() => Laid::Deleted,
            Err(_) => Laid::Nothing,
        }
    }

    /// The deleted range that has `key`.
    pub(super) fn removed_range(&self, key: &[u8]) -> Option<&KeyRange> {
        let behind = self.removed.partition_point(|range| *range.start <= *key);
        let range = self.removed[..behind].last()?;
        range
            .end
            .as_ref()
            .is_none_or(|end| key < end.as_slice())
            .then_some(range)
    }

    /// The points from `start` on.
    fn from(&self, batch: &Batch, start: Bound<&[u8]>) -> Range<usize> {
        let from = match start {
            Bound::Unbounded => 0,
            Bound::Included(key) => self.find(batch, key).unwrap_or_else(|at| at),
            Bound::Excluded(key) => self.find(batch, key).map_or_else(|at| at, |at| at + 1),
        };
        from..self.points.len()
    }

    /// The points up to `end`.
    fn upto(&self, batch: &Batch, end: Bound<&[u8]>) -> Range<usize> {
        let upto = match end {
            Bound::Unbounded => self.points.len(),
            Bound::Included(key) => self.find(batch, key).map_or_else(|at| at, |at| at + 1),
            Bound::Excluded(key) => self.find(batch, key).unwrap_or_else(|at| at),
        };
        0..upto
    }

    /// The first put from `start` on.
    pub(super) fn first_put<'a>(
        &self,
        batch: &'a Batch,
        start: Bound<&[u8]>,
    ) -> Option<(&'a [u8], &'a [u8])> {
        let points = &self.points[self.from(batch, start)];
        points.iter().find_map(|point| put_at(batch, point))
    }

    /// The last put up to `end`.
    pub(super) fn last_put<'a>(
        &self,
        batch: &'a Batch,
        end: Bound<&[u8]>,
    ) -> Option<(&'a [u8], &'a [u8])> {
        let points = &self.points[self.upto(batch, end)];
        points.iter().rev().find_map(|point| put_at(batch, point))
    }
}

fn put_at<'a>(batch: &'a Batch, point: &Point) -> Option<(&'a [u8], &'a [u8])> {
    match batch.op_at(point.at as usize) {
        Op::Put { key, value } => Some((key, value)),
        _ => None,
    }
}

/// Sorts points by key, and leaves the last of each. Returns what all keys begin with.
fn sort(batch: &Batch, points: &mut Vec<Point>) -> usize {
    let Some(first) = points.first() else {
        return 0;
    };
    let first = key_at(batch, first);
    let shared_len = points.iter().fold(first.len(), |len, point| {
        common_prefix_len(&first[..len], key_at(batch, point))
    });
    for point in &mut *points {
        point.head = head64(&key_at(batch, point)[shared_len..]);
    }
    points.sort_unstable_by(|a, b| {
        let heads = a.head.cmp(&b.head);
        let keys = heads.then_with(|| key_at(batch, a).cmp(key_at(batch, b)));
        keys.then(b.number.cmp(&a.number))
    });
    let is_same = |a: &Point, b: &Point| a.head == b.head && key_at(batch, a) == key_at(batch, b);
    points.dedup_by(|later, kept| is_same(later, kept));
    shared_len
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::testing::Random;

    type Map = BTreeMap<Vec<u8>, Vec<u8>>;

    fn random_batch(random: &mut Random, keys: u64) -> Batch {
        let mut batch = Batch::new();
        // Some with a common beginning, some without, some that are beginnings of others.
        let beginning = ["", "a", "the same beginning "][random.index(3)];
        let key = |random: &mut Random| {
            let mut key = format!("{beginning}{:03}", random.below(keys)).into_bytes();
            key.truncate(key.len() - random.index(2));
            key
        };
        for number in 0..random.below(60) {
            match random.below(10) {
                0..6 => batch.put(key(random), format!("{number}")),
                6..8 => batch.delete(key(random)),
                8 => batch.delete_range(key(random)..key(random)),
                _ if random.one_in(10) => batch.delete_range(key(random)..),
                _ => batch.delete_range(key(random)..=key(random)),
            }
        }
        batch
    }

    fn apply(map: &mut Map, op: &Op<'_>) {
        match *op {
            Op::Put { key, value } => drop(map.insert(key.to_vec(), value.to_vec())),
            Op::Delete { key } => drop(map.remove(key)),
            Op::Merge { .. } => unreachable!("none was made"),
            Op::DeleteRange { start, end } => {
                map.retain(|key, _| {
                    key.as_slice() < start || end.is_some_and(|end| key.as_slice() >= end)
                });
            }
        }
    }

    #[test]
    fn a_batch_comes_to_what_its_operations_come_to() {
        for seed in 0..3000 {
            let mut random = Random::new(seed);
            let keys = 1 + random.below(40);
            let batch = random_batch(&mut random, keys);
            let mut before = Map::new();
            for op in random_batch(&mut random, keys).iter() {
                apply(&mut before, &op);
            }
            let mut wanted = before.clone();
            batch.iter().for_each(|op| apply(&mut wanted, &op));

            let index = BatchIndex::new(&batch);
            let numbers = (SeqNo(100), SeqNo(99 + batch.len() as u64));
            let ops = index.ops(&batch, numbers, |_| None);
            let mut found = before.clone();
            ops.iter().for_each(|op| apply(&mut found, &op.op));
            assert_eq!(found, wanted, "seed {seed}");
            assert!(ops.is_sorted_by(|a, b| a.seq < b.seq), "seed {seed}");
            assert!(
                ops.first().is_none_or(|op| op.seq >= numbers.0),
                "seed {seed}"
            );
            assert!(
                ops.last().is_none_or(|op| op.seq == numbers.1),
                "seed {seed}"
            );
            let keys_of_ops = ops.iter().filter_map(|op| op.op.key());
            assert!(keys_of_ops.is_sorted_by(|a, b| a < b), "seed {seed}");

            let asked = batch.iter().filter_map(|op| op.key());
            let asked = asked.chain(before.keys().map(Vec::as_slice));
            for key in asked.chain([&b""[..], b"the same", b"~"]) {
                let value = match index.over(&batch, key) {
                    Laid::Nothing => before.get(key).map(Vec::as_slice),
                    Laid::Put((value, _)) => Some(value),
                    Laid::Deleted => None,
                    Laid::Merged => unreachable!("none was made"),
                };
                assert_eq!(value, wanted.get(key).map(Vec::as_slice), "seed {seed}");
            }
        }
    }

    #[test]
    fn puts_are_found_from_either_end() {
        for seed in 0..1000 {
            let mut random = Random::new(seed);
            let batch = random_batch(&mut random, 30);
            let index = BatchIndex::new(&batch);
            let mut puts = Map::new();
            batch.iter().for_each(|op| apply(&mut puts, &op));
            let all: Vec<_> = puts.keys().map(Vec::as_slice).collect();
            for key in all.iter().copied().chain([&b""[..], b"the", b"~"]) {
                for bound in [Bound::Included(key), Bound::Excluded(key), Bound::Unbounded] {
                    let mut from = puts.range::<[u8], _>((bound, Bound::Unbounded));
                    let first = index.first_put(&batch, bound).map(|(key, _)| key);
                    assert_eq!(
                        first,
                        from.next().map(|(key, _)| key.as_slice()),
                        "seed {seed}"
                    );
                    let mut upto = puts.range::<[u8], _>((Bound::Unbounded, bound));
                    let last = index.last_put(&batch, bound).map(|(key, _)| key);
                    assert_eq!(last, upto.next_back().map(|(key, _)| key.as_slice()));
                }
            }
        }
    }
}
