//! A workload on a target, ready to run: what its threads share.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use hedgerow::Durability;

use crate::data::{Keys, Values};
use crate::dataset::{DataSet, Presence};
use crate::distribution::{Chooser, Distribution, fnv1a64};
use crate::error::{Error, Result};
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

    /// Operations done by all threads.
    pub(super) fn ops_done(&self) -> u64 {
        self.done
            .iter()
            .map(|done| done.0.load(Ordering::Relaxed))
            .sum()
    }

    /// Makes every thread stop after its current operation.
    pub(super) fn ask_to_stop(&self) {
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

    pub(super) fn inserted_record(&self, thread: usize, turn: u64) -> u64 {
        self.records + turn * self.threads as u64 + thread as u64
    }
}
