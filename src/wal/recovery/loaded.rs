//! Segments as replay reads them: the next one is read, and its records are found, while those of
//! one are visited.
//!
//! The memory of a segment that was visited takes the one after the next. To have fresh memory for
//! each would cost more than to read it: the system clears every page of it. So two segments are in
//! memory, however long the log is.

use crate::types::SeqNo;
use crate::wal::segment::{HEADER_LEN_BYTES, RECORD_HEADER_LEN_BYTES, record_at};
use crate::wal::writer::PayloadPlace;

/// A record of the log: the operations from `first` to `last`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LogRecord<'a> {
    pub(crate) first: SeqNo,
    pub(crate) last: SeqNo,
    pub(crate) payload: &'a [u8],
    /// Where the payload is.
    pub(crate) place: PayloadPlace,
}

/// Memory for a segment.
pub(super) enum Buffer {
    /// It is here already.
    Read(Vec<u8>),
    /// What is in it is not needed.
    Free(Vec<u8>),
}

/// What is known of an active segment before it is read.
pub(super) struct Expected {
    pub(super) number: u64,
    /// Seed of its records.
    pub(super) seed: u64,
    /// First sequence number that counts.
    pub(super) first: SeqNo,
    /// Records from here on are void.
    pub(super) limit: SeqNo,
    /// What its activation says was durable.
    pub(super) synced: SeqNo,
}

/// A segment in memory.
pub(super) struct Loaded {
    pub(super) bytes: Vec<u8>,
    /// Number of the segment.
    number: u64,
    records: Vec<PlacedRecord>,
    /// The number expected after them,
    pub(super) expected: SeqNo,
    /// and where it was not found.
    pub(super) end: usize,
    /// Highest sequence number that the segment says was durable.
    pub(super) witnessed: SeqNo,
}

/// A record, and where its payload is.
struct PlacedRecord {
    first: SeqNo,
    last: SeqNo,
    start: usize,
    len: usize,
}

impl Loaded {
    /// A segment that has these bytes, and its records but for those that end below `from`.
    pub(super) fn new(segment: &Expected, bytes: Vec<u8>, from: SeqNo) -> Self {
        let mut loaded = Self {
            bytes,
            number: segment.number,
            records: Vec::new(),
            expected: segment.first,
            end: HEADER_LEN_BYTES,
            witnessed: segment.synced,
        };
        while loaded.expected < segment.limit
            && let Some(record) = record_at(&loaded.bytes, loaded.end, segment.seed)
            && record.first == loaded.expected
            && record.last < segment.limit
        {
            if record.last >= from {
                loaded.records.push(PlacedRecord {
                    first: record.first,
                    last: record.last,
                    start: loaded.end + RECORD_HEADER_LEN_BYTES,
                    len: record.payload.len(),
                });
            }
            loaded.expected = record.last.next();
            loaded.end = record.next_at;
            loaded.witnessed = loaded.witnessed.max(record.synced);
        }
        loaded
    }

    /// The records up to the segment's limit, but for those that end below the number that it was
    /// loaded from.
    pub(super) fn records(&self) -> Vec<LogRecord<'_>> {
        let records = self.records.iter().map(|record| LogRecord {
            first: record.first,
            last: record.last,
            payload: &self.bytes[record.start..record.start + record.len],
            place: PayloadPlace {
                segment: self.number,
                offset: record.start as u64,
            },
        });
        records.collect()
    }
}
