//! Closing beside everything else: calls of other threads, scans and snapshots that live on, a
//! second close, and the next opening.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use hedgerow::{
    CompactionFilter, Db, Durability, EngineKind, Error, Keyspace, KeyspaceOptions, Options,
    Verdict,
};
use support::random::{Random, Source};
use support::rig::{Place, Rig, Sizes, effort, figure};

use crate::conformance::helpers::{Map, assert_holds, forward, with_values};

const ENGINES: [(&str, EngineKind); 2] = [("lsm", EngineKind::Lsm), ("btree", EngineKind::BTree)];

fn rig(place: Place) -> Rig {
    Rig::new(place, Sizes::Tiny)
}

fn keyspaces(db: &Db) -> Vec<Keyspace> {
    let open = |(name, engine): &(&str, EngineKind)| db.keyspace(name, *engine).unwrap();
    ENGINES.iter().map(open).collect()
}

fn key(n: u64) -> [u8; 8] {
    n.to_be_bytes()
}

/// Keys that are overwritten in turn.
const KEYS: u64 = 100;

fn value(n: u64) -> Vec<u8> {
    n.to_be_bytes().repeat(90)
}

/// What a thread does until the store refuses it.
fn until_closed(mut call: impl FnMut() -> Result<(), Error>) {
    loop {
        match call() {
            Ok(()) => {}
            Err(Error::Closed) => return,
            Err(error) => panic!("{error:#}"),
        }
    }
}

/// Closing released the lock while commits, flushes and compactions of other threads still ran:
/// they wrote into the log and removed the files of the store that was opened next. What was
/// acknowledged by one of them, and everything that the next one acknowledges, must be there in the
/// end.
fn close_beside_calls(place: Place, count: u64) -> u64 {
    let mut rig = rig(place);
    let mut random = Random::new(2026);
    let acknowledged = AtomicU64::new(0);
    for round in 0..count {
        let db = rig.db().clone();
        let [lsm, btree] = &keyspaces(&db)[..] else {
            unreachable!("two")
        };
        let patience = random.below(30);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                until_closed(|| {
                    let n = acknowledged.load(Ordering::SeqCst);
                    // In both or in none; long enough for new segments of the log.
                    let mut batch = db.batch();
                    batch.put(lsm, key(n % KEYS), value(n));
                    batch.put(btree, key(n % KEYS), value(n));
                    db.write(batch, Durability::Buffered)?;
                    acknowledged.store(n + 1, Ordering::SeqCst);
                    Ok(())
                });
            });
            scope.spawn(|| until_closed(|| lsm.flush()));
            scope.spawn(|| until_closed(|| btree.flush()));
            scope.spawn(|| until_closed(|| db.compact()));
            scope.spawn(|| until_closed(|| lsm.get(key(0)).map(drop)));
            scope.spawn(|| until_closed(|| btree.get(key(0)).map(drop)));
            scope.spawn(|| {
                for _ in 0..patience {
                    std::thread::yield_now();
                }
                db.close().unwrap();
                // At once, while the other threads still find out.
                let next = rig.options.clone().open(rig.path()).unwrap();
                let marks = next.keyspace("marks", EngineKind::BTree).unwrap();
                let marks = marks.with_durability(Durability::Sync);
                marks.put(key(round), key(round)).unwrap();
                next.close().unwrap();
            });
        });
        rig.abandon();
    }
    let db = rig.db();
    assert!(db.verify().unwrap().is_clean());
    let marks = db.keyspace("marks", EngineKind::BTree).unwrap();
    assert_eq!(marks.len().unwrap(), count);
    let acknowledged = acknowledged.load(Ordering::SeqCst);
    let first = acknowledged.saturating_sub(KEYS);
    let expected: Map = (first..acknowledged)
        .map(|n| (key(n % KEYS).to_vec(), value(n)))
        .collect();
    for keyspace in keyspaces(db) {
        assert_holds(&keyspace, &expected);
    }
    count
}

/// How often in the ordinary run, on the disk and in memory, and for each unit of effort of a long
/// one, in which the interleaved suite closes many more.
const CLOSINGS: [u64; 2] = [20, 200];
const CLOSINGS_PER_EFFORT: [u64; 2] = [5, 50];

#[test]
fn calls_that_run_while_a_store_is_closed_end_before_the_next_is_opened() {
    let counts = match effort() {
        1 => CLOSINGS,
        effort => CLOSINGS_PER_EFFORT.map(|count| count * effort),
    };
    let places = [Place::Disk, Place::Memory];
    let closed = [0, 1].map(|at| close_beside_calls(places[at], counts[at]));
    figure("closings beside running calls", closed.iter().sum());
}

fn assert_locked(rig: &Rig) {
    let error = rig.options.clone().open(rig.path()).unwrap_err();
    assert!(error.is_locked(), "{error:#}");
}

/// A scan that was taken before the store was closed read what the next instance wrote in the place
/// of its pages: 115 wrong values, without an error.
#[test]
fn while_a_scan_lives_the_directory_stays_locked() {
    for place in [Place::Disk, Place::Memory] {
        for (name, engine) in ENGINES {
            let mut rig = rig(place);
            let keyspace = rig.keyspace(name, engine);
            let expected: Map = with_values((0..200).map(|n| key(n).to_vec()));
            for (key, value) in &expected {
                keyspace.put(key, value).unwrap();
            }
            keyspace.flush().unwrap();
            let mut scan = keyspace.iter();
            assert_eq!(scan.next().unwrap().unwrap().0, key(0));
            rig.db().close().unwrap();
            rig.abandon();
            drop(keyspace);
            assert_locked(&rig);
            let rest: Vec<_> = scan.by_ref().map(|item| item.unwrap().0).collect();
            assert_eq!(rest.len(), expected.len() - 1);
            // A scan that has ended holds nothing any more.
            assert_eq!(forward(rig.keyspace(name, engine).iter()).len(), 200);
            drop(scan);
        }
    }
}

#[test]
fn while_a_snapshot_lives_the_directory_stays_locked() {
    for (name, engine) in ENGINES {
        let mut rig = rig(Place::Disk);
        let keyspace = rig.keyspace(name, engine);
        keyspace.put("a", "1").unwrap();
        let snapshot = rig.db().snapshot();
        let of_one = keyspace.snapshot();
        rig.db().close().unwrap();
        rig.abandon();
        assert_locked(&rig);
        assert_eq!(snapshot.get(&keyspace, "a").unwrap().unwrap(), b"1");
        drop(snapshot);
        assert_locked(&rig);
        assert_eq!(of_one.get("a").unwrap().unwrap(), b"1");
        drop(of_one);
        drop(keyspace);
        assert_eq!(rig.keyspace(name, engine).get("a").unwrap().unwrap(), b"1");
    }
}

/// A closure is code of the user: closing does not wait for it, which could be forever, but what
/// it was lent stays.
#[test]
fn a_store_can_be_closed_inside_a_closure_that_reads() {
    for (name, engine) in ENGINES {
        let mut rig = rig(Place::Disk);
        let keyspace = rig.keyspace(name, engine);
        keyspace.put("a", [7; 100]).unwrap();
        keyspace.flush().unwrap();
        let db = rig.db().clone();
        let read = keyspace.get_with("a", |value| {
            db.close().unwrap();
            assert_locked(&rig);
            value.to_vec()
        });
        assert_eq!(read.unwrap().unwrap(), [7; 100]);
        rig.abandon();
        assert!(rig.keyspace(name, engine).get("a").unwrap().is_some());
    }
}

/// The second of two concurrent closes returned before the store was closed.
#[test]
fn every_close_returns_when_the_store_is_closed() {
    let mut rig = rig(Place::Disk);
    for _ in 0..20 * effort() {
        let db = rig.db().clone();
        let keyspace = db.keyspace("a", EngineKind::Lsm).unwrap();
        for n in 0..50 {
            keyspace.put(key(n), [1; 200]).unwrap();
        }
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    db.close().unwrap();
                    // Nothing runs any more, in the first close too: the lock is free, or taken by
                    // another of these threads.
                    match rig.options.clone().open(rig.path()) {
                        Ok(next) => drop(next),
                        Err(error) => assert!(error.is_locked(), "{error:#}"),
                    }
                });
            }
        });
        let next = rig.options.clone().open(rig.path()).unwrap();
        drop(next);
        rig.abandon();
    }
}

#[test]
fn what_is_taken_from_a_closed_store_fails() {
    let mut rig = rig(Place::Memory);
    let keyspace = rig.keyspace("a", EngineKind::Lsm);
    keyspace.put("a", "1").unwrap();
    let db = rig.db().clone();
    db.close().unwrap();
    let is_closed = |error: Error| matches!(error, Error::Closed);
    assert!(is_closed(db.snapshot().get(&keyspace, "a").unwrap_err()));
    assert!(is_closed(keyspace.snapshot().get("a").unwrap_err()));
    assert!(is_closed(
        keyspace.snapshot().iter().next().unwrap().unwrap_err()
    ));
    assert!(is_closed(keyspace.iter().next().unwrap().unwrap_err()));
    assert!(is_closed(db.verify().unwrap_err()));
}

/// The pages of a B-tree were counted in its file also when the store was closed: by then the file
/// may be another store's, and shorter than it is mapped, which ended the process with SIGBUS.
#[test]
fn figures_of_a_closed_store_are_not_looked_for_in_its_files() {
    let mut rig = rig(Place::Disk).with(|options| options.mmap_reads(true));
    let uncounted = rig.keyspace("a", EngineKind::BTree);
    let counted = rig.keyspace("b", EngineKind::BTree);
    for n in 0..1000 {
        uncounted.put(key(n), [7; 1000]).unwrap();
        counted.put(key(n), [7; 1000]).unwrap();
    }
    let old = rig.db().clone();
    old.flush().unwrap();
    let before = counted.stats();
    assert_eq!(before.levels.len(), before.height as usize);
    rig.close();

    let keyspace = rig.keyspace("a", EngineKind::BTree);
    keyspace.clear().unwrap();
    keyspace.flush().unwrap();
    keyspace.compact().unwrap();
    let stats = uncounted.stats();
    assert!(stats.levels.is_empty(), "{stats:?}");
    assert!(
        stats.disk_bytes > 1_000_000 && stats.height > 1,
        "{stats:?}"
    );
    assert_eq!(counted.stats().levels, before.levels);
    let all = old.stats().keyspaces;
    let levels: Vec<_> = all.into_iter().map(|one| one.stats.levels).collect();
    assert_eq!(levels, [Vec::new(), before.levels]);
}

/// A handle of another store was looked up by its number only: the snapshot returned the value of
/// a keyspace of its own.
#[test]
fn a_snapshot_refuses_keyspaces_that_are_not_its_own() {
    let mut first = rig(Place::Memory);
    let mut second = rig(Place::Memory);
    let ours = first.keyspace("a", EngineKind::Lsm);
    let theirs = second.keyspace("a", EngineKind::Lsm);
    ours.put("k", "ours").unwrap();
    theirs.put("k", "theirs").unwrap();
    let snapshot = first.db().snapshot();
    let is_refused = |outcome: Result<_, Error>| {
        let error = outcome.map(|_: Option<hedgerow::Value>| ()).unwrap_err();
        assert!(error.to_string().contains("another store"), "{error}");
    };
    is_refused(snapshot.get(&theirs, "k"));
    is_refused(snapshot.keyspace(&theirs).get("k"));
    assert!(snapshot.iter(&theirs).next().unwrap().is_err());
    assert!(snapshot.keyspace(&theirs).multi_get(&["k"]).is_err());
    assert_eq!(snapshot.get(&ours, "k").unwrap().unwrap(), b"ours");
}

#[test]
fn a_snapshot_of_a_dropped_keyspace_fails_and_one_from_before_reads() {
    for (name, engine) in ENGINES {
        let mut rig = rig(Place::Memory);
        let keyspace = rig.keyspace(name, engine);
        keyspace.put("k", "v").unwrap();
        let before = rig.db().snapshot();
        rig.db().drop_keyspace(name).unwrap();
        assert_eq!(before.get(&keyspace, "k").unwrap().unwrap(), b"v");
        let is_gone = |error| matches!(error, Error::NoSuchKeyspace { .. });
        assert!(is_gone(keyspace.snapshot().get("k").unwrap_err()));
        assert!(is_gone(
            rig.db().snapshot().get(&keyspace, "k").unwrap_err()
        ));
    }
}

/// A writer that waits for room in a keyspace waited forever when the keyspace was dropped.
#[test]
fn a_writer_whose_keyspace_is_dropped_gets_an_error() {
    for (name, engine) in ENGINES {
        // One thread, which compacts nothing while it flushes: writers are stopped often.
        let mut rig = Rig::new(Place::Memory, Sizes::Tiny)
            .with(|options: Options| options.background_threads(1));
        for _ in 0..5 * effort() {
            let keyspace = rig.keyspace(name, engine);
            let wrote = AtomicBool::new(false);
            std::thread::scope(|scope| {
                for thread in 0..3u64 {
                    let (keyspace, wrote) = (&keyspace, &wrote);
                    scope.spawn(move || {
                        for n in 0.. {
                            let put = keyspace.put(key(n * 3 + thread), [1; 900]);
                            wrote.store(true, Ordering::SeqCst);
                            match put {
                                Ok(_) => {}
                                Err(Error::NoSuchKeyspace { .. }) => return,
                                Err(error) => panic!("{error:#}"),
                            }
                        }
                    });
                }
                while !wrote.load(Ordering::SeqCst) {
                    std::thread::yield_now();
                }
                rig.db().drop_keyspace(name).unwrap();
            });
        }
    }
}

/// Closes the store when it is asked for the first time, and allowed to.
#[derive(Debug)]
struct Closes {
    entered: Mutex<Sender<()>>,
    go: Mutex<Receiver<()>>,
    db: Arc<OnceLock<Db>>,
    done: AtomicBool,
}

impl CompactionFilter for Closes {
    fn name(&self) -> &str {
        "closes"
    }

    fn judge(&self, _: &[u8], _: &[u8]) -> Verdict {
        if !self.done.swap(true, Ordering::SeqCst) {
            self.entered.lock().unwrap().send(()).unwrap();
            self.go.lock().unwrap().recv().unwrap();
            let _ = self.db.get().unwrap().close();
        }
        Verdict::Keep
    }
}

/// A store whose filter is being asked by a thread of its own, and closes it when it may go on.
fn closing_filter(dir: &std::path::Path) -> (Db, Keyspace, Sender<()>) {
    let ((entered, has_entered), (go, may_go)) = (channel(), channel());
    let handle = Arc::new(OnceLock::new());
    let filter = Closes {
        entered: Mutex::new(entered),
        go: Mutex::new(may_go),
        db: Arc::clone(&handle),
        done: AtomicBool::new(false),
    };
    let options = Options::new().compaction_filter(filter);
    let db = options.open(dir.join("db")).unwrap();
    assert!(handle.set(db.clone()).is_ok());
    let filtered = KeyspaceOptions::new(EngineKind::Lsm).compaction_filter("closes");
    let keyspace = db.keyspace_with("a", filtered).unwrap();
    for n in 0..6 {
        keyspace.put("a", key(n)).unwrap();
        keyspace.put("z", key(n)).unwrap();
        keyspace.flush().unwrap();
    }
    has_entered.recv().unwrap();
    (db, keyspace, go)
}

/// Until what does not come is a failure; it says nothing about time.
const PATIENCE: Duration = Duration::from_secs(60);

/// The other thread waited for that of the filter, which waited for it.
#[test]
fn a_filter_may_close_the_store_while_another_thread_does() {
    let dir = tempfile::tempdir().unwrap();
    let (db, keyspace, go) = closing_filter(dir.path());
    let (ended, has_ended) = channel();
    let closer = std::thread::spawn(move || ended.send(db.close()));
    // The other thread is inside from then on.
    until_closed(|| keyspace.put("k", "v").map(drop));
    go.send(()).unwrap();
    let outcome = has_ended.recv_timeout(PATIENCE);
    outcome.expect("closing ends").unwrap();
    closer.join().unwrap().unwrap();
}

/// The filter waited for the call, which waited for the job that the filter was asked by.
#[test]
fn a_filter_may_close_the_store_beside_a_call_that_compacts() {
    let dir = tempfile::tempdir().unwrap();
    let (db, keyspace, go) = closing_filter(dir.path());
    keyspace.put("m", "v").unwrap();
    let files = keyspace.stats().levels[0].files;
    let (ended, has_ended) = channel();
    let other = keyspace.clone();
    std::thread::spawn(move || ended.send(other.compact()));
    // Its flush shows that it is inside; it cannot end before the job does.
    while keyspace.stats().levels[0].files == files {
        std::thread::yield_now();
    }
    go.send(()).unwrap();
    let outcome = has_ended.recv_timeout(PATIENCE).expect("it ends");
    assert!(matches!(outcome, Err(Error::Closed)), "{outcome:?}");
    db.close().unwrap();
}
