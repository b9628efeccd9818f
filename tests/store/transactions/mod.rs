//! Transactions: that they are serializable, in the order of their commits and exactly; what each
//! isolation permits; what a crash leaves of them; and what else their interface promises.
//!
//! The sequence number of a commit is its place in the order of commits. So no order has to be
//! searched for: threads run random transactions, note every step with what it gave, and then all
//! of them are run once more, one after the other in that order, on ordered maps ([`serial`]). A
//! serializable transaction must read in its turn what it read beside the others.

mod anomalies;
mod crashes;
mod interface;
mod lockstep;
mod program;
mod serial;

use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};

use hedgerow::{Durability, EngineKind, Isolation, Keyspace, MemtableKind, TransactionOptions};
use support::random::{Random, Source};
use support::rig::{Place, Rig, Sizes, effort, figure};

use self::program::{KEYS, KEYSPACES, Record, Runner, key};
use self::serial::{State, check};

const THREADS: usize = 4;
/// Attempts of a thread in a round.
const ATTEMPTS: usize = 60;
/// Rounds of all configurations at the lowest effort.
const ROUNDS: u64 = 660;

/// One LSM tree and two B-trees.
pub(crate) fn keyspaces(rig: &mut Rig) -> [Keyspace; KEYSPACES] {
    [
        rig.keyspace("lsm", EngineKind::Lsm),
        rig.keyspace("btree", EngineKind::BTree),
        rig.keyspace("second btree", EngineKind::BTree),
    ]
}

/// What the keyspaces hold.
pub(crate) fn contents(keyspaces: &[Keyspace; KEYSPACES]) -> State {
    let map = |keyspace: &Keyspace| {
        let index = |found: &[u8]| (0..KEYS).find(|at| key(*at).as_bytes() == found);
        let entries = keyspace.iter().map(|entry| {
            let (found, value) = entry.unwrap();
            let value = program::decode(&value);
            (index(&found).expect("a key of the test"), value)
        });
        entries.collect()
    };
    State(std::array::from_fn(|at| map(&keyspaces[at])))
}

/// One thread's part of a round.
fn attempts(runner: &Runner<'_>, seed: u64) -> Vec<Record> {
    let mut random = Random::new(seed);
    let mut records = Vec::new();
    for _ in 0..ATTEMPTS {
        let durability = match random.one_in(8) {
            true => Durability::Sync,
            false => Durability::Buffered,
        };
        if random.one_in(6) {
            records.push(runner.plain_write(&mut random, durability));
            continue;
        }
        let isolation = match random.one_in(4) {
            true => Isolation::Snapshot,
            false => Isolation::Serializable,
        };
        let read_only = random.one_in(8);
        let options = TransactionOptions::new()
            .isolation(isolation)
            .durability(durability)
            .read_only(read_only);
        records.push(runner.transaction(&mut random, options, isolation, read_only));
        if random.one_in(40) {
            runner.maintain(&mut random);
        }
    }
    records
}

/// One round: what all threads did.
fn round(runner: &Runner<'_>, seed: u64) -> Vec<Record> {
    let start = Barrier::new(THREADS);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let start = &start;
                scope.spawn(move || {
                    start.wait();
                    attempts(runner, seed * THREADS as u64 + thread as u64)
                })
            })
            .collect();
        let records = threads.into_iter().map(|thread| match thread.join() {
            Ok(records) => records,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        records.collect::<Vec<_>>().concat()
    })
}

/// Runs rounds on a store; returns how many transactions were committed, and how many met a
/// conflict.
fn run(mut rig: Rig, rounds: u64, first_seed: u64) -> [u64; 2] {
    let keyspaces = keyspaces(&mut rig);
    let next_value = AtomicU64::new(1);
    let db = rig.db().clone();
    let runner = Runner {
        db: &db,
        keyspaces: &keyspaces,
        next_value: &next_value,
    };
    let mut state = State::default();
    let mut tally = [0; 2];
    for seed in first_seed..first_seed + rounds {
        let records = round(&runner, seed);
        match check(&state, &records) {
            Ok(mut states) => state = states.pop_last().expect("the first").1,
            Err(reason) => panic!("seed {seed}: {reason}"),
        }
        assert_eq!(contents(&keyspaces), state, "seed {seed}");
        for record in records.iter().filter(|record| record.is_transaction) {
            tally[usize::from(record.seq.is_none())] += 1;
        }
    }
    assert!(db.verify().unwrap().is_clean());
    tally
}

#[test]
fn transactions_are_serializable() {
    let rounds = ROUNDS * effort();
    let tiny = |place| Rig::new(place, Sizes::Tiny);
    let mut total = [0; 2];
    let configurations = [
        (tiny(Place::Memory), rounds / 2),
        (
            tiny(Place::Memory)
                .with_memtable(MemtableKind::SkipList)
                .with(|options| options.background_threads(2)),
            rounds * 2 / 5,
        ),
        // A disk makes those wait that sync.
        (tiny(Place::Disk), rounds / 10),
    ];
    for (seed, (rig, rounds)) in (0..).zip(configurations) {
        let tally = run(rig, rounds, seed << 32);
        for (total, count) in total.iter_mut().zip(tally) {
            *total += count;
        }
    }
    figure("serializable transactions", total[0]);
    figure("transactions with conflicts", total[1]);
    assert!(total[1] > total[0] / 50, "hardly any conflicts: {total:?}");
    assert!(total[0] > total[1], "hardly any commits: {total:?}");
}

/// Every value is written once.
fn fresh(next_value: &AtomicU64) -> u64 {
    next_value.fetch_add(1, Ordering::Relaxed)
}
