//! Values that are written by and by: docs/values.md, "Writing by and by".

use std::cell::Cell;
use std::collections::HashSet;
use std::io::{self, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex};

use hedgerow::fs::{CrashPolicy, Fault, FaultFs, FaultPlan, Fs, OpKind, OpenMode, SimFs};
use hedgerow::internals::wal;
use hedgerow::{Db, Durability, EngineKind, Error, Keyspace, MAX_KEY_LEN_BYTES, Options};
use support::random::{Random, Source};
use support::repair::store_id;
use support::sizes::{Sizes, keyspace_options, single_threaded};

use super::both_engines::on_both_engines;
use super::value_streams::{
    check_damaged, check_reader, find, flip, keyspace_of, lengths, open, read_by_and_by, settle,
};
use super::values::{STORE, files, options};

/// Up to here a value is put like any other.
const BUFFER: usize = 256 << 10;

on_both_engines! {
    what_was_streamed_in_is_read_in_every_way,
    a_stream_for_which_there_is_no_room_leaves_nothing,
    a_stream_whose_record_finds_no_segment_leaves_nothing,
    streamed_values_outlive_everything_but_their_last_reference,
    a_stream_that_does_not_end_leaves_nothing,
    a_streamed_put_is_a_commit_like_any_other,
    a_writer_and_the_end_of_its_store_or_keyspace,
    overwritten_streams_do_not_wait_for_a_full_write_buffer,
    damage_of_a_streamed_value_is_named,
    power_fails_at_every_change_of_a_stream,
    every_operation_of_a_stream_fails_once,
    a_key_that_leaves_no_place_for_a_reference_has_its_value_beside_it,
    records_that_cannot_be_right_are_refused,
}

/// Gives bytes in pieces of changing length, as a socket does, and sometimes nothing at first.
struct Trickle<'a> {
    rest: &'a [u8],
    random: Random,
}

impl<'a> Trickle<'a> {
    fn new(value: &'a [u8], seed: u64) -> Self {
        Self {
            rest: value,
            random: Random::new(seed),
        }
    }
}

impl Read for Trickle<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.random.one_in(10) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let len = 1 + self.random.below(90_000) as usize;
        let len = len.min(buffer.len()).min(self.rest.len());
        let (now, later) = self.rest.split_at(len);
        buffer[..len].copy_from_slice(now);
        self.rest = later;
        Ok(len)
    }
}

/// By a writer, in pieces of changing length.
fn stream(keyspace: &Keyspace, key: &str, value: &[u8], seed: u64) {
    let mut random = Random::new(seed);
    let mut writer = keyspace.writer(key).unwrap();
    let mut rest = value;
    while !rest.is_empty() {
        let len = random.below(400_000) as usize;
        let (now, later) = rest.split_at(len.min(rest.len()));
        writer.write_all(now).unwrap();
        rest = later;
    }
    assert_eq!(writer.len(), value.len() as u64);
    writer.flush().unwrap();
    writer.finish().unwrap();
}

/// Names of the log's directory that are in the making, or left over.
fn temporaries(fs: &dyn Fs) -> usize {
    files(fs, ".tmp").len()
}

fn what_was_streamed_in_is_read_in_every_way(engine: EngineKind) {
    for fs in [SimFs::new(), SimFs::with_maps()] {
        let (mut db, mut keyspace) = open(&fs, engine);
        let mut random = Random::new(1);
        let mut all = lengths();
        all.extend([BUFFER - 1, BUFFER, BUFFER + 1, 2 * BUFFER, 2 * BUFFER + 1]);
        for (n, len) in all.into_iter().enumerate() {
            let value = random.bytes(len);
            match n % 2 {
                0 => stream(&keyspace, "k", &value, n as u64),
                _ => {
                    let source = Trickle::new(&value, n as u64);
                    keyspace.put_from("k", source).unwrap();
                }
            }
            let streamed = usize::from(len > BUFFER);
            assert_eq!(files(&fs, ".val").len(), streamed, "{len}");
            check_reader(&keyspace, "k", &value, &mut random);
            assert!(keyspace.get("k").unwrap().unwrap() == value);
            match n % 4 {
                0 => keyspace.flush().unwrap(),
                1 => {
                    drop(keyspace);
                    db.close().unwrap();
                    (db, keyspace) = open(&fs, engine);
                }
                // What is in the log only is replayed.
                2 => {
                    drop((keyspace, db));
                    (db, keyspace) = open(&fs, engine);
                }
                _ => {
                    keyspace.compact().unwrap();
                    settle(&db);
                }
            }
            check_reader(&keyspace, "k", &value, &mut random);
            assert!(keyspace.get("k").unwrap().unwrap() == value);
            assert_eq!(keyspace.iter().count(), 1);
            let middle = keyspace.get_range("k", len / 2..len / 2 + 100);
            assert!(middle.unwrap().unwrap() == value[len / 2..(len / 2 + 100).min(len)]);
            assert!(db.verify().unwrap().is_clean());
            assert!(keyspace.verify().unwrap().is_clean());
            keyspace.delete("k").unwrap();
            keyspace.compact().unwrap();
            settle(&db);
            assert_eq!(files(&fs, ".val"), [""; 0], "{len}");
        }
    }
}

/// Flushed, merged, collected around, held by snapshots, killed and opened again.
fn streamed_values_outlive_everything_but_their_last_reference(engine: EngineKind) {
    let fs = SimFs::new();
    let (db, keyspace) = open(&fs, engine);
    let mut random = Random::new(2);
    let values: Vec<_> = (0..3)
        .map(|n| random.bytes(BUFFER + 1 + n * 90_000))
        .collect();
    let keys = ["a", "b", "c"];
    for (key, value) in keys.iter().zip(&values) {
        stream(&keyspace, key, value, 1);
    }
    for round in 0..4 {
        for n in 0..300_u64 {
            let key = random.below(100).to_be_bytes();
            keyspace.put(key, random.bytes(2000)).unwrap();
            if n % 50 == 0 {
                settle(&db);
            }
        }
        keyspace.flush().unwrap();
        keyspace.compact().unwrap();
        settle(&db);
        for (key, value) in keys.iter().zip(&values) {
            assert!(keyspace.get(key).unwrap().unwrap() == *value, "{round}");
        }
    }
    let stats = db.stats();
    assert!(stats.value_live_bytes >= 3 * BUFFER as u64, "{stats:?}");
    let snapshot = keyspace.snapshot();
    keyspace.clear().unwrap();
    keyspace.compact().unwrap();
    settle(&db);
    for (key, value) in keys.iter().zip(&values) {
        assert!(snapshot.get(key).unwrap().unwrap() == *value);
        check_reader(&snapshot, key, value, &mut random);
    }
    drop(snapshot);
    keyspace.put("z", "1").unwrap();
    keyspace.compact().unwrap();
    settle(&db);
    assert_eq!(files(&fs, ".val"), [""; 0]);

    // One that only the log refers to, after a kill; and of a keyspace that is dropped.
    stream(&keyspace, "a", &values[1], 2);
    let killed = fs.killed();
    let (db, keyspace) = open(&killed, engine);
    settle(&db);
    assert!(keyspace.get("a").unwrap().unwrap() == values[1]);
    db.drop_keyspace("a").unwrap();
    drop(keyspace);
    settle(&db);
    assert_eq!(files(&killed, ".val"), [""; 0]);
    drop(db);
    drop(open(&killed, engine));
}

fn a_stream_that_does_not_end_leaves_nothing(engine: EngineKind) {
    let fs = SimFs::new();
    let (db, keyspace) = open(&fs, engine);
    keyspace.put("k", "before").unwrap();
    let value = Random::new(3).bytes(3 * BUFFER);
    let (before, seq) = (temporaries(&fs), db.stats().ops);
    let check = |what: &str| {
        assert_eq!(keyspace.get("k").unwrap().unwrap(), "before", "{what}");
        assert_eq!(temporaries(&fs), before, "{what}");
        assert_eq!(files(&fs, ".val"), [""; 0], "{what}");
        assert_eq!(db.stats().ops, seq, "{what}");
    };
    for len in [0, 1, BUFFER, BUFFER + 1, 3 * BUFFER] {
        let mut writer = keyspace.writer("k").unwrap();
        writer.write_all(&value[..len]).unwrap();
        assert_eq!(temporaries(&fs), before + usize::from(len > BUFFER));
        drop(writer);
        check("dropped");

        let error = keyspace
            .put_from("k", value[..len].chain(Broken))
            .unwrap_err();
        let Error::Io { source, .. } = &error else {
            panic!("{error}");
        };
        assert_eq!(source.kind(), io::ErrorKind::BrokenPipe);
        check("the source failed");

        let panicked = catch_unwind(AssertUnwindSafe(|| {
            keyspace.put_from("k", value[..len].chain(Panicking))
        }));
        panicked.unwrap_err();
        check("the source panicked");
    }
    assert!(keyspace.writer(vec![1; 65_536]).is_err());
    let lying = keyspace.put_from("k", Lying).unwrap_err();
    assert!(matches!(lying, Error::InvalidArgument { .. }), "{lying}");
    check("refused");
    keyspace.put("k", "after").unwrap();
    settle(&db);
    assert!(db.verify().unwrap().is_clean());
}

struct Broken;

impl Read for Broken {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::BrokenPipe.into())
    }
}

struct Panicking;

impl Read for Panicking {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        panic!("a source that panics")
    }
}

struct Lying;

impl Read for Lying {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(buffer.len() + 1)
    }
}

/// Its place in the order of commits is that of the end, and what relied on the key is told.
fn a_streamed_put_is_a_commit_like_any_other(engine: EngineKind) {
    let fs = SimFs::new();
    let (db, keyspace) = open(&fs, engine);
    let mut random = Random::new(4);
    let value = random.bytes(2 * BUFFER);
    let mut writer = keyspace.writer("k").unwrap();
    writer.write_all(&value).unwrap();
    let other = keyspace.put("k", "meanwhile").unwrap();
    let snapshot = keyspace.snapshot();
    let last = writer.finish().unwrap();
    assert_eq!(last, other.next());
    assert_eq!(snapshot.get("k").unwrap().unwrap(), "meanwhile");
    assert!(keyspace.get("k").unwrap().unwrap() == value);

    let tx = db.transaction().unwrap();
    assert!(tx.get(&keyspace, "k").unwrap().is_some());
    tx.put(&keyspace, "other", "1").unwrap();
    stream(&keyspace, "k", &value, 1);
    assert!(tx.commit().unwrap_err().is_conflict());

    let streamed_within = Cell::new(false);
    let updated = keyspace.update("k", |old| {
        if !streamed_within.replace(true) {
            stream(&keyspace, "k", &value[1..], 2);
        }
        old.map(|old| old.len().to_string())
    });
    let expected = (value.len() - 1).to_string();
    assert_eq!(updated.unwrap().new.unwrap(), expected);

    // From a reader of the store, whose errors stay what they are.
    stream(&keyspace, "k", &value, 3);
    let reader = keyspace.reader("k").unwrap().unwrap();
    keyspace.put_from("copy", reader).unwrap();
    check_reader(&keyspace, "copy", &value, &mut random);

    // Durable when it says so, with all before it.
    keyspace.put("buffered", "1").unwrap();
    let sync = keyspace.with_durability(Durability::Sync);
    sync.put_from("k", &value[5..]).unwrap();
    let crashed = fs.crash();
    let (_db, keyspace) = open(&crashed, engine);
    assert!(keyspace.get("k").unwrap().unwrap() == value[5..]);
    assert!(keyspace.contains_key("buffered").unwrap());
}

fn a_writer_and_the_end_of_its_store_or_keyspace(engine: EngineKind) {
    let fs = SimFs::new();
    let (db, keyspace) = open(&fs, engine);
    let value = Random::new(5).bytes(2 * BUFFER);
    for is_spilled in [false, true] {
        let other = keyspace_of(&db, "b", engine);
        let mut writer = other.writer("k").unwrap();
        let len = if is_spilled { value.len() } else { 10 };
        writer.write_all(&value[..len]).unwrap();
        db.drop_keyspace("b").unwrap();
        assert!(matches!(writer.finish(), Err(Error::NoSuchKeyspace { .. })));
        assert!(matches!(
            other.writer("k"),
            Err(Error::NoSuchKeyspace { .. })
        ));
        assert_eq!((temporaries(&fs), files(&fs, ".val").len()), (0, 0));
    }
    let mut spilled = keyspace.writer("k").unwrap();
    spilled.write_all(&value).unwrap();
    let mut short = keyspace.writer("l").unwrap();
    short.write_all(b"1").unwrap();
    db.close().unwrap();
    assert!(matches!(keyspace.writer("k"), Err(Error::Closed)));
    drop((db, keyspace));
    assert!(options(&fs).open(STORE).unwrap_err().is_locked());
    let refused = spilled.write_all(&value).unwrap_err();
    let inner = refused.get_ref().unwrap().downcast_ref::<Error>();
    assert!(matches!(inner, Some(Error::Closed)));
    assert!(matches!(spilled.finish(), Err(Error::Closed)));
    assert!(matches!(short.finish(), Err(Error::Closed)));
    assert_eq!(temporaries(&fs), 0);
    let (db, keyspace) = open(&fs, engine);
    assert!(keyspace.is_empty().unwrap());
    drop((db, keyspace));
    let db = options(&fs).read_only(true).open(STORE).unwrap();
    let keyspace = keyspace_of(&db, "a", engine);
    assert!(matches!(keyspace.writer("k"), Err(Error::ReadOnly)));
}

/// A reference takes next to nothing of a write buffer, and the value nothing of the log.
fn overwritten_streams_do_not_wait_for_a_full_write_buffer(engine: EngineKind) {
    let fs = SimFs::new();
    // The log may have 256 KiB here.
    let (db, keyspace) = open(&fs, engine);
    let value = Random::new(6).bytes(2 * BUFFER);
    for n in 0..20 {
        stream(&keyspace, "k", &value[n..], n as u64);
        settle(&db);
        let count = files(&fs, ".val").len();
        assert!(count <= 4, "{count} files after {n} puts");
    }
    assert!(keyspace.get("k").unwrap().unwrap() == value[19..]);
    // Also what a recovery has in memory counts.
    let killed = fs.killed();
    let (db, keyspace) = open(&killed, engine);
    for n in 0..10 {
        stream(&keyspace, "k", &value[n..], n as u64);
        settle(&db);
        assert!(files(&killed, ".val").len() <= 4);
    }
}

fn damage_of_a_streamed_value_is_named(engine: EngineKind) {
    for fs in [SimFs::new(), SimFs::with_maps()] {
        let mut random = Random::new(7);
        let value = random.bytes(2 * BUFFER + 500);
        let (db, keyspace) = open(&fs, engine);
        stream(&keyspace, "k", &value, 1);
        let in_log = fs.killed();
        keyspace.flush().unwrap();
        settle(&db);
        drop(keyspace);
        db.close().unwrap();
        let (name, at) = find(&fs, &value);
        assert!(name.ends_with(".val"), "{name}");
        let path = Path::new(STORE).join("wal").join(&name);
        for damaged in [0, 70_000, BUFFER - 1, BUFFER, value.len() - 1] {
            for base in [&fs, &in_log] {
                let copy = base.killed();
                flip(&copy, &name, at + damaged as u64);
                let (db, keyspace) = open(&copy, engine);
                let mut reader = keyspace.reader("k").unwrap().unwrap();
                check_damaged(&mut reader, &value, damaged, (&name, at), &mut random);
                let error = keyspace.get("k").unwrap_err();
                assert!(error.is_corruption() && error.to_string().contains(&name));
                let error = keyspace.put_from("copy", reader_of(&keyspace)).unwrap_err();
                assert!(error.is_corruption() && error.to_string().contains(&name));
                assert!(!keyspace.contains_key("copy").unwrap());
                keyspace.flush().unwrap();
                let problems = db.verify().unwrap().problems;
                assert_eq!(problems.len(), 1, "{problems:?}");
                assert_eq!(problems[0].file.as_deref(), Some(&*path));
            }
        }
        // The header concerns no value, but a file without it may be anybody's.
        let copy = fs.killed();
        flip(&copy, &name, 20);
        let (db, keyspace) = open(&copy, engine);
        check_reader(&keyspace, "k", &value, &mut random);
        let problems = db.verify().unwrap().problems;
        assert_eq!(problems.len(), 1, "{problems:?}");
        drop((db, keyspace));
        // A file that is missing.
        let copy = in_log.killed();
        copy.remove_file(&path).unwrap();
        let error = options(&copy).open(STORE).unwrap_err();
        assert!(error.is_corruption() && error.to_string().contains(&name));
        // One that was cut off.
        let copy = fs.killed();
        let file = copy.open(&path, OpenMode::ReadWrite).unwrap();
        file.set_len(at + 100_000).unwrap();
        drop(file);
        let (_db, keyspace) = open(&copy, engine);
        let mut reader = keyspace.reader("k").unwrap().unwrap();
        assert!(read_by_and_by(&mut reader, &mut random).is_err());
    }
}

fn reader_of(keyspace: &Keyspace) -> hedgerow::ValueReader {
    keyspace.reader("k").unwrap().unwrap()
}

/// What the key has after each commit, and up to which one it must be there.
#[derive(Clone)]
struct History {
    states: Vec<Option<Vec<u8>>>,
    durable: usize,
}

/// Every state that a power loss leaves before any change that streams, a flush and a merge make
/// holds the key as one of the commits left it, and no file that nothing needs.
fn power_fails_at_every_change_of_a_stream(engine: EngineKind) {
    let fs = SimFs::new();
    let (db, keyspace) = open(&fs, engine);
    keyspace
        .with_durability(Durability::Sync)
        .put("k", "0")
        .unwrap();
    let history = Arc::new(Mutex::new(History {
        states: vec![Some(b"0".to_vec())],
        durable: 0,
    }));
    let found = Arc::new(Mutex::new((HashSet::new(), Vec::new())));
    let policy = CrashPolicy::new().exhaustive_max(32).each_max(6).random(4);
    fs.on_change({
        let (history, found) = (Arc::clone(&history), Arc::clone(&found));
        move |fs, _| {
            let mut found = found.lock().unwrap();
            let history = history.lock().unwrap().clone();
            let durable = history.durable;
            for state in fs.crash_states(&policy) {
                if found.0.insert((state.hash, durable)) {
                    found.1.push((state.fs, history.clone()));
                }
            }
        }
    });
    let mut random = Random::new(8);
    for (n, durability) in [Durability::Sync, Durability::Buffered, Durability::Sync]
        .into_iter()
        .enumerate()
    {
        let value = random.bytes(BUFFER + 1 + n * 70_000);
        // It may be there from the moment on that it is being put.
        history.lock().unwrap().states.push(Some(value.clone()));
        stream(&keyspace.with_durability(durability), "k", &value, n as u64);
        if durability == Durability::Sync {
            let mut history = history.lock().unwrap();
            history.durable = history.states.len() - 1;
        }
        if n == 1 {
            keyspace.flush().unwrap();
            let mut history = history.lock().unwrap();
            history.durable = history.states.len() - 1;
        }
    }
    // One that is given up.
    let mut given_up = keyspace.writer("k").unwrap();
    given_up.write_all(&random.bytes(2 * BUFFER)).unwrap();
    drop(given_up);
    history.lock().unwrap().states.push(None);
    keyspace.delete("k").unwrap();
    keyspace.compact().unwrap();
    settle(&db);
    fs.clear_hook();
    assert_eq!(files(&fs, ".val"), [""; 0]);
    let states = std::mem::take(&mut found.lock().unwrap().1);
    assert!(states.len() > 100, "{}", states.len());
    for (number, (image, history)) in states.into_iter().enumerate() {
        let (db, keyspace) = open(&image, engine);
        let value = keyspace.get("k").unwrap().map(|value| value.to_vec());
        let is_right = history.states[history.durable..].contains(&value);
        assert!(is_right, "state {number}: another value");
        assert!(db.verify().unwrap().is_clean(), "state {number}");
        // A tree on the disk may refer to a value that only the log knows to be overwritten.
        keyspace.compact().unwrap();
        settle(&db);
        let streamed = value.is_some_and(|value| value.len() > BUFFER);
        let left = files(&image, ".val").len();
        assert_eq!(left, usize::from(streamed), "state {number}: files left");
        if number % 16 == 0 {
            stream(&keyspace, "k", &random.bytes(BUFFER + 5), 1);
            drop((db, keyspace));
            let (db, keyspace) = open(&image.crash(), engine);
            assert!(db.verify().unwrap().is_clean(), "state {number}");
            assert!(keyspace.contains_key("k").unwrap() || number > 0);
        }
    }
}

fn faulty(disk: &FaultFs, engine: EngineKind) -> (Db, Keyspace) {
    let options: Options = single_threaded(Arc::new(disk.clone())).durability(Durability::Sync);
    let db = options.open(STORE).unwrap();
    let asked = keyspace_options(engine, Sizes::Tiny).value_threshold_bytes(100);
    let keyspace = db.keyspace_with("a", asked).unwrap();
    (db, keyspace)
}

/// Nothing was logged, and yet each attempt kept its file, as if the log could have the record.
fn a_stream_whose_record_finds_no_segment_leaves_nothing(engine: EngineKind) {
    let sim = SimFs::new();
    let disk = FaultFs::new(Arc::new(sim.clone()));
    let (db, keyspace) = faulty(&disk, engine);
    let log = Path::new(STORE).join("wal");
    let full = |nth| FaultPlan::once(&[OpKind::Create], nth, Fault::Full).within(&log);
    // Until the active segment has no place for the shortest of records.
    disk.plan(full(0));
    let refused = (0..100_000_u32).find_map(|n| keyspace.put(n.to_be_bytes(), []).err());
    assert!(refused.unwrap().is_out_of_space());
    let (key, value) = ([b'k'; 60], Random::new(12).bytes(2 * BUFFER));
    for _ in 0..3 {
        // The first file is that of the value, the second that of the segment.
        disk.plan(full(1));
        let refused = keyspace.put_from(key, &value[..]).unwrap_err();
        assert!(refused.is_out_of_space() && disk.fired() == 1);
        assert_eq!((temporaries(&sim), files(&sim, ".val").len()), (0, 0));
    }
    disk.heal();
    keyspace.put_from(key, &value[..]).unwrap();
    settle(&db);
    assert_eq!(files(&sim, ".val").len(), 1);
}

/// After an error nothing is there, and what was put before is; opened again, the value is there
/// whole, or is not.
fn every_operation_of_a_stream_fails_once(engine: EngineKind) {
    const KINDS: [OpKind; 6] = [
        OpKind::Create,
        OpKind::Write,
        OpKind::Sync,
        OpKind::Rename,
        OpKind::SyncDir,
        OpKind::Remove,
    ];
    let mut random = Random::new(9);
    let (old, new) = (random.bytes(BUFFER + 9), random.bytes(2 * BUFFER + 9));
    let mut fired = 0;
    for kind in KINDS {
        for fault in [
            Fault::Io,
            Fault::Full,
            Fault::Short,
            Fault::Arrived,
            Fault::SyncDropped,
            Fault::SyncLost,
        ] {
            for nth in 0..8 {
                let sim = SimFs::new();
                let disk = FaultFs::new(Arc::new(sim.clone()));
                let (db, keyspace) = faulty(&disk, engine);
                stream(&keyspace, "k", &old, 1);
                disk.plan(FaultPlan::once(&[kind], nth, fault));
                let put = keyspace.put_from("k", Trickle::new(&new, nth));
                let has_fired = disk.fired() > 0;
                disk.heal();
                let when = format!("{kind:?} {nth} {fault:?}: {put:?}");
                let value = keyspace.get("k").unwrap().unwrap();
                match &put {
                    Ok(_) => assert!(value == new, "{when}"),
                    Err(_) => assert!(value == old, "{when}"),
                }
                // Whether the store goes on or not.
                let later = keyspace.put_from("later", &new[..]).is_ok();
                // Nor may anything that is done now remove a file that the log may refer to.
                let too_long = vec![b'k'; MAX_KEY_LEN_BYTES + 1];
                assert!(keyspace.put_from(too_long, &new[..]).is_err());
                let _ = (keyspace.flush(), keyspace.compact(), db.wait_idle());
                drop((keyspace, db));
                disk.evict().unwrap();
                for image in [sim.killed(), sim.crash()] {
                    let (db, keyspace) = open(&image, engine);
                    let value = keyspace.get("k").unwrap().unwrap();
                    let is_new = value == new;
                    assert!(is_new || value == old, "{when}");
                    assert!(is_new || put.is_err(), "{when}: it was durable");
                    if later {
                        assert!(keyspace.get("later").unwrap().unwrap() == new, "{when}");
                    }
                    assert!(db.verify().unwrap().is_clean(), "{when}");
                    keyspace.clear().unwrap();
                    keyspace.compact().unwrap();
                    settle(&db);
                    assert_eq!(files(&image, ".val"), [""; 0], "{when}");
                }
                if !has_fired {
                    break;
                }
                fired += 1;
            }
        }
    }
    assert!(fired > 60, "{fired}");
}

/// A B-tree with pages of a kilobyte: the value is put whole.
fn a_key_that_leaves_no_place_for_a_reference_has_its_value_beside_it(engine: EngineKind) {
    let fs = SimFs::new();
    let (db, keyspace) = open(&fs, engine);
    let mut random = Random::new(10);
    // So many chunks that the reference is longer than a quarter of a page.
    let value = random.bytes((4 << 20) - 5);
    let key = "k".repeat(300);
    stream(&keyspace, &key, &value, 1);
    let files_now = files(&fs, ".val").len();
    assert_eq!(files_now, usize::from(engine == EngineKind::Lsm));
    check_reader(&keyspace, &key, &value, &mut random);
    keyspace.flush().unwrap();
    settle(&db);
    drop((db, keyspace));
    let (_db, keyspace) = open(&fs, engine);
    check_reader(&keyspace, &key, &value, &mut random);
}

fn bytes_of(fs: &SimFs, path: &Path) -> Vec<u8> {
    let file = fs.open(path, OpenMode::Read).unwrap();
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

/// Each is the last record of a log whose checksums are all right.
fn records_that_cannot_be_right_are_refused(engine: EngineKind) {
    let fs = SimFs::new();
    let (db, keyspace) = open(&fs, engine);
    let value = Random::new(11).bytes(BUFFER + 5000);
    stream(&keyspace, "k", &value, 1);
    keyspace.flush().unwrap();
    let id = u64::from(keyspace.id());
    drop((db, keyspace));
    let name = files(&fs, ".val").remove(0);
    let number = u64::from_str_radix(name.trim_end_matches(".val"), 16).unwrap();
    let store = store_id(&bytes_of(&fs, &Path::new(STORE).join("CATALOG"))).unwrap();
    let checksums = value.chunks(64 << 10).flat_map(|_| [7_u8; 4]);
    let reference = |file: u64, len: usize| {
        let head = [varint(file), varint(64), varint(len as u64)].concat();
        let chunks = len.div_ceil((64 << 10).max(len.div_ceil(64).next_power_of_two()));
        [head, checksums.clone().cycle().take(4 * chunks).collect()].concat()
    };
    let record = |keyspace: u64, key: &[u8], reference: &[u8]| {
        let head = [vec![0x21], varint(keyspace), varint(key.len() as u64)].concat();
        [&head[..], key, reference].concat()
    };
    let right = reference(number, value.len());
    let long_key = [b'k'; 300];
    let longest = reference(number, 256 << 20);
    let is_too_long = engine == EngineKind::BTree;
    for (what, count, payload, is_refused) in [
        ("right", 1, record(id, b"l", &right), false),
        ("two numbers", 2, record(id, b"l", &right), true),
        ("no keyspace", 1, record(id + 7, b"l", &right), true),
        (
            "no file",
            1,
            record(id, b"l", &reference(number + 1000, 70)),
            true,
        ),
        (
            "cut off",
            1,
            record(id, b"l", &right[..right.len() - 1]),
            true,
        ),
        (
            "too long",
            1,
            record(id, b"l", &[&right[..], b"0"].concat()),
            true,
        ),
        ("nothing", 1, vec![0x21], true),
        ("no place", 1, record(id, &long_key, &longest), is_too_long),
    ] {
        let image = fs.killed();
        let shared: Arc<dyn Fs> = Arc::new(image.clone());
        let wal_dir = Path::new(STORE).join("wal");
        let mut log = wal::Writer::open(&shared, &wal_dir, store, 64 << 10, false).unwrap();
        log.append(count, &payload).unwrap();
        log.syncer().sync().unwrap();
        drop(log);
        let opened = options(&image).open(STORE);
        let Ok(db) = opened else {
            let error = opened.unwrap_err();
            assert!(is_refused && error.is_corruption(), "{what}: {error}");
            continue;
        };
        assert!(!is_refused, "{what}");
        let keyspace = keyspace_of(&db, "a", engine);
        assert!(keyspace.get("k").unwrap().unwrap() == value, "{what}");
        let key = if what == "right" {
            &b"l"[..]
        } else {
            &long_key
        };
        assert!(keyspace.contains_key(key).unwrap(), "{what}");
        // What was forged are the checksums, too, and the length.
        assert!(keyspace.get(key).unwrap_err().is_corruption(), "{what}");
        keyspace.flush().unwrap();
        settle(&db);
        assert_eq!(db.verify().unwrap().problems.len(), 1, "{what}");
    }
}

/// Its file stayed until the store was opened again, and took the space that the flush needed for
/// which it had waited.
fn a_stream_for_which_there_is_no_room_leaves_nothing(engine: EngineKind) {
    let sim = SimFs::new();
    let disk = FaultFs::new(Arc::new(sim.clone()));
    let (db, keyspace) = faulty(&disk, engine);
    let tree = Path::new(STORE).join("ks-00000001");
    let full = FaultPlan::once(&OpKind::TAKING_SPACE, 0, Fault::Full);
    // No flush works; the log does.
    disk.plan(full.and_then_all(&OpKind::TAKING_SPACE).within(&tree));
    let refused = (0..20_000_u32).find_map(|n| keyspace.put(n.to_be_bytes(), [1; 60]).err());
    assert!(refused.unwrap().is_out_of_space());
    let value = Random::new(12).bytes(2 * BUFFER);
    for _ in 0..3 {
        let refused = keyspace.put_from("k", &value[..]).unwrap_err();
        assert!(refused.is_out_of_space());
    }
    assert_eq!((temporaries(&sim), files(&sim, ".val").len()), (0, 0));
    disk.heal();
    keyspace.put_from("k", &value[..]).unwrap();
    settle(&db);
    assert_eq!(files(&sim, ".val").len(), 1);
}
