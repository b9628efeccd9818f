//! Trade-off runs: what the textbooks claim about the engines and no workload of db_bench or YCSB
//! shows. Each makes stores of its own and gives a handful of figures.
//!
//! Some are of hedgerow alone, because they need more of a store than a
//! [`Target`](crate::targets::Target) offers: ranges to delete, snapshots, compaction.
//!
//! Two take two processes each: one does the [first half](Trial::first_half) and is killed, the
//! next does the [rest](Trial::run). One of them is about the kill, the other about a store that is
//! cold: of what a process has written, some stays in memory as long as the process lives.

use std::fmt;

mod any_store;
mod counters;
mod hedgerow;
mod run;

pub use self::run::{Figure, FirstHalf, Run};
use crate::data::ValueSize;
use crate::error::{Error, Result};
use crate::workload::Params;

/// A trade-off run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Trial {
    /// A queue: append at one end, take from the other.
    Queue,
    /// Nine tenths of the keys are removed: what comes back of the space, and when?
    BulkDelete,
    /// Everything is overwritten while a snapshot wants the old values.
    HeldSnapshot,
    /// Eight threads increment counters, with merges and with updates.
    Counters,
    /// A store is opened and read that no cache knows, by a process that knows nothing of it.
    ColdOpen,
    /// A store is opened whose process was killed.
    Recovery,
    /// Values of one size, in bytes, with as many records as make the same amount of data.
    ValueSize(usize),
    /// Data of this many times the memory.
    MemoryRatio(f64),
    /// A process is killed after so many buffered puts: how many are lost, and how long does
    /// opening take?
    Kill(u64),
}

impl Trial {
    /// How trade-off runs are asked for.
    pub const NAMES: [&str; 9] = [
        "queue",
        "bulkdelete",
        "heldsnapshot",
        "counters",
        "coldopen",
        "recovery",
        "valuesize:BYTES",
        "memratio:TIMES",
        "kill:PUTS",
    ];

    /// Parses a request; `None` if it is not one for a trade-off run.
    pub fn parse(request: &str) -> Result<Option<Self>> {
        let (name, argument) = match request.split_once(':') {
            Some((name, argument)) => (name, Some(argument)),
            None => (request, None),
        };
        let trial = match name {
            "queue" => Self::Queue,
            "bulkdelete" => Self::BulkDelete,
            "heldsnapshot" => Self::HeldSnapshot,
            "counters" => Self::Counters,
            "coldopen" => Self::ColdOpen,
            "recovery" => Self::Recovery,
            "valuesize" => match argument.map(str::parse) {
                Some(Ok(bytes)) if bytes <= ::hedgerow::MAX_VALUE_LEN_BYTES => {
                    return Ok(Some(Self::ValueSize(bytes)));
                }
                _ => {
                    return Err(Error::usage(format!(
                        "{request:?} needs a size in bytes, as valuesize:1000, of at most {}",
                        ::hedgerow::MAX_VALUE_LEN_BYTES
                    )));
                }
            },
            "memratio" => match argument.map(str::parse::<f64>) {
                Some(Ok(ratio)) if ratio > 0.0 && ratio <= 1000.0 => {
                    return Ok(Some(Self::MemoryRatio(ratio)));
                }
                _ => {
                    return Err(Error::usage(format!(
                        "{request:?} needs how many times the memory, as memratio:0.5"
                    )));
                }
            },
            "kill" => match argument.map(str::parse) {
                Some(Ok(puts)) if puts > 0 => return Ok(Some(Self::Kill(puts))),
                _ => {
                    return Err(Error::usage(format!(
                        "{request:?} needs a number of puts, as kill:100000"
                    )));
                }
            },
            _ => return Ok(None),
        };
        match argument {
            None => Ok(Some(trial)),
            Some(_) => Err(Error::usage(format!("{name} takes no argument"))),
        }
    }

    /// What it shows, in a line.
    pub fn about(self) -> &'static str {
        match self {
            Self::Queue => {
                "append at one end, take the first entry at the other: deletions pile up before \
                 the first live key"
            }
            Self::BulkDelete => "remove 90 % of the keys by one range, then by compaction",
            Self::HeldSnapshot => "overwrite everything while a snapshot wants the old values",
            Self::Counters => "increment counters from 8 threads, with merges and with updates",
            Self::ColdOpen => "open and read, in a new process, a store that no cache knows",
            Self::Recovery => "open a store that was killed, its last commits only in the log",
            Self::ValueSize(_) => "the same amount of data in values of one size",
            Self::MemoryRatio(_) => "data of so many times the memory",
            Self::Kill(_) => "kill a process after so many buffered puts, open what it left",
        }
    }

    /// The figures that it runs with.
    pub fn params(self, params: &Params, memory_bytes: u64) -> Params {
        let mut own = Params {
            rate_per_s: None,
            ..params.clone()
        };
        match self {
            Self::ValueSize(bytes) => {
                let total = params.live_bytes();
                own.values = ValueSize::fixed(bytes);
                let each = (own.key_len_bytes + bytes).max(1) as u64;
                own.records = (total / each).max(100);
            }
            Self::MemoryRatio(ratio) => {
                own.records = params.records_in(memory_bytes as f64 * ratio)
            }
            Self::Kill(puts) => own.records = puts,
            _ => {}
        }
        own
    }

    /// True if it needs more of a store than any [`Target`](crate::targets::Target) offers.
    pub fn is_of_hedgerow_alone(self) -> bool {
        !matches!(
            self,
            Self::ValueSize(_) | Self::MemoryRatio(_) | Self::Kill(_)
        )
    }

    /// Does what another process goes on from when this one has been killed. `None` for a run that
    /// takes one process.
    pub fn first_half(self, run: &Run<'_>) -> Result<Option<FirstHalf>> {
        match self {
            Self::Kill(_) => run.write_to_be_killed().map(FirstHalf::Open).map(Some),
            Self::ColdOpen => run.fill_for_cold_open().map(|()| Some(FirstHalf::Closed)),
            _ => Ok(None),
        }
    }

    /// Runs it, in a directory that exists and is empty; if it takes two processes, in the
    /// directory of the one that was killed. [`Trial::ColdOpen`] can do without that one: in an
    /// empty directory it does both halves, and its figures say so.
    pub fn run(self, run: &Run<'_>) -> Result<Vec<Figure>> {
        match self {
            Self::Queue => run.queue(),
            Self::BulkDelete => run.bulk_delete(),
            Self::HeldSnapshot => run.held_snapshot(),
            Self::Counters => run.counters(),
            Self::ColdOpen => run.cold_open(),
            Self::Recovery => run.recovery(),
            Self::ValueSize(_) => run.value_size(),
            Self::MemoryRatio(_) => run.memory_ratio(),
            Self::Kill(_) => run.open_killed(),
        }
    }
}

impl fmt::Display for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Queue => "queue",
            Self::BulkDelete => "bulkdelete",
            Self::HeldSnapshot => "heldsnapshot",
            Self::Counters => "counters",
            Self::ColdOpen => "coldopen",
            Self::Recovery => "recovery",
            Self::ValueSize(bytes) => return write!(f, "valuesize:{bytes}"),
            Self::MemoryRatio(ratio) => return write!(f, "memratio:{ratio}"),
            Self::Kill(puts) => return write!(f, "kill:{puts}"),
        })
    }
}
