//! What is known about a table without opening it.

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::format::coding::{Malformed, Reader, put_bytes, put_varint};
use crate::lsm::entry::{Entry, EntryKind, RangeTombstone};
use crate::resolve::{NEVER, Stamp};
use crate::types::{FileId, SeqNo};
use crate::values::ValueRef;

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
    /// Number of entries that are not the newest of their key in the table: they were kept for
    /// snapshots.
    pub(crate) older_versions: u64,
    /// Sum of the lengths of all keys of entries.
    pub(crate) raw_key_bytes: u64,
    /// Sum of the lengths of all values of entries, or of the references in their places.
    pub(crate) raw_value_bytes: u64,
    /// The value files that entries refer to, rising by number, and how many bytes of each.
    pub(crate) value_files: Vec<(u64, u64)>,
    /// When all values in the table have expired, in milliseconds since 1970; [`NEVER`] if some do
    /// not.
    pub(crate) expires_by_ms: u64,
    /// When about half of them have: the mean over those that expire, if they are half of all.
    pub(crate) half_expired_ms: u64,
}

/// The number in the entries of a table that was written by a bulk load, before the load had one.
/// No operation has it.
pub(crate) const UNNUMBERED: SeqNo = SeqNo::ZERO;

/// How [`TableMeta::largest_key`] is tagged.
const UPPER_UNBOUNDED: u8 = 0;
const UPPER_INCLUDED: u8 = 1;
const UPPER_EXCLUDED: u8 = 2;

/// Bytes that a table refers to in value files are no more than this.
const APART_BYTES_MAX: u64 = 1 << 48;

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
            self.older_versions,
            self.raw_key_bytes,
            self.raw_value_bytes,
        ] {
            put_varint(out, number);
        }
        put_varint(out, self.value_files.len() as u64);
        for (file, bytes) in &self.value_files {
            put_varint(out, *file);
            put_varint(out, *bytes);
        }
        for time in [self.expires_by_ms, self.half_expired_ms] {
            // Mostly never, which is a zero.
            put_varint(out, time.wrapping_add(1));
        }
    }

    /// True if it says when its values expire.
    pub(crate) fn says_when_it_expires(&self) -> bool {
        self.expires_by_ms != NEVER || self.half_expired_ms != NEVER
    }

    /// True if the table was written by a bulk load, and says nothing of numbers.
    pub(crate) fn is_unnumbered(&self) -> bool {
        self.smallest_seq == UNNUMBERED && self.largest_seq == UNNUMBERED
    }

    /// The same, with `seq` as the number of every entry.
    pub(crate) fn with_seq(&self, seq: SeqNo) -> Self {
        Self {
            smallest_seq: seq,
            largest_seq: seq,
            ..self.clone()
        }
    }

    /// Reads what [`TableMeta::encode`] wrote.
    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let id = FileId(reader.u64()?);
        let size_bytes = reader.u64()?;
        let smallest_key = reader.bytes()?.to_vec();
        let largest_key = match reader.u8()? {
            UPPER_UNBOUNDED => Bound::Unbounded,
            UPPER_INCLUDED => Bound::Included(reader.bytes()?.to_vec()),
            UPPER_EXCLUDED => Bound::Excluded(reader.bytes()?.to_vec()),
            _ => return Err(Malformed),
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
            older_versions: reader.varint()?,
            raw_key_bytes: reader.varint()?,
            raw_value_bytes: reader.varint()?,
            value_files: Self::decode_value_files(reader)?,
            expires_by_ms: reader.varint()?.wrapping_sub(1),
            half_expired_ms: reader.varint()?.wrapping_sub(1),
        })
    }

    fn decode_value_files(reader: &mut Reader<'_>) -> Result<Vec<(u64, u64)>, Malformed> {
        // Each takes two bytes at least.
        let count = reader.len(reader.remaining() / 2)?;
        let mut value_files: Vec<(u64, u64)> = Vec::with_capacity(count);
        let mut all_bytes = 0_u64;
        for _ in 0..count {
            let (file, bytes) = (reader.varint()?, reader.varint()?);
            if value_files.last().is_some_and(|(last, _)| *last >= file) {
                return Err(Malformed);
            }
            value_files.push((file, bytes));
            all_bytes = all_bytes.saturating_add(bytes);
        }
        // More than there can be; sums of many tables fit into 64 bits.
        if all_bytes > APART_BYTES_MAX {
            return Err(Malformed);
        }
        Ok(value_files)
    }

    /// Bytes of the values that entries refer to.
    pub(crate) fn apart_bytes(&self) -> u64 {
        let bytes = self.value_files.iter().map(|(_, bytes)| *bytes);
        bytes.fold(0, u64::saturating_add)
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
pub(crate) fn read_seq(reader: &mut Reader<'_>) -> Result<SeqNo, Malformed> {
    let seq = SeqNo(reader.varint()?);
    if seq > SeqNo::MAX {
        return Err(Malformed);
    }
    Ok(seq)
}

/// Sums up entries and range tombstones into a [`TableMeta`]. The builder and the verifier
/// both do it, so that they cannot disagree on what the fields mean.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    smallest_key: Option<Vec<u8>>,
    largest_entry: Option<Vec<u8>>,
    tombstones_end: Option<Bound<Vec<u8>>>,
    seqs: Option<(SeqNo, SeqNo)>,
    entries: u64,
    deletes: u64,
    range_tombstones: u64,
    older_versions: u64,
    raw_key_bytes: u64,
    raw_value_bytes: u64,
    value_files: BTreeMap<u64, u64>,
    expiry: Option<ExpirySummary>,
}

/// When the values of a table expire.
#[derive(Debug, Clone, Default)]
struct ExpirySummary {
    /// Values that never do.
    lasting: u64,
    /// Values that do.
    expiring: u64,
    sum_ms: u128,
    latest_ms: u64,
}

impl ExpirySummary {
    fn add(&mut self, entry: &Entry<'_>) {
        let expires_at_ms = match entry.kind {
            EntryKind::Delete => return,
            EntryKind::Put => Stamp::split(entry.value).1.expires_at_ms,
            EntryKind::PutRef | EntryKind::Merge => NEVER,
        };
        if expires_at_ms == NEVER {
            self.lasting += 1;
            return;
        }
        self.expiring += 1;
        self.sum_ms += u128::from(expires_at_ms);
        self.latest_ms = self.latest_ms.max(expires_at_ms);
    }

    /// When all have expired, and when half have.
    fn times_ms(&self) -> (u64, u64) {
        if self.expiring == 0 {
            return (NEVER, NEVER);
        }
        let mean = (self.sum_ms / u128::from(self.expiring)) as u64;
        let all = if self.lasting == 0 {
            self.latest_ms
        } else {
            NEVER
        };
        let half = if self.lasting <= self.expiring {
            mean
        } else {
            NEVER
        };
        (all, half)
    }
}

impl Summary {
    /// Of a table whose values may expire, if `values_expire`.
    pub(crate) fn new(values_expire: bool) -> Self {
        Self {
            expiry: values_expire.then(ExpirySummary::default),
            ..Self::default()
        }
    }

    /// True if nothing has been added.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries == 0 && self.range_tombstones == 0
    }

    /// Number of entries added.
    pub(crate) fn entries(&self) -> u64 {
        self.entries
    }

    /// Adds an entry. The largest key is left to [`Summary::end_entries`], since copying every
    /// key would cost more than the rest. `begins_key` says that the last entry had another key.
    pub(crate) fn add_entry(&mut self, entry: &Entry<'_>, begins_key: bool) {
        if self.entries == 0 {
            self.start_at(entry.key);
        }
        self.add_seq(entry.seq);
        self.entries += 1;
        self.deletes += u64::from(entry.kind == EntryKind::Delete);
        self.older_versions += u64::from(!begins_key);
        self.raw_key_bytes += entry.key.len() as u64;
        self.raw_value_bytes += entry.value.len() as u64;
        if let Some(expiry) = &mut self.expiry {
            expiry.add(entry);
        }
        if entry.kind == EntryKind::PutRef
            && let Ok(value) = ValueRef::decode(entry.value)
        {
            *self.value_files.entry(value.file).or_default() += value.len_bytes as u64;
        }
    }

    /// Names the key of the last entry.
    pub(crate) fn end_entries(&mut self, last_key: &[u8]) {
        self.largest_entry = Some(last_key.to_vec());
    }

    /// Adds a range tombstone, which must not be empty.
    pub(crate) fn add_tombstone(&mut self, tombstone: &RangeTombstone) {
        self.start_at(&tombstone.start);
        self.add_seq(tombstone.seq);
        self.range_tombstones += 1;
        let further = match (&self.tombstones_end, &tombstone.end) {
            (Some(Bound::Unbounded), _) => false,
            (Some(Bound::Excluded(known)), Some(end)) => end > known,
            _ => true,
        };
        if further {
            self.tombstones_end = Some(match &tombstone.end {
                Some(end) => Bound::Excluded(end.clone()),
                None => Bound::Unbounded,
            });
        }
    }

    fn start_at(&mut self, key: &[u8]) {
        if self.smallest_key.as_deref().is_none_or(|known| key < known) {
            self.smallest_key = Some(key.to_vec());
        }
    }

    fn add_seq(&mut self, seq: SeqNo) {
        let (low, high) = self.seqs.unwrap_or((seq, seq));
        self.seqs = Some((low.min(seq), high.max(seq)));
    }

    /// The meta of a file of that number and length.
    pub(crate) fn finish(self, id: FileId, size_bytes: u64) -> TableMeta {
        let largest_key = match (self.largest_entry, self.tombstones_end) {
            (Some(key), Some(Bound::Excluded(end))) if end <= key => Bound::Included(key),
            (_, Some(end)) => end,
            (Some(key), None) => Bound::Included(key),
            (None, None) => Bound::Excluded(Vec::new()),
        };
        let (smallest_seq, largest_seq) = self.seqs.unwrap_or_default();
        let times_ms = self.expiry.map(|expiry| expiry.times_ms());
        let (expires_by_ms, half_expired_ms) = times_ms.unwrap_or((NEVER, NEVER));
        TableMeta {
            id,
            size_bytes,
            smallest_key: self.smallest_key.unwrap_or_default(),
            largest_key,
            smallest_seq,
            largest_seq,
            entries: self.entries,
            deletes: self.deletes,
            range_tombstones: self.range_tombstones,
            older_versions: self.older_versions,
            raw_key_bytes: self.raw_key_bytes,
            raw_value_bytes: self.raw_value_bytes,
            value_files: self.value_files.into_iter().collect(),
            expires_by_ms,
            half_expired_ms,
        }
    }
}
