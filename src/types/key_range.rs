//! Bounds and ranges over keys.

use std::ops::{
    Bound, RangeBounds, RangeFrom, RangeFull, RangeInclusive, RangeTo, RangeToInclusive,
};

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
/// Where there is no bound nothing is compared: an empty vector points to no memory, and `memcmp`
/// of no bytes there took 50 ns on a processor that loads them under a mask, and then has a fault
/// to suppress.
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
///
/// A type of your own may be a range as well:
///
/// ```
/// use std::ops::Bound;
/// use hedgerow::{KeyBounds, Model};
///
/// /// The keys of a year.
/// struct Year(String, String);
///
/// impl KeyBounds for Year {
///     fn key_bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
///         (Bound::Included(self.0.as_bytes()), Bound::Excluded(self.1.as_bytes()))
///     }
/// }
///
/// let kv = Model::new();
/// kv.put("2026-08-01", "a hedge")?;
/// assert_eq!(kv.range(Year("2026".into(), "2027".into())).count(), 1);
/// # Ok::<(), hedgerow::Error>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a range of byte strings",
    label = "expected a range such as `\"a\"..\"b\"`, `key..`, or `..`",
    note = "keys are byte strings: `hedgerow::KeyBuilder` makes them of integers, strings and \
            times, in their order"
)]
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
pub struct KeyRange {
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

    /// The one key `key`.
    pub(crate) fn one(key: &[u8]) -> Self {
        Self::new(&(Bound::Included(key), Bound::Included(key)))
    }

    /// Bytes of the two bounds.
    pub(crate) fn len_bytes(&self) -> usize {
        self.start.len() + self.end.as_ref().map_or(0, Vec::len)
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
    fn prefix_ends() {
        assert_eq!(prefix_end(b"a").as_deref(), Some(&b"b"[..]));
        assert_eq!(prefix_end(b"a\xFF").as_deref(), Some(&b"b"[..]));
        assert_eq!(prefix_end(b"\xFF\xFF"), None);
        assert_eq!(prefix_end(b""), None);
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
