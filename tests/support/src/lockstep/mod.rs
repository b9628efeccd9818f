//! Operations on a store with a keyspace of each engine, in lockstep with a
//! [`Model`](hedgerow::Model) of each, crashes included.
//!
//! [`draw`] makes an operation out of a source of decisions: a seed
//! (tests/store/random_operations.rs) or the bytes of a fuzzer (fuzzing/operations.rs).
//! [`Run`] performs it on the store and on the models and compares every answer.
//!
//! # What holds after a crash
//!
//! The store is the state after some prefix of the commits: no commit in part, none without
//! the ones before it, and at least all of those that were durable, because they were
//! `Sync` or something synced after them.

mod op;
mod run;

pub use op::{Bounds, Edit, Filling, KEYS, KeyNumber, Move, Op, Target, draw, key};
pub use run::{Coverage, Outcome, Run, Setting};
