//! Public test suites of other projects, run on hedgerow through thin adapters:
//!
//! - [`kvdb`](mod@kvdb): the key-value interface of Parity's Ethereum and Polkadot clients, with
//!   columns and transactions;
//! - [`sql`]: GlueSQL, a database whose storage is exchangeable;
//! - [`raft`]: openraft, whose log and state machine an application stores.
//!
//! Each adapter is as an application would write it, on either engine: what they show of hedgerow
//! is batches over several keyspaces, prefixes, ranges, snapshots and the two durabilities.
//! `.ci/soak adapters` runs them.

pub mod kvdb;
pub mod raft;
pub mod sql;

use std::path::Path;

use hedgerow::{Db, Options};

/// Opens a store for a test: small buffers, so that what a suite does reaches the files.
pub fn open(dir: &Path) -> hedgerow::Result<Db> {
    Options::new()
        .write_buffer_bytes(64 << 10)
        .log_segment_bytes(256 << 10)
        .cache_bytes(1 << 20)
        .open(dir)
}
