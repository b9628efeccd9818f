//! Keyspaces that store values apart beside others that do not, in one store, against a model.
//!
//! Batches go across all of them; snapshots are held meanwhile; keyspaces are dropped and made
//! again; the store ends in every way and is opened with other thresholds.

use std::collections::BTreeMap;
use std::sync::Arc;

use hedgerow::fs::SimFs;
use hedgerow::{Db, Durability, EngineKind, Keyspace, KeyspaceOptions, Snapshot};
use support::random::{Random, Source};
use support::sizes::single_threaded;

use super::values::{Map, check, files};

const STORE: &str = "/store";
const STEPS: u64 = 350;
const KEYS: u64 = 60;

/// The last one is dropped and made again.
const KEYSPACES: [(&str, EngineKind); 4] = [
    ("apart", EngineKind::Lsm),
    ("plain", EngineKind::Lsm),
    ("tree", EngineKind::BTree),
    ("short-lived", EngineKind::Lsm),
];
const SHORT_LIVED: usize = 3;

/// The thresholds of each, for each time that the store is opened.
const THRESHOLDS: [[u32; 4]; 4] = [
    [1024, 0, 1024, 1024],
    [0, 0, 16, 16],
    [1024, 1024, 0, 0],
    [1024, 0, 100, 100_000],
];

type Maps = [Map; 4];

struct World {
    fs: SimFs,
    random: Random,
    db: Option<Db>,
    keyspaces: Vec<Keyspace>,
    maps: Maps,
    held: Vec<(Snapshot, Maps)>,
    openings: usize,
}

impl World {
    fn new(seed: u64, fs: SimFs) -> Self {
        let mut world = Self {
            fs,
            random: Random::new(seed),
            db: None,
            keyspaces: Vec::new(),
            maps: Maps::default(),
            held: Vec::new(),
            openings: 0,
        };
        world.open();
        world
    }

    fn db(&self) -> &Db {
        self.db.as_ref().expect("it is open")
    }

    fn open(&mut self) {
        let options = single_threaded(Arc::new(self.fs.clone())).durability(Durability::Buffered);
        self.db = Some(options.open(STORE).unwrap());
        self.openings += 1;
        self.keyspaces = (0..KEYSPACES.len()).map(|at| self.make(at)).collect();
    }

    fn make(&self, at: usize) -> Keyspace {
        let (name, engine) = KEYSPACES[at];
        let options = KeyspaceOptions::new(engine).write_buffer_bytes(64 << 10);
        let threshold = THRESHOLDS[(self.openings - 1) % THRESHOLDS.len()][at];
        let options = match engine {
            EngineKind::Lsm => options.table_size_bytes(64 << 10),
            EngineKind::BTree => options,
        };
        let options = options.value_threshold_bytes(threshold);
        self.db().keyspace_with(name, options).unwrap()
    }

    /// Ends the store in some way, and opens it with the next thresholds.
    fn reopen(&mut self) {
        self.held.clear();
        self.keyspaces.clear();
        let db = self.db.take().expect("it is open");
        match self.random.below(4) {
            0 => db.close().unwrap(),
            1 => drop(db),
            2 => self.fs = self.fs.killed(),
            _ => {
                db.sync().unwrap();
                self.fs = self.fs.crash();
            }
        }
        self.open();
    }

    fn key(&mut self) -> Vec<u8> {
        self.random.below(KEYS).to_be_bytes().to_vec()
    }

    fn value(&mut self) -> Vec<u8> {
        let len = match self.random.below(100) {
            0 => 100_000 + self.random.below(200_000),
            1..6 => 5000 + self.random.below(45_000),
            6..20 => 1020 + self.random.below(8),
            20..50 => 1024 + self.random.below(4000),
            _ => 10 + self.random.below(1000),
        };
        self.random.bytes(len as usize)
    }

    /// One commit across all keyspaces.
    fn batch(&mut self) {
        let mut batch = self.db().batch();
        for at in 0..KEYSPACES.len() {
            for _ in 0..1 + self.random.below(3) {
                let (key, keyspace) = (self.key(), self.keyspaces[at].clone());
                let map = &mut self.maps[at];
                match self.random.below(12) {
                    0 => {
                        let end = (self.random.below(KEYS) + 1).to_be_bytes().to_vec();
                        batch.delete_range(&keyspace, key.clone()..end.clone());
                        map.retain(|other, _| *other < key || *other >= end);
                    }
                    1..3 => {
                        batch.delete(&keyspace, &key);
                        map.remove(&key);
                    }
                    _ => {
                        let value = self.value();
                        batch.put(&keyspace, &key, &value);
                        self.maps[at].insert(key, value);
                    }
                }
            }
        }
        let durability = *self.random.pick(&[Durability::Buffered, Durability::Sync]);
        self.db().write(batch, durability).unwrap();
    }

    fn put(&mut self) {
        let at = self.random.below(4) as usize;
        let (key, value) = (self.key(), self.value());
        self.keyspaces[at].put(&key, &value).unwrap();
        self.maps[at].insert(key, value);
    }

    fn drop_and_make(&mut self) {
        self.db().drop_keyspace(KEYSPACES[SHORT_LIVED].0).unwrap();
        self.maps[SHORT_LIVED].clear();
        // A snapshot shows nothing of it any more.
        self.held.clear();
        self.keyspaces[SHORT_LIVED] = self.make(SHORT_LIVED);
    }

    fn check(&mut self) {
        for (keyspace, map) in self.keyspaces.iter().zip(&self.maps) {
            check(keyspace, map);
            for (key, value) in map.iter().step_by(7) {
                let start = self.random.below(value.len() as u64) as usize;
                let part = keyspace.get_range(key, start..start + 300).unwrap();
                assert!(part.unwrap() == value[start..value.len().min(start + 300)]);
            }
        }
    }

    fn check_snapshot(&self, held: &(Snapshot, Maps)) {
        for (keyspace, map) in self.keyspaces.iter().zip(&held.1) {
            let found = held.0.iter(keyspace).map(Result::unwrap);
            let found: Map = found
                .map(|(key, value)| (key.to_vec(), value.to_vec()))
                .collect();
            assert!(found == *map, "a snapshot changed");
        }
    }

    fn step(&mut self) {
        match self.random.below(50) {
            0..20 => self.batch(),
            20..34 => self.put(),
            34..36 => self.db().flush().unwrap(),
            36 => self.db().compact().unwrap(),
            37 => self.reopen(),
            38 => self.drop_and_make(),
            39..41 => {
                let snapshot = self.db().snapshot();
                self.held.push((snapshot, self.maps.clone()));
            }
            41..43 if !self.held.is_empty() => {
                let at = self.random.below(self.held.len() as u64) as usize;
                let held = self.held.swap_remove(at);
                self.check_snapshot(&held);
            }
            _ => {
                self.db().run_background_once().unwrap();
            }
        }
    }
}

#[test]
fn keyspaces_with_and_without_values_apart_agree_with_a_model() {
    let mut seen = BTreeMap::new();
    for (seed, fs) in [(1, SimFs::new()), (2, SimFs::with_maps())] {
        let mut world = World::new(seed, fs);
        for step in 0..STEPS {
            world.step();
            if step % 50 == 49 {
                world.check();
            }
            let most = seen.entry("value files").or_insert(0);
            *most = u64::max(*most, world.db().stats().value_files);
        }
        world.check();
        for held in std::mem::take(&mut world.held) {
            world.check_snapshot(&held);
        }
        world.reopen();
        world.check();
        world.db().wait_idle().unwrap();
        assert!(world.db().verify().unwrap().is_clean());
        world.check();
        *seen.entry("openings").or_default() += world.openings as u64;
        for keyspace in &world.keyspaces {
            keyspace.clear().unwrap();
        }
        world.db().compact().unwrap();
        world.db().wait_idle().unwrap();
        assert_eq!(files(&world.fs, ".val"), [""; 0], "nothing refers to them");
    }
    assert!(seen["value files"] > 2 && seen["openings"] > 8, "{seen:?}");
}
