//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use hedgerow_bench::{Error, KeyShape, Params, Result, TargetOptions, ValueSize, Workload};

use crate::stores::{self, STORES, Store};

/// The workloads of docs/peers.md. A fill begins a new store; the others go on with it.
const WORKLOADS: &str = "fillseq,fillbatch,fillrandom,readrandom,readrandom@2,readmissing,\
    seekrandom,seekrandom:100,readseq,readreverse,overwrite,readrandom,readwhilewriting,\
    ycsb-a@2,ycsb-b@2,ycsb-c@2,ycsb-d@2,ycsb-e@2,ycsb-f@2,ycsb-a:zipfian@2,\
    overwritesync@1,overwritesync@2,overwritesync@8";

/// Compares hedgerow with other embedded stores.
#[derive(Debug, Clone, Parser)]
#[command(version)]
pub struct Args {
    /// Records that a fill writes.
    #[arg(long, default_value_t = 2_000_000)]
    pub records: u64,
    /// Operations of the other workloads [default: as many as records, fewer where an operation
    /// is a long one]
    #[arg(long)]
    pub ops: Option<u64>,
    /// Workloads in their order, as name[:argument][@threads].
    #[arg(long, default_value = WORKLOADS, hide_default_value = true)]
    pub workloads: String,
    /// Stores to compare [default: all that this program was built with]
    #[arg(long)]
    pub stores: Option<String>,
    /// Rounds; figures are medians over them.
    #[arg(long, default_value_t = 3)]
    pub rounds: usize,
    /// Where the stores are made, and removed again [default: the directory for temporary files]
    #[arg(long)]
    pub dir: Option<PathBuf>,
    /// Write the tables to this file as well.
    #[arg(long)]
    pub out: Option<PathBuf>,
    /// Write every figure of every round to this file, as JSON.
    #[arg(long)]
    pub json: Option<PathBuf>,
    /// Bytes of a key.
    #[arg(long, default_value_t = 16)]
    pub key_size: usize,
    /// What keys look like: decimal, binary, hashed or prefixed.
    #[arg(long, default_value = "decimal", value_parser = |s: &str| s.parse::<KeyShape>())]
    pub key_shape: KeyShape,
    /// Bytes of a value, as 100 or 16-1024.
    #[arg(long, default_value = "100", value_parser = |s: &str| s.parse::<ValueSize>())]
    pub value_size: ValueSize,
    /// The fraction that values compress to.
    #[arg(long, default_value_t = 0.5)]
    pub compressed_fraction: f64,
    /// Threads of workloads that do not name them.
    #[arg(long, default_value_t = 1)]
    pub threads: usize,
    /// Cache of each store, in MiB.
    #[arg(long, default_value_t = 256)]
    pub cache_mib: u64,
    /// Memtable of each store, in MiB.
    #[arg(long, default_value_t = 64)]
    pub write_buffer_mib: u64,
    /// Background threads of each store.
    #[arg(long, default_value_t = 2)]
    pub background_threads: usize,
    /// Store everything uncompressed.
    #[arg(long)]
    pub no_compression: bool,
    /// Stop a workload that is not a fill after this many seconds.
    #[arg(long, default_value_t = 10.0)]
    pub max_seconds: f64,
    /// Milliseconds that a reading workload runs before it is measured.
    #[arg(long, default_value_t = 500)]
    pub warmup_ms: u64,
    /// Measure the latency of one operation in this many.
    #[arg(long, default_value_t = 16)]
    pub latency_every: u64,
    /// Puts before the kill and the reopening that are timed last; 0 leaves them out.
    #[arg(long, default_value_t = 100_000)]
    pub reopen_puts: u64,
    /// GiB of memory to touch before the first round: a virtual machine's memory is slow when it
    /// is touched for the first time.
    #[arg(long, default_value_t = 4)]
    pub touch_gib: u64,
    /// Seed of keys, orders and values.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Go on with the other stores when one fails; its column shows what it managed.
    #[arg(long)]
    pub keep_going: bool,

    /// What a child process does.
    #[arg(long, hide = true, requires_all = ["child_store", "child_dir"])]
    pub child: Option<Child>,
    /// The store that a child measures.
    #[arg(long, hide = true)]
    pub child_store: Option<String>,
    /// The directory that a child may use.
    #[arg(long, hide = true)]
    pub child_dir: Option<PathBuf>,
}

/// The parts of a run that have a process of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Child {
    /// Runs the workloads.
    Suite,
    /// Writes `reopen_puts` records, says so, and waits to be killed.
    Load,
    /// Opens what `Load` left, and counts what is missing.
    Reopen,
}

impl Args {
    /// The figures of the workloads, checked.
    pub fn params(&self) -> Result<Params> {
        if !self.max_seconds.is_finite() || self.max_seconds <= 0.0 {
            return Err(Error::Usage("max-seconds must be above 0".into()));
        }
        let params = Params {
            records: self.records,
            ops: self.ops,
            key_shape: self.key_shape,
            key_len_bytes: self.key_size,
            values: self.value_size,
            compressed_fraction: self.compressed_fraction,
            threads: self.threads,
            duration: Some(Duration::from_secs_f64(self.max_seconds.min(1e6))),
            warmup: Duration::from_millis(self.warmup_ms),
            latency_every: self.latency_every,
            seed: self.seed,
            ..Params::default()
        };
        params.check()?;
        Ok(params)
    }

    /// How stores are opened.
    pub fn target_options(&self) -> TargetOptions {
        let mut options = TargetOptions {
            cache_bytes: self.cache_mib << 20,
            write_buffer_bytes: self.write_buffer_mib << 20,
            background_threads: self.background_threads,
            ..TargetOptions::default()
        };
        if self.no_compression {
            options.compression = hedgerow::Compression::None;
        }
        options
    }

    /// The workloads, in order.
    pub fn workloads(&self) -> Result<Vec<Workload>> {
        let workloads = hedgerow_bench::parse_workloads(&self.workloads)?;
        if workloads.first().is_some_and(Workload::needs_records) {
            return Err(Error::Usage(
                "the first workload must be a fill: fillseq, fillrandom or fillbatch".into(),
            ));
        }
        Ok(workloads)
    }

    /// The stores, in order.
    pub fn stores(&self) -> Result<Vec<Store>> {
        match &self.stores {
            None => Ok(STORES.to_vec()),
            Some(list) => list
                .split(',')
                .map(|name| stores::find(name.trim()))
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Args {
        Args::try_parse_from([&["peers"], args].concat()).unwrap()
    }

    #[test]
    fn defaults_are_runnable() {
        let args = parse(&[]);
        args.params().unwrap();
        assert!(args.workloads().unwrap().len() > 20);
        assert!(args.stores().unwrap().len() >= 2);
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(parse(&["--records", "0"]).params().is_err());
        assert!(parse(&["--max-seconds", "0"]).params().is_err());
        assert!(parse(&["--workloads", "readrandom"]).workloads().is_err());
        assert!(parse(&["--workloads", "fillall"]).workloads().is_err());
        let error = parse(&["--stores", "oracle"])
            .stores()
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("oracle") && error.contains("hedgerow-lsm"),
            "{error}"
        );
        assert!(Args::try_parse_from(["peers", "--value-size", "9-1"]).is_err());
    }
}
