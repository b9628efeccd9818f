//! What goes on beside a compaction of all tables.

use std::sync::mpsc;

use super::storage::{Live, in_memory, key_of};
use super::*;
use crate::engine::Work;
use crate::testing::Gate;

/// Runs `beside` while a compaction of all tables is at work.
fn beside_full_compaction(beside: impl FnOnce(&Live, &FakeHost)) -> Live {
    let world = in_memory();
    let host = Arc::<FakeHost>::default();
    let mut context = world.context();
    context.host = Arc::<FakeHost>::clone(&host);
    let live = Live::of(&world, LsmEngine::create(context).unwrap());
    for round in 0..3_u64 {
        for number in 0..2000 {
            live.put(&key_of(number), &round.to_le_bytes());
        }
        live.flush();
        live.settle();
    }
    let (reached, is_reached) = mpsc::channel();
    let (go_on, outcome) = mpsc::channel();
    *host.job_gate.lock() = Some(Gate { reached, outcome });
    thread::scope(|scope| {
        let compacting = scope.spawn(|| live.engine.compact());
        is_reached.recv().unwrap();
        // If this panics, the other thread learns of it.
        let go_on = go_on;
        beside(&live, &host);
        go_on.send(Ok(())).unwrap();
        compacting.join().unwrap().unwrap();
    });
    live
}

/// Nothing went down beside it, nor was joined: level 0 grew until it ended, and writers were
/// slowed to next to nothing.
#[test]
fn level_0_stays_short_beside_a_full_compaction() {
    const FLUSHES: u64 = 100;
    let mut most = 0;
    let live = beside_full_compaction(|live, _| {
        for flush in 0..FLUSHES {
            for number in 0..20 {
                live.put(&key_of(number * 100 + flush), &flush.to_le_bytes());
            }
            live.flush();
            live.settle();
            most = most.max(live.engine.stats().levels[0].files);
            assert_eq!(
                live.engine.pressure(),
                Pressure::None,
                "after {flush} flushes"
            );
        }
    });
    // Three of before, and what is joined whenever that doubles the size.
    assert!(most <= 12, "{most} tables");
    live.settle();
    let expected: Map = (0..2000)
        .map(|number| {
            (
                key_of(number).to_vec(),
                (number % FLUSHES).to_le_bytes().to_vec(),
            )
        })
        .collect();
    assert_eq!(live.entries(), expected);
}

/// A join that failed beside it was forgotten when it ended.
#[test]
fn what_failed_beside_a_full_compaction_is_still_owed() {
    let live = beside_full_compaction(|live, host| {
        for number in 0..4 {
            live.put(&key_of(number), b"beside");
            live.flush();
        }
        let (reached, _is_reached) = mpsc::channel();
        let (fails, outcome) = mpsc::channel();
        fails.send(Err(Error::invalid("no space"))).unwrap();
        *host.job_gate.lock() = Some(Gate { reached, outcome });
        live.engine.run_once(Work::Compact).unwrap_err();
    });
    assert!(live.engine.still_owes(Work::Compact, false));
    live.settle();
    assert!(!live.engine.still_owes(Work::Compact, false));
}
