//! A file system that is really full: a tmpfs of a few megabytes.
//!
//! A commit fails and leaves nothing behind, and reads go on. With a little room made, deletes and
//! compaction give the space back, without reopening; a dropped keyspace does at once. Opening for
//! reading works while the disk is full, and nothing acknowledged is lost. Without any room,
//! commits go on in what the log has allocated, and a compaction that writes no table gives space
//! back.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Write as _};
use std::time::Duration;

use hedgerow::{Db, Durability, EngineKind, Error, Keyspace, KeyspaceOptions, Options, Result};
use support::random::{Random, Source};
use support::rig::{Sizes, keyspace_options, report};
use support::tmpfs::Tmpfs;

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

/// Does what works at the latest when background work, which failed on the full disk, has been
/// tried again.
#[track_caller]
fn soon<T>(mut act: impl FnMut() -> Result<T>, what: &str) {
    // Five minutes, so that a failure is no hang; it says nothing about time.
    for _ in 0..15_000 {
        match act() {
            Ok(_) => return,
            Err(error) => assert!(is_full(&error), "{what}: {error}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("{what} finds no room");
}

/// Bytes that do not compress.
fn bytes(random: &mut Random, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    for chunk in bytes.chunks_mut(8) {
        let word = random.bits().to_le_bytes();
        chunk.copy_from_slice(&word[..chunk.len()]);
    }
    bytes
}

/// Puts until the disk has been full for a while; returns how many commits failed.
fn fill(keyspace: &Keyspace, expected: &mut Map, random: &mut Random) -> u32 {
    let mut failed = 0;
    for _ in 0..40_000 {
        let key = random.bits().to_be_bytes().to_vec();
        let len = 600 + random.below(1200) as usize;
        let value = bytes(random, len);
        match keyspace.put(&key, &value) {
            Ok(_) => {
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
        let mut options = keyspace_options(engine, Sizes::Default);
        if engine == EngineKind::Lsm {
            options = options.table_size_bytes(256 << 10);
        }
        let keyspace = db.keyspace_with("data", options).unwrap();
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
    // That of a whole LSM tree writes as much as is left before it frees anything.
    assert!(disk.resize(2 * DISK_KIB));
    soon(|| db.compact(), "a compaction");
    assert_holds(&keyspace, &expected, "after the compaction");
    soon(
        || {
            db.wait_idle()?;
            assert!(disk.resize(DISK_KIB), "space came back");
            Ok(())
        },
        "background work",
    );
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

/// Takes what [`Tmpfs::fill_up`] leaves.
fn fill_to_the_last_block(disk: &Tmpfs) {
    disk.fill_up();
    let mut rest = std::fs::File::create(disk.path().join("rest")).unwrap();
    while rest.write_all(&[1; 4096]).is_ok() {}
}

/// Makes as much room as there was.
fn free(disk: &Tmpfs) {
    assert!(disk.resize(DISK_KIB));
    std::fs::remove_file(disk.path().join("rest")).unwrap();
}

/// Another program takes all the space. The log's segment is allocated, so commits succeed until it
/// is used up; what must write a file fails, and harms nothing.
fn deletes_without_room(name: &str, engine: EngineKind, threads: usize) {
    /// What a closed store keeps of a segment of 256 KiB.
    const FREE_LEN_BYTES: u64 = 64 << 10;
    /// Of that: what is no record. Generous.
    const REST_LEN_BYTES: u64 = 256;
    let Some(disk) = Tmpfs::mount(name, DISK_KIB) else {
        return;
    };
    let open = || options(threads).open(disk.path().join("store"));
    let mut expected = Map::new();
    let db = open().unwrap();
    let keyspace = db.keyspace("data", engine).unwrap();
    let mut random = Random::new(13);
    for n in 0..8000u64 {
        let value = bytes(&mut random, 200);
        let buffered = keyspace.with_durability(Durability::Buffered);
        buffered.put(n.to_be_bytes(), &value).unwrap();
        expected.insert(n.to_be_bytes().to_vec(), value);
    }
    db.flush().unwrap();
    db.compact().unwrap();
    db.close().unwrap();
    drop((keyspace, db));

    let db = open().unwrap();
    let keyspace = db.existing_keyspace("data").unwrap().unwrap();
    fill_to_the_last_block(&disk);
    let before = db.stats().log_bytes_written;
    let mut deleted = 0;
    let error = loop {
        let key = u64::to_be_bytes(deleted);
        match keyspace.delete(key) {
            Ok(_) => drop(expected.remove(&key[..])),
            Err(error) => break error,
        }
        deleted += 1;
    };
    assert!(is_full(&error), "{error}");
    let logged = db.stats().log_bytes_written - before;
    let each = logged / deleted;
    assert!(each <= 64, "a delete takes {each} bytes");
    assert!(
        logged + REST_LEN_BYTES + 8 * deleted > FREE_LEN_BYTES,
        "{deleted} deletes used {logged} bytes of the log's segment"
    );
    assert_holds(&keyspace, &expected, "with no room for another delete");
    let (flushed, compacted) = (db.flush(), db.compact());
    let put = keyspace.put(b"key", vec![1; 300]).map(|_| ());
    let outcomes = [flushed, compacted, put];
    let was_compacted = outcomes[1].is_ok();
    for outcome in outcomes {
        match outcome {
            Ok(()) => assert_eq!(engine, EngineKind::BTree, "it had free pages"),
            Err(error) => assert!(is_full(&error), "{error}"),
        }
    }
    expected.extend(
        keyspace
            .get(b"key")
            .unwrap()
            .map(|value| (b"key".to_vec(), value.to_vec())),
    );
    assert_holds(&keyspace, &expected, "after what failed");
    assert!(db.verify().unwrap().is_clean());

    let disk_bytes = db.stats().disk_bytes();
    free(&disk);
    soon(|| keyspace.delete(7999u64.to_be_bytes()), "a delete");
    expected.remove(&7999u64.to_be_bytes()[..]);
    soon(|| db.flush(), "a flush");
    soon(|| db.compact(), "a compaction");
    soon(|| db.wait_idle(), "background work");
    assert_holds(&keyspace, &expected, "with room again");
    assert!(db.verify().unwrap().is_clean());
    // A B-tree may have given it back before, into free pages.
    let came_back = db.stats().disk_bytes() < disk_bytes;
    assert!(was_compacted || came_back, "space came back");
    drop((keyspace, db));
    let db = open().unwrap();
    let keyspace = db.existing_keyspace("data").unwrap().unwrap();
    assert_holds(&keyspace, &expected, "opened again");
    report(format_args!(
        "{name}: {deleted} deletes, {logged} bytes of log"
    ));
}

#[test]
fn deletes_take_what_the_log_has_lsm() {
    deletes_without_room("full_disk::deletes_lsm", EngineKind::Lsm, 2);
}

#[test]
fn deletes_take_what_the_log_has_btree() {
    deletes_without_room("full_disk::deletes_btree", EngineKind::BTree, 2);
}

#[test]
fn deletes_take_what_the_log_has_without_threads() {
    for engine in EngineKind::ALL {
        deletes_without_room("full_disk::deletes_without_threads", engine, 0);
    }
}

/// A compaction whose tables are all covered by a range delete writes none: it takes an edit of the
/// manifest, which fits in the last block of that file, and gives back the space of the tables.
#[test]
fn a_compaction_that_leaves_nothing_takes_no_room() {
    let Some(disk) = Tmpfs::mount("full_disk::leaves_nothing", DISK_KIB) else {
        return;
    };
    let db = options(0).open(disk.path().join("store")).unwrap();
    let table = KeyspaceOptions::new(EngineKind::Lsm).table_size_bytes(256 << 10);
    let keyspace = db.keyspace_with("data", table).unwrap();
    let mut random = Random::new(14);
    for n in 0..8000u64 {
        let buffered = keyspace.with_durability(Durability::Buffered);
        buffered
            .put(n.to_be_bytes(), bytes(&mut random, 200))
            .unwrap();
    }
    db.compact().unwrap();
    db.wait_idle().unwrap();
    assert!(keyspace.stats().files > 3);
    keyspace.delete_range(..).unwrap();
    // While there is a little room: a flush writes a table.
    db.flush().unwrap();
    fill_to_the_last_block(&disk);
    keyspace.put(b"small", b"fits the log").unwrap();
    assert!(is_full(&db.compact().unwrap_err()), "this flushes first");
    keyspace.delete(b"small").unwrap();
    free(&disk);
    db.flush().unwrap();
    fill_to_the_last_block(&disk);

    db.compact().expect("nothing is written but an edit");
    db.wait_idle().unwrap();
    assert_eq!(keyspace.stats().files, 0);
    for n in 0..2000u64 {
        let (key, value) = (n.to_be_bytes(), bytes(&mut random, 200));
        keyspace.put(key, value).expect("the space is there");
    }
    db.flush().expect("the space is there");
    assert_eq!(keyspace.iter().count(), 2000);
    assert!(db.verify().unwrap().is_clean());
}
