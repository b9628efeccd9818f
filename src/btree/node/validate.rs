//! The structural check of a node that comes from a disk.

use super::header::{
    Frame, GROUPS_AT, HEADER_LEN, KIND_AT, MAX_BOUND_LEN, NO_UPPER, PACK_LEVEL, SLOT_LEN,
    UPPER_LEN_AT, heads_offset, kind, level, unit_count,
};
use super::{NodeKind, inner, leaf, pack};
use crate::format::coding::{get_u16, get_u32};
use crate::types::MAX_KEY_LEN_BYTES;
use crate::util::key_prefix::head32;
use crate::values::ValueRef;

/// Checks invariants N1 to N6 of the [module](super). Does not panic, whatever the bytes.
pub(crate) fn validate(image: &[u8]) -> Result<(), String> {
    let kind = check_header(image)?;
    let frame = Frame(image);
    let lower = &frame.lower()[frame.prefix_len()..];
    let upper = frame.upper_suffix();
    let mut extents = Extents::new();
    let mut live = 0;
    let mut previous: Option<&[u8]> = None;
    for (i, head) in frame.heads().iter().enumerate() {
        let at = frame.record_at(i);
        if at < frame.heap_start() || at > image.len() {
            return Err(format!("record {i} at {at} is outside the heap"));
        }
        let record = match kind {
            NodeKind::Leaf => leaf_record(image, at),
            NodeKind::Inner => inner_record(image, at),
            NodeKind::Pack => pack_record(image, at),
        };
        let Some((suffix, len)) = record else {
            return Err(format!("record {i} at {at} is malformed"));
        };
        live += len;
        extents.add(at, len);

        let max_len = match kind {
            NodeKind::Leaf | NodeKind::Pack => MAX_KEY_LEN_BYTES,
            NodeKind::Inner => MAX_BOUND_LEN,
        };
        if frame.prefix_len() + suffix.len() > max_len {
            return Err(format!("key {i} is too long"));
        }
        if u32::from_le_bytes(*head) != head32(suffix) {
            return Err(format!("head {i} does not match its key"));
        }
        let ascends = match (previous, kind) {
            (Some(previous), _) => previous < suffix,
            (None, NodeKind::Leaf | NodeKind::Pack) => lower <= suffix,
            (None, NodeKind::Inner) => lower < suffix,
        };
        if !ascends {
            return Err(format!("key {i} is not above the key or fence before it"));
        }
        previous = Some(suffix);
    }
    if let (Some(last), Some(upper)) = (previous, upper)
        && last >= upper
    {
        return Err("the last key is not below the upper fence".to_owned());
    }
    if live != frame.heap_live() {
        return Err(format!(
            "records have {live} bytes and the header says {}",
            frame.heap_live()
        ));
    }
    extents.check()
}

/// Checks everything that [`Frame`] relies on, and the fences.
fn check_header(image: &[u8]) -> Result<NodeKind, String> {
    if image.len() < HEADER_LEN {
        return Err(format!("a node of {} bytes is too short", image.len()));
    }
    let Some(kind) = kind(image) else {
        return Err(format!("no node has kind {}", image[KIND_AT]));
    };
    let is_right_level = match kind {
        NodeKind::Leaf => level(image) == 0,
        NodeKind::Inner => (1..PACK_LEVEL).contains(&level(image)),
        NodeKind::Pack => level(image) == PACK_LEVEL,
    };
    if !is_right_level {
        return Err(format!("{kind:?} at level {}", level(image)));
    }
    if get_u16(image, GROUPS_AT) != 0 && level(image) != 1 {
        return Err("only inner nodes of level 1 have packs".to_owned());
    }
    let units = unit_count(image) as usize;
    if units == 0 || !image.len().is_multiple_of(units) {
        return Err(format!("{} bytes are not {units} units", image.len()));
    }
    let unit = image.len() / units;
    if !unit.is_power_of_two() || !(1024..=4096).contains(&unit) {
        return Err(format!("{unit} bytes are no unit"));
    }

    let frame = Frame(image);
    let (prefix_len, lower_len) = (frame.prefix_len(), frame.lower_len());
    let upper_len = match get_u32(image, UPPER_LEN_AT) {
        NO_UPPER => 0,
        len => len as usize,
    };
    // Lengths are checked before they are added up, so that no sum overflows anywhere.
    if lower_len > MAX_BOUND_LEN
        || prefix_len > lower_len
        || upper_len > MAX_BOUND_LEN - prefix_len
        || heads_offset(lower_len, upper_len) > image.len()
    {
        return Err("fences are too long".to_owned());
    }
    let (count, capacity) = (frame.count(), frame.capacity());
    let most = image.len() / SLOT_LEN;
    if count > capacity || capacity > most || kind != NodeKind::Leaf && count != capacity {
        return Err(format!("{count} entries in {capacity} slots"));
    }
    let children_len = match kind {
        NodeKind::Leaf | NodeKind::Pack => 0,
        NodeKind::Inner => inner::CHILD_LEN * (count + 1),
    };
    let arrays_end = frame.slots_end() + children_len;
    if arrays_end > frame.heap_start() || frame.heap_start() > image.len() {
        return Err(format!("heap start {} is impossible", frame.heap_start()));
    }
    if kind == NodeKind::Inner
        && let Some(packs) = inner::Inner::from_image(image).packs()
    {
        if packs.end_below(frame.heap_start()).is_none() {
            return Err("packs are too many".to_owned());
        }
        if let Some(problem) = packs.problem() {
            return Err(problem.to_owned());
        }
    }

    let lower = &frame.lower()[prefix_len..];
    match frame.upper_suffix() {
        None if prefix_len == 0 => Ok(kind),
        None => Err("a prefix without an upper fence".to_owned()),
        Some(upper) if lower >= upper => Err("the fences are not in order".to_owned()),
        Some(upper) if lower.first() == upper.first() => Err("the prefix is too short".to_owned()),
        Some(_) => Ok(kind),
    }
}

/// Key suffix and length of the leaf record at `at`.
fn leaf_record(image: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let record = &image[at..];
    let (header, rest) = record.split_at_checked(leaf::RECORD_HEADER_LEN)?;
    let word = get_u32(header, 2);
    if word & leaf::OVERFLOW_FLAG != 0 && word != leaf::OVERFLOW_FLAG {
        return None;
    }
    let (key_len, value_len) = leaf::record_lens(record, 0);
    let value = rest.get(key_len..key_len + value_len)?;
    is_sound(word, value).then(|| {
        let len = leaf::RECORD_HEADER_LEN + key_len + value_len;
        (&rest[..key_len], len)
    })
}

/// False for a malformed reference. Where the value lies is not looked at.
fn is_sound(word: u32, value: &[u8]) -> bool {
    let is_apart = word & (leaf::OVERFLOW_FLAG | leaf::APART_FLAG) == leaf::APART_FLAG;
    !is_apart || ValueRef::decode(value).is_ok()
}

/// Key suffix and length of the pack record at `at`.
fn pack_record(image: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let record = &image[at..];
    let rest = record.get(leaf::RECORD_HEADER_LEN..)?;
    let (key_len, value_len) = pack::record_lens(record, 0);
    let len = key_len.checked_add(value_len.unwrap_or(0))?;
    let value = rest.get(key_len..len)?;
    is_sound(get_u32(record, 2), value).then(|| (&rest[..key_len], leaf::RECORD_HEADER_LEN + len))
}

/// Separator suffix and length of the inner record at `at`.
fn inner_record(image: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let (header, rest) = image[at..].split_at_checked(inner::RECORD_HEADER_LEN)?;
    let suffix = rest.get(..get_u32(header, 0) as usize)?;
    Some((suffix, inner::RECORD_HEADER_LEN + suffix.len()))
}

/// Finds records that overlap.
///
/// Rebuilt nodes have their records in key order, and nodes filled in order have them in
/// the opposite order. Both are recognised on the way; only others need sorting.
struct Extents {
    all: Vec<(usize, usize)>,
    ascending: bool,
    descending: bool,
}

impl Extents {
    fn new() -> Self {
        Self {
            all: Vec::new(),
            ascending: true,
            descending: true,
        }
    }

    fn add(&mut self, at: usize, len: usize) {
        if let Some((last_at, last_len)) = self.all.last() {
            self.ascending &= last_at + last_len <= at;
            self.descending &= at + len <= *last_at;
        }
        self.all.push((at, len));
    }

    fn check(mut self) -> Result<(), String> {
        if self.ascending || self.descending {
            return Ok(());
        }
        self.all.sort_unstable();
        let mut free_from = 0;
        for (at, len) in self.all {
            if at < free_from {
                return Err(format!("records overlap at {at}"));
            }
            free_from = at + len;
        }
        Ok(())
    }
}
