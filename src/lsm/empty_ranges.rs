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
//!   list when they look, after they have taken their number. Reasons: nothing was seen there at
//!   `seq`; no put between that and the moment when the range was listed was within (the watch);
//!   and a later put takes its key out of all ranges while it is applied, which is before it is
//!   published, which is before a read can take a number that sees it. Reads below `seq`, of older
//!   snapshots, do not use the range.
//! - **D2** Ranges are sorted and disjoint, and do not touch.
//! - **D3** Every applied operation is noted, in commit order, by the thread that holds the
//!   recorder, and no other thread changes the list.
//!
//! A delete never invalidates a range, nor does a flush or a compaction: none makes a key visible.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use parking_lot::{Mutex, MutexGuard};

use crate::types::{Op, SeqNo, SequencedOp};

/// Deleted keys in a row that are worth recording, which costs about as much as passing a dozen.
pub(crate) const RECORD_AFTER: usize = 16;
/// Ranges that are kept: a put looks for its key among them by bisection, and a list is copied when
/// it changes.
const MAX_RANGES: usize = 32;
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
    /// How many puts have cut it since it was recorded.
    cuts: u32,
}

impl EmptyRange {
    fn new(start: Vec<u8>, end: Option<Vec<u8>>, seq: SeqNo) -> Self {
        Self {
            start,
            end,
            seq,
            cuts: 0,
        }
    }

    fn contains(&self, key: &[u8]) -> bool {
        *self.start <= *key && self.end.as_ref().is_none_or(|end| *key < **end)
    }

    fn is_empty(&self) -> bool {
        self.end.as_ref().is_some_and(|end| *end <= self.start)
    }
}

/// The ranges of one tree. Readers look without a lock.
#[derive(Debug, Default)]
pub(crate) struct EmptyRanges {
    ranges: ArcSwap<Vec<Arc<EmptyRange>>>,
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

    /// Where a read at `seq` that is at `key` has nothing to see; `None` if that is not known.
    #[inline]
    pub(crate) fn find(&self, key: &[u8], seq: SeqNo) -> Option<Arc<EmptyRange>> {
        if !self.any.load(Ordering::Relaxed) {
            return None;
        }
        let ranges = self.ranges.load();
        let at = ranges.partition_point(|range| *range.start <= *key);
        let range = &ranges[at.checked_sub(1)?];
        (range.seq <= seq && range.contains(key)).then(|| Arc::clone(range))
    }

    /// Takes note of an operation that has been applied.
    #[inline]
    pub(crate) fn note(&self, recorder: &mut Recorder, op: &SequencedOp<'_>) {
        recorder.applied = op.seq;
        match op.op {
            Op::Put { key, .. } => {
                if let Some(watch) = &mut recorder.watch {
                    watch.put(key);
                    if watch.puts > WATCH_PUTS {
                        recorder.watch = None;
                    }
                }
                if self.any.load(Ordering::Relaxed) {
                    self.remove(key);
                }
            }
            Op::DeleteRange { start, end } => {
                let end = end.map(<[u8]>::to_vec);
                self.add(EmptyRange::new(start.to_vec(), end, op.seq));
            }
            Op::Delete { .. } => {}
        }
    }

    /// A read at `seq` has seen nothing from `start` on and before `end`. Never waits: if the
    /// writer is busy, another scan will record the same.
    pub(crate) fn record(&self, start: Vec<u8>, end: Option<Vec<u8>>, seq: SeqNo) {
        let Some(mut recorder) = self.recorder.try_lock() else {
            return;
        };
        let recorder = &mut *recorder;
        let applied = recorder.applied;
        let watch = recorder.watch.get_or_insert_with(|| Watch::new(applied));
        if seq < watch.since {
            // Puts between the two were not seen.
            return;
        }
        let range = EmptyRange::new(start, end, seq);
        let is_right = watch.has_no_put_in(&range);
        // From here on the list takes account of what was put so far, so the watch starts anew.
        *watch = Watch::new(applied);
        if is_right {
            self.add(range);
        }
    }

    /// Lists `range`, merged with those that it meets (D2). The caller holds the recorder.
    fn add(&self, mut range: EmptyRange) {
        if range.is_empty() {
            return;
        }
        let old = self.ranges.load();
        let low =
            old.partition_point(|other| other.end.as_ref().is_some_and(|end| **end < *range.start));
        let high = match &range.end {
            Some(end) => old.partition_point(|other| *other.start <= **end),
            None => old.len(),
        };
        let high = high.max(low);
        for met in &old[low..high] {
            if met.start < range.start {
                range.start.clone_from(&met.start);
            }
            if range.end.is_some() && (met.end.is_none() || met.end > range.end) {
                range.end.clone_from(&met.end);
            }
            range.seq = range.seq.max(met.seq);
        }
        let mut ranges = Vec::with_capacity(old.len() + 1);
        ranges.extend_from_slice(&old[..low]);
        ranges.push(Arc::new(range));
        ranges.extend_from_slice(&old[high..]);
        self.list(ranges);
    }

    /// A put of `key` is applied: no range contains it any more. The caller holds the recorder.
    fn remove(&self, key: &[u8]) {
        let old = self.ranges.load();
        let at = old.partition_point(|range| *range.start <= *key);
        let Some(at) = at.checked_sub(1).filter(|at| old[*at].contains(key)) else {
            return;
        };
        let range = &old[at];
        let cuts = range.cuts + 1;
        let below = EmptyRange {
            end: Some(key.to_vec()),
            cuts,
            ..EmptyRange::clone(range)
        };
        let above = EmptyRange {
            start: after(key),
            cuts,
            ..EmptyRange::clone(range)
        };
        let mut ranges = Vec::with_capacity(old.len() + 1);
        ranges.extend_from_slice(&old[..at]);
        if cuts <= MAX_CUTS {
            let parts = [below, above].into_iter();
            ranges.extend(parts.filter(|part| !part.is_empty()).map(Arc::new));
        }
        ranges.extend_from_slice(&old[at + 1..]);
        self.list(ranges);
    }

    fn list(&self, mut ranges: Vec<Arc<EmptyRange>>) {
        while ranges.len() > MAX_RANGES {
            let oldest = (0..ranges.len()).min_by_key(|at| ranges[*at].seq);
            ranges.remove(oldest.expect("there are ranges"));
        }
        let any = !ranges.is_empty();
        self.ranges.store(Arc::new(ranges));
        // After the list: a reader that misses it only walks further.
        self.any.store(any, Ordering::Relaxed);
    }
}

#[cfg(test)]
impl EmptyRanges {
    /// Removes all ranges, as if the tree had been opened again.
    pub(crate) fn clear(&self) {
        let _recorder = self.recorder();
        self.list(Vec::new());
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
