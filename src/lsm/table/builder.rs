//! Writing a table.

use std::path::Path;
use std::sync::Arc;

use super::TableMeta;
use crate::error::Result;
use crate::fs::Fs;
use crate::lsm::entry::{Entry, RangeTombstone};
use crate::options::Compression;
use crate::types::FileId;

/// How a table is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TableOptions {
    /// Target size of a block before compression.
    pub(crate) block_size_bytes: u32,
    /// Compression of blocks.
    pub(crate) compression: Compression,
    /// Size of the filter; 0 for none, 10 for about 1 % false positives.
    pub(crate) filter_bits_per_key: u32,
}

/// Writes one table from entries in internal order.
#[derive(Debug)]
pub(crate) struct TableBuilder {}

impl TableBuilder {
    /// Creates the file `path`, which must not exist. `seed` names store and keyspace, as
    /// [`TableContext::seed`](super::TableContext::seed) does; the file's `id` is mixed in here.
    pub(crate) fn create(
        fs: &Arc<dyn Fs>,
        path: &Path,
        id: FileId,
        seed: u64,
        options: TableOptions,
    ) -> Result<Self> {
        todo!()
    }

    /// Appends an entry, which must come after the last one in internal order; a
    /// [`Corruption`](crate::Error::Corruption) error otherwise, since only a damaged input of a
    /// compaction can bring that about.
    pub(crate) fn add(&mut self, entry: &Entry<'_>) -> Result<()> {
        todo!()
    }

    /// Adds a range tombstone. In any order, before, between or after entries.
    pub(crate) fn add_range_tombstone(&mut self, tombstone: &RangeTombstone) {
        todo!()
    }

    /// About how long the file would be if it were finished now.
    pub(crate) fn size_estimate_bytes(&self) -> u64 {
        todo!()
    }

    /// True if nothing has been added.
    pub(crate) fn is_empty(&self) -> bool {
        todo!()
    }

    /// Completes the file and syncs it. The directory is the caller's to sync. Refuses an
    /// empty table.
    pub(crate) fn finish(self) -> Result<TableMeta> {
        todo!()
    }
}
