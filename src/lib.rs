//! hedgerow: an embedded, ordered key-value store with two engines behind one trait.
#![deny(unsafe_code)]
#![allow(dead_code)] // TEMPORARY: until the rooms are joined

mod batch;
mod btree;
mod cache;
mod checksum;
mod coding;
mod db;
mod engine;
mod error;
pub mod fs;
mod key;
mod kv;
mod lsm;
mod model;
mod options;
mod record;
mod types;
mod visibility;
mod wal;

pub use batch::Batch;
pub use db::Db;
pub use engine::{EngineStats, LevelStats, VerifyReport};
pub use error::{Error, Result};
pub use key::KeyBounds;
pub use kv::{Kv, KvRead, Scan, Value};
pub use model::{Model, ModelSnapshot};
pub use options::{Compression, Durability, EngineKind, KeyspaceOptions, Options};
pub use types::{
    MAX_BATCH_LEN_BYTES, MAX_KEY_LEN_BYTES, MAX_KEYSPACE_NAME_LEN_BYTES, MAX_KEYSPACES,
    MAX_VALUE_LEN_BYTES, SeqNo,
};
