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
        // 300 values of 100 KiB, and what is free at the ends of segments of 1, 4, 8, 8, ... MiB:
        // nothing prepared and unused, and 1 MiB at most behind the last record.
        let (kept, put) = (log_bytes(&disk), 300 * (100 << 10));
        assert!(kept <= put + 2 * MIB, "{engine:?}: {kept}");
    }
}

/// A segment of 8 MiB with 2 MiB in it: a closed store kept all of it, and a killed one, too, and
/// began another one behind it.
#[test]
fn a_long_segment_with_little_in_it_is_given_back() {
    for engine in EngineKind::ALL {
        let mut disk = SimFs::new();
        let put = |db: &Db, n: u32| {
            let in_tree = KeyspaceOptions::new(engine).value_threshold_bytes(0);
            let keyspace = db.keyspace_with("a", in_tree).unwrap();
            keyspace.put(n.to_be_bytes(), vec![7; 500 << 10]).unwrap();
        };
        let opened = |disk: &SimFs| {
            let disk = FaultFs::new(Arc::new(disk.clone()));
            options(&disk).open("/store").unwrap()
        };
        let db = opened(&disk);
        (0..14).for_each(|n| put(&db, n));
        let (killed, kept) = (disk.killed(), log_bytes(&disk));
        assert!(kept >= 13 * MIB, "{engine:?}: {kept}");
        db.close().unwrap();
        drop(db);
        let (put_bytes, files) = (14 * (500 << 10), disk.read_dir("/store/wal".as_ref()));
        let files = files.unwrap().len();
        // The ends of the two segments before it have less than a value free.
        let closed = log_bytes(&disk);
        assert!(closed <= put_bytes + 2 * MIB, "{engine:?}: {closed}");
        for image in [disk.clone(), killed] {
            disk = image;
            let db = opened(&disk);
            assert_eq!(log_bytes(&disk), closed, "{engine:?}");
            assert_eq!(
                db.existing_keyspace("a").unwrap().unwrap().iter().count(),
                14
            );
            put(&db, 14);
            db.close().unwrap();
            assert_eq!(disk.read_dir("/store/wal".as_ref()).unwrap().len(), files);
            let db = opened(&disk.crash());
            assert_eq!(
                db.existing_keyspace("a").unwrap().unwrap().iter().count(),
                15
            );
            assert!(db.verify().unwrap().is_clean());
        }
    }
}
