//! Indexes: adding them to tables with rows, dropping them, and what `verify` finds.

use std::ops::Bound::{Excluded, Included, Unbounded};

use hedgerow::fs::SimFs;
use hedgerow::{Db, EngineKind};
use hedgerow_typed::{Error, Index, TableDefinition, tables};

use crate::rig::{ENGINES, Id, Item, Shop, item, open, store};

/// More than are indexed in one commit.
const ROWS: u16 = 2500;

fn fill(db: &Db, shop: &Shop, engine: EngineKind) {
    let items = shop.plain(engine).open(db).unwrap();
    let rows: Vec<_> = (0..ROWS)
        .map(|number| {
            let id = ((number % 7) as u8, number.to_string());
            (id, item(number, &[(number % 5) as u8]))
        })
        .collect();
    items
        .extend(rows.iter().map(|(id, row)| (id, row)))
        .unwrap();
}

#[test]
fn an_index_is_built_of_the_rows_that_are_there() {
    for engine in ENGINES {
        let fs = SimFs::new();
        let db = open(&fs);
        let shop = Shop::new();
        fill(&db, &shop, engine);
        let items = shop.open(&db, engine);
        let report = items.verify().unwrap();
        assert!(report.is_clean(), "{report:?}");
        assert_eq!(report.index_entries, 2 * u64::from(ROWS));
        let found = items
            .by(&shop.by_number)
            .unwrap()
            .get(1234)
            .unwrap()
            .unwrap();
        assert_eq!(found.0, (2, "1234".into()));
        assert_eq!(items.by(&shop.by_tag).unwrap().prefix((3,)).count(), 500);
        db.close().unwrap();
        let db = open(&fs);
        assert!(shop.open(&db, engine).verify().unwrap().is_clean());
    }
}

#[test]
fn entries_are_those_of_the_format() {
    let db = store();
    let shop = Shop::new();
    let items = shop.open(&db, EngineKind::BTree);
    items.put((1, "a"), &item(7, &[3, 0, 3])).unwrap();
    let entries = |name: &str| {
        let keyspace = db.existing_keyspace(name).unwrap().unwrap();
        let entries = keyspace.iter().map(Result::unwrap);
        entries
            .map(|(key, value)| (key.to_vec(), value.to_vec()))
            .collect::<Vec<_>>()
    };
    let row = b"\x01a\0\x01".to_vec();
    // By postcard: some, 7; three bytes.
    assert_eq!(
        entries("items"),
        [(row.clone(), b"\x01\x07\x03\x03\0\x03".to_vec())]
    );
    assert_eq!(
        entries("items.by number"),
        [(b"\0\x07".to_vec(), row.clone())]
    );
    let tagged = |tag: u8| ([&[tag, 0][..], &row].concat(), Vec::new());
    assert_eq!(entries("items.by tag"), [tagged(0), tagged(3)]);
}

#[test]
fn an_index_that_is_not_defined_is_not_forgotten() {
    let db = store();
    let shop = Shop::new();
    fill(&db, &shop, EngineKind::BTree);
    shop.open(&db, EngineKind::BTree);
    let plain = shop.plain(EngineKind::BTree);
    let error = plain.open(&db).unwrap_err();
    assert!(
        matches!(error, Error::Index { ref index, .. } if index == "by number"),
        "{error}"
    );
    let one = shop.plain(EngineKind::BTree).index(&shop.by_tag);
    let one = one.without_index("by number").without_index("never there");
    let items = one.open(&db).unwrap();
    assert!(matches!(
        items.by(&shop.by_number),
        Err(Error::Index { .. })
    ));
    assert_eq!(items.verify().unwrap().index_entries, u64::from(ROWS));
    let names: Vec<_> = db.keyspaces().into_iter().map(|info| info.name).collect();
    assert_eq!(names, ["hedgerow.tables", "items", "items.by tag"]);
    // And it may come back.
    items.put((200, ""), &item(60_000, &[])).unwrap();
    let items = shop.open(&db, EngineKind::BTree);
    assert_eq!(
        items
            .by(&shop.by_number)
            .unwrap()
            .get(60_000)
            .unwrap()
            .unwrap()
            .0
            .0,
        200
    );
    assert!(items.verify().unwrap().is_clean());
}

#[test]
fn definitions_that_contradict_are_refused() {
    let db = store();
    let shop = Shop::new();
    shop.open(&db, EngineKind::BTree);
    let twice = shop.definition(EngineKind::BTree).index(&shop.by_tag);
    assert!(matches!(twice.open(&db), Err(Error::Index { .. })));
    let both = shop.definition(EngineKind::BTree).without_index("by tag");
    assert!(matches!(both.open(&db), Err(Error::Index { .. })));
    let numbers = Index::new("by number", |_: &Id, item: &Item| item.number);
    let shared = shop
        .plain(EngineKind::BTree)
        .index(&numbers)
        .index(&shop.by_tag);
    let error = shared.open(&db).unwrap_err();
    assert!(error.to_string().contains("unique keys u16"), "{error}");
    let longer = Index::unique("by number", |_: &Id, item: &Item| {
        item.number.map(u64::from)
    });
    let longer = shop
        .plain(EngineKind::BTree)
        .index(&longer)
        .index(&shop.by_tag);
    let error = longer.open(&db).unwrap_err();
    assert!(error.to_string().contains("unique keys u64"), "{error}");
    // Of the same name and types, and yet another one.
    let items = shop.open(&db, EngineKind::BTree);
    assert!(matches!(items.by(&numbers), Err(Error::Index { .. })));
}

#[test]
fn rows_that_are_not_unique_keep_an_index_from_being_built() {
    for engine in ENGINES {
        let db = store();
        let shop = Shop::new();
        fill(&db, &shop, engine);
        let plain = shop.plain(engine).open(&db).unwrap();
        plain.put((255, "second"), &item(1234, &[])).unwrap();
        for _ in 0..2 {
            let error = shop.definition(engine).open(&db).unwrap_err();
            assert!(error.is_not_unique(), "{error}");
            assert!(tables(&db).unwrap()[0].is_changing);
        }
        // Without the index the rows can be put right, and then it is built.
        let plain = shop.plain(engine).open(&db).unwrap();
        assert!(!tables(&db).unwrap()[0].is_changing);
        plain.delete((255, "second")).unwrap();
        assert!(shop.open(&db, engine).verify().unwrap().is_clean());
    }
}

#[test]
fn a_refused_row_changes_nothing() {
    for engine in ENGINES {
        let db = store();
        let shop = Shop::new();
        let items = shop.open(&db, engine);
        items.put((1, "a"), &item(1, &[1])).unwrap();
        items.put((2, "b"), &item(2, &[2])).unwrap();
        let error = items.put((2, "b"), &item(1, &[3])).unwrap_err();
        let Error::NotUnique {
            index,
            key,
            taken_by,
            ..
        } = error
        else {
            panic!("{error}");
        };
        assert_eq!(
            (index.as_str(), key, taken_by),
            ("items.by number", vec![0, 1], vec![1, b'a', 0, 1])
        );
        // In a transaction, which goes on: numbers change hands when they are free.
        let tx = db.transaction().unwrap();
        let inside = items.within(&tx).unwrap();
        assert!(inside.put((2, "b"), &item(1, &[3])).is_err());
        inside.put((1, "a"), &item(None, &[1])).unwrap();
        inside.put((2, "b"), &item(1, &[3])).unwrap();
        inside.put((1, "a"), &item(2, &[1])).unwrap();
        tx.commit().unwrap();
        assert!(items.verify().unwrap().is_clean());
        let by_number = items.by(&shop.by_number).unwrap();
        assert_eq!(by_number.get(1).unwrap().unwrap().0, (2, "b".into()));
        assert_eq!(by_number.get(2).unwrap().unwrap().0, (1, "a".into()));
    }
}

#[test]
fn verify_finds_what_does_not_agree() {
    let db = store();
    let shop = Shop::new();
    let items = shop.open(&db, EngineKind::BTree);
    items.put((1, "a"), &item(1, &[1, 2])).unwrap();
    items.put((2, "b"), &item(2, &[2])).unwrap();
    let keyspace = |name: &str| db.existing_keyspace(name).unwrap().unwrap();
    let problems = || {
        let report = items.verify().unwrap();
        assert_eq!(report.problems, report.descriptions.len() as u64);
        report.problems
    };
    // An entry that is gone.
    let numbers = keyspace("items.by number");
    numbers.delete([0, 1]).unwrap();
    assert_eq!(problems(), 1);
    // One too many instead.
    numbers.put([0, 9], [1, b'a', 0, 1]).unwrap();
    assert_eq!(problems(), 2);
    assert!(items.by(&shop.by_number).unwrap().get(9).unwrap().is_some());
    numbers.delete([0, 9]).unwrap();
    // The wrong row.
    numbers.put([0, 1], [2, b'b', 0, 1]).unwrap();
    assert_eq!(problems(), 2);
    numbers.put([0, 1], [1, b'a', 0, 1]).unwrap();
    assert_eq!(problems(), 0);
    // A row past the indexes, and one that is gone.
    items.keyspace().delete([1, b'a', 0, 1]).unwrap();
    assert_eq!(problems(), 3);
    let by_number = items.by(&shop.by_number).unwrap();
    assert!(matches!(by_number.get(1), Err(Error::Index { .. })));
    assert!(matches!(
        by_number.iter().next(),
        Some(Err(Error::Index { .. }))
    ));
    // An entry that is none.
    numbers.put([0], "").unwrap();
    assert!(matches!(
        by_number.keys(..).next(),
        Some(Err(Error::Key { .. }))
    ));
}

#[test]
fn bounds_of_an_index_are_those_of_its_keys() {
    let db = store();
    let by_byte = Index::new("by byte", |_: &u8, byte: &u8| [*byte]);
    let bytes = TableDefinition::<u8, u8>::new("bytes").index(&by_byte);
    let bytes = bytes.open(&db).unwrap();
    for key in 0..8 {
        bytes
            .put(key, &[0, 1, 254, 255][usize::from(key / 2)])
            .unwrap();
    }
    let by_byte = bytes.by(&by_byte).unwrap();
    let count = |bounds| by_byte.range(bounds).count();
    assert_eq!(count((Unbounded, Unbounded)), 8);
    assert_eq!(count((Excluded(0), Unbounded)), 6);
    assert_eq!(count((Excluded(255), Unbounded)), 0);
    assert_eq!(count((Excluded(254), Included(255))), 2);
    assert_eq!(count((Included(1), Included(254))), 4);
    assert_eq!(count((Included(1), Excluded(254))), 2);
    assert_eq!(by_byte.range(254..).rev().count(), 4);
}

/// Their entries stayed in the indexes: a unique key was taken for good.
#[test]
fn rows_that_go_by_themselves_have_no_indexes() {
    for engine in ENGINES {
        let options = hedgerow::Options::new().fs(std::sync::Arc::new(SimFs::new()));
        let db = options.open("/store").unwrap();
        let expiring = hedgerow::KeyspaceOptions::new(engine).expiry(true);
        let by_value = Index::unique("by value", |_: &String, value: &u32| [*value]);
        let plain = || TableDefinition::<String, u32>::new("t").keyspace_options(expiring.clone());
        let refused = |definition: TableDefinition<String, u32>| {
            let error = definition.index(&by_value).open(&db).unwrap_err();
            assert!(error.to_string().contains("its rows expire"), "{error}");
        };
        refused(plain());
        assert!(db.keyspaces().is_empty(), "nothing was created");
        plain().open(&db).unwrap().put("a", &1).unwrap();
        let keyspaces = db.keyspaces().len();
        refused(TableDefinition::new("t"));
        assert_eq!(db.keyspaces().len(), keyspaces);
    }
}
