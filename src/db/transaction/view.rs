//! What a scan of a transaction reads.

use std::sync::Arc;

use super::merged_cursor::MergedCursor;
use super::own_writes::{Own, OwnWrites};
use super::read_set::{Passed, ReadSet};
use super::tracking_cursor::TrackingCursor;
use crate::engine::{Cursor, Piece, ReadView};
use crate::error::Result;
use crate::types::{KeyRange, KeyspaceId};

/// A snapshot of a keyspace with what the transaction has written to it so far.
#[derive(Debug)]
pub(super) struct TransactionView {
    pub(super) base: Arc<dyn ReadView>,
    pub(super) own: Option<Arc<OwnWrites>>,
    /// Where to note what is read.
    pub(super) reads: Option<(Arc<ReadSet>, KeyspaceId)>,
}

impl ReadView for TransactionView {
    fn get(&self, key: &[u8], read: &mut dyn FnMut(&[u8])) -> Result<bool> {
        if let Some((reads, keyspace)) = &self.reads {
            reads.note_key(*keyspace, key);
        }
        match self.own.as_ref().map_or(Own::Untouched, |own| own.get(key)) {
            Own::Untouched => self.base.get(key, read),
            Own::Deleted => Ok(false),
            Own::Put(value) => {
                read(value);
                Ok(true)
            }
        }
    }

    fn pieces(self: Arc<Self>, range: &KeyRange, at_least: usize) -> Result<Vec<Piece>> {
        Arc::clone(&self.base).pieces(range, at_least)
    }

    fn cursor(self: Arc<Self>) -> Box<dyn Cursor> {
        let mut cursor = Arc::clone(&self.base).cursor();
        if let Some(own) = &self.own {
            cursor = Box::new(MergedCursor::new(cursor, Arc::clone(own)));
        }
        if let Some((reads, keyspace)) = &self.reads {
            let passed = Passed::new(reads, *keyspace);
            cursor = Box::new(TrackingCursor::new(cursor, passed));
        }
        cursor
    }
}
