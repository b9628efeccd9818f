//! hedgerow: an embedded, ordered key-value store with two engines behind one trait.
#![deny(unsafe_code)]

mod batch;
mod btree;
mod cache;
mod catalog;
mod checksum;
mod coding;
mod commit;
mod db;
mod engine;
mod error;
pub mod fs;
mod horizon;
mod hub;
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod internals;
mod key;
mod keyspace;
mod kv;
mod lsm;
mod metrics;
mod model;
mod options;
mod record;
mod recovery;
mod registry;
#[cfg(all(test, shuttle))]
mod schedules;
mod snapshot;
mod store;
mod sync;
mod teeth;
#[cfg(test)]
mod testing;
mod throttle;
pub mod trace;
mod types;
mod visibility;
mod wal;
mod write_batch;

pub use batch::Batch;
pub use db::{Db, KeyspaceInfo};
pub use engine::{EngineStats, LevelStats, VerifyReport};
pub use error::{Error, Result};
pub use key::KeyBounds;
pub use keyspace::Keyspace;
pub use kv::{Kv, KvRead, Scan, Value};
pub use metrics::{DbStats, KeyspaceStats};
pub use model::{Model, ModelSnapshot};
pub use options::{Compression, Durability, EngineKind, KeyspaceOptions, MemtableKind, Options};
pub use snapshot::{KeyspaceSnapshot, Snapshot};
pub use types::{
    MAX_BATCH_LEN_BYTES, MAX_KEY_LEN_BYTES, MAX_KEYSPACE_NAME_LEN_BYTES, MAX_KEYSPACES,
    MAX_VALUE_LEN_BYTES, SeqNo,
};
pub use write_batch::WriteBatch;
