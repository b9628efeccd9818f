//! Lookups of one key: memtables, then tables, newest first.

use std::sync::Arc;

use super::entry::Entry;
use super::memtable::Memtable;
use super::table::filter_hash;
use super::table_handle::TableHandle;
use super::version::{LEVELS, Version};
use crate::error::Result;
use crate::types::SeqNo;

/// Lends `visit` the newest entry of `key` that `seq` sees in these memtables, newest first, and
/// the tables of `version`; false if there is none, or a delete or range delete hides it.
#[inline]
pub(super) fn find<'a>(
    memtables: impl Iterator<Item = &'a Arc<Memtable>>,
    version: &Version,
    key: &[u8],
    seq: SeqNo,
    visit: &mut dyn FnMut(&Entry<'_>),
) -> Result<bool> {
    let hash = filter_hash(key);
    for memtable in memtables {
        if let Some(is_live) = get_from_memtable(memtable, key, hash, seq, visit) {
            return Ok(is_live);
        }
    }
    // The filters of all levels are asked for before the first of them is waited for.
    let deeper = version.levels()[1..].iter();
    let deeper = deeper.map(|level| level.find(key).map(|table| &**table));
    let mut tables: [Option<&TableHandle>; LEVELS - 1] = [None; LEVELS - 1];
    for (place, table) in tables.iter_mut().zip(deeper) {
        if let Some(table) = table {
            table.table().prefetch_filter(hash);
        }
        *place = table;
    }
    for table in version.level(0).tables().iter() {
        if table.meta().smallest_seq <= seq
            && table.meta().contains_key(key)
            && let Some(is_live) = get_from_table(table, key, hash, seq, visit)?
        {
            return Ok(is_live);
        }
    }
    for table in tables.into_iter().flatten() {
        if let Some(is_live) = get_from_table(table, key, hash, seq, visit)? {
            return Ok(is_live);
        }
    }
    Ok(false)
}

/// Lends the entry, unless it is a delete or covered.
#[inline]
pub(super) fn lend_if_live(
    entry: &Entry<'_>,
    cover: Option<SeqNo>,
    visit: &mut dyn FnMut(&Entry<'_>),
) -> bool {
    let is_live = entry.kind.is_put() && cover.is_none_or(|cover| cover < entry.seq);
    if is_live {
        visit(entry);
    }
    is_live
}

/// `Some(true)` if the memtable has a value and lent its entry, `Some(false)` if it knows that
/// there is none.
#[inline]
pub(super) fn get_from_memtable(
    memtable: &Memtable,
    key: &[u8],
    hash: u64,
    seq: SeqNo,
    visit: &mut dyn FnMut(&Entry<'_>),
) -> Option<bool> {
    let cover = memtable.tombstones().newest_covering(key, seq);
    let mut is_live = false;
    let found = memtable.get(key, hash, seq, &mut |entry| {
        is_live = lend_if_live(entry, cover, visit);
    });
    (found || cover.is_some()).then_some(is_live)
}

/// As [`get_from_memtable`], of a table.
#[inline]
fn get_from_table(
    table: &TableHandle,
    key: &[u8],
    hash: u64,
    seq: SeqNo,
    visit: &mut dyn FnMut(&Entry<'_>),
) -> Result<Option<bool>> {
    let cover = table.tombstones().newest_covering(key, seq);
    let mut is_live = false;
    let found = table.table().get(key, hash, seq, &mut |entry| {
        is_live = lend_if_live(entry, cover, visit);
    })?;
    Ok((found || cover.is_some()).then_some(is_live))
}
