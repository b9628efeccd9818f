//! Leaves: keys and values.
//!
//! A [`Leaf`] reads an image, a [`LeafMut`] changes one in place. When a change does
//! not fit, the functions of [`rebuild`] make new images.

mod rebuild;

use std::ops::Range;

use super::header::{
    CAPACITY_AT, COUNT_AT, Frame, HEAP_LIVE_AT, HEAP_START_AT, NodeKind, SLOT_LEN, get_size, kind,
    page_id, put_size, put_u16, put_u32, put_u64,
};
use super::{Full, search, unit_count};
use crate::format::coding::{get_u16, get_u32, get_u64};
use crate::types::PageId;
use crate::util::key_prefix::head32;
use crate::util::mutants::mutated;
use crate::values::ValueRef;

pub(crate) use rebuild::{
    Pending, bytes_of, merge, merged, new, of_entries, pour, split, trimmed, with_fences,
};

/// Bytes of a record before its key: key length (u16) and value word (u32).
pub(crate) const RECORD_HEADER_LEN: usize = 6;
/// In a value word: the value is in an overflow extent.
pub(crate) const OVERFLOW_FLAG: u32 = 1 << 31;
/// Bytes of a reference to an overflow extent: page (u64), length and checksum (u32).
pub(crate) const OVERFLOW_LEN: usize = 16;
/// In a value word: the value is stored apart, and a reference to it is in its place.
pub(crate) const APART_FLAG: u32 = 1 << 30;

/// In a pack: the value word of a delete.
pub(crate) const DELETED: u32 = u32::MAX;

/// A put's value as leaves, packs and changes in memory hold it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stored<'a> {
    /// The value itself.
    Inline(&'a [u8]),
    /// A reference to a value that is stored apart ([`crate::values`]).
    Apart(&'a [u8]),
}

impl<'a> Stored<'a> {
    /// The bytes that take a place.
    #[inline]
    pub(crate) fn bytes(self) -> &'a [u8] {
        match self {
            Self::Inline(bytes) | Self::Apart(bytes) => bytes,
        }
    }

    /// How many those are.
    #[inline]
    pub(crate) fn len(self) -> usize {
        self.bytes().len()
    }

    /// Length of the value, wherever it is.
    pub(crate) fn value_len(self) -> usize {
        match self {
            Self::Inline(bytes) => bytes.len(),
            // N6.
            Self::Apart(reference) => {
                ValueRef::decode(reference).map_or(0, |value| value.len_bytes)
            }
        }
    }

    /// Their number and kind, as a value word.
    pub(crate) fn word(self) -> u32 {
        let len = u32::try_from(self.len()).expect("what is in a leaf is short");
        debug_assert!(len < APART_FLAG);
        match self {
            Self::Inline(_) => len,
            Self::Apart(_) if mutated!("reference-taken-for-a-value") => len,
            Self::Apart(_) => len | APART_FLAG,
        }
    }

    /// The value whose word that is, at `at` in `bytes`.
    #[inline]
    pub(crate) fn at(bytes: &'a [u8], at: usize, word: u32) -> Self {
        let stored = &bytes[at..at + (word & !APART_FLAG) as usize];
        match word & APART_FLAG {
            0 => Self::Inline(stored),
            _ => Self::Apart(stored),
        }
    }
}

impl<'a> From<&'a [u8]> for Stored<'a> {
    fn from(value: &'a [u8]) -> Self {
        Self::Inline(value)
    }
}

/// A value as a leaf holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LeafValue<'a> {
    /// The value itself.
    Inline(&'a [u8]),
    /// Where a large value lies in the file.
    Overflow {
        /// First page of the extent.
        page: PageId,
        /// Length of the value, in bytes.
        len: u32,
        /// Checksum of the value.
        checksum: u32,
    },
    /// A reference to a value that is stored apart.
    Apart(&'a [u8]),
}

impl<'a> From<Stored<'a>> for LeafValue<'a> {
    fn from(value: Stored<'a>) -> Self {
        match value {
            Stored::Inline(bytes) => Self::Inline(bytes),
            Stored::Apart(reference) => Self::Apart(reference),
        }
    }
}

impl LeafValue<'_> {
    /// Bytes in the record.
    pub(crate) fn stored_len(self) -> usize {
        match self {
            Self::Inline(bytes) | Self::Apart(bytes) => bytes.len(),
            Self::Overflow { .. } => OVERFLOW_LEN,
        }
    }

    /// Writes value word and value of the record at `at`, whose key has `key_len` bytes.
    fn write(self, image: &mut [u8], at: usize, key_len: usize) {
        let to = at + RECORD_HEADER_LEN + key_len;
        match self {
            Self::Inline(bytes) => {
                put_u32(image, at + 2, Stored::Inline(bytes).word());
                image[to..to + bytes.len()].copy_from_slice(bytes);
            }
            Self::Apart(reference) => {
                put_u32(image, at + 2, Stored::Apart(reference).word());
                image[to..to + reference.len()].copy_from_slice(reference);
            }
            Self::Overflow {
                page,
                len,
                checksum,
            } => {
                put_u32(image, at + 2, OVERFLOW_FLAG);
                put_u64(image, to, page.0);
                put_u32(image, to + 8, len);
                put_u32(image, to + 12, checksum);
            }
        }
    }
}

/// Lengths of the key suffix and the stored value of the record at `at`.
#[inline]
pub(crate) fn record_lens(image: &[u8], at: usize) -> (usize, usize) {
    let key_len = usize::from(get_u16(image, at));
    let word = get_u32(image, at + 2);
    let value_len = if word & OVERFLOW_FLAG == 0 {
        (word & !APART_FLAG) as usize
    } else {
        OVERFLOW_LEN
    };
    (key_len, value_len)
}

/// Where the records of a leaf are that does not change: found once, for walking over them.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Slots {
    at: usize,
    len: usize,
}

impl Slots {
    /// Number of entries.
    #[inline]
    pub(crate) fn len(self) -> usize {
        self.len
    }
}

/// Where a record is in the image, and what kind of value it has.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Record {
    key_at: usize,
    key_len: usize,
    value_word: u32,
}

/// What a put needs to know of a leaf whose values are all in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LeafFacts {
    pub(crate) entries: usize,
    /// Or a few more.
    pub(crate) live_bytes: usize,
    /// Of what all of its keys begin with.
    pub(crate) prefix_len: usize,
    /// Units that it takes.
    pub(crate) units: u64,
}

impl LeafFacts {
    /// Of the leaf in `image`, which passed `validate` or was made here.
    pub(crate) fn of(image: &[u8]) -> Self {
        let leaf = Leaf::from_image(image);
        Self {
            entries: leaf.len(),
            live_bytes: leaf.live_bytes(),
            prefix_len: leaf.prefix().len(),
            units: u64::from(unit_count(image)),
        }
    }
}

/// Reads a leaf.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Leaf<'a>(&'a [u8]);

impl<'a> Leaf<'a> {
    /// The leaf in `image`, which passed `validate` or was made here.
    #[inline]
    pub(crate) fn from_image(image: &'a [u8]) -> Self {
        Self(image)
    }

    #[inline]
    fn frame(self) -> Frame<'a> {
        Frame(self.0)
    }

    /// Number of entries.
    #[inline]
    pub(crate) fn len(self) -> usize {
        self.frame().count()
    }

    /// True without entries.
    pub(crate) fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// What every key in the node starts with.
    #[inline]
    pub(crate) fn prefix(self) -> &'a [u8] {
        self.frame().prefix()
    }

    /// The inclusive lower fence.
    pub(crate) fn lower_fence(self) -> &'a [u8] {
        self.frame().lower()
    }

    /// Replaces `out` with the upper fence; false, and `out` empty, for no bound.
    pub(crate) fn write_upper_fence(self, out: &mut Vec<u8>) -> bool {
        self.frame().write_upper(out)
    }

    /// Both fences; `upper` holds the upper one.
    pub(crate) fn fences<'b>(self, upper: &'b mut Vec<u8>) -> (&'a [u8], Option<&'b [u8]>) {
        let is_bounded = self.write_upper_fence(upper);
        (self.lower_fence(), is_bounded.then_some(upper.as_slice()))
    }

    /// True if that is the upper fence, or there is none.
    pub(crate) fn has_upper_fence(self, fence: Option<&[u8]>) -> bool {
        match (self.frame().upper_suffix(), fence) {
            (Some(upper), Some(fence)) => fence.strip_prefix(self.prefix()) == Some(upper),
            (upper, fence) => upper.is_none() && fence.is_none(),
        }
    }

    /// The page that the leaf was placed at.
    pub(crate) fn page_id(self) -> PageId {
        page_id(self.0)
    }

    /// True if `key` is inside the fences.
    pub(crate) fn covers(self, key: &[u8]) -> bool {
        self.frame().covers(key)
    }

    /// The slot of `key`, or the slot where it would go. Right for any key, whether
    /// the fences cover it or not.
    #[inline]
    pub(crate) fn search(self, key: &[u8]) -> Result<usize, usize> {
        let frame = self.frame();
        let prefix = frame.prefix();
        let Some(suffix) = key.strip_prefix(prefix) else {
            return Err(if key < prefix { 0 } else { frame.count() });
        };
        let slots_at = frame.slots_at();
        search::find(frame.heads(), head32(suffix), suffix, |i| {
            self.suffix_at(get_size(self.0, slots_at + 4 * i))
        })
    }

    /// The first slot with a head that is not below that of `key`. `None` if the key does not start
    /// with the prefix.
    #[inline]
    pub(crate) fn first_slot_by_head(self, key: &[u8]) -> Option<usize> {
        let frame = self.frame();
        let suffix = key.strip_prefix(frame.prefix())?;
        Some(search::lower_bound(frame.heads(), head32(suffix)))
    }

    /// As [`Leaf::search`], from what [`Leaf::first_slot_by_head`] gave for the key.
    #[inline]
    pub(crate) fn search_from(self, first: usize, key: &[u8]) -> Result<usize, usize> {
        let frame = self.frame();
        let suffix = key.get(frame.prefix_len()..).unwrap_or_default();
        let slots_at = frame.slots_at();
        search::find_from(first, frame.heads(), head32(suffix), suffix, |i| {
            self.suffix_at(get_size(self.0, slots_at + 4 * i))
        })
    }

    /// Where the record of a slot is, if there is such a slot.
    #[inline]
    pub(crate) fn record_offset(self, slot: usize) -> Option<usize> {
        let frame = self.frame();
        (slot < frame.count()).then(|| frame.record_at(slot))
    }

    /// Reads a byte of each of the first lines of memory that the record at `at` takes.
    #[inline]
    pub(crate) fn touch_record(self, at: usize) -> u8 {
        const LINE_BYTES: usize = 64;
        let line = |n| self.0.get(at + n * LINE_BYTES).copied().unwrap_or_default();
        line(0) ^ line(1)
    }

    #[inline]
    fn suffix_at(self, record_at: usize) -> &'a [u8] {
        let len = usize::from(get_u16(self.0, record_at));
        let at = record_at + RECORD_HEADER_LEN;
        &self.0[at..at + len]
    }

    /// Key `i` after the prefix.
    #[inline]
    pub(crate) fn key_suffix(self, i: usize) -> &'a [u8] {
        self.suffix_at(self.frame().record_at(i))
    }

    /// First four bytes of key `i` after the prefix, as a number.
    #[inline]
    pub(crate) fn head(self, i: usize) -> u32 {
        u32::from_le_bytes(self.frame().heads()[i])
    }

    /// Replaces `out` with key `i`.
    #[cfg(test)]
    pub(crate) fn write_key(self, i: usize, out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(self.prefix());
        out.extend_from_slice(self.key_suffix(i));
    }

    /// Key `i` compared with `key`.
    #[cfg(test)]
    pub(crate) fn compare_key(self, i: usize, key: &[u8]) -> std::cmp::Ordering {
        let prefix = self.prefix();
        match key.strip_prefix(prefix) {
            Some(suffix) => self.key_suffix(i).cmp(suffix),
            // `key` does not start with the prefix, so the prefix decides.
            None => prefix.cmp(key),
        }
    }

    /// Value `i`.
    #[inline]
    pub(crate) fn value(self, i: usize) -> LeafValue<'a> {
        self.value_of(self.record_at(self.frame().record_at(i)))
    }

    /// Where the records are.
    #[inline]
    pub(crate) fn slots(self) -> Slots {
        Slots {
            at: self.frame().slots_at(),
            len: self.len(),
        }
    }

    /// Record `i` of a leaf with these slots.
    #[inline]
    pub(crate) fn record(self, slots: Slots, i: usize) -> Record {
        self.record_at(get_size(self.0, slots.at + 4 * i))
    }

    #[inline]
    fn record_at(self, at: usize) -> Record {
        Record {
            key_at: at + RECORD_HEADER_LEN,
            key_len: usize::from(get_u16(self.0, at)),
            value_word: get_u32(self.0, at + 2),
        }
    }

    /// A record's key after the prefix.
    #[inline]
    pub(crate) fn key_suffix_of(self, record: Record) -> &'a [u8] {
        &self.0[record.key_at..record.key_at + record.key_len]
    }

    /// A record's key after the prefix, and what follows it in the image up to `N` bytes; `None` if
    /// the key is longer, or the image ends before.
    #[inline]
    pub(crate) fn short_key_suffix_of<const N: usize>(
        self,
        record: Record,
    ) -> Option<(&'a [u8; N], usize)> {
        let bytes = self.0.get(record.key_at..)?.first_chunk::<N>()?;
        (record.key_len <= N).then_some((bytes, record.key_len))
    }

    /// A record's value.
    #[inline]
    pub(crate) fn value_of(self, record: Record) -> LeafValue<'a> {
        let at = record.key_at + record.key_len;
        if record.value_word & (OVERFLOW_FLAG | APART_FLAG) == 0 {
            LeafValue::Inline(&self.0[at..at + record.value_word as usize])
        } else if record.value_word & OVERFLOW_FLAG == 0 {
            Stored::at(self.0, at, record.value_word).into()
        } else {
            LeafValue::Overflow {
                page: PageId(get_u64(self.0, at)),
                len: get_u32(self.0, at + 8),
                checksum: get_u32(self.0, at + 12),
            }
        }
    }

    /// The value of a record of a leaf or a pack; `None` for a delete.
    pub(super) fn value_of_put(self, record: Record) -> Option<LeafValue<'a>> {
        (record.value_word != DELETED).then(|| self.value_of(record))
    }

    /// Bytes of record `i`.
    fn record_len(self, i: usize) -> usize {
        let (key_len, value_len) = record_lens(self.0, self.frame().record_at(i));
        RECORD_HEADER_LEN + key_len + value_len
    }

    /// Bytes of entry `i`, with its head and its slot.
    pub(crate) fn entry_bytes(self, i: usize) -> usize {
        SLOT_LEN + self.record_len(i)
    }

    /// Bytes that inserts may still use in the image as it is, contiguous or after a compaction of
    /// the heap.
    pub(crate) fn free_bytes(self) -> usize {
        self.0.len() - self.live_bytes()
    }

    /// Bytes of the image that are in use, header and fences included.
    pub(crate) fn live_bytes(self) -> usize {
        let frame = self.frame();
        frame.heads_at() + SLOT_LEN * frame.count() + frame.heap_live()
    }
}

/// True if any value of the leaf in `image` is outside it.
pub(crate) fn has_overflow(image: &[u8]) -> bool {
    let leaf = Leaf::from_image(image);
    let slots = leaf.slots();
    (0..slots.len()).any(|i| {
        let record_at = get_size(image, slots.at + 4 * i);
        get_u32(image, record_at + 2) & OVERFLOW_FLAG != 0
    })
}

/// The references to values that are stored apart in a leaf or a pack; none in an inner node. The
/// image passed [`validate()`](fn@crate::btree::node::validate::validate) or was made here.
pub(crate) fn references(image: &[u8]) -> impl Iterator<Item = &[u8]> {
    let leaf = Leaf::from_image(image);
    let slots = match kind(image) {
        Some(NodeKind::Leaf | NodeKind::Pack) => leaf.slots(),
        Some(NodeKind::Inner) | None => Slots::default(),
    };
    // A delete in a pack has the bit of an overflow value, too.
    (0..slots.len()).filter_map(move |i| match leaf.value_of_put(leaf.record(slots, i)) {
        Some(LeafValue::Apart(reference)) => Some(reference),
        _ => None,
    })
}

/// Slots to keep in reserve in a node of `count` entries: growing the head array moves the
/// slot array, so it is not grown one by one.
fn spare_slots(count: usize) -> usize {
    (count / 8).clamp(4, 16)
}

/// Changes a leaf in place.
#[derive(Debug)]
pub(crate) struct LeafMut<'a>(&'a mut [u8]);

impl<'a> LeafMut<'a> {
    /// The leaf in `image`, which passed `validate` or was made here.
    #[inline]
    pub(crate) fn from_image(image: &'a mut [u8]) -> Self {
        Self(image)
    }

    /// The same leaf, for reading.
    #[inline]
    pub(crate) fn as_leaf(&self) -> Leaf<'_> {
        Leaf(self.0)
    }

    fn frame(&self) -> Frame<'_> {
        Frame(self.0)
    }

    /// Inserts an entry at slot `i`, which [`Leaf::search`] gave for `key`. The
    /// fences must cover the key.
    pub(crate) fn insert(
        &mut self,
        i: usize,
        key: &[u8],
        value: LeafValue<'_>,
    ) -> Result<(), Full> {
        debug_assert!(self.frame().covers(key));
        let suffix = &key[self.frame().prefix_len()..];
        let record_len = RECORD_HEADER_LEN + suffix.len() + value.stored_len();
        self.make_room(record_len)?;

        let frame = self.frame();
        let (count, heads_at, slots_at) = (frame.count(), frame.heads_at(), frame.slots_at());
        let record_at = self.allocate(record_len);
        self.write_record_key(record_at, suffix);
        value.write(self.0, record_at, suffix.len());
        for array_at in [heads_at, slots_at] {
            let at = array_at + 4 * i;
            self.0.copy_within(at..array_at + 4 * count, at + 4);
        }
        put_u32(self.0, heads_at + 4 * i, head32(suffix));
        put_size(self.0, slots_at + 4 * i, record_at);
        put_size(self.0, COUNT_AT, count + 1);
        Ok(())
    }

    /// Replaces value `i`: in place unless it is longer than the old one.
    pub(crate) fn set_value(&mut self, i: usize, value: LeafValue<'_>) -> Result<(), Full> {
        let frame = self.frame();
        let old_at = frame.record_at(i);
        let live = frame.heap_live();
        let (key_len, old_len) = record_lens(self.0, old_at);
        let new_len = value.stored_len();
        if new_len <= old_len {
            value.write(self.0, old_at, key_len);
            put_size(self.0, HEAP_LIVE_AT, live - (old_len - new_len));
            return Ok(());
        }

        let old_record_len = RECORD_HEADER_LEN + key_len + old_len;
        let record_len = RECORD_HEADER_LEN + key_len + new_len;
        if self.as_leaf().free_bytes() + old_record_len < record_len {
            return Err(Full);
        }
        if self.contiguous_bytes() >= record_len {
            let record_at = self.allocate(record_len);
            let key_at = old_at + RECORD_HEADER_LEN;
            put_u16(self.0, record_at, key_len as u16);
            self.0
                .copy_within(key_at..key_at + key_len, record_at + RECORD_HEADER_LEN);
            self.point_slot(i, record_at, key_len, value);
            put_size(self.0, HEAP_LIVE_AT, live + record_len - old_record_len);
        } else {
            let suffix = self.as_leaf().key_suffix(i).to_vec();
            self.compact(self.compact_capacity(record_len - old_record_len), Some(i));
            let record_at = self.allocate(record_len);
            self.write_record_key(record_at, &suffix);
            self.point_slot(i, record_at, key_len, value);
        }
        Ok(())
    }

    /// Writes the value of a new record, and makes it record `i`.
    fn point_slot(&mut self, i: usize, record_at: usize, key_len: usize, value: LeafValue<'_>) {
        value.write(self.0, record_at, key_len);
        let slot_at = self.frame().slots_at() + 4 * i;
        put_size(self.0, slot_at, record_at);
    }

    /// Removes entry `i`.
    pub(crate) fn remove(&mut self, i: usize) {
        self.remove_range(i..i + 1);
    }

    /// Removes the entries in `slots`.
    pub(crate) fn remove_range(&mut self, slots: Range<usize>) {
        let leaf = self.as_leaf();
        let frame = leaf.frame();
        let freed: usize = slots.clone().map(|i| leaf.record_len(i)).sum();
        let count = frame.count();
        let live = frame.heap_live() - freed;
        for array_at in [frame.heads_at(), frame.slots_at()] {
            let moved = array_at + 4 * slots.end..array_at + 4 * count;
            self.0.copy_within(moved, array_at + 4 * slots.start);
        }
        put_size(self.0, COUNT_AT, count - slots.len());
        put_size(self.0, HEAP_LIVE_AT, live);
        if live == 0 {
            put_size(self.0, HEAP_START_AT, self.0.len());
        }
    }

    /// Bytes between the slots and the heap.
    fn contiguous_bytes(&self) -> usize {
        self.frame().heap_start() - self.frame().slots_end()
    }

    /// Takes `len` bytes from the front of the heap, which `make_room` has seen to.
    fn allocate(&mut self, len: usize) -> usize {
        let at = self.frame().heap_start() - len;
        let live = self.frame().heap_live() + len;
        put_size(self.0, HEAP_START_AT, at);
        put_size(self.0, HEAP_LIVE_AT, live);
        at
    }

    fn write_record_key(&mut self, at: usize, suffix: &[u8]) {
        let len = u16::try_from(suffix.len()).expect("keys have at most 65,535 bytes");
        put_u16(self.0, at, len);
        let key_at = at + RECORD_HEADER_LEN;
        self.0[key_at..key_at + suffix.len()].copy_from_slice(suffix);
    }

    /// Makes sure of a free slot and `record_len` contiguous bytes.
    fn make_room(&mut self, record_len: usize) -> Result<(), Full> {
        let (count, capacity) = (self.frame().count(), self.frame().capacity());
        let contiguous = self.contiguous_bytes();
        if count < capacity && contiguous >= record_len {
            return Ok(());
        }
        if self.as_leaf().free_bytes() < record_len + SLOT_LEN {
            return Err(Full);
        }
        let affordable = contiguous.saturating_sub(record_len) / SLOT_LEN;
        if count == capacity && affordable > 0 {
            self.set_capacity(capacity + affordable.min(spare_slots(count)));
        } else {
            self.compact(self.compact_capacity(record_len), None);
        }
        Ok(())
    }

    /// Slots to have after a compaction that must leave `record_len` bytes: what is in use and
    /// a reserve, as far as there is space.
    fn compact_capacity(&self, record_len: usize) -> usize {
        let count = self.frame().count();
        let free = self.as_leaf().free_bytes().saturating_sub(record_len);
        count + (free / SLOT_LEN).min(spare_slots(count))
    }

    /// Moves the slot array so that the head array has space for `capacity` entries.
    fn set_capacity(&mut self, capacity: usize) {
        let frame = self.frame();
        let (slots_at, to) = (frame.slots_at(), frame.heads_at() + 4 * capacity);
        self.0
            .copy_within(slots_at..slots_at + 4 * frame.count(), to);
        put_size(self.0, CAPACITY_AT, capacity);
    }

    /// Moves all records to the end of the image, in key order, and sets the capacity. The
    /// record of `dropped` is left out: the caller writes another one for that slot.
    fn compact(&mut self, capacity: usize, dropped: Option<usize>) {
        // Records lie in any order, so the heap is copied aside instead of being shuffled
        // in place. This is rare: it takes a page full of garbage to get here.
        let old_start = self.frame().heap_start();
        let old = self.0[old_start..].to_vec();
        if let Some(i) = dropped {
            let live = self.frame().heap_live() - self.as_leaf().record_len(i);
            put_size(self.0, HEAP_LIVE_AT, live);
        }
        self.set_capacity(capacity);
        let frame = self.frame();
        let (count, slots_at) = (frame.count(), frame.slots_at());
        let mut at = self.0.len() - frame.heap_live();
        put_size(self.0, HEAP_START_AT, at);
        for i in (0..count).filter(|i| Some(*i) != dropped) {
            let slot_at = slots_at + 4 * i;
            let from = get_size(self.0, slot_at) - old_start;
            let (key_len, value_len) = record_lens(&old, from);
            let len = RECORD_HEADER_LEN + key_len + value_len;
            self.0[at..at + len].copy_from_slice(&old[from..from + len]);
            put_size(self.0, slot_at, at);
            at += len;
        }
    }
}
