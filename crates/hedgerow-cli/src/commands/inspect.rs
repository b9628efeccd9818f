//! `stats` and `keyspaces`: what a store holds.

use std::fs;
use std::path::Path;

use clap::Args;
use hedgerow::{EngineStats, KeyspaceStats};
use hedgerow_bench::format::{bytes, table, thousands};
use serde_json::{Value, json};

use crate::failure::{Failure, Result};
use crate::output::Output;
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
/// What is on disk, and what opening the store brought into memory.
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
        let mut keyspaces = db.stats().keyspaces;
        // Counted here, because a store that is open read-only knows nothing of its log's files.
        let all_bytes = directory_bytes(db.path())?;
        let log_bytes = directory_bytes(&db.path().join("wal"))?;
        if let Some(name) = &self.keyspace.keyspace {
            keyspaces.retain(|keyspace| keyspace.name == *name);
            if keyspaces.is_empty() {
                return Err(missing(&db, name));
            }
        }
        if out.json {
            let keyspaces: Vec<Value> = keyspaces.iter().map(keyspace_json).collect();
            return out.value(&json!({
                "disk_bytes": all_bytes,
                "log_disk_bytes": log_bytes,
                "keyspaces": keyspaces,
            }));
        }
        out.line(format!(
            "{} on disk, of which {} log",
            bytes(all_bytes),
            bytes(log_bytes)
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
        for keyspace in &keyspaces {
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

/// Bytes of the files in a directory and below it.
fn directory_bytes(dir: &Path) -> Result<u64> {
    let mut total = 0;
    let fail = |source| Failure::io("reading", dir, source);
    for entry in fs::read_dir(dir).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        total += match entry.metadata() {
            Ok(meta) if meta.is_dir() => directory_bytes(&entry.path())?,
            Ok(meta) => meta.len(),
            // Gone since it was listed.
            Err(_) => 0,
        };
    }
    Ok(total)
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

/// The figures about a keyspace that mean something right after opening.
fn keyspace_json(keyspace: &KeyspaceStats) -> Value {
    let stats = &keyspace.stats;
    let levels: Vec<Value> = stats
        .levels
        .iter()
        .map(|level| json!({ "files": level.files, "bytes": level.bytes }))
        .collect();
    json!({
        "name": keyspace.name,
        "engine": keyspace.engine.name(),
        "entries_estimate": stats.entries_estimate,
        "disk_bytes": stats.disk_bytes,
        "free_bytes": stats.free_bytes,
        "write_buffer_bytes": stats.write_buffer_bytes,
        "pinned_bytes": stats.pinned_bytes,
        "files": stats.files,
        "levels": levels,
        "height": stats.height,
    })
}
