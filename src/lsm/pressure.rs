//! How fast writers may go beside level 0: about as fast as it is emptied.
//!
//! A job from level 0 takes long, since it rewrites much of the base level, and level 0 only grows
//! meanwhile. A rate that follows the number of its tables is far too high when the job begins, and
//! next to nothing before it ends: writers run and stand still in turn. So the rate at which level
//! 0 is emptied is measured, over whole jobs and the time between them, and writers are held to
//! twice as much when the debt begins to count, to half as much when it is as large as it should
//! become, and to ever less behind that. In between they find the rate that the jobs can take.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::util::mutants::mutated;

/// A job that takes no time says nothing about the next.
const SHORTEST: Duration = Duration::from_millis(1);

/// The rate at which level 0 is emptied.
#[derive(Debug, Default)]
pub(super) struct Drain {
    /// Since when there has been something to do, without a pause.
    due_since: Mutex<Option<Instant>>,
    /// Bytes a second; 0 while unknown.
    rate: AtomicU64,
    /// A job over all tables runs.
    is_paused: AtomicBool,
}

impl Drain {
    /// A job over all tables begins, or has ended. How long it takes does not depend on what it
    /// finds in level 0.
    pub(super) fn pause(&self, pauses: bool) {
        self.is_paused.store(pauses, Ordering::Relaxed);
    }

    /// Takes note that a job has taken `drained_bytes` out of level 0, or of any other edit, after
    /// which a job is due or not.
    pub(super) fn note(&self, drained_bytes: u64, is_due: bool, now: Instant) {
        let mut due_since = self.due_since.lock();
        if self.is_paused.load(Ordering::Relaxed) && !mutated!("full-compaction-taken-for-a-drain")
        {
            *due_since = None;
            return;
        }
        if drained_bytes > 0
            && let Some(since) = due_since.take()
        {
            let elapsed = now.saturating_duration_since(since).max(SHORTEST);
            let rate = (drained_bytes as f64 / elapsed.as_secs_f64()) as u64;
            let before = self.rate.load(Ordering::Relaxed);
            let average = if before == 0 {
                rate
            } else {
                (before + rate) / 2
            };
            self.rate.store(average.max(1), Ordering::Relaxed);
        }
        match is_due {
            true => _ = due_since.get_or_insert(now),
            false => *due_since = None,
        }
    }

    /// Bytes a second, if that is known.
    pub(super) fn rate(&self) -> Option<f64> {
        let rate = self.rate.load(Ordering::Relaxed);
        (rate > 0).then_some(rate as f64)
    }
}

/// The rate that writers are held to, in bytes a second, where level 0 is emptied at `drain` and is
/// `over` the debt from which on they are slowed: from 0 there to 1 at the largest that it should
/// become.
pub(super) fn admitted(drain: f64, over: f64) -> f64 {
    let exponent = if over <= 1.0 {
        1.0 - 2.0 * over
    } else {
        // Ever less, so that the debt has an end whatever was measured.
        -1.0 - 6.0 * (over - 1.0)
    };
    drain * exponent.exp2()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_whole_jobs_while_there_is_work() {
        let drain = Drain::default();
        let began = Instant::now();
        let at = |seconds| began + Duration::from_secs(seconds);
        drain.note(0, false, at(0));
        // A job that was not due.
        drain.note(500, false, at(10));
        assert_eq!(drain.rate(), None);
        drain.note(0, true, at(20));
        drain.note(0, true, at(22));
        drain.note(1000, true, at(30));
        assert_eq!(drain.rate(), Some(100.0));
        drain.note(3000, false, at(40));
        assert_eq!(drain.rate(), Some(200.0));
        // What was idle does not count.
        drain.note(0, true, at(1000));
        drain.note(2000, false, at(1010));
        assert_eq!(drain.rate(), Some(200.0));
        // What a job over all tables takes along says nothing, nor the time that it took.
        drain.note(0, true, at(2000));
        drain.pause(true);
        drain.note(0, true, at(2010));
        drain.note(1, true, at(3000));
        drain.pause(false);
        drain.note(0, true, at(3001));
        drain.note(2000, false, at(3011));
        assert_eq!(drain.rate(), Some(200.0));
    }

    #[test]
    fn the_admitted_rate_falls_from_twice_to_half_and_on() {
        let rates = [0.0, 0.5, 1.0, 1.5, 2.0].map(|over| admitted(100.0, over));
        assert_eq!(rates, [200.0, 100.0, 50.0, 6.25, 0.78125]);
    }

    /// Writers without a limit of their own, flushes of one unit, and one thread that merges all of
    /// level 0 into a base level of `base` units at `speed` units a second. With the rate taken
    /// from the number of tables, the slowest half second had less than a third of the mean.
    #[test]
    fn writers_that_are_held_to_it_go_on_evenly() {
        const STEP: f64 = 0.01;
        let (soft, hard) = (8.0, 20.0);
        for (base, speed) in [(16.0, 4.0), (16.0, 16.0), (40.0, 8.0), (4.0, 4.0)] {
            let drain = Drain::default();
            let began = Instant::now();
            let (mut level0, mut written, mut highest) = (0.0_f64, 0.0_f64, 0.0_f64);
            // What the running job takes, and when it ends.
            let mut job: Option<(f64, f64)> = None;
            let mut halves = Vec::new();
            for step in 0..60_000 {
                let now = f64::from(step) * STEP;
                let at = began + Duration::from_secs_f64(now);
                if let Some((taken, _)) = job.filter(|(_, end)| *end <= now) {
                    level0 -= taken;
                    job = None;
                    drain.note((taken * 1e6) as u64, level0 >= 4.0, at);
                }
                if job.is_none() && level0 >= 4.0 {
                    drain.note(0, true, at);
                    job = Some((level0, now + (level0 + base) / speed));
                }
                let over = (level0 - soft) / (hard - soft);
                let rate = match drain.rate() {
                    _ if over <= 0.0 => 50.0,
                    Some(drain) => admitted(drain / 1e6, over),
                    None => 1.0,
                };
                written += rate.min(50.0) * STEP;
                level0 += rate.min(50.0) * STEP;
                highest = highest.max(level0);
                if step % 50 == 49 {
                    halves.push(std::mem::take(&mut written));
                }
            }
            // After it has found its rate.
            let halves = &halves[halves.len() / 4..];
            let mean = halves.iter().sum::<f64>() / halves.len() as f64;
            let slowest = halves.iter().copied().fold(f64::INFINITY, f64::min);
            let label = format!("base {base} speed {speed}: {slowest} of {mean}, {highest}");
            assert!(slowest > 0.5 * mean, "{label}");
            assert!(highest < hard, "{label}");
        }
    }
}
