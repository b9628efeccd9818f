//! What a scan of a transaction reads.

use std::sync::Arc;

use super::own_writes::OwnWrites;
use super::read_set::{Passed, ReadSet};
use super::tracking_cursor::TrackingCursor;
use crate::engine::{Cursor, OverlaidView, Piece, ReadView};
use crate::error::Result;
use crate::types::{KeyRange, KeyspaceId};

/// A snapshot of a keyspace with what the transaction has written to it so far. What is read of it
/// is noted, if `reads` says where.
pub(super) fn transaction_view(
    snapshot: Arc<dyn ReadView>,
    own: Option<Arc<OwnWrites>>,
    reads: Option<(Arc<ReadSet>, KeyspaceId)>,
) -> Arc<dyn ReadView> {
    let base = match own {
        Some(own) => Arc::new(OverlaidView::new(snapshot, own)),
        None => snapshot,
    };
    match reads {
        Some((reads, keyspace)) => Arc::new(TrackedView {
            base,
            reads,
            keyspace,
        }),
        None => base,
    }
}

/// A view of which is noted what is read.
#[derive(Debug)]
struct TrackedView {
    base: Arc<dyn ReadView>,
    reads: Arc<ReadSet>,
    keyspace: KeyspaceId,
}

impl ReadView for TrackedView {
    fn get(&self, key: &[u8], read: &mut dyn FnMut(&[u8])) -> Result<bool> {
        self.reads.note_key(self.keyspace, key);
        self.base.get(key, read)
    }

    fn pieces(self: Arc<Self>, range: &KeyRange, at_least: usize) -> Result<Vec<Piece>> {
        Arc::clone(&self.base).pieces(range, at_least)
    }

    fn cursor(self: Arc<Self>) -> Box<dyn Cursor> {
        let passed = Passed::new(&self.reads, self.keyspace);
        let cursor = Arc::clone(&self.base).cursor();
        Box::new(TrackingCursor::new(cursor, passed))
    }
}
