//! Scans: from all versions of all keys to the one that a reader sees.
//!
//! A [`ScanCursor`] walks a [`MergeCursor`] and collapses it: of each key the newest version at or
//! below the reader's number counts; if that is a delete, or a range tombstone covers it, the key
//! does not exist.
//!
//! # Invariants
//!
//! - **LC1** Going forward, the merge stands on the entry that the cursor stands on; the entry is
//!   lent from there, nothing is copied.
//! - **LC2** Going backward, a key's versions come oldest first, so the one that counts is only
//!   known when the merge has left the key. It is copied, and the merge stands before the key's
//!   first version.
//! - **LC3** `gap` holds the keys around the last question that all have the answer `cover`.
//!
//! A key with very many versions is not walked through: after [`MAX_STEPS`] the cursor seeks. Nor
//! are very many keys that do not exist any more: below a range tombstone the sources that are
//! older than it go on to its end (by LV3 of [`super::version`], which counts range tombstones as
//! versions, all that they have there is hidden), and where a range is known to
//! be empty ([`super::empty_ranges`]) the whole merge does.

use std::sync::Arc;

use super::empty_ranges::{EmptyRanges, RECORD_AFTER, after};
use super::entry::{EntryCursor, EntryKind};
use super::merge::MergeCursor;
use super::tombstones::TombstoneIndex;
use super::version::Version;
use crate::engine::Cursor;
use crate::error::Result;
use crate::types::SeqNo;

/// Versions of one key that are stepped over before a seek. A seek costs about as much as this many
/// steps.
const MAX_STEPS: usize = 16;

/// Copies of values above this length are not kept for reuse.
const MAX_KEPT_LEN_BYTES: usize = 1 << 20;

/// Keys in a row that a range tombstone hides, from which on sources are moved on to its end.
/// Moving them costs as much as a few steps.
const LEAP_AFTER: usize = 2;

/// A source of a scan, or the tombstones of one, with its age: what has a higher rank is older.
pub(crate) struct Ranked<T> {
    rank: usize,
    of: T,
}

impl<T> Ranked<T> {
    /// Of the `rank`-th source, counted from the newest.
    pub(crate) fn new(rank: usize, of: T) -> Self {
        Self { rank, of }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Stands nowhere.
    Nowhere,
    /// LC1.
    Forward,
    /// LC2.
    Backward,
}

/// A cursor over what reads at one number see.
pub(crate) struct ScanCursor {
    merge: MergeCursor,
    /// Of the merge's sources.
    ranks: Vec<usize>,
    seq: SeqNo,
    state: State,
    /// Going forward: scratch. Going backward: the entry (LC2).
    key: Vec<u8>,
    value: Vec<u8>,
    covers: Covers,
    empty_ranges: Arc<EmptyRanges>,
    /// The first key that the current walk has passed.
    first_passed: Vec<u8>,
    /// Keeps the files of tables that are opened later.
    _version: Arc<Version>,
}

impl ScanCursor {
    /// A cursor that stands nowhere.
    pub(crate) fn new(
        sources: Vec<Ranked<Box<dyn EntryCursor>>>,
        seq: SeqNo,
        tombstones: Vec<Ranked<Arc<TombstoneIndex>>>,
        version: Arc<Version>,
        empty_ranges: Arc<EmptyRanges>,
    ) -> Self {
        Self {
            ranks: sources.iter().map(|source| source.rank).collect(),
            merge: MergeCursor::new(sources.into_iter().map(|source| source.of).collect()),
            seq,
            state: State::Nowhere,
            key: Vec::new(),
            value: Vec::new(),
            covers: Covers::new(tombstones),
            empty_ranges,
            first_passed: Vec::new(),
            _version: version,
        }
    }

    /// From the merge's position on, stands on the first entry that is seen. If `skip`, versions of
    /// `self.key` are passed over.
    fn settle_forward(&mut self, mut skip: bool) -> Result<()> {
        let mut steps = 0;
        let mut walk = Walk::default();
        while self.merge.is_valid() {
            if skip && self.merge.key() == self.key {
                steps += 1;
                if steps > MAX_STEPS {
                    // To behind the last version: the lowest number that any has.
                    let key = std::mem::take(&mut self.key);
                    let sought = self.merge.seek(&key, SeqNo::ZERO);
                    self.key = key;
                    sought?;
                    steps = 0;
                    // A version numbered zero does not exist, but a damaged file may say so.
                    while self.merge.is_valid() && self.merge.entry().key == self.key {
                        self.merge.next()?;
                    }
                } else {
                    self.merge.next()?;
                }
                continue;
            }
            let entry = self.merge.entry();
            if entry.seq > self.seq {
                steps += 1;
                if steps > MAX_STEPS {
                    self.key.clear();
                    self.key.extend_from_slice(entry.key);
                    skip = false;
                    self.merge.seek(&self.key, self.seq)?;
                    steps = 0;
                } else {
                    self.merge.next()?;
                }
                continue;
            }
            let is_put = entry.kind == EntryKind::Put;
            let is_hidden = is_put && self.covers.hide(entry.key, entry.seq, self.seq);
            if is_put && !is_hidden {
                self.state = State::Forward;
                break;
            }
            self.key.clear();
            self.key.extend_from_slice(entry.key);
            skip = true;
            steps = 0;
            if walk.passes(is_hidden) == 1 {
                self.first_passed.clone_from(&self.key);
            }
            if walk.looks_for_ranges()
                && let Some(range) = self.empty_ranges.find(&self.key, self.seq)
            {
                match &range.end {
                    Some(end) => self.merge.seek(end, self.seq)?,
                    None => self.merge.leave(),
                }
                skip = false;
            } else if walk.hidden >= LEAP_AFTER
                && self.ranks[self.merge.source()] > self.covers.rank
            {
                let (ranks, covers) = (&self.ranks, &self.covers);
                let end = covers.gap.as_ref().and_then(|(_, end)| end.as_deref());
                self.merge.leap(|source| ranks[source] > covers.rank, end)?;
            } else {
                self.merge.next()?;
            }
        }
        if walk.passed >= RECORD_AFTER {
            let end = self.merge.is_valid().then(|| self.merge.key().to_vec());
            let start = std::mem::take(&mut self.first_passed);
            self.empty_ranges.record(start, end, self.seq);
        }
        Ok(())
    }

    /// From the merge's position backward, stands on the first entry that is seen.
    fn settle_backward(&mut self) -> Result<()> {
        let mut walk = Walk::default();
        while self.merge.is_valid() {
            // The oldest version of the next key.
            let entry = self.merge.entry();
            self.key.clear();
            self.key.extend_from_slice(entry.key);
            // The newest seen version so far.
            let mut newest: Option<(SeqNo, EntryKind)> = None;
            let mut steps = 0;
            while self.merge.is_valid() {
                let entry = self.merge.entry();
                if entry.key != self.key {
                    break;
                }
                steps += 1;
                if entry.seq <= self.seq {
                    newest = Some((entry.seq, entry.kind));
                    if entry.kind == EntryKind::Put {
                        self.value.clear();
                        self.value.extend_from_slice(entry.value);
                    }
                } else {
                    steps = MAX_STEPS + 1;
                }
                if steps > MAX_STEPS {
                    // Newer versions only, or too many: look from the other end.
                    newest = self.newest_by_seek()?;
                    self.merge.seek_before(&self.key)?;
                    break;
                }
                self.merge.prev()?;
            }
            let mut is_hidden = false;
            if let Some((seq, EntryKind::Put)) = newest {
                is_hidden = self.covers.hide(&self.key, seq, self.seq);
                if !is_hidden {
                    self.state = State::Backward;
                    break;
                }
            }
            if walk.passes(is_hidden) == 1 {
                self.first_passed.clone_from(&self.key);
            }
            if walk.looks_for_ranges()
                && let Some(range) = self.empty_ranges.find(&self.key, self.seq)
            {
                self.merge.seek_before(&range.start)?;
            } else if walk.hidden >= LEAP_AFTER && self.merge.is_valid() {
                let (ranks, covers) = (&self.ranks, &self.covers);
                if let Some((start, _)) = &covers.gap
                    && ranks[self.merge.source()] > covers.rank
                {
                    self.merge
                        .leap(|source| ranks[source] > covers.rank, Some(start))?;
                }
            }
        }
        if walk.passed >= RECORD_AFTER {
            let start = match self.state {
                State::Backward => after(&self.key),
                _ => Vec::new(),
            };
            self.empty_ranges
                .record(start, Some(after(&self.first_passed)), self.seq);
        }
        Ok(())
    }

    /// Finds the version of `self.key` that counts, and copies its value.
    fn newest_by_seek(&mut self) -> Result<Option<(SeqNo, EntryKind)>> {
        self.merge.seek(&self.key, self.seq)?;
        if !self.merge.is_valid() {
            return Ok(None);
        }
        let entry = self.merge.entry();
        if entry.key != self.key {
            return Ok(None);
        }
        self.value.clear();
        self.value.extend_from_slice(entry.value);
        Ok(Some((entry.seq, entry.kind)))
    }

    fn start(&mut self) {
        self.state = State::Nowhere;
        if self.value.capacity() > MAX_KEPT_LEN_BYTES {
            self.value = Vec::new();
        }
    }
}

impl Cursor for ScanCursor {
    fn seek_first(&mut self) -> Result<()> {
        self.start();
        self.merge.seek_first()?;
        self.settle_forward(false)
    }

    fn seek_last(&mut self) -> Result<()> {
        self.start();
        self.merge.seek_last()?;
        self.settle_backward()
    }

    fn seek(&mut self, key: &[u8]) -> Result<()> {
        self.start();
        self.merge.seek(key, self.seq)?;
        self.settle_forward(false)
    }

    fn seek_before(&mut self, key: &[u8]) -> Result<()> {
        self.start();
        self.merge.seek_before(key)?;
        self.settle_backward()
    }

    fn next(&mut self) -> Result<()> {
        match self.state {
            State::Forward => {
                self.key.clear();
                self.key.extend_from_slice(self.merge.key());
                self.state = State::Nowhere;
                self.merge.next()?;
            }
            // The merge stands before the key: come back to it, and over it.
            State::Backward => {
                self.start();
                self.merge.seek(&self.key, self.seq)?;
            }
            State::Nowhere => unreachable!("only on a valid cursor"),
        }
        self.settle_forward(true)
    }

    fn prev(&mut self) -> Result<()> {
        match self.state {
            State::Forward => {
                self.key.clear();
                self.key.extend_from_slice(self.merge.key());
                self.state = State::Nowhere;
                self.merge.seek_before(&self.key)?;
            }
            State::Backward => self.start(),
            State::Nowhere => unreachable!("only on a valid cursor"),
        }
        self.settle_backward()
    }

    #[inline]
    fn is_valid(&self) -> bool {
        self.state != State::Nowhere
    }

    #[inline]
    fn key(&self) -> &[u8] {
        match self.state {
            State::Forward => self.merge.key(),
            _ => &self.key,
        }
    }

    #[inline]
    fn entry(&mut self) -> Result<(&[u8], &[u8])> {
        Ok(match self.state {
            State::Forward => {
                let entry = self.merge.entry();
                (entry.key, entry.value)
            }
            _ => (&self.key, &self.value),
        })
    }
}

/// A walk over keys that the reader does not see.
#[derive(Default)]
struct Walk {
    /// Keys passed.
    passed: usize,
    /// Of them, in a row, hidden by range tombstones.
    hidden: usize,
}

impl Walk {
    /// One more; returns how many that makes.
    #[inline]
    fn passes(&mut self, is_hidden: bool) -> usize {
        self.passed += 1;
        self.hidden = if is_hidden { self.hidden + 1 } else { 0 };
        self.passed
    }

    /// True at the first key and then ever more rarely, so that a long walk through what no range
    /// knows does not ask at every step.
    #[inline]
    fn looks_for_ranges(&self) -> bool {
        self.passed.is_power_of_two()
    }
}

/// The range tombstones over a scan. Neighbouring keys mostly have the same answer, so the answer
/// is kept with the keys it is good for.
struct Covers {
    indexes: Vec<Ranked<Arc<TombstoneIndex>>>,
    /// LC3; `None` before the first question.
    gap: Option<(Vec<u8>, Option<Vec<u8>>)>,
    cover: Option<SeqNo>,
    /// The rank of the newest source that has a tombstone over these keys; the answer holds for all
    /// of what sources of higher ranks have there.
    rank: usize,
}

impl Covers {
    fn new(indexes: Vec<Ranked<Arc<TombstoneIndex>>>) -> Self {
        Self {
            indexes,
            gap: None,
            cover: None,
            rank: usize::MAX,
        }
    }

    /// True if a tombstone at or below `at` hides version `seq` of `key`.
    #[inline]
    fn hide(&mut self, key: &[u8], seq: SeqNo, at: SeqNo) -> bool {
        if self.indexes.is_empty() {
            return false;
        }
        let known = self.gap.as_ref().is_some_and(|(start, end)| {
            **start <= *key && end.as_ref().is_none_or(|end| *key < **end)
        });
        if !known {
            self.ask(key, at);
        }
        self.cover.is_some_and(|cover| cover > seq)
    }

    fn ask(&mut self, key: &[u8], at: SeqNo) {
        let covering = self.indexes.iter().filter_map(|index| {
            let seq = index.of.newest_covering(key, at)?;
            Some((seq, index.rank))
        });
        (self.cover, self.rank) = covering
            .fold((None, usize::MAX), |(cover, least), (seq, rank)| {
                (cover.max(Some(seq)), least.min(rank))
            });
        let gaps = || self.indexes.iter().map(|index| index.of.gap(key));
        let start = gaps().filter_map(|gap| gap.start).max().unwrap_or_default();
        let end = gaps().filter_map(|gap| gap.end).min();
        self.gap = Some((start.to_vec(), end.map(<[u8]>::to_vec)));
    }
}
