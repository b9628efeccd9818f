//! What the scrub has read and found.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::engine::Problem;

/// Problems that are kept to be shown.
const MAX_KEPT: usize = 16;

/// What the scrub has done since the store was opened; see
/// [`Options::scrub_period`](crate::Options#structfield.scrub_period).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ScrubStats {
    /// Passes over all files that have ended.
    pub passes: u64,
    /// Bytes read by all passes, the one that runs included.
    pub bytes_read: u64,
    /// Bytes read by the last pass that has ended.
    pub last_pass_bytes: u64,
    /// Problems that the last pass has found, or the one that runs, if those are more.
    pub problems: u64,
}

/// What is known of passes.
#[derive(Debug, Default)]
pub(super) struct Scrub {
    passes: AtomicU64,
    bytes_read: AtomicU64,
    last_pass_bytes: AtomicU64,
    found: Mutex<Found>,
}

#[derive(Debug, Default)]
struct Found {
    /// By the last pass that has ended.
    last: Problems,
    /// By the one that runs.
    now: Problems,
}

#[derive(Debug, Default)]
struct Problems {
    count: u64,
    first: Vec<Problem>,
}

impl Problems {
    fn add(&mut self, problems: Vec<Problem>) {
        self.count += problems.len() as u64;
        let left = MAX_KEPT - self.first.len();
        self.first.extend(problems.into_iter().take(left));
    }
}

impl Scrub {
    pub(super) fn stats(&self) -> ScrubStats {
        let found = self.found.lock();
        ScrubStats {
            passes: self.passes.load(Ordering::Relaxed),
            bytes_read: self.bytes_read.load(Ordering::Relaxed),
            last_pass_bytes: self.last_pass_bytes.load(Ordering::Relaxed),
            problems: found.last.count.max(found.now.count),
        }
    }

    /// A problem that the last pass has found, or the one that runs.
    pub(super) fn problem(&self) -> Option<String> {
        let found = self.found.lock();
        let mut all = found.now.first.iter().chain(&found.last.first);
        all.next().map(ToString::to_string)
    }

    /// A pass begins.
    pub(super) fn begin(&self) {
        self.found.lock().now = Problems::default();
    }

    /// So many bytes more were read.
    pub(super) fn note_read(&self, bytes: u64) {
        self.bytes_read.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The pass that runs has found something.
    pub(super) fn note_problems(&self, problems: Vec<Problem>) {
        self.found.lock().now.add(problems);
    }

    /// The pass has ended, and read so many bytes.
    pub(super) fn end(&self, bytes: u64) {
        let mut found = self.found.lock();
        found.last = std::mem::take(&mut found.now);
        self.last_pass_bytes.store(bytes, Ordering::Relaxed);
        self.passes.fetch_add(1, Ordering::Relaxed);
    }
}
