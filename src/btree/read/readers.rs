//! Which generations of the file's tree readers may look at, so that their pages are kept.
//!
//! A page is part of the file's tree from the checkpoint that wrote it, its *birth*, up to the one
//! that freed it. A reader needs it only if it may look at a tree in between. So a reader that
//! sleeps keeps the pages of its own trees, and not those that came and went while it slept.
//!
//! # Why a view's span ends where it does
//!
//! A view is taken of a tree in memory over the file's tree of generation `g`. The end of a
//! checkpoint puts pages in the place of nodes in memory, also in nodes that the view shares with
//! the current tree. That happens for the last time at the end of the first checkpoint that freezes
//! the tree after the view was taken: from then on each slot that they share refers to a page, and
//! the writer stores into no slot of an older generation (BC1 in
//! [`crate::btree::memory::children`]). That checkpoint is number `g + 1`, or `g + 2` if number
//! `g + 1` was under way when the view was taken.

use std::collections::BTreeMap;

use parking_lot::Mutex;

/// Generations of the file's tree, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Span {
    pub(crate) first: u64,
    pub(crate) last: u64,
}

impl Span {
    /// True if a page that was written by checkpoint `birth` and freed by checkpoint `freed_by` is
    /// part of one of these trees.
    pub(crate) fn needs(self, birth: u64, freed_by: u64) -> bool {
        birth <= self.last && freed_by > self.first
    }
}

/// The readers that keep pages. Thread-safe; locked for moments.
#[derive(Debug, Default)]
pub(crate) struct Readers(Mutex<BTreeMap<Span, usize>>);

impl Readers {
    pub(crate) fn add(&self, span: Span) {
        *self.0.lock().entry(span).or_insert(0) += 1;
    }

    pub(crate) fn remove(&self, span: Span) {
        let mut readers = self.0.lock();
        if let Some(count) = readers.get_mut(&span) {
            *count -= 1;
            if *count == 0 {
                readers.remove(&span);
            }
        }
    }

    /// What they may look at, each span once.
    pub(crate) fn spans(&self) -> Vec<Span> {
        self.0.lock().keys().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_needs_what_is_in_one_of_its_trees() {
        let span = Span { first: 5, last: 6 };
        assert!(span.needs(0, 6) && span.needs(5, 6) && span.needs(6, 7) && span.needs(6, 99));
        assert!(!span.needs(0, 5) && !span.needs(4, 5) && !span.needs(7, 8));
    }

    #[test]
    fn equal_spans_are_counted() {
        let readers = Readers::default();
        let (a, b) = (Span { first: 1, last: 2 }, Span { first: 1, last: 3 });
        readers.add(a);
        readers.add(b);
        readers.add(a);
        readers.remove(a);
        assert_eq!(readers.spans(), [a, b]);
        readers.remove(a);
        assert_eq!(readers.spans(), [b]);
    }
}
