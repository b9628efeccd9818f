//! RocksDB: buffered commits are in the log when they return, written but not synced.
//!
//! It comes twice, with the same settings: `bundled` is the newest release, compiled from source
//! by the crate `rocksdb`; `system` is the library that the operating system has, loaded while
//! this program runs. Cargo.toml says why the second is no dependency like the first.
//!
//! Settings, by its wiki ("Setup Options and Basic Tuning", "Compression", "RocksDB Bloom Filter"):
//!
//! - A Bloom filter of 10 bits a key, which is off by default, and dynamic level sizes, which are
//!   off by default before RocksDB 8.4. The wiki recommends both for most workloads.
//! - lz4 on every level; the default is Snappy.
//! - Checksums of blocks and of log records are its defaults, as is everything else: the format of
//!   tables, for one, is the newest that the library writes by default.

#[cfg(feature = "rocksdb")]
pub mod bundled;
#[cfg(feature = "rocksdb")]
pub mod optimistic;
#[cfg(feature = "rocksdb-system")]
pub mod system;

use std::path::Path;

use hedgerow::{Compression, Durability};
use hedgerow_bench::{Result, TargetOptions};

use super::wait_until_idle;

/// Bits of the Bloom filter for each key.
const BLOOM_BITS_PER_KEY: f64 = 10.0;

/// The settings, for the tables.
fn settings(path: &Path, options: &TargetOptions) -> String {
    format!(
        "RocksDB {}; log on, sync = {}, block cache {} MiB, write buffer {} MiB, {} background \
         jobs, {}, Bloom filter of {BLOOM_BITS_PER_KEY} bits, dynamic level sizes",
        library_version(path),
        options.durability == Durability::Sync,
        options.cache_bytes >> 20,
        options.write_buffer_bytes >> 20,
        options.background_threads,
        match options.compression {
            Compression::Lz4 => "lz4",
            _ => "no compression",
        },
    )
}

/// The version of the library, which the database's own log begins with.
fn library_version(path: &Path) -> String {
    let log = std::fs::read_to_string(path.join("LOG")).unwrap_or_default();
    let version = log
        .lines()
        .take(20)
        .find_map(|line| line.split_once("RocksDB version: "));
    version
        .map_or("of unknown version", |(_, version)| version.trim())
        .to_owned()
}

/// Waits until nothing is left to flush or to compact; `property` reads one of the database's
/// integer properties.
fn wait_for_compactions(property: impl Fn(&str) -> Result<u64>) -> Result<()> {
    const BUSY: [&str; 5] = [
        "rocksdb.num-running-flushes",
        "rocksdb.num-running-compactions",
        "rocksdb.mem-table-flush-pending",
        "rocksdb.compaction-pending",
        "rocksdb.num-immutable-mem-table",
    ];
    wait_until_idle(|| {
        for name in BUSY {
            if property(name)? > 0 {
                return Ok(false);
            }
        }
        Ok(true)
    })
}
