//! What takes long holds up nothing else: user code, walks over many pages, compaction,
//! verification, large batches.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::time::Duration;

use parking_lot::Mutex;

use super::{Bench, OwnedOp};
use crate::btree::BTreeEngine;
use crate::btree::bulk_load::HasTree;
use crate::btree::memory::node::Child;
use crate::cache::BlockCache;
use crate::engine::{Engine, EngineContext, Pressure, Work};
use crate::error::Result;
use crate::fs::{File, Fs, FsLock, LockMode, OpenMode, SimFs};
use crate::testing::{FakeHost, alone};
use crate::types::{SeqNo, SequencedOp};

/// How long the tests wait for what should not wait. Only a failure takes so long.
const LONG: Duration = Duration::from_secs(30);

const PAGE_SIZE: u32 = 1024;

type Hook = Arc<dyn Fn(u64, usize) + Send + Sync>;

/// A file system that calls functions with place and length before each read, and each write.
#[derive(Clone)]
pub(super) struct HookedFs {
    inner: SimFs,
    on_read: Arc<Mutex<Option<Hook>>>,
    on_write: Arc<Mutex<Option<Hook>>>,
}

impl fmt::Debug for HookedFs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HookedFs").finish_non_exhaustive()
    }
}

impl HookedFs {
    pub(super) fn new() -> Self {
        Self {
            inner: SimFs::new(),
            on_read: Arc::default(),
            on_write: Arc::default(),
        }
    }

    fn on_write(&self, hook: impl Fn() + Send + Sync + 'static) {
        *self.on_write.lock() = Some(Arc::new(move |_, _| hook()));
    }

    pub(super) fn on_read(&self, hook: impl Fn(u64, usize) + Send + Sync + 'static) {
        *self.on_read.lock() = Some(Arc::new(hook));
    }

    /// Calls `hook` before the first read for which `is_meant` holds.
    fn on_first_read(
        &self,
        is_meant: impl Fn(u64, usize) -> bool + Send + Sync + 'static,
        hook: impl Fn() + Send + Sync + 'static,
    ) {
        let done = AtomicBool::new(false);
        self.on_read(move |offset, len| {
            if is_meant(offset, len) && !done.swap(true, Ordering::SeqCst) {
                hook();
            }
        });
    }

    /// Counts reads until that is forgotten.
    fn count_reads(&self) -> Arc<AtomicU64> {
        let reads = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&reads);
        self.on_read(move |_, _| {
            counter.fetch_add(1, Ordering::SeqCst);
        });
        reads
    }

    pub(super) fn forget(&self) {
        self.on_read.lock().take();
        self.on_write.lock().take();
    }
}

impl Fs for HookedFs {
    fn open(&self, path: &Path, mode: OpenMode) -> Result<Arc<dyn File>> {
        Ok(Arc::new(HookedFile {
            inner: self.inner.open(path, mode)?,
            on_read: Arc::clone(&self.on_read),
            on_write: Arc::clone(&self.on_write),
        }))
    }

    fn create_dir_all(&self, path: &Path) -> Result<()> {
        self.inner.create_dir_all(path)
    }

    fn read_dir(&self, path: &Path) -> Result<Vec<String>> {
        self.inner.read_dir(path)
    }

    fn exists(&self, path: &Path) -> Result<bool> {
        self.inner.exists(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.inner.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> Result<()> {
        self.inner.remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> Result<()> {
        self.inner.remove_dir(path)
    }

    fn sync_dir(&self, path: &Path) -> Result<()> {
        self.inner.sync_dir(path)
    }

    fn lock(&self, path: &Path, mode: LockMode) -> Result<Box<dyn FsLock>> {
        self.inner.lock(path, mode)
    }
}

struct HookedFile {
    inner: Arc<dyn File>,
    on_read: Arc<Mutex<Option<Hook>>>,
    on_write: Arc<Mutex<Option<Hook>>>,
}

impl fmt::Debug for HookedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl File for HookedFile {
    fn path(&self) -> &Path {
        self.inner.path()
    }

    fn len(&self) -> Result<u64> {
        self.inner.len()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let hook = self.on_read.lock().clone();
        if let Some(hook) = hook {
            hook(offset, buf.len());
        }
        self.inner.read_exact_at(buf, offset)
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        let hook = self.on_write.lock().clone();
        if let Some(hook) = hook {
            hook(offset, buf.len());
        }
        self.inner.write_all_at(buf, offset)
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.inner.set_len(len)
    }

    fn sync_data(&self) -> Result<()> {
        self.inner.sync_data()
    }
}

/// A bench whose reads can be watched, and what watches them.
fn hooked() -> (HookedFs, Bench) {
    let fs = HookedFs::new();
    let bench = Bench::new(Arc::new(fs.clone()), Path::new("/ks"), PAGE_SIZE, false);
    (fs, bench)
}

/// Opens the flushed tree again, with a cache that holds nothing.
pub(super) fn reopen_cold(bench: &mut Bench) {
    bench.engine.flush().unwrap();
    bench.host = Arc::new(FakeHost::default());
    let context = EngineContext {
        cache: Arc::new(BlockCache::new(1)),
        ..bench.context_on(&bench.fs, false)
    };
    bench.engine = BTreeEngine::open(context).unwrap();
}

/// Runs `work` on another thread; true if it ends.
fn ends(work: impl FnOnce() + Send + 'static) -> bool {
    let (over, is_over) = channel();
    std::thread::spawn(move || {
        work();
        let _ = over.send(());
    });
    is_over.recv_timeout(LONG).is_ok()
}

fn key(number: u32) -> Vec<u8> {
    number.to_be_bytes().to_vec()
}

#[test]
fn user_code_that_reads_a_value_runs_under_no_lock_and_no_pin() {
    alone(
        "btree::tests::waiting::user_code_that_reads_a_value_runs_under_no_lock_and_no_pin",
        || {
            let (_, mut bench) = Bench::in_memory(PAGE_SIZE);
            let long = vec![7; 5000];
            bench.put(b"a", b"short");
            bench.put(b"b", &long);
            // In memory, in the file, and changed over the file.
            for round in 0..3 {
                for (key, value) in [(b"a", b"short".as_slice()), (b"b", &long)] {
                    let engine = Arc::clone(&bench.engine);
                    let mut calls = 0;
                    let mut read = |bytes: &[u8]| {
                        calls += 1;
                        assert!(!crossbeam_epoch::is_pinned(), "round {round}");
                        assert_eq!(bytes, value);
                        // What the value lies in changes, and its pages are freed and reused.
                        for _ in 0..4 {
                            bench.put(key, b"other");
                            bench.engine.flush().unwrap();
                        }
                        assert_eq!(bytes, value);
                        let mut nested = Vec::new();
                        let found = bench
                            .engine
                            .get(key, &mut |bytes| nested = bytes.to_vec())
                            .unwrap();
                        assert!(found && nested == b"other");
                        bench.put(key, value);
                    };
                    assert!(engine.get(key, &mut read).unwrap());
                    assert_eq!(calls, 1);

                    let view = bench.engine.view().unwrap();
                    let mut read = |bytes: &[u8]| {
                        assert!(!crossbeam_epoch::is_pinned(), "round {round}");
                        bench.put(key, b"other");
                        bench.engine.flush().unwrap();
                        assert_eq!(bytes, value);
                        bench.put(key, value);
                    };
                    assert!(view.get(key, &mut read).unwrap());
                    assert_eq!(view.get_value(key).unwrap().as_deref(), Some(value));
                }
                match round {
                    0 => bench.engine.flush().unwrap(),
                    _ => bench.put(b"c", b"a change"),
                }
            }
        },
    );
}

/// A pin lets the epoch advance once at most; garbage is freed after it has advanced twice.
#[test]
fn a_checkpoint_that_walks_a_range_that_was_cut_off_lets_memory_be_freed() {
    alone(
        "btree::tests::waiting::\
         a_checkpoint_that_walks_a_range_that_was_cut_off_lets_memory_be_freed",
        || {
            let (fs, mut bench) = hooked();
            for chunk in 0..20_u32 {
                let ops = (0..100).map(|i| OwnedOp::Put(key(chunk * 100 + i), vec![1; 100]));
                bench.apply(ops.collect());
            }
            reopen_cold(&mut bench);
            bench.apply(vec![OwnedOp::DeleteRange(key(5), Some(key(1995)))]);

            let freed = Arc::new(AtomicBool::new(false));
            let (reads, freed_at) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
            let guard = crossbeam_epoch::pin();
            let mark = Arc::clone(&freed);
            guard.defer(move || mark.store(true, Ordering::SeqCst));
            guard.flush();
            drop(guard);
            let (count, at) = (Arc::clone(&reads), Arc::clone(&freed_at));
            fs.on_read(move |_, _| {
                let number = count.fetch_add(1, Ordering::SeqCst) + 1;
                crossbeam_epoch::pin().flush();
                if freed.load(Ordering::SeqCst) {
                    let _ = at.compare_exchange(0, number, Ordering::SeqCst, Ordering::SeqCst);
                }
            });
            bench.engine.flush().unwrap();
            fs.forget();
            let (reads, freed_at) = (
                reads.load(Ordering::SeqCst),
                freed_at.load(Ordering::SeqCst),
            );
            assert!(reads > 150, "{reads} reads");
            assert!(
                (1..100).contains(&freed_at),
                "freed at read {freed_at} of {reads}"
            );
            bench.check_all();
            bench.verify();
        },
    );
}

/// What a thread had replaced waited in a list of that thread until it wrote more, an old root
/// among it, and with that every leaf of its time: ten idle threads kept trees of 80 MiB.
#[test]
fn a_thread_that_writes_no_more_keeps_no_tree_of_its_time() {
    alone(
        "btree::tests::waiting::a_thread_that_writes_no_more_keeps_no_tree_of_its_time",
        || {
            let fs: Arc<dyn Fs> = Arc::new(SimFs::new());
            let mut bench = Bench::new(Arc::clone(&fs), Path::new("/ks"), PAGE_SIZE, false);
            let engine = BTreeEngine::with_no_file(bench.context_on(&fs, false)).unwrap();
            bench.engine = Arc::clone(&engine) as _;
            for i in 0..400 {
                bench.put(&key(i), &[1; 100]);
            }
            let root = {
                let guard = crossbeam_epoch::pin();
                let Child::Inner(root) = engine.tree().shared.root.load(&guard).to_owned() else {
                    panic!("one leaf")
                };
                Arc::downgrade(&root)
            };
            let bench = Mutex::new(bench);
            // Nodes are replaced where a view looks on.
            let put_beside_a_view = |number: u32| {
                let mut bench = bench.lock();
                let _view = bench.engine.view().unwrap();
                bench.put(&key(number), &[2; 100]);
            };
            let (end, ended) = channel::<()>();
            let (wrote, written) = channel();
            std::thread::scope(|scope| {
                let put = &put_beside_a_view;
                scope.spawn(move || {
                    put(7);
                    wrote.send(()).unwrap();
                    let _ = ended.recv();
                });
                written.recv().unwrap();
                (0..100).for_each(put_beside_a_view);
                for _ in 0..100 {
                    crossbeam_epoch::pin().flush();
                }
                let is_kept = root.upgrade().is_some();
                drop(end);
                assert!(!is_kept);
            });
        },
    );
}

#[test]
fn verification_holds_up_no_checkpoint() {
    let (fs, mut bench) = hooked();
    for i in 0..400 {
        bench.put(&key(i), &[1; 100]);
    }
    bench.put(b"long", &[2; 9000]);
    reopen_cold(&mut bench);
    for i in 0..400 {
        bench.put(&key(i), &[3; 110]);
    }
    let (engine, ended) = (Arc::clone(&bench.engine), Arc::new(AtomicBool::new(false)));
    let result = Arc::clone(&ended);
    fs.on_first_read(
        |offset, _| offset >= 2 * u64::from(PAGE_SIZE),
        move || {
            let engine = Arc::clone(&engine);
            let flushed = ends(move || engine.flush().unwrap());
            result.store(flushed, Ordering::SeqCst);
        },
    );
    // What was asked about is the file's tree at the moment of asking, whole.
    bench.verify();
    fs.forget();
    assert!(
        ended.load(Ordering::SeqCst),
        "a checkpoint waited for verification"
    );
    assert_eq!(bench.engine.persisted_seq().0, bench.seq);
    bench.verify();
    bench.check_all();
}

/// Takes a number for [`delete_nothing`].
fn delete_later(bench: &mut Bench) -> SeqNo {
    bench.seq += 1;
    bench.log.push(OwnedOp::Delete(b"none".to_vec()));
    bench.snapshot_tracker.publish(SeqNo(bench.seq));
    SeqNo(bench.seq)
}

/// A commit that comes while the test's own thread is busy.
fn delete_nothing(engine: &dyn Engine, seq: SeqNo) {
    let op = OwnedOp::Delete(b"none".to_vec());
    let op = op.borrow();
    engine.apply(&[SequencedOp::new(seq, op)]).unwrap();
}

/// A file of which half is free: long values, of which those at the end are left.
fn half_free() -> (HookedFs, Bench) {
    half_free_of(20_000)
}

/// The same with values of `len` bytes.
fn half_free_of(len: usize) -> (HookedFs, Bench) {
    let (fs, mut bench) = hooked();
    for i in 0..300_u32 {
        bench.put(&key(i), &vec![i as u8; len]);
    }
    // And enough leaves for several branches.
    let small = (1000..3000_u32).map(|i| OwnedOp::Put(key(i), vec![i as u8; 100]));
    bench.apply(small.collect());
    bench.engine.flush().unwrap();
    bench.apply(vec![OwnedOp::DeleteRange(key(0), Some(key(150)))]);
    reopen_cold(&mut bench);
    (fs, bench)
}

#[test]
fn compaction_holds_up_no_checkpoint_while_it_looks_at_the_tree() {
    let (fs, mut bench) = half_free();
    let deletes = delete_later(&mut bench);
    let (engine, ended) = (Arc::clone(&bench.engine), Arc::new(AtomicBool::new(false)));
    let result = Arc::clone(&ended);
    fs.on_first_read(
        |_, len| len == PAGE_SIZE as usize,
        move || {
            let (engine, seq) = (Arc::clone(&engine), deletes);
            let flushed = ends(move || {
                delete_nothing(&*engine, seq);
                engine.flush().unwrap();
            });
            result.store(flushed, Ordering::SeqCst);
        },
    );
    bench.engine.compact().unwrap();
    fs.forget();
    assert!(
        ended.load(Ordering::SeqCst),
        "a checkpoint waited for compaction"
    );
    bench.check_all();
    bench.verify();
}

#[test]
fn compaction_in_the_background_gives_way_and_ends() {
    let (_, mut bench) = half_free();
    let before = bench.engine.stats().disk_bytes;
    let mut units = 0;
    for round in 0.. {
        assert!(round < 1000, "it does not end");
        let Some(work) = bench.engine.work_due() else {
            break;
        };
        let worked = bench.engine.run_once(work).unwrap();
        units += u32::from(worked && work == Work::Compact);
        if round % 3 == 0 && round < 30 {
            bench.put(b"key", &[round as u8]);
            // What comes next sees that the tree is no quiet one.
            let before = bench.engine.stats().compaction_bytes_written;
            if bench.engine.work_due() == Some(Work::Compact) {
                assert!(!bench.engine.run_once(Work::Compact).unwrap());
            }
            assert_eq!(bench.engine.stats().compaction_bytes_written, before);
        }
    }
    assert!(units > 4, "in {units} units");
    let after = bench.engine.stats().disk_bytes;
    assert!(after * 10 < before * 6, "{after} of {before} bytes");
    bench.check_all();
    bench.verify();
}

/// Without a pause it would walk over the whole file after each checkpoint.
#[test]
fn compaction_that_gains_nothing_is_not_repeated_at_once() {
    let (_, mut bench) = Bench::in_memory(PAGE_SIZE);
    for i in 0..300_u32 {
        bench.put(&key(i), &vec![i as u8; 20_000]);
    }
    bench.engine.flush().unwrap();
    let view = bench.engine.view().unwrap();
    bench.apply(vec![OwnedOp::DeleteRange(key(0), Some(key(290)))]);
    bench.engine.flush().unwrap();
    let mut compactions = 0;
    for round in 0..60_u32 {
        bench.put(b"key", &round.to_be_bytes());
        bench.engine.flush().unwrap();
        let before = bench.engine.stats().compactions;
        for attempt in 0.. {
            assert!(attempt < 1000, "it does not end");
            if bench.engine.work_due() != Some(Work::Compact) {
                break;
            }
            bench.engine.run_once(Work::Compact).unwrap();
        }
        compactions += bench.engine.stats().compactions - before;
    }
    assert!((1..12).contains(&compactions), "{compactions}");
    drop(view);
}

#[test]
fn moving_a_large_value_holds_up_no_put() {
    let (fs, mut bench) = half_free();
    let seq = delete_later(&mut bench);
    let (engine, ended) = (Arc::clone(&bench.engine), Arc::new(AtomicBool::new(false)));
    let result = Arc::clone(&ended);
    fs.on_first_read(
        |_, len| len == 20_000,
        move || {
            let engine = Arc::clone(&engine);
            let applied = ends(move || delete_nothing(&*engine, seq));
            result.store(applied, Ordering::SeqCst);
        },
    );
    bench.engine.compact().unwrap();
    fs.forget();
    assert!(
        ended.load(Ordering::SeqCst),
        "a commit waited for a value to be read"
    );
    bench.check_all();
    bench.verify();
}

/// As many as the write buffer holds were moved on top of what was in it, and writers were slowed
/// or stopped until a checkpoint had written them.
#[test]
fn moved_values_leave_writers_their_part_of_the_buffer() {
    let (fs, bench) = half_free_of(40_000);
    let slowed = Arc::new(AtomicU64::new(0));
    let (engine, count) = (Arc::clone(&bench.engine), Arc::clone(&slowed));
    fs.on_write(move || {
        let is_slowed = engine.pressure() != Pressure::None;
        count.fetch_add(is_slowed.into(), Ordering::SeqCst);
    });
    bench.engine.compact().unwrap();
    fs.forget();
    assert_eq!(slowed.load(Ordering::SeqCst), 0);
    bench.check_all();
    bench.verify();
}

/// A leaf with changes lies over its page, which memory may have lost: here it always has.
#[test]
fn a_change_that_needs_its_page_reads_it_before_the_writer_is_locked() {
    let (fs, mut bench) = hooked();
    for i in 0..60 {
        bench.put(&key(i), &[1; 100]);
    }
    reopen_cold(&mut bench);
    let prepared = Arc::new(Mutex::new(BTreeSet::new()));
    let mut needed = 0;
    for i in 0..60 {
        // The first change of a leaf, one that needs more space than its page has, a delete.
        for op in [
            OwnedOp::Put(key(i), vec![2; 100]),
            OwnedOp::Put(key(i), vec![3; 300]),
            OwnedOp::Delete(key((i + 1) % 60)),
        ] {
            let sequenced = [SequencedOp::new(SeqNo(bench.seq + 1), op.borrow())];
            let reads = Arc::clone(&prepared);
            fs.on_read(move |offset, _| {
                reads.lock().insert(offset);
            });
            bench.engine.prepare(&sequenced).unwrap();
            needed += prepared.lock().len();
            let reads = Arc::clone(&prepared);
            fs.on_read(move |offset, _| assert!(reads.lock().contains(&offset), "{offset}"));
            bench.engine.apply(&sequenced).unwrap();
            fs.forget();
            prepared.lock().clear();
            bench.seq += 1;
            bench.snapshot_tracker.publish(SeqNo(bench.seq));
            op.apply(&mut bench.map);
        }
    }
    assert!(needed > 0);
    bench.check_all();
    bench.verify();
}

#[test]
fn reads_do_not_wait_for_a_large_batch() {
    let (fs, mut bench) = hooked();
    for i in 0..400 {
        bench.put(&key(i), &[1; 100]);
    }
    bench.put(b"long", &[2; 9000]);
    reopen_cold(&mut bench);
    let (engine, ended) = (Arc::clone(&bench.engine), Arc::new(AtomicBool::new(false)));
    let result = Arc::clone(&ended);
    let mut ops: Vec<_> = (0..400).map(|i| OwnedOp::Delete(key(i))).collect();
    ops[1] = OwnedOp::Put(key(1), vec![9; 10]);
    ops.push(OwnedOp::Delete(b"long".to_vec()));
    // The batch is not prepared: applying it reads. It is published, as one that is staged.
    let sequenced: Vec<_> = ops
        .iter()
        .zip(bench.seq + 1..)
        .map(|(op, seq)| SequencedOp::new(SeqNo(seq), op.borrow()))
        .collect();
    let reads = AtomicU64::new(0);
    fs.on_read(move |_, _| {
        // In the midst of the batch.
        if reads.fetch_add(1, Ordering::SeqCst) != 5 {
            return;
        }
        let engine = Arc::clone(&engine);
        let read = ends(move || {
            // Any part of the batch, and the value of a key is one of the two.
            let one = engine.get_value(&key(1)).unwrap().unwrap();
            assert!(*one == [1; 100] || *one == [9; 10]);
            let values = engine.multi_get(&[&key(1), b"long"]).unwrap();
            assert!(values[0].is_some());
            // Views show the time before.
            let map = super::scan(&engine.view().unwrap());
            assert_eq!(map.len(), 401);
            assert_eq!(map[&key(1)], [1; 100]);
        });
        result.store(read, Ordering::SeqCst);
    });
    bench.seq += ops.len() as u64;
    bench.snapshot_tracker.publish(SeqNo(bench.seq));
    bench.engine.apply_staged(&sequenced).unwrap();
    fs.forget();
    assert!(ended.load(Ordering::SeqCst), "a read waited for a batch");
    for op in &ops {
        op.apply(&mut bench.map);
    }
    bench.log.extend(ops);
    bench.check_all();
    bench.verify();
}

/// A put looked at the leaf and its packs, each time that a checkpoint had gone before it. What
/// such puts have changed is right all the same: leaves that grow full are written whole.
#[test]
fn a_further_put_to_a_leaf_of_the_file_reads_nothing_of_it() {
    const COUNT: u32 = 10_000;
    // Entries of one leaf, or fewer.
    const EVERY: usize = 200;
    let fs = HookedFs::new();
    let mut bench = Bench::new(Arc::new(fs.clone()), Path::new("/ks"), 16 << 10, false);
    for first in (0..COUNT).step_by(100) {
        let ops = (first..first + 100).map(|i| OwnedOp::Put(key(i), vec![1; 100]));
        bench.apply(ops.collect());
    }
    reopen_cold(&mut bench);
    for round in 0..60 {
        let reads = fs.count_reads();
        let keys = (round..COUNT).step_by(EVERY);
        let puts = keys.len() as u64;
        for i in keys {
            bench.put(&key(i), &[round as u8; 100]);
        }
        fs.forget();
        let reads = reads.load(Ordering::SeqCst);
        match round {
            0 => assert!(reads > puts, "{reads} reads of {puts} puts"),
            // The nodes above the first leaf, and that leaf with its packs, more than once: nothing
            // is cached.
            1..20 => assert!(reads < 25, "{reads} reads of {puts} puts in round {round}"),
            _ => {}
        }
        bench.engine.flush().unwrap();
    }
    bench.check_all();
    bench.verify();
}

/// What a put needs of a leaf is known when a checkpoint has written it.
#[test]
fn a_put_to_a_leaf_that_a_checkpoint_wrote_reads_nothing_of_it() {
    const COUNT: u32 = 10_000;
    let fs = HookedFs::new();
    let mut bench = Bench::new(Arc::new(fs.clone()), Path::new("/ks"), 16 << 10, false);
    for round in 0..2 {
        // All of each leaf, so that no change is left to packs.
        for first in (0..COUNT).step_by(100) {
            let ops = (first..first + 100).map(|i| OwnedOp::Put(key(i), vec![round; 100]));
            bench.apply(ops.collect());
        }
        bench.engine.flush().unwrap();
        let reads = fs.count_reads();
        for i in (0..COUNT).step_by(200) {
            bench.put(&key(i), &[round; 100]);
        }
        fs.forget();
        // The nodes above the first leaf, at most.
        assert!(reads.load(Ordering::SeqCst) < 10, "{reads:?}");
        bench.engine.compact().unwrap();
    }
    bench.check_all();
    bench.verify();
}

/// A node is read with one request for a page, though it may be shorter. When the file was cut
/// behind it, a reader that did not know yet met the end of the file.
#[test]
fn a_node_at_the_end_of_a_file_that_is_being_cut_is_read() {
    const UNIT: u64 = 4096;
    let fs = HookedFs::new();
    let mut bench = Bench::new(Arc::new(fs.clone()), Path::new("/ks"), 16 << 10, false);
    bench.put(b"key", b"value");
    reopen_cold(&mut bench);
    let root = Arc::new(AtomicU64::new(0));
    let at = Arc::clone(&root);
    fs.on_read(move |offset, _| at.store(offset, Ordering::SeqCst));
    bench.check_get(b"key");
    let end = root.load(Ordering::SeqCst) + UNIT;
    let file = fs
        .inner
        .open(&bench.dir.join("tree.hdb"), OpenMode::ReadWrite);
    let file = file.unwrap();
    assert!(file.len().unwrap() > end, "nothing to cut");
    fs.on_first_read(|_, _| true, move || file.set_len(end).unwrap());
    bench.check_get(b"key");
    fs.forget();
}
