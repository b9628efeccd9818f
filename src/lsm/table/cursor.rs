//! Walking a table.

use super::Table;
use crate::error::Result;
use crate::lsm::entry::{Entry, EntryCursor};
use crate::types::SeqNo;
use std::sync::Arc;

/// A position in a table. Keeps the table open.
#[derive(Debug)]
pub(crate) struct TableCursor {
    table: Arc<Table>,
}

impl EntryCursor for TableCursor {
    fn seek_first(&mut self) -> Result<()> {
        todo!()
    }
    fn seek_last(&mut self) -> Result<()> {
        todo!()
    }
    fn seek(&mut self, key: &[u8], seq: SeqNo) -> Result<()> {
        todo!()
    }
    fn seek_before(&mut self, key: &[u8]) -> Result<()> {
        todo!()
    }
    fn next(&mut self) -> Result<()> {
        todo!()
    }
    fn prev(&mut self) -> Result<()> {
        todo!()
    }
    fn is_valid(&self) -> bool {
        todo!()
    }
    fn entry(&self) -> Entry<'_> {
        todo!()
    }
}
