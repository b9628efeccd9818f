//! Values that are read by and by: docs/values.md, "Reading by and by".

use std::io::{self, BufRead, Read, Seek, SeekFrom};
use std::path::Path;

use hedgerow::fs::{Fs, OpenMode, SimFs};
use hedgerow::{Db, EngineKind, Error, Keyspace, KvRead, ValueReader};
use support::random::{Random, Source};
use support::sizes::{Sizes, keyspace_options};

use super::both_engines::on_both_engines;
use super::values::{STORE, files, options};

const THRESHOLD: usize = 100;
/// Of a value up to 4 MiB.
const CHUNK: usize = 64 << 10;

on_both_engines! {
    a_reader_reads_what_was_put,
    a_reader_keeps_the_version_that_it_found,
    a_reader_outlives_its_keyspace_and_the_log,
    damage_gives_an_error_and_no_wrong_byte,
    while_a_reader_lives_the_directory_stays_locked,
    a_transaction_reads_its_own_writes_by_and_by,
}

pub(crate) fn keyspace_of(db: &Db, name: &str, engine: EngineKind) -> Keyspace {
    let options = keyspace_options(engine, Sizes::Tiny);
    let keyspace = db.keyspace_with(name, options.value_threshold_bytes(THRESHOLD as u32));
    keyspace.unwrap()
}

pub(crate) fn open(fs: &SimFs, engine: EngineKind) -> (Db, Keyspace) {
    let db = options(fs).open(STORE).unwrap();
    let keyspace = keyspace_of(&db, "a", engine);
    (db, keyspace)
}

pub(crate) fn settle(db: &Db) {
    db.wait_idle().unwrap();
}

/// Lengths around everything that matters.
pub(crate) fn lengths() -> Vec<usize> {
    let around = |at: usize| [at - 1, at, at + 1];
    let mut lengths = vec![0, 1, 3 * CHUNK, 4 << 20, (4 << 20) + 1, (5 << 20) + 77];
    lengths.extend(around(THRESHOLD));
    lengths.extend(around(CHUNK));
    lengths.extend(around(2 * CHUNK));
    lengths
}

/// Reads all of `reader` in pieces of changing length.
pub(crate) fn read_by_and_by(reader: &mut impl Read, random: &mut Random) -> io::Result<Vec<u8>> {
    let mut all = Vec::new();
    let mut piece = vec![0; 100_000];
    loop {
        let len = 1 + random.below(piece.len() as u64) as usize;
        match reader.read(&mut piece[..len])? {
            0 => return Ok(all),
            read => all.extend_from_slice(&piece[..read]),
        }
    }
}

fn inner(error: &io::Error) -> &Error {
    let inner = error.get_ref().expect("an error of the store's is inside");
    inner.downcast_ref().expect("an error of the store's")
}

#[track_caller]
pub(crate) fn check_reader(kv: &impl KvRead, key: &str, value: &[u8], random: &mut Random) {
    let mut reader = kv.reader(key).unwrap().unwrap();
    assert_eq!(reader.len(), value.len() as u64);
    assert_eq!(reader.is_empty(), value.is_empty());
    assert!(read_by_and_by(&mut reader, random).unwrap() == value);
    assert!(reader.fill_buf().unwrap().is_empty());
    for _ in 0..6 {
        let at = random.below(value.len() as u64 + 2) as usize;
        let len = random.below(3 * CHUNK as u64) as usize;
        reader.seek(SeekFrom::Start(at as u64)).unwrap();
        let mut part = Vec::new();
        let taken = (&mut reader).take(len as u64).read_to_end(&mut part);
        let end = (at + len).min(value.len());
        assert!(part == value[at.min(end)..end], "{at}, {len}");
        assert_eq!(taken.unwrap(), part.len());
    }
}

fn a_reader_reads_what_was_put(engine: EngineKind) {
    for fs in [SimFs::new(), SimFs::with_maps()] {
        let (db, keyspace) = open(&fs, engine);
        let mut random = Random::new(1);
        for len in lengths() {
            let value = random.bytes(len);
            keyspace.put("k", &value).unwrap();
            check_reader(&keyspace, "k", &value, &mut random);
            let snapshot = keyspace.snapshot();
            keyspace.delete("k").unwrap();
            assert!(keyspace.reader("k").unwrap().is_none());
            check_reader(&snapshot, "k", &value, &mut random);
            keyspace.put("k", &value).unwrap();
            keyspace.flush().unwrap();
            settle(&db);
            check_reader(&keyspace, "k", &value, &mut random);
            let model = hedgerow::Model::new();
            model.put("k", &value).unwrap();
            check_reader(&model, "k", &value, &mut random);
        }
    }
}

fn half_read(keyspace: &Keyspace, key: &str, value: &[u8]) -> ValueReader {
    let mut reader = keyspace.reader(key).unwrap().unwrap();
    let mut half = vec![0; value.len() / 2];
    reader.read_exact(&mut half).unwrap();
    assert!(half == value[..half.len()]);
    reader
}

#[track_caller]
fn check_rest(reader: &mut ValueReader, value: &[u8]) {
    let mut rest = Vec::new();
    reader.read_to_end(&mut rest).unwrap();
    assert!(rest == value[value.len() / 2..]);
    reader.rewind().unwrap();
    rest.clear();
    reader.read_to_end(&mut rest).unwrap();
    assert!(rest == value);
}

/// The key is overwritten and deleted, and all that is dead collected, merged and removed.
fn a_reader_keeps_the_version_that_it_found(engine: EngineKind) {
    for fs in [SimFs::new(), SimFs::with_maps()] {
        let (db, keyspace) = open(&fs, engine);
        let mut random = Random::new(2);
        for len in [50, 10_000, 200_000] {
            let value = random.bytes(len);
            keyspace.put("k", &value).unwrap();
            let mut early = half_read(&keyspace, "k", &value);
            keyspace.flush().unwrap();
            let mut late = half_read(&keyspace, "k", &value);
            keyspace.put("k", "another").unwrap();
            for n in 0..200_u64 {
                keyspace.put(n.to_be_bytes(), random.bytes(2000)).unwrap();
            }
            keyspace.delete("k").unwrap();
            keyspace.compact().unwrap();
            settle(&db);
            keyspace.clear().unwrap();
            keyspace.compact().unwrap();
            settle(&db);
            let held = files(&fs, ".val").len();
            assert_eq!(held > 0, len > THRESHOLD, "{len}");
            check_rest(&mut early, &value);
            check_rest(&mut late, &value);
            drop((early, late));
            settle(&db);
            assert_eq!(files(&fs, ".val"), [""; 0]);
        }
        assert!(db.verify().unwrap().is_clean());
    }
}

/// Nothing but the reader knows of the value any more.
fn a_reader_outlives_its_keyspace_and_the_log(engine: EngineKind) {
    let fs = SimFs::new();
    let (db, keyspace) = open(&fs, engine);
    let mut random = Random::new(3);
    let value = random.bytes(150_000);
    keyspace.put("k", &value).unwrap();
    let mut reader = half_read(&keyspace, "k", &value);
    db.drop_keyspace("a").unwrap();
    assert!(matches!(
        keyspace.reader("k"),
        Err(Error::NoSuchKeyspace { .. })
    ));
    drop(keyspace);
    let other = keyspace_of(&db, "b", engine);
    for n in 0..300_u64 {
        other.put(n.to_be_bytes(), random.bytes(2000)).unwrap();
    }
    other.flush().unwrap();
    settle(&db);
    check_rest(&mut reader, &value);
    drop(reader);
    other.clear().unwrap();
    other.compact().unwrap();
    settle(&db);
    assert_eq!(files(&fs, ".val"), [""; 0]);
}

/// Where in the log's directory `value` lies.
pub(crate) fn find(fs: &SimFs, value: &[u8]) -> (String, u64) {
    let wal = Path::new(STORE).join("wal");
    for name in fs.read_dir(&wal).unwrap() {
        let file = fs.open(&wal.join(&name), OpenMode::Read).unwrap();
        let mut bytes = vec![0; file.len().unwrap() as usize];
        file.read_exact_at(&mut bytes, 0).unwrap();
        let starts = bytes.windows(16).position(|it| *it == value[..16]);
        if let Some(at) = starts
            && bytes[at..].starts_with(value)
        {
            return (name, at as u64);
        }
    }
    panic!("the value is in no file");
}

pub(crate) fn flip(fs: &SimFs, name: &str, at: u64) {
    let path = Path::new(STORE).join("wal").join(name);
    let file = fs.open(&path, OpenMode::ReadWrite).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 4], at).unwrap();
}

/// Each chunk but the damaged one can be read.
#[track_caller]
pub(crate) fn check_damaged(
    reader: &mut ValueReader,
    value: &[u8],
    damaged: usize,
    (name, at): (&str, u64),
    random: &mut Random,
) {
    let from = damaged / CHUNK * CHUNK;
    let to = (from + CHUNK).min(value.len());
    let mut seen = Vec::new();
    let mut piece = vec![0; 30_000];
    let error = loop {
        let len = 1 + random.below(piece.len() as u64) as usize;
        match reader.read(&mut piece[..len]) {
            Ok(0) => panic!("the damage was not found"),
            Ok(read) => seen.extend_from_slice(&piece[..read]),
            Err(error) => break error,
        }
    };
    assert!(seen == value[..from], "all that comes before, and no more");
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    match inner(&error) {
        Error::Corruption { file, offset, .. } => {
            assert!(file.ends_with(name), "{file:?}");
            assert_eq!(*offset, at + from as u64);
        }
        other => panic!("{other}"),
    }
    assert_eq!(reader.stream_position().unwrap(), from as u64);
    reader.read(&mut piece).unwrap_err();
    reader.seek(SeekFrom::Start(to as u64)).unwrap();
    let mut rest = Vec::new();
    reader.read_to_end(&mut rest).unwrap();
    assert!(rest == value[to..]);
}

fn damage_gives_an_error_and_no_wrong_byte(engine: EngineKind) {
    for fs in [SimFs::new(), SimFs::with_maps()] {
        let mut random = Random::new(4);
        let value = random.bytes(3 * CHUNK + 500);
        let (db, keyspace) = open(&fs, engine);
        keyspace.put("k", &value).unwrap();
        for n in 0..100_u64 {
            keyspace.put(n.to_be_bytes(), random.bytes(2000)).unwrap();
        }
        keyspace.flush().unwrap();
        settle(&db);
        drop(keyspace);
        db.close().unwrap();
        let (name, at) = find(&fs, &value);
        assert!(name.ends_with(".val"), "{name}");
        for damaged in [
            0,
            CHUNK - 1,
            CHUNK,
            CHUNK + 7,
            3 * CHUNK - 1,
            value.len() - 1,
        ] {
            let copy = fs.killed();
            flip(&copy, &name, at + damaged as u64);
            let (_db, keyspace) = open(&copy, engine);
            let mut reader = keyspace.reader("k").unwrap().unwrap();
            check_damaged(&mut reader, &value, damaged, (&name, at), &mut random);
        }
    }
}

fn while_a_reader_lives_the_directory_stays_locked(engine: EngineKind) {
    let fs = SimFs::new();
    let (db, keyspace) = open(&fs, engine);
    let value = Random::new(5).bytes(150_000);
    keyspace.put("k", &value).unwrap();
    let mut reader = half_read(&keyspace, "k", &value);
    let snapshot = keyspace.snapshot();
    db.close().unwrap();
    assert!(matches!(keyspace.reader("k"), Err(Error::Closed)));
    let mut of_snapshot = snapshot.reader("k").unwrap().unwrap();
    drop((keyspace, db, snapshot));
    assert!(options(&fs).open(STORE).unwrap_err().is_locked());
    check_rest(&mut reader, &value);
    drop(reader);
    assert!(options(&fs).open(STORE).unwrap_err().is_locked());
    of_snapshot
        .seek(SeekFrom::Start(value.len() as u64 / 2))
        .unwrap();
    check_rest(&mut of_snapshot, &value);
    drop(of_snapshot);
    let (_db, keyspace) = open(&fs, engine);
    assert!(keyspace.get("k").unwrap().unwrap() == value);
}

fn a_transaction_reads_its_own_writes_by_and_by(engine: EngineKind) {
    let fs = SimFs::new();
    let (db, keyspace) = open(&fs, engine);
    let mut random = Random::new(6);
    let (first, second) = (random.bytes(100_000), random.bytes(90_000));
    keyspace.put("k", &first).unwrap();
    let tx = db.transaction().unwrap();
    let of_tx = tx.keyspace(&keyspace);
    check_reader(&of_tx, "k", &first, &mut random);
    of_tx.put("k", &second).unwrap();
    check_reader(&of_tx, "k", &second, &mut random);
    check_reader(&keyspace, "k", &first, &mut random);
    of_tx.delete("k").unwrap();
    assert!(of_tx.reader("k").unwrap().is_none());
    tx.rollback();

    // What was read by and by is what the commit depends on.
    let tx = db.transaction().unwrap();
    let of_tx = tx.keyspace(&keyspace);
    assert!(of_tx.reader("k").unwrap().is_some());
    of_tx.put("other", "1").unwrap();
    keyspace.put("k", "changed").unwrap();
    assert!(tx.commit().unwrap_err().is_conflict());
}
