//! Tables in versions.
//!
//! A [`TableHandle`] that has left the current version hands its file to the [`ObsoleteFiles`] when
//! the last version that has it is dropped.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use super::obsolete_files::ObsoleteFiles;
use super::table::{Table, TableMeta};
use super::tombstones::TombstoneIndex;
use crate::error::Result;
use crate::types::FileId;
use crate::util::mutants::mutated;
use crate::values::{FileHold, ValueFiles};

/// Bytes that the range tombstones of a table of level 0 hide, about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct CoveredBytes {
    /// In older tables of level 0.
    pub(crate) in_level0: u64,
    /// In the levels below.
    pub(crate) below: u64,
}

/// An open table in some version.
#[derive(Debug)]
pub(crate) struct TableHandle {
    table: Arc<Table>,
    /// See [`TableHandle::covered_bytes`].
    covered_bytes: OnceLock<CoveredBytes>,
    /// What entries refer to (VF1).
    _value_files: Vec<FileHold>,
    obsolete: AtomicBool,
    obsolete_files: Arc<ObsoleteFiles>,
}

impl TableHandle {
    /// Wraps an open table, and holds the value files that it refers to.
    pub(crate) fn new(
        table: Table,
        obsolete_files: Arc<ObsoleteFiles>,
        values: &ValueFiles,
    ) -> Result<Self> {
        let files = &table.meta().value_files;
        let held = files
            .iter()
            .skip(mutated!("table-holds-one-value-file-less", 1, 0));
        let holds = held.map(|(file, _)| values.hold(*file));
        Ok(Self {
            _value_files: holds.collect::<Result<_>>()?,
            table: Arc::new(table),
            covered_bytes: OnceLock::new(),
            obsolete: AtomicBool::new(false),
            obsolete_files,
        })
    }

    /// False if the table knows nothing of a key with that filter hash.
    #[inline]
    pub(crate) fn may_know_of(&self, key_hash: u64) -> bool {
        !self.tombstones().is_empty() || self.table.may_contain(key_hash)
    }

    /// The table.
    #[inline]
    pub(crate) fn table(&self) -> &Arc<Table> {
        &self.table
    }

    /// What the manifest knows of the table.
    #[inline]
    pub(crate) fn meta(&self) -> &TableMeta {
        self.table.meta()
    }

    /// The file's number.
    pub(crate) fn id(&self) -> FileId {
        self.meta().id
    }

    /// The table's range tombstones.
    #[inline]
    pub(crate) fn tombstones(&self) -> &Arc<TombstoneIndex> {
        self.table.tombstones()
    }

    /// Bytes of older tables that the range tombstones hide, as `estimate` says, which is asked
    /// once.
    pub(crate) fn covered_bytes(&self, estimate: impl FnOnce() -> CoveredBytes) -> CoveredBytes {
        *self.covered_bytes.get_or_init(estimate)
    }

    /// True if the table has left the current version.
    pub(crate) fn is_obsolete(&self) -> bool {
        self.obsolete.load(Ordering::Relaxed)
    }

    /// The table is in no future version: its file goes when this handle does.
    pub(crate) fn mark_obsolete(&self) {
        self.obsolete.store(true, Ordering::Relaxed);
    }
}

impl Drop for TableHandle {
    fn drop(&mut self) {
        if *self.obsolete.get_mut() {
            self.obsolete_files.enqueue(Arc::clone(&self.table));
        }
    }
}
