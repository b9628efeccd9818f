//! The tables: medians with their spread, ratios, and how to repeat the run.

use std::fmt::Write as _;
use std::time::Duration;

use hedgerow_bench::Machine;
use serde_json::{Value, json};

use crate::args::Args;
use crate::stores::Store;
use crate::summary::{Summary, short};
use crate::versions;

/// What one run of a workload, or one reopening, gave.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The number of the store.
    pub column: usize,
    /// The round.
    pub round: usize,
    /// The number of the workload; `None` for the reopening.
    pub row: Option<usize>,
    /// Its figures, by the names of `hedgerow_bench::FIGURES`.
    pub figures: Value,
}

/// Everything that the rounds gave.
#[derive(Debug, Clone)]
pub struct Collected {
    /// The workloads' names.
    pub rows: Vec<String>,
    /// The stores.
    pub stores: Vec<Store>,
    /// How many rounds there were.
    pub rounds: usize,
    /// The results.
    pub entries: Vec<Entry>,
    /// Stores that failed, and why.
    pub failures: Vec<(&'static str, String)>,
}

/// A store of ours, and those it must be better than.
const RIVALS: [(&str, &[&str]); 2] = [
    (
        "hedgerow-lsm",
        &["rocksdb", "rocksdb-system", "fjall", "surrealkv"],
    ),
    ("hedgerow-btree", &["lmdb", "lmdb-writemap"]),
];

const MIB: f64 = (1 << 20) as f64;

impl Collected {
    /// Nothing yet.
    pub fn new(rows: Vec<String>, stores: Vec<Store>, rounds: usize) -> Self {
        Self {
            rows,
            stores,
            rounds,
            entries: Vec::new(),
            failures: Vec::new(),
        }
    }

    fn summary(&self, column: usize, row: Option<usize>, figure: &str) -> Option<Summary> {
        let of_cell = self
            .entries
            .iter()
            .filter(|e| e.column == column && e.row == row);
        let figures: Vec<f64> = of_cell.filter_map(|e| e.figures[figure].as_f64()).collect();
        Summary::of(&figures)
    }

    fn median(&self, store: &str, row: Option<usize>, figure: &str) -> Option<f64> {
        let column = self.stores.iter().position(|known| known.name == store)?;
        Some(self.summary(column, row, figure)?.median)
    }

    /// Rows whose workload writes.
    fn writes(&self, row: usize) -> bool {
        let written = |e: &Entry| e.figures["user_written_bytes"].as_f64().unwrap_or(0.0) > 0.0;
        self.entries
            .iter()
            .any(|entry| entry.row == Some(row) && written(entry))
    }

    /// One table: a row per workload, a column per store.
    fn table(
        &self,
        title: &str,
        figure: &str,
        keep: impl Fn(usize) -> bool,
        show: impl Fn(f64) -> String,
    ) -> String {
        let mut out = format!("\n## {title}\n\n| workload |");
        for store in &self.stores {
            let _ = write!(out, " {} |", store.name);
        }
        out += "\n| --- |";
        out += &" ---: |".repeat(self.stores.len());
        out.push('\n');
        for (row, label) in self.rows.iter().enumerate().filter(|&(row, _)| keep(row)) {
            let _ = write!(out, "| {label} |");
            for column in 0..self.stores.len() {
                let summary = self.summary(column, Some(row), figure);
                let cell = summary.map_or("–".into(), |summary| summary.show(&show));
                let _ = write!(out, " {cell} |");
            }
            out.push('\n');
        }
        out
    }

    /// How many times as fast ours are as the better of their rivals, by one figure.
    fn ratios(&self, title: &str, figure: &str, keep: impl Fn(usize) -> bool) -> String {
        let known = |name: &str| self.stores.iter().any(|store| store.name == name);
        let pairs: Vec<_> = RIVALS
            .iter()
            .map(|&(ours, rivals)| {
                let present: Vec<_> = rivals.iter().copied().filter(|name| known(name)).collect();
                (ours, present)
            })
            .filter(|(ours, rivals)| known(ours) && !rivals.is_empty())
            .collect();
        if pairs.is_empty() {
            return String::new();
        }
        let mut out = format!("\n## {title}\n\n| workload |");
        for (ours, rivals) in &pairs {
            let _ = write!(out, " {ours} to the better of {} |", rivals.join(", "));
        }
        out += "\n| --- |";
        out += &" ---: |".repeat(pairs.len());
        out.push('\n');
        for (row, label) in self.rows.iter().enumerate().filter(|&(row, _)| keep(row)) {
            let _ = write!(out, "| {label} |");
            for (ours, rivals) in &pairs {
                let rate = |store: &str| self.median(store, Some(row), figure);
                let best = rivals
                    .iter()
                    .filter_map(|rival| Some((rate(rival)?, *rival)));
                let best = best.max_by(|a, b| a.0.total_cmp(&b.0));
                let cell = match (rate(ours), best) {
                    (Some(ours), Some((best, rival))) if best > 0.0 => {
                        format!("{:.2} ({rival})", ours / best)
                    }
                    _ => "–".into(),
                };
                let _ = write!(out, " {cell} |");
            }
            out.push('\n');
        }
        out
    }

    fn reopening(&self, args: &Args) -> String {
        if args.reopen_puts == 0 {
            return String::new();
        }
        let mut out = format!(
            "\n## Killed after {} buffered puts, then opened again\n\n\
             | store | opening, s | puts lost to the kill |\n| --- | ---: | ---: |\n",
            args.reopen_puts
        );
        for (column, store) in self.stores.iter().enumerate() {
            let open = self.summary(column, None, "open_s");
            let lost = self.summary(column, None, "lost");
            let open = open.map_or("–".into(), |open| open.show(|s| format!("{s:.3}")));
            let lost = lost.map_or("–".into(), |lost| lost.show(|n| n.to_string()));
            let _ = writeln!(out, "| {} | {open} | {lost} |", store.name);
        }
        out
    }

    /// The whole page.
    pub fn markdown(&self, args: &Args, took: Duration) -> String {
        let machine = Machine::this();
        let live_mib = args
            .params()
            .map_or(0.0, |params| params.live_bytes() as f64 / MIB);
        let mut out = format!(
            "# hedgerow beside other stores\n\n\
             Written by this command, which took {:.0} minutes; docs/benchmarks.md describes the \
             method and what is held equal.\n\n\
             ```text\n{}\n```\n\n\
             - {} records, keys of {} bytes ({}), values of {} bytes that compress to {}: {:.0} MiB \
             of live data\n\
             - medians of {} interleaved rounds, in brackets the smallest and the largest figure; \
             every store in processes of its own\n\
             - machine: {}, {} cores, {:.1} GiB of memory, {}\n\
             - {}\n",
            took.as_secs_f64() / 60.0,
            command(),
            args.records,
            args.key_size,
            args.key_shape,
            args.value_size,
            args.compressed_fraction,
            live_mib,
            self.rounds,
            machine.cpu,
            machine.cores,
            machine.memory_bytes as f64 / (1u64 << 30) as f64,
            machine.system,
            versions::compiler(),
        );
        out += "\n| store | version | settings (of the first workload) | weaker in |\n";
        out += "| --- | --- | --- | --- |\n";
        for (column, store) in self.stores.iter().enumerate() {
            let first = self
                .entries
                .iter()
                .find(|e| e.column == column && e.row.is_some());
            let settings = first
                .and_then(|e| e.figures["settings"].as_str())
                .unwrap_or("–");
            let _ = writeln!(
                out,
                "| {} | {} | {settings} | {} |",
                store.name,
                versions::shown(store.packages),
                store.weaker.unwrap_or(""),
            );
        }
        for (store, why) in &self.failures {
            let _ = writeln!(out, "\n**{store} failed:** {why}");
        }
        let all = |_: usize| true;
        out += &self.ratios(
            "Ratios of the medians of operations per second: above 1 hedgerow is faster",
            "ops_per_s",
            all,
        );
        out += &self.ratios(
            "The same ratios, with the time until the store had no work left",
            "settled_ops_per_s",
            |row| self.writes(row),
        );
        let mib = |bytes: f64| short(bytes / MIB);
        out += &self.table("Operations per second", "ops_per_s", all, short);
        out += &self.table(
            "Operations per second, with the time until the store had no work left",
            "settled_ops_per_s",
            |row| self.writes(row),
            short,
        );
        let every = args.latency_every;
        let latency = |what: &str| format!("{what}, µs (one operation in {every} measured)");
        out += &self.table(&latency("Median latency"), "p50_us", all, short);
        out += &self.table(
            &latency("99.9th percentile of latency"),
            "p999_us",
            all,
            short,
        );
        out += &self.table(&latency("Longest latency"), "max_us", all, short);
        out += &self.table(
            "CPU seconds per million operations",
            "cpu_s_per_million_ops",
            all,
            short,
        );
        out += &self.table(
            "MiB sent to storage, until the store had no work left",
            "device_written_bytes",
            |row| self.writes(row),
            mib,
        );
        out += &self.table(
            "MiB on disk at the end",
            "disk_bytes",
            |row| self.writes(row),
            mib,
        );
        out += &self.table(
            "Peak of anonymous memory, MiB",
            "peak_anonymous_bytes",
            all,
            mib,
        );
        out += &self.reopening(args);
        out
    }

    /// Every figure of every round.
    pub fn json(&self, args: &Args) -> String {
        let machine = Machine::this();
        let mut out = format!(
            "{{\"command\":{},\"machine\":{},\"compiler\":{},\"records\":{},\"results\":[\n",
            json!(command()),
            json!({
                "cpu": machine.cpu,
                "cores": machine.cores,
                "memory_bytes": machine.memory_bytes,
                "system": machine.system,
            }),
            json!(versions::compiler()),
            args.records,
        );
        for (number, entry) in self.entries.iter().enumerate() {
            let store = self.stores[entry.column];
            let line = json!({
                "store": store.name,
                "version": versions::shown(store.packages),
                "round": entry.round + 1,
                "row": entry.row.map_or("reopen", |row| &self.rows[row]),
                "figures": entry.figures,
            });
            let comma = if number == 0 { "" } else { ",\n" };
            let _ = write!(out, "{comma}{line}");
        }
        out += "\n]}\n";
        out
    }
}

/// The command that started this process, as it can be repeated from the root of the repository.
fn command() -> String {
    let features: Vec<_> = [
        ("rocksdb", cfg!(feature = "rocksdb")),
        ("rocksdb-system", cfg!(feature = "rocksdb-system")),
        ("sled", cfg!(feature = "sled")),
        ("canopydb", cfg!(feature = "canopydb")),
    ]
    .into_iter()
    .filter_map(|(name, built)| built.then_some(name))
    .collect();
    let mut command = String::from("cargo run --release --manifest-path benches/peers/Cargo.toml");
    if !features.is_empty() {
        let _ = write!(command, " --features {}", features.join(","));
    }
    command += " --";
    for arg in std::env::args().skip(1) {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./,:@=".contains(c);
        if !arg.is_empty() && arg.chars().all(plain) {
            let _ = write!(command, " {arg}");
        } else {
            let _ = write!(command, " '{}'", arg.replace('\'', r"'\''"));
        }
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stores::STORES;
    use clap::Parser as _;

    #[test]
    fn a_page_has_every_store_and_workload() {
        let rows = vec!["fillseq".to_string(), "readrandom".to_string()];
        let stores: Vec<_> = ["hedgerow-lsm", "fjall"]
            .iter()
            .filter_map(|name| STORES.iter().find(|store| store.name == *name).copied())
            .collect();
        let mut collected = Collected::new(rows, stores.clone(), 3);
        for round in 0..3 {
            for column in 0..stores.len() {
                for row in 0..2 {
                    let rate = 1000.0 * (round + 1) as f64 / (column + 1) as f64;
                    let figures = json!({
                        "settings": "plain",
                        "ops_per_s": rate,
                        "settled_ops_per_s": rate / 2.0,
                        "user_written_bytes": if row == 0 { 100 } else { 0 },
                        "disk_bytes": 3 << 20,
                    });
                    collected.entries.push(Entry {
                        column,
                        round,
                        row: Some(row),
                        figures,
                    });
                }
                let figures = json!({ "open_s": 0.5, "lost": 0 });
                collected.entries.push(Entry {
                    column,
                    round,
                    row: None,
                    figures,
                });
            }
        }
        collected.failures.push(("redb", "no space left".into()));
        let args = Args::try_parse_from(["peers"]).unwrap();
        let page = collected.markdown(&args, Duration::from_secs(90));
        for part in [
            "| hedgerow-lsm | hedgerow 0.1.0 | plain |",
            "**redb failed:** no space left",
            "| fillseq | 2.00k (1.00k–3.00k) |",
            "| fillseq | 3.00 |",
            "| hedgerow-lsm | 0.500 | 0 |",
        ] {
            assert!(page.contains(part), "{part}\n{page}");
        }
        if stores.len() == 2 {
            assert!(page.contains("| readrandom | 2.00 (fjall) |"), "{page}");
        }
        let settled = page
            .split("until the store had no work left\n")
            .nth(1)
            .unwrap();
        let settled = settled.split("\n## ").next().unwrap();
        assert!(
            !settled.contains("readrandom"),
            "only workloads that write settle"
        );
        let json: Value = serde_json::from_str(&collected.json(&args)).unwrap();
        assert_eq!(
            json["results"].as_array().unwrap().len(),
            3 * stores.len() * 3
        );
    }
}
