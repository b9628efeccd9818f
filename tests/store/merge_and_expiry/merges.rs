//! Merges.

use std::thread;

use hedgerow::{AddI64, Batch, Db, EngineKind, KeyspaceOptions, MergeOperator, Model, Options};

use super::{World, all, appending, keyspace, on_both_engines, refused, text, tiny};

on_both_engines! {
    operands_follow_their_order,
    merges_reach_through_every_layer,
    a_snapshot_sees_the_merges_before_it,
    many_lookups_and_parts_see_what_was_merged,
    threads_that_merge_lose_nothing,
    a_merge_without_an_operator_is_refused,
    what_the_operator_refuses_is_refused,
    a_store_is_refused_without_its_operator,
    operators_and_expiry_are_fixed,
    a_large_batch_with_merges_is_whole,
    large_values_grow_by_merges,
    a_sorted_load_goes_under_merges,
}

fn operands_follow_their_order(engine: EngineKind) {
    let world = World::new();
    let db = world.open();
    let notes = keyspace(&db, appending(engine));
    notes.merge("a", "1").unwrap();
    notes.merge("a", "2").unwrap();
    assert_eq!(text(notes.get("a").unwrap()), "12");
    notes.put("a", "p").unwrap();
    notes.merge("a", "3").unwrap();
    assert_eq!(text(notes.get("a").unwrap()), "p3");
    notes.delete("a").unwrap();
    assert_eq!(notes.get("a").unwrap(), None);
    notes.merge("a", "4").unwrap();
    assert_eq!(text(notes.get("a").unwrap()), "4");

    let mut batch = Batch::new();
    batch.merge("b", "1");
    batch.delete_range("b"..);
    batch.merge("b", "2");
    batch.put("c", "3");
    batch.merge("c", "4");
    batch.delete("c");
    batch.merge("c", "5");
    batch.merge("c", "6");
    notes.write(batch).unwrap();
    assert_eq!(all(&notes), ["a 4", "b 2", "c 56"]);
}

fn merges_reach_through_every_layer(engine: EngineKind) {
    let world = World::new();
    let db = world.open();
    let notes = keyspace(&db, appending(engine));
    let mut expected = vec![String::new(); 40];
    for round in 0..12 {
        for (key, value) in expected.iter_mut().enumerate() {
            // Some stay short, and some do not.
            let operand = format!("{round}{}", "-".repeat(key * 2)).repeat(1 + key % 2);
            notes.merge(format!("{key:02}"), &operand).unwrap();
            value.push_str(&operand);
        }
        match round % 4 {
            0 => notes.flush().unwrap(),
            1 => while db.run_background_once().unwrap() {},
            2 if round > 4 => notes.compact().unwrap(),
            _ => {}
        }
        if round == 5 {
            notes.delete_range("10".."20").unwrap();
            expected[10..20].fill(String::new());
        }
    }
    for _ in 0..2 {
        let found: Vec<_> = notes
            .values()
            .map(|value| text(Some(value.unwrap())))
            .collect();
        assert_eq!(found, expected);
        assert!(notes.verify().unwrap().is_clean());
        notes.compact().unwrap();
    }
    drop((notes, db));
    let db = world.open();
    let notes = keyspace(&db, tiny(engine));
    let found: Vec<_> = notes
        .values()
        .map(|value| text(Some(value.unwrap())))
        .collect();
    assert_eq!(found, expected);
}

fn a_snapshot_sees_the_merges_before_it(engine: EngineKind) {
    let world = World::new();
    let db = world.open();
    let notes = keyspace(&db, appending(engine));
    let mut snapshots = Vec::new();
    let mut expected = String::new();
    for n in 0..30 {
        notes.merge("a", n.to_string()).unwrap();
        expected.push_str(&n.to_string());
        snapshots.push((notes.snapshot(), expected.clone()));
        if n % 7 == 0 {
            notes.flush().unwrap();
        }
        if n % 11 == 10 {
            notes.compact().unwrap();
        }
    }
    for (at, (snapshot, expected)) in snapshots.iter().enumerate() {
        assert_eq!(text(snapshot.get("a").unwrap()), *expected, "snapshot {at}");
    }
    // As snapshots go, what they held is folded.
    for at in (0..30).rev().step_by(2) {
        drop(snapshots.remove(at));
        while db.run_background_once().unwrap() {}
    }
    notes.compact().unwrap();
    for (snapshot, expected) in &snapshots {
        assert_eq!(text(snapshot.get("a").unwrap()), *expected);
        assert_eq!(text(Some(snapshot.first().unwrap().unwrap().1)), *expected);
    }
    assert_eq!(text(notes.get("a").unwrap()), expected);
}

fn many_lookups_and_parts_see_what_was_merged(engine: EngineKind) {
    let world = World::new();
    let db = world.open();
    let notes = keyspace(&db, appending(engine));
    for key in ["a", "b", "c"] {
        notes.put(key, "base").unwrap();
    }
    notes.compact().unwrap();
    notes.merge("b", "-one").unwrap();
    notes.flush().unwrap();
    notes.merge("b", "-two").unwrap();
    notes.merge("d", "new").unwrap();
    let found = notes.multi_get(&["d", "b", "x", "a", "b"]).unwrap();
    let found: Vec<_> = found.into_iter().map(text).collect();
    assert_eq!(found, ["new", "base-one-two", "-", "base", "base-one-two"]);
    assert_eq!(text(notes.get_range("b", 5..8).unwrap()), "one");
    assert_eq!(notes.get_with("b", |value| value.len()).unwrap(), Some(12));
    assert!(notes.contains_key("d").unwrap() && !notes.contains_key("x").unwrap());
    let keys: Vec<_> = notes.keys().map(|key| text(Some(key.unwrap()))).collect();
    assert_eq!(keys, ["a", "b", "c", "d"]);
    assert_eq!(text(Some(notes.last().unwrap().unwrap().1)), "new");
}

fn threads_that_merge_lose_nothing(engine: EngineKind) {
    let dir = tempfile::tempdir().unwrap();
    let db = Options::new()
        .durability(hedgerow::Durability::Buffered)
        .write_buffer_bytes(64 << 10)
        .open(dir.path().join("store"))
        .unwrap();
    let options = KeyspaceOptions::new(engine).merge_operator("add-i64");
    let counters = db.keyspace_with("counters", options).unwrap();
    const EACH: i64 = 2000;
    thread::scope(|scope| {
        for thread in 0..4i64 {
            let counters = &counters;
            scope.spawn(move || {
                for n in 0..EACH {
                    let key = [n as u8 % 3];
                    counters.merge(key, (thread + 1).to_le_bytes()).unwrap();
                    if n % 500 == 499 {
                        counters.flush().unwrap();
                    }
                }
            });
        }
    });
    let sum = || -> i64 {
        let values = counters.values();
        values.map(|value| AddI64::decode(&value.unwrap())).sum()
    };
    assert_eq!(sum(), (1 + 2 + 3 + 4) * EACH);
    counters.compact().unwrap();
    assert_eq!(sum(), (1 + 2 + 3 + 4) * EACH);
    assert_eq!(counters.len().unwrap(), 3);
}

fn a_merge_without_an_operator_is_refused(engine: EngineKind) {
    let world = World::new();
    let db = world.open();
    let plain = keyspace(&db, tiny(engine));
    let words = ["\"data\"", "no merge operator"];
    refused(plain.merge("a", "1"), &words);
    let mut batch = Batch::new();
    batch.put("a", "1");
    batch.merge("a", "2");
    refused(plain.write(batch), &words);
    let mut batch = db.batch();
    batch.put(&plain, "b", "1");
    batch.merge(&plain, "a", "2");
    refused(db.write(batch, hedgerow::Durability::Sync), &words);
    let tx = db.transaction().unwrap();
    refused(tx.merge(&plain, "a", "1"), &words);
    tx.put(&plain, "c", "3").unwrap();
    tx.commit().unwrap();
    assert_eq!(all(&plain), ["c 3"]);
    refused(Model::new().merge("a", "1"), &["no merge operator"]);
}

fn what_the_operator_refuses_is_refused(engine: EngineKind) {
    let world = World::new();
    let db = world.open();
    let counters = keyspace(&db, tiny(engine).merge_operator("add-i64"));
    let words = ["8 bytes, not 4"];
    refused(counters.merge("a", "many"), &words);
    refused(counters.put("a", "many"), &words);
    let mut batch = Batch::new();
    batch.merge("a", 1i64.to_le_bytes());
    batch.put("b", "many");
    refused(counters.write(batch), &words);
    refused(counters.update("a", |_| Some("many")), &words);
    let mut load = counters.bulk_load().unwrap();
    refused(load.put("a", "many"), &words);
    drop(load);
    let tx = db.transaction().unwrap();
    refused(tx.put(&counters, "a", "many"), &words);
    refused(tx.merge(&counters, "a", "many"), &words);
    drop(tx);
    assert!(counters.is_empty().unwrap());
}

#[derive(Debug)]
struct Last;

impl MergeOperator for Last {
    fn name(&self) -> &str {
        "last"
    }

    fn merge(&self, _key: &[u8], _value: Option<&[u8]>, operands: &[&[u8]]) -> Vec<u8> {
        operands.last().unwrap().to_vec()
    }
}

fn a_store_is_refused_without_its_operator(engine: EngineKind) {
    let world = World::new();
    let with = || world.options().merge_operator(Last);
    let db = with().open(super::STORE).unwrap();
    let data = keyspace(&db, tiny(engine).merge_operator("last"));
    data.merge("a", "1").unwrap();
    data.merge("a", "2").unwrap();
    drop((data, db));
    let words = ["\"data\"", "merge operator", "\"last\"", "not registered"];
    refused(world.options().open(super::STORE), &words);
    refused(world.options().read_only(true).open(super::STORE), &words);
    let db = with().open(super::STORE).unwrap();
    assert_eq!(all(&keyspace(&db, tiny(engine))), ["a 2"]);
    let made = db.keyspace_with("other", tiny(engine).merge_operator("first"));
    refused(made, &["\"other\"", "\"first\"", "not registered"]);
}

fn operators_and_expiry_are_fixed(engine: EngineKind) {
    let world = World::new();
    let db = world.open();
    let open = |name: &str, options| db.keyspace_with(name, options);
    open("plain", tiny(engine)).unwrap();
    open("append", appending(engine)).unwrap();
    let append = open("append", tiny(engine)).unwrap();
    assert_eq!(append.options().merge_operator.as_deref(), Some("append"));
    refused(
        open("plain", appending(engine)),
        &["merge_operator none", "fixed"],
    );
    let other = tiny(engine).merge_operator("max-bytes");
    refused(
        open("append", other),
        &["merge_operator \"append\"", "max-bytes"],
    );
    refused(
        open("plain", super::expiring(engine)),
        &["expiry false", "fixed"],
    );
    let apart = appending(engine).value_threshold_bytes(100);
    refused(
        open("new", apart),
        &["value_threshold_bytes", "merge operator"],
    );
    let apart = super::expiring(engine).value_threshold_bytes(100);
    refused(open("new", apart), &["value_threshold_bytes", "expiry"]);
    let apart = tiny(engine).value_threshold_bytes(100);
    refused(open("append", apart), &["value_threshold_bytes"]);
    refused(
        open("new", tiny(engine).merge_operator("")),
        &["merge_operator"],
    );
    let long = tiny(engine).merge_operator("x".repeat(256));
    refused(open("new", long), &["merge_operator"]);
    assert!(db.keyspaces().iter().all(|keyspace| keyspace.name != "new"));
}

/// It is not staged, and shows as a whole all the same.
fn a_large_batch_with_merges_is_whole(engine: EngineKind) {
    let world = World::new();
    let db = world.open();
    let notes = keyspace(&db, appending(engine));
    let mut batch = Batch::new();
    for n in 0..500 {
        batch.put(format!("{n:03}"), "p");
        batch.merge(format!("{:03}", n / 2), "m");
    }
    notes.write(batch).unwrap();
    let expected: Vec<_> = (0..500)
        .map(|n| match n {
            // The put of a key comes before one or both of its merges.
            0 => "000 pmm".to_owned(),
            n if n < 250 => format!("{n:03} pmm"),
            n => format!("{n:03} p"),
        })
        .collect();
    assert_eq!(all(&notes), expected);
    notes.compact().unwrap();
    assert_eq!(all(&notes), expected);
}

fn large_values_grow_by_merges(engine: EngineKind) {
    let world = World::new();
    let db = world.open();
    let notes = keyspace(&db, appending(engine));
    let mut expected = vec![b'b'; 30_000];
    notes.put("a", &expected).unwrap();
    for n in 0..20 {
        let operand = vec![n; 3000];
        notes.merge("a", &operand).unwrap();
        expected.extend(operand);
        if n % 6 == 0 {
            notes.flush().unwrap();
        }
    }
    assert!(notes.get("a").unwrap().unwrap() == expected);
    notes.compact().unwrap();
    assert!(notes.get("a").unwrap().unwrap() == expected);
    assert!(db.verify().unwrap().is_clean());
}

fn a_sorted_load_goes_under_merges(engine: EngineKind) {
    let world = World::new();
    let db = world.open();
    let notes = keyspace(&db, appending(engine));
    notes.merge("a", "gone").unwrap();
    let mut load = notes.bulk_load().unwrap();
    for key in ["a", "b", "c"] {
        load.put(key, "loaded").unwrap();
    }
    load.finish().unwrap();
    notes.merge("b", "+").unwrap();
    let expected = ["a loaded", "b loaded+", "c loaded"];
    assert_eq!(all(&notes), expected);
    drop((notes, db));
    let db: Db = world.open();
    let notes = keyspace(&db, tiny(engine));
    assert_eq!(all(&notes), expected);
    notes.compact().unwrap();
    assert_eq!(all(&notes), expected);
}

/// It looked for a moment between commits, which never came.
#[test]
fn a_snapshot_after_a_commit_that_was_applied_in_part_does_not_wait() {
    #[derive(Debug)]
    struct Faulty;
    impl MergeOperator for Faulty {
        fn name(&self) -> &str {
            "faulty"
        }
        fn merge(&self, _: &[u8], _: Option<&[u8]>, _: &[&[u8]]) -> Vec<u8> {
            panic!("it breaks its contract")
        }
    }
    let world = World::new();
    let options = world.options().merge_operator(Faulty);
    let db = options.open(super::STORE).unwrap();
    let plain = db.keyspace_with("plain", tiny(EngineKind::BTree)).unwrap();
    let options = tiny(EngineKind::BTree).merge_operator("faulty");
    let faulty = db.keyspace_with("faulty", options).unwrap();
    plain.put("a", "1").unwrap();
    let mut batch = db.batch();
    // This part is applied.
    batch.put(&plain, "a", "2");
    batch.merge(&faulty, "b", "3");
    let write = || db.write(batch, hedgerow::Durability::Buffered);
    let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(write));
    assert!(!matches!(unwound, Ok(Ok(_))));
    assert!(db.snapshot().get(&plain, "a").is_err());
    assert!(plain.snapshot().get("a").is_err());
}
