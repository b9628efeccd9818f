use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use super::plan::SCAN_PASSES;
use super::*;
use crate::error::Error;
use crate::targets::hedgerow::ModelTarget;
use crate::targets::{Direction, TargetOptions};
use crate::workload::{OpKind, Params, WORKLOADS};

fn small() -> Params {
    Params {
        records: 500,
        latency_every: 3,
        interval: Duration::from_millis(1),
        ..Params::default()
    }
}

fn workload(request: &str) -> Workload {
    request.parse().unwrap()
}

fn model() -> Box<dyn Target> {
    ModelTarget::open(Path::new("."), &TargetOptions::default()).unwrap()
}

/// Runs workloads one after the other on one model.
fn run_all(params: &Params, requests: &[&str]) -> Result<Vec<Outcome>> {
    let dir = tempfile::tempdir().unwrap();
    let (target, mut data) = (model(), DataSet::new(params)?);
    let run_one = |request: &&str| run(&*target, dir.path(), &workload(request), &mut data);
    requests.iter().map(run_one).collect()
}

#[test]
fn every_workload_runs_with_one_thread_and_with_three() {
    for threads in [1, 3] {
        for workload in &WORKLOADS {
            let params = Params { threads, ..small() };
            let name = workload.name;
            let requests = if workload.fills {
                vec![name]
            } else {
                vec!["fillrandom", name]
            };
            let outcomes = run_all(&params, &requests).unwrap();
            let outcome = outcomes.last().unwrap();
            let passes = match workload.nexts {
                Nexts::All => threads as u64 * SCAN_PASSES,
                _ => 1,
            };
            assert_eq!(outcome.ops, params.ops_of(workload) * passes, "{name}");
            assert_eq!(
                (outcome.threads, outcome.workload.as_str()),
                (threads, name)
            );
            let ops: u64 = outcome.series.iter().map(|interval| interval.ops).sum();
            assert_eq!(ops, outcome.ops, "{name}: the series is the whole run");
            assert!(!outcome.latency_ns.is_empty(), "{name}");
            assert_eq!(outcome.user_written_bytes > 0, workload.writes(), "{name}");
        }
    }
}

#[test]
fn a_fill_writes_every_record_once() {
    for request in ["fillseq", "fillrandom@3", "fillbatch:7@2", "fillbatch"] {
        // A full scan fails unless it sees exactly the records.
        let outcomes = run_all(&small(), &[request, "readseq", "readreverse@2"]).unwrap();
        assert_eq!(outcomes[0].user_written_bytes, 500 * 116, "{request}");
        assert_eq!(outcomes[1].ops, 500 * SCAN_PASSES);
        assert_eq!(outcomes[0].live_bytes, 500 * 116);
    }
}

#[test]
fn mixes_have_their_shares() {
    let params = Params {
        ops: Some(20_000),
        latency_every: 1,
        ..small()
    };
    let outcomes = run_all(&params, &["fillseq", "ycsb-b", "ycsb-f"]).unwrap();
    for (outcome, kind, share) in [
        (&outcomes[1], OpKind::Update, 0.05),
        (&outcomes[2], OpKind::ReadModifyWrite, 0.5),
    ] {
        let (_, histogram) = outcome.latency_ns.iter().find(|(k, _)| *k == kind).unwrap();
        let found = histogram.count() as f64 / outcome.ops as f64;
        assert!((found - share).abs() < 0.02, "{kind}: {found}");
    }
}

#[test]
fn inserted_records_are_there_afterwards() {
    let params = Params {
        ops: Some(4000),
        threads: 3,
        ..small()
    };
    let dir = tempfile::tempdir().unwrap();
    let (target, mut data) = (model(), DataSet::new(&params).unwrap());
    for request in ["fillseq", "ycsb-d", "ycsb-e", "readseq", "readrandom"] {
        run(&*target, dir.path(), &workload(request), &mut data).unwrap();
    }
    assert!(data.records() > 600, "{}", data.records());
}

#[test]
fn what_cannot_be_run_is_refused() {
    for (requests, part) in [
        (vec!["readrandom"], "run fillrandom"),
        (vec!["fillseq", "fillrandom"], "needs a new one"),
        (vec!["fillseq", "deleterandom", "readseq"], "needs records"),
    ] {
        let error = run_all(&small(), &requests).unwrap_err();
        assert!(matches!(error, Error::Usage(_)));
        assert!(error.to_string().contains(part), "{error}");
    }
    // What was half deleted may be read, and may miss.
    let half = Params {
        ops: Some(250),
        ..small()
    };
    run_all(&half, &["fillseq", "deleterandom", "readrandom", "readseq"]).unwrap();
}

/// No clock of the test decides: the duration is over before the first operation, and the threads
/// see it when they look for the first time after that.
#[test]
fn a_duration_ends_a_run() {
    let dir = tempfile::tempdir().unwrap();
    let (target, mut data) = (model(), DataSet::new(&small()).unwrap());
    let limit = Some(Duration::from_nanos(1));
    data.params.duration = limit;
    let filled = run(&*target, dir.path(), &workload("fillseq"), &mut data).unwrap();
    assert_eq!(filled.ops, 500, "a fill runs to its end");
    data.params.ops = Some(u64::MAX);
    let outcome = run(&*target, dir.path(), &workload("readrandom@2"), &mut data).unwrap();
    // Each thread looks at the clock before every operation whose latency it measures, but not
    // before the first.
    assert_eq!(outcome.ops, 2 * small().latency_every);
    assert!(outcome.elapsed >= Duration::from_nanos(1));
}

/// On one core the readers of `readwhilewriting` were done before the writer had its first turn,
/// six times in forty, and the run had no write at all.
#[test]
fn a_writer_beside_readers_writes_whatever_the_scheduler_does() {
    let dir = tempfile::tempdir().unwrap();
    let (target, mut data) = (model(), DataSet::new(&small()).unwrap());
    run(&*target, dir.path(), &workload("fillseq"), &mut data).unwrap();
    let workload = workload("readwhilewriting");
    let plan = Plan::new(&*target, &workload, &data).unwrap();
    let mut writer = Worker::new(&plan, plan.threads);
    plan.ask_to_stop();
    writer.overwrite_until_stopped().unwrap();
    assert_eq!(writer.user_written_bytes, 116, "one record");
}

/// How a [`Faulty`] target misbehaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// The hundredth read takes 200 ms, as if the store stalled.
    StallsOnce,
    /// Reads find nothing.
    FindsNothing,
    /// Reads find a value that was never written.
    FindsGarbage,
    /// Scans end one entry too early.
    LosesTheLast,
}

/// The model with a fault.
struct Faulty {
    model: Box<dyn Target>,
    fault: Fault,
    reads: AtomicU64,
}

impl Faulty {
    fn new(fault: Fault) -> Self {
        Self {
            model: model(),
            fault,
            reads: AtomicU64::new(0),
        }
    }
}

impl Target for Faulty {
    fn name(&self) -> &str {
        "faulty"
    }

    fn settings(&self) -> String {
        format!("{:?}", self.fault)
    }

    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.model.put(key, value)
    }

    fn put_batch(&self, entries: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
        self.model.put_batch(entries)
    }

    fn delete(&self, key: &[u8]) -> Result<()> {
        self.model.delete(key)
    }

    fn get(&self, key: &[u8], read: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let nth = self.reads.fetch_add(1, Ordering::Relaxed);
        match self.fault {
            Fault::StallsOnce if nth == 100 => thread::sleep(Duration::from_millis(200)),
            Fault::FindsNothing => return Ok(false),
            Fault::FindsGarbage => {
                read(&[7; 100]);
                return Ok(true);
            }
            _ => {}
        }
        self.model.get(key, read)
    }

    fn scan(
        &self,
        start: Option<&[u8]>,
        direction: Direction,
        limit: u64,
        visit: &mut dyn FnMut(&[u8], &[u8]),
    ) -> Result<u64> {
        let limit = match self.fault {
            Fault::LosesTheLast => limit.min(small().records - 1),
            _ => limit,
        };
        self.model.scan(start, direction, limit, visit)
    }

    fn wait_idle(&self) -> Result<()> {
        Ok(())
    }
}

#[test]
fn a_fixed_rate_is_kept_and_measured_from_the_intended_start() {
    let target = Faulty::new(Fault::StallsOnce);
    let dir = tempfile::tempdir().unwrap();
    let mut data = DataSet::new(&small()).unwrap();
    run(&target, dir.path(), &workload("fillseq"), &mut data).unwrap();
    data.params.ops = Some(400);
    data.params.rate_per_s = Some(1000.0);
    let outcome = run(&target, dir.path(), &workload("readrandom"), &mut data).unwrap();
    // The schedule ends 399 ms after the start: never sooner, however fast the store is.
    assert!(
        outcome.elapsed >= Duration::from_millis(399),
        "{:?}",
        outcome.elapsed
    );
    let latencies = outcome.all_latencies();
    assert_eq!(
        latencies.count(),
        400,
        "at a fixed rate everything is measured"
    );
    // One call was slow; the operations due in its 200 ms waited for it, half of them for 100 ms
    // and longer.
    let long = latencies.count_at_least(Stalls::LONG_OP.as_nanos() as u64);
    assert!(long >= 95, "{long} operations waited");
    assert_eq!(outcome.stalls.long_ops, long);
}

#[test]
fn wrong_answers_end_a_run() {
    for (fault, request, part) in [
        (Fault::FindsNothing, "readrandom@2", "not found"),
        (
            Fault::FindsGarbage,
            "readrandom@2",
            "not one that was written",
        ),
        (Fault::FindsGarbage, "readmissing", "never written"),
        (Fault::LosesTheLast, "readseq", "saw 499 entries of 500"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let (target, mut data) = (Faulty::new(fault), DataSet::new(&small()).unwrap());
        run(&target, dir.path(), &workload("fillseq"), &mut data).unwrap();
        let error = run(&target, dir.path(), &workload(request), &mut data).unwrap_err();
        assert!(matches!(error, Error::WrongResult(_)), "{error}");
        assert!(error.to_string().contains(part), "{error}");
    }
}
