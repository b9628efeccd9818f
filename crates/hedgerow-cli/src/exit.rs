//! How the process ends: its exit codes, and the signal that asked for the end.

use std::sync::atomic::{AtomicI32, Ordering};

/// How a command ended. Programs may rely on the numbers (docs/cli.md).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Something went wrong.
    Error = 1,
    /// The command line or the arguments make no sense. clap exits with this number too.
    Usage = 2,
    /// `get` found no such key.
    NotFound = 3,
    /// `verify` found damage.
    Damage = 4,
    /// The terminal went away: 128 + SIGHUP, as shells count.
    HungUp = 129,
    /// Interrupted: 128 + SIGINT.
    Interrupted = 130,
    /// Asked to end: 128 + SIGTERM.
    Terminated = 143,
}

/// SIGHUP.
pub const HANGUP: i32 = 1;
/// SIGINT.
pub const INTERRUPT: i32 = 2;
/// SIGTERM.
pub const TERMINATE: i32 = 15;

/// The first signal that arrived; 0 if none has.
static SIGNAL: AtomicI32 = AtomicI32::new(0);

/// Notes that a signal arrived. Returns true if it is the first.
pub fn note_signal(signal: i32) -> bool {
    SIGNAL
        .compare_exchange(0, signal, Ordering::Relaxed, Ordering::Relaxed)
        .is_ok()
}

/// How a command that was interrupted ends: the exit code is that of the first signal.
pub fn interrupted() -> Exit {
    match SIGNAL.load(Ordering::Relaxed) {
        HANGUP => Exit::HungUp,
        TERMINATE => Exit::Terminated,
        _ => Exit::Interrupted,
    }
}
