//! Records one of two workloads of opposite character, for `hedgerow replay` and `hedgerow advise`.
//!
//! ```sh
//! cargo run --release --example record_workload -- writes /tmp/writes.trace
//! cargo run --release --example record_workload -- reads /tmp/reads.trace
//! cargo run --release -- advise /tmp/writes.trace
//! ```
//!
//! `writes` puts values of 1 KiB under random keys, eight times the write buffer, and reads a few;
//! `reads` looks up and scans small values that fit in memory. With `-` instead of a file nothing
//! is recorded, which shows what recording costs. A number as third argument scales the work.
//! Without arguments a small run of `reads` is made and nothing is recorded.

use std::time::Instant;

use hedgerow::trace::TraceOptions;
use hedgerow::{Batch, Durability, EngineKind, Keyspace, Options, Result};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (kind, trace, scale) = match arguments[..] {
        [] => ("reads", "-", 0.02),
        [kind, trace] => (kind, trace, 1.0),
        [kind, trace, scale] => (kind, trace, scale.parse().expect("a number")),
        _ => panic!("usage: record_workload writes|reads TRACE|- [SCALE]"),
    };
    let dir = std::env::temp_dir().join(format!("record-workload-{}", std::process::id()));
    let mut options = Options::new().durability(Durability::Buffered);
    // The records to read are there before recording begins, as in a program that has run before.
    if kind == "reads" {
        let db = options.clone().open(&dir)?;
        load(&db.keyspace("data", EngineKind::BTree)?)?;
        db.close()?;
    }
    if trace != "-" {
        options = options.record_to(trace, TraceOptions::new());
    }
    let db = options.open(&dir)?;
    let data = db.keyspace("data", EngineKind::BTree)?;
    let began = Instant::now();
    let operations = match kind {
        "writes" => write(&data, (500_000.0 * scale) as u64)?,
        "reads" => read(&data, (1_000_000.0 * scale) as u64)?,
        other => panic!("{other}: use writes or reads"),
    };
    let seconds = began.elapsed().as_secs_f64();
    db.close()?;
    println!(
        "{operations} operations, {:.0} a second",
        operations as f64 / seconds
    );
    if let Some(figures) = db.recording() {
        println!("{figures:?}");
    }
    drop((data, db));
    std::fs::remove_dir_all(&dir).expect("the store is removed");
    Ok(())
}

const RECORDS: u64 = 500_000;

fn load(data: &Keyspace) -> Result<()> {
    for first in 0..RECORDS / 1000 {
        let mut batch = Batch::new();
        for number in 0..1000 {
            // 7919 is coprime to the number of records: each comes once, in a scattered order.
            let record = (first * 1000 + number) * 7919 % RECORDS;
            batch.put(format!("user:{record:08}"), [record as u8; 100]);
        }
        data.write_with(batch, Durability::Buffered)?;
    }
    Ok(())
}

/// Lookups with a skew and scans of 50 entries; two in a hundred operations write.
fn read(data: &Keyspace, operations: u64) -> Result<u64> {
    let mut random = Random(2);
    for _ in 0..operations {
        // The smaller of two draws: the low numbers are busier.
        let record = (random.next() % RECORDS).min(random.next() % RECORDS);
        let key = format!("user:{record:08}");
        match random.next() % 100 {
            0..2 => {
                data.put(&key, [7; 100])?;
            }
            2..22 => {
                let mut scan = data.range(key.as_str()..);
                for _ in 0..50 {
                    if scan.next_with(|_, value| value.len())?.is_none() {
                        break;
                    }
                }
            }
            _ => drop(data.get(&key)?),
        }
    }
    Ok(operations)
}

/// Puts of 1 KiB under random keys; one operation in twenty reads.
fn write(data: &Keyspace, operations: u64) -> Result<u64> {
    let mut random = Random(3);
    let mut value = [0; 1024];
    for _ in 0..operations {
        let key = random.next().to_be_bytes();
        if random.next().is_multiple_of(20) {
            data.get(key)?;
        } else {
            value[..8].copy_from_slice(&key);
            data.put(key, value)?;
        }
    }
    Ok(operations)
}

/// Splitmix64 (Steele, Lea and Flood, 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}
