//! `load`: records of a file into a keyspace.

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use hedgerow::{Batch, Durability, Kv};
use hedgerow_bench::format::{bytes, counted, thousands};
use hedgerow_bench::stop;
use serde_json::json;

use crate::failure::{Failure, Result};
use crate::interrupt;
use crate::output::{Output, byte_progress};
use crate::records::{self, Shape};
use crate::store::{
    Access, DurabilityArg, EngineArg, KeyspaceArg, StoreArg, existing_or_new, open,
};

/// A batch is committed at this size even if it has few records.
const BATCH_BYTES_MAX: usize = 8 << 20;

/// Load records from a file
///
/// Creates the store and the keyspace if they do not exist. Records are committed in batches;
/// reading stops at the first bad record, and the error says how many were committed before.
#[derive(Debug, Args)]
pub struct Load {
    #[command(flatten)]
    store: StoreArg,
    /// File to read; - is standard input. A name that ends in .lz4 is decompressed
    file: PathBuf,
    #[command(flatten)]
    keyspace: KeyspaceArg,
    /// Engine of a keyspace that does not exist yet [default: lsm]
    #[arg(long, value_enum)]
    engine: Option<EngineArg>,
    #[command(flatten)]
    shape: Shape,
    /// Records in a commit
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..))]
    batch: u64,
    /// Durability of each commit; everything is synced before the command ends
    #[arg(long, value_enum, default_value = "buffered")]
    durability: DurabilityArg,
}

/// Fills and commits batches, and counts what is committed.
struct Loader<'a, K> {
    kv: &'a K,
    durability: Durability,
    records_max: u64,
    batch: Batch,
    batch_bytes: usize,
    records: u64,
    record_bytes: u64,
}

impl<'a, K: Kv> Loader<'a, K> {
    fn new(kv: &'a K, durability: Durability, records_max: u64) -> Self {
        Self {
            kv,
            durability,
            records_max,
            batch: Batch::new(),
            batch_bytes: 0,
            records: 0,
            record_bytes: 0,
        }
    }

    fn add(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        // Checked here, where the line is known, rather than when the batch is written.
        if key.len() > hedgerow::MAX_KEY_LEN_BYTES {
            return Err(Failure::error(format!(
                "a key of {} bytes is too long",
                key.len()
            )));
        }
        if value.len() > hedgerow::MAX_VALUE_LEN_BYTES {
            return Err(Failure::error(format!(
                "a value of {} bytes is too long",
                value.len()
            )));
        }
        self.batch.put(key, value);
        self.batch_bytes += key.len() + value.len();
        if self.batch.len() as u64 >= self.records_max || self.batch_bytes >= BATCH_BYTES_MAX {
            self.commit()?;
            stop::check()?;
        }
        Ok(())
    }

    fn commit(&mut self) -> Result<()> {
        let batch = std::mem::take(&mut self.batch);
        let records = batch.len() as u64;
        if records > 0 {
            self.kv.write_with(batch, self.durability)?;
        }
        self.records += records;
        self.record_bytes += std::mem::take(&mut self.batch_bytes) as u64;
        Ok(())
    }
}

impl Load {
    /// Runs the command.
    pub fn run(&self, out: &mut Output) -> Result<()> {
        // The file first: a misspelt name must not leave an empty store behind.
        self.shape.check(&self.file)?;
        let progress = byte_progress(out.json);
        let input = records::open_records(&self.file, &progress)?;

        interrupt::take_time();
        let began = Instant::now();
        let db = open(&self.store, Access::Create)?;
        let keyspace = existing_or_new(&db, &self.keyspace, self.engine)?;
        let mut loader = Loader::new(&keyspace, self.durability.into(), self.batch);
        let outcome = records::for_each(&self.file, input, &self.shape, |line, key, value| {
            loader
                .add(key, value)
                .map_err(|failure| failure.context(format!("line {line}")))
        })
        .and_then(|()| loader.commit());
        progress.finish_and_clear();

        let committed = loader.records;
        // What was committed is synced even if reading failed; the first failure is reported.
        let synced = db.sync().and_then(|()| db.close()).map_err(Failure::from);
        if let Err(failure) = outcome.and(synced) {
            let context = format!(
                "stopped after {} had been committed",
                counted(committed, "record")
            );
            return Err(failure.context(context).detail("committed", committed));
        }

        let elapsed = began.elapsed();
        let rate = (committed as f64 / elapsed.as_secs_f64().max(1e-9)) as u64;
        out.either(
            &json!({
                "keyspace": keyspace.name(),
                "engine": keyspace.engine().name(),
                "records": committed,
                "record_bytes": loader.record_bytes,
                "elapsed_ms": elapsed.as_secs_f64() * 1e3,
                "durability": self.durability.name(),
            }),
            format!(
                "{}, {}, into {:?} ({}) in {:.2} s: {} records/s",
                counted(committed, "record"),
                bytes(loader.record_bytes),
                keyspace.name(),
                keyspace.engine(),
                elapsed.as_secs_f64(),
                thousands(rate),
            ),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hedgerow::{KvRead, Model};

    #[test]
    fn batches_fill_by_records_and_by_bytes() {
        let kv = Model::new();
        let mut loader = Loader::new(&kv, Durability::Buffered, 2);
        loader.add(b"a", b"1").unwrap();
        assert_eq!(kv.iter().count(), 0);
        loader.add(b"b", b"2").unwrap();
        assert_eq!((kv.iter().count(), loader.records), (2, 2));
        loader.add(b"c", &vec![0; BATCH_BYTES_MAX]).unwrap();
        assert_eq!(loader.records, 3);
        assert!(loader.add(&[0; 65_536], b"").is_err());
        loader.commit().unwrap();
        assert_eq!((kv.iter().count(), loader.records), (3, 3));
    }
}
