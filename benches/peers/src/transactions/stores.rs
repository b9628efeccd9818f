//! The stores whose transactions can be compared, and what each promises.

use std::path::Path;

use hedgerow_bench::{Error, Result, TargetOptions};

use super::Transactional;
use super::hedgerow::Hedgerow;
use crate::stores as adapters;

/// A store with transactions.
#[derive(Debug, Clone, Copy)]
pub struct Contender {
    /// In a word.
    pub name: &'static str,
    /// Its release.
    pub version: &'static str,
    /// What is done so that committed transactions are serializable for these workloads, and what
    /// it would take beyond them.
    pub isolation: &'static str,
    /// Where its buffered commits promise less than those of the others.
    pub weaker_in: &'static str,
    /// How it deals with conflicts.
    pub kind: Kind,
    /// Opens or creates it in a directory.
    pub open: fn(&Path, &TargetOptions) -> Result<Box<dyn Transactional>>,
}

/// How conflicts come out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Of hedgerow.
    Ours,
    /// Transactions run beside one another, and the commit of one may be refused.
    Optimistic,
    /// One at a time writes, and others wait.
    OneWriter,
}

const OURS: &str = "serializable (its default): every key and every range that was read is \
    validated at the commit";
#[cfg(feature = "rocksdb")]
const ROCKSDB: &str = "serializable for reads of keys, which are `get_for_update` and validated at \
    the commit; ranges are not. No snapshot is set, its fastest way: refused attempts may have \
    read two moments";
#[cfg(feature = "fjall")]
const FJALL: &str = "serializable: keys and ranges that were read are validated at the commit";
#[cfg(feature = "surrealkv")]
const SURREALKV: &str = "snapshot isolation by default; serializable for reads of keys, which are \
    `get_for_update` and validated at the commit; ranges are not";
#[cfg(any(feature = "redb", feature = "lmdb"))]
const ONE_WRITER: &str = "serial: a transaction that may write waits for the one before";

/// All stores that this program was built with, in the order of the columns.
pub fn all() -> Vec<Contender> {
    let hedgerow = concat!("hedgerow ", env!("CARGO_PKG_VERSION"));
    vec![
        Contender {
            name: "hedgerow-lsm",
            version: hedgerow,
            isolation: OURS,
            weaker_in: "",
            kind: Kind::Ours,
            open: Hedgerow::open_lsm,
        },
        Contender {
            name: "hedgerow-btree",
            version: hedgerow,
            isolation: OURS,
            weaker_in: "",
            kind: Kind::Ours,
            open: Hedgerow::open_btree,
        },
        #[cfg(feature = "rocksdb")]
        Contender {
            name: "rocksdb",
            version: adapters::version_of("rocksdb"),
            isolation: ROCKSDB,
            weaker_in: "",
            kind: Kind::Optimistic,
            open: adapters::rocksdb::optimistic::Optimistic::open,
        },
        #[cfg(feature = "fjall")]
        Contender {
            name: "fjall",
            version: adapters::version_of("fjall"),
            isolation: FJALL,
            weaker_in: "",
            kind: Kind::Optimistic,
            open: adapters::fjall::Optimistic::open,
        },
        #[cfg(feature = "surrealkv")]
        Contender {
            name: "surrealkv",
            version: adapters::version_of("surrealkv"),
            isolation: SURREALKV,
            weaker_in: "",
            kind: Kind::Optimistic,
            open: |path, options| {
                Ok(Box::new(adapters::surrealkv::SurrealKv::new(
                    path, options,
                )?))
            },
        },
        #[cfg(feature = "redb")]
        Contender {
            name: "redb",
            version: adapters::version_of("redb"),
            isolation: ONE_WRITER,
            weaker_in: adapters::weaker_in("redb"),
            kind: Kind::OneWriter,
            open: |path, options| Ok(Box::new(adapters::redb::Redb::new(path, options)?)),
        },
        #[cfg(feature = "lmdb")]
        Contender {
            name: "lmdb",
            version: adapters::version_of("lmdb"),
            isolation: ONE_WRITER,
            weaker_in: adapters::weaker_in("lmdb"),
            kind: Kind::OneWriter,
            open: |path, options| Ok(Box::new(adapters::lmdb::Lmdb::nosync(path, options)?)),
        },
        #[cfg(feature = "lmdb")]
        Contender {
            name: "lmdb-writemap",
            version: adapters::version_of("lmdb-writemap"),
            isolation: ONE_WRITER,
            weaker_in: adapters::weaker_in("lmdb-writemap"),
            kind: Kind::OneWriter,
            open: |path, options| Ok(Box::new(adapters::lmdb::Lmdb::writemap(path, options)?)),
        },
    ]
}

/// The store of that name.
pub fn find(name: &str) -> Result<Contender> {
    let all = all();
    let found = all.iter().find(|store| store.name == name);
    found.copied().ok_or_else(|| {
        let known: Vec<_> = all.iter().map(|store| store.name).collect();
        Error::usage(format!(
            "unknown store {name:?}: this program was built with {}",
            known.join(", ")
        ))
    })
}
