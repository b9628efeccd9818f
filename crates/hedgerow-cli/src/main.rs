//! `hedgerow`, the command-line tool: load, dump, read, change, inspect and check stores, and
//! compare the two engines, on real data and in benchmarks.
//!
//! Results go to standard output, as text for people or, with `--json`, as JSON for programs;
//! errors and progress go to standard error. Exit codes are in [`exit::Exit`]. docs/cli.md
//! describes every subcommand.

mod bytes;
mod commands;
mod exit;
mod failure;
mod interrupt;
mod output;
mod records;
mod scratch;
mod store;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use commands::{
    advise, bench, compare, count, dump, inspect, inspect_tree, load, maintain, point, replay,
    scan, soak,
};
use failure::Result;
use output::Output;

/// An embedded, ordered key-value store with two engines
#[derive(Debug, Parser)]
#[command(name = "hedgerow", version)]
struct Cli {
    /// Print JSON, one value a line, for programs
    // A value rather than a flag, because `bench` may name a file here: arguments of one name share
    // a type.
    #[arg(long, global = true, num_args = 0, default_missing_value = output::JSON_TO_STDOUT)]
    json: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Load(load::Load),
    Dump(dump::Dump),
    Get(point::Get),
    Put(point::Put),
    Delete(point::Delete),
    Scan(scan::Scan),
    Count(count::Count),
    Stats(inspect::Stats),
    Inspect(inspect_tree::Inspect),
    Keyspaces(inspect::Keyspaces),
    Rename(maintain::Rename),
    Drop(maintain::Drop),
    Verify(maintain::Verify),
    Compact(maintain::Compact),
    Compare(compare::Compare),
    Replay(replay::Replay),
    Advise(advise::Advise),
    Soak(soak::Soak),
    Bench(Box<bench::Bench>),
}

impl Command {
    fn run(&self, out: &mut Output) -> Result<()> {
        match self {
            Self::Load(command) => command.run(out),
            Self::Dump(command) => command.run(out),
            Self::Get(command) => command.run(out),
            Self::Put(command) => command.run(out),
            Self::Delete(command) => command.run(out),
            Self::Scan(command) => command.run(out),
            Self::Count(command) => command.run(out),
            Self::Stats(command) => command.run(out),
            Self::Inspect(command) => command.run(out),
            Self::Keyspaces(command) => command.run(out),
            Self::Rename(command) => command.run(out),
            Self::Drop(command) => command.run(out),
            Self::Verify(command) => command.run(out),
            Self::Compact(command) => command.run(out),
            Self::Compare(command) => command.run(out),
            Self::Replay(command) => command.run(out),
            Self::Advise(command) => command.run(out),
            Self::Soak(command) => command.run(out),
            Self::Bench(command) => command.run(out),
        }
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let json = cli.json.as_deref() == Some(output::JSON_TO_STDOUT);
    // A measuring process is ended by the one that started it, which says so.
    if !matches!(&cli.command, Command::Bench(bench) if bench.is_child()) {
        interrupt::install(json);
    }
    let mut out = Output::new(json);
    let outcome = cli.command.run(&mut out);
    // What was printed before a failure still counts; the failure that came first is reported.
    let flushed = out.flush();
    match outcome.and(flushed) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) if failure.is_broken_pipe() => ExitCode::SUCCESS,
        Err(failure) => {
            failure.report(json);
            ExitCode::from(failure.exit as u8)
        }
    }
}
