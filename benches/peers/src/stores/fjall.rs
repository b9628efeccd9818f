//! fjall: every commit leaves the process before it returns (`PersistMode::Buffer`), which is its
//! default for single writes and is asked for in batches.
//!
//! Settings, by the docs of its builders:
//!
//! - Memtables of `write_buffer_bytes`: 8 to 64 MiB are recommended.
//! - Compression is its default: none on the two upper levels, lz4 below.
//! - A durable commit is a batch with `PersistMode::SyncData`, because a single write cannot ask
//!   for more than `PersistMode::Buffer`.
//! - Checksums, filters and blocks of 4 KiB are its defaults.

use std::path::Path;

use fjall::config::CompressionPolicy;
use fjall::{
    CompressionType, Database, Keyspace, KeyspaceCreateOptions, OptimisticTxDatabase,
    OptimisticTxKeyspace, OptimisticWriteTx, PersistMode, Readable as _,
};
use hedgerow::{Compression, Durability};
use hedgerow_bench::{Direction, Error, Result, Target, TargetOptions};

use super::wait_until_idle;
use crate::transactions::{Attempt, Body, Transactional, Tx};

/// A fjall database with one keyspace.
pub struct Fjall {
    db: Database,
    keyspace: Keyspace,
    options: TargetOptions,
}

impl Fjall {
    /// Opens or creates the database in `path`.
    pub fn open(path: &Path, options: &TargetOptions) -> Result<Box<dyn Target>> {
        let db = Database::builder(path)
            .cache_size(options.cache_bytes)
            .worker_threads(options.background_threads)
            .open()
            .map_err(Error::store)?;
        let create = || create_options(options);
        let keyspace = db.keyspace("bench", create).map_err(Error::store)?;
        Ok(Box::new(Self {
            db,
            keyspace,
            options: *options,
        }))
    }

    fn persist_mode(&self) -> PersistMode {
        persist_mode(self.options.durability)
    }

    /// A single write asks for no more than `PersistMode::Buffer`; a durable one goes as a batch,
    /// which can.
    fn is_sync(&self) -> bool {
        self.options.durability == Durability::Sync
    }

    fn commit(&self, fill: impl FnOnce(&mut fjall::OwnedWriteBatch)) -> Result<()> {
        let mut batch = self.db.batch().durability(Some(self.persist_mode()));
        fill(&mut batch);
        batch.commit().map_err(Error::store)
    }
}

fn create_options(options: &TargetOptions) -> KeyspaceCreateOptions {
    let create = KeyspaceCreateOptions::default().max_memtable_size(options.write_buffer_bytes);
    match options.compression {
        // Its default: nothing in the two upper levels, lz4 below.
        Compression::Lz4 => create,
        _ => create.data_block_compression_policy(CompressionPolicy::all(CompressionType::None)),
    }
}

fn persist_mode(durability: Durability) -> PersistMode {
    match durability {
        Durability::Sync => PersistMode::SyncData,
        Durability::Buffered => PersistMode::Buffer,
    }
}

fn wait_for_compactions(db: &Database) -> Result<()> {
    wait_until_idle(|| Ok(db.outstanding_flushes() == 0 && db.active_compactions() == 0))
}

/// The same database with transactions that run beside one another.
pub struct Optimistic {
    db: OptimisticTxDatabase,
    keyspace: OptimisticTxKeyspace,
    persist_mode: PersistMode,
}

impl Optimistic {
    /// Opens or creates the database in `path`.
    pub fn open(path: &Path, options: &TargetOptions) -> Result<Box<dyn Transactional>> {
        let db = OptimisticTxDatabase::builder(path)
            .cache_size(options.cache_bytes)
            .worker_threads(options.background_threads)
            .open()
            .map_err(Error::store)?;
        let create = || create_options(options);
        let keyspace = db.keyspace("bench", create).map_err(Error::store)?;
        Ok(Box::new(Self {
            db,
            keyspace,
            persist_mode: persist_mode(options.durability),
        }))
    }
}

impl Transactional for Optimistic {
    fn attempt(&self, body: Body<'_>) -> Result<Attempt> {
        let txn = self.db.write_tx().map_err(Error::store)?;
        let mut tx = FjallTx {
            txn: txn.durability(Some(self.persist_mode)),
            keyspace: &self.keyspace,
        };
        body(&mut tx)?;
        match tx.txn.commit().map_err(Error::store)? {
            Ok(()) => Ok(Attempt::Committed),
            Err(fjall::Conflict) => Ok(Attempt::Refused),
        }
    }

    fn wait_idle(&self) -> Result<()> {
        wait_for_compactions(self.db.inner())
    }
}

struct FjallTx<'a> {
    txn: OptimisticWriteTx,
    keyspace: &'a OptimisticTxKeyspace,
}

impl Tx for FjallTx<'_> {
    fn get(&mut self, key: &[u8], read: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let value = self.txn.get(self.keyspace, key).map_err(Error::store)?;
        if let Some(value) = &value {
            read(value);
        }
        Ok(value.is_some())
    }

    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.txn.insert(self.keyspace, key, value);
        Ok(())
    }
}

impl Target for Fjall {
    fn name(&self) -> &str {
        "fjall"
    }

    fn settings(&self) -> String {
        format!(
            "PersistMode::{:?}, cache {} MiB, memtable {} MiB, {} worker threads, {} from level 2 on",
            self.persist_mode(),
            self.options.cache_bytes >> 20,
            self.options.write_buffer_bytes >> 20,
            self.options.background_threads,
            match self.options.compression {
                Compression::Lz4 => "lz4",
                _ => "no compression",
            },
        )
    }

    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        if self.is_sync() {
            return self.commit(|batch| batch.insert(&self.keyspace, key, value));
        }
        self.keyspace.insert(key, value).map_err(Error::store)
    }

    fn put_batch(&self, entries: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
        self.commit(|batch| {
            for (key, value) in entries {
                batch.insert(&self.keyspace, key.as_slice(), value.as_slice());
            }
        })
    }

    fn delete(&self, key: &[u8]) -> Result<()> {
        if self.is_sync() {
            return self.commit(|batch| batch.remove(&self.keyspace, key));
        }
        self.keyspace.remove(key).map_err(Error::store)
    }

    fn get(&self, key: &[u8], read: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let value = self.keyspace.get(key).map_err(Error::store)?;
        if let Some(value) = &value {
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
        let mut entries = match (start, direction) {
            (None, _) => self.keyspace.iter(),
            (Some(start), Direction::Forward) => self.keyspace.range(start..),
            (Some(start), Direction::Reverse) => self.keyspace.range(..=start),
        };
        for seen in 0..limit {
            let entry = match direction {
                Direction::Forward => entries.next(),
                Direction::Reverse => entries.next_back(),
            };
            let Some(entry) = entry else {
                return Ok(seen);
            };
            let (key, value) = entry.into_inner().map_err(Error::store)?;
            visit(&key, &value);
        }
        Ok(limit)
    }

    fn wait_idle(&self) -> Result<()> {
        wait_for_compactions(&self.db)
    }
}
