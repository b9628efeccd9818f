//! What a checkpoint knows of the file, and hands to the next one.

use std::collections::HashMap;

use super::new_entries::NewEntries;
use crate::btree::file::freespace::FreeSpace;
use crate::btree::file::meta::{META_BYTES, META_UNITS, Meta};
use crate::btree::file::pager::Pager;
use crate::btree::file::value_table::{ENTRY_BYTES, ValueTable};
use crate::btree::read::readers::Spans;
use crate::engine::ValueUsage;
use crate::error::{Error, Result};
use crate::fs::File;
use crate::types::KeyspaceId;
use crate::util::mutants::mutated;

/// What one checkpoint hands to the next.
#[derive(Debug)]
pub(crate) struct Checkpointer {
    pub(super) store_id: u64,
    pub(super) keyspace: KeyspaceId,
    /// The file's tree.
    pub(super) meta: Meta,
    pub(super) free: FreeSpace,
    pub(super) value_table: ValueTable,
    pub(super) new_entries: NewEntries,
    /// First pages of nodes and extents that were written while a reader kept pages whose span ends
    /// before, and the checkpoint that wrote them. That reader does not need them; of all others
    /// it does not matter when they were written.
    pub(super) births: HashMap<u64, u64>,
    /// A meta page that is not like `meta` and must be before anything is reused.
    pub(super) stale_meta_page: Option<u64>,
    /// Meta page 1 reads like `meta`, and yet may not be on the disk.
    pub(super) is_second_unproven: bool,
    /// Why no checkpoint is possible any more.
    pub(super) broken: Option<Error>,
}

/// The checkpoint that wrote what starts at `page`, as far as it matters.
pub(super) fn birth_of(births: &HashMap<u64, u64>, page: u64) -> u64 {
    births.get(&page).copied().unwrap_or(0)
}

impl Checkpointer {
    /// For a file as it was found. Meta page 1 was written last: if that failed in an earlier
    /// process, it may be in the operating system's cache only.
    pub(crate) fn new(
        store_id: u64,
        keyspace: KeyspaceId,
        meta: Meta,
        free: FreeSpace,
        value_table: ValueTable,
        stale_meta_page: Option<u64>,
    ) -> Self {
        Self {
            store_id,
            keyspace,
            meta,
            free,
            value_table,
            new_entries: NewEntries::default(),
            births: HashMap::new(),
            stale_meta_page,
            is_second_unproven: true,
            broken: None,
        }
    }

    /// The error that made all further checkpoints impossible, if there was one.
    pub(crate) fn check_usable(&self) -> Result<()> {
        match &self.broken {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        }
    }

    pub(crate) fn meta(&self) -> &Meta {
        &self.meta
    }

    pub(crate) fn free(&self) -> &FreeSpace {
        &self.free
    }

    pub(crate) fn free_mut(&mut self) -> &mut FreeSpace {
        &mut self.free
    }

    pub(crate) fn value_table(&self) -> &ValueTable {
        &self.value_table
    }

    pub(crate) fn free_units(&self) -> u64 {
        self.free.free_units()
    }

    /// Units of nodes in the file's tree.
    pub(crate) fn node_units(&self) -> u64 {
        let meta = &self.meta;
        let value_table = meta.value_files * ENTRY_BYTES as u64;
        let others = META_UNITS
            + self.free.free_units()
            + self.free.reserved_units(meta.file_units)
            + meta.overflow_units
            + meta.freelist_bytes.div_ceil(u64::from(meta.unit))
            + value_table.div_ceil(u64::from(meta.unit));
        meta.file_units.saturating_sub(others)
    }

    /// What the file's tree refers to among values that are stored apart. What is in leaves lives,
    /// but for what packs supersede.
    pub(crate) fn value_usage(&self) -> ValueUsage {
        let files = self.value_table.files();
        ValueUsage {
            files: files
                .map(|(file, referred)| (file, referred.by_leaves + referred.by_packs))
                .collect(),
            settled_bytes: self.value_table.files().map(|(_, it)| it.by_leaves).sum(),
            tables_bytes: self.node_units() * u64::from(self.meta.unit),
        }
    }

    /// Checkpoint `generation` freed `freed` and wrote something at each of `written`, while
    /// readers kept the pages of `spans`.
    pub(super) fn note_births(
        &mut self,
        generation: u64,
        spans: &Spans,
        freed: impl Iterator<Item = u64>,
        written: &[u64],
    ) {
        for page in freed {
            self.births.remove(&page);
        }
        if spans.any_ends_before(generation) {
            self.births
                .extend(written.iter().map(|page| (*page, generation)));
        } else {
            self.births = HashMap::new();
        }
    }

    /// What is wrong with meta page `page` of `file`, if anything.
    pub(crate) fn meta_page_problem(
        &self,
        file: &dyn File,
        unit: usize,
        page: u64,
    ) -> Result<Option<String>> {
        let mut bytes = [0; META_BYTES];
        let offset = page * unit as u64;
        file.read_exact_at(&mut bytes, offset)?;
        Ok(
            match Meta::decode(&bytes, self.store_id, self.keyspace, file.path(), offset) {
                Ok(meta) if meta == self.meta => None,
                // A crash between the two writes leaves this; the next checkpoint mends it.
                Ok(meta) if meta.generation < self.meta.generation => None,
                Ok(_) => Some("the meta page is not of the current tree".into()),
                Err(error) => Some(error.to_string()),
            },
        )
    }

    /// Writes meta page `page` (0 or 1) and syncs.
    pub(super) fn write_meta(&self, pager: &Pager, page: u64, meta: &Meta) -> Result<()> {
        let bytes = meta.encode(self.store_id, self.keyspace);
        let file = pager.file()?;
        file.write_all_at(&bytes, page * pager.unit() as u64)?;
        mutated!("meta-page-not-synced", Ok(()), file.sync_data())
    }
}
