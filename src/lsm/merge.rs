//! Merging several sorted runs into one.
//!
//! A [`MergeCursor`] walks any number of [`EntryCursor`]s as one sequence in internal order: the
//! memtables and tables of a scan, or the inputs of a compaction. It is a *loser tree* (Knuth, The
//! Art of Computer Programming, vol. 3, 5.4.1): each inner node keeps the source that lost the
//! match there, so advancing the winner replays one match per level, each against a known opponent.
//! Every source's key head is kept beside it, so most matches compare two integers and touch no
//! key.
//!
//! # Invariants
//!
//! - **G1** Every source stands on its first entry at or after the merge's position (going
//!   forward), or on its last at or before it (going backward); `heads` holds the heads of
//!   those entries.
//! - **G2** `losers[0]` is the winner; `losers[n]`, for `n >= 1`, lost at node `n`. Source `i`
//!   starts at leaf `i + sources.len()`.
//! - **G3** No two sources hold the same key and sequence number, so order is strict; ties
//!   between exhausted sources go to the lower number.
//!
//! Not thread-safe; owned by one scan.

use std::cmp::Ordering;

use super::entry::{Entry, EntryCursor};
use crate::error::Result;
use crate::types::SeqNo;
use crate::util::key_prefix::head64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Forward,
    Backward,
}

/// Many cursors as one.
pub(crate) struct MergeCursor {
    sources: Vec<Box<dyn EntryCursor>>,
    /// Head of each source's entry; anything if it stands nowhere.
    heads: Vec<u64>,
    valid: Vec<bool>,
    /// G2.
    losers: Vec<u32>,
    direction: Direction,
}

impl MergeCursor {
    /// Merges `sources`, standing nowhere.
    pub(crate) fn new(sources: Vec<Box<dyn EntryCursor>>) -> Self {
        let count = sources.len();
        Self {
            sources,
            heads: vec![0; count],
            valid: vec![false; count],
            losers: vec![0; count.max(1)],
            direction: Direction::Forward,
        }
    }

    #[inline]
    fn winner(&self) -> usize {
        self.losers[0] as usize
    }

    /// Reads what the matches need to know of a source that has moved.
    #[inline]
    fn refresh(&mut self, source: usize) {
        let cursor = &self.sources[source];
        self.valid[source] = cursor.is_valid();
        if self.valid[source] {
            self.heads[source] = head64(cursor.key());
        }
    }

    /// True if source `a` comes before `b` in the direction of travel.
    #[inline]
    fn beats(&self, a: usize, b: usize) -> bool {
        if !self.valid[a] || !self.valid[b] {
            return self.valid[a] || (!self.valid[b] && a < b);
        }
        let order = self.heads[a].cmp(&self.heads[b]).then_with(|| {
            let (a, b) = (&self.sources[a], &self.sources[b]);
            // Newer versions first. That two sources have the same key is rare, but for overwritten
            // keys.
            let keys = a.key().cmp(b.key());
            keys.then_with(|| b.entry().word().cmp(&a.entry().word()))
        });
        match self.direction {
            Direction::Forward => order == Ordering::Less,
            Direction::Backward => order == Ordering::Greater,
        }
    }

    /// Plays all matches, after every source has moved.
    fn rebuild(&mut self) {
        let count = self.sources.len();
        for source in 0..count {
            self.refresh(source);
        }
        if count > 0 {
            self.losers[0] = self.play(1);
        }
    }

    /// Plays the matches at and below `node`, and returns the winner. As deep as the tree is high,
    /// so that no seek allocates a list of winners.
    fn play(&mut self, node: usize) -> u32 {
        let count = self.sources.len();
        if node >= count {
            return (node - count) as u32;
        }
        let (a, b) = (self.play(2 * node), self.play(2 * node + 1));
        let (winner, loser) = if self.beats(a as usize, b as usize) {
            (a, b)
        } else {
            (b, a)
        };
        self.losers[node] = loser;
        winner
    }

    /// Replays the winner's matches after it moved.
    #[inline]
    fn replay(&mut self) {
        let mut winner = self.losers[0];
        self.refresh(winner as usize);
        let mut node = (winner as usize + self.sources.len()) / 2;
        while node > 0 {
            let opponent = self.losers[node];
            if self.beats(opponent as usize, winner as usize) {
                self.losers[node] = winner;
                winner = opponent;
            }
            node /= 2;
        }
        self.losers[0] = winner;
    }

    /// Moves every source with `step`, then plays. After an error all stand nowhere.
    fn position(
        &mut self,
        direction: Direction,
        mut step: impl FnMut(&mut dyn EntryCursor) -> Result<()>,
    ) -> Result<()> {
        self.direction = direction;
        for source in 0..self.sources.len() {
            if let Err(error) = step(&mut *self.sources[source]) {
                return self.fail(error);
            }
        }
        self.rebuild();
        Ok(())
    }

    #[cold]
    fn fail(&mut self, error: crate::Error) -> Result<()> {
        self.valid.fill(false);
        Err(error)
    }

    /// Moves every source for which `leaps` says so, and that is not there yet, on to where keys
    /// from `to` on begin, or if `to` is `None` to the end; going backward, to what is before `to`.
    /// What is passed over must not matter to the caller: G1 holds for the rest.
    pub(crate) fn leap(&mut self, leaps: impl Fn(usize) -> bool, to: Option<&[u8]>) -> Result<()> {
        for source in 0..self.sources.len() {
            if !self.valid[source] || !leaps(source) {
                continue;
            }
            let cursor = &mut self.sources[source];
            let moved = match (self.direction, to) {
                (Direction::Forward, Some(to)) if cursor.key() < to => cursor.seek(to, SeqNo::MAX),
                (Direction::Forward, None) => match cursor.seek_last() {
                    Ok(()) if cursor.is_valid() => cursor.next(),
                    sought => sought,
                },
                (Direction::Backward, Some(to)) if cursor.key() >= to => cursor.seek_before(to),
                _ => Ok(()),
            };
            if let Err(error) = moved {
                return self.fail(error);
            }
        }
        self.rebuild();
        Ok(())
    }

    /// Stands nowhere.
    pub(crate) fn leave(&mut self) {
        self.valid.fill(false);
    }

    /// The number of the source whose entry the merge stands on.
    #[inline]
    pub(crate) fn source(&self) -> usize {
        self.winner()
    }

    /// Turns round: every other source goes to the other side of the current entry (G1).
    #[cold]
    fn turn(&mut self, direction: Direction) -> Result<()> {
        let winner = self.winner();
        let entry = self.sources[winner].entry();
        let (key, seq, word) = (entry.key.to_vec(), entry.seq, entry.word());
        self.direction = direction;
        for source in 0..self.sources.len() {
            if source == winner {
                continue;
            }
            let cursor = &mut self.sources[source];
            let mut moved = cursor.seek(&key, seq);
            if direction == Direction::Backward && moved.is_ok() {
                moved = if cursor.is_valid() {
                    cursor.prev()
                } else {
                    cursor.seek_last()
                };
                // A memtable may have grown since the seek: step over what came in between.
                while moved.is_ok()
                    && cursor.is_valid()
                    && cursor.entry().cmp_internal(&key, word) != Ordering::Less
                {
                    moved = cursor.prev();
                }
            }
            if let Err(error) = moved {
                return self.fail(error);
            }
        }
        Ok(())
    }
}

impl EntryCursor for MergeCursor {
    fn seek_first(&mut self) -> Result<()> {
        self.position(Direction::Forward, |cursor| cursor.seek_first())
    }

    fn seek_last(&mut self) -> Result<()> {
        self.position(Direction::Backward, |cursor| cursor.seek_last())
    }

    fn seek(&mut self, key: &[u8], seq: SeqNo) -> Result<()> {
        self.position(Direction::Forward, |cursor| cursor.seek(key, seq))
    }

    fn seek_before(&mut self, key: &[u8]) -> Result<()> {
        self.position(Direction::Backward, |cursor| cursor.seek_before(key))
    }

    #[inline]
    fn next(&mut self) -> Result<()> {
        let winner = self.winner();
        if self.direction == Direction::Forward {
            if let Err(error) = self.sources[winner].next() {
                return self.fail(error);
            }
            self.replay();
        } else {
            self.turn(Direction::Forward)?;
            if let Err(error) = self.sources[winner].next() {
                return self.fail(error);
            }
            self.rebuild();
        }
        Ok(())
    }

    fn prev(&mut self) -> Result<()> {
        let winner = self.winner();
        if self.direction == Direction::Backward {
            if let Err(error) = self.sources[winner].prev() {
                return self.fail(error);
            }
            self.replay();
        } else {
            self.turn(Direction::Backward)?;
            if let Err(error) = self.sources[winner].prev() {
                return self.fail(error);
            }
            self.rebuild();
        }
        Ok(())
    }

    #[inline]
    fn is_valid(&self) -> bool {
        !self.sources.is_empty() && self.valid[self.winner()]
    }

    #[inline]
    fn entry(&self) -> Entry<'_> {
        self.sources[self.winner()].entry()
    }

    #[inline]
    fn key(&self) -> &[u8] {
        self.sources[self.winner()].key()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::memtable::{MemtableIndex, SkipListIndex};
    use super::*;
    use crate::testing::Random;

    #[test]
    fn merged_runs_are_one_sorted_run() {
        for seed in 0..40 {
            let mut random = Random::new(seed);
            let all = Arc::new(SkipListIndex::default());
            let runs: Vec<_> = (0..random.below(9))
                .map(|_| Arc::new(SkipListIndex::default()))
                .collect();
            for seq in 1..=if runs.is_empty() {
                0
            } else {
                random.below(300)
            } {
                let key = random.below(60).to_string();
                let run = &runs[random.below(runs.len() as u64) as usize];
                for index in [&all, run] {
                    index.insert(key.as_bytes(), seq << 8 | 1, &seq.to_le_bytes());
                }
            }
            let cursors = runs.iter().map(|run| Arc::clone(run).cursor()).collect();
            let mut merged = MergeCursor::new(cursors);
            let mut oracle = all.cursor();
            for step in 0..500 {
                let key = random.below(60).to_string();
                let seq = SeqNo(random.below(300));
                let action = random.below(12);
                for cursor in [&mut merged as &mut dyn EntryCursor, &mut *oracle] {
                    match action {
                        0 => cursor.seek_first().unwrap(),
                        1 => cursor.seek_last().unwrap(),
                        2 => cursor.seek(key.as_bytes(), seq).unwrap(),
                        3 => cursor.seek_before(key.as_bytes()).unwrap(),
                        4..8 if cursor.is_valid() => cursor.next().unwrap(),
                        8.. if cursor.is_valid() => cursor.prev().unwrap(),
                        _ => {}
                    }
                }
                assert_eq!(
                    merged.is_valid(),
                    oracle.is_valid(),
                    "seed {seed} step {step}"
                );
                if oracle.is_valid() {
                    assert_eq!(merged.entry(), oracle.entry(), "seed {seed} step {step}");
                }
            }
        }
    }
}
