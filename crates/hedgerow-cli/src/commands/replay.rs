//! `replay`: what a recorded workload costs on each engine.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use hedgerow::EngineKind;
use hedgerow_bench::format::{WIDTH, bytes, table_within, thousands};
use hedgerow_bench::replay::plan::{Choice, Plan};
use hedgerow_bench::replay::run::{Measured, Settings, run};
use serde_json::{Map, Value, json};

use super::trace_args::{Bench, MAX_PRELOAD};
use crate::failure::{Failure, Result};
use crate::interrupt;
use crate::output::{Output, spinner};

/// Which engines to replay on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Engines {
    Lsm,
    Btree,
    Both,
}

/// How fast.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Speed {
    /// As fast as possible
    Max,
    /// Each operation at its recorded time; latencies count from then
    Recorded,
}

/// Replay a recorded workload on fresh stores and print what it costs
///
/// Keys that the trace found before it wrote them are loaded first; that is not measured.
#[derive(Debug, Args)]
pub struct Replay {
    /// The trace
    trace: PathBuf,
    /// Engines to replay on
    #[arg(long, value_enum, default_value = "both")]
    engine: Engines,
    /// How fast
    #[arg(long, value_enum, default_value = "max")]
    speed: Speed,
    /// At most this many operations, from the start
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    ops: Option<u64>,
    /// Load made-up records too, until every keyspace begins with this many
    #[arg(long, value_name = "N",
        value_parser = clap::value_parser!(u64).range(..=MAX_PRELOAD))]
    records_preload: Option<u64>,
    #[command(flatten)]
    bench: Bench,
}

impl Replay {
    /// Runs the command.
    pub fn run(&self, out: &mut Output) -> Result<()> {
        interrupt::take_time();
        let choice = Choice {
            limit: self.ops,
            ..Choice::default()
        };
        let plan = Plan::read(&self.trace, choice, self.records_preload)?;
        if plan.events.is_empty() {
            return Err(Failure::error("the trace holds no operation"));
        }
        let engines: &[EngineKind] = match self.engine {
            Engines::Lsm => &[EngineKind::Lsm],
            Engines::Btree => &[EngineKind::BTree],
            Engines::Both => &EngineKind::ALL,
        };
        let settings = Settings {
            recorded_speed: self.speed == Speed::Recorded,
            cache_bytes: self.bench.cache_mib << 20,
            write_buffer_bytes: self.bench.write_buffer_mib << 20,
            limit: None,
            limit_events: None,
        };
        let home = self.bench.temporary_dir()?;
        let mut all = Vec::new();
        for engine in engines {
            let progress = spinner(out.json, "replaying");
            let dir = home.path().join(engine.name());
            all.push(run(&plan, *engine, &dir, &settings)?);
            progress.finish_and_clear();
            std::fs::remove_dir_all(&dir)
                .map_err(|source| Failure::io("removing", &dir, source))?;
        }
        home.close()?;
        if out.json {
            let engines: Map<String, Value> = all
                .iter()
                .map(|measured| (measured.engine.name().to_owned(), measured.to_json()))
                .collect();
            return out.value(&json!({
                "trace": self.trace.display().to_string(),
                "events": plan.events.len(),
                "preloaded_records": plan.preload.len(),
                "preloaded_bytes": plan.preload_bytes(),
                "made_up_records": plan.made_up,
                "notes": plan.notes,
                "engines": engines,
            }));
        }
        out.wrapped(
            2,
            format!(
                "{}: {} operations; {} records, {}, loaded first",
                self.trace.display(),
                thousands(all[0].ops),
                thousands(plan.preload.len() as u64),
                bytes(plan.preload_bytes()),
            ),
        )?;
        if plan.made_up > 0 {
            out.wrapped(
                2,
                format!(
                    "{} of these are made up, for scans over entries that the trace does not name",
                    thousands(plan.made_up)
                ),
            )?;
        }
        for note in &plan.notes {
            out.wrapped(6, format!("note: {note}"))?;
        }
        out.line("")?;
        out.line(table_within(&cost_rows(&all), 1, WIDTH))?;
        out.line("")?;
        out.line("Latencies in microseconds:")?;
        out.line(table_within(&latency_rows(&all), 2, WIDTH))
    }
}

fn cost_rows(all: &[Measured]) -> Vec<Vec<String>> {
    let row = |name: &str, figure: &dyn Fn(&Measured) -> String| {
        let mut row = vec![name.to_owned()];
        row.extend(all.iter().map(figure));
        row
    };
    let times = |figure: Option<f64>| figure.map_or("-".to_owned(), |times| format!("{times:.2}"));
    vec![
        row("", &|m| m.engine.name().to_owned()),
        row("operations a second", &|m| thousands(m.rate() as u64)),
        row("the same, until idle", &|m| {
            thousands(m.settled_rate() as u64)
        }),
        row("CPU seconds", &|m| {
            m.cpu
                .map_or("-".to_owned(), |cpu| format!("{:.2}", cpu.as_secs_f64()))
        }),
        row("memory of buffers and cache", &|m| bytes(m.memory_bytes)),
        row("bytes written", &|m| bytes(m.written_bytes)),
        row("write amplification", &|m| times(m.write_amplification())),
        row("size on disk", &|m| bytes(m.disk_bytes)),
        row("space amplification", &|m| times(m.space_amplification())),
        row("writers held back, ms", &|m| thousands(m.stalled_ms)),
    ]
}

fn latency_rows(all: &[Measured]) -> Vec<Vec<String>> {
    let heading = ["", "engine", "count", "p50", "p99", "p99.9", "max"];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    let kinds = all.iter().flat_map(|measured| measured.latencies.keys());
    let kinds: std::collections::BTreeSet<_> = kinds.collect();
    for kind in kinds {
        for measured in all {
            let Some(histogram) = measured.latencies.get(kind) else {
                continue;
            };
            let micros = |nanos: u64| format!("{:.1}", nanos as f64 / 1e3);
            rows.push(vec![
                (*kind).to_owned(),
                measured.engine.name().to_owned(),
                thousands(histogram.count()),
                micros(histogram.percentile(50.0)),
                micros(histogram.percentile(99.0)),
                micros(histogram.percentile(99.9)),
                micros(histogram.max()),
            ]);
        }
    }
    rows
}
