//! Figures about an engine.

use std::collections::BTreeMap;

/// Figures about one keyspace.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct EngineStats {
    /// Bytes of the keyspace's files.
    pub disk_bytes: u64,
    /// Bytes of file space that holds nothing and will be reused.
    pub free_bytes: u64,
    /// Bytes of memory in memtables or dirty pages.
    pub write_buffer_bytes: u64,
    /// Bytes of memory pinned by indexes and filters, and by what is known of pages.
    pub pinned_bytes: u64,
    /// Approximate number of entries; exact after `compact`.
    pub entries_estimate: u64,
    /// Number of files.
    pub files: u64,
    /// Bytes written by flushes or checkpoints since open.
    pub flush_bytes_written: u64,
    /// Bytes written by compactions since open.
    pub compaction_bytes_written: u64,
    /// Flushes or checkpoints done since open.
    pub flushes: u64,
    /// Compactions done since open.
    pub compactions: u64,
    /// Blocks or pages read by lookups and scans since open, from map, cache or file.
    pub blocks_read: u64,
    /// Entries that background work has dropped since open because they had expired.
    pub expired_entries: u64,
    /// Entries that the compaction filter has dropped or replaced since open.
    pub filtered_entries: u64,
    /// LSM: tables per level, from level 0. B-tree: pages per level, from the root;
    /// empty while unknown, and if the store was closed before they were asked for.
    pub levels: Vec<LevelStats>,
    /// B-tree: height of the tree in pages; 0 for an LSM.
    pub height: u32,
}

/// What the files of an engine refer to among values that are stored apart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ValueUsage {
    /// Bytes of each value file, with what was overwritten and not removed yet.
    pub(crate) files: BTreeMap<u64, u64>,
    /// Bytes that live for sure.
    pub(crate) settled_bytes: u64,
    /// Bytes of the files that are rewritten when everything that is dead is removed.
    pub(crate) tables_bytes: u64,
}

/// Figures about one level of an LSM tree or a B-tree.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LevelStats {
    /// Tables or pages.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}
