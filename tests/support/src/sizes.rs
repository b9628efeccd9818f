//! How large things are in tests.

use std::sync::Arc;

use hedgerow::fs::Fs;
use hedgerow::{EngineKind, KeyspaceOptions, Options};

/// How large things are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sizes {
    /// The defaults that users get.
    Default,
    /// Everything at its minimum, so that rotation, flush, compaction, splits, merges and
    /// checkpoints happen all the time.
    Tiny,
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
    match sizes {
        Sizes::Default => options,
        Sizes::Tiny => options
            .write_buffer_bytes(16 << 10)
            .block_size_bytes(256)
            .table_size_bytes(16 << 10)
            .page_size_bytes(1 << 10),
    }
}
