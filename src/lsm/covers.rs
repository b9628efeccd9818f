//! The range tombstones over a scan: which of them hides the entry that it stands on?
//!
//! A scan asks at every entry, and neighbouring keys mostly have the same answer. So the answer is
//! kept with the *gap* that it is good for: the keys between two ends of tombstones. It is put
//! together from the answers of all sources, each of which has a gap of its own; where one ends,
//! only that source is asked again, and it looks beside its last place before it searches. So a
//! scan pays for each end of a tombstone that it passes once, however many sources there are.
//!
//! Of a level below 0, whose tables are disjoint, at most one table has something to say about a
//! key. Such a level is one source, which knows the tables that have range tombstones and looks
//! at one when the scan gets there.

use std::ops::Bound;
use std::sync::Arc;

use super::table_handle::TableHandle;
use super::tombstones::TombstoneIndex;
use crate::types::SeqNo;

/// Range tombstones of one age.
#[derive(Debug)]
pub(crate) enum Tombstones {
    /// All of a memtable's, or a part of them, or those of one table.
    Index(Arc<TombstoneIndex>),
    /// Of a sorted run: its tables that have range tombstones, of which there is at least one.
    Run(Arc<Vec<Arc<TableHandle>>>),
}

/// The range tombstones over a scan.
#[derive(Debug)]
pub(crate) struct Covers {
    sources: Vec<Source>,
    /// The number that the scan reads at: newer tombstones do not count.
    seq: SeqNo,
    /// The answer, once there was a question.
    known: Option<Known>,
    /// The rank of the newest source that has a tombstone in the gap; the answer holds for all of
    /// what sources of higher ranks have there.
    rank: usize,
    /// How often a source was asked.
    #[cfg(test)]
    asked: u64,
}

#[derive(Debug)]
struct Source {
    rank: usize,
    of: Tombstones,
    /// The table that was asked last.
    table: usize,
    /// Where in its index, or in the only one, the last answer was.
    leaf: usize,
    known: Option<Known>,
}

/// The newest tombstone over the keys from `start` to before `end`.
#[derive(Debug, Clone, Default)]
struct Known {
    start: Vec<u8>,
    end: Option<Vec<u8>>,
    cover: Option<SeqNo>,
}

impl Known {
    #[inline]
    fn is_about(&self, key: &[u8]) -> bool {
        *self.start <= *key && self.end.as_ref().is_none_or(|end| *key < **end)
    }

    /// Takes the place of what was known, in the same memory.
    fn set(&mut self, start: &[u8], end: Option<&[u8]>, cover: Option<SeqNo>) {
        self.start.clear();
        self.start.extend_from_slice(start);
        match (&mut self.end, end) {
            (Some(known), Some(end)) => {
                known.clear();
                known.extend_from_slice(end);
            }
            (known, end) => *known = end.map(<[u8]>::to_vec),
        }
        self.cover = cover;
    }
}

impl Covers {
    /// The tombstones of `sources`, each with its rank, for reads at `seq`.
    pub(crate) fn new(sources: Vec<(usize, Tombstones)>, seq: SeqNo) -> Self {
        let sources = sources.into_iter().map(|(rank, of)| Source {
            rank,
            of,
            table: 0,
            leaf: 0,
            known: None,
        });
        Self {
            sources: sources.collect(),
            seq,
            known: None,
            rank: usize::MAX,
            #[cfg(test)]
            asked: 0,
        }
    }

    /// True if a tombstone hides version `seq` of `key`.
    #[inline]
    pub(crate) fn hide(&mut self, key: &[u8], seq: SeqNo) -> bool {
        if self.sources.is_empty() {
            return false;
        }
        match &self.known {
            Some(known) if known.is_about(key) => known.cover.is_some_and(|cover| cover > seq),
            _ => self.ask(key).is_some_and(|cover| cover > seq),
        }
    }

    /// The keys around the last one asked about that have the same answer: a start, and an end
    /// unless they go on to the last key. `None` if there was no question.
    pub(crate) fn gap(&self) -> Option<(&[u8], Option<&[u8]>)> {
        let known = self.known.as_ref()?;
        Some((&known.start, known.end.as_deref()))
    }

    /// The rank from which on a source has nothing in the gap that is not hidden.
    pub(crate) fn rank(&self) -> usize {
        self.rank
    }

    /// The number of sources.
    #[cfg(test)]
    pub(crate) fn sources(&self) -> usize {
        self.sources.len()
    }

    fn ask(&mut self, key: &[u8]) -> Option<SeqNo> {
        let (mut start, mut end): (&[u8], Option<&[u8]>) = (&[], None);
        let mut cover = None;
        self.rank = usize::MAX;
        for source in &mut self.sources {
            if !source
                .known
                .as_ref()
                .is_some_and(|known| known.is_about(key))
            {
                source.ask(key, self.seq);
                #[cfg(test)]
                {
                    self.asked += 1;
                }
            }
            let Some(known) = &source.known else {
                unreachable!("the source was just asked");
            };
            start = start.max(&known.start);
            end = match (end, known.end.as_deref()) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
            cover = cover.max(known.cover);
            if known.cover.is_some() {
                self.rank = self.rank.min(source.rank);
            }
        }
        self.known.get_or_insert_default().set(start, end, cover);
        cover
    }
}

impl Source {
    fn ask(&mut self, key: &[u8], seq: SeqNo) {
        let known = self.known.get_or_insert_default();
        let tables = match &self.of {
            Tombstones::Index(index) => {
                self.leaf = index.leaf_near(self.leaf, key);
                let (start, end) = index.ends_of(self.leaf);
                let cover = index.newest_at(self.leaf, seq);
                return known.set(start.unwrap_or_default(), end, cover);
            }
            Tombstones::Run(tables) => tables,
        };
        let at = tables.partition_point(|table| table.meta().is_before(key));
        if at != self.table {
            (self.table, self.leaf) = (at, 0);
        }
        // Beside the tables, and in them outside of their tombstones, nothing is covered.
        let after_last: Vec<u8>;
        let mut start: &[u8] = match at.checked_sub(1).map(|at| &tables[at].meta().largest_key) {
            None | Some(Bound::Unbounded) => &[],
            Some(Bound::Excluded(end)) => end,
            Some(Bound::Included(last)) => {
                after_last = [last, &[0][..]].concat();
                &after_last
            }
        };
        let smallest = |at: usize| tables.get(at).map(|table| &table.meta().smallest_key[..]);
        let mut end = smallest(at);
        let mut cover = None;
        if end.is_some_and(|smallest| smallest <= key) {
            let index = tables[at].tombstones();
            self.leaf = index.leaf_near(self.leaf, key);
            let (from, to) = index.ends_of(self.leaf);
            start = from.unwrap_or(start);
            end = to.or_else(|| smallest(at + 1));
            cover = index.newest_at(self.leaf, seq);
        }
        known.set(start, end, cover);
    }
}

#[cfg(test)]
mod tests {
    use super::super::entry::RangeTombstone;
    use super::super::tombstones::GrowingTombstones;
    use super::*;
    use crate::testing::Random;

    fn tombstone(start: u64, end: u64, seq: u64) -> RangeTombstone {
        RangeTombstone {
            start: start.to_be_bytes().to_vec(),
            end: Some(end.to_be_bytes().to_vec()),
            seq: SeqNo(seq),
        }
    }

    fn covers_of(growing: &GrowingTombstones, seq: u64) -> Covers {
        let indexes = growing.indexes();
        let sources = indexes
            .iter()
            .map(|index| (0, Tombstones::Index(Arc::clone(index))));
        Covers::new(sources.collect(), SeqNo(seq))
    }

    #[test]
    fn walks_in_any_direction_get_the_answers_of_single_questions() {
        for seed in 0..40 {
            let mut random = Random::new(seed);
            let growing = GrowingTombstones::default();
            for seq in 1..=random.below(60) {
                let start = random.below(100);
                growing.add(tombstone(start, start + random.below(9), seq));
            }
            let at = random.below(60);
            let mut covers = covers_of(&growing, at);
            let mut key = 50_u64;
            for _ in 0..600 {
                key = match random.below(9) {
                    0 => random.below(120),
                    1..5 => key + 1,
                    _ => key.saturating_sub(1),
                };
                let bytes = key.to_be_bytes();
                let cover = growing.newest_covering(&bytes, SeqNo(at));
                for seq in 0..60 {
                    let expected = cover.is_some_and(|cover| cover > SeqNo(seq));
                    assert_eq!(
                        covers.hide(&bytes, SeqNo(seq)),
                        expected,
                        "seed {seed} {key}"
                    );
                }
            }
        }
    }

    /// Every source was asked in every gap, so that 100,000 small range deletes cost 6 us at each
    /// entry of a scan.
    #[test]
    fn a_source_is_asked_once_for_each_of_its_own_gaps() {
        const COUNT: u64 = (1 << 13) - 1;
        let growing = GrowingTombstones::default();
        let mut random = Random::new(1);
        let mut starts: Vec<u64> = (0..COUNT).collect();
        for at in 0..starts.len() {
            let other = random.index(starts.len());
            starts.swap(at, other);
        }
        for (start, seq) in starts.into_iter().zip(1..) {
            growing.add(tombstone(start * 4, start * 4 + 2, seq));
        }
        let indexes = growing.indexes().len();
        assert!(indexes > 8, "{indexes}");
        for backward in [false, true] {
            let mut covers = covers_of(&growing, u64::MAX);
            for key in 0..4 * COUNT {
                let key = if backward { 4 * COUNT - 1 - key } else { key };
                let is_covered = key % 4 < 2;
                assert_eq!(covers.hide(&key.to_be_bytes(), SeqNo::ZERO), is_covered);
            }
            assert!(
                covers.asked <= 2 * COUNT + indexes as u64,
                "{}",
                covers.asked
            );
        }
    }
}
