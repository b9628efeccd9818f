//! What a memtable asks of its index.

use std::fmt;
use std::sync::Arc;

use crate::lsm::entry::{Entry, EntryCursor};

/// An ordered index of entries: one writer, many readers (LM1 to LM3).
pub(crate) trait MemtableIndex: fmt::Debug + Send + Sync {
    /// Adds an entry. No entry of that key and word is there yet.
    fn insert(&self, key: &[u8], word: u64, value: &[u8]);

    /// Lends the first entry of `key` at or after `word` in internal order to `read`, and
    /// returns true, or returns false.
    fn get(&self, key: &[u8], word: u64, read: &mut dyn FnMut(&Entry<'_>)) -> bool;

    /// A cursor that keeps the index, standing nowhere.
    fn cursor(self: Arc<Self>) -> Box<dyn EntryCursor>;

    /// Bytes of memory held.
    fn memory_bytes(&self) -> usize;
}
