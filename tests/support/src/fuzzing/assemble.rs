//! Tables from what an input says is in them: the frame of the file is right, and the entries, the
//! separators and the range tombstones are in any order. So a fuzzer comes to the cursors at once,
//! and not only when it has guessed all lengths and offsets.

use hedgerow::internals::lsm::Entry;
use hedgerow::internals::table::BlockBuilder;

use super::Bytes;
use crate::forge::table::{Block, Table, add_tombstone};

/// Most entries of a table.
const MAX_ENTRIES: usize = 300;
/// Most blocks of a table.
const MAX_BLOCKS: usize = 24;

/// What goes into a table: keys and sequence numbers, of entries and of range tombstones.
#[derive(Default)]
struct Totals {
    table: Table,
    keys: Vec<Vec<u8>>,
    numbers: Vec<u64>,
}

/// A table without checksums, which says that its number is 0; or `None` if nothing is in it.
pub fn table(mut source: Bytes<'_>) -> Option<Vec<u8>> {
    let mut totals = Totals::default();
    while !source.is_empty() && totals.table.blocks.len() < MAX_BLOCKS {
        let how = source.byte();
        if how % 8 == 7 {
            tombstone(&mut source, how, &mut totals);
            continue;
        }
        let Some((first, bytes)) = block(&mut source, &mut totals) else {
            continue;
        };
        // The first key, a part of it, or anything.
        let separator = match how % 8 {
            5 => first[..first.len() / 2].to_vec(),
            6 => source.short().to_vec(),
            _ => first,
        };
        totals.table.blocks.push(Block {
            separator,
            tag: 0,
            bytes,
        });
    }
    let Totals {
        mut table,
        keys,
        numbers,
    } = totals;
    table.seqs = (*numbers.iter().min()?, *numbers.iter().max()?);
    table.smallest = keys.iter().min()?.clone();
    table.largest = keys.into_iter().max();
    Some(table.without_checksums(0).0)
}

/// The first key and the body of a block.
fn block(source: &mut Bytes<'_>, totals: &mut Totals) -> Option<(Vec<u8>, Vec<u8>)> {
    let mut builder = BlockBuilder::default();
    let mut first = None;
    let mut last: Vec<u8> = Vec::new();
    for _ in 0..source.byte() % 64 {
        if source.is_empty() || totals.table.entries as usize >= MAX_ENTRIES {
            break;
        }
        let how = source.byte();
        // The key again, one next to it, or another.
        let key = match how % 4 {
            0 => last.clone(),
            1 => {
                let mut key = last.clone();
                match key.last_mut() {
                    Some(byte) => *byte = byte.wrapping_add(1),
                    None => key.push(how),
                }
                key
            }
            _ => source.take(usize::from(how / 32)).to_vec(),
        };
        // Mostly seen by everybody; some are above every number that was published.
        let seq = match how & 4 {
            0 => u64::from(source.byte()),
            _ => u64::from(source.byte()) << 16,
        };
        let value = (how & 8 == 0).then(|| vec![how; usize::from(how / 16)]);
        builder.add(Entry {
            key: &key,
            seq,
            value: value.as_deref(),
        });
        totals.keys.push(key.clone());
        totals.numbers.push(seq);
        totals.table.older_versions += u64::from(first.is_some() && key == last);
        totals.table.entries += 1;
        totals.table.deletes += u64::from(value.is_none());
        totals.table.key_bytes += key.len() as u64;
        totals.table.value_bytes += value.map_or(0, |value| value.len() as u64);
        first.get_or_insert_with(|| key.clone());
        last = key;
    }
    let first = first?;
    let mut body = Vec::new();
    builder.encode(&mut body);
    Some((first, body))
}

fn tombstone(source: &mut Bytes<'_>, how: u8, totals: &mut Totals) {
    let start = source.take(usize::from(how / 32)).to_vec();
    let seq = u64::from(source.byte());
    let end = match how & 16 {
        0 => Some([&start[..], source.take(2), &[0]].concat()),
        _ => None,
    };
    add_tombstone(&mut totals.table.tombstones, seq, &start, end.as_deref());
    totals.table.range_tombstones += 1;
    totals.numbers.push(seq);
    totals.keys.push(start);
    totals.keys.extend(end);
}
