//! Internal entries: what memtables and tables hold, and how they are walked.
//!
//! An entry is one version of one key. *Internal order* is key ascending, then sequence number
//! descending, so the newest version of a key comes first and a reader at some sequence
//! number takes the first entry it meets at or after `(key, seq)`.

use std::cmp::Ordering;

use crate::error::Result;
use crate::format::coding::get_u64;
use crate::types::SeqNo;

/// What an entry says about its key. Values from 4 on are free for later kinds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum EntryKind {
    /// The key was removed: a tombstone.
    Delete = 0,
    /// The key was set.
    Put = 1,
    /// The key was set to a value that is stored apart: in its place is a reference to it.
    PutRef = 2,
    /// The key was merged into: its value is what [`merge_parts`] takes apart.
    Merge = 3,
}

impl EntryKind {
    /// The kind of that number, if there is one.
    #[inline]
    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Delete),
            1 => Some(Self::Put),
            2 => Some(Self::PutRef),
            3 => Some(Self::Merge),
            _ => None,
        }
    }

    /// True if the key was set, or merged into: it has a value.
    #[inline]
    pub(crate) fn is_put(self) -> bool {
        self != Self::Delete
    }
}

/// One version of one key. The value of a tombstone is empty, that of a
/// [`PutRef`](EntryKind::PutRef) is a reference, and that of a [`Merge`](EntryKind::Merge) is an
/// operand and what it goes over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Entry<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) seq: SeqNo,
    pub(crate) kind: EntryKind,
    pub(crate) value: &'a [u8],
}

impl Entry<'_> {
    /// Sequence number and kind in one word, `seq << 8 | kind`: for one key, a larger word is a
    /// newer version.
    #[inline]
    pub(crate) fn word(&self) -> u64 {
        self.seq.0 << 8 | self.kind as u64
    }

    /// Compares with another entry's key and word in internal order.
    #[inline]
    pub(crate) fn cmp_internal(&self, key: &[u8], word: u64) -> Ordering {
        self.key.cmp(key).then_with(|| word.cmp(&self.word()))
    }
}

/// The word that stands before every entry of sequence number `seq` or lower, and after every
/// higher one, among entries of one key: what a seek to `(key, seq)` looks for.
#[inline]
pub(crate) fn seek_word(seq: SeqNo) -> u64 {
    seq.0 << 8 | 0xFF
}

/// Sequence number and kind of a word; `None` if there is no such kind.
#[inline]
pub(crate) fn split_word(word: u64) -> Option<(SeqNo, EntryKind)> {
    Some((SeqNo(word >> 8), EntryKind::from_byte(word as u8)?))
}

/// Bytes in front of the operand of a merge.
const MERGE_HEADER_BYTES: usize = 8;

/// The value of a merge that goes over what the key had at `since`: what happened to the key
/// between that and the merge's own number is in the operand.
pub(crate) fn merge_value(since: SeqNo, operand: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(MERGE_HEADER_BYTES + operand.len());
    value.extend_from_slice(&since.0.to_le_bytes());
    value.extend_from_slice(operand);
    value
}

/// The parts of the value of a merge of number `seq`; `None` if that is malformed.
#[inline]
pub(crate) fn merge_parts(value: &[u8], seq: SeqNo) -> Option<(SeqNo, &[u8])> {
    let operand = value.get(MERGE_HEADER_BYTES..)?;
    let since = SeqNo(get_u64(value, 0));
    (since < seq).then_some((since, operand))
}

/// Every version below `seq` of every key in `[start, end)` is removed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct RangeTombstone {
    /// First key covered.
    pub(crate) start: Vec<u8>,
    /// First key no longer covered; `None` covers to the end.
    pub(crate) end: Option<Vec<u8>>,
    /// When the removal happened; entries with a lower number are gone.
    pub(crate) seq: SeqNo,
}

/// A position in a sequence of entries in internal order. Memtables, tables, levels and merges
/// implement it.
///
/// A cursor stands on an entry or nowhere; after an error it stands nowhere. `next`,
/// `prev` and `entry` are only called on a valid cursor; `next` and `prev` may be mixed freely.
pub(crate) trait EntryCursor: Send {
    /// Goes to the first entry.
    fn seek_first(&mut self) -> Result<()>;
    /// Goes to the last entry.
    fn seek_last(&mut self) -> Result<()>;
    /// Goes to the first entry at or after `(key, seq)` in internal order.
    fn seek(&mut self, key: &[u8], seq: SeqNo) -> Result<()>;
    /// Goes to the last entry whose key is `< key`.
    fn seek_before(&mut self, key: &[u8]) -> Result<()>;
    /// Goes to the next entry in internal order.
    fn next(&mut self) -> Result<()>;
    /// Goes to the previous entry in internal order.
    fn prev(&mut self) -> Result<()>;
    /// True if the cursor stands on an entry.
    fn is_valid(&self) -> bool;
    /// The entry. Only on a valid cursor.
    fn entry(&self) -> Entry<'_>;
    /// The entry's key, which is cheaper to get at than all of the entry. Only on a valid cursor.
    #[inline]
    fn key(&self) -> &[u8] {
        self.entry().key
    }
}
