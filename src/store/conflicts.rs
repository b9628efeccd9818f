//! Which keys were written lately, for commits that hold only if nothing they read has changed.
//!
//! A [`ConflictTracker`] remembers the keys and ranges of commits while there is a watch, and
//! nothing otherwise: a store in which no caller reads, modifies and writes back pays one
//! comparison a commit. It belongs to the sequencer and is used under its lock.
//!
//! It is a list in the order of commits, in chunks. To note an operation copies its key to the end.
//! To validate a commit walks over what was noted since it began to read, and looks each key up
//! among those that it read: the work of validating is bounded by what was committed meanwhile, not
//! by what was read. Chunks that are full do not change, so a long list can be
//! [looked through](ConflictTracker::full_chunks) before the lock is taken.
//!
//! Its memory is bounded. Beyond the bound it forgets the oldest chunk, and watches that began
//! before its end are told so: they try again, and nothing else slows down.
//!
//! Invariants:
//! - Q1: for a watch since `s`, every operation above `s` is remembered, or `forgotten` is above
//!   `s`.
//! - Q2: without a watch nothing is remembered.
//! - Q3: what is remembered is in the order of sequence numbers.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::types::{KeySet, KeyspaceId, Op, SeqNo};

/// Bytes of keys that are remembered, with what their bookkeeping takes.
const MAX_BYTES: usize = 16 << 20;
/// From so many bytes on a chunk is full.
const CHUNK_BYTES: usize = 64 << 10;

/// What was read, ordered by keyspace, no keyspace twice.
pub(crate) type Reads = [(KeyspaceId, KeySet)];

/// Where in `reads` the part of a keyspace is, or where it would be.
pub(crate) fn place_among_reads(reads: &Reads, keyspace: KeyspaceId) -> Result<usize, usize> {
    reads.binary_search_by(|(id, _)| {
        #[cfg(test)]
        crate::testing::note_comparison();
        id.cmp(&keyspace)
    })
}

/// An operation that breaks the condition of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Conflict {
    /// Its number.
    pub(crate) seq: SeqNo,
    /// The keyspace, and the key or where the range begins. `None` if the operations up to `seq`
    /// are forgotten, and it is not known which of them did.
    pub(crate) place: Option<(KeyspaceId, Vec<u8>)>,
}

/// The keys and ranges of recent commits. See the module.
#[derive(Debug, Default)]
pub(crate) struct ConflictTracker {
    /// Since when, and how many watches since then.
    watches: BTreeMap<SeqNo, usize>,
    /// Full ones, oldest first.
    chunks: VecDeque<Arc<Chunk>>,
    /// What came after them.
    open: Chunk,
    /// Of the full ones.
    bytes: usize,
    /// Operations up to here are not all remembered.
    forgotten: SeqNo,
}

/// Operations in their order.
#[derive(Debug, Default)]
pub(crate) struct Chunk {
    noted: Vec<Noted>,
    /// Their keys and bounds, one behind the other.
    bytes: Vec<u8>,
}

/// What was written: a key, or a range.
#[derive(Debug)]
struct Noted {
    seq: SeqNo,
    keyspace: KeyspaceId,
    /// Where its key or start begins among the bytes of the chunk, and how long it is.
    at: u32,
    len: u32,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Key,
    /// A range with an end of this length, which is behind the start.
    Range(u32),
    /// A range without an end.
    From,
}

impl Chunk {
    fn len_bytes(&self) -> usize {
        self.bytes.len() + self.noted.len() * size_of::<Noted>()
    }

    /// The number of its last operation.
    fn last(&self) -> SeqNo {
        self.noted.last().map_or(SeqNo::ZERO, |noted| noted.seq)
    }

    fn note(&mut self, keyspace: KeyspaceId, op: &Op<'_>, seq: SeqNo) {
        let at = self.bytes.len() as u32;
        let (start, kind) = match *op {
            Op::Put { key, .. } | Op::Delete { key } | Op::Merge { key, .. } => (key, Kind::Key),
            Op::DeleteRange { start, end: None } => (start, Kind::From),
            Op::DeleteRange {
                start,
                end: Some(end),
            } => (start, Kind::Range(end.len() as u32)),
        };
        self.bytes.extend_from_slice(start);
        if let Op::DeleteRange { end: Some(end), .. } = op {
            self.bytes.extend_from_slice(end);
        }
        self.noted.push(Noted {
            seq,
            keyspace,
            at,
            len: start.len() as u32,
            kind,
        });
    }

    /// The newest operation above `since` that wrote what is in `reads`.
    pub(crate) fn conflict(&self, since: SeqNo, reads: &Reads) -> Option<Conflict> {
        let newer = self.noted.partition_point(|noted| noted.seq <= since);
        let mut newest_first = self.noted[newer..].iter().rev();
        newest_first.find_map(|noted| {
            let (_, keys) = &reads[place_among_reads(reads, noted.keyspace).ok()?];
            let start_at = noted.at as usize;
            let end_at = start_at + noted.len as usize;
            let start = &self.bytes[start_at..end_at];
            let overlaps = match noted.kind {
                Kind::Key => keys.contains(start),
                Kind::From => keys.overlaps(start, None),
                Kind::Range(len) => {
                    let end = &self.bytes[end_at..end_at + len as usize];
                    keys.overlaps(start, Some(end))
                }
            };
            overlaps.then(|| Conflict {
                seq: noted.seq,
                place: Some((noted.keyspace, start.to_vec())),
            })
        })
    }
}

impl ConflictTracker {
    /// True while there is a watch.
    #[inline]
    pub(crate) fn is_active(&self) -> bool {
        !self.watches.is_empty()
    }

    /// Begins a watch of everything above `since`. True if it is the first one: then the caller
    /// notes what is logged already, above `since`.
    #[must_use]
    pub(crate) fn begin(&mut self, since: SeqNo) -> bool {
        let is_first = !self.is_active();
        *self.watches.entry(since).or_insert(0) += 1;
        is_first
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
            self.chunks.clear();
            // Its memory serves the next watch.
            self.open.noted.clear();
            self.open.bytes.clear();
            self.bytes = 0;
            self.forgotten = SeqNo::ZERO;
        }
    }

    /// Remembers an operation, which is above all that are remembered.
    pub(crate) fn note(&mut self, keyspace: KeyspaceId, op: &Op<'_>, seq: SeqNo) {
        debug_assert!(seq > self.open.last(), "Q3");
        self.open.note(keyspace, op, seq);
        if self.open.len_bytes() >= CHUNK_BYTES {
            let full = std::mem::take(&mut self.open);
            self.bytes += full.len_bytes();
            self.chunks.push_back(Arc::new(full));
            self.shrink();
        }
    }

    /// The latest operation above `since` on what is in `reads`, or up to which operations may have
    /// been forgotten.
    pub(crate) fn conflict(&self, since: SeqNo, reads: &Reads) -> Option<Conflict> {
        debug_assert!(reads.is_sorted_by(|(a, _), (b, _)| a < b));
        if reads.iter().all(|(_, keys)| keys.is_empty()) {
            return None;
        }
        if since < self.forgotten {
            return Some(Conflict {
                seq: self.forgotten,
                place: None,
            });
        }
        let newer = self.chunks.partition_point(|chunk| chunk.last() <= since);
        let full = self.chunks.range(newer..).map(|chunk| &**chunk);
        full.chain([&self.open])
            .rev()
            .find_map(|chunk| chunk.conflict(since, reads))
    }

    /// The full chunks with operations above `since`, oldest first, and the number of the last one
    /// in them. Every operation above `since` up to there is in them, or nothing is returned.
    pub(crate) fn full_chunks(&self, since: SeqNo) -> Option<(Vec<Arc<Chunk>>, SeqNo)> {
        if since < self.forgotten {
            return None;
        }
        let newer = self.chunks.partition_point(|chunk| chunk.last() <= since);
        let last = self.chunks.back()?.last();
        Some((self.chunks.range(newer..).cloned().collect(), last))
    }

    /// Forgets what no watch asks for, and the oldest of the rest as far as it is too much.
    fn shrink(&mut self) {
        let oldest = self.watches.keys().next().copied().unwrap_or(SeqNo::MAX);
        while let Some(chunk) = self.chunks.front() {
            let is_asked_for = chunk.last() > oldest;
            if is_asked_for && self.bytes <= MAX_BYTES - CHUNK_BYTES {
                return;
            }
            if is_asked_for {
                self.forgotten = chunk.last();
            }
            self.bytes -= chunk.len_bytes();
            self.chunks.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::comparisons_of;
    use crate::types::KeyRange;

    const A: KeyspaceId = KeyspaceId(1);
    const B: KeyspaceId = KeyspaceId(2);

    fn put(key: &[u8]) -> Op<'_> {
        Op::Put { key, value: b"" }
    }

    fn range(start: &str, end: &str) -> KeyRange {
        KeyRange::new(&(start..end))
    }

    fn reads(keyspace: KeyspaceId, range: &KeyRange) -> Vec<(KeyspaceId, KeySet)> {
        vec![(keyspace, KeySet::of(range))]
    }

    #[test]
    fn later_operations_on_the_same_keys_are_conflicts() {
        let mut tracker = ConflictTracker::default();
        assert!(tracker.begin(SeqNo(10)));
        tracker.note(A, &put(b"b"), SeqNo(11));
        tracker.note(B, &put(b"c"), SeqNo(12));
        let delete = Op::DeleteRange {
            start: b"m",
            end: Some(b"p"),
        };
        tracker.note(A, &delete, SeqNo(13));
        let of = |keyspace, since, range: &KeyRange| {
            tracker.conflict(SeqNo(since), &reads(keyspace, range))
        };
        let at = |seq, keyspace, key: &str| {
            Some(Conflict {
                seq: SeqNo(seq),
                place: Some((keyspace, key.into())),
            })
        };
        assert_eq!(of(A, 10, &range("a", "c")), at(11, A, "b"));
        assert_eq!(of(A, 10, &KeyRange::one(b"b")), at(11, A, "b"));
        assert_eq!(of(A, 10, &KeyRange::one(b"b\0")), None);
        assert_eq!(of(A, 11, &range("a", "c")), None);
        assert_eq!(of(A, 10, &range("c", "d")), None, "of the other keyspace");
        assert_eq!(of(A, 10, &range("o", "z")), at(13, A, "m"));
        assert_eq!(of(A, 10, &range("p", "z")), None);
        assert_eq!(of(A, 10, &KeyRange::new(&..)), at(13, A, "m"));
        assert_eq!(of(B, 10, &KeyRange::new(&..)), at(12, B, "c"));
        let delete = Op::DeleteRange {
            start: b"x",
            end: None,
        };
        tracker.note(A, &delete, SeqNo(14));
        let of = |range: &KeyRange| tracker.conflict(SeqNo(13), &reads(A, range));
        assert_eq!(of(&KeyRange::one(b"zz")), at(14, A, "x"));
        assert_eq!(of(&range("a", "x")), None);
    }

    /// Each remembered operation was looked up with a walk over the keyspaces that were read, under
    /// the log lock.
    #[test]
    fn an_operation_is_looked_up_among_many_keyspaces_with_few_comparisons() {
        const COUNT: u32 = 1000;
        let mut tracker = ConflictTracker::default();
        assert!(tracker.begin(SeqNo(1)));
        // Every second one is read.
        let read = range("a", "c");
        let read = (0..COUNT).map(|n| (KeyspaceId(2 * n), KeySet::of(&read)));
        let reads: Vec<_> = read.collect();
        let ops = u64::from(2 * COUNT);
        for n in 0..ops {
            let keyspace = KeyspaceId((n * 7 % ops) as u32);
            tracker.note(keyspace, &put(b"d"), SeqNo(2 + n));
        }
        let steps = 2 * COUNT as usize;
        let compared = comparisons_of(|| assert_eq!(tracker.conflict(SeqNo(1), &reads), None));
        assert!((steps..=12 * steps).contains(&compared), "{compared}");
        for (id, _) in &reads {
            let seq = SeqNo(2 + ops + u64::from(id.0));
            tracker.note(*id, &put(b"b"), seq);
            let place = Some((*id, b"b".to_vec()));
            let conflict = tracker.conflict(SeqNo(1), &reads);
            assert_eq!(conflict, Some(Conflict { seq, place }));
        }
    }

    #[test]
    fn the_oldest_is_forgotten_and_only_older_watches_are_told() {
        let mut tracker = ConflictTracker::default();
        assert!(tracker.begin(SeqNo(1)));
        let key = vec![b'k'; 60_000];
        let absent = reads(A, &range("a", "b"));
        let mut middle = None;
        let mut last = 1_u64;
        // Until what the first watch needs is forgotten.
        while tracker.conflict(SeqNo(1), &absent).is_none() {
            last += 1;
            let key = [&key[..], &last.to_be_bytes()].concat();
            tracker.note(A, &put(&key), SeqNo(last));
            assert!(tracker.bytes + tracker.open.len_bytes() <= MAX_BYTES);
            if last == 100 {
                assert!(!tracker.begin(SeqNo(last)));
                middle = Some(key);
            }
        }
        assert!(tracker.bytes > MAX_BYTES / 2, "forgotten too early");
        let forgotten = tracker.conflict(SeqNo(1), &absent).unwrap();
        assert!(forgotten.place.is_none() && forgotten.seq < SeqNo(100));
        assert_eq!(tracker.conflict(SeqNo(100), &absent), None);
        let middle = reads(A, &KeyRange::one(&middle.unwrap()));
        assert_eq!(tracker.conflict(SeqNo(100), &middle), None);
        assert_eq!(
            tracker.conflict(SeqNo(99), &middle).unwrap().seq,
            SeqNo(100)
        );
        tracker.end(SeqNo(1));
        tracker.end(SeqNo(100));
        assert!(!tracker.is_active() && tracker.chunks.is_empty() && tracker.bytes == 0);
        assert!(tracker.open.len_bytes() == 0 && tracker.forgotten == SeqNo::ZERO);
    }

    #[test]
    fn what_no_watch_asks_for_is_forgotten_without_a_word() {
        let mut tracker = ConflictTracker::default();
        assert!(tracker.begin(SeqNo(1)));
        let mut oldest = SeqNo(1);
        for seq in (2..20_000).map(SeqNo) {
            tracker.note(A, &put(&seq.0.to_be_bytes()), seq);
            if seq.0.is_multiple_of(100) {
                assert!(!tracker.begin(seq));
                tracker.end(oldest);
                oldest = seq;
            }
            assert!(tracker.bytes < 3 * CHUNK_BYTES);
        }
        assert_eq!(tracker.forgotten, SeqNo::ZERO);
        let all = reads(A, &KeyRange::new(&..));
        let newest = tracker.conflict(oldest, &all).unwrap();
        assert_eq!(newest.seq, SeqNo(19_999));
        let (full, last) = tracker.full_chunks(oldest).unwrap();
        let in_full = full
            .iter()
            .any(|chunk| chunk.conflict(oldest, &all).is_some());
        assert_eq!(in_full, last > oldest);
    }
}
