//! The tables of a comparison of transactions, as Markdown.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Instant;

use hedgerow::Durability;
use hedgerow_bench::Machine;
use hedgerow_bench::conditions::Conditions;
use hedgerow_bench::format::{bytes, counted, thousands, wrap};
use hedgerow_bench::suite::results::short;
use serde_json::{Value, json};

use super::Transactions;
use super::stores::{Contender, Kind};
use super::workload::Workload;

const TITLE: &str = "Transactions beside those of other stores";
/// Columns of prose.
const WIDTH: usize = 100;

/// What a run has given so far.
pub struct Report<'a> {
    asked: &'a Transactions,
    stores: &'a [Contender],
    command: String,
    conditions: Conditions,
    began: Instant,
    /// Of each store, with everything that a sample says of itself.
    samples: Vec<Vec<Value>>,
}

/// A line of the tables.
#[derive(Debug, Clone, Copy)]
struct Row<'a> {
    workload: &'a Workload,
    threads: usize,
    durability: Durability,
}

/// A table: its title, the figure of a sample, and how that is shown.
type Table = (&'static str, &'static str, fn(f64) -> String);

const TABLES: [Table; 6] = [
    (
        "Committed transactions per second",
        "committed_per_s",
        short,
    ),
    (
        "Refused attempts, in per cent of all",
        "refused_share",
        per_cent,
    ),
    (
        "Median latency, refused attempts included",
        "p50_us",
        micros,
    ),
    ("99 % of latencies are below", "p99_us", micros),
    ("99.9 % of latencies are below", "p99.9_us", micros),
    (
        "Processor time per committed transaction",
        "processor_us",
        micros,
    ),
];

fn per_cent(share: f64) -> String {
    match share {
        0.0 => "0".to_owned(),
        share => format!("{:.2}", share * 100.0),
    }
}

fn micros(micros: f64) -> String {
    match micros >= 999.5 {
        true => format!("{} ms", short(micros / 1e3)),
        false => format!("{} us", short(micros)),
    }
}

impl<'a> Report<'a> {
    /// Of a run that begins now, with stores under `dir`.
    pub fn new(
        asked: &'a Transactions,
        stores: &'a [Contender],
        dir: &Path,
        command: &str,
    ) -> Self {
        Self {
            asked,
            stores,
            command: command.to_owned(),
            conditions: Conditions::now(dir),
            began: Instant::now(),
            samples: vec![Vec::new(); stores.len()],
        }
    }

    /// Takes what a process has measured of a store.
    pub fn add(&mut self, store: usize, samples: Vec<Value>) {
        self.samples[store].extend(samples);
    }

    fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        let workloads = self.asked.workloads.iter();
        workloads.flat_map(move |workload| {
            self.asked.durability.iter().flat_map(move |&durability| {
                self.asked.threads.iter().map(move |&threads| Row {
                    workload,
                    threads,
                    durability,
                })
            })
        })
    }

    /// A figure of all rounds, ascending.
    fn figures(&self, store: usize, row: &Row<'_>, name: &str) -> Vec<f64> {
        let of_row = self.samples[store].iter().filter(|sample| {
            sample["workload"] == row.workload.to_string()
                && sample["threads"] == row.threads
                && sample["durability"] == format!("{:?}", row.durability)
        });
        let mut figures: Vec<_> = of_row.filter_map(|sample| sample[name].as_f64()).collect();
        figures.sort_by(f64::total_cmp);
        figures
    }

    fn median(&self, store: usize, row: &Row<'_>, name: &str) -> Option<f64> {
        let figures = self.figures(store, row, name);
        let middle = figures.len() / 2;
        match figures.len() {
            0 => None,
            len if len % 2 == 1 => Some(figures[middle]),
            _ => Some(f64::midpoint(figures[middle - 1], figures[middle])),
        }
    }

    /// The whole page.
    pub fn to_markdown(&self) -> String {
        let mut out = self.circumstances();
        out += &self.subjects();
        out += &self.ratios();
        for table in &TABLES {
            out += &self.table(table);
        }
        out
    }

    fn circumstances(&self) -> String {
        let took = format!(
            "Written by this command, which took {:.0} minutes; docs/benchmarks.md describes the method.",
            self.began.elapsed().as_secs_f64() / 60.0
        );
        let mut out = format!("# {TITLE}\n\n{took}\n\n```text\n{}\n```\n\n", self.command);
        let (asked, machine) = (self.asked, Machine::this());
        let items = [
            format!(
                "data: {} accounts, keys of 16 bytes, values of {} bytes",
                thousands(asked.accounts),
                asked.value_size
            ),
            format!(
                "rounds: {}, in turns, each store and durability in a process and a directory of \
                 its own; {} s for each figure; seed {}",
                asked.rounds, asked.seconds, asked.seed
            ),
            format!(
                "machine: {}, {}, {} of memory, {}",
                machine.cpu,
                counted(machine.cores as u64, "core"),
                bytes(machine.memory_bytes),
                machine.system
            ),
            format!("conditions: {}", self.conditions.to_text()),
            format!("compiler: {}", env!("PEERS_RUSTC_VERSION")),
            "medians of the rounds; of the first table also the smallest and the largest figure"
                .to_owned(),
        ];
        for item in items {
            let _ = writeln!(out, "{}", wrap(&format!("- {item}"), 2, WIDTH));
        }
        out
    }

    fn subjects(&self) -> String {
        let mut out = String::from("\n| store | version | isolation | weaker in |\n");
        out += "| --- | --- | --- | --- |\n";
        for store in self.stores {
            let _ = writeln!(
                out,
                "| {} | {} | {} | {} |",
                store.name,
                store.version(),
                store.isolation,
                store.weaker_in()
            );
        }
        out
    }

    /// How many times as many transactions each of ours commits as the best optimistic store, as
    /// RocksDB, and as the best of those with one writer.
    fn ratios(&self) -> String {
        const TITLES: [&str; 3] = [
            "the best optimistic store",
            "rocksdb",
            "the best with one writer",
        ];
        let mut out =
            String::from("\n## Ratios of committed transactions per second\n\n| workload");
        let ours: Vec<_> = self.of_kind(Kind::Ours);
        for &at in &ours {
            for title in TITLES {
                let _ = write!(out, " | {} to {title}", self.stores[at].name);
            }
        }
        let _ = writeln!(
            out,
            " |\n| --- {}|",
            "| ---: ".repeat(ours.len() * TITLES.len())
        );
        let rocksdb = self.stores.iter().position(|store| store.name == "rocksdb");
        let rivals = [
            self.of_kind(Kind::Optimistic),
            rocksdb.into_iter().collect(),
            self.of_kind(Kind::OneWriter),
        ];
        for row in self.rows() {
            out += &row.title();
            for &at in &ours {
                for rivals in &rivals {
                    let _ = write!(out, " | {}", self.ratio(at, rivals, &row));
                }
            }
            out += " |\n";
        }
        out
    }

    fn of_kind(&self, kind: Kind) -> Vec<usize> {
        let all = 0..self.stores.len();
        all.filter(|&at| self.stores[at].kind == kind).collect()
    }

    fn ratio(&self, ours: usize, rivals: &[usize], row: &Row<'_>) -> String {
        const FIGURE: &str = "committed_per_s";
        let rate = |at| self.median(at, row, FIGURE).unwrap_or(0.0);
        let best = rivals
            .iter()
            .copied()
            .max_by(|&a, &b| rate(a).total_cmp(&rate(b)));
        match best {
            Some(best) if rate(best) > 0.0 && rate(ours) > 0.0 => {
                let ratio = rate(ours) / rate(best);
                match rivals {
                    [_] => format!("{ratio:.2}"),
                    _ => format!("{ratio:.2} ({})", self.stores[best].name),
                }
            }
            _ => "–".to_owned(),
        }
    }

    fn table(&self, &(title, name, show): &Table) -> String {
        let mut out = format!("\n## {title}\n\n| workload");
        for store in self.stores {
            let _ = write!(out, " | {}", store.name);
        }
        let _ = writeln!(out, " |\n| --- {}|", "| ---: ".repeat(self.stores.len()));
        for row in self.rows() {
            out += &row.title();
            for at in 0..self.stores.len() {
                let figures = self.figures(at, &row, name);
                let cell = match (self.median(at, &row, name), &figures[..]) {
                    (Some(median), [first, .., last]) if name == "committed_per_s" => {
                        format!("{} ({}–{})", show(median), show(*first), show(*last))
                    }
                    (Some(median), _) => show(median),
                    (None, _) => "–".to_owned(),
                };
                let _ = write!(out, " | {cell}");
            }
            out += " |\n";
        }
        out
    }

    /// Every figure of every round.
    pub fn to_json(&self) -> Value {
        let stores = self.stores.iter().zip(&self.samples);
        let stores = stores.map(|(store, samples)| {
            json!({"store": store.name, "version": store.version(), "samples": samples})
        });
        json!({
            "command": self.command,
            "conditions": self.conditions.to_json(),
            "stores": stores.collect::<Vec<_>>(),
        })
    }
}

impl Row<'_> {
    fn title(&self) -> String {
        format!(
            "| {}@{}, {:?}",
            self.workload, self.threads, self.durability
        )
    }
}
