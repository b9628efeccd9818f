//! What a store may hold after a crash, known outside of the file system that crashed.
//!
//! The truth is the list of states after each commit that was ever begun, with marks up to where
//! they were acknowledged. A store that was recovered is compared by digests; the contents are
//! kept to tell a difference.

use std::collections::{BTreeMap, HashMap};
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
    /// Without what a filter may have dropped.
    filtered: u64,
}

impl Holding {
    fn new(map: Map, is_marked: fn(&[u8]) -> bool) -> Self {
        let (mut digest, mut filtered) = (Digest::default(), Digest::default());
        for (key, value) in &map {
            digest.add(key);
            digest.add(value);
            if !is_marked(value) {
                filtered.add(key);
                filtered.add(value);
            }
        }
        Self {
            map: Arc::new(map),
            digest: digest.0,
            filtered: filtered.0,
        }
    }
}

impl Default for Holding {
    fn default() -> Self {
        Self::new(Map::new(), |_| false)
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

type Catalog = BTreeMap<String, Instance>;

/// The store after a commit. Making, dropping and renaming a keyspace are commits, too.
#[derive(Debug, Clone, Default)]
struct State {
    catalog: Arc<Catalog>,
    held: BTreeMap<Instance, Holding>,
}

/// The states that a store went through.
#[derive(Debug)]
pub struct Truth {
    /// After each commit that was begun, oldest first; the first one is empty.
    states: Vec<State>,
    /// The one that a power loss cannot take back.
    synced: usize,
    /// The one that a kill cannot take back.
    acknowledged: usize,
    next_instance: Instance,
    /// When entries expire, by key and value, in milliseconds.
    times: HashMap<Entry, u64>,
    /// What background work may remove at any time.
    is_marked: fn(&[u8]) -> bool,
}

type Entry = (Vec<u8>, Vec<u8>);

/// Which states are right after a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds(usize, usize);

/// What a recovered store holds, by name of the keyspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found(BTreeMap<String, u64>);

impl Truth {
    pub fn new() -> Self {
        Self {
            states: vec![State::default()],
            synced: 0,
            acknowledged: 0,
            next_instance: 0,
            times: HashMap::new(),
            is_marked: |_| false,
        }
    }

    /// From now on there is a filter that drops these values, whenever it is asked.
    pub fn filter(&mut self, is_marked: fn(&[u8]) -> bool) {
        self.is_marked = is_marked;
    }

    /// An entry that will be written is there until this time.
    pub fn expires(&mut self, key: &[u8], value: &[u8], at_ms: u64) {
        self.times.insert((key.to_vec(), value.to_vec()), at_ms);
    }

    /// What is merged into a value keeps its time.
    pub fn merged(&mut self, key: &[u8], before: &[u8], after: &[u8]) {
        let before = (key.to_vec(), before.to_vec());
        if let Some(at_ms) = self.times.get(&before).copied() {
            self.expires(key, after, at_ms);
        }
    }

    /// It is this time: what has expired is in none of the states.
    pub fn now(&mut self, now_ms: u64) {
        let has_expired = |key: &Vec<u8>, value: &Vec<u8>| {
            let at_ms = self.times.get(&(key.clone(), value.clone()));
            at_ms.is_some_and(|at_ms| *at_ms <= now_ms)
        };
        for held in self
            .states
            .iter_mut()
            .flat_map(|state| state.held.values_mut())
        {
            if held.map.iter().any(|(key, value)| has_expired(key, value)) {
                let mut map = Map::clone(&held.map);
                map.retain(|key, value| !has_expired(key, value));
                *held = Holding::new(map, self.is_marked);
            }
        }
    }

    fn newest(&self) -> &State {
        self.states.last().expect("there is a first one")
    }

    /// What the keyspace holds after the last commit.
    pub fn holding(&self, name: &str) -> Holding {
        let newest = self.newest();
        let instance = newest.catalog[name];
        newest.held.get(&instance).cloned().unwrap_or_default()
    }

    /// A commit is about to change these keyspaces so.
    pub fn begin(&mut self, changed: Vec<(String, Map)>) {
        let mut state = self.newest().clone();
        for (name, map) in changed {
            let held = Holding::new(map, self.is_marked);
            state.held.insert(state.catalog[&name], held);
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

    /// A keyspace was flushed: every commit that has changed it survives a power loss, and with it
    /// all before.
    pub fn flushed(&mut self, name: &str) {
        let instance = self.newest().catalog[name];
        let digest = |state: &State| {
            let held = state.held.get(&instance);
            held.map_or_else(|| Holding::default().digest, |held| held.digest)
        };
        let changes = self.states.windows(2).rev();
        let since = changes.take_while(|pair| digest(&pair[0]) == digest(&pair[1]));
        let last = self.states.len() - 1 - since.count();
        self.synced = self.synced.max(last);
    }

    fn begin_change(&mut self, change: impl FnOnce(&mut Catalog)) {
        let mut state = self.newest().clone();
        change(Arc::make_mut(&mut state.catalog));
        self.states.push(state);
    }

    /// A keyspace is about to be made.
    pub fn begin_create(&mut self, name: &str) {
        let instance = self.next_instance;
        self.next_instance += 1;
        self.begin_change(|catalog| {
            catalog.insert(name.to_owned(), instance);
        });
    }

    /// A keyspace is about to be dropped.
    pub fn begin_drop(&mut self, name: &str) {
        self.begin_change(|catalog| {
            catalog.remove(name).expect("a keyspace that exists");
        });
    }

    /// A keyspace is about to be renamed.
    pub fn begin_rename(&mut self, old: &str, new: &str) {
        self.begin_change(|catalog| {
            let instance = catalog.remove(old).expect("a keyspace that exists");
            catalog.insert(new.to_owned(), instance);
        });
    }

    /// What is right after a power loss now.
    pub fn after_power_loss(&self) -> Bounds {
        Bounds(self.synced, self.states.len() - 1)
    }

    /// What is right after a kill now.
    pub fn after_kill(&self) -> Bounds {
        Bounds(self.acknowledged, self.states.len() - 1)
    }

    fn is(&self, found: &Found, state: usize) -> bool {
        let State { catalog, held } = &self.states[state];
        let empty = Holding::default();
        catalog.len() == found.0.len()
            && catalog.iter().all(|(name, instance)| {
                let held = held.get(instance).unwrap_or(&empty);
                let found = found.0.get(name).copied();
                found.is_some_and(|found| found == held.digest || found == held.filtered)
            })
    }

    /// The bounds narrowed to what `found` is, if it is within them.
    pub fn place(&self, found: &Found, bounds: Bounds) -> Option<Bounds> {
        let state = (bounds.0..=bounds.1)
            .rev()
            .find(|state| self.is(found, *state))?;
        Some(Bounds(state, state))
    }

    /// How the store differs from both ends of what is right.
    pub fn explain(&self, db: &Db, bounds: Bounds) -> String {
        let mut text = format!(
            "the store is none of the states {} to {}",
            bounds.0, bounds.1
        );
        let Ok(found) = contents(db) else {
            return text + "; reading it fails";
        };
        for number in [bounds.0, bounds.1] {
            let _ = write!(text, "\n  against state {number}:");
            let State { catalog, held } = &self.states[number];
            for name in found.keys().filter(|name| !catalog.contains_key(*name)) {
                let _ = write!(text, "\n    keyspace {name} is extra");
            }
            for (name, instance) in catalog.iter() {
                let Some(map) = found.get(name) else {
                    let _ = write!(text, "\n    keyspace {name} is missing");
                    continue;
                };
                let expected = held.get(instance).cloned();
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

/// What only flushes, clocks and filters change.
#[test]
fn states_are_narrowed_and_widened_as_promised() {
    let map = |entries: &[(&str, &str)]| -> Map {
        let owned = |(key, value): &(&str, &str)| (key.as_bytes().into(), value.as_bytes().into());
        entries.iter().map(owned).collect()
    };
    let found = |a: &[(&str, &str)], b: &[(&str, &str)]| {
        let digest = |entries| Holding::new(map(entries), |_| false).digest;
        Found([("a".into(), digest(a)), ("b".into(), digest(b))].into())
    };
    let mut truth = Truth::new();
    truth.begin_create("a");
    truth.begin_create("b");
    let steps: [(&str, &[(&str, &str)]); 4] = [
        ("a", &[("k", "v")]),
        ("b", &[("k", "-w")]),
        ("a", &[("k", "v")]),
        ("b", &[("k", "-x")]),
    ];
    truth.filter(|value| value.starts_with(b"-"));
    for (name, entries) in steps {
        truth.begin(vec![(name.to_owned(), map(entries))]);
        truth.acknowledge(false);
    }
    assert_eq!(truth.after_power_loss(), Bounds(0, 6));
    // The fifth state is no change of it.
    truth.flushed("a");
    assert_eq!(truth.after_power_loss(), Bounds(3, 6));
    truth.flushed("b");
    assert_eq!(truth.after_power_loss(), Bounds(6, 6));
    truth.flushed("a");
    assert_eq!(truth.after_power_loss(), Bounds(6, 6));

    let place = |truth: &Truth, found: &Found| {
        let placed = truth.place(found, Bounds(0, 6));
        placed.map(|Bounds(state, _)| state)
    };
    assert_eq!(
        place(&truth, &found(&[("k", "v")], &[("k", "-x")])),
        Some(6)
    );
    assert_eq!(
        place(&truth, &found(&[("k", "v")], &[("k", "-w")])),
        Some(5)
    );
    assert_eq!(
        place(&truth, &found(&[("k", "v")], &[])),
        Some(6),
        "by a filter"
    );
    assert_eq!(place(&truth, &found(&[], &[("k", "-w")])), None);
    truth.expires(b"k", b"v", 10);
    truth.merged(b"k", b"v", b"vv");
    truth.begin(vec![("a".to_owned(), map(&[("k", "vv")]))]);
    truth.now(9);
    assert_eq!(place(&truth, &found(&[], &[("k", "-w")])), None);
    truth.now(10);
    assert_eq!(place(&truth, &found(&[], &[("k", "-w")])), Some(5));
    assert!(truth.holding("a").map.is_empty(), "its time was kept");
}
