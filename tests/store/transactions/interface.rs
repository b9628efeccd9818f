//! What the interface of transactions promises beside isolation.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use hedgerow::fs::SimFs;
use hedgerow::{
    Db, Durability, EngineKind, Error, Isolation, Keyspace, MAX_KEY_LEN_BYTES, Options,
    Transaction, TransactionOptions,
};
use support::rig::{Place, Rig, Sizes};

fn rig() -> (Rig, Keyspace, Keyspace) {
    let mut rig = Rig::new(Place::Memory, Sizes::Tiny);
    let a = rig.keyspace("a", EngineKind::Lsm);
    let b = rig.keyspace("b", EngineKind::BTree);
    (rig, a, b)
}

fn is_invalid(error: &Error) -> bool {
    matches!(error, Error::InvalidArgument { .. })
}

fn keys(tx: &Transaction, keyspace: &Keyspace) -> Vec<String> {
    let forwards: Vec<_> = tx.keyspace(keyspace).keys().map(Result::unwrap).collect();
    let mut backwards: Vec<_> = tx
        .keyspace(keyspace)
        .keys()
        .rev()
        .map(Result::unwrap)
        .collect();
    backwards.reverse();
    assert_eq!(forwards, backwards);
    let text = |key: &hedgerow::Value| String::from_utf8(key.to_vec()).unwrap();
    forwards.iter().map(text).collect()
}

#[test]
fn a_transaction_can_be_sent_and_shared() {
    fn check<T: Send + Sync>() {}
    check::<Transaction>();
    check::<hedgerow::TransactionKeyspace<'static>>();
}

#[test]
fn savepoints_can_be_used_again_and_later_ones_go() {
    let (mut rig, a, b) = rig();
    for n in 0..8 {
        a.put(format!("k{n}"), "old").unwrap();
    }
    let db = rig.db().clone();
    let tx = db.transaction().unwrap();
    tx.put(&a, "k1", "1").unwrap();
    let first = tx.savepoint();
    tx.delete_range(&a, "k2".."k5").unwrap();
    tx.put(&a, "k3", "3").unwrap();
    tx.put(&b, "other", "1").unwrap();
    let second = tx.savepoint();
    tx.delete_range(&a, "k1".."k4").unwrap();
    tx.delete(&a, "k7").unwrap();
    tx.put(&a, "k9", "9").unwrap();
    assert_eq!(keys(&tx, &a), ["k0", "k5", "k6", "k9"]);
    tx.rollback_to(second).unwrap();
    assert_eq!(keys(&tx, &a), ["k0", "k1", "k3", "k5", "k6", "k7"]);
    assert_eq!(tx.get(&a, "k3").unwrap().unwrap(), "3");
    tx.rollback_to(first).unwrap();
    assert_eq!(keys(&tx, &a).len(), 8);
    assert_eq!(keys(&tx, &b).len(), 0);
    assert!(is_invalid(&tx.rollback_to(second).unwrap_err()));
    tx.delete(&a, "k0").unwrap();
    tx.rollback_to(first).unwrap();
    assert_eq!(tx.get(&a, "k1").unwrap().unwrap(), "1");

    let other = db.transaction().unwrap();
    other.savepoint();
    assert!(is_invalid(&other.rollback_to(first).unwrap_err()));
    tx.commit().unwrap();
    assert_eq!(a.get("k0").unwrap().unwrap(), "old");
    assert_eq!(a.get("k1").unwrap().unwrap(), "1");
    assert!(b.is_empty().unwrap());
}

#[test]
fn a_scan_sees_what_was_written_before_it() {
    let (mut rig, a, b) = rig();
    for keyspace in [&a, &b] {
        for n in 0..6 {
            keyspace.put(format!("k{n}"), "old").unwrap();
        }
        let tx = rig.db().transaction().unwrap();
        tx.put(keyspace, "k1", "new").unwrap();
        let mut scan = tx.iter(keyspace);
        assert_eq!(scan.next().unwrap().unwrap().0, "k0");
        tx.delete_range(keyspace, ..).unwrap();
        tx.put(keyspace, "k2a", "later").unwrap();
        assert_eq!(scan.next().unwrap().unwrap().1, "new");
        assert_eq!(scan.next_back().unwrap().unwrap().0, "k5");
        assert_eq!(keys(&tx, keyspace), ["k2a"]);
        tx.commit().unwrap();
        // It outlives the transaction.
        assert_eq!(scan.map(Result::unwrap).count(), 3);
        let left: Vec<_> = keyspace.keys().map(Result::unwrap).collect();
        assert_eq!(left, ["k2a"]);
    }
}

/// What a transaction had written itself was answered through a handle of another store whose
/// keyspace has the same number.
#[test]
fn keyspaces_of_other_stores_are_refused() {
    let (mut rig, a, _) = rig();
    let mut elsewhere = Rig::new(Place::Memory, Sizes::Tiny);
    let foreign = elsewhere.keyspace("a", EngineKind::Lsm);
    foreign.put("k", "of the other store").unwrap();
    let tx = rig.db().transaction().unwrap();
    let refuses_all = |when: &str| {
        for of_tx in [tx.keyspace(&foreign), tx.untracked(&foreign)] {
            let outcomes = [
                of_tx.put("k", "v").err(),
                of_tx.put_with_ttl("k", "v", Duration::from_secs(1)).err(),
                of_tx.put_until("k", "v", SystemTime::now()).err(),
                of_tx.put_versionstamped_key("k", "", "v").err(),
                of_tx.put_versionstamped_value("k", "", "v").err(),
                of_tx.merge("k", "v").err(),
                of_tx.delete("k").err(),
                of_tx.delete_range("a"..).err(),
                of_tx.get("k").err(),
                of_tx.get_for_update("k").err(),
                of_tx.get_with("k", <[u8]>::len).err(),
                of_tx.get_range("k", 0..1).err(),
                of_tx.reader("k").err(),
                of_tx.contains_key("k").err(),
                of_tx.multi_get(&["k", "none"]).err(),
                of_tx.range("a"..).next().and_then(Result::err),
                of_tx.prefix("k").next_back().and_then(Result::err),
                of_tx.keys().next().and_then(Result::err),
                of_tx.values().next().and_then(Result::err),
                of_tx.iter().try_count().err(),
                of_tx.first().err(),
                of_tx.last().err(),
                of_tx.len().err(),
                of_tx.is_empty().err(),
                of_tx.size_of_range("a"..).err(),
                of_tx.split_points("a".., 2).err(),
            ];
            for (n, outcome) in outcomes.iter().enumerate() {
                let is_refused = outcome.as_ref().is_some_and(is_invalid);
                assert!(is_refused, "{when}, call {n}: {outcome:?}");
            }
        }
    };
    refuses_all("nothing is written");
    let options = TransactionOptions::new().keyspaces([&foreign]);
    let refused = rig.db().transaction_with(options).unwrap_err();
    assert!(is_invalid(&refused), "{refused}");
    // It goes on.
    tx.delete(&a, "k").unwrap();
    refuses_all("it was deleted");
    tx.put(&a, "k", "v").unwrap();
    refuses_all("it was put");
    tx.commit().unwrap();
    assert_eq!(foreign.get("k").unwrap().unwrap(), "of the other store");
    assert_eq!(a.get("k").unwrap().unwrap(), "v");
}

#[test]
fn only_the_named_keyspaces_are_used() {
    let (mut rig, a, b) = rig();
    b.put("k", "v").unwrap();
    let options = TransactionOptions::new().keyspaces([&a, &a]);
    let tx = rig.db().transaction_with(options).unwrap();
    tx.put(&a, "k", "v").unwrap();
    for error in [
        tx.put(&b, "k", "w").unwrap_err(),
        tx.get(&b, "k").unwrap_err(),
        tx.untracked(&b).len().unwrap_err(),
    ] {
        assert!(
            is_invalid(&error) && error.to_string().contains("\"b\""),
            "{error}"
        );
    }
    tx.commit().unwrap();
}

#[test]
fn dropped_keyspaces() {
    let (mut rig, a, b) = rig();
    let db = rig.db().clone();
    let is_gone = |error: &Error| matches!(error, Error::NoSuchKeyspace { .. });
    a.put("k", "v").unwrap();
    let wrote = db.transaction().unwrap();
    wrote.put(&a, "k", "w").unwrap();
    wrote.put(&b, "k", "w").unwrap();
    let read = db.transaction().unwrap();
    assert!(read.get(&a, "k").unwrap().is_some());
    read.put(&b, "k", "r").unwrap();
    db.drop_keyspace("a").unwrap();
    // The snapshot has it still.
    assert_eq!(read.get(&a, "k").unwrap().unwrap(), "v");
    assert!(is_gone(&read.put(&a, "k", "v").unwrap_err()));
    assert!(read.commit().unwrap_err().is_conflict());
    assert!(is_gone(&wrote.commit().unwrap_err()));
    assert!(b.is_empty().unwrap());
    // Gone from the beginning.
    let tx = db.transaction().unwrap();
    assert!(is_gone(&tx.get(&a, "k").unwrap_err()));
    assert!(is_gone(&tx.put(&a, "k", "v").unwrap_err()));
    let options = TransactionOptions::new().keyspaces([&a]);
    assert!(is_gone(&db.transaction_with(options).unwrap_err()));
}

#[test]
fn keyspaces_that_are_made_later_are_empty() {
    let (mut rig, a, _) = rig();
    let tx = rig.db().transaction().unwrap();
    let later = rig.keyspace("later", EngineKind::BTree);
    later.put("k", "v").unwrap();
    assert_eq!(tx.get(&later, "k").unwrap(), None);
    assert_eq!(tx.iter(&later).count(), 0);
    tx.put(&later, "own", "v").unwrap();
    assert_eq!(keys(&tx, &later), ["own"]);
    tx.put(&a, "k", "v").unwrap();
    // It has read that there is none.
    assert!(tx.commit().unwrap_err().is_conflict());
    let tx = rig.db().transaction().unwrap();
    assert_eq!(keys(&tx, &later), ["k"]);
}

#[test]
fn stores_that_are_closed_or_read_only() {
    let fs = Arc::new(SimFs::new());
    let path = Path::new("/store");
    let open = |options: Options| options.fs(fs.clone()).open(path).unwrap();
    let db = open(Options::new());
    let users = db.keyspace("users", EngineKind::BTree).unwrap();
    users.put("ada", "1815").unwrap();
    let tx = db.transaction().unwrap();
    tx.put(&users, "bob", "1970").unwrap();
    db.close().unwrap();
    assert_eq!(tx.get(&users, "ada").unwrap().unwrap(), "1815");
    assert!(matches!(tx.commit().unwrap_err(), Error::Closed));
    assert!(matches!(db.transaction().unwrap_err(), Error::Closed));
    let read_only = || TransactionOptions::new().read_only(true);
    let refused = db.transaction_with(read_only()).unwrap_err();
    assert!(matches!(refused, Error::Closed));
    drop((users, db));

    let db = open(Options::new().read_only(true));
    let users = db.existing_keyspace("users").unwrap().unwrap();
    assert!(matches!(db.transaction().unwrap_err(), Error::ReadOnly));
    let tx = db.transaction_with(read_only()).unwrap();
    assert_eq!(keys(&tx, &users), ["ada"]);
    for error in [
        tx.put(&users, "k", "v").unwrap_err(),
        tx.delete(&users, "k").unwrap_err(),
        tx.delete_range(&users, ..).unwrap_err(),
        tx.get_for_update(&users, "k").unwrap_err(),
    ] {
        assert!(is_invalid(&error), "{error}");
    }
    assert_eq!(tx.seq(), tx.commit().unwrap());
}

#[test]
fn limits_are_checked_at_the_write() {
    let (mut rig, a, _) = rig();
    let tx = rig.db().transaction().unwrap();
    let long = vec![b'k'; MAX_KEY_LEN_BYTES + 1];
    assert!(is_invalid(&tx.put(&a, &long, "v").unwrap_err()));
    assert!(is_invalid(&tx.delete(&a, &long).unwrap_err()));
    let too_long = [&long[..], b"k"].concat();
    assert!(is_invalid(&tx.delete_range(&a, &too_long..).unwrap_err()));
    tx.put(&a, &long[1..], "v").unwrap();
    tx.delete_range(&a, "z".."a").unwrap();
    tx.commit().unwrap();
    assert_eq!(a.len().unwrap(), 1);
}

/// Beyond what the store remembers the oldest transactions end, and only they.
#[test]
fn a_transaction_that_lives_beside_too_much_is_too_old() {
    let (mut rig, a, b) = rig();
    let db = rig.db().clone();
    let old = db.transaction().unwrap();
    assert_eq!(old.get(&b, "k").unwrap(), None);
    old.put(&b, "old", "1").unwrap();
    let reader = db.transaction().unwrap();
    let blind = db.transaction().unwrap();
    blind.put(&b, "blind", "1").unwrap();
    let long = vec![b'k'; 60_000];
    let write_much = || {
        for n in 0..300_u32 {
            a.delete([&n.to_be_bytes()[..], &long].concat()).unwrap();
        }
    };
    write_much();
    let young = db.transaction().unwrap();
    assert_eq!(young.get(&b, "k").unwrap(), None);
    young.put(&b, "young", "1").unwrap();
    let error = old.commit().unwrap_err();
    assert!(matches!(error, Error::TransactionTooOld), "{error:#}");
    assert!(error.is_conflict() && error.is_retryable());
    young.commit().unwrap();
    // It depends on nothing, and this one writes nothing.
    blind.commit().unwrap();
    assert_eq!(keys(&reader, &b).len(), 0);
    reader.commit().unwrap();

    // Again, and validated before the log lock.
    let mut runs = 0;
    db.transact(|tx| {
        runs += 1;
        let seen = tx.get(&a, &long[1..])?;
        if runs == 1 {
            a.put(&long[1..], "1")?;
            write_much();
        }
        tx.put(&b, "runs", [u8::from(seen.is_some())])
    })
    .unwrap();
    assert_eq!((runs, &b.get("runs").unwrap().unwrap()[..]), (2, &[1][..]));
}

/// Of a long list of commits most are looked through before the log lock is taken.
#[test]
fn conflicts_are_found_in_a_long_list_of_commits() {
    let (mut rig, a, b) = rig();
    let db = rig.db().clone();
    for conflict_at in [None, Some(0), Some(700), Some(20_000), Some(39_999)] {
        let tx = db.transaction().unwrap();
        assert_eq!(tx.get(&b, "k").unwrap(), None);
        tx.put(&a, "done", "1").unwrap();
        for n in 0..40_000_u32 {
            if conflict_at == Some(n) {
                b.delete("k").unwrap();
            } else if n.is_multiple_of(40) {
                let mut batch = db.batch();
                for n in n..n + 40 {
                    batch.delete(&a, n.to_be_bytes());
                }
                db.write(batch, Durability::Buffered).unwrap();
            }
        }
        match (conflict_at, tx.commit()) {
            (None, committed) => drop(committed.unwrap()),
            (Some(_), committed) => assert!(committed.unwrap_err().is_conflict()),
        }
    }
}

/// What is read beyond the bound is tracked more coarsely, and never less.
#[test]
fn a_transaction_that_reads_much_misses_no_conflict() {
    let (mut rig, a, b) = rig();
    let db = rig.db().clone();
    let name = |n: u32| [&n.to_be_bytes()[..], &[b'k'; 60_000]].concat();
    let read = || {
        let tx = db.transaction().unwrap();
        for n in 0..400 {
            assert_eq!(tx.get(&a, name(n * 10)).unwrap(), None);
        }
        tx.put(&b, "k", "v").unwrap();
        tx
    };
    for n in [0, 7, 133, 398, 399] {
        let tx = read();
        a.delete(name(n * 10)).unwrap();
        assert!(tx.commit().unwrap_err().is_conflict(), "{n}");
    }
    // Keys before all and behind all others were not read.
    let tx = read();
    a.delete("").unwrap();
    a.delete(name(5000)).unwrap();
    b.delete(name(50)).unwrap();
    tx.commit().unwrap();
}

#[test]
fn a_closure_that_fails_writes_nothing() {
    #[derive(Debug)]
    enum Failure {
        Own(&'static str),
        Store(Error),
    }
    impl From<Error> for Failure {
        fn from(error: Error) -> Self {
            Self::Store(error)
        }
    }
    let (mut rig, a, _) = rig();
    let db = rig.db().clone();
    let mut runs = 0;
    let failed = db.transact(|tx| {
        runs += 1;
        tx.put(&a, "k", "v")?;
        Err::<(), _>(Failure::Own("not today"))
    });
    assert!(matches!(failed, Err(Failure::Own("not today"))));
    assert!(runs == 1 && a.is_empty().unwrap());
    // An error of the store that the closure passes on is one as well.
    let failed = db.transact(|tx| {
        tx.put(&a, vec![0; MAX_KEY_LEN_BYTES + 1], "v")?;
        Ok::<_, Failure>(())
    });
    assert!(matches!(
        failed,
        Err(Failure::Store(Error::InvalidArgument { .. }))
    ));
    // A panic rolls back.
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        db.transact(|tx| {
            tx.put(&a, "k", "v")?;
            if tx.contains_key(&a, "k")? {
                panic!("as planned");
            }
            Ok::<_, Error>(())
        })
    }));
    assert!(panicked.is_err() && a.is_empty().unwrap());
}

#[test]
fn attempts_have_a_limit() {
    let (mut rig, a, _) = rig();
    let db = rig.db().clone();
    for (limit, expected) in [(0, 1), (1, 1), (5, 5)] {
        let options = TransactionOptions::new().attempts(limit);
        let mut runs = 0_u32;
        let failed = db.transact_with(options, |tx| {
            runs += 1;
            tx.get(&a, "k")?;
            a.put("k", runs.to_le_bytes())?;
            tx.put(&a, "other", "v")
        });
        assert!(failed.unwrap_err().is_conflict());
        assert_eq!(runs, expected);
    }
    let mut runs = 0_u32;
    let done = db
        .transact_with(TransactionOptions::new(), |tx| {
            runs += 1;
            tx.get(&a, "k")?;
            if runs < 4 {
                a.put("k", runs.to_le_bytes())?;
            }
            tx.put(&a, "other", "v")?;
            Ok::<_, Error>(runs)
        })
        .unwrap();
    assert_eq!((done.value, done.conflicts), (4, 3));
    assert!(done.seq > rig.db().transaction().unwrap().seq().prev().prev());
}

/// Counts from many threads, in both engines at once; each isolation loses none.
#[test]
fn counters_lose_nothing() {
    const THREADS: u64 = 8;
    const COUNTS: u64 = 150;
    for isolation in [Isolation::Serializable, Isolation::Snapshot] {
        let (mut rig, a, b) = rig();
        let db: Db = rig.db().clone();
        let conflicts = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    for _ in 0..COUNTS {
                        let options = TransactionOptions::new()
                            .isolation(isolation)
                            .attempts(u32::MAX);
                        let done = db.transact_with(options, |tx| {
                            for keyspace in [&a, &b] {
                                let count = tx.get(keyspace, "count")?;
                                let count = count.map_or(0, |count| {
                                    u64::from_le_bytes(count[..].try_into().unwrap())
                                });
                                tx.put(keyspace, "count", (count + 1).to_le_bytes())?;
                            }
                            Ok::<_, Error>(())
                        });
                        let met = u64::from(done.unwrap().conflicts);
                        conflicts.fetch_add(met, Ordering::Relaxed);
                    }
                });
            }
        });
        for keyspace in [&a, &b] {
            let count = keyspace.get("count").unwrap().unwrap();
            assert_eq!(count, (THREADS * COUNTS).to_le_bytes(), "{isolation:?}");
        }
    }
}

/// Between the conflicting keys of one pair of keyspaces nothing is retried without end.
#[test]
fn transactions_go_on_beside_a_commit_that_waits_for_its_sync() {
    let (mut rig, a, b) = rig();
    let db = rig.db().clone();
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let (db, a, b) = (&db, &a, &b);
            scope.spawn(move || {
                for n in 0..100_u64 {
                    let durability = match (thread + n) % 2 {
                        0 => Durability::Sync,
                        _ => Durability::Buffered,
                    };
                    let options = TransactionOptions::new()
                        .durability(durability)
                        .attempts(u32::MAX);
                    let done = db.transact_with(options, |tx| {
                        let key = (n % 3).to_le_bytes();
                        let sum = tx.iter(a).try_count()? + tx.iter(b).try_count()?;
                        tx.put(a, key, sum.to_le_bytes())?;
                        tx.put(b, key, sum.to_le_bytes())
                    });
                    let seq = done.unwrap().seq;
                    assert!(durability == Durability::Buffered || db.durable_seq() >= seq);
                }
            });
        }
    });
    let pairs = a.iter().zip(b.iter());
    let pairs: Vec<_> = pairs.map(|(a, b)| (a.unwrap(), b.unwrap())).collect();
    assert!(pairs.len() == 3 && pairs.iter().all(|(a, b)| a == b));
}

/// It was noted after the closure, and so not at all.
#[test]
fn what_a_closure_that_panics_was_lent_is_read() {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    let (mut rig, a, b) = rig();
    let db = rig.db().clone();
    a.put("k", "1").unwrap();
    let tx = db.transaction().unwrap();
    let mut seen = Vec::new();
    let lend = AssertUnwindSafe(|| {
        let _: Option<()> = tx
            .keyspace(&a)
            .get_with("k", |value| {
                seen.extend_from_slice(value);
                panic!("on purpose")
            })
            .unwrap();
    });
    assert!(catch_unwind(lend).is_err() && seen == b"1");
    a.put("k", "2").unwrap();
    tx.put(&b, "copy", &seen).unwrap();
    assert!(tx.commit().unwrap_err().is_conflict());
}
