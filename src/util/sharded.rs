//! A counter that is cheap to count with, and the shards that threads spread over.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Shards of a counter, or of whatever threads should not share: a power of two. With more threads
/// than this, some share a shard.
pub(crate) const SHARDS: usize = 16;

/// A counter for hot paths of many threads.
///
/// Each thread adds to a shard of its own as long as there are no more than 16 threads, so that
/// threads that count do not take a cache line from one another. Adding costs one uncontended
/// atomic addition; reading the sum touches all shards.
///
/// Thread-safe. A sum that is taken while others add has every addition that happened before, and
/// some, none or all of those that run meanwhile.
#[derive(Debug, Default)]
pub(crate) struct ShardedCounter {
    shards: [Shard; SHARDS],
}

/// One thread's part, in a cache line of its own; of two, since processors fetch lines in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard(AtomicU64);

/// The shard that the calling thread counts in. Threads take the shards in turn.
#[inline]
pub(crate) fn shard_of_thread() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static SHARD: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    SHARD.with(|shard| {
        if shard.get() == usize::MAX {
            shard.set(NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS);
        }
        shard.get()
    })
}

impl ShardedCounter {
    /// Adds `n`.
    #[inline]
    pub(crate) fn add(&self, n: u64) {
        self.add_to_shard(n);
    }

    /// Adds `n`; returns what the calling thread's shard has had added so far.
    #[inline]
    pub(crate) fn add_to_shard(&self, n: u64) -> u64 {
        let shard = &self.shards[shard_of_thread()].0;
        shard.fetch_add(n, Ordering::Relaxed) + n
    }

    /// What was added so far.
    pub(crate) fn sum(&self) -> u64 {
        self.shards
            .iter()
            .map(|shard| shard.0.load(Ordering::Relaxed))
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sharded_counter_loses_nothing() {
        let counter = ShardedCounter::default();
        assert_eq!(counter.sum(), 0);
        counter.add(5);
        // More threads than shards, so that some share one.
        std::thread::scope(|scope| {
            for thread in 0..2 * SHARDS as u64 {
                let counter = &counter;
                scope.spawn(move || (0..100).for_each(|_| counter.add(thread)));
            }
        });
        let threads = 2 * SHARDS as u64;
        assert_eq!(counter.sum(), 5 + 100 * threads * (threads - 1) / 2);
    }

    #[test]
    fn shards_do_not_share_cache_lines() {
        assert_eq!(size_of::<ShardedCounter>(), SHARDS * 128);
        assert_eq!(align_of::<ShardedCounter>(), 128);
    }
}
