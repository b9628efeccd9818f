//! Sorted loads: tables that are written where they belong.
//!
//! A [`TableLoad`] writes its entries to tables, without memtable, log or compaction. They are
//! compressed and have filters as the last level wants them, and memory holds no more than the
//! table that is being written. When the load is finished they become a part of the tree at once.
//!
//! # Where they are placed
//!
//! Each table goes to the deepest level such that no older table in it or above it overlaps. The
//! load is newer than everything in the tree, so this is LV3. If level 0 overlaps, it goes there,
//! as the newest. Running jobs may have outputs that overlap what their inputs did not: a table
//! keeps out of their levels (LP1), and from when its place is chosen until it is there it counts
//! as a job of its own, so that no other begins that would write there.
//!
//! # Why a crash at any moment is harmless
//!
//! - **LL1** Before the record of a load is logged, its tables and their names are durable, and so
//!   is a manifest; and every operation before it is persisted, because memtables are flushed and
//!   the store lets no commit of the keyspace begin meanwhile. So the load is the first thing that
//!   the manifest lacks, and memtables are empty: nothing older lies above its tables.
//! - **LL2** The record names the tables. If it is durable, so is the load; if it is lost, nothing
//!   refers to the tables. Their entries have no numbers of their own ([LT8](super::table)), since
//!   that of the load is not known before: table `i` of a load has the number `i` places after its
//!   first. All become visible with the last.
//! - **LL3** An applied load is in the version before the manifest has it. The next edit, whatever
//!   it is, comes after one that adds the tables ([`LsmEngine::persist_load`]); until then the load
//!   is the oldest unpersisted operation, and the log keeps its record. By LL1 that edit may say
//!   that everything up to the load is persisted (E2).
//! - **LL4** Recovery finds the tables that the manifest does not name before it knows whether the
//!   log does. They stay until the log was replayed, and those that are of no load are removed
//!   then: what a crash left of a load, a flush or a compaction.

use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::MutexGuard;

use super::compaction::Span;
use super::empty_ranges::after;
use super::entry::{Entry, EntryKind};
use super::manifest::{Edit, Manifest};
use super::obsolete_files::{FileName, table_name};
use super::state::{AppliedLoad, FullCompaction, LsmEngine, PreparedLoad, contents_of};
use super::superversion::Superversion;
use super::table::{Table, TableBuilder, TableMeta};
use super::table_handle::TableHandle;
use super::version::{LEVELS, Version, VersionEdit};
use crate::engine::{CommitLoad, Engine, EngineLoad, LoadRecord};
use crate::error::{Error, Result};
use crate::format::coding::Reader;
use crate::types::{FileId, SeqNo};
use crate::util::mutants::mutated;

/// A load that is under way.
#[derive(Debug)]
pub(super) struct TableLoad {
    engine: Arc<LsmEngine>,
    open: Option<TableBuilder>,
    done: Vec<TableMeta>,
    /// All files that were begun. They go with this, unless the log may have a record of them.
    begun: Vec<FileId>,
}

impl TableLoad {
    pub(super) fn begin(engine: Arc<LsmEngine>) -> Result<Self> {
        engine.check_writable()?;
        let mut manifest = engine.manifest.lock();
        if !manifest.is_written() {
            // Without one, files count for nothing (LF8).
            engine.make_dir()?;
            let next_file = FileId(engine.next_file.load(Ordering::Relaxed));
            let version = Arc::clone(&engine.current.load().version);
            let contents = || contents_of(&version, engine.persisted_seq(), next_file);
            manifest.append(&Edit::default(), contents)?;
        }
        drop(manifest);
        Ok(Self {
            engine,
            open: None,
            done: Vec::new(),
            begun: Vec::new(),
        })
    }

    fn open_builder(&mut self) -> Result<&mut TableBuilder> {
        if self.open.is_none() {
            let engine = &self.engine;
            let id = engine.take_file_id()?;
            let path = engine.ctx.dir.join(table_name(id));
            self.begun.push(id);
            let next_id = || Ok(id);
            let output = engine.output_context(engine.table_form(LEVELS - 1), &next_id);
            let builder = TableBuilder::create(output.fs, &path, id, output.seed, output.options)?;
            self.open = Some(builder);
        }
        Ok(self.open.as_mut().expect("made above"))
    }

    fn close_builder(&mut self) -> Result<()> {
        if let Some(builder) = self.open.take() {
            self.done.push(builder.finish()?);
        }
        Ok(())
    }

    /// Opens the tables, whose numbers are not known yet.
    fn open_tables(&self) -> Result<Vec<Table>> {
        let dir = &self.engine.ctx.dir;
        let open = |meta: &TableMeta| {
            Table::open(&self.engine.table_ctx, &dir.join(table_name(meta.id)), meta)
        };
        self.done.iter().map(open).collect()
    }
}

impl EngineLoad for TableLoad {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let limit_bytes = self.engine.ctx.options.table_size_bytes();
        let builder = self.open_builder()?;
        builder.add(&Entry {
            key,
            seq: SeqNo::ZERO,
            kind: EntryKind::Put,
            value,
        })?;
        if builder.size_estimate_bytes() >= limit_bytes {
            self.close_builder()?;
        }
        Ok(())
    }

    fn close(&mut self) -> Result<()> {
        self.close_builder()?;
        let engine = &self.engine;
        let sync = || engine.ctx.fs.sync_dir(&engine.ctx.dir);
        mutated!("name-of-a-loaded-table-not-synced", Ok(()), sync())?;
        engine.flush()
    }

    fn finish(mut self: Box<Self>, commit: &mut CommitLoad<'_>) -> Result<SeqNo> {
        let engine = Arc::clone(&self.engine);
        let tables = self.open_tables()?;
        // Little: what came in since `close`.
        engine.flush()?;
        let _flushing = engine.flushing.lock();
        let mut manifest = engine.manifest.lock();
        engine.persist_load(&mut manifest)?;
        let place = Placement::choose(&engine, &self.done);
        let mut content = Vec::new();
        self.done.iter().for_each(|meta| meta.encode(&mut content));
        let levels = place.levels.iter().copied();
        *engine.prepared_load.lock() = Some(PreparedLoad {
            tables: levels.zip(tables).collect(),
        });
        let (first, last) = bounds(&self.done).expect("there is an entry");
        let record = LoadRecord {
            content: &content,
            numbers: self.done.len() as u64,
            first,
            last,
        };
        let committed = commit(&record);
        if committed
            .as_ref()
            .err()
            .is_none_or(|failed| failed.may_be_logged)
        {
            self.begun.clear();
        }
        engine.prepared_load.lock().take();
        drop(place);
        drop(manifest);
        engine.ctx.host.wake();
        committed.map_err(|failed| failed.error)
    }
}

impl Drop for TableLoad {
    fn drop(&mut self) {
        self.open = None;
        if !mutated!("tables-of-a-dropped-load-stay") {
            self.engine.remove_files(self.begun.iter().copied());
        }
    }
}

/// The first and the last key of tables in their order.
fn bounds(tables: &[TableMeta]) -> Option<(&[u8], &[u8])> {
    let (first, last) = (tables.first()?, tables.last()?);
    match &last.largest_key {
        Bound::Included(last) => Some((&first.smallest_key, last)),
        Bound::Excluded(_) | Bound::Unbounded => None,
    }
}

/// Where the tables of a load go; other jobs keep out of there as long as it lives.
struct Placement<'a> {
    engine: &'a LsmEngine,
    levels: Vec<usize>,
    spans: Vec<Span>,
}

impl<'a> Placement<'a> {
    /// The manifest is locked, so the version stays.
    fn choose(engine: &'a LsmEngine, tables: &[TableMeta]) -> Self {
        let mut compactions = engine.compactions.lock();
        let version = Arc::clone(&engine.current.load().version);
        let level_of = |meta: &TableMeta| match compactions.full {
            FullCompaction::None => level_for(&version, &compactions.spans, meta),
            // That job takes all tables to the last level.
            FullCompaction::Waiting | FullCompaction::Running => 0,
        };
        let levels: Vec<usize> = tables.iter().map(level_of).collect();
        let below = levels.iter().zip(tables).filter(|(level, _)| **level > 0);
        let span = |(level, meta): (&usize, &TableMeta)| Span {
            first_level: *level,
            last_level: *level,
            start: meta.smallest_key.clone(),
            end: meta.largest_key.clone(),
        };
        let spans: Vec<Span> = below.map(span).collect();
        compactions.spans.extend(spans.iter().cloned());
        drop(compactions);
        Self {
            engine,
            levels,
            spans,
        }
    }
}

impl Drop for Placement<'_> {
    fn drop(&mut self) {
        let mut compactions = self.engine.compactions.lock();
        for span in &self.spans {
            let at = compactions.spans.iter().position(|other| other == span);
            compactions.spans.swap_remove(at.expect("pushed above"));
        }
        drop(compactions);
        self.engine.compaction_due.store(true, Ordering::Release);
        self.engine.job_ended.notify_all();
    }
}

/// The deepest level for a table that is newer than everything in `version`.
fn level_for(version: &Version, running: &[Span], meta: &TableMeta) -> usize {
    let (start, end) = (&meta.smallest_key[..], meta.largest_key.as_ref());
    let end = end.map(Vec::as_slice);
    let overlaps = |level: usize| match level {
        0 => {
            let mut tables = version.level(0).tables().iter();
            let behind = match end {
                Bound::Included(last) => Some(after(last)),
                Bound::Excluded(end) => Some(end.to_vec()),
                Bound::Unbounded => None,
            };
            tables.any(|table| table.meta().overlaps(start, behind.as_deref()))
        }
        _ => !version.level(level).overlapping(start, end).is_empty(),
    };
    let first_met = match mutated!("load-placed-below-older-tables") {
        true => LEVELS,
        false => (0..LEVELS).find(|level| overlaps(*level)).unwrap_or(LEVELS),
    };
    let is_kept_out = |level: usize| {
        running.iter().any(|span| {
            (span.first_level..=span.last_level).contains(&level) && span.meets(start, end)
        })
    };
    let free = (1..first_met).rev().find(|level| !is_kept_out(*level));
    free.unwrap_or(0)
}

impl LsmEngine {
    pub(super) fn has_unpersisted_load(&self) -> bool {
        self.unpersisted_load.load(Ordering::Acquire) != 0
    }

    /// Makes the tables of a load a part of the tree. The version cannot change beside this: the
    /// load that is being finished has the manifest locked, and recovery is alone.
    pub(super) fn apply_tables(&self, content: &[u8], first: SeqNo, last: SeqNo) -> Result<()> {
        let prepared = self.prepared_load.lock().take();
        let mut tables = match prepared {
            Some(prepared) => prepared.tables,
            None => self.recover_tables(content, first)?,
        };
        if first.plus(tables.len() as u64) != last.next() {
            return Err(self.bad_load(first, "it has not as many numbers as tables"));
        }
        let mut handles = Vec::with_capacity(tables.len());
        for (at, (level, mut table)) in tables.drain(..).enumerate() {
            table.set_number(first.plus(at as u64));
            let obsolete_files = Arc::clone(&self.obsolete_files);
            let handle = TableHandle::new(table, obsolete_files, &self.ctx.values)?;
            handles.push((level, Arc::new(handle)));
        }
        let metas = |(level, table): &(usize, Arc<TableHandle>)| (*level, table.meta().clone());
        let load = AppliedLoad {
            last,
            tables: handles.iter().map(metas).collect(),
        };
        let keys: Vec<TableMeta> = load.tables.iter().map(|(_, meta)| meta.clone()).collect();
        let Some((first_key, last_key)) = bounds(&keys) else {
            return Err(self.bad_load(first, "it has no entries"));
        };
        let mut recorder = self.empty_ranges.recorder();
        self.empty_ranges
            .note_load(&mut recorder, first_key, last_key, load.last);
        *self.applied_load.lock() = Some(load);
        self.unpersisted_load.store(first.0, Ordering::Release);
        let edit = VersionEdit {
            added: handles,
            ..VersionEdit::default()
        };
        // What comes after the load goes where no view without it looks: such a view would show it
        // without the load. By LL1 there is nothing in the old one.
        let fresh = self.fresh_memtable();
        let _switch = self.switch.lock();
        let old = self.current.load_full();
        let is_empty = old.active.first_seq().is_none();
        debug_assert!(is_empty, "LL1");
        let active = match is_empty && !mutated!("memtable-shared-across-a-load") {
            true => fresh,
            false => Arc::clone(&old.active),
        };
        let version = Arc::new(old.version.apply(&edit));
        self.level0_tables
            .store(version.level(0).tables().len(), Ordering::Relaxed);
        self.table_ctx
            .tree_bytes
            .store(version.bytes(), Ordering::Relaxed);
        self.current.store(Arc::new(Superversion {
            active,
            immutable: old.immutable.clone(),
            version,
            empty_ranges: Arc::clone(&old.empty_ranges),
            values: Arc::clone(&old.values),
            resolver: Arc::clone(&old.resolver),
        }));
        self.compaction_due.store(true, Ordering::Release);
        Ok(())
    }

    /// The tables that the record of a load names, with their levels.
    fn recover_tables(&self, content: &[u8], first: SeqNo) -> Result<Vec<(usize, Table)>> {
        let mut metas: Vec<TableMeta> = Vec::new();
        let mut reader = Reader::new(content);
        while !reader.is_empty() {
            let meta = TableMeta::decode(&mut reader)
                .ok()
                .filter(TableMeta::is_unnumbered)
                .filter(|meta| {
                    metas
                        .last()
                        .is_none_or(|last| last.is_before(&meta.smallest_key))
                })
                .ok_or_else(|| self.bad_load(first, "the list of its tables is malformed"))?;
            metas.push(meta);
        }
        // LL1.
        let superversion = self.superversion();
        if self.has_unpersisted_load()
            || superversion
                .memtables()
                .any(|memtable| memtable.first_seq().is_some())
        {
            let what = "operations before it should be in the files and are not";
            return Err(self.bad_load(first, what));
        }
        let levels = metas
            .iter()
            .map(|meta| level_for(&superversion.version, &[], meta));
        let mut tables = Vec::with_capacity(metas.len());
        for (level, meta) in levels.zip(&metas) {
            let path = self.ctx.dir.join(table_name(meta.id));
            let table = Table::open(&self.table_ctx, &path, meta).map_err(|error| {
                if error.is_not_found() {
                    Error::corruption(&path, 0, "a table that the log names is missing")
                } else {
                    error
                }
            })?;
            tables.push((level, table));
        }
        let mut strays = self.strays.lock();
        strays.retain(|stray| metas.iter().all(|meta| *stray != FileName::Table(meta.id)));
        Ok(tables)
    }

    fn bad_load(&self, first: SeqNo, what: &str) -> Error {
        let what = format!("the bulk load of operation {first}: {what}");
        Error::corruption(&self.ctx.dir, 0, what)
    }

    /// As [`LsmEngine::persist_load`], for background work and flushes.
    pub(super) fn persist_applied_load(&self) -> Result<bool> {
        match self.has_unpersisted_load() {
            true => self.persist_load(&mut self.manifest.lock()),
            false => Ok(false),
        }
    }

    /// Has the manifest say that an applied load is a part of the tree (LL3). False if it does
    /// already.
    pub(super) fn persist_load(&self, manifest: &mut MutexGuard<'_, Manifest>) -> Result<bool> {
        let Some(load) = self.applied_load.lock().clone() else {
            return Ok(false);
        };
        if self.ctx.read_only || mutated!("edit-before-that-of-a-load") {
            return Ok(false);
        }
        self.ctx.host.make_durable(load.last)?;
        let next_file = FileId(self.next_file.load(Ordering::Relaxed));
        let edit = Edit {
            persisted_seq: Some(load.last),
            next_file: Some(next_file),
            removed: Vec::new(),
            added: load.tables,
        };
        let version = Arc::clone(&self.current.load().version);
        manifest.append(&edit, || contents_of(&version, load.last, next_file))?;
        self.persisted.store(load.last.0, Ordering::Release);
        *self.applied_load.lock() = None;
        self.unpersisted_load.store(0, Ordering::Release);
        self.ctx.host.progressed();
        Ok(true)
    }
}
