//! What a store may hold after a crash, known outside of the file system that crashed.
//!
//! The truth is the list of states after each commit that was ever begun, with marks up to where
//! they were acknowledged. A store that was recovered is compared by digests; the contents are
//! kept to tell a difference.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use hedgerow::Db;

pub type Map = BTreeMap<Vec<u8>, Vec<u8>>;

/// A keyspace of the truth. One that is dropped and made again is another one.
pub type Instance = u32;

/// Contents of a keyspace, with a digest.
#[derive(Debug, Clone)]
pub struct Holding {
    pub map: Arc<Map>,
    digest: u64,
}

impl Holding {
    pub fn new(map: Map) -> Self {
        let mut digest = Digest::default();
        for (key, value) in &map {
            digest.add(key);
            digest.add(value);
        }
        Self {
            map: Arc::new(map),
            digest: digest.0,
        }
    }
}

impl Default for Holding {
    fn default() -> Self {
        Self::new(Map::new())
    }
}

/// FNV over words.
#[derive(Debug, Default)]
struct Digest(u64);

impl Digest {
    fn add(&mut self, bytes: &[u8]) {
        let mut word = |word: u64| {
            self.0 = (self.0 ^ word)
                .wrapping_mul(0x9E37_79B9_7F4A_7C15)
                .rotate_left(31);
        };
        word(bytes.len() as u64);
        for chunk in bytes.chunks(8) {
            let mut full = [0; 8];
            full[..chunk.len()].copy_from_slice(chunk);
            word(u64::from_le_bytes(full));
        }
    }
}

type State = BTreeMap<Instance, Holding>;
type Catalog = BTreeMap<String, Instance>;

/// The states that a store went through.
#[derive(Debug)]
pub struct Truth {
    /// After each commit that was begun, oldest first; the first one is empty.
    states: Vec<State>,
    /// The one that a power loss cannot take back.
    synced: usize,
    /// The one that a kill cannot take back.
    acknowledged: usize,
    /// Which keyspaces there were, after each change of that.
    catalogs: Vec<Catalog>,
    /// Making and dropping keyspaces is durable when it returns.
    catalog_acknowledged: usize,
    next_instance: Instance,
}

/// Which states are right after a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    pub states: (usize, usize),
    pub catalogs: (usize, usize),
}

/// What a recovered store holds, by name of the keyspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found(BTreeMap<String, u64>);

impl Truth {
    pub fn new() -> Self {
        Self {
            states: vec![State::new()],
            synced: 0,
            acknowledged: 0,
            catalogs: vec![Catalog::new()],
            catalog_acknowledged: 0,
            next_instance: 0,
        }
    }

    fn catalog(&self) -> &Catalog {
        self.catalogs.last().expect("there is a first one")
    }

    /// What the keyspace holds after the last commit.
    pub fn holding(&self, name: &str) -> Holding {
        let newest = self.states.last().expect("there is a first one");
        let instance = self.catalog()[name];
        newest.get(&instance).cloned().unwrap_or_default()
    }

    /// A commit is about to change these keyspaces so.
    pub fn begin(&mut self, changed: Vec<(String, Map)>) {
        let mut state = self.states.last().expect("there is a first one").clone();
        for (name, map) in changed {
            state.insert(self.catalog()[&name], Holding::new(map));
        }
        self.states.push(state);
    }

    /// It has returned.
    pub fn acknowledge(&mut self, is_synced: bool) {
        self.acknowledged = self.states.len() - 1;
        if is_synced {
            self.all_synced();
        }
    }

    /// Something made everything durable.
    pub fn all_synced(&mut self) {
        self.synced = self.states.len() - 1;
        self.acknowledged = self.synced;
    }

    /// A keyspace is about to be made.
    pub fn begin_create(&mut self, name: &str) {
        let mut catalog = self.catalog().clone();
        catalog.insert(name.to_owned(), self.next_instance);
        self.next_instance += 1;
        self.catalogs.push(catalog);
    }

    /// A keyspace is about to be dropped.
    pub fn begin_drop(&mut self, name: &str) {
        let mut catalog = self.catalog().clone();
        catalog.remove(name).expect("a keyspace that exists");
        self.catalogs.push(catalog);
    }

    pub fn acknowledge_catalog(&mut self) {
        self.catalog_acknowledged = self.catalogs.len() - 1;
    }

    /// What is right after a power loss now.
    pub fn after_power_loss(&self) -> Bounds {
        Bounds {
            states: (self.synced, self.states.len() - 1),
            catalogs: (self.catalog_acknowledged, self.catalogs.len() - 1),
        }
    }

    /// What is right after a kill now.
    pub fn after_kill(&self) -> Bounds {
        Bounds {
            states: (self.acknowledged, self.states.len() - 1),
            ..self.after_power_loss()
        }
    }

    fn is(&self, found: &Found, state: usize, catalog: usize) -> bool {
        let (state, catalog) = (&self.states[state], &self.catalogs[catalog]);
        let empty = || Holding::default().digest;
        catalog.len() == found.0.len()
            && catalog.iter().all(|(name, instance)| {
                let digest = state.get(instance).map_or_else(empty, |held| held.digest);
                found.0.get(name) == Some(&digest)
            })
    }

    /// The bounds narrowed to what `found` is, if it is within them.
    pub fn place(&self, found: &Found, bounds: Bounds) -> Option<Bounds> {
        for catalog in (bounds.catalogs.0..=bounds.catalogs.1).rev() {
            for state in (bounds.states.0..=bounds.states.1).rev() {
                if self.is(found, state, catalog) {
                    return Some(Bounds {
                        states: (state, state),
                        catalogs: (catalog, catalog),
                    });
                }
            }
        }
        None
    }

    /// How the store differs from both ends of what is right.
    pub fn explain(&self, db: &Db, bounds: Bounds) -> String {
        let mut text = format!(
            "the store is none of the states {:?} with the keyspaces {:?}",
            bounds.states, bounds.catalogs
        );
        let Ok(held) = contents(db) else {
            return text + "; reading it fails";
        };
        for (state, catalog) in [
            (bounds.states.0, bounds.catalogs.0),
            (bounds.states.1, bounds.catalogs.1),
        ] {
            let _ = write!(text, "\n  against state {state}, keyspaces {catalog}:");
            let catalog = &self.catalogs[catalog];
            for name in held.keys().filter(|name| !catalog.contains_key(*name)) {
                let _ = write!(text, "\n    keyspace {name} is extra");
            }
            for (name, instance) in catalog {
                let Some(map) = held.get(name) else {
                    let _ = write!(text, "\n    keyspace {name} is missing");
                    continue;
                };
                let expected = self.states[state].get(instance).cloned();
                differences(&mut text, name, map, &expected.unwrap_or_default().map);
            }
        }
        text
    }
}

fn differences(text: &mut String, name: &str, found: &Map, expected: &Map) {
    for (key, value) in expected {
        let what = match found.get(key) {
            Some(found) if found == value => continue,
            Some(_) => "has another value",
            None => "is missing",
        };
        let key = String::from_utf8_lossy(key);
        let _ = write!(text, "\n    {name}: {key:?} {what}");
    }
    for key in found.keys().filter(|key| !expected.contains_key(*key)) {
        let key = String::from_utf8_lossy(key);
        let _ = write!(text, "\n    {name}: {key:?} is extra");
    }
}

fn contents(db: &Db) -> hedgerow::Result<BTreeMap<String, Map>> {
    let mut all = BTreeMap::new();
    for info in db.keyspaces() {
        let keyspace = db.existing_keyspace(&info.name)?.expect("it is listed");
        let mut map = Map::new();
        for item in keyspace.iter() {
            let (key, value) = item?;
            map.insert(key.to_vec(), value.to_vec());
        }
        all.insert(info.name, map);
    }
    Ok(all)
}

/// Reads everything, forwards or backwards.
pub fn read_all(db: &Db, backwards: bool) -> hedgerow::Result<Found> {
    let mut found = BTreeMap::new();
    for info in db.keyspaces() {
        let keyspace = db.existing_keyspace(&info.name)?.expect("it is listed");
        let mut digest = Digest::default();
        if backwards {
            let items = keyspace
                .iter()
                .rev()
                .collect::<hedgerow::Result<Vec<_>>>()?;
            for (key, value) in items.iter().rev() {
                digest.add(key);
                digest.add(value);
            }
        } else {
            for item in keyspace.iter() {
                let (key, value) = item?;
                digest.add(&key);
                digest.add(&value);
            }
        }
        found.insert(info.name, digest.0);
    }
    Ok(Found(found))
}
