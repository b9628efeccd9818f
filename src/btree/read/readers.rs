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

    /// What they may look at.
    pub(crate) fn spans(&self) -> Spans {
        self.0.lock().keys().copied().collect()
    }
}

/// Spans of readers at one moment.
#[derive(Debug, Default)]
pub(crate) struct Spans {
    /// The first generations, rising, each with the latest that a span up to here ends with.
    reach: Vec<Span>,
    /// The earliest that one ends with.
    first_end: Option<u64>,
}

impl FromIterator<Span> for Spans {
    /// Of spans that rise.
    fn from_iter<T: IntoIterator<Item = Span>>(spans: T) -> Self {
        let mut all = Self::default();
        for span in spans {
            let first_end = all.first_end.map_or(span.last, |end| end.min(span.last));
            all.first_end = Some(first_end);
            let before = all.reach.last().map_or(0, |before| before.last);
            let last = before.max(span.last);
            all.reach.push(Span { last, ..span });
        }
        all
    }
}

impl Spans {
    /// True if one of them [needs](Span::needs) such a page. Looks at few of them: a checkpoint
    /// asks for each group of freed pages, and there may be as many snapshots.
    pub(crate) fn needs(&self, birth: u64, freed_by: u64) -> bool {
        let begun = self.reach.partition_point(|span| {
            looked_at();
            span.first < freed_by
        });
        // Of those that begin before it was freed, one ends last.
        let last = begun.checked_sub(1).map(|last| self.reach[last]);
        last.is_some_and(|span| span.needs(birth, freed_by))
    }

    /// True if one of them ends before `generation`.
    pub(crate) fn any_ends_before(&self, generation: u64) -> bool {
        self.first_end.is_some_and(|end| end < generation)
    }
}

/// A span was looked at.
#[inline]
fn looked_at() {
    #[cfg(test)]
    tests::LOOKS.with(|looks| looks.set(looks.get() + 1));
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::format::checksum::mix64;

    thread_local! {
        /// Spans that this thread has looked at.
        pub(super) static LOOKS: Cell<u64> = const { Cell::new(0) };
    }

    /// Each group of freed pages was compared with each span: with 300 snapshots a checkpoint
    /// looked at 90,000 of them.
    #[test]
    fn a_group_of_freed_pages_is_compared_with_few_of_many_spans() {
        for (count, looks_max) in [(30, 6), (300, 10)] {
            let spans: Spans = (0..count)
                .map(|first| Span {
                    first,
                    last: first + 1,
                })
                .collect();
            LOOKS.set(0);
            for group in 0..count {
                assert!(spans.needs(group, group + 1));
            }
            let looks = LOOKS.get();
            assert!(looks <= count * looks_max, "{looks} for {count}");
        }
    }

    #[test]
    fn many_spans_need_what_one_of_them_needs() {
        for seed in 0..200_u64 {
            let random = |n: u64, below: u64| mix64(seed << 32 | n) % below;
            let readers = Readers::default();
            let mut all = Vec::new();
            for n in 0..random(0, 12) {
                let first = random(3 * n + 1, 20);
                let last = first + random(3 * n + 2, 9);
                let span = Span { first, last };
                readers.add(span);
                all.push(span);
            }
            let spans = readers.spans();
            for birth in 0..30 {
                let ends_before = all.iter().any(|span| span.last < birth);
                assert_eq!(spans.any_ends_before(birth), ends_before, "{all:?}");
                for freed_by in birth..30 {
                    let is_needed = all.iter().any(|span| span.needs(birth, freed_by));
                    assert_eq!(spans.needs(birth, freed_by), is_needed, "{all:?}");
                }
            }
        }
    }

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
        readers.remove(b);
        assert!(readers.spans().needs(0, 2));
        readers.remove(a);
        assert!(!readers.spans().needs(0, 2));
    }
}
