//! Writers, readers, scanners, snapshotters and maintenance at the same time, for a bounded
//! number of operations, on both engines with tiny sizes.
//!
//! What is checked, while everything runs:
//!
//! - a counter that only rises is never read lower than it was read before;
//! - the two halves of a batch, one on each engine, are equal in every snapshot, and reading
//!   the first half and then the second never finds the second older;
//! - scans are sorted and never miss a key that is never deleted.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use hedgerow::{Batch, Durability, EngineKind, Keyspace};
use support::random::{Random, Source};
use support::rig::{Place, Rig, Sizes, from_env, report};

const WRITERS: u64 = 3;
/// Commits of each writer; `HEDGEROW_CASES` multiplies it.
const COMMITS: u64 = 3000;
/// Keys that every scan must find, however the others come and go.
const PILLARS: u32 = 200;

#[test]
fn on_disk() {
    run(
        Rig::new(Place::Disk, Sizes::Tiny),
        Durability::Buffered,
        COMMITS,
    );
}

#[test]
fn on_disk_without_maps() {
    let rig = Rig::new(Place::Disk, Sizes::Tiny)
        .with(|options| options.mmap_log(false).mmap_reads(false).cache_bytes(0));
    run(rig, Durability::Buffered, COMMITS);
}

#[test]
fn in_memory() {
    run(
        Rig::new(Place::Memory, Sizes::Tiny),
        Durability::Buffered,
        COMMITS,
    );
}

#[test]
fn in_memory_with_sync() {
    run(
        Rig::new(Place::Memory, Sizes::Tiny),
        Durability::Sync,
        COMMITS,
    );
}

#[test]
fn with_default_sizes() {
    run(
        Rig::new(Place::Disk, Sizes::Default),
        Durability::Buffered,
        COMMITS,
    );
}

fn number(value: &[u8]) -> u64 {
    u64::from_le_bytes(
        value[..8]
            .try_into()
            .expect("a value begins with its number"),
    )
}

fn counter(writer: u64) -> String {
    format!("counter {writer}")
}

fn pillar(n: u32) -> String {
    format!("pillar {n:05}")
}

fn run(mut rig: Rig, durability: Durability, commits: u64) {
    let commits = commits * from_env("HEDGEROW_CASES").unwrap_or(1);
    let keyspaces = [
        rig.keyspace("lsm", EngineKind::Lsm),
        rig.keyspace("btree", EngineKind::BTree),
    ];
    for keyspace in &keyspaces {
        for n in 0..PILLARS {
            keyspace.put(pillar(n), b"stands").unwrap();
        }
        for writer in 0..WRITERS {
            keyspace.put(counter(writer), 0u64.to_le_bytes()).unwrap();
        }
    }
    let db = rig.db().clone();
    let writing = AtomicU64::new(WRITERS);
    let reads = AtomicU64::new(0);
    let failed = AtomicBool::new(false);
    let go_on = || writing.load(Ordering::Acquire) > 0 && !failed.load(Ordering::Relaxed);
    /// Stops the others when its thread panics, so that the failure is reported, not a hang.
    struct Guard<'a>(&'a AtomicBool, Option<&'a AtomicU64>);
    impl Drop for Guard<'_> {
        fn drop(&mut self) {
            if std::thread::panicking() {
                self.0.store(true, Ordering::Relaxed);
            }
            if let Some(writing) = self.1 {
                writing.fetch_sub(1, Ordering::Release);
            }
        }
    }

    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (db, keyspaces, failed, writing) = (&db, &keyspaces, &failed, &writing);
            scope.spawn(move || {
                let _guard = Guard(failed, Some(writing));
                let mut random = Random::new(writer);
                for n in 1..=commits {
                    if failed.load(Ordering::Relaxed) {
                        break;
                    }
                    let mut batch = db.batch();
                    for keyspace in keyspaces {
                        batch.put(keyspace, counter(writer), n.to_le_bytes());
                        let passing = format!("passing {:04}", random.below(2000));
                        match random.weighted(&[12, 4, 1]) {
                            0 => {
                                let len = random.below(100) as usize;
                                batch.put(keyspace, passing, random.bytes(len));
                            }
                            1 => batch.delete(keyspace, passing),
                            _ => {
                                let end = format!("{passing}~");
                                batch.delete_range(keyspace, passing..end);
                            }
                        }
                        if random.one_in(8) {
                            let n = random.below(PILLARS.into()) as u32;
                            batch.put(keyspace, pillar(n), random.bytes(40));
                        }
                    }
                    db.write(batch, durability).unwrap();
                    if n % 64 == 0 {
                        // A plain batch on one keyspace, between those over both.
                        let mut batch = Batch::new();
                        batch.delete_range(format!("mine {writer}")..=format!("mine {writer}~"));
                        batch.put(format!("mine {writer} {n}"), n.to_le_bytes());
                        keyspaces[(n / 64 % 2) as usize]
                            .write_with(batch, durability)
                            .unwrap();
                    }
                }
            });
        }
        for reader in 0..2u64 {
            let (keyspaces, failed, go_on, reads) = (&keyspaces, &failed, &go_on, &reads);
            scope.spawn(move || {
                let _guard = Guard(failed, None);
                let mut random = Random::new(100 + reader);
                let mut seen = [[0; WRITERS as usize]; 2];
                while go_on() {
                    let writer = random.below(WRITERS);
                    let at = random.below(2) as usize;
                    let first = number(&keyspaces[at].get(counter(writer)).unwrap().unwrap());
                    let second = number(&keyspaces[1 - at].get(counter(writer)).unwrap().unwrap());
                    assert!(
                        second >= first,
                        "one half of a batch was read without the other"
                    );
                    for (at, value) in [(at, first), (1 - at, second)] {
                        let before = &mut seen[at][writer as usize];
                        assert!(value >= *before, "a counter fell from {before} to {value}");
                        *before = value;
                    }
                    let n = random.below(PILLARS.into()) as u32;
                    assert!(
                        keyspaces[at].contains_key(pillar(n)).unwrap(),
                        "pillar {n} is gone"
                    );
                    let found = keyspaces[at]
                        .multi_get(&[pillar(n), counter(writer)])
                        .unwrap();
                    assert!(found.iter().all(Option::is_some));
                    reads.fetch_add(4, Ordering::Relaxed);
                }
            });
        }
        {
            let (keyspaces, failed, go_on, reads) = (&keyspaces, &failed, &go_on, &reads);
            scope.spawn(move || {
                let _guard = Guard(failed, None);
                let mut random = Random::new(200);
                while go_on() {
                    let keyspace = random.pick(keyspaces);
                    let backwards = random.one_in(2);
                    check_scan(keyspace, backwards, reads);
                }
            });
        }
        {
            let (db, keyspaces, failed, go_on, reads) = (&db, &keyspaces, &failed, &go_on, &reads);
            scope.spawn(move || {
                let _guard = Guard(failed, None);
                let mut held = Vec::new();
                while go_on() {
                    let snapshot = db.snapshot();
                    let values: Vec<_> = (0..WRITERS)
                        .map(|writer| {
                            let [a, b] = [&keyspaces[0], &keyspaces[1]].map(|k| {
                                number(&snapshot.get(k, counter(writer)).unwrap().unwrap())
                            });
                            assert_eq!(a, b, "a snapshot between the halves of a batch");
                            a
                        })
                        .collect();
                    held.push((snapshot, values));
                    if held.len() > 5 {
                        let (snapshot, values) = held.remove(0);
                        for (writer, value) in values.iter().enumerate() {
                            for keyspace in keyspaces {
                                let found = snapshot.get(keyspace, counter(writer as u64));
                                assert_eq!(number(&found.unwrap().unwrap()), *value, "unstable");
                            }
                        }
                        for keyspace in keyspaces {
                            let pillars = snapshot.prefix(keyspace, "pillar").count();
                            assert_eq!(pillars, PILLARS as usize);
                        }
                    }
                    reads.fetch_add(2 * WRITERS, Ordering::Relaxed);
                }
            });
        }
        {
            let (db, keyspaces, failed, go_on) = (&db, &keyspaces, &failed, &go_on);
            scope.spawn(move || {
                let _guard = Guard(failed, None);
                let mut random = Random::new(300);
                while go_on() {
                    let keyspace = random.pick(keyspaces);
                    match random.weighted(&[4, 2, 2, 1]) {
                        0 => keyspace.flush().unwrap(),
                        1 => keyspace.compact().unwrap(),
                        2 => drop(db.run_background_once().unwrap()),
                        _ => {
                            let report = keyspace.verify().unwrap();
                            assert!(report.is_clean(), "{:#?}", report.problems);
                        }
                    }
                    std::thread::sleep(std::time::Duration::from_millis(2));
                }
            });
        }
    });

    for keyspace in &keyspaces {
        for writer in 0..WRITERS {
            assert_eq!(
                number(&keyspace.get(counter(writer)).unwrap().unwrap()),
                commits
            );
        }
        check_scan(keyspace, false, &reads);
        check_scan(keyspace, true, &reads);
    }
    let before = keyspaces
        .each_ref()
        .map(|keyspace| keyspace.iter().map(Result::unwrap).collect::<Vec<_>>());
    assert!(db.verify().unwrap().is_clean());
    drop((keyspaces, db));
    rig.close();
    let keyspaces = [
        rig.keyspace("lsm", EngineKind::Lsm),
        rig.keyspace("btree", EngineKind::BTree),
    ];
    for (keyspace, before) in keyspaces.iter().zip(before) {
        assert!(
            keyspace.iter().map(Result::unwrap).eq(before),
            "after opening again"
        );
    }
    report(format_args!(
        "concurrency: {} commits beside {} reads",
        WRITERS * commits,
        reads.load(Ordering::Relaxed)
    ));
}

/// A scan of everything is sorted and has all pillars.
fn check_scan(keyspace: &Keyspace, backwards: bool, reads: &AtomicU64) {
    let scan = keyspace.iter();
    let mut keys: Vec<_> = if backwards {
        scan.rev().map(|item| item.unwrap().0).collect()
    } else {
        scan.map(|item| item.unwrap().0).collect()
    };
    if backwards {
        keys.reverse();
    }
    assert!(keys.is_sorted_by(|a, b| a < b), "a scan is out of order");
    let pillars = keys.iter().filter(|key| key.starts_with(b"pillar")).count();
    assert_eq!(pillars, PILLARS as usize, "a scan lost keys");
    reads.fetch_add(keys.len() as u64, Ordering::Relaxed);
}
