//! The engine contract over a [`Tree`].

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::bulk_load::{HasTree, TreeLoad};
use super::checkpoint::checkpointer::Checkpointer;
use super::file::freelist;
use super::file::freespace::{FreeSpace, Run};
use super::file::meta::{META_BYTES, META_UNITS, Meta};
use super::file::new_file::{FILE_NAME, FIRST_GENERATION, NewFile, TEMPORARY_NAME};
use super::file::pager::Pager;
use super::file::value_table::{self, ValueTable};
use super::memory::node::is_large;
use super::node;
use super::read::held_files::HeldFiles;
use super::read::pack_cost::Due;
use super::read::point::Found;
use super::read::shared::SharedTree;
use super::state::{Tree, TreeParts};
use crate::engine::{
    Engine, EngineContext, EngineLoad, EngineStats, InspectDetail, Inspection, LevelStats,
    Pressure, ReadView, ValueUsage, VerifyReport, Work,
};
use crate::error::{Error, Result};
use crate::format::checksum::{checksum, seed_of};
use crate::format::coding::Malformed;
use crate::fs::{File, Fs, OpenMode};
use crate::types::{PageId, SeqNo, SequencedOp, Value};
use crate::util::mutants::mutated;
use crate::values::OpenValue;

/// True for the names that a B-tree gives its files.
pub(crate) fn is_own_file(name: &str) -> bool {
    name == FILE_NAME || name == TEMPORARY_NAME
}

/// Smaller files are not worth the work.
const COMPACT_MIN_BYTES: u64 = 4 << 20;

/// Share of free pages from which the file is made smaller when nothing is written.
const COMPACT_WHEN_QUIET: f64 = 0.25;

/// Share of free pages from which the file is made smaller in any case. A checkpoint that changes
/// every leaf leaves half of the file free for the next one, so this is well above.
const COMPACT_ALWAYS: f64 = 0.75;

/// Attempts of `multi_get` to find all keys in one moment before it takes a view.
const MULTI_GET_ATTEMPTS: usize = 4;

/// The B-tree engine.
#[derive(Debug)]
pub(crate) struct BTreeEngine {
    /// The same as in `tree`, which is aligned to cache lines: readers find it here on a line that
    /// writes do not touch.
    shared: Arc<SharedTree>,
    tree: Tree,
    fs: Arc<dyn Fs>,
    /// The file is not compacted in the background before a later checkpoint than this one.
    compact_after: AtomicU64,
    /// Pages per level at a checkpoint.
    levels: Mutex<(u64, Vec<LevelStats>)>,
}

impl BTreeEngine {
    /// Makes an empty tree. There are no files before its first checkpoint.
    pub(crate) fn create(context: EngineContext) -> Result<Arc<dyn Engine>> {
        if context.read_only {
            return Err(Error::ReadOnly);
        }
        Ok(Self::with_no_file(context)?)
    }

    pub(super) fn with_no_file(context: EngineContext) -> Result<Arc<Self>> {
        let file = Arc::new(NewFile::new(&context));
        let found = read_meta(&context, &*file)?;
        Self::with_file(context, &*file, Some(Arc::clone(&file)), found)
    }

    /// Opens the tree in the context's directory.
    pub(crate) fn open(context: EngineContext) -> Result<Arc<dyn Engine>> {
        let mode = if context.read_only {
            OpenMode::Read
        } else {
            OpenMode::ReadWrite
        };
        let path = context.dir.join(FILE_NAME);
        if !context.fs.exists(&path)? {
            if !context.may_lack_files() {
                let what = "the file of the keyspace is missing";
                return Err(Error::corruption(&path, 0, what));
            }
            return Ok(Self::with_no_file(context)?);
        }
        let file = context.fs.open(&path, mode)?;
        let found = read_meta(&context, &*file)?;
        let is_empty =
            found.0.generation == FIRST_GENERATION && found.0.persisted_seq == SeqNo::ZERO;
        if is_empty && !context.read_only && context.may_lack_files() {
            // Nothing proves that its name is durable, which came before any checkpoint. It is made
            // again.
            return Ok(Self::with_no_file(context)?);
        }
        Ok(Self::with_file(context, &*file, None, found)?)
    }

    /// Makes the tree that was read the one on the disk. After a sync that failed in an earlier
    /// process, part of what is read may be in the operating system's cache only, held for clean
    /// and never written.
    ///
    /// Meta pages that differ are such a case: the newer one is written again, unchanged, before
    /// anything is built on it, and then the other one, which may be damaged. If they are alike the
    /// first is durable, since the second is written later. The file's length may be another: see
    /// [`Pager::cut_excess`].
    fn make_durable(
        context: &EngineContext,
        file: &dyn File,
        meta: &Meta,
        stale_meta_page: Option<u64>,
    ) -> Result<()> {
        let unit = u64::from(meta.unit);
        if let Some(stale) = stale_meta_page {
            let bytes = meta.encode(context.store_id, context.keyspace);
            for page in [1 - stale, stale] {
                file.write_all_at(&bytes, page * unit)?;
                file.sync_data()?;
            }
        }
        Ok(())
    }

    fn with_file(
        context: EngineContext,
        file: &dyn File,
        new_file: Option<Arc<NewFile>>,
        (meta, mut stale_meta_page): (Meta, Option<u64>),
    ) -> Result<Arc<Self>> {
        let needed = u128::from(meta.file_units) * u128::from(meta.unit);
        let len = file.len()?;
        if u128::from(len) < needed {
            return Err(Error::corruption(
                file.path(),
                len,
                format!("the file has {len} bytes where {needed} are needed"),
            ));
        }
        let free = read_freelist(&context, file, &meta)?;
        let value_table = read_value_table(&context, file, &meta)?;
        let held_files = HeldFiles::new(Arc::clone(&context.values));
        for (number, _) in value_table.files() {
            held_files.hold(number)?;
        }
        if !context.read_only {
            Self::make_durable(&context, file, &meta, stale_meta_page)?;
            stale_meta_page = None;
        }
        let pager = Pager::new(&context, file, new_file, meta.file_units)?;
        let checkpointer = Checkpointer::new(
            context.store_id,
            context.keyspace,
            meta,
            free,
            value_table,
            stale_meta_page,
        );
        let tree = Tree::new(TreeParts {
            pager,
            held_files,
            snapshot_tracker: context.snapshot_tracker,
            host: context.host,
            settings: context.options,
            resolver: context.resolver,
            read_only: context.read_only,
            keyspace: context.keyspace,
            checkpointer,
        });
        Ok(Arc::new(Self {
            shared: Arc::clone(&tree.shared),
            tree,
            fs: context.fs,
            compact_after: AtomicU64::new(0),
            levels: Mutex::default(),
        }))
    }

    /// Finds the value of `key`; `copy` copies it if it is in a leaf.
    #[inline]
    fn find(&self, key: &[u8], copy: &mut dyn FnMut(&[u8])) -> Result<Found<'_>> {
        loop {
            match self.shared.lookup(key, None, copy)? {
                Ok(found) => return Ok(found),
                Err(seq) => match self.tree.view_before_batch() {
                    Some(view) => {
                        self.shared.wait_published(view.seq())?;
                        return view.lookup_in(key, copy);
                    }
                    None => self.shared.wait_published(seq)?,
                },
            }
        }
    }

    /// Pages per level, from the root, as of the last checkpoint; empty if they were not counted
    /// since, or that is not cheap.
    fn levels(&self) -> Vec<LevelStats> {
        self.levels.lock().1.clone()
    }

    /// How much of the file is free or in sparse leaves, about, of 1.
    fn free_share(&self) -> f64 {
        let counters = &self.tree.counters;
        let units = counters.free_units.load(Ordering::Relaxed)
            + counters.sparse_leaves.load(Ordering::Relaxed) / 2;
        let bytes = units * self.shared.pager.unit() as u64;
        bytes as f64 / self.shared.pager.file_bytes().max(1) as f64
    }

    /// Reads have paid much for packs; or much of the file is free, and something has changed since
    /// that was last acted on.
    fn compaction_is_due(&self) -> bool {
        let tree = &self.tree;
        // Waiting for checkpoints is for what may gain nothing. Writing leaves whole always gains.
        !tree.read_only && (tree.shared.pack_cost.due() > Due::No || self.has_space_to_gain())
    }

    fn has_space_to_gain(&self) -> bool {
        self.tree.shared.pager.file_bytes() > COMPACT_MIN_BYTES
            && self.free_share() > COMPACT_WHEN_QUIET
            && self.tree.shared.disk_generation.load(Ordering::Acquire)
                > self.compact_after.load(Ordering::Acquire)
    }
}

/// The better of the two meta pages, and the page of the other one if it is not the same.
fn read_meta(context: &EngineContext, file: &dyn File) -> Result<(Meta, Option<u64>)> {
    let page_size = u64::from(context.options.page_size_bytes);
    let unit = node::unit_size(context.options.page_size_bytes as usize) as u64;
    let read = |page: u64| {
        let mut bytes = [0; META_BYTES];
        let offset = page * unit;
        file.read_exact_at(&mut bytes, offset)?;
        Meta::decode(
            &bytes,
            context.store_id,
            context.keyspace,
            file.path(),
            offset,
        )
    };
    let (meta, stale) = match (read(0), read(1)) {
        (Ok(first), Ok(second)) if first == second => (first, None),
        (Ok(first), Ok(second)) if first.generation < second.generation => (second, Some(0)),
        (Ok(first), _) => (first, Some(1)),
        (Err(_), Ok(second)) => (second, Some(0)),
        (Err(first), Err(second)) => {
            let is_clearer = matches!(second, Error::UnsupportedFormat { .. });
            let error = if is_clearer { second } else { first };
            // A file too short for a meta page is damaged, not a case for a retry.
            return Err(match error {
                Error::Io { source, .. } if source.kind() == std::io::ErrorKind::UnexpectedEof => {
                    Error::corruption(file.path(), 0, "the file has no meta page")
                }
                error => error,
            });
        }
    };
    if meta.persisted_seq < context.persisted_watermark
        && !mutated!("meta-below-its-watermark-accepted")
    {
        return Err(Error::corruption(
            file.path(),
            stale.map_or(0, |page| (1 - page) * unit),
            format!(
                "the tree ends with operation {}, but operation {} was persisted",
                meta.persisted_seq, context.persisted_watermark
            ),
        ));
    }
    if u64::from(meta.page_size) != page_size {
        return Err(Error::corruption(
            file.path(),
            stale.map_or(0, |page| (1 - page) * unit),
            format!(
                "the file has pages of {} bytes where {page_size} are expected",
                meta.page_size
            ),
        ));
    }
    Ok((meta, stale))
}

fn read_freelist(context: &EngineContext, file: &dyn File, meta: &Meta) -> Result<FreeSpace> {
    let offset = meta.freelist.0.saturating_mul(u64::from(meta.unit));
    let damaged = |what: &str| Error::corruption(file.path(), offset, what);
    let mut free = FreeSpace::new(meta.file_units);
    let list = List {
        name: "the freelist",
        page: meta.freelist,
        bytes: meta.freelist_bytes,
        checksum: meta.freelist_checksum,
    };
    let Some(bytes) = list.read(context, file, meta)? else {
        return Ok(free);
    };
    let itself = Run {
        start: meta.freelist.0,
        len: list.bytes.div_ceil(u64::from(meta.unit)),
    };
    for run in freelist::decode(&bytes) {
        let Ok(run) = run else {
            return Err(damaged("the freelist is malformed"));
        };
        let apart = run.start >= itself.start + itself.len
            || run
                .start
                .checked_add(run.len)
                .is_some_and(|end| end <= itself.start);
        if run.start < META_UNITS || !apart || !free.give(run) {
            return Err(damaged("the freelist contradicts itself"));
        }
    }
    Ok(free)
}

fn read_value_table(context: &EngineContext, file: &dyn File, meta: &Meta) -> Result<ValueTable> {
    let list = List {
        name: "the table of value files",
        page: meta.value_table,
        bytes: meta
            .value_files
            .saturating_mul(value_table::ENTRY_BYTES as u64),
        checksum: meta.value_table_checksum,
    };
    let Some(bytes) = list.read(context, file, meta)? else {
        return Ok(ValueTable::default());
    };
    ValueTable::decode(&bytes).map_err(|Malformed| {
        let offset = meta.value_table.0.saturating_mul(u64::from(meta.unit));
        Error::corruption(file.path(), offset, "the table of value files is malformed")
    })
}

/// An extent of the file that a meta page refers to.
struct List {
    name: &'static str,
    page: PageId,
    bytes: u64,
    checksum: u32,
}

impl List {
    /// Its bytes, checked; `None` if it has none.
    fn read(
        &self,
        context: &EngineContext,
        file: &dyn File,
        meta: &Meta,
    ) -> Result<Option<Vec<u8>>> {
        let offset = self.page.0.saturating_mul(u64::from(meta.unit));
        let damaged = |what: String| Error::corruption(file.path(), offset, what);
        if self.bytes == 0 {
            return Ok(None);
        }
        // It cannot be longer than the file; so the file bounds what is allocated here.
        let rest = (meta.file_units - self.page.0).saturating_mul(u64::from(meta.unit));
        if self.bytes > rest {
            return Err(damaged(format!("{} reaches beyond the file", self.name)));
        }
        let mut bytes = vec![0; self.bytes as usize];
        file.read_exact_at(&mut bytes, offset)?;
        let store_seed = seed_of(&[context.store_id, u64::from(context.keyspace.0)]);
        if checksum(seed_of(&[store_seed, self.page.0]), &bytes) != self.checksum {
            return Err(damaged(format!(
                "the checksum of {} does not match",
                self.name
            )));
        }
        Ok(Some(bytes))
    }
}

impl HasTree for BTreeEngine {
    fn tree(&self) -> &Tree {
        &self.tree
    }
}

impl Engine for BTreeEngine {
    fn prepare(&self, ops: &[SequencedOp<'_>]) -> Result<()> {
        self.tree.prepare(ops)
    }

    fn apply(&self, ops: &[SequencedOp<'_>]) -> Result<()> {
        self.tree.apply(ops, None, false)
    }

    fn prepare_ordered(&self, ops: &[SequencedOp<'_>], order: &[u32]) -> Result<()> {
        self.shared.prepare_run(ops, order)
    }

    fn apply_ordered(&self, ops: &[SequencedOp<'_>], order: &[u32]) -> Result<()> {
        self.tree.apply(ops, Some(order), false)
    }

    fn apply_staged(&self, ops: &[SequencedOp<'_>]) -> Result<()> {
        self.tree.apply(ops, None, true)
    }

    fn begin_load(self: Arc<Self>) -> Result<Box<dyn EngineLoad>> {
        Ok(Box::new(TreeLoad::begin(self)?))
    }

    fn apply_load(&self, content: &[u8], first: SeqNo, last: SeqNo) -> Result<()> {
        self.tree.apply_load(content, first, last)
    }

    fn recovered(&self) -> Result<()> {
        self.shared.pager.cut_excess()
    }

    fn persisted_seq(&self) -> SeqNo {
        SeqNo(self.tree.persisted_seq.load(Ordering::Acquire))
    }

    fn oldest_unpersisted(&self) -> Option<SeqNo> {
        match self.tree.oldest_unpersisted.load(Ordering::Acquire) {
            0 => None,
            seq => Some(SeqNo(seq)),
        }
    }

    fn get(&self, key: &[u8], read: &mut dyn FnMut(&[u8])) -> Result<bool> {
        self.shared.lend(read, |copy| self.find(key, copy))
    }

    fn get_value(&self, key: &[u8]) -> Result<Option<Value>> {
        self.shared.take(|copy| self.find(key, copy))
    }

    fn contains(&self, key: &[u8]) -> Result<bool> {
        let found = self.find(key, &mut |_| ())?;
        Ok(!matches!(found, Found::Nothing))
    }

    fn get_part(&self, key: &[u8], part: Range<usize>) -> Result<Option<Value>> {
        self.shared.take_part(part, |copy| self.find(key, copy))
    }

    fn open_value(&self, key: &[u8]) -> Result<Option<OpenValue>> {
        self.shared.take_open(|copy| self.find(key, copy))
    }

    fn multi_get(&self, keys: &[&[u8]]) -> Result<Vec<Option<Value>>> {
        let mut values = Vec::with_capacity(keys.len());
        for _ in 0..MULTI_GET_ATTEMPTS {
            values.clear();
            // A leaf whose latest change is not after `moment` is as it was at that moment.
            let moment = self.shared.published();
            match self.shared.lookup_many(keys, moment, &mut values)? {
                Ok(()) => return Ok(values),
                Err(_) if self.tree.view_before_batch().is_some() => break,
                Err(seq) => self.shared.wait_published(seq)?,
            }
        }
        self.view()?.multi_get(keys)
    }

    fn view(&self) -> Result<Arc<dyn ReadView>> {
        let view = self.tree.latest_view();
        view.check_usable()?;
        self.shared.wait_published(view.seq())?;
        Ok(view)
    }

    fn snapshot_view(&self, seq: SeqNo) -> Option<Arc<dyn ReadView>> {
        let view = self.tree.latest_view();
        (view.seq() <= seq).then_some(view as _)
    }

    fn published(&self) {
        self.tree.forget_view_before_batch(false);
    }

    fn flush(&self) -> Result<()> {
        self.tree.checkpoint().map(drop)
    }

    fn work_due(&self) -> Option<Work> {
        if self.tree.flush_is_due() {
            Some(Work::Flush)
        } else if self.compaction_is_due() {
            Some(Work::Compact)
        } else {
            None
        }
    }

    fn run_once(&self, work: Work) -> Result<bool> {
        match work {
            Work::Flush if self.tree.flush_is_due() => {
                // Another thread that runs a checkpoint does this one's work.
                match self.tree.checkpointer.try_lock() {
                    Some(mut checkpointer) => self.tree.checkpoint_locked(&mut checkpointer, false),
                    None => Ok(false),
                }
            }
            Work::Compact if self.compaction_is_due() => {
                // Under a stream of writes the free pages are about to be used again.
                let always = self.free_share() >= COMPACT_ALWAYS
                    || self.shared.pack_cost.due() == Due::Always;
                let (compacted, next_after) = self.tree.compact_some(always);
                if let Some(next_after) = next_after {
                    self.compact_after.store(next_after, Ordering::Release);
                }
                self.tree.announce_checkpoint();
                compacted
            }
            Work::Flush => {
                self.tree.checkpoint_was_done();
                Ok(false)
            }
            Work::Compact => {
                if mutated!("look-in-vain-ends-an-announcement") {
                    self.tree.checkpoint_was_done();
                }
                Ok(false)
            }
        }
    }

    fn still_owes(&self, work: Work, worked: bool) -> bool {
        match work {
            // False where another thread runs a checkpoint, which may fail as well.
            Work::Flush => !worked && self.tree.flush_is_due(),
            // A part of what failed, or no part since others are at work.
            Work::Compact if worked => self.tree.compaction_owes(),
            Work::Compact => self.compaction_is_due(),
        }
    }

    fn compact(&self) -> Result<()> {
        self.tree.compact()?;
        let generation = self.shared.disk_generation.load(Ordering::Acquire);
        self.compact_after.store(generation, Ordering::Release);
        Ok(())
    }

    fn pressure(&self) -> Pressure {
        let dirty = self.tree.dirty_bytes.load(Ordering::Relaxed);
        let budget = self.tree.settings.write_buffer_bytes();
        // A checkpoint begins at the budget, and `dirty` counts what it writes until it ends; the
        // same again may come in meanwhile without harm.
        let slow_from = budget + budget / 2;
        let stop_at = 2 * budget + budget / 2;
        if self.tree.read_only || dirty <= slow_from {
            Pressure::None
        } else if dirty >= stop_at {
            Pressure::Stop
        } else {
            Pressure::Slow((dirty - slow_from) as f64 / (stop_at - slow_from) as f64)
        }
    }

    fn value_usage(&self) -> Arc<ValueUsage> {
        Arc::clone(&self.tree.value_usage.lock())
    }

    fn keeps_reference(&self, key: &[u8], len_bytes: usize) -> bool {
        !is_large(key, len_bytes, self.shared.page_size())
    }

    fn value_ref(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(match self.find(key, &mut |_| ())? {
            Found::Apart(reference, _kept) => Some(reference.into_vec()),
            _ => None,
        })
    }

    fn refresh_stats(&self) {
        let generation = self.shared.disk_generation.load(Ordering::Acquire);
        let mut known = self.levels.lock();
        if known.0 != generation {
            *known = (generation, self.tree.count_levels().unwrap_or_default());
        }
    }

    fn stats(&self) -> EngineStats {
        let tree = &self.tree;
        let counters = &tree.counters;
        let unit = tree.shared.pager.unit() as u64;
        let compaction_bytes = counters.compaction_bytes.load(Ordering::Relaxed);
        // There is no file before the first checkpoint.
        let has_file = tree.shared.disk_generation.load(Ordering::Acquire) != FIRST_GENERATION;
        EngineStats {
            disk_bytes: match has_file {
                true => tree.shared.pager.file_bytes(),
                false => 0,
            },
            free_bytes: counters.free_units.load(Ordering::Relaxed) * unit,
            write_buffer_bytes: tree.dirty_bytes.load(Ordering::Relaxed),
            entries_estimate: counters.entries.load(Ordering::Relaxed),
            files: u64::from(has_file),
            // The checkpoints of a compaction count as that.
            flush_bytes_written: counters
                .checkpoint_bytes
                .load(Ordering::Relaxed)
                .saturating_sub(compaction_bytes),
            compaction_bytes_written: compaction_bytes,
            flushes: counters.checkpoints.load(Ordering::Relaxed),
            compactions: counters.compactions.load(Ordering::Relaxed),
            blocks_read: tree.shared.pager.pages_read(),
            expired_entries: tree.shared.resolver.expired.load(Ordering::Relaxed),
            filtered_entries: tree.shared.resolver.filtered.load(Ordering::Relaxed),
            pinned_bytes: tree.shared.pager.pinned_bytes(),
            levels: self.levels(),
            height: counters.height.load(Ordering::Relaxed) as u32,
            ..EngineStats::default()
        }
    }

    fn inspect(&self, detail: InspectDetail) -> Result<Vec<Inspection>> {
        self.tree.inspect(detail)
    }

    fn scrub(&self, pace: &mut dyn FnMut(u64) -> Result<()>) -> Result<VerifyReport> {
        self.tree.scrub(&*self.fs, pace)
    }

    fn verify(&self) -> Result<VerifyReport> {
        self.tree.latest_view().check_usable()?;
        self.tree.verify()
    }
}
