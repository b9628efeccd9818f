//! Snapshots and transactions of many keyspaces: a keyspace that is used for the first time long
//! after the snapshot was taken is as it was then, whatever has become of it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use hedgerow::{Batch, Db, Durability, EngineKind, Error, Keyspace, Snapshot, Transaction};
use support::random::{Random, Source};
use support::rig::{Place, Rig, Sizes, effort};

/// More than those of which a snapshot takes its views at once.
const KEYSPACES: usize = 12;

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

fn keyspaces(rig: &mut Rig) -> Vec<Keyspace> {
    let engine = |n: usize| [EngineKind::BTree, EngineKind::Lsm][n % 2];
    (0..KEYSPACES)
        .map(|n| rig.keyspace(&format!("k{n}"), engine(n)))
        .collect()
}

/// One of the two that reads a moment.
enum Moment {
    Snapshot(Snapshot),
    Transaction(Transaction),
}

impl Moment {
    fn of(db: &Db, random: &mut Random) -> Self {
        match random.one_in(2) {
            true => Self::Snapshot(db.snapshot()),
            false => Self::Transaction(db.transaction().unwrap()),
        }
    }

    fn entries(&self, keyspace: &Keyspace) -> Map {
        let owned = |entry: hedgerow::Result<(hedgerow::Value, hedgerow::Value)>| {
            let (key, value) = entry.unwrap();
            (key.to_vec(), value.to_vec())
        };
        match self {
            Self::Snapshot(snapshot) => snapshot.iter(keyspace).map(owned).collect(),
            Self::Transaction(tx) => tx.iter(keyspace).map(owned).collect(),
        }
    }

    fn get(&self, keyspace: &Keyspace, key: &[u8]) -> Option<Vec<u8>> {
        let value = match self {
            Self::Snapshot(snapshot) => snapshot.get(keyspace, key),
            Self::Transaction(tx) => tx.get(keyspace, key),
        };
        value.unwrap().map(|value| value.to_vec())
    }
}

fn key(random: &mut Random) -> Vec<u8> {
    format!("{:03}", random.below(300)).into_bytes()
}

/// Changes one keyspace, now and then by a lot.
fn change(keyspace: &Keyspace, map: &mut Map, random: &mut Random) {
    let (low, value) = (key(random), random.bytes(40));
    match random.weighted(&[30, 10, 5, 2, 2, 3, 3]) {
        0 => {
            keyspace.put(&low, &value).unwrap();
            map.insert(low, value);
        }
        1 => {
            keyspace.delete(&low).unwrap();
            map.remove(&low);
        }
        2 => {
            let high = key(random);
            keyspace.delete_range(&low..&high).unwrap();
            map.retain(|key, _| !(*key >= low && *key < high));
        }
        3 => {
            // So many operations are visible before the engine has them.
            let mut batch = Batch::new();
            for n in 0..16_384_u32 {
                let key = format!("{:03}", n % 400).into_bytes();
                let value = [&value[..], &n.to_le_bytes()].concat();
                batch.put(&key, &value);
                map.insert(key, value);
            }
            keyspace.write(batch).unwrap();
        }
        4 => {
            let mut load = keyspace.bulk_load().unwrap();
            for n in 0..50_u32 {
                let key = format!("{n:03}x").into_bytes();
                load.put(&key, &value).unwrap();
                map.insert(key, value.clone());
            }
            load.finish().unwrap();
        }
        5 => keyspace.flush().unwrap(),
        _ => keyspace.compact().unwrap(),
    }
}

#[test]
fn a_keyspace_that_is_used_late_is_as_it_was() {
    for seed in 0..10 * effort() {
        let mut random = Random::new(seed);
        let mut rig = Rig::new(Place::Memory, Sizes::Tiny);
        let keyspaces = keyspaces(&mut rig);
        let db = rig.db().clone();
        let mut maps = vec![Map::new(); KEYSPACES];
        let mut moments: Vec<(Moment, Vec<Map>)> = Vec::new();
        for step in 0..150 {
            for _ in 0..random.below(5) {
                let at = random.below(KEYSPACES as u64) as usize;
                change(&keyspaces[at], &mut maps[at], &mut random);
            }
            if random.one_in(6) {
                moments.push((Moment::of(&db, &mut random), maps.clone()));
            }
            if moments.len() > 6 || random.one_in(10) && !moments.is_empty() {
                drop(moments.swap_remove(random.below(moments.len() as u64) as usize));
            }
            for (moment, maps) in &moments {
                let at = random.below(KEYSPACES as u64) as usize;
                let name = key(&mut random);
                let found = moment.get(&keyspaces[at], &name);
                assert_eq!(found.as_ref(), maps[at].get(&name), "{seed} {step} {at}");
            }
            if random.one_in(8)
                && let Some((moment, maps)) = moments.first()
            {
                for (at, (keyspace, map)) in keyspaces.iter().zip(maps).enumerate() {
                    assert!(moment.entries(keyspace) == *map, "{seed} {step} {at}");
                }
            }
        }
        drop(moments);
        assert_eq!(db.stats().snapshots, 0);
        assert!(db.verify().unwrap().is_clean());
    }
}

/// Takes snapshots, each of which has a batch that is in all keyspaces, whole.
fn read_moments(db: &Db, keyspaces: &[Keyspace], seed: u64) {
    let mut random = Random::new(seed);
    let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap());
    for _ in 0..400 * effort() {
        let before = keyspaces[0].get("k").unwrap();
        let moment = Moment::of(db, &mut random);
        let mut order: Vec<_> = (0..KEYSPACES).collect();
        random.shuffle(&mut order);
        let mut found = Vec::new();
        for at in &order {
            if random.one_in(20) {
                std::thread::yield_now();
            }
            found.push(moment.get(&keyspaces[*at], b"k").unwrap());
        }
        assert!(found.iter().all(|value| *value == found[0]), "{found:?}");
        let n = number(&found[0]);
        // It began after that was visible.
        assert!(n >= number(&before.unwrap()));
        let keyspace = &keyspaces[order[0]];
        let has = |n: u64| moment.get(keyspace, &n.to_be_bytes()).is_some();
        assert!(has(n) && !has(n + 1));
    }
}

/// A batch of all keyspaces is in a snapshot as a whole or not at all, also where its parts are
/// looked at while others are written.
#[test]
fn a_snapshot_beside_writers_is_one_moment() {
    let mut rig =
        Rig::new(Place::Memory, Sizes::Tiny).with(|options| options.background_threads(1));
    let keyspaces = keyspaces(&mut rig);
    let db = rig.db().clone();
    let write = |n: u64| {
        let mut batch = db.batch();
        for keyspace in &keyspaces {
            batch.put(keyspace, "k", n.to_le_bytes());
            batch.put(keyspace, n.to_be_bytes(), "");
        }
        let durability = match n % 8 {
            0 => Durability::Sync,
            _ => Durability::Buffered,
        };
        db.write(batch, durability).unwrap();
    };
    write(0);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 1.. {
                write(n);
                if is_over.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
        // Commits that concern one keyspace each, with numbers between those of the batches.
        scope.spawn(|| {
            for (n, keyspace) in (0_u64..).zip(keyspaces.iter().cycle()) {
                keyspace.put("beside", n.to_le_bytes()).unwrap();
                if is_over.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
        let readers: Vec<_> = (0..2)
            .map(|reader| {
                let (db, keyspaces) = (&db, &keyspaces);
                scope.spawn(move || read_moments(db, keyspaces, reader))
            })
            .collect();
        let ended: Vec<_> = readers.into_iter().map(|reader| reader.join()).collect();
        is_over.store(true, Ordering::Relaxed);
        for reader in ended {
            reader.unwrap();
        }
    });
    assert_eq!(db.stats().snapshots, 0);
}

#[test]
fn keyspaces_that_are_dropped_renamed_or_made_meanwhile() {
    let mut rig = Rig::new(Place::Memory, Sizes::Tiny);
    let keyspaces = keyspaces(&mut rig);
    let db = rig.db().clone();
    for keyspace in &keyspaces {
        keyspace.put("k", "before").unwrap();
    }
    let moments = || {
        [
            Moment::Snapshot(db.snapshot()),
            Moment::Transaction(db.transaction().unwrap()),
        ]
    };
    let before = moments();
    for keyspace in &keyspaces[..4] {
        keyspace.put("k", "after").unwrap();
        db.drop_keyspace(&keyspace.name()).unwrap();
    }
    for keyspace in &keyspaces[4..8] {
        db.drop_keyspace(&keyspace.name()).unwrap();
    }
    db.rename_keyspace("k8", "renamed").unwrap();
    // Another one of the name, on the other engine.
    let again = db.keyspace("k8", EngineKind::Lsm).unwrap();
    again.put("k", "other").unwrap();
    let after = moments();
    for moment in &before {
        for keyspace in &keyspaces[..9] {
            assert_eq!(moment.get(keyspace, b"k").as_deref(), Some(&b"before"[..]));
        }
        assert_eq!(moment.get(&again, b"k"), None);
        assert!(moment.entries(&again).is_empty());
    }
    let [Moment::Snapshot(snapshot), Moment::Transaction(tx)] = &after else {
        unreachable!("they were made so");
    };
    let is_gone = |error: Error| matches!(error, Error::NoSuchKeyspace { .. });
    assert!(is_gone(snapshot.get(&keyspaces[0], "k").unwrap_err()));
    assert!(is_gone(tx.get(&keyspaces[0], "k").unwrap_err()));
    for moment in &after {
        assert_eq!(moment.get(&again, b"k").as_deref(), Some(&b"other"[..]));
        assert_eq!(
            moment.get(&keyspaces[8], b"k").as_deref(),
            Some(&b"before"[..])
        );
    }
    // After closing, what has not been looked at yet is there as well.
    keyspaces[9].put("k", "after").unwrap();
    let late = db.snapshot();
    rig.close();
    drop(db.clone().close());
    for (at, expected) in [(9, "before"), (10, "before"), (11, "before")] {
        for moment in &before {
            assert_eq!(
                moment.get(&keyspaces[at], b"k").unwrap(),
                expected.as_bytes()
            );
        }
    }
    assert_eq!(late.get(&keyspaces[9], "k").unwrap().unwrap(), "after");
    assert_eq!(late.keyspace(&keyspaces[10]).len().unwrap(), 1);
}
