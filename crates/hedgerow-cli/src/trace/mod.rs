//! `replay` and `advise`: what a recorded workload costs on each engine, and which one fits it.
//!
//! ```text
//! trace ──▶ profile      what the workload is: mix, skew, sizes        (one pass, whole trace)
//!   └─────▶ plan         what to replay: events and records to preload
//!             └──▶ run   measured on a fresh store of one engine
//!                   └──▶ decide   profile + measurements + goal ──▶ advice      (pure)
//! ```
//!
//! The guide is docs/trace.md.

mod advise;
mod decide;
mod plan;
mod profile;
mod replay;
mod run;

use std::path::{Path, PathBuf};

use clap::Args;
use hedgerow::trace::{Reader, TraceEnd};

use crate::failure::Result;
use crate::scratch;

pub use advise::Advise;
pub use replay::Replay;

/// Where temporary stores go, and how they are opened.
#[derive(Debug, Clone, Args)]
pub struct Bench {
    /// Where to make the temporary stores [default: the system's temporary directory]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Budget of the cache of blocks and pages, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 256,
        value_parser = clap::value_parser!(u64).range(0..=MAX_MIB))]
    cache_mib: u64,
    /// Budget of memtables and dirty pages, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 64,
        value_parser = clap::value_parser!(u64).range(1..=MAX_MIB))]
    write_buffer_mib: u64,
}

/// The largest budget: 1 TiB.
const MAX_MIB: u64 = 1 << 20;
/// The most records that are made up: each is kept in memory until it is loaded.
const MAX_PRELOAD: u64 = 50_000_000;

impl Bench {
    /// A new directory that is removed when it goes out of scope, on every way out.
    fn temporary_dir(&self) -> Result<tempfile::TempDir> {
        scratch::directory("hedgerow-replay-", self.dir.as_deref())
    }
}

/// Opens a trace.
fn open(path: &Path) -> hedgerow_bench::Result<Reader> {
    let opened = Reader::open(path).map_err(hedgerow_bench::Error::from);
    opened.map_err(|error| error.during("reading the trace"))
}

/// What a reader should know about how complete a trace is; empty if it is.
fn shortcomings(reader: &Reader) -> Vec<String> {
    let mut found = Vec::new();
    if let Some(TraceEnd::Torn { offset }) = reader.end() {
        found.push(format!(
            "the trace breaks off at byte {offset} of {}: the process ended before it was closed, \
             or the file is damaged",
            reader.file_bytes()
        ));
    }
    if reader.end() == Some(&TraceEnd::Limit) {
        found.push("the trace ends at its limit of bytes; the workload went on".to_owned());
    }
    if reader.dropped() > 0 {
        found.push(format!(
            "{} events were lost while recording, because the file could not keep up",
            reader.dropped()
        ));
    }
    found
}
