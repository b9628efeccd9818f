//! A store on a faulty disk, and beside it what the store must hold.
//!
//! The [`Driver`] does what a workload says, notes what was acknowledged, and compares whatever it
//! reads. What a workload asks for may fail at any time; the driver decides whether it was allowed to,
//! and goes on.

mod judge;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use hedgerow::fs::{Fault, FaultFs, FaultPlan, OpKind, SimFs};
use hedgerow::{Db, Durability, EngineKind, Error, Keyspace, Kv, KvRead, Options, Result, Scan};

use crate::rig::{Sizes, keyspace_options, tiny};

pub type Map = BTreeMap<Vec<u8>, Vec<u8>>;

const ROOT: &str = "/store";
/// How often something is tried that may fail once.
const TRIES: usize = 2;

/// One operation of the file system that fails, in one way.
#[derive(Debug, Clone, Copy)]
pub struct Position {
    pub kind: OpKind,
    pub nth: u64,
    pub fault: Fault,
    /// What fails from then on as well.
    pub lasting: &'static [OpKind],
}

impl Position {
    fn plan(&self) -> FaultPlan {
        FaultPlan::once(&[self.kind], self.nth, self.fault).and_then_all(self.lasting)
    }

    /// True if what a sync was to keep may be gone.
    fn loses_synced(&self) -> bool {
        self.kind == OpKind::Sync && matches!(self.fault, Fault::SyncDropped | Fault::SyncLost)
    }

    /// True if the store may turn read-only: a sync can fail, or the read of a page that a B-tree needs to
    /// apply a commit that is already logged.
    fn may_end_writing(&self) -> bool {
        let kinds = self.lasting.iter().chain([&self.kind]);
        kinds
            .copied()
            .any(|kind| matches!(kind, OpKind::Sync | OpKind::SyncDir | OpKind::Read))
    }
}

/// A change of one key or range. `None` deletes.
#[derive(Debug, Clone)]
pub enum Edit {
    Set(Vec<u8>, Option<Vec<u8>>),
    DeleteRange(Vec<u8>, Vec<u8>),
}

impl Edit {
    fn apply(&self, map: &mut Map) {
        match self {
            Self::Set(key, Some(value)) => drop(map.insert(key.clone(), value.clone())),
            Self::Set(key, None) => drop(map.remove(key)),
            Self::DeleteRange(start, end) => map.retain(|key, _| key < start || end <= key),
        }
    }
}

/// Every keyspace there ever was gets a number; making a dropped one again gives another.
type Incarnation = usize;

type Commit = Vec<(Incarnation, Edit)>;
type State = Vec<Map>;

fn apply(commit: &Commit, state: &mut State) {
    for (of, edit) in commit {
        if state.len() <= *of {
            state.resize(of + 1, Map::new());
        }
        edit.apply(&mut state[*of]);
    }
}

/// What is known of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Presence {
    Present,
    /// Making or dropping it failed.
    Unknown,
    Gone,
}

struct Slot {
    of: Incarnation,
    engine: EngineKind,
    presence: Presence,
    handle: Option<Keyspace>,
}

/// A snapshot and what it shows.
pub struct Held {
    snapshot: hedgerow::Snapshot,
    shown: Vec<(Keyspace, Map)>,
}

/// A scan that was begun and what it has still to give.
pub struct Begun {
    scan: Scan,
    rest: Vec<(Vec<u8>, Vec<u8>)>,
}

pub struct Driver {
    /// The engine of the keyspace `main`.
    pub engine: EngineKind,
    options: Options,
    fs: FaultFs,
    mem: SimFs,
    position: Option<Position>,
    db: Option<Db>,
    slots: BTreeMap<&'static str, Slot>,
    incarnations: usize,
    acknowledged: Vec<Commit>,
    /// So many of them are durable.
    durable: usize,
    /// Commits that failed after the last acknowledged one: any one of them may be there after reopening.
    doubtful: Vec<Commit>,
    live: State,
    /// What the store holds is not known until the end: opening it again failed.
    lost_sight: bool,
    /// What checkpoints or a whole keyspace may answer with until the store is reopened.
    stuck: RefCell<Vec<String>>,
    changes: u64,
}

impl Driver {
    pub fn new(engine: EngineKind, position: Option<Position>) -> Self {
        let mem = SimFs::new();
        let fs = FaultFs::new(Arc::new(mem.clone()));
        let options = tiny(Options::new())
            .fs(Arc::new(fs.clone()))
            // Nothing leaves the cache, or chance would decide what is read.
            .cache_bytes(8 << 20)
            .background_threads(0)
            .background_sync_ms(0);
        if let Some(position) = &position {
            fs.plan(position.plan());
        }
        Self {
            engine,
            options,
            fs,
            mem,
            position,
            db: None,
            slots: BTreeMap::new(),
            incarnations: 0,
            acknowledged: Vec::new(),
            durable: 0,
            doubtful: Vec::new(),
            live: State::new(),
            lost_sight: false,
            stuck: RefCell::default(),
            changes: 0,
        }
    }

    /// Changes the options of the opens to come.
    pub fn with(&mut self, change: impl FnOnce(Options) -> Options) {
        self.options = change(self.options.clone());
    }

    pub fn fired(&self) -> u64 {
        self.fs.fired()
    }

    pub fn counts(&self) -> Vec<(OpKind, u64)> {
        OpKind::ALL
            .iter()
            .map(|kind| (*kind, self.fs.count(*kind)))
            .collect()
    }

    /// True if an error is to be expected: the fault came during the call, or lasts.
    fn excused(&self, fired_before: u64, reading: bool) -> bool {
        let Some(position) = &self.position else {
            return false;
        };
        let lasts = self.fs.fired() > 0
            && position
                .lasting
                .iter()
                .any(|kind| !reading || !kind.is_change());
        self.fs.fired() > fired_before || lasts
    }

    /// Runs something that only a fault may make fail.
    #[track_caller]
    fn attempt<T>(&self, what: &str, reading: bool, act: impl FnOnce() -> Result<T>) -> Option<T> {
        let before = self.fs.fired();
        match act() {
            Ok(value) => Some(value),
            Err(error) => {
                let read_only = matches!(error, Error::ReadOnly { .. }) && !reading;
                let after_sync = read_only && self.position.is_some_and(|p| p.may_end_writing());
                let stuck = self.stuck.borrow().contains(&error.to_string());
                assert!(
                    self.excused(before, reading) || after_sync || stuck,
                    "{what} failed without a reason: {error}"
                );
                self.expect_plain_words(&error);
                if ends_checkpoints(&error) {
                    self.stuck.borrow_mut().push(error.to_string());
                }
                None
            }
        }
    }

    /// Trouble with the disk is called that: not damage, not a missing key.
    #[track_caller]
    fn expect_plain_words(&self, error: &Error) {
        assert!(
            matches!(error, Error::Io { .. } | Error::ReadOnly { .. }),
            "an I/O error turned into {error:?}"
        );
    }

    // Opening and closing.

    /// Opens the store if it is not open.
    pub fn open(&mut self) -> bool {
        for _ in 0..TRIES {
            if self.db.is_some() || self.lost_sight {
                break;
            }
            let options = self.options.clone();
            self.db = self.attempt("opening", false, || options.open(ROOT));
        }
        self.db.is_some()
    }

    /// Makes the keyspace `name`, or opens it.
    pub fn make(&mut self, name: &'static str, engine: EngineKind) {
        for _ in 0..TRIES {
            if !self.open() {
                return;
            }
            let db = self.db.clone().expect("an open store");
            if self.presence(name) == Some(Presence::Unknown) {
                // The store decides what became of it.
                match self.attempt("finding a keyspace", false, || db.existing_keyspace(name)) {
                    None => continue,
                    Some(found) => {
                        let slot = self.slots.get_mut(name).expect("a slot");
                        slot.presence = match found {
                            Some(_) => Presence::Present,
                            None => Presence::Gone,
                        };
                        slot.handle = found;
                    }
                }
                if self.presence(name) == Some(Presence::Present) {
                    return;
                }
            }
            if self
                .presence(name)
                .is_none_or(|presence| presence == Presence::Gone)
            {
                let slot = Slot {
                    of: self.incarnations,
                    engine,
                    presence: Presence::Unknown,
                    handle: None,
                };
                self.incarnations += 1;
                self.live.resize(self.incarnations, Map::new());
                self.slots.insert(name, slot);
            }
            let handle = self.attempt("making a keyspace", false, || {
                db.keyspace_with(name, keyspace_options(engine, Sizes::Tiny))
            });
            if let Some(handle) = handle {
                let slot = self.slots.get_mut(name).expect("a slot");
                slot.handle = Some(handle);
                slot.presence = Presence::Present;
                return;
            }
        }
    }

    fn presence(&self, name: &str) -> Option<Presence> {
        self.slots.get(name).map(|slot| slot.presence)
    }

    /// Drops the keyspace `name`.
    pub fn drop_keyspace(&mut self, name: &'static str) {
        let Some(db) = self.db.clone() else { return };
        for _ in 0..TRIES {
            let Some(slot) = self.slots.get_mut(name) else {
                return;
            };
            slot.handle = None;
            let was = slot.presence;
            slot.presence = Presence::Unknown;
            let mut gone = false;
            let dropped = self.attempt("dropping a keyspace", false, || {
                match db.drop_keyspace(name) {
                    Err(Error::NoSuchKeyspace { .. }) if was == Presence::Unknown => {
                        gone = true;
                        Ok(())
                    }
                    other => other,
                }
            });
            if dropped.is_some() {
                self.slots.get_mut(name).expect("a slot").presence = Presence::Gone;
                return;
            }
        }
    }

    /// Closes the store, properly or by letting go of it, and opens it again.
    pub fn reopen(&mut self, properly: bool) {
        let Some(db) = self.db.take() else { return };
        self.stuck.borrow_mut().clear();
        for slot in self.slots.values_mut() {
            slot.handle = None;
        }
        if properly && self.attempt("closing", false, || db.close()).is_some() {
            self.durable = self.acknowledged.len();
        }
        drop(db);
        if !self.open() {
            self.lost_sight = true;
            return;
        }
        let names: Vec<_> = self
            .slots
            .iter()
            .filter(|(_, slot)| slot.presence != Presence::Gone)
            .map(|(name, slot)| (*name, slot.engine))
            .collect();
        let db = self.db.clone().expect("an open store");
        for (name, _) in names {
            let found = self.attempt("finding a keyspace", false, || db.existing_keyspace(name));
            let slot = self.slots.get_mut(name).expect("a slot");
            match (found, slot.presence) {
                (Some(Some(handle)), _) => {
                    slot.presence = Presence::Present;
                    slot.handle = Some(handle);
                }
                (Some(None), Presence::Unknown) => slot.presence = Presence::Gone,
                (Some(None), _) => panic!("keyspace {name} is not there after reopening"),
                (None, _) => return self.lose_sight(),
            }
        }
        // What failed before may be there now.
        if self.fs.fired() > 0 {
            let Some(found) = self.read_all() else {
                return self.lose_sight();
            };
            self.adopt(&found, self.position.is_some_and(|p| p.loses_synced()));
        }
    }

    fn lose_sight(&mut self) {
        self.lost_sight = true;
        for slot in self.slots.values_mut() {
            slot.handle = None;
        }
        self.db = None;
    }

    // Writing.

    fn handle(&self, name: &str) -> Option<(Keyspace, Incarnation)> {
        let slot = self.slots.get(name)?;
        Some((slot.handle.clone()?, slot.of))
    }

    /// Commits the edits, each with the keyspace it concerns.
    pub fn commit(&mut self, edits: &[(&'static str, Edit)], durability: Durability) {
        let Some(db) = self.db.clone() else { return };
        let mut commit = Commit::new();
        let mut batch = db.batch();
        let mut handles = Vec::new();
        for (name, edit) in edits {
            let Some((handle, of)) = self.handle(name) else {
                return;
            };
            match edit {
                Edit::Set(key, Some(value)) => batch.put(&handle, key, value),
                Edit::Set(key, None) => batch.delete(&handle, key),
                Edit::DeleteRange(start, end) => {
                    batch.delete_range(&handle, &start[..]..&end[..]);
                }
            }
            commit.push((of, edit.clone()));
            handles.push(handle);
        }
        let before = self.fs.fired();
        let outcome = match (edits, &handles[..]) {
            // A single change takes another way.
            ([(_, edit)], [handle]) => {
                let handle = handle.with_durability(durability);
                match edit {
                    Edit::Set(key, Some(value)) => handle.put(key, value),
                    Edit::Set(key, None) => handle.delete(key),
                    Edit::DeleteRange(start, end) => handle.delete_range(&start[..]..&end[..]),
                }
            }
            _ => db.write(batch, durability),
        };
        self.changes += 1;
        match outcome {
            Ok(()) => {
                apply(&commit, &mut self.live);
                self.acknowledged.push(commit);
                self.doubtful.clear();
                if durability == Durability::Sync {
                    self.durable = self.acknowledged.len();
                }
            }
            Err(error) => {
                self.expect_plain_words(&error);
                let read_only = matches!(error, Error::ReadOnly { .. });
                let stuck = self.stuck.borrow().contains(&error.to_string());
                assert!(
                    stuck
                        || self.excused(before, false)
                        || read_only && self.position.is_some_and(|p| p.may_end_writing()),
                    "a commit failed without a reason: {error}"
                );
                if ends_checkpoints(&error) || ends_applying(&error) {
                    self.stuck.borrow_mut().push(error.to_string());
                }
                // Nothing of it can be seen.
                for ((of, edit), handle) in commit.iter().zip(&handles) {
                    let key = match edit {
                        Edit::Set(key, _) | Edit::DeleteRange(key, _) => key,
                    };
                    if let Some(found) = self.attempt("a lookup", true, || handle.get(key)) {
                        assert_eq!(
                            found.as_deref(),
                            self.live[*of].get(key).map(Vec::as_slice),
                            "a commit that failed is partly there"
                        );
                    }
                }
                if is_log_sync(&error) {
                    let again = handles[0].put(b"after a failed sync", b"");
                    assert!(
                        matches!(again, Err(Error::ReadOnly { .. })),
                        "a store whose log could not be synced took a write: {again:?}"
                    );
                }
                if !read_only {
                    self.doubtful.push(commit);
                }
            }
        }
    }

    pub fn put(&mut self, name: &'static str, key: u32, len: usize, durability: Durability) {
        let value = self.value(len);
        let edit = Edit::Set(key_of(key), Some(value));
        self.commit(&[(name, edit)], durability);
    }

    pub fn delete(&mut self, name: &'static str, key: u32, durability: Durability) {
        self.commit(&[(name, Edit::Set(key_of(key), None))], durability);
    }

    /// A value of `len` bytes that no other commit wrote.
    pub fn value(&self, len: usize) -> Vec<u8> {
        let mut value = self.changes.to_le_bytes().to_vec();
        let mut state = self.changes.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        while value.len() < len {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            value.extend_from_slice(&state.to_le_bytes()[..4]);
            value.extend_from_slice(&[0; 4]);
        }
        value.truncate(len);
        value
    }

    // Maintenance.

    fn maintain(&mut self, what: &str, act: impl FnOnce(&Db) -> Result<()>) -> bool {
        let Some(db) = self.db.clone() else {
            return false;
        };
        self.attempt(what, false, || act(&db)).is_some()
    }

    pub fn sync(&mut self) {
        if self.maintain("a sync", Db::sync) {
            self.durable = self.acknowledged.len();
        }
    }

    pub fn flush(&mut self) {
        if self.maintain("a flush", Db::flush) {
            self.durable = self.acknowledged.len();
        }
    }

    pub fn compact(&mut self) {
        self.maintain("a compaction", Db::compact);
    }

    /// Does all background work that is due.
    pub fn work(&mut self) {
        for _ in 0..200 {
            let mut more = false;
            self.maintain("background work", |db| {
                more = db.run_background_once()?;
                Ok(())
            });
            if !more {
                return;
            }
        }
        panic!("background work does not end");
    }

    // Reading.

    pub fn hold_snapshot(&mut self) -> Option<Held> {
        let db = self.db.as_ref()?;
        let shown = self
            .slots
            .values()
            .filter_map(|slot| Some((slot.handle.clone()?, self.live[slot.of].clone())))
            .collect();
        Some(Held {
            snapshot: db.snapshot(),
            shown,
        })
    }

    pub fn check_snapshot(&self, held: Option<&Held>) {
        let Some(held) = held else { return };
        for (keyspace, shown) in &held.shown {
            self.check_scan(held.snapshot.iter(keyspace), shown, false);
            self.check_scan(held.snapshot.iter(keyspace), shown, true);
            for (key, value) in shown {
                let found = self.attempt("a lookup", true, || held.snapshot.get(keyspace, key));
                if let Some(found) = found {
                    assert_eq!(found.as_deref(), Some(&value[..]), "a snapshot changed");
                }
            }
        }
    }

    /// Begins a scan of `main` and reads `count` entries.
    pub fn begin_scan(&mut self, count: usize) -> Option<Begun> {
        let (handle, of) = self.handle("main")?;
        let rest = self.live[of].clone().into_iter().collect();
        let mut begun = Begun {
            scan: handle.iter(),
            rest,
        };
        self.go_on(&mut begun, count).then_some(begun)
    }

    /// Reads up to `count` entries more; false if the scan failed.
    pub fn go_on(&self, begun: &mut Begun, count: usize) -> bool {
        for _ in 0..count {
            let Some(item) = self.attempt("a scan", true, || begun.scan.next().transpose()) else {
                assert!(begun.scan.next().is_none(), "a scan that failed goes on");
                assert!(
                    begun.scan.next_back().is_none(),
                    "a scan that failed goes on"
                );
                return false;
            };
            let item = item.map(|(key, value)| (key.to_vec(), value.to_vec()));
            let wanted = (!begun.rest.is_empty()).then(|| begun.rest.remove(0));
            assert_eq!(item, wanted, "a scan went wrong");
        }
        true
    }

    fn check_scan(&self, mut scan: Scan, expected: &Map, backward: bool) {
        let mut wanted: Vec<_> = expected.iter().collect();
        if backward {
            wanted.reverse();
        }
        for (key, value) in wanted {
            let item = self.attempt("a scan", true, || {
                if backward {
                    scan.next_back().transpose()
                } else {
                    scan.next().transpose()
                }
            });
            let Some(item) = item else {
                assert!(scan.next().is_none(), "a scan that failed goes on");
                assert!(scan.next_back().is_none(), "a scan that failed goes on");
                return;
            };
            let (found_key, found) = item.expect("a scan ended early without an error");
            assert_eq!(&found_key[..], &key[..], "a scan found another key");
            assert_eq!(&found[..], &value[..], "a scan found another value");
        }
        if let Some(end) = self.attempt("a scan", true, || scan.next().transpose()) {
            assert_eq!(end, None, "a scan found more than there is");
        }
    }

    /// Reads everything in every way: right, or an error, never wrong.
    pub fn check(&self) {
        for slot in self.slots.values() {
            let Some(keyspace) = &slot.handle else {
                continue;
            };
            let expected = &self.live[slot.of];
            self.check_scan(keyspace.iter(), expected, false);
            self.check_scan(keyspace.iter(), expected, true);
            let absent = [b"".to_vec(), key_of(77_777), b"zz".to_vec()];
            for key in expected.keys().chain(&absent) {
                if let Some(found) = self.attempt("a lookup", true, || keyspace.get(key)) {
                    let wanted = expected.get(key).map(Vec::as_slice);
                    assert_eq!(found.as_deref(), wanted, "a lookup went wrong");
                }
            }
        }
    }

    /// Everything in all keyspaces that are there; `None` if a read failed.
    fn read_all(&self) -> Option<State> {
        let mut state = vec![Map::new(); self.incarnations];
        for slot in self.slots.values() {
            let Some(keyspace) = &slot.handle else {
                continue;
            };
            for item in keyspace.iter() {
                let (key, value) = self.attempt("a scan", true, || item)?;
                state[slot.of].insert(key.to_vec(), value.to_vec());
            }
        }
        Some(state)
    }
}

/// True if a B-tree checkpoint failed where nobody knows which tree a reopen would find. No later one is
/// tried then, until the store is reopened.
fn ends_checkpoints(error: &Error) -> bool {
    match error {
        Error::Io {
            op, path, offset, ..
        } if path.ends_with("tree.hdb") => {
            *op == "sync" || *op == "write" && offset.is_some_and(|at| at < 2048)
        }
        _ => false,
    }
}

/// True if a page could not be read that a B-tree needed to apply a commit. The commit was logged, so the
/// keyspace may answer with this until the store is reopened.
fn ends_applying(error: &Error) -> bool {
    matches!(error, Error::Io { op: "read", path, .. } if path.ends_with("tree.hdb"))
}

/// True if records of the log could not be synced, not a segment in the making.
fn is_log_sync(error: &Error) -> bool {
    matches!(error, Error::Io { op: "sync", path, .. } if path.extension().is_some_and(|e| e == "log"))
}

pub fn key_of(n: u32) -> Vec<u8> {
    format!("key {n:05}").into_bytes()
}
