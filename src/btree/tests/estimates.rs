//! Puts that a checkpoint packs without a look at their leaf, and what is said of it then.

use std::collections::BTreeSet;

use parking_lot::Mutex;

use super::packs::{branches_of, figure, packs};
use super::waiting::{HookedFs, reopen_cold};
use super::*;

const PAGE_SIZE: u32 = 16 << 10;
/// Bytes of a value.
const LEN: usize = 100;

/// Those of the entries that are there at first are even.
fn key(number: u32) -> Vec<u8> {
    let mut key = b"key-".to_vec();
    key.extend_from_slice(&number.to_be_bytes());
    key
}

/// `count` entries in the file, put in no order, so that leaves have space left.
fn filled(fs: Arc<dyn Fs>, page_size: u32, count: u32) -> Bench {
    const STEP: u32 = 7919;
    assert!(!count.is_multiple_of(STEP));
    let mut bench = Bench::new(fs, Path::new("/ks"), page_size, false);
    let numbers: Vec<u32> = (0..count).map(|i| i * STEP % count).collect();
    for some in numbers.chunks(100) {
        let ops = some.iter().map(|i| OwnedOp::Put(key(2 * i), vec![1; LEN]));
        bench.apply(ops.collect());
    }
    bench.engine.flush().unwrap();
    bench
}

fn in_memory(page_size: u32, count: u32) -> (SimFs, Bench) {
    let fs = SimFs::new();
    (fs.clone(), filled(Arc::new(fs), page_size, count))
}

/// Leaves of the file of which an estimate is known.
fn estimates(bench: &Bench) -> usize {
    let path = bench.dir.join("tree.hdb");
    let file = bench.fs.open(&path, OpenMode::Read).unwrap();
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    let branches = branches_of(&bytes);
    let children = branches.iter().flat_map(|packs| &packs.children);
    children.filter(|child| child.is_estimate).count()
}

fn nodes(bench: &Bench) -> u64 {
    figure(bench, "level", "nodes")
}

/// By how many parts of a thousand the number of entries in `stats` is wrong.
fn error_of(bench: &Bench) -> u64 {
    let (estimate, truth) = (
        bench.engine.stats().entries_estimate,
        bench.map.len() as u64,
    );
    estimate.abs_diff(truth) * 1000 / truth
}

/// Each change was compared with its leaf and the packs of that, and so a checkpoint of random puts
/// read most of the file.
#[test]
fn a_checkpoint_of_puts_reads_no_leaf() {
    const COUNT: u32 = 30_000;
    let fs = HookedFs::new();
    let mut bench = filled(Arc::new(fs.clone()), PAGE_SIZE, COUNT);
    reopen_cold(&mut bench);
    let nodes = nodes(&bench);
    for round in 0..4 {
        // About one in each leaf. Every other one is a new key.
        for i in (round..COUNT).step_by(97) {
            bench.put(&key(2 * i + i % 2), &[round as u8; LEN]);
        }
        // Nothing is cached, so some are read more than once.
        let read = Arc::new(Mutex::new(BTreeSet::new()));
        let places = Arc::clone(&read);
        fs.on_read(move |offset, _| {
            places.lock().insert(offset);
        });
        bench.engine.flush().unwrap();
        fs.forget();
        let read = read.lock().len() as u64;
        assert!(read * 4 < nodes, "{read} of {nodes} nodes were read");
        assert!(packs(&bench) > 0 && estimates(&bench) > 200);
        bench.verify();
    }
    bench.check_all();
}

/// Nothing but figures depends on the estimates, and those are nearly right.
#[test]
fn estimates_are_near_the_truth() {
    const COUNT: u32 = 20_000;
    let (fs, mut bench) = in_memory(PAGE_SIZE, COUNT);
    assert_eq!(error_of(&bench), 0);
    let mut random = Random(1);
    // New keys, then some, then none.
    for new_in in [1, 3, u64::MAX] {
        let mut estimated = 0;
        for round in 0..20 {
            let puts = (0..600).map(|_| {
                let number = 2 * random.below(COUNT.into()) as u32;
                let is_new = random.one_in(new_in);
                OwnedOp::Put(key(number + u32::from(is_new)), vec![round; LEN])
            });
            let puts = puts.collect();
            bench.apply(puts);
            bench.engine.flush().unwrap();
            estimated += estimates(&bench);
            bench.verify();
            let error = error_of(&bench);
            assert!(error < 30, "{error} of a thousand, one new in {new_in}");
        }
        assert!(
            estimated > 400,
            "{estimated} estimates, one new in {new_in}"
        );
        bench.check_all();
        bench = bench.recover(Arc::new(fs.crash()));
        assert!(error_of(&bench) < 30);
        bench = bench.recover(Arc::new(fs.clone()));
    }
    bench.engine.compact().unwrap();
    assert_eq!(error_of(&bench), 0);
    bench.verify();
}

/// A leaf that estimates would fill is looked at. Puts to it take what it has in truth.
#[test]
fn the_same_keys_again_and_again_fill_no_leaf() {
    const COUNT: u32 = 5000;
    for is_alone in [false, true] {
        let (_, mut bench) = in_memory(PAGE_SIZE, COUNT);
        let before = nodes(&bench);
        let mut estimated = 0;
        for round in 0..120 {
            let puts = (0..COUNT).step_by(25).map(|i| {
                // A value that becomes longer does not simply take the place of the old one.
                OwnedOp::Put(key(2 * i), vec![round; LEN + round as usize % 3])
            });
            let puts = puts.collect::<Vec<_>>();
            match is_alone {
                true => puts.into_iter().for_each(|put| bench.apply(vec![put])),
                false => bench.apply(puts),
            }
            bench.engine.flush().unwrap();
            estimated += estimates(&bench);
        }
        assert!(estimated > 1000, "{estimated} estimates");
        assert_eq!(nodes(&bench), before);
        assert!(error_of(&bench) < 20);
        bench.check_all();
        bench.verify();
    }
}

/// What is counted off when an estimated leaf is loaded, merged, cut or dropped is what was counted
/// before, beside checkpoints that fail and those that go on meanwhile.
#[test]
fn totals_add_up_whatever_happens_to_estimated_leaves() {
    with_seeds(6, |seed| {
        let page_size = [4096, 1024, PAGE_SIZE][seed as usize % 3];
        let count = page_size / 4;
        let (fs, mut bench) = in_memory(page_size, count);
        let mut random = Random(seed);
        let mut estimated = 0;
        for round in 0..40 {
            let deletes = [0, 0, 10, 3][random.index(4)];
            let some_ops = |random: &mut Random| -> Vec<OwnedOp> {
                let ops = (0..random.below(60) + 1).map(|_| {
                    let number = random.below(u64::from(count) * 2) as u32;
                    match random.below(40) {
                        kind if kind < deletes => OwnedOp::Delete(key(number)),
                        38 if deletes > 0 && random.one_in(8) => {
                            let end = number + random.below(u64::from(count) / 4) as u32;
                            OwnedOp::DeleteRange(key(number), Some(key(end)))
                        }
                        39 => OwnedOp::Put(key(number), vec![2; random.index(2 * LEN)]),
                        _ => OwnedOp::Put(key(number), vec![round; LEN]),
                    }
                });
                ops.collect()
            };
            let ops = some_ops(&mut random);
            bench.apply(ops);
            let (fails, is_busy) = (random.one_in(8), random.one_in(3));
            let flushed = bench.flush_meanwhile(|bench| {
                if is_busy {
                    bench.apply(some_ops(&mut random));
                }
                match fails {
                    true => Err(Error::invalid("the log could not be synced")),
                    false => Ok(()),
                }
            });
            assert_eq!(flushed.is_err(), fails);
            estimated += estimates(&bench);
            bench.verify();
            bench.check_all();
            if random.one_in(8) {
                bench.engine.flush().unwrap();
                bench = bench.recover(Arc::new(fs.crash()));
                bench = bench.recover(Arc::new(fs.clone()));
            }
        }
        assert!(estimated > 0, "seed {seed} estimates nothing");
        bench.engine.compact().unwrap();
        bench.verify();
        assert_eq!(error_of(&bench), 0);
    });
}
