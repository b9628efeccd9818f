//! Entries in the order of their keys go into a keyspace several times as fast by a bulk load as in
//! batches of puts.
//!
//! `cargo run --release --example bulk_load -- 2000000`

use std::time::{Duration, Instant};

use hedgerow::{Batch, Db, Durability, EngineKind, Keyspace, Result};

/// Puts in a batch.
const BATCH: u64 = 1000;

fn main() -> Result<()> {
    let entries = std::env::args()
        .nth(1)
        .map_or(20_000, |text| text.parse().expect("the number of entries"));
    for engine in EngineKind::ALL {
        let batches = measured(engine, entries, in_batches)?;
        let bulk = measured(engine, entries, in_bulk)?;
        println!(
            "{engine}: {entries} entries of 116 bytes in {:.2} s in batches of {BATCH}, in {:.2} s \
             as a bulk load: {:.1} times as fast",
            batches.as_secs_f64(),
            bulk.as_secs_f64(),
            batches.as_secs_f64() / bulk.as_secs_f64(),
        );
    }
    Ok(())
}

/// Time until everything is durable in the files of a new keyspace, and no work on them is due.
fn measured(
    engine: EngineKind,
    entries: u64,
    load: fn(&Keyspace, u64) -> Result<()>,
) -> Result<Duration> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let db = Db::open(dir.path().join("my.db"))?;
    let keyspace = db.keyspace("numbers", engine)?;
    let began = Instant::now();
    load(&keyspace, entries)?;
    keyspace.flush()?;
    db.wait_idle()?;
    let time = began.elapsed();
    assert_eq!(keyspace.len()?, entries);
    Ok(time)
}

fn in_batches(keyspace: &Keyspace, entries: u64) -> Result<()> {
    for start in (0..entries).step_by(BATCH as usize) {
        let mut batch = Batch::new();
        for n in start..(start + BATCH).min(entries) {
            batch.put(key(n), value(n));
        }
        keyspace.write_with(batch, Durability::Buffered)?;
    }
    Ok(())
}

fn in_bulk(keyspace: &Keyspace, entries: u64) -> Result<()> {
    let mut load = keyspace.bulk_load()?;
    for n in 0..entries {
        load.put(key(n), value(n))?;
    }
    load.finish().map(drop)
}

/// Sixteen bytes that order like the number.
fn key(n: u64) -> [u8; 16] {
    let mut key = *b"user\0\0\0\0\0\0\0\0\0\0\0\0";
    key[8..].copy_from_slice(&n.to_be_bytes());
    key
}

/// A hundred bytes, half of which compress.
fn value(n: u64) -> [u8; 100] {
    let mut value = [b'v'; 100];
    let mut state = n.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    for word in value[..48].chunks_exact_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        word.copy_from_slice(&state.to_le_bytes());
    }
    value
}
