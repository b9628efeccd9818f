//! The same real data and the same work on both engines, every answer checked.
//!
//! Each engine gets a store of its own, though one store could hold both: then the log, its syncs,
//! the cache and the background threads are that engine's alone, and bytes written, reopening and
//! memory can be told apart. It is also what somebody who picks one engine would run. Rounds
//! alternate between the engines, each in a fresh store, so that whatever else the machine does
//! hits both; the table has medians.
//!
//! [`data`] prepares records and draws, [`workload`] does the work on any `Kv`, [`measure`] makes
//! a round of it, [`report`] renders.

pub mod data;
pub mod measure;
pub mod report;
pub mod workload;
