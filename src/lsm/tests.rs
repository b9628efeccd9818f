//! The engine against a history kept in a `BTreeMap`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use parking_lot::Mutex;

use super::LsmEngine;
use crate::cache::BlockCache;
use crate::engine::{
    Engine, EngineContext, EngineStats, Pressure, ReadView, Registered, SnapshotTracker,
};
use crate::error::Error;
use crate::fs::{Fs, OpenFiles, SimFs, StdFs};
use crate::options::{Compression, EngineKind, KeyspaceOptions, KeyspaceSettings};
use crate::resolve::{Append, Resolver};
use crate::testing::{
    AppendInFull, FakeHost, Map, OverAtEnd, OwnedOp, Random, appending, no_values,
};
use crate::types::{KeyspaceId, Op, SeqNo, SequencedOp};

mod empty_ranges;
mod forms;
mod full_compaction;
mod open_files;
mod reads;
mod storage;

/// Versions of a key, rising; `None` for a removal.
type Versions = Vec<(u64, Option<Vec<u8>>)>;

/// State of the map after each operation.
#[derive(Debug, Default, Clone)]
struct History {
    versions: BTreeMap<Vec<u8>, Versions>,
    ops: Vec<OwnedOp>,
}

impl History {
    fn push(&mut self, op: OwnedOp) {
        let seq = self.ops.len() as u64 + 1;
        match &op {
            OwnedOp::Put(key, value) => {
                self.versions
                    .entry(key.clone())
                    .or_default()
                    .push((seq, Some(value.clone())));
            }
            OwnedOp::Delete(key) => {
                self.versions
                    .entry(key.clone())
                    .or_default()
                    .push((seq, None));
            }
            OwnedOp::Merge(key, operand) => {
                let versions = self.versions.entry(key.clone()).or_default();
                let last = versions.last().and_then(|(_, value)| value.clone());
                let mut value = last.unwrap_or_default();
                value.extend(operand);
                versions.push((seq, Some(value)));
            }
            OwnedOp::DeleteRange(start, end) => {
                if end.as_ref().is_none_or(|end| start < end) {
                    for (key, versions) in self.versions.range_mut(start.clone()..) {
                        if end.as_ref().is_none_or(|end| key < end) {
                            versions.push((seq, None));
                        }
                    }
                }
            }
        }
        self.ops.push(op);
    }

    fn at(&self, seq: u64) -> Map {
        let visible = |versions: &Versions| {
            versions
                .iter()
                .rfind(|(s, _)| *s <= seq)
                .and_then(|(_, value)| value.clone())
        };
        self.versions
            .iter()
            .filter_map(|(k, v)| Some((k.clone(), visible(v)?)))
            .collect()
    }
}

struct World {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    snapshot_tracker: Arc<SnapshotTracker>,
    options: KeyspaceOptions,
    resolver: Arc<Resolver>,
    read_only: bool,
}

impl World {
    fn new(fs: Arc<dyn Fs>, dir: &Path) -> Self {
        fs.create_dir_all(dir).unwrap();
        // The engine's directory outlives a crash, as the store sees to.
        fs.sync_dir(dir.parent().unwrap()).unwrap();
        Self {
            fs,
            dir: dir.to_path_buf(),
            snapshot_tracker: Arc::default(),
            options: KeyspaceOptions::new(EngineKind::Lsm)
                .write_buffer_bytes(16 << 10)
                .block_size_bytes(256)
                .table_size_bytes(16 << 10),
            resolver: Arc::default(),
            read_only: false,
        }
    }

    fn context(&self) -> EngineContext {
        EngineContext {
            fs: Arc::clone(&self.fs),
            open_files: Arc::new(OpenFiles::new(8)),
            values: no_values(&self.fs),
            keep: Arc::<FakeHost>::default(),
            dir: self.dir.clone(),
            store_id: 7,
            keyspace: KeyspaceId(3),
            snapshot_tracker: Arc::clone(&self.snapshot_tracker),
            cache: Arc::new(BlockCache::new(1 << 20)),
            options: Arc::new(KeyspaceSettings::new(
                &self.options.clone().with_defaults(),
                64 << 20,
            )),
            resolver: Arc::clone(&self.resolver),
            use_mmap: true,
            read_only: self.read_only,
            persisted_watermark: SeqNo::ZERO,
            host: Arc::new(FakeHost::default()),
        }
    }

    /// Opens again, as recovery does: what the log would replay is applied.
    fn reopen(&self, history: &History) -> Arc<LsmEngine> {
        let engine = LsmEngine::open(self.context()).unwrap();
        apply(&engine, history, engine.persisted_seq().0);
        engine.recovered().unwrap();
        engine
    }
}

/// Applies the operations of `history` above `from`, unpublished.
fn apply(engine: &LsmEngine, history: &History, from: u64) {
    for (at, op) in history.ops.iter().enumerate().skip(from as usize) {
        let seq = SeqNo(at as u64 + 1);
        engine.apply(&[SequencedOp::new(seq, op.borrow())]).unwrap();
    }
}

fn random_key(random: &mut Random) -> Vec<u8> {
    match random.below(200) {
        0 => Vec::new(),
        1 => vec![0xFF; random.below(40) as usize],
        2 => [vec![b'k'; 1000], random.below(5).to_be_bytes().to_vec()].concat(),
        n if n < 60 => format!("{}", random.below(300)).into_bytes(),
        _ => format!("shared prefix {:04}", random.below(600)).into_bytes(),
    }
}

fn random_op(random: &mut Random) -> OwnedOp {
    match random.below(100) {
        0 => {
            let start = random_key(random);
            let end = (random.below(8) > 0).then(|| {
                if random.below(2) == 0 {
                    let mut end = start.clone();
                    end.push(b'9');
                    end
                } else {
                    random_key(random)
                }
            });
            // Ranges without an end are rare, or little would ever be there.
            match end {
                None if random.below(10) > 0 => OwnedOp::Delete(start),
                end => OwnedOp::DeleteRange(start, end),
            }
        }
        1..20 => OwnedOp::Delete(random_key(random)),
        n => {
            let len = if n == 20 {
                random.below(5000)
            } else {
                random.below(120)
            };
            let byte = random.next() as u8;
            OwnedOp::Put(random_key(random), vec![byte; len as usize])
        }
    }
}

/// Everything, both ways, and single keys.
fn check_all(view: &Arc<dyn ReadView>, expected: &Map, label: &str) {
    let mut cursor = Arc::clone(view).cursor();
    cursor.seek_first().unwrap();
    for (key, value) in expected {
        assert!(cursor.is_valid(), "{label}: ends before {key:?}");
        assert_eq!(cursor.key(), key, "{label}");
        assert_eq!(cursor.entry().unwrap(), (&key[..], &value[..]), "{label}");
        cursor.next().unwrap();
    }
    assert!(!cursor.is_valid(), "{label}: too much");
    cursor.seek_last().unwrap();
    for (key, value) in expected.iter().rev() {
        assert!(cursor.is_valid(), "{label}: ends after {key:?}");
        assert_eq!(cursor.entry().unwrap(), (&key[..], &value[..]), "{label}");
        cursor.prev().unwrap();
    }
    assert!(!cursor.is_valid(), "{label}: too much");
}

fn check_gets(
    random: &mut Random,
    get: impl Fn(&[u8]) -> Option<Vec<u8>>,
    expected: &Map,
    label: &str,
) {
    for _ in 0..20 {
        let key = random_key(random);
        assert_eq!(get(&key).as_ref(), expected.get(&key), "{label}: {key:?}");
    }
}

/// Many keys at once, some of them more than once.
fn check_multi_get(random: &mut Random, engine: &LsmEngine, expected: &Map, label: &str) {
    let keys: Vec<_> = (0..random.below(30)).map(|_| random_key(random)).collect();
    let keys: Vec<&[u8]> = keys
        .iter()
        .flat_map(|key| vec![key.as_slice(); 1 + random.below(2) as usize])
        .collect();
    let values = engine.multi_get(&keys).unwrap();
    assert_eq!(values.len(), keys.len(), "{label}");
    for (key, value) in keys.iter().zip(values) {
        let value = value.map(|value| value.to_vec());
        assert_eq!(value.as_ref(), expected.get(*key), "{label}: {key:?}");
    }
}

fn check_steps(random: &mut Random, view: &Arc<dyn ReadView>, expected: &Map, label: &str) {
    let mut cursor = Arc::clone(view).cursor();
    let mut at: Option<Vec<u8>> = None;
    for step in 0..60 {
        let key = random_key(random);
        let first_from = |key: &[u8]| expected.range(key.to_vec()..).next().map(|e| e.0.clone());
        let last_before = |key: &[u8]| {
            expected
                .range(..key.to_vec())
                .next_back()
                .map(|e| e.0.clone())
        };
        match (random.below(12), &at) {
            (0, _) => {
                cursor.seek(&key).unwrap();
                at = first_from(&key);
            }
            (1, _) => {
                cursor.seek_before(&key).unwrap();
                at = last_before(&key);
            }
            (2..7, Some(here)) => {
                cursor.next().unwrap();
                at = first_from(&[here, &b"\0"[..]].concat());
            }
            (7.., Some(here)) => {
                cursor.prev().unwrap();
                at = last_before(here);
            }
            _ => {}
        }
        assert_eq!(cursor.is_valid(), at.is_some(), "{label} step {step}");
        if let Some(at) = &at {
            assert_eq!(cursor.key(), at, "{label} step {step}");
            assert_eq!(
                cursor.entry().unwrap().1,
                expected[at],
                "{label} step {step}"
            );
        }
    }
}

fn get_of(view: &Arc<dyn ReadView>) -> impl Fn(&[u8]) -> Option<Vec<u8>> {
    |key| view.get_value(key).unwrap().map(|value| value.to_vec())
}

/// One random life of an engine; returns how much happened in it.
fn live(seed: u64, steps: u64, world: &mut World, memory: Option<SimFs>) -> EngineStats {
    let mut random = Random::new(seed);
    let mut memory = memory;
    let mut history = History::default();
    let mut engine = LsmEngine::create(world.context()).unwrap();
    let mut snapshots: Vec<(Registered, Arc<dyn ReadView>)> = Vec::new();
    for step in 0..steps {
        let label = format!("seed {seed} step {step}");
        match random.below(1000) {
            0..940 => {
                let first = history.ops.len();
                for _ in 0..1 + random.below(8) {
                    let op = random_op(&mut random);
                    history.push(match world.resolver.operator() {
                        Some(_) => op.or_merge(&mut random),
                        None => op,
                    });
                }
                let ops: Vec<_> = history.ops[first..]
                    .iter()
                    .zip(first as u64 + 1..)
                    .map(|(op, seq)| SequencedOp::new(SeqNo(seq), op.borrow()))
                    .collect();
                engine.apply(&ops).unwrap();
                // Sometimes a read comes between applying and publishing.
                if random.below(50) == 0 {
                    let before = history.at(first as u64);
                    check_steps(&mut random, &engine.view().unwrap(), &before, &label);
                }
                world
                    .snapshot_tracker
                    .publish(SeqNo(history.ops.len() as u64));
            }
            940..970 => {
                if let Some(work) = engine.work_due() {
                    engine.run_once(work).unwrap();
                }
            }
            970..975 => engine.flush().unwrap(),
            975 => {
                engine.compact().unwrap();
                assert_eq!(
                    engine.persisted_seq().0,
                    history.ops.len() as u64,
                    "{label}"
                );
                assert_eq!(engine.oldest_unpersisted(), None);
            }
            976..982 => {
                let seq = world.snapshot_tracker.register();
                snapshots.push((seq, engine.snapshot_view(seq.seq).unwrap()));
            }
            982..988 if !snapshots.is_empty() => {
                let at = random.below(snapshots.len() as u64) as usize;
                let (seq, view) = snapshots.swap_remove(at);
                let expected = history.at(seq.seq.0);
                check_all(&view, &expected, &label);
                drop(view);
                let _ = world.snapshot_tracker.unregister(seq);
            }
            988..990 => {
                // Reopen, or lose power; snapshots end with the process.
                for (seq, view) in snapshots.drain(..) {
                    drop(view);
                    let _ = world.snapshot_tracker.unregister(seq);
                }
                let persisted = engine.persisted_seq();
                drop(engine);
                if let Some(fs) = memory.take() {
                    let fs = match random.below(3) {
                        0 => fs,
                        1 => fs.crash(),
                        _ => fs.crash_keeping(random.next()),
                    };
                    world.fs = Arc::new(fs.clone());
                    memory = Some(fs);
                }
                engine = LsmEngine::open(world.context()).unwrap();
                assert_eq!(engine.persisted_seq(), persisted, "{label}");
                let expected = history.at(persisted.0);
                check_all(&engine.view().unwrap(), &expected, &label);
                assert_eq!(engine.verify().unwrap().problems, [], "{label}");
                apply(&engine, &history, persisted.0);
                engine.recovered().unwrap();
            }
            _ => {
                let (seq, view) = match snapshots.last() {
                    Some((seq, view)) if random.below(2) == 0 => (seq.seq.0, Arc::clone(view)),
                    _ => (history.ops.len() as u64, engine.view().unwrap()),
                };
                let expected = history.at(seq);
                match random.below(4) {
                    0 => check_all(&view, &expected, &label),
                    1 => check_gets(&mut random, get_of(&view), &expected, &label),
                    _ => check_steps(&mut random, &view, &expected, &label),
                }
                let now = history.at(history.ops.len() as u64);
                let get = |key: &[u8]| engine.get_value(key).unwrap().map(|v| v.to_vec());
                check_gets(&mut random, get, &now, &label);
                check_multi_get(&mut random, &engine, &now, &label);
            }
        }
    }
    for (seq, view) in snapshots {
        check_all(
            &view,
            &history.at(seq.seq.0),
            &format!("seed {seed} at the end"),
        );
        drop(view);
        let _ = world.snapshot_tracker.unregister(seq);
    }
    while let Some(work) = engine.work_due() {
        engine.run_once(work).unwrap();
    }
    let label = format!("seed {seed} at rest");
    let expected = history.at(history.ops.len() as u64);
    check_all(&engine.view().unwrap(), &expected, &label);
    assert_eq!(engine.verify().unwrap().problems, [], "{label}");
    engine.compact().unwrap();
    check_all(&engine.view().unwrap(), &expected, &label);
    let stats = engine.stats();
    // Exact after `compact`, and nothing else is left.
    assert_eq!(stats.entries_estimate, expected.len() as u64, "{label}");
    let tables = world.fs.read_dir(&world.dir).unwrap();
    assert_eq!(tables.len() as u64, stats.files + 2, "{label}: {tables:?}");
    stats
}

#[test]
fn random_lives_in_memory() {
    for seed in 0..12 {
        let fs = SimFs::new();
        let mut world = World::new(Arc::new(fs.clone()), Path::new("/lsm"));
        if seed % 3 == 0 {
            world.options.compression = Some(Compression::None);
        }
        live(seed, 1500, &mut world, Some(fs));
    }
}

/// Merges are folded by memtables, flushes, compactions and reads, under snapshots, and come to the
/// same: with an operator that combines operands, and with one that does not.
#[test]
fn random_lives_with_merges() {
    for seed in 0..24 {
        let fs = SimFs::new();
        let mut world = World::new(Arc::new(fs.clone()), Path::new("/lsm"));
        world.resolver = match seed % 2 {
            0 => appending(Append),
            _ => appending(AppendInFull),
        };
        live(500 + seed, 1500, &mut world, Some(fs));
    }
}

/// Two memtables wait: each flush takes the older one, and everything stays readable.
#[test]
fn one_flush_takes_one_memtable() {
    let world = World::new(Arc::new(SimFs::new()), Path::new("/lsm"));
    let engine = LsmEngine::create(world.context()).unwrap();
    let mut history = History::default();
    for seq in 1..=2 {
        history.push(OwnedOp::Put(vec![seq], b"value".to_vec()));
        apply(&engine, &history, u64::from(seq) - 1);
        engine.rotate(&engine.empty_ranges.recorder());
    }
    world.snapshot_tracker.publish(SeqNo(2));
    for flushed in 1..=2 {
        assert!(engine.flush_oldest().unwrap());
        assert_eq!(engine.persisted_seq(), SeqNo(flushed));
        let label = format!("after flush {flushed}");
        check_all(&engine.view().unwrap(), &history.at(2), &label);
    }
    assert!(!engine.flush_oldest().unwrap());
}

/// A delete that is compacted where an older version lies below continues to hide it.
#[test]
fn a_delete_above_the_bottom_goes_on_hiding() {
    let world = World::new(Arc::new(SimFs::new()), Path::new("/lsm"));
    let engine = LsmEngine::create(world.context()).unwrap();
    let mut history = History::default();
    let key = b"key".to_vec();
    history.push(OwnedOp::Put(key.clone(), b"value".to_vec()));
    apply(&engine, &history, 0);
    world.snapshot_tracker.publish(SeqNo(1));
    engine.compact().unwrap();
    history.push(OwnedOp::Delete(key));
    apply(&engine, &history, 1);
    world.snapshot_tracker.publish(SeqNo(2));
    engine.flush().unwrap();
    check_all(&engine.view().unwrap(), &history.at(2), "flushed");
    assert_eq!(
        engine
            .stats()
            .levels
            .iter()
            .map(|level| level.files)
            .sum::<u64>(),
        2
    );
}

#[test]
fn a_random_life_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    for seed in 100..102 {
        let path = dir.path().join(seed.to_string());
        live(
            seed,
            1500,
            &mut World::new(Arc::new(StdFs::new()), &path),
            None,
        );
    }
}

#[test]
fn levels_fill_up() {
    let fs = SimFs::new();
    let mut world = World::new(Arc::new(fs), Path::new("/lsm"));
    world.options.compression = Some(Compression::None);
    let engine = LsmEngine::create(world.context()).unwrap();
    let mut random = Random::new(1);
    let mut history = History::default();
    for n in 0..16_000_u64 {
        let key = crate::format::checksum::mix64(random.below(1 << 40))
            .to_be_bytes()
            .to_vec();
        history.push(OwnedOp::Put(
            key,
            crate::format::checksum::mix64(n).to_be_bytes().repeat(12),
        ));
        apply(&engine, &history, n);
        world.snapshot_tracker.publish(SeqNo(n + 1));
        while let Some(work) = engine.work_due() {
            engine.run_once(work).unwrap();
        }
    }
    let stats = engine.stats();
    let used = stats.levels.iter().filter(|level| level.files > 0).count();
    assert!(used >= 3, "{:?}", stats.levels);
    assert!(
        stats.compaction_bytes_written < 12 * stats.disk_bytes,
        "{stats:?}"
    );
    check_all(&engine.view().unwrap(), &history.at(16_000), "filled");
}

#[test]
fn a_crash_at_any_sync_recovers_what_was_persisted() {
    // Every operation of the file system fails in turn, then power is lost.
    let mut lived_through = false;
    for fail_after in (0..).step_by(7) {
        let fs = SimFs::new();
        let mut world = World::new(Arc::new(fs.clone()), Path::new("/lsm"));
        let engine = LsmEngine::create(world.context()).unwrap();
        fs.sync_dir(Path::new("/")).unwrap();
        let mut random = Random::new(5);
        let mut history = History::default();
        fs.fail_after(fail_after, std::io::ErrorKind::Other);
        let mut failed = false;
        for n in 0..1500 {
            history.push(random_op(&mut random));
            apply(&engine, &history, n);
            world.snapshot_tracker.publish(SeqNo(n + 1));
            if n % 20 == 0
                && let Some(work) = engine.work_due()
                && engine.run_once(work).is_err()
            {
                failed = true;
                break;
            }
        }
        let now = history.at(history.ops.len() as u64);
        if failed {
            // Reads of tables fail too while the fault lasts.
            fs.heal();
        }
        check_all(&engine.view().unwrap(), &now, "after a failure");
        let acknowledged = engine.persisted_seq();
        drop(engine);
        world.fs = Arc::new(fs.crash_keeping(fail_after));
        let reopened = LsmEngine::open(world.context()).unwrap();
        let persisted = reopened.persisted_seq();
        assert!(persisted >= acknowledged, "fail_after {fail_after}");
        let expected = history.at(persisted.0);
        check_all(
            &reopened.view().unwrap(),
            &expected,
            &format!("fail_after {fail_after}"),
        );
        assert_eq!(reopened.verify().unwrap().problems, []);
        drop(reopened);
        let reopened = world.reopen(&history);
        reopened.compact().unwrap();
        check_all(&reopened.view().unwrap(), &now, "replayed");
        if !failed {
            lived_through = true;
            break;
        }
    }
    assert!(lived_through);
}

#[test]
fn work_goes_on_after_a_failure_in_the_same_process() {
    for fail_after in (0..150).step_by(3) {
        let fs = SimFs::new();
        let world = World::new(Arc::new(fs.clone()), Path::new("/lsm"));
        let engine = LsmEngine::create(world.context()).unwrap();
        let mut random = Random::new(9);
        let mut history = History::default();
        fs.fail_once_after(fail_after, std::io::ErrorKind::StorageFull);
        for n in 0..600 {
            history.push(random_op(&mut random));
            apply(&engine, &history, n);
            world.snapshot_tracker.publish(SeqNo(n + 1));
            if let Some(work) = engine.work_due() {
                let _ = engine.run_once(work);
            }
        }
        fs.heal();
        engine.flush().unwrap();
        while let Some(work) = engine.work_due() {
            engine.run_once(work).unwrap();
        }
        let expected = history.at(history.ops.len() as u64);
        check_all(
            &engine.view().unwrap(),
            &expected,
            &format!("fail_after {fail_after}"),
        );
        assert_eq!(engine.verify().unwrap().problems, []);
        drop(engine);
        let engine = LsmEngine::open(world.context()).unwrap();
        assert_eq!(engine.persisted_seq().0, history.ops.len() as u64);
        check_all(
            &engine.view().unwrap(),
            &expected,
            &format!("fail_after {fail_after}"),
        );
    }
}

#[test]
fn readers_run_beside_everything() {
    let fs = SimFs::new();
    let world = World::new(Arc::new(fs), Path::new("/lsm"));
    let engine = LsmEngine::create(world.context()).unwrap();
    let over = AtomicBool::new(false);
    const KEYS: u64 = 400;
    // Round r writes value r to every key; so a view sees two neighbouring rounds at most,
    // the newer one on a prefix of the keys.
    let rounds = 40_u64;
    thread::scope(|scope| {
        let _over = OverAtEnd(&over);
        for thread in 0..2 {
            let (engine, over, snapshot_tracker) = (&engine, &over, &world.snapshot_tracker);
            scope.spawn(move || {
                let mut random = Random::new(thread);
                while !over.load(Ordering::Relaxed) {
                    let published = snapshot_tracker.published().0;
                    let snapshot = (thread == 0).then(|| snapshot_tracker.register());
                    let view = match snapshot {
                        Some(at) => engine.snapshot_view(at.seq).unwrap(),
                        None => engine.view().unwrap(),
                    };
                    let mut cursor = Arc::clone(&view).cursor();
                    cursor.seek_first().unwrap();
                    let mut values = Vec::new();
                    while cursor.is_valid() {
                        let (key, value) = cursor.entry().unwrap();
                        assert_eq!(key, (values.len() as u64).to_be_bytes());
                        values.push(u64::from_le_bytes(value.try_into().unwrap()));
                        cursor.next().unwrap();
                    }
                    assert!(values.len() as u64 >= published.min(KEYS));
                    assert!(values.windows(2).all(|pair| pair[0] >= pair[1]));
                    if let (Some(first), Some(last)) = (values.first(), values.last()) {
                        assert!(first - last <= 1 || (values.len() as u64) < KEYS);
                    }
                    let mut back = Vec::new();
                    cursor.seek_last().unwrap();
                    while cursor.is_valid() {
                        let (_, value) = cursor.entry().unwrap();
                        back.push(u64::from_le_bytes(value.try_into().unwrap()));
                        cursor.prev().unwrap();
                    }
                    back.reverse();
                    assert_eq!(back, values);
                    let key = random.below(KEYS);
                    if key < published {
                        assert!(engine.get(&key.to_be_bytes(), &mut |_| ()).unwrap());
                    }
                    drop((cursor, view));
                    if let Some(seq) = snapshot {
                        let _ = snapshot_tracker.unregister(seq);
                    }
                }
            });
        }
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                match engine.work_due() {
                    Some(work) => {
                        engine.run_once(work).unwrap();
                    }
                    None => thread::yield_now(),
                }
            }
        });
        let mut seq = 0;
        for round in 0..rounds {
            for key in 0..KEYS {
                seq += 1;
                let op = Op::Put {
                    key: &key.to_be_bytes(),
                    value: &round.to_le_bytes(),
                };
                engine.apply(&[SequencedOp::new(SeqNo(seq), op)]).unwrap();
                world.snapshot_tracker.publish(SeqNo(seq));
            }
            if round == rounds / 2 {
                engine.compact().unwrap();
            }
        }
    });
    assert_eq!(engine.verify().unwrap().problems, []);
}

#[test]
fn a_hot_key_costs_one_entry_on_disk() {
    let fs = SimFs::new();
    let world = World::new(Arc::new(fs), Path::new("/lsm"));
    let engine = LsmEngine::create(world.context()).unwrap();
    let mut history = History::default();
    history.push(OwnedOp::Put(b"a".to_vec(), b"first".to_vec()));
    for n in 0..500_u32 {
        history.push(OwnedOp::Put(b"hot".to_vec(), n.to_le_bytes().to_vec()));
    }
    history.push(OwnedOp::Put(b"z".to_vec(), b"last".to_vec()));
    apply(&engine, &history, 0);
    // A reader in the middle of the versions, in both directions.
    for published in [1, 100, 502] {
        world.snapshot_tracker.publish(SeqNo(published));
        let expected = history.at(published);
        check_all(&engine.view().unwrap(), &expected, "hot key");
    }
    engine.flush().unwrap();
    let stats = engine.stats();
    assert!(stats.entries_estimate <= stats.files + 2, "{stats:?}");
    check_all(&engine.view().unwrap(), &history.at(502), "hot key");
}

#[test]
fn compacting_what_is_compact_writes_nothing() {
    let fs = SimFs::new();
    let world = World::new(Arc::new(fs), Path::new("/lsm"));
    let engine = LsmEngine::create(world.context()).unwrap();
    let mut history = History::default();
    let mut random = Random::new(5);
    let grow = |history: &mut History, random: &mut Random| {
        let from = history.ops.len() as u64;
        (0..400).for_each(|_| history.push(random_op(random)));
        apply(&engine, history, from);
        world
            .snapshot_tracker
            .publish(SeqNo(history.ops.len() as u64));
    };
    let compact = || {
        let before = engine.stats().compactions;
        engine.compact().unwrap();
        engine.stats().compactions - before
    };
    assert_eq!(compact(), 0, "nothing is there");
    grow(&mut history, &mut random);
    assert_eq!(compact(), 1);
    assert_eq!(compact(), 0);
    check_all(&engine.view().unwrap(), &history.at(400), "compacted");

    grow(&mut history, &mut random);
    assert_eq!(compact(), 1, "there is more");
    // What a snapshot kept is dropped when it has gone, so the next time is not for nothing.
    let snapshot = world.snapshot_tracker.register();
    grow(&mut history, &mut random);
    assert_eq!(compact(), 1);
    assert_eq!(compact(), 1, "old versions may have become droppable");
    let _ = world.snapshot_tracker.unregister(snapshot);
    assert_eq!(compact(), 1);
    assert_eq!(compact(), 0);
    let expected = history.at(1200);
    assert_eq!(engine.stats().entries_estimate, expected.len() as u64);
    check_all(&engine.view().unwrap(), &expected, "compacted");
}

#[test]
fn read_only_changes_no_file() {
    let fs = SimFs::new();
    let mut world = World::new(Arc::new(fs.clone()), Path::new("/lsm"));
    let engine = LsmEngine::create(world.context()).unwrap();
    let mut history = History::default();
    let mut random = Random::new(3);
    (0..300).for_each(|_| history.push(random_op(&mut random)));
    apply(&engine, &history, 0);
    world.snapshot_tracker.publish(SeqNo(300));
    engine.flush().unwrap();
    drop(engine);
    // An orphan, which only a writer may remove; and a foreign file, which must stay.
    for name in ["TABLE-00000000000000ff", "notes.txt"] {
        fs.open(&world.dir.join(name), crate::fs::OpenMode::CreateNew)
            .unwrap();
    }
    let names = fs.read_dir(&world.dir).unwrap();
    world.read_only = true;
    let engine = LsmEngine::open(world.context()).unwrap();
    (0..3000).for_each(|_| history.push(random_op(&mut random)));
    apply(&engine, &history, engine.persisted_seq().0);
    world.snapshot_tracker.publish(SeqNo(3300));
    assert_eq!(engine.work_due(), None);
    assert_eq!(engine.pressure(), Pressure::None);
    assert!(matches!(engine.flush(), Err(Error::ReadOnly)));
    assert!(matches!(engine.compact(), Err(Error::ReadOnly)));
    check_all(&engine.view().unwrap(), &history.at(3300), "read-only");
    assert_eq!(fs.read_dir(&world.dir).unwrap(), names);
    drop(engine);
    world.read_only = false;
    let engine = LsmEngine::open(world.context()).unwrap();
    // Until the log was replayed, it may be a table of a bulk load.
    assert_eq!(fs.read_dir(&world.dir).unwrap(), names);
    engine.recovered().unwrap();
    let names = fs.read_dir(&world.dir).unwrap();
    assert!(names.contains(&"notes.txt".to_owned()));
    assert!(!names.contains(&"TABLE-00000000000000ff".to_owned()));
}

#[test]
fn pressure_rises_and_falls_without_writes() {
    let fs = SimFs::new();
    let world = World::new(Arc::new(fs), Path::new("/lsm"));
    let engine = LsmEngine::create(world.context()).unwrap();
    let mut history = History::default();
    let mut random = Random::new(4);
    let mut seen = Vec::new();
    while engine.pressure() != Pressure::Stop {
        history.push(random_op(&mut random));
        apply(&engine, &history, history.ops.len() as u64 - 1);
        world
            .snapshot_tracker
            .publish(SeqNo(history.ops.len() as u64));
        if let Pressure::Slow(by) = engine.pressure() {
            seen.push(by);
        }
    }
    assert!(seen.iter().all(|by| *by > 0.0 && *by <= 1.0));
    assert!(seen.len() > 10);
    while let Some(work) = engine.work_due() {
        assert!(engine.run_once(work).unwrap() || engine.work_due().is_none());
    }
    assert_eq!(engine.pressure(), Pressure::None);
}
