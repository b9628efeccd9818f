//! The file follows the data down, and what changes nothing writes nothing.

use super::{Bench, OwnedOp, check_scan};
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

#[test]
fn pages_that_came_and_went_while_a_reader_slept_are_reused() {
    alone(
        "btree::tests::space::pages_that_came_and_went_while_a_reader_slept_are_reused",
        || {
            let (_, mut bench) = Bench::in_memory(PAGE_SIZE);
            fill(&mut bench, 1000, 50);
            bench.engine.flush().unwrap();
            let alone = bench.engine.stats().disk_bytes;
            let view = bench.engine.snapshot_view(SeqNo(bench.seq));
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
                    let view = bench.engine.snapshot_view(SeqNo(bench.seq));
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
