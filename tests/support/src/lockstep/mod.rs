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
//! `Sync`, something synced after them, or their keyspace was flushed ([`Op::Flush`]).

mod commits;
mod compare;
mod coverage;
mod edit;
mod one_step;
mod op;
mod read;
mod run;
mod setting;

pub use compare::Outcome;
pub use coverage::Coverage;
pub use edit::{Bounds, Edit, Filling, KEYS, KeyNumber, key};
pub use one_step::OneStep;
pub use op::{Move, Op, Target, Wait, draw};
pub use read::Read;
pub use run::Run;
pub use setting::Setting;
