//! The engine contract ([`Engine`]) of the tree: what the store calls.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::Guard;

use super::bulk_load::TableLoad;
use super::empty_ranges::Recorder;
use super::entry::EntryKind;
use super::memtable::Memtable;
use super::pressure::admitted;
use super::state::{LsmEngine, memtable_bytes};
use super::superversion::{ScanView, SnapshotView, Superversion};
use super::table_handle::TableHandle;
use crate::engine::{
    Engine, EngineLoad, EngineStats, FoldedMerges, InspectDetail, Inspection, LevelStats, Pressure,
    ReadView, ValueUsage, VerifyReport, Work, with_folded,
};
use crate::error::Result;
use crate::resolve::{NEVER, OperandStamp};
use crate::types::{Op, SeqNo, SequencedOp, Value};
use crate::util::mutants::mutated;
use crate::values::OpenValue;

/// Tables in level 0 from which on writers are slowed, and as many as there should become; see
/// [`super::pressure`].
const LEVEL0_SLOW: usize = 8;
const LEVEL0_SLOWEST: usize = 20;

/// Of larger batches the first operations would push each other out of the processor's cache.
const MAX_PREFETCHED_OPS: usize = 16;

impl LsmEngine {
    /// True if something has changed since the last time that there was nothing to compact.
    fn compaction_may_be_due(&self) -> bool {
        let next_release = self.next_release.load(Ordering::Relaxed);
        let next_expiry_ms = self.next_expiry_ms.load(Ordering::Relaxed);
        let has_expired = || next_expiry_ms <= self.expired_by_ms();
        self.compaction_due.load(Ordering::Acquire)
            || (next_release != u64::MAX
                && next_release <= self.ctx.snapshot_tracker.oldest_read().0)
            || (next_expiry_ms != NEVER && has_expired())
    }

    /// The current view, and the number at which to read it: the view is taken first, see
    /// [`superversion`](super::superversion).
    #[inline]
    fn latest(&self) -> (Guard<Arc<Superversion>>, SeqNo) {
        let published = || self.ctx.snapshot_tracker.published();
        let too_early = mutated!("number-taken-before-its-view").then(published);
        let superversion = self.current.load();
        (superversion, too_early.unwrap_or_else(published))
    }

    /// Inserts `ops`. If `order` is given, it is what [`in_key_order`](crate::engine::in_key_order)
    /// gives. `inserted` is called before scans may record what they saw.
    fn insert(
        &self,
        ops: &[SequencedOp<'_>],
        order: Option<&[u32]>,
        inserted: impl FnOnce(&mut Recorder),
    ) -> Result<()> {
        let folded = self.fold_merges(ops)?;
        let to_insert = &*with_folded(ops, folded.as_ref());
        let mut recorder = self.empty_ranges.recorder();
        let size_bytes = {
            let superversion = self.current.load();
            superversion.active.hold_values(ops, &self.ctx.values)?;
            if folded.is_some() {
                note_merges(&superversion.active, ops);
            }
            // An order is given of operations of which none is a merge.
            superversion.active.insert(to_insert, order);
            for op in ops {
                self.empty_ranges.note(&mut recorder, op);
            }
            superversion.active.size_bytes()
        };
        inserted(&mut recorder);
        if size_bytes >= memtable_bytes(self.ctx.options.write_buffer_bytes())
            && !self.ctx.read_only
        {
            self.rotate(&recorder);
            drop(recorder);
            self.ctx.host.wake();
        }
        Ok(())
    }

    /// What the merges among `ops` come to, if they are not kept.
    fn fold_merges<'a>(&self, ops: &[SequencedOp<'a>]) -> Result<Option<FoldedMerges<'a>>> {
        let resolver = &self.ctx.resolver;
        if !resolver.folds_at_once() {
            return Ok(None);
        }
        let lookup = |key: &[u8]| {
            let mut value = None;
            let superversion = self.current.load_full();
            superversion.get(key, SeqNo::MAX, &mut |found| {
                value = Some(Value::copy_from(found))
            })?;
            Ok(value)
        };
        FoldedMerges::of(ops, resolver, lookup).map(Some)
    }
}

/// What is merged into stays as long as these merges may be replayed (X5).
fn note_merges(active: &Memtable, ops: &[SequencedOp<'_>]) {
    for op in ops {
        if let Op::Merge { operand, .. } = op.op {
            let (_, stamp) = OperandStamp::split(operand);
            active.note_merge(stamp.written_at_ms);
        }
    }
}

impl Engine for LsmEngine {
    /// Asks for the memory that `apply` will touch; that comes while the log is written.
    fn prepare(&self, ops: &[SequencedOp<'_>]) -> Result<()> {
        let superversion = self.current.load();
        if self.ctx.resolver.folds_at_once() {
            // So that `apply` need not wait for the disk.
            for op in ops {
                if let Op::Merge { key, .. } = op.op {
                    superversion.contains(key, SeqNo::MAX)?;
                }
            }
        }
        if ops.len() <= MAX_PREFETCHED_OPS {
            for op in ops {
                if let Some(key) = op.op.key() {
                    superversion.active.prefetch(key);
                }
            }
        }
        Ok(())
    }

    fn apply(&self, ops: &[SequencedOp<'_>]) -> Result<()> {
        self.insert(ops, None, |_| ())
    }

    fn prepare_ordered(&self, ops: &[SequencedOp<'_>], _order: &[u32]) -> Result<()> {
        self.prepare(ops)
    }

    fn apply_ordered(&self, ops: &[SequencedOp<'_>], order: &[u32]) -> Result<()> {
        self.insert(ops, Some(order), |_| ())
    }

    fn apply_staged(&self, ops: &[SequencedOp<'_>]) -> Result<()> {
        self.insert(ops, None, |recorder| {
            // Scans that saw a part of it took their numbers before this.
            let published = self.ctx.snapshot_tracker.published();
            self.empty_ranges.distrust(recorder, published);
        })
    }

    fn begin_load(self: Arc<Self>) -> Result<Box<dyn EngineLoad>> {
        Ok(Box::new(TableLoad::begin(self)?))
    }

    fn apply_load(&self, content: &[u8], first: SeqNo, last: SeqNo) -> Result<()> {
        self.apply_tables(content, first, last)
    }

    fn recovered(&self) -> Result<()> {
        self.remove_strays()
    }

    fn persisted_seq(&self) -> SeqNo {
        SeqNo(self.persisted.load(Ordering::Acquire))
    }

    fn oldest_unpersisted(&self) -> Option<SeqNo> {
        match self.unpersisted_load.load(Ordering::Acquire) {
            0 => {}
            // Whatever is in a memtable came after it.
            first => return Some(SeqNo(first)),
        }
        let superversion = self.current.load();
        let oldest = superversion
            .immutable
            .last()
            .unwrap_or(&superversion.active);
        oldest.first_seq()
    }

    fn get(&self, key: &[u8], read: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let (superversion, seq) = self.latest();
        superversion.get(key, seq, read)
    }

    fn contains(&self, key: &[u8]) -> Result<bool> {
        let (superversion, seq) = self.latest();
        superversion.contains(key, seq)
    }

    fn get_part(&self, key: &[u8], part: Range<usize>) -> Result<Option<Value>> {
        let (superversion, seq) = self.latest();
        superversion.get_part(key, part, seq)
    }

    fn open_value(&self, key: &[u8]) -> Result<Option<OpenValue>> {
        let (superversion, seq) = self.latest();
        superversion.open_value(key, seq)
    }

    fn multi_get(&self, keys: &[&[u8]]) -> Result<Vec<Option<Value>>> {
        let (superversion, seq) = self.latest();
        superversion.multi_get(keys, seq)
    }

    fn view(&self) -> Result<Arc<dyn ReadView>> {
        loop {
            let (superversion, seq) = self.latest();
            // A scan has to have all that its number sees (D1 of `empty_ranges`): what was put into
            // another memtable before the number was taken is not in this one.
            let is_whole = Arc::ptr_eq(&superversion, &self.current.load());
            if is_whole || mutated!("view-older-than-its-number") {
                let superversion = Guard::into_inner(superversion);
                return Ok(Arc::new(ScanView { superversion, seq }));
            }
        }
    }

    /// Entries have numbers: those above `seq` do not count.
    fn snapshot_view(&self, seq: SeqNo) -> Option<Arc<dyn ReadView>> {
        if self.ctx.resolver.compactions_filter() && !mutated!("filter-works-under-later-snapshots")
        {
            // A job that began before may filter what this snapshot sees: it keeps the tables.
            let superversion = self.superversion();
            return Some(Arc::new(ScanView { superversion, seq }));
        }
        Some(Arc::new(SnapshotView::new(Arc::clone(&self.current), seq)))
    }

    fn flush(&self) -> Result<()> {
        self.check_writable()?;
        let last = {
            let recorder = self.empty_ranges.recorder();
            self.rotate(&recorder);
            let superversion = self.current.load();
            superversion
                .immutable
                .first()
                .map_or(SeqNo::ZERO, |memtable| memtable.last_seq())
        };
        while self.persisted_seq() < last && self.flush_oldest()? {}
        self.persist_applied_load()?;
        self.collect_garbage();
        Ok(())
    }

    fn work_due(&self) -> Option<Work> {
        if self.ctx.read_only {
            return None;
        }
        if self.immutable_bytes.load(Ordering::Relaxed) > 0 || self.has_unpersisted_load() {
            return Some(Work::Flush);
        }
        let due = self.compaction_may_be_due() || self.has_garbage();
        due.then_some(Work::Compact)
    }

    fn options_changed(&self) {
        self.compaction_due.store(true, Ordering::Release);
    }

    fn run_once(&self, work: Work) -> Result<bool> {
        if self.ctx.read_only {
            return Ok(false);
        }
        let had_garbage = self.has_garbage();
        self.collect_garbage();
        let done = match work {
            Work::Flush => {
                let has_persisted = self.persist_applied_load()?;
                self.flush_oldest()? || has_persisted
            }
            // To look at all tables costs more than to know that nothing has changed.
            Work::Compact => self.compaction_may_be_due() && self.compact_once()?,
        };
        self.collect_garbage();
        Ok(done || had_garbage)
    }

    fn still_owes(&self, work: Work, worked: bool) -> bool {
        match work {
            // The oldest memtable is always the next.
            Work::Flush => !worked && self.work_due() == Some(Work::Flush),
            Work::Compact => self.has_failed_inputs(),
        }
    }

    fn compact(&self) -> Result<()> {
        self.compact_all()
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
            .saturating_sub(self.level0_settled.load(Ordering::Relaxed))
            .saturating_sub(LEVEL0_SLOW);
        let over = level0 as f64 / (LEVEL0_SLOWEST - LEVEL0_SLOW) as f64;
        let level0 = match self.drain.rate() {
            Some(drain) if level0 > 0 => Pressure::for_rate(admitted(drain, over)),
            _ => over,
        };
        match memory.max(level0) {
            0.0 => Pressure::None,
            behind => Pressure::Slow(behind.min(1.0)),
        }
    }

    fn value_usage(&self) -> Arc<ValueUsage> {
        Arc::clone(self.current.load().version.value_usage())
    }

    fn value_ref(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let (superversion, seq) = self.latest();
        let mut reference = None;
        superversion.find(key, seq, &mut |entry| {
            reference = (entry.kind == EntryKind::PutRef).then(|| entry.value.to_vec());
        })?;
        Ok(reference)
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
            pinned_bytes: sum(|table| table.table().pinned_bytes()),
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
            expired_entries: load(&self.ctx.resolver.expired),
            filtered_entries: load(&self.ctx.resolver.filtered),
            levels: levels.collect(),
            ..EngineStats::default()
        }
    }

    fn inspect(&self, detail: InspectDetail) -> Result<Vec<Inspection>> {
        self.inspect_all(detail)
    }

    fn scrub(&self, pace: &mut dyn FnMut(u64) -> Result<()>) -> Result<VerifyReport> {
        self.scrub_all(pace)
    }

    fn verify(&self) -> Result<VerifyReport> {
        self.verify_all()
    }
}
