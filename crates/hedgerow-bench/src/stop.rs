//! The request to stop, for runs that take long.
//!
//! A program that measures is asked to stop by a signal, which concerns the whole process: so the
//! request is one flag of the process, and what runs long looks at it every few milliseconds, as a
//! rule every thousand operations. The library installs no signal handler; the program does.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, Result};

static REQUESTED: AtomicBool = AtomicBool::new(false);

/// Asks everything that runs to stop as soon as it can. Returns true if that was asked before: then
/// the user has no patience left. Only sets a flag, so it may be called in a signal handler.
pub fn request() -> bool {
    REQUESTED.swap(true, Ordering::Relaxed)
}

/// Fails once the process was asked to stop.
///
/// # Errors
///
/// [`Error::Interrupted`].
pub fn check() -> Result<()> {
    if REQUESTED.load(Ordering::Relaxed) {
        return Err(Error::Interrupted);
    }
    Ok(())
}
