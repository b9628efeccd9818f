//! How large things are in tests.

use std::sync::Arc;

use hedgerow::fs::Fs;
use hedgerow::{EngineKind, KeyspaceOptions, MemtableKind, Options};

/// How large things are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sizes {
    /// The defaults that users get.
    Default,
    /// Everything at its minimum, so that rotation, flush, compaction, splits, merges and
    /// checkpoints happen all the time.
    Tiny,
}

/// What a suite runs on: an engine, and the memtables of its LSM trees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Variant {
    /// The engine that the suite is about.
    pub engine: EngineKind,
    /// What the memtables of LSM trees are.
    pub memtable: MemtableKind,
}

impl Variant {
    /// Both engines, and the LSM tree with either memtable.
    pub const ALL: [Self; 3] = [
        Self::of(EngineKind::Lsm),
        Self {
            engine: EngineKind::Lsm,
            memtable: MemtableKind::SkipList,
        },
        Self::of(EngineKind::BTree),
    ];

    /// An engine with the default memtable.
    pub const fn of(engine: EngineKind) -> Self {
        Self {
            engine,
            memtable: MemtableKind::BTree,
        }
    }

    /// A name of its own.
    pub const fn name(self) -> &'static str {
        match (self.engine, self.memtable) {
            (EngineKind::Lsm, MemtableKind::SkipList) => "lsm-skiplist",
            (engine, _) => engine.name(),
        }
    }
}

/// The smallest sizes that the options allow.
pub fn tiny(options: Options) -> Options {
    options
        .write_buffer_bytes(16 << 10)
        .log_segment_bytes(64 << 10)
        .log_limit_bytes(256 << 10)
        .cache_bytes(64 << 10)
}

/// Options of a store that only does something when it is asked to: the smallest sizes, and no
/// threads of its own.
pub fn single_threaded(fs: Arc<dyn Fs>) -> Options {
    tiny(Options::new())
        .fs(fs)
        .background_threads(0)
        .background_sync_ms(0)
}

/// Options of a keyspace of a size.
pub fn keyspace_options(engine: EngineKind, sizes: Sizes) -> KeyspaceOptions {
    let options = KeyspaceOptions::new(engine);
    match (sizes, engine) {
        (Sizes::Default, _) => options,
        (Sizes::Tiny, EngineKind::Lsm) => options
            .write_buffer_bytes(16 << 10)
            .block_size_bytes(256)
            .table_size_bytes(16 << 10),
        (Sizes::Tiny, EngineKind::BTree) => options
            .write_buffer_bytes(16 << 10)
            .page_size_bytes(1 << 10),
    }
}

/// As [`keyspace_options`]; LSM trees have such memtables. Tiny ones with the skip list also store
/// longer values apart from their keys, so that every suite that runs on all variants does both.
pub fn keyspace_options_with(
    engine: EngineKind,
    sizes: Sizes,
    memtable: MemtableKind,
) -> KeyspaceOptions {
    let options = keyspace_options(engine, sizes);
    match engine {
        EngineKind::Lsm if sizes == Sizes::Tiny && memtable == MemtableKind::SkipList => {
            options.memtable(memtable).value_threshold_bytes(32)
        }
        EngineKind::Lsm => options.memtable(memtable),
        EngineKind::BTree => options,
    }
}
