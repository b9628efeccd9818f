//! Faults that the sweep over all positions found, each as a test by itself, with its story.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use hedgerow::fs::{Fault, FaultFs, FaultPlan, Fs, OpKind, OpenMode, SimFs};
use hedgerow::{Db, Durability, EngineKind, Keyspace, Options};
use support::rig::{Sizes, keyspace_options};
use support::sizes::single_threaded;

use super::disk;

fn open(options: &Options) -> Db {
    options.clone().open("/store").expect("the store opens")
}

fn keyspace(db: &Db, name: &str, engine: EngineKind) -> Keyspace {
    db.keyspace_with(name, keyspace_options(engine, Sizes::Tiny))
        .expect("the keyspace opens")
}

fn fill(keyspace: &Keyspace, round: u8) {
    for n in 0..12u8 {
        keyspace
            .put([n * 5 + round], [round; 200])
            .expect("a healthy disk");
    }
}

/// Linux marks pages that it could not write as clean: they can be read, and are never written. A
/// process that opens the store after such a failed sync reads what the disk does not have, builds
/// on it, and its own syncs succeed. What it acknowledges must survive a power loss all the same.
fn writing_on_after_a_lost_sync(engine: EngineKind) {
    for position in 0.. {
        let (fs, mem, options) = disk();
        let db = open(&options);
        let data = keyspace(&db, "data", engine);
        fill(&data, 1);
        db.flush().unwrap();
        fill(&data, 2);
        fs.plan(FaultPlan::once(&[OpKind::Sync], position, Fault::SyncLost));
        let _ = db.flush();
        let _ = db.compact();
        let tried = fs.fired() > 0;
        fs.heal();
        drop((data, db));

        let db = open(&options);
        let data = keyspace(&db, "data", engine);
        fill(&data, 3);
        db.flush().unwrap();
        db.compact().unwrap();
        data.put(b"last", b"word").unwrap();
        drop((data, db));
        fs.evict().unwrap();

        let db = open(&options.clone().fs(Arc::new(mem.crash())));
        let data = keyspace(&db, "data", engine);
        assert_eq!(data.iter().count(), 37, "position {position}");
        for round in 1..=3u8 {
            let value = data.get([5 + round]).unwrap().unwrap();
            assert_eq!(value, [round; 200], "position {position}");
        }
        let report = db.verify().unwrap();
        assert!(report.is_clean(), "position {position}: {report:?}");
        if !tried {
            assert!(position > 2, "syncs failed");
            break;
        }
    }
}

/// The manifest's last edit, lost by a failed sync, was taken for durable when the store was opened
/// again: the next edits were appended behind it, and a power loss left a manifest with a hole.
#[test]
fn a_manifest_edit_that_a_failed_sync_lost_is_not_built_upon() {
    writing_on_after_a_lost_sync(EngineKind::Lsm);
}

/// A meta page or the length of the file, lost by a failed sync, was taken for durable when the
/// store was opened again: log segments were deleted that the tree on the disk still needed.
#[test]
fn a_meta_page_that_a_failed_sync_lost_is_not_built_upon() {
    writing_on_after_a_lost_sync(EngineKind::BTree);
}

/// Deleting a log segment renames its file. When that reported an error although it had happened,
/// every later attempt failed with "not found", and the log grew until the store was reopened.
#[test]
fn a_log_segment_that_went_with_an_error_is_deleted_once() {
    for position in 0.. {
        let (fs, _, options) = disk();
        let db = open(&options);
        let data = keyspace(&db, "data", EngineKind::Lsm);
        fs.plan(FaultPlan::once(&[OpKind::Rename], position, Fault::Arrived));
        for n in 0..60u8 {
            // While the fault is new, what it hits may fail.
            let fired = fs.fired();
            let written = data.put([n % 7], vec![n; 9_000]);
            let worked = db.run_background_once();
            if fs.fired() == fired {
                written.unwrap();
                worked.unwrap();
            }
        }
        fs.heal();
        db.flush().unwrap();
        db.wait_idle().unwrap();
        let kept = db.stats().log_live_bytes;
        assert!(
            kept <= 128 << 10,
            "position {position}: {kept} bytes of log"
        );
        if fs.fired() == 0 {
            assert!(position > 0, "segments went");
            break;
        }
    }
}

/// The catalogue was replaced by a rename. When that reported an error although it had happened,
/// the keyspace stayed in use in memory and was gone on the disk, with what was acknowledged later.
/// A drop is a record of the log now, and fails when that cannot be written or synced.
#[test]
fn a_keyspace_whose_dropping_failed_takes_no_writes_that_get_lost() {
    for kinds in [[OpKind::Write], [OpKind::Sync]] {
        for fault in [Fault::Io, Fault::Arrived] {
            for lasting in [&[][..], &[OpKind::Rename, OpKind::SyncDir, OpKind::Create]] {
                let (fs, mem, options) = disk();
                let db = open(&options);
                let data = keyspace(&db, "data", EngineKind::Lsm);
                data.put(b"a", b"1").unwrap();
                fs.plan(FaultPlan::once(&kinds, 0, fault).and_then_all(lasting));
                db.drop_keyspace("data").unwrap_err();
                fs.heal();
                let acknowledged = data.put(b"b", b"2").is_ok();
                drop((data, db));
                for mem in [mem.clone(), mem.crash()] {
                    let db = open(&options.clone().fs(Arc::new(mem)));
                    let data = db.existing_keyspace("data").unwrap();
                    if acknowledged {
                        let data = data.expect("it took a write");
                        assert_eq!(data.get(b"b").unwrap().unwrap(), b"2");
                    }
                }
            }
        }
    }
}

/// The same when a keyspace is made: the catalogue on the disk listed it, the one in memory did
/// not, and the next attempt began by removing its directory.
#[test]
fn a_keyspace_whose_making_failed_leaves_a_store_that_opens() {
    for kinds in [
        [OpKind::Write],
        [OpKind::Sync],
        [OpKind::Rename],
        [OpKind::SyncDir],
    ] {
        for position in 0..6 {
            for lasting in [&[][..], &[OpKind::Rename, OpKind::SyncDir, OpKind::Create]] {
                let (fs, mem, options) = disk();
                let db = open(&options);
                fs.plan(FaultPlan::once(&kinds, position, Fault::Arrived).and_then_all(lasting));
                let first = db.keyspace("data", EngineKind::Lsm);
                fs.heal();
                // Files of the attempt go, and the disk fails before anything takes their place.
                fs.plan(FaultPlan::once(&[OpKind::Create], 0, Fault::Full));
                let second = db.keyspace("data", EngineKind::Lsm);
                let kept = first
                    .or(second)
                    .and_then(|data| data.put(b"a", b"1"))
                    .is_ok();
                drop(db);
                for mem in [mem.clone(), mem.crash()] {
                    let options = options.clone().fs(Arc::new(mem));
                    let opened = options.open(Path::new("/store"));
                    let db = opened.unwrap_or_else(|e| panic!("{kinds:?} {position}: {e}"));
                    if kept {
                        let data = db
                            .existing_keyspace("data")
                            .unwrap()
                            .expect("it took a write");
                        assert_eq!(data.get(b"a").unwrap().unwrap(), b"1");
                    }
                }
            }
        }
    }
}

/// A record that did not fit made the log go on to the next segment; writing that segment's
/// activation reported an error although it had arrived. The next record fitted the old segment
/// again, and was acknowledged there; but recovery trusted the activation, which cut off what
/// follows.
#[test]
fn a_segment_whose_activation_failed_cuts_nothing_off() {
    for fault in [Fault::Arrived, Fault::Short] {
        for position in 0..40 {
            let (fs, mem, options) = disk();
            let db = open(&options);
            let data = keyspace(&db, "data", EngineKind::Lsm);
            data.put(b"a", vec![1; 40_000]).unwrap();
            fs.plan(FaultPlan::once(&[OpKind::Write], position, fault));
            let large = data.put(b"b", vec![2; 40_000]).is_ok();
            fs.heal();
            data.put(b"c", b"fits").unwrap();
            drop((data, db));
            for mem in [mem.clone(), mem.crash()] {
                let db = open(&options.clone().fs(Arc::new(mem)));
                let data = keyspace(&db, "data", EngineKind::Lsm);
                assert_eq!(data.get(b"c").unwrap().as_deref(), Some(&b"fits"[..]));
                assert_eq!(data.get(b"b").unwrap().is_some(), large);
            }
        }
    }
}

/// A range delete cuts whole leaves off unread; the checkpoint reads them, to free their pages. A
/// read that failed at that moment left the pages neither in use nor free, forever.
#[test]
fn a_read_that_fails_in_a_checkpoint_leaks_no_pages() {
    for position in 0.. {
        let (fs, _, options) = disk();
        let options = options.cache_bytes(0);
        let db = open(&options);
        let data = keyspace(&db, "data", EngineKind::BTree);
        for n in 0..60u8 {
            data.put([n], [n; 100]).unwrap();
        }
        db.flush().unwrap();
        data.delete_range([5]..[55]).unwrap();
        fs.plan(FaultPlan::once(&[OpKind::Read], position, Fault::Io));
        let _ = db.flush();
        let tried = fs.fired() > 0;
        fs.heal();
        db.flush().unwrap();
        let report = db.verify().unwrap();
        assert!(report.is_clean(), "position {position}: {report:?}");
        if !tried {
            assert!(position > 2, "leaves were read");
            break;
        }
    }
}

/// The write of a log record reported an error, though all of it had arrived. Its commit failed, so
/// a recovery that finds the place must not find the record.
#[test]
fn a_record_that_arrived_though_its_write_failed_is_not_replayed() {
    for engine in EngineKind::ALL {
        let (fs, mem, options) = disk();
        let options = options.durability(Durability::Buffered);
        let db = open(&options);
        let data = keyspace(&db, "data", engine);
        data.put(b"before", b"1").unwrap();
        fs.plan(FaultPlan::once(&[OpKind::Write], 0, Fault::Arrived));
        assert!(data.put(b"failed", b"2").is_err());
        assert_eq!(fs.fired(), 1);
        // The process ends before another commit writes over the place.
        let left = mem.killed();
        drop((data, db));

        let db = open(&options.clone().fs(Arc::new(left)));
        let data = keyspace(&db, "data", engine);
        assert_eq!(data.get(b"before").unwrap().unwrap(), b"1");
        assert_eq!(data.get(b"failed").unwrap(), None);
        data.put(b"failed", b"3").unwrap();
        assert_eq!(data.iter().count(), 2);
    }
}

/// A flush in the background found no space. With space again, somebody asked for a flush before
/// the thread had tried again: nothing was due any more, and the thread's error stayed forever.
/// Waiting for idle failed with it, and so would commits that have to wait for background work.
#[test]
fn an_error_of_background_work_goes_when_somebody_else_does_the_work() {
    // Five minutes, so that a failure is no hang; it says nothing about time.
    const TRIES: u32 = 30_000;
    let (fs, _, options) = disk();
    let db = open(&options.background_threads(1));
    let data = keyspace(&db, "data", EngineKind::Lsm);
    let soon = |what: &str, mut is_so: Box<dyn FnMut() -> bool + '_>| {
        let found = (0..TRIES).any(|_| {
            std::thread::sleep(Duration::from_millis(10));
            is_so()
        });
        assert!(found, "{what}");
    };
    fs.plan(FaultPlan::once(&[OpKind::Create], 0, Fault::Full).and_then_all(&[OpKind::Create]));
    for n in 0..3u8 {
        data.put([n], [n; 5000]).unwrap();
    }
    let failed = || db.stats().background_error.is_some();
    soon("the flush fails", Box::new(failed));
    fs.heal();
    db.flush().unwrap();
    soon("the error is over", Box::new(|| db.wait_idle().is_ok()));
    assert_eq!(db.stats().background_error, None);
}

/// The first opening failed while it synced the directory above the store's. The next one found the
/// directory there, synced again, which wrote nothing, and a power loss took all that was
/// acknowledged.
#[test]
fn a_store_whose_first_opening_failed_survives_once_it_is_open() {
    let failed = ["/store", "/above/store"]
        .map(|path| fail_first_openings(path, &SimFs::new))
        .iter()
        .sum::<u32>();
    assert!(failed > 20, "{failed}");
}

/// The same where the directory of the log holds a file of somebody else, so that it is not made
/// anew: that had brought the name of the catalogue to the disk, too, after the sync of its own had
/// failed.
#[test]
fn a_first_opening_that_failed_beside_a_foreign_file_does_not_cost_the_store() {
    let with_a_foreign_file = || {
        let mem = SimFs::new();
        let log_dir = Path::new("/store/wal");
        mem.create_dir_all(log_dir).unwrap();
        let notes = mem.open(&log_dir.join("notes"), OpenMode::CreateNew);
        notes.unwrap().sync_data().unwrap();
        for dir in log_dir.ancestors() {
            mem.sync_dir(dir).unwrap();
        }
        mem
    };
    let failed = fail_first_openings("/store", &with_a_foreign_file);
    assert!(failed > 8, "{failed}");
}

/// The first opening of a store at `path` of a new disk fails at each of its operations. The next
/// one succeeds, and a power loss takes nothing of what is then acknowledged. Returns how many
/// failed.
fn fail_first_openings(path: &str, new_disk: &dyn Fn() -> SimFs) -> u32 {
    let mut failed = 0;
    for position in 0.. {
        let mem = new_disk();
        let options = single_threaded(Arc::new(mem.clone())).durability(Durability::Sync);
        // What a failed sync was to make durable is lost for good.
        mem.fail_once_after(position, ErrorKind::Other);
        let opened = options.clone().open(path);
        let is_over = opened.is_ok();
        mem.heal();
        failed += u32::from(opened.is_err());
        drop(opened);
        let db = options.clone().open(path).expect("the disk works");
        let data = keyspace(&db, "data", EngineKind::BTree);
        data.put("key", "value").unwrap();
        let lost = options.fs(Arc::new(mem.crash())).create_if_missing(false);
        let db_after = lost
            .open(path)
            .unwrap_or_else(|e| panic!("{path} {position}: {e}"));
        let data = keyspace(&db_after, "data", EngineKind::BTree);
        assert!(data.contains_key("key").unwrap(), "{path} {position}");
        if is_over {
            break;
        }
    }
    failed
}

/// The first table of a keyspace, by name.
fn first_table(mem: &SimFs, dir: &Path) -> PathBuf {
    let names = mem.read_dir(dir).unwrap();
    let table = names.iter().find(|name| name.starts_with("TABLE-"));
    dir.join(table.unwrap())
}

/// As many tables that overlap as make a compaction due.
fn flush_overlapping(keyspace: &Keyspace) {
    for round in 0..4 {
        fill(keyspace, round);
        keyspace.put(b"\xff", [round]).unwrap();
        keyspace.put(b"", [round]).unwrap();
        keyspace.flush().unwrap();
    }
}

#[track_caller]
fn assert_fails(db: &Db, words: &str) {
    let error = db.stats().background_error;
    let says = error.as_ref().is_some_and(|error| error.contains(words));
    assert!(says, "{error:?}");
    db.wait_idle().unwrap_err();
    let error = db.stats().background_error;
    assert!(error.is_some_and(|error| error.contains(words)));
}

#[track_caller]
fn assert_is_healthy(db: &Db) {
    db.wait_idle().unwrap();
    assert_eq!(db.stats().background_error, None);
}

/// A store whose compaction of `data` has failed, because one of its tables cannot be read.
fn with_a_table_that_cannot_be_read() -> (FaultFs, Db, Keyspace) {
    let (fs, mem, options) = disk();
    let db = open(&options);
    let data = keyspace(&db, "data", EngineKind::Lsm);
    flush_overlapping(&data);
    let table = first_table(&mem, Path::new("/store/ks-00000001"));
    let plan = FaultPlan::once(&[OpKind::Read], 0, Fault::Io).and_then_all(&[OpKind::Read]);
    fs.plan(plan.within(&table));
    let failed = (0..10).find_map(|_| db.run_background_once().err());
    assert!(failed.is_some());
    (fs, db, data)
}

/// The table was left out of later picks, so there was nothing to do, and that passed for a
/// success: the compaction could not be done, and the store said that it was well.
#[test]
fn a_compaction_that_cannot_read_a_table_fails_until_it_can() {
    let (fs, db, data) = with_a_table_that_cannot_be_read();
    let other = keyspace(&db, "other", EngineKind::Lsm);
    for _ in 0..5 {
        let _ = db.run_background_once();
        assert_fails(&db, "compaction of keyspace \"data\"");
    }
    // What succeeds elsewhere is something else.
    flush_overlapping(&other);
    while other.stats().compactions == 0 {
        let _ = db.run_background_once();
    }
    assert_fails(&db, "compaction of keyspace \"data\"");
    fs.heal();
    assert_is_healthy(&db);
    assert!(data.stats().compactions > 0);
    assert!(db.verify().unwrap().is_clean());
}

/// What another compaction of the tree leaves is too little to be compacted.
#[test]
fn a_compaction_that_is_wanted_no_more_fails_no_more() {
    let (_fs, db, data) = with_a_table_that_cannot_be_read();
    // With this one the others are enough to be joined, without the one that cannot be read.
    fill(&data, 4);
    data.flush().unwrap();
    while data.stats().compactions == 0 {
        let _ = db.run_background_once();
    }
    let error = db.stats().background_error;
    assert!(error.is_some(), "that was another one");
    assert_is_healthy(&db);
}

/// It was not due any more after it had failed for want of space, which passed for a success.
#[test]
fn a_compaction_that_finds_no_space_fails_until_there_is_some() {
    let (fs, _, options) = disk();
    let db = open(&options);
    // What a compaction moves does not fill the buffer, or a flush would fail as well.
    let asked = keyspace_options(EngineKind::BTree, Sizes::Tiny).write_buffer_bytes(16 << 20);
    let data = db.keyspace_with("data", asked).unwrap();
    for n in 0..6000_u32 {
        data.put(n.to_be_bytes(), [7; 900]).unwrap();
    }
    data.flush().unwrap();
    data.delete_range(1000_u32.to_be_bytes()..5900_u32.to_be_bytes())
        .unwrap();
    data.flush().unwrap();
    let before = data.stats().disk_bytes;
    let space = OpKind::TAKING_SPACE;
    let plan = FaultPlan::once(&space, 0, Fault::Full).and_then_all(&space);
    fs.plan(plan.within(Path::new("/store/ks-00000001")));
    let failed = (0..10).find_map(|_| db.run_background_once().err());
    assert!(failed.is_some_and(|error| error.is_out_of_space()));
    for _ in 0..5 {
        let _ = db.run_background_once();
        assert_fails(&db, "compaction of keyspace \"data\"");
    }
    fs.heal();
    assert_is_healthy(&db);
    let bytes = data.stats().disk_bytes;
    assert!(bytes < before / 2, "{bytes} of {before}");
}

/// Another thread was at a checkpoint, so there was nothing to do for this one, which passed for a
/// success.
#[test]
fn a_flush_that_fails_does_so_until_one_has_ended() {
    let (fs, mem, options) = disk();
    let db = open(&options);
    let data = keyspace(&db, "data", EngineKind::BTree);
    let space = OpKind::TAKING_SPACE;
    let dir = Path::new("/store/ks-00000001");
    let plan = FaultPlan::once(&space, 0, Fault::Full).and_then_all(&space);
    fs.plan(plan.within(dir));
    let mut n = 0_u32;
    let failed = loop {
        data.put(n.to_be_bytes(), [7; 500]).unwrap();
        n += 1;
        if let Err(error) = db.run_background_once() {
            break error;
        }
    };
    assert!(failed.is_out_of_space());
    assert_fails(&db, "flush of keyspace \"data\"");
    fs.heal();
    let (writing, is_writing) = mpsc::channel();
    let (go, may_go) = mpsc::channel::<()>();
    let hook = Mutex::new((writing, may_go));
    let held = AtomicBool::new(false);
    mem.on_change(move |_, operation| {
        let is_in_tree = operation.op == "write" && operation.path.starts_with(dir);
        if is_in_tree && !held.swap(true, Ordering::Relaxed) {
            let (writing, may_go) = &*hook.lock().unwrap();
            writing.send(()).unwrap();
            let _ = may_go.recv();
        }
    });
    std::thread::scope(|scope| {
        let flush = scope.spawn(|| data.flush());
        is_writing.recv().unwrap();
        while db.run_background_once().unwrap() {}
        let error = db.stats().background_error;
        assert!(error.is_some_and(|error| error.contains("flush of keyspace")));
        drop(go);
        flush.join().unwrap().unwrap();
    });
    mem.clear_hook();
    assert_is_healthy(&db);
}
