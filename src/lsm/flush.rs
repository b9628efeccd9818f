//! Writing a memtable to a table of level 0.
//!
//! A flush reads one immutable memtable and writes one table, without locks. Installing the table
//! is the engine's. Versions that no read can see are dropped on the way: of a hot key that was
//! overwritten a million times, one goes to disk.

use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::empty_ranges::after;
use super::entry::RangeTombstone;
use super::kept_entries::{KeptEntries, Rules};
use super::memtable::Memtable;
use super::merge::MergeCursor;
use super::source::Source;
use super::state::LsmEngine;
use super::table::{TableForm, TableMeta};
use super::table_handle::TableHandle;
use super::table_writer::{OutputContext, Outputs};
use super::tombstones::{TombstoneIndex, condense};
use super::version::{LEVELS, Version, VersionEdit};
use crate::error::Result;
use crate::resolve::Judged;
use crate::util::mutants::mutated;

impl LsmEngine {
    /// Persists the oldest immutable memtable (L2). False if there is none.
    pub(super) fn flush_oldest(&self) -> Result<bool> {
        let _flushing = self.flushing.lock();
        let Some(memtable) = self.current.load().immutable.last().cloned() else {
            return Ok(false);
        };
        if !self.manifest.lock().is_written() {
            self.make_dir()?;
        }
        let boundaries = self.boundaries();
        let next_id = || self.take_file_id();
        let output = self.output_context(self.form_of_flush(&memtable)?, &next_id);
        let judged = Judged::default();
        let rules = Rules {
            resolver: &self.ctx.resolver,
            values: &self.ctx.values,
            boundaries: &boundaries,
            judged: &judged,
        };
        let output = write_table(&memtable, rules, output)?;
        let added = self.open_outputs(output.as_slice())?;
        // L3. After the table is written, because by then the log has mostly been synced anyway.
        let sync = || self.ctx.host.make_durable(memtable.last_seq());
        let durable = mutated!("table-installed-before-its-log-is-durable", Ok(()), sync());
        if let Err(error) = durable {
            self.remove_outputs(added);
            return Err(error);
        }
        let edit = VersionEdit {
            removed: Vec::new(),
            added: added.into_iter().map(|table| (0, table)).collect(),
            persisted_seq: Some(memtable.last_seq()),
            judges: judged.has_any(),
        };
        self.install(&edit, Some(&memtable))?;
        self.note_unfreeable(output.as_slice(), &boundaries);
        judged.count_in(&self.ctx.resolver);
        let bytes = output.map_or(0, |output| output.size_bytes);
        self.counters
            .flush_bytes
            .fetch_add(bytes, Ordering::Relaxed);
        self.counters.flushes.fetch_add(1, Ordering::Relaxed);
        // What was left out until this edit may be looked at again.
        self.compaction_due.store(true, Ordering::Release);
        self.ctx.host.progressed();
        Ok(true)
    }
}

impl LsmEngine {
    /// How the table of `memtable` is written. Uncompressed: it is rewritten soon, and the newest
    /// data is read most. But if it overlaps nothing, as where keys rise, it will move down as it
    /// is, and is written for the level that it ends in.
    fn form_of_flush(&self, memtable: &Memtable) -> Result<TableForm> {
        let last = self.table_form(LEVELS - 1);
        let version = Arc::clone(&self.current.load().version);
        match overlaps_nothing(memtable, &version, last)? {
            true if !mutated!("rising-keys-flushed-as-others") => Ok(last),
            _ => Ok(self.table_form(0).uncompressed()),
        }
    }
}

/// True if no table has keys between the first and the last of `memtable`, and level 0 is about to
/// move as it is: a table that is written as `last` says would only be rewritten with the others
/// there.
fn overlaps_nothing(memtable: &Memtable, version: &Version, last: TableForm) -> Result<bool> {
    let mut cursor = memtable.cursor();
    cursor.seek_first()?;
    if !cursor.is_valid() || memtable.tombstones().len() > 0 {
        return Ok(false);
    }
    let first_key = cursor.entry().key.to_vec();
    cursor.seek_last()?;
    let last_key = cursor.entry().key.to_vec();
    let end = after(&last_key);
    let overlaps = |table: &Arc<TableHandle>| table.meta().overlaps(&first_key, Some(&end));
    let below = &version.levels()[1..];
    let level0 = version.level(0).tables();
    Ok(level0
        .iter()
        .all(|table| !overlaps(table) && table.table().properties().form == last)
        && below.iter().all(|level| {
            let found = level.overlapping(&first_key, Bound::Included(&last_key));
            found.is_empty()
        }))
}

/// Writes what reads can see of `memtable`, synced. `None` if that is nothing, which happens if all
/// operations were empty range deletes.
fn write_table(
    memtable: &Memtable,
    rules: Rules<'_>,
    ctx: OutputContext<'_>,
) -> Result<Option<TableMeta>> {
    let boundaries = rules.boundaries;
    let tombstones: Vec<RangeTombstone> = memtable
        .tombstones()
        .indexes()
        .iter()
        .flat_map(|index| index.tombstones())
        .collect();
    let passed_on = condense(&tombstones, boundaries.as_slice());
    let index = TombstoneIndex::new(tombstones);
    let mut outputs = Outputs::new(ctx, passed_on);
    let merge = MergeCursor::new(vec![Source::of_memtable(memtable)]);
    // Deletes are kept: older tables may know the key.
    let mut kept = KeptEntries::new(merge, rules, &index);
    kept.for_each(|_| false, || Ok(()), |entry, _| outputs.add(entry))?;
    // Nothing was cut, so there is at most one table.
    Ok(outputs.finish()?.pop())
}
