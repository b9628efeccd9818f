//! Search among the heads of a node.
//!
//! A miss in the cache costs more than fifty instructions, and misses that do not depend on
//! each other overlap. So an array is bisected only until a few cache lines are left,
//! without branches. Those are compared as a whole, in straight code that the compiler
//! turns into vector instructions and whose loads are all under way at once.

use std::cmp::Ordering;

/// Arrays of up to this many heads are compared as a whole: 256 bytes, four cache lines.
/// With a million entries in pages of 16 KiB, 16 and 64 were alike and 256 some 10% slower.
const WINDOW: usize = 64;

/// Finds `suffix`, whose head is `head`, among entries sorted by key. `suffix_of` gives
/// the key of an entry after the node's prefix; it is called for entries with an equal head only.
#[inline]
pub(crate) fn find<'a>(
    heads: &[[u8; 4]],
    head: u32,
    suffix: &[u8],
    suffix_of: impl Fn(usize) -> &'a [u8],
) -> Result<usize, usize> {
    find_from(lower_bound(heads, head), heads, head, suffix, suffix_of)
}

/// The same, for a caller that knows the first entry whose head is not below `head`.
#[inline]
pub(super) fn find_from<'a>(
    first: usize,
    heads: &[[u8; 4]],
    head: u32,
    suffix: &[u8],
    suffix_of: impl Fn(usize) -> &'a [u8],
) -> Result<usize, usize> {
    let mut low = first;
    let mut high = low + equal_run(&heads[low..], head);
    while low < high {
        let middle = low.midpoint(high);
        match suffix_of(middle).cmp(suffix) {
            Ordering::Less => low = middle + 1,
            Ordering::Equal => return Ok(middle),
            Ordering::Greater => high = middle,
        }
    }
    Err(low)
}

/// Number of heads below `head`.
#[inline]
pub(super) fn lower_bound(heads: &[[u8; 4]], head: u32) -> usize {
    let mut rest = heads;
    let mut below = 0;
    while rest.len() > WINDOW {
        let half = rest.len() / 2;
        let (left, right) = rest.split_at(half);
        let go_right = u32::from_le_bytes(left[half - 1]) < head;
        below += if go_right { half } else { 0 };
        rest = if go_right { right } else { left };
    }
    let mut count = 0_u32;
    for other in rest {
        count += u32::from(u32::from_le_bytes(*other) < head);
    }
    below + count as usize
}

/// Number of heads at the start of `heads` that equal `head`. Mostly 0 or 1.
#[inline]
fn equal_run(heads: &[[u8; 4]], head: u32) -> usize {
    let equals = |i: usize| {
        heads
            .get(i)
            .is_some_and(|other| u32::from_le_bytes(*other) == head)
    };
    if !equals(0) {
        0
    } else if !equals(1) {
        1
    } else {
        heads.partition_point(|other| u32::from_le_bytes(*other) == head)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_standard_library() {
        for len in [0, 1, 2, 3, 15, 16, 255, 256, 257, 1000] {
            let heads: Vec<u32> = (0..len).map(|i| i / 3 * 10).collect();
            let bytes: Vec<[u8; 4]> = heads.iter().map(|head| head.to_le_bytes()).collect();
            for head in 0..len * 4 + 11 {
                let below = heads.partition_point(|other| *other < head);
                let equal = heads[below..].partition_point(|other| *other == head);
                assert_eq!(lower_bound(&bytes, head), below);
                assert_eq!(equal_run(&bytes[below..], head), equal);
            }
        }
    }
}
