//! Waiting for what another thread is about to do.

use crate::util::sync::{hint, thread};

/// Looks before the thread gives its processor away, and then before it is to sleep. The first take
/// about as long as a commit.
const SPINS: u32 = 100;
const YIELDS: u32 = 4;

/// How long a thread goes on looking before it sleeps.
#[derive(Debug, Default)]
pub(crate) struct Patience {
    looks: u32,
}

impl Patience {
    /// Lets a moment pass before the next look. False once it is time to sleep: at once where
    /// interleavings are tested, since time does not pass there.
    pub(crate) fn wait(&mut self) -> bool {
        if cfg!(shuttle) || self.looks == SPINS + YIELDS {
            return false;
        }
        match self.looks < SPINS {
            true => hint::spin_loop(),
            false => thread::yield_now(),
        }
        self.looks += 1;
        true
    }
}
