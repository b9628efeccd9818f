//! How much space the log takes, in bytes.

use std::path::Path;
use std::sync::Arc;

use hedgerow::fs::{FaultFs, Fs, OpKind, OpenMode, SimFs};
use hedgerow::{Db, Durability, EngineKind, KeyspaceOptions, Options};

const MIB: u64 = 1 << 20;

/// Bytes of the files of the log.
fn log_bytes(fs: &dyn Fs) -> u64 {
    let dir = Path::new("/store/wal");
    let len = |name: &String| {
        let file = fs.open(&dir.join(name), OpenMode::Read).unwrap();
        file.len().unwrap()
    };
    fs.read_dir(dir).unwrap().iter().map(len).sum()
}

fn options(fs: &FaultFs) -> Options {
    Options::new()
        .fs(Arc::new(fs.clone()))
        .background_threads(0)
        .log_segment_bytes(8 * MIB)
        .durability(Durability::Buffered)
}

/// Enough for several segments of full length.
fn put_many(db: &Db, engine: EngineKind) {
    // Values that lie in the log for good would be part of what is counted.
    let in_tree = KeyspaceOptions::new(engine).value_threshold_bytes(0);
    let keyspace = db.keyspace_with("a", in_tree).unwrap();
    for n in 0..300_u32 {
        keyspace
            .put(n.to_be_bytes(), vec![n as u8; 100 << 10])
            .unwrap();
        db.run_background_once().unwrap();
    }
}

fn check_many(db: &Db) {
    let keyspace = db.existing_keyspace("a").unwrap().unwrap();
    for n in 0..300_u32 {
        let value = keyspace.get(n.to_be_bytes()).unwrap().unwrap();
        assert_eq!(value, vec![n as u8; 100 << 10]);
    }
}

/// Each opening left a segment of 1 MiB, and synced those of all earlier ones.
#[test]
fn short_sessions_do_not_grow_the_log() {
    for engine in EngineKind::ALL {
        let disk = FaultFs::new(Arc::new(SimFs::new()));
        let mut syncs = Vec::new();
        for n in 0..120_u32 {
            let before = disk.count(OpKind::Sync);
            let db = options(&disk).open("/store").unwrap();
            syncs.push(disk.count(OpKind::Sync) - before);
            let keyspace = db.keyspace("a", engine).unwrap();
            assert_eq!(keyspace.iter().count(), n as usize);
            keyspace.put(n.to_be_bytes(), "value").unwrap();
            db.close().unwrap();
            drop((keyspace, db));
            assert_eq!(log_bytes(&disk), MIB, "{engine:?}, session {n}");
        }
        assert_eq!(syncs[2], syncs[119], "{engine:?}: {syncs:?}");
    }
}

/// Each opening after the end of a process left a segment of 1 MiB.
#[test]
fn openings_after_kills_do_not_grow_the_log() {
    for engine in EngineKind::ALL {
        let mut disk = SimFs::new();
        for n in 0..120_u32 {
            let db = options(&FaultFs::new(Arc::new(disk.clone())))
                .open("/store")
                .unwrap();
            let keyspace = db.keyspace("a", engine).unwrap();
            assert_eq!(keyspace.iter().count(), 10 * n as usize);
            for key in 10 * n..10 * n + 10 {
                keyspace.put(key.to_be_bytes(), "value").unwrap();
            }
            disk = disk.killed();
            assert_eq!(log_bytes(&disk), MIB, "{engine:?}, life {n}");
        }
    }
}

/// An opening after a kill makes what it finds durable. The segment that it began said so, and what
/// takes its place must.
#[test]
fn damage_of_what_an_opening_after_a_kill_has_found_is_noticed() {
    let disk = SimFs::new();
    let db = options(&FaultFs::new(Arc::new(disk.clone())))
        .open("/store")
        .unwrap();
    let keyspace = db.keyspace("a", EngineKind::Lsm).unwrap();
    keyspace.put("key", "the last value").unwrap();
    let killed = disk.killed();
    let found = options(&FaultFs::new(Arc::new(killed.clone())))
        .open("/store")
        .unwrap();
    let after = killed.crash();
    drop(found);
    let name = &after.read_dir("/store/wal".as_ref()).unwrap()[0];
    let path = Path::new("/store/wal").join(name);
    let segment = after.open(&path, OpenMode::ReadWrite).unwrap();
    let mut bytes = vec![0; segment.len().unwrap() as usize];
    segment.read_exact_at(&mut bytes, 0).unwrap();
    let value = b"the last value";
    let at = bytes.windows(value.len()).position(|it| it == value);
    segment.write_all_at(b"x", at.unwrap() as u64).unwrap();
    let opened = options(&FaultFs::new(Arc::new(after))).open("/store");
    assert!(opened.unwrap_err().is_corruption());
}

/// A closed store kept all that it had once allocated.
#[test]
fn a_closed_store_keeps_of_the_log_what_it_needs() {
    for engine in EngineKind::ALL {
        let disk = FaultFs::new(Arc::new(SimFs::new()));
        let db = options(&disk).open("/store").unwrap();
        put_many(&db, engine);
        db.flush().unwrap();
        db.close().unwrap();
        drop(db);
        assert_eq!(
            log_bytes(&disk),
            MIB,
            "{engine:?}: everything was persisted"
        );

        let db = options(&disk).open("/store").unwrap();
        check_many(&db);
        let keyspace = db.existing_keyspace("a").unwrap().unwrap();
        keyspace.put("last", "unpersisted").unwrap();
        db.close().unwrap();
        drop((keyspace, db));
        assert_eq!(log_bytes(&disk), MIB, "{engine:?}");
        let after_power_loss = options(&disk).open("/store").unwrap();
        check_many(&after_power_loss);
        let keyspace = after_power_loss.existing_keyspace("a").unwrap().unwrap();
        assert!(keyspace.get("last").unwrap().is_some());
    }
}

/// What is not persisted stays, and nothing that was made or kept in advance.
#[test]
fn a_closed_store_that_has_not_persisted_everything_keeps_no_spare() {
    for engine in EngineKind::ALL {
        let disk = FaultFs::new(Arc::new(SimFs::new()));
        let db = options(&disk).open("/store").unwrap();
        put_many(&db, engine);
        db.close().unwrap();
        drop(db);
        let names = disk.read_dir("/store/wal".as_ref()).unwrap();
        assert!(names.iter().all(|name| name.ends_with(".log")), "{names:?}");
        let db = options(&disk).read_only(true).open("/store").unwrap();
        check_many(&db);
        drop(db);
        // Nothing prepared and unused: 30 MiB in segments of 1, 4, 8, 8, ... MiB.
        assert!(
            log_bytes(&disk) <= 37 * MIB,
            "{engine:?}: {}",
            log_bytes(&disk)
        );
    }
}
