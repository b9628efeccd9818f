//! SurrealKV: buffered commits are in its write-ahead log when they return, written but not synced
//! (`Durability::Eventual`, its default).
//!
//! **It is asynchronous inside**: a commit is handed to a task that writes groups of them to the
//! log, and flush and compaction are tasks of their own. So the adapter owns a tokio runtime, and
//! each commit blocks its thread until that task has answered: two changes of thread per commit,
//! which a program with a thread per request pays as well. Reads and scans are plain calls. The
//! runtime has a thread more than `background_threads`: without it a flush and a compaction that
//! run at the same time would leave no thread for commits. Work of its log runs on the runtime's
//! threads, as its documentation says it does where no `affinitypool` is installed.
//!
//! Settings, by its documentation (README and the docs of `Options`):
//!
//! - Compression is Snappy below level 0 (`with_l0_no_compression`, the combination it has a
//!   method for); it has no lz4, and its default is no compression at all.
//! - The block cache takes index blocks as well. The size of a memtable counts keys and structure,
//!   not values, so memtables hold more than `write_buffer_bytes`.
//! - Durable commits preallocate the log (`with_wal_preallocation`), which it recommends where
//!   most syncs are of small commits. It is off for buffered ones, which do not sync.
//! - Checksums (CRC-32 of blocks and log records), a Bloom filter of 10 bits a key and the value
//!   log switched off are its defaults.
//!
//! Writes are transactions with a check for conflicts, so two threads that write the same key at
//! the same time may meet: the one that is refused begins again, as its documentation asks.

use std::path::Path;

use hedgerow::{Compression, Durability};
use hedgerow_bench::{Direction, Error, Result, Target, TargetOptions};
use surrealkv::{LSMIterator as _, Mode, Options, Transaction, Tree, TreeBuilder};
use tokio::runtime::{Builder, Runtime};

use super::wait_until_idle;
use crate::transactions::{Attempt, Body, Transactional, Tx};

/// A SurrealKV tree and the runtime that its tasks run on.
pub struct SurrealKv {
    // Declared before the runtime, because dropping a tree needs one.
    tree: Tree,
    runtime: Runtime,
    options: TargetOptions,
}

impl SurrealKv {
    /// Opens or creates the tree in `path`.
    pub fn open(path: &Path, options: &TargetOptions) -> Result<Box<dyn Target>> {
        Ok(Box::new(Self::new(path, options)?))
    }

    /// The same, whatever it is to be used as.
    pub fn new(path: &Path, options: &TargetOptions) -> Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(options.background_threads + 1)
            .enable_all()
            .build()?;
        let mut settings = Options::new()
            .with_path(path.into())
            .with_block_cache_capacity(options.cache_bytes)
            .with_max_memtable_size(options.write_buffer_bytes as usize)
            .with_wal_preallocation(options.durability == Durability::Sync);
        settings = match options.compression {
            Compression::Lz4 => settings.with_l0_no_compression(),
            _ => settings.without_compression(),
        };
        let entered = runtime.enter();
        let tree = TreeBuilder::with_options(settings)
            .build()
            .map_err(Error::store)?;
        drop(entered);
        Ok(Self {
            tree,
            runtime,
            options: *options,
        })
    }

    fn durability(&self) -> surrealkv::Durability {
        match self.options.durability {
            Durability::Sync => surrealkv::Durability::Immediate,
            Durability::Buffered => surrealkv::Durability::Eventual,
        }
    }

    fn commit(&self, change: impl Fn(&mut Transaction) -> surrealkv::Result<()>) -> Result<()> {
        loop {
            let mut txn = self
                .tree
                .begin_with_mode(Mode::WriteOnly)
                .map_err(Error::store)?
                .with_durability(self.durability());
            change(&mut txn).map_err(Error::store)?;
            match self.runtime.block_on(txn.commit()) {
                Err(surrealkv::Error::TransactionWriteConflict) => {}
                result => return result.map_err(Error::store),
            }
        }
    }

    fn read(&self) -> Result<Transaction> {
        self.tree
            .begin_with_mode(Mode::ReadOnly)
            .map_err(Error::store)
    }
}

impl Drop for SurrealKv {
    fn drop(&mut self) {
        // What fails to close has reported why to the operation that failed.
        let _ = self.runtime.block_on(self.tree.close());
    }
}

impl Target for SurrealKv {
    fn name(&self) -> &str {
        "surrealkv"
    }

    fn settings(&self) -> String {
        format!(
            "Durability::{:?}{}, block cache {} MiB, memtable {} MiB without values, {} threads \
             of a runtime, {}, value log off",
            self.durability(),
            match self.options.durability {
                Durability::Sync => " with a preallocated log",
                Durability::Buffered => "",
            },
            self.options.cache_bytes >> 20,
            self.options.write_buffer_bytes >> 20,
            self.options.background_threads + 1,
            match self.options.compression {
                Compression::Lz4 => "Snappy from level 1 on",
                _ => "no compression",
            },
        )
    }

    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.commit(|txn| txn.set(key, value))
    }

    fn put_batch(&self, entries: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
        self.commit(|txn| {
            for (key, value) in entries {
                txn.set(key, value)?;
            }
            Ok(())
        })
    }

    fn delete(&self, key: &[u8]) -> Result<()> {
        self.commit(|txn| txn.delete(key))
    }

    fn get(&self, key: &[u8], read: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let value = self.read()?.get(key).map_err(Error::store)?;
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
        let txn = self.read()?;
        let range = match (start, direction) {
            (None, _) => surrealkv::ReadOptions::new(),
            (Some(start), Direction::Forward) => surrealkv::ReadOptions::from_range(start..),
            (Some(start), Direction::Reverse) => surrealkv::ReadOptions::from_range(..=start),
        };
        let mut entries = txn.range_with_options(&range).map_err(Error::store)?;
        let mut more = match direction {
            Direction::Forward => entries.seek_first(),
            Direction::Reverse => entries.seek_last(),
        }
        .map_err(Error::store)?;
        let mut seen = 0;
        while more && seen < limit {
            let value = entries.value_ref().map_err(Error::store)?;
            visit(entries.key().user_key(), &value);
            seen += 1;
            if seen < limit {
                more = match direction {
                    Direction::Forward => entries.next(),
                    Direction::Reverse => entries.prev(),
                }
                .map_err(Error::store)?;
            }
        }
        Ok(seen)
    }

    fn wait_idle(&self) -> Result<()> {
        self.wait_for_compactions()
    }
}

/// Reads are [`get_for_update`](Transaction::get_for_update), which the commit depends on; of
/// other reads it does not.
impl Transactional for SurrealKv {
    fn attempt(&self, body: Body<'_>) -> Result<Attempt> {
        let txn = self.tree.begin().map_err(Error::store)?;
        let mut txn = txn.with_durability(self.durability());
        body(&mut txn)?;
        match self.runtime.block_on(txn.commit()) {
            Ok(()) => Ok(Attempt::Committed),
            Err(
                surrealkv::Error::TransactionWriteConflict | surrealkv::Error::TransactionRetry,
            ) => Ok(Attempt::Refused),
            Err(error) => Err(Error::store(error)),
        }
    }

    fn wait_idle(&self) -> Result<()> {
        self.wait_for_compactions()
    }
}

impl Tx for Transaction {
    fn get(&mut self, key: &[u8], read: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let value = self.get_for_update(key).map_err(Error::store)?;
        if let Some(value) = &value {
            read(value);
        }
        Ok(value.is_some())
    }

    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.set(key, value).map_err(Error::store)
    }
}

impl SurrealKv {
    fn wait_for_compactions(&self) -> Result<()> {
        // The tree does not tell, but its work in the background runs on threads of the runtime,
        // which does nothing else: no work is left when all of them wait for some.
        let metrics = self.runtime.metrics();
        wait_until_idle(|| {
            if let Some(error) = self.tree.background_error() {
                return Err(Error::store(format!("{error:?}")));
            }
            let is_parked = |worker| metrics.worker_park_unpark_count(worker) % 2 == 1;
            Ok(metrics.global_queue_depth() == 0 && (0..metrics.num_workers()).all(is_parked))
        })
    }
}
