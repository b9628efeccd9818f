//! Views stay as they were taken, however freezes are shared and undone.

use std::sync::Arc;

use super::{Bench, Map, OwnedOp, Random, check_scan, some_key, some_op, with_seeds};
use crate::engine::{Cursor, Engine, ReadView, Work};
use crate::types::SeqNo;

const PAGE_SIZE: u32 = 1024;

/// Takes a view on a thread of its own, which keeps another one than this thread does.
fn view_elsewhere(engine: &Arc<dyn Engine>) -> Arc<dyn ReadView> {
    std::thread::scope(|scope| scope.spawn(|| engine.view().unwrap()).join().unwrap())
}

/// A cursor that was left standing in a view, and what it should find from there on.
struct Left {
    cursor: Box<dyn Cursor>,
    rest: Vec<(Vec<u8>, Vec<u8>)>,
    backwards: bool,
}

impl Left {
    fn new(view: &Arc<dyn ReadView>, map: &Map, key: &[u8], backwards: bool) -> Self {
        let mut cursor = Arc::clone(view).cursor();
        let entry = |(key, value): (&Vec<u8>, &Vec<u8>)| (key.clone(), value.clone());
        let rest = if backwards {
            cursor.seek_before(key).unwrap();
            map.range(..key.to_vec()).rev().map(entry).collect()
        } else {
            cursor.seek(key).unwrap();
            map.range(key.to_vec()..).map(entry).collect()
        };
        Self {
            cursor,
            rest,
            backwards,
        }
    }

    fn finish(mut self) {
        for (key, value) in &self.rest {
            assert!(self.cursor.is_valid());
            assert_eq!(self.cursor.entry().unwrap(), (&**key, &**value));
            if self.backwards {
                self.cursor.prev().unwrap();
            } else {
                self.cursor.next().unwrap();
            }
        }
        assert!(!self.cursor.is_valid());
    }
}

#[test]
fn a_freeze_is_shared_and_undone_only_when_no_reader_is_left() {
    with_seeds(150, |seed| {
        let (_, mut bench) = Bench::in_memory(PAGE_SIZE);
        let mut random = Random(seed);
        let keys = [40, 400, 2000][random.below(3) as usize];
        let mut views: Vec<(Arc<dyn ReadView>, Map)> = Vec::new();
        let mut cursors: Vec<Left> = Vec::new();
        for _ in 0..120 {
            step(&mut bench, &mut random, keys, &mut views, &mut cursors);
            match random.below(40) {
                0 => bench.engine.flush().unwrap(),
                1 => bench.verify(),
                2 => {
                    // The same while a checkpoint writes.
                    let flushed = bench.flush_meanwhile(|bench| {
                        for _ in 0..random.below(12) {
                            step(bench, &mut random, keys, &mut views, &mut cursors);
                        }
                        Ok(())
                    });
                    flushed.unwrap();
                }
                3 if random.one_in(4) => bench.engine.compact().unwrap(),
                _ => {}
            }
        }
        for (view, map) in &views {
            check_scan(view, map);
        }
        cursors.into_iter().for_each(Left::finish);
        bench.check_all();
        bench.verify();
    });
}

/// Changes something, or takes, drops or reads a view.
fn step(
    bench: &mut Bench,
    random: &mut Random,
    keys: u64,
    views: &mut Vec<(Arc<dyn ReadView>, Map)>,
    cursors: &mut Vec<Left>,
) {
    match random.below(10) {
        0..=4 => {
            let count = if random.one_in(5) { 60 } else { 1 };
            let ops = (0..count).map(|_| some_op(random, keys, PAGE_SIZE));
            bench.apply(ops.collect());
        }
        5 => views.push((bench.engine.view().unwrap(), bench.map.clone())),
        6 => views.push((view_elsewhere(&bench.engine), bench.map.clone())),
        7 => {
            let view = bench.engine.snapshot_view(SeqNo(bench.seq)).unwrap();
            let key = some_key(random, keys);
            cursors.push(Left::new(&view, &bench.map, &key, random.one_in(2)));
        }
        8 if !cursors.is_empty() => {
            let at = random.below(cursors.len() as u64) as usize;
            cursors.swap_remove(at).finish();
        }
        // Most of the time none is left.
        _ => {
            for (view, map) in views.drain(..) {
                check_scan(&view, &map);
            }
        }
    }
}

#[test]
fn views_of_one_moment_are_one_view_until_something_changes() {
    let (_, mut bench) = Bench::in_memory(PAGE_SIZE);
    bench.put(b"key", b"one");
    let first = bench.engine.view().unwrap();
    let same = bench.engine.view().unwrap();
    assert!(Arc::ptr_eq(&first, &same));
    assert!(Arc::ptr_eq(
        &first,
        &bench.engine.snapshot_view(SeqNo(1)).unwrap()
    ));
    bench.apply(vec![OwnedOp::Delete(b"no such key".to_vec())]);
    let other = bench.engine.view().unwrap();
    assert!(!Arc::ptr_eq(&first, &other));
    bench.engine.flush().unwrap();
    assert!(!Arc::ptr_eq(&other, &bench.engine.view().unwrap()));
}

/// A checkpoint drops the cached views when it ends. They may live on, and then the freeze must not
/// be undone because a view that was taken after them has ended.
#[test]
fn views_dropped_by_a_checkpoint_keep_their_freeze() {
    let (_, mut bench) = Bench::in_memory(PAGE_SIZE);
    for i in 0..100_u32 {
        bench.put(&i.to_be_bytes(), b"before");
    }
    let mut held = None;
    let flushed = bench.flush_meanwhile(|bench| {
        bench.put(&50_u32.to_be_bytes(), b"meanwhile");
        held = Some((bench.engine.view().unwrap(), bench.map.clone()));
        Ok(())
    });
    flushed.unwrap();
    drop(bench.engine.view().unwrap());
    bench.put(&50_u32.to_be_bytes(), b"afterwards");
    let (view, map) = held.unwrap();
    check_scan(&view, &map);
    bench.check_all();
}

/// A reader would otherwise pay for the merging for as long as nothing fills the write buffer.
#[test]
fn scans_over_changed_leaves_make_a_checkpoint_due_once_it_would_have_been_cheaper() {
    let (_, mut bench) = Bench::in_memory(1024);
    let key = |i: u32| i.to_be_bytes().to_vec();
    let ops = (0..2000).map(|i| OwnedOp::Put(key(i), vec![1; 20]));
    bench.apply(ops.collect());
    bench.engine.flush().unwrap();
    let walk = |view: Arc<dyn ReadView>| {
        let mut cursor = view.cursor();
        cursor.seek_first().unwrap();
        while cursor.is_valid() {
            cursor.next().unwrap();
        }
    };
    // Over pages a scan pays nothing.
    (0..200).for_each(|_| walk(bench.engine.view().unwrap()));
    assert_eq!(bench.engine.work_due(), None);
    for i in 0..500 {
        bench.put(&key(4 * i), b"changed");
    }
    let old = bench.engine.view().unwrap();
    assert_eq!(bench.engine.work_due(), None);
    let scans_until_due = (0..10_000).find(|_| {
        walk(bench.engine.view().unwrap());
        bench.engine.work_due() == Some(Work::Flush)
    });
    let scans = scans_until_due.expect("it is never due");
    assert!(scans > 100, "{scans}");
    assert!(bench.engine.run_once(Work::Flush).unwrap());
    assert_eq!(bench.engine.persisted_seq().0, bench.seq);
    // A checkpoint does not help an older view, which keeps its changes.
    (0..2 * scans).for_each(|_| walk(Arc::clone(&old)));
    (0..2 * scans).for_each(|_| walk(bench.engine.view().unwrap()));
    assert_eq!(bench.engine.work_due(), None);
    check_scan(&old, &bench.map);
    bench.verify();
}
