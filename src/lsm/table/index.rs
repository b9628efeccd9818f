//! The index of a table: where each block is, and a *separator* before each.
//!
//! ```text
//! blocks u32 | prefix length u32
//! heads       blocks x u64        first eight bytes of each separator after the prefix
//! blocks at   (blocks + 1) x u64  where each block starts; the last one ends there
//! suffixes at (blocks + 1) x u32  where each separator's rest starts, from the first; bit 31 of
//!                                 all but the last says that the rest ends with a word
//! prefix                          what all separators begin with
//! suffixes                        the rest of each separator { suffix, word u64 if any }
//! ```
//!
//! A separator is a place in internal order at or before the first entry of its block and after the
//! last entry of the block before. It is a key, as short as that allows, and stands before all
//! versions of that key; only when a block starts in the midst of the versions of one key, the
//! separator carries the word of the block's first entry.
//!
//! A search is a binary search over the heads, 8 bytes a block. The index is used where it lies, in
//! the map or in memory; everything that the accessors rely on is checked once, in
//! [`Index::parse`].

use std::cmp::Ordering;

use super::block::Damage;
use crate::format::coding::{get_u32, get_u64};
use crate::util::key_prefix::{common_prefix_len, head64, shortest_separator};

/// Bytes before the heads.
const HEADER_LEN_BYTES: usize = 8;
/// Bytes of the arrays for each block.
const ROW_LEN_BYTES: usize = 8 + 8 + 4;
/// Marks a separator that carries a word.
const HAS_WORD: u32 = 1 << 31;

/// Collects separators.
#[derive(Debug, Default)]
pub(crate) struct IndexBuilder {
    /// All separators, one after the other, whole.
    keys: Vec<u8>,
    rows: Vec<Row>,
}

#[derive(Debug, Clone, Copy)]
struct Row {
    block_at: u64,
    key_len: u32,
    word: Option<u64>,
}

impl IndexBuilder {
    /// Adds the block at `block_at` whose first entry is `(key, word)`. `last_key` is the key of
    /// the last entry before it, if any.
    pub(crate) fn add(&mut self, block_at: u64, last_key: Option<&[u8]>, key: &[u8], word: u64) {
        let (separator, word) = match last_key {
            None => (key, None),
            Some(last_key) if last_key == key => (key, Some(word)),
            Some(last_key) => (shortest_separator(last_key, key), None),
        };
        self.keys.extend_from_slice(separator);
        self.rows.push(Row {
            block_at,
            key_len: separator.len() as u32,
            word,
        });
    }

    /// Number of blocks.
    pub(crate) fn blocks(&self) -> usize {
        self.rows.len()
    }

    /// About how long the index is.
    pub(crate) fn len_estimate(&self) -> usize {
        HEADER_LEN_BYTES + self.rows.len() * ROW_LEN_BYTES + self.keys.len()
    }

    /// The index of a table whose blocks end at `blocks_end`. `None` if it would exceed
    /// what its fields can say, 2 GiB of separators.
    pub(crate) fn encode(&self, blocks_end: u64) -> Option<Vec<u8>> {
        let separators = || {
            let mut keys = self.keys.as_slice();
            self.rows.iter().map(move |row| {
                let (key, rest) = keys.split_at(row.key_len as usize);
                keys = rest;
                (row, key)
            })
        };
        // Separators rise, so what the first and the last share is shared by all.
        let prefix = match (separators().next(), self.rows.last()) {
            (Some((_, first)), Some(last)) => {
                let last = &self.keys[self.keys.len() - last.key_len as usize..];
                &first[..common_prefix_len(first, last)]
            }
            _ => &[],
        };
        let mut out = Vec::with_capacity(self.len_estimate() + 16);
        out.extend_from_slice(&u32::try_from(self.rows.len()).ok()?.to_le_bytes());
        out.extend_from_slice(&(prefix.len() as u32).to_le_bytes());
        for (_, key) in separators() {
            out.extend_from_slice(&head64(&key[prefix.len()..]).to_le_bytes());
        }
        for row in &self.rows {
            out.extend_from_slice(&row.block_at.to_le_bytes());
        }
        out.extend_from_slice(&blocks_end.to_le_bytes());
        let mut at = 0_u32;
        for row in &self.rows {
            let flag = if row.word.is_some() { HAS_WORD } else { 0 };
            out.extend_from_slice(&(at | flag).to_le_bytes());
            let len = row.key_len - prefix.len() as u32 + row.word.map_or(0, |_| 8);
            at = at.checked_add(len).filter(|at| *at < HAS_WORD)?;
        }
        out.extend_from_slice(&at.to_le_bytes());
        out.extend_from_slice(prefix);
        for (row, key) in separators() {
            out.extend_from_slice(&key[prefix.len()..]);
            if let Some(word) = row.word {
                out.extend_from_slice(&word.to_le_bytes());
            }
        }
        Some(out)
    }
}

/// Where things are in an index.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Layout {
    pub(crate) blocks: u32,
    blocks_at: usize,
    suffixes_at: usize,
    prefix_at: usize,
    first_suffix_at: usize,
}

/// The bytes of an index and their layout.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Index<'a> {
    bytes: &'a [u8],
    layout: Layout,
}

impl<'a> Index<'a> {
    /// Reads an index and checks everything that the accessors rely on. The blocks of
    /// the table must lie in `0..blocks_end` without gaps, each longer than
    /// `min_block_len` bytes.
    pub(crate) fn parse(
        bytes: &'a [u8],
        blocks_end: u64,
        min_block_len: u64,
    ) -> Result<Self, Damage> {
        if bytes.len() < HEADER_LEN_BYTES {
            return Err("the index is shorter than its header");
        }
        let blocks = get_u32(bytes, 0);
        let prefix_len = get_u32(bytes, 4) as usize;
        let count = blocks as usize;
        let prefix_at = count
            .checked_mul(ROW_LEN_BYTES)
            .map(|rows| HEADER_LEN_BYTES + rows + 12);
        let Some(prefix_at) = prefix_at.filter(|at| *at <= bytes.len()) else {
            return Err("the index is too short for its blocks");
        };
        if prefix_len > bytes.len() - prefix_at {
            return Err("the index is too short for its prefix");
        }
        let layout = Layout {
            blocks,
            blocks_at: HEADER_LEN_BYTES + count * 8,
            suffixes_at: HEADER_LEN_BYTES + count * 16 + 8,
            prefix_at,
            first_suffix_at: prefix_at + prefix_len,
        };
        let index = Self { bytes, layout };
        if index.block_at(0) != 0 || index.block_at(blocks) != blocks_end {
            return Err("the blocks of the index do not fill the table");
        }
        let suffixes_len = bytes.len() - layout.first_suffix_at;
        if index.suffix_at(0).0 != 0 || index.suffix_at(blocks) != (suffixes_len, false) {
            return Err("the separators do not fill the index");
        }
        for no in 0..blocks {
            let (start, end) = (index.block_at(no), index.block_at(no + 1));
            if start >= end || end > blocks_end || end - start <= min_block_len {
                return Err("the blocks of the index are out of order");
            }
            let ((start, has_word), (end, _)) = (index.suffix_at(no), index.suffix_at(no + 1));
            let word_len = if has_word { 8 } else { 0 };
            if start > end || end > suffixes_len || end - start < word_len {
                return Err("the separators of the index are out of order");
            }
        }
        Ok(index)
    }

    /// The index of a layout that was parsed before, from the same bytes.
    #[inline]
    pub(crate) fn new(bytes: &'a [u8], layout: Layout) -> Self {
        Self { bytes, layout }
    }

    pub(crate) fn layout(&self) -> Layout {
        self.layout
    }

    /// Where block `no <= blocks` starts, and block `no - 1` ends.
    #[inline]
    pub(crate) fn block_at(&self, no: u32) -> u64 {
        get_u64(self.bytes, self.layout.blocks_at + no as usize * 8)
    }

    /// Where the rest of separator `no <= blocks` starts, and whether it ends with a word.
    #[inline]
    fn suffix_at(&self, no: u32) -> (usize, bool) {
        let field = get_u32(self.bytes, self.layout.suffixes_at + no as usize * 4);
        ((field & !HAS_WORD) as usize, field & HAS_WORD != 0)
    }

    /// What all separators begin with.
    #[inline]
    fn prefix(&self) -> &'a [u8] {
        &self.bytes[self.layout.prefix_at..self.layout.first_suffix_at]
    }

    #[inline]
    fn heads(&self) -> &'a [[u8; 8]] {
        self.bytes[HEADER_LEN_BYTES..self.layout.blocks_at]
            .as_chunks()
            .0
    }

    /// Separator `no` after the prefix, and its word.
    #[inline]
    fn suffix(&self, no: u32) -> (&'a [u8], u64) {
        let (start, has_word) = self.suffix_at(no);
        let (end, _) = self.suffix_at(no + 1);
        let suffixes = &self.bytes[self.layout.first_suffix_at..];
        if has_word {
            (&suffixes[start..end - 8], get_u64(suffixes, end - 8))
        } else {
            (&suffixes[start..end], u64::MAX)
        }
    }

    /// Separator `no`: its key, and its word, which is `u64::MAX` if it stands before all
    /// versions of the key.
    pub(crate) fn separator(&self, no: u32) -> (Vec<u8>, u64) {
        let (suffix, word) = self.suffix(no);
        ([self.prefix(), suffix].concat(), word)
    }

    /// Where separator `no` stands to the entry `(key, word)`, in internal order.
    pub(crate) fn compare_separator(&self, no: u32, key: &[u8], word: u64) -> Ordering {
        let prefix = self.prefix();
        let Some(rest) = key.strip_prefix(prefix) else {
            return prefix.cmp(key);
        };
        let (suffix, separator_word) = self.suffix(no);
        suffix.cmp(rest).then(word.cmp(&separator_word))
    }

    /// True if `key` is the key of separator `no`.
    #[inline]
    pub(crate) fn separator_is(&self, no: u32, key: &[u8]) -> bool {
        key.strip_prefix(self.prefix()) == Some(self.suffix(no).0)
    }

    /// Number of separators at or before `(key, word)`. The entry looked for, if there is one, is
    /// in the block before that number, or the first of the next.
    #[inline]
    pub(crate) fn separators_up_to(&self, key: &[u8], word: u64) -> u32 {
        let prefix = self.prefix();
        let Some(suffix) = key.strip_prefix(prefix) else {
            return if key < prefix { 0 } else { self.layout.blocks };
        };
        let head = head64(suffix);
        let heads = self.heads();
        let low = heads.partition_point(|at| u64::from_le_bytes(*at) < head);
        if low == heads.len() || u64::from_le_bytes(heads[low]) != head {
            return low as u32;
        }
        // Equal heads decide nothing: compare whole separators among them.
        let ties = heads[low..].partition_point(|at| u64::from_le_bytes(*at) == head);
        let (mut low, mut high) = (low as u32, (low + ties) as u32);
        while low < high {
            let middle = low + (high - low) / 2;
            let (separator, separator_word) = self.suffix(middle);
            let order = separator.cmp(suffix).then(word.cmp(&separator_word));
            if order == Ordering::Greater {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        low
    }

    /// Checks what lookups do not need: heads agree with separators, separators are in
    /// internal order.
    pub(crate) fn check(&self) -> Result<(), Damage> {
        let mut previous: Option<(&[u8], u64)> = None;
        for (no, head) in self.heads().iter().enumerate() {
            let (suffix, word) = self.suffix(no as u32);
            if u64::from_le_bytes(*head) != head64(suffix) {
                return Err("the head of a separator differs from the separator");
            }
            if previous.is_some_and(|(key, previous_word)| {
                key.cmp(suffix).then(word.cmp(&previous_word)) != Ordering::Less
            }) {
                return Err("separators are out of order");
            }
            previous = Some((suffix, word));
        }
        Ok(())
    }
}
