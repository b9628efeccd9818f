//! Crashes in the middle of migrations, of index building and of dropping a table.

use std::sync::{Arc, Mutex};

use hedgerow::fs::SimFs;
use hedgerow::{Db, EngineKind};
use hedgerow_typed::{Error, Index, Table, TableDefinition, drop_table, tables};
use support::random::{Random, Source};

use crate::rig::{ENGINES, open};

const ROWS: u32 = 2200;

fn first() -> TableDefinition<u32, u32> {
    TableDefinition::new("numbers")
}

fn by_digit() -> Index<String, u32, u8> {
    Index::new("by digit", |_: &String, value: &u32| [(*value % 10) as u8])
}

fn second(index: &Index<String, u32, u8>) -> TableDefinition<String, u32> {
    TableDefinition::new("numbers")
        .version(2)
        .migrate_from(first(), |key, value| Ok(Some((key.to_string(), value))))
        .index(index)
}

/// A store with the first version of the table, all of it durable.
fn filled(engine: EngineKind) -> (SimFs, Db) {
    let fs = SimFs::new();
    let db = open(&fs);
    let numbers = first().engine(engine).open(&db).unwrap();
    let rows: Vec<_> = (0..ROWS).map(|key| (key, key * 3)).collect();
    numbers
        .extend(rows.iter().map(|(key, value)| (key, value)))
        .unwrap();
    db.sync().unwrap();
    (fs, db)
}

/// Runs `change` and keeps images of the file system from its course: what a kill leaves, and what
/// a power loss may.
fn images(fs: &SimFs, seed: u64, change: impl FnOnce()) -> Vec<SimFs> {
    let images = Arc::new(Mutex::new((Random::new(seed), Vec::new())));
    let kept = Arc::clone(&images);
    fs.on_change(move |before, _| {
        let mut kept = kept.lock().unwrap();
        let (random, images) = &mut *kept;
        images.push(before.killed());
        images.push(match random.one_in(3) {
            true => before.crash(),
            false => before.crash_keeping(random.bits()),
        });
    });
    change();
    fs.clear_hook();
    let mut kept = images.lock().unwrap();
    std::mem::take(&mut kept.1)
}

fn check(numbers: &Table<String, u32>, index: &Index<String, u32, u8>) {
    let report = numbers.verify().unwrap();
    assert!(report.is_clean(), "{report:?}");
    let rows = u64::from(ROWS);
    assert_eq!((report.rows, report.index_entries), (rows, rows));
    assert_eq!(numbers.get("1234").unwrap(), Some(3702));
    assert_eq!(numbers.by(index).unwrap().get_all(2).count(), 220);
}

#[test]
fn a_migration_goes_on_after_a_crash() {
    let (mut total, mut interrupted) = (0, 0);
    for engine in ENGINES {
        for seed in 0..2 {
            let (fs, db) = filled(engine);
            let index = by_digit();
            let images = images(&fs, seed, || {
                second(&index).open(&db).unwrap();
                db.sync().unwrap();
            });
            assert!(!images.is_empty());
            for image in &images {
                let db = open(image);
                interrupted += usize::from(tables(&db).unwrap()[0].is_changing);
                check(&second(&index).open(&db).unwrap(), &index);
                let names: Vec<_> = db.keyspaces().into_iter().map(|info| info.name).collect();
                assert_eq!(names.len(), 3, "{names:?}");
                assert!(names.contains(&"numbers".into()), "{names:?}");
                total += 1;
            }
        }
    }
    assert!(
        interrupted > 15,
        "{interrupted} of {total} images are in the middle"
    );
}

#[test]
fn the_earlier_version_may_come_back_after_a_crash() {
    let mut total = 0;
    for engine in ENGINES {
        let (fs, db) = filled(engine);
        let index = by_digit();
        let images = images(&fs, 9, || {
            second(&index).open(&db).unwrap();
        });
        for image in &images {
            let db = open(image);
            match first().open(&db) {
                Ok(numbers) => {
                    assert_eq!(numbers.len().unwrap(), u64::from(ROWS));
                    numbers.put(0, &0).unwrap();
                    total += 1;
                }
                Err(error) => assert!(matches!(error, Error::Version { stored: 2, .. }), "{error}"),
            }
            check(&second(&index).open(&db).unwrap(), &index);
        }
    }
    assert!(total > 0);
}

#[test]
fn rows_and_indexes_agree_after_a_crash() {
    let mut total = 0;
    for engine in ENGINES {
        let fs = SimFs::new();
        let db = open(&fs);
        let shop = crate::rig::Shop::new();
        let items = shop.open(&db, engine);
        db.sync().unwrap();
        let images = images(&fs, 4, || {
            let mut random = Random::new(4);
            for _ in 0..150 {
                let id = (random.below(9) as u8, String::new());
                let row = crate::rig::item(random.below(20) as u16, &[random.below(4) as u8]);
                match items.put(&id, &row) {
                    Ok(()) => {}
                    Err(error) => assert!(error.is_not_unique(), "{error}"),
                }
                if random.one_in(10) {
                    items.pop_first().unwrap();
                }
            }
        });
        for image in &images {
            let db = open(image);
            let report = shop.open(&db, engine).verify().unwrap();
            assert!(report.is_clean(), "{report:?}");
            total += 1;
        }
    }
    assert!(total > 200, "{total}");
}

#[test]
fn a_table_is_whole_or_dropped_after_a_crash() {
    let mut dropped = 0;
    for engine in ENGINES {
        for seed in 0..2 {
            let (fs, db) = filled(engine);
            let index = by_digit();
            second(&index).open(&db).unwrap();
            db.sync().unwrap();
            let images = images(&fs, seed, || drop_table(&db, "numbers").unwrap());
            for image in &images {
                let db = open(image);
                if tables(&db).unwrap().is_empty() {
                    dropped += 1;
                    // The name can be used, and what was there is gone.
                    assert!(first().open(&db).unwrap().is_empty().unwrap());
                    assert_eq!(db.keyspaces().len(), 2);
                } else {
                    check(&second(&index).open(&db).unwrap(), &index);
                }
            }
        }
    }
    assert!(dropped > 0);
}
