//! Heads, common prefixes and separators of keys.
//!
//! Keys are byte strings in lexicographic order. A *head* is the first bytes
//! of a key as a big-endian integer, padded with zeros: heads compare like
//! their keys, except that equal heads decide nothing.

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
    fn common_prefixes() {
        assert_eq!(common_prefix_len(b"0123456789", b"0123456789"), 10);
        assert_eq!(common_prefix_len(b"0123456789", b"01234567x9"), 8);
        assert_eq!(common_prefix_len(b"", b"x"), 0);
    }
}
