//! Changes find their leaves, however they come: one by one, neighbours, batches.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Bench, OwnedOp, Random, some_op, with_seeds};
use crate::fs::StdFs;
use crate::types::{SeqNo, SequencedOp};

const PAGE_SIZE: u32 = 1024;

fn key(number: u64) -> Vec<u8> {
    format!("key {number:07}").into_bytes()
}

/// Each new thread takes the finger that another one left sixteen threads ago: an old one.
fn apply_elsewhere(bench: &mut Bench, ops: Vec<OwnedOp>) {
    std::thread::scope(|scope| scope.spawn(|| bench.apply(ops)).join().unwrap());
}

#[test]
fn neighbours_that_threads_write_in_turn_land_in_their_leaves() {
    with_seeds(6, |seed| {
        let mut random = Random(seed);
        let (_, mut bench) = Bench::in_memory(PAGE_SIZE);
        let mut at = 0;
        for _ in 0..1500 {
            at = match random.below(40) {
                0 => random.below(2000),
                1..=8 => at,
                9..=12 => at.saturating_sub(1),
                _ => at + 1,
            };
            let op = match random.below(20) {
                0..=5 => OwnedOp::Delete(key(at)),
                6 if random.one_in(4) => OwnedOp::DeleteRange(key(at), Some(key(at + 40))),
                6 => OwnedOp::Put(key(at), vec![at as u8; 400]),
                _ => OwnedOp::Put(key(at), vec![at as u8; random.below(60) as usize]),
            };
            if random.one_in(6) {
                apply_elsewhere(&mut bench, vec![op]);
            } else {
                bench.apply(vec![op]);
            }
            match random.below(150) {
                0 => bench.engine.flush().unwrap(),
                1 => bench.check_all(),
                2 => drop(bench.engine.snapshot_view(SeqNo(bench.seq))),
                3 => bench.engine.compact().unwrap(),
                _ => {}
            }
            bench.check_get(&key(at));
        }
        bench.check_all();
        bench.verify();
        bench.engine.flush().unwrap();
        bench.verify();
    });
}

/// Between `prepare` and `apply` anything may happen.
#[test]
fn what_happens_between_preparing_and_applying_is_noticed() {
    for number in 0..40 {
        let (_, mut bench) = Bench::in_memory(PAGE_SIZE);
        for i in 0..40 {
            bench.put(&key(2 * i), &[1; 100]);
        }
        bench.engine.flush().unwrap();
        // The finger knows the fences of the leaf.
        for _ in 0..2 {
            bench.put(&key(number), &[2; 100]);
        }
        let op = OwnedOp::Put(key(number), vec![3; 100]);
        let prepared = [SequencedOp::new(SeqNo(bench.seq + 100), op.borrow())];
        bench.engine.prepare(&prepared).unwrap();
        let before = bench.seq;
        apply_elsewhere(
            &mut bench,
            vec![OwnedOp::DeleteRange(key(10), Some(key(60)))],
        );
        for i in 0..3 {
            let op = OwnedOp::Put(key(100 * i + number), vec![4; 100]);
            apply_elsewhere(&mut bench, vec![op]);
        }
        if number % 2 == 0 {
            bench.engine.flush().unwrap();
        }
        assert!(bench.seq < before + 100);
        bench.engine.apply(&prepared).unwrap();
        bench.snapshot_tracker.publish(SeqNo(before + 100));
        op.apply(&mut bench.map);
        bench.check_all();
        bench.verify();
    }
}

#[test]
fn a_batch_is_the_same_as_its_operations_one_by_one() {
    with_seeds(8, |seed| {
        let mut random = Random(seed);
        let (_, mut batches) = Bench::in_memory(PAGE_SIZE);
        let (_, mut singles) = Bench::in_memory(PAGE_SIZE);
        for _ in 0..8 {
            let keys = [5, 60, 600][random.below(3) as usize];
            let count = random.below(400) + 1;
            let ops: Vec<_> = (0..count)
                .map(|_| some_op(&mut random, keys, PAGE_SIZE))
                .collect();
            for op in &ops {
                singles.apply(vec![op.clone()]);
            }
            batches.apply(ops);
            if random.one_in(3) {
                batches.engine.flush().unwrap();
            }
            assert!(batches.map == singles.map);
            batches.check_all();
            singles.check_all();
        }
        batches.verify();
        singles.verify();
    });
}

#[test]
fn many_keys_at_once_are_the_same_as_one_by_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut bench = Bench::new(
        Arc::new(StdFs::new()),
        &dir.path().join("ks"),
        PAGE_SIZE,
        true,
    );
    let mut random = Random(9);
    for i in 0..3000 {
        let len = if i % 100 == 0 { 3000 } else { i as usize % 40 };
        bench.put(&key(2 * i), &vec![i as u8; len]);
    }
    let mut before = BTreeMap::new();
    let mut view = None;
    for round in 0..3 {
        // All in memory, all in the file, changes over the file.
        if round == 1 {
            bench.engine.flush().unwrap();
        }
        if round == 2 {
            view = Some(bench.engine.view().unwrap());
            before = bench.map.clone();
            for _ in 0..500 {
                let at = random.below(6000);
                let op = match random.below(3) {
                    0 => OwnedOp::Delete(key(at)),
                    _ => OwnedOp::Put(key(at), b"changed".to_vec()),
                };
                bench.apply(vec![op]);
            }
        }
        for count in [0, 1, 2, 15, 16, 17, 100] {
            let keys: Vec<_> = (0..count).map(|_| key(random.below(6000))).collect();
            let borrowed: Vec<_> = keys.iter().map(Vec::as_slice).collect();
            let found = bench.engine.multi_get(&borrowed).unwrap();
            assert_eq!(found.len(), count);
            for (key, value) in keys.iter().zip(found) {
                assert_eq!(value.as_deref(), bench.map.get(key).map(Vec::as_slice));
            }
            if let Some(view) = &view {
                let found = view.multi_get(&borrowed).unwrap();
                for (key, value) in keys.iter().zip(found) {
                    assert_eq!(value.as_deref(), before.get(key).map(Vec::as_slice));
                }
            }
        }
    }
    bench.verify();
}
