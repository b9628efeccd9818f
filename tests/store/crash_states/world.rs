//! A store on the simulated disk, and everything that happens to it told to the oracle first.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hedgerow::fs::SimFs;
use hedgerow::{
    Db, Durability, EngineKind, Keyspace, KeyspaceOptions, ManualClock, MemtableKind, Options,
    SeqNo,
};
use support::block_on::block_on;
use support::filter::{DropMarked, is_marked};
use support::random::{Random, Source};
use support::sizes::{Sizes, Variant, keyspace_options_with, single_threaded};

use super::oracle::{Map, Truth};

/// The directory of the store.
pub const STORE: &str = "/store";

/// A change of one keyspace, named by its place in the alphabet.
#[derive(Debug, Clone)]
pub enum Edit {
    Put(String, Vec<u8>),
    /// For so many milliseconds. No other commit writes the same value.
    PutFor(String, Vec<u8>, u64),
    /// Appends.
    Merge(String, Vec<u8>),
    Delete(String),
    DeleteRange(String, String),
}

/// Called whenever the store moves to another file system.
type Attach = Box<dyn Fn(&SimFs)>;

/// A store, its file system, and the oracle.
pub struct World {
    pub fs: SimFs,
    pub truth: Arc<Mutex<Truth>>,
    pub random: Random,
    /// The engine that the workload is about.
    pub engine: EngineKind,
    memtable: MemtableKind,
    /// That of the store.
    durability: Durability,
    attach: Attach,
    clock: ManualClock,
    now_ms: u64,
    db: Option<Db>,
    open: BTreeMap<String, Keyspace>,
    /// The last commit of this opening, if no keyspace was made or renamed since.
    last: Option<SeqNo>,
    /// How often everything was made durable by waiting for it.
    waits: u64,
}

/// Options of every store here: one thread, the smallest sizes, a sweep after ten milliseconds.
pub fn options(fs: &SimFs) -> Options {
    single_threaded(Arc::new(fs.clone()))
        .log_limit_bytes(128 << 10)
        .compaction_filter(DropMarked)
        .sweep_period(Duration::from_millis(10))
}

/// The other one.
pub fn other(engine: EngineKind) -> EngineKind {
    match engine {
        EngineKind::Lsm => EngineKind::BTree,
        EngineKind::BTree => EngineKind::Lsm,
    }
}

impl World {
    /// Opens a new store on `fs`.
    pub fn new(
        fs: SimFs,
        seed: u64,
        variant: Variant,
        truth: Arc<Mutex<Truth>>,
        clock: ManualClock,
        attach: Attach,
    ) -> Self {
        let mut world = Self {
            fs,
            truth,
            random: Random::new(seed),
            engine: variant.engine,
            memtable: variant.memtable,
            durability: match seed % 2 {
                0 => Durability::Sync,
                _ => Durability::Buffered,
            },
            attach,
            clock,
            now_ms: 0,
            db: None,
            open: BTreeMap::new(),
            last: None,
            waits: 0,
        };
        (world.attach)(&world.fs);
        world.open();
        world
    }

    pub fn db(&self) -> &Db {
        self.db.as_ref().expect("an open store")
    }

    pub fn truth(&self) -> std::sync::MutexGuard<'_, Truth> {
        self.truth.lock().expect("nobody panicked")
    }

    fn open(&mut self) {
        let options = options(&self.fs)
            .clock(self.clock.clone())
            .durability(self.durability);
        let db = options.open(STORE).expect("the store opens");
        for info in db.keyspaces() {
            let keyspace = db.existing_keyspace(&info.name).expect("readable");
            self.open.insert(info.name, keyspace.expect("it is listed"));
        }
        self.db = Some(db);
        self.last = None;
    }

    /// Makes a keyspace on `engine`.
    pub fn create(&mut self, name: &str, engine: EngineKind) {
        self.create_with(name, engine, |options| options);
    }

    /// Makes one with more options. Of those that merge or expire no values are stored apart.
    pub fn create_with(
        &mut self,
        name: &str,
        engine: EngineKind,
        more: impl FnOnce(KeyspaceOptions) -> KeyspaceOptions,
    ) {
        self.truth().begin_create(name);
        let mut options = more(keyspace_options_with(engine, Sizes::Tiny, self.memtable));
        if options.merge_operator.is_some() || options.expiry == Some(true) {
            options = options.value_threshold_bytes(0);
        }
        if options.compaction_filter.is_some() {
            self.truth().filter(is_marked);
        }
        let keyspace = self.db().keyspace_with(name, options);
        self.open
            .insert(name.to_owned(), keyspace.expect("the keyspace is made"));
        self.acknowledge_change();
    }

    /// The usual two keyspaces: "a" on the engine of the workload, "b" on the other one.
    pub fn create_both(&mut self) {
        self.create("a", self.engine);
        self.create("b", other(self.engine));
    }

    pub fn drop_keyspace(&mut self, name: &str) {
        self.truth().begin_drop(name);
        self.open.remove(name).expect("it is open");
        self.db().drop_keyspace(name).expect("the keyspace goes");
        self.truth().acknowledge(true);
    }

    pub fn rename(&mut self, old: &str, new: &str) {
        self.truth().begin_rename(old, new);
        let keyspace = self.open.remove(old).expect("it is open");
        self.db()
            .rename_keyspace(old, new)
            .expect("the name is free");
        assert_eq!(keyspace.name(), new);
        self.open.insert(new.to_owned(), keyspace);
        self.acknowledge_change();
    }

    /// Keyspaces are made and renamed with the durability of the store.
    fn acknowledge_change(&mut self) {
        self.last = None;
        let is_synced = self.durability == Durability::Sync;
        self.truth().acknowledge(is_synced);
    }

    pub fn keyspace(&self, name: &str) -> &Keyspace {
        &self.open[name]
    }

    /// One commit.
    pub fn commit(&mut self, edits: &[(&str, Edit)], durability: Durability) {
        let mut batch = self.db().batch();
        for (name, edit) in edits {
            let keyspace = &self.open[*name];
            match edit {
                Edit::Put(key, value) => batch.put(keyspace, key, value),
                Edit::PutFor(key, value, ms) => {
                    batch.put_with_ttl(keyspace, key, value, Duration::from_millis(*ms));
                }
                Edit::Merge(key, operand) => batch.merge(keyspace, key, operand),
                Edit::Delete(key) => batch.delete(keyspace, key),
                Edit::DeleteRange(low, high) => {
                    batch.delete_range(keyspace, low.as_str()..high.as_str());
                }
            }
        }
        self.begin_commit(edits);
        let written = self.db().write(batch, durability);
        self.last = Some(written.expect("the commit succeeds"));
        self.truth().acknowledge(durability == Durability::Sync);
    }

    /// A bulk load of every `step`-th key from `low` to `high`.
    pub fn load(&mut self, name: &str, low: u64, high: u64, step: usize, len: usize) {
        let mut map = Map::clone(&self.truth().holding(name).map);
        let mut load = self.keyspace(name).bulk_load().expect("it begins");
        for key in (low..high).step_by(step) {
            let (key, value) = (key_of(key).into_bytes(), self.random.bytes(len));
            load.put(&key, &value).expect("in order");
            map.insert(key, value);
        }
        self.truth().begin(vec![(name.to_owned(), map)]);
        self.last = Some(load.finish().expect("the load succeeds"));
        self.truth().acknowledge(true);
    }

    /// The same edits by a transaction, which also does, and takes back, the edits of `undone`.
    pub fn transact(
        &mut self,
        edits: &[(&str, Edit)],
        undone: &[(&str, Edit)],
        durability: Durability,
    ) {
        let tx = self.db().transaction().expect("an open store");
        let write = |(name, edit): &(&str, Edit)| {
            let keyspace = &self.open[*name];
            let written = match edit {
                Edit::Put(key, value) => tx.put(keyspace, key, value),
                Edit::PutFor(key, value, ms) => {
                    tx.put_with_ttl(keyspace, key, value, Duration::from_millis(*ms))
                }
                Edit::Merge(key, operand) => tx.merge(keyspace, key, operand),
                Edit::Delete(key) => tx.delete(keyspace, key),
                Edit::DeleteRange(low, high) => {
                    tx.delete_range(keyspace, low.as_str()..high.as_str())
                }
            };
            written.expect("within the limits");
        };
        let (first, rest) = edits.split_at(edits.len() / 2);
        first.iter().for_each(write);
        let savepoint = tx.savepoint();
        undone.iter().for_each(write);
        tx.rollback_to(savepoint).expect("it was made");
        rest.iter().for_each(write);
        self.begin_commit(edits);
        let committed = tx.commit_with(durability);
        self.last = Some(committed.expect("the commit succeeds"));
        self.truth().acknowledge(durability == Durability::Sync);
    }

    /// A transaction with these edits that meets a conflict, for which it has read `key`.
    pub fn foil(&mut self, edits: &[(&str, Edit)], key: u64) {
        let tx = self.db().transaction().expect("an open store");
        let read = tx.get(&self.open["a"], key_of(key));
        read.expect("it can be read");
        for (name, edit) in edits {
            if let Edit::Put(key, value) = edit {
                tx.put(&self.open[*name], key, value).expect("a short one");
            }
        }
        self.put("a", key, 20, Durability::Buffered);
        tx.put(&self.open["b"], key_of(key), "foiled")
            .expect("a short one");
        assert!(tx.commit().expect_err("a conflict").is_conflict());
    }

    /// Tells the oracle of a commit that is about to be made.
    fn begin_commit(&self, edits: &[(&str, Edit)]) {
        let mut changed: BTreeMap<String, Map> = BTreeMap::new();
        for (name, edit) in edits {
            let map = changed
                .entry((*name).to_owned())
                .or_insert_with(|| Map::clone(&self.truth().holding(name).map));
            match edit {
                Edit::Put(key, value) => {
                    map.insert(key.clone().into_bytes(), value.clone());
                }
                Edit::PutFor(key, value, ms) => {
                    let at_ms = self.now_ms + ms;
                    self.truth().expires(key.as_bytes(), value, at_ms);
                    map.insert(key.clone().into_bytes(), value.clone());
                }
                Edit::Merge(key, operand) => {
                    let value = map.entry(key.clone().into_bytes()).or_default();
                    let before = value.clone();
                    value.extend_from_slice(operand);
                    self.truth().merged(key.as_bytes(), &before, value);
                }
                Edit::Delete(key) => {
                    map.remove(key.as_bytes());
                }
                Edit::DeleteRange(low, high) => map.retain(|key, _| {
                    key.as_slice() < low.as_bytes() || key.as_slice() >= high.as_bytes()
                }),
            }
        }
        self.truth().begin(changed.into_iter().collect());
    }

    pub fn put(&mut self, name: &str, key: u64, len: usize, durability: Durability) {
        let edit = Edit::Put(key_of(key), self.random.bytes(len));
        self.commit(&[(name, edit)], durability);
    }

    pub fn delete(&mut self, name: &str, key: u64, durability: Durability) {
        self.commit(&[(name, Edit::Delete(key_of(key)))], durability);
    }

    pub fn delete_range(&mut self, name: &str, low: u64, high: u64, durability: Durability) {
        let edit = Edit::DeleteRange(key_of(low), key_of(high));
        self.commit(&[(name, edit)], durability);
    }

    /// A small random change.
    pub fn draw_edit(&mut self) -> Edit {
        let key = self.random.below(24);
        match self.random.weighted(&[12, 4, 1]) {
            0 => {
                let len = match self.random.weighted(&[8, 2, 1]) {
                    0 => self.random.below(40),
                    1 => self.random.below(300),
                    _ => self.random.below(3000),
                };
                Edit::Put(key_of(key), self.random.bytes(len as usize))
            }
            1 => Edit::Delete(key_of(key)),
            _ => Edit::DeleteRange(key_of(key), key_of(key + 1 + self.random.below(8))),
        }
    }

    pub fn draw_durability(&mut self) -> Durability {
        if self.random.one_in(3) {
            Durability::Sync
        } else {
            Durability::Buffered
        }
    }

    /// Makes everything durable, in turns by each of the ways that there are.
    pub fn sync(&mut self) {
        self.waits += 1;
        let db = self.db();
        let synced = match (self.waits % 3, self.last) {
            (1, Some(last)) => db.wait_durable(last),
            (2, Some(last)) => block_on(db.durable(last)),
            _ => db.sync(),
        };
        synced.expect("the sync succeeds");
        self.truth().all_synced();
    }

    /// Flushes one keyspace, which makes all commits to it durable.
    pub fn flush(&mut self, name: &str) {
        self.keyspace(name).flush().expect("the flush succeeds");
        self.truth().flushed(name);
    }

    pub fn flush_all(&mut self) {
        self.db().flush().expect("the flush succeeds");
        self.truth().all_synced();
    }

    pub fn compact(&mut self, name: &str) {
        self.keyspace(name)
            .compact()
            .expect("the compaction succeeds");
    }

    /// Compacts a keyspace with a filter, which has dropped what it drops then.
    pub fn compact_filtered(&mut self, name: &str) {
        let mut map = Map::clone(&self.truth().holding(name).map);
        map.retain(|_, value| !is_marked(value));
        self.truth().begin(vec![(name.to_owned(), map)]);
        self.compact(name);
        self.truth().acknowledge(false);
    }

    pub fn advance_ms(&mut self, ms: u64) {
        self.clock.advance(Duration::from_millis(ms));
        self.now_ms += ms;
        let now_ms = self.now_ms;
        self.truth().now(now_ms);
    }

    /// Does all background work that is due.
    pub fn work(&mut self) {
        while self.db().run_background_once().expect("the work succeeds") {}
    }

    /// Closes and opens again.
    pub fn reopen(&mut self) {
        self.open.clear();
        self.db().close().expect("the store closes");
        self.db = None;
        self.truth().all_synced();
        self.open();
    }

    /// Kills the process and opens the store again: the file system has what it was told, the
    /// disk may not.
    pub fn kill(&mut self) {
        let killed = self.fs.killed();
        self.fs.clear_hook();
        self.open.clear();
        self.db = None;
        (self.attach)(&killed);
        self.fs = killed;
        self.open();
        // Opening makes durable what it found.
        self.truth().all_synced();
    }

    /// Drops the store at the end.
    pub fn finish(mut self) {
        self.open.clear();
        self.db().close().expect("the store closes");
        self.truth().all_synced();
    }
}

/// The key of that number.
pub fn key_of(number: u64) -> String {
    format!("key {number:04}")
}
