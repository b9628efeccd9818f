//! Opening tables, limits, and what is refused.

use std::path::Path;
use std::sync::Arc;

use hedgerow::fs::SimFs;
use hedgerow::{EngineKind, MAX_KEY_LEN_BYTES, Options};
use hedgerow_typed::{
    AsKeys, Error, MultimapDefinition, Raw, RawKey, Result, TableBatch, TableDefinition,
    drop_table, rename_table, tables,
};
use serde::{Deserialize, Serialize};

use crate::rig::{ENGINES, Shop, item, open, store};

const YEARS: TableDefinition<String, u32> = TableDefinition::new("years");

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Person {
    name: String,
    year: u32,
}

fn assert_schema<T: std::fmt::Debug>(result: Result<T>, stored: &str, wanted: &str) {
    let error = result.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, Error::Schema { .. }), "{text}");
    assert!(text.contains(stored) && text.contains(wanted), "{text}");
}

#[test]
fn a_table_opens_with_its_own_types_only() {
    for engine in ENGINES {
        let fs = SimFs::new();
        let db = open(&fs);
        YEARS
            .engine(engine)
            .open(&db)
            .unwrap()
            .put("ada", &1815)
            .unwrap();
        for round in 0..2 {
            let db = match round {
                0 => db.clone(),
                _ => {
                    db.close().unwrap();
                    open(&fs)
                }
            };
            assert_eq!(YEARS.open(&db).unwrap().get("ada").unwrap(), Some(1815));
            let other_key = TableDefinition::<u64, u32>::new("years").open(&db);
            assert_schema(other_key, "keys str", "keys u64");
            let other_value = TableDefinition::<String, Person>::new("years").open(&db);
            assert_schema(other_value, "postcard u32", "Person { name, year }");
            let other_codec = TableDefinition::<String, u32, AsKeys>::with_codec("years").open(&db);
            assert_schema(other_codec, "postcard u32", "key u32");
            let multimap = MultimapDefinition::<String, u32>::new("years").open(&db);
            assert_schema(multimap, "keys str", "(str, u32)");
            let later = YEARS.version(2).open(&db).unwrap_err();
            assert!(
                matches!(
                    later,
                    Error::Version {
                        stored: 1,
                        wanted: 2,
                        ..
                    }
                ),
                "{later}"
            );
        }
    }
    assert!(YEARS.version(0).open(&store()).is_err());
}

#[test]
fn a_keyspace_with_entries_is_a_table_when_that_is_said() {
    let db = store();
    db.keyspace("years", EngineKind::Lsm)
        .unwrap()
        .put("ada", "1815")
        .unwrap();
    let refused = YEARS.open(&db).unwrap_err();
    assert!(
        matches!(refused, Error::NameTaken { ref name, .. } if name == "years"),
        "{refused}"
    );
    let years = TableDefinition::<RawKey, str, Raw>::with_codec("years").adopt();
    assert_eq!(
        years.open(&db).unwrap().get("ada").unwrap().as_deref(),
        Some("1815")
    );
    // An empty one is like none, on its own engine.
    db.keyspace("empty", EngineKind::Lsm).unwrap();
    let empty = TableDefinition::<u8, u8>::new("empty").engine(EngineKind::Lsm);
    assert_eq!(
        empty.open(&db).unwrap().keyspace().engine(),
        EngineKind::Lsm
    );
    // The records of tables are none.
    let records = TableDefinition::<RawKey, [u8], Raw>::with_codec("hedgerow.tables");
    assert!(matches!(
        records.adopt().open(&db),
        Err(Error::NameTaken { .. })
    ));
}

#[test]
fn an_index_and_a_table_may_have_names_that_meet() {
    let db = store();
    let shop = Shop::new();
    let items = shop.open(&db, EngineKind::BTree);
    items.put((1, ""), &item(7, &[1])).unwrap();
    // The keyspace of that name is the index.
    let other = TableDefinition::<u8, u8>::new("items.by number")
        .open(&db)
        .unwrap();
    other.put(1, &2).unwrap();
    assert_ne!(other.keyspace().name(), "items.by number");
    assert!(items.verify().unwrap().is_clean());
    assert_eq!(other.len().unwrap(), 1);
}

#[test]
fn limits_are_checked_before_anything_is_written() {
    for engine in ENGINES {
        let db = store();
        let texts = TableDefinition::<Vec<u8>, Vec<u8>, Raw>::with_codec("texts");
        let texts = texts.engine(engine).open(&db).unwrap();
        let longest = vec![1; MAX_KEY_LEN_BYTES - 2];
        texts.put(&longest, &vec![1]).unwrap();
        let longer = vec![1; MAX_KEY_LEN_BYTES - 1];
        let error = texts.put(&longer, &vec![1]).unwrap_err();
        assert!(
            matches!(error, Error::KeyTooLong { len_bytes, .. } if len_bytes > MAX_KEY_LEN_BYTES)
        );
        assert!(TableBatch::new().put(&texts, &longer, &vec![1]).is_err());
        assert!(
            texts
                .extend([(&vec![2], &vec![1]), (&longer, &vec![1])])
                .is_err()
        );
        assert_eq!(texts.len().unwrap(), 1);
        // They may be asked for.
        assert_eq!(texts.get(&longer).unwrap(), None);
        assert_eq!(texts.range(&longer..).count(), 0);
    }
}

#[test]
fn a_key_of_an_index_has_room_for_that_of_the_row() {
    let db = store();
    let by_text =
        hedgerow_typed::Index::new("by text", |_: &Vec<u8>, text: &Vec<u8>| [text.clone()]);
    let texts = TableDefinition::<Vec<u8>, Vec<u8>, Raw>::with_codec("texts").index(&by_text);
    let texts = texts.open(&db).unwrap();
    texts.put([1], &vec![1; 60_000]).unwrap();
    let error = texts.put([1; 6000], &vec![1; 60_000]).unwrap_err();
    assert!(matches!(error, Error::KeyTooLong { ref table, .. } if table == "texts.by text"));
    assert_eq!(texts.len().unwrap(), 1);
    assert!(texts.verify().unwrap().is_clean());
}

#[test]
fn bytes_of_another_type_are_an_error() {
    let db = store();
    let people = TableDefinition::<u16, Person>::new("people")
        .open(&db)
        .unwrap();
    people
        .put(
            1,
            &Person {
                name: "ada".into(),
                year: 1815,
            },
        )
        .unwrap();
    people.keyspace().put([0, 2], [0xFF; 3]).unwrap();
    people.keyspace().put([0, 3, 0], "").unwrap();
    let error = people.get(2).unwrap_err();
    assert!(
        matches!(error, Error::Value { ref key, .. } if key == &[0, 2]),
        "{error}"
    );
    assert!(std::error::Error::source(&error).is_some());
    let mut rows = people.iter();
    assert_eq!(rows.next().unwrap().unwrap().1.name, "ada");
    assert!(matches!(rows.next(), Some(Err(Error::Value { .. }))));
    assert!(rows.next().is_none());
    let mut back = people.iter().keys().rev();
    let error = back.next().unwrap().unwrap_err();
    assert!(
        matches!(error, Error::Key { ref key, .. } if key == &[0, 3, 0]),
        "{error}"
    );
    // It is not removed unread.
    assert!(people.pop_last().is_err() && people.remove(2).is_err());
    let report = people.verify().unwrap();
    assert_eq!((report.rows, report.problems), (3, 2));
    // A value with more bytes than its type is none, either.
    people.keyspace().put([0, 2], [1, b'a', 1, 0]).unwrap();
    assert!(people.get(2).is_err());
    people.delete(2).unwrap();
    assert_eq!(people.get(2).unwrap(), None);
}

#[test]
fn a_removal_that_fails_to_decode_writes_nothing() {
    let db = store();
    let years = YEARS.open(&db).unwrap();
    years.keyspace().put(b"x\0\x01", "").unwrap();
    assert!(years.remove("x").is_err());
    assert_eq!(years.len().unwrap(), 1);
}

#[test]
fn handles_of_a_table_that_changed_do_not_write() {
    let db = store();
    let shop = Shop::new();
    let old = shop.plain(EngineKind::BTree).open(&db).unwrap();
    old.put((1, "a"), &item(1, &[])).unwrap();
    // A transaction from before the change.
    let tx = db.transaction().unwrap();
    old.within(&tx)
        .unwrap()
        .put((2, "b"), &item(2, &[]))
        .unwrap();
    let mut batch = TableBatch::new();
    batch.put(&old, (3, "c"), &item(3, &[])).unwrap();

    let items = shop.open(&db, EngineKind::BTree);
    let error = tx.commit().unwrap_err();
    assert!(error.is_conflict(), "{error}");
    for error in [
        old.put((2, "b"), &item(2, &[])).unwrap_err(),
        old.pop_first().unwrap_err(),
        old.clear().unwrap_err(),
        batch.write(&db).unwrap_err(),
    ] {
        assert!(
            matches!(error, Error::TableChanged { ref table, .. } if table == "items"),
            "{error}"
        );
    }
    assert_eq!(old.get((1, "a")).unwrap(), Some(item(1, &[])));
    items.put((2, "b"), &item(2, &[])).unwrap();
    assert!(items.verify().unwrap().is_clean());

    rename_table(&db, "items", "goods").unwrap();
    assert!(matches!(
        items.delete((2, "b")),
        Err(Error::TableChanged { .. })
    ));
    assert!(matches!(
        rename_table(&db, "items", "x"),
        Err(Error::NoTable { .. })
    ));
    assert!(rename_table(&db, "goods", "").is_err());
    let goods = TableDefinition::named("goods")
        .index(&shop.by_number)
        .index(&shop.by_tag);
    let goods = goods.open(&db).unwrap();
    assert_eq!(
        (goods.len().unwrap(), goods.keyspace().name()),
        (2, "goods".into())
    );
    assert!(goods.verify().unwrap().is_clean());

    drop_table(&db, "goods").unwrap();
    assert!(goods.put((1, ""), &item(None, &[])).is_err());
    assert!(matches!(
        drop_table(&db, "goods"),
        Err(Error::NoTable { .. })
    ));
    let left: Vec<_> = db.keyspaces().into_iter().map(|info| info.name).collect();
    assert_eq!(left, ["hedgerow.tables"]);
    // One of the same name is another one.
    let again = shop.open(&db, EngineKind::Lsm);
    again.put((1, ""), &item(1, &[])).unwrap();
    assert!(items.put((1, ""), &item(None, &[])).is_err());
    assert_eq!(again.len().unwrap(), 1);
}

#[test]
fn tables_are_listed() {
    let db = store();
    assert!(tables(&db).unwrap().is_empty());
    Shop::new().open(&db, EngineKind::Lsm);
    MultimapDefinition::<u8, bool>::new("flags")
        .open(&db)
        .unwrap();
    YEARS.version(3).open(&db).unwrap();
    let all = tables(&db).unwrap();
    let names: Vec<_> = all
        .iter()
        .map(|table| (&*table.name, table.version))
        .collect();
    assert_eq!(names, [("flags", 1), ("items", 1), ("years", 3)]);
    assert_eq!(all[0].value_schema, "multimap");
    assert_eq!(all[1].indexes, ["by number", "by tag"]);
    assert_eq!(all[1].value_schema, "postcard Item { number, tags }");
    assert!(!all[1].is_changing);
}

#[test]
fn a_store_that_is_read_only_has_tables() {
    let fs = SimFs::new();
    let shop = Shop::new();
    let db = open(&fs);
    shop.open(&db, EngineKind::BTree)
        .put((1, ""), &item(1, &[2]))
        .unwrap();
    db.close().unwrap();
    let options = Options::new().read_only(true).fs(Arc::new(fs));
    let db = options.open(Path::new("/store")).unwrap();
    let items = shop.open(&db, EngineKind::BTree);
    assert_eq!(
        items
            .by(&shop.by_number)
            .unwrap()
            .get(1)
            .unwrap()
            .unwrap()
            .0,
        (1, "".into())
    );
    assert_eq!(items.by(&shop.by_tag).unwrap().iter().count(), 1);
    let read_only = |error: Error| matches!(error, Error::Store(hedgerow::Error::ReadOnly));
    assert!(read_only(items.put((2, ""), &item(None, &[])).unwrap_err()));
    assert!(read_only(YEARS.open(&db).unwrap_err()));
    let tx = db
        .transaction_with(hedgerow::TransactionOptions::new().read_only(true))
        .unwrap();
    assert_eq!(items.within(&tx).unwrap().len().unwrap(), 1);
    assert!(items.within(&tx).unwrap().delete((1, "")).is_err());
}

#[test]
fn transactions_span_tables_and_engines() {
    let db = store();
    let years = YEARS.open(&db).unwrap();
    let names = MultimapDefinition::<u32, String>::new("names");
    let names = names
        .keyspace_options(hedgerow::KeyspaceOptions::new(EngineKind::Lsm))
        .open(&db)
        .unwrap();
    let failed: Result<()> = db.transact(|tx| {
        years.within(tx)?.put("ada", &1815)?;
        names.within(tx)?.put(1815, "ada")?;
        Err(Error::migration("not this time"))
    });
    assert!(failed.is_err() && years.is_empty().unwrap() && names.is_empty().unwrap());
    let tx = db.transaction().unwrap();
    let savepoint = tx.savepoint();
    years.within(&tx).unwrap().put("ada", &1815).unwrap();
    tx.rollback_to(savepoint).unwrap();
    names.within(&tx).unwrap().put(1815, "ada").unwrap();
    tx.commit().unwrap();
    assert!(years.is_empty().unwrap() && names.len().unwrap() == 1);
}

#[test]
fn a_moment_shows_the_table_that_was_opened_or_refuses() {
    for engine in ENGINES {
        let db = store();
        let shop = Shop::new();
        let before = db.snapshot();
        let plain = shop.plain(engine).open(&db).unwrap();
        plain.put((1, ""), &item(1, &[1])).unwrap();
        let created = db.snapshot();
        let tx = db.transaction().unwrap();
        let items = shop.open(&db, engine);
        let indexed = db.snapshot();

        assert!(matches!(plain.at(&before), Err(Error::OtherMoment { .. })));
        assert_eq!(plain.at(&created).unwrap().len().unwrap(), 1);
        assert!(matches!(
            plain.at(&indexed),
            Err(Error::TableChanged { .. })
        ));
        // Its index was empty then.
        assert!(matches!(items.at(&created), Err(Error::OtherMoment { .. })));
        assert!(matches!(items.within(&tx), Err(Error::OtherMoment { .. })));
        let items = items.at(&indexed).unwrap();
        assert_eq!(
            items.by(&shop.by_tag).unwrap().get_all((1, false)).count(),
            1
        );
        let reader = hedgerow::TransactionOptions::new().read_only(true);
        let reader = db.transaction_with(reader).unwrap();
        assert!(plain.within(&reader).is_err());
    }
}

#[test]
fn a_write_that_fails_in_the_middle_is_taken_back() {
    for engine in ENGINES {
        let db = store();
        let shop = Shop::new();
        let items = shop.open(&db, engine);
        items.put((1, "a"), &item(1, &[1])).unwrap();
        db.drop_keyspace("items.by tag").unwrap();
        // The row and the first index have been written when the second one refuses.
        let tx = db.transaction().unwrap();
        let inside = items.within(&tx).unwrap();
        for (id, number) in [((1, "a"), 7), ((2, "b"), 8)] {
            let error = inside.put(id, &item(number, &[2])).unwrap_err();
            assert!(
                matches!(error, Error::Store(hedgerow::Error::NoSuchKeyspace { .. })),
                "{error}"
            );
        }
        assert_eq!(inside.get((1, "a")).unwrap(), Some(item(1, &[1])));
        tx.commit().unwrap();
        assert_eq!(items.len().unwrap(), 1);
        let by_number = items.by(&shop.by_number).unwrap();
        assert_eq!(
            by_number
                .keys(..)
                .map(|key| key.unwrap().0)
                .collect::<Vec<_>>(),
            [1]
        );
    }
}

#[test]
fn a_multimap_has_sets() {
    use std::collections::BTreeSet;
    use support::random::{Random, Source};
    for engine in ENGINES {
        let db = store();
        let pairs = MultimapDefinition::<String, i8>::new("pairs");
        let pairs = pairs
            .keyspace_options(hedgerow::KeyspaceOptions::new(engine))
            .open(&db)
            .unwrap();
        let mut model = BTreeSet::new();
        let mut random = Random::new(7);
        for _ in 0..500 {
            let key = (*random.pick(&["", "a", "a\0", "b"])).to_owned();
            let value = random.below(8) as i8 - 4;
            match random.below(8) {
                0..4 => {
                    let is_new = pairs.insert(&key, value).unwrap();
                    assert_eq!(is_new, model.insert((key, value)));
                }
                4 => {
                    let was_there = pairs.remove(&key, value).unwrap();
                    assert_eq!(was_there, model.remove(&(key, value)));
                }
                5 if random.one_in(4) => {
                    pairs.remove_all(&key).unwrap();
                    model.retain(|pair| pair.0 != key);
                }
                _ => {
                    let values: Result<Vec<_>> = pairs.values_in(&key, value..).collect();
                    let expected = model.iter().filter(|pair| pair.0 == key && pair.1 >= value);
                    assert!(values.unwrap().iter().eq(expected.map(|pair| &pair.1)));
                    let values: Result<Vec<_>> = pairs.values_in(&key, ..value).rev().collect();
                    let expected = model.iter().filter(|pair| pair.0 == key && pair.1 < value);
                    assert!(
                        values
                            .unwrap()
                            .iter()
                            .eq(expected.rev().map(|pair| &pair.1))
                    );
                    let count = model.iter().filter(|pair| pair.0 == key).count();
                    assert_eq!(pairs.count(&key).unwrap(), count as u64);
                }
            }
        }
        let all: Result<BTreeSet<_>> = pairs.iter().collect();
        assert_eq!(all.unwrap(), model);
    }
}
