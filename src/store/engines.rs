//! Making engines: the only file that names both.

use std::path::Path;
use std::sync::Arc;

use super::catalog::{Catalog, CatalogEntry, keyspace_dir};
use super::coordinator::Coordinator;
use super::keyspaces::{KeyspaceFiles, LiveOptions, OpenKeyspace, remove_keyspace_files};
use super::shared::Shared;
use super::wal_manifest::WalManifest;
use crate::btree;
use crate::btree::BTreeEngine;
use crate::cache::BlockCache;
use crate::engine::{Engine, EngineContext, SnapshotTracker};
use crate::error::Result;
use crate::fs::OpenFiles;
use crate::lsm;
use crate::lsm::LsmEngine;
use crate::options::{EngineKind, KeyspaceSettings, Options};
use crate::util::gate::Gate;
use crate::util::mutants::mutated;

/// True for the names that engines give their files.
pub(super) fn is_engine_file(name: &str) -> bool {
    lsm::is_own_file(name) || btree::is_own_file(name)
}

/// Opens and makes engines, for recovery and for [`make_keyspace`].
pub(super) struct EngineMaker<'a> {
    pub(super) options: &'a Options,
    pub(super) dir: &'a Path,
    pub(super) store_id: u64,
    pub(super) wal_manifest: &'a WalManifest,
    pub(super) gate: &'a Arc<Gate>,
}

/// What an engine is given, and what its keyspace is.
pub(super) struct Prepared {
    context: EngineContext,
    files: Arc<KeyspaceFiles>,
}

impl EngineMaker<'_> {
    pub(super) fn context(
        &self,
        entry: &CatalogEntry,
        cache: &Arc<BlockCache>,
        open_files: &Arc<OpenFiles>,
        snapshot_tracker: &Arc<SnapshotTracker>,
        coordinator: &Arc<Coordinator>,
    ) -> Prepared {
        let options = entry.options.clone().with_defaults();
        let settings = KeyspaceSettings::new(&options, self.options.write_buffer_bytes);
        let fs = Arc::clone(&self.options.fs);
        let dir = keyspace_dir(self.dir, entry.id);
        let gate = Arc::clone(self.gate);
        let files = Arc::new(KeyspaceFiles::new(
            Arc::clone(&fs),
            dir.clone(),
            is_engine_file,
            gate,
        ));
        let context = EngineContext {
            fs,
            open_files: Arc::clone(open_files),
            dir,
            keep: Arc::clone(&files) as _,
            store_id: self.store_id,
            keyspace: entry.id,
            snapshot_tracker: Arc::clone(snapshot_tracker),
            cache: Arc::clone(cache),
            options: Arc::new(settings),
            use_mmap: self.options.mmap_reads,
            read_only: self.options.read_only,
            persisted_watermark: self.wal_manifest.persisted_watermark(entry.id),
            host: Arc::clone(coordinator) as _,
        };
        Prepared { context, files }
    }

    pub(super) fn open(&self, entry: &CatalogEntry, prepared: Prepared) -> Result<OpenKeyspace> {
        let Prepared { context, files } = prepared;
        let settings = Arc::clone(&context.options);
        let engine: Arc<dyn Engine> = match entry.options.engine {
            EngineKind::Lsm => LsmEngine::open(context)?,
            EngineKind::BTree => BTreeEngine::open(context)?,
        };
        Ok(self.wrap(entry, settings, engine, files))
    }

    fn create(&self, entry: &CatalogEntry, prepared: Prepared) -> Result<OpenKeyspace> {
        let Prepared { context, files } = prepared;
        let settings = Arc::clone(&context.options);
        let engine: Arc<dyn Engine> = match entry.options.engine {
            EngineKind::Lsm => LsmEngine::create(context)?,
            EngineKind::BTree => BTreeEngine::create(context)?,
        };
        Ok(self.wrap(entry, settings, engine, files))
    }

    fn wrap(
        &self,
        entry: &CatalogEntry,
        settings: Arc<KeyspaceSettings>,
        engine: Arc<dyn Engine>,
        files: Arc<KeyspaceFiles>,
    ) -> OpenKeyspace {
        let options = LiveOptions::new(
            entry.options.clone().with_defaults(),
            settings,
            self.options.write_buffer_bytes,
        );
        OpenKeyspace::new(entry.id, entry.name.clone(), options, engine, files)
    }
}

/// Makes the keyspace of `entry`, durably, and lists it in `catalog` (C2).
pub(crate) fn make_keyspace(
    shared: &Shared,
    catalog: &mut Catalog,
    entry: CatalogEntry,
) -> Result<Arc<OpenKeyspace>> {
    let fs = &*shared.options.fs;
    let maker = EngineMaker {
        options: &shared.options,
        dir: &shared.dir,
        store_id: catalog.store_id,
        // The number is new, so it has no watermark.
        wal_manifest: &WalManifest::default(),
        gate: &shared.gate,
    };
    let dir = keyspace_dir(&shared.dir, entry.id);
    if fs.exists(&dir)? {
        // A failed attempt in this process: its number was not used up.
        remove_keyspace_files(fs, &dir, is_engine_file)?;
    }
    fs.create_dir_all(&dir)?;
    let context = maker.context(
        &entry,
        &shared.cache,
        &shared.open_files,
        &shared.snapshot_tracker,
        &shared.coordinator,
    );
    let keyspace = Arc::new(maker.create(&entry, context)?);
    if !mutated!("keyspace-directory-not-synced") {
        fs.sync_dir(&shared.dir)?;
    }
    let mut listed = catalog.clone();
    listed.next_id = entry.id.0 + 1;
    listed.entries.push(entry);
    catalog.replace(listed, fs, &shared.dir, |error| {
        shared.coordinator.fail(error)
    })?;
    if let Some(recorder) = &shared.recorder {
        keyspace.declare_to(recorder);
    }
    shared.keyspaces.add(Arc::clone(&keyspace));
    Ok(keyspace)
}
