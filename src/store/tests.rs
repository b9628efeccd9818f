//! What becomes of a store in which something panics.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::commit::Change;
use crate::error::{Error, Result};
use crate::fs::Fs;
use crate::options::Durability;
use crate::testing::{DIR, PipelineRig, STORE};
use crate::types::{Op, SeqNo};
use crate::wal::Recovery;

/// A pipeline whose engine panics while `panics` is set.
fn rig(panics: &Arc<AtomicBool>) -> PipelineRig {
    let panics = Arc::clone(panics);
    PipelineRig::new(|_| {
        Box::new(move |_| {
            assert!(!panics.load(Ordering::SeqCst), "half of it is applied");
            Ok(())
        })
    })
}

fn put(rig: &PipelineRig, durability: Durability) -> Result<SeqNo> {
    let change = Change::One {
        keyspace: &rig.keyspace,
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
