//! Tables from what an input says is in them: the frame of the file is right, and the entries, the
//! separators and the range tombstones are in any order. So a fuzzer comes to the cursors at once,
//! and not only when it has guessed all lengths and offsets.
//!
//! Written from docs/format.md, not from the code that it tests.

use hedgerow::internals::head64;
use hedgerow::internals::lsm::Entry;
use hedgerow::internals::table::BlockBuilder;

use super::Bytes;

/// Most entries of a table.
const MAX_ENTRIES: usize = 300;
/// Most blocks of a table.
const MAX_BLOCKS: usize = 24;

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn short(out: &mut Vec<u8>, bytes: &[u8]) {
    varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// What the properties of a table add up to.
#[derive(Default)]
struct Totals {
    keys: Vec<Vec<u8>>,
    numbers: Vec<u64>,
    entries: u64,
    deletes: u64,
    key_bytes: u64,
    value_bytes: u64,
}

/// A table without checksums, or `None` if nothing is in it.
pub fn table(mut source: Bytes<'_>) -> Option<Vec<u8>> {
    let mut file = Vec::new();
    let mut totals = Totals::default();
    let mut separators: Vec<Vec<u8>> = Vec::new();
    let mut offsets = Vec::new();
    let mut tombstones = (0, Vec::new());
    while !source.is_empty() && separators.len() < MAX_BLOCKS {
        let how = source.byte();
        if how % 8 == 7 {
            tombstone(&mut source, how, &mut tombstones, &mut totals);
            continue;
        }
        let Some((first, body)) = block(&mut source, &mut totals) else {
            continue;
        };
        offsets.push(file.len() as u64);
        // The first key, a part of it, or anything.
        separators.push(match how % 8 {
            5 => first[..first.len() / 2].to_vec(),
            6 => source.short().to_vec(),
            _ => first,
        });
        file.extend_from_slice(&[0; 8]);
        file.extend(body);
    }
    if totals.numbers.is_empty() {
        return None;
    }
    let blocks_end = file.len();
    offsets.push(blocks_end as u64);
    // No filter: its frame alone, where it has to be.
    file.resize((blocks_end + 8).next_multiple_of(64) - 8, 0);
    file.extend_from_slice(&[0; 8]);
    let index_at = file.len();
    file.extend_from_slice(&[0; 8]);
    file.extend(index(&separators, &offsets));
    let tombstones_at = file.len();
    file.extend_from_slice(&[0; 8]);
    varint(&mut file, tombstones.0);
    file.extend_from_slice(&tombstones.1);
    let properties_at = file.len();
    file.extend_from_slice(&[0; 8]);
    properties(&mut file, &totals, tombstones.0, separators.len() as u64);
    for field in [0, blocks_end, index_at, tombstones_at, properties_at, 0] {
        file.extend_from_slice(&(field as u64).to_le_bytes());
    }
    file.extend_from_slice(&2u32.to_le_bytes());
    file.extend_from_slice(&[0; 4]);
    file.extend_from_slice(b"HEDGETBL");
    Some(file)
}

/// The first key and the body of a block.
fn block(source: &mut Bytes<'_>, totals: &mut Totals) -> Option<(Vec<u8>, Vec<u8>)> {
    let mut builder = BlockBuilder::default();
    let mut first = None;
    let mut last: Vec<u8> = Vec::new();
    for _ in 0..source.byte() % 64 {
        if source.is_empty() || totals.entries as usize >= MAX_ENTRIES {
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
        totals.entries += 1;
        totals.deletes += u64::from(value.is_none());
        totals.key_bytes += key.len() as u64;
        totals.value_bytes += value.map_or(0, |value| value.len() as u64);
        first.get_or_insert_with(|| key.clone());
        last = key;
    }
    let first = first?;
    let mut body = Vec::new();
    builder.encode(&mut body);
    Some((first, body))
}

fn tombstone(
    source: &mut Bytes<'_>,
    how: u8,
    (count, bytes): &mut (u64, Vec<u8>),
    totals: &mut Totals,
) {
    let start = source.take(usize::from(how / 32)).to_vec();
    let seq = u64::from(source.byte());
    let end = match how & 16 {
        0 => Some([&start[..], source.take(2), &[0]].concat()),
        _ => None,
    };
    varint(bytes, seq);
    short(bytes, &start);
    match &end {
        None => bytes.push(0),
        Some(end) => {
            bytes.push(1);
            short(bytes, end);
        }
    }
    *count += 1;
    totals.numbers.push(seq);
    totals.keys.push(start);
    totals.keys.extend(end);
}

fn index(separators: &[Vec<u8>], offsets: &[u64]) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend_from_slice(&(separators.len() as u32).to_le_bytes());
    out.extend_from_slice(&0u32.to_le_bytes());
    for separator in separators {
        out.extend_from_slice(&head64(separator).to_le_bytes());
    }
    for offset in offsets {
        out.extend_from_slice(&offset.to_le_bytes());
    }
    let mut at = 0u32;
    out.extend_from_slice(&at.to_le_bytes());
    for separator in separators {
        at += separator.len() as u32;
        out.extend_from_slice(&at.to_le_bytes());
    }
    out.extend(separators.concat());
    out
}

fn properties(out: &mut Vec<u8>, totals: &Totals, tombstones: u64, blocks: u64) {
    // Number and length, which the target fills in.
    out.extend_from_slice(&[0; 16]);
    short(out, totals.keys.iter().min().expect("something is in it"));
    out.push(1);
    short(out, totals.keys.iter().max().expect("something is in it"));
    for number in [
        *totals.numbers.iter().min().expect("something is in it"),
        *totals.numbers.iter().max().expect("something is in it"),
        totals.entries,
        totals.deletes,
        tombstones,
        totals.key_bytes,
        totals.value_bytes,
        blocks,
        0,
    ] {
        varint(out, number);
    }
}
