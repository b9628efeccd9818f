//! Futures that wait until commits are durable.
//!
//! Their wakers are code of the user. One may commit and wait for room in the log, close the store
//! while another thread does, take long, or panic. So no thread that the store needs calls them,
//! and no lock is held: they have a thread of their own, which begins when the first of them waits
//! and ends when the store is closed. Closing does not wait for it.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::task::Waker;

use parking_lot::Mutex;

use crate::types::SeqNo;
use crate::util::mutants::mutated;

/// The futures of a store.
#[derive(Debug, Default)]
pub(super) struct DurableWaiters {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    waiting: Vec<(SeqNo, Waker)>,
    /// To the thread that wakes them.
    thread: Option<Sender<Vec<Waker>>>,
    is_closed: bool,
}

impl DurableWaiters {
    /// Has `waker` woken once the log is durable up to `seq`. An error if there is no thread for
    /// that. Nothing is woken any more once this is closed.
    pub(super) fn add(&self, seq: SeqNo, waker: &Waker) -> io::Result<()> {
        let mut state = self.state.lock();
        // A task that looks again and again has one waker.
        let is_known = |(upto, known): &(SeqNo, Waker)| *upto == seq && known.will_wake(waker);
        if state.is_closed || state.waiting.iter().any(is_known) {
            return Ok(());
        }
        if state.thread.is_none() {
            let (sender, receiver) = channel();
            std::thread::Builder::new()
                .name("hedgerow-wakers".to_owned())
                .spawn(move || wake_what_comes(&receiver))?;
            state.thread = Some(sender);
        }
        state.waiting.push((seq, waker.clone()));
        Ok(())
    }

    /// Wakes those that wait for no more than `seq`.
    pub(super) fn wake_upto(&self, seq: SeqNo) {
        self.state.lock().wake(|upto| upto <= seq);
    }

    /// Wakes all of them.
    pub(super) fn wake_all(&self) {
        self.state.lock().wake(|_| true);
    }

    /// Wakes all of them, and has the thread end. The store is closed.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        state.is_closed = true;
        state.wake(|_| true);
        state.thread = None;
    }
}

impl State {
    fn wake(&mut self, is_due: impl Fn(SeqNo) -> bool) {
        if self.waiting.is_empty() {
            return;
        }
        let (due, later): (Vec<_>, _) = self.waiting.drain(..).partition(|(upto, _)| is_due(*upto));
        self.waiting = later;
        let due = due.into_iter().map(|(_, waker)| waker).collect();
        if let Some(thread) = &self.thread {
            // It takes what comes until it is told to end.
            let _ = thread.send(due);
        }
    }
}

fn wake_what_comes(wakers: &Receiver<Vec<Waker>>) {
    for waker in wakers.iter().flatten() {
        let woken = catch_unwind(AssertUnwindSafe(|| waker.wake()));
        if woken.is_err() && mutated!("panic-of-a-waker-leaves-the-others-asleep") {
            return;
        }
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use std::sync::Arc;
    use std::task::Wake;

    use super::*;
    use crate::testing::Woken;

    struct Panics;

    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            panic!("a waker's own fault");
        }
    }

    #[test]
    fn a_waker_that_panics_keeps_no_other_asleep() {
        let waiters = DurableWaiters::default();
        let woken = Arc::new(Woken::default());
        waiters
            .add(SeqNo(1), &Waker::from(Arc::new(Panics)))
            .unwrap();
        waiters
            .add(SeqNo(2), &Waker::from(Arc::clone(&woken)))
            .unwrap();
        waiters.wake_upto(SeqNo(1));
        waiters.wake_upto(SeqNo(2));
        woken.wait();
    }

    #[test]
    fn a_task_that_looks_again_waits_once() {
        let waiters = DurableWaiters::default();
        let waker = Waker::from(Arc::new(Woken::default()));
        for seq in [5, 5, 6, 5] {
            waiters.add(SeqNo(seq), &waker).unwrap();
        }
        assert_eq!(waiters.state.lock().waiting.len(), 2);
        waiters.close();
        waiters.add(SeqNo(7), &waker).unwrap();
        assert!(waiters.state.lock().waiting.is_empty());
    }
}
