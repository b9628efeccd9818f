//! Whether pages are likely to be in memory.
//!
//! A page that has to come from a device is asked for as a whole before it is read. For one that is
//! in memory that is a system call for nothing, and costs as much as a search in a leaf. Only the
//! operating system knows which of the two it is, so every sixteenth time it is asked: while it has
//! what is wanted, no page is asked for, and after one that it does not have, many are.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::util::sharded::ShardedCounter;

/// A thread looks each time it has come to so many pages.
const PAGES_BETWEEN_LOOKS: u64 = 16;

/// Pages in doubt after one that was not in memory.
const DOUBTED_PAGES: u64 = 1024;

/// Whether pages are likely to be in memory.
///
/// Thread-safe. Threads that meet here may lose some of each other's doubts.
#[derive(Debug)]
pub(super) struct Residency {
    pages: ShardedCounter,
    /// Pages that are yet in doubt.
    doubted: AtomicU64,
}

impl Default for Residency {
    fn default() -> Self {
        Self {
            pages: ShardedCounter::default(),
            doubted: AtomicU64::new(DOUBTED_PAGES),
        }
    }
}

impl Residency {
    /// True if the page that is about to be read may not be in memory. `look` finds out, at the
    /// price of a system call, if the system can tell.
    #[inline]
    pub(super) fn is_in_doubt(&self, look: impl FnOnce() -> Option<bool>) -> bool {
        let pages = self.pages.add_to_shard(1);
        let looks = pages.is_multiple_of(PAGES_BETWEEN_LOOKS);
        if looks && look() != Some(true) {
            self.doubted.store(DOUBTED_PAGES, Ordering::Relaxed);
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
        let residency = Residency::default();
        let doubted = |answer, count: u64| {
            let is_in_doubt = |_: &u64| residency.is_in_doubt(|| answer);
            (0..count).filter(is_in_doubt).count() as u64
        };
        // At first nothing is known.
        assert_eq!(doubted(Some(true), 3 * DOUBTED_PAGES), DOUBTED_PAGES);
        assert_eq!(doubted(Some(true), 10_000), 0);
        // It takes a look to find out.
        let late = PAGES_BETWEEN_LOOKS - 1;
        assert_eq!(doubted(Some(false), 10_000) + late, 10_000);
        assert!(doubted(Some(true), 10_000) <= DOUBTED_PAGES);
        assert_eq!(doubted(None, 10_000) + late, 10_000);
    }
}
