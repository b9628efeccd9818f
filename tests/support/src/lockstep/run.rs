//! The store, its models, and the comparison of the two.

use hedgerow::fs::{CrashPolicy, SimFs};
use hedgerow::{
    Batch, Db, Durability, Keyspace, KeyspaceSnapshot, Model, ModelSnapshot, SeqNo, Snapshot,
};

use super::commits::{Commit, apply_to_maps};
use super::compare::{Outcome, agree, failed, walk_together};
use super::coverage::Coverage;
use super::edit::{Bounds, KEYS, KeyNumber, Map, key};
use super::op::{Move, Op};
use super::setting::Setting;

/// A store and its models.
#[derive(Debug)]
pub struct Run {
    pub(super) setting: Setting,
    pub(super) open: Option<Open>,
    pub(super) models: [Model; 2],
    /// The commits since `durable`, oldest first.
    pub(super) history: Vec<Commit>,
    /// The state that a crash cannot take any more.
    pub(super) durable: [Map; 2],
    /// What was covered so far.
    pub coverage: Coverage,
}

#[derive(Debug)]
pub(super) struct Open {
    pub(super) db: Db,
    pub(super) keyspaces: [Keyspace; 2],
    pub(super) snapshots: Vec<(Snapshot, [ModelSnapshot; 2])>,
    /// The number of the last commit, if it is known.
    pub(super) last: Option<SeqNo>,
}

pub(super) const NAMES: [&str; 2] = ["of lsm", "of btree"];

impl Run {
    /// Opens a new store.
    pub fn start(setting: Setting) -> Outcome<Self> {
        let mut run = Self {
            models: setting.models(),
            setting,
            open: None,
            history: Vec::new(),
            durable: Default::default(),
            coverage: Coverage::default(),
        };
        run.open()?;
        Ok(run)
    }

    fn open(&mut self) -> Outcome {
        let db = failed(
            "open",
            self.setting.options.clone().open(&self.setting.path),
        )?;
        let mut keyspaces = Vec::new();
        for (name, options) in NAMES.iter().zip(&self.setting.keyspaces) {
            let before = failed("keyspace", db.existing_keyspace(name))?;
            let before = before.map(|keyspace| keyspace.options());
            let keyspace = failed("keyspace", db.keyspace_with(name, options.clone()))?;
            if let Some(before) = before {
                let story = || format!("the options of {name:?}, against what was set before");
                agree(story, &before, &keyspace.options())?;
            }
            keyspaces.push(keyspace);
        }
        let keyspaces = keyspaces.try_into().expect("two of them");
        self.open = Some(Open {
            db,
            keyspaces,
            snapshots: Vec::new(),
            last: None,
        });
        Ok(())
    }

    pub(super) fn parts(&mut self) -> (&mut Open, &[Model; 2]) {
        (
            self.open.as_mut().expect("open between steps"),
            &self.models,
        )
    }

    /// Performs one operation and compares. `Err` says what differed.
    pub fn step(&mut self, op: &Op) -> Outcome {
        let merged = self.setting.merges.then(|| op.with_merges());
        let op = merged.as_ref().unwrap_or(op);
        self.coverage.operations += 1;
        let open = self.open.as_mut().expect("open between steps");
        let models = &self.models;
        match op {
            Op::Edit(..)
            | Op::Batch(..)
            | Op::CrossBatch(..)
            | Op::Load(..)
            | Op::OneStep(..)
            | Op::Retain(..)
            | Op::ChangeOption(..)
            | Op::Recreate(_) => self.commit(op)?,
            Op::Flush(_) | Op::FlushAll | Op::Sync(_) => self.make_durable(op)?,
            Op::Read(target, read) => read.compare(&open.keyspaces[*target], &models[*target])?,
            Op::TakeSnapshot | Op::ReadSnapshot(..) | Op::DropSnapshot(_) => {
                self.use_snapshots(op)?;
            }
            Op::Compact(target) => {
                failed("compact", open.keyspaces[*target].compact())?;
                self.compare_all()?;
            }
            Op::Background(steps) => {
                for _ in 0..*steps {
                    if !failed("background work", open.db.run_background_once())? {
                        break;
                    }
                }
            }
            Op::Verify => {
                let report = failed("verify", open.db.verify())?;
                agree(|| "verify".into(), &report.problems, &Vec::new())?;
                self.coverage.verifications += 1;
            }
            Op::CompareAll => self.compare_all()?,
            Op::Reopen => {
                let open = self.open.take().expect("open between steps");
                failed("close", open.db.close())?;
                drop(open);
                self.all_durable();
                self.reopened()?;
            }
            Op::Abandon => {
                self.open = None;
                self.reopened()?;
                // Opening makes durable what it found.
                self.all_durable();
            }
            Op::Crash(recoveries) => self.crash(SimFs::crash, recoveries)?,
            Op::CrashKeeping(seed, recoveries) => {
                self.crash(|fs| fs.crash_keeping(*seed), recoveries)?;
            }
            Op::CrashState(seed, recoveries) => {
                let policy = CrashPolicy::new().seed(*seed);
                let state = |fs: &SimFs| {
                    let states = fs.crash_states(&policy);
                    states.state(*seed as usize % states.len()).fs
                };
                self.crash(state, recoveries)?;
            }
            Op::Kill => self.kill()?,
        }
        Ok(())
    }

    fn use_snapshots(&mut self, op: &Op) -> Outcome {
        let open = self.open.as_mut().expect("open between steps");
        let models = &self.models;
        match op {
            Op::TakeSnapshot => {
                if open.snapshots.len() >= 4 {
                    open.snapshots.remove(0);
                }
                let models = [models[0].snapshot(), models[1].snapshot()];
                open.snapshots.push((open.db.snapshot(), models));
            }
            Op::ReadSnapshot(which, target, bounds, read) => {
                if let Some((snapshot, models)) = pick(&open.snapshots, *which) {
                    let snapshot = snapshot.keyspace(&open.keyspaces[*target]);
                    compare_snapshot(&snapshot, &models[*target], *bounds)?;
                    read.compare(&snapshot, &models[*target])?;
                    self.coverage.snapshot_reads += 1;
                }
            }
            Op::DropSnapshot(which) => {
                if !open.snapshots.is_empty() {
                    let at = which % open.snapshots.len();
                    open.snapshots.swap_remove(at);
                }
            }
            _ => unreachable!("not about snapshots: {op:?}"),
        }
        Ok(())
    }

    /// Compares everything a last time.
    pub fn finish(mut self) -> Outcome<Coverage> {
        self.step(&Op::CompareAll)?;
        self.step(&Op::Verify)?;
        self.step(&Op::Reopen)?;
        self.step(&Op::Verify)?;
        Ok(self.coverage)
    }

    fn reopened(&mut self) -> Outcome {
        self.coverage.reopens += 1;
        self.open()?;
        self.compare_all()
    }

    /// Everything in both keyspaces.
    fn contents(&mut self) -> Outcome<[Map; 2]> {
        let (open, _) = self.parts();
        let mut found = [Map::new(), Map::new()];
        for (keyspace, map) in open.keyspaces.iter().zip(&mut found) {
            for item in keyspace.iter() {
                let (key, value) = failed("read after a crash", item)?;
                map.insert(key.to_vec(), value.to_vec());
            }
        }
        Ok(found)
    }

    fn compare_all(&mut self) -> Outcome {
        let (open, models) = self.parts();
        for (keyspace, model) in open.keyspaces.iter().zip(models) {
            for step in [Move::Front(u8::MAX), Move::Back(u8::MAX)] {
                walk_together(keyspace.iter(), model.iter(), &[step; 5])?;
            }
        }
        Ok(())
    }

    /// Kills the process. Everything acknowledged is there for the next one, and once that has
    /// opened the store, a power loss cannot take it either.
    fn kill(&mut self) -> Outcome {
        let Some(mem) = &self.setting.mem else {
            return Ok(());
        };
        let image = mem.killed();
        self.open = None;
        self.coverage.kills += 1;
        self.setting.boot(image.clone());
        self.open()?;
        self.compare_all()?;
        let again = image.crash();
        self.open = None;
        self.setting.boot(again);
        self.all_durable();
        self.reopened()
    }

    /// Crashes, interrupts recoveries, and finds out what is left.
    fn crash(&mut self, crash: impl FnOnce(&SimFs) -> SimFs, recoveries: &[u64]) -> Outcome {
        let Some(mem) = &self.setting.mem else {
            return Ok(());
        };
        // The power fails while the store is open; what it does from then on is lost on it.
        let mut image = crash(mem);
        self.open = None;
        self.coverage.crashes += 1;
        for after in recoveries {
            // The recovery is cut short by an error, and the power fails once more.
            image.fail_after(*after, std::io::ErrorKind::Other);
            self.setting.boot(image.clone());
            if self.open().is_err() {
                self.coverage.interrupted_recoveries += 1;
            }
            self.open = None;
            image = image.crash_keeping(*after);
        }
        self.setting.boot(image.clone());
        self.open()?;
        let found = self.contents()?;

        // What a recovered store has shown cannot be lost to the next power loss.
        let again = image.crash();
        self.open = None;
        self.setting.boot(again);
        self.open()?;
        if self.contents()? != found {
            return Err("what was there after a crash is not there after a second one".into());
        }
        let mut state = std::mem::take(&mut self.durable);
        let history = std::mem::take(&mut self.history);
        let mut commits = history.iter();
        while state != found {
            let Some(commit) = commits.next() else {
                return Err(not_a_prefix(&state, &found, history.len()));
            };
            apply_to_maps(&mut state, commit);
        }
        self.durable = state;
        self.models = self.setting.models();
        for (model, map) in self.models.iter().zip(&found) {
            let mut batch = Batch::new();
            for (key, value) in map {
                batch.put(key, value);
            }
            failed(
                "refill the model",
                model.write_with(batch, Durability::Sync),
            )?;
        }
        self.step(&Op::Verify)
    }
}

fn pick<T>(items: &[T], which: usize) -> Option<&T> {
    (!items.is_empty()).then(|| &items[which % items.len()])
}

fn compare_snapshot(found: &KeyspaceSnapshot, expected: &ModelSnapshot, bounds: Bounds) -> Outcome {
    let moves = [Move::Front(30), Move::Back(30)];
    let wanted = expected.range(bounds.keys());
    walk_together(found.range(bounds.keys()), wanted, &moves)?;
    for number in (0..KEYS as KeyNumber).step_by(97) {
        let value = failed("get in a snapshot", found.get(key(number)))?;
        let wanted = failed("get of the model", expected.get(key(number)))?;
        agree(|| format!("snapshot: {number}"), &value, &wanted)?;
    }
    Ok(())
}

/// Says how the state after a crash differs from the state after the last commit.
fn not_a_prefix(expected: &[Map; 2], found: &[Map; 2], undurable: usize) -> String {
    let mut text = format!(
        "after a crash the store is not the state after a prefix of the {undurable} commits \
         since the last durable one; differences from the state after all of them:"
    );
    for at in 0..2 {
        for (key, value) in &expected[at] {
            if found[at].get(key) != Some(value) {
                let state = if found[at].contains_key(key) {
                    "different"
                } else {
                    "missing"
                };
                text += &format!(
                    "\n  {}: {:?} is {state}",
                    NAMES[at],
                    &key[..key.len().min(60)]
                );
            }
        }
        for key in found[at]
            .keys()
            .filter(|key| !expected[at].contains_key(*key))
        {
            text += &format!(
                "\n  {}: {:?} is extra",
                NAMES[at],
                &key[..key.len().min(60)]
            );
        }
    }
    text.truncate(
        text.char_indices()
            .nth(4000)
            .map_or(text.len(), |(at, _)| at),
    );
    text
}
