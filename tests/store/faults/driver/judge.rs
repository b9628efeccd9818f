//! What a store must hold after a workload, on a disk that is in order again.

use std::path::Path;
use std::sync::Arc;

use hedgerow::fs::SimFs;
use hedgerow::{Durability, Error, Result};

use super::{Driver, Edit, Map, Presence, ROOT, Slot, State, apply};

impl Driver {
    /// Takes over what the store holds, if it may: all that was acknowledged, or with `loss` all of
    /// it that is durable and any more in order; and at the end perhaps one commit that failed.
    #[track_caller]
    pub(super) fn adopt(&mut self, found: &State, loss: bool) {
        let visible = |state: &State| {
            let mut state = state.clone();
            for (map, found) in state.iter_mut().zip(found) {
                self.drop_filtered(map, found);
            }
            state.resize(self.incarnations, Map::new());
            for (of, map) in state.iter_mut().enumerate() {
                let there = self
                    .slots
                    .values()
                    .any(|slot| slot.of == of && slot.presence != Presence::Gone);
                if !there {
                    map.clear();
                }
                self.times.expire(map);
            }
            state
        };
        let least = if loss {
            self.durable
        } else {
            self.acknowledged.len()
        };
        let mut state = State::new();
        let mut kept = None;
        for n in 0..=self.acknowledged.len() {
            if n > 0 {
                apply(&self.acknowledged[n - 1], &mut state);
            }
            if n >= least && visible(&state) == *found {
                kept = Some((n, None));
            }
        }
        if kept.is_none() {
            for (at, commit) in self.doubtful.iter().enumerate() {
                let mut with = state.clone();
                apply(commit, &mut with);
                if visible(&with) == *found {
                    kept = Some((self.acknowledged.len(), Some(at)));
                }
            }
        }
        let Some((n, doubtful)) = kept else {
            panic!(
                "the store holds what no prefix of its commits makes: {} acknowledged, {least} \
                 must be there, {} failed at the end",
                self.acknowledged.len(),
                self.doubtful.len()
            );
        };
        self.acknowledged.truncate(n);
        if let Some(at) = doubtful {
            let commit = self.doubtful.swap_remove(at);
            self.acknowledged.push(commit);
        }
        self.doubtful.clear();
        self.durable = self.durable.min(self.acknowledged.len());
        self.live = found.clone();
    }

    /// What must hold once the workload is over.
    pub fn finish(mut self) {
        self.check();
        self.fs.heal();
        let excuse = self.position.take();
        // Without reopening: once the disk works again, so does the store, unless a sync failed.
        if let Some(db) = &self.db {
            let refused = |driver: &Self, outcome: &Result<()>| match outcome {
                Ok(()) => false,
                Err(Error::WritesStopped { .. }) => excuse.is_some_and(|p| p.may_end_writing()),
                Err(error) => driver.is_stuck(error),
            };
            let written = self.slots.iter().find_map(|(name, slot)| {
                let handle = slot.handle.clone()?;
                let outcome = handle.put(b"the disk works", *name).map(|_| ());
                Some((*name, slot.of, outcome))
            });
            if let Some((name, of, outcome)) = written {
                assert!(
                    outcome.is_ok() || refused(&self, &outcome),
                    "the disk works again, the store does not: {outcome:?}"
                );
                if outcome.is_ok() {
                    let edit = Edit::Set(b"the disk works".to_vec(), Some(name.into()));
                    let commit = vec![(of, edit)];
                    apply(&commit, &mut self.live);
                    self.acknowledged.push(commit);
                    self.doubtful.clear();
                    self.durable = self.acknowledged.len();
                }
            }
            let flushed = db.flush();
            assert!(
                flushed.is_ok() || refused(&self, &flushed),
                "the disk works again, a flush does not: {flushed:?}"
            );
        }
        // With the disk in order every read works.
        self.check();
        let loses = excuse.is_some_and(|p| p.loses_synced());
        for slot in self.slots.values_mut() {
            slot.handle = None;
        }
        self.db = None;
        self.apart.clear();
        self.fs.evict().expect("a healthy disk");
        let after_power_loss = self.mem.crash();
        let slots: Vec<_> = self
            .slots
            .iter()
            .map(|(name, slot)| (*name, slot.of, slot.engine, slot.presence))
            .collect();
        let (acknowledged, doubtful) = (self.acknowledged.clone(), self.doubtful.clone());
        let durable = self.durable;
        for (mem, loss) in [(self.mem.clone(), loses), (after_power_loss, true)] {
            self.acknowledged.clone_from(&acknowledged);
            self.doubtful.clone_from(&doubtful);
            self.durable = durable;
            for (name, of, engine, presence) in &slots {
                let slot = Slot {
                    of: *of,
                    engine: *engine,
                    presence: *presence,
                    handle: None,
                };
                self.slots.insert(name, slot);
            }
            self.judge(&mem, loss);
        }
    }

    /// The store on a disk in order: it opens, holds what it may, is clean, and takes writes.
    fn judge(&mut self, mem: &SimFs, loss: bool) {
        let why = if loss {
            "a power loss"
        } else {
            "an abrupt end"
        };
        let options = self.options.clone().fs(Arc::new(mem.clone()));
        let db = options
            .clone()
            .open(Path::new(ROOT))
            .unwrap_or_else(|error| {
                panic!("after {why} the store does not open: {error}");
            });
        for (name, slot) in &mut self.slots {
            slot.handle = db
                .existing_keyspace(name)
                .unwrap_or_else(|error| panic!("after {why} keyspace {name}: {error}"));
            match (slot.presence, &slot.handle) {
                (Presence::Present, None) => panic!("after {why} keyspace {name} is gone"),
                (Presence::Gone, Some(_)) => panic!("after {why} keyspace {name} is back"),
                (_, Some(_)) => slot.presence = Presence::Present,
                (_, None) => slot.presence = Presence::Gone,
            }
        }
        self.db = Some(db.clone());
        let found = self.read_all().expect("a healthy disk");
        self.adopt(&found, loss);
        let report = db.verify().expect("a healthy disk");
        assert!(report.is_clean(), "after {why}: {:?}", report.problems);
        let names: Vec<_> = self
            .slots
            .iter()
            .filter(|(_, slot)| slot.handle.is_some())
            .map(|(name, _)| *name)
            .collect();
        for name in &names {
            self.put(name, 1, 50, Durability::Sync);
            self.put(name, 9999, 50, Durability::Buffered);
        }
        db.flush().expect("a healthy disk");
        self.check();
        db.close().expect("a healthy disk");
        drop(db);
        self.db = None;
        let db = options.open(Path::new(ROOT)).expect("a healthy disk");
        for name in names {
            let slot = self.slots.get_mut(name).expect("a slot");
            slot.handle = db.existing_keyspace(name).expect("a healthy disk");
            assert!(slot.handle.is_some(), "keyspace {name} is gone");
        }
        self.check();
        for slot in self.slots.values_mut() {
            slot.handle = None;
        }
    }
}
