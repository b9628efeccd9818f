//! What is measured, and one round of it on one engine.
//!
//! A round is the life of a store: load, settle, read, overwrite, commit durably, close, reopen
//! with everything overwritten still in the log only, check, settle, verify, compact, close,
//! reopen.
//! *Settle* means: flush, then wait until no background work is due, because compaction debt and
//! dirty pages are work that a load leaves for later.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use hedgerow::{Db, Durability, EngineKind, Keyspace, Options};

use super::data::{Data, Version};
use super::workload::Workload;
use crate::error::{Error, Result};
use crate::verdict::Unit;

/// Name of the keyspace that is measured.
const KEYSPACE: &str = "compare";

/// A figure that every round gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Measure {
    /// Its name for programs.
    pub id: &'static str,
    /// Its name for people.
    pub label: &'static str,
    /// What it counts.
    pub unit: Unit,
}

macro_rules! measures {
    ($($name:ident, $id:literal, $label:literal, $unit:ident;)*) => {
        $(const $name: Measure = Measure { id: $id, label: $label, unit: Unit::$unit };)*

        /// Every measure, in the order of the table.
        pub const MEASURES: &[Measure] = &[$($name),*];
    };
}

measures! {
    LOAD, "load", "load, random order, single puts", PerSecond;
    LOAD_SETTLED, "load_settled", "load until settled", PerSecond;
    READ_HIT, "read_hit", "point reads, hit", PerSecond;
    READ_MISS, "read_miss", "point reads, miss", PerSecond;
    SHORT_SCAN, "short_scan", "seek and read 10", PerSecond;
    FULL_SCAN, "full_scan", "full scan, records", PerSecond;
    REVERSE_SCAN, "reverse_scan", "reverse scan, records", PerSecond;
    PREFIX_SCAN, "prefix_scan", "prefix scans, records", PerSecond;
    OVERWRITE, "overwrite", "overwrites, random order", PerSecond;
    DURABLE_COMMIT, "durable_commit", "durable commits, one writer", PerSecond;
    DISK, "disk_bytes", "size on disk, settled", Bytes;
    DISK_COMPACTED, "disk_bytes_compacted", "size on disk, compacted", Bytes;
    WRITTEN, "bytes_written", "bytes written in all", Bytes;
    WRITE_AMP, "write_amplification", "written / put by the user", Times;
    MEMORY, "memory_bytes", "memory of buffers and indexes", Bytes;
    REOPEN_LOG, "reopen_log_ms", "reopen, overwrites in the log", Milliseconds;
    REOPEN_CLEAN, "reopen_compacted_ms", "reopen, compacted", Milliseconds;
    VERIFY, "verify_ms", "verify everything", Milliseconds;
}

/// The workloads between the first settling and the first close, each with its measure.
const WORKLOADS: [(Workload, Measure); 8] = [
    (Workload::ReadHit, READ_HIT),
    (Workload::ReadMiss, READ_MISS),
    (Workload::ShortScan, SHORT_SCAN),
    (Workload::FullScan, FULL_SCAN),
    (Workload::ReverseScan, REVERSE_SCAN),
    (Workload::PrefixScan, PREFIX_SCAN),
    (Workload::Overwrite, OVERWRITE),
    (Workload::DurableCommit, DURABLE_COMMIT),
];

/// Steps that a round announces.
pub const STEPS: u64 = 1 + WORKLOADS.len() as u64 + 3;

/// Figures of one engine, in the order of the rounds.
pub type Samples = BTreeMap<&'static str, Vec<f64>>;

/// One round on one engine.
pub struct Round<'a> {
    /// The engine.
    pub engine: EngineKind,
    /// A directory that does not exist yet.
    pub dir: &'a Path,
    /// What to load.
    pub data: &'a Data,
    /// Durability of loads and overwrites.
    pub durability: Durability,
    /// Called with what begins.
    pub announce: &'a dyn Fn(&str),
}

/// Bytes written, and bytes put by the user, so far.
#[derive(Default)]
struct Written {
    to_files: u64,
    by_user: u64,
}

impl Round<'_> {
    /// Runs the round and adds its figures to `samples`.
    pub fn run(&self, samples: &mut Samples) -> Result<()> {
        self.measure(samples)
            .map_err(|error| error.during(format!("engine {}", self.engine)))
    }

    fn measure(&self, samples: &mut Samples) -> Result<()> {
        let mut note = |measure: Measure, figure: f64| {
            samples.entry(measure.id).or_default().push(figure);
        };
        let mut written = Written::default();

        let (db, keyspace) = self.open()?;
        (self.announce)(LOAD.label);
        let began = Instant::now();
        let loaded = Workload::Load.run(&keyspace, self.data, Version::Original)?;
        note(LOAD, per_second(loaded, began));
        settle(&db, &keyspace)?;
        note(LOAD_SETTLED, per_second(loaded, began));
        written.by_user += self.data.user_bytes;

        let mut version = Version::Original;
        for (workload, measure) in WORKLOADS {
            (self.announce)(measure.label);
            let began = Instant::now();
            let operations = workload.run(&keyspace, self.data, version)?;
            note(measure, per_second(operations, began));
            match workload {
                Workload::Overwrite => {
                    version = Version::Turned;
                    written.by_user += self.data.user_bytes;
                }
                // The same keys in the same order as the workload took them.
                Workload::DurableCommit => {
                    let taken = &self.data.write_order[..operations as usize];
                    written.by_user += taken
                        .iter()
                        .map(|at| &self.data.records[*at])
                        .map(|record| (record.key.len() + record.value.len()) as u64)
                        .sum::<u64>();
                }
                _ => {}
            }
        }
        let stats = keyspace.stats();
        let memory = stats.write_buffer_bytes + stats.pinned_bytes + db.stats().cache_used_bytes;
        note(MEMORY, memory as f64);
        written.to_files += db.stats().bytes_written();
        db.close()?;

        (self.announce)(REOPEN_LOG.label);
        let began = Instant::now();
        let (db, keyspace) = self.open()?;
        self.read_one(&keyspace, version)?;
        note(REOPEN_LOG, milliseconds(began));
        Workload::FullScan.run(&keyspace, self.data, version)?;
        settle(&db, &keyspace)?;
        written.to_files += db.stats().bytes_written();
        note(WRITTEN, written.to_files as f64);
        note(
            WRITE_AMP,
            written.to_files as f64 / written.by_user.max(1) as f64,
        );
        note(DISK, keyspace.stats().disk_bytes as f64);

        (self.announce)(VERIFY.label);
        let began = Instant::now();
        let report = db.verify()?;
        note(VERIFY, milliseconds(began));
        if let Some(problem) = report.problems.first() {
            return Err(Error::failed(format!("DAMAGE: {problem}")));
        }
        (self.announce)(DISK_COMPACTED.label);
        db.compact()?;
        db.wait_idle()?;
        note(DISK_COMPACTED, keyspace.stats().disk_bytes as f64);
        db.close()?;

        let began = Instant::now();
        let (db, keyspace) = self.open()?;
        self.read_one(&keyspace, version)?;
        note(REOPEN_CLEAN, milliseconds(began));
        Workload::FullScan.run(&keyspace, self.data, version)?;
        db.close()?;
        Ok(())
    }

    fn open(&self) -> Result<(Db, Keyspace)> {
        let db = Options::new().durability(self.durability).open(self.dir)?;
        let keyspace = db.keyspace(KEYSPACE, self.engine)?;
        Ok((db, keyspace))
    }

    /// A store is open when it answers.
    fn read_one(&self, keyspace: &Keyspace, version: Version) -> Result<()> {
        let record = &self.data.records[self.data.read_order[0]];
        match keyspace.get_with(&record.key, |found| record.is(version, found))? {
            Some(true) => Ok(()),
            _ => Err(Error::wrong("a record was lost by reopening")),
        }
    }
}

/// Flushes and waits until no background work is due.
fn settle(db: &Db, keyspace: &Keyspace) -> Result<()> {
    keyspace.flush()?;
    Ok(db.wait_idle()?)
}

fn per_second(operations: u64, began: Instant) -> f64 {
    operations as f64 / began.elapsed().as_secs_f64().max(1e-9)
}

fn milliseconds(began: Instant) -> f64 {
    began.elapsed().as_secs_f64() * 1e3
}
