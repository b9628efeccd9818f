//! How tests run: smaller under Miri, alone, and to their end.

use std::env;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

/// How much of `n` is done: under Miri, which is some hundred times slower, a part.
pub(crate) const fn much(n: u64, under_miri: u64) -> u64 {
    if cfg!(miri) { under_miri } else { n }
}

/// Tells the other threads of a test that it is over, also when the thread that holds this panics:
/// a scope waits for all its threads, so a failure would otherwise never be reported.
pub(crate) struct OverAtEnd<'a>(pub(crate) &'a AtomicBool);

impl Drop for OverAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs `test`, the body of the test called `name`, in a process of its own. Epochs belong to the
/// whole process: a pin of another test, whose thread has to wait for a processor, delays what this
/// one waits for.
pub(crate) fn alone(name: &str, test: impl FnOnce()) {
    const IS_ALONE: &str = "HEDGEROW_TEST_IS_ALONE";
    if env::var_os(IS_ALONE).is_some() {
        return test();
    }
    let child = Command::new(env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(IS_ALONE, "1")
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&child.stdout) + String::from_utf8_lossy(&child.stderr);
    assert!(child.status.success(), "{output}");
    assert!(output.contains("1 passed"), "no such test: {output}");
}
