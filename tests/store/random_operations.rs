//! Random operations on both engines and the model in lockstep, under random tiny options.
//!
//! The seeds of [`SEEDS`](crate::regressions::SEEDS) come first. `HEDGEROW_SEED` names the first of
//! the other cases, `HEDGEROW_CASES` how many there are. A seed decides everything about its case
//! except how threads interleave: also whether it runs on the disk, or on the simulated one with
//! maps or without. A case that fails is shrunk, and printed with the command that
//! repeats it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hedgerow::fs::SimFs;
use support::lockstep::{Coverage, Op, Outcome, Run, Setting, draw};
use support::random::{Random, Source};
use support::rig::{effort, figure, from_env, report};

use crate::regressions::SEEDS;

/// Cases of the ordinary run.
const CASES: u64 = 140;
/// Cases for each unit of effort of a long run: more than two million operations.
const CASES_PER_EFFORT: u64 = 240;
/// Operations of a case. Long enough for several levels of tables and of pages.
const OPERATIONS: usize = 10_000;
/// How long to look for a shorter sequence that fails too.
const SHRINKING: Duration = Duration::from_secs(60);
/// Sets the number that decides about maps apart from those that decide about the rest.
const MAPS_SALT: u64 = 0x4D41_5053;

#[test]
fn agree_on_every_engine() {
    let first = from_env("HEDGEROW_SEED").unwrap_or(0x5EED);
    let usual = match effort() {
        1 => CASES,
        effort => effort * CASES_PER_EFFORT,
    };
    let cases = from_env("HEDGEROW_CASES").unwrap_or(usual);
    // What failed once comes first, unless a single case is repeated.
    let known = if cases > 1 { SEEDS } else { &[] };
    let seeds: Vec<u64> = known
        .iter()
        .copied()
        .chain((0..cases).map(|case| first.wrapping_add(case)))
        .collect();
    let mapped = seeds.iter().filter(|seed| Disk::of(**seed) == Disk::Mapped);
    let mapped = mapped.count();
    let next = AtomicU64::new(0);
    let total = Mutex::new(Coverage::default());
    let failure = Mutex::new(None);
    let threads = std::thread::available_parallelism()
        .map_or(2, usize::from)
        .min(8);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while failure.lock().unwrap().is_none() {
                    let case = next.fetch_add(1, Ordering::Relaxed);
                    let Some(&seed) = seeds.get(case as usize) else {
                        break;
                    };
                    match run_case(seed) {
                        Ok(coverage) => total.lock().unwrap().add(&coverage),
                        Err(story) => *failure.lock().unwrap() = Some((seed, story)),
                    }
                }
            });
        }
    });
    if let Some((seed, story)) = failure.into_inner().unwrap() {
        panic!(
            "{story}\n\nrepeat with: HEDGEROW_SEED={seed:#x} HEDGEROW_CASES=1 \
             cargo test --test store random_operations"
        );
    }
    let total = total.into_inner().unwrap();
    report(format_args!(
        "random operations: {} operations, {} commits, {} staged batches, {} loads, {} crashes, \
         {} kills, {} interrupted recoveries, {} reopens, {} reads of \
         snapshots, {} verifications, in {} cases, {mapped} of them with simulated maps, from seed \
         {first:#x}",
        total.operations,
        total.commits,
        total.staged_batches,
        total.loads,
        total.crashes,
        total.kills,
        total.interrupted_recoveries,
        total.reopens,
        total.snapshot_reads,
        total.verifications,
        seeds.len(),
    ));
    let is_whole = cases >= CASES;
    assert!(
        total.staged_batches > 0 && total.loads > 0 && mapped > 0 || !is_whole,
        "{total:?}"
    );
    figure("simulated operations", total.operations);
}

/// Where a case runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Disk {
    /// In a directory of the operating system.
    Real,
    /// In memory, where nothing can be mapped: the options of maps do nothing.
    Unmapped,
    /// In memory, with maps, where the options want them. Stores into the log's map are lost with
    /// the power like writes.
    Mapped,
}

impl Disk {
    /// The disk of a case. What failed once without maps runs without them.
    fn of(seed: u64) -> Self {
        let is_mapped = !SEEDS.contains(&seed) && Random::new(seed ^ MAPS_SALT).one_in(2);
        match Random::new(seed).one_in(5) {
            true => Self::Real,
            false if is_mapped => Self::Mapped,
            false => Self::Unmapped,
        }
    }
}

/// One case; `Err` tells the story of the failure.
fn run_case(seed: u64) -> Outcome<Coverage> {
    let disk = Disk::of(seed);
    let mut random = Random::new(seed);
    // Decides about the disk.
    random.bits();
    let setting_seed = random.bits();
    let count = match disk {
        Disk::Real => OPERATIONS / 4,
        Disk::Unmapped | Disk::Mapped => OPERATIONS,
    };
    let ops: Vec<Op> = (0..count).map(|_| draw(&mut random)).collect();
    run_quietly(setting_seed, disk, &ops).map_err(|(at, reason)| {
        let short = shrink(setting_seed, disk, ops[..at].to_vec());
        let (_, short_reason) = run_quietly(setting_seed, disk, &short)
            .err()
            .unwrap_or((0, reason.clone()));
        let listing: String = short.iter().map(|op| format!("  {op:?}\n")).collect();
        format!(
            "seed {seed:#x} ({disk:?}): operation {at} of {count} failed: {reason}\n\nshrunk to {} \
             operations, which fail with: {short_reason}\n{listing}",
            short.len()
        )
    })
}

/// Runs operations on a new store. `Err` says after how many of them, and why.
fn run(setting_seed: u64, disk: Disk, ops: &[Op], done: &mut usize) -> Outcome<Coverage> {
    let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
    let in_memory = PathBuf::from("/store");
    let (path, mem) = match disk {
        Disk::Real => (dir.path().join("store"), None),
        Disk::Unmapped => (in_memory, Some(SimFs::new())),
        Disk::Mapped => (in_memory, Some(SimFs::with_maps())),
    };
    let setting = Setting::draw(&mut Random::new(setting_seed), path, mem);
    let mut run = Run::start(setting)?;
    for op in ops {
        *done += 1;
        run.step(op)?;
    }
    run.finish()
}

/// As [`run`], with a panic of the store told like any other failure.
fn run_quietly(setting_seed: u64, disk: Disk, ops: &[Op]) -> Result<Coverage, (usize, String)> {
    let mut done = 0;
    match catch_unwind(AssertUnwindSafe(|| run(setting_seed, disk, ops, &mut done))) {
        Ok(Ok(coverage)) => Ok(coverage),
        Ok(Err(reason)) => Err((done, reason)),
        Err(payload) => {
            let text = payload
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| payload.downcast_ref::<&str>().copied())
                .unwrap_or("no message");
            Err((done, format!("panic: {text}")))
        }
    }
}

/// Finds a shorter sequence that fails too.
fn shrink(setting_seed: u64, disk: Disk, ops: Vec<Op>) -> Vec<Op> {
    let end = Instant::now() + SHRINKING;
    let fails = |ops: &[Op]| {
        if Instant::now() > end {
            return None;
        }
        run_quietly(setting_seed, disk, ops)
            .err()
            .map(|(done, _)| done)
    };
    let mut ops = leave_out(ops, fails);
    // Batches hide what matters: take them apart, then leave out more.
    let apart: Vec<Op> = ops.iter().flat_map(Op::taken_apart).collect();
    if let Some(done) = fails(&apart) {
        ops = leave_out(apart[..done.min(apart.len())].to_vec(), fails);
    }
    ops
}

/// Leaves out stretches, long ones first, as long as the rest still fails. `fails` says
/// after how many operations.
fn leave_out(mut ops: Vec<Op>, fails: impl Fn(&[Op]) -> Option<usize>) -> Vec<Op> {
    let mut stretch = ops.len() / 2;
    while stretch > 0 {
        let mut at = 0;
        while at < ops.len() {
            let mut fewer = ops.clone();
            fewer.drain(at..(at + stretch).min(ops.len()));
            match fails(&fewer) {
                Some(done) => {
                    fewer.truncate(done);
                    ops = fewer;
                }
                None => at += stretch,
            }
        }
        stretch /= 2;
    }
    ops
}
