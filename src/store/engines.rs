//! Making engines: the only file that names both.

use std::path::Path;
use std::sync::Arc;

use super::catalog::{CatalogEntry, keyspace_dir};
use super::coordinator::Coordinator;
use super::keyspaces::{KeyspaceFiles, LiveOptions, OpenKeyspace, remove_leftover_files};
use super::shared::Shared;
use super::wal_manifest::WalManifest;
use crate::btree;
use crate::btree::BTreeEngine;
use crate::cache::BlockCache;
use crate::engine::{Engine, EngineContext, SnapshotTracker};
use crate::error::Result;
use crate::fs::{Fs, OpenFiles};
use crate::lsm;
use crate::lsm::LsmEngine;
use crate::options::{EngineKind, KeyspaceSettings, Options};
use crate::resolve::Resolver;
use crate::types::KeyspaceId;
use crate::util::gate::Gate;
use crate::util::mutants::mutated;
use crate::values::ValueFiles;

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
    pub(super) cache: &'a Arc<BlockCache>,
    pub(super) open_files: &'a Arc<OpenFiles>,
    pub(super) values: &'a Arc<ValueFiles>,
    pub(super) snapshot_tracker: &'a Arc<SnapshotTracker>,
    pub(super) coordinator: &'a Arc<Coordinator>,
}

impl EngineMaker<'_> {
    /// The keyspace of `entry` with the files that it has, which may be none. Adds it to `strays`
    /// if there may be something that [`remove_strays`] removes.
    pub(super) fn open(
        &self,
        entry: &CatalogEntry,
        strays: &mut Vec<KeyspaceId>,
    ) -> Result<OpenKeyspace> {
        self.keyspace(entry, |context| {
            if may_have_strays(&context, entry.options.engine)? {
                strays.push(entry.id);
            }
            match entry.options.engine {
                EngineKind::Lsm => Ok(LsmEngine::open(context)?),
                EngineKind::BTree => BTreeEngine::open(context),
            }
        })
    }

    /// The keyspace of `entry`, which is new and has no files. Nothing is made on the disk.
    fn create(&self, entry: &CatalogEntry) -> Result<OpenKeyspace> {
        self.keyspace(entry, |context| match entry.options.engine {
            EngineKind::Lsm => Ok(LsmEngine::create(context)?),
            EngineKind::BTree => BTreeEngine::create(context),
        })
    }

    fn keyspace(
        &self,
        entry: &CatalogEntry,
        engine: impl FnOnce(EngineContext) -> Result<Arc<dyn Engine>>,
    ) -> Result<OpenKeyspace> {
        let options = entry.options.clone().with_defaults();
        let store_write_buffer_bytes = self.options.write_buffer_bytes;
        let settings = Arc::new(KeyspaceSettings::new(&options, store_write_buffer_bytes));
        let resolver = Arc::new(Resolver::new(
            self.options
                .operator_of(&entry.name, options.merge_operator.as_deref())?,
            self.options
                .filter_of(&entry.name, options.compaction_filter.as_deref())?,
            options.expiry == Some(true),
            options.default_ttl_ms(),
            Arc::clone(self.snapshot_tracker.clock()),
        ));
        let fs = &self.options.fs;
        let dir = keyspace_dir(self.dir, entry.id);
        let files = Arc::new(KeyspaceFiles::new(
            Arc::clone(fs),
            dir.clone(),
            is_engine_file,
            Arc::clone(self.gate),
        ));
        let context = EngineContext {
            fs: Arc::clone(fs),
            open_files: Arc::clone(self.open_files),
            dir,
            keep: Arc::clone(&files) as _,
            store_id: self.store_id,
            keyspace: entry.id,
            snapshot_tracker: Arc::clone(self.snapshot_tracker),
            values: Arc::clone(self.values),
            cache: Arc::clone(self.cache),
            options: Arc::clone(&settings),
            resolver: Arc::clone(&resolver),
            use_mmap: self.options.mmap_reads,
            read_only: self.options.read_only,
            persisted_watermark: self.wal_manifest.persisted_watermark(entry.id),
            host: Arc::clone(self.coordinator) as _,
        };
        let engine = engine(context)?;
        let options = LiveOptions::new(options, settings, store_write_buffer_bytes);
        Ok(OpenKeyspace::new(
            entry.id,
            &entry.name,
            options,
            resolver,
            engine,
            files,
            Arc::clone(self.snapshot_tracker),
        ))
    }
}

/// True if the keyspace of `context` has a directory and no files yet.
fn may_have_strays(context: &EngineContext, engine: EngineKind) -> Result<bool> {
    let main_file = match engine {
        EngineKind::Lsm => lsm::CURRENT,
        EngineKind::BTree => btree::FILE_NAME,
    };
    let (fs, dir) = (&*context.fs, &context.dir);
    Ok(!context.read_only
        && context.may_lack_files()
        && fs.exists(dir)?
        && !fs.exists(&dir.join(main_file))?
        && !mutated!("strays-stay"))
}

/// Removes what was in the directory of a keyspace that had no files when it was opened, after a
/// recovery that has succeeded: what was being made, and what is of another keyspace, of the other
/// engine, that had the number until a power loss undid its making. By now the keyspace may have
/// files, which the replay has made; strays with such names an LSM tree knows and removes itself.
pub(super) fn remove_strays(fs: &dyn Fs, dir: &Path, engine: EngineKind) -> Result<()> {
    let is_stray = |name: &str| match engine {
        EngineKind::Lsm => btree::is_own_file(name),
        EngineKind::BTree => is_engine_file(name) && name != btree::FILE_NAME,
    };
    if !fs.exists(dir)? {
        return Ok(());
    }
    let mut names = fs.read_dir(dir)?;
    names.retain(|name| is_stray(name));
    if names.is_empty() {
        return Ok(());
    }
    for name in names {
        fs.remove_file(&dir.join(name))?;
    }
    // For good: later openings do not look for them beside files.
    fs.sync_dir(dir)
}

/// Makes the keyspace of `entry`, in memory.
pub(super) fn make_keyspace(shared: &Shared, entry: &CatalogEntry) -> Result<OpenKeyspace> {
    let fs = &*shared.options.fs;
    let dir = keyspace_dir(&shared.dir, entry.id);
    if fs.exists(&dir)? {
        // Left by a keyspace whose making a power loss has undone: its number was not used up.
        remove_leftover_files(fs, &dir, is_engine_file)?;
    }
    let maker = EngineMaker {
        options: &shared.options,
        dir: &shared.dir,
        store_id: shared.store_id,
        // The number is new, so it has no watermark.
        wal_manifest: &WalManifest::default(),
        gate: &shared.gate,
        cache: &shared.cache,
        open_files: &shared.open_files,
        values: &shared.values,
        snapshot_tracker: &shared.snapshot_tracker,
        coordinator: &shared.coordinator,
    };
    let made = maker.create(entry)?;
    made.resolver.recovered();
    Ok(made)
}
