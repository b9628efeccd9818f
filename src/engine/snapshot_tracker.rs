//! Which operations can be seen, and by whom.
//!
//! The store *publishes* a sequence number when every operation up to it has
//! been applied; a read without a snapshot sees what was published when it
//! began. A snapshot registers the number that it reads at, so that engines
//! keep what it can see.
//!
//! A snapshot's number is taken and registered in one critical section, and
//! [`SnapshotTracker::live`] answers from the same one. Hence: any snapshot that is missing from an
//! answer will have a number at or above the `published` in that answer.
//!
//! A snapshot may be registered before its number is published, as one that takes views late: see
//! [`SnapshotTracker::register_late`].

//!
//! A snapshot also has the time at which it was taken: what had not expired then does not while it
//! lives. A snapshot that is missing from an answer has a later time than that of the answer.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, OnceLock};

use super::cursor::ReadView;
use super::handed_views::HandedViews;
use crate::error::Error;
use crate::resolve::StoreClock;
use crate::types::{KeyspaceId, SeqNo};
use crate::util::mutants::mutated;
use crate::util::sync::Mutex;
use crate::util::sync::atomic::{AtomicU64, Ordering};

/// Published sequence number and live snapshots of one store.
#[derive(Debug, Default)]
pub(crate) struct SnapshotTracker {
    published: CacheLine<AtomicU64>,
    /// What was applied above `published` will never be published.
    abandoned: OnceLock<Error>,
    /// One more than the number of the newest snapshot that takes views late; 0 if there is none.
    /// Stored with `snapshots` locked.
    newest_late: CacheLine<AtomicU64>,
    snapshots: Mutex<Snapshots>,
    clock: Arc<StoreClock>,
}

#[derive(Debug, Default)]
struct Snapshots {
    /// Live snapshots: sequence number and how many read at it.
    counts: BTreeMap<SeqNo, usize>,
    /// Those among them that take views late: how many, and what they were handed.
    late: BTreeMap<SeqNo, (usize, Arc<HandedViews>)>,
    /// When live snapshots were taken, in milliseconds since 1970, and how many.
    times: BTreeMap<u64, usize>,
    /// The lowest number that background work waits for all reads to reach.
    awaited: Option<SeqNo>,
}

impl Snapshots {
    fn oldest(&self) -> Option<SeqNo> {
        self.counts.keys().next().copied()
    }

    /// The lowest number that reads use, now or later: one may be registered above `published`.
    fn oldest_read(&self, published: SeqNo) -> SeqNo {
        self.oldest()
            .map_or(published, |oldest| oldest.min(published))
    }

    fn oldest_time_ms(&self, clock: &StoreClock) -> u64 {
        let oldest = self.times.keys().next().copied();
        oldest.unwrap_or_else(|| clock.now_ms())
    }
}

/// Counts one less.
fn remove_one<K: Ord + Debug>(counts: &mut BTreeMap<K, usize>, key: K) {
    match counts.get_mut(&key) {
        Some(1) => {
            counts.remove(&key);
        }
        Some(count) => *count -= 1,
        None => debug_assert!(false, "{key:?} was not registered"),
    }
}

/// Keeps the word that every reader loads away from words that writers change.
#[derive(Debug, Default)]
#[repr(align(128))]
struct CacheLine<T>(T);

/// The sequence numbers that reads may use, now and later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LiveSnapshots {
    /// Numbers of live snapshots up to `published`, rising, without repetition.
    pub(crate) snapshots: Vec<SeqNo>,
    /// Published at the moment of asking; later snapshots have this number or a higher one.
    pub(crate) published: SeqNo,
    /// The time by which live snapshots, and those that are taken later, judge what has expired:
    /// the lowest one, in milliseconds since 1970.
    pub(crate) time_ms: u64,
}

/// A registered snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Registered {
    pub(crate) seq: SeqNo,
    /// When, in milliseconds since 1970.
    pub(crate) time_ms: u64,
}

impl SnapshotTracker {
    /// A tracker of snapshots whose time is that of `clock`.
    pub(crate) fn with_clock(clock: Arc<StoreClock>) -> Self {
        Self {
            clock,
            ..Self::default()
        }
    }

    /// The clock of the store.
    pub(crate) fn clock(&self) -> &Arc<StoreClock> {
        &self.clock
    }

    /// Everything up to `seq` has been applied. Called in commit order only.
    pub(crate) fn publish(&self, seq: SeqNo) {
        self.published.0.store(seq.0, Ordering::Release);
    }

    /// The last published sequence number.
    #[inline]
    pub(crate) fn published(&self) -> SeqNo {
        #[cfg(test)]
        crate::testing::just_before_a_number_is_taken();
        let seq = SeqNo(self.published.0.load(Ordering::Acquire));
        #[cfg(test)]
        crate::testing::just_after_a_number_was_taken();
        seq
    }

    /// A change was applied in part, because of `cause`, and will never be published: nothing may
    /// wait for it.
    pub(crate) fn abandon(&self, cause: &Error) {
        let _ = self.abandoned.set(Error::writes_stopped(cause));
    }

    /// What a wait for that change ends with, after [`SnapshotTracker::abandon`].
    pub(crate) fn abandoned(&self) -> Option<&Error> {
        self.abandoned.get()
    }

    /// Registers a snapshot at the published sequence number and returns it. The caller
    /// must keep commits from publishing meanwhile if views are taken with it.
    pub(crate) fn register(&self) -> Registered {
        let mut snapshots = self.snapshots.lock();
        let (seq, time_ms) = (self.published(), self.clock.now_ms());
        *snapshots.counts.entry(seq).or_insert(0) += 1;
        *snapshots.times.entry(time_ms).or_insert(0) += 1;
        Registered { seq, time_ms }
    }

    /// Registers a snapshot at `seq` that asks for views when it needs them. `seq` is published, or
    /// will be before anything is read, and nothing above it is being applied yet: the caller holds
    /// what keeps it from that. Ended by [`SnapshotTracker::unregister_late`].
    pub(crate) fn register_late(&self, seq: SeqNo) -> (Registered, Arc<HandedViews>) {
        let mut snapshots = self.snapshots.lock();
        let time_ms = self.clock.now_ms();
        *snapshots.counts.entry(seq).or_insert(0) += 1;
        *snapshots.times.entry(time_ms).or_insert(0) += 1;
        let (count, handed) = snapshots.late.entry(seq).or_default();
        *count += 1;
        let handed = Arc::clone(handed);
        self.note_newest_late(&snapshots);
        (Registered { seq, time_ms }, handed)
    }

    /// Ends such a registration. The caller has what it was handed, and drops it after this. The
    /// result is that of [`SnapshotTracker::unregister`].
    #[must_use]
    pub(crate) fn unregister_late(&self, registered: Registered) -> bool {
        let mut snapshots = self.snapshots.lock();
        match snapshots.late.get_mut(&registered.seq) {
            Some((1, _)) => {
                snapshots.late.remove(&registered.seq);
            }
            Some((count, _)) => *count -= 1,
            None => debug_assert!(false, "{registered:?} was not registered"),
        }
        self.note_newest_late(&snapshots);
        drop(snapshots);
        self.unregister(registered)
    }

    fn note_newest_late(&self, snapshots: &Snapshots) {
        let newest = snapshots.late.last_key_value();
        let newest = newest.map_or(0, |(seq, _)| seq.0 + 1);
        self.newest_late.0.store(newest, Ordering::Release);
    }

    /// True if a snapshot may yet ask for the state of an engine that has applied operations up to
    /// `applied`, and is about to apply `next`. One that is missed is above `next`, or is gone.
    #[inline]
    pub(crate) fn may_ask_for(&self, applied: SeqNo, next: SeqNo) -> bool {
        // A snapshot is registered before what it must not see is begun.
        if self.newest_late.0.load(Ordering::Acquire) <= applied.0 || mutated!("view-not-handed") {
            return false;
        }
        let snapshots = self.snapshots.lock();
        snapshots.late.range(applied..next).next().is_some()
    }

    /// Gives `view`, of a keyspace whose engine has applied operations up to `applied` and is about
    /// to apply `next`, to the snapshots that may ask for it.
    #[cold]
    pub(crate) fn hand_over(
        &self,
        keyspace: KeyspaceId,
        applied: SeqNo,
        next: SeqNo,
        view: &Arc<dyn ReadView>,
    ) {
        let snapshots = self.snapshots.lock();
        let next = mutated!("view-handed-to-later-snapshots", SeqNo::MAX, next);
        for (_, handed) in snapshots.late.range(applied..next).map(|(_, late)| late) {
            handed.add(keyspace, view);
        }
    }

    /// Ends a registration. True if background work [waited](Self::await_release) for that, and is
    /// to be woken.
    #[must_use]
    pub(crate) fn unregister(&self, registered: Registered) -> bool {
        let mut snapshots = self.snapshots.lock();
        remove_one(&mut snapshots.counts, registered.seq);
        remove_one(&mut snapshots.times, registered.time_ms);
        let oldest_read = snapshots.oldest_read(self.published());
        snapshots
            .awaited
            .take_if(|awaited| *awaited <= oldest_read)
            .is_some()
    }

    /// Background work becomes due when all reads are at `seq` or above. True if they are;
    /// otherwise the [`unregister`](Self::unregister) that makes it so returns true, to one waiter
    /// for all: a thread that is woken and still has something to wait for asks again.
    pub(crate) fn await_release(&self, seq: SeqNo) -> bool {
        let mut snapshots = self.snapshots.lock();
        let oldest_read = snapshots.oldest_read(self.published());
        if oldest_read >= seq {
            return true;
        }
        let lowest = snapshots.awaited.map_or(seq, |awaited| awaited.min(seq));
        snapshots.awaited = Some(lowest);
        false
    }

    /// Everything that reads may still use.
    pub(crate) fn live(&self) -> LiveSnapshots {
        let snapshots = self.snapshots.lock();
        let published = self.published();
        let numbers = snapshots.counts.range(..=published);
        LiveSnapshots {
            snapshots: numbers.map(|(seq, _)| *seq).collect(),
            published,
            time_ms: snapshots.oldest_time_ms(&self.clock),
        }
    }

    /// [`LiveSnapshots::time_ms`] alone.
    pub(crate) fn oldest_time_ms(&self) -> u64 {
        self.snapshots.lock().oldest_time_ms(&self.clock)
    }

    /// The lowest number that reads use or may use, now or later.
    pub(crate) fn oldest_read(&self) -> SeqNo {
        let snapshots = self.snapshots.lock();
        snapshots.oldest_read(self.published())
    }

    /// The oldest live snapshot, if any, and how many live.
    pub(crate) fn oldest(&self) -> (Option<SeqNo>, usize) {
        let snapshots = self.snapshots.lock();
        (snapshots.oldest(), snapshots.counts.values().sum())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::engine::cursor::{Cursor, Piece};
    use crate::error::Result;
    use crate::resolve::ManualClock;
    use crate::testing::comparisons_of;
    use crate::types::KeyRange;

    #[test]
    fn snapshots_are_counted() {
        let snapshot_tracker = SnapshotTracker::default();
        snapshot_tracker.publish(SeqNo(5));
        let a = snapshot_tracker.register();
        let b = snapshot_tracker.register();
        snapshot_tracker.publish(SeqNo(9));
        let c = snapshot_tracker.register();
        assert_eq!((a.seq, b.seq, c.seq), (SeqNo(5), SeqNo(5), SeqNo(9)));
        assert!(!snapshot_tracker.unregister(a));
        assert_eq!(snapshot_tracker.live().snapshots, [SeqNo(5), SeqNo(9)]);
        assert!(!snapshot_tracker.unregister(b));
        assert_eq!(snapshot_tracker.oldest(), (Some(SeqNo(9)), 1));
    }

    /// A snapshot may be registered a moment before its number is published.
    #[test]
    fn a_number_that_is_not_published_yet_holds_what_is_published() {
        let tracker = SnapshotTracker::default();
        tracker.publish(SeqNo(5));
        let (registered, handed) = tracker.register_late(SeqNo(8));
        assert_eq!(tracker.oldest_read(), SeqNo(5));
        assert!(!tracker.await_release(SeqNo(6)));
        let live = tracker.live();
        assert_eq!((live.snapshots, live.published), (vec![], SeqNo(5)));
        tracker.publish(SeqNo(20));
        assert_eq!(tracker.live().snapshots, [SeqNo(8)]);
        assert_eq!(tracker.oldest_read(), SeqNo(8));
        assert!(!tracker.await_release(SeqNo(9)));
        assert!(tracker.unregister_late(registered));
        assert!(handed.of(KeyspaceId(1)).is_none());
    }

    /// Which snapshots a tree at `applied` that goes on with `next` has to think of.
    #[test]
    fn only_late_snapshots_between_two_operations_of_a_tree_may_ask() {
        let tracker = SnapshotTracker::default();
        let may_ask = |applied, next| tracker.may_ask_for(SeqNo(applied), SeqNo(next));
        tracker.publish(SeqNo(5));
        let eager = tracker.register();
        assert!(!may_ask(5, 6));
        let (at_0, first) = tracker.register_late(SeqNo(0));
        assert!(may_ask(0, 1) && !may_ask(1, 2));
        let (at_7, second) = tracker.register_late(SeqNo(7));
        let (again_at_7, third) = tracker.register_late(SeqNo(7));
        assert!(Arc::ptr_eq(&second, &third));
        for (applied, next, expected) in [
            (7, 8, true),
            (5, 9, true),
            (5, 7, false),
            (8, 9, false),
            (1, 5, false),
        ] {
            assert_eq!(may_ask(applied, next), expected, "{applied} {next}");
        }
        assert!(!tracker.unregister_late(at_7));
        assert!(may_ask(7, 8));
        assert!(!tracker.unregister_late(again_at_7));
        assert!(!may_ask(7, 8) && may_ask(0, 1));
        assert!(!tracker.unregister_late(at_0) && !tracker.unregister(eager));
        assert!(!may_ask(0, 1) && first.of(KeyspaceId(1)).is_none());
        assert_eq!(tracker.oldest(), (None, 0));
    }

    /// What a snapshot held came back when a thread woke up for another reason, seconds later.
    #[test]
    fn the_snapshot_that_was_waited_for_says_so_when_it_goes() {
        let snapshot_tracker = SnapshotTracker::default();
        let mut snapshots = Vec::new();
        for seq in [5, 7, 9] {
            snapshot_tracker.publish(SeqNo(seq));
            snapshots.push(snapshot_tracker.register());
        }
        snapshot_tracker.publish(SeqNo(20));
        assert!(snapshot_tracker.await_release(SeqNo(5)));
        // Two wait; the one that is woken first asks again, as the other does.
        assert!(!snapshot_tracker.await_release(SeqNo(12)));
        assert!(!snapshot_tracker.await_release(SeqNo(8)));
        let [five, seven, nine] = snapshots[..] else {
            unreachable!("there are three")
        };
        assert!(!snapshot_tracker.unregister(five));
        assert!(snapshot_tracker.unregister(seven));
        assert!(!snapshot_tracker.await_release(SeqNo(12)));
        assert!(snapshot_tracker.unregister(nine));
        assert!(snapshot_tracker.await_release(SeqNo(12)));
        let seq = snapshot_tracker.register();
        assert!(!snapshot_tracker.unregister(seq), "nothing waits");
    }

    #[derive(Debug)]
    struct Empty;

    impl ReadView for Empty {
        fn get(&self, _: &[u8], _: &mut dyn FnMut(&[u8])) -> Result<bool> {
            Ok(false)
        }

        fn pieces(self: Arc<Self>, _: &KeyRange, _: usize) -> Result<Vec<Piece>> {
            Ok(Vec::new())
        }

        fn cursor(self: Arc<Self>) -> Box<dyn Cursor> {
            unreachable!("the test reads no entries")
        }
    }

    #[test]
    fn a_view_is_handed_to_those_that_see_the_last_operation_and_not_the_next() {
        let tracker = SnapshotTracker::default();
        let registered = [4, 5, 7, 8, 9].map(|seq| tracker.register_late(SeqNo(seq)));
        let (registered, snapshots): (Vec<_>, Vec<_>) = registered.into_iter().unzip();
        let view: Arc<dyn ReadView> = Arc::new(Empty);
        tracker.hand_over(KeyspaceId(1), SeqNo(5), SeqNo(8), &view);
        let has = |keyspace| {
            let handed = snapshots.iter();
            handed
                .map(|handed| handed.of(KeyspaceId(keyspace)).is_some())
                .collect::<Vec<_>>()
        };
        assert_eq!(has(1), [false, true, true, false, false]);
        assert_eq!(has(2), [false; 5]);
        drop(snapshots);
        for at in registered {
            assert!(Arc::strong_count(&view) == 3 || at.seq.0 > 5);
            let _ = tracker.unregister_late(at);
        }
        assert_eq!(Arc::strong_count(&view), 1);
    }

    /// Each first read of a keyspace looked through all trees that had changed since the snapshot.
    #[test]
    fn a_view_of_one_of_many_changed_trees_is_found_with_few_comparisons() {
        const COUNT: usize = 1000;
        let keyspaces = || (0..COUNT as u32).map(KeyspaceId);
        let tracker = SnapshotTracker::default();
        let (registered, handed) = tracker.register_late(SeqNo(5));
        let views: Vec<Arc<dyn ReadView>> = keyspaces().map(|_| Arc::new(Empty) as _).collect();
        let compared = comparisons_of(|| {
            for (keyspace, view) in keyspaces().zip(&views) {
                assert!(handed.of(keyspace).is_none());
                tracker.hand_over(keyspace, SeqNo(5), SeqNo(6), view);
            }
        });
        assert!((COUNT..8 * COUNT).contains(&compared), "{compared}");
        let compared = comparisons_of(|| {
            assert!(keyspaces().all(|keyspace| handed.of(keyspace).is_some()));
        });
        assert!((COUNT..4 * COUNT).contains(&compared), "{compared}");
        assert!(views.iter().all(|view| Arc::strong_count(view) == 2));
        assert!(handed.of(KeyspaceId(COUNT as u32)).is_none());
        let _ = tracker.unregister_late(registered);
    }

    /// A later snapshot at the number of an older one has its own time.
    #[test]
    fn the_time_of_the_oldest_snapshot_is_what_counts() {
        let clock = ManualClock::new();
        let store_clock = StoreClock::new(Arc::new(clock.clone()));
        let snapshot_tracker = SnapshotTracker::with_clock(Arc::new(store_clock));
        let tick = || clock.advance(Duration::from_millis(10));
        tick();
        assert_eq!(snapshot_tracker.live().time_ms, 10);
        let a = snapshot_tracker.register();
        tick();
        let b = snapshot_tracker.register();
        tick();
        assert_eq!((a.seq, a.time_ms, b.time_ms), (b.seq, 10, 20));
        assert_eq!(snapshot_tracker.live().time_ms, 10);
        let _ = snapshot_tracker.unregister(a);
        assert_eq!(snapshot_tracker.live().time_ms, 20);
        let _ = snapshot_tracker.unregister(b);
        assert_eq!(snapshot_tracker.oldest_time_ms(), 30);
    }
}
