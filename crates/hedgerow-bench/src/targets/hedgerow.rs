//! Both engines of hedgerow, and its model, as benchmark targets.

use std::path::Path;

use hedgerow::{
    Batch, Compression, Db, Durability, EngineKind, Keyspace, KeyspaceOptions, KvRead, Model,
    Options, Scan,
};

use super::{Direction, Target, TargetOptions};
use crate::error::Result;
use crate::subject::Variant;

const KEYSPACE: &str = "bench";

/// A store with one keyspace.
#[derive(Debug)]
pub struct HedgerowTarget {
    db: Db,
    keyspace: Keyspace,
    name: String,
    variant: Variant,
    options: TargetOptions,
}

impl HedgerowTarget {
    /// Opens or creates the store in directory `path`, of `variant`.
    pub fn open(path: &Path, variant: Variant, options: &TargetOptions) -> Result<Self> {
        let db = Options::new()
            .durability(options.durability)
            .cache_bytes(options.cache_bytes)
            .write_buffer_bytes(options.write_buffer_bytes)
            .background_threads(options.background_threads)
            .open(path)?;
        let engine = variant.engine();
        let mut keyspace = KeyspaceOptions::new(engine);
        if engine == EngineKind::Lsm {
            keyspace = keyspace
                .compression(options.compression)
                .memtable(variant.memtable());
        }
        let keyspace = db.keyspace_with(KEYSPACE, keyspace)?;
        Ok(Self {
            db,
            keyspace,
            name: format!("hedgerow-{variant}"),
            variant,
            options: *options,
        })
    }

    /// The store on the LSM engine: an [`OpenTarget`](crate::OpenTarget).
    pub fn open_lsm(path: &Path, options: &TargetOptions) -> Result<Box<dyn Target>> {
        Ok(Box::new(Self::open(path, Variant::Lsm, options)?))
    }

    /// The store on the LSM engine, its memtables skip lists: an
    /// [`OpenTarget`](crate::OpenTarget).
    pub fn open_lsm_skiplist(path: &Path, options: &TargetOptions) -> Result<Box<dyn Target>> {
        Ok(Box::new(Self::open(path, Variant::LsmSkipList, options)?))
    }

    /// The store on the B-tree engine: an [`OpenTarget`](crate::OpenTarget).
    pub fn open_btree(path: &Path, options: &TargetOptions) -> Result<Box<dyn Target>> {
        Ok(Box::new(Self::open(path, Variant::BTree, options)?))
    }

    /// The store itself.
    pub fn db(&self) -> &Db {
        &self.db
    }

    fn durability(&self) -> Durability {
        self.options.durability
    }
}

impl Drop for HedgerowTarget {
    fn drop(&mut self) {
        // A store that cannot be closed has reported why to the operation that failed.
        let _ = self.db.close();
    }
}

impl Target for HedgerowTarget {
    fn name(&self) -> &str {
        &self.name
    }

    fn settings(&self) -> String {
        let memtable = match self.variant {
            Variant::LsmSkipList => ", memtables as skip lists",
            Variant::Lsm | Variant::BTree => "",
        };
        let compression = match (self.variant.engine(), self.options.compression) {
            (EngineKind::Lsm, Compression::None) => "no compression".into(),
            (EngineKind::Lsm, kind) => kind.to_string(),
            (EngineKind::BTree, _) => "no compression (the engine has none)".into(),
        };
        format!(
            "{:?}, cache {} MiB, write buffer {} MiB, {} background threads, {compression}{memtable}",
            self.durability(),
            self.options.cache_bytes >> 20,
            self.options.write_buffer_bytes >> 20,
            self.options.background_threads,
        )
    }

    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.keyspace.put(key, value)?;
        Ok(())
    }

    fn put_batch(&self, entries: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
        self.keyspace
            .write_with(batch_of(entries), self.durability())?;
        Ok(())
    }

    fn delete(&self, key: &[u8]) -> Result<()> {
        self.keyspace.delete(key)?;
        Ok(())
    }

    fn get(&self, key: &[u8], read: &mut dyn FnMut(&[u8])) -> Result<bool> {
        Ok(self.keyspace.get_with(key, read)?.is_some())
    }

    fn scan(
        &self,
        start: Option<&[u8]>,
        direction: Direction,
        limit: u64,
        visit: &mut dyn FnMut(&[u8], &[u8]),
    ) -> Result<u64> {
        scan_kv(&self.keyspace, start, direction, limit, visit)
    }

    fn wait_idle(&self) -> Result<()> {
        Ok(self.db.wait_idle()?)
    }

    fn bytes_written(&self) -> Option<u64> {
        Some(self.db.stats().bytes_written())
    }

    fn blocks_read(&self) -> Option<u64> {
        Some(self.keyspace.stats().blocks_read)
    }

    fn tree_bytes(&self) -> Option<u64> {
        Some(self.keyspace.stats().disk_bytes)
    }

    fn writers_slowed_ms(&self) -> Option<u64> {
        Some(self.db.stats().slowed_ms)
    }

    fn writers_stopped_ms(&self) -> Option<u64> {
        Some(self.db.stats().stopped_ms)
    }
}

/// The in-memory model as a target: the cost of the benchmark itself, and the oracle of its tests.
#[derive(Debug, Default)]
pub struct ModelTarget {
    model: Model,
}

impl ModelTarget {
    /// An empty model; nothing is kept in `path`.
    pub fn open(_path: &Path, _options: &TargetOptions) -> Result<Box<dyn Target>> {
        Ok(Box::new(Self::default()))
    }
}

impl Target for ModelTarget {
    fn name(&self) -> &str {
        "model"
    }

    fn settings(&self) -> String {
        "in memory, keeps nothing".into()
    }

    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.model.put(key, value)?;
        Ok(())
    }

    fn put_batch(&self, entries: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
        self.model
            .write_with(batch_of(entries), Durability::Buffered)?;
        Ok(())
    }

    fn delete(&self, key: &[u8]) -> Result<()> {
        self.model.delete(key)?;
        Ok(())
    }

    fn get(&self, key: &[u8], read: &mut dyn FnMut(&[u8])) -> Result<bool> {
        Ok(self.model.get_with(key, read)?.is_some())
    }

    fn scan(
        &self,
        start: Option<&[u8]>,
        direction: Direction,
        limit: u64,
        visit: &mut dyn FnMut(&[u8], &[u8]),
    ) -> Result<u64> {
        scan_kv(&self.model, start, direction, limit, visit)
    }

    fn wait_idle(&self) -> Result<()> {
        Ok(())
    }
}

fn batch_of(entries: &[(Vec<u8>, Vec<u8>)]) -> Batch {
    let bytes = entries
        .iter()
        .map(|(key, value)| key.len() + value.len() + 12);
    let mut batch = Batch::with_capacity(bytes.sum());
    for (key, value) in entries {
        batch.put(key, value);
    }
    batch
}

fn scan_kv(
    kv: &impl KvRead,
    start: Option<&[u8]>,
    direction: Direction,
    limit: u64,
    visit: &mut dyn FnMut(&[u8], &[u8]),
) -> Result<u64> {
    let mut scan: Scan = match (start, direction) {
        (None, _) => kv.iter(),
        (Some(start), Direction::Forward) => kv.range(start..),
        (Some(start), Direction::Reverse) => kv.range(..=start),
    };
    for seen in 0..limit {
        let more = match direction {
            Direction::Forward => scan.next_with(&mut *visit)?,
            Direction::Reverse => scan.next_back_with(&mut *visit)?,
        };
        if more.is_none() {
            return Ok(seen);
        }
    }
    Ok(limit)
}
