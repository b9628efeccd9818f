//! `peers`: hedgerow and other embedded stores under the same workloads.
//!
//! ```text
//! cargo run --release --manifest-path benches/peers/Cargo.toml -- \
//!     --records 2000000 --rounds 3 --out docs/peers.md
//! ```
//!
//! The process that is started (`parent`) runs every store in a process of its own (`child`), on a
//! fresh directory, round after round: a round visits all stores before the next begins, so that a
//! machine that slows down slows them all. Children print a JSON object per workload; the parent
//! collects them and writes medians with their spread, ratios, and everything needed to repeat the
//! run (`report`). docs/benchmarks.md says what is held equal, and how.

mod args;
mod child;
mod parent;
mod report;
mod stores;
mod summary;
mod versions;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let args = args::Args::parse();
    let result = match args.child {
        Some(child) => child::run(&args, child),
        None => parent::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("peers: {error}");
            ExitCode::FAILURE
        }
    }
}
