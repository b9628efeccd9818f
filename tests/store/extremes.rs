//! Options at their extremes: refused by name, or the store works with them, at a cost that is
//! counted: bytes written and calls of the file system, not time.

use std::sync::Arc;

use hedgerow::fs::{FaultFs, OpKind, SimFs};
use hedgerow::{
    Compression, Db, Durability, EngineKind, Error, KeyspaceOptions, MemtableKind, Options,
};
use support::random::Random;
use support::rig::report;

use crate::conformance::helpers::{Map, assert_holds};

fn key(n: u64) -> Vec<u8> {
    format!("key {n:06}").into_bytes()
}

/// Commits of a run. Half as many keys, so that each is written twice.
const COMMITS: u64 = 800;

fn options(fs: &FaultFs) -> Options {
    Options::new()
        .fs(Arc::new(fs.clone()))
        .durability(Durability::Buffered)
}

/// A store is made, filled in scattered order, read, thinned out, closed, and read again. Returns
/// the calls that read and those that change, which `name` is the reason for.
fn live(name: &str, change: &dyn Fn(Options) -> Options, keyspace: &KeyspaceOptions) -> [u64; 2] {
    let fs = FaultFs::new(Arc::new(SimFs::with_maps()));
    let open = || change(options(&fs)).open("/store");
    let db = open().unwrap_or_else(|error| panic!("{name}: {error}"));
    let made = db.keyspace_with("a", keyspace.clone()).unwrap();
    let mut random = Random::new(24);
    let mut expected = Map::new();
    for n in 0..COMMITS {
        let at = n * 7919 % (COMMITS / 2);
        let value = random.bytes(100);
        made.put(key(at), &value).unwrap();
        expected.insert(key(at), value);
        if n % 10 == 0 {
            let found = made.get(key(at)).unwrap();
            assert!(found.as_deref() == expected.get(&key(at)).map(Vec::as_slice));
        }
    }
    made.delete_range(key(100)..key(200)).unwrap();
    expected.retain(|found, _| !(key(100)..key(200)).contains(found));
    assert_holds(&made, &expected);
    made.flush().unwrap();
    db.wait_idle().unwrap();
    db.close().unwrap();
    drop((made, db));
    let db: Db = open().unwrap();
    assert_holds(&db.existing_keyspace("a").unwrap().unwrap(), &expected);
    assert!(db.verify().unwrap().is_clean(), "{name}");
    db.close().unwrap();
    let count = |kinds: &[OpKind]| kinds.iter().map(|kind| fs.count(*kind)).sum();
    [
        count(&[OpKind::Read, OpKind::Open, OpKind::Map]),
        count(&[OpKind::Write, OpKind::Sync, OpKind::Create, OpKind::Rename]),
    ]
}

type Change = fn(Options) -> Options;

/// What a store can be opened with, at either end.
const STORES: &[(&str, Change)] = &[
    ("the defaults", |options| options),
    ("no cache", |options| {
        options.cache_bytes(0).mmap_reads(false)
    }),
    ("a cache of one byte", |options| {
        options.cache_bytes(1).mmap_reads(false)
    }),
    ("the largest cache", |options| options.cache_bytes(1 << 40)),
    ("the smallest buffer", |options| {
        options.write_buffer_bytes(16 << 10)
    }),
    ("the largest buffer", |options| {
        options.write_buffer_bytes(1 << 40)
    }),
    ("the smallest segment", |options| {
        options.log_segment_bytes(64 << 10)
    }),
    ("the largest segment", |options| {
        options.log_segment_bytes(1 << 30)
    }),
    ("no log", |options| {
        options.log_limit_bytes(0).log_segment_bytes(64 << 10)
    }),
    ("any log", |options| options.log_limit_bytes(u64::MAX)),
    ("two files", |options| {
        options.max_open_files(2).mmap_reads(false).cache_bytes(0)
    }),
    ("a million files", |options| {
        options.max_open_files(1_000_000)
    }),
    ("no thread", |options| options.background_threads(0)),
    ("one thread", |options| options.background_threads(1)),
    ("64 threads", |options| options.background_threads(64)),
    ("a sync each millisecond", |options| {
        options.background_sync_ms(1)
    }),
    ("a sync at the end of time", |options| {
        options.background_sync_ms(u64::MAX)
    }),
    ("everything at its least", |options| {
        options
            .cache_bytes(0)
            .write_buffer_bytes(16 << 10)
            .log_segment_bytes(64 << 10)
            .log_limit_bytes(0)
            .max_open_files(2)
            .mmap_reads(false)
            .mmap_log(false)
            .background_threads(0)
            .background_sync_ms(0)
    }),
];

fn keyspaces() -> Vec<(&'static str, KeyspaceOptions)> {
    let lsm = || KeyspaceOptions::new(EngineKind::Lsm);
    let btree = || KeyspaceOptions::new(EngineKind::BTree);
    vec![
        ("lsm", lsm()),
        ("btree", btree()),
        ("blocks of 256 bytes", lsm().block_size_bytes(256)),
        ("blocks of 64 KiB", lsm().block_size_bytes(65_536)),
        ("tables of 16 KiB", lsm().table_size_bytes(16 << 10)),
        ("tables of 4 GiB", lsm().table_size_bytes(4 << 30)),
        ("a skip list", lsm().memtable(MemtableKind::SkipList)),
        (
            "the least of an LSM tree",
            lsm()
                .write_buffer_bytes(16 << 10)
                .block_size_bytes(256)
                .table_size_bytes(16 << 10)
                .compression(Compression::None),
        ),
        ("pages of 1 KiB", btree().page_size_bytes(1024)),
        ("pages of 64 KiB", btree().page_size_bytes(65_536)),
        (
            "a buffer of a quarter page",
            btree().write_buffer_bytes(16 << 10).page_size_bytes(65_536),
        ),
        (
            "the least of a B-tree",
            btree().write_buffer_bytes(16 << 10).page_size_bytes(1024),
        ),
    ]
}

/// What a commit may cost on average, in calls that read and calls that change: with the least of
/// everything each commit of 100 bytes takes a share of flushes, compactions and checkpoints, and
/// each lookup reads its block. Work that grows with the square of something is far above.
const BEARABLE: [u64; 2] = [16, 5];

/// The most that a commit cost, of each kind of call, in hundredths, and what took so much.
type Worst = [(u64, String); 2];

fn assert_bearable(name: &str, calls: [u64; 2], worst: &mut Worst) {
    for (calls, worst) in calls.iter().zip(worst) {
        let each = calls * 100 / COMMITS;
        if each > worst.0 {
            *worst = (each, name.to_owned());
        }
    }
    for (what, (calls, bearable)) in ["read", "change"].iter().zip(calls.iter().zip(BEARABLE)) {
        assert!(
            *calls <= bearable * COMMITS,
            "{name}: {calls} calls that {what}, for {COMMITS} commits"
        );
    }
}

#[test]
fn a_store_works_at_either_end_of_each_of_its_options() {
    let mut worst = Worst::default();
    for (name, change) in STORES {
        for engine in EngineKind::ALL {
            let name = format!("{name}, {engine}");
            let calls = live(&name, change, &KeyspaceOptions::new(engine));
            assert_bearable(&name, calls, &mut worst);
        }
    }
    tell(&worst);
}

fn tell(worst: &Worst) {
    let [reads, changes] = worst.each_ref().map(|(n, name)| (*n as f64 / 100.0, name));
    report(format_args!(
        "extremes: a commit took up to {} calls that read ({}) and {} that change ({})",
        reads.0, reads.1, changes.0, changes.1
    ));
}

#[test]
fn a_keyspace_works_at_either_end_of_each_of_its_options() {
    let mut worst = Worst::default();
    let least = STORES.last().expect("there are some").1;
    for (name, keyspace) in keyspaces() {
        assert_bearable(name, live(name, &|options| options, &keyspace), &mut worst);
        // In a store that has the least of everything as well.
        let name = format!("{name}, with the least of all");
        assert_bearable(&name, live(&name, &least, &keyspace), &mut worst);
    }
    tell(&worst);
}

#[test]
fn what_a_store_cannot_work_with_is_refused_by_name() {
    let refused: &[(&str, Change)] = &[
        ("log_segment_bytes", |options| options.log_segment_bytes(0)),
        ("log_segment_bytes", |options| {
            options.log_segment_bytes((64 << 10) - 1)
        }),
        ("log_segment_bytes", |options| {
            options.log_segment_bytes((1 << 30) + 1)
        }),
        ("log_segment_bytes", |options| {
            options.log_segment_bytes(u64::MAX)
        }),
        ("write_buffer_bytes", |options| {
            options.write_buffer_bytes(0)
        }),
        ("write_buffer_bytes", |options| {
            options.write_buffer_bytes((16 << 10) - 1)
        }),
        ("write_buffer_bytes", |options| {
            options.write_buffer_bytes(u64::MAX)
        }),
        ("cache_bytes", |options| options.cache_bytes((1 << 40) + 1)),
        ("cache_bytes", |options| options.cache_bytes(u64::MAX)),
        ("max_open_files", |options| options.max_open_files(0)),
        ("max_open_files", |options| options.max_open_files(1)),
        ("max_open_files", |options| {
            options.max_open_files(usize::MAX)
        }),
        ("background_threads", |options| {
            options.background_threads(65)
        }),
        ("background_threads", |options| {
            options.background_threads(usize::MAX)
        }),
    ];
    for (name, change) in refused {
        let fs = SimFs::new();
        let opened = change(Options::new().fs(Arc::new(fs.clone()))).open("/store");
        match opened {
            Err(Error::InvalidArgument { what, .. }) => assert!(what.contains(name), "{what}"),
            other => panic!("{name}: {other:?}"),
        }
        use hedgerow::fs::Fs;
        assert!(!fs.exists("/store".as_ref()).unwrap(), "nothing is made");
    }
}
