//! How background jobs fare: their errors, when they are tried again, and whose turn it is.
//!
//! Each kind of work of each keyspace, and each kind of work on the log, is a job of its own, so
//! what fails in one stops no other. A job that fails is left alone for a while, twice as long each
//! time, because trying costs what the job costs: a compaction that meets a damaged block writes
//! everything in front of the block again, a flush fills the disk again.
//!
//! An error goes when what failed has been done, or is certain to be wanted no more. That a job
//! finds nothing to do is neither: what failed may wait, or be left out for a while. A job that
//! succeeds at something else goes on without a pause, and its error stays. Damage stays known in
//! any case: an engine works around it, and it is still there.

use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::engine::Work;
use crate::error::{Error, Result};
use crate::util::mutants::mutated;
use crate::util::sync::atomic::{AtomicBool, Ordering};

/// How long a job is left alone after its first failure: what filled the disk may be gone.
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// The longest that a job is left alone.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The state of one job.
#[derive(Debug, Default)]
pub(crate) struct Health {
    /// Whether there is a failure: jobs are looked at more often than they fail.
    is_failing: AtomicBool,
    failure: Mutex<Option<Failure>>,
}

#[derive(Debug)]
struct Failure {
    error: Error,
    /// Damage that was met, now or before.
    damage: Option<Error>,
    pause: Duration,
    retry_at: Instant,
    /// The job has succeeded since, at something else: it is not left alone.
    is_over: bool,
}

impl Health {
    /// Notes how the job ended. True if that is news: it failed, or fails no more.
    pub(super) fn note<T>(&self, outcome: &Result<T>) -> bool {
        match outcome {
            Ok(_) if !self.is_failing.load(Ordering::Relaxed) => return false,
            Ok(_) => {
                let mut failure = self.failure.lock();
                if let Some(failure) = &mut *failure
                    && let Some(damage) = &failure.damage
                {
                    let is_news = !failure.error.is_corruption();
                    failure.error = damage.clone();
                    failure.is_over = true;
                    failure.retry_at = Instant::now();
                    return is_news;
                }
                *failure = None;
                self.is_failing.store(false, Ordering::Relaxed);
            }
            // It was given up because the store closes.
            Err(Error::Closed) => return false,
            Err(error) => {
                let mut failure = self.failure.lock();
                let pause = match &*failure {
                    _ if mutated!("failing-job-is-never-left-alone") => Duration::ZERO,
                    None => FIRST_PAUSE,
                    Some(before) if before.is_over && !error.is_corruption() => FIRST_PAUSE,
                    Some(before) => (2 * before.pause).min(LONGEST_PAUSE),
                };
                let damage = match error.is_corruption() {
                    true => Some(error.clone()),
                    false => failure.take().and_then(|before| before.damage),
                };
                *failure = Some(Failure {
                    error: error.clone(),
                    damage: mutated!("damage-forgotten-after-another-error", None, damage),
                    pause,
                    retry_at: Instant::now() + pause,
                    is_over: false,
                });
                self.is_failing.store(true, Ordering::Relaxed);
            }
        }
        true
    }

    /// Notes that the job has done something, but not what failed before.
    pub(super) fn note_other_work(&self) {
        if let Some(failure) = &mut *self.failure.lock() {
            failure.is_over = true;
            failure.retry_at = Instant::now();
        }
    }

    /// How long the job is to be left alone from now on; `None` if it may run.
    pub(super) fn pause(&self) -> Option<Duration> {
        if !self.is_failing.load(Ordering::Relaxed) {
            return None;
        }
        let retry_at = self.failure.lock().as_ref()?.retry_at;
        let left = retry_at.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }

    /// True if there is an error, or damage was met.
    #[inline]
    pub(super) fn is_failing(&self) -> bool {
        self.is_failing.load(Ordering::Relaxed)
    }

    /// True if the job failed when it ran last, whatever was met before.
    pub(super) fn has_just_failed(&self) -> bool {
        let is_failing = self.is_failing.load(Ordering::Relaxed);
        is_failing && self.failure.lock().as_ref().is_some_and(|it| !it.is_over)
    }

    /// Why the job failed when it ran last, or what damage it has met.
    pub(super) fn error(&self) -> Option<Error> {
        if !self.is_failing.load(Ordering::Relaxed) {
            return None;
        }
        Some(self.failure.lock().as_ref()?.error.clone())
    }
}

/// The jobs on the log. One that fails does not keep the others from running.
#[derive(Debug, Default)]
pub(super) struct LogJobs {
    pub(super) sync: Health,
    pub(super) retire: Health,
    pub(super) prepare: Health,
    /// Work on the files of values that have left the log.
    pub(super) collect: Health,
}

/// Whose turn it is in each kind of work, so that no keyspace waits behind a busy one.
#[derive(Debug, Default)]
pub(super) struct Turns {
    flush: AtomicUsize,
    compact: AtomicUsize,
}

impl Turns {
    pub(super) fn next(&self, kind: Work) -> usize {
        let turn = match kind {
            Work::Flush => &self.flush,
            Work::Compact => &self.compact,
        };
        match mutated!("busy-keyspace-is-always-first") {
            true => 0,
            false => turn.fetch_add(1, Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_end_with_success() {
        let full = || -> Result<()> {
            let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
            Err(Error::io("write", Path::new("t"), full))
        };
        let health = Health::default();
        assert!(!health.note(&Ok(())) && health.pause().is_none() && health.error().is_none());
        let mut last = Duration::ZERO;
        for failures in 0..12 {
            assert!(health.note(&full()));
            let pause = health.failure.lock().as_ref().unwrap().pause;
            assert_eq!(pause, (FIRST_PAUSE * (1 << failures)).min(LONGEST_PAUSE));
            assert!(pause >= last && health.error().unwrap().is_out_of_space());
            last = pause;
        }
        assert!(health.pause().is_some());
        assert!(health.note(&Ok(())) && health.pause().is_none() && health.error().is_none());
    }

    #[test]
    fn damage_stays_known_and_closing_is_no_failure() {
        let health = Health::default();
        assert!(!health.note::<()>(&Err(Error::Closed)) && health.error().is_none());
        health.note::<()>(&Err(Error::corruption(Path::new("t"), 7, "flipped")));
        assert!(!health.note(&Ok(())) && health.error().unwrap().is_corruption());
    }

    #[test]
    fn damage_stays_known_when_something_else_fails_in_between() {
        let health = Health::default();
        health.note::<()>(&Err(Error::corruption(Path::new("t"), 7, "flipped")));
        let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
        health.note::<()>(&Err(Error::io("write", Path::new("t"), full)));
        assert!(health.note(&Ok(())), "the disk has room again");
        assert!(health.error().is_some_and(|error| error.is_corruption()));
        assert!(!health.note(&Ok(())));
        assert!(!health.has_just_failed());
    }

    #[test]
    fn after_a_success_only_damage_is_left_alone_for_longer_than_at_first() {
        let health = Health::default();
        let damage = Error::corruption(Path::new("t"), 7, "flipped");
        let pause = |health: &Health| health.failure.lock().as_ref().unwrap().pause;
        for failures in 0..3 {
            health.note::<()>(&Err(damage.clone()));
            assert!(health.has_just_failed());
            assert_eq!(pause(&health), FIRST_PAUSE * (1 << failures));
            health.note(&Ok(()));
        }
        let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
        health.note::<()>(&Err(Error::io("write", Path::new("t"), full)));
        assert_eq!(pause(&health), FIRST_PAUSE);
    }
}
