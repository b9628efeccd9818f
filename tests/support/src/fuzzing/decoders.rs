//! Targets for what is decoded from a few bytes: records, batches, and the parts of a table.

use hedgerow::Compression;
use hedgerow::internals::lsm::Entry;
use hedgerow::internals::table::{self, Block, BlockBuilder, FilterBuilder};
use hedgerow::internals::{
    Op, RecordsEnd, append_record, catalog_change_round_trip, decode_batch, encode_batch,
    frame_header, read_records, wal,
};

use super::{Bytes, Flags};

/// The seed and the place in the file of the records of this target.
const SEED: u64 = 77;
const BASE: u64 = 100;

/// Framed records: those of a file that grows, and those of a segment of the log.
pub fn log_record(input: &[u8]) {
    let Some((flags, bytes)) = Flags::split(input) else {
        return;
    };
    let mut bytes = bytes.to_vec();
    if flags.other() {
        segment_records(&mut bytes, flags.repaired());
    } else {
        growing_records(&mut bytes, flags.repaired());
    }
}

fn len_at(bytes: &[u8], at: usize) -> Option<usize> {
    let len = bytes.get(at + 4..at + 8)?;
    let len = u32::from_le_bytes(len.try_into().expect("four bytes")) as usize;
    (len <= bytes.len() - at - 8).then_some(len)
}

fn growing_records(bytes: &mut [u8], repaired: bool) {
    let mut whole = 0;
    if repaired {
        let mut at = 0;
        while let Some(len) = len_at(bytes, at).filter(|len| *len > 0) {
            let offset = BASE + at as u64;
            let header = frame_header(SEED, offset, &bytes[at + 8..at + 8 + len]);
            bytes[at..at + 8].copy_from_slice(&header);
            at += 8 + len;
            whole += 1;
        }
    }
    let (records, end) = read_records(bytes, SEED, BASE);
    if repaired {
        assert_eq!(records.len(), whole, "an intact record was not read");
    }
    // The records are the front of the file, byte by byte.
    let mut again = Vec::new();
    for (offset, payload) in &records {
        assert_eq!(*offset, BASE + again.len() as u64);
        append_record(&mut again, SEED, *offset, payload);
    }
    assert!(bytes.starts_with(&again), "records were made up");
    let read_to = BASE + again.len() as u64;
    match end {
        RecordsEnd::End => assert_eq!(again.len(), bytes.len()),
        RecordsEnd::Torn { offset } | RecordsEnd::Damaged { offset } => {
            assert_eq!(offset, read_to);
            assert!(again.len() < bytes.len());
        }
    }
    // Cutting the file cuts the records, and is never called damage of what is whole.
    let cut = bytes.len() / 2;
    let (fewer, end) = read_records(&bytes[..cut], SEED, BASE);
    assert_eq!(fewer[..], records[..fewer.len()]);
    // ... unless an intact record stands behind, which a fuzzer can make part of a payload.
    let (RecordsEnd::Torn { offset } | RecordsEnd::Damaged { offset }) = end else {
        return;
    };
    let torn = (offset - BASE) as usize;
    if cut - torn < 150 {
        let follows = (torn + 1..cut).any(|at| {
            let (records, _) = read_records(&bytes[at..cut], SEED, BASE + at as u64);
            !records.is_empty()
        });
        assert_eq!(
            follows,
            matches!(end, RecordsEnd::Damaged { .. }),
            "{end:?}"
        );
    }
}

fn segment_records(bytes: &mut [u8], repaired: bool) {
    if repaired {
        let mut at = 0;
        while let Some(len) = len_at(bytes, at).filter(|len| *len >= 24) {
            let header = frame_header(SEED, at as u64, &bytes[at + 8..at + 8 + len]);
            bytes[at..at + 8].copy_from_slice(&header);
            at = (at + 8 + len).next_multiple_of(8);
        }
    }
    for at in 0..=bytes.len() {
        let Some(record) = wal::record_at(bytes, at, SEED) else {
            continue;
        };
        assert!(record.synced < record.first && record.first <= record.last);
        let wal::Record {
            first,
            last,
            synced,
            payload,
            next_at,
        } = record;
        let again = wal::encode_record(SEED, at as u64, first, last, synced, payload);
        assert_eq!(bytes[at..at + again.len()], again[..]);
        assert_eq!(next_at, (at + again.len()).next_multiple_of(8));
    }
}

/// Payloads of the log: batches, and changes of the keyspaces.
pub fn batch(input: &[u8]) {
    if let Some(encoded) = catalog_change_round_trip(input) {
        // Numbers may be longer than they need be, as in a batch, and options in any form.
        assert_eq!(
            catalog_change_round_trip(&encoded).as_ref(),
            Some(&encoded),
            "the encoding is not canonical"
        );
        assert!(decode_batch(input).is_err(), "both a batch and a change");
    }
    let ops = match decode_batch(input) {
        Ok(ops) => ops,
        Err(at) => {
            assert!(at < input.len(), "damage behind the end");
            return;
        }
    };
    let encoded = encode_batch(&ops);
    assert!(
        encoded.len() <= input.len(),
        "the encoding is not canonical"
    );
    assert_eq!(decode_batch(&encoded).as_ref(), Ok(&ops));
    // Every operation of a prefix that ends between operations is the same.
    let half = encode_batch(&ops[..ops.len() / 2]);
    assert!(encoded.starts_with(&half));
    // What the log may hold, a caller may ask for, and is given back.
    let mut batch = hedgerow::Batch::new();
    let mut expected = Vec::new();
    for (_, op) in &ops {
        match *op {
            Op::Put { key, value } => batch.put(key, value),
            Op::Delete { key } => batch.delete(key),
            Op::Merge { key, operand } => batch.merge(key, operand),
            Op::DeleteRange { start, end: None } => batch.delete_range(start..),
            Op::DeleteRange {
                start,
                end: Some(end),
            } if start < end => batch.delete_range(start..end),
            Op::DeleteRange { .. } => continue,
        }
        expected.push((0, *op));
    }
    assert_eq!(batch.len(), expected.len());
    // Without its heading, which is two bytes for keyspace 0.
    let payload = encode_batch(&expected);
    assert_eq!(batch.len_bytes(), payload.len().saturating_sub(2));
}

/// An entry that owns its bytes.
type Row = (Vec<u8>, u64, Option<Vec<u8>>);

fn entry(row: &Row) -> Entry<'_> {
    Entry {
        key: &row.0,
        seq: row.1,
        value: row.2.as_deref(),
    }
}

/// Blocks of a table: hostile ones, and ones built from what the input says.
pub fn block(input: &[u8]) {
    let Some((flags, bytes)) = Flags::split(input) else {
        return;
    };
    if flags.other() {
        block_of_rows(bytes);
    } else {
        hostile_block(bytes);
    }
}

fn hostile_block(bytes: &[u8]) {
    let Ok(block) = Block::parse(bytes) else {
        return;
    };
    let mut rows: Vec<Row> = Vec::new();
    let mut whole = true;
    for i in 0..block.count() {
        match block.entry(i) {
            Ok(Some(entry)) => {
                let key = [block.prefix(), entry.key].concat();
                let _ = block.lower_bound(&key, entry.seq);
                rows.push((key, entry.seq, entry.value.map(<[u8]>::to_vec)));
            }
            _ => whole = false,
        }
    }
    for key in [&b""[..], b"k\x05", &[0xFF; 9]] {
        if let Ok(at) = block.lower_bound(key, 5) {
            assert!(at <= block.count());
        }
    }
    if block.check().is_err() {
        return;
    }
    assert!(whole, "a checked block has a damaged entry");
    check_rows(block, &rows);
    let mut builder = BlockBuilder::default();
    rows.iter().for_each(|row| builder.add(entry(row)));
    let mut again = Vec::new();
    builder.encode(&mut again);
    check_rows(Block::parse(&again).expect("just built"), &rows);
}

fn block_of_rows(bytes: &[u8]) {
    let mut source = Bytes(bytes);
    let mut rows: Vec<Row> = Vec::new();
    let mut shared: &[u8] = b"";
    while !source.is_empty() && rows.len() < 400 {
        let how = source.byte();
        if how.is_multiple_of(16) {
            shared = source.short();
        }
        let suffix_len = usize::from(how / 16);
        let key = [shared, source.take(suffix_len)].concat();
        let seq = u64::from(source.byte()) << (how % 8 * 6);
        let value = (how & 8 == 0).then(|| source.short().to_vec());
        rows.push((key, seq, value));
    }
    rows.sort_by(|a, b| (&a.0, b.1).cmp(&(&b.0, a.1)));
    rows.dedup_by(|a, b| (&a.0, a.1) == (&b.0, b.1));
    if rows.is_empty() {
        return;
    }
    let mut builder = BlockBuilder::default();
    rows.iter().for_each(|row| builder.add(entry(row)));
    let mut body = Vec::new();
    builder.encode(&mut body);
    let block = Block::parse(&body).expect("just built");
    assert_eq!(block.check(), Ok(()), "a built block is in order");
    check_rows(block, &rows);
}

/// The block has these rows, and finds each of them.
fn check_rows(block: Block<'_>, rows: &[Row]) {
    assert_eq!(block.count() as usize, rows.len());
    for (i, row) in rows.iter().enumerate() {
        let found = block.entry(i as u32).expect("intact").expect("a kind");
        let key = [block.prefix(), found.key].concat();
        assert_eq!((&key, found.seq), (&row.0, row.1));
        assert_eq!(found.value, row.2.as_deref());
        assert_eq!(block.lower_bound(&row.0, row.1), Ok(i as u32), "not found");
        // Behind all versions of the key stands the next key.
        let later = rows[i..]
            .iter()
            .take_while(|later| later.0 == row.0)
            .count();
        let after = [&row.0[..], &[0]].concat();
        assert_eq!(
            block.lower_bound(&after, u64::MAX >> 8),
            Ok((i + later) as u32)
        );
    }
}

/// Indexes of a table.
pub fn index(input: &[u8]) {
    let mut source = Bytes(input);
    let key = source.short();
    let blocks_end = u64::from(source.u16());
    if let Ok((blocks, found, _)) = table::index_check(source.0, blocks_end, key) {
        assert!(found <= blocks, "a separator behind the last");
        assert!(u64::from(blocks) * 8 <= blocks_end, "blocks without room");
    }
}

/// Filters: any bytes as a filter, and a filter of any keys.
pub fn filter(input: &[u8]) {
    let Some((flags, bytes)) = Flags::split(input) else {
        return;
    };
    let mut source = Bytes(bytes);
    if !flags.other() {
        let probes = source.byte();
        let key = source.short();
        let found = table::filter_may_contain(source.0, probes, table::filter_hash(key));
        if probes == 0 || source.0.len() < 64 {
            assert!(found, "a filter that says nothing excludes a key");
        }
        return;
    }
    let bits_per_key = 1 + u32::from(source.byte() % 40);
    let mut keys = Vec::new();
    while !source.is_empty() && keys.len() < 500 {
        keys.push(source.short());
    }
    let mut builder = FilterBuilder::default();
    for key in &keys {
        builder.add(table::filter_hash(key));
    }
    let (lines, probes) = builder.finish(bits_per_key);
    assert!(
        lines.len() <= keys.len() * 5 + 64,
        "more than was asked for"
    );
    for key in keys {
        let hash = table::filter_hash(key);
        assert!(
            table::filter_may_contain(&lines, probes, hash),
            "a key is missing"
        );
    }
}

/// What frames of blocks say of their encoding.
const PLAIN: u8 = 0;
const LZ4: u8 = 1;
const ZSTD: u8 = 2;

/// Compressed blocks.
pub fn decompress(input: &[u8]) {
    let Some((flags, bytes)) = Flags::split(input) else {
        return;
    };
    let Some((how, bytes)) = bytes.split_first() else {
        return;
    };
    let zstd = Compression::Zstd {
        level: 1 + how / 2 % 19,
    };
    if flags.other() {
        let is_zstd = how % 2 == 1 && zstd.is_available();
        let kind = if is_zstd { zstd } else { Compression::Lz4 };
        let mut payload = Vec::new();
        let tag = table::compress(kind, bytes, &mut payload);
        if tag == PLAIN {
            assert_eq!(payload, bytes);
            return;
        }
        // Eight bytes of a frame stand in front.
        let plain = table::decompress(tag, &payload).expect("what was compressed");
        assert_eq!(plain[8..], *bytes);
        return;
    }
    let tag = if how % 2 == 1 { ZSTD } else { LZ4 };
    if let Ok(plain) = table::decompress(tag, bytes) {
        assert!(
            tag == LZ4 || zstd.is_available(),
            "read without the feature"
        );
        assert!(
            plain.len() <= 8 + 255 * bytes.len(),
            "more than the bytes can say"
        );
        if tag == LZ4 {
            let reference = lz4_flex::block::decompress(&bytes[4..], plain.len() - 8);
            assert_eq!(reference.as_deref().ok(), Some(&plain[8..]));
        }
        hostile_block(&plain[8..]);
    }
}
