//! What is done to a store, for how long, and what is looked at.

use std::time::{Duration, Instant};

use hedgerow::EngineKind;

use crate::error::Result;
use crate::histogram::Histogram;
use crate::machine::Handles;
use crate::stop;

/// The phases of a round, in their order.
pub const PHASES: [&str; 7] = [
    "overwrites",
    "queue",
    "reads",
    "scans",
    "range deletes",
    "keyspaces",
    "reopening",
];

/// Rounds that a life of a given time is cut into.
pub(super) const ROUNDS_OF_TIME: u32 = 16;

/// How long a store lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// About so long, in rounds of equal time, and at least as many as a verdict needs.
    Time(Duration),
    /// So many rounds, with so many operations of each thread in a phase: what happens does not
    /// depend on a clock.
    Rounds {
        /// How many.
        rounds: u32,
        /// Operations of each thread in a phase.
        operations: u64,
    },
}

/// What is done to a store.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The engine of its keyspaces.
    pub engine: EngineKind,
    /// What the live data take, in bytes, about.
    pub size_bytes: u64,
    /// Mean length of a value, in bytes.
    pub value_bytes: usize,
    /// Threads that use it.
    pub threads: usize,
    /// How long.
    pub length: Length,
    /// Where choices come from.
    pub seed: u64,
}

impl Default for Plan {
    /// An hour of an LSM tree with 256 MiB, used by two threads.
    fn default() -> Self {
        Self {
            engine: EngineKind::Lsm,
            size_bytes: 256 << 20,
            value_bytes: 1000,
            threads: 2,
            length: Length::Time(Duration::from_secs(3600)),
            seed: 1,
        }
    }
}

/// When a phase ends.
#[derive(Debug, Clone, Copy)]
pub(super) enum Until {
    Time(Instant),
    Operations(u64),
}

impl Until {
    /// Whether a thread that has done `done` operations does another one.
    pub(super) fn goes_on(self, done: u64) -> Result<bool> {
        /// Operations between two looks at the clock.
        const LOOK_EVERY: u64 = 32;
        if done.is_multiple_of(LOOK_EVERY) {
            stop::check()?;
        }
        Ok(match self {
            Self::Operations(operations) => done < operations,
            Self::Time(end) => !done.is_multiple_of(LOOK_EVERY) || Instant::now() < end,
        })
    }
}

/// What a phase was like, and what the store held after it.
#[derive(Debug, Clone)]
pub struct Sample {
    /// Which of [`PHASES`].
    pub phase: usize,
    /// Operations of all threads.
    pub operations: u64,
    /// Without settling.
    pub elapsed: Duration,
    /// How long the operations took, in nanoseconds.
    pub latency_ns: Histogram,
    /// All files of the store, once it has settled.
    pub disk_bytes: u64,
    /// Bytes of the log in them.
    pub log_bytes: u64,
    /// Memory of the process that is not mapped files, where the platform tells.
    pub memory_bytes: Option<u64>,
    /// Descriptors and threads of the process, where the platform tells.
    pub handles: Option<Handles>,
}
