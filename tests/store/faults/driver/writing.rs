//! Commits, and the work that they cause.

use std::time::Duration;

use hedgerow::{Db, Durability, Error, Keyspace, Result, SeqNo};

use support::filter::is_marked;

use super::{
    Commit, Driver, Edit, Incarnation, apply, ends_applying, ends_checkpoints, is_log_sync, key_of,
};

impl Driver {
    pub(super) fn handle(&self, name: &str) -> Option<(Keyspace, Incarnation)> {
        let slot = self.slots.get(name)?;
        Some((slot.handle.clone()?, slot.of))
    }

    /// Commits the edits, each with the keyspace it concerns.
    pub fn commit(&mut self, edits: &[(&'static str, Edit)], durability: Durability) {
        let Some(db) = self.db.clone() else { return };
        let Some((commit, handles)) = self.settle(edits) else {
            return;
        };
        let mut batch = db.batch();
        for ((_, edit), handle) in edits.iter().zip(&handles) {
            edit.add_to(&mut batch, handle);
        }
        let before = self.fs.fired();
        let outcome = match (edits, &handles[..]) {
            // A single change takes another way.
            ([(_, edit)], [handle]) => edit.commit_to(&handle.with_durability(durability)),
            _ => db.write(batch, durability),
        };
        self.ended(commit, &handles, before, outcome, durability);
    }

    /// The same by a transaction, which reads what it writes, and takes back half of it once.
    pub fn transact(&mut self, edits: &[(&'static str, Edit)], durability: Durability) {
        let Some(db) = self.db.clone() else { return };
        let Some((commit, handles)) = self.settle(edits) else {
            return;
        };
        let before = self.fs.fired();
        let writes = || edits.iter().map(|(_, edit)| edit).zip(&handles);
        let Some(tx) = self.attempt("a transaction", true, || db.transaction()) else {
            return;
        };
        let (count, mut outcome) = (edits.len() / 2, Ok(()));
        for (edit, handle) in writes().take(count) {
            outcome = outcome.and_then(|()| edit.write_to(&tx, handle));
        }
        let savepoint = tx.savepoint();
        for (edit, handle) in writes() {
            outcome = outcome.and_then(|()| tx.get(handle, edit.key()).map(drop));
            outcome = outcome.and_then(|()| edit.write_to(&tx, handle));
        }
        let outcome = outcome
            .and_then(|()| tx.rollback_to(savepoint))
            .and_then(|()| {
                let mut rest = writes().skip(count);
                rest.try_for_each(|(edit, handle)| edit.write_to(&tx, handle))
            })
            .and_then(|()| tx.commit_with(durability));
        self.ended(commit, &handles, before, outcome, durability);
    }

    /// What edits come to, and the keyspaces that they are for; `None` if one is not there.
    fn settle(&mut self, edits: &[(&'static str, Edit)]) -> Option<(Commit, Vec<Keyspace>)> {
        let mut of_incarnations = Vec::new();
        let mut handles = Vec::new();
        for (name, edit) in edits {
            let (handle, of) = self.handle(name)?;
            of_incarnations.push((of, edit.clone()));
            handles.push(handle);
        }
        let commit = self.times.settle(&of_incarnations, &self.live);
        Some((commit, handles))
    }

    /// The clock goes on.
    pub fn advance_ms(&mut self, ms: u64) {
        self.clock.advance(Duration::from_millis(ms));
        self.times.now_ms += ms;
        for map in &mut self.live {
            self.times.expire(map);
        }
    }

    /// Loads the keys from `low` to `high` into a keyspace, as one commit.
    pub fn load(&mut self, name: &'static str, low: u32, high: u32, len: usize) {
        let Some((handle, of)) = self.handle(name) else {
            return;
        };
        let mut commit = Commit::new();
        for key in low..high {
            self.changes += 1;
            commit.push((of, Edit::Set(key_of(key), Some(self.value(len)))));
        }
        commit.sort_by(|(_, a), (_, b)| a.key().cmp(b.key()));
        let before = self.fs.fired();
        let outcome = handle.bulk_load().and_then(|mut load| {
            for (_, edit) in &commit {
                if let Edit::Set(key, Some(value)) = edit {
                    load.put(key, value)?;
                }
            }
            load.finish()
        });
        // As a load, it is not stored apart.
        let handles = vec![handle; commit.len()];
        self.ended(commit, &handles, before, outcome, Durability::Sync);
    }

    /// Takes note of how a commit to `handles` ended that began when so many faults had been met.
    fn ended(
        &mut self,
        commit: Commit,
        handles: &[Keyspace],
        before: u64,
        outcome: Result<SeqNo>,
        durability: Durability,
    ) {
        self.changes += 1;
        if let Some(db) = &self.db {
            self.note_failed_job(db, before);
        }
        match outcome {
            Ok(seq) => {
                apply(&commit, &mut self.live);
                self.note_apart(seq, &commit);
                self.acknowledged.push(commit);
                self.doubtful.clear();
                if durability == Durability::Sync {
                    self.durable = self.acknowledged.len();
                }
            }
            Err(error) => {
                self.expect_plain_words(&error);
                let stopped = matches!(error, Error::WritesStopped { .. });
                let stuck = self.is_stuck(&error);
                assert!(
                    stuck
                        || self.excused(before, false)
                        || stopped && self.position.is_some_and(|p| p.may_end_writing()),
                    "a commit failed without a reason: {error}"
                );
                if ends_checkpoints(&error) || ends_applying(&error) {
                    self.stuck.borrow_mut().push(format!("{error:#}"));
                }
                // Nothing of it can be seen.
                for ((of, edit), handle) in commit.iter().zip(handles) {
                    let key = edit.key();
                    let wanted = self.live[*of].get(key).map(Vec::as_slice);
                    if let Some(found) = self.attempt_read("a lookup", wanted, || handle.get(key)) {
                        self.expect_found(found.as_deref(), wanted, "a commit that failed");
                    }
                }
                if is_log_sync(&error) {
                    let again = handles[0].put(b"after a failed sync", b"");
                    assert!(
                        matches!(again, Err(Error::WritesStopped { .. })),
                        "a store whose log could not be synced took a write: {again:?}"
                    );
                }
                if !stopped {
                    self.doubtful.push(commit);
                }
            }
        }
    }

    pub fn put(&mut self, name: &'static str, key: u32, len: usize, durability: Durability) {
        let value = self.value(len);
        let edit = Edit::Set(key_of(key), Some(value));
        self.commit(&[(name, edit)], durability);
    }

    pub fn delete(&mut self, name: &'static str, key: u32, durability: Durability) {
        self.commit(&[(name, Edit::Set(key_of(key), None))], durability);
    }

    /// A value of `len` bytes that no other commit wrote.
    pub fn value(&self, len: usize) -> Vec<u8> {
        let mut value = self.changes.to_le_bytes().to_vec();
        let mut state = self.changes.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        while value.len() < len {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            value.extend_from_slice(&state.to_le_bytes()[..4]);
            value.extend_from_slice(&[0; 4]);
        }
        value.truncate(len);
        value
    }

    fn maintain(&mut self, what: &str, act: impl FnOnce(&Db) -> Result<()>) -> bool {
        let Some(db) = self.db.clone() else {
            return false;
        };
        let before = self.fs.fired();
        let is_done = self.attempt(what, false, || act(&db)).is_some();
        self.note_failed_job(&db, before);
        is_done
    }

    /// Notes the error of a job that a call has run, if the fault came during the call: work that
    /// was done beside a job that failed is a success, and a commit may need none of it. What
    /// failed may fail again. Of several jobs that failed side by side one is named.
    fn note_failed_job(&self, db: &Db, fired_before: u64) {
        if self.fs.fired() > fired_before + 1 {
            self.several_failed.set(true);
        }
        if self.fs.fired() > fired_before
            && let Some(error) = db.stats().background_error
            && let Some((_job, error)) = error.split_once(": ")
        {
            self.stuck.borrow_mut().push(error.to_owned());
        }
    }

    pub fn sync(&mut self) {
        if self.maintain("a sync", Db::sync) {
            self.durable = self.acknowledged.len();
        }
    }

    pub fn flush(&mut self) {
        if self.maintain("a flush", Db::flush) {
            self.durable = self.acknowledged.len();
        }
    }

    pub fn compact(&mut self) {
        let is_done = self.maintain("a compaction", Db::compact);
        if is_done && self.has_filter {
            // What a filter drops is gone then.
            for map in &mut self.live {
                map.retain(|_, value| !is_marked(value));
            }
        }
    }

    /// Does all background work that is due.
    pub fn work(&mut self) {
        for _ in 0..200 {
            let mut more = false;
            self.maintain("background work", |db| {
                more = db.run_background_once()?;
                Ok(())
            });
            if !more {
                return;
            }
        }
        panic!("background work does not end");
    }
}
