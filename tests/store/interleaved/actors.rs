//! Who uses a store at once: writers, readers, those who tidy up, those who make and drop
//! keyspaces, and one who closes it, or closes it and opens it at once.
//!
//! Each draws what it does from a seed of its own, pauses before every call, and tells the history.
//! It ends when it has done its share or when the store says that it is closed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use hedgerow::{Db, Durability, EngineKind, Error, Keyspace, Options, Result, Snapshot, Value};
use support::random::{Random, Source};
use support::sizes::{Sizes, keyspace_options};

use super::history::{Between, Edit, Found, History, digest_from_both_ends, digest_of_scan};
use super::scheduler::Scheduler;
use crate::crash_states::STORE;

/// Keys of a keyspace: few, so that writers meet.
const KEYS: u64 = 40;

/// What the actors share.
pub struct Stage {
    pub db: Db,
    pub options: Options,
    pub history: Arc<History>,
    pub scheduler: Arc<Scheduler>,
    /// Those that stay.
    pub keyspaces: Vec<Keyspace>,
    /// Those that are being made and dropped.
    pub passing: Mutex<Vec<Keyspace>>,
    /// What was read, to be held against the order of commits.
    pub reads: Mutex<Vec<Read>>,
    /// Scans that outlive the handles and the store.
    pub left: Mutex<Vec<(String, Between, Rest)>>,
    /// How many play, and how often the store was closed beside others.
    pub playing: AtomicU64,
    pub closings: AtomicU64,
    /// A number in the names of keyspaces.
    pub era: usize,
}

/// What a scan has still to yield.
pub type Rest = Box<dyn Iterator<Item = Result<(Value, Value)>> + Send>;

/// What a reader saw.
pub enum Read {
    One(String, u64, Between),
    Several(Found, Between),
}

/// A part to play.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Writer,
    Reader,
    Tidier,
    Maker,
    Closer,
    Reopener,
}

/// Plays a part. An error is one that nothing explains.
pub fn play(stage: &Stage, part: Part, number: usize, seed: u64) -> Result<()> {
    let mut actor = Actor {
        stage,
        random: Random::new(seed),
        number,
    };
    stage.playing.fetch_add(1, Ordering::SeqCst);
    let played = match part {
        Part::Writer => actor.write(),
        Part::Reader => actor.read(),
        Part::Tidier => actor.tidy(),
        Part::Maker => actor.make(),
        Part::Closer => actor.close(400),
        Part::Reopener => actor.reopen(),
    };
    stage.playing.fetch_sub(1, Ordering::SeqCst);
    stage.scheduler.leave();
    match played {
        Err(Error::Closed) => Ok(()),
        other => other,
    }
}

struct Actor<'a> {
    stage: &'a Stage,
    random: Random,
    number: usize,
}

impl Actor<'_> {
    fn pause(&self) {
        self.stage.scheduler.pause();
    }

    fn key(&mut self) -> Vec<u8> {
        format!("key {:02}", self.random.below(KEYS)).into_bytes()
    }

    fn edit(&mut self) -> Edit {
        match self.random.weighted(&[14, 4, 1]) {
            0 => {
                let len = match self.random.weighted(&[6, 4, 2, 1]) {
                    0 => self.random.below(40),
                    1 => self.random.below(400),
                    2 => self.random.below(3000),
                    _ => self.random.below(9000),
                };
                Edit::Put(self.key(), self.random.bytes(len as usize))
            }
            1 => Edit::Delete(self.key()),
            _ => {
                let (one, two) = (self.key(), self.key());
                Edit::DeleteRange(one.clone().min(two.clone()), one.max(two))
            }
        }
    }

    fn keyspace(&mut self) -> Keyspace {
        self.random.pick(&self.stage.keyspaces).clone()
    }

    fn durability(&mut self) -> Durability {
        match self.random.one_in(4) {
            true => Durability::Sync,
            false => Durability::Buffered,
        }
    }

    /// One commit of these edits. A keyspace that is being dropped refuses it.
    fn commit(&mut self, edits: Vec<(Keyspace, Edit)>) -> Result<()> {
        let durability = self.durability();
        let named = edits
            .iter()
            .map(|(keyspace, edit)| (keyspace.name().to_owned(), edit.clone()))
            .collect();
        let history = &self.stage.history;
        self.stage.scheduler.pause();
        let begun = history.begin(named);
        let committed = match &edits[..] {
            [(keyspace, edit)] => {
                let keyspace = keyspace.with_durability(durability);
                match edit {
                    Edit::Put(key, value) => keyspace.put(key, value),
                    Edit::Delete(key) => keyspace.delete(key),
                    Edit::DeleteRange(low, high) => {
                        keyspace.delete_range(low.as_slice()..high.as_slice())
                    }
                }
            }
            _ => {
                let mut batch = self.stage.db.batch();
                for (keyspace, edit) in &edits {
                    match edit {
                        Edit::Put(key, value) => batch.put(keyspace, key, value),
                        Edit::Delete(key) => batch.delete(keyspace, key),
                        Edit::DeleteRange(low, high) => {
                            batch.delete_range(keyspace, low.as_slice()..high.as_slice());
                        }
                    }
                }
                self.stage.db.write(batch, durability)
            }
        };
        match committed {
            Ok(seq) => history.acknowledge(begun, seq, durability == Durability::Sync),
            Err(Error::NoSuchKeyspace { .. }) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn write(&mut self) -> Result<()> {
        for _ in 0..30 + self.random.below(40) {
            match self.random.weighted(&[20, 8, 2, 1]) {
                0 => {
                    let edit = self.edit();
                    let keyspace = self.keyspace();
                    if !is_nothing(&edit) {
                        self.commit(vec![(keyspace, edit)])?;
                    }
                }
                1 => {
                    let count = 2 + self.random.below(4);
                    let mut edits: Vec<_> =
                        (0..count).map(|_| (self.keyspace(), self.edit())).collect();
                    let passing = self.stage.passing.lock().expect("no panic").last().cloned();
                    if let Some(passing) = passing
                        && self.random.one_in(3)
                    {
                        edits.push((passing, self.edit()));
                    }
                    edits.retain(|(_, edit)| !is_nothing(edit));
                    if edits.len() > 1 {
                        self.commit(edits)?;
                    }
                }
                2 => self.sync(|db| db.sync())?,
                _ => {
                    self.pause();
                    let durable = self.stage.db.durable_seq();
                    self.stage.history.durable(durable);
                }
            }
        }
        Ok(())
    }

    /// A call that makes durable what was committed before it.
    fn sync(&mut self, call: impl FnOnce(&Db) -> Result<()>) -> Result<()> {
        self.pause();
        let acknowledged = self.stage.history.acknowledged();
        call(&self.stage.db)?;
        self.stage.history.durable(acknowledged);
        Ok(())
    }

    fn read(&mut self) -> Result<()> {
        for _ in 0..6 + self.random.below(8) {
            self.pause();
            let from = self.stage.history.mark_visible();
            if self.random.one_in(3) {
                let snapshot = self.stage.db.snapshot();
                let between = Between(from, self.stage.history.mark_visible());
                self.wait();
                let found = self.digests(&snapshot)?;
                let read = Read::Several(found, between);
                self.stage.reads.lock().expect("no panic").push(read);
                continue;
            }
            let keyspace = self.keyspace();
            let mut scan = keyspace.iter();
            let between = Between(from, self.stage.history.mark_visible());
            let name = keyspace.name().to_owned();
            drop(keyspace);
            if self.random.one_in(6) {
                // One that has ended, or that a closed store refused, holds nothing.
                let first = scan.next().transpose()?;
                if let Some(first) = first {
                    let rest = Box::new(std::iter::once(Ok(first)).chain(scan));
                    let mut left = self.stage.left.lock().expect("no panic");
                    left.push((name, between, rest));
                }
                continue;
            }
            self.wait();
            let digest = match self.random.one_in(4) {
                true => digest_from_both_ends(scan)?,
                false => digest_of_scan(scan)?,
            };
            let read = Read::One(name, digest, between);
            self.stage.reads.lock().expect("no panic").push(read);
        }
        Ok(())
    }

    /// Lets others go on.
    fn wait(&mut self) {
        for _ in 0..self.random.below(5) {
            self.pause();
        }
    }

    fn digests(&self, snapshot: &Snapshot) -> Result<Found> {
        let mut found = Found::new();
        for keyspace in self.stage.keyspaces.iter().take(6) {
            let digest = digest_of_scan(snapshot.iter(keyspace))?;
            found.insert(keyspace.name().to_owned(), digest);
        }
        Ok(found)
    }

    fn tidy(&mut self) -> Result<()> {
        for _ in 0..4 + self.random.below(6) {
            self.wait();
            let keyspace = self.keyspace();
            match self.random.weighted(&[5, 2, 2, 1, 1]) {
                0 => keyspace.flush()?,
                1 => self.sync(|db| db.flush())?,
                2 => keyspace.compact()?,
                3 => {
                    let report = self.stage.db.verify()?;
                    assert!(report.is_clean(), "verify: {:#?}", report.problems);
                }
                _ => drop(self.stage.db.stats()),
            }
        }
        Ok(())
    }

    fn make(&mut self) -> Result<()> {
        for at in 0..1 + self.random.below(3) {
            self.wait();
            let name = format!("passing {} {} {at}", self.stage.era, self.number);
            let engine = *self.random.pick(&EngineKind::ALL);
            self.stage.history.making(&name);
            let made = self
                .stage
                .db
                .keyspace_with(&name, keyspace_options(engine, Sizes::Tiny));
            let keyspace = made?;
            self.stage.history.made(&name);
            let mut passing = self.stage.passing.lock().expect("no panic");
            passing.push(keyspace.clone());
            drop(passing);
            for _ in 0..self.random.below(12) {
                let edit = self.edit();
                if !is_nothing(&edit) {
                    self.commit(vec![(keyspace.clone(), edit)])?;
                }
            }
            if self.random.one_in(5) {
                continue;
            }
            let mut passing = self.stage.passing.lock().expect("no panic");
            passing.retain(|other| other.name() != name);
            drop(passing);
            self.pause();
            self.stage.history.dropping(&name);
            self.stage.db.drop_keyspace(&name)?;
            self.stage.history.dropped(&name);
        }
        Ok(())
    }

    /// Closes the store after up to so many turns.
    fn close(&mut self, turns: u64) -> Result<()> {
        for _ in 0..self.random.below(turns) {
            self.pause();
        }
        let beside_others = self.stage.playing.load(Ordering::SeqCst) > 1;
        let closings = &self.stage.closings;
        closings.fetch_add(u64::from(beside_others), Ordering::SeqCst);
        self.stage.db.close()
    }
}

impl Actor<'_> {
    /// Closes the store, and opens it at once, while the others still find out.
    fn reopen(&mut self) -> Result<()> {
        self.close(100)?;
        let next = match self.stage.options.clone().open(STORE) {
            // A scan, a snapshot or a verification of another actor still reads.
            Err(error) if error.is_locked() => return Ok(()),
            opened => opened?,
        };
        let name = self.stage.keyspaces[0].name();
        let keyspace = next.existing_keyspace(&name)?.expect("it stays");
        let value = self.random.bytes(20);
        let edit = Edit::Put(b"mark".to_vec(), value.clone());
        let begun = self.stage.history.begin(vec![(name.to_owned(), edit)]);
        let seq = keyspace
            .with_durability(Durability::Sync)
            .put("mark", &value)?;
        self.stage.history.acknowledge(begun, seq, true);
        next.close()
    }
}

/// It may be committed without a place in the order.
fn is_nothing(edit: &Edit) -> bool {
    matches!(edit, Edit::DeleteRange(low, high) if low == high)
}
