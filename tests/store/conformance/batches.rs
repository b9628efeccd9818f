//! Batches: order inside, atomic effect.

use hedgerow::{Batch, Durability, Kv};
use support::random::{Random, Source};

use super::helpers::{Map, assert_holds, keys, with_values};

pub fn an_empty_batch_changes_nothing(kv: &impl Kv) {
    kv.put(b"a", b"1").unwrap();
    kv.write_with(Batch::new(), Durability::Sync).unwrap();
    kv.write_with(Batch::new(), Durability::Buffered).unwrap();
    assert_holds(kv, &[(b"a".to_vec(), b"1".to_vec())].into());
}

pub fn the_last_operation_of_a_batch_wins(kv: &impl Kv) {
    let mut batch = Batch::new();
    batch.put(b"put twice", b"1");
    batch.put(b"put twice", b"2");
    batch.put(b"put, delete", b"1");
    batch.delete(b"put, delete");
    batch.delete(b"delete, put");
    batch.put(b"delete, put", b"3");
    assert_eq!(batch.len(), 6);
    kv.write_with(batch, Durability::Sync).unwrap();
    for _ in 0..2 {
        assert_eq!(kv.get(b"put twice").unwrap().unwrap(), b"2");
        assert_eq!(kv.get(b"put, delete").unwrap(), None);
        assert_eq!(kv.get(b"delete, put").unwrap().unwrap(), b"3");
        kv.flush().unwrap();
    }
}

pub fn range_deletes_inside_a_batch_keep_their_place(kv: &impl Kv) {
    for key in ["a", "b", "c", "d"] {
        kv.put(key, "old").unwrap();
    }
    let mut batch = Batch::new();
    batch.put(b"b1", b"before");
    batch.delete_range("b".."d");
    batch.put(b"c", b"after");
    batch.put(b"c1", b"after");
    kv.write_with(batch, Durability::Buffered).unwrap();
    for _ in 0..2 {
        assert_eq!(keys(kv.iter()), ["a", "c", "c1", "d"]);
        assert_eq!(kv.get(b"c").unwrap().unwrap(), b"after");
        assert_eq!(kv.get(b"b1").unwrap(), None);
        kv.flush().unwrap();
    }
    let mut batch = Batch::new();
    batch.delete_range(..);
    batch.put(b"z", b"1");
    batch.delete_range("x".."y");
    kv.write_with(batch, Durability::Buffered).unwrap();
    assert_eq!(keys(kv.iter()), ["z"]);
}

pub fn both_durabilities_are_visible_at_once(kv: &impl Kv) {
    for (durability, value) in [(Durability::Sync, "s"), (Durability::Buffered, "b")] {
        let mut batch = Batch::new();
        batch.put(b"key", value);
        kv.write_with(batch, durability).unwrap();
        assert_eq!(kv.get(b"key").unwrap().unwrap(), value.as_bytes());
    }
}

pub fn a_batch_can_be_cleared_and_used_again(kv: &impl Kv) {
    let mut batch = Batch::with_capacity(100);
    batch.put(b"a", b"1");
    batch.put(vec![0; hedgerow::MAX_KEY_LEN_BYTES + 1], b"refused");
    batch.clear();
    assert!(batch.is_empty() && batch.len_bytes() == 0);
    batch.put(b"b", b"2");
    kv.write_with(batch.clone(), Durability::Sync).unwrap();
    assert_eq!(keys(kv.iter()), ["b"]);
    kv.delete(b"b").unwrap();
    kv.write_with(batch, Durability::Sync).unwrap();
    assert_eq!(keys(kv.iter()), ["b"]);
}

pub fn a_batch_of_many_operations(kv: &impl Kv) {
    let entries =
        with_values((0..5000u32).map(|n| (n.wrapping_mul(2_654_435_761)).to_be_bytes().to_vec()));
    let mut batch = Batch::new();
    for (key, value) in &entries {
        batch.put(key, value);
    }
    kv.write_with(batch, Durability::Sync).unwrap();
    assert_holds(kv, &entries);
    let mut batch = Batch::new();
    for key in entries.keys() {
        batch.delete(key);
    }
    kv.write_with(batch, Durability::Sync).unwrap();
    assert_holds(kv, &Map::new());
}

/// A batch far larger than the write buffer and a log segment of the tiny configurations.
pub fn a_batch_of_several_mib(kv: &impl Kv) {
    let mut random = Random::new(7);
    let mut entries = Map::new();
    let mut batch = Batch::new();
    for n in 0..40u32 {
        let value = random.bytes(100 << 10);
        batch.put(n.to_be_bytes(), &value);
        entries.insert(n.to_be_bytes().to_vec(), value);
    }
    kv.write_with(batch, Durability::Buffered).unwrap();
    assert_holds(kv, &entries);
    kv.flush().unwrap();
    assert_holds(kv, &entries);
}

pub fn random_batches_agree_with_a_map(kv: &impl Kv) {
    let mut random = Random::new(8);
    let mut expected = Map::new();
    for _ in 0..60 {
        let mut batch = Batch::new();
        for _ in 0..random.below(60) {
            let key = random.below(300).to_be_bytes()[6..].to_vec();
            match random.weighted(&[6, 3, 1]) {
                0 => {
                    let len = random.below(60) as usize;
                    let value = random.bytes(len);
                    batch.put(&key, &value);
                    expected.insert(key, value);
                }
                1 => {
                    batch.delete(&key);
                    expected.remove(&key);
                }
                _ => {
                    let end = (u64::from_be_bytes([0, 0, 0, 0, 0, 0, key[0], key[1]])
                        + random.below(20))
                    .to_be_bytes()[6..]
                        .to_vec();
                    batch.delete_range(key.clone()..end.clone());
                    expected.retain(|at, _| !(key <= *at && *at < end));
                }
            }
        }
        kv.write_with(batch, Durability::Buffered).unwrap();
        if random.one_in(10) {
            kv.flush().unwrap();
        }
    }
    assert_holds(kv, &expected);
}
