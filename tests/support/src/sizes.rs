//! How large things are in tests.

use std::sync::Arc;

use hedgerow::fs::Fs;
use hedgerow::internals::stage_batches_of;
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

/// What a suite runs on: an engine, the memtables of its LSM trees, and which values are stored
/// apart: with [`MemtableKind::SkipList`] longer ones, where things are tiny.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Variant {
    /// The engine that the suite is about.
    pub engine: EngineKind,
    /// What the memtables of LSM trees are.
    pub memtable: MemtableKind,
}

impl Variant {
    /// Both engines, each with either memtable and all values in the tree or longer ones apart.
    pub const ALL: [Self; 4] = [
        Self::of(EngineKind::Lsm),
        Self::apart(EngineKind::Lsm),
        Self::of(EngineKind::BTree),
        Self::apart(EngineKind::BTree),
    ];

    /// An engine with the default memtable.
    pub const fn of(engine: EngineKind) -> Self {
        Self {
            engine,
            memtable: MemtableKind::BTree,
        }
    }

    /// An engine with the other memtable, that stores longer values apart.
    pub const fn apart(engine: EngineKind) -> Self {
        Self {
            engine,
            memtable: MemtableKind::SkipList,
        }
    }

    /// A name of its own.
    pub const fn name(self) -> &'static str {
        match (self.engine, self.memtable) {
            (EngineKind::Lsm, MemtableKind::SkipList) => "lsm-skiplist",
            (EngineKind::BTree, MemtableKind::SkipList) => "btree-apart",
            (engine, _) => engine.name(),
        }
    }
}

/// The smallest sizes that the options allow. Large batches are small, too.
pub fn tiny(options: Options) -> Options {
    stage_batches_of(6, options)
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

/// Options of a keyspace of a size. Tiny ones have all values in their tree.
pub fn keyspace_options(engine: EngineKind, sizes: Sizes) -> KeyspaceOptions {
    let options = KeyspaceOptions::new(engine);
    let tiny = || options.clone().value_threshold_bytes(0);
    match (sizes, engine) {
        (Sizes::Default, _) => options,
        (Sizes::Tiny, EngineKind::Lsm) => tiny()
            .write_buffer_bytes(16 << 10)
            .block_size_bytes(256)
            .table_size_bytes(16 << 10),
        (Sizes::Tiny, EngineKind::BTree) => {
            tiny().write_buffer_bytes(16 << 10).page_size_bytes(1 << 10)
        }
    }
}

/// As [`keyspace_options`]; LSM trees have such memtables. With the skip list tiny trees, also of
/// the other engine, store longer values apart from their keys, so that every suite that runs on
/// all variants does both.
pub fn keyspace_options_with(
    engine: EngineKind,
    sizes: Sizes,
    memtable: MemtableKind,
) -> KeyspaceOptions {
    let options = keyspace_options(engine, sizes);
    let options = match engine {
        EngineKind::Lsm => options.memtable(memtable),
        EngineKind::BTree => options,
    };
    match (sizes, memtable) {
        (Sizes::Tiny, MemtableKind::SkipList) => options.value_threshold_bytes(32),
        _ => options,
    }
}
