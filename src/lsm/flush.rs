//! Writing a memtable to a table of level 0.
//!
//! A flush reads one immutable memtable and writes one table, without locks. Installing the table is the
//! engine's. Versions that no read can see are dropped on the way: of a hot key that was overwritten
//! a million times, one goes to disk.

use super::entry::RangeTombstone;
use super::memtable::Memtable;
use super::retention::{Boundaries, Retention};
use super::table::TableMeta;
use super::table_writer::{OutputContext, Outputs};
use super::tombstones::{TombstoneIndex, condense};
use crate::error::Result;

/// Writes what reads can see of `memtable`, synced. `None` if that is nothing, which happens if all
/// operations were empty range deletes.
pub(crate) fn write_table(
    memtable: &Memtable,
    boundaries: &Boundaries,
    ctx: OutputContext<'_>,
) -> Result<Option<TableMeta>> {
    let tombstones: Vec<RangeTombstone> = memtable
        .tombstones()
        .indexes()
        .iter()
        .flat_map(|index| index.tombstones().iter().cloned())
        .collect();
    let passed_on = condense(&tombstones, boundaries.as_slice());
    let index = TombstoneIndex::new(tombstones);
    let mut retention = Retention::new(boundaries, &index);
    let mut outputs = Outputs::new(ctx, passed_on);
    let mut cursor = memtable.cursor();
    cursor.seek_first()?;
    while cursor.is_valid() {
        let entry = cursor.entry();
        // Deletes are kept: older tables may know the key.
        if retention.keeps(&entry, |_| false) {
            outputs.add(&entry)?;
        }
        cursor.next()?;
    }
    // Nothing was cut, so there is at most one table.
    Ok(outputs.finish()?.pop())
}
