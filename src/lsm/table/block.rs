//! The body of a block: a run of entries in internal order, laid out for few cache misses.
//!
//! ```text
//! count u32 | prefix length u16 | word width u8 | offset width u8 | base word u64
//! heads    count x u32           first four bytes of each key after the prefix
//! offsets  count x u16 or u32    where each record starts, from the start of the body
//! prefix                         what all keys of the block begin with, stored once
//! records  count x { word - base (word width), suffix length varint, suffix, value }
//! ```
//!
//! A search touches the header and the heads, which are neighbours, one offset, and one
//! record. Heads that tie are told apart by comparing whole keys.
//!
//! Nothing here trusts the bytes: a checksum only says that they are what was written.
//! Damage is a value of type [`Damage`]; the caller knows file and offset.

use std::cmp::Ordering;

use crate::format::coding::{Reader, get_u32, get_u64, put_varint, varint_len};
use crate::lsm::entry::{Entry, EntryKind, merge_parts, split_word};
use crate::types::{MAX_KEY_LEN_BYTES, MAX_VALUE_LEN_BYTES, SeqNo};
use crate::util::key_prefix::{common_prefix_len, head32};
use crate::values::ValueRef;

/// What is wrong with some bytes.
pub(crate) type Damage = &'static str;

/// What a record of an unknown kind is reported as.
pub(crate) const UNKNOWN_KIND: Damage = "an entry is of an unknown kind";

/// Bytes before the heads.
const HEADER_LEN_BYTES: usize = 16;
/// Largest body: one entry with the longest key and the longest value, and room for the
/// arrays. A block of many entries is far smaller.
pub(crate) const MAX_BODY_LEN_BYTES: usize = MAX_VALUE_LEN_BYTES + MAX_KEY_LEN_BYTES + 4096;

/// Largest body that is compressed. A body of one huge value stays as it is: 255 bytes can come of
/// one, and a small file must not make a reader take memory without bound.
pub(crate) const MAX_PACKED_LEN_BYTES: usize = 32 << 20;

/// Collects the entries of one block.
#[derive(Debug, Default)]
pub(crate) struct BlockBuilder {
    /// All keys, one after the other, whole.
    keys: Vec<u8>,
    /// All values, one after the other.
    values: Vec<u8>,
    rows: Vec<Row>,
    /// Length of what all keys begin with.
    prefix_len: usize,
    smallest_word: u64,
    largest_word: u64,
}

#[derive(Debug, Clone, Copy)]
struct Row {
    key_len: u32,
    value_len: u32,
    word: u64,
}

impl BlockBuilder {
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Key of the first entry. Only if there is one.
    fn first_key(&self) -> &[u8] {
        &self.keys[..self.rows[0].key_len as usize]
    }

    /// Appends an entry, which must come after the last one.
    pub(crate) fn add(&mut self, entry: &Entry<'_>) {
        let word = entry.word();
        if self.rows.is_empty() {
            self.prefix_len = entry.key.len();
            self.smallest_word = word;
            self.largest_word = word;
        } else {
            self.prefix_len = self.prefix_len_with(entry.key);
            self.smallest_word = self.smallest_word.min(word);
            self.largest_word = self.largest_word.max(word);
        }
        self.keys.extend_from_slice(entry.key);
        self.values.extend_from_slice(entry.value);
        self.rows.push(Row {
            key_len: entry.key.len() as u32,
            value_len: entry.value.len() as u32,
            word,
        });
    }

    /// The common prefix if `key` were added. Keys rise, so comparing with the first suffices.
    fn prefix_len_with(&self, key: &[u8]) -> usize {
        common_prefix_len(&self.first_key()[..self.prefix_len], key)
    }

    /// About how long the body is.
    pub(crate) fn len_estimate(&self) -> usize {
        let rows = self.rows.len();
        self.len_of(rows, self.prefix_len, self.keys.len() + self.values.len())
    }

    /// About how long the body would be with one more entry.
    pub(crate) fn len_estimate_with(&self, entry: &Entry<'_>) -> usize {
        if self.rows.is_empty() {
            return HEADER_LEN_BYTES + 16 + entry.key.len() + entry.value.len();
        }
        let before = self.keys.len() + self.values.len();
        let bytes = before + entry.key.len() + entry.value.len();
        self.len_of(self.rows.len() + 1, self.prefix_len_with(entry.key), bytes)
    }

    /// What `rows` entries cost whose keys and values are `bytes`, less what the prefix saves.
    fn len_of(&self, rows: usize, prefix_len: usize, bytes: usize) -> usize {
        let width = width_of(self.largest_word - self.smallest_word);
        let whole = HEADER_LEN_BYTES + rows * (4 + 2 + width + 1) + bytes;
        whole - rows.saturating_sub(1) * prefix_len
    }

    /// Appends the body to `out`. Only if there are entries.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let count = self.rows.len();
        let width = width_of(self.largest_word - self.smallest_word);
        let suffix_len = |row: &Row| row.key_len as usize - self.prefix_len;
        let records_len: usize = self
            .rows
            .iter()
            .map(|row| {
                let suffix_len = suffix_len(row);
                width + varint_len(suffix_len as u64) + suffix_len + row.value_len as usize
            })
            .sum();
        let before_records =
            |offset_width: usize| HEADER_LEN_BYTES + count * (4 + offset_width) + self.prefix_len;
        let offset_width = if before_records(2) + records_len <= usize::from(u16::MAX) {
            2
        } else {
            4
        };
        out.reserve(before_records(offset_width) + records_len);
        let body_at = out.len();
        out.extend_from_slice(&(count as u32).to_le_bytes());
        out.extend_from_slice(&(self.prefix_len as u16).to_le_bytes());
        out.push(width as u8);
        out.push(offset_width as u8);
        out.extend_from_slice(&self.smallest_word.to_le_bytes());
        let mut keys = self.keys.as_slice();
        for row in &self.rows {
            let (key, rest) = keys.split_at(row.key_len as usize);
            keys = rest;
            out.extend_from_slice(&head32(&key[self.prefix_len..]).to_le_bytes());
        }
        let offsets_at = out.len();
        out.resize(offsets_at + count * offset_width, 0);
        out.extend_from_slice(&self.first_key()[..self.prefix_len]);
        let (mut keys, mut values) = (self.keys.as_slice(), self.values.as_slice());
        for (i, row) in self.rows.iter().enumerate() {
            let offset = ((out.len() - body_at) as u32).to_le_bytes();
            let at = offsets_at + i * offset_width;
            out[at..at + offset_width].copy_from_slice(&offset[..offset_width]);
            let (key, rest) = keys.split_at(row.key_len as usize);
            keys = rest;
            let (value, rest) = values.split_at(row.value_len as usize);
            values = rest;
            out.extend_from_slice(&(row.word - self.smallest_word).to_le_bytes()[..width]);
            put_varint(out, suffix_len(row) as u64);
            out.extend_from_slice(&key[self.prefix_len..]);
            out.extend_from_slice(value);
        }
    }

    /// Forgets the entries but keeps the memory, unless a huge entry made it large.
    pub(crate) fn clear(&mut self) {
        const KEEP_BYTES: usize = 1 << 20;
        self.rows.clear();
        for buffer in [&mut self.keys, &mut self.values] {
            buffer.clear();
            buffer.shrink_to(KEEP_BYTES);
        }
    }
}

/// Bytes that hold `delta`, at least one.
fn width_of(delta: u64) -> usize {
    (64 - (delta | 1).leading_zeros() as usize).div_ceil(8)
}

/// Where things are in a body: its decoded header.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Layout {
    /// Number of entries, at least one.
    pub(crate) count: u32,
    prefix_len: u16,
    word_width: u8,
    offset_width: u8,
    base_word: u64,
    offsets_at: u32,
    prefix_at: u32,
}

impl Layout {
    /// Reads and checks a header: the arrays and the prefix fit into the body.
    #[inline]
    pub(crate) fn parse(body: &[u8]) -> Result<Self, Damage> {
        let Some(header) = body.first_chunk::<HEADER_LEN_BYTES>() else {
            return Err("the block is shorter than its header");
        };
        let count = get_u32(header, 0);
        let prefix_len = u16::from_le_bytes([header[4], header[5]]);
        let (word_width, offset_width) = (header[6], header[7]);
        if count == 0 {
            return Err("the block has no entries");
        }
        if !(1..=8).contains(&word_width) || !(offset_width == 2 || offset_width == 4) {
            return Err("the block's header states impossible field widths");
        }
        let offsets_at = HEADER_LEN_BYTES as u64 + u64::from(count) * 4;
        let prefix_at = offsets_at + u64::from(count) * u64::from(offset_width);
        if prefix_at + u64::from(prefix_len) > body.len() as u64 || body.len() > MAX_BODY_LEN_BYTES
        {
            return Err("the block is too short for its entries");
        }
        Ok(Self {
            count,
            prefix_len,
            word_width,
            offset_width,
            base_word: get_u64(header, 8),
            offsets_at: offsets_at as u32,
            prefix_at: prefix_at as u32,
        })
    }
}

/// One entry of a block, its key without the block's prefix.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Record<'a> {
    pub(crate) word: u64,
    pub(crate) suffix: &'a [u8],
    pub(crate) value: &'a [u8],
    /// Where the value is in the body.
    pub(crate) value_at: usize,
}

/// A body and its layout.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Block<'a> {
    body: &'a [u8],
    layout: Layout,
}

impl<'a> Block<'a> {
    /// Reads the header of `body`.
    #[inline]
    pub(crate) fn parse(body: &'a [u8]) -> Result<Self, Damage> {
        Ok(Self {
            body,
            layout: Layout::parse(body)?,
        })
    }

    /// The block of a header that was read before, from the same bytes.
    #[inline]
    pub(crate) fn new(body: &'a [u8], layout: Layout) -> Self {
        Self { body, layout }
    }

    /// Number of entries.
    #[inline]
    pub(crate) fn count(&self) -> u32 {
        self.layout.count
    }

    /// What all keys begin with.
    #[inline]
    pub(crate) fn prefix(&self) -> &'a [u8] {
        let at = self.layout.prefix_at as usize;
        &self.body[at..at + usize::from(self.layout.prefix_len)]
    }

    /// Where the first record has to start.
    fn records_at(&self) -> usize {
        self.layout.prefix_at as usize + usize::from(self.layout.prefix_len)
    }

    #[inline]
    fn heads(&self) -> &'a [[u8; 4]] {
        self.body[HEADER_LEN_BYTES..self.layout.offsets_at as usize]
            .as_chunks()
            .0
    }

    /// Where record `i` starts; the end of the body for `i == count`.
    #[inline]
    fn offset(&self, i: u32) -> usize {
        if i >= self.layout.count {
            return self.body.len();
        }
        let offsets = &self.body[self.layout.offsets_at as usize..self.layout.prefix_at as usize];
        if self.layout.offset_width == 2 {
            let at = i as usize * 2;
            usize::from(u16::from_le_bytes([offsets[at], offsets[at + 1]]))
        } else {
            get_u32(offsets, i as usize * 4) as usize
        }
    }

    /// Record `i < count`.
    #[inline]
    pub(crate) fn record(&self, i: u32) -> Result<Record<'a>, Damage> {
        let end = self.offset(i + 1);
        let Some(record) = self.body.get(self.offset(i)..end) else {
            return Err("a record lies outside its block");
        };
        let width = usize::from(self.layout.word_width);
        let delta = match record.first_chunk::<8>() {
            Some(word) => u64::from_le_bytes(*word) & (u64::MAX >> (64 - 8 * width)),
            None if record.len() >= width => {
                let mut word = [0; 8];
                word[..width].copy_from_slice(&record[..width]);
                u64::from_le_bytes(word)
            }
            None => return Err("a record is too short"),
        };
        let rest = &record[width..];
        let (suffix_len, length_len) = match rest.first() {
            Some(byte) if *byte < 0x80 => (usize::from(*byte), 1),
            _ => {
                let mut reader = Reader::new(rest);
                match reader.len(MAX_KEY_LEN_BYTES) {
                    Ok(len) => (len, reader.position()),
                    Err(_) => return Err("the length of a key is damaged"),
                }
            }
        };
        let rest = &rest[length_len..];
        if suffix_len > rest.len()
            || suffix_len + usize::from(self.layout.prefix_len) > MAX_KEY_LEN_BYTES
        {
            return Err("a key is longer than its record");
        }
        let (suffix, value) = rest.split_at(suffix_len);
        Ok(Record {
            word: self.layout.base_word.wrapping_add(delta),
            suffix,
            value,
            value_at: end - value.len(),
        })
    }

    /// Index of the first entry at or after `(key, word)` in internal order; `count` if
    /// there is none.
    #[inline]
    pub(crate) fn lower_bound(&self, key: &[u8], word: u64) -> Result<u32, Damage> {
        let prefix = self.prefix();
        let Some(suffix) = key.strip_prefix(prefix) else {
            return Ok(if key < prefix { 0 } else { self.layout.count });
        };
        let head = head32(suffix);
        let heads = self.heads();
        let low = heads.partition_point(|at| u32::from_le_bytes(*at) < head);
        if low == heads.len() || u32::from_le_bytes(heads[low]) != head {
            return Ok(low as u32);
        }
        // Equal heads decide nothing: compare whole keys among them.
        let ties = heads[low..].partition_point(|at| u32::from_le_bytes(*at) == head);
        let (mut low, mut high) = (low as u32, (low + ties) as u32);
        while low < high {
            let middle = low + (high - low) / 2;
            let record = self.record(middle)?;
            let order = record.suffix.cmp(suffix).then(word.cmp(&record.word));
            if order == Ordering::Less {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    /// Checks everything that [`Block::record`] does not need: records fill the block without gaps,
    /// heads agree with keys, words have a kind, entries are in internal order. Returns the highest
    /// sequence number.
    pub(crate) fn check(&self) -> Result<SeqNo, Damage> {
        if self.offset(0) != self.records_at() {
            return Err("the first record is not where it should be");
        }
        let mut previous: Option<Record<'_>> = None;
        let mut highest = SeqNo::ZERO;
        for (i, head) in self.heads().iter().enumerate() {
            let record = self.record(i as u32)?;
            if u32::from_le_bytes(*head) != head32(record.suffix) {
                return Err("the head of a key differs from the key");
            }
            let Some((seq, kind)) = split_word(record.word) else {
                return Err(UNKNOWN_KIND);
            };
            if kind == EntryKind::PutRef && ValueRef::decode(record.value).is_err() {
                return Err("a reference to a value is malformed");
            }
            if kind == EntryKind::Merge && merge_parts(record.value, seq).is_none() {
                return Err("a merge is malformed");
            }
            highest = highest.max(seq);
            if previous.is_some_and(|previous| {
                // By number alone: a key does not have one number twice, of whatever kinds.
                let order = previous.suffix.cmp(record.suffix);
                order.then((record.word >> 8).cmp(&(previous.word >> 8))) != Ordering::Less
            }) {
                return Err("entries are out of order");
            }
            previous = Some(record);
        }
        Ok(highest)
    }
}
