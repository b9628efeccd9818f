//! What is done to each engine. Every workload runs on any [`Kv`] and checks what it reads
//! against the source: a wrong answer fails the comparison, however fast it was.

use std::time::{Duration, Instant};

use hedgerow::{Batch, Durability, Kv};

use super::data::{Data, Record, SHORT_SCAN, Version};
use crate::error::{Error, Result};
use crate::stop;

/// Operations between two looks at the interrupt flag.
const CHECK_EVERY: usize = 1024;
/// Durable commits stop at whichever comes first: a slow device would take minutes for all.
const DURABLE_COMMITS_MAX: usize = 500;
const DURABLE_TIME_MAX: Duration = Duration::from_millis(700);

/// One kind of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workload {
    /// Puts every record, one commit each, in random order.
    Load,
    /// Gets every record, in random order.
    ReadHit,
    /// Gets keys that are absent.
    ReadMiss,
    /// Seeks a random record and reads it and those behind it, ten in all.
    ShortScan,
    /// Reads every record in order.
    FullScan,
    /// Reads every record backwards.
    ReverseScan,
    /// Reads what a prefix covers, for random prefixes.
    PrefixScan,
    /// Puts a new value for every key, one commit each, in random order.
    Overwrite,
    /// Puts the values that are already there, each commit synced.
    DurableCommit,
}

impl Workload {
    /// Runs on `kv`, whose values are of `version`, and returns the number of operations: gets and
    /// puts, scans for [`Workload::ShortScan`], records for the other scans.
    pub fn run(self, kv: &impl Kv, data: &Data, version: Version) -> Result<u64> {
        match self {
            Self::Load => put_all(kv, data, Version::Original),
            Self::Overwrite => put_all(kv, data, Version::Turned),
            Self::ReadHit => read_hit(kv, data, version),
            Self::ReadMiss => read_miss(kv, data),
            Self::ShortScan => short_scan(kv, data, version),
            Self::FullScan => full_scan(kv, data, version),
            Self::ReverseScan => reverse_scan(kv, data, version),
            Self::PrefixScan => prefix_scan(kv, data, version),
            Self::DurableCommit => durable_commit(kv, data, version),
        }
    }
}

/// Looks at the interrupt flag now and then.
fn tick(operation: usize) -> Result<()> {
    if operation.is_multiple_of(CHECK_EVERY) {
        stop::check()
    } else {
        Ok(())
    }
}

/// The answer was wrong.
#[cold]
fn wrong(what: &str, key: &[u8]) -> Error {
    Error::wrong(format!("{what} at key {}", key.escape_ascii()))
}

fn put_all(kv: &impl Kv, data: &Data, version: Version) -> Result<u64> {
    let mut value = Vec::new();
    for (operation, &at) in data.write_order.iter().enumerate() {
        tick(operation)?;
        let record = &data.records[at];
        record.write(version, &mut value);
        kv.put(&record.key, &value)?;
    }
    Ok(data.records.len() as u64)
}

fn read_hit(kv: &impl Kv, data: &Data, version: Version) -> Result<u64> {
    for (operation, &at) in data.read_order.iter().enumerate() {
        tick(operation)?;
        let record = &data.records[at];
        match kv.get_with(&record.key, |found| record.is(version, found))? {
            Some(true) => {}
            Some(false) => return Err(wrong("another value", &record.key)),
            None => return Err(wrong("no value", &record.key)),
        }
    }
    Ok(data.read_order.len() as u64)
}

fn read_miss(kv: &impl Kv, data: &Data) -> Result<u64> {
    for (operation, key) in data.absent.iter().enumerate() {
        tick(operation)?;
        if kv.contains_key(key)? {
            return Err(wrong("a value that nobody put", key));
        }
    }
    Ok(data.absent.len() as u64)
}

fn short_scan(kv: &impl Kv, data: &Data, version: Version) -> Result<u64> {
    let starts = &data.read_order[..data.read_order.len().div_ceil(SHORT_SCAN)];
    for (operation, &start) in starts.iter().enumerate() {
        tick(operation)?;
        let end = (start + SHORT_SCAN).min(data.records.len());
        let mut scan = kv.range(&data.records[start].key[..]..);
        for record in &data.records[start..end] {
            expect(
                record,
                scan.next_with(|key, value| matches(record, version, key, value))?,
            )?;
        }
    }
    Ok(starts.len() as u64)
}

fn full_scan(kv: &impl Kv, data: &Data, version: Version) -> Result<u64> {
    let mut scan = kv.iter();
    for (operation, record) in data.records.iter().enumerate() {
        tick(operation)?;
        expect(
            record,
            scan.next_with(|key, value| matches(record, version, key, value))?,
        )?;
    }
    match scan.next_key()? {
        None => Ok(data.records.len() as u64),
        Some(key) => Err(wrong("a record behind the last one", &key)),
    }
}

fn reverse_scan(kv: &impl Kv, data: &Data, version: Version) -> Result<u64> {
    let mut scan = kv.iter();
    for (operation, record) in data.records.iter().rev().enumerate() {
        tick(operation)?;
        expect(
            record,
            scan.next_back_with(|key, value| matches(record, version, key, value))?,
        )?;
    }
    match scan.next_key()? {
        None => Ok(data.records.len() as u64),
        Some(key) => Err(wrong("a record before the first one", &key)),
    }
}

fn prefix_scan(kv: &impl Kv, data: &Data, version: Version) -> Result<u64> {
    let mut records = 0;
    for (prefix, range) in &data.prefixes {
        stop::check()?;
        let mut scan = kv.prefix(prefix);
        for record in &data.records[range.clone()] {
            expect(
                record,
                scan.next_with(|key, value| matches(record, version, key, value))?,
            )?;
        }
        if let Some(key) = scan.next_key()? {
            return Err(wrong("a record that does not have the prefix", &key));
        }
        records += range.len() as u64;
    }
    Ok(records)
}

fn durable_commit(kv: &impl Kv, data: &Data, version: Version) -> Result<u64> {
    let began = Instant::now();
    let mut commits = 0;
    let mut value = Vec::new();
    for &at in data.write_order.iter().take(DURABLE_COMMITS_MAX) {
        stop::check()?;
        let record = &data.records[at];
        record.write(version, &mut value);
        let mut batch = Batch::new();
        batch.put(&record.key, &value);
        kv.write_with(batch, Durability::Sync)?;
        commits += 1;
        if began.elapsed() > DURABLE_TIME_MAX {
            break;
        }
    }
    Ok(commits)
}

/// True if an entry is this record.
fn matches(record: &Record, version: Version, key: &[u8], value: &[u8]) -> bool {
    key == record.key && record.is(version, value)
}

/// Fails unless a scan found what it should.
fn expect(record: &Record, found: Option<bool>) -> Result<()> {
    match found {
        Some(true) => Ok(()),
        Some(false) => Err(wrong("another record", &record.key)),
        None => Err(wrong("the scan ended", &record.key)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hedgerow::Model;

    const READS: [Workload; 6] = [
        Workload::ReadHit,
        Workload::ReadMiss,
        Workload::ShortScan,
        Workload::FullScan,
        Workload::ReverseScan,
        Workload::PrefixScan,
    ];

    fn data() -> Data {
        let records = (0..3000_u32)
            .map(|n| Record {
                key: format!("{:04}", n * 7919 % 3000).into_bytes(),
                value: format!("value {n}").into_bytes(),
            })
            .collect();
        Data::new(records, None).unwrap()
    }

    #[test]
    fn every_workload_runs_and_checks() {
        let (kv, data) = (Model::new(), data());
        assert_eq!(
            Workload::Load.run(&kv, &data, Version::Original).unwrap(),
            3000
        );
        for workload in READS {
            assert!(workload.run(&kv, &data, Version::Original).unwrap() > 0);
        }
        Workload::Overwrite
            .run(&kv, &data, Version::Original)
            .unwrap();
        Workload::DurableCommit
            .run(&kv, &data, Version::Turned)
            .unwrap();
        for workload in READS {
            workload.run(&kv, &data, Version::Turned).unwrap();
            let stale = workload.run(&kv, &data, Version::Original);
            assert_eq!(
                stale.is_err(),
                workload != Workload::ReadMiss,
                "{workload:?}"
            );
        }
    }

    #[test]
    fn missing_and_added_records_are_noticed() {
        let data = data();
        for damage in [
            |kv: &Model| kv.delete("1234"),
            |kv: &Model| kv.put("1234", "other"),
            |kv: &Model| kv.put("1234x", "added"),
            |kv: &Model| kv.put("", "added before all"),
            |kv: &Model| kv.put("zzz", "added behind all"),
        ] {
            let kv = Model::new();
            Workload::Load.run(&kv, &data, Version::Original).unwrap();
            damage(&kv).unwrap();
            for workload in [Workload::FullScan, Workload::ReverseScan] {
                let outcome = workload.run(&kv, &data, Version::Original);
                assert!(outcome.unwrap_err().to_string().starts_with("WRONG RESULT"));
            }
        }
    }
}
