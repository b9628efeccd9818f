//! What `replay` and `advise` have in common on the command line.

use std::path::PathBuf;

use clap::Args;

use crate::failure::Result;
use crate::scratch;

/// Where temporary stores go, and how they are opened.
#[derive(Debug, Clone, Args)]
pub struct Bench {
    /// Where to make the temporary stores [default: the system's temporary directory]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Budget of the cache of blocks and pages, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 256,
        value_parser = clap::value_parser!(u64).range(0..=MAX_MIB))]
    pub cache_mib: u64,
    /// Budget of memtables and dirty pages, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 64,
        value_parser = clap::value_parser!(u64).range(1..=MAX_MIB))]
    pub write_buffer_mib: u64,
}

/// The largest budget: 1 TiB.
const MAX_MIB: u64 = 1 << 20;
/// The most records that are made up: each is kept in memory until it is loaded.
pub const MAX_PRELOAD: u64 = 50_000_000;

impl Bench {
    /// A new directory that is removed when it goes out of scope, on every way out.
    pub fn temporary_dir(&self) -> Result<tempfile::TempDir> {
        scratch::directory("hedgerow-replay-", self.dir.as_deref())
    }
}
