//! The anomalies that Adya names ("Weak Consistency", 1999), one by one: what each isolation must
//! not permit, and what snapshot isolation does. And that there is no conflict without a reason.

use hedgerow::{
    Db, Durability, EngineKind, Error, Isolation, Keyspace, Result, SeqNo, Transaction,
    TransactionOptions,
};
use support::rig::{Place, Rig, Sizes};

const BOTH: [Isolation; 2] = [Isolation::Serializable, Isolation::Snapshot];

/// Two keyspaces with `x` and `y` at 0, each engine once in either role.
fn on_both_engines(test: impl Fn(&Db, &Keyspace, &Keyspace)) {
    for [first, second] in [
        [EngineKind::Lsm, EngineKind::BTree],
        [EngineKind::BTree, EngineKind::Lsm],
    ] {
        let mut rig = Rig::new(Place::Memory, Sizes::Tiny);
        let a = rig.keyspace("a", first);
        let b = rig.keyspace("b", second);
        a.put("x", "0").unwrap();
        b.put("y", "0").unwrap();
        test(rig.db(), &a, &b);
    }
}

fn begin(db: &Db, isolation: Isolation) -> Transaction {
    let options = TransactionOptions::new().isolation(isolation);
    db.transaction_with(options).unwrap()
}

fn value(tx: &Transaction, keyspace: &Keyspace, key: &str) -> String {
    let value = tx.get(keyspace, key).unwrap();
    value.map_or("none".into(), |value| {
        String::from_utf8(value.to_vec()).unwrap()
    })
}

fn stored(keyspace: &Keyspace, key: &str) -> Option<String> {
    let value = keyspace.get(key).unwrap()?;
    Some(String::from_utf8(value.to_vec()).unwrap())
}

/// The commit met a conflict, in that keyspace.
fn assert_conflict(committed: Result<SeqNo>, on: &Keyspace) {
    match committed.unwrap_err() {
        error @ Error::Conflict { .. } => {
            assert!(error.is_conflict() && error.is_retryable());
            let Error::Conflict { keyspace, key, .. } = error else {
                unreachable!()
            };
            assert_eq!(keyspace, on.name());
            assert_eq!(key.is_some(), cfg!(debug_assertions));
        }
        other => panic!("no conflict: {other:#}"),
    }
}

#[test]
fn g0_writes_of_two_transactions_do_not_mix() {
    on_both_engines(|db, a, b| {
        for isolation in BOTH {
            let (t1, t2) = (begin(db, isolation), begin(db, isolation));
            t1.put(a, "x", "1").unwrap();
            t2.put(a, "x", "2").unwrap();
            t2.put(b, "y", "2").unwrap();
            t1.put(b, "y", "1").unwrap();
            t1.commit().unwrap();
            let second = t2.commit();
            let expected = match isolation {
                // In the order of commits.
                Isolation::Serializable => second.map(|_| "2").unwrap(),
                _ => {
                    assert_conflict(second, b);
                    "1"
                }
            };
            assert_eq!(stored(a, "x").unwrap(), expected);
            assert_eq!(stored(b, "y").unwrap(), expected);
        }
    });
}

#[test]
fn g1a_what_was_rolled_back_is_never_read() {
    on_both_engines(|db, a, _| {
        for isolation in BOTH {
            let (t1, t2) = (begin(db, isolation), begin(db, isolation));
            t1.put(a, "x", "1").unwrap();
            assert_eq!(value(&t2, a, "x"), "0");
            drop(t1);
            assert_eq!(value(&t2, a, "x"), "0");
            t2.put(a, "z", "1").unwrap();
            t2.commit().unwrap();
            assert_eq!(stored(a, "x").unwrap(), "0");
            a.delete("z").unwrap();
        }
    });
}

#[test]
fn g1b_what_was_overwritten_by_its_own_transaction_is_never_read() {
    on_both_engines(|db, a, _| {
        for isolation in BOTH {
            let t1 = begin(db, isolation);
            t1.put(a, "x", "1").unwrap();
            assert_eq!(stored(a, "x").unwrap(), "0");
            t1.put(a, "x", "2").unwrap();
            t1.commit().unwrap();
            assert_eq!(stored(a, "x").unwrap(), "2");
            a.put("x", "0").unwrap();
        }
    });
}

#[test]
fn g1c_no_two_transactions_read_from_each_other() {
    on_both_engines(|db, a, b| {
        for isolation in BOTH {
            let (t1, t2) = (begin(db, isolation), begin(db, isolation));
            t1.put(a, "x", "1").unwrap();
            t2.put(b, "y", "1").unwrap();
            assert_eq!(value(&t1, b, "y"), "0");
            assert_eq!(value(&t2, a, "x"), "0");
            t1.commit().unwrap();
            assert_eq!(value(&t2, a, "x"), "0", "not even after its commit");
            match isolation {
                Isolation::Serializable => assert_conflict(t2.commit(), a),
                // Both read the time before.
                _ => drop(t2.commit().unwrap()),
            }
            a.put("x", "0").unwrap();
            b.put("y", "0").unwrap();
        }
    });
}

#[test]
fn g_single_a_transaction_reads_one_moment() {
    on_both_engines(|db, a, b| {
        for isolation in BOTH {
            let (t1, t2) = (begin(db, isolation), begin(db, isolation));
            assert_eq!(value(&t1, a, "x"), "0");
            t2.put(a, "x", "1").unwrap();
            t2.put(b, "y", "1").unwrap();
            t2.commit().unwrap();
            assert_eq!(value(&t1, b, "y"), "0");
            assert_eq!(t1.iter(b).next().unwrap().unwrap().1, "0");
            // One that only reads is as if it had run at its beginning.
            t1.commit().unwrap();
            a.put("x", "0").unwrap();
            b.put("y", "0").unwrap();
        }
    });
}

#[test]
fn lost_updates_are_prevented() {
    on_both_engines(|db, a, _| {
        for isolation in BOTH {
            let (t1, t2) = (begin(db, isolation), begin(db, isolation));
            for tx in [&t1, &t2] {
                let old = value(tx, a, "x");
                tx.put(a, "x", old + "+1").unwrap();
            }
            t1.commit().unwrap();
            assert_conflict(t2.commit(), a);
            // Nor is a write outside of transactions lost.
            let t3 = begin(db, isolation);
            let old = value(&t3, a, "x");
            a.update("x", |old| old.map(|old| [old, b"+1"].concat()))
                .unwrap();
            t3.put(a, "x", old + "+1").unwrap();
            assert_conflict(t3.commit(), a);
            assert_eq!(stored(a, "x").unwrap(), "0+1+1");
            a.put("x", "0").unwrap();
        }
    });
}

#[test]
fn g2_item_write_skew_is_what_snapshot_isolation_permits() {
    on_both_engines(|db, a, b| {
        for (isolation, for_update) in [
            (Isolation::Serializable, false),
            (Isolation::Snapshot, true),
            (Isolation::Snapshot, false),
        ] {
            let (t1, t2) = (begin(db, isolation), begin(db, isolation));
            for (tx, keyspace, key) in [(&t1, a, "x"), (&t2, b, "y")] {
                for (read, key) in [(a, "x"), (b, "y")] {
                    match for_update {
                        true => drop(tx.get_for_update(read, key).unwrap()),
                        false => drop(tx.get(read, key).unwrap()),
                    }
                }
                tx.put(keyspace, key, "1").unwrap();
            }
            t1.commit().unwrap();
            match (isolation, for_update) {
                (Isolation::Snapshot, false) => drop(t2.commit().unwrap()),
                _ => assert_conflict(t2.commit(), a),
            }
            a.put("x", "0").unwrap();
            b.put("y", "0").unwrap();
        }
    });
}

/// Reads that find nothing, or that stop somewhere.
type Look = fn(&Transaction, &Keyspace);

/// Reads that depend on the key `m`, which is not there.
const UP_TO_THE_KEY: &[(&str, Look)] = &[
    ("an absent key", |tx, a| {
        assert!(tx.get(a, "m").unwrap().is_none());
    }),
    ("whether there is a key", |tx, a| {
        assert!(!tx.contains_key(a, "m").unwrap());
    }),
    ("several keys", |tx, a| {
        let found = tx.keyspace(a).multi_get(&["x", "m"]).unwrap();
        assert!(found[1].is_none());
    }),
    ("a part of a value", |tx, a| {
        assert!(tx.keyspace(a).get_range("m", 1..).unwrap().is_none());
    }),
    ("a range", |tx, a| {
        assert_eq!(tx.range(a, "l".."n").try_count().unwrap(), 0);
    }),
    ("a range backwards", |tx, a| {
        assert_eq!(tx.range(a, "l".."n").rev().count(), 0);
    }),
    ("a prefix", |tx, a| {
        assert_eq!(tx.prefix(a, "m").count(), 0);
    }),
    ("the first key", |tx, a| {
        assert_eq!(tx.keyspace(a).first().unwrap().unwrap().0, "x");
    }),
    ("the last key before", |tx, a| {
        assert_eq!(tx.range(a, ..="w").next_back().map(|_| ()), None);
    }),
    ("what comes after a seek", |tx, a| {
        let mut scan = tx.iter(a);
        scan.seek("c");
        assert_eq!(scan.next().unwrap().unwrap().0, "x");
    }),
    ("what comes after a seek from the back", |tx, a| {
        let mut scan = tx.iter(a);
        scan.seek_back("w");
        assert!(scan.next_back().is_none());
    }),
    ("a scan that still lives", |tx, a| {
        let mut scan = tx.iter(a);
        assert_eq!(scan.next_key().unwrap().unwrap(), "x");
        // Kept beyond the commit.
        std::mem::forget(scan);
    }),
    ("a scan over its own writes", |tx, a| {
        tx.put(a, "b", "own").unwrap();
        tx.delete_range(a, "n".."o").unwrap();
        assert_eq!(tx.iter(a).count(), 2);
    }),
];

#[test]
fn g2_phantoms_are_noticed() {
    for (what, look) in UP_TO_THE_KEY {
        on_both_engines(|db, a, b| {
            // A key that appears.
            let tx = begin(db, Isolation::Serializable);
            look(&tx, a);
            tx.put(b, "seen", *what).unwrap();
            a.put("m", "1").unwrap();
            assert_conflict(tx.commit(), a);
            assert_eq!(stored(b, "seen"), None, "{what}");
            // One that another transaction writes and deletes again is one that was written.
            a.delete("m").unwrap();
            let tx = begin(db, Isolation::Serializable);
            look(&tx, a);
            tx.put(b, "seen", *what).unwrap();
            a.delete_range("l".."n").unwrap();
            assert_conflict(tx.commit(), a);
            // Snapshot isolation does not mind.
            let tx = begin(db, Isolation::Snapshot);
            look(&tx, a);
            tx.put(b, "seen", *what).unwrap();
            a.put("m", "1").unwrap();
            tx.commit().unwrap();
        });
    }
}

/// Reads that do not depend on the key `m`.
const BESIDE_THE_KEY: &[(&str, Look)] = &[
    ("nothing", |_, _| ()),
    ("another key", |tx, a| drop(tx.get(a, "x").unwrap())),
    ("keys beside it", |tx, a| {
        drop(tx.get(a, "m\0").unwrap());
        drop(tx.get(a, "l").unwrap());
    }),
    ("the ranges beside it", |tx, a| {
        assert_eq!(tx.range(a, .."m").count(), 0);
        assert_eq!(tx.range(a, "m\0"..).count(), 1);
    }),
    ("an empty range", |tx, a| {
        assert_eq!(tx.range(a, "n".."m").count(), 0);
    }),
    ("a scan up to its first entry", |tx, a| {
        tx.put(a, "b", "own").unwrap();
        assert_eq!(tx.iter(a).next().unwrap().unwrap().0, "b");
    }),
    ("a scan up to its last entry", |tx, a| {
        assert_eq!(tx.iter(a).next_back().unwrap().unwrap().0, "x");
    }),
    ("a scan that jumps over it", |tx, a| {
        tx.put(a, "b", "own").unwrap();
        let mut scan = tx.iter(a);
        assert_eq!(scan.next().unwrap().unwrap().0, "b");
        scan.seek("n");
        assert_eq!(scan.next().unwrap().unwrap().0, "x");
    }),
    ("a scan that was not begun", |tx, a| drop(tx.iter(a))),
    ("its own write", |tx, a| {
        tx.put(a, "m", "own").unwrap();
        assert_eq!(tx.get(a, "m").unwrap().unwrap(), "own");
        assert!(tx.contains_key(a, "m").unwrap());
    }),
    ("what it has deleted", |tx, a| {
        tx.delete_range(a, "l".."n").unwrap();
        assert_eq!(tx.get(a, "m").unwrap(), None);
    }),
    ("an untracked read", |tx, a| {
        drop(tx.get_untracked(a, "m").unwrap());
    }),
    ("an untracked scan", |tx, a| {
        assert_eq!(tx.untracked(a).len().unwrap(), 1);
        tx.put(a, "b", "own").unwrap();
        assert_eq!(tx.untracked(a).keys().rev().count(), 2);
    }),
    ("an estimate", |tx, a| {
        assert!(tx.keyspace(a).size_of_range(..).is_ok());
        assert!(tx.keyspace(a).split_points(.., 4).is_ok());
    }),
];

#[test]
fn there_is_no_conflict_without_a_reason() {
    for (what, look) in BESIDE_THE_KEY {
        on_both_engines(|db, a, b| {
            let tx = begin(db, Isolation::Serializable);
            look(&tx, a);
            tx.put(b, "seen", *what).unwrap();
            a.put("m", "1").unwrap();
            b.put("m", "1").unwrap();
            if let Err(error) = tx.commit() {
                panic!("{what}: {error:#}");
            }
            assert_eq!(stored(b, "seen").unwrap(), *what);
        });
    }
}

/// Fekete, O'Neil and O'Neil's: a transaction that only reads shows that two others are in no
/// order.
#[test]
fn a_transaction_that_only_reads_sees_a_state_of_the_order() {
    on_both_engines(|db, a, b| {
        // Withdraws from x, with a fee if x and y are not enough.
        let withdraw = begin(db, Isolation::Serializable);
        assert_eq!(value(&withdraw, a, "x"), "0");
        assert_eq!(value(&withdraw, b, "y"), "0");
        // A deposit to y, and a report that sees it.
        let deposit = begin(db, Isolation::Serializable);
        deposit.put(b, "y", "20").unwrap();
        deposit.commit().unwrap();
        let report = db
            .transaction_with(TransactionOptions::new().read_only(true))
            .unwrap();
        assert_eq!(value(&report, a, "x"), "0");
        assert_eq!(value(&report, b, "y"), "20");
        report.commit().unwrap();
        // The report says that the deposit came first, so there is no fee.
        withdraw.put(a, "x", "-11").unwrap();
        assert_conflict(withdraw.commit(), b);
    });
}

/// A queued commit waits for its sync: what it wrote counts, though no reader sees it yet.
#[test]
fn commits_of_either_durability_count() {
    on_both_engines(|db, a, b| {
        for durability in [Durability::Sync, Durability::Buffered] {
            let (t1, t2) = (
                begin(db, Isolation::Serializable),
                begin(db, Isolation::Serializable),
            );
            for (tx, keyspace) in [(&t1, a), (&t2, b)] {
                drop((tx.get(a, "x").unwrap(), tx.get(b, "y").unwrap()));
                let key = if keyspace.name() == "a" { "x" } else { "y" };
                tx.put(keyspace, key, "1").unwrap();
            }
            let seq = t1.commit_with(durability).unwrap();
            assert!(durability == Durability::Buffered || db.durable_seq() >= seq);
            assert_conflict(t2.commit_with(durability), a);
        }
    });
}
