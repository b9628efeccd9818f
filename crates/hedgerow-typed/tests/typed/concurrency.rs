//! Tables that several threads write.

use std::sync::atomic::{AtomicU32, Ordering};

use hedgerow::{Isolation, Transaction, TransactionOptions};
use hedgerow_typed::{Index, Result, Table, TableDefinition};
use support::random::{Random, Source};

use crate::rig::{ENGINES, Id, Item, Shop, item, store};

const THREADS: u64 = 4;

type Inside<'a> = Table<Id, Item, hedgerow_typed::Postcard, &'a Transaction>;

/// Something that a transaction does to the table.
fn operate(number: usize, items: &Inside<'_>) -> Result<()> {
    let (a, b) = ((1, "a"), (2, "b"));
    match number {
        0 => items.put(a, &item(7, &[7])),
        1 => items.put(a, &item(8, &[8])),
        2 => items.put(b, &item(7, &[7])),
        3 => items.insert((3, "new"), &item(1, &[])).map(drop),
        4 => items.remove(a).map(drop),
        5 => items.delete(b),
        6 => items.pop_first().map(drop),
        7 => items.pop_last().map(drop),
        8 => items.remove_range((1,)..(2,)),
        9 => items.clear(),
        10 => items.retain(|_, row| row.number == Some(2)).map(drop),
        11 => items.update(a, |row| *row = Some(item(9, &[1, 9]))),
        12 => items
            .compare_and_swap(a, Some(&item(1, &[1])), None)
            .map(drop),
        13 => items.insert_if_absent((1, "ab"), &item(7, &[7])).map(drop),
        _ => items.extend([(a, &item(None, &[])), (b, &item(1, &[1]))]),
    }
}

/// Every pair of operations at the same time, at both levels of isolation: either one of them fails
/// to commit, or rows and indexes agree after both.
#[test]
fn whatever_meets_leaves_indexes_that_agree() {
    const OPERATIONS: usize = 15;
    let mut conflicts = 0;
    for engine in ENGINES {
        let db = store();
        let shop = Shop::new();
        let items = shop.open(&db, engine);
        for isolation in [Isolation::Serializable, Isolation::Snapshot] {
            for pair in 0..OPERATIONS * OPERATIONS {
                items.clear().unwrap();
                items.put((1, "a"), &item(1, &[1])).unwrap();
                items.put((2, "b"), &item(2, &[2])).unwrap();
                let begin = || {
                    let options = TransactionOptions::new().isolation(isolation);
                    db.transaction_with(options).unwrap()
                };
                let (first, second) = (begin(), begin());
                let one = operate(pair / OPERATIONS, &items.within(&first).unwrap());
                let other = operate(pair % OPERATIONS, &items.within(&second).unwrap());
                for error in [one.err(), other.err()].into_iter().flatten() {
                    assert!(error.is_not_unique(), "{error}");
                }
                first.commit().unwrap();
                match second.commit() {
                    Ok(_) => {}
                    Err(error) => {
                        assert!(error.is_conflict(), "{error}");
                        conflicts += 1;
                    }
                }
                let report = items.verify().unwrap();
                assert!(report.is_clean(), "{isolation:?}, {pair}: {report:?}");
            }
        }
    }
    assert!(conflicts > 100, "{conflicts}");
}

#[test]
fn a_unique_index_holds_under_concurrent_writers() {
    for engine in ENGINES {
        let db = store();
        let shop = Shop::new();
        let items = shop.open(&db, engine);
        let refused = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let (items, shop, refused) = (&items, &shop, &refused);
                scope.spawn(move || {
                    let mut random = Random::new(thread);
                    for _ in 0..400 {
                        let id = (random.below(6) as u8, "x".repeat(random.below(3) as usize));
                        let number = random.below(12) as u16;
                        if random.one_in(4) {
                            items.remove(&id).unwrap();
                            continue;
                        }
                        match items.insert(&id, &item(number, &[number as u8])) {
                            Ok(_) => {}
                            Err(error) => {
                                assert!(error.is_not_unique(), "{error}");
                                refused.fetch_add(1, Ordering::Relaxed);
                            }
                        }
                        let found = items.by(&shop.by_number).unwrap().get(number).unwrap();
                        if let Some((_, row)) = found {
                            assert_eq!(row.number, Some(number));
                        }
                        let tag = (number as u8, true);
                        for row in items.by(&shop.by_tag).unwrap().get_all(tag) {
                            assert_eq!(row.unwrap().1.tags, [tag.0]);
                        }
                    }
                });
            }
        });
        assert!(refused.into_inner() > 0);
        let report = items.verify().unwrap();
        assert!(report.is_clean(), "{report:?}");
    }
}

#[test]
fn a_table_is_created_once() {
    for engine in ENGINES {
        for _ in 0..5 {
            let db = store();
            let shop = Shop::new();
            std::thread::scope(|scope| {
                for thread in 0..4_u8 {
                    let (db, shop) = (&db, &shop);
                    scope.spawn(move || {
                        let items = shop.definition(engine).open(db).unwrap();
                        items
                            .put((thread, ""), &item(u16::from(thread), &[1]))
                            .unwrap();
                    });
                }
            });
            let items = shop.open(&db, engine);
            assert_eq!(items.len().unwrap(), 4);
            assert!(items.verify().unwrap().is_clean());
            assert_eq!(db.keyspaces().len(), 4);
        }
    }
}

/// All threads want the same names; each name is given once.
#[test]
fn of_those_that_want_a_name_one_gets_it() {
    for engine in ENGINES {
        let db = store();
        let by_name = Index::unique("by name", |_: &(u64, u64), name: &u64| [*name]);
        let users = TableDefinition::<(u64, u64), u64>::new("users")
            .engine(engine)
            .index(&by_name)
            .open(&db)
            .unwrap();
        let given = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let (users, given) = (&users, &given);
                scope.spawn(move || {
                    for name in 0..100 {
                        match users.put((thread, name), &name) {
                            Ok(()) => _ = given.fetch_add(1, Ordering::Relaxed),
                            Err(error) => assert!(error.is_not_unique(), "{error}"),
                        }
                    }
                });
            }
        });
        assert_eq!((given.into_inner(), users.len().unwrap()), (100, 100));
        assert!(users.verify().unwrap().is_clean());
    }
}

#[test]
fn counters_and_queues_lose_nothing() {
    for engine in ENGINES {
        let db = store();
        let counts = TableDefinition::<u8, u64>::new("counts")
            .engine(engine)
            .open(&db)
            .unwrap();
        let queue = TableDefinition::<u64, u64>::new("queue")
            .engine(engine)
            .open(&db)
            .unwrap();
        let jobs: Vec<_> = (0..200).map(|job| (job, job)).collect();
        queue
            .extend(jobs.iter().map(|(key, job)| (key, job)))
            .unwrap();
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    while let Some((_, job)) = queue.pop_first().unwrap() {
                        counts
                            .update(0, |count| *count = Some(count.unwrap_or(0) + job))
                            .unwrap();
                    }
                });
            }
        });
        assert_eq!(counts.get(0).unwrap(), Some(199 * 200 / 2));
    }
}

/// An index is added while others write: each row is in it, whichever thread wrote it.
#[test]
fn an_index_that_is_added_meanwhile_misses_nothing() {
    for engine in ENGINES {
        let db = store();
        let shop = Shop::new();
        shop.plain(engine).open(&db).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..2 {
                let (db, shop) = (&db, &shop);
                scope.spawn(move || {
                    let plain = shop.plain(engine).open(db);
                    let mut written = 0;
                    for number in 0..500 {
                        let id = (thread, number.to_string());
                        match plain
                            .as_ref()
                            .map(|plain| plain.put(&id, &item(None, &[1])))
                        {
                            Ok(Ok(())) => written += 1,
                            // From here on it has the index.
                            _ => break,
                        }
                    }
                    written
                });
            }
            let items = shop.open(&db, engine);
            assert!(items.verify().unwrap().is_clean());
        });
        let items = shop.open(&db, engine);
        let report = items.verify().unwrap();
        assert!(report.is_clean(), "{report:?}");
        assert_eq!(report.rows, report.index_entries);
    }
}
