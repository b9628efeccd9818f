//! Opening and closing the store, and making and dropping its keyspaces.

use hedgerow::{EngineKind, Error, KeyspaceOptions};
use support::rig::{Sizes, keyspace_options_with};

use super::{Driver, Map, Presence, ROOT, Slot};

/// How often something is tried that may fail once.
const TRIES: usize = 2;

impl Driver {
    /// Opens the store if it is not open.
    pub fn open(&mut self) -> bool {
        for _ in 0..TRIES {
            if self.db.is_some() || self.lost_sight {
                break;
            }
            let options = self.options.clone();
            self.db = self.attempt("opening", false, || options.open(ROOT));
        }
        self.db.is_some()
    }

    /// Makes the keyspace `name`, or opens it.
    pub fn make(&mut self, name: &'static str, engine: EngineKind) {
        self.make_with(name, engine, |options| options);
    }

    /// As [`Driver::make`], with more options.
    pub fn make_with(
        &mut self,
        name: &'static str,
        engine: EngineKind,
        more: fn(KeyspaceOptions) -> KeyspaceOptions,
    ) {
        for _ in 0..TRIES {
            if !self.open() {
                return;
            }
            let db = self.db.clone().expect("an open store");
            if self.presence(name) == Some(Presence::Unknown) {
                // The store decides what became of it.
                match self.attempt("finding a keyspace", false, || db.existing_keyspace(name)) {
                    None => continue,
                    Some(found) => {
                        // Not before the next opening, if the drop was logged and its sync failed.
                        let is_open = self.position.is_some_and(|p| p.may_end_writing());
                        let slot = self.slots.get_mut(name).expect("a slot");
                        slot.presence = match found {
                            Some(_) if is_open => Presence::Unknown,
                            Some(_) => Presence::Present,
                            None => Presence::Gone,
                        };
                        let is_found = found.is_some();
                        slot.handle = found;
                        if is_found {
                            return;
                        }
                    }
                }
            }
            if self
                .presence(name)
                .is_none_or(|presence| presence == Presence::Gone)
            {
                let slot = Slot {
                    of: self.incarnations,
                    engine,
                    presence: Presence::Unknown,
                    handle: None,
                };
                self.incarnations += 1;
                self.live.resize(self.incarnations, Map::new());
                self.slots.insert(name, slot);
            }
            let memtable = self.memtable;
            let options = more(keyspace_options_with(engine, Sizes::Tiny, memtable));
            self.has_filter |= options.compaction_filter.is_some();
            let handle = self.attempt("making a keyspace", false, || {
                db.keyspace_with(name, options)
            });
            if let Some(handle) = handle {
                let slot = self.slots.get_mut(name).expect("a slot");
                slot.handle = Some(handle);
                slot.presence = Presence::Present;
                return;
            }
        }
    }

    fn presence(&self, name: &str) -> Option<Presence> {
        self.slots.get(name).map(|slot| slot.presence)
    }

    /// Drops the keyspace `name`.
    pub fn drop_keyspace(&mut self, name: &'static str) {
        let Some(db) = self.db.clone() else { return };
        for _ in 0..TRIES {
            let Some(slot) = self.slots.get_mut(name) else {
                return;
            };
            slot.handle = None;
            let was = slot.presence;
            slot.presence = Presence::Unknown;
            let mut gone = false;
            let dropped = self.attempt("dropping a keyspace", false, || {
                match db.drop_keyspace(name) {
                    Err(Error::NoSuchKeyspace { .. }) if was == Presence::Unknown => {
                        gone = true;
                        Ok(())
                    }
                    other => other,
                }
            });
            if dropped.is_some() {
                self.slots.get_mut(name).expect("a slot").presence = Presence::Gone;
                return;
            }
        }
    }

    /// Gives the keyspace `old` the name `new`, which none has.
    pub fn rename(&mut self, old: &'static str, new: &'static str) {
        let Some(db) = self.db.clone() else { return };
        if self.presence(old) != Some(Presence::Present) {
            return;
        }
        let renamed = self.attempt("renaming a keyspace", false, || {
            db.rename_keyspace(old, new)
        });
        let mut slot = self.slots.remove(old).expect("a slot");
        if renamed.is_none() {
            // It has either name after the next opening.
            let under_the_other = Slot {
                of: slot.of,
                engine: slot.engine,
                presence: Presence::Unknown,
                handle: None,
            };
            self.slots.insert(new, under_the_other);
            slot.presence = Presence::Unknown;
            self.slots.insert(old, slot);
            return;
        }
        if let Some(handle) = &slot.handle {
            assert_eq!(handle.name(), new);
        }
        self.slots.insert(new, slot);
    }

    /// Closes the store, properly or by dropping it, and opens it again.
    pub fn reopen(&mut self, properly: bool) {
        let Some(db) = self.db.take() else { return };
        self.stuck.borrow_mut().clear();
        self.several_failed.set(false);
        // What is read from the log from now on is there.
        self.apart.clear();
        for slot in self.slots.values_mut() {
            slot.handle = None;
        }
        if properly && self.attempt("closing", false, || db.close()).is_some() {
            self.durable = self.acknowledged.len();
        }
        drop(db);
        if !self.open() {
            self.lost_sight = true;
            return;
        }
        let names: Vec<_> = self
            .slots
            .iter()
            .filter(|(_, slot)| slot.presence != Presence::Gone)
            .map(|(name, slot)| (*name, slot.engine))
            .collect();
        let db = self.db.clone().expect("an open store");
        for (name, _) in names {
            let found = self.attempt("finding a keyspace", false, || db.existing_keyspace(name));
            let slot = self.slots.get_mut(name).expect("a slot");
            match (found, slot.presence) {
                (Some(Some(handle)), _) => {
                    slot.presence = Presence::Present;
                    slot.handle = Some(handle);
                }
                (Some(None), Presence::Unknown) => slot.presence = Presence::Gone,
                (Some(None), _) => panic!("keyspace {name} is not there after reopening"),
                (None, _) => return self.lose_sight(),
            }
        }
        // What failed before may be there now.
        if self.fs.fired() > 0 {
            let Some(found) = self.read_all() else {
                return self.lose_sight();
            };
            self.adopt(&found, self.position.is_some_and(|p| p.loses_synced()));
        }
    }

    fn lose_sight(&mut self) {
        self.lost_sight = true;
        for slot in self.slots.values_mut() {
            slot.handle = None;
        }
        self.db = None;
    }
}
