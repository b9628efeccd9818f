//! Work on many keyspaces at once.
//!
//! A flush is mostly waiting for syncs: three or four of them, and half a dozen where it makes the
//! files of the keyspace. One after the other, a thousand keyspaces wait for thousands of syncs.
//! File systems serve those that wait at the same time with one write to the device.

use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::keyspaces::OpenKeyspace;
use super::shared::Shared;
use crate::error::Result;

/// Threads that flush at once at most, that of the caller included.
const FLUSHES_AT_ONCE: usize = 16;

/// For each thread that flushes so many files must be allowed to be open: it opens two.
const OPEN_FILES_PER_FLUSH: usize = 4;

impl Shared {
    /// Flushes all keyspaces; several at a time, in a store that has threads of its own. No more
    /// are begun after an error, which is that of the first of those that failed.
    pub(crate) fn flush_all(&self) -> Result<()> {
        self.flush_side_by_side(&self.keyspaces.all(), |open| self.flush(open))
    }

    /// Calls `flush` for each keyspace; several at a time, in a store that has threads of its own.
    /// No more are begun after an error, which is that of the first of those that failed.
    pub(super) fn flush_side_by_side(
        &self,
        keyspaces: &[Arc<OpenKeyspace>],
        flush: impl Fn(&OpenKeyspace) -> Result<()> + Sync,
    ) -> Result<()> {
        let is_due = |open: &&Arc<OpenKeyspace>| open.engine.oldest_unpersisted().is_some();
        let threads = match self.options.background_threads {
            0 => 1,
            _ => {
                let files = self.options.max_open_files / OPEN_FILES_PER_FLUSH;
                let most = files.clamp(1, FLUSHES_AT_ONCE);
                keyspaces.iter().filter(is_due).count().min(most)
            }
        };
        side_by_side(keyspaces, threads, |open| flush(open))
    }
}

/// Calls `act` for all `items` in turn, on so many threads. After an error no thread takes another
/// one; the error is that of the first item that has one.
fn side_by_side<T: Sync>(
    items: &[T],
    threads: usize,
    act: impl Fn(&T) -> Result<()> + Sync,
) -> Result<()> {
    let next = AtomicUsize::new(0);
    let work = || {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(at) else {
                return Ok(());
            };
            act(item).map_err(|error| {
                next.store(items.len(), Ordering::Relaxed);
                (at, error)
            })?;
        }
    };
    thread::scope(|scope| {
        let spawn = |_| {
            let named = thread::Builder::new().name("hedgerow-flush".to_owned());
            // Without it the others have more to do.
            named.spawn_scoped(scope, work).ok()
        };
        let helpers: Vec<_> = (1..threads).filter_map(spawn).collect();
        let own = work();
        let joined = helpers.into_iter().map(|helper| match helper.join() {
            Ok(outcome) => outcome,
            Err(panic) => resume_unwind(panic),
        });
        let failed = joined.chain([own]).filter_map(|outcome| outcome.err());
        match failed.min_by_key(|(at, _)| *at) {
            Some((_, error)) => Err(error),
            None => Ok(()),
        }
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::error::Error;

    #[test]
    fn everything_is_done_once_and_the_first_error_counts() {
        for threads in [0, 1, 4] {
            let items: Vec<usize> = (0..100).collect();
            let done = Mutex::new(Vec::new());
            let outcome = side_by_side(&items, threads, |item| {
                done.lock().unwrap().push(*item);
                Ok(())
            });
            outcome.unwrap();
            let mut done = done.into_inner().unwrap();
            done.sort_unstable();
            assert_eq!(done, items);

            let begun = AtomicUsize::new(0);
            let failed = side_by_side(&items, threads, |item| {
                begun.fetch_add(1, Ordering::Relaxed);
                match item {
                    0..7 => Ok(()),
                    _ => Err(Error::invalid(format!("item {item}"))),
                }
            });
            let failed = failed.unwrap_err().to_string();
            assert!(failed.contains("item 7"), "{failed}");
            assert!(begun.into_inner() <= 7 + threads.max(1));
        }
    }
}
