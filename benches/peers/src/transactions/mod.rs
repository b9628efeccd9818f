//! `peers transactions`: transactions of hedgerow and of other stores under the same workloads.
//!
//! ```text
//! cargo run --release --manifest-path benches/peers/Cargo.toml --features rocksdb -- \
//!     transactions --seconds 2 --rounds 3 --out tables.md
//! ```
//!
//! Threads transfer amounts between accounts, or read ten and write one. A store is a
//! [`Transactional`], which runs a closure in a transaction of its own kind and says whether that
//! was committed. Everything else is the same for all: accounts ([`accounts`]), choice of accounts,
//! attempts after a refusal, clocks and checks ([`workload`]). The program starts itself again for
//! every store, durability and round, as in the comparison without transactions, and prints medians
//! ([`report`]).

mod accounts;
mod hedgerow;
mod report;
mod stores;
#[cfg(test)]
mod tests;
mod workload;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::time::Duration;

use ::hedgerow::Durability;
use clap::Args;
use hedgerow_bench::{Error, Result, TargetOptions, touch_memory};
use serde_json::{Value, json};

use report::Report;
use stores::Contender;
use workload::{Size, Workload};

/// What becomes of an attempt to run a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attempt {
    /// All that it wrote is written.
    Committed,
    /// Another transaction came between, and nothing is written.
    Refused,
}

/// What is done in a transaction.
pub type Body<'a> = &'a mut dyn FnMut(&mut dyn Tx) -> Result<()>;

/// A store with transactions; shared by the threads of a run. Every commit has the durability that
/// the store was opened with.
pub trait Transactional: Send + Sync {
    /// Begins a transaction, runs `body` in it, and commits it. A store with one writer waits for
    /// that of others before it begins.
    fn attempt(&self, body: Body<'_>) -> Result<Attempt>;

    /// Waits until nothing is left to do in the background.
    fn wait_idle(&self) -> Result<()>;
}

/// A transaction that has begun. If it is refused, what it has read need not be of one moment.
pub trait Tx {
    /// Calls `read` with the value of `key`, on which the commit depends; false if there is none.
    fn get(&mut self, key: &[u8], read: &mut dyn FnMut(&[u8])) -> Result<bool>;

    /// Sets `key` to `value`.
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()>;
}

/// Compares the transactions of hedgerow with those of other stores.
///
/// Each is given what makes it serializable for these workloads; docs/transactions.md describes
/// the method.
#[derive(Debug, Clone, Args)]
pub struct Transactions {
    /// Workloads: transfer or read-mostly, with :zipfian or another distribution, separated by
    /// commas
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    #[arg(default_value = "transfer,transfer:zipfian,read-mostly")]
    #[arg(value_parser = Workload::from_str)]
    workloads: Vec<Workload>,
    /// Numbers of threads, separated by commas
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        default_value = "1,2,8"
    )]
    #[arg(value_parser = |text: &str| positive(text))]
    threads: Vec<usize>,
    /// Durabilities, separated by commas
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        default_value = "buffered,sync"
    )]
    #[arg(value_parser = durability)]
    durability: Vec<Durability>,
    /// Stores to compare, separated by commas [default: all that this program was built with]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    stores: Vec<String>,
    /// Accounts
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    #[arg(value_parser = clap::value_parser!(u64).range(10..=999_999_999))]
    accounts: u64,
    /// Bytes of a value
    #[arg(long, value_name = "BYTES", default_value_t = 100)]
    #[arg(value_parser = clap::value_parser!(u32).range(accounts::HEAD_LEN_BYTES as i64..=1 << 20))]
    value_size: u32,
    /// Seconds that each workload runs on so many threads
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0)]
    #[arg(value_parser = seconds)]
    seconds: f64,
    /// Rounds for each; medians are printed
    #[arg(long, value_name = "N", default_value_t = 3)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Seed of choices and amounts
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// GiB of memory to touch before the first round
    #[arg(long, value_name = "GIB", default_value_t = 4)]
    touch_gib: usize,
    /// Where to make the temporary stores [default: the system's temporary directory]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Shell command to run before each store is measured, such as one that stops other work
    #[arg(long, value_name = "COMMAND")]
    before: Option<String>,
    /// Shell command to run after each store was measured, whatever came of it
    #[arg(long, value_name = "COMMAND")]
    after: Option<String>,
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
}

fn positive(text: &str) -> std::result::Result<usize, String> {
    match text.parse() {
        Ok(number) if (1..=1024).contains(&number) => Ok(number),
        _ => Err("a number of threads is 1 to 1024".into()),
    }
}

fn seconds(text: &str) -> std::result::Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.01..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("0.01 to 3600 seconds".into()),
    }
}

fn durability(text: &str) -> std::result::Result<Durability, String> {
    match text {
        "buffered" => Ok(Durability::Buffered),
        "sync" => Ok(Durability::Sync),
        _ => Err("durabilities are buffered and sync".into()),
    }
}

impl Transactions {
    /// Runs what is asked for; `command` repeats it.
    pub fn run(&self, command: &str) -> Result<()> {
        if let (Some(store), Some(dir)) = (&self.child_store, &self.child_dir) {
            return self.run_child(&stores::find(store)?, dir);
        }
        let stores = match self.stores.is_empty() {
            true => stores::all(),
            false => {
                let found = self.stores.iter().map(|name| stores::find(name.trim()));
                found.collect::<Result<_>>()?
            }
        };
        for file in [&self.out, &self.json].into_iter().flatten() {
            crate::check_parent(file)?;
        }
        let within = self.dir.clone().unwrap_or_else(std::env::temp_dir);
        touch_memory(self.touch_gib << 30);
        let mut report = Report::new(self, &stores, &within, command);
        for round in 0..self.rounds as usize {
            for &durability in &self.durability {
                for at in 0..stores.len() {
                    let at = (at + round) % stores.len();
                    let name = stores[at].name;
                    eprintln!(
                        "round {} of {}, {name}, {durability:?}",
                        round + 1,
                        self.rounds
                    );
                    let samples = self.measure(&stores[at], durability, &within);
                    report.add(at, samples.map_err(|error| error.during(name))?);
                }
            }
        }
        let page = report.to_markdown();
        print!("{page}");
        if let Some(path) = &self.out {
            crate::write(path, &page)?;
        }
        if let Some(path) = &self.json {
            crate::write(path, &format!("{:#}\n", report.to_json()))?;
        }
        Ok(())
    }

    fn size(&self) -> Size {
        Size {
            accounts: self.accounts,
            value_len_bytes: self.value_size as usize,
        }
    }

    /// Measures one store in a process and a directory of its own: what it was opened with, and a
    /// sample for each workload and number of threads.
    fn measure(
        &self,
        store: &Contender,
        durability: Durability,
        within: &Path,
    ) -> Result<Vec<Value>> {
        let dir = tempfile::Builder::new()
            .prefix("hedgerow-peers-")
            .tempdir_in(within)
            .map_err(|source| Error::io("making a directory in", within, source))?;
        let mut child = Command::new(std::env::current_exe()?);
        child
            .args(std::env::args_os().skip(1))
            .args(["--child-store", store.name, "--child-dir"])
            .arg(dir.path())
            // The last one counts.
            .args(["--durability", &format!("{durability:?}").to_lowercase()])
            .stderr(Stdio::inherit());
        run_shell(self.before.as_deref())?;
        let output = child.output();
        run_shell(self.after.as_deref())?;
        let output = output?;
        if !output.status.success() {
            return Err(Error::failed(format!(
                "the process ended with {}",
                output.status
            )));
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let samples = text.lines().map(serde_json::from_str).collect();
        Result::<_, serde_json::Error>::map_err(samples, Error::store)
    }

    /// Measures `store` in this process, and prints what [`Transactions::measure`] reads.
    fn run_child(&self, store: &Contender, dir: &Path) -> Result<()> {
        let durability = self.durability.last().copied().unwrap_or_default();
        let options = TargetOptions {
            durability,
            ..TargetOptions::default()
        };
        let size = self.size();
        let target = (store.open)(dir, &options)?;
        workload::fill(&*target, size)?;
        for workload in &self.workloads {
            for &threads in &self.threads {
                let duration = Duration::from_secs_f64(self.seconds);
                let outcome = workload::run(&*target, workload, size, threads, duration, self.seed);
                let outcome = outcome.map_err(|error| error.during(workload.to_string()))?;
                let mut sample = outcome.to_json(workload, threads);
                sample["durability"] = json!(format!("{durability:?}"));
                println!("{sample}");
            }
        }
        Ok(())
    }
}

fn run_shell(command: Option<&str>) -> Result<()> {
    let Some(command) = command else {
        return Ok(());
    };
    let status = Command::new("sh").args(["-c", command]).status()?;
    match status.success() {
        true => Ok(()),
        false => Err(Error::failed(format!("{command:?} ended with {status}"))),
    }
}
