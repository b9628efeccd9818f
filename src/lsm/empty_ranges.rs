//! Empty ranges: stretches of keys in which reads see nothing.
//!
//! An LSM tree deletes by writing a tombstone, so a scan for the first key after many deletes walks
//! over all that was deleted there until a compaction drops it. A queue does nothing else: every
//! take deletes the first key, and the next take walks over it. So the tree remembers, in memory
//! only, a few [`EmptyRange`]s, and a scan that comes to one continues behind it.
//!
//! # Where ranges come from
//!
//! - A range delete adds its range at once.
//! - A scan that has passed [`RECORD_AFTER`] deleted keys in a row records what it saw
//!   ([`EmptyRanges::record`]). It read at a sequence number in the past, and keys may have been
//!   put there since: such a range is only accepted if a *watch* has seen every put since that
//!   number, and none was within. The first scan that has something to record begins a watch, which
//!   keeps only the smallest and the largest key put since, and ends if no scan records anything
//!   for long. So beside writers the first of many scans over the same deleted keys only begins a
//!   watch, the second records its range, and a tree where no scan walks over deleted keys pays
//!   nothing.
//!
//! # Invariants
//!
//! - **D1** Reads at [`EmptyRange::seq`] or above see nothing in a range that is in the published
//!   list when they look, after they have taken their number. A read has to look at all that its
//!   number sees, both to record a range and to use one: the memtables of its view are those of the
//!   tree when its number was taken, or later. Reasons: nothing was seen there at
//!   `seq`; no put between that and the moment when the range was listed was within (the watch);
//!   and a later put takes its key out of all ranges while it is applied, which is before it is
//!   published, which is before a read can take a number that sees it. Reads below `seq`, of older
//!   snapshots, do not use the range.
//! - **D2** Ranges are sorted and disjoint, and do not touch, but for moments in which the thread
//!   that changes the list is in the midst of it. Each range is true by itself, so a reader needs
//!   no more than that the one it finds is in the list.
//! - **D3** Every applied operation is noted, in commit order, by the thread that holds the
//!   recorder, and no other thread changes the list.
//! - **D4** The list takes at most [`MAX_BYTES`] of memory. Where it is full, ranges make room for
//!   new ones in turn, whichever they are: of queues that are all in use, as many as there is room
//!   for stay known.
//! - **D5** While operations are applied that are published already
//!   ([`Engine::apply_staged`](crate::engine::Engine::apply_staged)), scans may miss keys that are
//!   visible at their numbers. Those scans record nothing.
//!
//! - **D6** Two reads at one number see the same but for what a compaction or a flush has left out
//!   because it had expired, or a filter judged it: that has no number. So a range counts for
//!   versions that as many such edits came before as before the one in which nothing was seen.
//!
//! A delete never invalidates a range, nor does a flush or a compaction: none makes a key visible.

use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_skiplist::SkipMap;
use parking_lot::{Mutex, MutexGuard};

use crate::types::{Op, SeqNo, SequencedOp};
use crate::util::mutants::mutated;

/// Deleted keys in a row that are worth recording, which costs about as much as passing a dozen.
pub(crate) const RECORD_AFTER: usize = 16;
/// Memory that the ranges of a tree take at most: those of some two thousand queues.
const MAX_BYTES: usize = 512 << 10;
/// What a range takes besides its keys.
const RANGE_BYTES: usize = 160;
/// A range into which so many keys were put is being filled again: it is removed, since every cut
/// costs more than a put.
const MAX_CUTS: u32 = 32;
/// After so many puts without a recorded range a watch ends.
const WATCH_PUTS: u64 = 1 << 16;

/// Keys from `start` to before `end`, of which reads at `seq` or above see none (D1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EmptyRange {
    pub(crate) start: Vec<u8>,
    /// `None` for no end.
    pub(crate) end: Option<Vec<u8>>,
    pub(crate) seq: SeqNo,
    /// How many edits had judged entries when nothing was seen (D6).
    judged: u64,
    /// How many puts have cut it since it was recorded.
    cuts: u32,
}

impl EmptyRange {
    fn new(start: Vec<u8>, end: Option<Vec<u8>>, seq: SeqNo, judged: u64) -> Self {
        Self {
            start,
            end,
            seq,
            judged,
            cuts: 0,
        }
    }

    fn contains(&self, key: &[u8]) -> bool {
        *self.start <= *key && self.end.as_ref().is_none_or(|end| *key < **end)
    }

    fn is_empty(&self) -> bool {
        self.end.as_ref().is_some_and(|end| *end <= self.start)
    }

    /// In the list, which has the start once more.
    fn memory_bytes(&self) -> usize {
        RANGE_BYTES + 2 * self.start.len() + self.end.as_ref().map_or(0, Vec::len)
    }
}

/// The ranges of one tree. Readers look without a lock.
#[derive(Debug, Default)]
pub(crate) struct EmptyRanges {
    /// By start.
    ranges: SkipMap<Vec<u8>, Arc<EmptyRange>>,
    /// Read first, because there usually are none.
    any: AtomicBool,
    recorder: Mutex<Recorder>,
}

/// What the writer keeps (D3).
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    /// The last operation that was applied.
    applied: SeqNo,
    watch: Option<Watch>,
    /// What scans at this number or below it have seen does not count (D5).
    distrusted: SeqNo,
    /// Memory of the listed ranges (D4).
    bytes: usize,
    /// Start of the range that made room last.
    evicted: Vec<u8>,
}

/// The puts above `since`.
#[derive(Debug)]
struct Watch {
    since: SeqNo,
    puts: u64,
    /// The smallest and the largest key among them.
    bounds: Option<(Vec<u8>, Vec<u8>)>,
}

impl Watch {
    fn new(since: SeqNo) -> Self {
        Self {
            since,
            puts: 0,
            bounds: None,
        }
    }

    fn put(&mut self, key: &[u8]) {
        self.puts += 1;
        match &mut self.bounds {
            None => self.bounds = Some((key.to_vec(), key.to_vec())),
            Some((smallest, largest)) => {
                let outgrown = if *key < **smallest {
                    smallest
                } else if *key > **largest {
                    largest
                } else {
                    return;
                };
                outgrown.clear();
                outgrown.extend_from_slice(key);
            }
        }
    }

    /// True if no put can have been in `range`.
    fn has_no_put_in(&self, range: &EmptyRange) -> bool {
        self.bounds.as_ref().is_none_or(|(smallest, largest)| {
            **largest < *range.start || range.end.as_ref().is_some_and(|end| *end <= *smallest)
        })
    }
}

impl EmptyRanges {
    /// For a tree that holds what was applied up to `applied`.
    pub(crate) fn new(applied: SeqNo) -> Self {
        let ranges = Self::default();
        ranges.recorder.lock().applied = applied;
        ranges
    }

    /// Takes the recorder, which the thread that applies operations holds meanwhile.
    pub(crate) fn recorder(&self) -> MutexGuard<'_, Recorder> {
        self.recorder.lock()
    }

    /// Where a read at `seq`, of a version that so many edits had judged (`Version::judged`), and
    /// that is at `key`, has nothing to see; `None` if that is not known.
    #[inline]
    pub(crate) fn find(&self, key: &[u8], seq: SeqNo, judged: u64) -> Option<Arc<EmptyRange>> {
        if !self.any.load(Ordering::Relaxed) {
            return None;
        }
        let entry = self.ranges.upper_bound(Bound::Included(key))?;
        let range = entry.value();
        let is_as_new = range.seq <= seq
            && (range.judged <= judged || mutated!("empty-range-hides-what-a-filter-left-out"));
        (is_as_new && range.contains(key)).then(|| Arc::clone(range))
    }

    /// Takes note of an operation that has been applied.
    #[inline]
    pub(crate) fn note(&self, recorder: &mut Recorder, op: &SequencedOp<'_>) {
        recorder.applied = op.seq;
        match op.op {
            // A merge makes a value where there was none, as a put does.
            Op::Put { key, .. } | Op::Merge { key, .. } => {
                if let Some(watch) = &mut recorder.watch {
                    watch.put(key);
                    if watch.puts > WATCH_PUTS {
                        recorder.watch = None;
                    }
                }
                if self.any.load(Ordering::Relaxed) {
                    self.remove(recorder, key);
                }
            }
            Op::DeleteRange { start, end } => {
                let end = end.map(<[u8]>::to_vec);
                self.add(recorder, EmptyRange::new(start.to_vec(), end, op.seq, 0));
            }
            Op::Delete { .. } => {}
        }
    }

    /// Takes note of a bulk load that is being applied, with keys from `first` to `last`.
    pub(crate) fn note_load(&self, recorder: &mut Recorder, first: &[u8], last: &[u8], seq: SeqNo) {
        recorder.applied = seq;
        if let Some(watch) = &mut recorder.watch {
            watch.put(first);
            watch.put(last);
        }
        // Which keys between them were loaded is not known here.
        for entry in self.ranges.iter() {
            let range = entry.value();
            let is_apart =
                *last < *range.start || range.end.as_ref().is_some_and(|end| **end <= *first);
            if !is_apart && !mutated!("load-into-an-empty-range") {
                recorder.bytes -= range.memory_bytes();
                entry.remove();
            }
        }
        self.any.store(!self.ranges.is_empty(), Ordering::Relaxed);
    }

    /// Operations were applied that were published already, by scans at `upto` at the latest (D5).
    pub(crate) fn distrust(&self, recorder: &mut Recorder, upto: SeqNo) {
        recorder.distrusted = upto;
    }

    /// A read at `seq`, of a version that so many edits had judged, has seen nothing from `start`
    /// on and before `end`. Never waits: if the writer is busy, another scan will record the same.
    pub(crate) fn record(&self, start: Vec<u8>, end: Option<Vec<u8>>, seq: SeqNo, judged: u64) {
        let Some(mut recorder) = self.recorder.try_lock() else {
            return;
        };
        let recorder = &mut *recorder;
        if seq <= recorder.distrusted && !mutated!("scan-of-a-part-of-a-batch-counts") {
            return;
        }
        let applied = recorder.applied;
        let watch = recorder.watch.get_or_insert_with(|| Watch::new(applied));
        if seq < watch.since {
            // Puts between the two were not seen.
            return;
        }
        let range = EmptyRange::new(start, end, seq, judged);
        let is_right = watch.has_no_put_in(&range);
        // From here on the list takes account of what was put so far, so the watch starts anew.
        *watch = Watch::new(applied);
        if is_right {
            self.add(recorder, range);
        }
    }

    /// Lists `range`, merged with those that it meets (D2).
    fn add(&self, recorder: &mut Recorder, mut range: EmptyRange) {
        if range.is_empty() {
            return;
        }
        let mut met = Vec::new();
        // The last one that begins before the range may reach to it.
        let before = self.ranges.upper_bound(Bound::Excluded(&range.start[..]));
        let reaches = |other: &EmptyRange| other.end.as_ref().is_none_or(|end| *end >= range.start);
        met.extend(before.filter(|entry| reaches(entry.value())));
        let mut next = self.ranges.lower_bound(Bound::Included(&range.start[..]));
        while let Some(entry) = next {
            if range.end.as_ref().is_some_and(|end| *entry.key() > *end) {
                break;
            }
            next = entry.next();
            met.push(entry);
        }
        for other in met.iter().map(|entry| entry.value()) {
            if other.start < range.start {
                range.start.clone_from(&other.start);
            }
            if range.end.is_some() && (other.end.is_none() || other.end > range.end) {
                range.end.clone_from(&other.end);
            }
            range.seq = range.seq.max(other.seq);
            range.judged = range.judged.max(other.judged);
        }
        for entry in met {
            recorder.bytes -= entry.value().memory_bytes();
            entry.remove();
        }
        self.insert(recorder, range);
    }

    /// A put of `key` is applied: no range contains it any more.
    fn remove(&self, recorder: &mut Recorder, key: &[u8]) {
        let found = self.ranges.upper_bound(Bound::Included(key));
        let Some(entry) = found.filter(|entry| entry.value().contains(key)) else {
            return;
        };
        let range = Arc::clone(entry.value());
        recorder.bytes -= range.memory_bytes();
        // Before the parts are listed, of which one may have the same start.
        entry.remove();
        let cuts = range.cuts + 1;
        let below = EmptyRange {
            end: Some(key.to_vec()),
            cuts,
            ..EmptyRange::clone(&range)
        };
        let above = EmptyRange {
            start: after(key),
            cuts,
            ..EmptyRange::clone(&range)
        };
        for part in [below, above] {
            if cuts <= MAX_CUTS && !part.is_empty() {
                self.insert(recorder, part);
            }
        }
        self.any.store(!self.ranges.is_empty(), Ordering::Relaxed);
    }

    /// Lists a range that meets no other, and keeps D4.
    fn insert(&self, recorder: &mut Recorder, range: EmptyRange) {
        recorder.bytes += range.memory_bytes();
        let inserted = self.ranges.insert(range.start.clone(), Arc::new(range));
        // After the list: a reader that misses it only walks further.
        self.any.store(true, Ordering::Relaxed);
        while recorder.bytes > MAX_BYTES {
            let evicted = Bound::Excluded(&recorder.evicted[..]);
            let next = self
                .ranges
                .lower_bound(evicted)
                .or_else(|| self.ranges.front());
            let Some(next) = next else {
                break;
            };
            recorder.evicted.clone_from(next.key());
            // Unless it is alone.
            if next.key() != inserted.key() || self.ranges.len() == 1 {
                recorder.bytes -= next.value().memory_bytes();
                next.remove();
            }
        }
    }
}

#[cfg(test)]
impl EmptyRanges {
    /// Removes all ranges, as if the tree had been opened again.
    pub(crate) fn clear(&self) {
        let mut recorder = self.recorder();
        recorder.bytes = 0;
        self.ranges.iter().for_each(|entry| {
            entry.remove();
        });
        self.any.store(false, Ordering::Relaxed);
    }

    /// The ranges, by start.
    fn list(&self) -> Vec<Arc<EmptyRange>> {
        let ranges = self.ranges.iter();
        ranges.map(|entry| Arc::clone(entry.value())).collect()
    }
}

/// The first key after `key`.
pub(crate) fn after(key: &[u8]) -> Vec<u8> {
    let mut after = Vec::with_capacity(key.len() + 1);
    after.extend_from_slice(key);
    after.push(0);
    after
}

#[cfg(test)]
mod tests;
