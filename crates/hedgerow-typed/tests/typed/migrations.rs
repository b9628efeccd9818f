//! Migrations of a table's version.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hedgerow::fs::SimFs;
use hedgerow::{Db, EngineKind, Keyspace, KeyspaceOptions, ManualClock, Options};
use hedgerow_typed::{Error, Index, Table, TableDefinition, tables};

use crate::rig::{ENGINES, open, store};

/// More than are converted in one commit.
const ROWS: u32 = 2500;

fn first() -> TableDefinition<u32, u32> {
    TableDefinition::new("numbers")
}

/// The key as text, and only numbers that are no multiple of ten.
fn second() -> TableDefinition<String, (u32, bool)> {
    TableDefinition::new("numbers")
        .version(2)
        .migrate_from(first(), |key, value| {
            let new = (key.to_string(), (value, key % 2 == 0));
            Ok((key % 10 != 0).then_some(new))
        })
}

fn fill(db: &Db, engine: EngineKind) -> Table<u32, u32> {
    let numbers = first().engine(engine).open(db).unwrap();
    let rows: Vec<_> = (0..ROWS).map(|key| (key, key * 3)).collect();
    numbers
        .extend(rows.iter().map(|(key, value)| (key, value)))
        .unwrap();
    numbers
}

fn check(numbers: &Table<String, (u32, bool)>) {
    assert_eq!(numbers.len().unwrap(), u64::from(ROWS / 10 * 9));
    assert_eq!(numbers.get("1234").unwrap(), Some((3702, true)));
    assert_eq!(numbers.get("10").unwrap(), None);
    assert!(numbers.verify().unwrap().is_clean());
}

#[test]
fn rows_become_those_of_the_next_version() {
    for engine in ENGINES {
        let fs = SimFs::new();
        let db = open(&fs);
        let old = fill(&db, engine);
        let numbers = second().open(&db).unwrap();
        check(&numbers);
        assert_eq!(numbers.keyspace().engine(), engine);
        assert_eq!(numbers.keyspace().name(), "numbers");
        assert!(old.put(1, &1).is_err());
        let error = first().open(&db).unwrap_err();
        assert!(
            matches!(
                error,
                Error::Version {
                    stored: 2,
                    wanted: 1,
                    ..
                }
            ),
            "{error}"
        );
        let names: Vec<_> = db.keyspaces().into_iter().map(|info| info.name).collect();
        assert_eq!(names, ["hedgerow.tables", "numbers"]);
        db.close().unwrap();
        let db = open(&fs);
        check(&second().open(&db).unwrap());
    }
}

#[test]
fn a_version_may_be_skipped_and_have_indexes() {
    let db = store();
    fill(&db, EngineKind::Lsm);
    let by_parity = Index::new("by parity", |_: &u64, parity: &bool| [*parity]);
    let third = TableDefinition::<u64, bool>::new("numbers")
        .version(3)
        .engine(EngineKind::BTree)
        .migrate_from(first(), |key, _| Ok(Some((key.into(), key % 2 == 0))))
        .migrate_from(second(), |key, (_, parity)| {
            let key = key.parse().map_err(|_| Error::migration("no number"))?;
            Ok(Some((key, parity)))
        })
        .index(&by_parity);
    let numbers = third.open(&db).unwrap();
    assert_eq!(numbers.keyspace().engine(), EngineKind::BTree);
    assert_eq!(numbers.by(&by_parity).unwrap().get_all(true).count(), 1250);
    assert!(numbers.verify().unwrap().is_clean());
    // Indexes of the version before are dropped with it.
    let fourth = TableDefinition::<u64, bool>::new("numbers")
        .version(4)
        .migrate_from(third, |key, parity| Ok(Some((key, !parity))));
    let numbers = fourth.open(&db).unwrap();
    assert_eq!(numbers.get(2).unwrap(), Some(false));
    assert_eq!(db.keyspaces().len(), 2);
}

#[test]
fn a_migration_that_fails_leaves_the_table_as_it_was() {
    for engine in ENGINES {
        let db = store();
        fill(&db, engine);
        let failing = TableDefinition::<u32, u32>::new("numbers")
            .version(2)
            .migrate_from(first(), |key, value| match key {
                2345 => Err(Error::migration("it is not welcome")),
                key => Ok(Some((key, value))),
            });
        let error = failing.open(&db).unwrap_err().to_string();
        assert!(
            error.contains("it is not welcome") && error.contains("\\t)"),
            "{error}"
        );
        let colliding = TableDefinition::<u32, u32>::new("numbers")
            .version(2)
            .migrate_from(first(), |key, value| Ok(Some((key % 2000, value))));
        let error = colliding.open(&db).unwrap_err().to_string();
        assert!(error.contains("another row has become"), "{error}");
        // From a version that it does not have, or with other types.
        let other = TableDefinition::<u32, u32>::new("numbers")
            .version(3)
            .migrate_from(first().version(2), |key, value| Ok(Some((key, value))));
        assert!(matches!(other.open(&db), Err(Error::Version { .. })));
        let other = TableDefinition::<u32, u32>::new("numbers")
            .version(2)
            .migrate_from(TableDefinition::<u64, u32>::new(""), |key, value| {
                Ok(Some((key as u32, value)))
            });
        assert!(matches!(other.open(&db), Err(Error::Schema { .. })));

        let numbers = first().open(&db).unwrap();
        assert_eq!(numbers.len().unwrap(), u64::from(ROWS));
        numbers.put(1, &3).unwrap();
        assert!(!tables(&db).unwrap()[0].is_changing);
        check(&second().open(&db).unwrap());
        assert_eq!(db.keyspaces().len(), 2);
    }
}

/// One thread had dropped the old keyspace and given its name to the new one, when another, which
/// had looked the name up before, dropped that.
#[test]
fn several_threads_migrate_together() {
    for engine in ENGINES {
        for _ in 0..3 {
            let db = store();
            fill(&db, engine);
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| check(&second().open(&db).unwrap()));
                }
            });
            assert_eq!(db.keyspaces().len(), 2);
        }
    }
}

const HOUR: Duration = Duration::from_secs(3600);

/// A store whose clock the caller has, and options of tables whose rows expire.
fn expiring(engine: EngineKind) -> (Db, ManualClock, KeyspaceOptions) {
    let clock = ManualClock::new();
    clock.advance(HOUR);
    let options = Options::new().clock(clock.clone());
    let options = options.fs(Arc::new(SimFs::new()));
    let db = options.open("/store").unwrap();
    (db, clock, KeyspaceOptions::new(engine).expiry(true))
}

/// Puts a row of the first version that expires.
fn put_expiring(rows: &Keyspace, key: u32, value: u8, ttl: Duration) {
    // Keys are big-endian, and a small number is a byte.
    rows.put_with_ttl(key.to_be_bytes(), [value], ttl).unwrap();
}

/// Rows of a later version never expired, and its keyspace was one of default options.
#[test]
fn rows_of_the_next_version_expire_when_those_before_did() {
    for engine in ENGINES {
        let (db, clock, options) = expiring(engine);
        let options = options.default_ttl(HOUR).write_buffer_bytes(1 << 20);
        let old = first().keyspace_options(options).open(&db).unwrap();
        put_expiring(old.keyspace(), 1, 11, 2 * HOUR);
        put_expiring(old.keyspace(), 2, 22, HOUR / 2);
        old.put(3, &33).unwrap();
        let never = KeyspaceOptions::new(engine).default_ttl(Duration::ZERO);
        db.keyspace_with("numbers", never.clone()).unwrap();
        old.put(4, &44).unwrap();
        db.keyspace_with("numbers", never.default_ttl(HOUR))
            .unwrap();
        let key = |key: u32| key.to_be_bytes();
        let expected = [1, 3, 4].map(|n| old.keyspace().expires_at(key(n)).unwrap());
        assert!(expected[1].is_some() && expected[2].is_none());
        let before = old.keyspace().options();
        clock.advance(HOUR / 2);

        let new = TableDefinition::<String, u32>::new("numbers")
            .version(2)
            .migrate_from(first(), |key, value| Ok(Some((key.to_string(), value))));
        let new = new.open(&db).unwrap();
        assert_eq!(new.keyspace().options(), before);
        let found = ["1", "3", "4"].map(|key| {
            let mut bytes = key.as_bytes().to_vec();
            bytes.extend([0, 1]);
            new.keyspace().expires_at(bytes).unwrap()
        });
        assert_eq!(found, expected);
        assert_eq!(new.len().unwrap(), 3);
        clock.advance(HOUR);
        assert_eq!(new.get("3").unwrap(), None);
        assert_eq!(new.get("1").unwrap(), Some(11));
        clock.advance(1000 * HOUR);
        assert_eq!(new.len().unwrap(), 1);
        assert_eq!(new.get("4").unwrap(), Some(44));
    }
}

/// A row that expires between being read and the commit of its step.
#[test]
fn rows_may_expire_while_they_are_migrated() {
    for engine in ENGINES {
        let (db, clock, options) = expiring(engine);
        let old = first().keyspace_options(options).open(&db).unwrap();
        for key in 0..100 {
            let ttl = match key % 2 {
                0 => HOUR + Duration::from_secs(key.into()),
                _ => 100 * HOUR,
            };
            put_expiring(old.keyspace(), key, 7, ttl);
        }
        let ran_late = AtomicBool::new(false);
        let new = TableDefinition::<u32, u32>::new("numbers")
            .version(2)
            .migrate_from(first(), move |key, value| {
                if key == 20 && !ran_late.swap(true, Ordering::Relaxed) {
                    clock.advance(HOUR + Duration::from_secs(50));
                }
                Ok(Some((key, value)))
            });
        let new = new.open(&db).unwrap();
        let rows: Vec<_> = new.iter().keys().map(Result::unwrap).collect();
        let expected: Vec<_> = (0..100).filter(|key| key % 2 == 1 || *key > 50).collect();
        assert_eq!(rows, expected);
    }
}

#[test]
fn options_that_a_later_version_asks_for_come_before_those_there_are() {
    for (engine, other) in [ENGINES, [ENGINES[1], ENGINES[0]]].map(|[a, b]| (a, b)) {
        let (db, _, options) = expiring(engine);
        let old = options.default_ttl(HOUR).write_buffer_bytes(1 << 20);
        first().keyspace_options(old).open(&db).unwrap();
        let next = |version, options: KeyspaceOptions| {
            TableDefinition::<u32, u32>::new("numbers")
                .version(version)
                .keyspace_options(options)
                .migrate_from(first().version(version - 1), |key, value| {
                    Ok(Some((key, value)))
                })
        };
        // The other engine, of which the rest is kept.
        let new = next(2, KeyspaceOptions::new(other)).open(&db).unwrap();
        let now = new.keyspace().options();
        assert_eq!((now.engine, now.expiry), (other, Some(true)));
        assert_eq!(now.default_ttl, Some(HOUR));
        assert_eq!(now.write_buffer_bytes, Some(1 << 20));
        // An index over rows that expire is refused before a row is converted.
        let index = Index::new("by value", |_: &u32, value: &u32| [*value]);
        let indexed = next(3, KeyspaceOptions::new(other)).index(&index);
        assert!(matches!(indexed.open(&db), Err(Error::Index { .. })));
        assert!(!tables(&db).unwrap()[0].is_changing);
        let kept = next(3, KeyspaceOptions::new(other).expiry(false)).index(&index);
        let now = kept.open(&db).unwrap().keyspace().options();
        assert_eq!(
            (now.expiry, now.default_ttl),
            (Some(false), Some(Duration::ZERO))
        );
        assert_eq!(now.value_threshold_bytes, Some(1024));
        // What was never asked for follows the store.
        let lsm = KeyspaceOptions::new(EngineKind::Lsm).block_size_bytes(1024);
        next(4, lsm).open(&db).unwrap();
        let new = next(5, KeyspaceOptions::new(EngineKind::Lsm))
            .open(&db)
            .unwrap();
        assert_eq!(new.keyspace().options().block_size_bytes, Some(1024));
    }
}

/// What had been converted to other types was taken for rows of these.
#[test]
fn a_migration_to_other_types_than_before_begins_anew() {
    for engine in ENGINES {
        let fs = SimFs::new();
        let db = open(&fs);
        fill(&db, engine);
        let killed = TableDefinition::<u32, (u32, u32)>::new("numbers")
            .version(2)
            .migrate_from(first(), |key, value| match key {
                2345 => panic!("killed as it should be"),
                key => Ok(Some((key, (value, value)))),
            });
        let opened = catch_unwind(AssertUnwindSafe(|| killed.open(&db).map(drop)));
        assert!(opened.is_err());
        db.close().unwrap();

        let db = open(&fs);
        assert!(tables(&db).unwrap()[0].is_changing);
        let other = TableDefinition::<u32, String>::new("numbers")
            .version(2)
            .migrate_from(first(), |key, value| Ok(Some((key, value.to_string()))));
        let numbers = other.open(&db).unwrap();
        assert!(numbers.verify().unwrap().is_clean());
        assert_eq!(numbers.len().unwrap(), u64::from(ROWS));
        for row in numbers.iter() {
            let (key, value) = row.unwrap();
            assert_eq!(value, (key * 3).to_string());
        }
        assert_eq!(db.keyspaces().len(), 2);
    }
}
