//! Commits of large batches, which are visible before their engines have them ([`staging`]).
//!
//! ```text
//!   index -> hold the keyspaces -> prepare
//!     -> [log lock: sequence, append] -> (sync) -> stage, publish -> apply
//! ```
//!
//! Parts that cannot be staged are applied where the others are staged.
//!
//! [`staging`]: crate::store::staging

use std::sync::Arc;

use super::{Conditional, Outcome, Pipeline};
use crate::error::Result;
use crate::kv::Batch;
use crate::options::Durability;
use crate::store::apply::{DirectPart, Effect, LargeBatch, sequenced};
use crate::store::batch_index::BatchIndex;
use crate::store::commit_values::PlacedValues;
use crate::store::keyspaces::OpenKeyspace;
use crate::store::staging::{StagedBatch, can_be_staged};
use crate::types::SeqNo;

impl Pipeline {
    /// Commits `parts`, `count` operations, of which many can be staged.
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
            .map(|(_, batch)| can_be_staged(batch).then(|| BatchIndex::new(batch)))
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
        let mut held = held.collect::<Result<Vec<_>>>()?;
        let is_staged: Vec<_> = indexes.iter().map(Option::is_some).collect();
        for ((keyspace, batch), index) in parts.iter().zip(&indexes) {
            let numbers = (SeqNo::ZERO, SeqNo::ZERO);
            let unplaced = PlacedValues::default();
            let ops = match index {
                Some(index) => index.ops(batch, numbers, |_| None),
                None => sequenced(batch, SeqNo::ZERO, &unplaced),
            };
            keyspace.engine.prepare(&ops)?;
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
        let large = large_batch(parts, indexes, first, last, values);
        let effect = Effect::Staged(large.clone());
        if durability == Durability::Sync || log.led {
            self.join_queue(log, effect, first, last)?;
        } else {
            self.applier.take(&mut log.taken, last)?;
            drop(log);
            let apply = || self.applier.apply(&effect, first);
            let applied = self.applier.caught(apply);
            self.applier.note_applied(first, last, count, applied)?;
            self.applier.publisher.wait_for(last)?;
            self.after_commit();
        }
        // The others have what is theirs.
        let mut is_staged = is_staged.into_iter();
        held.retain(|_| is_staged.next().expect("one for each"));
        for (keyspace, batch) in &large.staged {
            let apply = || keyspace.engine.apply_staged(&batch.ops());
            self.applier.apply_published(apply)?;
            keyspace.staging.clear();
        }
        drop(held);
        Ok(Outcome::Committed(last))
    }
}

/// The parts of a commit, for each of its keyspaces; those with an index are to be staged.
fn large_batch(
    parts: Vec<(Arc<OpenKeyspace>, Batch)>,
    indexes: Vec<Option<BatchIndex>>,
    mut first: SeqNo,
    commit: SeqNo,
    values: PlacedValues,
) -> LargeBatch {
    let values = Arc::new(values);
    let mut staged = Vec::with_capacity(parts.len());
    let mut direct = Vec::new();
    for ((keyspace, batch), index) in parts.into_iter().zip(indexes) {
        if batch.is_empty() {
            continue;
        }
        let next = first.plus(batch.len() as u64);
        match index {
            Some(index) => {
                let batch = StagedBatch {
                    batch,
                    index,
                    first,
                    last: next.prev(),
                    commit,
                    values: Arc::clone(&values),
                };
                staged.push((keyspace, Arc::new(batch)));
            }
            None => direct.push(DirectPart {
                keyspace,
                batch,
                first,
            }),
        }
        first = next;
    }
    LargeBatch {
        staged,
        direct: direct.into(),
        values,
    }
}
