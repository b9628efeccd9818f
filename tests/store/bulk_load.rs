//! Bulk loads on both engines: what they promise, beside everything else that a keyspace does.

use std::collections::BTreeMap;
use std::sync::Arc;

use hedgerow::fs::SimFs;
use hedgerow::{Batch, Durability, EngineKind, Error, Keyspace, Options};
use support::random::{Random, Source};
use support::rig::{Place, Rig, Sizes, keyspace_options};
use support::sizes::single_threaded;

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

const ENGINES: [EngineKind; 2] = [EngineKind::Lsm, EngineKind::BTree];

/// Every engine, with small and with ordinary sizes, on a disk with and without maps.
fn everywhere(case: impl Fn(&mut Rig, EngineKind)) {
    for engine in ENGINES {
        for (place, sizes) in [
            (Place::Memory, Sizes::Tiny),
            (Place::Disk, Sizes::Tiny),
            (Place::Disk, Sizes::Default),
        ] {
            case(&mut Rig::new(place, sizes), engine);
        }
        let mut rig = Rig::new(Place::Disk, Sizes::Tiny)
            .with(|options| options.mmap_reads(false).mmap_log(false));
        case(&mut rig, engine);
    }
}

fn entries(kv: &Keyspace) -> Map {
    let owned = |entry: hedgerow::Result<(hedgerow::Value, hedgerow::Value)>| {
        let (key, value) = entry.expect("readable");
        (key.to_vec(), value.to_vec())
    };
    kv.iter().map(owned).collect()
}

#[track_caller]
fn assert_holds(kv: &Keyspace, expected: &Map) {
    let found = entries(kv);
    assert!(
        found == *expected,
        "{} entries where there should be {}",
        found.len(),
        expected.len()
    );
    let back: Vec<_> = kv
        .iter()
        .rev()
        .map(|entry| entry.expect("readable").0.to_vec())
        .collect();
    assert!(back.iter().rev().eq(expected.keys()), "backwards");
    for (key, value) in expected.iter().step_by(1 + expected.len() / 500) {
        assert_eq!(kv.get(key).unwrap().as_deref(), Some(&value[..]));
        let beside = [&key[..], b"\0"].concat();
        assert_eq!(
            kv.get(&beside).unwrap().is_some(),
            expected.contains_key(&beside)
        );
    }
}

#[track_caller]
fn assert_clean(kv: &Keyspace) {
    let report = kv.verify().expect("verification runs");
    assert!(report.is_clean(), "{:#?}", report.problems);
}

fn load(kv: &Keyspace, map: &Map) {
    let mut load = kv.bulk_load().expect("it begins");
    for (key, value) in map {
        load.put(key, value).expect("in order");
    }
    assert_eq!(load.len(), map.len() as u64);
    load.finish().expect("it ends");
}

/// After a kill the catalogue's file does not list a keyspace that is in the log only. The log has
/// no entry of a load, so its tables are all there is.
#[test]
fn a_load_into_a_keyspace_that_only_the_log_knows_outlives_a_kill() {
    for engine in ENGINES {
        let fs = SimFs::new();
        let options = |fs: &SimFs| single_threaded(Arc::new(fs.clone()));
        let db = options(&fs).open("/store").unwrap();
        let made = db.keyspace_with("a", keyspace_options(engine, Sizes::Tiny));
        let map = numbered(0..2000, "loaded");
        load(&made.unwrap(), &map);
        let killed = fs.killed();
        let db = options(&killed).open("/store").unwrap();
        let keyspace = db.existing_keyspace("a").unwrap().unwrap();
        assert_holds(&keyspace, &map);
        assert_clean(&keyspace);
    }
}

fn numbered(range: std::ops::Range<u64>, value: &str) -> Map {
    let entry = |n: u64| {
        let key = format!("key {n:08}").into_bytes();
        (key, format!("{value} {n}").into_bytes())
    };
    range.map(entry).collect()
}

/// Files of tables that the only keyspace has, whether they are a part of its tree or not.
fn tables_on_disk(rig: &Rig) -> u64 {
    let dir = rig.path().join("ks-00000001");
    let names = rig.fs().read_dir(&dir).expect("a directory");
    let tables = names.iter().filter(|name| name.starts_with("TABLE-"));
    tables.count() as u64
}

/// After every step: right at once, after opening again, and after compaction.
fn check_all(rig: &mut Rig, kv: Keyspace, engine: EngineKind, expected: &Map) {
    assert_holds(&kv, expected);
    assert_clean(&kv);
    drop(kv);
    rig.abandon();
    let kv = rig.keyspace("data", engine);
    assert_holds(&kv, expected);
    assert_clean(&kv);
    kv.flush().expect("it flushes");
    assert_clean(&kv);
    kv.compact().expect("it compacts");
    assert_holds(&kv, expected);
    assert_clean(&kv);
    drop(kv);
    rig.close();
    let kv = rig.keyspace("data", engine);
    assert_holds(&kv, expected);
    assert_clean(&kv);
}

#[test]
fn into_an_empty_keyspace() {
    everywhere(|rig, engine| {
        let map = numbered(0..5000, "loaded");
        let kv = rig.keyspace("data", engine);
        load(&kv, &map);
        check_all(rig, kv, engine, &map);
    });
}

#[test]
fn over_what_is_there_newer_wins_and_the_rest_stays() {
    everywhere(|rig, engine| {
        let kv = rig.keyspace("data", engine);
        let mut expected = numbered(0..3000, "old");
        for (at, (key, value)) in expected.iter().enumerate() {
            kv.put(key, value).unwrap();
            if at % 1000 == 500 {
                kv.flush().unwrap();
            }
        }
        kv.delete_range("key 00000100".."key 00000200").unwrap();
        expected.retain(|key, _| !(&b"key 00000100"[..]..&b"key 00000200"[..]).contains(&&key[..]));
        let mut map = numbered(1000..1500, "new");
        map.extend(numbered(2900..4000, "new"));
        map.extend(numbered(150..160, "new"));
        load(&kv, &map);
        expected.extend(map);
        assert_holds(&kv, &expected);
        // And once more, over a load.
        let map = numbered(1200..1300, "newest");
        load(&kv, &map);
        expected.extend(map);
        for n in [1250, 1251, 5000] {
            let (key, value) = (format!("key {n:08}"), "later".to_owned());
            kv.put(&key, &value).unwrap();
            expected.insert(key.into(), value.into());
        }
        kv.delete("key 00001260").unwrap();
        expected.remove(&b"key 00001260"[..]);
        check_all(rig, kv, engine, &expected);
    });
}

#[test]
fn nothing_shows_before_it_is_finished_nor_to_older_snapshots() {
    everywhere(|rig, engine| {
        let kv = rig.keyspace("data", engine);
        let old = numbered(0..500, "old");
        for (key, value) in &old {
            kv.put(key, value).unwrap();
        }
        let before = kv.snapshot();
        let scan_before = kv.iter();
        let new = numbered(250..1500, "new");
        let mut unfinished = kv.bulk_load().unwrap();
        for (key, value) in &new {
            unfinished.put(key, value).unwrap();
        }
        assert_holds(&kv, &old);
        kv.put("key 00000251", "in the meantime").unwrap();
        kv.put("other", "in the meantime").unwrap();
        let between = kv.snapshot();
        unfinished.finish().unwrap();
        let mut all = old.clone();
        all.extend(new);
        all.insert(b"other".to_vec(), b"in the meantime".to_vec());
        assert_holds(&kv, &all);
        for _ in 0..2 {
            assert_eq!(before.iter().count(), 500);
            assert_eq!(before.get("key 00000300").unwrap().unwrap(), "old 300");
            assert!(before.get("key 00000700").unwrap().is_none());
            assert!(before.range("key 00000499"..).count() == 1);
            assert!(before.iter().next_back().unwrap().unwrap().0 == "key 00000499");
            let keys = ["key 00000001", "key 00000700"];
            let found = before.multi_get(&keys).unwrap();
            assert!(found[0].is_some() && found[1].is_none());
            let met = between.get("key 00000251").unwrap().unwrap();
            assert_eq!(met, "in the meantime");
            assert_eq!(between.iter().count(), 501);
            kv.flush().unwrap();
            kv.compact().unwrap();
        }
        assert_eq!(scan_before.count(), 500);
        drop((before, between));
        check_all(rig, kv, engine, &all);
    });
}

/// Its tables lie below level 0, where numbers are looked at entry by entry.
#[test]
fn older_snapshots_see_nothing_of_a_load_that_overlaps_nothing() {
    everywhere(|rig, engine| {
        let kv = rig.keyspace("data", engine);
        kv.put("a", "first").unwrap();
        let before = kv.snapshot();
        let mut load = kv.bulk_load().unwrap();
        for (key, value) in &numbered(0..300, "new") {
            load.put(key, value).unwrap();
        }
        load.finish().unwrap();
        assert!(before.get("key 00000007").unwrap().is_none());
        assert!(!before.contains_key("key 00000299").unwrap());
        let found = before.multi_get(&["a", "key 00000008"]).unwrap();
        assert!(found[0].is_some() && found[1].is_none());
        assert_eq!(before.iter().count(), 1);
        assert_eq!(before.iter().rev().count(), 1);
        assert_eq!(kv.iter().count(), 301);
    });
}

#[test]
fn what_is_wrong_is_refused_and_left_out() {
    everywhere(|rig, engine| {
        let kv = rig.keyspace("data", engine);
        let mut load = kv.bulk_load().unwrap();
        assert!(load.is_empty());
        load.put("", "the empty key").unwrap();
        load.put("b", "").unwrap();
        for (key, what) in [
            ("b", "is there twice"),
            ("a", "comes before the last one, \"b\""),
        ] {
            match load.put(key, "x") {
                Err(Error::InvalidArgument { what: found, .. }) => {
                    assert!(found.contains(what), "{found}");
                }
                other => panic!("{other:?}"),
            }
        }
        let long = vec![b'z'; hedgerow::MAX_KEY_LEN_BYTES + 1];
        assert!(matches!(
            load.put(&long, ""),
            Err(Error::InvalidArgument { .. })
        ));
        load.put(&long[1..], "the longest").unwrap();
        assert_eq!(load.len(), 3);
        load.finish().unwrap();
        let expected: Map = [
            (b"".to_vec(), b"the empty key".to_vec()),
            (b"b".to_vec(), Vec::new()),
            (long[1..].to_vec(), b"the longest".to_vec()),
        ]
        .into();
        // Nothing at all is a load, too.
        let last = kv.bulk_load().unwrap().finish().unwrap();
        assert_eq!(kv.bulk_load().unwrap().finish().unwrap(), last);
        check_all(rig, kv, engine, &expected);
    });
}

#[test]
fn a_dropped_load_leaves_nothing() {
    everywhere(|rig, engine| {
        let kv = rig.keyspace("data", engine);
        let map = numbered(0..2000, "kept");
        load(&kv, &map);
        kv.flush().unwrap();
        kv.compact().unwrap();
        let before = kv.stats().disk_bytes;
        for len in [0, 1, 3000] {
            let mut load = kv.bulk_load().unwrap();
            for (key, value) in &numbered(1000..1000 + len, "lost") {
                load.put(key, value).unwrap();
            }
            kv.put("beside", "x").unwrap();
            kv.flush().unwrap();
            assert_clean(&kv);
            drop(load);
            kv.delete("beside").unwrap();
        }
        kv.compact().unwrap();
        assert!(kv.stats().disk_bytes <= before + before / 4);
        if engine == EngineKind::Lsm {
            rig.db().wait_idle().unwrap();
            assert_eq!(tables_on_disk(rig), kv.stats().files);
        }
        check_all(rig, kv, engine, &map);
    });
}

#[test]
fn closed_dropped_and_read_only_stores_refuse() {
    for engine in ENGINES {
        let mut rig = Rig::new(Place::Disk, Sizes::Tiny);
        let kv = rig.keyspace("data", engine);
        let other = rig.keyspace("other", engine);
        let mut unfinished = kv.bulk_load().unwrap();
        unfinished.put("a", "b").unwrap();
        rig.db().drop_keyspace("data").unwrap();
        assert!(matches!(
            unfinished.put("c", "d"),
            Err(Error::NoSuchKeyspace { .. })
        ));
        assert!(matches!(
            unfinished.finish(),
            Err(Error::NoSuchKeyspace { .. })
        ));
        assert!(matches!(kv.bulk_load(), Err(Error::NoSuchKeyspace { .. })));
        let mut unfinished = other.bulk_load().unwrap();
        unfinished.put("a", "b").unwrap();
        rig.db().clone().close().unwrap();
        assert!(matches!(unfinished.put("c", "d"), Err(Error::Closed)));
        assert!(matches!(unfinished.finish(), Err(Error::Closed)));
        assert!(matches!(other.bulk_load(), Err(Error::Closed)));
        drop((kv, other));
        rig.abandon();
        let db = Options::new().read_only(true).open(rig.path()).unwrap();
        let other = db.existing_keyspace("other").unwrap().unwrap();
        assert!(matches!(other.bulk_load(), Err(Error::ReadOnly)));
        assert!(other.is_empty().unwrap());
    }
}

/// A load that is in the log only is there for a store that is opened for reading.
#[test]
fn a_read_only_store_shows_a_load_of_the_log() {
    for engine in ENGINES {
        let mut rig = Rig::new(Place::Memory, Sizes::Tiny).with(|o| o.background_threads(0));
        let kv = rig.keyspace("data", engine);
        let map = numbered(0..2000, "loaded");
        load(&kv, &map);
        drop(kv);
        let fs = rig.mem().killed();
        let options = Options::new().read_only(true).fs(std::sync::Arc::new(fs));
        let db = options.open(rig.path()).unwrap();
        let kv = db.existing_keyspace("data").unwrap().unwrap();
        assert_holds(&kv, &map);
        assert_clean(&kv);
    }
}

#[test]
fn values_of_every_size() {
    everywhere(|rig, engine| {
        let kv = rig.keyspace("data", engine);
        let mut random = Random::new(7);
        let mut map = Map::new();
        for n in 0..400_u64 {
            let len = match n % 7 {
                0 => 0,
                1 => random.below(10),
                2 => random.below(300),
                3 => random.below(2000),
                4 => random.below(9000),
                5 if n % 5 == 0 => random.below(200_000),
                _ => random.below(60),
            };
            let mut key = format!("{:04}", n * 17 % 400).into_bytes();
            key.resize(
                key.len() + (random.below(40) * random.below(20)) as usize,
                b'k',
            );
            map.insert(key, random.bytes(len as usize));
        }
        load(&kv, &map);
        assert_holds(&kv, &map);
        // Changed by ordinary commits, and loaded over in part.
        for (at, (key, value)) in map.iter_mut().enumerate() {
            if at % 9 == 0 {
                *value = format!("changed {at}").into_bytes();
                kv.put(key, &*value).unwrap();
            }
        }
        let over: Map = map
            .keys()
            .step_by(3)
            .map(|key| (key.clone(), random.bytes(5000)))
            .collect();
        load(&kv, &over);
        map.extend(over);
        check_all(rig, kv, engine, &map);
    });
}

/// Random loads, commits, flushes and compactions agree with a map.
#[test]
fn random_loads_between_commits_agree_with_a_map() {
    for seed in 0..2 * support::rig::effort() {
        everywhere(|rig, engine| {
            let mut random = Random::new(seed);
            let mut kv = rig.keyspace("data", engine);
            let mut expected = Map::new();
            for round in 0..12 {
                let mut map = Map::new();
                let (start, spread) = (random.below(2000), 1 + random.below(20));
                for n in 0..random.below(400) {
                    let key = format!("{:06}", start + n * spread);
                    let len = random.below(200) as usize;
                    map.insert(key.into_bytes(), random.bytes(len));
                }
                let mut unfinished = kv.bulk_load().unwrap();
                for (key, value) in &map {
                    unfinished.put(key, value).unwrap();
                }
                for _ in 0..random.below(60) {
                    let key = format!("{:06}", random.below(9000)).into_bytes();
                    match random.below(5) {
                        0 => {
                            kv.delete(&key).unwrap();
                            expected.remove(&key);
                        }
                        1 => {
                            let end = [&key[..], b"5"].concat();
                            kv.delete_range(&key[..]..&end[..]).unwrap();
                            expected.retain(|other, _| *other < key || *other >= end);
                        }
                        _ => {
                            let value = random.bytes(40);
                            kv.put(&key, &value).unwrap();
                            expected.insert(key, value);
                        }
                    }
                }
                if random.one_in(6) {
                    drop(unfinished);
                } else {
                    unfinished.finish().unwrap();
                    expected.extend(map);
                }
                match random.below(6) {
                    0 => kv.flush().unwrap(),
                    1 => kv.compact().unwrap(),
                    2 => {
                        drop(kv);
                        rig.abandon();
                        kv = rig.keyspace("data", engine);
                    }
                    _ => {}
                }
                let found = entries(&kv);
                assert!(found == expected, "{engine} seed {seed} round {round}");
                assert_clean(&kv);
            }
            check_all(rig, kv, engine, &expected);
        });
    }
}

/// Values of a load stay where they are, and those that lie apart are replaced by them.
#[test]
fn beside_values_that_are_stored_apart() {
    let mut rig = Rig::new(Place::Disk, Sizes::Default);
    let options = hedgerow::KeyspaceOptions::new(EngineKind::Lsm).value_threshold_bytes(1024);
    let kv = rig.db().keyspace_with("data", options).unwrap();
    let mut expected = Map::new();
    for n in 0..200_u64 {
        let key = format!("{n:04}").into_bytes();
        let value = vec![n as u8; 3000];
        kv.put(&key, &value).unwrap();
        expected.insert(key, value);
    }
    kv.flush().unwrap();
    let new: Map = (100..300_u64)
        .map(|n| (format!("{n:04}").into_bytes(), vec![!n as u8; 4000]))
        .collect();
    load(&kv, &new);
    expected.extend(new);
    check_all(&mut rig, kv, EngineKind::Lsm, &expected);
}

/// Threads write and read while loads are finished; every load is seen whole or not at all.
#[test]
fn readers_see_a_load_whole_beside_writers() {
    use std::sync::atomic::{AtomicBool, Ordering};
    for engine in ENGINES {
        let mut rig = Rig::new(Place::Disk, Sizes::Tiny);
        let kv = rig.keyspace("data", engine);
        let elsewhere = rig.keyspace("elsewhere", engine);
        load(&kv, &numbered(0..500, "0 of"));
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let reader = || {
                let mut seen = 0;
                while !done.load(Ordering::Relaxed) {
                    let mut rounds: Vec<u64> = Vec::new();
                    for entry in kv.range("key 00000000".."key 00000500") {
                        let value = entry.unwrap().1;
                        let text = std::str::from_utf8(&value).unwrap();
                        rounds.push(text.split(' ').next().unwrap().parse().unwrap());
                    }
                    assert_eq!(rounds.len(), 500);
                    assert!(rounds.iter().all(|round| *round == rounds[0]), "{rounds:?}");
                    assert!(rounds[0] >= seen, "went back");
                    seen = rounds[0];
                    let keys = ["key 00000001", "key 00000499"];
                    let found = kv.multi_get(&keys).unwrap();
                    let of = |at: usize| {
                        let value = found[at].clone().unwrap();
                        String::from_utf8_lossy(&value)
                            .split(' ')
                            .next()
                            .unwrap()
                            .to_owned()
                    };
                    assert_eq!(of(0), of(1));
                    assert!(of(0).parse::<u64>().unwrap() >= seen);
                }
            };
            let writer = || {
                let mut n = 0_u64;
                while !done.load(Ordering::Relaxed) {
                    n += 1;
                    let durability = if n.is_multiple_of(50) {
                        Durability::Sync
                    } else {
                        Durability::Buffered
                    };
                    let kv = kv.with_durability(durability);
                    kv.put(format!("mine {:03}", n % 400), n.to_string())
                        .unwrap();
                    let count = |old: Option<&[u8]>| {
                        let old =
                            old.map_or(0, |old| std::str::from_utf8(old).unwrap().parse().unwrap());
                        Some((old + 1_u64).to_string().into_bytes())
                    };
                    kv.update("counter", count).unwrap();
                    elsewhere.put("x", n.to_string()).unwrap();
                }
                n
            };
            let readers = [scope.spawn(reader), scope.spawn(reader)];
            let writer = scope.spawn(writer);
            for round in 1..30 {
                load(&kv, &numbered(0..500, &format!("{round} of")));
            }
            done.store(true, Ordering::Relaxed);
            for reader in readers {
                reader.join().unwrap();
            }
            let n = writer.join().unwrap();
            assert_eq!(kv.get("counter").unwrap().unwrap(), n.to_string().as_str());
        });
        assert_clean(&kv);
        // What came before a load is persisted with it.
        let all = entries(&kv);
        drop((kv, elsewhere));
        rig.abandon();
        let kv = rig.keyspace("data", engine);
        assert!(entries(&kv) == all, "something was lost");
    }
}

/// What was read before a load is finished, within its range, has changed.
#[test]
fn a_load_is_a_conflict_for_what_was_read_before() {
    for engine in ENGINES {
        let mut rig = Rig::new(Place::Memory, Sizes::Tiny);
        let kv = rig.keyspace("data", engine);
        kv.put("b", "1").unwrap();
        let mut calls = 0;
        kv.update("b", |old| {
            calls += 1;
            if calls == 1 {
                load(
                    &kv,
                    &[
                        (b"a".to_vec(), b"".to_vec()),
                        (b"b".to_vec(), b"5".to_vec()),
                    ]
                    .into(),
                );
            }
            Some([old.unwrap(), b"+"].concat())
        })
        .unwrap();
        assert_eq!((calls, kv.get("b").unwrap().unwrap()), (2, "5+".into()));
    }
}

/// Tables of each level of an LSM tree.
fn files(kv: &Keyspace) -> Vec<u64> {
    kv.stats().levels.iter().map(|level| level.files).collect()
}

#[test]
fn tables_go_as_deep_as_nothing_older_is_in_the_way() {
    let mut rig = Rig::new(Place::Memory, Sizes::Default).with(|o| o.background_threads(0));
    let kv = rig.keyspace("data", EngineKind::Lsm);
    load(&kv, &numbered(0..1000, "first"));
    assert_eq!(files(&kv), [0, 0, 0, 0, 0, 0, 1]);
    load(&kv, &numbered(2000..3000, "beside it"));
    assert_eq!(files(&kv), [0, 0, 0, 0, 0, 0, 2]);
    load(&kv, &numbered(500..1500, "over the first"));
    assert_eq!(files(&kv), [0, 0, 0, 0, 0, 1, 2]);
    kv.put("key 00000700", "a commit").unwrap();
    load(&kv, &numbered(600..800, "over the commit"));
    assert_eq!(files(&kv), [2, 0, 0, 0, 0, 1, 2]);
    load(&kv, &numbered(1500..1600, "apart from it"));
    assert_eq!(files(&kv), [2, 0, 0, 0, 0, 1, 3]);
    assert_eq!(
        kv.get("key 00000700").unwrap().unwrap(),
        "over the commit 700"
    );
    // The files hold all of it, and the log nothing that they lack.
    kv.flush().unwrap();
    assert_clean(&kv);
    let before = entries(&kv);
    drop(kv);
    rig.abandon();
    let kv = rig.keyspace("data", EngineKind::Lsm);
    assert_eq!(files(&kv), [2, 0, 0, 0, 0, 1, 3]);
    assert!(entries(&kv) == before);
}

/// They stayed for pages that the map did not have yet. Another load put another leaf there, with
/// the same fences, and the next put freed as many pages as the first had taken.
#[test]
fn what_a_dropped_load_knew_of_its_leaves_is_void() {
    let mut rig = Rig::new(Place::Disk, Sizes::Default).with(|o| o.background_threads(0));
    let kv = rig.keyspace("data", EngineKind::BTree);
    let (large, small) = (vec![7_u8; 20_000], [1_u8; 16]);
    // So long that the leaf before it ends at "z", whatever it holds.
    let end = vec![b'z'; 60_001];
    let key = |n: u32| format!("key {n:08}");
    let begin = |count: u32, large_at: u32| {
        let mut load = kv.bulk_load().unwrap();
        for n in 0..count {
            let value = match n == large_at {
                true => &large[..],
                false => &small[..],
            };
            load.put(key(n), value).unwrap();
        }
        load.put(&end, small).unwrap();
        load
    };
    drop(begin(768, 5));
    begin(398, 390).finish().unwrap();
    kv.flush().unwrap();
    assert_clean(&kv);
    kv.put(key(391), small).unwrap();
    kv.flush().unwrap();
    assert_clean(&kv);
    for n in 0..10_u8 {
        kv.put(key(0), [n; 16]).unwrap();
        kv.flush().unwrap();
    }
    assert_eq!(kv.get(&end).unwrap().as_deref(), Some(&small[..]));
    assert_eq!(kv.get(key(390)).unwrap().as_deref(), Some(&large[..]));
    assert_clean(&kv);
}

/// The checkpoint that came first thought that the tree had none, and lost their pages for good.
#[test]
fn large_values_of_a_load_that_is_deleted_at_once_are_freed() {
    let mut rig = Rig::new(Place::Disk, Sizes::Default).with(|o| o.background_threads(0));
    let kv = rig.keyspace("data", EngineKind::BTree);
    let map: Map = (0..100_u8)
        .map(|n| (vec![b'k', n], vec![n; 20_000]))
        .collect();
    load(&kv, &map);
    kv.delete_range(..).unwrap();
    kv.flush().unwrap();
    assert_clean(&kv);
    assert_holds(&kv, &Map::new());
}

/// The engine took the first number of such a batch for its last: the load behind it could not be
/// replayed, and the store did not open any more.
#[test]
fn a_load_behind_a_large_batch_of_which_only_ranges_are_left_is_recovered() {
    for engine in ENGINES {
        let fs = SimFs::new();
        let open = |fs: &SimFs| single_threaded(Arc::new(fs.clone())).open("/store");
        let db = open(&fs).unwrap();
        let options = keyspace_options(engine, Sizes::Tiny);
        let kv = db.keyspace_with("data", options).unwrap();
        let mut batch = Batch::new();
        for n in 0..10 {
            batch.put(format!("{n}"), "gone");
        }
        batch.delete_range(..);
        kv.write(batch).unwrap();
        let loaded = numbered(0..20, "loaded");
        load(&kv, &loaded);
        let killed = fs.killed();
        drop((kv, db));
        let db = open(&killed).unwrap();
        let kv = db.existing_keyspace("data").unwrap().unwrap();
        assert_holds(&kv, &loaded);
        assert_clean(&kv);
    }
}
