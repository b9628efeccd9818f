//! Single keys: get, put, delete, contains, `get_with`, `multi_get`.

use hedgerow::{Kv, MAX_KEY_LEN_BYTES};
use support::random::{Random, Source};

use super::helpers::{assert_holds, awkward_keys, load_mixed, with_values};

pub fn an_empty_store_has_nothing(kv: &impl Kv) {
    assert_eq!(kv.get(b"a").unwrap(), None);
    assert_eq!(kv.get(b"").unwrap(), None);
    assert!(!kv.contains_key(b"a").unwrap());
    assert!(kv.iter().next().is_none());
    assert!(kv.iter().next_back().is_none());
}

pub fn put_get_contains_delete(kv: &impl Kv) {
    kv.put(b"ada", b"1815").unwrap();
    assert_eq!(kv.get(b"ada").unwrap().unwrap(), b"1815");
    assert!(kv.contains_key(b"ada").unwrap());
    assert!(!kv.contains_key(b"ad").unwrap());
    assert!(!kv.contains_key(b"adaa").unwrap());
    kv.delete(b"ada").unwrap();
    assert_eq!(kv.get(b"ada").unwrap(), None);
    assert!(!kv.contains_key(b"ada").unwrap());
}

pub fn the_last_put_wins(kv: &impl Kv) {
    for round in 0..50u32 {
        kv.put(b"key", round.to_le_bytes()).unwrap();
        if round % 20 == 7 {
            kv.flush().unwrap();
        }
        assert_eq!(kv.get(b"key").unwrap().unwrap(), round.to_le_bytes());
    }
    assert_eq!(kv.iter().count(), 1);
}

pub fn a_deleted_key_stays_deleted_after_flushes(kv: &impl Kv) {
    kv.put(b"a", b"1").unwrap();
    kv.put(b"b", b"2").unwrap();
    kv.flush().unwrap();
    kv.delete(b"a").unwrap();
    assert_eq!(kv.get(b"a").unwrap(), None);
    kv.flush().unwrap();
    assert_eq!(kv.get(b"a").unwrap(), None);
    kv.flush().unwrap();
    assert_holds(kv, &[(b"b".to_vec(), b"2".to_vec())].into());
}

pub fn deleting_what_is_absent_is_fine(kv: &impl Kv) {
    kv.delete(b"never").unwrap();
    kv.flush().unwrap();
    kv.delete(b"never").unwrap();
    kv.put(b"never", b"say never").unwrap();
    assert_eq!(kv.get(b"never").unwrap().unwrap(), b"say never");
}

pub fn a_key_can_come_and_go_many_times(kv: &impl Kv) {
    for round in 0..30u8 {
        kv.put(b"key", [round]).unwrap();
        if round % 4 == 0 {
            kv.flush().unwrap();
        }
        assert_eq!(kv.get(b"key").unwrap().unwrap(), [round]);
        kv.delete(b"key").unwrap();
        if round % 3 == 0 {
            kv.flush().unwrap();
        }
        assert_eq!(kv.get(b"key").unwrap(), None);
    }
    assert_eq!(kv.iter().count(), 0);
}

pub fn the_empty_key_and_the_empty_value(kv: &impl Kv) {
    kv.put(b"", b"").unwrap();
    assert_eq!(kv.get(b"").unwrap().unwrap(), b"");
    kv.put(b"", b"nothing").unwrap();
    kv.put(b"a", b"").unwrap();
    kv.flush().unwrap();
    assert_eq!(kv.get(b"").unwrap().unwrap(), b"nothing");
    assert_eq!(kv.get(b"a").unwrap().unwrap(), b"");
    assert!(kv.contains_key(b"a").unwrap());
    let first = kv.iter().next().unwrap().unwrap();
    assert_eq!(first.0, b"");
    kv.delete(b"").unwrap();
    assert_eq!(kv.get(b"").unwrap(), None);
    kv.flush().unwrap();
    assert_holds(kv, &[(b"a".to_vec(), Vec::new())].into());
}

pub fn awkward_keys_are_told_apart(kv: &impl Kv) {
    let entries = with_values(awkward_keys());
    load_mixed(kv, &entries);
    assert_holds(kv, &entries);
    kv.flush().unwrap();
    assert_holds(kv, &entries);
}

pub fn every_single_byte_is_a_key(kv: &impl Kv) {
    let entries = with_values((0..=255).map(|byte| vec![byte]));
    load_mixed(kv, &entries);
    assert_holds(kv, &entries);
}

pub fn keys_with_long_shared_prefixes(kv: &impl Kv) {
    let prefix = "a/rather/long/path/that/every/key/has/in/common/";
    let entries = with_values(
        (0..600)
            .map(|n| {
                format!(
                    "{prefix}{:03}/{}",
                    n % 25,
                    "x".repeat(n % 40) + &n.to_string()
                )
            })
            .map(String::into_bytes),
    );
    load_mixed(kv, &entries);
    kv.flush().unwrap();
    assert_holds(kv, &entries);
    assert_eq!(kv.get(prefix).unwrap(), None);
    assert_eq!(kv.get(&prefix[..20]).unwrap(), None);
}

pub fn keys_of_falling_and_rising_length(kv: &impl Kv) {
    let entries = with_values((0..400).map(|n| vec![b'k'; n]));
    for (key, value) in entries.iter().rev() {
        kv.put(key, value).unwrap();
    }
    assert_holds(kv, &entries);
    kv.flush().unwrap();
    assert_holds(kv, &entries);
}

pub fn many_keys_in_random_order(kv: &impl Kv) {
    let mut random = Random::new(1);
    let mut numbers: Vec<u32> = (0..4000).collect();
    random.shuffle(&mut numbers);
    for n in &numbers {
        kv.put(n.to_be_bytes(), format!("value of {n}")).unwrap();
    }
    for n in 0..4000u32 {
        let value = kv.get(n.to_be_bytes()).unwrap().expect("present");
        assert_eq!(value, format!("value of {n}").as_bytes());
        // One byte longer and one byte shorter are other keys.
        let mut near = n.to_be_bytes().to_vec();
        near.push(0);
        assert_eq!(kv.get(&near).unwrap(), None);
        assert_eq!(kv.get(&near[..3]).unwrap(), None);
    }
    assert!(kv.iter().map(|item| item.unwrap().0).is_sorted());
    assert_eq!(kv.iter().count(), 4000);
}

pub fn ascending_and_descending_fills(kv: &impl Kv) {
    for n in 0..1500u32 {
        kv.put(
            [b"up".as_slice(), &n.to_be_bytes()].concat(),
            n.to_le_bytes(),
        )
        .unwrap();
        let down = 1500 - n;
        kv.put(
            [b"down".as_slice(), &down.to_be_bytes()].concat(),
            n.to_le_bytes(),
        )
        .unwrap();
    }
    assert_eq!(kv.prefix("up").count(), 1500);
    assert_eq!(kv.prefix("down").rev().count(), 1500);
    assert!(kv.iter().map(|item| item.unwrap().0).is_sorted());
}

pub fn overwriting_with_other_sizes(kv: &impl Kv) {
    let mut random = Random::new(2);
    let mut expected = std::collections::BTreeMap::new();
    for round in 0..1500u64 {
        let key = format!("{:02}", random.below(40)).into_bytes();
        let len = *random.pick(&[0, 1, 10, 100, 500, 1000, 2000]);
        let value = vec![round as u8; len];
        kv.put(&key, &value).unwrap();
        expected.insert(key, value);
    }
    assert_holds(kv, &expected);
    kv.flush().unwrap();
    assert_holds(kv, &expected);
}

pub fn deleting_most_of_many(kv: &impl Kv) {
    let entries = with_values((0..2000u32).map(|n| n.to_be_bytes().to_vec()));
    load_mixed(kv, &entries);
    let mut left = entries.clone();
    for n in (0..2000u32).filter(|n| n % 50 != 0) {
        kv.delete(n.to_be_bytes()).unwrap();
        left.remove(&n.to_be_bytes()[..]);
    }
    assert_holds(kv, &left);
    kv.flush().unwrap();
    assert_holds(kv, &left);
    for n in 0..2000u32 {
        kv.delete(n.to_be_bytes()).unwrap();
    }
    assert_eq!(kv.iter().count(), 0);
    kv.flush().unwrap();
    assert_eq!(kv.iter().count(), 0);
    kv.put(b"again", b"1").unwrap();
    assert_eq!(kv.iter().count(), 1);
}

pub fn get_with_lends_the_value(kv: &impl Kv) {
    kv.put(b"ada", b"1815").unwrap();
    for _ in 0..2 {
        assert_eq!(kv.get_with(b"ada", <[u8]>::len).unwrap(), Some(4));
        assert_eq!(
            kv.get_with(b"ada", <[u8]>::to_vec).unwrap().unwrap(),
            b"1815"
        );
        let mut called = false;
        assert_eq!(kv.get_with(b"bob", |_| called = true).unwrap(), None);
        assert!(!called, "called for an absent key");
        kv.flush().unwrap();
    }
}

pub fn a_value_outlives_what_happens_to_its_key(kv: &impl Kv) {
    kv.put(b"key", b"first").unwrap();
    let in_memory = kv.get(b"key").unwrap().unwrap();
    kv.flush().unwrap();
    let on_disk = kv.get(b"key").unwrap().unwrap();
    kv.put(b"key", b"second").unwrap();
    kv.delete(b"key").unwrap();
    kv.flush().unwrap();
    assert_eq!(in_memory, b"first");
    assert_eq!(on_disk, b"first");
    assert_eq!(in_memory, on_disk);
}

pub fn multi_get_keeps_the_order(kv: &impl Kv) {
    let entries = with_values((0..300u32).map(|n| format!("key {n:03}").into_bytes()));
    load_mixed(kv, &entries);
    assert!(kv.multi_get::<&[u8]>(&[]).unwrap().is_empty());
    let mut random = Random::new(3);
    for len in [1, 2, 15, 16, 17, 64, 500] {
        let wanted: Vec<String> = (0..len)
            .map(|_| format!("key {:03}", random.below(400)))
            .collect();
        let found = kv.multi_get(&wanted).unwrap();
        assert_eq!(found.len(), wanted.len());
        for (key, value) in wanted.iter().zip(found) {
            assert_eq!(
                value.as_deref(),
                entries.get(key.as_bytes()).map(Vec::as_slice),
                "{key}"
            );
        }
    }
    let twice = kv.multi_get(&["key 007", "", "key 007"]).unwrap();
    assert_eq!(twice[0], twice[2]);
    assert!(twice[0].is_some() && twice[1].is_none());
}

pub fn looking_up_a_key_beyond_the_limit_finds_nothing(kv: &impl Kv) {
    kv.put(vec![b'k'; MAX_KEY_LEN_BYTES], b"v").unwrap();
    let too_long = vec![b'k'; MAX_KEY_LEN_BYTES + 1];
    assert_eq!(kv.get(&too_long).unwrap(), None);
    assert!(!kv.contains_key(&too_long).unwrap());
    assert_eq!(kv.range(&too_long[..]..).count(), 0);
    assert_eq!(kv.range(..&too_long[..]).count(), 1);
}
