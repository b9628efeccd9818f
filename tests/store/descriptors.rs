//! A store of any number of keyspaces works with few descriptors.
//!
//! The limit is one of the process, so the test runs in a process of its own: this very test
//! binary, under a shell that lowers the limit.
#![cfg(unix)]

use std::process::Command;

use hedgerow::{Db, Durability, EngineKind, Options};
use support::rig::tiny;

/// Set in the process that has the limit.
const CHILD: &str = "HEDGEROW_TEST_FEW_DESCRIPTORS";

const KEYSPACES: usize = 200;

fn name(number: usize) -> String {
    format!("keyspace {number}")
}

fn use_all(db: &Db, round: usize) {
    for number in 0..KEYSPACES {
        let keyspace = db.keyspace(&name(number), EngineKind::BTree).unwrap();
        for i in 0..20 {
            keyspace.put(format!("{round} {i}"), [7; 300]).unwrap();
        }
        keyspace.put("long", vec![round as u8; 40_000]).unwrap();
        keyspace.flush().unwrap();
    }
    let snapshot = db.snapshot();
    for number in 0..KEYSPACES {
        let keyspace = db.keyspace(&name(number), EngineKind::BTree).unwrap();
        assert_eq!(
            keyspace.get("long").unwrap().unwrap(),
            [round as u8; 40_000]
        );
        assert_eq!(keyspace.len().unwrap(), 20 * (round as u64 + 1) + 1);
        keyspace.compact().unwrap();
    }
    for number in 0..KEYSPACES {
        let keyspace = db.keyspace(&name(number), EngineKind::BTree).unwrap();
        let then = snapshot.keyspace(&keyspace);
        assert_eq!(then.len().unwrap(), 20 * (round as u64 + 1) + 1);
    }
}

#[test]
fn many_btree_keyspaces_open_and_compact_with_64_descriptors() {
    few_descriptors(
        "many_btree_keyspaces_open_and_compact_with_64_descriptors",
        || {
            for maps in [true, false] {
                let dir = tempfile::tempdir().unwrap();
                let options = tiny(Options::new()).mmap_log(maps).mmap_reads(maps);
                for round in 0..2 {
                    let db = options.clone().open(dir.path()).unwrap();
                    use_all(&db, round);
                    assert!(db.stats().open_files <= 32, "{}", db.stats().open_files);
                }
                let db = options.open(dir.path()).unwrap();
                let report = db.verify().unwrap();
                assert!(report.is_clean(), "{:#?}", report.problems);
            }
        },
    );
}

/// Each segment of the log that waited for a sync kept its file open: where nothing synced, puts
/// failed for good after three megabytes. And sixteen threads flushed at once, whatever was open.
#[test]
fn an_unsynced_log_and_flushes_of_many_keyspaces_get_along_with_64_descriptors() {
    few_descriptors(
        "an_unsynced_log_and_flushes_of_many_keyspaces_get_along_with_64_descriptors",
        || {
            for (maps, threads) in [(true, 2), (false, 2), (true, 0)] {
                let dir = tempfile::tempdir().unwrap();
                let options = Options::new()
                    .durability(Durability::Buffered)
                    .background_threads(threads)
                    .background_sync_ms(0)
                    .log_segment_bytes(64 << 10)
                    .mmap_log(maps)
                    .mmap_reads(maps);
                let db = options.clone().open(dir.path()).unwrap();
                for round in 0..3 {
                    for number in 0..60 {
                        let keyspace = db.keyspace(&name(number), EngineKind::Lsm).unwrap();
                        for i in 0..100 {
                            keyspace.put(format!("{round} {i}"), [7; 500]).unwrap();
                        }
                    }
                    db.flush().unwrap();
                }
                db.close().unwrap();
                let db = options.open(dir.path()).unwrap();
                let report = db.verify().unwrap();
                assert!(report.is_clean(), "{:#?}", report.problems);
            }
        },
    );
}

/// Runs `test`, which is that of this name, in a process that may have 64 files open.
fn few_descriptors(name: &str, test: impl FnOnce()) {
    if std::env::var_os(CHILD).is_some() {
        return test();
    }
    let status = Command::new("sh")
        .args(["-c", "ulimit -n 64 && exec \"$0\" \"$@\""])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "--test-threads=1"])
        .arg(format!("descriptors::{name}"))
        .env(CHILD, "1")
        .status()
        .unwrap();
    assert!(status.success(), "{status}");
}
