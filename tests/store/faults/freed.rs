//! A disk that is full for a while. From some operation on there is no space; then somebody makes
//! some, and the store goes on without being opened again, and has kept no space for what had
//! failed.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hedgerow::fs::{Fault, FaultFs, FaultPlan, Fs, OpKind, SimFs};
use hedgerow::{Db, EngineKind, Error, Keyspace, Options, Result};
use support::rig::{Sizes, figure, keyspace_options};

use super::disk;
use super::driver::ends_checkpoints;

const ROOT: &str = "/store";
/// Attempts while the disk is full: what each leaves behind adds up.
const ATTEMPTS: u8 = 3;

/// A store on a disk that fills up, and what it must hold.
struct Life {
    fs: FaultFs,
    mem: SimFs,
    options: Options,
    db: Db,
    data: Keyspace,
    live: BTreeMap<Vec<u8>, Vec<u8>>,
    /// A B-tree's meta page found no room, where nobody knows which tree a reopen would find.
    is_stuck: bool,
}

impl Life {
    fn new(engine: EngineKind) -> Self {
        let (fs, mem, options) = disk();
        let db = options.clone().open(ROOT).expect("a healthy disk");
        let keyspace = keyspace_options(engine, Sizes::Tiny);
        let data = db.keyspace_with("data", keyspace).expect("a healthy disk");
        Self {
            fs,
            mem,
            options,
            db,
            data,
            live: BTreeMap::new(),
            is_stuck: false,
        }
    }

    /// Notes an outcome. There is one reason to fail.
    #[track_caller]
    fn note<T>(&mut self, outcome: Result<T>) -> bool {
        let Err(error) = outcome else { return true };
        let full =
            matches!(&error, Error::Io { source, .. } if source.kind() == ErrorKind::StorageFull);
        assert!(full, "a full disk is called that: {error:?}");
        assert!(self.fs.fired() > 0, "there is room: {error}");
        self.is_stuck |= ends_checkpoints(&error);
        false
    }

    fn put(&mut self, key: u8, len: usize, fill: u8) {
        let (key, value) = (vec![key], vec![fill; len]);
        let outcome = self.data.put(&key, &value).map(|_| ());
        if self.note(outcome) {
            self.live.insert(key, value);
        }
    }

    /// Everything that takes space, once.
    fn act(&mut self, round: u8) {
        for n in 0..24 {
            self.put(n * 7 % 40, 300 + usize::from(n), round);
        }
        let outcome = self.db.flush();
        self.note(outcome);
        // More than what is left of a segment of the log.
        self.put(90, 50_000, round);
        let outcome = self.data.delete([round]);
        if self.note(outcome) {
            self.live.remove(&vec![round]);
        }
        let outcome = self.data.delete_range([20]..[30]);
        if self.note(outcome) {
            self.live.retain(|key, _| key[0] < 20 || 30 <= key[0]);
        }
        let outcome = self.db.run_background_once().map(drop);
        self.note(outcome);
        let outcome = self.db.flush();
        self.note(outcome);
        let outcome = self.db.compact();
        self.note(outcome);
        for engine in EngineKind::ALL {
            let name = engine.name();
            let made = self
                .db
                .keyspace_with(name, keyspace_options(engine, Sizes::Tiny));
            let outcome = made.and_then(|other| other.put(b"key", b"value"));
            self.note(outcome);
            if self
                .db
                .existing_keyspace(name)
                .expect("it is open")
                .is_some()
            {
                let outcome = self.db.drop_keyspace(name);
                self.note(outcome);
            }
        }
        self.check();
    }

    #[track_caller]
    fn check(&self) {
        let found: BTreeMap<_, _> = self
            .data
            .iter()
            .map(|item| item.expect("reads take no room"))
            .map(|(key, value)| (key.to_vec(), value.to_vec()))
            .collect();
        assert!(found == self.live, "another state");
    }

    /// The names in a directory of the store.
    fn names(&self, dir: &str) -> Vec<String> {
        self.mem
            .read_dir(&Path::new(ROOT).join(dir))
            .expect("a directory")
    }
}

/// Runs one life whose disk has no space for operations of `kinds` from the `nth` on. False if
/// there are not so many.
fn run(engine: EngineKind, kinds: &[OpKind], nth: u64, fault: Fault, skipped: &mut u64) -> bool {
    let mut life = Life::new(engine);
    life.act(1);
    life.fs
        .plan(FaultPlan::once(kinds, nth, fault).and_then_all(kinds));
    for round in 0..ATTEMPTS {
        life.act(2 + round);
    }
    let fired = life.fs.fired() > 0;
    life.fs.heal();
    if life.is_stuck {
        *skipped += 1;
        return true;
    }
    // Nothing fails now, and nothing has to be opened again.
    let before = life.fs.fired();
    for round in 10..12 {
        life.act(round);
    }
    assert_eq!(life.fs.fired(), before);
    while life.db.run_background_once().expect("there is room") {}
    life.db.wait_idle().expect("there is room");
    life.check();
    let report = life.db.verify().expect("there is room");
    assert!(report.is_clean(), "{report:?}");

    // What is in the directories is in use.
    let top = life.names("");
    assert!(!top.iter().any(|name| name.ends_with(".tmp")), "{top:?}");
    let keyspace: PathBuf = top
        .iter()
        .find(|name| name.starts_with("ks"))
        .expect("one")
        .into();
    assert_eq!(
        top.iter().filter(|name| name.starts_with("ks")).count(),
        1,
        "{top:?}"
    );
    let names = life.names(keyspace.to_str().expect("UTF-8"));
    if engine == EngineKind::Lsm {
        let starting = |with: &str| names.iter().filter(|name| name.starts_with(with)).count();
        assert_eq!(
            starting("TABLE-") as u64,
            life.data.stats().files,
            "{names:?}"
        );
        assert_eq!(starting("MANIFEST-"), 1, "{names:?}");
    }
    let log = life.names("wal");
    assert!(
        log.iter().filter(|name| name.ends_with(".tmp")).count() <= 1,
        "{log:?}"
    );

    let Life {
        mem,
        options,
        db,
        data,
        live,
        ..
    } = life;
    drop((data, db));
    let db = options
        .fs(Arc::new(mem.crash()))
        .open(ROOT)
        .expect("there is room");
    let data = db
        .existing_keyspace("data")
        .expect("open")
        .expect("it is there");
    assert_eq!(data.iter().count(), live.len());
    fired
}

#[test]
fn space_that_is_freed_is_enough() {
    let (mut positions, mut skipped) = (0, 0);
    for engine in EngineKind::ALL {
        // A file system may still make names when it has no room for bytes.
        for kinds in [&OpKind::TAKING_SPACE[..], &[OpKind::Write]] {
            for fault in [Fault::Full, Fault::Short] {
                for nth in 0.. {
                    if !run(engine, kinds, nth, fault, &mut skipped) {
                        break;
                    }
                    positions += 1;
                }
            }
        }
    }
    assert!(skipped < positions / 4, "{skipped} of {positions}");
    figure("full disks that were freed", positions - skipped);
}
