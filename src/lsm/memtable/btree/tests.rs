use std::sync::atomic::AtomicBool;
use std::thread;

use super::super::SkipListIndex;
use super::*;
use crate::testing::{OverAtEnd, Random, much};

/// Keys of several shapes: with long common prefixes, with and without differences in the head,
/// empty.
fn key(random: &mut Random, shape: u64) -> Vec<u8> {
    match shape % 5 {
        0 => random.next().to_be_bytes().to_vec(),
        1 => format!("user{:012}", random.below(3000)).into_bytes(),
        2 => format!(
            "a very long common prefix, longer than heads {}",
            random.below(900)
        )
        .into(),
        3 => vec![b'a' + random.below(2) as u8; random.below(30) as usize],
        _ => match random.below(40) {
            0 => Vec::new(),
            1 => b"\0\0\0".to_vec(),
            n => format!("user{:0w$}", random.below(500), w = n as usize).into_bytes(),
        },
    }
}

fn same(a: &dyn EntryCursor, b: &dyn EntryCursor, label: &str) {
    assert_eq!(a.is_valid(), b.is_valid(), "{label}");
    if a.is_valid() {
        assert_eq!(a.entry(), b.entry(), "{label}");
    }
}

#[test]
fn it_agrees_with_the_skip_list() {
    for seed in (0..30).step_by(much(1, 6) as usize) {
        let mut random = Random::new(seed);
        let tree = Arc::new(BTreeIndex::default());
        let oracle = Arc::new(SkipListIndex::default());
        let mut ours = Arc::clone(&tree).cursor();
        let mut theirs = Arc::clone(&oracle).cursor();
        if cfg!(miri) {
            // Never dropped: crossbeam's list frees its nodes through shared references, which Miri
            // refuses.
            std::mem::forget(Arc::clone(&oracle));
        }
        for seq in 1..much(4000, 80) {
            let key = match seed {
                0..5 => seq.to_be_bytes().to_vec(),
                5..8 => (u64::MAX - seq).to_be_bytes().to_vec(),
                _ => key(&mut random, seed),
            };
            let word = seq << 8 | random.below(2);
            let value = vec![seq as u8; random.below(20) as usize];
            tree.insert(&key, word, &value);
            oracle.insert(&key, word, &value);
            // Cursors live through the growth.
            let label = format!("seed {seed} seq {seq}");
            match random.below(10) {
                0 => {
                    theirs.seek_first().unwrap();
                    ours.seek_first().unwrap();
                }
                1 => {
                    ours.seek_last().unwrap();
                    theirs.seek_last().unwrap();
                }
                2 => {
                    ours.seek_before(&key).unwrap();
                    theirs.seek_before(&key).unwrap();
                }
                3 => {
                    let at = SeqNo(random.below(seq + 2));
                    ours.seek(&key, at).unwrap();
                    theirs.seek(&key, at).unwrap();
                    let get = |index: &dyn MemtableIndex| {
                        let mut found = None;
                        index.get(&key, seek_word(at), &mut |entry| {
                            found = Some((entry.word(), entry.value.to_vec()));
                        });
                        found
                    };
                    assert_eq!(get(&*tree), get(&*oracle), "{label}");
                }
                4..7 if ours.is_valid() => {
                    ours.next().unwrap();
                    theirs.next().unwrap();
                }
                7.. if ours.is_valid() => {
                    ours.prev().unwrap();
                    theirs.prev().unwrap();
                }
                _ => {}
            }
            same(&*ours, &*theirs, &label);
        }
        ours.seek_first().unwrap();
        theirs.seek_first().unwrap();
        while theirs.is_valid() {
            same(&*ours, &*theirs, "forward");
            ours.next().unwrap();
            theirs.next().unwrap();
        }
        same(&*ours, &*theirs, "forward");
        ours.seek_last().unwrap();
        theirs.seek_last().unwrap();
        while theirs.is_valid() {
            same(&*ours, &*theirs, "backward");
            ours.prev().unwrap();
            theirs.prev().unwrap();
        }
        same(&*ours, &*theirs, "backward");
    }
}

/// Found by Miri: the value was reached through the key's slice, which ends before it.
#[test]
fn a_value_is_read_through_the_pointer_of_its_record() {
    let tree = BTreeIndex::default();
    tree.insert(b"key", 1 << 8 | 1, b"value");
    assert!(tree.get(b"key", u64::MAX, &mut |entry| {
        assert_eq!((entry.key, entry.value), (&b"key"[..], &b"value"[..]));
    }));
}

#[test]
fn large_records_and_small_ones_share_the_arena() {
    let tree = Arc::new(BTreeIndex::default());
    let total = much(200, 24);
    let large = CHUNK_LEN_BYTES + 40_000.min(CHUNK_LEN_BYTES / 4);
    for n in 1..total {
        let len = if n % 7 == 0 { large } else { 50 };
        tree.insert(&n.to_be_bytes(), n << 8 | 1, &vec![n as u8; len]);
    }
    for n in 1..total {
        assert!(tree.get(&n.to_be_bytes(), u64::MAX, &mut |entry| {
            assert!(entry.value.iter().all(|byte| *byte == n as u8));
        }));
    }
    assert!(tree.memory_bytes() as u64 > (total - 1) / 7 * large as u64);
}

#[test]
fn readers_see_everything_that_was_inserted_before() {
    let tree = Arc::new(BTreeIndex::default());
    let inserted = AtomicU64::new(0);
    let over = AtomicBool::new(false);
    let key = |n: u64| format!("user{:016x}", crate::format::checksum::mix64(n)).into_bytes();
    let total = much(60_000, 120);
    thread::scope(|scope| {
        let _over = OverAtEnd(&over);
        for seed in 0..2 {
            let (tree, inserted, over) = (&tree, &inserted, &over);
            scope.spawn(move || {
                let mut random = Random::new(seed);
                while !over.load(Relaxed) {
                    let upto = inserted.load(Acquire);
                    if upto == 0 {
                        continue;
                    }
                    for _ in 0..much(50, 5) {
                        let n = 1 + random.below(upto);
                        assert!(tree.get(&key(n), u64::MAX, &mut |entry| {
                            assert_eq!(entry.value, n.to_le_bytes());
                        }));
                    }
                    // Steps keep the order, and pass over nothing old.
                    let mut cursor = Arc::clone(tree).cursor();
                    cursor.seek(&key(random.next()), SeqNo::MAX).unwrap();
                    let forward = seed == 0;
                    for _ in 0..much(200, 20) {
                        if !cursor.is_valid() {
                            break;
                        }
                        let last = cursor.entry().key.to_vec();
                        let moved = if forward {
                            cursor.next()
                        } else {
                            cursor.prev()
                        };
                        moved.unwrap();
                        if cursor.is_valid() {
                            let key = cursor.entry().key;
                            assert!(if forward {
                                key > &last[..]
                            } else {
                                key < &last[..]
                            });
                        }
                    }
                }
            });
        }
        for n in 1..=total {
            tree.insert(&key(n), n << 8 | 1, &n.to_le_bytes());
            inserted.store(n, Release);
        }
    });
    let mut cursor = Arc::clone(&tree).cursor();
    cursor.seek_first().unwrap();
    let mut count = 0;
    while cursor.is_valid() {
        count += 1;
        cursor.next().unwrap();
    }
    assert_eq!(count, total);
}

#[test]
fn many_versions_of_a_hot_key_keep_the_tree_flat() {
    // Shorter and longer than the prefix that is left out of heads.
    for hot in [
        &b"hot"[..],
        b"a hot key that is longer than a prefix and a head",
    ] {
        let tree = BTreeIndex::default();
        let versions = much(50_000, 150);
        for seq in 1..=versions {
            tree.insert(hot, seq << 8 | 1, &seq.to_le_bytes());
            if seq % 100 == 0 {
                let cold = format!("cold {seq}");
                tree.insert(cold.as_bytes(), seq << 8 | 1, b"");
            }
        }
        // Nodes are half full at least: with 64 slots, four levels hold a million entries.
        let height = tree.root().height;
        assert!(height <= versions.ilog(SLOTS as u64 / 2), "{height}");
        let mut random = Random::new(1);
        for _ in 0..much(2000, 30) {
            let seq = 1 + random.below(versions);
            let word = seek_word(SeqNo(seq));
            let place = tree.at_or_after(hot, word);
            // SAFETY: the place is of a living index.
            let entry = unsafe { Record::entry(place.record) };
            assert_eq!((entry.key, entry.seq), (hot, SeqNo(seq)));
            // The descent leads to the leaf itself or to its neighbour: reads do not walk over
            // versions.
            let leaf = tree.leaf_of(hot, word);
            let is_near = ptr::eq(leaf, place.leaf) || ptr::eq(leaf.next.load(Acquire), place.leaf);
            assert!(is_near, "version {seq}");
        }
    }
}
