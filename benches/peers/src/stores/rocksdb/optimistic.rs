//! The newest RocksDB with transactions that run beside one another (`OptimisticTransactionDB`).
//!
//! Reads are `get_for_update`: a commit is refused if such a key was written since it was read.
//! Other reads it does not depend on, so that two transactions which read what the other one writes
//! would both be committed. The keys are looked up in memtables, and one of which the memtables do
//! not reach back far enough is refused as well (`TryAgain`).
//!
//! No snapshot is set. Each read is of the latest moment then, so a transaction sees more of what
//! is new, and is refused less often; what it has read is of one moment if it is committed.

use std::path::Path;

use hedgerow_bench::{Error, Result, TargetOptions};
use rocksdb::{
    ErrorKind, OptimisticTransactionDB, OptimisticTransactionOptions, ReadOptions, Transaction,
    WriteOptions,
};

use super::bundled::{database_options, write_options};
use super::wait_for_compactions;
use crate::transactions::{Attempt, Body, Transactional, Tx};

/// A RocksDB database with one column family.
pub struct Optimistic {
    db: OptimisticTransactionDB,
    /// Made once: the bindings allocate them on the C++ side.
    write: WriteOptions,
    read: ReadOptions,
    transaction: OptimisticTransactionOptions,
}

impl Optimistic {
    /// Opens or creates the database in `path`, with the settings of the adapter that has no
    /// transactions.
    pub fn open(path: &Path, options: &TargetOptions) -> Result<Box<dyn Transactional>> {
        let db = OptimisticTransactionDB::open(&database_options(options), path);
        Ok(Box::new(Self {
            db: db.map_err(Error::store)?,
            write: write_options(options),
            read: ReadOptions::default(),
            transaction: OptimisticTransactionOptions::default(),
        }))
    }
}

impl Transactional for Optimistic {
    fn attempt(&self, body: Body<'_>) -> Result<Attempt> {
        let txn = self.db.transaction_opt(&self.write, &self.transaction);
        let read = &self.read;
        let mut tx = RocksDbTx { txn, read };
        body(&mut tx)?;
        match tx.txn.commit() {
            Ok(()) => Ok(Attempt::Committed),
            Err(error) if matches!(error.kind(), ErrorKind::Busy | ErrorKind::TryAgain) => {
                Ok(Attempt::Refused)
            }
            Err(error) => Err(Error::store(error)),
        }
    }

    fn wait_idle(&self) -> Result<()> {
        wait_for_compactions(|name| {
            let value = self.db.property_int_value(name).map_err(Error::store)?;
            Ok(value.unwrap_or(0))
        })
    }
}

struct RocksDbTx<'a> {
    txn: Transaction<'a, OptimisticTransactionDB>,
    read: &'a ReadOptions,
}

impl Tx for RocksDbTx<'_> {
    fn get(&mut self, key: &[u8], read: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let value = self.txn.get_pinned_for_update_opt(key, true, self.read);
        let value = value.map_err(Error::store)?;
        if let Some(value) = &value {
            read(value);
        }
        Ok(value.is_some())
    }

    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.txn.put(key, value).map_err(Error::store)
    }
}
