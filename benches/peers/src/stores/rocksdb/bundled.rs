//! The newest RocksDB, through the crate `rocksdb`.

use std::path::Path;

use hedgerow::{Compression, Durability};
use hedgerow_bench::{Direction, Error, Result, Target, TargetOptions};
use rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompressionType, Options, ReadOptions, WriteBatch, WriteOptions,
};

use super::{BLOOM_BITS_PER_KEY, settings, wait_for_compactions};

/// A RocksDB database with one column family.
pub struct RocksDb {
    db: DB,
    /// Made once: the bindings allocate them on the C++ side.
    write: WriteOptions,
    read: ReadOptions,
    settings: String,
}

impl RocksDb {
    /// Opens or creates the database in `path`.
    pub fn open(path: &Path, options: &TargetOptions) -> Result<Box<dyn Target>> {
        let db = DB::open(&database_options(options), path).map_err(Error::store)?;
        Ok(Box::new(Self {
            db,
            write: write_options(options),
            read: ReadOptions::default(),
            settings: settings(path, options),
        }))
    }

    fn property(&self, name: &str) -> Result<u64> {
        let value = self.db.property_int_value(name).map_err(Error::store)?;
        Ok(value.unwrap_or(0))
    }
}

/// How it is opened.
pub(super) fn database_options(options: &TargetOptions) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&Cache::new_lru_cache(options.cache_bytes as usize));
    table.set_bloom_filter(BLOOM_BITS_PER_KEY, false);

    let mut db = Options::default();
    db.create_if_missing(true);
    db.set_block_based_table_factory(&table);
    db.set_write_buffer_size(options.write_buffer_bytes as usize);
    db.set_max_background_jobs(options.background_threads as i32);
    db.set_level_compaction_dynamic_level_bytes(true);
    db.set_compression_type(match options.compression {
        Compression::Lz4 => DBCompressionType::Lz4,
        _ => DBCompressionType::None,
    });
    db
}

/// How it commits.
pub(super) fn write_options(options: &TargetOptions) -> WriteOptions {
    let mut write = WriteOptions::default();
    write.set_sync(options.durability == Durability::Sync);
    write
}

impl Target for RocksDb {
    fn name(&self) -> &str {
        "rocksdb"
    }

    fn settings(&self) -> String {
        self.settings.clone()
    }

    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.db
            .put_opt(key, value, &self.write)
            .map_err(Error::store)
    }

    fn put_batch(&self, entries: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
        let mut batch = WriteBatch::default();
        for (key, value) in entries {
            batch.put(key, value);
        }
        self.db.write_opt(batch, &self.write).map_err(Error::store)
    }

    fn delete(&self, key: &[u8]) -> Result<()> {
        self.db.delete_opt(key, &self.write).map_err(Error::store)
    }

    fn get(&self, key: &[u8], read: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let value = self
            .db
            .get_pinned_opt(key, &self.read)
            .map_err(Error::store)?;
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
        let mut cursor = self.db.raw_iterator_opt(ReadOptions::default());
        match (start, direction) {
            (Some(start), Direction::Forward) => cursor.seek(start),
            (Some(start), Direction::Reverse) => cursor.seek_for_prev(start),
            (None, Direction::Forward) => cursor.seek_to_first(),
            (None, Direction::Reverse) => cursor.seek_to_last(),
        }
        let mut seen = 0;
        while seen < limit {
            let Some((key, value)) = cursor.item() else {
                break;
            };
            visit(key, value);
            seen += 1;
            if seen < limit {
                match direction {
                    Direction::Forward => cursor.next(),
                    Direction::Reverse => cursor.prev(),
                }
            }
        }
        cursor.status().map_err(Error::store)?;
        Ok(seen)
    }

    fn wait_idle(&self) -> Result<()> {
        wait_for_compactions(|name| self.property(name))
    }
}
