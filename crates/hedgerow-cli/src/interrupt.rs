//! Ctrl-C and termination, for the commands that have something to put in order: `load` says how
//! much was committed, `compare` removes its stores.
//!
//! The first signal sets a flag that their loops look at; the second ends the process at once.
//! Every other command just ends: no store is harmed by that.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::failure::{Exit, Failure, Result};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Installs the handler, from now on. Without one a signal ends the process as usual, so failing to install it
/// is no reason not to run.
pub fn install() {
    let _ = ctrlc::set_handler(|| {
        if INTERRUPTED.swap(true, Ordering::Relaxed) {
            std::process::exit(Exit::Interrupted as i32);
        }
    });
}

/// Fails once a signal has come.
pub fn check() -> Result<()> {
    if INTERRUPTED.load(Ordering::Relaxed) {
        return Err(Failure::new(Exit::Interrupted, "interrupted"));
    }
    Ok(())
}
