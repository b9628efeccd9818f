//! Values that are stored once, apart from their keys: docs/values.md.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hedgerow::fs::{Fault, FaultFs, FaultPlan, Fs, OpKind, OpenMode, SimFs};
use hedgerow::{Db, Durability, EngineKind, Keyspace, KeyspaceOptions, MemtableKind, Options};
use support::random::{Random, Source};
use support::sizes::{Sizes, keyspace_options, single_threaded};

use super::both_engines::on_both_engines;

pub(crate) type Map = BTreeMap<Vec<u8>, Vec<u8>>;

pub(crate) const STORE: &str = "/store";
const THRESHOLD: usize = 100;
const SEGMENT: u64 = 64 << 10;

on_both_engines! {
    values_around_the_threshold_agree_with_a_map,
    a_part_of_a_value_is_what_the_whole_has_there,
    segments_with_values_leave_the_log_and_go_when_nothing_refers_to_them,
    the_values_of_a_dropped_keyspace_go,
    a_scan_of_a_dropped_keyspace_keeps_values_that_no_flush_has_seen,
    a_snapshot_and_a_scan_keep_the_values_that_they_see,
    space_is_bounded_under_steady_overwriting,
    collection_beside_writers_changes_nothing,
    that_a_value_is_moved_is_no_conflict,
    a_changed_threshold_concerns_what_is_written_from_then_on,
    damaged_and_missing_value_files_are_named,
    damage_ends_the_collection_of_its_file_and_of_no_other,
    a_value_whose_file_cannot_be_mapped_is_read,
    wait_idle_tells_of_a_collection_that_fails,
    a_keyspace_that_takes_no_writes_stops_no_collection_of_others,
    a_keyspace_that_cannot_be_read_stops_no_collection_of_others,
    a_dropped_keyspace_with_many_files_does_not_keep_the_log_waiting,
    files_that_only_have_the_name_of_a_value_file_stay,
    names_and_lengths_that_cannot_be_right_are_reported,
}

fn keyspace_of(db: &Db, name: &str, engine: EngineKind, threshold: u32) -> Keyspace {
    let options = keyspace_options(engine, Sizes::Tiny);
    let keyspace = db.keyspace_with(name, options.value_threshold_bytes(threshold));
    keyspace.unwrap()
}

pub(crate) fn options(fs: &SimFs) -> Options {
    single_threaded(Arc::new(fs.clone())).durability(Durability::Buffered)
}

fn open(fs: &SimFs, engine: EngineKind) -> (Db, Keyspace) {
    let db = options(fs).open(STORE).unwrap();
    let keyspace = keyspace_of(&db, "a", engine, THRESHOLD as u32);
    (db, keyspace)
}

/// Names in the log's directory with that ending.
pub(crate) fn files(fs: &dyn Fs, ending: &str) -> Vec<String> {
    let mut names = fs.read_dir(&Path::new(STORE).join("wal")).unwrap();
    names.retain(|name| name.ends_with(ending));
    names
}

/// Everything that is due in the background.
fn settle(db: &Db) {
    db.wait_idle().unwrap();
}

#[track_caller]
pub(crate) fn check(keyspace: &Keyspace, expected: &Map) {
    let as_pairs = |entries: Vec<_>| -> Vec<(Vec<u8>, Vec<u8>)> {
        let entries = entries.into_iter().map(Result::unwrap);
        entries
            .map(|(key, value): (hedgerow::Value, hedgerow::Value)| (key.to_vec(), value.to_vec()))
            .collect()
    };
    let wanted: Vec<_> = expected.clone().into_iter().collect();
    assert!(as_pairs(keyspace.iter().collect()) == wanted, "forward");
    let mut backward = as_pairs(keyspace.iter().rev().collect());
    backward.reverse();
    assert!(backward == wanted, "backward");
    let keys: Vec<_> = expected.keys().collect();
    let values = keyspace.multi_get(&keys).unwrap();
    for (key, value) in keys.iter().zip(values) {
        let wanted = &expected[*key];
        assert!(value.unwrap() == *wanted, "multi_get");
        assert!(keyspace.get(key).unwrap().unwrap() == *wanted, "get");
        assert!(keyspace.contains_key(key).unwrap());
    }
    assert_eq!(keyspace.len().unwrap(), expected.len() as u64);
}

/// A value whose length is around the threshold, or far from it.
fn draw_value(random: &mut Random) -> Vec<u8> {
    let len = match random.below(8) {
        0 => THRESHOLD - 1,
        1 => THRESHOLD,
        2 => THRESHOLD + 1,
        3 => random.below(20) as usize,
        4 => 3000 + random.below(3000) as usize,
        _ => random.below(400) as usize,
    };
    random.bytes(len)
}

fn values_around_the_threshold_agree_with_a_map(engine: EngineKind) {
    for (seed, memtable) in [(1, MemtableKind::BTree), (2, MemtableKind::SkipList)] {
        let fs = match seed {
            1 => SimFs::new(),
            _ => SimFs::with_maps(),
        };
        let mut random = Random::new(seed);
        let (mut db, mut keyspace) = open(&fs, engine);
        if engine == EngineKind::Lsm {
            let asked = KeyspaceOptions::new(engine).memtable(memtable);
            db.keyspace_with("a", asked).unwrap();
        }
        let mut map = Map::new();
        let mut held = None;
        for step in 0..1500 {
            let key = random.below(120).to_be_bytes().to_vec();
            match random.below(40) {
                0..28 => {
                    let value = draw_value(&mut random);
                    keyspace.put(&key, &value).unwrap();
                    map.insert(key, value);
                }
                28..32 => {
                    keyspace.delete(&key).unwrap();
                    map.remove(&key);
                }
                32 => {
                    let end = (random.below(120) + 1).to_be_bytes().to_vec();
                    keyspace.delete_range(key.clone()..end.clone()).unwrap();
                    map.retain(|other, _| *other < key || *other >= end);
                }
                33 => keyspace.flush().unwrap(),
                34 if step % 5 == 0 => keyspace.compact().unwrap(),
                35 => held = Some((keyspace.snapshot(), map.clone())),
                36 => {
                    if let Some((snapshot, then)) = held.take() {
                        let entries: Vec<_> = snapshot.iter().map(Result::unwrap).collect();
                        assert_eq!(entries.len(), then.len());
                        for (key, value) in entries {
                            assert!(then[&*key] == *value);
                        }
                    }
                }
                37 => {
                    held = None;
                    drop(keyspace);
                    match random.one_in(2) {
                        true => db.close().unwrap(),
                        false => drop(db),
                    }
                    (db, keyspace) = open(&fs, engine);
                }
                _ => {
                    db.run_background_once().unwrap();
                }
            }
            if step % 50 == 0 {
                check(&keyspace, &map);
            }
        }
        check(&keyspace, &map);
        settle(&db);
        assert!(db.verify().unwrap().is_clean());
        check(&keyspace, &map);
    }
}

fn a_part_of_a_value_is_what_the_whole_has_there(engine: EngineKind) {
    let fs = SimFs::new();
    let (_db, keyspace) = open(&fs, engine);
    let mut random = Random::new(3);
    for len in [0, 1, THRESHOLD, 65_536, 65_537, 200_000] {
        let value = random.bytes(len);
        keyspace.put("k", &value).unwrap();
        for _ in 0..50 {
            let start = random.below(len as u64 + 3) as usize;
            let end = start + random.below(70_000) as usize;
            let wanted = &value[start.min(len)..end.min(len).max(start.min(len))];
            assert!(keyspace.get_range("k", start..end).unwrap().unwrap() == wanted);
            let snapshot = keyspace.snapshot();
            assert!(snapshot.get_range("k", start..).unwrap().unwrap() == value[start.min(len)..]);
        }
        assert!(keyspace.get_range("k", ..).unwrap().unwrap() == value);
    }
    assert!(keyspace.get_range("absent", ..).unwrap().is_none());
}

/// Fills several segments, and lets the log go.
fn fill(db: &Db, keyspace: &Keyspace, map: &mut Map, random: &mut Random, rounds: u64) {
    for n in 0..rounds * 40 {
        let key = (n % 200).to_be_bytes().to_vec();
        let value = random.bytes(2000);
        keyspace.put(&key, &value).unwrap();
        map.insert(key, value);
        if n % 40 == 39 {
            settle(db);
        }
    }
    keyspace.flush().unwrap();
    settle(db);
}

fn segments_with_values_leave_the_log_and_go_when_nothing_refers_to_them(engine: EngineKind) {
    let fs = SimFs::new();
    let (db, keyspace) = open(&fs, engine);
    let (mut map, mut random) = (Map::new(), Random::new(4));
    fill(&db, &keyspace, &mut map, &mut random, 5);
    let stats = db.stats();
    assert!(stats.value_files >= 3, "{stats:?}");
    assert_eq!(stats.value_files, files(&fs, ".val").len() as u64);
    assert!(stats.value_live_bytes > 0 && stats.value_live_bytes <= stats.value_disk_bytes);
    let inside = db.inspect(hedgerow::InspectDetail::Levels).unwrap();
    assert!(inside.to_string().contains("value_file"), "{inside}");
    check(&keyspace, &map);
    drop(keyspace);
    db.close().unwrap();

    let (db, keyspace) = open(&fs, engine);
    check(&keyspace, &map);
    assert!(db.verify().unwrap().is_clean());
    let other = keyspace_of(&db, "b", engine, THRESHOLD as u32);
    other.put("k", vec![1; 5000]).unwrap();
    keyspace.clear().unwrap();
    keyspace.compact().unwrap();
    settle(&db);
    assert_eq!(
        files(&fs, ".val"),
        [""; 0],
        "all of them were of this keyspace"
    );
    assert!(other.get("k").unwrap().unwrap() == [1; 5000][..]);
}

fn the_values_of_a_dropped_keyspace_go(engine: EngineKind) {
    let fs = SimFs::new();
    let (db, keyspace) = open(&fs, engine);
    let (mut map, mut random) = (Map::new(), Random::new(5));
    fill(&db, &keyspace, &mut map, &mut random, 5);
    assert!(!files(&fs, ".val").is_empty());
    db.drop_keyspace("a").unwrap();
    drop(keyspace);
    settle(&db);
    assert_eq!(files(&fs, ".val"), [""; 0]);
}

fn a_scan_of_a_dropped_keyspace_keeps_values_that_no_flush_has_seen(engine: EngineKind) {
    let fs = SimFs::new();
    let (db, keyspace) = open(&fs, engine);
    let (mut map, mut random) = (Map::new(), Random::new(15));
    for n in 0..80_u64 {
        let value = random.bytes(2000);
        keyspace.put(n.to_be_bytes(), &value).unwrap();
        map.insert(n.to_be_bytes().to_vec(), value);
    }
    assert_eq!(keyspace.stats().flushes, 0);
    let mut scan = keyspace.iter();
    let first = scan.next().unwrap().unwrap();
    db.drop_keyspace("a").unwrap();
    drop(keyspace);
    // The log does without its first segments, which only the scan needs.
    let other = keyspace_of(&db, "b", engine, THRESHOLD as u32);
    fill(&db, &other, &mut Map::new(), &mut random, 5);
    let seen: Map = std::iter::once(first)
        .chain(scan.by_ref().map(Result::unwrap))
        .map(|(key, value)| (key.to_vec(), value.to_vec()))
        .collect();
    assert!(seen == map);
    drop(scan);
    other.clear().unwrap();
    other.compact().unwrap();
    settle(&db);
    assert_eq!(files(&fs, ".val"), [""; 0]);
}

fn a_snapshot_and_a_scan_keep_the_values_that_they_see(engine: EngineKind) {
    let fs = SimFs::new();
    let (db, keyspace) = open(&fs, engine);
    let (mut map, mut random) = (Map::new(), Random::new(6));
    fill(&db, &keyspace, &mut map, &mut random, 5);
    let then = map.clone();
    let snapshot = keyspace.snapshot();
    let mut scan = keyspace.iter();
    let first = scan.next().unwrap().unwrap();
    for _ in 0..3 {
        fill(&db, &keyspace, &mut map, &mut random, 5);
        keyspace.compact().unwrap();
        settle(&db);
    }
    for (key, value) in &then {
        assert!(snapshot.get(key).unwrap().unwrap() == *value);
    }
    let rest: Vec<_> = scan.map(Result::unwrap).collect();
    let seen: Map = std::iter::once(first)
        .chain(rest)
        .map(|(key, value)| (key.to_vec(), value.to_vec()))
        .collect();
    assert!(seen == then);
    check(&keyspace, &map);
    let before = files(&fs, ".val").len();
    drop(snapshot);
    fill(&db, &keyspace, &mut map, &mut random, 5);
    keyspace.compact().unwrap();
    settle(&db);
    assert!(files(&fs, ".val").len() < before);
    check(&keyspace, &map);
}

/// Keys that are never overwritten lie between others that are: without collection each of them
/// keeps a whole file.
fn space_is_bounded_under_steady_overwriting(engine: EngineKind) {
    let fs = SimFs::new();
    let (db, keyspace) = open(&fs, engine);
    let (mut map, mut random) = (Map::new(), Random::new(7));
    let mut live = 0;
    for n in 0..3000_u64 {
        let key = match n % 25 {
            0 => (1000 + n).to_be_bytes().to_vec(),
            _ => random.below(100).to_be_bytes().to_vec(),
        };
        let value = random.bytes(1500);
        live += if map.contains_key(&key) { 0 } else { 1500 };
        keyspace.put(&key, &value).unwrap();
        map.insert(key, value);
        if n % 20 == 0 {
            settle(&db);
        }
        if n % 500 == 499 {
            settle(&db);
            let stats = db.stats();
            let allowed = live * 3 / 2 + 3 * SEGMENT;
            assert!(
                stats.value_disk_bytes <= allowed,
                "{live} bytes live in {} bytes of {} files",
                stats.value_disk_bytes,
                stats.value_files
            );
        }
    }
    check(&keyspace, &map);
    assert!(db.verify().unwrap().is_clean());
    drop(keyspace);
    drop(db);
    let (_db, keyspace) = open(&fs, engine);
    check(&keyspace, &map);
}

/// A collection wrote what a transaction had read, which failed, though it was the same value.
fn that_a_value_is_moved_is_no_conflict(engine: EngineKind) {
    let (db, keyspace) = open(&SimFs::new(), engine);
    let mut random = Random::new(8);
    let mut kept = Vec::new();
    for n in 0..1500_u64 {
        let key = match n % 25 {
            0 => (1000 + n).to_be_bytes(),
            _ => random.below(100).to_be_bytes(),
        };
        kept.extend((n % 25 == 0).then_some(key));
        keyspace.put(key, random.bytes(1500)).unwrap();
        if n % 500 == 0 {
            keyspace.flush().unwrap();
        }
    }
    let tx = db.transaction().unwrap();
    for key in &kept {
        assert!(tx.get(&keyspace, key).unwrap().is_some());
    }
    tx.put(&keyspace, "own", "value").unwrap();
    let commits = db.stats().commits;
    settle(&db);
    assert!(db.stats().commits > commits, "nothing was collected");
    tx.commit().unwrap();
}

/// A value that is moved must not come back over a newer one, nor over a delete.
fn collection_beside_writers_changes_nothing(engine: EngineKind) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let options = support::sizes::tiny(Options::new())
        .durability(Durability::Buffered)
        .value_space_amplification(1.1);
    let db = options.clone().open(&path).unwrap();
    let keyspace = keyspace_of(&db, "a", engine, THRESHOLD as u32);
    let stop = AtomicBool::new(false);
    let maps = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..2_u64)
            .map(|writer| {
                let keyspace = keyspace.clone();
                scope.spawn(move || {
                    let (mut map, mut random) = (Map::new(), Random::new(writer));
                    for n in 0..4000_u64 {
                        let number = match n % 20 {
                            0 => 1000 + n,
                            _ => random.below(60),
                        };
                        let key = [writer.to_be_bytes(), number.to_be_bytes()].concat();
                        match random.one_in(8) {
                            true => {
                                keyspace.delete(&key).unwrap();
                                map.remove(&key);
                            }
                            false => {
                                let value = random.bytes(900);
                                keyspace.put(&key, &value).unwrap();
                                map.insert(key, value);
                            }
                        }
                    }
                    map
                })
            })
            .collect();
        let reader = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                for entry in &keyspace {
                    entry.unwrap();
                }
            }
        });
        let maps: Vec<Map> = writers.into_iter().map(|it| it.join().unwrap()).collect();
        stop.store(true, Ordering::Relaxed);
        reader.join().unwrap();
        maps
    });
    let map: Map = maps.into_iter().flatten().collect();
    db.wait_idle().unwrap();
    check(&keyspace, &map);
    assert!(db.verify().unwrap().is_clean());
    drop(keyspace);
    db.close().unwrap();
    let db = options.open(&path).unwrap();
    check(&keyspace_of(&db, "a", engine, THRESHOLD as u32), &map);
}

fn a_changed_threshold_concerns_what_is_written_from_then_on(engine: EngineKind) {
    let fs = SimFs::new();
    let (db, keyspace) = open(&fs, engine);
    let mut map = Map::new();
    for (n, threshold) in [(0_u8, 16_u32), (1, 0), (2, 5000), (3, 16)] {
        keyspace_of(&db, "a", engine, threshold);
        for m in 0..30_u8 {
            let (key, value) = (vec![m, n], vec![m ^ n; 1 + 100 * usize::from(m)]);
            keyspace.put(&key, &value).unwrap();
            map.insert(key, value);
        }
        check(&keyspace, &map);
        keyspace.flush().unwrap();
    }
    keyspace.compact().unwrap();
    check(&keyspace, &map);
    drop(keyspace);
    drop(db);
    // Replayed with another threshold than it was written with.
    let (_db, keyspace) = open(&fs, engine);
    check(&keyspace, &map);
}

fn damaged_and_missing_value_files_are_named(engine: EngineKind) {
    let fs = SimFs::new();
    let (db, keyspace) = open(&fs, engine);
    let (mut map, mut random) = (Map::new(), Random::new(8));
    fill(&db, &keyspace, &mut map, &mut random, 5);
    drop(keyspace);
    db.close().unwrap();
    let names = files(&fs, ".val");
    let path = Path::new(STORE).join("wal").join(&names[0]);
    for round in 0..120_u64 {
        let copy = fs.killed();
        let file = copy.open(&path, OpenMode::ReadWrite).unwrap();
        let at = random.below(file.len().unwrap());
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        byte[0] ^= 1 << (round % 8);
        file.write_all_at(&byte, at).unwrap();
        let (db, keyspace) = open(&copy, engine);
        let mut refused = 0;
        for (key, value) in &map {
            match keyspace.get(key) {
                Ok(found) => assert!(found.unwrap() == *value, "a wrong value"),
                Err(error) => {
                    refused += 1;
                    assert!(error.is_corruption() && error.to_string().contains(&names[0]));
                }
            }
        }
        let report = db.verify().unwrap();
        assert_eq!(report.problems.len(), refused, "{:?}", report.problems);
        for problem in &report.problems {
            assert_eq!(problem.file.as_deref(), Some(&*path));
        }
    }
    let cut = fs.killed();
    cut.open(&path, OpenMode::ReadWrite)
        .unwrap()
        .set_len(100)
        .unwrap();
    let (db, keyspace) = open(&cut, engine);
    assert!(map.keys().any(|key| keyspace.get(key).is_err()));
    assert!(!db.verify().unwrap().is_clean());
    drop((db, keyspace));

    fs.remove_file(&path).unwrap();
    let refused = options(&fs).open(STORE).unwrap_err();
    assert!(refused.is_corruption(), "{refused}");
    assert!(refused.to_string().contains(&names[0]), "{refused}");
}

/// Damage in a value file ends its collection, is reported, and stops no other.
fn damage_ends_the_collection_of_its_file_and_of_no_other(engine: EngineKind) {
    for is_reopened in [false, true] {
        let fs = SimFs::new();
        let (mut db, mut keyspace) = open(&fs, engine);
        let (mut map, mut random) = (Map::new(), Random::new(9));
        // Of the first files a few values stay alive, between others that are overwritten.
        let put = |keyspace: &Keyspace, map: &mut Map, random: &mut Random, n: u64| {
            let key = match n % 8 {
                0 => (1000 + n).to_be_bytes().to_vec(),
                _ => random.below(100).to_be_bytes().to_vec(),
            };
            let value = random.bytes(1500);
            keyspace.put(&key, &value).unwrap();
            map.insert(key, value);
        };
        for n in 0..250 {
            put(&keyspace, &mut map, &mut random, n);
        }
        keyspace.flush().unwrap();
        settle(&db);
        if is_reopened {
            drop(keyspace);
            db.close().unwrap();
            (db, keyspace) = open(&fs, engine);
        }
        let name = files(&fs, ".val").remove(0);
        // In the header of a record, so that no value is hurt.
        let path = Path::new(STORE).join("wal").join(&name);
        let file = fs.open(&path, OpenMode::ReadWrite).unwrap();
        let mut at = 128;
        while at < file.len().unwrap() / 2 {
            let mut len = [0; 4];
            file.read_exact_at(&mut len, at + 4).unwrap();
            at = (at + 8 + u64::from(u32::from_le_bytes(len))).next_multiple_of(8);
        }
        file.write_all_at(&[0xEE], at + 8).unwrap();

        let mut reports = 0;
        for n in 250..3000 {
            put(&keyspace, &mut map, &mut random, n);
            loop {
                match db.run_background_once() {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(error) => {
                        assert!(error.is_corruption(), "{error}");
                        assert!(error.to_string().contains(&name), "{error}");
                        reports += 1;
                        assert!(reports < 10, "it is tried again and again");
                    }
                }
            }
        }
        assert_eq!(reports, 1, "reopened: {is_reopened}");
        let reported = db.stats().background_error.unwrap();
        assert!(reported.contains(&name), "{reported}");
        assert!(files(&fs, ".val").contains(&name), "it has live values");
        let live: u64 = map.values().map(|value| value.len() as u64).sum();
        let stats = db.stats();
        let allowed = live * 3 / 2 + 4 * SEGMENT;
        assert!(stats.value_disk_bytes <= allowed, "{live} live, {stats:?}");
        check(&keyspace, &map);
    }
}

/// What has the name of a value file and is none stays as it is, does no harm, and is named.
fn files_that_only_have_the_name_of_a_value_file_stay(engine: EngineKind) {
    let fs = SimFs::new();
    let (db, keyspace) = open(&fs, engine);
    let (mut map, mut random) = (Map::new(), Random::new(10));
    fill(&db, &keyspace, &mut map, &mut random, 5);
    drop(keyspace);
    db.close().unwrap();
    let wal = Path::new(STORE).join("wal");
    let ours = files(&fs, ".val");
    let bytes_of = |fs: &SimFs, name: &str| {
        let file = fs.open(&wal.join(name), OpenMode::Read).unwrap();
        let mut bytes = vec![0; file.len().unwrap() as usize];
        file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    };
    let one = bytes_of(&fs, &ours[0]);
    let mut of_another_store = one.clone();
    of_another_store[16] ^= 1;
    let foreign = [
        ("0000000000000000.val", b"no number of ours".to_vec(), false),
        ("1.val", b"no name of ours".to_vec(), false),
        ("0000000000000a01.val", b"somebody's".to_vec(), true),
        ("0000000000000a02.val", Vec::new(), true),
        ("0000000000000a03.val", one.clone(), true),
        ("0000000000000a04.val", of_another_store, true),
        ("0000000000000a05.val", vec![0; 200_000], true),
    ];
    let write = |fs: &SimFs, name: &str, bytes: &[u8]| {
        let file = fs.open(&wal.join(name), OpenMode::CreateNew).unwrap();
        file.write_all_at(bytes, 0).unwrap();
    };
    for (name, bytes, is_named) in &foreign {
        let copy = fs.killed();
        write(&copy, name, bytes);
        for _ in 0..2 {
            let (db, keyspace) = open(&copy, engine);
            settle(&db);
            check(&keyspace, &map);
            let problems = db.verify().unwrap().problems;
            assert_eq!(problems.len(), usize::from(*is_named), "{problems:?}");
            for problem in problems {
                assert_eq!(problem.file.as_deref(), Some(&*wal.join(name)));
            }
            keyspace.flush().unwrap();
            drop(keyspace);
            db.close().unwrap();
            assert!(bytes_of(&copy, name) == *bytes, "{name}");
        }
    }
    // One that is ours, and that nothing refers to any more, is a leftover.
    let copy = fs.killed();
    let (db, keyspace) = open(&copy, engine);
    keyspace.clear().unwrap();
    keyspace.compact().unwrap();
    settle(&db);
    drop(keyspace);
    db.close().unwrap();
    assert_eq!(files(&copy, ".val"), [""; 0]);
    write(&copy, &ours[0], &one);
    drop(open(&copy, engine));
    assert_eq!(files(&copy, ".val"), [""; 0]);
}

/// Files that are refused, and those without which the rest can be read.
fn names_and_lengths_that_cannot_be_right_are_reported(engine: EngineKind) {
    let fs = SimFs::new();
    let (db, keyspace) = open(&fs, engine);
    let (mut map, mut random) = (Map::new(), Random::new(11));
    fill(&db, &keyspace, &mut map, &mut random, 5);
    drop(keyspace);
    db.close().unwrap();
    let wal = Path::new(STORE).join("wal");
    let segment = files(&fs, ".log").remove(0);
    for name in [
        "ffffffffffffffff.val".to_owned(),
        "4000000000000000.val".to_owned(),
        segment.replace(".log", ".val"),
    ] {
        let copy = fs.killed();
        copy.open(&wal.join(&name), OpenMode::CreateNew).unwrap();
        let refused = options(&copy).open(STORE).unwrap_err();
        assert!(refused.is_corruption(), "{name}: {refused}");
        assert!(refused.to_string().contains(&name), "{name}: {refused}");
    }
    let name = files(&fs, ".val").remove(0);
    for len in [0, 1, 127, 128, 3000] {
        let copy = fs.killed();
        let file = copy.open(&wal.join(&name), OpenMode::ReadWrite).unwrap();
        file.set_len(len).unwrap();
        let (db, keyspace) = open(&copy, engine);
        let mut refused = 0;
        for (key, value) in &map {
            match keyspace.get(key) {
                Ok(found) => assert!(found.unwrap() == *value, "a wrong value"),
                Err(error) => {
                    refused += 1;
                    assert!(error.to_string().contains(&name), "{error}");
                }
            }
        }
        assert!(refused > 0 && refused < map.len());
        let problems = db.verify().unwrap().problems;
        let path = wal.join(&name);
        assert!(problems.iter().all(|it| it.file.as_deref() == Some(&*path)));
        // Each value, and the header.
        assert_eq!(problems.len(), refused + 1);
    }
}

/// The trees behind it were never merged, and what they had overwritten kept its space.
#[test]
fn a_tree_that_cannot_be_merged_keeps_no_other_from_it() {
    use hedgerow::fs::{Fault, FaultFs, FaultPlan, OpKind};
    let disk = FaultFs::new(Arc::new(SimFs::new()));
    let options = single_threaded(Arc::new(disk.clone())).durability(Durability::Buffered);
    let db = options.open(STORE).unwrap();
    let make = |name| {
        let options = keyspace_options(EngineKind::Lsm, Sizes::Tiny)
            .value_threshold_bytes(100)
            .write_buffer_bytes(1 << 20);
        db.keyspace_with(name, options).unwrap()
    };
    let (first, second) = (make("first"), make("second"));
    for keyspace in [&first, &second] {
        for round in 0..3_u8 {
            for n in 0..400_u32 {
                keyspace.put(n.to_be_bytes(), vec![round; 2000]).unwrap();
            }
            keyspace.flush().unwrap();
            if round == 0 {
                keyspace.compact().unwrap();
            }
        }
    }
    // Too few for a compaction.
    assert_eq!(second.stats().levels[0].files, 2);
    let full = FaultPlan::once(&[OpKind::Create], 0, Fault::Full);
    let full = full.and_then_all(&[OpKind::Create]);
    disk.plan(full.within(&Path::new(STORE).join("ks-00000001")));
    for _ in 0..50 {
        let _ = db.run_background_once();
    }
    assert_eq!(second.stats().levels[0].files, 0, "it was never merged");
}

/// Where the system gives no more maps, values are read without.
fn a_value_whose_file_cannot_be_mapped_is_read(engine: EngineKind) {
    let disk = FaultFs::new(Arc::new(SimFs::with_maps()));
    let options = single_threaded(Arc::new(disk.clone())).mmap_log(false);
    let db = options.open(STORE).unwrap();
    let keyspace = keyspace_of(&db, "a", engine, THRESHOLD as u32);
    keyspace.put("k", vec![7; 5000]).unwrap();
    let plan = FaultPlan::once(&[OpKind::Map], 0, Fault::Io);
    disk.plan(plan.and_then_all(&[OpKind::Map]));
    assert!(keyspace.get("k").unwrap().unwrap() == [7; 5000][..]);
    assert!(disk.fired() > 0, "it would be mapped");
    let part = keyspace.get_range("k", 4999..).unwrap().unwrap();
    assert_eq!(*part, [7]);
}

/// How a keyspace keeps its values of a file from being written again.
#[derive(Clone, Copy)]
enum Unfit {
    /// Its flushes find no room, and it takes no writes.
    Full,
    /// Its tree cannot be read.
    Unreadable,
}

fn a_keyspace_that_takes_no_writes_stops_no_collection_of_others(engine: EngineKind) {
    collect_beside(engine, Unfit::Full);
}

fn a_keyspace_that_cannot_be_read_stops_no_collection_of_others(engine: EngineKind) {
    collect_beside(engine, Unfit::Unreadable);
}

/// The few values of one keyspace in one file kept all other files from being collected.
fn collect_beside(engine: EngineKind, unfit: Unfit) {
    let sim = SimFs::new();
    let disk = FaultFs::new(Arc::new(sim.clone()));
    let options = single_threaded(Arc::new(disk.clone())).durability(Durability::Buffered);
    let db = options.cache_bytes(0).open(STORE).unwrap();
    let [one, other] = ["a", "b"].map(|name| keyspace_of(&db, name, engine, THRESHOLD as u32));
    for n in 0..400_u64 {
        if n < 3 {
            one.put(n.to_be_bytes(), vec![9; 1000]).unwrap();
        }
        other.put(n.to_be_bytes(), vec![8; 1000]).unwrap();
    }
    db.flush().unwrap();
    settle(&db);
    assert!(files(&sim, ".val").len() >= 5);
    let of_one = Path::new(STORE).join("ks-00000001");
    let fail = |kinds: &[OpKind], fault| {
        let plan = FaultPlan::once(kinds, 0, fault).and_then_all(kinds);
        disk.plan(plan.within(&of_one));
    };
    match unfit {
        Unfit::Full => {
            fail(&OpKind::TAKING_SPACE, Fault::Full);
            let refused = (0..20_000_u32).find_map(|n| one.put(n.to_be_bytes(), [1; 60]).err());
            assert!(refused.unwrap().is_out_of_space());
        }
        Unfit::Unreadable => fail(&[OpKind::Read], Fault::Io),
    }
    // The first file has only values of that one, each other a few.
    for n in (0..400_u64).filter(|n| *n < 60 || n % 8 != 0) {
        other.delete(n.to_be_bytes()).unwrap();
    }
    other.compact().unwrap();
    for _ in 0..300 {
        // It fails each time.
        let _ = db.run_background_once();
    }
    let left = files(&sim, ".val");
    assert!(left.len() <= 3, "{left:?}");
    disk.heal();
    settle(&db);
    assert!(one.get(0_u64.to_be_bytes()).unwrap().unwrap() == [9; 1000][..]);
    assert!(files(&sim, ".val").len() <= 3);
}

/// All of them were removed before the log was synced again.
fn a_dropped_keyspace_with_many_files_does_not_keep_the_log_waiting(engine: EngineKind) {
    let fs = SimFs::new();
    let (db, keyspace) = open(&fs, engine);
    let value = vec![7; (256 << 10) + 1];
    for n in 0..200_u32 {
        keyspace.put_from(n.to_be_bytes(), &value[..]).unwrap();
    }
    db.drop_keyspace("a").unwrap();
    drop(keyspace);
    db.run_background_once().unwrap();
    let left = files(&fs, ".val").len();
    assert!((100..=200).contains(&left), "{left}");
    settle(&db);
    assert_eq!(files(&fs, ".val").len(), 0);
}

/// The error was over at the next look at compactions, and `wait_idle` did not know of it.
fn wait_idle_tells_of_a_collection_that_fails(engine: EngineKind) {
    let disk = FaultFs::new(Arc::new(SimFs::new()));
    let options = single_threaded(Arc::new(disk.clone())).durability(Durability::Buffered);
    let db = options.cache_bytes(0).open(STORE).unwrap();
    let one = keyspace_of(&db, "a", engine, THRESHOLD as u32);
    for n in 0..400_u64 {
        one.put(n.to_be_bytes(), vec![9; 1000]).unwrap();
    }
    db.flush().unwrap();
    settle(&db);
    for n in (0..400_u64).filter(|n| n % 8 != 0) {
        one.delete(n.to_be_bytes()).unwrap();
    }
    one.compact().unwrap();
    let plan = FaultPlan::once(&[OpKind::Read], 0, Fault::Io).and_then_all(&[OpKind::Read]);
    disk.plan(plan.within(&Path::new(STORE).join("ks-00000001")));
    assert!(db.wait_idle().is_err());
    assert!(db.stats().background_error.is_some());
    disk.heal();
    settle(&db);
    assert_eq!(db.stats().background_error, None);
}
