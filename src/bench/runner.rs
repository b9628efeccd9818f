//! Runs a workload on a target and measures it.
//!
//! Threads take operations by number, in turns: operation `n` belongs to thread `n mod threads`, so
//! that an order over the records is the same for any number of threads. A thread makes key and
//! value, notes the time, does the operation, notes the time again; one more thread looks every
//! [`Params::interval`] at how far the others are, which gives throughput over time and stalls
//! without a clock in the loop.
//!
//! - **Closed loop** (no rate given): the next operation starts when the last has ended.
//! - **Fixed rate**: operation `n` is meant to start at `n / rate`. Its latency counts from there,
//!   even if it had to wait for its thread: a store that stops for a second has delayed a second's
//!   worth of operations, not one of them ("coordinated omission" would report one).
//!
//! Every answer is checked (see [`is_value_of`]); a wrong one ends the run with
//! [`Error::WrongResult`]. After writing, the clock of *settling* runs until the target has no work
//! left, and CPU time and bytes written include that work.

use std::path::Path;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::data::{Keys, Values, is_value_of};
use super::distribution::{Chooser, Distribution};
use super::error::{Error, Result};
use super::histogram::Histogram;
use super::outcome::{Interval, Outcome, Stalls};
use super::permutation::Permutation;
use super::process::{Memory, Usage, disk_bytes};
use super::rng::Rng;
use super::target::{Direction, Target};
use super::workload::{Nexts, OpKind, Order, Params, Workload};

/// A thread that nobody times looks at the clock once in this many operations.
const CLOCK_EVERY: u64 = 64;
/// A full scan reports progress and checks a value once in this many entries.
const SCAN_CHECK_EVERY: u64 = 64;
/// How often a full scan is repeated: one alone is over too soon to be measured.
const SCAN_PASSES: u64 = 3;

/// Which records are in a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Presence {
    /// None.
    Empty,
    /// All with numbers below `DataSet::records`.
    All,
    /// Nobody knows which: reads may miss.
    Some,
}

/// The records that one store holds, from one workload to the next.
#[derive(Debug)]
pub struct DataSet {
    params: Params,
    keys: Keys,
    values: Values,
    /// Records are numbered below this.
    records: u64,
    presence: Presence,
}

impl DataSet {
    /// The data set of a store that is still empty.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] if `params` are impossible.
    pub fn new(params: &Params) -> Result<Self> {
        params.check()?;
        let most = params.records.saturating_mul(2);
        Ok(Self {
            keys: Keys::new(params.key_shape, params.key_len_bytes, most)?,
            values: Values::new(params.values, params.compressed_fraction, params.seed)?,
            records: params.records,
            presence: Presence::Empty,
            params: params.clone(),
        })
    }

    /// The data set of a store that an earlier run has filled.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] if `params` are impossible.
    pub fn filled(params: &Params) -> Result<Self> {
        Ok(Self {
            presence: Presence::All,
            ..Self::new(params)?
        })
    }

    /// The figures that it was made with.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// How many records were ever written.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// How keys are made.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// How values are made.
    pub fn values(&self) -> &Values {
        &self.values
    }
}

/// Runs `workload` on `target`, whose files are under `dir`, and measures it.
///
/// # Errors
///
/// [`Error::Usage`] if the workload does not fit the data set (a fill of a store that is not empty,
/// reads of an empty one), [`Error::WrongResult`] if the target answered wrongly,
/// [`Error::Store`] if it reported an error.
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
        disk_bytes: disk_bytes(dir)?,
        live_bytes: plan.live_bytes(),
    };
    let (records, presence) = plan.finish(&run.inserted)?;
    data.records = records;
    data.presence = presence;
    Ok(outcome)
}

/// A number that one thread writes often: alone on its cache lines, because the prefetcher of
/// current processors takes them in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Counter(AtomicU64);

/// Everything the threads of a run share. Immutable but for the counters.
struct Plan<'a> {
    target: &'a dyn Target,
    workload: &'a Workload,
    keys: Keys,
    values: Values,
    chooser: Option<Chooser>,
    permutation: Permutation,
    /// Records at the start.
    records: u64,
    presence: Presence,
    ops: u64,
    threads: usize,
    rate_per_s: Option<f64>,
    limit: Option<Duration>,
    latency_every: u64,
    seed: u64,
    /// Operations done, per thread.
    done: Vec<Counter>,
    /// Records inserted, per thread.
    inserted: Vec<Counter>,
    /// Set when a thread failed, or when the others are done and the writer should be.
    stop: AtomicBool,
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

impl<'a> Plan<'a> {
    fn new(target: &'a dyn Target, workload: &'a Workload, data: &DataSet) -> Result<Self> {
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
            latency_every: match params.rate_per_s {
                Some(_) => 1,
                None => params.latency_every,
            },
            seed: params.seed ^ super::distribution::fnv1a64(workload.name.as_bytes()),
            done: counters(),
            inserted: counters(),
            stop: AtomicBool::new(false),
        })
    }

    /// Runs all threads to their end.
    fn execute(&self, interval: Duration) -> Result<Run> {
        let extra = usize::from(self.workload.with_writer);
        let ready = Barrier::new(self.threads + extra + 1);
        let measured = AtomicBool::new(true);
        thread::scope(|scope| {
            let workers: Vec<_> = (0..self.threads)
                .map(|thread| {
                    let ready = &ready;
                    scope.spawn(move || {
                        let mut worker = Worker::new(self, thread);
                        ready.wait();
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
            let start = Instant::now();
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

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Records that every thread may expect to find: those at the start, and the inserted ones
    /// whose predecessors are all there as well.
    #[inline]
    fn published(&self) -> u64 {
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

    fn live_bytes(&self) -> u64 {
        let value = self.values.size().mean_bytes();
        (self.records as f64 * (self.keys.len_bytes() as f64 + value)) as u64
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

    fn inserted_record(&self, thread: usize, turn: u64) -> u64 {
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

/// The state of one thread.
struct Worker<'a> {
    plan: &'a Plan<'a>,
    thread: usize,
    rng: Rng,
    key: Vec<u8>,
    value: Vec<u8>,
    batch: Vec<(Vec<u8>, Vec<u8>)>,
    /// By the number of the kind.
    histograms: [Option<Histogram>; OpKind::ALL.len()],
    inserted: u64,
    user_written_bytes: u64,
}

impl<'a> Worker<'a> {
    fn new(plan: &'a Plan<'a>, thread: usize) -> Self {
        let mut histograms = [const { None }; OpKind::ALL.len()];
        for &(kind, _) in plan.workload.mix {
            histograms[kind as usize] = Some(Histogram::new());
        }
        if thread == plan.threads {
            histograms[OpKind::Update as usize] = Some(Histogram::new());
        }
        Self {
            plan,
            thread,
            rng: Rng::of_stream(plan.seed, thread as u64),
            key: plan.keys.buffer(),
            value: Vec::new(),
            batch: Vec::new(),
            histograms,
            inserted: 0,
            user_written_bytes: 0,
        }
    }

    /// Does this thread's share of the operations.
    fn work(&mut self) -> Result<()> {
        let plan = self.plan;
        let batch = plan.workload.batch;
        let turns = plan.ops.div_ceil(batch);
        let start = Instant::now();
        let deadline = plan.limit.map(|limit| start + limit);
        let mut done = 0;
        for turn in 0.. {
            let number = turn * plan.threads as u64 + self.thread as u64;
            if number >= turns || plan.stopped() {
                break;
            }
            let kind = self.pick_kind();
            let timed = turn % plan.latency_every == 0;
            let intended = plan
                .rate_per_s
                .map(|rate| start + Duration::from_secs_f64(number as f64 / rate));
            if deadline.is_some() && (timed || turn % CLOCK_EVERY == 0) {
                let next = intended.unwrap_or_else(Instant::now);
                if deadline.is_some_and(|deadline| next >= deadline) {
                    break;
                }
            }
            let record = self.pick_record(kind, number);
            self.prepare(kind, record, number);
            if let Some(intended) = intended {
                wait_until(intended);
            }
            let begun = timed.then(|| intended.unwrap_or_else(Instant::now));
            let entries = self.execute(kind, record)?;
            if let Some(begun) = begun {
                let nanos = begun.elapsed().as_nanos() as u64;
                if let Some(histogram) = &mut self.histograms[kind as usize] {
                    histogram.record(nanos);
                }
            }
            done += entries;
            plan.done[self.thread].0.store(done, Ordering::Relaxed);
        }
        Ok(())
    }

    /// What the extra thread of [`Workload::with_writer`] does. Every write is timed.
    fn overwrite_until_stopped(&mut self) -> Result<()> {
        while !self.plan.stopped() {
            let record = self.rng.below(self.plan.records);
            self.prepare(OpKind::Update, record, 0);
            let begun = Instant::now();
            self.plan.target.put(&self.key, &self.value)?;
            let nanos = begun.elapsed().as_nanos() as u64;
            self.user_written_bytes += (self.key.len() + self.value.len()) as u64;
            if let Some(histogram) = &mut self.histograms[OpKind::Update as usize] {
                histogram.record(nanos);
            }
        }
        Ok(())
    }

    #[inline]
    fn pick_kind(&mut self) -> OpKind {
        let mix = self.plan.workload.mix;
        let [(first, share), (second, _)] = mix else {
            return mix[0].0;
        };
        if self.rng.below(100) < u64::from(*share) {
            *first
        } else {
            *second
        }
    }

    /// The record that operation `number` is about.
    #[inline]
    fn pick_record(&mut self, kind: OpKind, number: u64) -> u64 {
        let plan = self.plan;
        if kind == OpKind::Insert {
            return plan.inserted_record(self.thread, self.inserted);
        }
        match (plan.workload.order, &plan.chooser) {
            // Batches choose a record for each of their keys.
            _ if plan.workload.batch > 1 => 0,
            (Order::Sequential, _) => number,
            (Order::Shuffled, _) => plan.permutation.at(number),
            (Order::Drawn(_), Some(chooser)) => chooser.choose(&mut self.rng, plan.published()),
            (Order::Drawn(_), None) => unreachable!("a plan has a chooser if it draws"),
        }
    }

    /// Makes key and value before the clock starts.
    #[inline]
    fn prepare(&mut self, kind: OpKind, record: u64, number: u64) {
        let plan = self.plan;
        match kind {
            OpKind::ReadMissing => plan.keys.write_missing(record, &mut self.key),
            OpKind::Update if plan.workload.batch > 1 => self.prepare_batch(number),
            OpKind::Update | OpKind::Insert | OpKind::ReadModifyWrite => {
                plan.keys.write(record, &mut self.key);
                plan.values.write(&self.key, &mut self.rng, &mut self.value);
            }
            _ => plan.keys.write(record, &mut self.key),
        }
    }

    fn prepare_batch(&mut self, number: u64) {
        let plan = self.plan;
        let first = number * plan.workload.batch;
        let len = plan.workload.batch.min(plan.ops - first);
        self.batch.truncate(len as usize);
        self.batch
            .resize_with(len as usize, || (plan.keys.buffer(), Vec::new()));
        for (offset, (key, value)) in self.batch.iter_mut().enumerate() {
            let number = first + offset as u64;
            let record = match (plan.workload.order, &plan.chooser) {
                (Order::Shuffled, _) => plan.permutation.at(number),
                (Order::Drawn(_), Some(chooser)) => chooser.choose(&mut self.rng, plan.records),
                _ => number,
            };
            plan.keys.write(record, key);
            plan.values.write(key, &mut self.rng, value);
        }
    }

    /// Does the operation that was prepared; returns how many it counts for.
    #[inline]
    fn execute(&mut self, kind: OpKind, record: u64) -> Result<u64> {
        match kind {
            OpKind::Read => self.read()?,
            OpKind::ReadMissing => {
                if self.plan.target.get(&self.key, &mut |_| ())? {
                    return Err(self.wrong("found a key that was never written"));
                }
            }
            OpKind::Update if self.plan.workload.batch > 1 => {
                self.plan.target.put_batch(&self.batch)?;
                let bytes = self
                    .batch
                    .iter()
                    .map(|(key, value)| key.len() + value.len());
                self.user_written_bytes += bytes.sum::<usize>() as u64;
                return Ok(self.batch.len() as u64);
            }
            OpKind::Update => self.put_prepared()?,
            OpKind::Insert => {
                self.put_prepared()?;
                self.inserted += 1;
                // Readers on other threads may look for the record from now on.
                self.plan.inserted[self.thread]
                    .0
                    .store(self.inserted, Ordering::Release);
            }
            OpKind::ReadModifyWrite => {
                self.read()?;
                self.put_prepared()?;
            }
            OpKind::Scan => return self.scan(Direction::Forward),
            OpKind::ScanReverse => return self.scan(Direction::Reverse),
            OpKind::Delete => {
                self.plan.target.delete(&self.key)?;
                self.user_written_bytes += self.key.len() as u64;
            }
        }
        let _ = record;
        Ok(1)
    }

    #[inline]
    fn put_prepared(&mut self) -> Result<()> {
        self.plan.target.put(&self.key, &self.value)?;
        self.user_written_bytes += (self.key.len() + self.value.len()) as u64;
        Ok(())
    }

    /// Writes `record`, unmeasured.
    fn put(&mut self, record: u64) -> Result<()> {
        self.prepare(OpKind::Insert, record, 0);
        self.put_prepared()
    }

    #[inline]
    fn read(&mut self) -> Result<()> {
        let key = &self.key;
        let mut right = true;
        let found = self
            .plan
            .target
            .get(key, &mut |value| right = is_value_of(key, value))?;
        if !right {
            return Err(self.wrong("the value read is not one that was written there"));
        }
        if !found && self.plan.presence == Presence::All {
            return Err(self.wrong("a key that was written was not found"));
        }
        Ok(())
    }

    fn scan(&mut self, direction: Direction) -> Result<u64> {
        let limit = match self.plan.workload.nexts {
            Nexts::All => return self.scan_all(direction),
            Nexts::Exactly(nexts) => nexts + 1,
            Nexts::UpTo(most) => 1 + self.rng.below(most),
        };
        let start = &self.key;
        let (mut first, mut right, mut bytes) = (true, true, 0);
        let seen = self
            .plan
            .target
            .scan(Some(start), direction, limit, &mut |key, value| {
                if first {
                    first = false;
                    right = key == start.as_slice() && is_value_of(key, value);
                }
                bytes += value.len();
            })?;
        std::hint::black_box(bytes);
        if self.plan.presence == Presence::All && (!right || seen == 0) {
            return Err(self.wrong("a scan did not begin with the key sought"));
        }
        Ok(1)
    }

    fn scan_all(&mut self, direction: Direction) -> Result<u64> {
        let done = &self.plan.done[self.thread].0;
        let done_before = done.load(Ordering::Relaxed);
        let (mut seen, mut right, mut bytes) = (0u64, true, 0);
        let mut last: Vec<u8> = Vec::new();
        let count = self
            .plan
            .target
            .scan(None, direction, u64::MAX, &mut |key, value| {
                if seen % SCAN_CHECK_EVERY == 0 {
                    done.store(done_before + seen, Ordering::Relaxed);
                    let in_order = match direction {
                        _ if seen == 0 => true,
                        Direction::Forward => last.as_slice() < key,
                        Direction::Reverse => last.as_slice() > key,
                    };
                    right &= in_order && is_value_of(key, value);
                    last.clear();
                    last.extend_from_slice(key);
                }
                seen += 1;
                bytes += value.len();
            })?;
        std::hint::black_box(bytes);
        if !right {
            return Err(self.wrong("a scan is out of order, or shows values never written"));
        }
        let expected = self.plan.records;
        if self.plan.presence == Presence::All && count != expected {
            return Err(self.wrong(&format!("a scan saw {count} entries of {expected}")));
        }
        Ok(count)
    }

    #[cold]
    fn wrong(&self, what: &str) -> Error {
        let (target, workload) = (self.plan.target.name(), self.plan.workload);
        let key = self.key.escape_ascii();
        Error::wrong(format!("{target}, {workload}: {what} (key {key})"))
    }
}

/// Waits for a moment: asleep while it is far, awake when it is near, because a sleeper wakes some
/// 50 us late.
fn wait_until(moment: Instant) {
    const NEAR: Duration = Duration::from_micros(100);
    loop {
        let left = moment.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        if left > NEAR {
            thread::sleep(left - NEAR);
        } else {
            thread::yield_now();
        }
    }
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
