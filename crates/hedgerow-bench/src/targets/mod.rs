//! What a store must do to be measured.

use std::fmt;
use std::path::Path;

pub(crate) mod hedgerow;

use ::hedgerow::{Compression, Durability};

use crate::error::Result;

/// How a store is opened: one set of settings for every store, so that they are comparable.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TargetOptions {
    /// What each commit survives.
    pub durability: Durability,
    /// Budget of the cache of blocks or pages, in bytes. Stores that leave caching to the
    /// operating system have none, and say so in their settings.
    pub cache_bytes: u64,
    /// Budget of one memtable, in bytes, or what comes closest.
    pub write_buffer_bytes: u64,
    /// Threads for work in the background.
    pub background_threads: usize,
    /// Compression, for stores that have it.
    pub compression: Compression,
    /// Address space for stores that map their file at a size fixed in advance, in bytes.
    pub map_bytes: u64,
}

impl Default for TargetOptions {
    fn default() -> Self {
        Self {
            durability: Durability::Buffered,
            cache_bytes: 256 << 20,
            write_buffer_bytes: 64 << 20,
            background_threads: 2,
            compression: Compression::Lz4,
            map_bytes: 64 << 30,
        }
    }
}

/// The direction of a scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Ascending keys.
    Forward,
    /// Descending keys.
    Reverse,
}

/// An open store under measurement; shared by the threads of a run.
///
/// Dropping it closes the store in an orderly way. Every commit has the durability that the store
/// was opened with. Each call stands alone, as it would in a program that serves one request after
/// another: a store that needs a transaction for reading begins one per call.
pub trait Target: Send + Sync {
    /// Which store, in a word: `hedgerow-lsm`, `rocksdb`.
    fn name(&self) -> &str;

    /// The settings that differ from the store's defaults, and where it cannot give what
    /// [`TargetOptions`] asks.
    fn settings(&self) -> String;

    /// Commits one key.
    fn put(&self, key: &[u8], value: &[u8]) -> Result<()>;

    /// Commits several keys at once.
    fn put_batch(&self, entries: &[(Vec<u8>, Vec<u8>)]) -> Result<()>;

    /// Removes one key.
    fn delete(&self, key: &[u8]) -> Result<()>;

    /// Calls `read` with the value of `key`; false if there is none. A store that can lend its
    /// bytes without copying does so.
    fn get(&self, key: &[u8], read: &mut dyn FnMut(&[u8])) -> Result<bool>;

    /// Visits up to `limit` entries from `start` on (the first key at or after it, or at or before
    /// it in reverse; from the end of the store if `None`), and returns how many there were.
    fn scan(
        &self,
        start: Option<&[u8]>,
        direction: Direction,
        limit: u64,
        visit: &mut dyn FnMut(&[u8], &[u8]),
    ) -> Result<u64>;

    /// Returns when no work is left to do in the background, as far as the store tells.
    fn wait_idle(&self) -> Result<()>;

    /// Bytes that the store itself says it wrote to files since it was opened.
    fn bytes_written(&self) -> Option<u64> {
        None
    }

    /// Blocks or pages that reads touched since the store was opened.
    fn blocks_read(&self) -> Option<u64> {
        None
    }

    /// Bytes that its data take on disk now, without its log.
    fn tree_bytes(&self) -> Option<u64> {
        None
    }

    /// Milliseconds for which it has slowed writers down since it was opened.
    fn writers_slowed_ms(&self) -> Option<u64> {
        None
    }

    /// Milliseconds for which it has stopped writers since it was opened.
    fn writers_stopped_ms(&self) -> Option<u64> {
        None
    }
}

impl fmt::Debug for dyn Target + '_ {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Target").field(&self.name()).finish()
    }
}

/// Opens or creates a store in a directory, which exists.
pub type OpenTarget = fn(&Path, &TargetOptions) -> Result<Box<dyn Target>>;
