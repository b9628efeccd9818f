//! Doing a compaction: merging the inputs, dropping what no read can see, writing the outputs.
//!
//! Reads only the input tables and the version they were picked from; touches nothing else of the
//! engine, so it runs without locks. Installing the result is the engine's.

use std::sync::Arc;

use crate::engine::EngineHost;
use crate::error::Result;
use crate::lsm::entry::RangeTombstone;
use crate::lsm::kept_entries::{KeptEntries, Rules};
use crate::lsm::merge::MergeCursor;
use crate::lsm::run::RunCursor;
use crate::lsm::sorted_run::SortedRun;
use crate::lsm::source::Source;
use crate::lsm::table::{Purpose, TableMeta};
use crate::lsm::table_handle::TableHandle;
use crate::lsm::table_writer::{OutputContext, Outputs};
use crate::lsm::tombstones::{TombstoneIndex, condense};
use crate::lsm::version::{LEVELS, Version};
use crate::util::mutants::mutated;

/// An output may overlap this many times the table size in the level below its own, or compacting
/// it later would be a big job.
pub(super) const MAX_OVERLAP_FACTOR: u64 = 10;

/// What a compaction works on.
pub(crate) struct Job<'a> {
    /// The version that the inputs were picked from.
    pub(crate) version: &'a Version,
    /// Inputs with their levels, in the order of their levels.
    pub(crate) inputs: &'a [(usize, Arc<TableHandle>)],
    pub(crate) output_level: usize,
    pub(crate) rules: Rules<'a>,
    /// Where outputs are cut, in bytes.
    pub(crate) table_size_bytes: u64,
    /// Says when to give up.
    pub(crate) host: &'a dyn EngineHost,
}

impl Job<'_> {
    /// Merges the inputs and writes the outputs, synced. Gives up when the store is being closed.
    pub(crate) fn run(&self, ctx: OutputContext<'_>) -> Result<Vec<TableMeta>> {
        let tombstones: Vec<RangeTombstone> = self
            .inputs
            .iter()
            .flat_map(|(_, table)| table.tombstones().tombstones())
            .collect();
        let passed_on = self.tombstones_to_pass_on(&tombstones);
        let index = TombstoneIndex::new(tombstones);
        let mut outputs = Outputs::new(ctx, passed_on);
        let mut grandparents = Grandparents::new(self.version, self.output_level);
        let max_overlap_bytes = self.table_size_bytes.saturating_mul(MAX_OVERLAP_FACTOR);

        let mut kept = KeptEntries::new(MergeCursor::new(self.sources()), self.rules, &index);
        kept.for_each(
            |key| self.is_bottom(key),
            || self.host.check_running(),
            |entry, begins_key| {
                // Only in front of the first version of a key that is written, by LV4.
                if begins_key {
                    let overlap_bytes = grandparents.pass(entry.key);
                    if outputs.open_bytes() == 0 {
                        // What lies before its first key.
                        grandparents.begin();
                    } else if outputs.open_bytes() >= self.table_size_bytes
                        || overlap_bytes > max_overlap_bytes
                    {
                        outputs.cut(entry.key)?;
                        grandparents.begin();
                    }
                }
                outputs.add(entry)
            },
        )?;
        outputs.finish()
    }

    /// A cursor for each table of level 0, and one for each deeper level's tables.
    fn sources(&self) -> Vec<Source> {
        let mut sources = Vec::new();
        for level in 0..LEVELS {
            let tables = self
                .inputs
                .iter()
                .filter(|(l, _)| *l == level)
                .map(|(_, table)| table);
            if level == 0 {
                let cursors = tables.map(|table| table.table().cursor(Purpose::Rewrite));
                sources.extend(cursors.map(Source::Table));
            } else {
                let mut run: Vec<_> = tables.cloned().collect();
                run.sort_by(|a, b| a.meta().smallest_key.cmp(&b.meta().smallest_key));
                if !run.is_empty() {
                    let run = RunCursor::new(Arc::new(SortedRun::new(run)), Purpose::Rewrite);
                    sources.push(Source::Run(run));
                }
            }
        }
        sources
    }

    /// True if no level below the output knows `key`. Levels between inputs and output are empty
    /// (LP3), what stays in level 0 when others go down knows none of their keys or is newer (LP2),
    /// and what other jobs move meanwhile was below before. What stays in level 0 itself may have
    /// older tables beside it.
    fn is_bottom(&self, key: &[u8]) -> bool {
        if self.output_level == 0 {
            return false;
        }
        let below = &self.version.levels()[self.output_level + 1..];
        below.iter().all(|level| level.find(key).is_none())
    }

    fn tombstones_to_pass_on(&self, tombstones: &[RangeTombstone]) -> Vec<RangeTombstone> {
        let kept: &[_] = mutated!("range-tombstone-dropped-above-the-bottom", &[], tombstones);
        let mut condensed = condense(kept, self.rules.boundaries.as_slice());
        let below = &self.version.levels()[self.output_level + 1..];
        condensed.retain(|t| {
            // As for single deletes: nothing left to hide, for any read.
            let end = t
                .end
                .as_deref()
                .map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
            self.output_level == 0
                || t.seq > self.rules.boundaries.oldest()
                || below
                    .iter()
                    .any(|level| !level.overlapping(&t.start, end).is_empty())
        });
        condensed
    }
}

/// Adds up the tables below the output level that the open output overlaps.
struct Grandparents<'a> {
    tables: &'a [Arc<TableHandle>],
    /// Tables before this one end before the position.
    at: usize,
    bytes: u64,
}

impl<'a> Grandparents<'a> {
    fn new(version: &'a Version, output_level: usize) -> Self {
        let tables = match version.levels().get(output_level + 1) {
            Some(level) => level.tables(),
            None => &[],
        };
        Self {
            tables,
            at: 0,
            bytes: 0,
        }
    }

    /// The position goes on to `key`; returns the bytes of the tables that ended on the way.
    #[inline]
    fn pass(&mut self, key: &[u8]) -> u64 {
        while self.at < self.tables.len() && self.tables[self.at].meta().is_before(key) {
            self.bytes += self.tables[self.at].meta().size_bytes;
            self.at += 1;
        }
        self.bytes
    }

    /// A new output begins at the position.
    fn begin(&mut self) {
        self.bytes = 0;
    }
}
