//! A workload on a target, ready to run: what the threads share, and who watches them.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Barrier, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use hedgerow::Durability;

use super::worker::Worker;
use crate::data::{Keys, Values};
use crate::dataset::{DataSet, Presence};
use crate::distribution::{Chooser, Distribution, fnv1a64};
use crate::error::{Error, Result};
use crate::histogram::Histogram;
use crate::machine::Memory;
use crate::outcome::Interval;
use crate::permutation::Permutation;
use crate::targets::Target;
use crate::workload::{Nexts, OpKind, Order, Workload};

/// How often a full scan is repeated: one alone is over too soon to be measured.
pub(super) const SCAN_PASSES: u64 = 3;

/// A number that one thread writes often: alone on its cache lines, because the prefetcher of
/// current processors takes them in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Counter(pub(super) AtomicU64);

/// Everything the threads of a run share. Immutable but for the counters.
pub(super) struct Plan<'a> {
    pub(super) target: &'a dyn Target,
    pub(super) workload: &'a Workload,
    pub(super) keys: Keys,
    pub(super) values: Values,
    pub(super) chooser: Option<Chooser>,
    pub(super) permutation: Permutation,
    /// Records at the start.
    pub(super) records: u64,
    pub(super) presence: Presence,
    pub(super) ops: u64,
    pub(super) threads: usize,
    pub(super) rate_per_s: Option<f64>,
    pub(super) limit: Option<Duration>,
    pub(super) latency_every: u64,
    pub(super) seed: u64,
    /// Operations done, per thread.
    pub(super) done: Vec<Counter>,
    /// Records inserted, per thread.
    pub(super) inserted: Vec<Counter>,
    /// Set when a thread failed, or when the others are done and the writer should be.
    pub(super) stop: AtomicBool,
}

/// What a run of a plan gave.
pub(super) struct Run {
    pub(super) ops: u64,
    pub(super) elapsed: Duration,
    pub(super) histograms: Vec<(OpKind, Histogram)>,
    pub(super) samples: Vec<Interval>,
    pub(super) peak_memory: Option<Memory>,
    pub(super) user_written_bytes: u64,
    pub(super) inserted: Vec<u64>,
}

impl<'a> Plan<'a> {
    pub(super) fn new(
        target: &'a dyn Target,
        workload: &'a Workload,
        data: &DataSet,
    ) -> Result<Self> {
        let params = &data.params;
        if workload.fills && data.presence != Presence::Empty {
            return Err(Error::usage(format!(
                "{workload} fills a store: it needs a new one"
            )));
        }
        if workload.needs_records() && data.presence == Presence::Empty {
            return Err(Error::usage(format!(
                "{workload} needs records: run fillrandom or fillseq before it"
            )));
        }
        let threads = workload.threads.unwrap_or(params.threads);
        let counters = || (0..threads).map(|_| Counter::default()).collect();
        let values = match workload.values {
            Some(size) => Values::new(size, params.compressed_fraction, params.seed)?,
            None => data.values.clone(),
        };
        let ops = match workload.nexts {
            Nexts::All => threads as u64 * SCAN_PASSES,
            _ if workload.order == Order::Shuffled || workload.order == Order::Sequential => {
                params.ops_of(workload).min(data.records)
            }
            _ => params.ops_of(workload),
        };
        // A fill and what rewrites it must not go in the same order, or the second would find
        // every page just where it wants it.
        let salt = u64::from(workload.fills);
        Ok(Self {
            target,
            workload,
            keys: data.keys,
            values,
            chooser: workload
                .distribution()
                .or(workload.with_writer.then_some(Distribution::Uniform))
                .map(|distribution| Chooser::new(distribution, data.records, params.seed)),
            permutation: Permutation::new(data.records, params.seed ^ (salt << 32)),
            records: data.records,
            presence: data.presence,
            ops,
            threads,
            rate_per_s: params.rate_per_s,
            // A fill that ends early would leave nothing for reads to rely on.
            limit: params.duration.filter(|_| !workload.fills),
            // Where an operation takes long, the clock costs nothing and there are few to time.
            latency_every: match params.rate_per_s {
                Some(_) => 1,
                None if workload.durability == Some(Durability::Sync)
                    || workload.batch > 1
                    || workload.nexts == Nexts::All =>
                {
                    1
                }
                None => params.latency_every,
            },
            seed: params.seed ^ fnv1a64(workload.name.as_bytes()),
            done: counters(),
            inserted: counters(),
            stop: AtomicBool::new(false),
        })
    }

    /// Runs all threads to their end.
    pub(super) fn execute(&self, interval: Duration) -> Result<Run> {
        let extra = usize::from(self.workload.with_writer);
        let ready = Barrier::new(self.threads + extra + 1);
        let measured = AtomicBool::new(true);
        // Set by whoever leaves the barrier first: this thread may be the last to wake up, and a
        // short run would be over by then.
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

    fn ops_done(&self) -> u64 {
        self.done
            .iter()
            .map(|done| done.0.load(Ordering::Relaxed))
            .sum()
    }

    fn ask_to_stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    pub(super) fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Records that every thread may expect to find: those at the start, and the inserted ones
    /// whose predecessors are all there as well.
    #[inline]
    pub(super) fn published(&self) -> u64 {
        if !self.inserts() {
            return self.records;
        }
        let counts = self
            .inserted
            .iter()
            .map(|count| count.0.load(Ordering::Acquire));
        self.records + counts.min().unwrap_or(0) * self.threads as u64
    }

    fn inserts(&self) -> bool {
        self.workload.mix.len() > 1 && self.workload.mix[1].0 == OpKind::Insert
    }

    pub(super) fn live_bytes(&self) -> u64 {
        let value = self.values.size().mean_bytes();
        (self.records as f64 * (self.keys.len_bytes() as f64 + value)) as u64
    }

    /// Brings the data set into a known state: closes the gaps that threads of different speed
    /// left between inserted records. Returns the number of records, and which are there.
    pub(super) fn finish(&self, inserted: &[u64]) -> Result<(u64, Presence)> {
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

    pub(super) fn inserted_record(&self, thread: usize, turn: u64) -> u64 {
        self.records + turn * self.threads as u64 + thread as u64
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
