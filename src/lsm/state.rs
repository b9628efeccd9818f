//! The engine: memtables and tables put together.
//!
//! # State and who may change it
//!
//! ```text
//!   apply ───► active memtable ──rotate──► immutable memtables ──flush──► level 0 ──compact──► 1..6
//!                    └────────────── Superversion ─────────────────────────── Version ───────┘
//! ```
//!
//! - `current`, the superversion, is an atomic pointer. Readers load it and take no lock. A thread
//!   that replaces it holds `switch`, for a few instructions.
//! - The recorder of `empty_ranges` is held by `apply` while it inserts, and by a thread that
//!   rotates, so that no insert goes to a memtable that has become immutable. Rotation happens
//!   between batches, so a flush persists whole batches.
//! - `flushing`, then `manifest`, are held over I/O: by background work and by callers of `flush`
//!   and `compact`, who want to wait. No reader and no `apply` ever takes them.
//! - `compactions` says what running jobs work on; held briefly.
//!
//! Lock order: `flushing`, `manifest`, the recorder, `switch`. `compactions` is taken alone.
//!
//! # Invariants
//!
//! - **L1** The version is only replaced with `manifest` held, after the edit is durable; so
//!   versions follow one another in the order of the manifest's edits. A bulk load is the
//!   exception: its record in the log is durable, and the next edit comes after one that adds its
//!   tables ([`super::bulk_load`]).
//! - **L2** Memtables are flushed oldest first, one at a time; so level 0 and `persisted` grow in
//!   commit order (E2).
//! - **L3** Before a flush's edit is appended, the log holds everything up to the memtable's last
//!   operation, durably (E3).
//! - **L4** A memtable leaves the superversion in the same swap in which its table enters: a read
//!   finds every operation in one of them.
//!
//! A step of background work that fails changes nothing in memory and can be tried again.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Instant;

use arc_swap::ArcSwap;
use parking_lot::{Condvar, Mutex};

use super::compaction::Span;
use super::empty_ranges::{EmptyRanges, Recorder};
use super::manifest::{Contents, Edit, Manifest, NUMBER_END};
use super::memtable::Memtable;
use super::obsolete_files::{FileName, ObsoleteFiles, table_name};
use super::pressure::Drain;
use super::retention::Boundaries;
use super::superversion::Superversion;
use super::table::{Table, TableContext, TableForm, TableMeta, TableOptions};
use super::table_handle::TableHandle;
use super::table_writer::OutputContext;
use super::version::{LEVELS, Version, VersionEdit};
use crate::engine::{Engine, EngineContext, LiveSnapshots, Pressure};
use crate::error::{Error, Result};
use crate::types::{FileId, SeqNo};
use crate::util::mutants::mutated;

/// Tables in level 0 that make a compaction due.
pub(super) const LEVEL0_TRIGGER: usize = 4;

/// The LSM tree of one keyspace.
#[derive(Debug)]
pub(crate) struct LsmEngine {
    // Constant.
    pub(super) ctx: EngineContext,
    pub(super) table_ctx: TableContext,
    pub(super) block_size_bytes: u32,
    pub(super) obsolete_files: Arc<ObsoleteFiles>,

    /// Shared with snapshots.
    pub(super) current: Arc<ArcSwap<Superversion>>,
    pub(super) switch: Mutex<()>,
    pub(super) empty_ranges: Arc<EmptyRanges>,
    pub(super) flushing: Mutex<()>,
    pub(super) manifest: Mutex<Manifest>,
    /// Tables that an edit would have added which failed. Changed with the manifest locked.
    pub(super) unnamed: Mutex<Vec<FileId>>,
    /// The tables of a bulk load that is being committed.
    pub(super) prepared_load: Mutex<Option<PreparedLoad>>,
    /// A bulk load that was applied and is not in the manifest.
    pub(super) applied_load: Mutex<Option<AppliedLoad>>,
    /// Its first number; zero if there is none.
    pub(super) unpersisted_load: AtomicU64,
    /// Our files that opening found and nothing names: orphans, but for tables of a load that the
    /// log has a record of. Removed when recovery has succeeded.
    pub(super) strays: Mutex<Vec<FileName>>,
    pub(super) compactions: Mutex<Compactions>,
    /// Signalled when a job ends.
    pub(super) job_ended: Condvar,
    /// Flushed memtables that a reader may still hold: dropping one takes long, so it is left to
    /// background work.
    pub(super) retired: Mutex<Vec<Arc<Memtable>>>,

    pub(super) next_file: AtomicU64,
    pub(super) persisted: AtomicU64,
    /// Bytes of the immutable memtables.
    pub(super) immutable_bytes: AtomicU64,
    pub(super) level0_tables: AtomicUsize,
    /// Of them, those that a damaged table keeps there: writers need not wait for what no job can
    /// change.
    pub(super) level0_settled: AtomicUsize,
    pub(super) drain: Drain,
    /// The version in which every key has one entry in one bottom run, if that is known: the last
    /// `compact` made it, while no snapshot was live. Only compared with the current one. Weak, so
    /// that it keeps no files.
    pub(super) settled: Mutex<Settled>,
    /// Something has changed since a pick found nothing.
    pub(super) compaction_due: AtomicBool,
    /// When every read is at this number or above, snapshots have released what a pick waits for;
    /// `u64::MAX` if it waits for none.
    pub(super) next_release: AtomicU64,
    /// When half of a table's values have expired, the lowest such time of those that are not
    /// due, in milliseconds since 1970.
    pub(super) next_expiry_ms: AtomicU64,
    pub(super) counters: Counters,
}

/// A version that nothing is left to be done to.
#[derive(Debug, Default)]
pub(super) struct Settled {
    pub(super) version: Weak<Version>,
    /// How long its tables were to be.
    pub(super) table_size_bytes: u64,
}

/// The tables of a bulk load that is being committed, open, with their levels.
#[derive(Debug)]
pub(super) struct PreparedLoad {
    pub(super) tables: Vec<(usize, Table)>,
}

/// A bulk load that the manifest does not have.
#[derive(Debug, Clone)]
pub(super) struct AppliedLoad {
    /// The last of its numbers.
    pub(super) last: SeqNo,
    /// With their levels.
    pub(super) tables: Vec<(usize, TableMeta)>,
}

/// What running compactions work on.
#[derive(Debug, Default)]
pub(super) struct Compactions {
    pub(super) busy: HashSet<FileId>,
    pub(super) spans: Vec<Span>,
    pub(super) full: FullCompaction,
    /// Tables whose older versions no snapshot held when they were written: merges that are not
    /// combined, over what lies elsewhere. To write them again would change nothing.
    pub(super) unfreeable: HashSet<FileId>,
    /// Tables that a job could not read.
    pub(super) unreadable: HashMap<FileId, Unreadable>,
    /// Inputs of jobs that have failed, of what may be over when they are tried again, and that no
    /// job has had with success since. Only those that are still in the tree count.
    pub(super) failed_inputs: HashSet<FileId>,
    /// How many edits there were when nothing was found that could be done but what had failed.
    pub(super) edits_at_look: Option<u64>,
}

/// What `compact` does, which works on all tables at once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum FullCompaction {
    #[default]
    None,
    /// It waits for running jobs to end; no other begins.
    Waiting,
    /// It has all tables that there were. What is flushed beside it may be joined, or level 0 would
    /// grow until it ends, and writers be slowed.
    Running,
}

/// A table that a job could not read. A job writes much before it comes to the damage, and would
/// again: so the table is left out of picks, for the longer the more often this happened. Other
/// jobs of the tree go on. The measure is flushes and compactions that succeeded, and not time:
/// where nothing else happens, nothing is written for damage. One whose reading failed may be
/// readable again, and is tried where nothing else happens, as often as the store asks: that leaves
/// the job alone for longer and longer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unreadable {
    /// Left out before so many edits.
    pub(super) until_edit: u64,
    /// For how many edits it was left out last.
    pub(super) wait_edits: u64,
    /// It is damaged, and will be.
    pub(super) is_damaged: bool,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) flush_bytes: AtomicU64,
    pub(super) flushes: AtomicU64,
    pub(super) compaction_bytes: AtomicU64,
    pub(super) compactions: AtomicU64,
}

impl LsmEngine {
    pub(super) fn superversion(&self) -> Arc<Superversion> {
        self.current.load_full()
    }

    pub(super) fn check_writable(&self) -> Result<()> {
        if self.ctx.read_only {
            return Err(Error::ReadOnly);
        }
        Ok(())
    }

    /// What jobs keep to that begin now.
    pub(super) fn boundaries(&self) -> Boundaries {
        let time_ms = self.expired_by_ms();
        // In this order: later snapshots have later times.
        Boundaries::new(LiveSnapshots {
            time_ms,
            ..self.ctx.snapshot_tracker.live()
        })
    }

    /// The same for jobs that ask the filter, and what they hold until they are installed.
    pub(super) fn boundaries_of_compaction(&self) -> (Boundaries, impl Sized) {
        let filtering = self.ctx.resolver.filtering();
        let filter = self.ctx.resolver.filter_of_compactions();
        let held = filter.is_some().then_some(filtering);
        (self.boundaries().filtering(filter), held)
    }

    /// What has expired by this time may be dropped: no read sees it, and no merge goes into it
    /// that the log would have applied again (X5 of [`crate::resolve`]). In milliseconds since
    /// 1970.
    pub(super) fn expired_by_ms(&self) -> u64 {
        let resolver = &self.ctx.resolver;
        if !resolver.expires() {
            return 0;
        }
        let time_ms = self.ctx.snapshot_tracker.oldest_time_ms();
        let time_ms = resolver.expired_by_ms(time_ms);
        // Afterwards: what is no longer under way is in a memtable, or persisted.
        let superversion = self.current.load();
        let merges = superversion.memtables().map(|it| it.earliest_merge_ms());
        let earliest_ms = merges.min().unwrap_or(time_ms);
        let is_late = mutated!("expired-value-dropped-before-its-merge-is-persisted");
        if is_late {
            time_ms
        } else {
            time_ms.min(earliest_ms)
        }
    }

    /// A number for a table. An error if they are used up, as they are beside a file that has the
    /// last one: the next opening would refuse what has a higher one.
    pub(super) fn take_file_id(&self) -> Result<FileId> {
        let next = |number| (number < NUMBER_END).then_some(number + 1);
        let taken = self
            .next_file
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, next);
        taken.map(FileId).map_err(|_| {
            let what = "the tree has used up the numbers of its tables";
            Error::invalid(what)
        })
    }

    /// How jobs and loads write tables for `level`.
    pub(super) fn table_form(&self, level: usize) -> TableForm {
        let is_last_level = level == LEVELS - 1 && !mutated!("last-level-written-as-the-others");
        let (compression, filter_bits_per_key) = self.ctx.options.table_form(is_last_level);
        TableForm {
            compression,
            filter_bits_per_key,
        }
    }

    pub(super) fn output_context<'a>(
        &'a self,
        form: TableForm,
        next_id: &'a dyn Fn() -> Result<FileId>,
    ) -> OutputContext<'a> {
        OutputContext {
            fs: &self.ctx.fs,
            dir: self.ctx.dir.clone(),
            seed: self.table_ctx.seed,
            options: TableOptions {
                block_size_bytes: self.block_size_bytes,
                form,
                values_expire: self.ctx.resolver.expires(),
            },
            next_id,
        }
    }

    /// Makes the names of new tables durable, and opens them.
    pub(super) fn open_outputs(&self, outputs: &[TableMeta]) -> Result<Vec<Arc<TableHandle>>> {
        let open = |meta: &TableMeta| {
            let path = self.ctx.dir.join(table_name(meta.id));
            let table = Table::open(&self.table_ctx, &path, meta)?;
            let obsolete_files = Arc::clone(&self.obsolete_files);
            let handle = TableHandle::new(table, obsolete_files, &self.ctx.values)?;
            Ok(Arc::new(handle))
        };
        let opened = if outputs.is_empty() {
            Ok(Vec::new())
        } else {
            let sync = || match self.manifest.lock().is_written() {
                true => self.ctx.fs.sync_dir(&self.ctx.dir),
                // The first manifest makes its name durable, and these with it (LF4).
                false => Ok(()),
            };
            let synced = mutated!("table-name-not-synced", Ok(()), sync());
            synced.and_then(|()| outputs.iter().map(open).collect())
        };
        if opened.is_err() {
            // No edit names them yet.
            self.remove_files(outputs.iter().map(|meta| meta.id));
        }
        opened
    }

    /// Removes the files of tables, as far as that works: what stays is an orphan.
    pub(super) fn remove_files(&self, ids: impl Iterator<Item = FileId>) {
        for id in ids {
            let _ = self.ctx.fs.remove_file(&self.ctx.dir.join(table_name(id)));
        }
    }

    /// Makes `edit` durable, then current (L1). `flushed` is the memtable whose table it adds.
    /// Returns the new version.
    ///
    /// If the edit fails, its outputs stay: the manifest's file may have the edit even so, and then
    /// names them. They are removed once an edit has succeeded, which began a new manifest (LF5).
    pub(super) fn install(
        &self,
        edit: &VersionEdit,
        flushed: Option<&Arc<Memtable>>,
    ) -> Result<Arc<Version>> {
        let mut manifest = self.manifest.lock();
        if let Err(error) = self.persist_load(&mut manifest) {
            edit.give_up();
            return Err(error);
        }
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
        unnamed
            .drain(..)
            .for_each(|id| self.obsolete_files.enqueue_file(id));
        drop(unnamed);

        self.persisted.store(persisted.0, Ordering::Release);
        let old = {
            let _switch = self.switch.lock();
            let old = self.current.load_full();
            let mut immutable = old.immutable.clone();
            if let Some(flushed) = flushed {
                let oldest = immutable.last();
                debug_assert!(oldest.is_some_and(|oldest| Arc::ptr_eq(oldest, flushed)));
                let left = mutated!("all-memtables-dropped-by-one-flush", 0, immutable.len() - 1);
                immutable.truncate(left);
            }
            let level0 = version.level(0);
            let is_due = level0.tables().len() >= LEVEL0_TRIGGER;
            let drained_bytes = drained_bytes(&old.version, edit);
            self.drain.note(drained_bytes, is_due, Instant::now());
            self.level0_tables
                .store(level0.tables().len(), Ordering::Relaxed);
            self.table_ctx
                .tree_bytes
                .store(version.bytes(), Ordering::Relaxed);
            self.note_immutable(&immutable);
            self.current.store(Arc::new(Superversion {
                active: Arc::clone(&old.active),
                immutable,
                version: Arc::clone(&version),
                empty_ranges: Arc::clone(&old.empty_ranges),
                values: Arc::clone(&old.values),
                resolver: Arc::clone(&old.resolver),
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

    /// An empty memtable.
    pub(super) fn fresh_memtable(&self) -> Arc<Memtable> {
        let options = &self.ctx.options;
        let budget_bytes = memtable_bytes(options.write_buffer_bytes());
        let resolver = Arc::clone(&self.ctx.resolver);
        Arc::new(Memtable::new(options.memtable(), budget_bytes, resolver))
    }

    /// Makes the active memtable immutable, if it holds anything. The guard keeps `apply` away.
    pub(super) fn rotate(&self, _recorder: &parking_lot::MutexGuard<'_, Recorder>) {
        let fresh = self.fresh_memtable();
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
            empty_ranges: Arc::clone(&old.empty_ranges),
            values: Arc::clone(&old.values),
            resolver: Arc::clone(&old.resolver),
        }));
    }

    /// Removes tables that no edit ever named.
    pub(super) fn remove_outputs(&self, tables: Vec<Arc<TableHandle>>) {
        tables.iter().for_each(|table| table.mark_obsolete());
    }

    /// True if a retired memtable has no reader left.
    pub(super) fn has_garbage(&self) -> bool {
        self.obsolete_files.is_due()
            || self
                .retired
                .lock()
                .iter()
                .any(|memtable| Arc::strong_count(memtable) == 1)
    }

    /// Frees memtables and removes files that nothing reads any more.
    pub(super) fn collect_garbage(&self) {
        let free: Vec<_> = {
            let mut retired = self.retired.lock();
            retired
                .extract_if(.., |memtable| Arc::strong_count(memtable) == 1)
                .collect()
        };
        drop(free);
        if !self.ctx.read_only {
            self.obsolete_files.remove_all();
        }
    }
}

/// Half of the budget: one memtable fills while another is flushed.
pub(super) fn memtable_bytes(write_buffer_bytes: u64) -> u64 {
    write_buffer_bytes / 2
}

/// What an edit takes out of level 0, in bytes as writers pay for them.
fn drained_bytes(old: &Version, edit: &VersionEdit) -> u64 {
    // What is joined there stays there.
    if edit.added.iter().any(|(level, _)| *level == 0) {
        return 0;
    }
    let is_removed = |id: FileId| edit.removed.contains(&(0, id));
    let tables = old.level(0).tables().iter();
    tables
        .filter(|table| is_removed(table.id()))
        .map(|table| {
            let meta = table.meta();
            let ops_bytes = meta.entries.saturating_mul(Pressure::OP_COST_BYTES);
            let raw_bytes = meta.raw_key_bytes.saturating_add(meta.raw_value_bytes);
            ops_bytes.saturating_add(raw_bytes)
        })
        .fold(0, u64::saturating_add)
}

pub(super) fn contents_of(version: &Version, persisted_seq: SeqNo, next_file: FileId) -> Contents {
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
