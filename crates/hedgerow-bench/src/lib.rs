//! What measures hedgerow: workloads, the comparison of its engines, the replay of recorded
//! workloads, and reports.
//!
//! The program `hedgerow` (package hedgerow-cli) is a command line over it; `benches/peers` runs
//! its workloads on other stores. The method is described in `docs/benchmarks.md`.
//!
//! ```text
//! Workload + Params ──▶ run ──▶ Outcome ──▶ JSON, CSV, tables, reports
//!                        │
//!        Keys, Values, Chooser, Permutation       what to do
//!                        │
//!                      Target                     HedgerowTarget, ModelTarget, peers
//! ```
//!
//! | module | subject |
//! | --- | --- |
//! | `rng`, `permutation`, `distribution` | which record an operation is about |
//! | `data` | keys and values, made from a record's number and checkable without a list |
//! | `dataset` | which records a store holds |
//! | `workload` | the named workloads, and the figures that scale them |
//! | `subject`, `targets` | what is measured |
//! | `runner` | threads, clocks, checks |
//! | `histogram`, `machine`, `outcome` | what came out |
//! | [`suite`] | all workloads on each engine in rounds, each in a process of its own |
//! | [`compare`] | both engines on real data |
//! | [`replay`] | recorded workloads, and which engine fits them |
//! | [`soak`] | a long life at bounded size, and whether anything grows |
//! | [`conditions`], [`verdict`] | whether a run can tell anything; who is better |
//! | [`report`] | tables, and a page with charts |
//! | [`format`](mod@format) | numbers and tables for people |
//! | [`stop`] | the request to stop, for runs that take long |
//! | [`cities`] | real data: the cities of the world |
//!
//! A workload in memory, to see the parts together:
//!
//! ```
//! use hedgerow_bench::{DataSet, ModelTarget, Params, TargetOptions, parse_workloads, run};
//!
//! let params = Params { records: 1000, ..Params::default() };
//! let dir = tempfile::tempdir()?;
//! let target = ModelTarget::open(dir.path(), &TargetOptions::default())?;
//! let mut data = DataSet::new(&params)?;
//! for workload in parse_workloads("fillrandom,readrandom@2,ycsb-a:zipfian")? {
//!     let outcome = run(&*target, dir.path(), &workload, &mut data)?;
//!     println!("{workload}: {:.0} ops/s", outcome.ops_per_s());
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! What it lacks on purpose: arguments, exit codes, progress bars and temporary directories are the
//! business of the program on top of it.

#![deny(unsafe_code)]

pub mod cities;
pub mod compare;
pub mod conditions;
mod data;
mod dataset;
mod distribution;
mod error;
pub mod format;
mod histogram;
mod machine;
mod outcome;
mod permutation;
pub mod replay;
pub mod report;
mod rng;
mod runner;
pub mod soak;
pub mod stop;
mod subject;
pub mod suite;
mod targets;
pub mod verdict;
mod workload;

pub use data::{KeyShape, Keys, ValueSize, Values, is_value_of};
pub use dataset::DataSet;
pub use distribution::{
    Chooser, Distribution, SCRAMBLED_ITEMS, SCRAMBLED_ZETA, THETA, Zipf, fnv1a64, zeta,
};
pub use error::{Error, Result, with_causes};
pub use histogram::Histogram;
pub use machine::{Handles, Machine, Memory, Usage, disk_bytes, touch_memory};
pub use outcome::{FIGURES, Interval, Outcome, Stalls};
pub use permutation::Permutation;
pub use rng::{Rng, mix64};
pub use runner::run;
pub use subject::{Subject, Variant};
pub use targets::hedgerow::{HedgerowTarget, ModelTarget};
pub use targets::{Direction, OpenTarget, Target, TargetOptions};
pub use workload::{Nexts, OpKind, Order, Params, WORKLOADS, Workload, parse_workloads};
