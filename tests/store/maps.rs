//! Which files of a store are mapped, by what the kernel says.
#![cfg(target_os = "linux")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hedgerow::fs::{File, Fs, MapSource, OpenMode, StdFs};
use hedgerow::{Compression, Db, Durability, EngineKind, KeyspaceOptions, Options, Result};

/// Names of the files below `dir` that this process has mapped.
fn mapped_below(dir: &Path) -> BTreeSet<String> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let names = maps.lines().filter_map(|line| {
        let path = Path::new(line.get(line.find('/')?..)?);
        path.starts_with(dir).then(|| path.file_name())?
    });
    names
        .map(|name| name.to_string_lossy().into_owned())
        .collect()
}

/// The operating system's file system; counts how often a file is asked what it is mapped
/// through, and looks at what is mapped whenever a file is opened or read.
#[derive(Debug)]
struct Watched {
    inner: StdFs,
    dir: PathBuf,
    seen: Arc<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    asked: AtomicU64,
    mapped: AtomicU64,
}

#[derive(Debug)]
struct WatchedFile {
    inner: Arc<dyn File>,
    seen: Arc<Seen>,
}

impl Fs for Watched {
    fn open(&self, path: &Path, mode: OpenMode) -> Result<Arc<dyn File>> {
        let mapped = mapped_below(&self.dir).len() as u64;
        self.seen.mapped.fetch_max(mapped, Ordering::Relaxed);
        Ok(Arc::new(WatchedFile {
            inner: self.inner.open(path, mode)?,
            seen: Arc::clone(&self.seen),
        }))
    }

    support::forward_names!(inner);
}

impl File for WatchedFile {
    fn path(&self) -> &Path {
        self.inner.path()
    }
    fn len(&self) -> Result<u64> {
        self.inner.len()
    }
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.inner.read_exact_at(buf, offset)
    }
    fn write_all_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.inner.write_all_at(buf, offset)
    }
    fn set_len(&self, len: u64) -> Result<()> {
        self.inner.set_len(len)
    }
    fn sync_data(&self) -> Result<()> {
        self.inner.sync_data()
    }
    fn map_source(&self) -> Option<MapSource<'_>> {
        self.seen.asked.fetch_add(1, Ordering::Relaxed);
        self.inner.map_source()
    }
}

fn keyspace_options(engine: EngineKind) -> KeyspaceOptions {
    match engine {
        // Compressed blocks are not read through the map.
        EngineKind::Lsm => KeyspaceOptions::new(engine).compression(Compression::None),
        _ => KeyspaceOptions::new(engine),
    }
}

/// Writes, flushes, and leaves something in the log; with `old`, something is there.
fn work(db: &Db, look: &mut dyn FnMut()) {
    for (name, engine) in [("lsm", EngineKind::Lsm), ("btree", EngineKind::BTree)] {
        let keyspace = db.keyspace_with(name, keyspace_options(engine)).unwrap();
        look();
        for n in 0..2000_u32 {
            keyspace.put(n.to_be_bytes(), n.to_be_bytes()).unwrap();
        }
        keyspace.flush().unwrap();
        look();
        for n in 0..2000_u32 {
            assert!(keyspace.get(n.to_be_bytes()).unwrap().is_some());
        }
        assert_eq!(keyspace.iter().count(), 2000);
        look();
        for n in 0..100_u32 {
            keyspace.put(n.to_be_bytes(), "in the log").unwrap();
        }
    }
    assert!(db.verify().unwrap().problems.is_empty());
    look();
    db.compact().unwrap();
    look();
}

/// Recovery read the log through a map whatever the options said.
#[test]
fn without_maps_nothing_is_mapped() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().canonicalize().unwrap().join("store");
    let seen = Arc::new(Seen::default());
    for _ in 0..3 {
        let fs = Watched {
            inner: StdFs::new(),
            dir: dir.clone(),
            seen: Arc::clone(&seen),
        };
        let db = Options::new()
            .mmap_reads(false)
            .mmap_log(false)
            .durability(Durability::Buffered)
            .log_segment_bytes(64 << 10)
            .fs(Arc::new(fs))
            .open(&dir)
            .unwrap();
        work(&db, &mut || assert_eq!(mapped_below(&dir), BTreeSet::new()));
    }
    assert_eq!(seen.mapped.load(Ordering::Relaxed), 0);
    assert_eq!(seen.asked.load(Ordering::Relaxed), 0);
}

/// Each of the two options is about its own files, and the log is mapped where blocks are
/// overwritten in place.
#[test]
fn each_option_maps_its_own_files() {
    for place in ["/tmp", "/dev/shm"].map(Path::new) {
        if !place.is_dir() {
            continue;
        }
        let home = tempfile::tempdir_in(place).unwrap();
        let home = home.path().canonicalize().unwrap();
        let kind = rustix::fs::statfs(&home).unwrap().f_type as u64 & 0xFFFF_FFFF;
        let is_in_place = [0xEF53, 0x5846_5342, 0x0102_1994].contains(&kind);
        for (reads, log) in [(true, true), (true, false), (false, true)] {
            let dir = home.join(format!("{reads}-{log}"));
            let mut seen = BTreeSet::new();
            for _ in 0..2 {
                let options = Options::new()
                    .durability(Durability::Buffered)
                    .mmap_reads(reads)
                    .mmap_log(log);
                let db = options.open(&dir).unwrap();
                work(&db, &mut || seen.extend(mapped_below(&dir)));
            }
            let is_log = |name: &String| name.ends_with(".log");
            let context = format!("{kind:x}, reads {reads}, log {log}: {seen:?}");
            assert_eq!(seen.iter().any(is_log), log && is_in_place, "{context}");
            assert_eq!(!seen.iter().all(is_log), reads, "{context}");
        }
    }
}
