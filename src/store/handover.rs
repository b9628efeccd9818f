//! A commit whose thread waits for another thread to end it, or for its turn to do so itself.

use crate::error::{Error, Result};
use crate::util::patience::Patience;
use crate::util::sync::atomic::{AtomicU8, Ordering};
use crate::util::sync::thread::Thread;
use crate::util::sync::{Mutex, thread};

const WAITING: u8 = 0;
const HAS_TURN: u8 = 1;
const DONE: u8 = 2;

/// What the thread of a commit waits for. Made by that thread.
#[derive(Debug)]
pub(super) struct Handover {
    owner: Thread,
    state: AtomicU8,
    error: Mutex<Option<Error>>,
}

/// How a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Handed {
    /// The thread is to do it, and what waits behind it.
    Turn,
    /// It was done.
    Done,
}

impl Handover {
    pub(super) fn new() -> Self {
        Self {
            owner: thread::current(),
            state: AtomicU8::new(WAITING),
            error: Mutex::new(None),
        }
    }

    /// Waits until another thread has done it, or gives its turn away.
    pub(super) fn wait(&self) -> Handed {
        let mut patience = Patience::default();
        loop {
            match self.state.load(Ordering::Acquire) {
                WAITING if patience.wait() => {}
                WAITING => thread::park(),
                HAS_TURN => return Handed::Turn,
                _ => return Handed::Done,
            }
        }
    }

    /// The owner is to go on.
    pub(super) fn give_turn(&self) {
        self.tell(HAS_TURN);
    }

    /// Says how it ended, later to be told.
    pub(super) fn note(&self, error: Option<Error>) {
        *self.error.lock() = error;
    }

    /// It has ended, as was noted.
    pub(super) fn finish(&self) {
        self.tell(DONE);
    }

    /// How it ended.
    pub(super) fn result(&self) -> Result<()> {
        self.error.lock().take().map_or(Ok(()), Err)
    }

    fn tell(&self, state: u8) {
        self.state.store(state, Ordering::Release);
        self.owner.unpark();
    }
}
