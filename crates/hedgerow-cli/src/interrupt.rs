//! SIGINT, SIGTERM and SIGHUP: every command ends within a second, with the exit code of the
//! signal, whatever it is waiting for. One that the process was started to ignore, as `nohup` does
//! with SIGHUP, stays ignored on Linux; elsewhere that cannot be asked without `unsafe`, and it
//! ends the command like any other.
//!
//! Most commands end at once: no store is harmed by that. A command that has something to put in
//! order calls [`take_time`]: the first signal then asks its loops to stop
//! (`hedgerow_bench::stop`), and it ends by itself, as a rule within milliseconds. If it has not
//! after [`GRACE`], because it waits for a slow device or for the reader of its output, or if a
//! second signal arrives, the process is ended here: temporary stores are removed, and `load` still
//! says how much it had committed.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use hedgerow_bench::stop;

use crate::exit;
use crate::failure::Failure;
use crate::scratch;

/// What a command that takes its time has after the first signal. Less than a second, because
/// temporary stores are removed after it.
const GRACE: Duration = Duration::from_millis(700);

/// True if the command ends by itself after a signal.
static TAKES_TIME: AtomicBool = AtomicBool::new(false);
/// Records that `load` has committed, plus one; 0 for every other command.
static COMMITTED: AtomicU64 = AtomicU64::new(0);

/// Installs the handler, from now on; `json` is how failures are printed. Without a handler a
/// signal ends the process as usual, so failing to install it is no reason not to run.
#[cfg(unix)]
pub fn install(json: bool) {
    let mut wanted = vec![exit::INTERRUPT, exit::TERMINATE, exit::HANGUP];
    let ignored = ignored_at_start();
    wanted.retain(|signal| ignored >> (signal - 1) & 1 == 0);
    let Ok(mut signals) = signal_hook::iterator::Signals::new(wanted) else {
        return;
    };
    let _ = thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            for signal in signals.forever() {
                received(signal, json);
            }
        });
}

/// The signals that this process ignores before it installs a handler: bit `n - 1` is signal `n`.
#[cfg(unix)]
fn ignored_at_start() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mut masks = status
        .lines()
        .filter_map(|line| line.strip_prefix("SigIgn:"));
    let mask = masks
        .next()
        .map(|mask| u64::from_str_radix(mask.trim(), 16));
    mask.and_then(Result::ok).unwrap_or(0)
}

/// Installs the handler, from now on.
#[cfg(not(unix))]
pub fn install(json: bool) {
    let _ = ctrlc::set_handler(move || received(exit::INTERRUPT, json));
}

/// From now on the command looks at `hedgerow_bench::stop` and ends by itself after a signal.
pub fn take_time() {
    TAKES_TIME.store(true, Ordering::Relaxed);
}

/// Says how many records are committed, should the process be ended here.
pub fn committed(records: u64) {
    COMMITTED.store(records + 1, Ordering::Relaxed);
}

fn received(signal: i32, json: bool) {
    let first = exit::note_signal(signal);
    if !first || !TAKES_TIME.load(Ordering::Relaxed) {
        end_process(json);
    }
    stop::request();
    // On a thread of its own, so that a second signal is seen meanwhile.
    let waits = thread::Builder::new().spawn(move || {
        thread::sleep(GRACE);
        end_process(json);
    });
    if waits.is_err() {
        end_process(json);
    }
}

fn end_process(json: bool) -> ! {
    scratch::remove_all();
    let mut failure = Failure::new(exit::interrupted(), "interrupted");
    if let Some(records) = COMMITTED.load(Ordering::Relaxed).checked_sub(1) {
        failure = failure.after_commits(records);
    }
    let code = failure.exit as i32;
    failure.report(json);
    std::process::exit(code)
}
