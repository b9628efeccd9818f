//! Reads beside everything that replaces the view that they need.

use std::path::Path;
use std::sync::Arc;

use super::World;
use crate::engine::Engine;
use crate::fs::SimFs;
use crate::lsm::LsmEngine;
use crate::testing::then;
use crate::types::{Op, SeqNo, SequencedOp};

fn put(engine: &LsmEngine, seq: u64) {
    let value = seq.to_le_bytes();
    let (key, value) = (&b"always there"[..], &value[..]);
    let op = Op::Put { key, value };
    engine.apply(&[SequencedOp::new(SeqNo(seq), op)]).unwrap();
}

/// A read took its number and then its view: between the two the key was overwritten and flushed,
/// so that only the new version was there, which is too new for that number. The key, which is
/// always there, was reported absent.
#[test]
fn a_key_that_is_overwritten_and_flushed_beside_a_read_is_there() {
    let world = World::new(Arc::new(SimFs::new()), Path::new("/lsm"));
    let engine = LsmEngine::create(world.context()).unwrap();
    let tracker = &world.snapshot_tracker;
    let reads: [fn(&LsmEngine) -> bool; 3] = [
        |engine| engine.get(b"always there", &mut |_| {}).unwrap(),
        |engine| engine.multi_get(&[b"always there"]).unwrap()[0].is_some(),
        |engine| {
            let mut cursor = engine.view().unwrap().cursor();
            cursor.seek_first().unwrap();
            cursor.is_valid()
        },
    ];
    for (round, is_found) in reads.into_iter().enumerate() {
        let seq = 2 * round as u64 + 1;
        put(&engine, seq);
        tracker.publish(SeqNo(seq));
        let (beside, numbers) = (Arc::clone(&engine), Arc::clone(tracker));
        then(move || {
            put(&beside, seq + 1);
            numbers.publish(SeqNo(seq + 1));
            beside.flush().unwrap();
            beside.compact().unwrap();
        });
        assert!(is_found(&engine), "read {round}");
    }
}
