//! Windows into the log, for fuzz targets and benches.

use std::path::Path;
use std::sync::Arc;

use crate::error::Result;
use crate::fs::Fs;
use crate::types::SeqNo;
use crate::wal::segment::RECORD_HEADER_LEN_BYTES;
use crate::wal::{Log, LogRecord, Recovery, WalConfig, segment};

/// A record of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// First sequence number.
    pub first: u64,
    /// Last sequence number.
    pub last: u64,
    /// Up to here everything was durable.
    pub synced: u64,
    /// The batch.
    pub payload: &'a [u8],
    /// Where the next record would begin.
    pub next_at: usize,
}

/// The record at `at` of a segment's bytes, if there is an intact one.
pub fn record_at(bytes: &[u8], at: usize, seed: u64) -> Option<Record<'_>> {
    let record = segment::record_at(bytes, at, seed)?;
    Some(Record {
        first: record.first.0,
        last: record.last.0,
        synced: record.synced.0,
        payload: record.payload,
        next_at: record.next_at,
    })
}

/// The bytes of a record that will stand at `offset`.
pub fn encode_record(
    seed: u64,
    offset: u64,
    first: u64,
    last: u64,
    synced: u64,
    payload: &[u8],
) -> Vec<u8> {
    let header: [u8; RECORD_HEADER_LEN_BYTES] = segment::encode_record_header(
        seed,
        offset,
        SeqNo(first),
        SeqNo(last),
        SeqNo(synced),
        &[payload],
    );
    [&header, payload].concat()
}

/// Replays the log in `dir`: first and last sequence number and payload of each record, and the
/// last number of all. Changes nothing.
#[expect(
    clippy::type_complexity,
    reason = "a window has no types of its own to spare"
)]
pub fn recover(
    fs: &Arc<dyn Fs>,
    dir: &Path,
    store_id: u64,
    from: u64,
) -> Result<(Vec<(u64, u64, Vec<u8>)>, u64)> {
    let mut recovery = Recovery::open(Arc::clone(fs), dir, store_id)?;
    let mut records = Vec::new();
    let last = recovery.replay(SeqNo(from), SeqNo::ZERO, &mut |found| {
        let copy = |r: &LogRecord<'_>| (r.first.0, r.last.0, r.payload.to_vec());
        records.extend(found.iter().map(copy));
        Ok(())
    })?;
    Ok((records, last.0))
}

/// The appending end of a new log, or of one that was read to its end.
#[derive(Debug)]
pub struct Writer {
    writer: crate::wal::Writer,
    log: Arc<Log>,
}

impl Writer {
    /// Opens the log in `dir`, which exists, behind what it holds.
    pub fn open(
        fs: &Arc<dyn Fs>,
        dir: &Path,
        store_id: u64,
        segment_bytes: u64,
        use_mmap: bool,
    ) -> Result<Self> {
        let mut recovery = Recovery::open(Arc::clone(fs), dir, store_id)?;
        let last = recovery.replay(SeqNo::ZERO, SeqNo::ZERO, &mut |_| Ok(()))?;
        let config = WalConfig {
            segment_bytes,
            use_mmap,
        };
        let (writer, log) = recovery.into_log(config, last)?;
        Ok(Self { writer, log })
    }

    /// Appends a record of `count` operations; returns its last sequence number.
    pub fn append(&mut self, count: u64, payload: &[u8]) -> Result<u64> {
        let first = self.log.appended_seq().next();
        let last = SeqNo(first.0 + count - 1);
        self.writer.append(first, last, &[payload], 0)?;
        Ok(last.0)
    }

    /// The shared end of the log.
    pub fn syncer(&self) -> Syncer {
        Syncer(Arc::clone(&self.log))
    }
}

/// The shared end of a log: syncs what was appended, for all threads that wait for it.
#[derive(Debug, Clone)]
pub struct Syncer(Arc<Log>);

impl Syncer {
    /// Syncs; returns up to where the log is durable. Callers that wait for one another's sync
    /// share it.
    pub fn sync(&self) -> Result<u64> {
        self.0.sync().map(|seq| seq.0)
    }

    /// Makes the next segment ready; true if there was something to do.
    pub fn prepare(&self) -> Result<bool> {
        self.0.prepare()
    }

    /// Deletes segments with nothing from `oldest_needed` on; all but the last if `None`.
    pub fn retire(&self, oldest_needed: Option<u64>) -> Result<()> {
        self.0.retire(oldest_needed.map(SeqNo))
    }
}
