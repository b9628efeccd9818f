//! One thread of a run: takes its share of the operations, does them, checks the answers.

use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use super::plan::Plan;
use crate::data::is_value_of;
use crate::dataset::Presence;
use crate::error::{Error, Result};
use crate::histogram::Histogram;
use crate::rng::Rng;
use crate::targets::Direction;
use crate::workload::{Nexts, OpKind, Order};

/// A thread that nobody times looks at the clock once in this many operations.
const CLOCK_EVERY: u64 = 64;
/// A full scan reports progress and checks a value once in this many entries.
const SCAN_CHECK_EVERY: u64 = 64;

/// The state of one thread.
pub(super) struct Worker<'a> {
    plan: &'a Plan<'a>,
    thread: usize,
    rng: Rng,
    key: Vec<u8>,
    value: Vec<u8>,
    batch: Vec<(Vec<u8>, Vec<u8>)>,
    /// By the number of the kind.
    pub(super) histograms: [Option<Histogram>; OpKind::ALL.len()],
    inserted: u64,
    pub(super) user_written_bytes: u64,
}

impl<'a> Worker<'a> {
    pub(super) fn new(plan: &'a Plan<'a>, thread: usize) -> Self {
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
    pub(super) fn work(&mut self) -> Result<()> {
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
            // The first operation is done however late the thread got its turn: a run of none has
            // no rate.
            let may_be_over = turn > 0 || intended.is_some();
            if deadline.is_some() && may_be_over && (timed || turn % CLOCK_EVERY == 0) {
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
            let entries = self.execute(kind)?;
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

    /// What the extra thread of `Workload::with_writer` does. Every write is timed. It writes once
    /// at least, whatever the scheduler does: reads that no write came between are another
    /// workload.
    pub(super) fn overwrite_until_stopped(&mut self) -> Result<()> {
        loop {
            let record = self.rng.below(self.plan.records);
            self.prepare(OpKind::Update, record, 0);
            let begun = Instant::now();
            self.plan.target.put(&self.key, &self.value)?;
            let nanos = begun.elapsed().as_nanos() as u64;
            self.user_written_bytes += (self.key.len() + self.value.len()) as u64;
            if let Some(histogram) = &mut self.histograms[OpKind::Update as usize] {
                histogram.record(nanos);
            }
            if self.plan.stopped() {
                return Ok(());
            }
        }
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
    fn execute(&mut self, kind: OpKind) -> Result<u64> {
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
        Ok(1)
    }

    #[inline]
    fn put_prepared(&mut self) -> Result<()> {
        self.plan.target.put(&self.key, &self.value)?;
        self.user_written_bytes += (self.key.len() + self.value.len()) as u64;
        Ok(())
    }

    /// Writes `record`, unmeasured.
    pub(super) fn put(&mut self, record: u64) -> Result<()> {
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
