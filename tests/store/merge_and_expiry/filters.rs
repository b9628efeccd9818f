//! Compaction filters.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use hedgerow::{
    CompactionFilter, Db, EngineKind, Keyspace, KeyspaceSnapshot, Options, Snapshot, Transaction,
    Verdict,
};

use support::random::{Random, Source};

use super::{STORE, World, all, keyspace, on_both_engines, refused, text, tiny};

on_both_engines! {
    a_filter_drops_and_replaces,
    a_snapshot_sees_what_the_filter_dropped_under_it,
    a_filter_can_be_given_later_and_taken_away,
    a_store_is_refused_without_its_filter,
    a_filter_sees_what_was_merged_and_not_what_has_expired,
    background_work_asks_the_filter,
    what_a_filter_dropped_stays_away_after_a_crash,
    values_that_are_stored_apart_are_filtered,
    what_a_filter_drops_is_not_brought_back_by_moving_it,
    what_a_filter_dropped_is_not_leapt_over_by_those_that_see_it,
    a_merge_that_is_replayed_goes_into_what_it_went_into,
    what_takes_its_views_late_sees_what_was_there_when_it_began,
    what_never_expires_is_there_at_the_end_of_time,
    a_replacement_that_changes_nothing_is_none,
}

/// Drops values that begin with a minus, and shortens long ones.
#[derive(Debug)]
struct Tidy;

impl CompactionFilter for Tidy {
    fn name(&self) -> &str {
        "tidy"
    }

    fn judge(&self, _key: &[u8], value: &[u8]) -> Verdict {
        match value {
            [b'-', ..] => Verdict::Drop,
            long if long.len() > 10 => Verdict::Replace(long[..10].to_vec()),
            _ => Verdict::Keep,
        }
    }
}

fn options(world: &World) -> Options {
    world.options().compaction_filter(Tidy)
}

fn fill(data: &Keyspace) {
    data.put("a", "-1").unwrap();
    data.put("b", "2").unwrap();
    data.put("c", "a long value").unwrap();
    data.put("d", "-3").unwrap();
}

fn a_filter_drops_and_replaces(engine: EngineKind) {
    let world = World::new();
    let db = options(&world).open(super::STORE).unwrap();
    let data = keyspace(&db, tiny(engine).compaction_filter("tidy"));
    fill(&data);
    assert_eq!(data.len().unwrap(), 4, "nothing was compacted yet");
    data.compact().unwrap();
    assert_eq!(all(&data), ["b 2", "c a long val"]);
    assert_eq!(data.stats().filtered_entries, 3);
    data.compact().unwrap();
    assert_eq!(data.stats().filtered_entries, 3);
    // What is older stays hidden.
    data.put("b", "-gone").unwrap();
    data.flush().unwrap();
    data.compact().unwrap();
    assert_eq!(all(&data), ["c a long val"]);
    assert!(db.verify().unwrap().is_clean());
}

fn a_snapshot_sees_what_the_filter_dropped_under_it(engine: EngineKind) {
    let world = World::new();
    let db = options(&world).open(super::STORE).unwrap();
    let data = keyspace(&db, tiny(engine).compaction_filter("tidy"));
    fill(&data);
    let snapshot = data.snapshot();
    let whole = db.snapshot();
    let mut scan = data.iter();
    data.compact().unwrap();
    let check = |found: Vec<String>| {
        assert_eq!(found, ["-1", "2", "a long value", "-3"]);
    };
    for _ in 0..2 {
        check(
            snapshot
                .values()
                .map(|value| text(Some(value.unwrap())))
                .collect(),
        );
        assert_eq!(text(snapshot.get("a").unwrap()), "-1");
        assert_eq!(text(whole.get(&data, "c").unwrap()), "a long value");
        while db.run_background_once().unwrap() {}
    }
    check(
        scan.by_ref()
            .map(|entry| text(Some(entry.unwrap().1)))
            .collect(),
    );
    drop((snapshot, whole, scan));
    data.compact().unwrap();
    assert_eq!(all(&data), ["b 2", "c a long val"]);
}

fn a_filter_can_be_given_later_and_taken_away(engine: EngineKind) {
    let world = World::new();
    let db = options(&world).open(super::STORE).unwrap();
    let data = keyspace(&db, tiny(engine));
    fill(&data);
    data.compact().unwrap();
    assert_eq!(data.len().unwrap(), 4);
    keyspace(&db, tiny(engine).compaction_filter("tidy"));
    assert_eq!(data.options().compaction_filter.as_deref(), Some("tidy"));
    data.compact().unwrap();
    assert_eq!(data.len().unwrap(), 2);
    keyspace(&db, tiny(engine).compaction_filter(""));
    data.put("a", "-1").unwrap();
    data.compact().unwrap();
    assert_eq!(data.len().unwrap(), 3);
    drop((data, db));
    // It needs none any more.
    let db = world.open();
    assert_eq!(keyspace(&db, tiny(engine)).len().unwrap(), 3);
}

fn a_store_is_refused_without_its_filter(engine: EngineKind) {
    let world = World::new();
    let db = options(&world).open(super::STORE).unwrap();
    keyspace(&db, tiny(engine).compaction_filter("tidy"));
    let other = tiny(engine).compaction_filter("other");
    let words = ["compaction filter", "\"other\"", "not registered"];
    refused(db.keyspace_with("data", other.clone()), &words);
    refused(db.keyspace_with("new", other), &words);
    drop(db);
    let words = [
        "\"data\"",
        "compaction filter",
        "\"tidy\"",
        "not registered",
    ];
    refused(world.options().open(super::STORE), &words);
}

fn a_filter_sees_what_was_merged_and_not_what_has_expired(engine: EngineKind) {
    #[derive(Debug, Default)]
    struct Watching(Arc<Mutex<Vec<String>>>);
    impl CompactionFilter for Watching {
        fn name(&self) -> &str {
            "watching"
        }
        fn judge(&self, key: &[u8], value: &[u8]) -> Verdict {
            let (key, value) = (String::from_utf8_lossy(key), String::from_utf8_lossy(value));
            self.0.lock().unwrap().push(format!("{key} {value}"));
            Verdict::Replace([value.as_bytes(), b"!"].concat())
        }
    }
    let world = World::new();
    let seen = Arc::default();
    let watching = Watching(Arc::clone(&seen));
    let db = world
        .options()
        .compaction_filter(watching)
        .open(super::STORE)
        .unwrap();
    let options = super::expiring(engine).merge_operator("append");
    let data = keyspace(&db, options.compaction_filter("watching"));
    let second = std::time::Duration::from_secs(1);
    data.put_with_ttl("a", "gone", second).unwrap();
    data.put_with_ttl("b", "1", 2 * second).unwrap();
    data.merge("b", "2").unwrap();
    data.merge("c", "3").unwrap();
    world.advance_ms(1000);
    data.compact().unwrap();
    let mut seen = seen.lock().unwrap().clone();
    seen.dedup();
    assert_eq!(seen, ["b 12", "c 3"]);
    assert_eq!(all(&data), ["b 12!", "c 3!"]);
    // When it expires stays as it was.
    world.advance_ms(1000);
    assert_eq!(all(&data), ["c 3!"]);
}

/// Without a call of `compact`: by compactions of an LSM tree, by sweeps of a B-tree.
fn background_work_asks_the_filter(engine: EngineKind) {
    let world = World::new();
    let db = options(&world).open(super::STORE).unwrap();
    let data = keyspace(&db, tiny(engine).compaction_filter("tidy"));
    for n in 0..4000u32 {
        let value = if n % 2 == 0 { "-goes" } else { "stays" };
        data.put(n.to_be_bytes(), value.repeat(2)).unwrap();
    }
    // Overwritten, so that every table is compacted.
    for n in 0..4000u32 {
        let value = if n % 2 == 0 { "-goes" } else { "stays" };
        data.put(n.to_be_bytes(), value.repeat(2)).unwrap();
        if n % 100 == 0 {
            while db.run_background_once().unwrap() {}
        }
    }
    data.flush().unwrap();
    for _ in 0..30 {
        world.advance_ms(1000);
        while db.run_background_once().unwrap() {}
    }
    assert!(data.stats().filtered_entries > 1000, "{:?}", data.stats());
    let left = data.len().unwrap();
    assert!((2000..3000).contains(&left), "{left} are left");
}

fn what_a_filter_dropped_stays_away_after_a_crash(engine: EngineKind) {
    let mut world = World::new();
    let db = options(&world).open(super::STORE).unwrap();
    let data = keyspace(&db, tiny(engine).compaction_filter("tidy"));
    fill(&data);
    data.compact().unwrap();
    db.sync().unwrap();
    let after = world.fs.crash();
    drop((data, db));
    world.fs = after;
    let db = options(&world).open(super::STORE).unwrap();
    assert_eq!(all(&keyspace(&db, tiny(engine))), ["b 2", "c a long val"]);
}

fn values_that_are_stored_apart_are_filtered(engine: EngineKind) {
    let world = World::new();
    let db = options(&world).open(super::STORE).unwrap();
    let apart = tiny(engine).value_threshold_bytes(100);
    let data = keyspace(&db, apart.compaction_filter("tidy"));
    data.put("a", [&b"-"[..], &[7; 500]].concat()).unwrap();
    data.put("b", vec![b'x'; 500]).unwrap();
    data.put("c", "short").unwrap();
    data.flush().unwrap();
    data.compact().unwrap();
    assert_eq!(all(&data), ["b xxxxxxxxxx", "c short"]);
    assert!(db.verify().unwrap().is_clean());
}

/// A sweep deletes an entry only if it is still the one that the filter was shown. The filter here
/// writes to it meanwhile, which a filter of a user must not do.
#[test]
fn a_sweep_does_not_delete_what_was_written_meanwhile() {
    #[derive(Debug, Default)]
    struct Meddling(Arc<OnceLock<Keyspace>>, Mutex<bool>);
    impl CompactionFilter for Meddling {
        fn name(&self) -> &str {
            "meddling"
        }
        fn judge(&self, key: &[u8], value: &[u8]) -> Verdict {
            let is_first = !std::mem::replace(&mut *self.1.lock().unwrap(), true);
            if key == b"b" && is_first {
                self.0.get().unwrap().put("b", "new").unwrap();
            }
            match value {
                b"old" => Verdict::Drop,
                _ => Verdict::Keep,
            }
        }
    }
    let world = World::new();
    let handle = Arc::new(OnceLock::new());
    let filter = Meddling(Arc::clone(&handle), Mutex::new(false));
    let db = world
        .options()
        .compaction_filter(filter)
        .open(super::STORE)
        .unwrap();
    let options = tiny(EngineKind::BTree).compaction_filter("meddling");
    let data = keyspace(&db, options);
    data.put("b", "old").unwrap();
    data.put("c", "old").unwrap();
    handle.set(data.clone()).unwrap();
    data.compact().unwrap();
    assert_eq!(all(&data), ["b new"]);
    // Only `c` was dropped, though the step was done twice.
    assert_eq!(data.stats().filtered_entries, 1);
}

/// They counted as often as the job was tried.
#[test]
fn what_a_failed_compaction_judged_does_not_count() {
    for failing in 0.. {
        let world = World::new();
        let db = options(&world).open(super::STORE).unwrap();
        let data = keyspace(&db, tiny(EngineKind::Lsm).compaction_filter("tidy"));
        fill(&data);
        data.flush().unwrap();
        world.fs.fail_once_after(failing, std::io::ErrorKind::Other);
        let failed = data.compact().is_err();
        world.fs.heal();
        data.compact().unwrap();
        assert_eq!(all(&data), ["b 2", "c a long val"]);
        assert_eq!(data.stats().filtered_entries, 3, "operation {failing}");
        if !failed {
            assert!(failing > 3, "the compaction was never hit");
            break;
        }
    }
}

/// A snapshot that is taken while a job is under way sees what was there until the job ends.
#[test]
fn a_snapshot_taken_while_the_filter_works_sees_what_was_there() {
    #[derive(Debug, Default)]
    struct Watched(
        Arc<OnceLock<Keyspace>>,
        Arc<Mutex<Vec<hedgerow::KeyspaceSnapshot>>>,
    );
    impl CompactionFilter for Watched {
        fn name(&self) -> &str {
            "watched"
        }
        fn judge(&self, _key: &[u8], _value: &[u8]) -> Verdict {
            let mut snapshots = self.1.lock().unwrap();
            if snapshots.is_empty() {
                snapshots.push(self.0.get().unwrap().snapshot());
            }
            Verdict::Drop
        }
    }
    for engine in EngineKind::ALL {
        let world = World::new();
        let (handle, snapshots) = (Arc::new(OnceLock::new()), Arc::default());
        let filter = Watched(Arc::clone(&handle), Arc::clone(&snapshots));
        let options = world.options().compaction_filter(filter);
        let db = options.open(super::STORE).unwrap();
        let data = keyspace(&db, tiny(engine).compaction_filter("watched"));
        data.put("a", "1").unwrap();
        data.put("b", "2").unwrap();
        handle.set(data.clone()).unwrap();
        data.compact().unwrap();
        assert_eq!(all(&data), Vec::<String>::new());
        let taken = std::mem::take(&mut *snapshots.lock().unwrap());
        assert_eq!(taken.len(), 1);
        let seen: Vec<_> = taken[0]
            .values()
            .map(|value| text(Some(value.unwrap())))
            .collect();
        assert_eq!(seen, ["1", "2"], "{engine}");
    }
}

/// What it was folded into was filtered since; replayed, it was folded into nothing.
fn a_merge_that_is_replayed_goes_into_what_it_went_into(engine: EngineKind) {
    let mut world = World::new();
    let merged = || super::appending(engine).compaction_filter("tidy");
    let db = options(&world).open(super::STORE).unwrap();
    let data = keyspace(&db, merged());
    data.put("k", "-").unwrap();
    for n in 0..6 {
        data.put("a", n.to_string()).unwrap();
        data.put("z", n.to_string()).unwrap();
        data.flush().unwrap();
    }
    data.merge("k", "1").unwrap();
    while db.run_background_once().unwrap() {}
    if engine == EngineKind::Lsm {
        assert!(data.stats().compactions > 0);
    }
    let before = text(data.get("k").unwrap());
    db.sync().unwrap();
    let after = world.fs.crash();
    drop((data, db));
    world.fs = after;
    let db = options(&world).open(super::STORE).unwrap();
    let data = keyspace(&db, merged());
    assert_eq!(text(data.get("k").unwrap()), before);
    data.compact().unwrap();
    assert_eq!(all(&data), ["a 5", "z 5"]);
}

/// A transaction, and a snapshot of many keyspaces, took the view of a keyspace when it was first
/// used: after the compaction that had begun before them.
fn what_takes_its_views_late_sees_what_was_there_when_it_began(engine: EngineKind) {
    type Taken = Arc<Mutex<Option<(Transaction, Snapshot)>>>;
    #[derive(Debug, Default)]
    struct Watched(Arc<OnceLock<Db>>, Taken);
    impl CompactionFilter for Watched {
        fn name(&self) -> &str {
            "watched"
        }
        fn judge(&self, _: &[u8], _: &[u8]) -> Verdict {
            let mut taken = self.1.lock().unwrap();
            if taken.is_none() {
                let db = self.0.get().unwrap();
                *taken = Some((db.transaction().unwrap(), db.snapshot()));
            }
            Verdict::Drop
        }
    }
    let world = World::new();
    let (handle, taken) = (Arc::new(OnceLock::new()), Taken::default());
    let filter = Watched(Arc::clone(&handle), Arc::clone(&taken));
    let options = world.options().compaction_filter(filter);
    let db = options.open(super::STORE).unwrap();
    for n in 0..9 {
        db.keyspace_with(&format!("k{n}"), tiny(engine)).unwrap();
    }
    let data = keyspace(&db, tiny(engine).compaction_filter("watched"));
    data.put("a", "1").unwrap();
    data.put("b", "2").unwrap();
    handle.set(db.clone()).unwrap();
    data.compact().unwrap();
    assert_eq!(all(&data), Vec::<String>::new());
    let (tx, snapshot) = taken.lock().unwrap().take().expect("it was asked");
    assert_eq!(text(tx.get(&data, "a").unwrap()), "1");
    assert_eq!(snapshot.iter(&data).count(), 2);
}

/// The job went on with the filter that was gone, and the snapshot kept no tables.
#[test]
fn a_snapshot_taken_once_the_filter_is_gone_sees_what_was_there() {
    #[derive(Debug, Default)]
    struct Leaving(Arc<OnceLock<Db>>, Arc<Mutex<Option<KeyspaceSnapshot>>>);
    impl CompactionFilter for Leaving {
        fn name(&self) -> &str {
            "leaving"
        }
        fn judge(&self, key: &[u8], _: &[u8]) -> Verdict {
            let mut taken = self.1.lock().unwrap();
            if key == b"b" && taken.is_none() {
                let none = tiny(EngineKind::Lsm).compaction_filter("");
                *taken = Some(keyspace(self.0.get().unwrap(), none).snapshot());
            }
            match key {
                b"a" => Verdict::Drop,
                _ => Verdict::Keep,
            }
        }
    }
    let world = World::new();
    let (handle, taken) = (Arc::new(OnceLock::new()), Arc::default());
    let filter = Leaving(Arc::clone(&handle), Arc::clone(&taken));
    let options = world.options().compaction_filter(filter);
    let db = options.open(super::STORE).unwrap();
    let data = keyspace(&db, tiny(EngineKind::Lsm).compaction_filter("leaving"));
    data.put("a", "1").unwrap();
    data.put("b", "2").unwrap();
    handle.set(db.clone()).unwrap();
    data.compact().unwrap();
    let snapshot = taken.lock().unwrap().take().expect("it was asked");
    assert_eq!(text(snapshot.get("a").unwrap()), "1");
}

fn what_never_expires_is_there_at_the_end_of_time(engine: EngineKind) {
    let world = World::new();
    let db = options(&world).open(super::STORE).unwrap();
    let data = keyspace(&db, tiny(engine).compaction_filter("tidy"));
    let other = db.keyspace_with("other", super::expiring(engine)).unwrap();
    data.put("b", "2").unwrap();
    other.put("b", "2").unwrap();
    world.clock.advance(std::time::Duration::MAX);
    data.compact().unwrap();
    other.compact().unwrap();
    assert_eq!(
        (all(&data), all(&other)),
        (vec!["b 2".into()], vec!["b 2".into()])
    );
}

/// A sweep wrote the same value again in each of its rounds, in an idle store as well.
fn a_replacement_that_changes_nothing_is_none(engine: EngineKind) {
    #[derive(Debug)]
    struct Same;
    impl CompactionFilter for Same {
        fn name(&self) -> &str {
            "same"
        }
        fn judge(&self, _: &[u8], value: &[u8]) -> Verdict {
            Verdict::Replace(value.to_vec())
        }
    }
    let world = World::new();
    let options = world.options().compaction_filter(Same);
    let db = options.open(super::STORE).unwrap();
    let data = keyspace(&db, tiny(engine).compaction_filter("same"));
    fill(&data);
    let commits = db.stats().commits;
    data.compact().unwrap();
    assert_eq!(data.stats().filtered_entries, 0);
    assert_eq!(db.stats().commits, commits);
}

/// All of a step went into one commit, however much the filter had made of it.
#[test]
fn a_sweep_commits_what_a_filter_makes_in_pieces() {
    #[derive(Debug)]
    struct Grow;
    impl CompactionFilter for Grow {
        fn name(&self) -> &str {
            "grow"
        }
        fn judge(&self, _: &[u8], value: &[u8]) -> Verdict {
            match value.len() {
                0..10 => Verdict::Replace(vec![b'x'; 16 << 10]),
                _ => Verdict::Keep,
            }
        }
    }
    let world = World::new();
    let options = world.options().compaction_filter(Grow);
    let db = options.open(super::STORE).unwrap();
    let data = keyspace(&db, tiny(EngineKind::BTree).compaction_filter("grow"));
    for n in 0..500_u32 {
        data.put(n.to_be_bytes(), "v").unwrap();
    }
    let before = db.stats().commits;
    data.compact().unwrap();
    assert!(db.stats().commits - before >= 4);
}

/// Drops keys from 1,000 on, once it has a store; first it has that do background work.
#[derive(Debug, Default)]
struct Old(Arc<OnceLock<Db>>, AtomicBool);

impl CompactionFilter for Old {
    fn name(&self) -> &str {
        "old"
    }

    fn judge(&self, key: &[u8], _: &[u8]) -> Verdict {
        let Some(db) = self.0.get() else {
            return Verdict::Keep;
        };
        if !self.1.swap(true, Ordering::SeqCst) {
            let before = db.stats().commits;
            // Until a value is moved, or nothing is due.
            while db.stats().commits == before && db.run_background_once().unwrap() {}
        }
        match u64::from_be_bytes(key.try_into().unwrap()) {
            1000.. => Verdict::Drop,
            _ => Verdict::Keep,
        }
    }
}

/// A value that was moved while the filter judged it was there again.
fn what_a_filter_drops_is_not_brought_back_by_moving_it(engine: EngineKind) {
    if engine == EngineKind::BTree {
        // Filtered in commits, which have an order.
        return;
    }
    let world = World::new();
    let handle = Arc::new(OnceLock::new());
    let filter = Old(Arc::clone(&handle), AtomicBool::new(false));
    let options = world.options().compaction_filter(filter);
    let db = options.open(STORE).unwrap();
    let lsm = tiny(engine).value_threshold_bytes(100);
    let data = keyspace(&db, lsm.compaction_filter("old"));
    let mut random = Random::new(8);
    let mut dropped = Vec::new();
    for n in 0..1500_u64 {
        let key = match n % 25 {
            0 => (1000 + n).to_be_bytes(),
            _ => random.below(100).to_be_bytes(),
        };
        dropped.extend((n % 25 == 0).then_some(key));
        data.put(key, random.bytes(1500)).unwrap();
        if n % 500 == 0 {
            data.flush().unwrap();
        }
    }
    // All in the last level: what is due next is to move values.
    data.compact().unwrap();
    assert!(handle.set(db.clone()).is_ok());
    data.compact().unwrap();
    let left = dropped.iter().filter(|key| data.contains_key(key).unwrap());
    assert_eq!(left.count(), 0);
    data.compact().unwrap();
    assert_eq!(data.stats().filtered_entries, dropped.len() as u64);
}

/// Drops "b", and has a snapshot taken before.
#[derive(Debug, Default)]
struct Watched(Arc<OnceLock<Keyspace>>, Arc<Mutex<Vec<KeyspaceSnapshot>>>);

impl CompactionFilter for Watched {
    fn name(&self) -> &str {
        "watched"
    }

    fn judge(&self, key: &[u8], _: &[u8]) -> Verdict {
        if key != b"b" {
            return Verdict::Keep;
        }
        let mut taken = self.1.lock().unwrap();
        if taken.is_empty() {
            taken.push(self.0.get().unwrap().snapshot());
        }
        Verdict::Drop
    }
}

/// A scan of what the filter had left noted that nothing is there, and views that see it went by
/// that.
fn what_a_filter_dropped_is_not_leapt_over_by_those_that_see_it(engine: EngineKind) {
    if engine == EngineKind::BTree {
        // It has no such notes.
        return;
    }
    let world = World::new();
    let (handle, taken) = (Arc::new(OnceLock::new()), Arc::default());
    let filter = Watched(Arc::clone(&handle), Arc::clone(&taken));
    let options = world.options().compaction_filter(filter);
    let db = options.open(STORE).unwrap();
    let data = keyspace(&db, tiny(engine).compaction_filter("watched"));
    assert!(handle.set(data.clone()).is_ok());
    let deleted: Vec<String> = (0..20).map(|n| format!("a{n:02}")).collect();
    for key in &deleted {
        data.put(key, "x").unwrap();
    }
    // Has the deletes stay, and not what the filter drops.
    let held = data.snapshot();
    data.put("b", "dropped").unwrap();
    data.put("c", "stays").unwrap();
    for key in &deleted {
        data.delete(key).unwrap();
    }
    let begun = data.iter();
    data.compact().unwrap();
    let snapshot = taken.lock().unwrap().pop().expect("it was asked");
    // Notes that there is nothing from "a00" up to "c".
    assert_eq!(all(&data), ["c stays"]);
    assert_eq!(text(snapshot.get("b").unwrap()), "dropped");
    let values: Vec<_> = snapshot
        .values()
        .map(|value| text(Some(value.unwrap())))
        .collect();
    assert_eq!(values, ["dropped", "stays"]);
    let keys: Vec<_> = begun.map(|entry| text(Some(entry.unwrap().0))).collect();
    assert_eq!(keys, ["b", "c"]);
    drop(held);
}
