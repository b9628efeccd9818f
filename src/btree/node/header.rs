//! The header that leaves and inner nodes share, and the arrays behind it.
//!
//! docs/format.md, section "B-tree: node", defines the bytes. [`Frame`] reads the
//! part that both kinds have: header, fences, heads and slots.

use crate::format::checksum::checksum;
use crate::format::coding::{get_u32, get_u64};
use crate::types::{PageId, SeqNo};
use crate::util::key_prefix::common_prefix_len;
use crate::util::mutants::mutated;

/// Bytes before the fences.
pub(crate) const HEADER_LEN: usize = 56;
/// Bytes that an entry takes in the head array and the slot array together.
pub(crate) const SLOT_LEN: usize = 8;
/// Longest fence or separator: the immediate successor of the longest key.
pub(crate) const MAX_BOUND_LEN: usize = crate::types::MAX_KEY_LEN_BYTES + 1;
/// The upper fence length that means "no upper fence".
pub(crate) const NO_UPPER: u32 = u32::MAX;

pub(crate) const KIND_LEAF: u8 = 1;
pub(crate) const KIND_INNER: u8 = 2;
pub(crate) const KIND_PACK: u8 = 3;

/// The level of packs: no node has a child there.
pub(crate) const PACK_LEVEL: u8 = u8::MAX;

const CHECKSUM_AT: usize = 0;
pub(crate) const KIND_AT: usize = 4;
pub(crate) const LEVEL_AT: usize = 5;
/// Groups of packs of an inner node of level 1, zero in others.
pub(crate) const GROUPS_AT: usize = 6;
pub(crate) const UNITS_AT: usize = 8;
pub(crate) const COUNT_AT: usize = 12;
pub(crate) const CAPACITY_AT: usize = 16;
pub(crate) const PREFIX_LEN_AT: usize = 20;
pub(crate) const LOWER_LEN_AT: usize = 24;
pub(crate) const UPPER_LEN_AT: usize = 28;
pub(crate) const HEAP_START_AT: usize = 32;
pub(crate) const HEAP_LIVE_AT: usize = 36;
const LAST_SEQ_AT: usize = 40;
const PAGE_ID_AT: usize = 48;

/// What a node holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NodeKind {
    /// Keys and values.
    Leaf,
    /// Separators and children.
    Inner,
    /// Changes to leaves. No node has it for a child.
    Pack,
}

/// Sets the checksum. `seed` binds it to store, keyspace and page number.
pub(crate) fn write_checksum(image: &mut [u8], seed: u64) {
    let sum = checksum(seed, &image[KIND_AT..]);
    put_u32(image, CHECKSUM_AT, sum);
}

/// The checksum that the image says it has.
#[inline]
pub(crate) fn checksum_of(image: &[u8]) -> u32 {
    get_u32(image, CHECKSUM_AT)
}

/// Verifies the checksum.
pub(crate) fn check(image: &[u8], seed: u64) -> Result<(), String> {
    if image.len() < HEADER_LEN {
        return Err(format!("a node of {} bytes is too short", image.len()));
    }
    let stored = checksum_of(image);
    let computed = checksum(seed, &image[KIND_AT..]);
    if stored != computed && !mutated!("page-checksum-ignored") {
        return Err(format!(
            "node checksum is {stored:#010x} and should be {computed:#010x}"
        ));
    }
    Ok(())
}

/// What the node holds; `None` for bytes that are no node.
pub(crate) fn kind(image: &[u8]) -> Option<NodeKind> {
    match image.get(KIND_AT) {
        Some(&KIND_LEAF) => Some(NodeKind::Leaf),
        Some(&KIND_INNER) => Some(NodeKind::Inner),
        Some(&KIND_PACK) => Some(NodeKind::Pack),
        _ => None,
    }
}

/// Distance from the leaves; 0 for a leaf.
pub(crate) fn level(image: &[u8]) -> u8 {
    image[LEVEL_AT]
}

/// Bytes of a unit, in which space in the file is given out, where nodes are cut to `page_size`. A
/// node takes as many units as its bytes need.
pub(crate) const fn unit_size(page_size: usize) -> usize {
    const UNIT_SIZE_MAX: usize = 4096;
    if page_size < UNIT_SIZE_MAX {
        page_size
    } else {
        UNIT_SIZE_MAX
    }
}

/// Number of contiguous units in the node, as its first one says. Works on a first unit that
/// was not verified yet: the caller holds the number against the length of the file.
pub(crate) fn unit_count(first_unit: &[u8]) -> u32 {
    get_u32(first_unit, UNITS_AT)
}

/// The page the node was placed at.
pub(crate) fn page_id(image: &[u8]) -> PageId {
    PageId(get_u64(image, PAGE_ID_AT))
}

/// Places the node at `page`.
pub(crate) fn set_page_id(image: &mut [u8], page: PageId) {
    put_u64(image, PAGE_ID_AT, page.0);
}

/// Number of the last change of the node's content; zero for an inner node.
pub(crate) fn last_seq(image: &[u8]) -> SeqNo {
    SeqNo(get_u64(image, LAST_SEQ_AT))
}

/// Sets the number of the last change.
pub(crate) fn set_last_seq(image: &mut [u8], seq: SeqNo) {
    put_u64(image, LAST_SEQ_AT, seq.0);
}

pub(crate) fn put_u16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_le_bytes());
}

pub(crate) fn put_u32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

pub(crate) fn put_u64(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

/// Stores a length or an offset. Images stay far below 4 GiB: a node has a bounded number
/// of entries of bounded size before it is split.
pub(crate) fn put_size(bytes: &mut [u8], at: usize, size: usize) {
    let size = u32::try_from(size).expect("offsets in a node fit 32 bits");
    put_u32(bytes, at, size);
}

pub(crate) fn get_size(bytes: &[u8], at: usize) -> usize {
    get_u32(bytes, at) as usize
}

/// Where the head array begins after fences of these stored lengths.
pub(crate) const fn heads_offset(lower_len: usize, upper_suffix_len: usize) -> usize {
    (HEADER_LEN + lower_len + upper_suffix_len).next_multiple_of(4)
}

/// Lower and upper fence of a node, and what follows from them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fences<'a> {
    pub(crate) lower: &'a [u8],
    pub(crate) upper: Option<&'a [u8]>,
}

impl<'a> Fences<'a> {
    /// Those of the two nodes on either side of a separator.
    pub(crate) fn cut_at(self, separator: &'a [u8]) -> (Self, Self) {
        let low = Self {
            lower: self.lower,
            upper: Some(separator),
        };
        let high = Self {
            lower: separator,
            upper: self.upper,
        };
        (low, high)
    }

    /// Length of what every key between the fences starts with.
    pub(crate) fn prefix_len(self) -> usize {
        self.upper
            .map_or(0, |upper| common_prefix_len(self.lower, upper))
    }

    /// Bytes of header and fences.
    pub(crate) fn heads_offset(self) -> usize {
        let upper_len = self
            .upper
            .map_or(0, |upper| upper.len() - self.prefix_len());
        heads_offset(self.lower.len(), upper_len)
    }

    /// Bytes of header and fences, at most, of the two nodes that a separator of this length
    /// makes of one with a prefix of `prefix_len` bytes.
    pub(crate) fn cut_offsets(self, prefix_len: usize, separator_len: usize) -> (usize, usize) {
        let upper_len = self.upper.map_or(0, |upper| upper.len() - prefix_len);
        let left = heads_offset(self.lower.len(), separator_len - prefix_len);
        let right = heads_offset(separator_len, upper_len);
        (left, right)
    }

    /// Writes the header of an empty node and its fences. The rest of `image` is zero.
    pub(crate) fn write(self, image: &mut [u8], kind: u8, level: u8, units: usize) {
        let prefix_len = self.prefix_len();
        image[KIND_AT] = kind;
        image[LEVEL_AT] = level;
        put_size(image, UNITS_AT, units);
        put_size(image, PREFIX_LEN_AT, prefix_len);
        put_size(image, LOWER_LEN_AT, self.lower.len());
        let lower_end = HEADER_LEN + self.lower.len();
        image[HEADER_LEN..lower_end].copy_from_slice(self.lower);
        match self.upper {
            None => put_u32(image, UPPER_LEN_AT, NO_UPPER),
            Some(upper) => {
                let suffix = &upper[prefix_len..];
                put_size(image, UPPER_LEN_AT, suffix.len());
                image[lower_end..lower_end + suffix.len()].copy_from_slice(suffix);
            }
        }
        put_size(image, HEAP_START_AT, image.len());
    }
}

/// Reads what leaves and inner nodes have in common.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Frame<'a>(pub(crate) &'a [u8]);

impl<'a> Frame<'a> {
    /// Entries of a leaf, separators of an inner node.
    #[inline]
    pub(crate) fn count(self) -> usize {
        get_size(self.0, COUNT_AT)
    }

    /// Entries that the head array has space for.
    #[inline]
    pub(crate) fn capacity(self) -> usize {
        get_size(self.0, CAPACITY_AT)
    }

    #[inline]
    pub(crate) fn prefix_len(self) -> usize {
        get_size(self.0, PREFIX_LEN_AT)
    }

    #[inline]
    pub(crate) fn lower_len(self) -> usize {
        get_size(self.0, LOWER_LEN_AT)
    }

    /// What every key between the fences starts with.
    #[inline]
    pub(crate) fn prefix(self) -> &'a [u8] {
        &self.0[HEADER_LEN..HEADER_LEN + self.prefix_len()]
    }

    /// The inclusive lower fence.
    pub(crate) fn lower(self) -> &'a [u8] {
        &self.0[HEADER_LEN..HEADER_LEN + self.lower_len()]
    }

    /// The exclusive upper fence after the prefix.
    pub(crate) fn upper_suffix(self) -> Option<&'a [u8]> {
        let len = get_u32(self.0, UPPER_LEN_AT);
        let at = HEADER_LEN + self.lower_len();
        (len != NO_UPPER).then(|| &self.0[at..at + len as usize])
    }

    /// The exclusive upper fence.
    pub(crate) fn upper(self) -> Option<Vec<u8>> {
        self.upper_suffix()
            .map(|suffix| [self.prefix(), suffix].concat())
    }

    /// Replaces `out` with the upper fence; false, and `out` empty, without one.
    pub(crate) fn write_upper(self, out: &mut Vec<u8>) -> bool {
        out.clear();
        match self.upper_suffix() {
            None => false,
            Some(suffix) => {
                out.extend_from_slice(self.prefix());
                out.extend_from_slice(suffix);
                true
            }
        }
    }

    /// True if `key` is inside the fences.
    pub(crate) fn covers(self, key: &[u8]) -> bool {
        let prefix = self.prefix();
        match key.strip_prefix(prefix) {
            None => false,
            Some(suffix) => {
                suffix >= &self.lower()[prefix.len()..]
                    && self.upper_suffix().is_none_or(|upper| suffix < upper)
            }
        }
    }

    #[inline]
    pub(crate) fn heads_at(self) -> usize {
        let upper_len = match get_u32(self.0, UPPER_LEN_AT) {
            NO_UPPER => 0,
            len => len as usize,
        };
        heads_offset(self.lower_len(), upper_len)
    }

    /// The heads in use.
    #[inline]
    pub(crate) fn heads(self) -> &'a [[u8; 4]] {
        let at = self.heads_at();
        self.0[at..at + 4 * self.count()].as_chunks().0
    }

    #[inline]
    pub(crate) fn slots_at(self) -> usize {
        self.heads_at() + 4 * self.capacity()
    }

    /// Offset of record `i`.
    #[inline]
    pub(crate) fn record_at(self, i: usize) -> usize {
        get_size(self.0, self.slots_at() + 4 * i)
    }

    /// First byte after the slot array.
    pub(crate) fn slots_end(self) -> usize {
        self.heads_at() + SLOT_LEN * self.capacity()
    }

    /// First byte of the heap of records.
    #[inline]
    pub(crate) fn heap_start(self) -> usize {
        get_size(self.0, HEAP_START_AT)
    }

    /// Bytes of the heap that belong to records in use.
    pub(crate) fn heap_live(self) -> usize {
        get_size(self.0, HEAP_LIVE_AT)
    }
}
