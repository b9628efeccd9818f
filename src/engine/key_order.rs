//! The order in which an engine goes through the operations of a batch.

use crate::types::{Op, SequencedOp};
use crate::util::key_prefix::{common_prefix_len, head64};
use crate::util::mutants::mutated;

/// The places of `ops` in the order of their keys; those on one key stay in their order. Range
/// deletes, which are on no key, come first.
///
/// Neighbours in this order find what they need in the processor's caches, or on the same page. How
/// the operations of a batch follow one another shows to no reader.
pub(crate) fn in_key_order(ops: &[SequencedOp<'_>]) -> Vec<u32> {
    let places = 0..ops.len() as u32;
    if ops.is_sorted_by(|a, b| a.op.key() <= b.op.key()) {
        return places.collect();
    }
    let mut keys = ops.iter().filter_map(|op| op.op.key());
    let first = keys.next().unwrap_or_default();
    let shared_len = keys.fold(first.len(), |len, key| {
        common_prefix_len(&first[..len], key)
    });
    let key = |place: u32| ops[place as usize].op.key();
    let head = |place: u32| key(place).map(|key| head64(&key[shared_len..]));
    let mut order: Vec<_> = places.map(|place| (head(place), place)).collect();
    order.sort_unstable_by(|(a_head, a), (b_head, b)| {
        let heads = a_head.cmp(b_head);
        let keys = heads.then_with(|| key(*a).cmp(&key(*b)));
        mutated!(
            "batch-order-of-one-key-lost",
            keys.then(b.cmp(a)),
            keys.then(a.cmp(b))
        )
    });
    order.into_iter().map(|(_, place)| place).collect()
}

/// Brings the keys and values of the operations at `places` into the processor's cache. Sorted by
/// their keys they lie anywhere, and here the waits for them overlap.
pub(crate) fn touch(ops: &[SequencedOp<'_>], places: &[u32]) {
    let ends = |bytes: &[u8]| match bytes {
        [first, .., last] => first ^ last,
        _ => 0,
    };
    let touched = places.iter().map(|place| match ops[*place as usize].op {
        Op::Put { key, value } => ends(key) ^ ends(value),
        Op::Delete { key } => ends(key),
        Op::Merge { key, operand } => ends(key) ^ ends(operand),
        Op::DeleteRange { .. } => 0,
    });
    std::hint::black_box(touched.fold(0, |sum, byte| sum ^ byte));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{OwnedOp, Random};
    use crate::types::SeqNo;

    #[test]
    fn operations_on_one_key_stay_in_their_order() {
        let mut random = Random(3);
        for len in [1, 2, 3, 50, 500] {
            for prefix in ["", "a long prefix of all keys "] {
                let ops: Vec<OwnedOp> = (0..len)
                    .map(|_| {
                        // Some differ behind the eighth byte only, and some not at all.
                        let (a, b) = (random.below(3), random.below(20));
                        let key = format!("{prefix}{a}00000000{b}").into_bytes();
                        OwnedOp::Put(key, b"value".to_vec())
                    })
                    .collect();
                let sequenced: Vec<_> = ops
                    .iter()
                    .zip(1..)
                    .map(|(op, seq)| SequencedOp::new(SeqNo(seq), op.borrow()))
                    .collect();
                let mut wanted: Vec<u32> = (0..len).collect();
                wanted.sort_by_key(|i| sequenced[*i as usize].op.key());
                assert_eq!(in_key_order(&sequenced), wanted);
            }
        }
    }
}
