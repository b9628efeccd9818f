//! Many keyspaces in one store: none harms another, and none is lost or kept against the order of
//! commits.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::time::Duration;

use hedgerow::fs::{Fault, FaultFs, FaultPlan, File, Fs, OpKind, OpenMode, SimFs};
use hedgerow::{Db, Durability, EngineKind, Error, Keyspace, Options};
use support::image::Image;
use support::rig::{Place, Rig, Sizes, tiny};

const ENGINES: [EngineKind; 2] = [EngineKind::Lsm, EngineKind::BTree];

fn key(n: u64) -> [u8; 8] {
    n.to_be_bytes()
}

/// A drop was durable at once and what was committed before it was not: after a power loss the
/// source of a copy was gone and the copy empty.
#[test]
fn a_drop_does_not_overtake_earlier_commits() {
    for engine in ENGINES {
        let mut rig = Rig::new(Place::Memory, Sizes::Default).with(|options| {
            options
                .background_threads(0)
                .durability(Durability::Buffered)
        });
        let source = rig.keyspace("v1", engine);
        for n in 0..1000 {
            source.put(key(n), [1; 20]).unwrap();
        }
        source.flush().unwrap();
        let copy = rig.keyspace("v2", engine);
        for item in &source {
            let (key, value) = item.unwrap();
            copy.put(key, value).unwrap();
        }
        rig.db().drop_keyspace("v1").unwrap();
        let left = rig.mem().crash();
        let db = rig
            .options
            .clone()
            .fs(Arc::new(left))
            .open(rig.path())
            .unwrap();
        assert!(db.existing_keyspace("v1").unwrap().is_none());
        let copy = db.existing_keyspace("v2").unwrap().unwrap();
        assert_eq!(copy.len().unwrap(), 1000);
    }
}

/// The files of a keyspace that an older CATALOG does not list were removed before anything was
/// verified: with the log present the opening then failed, with the log deleted it did not even
/// fail.
#[test]
fn an_older_catalogue_is_refused_and_nothing_is_removed() {
    for engine in ENGINES {
        for log_is_deleted in [false, true] {
            let mut rig =
                Rig::new(Place::Memory, Sizes::Tiny).with(|options| options.background_threads(0));
            rig.keyspace("first", engine).put("k", "v").unwrap();
            rig.close();
            let older = Image::of(&**rig.fs(), rig.path());
            let second = rig.keyspace("second", engine);
            for n in 0..100 {
                second.put(key(n), [1; 2000]).unwrap();
            }
            if log_is_deleted {
                rig.db().flush().unwrap();
                rig.db().wait_idle().unwrap();
            }
            rig.close();
            let mut image = Image::of(&**rig.fs(), rig.path());
            let catalog = PathBuf::from("CATALOG");
            image
                .files
                .insert(catalog.clone(), older.files[&catalog].clone());
            let fs = SimFs::new();
            image.write(&fs, rig.path());
            let opened = rig
                .options
                .clone()
                .fs(Arc::new(fs.clone()))
                .open(rig.path());
            let error = opened.unwrap_err();
            assert!(error.is_corruption(), "{error:#}");
            let after = Image::of(&fs, rig.path());
            for (path, bytes) in image
                .files
                .iter()
                .filter(|(path, _)| path.starts_with("ks-00000002"))
            {
                assert_eq!(after.files.get(path), Some(bytes), "{}", path.display());
            }
        }
    }
}

/// Files of one keyspace were removed, and that of another was cut, before a third one turned out
/// to be damaged.
#[test]
fn an_opening_that_fails_removes_nothing() {
    let mut rig = Rig::new(Place::Memory, Sizes::Tiny).with(|options| {
        // All of the log is kept, so that nothing says that the keyspaces have files.
        options.background_threads(0).log_limit_bytes(64 << 20)
    });
    let names = ["a", "b", "c", "d"];
    let engines = [
        EngineKind::Lsm,
        EngineKind::Lsm,
        EngineKind::BTree,
        EngineKind::BTree,
    ];
    for (name, engine) in names.into_iter().zip(engines) {
        let keyspace = rig.keyspace(name, engine);
        for round in 0..3_u8 {
            for n in 0..20_u64 {
                keyspace.put(key(n), [round; 100]).unwrap();
            }
            keyspace.flush().unwrap();
        }
    }
    rig.close();
    let mut image = Image::of(&**rig.fs(), rig.path());
    let whole = image.clone();
    // Without the first the keyspace has no files, but strays.
    image
        .files
        .remove(Path::new("ks-00000001/CURRENT"))
        .unwrap();
    // Orphans of a tree that has files.
    for name in [
        "MANIFEST-00000000000000ff",
        "TABLE-00000000000000ff",
        "CURRENT.tmp",
    ] {
        let orphan = Path::new("ks-00000002").join(name);
        image.files.insert(orphan, b"orphan".to_vec());
    }
    let longer = image.files.get_mut(Path::new("ks-00000003/tree.hdb"));
    longer.unwrap().extend([0; 5000]);
    let damaged = image.files.get_mut(Path::new("ks-00000004/tree.hdb"));
    damaged.unwrap()[..2000].fill(0xaa);

    let fs = SimFs::new();
    image.write(&fs, rig.path());
    let options = rig.options.clone().fs(Arc::new(fs.clone()));
    let error = options.clone().open(rig.path()).unwrap_err();
    assert!(error.is_corruption(), "{error:#}");
    let after = Image::of(&fs, rig.path());
    for (path, bytes) in &image.files {
        if path.starts_with("ks-00000001") || path.starts_with("ks-00000002") {
            assert_eq!(after.files.get(path), Some(bytes), "{}", path.display());
        }
    }
    let longer = Path::new("ks-00000003/tree.hdb");
    assert_eq!(after.files[longer].len(), image.files[longer].len());

    for path in ["ks-00000001/CURRENT", "ks-00000004/tree.hdb"] {
        let path = Path::new(path);
        let _ = fs.remove_file(&rig.path().join(path));
        let file = fs
            .open(&rig.path().join(path), OpenMode::CreateNew)
            .unwrap();
        file.write_all_at(&whole.files[path], 0).unwrap();
        file.sync_data().unwrap();
    }
    let db = options.open(rig.path()).unwrap();
    for name in names {
        let keyspace = db.existing_keyspace(name).unwrap().unwrap();
        for n in 0..20_u64 {
            assert_eq!(keyspace.get(key(n)).unwrap().unwrap(), [2; 100], "{name}");
        }
    }
    assert!(db.verify().unwrap().is_clean());
    let opened = Image::of(&fs, rig.path());
    let is_orphan = |path: &&PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.ends_with("00ff") || name.ends_with(".tmp")
    };
    assert_eq!(opened.files.keys().find(is_orphan), None);
    assert!(opened.files[longer].len() < image.files[longer].len());
}

/// What is found and what the replay of a long log makes may have one name: only the first is a
/// stray.
#[test]
fn what_a_replay_makes_is_not_taken_for_what_was_there() {
    for engine in ENGINES {
        // One segment, so that all of the log is kept.
        let mut rig = Rig::new(Place::Memory, Sizes::Tiny)
            .with(|options| options.background_threads(0).log_segment_bytes(4 << 20));
        let keyspace = rig.keyspace("a", engine);
        for n in 0..200 {
            keyspace.put(key(n), [3; 1000]).unwrap();
        }
        drop(keyspace);
        rig.close();
        let mut image = Image::of(&**rig.fs(), rig.path());
        image
            .files
            .retain(|path, _| !path.starts_with("ks-00000001"));
        let strays = [
            "MANIFEST-0000000000000001",
            "TABLE-0000000000000001",
            "CURRENT.tmp",
            "tree.hdb.tmp",
        ];
        for name in strays {
            let stray = Path::new("ks-00000001").join(name);
            image.files.insert(stray, b"stray".to_vec());
        }
        let fs = SimFs::new();
        image.write(&fs, rig.path());
        let options = rig.options.clone().fs(Arc::new(fs.clone()));
        for _ in 0..2 {
            let db = options.clone().open(rig.path()).unwrap();
            let keyspace = db.existing_keyspace("a").unwrap().unwrap();
            assert_eq!(keyspace.len().unwrap(), 200, "{engine}");
            assert!(db.verify().unwrap().is_clean());
            let is_stray = |bytes: &Vec<u8>| bytes == b"stray";
            let files = Image::of(&fs, rig.path()).files;
            assert!(!files.values().any(is_stray), "{engine}");
            let flushed = keyspace.stats().disk_bytes > 0;
            assert!(flushed, "{engine}: the replay has made files");
        }
    }
}

/// A catalogue of an earlier moment is harmless as long as the log has what it lacks.
#[test]
fn an_older_catalogue_is_made_up_for_by_the_log() {
    for engine in ENGINES {
        let mut rig = Rig::new(Place::Memory, Sizes::Tiny)
            .with(|options| options.background_threads(0).durability(Durability::Sync));
        rig.keyspace("first", engine).put("k", "v").unwrap();
        let older = Image::of(&**rig.fs(), rig.path());
        rig.keyspace("second", engine).put("k", "w").unwrap();
        rig.db().rename_keyspace("first", "third").unwrap();
        let mut image = Image::of(&**rig.fs(), rig.path());
        let catalog = PathBuf::from("CATALOG");
        image
            .files
            .insert(catalog.clone(), older.files[&catalog].clone());
        let fs = SimFs::new();
        image.write(&fs, rig.path());
        let options = rig.options.clone().fs(Arc::new(fs));
        let db = options.open(rig.path()).unwrap();
        assert_eq!(names(&db), ["third", "second"]);
        let value = |name| {
            db.existing_keyspace(name)
                .unwrap()
                .unwrap()
                .get("k")
                .unwrap()
        };
        assert_eq!(value("third").unwrap(), "v");
        assert_eq!(value("second").unwrap(), "w");
    }
}

fn names(db: &Db) -> Vec<String> {
    db.keyspaces().into_iter().map(|info| info.name).collect()
}

/// A keyspace was durable when it was made, and its commits were not: a power loss left a store
/// with a keyspace that no prefix of the commits has.
#[test]
fn a_keyspace_goes_with_the_commits_that_a_power_loss_takes() {
    for engine in ENGINES {
        let mut rig = Rig::new(Place::Memory, Sizes::Tiny)
            .with(|options| options.background_threads(0).background_sync_ms(0));
        rig.keyspace("kept", engine).put("k", "v").unwrap();
        rig.db().sync().unwrap();
        rig.keyspace("lost", engine).put("k", "v").unwrap();
        rig.db().rename_keyspace("kept", "renamed").unwrap();
        let options = rig.options.clone().fs(Arc::new(rig.mem().crash()));
        let db = options.clone().open(rig.path()).unwrap();
        assert_eq!(names(&db), ["kept"]);
        // Its number is free again, and what it may have left is not taken for the new one's.
        let next = db.keyspace("next", engine).unwrap();
        assert_eq!(next.id(), 2);
        assert!(next.is_empty().unwrap());
        next.put("l", "w").unwrap();
        next.flush().unwrap();
        db.close().unwrap();
        drop(next);
        let db = options.open(rig.path()).unwrap();
        let next = db.existing_keyspace("next").unwrap().unwrap();
        assert_eq!(next.len().unwrap(), 1);
    }
}

#[test]
fn a_renamed_keyspace_is_the_same_one() {
    for engine in ENGINES {
        let mut rig = Rig::new(Place::Memory, Sizes::Tiny);
        let users = rig.keyspace("users", engine);
        let other = rig.keyspace("other", engine);
        users.put("ada", "1815").unwrap();
        let snapshot = rig.db().snapshot();
        let mut scan = users.iter();
        rig.db().rename_keyspace("users", "people").unwrap();
        assert_eq!(users.name(), "people");
        users.put("bob", "1970").unwrap();
        assert_eq!(scan.next().unwrap().unwrap().0, "ada");
        assert!(scan.next().is_none(), "as of its beginning");
        assert_eq!(snapshot.keyspace(&users).len().unwrap(), 1);
        assert_eq!(users.len().unwrap(), 2);
        assert_eq!(names(rig.db()), ["people", "other"]);
        assert!(rig.db().existing_keyspace("users").unwrap().is_none());

        for taken in ["other", "", "a\nb"] {
            let refused = rig.db().rename_keyspace("people", taken);
            assert!(matches!(refused, Err(Error::InvalidArgument { .. })));
        }
        let missing = rig.db().rename_keyspace("users", "x");
        assert!(matches!(missing, Err(Error::NoSuchKeyspace { .. })));
        rig.db().rename_keyspace("people", "people").unwrap();

        // The name is free for another one.
        let again = rig.keyspace("users", engine);
        assert!(again.is_empty().unwrap());
        assert_ne!(again.id(), users.id());
        rig.db().drop_keyspace("people").unwrap();
        match users.put("cyd", "1").unwrap_err() {
            Error::NoSuchKeyspace { name, .. } => assert_eq!(name, "people"),
            other => panic!("{other:?}"),
        }
        rig.db().rename_keyspace("users", "people").unwrap();
        drop((snapshot, scan, users, other, again));
        rig.close();
        assert_eq!(names(rig.db()), ["other", "people"]);
    }
}

/// Of threads that rename, make and drop under the same names, each change happens to one keyspace
/// or fails with a reason.
#[test]
fn names_are_changed_one_after_the_other() {
    let mut rig = Rig::new(Place::Memory, Sizes::Tiny);
    let db = rig.db().clone();
    std::thread::scope(|scope| {
        for thread in 0..4_usize {
            let db = &db;
            scope.spawn(move || {
                for n in 0..60_usize {
                    let (a, b) = (["a", "b", "c"][n % 3], ["b", "c", "a"][(n + thread) % 3]);
                    let outcome = match (n + thread) % 4 {
                        0 => db.drop_keyspace(a),
                        1 => db.rename_keyspace(a, b),
                        _ => db.keyspace(a, ENGINES[0]).and_then(|made| {
                            match made.put(key(n as u64), "v") {
                                Err(Error::NoSuchKeyspace { .. }) => Ok(()),
                                other => other.map(drop),
                            }
                        }),
                    };
                    match outcome {
                        Ok(())
                        | Err(Error::NoSuchKeyspace { .. } | Error::InvalidArgument { .. }) => {}
                        Err(other) => panic!("{other}"),
                    }
                }
            });
        }
    });
    let mut before = names(&db);
    before.sort();
    before.dedup();
    assert_eq!(before.len(), db.keyspaces().len(), "no name twice");
    drop(db);
    rig.close();
    let mut after = names(rig.db());
    after.sort();
    assert_eq!(after, before);
}

/// Looking up a keyspace took the lock under which the catalogue was written: beside that, 0.4 us
/// became 13 ms.
#[test]
fn looking_up_a_keyspace_waits_for_nothing_that_is_written() {
    for engine in ENGINES {
        let mem = SimFs::new();
        let options = tiny(Options::new().fs(Arc::new(mem.clone()))).background_threads(0);
        let db = options.open("/store").unwrap();
        let data = db.keyspace("data", engine).unwrap();
        let looked_up = Arc::new(AtomicUsize::new(0));
        mem.on_change({
            let (db, looked_up) = (db.clone(), Arc::clone(&looked_up));
            move |_, _| {
                let (found, answer) = mpsc::channel();
                let db = db.clone();
                std::thread::spawn(move || {
                    let made = db.keyspace("data", engine).is_ok();
                    let is_there = matches!(db.existing_keyspace("data"), Ok(Some(_)));
                    let _ = found.send(made && is_there);
                });
                // While this thread writes, with whatever it has locked.
                let answer = answer.recv_timeout(Duration::from_secs(30));
                assert_eq!(answer, Ok(true), "a lookup waits");
                looked_up.fetch_add(1, Ordering::Relaxed);
            }
        });
        data.put("k", "v").unwrap();
        db.keyspace("other", engine).unwrap();
        data.flush().unwrap();
        db.rename_keyspace("other", "another").unwrap();
        db.drop_keyspace("another").unwrap();
        db.flush().unwrap();
        db.wait_idle().unwrap();
        drop(data);
        let before_closing = looked_up.load(Ordering::Relaxed);
        assert!(before_closing > 20, "{before_closing}");
        mem.clear_hook();
    }
}

type OpenHook = Arc<dyn Fn(&Path) + Send + Sync>;

/// A file system that calls a function before it opens a file for reading.
#[derive(Clone, Default)]
struct OpeningFs {
    inner: SimFs,
    on_open: Arc<Mutex<Option<OpenHook>>>,
}

impl fmt::Debug for OpeningFs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OpeningFs")
    }
}

impl Fs for OpeningFs {
    fn open(&self, path: &Path, mode: OpenMode) -> hedgerow::Result<Arc<dyn File>> {
        let hook = self.on_open.lock().unwrap().clone();
        if let (OpenMode::Read, Some(hook)) = (mode, hook) {
            hook(path);
        }
        self.inner.open(path, mode)
    }

    support::forward_names!(inner);
}

/// While it read the catalogue, the WAL manifest or the manifest of a tree, nothing could be made
/// and no log segment or flush be noted.
#[test]
fn verification_keeps_no_change_waiting() {
    let fs = OpeningFs::default();
    let options = tiny(Options::new().fs(Arc::new(fs.clone()))).background_threads(0);
    let db = options.open("/store").unwrap();
    let data = db.keyspace("data", EngineKind::Lsm).unwrap();
    let change = {
        let (db, data) = (db.clone(), data.clone());
        move || {
            data.put(db.stats().keyspaces.len().to_string(), "v")?;
            db.keyspace(
                &format!("{}", db.stats().keyspaces.len()),
                EngineKind::BTree,
            )?;
            data.flush()?;
            db.wait_idle()
        }
    };
    change().unwrap();
    let seen = Arc::new(Mutex::new(BTreeSet::new()));
    let hook = {
        let seen = Arc::clone(&seen);
        move |path: &Path| {
            let name = path.file_name().unwrap().to_str().unwrap();
            let kind = name.trim_end_matches(|c: char| c.is_ascii_hexdigit() || c == '-');
            let is_meant = ["CATALOG", "WAL-MANIFEST", "MANIFEST"].contains(&kind);
            // Once for each: after that it is different from what was known before.
            if is_meant && seen.lock().unwrap().insert(kind.to_owned()) {
                let (done, is_done) = mpsc::channel();
                let change = change.clone();
                std::thread::spawn(move || done.send(change().is_ok()));
                let is_done = is_done.recv_timeout(Duration::from_secs(30));
                assert_eq!(is_done, Ok(true), "{name}: changes wait");
            }
        }
    };
    *fs.on_open.lock().unwrap() = Some(Arc::new(hook));
    let report = db.verify().unwrap();
    assert!(report.is_clean(), "{:#?}", report.problems);
    *fs.on_open.lock().unwrap() = None;
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 3, "{seen:?}");
}

/// Making a keyspace replaced the catalogue and made and synced files: a thousand took as many
/// times five to seven syncs, and wrote each entry of the catalogue a thousand times.
#[test]
fn making_a_thousand_keyspaces_makes_no_files() {
    for engine in ENGINES {
        let fs = FaultFs::new(Arc::new(SimFs::new()));
        let options = tiny(Options::new().fs(Arc::new(fs.clone())))
            .log_segment_bytes(1 << 20)
            .background_threads(0)
            .background_sync_ms(0)
            .durability(Durability::Buffered);
        let db = options.clone().open("/store").unwrap();
        let counts = || {
            [
                OpKind::Create,
                OpKind::Rename,
                OpKind::Sync,
                OpKind::SyncDir,
            ]
            .map(|kind| fs.count(kind))
        };
        let before = counts();
        let made: Vec<_> = (0..1000)
            .map(|n| db.keyspace(&format!("tenant {n}"), engine).unwrap())
            .collect();
        assert_eq!(counts(), before);
        for keyspace in &made {
            assert_eq!(keyspace.get("k").unwrap(), None);
            assert_eq!(keyspace.iter().count(), 0);
        }
        made[500].put("k", "v").unwrap();
        assert_eq!(counts(), before);
        drop(made);
        db.close().unwrap();
        drop(db);
        let names = fs.read_dir(Path::new("/store")).unwrap();
        assert!(
            names.iter().all(|name| !name.starts_with("ks-")),
            "{names:?}"
        );

        let before = counts();
        let db = options.clone().open("/store").unwrap();
        assert_eq!(db.keyspaces().len(), 1000);
        let after = counts();
        let opened: u64 = after
            .iter()
            .zip(before)
            .map(|(after, before)| after - before)
            .sum();
        assert!(opened < 20, "{before:?} {after:?}");
        let last = db.existing_keyspace("tenant 500").unwrap().unwrap();
        assert_eq!(last.get("k").unwrap().unwrap(), "v");
        db.flush().unwrap();
        assert!(db.verify().unwrap().is_clean());
        let names = fs.read_dir(Path::new("/store")).unwrap();
        let dirs = names.iter().filter(|name| name.starts_with("ks-"));
        assert_eq!(dirs.count(), 1, "of what was written to");
    }
}

/// A thousand keyspaces were flushed one after the other, and waited for thousands of syncs.
#[test]
fn keyspaces_are_flushed_side_by_side() {
    let fs = SimFs::new();
    let options = tiny(Options::new()).fs(Arc::new(fs.clone()));
    let db = options.clone().open("/store").unwrap();
    let keyspaces: Vec<_> = (0..8)
        .map(|n| {
            let keyspace = db.keyspace(&n.to_string(), ENGINES[n % 2]).unwrap();
            keyspace.put("k", "v").unwrap();
            keyspace
        })
        .collect();
    // The first thread that syncs a file of a keyspace waits there until another one does.
    let meeting = Arc::new((Mutex::new(Vec::new()), Condvar::new()));
    let guests = Arc::clone(&meeting);
    fs.on_change(move |_, operation| {
        let of_keyspace = operation.path.starts_with("/store/ks-00000001")
            || operation.path.starts_with("/store/ks-00000002");
        if operation.op != "sync" || !of_keyspace {
            return;
        }
        let (threads, condvar) = &*guests;
        let mut threads = threads.lock().unwrap();
        threads.push(std::thread::current().id());
        threads.dedup();
        condvar.notify_all();
        let is_alone = |threads: &mut Vec<_>| threads.len() < 2;
        let waited = condvar.wait_timeout_while(threads, Duration::from_secs(60), is_alone);
        assert!(!waited.unwrap().1.timed_out(), "no other thread flushes");
    });
    db.flush().unwrap();
    fs.clear_hook();
    drop(keyspaces);
    let image = fs.crash();
    drop(db);
    let reopened = options.fs(Arc::new(image)).open("/store").unwrap();
    for n in 0..8 {
        let keyspace = reopened.existing_keyspace(&n.to_string()).unwrap().unwrap();
        assert_eq!(keyspace.get("k").unwrap().unwrap(), b"v");
    }
}

/// With many keyspaces that nothing is written to any more, the log can go.
#[test]
fn the_catalogue_is_written_when_the_log_could_go() {
    for engine in ENGINES {
        let mut rig = Rig::new(Place::Memory, Sizes::Tiny)
            .with(|options| options.background_threads(0).log_segment_bytes(64 << 10));
        for n in 0..20 {
            rig.keyspace(&format!("tenant {n}"), engine);
        }
        let busy = rig.keyspace("tenant 0", engine);
        for n in 0..300 {
            busy.put(key(n), [1; 2000]).unwrap();
        }
        rig.db().drop_keyspace("tenant 7").unwrap();
        rig.db().flush().unwrap();
        rig.db().wait_idle().unwrap();
        let kept = rig.db().stats().log_live_bytes;
        assert!(kept <= 64 << 10, "{kept} bytes of log");
        let options = rig.options.clone().fs(Arc::new(rig.mem().crash()));
        let db = options.open(rig.path()).unwrap();
        assert_eq!(db.keyspaces().len(), 19);
    }
}

/// Dropping needed room for a new catalogue: on a full disk, what would have given the space back
/// failed.
#[test]
fn dropping_and_renaming_need_no_room_on_the_disk() {
    for engine in ENGINES {
        let fs = FaultFs::new(Arc::new(SimFs::new()));
        let options = tiny(Options::new().fs(Arc::new(fs.clone())))
            .background_threads(0)
            .durability(Durability::Buffered);
        let db = options.open("/store").unwrap();
        let keyspace = db.keyspace("a", engine).unwrap();
        db.keyspace("b", engine).unwrap().put("k", "v").unwrap();
        keyspace.put("k", "v").unwrap();
        keyspace.flush().unwrap();
        drop(keyspace);
        let all = [OpKind::Create, OpKind::SetLen, OpKind::Rename];
        fs.plan(FaultPlan::once(&all, 0, Fault::Full).and_then_all(&all));
        db.drop_keyspace("a").unwrap();
        db.rename_keyspace("b", "a").unwrap();
        assert!(!fs.exists(Path::new("/store/ks-00000001")).unwrap());
        let renamed = db.existing_keyspace("a").unwrap().unwrap();
        assert_eq!(renamed.get("k").unwrap().unwrap(), "v");
    }
}

/// Files that the log can no longer make up for are missed, although a keyspace that persisted
/// nothing may have none.
#[test]
fn missing_files_of_a_keyspace_that_persisted_are_damage() {
    for engine in ENGINES {
        let mut rig = Rig::new(Place::Memory, Sizes::Tiny)
            .with(|options| options.background_threads(0).log_segment_bytes(64 << 10));
        let keyspace = rig.keyspace("a", engine);
        for n in 0..100 {
            keyspace.put(key(n), [1; 4000]).unwrap();
        }
        drop(keyspace);
        rig.db().flush().unwrap();
        rig.db().wait_idle().unwrap();
        rig.close();
        let mut image = Image::of(&**rig.fs(), rig.path());
        image
            .files
            .retain(|path, _| !path.starts_with("ks-00000001"));
        let fs = SimFs::new();
        image.write(&fs, rig.path());
        let opened = rig.options.clone().fs(Arc::new(fs)).open(rig.path());
        assert!(opened.is_err_and(|error| error.is_corruption()), "{engine}");
    }
}

/// Everything in the directory of a dropped keyspace was removed, also what others had put there.
#[test]
fn foreign_files_in_the_directory_of_a_dropped_keyspace_stay() {
    for engine in ENGINES {
        // A background thread that looks at the keyspace would keep its files for a moment more.
        let mut rig = Rig::new(Place::Disk, Sizes::Tiny).with(|o| o.background_threads(0));
        let keyspace = rig.keyspace("a", engine);
        keyspace.put("k", "v").unwrap();
        keyspace.flush().unwrap();
        let dir = rig.path().join("ks-00000001");
        let foreign = dir.join("notes.txt");
        std::fs::write(&foreign, "not yours").unwrap();
        rig.db().drop_keyspace("a").unwrap();
        drop(keyspace);
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1);
        rig.close();
        rig.keyspace("b", engine).put("k", "v").unwrap();
        assert_eq!(std::fs::read(&foreign).unwrap(), b"not yours");
    }
}

/// A store in memory that fails where it is told to, with one thread for flushes and one for
/// compactions.
fn failing_store() -> (FaultFs, Db) {
    let fs = FaultFs::new(Arc::new(SimFs::new()));
    let options = tiny(Options::new().fs(Arc::new(fs.clone())))
        .background_threads(2)
        .durability(Durability::Buffered);
    let db = options.open("/store").unwrap();
    (fs, db)
}

/// Waits for what the threads of the store do in their own time.
fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..30_000 {
        if is_so() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("{what}");
}

fn write_much(keyspace: &Keyspace, from: u64) -> Result<(), Error> {
    for n in from..from + 400 {
        keyspace.put(key(n), [1; 1000])?;
    }
    Ok(())
}

/// The first error of one keyspace's background work ended every turn, so that the keyspaces behind
/// it got none, and it failed the writers of all.
#[test]
fn a_keyspace_whose_flush_fails_stops_no_other() {
    for sick_engine in ENGINES {
        for well_engine in ENGINES {
            let (fs, db) = failing_store();
            let sick = db.keyspace("sick", sick_engine).unwrap();
            let well = db.keyspace("well", well_engine).unwrap();
            let all = [OpKind::Write, OpKind::Create, OpKind::SetLen, OpKind::Sync];
            let plan = FaultPlan::once(&all, 0, Fault::Full).and_then_all(&all);
            fs.plan(plan.within(Path::new("/store/ks-00000001")));
            // Until it is stopped, by its own error.
            let error = (0..)
                .find_map(|from| write_much(&sick, 400 * from).err())
                .unwrap();
            assert!(error.is_out_of_space(), "{error:#}");
            for from in 0..20 {
                write_much(&well, 400 * from).unwrap();
            }
            eventually("the other one is flushed", || {
                let stats = db.stats();
                stats.keyspaces[1].stats.flush_bytes_written > 0
            });
            let error = db.stats().background_error.unwrap();
            assert!(error.starts_with("flush of keyspace \"sick\""), "{error}");
            // The error does not go with the success of another job.
            well.flush().unwrap();
            assert!(db.stats().background_error.is_some());
            fs.heal();
            sick.flush().unwrap();
            assert_eq!(db.stats().background_error, None);
            write_much(&sick, 0).unwrap();
            db.wait_idle().unwrap();
            assert!(db.verify().unwrap().is_clean());
        }
    }
}

/// A background thread that panicked was gone without a word, and writers waited for it forever.
#[test]
fn a_panic_in_background_work_stops_the_writes() {
    for engine in ENGINES {
        let fs = SimFs::new();
        let options = tiny(Options::new().fs(Arc::new(fs.clone()))).background_threads(1);
        let db = options.open("/store").unwrap();
        let keyspace = db.keyspace("a", engine).unwrap();
        let keyspace = keyspace.with_durability(Durability::Buffered);
        keyspace.put("before", "1").unwrap();
        db.sync().unwrap();
        let panics = AtomicBool::new(true);

        fs.on_change(move |_, operation| {
            let is_flush = operation.path.starts_with("/store/ks-00000001");
            assert!(
                !(is_flush && panics.swap(false, Ordering::SeqCst)),
                "the disk is a test"
            );
        });
        let error = (0..)
            .find_map(|from| write_much(&keyspace, 400 * from).err())
            .unwrap();
        match error {
            Error::WritesStopped { cause, .. } => {
                assert!(matches!(*cause, Error::Panicked { .. }), "{cause}");
            }
            other => panic!("{other:#}"),
        }
        assert_eq!(
            keyspace.get("before").unwrap().unwrap(),
            b"1",
            "reads go on"
        );
        let error = db.stats().background_error.unwrap();
        assert!(error.contains("the disk is a test"), "{error}");
        drop(keyspace);
        let _ = db.close();
        drop(db);
        fs.clear_hook();
        let db = tiny(Options::new().fs(Arc::new(fs)))
            .open("/store")
            .unwrap();
        assert!(db.verify().unwrap().is_clean());
    }
}

/// The limit held for one keyspace at a time, and nothing slowed the writers: 1,000 keyspaces had
/// 4.6 GiB of log with a limit of 128 MiB.
#[test]
fn the_limit_of_the_log_holds_with_many_keyspaces() {
    const SEGMENT: u64 = 64 << 10;
    const LIMIT: u64 = 4 * SEGMENT;
    for engine in ENGINES {
        let options = Options::new()
            .fs(Arc::new(SimFs::new()))
            .durability(Durability::Buffered)
            .log_segment_bytes(SEGMENT)
            .log_limit_bytes(LIMIT);
        let db = options.open("/store").unwrap();
        let keyspaces: Vec<_> = (0..60)
            .map(|n| db.keyspace(&format!("tenant {n}"), engine).unwrap())
            .collect();
        for n in 0..4000u64 {
            keyspaces[n as usize % keyspaces.len()]
                .put(key(n), [1; 2000])
                .unwrap();
            // A segment that begins is looked at after the commit that began it.
            let live = db.stats().log_live_bytes;
            assert!(live <= LIMIT + LIMIT / 2 + 2 * SEGMENT, "{live}");
        }
        db.wait_idle().unwrap();
        let live = db.stats().log_live_bytes;
        assert!(live <= LIMIT + SEGMENT, "{live}");
    }
}

/// Keyspaces that kept the log too long were flushed one by one, each with half a dozen syncs: with
/// 1,000 of them a put waited for 33 seconds.
#[test]
fn keyspaces_that_keep_the_log_too_long_are_flushed_side_by_side() {
    for engine in ENGINES {
        let fs = SimFs::new();
        let options = Options::new()
            .fs(Arc::new(fs.clone()))
            .durability(Durability::Buffered)
            .background_threads(1)
            .log_segment_bytes(64 << 10)
            .log_limit_bytes(256 << 10);
        let db = options.open("/store").unwrap();
        let keyspaces: Vec<_> = (0..30)
            .map(|n| db.keyspace(&format!("tenant {n}"), engine).unwrap())
            .collect();
        let syncing = Arc::new((Mutex::new(BTreeSet::new()), Condvar::new()));
        let seen = Arc::clone(&syncing);
        // The first one waits for another.
        fs.on_change(move |_, operation| {
            let dir = operation.path.parent().unwrap().to_path_buf();
            let is_of_keyspace = dir.to_str().unwrap().starts_with("/store/ks-");
            if operation.op != "sync" || !is_of_keyspace {
                return;
            }
            let (keyspaces, another) = &*seen;
            let mut keyspaces = keyspaces.lock().unwrap();
            keyspaces.insert(dir);
            another.notify_all();
            let limit = Duration::from_secs(30);
            let alone = |keyspaces: &mut BTreeSet<PathBuf>| keyspaces.len() < 2;
            let waited = another.wait_timeout_while(keyspaces, limit, alone).unwrap();
            assert!(!waited.1.timed_out(), "one by one");
        });
        for n in 0..400u64 {
            let keyspace = &keyspaces[n as usize % keyspaces.len()];
            keyspace.put(key(n), [1; 2000]).unwrap();
        }
        db.wait_idle().unwrap();
        fs.clear_hook();
        assert!(syncing.0.lock().unwrap().len() >= 2, "no flush was due");
        assert!(db.verify().unwrap().is_clean());
    }
}

/// Background work began each turn with the first keyspace, and while that had something to do the
/// others had no turn.
#[test]
fn a_busy_keyspace_leaves_turns_to_others() {
    for engine in ENGINES {
        let mut rig =
            Rig::new(Place::Memory, Sizes::Tiny).with(|options| options.background_threads(0));
        let busy = rig.keyspace("busy", engine);
        let modest = rig.keyspace("modest", engine);
        // More than a buffer, less than makes the writer do the work itself.
        let fill = |keyspace: &Keyspace| {
            for n in 0..20 {
                keyspace.put(key(n), [1; 1000]).unwrap();
            }
        };
        fill(&modest);
        let mut steps = 0;
        while modest.stats().flush_bytes_written == 0 {
            fill(&busy);
            assert!(rig.db().run_background_once().unwrap());
            steps += 1;
            assert!(
                steps < 8,
                "no turn, and soon the length of the log will give it one"
            );
        }
    }
}

/// With a sync every millisecond, what is committed becomes durable without a word of the user.
#[test]
fn buffered_commits_are_synced_by_background_work() {
    let options = Options::new()
        .fs(Arc::new(SimFs::new()))
        .durability(Durability::Buffered)
        .background_sync_ms(1);
    let db = options.open("/store").unwrap();
    let keyspace = db.keyspace("a", EngineKind::Lsm).unwrap();
    for n in 0..3 {
        let seq = keyspace.put(key(n), "v").unwrap();
        eventually("it is synced", || db.durable_seq() >= seq);
    }
}

/// The thread that syncs also wrote the 64 MiB of zeros of the next segment, and synced them: on a
/// slow disk what was to be durable after a second was so after several.
#[test]
fn a_sync_does_not_wait_for_a_segment_that_is_prepared() {
    let fs = SimFs::new();
    let options = Options::new()
        .fs(Arc::new(fs.clone()))
        .durability(Durability::Buffered)
        .log_segment_bytes(1 << 20)
        .background_sync_ms(1);
    let db = options.open("/store").unwrap();
    let keyspace = db.keyspace("a", EngineKind::BTree).unwrap();
    let (preparing, is_preparing) = mpsc::channel();
    let (go_on, may_go_on) = mpsc::channel::<()>();
    let may_go_on = Mutex::new(may_go_on);
    fs.on_change(move |_, operation| {
        let is_temporary = operation.path.extension().is_some_and(|it| it == "tmp");
        if operation.op == "write" && is_temporary {
            let _ = preparing.send(());
            // Until the sender is gone.
            let _ = may_go_on.lock().unwrap().recv();
        }
    });
    // The first segment has 1 MiB, and the next is prepared when it is half full.
    for n in 0..600 {
        keyspace.put(key(n), [0; 1000]).unwrap();
    }
    is_preparing.recv().unwrap();
    let seq = keyspace.put("last", "v").unwrap();
    eventually("it is synced", || db.durable_seq() >= seq);
    drop(go_on);
    fs.clear_hook();
    db.close().unwrap();
}

/// Its first keyspace had made files, and a power loss undid its making: they were removed, but not
/// for good.
#[test]
fn a_number_given_again_finds_no_files_of_its_first_keyspace() {
    let open = |fs: &SimFs| {
        support::sizes::single_threaded(Arc::new(fs.clone()))
            .durability(Durability::Buffered)
            .open("/store")
    };
    let btree = |page_size_bytes| {
        hedgerow::KeyspaceOptions::new(EngineKind::BTree).page_size_bytes(page_size_bytes)
    };
    let first = SimFs::new();
    let db = open(&first).unwrap();
    let undone = db.keyspace_with("first", btree(4 << 10)).unwrap();
    // It makes the file, durably.
    let _load = undone.bulk_load().unwrap();
    let second = first.crash();
    let db = open(&second).unwrap();
    assert!(db.keyspaces().is_empty(), "its making was undone");
    let keyspace = db.keyspace_with("second", btree(16 << 10)).unwrap();
    let durable = keyspace.with_durability(Durability::Sync);
    durable.put("k", "v").unwrap();
    let third = second.crash();
    let db = open(&third).unwrap();
    let keyspace = db.existing_keyspace("second").unwrap().unwrap();
    assert_eq!(keyspace.get("k").unwrap().unwrap(), "v");
}

/// The next table had it, and the one after that began at zero.
#[test]
fn a_table_of_an_impossible_number_is_refused_by_its_name() {
    let fs = SimFs::new();
    let open = || support::sizes::single_threaded(Arc::new(fs.clone())).open("/store");
    let db = open().unwrap();
    let keyspace = db.keyspace("a", EngineKind::Lsm).unwrap();
    keyspace.put("k", "v").unwrap();
    keyspace.flush().unwrap();
    db.close().unwrap();
    drop((keyspace, db));
    let stray = Path::new("/store/ks-00000001/TABLE-ffffffffffffffff");
    fs.open(stray, hedgerow::fs::OpenMode::CreateNew).unwrap();
    let error = open().unwrap_err();
    assert!(error.is_corruption(), "{error}");
    assert!(
        error.to_string().contains("TABLE-ffffffffffffffff"),
        "{error}"
    );
    fs.remove_file(stray).unwrap();
    let db = open().unwrap();
    let keyspace = db.existing_keyspace("a").unwrap().unwrap();
    assert_eq!(keyspace.get("k").unwrap().unwrap(), "v");
}

/// Where writers do the background work they met the error of the keyspace that held the log.
#[test]
fn without_threads_too_a_keyspace_whose_flush_fails_stops_no_other() {
    for sick_engine in ENGINES {
        for well_engine in ENGINES {
            let fs = FaultFs::new(Arc::new(SimFs::new()));
            let options = tiny(Options::new().fs(Arc::new(fs.clone())))
                .background_threads(0)
                .durability(Durability::Buffered);
            let db = options.open("/store").unwrap();
            let sick = db.keyspace("sick", sick_engine).unwrap();
            let well = db.keyspace("well", well_engine).unwrap();
            sick.put("k", "v").unwrap();
            let all = OpKind::TAKING_SPACE;
            let plan = FaultPlan::once(&all, 0, Fault::Full).and_then_all(&all);
            fs.plan(plan.within(Path::new("/store/ks-00000001")));
            // Beyond the limit of the log.
            for from in 0..2 {
                write_much(&well, 400 * from).unwrap();
            }
            fs.heal();
            sick.flush().unwrap();
            assert!(db.verify().unwrap().is_clean());
        }
    }
}

/// They slept for work that only they could do.
#[test]
fn without_threads_writers_do_not_sleep() {
    for engine in ENGINES {
        let options = tiny(Options::new().fs(Arc::new(SimFs::new())))
            .background_threads(0)
            .durability(Durability::Buffered);
        let db = options.open("/store").unwrap();
        let keyspace = db.keyspace("a", engine).unwrap();
        for from in 0..5 {
            write_much(&keyspace, 400 * from).unwrap();
        }
        assert_eq!(db.stats().slowed_ms, 0);
    }
}

/// Each put wrote as much of a checkpoint as the disk took.
#[test]
fn without_threads_a_writer_does_not_repeat_what_has_just_failed() {
    for engine in ENGINES {
        let fs = FaultFs::new(Arc::new(SimFs::new()));
        let options = tiny(Options::new().fs(Arc::new(fs.clone())))
            .background_threads(0)
            .durability(Durability::Buffered);
        let db = options.open("/store").unwrap();
        let keyspace = db.keyspace("a", engine).unwrap();
        let all = OpKind::TAKING_SPACE;
        let plan = FaultPlan::once(&all, 0, Fault::Full).and_then_all(&all);
        fs.plan(plan.within(Path::new("/store/ks-00000001")));
        let refused = (0..100_000).find_map(|n| keyspace.put(key(n), [1; 20]).err());
        assert!(refused.unwrap().is_out_of_space());
        // Pauses double from 200 ms on: twenty of them would take days.
        assert!(fs.fired() < 20, "{engine:?}: {}", fs.fired());
    }
}
