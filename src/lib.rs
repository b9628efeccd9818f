//! hedgerow: an embedded, ordered key-value store with two engines behind one trait.
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
mod store;
#[cfg(test)]
mod testing;
pub mod trace;
mod types;
mod util;
mod wal;

pub use db::{Db, Durable, Keyspace, KeyspaceInfo, KeyspaceSnapshot, Snapshot, WriteBatch};
pub use engine::{EngineStats, Figure, InspectDetail, Inspection, LevelStats, VerifyReport};
pub use error::{Error, Result};
pub use kv::{
    Batch, Keys, Kv, KvRead, Mismatch, Model, ModelSnapshot, RangeSize, Scan, Update, Values,
};
pub use options::{Compression, Durability, EngineKind, KeyspaceOptions, MemtableKind, Options};
pub use store::{DbStats, KeyspaceStats};
pub use types::{
    KeyBounds, MAX_BATCH_LEN_BYTES, MAX_KEY_LEN_BYTES, MAX_KEYSPACE_NAME_LEN_BYTES, MAX_KEYSPACES,
    MAX_VALUE_LEN_BYTES, SeqNo, Value,
};
