//! The store as a whole: keyspaces, batches and snapshots over both engines, opening and
//! closing, locking, reading only, stepping background work by hand.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hedgerow::fs::{OpenMode, SimFs};
use hedgerow::{
    Batch, Compression, Db, Durability, EngineKind, Error, Keyspace, KeyspaceOptions, LockHolder,
    MAX_VALUE_LEN_BYTES, MemtableKind, Options, SeqNo,
};
use support::image::Image;
use support::random::{Random, Source};
use support::rig::{Place, Rig, Sizes, keyspace_options};

use crate::conformance::helpers::{
    Map, assert_holds, assert_invalid, contents, forward, load_mixed, with_values,
};

/// Each case runs with the sizes and in the places that differ in what they exercise.
macro_rules! database_cases {
    ($($case:ident),+ $(,)?) => {
        mod on_disk {
            $(#[test] fn $case() { super::$case(super::Rig::new(super::Place::Disk, super::Sizes::Default)); })+
        }
        mod on_disk_tiny {
            $(#[test] fn $case() { super::$case(super::Rig::new(super::Place::Disk, super::Sizes::Tiny)); })+
        }
        mod in_memory_tiny {
            $(#[test] fn $case() { super::$case(super::Rig::new(super::Place::Memory, super::Sizes::Tiny)); })+
        }
    };
}

database_cases!(
    keyspaces_are_listed_and_found_again,
    a_keyspace_keeps_its_engine,
    options_of_a_keyspace_are_fixed_or_change_at_once,
    names_beyond_the_limits_are_refused,
    many_keyspaces_keep_apart,
    a_dropped_keyspace_is_gone,
    a_dropped_keyspace_can_be_made_again_on_the_other_engine,
    snapshots_and_scans_outlive_a_dropped_keyspace,
    a_batch_over_both_engines_is_one_commit,
    a_refused_part_refuses_the_whole_batch,
    a_batch_of_a_dropped_keyspace_is_refused,
    a_batch_of_another_store_is_refused,
    a_snapshot_is_consistent_over_all_keyspaces,
    everything_is_there_after_close,
    everything_is_there_after_drop_without_close,
    everything_is_there_after_flush_compact_and_many_opens,
    overwrites_and_deletes_are_kept_over_opens,
    sync_and_buffered_handles,
    after_close_every_use_fails,
    a_scan_taken_before_close_can_be_read_after,
    a_second_open_is_locked_out,
    create_if_missing_is_honoured,
    reading_only_reads_everything_and_changes_nothing,
    two_readers_at_once_and_no_writer_beside_them,
    background_work_can_be_stepped_by_hand,
    an_idle_keyspace_pins_no_log,
    figures_are_plausible,
    verify_sees_everything,
    options_may_change_between_opens,
);

fn both(rig: &mut Rig) -> [Keyspace; 2] {
    [
        rig.keyspace("lsm", EngineKind::Lsm),
        rig.keyspace("btree", EngineKind::BTree),
    ]
}

fn sample(count: u32) -> Map {
    with_values((0..count).map(|n| n.wrapping_mul(0x9E37_79B1).to_be_bytes().to_vec()))
}

#[track_caller]
fn assert_clean(db: &Db) {
    let report = db.verify().expect("verification runs");
    assert!(report.is_clean(), "{:#?}", report.problems);
}

fn keyspaces_are_listed_and_found_again(mut rig: Rig) {
    assert!(rig.db().keyspaces().is_empty());
    assert!(rig.db().existing_keyspace("users").unwrap().is_none());
    rig.db().keyspace("users", EngineKind::BTree).unwrap();
    rig.db().keyspace("events", EngineKind::Lsm).unwrap();
    for _ in 0..2 {
        let list: Vec<_> = rig
            .db()
            .keyspaces()
            .into_iter()
            .map(|k| (k.name, k.engine))
            .collect();
        assert_eq!(
            list,
            [
                ("users".to_owned(), EngineKind::BTree),
                ("events".to_owned(), EngineKind::Lsm)
            ]
        );
        let users = rig.db().existing_keyspace("users").unwrap().unwrap();
        assert_eq!(users.name(), "users");
        assert_eq!(users.engine(), EngineKind::BTree);
        assert!(rig.db().existing_keyspace("user").unwrap().is_none());
        drop(users);
        rig.close();
    }
}

fn a_keyspace_keeps_its_engine(mut rig: Rig) {
    rig.db().keyspace("data", EngineKind::Lsm).unwrap();
    for _ in 0..2 {
        assert_invalid(rig.db().keyspace("data", EngineKind::BTree));
        assert_eq!(
            rig.db().keyspace("data", EngineKind::Lsm).unwrap().engine(),
            EngineKind::Lsm
        );
        rig.close();
    }
}

/// An option that was given to a keyspace that existed was ignored, whatever it was.
fn options_of_a_keyspace_are_fixed_or_change_at_once(mut rig: Rig) {
    let lsm = || KeyspaceOptions::new(EngineKind::Lsm);
    let btree = || KeyspaceOptions::new(EngineKind::BTree);
    let made = lsm().block_size_bytes(512).write_buffer_bytes(1 << 20);
    rig.db().keyspace_with("lsm", made).unwrap();
    rig.db()
        .keyspace_with("btree", btree().page_size_bytes(2048))
        .unwrap();
    let refused = |db: &Db, name: &str, options, words: [&str; 3]| {
        let error = db.keyspace_with(name, options).unwrap_err().to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    };
    let changed = lsm()
        .write_buffer_bytes(32 << 10)
        .compression(Compression::None)
        .table_size_bytes(16 << 10)
        .memtable(MemtableKind::SkipList)
        .value_threshold_bytes(100_000);
    for reopened in [false, true] {
        if reopened {
            rig.close();
        }
        let options = if reopened { lsm() } else { changed.clone() };
        let db = rig.db();
        let before = db.existing_keyspace("lsm").unwrap().unwrap();
        let keyspace = db.keyspace_with("lsm", options).unwrap();
        refused(
            db,
            "lsm",
            lsm().block_size_bytes(256),
            ["block_size_bytes", "512", "256"],
        );
        refused(db, "lsm", btree(), ["engine", "lsm", "btree"]);
        refused(
            db,
            "btree",
            btree().page_size_bytes(1024),
            ["page_size_bytes", "2048", "1024"],
        );
        let expected = changed
            .clone()
            .block_size_bytes(512)
            .filter_bits_per_key(10)
            .expiry(false)
            .default_ttl(Duration::ZERO);
        for handle in [
            &before,
            &keyspace,
            &db.keyspace("lsm", EngineKind::Lsm).unwrap(),
        ] {
            assert_eq!(handle.options(), expected);
        }
        let stats = db.stats();
        assert_eq!(stats.keyspaces[0].options, expected);
        assert_eq!(stats.keyspaces[1].options.page_size_bytes, Some(2048));
        assert_eq!(stats.keyspaces[1].options.compression, None);
        // They count: a fresh budget of 1 MiB would not have been flushed once.
        for n in 0..2000u32 {
            before.put(n.to_be_bytes(), [0; 100]).unwrap();
        }
        db.wait_idle().unwrap();
        let stats = before.stats();
        assert!(stats.flushes > 1, "{stats:?}");
        assert!(stats.write_buffer_bytes <= 64 << 10, "{stats:?}");
        before.compact().unwrap();
        // 200 KB that compress to nothing, in tables of 16 KiB.
        let stats = before.stats();
        assert!(stats.disk_bytes > 150_000 && stats.files > 5, "{stats:?}");
    }
    rig.close();
    // Reading only, what changes nothing is fine.
    let options = rig.options.clone().read_only(true);
    let db = options.open(rig.path()).unwrap();
    let keyspace = db.keyspace_with("lsm", changed.clone()).unwrap();
    assert_eq!(keyspace.options().block_size_bytes, Some(512));
    let other = changed.clone().write_buffer_bytes(1 << 20);
    assert!(matches!(
        db.keyspace_with("lsm", other),
        Err(Error::ReadOnly)
    ));
    assert_eq!(keyspace.options().write_buffer_bytes, Some(32 << 10));
}

fn names_beyond_the_limits_are_refused(mut rig: Rig) {
    let db = rig.db();
    for name in ["", "line\nbreak", "nul\0", &"x".repeat(256)] {
        assert_invalid(db.keyspace(name, EngineKind::Lsm));
    }
    let bad = KeyspaceOptions::new(EngineKind::BTree).page_size_bytes(3000);
    assert_invalid(db.keyspace_with("data", bad));
    assert!(db.keyspaces().is_empty());
    for name in [&"x".repeat(255), "with space", "../up", "CATALOG", "ключи"] {
        let keyspace = db.keyspace(name, EngineKind::BTree).unwrap();
        keyspace.put(b"key", name).unwrap();
    }
    rig.close();
    for info in rig.db().keyspaces() {
        let keyspace = rig.db().existing_keyspace(&info.name).unwrap().unwrap();
        assert_eq!(keyspace.get(b"key").unwrap().unwrap(), info.name.as_bytes());
    }
}

fn many_keyspaces_keep_apart(mut rig: Rig) {
    let sizes = rig.sizes;
    for n in 0..24usize {
        let engine = EngineKind::ALL[n % 2];
        let keyspace = rig
            .db()
            .keyspace_with(&format!("k{n}"), keyspace_options(engine, sizes))
            .unwrap();
        for i in 0..50u32 {
            keyspace.put(i.to_be_bytes(), format!("{n}/{i}")).unwrap();
        }
        if n % 5 == 0 {
            keyspace.flush().unwrap();
        }
    }
    for _ in 0..2 {
        for n in 0..24 {
            let keyspace = rig
                .db()
                .existing_keyspace(&format!("k{n}"))
                .unwrap()
                .unwrap();
            assert_eq!(keyspace.iter().count(), 50);
            assert_eq!(
                keyspace.get(7u32.to_be_bytes()).unwrap().unwrap(),
                format!("{n}/7").as_bytes()
            );
        }
        assert_clean(rig.db());
        rig.close();
    }
}

fn a_dropped_keyspace_is_gone(mut rig: Rig) {
    let entries = sample(300);
    let [lsm, btree] = both(&mut rig);
    load_mixed(&lsm, &entries);
    load_mixed(&btree, &entries);
    rig.db().drop_keyspace("lsm").unwrap();
    assert!(matches!(
        rig.db().drop_keyspace("lsm"),
        Err(Error::NoSuchKeyspace { .. })
    ));
    assert!(matches!(
        lsm.put(b"a", b"1"),
        Err(Error::NoSuchKeyspace { .. })
    ));
    assert!(matches!(lsm.get(b"a"), Err(Error::NoSuchKeyspace { .. })));
    assert!(matches!(
        lsm.iter().next(),
        Some(Err(Error::NoSuchKeyspace { .. }))
    ));
    assert_holds(&btree, &entries);
    drop((lsm, btree));
    rig.close();
    assert_eq!(rig.db().keyspaces().len(), 1);
    let [lsm, btree] = both(&mut rig);
    assert_holds(&lsm, &Map::new());
    assert_holds(&btree, &entries);
    drop((lsm, btree));
    rig.close();
    // The files of the dropped keyspace are gone.
    let mut dirs = rig.fs().read_dir(rig.path()).unwrap();
    dirs.retain(|name| name.starts_with("ks-"));
    assert_eq!(dirs, ["ks-00000002"], "nothing was written to the new one");
}

fn a_dropped_keyspace_can_be_made_again_on_the_other_engine(mut rig: Rig) {
    let sizes = rig.sizes;
    for round in 0..6usize {
        let engine = EngineKind::ALL[round % 2];
        let keyspace = rig
            .db()
            .keyspace_with("data", keyspace_options(engine, sizes))
            .unwrap();
        assert_holds(&keyspace, &Map::new());
        let entries = sample(200 + round as u32);
        load_mixed(&keyspace, &entries);
        if round % 3 == 1 {
            drop(keyspace);
            rig.close();
            let keyspace = rig.db().existing_keyspace("data").unwrap().unwrap();
            assert_holds(&keyspace, &entries);
        } else {
            assert_holds(&keyspace, &entries);
        }
        rig.db().drop_keyspace("data").unwrap();
    }
    rig.abandon();
    assert!(rig.db().keyspaces().is_empty());
}

fn snapshots_and_scans_outlive_a_dropped_keyspace(mut rig: Rig) {
    let entries = sample(500);
    for engine in EngineKind::ALL {
        let keyspace = rig.keyspace("data", engine);
        load_mixed(&keyspace, &entries);
        let snapshot = keyspace.snapshot();
        let scan = keyspace.iter();
        rig.db().drop_keyspace("data").unwrap();
        drop(keyspace);
        let wanted: Vec<_> = entries.clone().into_iter().collect();
        assert_eq!(forward(scan), wanted);
        assert_eq!(forward(snapshot.iter()), wanted);
    }
}

fn a_batch_over_both_engines_is_one_commit(mut rig: Rig) {
    let [lsm, btree] = both(&mut rig);
    for keyspace in [&lsm, &btree] {
        for key in ["a", "b", "c"] {
            keyspace.put(key, "old").unwrap();
        }
    }
    for durability in [Durability::Sync, Durability::Buffered] {
        let mut batch = rig.db().batch();
        batch.put(&lsm, b"x", b"1");
        batch.put(&btree, b"x", b"2");
        batch.delete(&lsm, b"a");
        batch.delete_range(&btree, "a".."c");
        batch.put(&btree, b"b", b"after");
        batch.put(&lsm, b"x", b"3");
        assert_eq!(batch.len(), 6);
        rig.db().write(batch, durability).unwrap();
        assert_eq!(lsm.get(b"x").unwrap().unwrap(), b"3");
        assert_eq!(lsm.get(b"a").unwrap(), None);
        assert_eq!(btree.get(b"x").unwrap().unwrap(), b"2");
        assert_eq!(btree.get(b"b").unwrap().unwrap(), b"after");
        assert_eq!(btree.get(b"a").unwrap(), None);
        assert_eq!(btree.get(b"c").unwrap().unwrap(), b"old");
    }
    let nothing = rig.db().batch();
    rig.db().write(nothing, Durability::Sync).unwrap();
}

fn a_refused_part_refuses_the_whole_batch(mut rig: Rig) {
    let [lsm, btree] = both(&mut rig);
    // Memory that nobody touches.
    let too_long = vec![0; MAX_VALUE_LEN_BYTES + 1];
    for durability in [Durability::Sync, Durability::Buffered] {
        let mut batch = rig.db().batch();
        batch.put(&lsm, b"a", b"1");
        batch.put(&btree, b"a", &too_long);
        batch.put(&lsm, b"b", b"1");
        assert_invalid(rig.db().write(batch, durability));
    }
    for keyspace in [&lsm, &btree] {
        assert_holds(keyspace, &Map::new());
    }
}

fn a_batch_of_a_dropped_keyspace_is_refused(mut rig: Rig) {
    let [lsm, btree] = both(&mut rig);
    let mut batch = rig.db().batch();
    batch.put(&btree, b"a", b"1");
    batch.put(&lsm, b"a", b"1");
    rig.db().drop_keyspace("lsm").unwrap();
    let result = rig.db().write(batch, Durability::Sync);
    assert!(
        matches!(result, Err(Error::NoSuchKeyspace { .. })),
        "{result:?}"
    );
    assert_holds(&btree, &Map::new());
}

fn a_batch_of_another_store_is_refused(mut rig: Rig) {
    let mut other = Rig::new(Place::Memory, Sizes::Tiny);
    let [here, _] = both(&mut rig);
    let [there, _] = both(&mut other);
    let mut batch = rig.db().batch();
    batch.put(&here, b"a", b"1");
    batch.put(&there, b"a", b"1");
    assert_invalid(rig.db().write(batch, Durability::Sync));
    assert_holds(&here, &Map::new());
    assert_holds(&there, &Map::new());
}

fn a_snapshot_is_consistent_over_all_keyspaces(mut rig: Rig) {
    let [lsm, btree] = both(&mut rig);
    let mut snapshots = Vec::new();
    for round in 0..200u32 {
        let mut batch = rig.db().batch();
        batch.put(&lsm, b"round", round.to_le_bytes());
        batch.put(&btree, b"round", round.to_le_bytes());
        batch.put(&lsm, round.to_be_bytes(), vec![0; 100]);
        batch.put(&btree, round.to_be_bytes(), vec![0; 100]);
        rig.db().write(batch, Durability::Buffered).unwrap();
        if round % 20 == 0 {
            snapshots.push((round, rig.db().snapshot()));
        }
        if round % 50 == 49 {
            rig.db().flush().unwrap();
        }
    }
    rig.db().compact().unwrap();
    for (round, snapshot) in &snapshots {
        for keyspace in [&lsm, &btree] {
            let found = snapshot.get(keyspace, b"round").unwrap().unwrap();
            assert_eq!(found, round.to_le_bytes());
            assert_eq!(snapshot.iter(keyspace).count() as u32, round + 2);
            assert_eq!(
                snapshot.prefix(keyspace, [0, 0]).rev().count() as u32,
                round + 1
            );
            assert_eq!(
                snapshot.range(keyspace, ..10u32.to_be_bytes()).count() as u32,
                (round + 1).min(10)
            );
            let view = snapshot.keyspace(keyspace);
            assert_eq!(view.get(b"round").unwrap().unwrap(), round.to_le_bytes());
        }
    }
}

fn everything_is_there_after_close(mut rig: Rig) {
    let entries = sample(3000);
    for keyspace in both(&mut rig) {
        load_mixed(&keyspace, &entries);
    }
    rig.close();
    for keyspace in both(&mut rig) {
        assert_holds(&keyspace, &entries);
    }
    assert_clean(rig.db());
}

fn everything_is_there_after_drop_without_close(mut rig: Rig) {
    let entries = sample(3000);
    for keyspace in both(&mut rig) {
        for (key, value) in &entries {
            keyspace.put(key, value).unwrap();
        }
    }
    rig.abandon();
    for keyspace in both(&mut rig) {
        assert_holds(&keyspace, &entries);
    }
    assert_clean(rig.db());
}

fn everything_is_there_after_flush_compact_and_many_opens(mut rig: Rig) {
    let mut entries = Map::new();
    for round in 0..12u32 {
        for keyspace in both(&mut rig) {
            for n in 0..100u32 {
                let key = (n * 12 + round).to_be_bytes();
                keyspace.put(key, round.to_le_bytes()).unwrap();
                entries.insert(key.to_vec(), round.to_le_bytes().to_vec());
            }
        }
        match round % 4 {
            0 => rig.db().flush().unwrap(),
            1 => rig.db().compact().unwrap(),
            2 => rig.db().wait_idle().unwrap(),
            _ => {}
        }
        if round % 2 == 0 {
            rig.close();
        } else {
            rig.abandon();
        }
        for keyspace in both(&mut rig) {
            assert_holds(&keyspace, &entries);
        }
    }
    assert_clean(rig.db());
}

fn overwrites_and_deletes_are_kept_over_opens(mut rig: Rig) {
    let mut random = Random::new(20);
    let mut expected = Map::new();
    for _ in 0..8 {
        let keyspaces = both(&mut rig);
        for _ in 0..400 {
            let key = random.below(500).to_be_bytes()[6..].to_vec();
            if random.one_in(3) {
                expected.remove(&key);
                keyspaces.iter().for_each(|keyspace| {
                    keyspace.delete(&key).unwrap();
                });
            } else {
                let len = random.below(100) as usize;
                let value = random.bytes(len);
                keyspaces.iter().for_each(|keyspace| {
                    keyspace.put(&key, &value).unwrap();
                });
                expected.insert(key, value);
            }
        }
        drop(keyspaces);
        rig.close();
        for keyspace in both(&mut rig) {
            assert_holds(&keyspace, &expected);
        }
    }
    assert_clean(rig.db());
}

fn sync_and_buffered_handles(mut rig: Rig) {
    for keyspace in both(&mut rig) {
        let durable = keyspace.with_durability(Durability::Sync);
        let buffered = keyspace.with_durability(Durability::Buffered);
        for n in 0..20u32 {
            durable.put(n.to_be_bytes(), b"durable").unwrap();
            buffered.put((n + 100).to_be_bytes(), b"buffered").unwrap();
        }
        durable.delete(0u32.to_be_bytes()).unwrap();
        durable.delete_range(110u32.to_be_bytes()..).unwrap();
        assert_eq!(keyspace.iter().count(), 29);
    }
    rig.db().sync().unwrap();
    rig.close();
    for keyspace in both(&mut rig) {
        assert_eq!(keyspace.iter().count(), 29);
    }
}

fn after_close_every_use_fails(mut rig: Rig) {
    let [lsm, btree] = both(&mut rig);
    let db = rig.db().clone();
    lsm.put(b"a", b"1").unwrap();
    rig.close();
    assert!(matches!(
        db.keyspace("lsm", EngineKind::Lsm),
        Err(Error::Closed)
    ));
    assert!(matches!(db.existing_keyspace("lsm"), Err(Error::Closed)));
    assert!(matches!(db.drop_keyspace("lsm"), Err(Error::Closed)));
    assert!(matches!(
        db.write(db.batch(), Durability::Sync),
        Err(Error::Closed)
    ));
    assert!(matches!(db.flush(), Err(Error::Closed)));
    assert!(matches!(db.sync(), Err(Error::Closed)));
    assert!(matches!(db.compact(), Err(Error::Closed)));
    assert!(matches!(db.verify(), Err(Error::Closed)));
    for keyspace in [&lsm, &btree] {
        assert!(matches!(keyspace.put(b"a", b"1"), Err(Error::Closed)));
        assert!(matches!(keyspace.delete(b"a"), Err(Error::Closed)));
        assert!(matches!(keyspace.delete_range(..), Err(Error::Closed)));
        let mut batch = Batch::new();
        batch.put(b"a", b"1");
        assert!(matches!(
            keyspace.write_with(batch, Durability::Buffered),
            Err(Error::Closed)
        ));
        assert!(matches!(keyspace.get(b"a"), Err(Error::Closed)));
        assert!(matches!(keyspace.multi_get(&[b"a"]), Err(Error::Closed)));
        assert!(matches!(keyspace.iter().next(), Some(Err(Error::Closed))));
        assert!(matches!(keyspace.flush(), Err(Error::Closed)));
    }
    // Closing twice is fine, and the store can be opened while old handles live.
    db.close().unwrap();
    assert_eq!(
        rig.keyspace("lsm", EngineKind::Lsm)
            .get(b"a")
            .unwrap()
            .unwrap(),
        b"1"
    );
}

fn a_scan_taken_before_close_can_be_read_after(mut rig: Rig) {
    let entries = sample(400);
    let keyspaces = both(&mut rig);
    let mut scans = Vec::new();
    for keyspace in &keyspaces {
        load_mixed(keyspace, &entries);
        scans.push(keyspace.iter());
    }
    rig.close();
    for scan in scans {
        assert_eq!(
            forward(scan),
            entries.clone().into_iter().collect::<Vec<_>>()
        );
    }
}

fn a_second_open_is_locked_out(mut rig: Rig) {
    rig.keyspace("data", EngineKind::Lsm)
        .put(b"a", b"1")
        .unwrap();
    let options = rig.options.clone();
    let path = rig.path().to_path_buf();
    assert!(matches!(
        options.clone().open(&path),
        Err(Error::Locked {
            holder: LockHolder::ThisProcess,
            ..
        })
    ));
    assert!(matches!(
        options.clone().read_only(true).open(&path),
        Err(Error::Locked { .. })
    ));
    rig.keyspace("data", EngineKind::Lsm)
        .put(b"b", b"1")
        .unwrap();
    rig.close();
    let db = options.open(&path).unwrap();
    assert_eq!(
        db.existing_keyspace("data")
            .unwrap()
            .unwrap()
            .iter()
            .count(),
        2
    );
}

fn create_if_missing_is_honoured(rig: Rig) {
    let options = rig.options.clone().create_if_missing(false);
    assert!(options.clone().open(rig.path()).is_err());
    assert!(
        rig.options
            .clone()
            .read_only(true)
            .open(rig.path())
            .is_err()
    );
    assert!(!rig.fs().exists(rig.path()).unwrap(), "nothing was made");
    drop(rig.options.clone().open(rig.path()).unwrap());
    drop(options.open(rig.path()).unwrap());
}

fn reading_only_reads_everything_and_changes_nothing(mut rig: Rig) {
    let entries = sample(1500);
    // Part is in files, part only in the log.
    for keyspace in both(&mut rig) {
        load_mixed(&keyspace, &entries);
    }
    let mut batch = rig.db().batch();
    for keyspace in both(&mut rig) {
        batch.delete_range(&keyspace, [0xF0]..);
    }
    rig.db().write(batch, Durability::Sync).unwrap();
    rig.abandon();
    let mut expected = entries;
    expected.retain(|key, _| key[0] < 0xF0);

    let before = Image::of(&**rig.fs(), rig.path());
    let db = rig
        .options
        .clone()
        .read_only(true)
        .open(rig.path())
        .unwrap();
    assert_eq!(db.keyspaces().len(), 2);
    for info in db.keyspaces() {
        let keyspace = db.existing_keyspace(&info.name).unwrap().unwrap();
        assert_holds(&keyspace, &expected);
        assert_eq!(keyspace.snapshot().iter().count(), expected.len());
        let refused = [
            keyspace.put(b"a", b"1"),
            keyspace.delete(b"a"),
            keyspace.delete_range(..),
            keyspace.flush().map(|()| SeqNo::ZERO),
            keyspace.compact().map(|()| SeqNo::ZERO),
        ];
        for result in refused {
            assert!(matches!(result, Err(Error::ReadOnly)), "{result:?}");
        }
        let mut batch = db.batch();
        batch.put(&keyspace, b"a", b"1");
        let result = db.write(batch, Durability::Sync);
        assert!(matches!(result, Err(Error::ReadOnly)), "{result:?}");
        assert_holds(&keyspace, &expected);
    }
    assert!(matches!(
        db.keyspace("new", EngineKind::Lsm),
        Err(Error::ReadOnly)
    ));
    assert!(matches!(db.drop_keyspace("lsm"), Err(Error::ReadOnly)));
    assert_clean(&db);
    db.close().unwrap();
    drop(db);
    assert!(
        Image::of(&**rig.fs(), rig.path()) == before,
        "a file was changed"
    );

    for keyspace in both(&mut rig) {
        assert_holds(&keyspace, &expected);
    }
}

fn two_readers_at_once_and_no_writer_beside_them(mut rig: Rig) {
    rig.keyspace("data", EngineKind::BTree)
        .put(b"a", b"1")
        .unwrap();
    rig.close();
    let options = rig.options.clone().read_only(true);
    let lock_file = rig.path().join("LOCK");
    // A copy, or a read-only medium, may lack the lock file; readers make none.
    for has_lock_file in [true, false] {
        if !has_lock_file {
            rig.fs().remove_file(&lock_file).unwrap();
        }
        let first = options.clone().open(rig.path()).unwrap();
        let second = options.clone().open(rig.path()).unwrap();
        assert_eq!(rig.fs().exists(&lock_file).unwrap(), has_lock_file);
        for db in [&first, &second] {
            let keyspace = db.existing_keyspace("data").unwrap().unwrap();
            assert_eq!(keyspace.get(b"a").unwrap().unwrap(), b"1");
        }
        assert!(matches!(
            rig.options.clone().open(rig.path()),
            Err(Error::Locked { .. })
        ));
        drop((first, second));
    }
    let keyspace = rig.keyspace("data", EngineKind::BTree);
    keyspace.put(b"b", b"2").unwrap();
    let reader = options.open(rig.path());
    assert!(reader.is_err_and(|error| error.is_locked()));
}

fn background_work_can_be_stepped_by_hand(rig: Rig) {
    let mut rig = rig.with(|options| options.background_threads(0).write_buffer_bytes(32 << 10));
    let keyspaces = both(&mut rig);
    let mut expected = Map::new();
    let mut random = Random::new(21);
    let mut steps = 0;
    for _ in 0..4000u32 {
        let key = random.below(2000).to_be_bytes()[6..].to_vec();
        let value = random.bytes(50);
        keyspaces.iter().for_each(|keyspace| {
            keyspace.put(&key, &value).unwrap();
        });
        expected.insert(key, value);
        if random.one_in(20) && rig.db().run_background_once().unwrap() {
            steps += 1;
        }
    }
    let mut rest = 0;
    while rig.db().run_background_once().unwrap() {
        rest += 1;
        assert!(rest < 10_000, "background work comes to an end");
    }
    assert!(steps + rest > 0, "there was background work");
    for keyspace in &keyspaces {
        assert_holds(keyspace, &expected);
    }
    assert_clean(rig.db());
}

fn an_idle_keyspace_pins_no_log(rig: Rig) {
    let mut rig = rig.with(|options| {
        options
            .log_segment_bytes(64 << 10)
            .log_limit_bytes(256 << 10)
    });
    let [lsm, btree] = both(&mut rig);
    // Each engine is the idle one once.
    for (idle, busy) in [(&lsm, &btree), (&btree, &lsm)] {
        idle.put(b"idle", b"once").unwrap();
        for n in 0..3000u32 {
            busy.put((n % 100).to_be_bytes(), vec![n as u8; 1000])
                .unwrap();
        }
        // Without another write, and whichever thread does the work: not at once. The limit is
        // there so that a failure is no hang; it says nothing about time.
        let patience = Instant::now() + Duration::from_secs(300);
        loop {
            rig.db().wait_idle().unwrap();
            let kept = rig.db().stats().log_live_bytes;
            if kept <= 4 * (256 << 10) {
                break;
            }
            let in_time = Instant::now() < patience;
            assert!(in_time, "{kept} bytes of log are kept of 3 MB written");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    assert_eq!(lsm.get(b"idle").unwrap().unwrap(), b"once");
    assert_eq!(btree.get(b"idle").unwrap().unwrap(), b"once");
}

fn figures_are_plausible(mut rig: Rig) {
    let entries = sample(2000);
    for keyspace in both(&mut rig) {
        load_mixed(&keyspace, &entries);
        keyspace.flush().unwrap();
        keyspace.compact().unwrap();
        let stats = keyspace.stats();
        assert_eq!(
            stats.entries_estimate, 2000,
            "exact after compact: {stats:?}"
        );
        assert!(stats.disk_bytes > 20_000, "{stats:?}");
        assert!(stats.files >= 1, "{stats:?}");
        assert!(
            stats.flushes >= 1 && stats.flush_bytes_written > 10_000,
            "{stats:?}"
        );
        assert!(stats.free_bytes <= stats.disk_bytes, "{stats:?}");
        if keyspace.engine() == EngineKind::BTree {
            assert!(stats.height >= 1, "{stats:?}");
        } else {
            assert_eq!(stats.height, 0, "{stats:?}");
            assert!(
                stats.levels.iter().map(|level| level.files).sum::<u64>() >= 1,
                "{stats:?}"
            );
        }
        let reads_before = keyspace.stats().blocks_read;
        assert_eq!(keyspace.iter().count(), 2000);
        assert!(keyspace.stats().blocks_read > reads_before);
    }
    let stats = rig.db().stats();
    assert_eq!(stats.keyspaces.len(), 2);
    // `load_mixed` puts every key once and every third key twice, one commit each.
    assert_eq!(
        (stats.commits, stats.ops),
        (2 * 2667, 2 * 2667),
        "{stats:?}"
    );
    assert!(stats.log_bytes_written > 0 && stats.bytes_written() > stats.log_bytes_written);
    assert_eq!(stats.background_error, None);
    assert_eq!(stats.snapshots, 0);
    let snapshot = rig.db().snapshot();
    assert_eq!(rig.db().stats().snapshots, 1);
    drop(snapshot);
    assert_eq!(rig.db().stats().snapshots, 0);
}

fn verify_sees_everything(mut rig: Rig) {
    let entries = sample(2000);
    for keyspace in both(&mut rig) {
        load_mixed(&keyspace, &entries);
        keyspace.compact().unwrap();
        let report = keyspace.verify().unwrap();
        assert!(report.is_clean(), "{:#?}", report.problems);
        assert!(report.entries >= 2000, "{report:?}");
        assert!(report.files >= 1 && report.blocks >= 3, "{report:?}");
    }
    let report = rig.db().verify().unwrap();
    assert!(report.is_clean() && report.entries >= 4000, "{report:?}");
}

fn options_may_change_between_opens(mut rig: Rig) {
    let mut random = Random::new(22);
    let mut expected = Map::new();
    for round in 0..10u64 {
        let keyspaces = both(&mut rig);
        for _ in 0..200 {
            let key = random.below(1000).to_be_bytes()[6..].to_vec();
            let value = random.bytes(80);
            keyspaces.iter().for_each(|keyspace| {
                keyspace.put(&key, &value).unwrap();
            });
            expected.insert(key, value);
        }
        for keyspace in &keyspaces {
            assert_holds(keyspace, &expected);
        }
        drop(keyspaces);
        rig.close();
        rig.options = rig
            .options
            .clone()
            .log_segment_bytes(*random.pick(&[64 << 10, 1 << 20]))
            .write_buffer_bytes(*random.pick(&[16 << 10, 1 << 20]))
            .cache_bytes(*random.pick(&[0, 4 << 10, 1 << 20]))
            .mmap_reads(round % 2 == 0)
            .mmap_log(round % 3 == 0)
            .background_threads((round % 3) as usize);
    }
    for keyspace in both(&mut rig) {
        assert_eq!(contents(&keyspace), expected);
    }
}

#[test]
fn impossible_options_are_refused() {
    let rig = Rig::new(Place::Disk, Sizes::Default);
    for options in [
        Options::new().log_segment_bytes(1),
        Options::new().log_segment_bytes(2 << 30),
        Options::new().write_buffer_bytes(0),
        Options::new().background_threads(1000),
    ] {
        assert_invalid(options.open(rig.path()));
    }
    assert!(!rig.path().exists());
}

/// What operating systems put into a fresh volume kept a store from being made in it.
#[test]
fn a_fresh_volume_is_taken() {
    let home = tempfile::tempdir().unwrap();
    for name in ["lost+found", "System Volume Information", ".Trash-1000"] {
        std::fs::create_dir(home.path().join(name)).unwrap();
    }
    for name in [".DS_Store", ".gitkeep"] {
        std::fs::write(home.path().join(name), "").unwrap();
    }
    for _ in 0..2 {
        let db = Db::open(home.path()).unwrap();
        db.keyspace("a", EngineKind::Lsm)
            .unwrap()
            .put("k", "v")
            .unwrap();
    }
    assert!(home.path().join("lost+found").is_dir());
}

/// It was called "neither empty nor a store", or that there was no store.
#[test]
fn a_missing_catalogue_is_called_that() {
    let home = tempfile::tempdir().unwrap();
    let db = Db::open(home.path()).unwrap();
    db.keyspace("a", EngineKind::Lsm)
        .unwrap()
        .put("k", "v")
        .unwrap();
    db.flush().unwrap();
    db.close().unwrap();
    drop(db);
    let catalogue = home.path().join("CATALOG");
    std::fs::remove_file(&catalogue).unwrap();
    // Whatever else is left of the store.
    for removed in [None, Some("WAL-MANIFEST"), Some("wal")] {
        match removed {
            Some("wal") => std::fs::remove_dir_all(home.path().join("wal")).unwrap(),
            Some(name) => std::fs::remove_file(home.path().join(name)).unwrap(),
            None => {}
        }
        for options in [
            Options::new(),
            Options::new().read_only(true),
            Options::new().create_if_missing(false),
        ] {
            match options.open(home.path()) {
                Err(Error::Corruption { file, what, .. }) => {
                    assert_eq!(file, catalogue);
                    assert!(what.starts_with("the catalogue is missing"), "{what}");
                }
                other => panic!("{removed:?} removed: {other:?}"),
            }
        }
    }
    // Without anything of it there is no store.
    std::fs::remove_dir_all(home.path().join("ks-00000001")).unwrap();
    let missing = Options::new().read_only(true).open(home.path());
    assert!(missing.is_err_and(|error| error.is_not_found()));
    drop(Db::open(home.path()).unwrap());
}

/// The message was "too many levels of symbolic links", and nothing else.
#[cfg(unix)]
#[test]
fn a_file_that_is_a_symbolic_link_is_refused_with_words() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("store");
    drop(Db::open(&dir).unwrap());
    for name in ["CATALOG", "LOCK", "WAL-MANIFEST"] {
        let (file, elsewhere) = (dir.join(name), home.path().join(name));
        std::fs::rename(&file, &elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &file).unwrap();
        let refused = format!("{:#}", Db::open(&dir).unwrap_err());
        assert!(refused.contains(name), "{refused}");
        assert!(refused.contains("it is a symbolic link"), "{refused}");
        std::fs::remove_file(&file).unwrap();
        std::fs::rename(&elsewhere, &file).unwrap();
    }
    // The directory may be linked as a whole.
    let link = home.path().join("link");
    std::os::unix::fs::symlink(&dir, &link).unwrap();
    drop(Db::open(&link).unwrap());
}

#[test]
fn a_directory_of_something_else_is_not_taken() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("letter.txt"), "dear ada").unwrap();
    assert!(Db::open(dir.path()).is_err());
    assert_eq!(
        std::fs::read_dir(dir.path()).unwrap().count(),
        1,
        "nothing was added"
    );
}

#[test]
fn the_default_durability_survives_a_power_loss() {
    let mut rig = Rig::new(Place::Memory, Sizes::Tiny);
    rig.options = rig.options.clone().durability(Durability::Sync);
    let [lsm, btree] = both(&mut rig);
    let mut batch = rig.db().batch();
    batch.put(&lsm, b"a", b"1");
    batch.put(&btree, b"a", b"1");
    rig.db().write(batch, Durability::Sync).unwrap();
    lsm.put(b"b", b"2").unwrap();
    btree.put(b"b", b"2").unwrap();
    let after = rig.mem().crash();
    let db = rig
        .options
        .clone()
        .fs(std::sync::Arc::new(after))
        .open(rig.path())
        .unwrap();
    for name in ["lsm", "btree"] {
        assert_eq!(
            db.existing_keyspace(name).unwrap().unwrap().iter().count(),
            2,
            "{name}"
        );
    }
}

/// Every position at which a changing operation of the file system can fail: the operation of the
/// store fails or not, nothing is half visible, and after the trouble is over, opening again finds
/// a prefix with at least what was acknowledged.
#[test]
fn every_position_of_a_failing_write() {
    let mut positions = 0;
    for once in [true, false] {
        for position in 0.. {
            let mut rig = Rig::new(Place::Memory, Sizes::Tiny)
                .with(|options| options.background_threads(0).durability(Durability::Sync));
            let [lsm, btree] = both(&mut rig);
            let kind = std::io::ErrorKind::StorageFull;
            if once {
                rig.mem().fail_once_after(position, kind);
            } else {
                rig.mem().fail_after(position, kind);
            }
            let mut acknowledged = 0u32;
            let mut attempted = 0u32;
            let mut trouble = false;
            for n in 1..=24u32 {
                let mut batch = rig.db().batch();
                for keyspace in [&lsm, &btree] {
                    batch.put(keyspace, b"count", n.to_le_bytes());
                    batch.put(keyspace, n.to_be_bytes(), vec![n as u8; 2000]);
                }
                attempted = n;
                match rig.db().write(batch, Durability::Sync) {
                    Ok(_) => acknowledged = n,
                    Err(_) => trouble = true,
                }
                if n % 6 == 0 {
                    trouble |= rig.db().flush().is_err();
                }
                trouble |= rig.db().run_background_once().is_err();
                let snapshot = rig.db().snapshot();
                let left = snapshot.get(&lsm, b"count").unwrap();
                assert_eq!(left, snapshot.get(&btree, b"count").unwrap());
                if trouble {
                    break;
                }
            }
            trouble |= rig.db().close().is_err();
            drop((lsm, btree));
            rig.abandon();
            rig.mem().heal();
            let after = [rig.mem().clone(), rig.mem().crash()];
            for fs in after {
                let db = rig
                    .options
                    .clone()
                    .fs(std::sync::Arc::new(fs))
                    .open(rig.path())
                    .unwrap();
                for name in ["lsm", "btree"] {
                    let keyspace = db.existing_keyspace(name).unwrap().unwrap();
                    let found = keyspace.get(b"count").unwrap();
                    let count = found.map_or(0, |v| u32::from_le_bytes(v[..].try_into().unwrap()));
                    assert!(
                        (acknowledged..=attempted).contains(&count),
                        "position {position}: {count} is not in {acknowledged}..={attempted}"
                    );
                    assert_eq!(
                        keyspace.prefix([0]).count() as u32,
                        count,
                        "position {position}"
                    );
                    for n in 1..=count {
                        let value = keyspace.get(n.to_be_bytes()).unwrap().unwrap();
                        assert_eq!(value, vec![n as u8; 2000], "position {position}");
                    }
                    keyspace.put(b"writable", b"again").unwrap();
                }
                assert_clean(&db);
            }
            positions += 1;
            if !trouble {
                break;
            }
        }
    }
    support::rig::report(format_args!("failing writes: {positions} positions"));
}

#[test]
fn unknown_files_are_ignored_and_never_deleted() {
    let mut rig = Rig::new(Place::Disk, Sizes::Tiny);
    let entries = sample(500);
    for keyspace in both(&mut rig) {
        load_mixed(&keyspace, &entries);
    }
    rig.close();
    let mut strangers: Vec<PathBuf> = Vec::new();
    let mut dirs = vec![rig.path().to_path_buf()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            }
        }
        for name in [
            "notes.txt",
            ".hidden",
            "000",
            "table",
            "ks",
            "0000000x.sst",
            "MANIFEST-old",
        ] {
            let path = dir.join(name);
            if !path.exists() {
                std::fs::write(&path, "not yours").unwrap();
                strangers.push(path);
            }
        }
    }
    for _ in 0..2 {
        for keyspace in both(&mut rig) {
            assert_holds(&keyspace, &entries);
            keyspace.compact().unwrap();
        }
        assert_clean(rig.db());
        rig.close();
    }
    for path in strangers {
        assert_eq!(
            std::fs::read(&path).unwrap(),
            b"not yours",
            "{}",
            path.display()
        );
    }
}

#[test]
fn files_are_private() {
    let mut rig = Rig::new(Place::Disk, Sizes::Tiny);
    for keyspace in both(&mut rig) {
        load_mixed(&keyspace, &sample(500));
    }
    rig.close();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mut todo = vec![rig.path().to_path_buf()];
        while let Some(path) = todo.pop() {
            let mode = path.metadata().unwrap().permissions().mode() & 0o777;
            assert_eq!(mode & 0o077, 0, "{} has mode {mode:o}", path.display());
            if path.is_dir() {
                todo.extend(
                    std::fs::read_dir(&path)
                        .unwrap()
                        .map(|entry| entry.unwrap().path()),
                );
            }
        }
    }
    // A file of the store cannot be replaced by a link to elsewhere and be followed.
    assert!(
        rig.fs()
            .open(&rig.path().join("CATALOG"), OpenMode::Read)
            .is_ok()
    );
}

/// A batch stays below 1 GiB. The memory for it is really taken, so this is one test, not one
/// for each configuration.
#[test]
#[ignore = "takes 2 GiB of memory"]
fn batches_beyond_the_limit_are_refused() {
    let mut rig = Rig::new(Place::Memory, Sizes::Default);
    let [lsm, btree] = both(&mut rig);
    let value = vec![0; MAX_VALUE_LEN_BYTES];
    let mut batch = rig.db().batch();
    for n in 0..6u32 {
        batch.put(
            if n % 2 == 0 { &lsm } else { &btree },
            n.to_be_bytes(),
            &value,
        );
    }
    assert_invalid(rig.db().write(batch, Durability::Buffered));
    assert_holds(&lsm, &Map::new());
    assert_holds(&btree, &Map::new());
}

#[test]
fn a_batch_that_passes_the_limit_is_refused_before_it_takes_the_memory() {
    let mut batch = Batch::new();
    let value = vec![0; MAX_VALUE_LEN_BYTES];
    batch.put(b"first", &value[..1000]);
    let before = batch.len_bytes();
    batch.put(b"refused", vec![0; MAX_VALUE_LEN_BYTES + 1]);
    // Once refused, nothing is added any more.
    for _ in 0..8 {
        batch.put(b"later", &value);
    }
    assert_eq!(batch.len_bytes(), before);
    let kv = hedgerow::Model::new();
    assert_invalid(kv.write_with(batch, Durability::Sync));
    assert_holds(&kv, &Map::new());
}

#[test]
#[ignore = "takes more than 1 GiB of memory"]
fn a_value_of_the_longest_length() {
    for engine in EngineKind::ALL {
        let mut rig = Rig::new(Place::Disk, Sizes::Default);
        let value = vec![0xA5; MAX_VALUE_LEN_BYTES];
        let keyspace = rig.keyspace("data", engine);
        keyspace.put(b"large", &value).unwrap();
        keyspace.flush().unwrap();
        assert!(keyspace.get(b"large").unwrap().unwrap() == value);
        drop(keyspace);
        rig.close();
        let keyspace = rig.keyspace("data", engine);
        assert!(keyspace.get(b"large").unwrap().unwrap() == value);
        assert_clean(rig.db());
    }
}

/// A kill leaves what the system has in memory, which a reader reads, and a power loss takes.
#[test]
fn a_reader_calls_durable_only_what_a_power_loss_cannot_take() {
    for engine in EngineKind::ALL {
        let fs = SimFs::new();
        let options = |fs: &SimFs| {
            Options::new()
                .fs(Arc::new(fs.clone()))
                .background_threads(0)
                .durability(Durability::Buffered)
        };
        let db = options(&fs).open("/store").unwrap();
        let data = db.keyspace("data", engine).unwrap();
        let synced = data.put("synced", "1").unwrap();
        db.sync().unwrap();
        let seq = data.put("key", "1").unwrap();
        let killed = fs.killed();
        let reader = options(&killed).read_only(true).open("/store").unwrap();
        assert!(reader.durable_seq() < seq);
        assert!(matches!(reader.wait_durable(seq), Err(Error::ReadOnly)));
        assert!(reader.wait_durable(seq.next()).is_err());
        drop(reader);
        let after = options(&killed.crash()).open("/store").unwrap();
        let data = after.existing_keyspace("data").unwrap().unwrap();
        assert!(data.contains_key("synced").unwrap() && !data.contains_key("key").unwrap());
        // Two commits that say so.
        db.sync().unwrap();
        let data = db.existing_keyspace("data").unwrap().unwrap();
        data.put("later", "1").unwrap();
        let reader = options(&fs.killed()).read_only(true).open("/store");
        let reader = reader.unwrap();
        assert!(reader.durable_seq() >= seq && synced < seq);
        reader.wait_durable(seq).unwrap();
    }
}
