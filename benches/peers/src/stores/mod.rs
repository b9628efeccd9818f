//! The stores that can be compared, each an adapter in a file of its own.
//!
//! What every adapter promises is written down in docs/benchmarks.md: the same durability,
//! compression, checksums, cache and write buffer where the store has them, and a label where not.

#[cfg(feature = "canopydb")]
mod canopydb;
#[cfg(feature = "fjall")]
mod fjall;
#[cfg(feature = "lmdb")]
mod lmdb;
#[cfg(feature = "redb")]
mod redb;
#[cfg(any(feature = "rocksdb", feature = "rocksdb-system"))]
mod rocksdb;
#[cfg(feature = "sled")]
mod sled;
#[cfg(feature = "surrealkv")]
mod surrealkv;
#[cfg(test)]
mod tests;

use hedgerow_bench::{Error, HedgerowTarget, OpenTarget, Result};

/// A store that this program was built with.
#[derive(Debug, Clone, Copy)]
pub struct Store {
    /// Its name on the command line and in tables.
    pub name: &'static str,
    /// How it is opened.
    pub open: OpenTarget,
    /// The crates whose versions Cargo.lock tells; what is no crate has its version in the
    /// settings.
    pub packages: &'static [&'static str],
    /// In what it promises less than the others, if it does.
    pub weaker: Option<&'static str>,
}

/// All stores that this program was built with.
pub const STORES: &[Store] = &[
    Store {
        name: "hedgerow-lsm",
        open: HedgerowTarget::open_lsm,
        packages: &["hedgerow"],
        weaker: None,
    },
    Store {
        name: "hedgerow-btree",
        open: HedgerowTarget::open_btree,
        packages: &["hedgerow"],
        weaker: None,
    },
    #[cfg(feature = "rocksdb")]
    Store {
        name: "rocksdb",
        open: rocksdb::bundled::RocksDb::open,
        packages: &["rocksdb", "librocksdb-sys"],
        weaker: None,
    },
    #[cfg(feature = "rocksdb-system")]
    Store {
        name: "rocksdb-system",
        open: rocksdb::system::RocksDbSystem::open,
        packages: &["librocksdb of the system"],
        weaker: None,
    },
    #[cfg(feature = "fjall")]
    Store {
        name: "fjall",
        open: fjall::Fjall::open,
        packages: &["fjall"],
        weaker: None,
    },
    #[cfg(feature = "surrealkv")]
    Store {
        name: "surrealkv",
        open: surrealkv::SurrealKv::open,
        packages: &["surrealkv"],
        weaker: None,
    },
    #[cfg(feature = "lmdb")]
    Store {
        name: "lmdb",
        open: lmdb::Lmdb::open_nosync,
        packages: &["heed", "lmdb-master-sys"],
        weaker: Some("no checksums; with NOSYNC a power loss may destroy the file"),
    },
    #[cfg(feature = "lmdb")]
    Store {
        name: "lmdb-writemap",
        open: lmdb::Lmdb::open_writemap,
        packages: &["heed", "lmdb-master-sys"],
        weaker: Some("no checksums; with NOSYNC a power loss may destroy the file"),
    },
    #[cfg(feature = "redb")]
    Store {
        name: "redb",
        open: redb::Redb::open,
        packages: &["redb"],
        weaker: Some("buffered commits are `Durability::None`: lost when the process is killed"),
    },
    #[cfg(feature = "sled")]
    Store {
        name: "sled",
        open: sled::Sled::open,
        packages: &["sled"],
        weaker: Some("buffered commits are flushed every 500 ms: lost when the process is killed"),
    },
    #[cfg(feature = "canopydb")]
    Store {
        name: "canopydb",
        open: canopydb::Canopy::open,
        packages: &["canopydb"],
        weaker: None,
    },
];

/// The store of that name.
pub fn find(name: &str) -> Result<Store> {
    let found = STORES.iter().find(|store| store.name == name);
    found.copied().ok_or_else(|| {
        let known: Vec<_> = STORES.iter().map(|store| store.name).collect();
        Error::Usage(format!(
            "unknown store {name:?}: this program was built with {} (others need their feature, \
             as in --features rocksdb,rocksdb-system,sled,canopydb)",
            known.join(", ")
        ))
    })
}

/// Waits until `is_idle` has been true twice in a row, some milliseconds apart: work that has just
/// ended may be about to start more.
#[cfg(any(
    feature = "fjall",
    feature = "rocksdb",
    feature = "rocksdb-system",
    feature = "surrealkv"
))]
fn wait_until_idle(mut is_idle: impl FnMut() -> Result<bool>) -> Result<()> {
    let mut quiet = 0;
    while quiet < 2 {
        quiet = if is_idle()? { quiet + 1 } else { 0 };
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    Ok(())
}
