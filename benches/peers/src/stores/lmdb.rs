//! LMDB, through heed. Buffered commits are NOSYNC: the kernel has the pages when a commit returns.
//!
//! Settings, by the documentation in lmdb.h:
//!
//! - NOSYNC, for buffered commits. A power loss may then destroy the file, so it is weaker than the
//!   others and labelled; with its default flags each commit is durable, which is what it does
//!   where the others are asked for durable commits.
//! - Measured with and without WRITEMAP, which writes pages through the memory map: faster, but it
//!   gives up the protection of the file from stray pointers.
//! - A map of 64 GiB, which is address space and not memory: it "should be chosen as large as
//!   possible".
//! - Caching is the kernel's, so `cache_bytes` does not bound it. There is no compression, and
//!   there are no checksums.

use std::ops::Bound;
use std::path::Path;

use hedgerow::Durability;
use hedgerow_bench::{Direction, Error, Result, Target, TargetOptions};
use heed::types::Bytes;
use heed::{CommitOrAbort, Database, Env, EnvFlags, EnvOpenOptions, RwTxn, WithTls};

use crate::transactions::{Attempt, Body, Transactional, Tx};

/// An LMDB environment with its unnamed database.
pub struct Lmdb {
    env: Env<WithTls>,
    database: Database<'static, Bytes, Bytes>,
    name: &'static str,
    settings: String,
}

impl Lmdb {
    /// Opens or creates the environment in `path`; pages are written with write(2).
    pub fn open_nosync(path: &Path, options: &TargetOptions) -> Result<Box<dyn Target>> {
        Ok(Box::new(Self::nosync(path, options)?))
    }

    /// Opens or creates the environment in `path`; pages are written through the memory map.
    pub fn open_writemap(path: &Path, options: &TargetOptions) -> Result<Box<dyn Target>> {
        Ok(Box::new(Self::writemap(path, options)?))
    }

    /// As [`Lmdb::open_nosync`], whatever it is to be used as.
    pub fn nosync(path: &Path, options: &TargetOptions) -> Result<Self> {
        Self::open("lmdb", EnvFlags::empty(), path, options)
    }

    /// As [`Lmdb::open_writemap`], whatever it is to be used as.
    pub fn writemap(path: &Path, options: &TargetOptions) -> Result<Self> {
        Self::open("lmdb-writemap", EnvFlags::WRITE_MAP, path, options)
    }

    fn open(
        name: &'static str,
        write_map: EnvFlags,
        path: &Path,
        options: &TargetOptions,
    ) -> Result<Self> {
        let flags = match options.durability {
            Durability::Sync => write_map,
            Durability::Buffered => write_map | EnvFlags::NO_SYNC,
        };
        let mut open = EnvOpenOptions::new();
        open.map_size(options.map_bytes as usize).max_readers(1024);
        // SAFETY: NO_SYNC and WRITE_MAP weaken what survives a power loss and what a stray pointer
        // can reach; this program has no stray pointers, and throws the environment away.
        unsafe { open.flags(flags) };
        // SAFETY: the directory is this process's own; nobody else changes or truncates the file.
        let env = unsafe { open.open(path) }.map_err(Error::store)?;
        let txn = env.write_txn().map_err(Error::store)?;
        let database = env
            .create_databases_and_commit(txn, |opener, txn| {
                let database = opener.create_database(txn, None)?;
                Ok::<_, heed::Error>(CommitOrAbort::<_, ()>::Commit(database))
            })
            .map_err(Error::store)?
            .unwrap_commit();
        let flags: Vec<_> = flags.iter_names().map(|(name, _)| name).collect();
        Ok(Self {
            env,
            database,
            name,
            settings: format!(
                "{}; flags [{}], map {} GiB, caching left to the kernel, no compression, no \
                 checksums",
                heed::lmdb_version().string,
                flags.join(", "),
                options.map_bytes >> 30,
            ),
        })
    }
}

impl Transactional for Lmdb {
    fn attempt(&self, body: Body<'_>) -> Result<Attempt> {
        let txn = self.env.write_txn().map_err(Error::store)?;
        let database = self.database;
        let mut tx = LmdbTx { txn, database };
        body(&mut tx)?;
        tx.txn.commit().map_err(Error::store)?;
        Ok(Attempt::Committed)
    }

    fn wait_idle(&self) -> Result<()> {
        // It does nothing in the background.
        Ok(())
    }
}

struct LmdbTx<'a> {
    txn: RwTxn<'a>,
    database: Database<'static, Bytes, Bytes>,
}

impl Tx for LmdbTx<'_> {
    fn get(&mut self, key: &[u8], read: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let value = self.database.get(&self.txn, key).map_err(Error::store)?;
        if let Some(value) = value {
            read(value);
        }
        Ok(value.is_some())
    }

    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let put = self.database.put(&mut self.txn, key, value);
        put.map_err(Error::store)
    }
}

impl Target for Lmdb {
    fn name(&self) -> &str {
        self.name
    }

    fn settings(&self) -> String {
        self.settings.clone()
    }

    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        let mut txn = self.env.write_txn().map_err(Error::store)?;
        self.database
            .put(&mut txn, key, value)
            .map_err(Error::store)?;
        txn.commit().map_err(Error::store)
    }

    fn put_batch(&self, entries: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
        let mut txn = self.env.write_txn().map_err(Error::store)?;
        for (key, value) in entries {
            self.database
                .put(&mut txn, key, value)
                .map_err(Error::store)?;
        }
        txn.commit().map_err(Error::store)
    }

    fn delete(&self, key: &[u8]) -> Result<()> {
        let mut txn = self.env.write_txn().map_err(Error::store)?;
        self.database.delete(&mut txn, key).map_err(Error::store)?;
        txn.commit().map_err(Error::store)
    }

    fn get(&self, key: &[u8], read: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let txn = self.env.read_txn().map_err(Error::store)?;
        let value = self.database.get(&txn, key).map_err(Error::store)?;
        if let Some(value) = value {
            read(value);
        }
        Ok(value.is_some())
    }

    fn scan(
        &self,
        start: Option<&[u8]>,
        direction: Direction,
        limit: u64,
        visit: &mut dyn FnMut(&[u8], &[u8]),
    ) -> Result<u64> {
        let txn = self.env.read_txn().map_err(Error::store)?;
        let start = start.map_or(Bound::Unbounded, Bound::Included);
        let mut visit_all = |entries: &mut dyn Iterator<Item = heed::Result<(&[u8], &[u8])>>| {
            let mut seen = 0;
            while seen < limit {
                let Some(entry) = entries.next() else {
                    break;
                };
                let (key, value) = entry.map_err(Error::store)?;
                visit(key, value);
                seen += 1;
            }
            Ok(seen)
        };
        match direction {
            Direction::Forward => {
                let bounds = (start, Bound::Unbounded);
                visit_all(&mut self.database.range(&txn, &bounds).map_err(Error::store)?)
            }
            Direction::Reverse => {
                let bounds = (Bound::Unbounded, start);
                visit_all(
                    &mut self
                        .database
                        .rev_range(&txn, &bounds)
                        .map_err(Error::store)?,
                )
            }
        }
    }

    fn wait_idle(&self) -> Result<()> {
        // It does nothing in the background.
        Ok(())
    }
}
