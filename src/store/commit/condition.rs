//! What a commit relies on, and what breaks that.

use crate::kv::Batch;
use crate::store::conflicts::{ConflictTracker, Reads};
use crate::store::keyspaces::KeyspaceChange;
use crate::types::{KeyspaceId, Op, SeqNo};

/// What a commit relies on: that nothing in `reads` was written after `since`. A watch that began
/// then, or before, lives.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Condition<'a> {
    pub(crate) since: SeqNo,
    pub(crate) reads: &'a Reads,
    /// What the commit writes changes nothing that a read sees, so no other commit relies on the
    /// contrary: it removes what has expired, or moves values.
    pub(crate) is_unseen: bool,
}

/// Has `conflicts` remember that a keyspace is dropped, with all that is in it.
#[cold]
pub(super) fn note_change(conflicts: &mut ConflictTracker, change: &KeyspaceChange, seq: SeqNo) {
    if let KeyspaceChange::Remove(keyspace) = change {
        let all = Op::DeleteRange {
            start: &[],
            end: None,
        };
        conflicts.note(*keyspace, &all, seq);
    }
}

/// Has `conflicts` remember the operations of a commit, numbered from `first`.
#[cold]
pub(super) fn note<'a>(
    conflicts: &mut ConflictTracker,
    parts: impl Iterator<Item = (KeyspaceId, &'a Batch)>,
    first: SeqNo,
) {
    let mut seq = first;
    for (keyspace, batch) in parts {
        for op in batch.iter() {
            conflicts.note(keyspace, &op, seq);
            seq = seq.next();
        }
    }
}
