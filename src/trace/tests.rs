//! Recording and reading back, on a file system in memory.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::fs::{Fs, OpenMode, SimFs};
use crate::kv::Batch;
use crate::options::{Durability, EngineKind, KeyspaceOptions, Options};
use crate::types::{MAX_KEY_LEN_BYTES, Value};
use crate::{Db, Keyspace};

const TRACE: &str = "/my.trace";

/// A store in memory that records.
struct Rig {
    fs: SimFs,
    db: Db,
}

impl Rig {
    fn new(options: TraceOptions) -> Self {
        let fs = SimFs::new();
        let db = Options::new()
            .fs(Arc::new(fs.clone()))
            .durability(Durability::Buffered)
            .record_to(TRACE, options)
            .open("/store")
            .unwrap();
        Self { fs, db }
    }

    fn keyspace(&self, name: &str) -> Keyspace {
        self.db.keyspace(name, EngineKind::Lsm).unwrap()
    }

    /// Closes the store and reads the trace.
    fn read(self) -> (Vec<Event>, Reader) {
        self.db.close().unwrap();
        read(&self.fs)
    }

    fn bytes(self) -> Vec<u8> {
        self.db.close().unwrap();
        let file = self.fs.open(TRACE.as_ref(), OpenMode::Read).unwrap();
        crate::fs::read_all(&*file, 1 << 30).unwrap()
    }
}

fn read(fs: &SimFs) -> (Vec<Event>, Reader) {
    let mut reader = Reader::open_in(fs, TRACE).unwrap();
    let events = reader.by_ref().map(|event| event.unwrap()).collect();
    (events, reader)
}

/// A file with those bytes, read as a trace to wherever that leads.
fn read_bytes(bytes: &[u8]) -> crate::Result<(Vec<Event>, Option<TraceEnd>)> {
    let fs = SimFs::new();
    let file = fs.open(TRACE.as_ref(), OpenMode::CreateNew)?;
    file.write_all_at(bytes, 0)?;
    let mut reader = Reader::open_in(&fs, TRACE)?;
    let events = reader.by_ref().collect::<crate::Result<_>>()?;
    Ok((events, reader.end().cloned()))
}

fn ops(events: Vec<Event>) -> Vec<Op> {
    events.into_iter().map(|event| event.op).collect()
}

fn key(bytes: impl AsRef<[u8]>) -> Key {
    Key::Contents(Value::copy_from(bytes.as_ref()))
}

fn lookup(bytes: &str, value_len_bytes: Option<u64>) -> Lookup {
    Lookup {
        key: key(bytes),
        value_len_bytes,
    }
}

fn put(keyspace: u32, bytes: &str, value_len_bytes: u64) -> Change {
    Change::Put {
        keyspace,
        key: key(bytes),
        value_len_bytes,
        value: None,
    }
}

/// Each try of an update stood in the trace, though one that met another commit wrote nothing.
#[test]
fn a_commit_whose_condition_failed_is_not_in_the_trace() {
    let rig = Rig::new(TraceOptions::new());
    let keyspace = rig.keyspace("ks");
    let mut tries = 0;
    keyspace
        .update("counter", |old| {
            if old.is_none() {
                // Another commit between reading and writing.
                keyspace.put("counter", "1").unwrap();
            }
            tries += 1;
            Some("22")
        })
        .unwrap();
    let swapped = keyspace.compare_and_swap("counter", Some("1"), Some("333"));
    assert!(swapped.unwrap().is_err());
    keyspace.delete("other").unwrap();
    assert_eq!(tries, 2);
    drop(keyspace);
    let written = ops(rig.read().0).into_iter().filter_map(|op| match op {
        Op::Write { changes, .. } => Some(changes),
        _ => None,
    });
    let lengths = written.flatten().map(|change| match change {
        Change::Put {
            value_len_bytes, ..
        } => Some(value_len_bytes),
        _ => None,
    });
    assert_eq!(lengths.collect::<Vec<_>>(), [Some(1), Some(2), None]);
}

#[test]
fn everything_done_is_read_back_in_order() {
    let rig = Rig::new(TraceOptions::new());
    let (a, b) = (rig.keyspace("a"), rig.keyspace("b"));
    let (a_id, b_id) = (a.id(), b.id());
    a.put("ada", "1815").unwrap();
    a.with_durability(Durability::Sync).put("bob", "").unwrap();
    a.get("ada").unwrap();
    a.get_with("nobody", |_| ()).unwrap();
    assert!(a.contains_key("bob").unwrap());
    a.multi_get(&["ada", "x"]).unwrap();
    a.delete("bob").unwrap();
    a.delete_range("c".."d").unwrap();
    b.delete_range("e"..).unwrap();
    let mut batch = rig.db.batch();
    batch.put(&a, "k1", "v");
    batch.delete(&b, "k2");
    rig.db.write(batch, Durability::Sync).unwrap();
    let mut scan = a.range("a".."z");
    scan.next().unwrap().unwrap();
    scan.seek("b");
    scan.next_back().unwrap().unwrap();
    drop(scan);
    let snapshot = rig.db.snapshot();
    snapshot.get(&a, "ada").unwrap();
    drop(snapshot.iter(&b));
    rig.db.sync().unwrap();
    a.flush().unwrap();
    rig.db.compact().unwrap();

    let write = |durability, changes| Op::Write {
        durability,
        changes,
        batch: false,
        continued: false,
    };
    let get = |lookup, snapshot| Op::Get {
        keyspace: a_id,
        lookup,
        snapshot,
    };
    let (events, reader) = rig.read();
    let ranges = |keyspace, start: &str, end: Option<&str>| Change::DeleteRange {
        keyspace,
        start: key(start),
        end: end.map(key),
    };
    let mut found = ops(events);
    for op in &mut found {
        if let Op::Scan { open_us, .. } = op {
            *open_us = 0;
        }
    }
    let expected = vec![
        write(Durability::Buffered, vec![put(a_id, "ada", 4)]),
        write(Durability::Sync, vec![put(a_id, "bob", 0)]),
        get(lookup("ada", Some(4)), false),
        get(lookup("nobody", None), false),
        Op::Contains {
            keyspace: a_id,
            key: key("bob"),
            hit: true,
            snapshot: false,
        },
        Op::MultiGet {
            keyspace: a_id,
            lookups: vec![lookup("ada", Some(4)), lookup("x", None)],
            snapshot: false,
            continued: false,
        },
        write(
            Durability::Buffered,
            vec![Change::Delete {
                keyspace: a_id,
                key: key("bob"),
            }],
        ),
        write(Durability::Buffered, vec![ranges(a_id, "c", Some("d"))]),
        write(Durability::Buffered, vec![ranges(b_id, "e", None)]),
        Op::Write {
            durability: Durability::Sync,
            changes: vec![
                put(a_id, "k1", 1),
                Change::Delete {
                    keyspace: b_id,
                    key: key("k2"),
                },
            ],
            batch: true,
            continued: false,
        },
        Op::Scan {
            keyspace: a_id,
            start: key("a"),
            end: Some(key("z")),
            forward: 1,
            backward: 1,
            bytes: 7 + 3,
            seeks: 1,
            open_us: 0,
            snapshot: false,
        },
        Op::Snapshot { keyspace: None },
        get(lookup("ada", Some(4)), true),
        Op::Scan {
            keyspace: b_id,
            start: key(""),
            end: None,
            forward: 0,
            backward: 0,
            bytes: 0,
            seeks: 0,
            open_us: 0,
            snapshot: true,
        },
        Op::Sync,
        Op::Flush {
            keyspace: Some(a_id),
        },
        Op::Compact { keyspace: None },
    ];
    assert_eq!(found, expected);
    assert_eq!(reader.end(), Some(&TraceEnd::Closed));
    assert_eq!(reader.dropped(), 0);
    let names: Vec<_> = reader.keyspaces().iter().map(|ks| &ks.name[..]).collect();
    assert_eq!(names, ["a", "b"]);
    assert_eq!(reader.keyspace(b_id).unwrap().engine, EngineKind::Lsm);
}

#[test]
fn threads_are_merged_by_time() {
    let rig = Rig::new(TraceOptions::new());
    let a = rig.keyspace("a");
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let a = &a;
            scope.spawn(move || {
                for n in 0..5000 {
                    a.get(format!("{thread}/{n}")).unwrap();
                }
            });
        }
    });
    let (events, reader) = rig.read();
    assert_eq!(events.len(), 20_000);
    assert_eq!(reader.dropped(), 0);
    assert!(events.is_sorted_by_key(|event| event.time_us));
    // Every thread's operations are in their order.
    let mut next = BTreeMap::new();
    for event in events {
        let Op::Get { lookup, .. } = event.op else {
            panic!("only gets were done");
        };
        let text = String::from_utf8(lookup.key.to_value().to_vec()).unwrap();
        let (thread, n) = text.split_once('/').unwrap();
        let expected = next.entry(thread.to_owned()).or_insert(0);
        assert_eq!(n.parse(), Ok(*expected));
        *expected += 1;
    }
}

#[test]
fn long_batches_are_cut_and_keep_every_change() {
    let rig = Rig::new(TraceOptions::new());
    let a = rig.keyspace("a");
    let mut batch = Batch::new();
    for n in 0..20_000 {
        batch.put(format!("key {n:020}"), [7; 9]);
    }
    a.write_with(batch, Durability::Buffered).unwrap();
    let (events, _) = rig.read();
    assert!(events.len() > 2);
    let mut changes = 0;
    let last = events.len() - 1;
    for (at, op) in ops(events).into_iter().enumerate() {
        let Op::Write {
            changes: part,
            batch: true,
            continued,
            ..
        } = op
        else {
            panic!("only batches were written");
        };
        assert_eq!(continued, at < last);
        for change in part {
            assert_eq!(change, put(a.id(), &format!("key {changes:020}"), 9));
            changes += 1;
        }
    }
    assert_eq!(changes, 20_000);
}

/// Keys of any length may be looked up, and such a lookup made the reader refuse its block.
#[test]
fn lookups_of_longer_keys_than_there_can_be_are_read_back() {
    for keys in [KeyMode::Contents, KeyMode::Hashed] {
        for len in [MAX_KEY_LEN_BYTES + 2, 3 << 20] {
            let rig = Rig::new(TraceOptions::new().keys(keys));
            let a = rig.keyspace("a");
            let long = vec![b'k'; len];
            assert_eq!(a.get(&long).unwrap(), None);
            assert!(!a.contains_key(&long).unwrap());
            assert_eq!(a.multi_get(&[&long]).unwrap(), [None]);
            assert!(a.range(long.clone()..).next().is_none());
            a.put("short", "value").unwrap();
            let (events, reader) = rig.read();
            assert_eq!(events.len(), 5);
            assert_eq!(reader.end(), Some(&TraceEnd::Closed));
            let Op::Get { lookup, .. } = &events[0].op else {
                panic!("a get comes first");
            };
            // Like the key itself: longer than all there are, and before and behind the same ones.
            assert_eq!(lookup.key.len_bytes(), MAX_KEY_LEN_BYTES + 1);
        }
    }
}

/// The length of the part was recorded as that of the value, and a replay loaded such values.
#[test]
fn a_part_of_a_value_is_a_lookup_of_its_key_alone() {
    for engine in [EngineKind::Lsm, EngineKind::BTree] {
        let rig = Rig::new(TraceOptions::new());
        let a = rig.db.keyspace("a", engine).unwrap();
        a.put("long", [7; 3000]).unwrap();
        assert_eq!(a.get_range("long", 10..30).unwrap().unwrap().len(), 20);
        assert_eq!(a.get_range("none", ..5).unwrap(), None);
        let snapshot = a.snapshot();
        assert_eq!(snapshot.get_range("long", ..5).unwrap().unwrap().len(), 5);
        drop(snapshot);
        let contains = |name: &str, hit, snapshot| Op::Contains {
            keyspace: a.id(),
            key: key(name),
            hit,
            snapshot,
        };
        let expected = [
            contains("long", true, false),
            contains("none", false, false),
            contains("long", true, true),
        ];
        let found = ops(rig.read().0).into_iter();
        let found: Vec<_> = found
            .filter(|op| matches!(op, Op::Contains { .. }))
            .collect();
        assert_eq!(found, expected);
    }
}

/// Stamps stood behind values and operands, and what was put alone in a batch.
#[test]
fn what_expires_is_recorded_as_it_was_given() {
    for engine in [EngineKind::Lsm, EngineKind::BTree] {
        let rig = Rig::new(TraceOptions::new().values(ValueMode::Contents));
        let options = KeyspaceOptions::new(engine).expiry(true);
        let options = options.merge_operator("append");
        let a = rig.db.keyspace_with("a", options).unwrap();
        let plain = rig.keyspace("plain");
        let hour = Duration::from_secs(3600);
        a.put("one", "1").unwrap();
        a.merge("one", "23").unwrap();
        a.put_with_ttl("one", "4", hour).unwrap();
        a.update("one", |old| Some([old.unwrap(), &b"5"[..]].concat()))
            .unwrap();
        let mut batch = rig.db.batch();
        batch.put(&plain, "k", "v");
        batch.put(&a, "k", "value");
        batch.merge(&a, "k", "more");
        batch.delete(&a, "one");
        rig.db.write(batch, Durability::Buffered).unwrap();

        let (a_id, plain_id) = (a.id(), plain.id());
        let put = |keyspace, name: &str, value: &str| Change::Put {
            keyspace,
            key: key(name),
            value_len_bytes: value.len() as u64,
            value: Some(Value::copy_from(value.as_bytes())),
        };
        let delete = Change::Delete {
            keyspace: a_id,
            key: key("one"),
        };
        let all = [
            put(plain_id, "k", "v"),
            put(a_id, "k", "value"),
            put(a_id, "k", "more"),
            delete,
        ];
        let expected = [
            (false, vec![put(a_id, "one", "1")]),
            (false, vec![put(a_id, "one", "23")]),
            (true, vec![put(a_id, "one", "4")]),
            (true, vec![put(a_id, "one", "45")]),
            (true, all.to_vec()),
        ];
        let found = ops(rig.read().0).into_iter().filter_map(|op| match op {
            Op::Write { changes, batch, .. } => Some((batch, changes)),
            _ => None,
        });
        assert_eq!(found.collect::<Vec<_>>(), expected);
    }
}

#[test]
fn hashed_keys_keep_length_and_equality_and_hide_the_rest() {
    let rig = Rig::new(TraceOptions::new().keys(KeyMode::Hashed));
    let a = rig.keyspace("a");
    a.put("a secret name", "value").unwrap();
    a.get("a secret name").unwrap();
    a.get("").unwrap();
    drop(a.range("a secret name".."b"));
    let fs = rig.fs.clone();
    let (events, reader) = rig.read();
    assert_eq!(reader.keys(), KeyMode::Hashed);
    let [
        Op::Write { changes, .. },
        Op::Get { lookup: first, .. },
        Op::Get { lookup: empty, .. },
        Op::Scan { start, .. },
    ] = &ops(events)[..]
    else {
        panic!("four operations");
    };
    let Change::Put { key: put, .. } = &changes[0] else {
        panic!("a put");
    };
    assert_eq!(put, &first.key);
    assert_eq!(put, start);
    assert_ne!(put, &empty.key);
    assert_eq!((put.len_bytes(), empty.key.len_bytes()), (13, 0));
    assert_eq!(put.to_value().len(), 13);
    let file = fs.open(TRACE.as_ref(), OpenMode::Read).unwrap();
    let bytes = crate::fs::read_all(&*file, 1 << 20).unwrap();
    assert!(!bytes.windows(6).any(|window| window == b"secret"));
}

#[test]
fn contents_are_recorded_only_when_asked_for() {
    for (mode, expected) in [
        (ValueMode::Sizes, None),
        (ValueMode::Contents, Some(Value::copy_from(b"payload"))),
    ] {
        let rig = Rig::new(TraceOptions::new().values(mode));
        let a = rig.keyspace("a");
        a.put("k", "payload").unwrap();
        let bytes = rig.bytes();
        let seen = bytes.windows(7).any(|window| window == b"payload");
        assert_eq!(seen, expected.is_some());
        let (events, _) = read_bytes(&bytes).unwrap();
        let [Op::Write { changes, .. }] = &ops(events)[..] else {
            panic!("one write");
        };
        assert!(
            matches!(&changes[..], [Change::Put { value, value_len_bytes: 7, .. }] if *value == expected)
        );
    }
}

#[test]
fn a_sampled_key_keeps_its_whole_history() {
    let rig = Rig::new(TraceOptions::new().sampling(Sampling::Keys { one_in: 4 }));
    let a = rig.keyspace("a");
    let mut random = 7u64;
    let mut done: BTreeMap<String, u64> = BTreeMap::new();
    for step in 0..20_000u64 {
        random = crate::format::checksum::mix64(random.wrapping_add(step));
        let key = format!("key {}", random % 500);
        *done.entry(key.clone()).or_default() += 1;
        match random >> 62 {
            0 => {
                a.put(&key, "v").unwrap();
            }
            1 => {
                let mut batch = Batch::new();
                batch.delete(&key);
                batch.put("another key", "v");
                a.write_with(batch, Durability::Buffered).unwrap();
            }
            2 => drop(a.multi_get(&[&key]).unwrap()),
            _ => drop(a.range(key.as_str()..)),
        }
    }
    a.delete_range("x"..).unwrap();
    let (events, _) = rig.read();
    let mut seen: BTreeMap<String, u64> = BTreeMap::new();
    let mut ranges = 0;
    let mut note = |key: &Key| {
        let text = String::from_utf8(key.to_value().to_vec()).unwrap();
        *seen.entry(text).or_default() += 1;
    };
    for op in ops(events) {
        match &op {
            Op::Write { changes, .. } => {
                for change in changes {
                    match change {
                        Change::Put { key, .. } | Change::Delete { key, .. } => note(key),
                        Change::DeleteRange { .. } => ranges += 1,
                    }
                }
            }
            Op::MultiGet { lookups, .. } => lookups.iter().for_each(|lookup| note(&lookup.key)),
            Op::Scan { start, .. } => note(start),
            other => panic!("{other:?} was not done"),
        }
    }
    seen.remove("another key");
    assert_eq!(ranges, 1, "range deletes are always recorded");
    assert!((80..170).contains(&seen.len()), "{} of 500", seen.len());
    for (key, count) in seen {
        assert_eq!(count, done[&key], "{key}");
    }
}

#[test]
fn windows_leave_out_the_time_between_them() {
    let rig = Rig::new(TraceOptions::new().sampling(Sampling::Windows {
        record_ms: 1,
        every_ms: 3_600_000,
    }));
    let a = rig.keyspace("a");
    std::thread::sleep(std::time::Duration::from_millis(5));
    a.get("k").unwrap();
    let (events, reader) = rig.read();
    assert_eq!(events, []);
    assert_eq!(reader.dropped(), 0, "what is not sampled is not lost");
}

#[test]
fn a_full_queue_drops_and_counts() {
    let options = TraceOptions::new().buffer_bytes(1 << 20);
    let fs: Arc<dyn Fs> = Arc::new(SimFs::new());
    let recording = Recording {
        path: TRACE.into(),
        options,
    };
    let recorder = Recorder::start(&fs, &recording).unwrap();
    let keyspace = crate::types::KeyspaceId(1);
    let events = 200_000;
    {
        let _writer_is_stuck = recorder.hold_writer();
        for n in 0..events {
            recorder
                .hook(keyspace, false)
                .get(format!("{n:030}").as_bytes(), None);
        }
    }
    recorder.finish();
    let stats = recorder.stats();
    assert!(stats.dropped > 0 && stats.events > 0, "{stats:?}");
    assert_eq!(stats.events + stats.dropped, events);
    let mut reader = Reader::open_in(&*fs, TRACE).unwrap();
    assert_eq!(reader.by_ref().count() as u64, stats.events);
    assert_eq!(reader.dropped(), stats.dropped);
    assert_eq!(reader.end(), Some(&TraceEnd::Closed));
}

#[test]
fn a_limit_ends_the_trace_and_not_the_store() {
    let rig = Rig::new(TraceOptions::new().limit_bytes(4096));
    let a = rig.keyspace("a");
    for n in 0..20_000u64 {
        a.put(crate::format::checksum::mix64(n).to_le_bytes(), "v")
            .unwrap();
    }
    rig.db.close().unwrap();
    let stats = rig.db.recording().unwrap();
    assert!(stats.stopped.is_some());
    assert!(stats.file_bytes <= 4096);
    let (events, reader) = read(&rig.fs);
    assert_eq!(reader.end(), Some(&TraceEnd::Limit));
    assert_eq!(stats.events, events.len() as u64);
    assert_eq!(stats.events + stats.dropped, 20_000);
    assert!(reader.dropped() <= stats.dropped);
}

#[test]
fn impossible_recordings_are_refused_and_leave_nothing() {
    let fs = SimFs::new();
    let open = |path: &str, options: TraceOptions| {
        Options::new()
            .fs(Arc::new(fs.clone()))
            .record_to(path, options)
            .open("/store")
    };
    assert!(open("/store/trace", TraceOptions::new()).is_err());
    let none = Sampling::Keys { one_in: 0 };
    assert!(open(TRACE, TraceOptions::new().sampling(none)).is_err());
    let inverted = Sampling::Windows {
        record_ms: 5,
        every_ms: 4,
    };
    assert!(open(TRACE, TraceOptions::new().sampling(inverted)).is_err());
    assert!(open(TRACE, TraceOptions::new().limit_bytes(1)).is_err());
    assert!(!fs.exists(Path::new("/store")).unwrap());
    open(TRACE, TraceOptions::new()).unwrap().close().unwrap();
    // A trace is never written over.
    assert!(open(TRACE, TraceOptions::new()).is_err());
}

/// A small trace with every kind of event.
fn small_trace() -> Vec<u8> {
    let rig = Rig::new(TraceOptions::new());
    let a = rig.keyspace("a");
    for n in 0..30 {
        a.put(format!("key {n}"), "value").unwrap();
        a.get(format!("key {}", n / 2)).unwrap();
    }
    a.multi_get(&["key 1", "x"]).unwrap();
    a.delete_range("a".."b").unwrap();
    drop(a.iter());
    drop(rig.db.snapshot());
    rig.bytes()
}

#[test]
fn every_cut_is_read_up_to_the_last_whole_block() {
    let bytes = small_trace();
    let (whole, end) = read_bytes(&bytes).unwrap();
    assert_eq!((whole.len(), end), (64, Some(TraceEnd::Closed)));
    for cut in 0..bytes.len() {
        match read_bytes(&bytes[..cut]) {
            Ok((events, end)) => {
                assert!(cut >= format::HEADER_LEN_BYTES);
                assert_eq!(events, whole[..events.len()]);
                assert!(matches!(end, Some(TraceEnd::Torn { offset }) if offset <= cut as u64));
            }
            Err(error) => assert!(cut < format::HEADER_LEN_BYTES, "{cut}: {error}"),
        }
    }
}

#[test]
fn damage_never_panics_and_never_invents_events() {
    let bytes = small_trace();
    let (whole, _) = read_bytes(&bytes).unwrap();
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        if let Ok((events, _)) = read_bytes(&flipped) {
            assert_eq!(events, whole[..events.len()], "bit {bit}");
            assert!(events.len() < whole.len() || bit / 8 >= format::HEADER_LEN_BYTES);
        }
    }
}

#[test]
fn hostile_blocks_with_good_checksums_never_panic() {
    let header = format::Header::new(&TraceOptions::new(), 9, 0);
    let mut random = 1u64;
    for round in 0..20_000u64 {
        let mut bytes = header.encode().to_vec();
        let mut payload = vec![(1 + round % 5) as u8];
        for _ in 0..round % 60 {
            random = crate::format::checksum::mix64(random.wrapping_add(round));
            // Small numbers are more often valid.
            payload.push((random >> 8) as u8 & if random & 1 == 0 { 0x1F } else { 0xFF });
        }
        let at = bytes.len() as u64;
        crate::format::framing::append_record(&mut bytes, header.seed(), at, &payload);
        let _ = read_bytes(&bytes);
    }
    // A compressed block that claims to be enormous.
    let mut bytes = header.encode().to_vec();
    let payload = [format::FRAME_COMPRESSED, 0xFF, 0xFF, 0xFF, 0xFF, 0];
    crate::format::framing::append_record(&mut bytes, header.seed(), 64, &payload);
    assert!(read_bytes(&bytes).unwrap_err().is_corruption());
}

#[test]
fn other_files_and_versions_are_refused() {
    assert!(read_bytes(b"").unwrap_err().is_corruption());
    assert!(read_bytes(&[7; 100]).unwrap_err().is_corruption());
    let mut newer = format::Header::new(&TraceOptions::new(), 9, 0).encode();
    newer[8] = 2;
    let refused = read_bytes(&newer).unwrap_err();
    assert!(matches!(
        refused,
        crate::Error::UnsupportedFormat {
            found: 2,
            supported: 1,
            ..
        }
    ));
}

#[test]
fn golden_bytes() {
    let options = TraceOptions::new().sampling(Sampling::Keys { one_in: 3 });
    let header = format::Header::new(&options, 0x0102_0304_0506_0708, 1000).encode();
    assert_eq!(&header[..12], b"hdgrTRCE\x01\0\0\0");
    assert_eq!(header[16..24], [8, 7, 6, 5, 4, 3, 2, 1]);
    assert_eq!(header[24..32], 1000u64.to_le_bytes());
    assert_eq!(header[32..40], [0, 0, 1, 0, 0, 0, 0, 0]);
    assert_eq!(header[40..48], 3u64.to_le_bytes());
    assert_eq!(header[48..64], [0; 16]);

    // A block: get hit, a batch, a scan; as docs/format.md describes it.
    let block = [
        &[1, 2, 5, 0, 100, 3][..], // events, lane 2, block 5, time 100, 3 events
        b"\x11\x00\x07\x01k\x09",  // get with a value of 9 bytes, keyspace 7
        b"\x33\x04\x01\x07\x01k\x03\x02\x08\x00\x00", // 4 us later: durable batch, put, delete ""
        b"\x14\x81\x01\x07\x01a\x01b\x02\x01\x0c\x00\x05", // 129 us later: scan of a..b
    ]
    .concat();
    let block = bytes::Bytes::from(block);
    let mut reader = format::BlockReader::new(&block, KeyMode::Contents).unwrap();
    let mut events = Vec::new();
    while let Some(event) = reader.next().unwrap() {
        events.push(event);
    }
    let expected = [
        (
            100,
            Op::Get {
                keyspace: 7,
                lookup: lookup("k", Some(9)),
                snapshot: false,
            },
        ),
        (
            104,
            Op::Write {
                durability: Durability::Sync,
                changes: vec![
                    put(7, "k", 3),
                    Change::Delete {
                        keyspace: 8,
                        key: key(""),
                    },
                ],
                batch: true,
                continued: false,
            },
        ),
        (
            233,
            Op::Scan {
                keyspace: 7,
                start: key("a"),
                end: Some(key("b")),
                forward: 2,
                backward: 1,
                bytes: 12,
                seeks: 0,
                open_us: 5,
                snapshot: false,
            },
        ),
    ]
    .map(|(time_us, op)| Event {
        time_us,
        lane: 2,
        op,
    });
    assert_eq!(events, expected);

    // The encoder writes the same bytes.
    let coder = format::Coder::new(&TraceOptions::new());
    let mut out = Vec::new();
    coder.change(
        &mut out,
        7,
        &crate::types::Op::Put {
            key: b"k",
            value: b"abc",
        },
    );
    assert_eq!(out, b"\x01\x07\x01k\x03");
    assert_eq!(
        format::sampling_hash(b"hedge"),
        15_805_197_553_869_644_205,
        "golden"
    );
}

/// A round that empties the queue can meet the message that ends the trace. It was thrown away
/// there once, and the thread that closed the store waited forever.
#[test]
fn finishing_while_a_round_empties_the_queue_ends_the_trace() {
    let fs: Arc<dyn Fs> = Arc::new(SimFs::new());
    let recording = Recording {
        path: TRACE.into(),
        options: TraceOptions::new(),
    };
    let recorder = Recorder::start(&fs, &recording).unwrap();
    std::thread::scope(|scope| {
        let stuck = recorder.hold_writer();
        recorder.sync();
        // Long enough for the writer to be in a round, where it waits for the lock.
        std::thread::sleep(std::time::Duration::from_millis(250));
        scope.spawn(|| recorder.finish());
        std::thread::sleep(std::time::Duration::from_millis(50));
        drop(stuck);
    });
    let mut reader = Reader::open_in(&*fs, TRACE).unwrap();
    assert_eq!(reader.by_ref().count(), 1);
    assert_eq!(reader.end(), Some(&TraceEnd::Closed));
}
