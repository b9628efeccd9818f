//! sled, the newest release that is not an alpha. Buffered commits stay in its own memory until a
//! thread flushes them, twice a second (its default): weaker than the others, and labelled.
//!
//! Settings, by the docs of its `Config`: a cache of `cache_bytes`, and `Mode::HighThroughput`,
//! which "maximizes write throughput while potentially using more disk space". A durable commit is
//! followed by `flush`. Checksums are always on; compression, which is zstd, is off by default and
//! stays so.

use std::path::Path;

use hedgerow::Durability;
use hedgerow_bench::{Direction, Error, Result, Target, TargetOptions};
use sled::{Batch, Db, Mode};

/// A sled database with its default tree.
pub struct Sled {
    db: Db,
    options: TargetOptions,
}

impl Sled {
    /// Opens or creates the database in `path`.
    pub fn open(path: &Path, options: &TargetOptions) -> Result<Box<dyn Target>> {
        let db = sled::Config::new()
            .path(path)
            .cache_capacity(options.cache_bytes)
            .mode(Mode::HighThroughput)
            .open()
            .map_err(Error::store)?;
        Ok(Box::new(Self {
            db,
            options: *options,
        }))
    }

    fn settle_commit(&self) -> Result<()> {
        if self.options.durability == Durability::Sync {
            self.db.flush().map_err(Error::store)?;
        }
        Ok(())
    }
}

impl Target for Sled {
    fn name(&self) -> &str {
        "sled"
    }

    fn settings(&self) -> String {
        let flushes = match self.options.durability {
            Durability::Sync => "flush after every commit",
            Durability::Buffered => "flushed every 500 ms",
        };
        format!(
            "{flushes}, cache {} MiB, high throughput, no compression",
            self.options.cache_bytes >> 20,
        )
    }

    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.db.insert(key, value).map_err(Error::store)?;
        self.settle_commit()
    }

    fn put_batch(&self, entries: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
        let mut batch = Batch::default();
        for (key, value) in entries {
            batch.insert(key.as_slice(), value.as_slice());
        }
        self.db.apply_batch(batch).map_err(Error::store)?;
        self.settle_commit()
    }

    fn delete(&self, key: &[u8]) -> Result<()> {
        self.db.remove(key).map_err(Error::store)?;
        self.settle_commit()
    }

    fn get(&self, key: &[u8], read: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let value = self.db.get(key).map_err(Error::store)?;
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
            (None, _) => self.db.iter(),
            (Some(start), Direction::Forward) => self.db.range(start..),
            (Some(start), Direction::Reverse) => self.db.range(..=start),
        };
        for seen in 0..limit {
            let entry = match direction {
                Direction::Forward => entries.next(),
                Direction::Reverse => entries.next_back(),
            };
            let Some(entry) = entry else {
                return Ok(seen);
            };
            let (key, value) = entry.map_err(Error::store)?;
            visit(&key, &value);
        }
        Ok(limit)
    }

    fn wait_idle(&self) -> Result<()> {
        self.db.flush().map_err(Error::store)?;
        Ok(())
    }
}
