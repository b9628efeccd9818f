//! What is known to be dead: stretches of keys in which reads see nothing.
//!
//! An LSM tree deletes by writing a tombstone, so whoever looks for the first key after many deletes walks
//! over all that was deleted there until a compaction drops it. A queue does nothing else: every take
//! deletes the first key, and the next one walks over it. So the tree remembers, in memory only, a
//! few [`Zone`]s in which there is nothing to see, and a scan that comes to one goes on behind it.
//!
//! # Where zones come from
//!
//! - A range delete makes one at once: it says itself that nothing is left.
//! - A scan that has passed [`LEARN_AFTER`] dead keys in a row tells what it saw
//!   ([`DeadZones::learn`]). It read at a number that lies in the past, and keys may have been put there since: such a
//!   zone is only believed if a *watch* has seen every put since before that number, and none was
//!   within. A watch is begun by the first scan that has something to tell, keeps nothing but the
//!   smallest and the largest key put since, and ends if nobody tells anything for long. So beside
//!   writers the first of many scans over the same dead keys teaches nothing, the second does, and a
//!   tree where nobody walks over dead keys pays nothing.
//!
//! # Invariants
//!
//! - **D1** Reads at [`Zone::seq`] or above see nothing in a zone that is in the published list when they
//!   look, after they have taken their number. For: nothing was seen there at `seq`; no put between that and the
//!   moment when the zone was listed was within (the watch); and a put that comes later takes its key out of all zones
//!   while it is applied, which is before it is published, which is before a read can take a number
//!   that sees it. Reads below `seq`, of older snapshots, do not use the zone.
//! - **D2** Zones are sorted and disjoint, and do not touch.
//! - **D3** Everything applied is noted, in commit order, by who holds the recorder, and nobody else
//!   changes the list.
//!
//! A delete never makes a zone wrong, nor does a flush or a compaction: neither makes anything visible.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use parking_lot::{Mutex, MutexGuard};

use crate::types::{Op, SeqNo, SequencedOp};

/// Dead keys in a row that are worth telling. Telling costs about as much as passing a dozen.
pub(crate) const LEARN_AFTER: usize = 16;
/// Zones that are kept: a put looks for its key among them by bisection, and a list is copied when
/// it changes.
const MAX_ZONES: usize = 32;
/// A zone into which so many keys were put is being filled again: it is forgotten, since every cut
/// costs more than a put.
const MAX_CUTS: u32 = 32;
/// After so many puts without a lesson a watch ends.
const WATCH_PUTS: u64 = 1 << 16;

/// Keys from `start` to before `end`, of which reads at `seq` or above see none (D1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Zone {
    pub(crate) start: Vec<u8>,
    /// `None` for no end.
    pub(crate) end: Option<Vec<u8>>,
    pub(crate) seq: SeqNo,
    /// How many puts have cut it since it was learnt.
    cuts: u32,
}

impl Zone {
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

/// The zones of one tree. Readers look without a lock.
#[derive(Debug, Default)]
pub(crate) struct DeadZones {
    zones: ArcSwap<Vec<Arc<Zone>>>,
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

    /// True if no put can have been in `zone`.
    fn spared(&self, zone: &Zone) -> bool {
        self.bounds.as_ref().is_none_or(|(smallest, largest)| {
            **largest < *zone.start || zone.end.as_ref().is_some_and(|end| *end <= *smallest)
        })
    }
}

impl DeadZones {
    /// For a tree that holds what was applied up to `applied`.
    pub(crate) fn new(applied: SeqNo) -> Self {
        let zones = Self::default();
        zones.recorder.lock().applied = applied;
        zones
    }

    /// Takes the recorder, which whoever applies operations holds meanwhile.
    pub(crate) fn recorder(&self) -> MutexGuard<'_, Recorder> {
        self.recorder.lock()
    }

    /// Where a read at `seq` that is at `key` has nothing to see; `None` if that is not known.
    #[inline]
    pub(crate) fn find(&self, key: &[u8], seq: SeqNo) -> Option<Arc<Zone>> {
        if !self.any.load(Ordering::Relaxed) {
            return None;
        }
        let zones = self.zones.load();
        let at = zones.partition_point(|zone| *zone.start <= *key);
        let zone = &zones[at.checked_sub(1)?];
        (zone.seq <= seq && zone.contains(key)).then(|| Arc::clone(zone))
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
                self.add(Zone::new(start.to_vec(), end, op.seq));
            }
            Op::Delete { .. } => {}
        }
    }

    /// A read at `seq` has seen nothing from `start` on and before `end`. Never waits: if the writer is busy,
    /// another scan will tell the same.
    pub(crate) fn learn(&self, start: Vec<u8>, end: Option<Vec<u8>>, seq: SeqNo) {
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
        let zone = Zone::new(start, end, seq);
        let is_right = watch.spared(&zone);
        // What was put so far is noted in the list from here on; it need not speak against the next.
        *watch = Watch::new(applied);
        if is_right {
            self.add(zone);
        }
    }

    /// Lists `zone`, as one with those that it meets (D2). By who holds the recorder.
    fn add(&self, mut zone: Zone) {
        if zone.is_empty() {
            return;
        }
        let old = self.zones.load();
        let low =
            old.partition_point(|other| other.end.as_ref().is_some_and(|end| **end < *zone.start));
        let high = match &zone.end {
            Some(end) => old.partition_point(|other| *other.start <= **end),
            None => old.len(),
        };
        let high = high.max(low);
        for met in &old[low..high] {
            if met.start < zone.start {
                zone.start.clone_from(&met.start);
            }
            if zone.end.is_some() && (met.end.is_none() || met.end > zone.end) {
                zone.end.clone_from(&met.end);
            }
            zone.seq = zone.seq.max(met.seq);
        }
        let mut zones = Vec::with_capacity(old.len() + 1);
        zones.extend_from_slice(&old[..low]);
        zones.push(Arc::new(zone));
        zones.extend_from_slice(&old[high..]);
        self.list(zones);
    }

    /// A put of `key` is applied: it is in no zone any more. By who holds the recorder.
    fn remove(&self, key: &[u8]) {
        let old = self.zones.load();
        let at = old.partition_point(|zone| *zone.start <= *key);
        let Some(at) = at.checked_sub(1).filter(|at| old[*at].contains(key)) else {
            return;
        };
        let zone = &old[at];
        let cuts = zone.cuts + 1;
        let below = Zone {
            end: Some(key.to_vec()),
            cuts,
            ..Zone::clone(zone)
        };
        let above = Zone {
            start: after(key),
            cuts,
            ..Zone::clone(zone)
        };
        let mut zones = Vec::with_capacity(old.len() + 1);
        zones.extend_from_slice(&old[..at]);
        if cuts <= MAX_CUTS {
            let parts = [below, above].into_iter();
            zones.extend(parts.filter(|part| !part.is_empty()).map(Arc::new));
        }
        zones.extend_from_slice(&old[at + 1..]);
        self.list(zones);
    }

    fn list(&self, mut zones: Vec<Arc<Zone>>) {
        while zones.len() > MAX_ZONES {
            let oldest = (0..zones.len()).min_by_key(|at| zones[*at].seq);
            zones.remove(oldest.expect("there are zones"));
        }
        let any = !zones.is_empty();
        self.zones.store(Arc::new(zones));
        // After the list: who misses it only walks further.
        self.any.store(any, Ordering::Relaxed);
    }
}

#[cfg(test)]
impl DeadZones {
    /// Forgets everything, as a tree does that is opened again.
    pub(crate) fn forget(&self) {
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
