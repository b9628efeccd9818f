//! A file system that is really full: a tmpfs of a few megabytes.
//!
//! A commit fails and leaves nothing behind, and reads go on. With a little room made, deletes and compaction give
//! the space back, without reopening; a dropped keyspace does at once. Opening for
//! reading works while the disk is full, and nothing acknowledged is lost.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::time::Duration;

use hedgerow::{Db, Durability, EngineKind, Error, Keyspace, Kv, KvRead, Options, Result};

use crate::random::{Random, Source};
use crate::rig::{Sizes, keyspace_options, report};
use crate::tmpfs::Tmpfs;

const DISK_KIB: u64 = 12 << 10;
/// Room that is left to be made: for a table or a checkpoint on its way, and a log segment.
const BALLAST_LEN_BYTES: usize = 3 << 20;

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

/// Does what works at the latest when background work, which failed on the full disk, has been tried again.
#[track_caller]
fn soon(mut act: impl FnMut() -> Result<()>, what: &str) {
    for _ in 0..200 {
        match act() {
            Ok(()) => return,
            Err(error) => assert!(is_full(&error), "{what}: {error}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("{what} finds no room");
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
    let ballast = disk.path().join("ballast");
    std::fs::write(&ballast, vec![1; BALLAST_LEN_BYTES]).unwrap();
    let open = || -> (Db, Keyspace) {
        let db = options(threads).open(&path).expect("the store opens");
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

    // Deletes are logged and compactions write before they free, so they need a little room.
    std::fs::remove_file(&ballast).unwrap();
    let half: Vec<_> = expected.keys().skip(expected.len() / 2).cloned().collect();
    let (single, range) = half.split_at(half.len() / 4);
    for key in single {
        soon(|| keyspace.delete(key), "a delete");
        expected.remove(key);
    }
    soon(|| keyspace.delete_range(&range[0][..]..), "a range delete");
    expected.retain(|key, _| *key < range[0]);
    assert_holds(&keyspace, &expected, "after the deletes");
    soon(|| db.flush(), "a flush");
    soon(|| db.compact(), "a compaction");
    assert_holds(&keyspace, &expected, "after the compaction");
    for n in 0..1000u32 {
        let (key, value) = (n.to_be_bytes().to_vec(), vec![n as u8; 800]);
        keyspace.put(&key, &value).expect("there is room again");
        expected.insert(key, value);
    }

    // Full once more. Reading takes no room; opening for writing that of a log segment.
    std::fs::write(&ballast, vec![1; BALLAST_LEN_BYTES]).unwrap();
    fill(&keyspace, &mut expected, &mut random);
    drop((keyspace, db));
    let reader = options(threads).read_only(true).open(&path).unwrap();
    let keyspace = reader.existing_keyspace("data").unwrap().unwrap();
    assert_holds(&keyspace, &expected, "opened for reading on a full disk");
    drop((keyspace, reader));
    std::fs::remove_file(&ballast).unwrap();
    let (db, keyspace) = open();
    assert_holds(&keyspace, &expected, "after reopening");
    assert!(db.verify().unwrap().is_clean());
    drop(keyspace);
    db.drop_keyspace("data")
        .expect("a keyspace can be dropped on a full disk");
    // Its files go with its last user, which may be a compaction.
    let mut made = None;
    soon(
        || {
            made = Some(db.keyspace("data", engine)?);
            Ok(())
        },
        "a new keyspace",
    );
    let keyspace = made.expect("made");
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
