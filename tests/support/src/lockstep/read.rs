//! Reads of one key, of several, and of ranges, of a store and its model alike.

use std::io::{self, BufRead, Seek, SeekFrom};
use std::ops::Bound;

use hedgerow::{KvRead, RangeSize, Value};

use super::compare::{Outcome, agree, failed, walk_together};
use super::edit::{Bounds, KEYS, KeyNumber, is_inverted, key};
use super::op::Move;
use crate::random::Source;

/// A read. Each can be made of a keyspace and of a snapshot of one.
#[derive(Debug, Clone)]
pub enum Read {
    /// `get` and `contains_key`.
    Get(KeyNumber),
    /// `multi_get`.
    MultiGet(Vec<KeyNumber>),
    /// A scan between bounds.
    Scan(Bounds, Vec<Move>),
    /// A scan of what starts like a key without so many of its last bytes.
    Prefix(KeyNumber, u8),
    /// `get_with`.
    Lent(KeyNumber),
    /// `get_range` from one place, of so many bytes.
    Part(KeyNumber, u16, u16),
    /// `reader`, from one place on.
    Reader(KeyNumber, u16),
    /// `first`, `last` and `is_empty`.
    Ends,
    /// `keys`, `values` or `len`.
    Whole(u8),
    /// `size_of_range`.
    Size(Bounds),
    /// `split_points` for so many parts.
    Split(Bounds, u8),
}

fn draw_key(source: &mut impl Source) -> KeyNumber {
    source.below(KEYS) as KeyNumber
}

/// A place in a value: mostly near its beginning.
fn draw_place(source: &mut impl Source) -> u16 {
    match source.one_in(4) {
        true => source.below(9000) as u16,
        false => source.below(64) as u16,
    }
}

impl Read {
    pub(super) fn draw_multi_get(source: &mut impl Source) -> Self {
        let count = source.below(24);
        Self::MultiGet((0..count).map(|_| draw_key(source)).collect())
    }

    pub(super) fn draw_scan(source: &mut impl Source) -> Self {
        let bounds = Bounds::draw(source);
        let count = 1 + source.below(4);
        Self::Scan(bounds, (0..count).map(|_| Move::draw(source)).collect())
    }

    pub(super) fn draw_prefix(source: &mut impl Source) -> Self {
        Self::Prefix(draw_key(source), source.below(4) as u8)
    }

    /// One of the rarer ones.
    pub(super) fn draw_rare(source: &mut impl Source) -> Self {
        match source.weighted(&[4, 4, 4, 2, 1, 2, 2]) {
            0 => Self::Lent(draw_key(source)),
            1 => Self::Part(draw_key(source), draw_place(source), draw_place(source)),
            2 => Self::Reader(draw_key(source), draw_place(source)),
            3 => Self::Ends,
            4 => Self::Whole(source.below(3) as u8),
            5 => Self::Size(Bounds::draw(source)),
            _ => Self::Split(Bounds::draw(source), 1 + source.below(12) as u8),
        }
    }

    /// Any of them.
    pub(super) fn draw(source: &mut impl Source) -> Self {
        match source.weighted(&[3, 3, 3, 3, 8]) {
            0 => Self::Get(draw_key(source)),
            1 => Self::draw_multi_get(source),
            2 => Self::draw_scan(source),
            3 => Self::draw_prefix(source),
            _ => Self::draw_rare(source),
        }
    }

    /// Reads both, and compares.
    pub(super) fn compare(&self, found: &impl KvRead, expected: &impl KvRead) -> Outcome {
        match self {
            Self::Get(number) => {
                let wanted = failed("get of the model", expected.get(key(*number)))?;
                let value = failed("get", found.get(key(*number)))?;
                agree(|| format!("get of {:?}", key(*number)), &value, &wanted)?;
                let is_there = failed("contains_key", found.contains_key(key(*number)))?;
                agree(|| "contains_key".into(), &is_there, &wanted.is_some())
            }
            Self::MultiGet(numbers) => {
                let keys: Vec<_> = numbers.iter().map(|number| key(*number)).collect();
                let values = failed("multi_get", found.multi_get(&keys))?;
                let wanted = failed("multi_get of the model", expected.multi_get(&keys))?;
                agree(|| "multi_get".into(), &values, &wanted)
            }
            Self::Scan(bounds, moves) => {
                let wanted = expected.range(bounds.keys());
                walk_together(found.range(bounds.keys()), wanted, moves)
            }
            Self::Prefix(number, cut) => {
                let mut prefix = key(*number);
                prefix.truncate(prefix.len().saturating_sub(usize::from(*cut)).max(1));
                let moves = [Move::Front(20), Move::Back(20)];
                let wanted = expected.prefix(&prefix);
                walk_together(found.prefix(&prefix), wanted, &moves)
            }
            Self::Lent(number) => {
                let lent = failed("get_with", found.get_with(key(*number), <[u8]>::to_vec))?;
                let wanted = failed("get of the model", expected.get(key(*number)))?;
                agree(|| "get_with".into(), &lent.as_deref(), &wanted.as_deref())
            }
            Self::Part(number, from, len) => {
                let from = usize::from(*from);
                let part = from..from + usize::from(*len);
                let value = failed("get_range", found.get_range(key(*number), part.clone()))?;
                let wanted = failed("get of the model", expected.get(key(*number)))?;
                let cut = |value: &Value| {
                    let end = part.end.min(value.len());
                    value[part.start.min(end)..end].to_vec()
                };
                let wanted = wanted.as_ref().map(cut);
                agree(|| "get_range".into(), &value.as_deref(), &wanted.as_deref())
            }
            Self::Reader(number, from) => compare_readers(found, expected, *number, *from),
            Self::Ends => {
                let wanted = failed("first of the model", expected.first())?;
                agree(|| "first".into(), &failed("first", found.first())?, &wanted)?;
                let wanted = failed("last of the model", expected.last())?;
                agree(|| "last".into(), &failed("last", found.last())?, &wanted)?;
                let is_empty = failed("is_empty", found.is_empty())?;
                agree(|| "is_empty".into(), &is_empty, &wanted.is_none())
            }
            Self::Whole(which) => compare_whole(found, expected, *which),
            Self::Size(bounds) => compare_sizes(found, expected, *bounds),
            Self::Split(bounds, parts) => check_split(found, *bounds, usize::from(*parts)),
        }
    }
}

fn compare_readers(
    found: &impl KvRead,
    expected: &impl KvRead,
    number: KeyNumber,
    from: u16,
) -> Outcome {
    let reader = failed("reader", found.reader(key(number)))?;
    let wanted = failed("get of the model", expected.get(key(number)))?;
    agree(|| "a reader".into(), &reader.is_some(), &wanted.is_some())?;
    let (Some(mut reader), Some(wanted)) = (reader, wanted) else {
        return Ok(());
    };
    agree(
        || "the length of a reader".into(),
        &reader.len(),
        &(wanted.len() as u64),
    )?;
    let from = usize::from(from).min(wanted.len());
    let mut rest = Vec::new();
    let mut read = || -> io::Result<()> {
        reader.seek(SeekFrom::Start(from as u64))?;
        loop {
            let chunk = reader.fill_buf()?;
            if chunk.is_empty() {
                return Ok(());
            }
            rest.extend_from_slice(chunk);
            let len = chunk.len();
            reader.consume(len);
        }
    };
    read().map_err(|error| format!("reading from a reader: {error}"))?;
    agree(|| "a reader".into(), &rest.as_slice(), &&wanted[from..])
}

fn compare_whole(found: &impl KvRead, expected: &impl KvRead, which: u8) -> Outcome {
    match which {
        0 => {
            let keys: hedgerow::Result<Vec<_>> = found.keys().collect();
            let wanted: hedgerow::Result<Vec<_>> = expected.keys().collect();
            let wanted = failed("keys of the model", wanted)?;
            agree(|| "keys".into(), &failed("keys", keys)?, &wanted)
        }
        1 => {
            let values: hedgerow::Result<Vec<_>> = found.values().collect();
            let wanted: hedgerow::Result<Vec<_>> = expected.values().collect();
            let wanted = failed("values of the model", wanted)?;
            agree(|| "values".into(), &failed("values", values)?, &wanted)
        }
        _ => {
            let wanted = failed("len of the model", expected.len())?;
            agree(|| "len".into(), &failed("len", found.len())?, &wanted)
        }
    }
}

/// Estimates count what was overwritten, too: never less than there is in the whole, no more in a
/// part than in the whole, and nothing where nothing can be.
fn compare_sizes(found: &impl KvRead, expected: &impl KvRead, bounds: Bounds) -> Outcome {
    let before = failed("size_of_range", found.size_of_range(..))?;
    let size = failed("size_of_range", found.size_of_range(bounds.keys()))?;
    if is_inverted(&bounds.keys()) {
        return agree(
            || "the size of an inverted range".into(),
            &size,
            &RangeSize::default(),
        );
    }
    let whole = failed("size_of_range", found.size_of_range(..))?;
    // A thread of the store may have compacted something in between.
    let is_comparable = before == whole;
    if is_comparable && (size.entries > whole.entries || size.bytes > whole.bytes) {
        return Err(format!("{bounds:?} has {size:?}, and the whole {whole:?}"));
    }
    let least = failed("len of the model", expected.len())?;
    if whole.entries < least || (least > 0 && whole.bytes == 0) {
        return Err(format!("{least} entries are estimated as {whole:?}"));
    }
    Ok(())
}

/// The points rise, lie inside the range, and are fewer than the parts.
fn check_split(found: &impl KvRead, bounds: Bounds, parts: usize) -> Outcome {
    let (low, high) = bounds.keys();
    let split = found.split_points((low.clone(), high.clone()), parts);
    let points = failed("split_points", split)?;
    let is_inside = |point: &Value| {
        let above = match &low {
            Bound::Included(low) | Bound::Excluded(low) => **point > **low,
            Bound::Unbounded => !point.is_empty(),
        };
        let below = match &high {
            Bound::Included(high) => **point <= **high,
            Bound::Excluded(high) => **point < **high,
            Bound::Unbounded => true,
        };
        above && below
    };
    let rises = points.is_sorted_by(|one, two| **one < **two);
    if !rises || !points.iter().all(is_inside) || points.len() >= parts {
        return Err(format!(
            "{parts} parts between {low:?} and {high:?} are divided at {points:?}"
        ));
    }
    Ok(())
}
