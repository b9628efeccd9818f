//! Versions: which tables make up the tree at one moment.
//!
//! # Invariants
//!
//! - **LV1** A version never changes. A flush or a compaction makes a new one from the current one
//!   and a [`VersionEdit`].
//! - **LV2** Level 0 is sorted by age, newest first; its tables may overlap. Tables of a deeper
//!   level are sorted by key and their extents, range tombstones included, are disjoint.
//! - **LV3** For one key, every version in a level is newer than every version in deeper levels;
//!   within level 0, than in older tables. Range tombstones count as versions of the keys they
//!   cover. So a lookup may stop at the first level that knows the key.
//! - **LV4** All versions of a key that are in one deeper level are in one table.
//!
//! Holding a version holds its tables, as [`TableHandle`]s.

use std::collections::HashSet;
use std::ops::Bound;
use std::sync::{Arc, OnceLock};

use super::sorted_run::SortedRun;
use super::table_handle::TableHandle;
use crate::engine::ValueUsage;
use crate::types::{FileId, SeqNo};

/// Number of levels, level 0 included.
pub(crate) const LEVELS: usize = 7;

/// Tables of one level, in the order of LV2.
#[derive(Debug, Clone, Default)]
pub(crate) struct Level {
    run: Arc<SortedRun>,
    /// Those of the tables that have range tombstones.
    with_tombstones: Arc<Vec<Arc<TableHandle>>>,
    bytes: u64,
}

impl Level {
    fn new(tables: Vec<Arc<TableHandle>>) -> Self {
        let with_tombstones = tables.iter().filter(|table| !table.tombstones().is_empty());
        Self {
            with_tombstones: Arc::new(with_tombstones.cloned().collect()),
            bytes: tables.iter().map(|t| t.meta().size_bytes).sum(),
            run: Arc::new(SortedRun::new(tables)),
        }
    }

    /// The tables that have range tombstones, in the order of LV2.
    pub(crate) fn with_tombstones(&self) -> &Arc<Vec<Arc<TableHandle>>> {
        &self.with_tombstones
    }

    /// The tables, in the order of LV2.
    pub(crate) fn tables(&self) -> &[Arc<TableHandle>] {
        self.run.tables()
    }

    /// The tables as a sorted run. Not for level 0.
    pub(crate) fn run(&self) -> &Arc<SortedRun> {
        &self.run
    }

    /// Bytes of all tables.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The table whose extent holds `key`. Not for level 0.
    #[inline]
    pub(crate) fn find(&self, key: &[u8]) -> Option<&Arc<TableHandle>> {
        self.run.find(key)
    }

    /// The tables whose extents meet `[start, end)`. Not for level 0.
    pub(crate) fn overlapping(&self, start: &[u8], end: Bound<&[u8]>) -> &[Arc<TableHandle>] {
        let tables = self.tables();
        let low = self.run.first_not_before(start);
        let high = tables.partition_point(|t| {
            let smallest = t.meta().smallest_key.as_slice();
            match end {
                Bound::Included(end) => smallest <= end,
                Bound::Excluded(end) => smallest < end,
                Bound::Unbounded => true,
            }
        });
        &tables[low..high.max(low)]
    }
}

/// The tables of the tree at one moment (LV1).
#[derive(Debug, Clone, Default)]
pub(crate) struct Version {
    levels: [Level; LEVELS],
    /// How many edits that [judge](VersionEdit::judges) came before it.
    judged: u64,
    /// Summed up when it is asked for.
    value_usage: OnceLock<Arc<ValueUsage>>,
}

/// The difference between a version and the next.
#[derive(Debug, Clone, Default)]
pub(crate) struct VersionEdit {
    /// Tables that leave: level and number.
    pub(crate) removed: Vec<(usize, FileId)>,
    /// Tables that come: level and handle. One that moves to another level is in both lists.
    pub(crate) added: Vec<(usize, Arc<TableHandle>)>,
    /// Everything up to here is in tables now.
    pub(crate) persisted_seq: Option<SeqNo>,
    /// Entries are left out that views of the version before may see: they had expired, or a filter
    /// judged them.
    pub(crate) judges: bool,
}

impl VersionEdit {
    /// The edit was not made, and is not named anywhere: the files of its new tables go.
    pub(crate) fn give_up(&self) {
        for (_, table) in &self.added {
            if self
                .removed
                .iter()
                .all(|(_, removed)| *removed != table.id())
            {
                table.mark_obsolete();
            }
        }
    }
}

impl Version {
    /// The levels, from level 0.
    pub(crate) fn levels(&self) -> &[Level; LEVELS] {
        &self.levels
    }

    /// One level.
    pub(crate) fn level(&self, level: usize) -> &Level {
        &self.levels[level]
    }

    /// All tables with their levels.
    pub(crate) fn tables(&self) -> impl Iterator<Item = (usize, &Arc<TableHandle>)> {
        let levels = self.levels.iter().enumerate();
        levels.flat_map(|(level, l)| l.tables().iter().map(move |table| (level, table)))
    }

    /// True if the table is in some level.
    pub(crate) fn has_table(&self, id: FileId) -> bool {
        self.tables().any(|(_, table)| table.id() == id)
    }

    /// Bytes of all tables.
    pub(crate) fn bytes(&self) -> u64 {
        self.levels.iter().map(Level::bytes).sum()
    }

    /// The version after this one.
    pub(crate) fn apply(&self, edit: &VersionEdit) -> Self {
        let all_removed: HashSet<_> = edit.removed.iter().copied().collect();
        let levels = std::array::from_fn(|level| {
            let touched = edit.removed.iter().any(|(l, _)| *l == level)
                || edit.added.iter().any(|(l, _)| *l == level);
            if !touched {
                return self.levels[level].clone();
            }
            let removed = |table: &Arc<TableHandle>| all_removed.contains(&(level, table.id()));
            let kept = self.levels[level]
                .tables()
                .iter()
                .filter(|table| !removed(table));
            let added = edit
                .added
                .iter()
                .filter(|(l, _)| *l == level)
                .map(|(_, table)| table);
            let mut tables: Vec<_> = kept.chain(added).cloned().collect();
            if level == 0 {
                // Flushes hold disjoint ranges of sequence numbers: the highest tells the age.
                tables.sort_by_key(|t| std::cmp::Reverse((t.meta().largest_seq, t.id().0)));
            } else {
                tables.sort_by(|a, b| a.meta().smallest_key.cmp(&b.meta().smallest_key));
            }
            Level::new(tables)
        });
        Self {
            levels,
            judged: self.judged + u64::from(edit.judges),
            value_usage: OnceLock::new(),
        }
    }

    /// Rises whenever entries are left out that views of an older version may see.
    #[inline]
    pub(crate) fn judged(&self) -> u64 {
        self.judged
    }

    /// What the tables refer to. Whatever is in the last level lives: what lies above may be
    /// another version of the same keys.
    pub(crate) fn value_usage(&self) -> &Arc<ValueUsage> {
        self.value_usage.get_or_init(|| {
            let mut usage = ValueUsage {
                tables_bytes: self.bytes(),
                ..ValueUsage::default()
            };
            let last_used = (0..LEVELS)
                .rev()
                .find(|at| !self.levels[*at].tables().is_empty());
            for (level, table) in self.tables() {
                for (file, bytes) in &table.meta().value_files {
                    *usage.files.entry(*file).or_default() += bytes;
                }
                if Some(level) == last_used && level > 0 {
                    usage.settled_bytes += table.meta().apart_bytes();
                }
            }
            Arc::new(usage)
        })
    }

    /// Every way in which LV2 is broken, one line each.
    pub(crate) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for (number, level) in self.levels.iter().enumerate() {
            for pair in level.tables().windows(2) {
                let (a, b) = (pair[0].meta(), pair[1].meta());
                if number == 0 && a.smallest_seq <= b.largest_seq {
                    problems.push(format!(
                        "level 0: tables {} and {} overlap in sequence numbers",
                        a.id.0, b.id.0
                    ));
                }
                if number > 0 && !a.is_before(&b.smallest_key) {
                    problems.push(format!(
                        "level {number}: tables {} and {} overlap in keys",
                        a.id.0, b.id.0
                    ));
                }
            }
        }
        problems
    }
}
