//! The stores that can be compared, each an adapter in a file of its own.
//!
//! What every adapter promises is written down in docs/benchmarks.md: the same durability,
//! compression, checksums, cache and write buffer where the store has them, and a label where not.

#[cfg(feature = "canopydb")]
mod canopydb;
#[cfg(feature = "fjall")]
pub mod fjall;
#[cfg(feature = "lmdb")]
pub mod lmdb;
#[cfg(feature = "redb")]
pub mod redb;
#[cfg(any(feature = "rocksdb", feature = "rocksdb-system"))]
pub mod rocksdb;
#[cfg(feature = "sled")]
mod sled;
#[cfg(feature = "surrealkv")]
pub mod surrealkv;
#[cfg(test)]
mod tests;

use hedgerow_bench::suite::contestant::Contestant;
use hedgerow_bench::{OpenTarget, Subject, Variant};

/// A package with its version in this workspace's lock file: `redb 4.6.0`.
macro_rules! release {
    ($package:literal) => {
        env!(concat!("RELEASE_OF_", $package))
    };
}

/// A store: its name, its release, and how it is opened.
const fn store(name: &'static str, version: &'static str, open: OpenTarget) -> Contestant {
    Contestant {
        subject: Subject {
            name,
            title: name,
            version,
            weaker_in: None,
        },
        open,
        variant: None,
    }
}

/// The same, with what it promises less than the others.
#[cfg(any(feature = "lmdb", feature = "redb", feature = "sled"))]
const fn weaker(weaker_in: &'static str, store: Contestant) -> Contestant {
    Contestant {
        subject: Subject {
            weaker_in: Some(weaker_in),
            ..store.subject
        },
        ..store
    }
}

/// An engine of hedgerow.
fn hedgerow(name: &'static str, variant: Variant) -> Contestant {
    let contestant = Contestant::from(variant);
    Contestant {
        subject: Subject {
            name,
            ..contestant.subject
        },
        ..contestant
    }
}

/// All stores that this program was built with.
pub fn all() -> Vec<Contestant> {
    vec![
        hedgerow("hedgerow-lsm", Variant::Lsm),
        hedgerow("hedgerow-btree", Variant::BTree),
        #[cfg(feature = "rocksdb")]
        store(
            "rocksdb",
            concat!(release!("rocksdb"), ", ", release!("librocksdb-sys")),
            rocksdb::bundled::RocksDb::open,
        ),
        // Its version is in its settings: no package tells.
        #[cfg(feature = "rocksdb-system")]
        store(
            "rocksdb-system",
            "librocksdb of the system",
            rocksdb::system::RocksDbSystem::open,
        ),
        #[cfg(feature = "fjall")]
        store("fjall", release!("fjall"), fjall::Fjall::open),
        #[cfg(feature = "surrealkv")]
        store(
            "surrealkv",
            release!("surrealkv"),
            surrealkv::SurrealKv::open,
        ),
        #[cfg(feature = "lmdb")]
        weaker(
            LMDB_IS_WEAKER_IN,
            store("lmdb", LMDB, lmdb::Lmdb::open_nosync),
        ),
        #[cfg(feature = "lmdb")]
        weaker(
            LMDB_IS_WEAKER_IN,
            store("lmdb-writemap", LMDB, lmdb::Lmdb::open_writemap),
        ),
        #[cfg(feature = "redb")]
        weaker(
            "buffered commits are `Durability::None`: lost when the process is killed",
            store("redb", release!("redb"), redb::Redb::open),
        ),
        #[cfg(feature = "sled")]
        weaker(
            "buffered commits are flushed every 500 ms: lost when the process is killed",
            store("sled", release!("sled"), sled::Sled::open),
        ),
        #[cfg(feature = "canopydb")]
        store("canopydb", release!("canopydb"), canopydb::Canopy::open),
    ]
}

/// The store of that name.
pub fn subject_of(name: &str) -> Option<Subject> {
    let mut subjects = all().into_iter().map(|store| store.subject);
    subjects.find(|subject| subject.name == name)
}

#[cfg(feature = "lmdb")]
const LMDB: &str = concat!(release!("heed"), ", ", release!("lmdb-master-sys"));
#[cfg(feature = "lmdb")]
const LMDB_IS_WEAKER_IN: &str = "no checksums; with NOSYNC a power loss may destroy the file";

/// Waits until `is_idle` has been true twice in a row, some milliseconds apart: work that has just
/// ended may be about to start more.
#[cfg(any(
    feature = "fjall",
    feature = "rocksdb",
    feature = "rocksdb-system",
    feature = "surrealkv"
))]
fn wait_until_idle(
    mut is_idle: impl FnMut() -> hedgerow_bench::Result<bool>,
) -> hedgerow_bench::Result<()> {
    let mut quiet = 0;
    while quiet < 2 {
        quiet = if is_idle()? { quiet + 1 } else { 0 };
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    Ok(())
}
