//! Offset-value codes: how a key differs from the one before it, in one number.
//!
//! A merge compares keys that all come after the one that it stood on last, their *base*. A key
//! that has more of its beginning in common with the base comes earlier; of two that differ from it
//! at the same place, the one with the smaller bytes there does. So the place and the bytes, put
//! into one number, decide nearly all comparisons, however long a prefix all keys share, and no key
//! is touched. Where two codes are equal the keys are compared behind that place, and the one that
//! comes later gets a code with the earlier one for its base; where they differ, the code of the
//! later one is right for that base as it is. See W. M. Conner, "Offset-value coding" (IBM
//! Technical Disclosure Bulletin, 1977), and G. Graefe and T. Do, "Offset-value coding in database
//! query processing" (EDBT 2023).
//!
//! # The number
//!
//! A key is taken as a sequence of words of [`WORD_BYTES`] bytes that goes on with zeros. Above is
//! [`FIRST_WORD`] less the number of the first word that differs, and in the 48 bits below that
//! word of the key. If all words are alike, 1 is above and the length below, or the keys are the
//! same and the code is [`SAME`]. Going backward, what is below is inverted, so that a smaller code
//! comes first in either direction.

use std::cmp::Ordering;

use crate::util::key_prefix::common_prefix_len;

/// The code of a key that is the same as its base.
pub(crate) const SAME: u64 = 0;
/// Above all codes: there is no key.
pub(crate) const NOWHERE: u64 = u64::MAX;

const WORD_BYTES: usize = 6;
const VALUE_BITS: u32 = 48;
const VALUE_MASK: u64 = (1 << VALUE_BITS) - 1;
/// Stands above for the first word.
const FIRST_WORD: u64 = 0xFFFE;
/// Stands above if only the lengths differ.
const LENGTHS: u64 = 1;

/// Where a walk goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Forward,
    Backward,
}

impl Direction {
    /// An order of keys as the walk meets them.
    #[inline]
    pub(crate) fn order(self, order: Ordering) -> Ordering {
        match self {
            Self::Forward => order,
            Self::Backward => order.reverse(),
        }
    }
}

/// How a key differs from its base, if both go on with zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Difference {
    /// They are the same.
    None,
    /// One has more zeros at its end.
    Length,
    /// The number of the first byte that differs.
    At(usize),
}

impl Difference {
    /// Of two keys that begin with the same `shared` bytes, and differ or end there.
    #[inline]
    pub(crate) fn behind(shared: usize, key: &[u8], base: &[u8]) -> Self {
        if shared < key.len() && shared < base.len() {
            return Self::At(shared);
        }
        Self::of_rest(shared, if key.len() > base.len() { key } else { base })
    }

    /// Of two keys of which one is the first `shared` bytes of the other.
    fn of_rest(shared: usize, longer: &[u8]) -> Self {
        let rest = &longer[shared..];
        match rest.iter().position(|byte| *byte != 0) {
            Some(zeros) => Self::At(shared + zeros),
            None if rest.is_empty() => Self::None,
            None => Self::Length,
        }
    }

    /// Of two keys.
    #[inline]
    pub(crate) fn between(key: &[u8], base: &[u8]) -> Self {
        Self::behind(common_prefix_len(key, base), key, base)
    }

    /// Of the same keys with `len` shared bytes in front.
    #[inline]
    pub(crate) fn after_prefix(self, len: usize) -> Self {
        match self {
            Self::At(at) => Self::At(at + len),
            other => other,
        }
    }
}

/// The code of `key`, which differs from its base by `difference` and comes after it.
#[inline]
pub(crate) fn code(key: &[u8], difference: Difference, direction: Direction) -> u64 {
    let (above, value) = match difference {
        Difference::None => return SAME,
        Difference::Length => (LENGTHS, key.len() as u64),
        Difference::At(at) => {
            let word = at / WORD_BYTES;
            (FIRST_WORD - word as u64, word_at(key, word * WORD_BYTES))
        }
    };
    let value = match direction {
        Direction::Forward => value,
        Direction::Backward => value ^ VALUE_MASK,
    };
    above << VALUE_BITS | value
}

/// The code of `key` over `base`, after which it comes.
#[inline]
pub(crate) fn code_over(key: &[u8], base: &[u8], direction: Direction) -> u64 {
    code(key, Difference::between(key, base), direction)
}

/// The code of `key` over a base that comes before all keys and shares nothing with any.
#[inline]
pub(crate) fn code_over_nothing(key: &[u8], direction: Direction) -> u64 {
    code(key, Difference::At(0), direction)
}

/// The word of `key` that begins at byte `at`.
#[inline]
fn word_at(key: &[u8], at: usize) -> u64 {
    let unused = 64 - VALUE_BITS;
    if let Some(word) = key.get(at..at + 8) {
        return u64::from_be_bytes(word.try_into().expect("eight bytes")) >> unused;
    }
    let rest = key.get(at..).unwrap_or_default();
    match key.last_chunk::<8>() {
        // What comes before is shifted out.
        Some(last) if !rest.is_empty() => {
            (u64::from_be_bytes(*last) << (8 * (8 - rest.len()))) >> unused
        }
        _ => {
            let mut word = [0; 8];
            word[..rest.len()].copy_from_slice(rest);
            u64::from_be_bytes(word) >> unused
        }
    }
}

/// Which of two entries comes first whose keys have the same code over the same base, and the code
/// of the other one over it. Entries of one key are ordered by their words, the largest first.
pub(crate) fn resolve(
    code_of_both: u64,
    a: (&[u8], u64),
    b: (&[u8], u64),
    direction: Direction,
) -> (Ordering, u64) {
    let shared = match code_of_both >> VALUE_BITS {
        // All of it.
        0 | LENGTHS => a.0.len().min(b.0.len()),
        above => {
            let behind_word = (FIRST_WORD - above + 1) as usize * WORD_BYTES;
            behind_word.min(a.0.len()).min(b.0.len())
        }
    };
    let difference = Difference::between(&a.0[shared..], &b.0[shared..]).after_prefix(shared);
    let order = match difference {
        Difference::None => b.1.cmp(&a.1),
        Difference::Length => a.0.len().cmp(&b.0.len()),
        Difference::At(at) => {
            let byte = |key: &[u8]| key.get(at).copied().unwrap_or(0);
            byte(a.0).cmp(&byte(b.0))
        }
    };
    let order = direction.order(order);
    let later = if order == Ordering::Greater { a.0 } else { b.0 };
    (order, code(later, difference, direction))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;

    fn random_key(random: &mut Random) -> Vec<u8> {
        let len = random.below(20) as usize;
        let prefix = random.below(14) as usize;
        (0..len)
            .map(|at| match at < prefix {
                true => b'p',
                false => [0, 0, 1, 255][random.below(4) as usize],
            })
            .collect()
    }

    /// For every base and any two keys behind it: codes order like keys, and the later key's code
    /// over the earlier one is the one that it had, or the one that `resolve` gives it.
    #[test]
    fn codes_decide_like_keys() {
        let mut random = Random::new(1);
        for direction in [Direction::Forward, Direction::Backward] {
            for round in 0..60_000 {
                let mut keys: Vec<_> = (0..3).map(|_| random_key(&mut random)).collect();
                keys.sort_by(|a, b| direction.order(a.cmp(b)));
                let [base, earlier, later] = &keys[..] else {
                    unreachable!("three keys");
                };
                let label = format!("round {round}: {keys:?} {direction:?}");
                let over_base = |key: &Vec<u8>| match round % 8 {
                    0 => code_over_nothing(key, direction),
                    _ => code_over(key, base, direction),
                };
                let (first, second) = (over_base(earlier), over_base(later));
                assert!(first <= second && second < NOWHERE, "{label}");
                let expected = code_over(later, earlier, direction);
                if first < second {
                    assert_eq!(second, expected, "{label}");
                    continue;
                }
                let (a, b) = ((&earlier[..], 2), (&later[..], 1));
                let (order, code) = resolve(first, a, b, direction);
                if earlier == later {
                    assert_eq!(
                        (direction.order(order), code),
                        (Ordering::Less, SAME),
                        "{label}"
                    );
                } else {
                    assert_eq!((order, code), (Ordering::Less, expected), "{label}");
                    let (order, code) = resolve(first, b, a, direction);
                    assert_eq!((order, code), (Ordering::Greater, expected), "{label}");
                }
            }
        }
    }

    #[test]
    fn the_longest_keys_have_codes() {
        let mut key = vec![7; crate::types::MAX_KEY_LEN_BYTES];
        let base = key.clone();
        *key.last_mut().expect("long") = 8;
        let (near, far) = (
            code_over(&key, &base, Direction::Forward),
            code_over(&key, b"", Direction::Forward),
        );
        assert!(SAME < near && near < far && far < NOWHERE);
    }
}
