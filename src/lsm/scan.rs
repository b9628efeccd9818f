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
//! - **LC3** Keys outside of `within` are not wanted: where the merge comes to one that the reader
//!   does not see anyway, the cursor stands nowhere, instead of looking further for one that it
//!   does.
//!
//! A key with very many versions is not walked through: after [`MAX_STEPS`] the cursor seeks. Nor
//! are very many keys that do not exist any more: below a range tombstone the sources that are
//! older than it go on to its end (by LV3 of [`super::version`], which counts range tombstones as
//! versions, all that they have there is hidden), and where a range is known to
//! be empty ([`super::empty_ranges`]) the whole merge does.

use std::sync::Arc;

use super::covers::{Covers, Tombstones};
use super::empty_ranges::{EmptyRange, EmptyRanges, RECORD_AFTER, after};
use super::entry::{Entry, EntryCursor, EntryKind};
use super::fold::{Folding, Merged};
use super::lookup::find;
use super::memtable::Memtable;
use super::merge::MergeCursor;
use super::run::RunCursor;
use super::source::Source;
use super::table::Purpose;
use super::version::Version;
use crate::engine::Cursor;
use crate::error::Result;
use crate::resolve::Resolver;
use crate::types::{KeyRange, SeqNo, is_from};
use crate::values::{PartOfValue, ReadAhead, Scout, ValueFiles, Way};

/// Versions of one key that are stepped over before a seek. A seek costs about as much as this many
/// steps.
const MAX_STEPS: usize = 16;

/// Copies of values above this length are not kept for reuse.
const MAX_KEPT_LEN_BYTES: usize = 1 << 20;

/// Keys in a row that a range tombstone hides, from which on sources are moved on to its end.
/// Moving them costs as much as a few steps.
const LEAP_AFTER: usize = 2;

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
    /// Going forward: scratch of seeks. Going backward: the entry (LC2).
    key: Vec<u8>,
    value: Vec<u8>,
    /// Going backward: number and kind of the entry.
    version: (SeqNo, EntryKind),
    /// The value of the entry, if it is stored apart and was asked for.
    apart: Option<PartOfValue>,
    /// The same, if the entry is a merge.
    folded: Option<Vec<u8>>,
    ahead: Option<Box<ReadAhead<ScanCursor>>>,
    covers: Covers,
    /// Where entries are wanted (LC3).
    within: KeyRange,
    /// The first key that the current walk has passed.
    first_passed: Vec<u8>,
    /// Dropped last.
    keep: ScanKeep,
}

/// What a scan looks at, and keeps as long as it lives.
#[derive(Clone)]
pub(crate) struct ScanKeep {
    /// The files of tables that are opened later, and the value files that tables refer to.
    pub(crate) version: Arc<Version>,
    /// Those that are looked at, newest first. They hold the value files that they refer to.
    pub(crate) memtables: Vec<Arc<Memtable>>,
    pub(crate) values: Arc<ValueFiles>,
    pub(crate) empty_ranges: Arc<EmptyRanges>,
    pub(crate) resolver: Arc<Resolver>,
}

impl ScanKeep {
    /// Where a read at `seq` that is at `key` has nothing to see, if that is known.
    #[inline]
    fn empty_range(&self, key: &[u8], seq: SeqNo) -> Option<Arc<EmptyRange>> {
        self.empty_ranges.find(key, seq, self.version.judged())
    }

    /// A read at `seq` has seen nothing from `start` on and before `end`.
    fn record_empty(&self, start: Vec<u8>, end: Option<Vec<u8>>, seq: SeqNo) {
        let judged = self.version.judged();
        self.empty_ranges.record(start, end, seq, judged);
    }

    /// The value of `key`, whose newest entry is this merge.
    #[cold]
    fn fold(&self, key: &[u8], newest: &Merged) -> Result<Vec<u8>> {
        let folding = Folding {
            version: &self.version,
            resolver: &self.resolver,
            values: &self.values,
            find: |seq, visit: &mut dyn FnMut(&Entry<'_>)| {
                find(self.memtables.iter(), &self.version, key, seq, visit)
            },
        };
        folding.fold(key, newest)
    }
}

/// True if a scan at `seq` has to look at the memtable. An empty one may fill while the scan goes
/// on, but above `seq`.
pub(crate) fn is_seen(memtable: &Memtable, seq: SeqNo) -> bool {
    memtable.entries() > 0 && !memtable.is_newer_than(seq)
}

impl ScanCursor {
    /// A cursor over what reads at `seq` see of what it keeps, standing nowhere. Sources and
    /// tombstones come with their age: what has a higher rank is older.
    pub(crate) fn over(keep: ScanKeep, seq: SeqNo) -> Self {
        let mut sources: Vec<(usize, Source)> = Vec::new();
        let mut tombstones: Vec<(usize, Tombstones)> = Vec::new();
        let mut rank = 0;
        for memtable in &keep.memtables {
            if is_seen(memtable, seq) {
                sources.push((rank, Source::of_memtable(memtable)));
            }
            if memtable.tombstones().len() > 0 {
                let indexes = memtable.tombstones().indexes();
                let of = |index| (rank, Tombstones::Index(Arc::clone(index)));
                tombstones.extend(indexes.iter().map(of));
            }
            rank += 1;
        }
        for table in keep.version.level(0).tables().iter() {
            if table.meta().smallest_seq > seq {
                rank += 1;
                continue;
            }
            let cursor = table.table().cursor(Purpose::Read);
            sources.push((rank, Source::Table(cursor)));
            if !table.tombstones().is_empty() {
                let index = Arc::clone(table.tombstones());
                tombstones.push((rank, Tombstones::Index(index)));
            }
            rank += 1;
        }
        for level in &keep.version.levels()[1..] {
            if !level.tables().is_empty() {
                let run = RunCursor::new(Arc::clone(level.run()), Purpose::Read);
                sources.push((rank, Source::Run(run)));
            }
            if !level.with_tombstones().is_empty() {
                let run = Arc::clone(level.with_tombstones());
                tombstones.push((rank, Tombstones::Run(run)));
            }
            rank += 1;
        }
        let (ranks, sources) = sources.into_iter().unzip();
        Self {
            ranks,
            merge: MergeCursor::new(sources),
            seq,
            state: State::Nowhere,
            key: Vec::new(),
            value: Vec::new(),
            version: (SeqNo::ZERO, EntryKind::Delete),
            apart: None,
            folded: None,
            ahead: None,
            covers: Covers::new(tombstones, seq),
            within: KeyRange::new(&..),
            first_passed: Vec::new(),
            keep,
        }
    }

    /// From the merge's position on, stands on the first entry that is seen. If `skip`, versions of
    /// the key that the merge has just left are passed over.
    fn settle_forward(&mut self, mut skip: bool) -> Result<()> {
        let mut steps = 0;
        let mut walk = Walk::default();
        // Where the walk ends without an entry; `None` for the end of all.
        let mut stopped_at = None;
        while self.merge.is_valid() {
            if skip && self.merge.repeats_key() {
                steps += 1;
                if steps > MAX_STEPS {
                    // To behind the last version: the lowest number that any has.
                    self.key.clear();
                    self.key.extend_from_slice(self.merge.key());
                    self.merge.seek(&self.key, SeqNo::ZERO)?;
                    steps = 0;
                    // A version numbered zero does not exist, but a damaged file may say so.
                    while self.merge.is_valid() && self.merge.repeats_key() {
                        self.merge.next()?;
                    }
                } else {
                    self.merge.next()?;
                }
                continue;
            }
            skip = false;
            let entry = self.merge.entry();
            let is_seen = entry.seq <= self.seq
                && entry.kind.is_put()
                && !self.covers.hide(entry.key, entry.seq);
            if is_seen {
                self.state = State::Forward;
                break;
            }
            if self
                .within
                .end
                .as_ref()
                .is_some_and(|end| *entry.key >= **end)
            {
                stopped_at = Some(entry.key.to_vec());
                self.merge.leave();
                break;
            }
            if entry.seq > self.seq {
                steps += 1;
                if steps > MAX_STEPS {
                    self.key.clear();
                    self.key.extend_from_slice(entry.key);
                    self.merge.seek(&self.key, self.seq)?;
                    steps = 0;
                } else {
                    self.merge.next()?;
                }
                continue;
            }
            // By a range tombstone.
            let is_hidden = entry.kind.is_put();
            skip = true;
            steps = 0;
            if walk.passes(is_hidden) == 1 {
                self.first_passed.clear();
                self.first_passed.extend_from_slice(entry.key);
            }
            if walk.looks_for_ranges()
                && let Some(range) = self.keep.empty_range(entry.key, self.seq)
            {
                match (&range.end, &self.within.end) {
                    (Some(end), limit) if limit.as_ref().is_none_or(|limit| end < limit) => {
                        self.merge.seek(end, self.seq)?;
                    }
                    (end, _) => {
                        stopped_at.clone_from(end);
                        self.merge.leave();
                    }
                }
                skip = false;
            } else if walk.hidden >= LEAP_AFTER
                && self.ranks[self.merge.source()] > self.covers.rank()
            {
                let (ranks, rank) = (&self.ranks, self.covers.rank());
                let end = self.covers.gap().and_then(|(_, end)| end);
                self.merge.leap(|source| ranks[source] > rank, end)?;
            } else {
                self.merge.next()?;
            }
        }
        if walk.passed >= RECORD_AFTER {
            let end = match self.merge.is_valid() {
                true => Some(self.merge.key().to_vec()),
                false => stopped_at,
            };
            let start = std::mem::take(&mut self.first_passed);
            self.keep.record_empty(start, end, self.seq);
        }
        Ok(())
    }

    /// From the merge's position backward, stands on the first entry that is seen.
    fn settle_backward(&mut self) -> Result<()> {
        let mut walk = Walk::default();
        // From where on nothing was seen, where the walk ends without an entry.
        let mut stopped_at = Vec::new();
        while self.merge.is_valid() {
            // The oldest version of the next key.
            let entry = self.merge.entry();
            self.key.clear();
            self.key.extend_from_slice(entry.key);
            // The newest seen version so far.
            let mut newest: Option<(SeqNo, EntryKind)> = None;
            // From the first one that is newer than the reader on.
            let mut is_final = false;
            let mut steps = 0;
            while self.merge.is_valid() {
                let entry = self.merge.entry();
                if entry.key != self.key {
                    break;
                }
                steps += 1;
                if entry.seq <= self.seq {
                    newest = Some((entry.seq, entry.kind));
                    if entry.kind.is_put() {
                        self.value.clear();
                        self.value.extend_from_slice(entry.value);
                    }
                } else {
                    is_final = true;
                }
                if steps > MAX_STEPS {
                    // Too many: look from the other end.
                    if !is_final {
                        newest = self.newest_by_seek()?;
                    }
                    self.merge.seek_before(&self.key)?;
                    break;
                }
                self.merge.prev()?;
            }
            let mut is_hidden = false;
            if let Some((seq, kind)) = newest
                && kind.is_put()
            {
                self.version = (seq, kind);
                is_hidden = self.covers.hide(&self.key, seq);
                if !is_hidden {
                    self.state = State::Backward;
                    break;
                }
            }
            if walk.passes(is_hidden) == 1 {
                self.first_passed.clone_from(&self.key);
            }
            if !is_from(&self.key, &self.within.start) {
                stopped_at.clone_from(&self.key);
                self.merge.leave();
            } else if walk.looks_for_ranges()
                && let Some(range) = self.keep.empty_range(&self.key, self.seq)
            {
                self.merge.seek_before(&range.start)?;
            } else if walk.hidden >= LEAP_AFTER && self.merge.is_valid() {
                let (ranks, rank) = (&self.ranks, self.covers.rank());
                if let Some((start, _)) = self.covers.gap()
                    && ranks[self.merge.source()] > rank
                {
                    self.merge
                        .leap(|source| ranks[source] > rank, Some(start))?;
                }
            }
        }
        if walk.passed >= RECORD_AFTER {
            let start = match self.state {
                State::Backward => after(&self.key),
                _ => stopped_at,
            };
            let end = Some(after(&self.first_passed));
            self.keep.record_empty(start, end, self.seq);
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
        self.apart = None;
        self.folded = None;
        if self.value.capacity() > MAX_KEPT_LEN_BYTES {
            self.value = Vec::new();
        }
    }
}

#[cfg(test)]
impl ScanCursor {
    /// Sources of range tombstones.
    pub(super) fn tombstone_sources(&self) -> usize {
        self.covers.sources()
    }
}

impl Cursor for ScanCursor {
    fn keep_within(&mut self, range: &KeyRange) {
        self.within = range.clone();
    }

    fn seek_first(&mut self) -> Result<()> {
        self.start();
        self.ahead = None;
        self.merge.seek_first()?;
        self.settle_forward(false)
    }

    fn seek_last(&mut self) -> Result<()> {
        self.start();
        self.ahead = None;
        self.merge.seek_last()?;
        self.settle_backward()
    }

    fn seek(&mut self, key: &[u8]) -> Result<()> {
        self.start();
        self.ahead = None;
        self.merge.seek(key, self.seq)?;
        self.settle_forward(false)
    }

    fn seek_before(&mut self, key: &[u8]) -> Result<()> {
        self.start();
        self.ahead = None;
        self.merge.seek_before(key)?;
        self.settle_backward()
    }

    fn next(&mut self) -> Result<()> {
        if let Some(ahead) = &mut self.ahead {
            ahead.passed();
        }
        match self.state {
            State::Forward => {
                self.state = State::Nowhere;
                self.apart = None;
                self.folded = None;
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
        if let Some(ahead) = &mut self.ahead {
            ahead.passed();
        }
        match self.state {
            State::Forward => {
                self.key.clear();
                self.key.extend_from_slice(self.merge.key());
                self.start();
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
        let copied = (&*self.key, &*self.value, self.version);
        let (key, value, (seq, kind)) = stored(self.state, &self.merge, copied);
        if kind == EntryKind::Merge {
            let folded = match self.folded.take() {
                Some(folded) => folded,
                None => self.keep.fold(key, &Merged::new(value, seq))?,
            };
            return Ok((key, self.folded.insert(folded)));
        }
        if kind != EntryKind::PutRef {
            return Ok((key, value));
        }
        let apart = match self.apart.take() {
            Some(read) => read,
            None => {
                let (keep, ahead) = (&self.keep, &mut self.ahead);
                let way = match self.state {
                    State::Forward => Way::Forward,
                    _ => Way::Backward,
                };
                let scout = || {
                    let mut scout = Self::over(keep.clone(), self.seq);
                    scout.keep_within(&self.within);
                    scout
                };
                let send = || ReadAhead::send(ahead, key, way, &keep.values, scout);
                keep.values.get_in_scan(value, send)?
            }
        };
        Ok((key, self.apart.insert(apart)))
    }
}

/// Key, value, number and kind of an entry.
type Stored<'a> = (&'a [u8], &'a [u8], (SeqNo, EntryKind));

/// The entry on which a cursor stands: its key, its value or what is in its place, and its number
/// and kind. `copied` is the same of one that goes backward (LC2).
#[inline]
fn stored<'a>(state: State, merge: &'a MergeCursor, copied: Stored<'a>) -> Stored<'a> {
    match state {
        State::Forward => {
            let entry = merge.entry();
            (entry.key, entry.value, (entry.seq, entry.kind))
        }
        _ => copied,
    }
}

impl Scout for ScanCursor {
    fn go_to(&mut self, key: &[u8]) -> Result<()> {
        self.seek(key)
    }

    fn step(&mut self, way: Way) -> Result<bool> {
        if !self.is_valid() {
            return Ok(false);
        }
        match way {
            Way::Forward => self.next()?,
            Way::Backward => self.prev()?,
        }
        let is_within = |key: &[u8]| {
            let end = self.within.end.as_deref();
            is_from(key, &self.within.start) && end.is_none_or(|end| key < end)
        };
        Ok(self.is_valid() && is_within(self.key()))
    }

    fn reference(&self) -> Option<&[u8]> {
        let copied = (&*self.key, &*self.value, self.version);
        let (_, value, (_, kind)) = stored(self.state, &self.merge, copied);
        (kind == EntryKind::PutRef).then_some(value)
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
