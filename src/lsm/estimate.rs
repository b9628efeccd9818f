//! Ranges in pieces, for estimates: from the indexes of tables, without reading blocks.
//!
//! A block is a piece, or several are where a table has many; entries of memtables are walked and
//! taken together by the dozen. Pieces of all sources are put in one order. What was overwritten or
//! deleted counts until compaction removes it.

use std::ops::Bound;
use std::sync::Arc;

use super::memtable::Memtable;
use super::superversion::Superversion;
use super::table_handle::{CoveredBytes, TableHandle};
use super::version::{Level, Version};
use crate::engine::Piece;
use crate::error::Result;
use crate::types::{KeyRange, SeqNo};
use crate::values::ValueRef;

use super::entry::{Entry, EntryKind, seek_word};

/// Entries of a memtable that make a piece.
const MEMTABLE_PIECE_ENTRIES: u64 = 16;

impl Superversion {
    /// As [`crate::engine::ReadView::pieces`].
    pub(crate) fn pieces(&self, range: &KeyRange, at_least: usize) -> Result<Vec<Piece>> {
        let mut pieces = Vec::new();
        if range.is_empty() {
            return Ok(pieces);
        }
        for memtable in self.memtables() {
            add_memtable(memtable, range, &mut pieces)?;
        }
        for (_, table) in self.version.tables() {
            if table.meta().overlaps(&range.start, range.end.as_deref()) {
                add_table(table, range, at_least, &mut pieces);
            }
        }
        pieces.sort_by(|a, b| a.start.cmp(&b.start));
        Ok(pieces)
    }
}

fn add_memtable(memtable: &Memtable, range: &KeyRange, pieces: &mut Vec<Piece>) -> Result<()> {
    let mut cursor = memtable.cursor();
    cursor.seek(&range.start, SeqNo::MAX)?;
    let mut piece: Option<Piece> = None;
    while cursor.is_valid() {
        let entry = cursor.entry();
        if range
            .end
            .as_ref()
            .is_some_and(|end| entry.key >= end.as_slice())
        {
            break;
        }
        if entry.kind.is_put() {
            let current = piece.get_or_insert_with(|| Piece {
                start: entry.key.to_vec(),
                entries: 0,
                bytes: 0,
            });
            current.entries += 1;
            current.bytes += (entry.key.len() + value_len(&entry)) as u64;
            if current.entries == MEMTABLE_PIECE_ENTRIES {
                pieces.extend(piece.take());
            }
        }
        cursor.next()?;
    }
    pieces.extend(piece);
    Ok(())
}

/// Length of the value of an entry, wherever it is stored.
fn value_len(entry: &Entry<'_>) -> usize {
    match entry.kind {
        EntryKind::PutRef => ValueRef::decode(entry.value).map_or(0, |value| value.len_bytes),
        _ => entry.value.len(),
    }
}

fn add_table(table: &TableHandle, range: &KeyRange, at_least: usize, pieces: &mut Vec<Piece>) {
    let meta = table.meta();
    let index = table.table().index();
    let blocks = table.table().blocks();
    let blocks_bytes = match blocks {
        0 => return,
        _ => index.block_at(blocks) - index.block_at(0),
    };
    let word = seek_word(SeqNo::MAX);
    let first = index.separators_up_to(&range.start, word).saturating_sub(1);
    let last = match &range.end {
        Some(end) => {
            let mut last = index.separators_up_to(end, word);
            // A block that begins with the end has nothing of the range.
            while last > first && index.separator(last - 1).0 == *end {
                last -= 1;
            }
            last
        }
        None => blocks,
    };
    let puts = u128::from(meta.entries - meta.deletes);
    // Entries in front of a block: as many as its share of the bytes. Rounding once for each place,
    // and not for each piece, keeps the sum right.
    let entries_before = |no: u32| {
        let bytes = u128::from(index.block_at(no) - index.block_at(0));
        (puts * bytes / u128::from(blocks_bytes.max(1))) as u64
    };
    // The same of what is stored apart.
    let apart_bytes = u128::from(meta.apart_bytes());
    let apart_before = |no: u32| {
        let bytes = u128::from(index.block_at(no) - index.block_at(0));
        (apart_bytes * bytes / u128::from(blocks_bytes.max(1))) as u64
    };
    let step = ((last.saturating_sub(first)) as usize / at_least.max(1)).max(1) as u32;
    let mut from = first;
    while from < last {
        let to = (from + step).min(last);
        let bytes = index.block_at(to) - index.block_at(from);
        let (separator, _) = index.separator(from);
        pieces.push(Piece {
            start: separator.max(range.start.clone()),
            entries: entries_before(to) - entries_before(from),
            bytes: bytes + apart_before(to) - apart_before(from),
        });
        from = to;
    }
}

/// Ranges that are looked at of one table.
const MAX_COVERED_RANGES: usize = 1024;

/// What the range tombstones of `table`, which is in level 0, hide.
pub(crate) fn covered_bytes(version: &Version, table: &TableHandle) -> CoveredBytes {
    let levels = version.levels();
    let level0 = levels[0].tables().iter();
    let is_it = |other: &&Arc<TableHandle>| other.meta().id == table.meta().id;
    let older = level0.skip_while(|other| !is_it(other)).skip(1);
    let mut covered = CoveredBytes::default();
    let ranges = table.tombstones().covered_ranges();
    for (start, end) in ranges.take(MAX_COVERED_RANGES) {
        let bound = end.map_or(Bound::Unbounded, Bound::Excluded);
        let overlapping = |level: &'_ Level| -> u64 {
            let tables = level.overlapping(start, bound).iter();
            tables.map(|table| bytes_between(table, start, end)).sum()
        };
        covered.below += levels[1..].iter().map(overlapping).sum::<u64>();
        let older = older
            .clone()
            .filter(|other| other.meta().overlaps(start, end));
        covered.in_level0 += older
            .map(|other| bytes_between(other, start, end))
            .sum::<u64>();
    }
    covered
}

/// Bytes of the blocks that lie wholly within the range.
fn bytes_between(table: &TableHandle, start: &[u8], end: Option<&[u8]>) -> u64 {
    let index = table.table().index();
    let word = seek_word(SeqNo::MAX);
    let first = match table.meta().smallest_key.as_slice() < start {
        true => index.separators_up_to(start, word),
        false => 0,
    };
    let last = match end {
        Some(end) if !table.meta().is_before(end) => {
            index.separators_up_to(end, word).saturating_sub(1)
        }
        _ => table.table().blocks(),
    };
    match first < last {
        true => index.block_at(last) - index.block_at(first),
        false => 0,
    }
}
