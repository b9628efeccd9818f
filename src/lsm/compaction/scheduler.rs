//! Running compactions: which job is begun, beside which others, and its result installed.
//!
//! What to do is picked with `compactions` locked, which then says what the job works on (LP1); the
//! job itself runs without locks. `Engine::compact` waits for running jobs to end and keeps others
//! from beginning, but for those that join what is flushed beside it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::MutexGuard;

use super::job::{Job, MAX_OVERLAP_FACTOR};
use super::picker::{FileInfo, Limits, Pick, Tree};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::lsm::estimate::covered_bytes;
use crate::lsm::kept_entries::Rules;
use crate::lsm::retention::Boundaries;
use crate::lsm::state::{
    Compactions, FullCompaction, LEVEL0_TRIGGER, LsmEngine, Settled, Unreadable, memtable_bytes,
};
use crate::lsm::table::{TableForm, TableMeta};
use crate::lsm::table_handle::CoveredBytes;
use crate::lsm::table_handle::TableHandle;
use crate::lsm::version::{LEVELS, Version, VersionEdit};
use crate::resolve::{Judged, NEVER};
use crate::types::{FileId, SeqNo};
use crate::util::mutants::mutated;

/// How many times larger each level is than the one above.
const SIZE_RATIO: u64 = 10;
/// The base level's largest target, in flushes: four times what level 0 brings at once. Merging a
/// batch into a level four times its size rewrites less than one more level would.
const BASE_FLUSHES: u64 = 4 * LEVEL0_TRIGGER as u64;

/// For how many edits a table is left out that a job could not read once.
const FIRST_WAIT_EDITS: u64 = 8;

impl LsmEngine {
    fn limits(&self) -> Limits {
        let flush_bytes = memtable_bytes(self.ctx.options.write_buffer_bytes());
        let table_bytes = self.ctx.options.table_size_bytes();
        Limits {
            level0_trigger: LEVEL0_TRIGGER,
            base_bytes: (BASE_FLUSHES * flush_bytes).max(table_bytes),
            size_ratio: SIZE_RATIO,
            table_bytes,
            max_overlap_bytes: table_bytes.saturating_mul(MAX_OVERLAP_FACTOR),
        }
    }

    /// Does the compaction that is due most. False if there is none.
    pub(in crate::lsm) fn compact_once(&self) -> Result<bool> {
        let (pick, version) = {
            let mut compactions = self.compactions.lock();
            if compactions.full == FullCompaction::Waiting {
                return Ok(false);
            }
            self.compaction_due.store(false, Ordering::Release);
            // With the lock held: a job that ends now leaves its marks until its outputs are
            // installed.
            let version = Arc::clone(&self.current.load().version);
            let picked = match compactions.full {
                FullCompaction::Running => self.pick_beside_full(&version, &compactions),
                _ => self.pick_due(&version, &mut compactions),
            };
            let Some(pick) = picked else {
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
        let (boundaries, _filtering) = self.boundaries_of_compaction();
        let output = JobOutput {
            level: pick.output_level,
            is_move: pick.is_move,
            // What is joined becomes one table. It is smaller than a table may be, but that is only
            // known at its end: blocks are counted as they are before they are compressed.
            table_size_bytes: match inputs.iter().all(|(level, _)| *level == pick.output_level) {
                true => u64::MAX,
                false => self.ctx.options.table_size_bytes(),
            },
        };
        let done = self.run_job(&version, &inputs, &boundaries, output);
        self.note_inputs(&done, &inputs);
        if let Err(error) = &done {
            self.leave_out(error, &inputs);
        }
        done.map(|_| true)
    }

    /// The job that is due most.
    fn pick_due(&self, version: &Version, compactions: &mut Compactions) -> Option<Pick> {
        let tree = self.tree_of(version, compactions, false);
        let settled = tree.settled_in_level0(&self.limits());
        self.level0_settled.store(settled, Ordering::Relaxed);
        let mut picked = tree.pick(&self.limits());
        let waits = picked.is_none().then(|| tree.next_release());
        let expired_by_ms = tree.expired_by_ms;
        let owes = picked.is_none() && !compactions.failed_inputs.is_empty();
        if owes && !mutated!("failed-read-is-not-tried-again") {
            let edits = self.edits();
            if compactions.edits_at_look != Some(edits) {
                compactions.edits_at_look = Some(edits);
                self.compaction_due.store(true, Ordering::Release);
                return None;
            }
            let tree = self.tree_of(version, compactions, true);
            picked = tree.pick(&self.limits());
            if picked.is_none() && compactions.spans.is_empty() {
                // It is wanted no more.
                compactions.failed_inputs.clear();
            }
        }
        if picked.is_none() {
            let next = waits.flatten().map_or(u64::MAX, |seq| seq.0);
            self.next_release.store(next, Ordering::Relaxed);
            let expiries = version
                .tables()
                .map(|(_, table)| table.meta().half_expired_ms);
            let next_expiry_ms = expiries.filter(|at| *at > expired_by_ms).min();
            self.next_expiry_ms
                .store(next_expiry_ms.unwrap_or(NEVER), Ordering::Relaxed);
            if next != u64::MAX && self.ctx.snapshot_tracker.await_release(SeqNo(next)) {
                // A snapshot has gone since.
                self.ctx.host.wake();
            }
        }
        picked
    }

    /// A job over what was flushed since `compact` has begun.
    fn pick_beside_full(&self, version: &Version, compactions: &Compactions) -> Option<Pick> {
        if mutated!("full-compaction-lets-level-0-grow") {
            return None;
        }
        let tree = self.tree_of(version, compactions, false);
        let settled = tree.settled_beside_full(&self.limits());
        self.level0_settled.store(settled, Ordering::Relaxed);
        tree.pick_beside_full(&self.limits())
    }

    /// Notes which tables a job that failed is to be tried again with.
    fn note_inputs<T>(&self, done: &Result<T>, inputs: &[(usize, Arc<TableHandle>)]) {
        let mut compactions = self.compactions.lock();
        let ids = inputs.iter().map(|(_, table)| table.id());
        match done {
            Ok(_) if compactions.failed_inputs.is_empty() => {}
            Ok(_) => {
                let version = Arc::clone(&self.current.load().version);
                let failed_inputs = &mut compactions.failed_inputs;
                failed_inputs.retain(|id| !ids.clone().any(|input| input == *id));
                failed_inputs.retain(|id| version.has_table(*id));
            }
            // Damage stays, and stays known. A job that was given up did not fail.
            Err(error) if error.is_corruption() || matches!(error, Error::Closed) => {}
            Err(_) => {
                compactions.failed_inputs.extend(ids);
                compactions.edits_at_look = Some(self.edits());
            }
        }
    }

    /// True if a job that has failed is still to be done.
    pub(in crate::lsm) fn has_failed_inputs(&self) -> bool {
        let compactions = self.compactions.lock();
        let version = Arc::clone(&self.current.load().version);
        let mut failed_inputs = compactions.failed_inputs.iter();
        failed_inputs.any(|id| version.has_table(*id))
    }

    /// Edits of the manifest since it was opened.
    fn edits(&self) -> u64 {
        let counters = &self.counters;
        counters.flushes.load(Ordering::Relaxed) + counters.compactions.load(Ordering::Relaxed)
    }

    /// Notes which of a job's `outputs` have older versions though no snapshot held any of them.
    pub(in crate::lsm) fn note_unfreeable(&self, outputs: &[TableMeta], boundaries: &Boundaries) {
        let is_one =
            |meta: &&TableMeta| meta.older_versions > 0 && meta.largest_seq <= boundaries.oldest();
        let mut found = outputs.iter().filter(is_one).map(|meta| meta.id).peekable();
        if found.peek().is_none() || mutated!("merges-taken-for-held-versions") {
            return;
        }
        let version = Arc::clone(&self.current.load().version);
        let mut compactions = self.compactions.lock();
        compactions.unfreeable.retain(|id| version.has_table(*id));
        compactions.unfreeable.extend(found);
    }

    /// Leaves the table that a job could not read because of `error` out of picks for a while.
    fn leave_out(&self, error: &Error, inputs: &[(usize, Arc<TableHandle>)]) {
        let path = match error {
            Error::Corruption { file, .. } => file,
            Error::Io { path, .. } => path,
            _ => return,
        };
        let Some((_, table)) = inputs
            .iter()
            .find(|(_, table)| table.table().path() == path)
        else {
            return;
        };
        let mut compactions = self.compactions.lock();
        let unreadable = &mut compactions.unreadable;
        let version = Arc::clone(&self.current.load().version);
        unreadable.retain(|id, _| version.has_table(*id));
        let last = unreadable.get(&table.id());
        let wait_edits = last.map_or(FIRST_WAIT_EDITS, |last| last.wait_edits.saturating_mul(2));
        let until_edit = self.edits().saturating_add(wait_edits);
        let left_out = Unreadable {
            until_edit,
            wait_edits,
            is_damaged: error.is_corruption(),
        };
        unreadable.insert(table.id(), left_out);
    }

    /// One job over all tables, which needs space for old and new ones until it ends. Nothing, if
    /// nothing has changed since this was last done and there was nothing left to drop then.
    pub(in crate::lsm) fn compact_all(&self) -> Result<()> {
        self.flush()?;
        let (full, version) = RunningFull::begin(self)?;
        let table_size_bytes = self.ctx.options.table_size_bytes();
        let last = self.table_form(LEVELS - 1);
        let is_settled = {
            let settled = self.settled.lock();
            // The weak pointer keeps the address from being used again.
            settled.version.as_ptr() == Arc::as_ptr(&version)
                && settled.table_size_bytes == table_size_bytes
        };
        // Options may have changed since.
        let is_as_asked = version
            .tables()
            .all(|(_, table)| table.table().properties().form == last);
        if is_settled && is_as_asked && !self.ctx.resolver.compactions_judge() {
            return Ok(());
        }
        let inputs: Vec<_> = version
            .tables()
            .map(|(level, table)| (level, Arc::clone(table)))
            .collect();
        if !inputs.is_empty() {
            let (boundaries, _filtering) = self.boundaries_of_compaction();
            let newest = inputs.iter().map(|(_, table)| table.meta().largest_seq);
            // All entries were in one stripe, so one version of each key was kept, and no delete.
            let is_one_stripe = boundaries.as_slice().len() == 1
                && newest
                    .max()
                    .is_none_or(|newest| newest <= boundaries.oldest());
            let output = JobOutput {
                level: LEVELS - 1,
                is_move: false,
                table_size_bytes,
            };
            let installed = self.run_job(&version, &inputs, &boundaries, output)?;
            {
                let mut compactions = self.compactions.lock();
                let forgets = mutated!("failed-join-forgotten-by-a-full-compaction");
                let failed_inputs = &mut compactions.failed_inputs;
                failed_inputs.retain(|id| installed.has_table(*id) && !forgets);
            }
            // A flush may have added a table meanwhile.
            if is_one_stripe && installed.tables().all(|(level, _)| level == LEVELS - 1) {
                *self.settled.lock() = Settled {
                    version: Arc::downgrade(&installed),
                    table_size_bytes,
                };
            }
        }
        drop(full);
        drop((version, inputs));
        self.collect_garbage();
        Ok(())
    }

    /// How the tables are written that a job makes of `inputs` in `level`.
    fn form_of_outputs(&self, inputs: &[(usize, Arc<TableHandle>)], level: usize) -> TableForm {
        let last = self.table_form(LEVELS - 1);
        let stays_as_it_is = |(from, table): &(usize, Arc<TableHandle>)| {
            *from == level && table.table().properties().form == last
        };
        match inputs.iter().all(stays_as_it_is) {
            // On its way to the last level.
            true => last,
            // What is joined in level 0 stays, unlike what is flushed, so it is compressed.
            false => self.table_form(level),
        }
    }

    /// Compacts `inputs` into `output` and installs the result, which is returned.
    fn run_job(
        &self,
        version: &Version,
        inputs: &[(usize, Arc<TableHandle>)],
        boundaries: &Boundaries,
        output: JobOutput,
    ) -> Result<Arc<Version>> {
        let judged = Judged::default();
        let mut outputs = Vec::new();
        let added = if has_all_expired(version, inputs, boundaries, output.level) {
            let values = inputs
                .iter()
                .map(|(_, table)| table.meta().entries - table.meta().deletes);
            judged.expired.set(values.sum());
            Vec::new()
        } else if output.is_move {
            inputs.iter().map(|(_, table)| Arc::clone(table)).collect()
        } else {
            let job = Job {
                version,
                inputs,
                output_level: output.level,
                rules: Rules {
                    resolver: &self.ctx.resolver,
                    values: &self.ctx.values,
                    boundaries,
                    judged: &judged,
                },
                table_size_bytes: output.table_size_bytes,
                host: &*self.ctx.host,
            };
            let next_id = || self.take_file_id();
            let form = self.form_of_outputs(inputs, output.level);
            outputs = job.run(self.output_context(form, &next_id))?;
            let bytes = outputs.iter().map(|output| output.size_bytes).sum();
            self.counters
                .compaction_bytes
                .fetch_add(bytes, Ordering::Relaxed);
            self.open_outputs(&outputs)?
        };
        let edit = VersionEdit {
            removed: inputs
                .iter()
                .map(|(level, table)| (*level, table.id()))
                .collect(),
            added: added
                .into_iter()
                .map(|table| (output.level, table))
                .collect(),
            persisted_seq: None,
            judges: judged.has_any(),
        };
        if mutated!("inputs-removed-before-the-edit") && !output.is_move {
            self.remove_files(inputs.iter().map(|(_, table)| table.id()));
        }
        let installed = self.install(&edit, None)?;
        // Not before: another job may end meanwhile, and forget what is in no version.
        self.note_unfreeable(&outputs, boundaries);
        judged.count_in(&self.ctx.resolver);
        self.counters.compactions.fetch_add(1, Ordering::Relaxed);
        self.ctx.host.progressed();
        Ok(installed)
    }
}

/// True if no read sees anything of `inputs`, nor of what they hide: they go as a whole, without
/// being read.
fn has_all_expired(
    version: &Version,
    inputs: &[(usize, Arc<TableHandle>)],
    boundaries: &Boundaries,
    output_level: usize,
) -> bool {
    let below = &version.levels()[output_level + 1..];
    let by_ms = boundaries.moment(SeqNo::ZERO).expired_by_ms;
    output_level > 0
        && inputs.iter().all(|(_, table)| {
            let meta = table.meta();
            let end = meta.largest_key.as_ref().map(Vec::as_slice);
            let mut overlapping = below
                .iter()
                .map(|level| level.overlapping(&meta.smallest_key, end));
            meta.expires_by_ms <= by_ms
                && meta.range_tombstones == 0
                && overlapping.all(|tables| tables.is_empty())
        })
}

/// Where a job writes to.
struct JobOutput {
    level: usize,
    /// The inputs go there as they are.
    is_move: bool,
    /// Where outputs are cut.
    table_size_bytes: u64,
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

/// How often one who waits for a job looks whether the store is being closed.
const LOOK_AT_CLOSING: Duration = Duration::from_millis(50);

/// Keeps other compactions away while it lives, but for those of what is flushed meanwhile.
struct RunningFull<'a> {
    engine: &'a LsmEngine,
    /// All tables that there were when it began.
    inputs: Vec<FileId>,
}

impl<'a> RunningFull<'a> {
    /// Waits for running jobs to end, and takes all tables of the version that there is then. An
    /// error if the store is closed first: one of them may wait for that.
    fn begin(engine: &'a LsmEngine) -> Result<(Self, Arc<Version>)> {
        let mut compactions = engine.compactions.lock();
        while compactions.full != FullCompaction::None {
            engine.wait_for_a_job(&mut compactions)?;
        }
        compactions.full = FullCompaction::Waiting;
        let mut running = Self {
            engine,
            inputs: Vec::new(),
        };
        while !compactions.spans.is_empty() {
            if let Err(error) = engine.wait_for_a_job(&mut compactions) {
                // Dropping the other takes it.
                drop(compactions);
                return Err(error);
            }
        }
        // With the lock held, as for other jobs.
        let version = Arc::clone(&engine.current.load().version);
        running
            .inputs
            .extend(version.tables().map(|(_, table)| table.id()));
        compactions.busy.extend(&running.inputs);
        compactions.full = FullCompaction::Running;
        engine.drain.pause(true);
        drop(compactions);
        engine.look_for_jobs();
        Ok((running, version))
    }
}

impl Drop for RunningFull<'_> {
    fn drop(&mut self) {
        let mut compactions = self.engine.compactions.lock();
        for id in &self.inputs {
            compactions.busy.remove(id);
        }
        compactions.full = FullCompaction::None;
        self.engine.drain.pause(false);
        // Its inputs are not there any more.
        self.engine.level0_settled.store(0, Ordering::Relaxed);
        drop(compactions);
        self.engine.job_ended.notify_all();
        self.engine.look_for_jobs();
    }
}

impl LsmEngine {
    /// Waits until a job has ended, or for a moment.
    fn wait_for_a_job(&self, compactions: &mut MutexGuard<'_, Compactions>) -> Result<()> {
        self.ctx.host.check_running()?;
        self.job_ended.wait_for(compactions, LOOK_AT_CLOSING);
        Ok(())
    }

    /// Other jobs can be picked than before.
    fn look_for_jobs(&self) {
        self.compaction_due.store(true, Ordering::Release);
        self.ctx.host.wake();
    }
}

impl LsmEngine {
    /// What to pick from. Tables that could not be read are left out for a while, but for those
    /// that `retries` includes: they are not damaged.
    fn tree_of<'a>(
        &self,
        version: &'a Version,
        compactions: &'a Compactions,
        retries: bool,
    ) -> Tree<'a> {
        let edits = self.edits();
        let is_left_out = |id: &FileId| {
            let unreadable = compactions.unreadable.get(id);
            unreadable.is_some_and(|left_out| {
                edits < left_out.until_edit && (!retries || left_out.is_damaged)
            })
        };
        let (upper, last) = (self.table_form(1), self.table_form(LEVELS - 1));
        let expired_by_ms = self.expired_by_ms();
        let info = |level: usize, table: &'a Arc<TableHandle>| {
            let (meta, form) = (table.meta(), table.table().properties().form);
            let covered_bytes = match level {
                0 => table.covered_bytes(|| covered_bytes(version, table)),
                _ => CoveredBytes::default(),
            };
            FileInfo {
                id: meta.id,
                size_bytes: meta.size_bytes,
                smallest: &meta.smallest_key,
                largest: meta.largest_key.as_ref().map(Vec::as_slice),
                entries: meta.entries,
                deletes: meta.deletes,
                range_tombstones: meta.range_tombstones,
                largest_seq: meta.largest_seq,
                older_versions: match compactions.unfreeable.contains(&meta.id) {
                    true => 0,
                    false => meta.older_versions,
                },
                covered_bytes,
                is_expired: meta.half_expired_ms <= expired_by_ms,
                fits_upper: form == upper,
                fits_last: form == last,
                is_busy: compactions.busy.contains(&meta.id),
                is_unreadable: is_left_out(&meta.id),
            }
        };
        Tree {
            levels: std::array::from_fn(|level| {
                let tables = version.level(level).tables().iter();
                tables.map(|table| info(level, table)).collect()
            }),
            running: &compactions.spans,
            oldest_read: self.ctx.snapshot_tracker.oldest_read(),
            expired_by_ms,
        }
    }
}
