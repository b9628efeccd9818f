//! Ranges of typed keys.

use std::ops::{
    Bound, Range, RangeBounds, RangeFrom, RangeFull, RangeInclusive, RangeTo, RangeToInclusive,
};

use crate::key::AsPrefix;

/// Bounds of keys of type `K`: every range syntax over keys or [beginnings of keys](AsPrefix), a
/// pair of [`Bound`]s, and `..`.
///
/// A bound that is the beginning of keys stands for all of them: of keys `(A, B)`, `(a,)..=(b,)`
/// goes from the first key with `a` to the last with `b`, and `..(b,)` ends before the first with
/// `b`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no range of keys of type `{K}`",
    note = "both ends of a range have one type, a key or the beginning of keys"
)]
pub trait Bounds<K> {
    /// The same as bounds of bytes.
    fn encode(&self) -> (Bound<Vec<u8>>, Bound<Vec<u8>>);
}

impl<K> Bounds<K> for RangeFull {
    fn encode(&self) -> (Bound<Vec<u8>>, Bound<Vec<u8>>) {
        (Bound::Unbounded, Bound::Unbounded)
    }
}

macro_rules! bounds {
    ($($range:ty),*) => {$(
        impl<K, Q: AsPrefix<K>> Bounds<K> for $range {
            fn encode(&self) -> (Bound<Vec<u8>>, Bound<Vec<u8>>) {
                (start(self.start_bound()), end(self.end_bound()))
            }
        }
    )*};
}

bounds!(
    Range<Q>,
    RangeFrom<Q>,
    RangeTo<Q>,
    RangeInclusive<Q>,
    RangeToInclusive<Q>,
    (Bound<Q>, Bound<Q>)
);

fn encode<K, Q: AsPrefix<K>>(prefix: &Q) -> Vec<u8> {
    let mut bytes = Vec::new();
    prefix.encode_prefix(&mut bytes);
    bytes
}

fn start<K, Q: AsPrefix<K>>(bound: Bound<&Q>) -> Bound<Vec<u8>> {
    match bound {
        Bound::Unbounded => Bound::Unbounded,
        Bound::Included(prefix) => Bound::Included(encode(prefix)),
        Bound::Excluded(key) if Q::IS_WHOLE => Bound::Excluded(encode(key)),
        Bound::Excluded(prefix) => match prefix_end(encode(prefix)) {
            Some(end) => Bound::Included(end),
            // Nothing is behind all of them: a range that is empty.
            None => Bound::Excluded(vec![0xFF; hedgerow::MAX_KEY_LEN_BYTES]),
        },
    }
}

fn end<K, Q: AsPrefix<K>>(bound: Bound<&Q>) -> Bound<Vec<u8>> {
    match bound {
        Bound::Unbounded => Bound::Unbounded,
        Bound::Excluded(prefix) => Bound::Excluded(encode(prefix)),
        Bound::Included(key) if Q::IS_WHOLE => Bound::Included(encode(key)),
        Bound::Included(prefix) => match prefix_end(encode(prefix)) {
            Some(end) => Bound::Excluded(end),
            None => Bound::Unbounded,
        },
    }
}

/// The lowest key above all that begin with `prefix`, if there is one.
pub(crate) fn prefix_end(mut prefix: Vec<u8>) -> Option<Vec<u8>> {
    while let Some(last) = prefix.last_mut() {
        if *last < 0xFF {
            *last += 1;
            return Some(prefix);
        }
        prefix.pop();
    }
    None
}
