//! Watches: the pipeline remembers what is written, for commits that hold only if nothing they rely
//! on has changed.

use super::condition::{Condition, note, note_change};
use super::{Pipeline, Sequencer};
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
    /// that are being applied, and for no I/O.
    pub(crate) fn watch(&self) -> Watch<'_> {
        Watch {
            pipeline: self,
            since: self.begin_watch(),
        }
    }

    /// Begins a watch that [`Pipeline::end_watch`] ends. Returns its number: reads that begin now
    /// see everything up to it, and what comes later is remembered.
    pub(crate) fn begin_watch(&self) -> SeqNo {
        let mut log = self.log.lock();
        // From here on, what is logged is being applied or in the queue, or never will be.
        let since = log.taken.upto;
        let Sequencer {
            queue, conflicts, ..
        } = &mut *log;
        if conflicts.begin(since) {
            for queued in queue {
                match &queued.effect {
                    Effect::Ops(parts, _) => {
                        let parts = parts.iter().map(|(open, batch)| (open.id, batch));
                        note(conflicts, parts, queued.first);
                    }
                    Effect::Staged(parts) => {
                        let parts = parts.iter().map(|(open, staged)| (open.id, &staged.batch));
                        note(conflicts, parts, queued.first);
                    }
                    Effect::Keyspaces(change) => note_change(conflicts, change, queued.first),
                    Effect::Load(load) => {
                        conflicts.note(load.keyspace.id, &load.as_op(), queued.last);
                    }
                }
            }
        }
        drop(log);
        // If it never becomes visible, the store takes no more writes.
        let _ = self.applier.publisher.wait_for(since);
        since
    }

    /// Ends a watch.
    pub(crate) fn end_watch(&self, since: SeqNo) {
        self.log.lock().conflicts.end(since);
    }

    /// Validates a commit against what was committed some time ago, without the log lock, which
    /// others would wait for. Returns up to where: what came later is left to be validated when the
    /// commit has its place in the order.
    pub(super) fn validate_early(&self, condition: &Condition<'_>) -> Result<SeqNo, Conflict> {
        let Condition { since, reads } = *condition;
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
