//! The stores whose transactions can be compared, and what each promises.

use std::path::Path;

use hedgerow_bench::{Error, Result, TargetOptions};

use super::Transactional;
use super::hedgerow::Hedgerow;
use crate::stores::subject_of;

/// A store with transactions.
#[derive(Debug, Clone, Copy)]
pub struct Contender {
    /// In a word, which is that of the comparison without transactions.
    pub name: &'static str,
    /// What is done so that committed transactions are serializable for these workloads, and what
    /// it would take beyond them.
    pub isolation: &'static str,
    /// How it deals with conflicts.
    pub kind: Kind,
    /// Opens or creates it in a directory.
    pub open: fn(&Path, &TargetOptions) -> Result<Box<dyn Transactional>>,
}

impl Contender {
    /// Its release.
    pub fn version(&self) -> &'static str {
        subject_of(self.name).map_or("", |subject| subject.version)
    }

    /// What its buffered commits promise less than those of the others.
    pub fn weaker_in(&self) -> &'static str {
        let weaker_in = subject_of(self.name).and_then(|subject| subject.weaker_in);
        weaker_in.unwrap_or("")
    }
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
    vec![
        Contender {
            name: "hedgerow-lsm",
            isolation: OURS,
            kind: Kind::Ours,
            open: Hedgerow::open_lsm,
        },
        Contender {
            name: "hedgerow-btree",
            isolation: OURS,
            kind: Kind::Ours,
            open: Hedgerow::open_btree,
        },
        #[cfg(feature = "rocksdb")]
        Contender {
            name: "rocksdb",
            isolation: ROCKSDB,
            kind: Kind::Optimistic,
            open: crate::stores::rocksdb::optimistic::Optimistic::open,
        },
        #[cfg(feature = "fjall")]
        Contender {
            name: "fjall",
            isolation: FJALL,
            kind: Kind::Optimistic,
            open: crate::stores::fjall::Optimistic::open,
        },
        #[cfg(feature = "surrealkv")]
        Contender {
            name: "surrealkv",
            isolation: SURREALKV,
            kind: Kind::Optimistic,
            open: |path, options| {
                Ok(Box::new(crate::stores::surrealkv::SurrealKv::new(
                    path, options,
                )?))
            },
        },
        #[cfg(feature = "redb")]
        Contender {
            name: "redb",
            isolation: ONE_WRITER,
            kind: Kind::OneWriter,
            open: |path, options| Ok(Box::new(crate::stores::redb::Redb::new(path, options)?)),
        },
        #[cfg(feature = "lmdb")]
        Contender {
            name: "lmdb",
            isolation: ONE_WRITER,
            kind: Kind::OneWriter,
            open: |path, options| Ok(Box::new(crate::stores::lmdb::Lmdb::nosync(path, options)?)),
        },
        #[cfg(feature = "lmdb")]
        Contender {
            name: "lmdb-writemap",
            isolation: ONE_WRITER,
            kind: Kind::OneWriter,
            open: |path, options| {
                Ok(Box::new(crate::stores::lmdb::Lmdb::writemap(
                    path, options,
                )?))
            },
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
