//! The scrub: what lies in the files of all keyspaces and of the log, read from storage again and
//! again, so that damage is found while there is still a copy to mend it from.
//!
//! A pass reads everything once, at an even pace. Its time is a part of
//! [`Options::scrub_period`](crate::Options#structfield.scrub_period), so that what one pass reads
//! first and the next one last is read within the period too.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::keyspaces::OpenKeyspace;
use super::shared::Shared;
use crate::engine::{Problem, VerifyReport};
use crate::error::{Error, Result};

/// Part of the period that a pass takes: two passes and some time to spare are a period.
const PASS_SHARE: f64 = 0.4;

/// Bytes a second that are read at least: what is being read is held meanwhile. Where a pass needs
/// less time it rests, holding nothing.
const MIN_RATE: f64 = 1024.0 * 1024.0;

/// Spreads a pass over its time.
#[derive(Debug)]
struct Pace {
    ns_per_byte: f64,
    /// Up to when the bytes read so far are accounted for, after the pass began.
    paid: Duration,
}

impl Pace {
    fn new(period: Duration, bytes: u64) -> Self {
        let pass = period.mul_f64(PASS_SHARE);
        Self {
            ns_per_byte: (pass.as_nanos() as f64 / bytes.max(1) as f64).min(1e9 / MIN_RATE),
            paid: Duration::ZERO,
        }
    }

    /// How long to wait after `bytes` more were read, `now` after the pass began. Time that reading
    /// took longer than it should is not made up for: the rate has a bound.
    fn wait(&mut self, bytes: u64, now: Duration) -> Duration {
        let share = Duration::from_nanos((bytes as f64 * self.ns_per_byte) as u64);
        let due = self.paid + share;
        self.paid = due.max(now);
        due.saturating_sub(now)
    }
}

impl Shared {
    /// Reads all files of all keyspaces and of the log once. `pace` is told of the bytes of each
    /// piece, and ends the pass with an error.
    pub(crate) fn scrub_once(&self, pace: &mut dyn FnMut(u64) -> Result<()>) -> Result<()> {
        let scrub = &self.scrub;
        scrub.begin();
        let mut pass_bytes = 0;
        // A keyspace that is dropped keeps its files as long as it is held.
        let all: Vec<_> = self.keyspaces.all().iter().map(Arc::downgrade).collect();
        for keyspace in all.iter().filter_map(Weak::upgrade) {
            let mut read = |bytes: u64| {
                pass_bytes += bytes;
                scrub.note_read(bytes);
                keyspace.check_alive()?;
                pace(bytes)
            };
            let scrubbed = keyspace.engine.scrub(&mut read);
            let mut problems = match scrubbed {
                // Its files may be gone.
                _ if keyspace.check_alive().is_err() => continue,
                Ok(report) => report.problems,
                Err(Error::Closed) => return Err(Error::Closed),
                Err(error) => vec![error.into()],
            };
            for problem in &mut problems {
                problem.keyspace = Some(keyspace.name().to_string());
            }
            self.note_problems(problems);
        }
        if let Some(log) = self.coordinator.log() {
            let damaged = log.scrub(&mut |bytes| {
                pass_bytes += bytes;
                scrub.note_read(bytes);
                pace(bytes)
            })?;
            self.note_problems(damaged.into_iter().map(Problem::from).collect());
        }
        let mut own = VerifyReport::default();
        if let Err(error) = self.verify_own_files(&mut own) {
            own.problem(error);
        }
        self.note_problems(own.problems);
        scrub.end(pass_bytes);
        Ok(())
    }

    fn note_problems(&self, problems: Vec<Problem>) {
        if !problems.is_empty() {
            self.scrub.note_problems(problems);
            self.coordinator.note_progress();
        }
    }

    /// Bytes of the files of keyspaces and of the log.
    fn stored_bytes(&self) -> u64 {
        let all = self.keyspaces.all();
        let bytes = |keyspace: &Arc<OpenKeyspace>| {
            let values: u64 = keyspace.engine.value_usage().files.values().sum();
            keyspace.engine.stats().disk_bytes + values
        };
        let in_log = self.coordinator.log().map_or(0, |log| log.live_bytes());
        all.iter().map(bytes).sum::<u64>() + in_log
    }

    /// Passes one after the other, each spread over its part of `period`, until the store closes.
    pub(super) fn scrub_until_closed(&self, period: Duration) -> Result<()> {
        loop {
            let mut pace = Pace::new(period, self.stored_bytes());
            let began = Instant::now();
            self.scrub_once(&mut |bytes| {
                let wait = pace.wait(bytes, began.elapsed());
                self.coordinator.sleep_unless_closed(wait)
            })?;
            let pass = period.mul_f64(PASS_SHARE);
            let rest = pass.saturating_sub(began.elapsed());
            self.coordinator.sleep_unless_closed(rest)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_is_spread_over_its_time_and_makes_up_for_nothing() {
        let second = Duration::from_secs(1);
        let mut pace = Pace::new(100 * second, 40 << 20);
        let mut now = Duration::ZERO;
        for piece in 0..40 {
            let wait = pace.wait(1 << 20, now);
            now += wait;
            let due = Duration::from_secs(piece + 1);
            assert!(now.abs_diff(due) < second / 1000, "{now:?} {due:?}");
        }
        // The store was asleep, or the device slow.
        now += 600 * second;
        assert_eq!(pace.wait(1 << 20, now), Duration::ZERO);
        let wait = pace.wait(1 << 20, now);
        assert!(wait.abs_diff(second) < second / 1000, "{wait:?}");
        // A small store is not read all day.
        let wait = Pace::new(100 * second, 100).wait(100, Duration::ZERO);
        assert!(wait < second / 1000, "{wait:?}");
    }
}
