//! The limits of keys, values and batches: what is at the limit works, what is beyond it
//! is refused before anything is written.

use hedgerow::{Batch, Durability, Kv, MAX_KEY_LEN_BYTES, MAX_VALUE_LEN_BYTES};
use support::random::Random;

use super::helpers::{Map, assert_holds, assert_invalid};

pub fn keys_of_the_longest_length(kv: &impl Kv) {
    let mut entries = Map::new();
    for last in [0u8, 1, 0x7F, 0xFF] {
        let mut key = vec![b'k'; MAX_KEY_LEN_BYTES];
        key[MAX_KEY_LEN_BYTES - 1] = last;
        entries.insert(key, vec![last; 10]);
    }
    entries.insert(vec![b'k'; MAX_KEY_LEN_BYTES - 1], b"shorter".to_vec());
    entries.insert(
        vec![0xFF; MAX_KEY_LEN_BYTES],
        b"the last key of all".to_vec(),
    );
    for (key, value) in &entries {
        kv.put(key, value).unwrap();
    }
    assert_holds(kv, &entries);
    kv.flush().unwrap();
    assert_holds(kv, &entries);
    let first = entries.keys().next().unwrap().clone();
    kv.delete(&first).unwrap();
    entries.remove(&first);
    assert_holds(kv, &entries);
    kv.delete_range(..=vec![0xFF; MAX_KEY_LEN_BYTES]).unwrap();
    assert_holds(kv, &Map::new());
}

pub fn many_long_keys(kv: &impl Kv) {
    let mut random = Random::new(4);
    let mut entries = Map::new();
    for n in 0..60usize {
        let mut key = vec![b'x'; n * 37];
        key.extend(random.bytes(20 + n * 53));
        entries.insert(key, random.bytes(n));
    }
    for (key, value) in &entries {
        kv.put(key, value).unwrap();
    }
    assert_holds(kv, &entries);
    kv.flush().unwrap();
    assert_holds(kv, &entries);
    for key in entries.keys() {
        kv.delete(key).unwrap();
    }
    kv.flush().unwrap();
    assert_holds(kv, &Map::new());
}

pub fn keys_beyond_the_limit_are_refused(kv: &impl Kv) {
    let too_long = vec![b'k'; MAX_KEY_LEN_BYTES + 1];
    kv.put(b"a", b"1").unwrap();
    assert_invalid(kv.put(&too_long, b"v"));
    assert_invalid(kv.delete(&too_long));
    // A bound may be the successor of the longest key, one byte longer, but no more.
    let mut beyond = too_long.clone();
    beyond.push(0);
    assert_invalid(kv.delete_range(&beyond[..]..));
    assert_invalid(kv.delete_range(..&beyond[..]));
    for durability in [Durability::Sync, Durability::Buffered] {
        let mut batch = Batch::new();
        batch.put(b"b", b"2");
        batch.delete(b"a");
        batch.put(&too_long, b"v");
        batch.put(b"c", b"3");
        assert_invalid(kv.write_with(batch, durability));
        let mut batch = Batch::new();
        batch.put(b"b", b"2");
        batch.delete(&too_long);
        assert_invalid(kv.write_with(batch, durability));
    }
    assert_holds(kv, &[(b"a".to_vec(), b"1".to_vec())].into());
}

pub fn values_of_every_interesting_size(kv: &impl Kv) {
    let mut random = Random::new(5);
    let mut entries = Map::new();
    for size in [256usize, 1024, 4096, 8192, 16 << 10, 32 << 10, 64 << 10] {
        for len in [size / 4, size / 2, size - 100, size - 1, size, size + 1] {
            entries.insert(format!("{len:06}").into_bytes(), random.bytes(len));
        }
    }
    for len in [0, 1, 2, 1 << 20] {
        entries.insert(format!("{len:06}").into_bytes(), random.bytes(len));
    }
    for (key, value) in &entries {
        kv.put(key, value).unwrap();
    }
    assert_holds(kv, &entries);
    kv.flush().unwrap();
    assert_holds(kv, &entries);
    // Every value takes another one's size.
    let sizes: Vec<usize> = entries.values().rev().map(Vec::len).collect();
    for (value, len) in entries.values_mut().zip(sizes) {
        *value = random.bytes(len);
    }
    for (key, value) in &entries {
        kv.put(key, value).unwrap();
    }
    assert_holds(kv, &entries);
}

pub fn a_value_of_twenty_mib(kv: &impl Kv) {
    let value = Random::new(6).bytes(20 << 20);
    kv.put(b"large", &value).unwrap();
    kv.put(b"small", b"1").unwrap();
    assert!(kv.get(b"large").unwrap().unwrap() == value.as_slice());
    kv.flush().unwrap();
    assert!(kv.get(b"large").unwrap().unwrap() == value.as_slice());
    let (key, found) = kv.iter().next().unwrap().unwrap();
    assert_eq!(key, b"large");
    assert!(found == value.as_slice());
    assert_eq!(kv.iter().next_key().unwrap().unwrap(), b"large");
    kv.put(b"large", b"small now").unwrap();
    kv.flush().unwrap();
    assert_eq!(kv.get(b"large").unwrap().unwrap(), b"small now");
}

pub fn values_beyond_the_limit_are_refused(kv: &impl Kv) {
    // Zeroed memory that nobody touches costs nothing.
    let too_long = vec![0; MAX_VALUE_LEN_BYTES + 1];
    kv.put(b"a", b"1").unwrap();
    assert_invalid(kv.put(b"a", &too_long));
    let mut batch = Batch::new();
    batch.put(b"b", b"2");
    batch.put(b"a", &too_long);
    assert_invalid(kv.write_with(batch, Durability::Sync));
    assert_holds(kv, &[(b"a".to_vec(), b"1".to_vec())].into());
}

/// Such a bound made a scan from the back panic, or pass over a table; and what that scan took for
/// empty, others passed over.
pub fn bounds_longer_than_any_key(kv: &impl Kv) {
    let gone = |n: usize| format!("d{n:02}");
    let mut entries = Map::new();
    for n in 0..20 {
        kv.put(gone(n), "gone").unwrap();
    }
    for key in ["d10x", "k"] {
        kv.put(key, "here").unwrap();
        entries.insert(key.as_bytes().to_vec(), b"here".to_vec());
    }
    kv.flush().unwrap();
    for n in 0..20 {
        kv.delete(gone(n)).unwrap();
    }
    // With 393,209 zeros the code of "k" was that of a source without entries.
    for zeros in [MAX_KEY_LEN_BYTES, 393_209, 400_000, 1 << 20] {
        let mut bound = b"k".to_vec();
        bound.resize(1 + zeros, 0);
        bound.push(b'b');
        let last = kv.range(..&bound[..]).next_back().unwrap().unwrap();
        assert_eq!(last.0, "k", "{zeros}");
        let mut scan = kv.iter();
        scan.seek_back(&bound);
        assert_eq!(scan.next_back().unwrap().unwrap().0, "k", "{zeros}");
        assert!(kv.range(&bound[..]..).next_back().is_none());
        assert!(kv.prefix(&bound).next_back().is_none());
        let keys: Vec<_> = kv.iter().map(|entry| entry.unwrap().0.to_vec()).collect();
        assert_eq!(keys, [&b"d10x"[..], b"k"], "{zeros}");
    }
    assert_holds(kv, &entries);
}
