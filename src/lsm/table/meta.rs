//! What is known about a table without opening it.

use std::ops::Bound;

use crate::coding::{Reader, Truncated, put_bytes, put_varint};
use crate::types::{FileId, SeqNo};

/// What is known about a table without opening it. The manifest stores it, and so does the
/// table itself; the two must agree when the table is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TableMeta {
    /// Number of the file.
    pub(crate) id: FileId,
    /// Length of the file.
    pub(crate) size_bytes: u64,
    /// Smallest key of an entry or start of a range tombstone.
    pub(crate) smallest_key: Vec<u8>,
    /// Upper end of everything in the table: `Included` the largest key of an entry, or
    /// `Excluded` the end of a range tombstone that reaches further, or `Unbounded`
    /// if a range tombstone has no end.
    pub(crate) largest_key: Bound<Vec<u8>>,
    /// Lowest sequence number of an entry or range tombstone.
    pub(crate) smallest_seq: SeqNo,
    /// Highest sequence number of an entry or range tombstone.
    pub(crate) largest_seq: SeqNo,
    /// Number of entries, tombstones of single keys included.
    pub(crate) entries: u64,
    /// Number of entries that are tombstones.
    pub(crate) deletes: u64,
    /// Number of range tombstones.
    pub(crate) range_tombstones: u64,
    /// Sum of the lengths of all keys of entries.
    pub(crate) raw_key_bytes: u64,
    /// Sum of the lengths of all values of entries.
    pub(crate) raw_value_bytes: u64,
}

/// How [`TableMeta::largest_key`] is tagged.
const UPPER_UNBOUNDED: u8 = 0;
const UPPER_INCLUDED: u8 = 1;
const UPPER_EXCLUDED: u8 = 2;

impl TableMeta {
    /// Appends the meta in the form of docs/format.md, "LSM: table", properties.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.id.0.to_le_bytes());
        // Fixed width, so that a table can state its own length before it is written.
        out.extend_from_slice(&self.size_bytes.to_le_bytes());
        put_bytes(out, &self.smallest_key);
        match &self.largest_key {
            Bound::Unbounded => out.push(UPPER_UNBOUNDED),
            Bound::Included(key) => {
                out.push(UPPER_INCLUDED);
                put_bytes(out, key);
            }
            Bound::Excluded(key) => {
                out.push(UPPER_EXCLUDED);
                put_bytes(out, key);
            }
        }
        for number in [
            self.smallest_seq.0,
            self.largest_seq.0,
            self.entries,
            self.deletes,
            self.range_tombstones,
            self.raw_key_bytes,
            self.raw_value_bytes,
        ] {
            put_varint(out, number);
        }
    }

    /// Reads what [`TableMeta::encode`] wrote.
    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self, Truncated> {
        let id = FileId(reader.u64()?);
        let size_bytes = reader.u64()?;
        let smallest_key = reader.bytes()?.to_vec();
        let largest_key = match reader.u8()? {
            UPPER_UNBOUNDED => Bound::Unbounded,
            UPPER_INCLUDED => Bound::Included(reader.bytes()?.to_vec()),
            UPPER_EXCLUDED => Bound::Excluded(reader.bytes()?.to_vec()),
            _ => return Err(Truncated),
        };
        Ok(Self {
            id,
            size_bytes,
            smallest_key,
            largest_key,
            smallest_seq: read_seq(reader)?,
            largest_seq: read_seq(reader)?,
            entries: reader.varint()?,
            deletes: reader.varint()?,
            range_tombstones: reader.varint()?,
            raw_key_bytes: reader.varint()?,
            raw_value_bytes: reader.varint()?,
        })
    }

    /// True if everything in the table lies below `key`.
    #[inline]
    pub(crate) fn is_before(&self, key: &[u8]) -> bool {
        match &self.largest_key {
            Bound::Included(largest) => largest.as_slice() < key,
            Bound::Excluded(end) => end.as_slice() <= key,
            Bound::Unbounded => false,
        }
    }

    /// True if `key` lies within the table's extent.
    #[inline]
    pub(crate) fn contains_key(&self, key: &[u8]) -> bool {
        self.smallest_key.as_slice() <= key && !self.is_before(key)
    }

    /// True if the table's extent meets `[start, end)`, where no end means to the last key.
    pub(crate) fn overlaps(&self, start: &[u8], end: Option<&[u8]>) -> bool {
        !self.is_before(start) && end.is_none_or(|end| self.smallest_key.as_slice() < end)
    }
}

/// Reads a sequence number, which has 56 bits.
pub(super) fn read_seq(reader: &mut Reader<'_>) -> Result<SeqNo, Truncated> {
    let seq = SeqNo(reader.varint()?);
    if seq > SeqNo::MAX {
        return Err(Truncated);
    }
    Ok(seq)
}
