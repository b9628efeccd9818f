//! Sweeps: deleting what has expired in a B-tree, and asking the filter there, and in an LSM tree
//! with merges.
//!
//! A page tree has no compaction that comes by every entry; and that of an LSM tree may not filter
//! what merges go into (X6 of [`crate::resolve`]). So a walk goes through the keyspace, a thousand
//! entries at a time, and commits deletes of what is to go, on the condition that it has not been
//! written meanwhile. These are commits like any other: they are in the log, they are never under a
//! snapshot, and a crash leaves a prefix of them. They are `Buffered`: one that is lost is done
//! again. What has expired goes in commits of its own, which are no conflict to others.

use std::sync::Arc;
use std::sync::atomic::Ordering;

pub(super) mod walk;

use self::walk::{Samples, Walk};
use super::commit::watch::Watch;
use super::commit::{Condition, Outcome, Pipeline};
use super::keyspaces::OpenKeyspace;
use super::shared::Shared;
use crate::engine::EngineHost;
use crate::error::{Error, Result};
use crate::kv::Batch;
use crate::options::{Durability, EngineKind};
use crate::resolve::{Fate, Moment};
use crate::types::{KeySet, Op};
use crate::util::mutants::mutated;

/// Entries that a step looks at, at most.
const STEP_ENTRIES: usize = 1000;
/// Bytes of keys and values that it looks at, likewise.
const STEP_BYTES: usize = 1 << 20;
/// While the keyspace is written to, walks are so many periods apart at most.
const LONGEST_PERIODS: u64 = 10;
/// A step whose entries are always written meanwhile is left out after so many attempts.
const MAX_CONFLICTS: u32 = 4;

/// What a step came to.
enum Step {
    /// The walk goes on.
    More,
    Ended,
}

/// What a step deletes or replaces.
#[derive(Default)]
struct Swept {
    batch: Batch,
    keys: KeySet,
}

impl Swept {
    fn add(&mut self, op: &Op<'_>) {
        self.batch.push(op);
        if let Some(key) = op.key() {
            self.keys.insert_key(key);
        }
    }

    /// Commits it, unless any of it was written since the watch began: false then.
    fn commit(
        self,
        pipeline: &Pipeline,
        keyspace: &Arc<OpenKeyspace>,
        watch: &Watch<'_>,
        is_unseen: bool,
    ) -> Result<bool> {
        if self.batch.is_empty() {
            return Ok(true);
        }
        let reads = match mutated!("sweep-deletes-what-was-written-meanwhile") {
            true => vec![],
            false => vec![(keyspace.id, self.keys)],
        };
        let condition = Condition {
            since: watch.since(),
            reads: &reads,
            is_unseen,
        };
        let parts = vec![(Arc::clone(keyspace), self.batch)];
        let outcome = pipeline.commit_if(parts, Durability::Buffered, &condition, &|_| ())?;
        Ok(matches!(outcome, Outcome::Committed(_)))
    }
}

impl OpenKeyspace {
    /// Why its sweep fails, if it has one.
    pub(super) fn sweep_error(&self) -> Option<Error> {
        is_swept(self).then(|| self.sweep.health.error())?
    }
}

/// True if the keyspace has entries that only sweeps judge.
fn is_swept(keyspace: &OpenKeyspace) -> bool {
    let resolver = &keyspace.resolver;
    match keyspace.options.engine() {
        EngineKind::BTree => resolver.judges(),
        EngineKind::Lsm => resolver.operator().is_some() && resolver.has_filter(),
    }
}

impl Shared {
    /// Does one step of a sweep that is due, if one is; false otherwise.
    pub(super) fn sweep_once(&self) -> Result<bool> {
        let mut failed = None;
        for keyspace in self.keyspaces.all().iter() {
            if self.sweep_is_due(keyspace)
                && keyspace.check_alive().is_ok()
                && let Some(mut walk) = keyspace.sweep.walk.try_lock()
            {
                self.coordinator.check_running()?;
                let done = self.sweep_step(keyspace, &mut walk);
                self.note(&keyspace.sweep.health, &done);
                match done {
                    Ok(_) => return Ok(true),
                    Err(error) => failed = failed.or(Some(error)),
                }
            }
        }
        failed.map_or(Ok(false), Err)
    }

    /// True if a step of a sweep is due in the keyspace.
    pub(super) fn sweep_is_due(&self, keyspace: &OpenKeyspace) -> bool {
        self.sweep_wait_ms(keyspace) == Some(0)
    }

    /// Milliseconds until a step is due; `None` if never.
    pub(super) fn sweep_wait_ms(&self, keyspace: &OpenKeyspace) -> Option<u64> {
        if !is_swept(keyspace) || self.pipeline.is_none() {
            return None;
        }
        if let Some(pause) = self.pause_of(&keyspace.sweep.health) {
            return Some(pause.as_millis() as u64 + 1);
        }
        let now_ms = keyspace.resolver.now_ms();
        let sweep = &keyspace.sweep;
        let period_ms = self.sweep_period_ms();
        let mut due_ms = sweep.due_ms.load(Ordering::Relaxed);
        if due_ms == 0 {
            due_ms = now_ms.saturating_add(period_ms).max(1);
            sweep.ended_ms.store(now_ms, Ordering::Relaxed);
            sweep.due_ms.store(due_ms, Ordering::Relaxed);
        }
        // What was written since the walk it has not seen.
        let published = self.snapshot_tracker.published();
        let is_quiet = published.0 == sweep.ended_seq.load(Ordering::Relaxed);
        if !is_quiet || keyspace.resolver.has_filter() {
            let ended_ms = sweep.ended_ms.load(Ordering::Relaxed);
            let longest_ms = period_ms.saturating_mul(LONGEST_PERIODS);
            due_ms = due_ms.min(ended_ms.saturating_add(longest_ms));
        }
        Some(due_ms.saturating_sub(now_ms))
    }

    fn sweep_period_ms(&self) -> u64 {
        self.options.sweep_period.as_millis() as u64
    }

    /// Walks through the whole keyspace, on this thread.
    pub(super) fn sweep_all(&self, keyspace: &Arc<OpenKeyspace>) -> Result<()> {
        if !is_swept(keyspace) {
            return Ok(());
        }
        let mut walk = keyspace.sweep.walk.lock();
        *walk = None;
        let swept = loop {
            let step = self.coordinator.check_running();
            match step.and_then(|()| self.sweep_step(keyspace, &mut walk)) {
                Ok(Step::More) => {}
                Ok(Step::Ended) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        if swept.is_ok() && !mutated!("error-of-a-sweep-outlives-its-cure") {
            self.note(&keyspace.sweep.health, &swept);
        }
        drop(walk);
        // Threads that left it alone meanwhile look up.
        self.coordinator.wake();
        swept
    }

    /// Looks at some entries, and deletes what is to go.
    fn sweep_step(&self, keyspace: &Arc<OpenKeyspace>, walk: &mut Option<Walk>) -> Result<Step> {
        let pipeline = self.takes_writes()?;
        self.coordinator.check_writable()?;
        let resolver = &keyspace.resolver;
        let walking = walk.get_or_insert_with(|| Walk {
            next: Vec::new(),
            since: self.snapshot_tracker.published(),
            conflicts: 0,
            samples: Samples::new(),
        });
        // Before the view: what is written after it is noticed.
        let watch = pipeline.watch();
        let filter = resolver.filter();
        let moment = Moment {
            expired_by_ms: resolver.expired_by_ms(resolver.now_ms()),
            filter: filter.as_ref(),
        };
        let (mut expired, mut filtered) = (Swept::default(), Swept::default());
        let (mut entries, mut bytes) = (0, 0);
        let mut cursor = keyspace.stored_view()?.cursor();
        cursor.seek(&walking.next)?;
        let mut last = None;
        while cursor.is_valid() && entries < STEP_ENTRIES && bytes < STEP_BYTES {
            let (key, stored) = cursor.entry()?;
            match resolver.fate(key, stored, moment) {
                Fate::Keep => walking.samples.add(resolver.expires_at_ms(stored)),
                Fate::Expire => expired.add(&Op::Delete { key }),
                Fate::Drop => filtered.add(&Op::Delete { key }),
                Fate::Replace(value) => {
                    bytes += value.len();
                    filtered.add(&Op::Put { key, value: &value });
                }
            }
            entries += 1;
            bytes += key.len() + stored.len();
            last = Some(key.to_vec());
            cursor.next()?;
        }
        let is_end = !cursor.is_valid();
        drop(cursor);
        let mut is_done = true;
        let is_unseen = !mutated!("expired-value-dropped-is-a-conflict");
        let counts = (expired.batch.len() as u64, filtered.batch.len() as u64);
        let commits = [
            (expired, (counts.0, 0), is_unseen),
            (filtered, (0, counts.1), false),
        ];
        for (swept, (expired, filtered), is_unseen) in commits {
            match swept.commit(pipeline, keyspace, &watch, is_unseen) {
                Ok(true) => resolver.count(expired, filtered),
                Ok(false) => is_done = false,
                // It was dropped meanwhile.
                Err(Error::NoSuchKeyspace { .. }) => return Ok(Step::Ended),
                Err(error) => return Err(error),
            }
        }
        if !is_done {
            walking.conflicts += 1;
            if walking.conflicts < MAX_CONFLICTS {
                return Ok(Step::More);
            }
        }
        walking.conflicts = 0;
        match last {
            Some(mut key) if !is_end => {
                key.push(0);
                walking.next = key;
                Ok(Step::More)
            }
            _ => {
                if let Some(walk) = walk.take() {
                    self.end_walk(keyspace, walk);
                }
                Ok(Step::Ended)
            }
        }
    }

    /// Decides when the next walk begins.
    fn end_walk(&self, keyspace: &OpenKeyspace, walk: Walk) {
        let now_ms = keyspace.resolver.now_ms();
        let soonest_ms = now_ms.saturating_add(self.sweep_period_ms());
        let due_ms = walk.samples.worth_from_ms().max(soonest_ms);
        let sweep = &keyspace.sweep;
        sweep.ended_ms.store(now_ms, Ordering::Relaxed);
        sweep.ended_seq.store(walk.since.0, Ordering::Relaxed);
        sweep.due_ms.store(due_ms, Ordering::Relaxed);
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::*;
    use crate::engine::Work;
    use crate::fs::SimFs;
    use crate::options::{KeyspaceOptions, Options};
    use crate::resolve::ManualClock;

    /// They looked again and again, each with a processor of its own.
    #[test]
    fn threads_that_cannot_sweep_sleep_while_a_sweep_is_due() {
        let clock = ManualClock::new();
        clock.advance(Duration::from_secs(1000));
        let options = Options::new()
            .fs(Arc::new(SimFs::new()))
            .clock(clock.clone())
            .background_threads(0)
            .sweep_period(Duration::from_secs(1));
        let store = crate::store::open(Path::new("/store"), options).unwrap();
        let shared = &store.shared;
        let asked = KeyspaceOptions::new(EngineKind::BTree).expiry(true);
        let keyspace = shared.keyspace_with("a", &asked).unwrap();
        assert!(!shared.sweep_is_due(&keyspace));
        clock.advance(Duration::from_secs(2));
        assert!(shared.sweep_is_due(&keyspace));
        assert_eq!(shared.engines_wait(&[Work::Compact]), Duration::ZERO);
        assert!(!shared.engines_wait(&[Work::Flush]).is_zero());
        let _under_way = keyspace.sweep.walk.lock();
        assert!(!shared.engines_wait(&[Work::Compact]).is_zero());
    }
}
