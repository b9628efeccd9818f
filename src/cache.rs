//! The store's one cache of blocks and pages.
//!
//! Holds decompressed table blocks, and B-tree pages where files are not
//! memory-mapped, under one budget in bytes. Every entry has passed its checksum.
//! The policy is `quick_cache`'s (S3-FIFO-like: one pass of a scan does not push out
//! what is used twice).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use quick_cache::Weighter;
use quick_cache::sync::Cache;

/// Names a block: which file (unique within the process) and where in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct BlockKey {
    /// From [`BlockCache::new_file_tag`].
    pub(crate) file_tag: u64,
    /// Byte offset within the file.
    pub(crate) offset: u64,
}

/// A cached block or page: immutable, verified, shared.
pub(crate) type CachedBlock = Arc<[u8]>;

/// Per-entry bookkeeping that is charged to the budget besides the bytes.
const ENTRY_OVERHEAD_BYTES: u64 = 96;

#[derive(Debug, Clone)]
struct ByBytes;

impl Weighter<BlockKey, CachedBlock> for ByBytes {
    fn weight(&self, _: &BlockKey, block: &CachedBlock) -> u64 {
        block.len() as u64 + ENTRY_OVERHEAD_BYTES
    }
}

/// A cache of immutable blocks with a budget in bytes.
#[derive(Debug)]
pub(crate) struct BlockCache {
    blocks: Cache<BlockKey, CachedBlock, ByBytes>,
    next_file_tag: AtomicU64,
}

impl BlockCache {
    /// A cache that holds at most `capacity_bytes`.
    pub(crate) fn new(capacity_bytes: u64) -> Self {
        let expected_blocks = (capacity_bytes / 4096).clamp(16, 1 << 24) as usize;
        Self {
            blocks: Cache::with_weighter(expected_blocks, capacity_bytes, ByBytes),
            next_file_tag: AtomicU64::new(1),
        }
    }

    /// A number that no other file opened with this cache has. A file takes one when it
    /// is opened, so blocks of a removed file are never found again and age out.
    pub(crate) fn new_file_tag(&self) -> u64 {
        self.next_file_tag.fetch_add(1, Ordering::Relaxed)
    }

    /// The block, if cached.
    pub(crate) fn get(&self, key: &BlockKey) -> Option<CachedBlock> {
        self.blocks.get(key)
    }

    /// Offers a verified block to the cache.
    pub(crate) fn insert(&self, key: BlockKey, block: CachedBlock) {
        self.blocks.insert(key, block);
    }

    /// Forgets a block, because its place in the file is about to be reused.
    pub(crate) fn remove(&self, key: &BlockKey) {
        self.blocks.remove(key);
    }

    /// Bytes that may be held.
    pub(crate) fn capacity_bytes(&self) -> u64 {
        self.blocks.capacity()
    }

    /// Bytes held now.
    pub(crate) fn used_bytes(&self) -> u64 {
        self.blocks.weight()
    }

    /// Lookups that found their block, and that did not, since the start.
    pub(crate) fn hits_and_misses(&self) -> (u64, u64) {
        (self.blocks.hits(), self.blocks.misses())
    }
}
