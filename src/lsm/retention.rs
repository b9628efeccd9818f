//! Which entries a flush or a compaction passes on.
//!
//! Reads happen *at* a sequence number: that of a live snapshot, or one published by now or later.
//! The live snapshots' numbers and the published one, sorted, are the *boundaries*. They cut
//! sequence numbers into *stripes*: all numbers from above one boundary up to the next. Of the
//! versions of a key that are in one stripe, reads can only see the newest, because every read
//! below the last boundary is at a boundary. Above the last boundary any number may be read at yet,
//! so everything there is kept.
//!
//! # Why it is right that the published number is taken once, at the start
//!
//! A read takes its view first and its number second. If the view has tables that were made with
//! published number `p`, then `p` was published before those tables were installed, hence before
//! the read took its number, which is therefore at least `p`. And a snapshot that registers after
//! the boundaries were taken gets a number of at least `p` (see
//! [`crate::engine::SnapshotTracker`]).

use std::sync::Arc;

use super::entry::{Entry, EntryKind};
use super::tombstones::TombstoneIndex;
use crate::engine::LiveSnapshots;
use crate::resolve::{CompactionFilter, Moment};
use crate::types::SeqNo;
use crate::util::mutants::mutated;

/// The numbers that reads use or may use, up to the published one: rising, never empty.
#[derive(Debug, Clone)]
pub(crate) struct Boundaries {
    numbers: Vec<SeqNo>,
    newest_snapshot: Option<SeqNo>,
    /// What has expired by this time is seen by no read: see [`LiveSnapshots::time_ms`].
    time_ms: u64,
    filter: Option<Arc<dyn CompactionFilter>>,
}

impl Boundaries {
    /// The boundaries of this moment.
    pub(crate) fn new(live: LiveSnapshots) -> Self {
        let newest_snapshot = live.snapshots.last().copied();
        let mut numbers = mutated!("version-dropped-under-a-snapshot", vec![], live.snapshots);
        numbers.push(live.published);
        numbers.sort_unstable();
        numbers.dedup();
        Self {
            numbers,
            newest_snapshot,
            time_ms: live.time_ms,
            filter: None,
        }
    }

    /// The same for a job that asks `filter`, which was taken before this moment (X7).
    pub(crate) fn filtering(self, filter: Option<Arc<dyn CompactionFilter>>) -> Self {
        Self { filter, ..self }
    }

    /// What background work may judge of an entry of number `seq`.
    pub(crate) fn moment(&self, seq: SeqNo) -> Moment<'_> {
        let is_seen = self.newest_snapshot.is_some_and(|snapshot| seq <= snapshot);
        Moment {
            expired_by_ms: self.time_ms,
            filter: (!is_seen || mutated!("filtered-under-a-snapshot"))
                .then_some(self.filter.as_ref())
                .flatten(),
        }
    }

    /// The numbers.
    pub(crate) fn as_slice(&self) -> &[SeqNo] {
        &self.numbers
    }

    /// The lowest number that reads may use. What is hidden from a read at this number is hidden
    /// from all.
    pub(crate) fn oldest(&self) -> SeqNo {
        self.numbers[0]
    }

    /// The boundary that ends the stripe of `seq`; `None` above the last boundary.
    pub(crate) fn stripe(&self, seq: SeqNo) -> Option<SeqNo> {
        // Usually there is one boundary, or none of the few is passed.
        let at = self.numbers.partition_point(|boundary| *boundary < seq);
        self.numbers.get(at).copied()
    }
}

/// Decides entry by entry, in internal order.
#[derive(Debug)]
pub(crate) struct Retention<'a> {
    boundaries: &'a Boundaries,
    /// Range tombstones among the inputs.
    tombstones: &'a TombstoneIndex,
    /// Stripe of the newest version of the key that was met last.
    stripe: Option<SeqNo>,
}

impl<'a> Retention<'a> {
    /// For entries of inputs whose range tombstones are `tombstones`.
    pub(crate) fn new(boundaries: &'a Boundaries, tombstones: &'a TombstoneIndex) -> Self {
        Self {
            boundaries,
            tombstones,
            stripe: None,
        }
    }

    /// True if `entry` is to be passed on. `begins_key` says that the last entry had another key.
    /// `is_bottom(key)` says that nothing older than
    /// the inputs is stored about a key, so that a delete has nothing left to hide.
    pub(crate) fn keeps(
        &mut self,
        entry: &Entry<'_>,
        begins_key: bool,
        is_bottom: impl FnOnce(&[u8]) -> bool,
    ) -> bool {
        if begins_key {
            self.stripe = None;
        }
        let Some(stripe) = self.boundaries.stripe(entry.seq) else {
            return true;
        };
        if self.stripe.replace(stripe) == Some(stripe) {
            return false;
        }
        if !self.tombstones.is_empty() {
            let covering = self.tombstones.newest_covering(entry.key, stripe);
            if covering.is_some_and(|seq| seq > entry.seq) {
                return false;
            }
        }
        let is_oldest =
            stripe == self.boundaries.oldest() || mutated!("tombstone-dropped-under-a-snapshot");
        !(entry.kind == EntryKind::Delete
            && is_oldest
            && (is_bottom(entry.key) || mutated!("tombstone-dropped-above-the-bottom")))
    }
}

#[cfg(test)]
mod tests {
    use super::super::entry::RangeTombstone;
    use super::*;
    use crate::testing::Random;

    /// What a read at `seq` sees of one key.
    fn visible(entries: &[(u64, EntryKind)], covers: &[u64], seq: u64) -> Option<u64> {
        let newest = entries.iter().find(|(s, _)| *s <= seq)?;
        let covered = covers.iter().any(|c| *c <= seq && *c > newest.0);
        (newest.1 == EntryKind::Put && !covered).then_some(newest.0)
    }

    #[test]
    fn reads_at_every_boundary_see_the_same() {
        for seed in 0..300 {
            let mut random = Random::new(seed);
            let published = 5 + random.below(15);
            let mut covers = Vec::new();
            let mut entries = Vec::new();
            for seq in (1..=25).rev() {
                match random.below(6) {
                    0 => covers.push(seq),
                    1 => entries.push((seq, EntryKind::Delete)),
                    2..4 => entries.push((seq, EntryKind::Put)),
                    _ => {}
                }
            }
            let snapshots: Vec<_> = (0..published).filter(|_| random.below(5) == 0).collect();
            let boundaries = Boundaries::new(LiveSnapshots {
                snapshots: snapshots.iter().copied().map(SeqNo).collect(),
                published: SeqNo(published),
                time_ms: 0,
            });
            let index = TombstoneIndex::new(
                covers
                    .iter()
                    .map(|seq| RangeTombstone {
                        start: b"a".to_vec(),
                        end: None,
                        seq: SeqNo(*seq),
                    })
                    .collect(),
            );
            for bottom in [false, true] {
                // What lies below the inputs, for them to hide.
                let older = (!bottom).then_some((0, EntryKind::Put));
                let mut retention = Retention::new(&boundaries, &index);
                let mut kept = entries.clone();
                let mut begins_key = true;
                kept.retain(|(seq, kind)| {
                    let entry = Entry {
                        key: b"key",
                        seq: SeqNo(*seq),
                        kind: *kind,
                        value: b"",
                    };
                    retention.keeps(&entry, std::mem::take(&mut begins_key), |_| bottom)
                });
                // Nothing superfluous: at most one version for each stripe.
                let below = kept.iter().filter(|(seq, _)| *seq <= published).count();
                assert!(below <= boundaries.as_slice().len(), "seed {seed}");
                let before: Vec<_> = entries.iter().copied().chain(older).collect();
                kept.extend(older);
                for seq in snapshots.iter().copied().chain(published..=25) {
                    assert_eq!(
                        visible(&kept, &covers, seq),
                        visible(&before, &covers, seq),
                        "seed {seed} at {seq}"
                    );
                }
            }
        }
    }
}
