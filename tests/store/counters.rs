//! The store's own figures of what it reads and writes, against a file system that counts.
//!
//! Amplification is a ratio of these figures, so a benchmark is worth no more than they are.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use hedgerow::fs::{File, Fs, OpenMode, SimFs};
use hedgerow::{Compression, Db, Durability, EngineKind, KeyspaceOptions, Options, Result};
use support::random::{Random, Source};

/// What was done to the files whose names begin alike.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Traffic {
    reads: u64,
    written_bytes: u64,
}

/// A file system in memory that counts; it maps nothing, so everything comes by here.
#[derive(Debug, Clone, Default)]
struct CountingFs {
    inner: SimFs,
    /// By the kind of file.
    traffic: Arc<Mutex<BTreeMap<&'static str, Traffic>>>,
}

/// Whose file it is, by its name (docs/format.md).
fn kind_of(path: &Path) -> &'static str {
    let name = path.file_name().unwrap().to_str().unwrap();
    match name {
        "CATALOG.tmp" | "WAL-MANIFEST.tmp" | "tree.hdb.tmp" => "other",
        // A segment that is being prepared has another name at first.
        _ if name.ends_with(".log") || name.ends_with(".tmp") => "log",
        _ if name.starts_with("TABLE-") => "table",
        "tree.hdb" => "tree",
        _ => "other",
    }
}

impl CountingFs {
    fn of(&self, kind: &str) -> Traffic {
        let traffic = self.traffic.lock().unwrap();
        traffic.get(kind).copied().unwrap_or_default()
    }
}

#[derive(Debug)]
struct CountingFile {
    inner: Arc<dyn File>,
    kind: &'static str,
    traffic: Arc<Mutex<BTreeMap<&'static str, Traffic>>>,
}

impl CountingFile {
    fn count(&self, count: impl FnOnce(&mut Traffic)) {
        count(self.traffic.lock().unwrap().entry(self.kind).or_default());
    }
}

impl File for CountingFile {
    fn path(&self) -> &Path {
        self.inner.path()
    }
    fn len(&self) -> Result<u64> {
        self.inner.len()
    }
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.count(|traffic| traffic.reads += 1);
        self.inner.read_exact_at(buf, offset)
    }
    fn write_all_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.count(|traffic| traffic.written_bytes += buf.len() as u64);
        self.inner.write_all_at(buf, offset)
    }
    fn set_len(&self, len: u64) -> Result<()> {
        self.inner.set_len(len)
    }
    fn sync_data(&self) -> Result<()> {
        self.inner.sync_data()
    }
}

impl Fs for CountingFs {
    fn open(&self, path: &Path, mode: OpenMode) -> Result<Arc<dyn File>> {
        Ok(Arc::new(CountingFile {
            inner: self.inner.open(path, mode)?,
            kind: kind_of(path),
            traffic: Arc::clone(&self.traffic),
        }))
    }

    support::forward_names!(inner);
}

const RECORDS: u64 = 5000;

fn open(fs: &CountingFs, cache_bytes: u64) -> Db {
    Options::new()
        .durability(Durability::Buffered)
        .fs(Arc::new(fs.clone()))
        .cache_bytes(cache_bytes)
        .open("/store")
        .unwrap()
}

fn keyspace_options(engine: EngineKind) -> KeyspaceOptions {
    let options = KeyspaceOptions::new(engine).write_buffer_bytes(64 << 10);
    match engine {
        EngineKind::Lsm => options
            .table_size_bytes(64 << 10)
            .block_size_bytes(1 << 10)
            .compression(Compression::None),
        EngineKind::BTree => options.page_size_bytes(1 << 10),
    }
}

fn fill(db: &Db, engine: EngineKind) -> u64 {
    let keyspace = db.keyspace_with("ks", keyspace_options(engine)).unwrap();
    let mut user_bytes = 0;
    for number in 0..RECORDS {
        let key = (number * 2_654_435_761 % RECORDS).to_be_bytes();
        keyspace.put(key, [number as u8; 100]).unwrap();
        user_bytes += key.len() as u64 + 100;
    }
    keyspace.flush().unwrap();
    db.wait_idle().unwrap();
    user_bytes
}

#[test]
fn bytes_written_are_those_that_the_file_system_saw() {
    for (engine, kind) in [(EngineKind::Lsm, "table"), (EngineKind::BTree, "tree")] {
        let fs = CountingFs::default();
        let db = open(&fs, 1 << 20);
        let user_bytes = fill(&db, engine);
        db.keyspace("ks", engine).unwrap().compact().unwrap();
        db.wait_idle().unwrap();
        let stats = db.stats();
        let of_engine = stats.bytes_written() - stats.log_bytes_written;
        let seen = fs.of(kind).written_bytes;
        assert!(of_engine > user_bytes, "{engine}: {stats:?}");
        // What the engines count are nodes, values and tables; the B-tree's meta pages and free
        // list come on top.
        let more = match engine {
            EngineKind::Lsm => 0,
            EngineKind::BTree => seen / 10,
        };
        assert!(
            seen >= of_engine && seen - of_engine <= more,
            "{engine}: counted {of_engine}, seen {seen}, {:?}",
            fs.traffic.lock().unwrap()
        );
        // The log is prepared with zeros before it is written, so that storage sees more.
        let log = fs.of("log").written_bytes;
        assert!(stats.log_bytes_written > user_bytes && log > stats.log_bytes_written);
        db.close().unwrap();
    }
}

/// With no cache and no map, every block that a lookup touches is read from its file.
#[test]
fn blocks_read_are_those_that_the_file_system_saw() {
    for (engine, kind) in [(EngineKind::Lsm, "table"), (EngineKind::BTree, "tree")] {
        let fs = CountingFs::default();
        let db = open(&fs, 1 << 20);
        fill(&db, engine);
        db.close().unwrap();
        drop(db);
        let db = open(&fs, 0);
        let keyspace = db.keyspace("ks", engine).unwrap();
        let count = |lookups: &dyn Fn()| {
            let before = (keyspace.stats().blocks_read, fs.of(kind).reads);
            lookups();
            let after = (keyspace.stats().blocks_read, fs.of(kind).reads);
            (after.0 - before.0, after.1 - before.1)
        };
        let (counted, seen) = count(&|| {
            for number in 0..500_u64 {
                let key = (number * 9).to_be_bytes();
                assert!(keyspace.get(key).unwrap().is_some());
            }
        });
        assert!(counted >= 500, "{engine}: {counted}");
        assert_eq!(counted, seen, "{engine}");
        // Nothing is looked for in a table whose filter says no; in a tree all levels are.
        let (counted, seen) = count(&|| {
            for number in 0..500_u64 {
                let key = [&number.to_be_bytes()[..], b"x"].concat();
                assert!(keyspace.get(key).unwrap().is_none());
            }
        });
        assert_eq!(counted, seen, "{engine}");
        match engine {
            EngineKind::Lsm => assert!(counted < 50, "{counted}"),
            EngineKind::BTree => assert!(counted >= 500, "{counted}"),
        }
        let _ = keyspace;
        db.close().unwrap();
    }
}

/// What reaches the file system for each byte that is put, in steady fill and under steady
/// overwriting, of values that are stored apart from their keys.
#[test]
fn a_value_that_is_stored_apart_is_written_once() {
    EngineKind::ALL.into_iter().for_each(written_once);
}

fn written_once(engine: EngineKind) {
    let fs = CountingFs::default();
    let db = Options::new()
        .fs(Arc::new(fs.clone()))
        .background_threads(0)
        .background_sync_ms(0)
        .log_segment_bytes(1 << 20)
        .log_limit_bytes(2 << 20)
        .durability(Durability::Buffered)
        .open("/store")
        .unwrap();
    let asked = KeyspaceOptions::new(engine).value_threshold_bytes(1000);
    let keyspace = db.keyspace_with("a", asked).unwrap();
    let written = || {
        let traffic = fs.traffic.lock().unwrap();
        traffic.values().map(|of| of.written_bytes).sum::<u64>()
    };
    let put = |key: u64, n: u64| {
        keyspace
            .put(key.to_be_bytes(), vec![n as u8; 4000])
            .unwrap();
        if n.is_multiple_of(50) {
            db.wait_idle().unwrap();
        }
    };
    (0..600).for_each(|n| put(n, n));
    let before = written();
    (600..3000).for_each(|n| put(n, n));
    keyspace.flush().unwrap();
    db.wait_idle().unwrap();
    let ratio = (written() - before) as f64 / (2400.0 * 4008.0);
    assert!(ratio <= 1.3, "{ratio} bytes for each that was put in");

    let mut random = Random::new(1);
    (0..6000).for_each(|n| put(random.below(3000), n));
    let before = written();
    (0..6000).for_each(|n| put(random.below(3000), n));
    keyspace.flush().unwrap();
    db.wait_idle().unwrap();
    let ratio = (written() - before) as f64 / (6000.0 * 4008.0);
    assert!(ratio <= 2.0, "{ratio} bytes for each that was overwritten");
}
