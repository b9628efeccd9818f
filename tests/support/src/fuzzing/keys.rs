//! Target for the orders of keys: whatever abbreviates a key keeps its place.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use hedgerow::MemtableKind;
use hedgerow::internals::lsm::{Entry, Memtable, merge};
use hedgerow::internals::{common_prefix_len, head32, head64, prefix_end, shortest_separator};

use super::Bytes;
use crate::random::Source;

/// Heads, prefixes, separators and internal order, for the keys that the input makes.
pub fn key_order(input: &[u8]) {
    let mut source = Bytes(input);
    let mut keys: Vec<Vec<u8>> = Vec::new();
    while !source.is_empty() && keys.len() < 120 {
        // Many keys share their beginning with an earlier one.
        let shared = match (source.byte(), keys.len() as u64) {
            (0..100, _) | (_, 0) => Vec::new(),
            (len, count) => {
                let other = &keys[source.below(count) as usize];
                other[..other.len().min(usize::from(len) - 100)].to_vec()
            }
        };
        let len = usize::from(source.byte() % 24);
        keys.push([&shared[..], source.take(len)].concat());
    }
    for (a, b) in keys.iter().zip(keys.iter().skip(1)) {
        pair(a, b);
    }
    indexes(&keys);
}

fn pair(a: &[u8], b: &[u8]) {
    let order = a.cmp(b);
    let agrees = |heads: Ordering| heads == Ordering::Equal || heads == order;
    assert!(agrees(head32(a).cmp(&head32(b))), "heads of four bytes");
    assert!(agrees(head64(a).cmp(&head64(b))), "heads of eight bytes");
    let naive = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    assert_eq!(common_prefix_len(a, b), naive);
    if a < b {
        let separator = shortest_separator(a, b);
        assert!(a < separator && separator <= b && b.starts_with(separator));
        let shorter = &separator[..separator.len() - 1];
        assert!(a >= shorter, "a shorter separator would do");
    }
    match prefix_end(a) {
        None => assert!(a.iter().all(|byte| *byte == 0xFF)),
        Some(end) => {
            assert!(a < &end[..] && !end.starts_with(a));
            assert_eq!(b.starts_with(a), a <= b && b < &end[..]);
        }
    }
}

/// Both indexes of the memtable, and a merge of both, hold entries in internal order.
fn indexes(keys: &[Vec<u8>]) {
    let mut expected = BTreeMap::new();
    let tree = Memtable::new(MemtableKind::BTree);
    let list = Memtable::new(MemtableKind::SkipList);
    let halves = [MemtableKind::BTree, MemtableKind::SkipList].map(Memtable::new);
    for (seq, key) in (1u64..).zip(keys) {
        let value = (seq % 5 != 0).then(|| seq.to_le_bytes());
        let entry = Entry {
            key,
            seq,
            value: value.as_ref().map(|value| &value[..]),
        };
        for index in [&tree, &list, &halves[seq as usize % 2]] {
            index.insert(entry);
        }
        expected.insert((key, u64::MAX - seq), value);
    }
    let merged = merge(halves.iter().map(Memtable::cursor).collect());
    for mut cursor in [tree.cursor(), list.cursor(), merged] {
        cursor.seek_first().unwrap();
        for ((key, seq), value) in &expected {
            let entry = cursor.entry();
            assert_eq!((entry.key, u64::MAX - entry.seq), (&key[..], *seq));
            assert_eq!(entry.value, value.as_ref().map(|value| &value[..]));
            cursor.next().unwrap();
        }
        assert!(!cursor.is_valid());
        cursor.seek_last().unwrap();
        for ((key, seq), _) in expected.iter().rev() {
            let entry = cursor.entry();
            assert_eq!((entry.key, u64::MAX - entry.seq), (&key[..], *seq));
            cursor.prev().unwrap();
        }
        assert!(!cursor.is_valid());
    }
    for (key, _) in expected.keys() {
        let (_, newest) = expected
            .range((*key, 0)..)
            .next()
            .map(|((key, seq), _)| (key, u64::MAX - seq))
            .expect("it is there");
        for index in [&tree, &list] {
            let mut found = None;
            index.get(key, u64::MAX >> 8, |entry| found = Some(entry.seq));
            assert_eq!(found, Some(newest), "the newest version");
        }
    }
}
