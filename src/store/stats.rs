//! Figures about a whole store, and a counter that is cheap to count with.

use super::scrub_state::ScrubStats;
use super::shared::Shared;
use crate::engine::EngineStats;
use crate::options::{EngineKind, KeyspaceOptions};

/// Figures about a store, now. Counters run since the store was opened.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let db = hedgerow::Db::open(dir.path().join("my.db"))?;
/// use hedgerow::EngineKind;
///
/// let users = db.keyspace("users", EngineKind::BTree)?;
/// users.put("ada", "1815")?;
/// users.flush()?;
/// let stats = db.stats();
/// assert_eq!((stats.commits, stats.ops), (1, 1));
/// assert!(stats.bytes_written() >= stats.log_bytes_written);
/// assert!(stats.disk_bytes() >= stats.log_disk_bytes);
/// assert_eq!(stats.keyspaces[0].stats.entries_estimate, 1);
/// # Ok::<(), hedgerow::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct DbStats {
    /// Commits, bulk loads left out.
    pub commits: u64,
    /// Operations in them.
    pub ops: u64,
    /// Groups of sync commits that shared a flush of the device.
    pub commit_groups: u64,
    /// Bytes appended to the log, headers included.
    pub log_bytes_written: u64,
    /// Flushes of the log.
    pub log_syncs: u64,
    /// Bytes of log that a recovery would have to read.
    pub log_live_bytes: u64,
    /// Bytes of the log's files, prepared segments included.
    pub log_disk_bytes: u64,
    /// Files of values that have left the log, or that one value was streamed into; see
    /// [`KeyspaceOptions::value_threshold_bytes`](crate::KeyspaceOptions#structfield.value_threshold_bytes).
    pub value_files: u64,
    /// Their bytes.
    pub value_disk_bytes: u64,
    /// Bytes of values in them that tables refer to, with what was overwritten and not removed yet.
    pub value_live_bytes: u64,
    /// Bytes in the cache of blocks and pages.
    pub cache_used_bytes: u64,
    /// Lookups in the cache that found their block.
    pub cache_hits: u64,
    /// Lookups in the cache that did not.
    pub cache_misses: u64,
    /// Files of keyspaces that are open, besides those being written; see
    /// [`Options::max_open_files`](crate::Options#structfield.max_open_files).
    pub open_files: u64,
    /// Milliseconds that writers were slowed because background work was behind, added up.
    pub slowed_ms: u64,
    /// Milliseconds that writers were stopped for the same reason, added up.
    pub stopped_ms: u64,
    /// Live snapshots.
    pub snapshots: u64,
    /// How many operations were committed since the oldest live snapshot. A large number means
    /// that a forgotten snapshot keeps old data.
    pub oldest_snapshot_age_ops: u64,
    /// What fails in the background, until that is done or is wanted no more: the job, its
    /// keyspace, and the error. The first of them, if several jobs fail. Else why the store takes
    /// no more writes, if it takes none; else a problem that the scrub has found, until a pass does
    /// not find it any more.
    pub background_error: Option<String>,
    /// What the scrub has read and found.
    pub scrub: ScrubStats,
    /// The keyspaces, ordered by their creation.
    pub keyspaces: Vec<KeyspaceStats>,
}

/// Figures about one keyspace of a store.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct KeyspaceStats {
    /// Its name.
    pub name: String,
    /// Its engine.
    pub engine: EngineKind,
    /// Its options, as they are in use now: a value for each that concerns its engine.
    pub options: KeyspaceOptions,
    /// Its figures.
    pub stats: EngineStats,
}

impl DbStats {
    /// Bytes written to files since the store was opened: log, flushes, checkpoints and
    /// compactions.
    pub fn bytes_written(&self) -> u64 {
        let engines = self.keyspaces.iter().map(|keyspace| {
            keyspace.stats.flush_bytes_written + keyspace.stats.compaction_bytes_written
        });
        self.log_bytes_written + engines.sum::<u64>()
    }

    /// Bytes of all files of the store but the short ones that describe it: its catalogue, its lock
    /// and the manifests of LSM trees.
    pub fn disk_bytes(&self) -> u64 {
        let engines = self
            .keyspaces
            .iter()
            .map(|keyspace| keyspace.stats.disk_bytes);
        self.log_disk_bytes + self.value_disk_bytes + engines.sum::<u64>()
    }
}

impl Shared {
    /// Figures about the store and its keyspaces, now. Of a closed store, those that need no look
    /// at a file.
    pub(crate) fn stats(&self) -> DbStats {
        if let Ok(_pass) = self.enter() {
            for open in self.keyspaces.all().iter() {
                open.engine.refresh_stats();
            }
        }
        let mut stats = DbStats::default();
        if let Some(pipeline) = &self.pipeline {
            let figures = pipeline.figures();
            stats.commits = figures.commits;
            stats.ops = figures.ops;
            stats.commit_groups = figures.groups;
        }
        if let Some(log) = self.coordinator.log() {
            let figures = log.stats();
            stats.log_bytes_written = figures.bytes_appended;
            stats.log_syncs = figures.syncs;
            stats.log_live_bytes = log.live_bytes();
            stats.log_disk_bytes = figures.disk_bytes;
        }
        if self.values.has_value_files() {
            let figures = self.value_figures();
            for file in figures.value_files() {
                stats.value_files += 1;
                stats.value_disk_bytes += file.len_bytes;
                stats.value_live_bytes += figures.referred_in(file);
            }
        }
        stats.open_files = self.open_files.count() as u64;
        stats.cache_used_bytes = self.cache.used_bytes();
        (stats.cache_hits, stats.cache_misses) = self.cache.hits_and_misses();
        (stats.slowed_ms, stats.stopped_ms) = self.waits.waited_ms();
        let (oldest, count) = self.snapshot_tracker.oldest();
        stats.snapshots = count as u64;
        let published = self.snapshot_tracker.published();
        // One may be registered a moment before its number is published.
        stats.oldest_snapshot_age_ops =
            oldest.map_or(0, |oldest| published.0.saturating_sub(oldest.0));
        stats.scrub = self.scrub.stats();
        stats.background_error = self.background_error();
        stats.keyspaces = self
            .keyspaces
            .all()
            .iter()
            .map(|open| KeyspaceStats {
                name: open.name().to_string(),
                engine: open.options.engine(),
                options: open.options.effective(),
                stats: open.engine.stats(),
            })
            .collect();
        stats
    }
}
