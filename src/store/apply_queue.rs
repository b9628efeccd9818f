//! Commits of one keyspace are applied by one thread at a time, in their order, and no thread waits
//! for that with a lock.
//!
//! The first thread that comes applies its commit. Those that come meanwhile leave theirs here, and
//! the first applies them, too, before it goes. A thread that waited for a lock instead would keep
//! the log lock meanwhile, which keeps the order; and as soon as it slept, each commit of the store
//! would wait for a thread to wake up.

use std::collections::VecDeque;
use std::sync::Arc;

use super::commit_values::PlacedValues;
use super::handover::Handover;
use crate::kv::Batch;
use crate::types::SeqNo;
use crate::util::mutants::mutated;
use crate::util::sync::{Mutex, thread};

/// A thread applies so many commits of others, then one of those goes on.
const MOST_OF_OTHERS: u32 = 64;

/// A commit that another thread applies.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) batch: Batch,
    /// References to values that are stored apart.
    pub(super) values: PlacedValues,
    pub(super) first: SeqNo,
    pub(super) last: SeqNo,
    pub(super) handover: Handover,
}

impl Waiting {
    /// A commit of this thread.
    pub(super) fn new(batch: Batch, values: PlacedValues, first: SeqNo, last: SeqNo) -> Arc<Self> {
        Arc::new(Self {
            batch,
            values,
            first,
            last,
            handover: Handover::new(),
        })
    }
}

/// The commits of a keyspace that are logged and not applied, unless they wait for the log to be
/// synced.
#[derive(Debug, Default)]
pub(super) struct ApplyQueue(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// A thread applies commits.
    is_busy: bool,
    waiting: VecDeque<Arc<Waiting>>,
}

impl ApplyQueue {
    /// Enters, to apply a commit and then what [`ApplyQueue::next`] gives; or leaves what `commit`
    /// makes to the thread that has entered. Called under the log lock, which keeps the order.
    pub(super) fn enter_or(&self, commit: impl FnOnce() -> Arc<Waiting>) -> Option<Arc<Waiting>> {
        let mut state = self.0.lock();
        if state.is_busy && !mutated!("two-threads-apply-to-a-keyspace") {
            let waiting = commit();
            state.waiting.push_back(Arc::clone(&waiting));
            return Some(waiting);
        }
        state.is_busy = true;
        None
    }

    /// Enters when the thread that has entered is gone. All that it had to apply was published.
    pub(super) fn enter(&self) {
        loop {
            let mut state = self.0.lock();
            if !std::mem::replace(&mut state.is_busy, true) {
                return;
            }
            drop(state);
            thread::yield_now();
        }
    }

    /// The next commit for the thread that has entered, which has applied `count` of others. None
    /// if it is done here: there is no other, or another thread goes on.
    pub(super) fn next(&self, count: u32) -> Option<Arc<Waiting>> {
        let mut state = self.0.lock();
        match state.waiting.front() {
            Some(next) if count >= MOST_OF_OTHERS => {
                next.handover.give_turn();
                return None;
            }
            Some(_) => {}
            None => state.is_busy = false,
        }
        state.waiting.pop_front()
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;
    use crate::store::handover::Handed;

    fn commit(n: u64) -> Arc<Waiting> {
        Waiting::new(Batch::new(), PlacedValues::default(), SeqNo(n), SeqNo(n))
    }

    #[test]
    fn commits_are_given_in_order_and_after_some_another_thread_goes_on() {
        let queue = ApplyQueue::default();
        assert!(queue.enter_or(|| commit(0)).is_none());
        let wait = |n| queue.enter_or(|| commit(n)).expect("it is busy");
        let commits: Vec<_> = (1..=100).map(wait).collect();
        for (count, n) in (0..MOST_OF_OTHERS).zip(1..) {
            assert_eq!(queue.next(count).unwrap().first, SeqNo(n));
        }
        assert!(queue.next(MOST_OF_OTHERS).is_none());
        let next = &commits[MOST_OF_OTHERS as usize];
        assert_eq!(next.handover.wait(), Handed::Turn);
        // Its thread begins with its own.
        for commit in &commits[MOST_OF_OTHERS as usize..] {
            assert_eq!(queue.next(0).unwrap().first, commit.first);
        }
        assert!(queue.next(0).is_none());
        // No thread is here any more.
        queue.enter();
        assert!(queue.next(0).is_none());
    }
}
