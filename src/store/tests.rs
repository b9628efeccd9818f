//! Commits of several threads, and what becomes of a store in which something panics.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use super::batch_index::BatchIndex;
use super::commit::{Change, Condition, Outcome};
use super::staging::StagedBatch;
use crate::engine::SnapshotTracker;
use crate::error::{Error, Result};
use crate::fs::{Fs, SimFs};
use crate::kv::Batch;
use crate::options::{Durability, EngineKind, KeyspaceOptions, Options};
use crate::testing::{DIR, LARGE_BATCH_OPS, PipelineRig, STORE, Woken, before_a_commit_is_ordered};
use crate::types::{KeyRange, KeySet, Op, SeqNo, SequencedOp};
use crate::wal::Recovery;

/// A pipeline whose engine panics while `panics` is set.
fn rig(panics: &Arc<AtomicBool>) -> PipelineRig {
    let panics = Arc::clone(panics);
    PipelineRig::new(|_, _| {
        let panics = Arc::clone(&panics);
        Box::new(move |_| {
            assert!(!panics.load(Ordering::SeqCst), "half of it is applied");
            Ok(())
        })
    })
}

fn put(rig: &PipelineRig, durability: Durability) -> Result<SeqNo> {
    put_into(rig, 0, durability)
}

fn put_into(rig: &PipelineRig, keyspace: usize, durability: Durability) -> Result<SeqNo> {
    let change = Change::One {
        keyspace: &rig.keyspaces[keyspace],
        op: Op::Put {
            key: b"key",
            value: b"value",
        },
    };
    rig.pipeline.commit(change, durability)
}

fn assert_stopped(outcome: Result<SeqNo>) {
    match outcome {
        Err(Error::WritesStopped { cause }) => {
            assert!(matches!(*cause, Error::Panicked { .. }), "{cause}");
        }
        other => panic!("{other:?}"),
    }
}

/// The last operation that a recovery finds.
fn recovered(rig: &PipelineRig) -> SeqNo {
    let fs: Arc<dyn Fs> = Arc::new(rig.fs.crash());
    let mut recovery = Recovery::open(fs, Path::new(DIR), STORE).unwrap();
    recovery
        .replay(SeqNo::ZERO, SeqNo::ZERO, &mut |_| Ok(()))
        .unwrap()
}

/// A pipeline of two keyspaces. The receiver hears of each commit that is being applied: number of
/// the keyspace, operations. What becomes of one of the first keyspace has to be sent. A test moves
/// both ends into its scope, so that they go if it fails, and no commit waits for them.
fn side_by_side() -> (PipelineRig, Receiver<(u32, usize)>, Sender<Result<()>>) {
    let (begin, applying) = channel();
    let (outcome, outcomes) = channel();
    let outcomes = Arc::new(Mutex::new(outcomes));
    let rig = PipelineRig::new(|_, id| {
        let (begin, outcomes) = (begin.clone(), Arc::clone(&outcomes));
        Box::new(move |ops| {
            begin.send((id.0, ops.len())).unwrap();
            match id.0 {
                1 => outcomes.lock().recv().unwrap(),
                _ => Ok(()),
            }
        })
    });
    (rig, applying, outcome)
}

/// What an engine was given by a commit, and what was so at that moment.
struct Given {
    numbers: Vec<SeqNo>,
    published: SeqNo,
    synced: SeqNo,
}

/// A pipeline whose engines note what they are given.
fn noting() -> (PipelineRig, Arc<Mutex<Vec<Given>>>) {
    let given: Arc<Mutex<Vec<Given>>> = Arc::default();
    let tracker = Arc::new(OnceLock::<Arc<SnapshotTracker>>::new());
    let rig = PipelineRig::new(|coordinator, _| {
        let coordinator = Arc::clone(coordinator);
        let (given, tracker) = (Arc::clone(&given), Arc::clone(&tracker));
        Box::new(move |ops| {
            given.lock().push(Given {
                numbers: ops.iter().map(|op| op.seq).collect(),
                published: tracker.get().unwrap().published(),
                synced: coordinator.log().unwrap().synced_seq(),
            });
            Ok(())
        })
    });
    tracker.set(Arc::clone(&rig.snapshot_tracker)).unwrap();
    (rig, given)
}

/// Changes that go different ways: one operation, and batches for one keyspace and for two.
fn changes_of_each_kind(rig: &PipelineRig) -> [Change<'_>; 3] {
    let batch_for = |keyspace: &Arc<_>| {
        let mut batch = Batch::new();
        batch.put(b"a", b"value");
        batch.delete(b"b");
        (Arc::clone(keyspace), batch)
    };
    let [keyspace, _] = &rig.keyspaces;
    let op = Op::Delete { key: b"key" };
    [
        Change::One { keyspace, op },
        Change::Many(vec![batch_for(keyspace)]),
        Change::Many(rig.keyspaces.iter().map(batch_for).collect()),
    ]
}

#[test]
fn a_sync_commit_is_durable_before_engines_have_it() {
    let (rig, given) = noting();
    for change in changes_of_each_kind(&rig) {
        let last = rig.pipeline.commit(change, Durability::Sync).unwrap();
        let given = std::mem::take(&mut *given.lock());
        assert!(!given.is_empty() && given.iter().all(|given| given.synced >= last));
        assert_eq!(recovered(&rig), last);
    }
}

#[test]
fn a_commit_is_visible_when_all_of_its_engines_have_it() {
    for durability in [Durability::Buffered, Durability::Sync] {
        let (rig, given) = noting();
        for change in changes_of_each_kind(&rig) {
            let before = rig.snapshot_tracker.published();
            let last = rig.pipeline.commit(change, durability).unwrap();
            let given = std::mem::take(&mut *given.lock());
            assert!(!given.is_empty() && given.iter().all(|given| given.published == before));
            assert_eq!(rig.snapshot_tracker.published(), last);
        }
    }
}

#[test]
fn each_operation_has_a_number_of_its_own() {
    for durability in [Durability::Buffered, Durability::Sync] {
        let (rig, given) = noting();
        let mut last = SeqNo::ZERO;
        for change in changes_of_each_kind(&rig) {
            last = rig.pipeline.commit(change, durability).unwrap();
        }
        let given = std::mem::take(&mut *given.lock());
        let numbers: Vec<_> = given.into_iter().flat_map(|given| given.numbers).collect();
        let expected: Vec<_> = (1..=7).map(SeqNo).collect();
        assert_eq!((numbers, last), (expected, SeqNo(7)), "{durability:?}");
    }
}

/// What a commit relies on is looked at before the commit has its place in the order. What is
/// written between the two is a conflict all the same.
#[test]
fn a_write_just_before_a_commit_has_its_place_is_a_conflict() {
    for durability in [Durability::Buffered, Durability::Sync] {
        let rig = Arc::new(rig(&Arc::new(AtomicBool::new(false))));
        let [read, written] = &rig.keyspaces;
        let watch = rig.pipeline.watch();
        let condition = Condition {
            since: watch.since(),
            reads: &[(read.id, KeySet::of(&KeyRange::one(b"key")))],
            is_unseen: false,
        };
        let mut batch = Batch::new();
        batch.put(b"another", b"value");
        let parts = vec![(Arc::clone(written), batch)];
        let other = Arc::clone(&rig);
        before_a_commit_is_ordered(move || {
            put(&other, Durability::Buffered).unwrap();
        });
        let outcome = rig
            .pipeline
            .commit_if(parts, durability, &condition, &|_| ());
        match outcome.unwrap() {
            Outcome::Conflict(conflict) => assert_eq!(conflict.seq, SeqNo(1)),
            Outcome::Committed(seq) => panic!("{durability:?}: committed as {seq}"),
        }
        assert_eq!(rig.log.appended_seq(), SeqNo(1));
    }
}

/// Commits waited for one another, whatever they were about.
#[test]
fn commits_of_different_keyspaces_are_applied_side_by_side_and_published_in_order() {
    let (rig, applying, outcome) = side_by_side();
    let rig = &rig;
    std::thread::scope(move |scope| {
        let first = scope.spawn(move || put_into(rig, 0, Durability::Buffered));
        assert_eq!(applying.recv(), Ok((1, 1)));
        let second = scope.spawn(move || put_into(rig, 1, Durability::Buffered));
        // Before the first has ended.
        assert_eq!(applying.recv(), Ok((2, 1)));
        assert_eq!(rig.snapshot_tracker.published(), SeqNo::ZERO);
        outcome.send(Ok(())).unwrap();
        assert_eq!(first.join().unwrap().unwrap(), SeqNo(1));
        assert_eq!(second.join().unwrap().unwrap(), SeqNo(2));
    });
    assert_eq!(rig.snapshot_tracker.published(), SeqNo(2));
}

/// A thread that waited to apply its commit kept the log from all others.
#[test]
fn a_commit_that_waits_for_its_keyspace_holds_up_no_other() {
    let (rig, applying, outcome) = side_by_side();
    let rig = &rig;
    std::thread::scope(move |scope| {
        let first = scope.spawn(move || put_into(rig, 0, Durability::Buffered));
        assert_eq!(applying.recv(), Ok((1, 1)));
        let second = scope.spawn(move || put_into(rig, 0, Durability::Buffered));
        while rig.log.appended_seq() < SeqNo(2) {
            std::thread::yield_now();
        }
        let third = scope.spawn(move || put_into(rig, 1, Durability::Buffered));
        assert_eq!(applying.recv(), Ok((2, 1)));
        for _ in 0..2 {
            outcome.send(Ok(())).unwrap();
        }
        for (n, thread) in (1..).zip([first, second, third]) {
            assert_eq!(thread.join().unwrap().unwrap(), SeqNo(n));
        }
    });
}

/// The thread of the batch applied what waited at its first keyspace, and then waited for what it
/// was to apply to the second.
#[test]
fn a_batch_over_two_keyspaces_ends_whatever_waits_behind_it() {
    let (rig, applying, outcome) = side_by_side();
    let rig = &rig;
    std::thread::scope(move |scope| {
        let parts = rig.keyspaces.iter().map(|keyspace| {
            let mut batch = Batch::new();
            batch.put(b"key", b"value");
            (Arc::clone(keyspace), batch)
        });
        let change = Change::Many(parts.collect());
        let batch = scope.spawn(move || rig.pipeline.commit(change, Durability::Buffered));
        assert_eq!(applying.recv(), Ok((1, 1)));
        for (n, keyspace) in (3..).zip([1, 0]) {
            scope.spawn(move || put_into(rig, keyspace, Durability::Buffered).unwrap());
            while rig.log.appended_seq() < SeqNo(n) {
                std::thread::yield_now();
            }
        }
        for _ in 0..2 {
            outcome.send(Ok(())).unwrap();
        }
        assert_eq!(batch.join().unwrap().unwrap(), SeqNo(2));
    });
    assert_eq!(rig.snapshot_tracker.published(), SeqNo(4));
}

#[test]
fn a_commit_beside_one_that_fails_is_not_acknowledged() {
    let (rig, applying, outcome) = side_by_side();
    let rig = &rig;
    std::thread::scope(move |scope| {
        let first = scope.spawn(move || put_into(rig, 0, Durability::Buffered));
        assert_eq!(applying.recv(), Ok((1, 1)));
        let second = scope.spawn(move || put_into(rig, 1, Durability::Buffered));
        assert_eq!(applying.recv(), Ok((2, 1)));
        outcome.send(Err(Error::invalid("no"))).unwrap();
        assert!(first.join().unwrap().is_err());
        let second = second.join().unwrap();
        assert!(
            matches!(second, Err(Error::WritesStopped { .. })),
            "{second:?}"
        );
    });
    assert_eq!(rig.snapshot_tracker.published(), SeqNo::ZERO);
    assert!(put_into(rig, 1, Durability::Buffered).is_err());
}

/// Commits behind it waited for a large batch to be applied, whatever they were about.
#[test]
fn commits_to_other_keyspaces_do_not_wait_for_a_large_batch() {
    for durability in [Durability::Buffered, Durability::Sync] {
        let (rig, applying, outcome) = side_by_side();
        let rig = &rig;
        let mut large = Batch::new();
        for number in 0..LARGE_BATCH_OPS {
            large.put([number as u8], b"value");
        }
        let visible = SeqNo(LARGE_BATCH_OPS as u64);
        std::thread::scope(move |scope| {
            let parts = vec![(Arc::clone(&rig.keyspaces[0]), large)];
            let first = scope.spawn(move || rig.pipeline.commit(Change::Many(parts), durability));
            assert_eq!(applying.recv(), Ok((1, LARGE_BATCH_OPS)));
            assert_eq!(rig.snapshot_tracker.published(), visible);
            let found = rig.keyspaces[0].get_value(&[1]).unwrap();
            assert_eq!(found.as_deref(), Some(&b"value"[..]));
            // The log is kept for it: the engine of the rig has nothing.
            assert_eq!(rig.keyspaces[0].oldest_unpersisted(), Some(SeqNo(1)));
            assert_eq!(rig.keyspaces[1].get_value(&[1]).unwrap(), None);
            assert_eq!(put_into(rig, 1, durability).unwrap(), visible.next());
            assert_eq!(applying.recv(), Ok((2, 1)));
            // One to the keyspace itself is not logged before the engine has the batch.
            let third = scope.spawn(move || put_into(rig, 0, durability));
            assert_eq!(put_into(rig, 1, durability).unwrap(), SeqNo(visible.0 + 2));
            assert_eq!(applying.recv(), Ok((2, 1)));
            outcome.send(Ok(())).unwrap();
            assert_eq!(first.join().unwrap().unwrap(), visible);
            assert_eq!(rig.keyspaces[0].oldest_unpersisted(), None);
            assert_eq!(applying.recv(), Ok((1, 1)));
            outcome.send(Ok(())).unwrap();
            assert_eq!(third.join().unwrap().unwrap(), SeqNo(visible.0 + 3));
            assert_eq!(rig.keyspaces[0].get_value(&[1]).unwrap(), None);
        });
    }
}

/// Commits to other keyspaces waited for batches of a million operations of which no keyspace got
/// many, and for those with a single merge, or key with a versionstamp, beside a million puts.
#[test]
fn a_batch_that_is_large_in_all_or_for_the_most_part_is_staged() {
    let puts = |count| {
        let mut batch = Batch::new();
        for number in 0..count {
            batch.put([number as u8], b"value");
        }
        batch
    };
    let mut stamped = Batch::new();
    stamped.put_versionstamped_key(b"", b"", b"value");
    let mut merged = Batch::new();
    merged.merge(b"key", b"1");
    for durability in [Durability::Buffered, Durability::Sync] {
        let rests = [puts(LARGE_BATCH_OPS / 2), stamped.clone(), merged.clone()];
        for (case, rest) in rests.into_iter().enumerate() {
            let (rig, applying, outcome) = side_by_side();
            let rig = &rig;
            let first = match case {
                0 => puts(LARGE_BATCH_OPS - rest.len()),
                _ => puts(LARGE_BATCH_OPS),
            };
            let (first_ops, rest_ops) = (first.len(), rest.len());
            let visible = SeqNo((first_ops + rest_ops) as u64);
            let parts = vec![
                (Arc::clone(&rig.keyspaces[0]), first),
                (Arc::clone(&rig.keyspaces[1]), rest),
            ];
            std::thread::scope(move |scope| {
                let large = scope.spawn(move || {
                    let change = Change::Many(parts);
                    rig.pipeline.commit(change, durability)
                });
                if case > 0 {
                    assert_eq!(applying.recv(), Ok((2, rest_ops)), "not staged, so applied");
                }
                assert_eq!(applying.recv(), Ok((1, first_ops)));
                assert_eq!(rig.snapshot_tracker.published(), visible);
                let found = rig.keyspaces[0].get_value(&[1]).unwrap();
                assert_eq!(found.as_deref(), Some(&b"value"[..]));
                if case > 0 {
                    assert_eq!(put_into(rig, 1, durability).unwrap(), visible.next());
                    assert_eq!(applying.recv(), Ok((2, 1)));
                }
                outcome.send(Ok(())).unwrap();
                if case == 0 {
                    assert_eq!(applying.recv(), Ok((2, rest_ops)));
                }
                assert_eq!(large.join().unwrap().unwrap(), visible);
            });
        }
    }
}

/// The batch is visible by then, and stays so.
#[test]
fn a_large_batch_that_an_engine_cannot_apply_stops_the_writes() {
    let (rig, _applying, outcome) = side_by_side();
    let mut large = Batch::new();
    for number in 0..LARGE_BATCH_OPS {
        large.put([number as u8], b"value");
    }
    outcome.send(Err(Error::invalid("no"))).unwrap();
    let parts = vec![(Arc::clone(&rig.keyspaces[0]), large)];
    let failed = rig
        .pipeline
        .commit(Change::Many(parts), Durability::Buffered);
    assert!(failed.is_err());
    for keyspace in 0..2 {
        let stopped = put_into(&rig, keyspace, Durability::Buffered);
        assert!(
            matches!(stopped, Err(Error::WritesStopped { .. })),
            "{stopped:?}"
        );
    }
    assert!(rig.keyspaces[0].get_value(&[1]).unwrap().is_some());
}

/// What cannot be staged is applied by the thread that commits, whatever it meets there: all others
/// waited for it forever.
#[test]
fn a_panic_in_a_part_of_a_large_batch_stops_the_writes() {
    let rig = PipelineRig::new(|_, id| {
        Box::new(move |_| match id.0 {
            2 => panic!("no"),
            _ => Ok(()),
        })
    });
    let mut large = Batch::new();
    for number in 0..LARGE_BATCH_OPS {
        large.put([number as u8], b"value");
    }
    let mut merged = Batch::new();
    merged.merge(b"key", b"1");
    let parts = vec![
        (Arc::clone(&rig.keyspaces[0]), large),
        (Arc::clone(&rig.keyspaces[1]), merged),
    ];
    let change = Change::Many(parts);
    assert!(rig.pipeline.commit(change, Durability::Buffered).is_err());
    for durability in [Durability::Buffered, Durability::Sync] {
        assert_stopped(put_into(&rig, 0, durability));
    }
}

#[test]
fn a_panic_while_a_buffered_commit_is_applied_stops_the_writes() {
    let panics = Arc::new(AtomicBool::new(false));
    let rig = rig(&panics);
    let before = put(&rig, Durability::Buffered).unwrap();
    panics.store(true, Ordering::SeqCst);
    let unwound = catch_unwind(AssertUnwindSafe(|| put(&rig, Durability::Buffered)));
    assert!(unwound.is_err());
    panics.store(false, Ordering::SeqCst);
    for durability in [Durability::Buffered, Durability::Sync] {
        assert_stopped(put(&rig, durability));
    }
    let published = rig.snapshot_tracker.published();
    assert_eq!(published, before, "nothing half applied");
    // It was logged, so it is there after the next opening.
    assert_eq!(rig.log.appended_seq(), before.next());
    rig.log.sync().unwrap();
    assert_eq!(recovered(&rig), before.next());
}

#[test]
fn a_panic_of_a_leader_ends_the_commits_that_wait_for_it() {
    let panics = Arc::new(AtomicBool::new(true));
    let rig = rig(&panics);
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| put(&rig, Durability::Sync)))
            .collect();
        for writer in writers {
            match writer.join().unwrap() {
                Err(Error::Panicked { .. } | Error::WritesStopped { .. }) => {}
                other => panic!("{other:?}"),
            }
        }
    });
    assert_stopped(put(&rig, Durability::Sync));
    assert_eq!(rig.snapshot_tracker.published(), SeqNo::ZERO);
}

/// A commit whose record came while the leader was syncing counted as covered by that sync: it was
/// acknowledged before it was durable.
#[test]
fn a_record_that_comes_beside_a_sync_waits_for_the_next() {
    let rig = rig(&Arc::new(AtomicBool::new(false)));
    let log = Arc::clone(&rig.log);
    let (is_syncing, first) = (AtomicBool::new(false), AtomicBool::new(true));
    let (is_syncing, first) = (Arc::new(is_syncing), Arc::new(first));
    let (begun, only_once) = (Arc::clone(&is_syncing), Arc::clone(&first));
    rig.fs.on_change(move |_, operation| {
        if operation.op == "sync" && only_once.swap(false, Ordering::SeqCst) {
            begun.store(true, Ordering::SeqCst);
            // The bytes are on their way; another record is appended meanwhile.
            while log.appended_seq() < SeqNo(2) {
                std::thread::yield_now();
            }
        }
    });
    let durable_put = || {
        let seq = put(&rig, Durability::Sync).unwrap();
        assert!(rig.log.synced_seq() >= seq, "{seq} is acknowledged");
    };
    std::thread::scope(|scope| {
        scope.spawn(durable_put);
        while !is_syncing.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        scope.spawn(durable_put);
    });
    rig.fs.clear_hook();
    assert_eq!(recovered(&rig), SeqNo(2));
}

/// They are code of the user: one that commits waited for the log, which its own thread had locked.
#[test]
fn wakers_are_not_called_by_a_commit() {
    for fails in [false, true] {
        let slot = Mutex::new(None);
        let rig = PipelineRig::new(|coordinator, _| {
            *slot.lock() = Some(Arc::clone(coordinator));
            Box::new(|_| Ok(()))
        });
        let coordinator = slot.lock().take().unwrap();
        let seq = put(&rig, Durability::Buffered).unwrap();
        let woken = Arc::new(Woken::default());
        let waker = std::task::Waker::from(Arc::clone(&woken));
        coordinator.request_durable(seq, &waker).unwrap();
        if fails {
            // The write of the record works, its sync does not.
            rig.fs.fail_after(1, std::io::ErrorKind::Other);
        }
        assert_eq!(put(&rig, Durability::Sync).is_err(), fails);
        assert!(!woken.is_woken(), "by the thread of a commit");
        assert!(
            coordinator.take_sync_request(),
            "the log's thread has to answer"
        );
        coordinator.wake_durable_waiters();
        woken.wait();
    }
}

/// A lookup that began before a large batch was visible could find nothing under a key that was
/// there before, and is afterwards: the engine had the batch's range delete, and not yet its put.
#[test]
fn a_lookup_beside_a_large_batch_finds_what_was_or_what_is_there() {
    for engine in EngineKind::ALL {
        let options = Options::new()
            .fs(Arc::new(SimFs::new()))
            .background_threads(0);
        let store = crate::store::open(Path::new("/store"), options).unwrap();
        let shared = &store.shared;
        let asked = KeyspaceOptions::new(engine);
        let keyspace = shared.keyspace_with("a", &asked).unwrap();
        let op = Op::Put {
            key: b"key",
            value: b"before",
        };
        let change = Change::One {
            keyspace: &keyspace,
            op,
        };
        shared.commit(change, Durability::Buffered).unwrap();
        // Applied and not published yet: a B-tree waits for that, and looks again.
        let tracker = Arc::clone(&shared.snapshot_tracker);
        let last = tracker.published().next();
        let ops = [SequencedOp::new(last, op)];
        keyspace.engine.apply(&ops).unwrap();
        let other = Arc::clone(&keyspace);
        let event = move || {
            tracker.publish(last);
            let mut batch = Batch::new();
            batch.delete_range("a".."z");
            batch.put("key", "after");
            let commit = last.plus(2);
            let staged = Arc::new(StagedBatch {
                index: BatchIndex::new(&batch),
                batch,
                first: last.next(),
                last: commit,
                commit,
                values: Arc::default(),
            });
            other.staging.stage(&staged);
            tracker.publish(commit);
            // Its first half.
            other.engine.apply_staged(&staged.ops()[..1]).unwrap();
        };
        match engine {
            EngineKind::Lsm => crate::testing::first(event),
            // The first number is taken under the leaf's lock, the second while waiting.
            EngineKind::BTree => crate::testing::first(move || crate::testing::first(event)),
        }
        assert!(keyspace.get_value(b"key").unwrap().is_some(), "{engine}");
    }
}

/// It begins to close, and nothing else would wake them.
#[test]
fn a_close_on_an_own_thread_wakes_who_waits_for_durability() {
    let options = Options::new()
        .fs(Arc::new(SimFs::new()))
        .background_threads(0);
    let store = crate::store::open(Path::new("/store"), options).unwrap();
    store.thread_ids.lock().push(std::thread::current().id());
    let woken = Arc::new(Woken::default());
    let waker = std::task::Waker::from(Arc::clone(&woken));
    let coordinator = &store.shared.coordinator;
    coordinator.request_durable(SeqNo(1), &waker).unwrap();
    store.close().unwrap();
    woken.wait();
}
