//! `compare`: the same real data and the same work on both engines, every answer checked.
//!
//! The comparison itself is [`hedgerow_bench::compare`].

use std::path::{Path, PathBuf};

use clap::Args;
use hedgerow_bench::compare::data::{Data, Record};
use hedgerow_bench::compare::report::Report;
use hedgerow_bench::conditions::{Conditions, Doubt, Watch, warning};
use hedgerow_bench::format::{WIDTH, bytes, counted, wrap};
use hedgerow_bench::{cities, compare};
use serde_json::json;

use crate::failure::{Failure, Result};
use crate::interrupt;
use crate::output::{Output, byte_progress, step_progress};
use crate::records::{self, Shape};
use crate::scratch;
use crate::store::DurabilityArg;

/// Compare both engines on real data
///
/// Loads the records of FILE into each engine, reads, scans, overwrites and reopens them, checks
/// every answer against the file, and prints what each engine did, and which was better. Without
/// FILE it takes 135,233 cities of GeoNames that are built in.
#[derive(Debug, Args)]
pub struct Compare {
    /// Records to compare with [default: the built-in cities]
    file: Option<PathBuf>,
    #[command(flatten)]
    shape: Shape,
    /// At most this many records, spread evenly [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    records: Option<u64>,
    /// Where to make the temporary stores [default: the system's temporary directory]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Durability of loads and overwrites
    #[arg(long, value_enum, default_value = "buffered")]
    durability: DurabilityArg,
    /// Rounds per engine; medians are printed
    #[arg(long, value_name = "N", default_value_t = 3,
        value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
}

impl Compare {
    /// Runs the command.
    pub fn run(&self, out: &mut Output) -> Result<()> {
        let (source, records) = self.read(out.json)?;
        let limit = self
            .records
            .map(|limit| usize::try_from(limit).unwrap_or(usize::MAX));
        let data = Data::new(records, limit)?;
        interrupt::take_time();
        let home = scratch::directory("hedgerow-compare-", self.dir.as_deref())?;

        let mut conditions = Conditions::now(home.path());
        if !out.json {
            let what = format!(
                "{}, {}, from {source}; {}; loads and overwrites {}; in {}; {}.",
                counted(data.records.len() as u64, "record"),
                bytes(data.user_bytes),
                counted(self.rounds.into(), "round"),
                self.durability.name(),
                home.path().display(),
                conditions.to_text(),
            );
            out.line(wrap(&what, 0, WIDTH))?;
            out.line("")?;
            out.flush()?;
        }
        let watch = Watch::start();
        let outcome = self.measure(&data, home.path(), out.json);
        conditions.others = watch.others();
        // Removed whatever happened; an error of the comparison comes first.
        let removed = home.close().map_err(Failure::from);
        let mut report = outcome?;
        removed?;
        report.judge_by(&conditions, &data, self.rounds);

        if out.json {
            return out.value(&json!({
                "source": source,
                "records": data.records.len(),
                "user_bytes": data.user_bytes,
                "rounds": self.rounds,
                "durability": self.durability.name(),
                "version": env!("CARGO_PKG_VERSION"),
                "os": std::env::consts::OS,
                "arch": std::env::consts::ARCH,
                "cpus": std::thread::available_parallelism().map_or(0, usize::from),
                "conditions": conditions.to_json(),
                "doubts": report.doubts.iter().map(Doubt::to_string).collect::<Vec<_>>(),
                "all_answers_checked": true,
                "measures": report.to_json(),
            }));
        }
        out.line(report.to_table())?;
        out.line("")?;
        if let Some(warning) = warning(&report.doubts) {
            out.line(wrap(&warning, 0, WIDTH))?;
        }
        if let Some(used) = conditions.others_sentence(&report.doubts) {
            out.line(used)?;
        }
        out.line("Medians of the rounds. A ~ marks a verdict that some rounds would overturn.")?;
        out.line("Every answer was checked against the source, and both stores verified clean.")?;
        out.line("Size on disk is the keyspace's files; the log, alike for both, is not in it.")
    }

    /// The records and where they come from.
    fn read(&self, json: bool) -> Result<(String, Vec<Record>)> {
        let Some(path) = &self.file else {
            if !self.shape.is_default() {
                return Err(Failure::usage("options about columns need a FILE"));
            }
            let records = cities::cities()
                .into_iter()
                .map(|city| Record {
                    key: city.key,
                    value: city.value,
                })
                .collect();
            return Ok((
                "the built-in cities of GeoNames (CC BY 4.0)".to_owned(),
                records,
            ));
        };
        self.shape.check(path)?;
        let progress = byte_progress(json, records::length(path));
        let input = records::open_records(path, &progress)?;
        let mut records = Vec::new();
        let tally = records::for_each(path, input, &self.shape, |_, key, value| {
            records.push(Record {
                key: key.to_vec(),
                value: value.to_vec(),
            });
            Ok(())
        })?;
        progress.finish_and_clear();
        let mut source = path.display().to_string();
        if let Some((line, what)) = tally.first_skipped {
            let skipped = counted(tally.missing + tally.skipped, "record");
            source.push_str(&format!(
                " ({skipped} skipped, the first: line {line}: {what})"
            ));
        }
        Ok((source, records))
    }

    fn measure(&self, data: &Data, home: &Path, json: bool) -> Result<Report> {
        let progress = step_progress(json, compare::steps(self.rounds));
        let announce = |what: &str| {
            progress.inc(1);
            progress.set_message(what.to_owned());
        };
        let durability = self.durability.into();
        let report = compare::run(data, self.rounds, durability, home, &announce)?;
        progress.finish_and_clear();
        Ok(report)
    }
}
