//! The file follows the data down, and what changes nothing writes nothing.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use super::{Bench, OwnedOp, Random, check_scan};
use crate::btree::BTreeEngine;
use crate::btree::bulk_load::HasTree;
use crate::engine::{Engine, EngineContext, LoadFailed, Work};
use crate::error::Error;
use crate::fs::{Fs, OpenMode};
use crate::testing::alone;
use crate::types::SeqNo;

const PAGE_SIZE: u32 = 1024;

fn key(number: u32) -> Vec<u8> {
    number.to_be_bytes().to_vec()
}

fn fill(bench: &mut Bench, count: u32, len: usize) {
    for first in (0..count).step_by(100) {
        let numbers = first..(first + 100).min(count);
        bench.apply(
            numbers
                .map(|i| OwnedOp::Put(key(i), vec![i as u8; len]))
                .collect(),
        );
    }
}

fn leaf_pages(bench: &Bench) -> u64 {
    bench.engine.refresh_stats();
    bench.engine.stats().levels.last().unwrap().files
}

#[test]
fn entries_deleted_in_rising_order_free_their_leaves() {
    let (_, mut bench) = Bench::in_memory(PAGE_SIZE);
    fill(&mut bench, 5000, 50);
    bench.engine.flush().unwrap();
    let before = leaf_pages(&bench);
    for falling in [false, true] {
        fill(&mut bench, 5000, 50);
        for i in 0..5000 {
            let i = if falling { 4999 - i } else { i };
            if i % 50 != 0 {
                bench.apply(vec![OwnedOp::Delete(key(i))]);
            }
        }
        bench.engine.flush().unwrap();
        let after = leaf_pages(&bench);
        assert!(after * 12 < before, "{after} leaves of {before}");
    }
    bench.check_all();
    bench.verify();
}

/// Deletes that came beside checkpoints, or a few to each leaf between two of them, went into packs
/// again and again: leaves of which next to nothing was left kept their space.
#[test]
fn leaves_that_deletes_empty_over_many_checkpoints_give_their_space_back() {
    const ENTRIES: u32 = 20_000;
    const ROUNDS: u32 = 25;
    let used = |bench: &Bench| {
        let stats = bench.engine.stats();
        stats.disk_bytes - stats.free_bytes
    };
    for is_beside in [false, true] {
        let (_, mut bench) = Bench::in_memory(16 << 10);
        let puts = (0..ENTRIES).map(|i| OwnedOp::Put(key(i), vec![i as u8; 100]));
        bench.apply(puts.collect());
        bench.engine.flush().unwrap();
        let before = used(&bench);
        // Something for the first checkpoint.
        bench.apply(vec![OwnedOp::Put(key(0), vec![1; 100])]);
        for round in 1..ROUNDS - 1 {
            let gone = (0..ENTRIES).filter(|i| i % ROUNDS == round);
            let gone: Vec<_> = gone.map(|i| OwnedOp::Delete(key(i))).collect();
            if is_beside {
                let flushed = bench.flush_meanwhile(|bench| {
                    bench.apply(gone);
                    Ok(())
                });
                flushed.unwrap();
            } else {
                bench.apply(gone);
                bench.engine.flush().unwrap();
            }
        }
        bench.engine.flush().unwrap();
        let after = used(&bench);
        assert!(after * 2 < before, "{is_beside}: {after} of {before} bytes");
        bench.check_all();
        bench.verify();
    }
}

/// Bytes of the file for each that the entries need in leaves.
fn waste(bench: &Bench) -> f64 {
    // Head, slot, and the lengths of key and value.
    let needed: usize = bench.map.iter().map(|(k, v)| k.len() + v.len() + 14).sum();
    bench.engine.stats().disk_bytes as f64 / needed as f64
}

#[test]
fn compaction_ends_within_a_fifth_of_what_is_live() {
    alone(
        "btree::tests::space::compaction_ends_within_a_fifth_of_what_is_live",
        compaction_is_tight,
    );
}

fn compaction_is_tight() {
    for (seed, kept_of_100) in [2, 50, 100].into_iter().enumerate() {
        let mut random = Random(seed as u64);
        let (_, mut bench) = Bench::in_memory(4096);
        for _ in 0..500 {
            let numbers = (0..40).map(|_| random.below(20_000) as u32);
            let ops = numbers.map(|i| OwnedOp::Put(key(i), vec![i as u8; 100]));
            bench.apply(ops.collect());
        }
        let gone = (0..20_000).filter(|_| random.below(100) >= kept_of_100);
        let gone: Vec<_> = gone.map(|i| OwnedOp::Delete(key(i))).collect();
        if !gone.is_empty() {
            bench.apply(gone);
        }
        bench.engine.compact().unwrap();
        // The meta pages, the root and the freelist weigh something in so small a tree.
        let few_pages = 9.0 * 4096.0 / bench.engine.stats().disk_bytes as f64;
        let waste = waste(&bench);
        assert!(waste < 1.2 / (1.0 - few_pages), "{kept_of_100}: {waste}");
        bench.check_all();
        bench.verify();
    }
}

/// Puts that make values short are no deletes: no leaf is found to be sparse when it changes.
#[test]
fn sparse_leaves_that_checkpoints_write_make_compaction_due() {
    alone(
        "btree::tests::space::sparse_leaves_that_checkpoints_write_make_compaction_due",
        compaction_joins_sparse_leaves,
    );
}

fn compaction_joins_sparse_leaves() {
    let (_, mut bench) = Bench::in_memory(16 << 10);
    fill(&mut bench, 8000, 4000);
    fill(&mut bench, 8000, 10);
    bench.engine.flush().unwrap();
    let before = bench.engine.stats().disk_bytes;
    for round in 0.. {
        assert!(round < 1000, "it does not end");
        match bench.engine.work_due() {
            Some(work) => bench.engine.run_once(work).unwrap(),
            None => break,
        };
    }
    let after = bench.engine.stats().disk_bytes;
    assert!(after < before / 20, "{after} of {before} bytes");
    bench.check_all();
    bench.verify();
}

#[test]
fn pages_that_came_and_went_while_a_reader_slept_are_reused() {
    alone(
        "btree::tests::space::pages_that_came_and_went_while_a_reader_slept_are_reused",
        || {
            let (_, mut bench) = Bench::in_memory(PAGE_SIZE);
            fill(&mut bench, 1000, 50);
            bench.engine.flush().unwrap();
            let alone = bench.engine.stats().disk_bytes;
            let view = bench.engine.snapshot_view(SeqNo(bench.seq)).unwrap();
            let map = bench.map.clone();
            for round in 0..40_u8 {
                fill(&mut bench, 1000, 40 + usize::from(round % 10));
                bench.engine.flush().unwrap();
            }
            // That of the view, two checkpoints after it, and two of the current tree.
            let held = bench.engine.stats().disk_bytes;
            assert!(held < 6 * alone, "{held} bytes beside a tree of {alone}");
            check_scan(&view, &map);
            bench.check_all();
            bench.verify();
        },
    );
}

/// The end of a checkpoint puts pages in the place of nodes that a view shares with the tree.
#[test]
fn a_view_reads_pages_of_the_checkpoints_after_it() {
    alone(
        "btree::tests::space::a_view_reads_pages_of_the_checkpoints_after_it",
        || {
            for during_a_checkpoint in [false, true] {
                let (_, mut bench) = Bench::in_memory(PAGE_SIZE);
                fill(&mut bench, 1000, 50);
                let mut held = None;
                let view = |bench: &mut Bench| {
                    fill(bench, 700, 60);
                    let view = bench.engine.snapshot_view(SeqNo(bench.seq)).unwrap();
                    Some((view, bench.map.clone()))
                };
                if during_a_checkpoint {
                    let flushed = bench.flush_meanwhile(|bench| {
                        held = view(bench);
                        Ok(())
                    });
                    flushed.unwrap();
                } else {
                    held = view(&mut bench);
                }
                let (view, map) = held.unwrap();
                bench.engine.flush().unwrap();
                for round in 0..6 {
                    fill(&mut bench, 1000, 40 + round);
                    bench.engine.flush().unwrap();
                    check_scan(&view, &map);
                }
                bench.check_all();
                bench.verify();
            }
        },
    );
}

#[test]
fn changes_that_change_nothing_write_nothing() {
    let (_, mut bench) = Bench::in_memory(PAGE_SIZE);
    for i in 0..2000 {
        bench.put(&key(2 * i), &[1; 50]);
    }
    bench.engine.flush().unwrap();
    let before = bench.engine.stats();
    for i in 0..2000 {
        bench.apply(vec![OwnedOp::Delete(key(2 * i + 1))]);
        let empty = OwnedOp::DeleteRange(key(2 * i + 1), Some(key(2 * i + 2)));
        bench.apply(vec![empty]);
    }
    bench.apply(vec![OwnedOp::DeleteRange(key(10_000), None)]);
    assert_eq!(bench.engine.stats().write_buffer_bytes, 0);
    bench.engine.flush().unwrap();
    let after = bench.engine.stats();
    let written = after.flush_bytes_written - before.flush_bytes_written;
    assert!(written <= 2 * u64::from(PAGE_SIZE), "{written}");
    assert_eq!(bench.engine.persisted_seq().0, bench.seq);
    // Over changes, too: what is deleted already is not recorded again.
    bench.put(&key(3), b"now it is there");
    let before = bench.engine.stats().write_buffer_bytes;
    for _ in 0..100 {
        bench.apply(vec![OwnedOp::Delete(key(5))]);
    }
    assert_eq!(bench.engine.stats().write_buffer_bytes, before);
    bench.check_all();
    bench.verify();
}

/// While a checkpoint runs, a leaf that it writes is frozen, and changes lie over it.
#[test]
fn a_delete_beside_a_checkpoint_copies_only_leaves_that_have_its_key() {
    let (_, mut bench) = Bench::in_memory(PAGE_SIZE);
    fill(&mut bench, 2000, 20);
    bench.engine.flush().unwrap();
    for i in 0..500 {
        bench.put(&key(4 * i), b"changed");
    }
    bench.apply(vec![OwnedOp::Delete(key(9))]);
    bench
        .flush_meanwhile(|bench| {
            let before = bench.engine.stats().write_buffer_bytes;
            // Deleted before, and never there: behind the end, and beside what is.
            for absent in [key(9), key(2000), [key(8), b"!".to_vec()].concat()] {
                bench.apply(vec![OwnedOp::Delete(absent)]);
            }
            assert_eq!(bench.engine.stats().write_buffer_bytes, before);
            // In the page below the changes, in the changes, and put meanwhile.
            bench.put(&key(9), b"again");
            for present in [5, 8, 9] {
                let present = key(present);
                bench.apply(vec![OwnedOp::Delete(present.clone())]);
                bench.check_get(&present);
            }
            assert!(bench.engine.stats().write_buffer_bytes > before);
            bench.check_all();
            Ok(())
        })
        .unwrap();
    bench.check_all();
    bench.engine.flush().unwrap();
    bench.check_all();
    bench.verify();
}

#[test]
fn asking_for_a_key_reads_no_value_that_lies_outside_its_leaf() {
    let (_, mut bench) = Bench::in_memory(PAGE_SIZE);
    bench.put(b"large", &vec![7; 100 * PAGE_SIZE as usize]);
    bench.put(b"small", b"1");
    let in_memory = bench.engine.view().unwrap();
    bench.engine.flush().unwrap();
    let view = bench.engine.view().unwrap();
    for key in ["large", "small"] {
        for found in [
            bench.engine.contains(key.as_bytes()),
            in_memory.contains(key.as_bytes()),
            view.contains(key.as_bytes()),
        ] {
            assert!(found.unwrap(), "{key}");
        }
    }
    assert!(!bench.engine.contains(b"larger").unwrap());
    assert!(!view.contains(b"larger").unwrap());
    let read = bench.engine.stats().blocks_read;
    assert!(read < 20, "{read} pages");
}

/// What a compaction moved is not new, and yet has to be written before the buffer is free again.
#[test]
fn a_full_buffer_is_written_after_a_compaction_that_failed() {
    let mut was_full = 0;
    for n in 0..60 {
        let (fs, mut bench) = Bench::in_memory(PAGE_SIZE);
        // Leaves with no more values than are moved at once.
        fill(&mut bench, 1000, 300);
        bench.engine.flush().unwrap();
        bench.apply(vec![OwnedOp::DeleteRange(key(0), Some(key(500)))]);
        bench.engine.flush().unwrap();
        fs.fail_once_after(n, io::ErrorKind::StorageFull);
        let failed = bench.engine.compact().is_err();
        fs.heal();
        if failed && bench.engine.work_due() == Some(Work::Flush) {
            was_full += 1;
            // An error says that no checkpoint is possible any more.
            if let Ok(worked) = bench.engine.run_once(Work::Flush) {
                assert!(worked, "{n}");
                assert_ne!(bench.engine.work_due(), Some(Work::Flush), "{n}");
            }
        }
        bench.check_all();
    }
    assert!(was_full > 0, "no failure left a full buffer");
}

#[test]
fn values_a_little_above_a_quarter_of_a_page_take_little_more_than_their_length() {
    for (len, most) in [(4096, 1.45), (4097, 1.45), (5000, 1.2), (7000, 1.3)] {
        let (_, mut bench) = Bench::in_memory(16 << 10);
        fill(&mut bench, 600, len);
        bench.engine.flush().unwrap();
        bench.engine.compact().unwrap();
        let factor = bench.engine.stats().disk_bytes as f64 / (600 * len) as f64;
        assert!(factor < most, "{len}: {factor}");
        bench.check_all();
        bench.verify();
    }
}

#[test]
fn a_damaged_meta_page_is_reported_until_it_is_mended() {
    for page in 0..2 {
        let (fs, mut bench) = Bench::in_memory(PAGE_SIZE);
        bench.put(b"a", b"1");
        bench.engine.flush().unwrap();
        let image = fs.crash();
        let path = bench.dir.join(crate::btree::file::new_file::FILE_NAME);
        let file = image.open(&path, OpenMode::ReadWrite).unwrap();
        file.write_all_at(&[0xFF; 16], page * u64::from(PAGE_SIZE) + 40)
            .unwrap();
        bench.fs = Arc::new(image) as Arc<dyn Fs>;
        let context = bench.context_on(&bench.fs, false);
        let to_read = EngineContext {
            read_only: true,
            ..context.clone()
        };
        bench.engine = BTreeEngine::open(to_read).unwrap();
        let problems = bench.engine.verify().unwrap().problems;
        assert_eq!(problems.len(), 1, "page {page}: {problems:#?}");
        assert!(problems[0].what.contains("meta page"), "{problems:#?}");
        // An opening for writing mends it.
        bench.engine = BTreeEngine::open(context).unwrap();
        bench.verify();
        bench.put(b"b", b"2");
        bench.engine.flush().unwrap();
        bench.verify();
    }
}

/// A tree whose file is mapped.
fn mapped() -> (Bench, Arc<BTreeEngine>) {
    let fs: Arc<dyn Fs> = Arc::new(crate::fs::SimFs::with_maps());
    let mut bench = Bench::new(Arc::clone(&fs), Path::new("/ks"), PAGE_SIZE, true);
    let engine = BTreeEngine::with_no_file(bench.context_on(&fs, true)).unwrap();
    bench.engine = Arc::clone(&engine) as _;
    (bench, engine)
}

/// A load made known pages unknown beside a checkpoint that made the map anew, which brought back
/// what was known before.
#[test]
fn what_is_known_of_pages_is_void_when_a_load_reserves_them() {
    let (mut bench, engine) = mapped();
    // More than a load reserves at once, and every page of it is looked at.
    fill(&mut bench, 80_000, 80);
    bench.engine.flush().unwrap();
    bench.check_all();
    bench.apply(vec![OwnedOp::DeleteRange(Vec::new(), None)]);
    for n in 0..3 {
        bench.put(b"k", &[n]);
        bench.engine.flush().unwrap();
    }
    let pager = &engine.tree().shared.pager;
    let mut load = Arc::clone(&engine).begin_load().unwrap();
    // A few leaves.
    for n in 0..40 {
        load.put(&key(n), &[1; 80]).unwrap();
    }
    let runs = engine.tree().checkpointer.lock().free().reserved_runs();
    let is_old = |(start, _): &(u64, u64)| *start < pager.units();
    assert!(runs.iter().any(is_old), "a place that was used before");
    for (start, len) in runs {
        for page in start..start + len {
            assert!(!pager.is_known(page), "{page}");
        }
    }
}

/// A compaction cut the file to its end, which was behind what a load had reserved and not written:
/// a sound file was said to be damaged.
#[test]
fn nothing_is_cut_while_a_load_has_pages_behind_the_end() {
    let (mut bench, engine) = mapped();
    fill(&mut bench, 100, 80);
    bench.engine.flush().unwrap();
    let mut load = Arc::clone(&engine).begin_load().unwrap();
    // A few leaves: pages are reserved.
    for n in 0..40 {
        load.put(&key(n), &[1; 80]).unwrap();
    }
    // As a compaction does at its end.
    let tree = engine.tree();
    let checkpointer = tree.checkpointer.lock();
    let units = checkpointer.free().file_units;
    tree.shared.pager.shrink(units).unwrap();
    drop(checkpointer);
    bench.check_all();
    drop(load);
    bench.engine.compact().unwrap();
    bench.check_all();
    bench.verify();
}

/// A load whose record was refused, on a full disk say, kept its pages until the store was opened
/// again, and so did each retry.
#[test]
fn a_load_whose_record_was_not_written_gives_its_pages_back() {
    for may_be_logged in [false, true] {
        let (mut bench, engine) = mapped();
        fill(&mut bench, 100, 50);
        bench.engine.flush().unwrap();
        for _ in 0..2 {
            let mut load = Arc::clone(&engine).begin_load().unwrap();
            for i in 0..3000 {
                load.put(&key(i), &[7; 100]).unwrap();
            }
            load.close().unwrap();
            let refused = load.finish(&mut |_| {
                Err(LoadFailed {
                    error: Error::invalid("no room"),
                    may_be_logged,
                })
            });
            assert!(matches!(refused, Err(Error::InvalidArgument { .. })));
        }
        let reserved = engine.tree().checkpointer.lock().free().reserved_runs();
        assert_eq!(reserved.is_empty(), !may_be_logged, "{reserved:?}");
        fill(&mut bench, 200, 50);
        bench.check_all();
    }
}

/// A checkpoint that panics, in a file system of a user's say, may have written anything: it must
/// leave the free space as it was, and be the last one.
#[test]
fn a_checkpoint_that_panics_is_the_last_and_changes_no_free_space() {
    let (fs, mut bench) = Bench::in_memory(PAGE_SIZE);
    fill(&mut bench, 2000, 50);
    bench.engine.flush().unwrap();
    let free_bytes = bench.engine.stats().free_bytes;
    fill(&mut bench, 1000, 40);
    fs.on_change(|_, operation| assert_ne!(operation.op, "write", "no write"));
    let engine = Arc::clone(&bench.engine);
    assert!(catch_unwind(AssertUnwindSafe(|| engine.flush())).is_err());
    fs.clear_hook();
    assert!(
        bench.engine.flush().is_err(),
        "it may have written anything"
    );
    assert_eq!(bench.engine.stats().free_bytes, free_bytes);
    bench.check_all();
}
