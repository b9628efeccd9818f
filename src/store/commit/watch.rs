//! Watches: the pipeline remembers what is written, for commits that hold only if nothing they rely
//! on has changed.

use std::sync::Arc;

use super::condition::{Condition, note, note_change};
use super::{LONG_APPLY, Pipeline, Sequencer};
use crate::engine::{HandedViews, Registered};
use crate::error::Result;
use crate::store::apply::Effect;
use crate::store::conflicts::Conflict;
use crate::types::SeqNo;
use crate::util::mutants::mutated;

/// While it lives, the pipeline remembers which keys are written.
#[derive(Debug)]
pub struct Watch<'a> {
    pipeline: &'a Pipeline,
    /// Everything up to here is visible to reads that begin now.
    since: SeqNo,
}

impl Watch<'_> {
    /// Everything up to here is visible to reads that begin during the watch.
    pub(crate) fn since(&self) -> SeqNo {
        self.since
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        self.pipeline.end_watch(self.since);
    }
}

/// Where so many operations were committed since a commit began to read, it is validated against
/// most of them before it takes the log lock.
const MANY_OPS: u64 = 1024;

impl Pipeline {
    /// Begins to remember which keys are written, until the watch is dropped. Waits for commits
    /// that are being applied, and for no I/O but what a commit does with the log locked.
    pub(crate) fn watch(&self) -> Watch<'_> {
        Watch {
            pipeline: self,
            since: self.begin_watch(),
        }
    }

    /// Begins a watch that [`Pipeline::end_watch`] ends. Returns its number: reads that begin now
    /// see everything up to it, and what comes later is remembered.
    pub(crate) fn begin_watch(&self) -> SeqNo {
        let since = self.log.lock().begin_watch();
        // If it never becomes visible, the store takes no more writes.
        let _ = self.applier.publisher.wait_for(since);
        since
    }

    /// Begins a watch, and registers a snapshot of the same moment that takes its views late.
    /// After an error there is neither.
    pub(crate) fn begin_watched_snapshot(&self) -> Result<(Registered, Arc<HandedViews>)> {
        let mut log = self.log.lock();
        let since = log.begin_watch();
        let (at, handed) = self.applier.register_late(since);
        drop(log);
        if let Err(error) = self.applier.publisher.wait_for(since) {
            // What is above the published number may be applied in part.
            self.applier.unregister_late(at);
            self.end_watch(since);
            return Err(error);
        }
        Ok((at, handed))
    }

    /// Registers a snapshot that takes its views late, and waits for commits that are being
    /// applied. `None` if the log is locked for long, or a commit takes long to be applied.
    pub(crate) fn late_snapshot(&self) -> Option<(Registered, Arc<HandedViews>)> {
        let log = self.log.try_lock_for(LONG_APPLY)?;
        let seq = log.taken.upto;
        // What is above is taken later, under the lock, and so applied later.
        let (at, handed) = self.applier.register_late(seq);
        drop(log);
        self.applier.publisher.wait_briefly(seq, LONG_APPLY);
        if self.applier.publisher.published() < seq {
            self.applier.unregister_late(at);
            return None;
        }
        Some((at, handed))
    }

    /// Ends a watch.
    pub(crate) fn end_watch(&self, since: SeqNo) {
        self.log.lock().conflicts.end(since);
    }

    /// Validates a commit against what was committed some time ago, without the log lock, which
    /// others would wait for. Returns up to where: what came later is left to be validated when the
    /// commit has its place in the order.
    pub(super) fn validate_early(&self, condition: &Condition<'_>) -> Result<SeqNo, Conflict> {
        let Condition { since, reads, .. } = *condition;
        let latest = self.applier.publisher.published();
        if mutated!("validated-before-the-log-lock-only") {
            let conflict = self.log.lock().conflicts.conflict(since, reads);
            return conflict.map_or(Ok(SeqNo::MAX), Err);
        }
        if latest.0.saturating_sub(since.0) < MANY_OPS {
            return Ok(since);
        }
        let full = self.log.lock().conflicts.full_chunks(since);
        let Some((chunks, upto)) = full else {
            return Ok(since);
        };
        let mut newest_first = chunks.iter().rev();
        match newest_first.find_map(|chunk| chunk.conflict(since, reads)) {
            Some(conflict) => Err(conflict),
            None => Ok(upto.max(since)),
        }
    }
}

impl Sequencer {
    /// Begins a watch of what is not taken yet, and returns up to where that is.
    fn begin_watch(&mut self) -> SeqNo {
        // From here on, what is logged is being applied or in the queue, or never will be.
        let since = self.taken.upto;
        let Self {
            queue, conflicts, ..
        } = self;
        if conflicts.begin(since) {
            for queued in queue {
                match &queued.effect {
                    Effect::Ops {
                        is_unseen: true, ..
                    } => {}
                    Effect::Ops { parts, .. } => {
                        let parts = parts.iter().map(|(open, batch)| (open.id, batch));
                        note(conflicts, parts, queued.first);
                    }
                    Effect::Staged(large) => {
                        note(conflicts, large.parts().into_iter(), queued.first);
                    }
                    Effect::Keyspaces(change) => note_change(conflicts, change, queued.first),
                    Effect::Load(load) => {
                        conflicts.note(load.keyspace.id, &load.as_op(), queued.last);
                    }
                }
            }
        }
        since
    }
}
