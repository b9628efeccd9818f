//! The engine against an ordered map, from seeds.

mod announcing;
mod estimates;
mod older_pages;
mod packs;
mod rewritten;
mod space;
mod values_apart;
mod views;
mod waiting;
mod writing;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;

use support::repair;

use super::{BTreeEngine, node};
use crate::cache::BlockCache;
use crate::engine::{
    Cursor, Engine, EngineContext, EngineHost, Pressure, Problem, ReadView, SnapshotTracker,
};
use crate::error::{Error, Result};
use crate::format::checksum::mix64;
use crate::fs::{Fs, OpenFiles, OpenMode, SimFs, StdFs};
use crate::options::{EngineKind, KeyspaceOptions, KeyspaceSettings};
use crate::resolve::Append;
use crate::testing::{FakeHost, Gate, Map, OverAtEnd, OwnedOp, Random, alone, appending};
use crate::types::{KeyspaceId, SeqNo, SequencedOp};

/// An engine on a file system of its own, and what it should hold.
struct Bench {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    options: KeyspaceOptions,
    use_mmap: bool,
    snapshot_tracker: Arc<SnapshotTracker>,
    host: Arc<FakeHost>,
    engine: Arc<dyn Engine>,
    seq: u64,
    map: Map,
    log: Vec<OwnedOp>,
    /// Some of the puts of its life are merges.
    merges: bool,
}

impl Bench {
    fn new(fs: Arc<dyn Fs>, dir: &Path, page_size: u32, use_mmap: bool) -> Self {
        fs.create_dir_all(dir).unwrap();
        if let Some(parent) = dir.parent() {
            fs.sync_dir(parent).unwrap();
        }
        let options = KeyspaceOptions::new(EngineKind::BTree)
            .page_size_bytes(page_size)
            .write_buffer_bytes(64 << 10);
        let snapshot_tracker = Arc::new(SnapshotTracker::default());
        let host = Arc::new(FakeHost::default());
        let context = context(&fs, dir, &options, &snapshot_tracker, &host, use_mmap);
        let engine = BTreeEngine::create(context).unwrap();
        Self {
            fs,
            dir: dir.to_path_buf(),
            options,
            use_mmap,
            snapshot_tracker,
            host,
            engine,
            seq: 0,
            map: Map::new(),
            log: Vec::new(),
            merges: false,
        }
    }

    fn in_memory(page_size: u32) -> (SimFs, Self) {
        let fs = SimFs::new();
        let bench = Self::new(Arc::new(fs.clone()), Path::new("/ks"), page_size, false);
        (fs, bench)
    }

    /// What an engine is given that opens the same directory on `fs`.
    fn context_on(&self, fs: &Arc<dyn Fs>, use_mmap: bool) -> EngineContext {
        context(
            fs,
            &self.dir,
            &self.options,
            &self.snapshot_tracker,
            &self.host,
            use_mmap,
        )
    }

    fn apply(&mut self, ops: Vec<OwnedOp>) {
        let sequenced: Vec<_> = ops
            .iter()
            .zip(self.seq + 1..)
            .map(|(op, seq)| SequencedOp::new(SeqNo(seq), op.borrow()))
            .collect();
        self.engine.prepare(&sequenced).unwrap();
        self.engine.apply(&sequenced).unwrap();
        self.seq += ops.len() as u64;
        self.snapshot_tracker.publish(SeqNo(self.seq));
        for op in &ops {
            op.apply(&mut self.map);
        }
        self.log.extend(ops);
    }

    /// A checkpoint, and what happens between its writing and its end. It fails if that says so.
    fn flush_meanwhile(&mut self, meanwhile: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        let (reached, gate_reached) = channel();
        let (decide, outcome) = channel();
        *self.host.gate.lock() = Some(Gate { reached, outcome });
        let (engine, host) = (Arc::clone(&self.engine), Arc::clone(&self.host));
        let flush = std::thread::spawn(move || {
            let result = engine.flush();
            host.gate.lock().take();
            result
        });
        // An error if there was nothing to write.
        if gate_reached.recv().is_ok() {
            decide.send(meanwhile(self)).unwrap();
        }
        flush.join().unwrap()
    }

    fn put(&mut self, key: &[u8], value: &[u8]) {
        self.apply(vec![OwnedOp::Put(key.to_vec(), value.to_vec())]);
    }

    /// What the operations up to `seq` leave.
    fn map_at(&self, seq: SeqNo) -> Map {
        let mut map = Map::new();
        for op in &self.log[..seq.0 as usize] {
            op.apply(&mut map);
        }
        map
    }

    /// Opens what `fs` holds in a new engine, which must hold exactly the operations that it says.
    fn recover(&self, fs: Arc<dyn Fs>) -> Self {
        let recovered = self.recover_unverified(fs);
        recovered.verify();
        recovered.check_all();
        recovered
    }

    fn recover_unverified(&self, fs: Arc<dyn Fs>) -> Self {
        let snapshot_tracker = Arc::new(SnapshotTracker::default());
        snapshot_tracker.publish(SeqNo(self.seq));
        let host = Arc::new(FakeHost::default());
        let context = context(
            &fs,
            &self.dir,
            &self.options,
            &snapshot_tracker,
            &host,
            self.use_mmap,
        );
        let engine = BTreeEngine::open(context).unwrap();
        let seq = engine.persisted_seq();
        assert!(seq.0 <= self.host.durable.load(Ordering::SeqCst), "E3");
        host.durable.store(seq.0, Ordering::SeqCst);
        Self {
            fs,
            dir: self.dir.clone(),
            options: self.options.clone(),
            use_mmap: self.use_mmap,
            snapshot_tracker,
            host,
            engine,
            seq: seq.0,
            map: self.map_at(seq),
            log: self.log[..seq.0 as usize].to_vec(),
            merges: self.merges,
        }
    }

    fn verify(&self) {
        let report = self.engine.verify().unwrap();
        assert!(report.is_clean(), "{:#?}", report.problems);
    }

    fn check_all(&self) {
        let view = self.engine.view().unwrap();
        check_scan(&view, &self.map);
    }

    fn check_get(&self, key: &[u8]) {
        let found = self.engine.get_value(key).unwrap();
        assert_eq!(
            found.as_deref(),
            self.map.get(key).map(Vec::as_slice),
            "key {key:?}"
        );
    }
}

fn context(
    fs: &Arc<dyn Fs>,
    dir: &Path,
    options: &KeyspaceOptions,
    snapshot_tracker: &Arc<SnapshotTracker>,
    host: &Arc<FakeHost>,
    use_mmap: bool,
) -> EngineContext {
    EngineContext {
        fs: Arc::clone(fs),
        open_files: Arc::new(OpenFiles::new(8)),
        values: crate::testing::no_values(fs),
        keep: Arc::<FakeHost>::default(),
        dir: dir.to_path_buf(),
        store_id: 77,
        keyspace: KeyspaceId(5),
        snapshot_tracker: Arc::clone(snapshot_tracker),
        cache: Arc::new(BlockCache::new(1 << 20)),
        options: Arc::new(KeyspaceSettings::new(
            &options.clone().with_defaults(),
            64 << 20,
        )),
        resolver: appending(Append),
        use_mmap,
        read_only: false,
        persisted_watermark: SeqNo::ZERO,
        host: Arc::clone(host) as Arc<dyn EngineHost>,
    }
}

fn scan(view: &Arc<dyn ReadView>) -> Map {
    let mut cursor = Arc::clone(view).cursor();
    let mut found = Map::new();
    cursor.seek_first().unwrap();
    while cursor.is_valid() {
        let (key, value) = cursor.entry().unwrap();
        let (key, value) = (key.to_vec(), value.to_vec());
        assert!(found.last_key_value().is_none_or(|(last, _)| *last < key));
        found.insert(key, value);
        cursor.next().unwrap();
    }
    found
}

fn check_scan(view: &Arc<dyn ReadView>, map: &Map) {
    let found = scan(view);
    if found != *map {
        let missing: Vec<_> = map.keys().filter(|key| !found.contains_key(*key)).collect();
        let extra: Vec<_> = found.keys().filter(|key| !map.contains_key(*key)).collect();
        panic!(
            "{} entries instead of {}; missing {missing:?}; extra {extra:?}",
            found.len(),
            map.len()
        );
    }
}

/// A walk with seeks, steps back and forth.
fn check_cursor(view: &Arc<dyn ReadView>, map: &Map, random: &mut Random, keys: u64) {
    let mut cursor: Box<dyn Cursor> = Arc::clone(view).cursor();
    let mut place: Option<Vec<u8>> = None;
    let first_from = |key: &[u8]| map.range(key.to_vec()..).next().map(|e| e.0.clone());
    let last_before = |key: &[u8]| map.range(..key.to_vec()).next_back().map(|e| e.0.clone());
    for _ in 0..60 {
        let key = some_key(random, keys);
        match (random.below(6), &place) {
            (0, _) => {
                cursor.seek(&key).unwrap();
                place = first_from(&key);
            }
            (1, _) => {
                cursor.seek_before(&key).unwrap();
                place = last_before(&key);
            }
            (2, Some(at)) => {
                cursor.prev().unwrap();
                place = last_before(at);
            }
            (_, Some(at)) => {
                cursor.next().unwrap();
                let mut after = at.clone();
                after.push(0);
                place = first_from(&after);
            }
            (2, None) => {
                cursor.seek_last().unwrap();
                place = map.last_key_value().map(|e| e.0.clone());
            }
            (_, None) => {
                cursor.seek_first().unwrap();
                place = map.first_key_value().map(|e| e.0.clone());
            }
        }
        assert_eq!(cursor.is_valid(), place.is_some());
        if let Some(at) = &place {
            assert_eq!(cursor.key(), at);
            let (key, value) = cursor.entry().unwrap();
            assert_eq!((key, value), (at.as_slice(), map[at].as_slice()));
        }
    }
}

fn some_key(random: &mut Random, keys: u64) -> Vec<u8> {
    let number = random.below(keys);
    match number {
        0 => Vec::new(),
        // A few keys that need jumbo nodes.
        1..=3 if keys > 100 => {
            let mut key = vec![b'k'; 1 + 21_844 * number as usize];
            key.push(number as u8);
            key
        }
        _ => {
            let spread = mix64(number);
            let mut key = format!("key-{:04x}", spread & 0xFFFF).into_bytes();
            key.resize(8 + (spread >> 20) as usize % 30, b'x');
            key
        }
    }
}

fn some_value(random: &mut Random, page_size: u32) -> Vec<u8> {
    let len = match random.below(40) {
        0 => random.below(4 * u64::from(page_size)),
        1..=3 => random.below(u64::from(page_size) / 2),
        _ => random.below(60),
    };
    let fill = random.next() as u8;
    vec![fill; len as usize]
}

fn some_op(random: &mut Random, keys: u64, page_size: u32) -> OwnedOp {
    let key = some_key(random, keys);
    match random.below(100) {
        0 => {
            let other = some_key(random, keys);
            let (start, end) = if key < other {
                (key, other)
            } else {
                (other, key)
            };
            let end = if random.one_in(8) { None } else { Some(end) };
            OwnedOp::DeleteRange(start, end)
        }
        1..=3 => {
            let mut end = key.clone();
            end.push(b'x');
            OwnedOp::DeleteRange(key, Some(end))
        }
        4..=30 => OwnedOp::Delete(key),
        _ => OwnedOp::Put(key, some_value(random, page_size)),
    }
}

/// One long random life.
fn live(seed: u64, mut bench: Bench, page_size: u32, steps: u64) -> Bench {
    let mut random = Random(seed);
    let keys = [30, 300, 3000][random.below(3) as usize];
    let mut snapshots: Vec<(Arc<dyn ReadView>, Map)> = Vec::new();
    for _ in 0..steps {
        match random.below(100) {
            0..=69 => {
                let count = if random.one_in(4) {
                    random.below(40) + 1
                } else {
                    1
                };
                let some = |_| {
                    let op = some_op(&mut random, keys, page_size);
                    if bench.merges {
                        op.or_merge(&mut random)
                    } else {
                        op
                    }
                };
                let ops = (0..count).map(some).collect();
                bench.apply(ops);
            }
            70..=79 => {
                let key = some_key(&mut random, keys);
                bench.check_get(&key);
                let count = random.below(40);
                let keys: Vec<_> = (0..count).map(|_| some_key(&mut random, keys)).collect();
                let borrowed: Vec<_> = keys.iter().map(Vec::as_slice).collect();
                let found = bench.engine.multi_get(&borrowed).unwrap();
                for (key, value) in keys.iter().zip(found) {
                    assert_eq!(value.as_deref(), bench.map.get(key).map(Vec::as_slice));
                }
            }
            80..=86 => {
                bench.engine.flush().unwrap();
                assert_eq!(bench.engine.persisted_seq().0, bench.seq);
                assert_eq!(bench.engine.oldest_unpersisted(), None);
            }
            87..=90 => {
                let view = bench.engine.view().unwrap();
                check_cursor(&view, &bench.map, &mut random, keys);
            }
            91..=93 if snapshots.len() < 4 => {
                let view = bench.engine.snapshot_view(SeqNo(bench.seq)).unwrap();
                snapshots.push((view, bench.map.clone()));
            }
            94 if !snapshots.is_empty() => {
                let (view, map) =
                    snapshots.swap_remove(random.below(snapshots.len() as u64) as usize);
                check_scan(&view, &map);
                let key = some_key(&mut random, keys);
                let found = view.get_value(&key).unwrap();
                assert_eq!(found.as_deref(), map.get(&key).map(Vec::as_slice));
            }
            95 => bench.verify(),
            96 if random.one_in(3) => {
                bench.engine.compact().unwrap();
                bench.verify();
            }
            97 => bench.check_all(),
            98 if random.one_in(3) => {
                for (view, map) in snapshots.drain(..) {
                    check_scan(&view, &map);
                }
                let fs = Arc::clone(&bench.fs);
                bench = bench.recover(fs);
            }
            _ => {}
        }
    }
    for (view, map) in snapshots.drain(..) {
        check_scan(&view, &map);
    }
    bench.check_all();
    bench.verify();
    bench.engine.flush().unwrap();
    bench.verify();
    bench
}

/// Runs `test` with a few seeds; names the one that failed.
fn with_seeds(count: u64, test: impl Fn(u64)) {
    for seed in 0..count {
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| test(seed)));
        if let Err(panic) = outcome {
            eprintln!("failed with seed {seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn agrees_with_an_ordered_map_in_memory() {
    with_seeds(12, |seed| {
        let page_size = [1024, 2048, 4096, 16_384][seed as usize % 4];
        let (_, bench) = Bench::in_memory(page_size);
        live(seed, bench, page_size, 500);
    });
}

#[test]
fn merges_agree_with_an_ordered_map() {
    with_seeds(12, |seed| {
        let page_size = [1024, 2048, 4096, 16_384][seed as usize % 4];
        let (_, mut bench) = Bench::in_memory(page_size);
        bench.merges = true;
        live(seed + 3000, bench, page_size, 500);
    });
}

#[test]
fn agrees_with_an_ordered_map_through_maps() {
    with_seeds(8, |seed| {
        let page_size = [1024, 4096, 16_384][seed as usize % 3];
        let dir = tempfile::tempdir().unwrap();
        let bench = Bench::new(
            Arc::new(StdFs::new()),
            &dir.path().join("ks"),
            page_size,
            true,
        );
        live(seed + 1000, bench, page_size, 500);
    });
}

#[test]
fn a_crash_leaves_the_last_checkpoint() {
    with_seeds(12, |seed| {
        let mut random = Random(seed + 2000);
        let (fs, mut bench) = Bench::in_memory(1024);
        for step in 0..120 {
            let ops = (0..random.below(20) + 1)
                .map(|_| some_op(&mut random, 300, 1024))
                .collect();
            bench.apply(ops);
            if random.one_in(4) {
                bench.engine.flush().unwrap();
            }
            if random.one_in(5) {
                let persisted = bench.engine.persisted_seq();
                let after = bench.recover(Arc::new(fs.crash()));
                assert_eq!(after.seq, persisted.0);
                let after = bench.recover(Arc::new(fs.crash_keeping(seed << 20 | step)));
                assert_eq!(after.seq, persisted.0);
            }
        }
    });
}

#[test]
fn any_failing_operation_of_a_checkpoint_leaves_a_tree_that_recovers() {
    for n in 0..40 {
        let (fs, mut bench) = Bench::in_memory(1024);
        let mut random = Random(n);
        for _ in 0..3 {
            let ops = (0..60).map(|_| some_op(&mut random, 300, 1024)).collect();
            bench.apply(ops);
            bench.engine.flush().unwrap();
        }
        let ops = (0..60).map(|_| some_op(&mut random, 300, 1024)).collect();
        bench.apply(ops);
        let before = bench.engine.persisted_seq();
        fs.fail_once_after(n, io::ErrorKind::StorageFull);
        let failed = bench.engine.flush().is_err();
        fs.heal();
        bench.check_all();
        for seed in 0..4 {
            let after = bench.recover(Arc::new(fs.crash_keeping(seed)));
            assert!(after.seq == before.0 || after.seq == bench.seq);
            assert!(failed || after.seq == bench.seq);
        }
        // Writing goes on; a second attempt succeeds unless a sync or a flip had failed.
        bench.put(b"after", b"it");
        let again = bench.engine.flush();
        bench.check_all();
        if again.is_ok() {
            bench.verify();
            let after = bench.recover(Arc::new(fs.crash()));
            assert_eq!(after.seq, bench.seq);
        }
    }
}

#[test]
fn changes_made_during_a_checkpoint_are_kept_apart() {
    with_seeds(60, |seed| {
        let (fs, mut bench) = Bench::in_memory(1024);
        let mut random = Random(seed);
        let keys = [60, 600, 3000][random.below(3) as usize];
        let mut snapshots: Vec<(Arc<dyn ReadView>, Map)> = Vec::new();
        let mut some_ops = move |count: u64| -> Vec<_> {
            (0..random.below(count) + 1)
                .map(|_| some_op(&mut random, keys, 1024))
                .collect()
        };
        let mut random = Random(!seed);
        for _ in 0..12 {
            bench.apply(some_ops(200));
            let frozen = bench.seq;
            let fails = random.one_in(4);
            let flushed = bench.flush_meanwhile(|bench| {
                for _ in 0..random.below(4) {
                    bench.apply(some_ops(60));
                    bench.check_all();
                    if random.one_in(3) {
                        let view = bench.engine.snapshot_view(SeqNo(bench.seq)).unwrap();
                        snapshots.push((view, bench.map.clone()));
                    }
                }
                for _ in 0..20 {
                    bench.check_get(&some_key(&mut random, keys));
                }
                if fails {
                    return Err(Error::invalid("the log could not be synced"));
                }
                Ok(())
            });
            assert_eq!(flushed.is_err(), fails);
            if !fails {
                assert_eq!(bench.engine.persisted_seq().0, frozen);
            }
            for _ in 0..20 {
                bench.check_get(&some_key(&mut random, keys));
            }
            bench.check_all();
            bench.verify();
            let durable = bench.engine.persisted_seq().0;
            assert_eq!(bench.recover(Arc::new(fs.crash())).seq, durable);
            for (view, map) in &snapshots {
                check_scan(view, map);
            }
            if snapshots.len() > 3 {
                snapshots.remove(0);
            }
        }
    });
}

#[test]
fn endless_overwriting_keeps_the_file_small() {
    alone(
        "btree::tests::endless_overwriting_keeps_the_file_small",
        || {
            let (_, mut bench) = Bench::in_memory(1024);
            let mut random = Random(9);
            for round in 0..60 {
                for _ in 0..10 {
                    let ops = (0..20)
                        .map(|_| OwnedOp::Put(some_key(&mut random, 90), vec![round; 100]))
                        .collect();
                    bench.apply(ops);
                }
                bench.engine.flush().unwrap();
            }
            bench.verify();
            let stats = bench.engine.stats();
            assert!(stats.disk_bytes < 120 << 10, "{stats:?}");
            let everything = OwnedOp::DeleteRange(Vec::new(), None);
            bench.apply(vec![everything]);
            bench.engine.compact().unwrap();
            assert!(
                bench.engine.stats().disk_bytes < 12 << 10,
                "{:?}",
                bench.engine.stats()
            );
            bench.verify();
        },
    );
}

#[test]
fn a_snapshot_holds_its_pages_and_no_more() {
    alone(
        "btree::tests::a_snapshot_holds_its_pages_and_no_more",
        || {
            let (_, mut bench) = Bench::in_memory(1024);
            for i in 0..500_u32 {
                bench.put(&i.to_be_bytes(), &[1; 50]);
            }
            bench.engine.flush().unwrap();
            let view = bench.engine.snapshot_view(SeqNo(bench.seq)).unwrap();
            let map = bench.map.clone();
            for round in 0..20 {
                for i in 0..500_u32 {
                    bench.put(&i.to_be_bytes(), &[round; 50]);
                }
                bench.engine.flush().unwrap();
            }
            check_scan(&view, &map);
            bench.verify();
            drop(view);
            let held = bench.engine.stats().disk_bytes;
            bench.engine.compact().unwrap();
            bench.verify();
            bench.check_all();
            assert!(bench.engine.stats().disk_bytes < held / 2);
        },
    );
}

#[test]
fn readers_and_scans_see_whole_batches_while_writing_and_checkpoints_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut bench = Bench::new(Arc::new(StdFs::new()), &dir.path().join("ks"), 1024, true);
    let keys: Vec<Vec<u8>> = (0..400_u32).map(|i| i.to_be_bytes().to_vec()).collect();
    let write_all = |bench: &mut Bench, round: u64| {
        let ops = keys
            .iter()
            .map(|key| OwnedOp::Put(key.clone(), round.to_le_bytes().to_vec()))
            .collect();
        bench.apply(ops);
    };
    write_all(&mut bench, 0);
    let stop = AtomicBool::new(false);
    let engine = Arc::clone(&bench.engine);
    std::thread::scope(|scope| {
        let _over = OverAtEnd(&stop);
        scope.spawn(|| {
            let mut last = 0;
            while !stop.load(Ordering::Relaxed) {
                for key in &keys {
                    let value = engine.get_value(key).unwrap().unwrap();
                    let round = u64::from_le_bytes((*value).try_into().unwrap());
                    assert!(round >= last, "a later read saw an earlier batch");
                    last = round;
                }
            }
        });
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let found = scan(&engine.view().unwrap());
                assert_eq!(found.len(), keys.len());
                let first = found.values().next().unwrap();
                assert!(
                    found.values().all(|value| value == first),
                    "part of a batch"
                );
                let some: Vec<_> = keys.iter().step_by(37).map(Vec::as_slice).collect();
                let values = engine.multi_get(&some).unwrap();
                assert!(
                    values.iter().all(|value| *value == values[0]),
                    "part of a batch"
                );
            }
        });
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                engine.flush().unwrap();
            }
        });
        for round in 1..150 {
            write_all(&mut bench, round);
        }
    });
    bench.verify();
    bench.check_all();
}

#[test]
fn damage_is_reported() {
    let (fs, mut bench) = Bench::in_memory(1024);
    for i in 0..200_u32 {
        bench.put(&i.to_be_bytes(), &[7; 40]);
    }
    bench.put(b"large", &vec![9; 5000]);
    bench.engine.flush().unwrap();
    let path = bench.dir.join(super::file::new_file::FILE_NAME);
    let pages = bench.engine.stats().disk_bytes / 1024;
    for page in 0..pages {
        let image = fs.crash();
        let file = image.open(&path, OpenMode::ReadWrite).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, page * 1024 + 90).unwrap();
        byte[0] ^= 0x10;
        file.write_all_at(&byte, page * 1024 + 90).unwrap();
        let fs: Arc<dyn Fs> = Arc::new(image);
        let host = Arc::new(FakeHost::default());
        let snapshot_tracker = Arc::new(SnapshotTracker::default());
        snapshot_tracker.publish(SeqNo(bench.seq));
        let context = context(
            &fs,
            &bench.dir,
            &bench.options,
            &snapshot_tracker,
            &host,
            false,
        );
        match BTreeEngine::open(context) {
            Err(error) => assert!(error.is_corruption(), "{error}"),
            Ok(engine) => {
                // Nothing that is read is wrong, whether or not it can be read.
                for (key, value) in &bench.map {
                    match engine.get_value(key) {
                        Ok(found) => assert_eq!(found.as_deref(), Some(value.as_slice())),
                        Err(error) => assert!(error.is_corruption(), "{error}"),
                    }
                }
                engine.verify().unwrap();
            }
        }
    }
}

#[test]
fn both_meta_pages_are_needed_to_lose_the_tree() {
    let (fs, mut bench) = Bench::in_memory(1024);
    bench.put(b"a", b"1");
    bench.engine.flush().unwrap();
    let path = bench.dir.join(super::file::new_file::FILE_NAME);
    let spoil = |image: &SimFs, page: u64| {
        let file = image.open(&path, OpenMode::ReadWrite).unwrap();
        file.write_all_at(&[0xFF; 16], page * 1024 + 40).unwrap();
    };
    for page in 0..2 {
        let image = fs.crash();
        spoil(&image, page);
        // Opening makes it whole, so that the other one may be damaged next.
        let after = bench.recover_unverified(Arc::new(image.clone()));
        assert!(after.engine.verify().unwrap().is_clean());
        after.check_all();
        assert_eq!(after.seq, bench.seq);
        spoil(&image, 1 - page);
        let snapshot_tracker = &after.snapshot_tracker;
        let again = context(
            &after.fs,
            &after.dir,
            &after.options,
            snapshot_tracker,
            &after.host,
            false,
        );
        let again = BTreeEngine::open(again).unwrap();
        assert_eq!(again.persisted_seq().0, after.seq);
    }
    let image = fs.crash();
    spoil(&image, 0);
    spoil(&image, 1);
    let fs: Arc<dyn Fs> = Arc::new(image);
    let context = bench.context_on(&fs, false);
    assert!(BTreeEngine::open(context).unwrap_err().is_corruption());
}

#[test]
fn a_tree_that_is_open_read_only_replays_in_memory() {
    let (fs, mut bench) = Bench::in_memory(1024);
    let mut random = Random(4);
    for _ in 0..10 {
        let ops = (0..60).map(|_| some_op(&mut random, 300, 1024)).collect();
        bench.apply(ops);
    }
    bench.engine.flush().unwrap();
    let path = bench.dir.join(super::file::new_file::FILE_NAME);
    let bytes_of = |fs: &SimFs| {
        let file = fs.open(&path, OpenMode::Read).unwrap();
        let mut bytes = vec![0; file.len().unwrap() as usize];
        file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    };
    let image = fs.crash();
    let before = bytes_of(&image);
    let shared: Arc<dyn Fs> = Arc::new(image.clone());
    let read_only = EngineContext {
        read_only: true,
        ..bench.context_on(&shared, false)
    };
    let refused = EngineContext {
        dir: PathBuf::from("/other"),
        ..read_only.clone()
    };
    assert!(matches!(BTreeEngine::create(refused), Err(Error::ReadOnly)));
    bench.fs = shared;
    bench.engine = BTreeEngine::open(read_only).unwrap();
    // More than the write buffer: nothing may be asked of background work that cannot be done.
    for _ in 0..40 {
        let ops = (0..60).map(|_| some_op(&mut random, 300, 1024)).collect();
        bench.apply(ops);
        assert_eq!(bench.engine.work_due(), None);
        assert_eq!(bench.engine.pressure(), Pressure::None);
    }
    bench.check_all();
    bench.engine.flush().unwrap();
    bench.engine.compact().unwrap();
    bench.verify();
    bench.check_all();
    assert!(bytes_of(&image) == before, "the file was changed");
}

/// Pages whose checksums are right and whose content is not: made by an attacker who knows the
/// format, or by a fault before the checksum. Everything either works or says that the file is
/// damaged.
#[test]
fn hostile_pages_with_right_checksums_are_refused_or_harmless() {
    let (fs, mut bench) = Bench::in_memory(1024);
    let mut random = Random(11);
    for i in 0..600_u32 {
        bench.put(&i.to_be_bytes(), &vec![7; random.below(60) as usize]);
    }
    bench.put(b"large", &vec![9; 5000]);
    bench.engine.flush().unwrap();
    bench.engine.compact().unwrap();
    let path = bench.dir.join(super::file::new_file::FILE_NAME);
    let pages = bench.engine.stats().disk_bytes / 1024;
    with_seeds(300, |seed| {
        let mut random = Random(seed);
        let image = fs.crash();
        let file = image.open(&path, OpenMode::ReadWrite).unwrap();
        for _ in 0..=random.below(3) {
            let page = 2 + random.below(pages - 2);
            let mut bytes = vec![0; 1024];
            file.read_exact_at(&mut bytes, page * 1024).unwrap();
            for _ in 0..=random.below(4) {
                let limit = [64, 300, 1024][random.below(3) as usize];
                bytes[random.below(limit) as usize] = random.next() as u8;
            }
            file.write_all_at(&bytes, page * 1024).unwrap();
        }
        let mut bytes = vec![0; file.len().unwrap() as usize];
        file.read_exact_at(&mut bytes, 0).unwrap();
        let owner = repair::Owner {
            store: 77,
            keyspace: 5,
        };
        repair::tree(&mut bytes, owner, 1024);
        file.write_all_at(&bytes, 0).unwrap();
        let fs: Arc<dyn Fs> = Arc::new(image);
        let snapshot_tracker = Arc::new(SnapshotTracker::default());
        snapshot_tracker.publish(SeqNo(bench.seq));
        let host = Arc::new(FakeHost::default());
        let context = context(
            &fs,
            &bench.dir,
            &bench.options,
            &snapshot_tracker,
            &host,
            false,
        );
        let engine = match BTreeEngine::open(context) {
            Ok(engine) => engine,
            Err(error) => return assert!(error.is_corruption(), "{error}"),
        };
        let harmless = |result: Result<()>| match result {
            Ok(()) => {}
            Err(error) => assert!(error.is_corruption(), "{error}"),
        };
        // The repairs lead behind the fingerprints.
        let problems = engine.verify().unwrap().problems;
        let stopped = |problem: &Problem| problem.what.contains("fingerprint");
        assert!(!problems.iter().any(stopped), "{problems:#?}");
        engine.stats();
        for i in (0..600_u32).step_by(7) {
            harmless(engine.get_value(&i.to_be_bytes()).map(drop));
        }
        harmless(engine.view().map(|view| {
            let mut cursor = view.cursor();
            let mut result = cursor.seek_first();
            let mut left = 10_000;
            while result.is_ok() && cursor.is_valid() && left > 0 {
                result = cursor.entry().map(drop).and_then(|()| cursor.next());
                left -= 1;
            }
            harmless(result);
        }));
        for step in 0..20 {
            let op = some_op(&mut random, 600, 1024);
            let seq = SeqNo(bench.seq + step + 1);
            let ops = [SequencedOp::new(seq, op.borrow())];
            let applied = engine.prepare(&ops).and_then(|()| engine.apply(&ops));
            snapshot_tracker.publish(seq);
            if applied.is_err() {
                return harmless(applied);
            }
        }
        harmless(engine.flush());
        harmless(engine.compact());
    });
}

#[test]
#[ignore = "needs a gigabyte of memory and some seconds"]
fn a_value_of_the_greatest_length_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let fs: Arc<dyn Fs> = Arc::new(StdFs::new());
    let mut bench = Bench::new(fs, &dir.path().join("ks"), 16 << 10, true);
    let value: Vec<u8> = (0..256_u32 << 20).map(|i| (i / 251) as u8).collect();
    bench.put(b"small", b"1");
    bench.put(b"great", &value);
    bench.check_get(b"great");
    bench.engine.flush().unwrap();
    bench.check_get(b"great");
    bench.verify();
    let fs = Arc::clone(&bench.fs);
    let mut bench = bench.recover(fs);
    bench.apply(vec![OwnedOp::Delete(b"great".to_vec())]);
    bench.engine.compact().unwrap();
    bench.check_all();
    assert!(bench.engine.stats().disk_bytes < 1 << 20);
}

#[test]
fn figures_tell_levels_and_pages_read() {
    let (_, mut bench) = Bench::in_memory(1024);
    for i in 0..3000_u32 {
        bench.put(&i.to_be_bytes(), &[1; 50]);
    }
    bench.engine.flush().unwrap();
    bench.engine.refresh_stats();
    let stats = bench.engine.stats();
    assert_eq!(stats.levels.len(), stats.height as usize, "{stats:?}");
    assert_eq!(stats.levels[0].files, 1);
    let pages: u64 = stats.levels.iter().map(|level| level.files).sum();
    assert!(pages * 1024 + stats.free_bytes <= stats.disk_bytes);
    assert!(pages * 1024 > 3000 * 54);
    for i in 0..100_u32 {
        bench.check_get(&i.to_be_bytes());
    }
    let read = bench.engine.stats().blocks_read - stats.blocks_read;
    assert_eq!(read, 100 * u64::from(stats.height));
}
