//! Keys and values that have the number of their commit in them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use hedgerow::{
    Batch, Durability, EngineKind, Error, Isolation, Keyspace, Kv, MAX_KEY_LEN_BYTES,
    MAX_VALUE_LEN_BYTES, MemtableKind, Model, SeqNo, TransactionOptions, WriteBatch,
};
use support::random::{Random, Source};
use support::rig::{Place, Rig, Sizes, effort};

const ENGINES: [EngineKind; 2] = [EngineKind::Lsm, EngineKind::BTree];

fn stamped(prefix: &[u8], seq: SeqNo, suffix: &[u8]) -> Vec<u8> {
    [prefix, &seq.0.to_be_bytes(), suffix].concat()
}

/// The number in a key that begins with a prefix of `at` bytes.
fn number(key: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(key[at..at + 8].try_into().unwrap())
}

fn is_invalid<T: std::fmt::Debug>(result: hedgerow::Result<T>) -> bool {
    matches!(result, Err(Error::InvalidArgument { .. }))
}

/// What any ordered map makes of a batch with numbers in it.
fn batches_get_their_number(kv: &impl Kv) {
    kv.put("before", "").unwrap();
    let mut batch = Batch::new();
    batch.put("plain", "1");
    batch.put_versionstamped_key("a/", "/z", "first");
    batch.put_versionstamped_key("a/", "", "second");
    batch.put_versionstamped_key("", "", "alone");
    batch.put_versionstamped_value("value", "<", ">");
    batch.put_versionstamped_value("gone", "", "");
    batch.delete("gone");
    batch.put_versionstamped_key("b/", "", "gone");
    batch.delete_range("b/".."b0");
    batch.put_versionstamped_value("twice", "old", "");
    batch.put("twice", "new");
    assert_eq!(batch.len(), 11);
    let seq = kv.write(batch.clone()).unwrap();
    let check = |seq: SeqNo| {
        let found = |key: Vec<u8>| kv.get(key).unwrap().map(|value| value.to_vec());
        assert_eq!(found(stamped(b"a/", seq, b"/z")).unwrap(), b"first");
        assert_eq!(found(stamped(b"a/", seq, b"")).unwrap(), b"second");
        assert_eq!(found(stamped(b"", seq, b"")).unwrap(), b"alone");
        assert_eq!(found(b"value".into()).unwrap(), stamped(b"<", seq, b">"));
        assert_eq!(found(b"gone".into()), None);
        assert_eq!(found(b"twice".into()).unwrap(), b"new");
        assert_eq!(kv.prefix("b/").count(), 0);
    };
    check(seq);
    // A batch that is written again gets another number.
    kv.put("between", "").unwrap();
    let again = kv.write(batch.clone()).unwrap();
    assert!(again > seq);
    check(again);
    let keys: Vec<_> = kv.prefix("a/").map(|entry| entry.unwrap().0).collect();
    let numbers: Vec<_> = keys.iter().map(|key| number(key, 2)).collect();
    assert_eq!(numbers, [seq.0, seq.0, again.0, again.0]);
    batch.clear();
    batch.put("other", "0123456789");
    kv.write(batch).unwrap();
    assert_eq!(kv.get("other").unwrap().unwrap(), "0123456789");
}

/// The number counts for the limits, and nothing is written beyond them.
fn limits_count_the_number(kv: &impl Kv) {
    let (key, value) = (
        vec![b'k'; MAX_KEY_LEN_BYTES],
        vec![b'v'; MAX_VALUE_LEN_BYTES],
    );
    let count = kv.len().unwrap();
    let refused = |put: &dyn Fn(&mut Batch)| {
        let mut batch = Batch::new();
        batch.put("beside", "");
        put(&mut batch);
        is_invalid(kv.write(batch))
    };
    assert!(refused(&|batch| batch.put_versionstamped_key(
        &key[7..],
        "",
        ""
    )));
    assert!(refused(&|batch| batch.put_versionstamped_key(
        "",
        &key[7..],
        ""
    )));
    assert!(refused(&|batch| batch.put_versionstamped_key(
        "",
        "",
        [&value[..], b"v"].concat()
    )));
    assert!(refused(&|batch| batch.put_versionstamped_value(
        "k",
        &value[7..],
        ""
    )));
    assert_eq!(kv.len().unwrap(), count);
    let mut batch = Batch::new();
    batch.put_versionstamped_key(&key[8..], "", "");
    let seq = kv.write(batch).unwrap();
    assert!(kv.contains_key(stamped(&key[8..], seq, b"")).unwrap());
}

#[test]
fn the_same_on_the_model_and_both_engines() {
    batches_get_their_number(&Model::new());
    limits_count_the_number(&Model::new());
    for engine in ENGINES {
        for sizes in [Sizes::Tiny, Sizes::Default] {
            let mut rig = Rig::new(Place::Memory, sizes);
            batches_get_their_number(&rig.keyspace("a", engine));
            limits_count_the_number(&rig.keyspace("b", engine));
        }
    }
}

#[test]
fn all_keyspaces_of_a_commit_get_one_number() {
    let mut rig = Rig::new(Place::Memory, Sizes::Tiny);
    let (a, b) = (rig.keyspace("a", ENGINES[0]), rig.keyspace("b", ENGINES[1]));
    let mut batch = WriteBatch::new();
    batch.put_versionstamped_key(&a, "k", "", "1");
    batch.put(&a, "plain", "1");
    batch.put_versionstamped_key(&b, "k", "", "2");
    batch.put_versionstamped_value(&b, "last", "", "");
    let seq = rig.db().write(batch, Durability::Sync).unwrap();
    for keyspace in [&a, &b] {
        assert!(keyspace.contains_key(stamped(b"k", seq, b"")).unwrap());
    }
    assert_eq!(b.get("last").unwrap().unwrap(), seq.0.to_be_bytes());
}

fn contents(keyspace: &Keyspace) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let owned = |entry: hedgerow::Result<(hedgerow::Value, hedgerow::Value)>| {
        let (key, value) = entry.unwrap();
        (key.to_vec(), value.to_vec())
    };
    keyspace.iter().map(owned).collect()
}

/// Batches of so many operations that they would be visible before the engine has them.
#[test]
fn large_batches() {
    for engine in ENGINES {
        let mut rig = Rig::new(Place::Memory, Sizes::Tiny);
        let keyspace = rig.keyspace("a", engine);
        let mut batch = Batch::new();
        for n in 0..20_000_u32 {
            batch.put_versionstamped_key("k", n.to_be_bytes(), "");
            // Between those keys whatever their number is, and behind the range of some.
            batch.put([b"k", &[0, 0, 0][..], &n.to_be_bytes()].concat(), "");
        }
        let keys = keyspace.write(batch).unwrap();
        let mut batch = Batch::new();
        for n in 0..20_000_u32 {
            batch.put_versionstamped_value(n.to_be_bytes(), "v", "");
        }
        let values = keyspace.write(batch).unwrap();
        let check = |keyspace: &Keyspace| {
            let found = contents(keyspace);
            assert_eq!(found.len(), 60_000);
            for n in 0..20_000_u32 {
                let n = n.to_be_bytes();
                assert_eq!(found[&stamped(b"k", keys, &n)], b"");
                assert_eq!(found[&n[..]], stamped(b"v", values, b""));
                assert_eq!(
                    keyspace.get(n).unwrap().unwrap(),
                    stamped(b"v", values, b"")
                );
            }
        };
        check(&keyspace);
        drop(keyspace);
        rig.close();
        check(&rig.keyspace("a", engine));
    }
}

/// Long values are stored apart, with checksums of their pieces, which the number may straddle.
#[test]
fn values_that_are_stored_apart() {
    const CHUNK: usize = 64 << 10;
    for engine in ENGINES {
        let mut rig = Rig::new(Place::Memory, Sizes::Tiny).with_memtable(MemtableKind::SkipList);
        let keyspace = rig.keyspace("a", engine);
        let lens = [
            0,
            100,
            5000,
            CHUNK - 8,
            CHUNK - 3,
            CHUNK,
            2 * CHUNK - 1,
            300_000,
        ];
        let mut expected = BTreeMap::new();
        for (before, after) in lens.iter().flat_map(|a| lens.map(|b| (*a, b))) {
            let (before, after) = (vec![b'<'; before], vec![b'>'; after]);
            let key = format!("{} {}", before.len(), after.len()).into_bytes();
            let mut batch = Batch::new();
            batch.put("beside", vec![7; 5000]);
            batch.put_versionstamped_value(&key, &before, &after);
            let seq = keyspace.write(batch).unwrap();
            expected.insert(key, stamped(&before, seq, &after));
        }
        expected.insert(b"beside".to_vec(), vec![7; 5000]);
        assert!(contents(&keyspace) == expected);
        keyspace.flush().unwrap();
        assert!(contents(&keyspace) == expected);
        assert!(keyspace.verify().unwrap().is_clean());
        drop(keyspace);
        rig.abandon();
        assert!(contents(&rig.keyspace("a", engine)) == expected);
        assert!(rig.db().verify().unwrap().is_clean());
    }
}

/// The number that a commit expects is another one if others are faster; its checksums follow.
#[test]
fn values_that_are_stored_apart_beside_other_writers() {
    let commits = 500 * effort();
    for engine in ENGINES {
        let mut rig = Rig::new(Place::Memory, Sizes::Default);
        let keyspace = rig.keyspace("a", engine);
        let mut expected = BTreeMap::new();
        thread::scope(|scope| {
            let write = |thread: u64| {
                let keyspace = &keyspace;
                move || {
                    let commit = |n: u64| {
                        let key = (thread, n);
                        let (before, after) = ([b'<'; 700], [b'>'; 700]);
                        let mut batch = Batch::new();
                        batch.put_versionstamped_value(format!("{key:?}"), before, after);
                        let seq = keyspace.write(batch).unwrap();
                        (
                            format!("{key:?}").into_bytes(),
                            stamped(&before, seq, &after),
                        )
                    };
                    (0..commits).map(commit).collect::<Vec<_>>()
                }
            };
            let writers = [0, 1, 2, 3].map(|thread| scope.spawn(write(thread)));
            for writer in writers {
                expected.extend(writer.join().unwrap());
            }
        });
        keyspace.flush().unwrap();
        assert!(contents(&keyspace) == expected);
        assert!(keyspace.verify().unwrap().is_clean());
    }
}

#[test]
fn transactions() {
    let mut rig = Rig::new(Place::Memory, Sizes::Tiny);
    let (a, b) = (rig.keyspace("a", ENGINES[0]), rig.keyspace("b", ENGINES[1]));
    let db = rig.db().clone();
    b.put("value", "old").unwrap();
    let tx = db.transaction().unwrap();
    tx.put_versionstamped_key(&a, "k", "", "1").unwrap();
    tx.put_versionstamped_value(&b, "value", "new ", "")
        .unwrap();
    let savepoint = tx.savepoint();
    tx.put_versionstamped_key(&a, "taken back", "", "1")
        .unwrap();
    tx.put_versionstamped_value(&b, "taken back", "", "")
        .unwrap();
    tx.put(&b, "taken back too", "").unwrap();
    tx.rollback_to(savepoint).unwrap();
    let of_b = tx.keyspace(&b);
    of_b.put_versionstamped_key("", "/key", "2").unwrap();
    of_b.put_versionstamped_value("other", "", "").unwrap();
    // They come after all that the transaction writes otherwise.
    tx.put(&b, "value", "plain").unwrap();
    tx.delete_range(&b, "o".."p").unwrap();
    tx.delete_range(&a, "k"..).unwrap();
    // And it does not see them.
    assert_eq!(tx.get(&b, "value").unwrap().unwrap(), "plain");
    assert_eq!(
        tx.iter(&a).count() + tx.get(&b, "other").iter().flatten().count(),
        0
    );
    let seq = tx.commit().unwrap();
    let expected_a = BTreeMap::from([(stamped(b"k", seq, b""), b"1".to_vec())]);
    assert_eq!(contents(&a), expected_a);
    let expected_b = BTreeMap::from([
        (stamped(b"", seq, b"/key"), b"2".to_vec()),
        (b"other".to_vec(), stamped(b"", seq, b"")),
        (b"value".to_vec(), stamped(b"new ", seq, b"")),
    ]);
    assert_eq!(contents(&b), expected_b);

    // Limits, and a transaction that goes on after an error.
    let tx = db.transaction().unwrap();
    let long = vec![0; MAX_KEY_LEN_BYTES - 7];
    assert!(is_invalid(tx.put_versionstamped_key(&a, &long, "", "")));
    let refused = tx.put_versionstamped_value(&a, "k", vec![0; MAX_VALUE_LEN_BYTES - 7], "");
    assert!(is_invalid(refused));
    tx.commit().unwrap();
    assert_eq!(contents(&a), expected_a);
    let read_only = TransactionOptions::new().read_only(true);
    let tx = db.transaction_with(read_only).unwrap();
    assert!(is_invalid(tx.put_versionstamped_key(&a, "k", "", "")));
}

#[test]
fn transactions_conflict_with_the_keys_that_come_out() {
    let mut rig = Rig::new(Place::Memory, Sizes::Tiny);
    let (a, b) = (rig.keyspace("a", ENGINES[0]), rig.keyspace("b", ENGINES[1]));
    let db = rig.db().clone();
    let append = || {
        let tx = db.transaction().unwrap();
        tx.put_versionstamped_key(&a, "log/", "", "event").unwrap();
        tx.commit().unwrap()
    };
    let first = append();
    // It has read to the end of the log.
    let reader = db.transaction().unwrap();
    assert_eq!(reader.prefix(&a, "log/").count(), 1);
    reader.put(&b, "k", "v").unwrap();
    // To a place that the number has passed.
    let cut = db.transaction().unwrap();
    let seen = cut.range(&a, "log/"..).next().unwrap().unwrap().0;
    assert_eq!(seen, stamped(b"log/", first, b""));
    cut.put(&b, "l", "v").unwrap();
    append();
    assert!(reader.commit().unwrap_err().is_conflict());
    cut.commit().unwrap();
    // Appending conflicts with nothing, and two may do it at once.
    for isolation in [Isolation::Serializable, Isolation::Snapshot] {
        let begin = || {
            let options = TransactionOptions::new().isolation(isolation);
            db.transaction_with(options).unwrap()
        };
        let both = [begin(), begin()];
        for tx in &both {
            tx.put_versionstamped_key(&a, "log/", "", "event").unwrap();
        }
        for tx in both {
            tx.commit().unwrap();
        }
        // The value of one key is another matter.
        let both = [begin(), begin()];
        for tx in &both {
            tx.put_versionstamped_value(&b, "last", "", "").unwrap();
            tx.put_versionstamped_key(&b, "log/", "", "").unwrap();
        }
        let [first, second] = both;
        first.commit().unwrap();
        let second = second.commit();
        assert_eq!(second.is_err(), isolation == Isolation::Snapshot);
        assert!(second.err().is_none_or(|error| error.is_conflict()));
    }
    assert_eq!(a.len().unwrap(), 6);
}

/// Appends an event, in one of the ways that there are; returns its key.
fn append(
    random: &mut Random,
    db: &hedgerow::Db,
    log: &Keyspace,
    durability: Durability,
    value: &[u8],
) -> SeqNo {
    match random.below(3) {
        0 => {
            let mut batch = Batch::new();
            batch.put_versionstamped_key("log/", "", value);
            batch.put_versionstamped_value("last", "", "");
            log.write_with(batch, durability).unwrap()
        }
        1 => {
            let mut batch = db.batch();
            batch.put_versionstamped_key(log, "log/", "", value);
            db.write(batch, durability).unwrap()
        }
        _ => {
            let options = TransactionOptions::new().durability(durability);
            let tx = db.transaction_with(options).unwrap();
            tx.put_versionstamped_key(log, "log/", "", value).unwrap();
            tx.commit().unwrap()
        }
    }
}

type Event = (Vec<u8>, Vec<u8>);

fn append_many(db: &hedgerow::Db, log: &Keyspace, thread: u64, events: u64) -> Vec<Event> {
    let mut random = Random::new(thread);
    let mut appended = Vec::new();
    for n in 0..events {
        let value = [thread.to_be_bytes(), n.to_be_bytes()].concat();
        let durability = match random.one_in(8) {
            true => Durability::Sync,
            false => Durability::Buffered,
        };
        let seq = append(&mut random, db, log, durability, &value);
        let key = stamped(b"log/", seq, b"");
        assert_eq!(log.get(&key).unwrap().unwrap(), value);
        appended.push((key, value));
    }
    appended
}

/// Reads what comes behind what it has seen, until `is_over` and once more.
fn follow(log: &Keyspace, is_over: &AtomicBool) -> Vec<Event> {
    let mut seen: Vec<Event> = Vec::new();
    loop {
        let is_last = is_over.load(Ordering::SeqCst);
        let from = seen.last().map_or(&b"log/"[..], |(key, _)| key);
        let from = [from, b"\0"].concat();
        for entry in log.range(from..b"log0".to_vec()) {
            let (key, value) = entry.unwrap();
            seen.push((key.to_vec(), value.to_vec()));
        }
        if is_last {
            return seen;
        }
    }
}

/// Eight threads append to one log, and two follow it: they see each event once, in the order of
/// the commits, and none that comes before what they have seen.
#[test]
fn a_log_is_in_the_order_of_its_commits() {
    const THREADS: u64 = 8;
    let events = 300 * effort();
    for engine in ENGINES {
        let mut rig =
            Rig::new(Place::Memory, Sizes::Tiny).with(|options| options.background_threads(1));
        let log = rig.keyspace("log", engine);
        let db = rig.db().clone();
        let is_over = AtomicBool::new(false);
        let (appended, followed) = std::thread::scope(|scope| {
            let writers: Vec<_> = (0..THREADS)
                .map(|thread| {
                    let (log, db) = (&log, &db);
                    scope.spawn(move || append_many(db, log, thread, events))
                })
                .collect();
            let followers: Vec<_> = (0..2)
                .map(|_| {
                    let (log, is_over) = (&log, &is_over);
                    scope.spawn(move || follow(log, is_over))
                })
                .collect();
            let appended: Vec<_> = writers.into_iter().map(|writer| writer.join()).collect();
            is_over.store(true, Ordering::SeqCst);
            let followed: Vec<_> = followers.into_iter().map(|f| f.join().unwrap()).collect();
            let appended: Vec<_> = appended.into_iter().map(Result::unwrap).collect();
            (appended, followed)
        });
        for of_thread in &appended {
            assert!(
                of_thread.is_sorted(),
                "a thread's later event has a later key"
            );
        }
        let mut all = appended.concat();
        all.sort();
        assert_eq!(all.len() as u64, THREADS * events);
        for seen in followed {
            assert!(seen == all, "{} of {}", seen.len(), all.len());
        }
        let last = log.get("last").unwrap().unwrap();
        assert!(all.iter().any(|(key, _)| key[4..] == last[..]));
        assert!(db.verify().unwrap().is_clean());
    }
}

/// After a power loss a log is a prefix of what it was, with the same keys.
#[test]
fn a_log_after_a_power_loss() {
    for (seed, engine) in (0..20 * effort()).flat_map(|seed| ENGINES.map(|engine| (seed, engine))) {
        let mut random = Random::new(seed);
        let mut rig = Rig::new(Place::Memory, Sizes::Tiny);
        let log = rig.keyspace("log", engine);
        let db = rig.db().clone();
        let mut events = Vec::new();
        let mut synced = 0;
        for n in 0..60_u64 {
            let durability = match random.one_in(6) {
                true => Durability::Sync,
                false => Durability::Buffered,
            };
            let len = *random.pick(&[20, 3000]);
            let value = random.bytes(len);
            let seq = append(&mut random, &db, &log, durability, &value);
            events.push((stamped(b"log/", seq, b""), value));
            if durability == Durability::Sync {
                synced = events.len();
            }
            if random.one_in(10) {
                log.flush().unwrap();
                synced = events.len();
            }
            if random.one_in(8) {
                let after = match random.one_in(2) {
                    true => rig.mem().crash_keeping(n),
                    false => rig.mem().crash(),
                };
                let mut image = Rig::new(Place::Memory, Sizes::Tiny)
                    .with(|options| options.fs(Arc::new(after)));
                let found = image.keyspace("log", engine);
                let found: Vec<_> = found
                    .prefix("log/")
                    .map(|entry| entry.unwrap())
                    .map(|(key, value)| (key.to_vec(), value.to_vec()))
                    .collect();
                assert!(found.len() >= synced, "seed {seed}");
                assert!(found[..] == events[..found.len()], "seed {seed}");
            }
        }
    }
}
