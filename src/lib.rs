#![doc = include_str!("../README.md")]
//!
//! # Where things are in this crate
//!
//! | for | see |
//! | --- | --- |
//! | opening a store | [`Db`], [`Options`], [`Durability`] |
//! | its ordered maps | [`Keyspace`], [`KeyspaceOptions`], [`EngineKind`], [`KeyspaceInfo`] |
//! | reading | [`KvRead`] has every method, with an example; [`Value`], [`KeyBounds`] |
//! | long values, by and by | [`ValueReader`], [`ValueWriter`] |
//! | scans | [`Scan`], which lends, seeks and counts; [`Keys`], [`Values`] |
//! | writing | [`Kv`] has every method, with an example; [`Update`], [`Mismatch`] |
//! | batches | [`Batch`] for one map, also in generic code; [`WriteBatch`] for several keyspaces |
//! | transactions | [`Db::transact`], [`Transaction`], [`TransactionOptions`], [`Isolation`] |
//! | sorted loads | [`BulkLoad`] |
//! | merges | [`Kv::merge`], [`MergeOperator`]; [`AddI64`], [`Append`], [`MaxBytes`], [`SetUnion`] |
//! | values that expire | [`Kv::put_with_ttl`], [`KeyspaceOptions::expiry`], [`Clock`], [`ManualClock`] |
//! | a look at what is compacted | [`CompactionFilter`], [`Verdict`] |
//! | one moment | [`Snapshot`] of all keyspaces, [`KeyspaceSnapshot`] of one |
//! | durability of a commit | [`SeqNo`], [`Db::wait_durable`], [`Durable`] |
//! | tests of your own code | [`Model`], the same interface in memory; [`fs::SimFs`], a disk that crashes |
//! | figures and checks | [`DbStats`], [`EngineStats`], [`RangeSize`], [`VerifyReport`] |
//! | recording a workload | [`trace`] |
//! | what can go wrong | [`Error`] |
//!
//! The source has one folder for each layer; a file uses only what is below it in this list. The
//! [tour](https://github.com/hedgerow-db/hedgerow/blob/main/docs/tour.md) follows a put, a get, a
//! scan and a crash through them.
//!
//! ```text
//! db        handles: what users hold
//! store     commits, recovery, background work; joins the log and the engines
//! trace     records operations
//! lsm       one engine      btree   the other      kv   the interface, batches, the model
//! wal       the log         engine  what an engine owes the store
//! options   resolve what a value may do: be merged, expire, be filtered
//! values    what is stored apart from its key
//! fs        files, real and simulated
//! format    bytes           types, error, util, cache
//! ```
#![deny(unsafe_code)]

mod btree;
mod cache;
mod db;
mod engine;
mod error;
mod format;
pub mod fs;
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod internals;
mod kv;
mod lsm;
mod options;
mod resolve;
mod store;
#[cfg(test)]
mod testing;
pub mod trace;
mod types;
mod util;
mod values;
mod wal;

pub use db::{
    BulkLoad, Db, Durable, Isolation, Keyspace, KeyspaceInfo, KeyspaceSnapshot, Savepoint,
    Snapshot, Transacted, Transaction, TransactionKeyspace, TransactionOptions, ValueWriter,
    WriteBatch,
};
pub use engine::{
    EngineStats, Figure, InspectDetail, Inspection, LevelStats, Problem, VerifyReport,
};
pub use error::{Error, LockHolder, Result};
pub use kv::{
    Batch, Keys, Kv, KvRead, KvTransaction, Mismatch, Model, ModelSavepoint, ModelSnapshot,
    ModelTransaction, RangeSize, Scan, Update, ValueReader, Values,
};
pub use options::{Compression, Durability, EngineKind, KeyspaceOptions, MemtableKind, Options};
pub use resolve::{
    AddI64, Append, Clock, CompactionFilter, ManualClock, MaxBytes, MergeOperator, SetUnion,
    SystemClock, Verdict,
};
pub use store::{DbStats, KeyspaceStats, ScrubStats};
pub use types::{
    KeyBounds, KeyBuilder, KeyReader, MAX_BATCH_LEN_BYTES, MAX_KEY_LEN_BYTES,
    MAX_KEYSPACE_NAME_LEN_BYTES, MAX_KEYSPACES, MAX_VALUE_LEN_BYTES, SeqNo, Value,
};
