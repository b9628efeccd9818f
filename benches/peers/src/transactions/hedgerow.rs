//! hedgerow's transactions, with their default options: serializable, every read validated.

use std::path::Path;

use ::hedgerow::{Db, EngineKind, Keyspace, KeyspaceOptions, Options, TransactionKeyspace};
use hedgerow_bench::{Result, TargetOptions};

use super::{Attempt, Body, Transactional, Tx};

/// A store with one keyspace.
pub struct Hedgerow {
    db: Db,
    accounts: Keyspace,
}

impl Hedgerow {
    /// Opens or creates the store in `path`, its keyspace an LSM tree.
    pub fn open_lsm(path: &Path, options: &TargetOptions) -> Result<Box<dyn Transactional>> {
        let keyspace = KeyspaceOptions::new(EngineKind::Lsm).compression(options.compression);
        Self::open(path, options, keyspace)
    }

    /// The same, its keyspace a B-tree.
    pub fn open_btree(path: &Path, options: &TargetOptions) -> Result<Box<dyn Transactional>> {
        Self::open(path, options, KeyspaceOptions::new(EngineKind::BTree))
    }

    fn open(
        path: &Path,
        options: &TargetOptions,
        keyspace: KeyspaceOptions,
    ) -> Result<Box<dyn Transactional>> {
        let db = Options::new()
            .durability(options.durability)
            .cache_bytes(options.cache_bytes)
            .write_buffer_bytes(options.write_buffer_bytes)
            .background_threads(options.background_threads)
            .open(path)?;
        let accounts = db.keyspace_with("accounts", keyspace)?;
        Ok(Box::new(Self { db, accounts }))
    }
}

impl Transactional for Hedgerow {
    fn attempt(&self, body: Body<'_>) -> Result<Attempt> {
        let transaction = self.db.transaction()?;
        body(&mut HedgerowTx(transaction.keyspace(&self.accounts)))?;
        match transaction.commit() {
            Ok(_) => Ok(Attempt::Committed),
            Err(error) if error.is_conflict() => Ok(Attempt::Refused),
            Err(error) => Err(error.into()),
        }
    }

    fn wait_idle(&self) -> Result<()> {
        Ok(self.db.wait_idle()?)
    }
}

struct HedgerowTx<'a>(TransactionKeyspace<'a>);

impl Tx for HedgerowTx<'_> {
    fn get(&mut self, key: &[u8], read: &mut dyn FnMut(&[u8])) -> Result<bool> {
        Ok(self.0.get_with(key, read)?.is_some())
    }

    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        Ok(self.0.put(key, value)?)
    }
}
