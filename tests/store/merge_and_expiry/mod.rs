//! What a value may do besides being there: be merged with operands, expire, be filtered.

mod expiry;
mod filters;
mod lockstep;
mod merges;
mod transactions;

use std::sync::Arc;

use hedgerow::fs::SimFs;
use hedgerow::{
    Db, Durability, EngineKind, Error, Keyspace, KeyspaceOptions, ManualClock, Options,
};
use support::sizes::{Sizes, keyspace_options, single_threaded};

use super::both_engines::on_both_engines;

const STORE: &str = "/store";

/// A store that can be opened again, whose clock stands still.
struct World {
    fs: SimFs,
    clock: ManualClock,
}

impl World {
    fn new() -> Self {
        let world = Self {
            fs: SimFs::new(),
            clock: ManualClock::new(),
        };
        world.advance_ms(1_000_000);
        world
    }

    fn advance_ms(&self, ms: u64) {
        self.clock.advance(std::time::Duration::from_millis(ms));
    }

    /// Sweeps are due ten milliseconds after the last one, by the clock of the store.
    fn options(&self) -> Options {
        single_threaded(Arc::new(self.fs.clone()))
            .durability(Durability::Buffered)
            .clock(self.clock.clone())
            .sweep_period(std::time::Duration::from_millis(10))
    }

    fn open(&self) -> Db {
        self.options().open(STORE).unwrap()
    }
}

fn tiny(engine: EngineKind) -> KeyspaceOptions {
    keyspace_options(engine, Sizes::Tiny)
}

fn appending(engine: EngineKind) -> KeyspaceOptions {
    tiny(engine).merge_operator("append")
}

fn expiring(engine: EngineKind) -> KeyspaceOptions {
    tiny(engine).expiry(true)
}

fn keyspace(db: &Db, options: KeyspaceOptions) -> Keyspace {
    db.keyspace_with("data", options).unwrap()
}

#[track_caller]
fn refused<T: std::fmt::Debug>(result: hedgerow::Result<T>, words: &[&str]) {
    match result {
        Err(Error::InvalidArgument { what, .. }) => {
            assert!(words.iter().all(|word| what.contains(word)), "{what}");
        }
        other => panic!("{other:?}"),
    }
}

fn text(value: Option<hedgerow::Value>) -> String {
    value.map_or_else(
        || "-".into(),
        |value| String::from_utf8(value.to_vec()).unwrap(),
    )
}

/// All keys and values, forwards and backwards, which must agree.
#[track_caller]
fn all(keyspace: &Keyspace) -> Vec<String> {
    let pair = |entry: hedgerow::Result<(hedgerow::Value, hedgerow::Value)>| {
        let (key, value) = entry.unwrap();
        format!("{} {}", text(Some(key)), text(Some(value)))
    };
    let forward: Vec<_> = keyspace.iter().map(pair).collect();
    let mut backward: Vec<_> = keyspace.iter().rev().map(pair).collect();
    backward.reverse();
    assert_eq!(forward, backward);
    assert_eq!(keyspace.len().unwrap(), forward.len() as u64);
    forward
}
