//! Values that are stored apart: which files the tree holds, and when it lets them go.

use std::time::{Duration, Instant};

use super::*;
use crate::values::ValueFiles;

/// Length of the values, and of the files that they lie in, one each.
const LEN: usize = 500;

/// A tree whose values may lie in files, number *n* of which is full of bytes *n*.
struct Apart {
    bench: Bench,
    values: Arc<ValueFiles>,
}

impl Apart {
    fn new(fs: SimFs, page_size: u32) -> Self {
        let fs: Arc<dyn Fs> = Arc::new(fs);
        let bench = Bench::new(Arc::clone(&fs), Path::new("/ks"), page_size, false);
        let mut apart = Self {
            values: value_files(&fs),
            bench,
        };
        let context = apart.context(&fs);
        apart.bench.engine = BTreeEngine::create(context).unwrap();
        apart
    }

    fn context(&self, fs: &Arc<dyn Fs>) -> EngineContext {
        EngineContext {
            values: Arc::clone(&self.values),
            ..self.bench.context_on(fs, false)
        }
    }

    /// Makes file `number`.
    fn make(&self, number: u8) {
        let path = path_of(number);
        let file = self.bench.fs.open(&path, OpenMode::CreateNew).unwrap();
        file.write_all_at(&[number; LEN], 0).unwrap();
        file.sync_data().unwrap();
        self.bench.fs.sync_dir(Path::new("/ks")).unwrap();
        self.values.add_segment(number.into(), &path, LEN as u64);
    }

    /// Sets `key` to the value in file `number`.
    fn put(&mut self, key: u32, number: u8) {
        if !self.bench.fs.exists(&path_of(number)).unwrap() {
            self.make(number);
        }
        let (key, value) = (key.to_be_bytes(), [number; LEN]);
        let reference = self.values.digest(&value).place(number.into(), 0);
        let bench = &mut self.bench;
        bench.seq += 1;
        let op = OwnedOp::Put(key.to_vec(), value.to_vec());
        let op_with_ref = SequencedOp {
            value_ref: Some(reference.as_bytes()),
            ..SequencedOp::new(SeqNo(bench.seq), op.borrow())
        };
        bench.engine.prepare(&[op_with_ref]).unwrap();
        bench.engine.apply(&[op_with_ref]).unwrap();
        bench.snapshot_tracker.publish(SeqNo(bench.seq));
        op.apply(&mut bench.map);
        bench.log.push(op);
    }

    #[track_caller]
    fn assert_held(&self, numbers: &[u64]) {
        let held = || -> Vec<u64> { (1..=9).filter(|n| self.values.is_held(*n)).collect() };
        // Readers of other tests count as some that may look at them, and may be made to wait. The
        // end is that of patience, and says nothing about time.
        let end = Instant::now() + Duration::from_secs(60);
        while held().len() > numbers.len() && Instant::now() < end {
            crossbeam_epoch::pin().flush();
            drop(self.bench.engine.view());
            std::thread::yield_now();
        }
        assert_eq!(held(), numbers);
    }

    /// Entries enough for several leaves, so that few changes go into packs.
    fn fill(&mut self) {
        let ops = (0..2000_u32).map(|n| OwnedOp::Put(n.to_be_bytes().to_vec(), vec![7; 20]));
        self.bench.apply(ops.collect());
        self.bench.engine.compact().unwrap();
    }

    fn flush(&self) {
        self.bench.engine.flush().unwrap();
        self.bench.verify();
    }
}

fn path_of(number: u8) -> PathBuf {
    Path::new("/ks").join(format!("{number:016x}.log"))
}

fn value_files(fs: &Arc<dyn Fs>) -> Arc<ValueFiles> {
    let open_files = Arc::new(OpenFiles::new(8));
    Arc::new(ValueFiles::new(
        Arc::clone(fs),
        open_files,
        Path::new("/ks"),
        77,
        false,
    ))
}

#[test]
fn a_file_is_held_from_the_first_reference_to_the_checkpoint_after_the_last() {
    let mut apart = Apart::new(SimFs::new(), 1024);
    apart.put(1, 3);
    apart.put(2, 4);
    apart.assert_held(&[3, 4]);
    // No checkpoint has written the first one.
    apart.put(1, 5);
    apart.assert_held(&[3, 4, 5]);
    apart.flush();
    apart.assert_held(&[4, 5]);
    apart.bench.check_all();
    apart
        .bench
        .apply(vec![OwnedOp::Delete(2_u32.to_be_bytes().to_vec())]);
    apart.assert_held(&[4, 5]);
    apart.flush();
    apart.assert_held(&[5]);
    let all = OwnedOp::DeleteRange(Vec::new(), None);
    apart.bench.apply(vec![all]);
    apart.flush();
    apart.assert_held(&[]);
}

#[test]
fn what_a_pack_refers_to_is_held_and_so_is_what_it_supersedes() {
    let mut apart = Apart::new(SimFs::new(), 16 << 10);
    apart.fill();
    apart.put(500, 1);
    apart.bench.engine.compact().unwrap();
    apart.put(500, 2);
    for key in [900, 1300, 1700] {
        apart.put(key, 3);
    }
    apart.flush();
    assert!(packs::packs(&apart.bench) > 0);
    // The leaf was not written.
    apart.assert_held(&[1, 2, 3]);
    let usage = apart.bench.engine.value_usage();
    assert_eq!(usage.files, [(1, 500), (2, 500), (3, 1500)].into());
    assert_eq!(usage.settled_bytes, 500);
    apart.bench.check_all();
    apart.bench.engine.compact().unwrap();
    apart.bench.verify();
    assert_eq!(packs::packs(&apart.bench), 0);
    apart.assert_held(&[2, 3]);
    assert_eq!(apart.bench.engine.value_usage().settled_bytes, 2000);
    // A range that is cut off, with packs, takes its references with it.
    for key in [501, 901, 1301, 1701] {
        apart.put(key, 4);
    }
    apart.flush();
    assert!(packs::packs(&apart.bench) > 0);
    let gone = OwnedOp::DeleteRange(600_u32.to_be_bytes().to_vec(), None);
    apart.bench.apply(vec![gone]);
    apart.flush();
    apart.assert_held(&[2, 4]);
}

#[test]
fn a_view_keeps_the_files_that_it_may_read() {
    let mut apart = Apart::new(SimFs::new(), 1024);
    apart.put(1, 1);
    apart.flush();
    apart.put(2, 2);
    let map = apart.bench.map.clone();
    let view = apart.bench.engine.view().unwrap();
    apart.put(1, 3);
    apart.put(2, 3);
    apart.flush();
    apart.flush();
    apart.assert_held(&[1, 2, 3]);
    check_scan(&view, &map);
    drop(view);
    apart.assert_held(&[3]);
}

#[test]
fn what_comes_beside_a_checkpoint_is_held_after_it() {
    let mut apart = Apart::new(SimFs::new(), 1024);
    apart.put(1, 1);
    apart.make(2);
    let values = Arc::clone(&apart.values);
    let reference = values.digest(&[2; LEN]).place(2, 0);
    let meanwhile = |bench: &mut Bench| {
        bench.seq += 1;
        let op = OwnedOp::Put(2_u32.to_be_bytes().to_vec(), vec![2; LEN]);
        let op_with_ref = SequencedOp {
            value_ref: Some(reference.as_bytes()),
            ..SequencedOp::new(SeqNo(bench.seq), op.borrow())
        };
        bench.engine.apply(&[op_with_ref])?;
        bench.snapshot_tracker.publish(SeqNo(bench.seq));
        op.apply(&mut bench.map);
        bench.log.push(op);
        Ok(())
    };
    apart.bench.flush_meanwhile(meanwhile).unwrap();
    apart.assert_held(&[1, 2]);
    apart.flush();
    apart.assert_held(&[1, 2]);
    apart.bench.check_all();
}

/// The tree before the checkpoint is the one on the disk until that has ended.
#[test]
fn a_checkpoint_that_fails_lets_nothing_go() {
    let mut apart = Apart::new(SimFs::new(), 1024);
    apart.put(1, 1);
    apart.flush();
    apart.put(1, 2);
    let values = Arc::clone(&apart.values);
    let fails = |_: &mut Bench| {
        assert!(values.is_held(1));
        Err(Error::Closed)
    };
    apart.bench.flush_meanwhile(fails).unwrap_err();
    apart.assert_held(&[1, 2]);
    apart.put(1, 3);
    apart.flush();
    apart.assert_held(&[3]);
}

#[test]
fn a_tree_that_is_opened_holds_what_it_refers_to() {
    let fs = SimFs::new();
    let mut apart = Apart::new(fs.clone(), 16 << 10);
    apart.fill();
    apart.put(500, 1);
    apart.bench.engine.compact().unwrap();
    for key in [600, 1000, 1400, 1800] {
        apart.put(key, 2);
    }
    apart.flush();
    assert!(packs::packs(&apart.bench) > 0);
    let after: Arc<dyn Fs> = Arc::new(fs.crash());
    let open = |known: &[u8]| {
        let values = value_files(&after);
        for number in known {
            values.add_segment((*number).into(), &path_of(*number), LEN as u64);
        }
        let context = EngineContext {
            values: Arc::clone(&values),
            ..apart.context(&after)
        };
        let engine = BTreeEngine::open(context)?;
        let view = engine.view()?;
        check_scan(&view, &apart.bench.map);
        assert!(engine.verify()?.is_clean());
        Ok::<_, Error>([1, 2, 3].map(|number| values.is_held(number)))
    };
    assert_eq!(open(&[1, 2, 3]).unwrap(), [true, true, false]);
    let missing = open(&[1, 3]).unwrap_err();
    assert!(missing.is_corruption(), "{missing}");
    assert!(
        missing.to_string().contains("0000000000000002.val"),
        "{missing}"
    );
}
