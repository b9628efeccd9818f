//! RocksDB: buffered commits are in the log when they return, written but not synced.

use std::path::Path;

use hedgerow_bench::{Direction, Error, Result, Target, TargetOptions};
use hedgerow::{Compression, Durability};
use rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompressionType, Options, ReadOptions, WriteBatch, WriteOptions,
};

use super::wait_until_idle;

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
        let mut table = BlockBasedOptions::default();
        let cache = Cache::new_lru_cache(options.cache_bytes as usize).map_err(Error::store)?;
        table.set_block_cache(&cache);
        // hedgerow and fjall have filters by default, so RocksDB gets those its own tuning guide
        // recommends.
        table.set_bloom_filter(10.0, false);
        table.set_format_version(5);

        let mut db = Options::default();
        db.create_if_missing(true);
        db.set_block_based_table_factory(&table);
        db.set_write_buffer_size(options.write_buffer_bytes as usize);
        db.set_max_background_jobs(options.background_threads as i32);
        // The default since RocksDB 8.4.
        db.set_level_compaction_dynamic_level_bytes(true);
        let compression = match options.compression {
            Compression::Lz4 => DBCompressionType::Lz4,
            _ => DBCompressionType::None,
        };
        db.set_compression_type(compression);

        let db = DB::open(&db, path).map_err(Error::store)?;
        let settings = format!(
            "RocksDB {}; log on, sync = {}, block cache {} MiB, write buffer {} MiB, {} background \
             jobs, {compression:?}, Bloom filter of 10 bits, dynamic level sizes",
            library_version(path),
            options.durability == Durability::Sync,
            options.cache_bytes >> 20,
            options.write_buffer_bytes >> 20,
            options.background_threads,
        );
        let mut write = WriteOptions::default();
        write.set_sync(options.durability == Durability::Sync);
        Ok(Box::new(Self {
            db,
            write,
            read: ReadOptions::default(),
            settings,
        }))
    }

    fn property(&self, name: &str) -> Result<u64> {
        let value = self.db.property_int_value(name).map_err(Error::store)?;
        Ok(value.unwrap_or(0))
    }
}

/// The version of the library that is linked, which the database's own log begins with.
fn library_version(path: &Path) -> String {
    let log = std::fs::read_to_string(path.join("LOG")).unwrap_or_default();
    let version = log
        .lines()
        .take(20)
        .find_map(|line| line.split_once("RocksDB version: "));
    version
        .map_or("of unknown version", |(_, version)| version.trim())
        .to_owned()
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
        const BUSY: [&str; 5] = [
            "rocksdb.num-running-flushes",
            "rocksdb.num-running-compactions",
            "rocksdb.mem-table-flush-pending",
            "rocksdb.compaction-pending",
            "rocksdb.num-immutable-mem-table",
        ];
        wait_until_idle(|| {
            for property in BUSY {
                if self.property(property)? > 0 {
                    return Ok(false);
                }
            }
            Ok(true)
        })
    }
}
