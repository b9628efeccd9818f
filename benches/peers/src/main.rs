//! `peers`: hedgerow and other embedded stores under the same workloads.
//!
//! ```text
//! cargo run --release --manifest-path benches/peers/Cargo.toml -- \
//!     --records 2000000 --rounds 3 --out docs/peers.md
//! ```
//!
//! Here are the adapters ([`stores`]), the comparison of [`transactions`], and the command line.
//! Everything else is the suite of hedgerow-bench: this program starts itself again for every store
//! and round, as a process that measures one store on a fresh directory, and writes medians with
//! their spread, ratios, and everything needed to repeat the run. docs/benchmarks.md says what is
//! held equal, and how.

mod stores;
mod transactions;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::{Parser, Subcommand};
use hedgerow::Compression;
use hedgerow_bench::format::command_line;
use hedgerow_bench::report::markdown::{self, Family};
use hedgerow_bench::suite::child;
use hedgerow_bench::suite::contestant::Contestant;
use hedgerow_bench::suite::plan::{Plan, Preset, Wishes};
use hedgerow_bench::suite::results::{Results, short};
use hedgerow_bench::suite::rounds::{self, Progress, Setup, Task};
use hedgerow_bench::suite::setting::Setting;
use hedgerow_bench::{
    Error, KeyShape, Result, Subject, TargetOptions, ValueSize, touch_memory, with_causes,
};

use transactions::Transactions;

/// The steps of docs/peers.md. A fill begins a new store; the workloads after it go on with it.
const WORKLOADS: &str = "fillseq,fillbatch,fillrandom,readrandom,readrandom@2,readmissing,\
    seekrandom,seekrandom:100,readseq,readreverse,overwrite,readrandom,readwhilewriting,\
    ycsb-a@2,ycsb-b@2,ycsb-c@2,ycsb-d@2,ycsb-e@2,ycsb-f@2,ycsb-a:zipfian@2,\
    overwritesync@1,overwritesync@2,overwritesync@8,kill:100000";

/// The stores that ours must be better than, each in its own kind.
const FAMILIES: [Family<'_>; 2] = [
    Family {
        subject: "hedgerow-lsm",
        rivals: &["rocksdb", "rocksdb-system", "fjall", "surrealkv"],
    },
    Family {
        subject: "hedgerow-btree",
        rivals: &["lmdb", "lmdb-writemap"],
    },
];

/// Compares hedgerow with other embedded stores.
///
/// docs/benchmarks.md describes the method; `hedgerow bench --help` lists the workloads.
#[derive(Debug, Clone, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Args {
    #[command(subcommand)]
    other: Option<Other>,
    /// Records that a fill writes
    #[arg(long, value_name = "N", default_value_t = 2_000_000)]
    records: u64,
    /// Operations of other workloads [default: as many as records, fewer where one takes long]
    #[arg(long, value_name = "N")]
    ops: Option<u64>,
    /// Workloads in order, as name[:argument][@threads], and trade-off runs that are not of
    /// hedgerow alone (kill, valuesize, memratio), separated by commas
    #[arg(long, value_name = "LIST", default_value = WORKLOADS, hide_default_value = true)]
    workloads: String,
    /// Stores to compare, separated by commas [default: all that this program was built with]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    stores: Vec<String>,
    /// Rounds for each; medians are printed
    #[arg(long, value_name = "N", default_value_t = 3)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Stop a workload that is not a fill after this many seconds
    #[arg(
        long,
        alias = "max-seconds",
        value_name = "SECONDS",
        default_value_t = 10.0
    )]
    duration: f64,
    /// Milliseconds that a workload which only reads runs before it is measured
    #[arg(long, value_name = "MS", default_value_t = 500)]
    warmup_ms: u64,
    /// Threads of workloads that do not name them
    #[arg(long, value_name = "N", default_value_t = 1)]
    threads: usize,
    /// Bytes of a key
    #[arg(long, value_name = "BYTES", default_value_t = 16)]
    key_size: usize,
    /// What keys look like: decimal, binary, hashed or prefixed
    #[arg(long, value_name = "SHAPE", default_value = "decimal")]
    #[arg(value_parser = |s: &str| s.parse::<KeyShape>())]
    key_shape: KeyShape,
    /// Bytes of a value, as 100 or 16-1024
    #[arg(long, value_name = "BYTES", default_value = "100")]
    #[arg(value_parser = |s: &str| s.parse::<ValueSize>())]
    value_size: ValueSize,
    /// The fraction that values compress to
    #[arg(long, value_name = "FRACTION", default_value_t = 0.5)]
    compress_fraction: f64,
    /// Measure the latency of one operation in this many
    #[arg(long, value_name = "N", default_value_t = 16)]
    latency_every: u64,
    /// Seed of keys, orders and values
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Cache of each store, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 256)]
    cache_mib: u64,
    /// Memtable of each store, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 64)]
    write_buffer_mib: u64,
    /// Background threads of each store
    #[arg(long, value_name = "N", default_value_t = 2)]
    background_threads: usize,
    /// Store everything uncompressed
    #[arg(long)]
    no_compression: bool,
    /// Go on with the other stores when one fails; its column shows what it managed
    #[arg(long)]
    keep_going: bool,
    /// GiB of memory to touch before the first round, because the memory of a virtual machine is
    /// slow at its first touch
    #[arg(long, value_name = "GIB", default_value_t = 4)]
    touch_gib: usize,
    /// Where to make the temporary stores [default: the system's temporary directory]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Write the tables to this file as well
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Write every figure of every round to this file, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// The store that a child process measures
    #[arg(long, hide = true, requires = "child_dir")]
    child_store: Option<String>,
    /// The directory that a child process may use
    #[arg(long, hide = true)]
    child_dir: Option<PathBuf>,
    /// The step that the child process before it was killed in
    #[arg(long, hide = true)]
    child_killed_in: Option<usize>,
}

/// What else can be compared.
#[derive(Debug, Clone, Subcommand)]
enum Other {
    Transactions(Transactions),
}

fn main() -> ExitCode {
    match Args::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("peers: {}", with_causes(&error));
            ExitCode::FAILURE
        }
    }
}

impl Args {
    fn run(&self) -> Result<()> {
        if let Some(Other::Transactions(transactions)) = &self.other {
            return transactions.run(&command());
        }
        let plan = self.plan()?;
        if let (Some(store), Some(dir)) = (&self.child_store, &self.child_dir) {
            let mut out = std::io::stdout().lock();
            return child::run(
                &plan,
                &find(store)?,
                dir,
                None,
                self.child_killed_in,
                &mut out,
            );
        }
        let stores = self.stores()?;
        for store in &stores {
            plan.check_contestant(store)?;
        }
        for file in [&self.out, &self.json].into_iter().flatten() {
            check_parent(file)?;
        }
        let within = self.dir.clone().unwrap_or_else(std::env::temp_dir);
        // Removed when this function returns, whichever way.
        let home = tempfile::Builder::new()
            .prefix("hedgerow-peers-")
            .tempdir_in(&within)
            .map_err(|source| Error::io("making a directory in", &within, source))?;
        plan.check_space(&within)?;

        touch_memory(self.touch_gib << 30);
        let compiler = [("compiler", env!("PEERS_RUSTC_VERSION"))];
        let setting = Setting::now(&plan, &within, command(), &compiler);
        let subjects: Vec<Subject> = stores.iter().map(|store| store.subject).collect();
        let mut results = Results::new(&plan, &subjects, setting);
        let setup = Setup {
            home: home.path(),
            group: None,
            command: &child_command,
            progress: &|progress| show(progress, plan.rounds),
            keep_going: self.keep_going,
        };
        rounds::run(&plan, &setup, &mut results)?;

        let page = markdown::page("hedgerow beside other stores", &results, &FAMILIES);
        print!("{page}");
        if let Some(path) = &self.out {
            write(path, &page)?;
        }
        if let Some(path) = &self.json {
            write(path, &format!("{:#}\n", results.to_json()))?;
        }
        Ok(())
    }

    /// What is run, checked.
    fn plan(&self) -> Result<Plan> {
        let wishes = Wishes {
            workloads: Some(self.workloads.clone()),
            records: Some(self.records),
            ops: self.ops,
            rounds: Some(self.rounds),
            duration_s: Some(self.duration),
            warmup_ms: Some(self.warmup_ms),
            threads: Some(self.threads),
            key_size_bytes: Some(self.key_size),
            key_shape: Some(self.key_shape),
            value_size: Some(self.value_size),
            compress_fraction: Some(self.compress_fraction),
            latency_every: Some(self.latency_every),
            seed: Some(self.seed),
            ..Wishes::default()
        };
        let defaults = TargetOptions::default();
        let options = TargetOptions {
            cache_bytes: self.cache_mib << 20,
            write_buffer_bytes: self.write_buffer_mib << 20,
            background_threads: self.background_threads,
            compression: match self.no_compression {
                true => Compression::None,
                false => defaults.compression,
            },
            ..defaults
        };
        Plan::new(Preset::Standard, &wishes, options)
    }

    /// The stores, in the order of the columns.
    fn stores(&self) -> Result<Vec<Contestant>> {
        match self.stores.is_empty() {
            true => Ok(stores::all()),
            false => self.stores.iter().map(|name| find(name.trim())).collect(),
        }
    }
}

/// The store of that name.
fn find(name: &str) -> Result<Contestant> {
    let all = stores::all();
    let found = all.iter().find(|store| store.subject.name == name);
    found.copied().ok_or_else(|| {
        let known: Vec<_> = all.iter().map(|store| store.subject.name).collect();
        Error::usage(format!(
            "unknown store {name:?}: this program was built with {} (others need their feature, \
             as in --features rocksdb,rocksdb-system,sled,canopydb)",
            known.join(", ")
        ))
    })
}

/// Refuses a file that cannot be written, before the hours of work that it is the end of.
fn check_parent(file: &Path) -> Result<()> {
    match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() && !parent.is_dir() => {
            let file = file.display();
            Err(Error::usage(format!("{file} is in no directory")))
        }
        _ => Ok(()),
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).map_err(|source| Error::io("writing", path, source))
}

/// A line for each step, which its rate ends.
fn show(progress: Progress<'_>, rounds: u32) {
    match progress {
        Progress::Begins {
            round,
            subject,
            step,
        } => eprint!("round {round} of {rounds}, {:15} {step:28} ", subject.name),
        Progress::Done { sample } => match sample.figure("ops_per_s") {
            Some(rate) => eprintln!("{:>7} ops/s", short(rate)),
            None => eprintln!("done"),
        },
        Progress::Failed { error } => eprintln!("\npeers: {}", with_causes(error)),
    }
}

/// This program again, with the same arguments, as the process that measures.
fn child_command(task: &Task<'_>) -> std::io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args(std::env::args_os().skip(1))
        .args(["--child-store", task.subject.name, "--child-dir"])
        .arg(task.dir);
    if let Some(step) = task.killed_in {
        command.args(["--child-killed-in", &step.to_string()]);
    }
    Ok(command)
}

/// The command that started this process, as it can be repeated from the root of the repository.
fn command() -> String {
    let features = [
        ("rocksdb", cfg!(feature = "rocksdb")),
        ("rocksdb-system", cfg!(feature = "rocksdb-system")),
        ("sled", cfg!(feature = "sled")),
        ("canopydb", cfg!(feature = "canopydb")),
    ];
    let built = features.iter().filter(|(_, is_built)| *is_built);
    let built: Vec<_> = built.map(|(name, _)| *name).collect();
    let mut cargo = String::from("cargo run --release --manifest-path benches/peers/Cargo.toml");
    if !built.is_empty() {
        cargo += " --features ";
        cargo += &built.join(",");
    }
    cargo += " --";
    command_line(&cargo, std::env::args_os().skip(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Args {
        Args::try_parse_from([&["peers"], args].concat()).unwrap()
    }

    #[test]
    fn every_store_can_do_what_is_run_by_default() {
        let args = parse(&[]);
        let plan = args.plan().unwrap();
        assert!(plan.steps.len() > 20);
        let stores = args.stores().unwrap();
        assert!(stores.len() >= 2);
        for store in &stores {
            plan.check_contestant(store).unwrap();
            assert!(!store.subject.version.is_empty(), "{}", store.subject);
        }
    }

    #[test]
    fn families_begin_with_stores_of_ours() {
        for family in FAMILIES {
            let ours = find(family.subject).unwrap();
            assert!(ours.variant.is_some(), "{}", family.subject);
        }
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(parse(&["--records", "0"]).plan().is_err());
        assert!(parse(&["--duration", "0"]).plan().is_err());
        assert!(parse(&["--workloads", "fillall"]).plan().is_err());
        let error = parse(&["--stores", "oracle"]).stores().unwrap_err();
        let said = error.to_string();
        assert!(
            said.contains("oracle") && said.contains("hedgerow-lsm"),
            "{said}"
        );
        assert!(Args::try_parse_from(["peers", "--value-size", "9-1"]).is_err());
        assert!(Args::try_parse_from(["peers", "--rounds", "0"]).is_err());
    }

    #[test]
    fn releases_come_from_the_lock_file() {
        let ours = find("hedgerow-lsm").unwrap().subject;
        assert!(ours.version.starts_with("hedgerow "), "{}", ours.version);
        #[cfg(feature = "redb")]
        {
            let version = find("redb").unwrap().subject.version;
            let lock = include_str!("../Cargo.lock");
            let number = version.strip_prefix("redb ").unwrap();
            let entry = format!("name = \"redb\"\nversion = \"{number}\"");
            assert!(lock.contains(&entry), "{version}");
        }
    }
}
