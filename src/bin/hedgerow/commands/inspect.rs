//! `stats` and `keyspaces`: what a store holds.

use clap::Args;
use hedgerow::{DbStats, EngineStats};
use serde_json::{Value, json};

use crate::failure::Result;
use crate::output::{Output, bytes, table, thousands};
use crate::store::{Access, KeyspaceArg, StoreArg, missing, open};

/// List the keyspaces of a store
#[derive(Debug, Args)]
pub struct Keyspaces {
    #[command(flatten)]
    store: StoreArg,
}

impl Keyspaces {
    /// Runs the command.
    pub fn run(&self, out: &mut Output) -> Result<()> {
        let db = open(&self.store, Access::Read)?;
        for keyspace in db.keyspaces() {
            let engine = keyspace.engine.name();
            out.either(
                &json!({ "name": keyspace.name, "id": keyspace.id, "engine": engine }),
                format!("{engine:5}  {}", keyspace.name),
            )?;
        }
        Ok(())
    }
}

/// Print figures about a store and its keyspaces
///
/// Only what a store knows when it has just been opened: counters of work run while it is open
/// in a program, and `Db::stats` gives them there.
#[derive(Debug, Args)]
pub struct Stats {
    #[command(flatten)]
    store: StoreArg,
    #[command(flatten)]
    keyspace: KeyspaceArg,
}

impl Stats {
    /// Runs the command.
    pub fn run(&self, out: &mut Output) -> Result<()> {
        let db = open(&self.store, Access::Read)?;
        let mut stats = db.stats();
        if let Some(name) = &self.keyspace.keyspace {
            stats.keyspaces.retain(|keyspace| keyspace.name == *name);
            if stats.keyspaces.is_empty() {
                return Err(missing(&db, name));
            }
        }
        if out.json {
            return out.value(&store_json(&stats));
        }
        out.line(format!(
            "{} on disk: log {}, keyspaces {}; {} of log to replay when opened",
            bytes(stats.disk_bytes()),
            bytes(stats.log_disk_bytes),
            bytes(stats.disk_bytes() - stats.log_disk_bytes),
            bytes(stats.log_live_bytes),
        ))?;
        let mut rows = vec![
            [
                "keyspace",
                "engine",
                "entries",
                "disk",
                "free",
                "in memory",
                "files",
                "levels",
            ]
            .map(str::to_owned)
            .to_vec(),
        ];
        for keyspace in &stats.keyspaces {
            let figures = &keyspace.stats;
            rows.push(vec![
                keyspace.name.clone(),
                keyspace.engine.to_string(),
                format!("~{}", thousands(figures.entries_estimate)),
                bytes(figures.disk_bytes),
                bytes(figures.free_bytes),
                bytes(figures.write_buffer_bytes + figures.pinned_bytes),
                thousands(figures.files),
                levels(figures),
            ]);
        }
        out.line(table(&rows))
    }
}

/// Files or pages per level, from the top.
fn levels(stats: &EngineStats) -> String {
    if stats.levels.is_empty() {
        return "-".to_owned();
    }
    let counts: Vec<_> = stats
        .levels
        .iter()
        .map(|level| level.files.to_string())
        .collect();
    counts.join("/")
}

/// Every figure about a store.
pub fn store_json(stats: &DbStats) -> Value {
    let keyspaces: Vec<Value> = stats
        .keyspaces
        .iter()
        .map(|keyspace| {
            let mut figures = engine_json(&keyspace.stats);
            figures["name"] = json!(keyspace.name);
            figures["engine"] = json!(keyspace.engine.name());
            figures
        })
        .collect();
    json!({
        "disk_bytes": stats.disk_bytes(),
        "bytes_written": stats.bytes_written(),
        "commits": stats.commits,
        "ops": stats.ops,
        "commit_groups": stats.commit_groups,
        "log_bytes_written": stats.log_bytes_written,
        "log_syncs": stats.log_syncs,
        "log_live_bytes": stats.log_live_bytes,
        "log_disk_bytes": stats.log_disk_bytes,
        "cache_used_bytes": stats.cache_used_bytes,
        "cache_hits": stats.cache_hits,
        "cache_misses": stats.cache_misses,
        "slowed_ms": stats.slowed_ms,
        "stopped_ms": stats.stopped_ms,
        "snapshots": stats.snapshots,
        "oldest_snapshot_age_ops": stats.oldest_snapshot_age_ops,
        "background_error": stats.background_error,
        "keyspaces": keyspaces,
    })
}

/// Every figure about a keyspace.
fn engine_json(stats: &EngineStats) -> Value {
    let levels: Vec<Value> = stats
        .levels
        .iter()
        .map(|level| json!({ "files": level.files, "bytes": level.bytes }))
        .collect();
    json!({
        "disk_bytes": stats.disk_bytes,
        "free_bytes": stats.free_bytes,
        "write_buffer_bytes": stats.write_buffer_bytes,
        "pinned_bytes": stats.pinned_bytes,
        "entries_estimate": stats.entries_estimate,
        "files": stats.files,
        "flush_bytes_written": stats.flush_bytes_written,
        "compaction_bytes_written": stats.compaction_bytes_written,
        "flushes": stats.flushes,
        "compactions": stats.compactions,
        "blocks_read": stats.blocks_read,
        "levels": levels,
        "height": stats.height,
    })
}
