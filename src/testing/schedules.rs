//! Schedules: the parts that hand work from thread to thread, and the memtable that is read while
//! it changes, run under many interleavings that shuttle chooses.
//!
//! ```sh
//! RUSTFLAGS="--cfg shuttle" cargo test --lib schedules
//! ```
//!
//! What is run is the code itself, on the primitives of src/util/sync.rs: the commit pipeline with
//! a real log (in memory) and an engine that notes what it is given, the coordinator's signals,
//! snapshot registration, and the memtable's B+tree with nodes of four slots. shuttle makes every
//! atomic sequentially consistent, so this finds wrong interleavings, not wrong orderings; those
//! are what Miri and the stress tests are for.
//!
//! A failure prints a schedule; `shuttle::replay` with it in place of `check` repeats the run.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use shuttle::scheduler::{PctScheduler, RandomScheduler};

use super::{DIR, LARGE_BATCH_OPS, PipelineRig, STORE};
use crate::engine::{EngineHost, SnapshotTracker};
use crate::error::Result;
use crate::fs::Fs;
use crate::kv::Batch;
use crate::lsm::memtable::{BTreeIndex, MemtableIndex};
use crate::options::Durability;
use crate::store::commit::{Change, Condition, Outcome};
use crate::store::coordinator::Coordinator;
use crate::types::{KeyRange, KeySet, Op, SeqNo, SequencedOp};
use crate::util::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::util::sync::{Mutex, thread};
use crate::wal::Recovery;

/// Schedules of a test (`HEDGEROW_EFFORT` times as many): half of them random, half of them with
/// few switches at random places (Burckhardt and others, "A randomized scheduler with probabilistic
/// guarantees of finding bugs", 2010).
fn check(schedules: usize, test: impl Fn() + Send + Sync + 'static) {
    let effort = std::env::var("HEDGEROW_EFFORT").map(|effort| effort.parse());
    let schedules = schedules * effort.map_or(1, |effort| effort.expect("a number"));
    let mut config = shuttle::Config::new();
    // Opening a log takes more than the default; orderings are not what is tested here.
    config.stack_size = 1 << 20;
    config.silence_warnings = true;
    let test = Arc::new(test);
    let again = Arc::clone(&test);
    let random = RandomScheduler::new(schedules / 2);
    shuttle::Runner::new(random, config.clone()).run(move || test());
    let few_switches = PctScheduler::new(3, schedules / 2);
    shuttle::Runner::new(few_switches, config).run(move || again());
}

/// Notes what its engines are given, and checks that they may be given it.
#[derive(Debug, Default)]
struct Witness {
    /// By both.
    applied: Mutex<BTreeSet<SeqNo>>,
    engines: [OneEngine; 2],
}

#[derive(Debug, Default)]
struct OneEngine {
    busy: AtomicBool,
    last: AtomicU64,
}

/// The value of an operation that was committed with `Sync`.
const SYNC: &[u8] = b"sync";

impl Witness {
    fn apply(&self, engine: usize, ops: &[SequencedOp<'_>], coordinator: &Coordinator) {
        let OneEngine { busy, last } = &self.engines[engine];
        assert!(!busy.swap(true, Ordering::SeqCst), "E1: two at a time");
        for op in ops {
            let last = last.swap(op.seq.0, Ordering::SeqCst);
            assert!(op.seq.0 > last, "E1, P1: out of order");
            assert!(self.applied.lock().insert(op.seq), "applied twice");
            if matches!(op.op, Op::Put { value: SYNC, .. }) {
                let synced = coordinator.log().expect("attached").synced_seq();
                assert!(synced >= op.seq, "P2: applied before it was durable");
            }
        }
        busy.store(false, Ordering::SeqCst);
    }

    /// Everything up to here was applied.
    fn applied_up_to(&self) -> SeqNo {
        let applied = self.applied.lock();
        let whole = (1..).zip(applied.iter());
        let whole = whole.take_while(|(n, seq)| seq.0 == *n);
        whole.last().map_or(SeqNo::ZERO, |(_, seq)| *seq)
    }
}

/// A commit pipeline, and what its engines were given.
struct Rig {
    parts: PipelineRig,
    witness: Arc<Witness>,
}

impl Rig {
    fn new() -> Self {
        let witness = Arc::new(Witness::default());
        let noting = Arc::clone(&witness);
        let parts = PipelineRig::new(|coordinator, id| {
            let (noting, coordinator) = (Arc::clone(&noting), Arc::clone(coordinator));
            Box::new(move |ops| {
                noting.apply(id.0 as usize - 1, ops, &coordinator);
                Ok(())
            })
        });
        Self { parts, witness }
    }

    fn commit(&self, keyspace: usize, durability: Durability) -> Result<()> {
        let value = match durability {
            Durability::Sync => SYNC,
            Durability::Buffered => &[7; 60],
        };
        let change = Change::One {
            keyspace: &self.parts.keyspaces[keyspace],
            op: Op::Put { key: b"key", value },
        };
        self.parts.pipeline.commit(change, durability).map(|_| ())
    }

    /// An operation on each keyspace in one commit.
    fn commit_batch(&self) -> Result<()> {
        let parts = self.parts.keyspaces.iter().map(|keyspace| {
            let mut batch = Batch::new();
            batch.put(b"key", b"buffered");
            (Arc::clone(keyspace), batch)
        });
        let change = Change::Many(parts.collect());
        self.parts
            .pipeline
            .commit(change, Durability::Buffered)
            .map(|_| ())
    }

    /// A large batch for each of some keyspaces, in one commit.
    fn commit_large(&self, keyspaces: Range<usize>, durability: Durability) -> Result<()> {
        let parts = keyspaces.map(|keyspace| {
            let mut batch = Batch::new();
            // Engines get them sorted.
            for key in (0..LARGE_BATCH_OPS as u8).rev() {
                batch.put([key], b"buffered");
            }
            (Arc::clone(&self.parts.keyspaces[keyspace]), batch)
        });
        let change = Change::Many(parts.collect());
        self.parts.pipeline.commit(change, durability).map(|_| ())
    }

    /// What is published has been applied, at any moment.
    fn check_published(&self) {
        let published = self.parts.snapshot_tracker.published();
        let applied = self.witness.applied_up_to();
        assert!(applied >= published, "published before it was applied");
    }

    /// Every commit that was applied, and nothing else, is published.
    fn check_between_commits(&self) {
        let taken = self.parts.pipeline.between_commits(|| {
            let published = self.parts.snapshot_tracker.published();
            let last = self.witness.applied.lock().last().copied();
            let last = last.unwrap_or(SeqNo::ZERO);
            assert!(published <= last, "published before it was applied");
            // No engine has gone beyond it.
            (published == last).then_some(())
        });
        taken.unwrap();
    }

    /// The records that a recovery finds.
    fn recovered(&self) -> SeqNo {
        let shared: Arc<dyn Fs> = Arc::new(self.parts.fs.crash());
        let mut recovery = Recovery::open(shared, Path::new(DIR), STORE).unwrap();
        recovery
            .replay(SeqNo::ZERO, SeqNo::ZERO, &mut |_| Ok(()))
            .unwrap()
    }
}

fn spawn_all(tasks: Vec<Box<dyn FnOnce() + Send>>) {
    let threads: Vec<_> = tasks.into_iter().map(thread::spawn).collect();
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn commits_are_handed_over() {
    check(1500, || {
        let host = Arc::new(Rig::new());
        let mut tasks: Vec<Box<dyn FnOnce() + Send>> = Vec::new();
        for (n, durabilities) in [
            [Durability::Sync, Durability::Buffered],
            [Durability::Buffered, Durability::Sync],
            [Durability::Buffered, Durability::Buffered],
        ]
        .into_iter()
        .enumerate()
        {
            let host = Arc::clone(&host);
            tasks.push(Box::new(move || {
                for durability in durabilities {
                    let before = host.parts.snapshot_tracker.published();
                    host.commit(n % 2, durability).unwrap();
                    let after = host.parts.snapshot_tracker.published();
                    assert!(after > before, "acknowledged and not visible");
                    if durability == Durability::Sync {
                        let synced = host.parts.log.synced_seq();
                        assert!(synced > before, "acknowledged and not durable");
                    }
                }
            }));
        }
        let maintained = Arc::clone(&host);
        tasks.push(Box::new(move || {
            maintained.parts.log.prepare().unwrap();
            maintained.check_between_commits();
        }));
        let batched = Arc::clone(&host);
        tasks.push(Box::new(move || batched.commit_batch().unwrap()));
        let watched = Arc::clone(&host);
        tasks.push(Box::new(move || {
            (0..6).for_each(|_| watched.check_published());
        }));
        spawn_all(tasks);
        assert_eq!(host.parts.snapshot_tracker.published(), SeqNo(8));
        host.check_between_commits();
        assert!(host.recovered() >= host.parts.log.synced_seq());
    });
}

/// Large batches are visible before the engines have them, and then until those have.
#[test]
fn large_batches_are_staged_beside_other_commits() {
    check(1000, || {
        let host = Arc::new(Rig::new());
        let mut tasks: Vec<Box<dyn FnOnce() + Send>> = Vec::new();
        for (keyspaces, durability) in [
            (0..1, Durability::Buffered),
            (0..2, Durability::Sync),
            (1..2, Durability::Buffered),
        ] {
            let host = Arc::clone(&host);
            tasks.push(Box::new(move || {
                host.commit_large(keyspaces.clone(), durability).unwrap();
                host.commit(keyspaces.start, Durability::Buffered).unwrap();
            }));
        }
        let watched = Arc::clone(&host);
        tasks.push(Box::new(move || {
            for _ in 0..4 {
                let published = watched.parts.snapshot_tracker.published();
                let is_staged = watched.parts.keyspaces.each_ref().map(|keyspace| {
                    let key = keyspace.get_value(&[0]).unwrap();
                    key.is_some()
                });
                // The engines of the rig have no entries: what is found is of a batch.
                let applied = watched.witness.applied_up_to();
                assert!(
                    is_staged.contains(&true) || applied >= published,
                    "lost for a moment"
                );
            }
        }));
        spawn_all(tasks);
        let all = SeqNo(4 * LARGE_BATCH_OPS as u64 + 3);
        assert_eq!(host.parts.snapshot_tracker.published(), all);
        assert_eq!(host.witness.applied_up_to(), all);
        host.parts.log.sync().unwrap();
        assert_eq!(host.recovered(), all);
    });
}

/// Of commits that rely on a key none succeeds if the key was written between what it has seen and
/// its place in the order.
#[test]
fn conditions_hold_where_commits_get_their_order() {
    check(1500, || {
        let host = Arc::new(Rig::new());
        let committed = Arc::new(Mutex::new(Vec::new()));
        let tasks = [Durability::Sync, Durability::Buffered, Durability::Buffered].map(|last| {
            let (host, committed) = (Arc::clone(&host), Arc::clone(&committed));
            let task: Box<dyn FnOnce() + Send> = Box::new(move || {
                for durability in [Durability::Buffered, last] {
                    let value = match durability {
                        Durability::Sync => SYNC,
                        Durability::Buffered => b"buffered",
                    };
                    let pipeline = &host.parts.pipeline;
                    let watch = pipeline.watch();
                    let since = watch.since();
                    assert!(host.parts.snapshot_tracker.published() >= since);
                    let keyspace = &host.parts.keyspaces[0];
                    let mut batch = Batch::new();
                    batch.put(b"key", value);
                    let condition = Condition {
                        since,
                        reads: &[(keyspace.id, KeySet::of(&KeyRange::one(b"key")))],
                        is_unseen: false,
                    };
                    let parts = vec![(Arc::clone(keyspace), batch)];
                    let outcome = pipeline.commit_if(parts, durability, &condition, &|_| ());
                    if let Outcome::Committed(seq) = outcome.unwrap() {
                        committed.lock().push((since, seq));
                    }
                }
            });
            task
        });
        spawn_all(tasks.into());
        let committed = committed.lock();
        assert!(!committed.is_empty());
        for (since, seq) in committed.iter() {
            let between = |(_, other): &&(SeqNo, SeqNo)| other > since && other < seq;
            let foiled = committed.iter().find(between);
            assert!(foiled.is_none(), "{seq} relies on {since}, and {foiled:?}");
        }
    });
}

#[test]
fn a_failed_sync_fails_all_that_wait_for_it() {
    check(1500, || {
        let host = Arc::new(Rig::new());
        host.commit(0, Durability::Sync).unwrap();
        host.parts.fs.fail_after(2, ErrorKind::Other);
        let acknowledged = Arc::new(AtomicU64::new(0));
        let tasks = (0..3).map(|n| {
            let (host, acknowledged) = (Arc::clone(&host), Arc::clone(&acknowledged));
            let task: Box<dyn FnOnce() + Send> = Box::new(move || {
                for durability in [Durability::Sync, Durability::Buffered] {
                    let durability = if n == 2 { Durability::Sync } else { durability };
                    if host.commit(n % 2, durability).is_ok() && durability == Durability::Sync {
                        acknowledged.fetch_add(1, Ordering::SeqCst);
                    }
                }
            });
            task
        });
        spawn_all(tasks.collect());
        host.check_between_commits();
        // No thread is left waiting, or this would not be reached. What was acknowledged is there.
        let survived = host.recovered();
        let acknowledged = acknowledged.load(Ordering::SeqCst);
        assert!(survived.0 > acknowledged, "an acknowledged commit is lost");
        assert!(host.commit(0, Durability::Sync).is_err(), "P3: it goes on");
    });
}

#[test]
fn no_wake_up_is_lost() {
    check(3000, || {
        let coordinator = Arc::new(Coordinator::default());
        let done = Arc::new(AtomicU64::new(0));
        let mut tasks: Vec<Box<dyn FnOnce() + Send>> = Vec::new();
        for waits_for_work in [true, false, false] {
            let (coordinator, done) = (Arc::clone(&coordinator), Arc::clone(&done));
            tasks.push(Box::new(move || {
                loop {
                    // As the store's threads do: count, look, sleep.
                    let seen = if waits_for_work {
                        coordinator.work_count()
                    } else {
                        coordinator.progress_count()
                    };
                    if done.load(Ordering::SeqCst) == 2 {
                        break;
                    }
                    if waits_for_work {
                        coordinator.wait_for_work(seen, Duration::MAX);
                    } else {
                        coordinator.wait_for_progress(seen, Duration::MAX);
                    }
                }
            }));
        }
        for _ in 0..2 {
            let (coordinator, done) = (Arc::clone(&coordinator), Arc::clone(&done));
            tasks.push(Box::new(move || {
                done.fetch_add(1, Ordering::SeqCst);
                coordinator.progressed();
            }));
        }
        spawn_all(tasks);
    });
}

#[test]
fn a_snapshot_that_is_missed_is_a_later_one() {
    check(3000, || {
        let snapshot_tracker = Arc::new(SnapshotTracker::default());
        let registered = Arc::new(Mutex::new(Vec::new()));
        let answers = Arc::new(Mutex::new(Vec::new()));
        let mut tasks: Vec<Box<dyn FnOnce() + Send>> = Vec::new();
        {
            let snapshot_tracker = Arc::clone(&snapshot_tracker);
            tasks.push(Box::new(move || {
                (1..=4).for_each(|seq| snapshot_tracker.publish(SeqNo(seq)));
            }));
        }
        for _ in 0..2 {
            let (snapshot_tracker, registered) =
                (Arc::clone(&snapshot_tracker), Arc::clone(&registered));
            tasks.push(Box::new(move || {
                let gone = snapshot_tracker.register();
                let stays = snapshot_tracker.register();
                registered.lock().push(stays.seq);
                let _ = snapshot_tracker.unregister(gone);
            }));
        }
        {
            let (snapshot_tracker, answers) = (Arc::clone(&snapshot_tracker), Arc::clone(&answers));
            tasks.push(Box::new(move || {
                for _ in 0..3 {
                    let live = snapshot_tracker.live();
                    answers.lock().push(live);
                }
            }));
        }
        spawn_all(tasks);
        let registered = registered.lock();
        for live in answers.lock().iter() {
            for seq in registered.iter() {
                assert!(
                    live.snapshots.contains(seq) || *seq >= live.published,
                    "a snapshot at {seq} was missed by {live:?}"
                );
            }
        }
        let mut expected = registered.clone();
        expected.sort_unstable();
        expected.dedup();
        assert_eq!(snapshot_tracker.live().snapshots, expected);
    });
}

/// Keys of a memtable in the order in which they are inserted.
const KEYS: [&str; 13] = [
    "m", "c", "x", "a", "p", "e", "z", "d", "b", "n", "o", "y", "f",
];

#[test]
fn the_memtable_is_read_while_it_changes() {
    check(1200, || {
        let index = Arc::new(BTreeIndex::default());
        // How many of the keys are there at least.
        let inserted = Arc::new(AtomicU64::new(0));
        let mut tasks: Vec<Box<dyn FnOnce() + Send>> = Vec::new();
        {
            let (index, inserted) = (Arc::clone(&index), Arc::clone(&inserted));
            tasks.push(Box::new(move || {
                for (seq, key) in (1u64..).zip(KEYS) {
                    index.insert(key.as_bytes(), seq << 8 | 1, &seq.to_le_bytes());
                    inserted.store(seq, Ordering::SeqCst);
                }
            }));
        }
        for reader in 0..2 {
            let (index, inserted) = (Arc::clone(&index), Arc::clone(&inserted));
            tasks.push(Box::new(move || {
                for _ in 0..2 {
                    let known = inserted.load(Ordering::SeqCst) as usize;
                    for key in &KEYS[..known] {
                        let found = index.get(key.as_bytes(), u64::MAX, &mut |entry| {
                            assert_eq!(entry.value, entry.seq.0.to_le_bytes());
                        });
                        assert!(found, "{key} was inserted and is not found");
                    }
                    scan(&index, &KEYS[..known], reader == 1);
                }
            }));
        }
        spawn_all(tasks);
        scan(&index, &KEYS, false);
        scan(&index, &KEYS, true);
    });
}

/// A scan is in order, repeats nothing, and finds all keys that were there when it began.
fn scan(index: &Arc<BTreeIndex>, known: &[&str], backwards: bool) {
    let mut cursor = Arc::clone(index).cursor();
    let mut found = BTreeMap::new();
    let mut last: Option<Vec<u8>> = None;
    if backwards {
        cursor.seek_last().unwrap();
    } else {
        cursor.seek_first().unwrap();
    }
    while cursor.is_valid() {
        let entry = cursor.entry();
        let key = entry.key.to_vec();
        assert_eq!(entry.value, entry.seq.0.to_le_bytes());
        if let Some(last) = &last {
            assert!((key < *last) == backwards && key != *last, "out of order");
        }
        found.insert(key.clone(), entry.seq);
        last = Some(key);
        if backwards {
            cursor.prev().unwrap();
        } else {
            cursor.next().unwrap();
        }
    }
    for key in known {
        assert!(found.contains_key(key.as_bytes()), "a scan missed {key}");
    }
}
