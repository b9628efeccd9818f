//! Commits to the store and its models, and what makes them durable.

use hedgerow::{Batch, Durability, SeqNo};

use super::compare::{Outcome, agree, failed};
use super::edit::{Edit, Filling, KeyNumber, Map, entries_of_load, set};
use super::one_step::OneStep;
use super::op::{Op, Target, Wait};
use super::run::{NAMES, Run};
use crate::block_on::block_on;

/// Their names while they are made again.
const IN_THE_MAKING: [&str; 2] = ["of lsm, new", "of btree, new"];

/// A change of one keyspace.
#[derive(Debug, Clone)]
pub(super) enum Change {
    Edit(Edit),
    /// A key has this value then.
    Set(Vec<u8>, Option<Vec<u8>>),
}

pub(super) type Commit = Vec<(Target, Change)>;

/// Applies a commit, and says by how much the digest of each map changes.
pub(super) fn apply_to_maps(maps: &mut [Map; 2], commit: &Commit) -> [u64; 2] {
    let mut changes = [0_u64; 2];
    for (target, change) in commit {
        let map = &mut maps[*target];
        let by = match change {
            Change::Edit(edit) => edit.apply_to_map(map),
            Change::Set(key, value) => set(map, key.clone(), value.clone()),
        };
        changes[*target] = changes[*target].wrapping_add(by);
    }
    changes
}

fn edits_of(edits: impl IntoIterator<Item = (Target, Edit)>) -> Commit {
    let changes = edits.into_iter();
    changes
        .map(|(target, edit)| (target, Change::Edit(edit)))
        .collect()
}

impl Run {
    /// A commit was acknowledged. Some calls do not tell its number.
    fn committed(&mut self, seq: Option<SeqNo>, commit: Commit, durability: Durability) {
        self.coverage.commits += 1;
        let open = self.open.as_mut().expect("open between steps");
        open.last = seq;
        if self.setting.mem.is_some() {
            self.history.push(commit);
            if durability == Durability::Sync {
                self.all_durable();
            }
        }
    }

    /// Everything committed so far survives any crash.
    pub(super) fn all_durable(&mut self) {
        for commit in std::mem::take(&mut self.history) {
            apply_to_maps(&mut self.durable, &commit);
        }
    }

    /// A keyspace was flushed: the last commit that changed it survives any crash, and with it all
    /// before.
    fn flushed(&mut self, target: Target) {
        let mut state = self.durable.clone();
        let mut until = 0;
        for (at, commit) in self.history.iter().enumerate() {
            if apply_to_maps(&mut state, commit)[target] != 0 {
                until = at + 1;
            }
        }
        for commit in self.history.drain(..until) {
            apply_to_maps(&mut self.durable, &commit);
        }
    }

    pub(super) fn commit(&mut self, op: &Op) -> Outcome {
        match op {
            Op::Edit(target, edit) => self.commit_edit(*target, *edit),
            Op::Batch(target, edits, durability) => self.commit_batch(*target, edits, *durability),
            Op::CrossBatch(edits, durability) => self.commit_cross_batch(edits, *durability),
            Op::Load(target, first, count, filling, is_finished) => {
                self.load(*target, *first, *count, *filling, *is_finished)
            }
            Op::OneStep(target, step) => self.one_step(*target, *step),
            Op::Retain(target, modulus) => self.retain(*target, *modulus),
            Op::ChangeOption(target, seed) => self.change_option(*target, *seed),
            Op::Recreate(target) => self.recreate(*target),
            _ => unreachable!("no commit: {op:?}"),
        }
    }

    fn commit_edit(&mut self, target: Target, edit: Edit) -> Outcome {
        let (open, models) = self.parts();
        let seq = failed("edit", edit.apply(&open.keyspaces[target]))?;
        failed("edit of the model", edit.apply(&models[target]))?;
        // A range delete of an inverted range is no commit, and syncs nothing.
        let mut batch = Batch::new();
        edit.add_to(&mut batch);
        if !batch.is_empty() {
            let durability = self.setting.options.durability;
            self.committed(Some(seq), edits_of([(target, edit)]), durability);
        }
        Ok(())
    }

    fn commit_batch(&mut self, target: Target, edits: &[Edit], durability: Durability) -> Outcome {
        let mut batch = Batch::new();
        edits.iter().for_each(|edit| edit.add_to(&mut batch));
        let count = batch.len();
        let (open, models) = self.parts();
        let written = open.keyspaces[target].write_with(batch.clone(), durability);
        let seq = failed("batch", written)?;
        let written = models[target].write_with(batch, durability);
        failed("batch of the model", written)?;
        // An empty commit need not sync anything.
        if count > 0 {
            self.count_staged(&[count], edits.iter());
            let commit = edits_of(edits.iter().map(|edit| (target, *edit)));
            self.committed(Some(seq), commit, durability);
        }
        Ok(())
    }

    fn commit_cross_batch(&mut self, edits: &[(Target, Edit)], durability: Durability) -> Outcome {
        let (open, models) = self.parts();
        let mut batch = open.db.batch();
        let mut counts = [0; 2];
        for (target, edit) in edits {
            let before = batch.len();
            edit.add_to_store_batch(&mut batch, &open.keyspaces[*target]);
            counts[*target] += batch.len() - before;
            failed("edit of the model", edit.apply(&models[*target]))?;
        }
        // Inverted range deletes add nothing; a batch of those only may sync nothing.
        let is_empty = batch.is_empty();
        let seq = failed("batch over both", open.db.write(batch, durability))?;
        if !is_empty {
            self.count_staged(&counts, edits.iter().map(|(_, edit)| edit));
            self.committed(Some(seq), edits_of(edits.iter().copied()), durability);
        }
        Ok(())
    }

    /// Counts a batch that has so many operations for its keyspaces, if it was staged.
    fn count_staged<'a>(&mut self, counts: &[usize], mut edits: impl Iterator<Item = &'a Edit>) {
        let is_large = counts
            .iter()
            .any(|count| *count >= self.setting.stage_batches_of);
        let has_merges = edits.any(|edit| matches!(edit, Edit::Merge(..)));
        self.coverage.staged_batches += u64::from(is_large && !has_merges);
    }

    fn load(
        &mut self,
        target: Target,
        first: KeyNumber,
        count: u16,
        filling: Filling,
        is_finished: bool,
    ) -> Outcome {
        let entries = entries_of_load(first, count, filling);
        let (open, models) = self.parts();
        let mut load = failed("a load", open.keyspaces[target].bulk_load())?;
        for edit in &entries {
            if let Some((key, value)) = edit.entry() {
                failed("a put of a load", load.put(key, value))?;
            }
        }
        if !is_finished {
            drop(load);
            return Ok(());
        }
        let seq = failed("the end of a load", load.finish())?;
        // Without entries it is no commit.
        if entries.is_empty() {
            return Ok(());
        }
        let mut batch = Batch::new();
        entries.iter().for_each(|edit| edit.add_to(&mut batch));
        failed("a load of the model", models[target].write(batch))?;
        self.coverage.loads += 1;
        let commit = edits_of(entries.iter().map(|edit| (target, *edit)));
        self.committed(Some(seq), commit, Durability::Sync);
        Ok(())
    }

    fn one_step(&mut self, target: Target, step: OneStep) -> Outcome {
        let (open, models) = self.parts();
        let model = &models[target];
        let key = failed("the ends of the model", step.key(model))?;
        let value = |of: &[u8]| failed("get of the model", model.get(of));
        let before = key.as_deref().map(value).transpose()?.flatten();
        let wanted = step.perform(model, before.as_deref());
        let (wanted, _) = failed("one step of the model", wanted)?;
        let found = step.perform(&open.keyspaces[target], before.as_deref());
        let (found, seq) = failed("one step", found)?;
        agree(|| format!("{step:?}"), &found, &wanted)?;
        let after = key.as_deref().map(value).transpose()?.flatten();
        // What changes nothing is no commit.
        if let Some(key) = key
            && after != before
        {
            let change = Change::Set(key, after.map(|value| value.to_vec()));
            let durability = self.setting.options.durability;
            self.committed(seq, vec![(target, change)], durability);
        }
        Ok(())
    }

    /// Removes entries of some lengths. Each is a commit here: the store makes one of each few
    /// hundred, in the same order.
    fn retain(&mut self, target: Target, modulus: u8) -> Outcome {
        let keep = |key: &[u8], value: &[u8]| {
            let len = key.len() + value.len();
            !len.is_multiple_of(usize::from(modulus))
        };
        let (open, models) = self.parts();
        let mut removed = Vec::new();
        for entry in models[target].iter() {
            let (key, value) = failed("an entry of the model", entry)?;
            if !keep(&key, &value) {
                removed.push(key.to_vec());
            }
        }
        let found = failed("retain", open.keyspaces[target].retain(keep))?;
        agree(|| "retain".into(), &found, &(removed.len() as u64))?;
        failed("retain of the model", models[target].retain(keep))?;
        let durability = self.setting.options.durability;
        for key in removed {
            let change = Change::Set(key, None);
            self.committed(None, vec![(target, change)], durability);
        }
        Ok(())
    }

    fn change_option(&mut self, target: Target, seed: u64) -> Outcome {
        let changed = self.setting.change_option(target, seed);
        let (open, _) = self.parts();
        let before = open.keyspaces[target].options();
        let keyspace = failed("change", open.db.keyspace_with(NAMES[target], changed))?;
        // It was changed durably, and so is all before it.
        if keyspace.options() != before {
            self.all_durable();
        }
        Ok(())
    }

    fn recreate(&mut self, target: Target) -> Outcome {
        let options = self.setting.keyspaces[target].clone();
        let (open, models) = self.parts();
        failed("sync", open.db.sync())?;
        open.snapshots.clear();
        failed("drop", open.db.drop_keyspace(NAMES[target]))?;
        // A crash may have left one of this name.
        let name = IN_THE_MAKING[target];
        let keyspace = failed("recreate", open.db.keyspace_with(name, options))?;
        let renamed = open.db.rename_keyspace(name, NAMES[target]);
        failed("rename", renamed)?;
        open.keyspaces[target] = keyspace;
        failed("clear", models[target].delete_range(..))?;
        let commit = edits_of([(target, Edit::DELETE_ALL)]);
        self.committed(None, commit, Durability::Sync);
        Ok(())
    }

    pub(super) fn make_durable(&mut self, op: &Op) -> Outcome {
        let (open, _) = self.parts();
        match op {
            Op::Flush(target) => {
                failed("flush", open.keyspaces[*target].flush())?;
                self.flushed(*target);
            }
            Op::FlushAll => {
                failed("flush", open.db.flush())?;
                self.all_durable();
            }
            Op::Sync(wait) => {
                let waited = match (wait, open.last) {
                    (Wait::Durable, Some(last)) => open.db.wait_durable(last),
                    (Wait::Polled, Some(last)) => block_on(open.db.durable(last)),
                    _ => open.db.sync(),
                };
                failed("sync", waited)?;
                self.all_durable();
            }
            _ => unreachable!("makes nothing durable: {op:?}"),
        }
        Ok(())
    }
}
