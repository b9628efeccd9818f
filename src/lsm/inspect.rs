//! What a tree looks like: memtables, levels, tables, blocks, the manifest.

use super::memtable::Memtable;
use super::obsolete_files::{manifest_name, table_name};
use super::state::LsmEngine;
use super::table_handle::TableHandle;
use super::version::{LEVELS, Level, Version};
use crate::engine::{Engine, InspectDetail, Inspection};
use crate::error::Result;

impl LsmEngine {
    /// As [`Engine::inspect`]: the tree of one moment, and then the manifest, which may be that of
    /// the next moment. Waits for an edit of the manifest that is being written.
    pub(super) fn inspect_all(&self, detail: InspectDetail) -> Result<Vec<Inspection>> {
        let superversion = self.superversion();
        let immutable = superversion.immutable.iter();
        let memtables = std::iter::once(of_memtable(&superversion.active, "active"))
            .chain(immutable.map(|memtable| of_memtable(memtable, "full")));
        let mut parts: Vec<Inspection> = memtables.collect();
        parts.extend(of_levels(&superversion.version, detail)?);
        parts.extend(self.of_manifest());
        Ok(parts)
    }

    /// `None` as long as there is none.
    fn of_manifest(&self) -> Option<Inspection> {
        let manifest = self.manifest.lock();
        let part = Inspection::new("manifest", manifest_name(manifest.number()))
            .number("edits", manifest.edits())
            .number("bytes", manifest.len_bytes())
            .number("persisted_seq", self.persisted_seq().0)
            .number(
                "next_file",
                self.next_file.load(std::sync::atomic::Ordering::SeqCst),
            );
        manifest.is_written().then_some(part)
    }
}

fn of_memtable(memtable: &Memtable, name: &str) -> Inspection {
    let part = Inspection::new("memtable", name).number("entries", memtable.entries());
    let tombstones = memtable.tombstones().len() as u64;
    let part = part.number_if_any("range_tombstones", tombstones);
    match memtable.first_seq() {
        // An empty index holds a block of memory already.
        None => part,
        Some(first) => part
            .number("memory_bytes", memtable.size_bytes())
            .number("first_seq", first.0)
            .number("last_seq", memtable.last_seq().0),
    }
}

/// The levels that hold tables.
fn of_levels(version: &Version, detail: InspectDetail) -> Result<Vec<Inspection>> {
    let levels = (0..LEVELS).map(|number| (number, version.level(number)));
    let used = levels.filter(|(_, level)| !level.tables().is_empty());
    used.map(|(number, level)| of_level(number, level, detail))
        .collect()
}

fn of_level(number: usize, level: &Level, detail: InspectDetail) -> Result<Inspection> {
    let tables = level.tables();
    let sum = |figure: fn(&TableHandle) -> u64| tables.iter().map(|table| figure(table)).sum();
    let mut part = Inspection::new("level", number)
        .number("tables", tables.len() as u64)
        .number("entries", sum(|table| table.meta().entries))
        .number_if_any("deletes", sum(|table| table.meta().deletes))
        .number_if_any(
            "range_tombstones",
            sum(|table| table.meta().range_tombstones),
        )
        .number("bytes", level.bytes());
    if detail >= InspectDetail::Tables {
        for table in tables.iter() {
            part.parts.push(of_table(table, detail)?);
        }
    }
    Ok(part)
}

fn of_table(handle: &TableHandle, detail: InspectDetail) -> Result<Inspection> {
    use std::ops::Bound;
    let meta = handle.meta();
    let part = Inspection::new("table", table_name(meta.id))
        .number("entries", meta.entries)
        .number_if_any("deletes", meta.deletes)
        .number_if_any("range_tombstones", meta.range_tombstones)
        .number("first_seq", meta.smallest_seq.0)
        .number("last_seq", meta.largest_seq.0)
        .key("first_key", &meta.smallest_key);
    let part = match &meta.largest_key {
        Bound::Included(key) => part.key("last_key", key),
        Bound::Excluded(key) => part.key("end_key", key),
        Bound::Unbounded => part,
    };
    let table = handle.table();
    let part = part
        .number("bytes", meta.size_bytes)
        .number("blocks", table.blocks().into())
        .number_if_any("compressed_blocks", table.properties().compressed_blocks);
    let part = match table.properties() {
        properties if properties.compressed_blocks == 0 => part,
        properties => part.text("compression", properties.form.compression),
    };
    if detail < InspectDetail::Blocks {
        return Ok(part);
    }
    let blocks: Result<Vec<_>> = (0..table.blocks())
        .map(|no| table.inspect_block(no))
        .collect();
    let tombstones = table.stored_tombstones()?.into_iter().map(|tombstone| {
        let part = Inspection::new("range_tombstone", "")
            .number("seq", tombstone.seq.0)
            .key("start_key", &tombstone.start);
        match &tombstone.end {
            Some(end) => part.key("end_key", end),
            None => part,
        }
    });
    Ok(part.with(blocks?).with(tombstones))
}
