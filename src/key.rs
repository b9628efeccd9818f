//! Keys: heads, common prefixes, separators, and normalised ranges.
//!
//! Keys are byte strings in lexicographic order. A *head* is the first bytes
//! of a key as a big-endian integer, padded with zeros: heads compare like
//! their keys, except that equal heads decide nothing.

use std::ops::{
    Bound, RangeBounds, RangeFrom, RangeFull, RangeInclusive, RangeTo, RangeToInclusive,
};

/// First eight bytes of `key` as a big-endian integer, padded with zeros.
#[inline]
pub(crate) fn head64(key: &[u8]) -> u64 {
    match key.first_chunk::<8>() {
        Some(head) => u64::from_be_bytes(*head),
        None => {
            let mut head = [0; 8];
            head[..key.len()].copy_from_slice(key);
            u64::from_be_bytes(head)
        }
    }
}

/// First four bytes of `key` as a big-endian integer, padded with zeros.
#[inline]
pub(crate) fn head32(key: &[u8]) -> u32 {
    match key.first_chunk::<4>() {
        Some(head) => u32::from_be_bytes(*head),
        None => {
            let mut head = [0; 4];
            head[..key.len()].copy_from_slice(key);
            u32::from_be_bytes(head)
        }
    }
}

/// Length of the longest common prefix.
#[inline]
pub(crate) fn common_prefix_len(a: &[u8], b: &[u8]) -> usize {
    let len = a.len().min(b.len());
    let mut at = 0;
    while at + 8 <= len {
        let x = u64::from_le_bytes(a[at..at + 8].try_into().expect("eight bytes"));
        let y = u64::from_le_bytes(b[at..at + 8].try_into().expect("eight bytes"));
        if x != y {
            return at + ((x ^ y).trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    while at < len && a[at] == b[at] {
        at += 1;
    }
    at
}

/// Shortest key `s` with `low < s <= high`, as a prefix of `high`.
/// Requires `low < high`.
pub(crate) fn shortest_separator<'a>(low: &[u8], high: &'a [u8]) -> &'a [u8] {
    debug_assert!(low < high);
    &high[..common_prefix_len(low, high) + 1]
}

/// Smallest key above every key that starts with `prefix`; `None` when there
/// is no such key (an empty prefix, or all bytes 0xFF).
pub(crate) fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let keep = prefix.iter().rposition(|byte| *byte != 0xFF)?;
    let mut end = prefix[..=keep].to_vec();
    end[keep] += 1;
    Some(end)
}

/// True if `key >= start`.
///
/// Where there is no bound nothing is compared: an empty vector points to no memory, and `memcmp` of no bytes there
/// took 50 ns on a processor that loads them under a mask, and then has a fault to suppress.
#[inline]
pub(crate) fn is_from(key: &[u8], start: &[u8]) -> bool {
    start.is_empty() || key >= start
}

/// Bounds of a scan or a range delete over keys.
///
/// Implemented for every range syntax over anything that is a byte string, for
/// `..`, and for a pair of [`Bound`]s. Both ends of a Rust range have one type,
/// so write `&b"a"[..]..&b"abc"[..]` or `"a".."abc"` when lengths differ.
///
/// ```
/// # use hedgerow::{KvRead, Kv, Model};
/// let kv = Model::new();
/// kv.put(b"ada", b"1815")?;
/// assert_eq!(kv.range("a".."b").count(), 1);
/// assert_eq!(kv.range(..).count(), 1);
/// assert_eq!(kv.range(b"ada"..=b"ada").count(), 1);
/// # Ok::<(), hedgerow::Error>(())
/// ```
pub trait KeyBounds {
    /// The lower and the upper bound.
    fn key_bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>);
}

impl KeyBounds for RangeFull {
    fn key_bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        (Bound::Unbounded, Bound::Unbounded)
    }
}

macro_rules! key_bounds_for_range {
    ($($range:ty),*) => {$(
        impl<K: AsRef<[u8]>> KeyBounds for $range {
            fn key_bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
                (
                    self.start_bound().map(|key| key.as_ref()),
                    self.end_bound().map(|key| key.as_ref()),
                )
            }
        }
    )*};
}

key_bounds_for_range!(
    std::ops::Range<K>,
    RangeFrom<K>,
    RangeTo<K>,
    RangeInclusive<K>,
    RangeToInclusive<K>,
    (Bound<K>, Bound<K>)
);

/// A range of keys in the one form that the engines know: `start` inclusive,
/// `end` exclusive, `None` for no end.
///
/// An inclusive end `k` becomes the exclusive end `k + 0x00`, its immediate
/// successor, so bounds can be one byte longer than the longest key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyRange {
    pub(crate) start: Vec<u8>,
    pub(crate) end: Option<Vec<u8>>,
}

impl KeyRange {
    /// Normalises user bounds.
    pub(crate) fn new(bounds: &impl KeyBounds) -> Self {
        let successor = |key: &[u8]| {
            let mut next = Vec::with_capacity(key.len() + 1);
            next.extend_from_slice(key);
            next.push(0);
            next
        };
        let (low, high) = bounds.key_bounds();
        let start = match low {
            Bound::Included(key) => key.to_vec(),
            Bound::Excluded(key) => successor(key),
            Bound::Unbounded => Vec::new(),
        };
        let end = match high {
            Bound::Included(key) => Some(successor(key)),
            Bound::Excluded(key) => Some(key.to_vec()),
            Bound::Unbounded => None,
        };
        Self { start, end }
    }

    /// All keys that start with `prefix`.
    pub(crate) fn prefix(prefix: &[u8]) -> Self {
        Self {
            start: prefix.to_vec(),
            end: prefix_end(prefix),
        }
    }

    /// True when no key can be inside.
    pub(crate) fn is_empty(&self) -> bool {
        self.end.as_ref().is_some_and(|end| *end <= self.start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_order_like_keys() {
        let keys: [&[u8]; 6] = [b"", b"\0", b"a", b"ab", b"abcdefgh", b"abcdefghi"];
        for pair in keys.windows(2) {
            assert!(head64(pair[0]) <= head64(pair[1]));
            assert!(head32(pair[0]) <= head32(pair[1]));
        }
    }

    #[test]
    fn separators_separate() {
        for (low, high) in [
            ("", "a"),
            ("a", "ab"),
            ("abc", "abd"),
            ("hedge", "hedgerow"),
        ] {
            let s = shortest_separator(low.as_bytes(), high.as_bytes());
            assert!(low.as_bytes() < s && s <= high.as_bytes());
        }
        assert_eq!(shortest_separator(b"january", b"june"), b"ju");
    }

    #[test]
    fn prefix_ends() {
        assert_eq!(prefix_end(b"a").as_deref(), Some(&b"b"[..]));
        assert_eq!(prefix_end(b"a\xFF").as_deref(), Some(&b"b"[..]));
        assert_eq!(prefix_end(b"\xFF\xFF"), None);
        assert_eq!(prefix_end(b""), None);
    }

    #[test]
    fn common_prefixes() {
        assert_eq!(common_prefix_len(b"0123456789", b"0123456789"), 10);
        assert_eq!(common_prefix_len(b"0123456789", b"01234567x9"), 8);
        assert_eq!(common_prefix_len(b"", b"x"), 0);
    }

    #[test]
    fn bounds_normalise() {
        let range = KeyRange::new(&(Bound::Excluded("a"), Bound::Included("b")));
        assert_eq!(
            range,
            KeyRange {
                start: b"a\0".to_vec(),
                end: Some(b"b\0".to_vec())
            }
        );
        assert!(KeyRange::new(&("b".."a")).is_empty());
        assert!(KeyRange::new(&("a".."a")).is_empty());
        assert!(!KeyRange::new(&("a"..="a")).is_empty());
    }
}
