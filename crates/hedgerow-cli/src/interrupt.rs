//! Ctrl-C and termination, for the commands that have something to put in order: `load` says how
//! much was committed, `compare` removes its stores.
//!
//! The first signal asks their loops to stop (`hedgerow_bench::stop`); the second ends the process
//! at once. Every other command just ends: no store is harmed by that.

use hedgerow_bench::stop;

use crate::failure::Exit;

/// Installs the handler, from now on. Without one a signal ends the process as usual, so failing to
/// install it is no reason not to run.
pub fn install() {
    let _ = ctrlc::set_handler(|| {
        if stop::request() {
            std::process::exit(Exit::Interrupted as i32);
        }
    });
}
