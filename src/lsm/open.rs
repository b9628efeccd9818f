//! Opening a tree: from the manifest and the files in the directory to an engine.
//!
//! The manifest says which tables count; every one is opened and checked. Our files that it does
//! not name are what a crash left of a flush, a compaction or a new manifest, or tables of a bulk
//! load that the log has a record of. What that has no record of either is removed when the store
//! has recovered: an opening that fails takes nothing away, but what is in the way of a flush
//! during the replay in a keyspace that has no files yet. Files that the replay makes have other
//! names: a manifest's number is one that no file has, a table's is above all that there are.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use parking_lot::{Condvar, Mutex};

use super::empty_ranges::EmptyRanges;
use super::manifest::{Contents, Identity, Manifest, NUMBER_END};
use super::memtable::Memtable;
use super::obsolete_files::{CURRENT, FileName, ObsoleteFiles, parse_name, table_name};
use super::pressure::Drain;
use super::state::{Counters, LsmEngine, memtable_bytes};
use super::superversion::Superversion;
use super::table::{Table, TableContext};
use super::table_handle::TableHandle;
use super::version::{Version, VersionEdit};
use crate::engine::EngineContext;
use crate::error::{Error, Result};
use crate::format::checksum::seed_of;
use crate::resolve::NEVER;
use crate::types::FileId;
use crate::util::mutants::mutated;

/// Separates the checksums of tables from others'.
const SEED_TABLES: u64 = u64::from_le_bytes(*b"lsmtable");

impl LsmEngine {
    /// Makes a new, empty tree. There are no files before its first flush.
    pub(crate) fn create(ctx: EngineContext) -> Result<Arc<Self>> {
        let manifest = Manifest::unwritten(Arc::clone(&ctx.fs), &ctx.dir, identity(&ctx));
        Self::with_manifest(ctx, manifest, Contents::default())
    }

    /// Opens the tree in `ctx.dir`. It holds exactly what was persisted.
    pub(crate) fn open(ctx: EngineContext) -> Result<Arc<Self>> {
        if ctx.may_lack_files() && !ctx.fs.exists(&ctx.dir.join(CURRENT))? {
            return Self::create(ctx);
        }
        let (manifest, contents) = Manifest::open(
            Arc::clone(&ctx.fs),
            &ctx.dir,
            identity(&ctx),
            ctx.persisted_watermark,
            ctx.read_only,
        )?;
        Self::with_manifest(ctx, manifest, contents)
    }

    fn with_manifest(
        ctx: EngineContext,
        mut manifest: Manifest,
        contents: Contents,
    ) -> Result<Arc<Self>> {
        let obsolete_files = Arc::new(ObsoleteFiles::new(&ctx));
        let table_ctx = TableContext {
            fs: Arc::clone(&ctx.fs),
            open_files: Arc::clone(&ctx.open_files),
            cache: Arc::clone(&ctx.cache),
            use_mmap: ctx.use_mmap,
            blocks_read: Arc::default(),
            tree_bytes: Arc::default(),
            seed: seed_of(&[SEED_TABLES, ctx.store_id, ctx.keyspace.0.into()]),
        };
        manifest.limit_open(&ctx.open_files);
        let (next_file, strays) = find_strays(&ctx, &manifest, &contents)?;

        let mut edit = VersionEdit::default();
        for (level, metas) in contents.levels.iter().enumerate() {
            for meta in metas {
                let path = ctx.dir.join(table_name(meta.id));
                if meta.largest_seq > contents.persisted_seq {
                    let what = "the table holds operations above the persisted sequence number";
                    return Err(Error::corruption(&path, 0, what));
                }
                let table = Table::open(&table_ctx, &path, meta).map_err(|error| {
                    if error.is_not_found() {
                        Error::corruption(&path, 0, "a table that the manifest names is missing")
                    } else {
                        error
                    }
                })?;
                let handle = TableHandle::new(table, Arc::clone(&obsolete_files), &ctx.values)?;
                edit.added.push((level, Arc::new(handle)));
            }
        }
        let version = Version::default().apply(&edit);
        if let Some(problem) = version.problems().into_iter().next() {
            return Err(Error::corruption(&ctx.dir, 0, problem));
        }

        table_ctx
            .tree_bytes
            .store(version.bytes(), Ordering::Relaxed);
        let empty_ranges = Arc::new(EmptyRanges::new(contents.persisted_seq));
        let superversion = Superversion {
            active: Arc::new(Memtable::new(
                ctx.options.memtable(),
                memtable_bytes(ctx.options.write_buffer_bytes()),
                Arc::clone(&ctx.resolver),
            )),
            immutable: Vec::new(),
            version: Arc::new(version),
            empty_ranges: Arc::clone(&empty_ranges),
            values: Arc::clone(&ctx.values),
            resolver: Arc::clone(&ctx.resolver),
        };
        Ok(Arc::new(Self {
            table_ctx,
            block_size_bytes: manifest.identity().block_size_bytes,
            obsolete_files,
            level0_tables: AtomicUsize::new(superversion.version.level(0).tables().len()),
            level0_settled: AtomicUsize::new(0),
            drain: Drain::default(),
            current: Arc::new(ArcSwap::from_pointee(superversion)),
            switch: Mutex::default(),
            empty_ranges,
            flushing: Mutex::default(),
            manifest: Mutex::new(manifest),
            unnamed: Mutex::default(),
            prepared_load: Mutex::default(),
            applied_load: Mutex::default(),
            unpersisted_load: AtomicU64::new(0),
            strays: Mutex::new(strays),
            compactions: Mutex::default(),
            job_ended: Condvar::new(),
            retired: Mutex::default(),
            next_file: AtomicU64::new(next_file.0),
            persisted: AtomicU64::new(contents.persisted_seq.0),
            immutable_bytes: AtomicU64::new(0),
            settled: Mutex::default(),
            compaction_due: AtomicBool::new(!ctx.read_only),
            next_release: AtomicU64::new(u64::MAX),
            next_expiry_ms: AtomicU64::new(NEVER),
            counters: Counters::default(),
            ctx,
        }))
    }
}

impl LsmEngine {
    /// Makes the directory for the first file, empty.
    pub(super) fn make_dir(&self) -> Result<()> {
        self.ctx.keep.make_dir()?;
        // They are gone, and what has their names from now on is none.
        if !mutated!("strays-known-in-an-empty-directory") {
            self.strays.lock().clear();
        }
        Ok(())
    }

    /// Removes what opening has found and neither the manifest nor the log names (LL4).
    pub(super) fn remove_strays(&self) -> Result<()> {
        let strays = std::mem::take(&mut *self.strays.lock());
        match self.ctx.read_only || mutated!("orphans-stay") {
            true => Ok(()),
            false => remove(&self.ctx, strays),
        }
    }
}

/// What the manifest of the keyspace must name.
pub(super) fn identity(ctx: &EngineContext) -> Identity {
    Identity {
        store_id: ctx.store_id,
        keyspace: ctx.keyspace,
        block_size_bytes: ctx.options.block_size_bytes,
    }
}

/// Finds our files that nothing names, and that a crash has left: see [`LsmEngine::remove_strays`].
/// Foreign names are left alone. Also returns the first file number that no table has.
fn find_strays(
    ctx: &EngineContext,
    manifest: &Manifest,
    contents: &Contents,
) -> Result<(FileId, Vec<FileName>)> {
    let known: HashSet<FileId> = contents
        .levels
        .iter()
        .flatten()
        .map(|meta| meta.id)
        .collect();
    let mut next_file = contents.next_file;
    let mut strays = Vec::new();
    if !manifest.is_written() && !ctx.fs.exists(&ctx.dir)? {
        return Ok((next_file, strays));
    }
    for name in ctx.fs.read_dir(&ctx.dir)? {
        let Some(name) = parse_name(&name) else {
            continue;
        };
        let is_stray = match name {
            FileName::Table(id) if id.0 >= NUMBER_END => {
                let what = "no table can have this number";
                return Err(Error::corruption(&ctx.dir.join(table_name(id)), 0, what));
            }
            FileName::Table(id) => {
                // Even if removing it fails, its number is not used again.
                next_file = next_file.max(FileId(id.0.saturating_add(1)));
                !known.contains(&id)
            }
            FileName::Manifest(number) => number != manifest.number(),
            FileName::CurrentTemporary => true,
            FileName::Current => false,
        };
        if is_stray {
            strays.push(name);
        }
    }
    if !ctx.read_only && mutated!("orphans-removed-before-recovery") {
        remove(ctx, std::mem::take(&mut strays))?;
    }
    Ok((next_file, strays))
}

/// Removes `files`, of which some may have gone.
fn remove(ctx: &EngineContext, files: Vec<FileName>) -> Result<()> {
    for file in files {
        match ctx.fs.remove_file(&ctx.dir.join(file.to_string())) {
            Err(error) if error.is_not_found() => {}
            removed => removed?,
        }
    }
    Ok(())
}
