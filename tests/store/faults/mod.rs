//! Every operation on the file system fails once, in every way that its kind can fail.
//!
//! Each of the [workloads] runs undisturbed first, which says how many operations of each kind it
//! asks of the file system; then once for each of them and each way to fail. The [driver] holds the
//! store to its promises: an operation fails or does not, nothing is partly visible, reads are
//! right or errors, what failed can be tried again once the disk works; a store whose log could not
//! be synced takes no more writes; and opened again, on what the process left and on what a power
//! loss would leave, it holds the state after a prefix of its commits with every durable one.
//!
//! A failure prints its position, which repeats it:
//! `HEDGEROW_FAULT="flush lsm Write 17 Short" cargo test --test store faults`.

mod driver;
mod found;
mod freed;
mod workloads;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use hedgerow::fs::{Fault, FaultFs, OpKind, SimFs};
use hedgerow::{Durability, Options};
use support::rig::{effort, figure, report};
use support::sizes::{Variant, single_threaded};

use driver::{Driver, Position};
use workloads::Workload;

/// At effort 1 one position in so many is tried, other ones of each kind and fault.
const SAMPLED: u64 = 16;
const THREADS: usize = 2;
/// Which pages a checkpoint may reuse depends on when readers were last seen, so the last
/// operations of a run are not there in every run.
const TRIES: u32 = 50;

const READS: &[OpKind] = &[
    OpKind::Open,
    OpKind::ReadDir,
    OpKind::Exists,
    OpKind::Len,
    OpKind::Read,
    OpKind::Map,
];
const CHANGES: &[OpKind] = &[
    OpKind::Create,
    OpKind::CreateDir,
    OpKind::Rename,
    OpKind::Remove,
    OpKind::RemoveDir,
    OpKind::SyncDir,
    OpKind::Write,
    OpKind::SetLen,
    OpKind::Sync,
];

/// A faulty disk and options for a store on it.
fn disk() -> (FaultFs, SimFs, Options) {
    let mem = SimFs::new();
    let fs = FaultFs::new(Arc::new(mem.clone()));
    let options = single_threaded(Arc::new(fs.clone())).durability(Durability::Sync);
    (fs, mem, options)
}

/// The ways in which an operation of a kind can fail, each with what fails from then on.
fn ways(kind: OpKind) -> Vec<(Fault, &'static [OpKind])> {
    use Fault::{Arrived, Full, Io, Short, SyncDropped, SyncLost};
    const ONCE: &[OpKind] = &[];
    let space: &[OpKind] = &OpKind::TAKING_SPACE;
    match kind {
        OpKind::Open | OpKind::Read => vec![(Io, ONCE), (Io, READS)],
        OpKind::ReadDir
        | OpKind::Exists
        | OpKind::Lock
        | OpKind::Len
        | OpKind::Map
        | OpKind::MapMut => vec![(Io, ONCE)],
        OpKind::Create | OpKind::CreateDir | OpKind::SetLen => {
            vec![(Io, ONCE), (Full, ONCE), (Arrived, ONCE), (Full, space)]
        }
        OpKind::Write => vec![
            (Io, ONCE),
            (Full, ONCE),
            (Short, ONCE),
            (Arrived, ONCE),
            (Full, space),
            (Short, space),
            (Io, CHANGES),
        ],
        OpKind::Rename | OpKind::Remove | OpKind::RemoveDir => {
            vec![(Io, ONCE), (Arrived, ONCE), (Io, CHANGES)]
        }
        OpKind::Sync => vec![
            (SyncDropped, ONCE),
            (SyncLost, ONCE),
            (Arrived, ONCE),
            (SyncLost, &[OpKind::Sync, OpKind::SyncDir]),
        ],
        OpKind::SyncDir => vec![(Io, ONCE), (Arrived, ONCE)],
    }
}

struct Task {
    workload: Workload,
    variant: Variant,
    position: Position,
}

impl Task {
    fn label(&self) -> String {
        let Position {
            kind,
            nth,
            fault,
            lasting,
        } = self.position;
        let (name, engine) = (self.workload.0, self.variant.name());
        let lasts = if lasting.is_empty() {
            String::new()
        } else {
            format!(" and then all {lasting:?}")
        };
        format!("{name} {engine} {kind:?} {nth} {fault:?}{lasts}")
    }
}

/// All positions of a workload.
fn positions(workload: Workload, variant: Variant) -> Vec<Task> {
    let mut driver = Driver::new(variant, None);
    workload.1(&mut driver);
    let counts = driver.counts();
    driver.finish();
    let mut tasks = Vec::new();
    for (kind, count) in counts {
        for (fault, lasting) in ways(kind) {
            tasks.extend((0..count).map(|nth| Task {
                workload,
                variant,
                position: Position {
                    kind,
                    nth,
                    fault,
                    lasting,
                },
            }));
        }
    }
    tasks
}

fn run(task: &Task) -> Result<(), String> {
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        for _ in 0..TRIES {
            let mut driver = Driver::new(task.variant, Some(task.position));
            task.workload.1(&mut driver);
            let fired = driver.fired() > 0;
            driver.finish();
            if fired {
                return;
            }
        }
        panic!("the workload has no such operation");
    }));
    outcome.map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        format!("{}: {}", task.label(), text.unwrap_or_default())
    })
}

/// The workloads about expiry and filters have the background work that they are about.
#[test]
fn entries_leave_while_workloads_run() {
    for variant in Variant::ALL {
        for (name, workload) in workloads::ALL {
            if ["expiry", "filters"].contains(&name) {
                let mut driver = Driver::new(variant, None);
                workload(&mut driver);
                let left = driver.left_entries();
                assert!(left > 5, "{name} on {}: {left}", variant.name());
                driver.finish();
            }
        }
    }
}

#[test]
fn at_every_position() {
    let filter = std::env::var("HEDGEROW_FAULT").ok();
    let mut possible = 0;
    let mut tasks = Vec::new();
    let stride = if effort() >= 10 { 1 } else { SAMPLED };
    for (number, workload) in workloads::ALL.into_iter().enumerate() {
        for variant in Variant::ALL {
            let all = positions(workload, variant);
            possible += all.len() as u64;
            tasks.extend(all.into_iter().enumerate().filter_map(|(at, task)| {
                let chosen = match &filter {
                    Some(filter) => task.label().contains(filter.as_str()),
                    None => (at as u64 + number as u64).is_multiple_of(stride),
                };
                chosen.then_some(task)
            }));
        }
    }
    let next = AtomicUsize::new(0);
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while let Some(task) = tasks.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(failure) = run(task) {
                        failures.lock().unwrap().push(failure);
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    for failure in failures.iter().take(400) {
        report(format_args!("{failure}"));
    }
    assert!(
        failures.is_empty(),
        "{} of {} positions went wrong",
        failures.len(),
        tasks.len()
    );
    figure("fault positions", tasks.len() as u64);
    figure("fault positions possible", possible);
}
