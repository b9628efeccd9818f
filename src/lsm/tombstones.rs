//! Range tombstones, arranged for questions.
//!
//! A read asks: which is the newest range delete, not newer than me, that covers this key? A
//! compaction asks: which range deletes must go on, and in what shortest form?
//!
//! # Why a segment tree
//!
//! The usual answer is a *fragmented* list: cut all ranges at each other's ends, and give every
//! fragment the numbers of the ranges over it. Nested ranges make that quadratic, and nested
//! ranges are common: `delete_range(..t)` with a rising `t` is how a time series is trimmed. In a
//! [`TombstoneIndex`] each range hangs on at most two nodes per level of a tree over the
//! sorted range ends, so n ranges take O(n log n) space, and a question visits one node per level:
//! O(log² n), without following more than one pointer per level.
//!
//! # Invariants
//!
//! - **LR1** `points` is sorted and distinct, and holds every start and end. Leaf `i` of the
//!   tree stands for the keys in `[points[i], points[i + 1])`; the last leaf has no end. No key
//!   below `points[0]` is covered.
//! - **LR2** The numbers on a node fall, so that the newest visible one is found by bisection.
//!
//! Everything here is immutable once built. [`GrowingTombstones`] is the memtable's form: a
//! few indexes of rising sizes, merged like the digits of a binary counter.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arc_swap::ArcSwap;

use super::entry::RangeTombstone;
use crate::types::SeqNo;

/// An immutable set of range tombstones that answers which of them cover a key.
#[derive(Debug, Default)]
pub(crate) struct TombstoneIndex {
    /// Newest first.
    tombstones: Vec<Placed>,
    /// LR1.
    points: Vec<Box<[u8]>>,
    /// Leaves of the tree: a power of two, at least `points.len()`.
    width: usize,
    /// The numbers on node `n` are `numbers[node_starts[n]..node_starts[n + 1]]`, falling (LR2).
    node_starts: Vec<u32>,
    numbers: Vec<SeqNo>,
}

/// A tombstone whose keys are among the points.
#[derive(Debug)]
struct Placed {
    start: u32,
    /// [`NO_END`] if it has none.
    end: u32,
    seq: SeqNo,
}

const NO_END: u32 = u32::MAX;

impl TombstoneIndex {
    /// Arranges `tombstones`, dropping those that cover nothing.
    pub(crate) fn new(mut tombstones: Vec<RangeTombstone>) -> Self {
        tombstones.retain(|t| t.end.as_ref().is_none_or(|end| t.start < *end));
        // Newest first, so that every node is filled in falling order (LR2).
        tombstones.sort_unstable_by_key(|t| std::cmp::Reverse(t.seq));
        let mut points: Vec<Box<[u8]>> = tombstones
            .iter()
            .flat_map(|t| std::iter::once(&t.start).chain(t.end.as_ref()))
            .map(|key| Box::from(&key[..]))
            .collect();
        points.sort_unstable();
        points.dedup();

        assert!(
            points.len() < NO_END as usize,
            "as many do not fit into memory"
        );
        let place = |key: &[u8]| points.partition_point(|p| **p < *key) as u32;
        let tombstones: Vec<Placed> = tombstones
            .into_iter()
            .map(|t| Placed {
                start: place(&t.start),
                end: t.end.map_or(NO_END, |end| place(&end)),
                seq: t.seq,
            })
            .collect();

        let width = points.len().next_power_of_two();
        let nodes_of = |t: &Placed, visit: &mut dyn FnMut(usize)| {
            let high = match t.end {
                NO_END => points.len(),
                end => end as usize,
            };
            decompose(width, t.start as usize, high, visit);
        };
        let mut node_starts = vec![0_u32; 2 * width + 1];
        for t in &tombstones {
            nodes_of(t, &mut |node| node_starts[node + 1] += 1);
        }
        for node in 0..2 * width {
            node_starts[node + 1] += node_starts[node];
        }
        let mut fill = node_starts.clone();
        let mut numbers = vec![SeqNo::ZERO; node_starts[2 * width] as usize];
        for t in &tombstones {
            nodes_of(t, &mut |node| {
                numbers[fill[node] as usize] = t.seq;
                fill[node] += 1;
            });
        }
        Self {
            tombstones,
            points,
            width,
            node_starts,
            numbers,
        }
    }

    /// True if there are no tombstones.
    pub(crate) fn is_empty(&self) -> bool {
        self.tombstones.is_empty()
    }

    /// The tombstones, newest first.
    pub(crate) fn tombstones(&self) -> impl Iterator<Item = RangeTombstone> {
        let key = |at: u32| self.points.get(at as usize).map(|point| point.to_vec());
        self.tombstones.iter().map(move |t| RangeTombstone {
            start: key(t.start).expect("every start is a point"),
            end: key(t.end),
            seq: t.seq,
        })
    }

    /// The newest tombstone at or below `seq` that covers `key`.
    pub(crate) fn newest_covering(&self, key: &[u8], seq: SeqNo) -> Option<SeqNo> {
        self.newest_at(self.points.partition_point(|p| **p <= *key), seq)
    }

    /// The newest tombstone at or below `seq` over the keys behind `leaf` ends.
    pub(crate) fn newest_at(&self, leaf: usize, seq: SeqNo) -> Option<SeqNo> {
        let mut node = leaf.checked_sub(1)? + self.width;
        let mut newest = None;
        while node > 0 {
            let range = self.node_starts[node] as usize..self.node_starts[node + 1] as usize;
            let on_node = &self.numbers[range];
            let at = on_node.partition_point(|number| *number > seq);
            newest = newest.max(on_node.get(at).copied());
            node /= 2;
        }
        newest
    }

    /// How many ends are at or below `key`. Looks beside `near` first, the answer for a neighbour.
    pub(crate) fn leaf_near(&self, near: usize, key: &[u8]) -> usize {
        let is_leaf = |leaf: usize| {
            leaf <= self.points.len()
                && (leaf == 0 || *self.points[leaf - 1] <= *key)
                && self.points.get(leaf).is_none_or(|point| *key < **point)
        };
        let neighbours = [near, near + 1, near.saturating_sub(1)];
        let found = neighbours.into_iter().find(|leaf| is_leaf(*leaf));
        found.unwrap_or_else(|| self.points.partition_point(|point| **point <= *key))
    }

    /// The keys behind `leaf` ends, all covered by the same tombstones: from where, inclusive, and
    /// to where, exclusive; `None` for no end on that side.
    pub(crate) fn ends_of(&self, leaf: usize) -> (Option<&[u8]>, Option<&[u8]>) {
        let end = |at: usize| self.points.get(at).map(|point| &**point);
        (leaf.checked_sub(1).and_then(end), end(leaf))
    }

    /// The keys that any tombstone covers, as ranges in key order that do not touch.
    pub(crate) fn covered_ranges(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        let mut leaf = 0;
        std::iter::from_fn(move || {
            let is_covered = |leaf: &usize| self.newest_at(*leaf, SeqNo::MAX).is_some();
            let leaves = self.points.len() + 1;
            let first = (leaf..leaves).find(is_covered)?;
            leaf = (first..leaves)
                .find(|leaf| !is_covered(leaf))
                .unwrap_or(leaves);
            // The last leaf has no end.
            let (start, _) = self.ends_of(first);
            Some((start?, self.ends_of(leaf - 1).1))
        })
    }

    /// Bytes of memory held.
    pub(crate) fn memory_bytes(&self) -> usize {
        let ends: usize = self
            .points
            .iter()
            .map(|point| point.len() + size_of::<Box<[u8]>>())
            .sum();
        let placed = self.tombstones.len() * size_of::<Placed>();
        ends + self.numbers.len() * 8 + self.node_starts.len() * 4 + placed
    }
}

/// Names the nodes whose leaves together are `[low, high)`: the bottom-up walk of an iterative
/// segment tree.
fn decompose(width: usize, low: usize, high: usize, visit: &mut dyn FnMut(usize)) {
    let (mut low, mut high) = (low + width, high + width);
    while low < high {
        if low % 2 == 1 {
            visit(low);
            low += 1;
        }
        if high % 2 == 1 {
            high -= 1;
            visit(high);
        }
        low /= 2;
        high /= 2;
    }
}

/// The range tombstones of a memtable: one writer adds, readers never wait.
///
/// Tiers of indexes, oldest and largest first, each at least twice as large as the next: an
/// addition merges small tiers, like a carry, and costs O(log² n) amortised; a question asks O(log
/// n) tiers.
#[derive(Debug)]
pub(crate) struct GrowingTombstones {
    tiers: ArcSwap<Vec<Arc<TombstoneIndex>>>,
    /// Read first, because there are usually none.
    count: AtomicUsize,
}

impl Default for GrowingTombstones {
    fn default() -> Self {
        Self {
            tiers: ArcSwap::from_pointee(Vec::new()),
            count: AtomicUsize::new(0),
        }
    }
}

impl GrowingTombstones {
    /// Number of tombstones.
    pub(crate) fn len(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// Adds a tombstone. By one thread at a time.
    pub(crate) fn add(&self, tombstone: RangeTombstone) {
        let mut tiers = Vec::clone(&self.tiers.load());
        let mut carry = vec![tombstone];
        while tiers
            .last()
            .is_some_and(|tier| tier.tombstones.len() <= carry.len())
        {
            let tier = tiers.pop().expect("checked");
            carry.extend(tier.tombstones());
        }
        tiers.push(Arc::new(TombstoneIndex::new(carry)));
        self.tiers.store(Arc::new(tiers));
        // After the store: a reader that sees the count finds the tombstone.
        self.count.fetch_add(1, Ordering::Release);
    }

    /// The newest tombstone at or below `seq` that covers `key`.
    #[inline]
    pub(crate) fn newest_covering(&self, key: &[u8], seq: SeqNo) -> Option<SeqNo> {
        if self.len() == 0 {
            return None;
        }
        let tiers = self.tiers.load();
        tiers
            .iter()
            .filter_map(|tier| tier.newest_covering(key, seq))
            .max()
    }

    /// All tombstones so far, as indexes.
    pub(crate) fn indexes(&self) -> Arc<Vec<Arc<TombstoneIndex>>> {
        self.tiers.load_full()
    }
}

/// Cuts `tombstones` at each other's ends and keeps, of those over the same keys,
/// only the newest that each of `boundaries` can see: what a compaction passes on.
///
/// `boundaries` are sequence numbers that reads use or may use, rising. Tombstones above the
/// last of them are passed on as they are. The result is sorted by start, then newest first.
pub(crate) fn condense(tombstones: &[RangeTombstone], boundaries: &[SeqNo]) -> Vec<RangeTombstone> {
    let last_boundary = boundaries.last().copied().unwrap_or(SeqNo::ZERO);
    let mut out: Vec<RangeTombstone> = Vec::new();
    // At each point: the tombstones that begin and end there.
    let mut events: BTreeMap<&[u8], (Vec<SeqNo>, Vec<SeqNo>)> = BTreeMap::new();
    for t in tombstones {
        if t.end.as_ref().is_some_and(|end| *end <= t.start) {
            continue;
        }
        if t.seq > last_boundary {
            out.push(t.clone());
            continue;
        }
        events.entry(&t.start[..]).or_default().0.push(t.seq);
        if let Some(end) = &t.end {
            events.entry(&end[..]).or_default().1.push(t.seq);
        }
    }
    // How many tombstones of each number are open, and the fragment open for each number kept.
    let mut open: BTreeMap<SeqNo, usize> = BTreeMap::new();
    let mut fragments: BTreeMap<SeqNo, &[u8]> = BTreeMap::new();
    // Of the open numbers, those between two boundaries are hidden by the newest of them. So a
    // number is kept if a boundary lies between it and the next one: that changes for those that
    // come and go here, and for the one below each, and for no other.
    let is_kept = |open: &BTreeMap<SeqNo, usize>, seq: SeqNo| {
        let at = boundaries.partition_point(|boundary| *boundary < seq);
        let mut newer = open.range((Bound::Excluded(seq), Bound::Unbounded));
        let next = newer.next().map(|(seq, _)| *seq);
        open.contains_key(&seq)
            && boundaries
                .get(at)
                .is_some_and(|boundary| next.is_none_or(|next| *boundary < next))
    };
    let mut changed: Vec<SeqNo> = Vec::new();
    for (point, (begin, end)) in &events {
        for seq in end {
            match open.get_mut(seq) {
                Some(1) => {
                    open.remove(seq);
                }
                Some(count) => *count -= 1,
                None => unreachable!("a tombstone ends after it begins"),
            }
        }
        for seq in begin {
            *open.entry(*seq).or_insert(0) += 1;
        }
        changed.clear();
        for seq in end.iter().chain(begin) {
            changed.push(*seq);
            changed.extend(open.range(..*seq).next_back().map(|(older, _)| *older));
        }
        for seq in &changed {
            if is_kept(&open, *seq) {
                fragments.entry(*seq).or_insert(point);
            } else if let Some(start) = fragments.remove(seq) {
                out.push(RangeTombstone {
                    start: start.to_vec(),
                    end: Some(point.to_vec()),
                    seq: *seq,
                });
            }
        }
    }
    out.extend(fragments.iter().map(|(seq, start)| RangeTombstone {
        start: start.to_vec(),
        end: None,
        seq: *seq,
    }));
    out.sort_unstable_by(|a, b| a.start.cmp(&b.start).then(b.seq.cmp(&a.seq)));
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;

    fn random_tombstones(random: &mut Random, count: u64) -> Vec<RangeTombstone> {
        (1..=count)
            .map(|seq| {
                let start = random.below(40) as u8;
                let end = random.below(45) as u8;
                RangeTombstone {
                    start: if start == 0 { Vec::new() } else { vec![start] },
                    end: (end < 40).then(|| vec![end]),
                    seq: SeqNo(seq),
                }
            })
            .collect()
    }

    fn naive(tombstones: &[RangeTombstone], key: &[u8], seq: SeqNo) -> Option<SeqNo> {
        tombstones
            .iter()
            .filter(|t| t.seq <= seq && *key >= *t.start)
            .filter(|t| t.end.as_ref().is_none_or(|end| *key < **end))
            .map(|t| t.seq)
            .max()
    }

    fn keys() -> impl Iterator<Item = Vec<u8>> {
        std::iter::once(Vec::new()).chain((0..42).flat_map(|key| [vec![key], vec![key, 7]]))
    }

    #[test]
    fn indexes_agree_with_a_list() {
        for seed in 0..60 {
            let mut random = Random::new(seed);
            let count = random.below(20);
            let tombstones = random_tombstones(&mut random, count);
            let index = TombstoneIndex::new(tombstones.clone());
            let growing = GrowingTombstones::default();
            tombstones.iter().for_each(|t| growing.add(t.clone()));
            for key in keys() {
                for seq in 0..=count + 1 {
                    let expected = naive(&tombstones, &key, SeqNo(seq));
                    let label = format!("seed {seed} key {key:?} seq {seq}");
                    assert_eq!(index.newest_covering(&key, SeqNo(seq)), expected, "{label}");
                    assert_eq!(
                        growing.newest_covering(&key, SeqNo(seq)),
                        expected,
                        "{label}"
                    );
                }
                let near = random.index(2 * count as usize + 2);
                let (start, end) = index.ends_of(index.leaf_near(near, &key));
                for other in keys() {
                    let inside = start.is_none_or(|start| *other >= *start)
                        && end.is_none_or(|end| *other < *end);
                    if inside {
                        assert_eq!(
                            naive(&tombstones, &other, SeqNo::MAX),
                            naive(&tombstones, &key, SeqNo::MAX)
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn condensing_changes_no_answer() {
        for seed in 0..60 {
            let mut random = Random::new(seed);
            let count = random.below(20);
            let tombstones = random_tombstones(&mut random, count);
            let mut boundaries: Vec<_> = (0..random.below([3, 12][seed as usize % 2]))
                .map(|_| SeqNo(random.below(count + 1)))
                .collect();
            boundaries.sort_unstable();
            boundaries.dedup();
            let condensed = condense(&tombstones, &boundaries);
            let above = boundaries.last().map_or(0, |b| b.0)..=count;
            let visible = boundaries.iter().map(|b| b.0).chain(above);
            for seq in visible.map(SeqNo) {
                for key in keys() {
                    assert_eq!(
                        naive(&condensed, &key, seq),
                        naive(&tombstones, &key, seq),
                        "seed {seed} key {key:?} seq {seq}"
                    );
                }
            }
        }
    }

    /// Every boundary was looked up at every end: a flush with 12,000 snapshots and 24,000 range
    /// deletes took 4.7 s. The result is the measure: it has what is visible, and no more.
    #[test]
    fn many_snapshots_and_many_range_deletes_condense_to_what_is_visible() {
        const COUNT: u64 = 24_000;
        let every_second: Vec<SeqNo> = (0..COUNT / 2).map(|n| SeqNo(2 * n)).collect();
        let disjoint: Vec<_> = (1..=COUNT)
            .map(|seq| RangeTombstone {
                start: (2 * seq).to_be_bytes().to_vec(),
                end: Some((2 * seq + 1).to_be_bytes().to_vec()),
                seq: SeqNo(seq),
            })
            .collect();
        let visible = COUNT - 1;
        // The last one is above all boundaries, and passed on as it is.
        assert_eq!(condense(&disjoint, &every_second).len() as u64, visible + 1);
        let nested: Vec<_> = (1..=COUNT)
            .map(|seq| RangeTombstone {
                start: Vec::new(),
                end: Some(seq.to_be_bytes().to_vec()),
                seq: SeqNo(seq),
            })
            .collect();
        // Of each pair between two boundaries, the newer one reaches further.
        assert_eq!(condense(&nested, &every_second).len() as u64, COUNT / 2 + 1);
    }

    #[test]
    fn nested_tombstones_condense_to_one_and_stay_small() {
        let nested: Vec<_> = (1..=2000_u64)
            .map(|t| RangeTombstone {
                start: Vec::new(),
                end: Some(t.to_be_bytes().to_vec()),
                seq: SeqNo(t),
            })
            .collect();
        assert_eq!(condense(&nested, &[SeqNo(2000)]).len(), 1);
        let index = TombstoneIndex::new(nested);
        assert!(index.numbers.len() < 2000 * 12);
        assert_eq!(
            index.newest_covering(&1500_u64.to_be_bytes(), SeqNo(1800)),
            Some(SeqNo(1800))
        );
    }
}
