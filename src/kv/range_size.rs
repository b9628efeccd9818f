//! Estimates of ranges: their size, and where to divide them.

use crate::engine::Piece;
use crate::types::{KeyRange, Value};

/// Pieces that an estimate is made of, where there are so many: its error is some hundredths.
pub(crate) const PIECES: usize = 256;

/// About how much there is in a range of keys. See [`KvRead::size_of_range`](crate::KvRead).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RangeSize {
    /// Entries, overwritten ones included until they are removed.
    pub entries: u64,
    /// Bytes that they take in files and memory.
    pub bytes: u64,
}

impl RangeSize {
    /// The sum of `pieces`.
    pub(crate) fn of(pieces: &[Piece]) -> Self {
        Self {
            entries: pieces.iter().map(|piece| piece.entries).sum(),
            bytes: pieces.iter().map(|piece| piece.bytes).sum(),
        }
    }
}

/// Keys that divide `range` into `parts` of about the same number of bytes.
pub(crate) fn split(range: &KeyRange, pieces: &[Piece], parts: usize) -> Vec<Value> {
    let total: u64 = pieces.iter().map(|piece| piece.bytes).sum();
    let mut points: Vec<Value> = Vec::new();
    let mut before = 0;
    for piece in pieces {
        let next = points.len() as u64 + 1;
        // The first piece begins where the range does, which divides nothing.
        let is_inside = piece.start.as_slice() > range.start.as_slice()
            && points.last().is_none_or(|last| **last < *piece.start);
        let share = u128::from(total) * u128::from(next) / parts as u128;
        if next < parts as u64 && before > 0 && is_inside && u128::from(before) >= share {
            points.push(Value::copy_from(&piece.start));
        }
        before += piece.bytes;
    }
    points
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(sizes: &[u64]) -> Vec<Piece> {
        let piece = |(at, bytes): (usize, &u64)| Piece {
            start: format!("{at:03}").into_bytes(),
            entries: 1,
            bytes: *bytes,
        };
        sizes.iter().enumerate().map(piece).collect()
    }

    #[test]
    fn a_range_is_divided_evenly() {
        let all = KeyRange::new(&..);
        let even = pieces(&[10; 100]);
        let points = split(&all, &even, 4);
        assert_eq!(points, ["025", "050", "075"]);
        assert!(split(&all, &even, 1).is_empty());
        assert_eq!(split(&all, &even, 1000).len(), 99);
        assert!(split(&all, &[], 4).is_empty());
        // One piece has nearly everything: it cannot be divided.
        let points = split(&all, &pieces(&[1, 1000, 1, 1]), 4);
        assert_eq!(points, ["002", "003"]);
    }
}
