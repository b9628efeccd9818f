//! canopydb: buffered commits are in its write-ahead log when they return, written but not synced.
//!
//! Settings, by the docs of its options:
//!
//! - Checksums of all pages, which are off by default, because the other stores have them.
//! - A checkpoint whenever `write_buffer_bytes` of changes are in memory; its own limits for
//!   throttling are kept where they are not below that.
//! - Its default is to compress values above 12 KiB with lz4, and smaller ones never.
//! - Exclusive write transactions: concurrent ones cost more each, and conflict where two change
//!   the same page; its docs recommend them for transactions that spend their time elsewhere.

use std::path::Path;

use canopydb::{Database, DbOptions, EnvOptions, TreeOptions};
use hedgerow::{Compression, Durability};
use hedgerow_bench::{Direction, Error, Result, Target, TargetOptions};

const TREE: &[u8] = b"bench";

/// A canopydb database with one tree.
pub struct Canopy {
    db: Database,
    options: TargetOptions,
}

impl Canopy {
    /// Opens or creates the database in `path`.
    pub fn open(path: &Path, options: &TargetOptions) -> Result<Box<dyn Target>> {
        let mut env = EnvOptions::new(path);
        env.page_cache_size = options.cache_bytes as usize;
        // The others checksum what they write; here it is an option.
        env.use_checksums = true;
        let mut database = DbOptions::new();
        database.checkpoint_target_size = options.write_buffer_bytes as usize;
        let largest = database
            .throttle_memory_limit
            .max(database.checkpoint_target_size);
        database.throttle_memory_limit = largest;
        database.stall_memory_limit = largest;
        let db = Database::with_options(env, database).map_err(Error::store)?;
        let store = Self {
            db,
            options: *options,
        };
        store.commit(|_| Ok(()))?;
        Ok(Box::new(store))
    }

    fn is_sync(&self) -> bool {
        self.options.durability == Durability::Sync
    }

    fn commit(&self, change: impl FnOnce(&mut canopydb::Tree<'_>) -> Result<()>) -> Result<()> {
        let txn = self.db.begin_write().map_err(Error::store)?;
        let mut tree = TreeOptions::default();
        if self.options.compression == Compression::None {
            tree.compress_overflow_values = None;
        }
        let mut tree = txn
            .get_or_create_tree_with(TREE, tree)
            .map_err(Error::store)?;
        change(&mut tree)?;
        drop(tree);
        txn.commit_with(self.is_sync()).map_err(Error::store)?;
        Ok(())
    }

    fn read<R>(&self, look: impl FnOnce(&canopydb::Tree<'_>) -> Result<R>) -> Result<R> {
        let txn = self.db.begin_read().map_err(Error::store)?;
        let tree = txn.get_tree(TREE).map_err(Error::store)?;
        look(&tree.ok_or_else(|| Error::store("the tree is gone"))?)
    }
}

impl Target for Canopy {
    fn name(&self) -> &str {
        "canopydb"
    }

    fn settings(&self) -> String {
        format!(
            "sync = {}, page cache {} MiB, checkpoints of {} MiB, checksums on, {}",
            self.is_sync(),
            self.options.cache_bytes >> 20,
            self.options.write_buffer_bytes >> 20,
            match self.options.compression {
                Compression::Lz4 => "lz4 for values above 12 KiB",
                _ => "no compression",
            },
        )
    }

    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.commit(|tree| tree.insert(key, value).map_err(Error::store))
    }

    fn put_batch(&self, entries: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
        self.commit(|tree| {
            for (key, value) in entries {
                tree.insert(key, value).map_err(Error::store)?;
            }
            Ok(())
        })
    }

    fn delete(&self, key: &[u8]) -> Result<()> {
        self.commit(|tree| {
            tree.delete(key).map_err(Error::store)?;
            Ok(())
        })
    }

    fn get(&self, key: &[u8], read: &mut dyn FnMut(&[u8])) -> Result<bool> {
        self.read(|tree| {
            let value = tree.get(key).map_err(Error::store)?;
            if let Some(value) = &value {
                read(value);
            }
            Ok(value.is_some())
        })
    }

    fn scan(
        &self,
        start: Option<&[u8]>,
        direction: Direction,
        limit: u64,
        visit: &mut dyn FnMut(&[u8], &[u8]),
    ) -> Result<u64> {
        self.read(|tree| {
            let mut entries = match (start, direction) {
                (None, _) => tree.iter(),
                (Some(start), Direction::Forward) => tree.range(start..),
                (Some(start), Direction::Reverse) => tree.range(..=start),
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
                visit(&key, &value);
            }
            Ok(limit)
        })
    }

    fn wait_idle(&self) -> Result<()> {
        self.db.checkpoint().map_err(Error::store)
    }
}
