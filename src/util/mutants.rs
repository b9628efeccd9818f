//! Faults planted on purpose, to measure whether the tests have teeth.
//!
//! [`planted`] is the constant `false` in every ordinary build. Built with
//! `RUSTFLAGS="--cfg hedgerow_teeth"`, it is true in a process whose environment variable
//! `HEDGEROW_BUG` has that name. `.ci/teeth` plants one fault at a time, runs the suites, and prints
//! which fault was caught; a fault that nothing catches shows a hole in the tests.
//!
//! A planted fault stands where a tired programmer would have made it, and is as small as that
//! mistake would have been. docs/testing.md lists them.

/// True if the fault of this name is planted in this process.
#[inline(always)]
pub(crate) fn planted(name: &str) -> bool {
    cfg!(hedgerow_teeth) && is_named(name)
}

fn is_named(name: &str) -> bool {
    static PLANTED: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    PLANTED
        .get_or_init(|| std::env::var("HEDGEROW_BUG").ok())
        .as_deref()
        == Some(name)
}
