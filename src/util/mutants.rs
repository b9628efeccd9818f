//! Mutants: faults that are planted on purpose, to measure what the tests find.
//!
//! [`mutated!`] is the constant `false` in every ordinary build. Built with
//! `RUSTFLAGS="--cfg hedgerow_mutants"`, it is true in a process whose environment variable
//! `HEDGEROW_MUTANT` has that name. `.ci/mutants` plants one fault at a time, runs the suites, and
//! prints which one caught it; a mutant that survives shows a hole in the tests.
//!
//! A mutant stands where a tired programmer would have made the mistake, is as small as that
//! mistake would have been, and takes one line. docs/testing.md lists them.

/// `mutated!("name")` is true if the mutant of that name is planted in this process.
/// `mutated!("name", wrong, right)` is `wrong` then, and `right` otherwise.
macro_rules! mutated {
    ($name:literal) => {
        cfg!(hedgerow_mutants) && $crate::util::mutants::is_planted($name)
    };
    ($name:literal, $wrong:expr, $right:expr $(,)?) => {
        if $crate::util::mutants::mutated!($name) {
            $wrong
        } else {
            $right
        }
    };
}

pub(crate) use mutated;

/// True if the mutant of this name is planted in this process. Use [`mutated!`].
pub(crate) fn is_planted(name: &str) -> bool {
    static PLANTED: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    PLANTED
        .get_or_init(|| std::env::var("HEDGEROW_MUTANT").ok())
        .as_deref()
        == Some(name)
}
