//! What an open does with a long log.

use std::collections::BTreeMap;
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

/// A log over a tree that is much larger than a window of replay's: pages are asked for, and looked
/// at by one thread, while another one changes what they hold.
#[test]
fn a_log_is_replayed_while_its_pages_are_read() {
    const ENTRIES: u32 = 60_000;
    let dir = tempfile::tempdir().unwrap();
    for engine in EngineKind::ALL {
        let path = dir.path().join(engine.name());
        let options = || {
            Options::new()
                .durability(Durability::Buffered)
                .background_threads(0)
        };
        let mut model = BTreeMap::new();
        let db = options().open(&path).unwrap();
        let keyspace = db.keyspace("a", engine).unwrap();
        for n in 0..ENTRIES {
            let (key, value) = (n.to_be_bytes(), vec![n as u8; 100]);
            keyspace.put(key, &value).unwrap();
            model.insert(key.to_vec(), value);
        }
        keyspace.compact().unwrap();
        for n in 0..ENTRIES {
            // New keys among them, and new values that are longer, so that leaves are split.
            let mut k = key(n).to_vec();
            k[0] = 0;
            k.truncate(4 - usize::from(n % 16 == 0));
            if n % 5 == 0 {
                keyspace.delete(&k).unwrap();
                model.remove(&k);
            } else {
                let value = vec![n as u8; 80 + n as usize % 60];
                keyspace.put(&k, &value).unwrap();
                model.insert(k, value);
            }
            if n == ENTRIES / 2 {
                let (start, end) = (10_000_u32.to_be_bytes(), 20_000_u32.to_be_bytes());
                keyspace.delete_range(start..end).unwrap();
                model.retain(|key, _| key[..] < start[..] || key[..] >= end[..]);
            }
        }
        drop(keyspace);
        db.close().unwrap();
        for read_only in [true, false] {
            let db = options().read_only(read_only).open(&path).unwrap();
            let keyspace = db.existing_keyspace("a").unwrap().unwrap();
            let found = keyspace.iter().map(|entry| entry.unwrap());
            let found = found.map(|(key, value)| (key.to_vec(), value.to_vec()));
            assert!(found.eq(model.clone()), "{engine:?}");
            assert!(db.verify().unwrap().is_clean(), "{engine:?}");
        }
    }
}

/// The threads that prepare and apply meet a damaged page at the same time: opening says which.
#[test]
fn a_log_over_a_damaged_page_is_an_error_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let options = || {
        Options::new()
            .durability(Durability::Buffered)
            .background_threads(0)
    };
    let db = options().open(dir.path()).unwrap();
    let keyspace = db.keyspace("a", EngineKind::BTree).unwrap();
    let put_all = || {
        for n in 0..20_000 {
            keyspace.put(key(n), [n as u8; 100]).unwrap();
        }
    };
    put_all();
    keyspace.compact().unwrap();
    put_all();
    drop(keyspace);
    db.close().unwrap();
    let path = dir.path().join("ks-00000001/tree.hdb");
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let error = options().open(dir.path()).unwrap_err();
    assert!(error.is_corruption(), "{error}");
    assert!(error.to_string().contains("tree.hdb"), "{error}");
}
