//! Commits of large batches, which are visible before their engines have them ([`staging`]).
//!
//! ```text
//!   index -> hold the keyspaces -> prepare
//!     -> [log lock: sequence, append] -> (sync) -> stage, publish -> apply
//! ```
//!
//! [`staging`]: crate::store::staging

use std::sync::Arc;

use super::{Conditional, Outcome, Pipeline};
use crate::error::Result;
use crate::kv::Batch;
use crate::options::Durability;
use crate::store::apply::Effect;
use crate::store::batch_index::BatchIndex;
use crate::store::commit_values::PlacedValues;
use crate::store::keyspaces::OpenKeyspace;
use crate::store::staging::StagedBatch;
use crate::types::SeqNo;

impl Pipeline {
    /// Commits `parts`, `count` operations, of which many are for one keyspace.
    pub(super) fn commit_large(
        &self,
        mut parts: Vec<(Arc<OpenKeyspace>, Batch)>,
        count: u64,
        durability: Durability,
        condition: Option<Conditional<'_>>,
    ) -> Result<Outcome> {
        // A thread that holds several takes them in this order.
        parts.sort_by_key(|(keyspace, _)| keyspace.id);
        let indexes: Vec<_> = parts
            .iter()
            .map(|(_, batch)| BatchIndex::new(batch))
            .collect();
        let mut encoded = self.encode(&parts);
        let validated = match self.validate_before(condition) {
            Ok(upto) => upto,
            Err(conflict) => return Ok(Outcome::Conflict(conflict)),
        };
        let keyspaces: Vec<_> = parts
            .iter()
            .map(|(keyspace, _)| Arc::clone(keyspace))
            .collect();
        let held = keyspaces.iter().map(|keyspace| self.hold(keyspace));
        let held = held.collect::<Result<Vec<_>>>()?;
        for ((keyspace, batch), index) in parts.iter().zip(&indexes) {
            let numbers = (SeqNo::ZERO, SeqNo::ZERO);
            keyspace
                .engine
                .prepare(&index.ops(batch, numbers, |_| None))?;
        }

        let mut log = self.log.lock();
        let logged = self.log_parts(
            &mut log,
            &mut parts,
            &mut encoded,
            count,
            validated,
            condition,
        )?;
        let (first, last, values) = match logged {
            Ok(logged) => logged,
            Err(conflict) => return Ok(Outcome::Conflict(conflict)),
        };
        let staged = staged(parts, indexes, first, last, values);
        let effect = Effect::Staged(staged.clone());
        if durability == Durability::Sync || log.led {
            self.join_queue(log, effect, first, last)?;
        } else {
            self.applier.take(&mut log.taken, last)?;
            drop(log);
            let applied = self.applier.apply(&effect, first);
            self.applier.note_applied(first, last, count, applied)?;
            self.applier.publisher.wait_for(last)?;
            self.after_commit();
        }
        for (keyspace, batch) in &staged {
            let apply = || keyspace.engine.apply_staged(&batch.ops());
            self.applier.apply_published(apply)?;
            keyspace.staging.clear();
        }
        drop(held);
        Ok(Outcome::Committed(last))
    }
}

/// The parts of a commit, for each of its keyspaces.
fn staged(
    parts: Vec<(Arc<OpenKeyspace>, Batch)>,
    indexes: Vec<BatchIndex>,
    mut first: SeqNo,
    commit: SeqNo,
    values: PlacedValues,
) -> Vec<(Arc<OpenKeyspace>, Arc<StagedBatch>)> {
    let values = Arc::new(values);
    let mut staged = Vec::with_capacity(parts.len());
    for ((keyspace, batch), index) in parts.into_iter().zip(indexes) {
        if batch.is_empty() {
            continue;
        }
        let next = first.plus(batch.len() as u64);
        let batch = StagedBatch {
            batch,
            index,
            first,
            last: next.prev(),
            commit,
            values: Arc::clone(&values),
        };
        staged.push((keyspace, Arc::new(batch)));
        first = next;
    }
    staged
}
