//! Reading a table.

use std::path::Path;
use std::sync::Arc;

use super::{TableCursor, TableMeta};
use crate::cache::BlockCache;
use crate::engine::VerifyReport;
use crate::error::Result;
use crate::fs::Fs;
use crate::lsm::entry::{Entry, RangeTombstone};
use crate::types::SeqNo;

/// What every table of a keyspace is opened with.
#[derive(Debug, Clone)]
pub(crate) struct TableContext {
    /// The file system.
    pub(crate) fs: Arc<dyn Fs>,
    /// Where decompressed blocks are kept, and all blocks of files that are not mapped.
    pub(crate) cache: Arc<BlockCache>,
    /// Map files where the file system can.
    pub(crate) use_mmap: bool,
    /// Names store and keyspace; the same number that the builder was given.
    pub(crate) seed: u64,
}

/// An open table. Immutable; shared between threads.
#[derive(Debug)]
pub(crate) struct Table {}

impl Table {
    /// Opens the file `path` and checks that it is the table that `meta` describes.
    pub(crate) fn open(ctx: &TableContext, path: &Path, meta: &TableMeta) -> Result<Self> {
        todo!()
    }

    /// What is known about the table.
    pub(crate) fn meta(&self) -> &TableMeta {
        todo!()
    }

    /// The file.
    pub(crate) fn path(&self) -> &Path {
        todo!()
    }

    /// False if no entry has a key of that [`filter_hash`](super::filter_hash).
    #[inline]
    pub(crate) fn may_contain(&self, key_hash: u64) -> bool {
        todo!()
    }

    /// Lends the newest entry of `key` with a sequence number of at most `seq` to `read` and
    /// returns true, or returns false. `key_hash` is the key's
    /// [`filter_hash`](super::filter_hash); the filter is asked first. Range tombstones
    /// are not considered.
    pub(crate) fn get(
        &self,
        key: &[u8],
        key_hash: u64,
        seq: SeqNo,
        read: &mut dyn FnMut(&Entry<'_>),
    ) -> Result<bool> {
        todo!()
    }

    /// A cursor over the entries, standing nowhere. Blocks that it loads enter the cache only if
    /// `fill_cache`.
    pub(crate) fn cursor(self: &Arc<Self>, fill_cache: bool) -> TableCursor {
        todo!()
    }

    /// The range tombstones, by start, then newest first.
    pub(crate) fn range_tombstones(&self) -> &[RangeTombstone] {
        todo!()
    }

    /// Bytes of memory that the open table holds outside the cache. What is mapped
    /// is not counted: the operating system may take it back.
    pub(crate) fn pinned_bytes(&self) -> u64 {
        todo!()
    }

    /// Reads everything and checks it; see the invariants in the module docs. Damage is
    /// reported in the list, `Err` is I/O trouble.
    pub(crate) fn verify(&self) -> Result<VerifyReport> {
        todo!()
    }
}
