//! Making engines: the only file that names both.

use std::path::Path;
use std::sync::Arc;

use super::catalog::{Catalog, CatalogEntry, keyspace_dir};
use super::coordinator::Hub;
use super::keyspaces::{OpenKeyspace, remove_tree};
use super::shared::Parts;
use super::wal_manifest::Horizon;
use crate::btree::BTreeEngine;
use crate::cache::BlockCache;
use crate::engine::{Engine, EngineContext, Visibility};
use crate::error::Result;
use crate::lsm::LsmEngine;
use crate::options::{EngineKind, Options};
use crate::util::mutants::planted;

/// Opens and makes engines, for recovery and for [`Parts::make_keyspace`].
pub(super) struct EngineMaker<'a> {
    pub(super) options: &'a Options,
    pub(super) dir: &'a Path,
    pub(super) store_id: u64,
    pub(super) horizon: &'a Horizon,
}

impl EngineMaker<'_> {
    pub(super) fn context(
        &self,
        entry: &CatalogEntry,
        cache: &Arc<BlockCache>,
        visibility: &Arc<Visibility>,
        hub: &Arc<Hub>,
    ) -> EngineContext {
        let mut options = entry.options.clone();
        if options.write_buffer_bytes == 0 {
            options.write_buffer_bytes = self.options.write_buffer_bytes;
        }
        EngineContext {
            fs: Arc::clone(&self.options.fs),
            dir: keyspace_dir(self.dir, entry.id),
            store_id: self.store_id,
            keyspace: entry.id,
            visibility: Arc::clone(visibility),
            cache: Arc::clone(cache),
            options,
            memtable: self.options.memtable,
            use_mmap: self.options.mmap_reads,
            read_only: self.options.read_only,
            floor: self.horizon.floor(entry.id),
            front: Arc::clone(hub) as _,
        }
    }

    pub(super) fn open(
        &self,
        entry: &CatalogEntry,
        context: EngineContext,
    ) -> Result<OpenKeyspace> {
        let engine: Arc<dyn Engine> = match entry.options.engine {
            EngineKind::Lsm => LsmEngine::open(context)?,
            EngineKind::BTree => BTreeEngine::open(context)?,
        };
        Ok(self.wrap(entry, engine))
    }

    fn create(&self, entry: &CatalogEntry, context: EngineContext) -> Result<OpenKeyspace> {
        let engine: Arc<dyn Engine> = match entry.options.engine {
            EngineKind::Lsm => LsmEngine::create(context)?,
            EngineKind::BTree => BTreeEngine::create(context)?,
        };
        Ok(self.wrap(entry, engine))
    }

    fn wrap(&self, entry: &CatalogEntry, engine: Arc<dyn Engine>) -> OpenKeyspace {
        OpenKeyspace::new(
            entry.id,
            entry.name.clone(),
            entry.options.clone(),
            engine,
            Arc::clone(&self.options.fs),
            keyspace_dir(self.dir, entry.id),
        )
    }
}

/// Makes the keyspace of `entry`, durably, and lists it in `catalog` (C2).
pub(crate) fn make_keyspace(
    parts: &Parts,
    catalog: &mut Catalog,
    entry: CatalogEntry,
) -> Result<Arc<OpenKeyspace>> {
    let fs = &*parts.options.fs;
    let maker = EngineMaker {
        options: &parts.options,
        dir: &parts.dir,
        store_id: catalog.store_id,
        // The number is new, so it has no floor.
        horizon: &Horizon::default(),
    };
    let dir = keyspace_dir(&parts.dir, entry.id);
    if fs.exists(&dir)? {
        // A failed attempt in this process: its number was not used up.
        remove_tree(fs, &dir)?;
    }
    fs.create_dir_all(&dir)?;
    let context = maker.context(&entry, &parts.cache, &parts.visibility, &parts.hub);
    let keyspace = Arc::new(maker.create(&entry, context)?);
    if !planted("keyspace-directory-not-synced") {
        fs.sync_dir(&parts.dir)?;
    }
    let mut listed = catalog.clone();
    listed.next_id = entry.id.0 + 1;
    listed.entries.push(entry);
    catalog.replace(listed, fs, &parts.dir, |error| parts.hub.fail(error))?;
    if let Some(recorder) = &parts.recorder {
        keyspace.declare_to(recorder);
    }
    parts.registry.add(Arc::clone(&keyspace));
    Ok(keyspace)
}
