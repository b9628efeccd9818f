//! Values that expire.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hedgerow::fs::{Fault, FaultFs, FaultPlan, OpKind, SimFs};
use hedgerow::{
    Batch, CompactionFilter, Durability, EngineKind, Keyspace, ManualClock, Options, Verdict,
};
use support::sizes::single_threaded;

use super::{World, all, expiring, keyspace, on_both_engines, refused, text, tiny};

on_both_engines! {
    a_value_is_there_until_its_time_and_not_from_then_on,
    what_began_before_keeps_its_time,
    a_later_write_decides_anew,
    what_an_expired_value_hid_stays_hidden,
    a_compaction_that_sweeps_ends_the_error_of_a_sweep,
    time_that_a_writer_waits_is_not_taken_off_its_value,
    expired_entries_leave_the_disk,
    the_default_counts_for_puts_without_a_time,
    times_that_have_passed_are_refused,
    expiry_without_the_option_is_refused,
    the_time_is_that_of_the_commit_whatever_happens_later,
    a_merge_keeps_the_time_of_the_value,
    a_sorted_load_takes_the_default,
    scans_pass_long_stretches_of_what_has_expired,
    conditional_writes_see_what_has_expired_as_absent,
}

const SECOND: Duration = Duration::from_secs(1);

fn unix_ms(ms: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(ms)
}

fn a_value_is_there_until_its_time_and_not_from_then_on(engine: EngineKind) {
    let world = World::new();
    let db = world.open();
    let cache = keyspace(&db, expiring(engine));
    cache.put("a", "stays").unwrap();
    cache.put_with_ttl("b", "second", SECOND).unwrap();
    cache.put_until("c", "third", unix_ms(1_002_000)).unwrap();
    assert_eq!(cache.expires_at("a").unwrap(), None);
    assert_eq!(cache.expires_at("b").unwrap(), Some(unix_ms(1_001_000)));
    assert_eq!(cache.expires_at("c").unwrap(), Some(unix_ms(1_002_000)));
    let check = |expected: &[&str]| {
        assert_eq!(all(&cache), expected);
        let found = cache.multi_get(&["a", "b", "c"]).unwrap();
        for (key, value) in ["a", "b", "c"].into_iter().zip(found) {
            let is_there = expected.iter().any(|entry| entry.starts_with(key));
            assert_eq!(value.is_some(), is_there, "{key}");
            assert_eq!(cache.get(key).unwrap(), value);
            assert_eq!(
                cache.get_with(key, |value| value.len()).unwrap(),
                value.as_ref().map(|it| it.len())
            );
            assert_eq!(cache.contains_key(key).unwrap(), is_there);
            let part = cache.get_range(key, 1..3).unwrap();
            assert_eq!(part.as_deref(), value.as_deref().map(|value| &value[1..3]));
            assert!(is_there || cache.expires_at(key).unwrap().is_none());
        }
        let last = cache.last().unwrap().unwrap().0;
        assert!(expected.last().unwrap().as_bytes().starts_with(&last));
        assert_eq!(cache.keys().count(), expected.len());
    };
    let everywhere = |expected: &[&str]| {
        check(expected);
        cache.flush().unwrap();
        check(expected);
        cache.compact().unwrap();
        check(expected);
    };
    world.advance_ms(999);
    everywhere(&["a stays", "b second", "c third"]);
    world.advance_ms(1);
    everywhere(&["a stays", "c third"]);
    world.advance_ms(999);
    everywhere(&["a stays", "c third"]);
    world.advance_ms(1);
    everywhere(&["a stays"]);
}

fn what_began_before_keeps_its_time(engine: EngineKind) {
    let world = World::new();
    let db = world.open();
    let cache = keyspace(&db, expiring(engine));
    for n in 0..300 {
        cache.put_with_ttl(format!("{n:03}"), "v", SECOND).unwrap();
    }
    let snapshot = cache.snapshot();
    let whole = db.snapshot();
    let tx = db.transaction().unwrap();
    let mut scan = cache.iter();
    let first = scan.next().unwrap().unwrap();
    world.advance_ms(1000);
    assert!(cache.is_empty().unwrap());
    cache.compact().unwrap();
    while db.run_background_once().unwrap() {}
    assert_eq!(snapshot.len().unwrap(), 300);
    assert_eq!(text(snapshot.get("150").unwrap()), "v");
    assert_eq!(whole.iter(&cache).count(), 300);
    assert_eq!(tx.iter(&cache).count(), 300);
    assert_eq!(text(tx.get(&cache, "299").unwrap()), "v");
    assert_eq!(first.0, "000");
    assert_eq!(scan.count(), 299);
    // A snapshot of now at the same number has its own time.
    assert!(cache.snapshot().is_empty().unwrap());
    drop((snapshot, whole, tx));
    cache.compact().unwrap();
    assert_eq!(cache.stats().entries_estimate, 0);
}

fn a_later_write_decides_anew(engine: EngineKind) {
    let world = World::new();
    let db = world.open();
    let cache = keyspace(&db, expiring(engine));
    cache.put_with_ttl("a", "1", SECOND).unwrap();
    cache.put("a", "2").unwrap();
    cache.put("b", "1").unwrap();
    cache.put_with_ttl("b", "2", SECOND).unwrap();
    cache.put_with_ttl("c", "1", SECOND).unwrap();
    cache.put_with_ttl("c", "2", 3 * SECOND).unwrap();
    world.advance_ms(1000);
    assert_eq!(all(&cache), ["a 2", "c 2"]);
    cache.put_with_ttl("b", "3", SECOND).unwrap();
    assert_eq!(all(&cache), ["a 2", "b 3", "c 2"]);
    let mut batch = Batch::new();
    batch.put_with_ttl("d", "1", SECOND);
    batch.put("e", "1");
    batch.put_until("f", "1", unix_ms(1_005_000));
    cache.write(batch).unwrap();
    world.advance_ms(1000);
    assert_eq!(all(&cache), ["a 2", "c 2", "e 1", "f 1"]);
}

fn what_an_expired_value_hid_stays_hidden(engine: EngineKind) {
    let world = World::new();
    let db = world.open();
    let cache = keyspace(&db, expiring(engine));
    for n in 0..100 {
        cache.put(format!("{n:02}"), "old").unwrap();
    }
    cache.compact().unwrap();
    for n in 0..100 {
        cache
            .put_with_ttl(format!("{n:02}"), "new", SECOND)
            .unwrap();
    }
    cache.flush().unwrap();
    world.advance_ms(1000);
    for _ in 0..3 {
        assert_eq!(all(&cache), Vec::<String>::new());
        while db.run_background_once().unwrap() {}
        world.advance_ms(1000);
    }
    cache.compact().unwrap();
    assert_eq!(all(&cache), Vec::<String>::new());
    assert_eq!(cache.stats().entries_estimate, 0);
}

fn expired_entries_leave_the_disk(engine: EngineKind) {
    let world = World::new();
    let db = world.open();
    let cache = keyspace(&db, expiring(engine));
    let fill = |from: u32| {
        for n in from..from + 3000 {
            cache
                .put_with_ttl(n.to_be_bytes(), [7; 40], 10 * SECOND)
                .unwrap();
        }
        cache.flush().unwrap();
        while db.run_background_once().unwrap() {}
    };
    fill(0);
    let before = cache.stats();
    assert!(before.disk_bytes > 50_000, "{before:?}");
    world.advance_ms(11_000);
    while db.run_background_once().unwrap() {}
    let after = cache.stats();
    assert_eq!(after.expired_entries, 3000);
    if engine == EngineKind::Lsm {
        // As whole tables, without being read.
        assert_eq!(after.files, 0);
        assert_eq!(
            after.compaction_bytes_written,
            before.compaction_bytes_written
        );
    } else {
        assert_eq!(cache.iter().count(), 0);
        cache.compact().unwrap();
        assert_eq!(cache.stats().entries_estimate, 0);
    }
    // It goes on.
    fill(3000);
    world.advance_ms(11_000);
    while db.run_background_once().unwrap() {}
    assert_eq!(cache.stats().expired_entries, 6000);
    assert!(db.verify().unwrap().is_clean());
}

fn the_default_counts_for_puts_without_a_time(engine: EngineKind) {
    let world = World::new();
    let db = world.open();
    let cache = keyspace(&db, expiring(engine).default_ttl(SECOND));
    cache.put("a", "1").unwrap();
    cache.put_with_ttl("b", "1", 5 * SECOND).unwrap();
    let changed = keyspace(&db, tiny(engine).default_ttl(2 * SECOND));
    changed.put("c", "1").unwrap();
    world.advance_ms(1000);
    assert_eq!(all(&cache), ["b 1", "c 1"]);
    world.advance_ms(1000);
    assert_eq!(all(&cache), ["b 1"]);
    keyspace(&db, tiny(engine).default_ttl(Duration::ZERO));
    cache.put("d", "1").unwrap();
    assert_eq!(cache.expires_at("d").unwrap(), None);
    drop((cache, changed, db));
    let db = world.open();
    let cache = keyspace(&db, tiny(engine));
    cache.put("e", "1").unwrap();
    assert_eq!(cache.options().default_ttl, Some(Duration::ZERO));
    world.advance_ms(10_000_000);
    assert_eq!(all(&cache), ["d 1", "e 1"]);
}

/// A step of a sweep was done when no compaction was due anywhere.
#[test]
fn sweeps_have_a_turn_beside_compactions_without_end() {
    let world = World::new();
    let db = world.open();
    let cache = keyspace(&db, expiring(EngineKind::BTree));
    for n in 0..100_u32 {
        cache.put_with_ttl(n.to_be_bytes(), "soon", SECOND).unwrap();
    }
    let busy = db.keyspace_with("busy", tiny(EngineKind::Lsm)).unwrap();
    let flush_overlapping = || {
        for _ in 0..4 {
            for n in 0..10_u8 {
                busy.put([n], [n; 100]).unwrap();
            }
            busy.flush().unwrap();
        }
    };
    flush_overlapping();
    while db.run_background_once().unwrap() {}
    world.advance_ms(5000);
    for _ in 0..30 {
        flush_overlapping();
        assert!(db.run_background_once().unwrap());
    }
    let compactions = busy.stats().compactions;
    assert!(compactions > 5, "{compactions}");
    assert_eq!(cache.stats().expired_entries, 100);
}

fn times_that_have_passed_are_refused(engine: EngineKind) {
    let world = World::new();
    let db = world.open();
    let cache = keyspace(&db, expiring(engine));
    let words = ["\"data\"", "expired already"];
    refused(cache.put_with_ttl("a", "1", Duration::ZERO), &words);
    refused(
        cache.put_with_ttl("a", "1", Duration::from_micros(999)),
        &words,
    );
    refused(cache.put_until("a", "1", UNIX_EPOCH), &words);
    refused(cache.put_until("a", "1", unix_ms(1_000_000)), &words);
    let mut batch = Batch::new();
    batch.put("b", "1");
    batch.put_until("a", "1", unix_ms(999_999));
    refused(cache.write(batch), &words);
    let mut batch = Batch::new();
    batch.put_with_ttl("b", "1", SECOND);
    batch.put_with_ttl("a", "1", Duration::ZERO);
    refused(cache.write(batch), &words);
    let tx = db.transaction().unwrap();
    refused(tx.put_until(&cache, "a", "1", UNIX_EPOCH), &words);
    drop(tx);
    assert!(cache.is_empty().unwrap());
    cache.put_until("a", "1", unix_ms(1_000_001)).unwrap();
    cache.put_with_ttl("b", "1", Duration::MAX).unwrap();
    assert_eq!(cache.expires_at("b").unwrap(), None);
}

fn expiry_without_the_option_is_refused(engine: EngineKind) {
    let world = World::new();
    let db = world.open();
    let plain = keyspace(&db, tiny(engine));
    let words = ["\"data\"", "without expiry"];
    refused(plain.put_with_ttl("a", "1", SECOND), &words);
    let mut batch = db.batch();
    batch.put_until(&plain, "a", "1", unix_ms(2_000_000));
    refused(db.write(batch, hedgerow::Durability::Sync), &words);
    let tx = db.transaction().unwrap();
    refused(tx.put_with_ttl(&plain, "a", "1", SECOND), &words);
    drop(tx);
    let options = tiny(engine).default_ttl(SECOND);
    refused(
        db.keyspace_with("data", options.clone()),
        &["default_ttl", "without expiry"],
    );
    refused(
        db.keyspace_with("new", options),
        &["default_ttl", "without expiry"],
    );
    let short = expiring(engine).default_ttl(Duration::from_nanos(1));
    refused(
        db.keyspace_with("new", short),
        &["default_ttl", "millisecond"],
    );
    assert!(plain.is_empty().unwrap());
}

/// Replaying the log changes no time, and neither does another default.
fn the_time_is_that_of_the_commit_whatever_happens_later(engine: EngineKind) {
    let world = World::new();
    let db = world.open();
    let cache = keyspace(&db, expiring(engine).default_ttl(10 * SECOND));
    cache.put("a", "1").unwrap();
    cache.put_with_ttl("b", "1", 20 * SECOND).unwrap();
    keyspace(&db, tiny(engine).default_ttl(SECOND));
    drop((cache, db));
    world.advance_ms(5000);
    let db = world.open();
    let cache = keyspace(&db, tiny(engine));
    assert_eq!(cache.expires_at("a").unwrap(), Some(unix_ms(1_010_000)));
    assert_eq!(cache.expires_at("b").unwrap(), Some(unix_ms(1_020_000)));
    cache.compact().unwrap();
    drop((cache, db));
    world.advance_ms(5000);
    let db = world.open();
    assert_eq!(all(&keyspace(&db, tiny(engine))), ["b 1"]);
}

fn a_merge_keeps_the_time_of_the_value(engine: EngineKind) {
    for layers in [false, true] {
        let world = World::new();
        let db = world.open();
        let options = expiring(engine).merge_operator("append");
        let cache = keyspace(&db, options.default_ttl(10 * SECOND));
        let settle = || {
            if layers {
                cache.flush().unwrap();
            }
        };
        cache.put_with_ttl("a", "1", 2 * SECOND).unwrap();
        cache.put_with_ttl("b", "1", 2 * SECOND).unwrap();
        settle();
        world.advance_ms(1000);
        cache.merge("a", "2").unwrap();
        cache.merge("c", "new").unwrap();
        assert_eq!(cache.expires_at("a").unwrap(), Some(unix_ms(1_002_000)));
        assert_eq!(cache.expires_at("c").unwrap(), Some(unix_ms(1_011_000)));
        assert_eq!(all(&cache), ["a 12", "b 1", "c new"]);
        settle();
        world.advance_ms(1000);
        assert_eq!(all(&cache), ["c new"]);
        // Into nothing, since what was there has expired.
        cache.merge("a", "3").unwrap();
        settle();
        assert_eq!(all(&cache), ["a 3", "c new"]);
        assert_eq!(cache.expires_at("a").unwrap(), Some(unix_ms(1_012_000)));
        cache.compact().unwrap();
        assert_eq!(all(&cache), ["a 3", "c new"]);
        world.advance_ms(10_000);
        assert_eq!(all(&cache), Vec::<String>::new());
    }
}

fn a_sorted_load_takes_the_default(engine: EngineKind) {
    let world = World::new();
    let db = world.open();
    let cache = keyspace(&db, expiring(engine).default_ttl(SECOND));
    let mut load = cache.bulk_load().unwrap();
    for n in 0..1000u32 {
        load.put(n.to_be_bytes(), "v").unwrap();
    }
    load.finish().unwrap();
    assert_eq!(cache.len().unwrap(), 1000);
    assert_eq!(text(cache.get(7u32.to_be_bytes()).unwrap()), "v");
    world.advance_ms(1000);
    assert_eq!(cache.len().unwrap(), 0);
    while db.run_background_once().unwrap() {}
    cache.compact().unwrap();
    assert_eq!(cache.stats().entries_estimate, 0);
    assert!(db.verify().unwrap().is_clean());
}

fn scans_pass_long_stretches_of_what_has_expired(engine: EngineKind) {
    let world = World::new();
    let db = world.open();
    let cache = keyspace(&db, expiring(engine));
    for n in 0..2000u32 {
        let key = format!("{n:04}");
        match n % 500 == 250 {
            true => cache.put(key, "stays").unwrap(),
            false => cache.put_with_ttl(key, "goes", SECOND).unwrap(),
        };
    }
    world.advance_ms(1000);
    let keys = |bounds: std::ops::Range<&str>| -> Vec<String> {
        let keys = hedgerow::Keys::from(cache.range(bounds));
        keys.map(|key| text(Some(key.unwrap()))).collect()
    };
    assert_eq!(keys("0000".."9999"), ["0250", "0750", "1250", "1750"]);
    assert_eq!(keys("0251".."0750"), Vec::<String>::new());
    assert_eq!(keys("0251".."0751"), ["0750"]);
    let backward = |cache: &Keyspace| cache.range("0300".."1300").next_back();
    assert_eq!(backward(&cache).unwrap().unwrap().0, "1250");
    let mut scan = cache.range("0000".."1000");
    assert_eq!(scan.next().unwrap().unwrap().0, "0250");
    assert_eq!(scan.next_back().unwrap().unwrap().0, "0750");
    assert!(scan.next().is_none() && scan.next_back().is_none());
}

fn conditional_writes_see_what_has_expired_as_absent(engine: EngineKind) {
    let world = World::new();
    let db = world.open();
    let cache = keyspace(&db, expiring(engine));
    cache.put_with_ttl("a", "1", SECOND).unwrap();
    assert!(cache.put_if_absent("a", "2").unwrap().is_err());
    world.advance_ms(1000);
    assert!(cache.put_if_absent("a", "2").unwrap().is_ok());
    assert_eq!(all(&cache), ["a 2"]);
    cache.put_with_ttl("b", "1", SECOND).unwrap();
    world.advance_ms(1000);
    assert_eq!(cache.remove("b").unwrap(), None);
    let update = cache.update("b", |old| {
        assert!(old.is_none());
        Some("3")
    });
    assert_eq!(update.unwrap().old, None);
    assert_eq!(cache.pop_first().unwrap().unwrap().0, "a");
    assert_eq!(all(&cache), ["b 3"]);
}

/// They counted as well where a table had expired whole.
#[test]
fn deletes_are_no_expired_entries() {
    let world = World::new();
    let db = world.open();
    let data = keyspace(&db, expiring(EngineKind::Lsm));
    let second = Duration::from_secs(1);
    data.put_with_ttl("a", "1", second).unwrap();
    for n in 0..9_u8 {
        data.delete([n]).unwrap();
    }
    data.flush().unwrap();
    world.advance_ms(1000);
    data.compact().unwrap();
    assert_eq!(data.stats().expired_entries, 1);
}

/// It stayed until the next sweep in the background, up to ten periods later; and `wait_idle` did
/// not know it.
fn a_compaction_that_sweeps_ends_the_error_of_a_sweep(engine: EngineKind) {
    if engine == EngineKind::Lsm {
        // What has expired goes in compactions.
        return;
    }
    let disk = FaultFs::new(Arc::new(SimFs::new()));
    let clock = ManualClock::new();
    let options = Options::new()
        .fs(Arc::new(disk.clone()))
        .background_threads(0)
        .durability(Durability::Buffered)
        .clock(clock.clone())
        .sweep_period(Duration::from_millis(10));
    let db = options.open(super::STORE).unwrap();
    let data = keyspace(&db, expiring(engine));
    data.put_with_ttl("key", "value", SECOND).unwrap();
    while db.run_background_once().unwrap() {}
    clock.advance(3600 * SECOND);
    let full = FaultPlan::once(&[OpKind::Write], 0, Fault::Full);
    disk.plan(full.and_then_all(&[OpKind::Write]));
    assert!(db.run_background_once().is_err());
    let error = db.stats().background_error.unwrap();
    assert!(error.starts_with("sweep"), "{error}");
    assert!(db.wait_idle().is_err());
    disk.heal();
    data.compact().unwrap();
    assert_eq!(data.stats().expired_entries, 1);
    assert_eq!(db.stats().background_error, None);
    db.wait_idle().unwrap();
}

/// Has an hour pass while it is asked for the first time.
#[derive(Debug)]
struct Slow(ManualClock, Arc<AtomicBool>);

impl CompactionFilter for Slow {
    fn name(&self) -> &str {
        "slow"
    }

    fn judge(&self, _: &[u8], _: &[u8]) -> Verdict {
        if !self.1.swap(true, Ordering::SeqCst) {
            self.0.advance(3600 * SECOND);
        }
        Verdict::Keep
    }
}

/// It got its time before it waited for room, here for a compaction that it did itself.
fn time_that_a_writer_waits_is_not_taken_off_its_value(engine: EngineKind) {
    if engine == EngineKind::BTree {
        // Its filter is asked by sweeps, for which no writer waits.
        return;
    }
    let (clock, has_passed) = (ManualClock::new(), Arc::new(AtomicBool::new(false)));
    let options = single_threaded(Arc::new(SimFs::new()))
        .durability(Durability::Buffered)
        .clock(clock.clone())
        .compaction_filter(Slow(clock, Arc::clone(&has_passed)));
    let db = options.open(super::STORE).unwrap();
    let data = keyspace(&db, expiring(engine).compaction_filter("slow"));
    for n in 0..100_000_u32 {
        let key = (n.wrapping_mul(0x9E37_79B9)).to_be_bytes();
        data.put_with_ttl(key, [7; 100], SECOND).unwrap();
        if has_passed.load(Ordering::SeqCst) {
            assert!(data.contains_key(key).unwrap());
            return;
        }
    }
    panic!("no writer has waited");
}
