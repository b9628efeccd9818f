//! Faults that enumerating crash states found, or that were suspected and confirmed with it. Each
//! is named, and opens with its story.

use std::path::Path;
use std::sync::{Arc, Mutex};

use hedgerow::fs::{CrashPolicy, Fs, OpenMode, SimFs};
use hedgerow::{Db, Durability, EngineKind, Keyspace};
use support::random::Random;
use support::sizes::{Sizes, keyspace_options};

use super::world::{STORE, options};

fn open(fs: &SimFs) -> Db {
    options(fs).open(STORE).expect("the store opens")
}

fn make(db: &Db, name: &str, engine: EngineKind) -> hedgerow::Result<Keyspace> {
    db.keyspace_with(name, keyspace_options(engine, Sizes::Tiny))
}

/// What `act` gives, and the images that `take` makes before each change meanwhile.
fn images_during<T, I: IntoIterator<Item = SimFs>>(
    fs: &SimFs,
    take: impl Fn(&SimFs) -> I + Send + Sync + 'static,
    act: impl FnOnce() -> T,
) -> (T, Vec<SimFs>) {
    let images = Arc::new(Mutex::new(Vec::new()));
    fs.on_change({
        let images = Arc::clone(&images);
        move |fs, _| images.lock().unwrap().extend(take(fs))
    });
    let given = act();
    fs.clear_hook();
    let images = std::mem::take(&mut *images.lock().unwrap());
    (given, images)
}

/// What a kill leaves before each change that `act` makes, and after the last.
fn kills_during(fs: &SimFs, act: impl FnOnce()) -> Vec<SimFs> {
    let ((), mut images) = images_during(fs, |fs| [fs.killed()], act);
    images.push(fs.killed());
    images
}

/// Every state of a power loss now.
fn power_losses(fs: &SimFs) -> impl Iterator<Item = SimFs> + use<> {
    let policy = CrashPolicy::new().exhaustive_max(1024);
    fs.crash_states(&policy).map(|state| state.fs)
}

/// What `act` gives, and every state of a power loss before each change that it makes.
fn power_losses_during<T>(fs: &SimFs, act: impl FnOnce() -> T) -> (T, Vec<SimFs>) {
    images_during(fs, power_losses, act)
}

/// Runs `act` while change `n` of the disk fails; a sync then loses what it was to make durable.
fn failing_at<T>(fs: &SimFs, n: u64, act: impl FnOnce() -> T) -> T {
    fs.fail_once_after(n, std::io::ErrorKind::Other);
    let outcome = act();
    fs.heal();
    outcome
}

/// A store with keyspace `a`, which holds `value` under sixteen keys.
fn sixteen(fs: &SimFs, engine: EngineKind, value: &[u8]) -> (Db, Keyspace) {
    let db = open(fs);
    let keyspace = make(&db, "a", engine).unwrap();
    for n in 0..16_u8 {
        keyspace.put([n], value).unwrap();
    }
    (db, keyspace)
}

/// After any power loss now, all sixteen are there.
#[track_caller]
fn assert_sixteen_survive(fs: &SimFs, value: &[u8], story: &str) {
    for loss in power_losses(fs) {
        let db = open(&loss);
        let keyspace = db.existing_keyspace("a").unwrap().unwrap();
        for n in 0..16_u8 {
            let found = keyspace.get([n]).unwrap();
            assert!(
                found.is_some_and(|found| found == *value),
                "{story}, key {n}"
            );
        }
    }
}

/// A crash while the catalogue was written left `CATALOG.tmp` behind, until the next time that a
/// keyspace was made or dropped: forever, in most stores.
#[test]
fn a_catalogue_that_was_being_written_is_not_left_behind() {
    let fs = SimFs::new();
    let db = open(&fs);
    drop(make(&db, "a", EngineKind::Lsm).unwrap());
    let mut met = 0;
    for image in kills_during(&fs, || db.close().unwrap()) {
        let temporary = Path::new("/store/CATALOG.tmp");
        met += u32::from(image.exists(temporary).unwrap());
        let db = open(&image);
        assert!(!image.exists(temporary).unwrap());
        db.close().unwrap();
    }
    assert!(met > 0);
}

/// A flush brings everything committed so far into the engines' files, durably. A keyspace that was
/// made or renamed is in the log alone, and if nothing was written to one since, nobody synced it.
#[test]
fn a_flush_keeps_names_that_were_given_before_it() {
    for engine in EngineKind::ALL {
        let fs = SimFs::new();
        let options = options(&fs).durability(Durability::Buffered);
        let db = options.open(STORE).unwrap();
        make(&db, "a", engine).unwrap().put("k", "v").unwrap();
        db.flush().unwrap();
        db.rename_keyspace("a", "b").unwrap();
        drop(make(&db, "c", engine).unwrap());
        db.flush().unwrap();
        for loss in power_losses(&fs) {
            let names = open(&loss).keyspaces().into_iter().map(|info| info.name);
            assert_eq!(names.collect::<Vec<_>>(), ["b", "c"], "{engine}");
        }
    }
}

/// The catalogue is written when the log could become shorter without the changes in it, and then
/// has every change. The power failed when the last of these, and the commits before it, were not
/// durable in the log: the store had a name from after commits that were gone, and did not open.
#[test]
fn no_name_is_in_the_catalogue_before_it_is_durable_in_the_log() {
    for engine in EngineKind::ALL {
        let fs = SimFs::new();
        let options = options(&fs).durability(Durability::Buffered);
        let db = options.background_sync_ms(0).open(STORE).unwrap();
        let keyspace = make(&db, "a", engine).unwrap();
        // Beyond the first segment, which is kept for the making of the keyspace then.
        for n in 0..8_u8 {
            keyspace.put([n], [n; 10_000]).unwrap();
        }
        keyspace.flush().unwrap();
        keyspace.put("k", "v").unwrap();
        db.rename_keyspace("a", "b").unwrap();
        let catalog = || {
            let file = fs
                .open(Path::new("/store/CATALOG"), OpenMode::Read)
                .unwrap();
            let mut bytes = vec![0; file.len().unwrap() as usize];
            file.read_exact_at(&mut bytes, 0).unwrap();
            bytes
        };
        let before = catalog();
        let ((), losses) = power_losses_during(&fs, || db.wait_idle().unwrap());
        assert_ne!(catalog(), before, "{engine}: it was written");
        for loss in losses {
            let db = open(&loss);
            let named = |name| db.existing_keyspace(name).unwrap();
            let is_whole = |keyspace: Keyspace| keyspace.contains_key("k").unwrap();
            match (named("a"), named("b")) {
                (Some(_), None) => {}
                (None, Some(renamed)) => assert!(is_whole(renamed), "{engine}: a commit is lost"),
                other => panic!("{engine}: {other:?}"),
            }
        }
    }
}

/// A power loss undid the making of a keyspace, whose number the next one got, of the other engine;
/// a second one undid the removal of what the first had left. It lay there until the keyspace made
/// files of its own.
#[test]
fn what_another_keyspace_of_the_same_number_left_is_removed() {
    for engine in EngineKind::ALL {
        let fs = SimFs::new();
        let db = open(&fs);
        drop(make(&db, "a", engine).unwrap());
        db.close().unwrap();
        let dir = Path::new("/store/ks-00000001");
        fs.create_dir_all(dir).unwrap();
        for name in [
            "tree.hdb.tmp",
            "CURRENT.tmp",
            "MANIFEST-0000000000000001",
            "somebody's",
        ] {
            fs.open(&dir.join(name), OpenMode::CreateNew).unwrap();
        }
        let db = open(&fs);
        assert_eq!(fs.read_dir(dir).unwrap(), ["somebody's"], "{engine}");
        let keyspace = db.existing_keyspace("a").unwrap().unwrap();
        keyspace.put("k", "v").unwrap();
        keyspace.flush().unwrap();
        db.close().unwrap();
        let db = open(&fs);
        let keyspace = db.existing_keyspace("a").unwrap().unwrap();
        assert_eq!(keyspace.get("k").unwrap().unwrap(), b"v");
        assert!(fs.exists(&dir.join("somebody's")).unwrap());
    }
}

/// A kill came when a keyspace was being dropped: the catalogue without it was in place, but its
/// name was not synced. The next open read that catalogue and removed the keyspace's files. Then
/// the power failed: the removal was durable, the new catalogue was not, and the old one listed a
/// keyspace without files.
#[test]
fn files_of_a_dropped_keyspace_outlive_the_catalogue_that_lists_it() {
    for engine in EngineKind::ALL {
        let fs = SimFs::new();
        let db = open(&fs);
        make(&db, "a", engine).unwrap().put("k", "v").unwrap();
        for image in kills_during(&fs, || db.drop_keyspace("a").unwrap()) {
            for loss in power_losses_during(&image, || drop(open(&image))).1 {
                let db = open(&loss);
                assert!(db.verify().unwrap().is_clean());
                if let Some(keyspace) = db.existing_keyspace("a").unwrap() {
                    assert_eq!(keyspace.get("k").unwrap().unwrap(), b"v");
                }
            }
        }
    }
}

/// A kill came when a flush or a checkpoint had written its manifest edit or meta page, but not
/// synced it. The next open read it and deleted the log that the flush had made superfluous. Then
/// the power failed, and took the edit: neither the log nor the tables had the commits.
#[test]
fn the_log_outlives_a_flush_that_a_kill_left_unsynced() {
    for engine in EngineKind::ALL {
        let fs = SimFs::new();
        let value = Random::new(1).bytes(9000);
        let (_db, keyspace) = sixteen(&fs, engine, &value);
        for (at, image) in kills_during(&fs, || keyspace.flush().unwrap())
            .iter()
            .enumerate()
        {
            let db = open(image);
            while db.run_background_once().unwrap() {}
            assert_sixteen_survive(image, &value, &format!("{engine}, kill {at}"));
        }
    }
}

/// A kill came when a new manifest had been named by `CURRENT`, and that name was not synced. The
/// next open read the new manifest and removed the old one as an orphan. Then the power failed:
/// `CURRENT` was the old one, and named a manifest that was gone.
#[test]
fn the_old_manifest_outlives_a_current_that_is_not_durable() {
    let fs = SimFs::new();
    let db = open(&fs);
    let keyspace = make(&db, "a", EngineKind::Lsm).unwrap();
    keyspace.put("k", "v").unwrap();
    keyspace.flush().unwrap();
    keyspace.put("l", "w").unwrap();
    drop((keyspace, db));
    // A torn edit makes the next flush begin a new manifest.
    let path = Path::new("/store/ks-00000001/MANIFEST-0000000000000001");
    let file = fs.open(path, OpenMode::ReadWrite).unwrap();
    file.write_all_at(&[9; 30], file.len().unwrap()).unwrap();
    file.sync_data().unwrap();

    let db = open(&fs);
    let keyspace = db.existing_keyspace("a").unwrap().unwrap();
    for image in kills_during(&fs, || keyspace.flush().unwrap()) {
        for loss in power_losses_during(&image, || drop(open(&image))).1 {
            let db = open(&loss);
            let keyspace = db.existing_keyspace("a").unwrap().unwrap();
            assert_eq!(keyspace.get("k").unwrap().unwrap(), b"v");
            assert_eq!(keyspace.get("l").unwrap().unwrap(), b"w");
        }
    }
    let manifests = fs.read_dir(Path::new("/store/ks-00000001")).unwrap();
    assert!(
        manifests.contains(&"MANIFEST-0000000000000002".to_owned()),
        "a new one was begun"
    );
}

/// Making a keyspace failed when the catalogue with it was in place, but its name could not be
/// synced. The next attempt took the same number and removed the directory first, which the
/// catalogue on disk listed.
#[test]
fn a_keyspace_is_made_again_after_a_failure_without_harm_to_the_store() {
    for engine in EngineKind::ALL {
        let mut failed = 0;
        for n in 0..40 {
            let fs = SimFs::new();
            let db = open(&fs);
            make(&db, "before", engine).unwrap().put("k", "v").unwrap();
            let outcome = failing_at(&fs, n, || make(&db, "a", engine));
            if outcome.is_ok() {
                break;
            }
            failed += 1;
            // A failed sync of the log has stopped the writes; the next process goes on.
            let (fs, db) = match make(&db, "probe", engine) {
                Ok(_) => (fs, db),
                Err(_) => {
                    let killed = fs.killed();
                    let db = open(&killed);
                    (killed, db)
                }
            };
            let (again, losses) = power_losses_during(&fs, || make(&db, "a", engine).unwrap());
            again.put("l", "w").unwrap();
            for loss in losses {
                let db = open(&loss);
                let keyspace = db.existing_keyspace("before").unwrap().unwrap();
                assert_eq!(keyspace.get("k").unwrap().unwrap(), b"v");
                make(&db, "a", engine).unwrap().put("l", "w").unwrap();
            }
            let db = open(&fs.crash());
            let keyspace = db.existing_keyspace("a").unwrap().unwrap();
            assert_eq!(keyspace.get("l").unwrap().unwrap(), b"w");
        }
        assert!(failed > 1, "{failed}");
    }
}

/// Dropping a keyspace failed when the catalogue without it was in place, but its name could not be
/// synced. The store went on as if the keyspace were there, and acknowledged commits to it, which
/// the next open threw away together with its files.
#[test]
fn a_commit_after_a_failed_drop_is_kept_or_refused() {
    for engine in EngineKind::ALL {
        let mut failed = 0;
        for n in 0..40 {
            let fs = SimFs::new();
            let db = open(&fs);
            let keyspace = make(&db, "a", engine).unwrap();
            keyspace.put("k", "v").unwrap();
            let outcome = failing_at(&fs, n, || db.drop_keyspace("a"));
            if outcome.is_ok() {
                break;
            }
            failed += 1;
            assert_eq!(keyspace.get("k").unwrap().unwrap(), b"v");
            let is_acknowledged = keyspace.put("l", "w").is_ok();
            for image in [fs.killed()].into_iter().chain(power_losses(&fs)) {
                let db = open(&image);
                match db.existing_keyspace("a").unwrap() {
                    Some(keyspace) => {
                        assert_eq!(keyspace.get("k").unwrap().unwrap(), b"v");
                        assert_eq!(keyspace.get("l").unwrap().is_some(), is_acknowledged);
                    }
                    // The drop came through after all: then nothing may have been promised.
                    None => assert!(!is_acknowledged, "failure at {n}"),
                }
            }
        }
        assert!(failed > 1, "{failed}");
    }
}

/// A new store in a directory that was new itself, or that was given by a relative path, was lost
/// as a whole to a power loss: only the names in the store's own parent were synced, and none for a
/// path without a parent.
#[test]
fn a_new_store_survives_a_power_loss_with_the_directories_above_it() {
    for path in ["/new/and/deep/store", "store", "new/store"] {
        let fs = SimFs::new();
        let db = options(&fs).open(path).unwrap();
        make(&db, "a", EngineKind::Lsm)
            .unwrap()
            .put("k", "v")
            .unwrap();
        let image = fs.crash();
        let db = options(&image).create_if_missing(false).open(path);
        let db = db.unwrap_or_else(|error| panic!("{path}: {error}"));
        let keyspace = db.existing_keyspace("a").unwrap().unwrap();
        assert_eq!(keyspace.get("k").unwrap().unwrap(), b"v");
    }
}

/// The durability that is named is the one that holds, also for the first commit after a kill.
#[test]
fn what_a_process_reads_after_a_kill_survives_a_power_loss() {
    for engine in EngineKind::ALL {
        let fs = SimFs::new();
        let db = open(&fs);
        let keyspace = make(&db, "a", engine).unwrap();
        let buffered = keyspace.with_durability(Durability::Buffered);
        for n in 0..30_u8 {
            buffered.put([n], [n; 50]).unwrap();
        }
        let killed = fs.killed();
        drop(open(&killed));
        let killed = fs.killed();
        let db = open(&killed);
        let before = db.existing_keyspace("a").unwrap().unwrap().iter().count();
        assert_eq!(before, 30);
        for loss in power_losses(&killed) {
            let db = open(&loss);
            let after = db.existing_keyspace("a").unwrap().unwrap().iter().count();
            assert_eq!(after, 30);
        }
    }
}

/// The sync of a manifest edit, its acknowledgement or a meta page failed, and the process ended.
/// The next one read what the page cache still showed. Syncing that would write nothing, since the
/// operating system holds it for clean, so it must be written again before the log is deleted
/// because of it, or an edit is appended behind it: an acknowledgement that was not, and was lost,
/// made the whole manifest pass for damaged.
#[test]
fn a_flush_whose_sync_failed_is_not_trusted_by_the_next_process() {
    for engine in EngineKind::ALL {
        let mut failed = 0;
        let value = Random::new(2).bytes(9000);
        for n in 0..200 {
            let fs = SimFs::new();
            let (_db, keyspace) = sixteen(&fs, engine, &value);
            let outcome = failing_at(&fs, n, || keyspace.flush());
            if outcome.is_ok() {
                break;
            }
            failed += 1;
            let killed = fs.killed();
            let db = open(&killed);
            while db.run_background_once().unwrap() {}
            assert_sixteen_survive(&killed, &value, &format!("{engine}, failure at {n}"));
        }
        assert!(failed > 3, "{engine}: {failed}");
    }
}

/// The sync of a B-tree's file failed after it had grown, and the process ended. The next one found
/// the file long enough, so it did not make it longer; but on disk it was not. After a checkpoint
/// and a power loss the file was shorter than its meta page said, and the keyspace passed for
/// damaged.
#[test]
fn a_page_file_that_only_looks_long_enough_is_grown_again() {
    let mut failed = 0;
    for n in 0..40 {
        let fs = SimFs::new();
        let db = open(&fs);
        let keyspace = make(&db, "a", EngineKind::BTree).unwrap();
        keyspace.put("k", "v").unwrap();
        let outcome = failing_at(&fs, n, || keyspace.flush());
        if outcome.is_ok() {
            break;
        }
        failed += 1;
        let killed = fs.killed();
        open(&killed).flush().unwrap();
        for loss in power_losses(&killed) {
            let db = open(&loss);
            let keyspace = db.existing_keyspace("a").unwrap().unwrap();
            assert_eq!(keyspace.get("k").unwrap().unwrap(), b"v");
        }
    }
    assert!(failed > 3, "{failed}");
}

/// The WAL manifest was replaced, its name could not be synced, and the process ended before it
/// deleted segments. The next one read the new manifest, which the page cache still showed, and
/// deleted the segments that it omits. Then the power failed: the old manifest was back, and said
/// that the log begins with a segment that was gone. Likewise a segment that had been deleted was
/// back, and the one after it gone.
#[test]
fn segments_outlive_a_wal_manifest_that_is_not_durable() {
    let value = Random::new(3).bytes(9000);
    let flushed = |engine| {
        let fs = SimFs::new();
        let (db, keyspace) = sixteen(&fs, engine, &value);
        keyspace.flush().unwrap();
        (fs, db)
    };
    let retire = |db: &Db| {
        while db.run_background_once()? {}
        db.wait_idle()
    };
    let few = CrashPolicy::new().exhaustive_max(32).each_max(4).random(4);
    for engine in EngineKind::ALL {
        // Which of the changes are syncs of directories.
        let (fs, db) = flushed(engine);
        let changes = Arc::new(Mutex::new(Vec::new()));
        fs.on_change({
            let changes = Arc::clone(&changes);
            move |_, operation| changes.lock().unwrap().push(operation.op)
        });
        retire(&db).unwrap();
        fs.clear_hook();
        let changes = changes.lock().unwrap();
        let is_sync = |n: &usize| changes[*n] == "sync directory";
        let syncs: Vec<_> = (0..changes.len()).filter(is_sync).collect();
        assert!(syncs.len() > 2, "{changes:?}");
        for n in syncs {
            let (fs, db) = flushed(engine);
            failing_at(&fs, n as u64, || retire(&db)).unwrap_err();
            let killed = fs.killed();
            let take = move |fs: &SimFs| fs.crash_states(&few).map(|state| state.fs);
            let (_db, losses) = images_during(&killed, take, || {
                let db = open(&killed);
                retire(&db).unwrap();
                db
            });
            for loss in losses.into_iter().chain([killed]) {
                let story = format!("{engine}, failure of change {n}");
                assert_sixteen_survive(&loss, &value, &story);
            }
        }
    }
}
