//! `delete_range`, which an LSM does with range tombstones and a B-tree by cutting branches.

use std::ops::Bound;

use hedgerow::Kv;
use support::random::{Random, Source};

use super::helpers::{Map, assert_holds, awkward_keys, keys, load_mixed, with_values};

fn letters(kv: &impl Kv) {
    for key in ["a", "b", "c", "d", "e", "f"] {
        kv.put(key, key).unwrap();
    }
}

pub fn empty_and_inverted_bounds_delete_nothing(kv: &impl Kv) {
    letters(kv);
    kv.delete_range("c".."c").unwrap();
    kv.delete_range("e".."b").unwrap();
    kv.delete_range((Bound::Excluded("c"), Bound::Excluded("c")))
        .unwrap();
    kv.delete_range((Bound::Excluded("c"), Bound::Excluded("d")))
        .unwrap();
    kv.delete_range("x".."z").unwrap();
    kv.delete_range("".."").unwrap();
    kv.delete_range(..b"").unwrap();
    kv.flush().unwrap();
    assert_eq!(keys(kv.iter()), ["a", "b", "c", "d", "e", "f"]);
}

pub fn every_kind_of_bounds_deletes_what_it_says(kv: &impl Kv) {
    letters(kv);
    kv.delete_range("b".."c").unwrap();
    assert_eq!(keys(kv.iter()), ["a", "c", "d", "e", "f"]);
    kv.delete_range("d"..="e").unwrap();
    assert_eq!(keys(kv.iter()), ["a", "c", "f"]);
    letters(kv);
    kv.delete_range("e"..).unwrap();
    assert_eq!(keys(kv.iter()), ["a", "b", "c", "d"]);
    kv.delete_range(.."b").unwrap();
    assert_eq!(keys(kv.iter()), ["b", "c", "d"]);
    kv.delete_range(..="b").unwrap();
    assert_eq!(keys(kv.iter()), ["c", "d"]);
    kv.delete_range((Bound::Excluded("c"), Bound::Included("d")))
        .unwrap();
    assert_eq!(keys(kv.iter()), ["c"]);
}

pub fn the_whole_keyspace_can_be_deleted(kv: &impl Kv) {
    kv.delete_range(..).unwrap();
    for round in 0..3u32 {
        let entries = with_values((0..800u32).map(|n| (n * (round + 1)).to_be_bytes().to_vec()));
        load_mixed(kv, &entries);
        if round == 1 {
            kv.flush().unwrap();
        }
        kv.delete_range(..).unwrap();
        assert_holds(kv, &Map::new());
        kv.flush().unwrap();
        assert_holds(kv, &Map::new());
    }
    letters(kv);
    assert_eq!(keys(kv.iter()).len(), 6);
}

pub fn keys_put_after_a_range_delete_stay(kv: &impl Kv) {
    letters(kv);
    kv.flush().unwrap();
    kv.delete_range("b".."f").unwrap();
    kv.put("c", "new").unwrap();
    for _ in 0..3 {
        assert_eq!(keys(kv.iter()), ["a", "c", "f"]);
        assert_eq!(kv.get("c").unwrap().unwrap(), b"new");
        assert_eq!(kv.get("b").unwrap(), None);
        assert_eq!(kv.get("d").unwrap(), None);
        kv.flush().unwrap();
    }
}

pub fn a_range_delete_reaches_through_every_layer(kv: &impl Kv) {
    for n in 0..100u32 {
        kv.put(n.to_be_bytes(), b"1").unwrap();
        if n % 20 == 0 {
            kv.flush().unwrap();
        }
    }
    kv.delete_range(10u32.to_be_bytes()..90u32.to_be_bytes())
        .unwrap();
    for _ in 0..2 {
        for n in 0..100u32 {
            assert_eq!(
                kv.contains_key(n.to_be_bytes()).unwrap(),
                !(10..90).contains(&n),
                "{n}"
            );
        }
        let mut scan = kv.iter();
        scan.seek(10u32.to_be_bytes());
        assert_eq!(scan.next().unwrap().unwrap().0, 90u32.to_be_bytes());
        let mut scan = kv.range(..90u32.to_be_bytes());
        assert_eq!(scan.next_back().unwrap().unwrap().0, 9u32.to_be_bytes());
        let wanted: Vec<_> = (0..100u32).map(u32::to_be_bytes).collect();
        let found = kv.multi_get(&wanted).unwrap();
        assert_eq!(found.iter().flatten().count(), 20);
        kv.flush().unwrap();
    }
}

pub fn awkward_bounds(kv: &impl Kv) {
    let all = awkward_keys();
    let entries = with_values(all.iter().cloned());
    for low in all.iter().step_by(3) {
        for high in all.iter().step_by(4) {
            let mut expected = entries.clone();
            for (key, value) in &entries {
                kv.put(key, value).unwrap();
            }
            kv.delete_range(&low[..]..&high[..]).unwrap();
            expected.retain(|key, _| !(low <= key && key < high));
            assert_holds(kv, &expected);
        }
    }
}

pub fn overlapping_range_deletes_and_puts_agree_with_a_map(kv: &impl Kv) {
    let mut random = Random::new(11);
    let mut expected = Map::new();
    for round in 0..400u32 {
        let low = random.below(1000) as u32;
        match random.weighted(&[5, 2]) {
            0 => {
                for n in low..low + 10 {
                    let value = vec![round as u8; random.below(30) as usize];
                    kv.put(n.to_be_bytes(), &value).unwrap();
                    expected.insert(n.to_be_bytes().to_vec(), value);
                }
            }
            _ => {
                let high = low + random.below(200) as u32;
                kv.delete_range(low.to_be_bytes()..high.to_be_bytes())
                    .unwrap();
                expected.retain(|key, _| {
                    !(low.to_be_bytes()[..] <= key[..] && key[..] < high.to_be_bytes()[..])
                });
            }
        }
        if random.one_in(40) {
            kv.flush().unwrap();
        }
        if random.one_in(40) {
            assert_holds(kv, &expected);
        }
    }
    assert_holds(kv, &expected);
}

/// Hundreds of live range deletes must not make every read walk all of them, and must not be
/// forgotten either.
pub fn many_small_range_deletes(kv: &impl Kv) {
    let mut expected = with_values((0..2000u32).map(|n| n.to_be_bytes().to_vec()));
    load_mixed(kv, &expected);
    for n in (0..2000u32).step_by(4) {
        kv.delete_range(n.to_be_bytes()..(n + 2).to_be_bytes())
            .unwrap();
        expected.remove(&n.to_be_bytes()[..]);
        expected.remove(&(n + 1).to_be_bytes()[..]);
    }
    assert_holds(kv, &expected);
    kv.flush().unwrap();
    assert_holds(kv, &expected);
}

pub fn range_deletes_of_large_values(kv: &impl Kv) {
    let mut random = Random::new(12);
    for n in 0..30u32 {
        kv.put(n.to_be_bytes(), random.bytes(30_000)).unwrap();
    }
    kv.flush().unwrap();
    kv.delete_range(5u32.to_be_bytes()..25u32.to_be_bytes())
        .unwrap();
    assert_eq!(kv.iter().count(), 10);
    kv.flush().unwrap();
    assert_eq!(kv.iter().rev().count(), 10);
}
