//! The engine: memtables and tables put together.
//!
//! # State and who may change it
//!
//! ```text
//!   apply ──────► active memtable ──rotate──► immutable memtables ──flush──► level 0 ──compact──► level 1..6
//!                       └────────────── Superversion ─────────────────────────── Version ───────┘
//! ```
//!
//! - `current`, the superversion, is an atomic pointer. Readers load it and take no lock. Who replaces it
//!   holds `switch`, for a few instructions.
//! - The recorder of `dead` is held by `apply` while it inserts, and by whoever rotates, so that no insert goes to a
//!   memtable that has become immutable. Rotation happens between batches, so a flush persists whole
//!   batches.
//! - `flushing`, then `manifest`, are held over I/O: by background work and by callers of `flush` and `compact`,
//!   who want to wait. No reader and no `apply` ever takes them.
//! - `compactions` says what running jobs work on; held briefly.
//!
//! Lock order: `flushing`, `manifest`, the recorder, `switch`. `compactions` is taken alone.
//!
//! # Invariants
//!
//! - **L1** The version is only replaced with `manifest` held, after the edit is durable; so versions follow
//!   one another in the order of the manifest's edits.
//! - **L2** Memtables are flushed oldest first, one at a time; so level 0 and `persisted` grow in commit order (E2).
//! - **L3** Before a flush's edit is appended, the log holds everything up to the memtable's last operation,
//!   durably (E3).
//! - **L4** A memtable leaves the superversion in the same swap in which its table enters: a read finds
//!   every operation in one of them.
//!
//! A step of background work that fails changes nothing in memory and can be tried again.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;
use parking_lot::{Condvar, Mutex};

use super::compaction::job::Job;
use super::compaction::picker::{FileInfo, Limits, Pick, Span, Tree};
use super::dead::{DeadZones, Recorder};
use super::files::{FileName, Reaper, parse_name, table_name};
use super::flush::write_table;
use super::manifest::{Contents, Edit, Identity, Manifest};
use super::memtable::Memtable;
use super::output::OutputContext;
use super::retention::Boundaries;
use super::table::{Table, TableContext, TableMeta, TableOptions};
use super::version::{LEVELS, TableHandle, Version, VersionEdit};
use super::view::{ScanView, SnapshotView, Superversion};
use crate::engine::{
    Engine, EngineContext, EngineStats, LevelStats, Pressure, Problem, ReadView, VerifyReport, Work,
};
use crate::error::{Error, Result};
use crate::format::checksum::seed_of;
use crate::options::Compression;
use crate::types::{FileId, SeqNo, SequencedOp, Value};
use crate::util::mutants::mutated;

/// Tables in level 0 that make a compaction due.
const LEVEL0_TRIGGER: usize = 4;
/// Tables in level 0 from which on writers are slowed, and at which they are slowed most.
const LEVEL0_SLOW: usize = 8;
const LEVEL0_SLOWEST: usize = 20;
/// How many times larger each level is than the one above.
const SIZE_RATIO: u64 = 10;
/// The base level's largest target, in flushes: four times what level 0 brings at once. Merging a batch into a
/// level four times its size rewrites less than one more level would.
const BASE_FLUSHES: u64 = 4 * LEVEL0_TRIGGER as u64;
/// Bits of filter for each key: about one false positive in a hundred.
const FILTER_BITS_PER_KEY: u32 = 10;
/// Budget of memtables if the context names none.
/// Separates the checksums of tables from others'.
const SEED_TABLES: u64 = u64::from_le_bytes(*b"lsmtable");

/// The LSM tree of one keyspace.
#[derive(Debug)]
pub(crate) struct LsmEngine {
    // Constant.
    ctx: EngineContext,
    table_ctx: TableContext,
    block_size_bytes: u32,
    reaper: Arc<Reaper>,

    /// Shared with snapshots.
    current: Arc<ArcSwap<Superversion>>,
    switch: Mutex<()>,
    dead: Arc<DeadZones>,
    flushing: Mutex<()>,
    manifest: Mutex<Manifest>,
    /// Tables that an edit would have added which failed. Changed with the manifest locked.
    unnamed: Mutex<Vec<FileId>>,
    compactions: Mutex<Compactions>,
    /// Signalled when a job ends.
    job_ended: Condvar,
    /// Flushed memtables that a reader may still hold: dropping one takes long, so it is left to
    /// background work.
    retired: Mutex<Vec<Arc<Memtable>>>,

    next_file: AtomicU64,
    persisted: AtomicU64,
    /// Bytes of the immutable memtables.
    immutable_bytes: AtomicU64,
    level0_tables: AtomicUsize,
    /// The version in which every key has one entry in one bottom run, if that is known: the last `compact` made it,
    /// while no snapshot was live. Only compared with the current one. Weak, so that it keeps no files.
    settled: Mutex<Weak<Version>>,
    /// Something has changed since a pick found nothing.
    compaction_due: AtomicBool,
    counters: Counters,
}

/// What running compactions work on.
#[derive(Debug, Default)]
struct Compactions {
    busy: HashSet<FileId>,
    spans: Vec<Span>,
    /// `compact` wants the tree to itself.
    is_exclusive: bool,
}

#[derive(Debug, Default)]
struct Counters {
    flush_bytes: AtomicU64,
    flushes: AtomicU64,
    compaction_bytes: AtomicU64,
    compactions: AtomicU64,
}

impl LsmEngine {
    /// Makes a new, empty tree in `ctx.dir`, durably.
    pub(crate) fn create(ctx: EngineContext) -> Result<Arc<Self>> {
        let manifest = Manifest::create(Arc::clone(&ctx.fs), &ctx.dir, identity(&ctx))?;
        Self::with_manifest(ctx, manifest, Contents::default())
    }

    /// Opens the tree in `ctx.dir`. It holds exactly what was persisted.
    pub(crate) fn open(ctx: EngineContext) -> Result<Arc<Self>> {
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
        manifest: Manifest,
        contents: Contents,
    ) -> Result<Arc<Self>> {
        let reaper = Reaper::new(Arc::clone(&ctx.fs), &ctx.dir, Arc::clone(&ctx.host));
        let reaper = Arc::new(reaper);
        let table_ctx = TableContext {
            fs: Arc::clone(&ctx.fs),
            cache: Arc::clone(&ctx.cache),
            use_mmap: ctx.use_mmap,
            blocks_read: Arc::default(),
            tree_bytes: Arc::default(),
            seed: seed_of(&[SEED_TABLES, ctx.store_id, ctx.keyspace.0.into()]),
        };
        let next_file = remove_orphans(&ctx, &manifest, &contents)?;

        let mut edit = VersionEdit::default();
        for (level, metas) in contents.levels.iter().enumerate() {
            for meta in metas {
                let path = ctx.dir.join(table_name(meta.id));
                if meta.largest_seq > contents.persisted_seq {
                    let what = "the table holds operations above what the manifest calls persisted";
                    return Err(Error::corruption(&path, 0, what));
                }
                let table = Table::open(&table_ctx, &path, meta).map_err(|error| {
                    if error.is_not_found() {
                        Error::corruption(&path, 0, "a table that the manifest names is missing")
                    } else {
                        error
                    }
                })?;
                let handle = TableHandle::new(table, Arc::clone(&reaper));
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
        let dead = Arc::new(DeadZones::new(contents.persisted_seq));
        let superversion = Superversion {
            active: Arc::new(Memtable::new(ctx.options.memtable())),
            immutable: Vec::new(),
            version: Arc::new(version),
            dead: Arc::clone(&dead),
        };
        Ok(Arc::new(Self {
            table_ctx,
            block_size_bytes: manifest.identity().block_size_bytes,
            reaper,
            level0_tables: AtomicUsize::new(superversion.version.level(0).tables().len()),
            current: Arc::new(ArcSwap::from_pointee(superversion)),
            switch: Mutex::default(),
            dead,
            flushing: Mutex::default(),
            manifest: Mutex::new(manifest),
            unnamed: Mutex::default(),
            compactions: Mutex::default(),
            job_ended: Condvar::new(),
            retired: Mutex::default(),
            next_file: AtomicU64::new(next_file.0),
            persisted: AtomicU64::new(contents.persisted_seq.0),
            immutable_bytes: AtomicU64::new(0),
            settled: Mutex::default(),
            compaction_due: AtomicBool::new(!ctx.read_only),
            counters: Counters::default(),
            ctx,
        }))
    }

    fn superversion(&self) -> Arc<Superversion> {
        self.current.load_full()
    }

    fn check_writable(&self) -> Result<()> {
        if self.ctx.read_only {
            return Err(Error::ReadOnly);
        }
        Ok(())
    }

    fn take_file_id(&self) -> FileId {
        FileId(self.next_file.fetch_add(1, Ordering::SeqCst))
    }

    fn output_context<'a>(
        &'a self,
        compression: Compression,
        next_id: &'a dyn Fn() -> FileId,
    ) -> OutputContext<'a> {
        OutputContext {
            fs: &self.ctx.fs,
            dir: self.ctx.dir.clone(),
            seed: self.table_ctx.seed,
            options: TableOptions {
                block_size_bytes: self.block_size_bytes,
                compression,
                filter_bits_per_key: FILTER_BITS_PER_KEY,
            },
            next_id,
        }
    }

    /// Makes the names of new tables durable, and opens them.
    fn open_outputs(&self, metas: &[TableMeta]) -> Result<Vec<Arc<TableHandle>>> {
        let open = |meta: &TableMeta| {
            let path = self.ctx.dir.join(table_name(meta.id));
            let table = Table::open(&self.table_ctx, &path, meta)?;
            Ok(Arc::new(TableHandle::new(table, Arc::clone(&self.reaper))))
        };
        let opened = if metas.is_empty() {
            Ok(Vec::new())
        } else {
            let synced = match mutated!("table-name-not-synced") {
                true => Ok(()),
                false => self.ctx.fs.sync_dir(&self.ctx.dir),
            };
            synced.and_then(|()| metas.iter().map(open).collect())
        };
        if opened.is_err() {
            // No edit names them yet.
            for meta in metas {
                let _ = self
                    .ctx
                    .fs
                    .remove_file(&self.ctx.dir.join(table_name(meta.id)));
            }
        }
        opened
    }

    /// Makes `edit` durable, then current (L1). `flushed` is the memtable whose table it adds. Returns the new
    /// version.
    ///
    /// If the edit fails, its outputs stay: the manifest's file may have the edit even so, and then names them. They
    /// go once an edit has worked, which began a new manifest (F5).
    fn install(&self, edit: &VersionEdit, flushed: Option<&Arc<Memtable>>) -> Result<Arc<Version>> {
        let mut manifest = self.manifest.lock();
        let version = Arc::new(self.current.load().version.apply(edit));
        let persisted = edit.persisted_seq.unwrap_or(self.persisted_seq());
        let next_file = FileId(self.next_file.load(Ordering::Relaxed));
        let stored = Edit {
            persisted_seq: edit.persisted_seq,
            next_file: Some(next_file),
            removed: edit.removed.clone(),
            added: edit
                .added
                .iter()
                .map(|(level, t)| (*level, t.meta().clone()))
                .collect(),
        };
        let stays = |id: FileId| edit.added.iter().any(|(_, table)| table.id() == id);
        let is_new = |id: FileId| edit.removed.iter().all(|(_, removed)| *removed != id);
        let appended = manifest.append(&stored, || contents_of(&version, persisted, next_file));
        let mut unnamed = self.unnamed.lock();
        if let Err(error) = appended {
            let added = edit.added.iter().map(|(_, table)| table.id());
            unnamed.extend(added.filter(|id| is_new(*id)));
            return Err(error);
        }
        unnamed.drain(..).for_each(|id| self.reaper.doom(id));
        drop(unnamed);

        self.persisted.store(persisted.0, Ordering::Release);
        let old = {
            let _switch = self.switch.lock();
            let old = self.current.load_full();
            let mut immutable = old.immutable.clone();
            if mutated!("all-memtables-dropped-by-one-flush") && flushed.is_some() {
                immutable.truncate(1);
            }
            if let Some(flushed) = flushed {
                let oldest = immutable.pop();
                debug_assert!(oldest.is_some_and(|oldest| Arc::ptr_eq(&oldest, flushed)));
            }
            self.level0_tables
                .store(version.level(0).tables().len(), Ordering::Relaxed);
            self.table_ctx
                .tree_bytes
                .store(version.bytes(), Ordering::Relaxed);
            self.note_immutable(&immutable);
            self.current.store(Arc::new(Superversion {
                active: Arc::clone(&old.active),
                immutable,
                version: Arc::clone(&version),
                dead: Arc::clone(&old.dead),
            }));
            old
        };
        for (level, id) in &edit.removed {
            if !stays(*id) {
                let tables = old.version.level(*level).tables();
                let left = tables.iter().find(|table| table.id() == *id);
                left.expect("removed from the version it was in")
                    .mark_obsolete();
            }
        }
        if let Some(flushed) = flushed {
            self.retired.lock().push(Arc::clone(flushed));
        }
        self.compaction_due.store(true, Ordering::Release);
        Ok(version)
    }

    fn note_immutable(&self, immutable: &[Arc<Memtable>]) {
        let bytes = immutable.iter().map(|memtable| memtable.size_bytes()).sum();
        self.immutable_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Makes the active memtable immutable, if it holds anything. The guard keeps `apply` away.
    fn rotate(&self, _recorder: &parking_lot::MutexGuard<'_, Recorder>) {
        let fresh = Arc::new(Memtable::new(self.ctx.options.memtable()));
        let _switch = self.switch.lock();
        let old = self.current.load_full();
        if old.active.first_seq().is_none() {
            return;
        }
        let mut immutable = Vec::with_capacity(old.immutable.len() + 1);
        immutable.push(Arc::clone(&old.active));
        immutable.extend_from_slice(&old.immutable);
        self.note_immutable(&immutable);
        self.current.store(Arc::new(Superversion {
            active: fresh,
            immutable,
            version: Arc::clone(&old.version),
            dead: Arc::clone(&old.dead),
        }));
    }

    /// Persists the oldest immutable memtable (L2). False if there is none.
    fn flush_oldest(&self) -> Result<bool> {
        let _flushing = self.flushing.lock();
        let Some(memtable) = self.current.load().immutable.last().cloned() else {
            return Ok(false);
        };
        let boundaries = Boundaries::new(self.ctx.snapshot_tracker.live());
        let next_id = || self.take_file_id();
        // Uncompressed: the table is rewritten soon, and the newest data is read most.
        let output = self.output_context(Compression::None, &next_id);
        let meta = write_table(&memtable, &boundaries, output)?;
        let added = self.open_outputs(meta.as_slice())?;
        // L3. After the table is written, because by then the log has mostly been synced anyway.
        let durable = match mutated!("table-installed-before-its-log-is-durable") {
            true => Ok(()),
            false => self.ctx.host.make_durable(memtable.last_seq()),
        };
        if let Err(error) = durable {
            self.remove_outputs(added);
            return Err(error);
        }
        let edit = VersionEdit {
            removed: Vec::new(),
            added: added.into_iter().map(|table| (0, table)).collect(),
            persisted_seq: Some(memtable.last_seq()),
        };
        self.install(&edit, Some(&memtable))?;
        let bytes = meta.map_or(0, |meta| meta.size_bytes);
        self.counters
            .flush_bytes
            .fetch_add(bytes, Ordering::Relaxed);
        self.counters.flushes.fetch_add(1, Ordering::Relaxed);
        self.ctx.host.progressed();
        Ok(true)
    }

    /// Removes tables that no edit ever named.
    fn remove_outputs(&self, tables: Vec<Arc<TableHandle>>) {
        tables.iter().for_each(|table| table.mark_obsolete());
    }

    fn limits(&self) -> Limits {
        let flush_bytes = memtable_bytes(self.ctx.options.write_buffer_bytes());
        Limits {
            level0_trigger: LEVEL0_TRIGGER,
            base_bytes: (BASE_FLUSHES * flush_bytes).max(self.ctx.options.table_size_bytes()),
            size_ratio: SIZE_RATIO,
            // Level 0 is not compressed: the rewrite on the way down is when that happens.
            moves_from_level0: self.ctx.options.compression() == Compression::None,
        }
    }

    /// Does the compaction that is due most. False if there is none.
    fn compact_once(&self) -> Result<bool> {
        let (pick, version) = {
            let mut compactions = self.compactions.lock();
            if compactions.is_exclusive {
                return Ok(false);
            }
            self.compaction_due.store(false, Ordering::Release);
            // With the lock held: a job that ends now leaves its marks until its outputs are installed.
            let version = Arc::clone(&self.current.load().version);
            let Some(pick) = tree_of(&version, &compactions).pick(&self.limits()) else {
                return Ok(false);
            };
            compactions
                .busy
                .extend(pick.inputs.iter().map(|(_, id)| *id));
            compactions.spans.push(pick.span.clone());
            (pick, version)
        };
        let _running = RunningJob {
            engine: self,
            pick: &pick,
        };
        // Another thread may find more to do beside this.
        self.compaction_due.store(true, Ordering::Release);
        let inputs: Vec<_> = pick
            .inputs
            .iter()
            .map(|(level, id)| {
                let tables = version.level(*level).tables();
                let table = tables.iter().find(|table| table.id() == *id);
                (*level, Arc::clone(table.expect("picked from this version")))
            })
            .collect();
        let boundaries = Boundaries::new(self.ctx.snapshot_tracker.live());
        self.run_job(
            &version,
            &inputs,
            &boundaries,
            pick.output_level,
            pick.is_move,
        )?;
        Ok(true)
    }

    /// Compacts `inputs` into `output_level` and installs the result, which is returned.
    fn run_job(
        &self,
        version: &Version,
        inputs: &[(usize, Arc<TableHandle>)],
        boundaries: &Boundaries,
        output_level: usize,
        is_move: bool,
    ) -> Result<Arc<Version>> {
        let added = if is_move {
            inputs.iter().map(|(_, table)| Arc::clone(table)).collect()
        } else {
            let job = Job {
                version,
                inputs,
                output_level,
                boundaries,
                table_size_bytes: self.ctx.options.table_size_bytes(),
            };
            let next_id = || self.take_file_id();
            let compression = self.ctx.options.compression();
            let metas = job.run(self.output_context(compression, &next_id))?;
            let bytes = metas.iter().map(|meta| meta.size_bytes).sum();
            self.counters
                .compaction_bytes
                .fetch_add(bytes, Ordering::Relaxed);
            self.open_outputs(&metas)?
        };
        let edit = VersionEdit {
            removed: inputs
                .iter()
                .map(|(level, table)| (*level, table.id()))
                .collect(),
            added: added
                .into_iter()
                .map(|table| (output_level, table))
                .collect(),
            persisted_seq: None,
        };
        if mutated!("inputs-removed-before-the-edit") && !is_move {
            for (_, table) in inputs {
                let name = table_name(table.id());
                let _ = self.ctx.fs.remove_file(&self.ctx.dir.join(name));
            }
        }
        let installed = self.install(&edit, None)?;
        self.counters.compactions.fetch_add(1, Ordering::Relaxed);
        self.ctx.host.progressed();
        Ok(installed)
    }

    /// True if a retired memtable has no reader left.
    fn has_garbage(&self) -> bool {
        self.reaper.is_due()
            || self
                .retired
                .lock()
                .iter()
                .any(|memtable| Arc::strong_count(memtable) == 1)
    }

    /// Frees memtables and removes files that nothing reads any more.
    fn collect_garbage(&self) {
        let free: Vec<_> = {
            let mut retired = self.retired.lock();
            retired
                .extract_if(.., |memtable| Arc::strong_count(memtable) == 1)
                .collect()
        };
        drop(free);
        if !self.ctx.read_only {
            self.reaper.reap();
        }
    }
}

/// Marks that end with the job, however it ends.
struct RunningJob<'a> {
    engine: &'a LsmEngine,
    pick: &'a Pick,
}

impl Drop for RunningJob<'_> {
    fn drop(&mut self) {
        let mut compactions = self.engine.compactions.lock();
        for (_, id) in &self.pick.inputs {
            compactions.busy.remove(id);
        }
        let spans = &mut compactions.spans;
        let at = spans.iter().position(|span| *span == self.pick.span);
        spans.swap_remove(at.expect("pushed when the job began"));
        drop(compactions);
        self.engine.compaction_due.store(true, Ordering::Release);
        self.engine.job_ended.notify_all();
    }
}

/// Keeps other compactions away while it lives.
struct Exclusive<'a>(&'a LsmEngine);

impl<'a> Exclusive<'a> {
    /// Waits for running jobs to end.
    fn begin(engine: &'a LsmEngine) -> Self {
        let mut compactions = engine.compactions.lock();
        while compactions.is_exclusive {
            engine.job_ended.wait(&mut compactions);
        }
        compactions.is_exclusive = true;
        while !compactions.spans.is_empty() {
            engine.job_ended.wait(&mut compactions);
        }
        Self(engine)
    }
}

impl Drop for Exclusive<'_> {
    fn drop(&mut self) {
        self.0.compactions.lock().is_exclusive = false;
        self.0.compaction_due.store(true, Ordering::Release);
        self.0.job_ended.notify_all();
        self.0.ctx.host.wake();
    }
}

/// Half of the budget: one memtable fills while another is flushed.
fn memtable_bytes(write_buffer_bytes: u64) -> u64 {
    write_buffer_bytes / 2
}

fn identity(ctx: &EngineContext) -> Identity {
    Identity {
        store_id: ctx.store_id,
        keyspace: ctx.keyspace,
        block_size_bytes: ctx.options.block_size_bytes,
    }
}

fn contents_of(version: &Version, persisted_seq: SeqNo, next_file: FileId) -> Contents {
    let metas = |level: usize| {
        version
            .level(level)
            .tables()
            .iter()
            .map(|t| t.meta().clone())
    };
    Contents {
        persisted_seq,
        next_file,
        levels: std::array::from_fn(|level| metas(level).collect()),
    }
}

fn tree_of<'a>(version: &'a Version, compactions: &'a Compactions) -> Tree<'a> {
    let info = |table: &'a Arc<TableHandle>| {
        let meta = table.meta();
        FileInfo {
            id: meta.id,
            size_bytes: meta.size_bytes,
            smallest: &meta.smallest_key,
            largest: meta.largest_key.as_ref().map(Vec::as_slice),
            entries: meta.entries,
            deletes: meta.deletes,
            range_tombstones: meta.range_tombstones,
            is_busy: compactions.busy.contains(&meta.id),
        }
    };
    Tree {
        levels: std::array::from_fn(|level| {
            version.level(level).tables().iter().map(info).collect()
        }),
        running: &compactions.spans,
    }
}

/// Removes our files that nothing names: what a crash left of a flush, a compaction or a new manifest. Foreign
/// names are left alone. Returns the first file number that no file has.
fn remove_orphans(ctx: &EngineContext, manifest: &Manifest, contents: &Contents) -> Result<FileId> {
    let known: HashSet<FileId> = contents
        .levels
        .iter()
        .flatten()
        .map(|meta| meta.id)
        .collect();
    let mut next_file = contents.next_file;
    for name in ctx.fs.read_dir(&ctx.dir)? {
        let is_orphan = match parse_name(&name) {
            Some(FileName::Table(id)) => {
                // Even if removing it fails, its number is not used again.
                next_file = next_file.max(FileId(id.0.saturating_add(1)));
                !known.contains(&id)
            }
            Some(FileName::Manifest(number)) => number != manifest.number(),
            Some(FileName::CurrentTemporary) => true,
            Some(FileName::Current) | None => false,
        };
        if is_orphan && !ctx.read_only && !mutated!("orphans-stay") {
            ctx.fs.remove_file(&ctx.dir.join(&name))?;
        }
    }
    Ok(next_file)
}

impl Engine for LsmEngine {
    /// Nothing: `apply` touches memory only.
    fn prepare(&self, _ops: &[SequencedOp<'_>]) -> Result<()> {
        Ok(())
    }

    fn apply(&self, ops: &[SequencedOp<'_>]) -> Result<()> {
        let mut recorder = self.dead.recorder();
        let size_bytes = {
            let superversion = self.current.load();
            for op in ops {
                superversion.active.insert(op.seq, &op.op);
                self.dead.note(&mut recorder, op);
            }
            superversion.active.size_bytes()
        };
        if size_bytes >= memtable_bytes(self.ctx.options.write_buffer_bytes())
            && !self.ctx.read_only
        {
            self.rotate(&recorder);
            drop(recorder);
            self.ctx.host.wake();
        }
        Ok(())
    }

    fn persisted_seq(&self) -> SeqNo {
        SeqNo(self.persisted.load(Ordering::Acquire))
    }

    fn oldest_unpersisted(&self) -> Option<SeqNo> {
        let superversion = self.current.load();
        let oldest = superversion
            .immutable
            .last()
            .unwrap_or(&superversion.active);
        oldest.first_seq()
    }

    fn get(&self, key: &[u8], read: &mut dyn FnMut(&[u8])) -> Result<bool> {
        // The view first, the number second: see `view`.
        let superversion = self.current.load();
        superversion.get(key, self.ctx.snapshot_tracker.published(), read)
    }

    fn multi_get(&self, keys: &[&[u8]]) -> Result<Vec<Option<Value>>> {
        let superversion = self.superversion();
        let seq = self.ctx.snapshot_tracker.published();
        superversion.multi_get(keys, seq)
    }

    fn view(&self) -> Result<Arc<dyn ReadView>> {
        let superversion = self.superversion();
        let seq = self.ctx.snapshot_tracker.published();
        Ok(Arc::new(ScanView { superversion, seq }))
    }

    fn snapshot_view(&self, seq: SeqNo) -> Arc<dyn ReadView> {
        Arc::new(SnapshotView::new(Arc::clone(&self.current), seq))
    }

    fn flush(&self) -> Result<()> {
        self.check_writable()?;
        let last = {
            let recorder = self.dead.recorder();
            self.rotate(&recorder);
            let superversion = self.current.load();
            superversion
                .immutable
                .first()
                .map_or(SeqNo::ZERO, |memtable| memtable.last_seq())
        };
        while self.persisted_seq() < last && self.flush_oldest()? {}
        self.collect_garbage();
        Ok(())
    }

    fn work_due(&self) -> Option<Work> {
        if self.ctx.read_only {
            return None;
        }
        if self.immutable_bytes.load(Ordering::Relaxed) > 0 {
            return Some(Work::Flush);
        }
        let due = self.compaction_due.load(Ordering::Acquire) || self.has_garbage();
        due.then_some(Work::Compact)
    }

    fn run_once(&self, work: Work) -> Result<bool> {
        if self.ctx.read_only {
            return Ok(false);
        }
        let had_garbage = self.has_garbage();
        self.collect_garbage();
        let done = match work {
            Work::Flush => self.flush_oldest()?,
            Work::Compact => self.compact_once()?,
        };
        self.collect_garbage();
        Ok(done || had_garbage)
    }

    /// One job over all tables, which needs space for old and new ones until it ends. Nothing, if nothing has changed
    /// since this was last done and there was nothing left to drop then.
    fn compact(&self) -> Result<()> {
        self.flush()?;
        let exclusive = Exclusive::begin(self);
        let version = Arc::clone(&self.current.load().version);
        // The weak pointer keeps the address from being used again.
        if self.settled.lock().as_ptr() == Arc::as_ptr(&version) {
            return Ok(());
        }
        let inputs: Vec<_> = version
            .tables()
            .map(|(level, table)| (level, Arc::clone(table)))
            .collect();
        if !inputs.is_empty() {
            let boundaries = Boundaries::new(self.ctx.snapshot_tracker.live());
            let newest = inputs.iter().map(|(_, table)| table.meta().largest_seq);
            // All entries were in one stripe, so one version of each key was kept, and no delete.
            let is_one_stripe = boundaries.as_slice().len() == 1
                && newest
                    .max()
                    .is_none_or(|newest| newest <= boundaries.oldest());
            let installed = self.run_job(&version, &inputs, &boundaries, LEVELS - 1, false)?;
            // A flush may have added a table meanwhile.
            if is_one_stripe && installed.tables().all(|(level, _)| level == LEVELS - 1) {
                *self.settled.lock() = Arc::downgrade(&installed);
            }
        }
        drop(exclusive);
        drop((version, inputs));
        self.collect_garbage();
        Ok(())
    }

    fn pressure(&self) -> Pressure {
        if self.ctx.read_only {
            return Pressure::None;
        }
        let budget = self.ctx.options.write_buffer_bytes();
        let immutable_bytes = self.immutable_bytes.load(Ordering::Relaxed);
        if immutable_bytes >= 2 * budget {
            return Pressure::Stop;
        }
        // With one memtable waiting, the active one cannot exceed the budget together with it.
        let over_bytes = if immutable_bytes <= memtable_bytes(budget) {
            0
        } else {
            (immutable_bytes + self.current.load().active.size_bytes()).saturating_sub(budget)
        };
        let memory = over_bytes as f64 / (2 * budget) as f64;
        let level0 = self
            .level0_tables
            .load(Ordering::Relaxed)
            .saturating_sub(LEVEL0_SLOW);
        let level0 = level0 as f64 / (LEVEL0_SLOWEST - LEVEL0_SLOW) as f64;
        match memory.max(level0) {
            0.0 => Pressure::None,
            behind => Pressure::Slow(behind.min(1.0)),
        }
    }

    fn stats(&self) -> EngineStats {
        let superversion = self.superversion();
        let version = &superversion.version;
        let sum = |figure: fn(&TableHandle) -> u64| -> u64 {
            version.tables().map(|(_, table)| figure(table)).sum()
        };
        let in_memory: u64 = superversion
            .memtables()
            .map(|memtable| memtable.entries())
            .sum();
        let levels = version.levels().iter().map(|level| LevelStats {
            files: level.tables().len() as u64,
            bytes: level.bytes(),
        });
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        EngineStats {
            disk_bytes: sum(|table| table.meta().size_bytes),
            write_buffer_bytes: superversion.memtables().map(|m| m.size_bytes()).sum(),
            pinned_bytes: sum(|table| {
                table.table().pinned_bytes() + table.tombstones().memory_bytes() as u64
            }),
            entries_estimate: in_memory
                + sum(|table| {
                    table
                        .meta()
                        .entries
                        .saturating_sub(2 * table.meta().deletes)
                }),
            files: version.tables().count() as u64,
            flush_bytes_written: load(&self.counters.flush_bytes),
            compaction_bytes_written: load(&self.counters.compaction_bytes),
            flushes: load(&self.counters.flushes),
            compactions: load(&self.counters.compactions),
            blocks_read: self.table_ctx.blocks_read.sum(),
            levels: levels.collect(),
            ..EngineStats::default()
        }
    }

    fn verify(&self) -> Result<VerifyReport> {
        let mut report = VerifyReport::default();
        let superversion = self.superversion();
        for (_, table) in superversion.version.tables() {
            report.merge(table.table().verify()?);
            if table.meta().largest_seq > self.persisted_seq() {
                let persisted = self.persisted_seq();
                let what = format!("an entry is numbered above persisted_seq {persisted}");
                report.problem(Problem::in_file(table.table().path(), what));
            }
        }
        for problem in superversion.version.problems() {
            report.problem(problem);
        }
        self.verify_manifest(&mut report)?;
        Ok(report)
    }
}

impl LsmEngine {
    /// Compares the manifest on disk with the version in memory, and the directory with both.
    fn verify_manifest(&self, report: &mut VerifyReport) -> Result<()> {
        // Held over the reading: an edit in between would be a difference.
        let _manifest = self.manifest.lock();
        let fs = Arc::clone(&self.ctx.fs);
        let version = Arc::clone(&self.current.load().version);
        let identity = Identity {
            block_size_bytes: self.block_size_bytes,
            ..identity(&self.ctx)
        };
        report.files += 1;
        let mut stored = match Manifest::open(
            fs,
            &self.ctx.dir,
            identity,
            self.ctx.persisted_watermark,
            true,
        ) {
            Ok((_, stored)) => stored,
            Err(error) if error.is_corruption() => {
                report.problem(error);
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let mut expected = contents_of(&version, self.persisted_seq(), stored.next_file);
        for levels in [&mut stored.levels, &mut expected.levels] {
            levels
                .iter_mut()
                .for_each(|metas| metas.sort_by_key(|meta| meta.id));
        }
        if stored != expected {
            let what = "the manifest describes another tree";
            report.problem(Problem::in_file(&self.ctx.dir, what));
        }
        // In this order: whatever is listed took its number before the number is read.
        let names = self.ctx.fs.read_dir(&self.ctx.dir)?;
        let next_file = self.next_file.load(Ordering::SeqCst);
        for name in names {
            // Tables that older views hold, or that are being written, have lower numbers.
            if matches!(parse_name(&name), Some(FileName::Table(id)) if id.0 >= next_file) {
                let path = self.ctx.dir.join(&name);
                let what = "unexpected table: its file number was never allocated";
                report.problem(Problem::in_file(&path, what));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
