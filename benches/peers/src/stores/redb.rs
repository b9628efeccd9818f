//! redb. It has no durability between "lost with the process" and "synced": its buffered commits
//! are the weaker of the two, and labelled.
//!
//! Settings, by the docs of its `Builder`: a cache of `cache_bytes`; everything else is its
//! default, with checksums and one process that writes. There is no compression and no write
//! buffer.

use std::path::Path;

use hedgerow_bench::{Direction, Error, Result, Target, TargetOptions};
use redb::{
    Database, Durability, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction,
};

use crate::transactions::{Attempt, Body, Transactional, Tx};

const TABLE: TableDefinition<&[u8], &[u8]> = TableDefinition::new("bench");

/// A redb database with one table.
pub struct Redb {
    db: Database,
    options: TargetOptions,
}

impl Redb {
    /// Opens or creates the database in `path`.
    pub fn open(path: &Path, options: &TargetOptions) -> Result<Box<dyn Target>> {
        Ok(Box::new(Self::new(path, options)?))
    }

    /// The same, whatever it is to be used as.
    pub fn new(path: &Path, options: &TargetOptions) -> Result<Self> {
        let db = Database::builder()
            .set_cache_size(options.cache_bytes as usize)
            .create(path.join("bench.redb"))
            .map_err(Error::store)?;
        let store = Self {
            db,
            options: *options,
        };
        // Reads of a table that does not exist are an error.
        store.commit(|_| Ok(()))?;
        Ok(store)
    }

    fn durability(&self) -> Durability {
        match self.options.durability {
            hedgerow::Durability::Sync => Durability::Immediate,
            hedgerow::Durability::Buffered => Durability::None,
        }
    }

    fn begin(&self) -> Result<WriteTransaction> {
        let mut txn = self.db.begin_write().map_err(Error::store)?;
        txn.set_durability(self.durability())
            .map_err(Error::store)?;
        Ok(txn)
    }

    fn commit(
        &self,
        change: impl FnOnce(&mut redb::Table<'_, &'static [u8], &'static [u8]>) -> Result<()>,
    ) -> Result<()> {
        let txn = self.begin()?;
        change(&mut txn.open_table(TABLE).map_err(Error::store)?)?;
        txn.commit().map_err(Error::store)
    }
}

impl Transactional for Redb {
    fn attempt(&self, body: Body<'_>) -> Result<Attempt> {
        self.commit(|table| body(&mut RedbTx(table)))?;
        Ok(Attempt::Committed)
    }

    fn wait_idle(&self) -> Result<()> {
        // It does nothing in the background.
        Ok(())
    }
}

struct RedbTx<'a, 'txn>(&'a mut redb::Table<'txn, &'static [u8], &'static [u8]>);

impl Tx for RedbTx<'_, '_> {
    fn get(&mut self, key: &[u8], read: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let value = self.0.get(key).map_err(Error::store)?;
        if let Some(value) = &value {
            read(value.value());
        }
        Ok(value.is_some())
    }

    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.0.insert(key, value).map_err(Error::store)?;
        Ok(())
    }
}

impl Target for Redb {
    fn name(&self) -> &str {
        "redb"
    }

    fn settings(&self) -> String {
        format!(
            "Durability::{:?}, cache {} MiB, no compression",
            self.durability(),
            self.options.cache_bytes >> 20,
        )
    }

    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.commit(|table| {
            table.insert(key, value).map_err(Error::store)?;
            Ok(())
        })
    }

    fn put_batch(&self, entries: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
        self.commit(|table| {
            for (key, value) in entries {
                table
                    .insert(key.as_slice(), value.as_slice())
                    .map_err(Error::store)?;
            }
            Ok(())
        })
    }

    fn delete(&self, key: &[u8]) -> Result<()> {
        self.commit(|table| {
            table.remove(key).map_err(Error::store)?;
            Ok(())
        })
    }

    fn get(&self, key: &[u8], read: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let txn = self.db.begin_read().map_err(Error::store)?;
        let table = txn.open_table(TABLE).map_err(Error::store)?;
        let value = table.get(key).map_err(Error::store)?;
        if let Some(value) = &value {
            read(value.value());
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
        let txn = self.db.begin_read().map_err(Error::store)?;
        let table = txn.open_table(TABLE).map_err(Error::store)?;
        let mut entries = match (start, direction) {
            (None, _) => table.iter(),
            (Some(start), Direction::Forward) => table.range(start..),
            (Some(start), Direction::Reverse) => table.range(..=start),
        }
        .map_err(Error::store)?;
        for seen in 0..limit {
            let entry = match direction {
                Direction::Forward => entries.next(),
                Direction::Reverse => entries.next_back(),
            };
            let Some(entry) = entry else {
                return Ok(seen);
            };
            let (key, value) = entry.map_err(Error::store)?;
            visit(key.value(), value.value());
        }
        Ok(limit)
    }

    fn wait_idle(&self) -> Result<()> {
        // It does nothing in the background.
        Ok(())
    }
}
