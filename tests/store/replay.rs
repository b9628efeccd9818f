//! What an open does with a long log.

use std::path::Path;
use std::sync::Arc;

use hedgerow::fs::{Fault, FaultFs, FaultPlan, Fs, OpKind, SimFs};
use hedgerow::{Batch, Db, Durability, EngineKind, Options};

const KIB: u64 = 1 << 10;
const KEYS: u32 = 20_000;

fn options(fs: &Arc<dyn Fs>) -> Options {
    Options::new()
        .fs(Arc::clone(fs))
        .background_threads(0)
        .durability(Durability::Sync)
}

fn key(n: u32) -> [u8; 4] {
    n.wrapping_mul(2_654_435_761).to_be_bytes()
}

/// What a process leaves that ended before its large write buffers were full: 3 MiB of log.
fn long_log(engine: EngineKind) -> SimFs {
    let disk = SimFs::new();
    let fs: Arc<dyn Fs> = Arc::new(disk.clone());
    let db = options(&fs)
        .write_buffer_bytes(64 << 20)
        .log_segment_bytes(256 * KIB)
        .open("/store")
        .unwrap();
    for name in ["a", "b"] {
        let keyspace = db.keyspace(name, engine).unwrap();
        for first in (0..KEYS).step_by(50) {
            let mut batch = Batch::new();
            (first..first + 50).for_each(|n| batch.put(key(n), vec![n as u8; 50]));
            keyspace.write(batch).unwrap();
        }
        keyspace.delete_range(key(77)..=key(77)).unwrap();
        keyspace.put(key(78), "changed").unwrap();
    }
    disk.crash()
}

fn check(db: &Db) {
    for name in ["a", "b"] {
        let keyspace = db.existing_keyspace(name).unwrap().unwrap();
        for n in 0..KEYS {
            let value = keyspace.get(key(n)).unwrap();
            match n {
                77 => assert_eq!(value, None),
                78 => assert_eq!(value.unwrap(), b"changed"),
                n => assert_eq!(value.unwrap(), vec![n as u8; 50]),
            }
        }
    }
}

fn held_bytes(db: &Db) -> Vec<u64> {
    let held = |name| {
        let keyspace = db.existing_keyspace(name).unwrap().unwrap();
        keyspace.stats().write_buffer_bytes
    };
    vec![held("a"), held("b")]
}

/// An open took as much memory as the log holds, whatever the write buffers.
#[test]
fn a_long_log_is_replayed_within_the_write_buffers() {
    for engine in EngineKind::ALL {
        let disk = long_log(engine);
        for _ in 0..2 {
            let fs: Arc<dyn Fs> = Arc::new(disk.clone());
            let db = options(&fs)
                .write_buffer_bytes(128 * KIB)
                .open("/store")
                .unwrap();
            let held = held_bytes(&db);
            assert!(
                held.iter().all(|held| *held < 4 * 128 * KIB),
                "{engine:?}: {held:?}"
            );
            check(&db);
            assert!(db.verify().unwrap().is_clean());
        }
        // What was persisted on the way counts; nothing is there twice.
        let fs: Arc<dyn Fs> = Arc::new(disk.crash());
        check(&options(&fs).open("/store").unwrap());
    }
}

/// Nothing is written by a reader, which needs the memory.
#[test]
fn a_reader_replays_a_long_log_and_writes_nothing() {
    for engine in EngineKind::ALL {
        let disk = FaultFs::new(Arc::new(long_log(engine)));
        let fs: Arc<dyn Fs> = Arc::new(disk.clone());
        let reader = options(&fs).write_buffer_bytes(128 * KIB).read_only(true);
        check(&reader.open("/store").unwrap());
        assert_eq!(disk.count(OpKind::Write) + disk.count(OpKind::Sync), 0);
    }
}

/// A disk that takes no more data keeps nobody from reading what the log has.
#[test]
fn a_long_log_is_replayed_though_the_disk_is_full() {
    for engine in EngineKind::ALL {
        let disk = FaultFs::new(Arc::new(long_log(engine)));
        let fs: Arc<dyn Fs> = Arc::new(disk.clone());
        let kinds = [OpKind::Create, OpKind::SetLen];
        // An LSM tree makes a new manifest when it is opened.
        let of_opening = if engine == EngineKind::Lsm { 2 } else { 0 };
        let is_full = FaultPlan::once(&kinds, of_opening, Fault::Full).and_then_all(&kinds);
        disk.plan(is_full.within(Path::new("/store/ks-00000001")));
        let db = options(&fs)
            .write_buffer_bytes(128 * KIB)
            .open("/store")
            .unwrap();
        check(&db);
        assert_ne!(disk.fired(), 0, "{engine:?}");
        disk.heal();
        db.flush().unwrap();
        check(&db);
    }
}
