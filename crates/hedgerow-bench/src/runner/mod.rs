//! Runs a workload on a target and measures it.
//!
//! Threads take operations by number, in turns: operation `n` belongs to thread `n mod threads`, so
//! that an order over the records is the same for any number of threads. A thread makes key and
//! value, notes the time, does the operation, notes the time again; one more thread looks every
//! `Params::interval` at how far the others are, which gives throughput over time and stalls
//! without a clock in the loop.
//!
//! - **Closed loop** (no rate given): the next operation starts when the last has ended.
//! - **Fixed rate**: operation `n` is meant to start at `n / rate`. Its latency counts from there,
//!   even if it had to wait for its thread: a store that stops for a second has delayed a second's
//!   worth of operations, not one of them ("coordinated omission" would report one).
//!
//! Every answer is checked; a wrong one ends the run. After writing, the clock of *settling* runs
//! until the target has no work left, and CPU time and bytes written include that work.

mod plan;
mod worker;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Barrier, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use self::plan::Plan;
use self::worker::Worker;
use crate::dataset::{DataSet, Presence};
use crate::error::Result;
use crate::histogram::Histogram;
use crate::machine::{Memory, Usage, disk_bytes};
use crate::outcome::{Interval, Outcome, Stalls};
use crate::targets::Target;
use crate::workload::{Nexts, OpKind, Workload};

/// Runs `workload` on `target`, whose files are under `dir`, and measures it.
///
/// # Errors
///
/// [`Error::Usage`](crate::Error::Usage) if the workload does not fit the data set (a fill of a
/// store that is not empty, reads of an empty one),
/// [`Error::WrongResult`](crate::Error::WrongResult) if the target answered wrongly,
/// [`Error::Store`](crate::Error::Store) if it reported an error.
pub fn run(
    target: &dyn Target,
    dir: &Path,
    workload: &Workload,
    data: &mut DataSet,
) -> Result<Outcome> {
    let plan = Plan::new(target, workload, data)?;
    let params = &data.params;
    if !workload.writes() && !params.warmup.is_zero() {
        let warmup = Plan {
            limit: Some(params.warmup),
            ops: match workload.nexts {
                Nexts::All => plan.threads as u64,
                _ => u64::MAX,
            },
            rate_per_s: None,
            ..Plan::new(target, workload, data)?
        };
        warmup.execute(params.interval)?;
    }

    let usage_before = Usage::now();
    let written_before = target.bytes_written();
    let blocks_before = target.blocks_read();
    let slowed_before = target.writers_slowed_ms();
    let stopped_before = target.writers_stopped_ms();
    let run = plan.execute(params.interval)?;
    let settle_start = Instant::now();
    if workload.writes() {
        target.wait_idle()?;
    }
    let settle = settle_start.elapsed();
    let usage = Usage::now().since(&usage_before);
    let since = |now: Option<u64>, before: Option<u64>| Some(now?.saturating_sub(before?));
    let series = intervals(&run.samples);
    let long_ops = run
        .histograms
        .iter()
        .map(|(_, histogram)| histogram.count_at_least(Stalls::LONG_OP.as_nanos() as u64))
        .sum();
    let outcome = Outcome {
        target: target.name().into(),
        settings: target.settings(),
        workload: workload.label(),
        distribution: workload.distribution(),
        threads: plan.threads,
        ops: run.ops,
        elapsed: run.elapsed,
        settle,
        offered_per_s: params.rate_per_s,
        latency_ns: run.histograms,
        stalls: Stalls::of(&series, long_ops),
        series,
        cpu: usage.cpu,
        peak_memory: run.peak_memory,
        user_written_bytes: run.user_written_bytes,
        device_written_bytes: usage.written_bytes,
        device_read_bytes: usage.fetched_bytes,
        store_written_bytes: since(target.bytes_written(), written_before),
        blocks_read: since(target.blocks_read(), blocks_before),
        writers_slowed_ms: since(target.writers_slowed_ms(), slowed_before),
        writers_stopped_ms: since(target.writers_stopped_ms(), stopped_before),
        tree_bytes: target.tree_bytes(),
        disk_bytes: disk_bytes(dir)?,
        live_bytes: plan.live_bytes(),
    };
    let (records, presence) = plan.finish(&run.inserted)?;
    data.records = records;
    data.presence = presence;
    Ok(outcome)
}

/// What a run of a plan gave.
struct Run {
    ops: u64,
    elapsed: Duration,
    histograms: Vec<(OpKind, Histogram)>,
    samples: Vec<Interval>,
    peak_memory: Option<Memory>,
    user_written_bytes: u64,
    inserted: Vec<u64>,
}

impl Plan<'_> {
    /// Runs all threads to their end.
    fn execute(&self, interval: Duration) -> Result<Run> {
        let extra = usize::from(self.workload.with_writer);
        let ready = Barrier::new(self.threads + extra + 1);
        let measured = AtomicBool::new(true);
        // Set by the thread that leaves the barrier first: this thread may be the last to wake up,
        // and a short run would be over by then.
        let start = OnceLock::new();
        thread::scope(|scope| {
            let workers: Vec<_> = (0..self.threads)
                .map(|thread| {
                    let (ready, start) = (&ready, &start);
                    scope.spawn(move || {
                        let mut worker = Worker::new(self, thread);
                        ready.wait();
                        start.get_or_init(Instant::now);
                        worker.work().inspect_err(|_| self.ask_to_stop())?;
                        Ok(worker)
                    })
                })
                .collect();
            let writer = self.workload.with_writer.then(|| {
                scope.spawn(|| {
                    let mut writer = Worker::new(self, self.threads);
                    ready.wait();
                    writer
                        .overwrite_until_stopped()
                        .inspect_err(|_| self.ask_to_stop())?;
                    Ok(writer)
                })
            });
            ready.wait();
            let start = *start.get_or_init(Instant::now);
            let measured = &measured;
            let sampler = scope.spawn(move || self.sample(start, interval, measured));
            let mut finished = join_all(workers);
            let elapsed = start.elapsed();
            measured.store(false, Ordering::Relaxed);
            sampler.thread().unpark();
            self.ask_to_stop();
            if let Some(writer) = writer {
                match (join(writer), &mut finished) {
                    (Ok(writer), Ok(workers)) => workers.push(writer),
                    (Err(error), _) => finished = Err(error),
                    (_, Err(_)) => {}
                }
            }
            let (samples, peak_memory) = join_plain(sampler);
            Ok(self.gather(finished?, elapsed, samples, peak_memory))
        })
    }

    fn gather(
        &self,
        workers: Vec<Worker<'_>>,
        elapsed: Duration,
        mut samples: Vec<Interval>,
        peak_memory: Option<Memory>,
    ) -> Run {
        let ops = self.ops_done();
        samples.push(Interval { end: elapsed, ops });
        let mut histograms: Vec<(OpKind, Histogram)> = Vec::new();
        let mut user_written_bytes = 0;
        for worker in workers {
            user_written_bytes += worker.user_written_bytes;
            for (kind, histogram) in OpKind::ALL.into_iter().zip(worker.histograms) {
                let Some(histogram) = histogram.filter(|histogram| !histogram.is_empty()) else {
                    continue;
                };
                match histograms.iter_mut().find(|(known, _)| *known == kind) {
                    Some((_, whole)) => whole.merge(&histogram),
                    None => histograms.push((kind, histogram)),
                }
            }
        }
        histograms.sort_by_key(|&(kind, _)| kind);
        Run {
            ops,
            elapsed,
            histograms,
            samples,
            peak_memory,
            user_written_bytes,
            inserted: self
                .inserted
                .iter()
                .map(|count| count.0.load(Ordering::Relaxed))
                .collect(),
        }
    }

    /// Looks at the progress of the others until they are done. The ops of a sample count from the
    /// start.
    fn sample(
        &self,
        start: Instant,
        interval: Duration,
        measured: &AtomicBool,
    ) -> (Vec<Interval>, Option<Memory>) {
        let mut samples = Vec::new();
        let mut peak = Memory::now();
        let mut due = start + interval;
        while measured.load(Ordering::Relaxed) {
            let now = Instant::now();
            if now < due {
                thread::park_timeout(due - now);
                continue;
            }
            samples.push(Interval {
                end: now - start,
                ops: self.ops_done(),
            });
            peak = peak.zip(Memory::now()).map(|(peak, now)| peak.max(now));
            // A sample that came late does not bring the next ones closer together.
            due = now + interval;
        }
        let peak = peak.zip(Memory::now()).map(|(peak, now)| peak.max(now));
        (samples, peak)
    }

    /// Brings the data set into a known state: closes the gaps that threads of different speed
    /// left between inserted records. Returns the number of records, and which are there.
    fn finish(&self, inserted: &[u64]) -> Result<(u64, Presence)> {
        let most = inserted.iter().copied().max().unwrap_or(0);
        let mut worker = Worker::new(self, self.threads + 1);
        for (thread, &count) in inserted.iter().enumerate() {
            for turn in count..most {
                worker.put(self.inserted_record(thread, turn))?;
            }
        }
        let records = self.records + most * self.threads as u64;
        let whole = self.ops_done() >= self.records;
        let deletes = self.workload.mix[0].0 == OpKind::Delete;
        let presence = match (self.workload.fills, deletes) {
            (true, _) if whole => Presence::All,
            (_, true) if whole => Presence::Empty,
            (true, _) | (_, true) => Presence::Some,
            (false, false) => self.presence,
        };
        Ok((records, presence))
    }
}

fn join_plain<T>(handle: thread::ScopedJoinHandle<'_, T>) -> T {
    match handle.join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

fn join<'a>(handle: thread::ScopedJoinHandle<'_, Result<Worker<'a>>>) -> Result<Worker<'a>> {
    join_plain(handle)
}

/// Joins all threads, even if one failed; reports the first failure.
fn join_all<'a>(
    handles: Vec<thread::ScopedJoinHandle<'_, Result<Worker<'a>>>>,
) -> Result<Vec<Worker<'a>>> {
    let results: Vec<_> = handles.into_iter().map(join).collect();
    results.into_iter().collect()
}

/// From operations since the start to operations per interval.
fn intervals(samples: &[Interval]) -> Vec<Interval> {
    let mut before = 0;
    let difference = |sample: &Interval| {
        let ops = sample.ops.saturating_sub(before);
        before = sample.ops;
        Interval {
            end: sample.end,
            ops,
        }
    };
    samples.iter().map(difference).collect()
}

#[cfg(test)]
mod tests;
