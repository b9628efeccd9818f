//! A file system that is really full: a tmpfs of a few megabytes.
//!
//! A commit fails and leaves nothing behind, reads go on, space comes back with deletes and
//! compaction or a dropped keyspace, opening again works while the disk is full, and nothing
//! acknowledged is lost.

use std::collections::BTreeMap;
use std::io::ErrorKind;

use hedgerow::{Db, Durability, EngineKind, Error, Keyspace, Kv, KvRead, Options};

use crate::random::{Random, Source};
use crate::rig::{Sizes, keyspace_options, report};
use crate::tmpfs::Tmpfs;

const DISK_KIB: u64 = 12 << 10;

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

fn options(threads: usize) -> Options {
    Options::new()
        .write_buffer_bytes(256 << 10)
        .log_segment_bytes(256 << 10)
        .log_limit_bytes(1 << 20)
        .cache_bytes(1 << 20)
        .durability(Durability::Sync)
        .background_threads(threads)
}

fn is_full(error: &Error) -> bool {
    matches!(error, Error::Io { source, .. } if source.kind() == ErrorKind::StorageFull)
}

fn assert_holds(keyspace: &Keyspace, expected: &Map, when: &str) {
    let mut scan = keyspace.iter();
    for (key, value) in expected {
        let (found_key, found) = scan
            .next()
            .unwrap_or_else(|| panic!("{when}: a key is missing"))
            .unwrap_or_else(|error| panic!("{when}: {error}"));
        assert!(
            found_key == *key && found == *value,
            "{when}: another entry"
        );
    }
    assert!(scan.next().is_none(), "{when}: more than there should be");
    for (key, value) in expected.iter().step_by(17) {
        let found = keyspace.get(key).unwrap();
        assert_eq!(found.as_deref(), Some(&value[..]), "{when}");
    }
}

/// Puts until the disk has been full for a while; returns how many commits failed.
fn fill(keyspace: &Keyspace, expected: &mut Map, random: &mut Random) -> u32 {
    let mut failed = 0;
    for _ in 0..40_000 {
        let key = random.bits().to_be_bytes().to_vec();
        let mut value = vec![0; 600 + random.below(1200) as usize];
        for chunk in value.chunks_mut(8) {
            let word = random.bits().to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
        match keyspace.put(&key, &value) {
            Ok(()) => {
                expected.insert(key, value);
            }
            Err(error) => {
                assert!(is_full(&error), "a full disk is called that: {error}");
                assert_eq!(keyspace.get(&key).unwrap(), None, "it failed and is there");
                failed += 1;
                if failed == 40 {
                    return failed;
                }
            }
        }
    }
    panic!("the disk is never full");
}

fn fill_and_free(name: &str, engine: EngineKind, threads: usize) {
    let Some(disk) = Tmpfs::mount(name, DISK_KIB) else {
        return;
    };
    let path = disk.path().join("store");
    let mut random = Random::new(12);
    let mut expected = Map::new();
    let open = || -> (Db, Keyspace) {
        let db = options(threads)
            .open(&path)
            .expect("a full disk does not keep a store closed");
        let keyspace = db
            .keyspace_with(
                "data",
                keyspace_options(engine, Sizes::Default).table_size_bytes(256 << 10),
            )
            .unwrap();
        (db, keyspace)
    };
    let (db, keyspace) = open();
    let failed = fill(&keyspace, &mut expected, &mut random);
    let stored = expected.len();
    assert_holds(&keyspace, &expected, "while the disk is full");
    assert!(db.verify().unwrap().is_clean());

    // Half of it goes. There may be no room for the log to say so before something else has
    // gone; a file of somebody else, say, or the place that an abandoned attempt took.
    let middle = expected.keys().nth(expected.len() / 2).unwrap().clone();
    let mut attempts = 0;
    while let Err(error) = keyspace.delete_range(&middle[..]..) {
        assert!(is_full(&error), "{error}");
        attempts += 1;
        assert!(attempts < 50, "no delete gets through");
        let _ = db.flush();
    }
    expected.retain(|key, _| *key < middle);
    assert_holds(&keyspace, &expected, "after the deletes");
    let mut attempts = 0;
    while let Err(error) = db.flush().and_then(|()| db.compact()) {
        assert!(is_full(&error), "{error}");
        attempts += 1;
        assert!(attempts < 50, "no space comes back: {error}");
    }
    assert_holds(&keyspace, &expected, "after the compaction");
    for n in 0..1000u32 {
        let (key, value) = (n.to_be_bytes().to_vec(), vec![n as u8; 800]);
        keyspace.put(&key, &value).expect("there is room again");
        expected.insert(key, value);
    }

    // Full once more, and opened while it is.
    fill(&keyspace, &mut expected, &mut random);
    drop((keyspace, db));
    let (db, keyspace) = open();
    assert_holds(&keyspace, &expected, "after reopening on a full disk");
    assert!(db.verify().unwrap().is_clean());
    drop(keyspace);
    db.drop_keyspace("data")
        .expect("a keyspace can be dropped on a full disk");
    let keyspace = db.keyspace("data", engine).expect("there is room again");
    keyspace.put(b"key", b"value").expect("there is room again");
    report(format_args!(
        "{name}: {stored} values filled {DISK_KIB} KiB, {failed} commits failed"
    ));
}

#[test]
fn lsm() {
    fill_and_free("full_disk::lsm", EngineKind::Lsm, 2);
}

#[test]
fn btree() {
    fill_and_free("full_disk::btree", EngineKind::BTree, 2);
}

#[test]
fn lsm_without_threads() {
    fill_and_free("full_disk::lsm_without_threads", EngineKind::Lsm, 0);
}

#[test]
fn btree_without_threads() {
    fill_and_free("full_disk::btree_without_threads", EngineKind::BTree, 0);
}
