//! Futures that wait until commits are durable.
//!
//! Their wakers are code of the user. One may commit and wait for room in the log, close the store
//! while another thread does, take long, or panic. So no thread that the store needs calls them,
//! and no lock is held: they have a thread of their own, which begins when the first of them waits
//! and ends when the store is closed. Closing does not wait for it.

use std::collections::BTreeMap;
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
    /// By the number that they wait for.
    waiting: BTreeMap<SeqNo, Vec<Waker>>,
    /// To the thread that wakes them.
    thread: Option<Sender<Vec<Waker>>>,
    is_closed: bool,
}

impl DurableWaiters {
    /// Has `waker` woken once the log is durable up to `seq`. An error if there is no thread for
    /// that. Nothing is woken any more once this is closed.
    pub(super) fn add(&self, seq: SeqNo, waker: &Waker) -> io::Result<()> {
        let mut state = self.state.lock();
        if state.is_closed {
            return Ok(());
        }
        // A task that looks again and again has one waker.
        let of_seq = state.waiting.get(&seq);
        if of_seq.is_some_and(|of_seq| of_seq.iter().any(|it| it.will_wake(waker))) {
            return Ok(());
        }
        if state.thread.is_none() {
            let (sender, receiver) = channel();
            std::thread::Builder::new()
                .name("hedgerow-wakers".to_owned())
                .spawn(move || wake_what_comes(&receiver))?;
            state.thread = Some(sender);
        }
        state.waiting.entry(seq).or_default().push(waker.clone());
        Ok(())
    }

    /// Wakes those that wait for no more than `seq`.
    pub(super) fn wake_upto(&self, seq: SeqNo) {
        self.state.lock().wake(Some(seq));
    }

    /// Wakes all of them.
    pub(super) fn wake_all(&self) {
        self.state.lock().wake(None);
    }

    /// Wakes all of them, and has the thread end. The store is closed.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        state.is_closed = true;
        state.wake(None);
        state.thread = None;
    }
}

impl State {
    /// Those that wait for no more than `upto`, or all.
    fn wake(&mut self, upto: Option<SeqNo>) {
        let later = upto.map(|upto| self.waiting.split_off(&upto.next()));
        let due = std::mem::replace(&mut self.waiting, later.unwrap_or_default());
        let due: Vec<Waker> = due.into_values().flatten().collect();
        if due.is_empty() {
            return;
        }
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
        let known: usize = waiters.state.lock().waiting.values().map(Vec::len).sum();
        assert_eq!(known, 2);
        waiters.close();
        waiters.add(SeqNo(7), &waker).unwrap();
        assert!(waiters.state.lock().waiting.is_empty());
    }
}
