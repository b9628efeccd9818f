//! Merging several sorted runs into one.
//!
//! A [`MergeCursor`] walks any number of [`Source`]s as one sequence in internal order: the
//! memtables and tables of a scan, or the inputs of a compaction. It is a *loser tree* (Knuth, The
//! Art of Computer Programming, vol. 3, 5.4.1): each inner node keeps the source that lost the
//! match there, so advancing the winner replays one match per level, each against a known opponent.
//! A match compares two *codes* ([`super::offset_value`]) and touches no key, unless two sources
//! differ from the last entry in the same way.
//!
//! # Invariants
//!
//! - **G1** Every source stands on its first entry at or after the merge's position (going
//!   forward), or on its last at or before it (going backward).
//! - **G2** `losers[0]` is the winner; `losers[n]`, for `n >= 1`, lost at node `n`. Source `i`
//!   starts at leaf `i + sources.len()`.
//! - **G3** No two sources hold the same key and sequence number, so order is strict; of damaged
//!   ones that do, either may come first.
//! - **G4** `codes[i]`, of a source that lost at some node, is the code of its key over that of the
//!   source that won there. The winner's is over the key that the merge stood on before, and so are
//!   those that it meets on its way up when it has moved: they lost to that key. A source that
//!   stands nowhere has [`NOWHERE`].
//!
//! Not thread-safe; owned by one scan.

use std::cmp::Ordering;

use super::entry::{Entry, EntryCursor};
use super::offset_value::{Direction, NOWHERE, SAME, code_over, code_over_nothing, resolve};
use super::source::Source;
use super::table::Approach;
use crate::error::Result;
use crate::types::{MAX_KEY_LEN_BYTES, SeqNo};
use crate::util::mutants::mutated;

/// Many cursors as one.
pub(crate) struct MergeCursor {
    sources: Vec<Source>,
    /// G4.
    codes: Vec<u64>,
    /// G2.
    losers: Vec<u32>,
    direction: Direction,
    /// The key that all sources are behind, while the matches are played anew.
    base: Vec<u8>,
    /// Where the sources go, in the course of a seek.
    approaches: Vec<Option<Approach>>,
}

impl MergeCursor {
    /// Merges `sources`, standing nowhere.
    pub(crate) fn new(sources: Vec<Source>) -> Self {
        let count = sources.len();
        Self {
            sources,
            codes: vec![NOWHERE; count.max(1)],
            losers: vec![0; count.max(1)],
            direction: Direction::Forward,
            base: Vec::new(),
            approaches: Vec::new(),
        }
    }

    #[inline]
    fn winner(&self) -> usize {
        self.losers[0] as usize
    }

    /// Plays a match between two sources with the same code, and gives the loser its code over the
    /// winner. True if `a` wins.
    #[cold]
    fn decide(&mut self, a: usize, b: usize) -> bool {
        let code = self.codes[a];
        if code == NOWHERE {
            return a < b;
        }
        let [left, right] = [a, b].map(|source| {
            let entry = self.sources[source].entry();
            (entry.key, entry.word())
        });
        let (order, code) = resolve(code, left, right, self.direction);
        let a_wins = order != Ordering::Greater;
        self.codes[if a_wins { b } else { a }] =
            mutated!("loser-keeps-its-code", self.codes[a], code);
        a_wins
    }

    /// True if source `a` comes before `b`.
    #[inline]
    fn beats(&mut self, a: usize, b: usize) -> bool {
        let (left, right) = (self.codes[a], self.codes[b]);
        if left != right {
            return left < right;
        }
        self.decide(a, b)
    }

    /// Plays all matches, after every source has moved. With `is_behind_base` all of them are at or
    /// behind the base.
    fn rebuild(&mut self, is_behind_base: bool) {
        for (source, code) in self.sources.iter().zip(&mut self.codes) {
            *code = match source.is_valid() {
                true if is_behind_base => code_over(source.key(), &self.base, self.direction),
                true => code_over_nothing(source.key(), self.direction),
                false => NOWHERE,
            };
        }
        if !self.sources.is_empty() {
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

    /// Replays the winner's matches after it moved; `code` is that of its key over the one before.
    #[inline]
    fn replay(&mut self, code: u64) {
        let mut winner = self.losers[0];
        self.codes[winner as usize] = code;
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

    /// Moves every source with `step`, then plays. After an error all stand nowhere. With
    /// `is_behind_base` all of them come to stand at or behind the base.
    fn position(
        &mut self,
        direction: Direction,
        is_behind_base: bool,
        mut step: impl FnMut(&mut Source) -> Result<()>,
    ) -> Result<()> {
        self.direction = direction;
        for source in &mut self.sources {
            if let Err(error) = step(source) {
                return self.fail(error);
            }
        }
        self.rebuild(is_behind_base);
        Ok(())
    }

    fn set_base(&mut self, key: &[u8]) {
        // No key is longer than the longest, so what lies further back in a bound decides nothing;
        // and codes do not reach so far.
        let key = match mutated!("bounds-beyond-the-reach-of-codes") {
            true => key,
            false => &key[..key.len().min(MAX_KEY_LEN_BYTES + 1)],
        };
        self.base.clear();
        self.base.extend_from_slice(key);
    }

    #[cold]
    fn fail(&mut self, error: crate::Error) -> Result<()> {
        self.leave();
        Err(error)
    }

    /// Moves every source for which `leaps` says so, and that is not there yet, on to where keys
    /// from `to` on begin, or if `to` is `None` to the end; going backward, to what is before `to`.
    /// What is passed over must not matter to the caller: G1 holds for the rest. Only on a valid
    /// cursor.
    pub(crate) fn leap(&mut self, leaps: impl Fn(usize) -> bool, to: Option<&[u8]>) -> Result<()> {
        let winner = self.winner();
        self.base.clear();
        self.base.extend_from_slice(self.sources[winner].key());
        for source in 0..self.sources.len() {
            if self.codes[source] == NOWHERE || !leaps(source) {
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
        self.rebuild(true);
        Ok(())
    }

    /// Stands nowhere.
    pub(crate) fn leave(&mut self) {
        self.codes.fill(NOWHERE);
    }

    /// The number of the source whose entry the merge stands on.
    #[inline]
    pub(crate) fn source(&self) -> usize {
        self.winner()
    }

    /// True if the entry has the same key as the one that the merge stood on before it moved by a
    /// step or a leap; after a seek, as the one that was sought. Only on a valid cursor.
    #[inline]
    pub(crate) fn repeats_key(&self) -> bool {
        self.codes[self.winner()] == SAME
    }

    /// Turns round: every other source goes to the other side of the current entry (G1), which
    /// becomes the base.
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
        self.base = key;
        Ok(())
    }
}

impl EntryCursor for MergeCursor {
    fn seek_first(&mut self) -> Result<()> {
        self.position(Direction::Forward, false, Source::seek_first)
    }

    fn seek_last(&mut self) -> Result<()> {
        self.position(Direction::Backward, false, Source::seek_last)
    }

    /// All sources ask for what they need before one of them waits for it.
    fn seek(&mut self, key: &[u8], seq: SeqNo) -> Result<()> {
        self.set_base(key);
        let mut approaches = std::mem::take(&mut self.approaches);
        approaches.clear();
        let sources = self.sources.iter_mut();
        approaches.extend(sources.map(|source| source.approach(key, seq)));
        let mut approached = approaches.drain(..);
        let sought = self.position(Direction::Forward, true, |source| {
            source.arrive(approached.next().flatten(), key, seq)
        });
        drop(approached);
        self.approaches = approaches;
        sought
    }

    fn seek_before(&mut self, key: &[u8]) -> Result<()> {
        self.set_base(key);
        self.position(Direction::Backward, true, |cursor| cursor.seek_before(key))
    }

    #[inline]
    fn next(&mut self) -> Result<()> {
        let winner = self.winner();
        if self.direction == Direction::Forward {
            match self.sources[winner].next_coded() {
                Ok(code) => self.replay(code),
                Err(error) => return self.fail(error),
            }
        } else {
            self.turn(Direction::Forward)?;
            if let Err(error) = self.sources[winner].next() {
                return self.fail(error);
            }
            self.rebuild(true);
        }
        Ok(())
    }

    #[inline]
    fn prev(&mut self) -> Result<()> {
        let winner = self.winner();
        if self.direction == Direction::Backward {
            match self.sources[winner].prev_coded() {
                Ok(code) => self.replay(code),
                Err(error) => return self.fail(error),
            }
        } else {
            self.turn(Direction::Backward)?;
            if let Err(error) = self.sources[winner].prev() {
                return self.fail(error);
            }
            self.rebuild(true);
        }
        Ok(())
    }

    #[inline]
    fn is_valid(&self) -> bool {
        self.codes[self.winner()] != NOWHERE
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

    use super::super::memtable::{Memtable, MemtableIndex, SkipListIndex};
    use super::*;
    use crate::options::MemtableKind;
    use crate::testing::Random;
    use crate::types::{Op, SequencedOp};

    /// Keys that share more or less with their neighbours, and end in zeros.
    fn random_key(random: &mut Random) -> Vec<u8> {
        let number = random.below(60);
        match number % 4 {
            0 => number.to_string().into_bytes(),
            1 => [&b"shared by many keys: "[..], &number.to_be_bytes()].concat(),
            2 => [
                &b"shared by many keys"[..],
                &[0, 0, 0, 0, 0, 0, 0][..random.index(8)],
            ]
            .concat(),
            _ => vec![0; random.index(9)],
        }
    }

    #[test]
    fn merged_runs_are_one_sorted_run() {
        for seed in 0..80 {
            let mut random = Random::new(seed);
            let all = Arc::new(SkipListIndex::default());
            let runs: Vec<_> = (0..random.below(9))
                .map(|_| match random.one_in(3) {
                    true => Memtable::new(MemtableKind::SkipList, 0, Arc::default()),
                    false => Memtable::new(MemtableKind::BTree, 0, Arc::default()),
                })
                .collect();
            for seq in 1..=if runs.is_empty() {
                0
            } else {
                random.below(300)
            } {
                let key = random_key(&mut random);
                let run = &runs[random.below(runs.len() as u64) as usize];
                let value = seq.to_le_bytes();
                all.insert(&key, seq << 8 | 1, &value);
                let (key, value) = (&key[..], &value[..]);
                let (seq, op) = (SeqNo(seq), Op::Put { key, value });
                run.insert(&[SequencedOp::new(seq, op)], None);
            }
            let cursors = runs.iter().map(Source::of_memtable).collect();
            let mut merged = MergeCursor::new(cursors);
            let mut oracle = all.cursor();
            for step in 0..500 {
                let key = random_key(&mut random);
                let seq = SeqNo(random.below(300));
                let action = random.below(12);
                let is_step = action >= 4 && oracle.is_valid();
                let before = is_step.then(|| oracle.key().to_vec());
                for cursor in [&mut merged as &mut dyn EntryCursor, &mut *oracle] {
                    match action {
                        0 => cursor.seek_first().unwrap(),
                        1 => cursor.seek_last().unwrap(),
                        2 => cursor.seek(&key, seq).unwrap(),
                        3 => cursor.seek_before(&key).unwrap(),
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
                    if let Some(before) = before {
                        let repeats = *before == *oracle.key();
                        assert_eq!(merged.repeats_key(), repeats, "seed {seed} step {step}");
                    }
                }
            }
        }
    }
}
