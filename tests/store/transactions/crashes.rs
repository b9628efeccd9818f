//! Power losses and kills beside transactions: each is there as a whole or not at all, and what is
//! there is a prefix of the order of commits.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use hedgerow::SeqNo;
use hedgerow::fs::SimFs;
use support::random::{Random, Source};
use support::rig::{Place, Rig, Sizes, effort, figure};

use super::program::Runner;
use super::serial::{State, check};
use super::{contents, keyspaces, round};

/// Rounds at the lowest effort.
const ROUNDS: u64 = 30;
/// Images of a round, at most.
const IMAGES: usize = 6;

/// A disk after a crash, and up to where commits must have survived that.
struct Image {
    fs: SimFs,
    what: &'static str,
    from: SeqNo,
}

/// What one of them leaves at this moment.
fn crash(rig: &Rig, db: &hedgerow::Db, random: &mut Random) -> Image {
    let durable = db.durable_seq();
    let image = |fs, what, from| Image { fs, what, from };
    match random.below(3) {
        0 => image(rig.mem().crash(), "power loss", durable),
        1 => {
            let fs = rig.mem().crash_keeping(random.bits());
            image(fs, "power loss that kept some", durable)
        }
        _ => {
            let visible = db.snapshot().seq();
            image(rig.mem().killed(), "kill", visible)
        }
    }
}

#[test]
fn transactions_are_whole_after_a_crash() {
    let mut images = 0;
    for seed in 0..ROUNDS * effort() {
        let mut rig = Rig::new(Place::Memory, Sizes::Tiny);
        let opened = keyspaces(&mut rig);
        let db = rig.db().clone();
        db.sync().unwrap();
        let next_value = AtomicU64::new(1);
        let runner = Runner {
            db: &db,
            keyspaces: &opened,
            next_value: &next_value,
        };
        let is_over = AtomicBool::new(false);
        let (records, taken) = std::thread::scope(|scope| {
            let crashes = scope.spawn(|| {
                let mut random = Random::new(seed);
                let mut taken = Vec::new();
                while !is_over.load(Ordering::Relaxed) && taken.len() < IMAGES {
                    for _ in 0..random.below(40) {
                        std::thread::yield_now();
                    }
                    taken.push(crash(&rig, &db, &mut random));
                }
                taken.push(crash(&rig, &db, &mut random));
                taken
            });
            let records = round(&runner, seed);
            is_over.store(true, Ordering::Relaxed);
            (records, crashes.join().expect("no panic"))
        });
        let states = check(&State::default(), &records).expect("serializable");
        for Image { fs, what, from } in taken {
            images += 1;
            let mut after =
                Rig::new(Place::Memory, Sizes::Tiny).with(|options| options.fs(Arc::new(fs)));
            let found = contents(&keyspaces(&mut after));
            let (first, _) = states.range(..=from).next_back().expect("the first");
            let is_prefix = states.range(first..).any(|(_, state)| *state == found);
            assert!(
                is_prefix,
                "seed {seed}: after a {what} with everything up to {from} there is {found:#?}"
            );
            assert!(after.db().verify().unwrap().is_clean());
        }
    }
    figure("crash images with transactions", images);
}
