//! Whether pages are likely to be in memory.
//!
//! A page that has to come from a device is asked for as a whole before it is read. For one that is
//! in memory that is a system call for nothing, and costs as much as a search in a leaf. Only the
//! operating system knows which of the two it is, so it is asked now and then: while it has what is
//! wanted, no page is asked for, and after one that it does not have, many are.

use std::sync::atomic::{AtomicU64, Ordering};

use super::sharded::ShardedCounter;

/// Pages in doubt after one that was not in memory.
const DOUBTED_PAGES: u64 = 1024;

/// Whether pages are likely to be in memory.
///
/// Thread-safe. Threads that meet here may lose some of each other's doubts.
#[derive(Debug)]
pub(crate) struct Residency {
    pages: ShardedCounter,
    /// A thread looks each time it has come to so many pages.
    between_looks: u64,
    /// Pages that are yet in doubt.
    doubted: AtomicU64,
}

impl Residency {
    /// A thread asks the system each time it has come to so many pages.
    pub(crate) fn new(between_looks: u64) -> Self {
        Self {
            pages: ShardedCounter::default(),
            between_looks,
            doubted: AtomicU64::new(DOUBTED_PAGES),
        }
    }

    /// True if the next page to be read may not be in memory, as far as is known without a look.
    #[inline]
    pub(crate) fn has_doubts(&self) -> bool {
        self.doubted.load(Ordering::Relaxed) > 0
    }

    /// A page that will be read was found not to be in memory.
    pub(crate) fn doubt(&self) {
        self.doubted.store(DOUBTED_PAGES, Ordering::Relaxed);
    }

    /// True if the page that is about to be read may not be in memory. `look` finds out, at the
    /// price of a system call, if the system can tell.
    #[inline]
    pub(crate) fn is_in_doubt(&self, look: impl FnOnce() -> Option<bool>) -> bool {
        let pages = self.pages.add_to_shard(1);
        let looks = pages.is_multiple_of(self.between_looks);
        if looks && look() != Some(true) {
            self.doubt();
            return true;
        }
        let doubted = self.doubted.load(Ordering::Relaxed);
        if doubted > 0 {
            self.doubted.store(doubted - 1, Ordering::Relaxed);
        }
        doubted > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_that_is_elsewhere_puts_those_after_it_in_doubt() {
        let residency = Residency::new(16);
        let doubted = |answer, count: u64| {
            let is_in_doubt = |_: &u64| residency.is_in_doubt(|| answer);
            (0..count).filter(is_in_doubt).count() as u64
        };
        // At first nothing is known.
        assert_eq!(doubted(Some(true), 3 * DOUBTED_PAGES), DOUBTED_PAGES);
        assert_eq!(doubted(Some(true), 10_000), 0);
        // It takes a look to find out.
        let late = 15;
        assert_eq!(doubted(Some(false), 10_000) + late, 10_000);
        assert!(doubted(Some(true), 10_000) <= DOUBTED_PAGES);
        assert_eq!(doubted(None, 10_000) + late, 10_000);
        assert!(residency.has_doubts());
        assert!(doubted(Some(true), 10_000) <= DOUBTED_PAGES);
        assert!(!residency.has_doubts());
        residency.doubt();
        assert!(residency.has_doubts());
    }
}
