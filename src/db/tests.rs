//! The scrub of a store with keyspaces of both engines.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Db, Keyspace};
use crate::error::{Error, Result};
use crate::fs::{File, Fs, FsLock, LockMode, OpenMode, SimFs, StdFs};
use crate::kv::Batch;
use crate::options::{Compression, Durability, EngineKind, KeyspaceOptions, Options};

fn keyspaces(db: &Db) -> Vec<Keyspace> {
    let lsm = KeyspaceOptions::new(EngineKind::Lsm).compression(Compression::None);
    let btree = KeyspaceOptions::new(EngineKind::BTree).page_size_bytes(1024);
    let options = [("lsm", lsm), ("btree", btree)];
    let made = options.map(|(name, options)| db.keyspace_with(name, options).unwrap());
    made.into()
}

fn fill(db: &Db) {
    for keyspace in keyspaces(db) {
        for number in 0..3000_u32 {
            let key = number.to_be_bytes();
            keyspace.put(key, [number as u8; 60]).unwrap();
        }
        // One that lies outside of its leaf.
        keyspace.put("large", [7; 5000]).unwrap();
        keyspace.flush().unwrap();
    }
}

/// The files of keyspaces and of the log that have data in them.
fn data_files(fs: &dyn Fs, dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for name in fs.read_dir(dir).unwrap() {
        let path = dir.join(&name);
        if name == "tree.hdb" || name.starts_with("TABLE-") || name.ends_with(".log") {
            files.push(path);
        } else if let Ok(names) = fs.read_dir(&path)
            && !names.is_empty()
        {
            files.extend(data_files(fs, &path));
        }
    }
    files
}

/// Damage in what had been verified and was mapped or cached went unnoticed for as long as the
/// store was open.
#[test]
fn damage_of_what_was_verified_before_is_found() {
    let scratch = tempfile::tempdir().unwrap();
    let on_disk: (Arc<dyn Fs>, _) = (Arc::new(StdFs::new()), scratch.path().join("store"));
    let in_memory: (Arc<dyn Fs>, _) = (Arc::new(SimFs::new()), "/store".into());
    for (fs, path) in [on_disk, in_memory] {
        let options = Options::new().fs(Arc::clone(&fs)).background_threads(0);
        let db = options.open(&path).unwrap();
        fill(&db);
        // Everything has been read, and is remembered as right.
        assert!(
            keyspaces(&db)
                .iter()
                .all(|keyspace| keyspace.len().unwrap() == 3001)
        );
        let shared = &db.store.shared;
        let scrub = || {
            shared.scrub_once(&mut |_| Ok(())).unwrap();
            db.stats().scrub
        };
        let clean = scrub();
        assert_eq!((clean.passes, clean.problems), (1, 0));
        assert_eq!(db.stats().background_error, None);
        let stored: u64 = db
            .stats()
            .keyspaces
            .iter()
            .map(|it| it.stats.disk_bytes)
            .sum();
        // All but free pages.
        assert!(
            clean.last_pass_bytes > stored * 3 / 4,
            "{clean:?} of {stored}"
        );
        let files = data_files(&*fs, &path);
        assert!(files.len() >= 3, "{files:?}");
        for path in files {
            let file = fs.open(&path, OpenMode::ReadWrite).unwrap();
            let (at, mut byte) = (file.len().unwrap() / 7, [0]);
            file.read_exact_at(&mut byte, at).unwrap();
            file.write_all_at(&[byte[0] ^ 1], at).unwrap();
            let found = scrub();
            assert!(found.problems > 0, "{}", path.display());
            let error = db.stats().background_error.unwrap();
            let name = path.file_name().unwrap().to_str().unwrap();
            assert!(
                error.starts_with("scrub: ") && error.contains(name),
                "{error}"
            );
            file.write_all_at(&byte, at).unwrap();
            assert_eq!(scrub().problems, 0);
            assert_eq!(db.stats().background_error, None);
        }
        db.close().unwrap();
    }
}

/// A disk of which the operating system remembers what it was. What it holds now is found by
/// reading past that, but for one byte of one file.
#[derive(Debug)]
struct Rotten {
    fs: SimFs,
    damaged: Mutex<Option<PathBuf>>,
}

impl Fs for Rotten {
    fn open(&self, path: &Path, mode: OpenMode) -> Result<Arc<dyn File>> {
        self.fs.open(path, mode)
    }

    fn open_uncached(&self, path: &Path) -> Result<Arc<dyn File>> {
        let file = self.fs.open(path, OpenMode::Read)?;
        let damaged = self.damaged.lock();
        Ok(match &*damaged {
            Some(damaged) if damaged == path => Arc::new(RottenFile(file)),
            _ => file,
        })
    }

    fn create_dir_all(&self, path: &Path) -> Result<()> {
        self.fs.create_dir_all(path)
    }

    fn read_dir(&self, path: &Path) -> Result<Vec<String>> {
        self.fs.read_dir(path)
    }

    fn exists(&self, path: &Path) -> Result<bool> {
        self.fs.exists(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.fs.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> Result<()> {
        self.fs.remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> Result<()> {
        self.fs.remove_dir(path)
    }

    fn sync_dir(&self, path: &Path) -> Result<()> {
        self.fs.sync_dir(path)
    }

    fn lock(&self, path: &Path, mode: LockMode) -> Result<Box<dyn FsLock>> {
        self.fs.lock(path, mode)
    }
}

/// One bit of it is not what it was.
#[derive(Debug)]
struct RottenFile(Arc<dyn File>);

impl File for RottenFile {
    fn path(&self) -> &Path {
        self.0.path()
    }

    fn len(&self) -> Result<u64> {
        self.0.len()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.0.read_exact_at(buf, offset)?;
        let at = (self.0.len()? / 7).checked_sub(offset);
        let byte = at.and_then(|at| buf.get_mut(usize::try_from(at).ok()?));
        if let Some(byte) = byte {
            *byte ^= 1;
        }
        Ok(())
    }

    fn write_all_at(&self, _: &[u8], _: u64) -> Result<()> {
        unreachable!("it is opened for reading")
    }

    fn set_len(&self, _: u64) -> Result<()> {
        unreachable!("it is opened for reading")
    }

    fn sync_data(&self) -> Result<()> {
        unreachable!("it is opened for reading")
    }
}

/// What the operating system remembers is right for as long as it does, and no longer.
#[test]
fn damage_that_only_the_disk_has_is_found() {
    let fs = Arc::new(Rotten {
        fs: SimFs::new(),
        damaged: Mutex::default(),
    });
    let shared: Arc<dyn Fs> = Arc::clone(&fs) as _;
    let db = Options::new().fs(shared).background_threads(0);
    let db = db.open("/store").unwrap();
    fill(&db);
    let problems = || {
        db.store.shared.scrub_once(&mut |_| Ok(())).unwrap();
        db.stats().scrub.problems
    };
    assert_eq!(problems(), 0);
    let mut files = data_files(&*fs, Path::new("/store"));
    files.retain(|path| path.extension().is_none_or(|extension| extension != "log"));
    assert_eq!(files.len(), 2, "a table and a page file");
    for path in files {
        *fs.damaged.lock() = Some(path.clone());
        assert!(problems() > 0, "{}", path.display());
        assert!(db.verify().unwrap().is_clean(), "a read does not meet it");
    }
    *fs.damaged.lock() = None;
    assert_eq!(problems(), 0);
}

/// What is written or dropped while a pass runs is no problem, and a pass ends with the store.
#[test]
fn a_pass_goes_on_beside_changes_and_ends_when_the_store_closes() {
    let fs = Arc::new(SimFs::new());
    let options = Options::new().fs(fs).background_threads(0);
    let db = options.open(Path::new("/store")).unwrap();
    fill(&db);
    let shared = &db.store.shared;
    let mut pieces = 0;
    let change = &mut |_| {
        pieces += 1;
        if pieces <= 4 {
            for keyspace in keyspaces(&db) {
                keyspace.delete_range(..[0, 0, 9]).unwrap();
                for number in 0..200_u32 {
                    let key = (number * 13 + pieces).to_be_bytes();
                    keyspace.put(key, [1; 70]).unwrap();
                }
                keyspace.compact().unwrap();
            }
        }
        Ok(())
    };
    shared.scrub_once(change).unwrap();
    assert_eq!(
        db.stats().scrub.problems,
        0,
        "{:?}",
        db.stats().background_error
    );
    assert!(pieces >= 4, "{pieces}");
    let dropped = shared.scrub_once(&mut |_| {
        for name in ["lsm", "btree"] {
            let _ = db.drop_keyspace(name);
        }
        Ok(())
    });
    dropped.unwrap();
    assert_eq!(
        db.stats().scrub.problems,
        0,
        "{:?}",
        db.stats().background_error
    );
    fill(&db);
    let ended = shared.scrub_once(&mut |_| Err(Error::Closed));
    assert!(matches!(ended, Err(Error::Closed)));
    assert_eq!(db.stats().scrub.passes, 2);
}

/// Values that lie apart from the table are read again with it, and the headers of their files.
#[test]
fn damage_of_values_that_are_stored_apart_is_found() {
    EngineKind::ALL
        .into_iter()
        .for_each(damage_of_values_is_found);
}

fn damage_of_values_is_found(engine: EngineKind) {
    let fs: Arc<dyn Fs> = Arc::new(SimFs::new());
    let options = Options::new().fs(Arc::clone(&fs)).background_threads(0);
    let options = options.log_segment_bytes(64 << 10).scrub_period(None);
    let db = options.open("/store").unwrap();
    let asked = KeyspaceOptions::new(engine).value_threshold_bytes(1000);
    let keyspace = db.keyspace_with("a", asked).unwrap();
    for number in 0..60_u8 {
        keyspace.put([number], [number; 4000]).unwrap();
    }
    keyspace.flush().unwrap();
    db.wait_idle().unwrap();
    let shared = &db.store.shared;
    let scrub = || {
        shared.scrub_once(&mut |_| Ok(())).unwrap();
        (db.stats().scrub.problems, db.stats().background_error)
    };
    assert_eq!(scrub(), (0, None));
    let log = Path::new("/store/wal");
    let mut names = fs.read_dir(log).unwrap();
    names.retain(|name| name.ends_with(".val"));
    assert!(names.len() >= 2, "{names:?}");
    for name in names {
        let file = fs.open(&log.join(&name), OpenMode::ReadWrite).unwrap();
        // Of the header, and of a value.
        for at in [20, file.len().unwrap() / 2] {
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).unwrap();
            file.write_all_at(&[byte[0] ^ 1], at).unwrap();
            let (problems, error) = scrub();
            assert_eq!(problems, 1, "byte {at} of {name}");
            assert!(error.unwrap().contains(&name));
            let verified = db.verify().unwrap();
            assert_eq!(verified.problems.len(), 1, "byte {at} of {name}");
            file.write_all_at(&byte, at).unwrap();
        }
    }
    assert_eq!(scrub(), (0, None));
}

/// What was committed after a load went into the memtable that a view before it had: a merge was
/// folded over nothing, and of two keys the later one was seen alone.
#[test]
fn nothing_that_comes_after_a_load_is_seen_without_it() {
    let options = Options::new()
        .fs(Arc::new(SimFs::new()))
        .merge_operator(crate::resolve::Append)
        .background_threads(0);
    let db = options.open(Path::new("/store")).unwrap();
    let fresh = |name: &str| {
        let options = KeyspaceOptions::new(EngineKind::Lsm).merge_operator("append");
        let keyspace = db.keyspace_with(name, options).unwrap();
        let other = keyspace.clone();
        crate::testing::first(move || {
            let mut load = other.bulk_load().unwrap();
            load.put("k", "a").unwrap();
            load.finish().unwrap();
            other.merge("k", "b").unwrap();
            other.put("later", "c").unwrap();
        });
        keyspace
    };
    let found = fresh("one").get("k").unwrap();
    assert!(
        found.is_none() || found.as_deref() == Some(&b"ab"[..]),
        "{found:?}"
    );
    let found = fresh("two").multi_get(&["k", "later"]).unwrap();
    assert_eq!(found[0].is_some(), found[1].is_some(), "{found:?}");
}

#[test]
fn a_power_loss_at_any_change_of_a_load_leaves_all_of_it_or_nothing() {
    for engine in EngineKind::ALL {
        let fs = SimFs::new();
        let open = |fs: &SimFs| {
            let options = Options::new().fs(Arc::new(fs.clone()));
            options.background_threads(0).open(Path::new("/store"))
        };
        let db = open(&fs).unwrap();
        let keyspace = db.keyspace("a", engine).unwrap();
        let losses = Arc::new(Mutex::new(Vec::new()));
        fs.on_change({
            let losses = Arc::clone(&losses);
            move |fs, _| losses.lock().push(fs.crash())
        });
        let mut load = keyspace.bulk_load().unwrap();
        for n in 0..100_u64 {
            load.put(n.to_be_bytes(), [7; 100]).unwrap();
        }
        load.finish().unwrap();
        fs.clear_hook();
        let left = |loss: &SimFs| {
            let db = open(loss).unwrap();
            let keyspace = db.existing_keyspace("a").unwrap().unwrap();
            assert!(keyspace.verify().unwrap().is_clean());
            keyspace.iter().count()
        };
        let found: Vec<_> = losses.lock().iter().map(left).collect();
        assert!(found.len() > 3, "only {} changes", found.len());
        assert!(found.iter().all(|&n| n == 0 || n == 100), "{found:?}");
        assert_eq!(left(&fs.crash()), 100);
    }
}

/// It was taken after the sync.
#[test]
fn the_number_of_an_empty_sync_write_is_durable() {
    let options = Options::new()
        .fs(Arc::new(SimFs::new()))
        .background_threads(0);
    let db = options.open(Path::new("/store")).unwrap();
    let keyspace = db.keyspace("a", EngineKind::Lsm).unwrap();
    let buffered = keyspace.with_durability(Durability::Buffered);
    let other = buffered.clone();
    crate::testing::first(move || {
        other.put("key", "value").unwrap();
    });
    let seq = keyspace.write(Batch::new()).unwrap();
    assert!(db.durable_seq() >= seq);
    buffered.put("key", "other").unwrap();
    let seq = keyspace.bulk_load().unwrap().finish().unwrap();
    assert!(db.durable_seq() >= seq);
}

/// A flush between the look at the clock and the view dropped one of them.
#[test]
fn values_that_expire_together_are_seen_together() {
    let clock = crate::resolve::ManualClock::new();
    let options = Options::new()
        .fs(Arc::new(SimFs::new()))
        .clock(clock.clone())
        .background_threads(0);
    let db = options.open(Path::new("/store")).unwrap();
    let options = KeyspaceOptions::new(EngineKind::Lsm).expiry(true);
    let keyspace = db.keyspace_with("a", options).unwrap();
    let ttl = std::time::Duration::from_secs(10);
    keyspace.put_with_ttl("first", "", ttl).unwrap();
    keyspace.flush().unwrap();
    keyspace.put_with_ttl("second", "", ttl).unwrap();
    let other = keyspace.clone();
    crate::testing::first(move || {
        clock.advance(2 * ttl);
        other.flush().unwrap();
    });
    let seen = keyspace.iter().count();
    assert!(seen == 0 || seen == 2, "{seen}");
}

/// A clock that has gone on at each look.
#[derive(Debug, Default)]
struct Ticking(std::sync::atomic::AtomicU64);

impl crate::resolve::Clock for Ticking {
    fn now(&self) -> std::time::SystemTime {
        let ms = self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        assert!(ms < 10_000, "it is asked without end");
        std::time::UNIX_EPOCH + std::time::Duration::from_millis(ms)
    }
}

/// A read began again whenever the clock had gone on meanwhile.
#[test]
fn reads_end_though_the_clock_goes_on() {
    for engine in EngineKind::ALL {
        let options = Options::new()
            .fs(Arc::new(SimFs::new()))
            .clock(Ticking::default())
            .background_threads(0);
        let db = options.open(Path::new("/store")).unwrap();
        let asked = KeyspaceOptions::new(engine).expiry(true);
        let keyspace = db.keyspace_with("a", asked).unwrap();
        let ttl = std::time::Duration::from_secs(3600);
        keyspace.put_with_ttl("k", "v", ttl).unwrap();
        assert!(keyspace.multi_get(&["k"]).unwrap()[0].is_some());
        assert_eq!(keyspace.iter().count(), 1);
    }
}

/// Nothing had told the tree to look again.
#[test]
fn a_larger_table_size_joins_tables_without_a_write() {
    let options = Options::new()
        .fs(Arc::new(SimFs::new()))
        .background_threads(0);
    let db = options.open(Path::new("/store")).unwrap();
    let sized = |bytes| {
        KeyspaceOptions::new(EngineKind::Lsm)
            .compression(Compression::None)
            .table_size_bytes(bytes)
    };
    let keyspace = db.keyspace_with("a", sized(16 << 10)).unwrap();
    let mut load = keyspace.bulk_load().unwrap();
    for n in 0..1000_u64 {
        load.put(n.to_be_bytes(), [7; 100]).unwrap();
    }
    load.finish().unwrap();
    db.wait_idle().unwrap();
    let before = keyspace.stats().files;
    assert!(before >= 4, "{before}");
    db.keyspace_with("a", sized(1 << 20)).unwrap();
    db.wait_idle().unwrap();
    let after = keyspace.stats().files;
    assert!(after < before, "{after} of {before}");
}

/// It was looked at before the moment of the transaction.
#[test]
fn a_transaction_does_not_read_what_was_dropped_before_its_moment() {
    for engine in EngineKind::ALL {
        let options = Options::new()
            .fs(Arc::new(SimFs::new()))
            .background_threads(0);
        let db = options.open(Path::new("/store")).unwrap();
        let [a, b] = ["a", "b"].map(|name| db.keyspace(name, engine).unwrap());
        a.put("k", "v").unwrap();
        let other = db.clone();
        crate::testing::first(move || other.drop_keyspace("a").unwrap());
        let options = crate::TransactionOptions::new().keyspaces([&a, &b]);
        match db.transaction_with(options) {
            Err(error) => assert!(matches!(error, Error::NoSuchKeyspace { .. })),
            Ok(tx) => {
                if let Ok(Some(value)) = tx.get(&a, "k") {
                    tx.put(&b, "copy", value).unwrap();
                    assert!(tx.commit().is_err(), "it read what was dropped before");
                }
            }
        }
    }
}

/// Whatever was written between two entries had it begin again.
#[test]
fn retain_ends_though_what_stays_is_written_meanwhile() {
    for engine in EngineKind::ALL {
        let options = Options::new()
            .fs(Arc::new(SimFs::new()))
            .background_threads(0);
        let db = options.open(Path::new("/store")).unwrap();
        let keyspace = db.keyspace("a", engine).unwrap();
        keyspace.put("gone", "").unwrap();
        keyspace.put("hot", "").unwrap();
        let mut calls = 0_u32;
        let keep = |key: &[u8], _: &[u8]| {
            calls += 1;
            assert!(calls < 100, "it begins again without end");
            if key == b"hot" {
                keyspace.put("hot", calls.to_le_bytes()).unwrap();
            }
            key != b"gone"
        };
        assert_eq!(keyspace.retain(keep).unwrap(), 1);
        assert_eq!(keyspace.len().unwrap(), 1);
    }
}
