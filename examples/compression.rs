//! What a compression of the last level costs and saves: the cities of the repository, and records
//! of 16 and 100 bytes that compress to about half, in an LSM keyspace.
//!
//! `cargo run --release --example compression -- [RECORDS [COMPRESSION ...]]`, where a compression
//! is `none`, `lz4` or `zstd:LEVEL`

use std::time::{Duration, Instant};

use hedgerow::{Batch, Compression, Durability, EngineKind, Keyspace, KeyspaceOptions, Options};
use hedgerow_bench::cities::cities;

/// Lookups that are timed.
const GETS: usize = 100_000;

type Record = (Vec<u8>, Vec<u8>);
type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let mut args = std::env::args().skip(1);
    let records = args.next().map_or(Ok(2_000), |records| records.parse())?;
    let asked: Vec<Compression> = args.map(|name| name.parse()).collect::<Result<_, _>>()?;
    let compressions = match asked.is_empty() {
        true => ["none", "lz4", "zstd:1", "zstd:3"]
            .map(str::parse)
            .into_iter()
            .collect::<Result<_, _>>()?,
        false => asked,
    };
    let cities: Vec<Record> = cities()
        .into_iter()
        .take(records)
        .map(|city| (city.key, city.value))
        .collect();
    println!("| data | last level | MB | fill s | compact s | get us | scan M/s |");
    println!("| --- | --- | ---: | ---: | ---: | ---: | ---: |");
    for (data, records) in [("cities", cities), ("116 bytes", halves(records))] {
        for compression in &compressions {
            println!(
                "| {data} | {compression} | {} |",
                measure(&records, *compression)?
            );
        }
    }
    Ok(())
}

/// Records whose values are random in one half and repeat it in the other.
fn halves(count: usize) -> Vec<Record> {
    let mut random = Random(1);
    let record = |number: usize| {
        let half: Vec<u8> = std::iter::repeat_with(|| random.next() as u8)
            .take(50)
            .collect();
        (format!("{number:016}").into_bytes(), half.repeat(2))
    };
    (0..count).map(record).collect()
}

/// A row of the table: bytes on the disk, and times.
fn measure(records: &[Record], compression: Compression) -> Result<String, Failure> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("store.db");
    let options = KeyspaceOptions::new(EngineKind::Lsm).last_level_compression(compression);
    let open = || {
        // A cache of nothing, so that each lookup decompresses its block.
        let options = Options::new()
            .durability(Durability::Buffered)
            .cache_bytes(0);
        options.open(&path)
    };
    let mut random = Random(2);
    let db = open()?;
    let keyspace = db.keyspace_with("k", options)?;
    let (fill, compact) = fill(&keyspace, records, &mut random)?;
    let disk_bytes = keyspace.stats().disk_bytes;
    db.close()?;

    let db = open()?;
    let keyspace = db.existing_keyspace("k")?.ok_or("the keyspace is gone")?;
    let begun = Instant::now();
    for _ in 0..GETS.min(10 * records.len()) {
        let (key, value) = &records[random.below(records.len())];
        assert!(keyspace.get(key)?.is_some_and(|found| *found == value[..]));
    }
    let get = begun.elapsed() / GETS.min(10 * records.len()) as u32;
    let begun = Instant::now();
    let mut scanned = 0;
    for entry in keyspace.iter() {
        entry?;
        scanned += 1;
    }
    assert_eq!(scanned, records.len());
    let scan = scanned as f64 / begun.elapsed().as_secs_f64() / 1e6;
    db.close()?;
    Ok(format!(
        "{:.1} | {:.2} | {:.2} | {:.1} | {scan:.2}",
        disk_bytes as f64 / 1e6,
        fill.as_secs_f64(),
        compact.as_secs_f64(),
        get.as_secs_f64() * 1e6,
    ))
}

/// Puts all records in random order, 100 at a time, and compacts. Returns how long each took.
fn fill(
    keyspace: &Keyspace,
    records: &[Record],
    random: &mut Random,
) -> Result<(Duration, Duration), Failure> {
    let mut order: Vec<&Record> = records.iter().collect();
    for at in (1..order.len()).rev() {
        order.swap(at, random.below(at + 1));
    }
    let begun = Instant::now();
    for some in order.chunks(100) {
        let mut batch = Batch::new();
        for (key, value) in some {
            batch.put(key, value);
        }
        keyspace.write(batch)?;
    }
    keyspace.flush()?;
    let fill = begun.elapsed();
    keyspace.compact()?;
    Ok((fill, begun.elapsed() - fill))
}

/// Numbers that look random, the same in each run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 32)).wrapping_mul(0xD6E8_FEB8_6659_FD93);
        mixed ^ (mixed >> 32)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}
