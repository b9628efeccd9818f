//! Merges and expiry in transactions.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hedgerow::{EngineKind, Isolation, MergeOperator, TransactionOptions};

use super::{STORE, World, all, appending, expiring, keyspace, on_both_engines, text, tiny};

on_both_engines! {
    transactions_that_merge_do_not_conflict,
    a_transaction_reads_its_own_merges,
    operators_run_beside_other_threads_of_the_transaction,
    what_an_operator_would_refuse_is_refused_when_it_is_put,
    a_read_below_a_merge_is_a_read,
    savepoints_take_merges_back,
    own_writes_do_not_expire_before_the_commit,
    what_expires_counts_from_the_commit,
    that_something_expires_meanwhile_is_no_conflict,
}

fn transactions_that_merge_do_not_conflict(engine: EngineKind) {
    for isolation in [Isolation::Serializable, Isolation::Snapshot] {
        let world = World::new();
        let db = world.open();
        let notes = keyspace(&db, appending(engine));
        notes.put("a", "-").unwrap();
        let begin = || {
            let options = TransactionOptions::new().isolation(isolation);
            db.transaction_with(options).unwrap()
        };
        let (first, second) = (begin(), begin());
        first.merge(&notes, "a", "1").unwrap();
        second.merge(&notes, "a", "2").unwrap();
        notes.merge("a", "3").unwrap();
        second.commit().unwrap();
        first.commit().unwrap();
        assert_eq!(text(notes.get("a").unwrap()), "-321");
        // A put under snapshot isolation still conflicts with a merge.
        let third = begin();
        third.put(&notes, "a", "p").unwrap();
        notes.merge("a", "4").unwrap();
        assert_eq!(third.commit().is_err(), isolation == Isolation::Snapshot);
    }
}

/// Appends, and waits once in between.
#[derive(Debug, Clone, Default)]
struct Waiting(Arc<Mutex<Option<Signals>>>);

/// Where it says that it has begun, and where it is told to go on.
type Signals = (Sender<()>, Receiver<()>);

impl MergeOperator for Waiting {
    fn name(&self) -> &str {
        "waiting"
    }

    fn merge(&self, _: &[u8], value: Option<&[u8]>, operands: &[&[u8]]) -> Vec<u8> {
        if let Some((begun, go_on)) = self.0.lock().unwrap().take() {
            begun.send(()).unwrap();
            go_on.recv().unwrap();
        }
        let parts = value.into_iter().chain(operands.iter().copied());
        parts.flatten().copied().collect()
    }
}

/// A read panicked if another thread wrote the key meanwhile; and while a merge called the
/// operator, the transaction was locked.
fn operators_run_beside_other_threads_of_the_transaction(engine: EngineKind) {
    let (world, operator) = (World::new(), Waiting::default());
    let options = world.options().merge_operator(operator.clone());
    let db = options.open(STORE).unwrap();
    let notes = keyspace(&db, tiny(engine).merge_operator("waiting"));
    let beside = |call: &(dyn Fn() -> String + Sync), meanwhile: &dyn Fn()| {
        let ((begun, has_begun), (done, go_on)) = (channel(), channel());
        *operator.0.lock().unwrap() = Some((begun, go_on));
        std::thread::scope(|scope| {
            let called = scope.spawn(call);
            has_begun.recv().unwrap();
            meanwhile();
            done.send(()).unwrap();
            called.join().expect("no panic")
        })
    };
    let tx = db.transaction().unwrap();
    for key in ["a", "b", "c"] {
        tx.merge(&notes, key, "1").unwrap();
    }
    let get = || text(tx.get(&notes, "a").unwrap());
    let found = beside(&get, &|| tx.put(&notes, "a", "2").unwrap());
    assert!(["1", "2"].contains(&found.as_str()), "{found}");
    let get = || text(tx.keyspace(&notes).multi_get(&["b"]).unwrap().remove(0));
    let found = beside(&get, &|| tx.delete(&notes, "b").unwrap());
    assert_eq!(found, "1");
    // The first merge calls no operator, the one over a put does.
    tx.put(&notes, "c", "3").unwrap();
    let merge = || {
        tx.merge(&notes, "c", "5").unwrap();
        String::new()
    };
    beside(&merge, &|| tx.put(&notes, "c", "4").unwrap());
    assert_eq!(text(tx.get(&notes, "c").unwrap()), "45");
}

fn what_an_operator_would_refuse_is_refused_when_it_is_put(engine: EngineKind) {
    let world = World::new();
    let db = world.open();
    let counters = keyspace(&db, tiny(engine).merge_operator("add-i64"));
    let tx = db.transaction().unwrap();
    let put = tx.keyspace(&counters);
    assert!(put.put("a", "too long for a number").is_err());
    assert!(put.put_versionstamped_value("a", "too long", "").is_err());
    tx.commit().unwrap();
}

fn a_transaction_reads_its_own_merges(engine: EngineKind) {
    let world = World::new();
    let db = world.open();
    let notes = keyspace(&db, appending(engine));
    for key in ["a", "c", "e"] {
        notes.put(key, "s").unwrap();
    }
    let tx = db.transaction().unwrap();
    let own = tx.keyspace(&notes);
    own.merge("a", "1").unwrap();
    own.merge("a", "2").unwrap();
    own.merge("b", "3").unwrap();
    own.put("c", "p").unwrap();
    own.merge("c", "4").unwrap();
    own.delete("e").unwrap();
    own.merge("e", "5").unwrap();
    let expected = ["a s12", "b 3", "c p4", "e 5"];
    let seen = |own: &hedgerow::TransactionKeyspace<'_>| {
        let pair = |entry: hedgerow::Result<(hedgerow::Value, hedgerow::Value)>| {
            let (key, value) = entry.unwrap();
            format!("{} {}", text(Some(key)), text(Some(value)))
        };
        let forward: Vec<_> = own.iter().map(pair).collect();
        let mut backward: Vec<_> = own.iter().rev().map(pair).collect();
        backward.reverse();
        assert_eq!(forward, backward);
        forward
    };
    assert_eq!(seen(&own), expected);
    let found = own.multi_get(&["b", "a", "e", "x"]).unwrap();
    let found: Vec<_> = found.into_iter().map(text).collect();
    assert_eq!(found, ["3", "s12", "5", "-"]);
    assert_eq!(text(own.get("a").unwrap()), "s12");
    assert_eq!(text(own.get_range("a", 1..).unwrap()), "12");
    assert_eq!(own.get_with("b", |value| value.len()).unwrap(), Some(1));
    assert!(own.contains_key("b").unwrap());
    assert_eq!(text(own.get_for_update("c").unwrap()), "p4");
    own.delete_range("b".."d").unwrap();
    own.merge("c", "6").unwrap();
    assert_eq!(seen(&own), ["a s12", "c 6", "e 5"]);
    assert_eq!(all(&notes), ["a s", "c s", "e s"]);
    drop(own);
    tx.commit().unwrap();
    assert_eq!(all(&notes), ["a s12", "c 6", "e 5"]);
}

fn a_read_below_a_merge_is_a_read(engine: EngineKind) {
    let world = World::new();
    let db = world.open();
    let notes = keyspace(&db, appending(engine));
    notes.put("a", "1").unwrap();
    for read in [false, true] {
        let tx = db.transaction().unwrap();
        tx.merge(&notes, "a", "2").unwrap();
        // That there is a value needs no look.
        assert!(tx.contains_key(&notes, "a").unwrap());
        if read {
            tx.get(&notes, "a").unwrap();
        }
        notes.merge("a", "x").unwrap();
        assert_eq!(tx.commit().is_err(), read);
    }
    let tx = db.transaction().unwrap();
    tx.merge(&notes, "b", "2").unwrap();
    assert_eq!(tx.iter(&notes).count(), 2);
    notes.put("b", "other").unwrap();
    assert!(tx.commit().unwrap_err().is_conflict());
    assert_eq!(all(&notes), ["a 1x2x", "b other"]);
}

fn savepoints_take_merges_back(engine: EngineKind) {
    let world = World::new();
    let db = world.open();
    let notes = keyspace(&db, appending(engine));
    notes.put("a", "s").unwrap();
    let tx = db.transaction().unwrap();
    tx.merge(&notes, "a", "1").unwrap();
    let savepoint = tx.savepoint();
    tx.merge(&notes, "a", "2").unwrap();
    tx.merge(&notes, "b", "3").unwrap();
    tx.delete_range(&notes, ..).unwrap();
    tx.rollback_to(savepoint).unwrap();
    assert_eq!(text(tx.get(&notes, "a").unwrap()), "s1");
    tx.commit().unwrap();
    assert_eq!(all(&notes), ["a s1"]);
}

fn own_writes_do_not_expire_before_the_commit(engine: EngineKind) {
    let world = World::new();
    let db = world.open();
    let cache = keyspace(&db, expiring(engine));
    let second = Duration::from_secs(1);
    cache.put_with_ttl("a", "store", second).unwrap();
    let tx = db.transaction().unwrap();
    tx.put_with_ttl(&cache, "b", "own", second).unwrap();
    world.advance_ms(5000);
    assert_eq!(text(tx.get(&cache, "a").unwrap()), "store");
    assert_eq!(text(tx.get(&cache, "b").unwrap()), "own");
    assert_eq!(tx.iter(&cache).count(), 2);
    assert!(cache.is_empty().unwrap());
    tx.commit().unwrap();
    assert_eq!(all(&cache), ["b own"]);
}

fn what_expires_counts_from_the_commit(engine: EngineKind) {
    let world = World::new();
    let db = world.open();
    let second = Duration::from_secs(1);
    let cache = keyspace(&db, expiring(engine).default_ttl(second));
    let tx = db.transaction().unwrap();
    tx.put(&cache, "a", "default").unwrap();
    tx.put_with_ttl(&cache, "b", "own", 2 * second).unwrap();
    let until = std::time::UNIX_EPOCH + Duration::from_millis(1_002_500);
    tx.put_until(&cache, "c", "until", until).unwrap();
    world.advance_ms(1000);
    tx.commit().unwrap();
    world.advance_ms(999);
    assert_eq!(cache.len().unwrap(), 3);
    world.advance_ms(1);
    assert_eq!(all(&cache), ["b own", "c until"]);
    world.advance_ms(500);
    assert_eq!(all(&cache), ["b own"]);
    // One whose time has passed by then is refused, whole.
    let tx = db.transaction().unwrap();
    let until = std::time::UNIX_EPOCH + Duration::from_millis(1_003_000);
    tx.put_until(&cache, "d", "late", until).unwrap();
    tx.put(&cache, "e", "with it").unwrap();
    world.advance_ms(500);
    super::refused(tx.commit(), &["expired already"]);
    assert!(cache.is_empty().unwrap());
}

/// The delete that a sweep committed was one.
fn that_something_expires_meanwhile_is_no_conflict(engine: EngineKind) {
    let world = World::new();
    let db = world.open();
    let cache = keyspace(&db, expiring(engine));
    for expires_first in [false, true] {
        let second = std::time::Duration::from_secs(1);
        cache.put_with_ttl("a", "1", second).unwrap();
        if expires_first {
            world.advance_ms(5000);
        }
        let tx = db.transaction().unwrap();
        assert_eq!(tx.get(&cache, "a").unwrap().is_none(), expires_first);
        tx.put(&cache, "own", "2").unwrap();
        world.advance_ms(5000);
        cache.compact().unwrap();
        tx.commit().unwrap();
    }
}
