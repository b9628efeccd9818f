//! `stats` and `keyspaces`: what a store holds.

use std::fs;
use std::path::Path;

use clap::Args;
use hedgerow::{Db, EngineStats, KeyspaceStats};
use hedgerow_bench::format::{bytes, table, thousands};
use serde_json::{Value, json};

use super::count::records_in;
use crate::failure::{Failure, Result};
use crate::output::{Output, spinner};
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
/// What is on disk, and what opening the store read from the log into memory. The engines'
/// estimate of records leaves out what is only in the log: where there is something, the records
/// are counted, which takes as long as a scan.
#[derive(Debug, Args)]
pub struct Stats {
    #[command(flatten)]
    store: StoreArg,
    #[command(flatten)]
    keyspace: KeyspaceArg,
    /// Never count: print the engine's estimate, without what is only in the log
    #[arg(long)]
    estimate: bool,
}

/// The records of a keyspace.
#[derive(Debug, Clone, Copy)]
enum Records {
    /// As the engine estimates from its files.
    Estimated(u64),
    /// Every one was visited.
    Counted(u64),
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
        let progress = spinner(out.json, "counting");
        let records = keyspaces
            .iter()
            .map(|keyspace| self.records(&db, keyspace))
            .collect::<Result<Vec<_>>>();
        progress.finish_and_clear();
        let records = records?;
        if out.json {
            let keyspaces: Vec<Value> = keyspaces
                .iter()
                .zip(&records)
                .map(|(keyspace, records)| keyspace_json(keyspace, *records))
                .collect();
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
                "records",
                "disk",
                "free",
                "in memory",
                "files",
                "levels",
            ]
            .map(str::to_owned)
            .to_vec(),
        ];
        for (keyspace, records) in keyspaces.iter().zip(&records) {
            let figures = &keyspace.stats;
            rows.push(vec![
                keyspace.name.clone(),
                keyspace.engine.to_string(),
                match records {
                    Records::Estimated(records) => format!("~{}", thousands(*records)),
                    Records::Counted(records) => thousands(*records),
                },
                bytes(figures.disk_bytes),
                bytes(figures.free_bytes),
                bytes(figures.write_buffer_bytes + figures.pinned_bytes),
                thousands(figures.files),
                levels(figures),
            ]);
        }
        out.line(table(&rows))
    }

    /// How many records `keyspace` has.
    fn records(&self, db: &Db, keyspace: &KeyspaceStats) -> Result<Records> {
        let estimate = Records::Estimated(keyspace.stats.entries_estimate);
        if self.estimate || keyspace.stats.write_buffer_bytes == 0 {
            return Ok(estimate);
        }
        match db.existing_keyspace(&keyspace.name)? {
            Some(keyspace) => Ok(Records::Counted(records_in(&keyspace, ..)?)),
            None => Ok(estimate),
        }
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
fn keyspace_json(keyspace: &KeyspaceStats, records: Records) -> Value {
    let stats = &keyspace.stats;
    let levels: Vec<Value> = stats
        .levels
        .iter()
        .map(|level| json!({ "files": level.files, "bytes": level.bytes }))
        .collect();
    let (records, exact) = match records {
        Records::Estimated(records) => (records, false),
        Records::Counted(records) => (records, true),
    };
    json!({
        "name": keyspace.name,
        "engine": keyspace.engine.name(),
        "records": records,
        "records_are_exact": exact,
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
