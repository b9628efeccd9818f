//! Writing a memtable to a table of level 0.
//!
//! A flush reads one immutable memtable and writes one table, without locks. Installing the table
//! is the engine's. Versions that no read can see are dropped on the way: of a hot key that was
//! overwritten a million times, one goes to disk.

use std::sync::atomic::Ordering;

use super::entry::{EntryCursor, RangeTombstone};
use super::memtable::Memtable;
use super::merge::MergeCursor;
use super::retention::{Boundaries, Retention};
use super::source::Source;
use super::state::LsmEngine;
use super::table::TableMeta;
use super::table_writer::{OutputContext, Outputs};
use super::tombstones::{TombstoneIndex, condense};
use super::version::VersionEdit;
use crate::error::Result;
use crate::options::Compression;
use crate::util::mutants::mutated;

impl LsmEngine {
    /// Persists the oldest immutable memtable (L2). False if there is none.
    pub(super) fn flush_oldest(&self) -> Result<bool> {
        let _flushing = self.flushing.lock();
        let Some(memtable) = self.current.load().immutable.last().cloned() else {
            return Ok(false);
        };
        if !self.manifest.lock().is_written() {
            self.ctx.keep.make_dir()?;
        }
        let boundaries = Boundaries::new(self.ctx.snapshot_tracker.live());
        let next_id = || self.take_file_id();
        // Uncompressed: the table is rewritten soon, and the newest data is read most.
        let output = self.output_context(Compression::None, &next_id);
        let output = write_table(&memtable, &boundaries, output)?;
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
        };
        self.install(&edit, Some(&memtable))?;
        let bytes = output.map_or(0, |output| output.size_bytes);
        self.counters
            .flush_bytes
            .fetch_add(bytes, Ordering::Relaxed);
        self.counters.flushes.fetch_add(1, Ordering::Relaxed);
        self.ctx.host.progressed();
        Ok(true)
    }
}

/// Writes what reads can see of `memtable`, synced. `None` if that is nothing, which happens if all
/// operations were empty range deletes.
fn write_table(
    memtable: &Memtable,
    boundaries: &Boundaries,
    ctx: OutputContext<'_>,
) -> Result<Option<TableMeta>> {
    let tombstones: Vec<RangeTombstone> = memtable
        .tombstones()
        .indexes()
        .iter()
        .flat_map(|index| index.tombstones())
        .collect();
    let passed_on = condense(&tombstones, boundaries.as_slice());
    let index = TombstoneIndex::new(tombstones);
    let mut retention = Retention::new(boundaries, &index);
    let mut outputs = Outputs::new(ctx, passed_on);
    let mut merge = MergeCursor::new(vec![Source::of_memtable(memtable)]);
    merge.seek_first()?;
    let mut is_first = true;
    while merge.is_valid() {
        let begins_key = is_first || !merge.repeats_key();
        is_first = false;
        let entry = merge.entry();
        // Deletes are kept: older tables may know the key.
        if retention.keeps(&entry, begins_key, |_| false) {
            outputs.add(&entry)?;
        }
        merge.next()?;
    }
    // Nothing was cut, so there is at most one table.
    Ok(outputs.finish()?.pop())
}
