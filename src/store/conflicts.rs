//! Which keys were written lately, for commits that hold only if nothing they read has changed.
//!
//! A [`ConflictTracker`] remembers the keys and ranges of commits while there is a watch, and
//! nothing otherwise: a store in which no caller reads, modifies and writes back pays one
//! comparison a commit. It belongs to the sequencer and is used under its lock.
//!
//! Its memory is bounded. Beyond the bound it forgets, and watches that began before what it forgot
//! are told of a conflict: they try again, and nothing else slows down.
//!
//! Invariants:
//! - Q1: for a watch since `s`, every operation above `s` is remembered, or `forgotten` is above
//!   `s`.
//! - Q2: without a watch nothing is remembered.

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::types::{KeyRange, KeyspaceId, Op, SeqNo};

/// Bytes of keys that are remembered, with what their bookkeeping takes.
const MAX_BYTES: usize = 4 << 20;
/// What an entry takes beside its key, about.
const ENTRY_COST_BYTES: usize = 64;

/// The keys and ranges of recent commits. See the module.
#[derive(Debug, Default)]
pub(crate) struct ConflictTracker {
    /// Since when, and how many watches since then.
    watches: BTreeMap<SeqNo, usize>,
    /// The latest operation on each key.
    keys: BTreeMap<(KeyspaceId, Vec<u8>), SeqNo>,
    /// Range deletes, with their numbers.
    ranges: Vec<(KeyspaceId, KeyRange, SeqNo)>,
    bytes: usize,
    /// Operations up to here are not all remembered.
    forgotten: SeqNo,
}

impl ConflictTracker {
    /// True while there is a watch.
    #[inline]
    pub(crate) fn is_active(&self) -> bool {
        !self.watches.is_empty()
    }

    /// Begins a watch of everything above `since`. The caller notes what is logged already.
    pub(crate) fn begin(&mut self, since: SeqNo) {
        *self.watches.entry(since).or_insert(0) += 1;
    }

    /// Ends a watch that began with `since`.
    pub(crate) fn end(&mut self, since: SeqNo) {
        if let Some(count) = self.watches.get_mut(&since) {
            *count -= 1;
            if *count == 0 {
                self.watches.remove(&since);
            }
        }
        if self.watches.is_empty() {
            *self = Self::default();
        }
    }

    /// Remembers an operation.
    pub(crate) fn note(&mut self, keyspace: KeyspaceId, op: &Op<'_>, seq: SeqNo) {
        match *op {
            Op::Put { key, .. } | Op::Delete { key } => {
                self.bytes += key.len() + ENTRY_COST_BYTES;
                self.keys.insert((keyspace, key.to_vec()), seq);
            }
            Op::DeleteRange { start, end } => {
                let range = KeyRange {
                    start: start.to_vec(),
                    end: end.map(<[u8]>::to_vec),
                };
                self.bytes += start.len() + end.map_or(0, <[u8]>::len) + ENTRY_COST_BYTES;
                self.ranges.push((keyspace, range, seq));
            }
        }
        if self.bytes > MAX_BYTES {
            self.shrink(seq);
        }
    }

    /// The latest operation above `since` on a key in `range` that is remembered, or that may have
    /// been forgotten.
    pub(crate) fn conflict(
        &self,
        since: SeqNo,
        keyspace: KeyspaceId,
        range: &KeyRange,
    ) -> Option<SeqNo> {
        if since < self.forgotten {
            return Some(self.forgotten);
        }
        if range.is_empty() {
            return None;
        }
        let start = Bound::Included((keyspace, range.start.clone()));
        let end = match &range.end {
            Some(end) => Bound::Excluded((keyspace, end.clone())),
            None => Bound::Excluded((KeyspaceId(keyspace.0.saturating_add(1)), Vec::new())),
        };
        let keys = self.keys.range((start, end)).map(|(_, seq)| *seq);
        let ranges = self
            .ranges
            .iter()
            .filter(|(of, other, _)| *of == keyspace && other.overlaps(range))
            .map(|(.., seq)| *seq);
        keys.chain(ranges).filter(|seq| *seq > since).max()
    }

    /// Forgets what no watch asks for; everything, if that does not help.
    fn shrink(&mut self, latest: SeqNo) {
        let oldest = self.watches.keys().next().copied().unwrap_or(latest);
        self.keys.retain(|_, seq| *seq > oldest);
        self.ranges.retain(|(.., seq)| *seq > oldest);
        let keys = self.keys.keys().map(|(_, key)| key.len());
        let ranges = self.ranges.iter().map(|(_, range, _)| range.len_bytes());
        self.bytes = keys.chain(ranges).map(|len| len + ENTRY_COST_BYTES).sum();
        if self.bytes > MAX_BYTES / 2 {
            self.keys.clear();
            self.ranges.clear();
            self.bytes = 0;
            self.forgotten = latest;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: KeyspaceId = KeyspaceId(1);
    const B: KeyspaceId = KeyspaceId(2);

    fn put(key: &[u8]) -> Op<'_> {
        Op::Put { key, value: b"" }
    }

    fn range(start: &str, end: &str) -> KeyRange {
        KeyRange::new(&(start..end))
    }

    #[test]
    fn later_operations_on_the_same_keys_are_conflicts() {
        let mut tracker = ConflictTracker::default();
        tracker.begin(SeqNo(10));
        tracker.note(A, &put(b"b"), SeqNo(11));
        tracker.note(B, &put(b"c"), SeqNo(12));
        let delete = Op::DeleteRange {
            start: b"m",
            end: Some(b"p"),
        };
        tracker.note(A, &delete, SeqNo(13));
        let conflict = |since, range: &KeyRange| tracker.conflict(SeqNo(since), A, range);
        assert_eq!(conflict(10, &range("a", "c")), Some(SeqNo(11)));
        assert_eq!(conflict(11, &range("a", "c")), None);
        assert_eq!(
            conflict(10, &range("c", "d")),
            None,
            "of the other keyspace"
        );
        assert_eq!(conflict(10, &range("o", "z")), Some(SeqNo(13)));
        assert_eq!(conflict(10, &range("p", "z")), None);
        assert_eq!(conflict(10, &KeyRange::new(&..)), Some(SeqNo(13)));
        assert_eq!(
            tracker.conflict(SeqNo(10), B, &KeyRange::new(&..)),
            Some(SeqNo(12))
        );
    }

    #[test]
    fn what_is_forgotten_is_a_conflict() {
        let mut tracker = ConflictTracker::default();
        tracker.begin(SeqNo(1));
        let key = vec![b'k'; 60_000];
        for seq in 2..200 {
            tracker.note(A, &put(&[&key[..], &[seq as u8]].concat()), SeqNo(seq));
            assert!(tracker.bytes <= MAX_BYTES);
        }
        assert!(tracker.conflict(SeqNo(1), A, &range("a", "b")).is_some());
        tracker.begin(SeqNo(199));
        assert_eq!(tracker.conflict(SeqNo(199), A, &range("a", "b")), None);
        tracker.end(SeqNo(1));
        tracker.end(SeqNo(199));
        assert!(!tracker.is_active() && tracker.bytes == 0);
    }
}
