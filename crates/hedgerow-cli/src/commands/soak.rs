//! `soak`: a long life of each engine at bounded size, and whether anything grows.
//!
//! The life itself is [`hedgerow_bench::soak`].

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use hedgerow::EngineKind;
use hedgerow_bench::format::{WIDTH, bytes, wrap};
use hedgerow_bench::soak::{Length, Outcome, Plan, run};
use serde_json::json;

use crate::exit::Exit;
use crate::failure::{Failure, Result};
use crate::interrupt;
use crate::output::{Output, spinner};
use crate::scratch;

/// Let a store live long at bounded size, and say whether anything grows
///
/// Fills a temporary store of each engine and lives through rounds of overwrites, a queue, reads,
/// scans beside writes, range deletes, keyspaces that come and go, and reopening. Every answer is
/// checked. After each phase disk, memory, descriptors, threads and latency are looked at. Exits
/// with 1 if one of them grows with the rounds, or if an answer is wrong.
#[derive(Debug, Args)]
pub struct Soak {
    /// How long, in minutes, for all engines together
    #[arg(long, value_name = "N", default_value_t = 60.0, value_parser = minutes)]
    minutes: f64,
    /// Live through so many rounds instead
    #[arg(long, value_name = "N", conflicts_with = "minutes",
        value_parser = clap::value_parser!(u32).range(1..))]
    rounds: Option<u32>,
    /// With --rounds: operations of each thread in a phase
    #[arg(long, value_name = "N", default_value_t = 2000, requires = "rounds",
        value_parser = clap::value_parser!(u64).range(1..))]
    operations: u64,
    /// Size of the live data, in MiB
    #[arg(long, value_name = "N", default_value_t = 256,
        value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    size_mib: u64,
    /// Which engine
    #[arg(long, value_enum, default_value = "both")]
    engine: Engines,
    /// Threads that use the store
    #[arg(long, value_name = "N", default_value_t = 2,
        value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: u16,
    /// Where choices come from
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Where to make the temporary stores [default: the system's temporary directory]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Engines {
    Lsm,
    Btree,
    Both,
}

fn minutes(text: &str) -> std::result::Result<f64, String> {
    match text.parse::<f64>() {
        Ok(minutes) if minutes > 0.0 && minutes <= 1e6 => Ok(minutes),
        _ => Err("a number of minutes above 0".to_owned()),
    }
}

impl Soak {
    /// Runs the command.
    pub fn run(&self, out: &mut Output) -> Result<()> {
        let engines: &[EngineKind] = match self.engine {
            Engines::Lsm => &[EngineKind::Lsm],
            Engines::Btree => &[EngineKind::BTree],
            Engines::Both => &EngineKind::ALL,
        };
        let length = match self.rounds {
            Some(rounds) => Length::Rounds {
                rounds,
                operations: self.operations,
            },
            None => {
                let share = self.minutes * 60.0 / engines.len() as f64;
                Length::Time(Duration::from_secs_f64(share))
            }
        };
        interrupt::take_time();
        let home = scratch::directory("hedgerow-soak-", self.dir.as_deref())?;
        let mut outcomes = Vec::new();
        // A reader that leaves does not change how it ends: the verdict is the exit code.
        let mut printed = Ok(());
        for engine in engines {
            let plan = Plan {
                engine: *engine,
                size_bytes: self.size_mib << 20,
                threads: self.threads.into(),
                length,
                seed: self.seed,
                ..Plan::default()
            };
            let dir = home.path().join(engine.name());
            let progress = spinner(out.json, "");
            let announce = |what: &str| progress.set_message(format!("{engine}, {what}"));
            let outcome = run(&plan, &dir, &announce)?;
            progress.finish_and_clear();
            if !out.json {
                printed = printed.and_then(|()| print(out, &outcome));
            }
            outcomes.push(outcome);
            std::fs::remove_dir_all(&dir).map_err(|e| Failure::io("removing", &dir, e))?;
        }
        home.close()?;
        if out.json {
            let all: Vec<_> = outcomes.iter().map(Outcome::to_json).collect();
            printed = out.value(&json!({ "engines": all }));
        }
        let grows = |outcome: &Outcome| {
            let engine = outcome.plan.engine;
            let judgements = outcome.judgements();
            let growing = judgements.iter().filter(|it| it.is_growing());
            growing
                .map(|it| format!("{engine}, {it}"))
                .collect::<Vec<_>>()
        };
        let growing: Vec<_> = outcomes.iter().flat_map(grows).collect();
        match growing.is_empty() {
            true => printed,
            false => Err(Failure::new(Exit::Error, growing.join("; "))),
        }
    }
}

/// Prints what one engine's life showed.
fn print(out: &mut Output, outcome: &Outcome) -> Result<()> {
    let what = format!(
        "{}, {} of live data, {:.1} minutes; every answer was right.",
        outcome.plan.engine,
        bytes(outcome.plan.size_bytes),
        outcome.elapsed.as_secs_f64() / 60.0,
    );
    out.line(wrap(&what, 0, WIDTH))?;
    out.line("")?;
    out.line(outcome.to_text())?;
    out.line("")?;
    out.flush()
}
