//! Whose process and whose directory a store is: changes of the working directory, lock files that
//! go away, processes that fork.
#![allow(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hedgerow::fs::{Fault, FaultFs, FaultPlan, Fs, LockMode, OpKind, OpenMode, SimFs, StdFs};
use hedgerow::{
    CompactionFilter, Db, Durability, EngineKind, Error, Keyspace, KeyspaceOptions, Kv, Options,
    Verdict,
};

/// Where the child of a test works; not set in an ordinary run.
const CHILD_DIR: &str = "HEDGEROW_TEST_CHILD_DIR";

/// Runs the test `name` of this file in a process of its own, which is told `dir`.
fn run_alone(name: &str, dir: &Path) {
    let output = Command::new(env::current_exe().unwrap())
        .args(["--exact", &format!("ownership::{name}"), "--nocapture"])
        .env(CHILD_DIR, dir)
        .env("RUST_TEST_THREADS", "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{errors}");
    assert!(text.contains("1 passed"), "{text}");
}

/// Small segments, so that many are made.
fn small_segments() -> Options {
    Options::new()
        .durability(Durability::Buffered)
        .log_segment_bytes(64 << 10)
}

const ENGINES: [EngineKind; 2] = [EngineKind::Lsm, EngineKind::BTree];

/// Puts enough for many segments of the log.
fn put_many(db: &Db, value: &[u8]) {
    for engine in ENGINES {
        let keyspace = db.keyspace(&format!("{engine:?}"), engine).unwrap();
        for n in 0..300_u32 {
            keyspace.put(n.to_be_bytes(), value).unwrap();
        }
    }
}

fn assert_holds(dir: &Path, value: &[u8]) {
    let db = small_segments().open(dir).unwrap();
    assert!(db.verify().unwrap().problems.is_empty());
    for engine in ENGINES {
        let keyspace = db.keyspace(&format!("{engine:?}"), engine).unwrap();
        for n in 0..300_u32 {
            let found = keyspace.get(n.to_be_bytes()).unwrap();
            assert_eq!(found.as_deref(), Some(value), "{engine:?} {n}");
        }
    }
}

/// A store opened by a relative path went on writing below the new working directory, over the
/// files of another store that had the same relative path there. Neither opened again.
#[test]
fn a_relative_path_stays_where_it_was_when_the_working_directory_changes() {
    let home = tempfile::tempdir().unwrap();
    run_alone("child_that_changes_its_directory", home.path());
    assert_holds(&home.path().join("one/data"), &[1; 1000]);
    assert_holds(&home.path().join("two/data"), &[2; 1000]);
}

#[test]
fn child_that_changes_its_directory() {
    let Some(home) = env::var_os(CHILD_DIR) else {
        return;
    };
    let home = Path::new(&home);
    let [one, two] = ["one", "two"].map(|name| home.join(name));
    for dir in [&one, &two] {
        std::fs::create_dir(dir).unwrap();
    }
    let other = small_segments().open(two.join("data")).unwrap();
    put_many(&other, &[2; 1000]);
    other.close().unwrap();

    env::set_current_dir(&one).unwrap();
    let db = small_segments().open("data").unwrap();
    env::set_current_dir(&two).unwrap();
    put_many(&db, &[1; 1000]);
    db.flush().unwrap();
    db.compact().unwrap();
    db.close().unwrap();
}

/// With the lock file gone, another process could open the store, and nothing noticed.
#[test]
fn a_store_that_lost_its_lock_file_makes_no_more_segments() {
    for replaced in [false, true] {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("store");
        let db = small_segments().open(&dir).unwrap();
        let keyspace = db.keyspace("a", EngineKind::Lsm).unwrap();
        keyspace.put("before", "1").unwrap();
        std::fs::remove_file(dir.join("LOCK")).unwrap();
        if replaced {
            std::fs::write(dir.join("LOCK"), "").unwrap();
        }
        let failure = (0..1000_u32).find_map(|n| keyspace.put(n.to_be_bytes(), [0; 1000]).err());
        let Some(Error::LockLost { path, .. }) = failure else {
            panic!("{failure:?}");
        };
        assert_eq!(path, dir.join("LOCK"));
        drop((keyspace, db));
        let db = Db::open(&dir).unwrap();
        let keyspace = db.keyspace("a", EngineKind::Lsm).unwrap();
        assert_eq!(keyspace.get("before").unwrap().as_deref(), Some(&b"1"[..]));
    }
}

/// Only segments of the log were asked about: `CATALOG` and `WAL-MANIFEST` of a store whose lock
/// was lost were replaced, which may be those of another process by then.
#[test]
fn a_store_that_lost_its_lock_file_replaces_no_file_of_its_directory() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("store");
    let db = small_segments().open(&dir).unwrap();
    let keyspace = db.keyspace("a", EngineKind::Lsm).unwrap();
    for n in 0..50_u32 {
        keyspace.put(n.to_be_bytes(), [0; 1000]).unwrap();
    }
    db.flush().unwrap();
    let files = || ["CATALOG", "WAL-MANIFEST"].map(|name| std::fs::read(dir.join(name)).unwrap());
    let before = files();
    std::fs::remove_file(dir.join("LOCK")).unwrap();
    db.rename_keyspace("a", "b").unwrap();
    // Closing would write both.
    db.close().unwrap();
    drop((keyspace, db));
    assert_eq!(files(), before);
    let db = Db::open(&dir).unwrap();
    let keyspace = db.existing_keyspace("b").unwrap().unwrap();
    assert_eq!(keyspace.len().unwrap(), 50);
}

#[cfg(unix)]
unsafe extern "C" {
    fn fork() -> std::ffi::c_int;
    fn waitpid(
        pid: std::ffi::c_int,
        status: *mut std::ffi::c_int,
        options: std::ffi::c_int,
    ) -> std::ffi::c_int;
    fn _exit(status: std::ffi::c_int) -> !;
}

/// A child that let its copies of the handles go gave the parent's lock away; one that wrote
/// through them wrote into the parent's log.
#[cfg(unix)]
#[test]
fn a_forked_child_does_nothing_with_its_copy_of_a_store() {
    let home = tempfile::tempdir().unwrap();
    run_alone("child_that_forks", home.path());
    let db = Db::open(home.path()).unwrap();
    assert!(db.verify().unwrap().problems.is_empty());
    for engine in ENGINES {
        let keyspace = db.keyspace(&format!("{engine:?}"), engine).unwrap();
        assert_eq!(keyspace.iter().count(), 101, "{engine:?}");
    }
}

/// All files and directories below `dir`.
#[cfg(unix)]
fn names_below(dir: &Path) -> BTreeSet<PathBuf> {
    let mut names = BTreeSet::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            names.append(&mut names_below(&path));
        }
        names.insert(path);
    }
    names
}

/// Reads that have begun when the process forks.
#[cfg(unix)]
struct Reads {
    snapshot: hedgerow::Snapshot,
    snapshots: Vec<hedgerow::KeyspaceSnapshot>,
    /// Every third one has yielded an entry from the front.
    scans: Vec<hedgerow::Scan>,
    /// Of a value that lies apart: one has a chunk of it at hand.
    readers: Vec<hedgerow::ValueReader>,
    tx: hedgerow::Transaction,
}

#[cfg(unix)]
impl Reads {
    fn begin(db: &Db, keyspaces: &[Keyspace], long: &Keyspace) -> Self {
        let tx = db.transaction().unwrap();
        for keyspace in keyspaces {
            tx.put(keyspace, "own", "3").unwrap();
            tx.put(keyspace, "own too", "3").unwrap();
        }
        let snapshot = db.snapshot();
        let snapshots: Vec<_> = keyspaces.iter().map(Kv::snapshot).collect();
        let mut scans = Vec::new();
        for (keyspace, snapshot) in keyspaces.iter().zip(&snapshots) {
            scans.extend([keyspace.iter(), snapshot.iter(), tx.iter(keyspace)]);
            scans.extend([keyspace.iter(), snapshot.iter(), tx.iter(keyspace)]);
        }
        for begun in scans.iter_mut().step_by(3) {
            assert!(begun.next_with(|_, _| ()).unwrap().is_some());
        }
        let mut readers: Vec<_> = [long.reader("long"), long.snapshot().reader("long")]
            .into_iter()
            .map(|reader| reader.unwrap().unwrap())
            .collect();
        readers[0].read_exact(&mut [0; 10]).unwrap();
        Self {
            snapshot,
            snapshots,
            scans,
            readers,
            tx,
        }
    }

    /// Whether `is_so` of the outcome of every read.
    fn are_all(
        &mut self,
        keyspaces: &[Keyspace],
        is_so: impl Fn(hedgerow::Result<()>) -> bool,
    ) -> bool {
        fn check<T>(
            is_so: &impl Fn(hedgerow::Result<()>) -> bool,
            what: &str,
            outcome: hedgerow::Result<T>,
        ) -> bool {
            let so = is_so(outcome.map(drop));
            if !so {
                eprintln!("{what} is not so");
            }
            so
        }
        let mut all = true;
        for (n, scan) in self.scans.iter_mut().enumerate() {
            let outcome = match n % 4 {
                0 => scan.next_key().map(drop),
                1 => scan.next_back_key().map(drop),
                2 => scan.next_with(|_, _| ()).map(drop),
                _ => scan.next_back_with(|_, _| ()).map(drop),
            };
            all &= check(&is_so, &format!("scan {n}"), outcome);
        }
        for reader in &mut self.readers {
            let read = reader.read(&mut [0; 10]).map_err(|error| {
                let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
                Error::clone(inner.unwrap())
            });
            all &= check(&is_so, "reader", read);
        }
        for (keyspace, of_one) in keyspaces.iter().zip(&self.snapshots) {
            for snapshot in [&self.snapshot.keyspace(keyspace), of_one] {
                all &= check(&is_so, "get", snapshot.get("before"));
                let lent = snapshot.get_with("before", <[u8]>::len);
                all &= check(&is_so, "get_with", lent);
                all &= check(&is_so, "get_range", snapshot.get_range("before", ..));
                all &= check(&is_so, "contains_key", snapshot.contains_key("before"));
                all &= check(&is_so, "multi_get", snapshot.multi_get(&["before"]));
                all &= check(&is_so, "reader", snapshot.reader("before"));
                all &= check(&is_so, "len", snapshot.len());
                all &= check(&is_so, "size_of_range", snapshot.size_of_range(..));
            }
            for key in ["before", "own"] {
                all &= check(&is_so, "tx.get", self.tx.get(keyspace, key));
                let found = self.tx.get_for_update(keyspace, key);
                all &= check(&is_so, "tx.get_for_update", found);
                let found = self.tx.contains_key(keyspace, key);
                all &= check(&is_so, "tx.contains_key", found);
                let found = self.tx.keyspace(keyspace).reader(key);
                all &= check(&is_so, "tx.reader", found);
            }
            let len = self.tx.keyspace(keyspace).len();
            all &= check(&is_so, "tx.len", len);
        }
        all
    }
}

#[cfg(unix)]
#[test]
fn child_that_forks() {
    let Some(dir) = env::var_os(CHILD_DIR) else {
        return;
    };
    let dir = Path::new(&dir);
    // Threads do not survive a fork; what waits for them is another matter.
    let options = || Options::new().background_threads(0);
    let db = options().open(dir).unwrap();
    let keyspaces = ENGINES.map(|engine| db.keyspace(&format!("{engine:?}"), engine).unwrap());
    for keyspace in &keyspaces {
        keyspace.put("before", "1").unwrap();
    }
    // Long enough to lie apart, in files that the parent uses again.
    let options_apart = || KeyspaceOptions::new(EngineKind::BTree).value_threshold_bytes(4096);
    let long = db.keyspace_with("long", options_apart()).unwrap();
    long.put("long", vec![3; 100_000]).unwrap();
    let before = names_below(dir);
    let is_forked = |outcome: hedgerow::Result<()>| matches!(outcome, Err(Error::Forked));
    let reads = || Reads::begin(&db, &keyspaces, &long);
    let mut reads_of_child = reads();
    let mut reads_of_parent = reads();
    // SAFETY: this process has one thread that does anything, so the child finds no lock held; it
    // ends without unwinding into the harness. The parent waits with a valid place for the status.
    let status = unsafe {
        let child = fork();
        if child == 0 {
            let mut refused = reads_of_child.are_all(&keyspaces, is_forked);
            for keyspace in &keyspaces {
                refused &= is_forked(keyspace.put("of the child", "2").map(drop));
                refused &= is_forked(keyspace.flush());
                refused &= is_forked(keyspace.get("before").map(drop));
            }
            refused &= is_forked(db.keyspace("new", EngineKind::Lsm).map(drop));
            drop((reads_of_child, reads_of_parent, long, keyspaces, db));
            _exit(if refused { 7 } else { 8 });
        }
        let mut status = 0;
        assert_eq!(waitpid(child, &raw mut status, 0), child);
        status
    };
    assert_eq!(status, 7 << 8, "the child was refused everything");
    assert_eq!(names_below(dir), before, "and made or removed no file");
    let go_on = reads_of_parent.are_all(&keyspaces, |outcome| outcome.is_ok());
    assert!(go_on, "the parent reads on");
    drop((reads_of_child, reads_of_parent));
    let second = options().open(dir);
    assert!(
        second.is_err_and(|error| error.is_locked()),
        "the lock is held"
    );
    for keyspace in &keyspaces {
        for n in 0..100_u32 {
            keyspace.put(n.to_be_bytes(), "acknowledged").unwrap();
        }
    }
}

/// What all files below `dir` hold.
#[cfg(unix)]
fn contents_below(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = names_below(dir).into_iter().filter(|path| path.is_file());
    files
        .map(|path| (path.clone(), std::fs::read(&path).unwrap()))
        .collect()
}

/// What a child ends with that was refused what it tried; see [`in_a_child`].
#[cfg(unix)]
const REFUSED: std::ffi::c_int = 7;

/// Forks. The child returns true; the parent waits for its end, which it must come to with
/// [`REFUSED`], having changed nothing in the files below `dir`.
#[cfg(unix)]
fn in_a_child(dir: &Path) -> bool {
    let before = contents_below(dir);
    // SAFETY: as in `child_that_forks`.
    let status = unsafe {
        let child = fork();
        if child == 0 {
            return true;
        }
        let mut status = 0;
        assert_eq!(waitpid(child, &raw mut status, 0), child);
        status
    };
    assert_eq!(status, REFUSED << 8, "the child was refused");
    assert!(contents_below(dir) == before, "it changed a file");
    false
}

/// Ends a child, without unwinding into the harness.
#[cfg(unix)]
fn end_child(was_refused: bool) -> ! {
    // SAFETY: it returns to nothing, and runs no destructor.
    unsafe { _exit(if was_refused { REFUSED } else { REFUSED + 1 }) }
}

/// Drops everything, and forks once when it is told to.
#[cfg(unix)]
#[derive(Debug, Default)]
struct Forks {
    dir: PathBuf,
    is_told: Arc<AtomicBool>,
    is_child: Arc<AtomicBool>,
}

#[cfg(unix)]
impl CompactionFilter for Forks {
    fn name(&self) -> &str {
        "forks"
    }

    fn judge(&self, _key: &[u8], _value: &[u8]) -> Verdict {
        if self.is_told.swap(false, Ordering::Relaxed) && in_a_child(&self.dir) {
            self.is_child.store(true, Ordering::Relaxed);
        }
        Verdict::Drop
    }
}

/// Code of the user that is called by the store may fork, and then the child is in the middle of a
/// call that was let in: of a sweep, whose next step is to write to the log, or of a compaction,
/// which makes and removes files. A log may be mapped, and then no file is asked to be written.
#[cfg(unix)]
#[test]
fn a_child_that_is_forked_within_a_call_is_refused_the_rest_of_it() {
    let home = tempfile::tempdir().unwrap();
    run_alone("child_that_forks_within_a_call", home.path());
}

#[cfg(unix)]
#[test]
fn child_that_forks_within_a_call() {
    let Some(home) = env::var_os(CHILD_DIR) else {
        return;
    };
    let std: Arc<dyn Fs> = Arc::new(StdFs::new());
    let cases = [
        (EngineKind::Lsm, Arc::clone(&std)),
        (EngineKind::BTree, Arc::clone(&std)),
        // Behind this one no file system knows of the fork, only the lock does.
        (EngineKind::Lsm, Arc::new(FaultFs::new(std))),
        // Here not even the lock does, and a child has all files to itself; the log does.
        (EngineKind::BTree, Arc::new(SimFs::new())),
    ];
    for (case, (engine, fs)) in cases.into_iter().enumerate() {
        let dir = Path::new(&home).join(case.to_string());
        std::fs::create_dir(&dir).unwrap();
        let filter = Forks {
            dir: dir.clone(),
            ..Forks::default()
        };
        let (is_told, is_child) = (Arc::clone(&filter.is_told), Arc::clone(&filter.is_child));
        let options = small_segments().background_threads(0).fs(fs);
        let options = options.compaction_filter(filter);
        let db = options.clone().open(&dir).unwrap();
        let filtered = KeyspaceOptions::new(engine).compaction_filter("forks");
        let keyspace = db.keyspace_with("a", filtered).unwrap();
        for n in 0..100_u8 {
            keyspace.put([n], [n; 10]).unwrap();
        }
        db.flush().unwrap();
        db.close().unwrap();
        drop((keyspace, db));
        // Nothing is appended to a manifest that was found: an LSM tree now replaces `CURRENT`.
        let db = options.open(&dir).unwrap();
        let keyspace = db.existing_keyspace("a").unwrap().unwrap();
        is_told.store(true, Ordering::Relaxed);
        let compacted = keyspace.compact();
        if is_child.load(Ordering::Relaxed) {
            end_child(matches!(compacted, Err(Error::Forked)));
        }
        compacted.unwrap();
        assert!(!is_told.load(Ordering::Relaxed), "it was asked");
        assert_eq!(keyspace.len().unwrap(), 0, "{engine}: the parent goes on");
        assert!(db.verify().unwrap().is_clean());
        db.close().unwrap();
    }
}

/// What a store is made of changes nothing in a child, also where no store asks it to.
#[cfg(unix)]
#[test]
fn the_file_system_of_a_store_changes_nothing_in_a_forked_child() {
    let home = tempfile::tempdir().unwrap();
    run_alone("child_that_uses_a_file_system", home.path());
}

#[cfg(unix)]
#[test]
fn child_that_uses_a_file_system() {
    let Some(dir) = env::var_os(CHILD_DIR) else {
        return;
    };
    let dir = Path::new(&dir);
    let fs = StdFs::new().for_this_process().unwrap();
    let [path, other, inner] = ["file", "other", "inner"].map(|name| dir.join(name));
    let file = fs.open(&path, OpenMode::CreateNew).unwrap();
    file.write_all_at(b"of the parent", 0).unwrap();
    fs.create_dir_all(&inner).unwrap();
    let names = names_below(dir);
    if in_a_child(dir) {
        let opened = fs.open(&path, OpenMode::ReadWrite).unwrap();
        let attempts = [
            fs.open(&other, OpenMode::CreateNew).map(drop),
            fs.create_dir_all(&other),
            fs.rename(&path, &other),
            fs.rename_new(&path, &other),
            fs.remove_dir(&inner),
            fs.sync_dir(dir),
            fs.lock(&other, LockMode::Exclusive).map(drop),
            file.write_all_at(b"of the child", 0),
            opened.write_all_at(b"of the child", 0),
            file.set_len(0),
            file.sync_data(),
            fs.remove_file(&path),
        ];
        let is_refused = |attempt: &hedgerow::Result<()>| matches!(attempt, Err(Error::Forked));
        end_child(attempts.iter().all(is_refused));
    }
    assert_eq!(names_below(dir), names);
    fs.rename(&path, &other).unwrap();
    fs.remove_file(&other).unwrap();
    fs.remove_dir(&inner).unwrap();
}

/// What a handle did by path it did to the files of the store that has the name now: it removed
/// tables, and wrote its pages into a page file.
#[cfg(unix)]
#[test]
fn a_store_whose_directory_was_replaced_leaves_the_next_one_alone() {
    for engine in ENGINES {
        for has_flushed in [false, true] {
            let home = tempfile::tempdir().unwrap();
            let dir = home.path().join("store");
            let options = || small_segments().background_threads(0);
            let old = options().open(&dir).unwrap();
            let of_old = old.keyspace("a", engine).unwrap();
            of_old.put("old", "1").unwrap();
            if has_flushed {
                old.flush().unwrap();
                of_old.put("old", "2").unwrap();
            }
            std::fs::remove_dir_all(&dir).unwrap();
            let new = options().open(&dir).unwrap();
            let of_new = new.keyspace("a", engine).unwrap();
            of_new.put("new", "3").unwrap();
            new.flush().unwrap();
            let outcome = old.flush();
            let is_lost = matches!(outcome, Err(Error::LockLost { .. }));
            // A B-tree goes on in the page file that it has open, which has no name.
            let goes_on = engine == EngineKind::BTree && has_flushed && outcome.is_ok();
            assert!(is_lost || goes_on, "{engine:?}: {outcome:?}");
            let _ = old.compact();
            new.close().unwrap();
            drop((of_new, new, of_old, old));
            let db = options().open(&dir).unwrap();
            let keyspace = db.keyspace("a", engine).unwrap();
            assert_eq!(keyspace.len().unwrap(), 1);
            assert!(keyspace.contains_key("new").unwrap());
            assert!(db.verify().unwrap().is_clean());
        }
    }
}

/// It waited for what only threads of the parent would have done, and took the parent's lock for
/// its own.
#[cfg(unix)]
#[test]
fn a_forked_child_waits_for_nothing_and_knows_whose_the_lock_is() {
    let home = tempfile::tempdir().unwrap();
    run_alone("child_that_forks_and_waits", home.path());
}

#[cfg(unix)]
#[test]
fn child_that_forks_and_waits() {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    let Some(dir) = env::var_os(CHILD_DIR) else {
        return;
    };
    let options = small_segments().background_sync_ms(0).background_threads(1);
    let db = options.open(&dir).unwrap();
    let keyspace = db.keyspace("a", EngineKind::Lsm).unwrap();
    let seq = keyspace.put("key", "1").unwrap();
    assert!(db.durable_seq() < seq);
    // SAFETY: as in `child_that_forks`; the threads of the store have nothing to do.
    let status = unsafe {
        let child = fork();
        if child == 0 {
            let polled = pin!(db.durable(seq)).poll(&mut Context::from_waker(Waker::noop()));
            let refused = matches!(polled, Poll::Ready(Err(Error::Forked)));
            let is_the_parents = match Db::open(&dir) {
                Err(Error::Locked { holder, .. }) => {
                    matches!(holder, hedgerow::LockHolder::OtherProcess { .. })
                }
                _ => false,
            };
            _exit(if refused && is_the_parents { 7 } else { 8 });
        }
        let mut status = 0;
        assert_eq!(waitpid(child, &raw mut status, 0), child);
        status
    };
    assert_eq!(status, 7 << 8);
}

/// They stayed, and the next opening took them for durable, though a sync of their names had
/// failed.
#[cfg(unix)]
#[test]
fn a_creation_that_fails_leaves_no_directory() {
    let home = tempfile::tempdir().unwrap();
    let above = home.path().join("above");
    let disk = FaultFs::new(Arc::new(StdFs::new()));
    let open = || {
        let options = Options::new().fs(Arc::new(disk.clone()));
        options.open(above.join("store"))
    };
    // The first is that of the store's own directory.
    disk.plan(FaultPlan::once(&[OpKind::SyncDir], 1, Fault::Io));
    assert!(open().is_err() && disk.fired() == 1);
    assert!(!above.exists());
    disk.heal();
    open().unwrap();
}
