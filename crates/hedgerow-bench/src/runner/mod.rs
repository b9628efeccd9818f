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
use std::time::Instant;

use self::plan::Plan;
use crate::dataset::DataSet;
use crate::error::Result;
use crate::machine::{Usage, disk_bytes};
use crate::outcome::{Interval, Outcome, Stalls};
use crate::targets::Target;
use crate::workload::{Nexts, Workload};

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
