//! Counted comparisons: a lookup among many is judged by its steps, not by its time.

use std::cell::Cell;

thread_local! {
    static COMPARED: Cell<usize> = const { Cell::new(0) };
}

/// Called by lookups for each key that they look at.
pub(crate) fn note_comparison() {
    COMPARED.set(COMPARED.get() + 1);
}

/// How many keys the lookups of `work` look at, on this thread.
pub(crate) fn comparisons_of(work: impl FnOnce()) -> usize {
    let before = COMPARED.get();
    work();
    COMPARED.get() - before
}
