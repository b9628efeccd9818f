//! The map as a whole: its ends, its length, keys and values alone, clearing, estimates.

use hedgerow::{Keys, Kv, Value, Values};
use support::random::{Random, Source};

use super::helpers::{Map, assert_holds, load_mixed};

fn key(n: u64) -> [u8; 8] {
    n.to_be_bytes()
}

fn numbers(range: std::ops::Range<u64>) -> Map {
    let value = |n: u64| format!("value {n}").into_bytes();
    range.map(|n| (key(n).to_vec(), value(n))).collect()
}

pub fn the_ends_are_the_lowest_and_the_highest_key(kv: &impl Kv) {
    assert_eq!((kv.first().unwrap(), kv.last().unwrap()), (None, None));
    let entries = numbers(0..500);
    load_mixed(kv, &entries);
    let entry = |n: u64| Some((key(n).to_vec(), format!("value {n}").into_bytes()));
    let owned = |found: Option<(Value, Value)>| found.map(|(k, v)| (k.to_vec(), v.to_vec()));
    assert_eq!(owned(kv.first().unwrap()), entry(0));
    assert_eq!(owned(kv.last().unwrap()), entry(499));
    kv.delete_range(..key(100)).unwrap();
    kv.delete_range(key(400)..).unwrap();
    assert_eq!(owned(kv.first().unwrap()), entry(100));
    assert_eq!(owned(kv.last().unwrap()), entry(399));
    kv.put(b"", b"the empty key").unwrap();
    assert_eq!(kv.first().unwrap().unwrap().0, b"");
    let before = kv.snapshot();
    kv.clear().unwrap();
    assert_eq!((kv.first().unwrap(), kv.last().unwrap()), (None, None));
    use hedgerow::KvRead;
    assert_eq!(before.first().unwrap().unwrap().0, b"");
    assert_eq!(owned(before.last().unwrap()), entry(399));
}

pub fn the_length_is_exact(kv: &impl Kv) {
    assert!(kv.len().unwrap() == 0 && kv.is_empty().unwrap());
    load_mixed(kv, &numbers(0..300));
    load_mixed(kv, &numbers(200..400));
    assert!(kv.len().unwrap() == 400 && !kv.is_empty().unwrap());
    kv.delete(key(7)).unwrap();
    kv.delete(key(7)).unwrap();
    kv.delete_range(key(100)..key(200)).unwrap();
    assert_eq!(kv.len().unwrap(), 299);
    assert_eq!(kv.prefix(b"\0").try_count().unwrap(), 299);
    kv.clear().unwrap();
    assert!(kv.len().unwrap() == 0 && kv.is_empty().unwrap());
    kv.put(b"again", b"").unwrap();
    assert_eq!(kv.len().unwrap(), 1);
}

pub fn keys_and_values_alone(kv: &impl Kv) {
    let entries = numbers(0..200);
    load_mixed(kv, &entries);
    let keys: Vec<Vec<u8>> = entries.keys().cloned().collect();
    let values: Vec<Vec<u8>> = entries.values().cloned().collect();
    let all = |items: &mut dyn Iterator<Item = hedgerow::Result<Value>>| -> Vec<Vec<u8>> {
        items.map(|item| item.unwrap().to_vec()).collect()
    };
    assert_eq!(all(&mut kv.keys()), keys);
    assert_eq!(all(&mut kv.values()), values);
    let reversed = |mut items: Vec<Vec<u8>>| {
        items.reverse();
        items
    };
    assert_eq!(all(&mut kv.keys().rev()), reversed(keys.clone()));
    assert_eq!(all(&mut kv.values().rev()), reversed(values.clone()));
    let part = || kv.range(key(50)..key(60));
    assert_eq!(all(&mut Keys::from(part())), keys[50..60]);
    assert_eq!(all(&mut Values::from(part())), values[50..60]);
    // Both ends meet.
    let mut both = Keys::from(kv.range(key(3)..key(6)));
    let taken: Vec<_> = [both.next(), both.next_back(), both.next(), both.next()].into();
    let taken: Vec<_> = taken
        .into_iter()
        .map(|item| item.map(|k| k.unwrap()))
        .collect();
    assert_eq!(
        taken,
        [Some(key(3)), Some(key(5)), Some(key(4)), None]
            .map(|k| k.map(|k| Value::from(k.to_vec())))
    );
}

pub fn seeking_from_both_ends_agrees_with_a_map(kv: &impl Kv) {
    let mut random = Random::new(11);
    let mut entries = Map::new();
    for _ in 0..300 {
        entries.insert(key(random.below(1000)).to_vec(), vec![1]);
    }
    load_mixed(kv, &entries);
    for _ in 0..200 {
        let (mut low, mut high) = (key(random.below(1000)), key(random.below(1000)));
        if low > high {
            std::mem::swap(&mut low, &mut high);
        }
        let mut scan = kv.range(low..=high);
        let mut left: Vec<Vec<u8>> = entries
            .range(low.to_vec()..=high.to_vec())
            .map(|(key, _)| key.clone())
            .collect();
        for _ in 0..12 {
            match random.below(4) {
                0 => {
                    let to = key(random.below(1000));
                    scan.seek(to);
                    left.retain(|key| key.as_slice() >= to.as_slice());
                }
                1 => {
                    let to = key(random.below(1000));
                    scan.seek_back(to);
                    left.retain(|key| key.as_slice() <= to.as_slice());
                }
                2 => {
                    let expected = (!left.is_empty()).then(|| left.remove(0));
                    let found = scan.next_entry().unwrap().map(|(key, _)| key.to_vec());
                    assert_eq!(found, expected);
                }
                _ => {
                    let found = scan.next_back_entry().unwrap().map(|(key, _)| key.to_vec());
                    assert_eq!(found, left.pop());
                }
            }
        }
    }
}

pub fn sizes_of_ranges_are_about_right(kv: &impl Kv) {
    assert_eq!(kv.size_of_range(..).unwrap().entries, 0);
    assert!(kv.split_points(.., 4).unwrap().is_empty());
    assert!(kv.split_points(.., 0).is_err());
    let value = [7; 100];
    for n in 0..20_000u64 {
        kv.put(key(n), value).unwrap();
        if n == 12_000 {
            kv.flush().unwrap();
        }
    }
    let all = kv.size_of_range(..).unwrap();
    assert!((15_000..30_000).contains(&all.entries), "{all:?}");
    assert!(all.bytes > 20_000 * 8, "{all:?}");
    let half = kv.size_of_range(key(0)..key(10_000)).unwrap();
    let share = half.entries as f64 / all.entries as f64;
    assert!((0.35..0.65).contains(&share), "{half:?} of {all:?}");
    assert_eq!(kv.size_of_range(key(5)..key(5)).unwrap().entries, 0);
    assert_eq!(kv.size_of_range(key(30_000)..).unwrap().entries, 0);

    let points = kv.split_points(.., 4).unwrap();
    assert_eq!(points.len(), 3, "{points:?}");
    assert!(points.is_sorted());
    let points = kv.split_points(key(4000)..key(8000), 2).unwrap();
    assert!(points.len() == 1 && *points[0] > key(4000)[..] && *points[0] < key(8000)[..]);
    assert_holds(
        kv,
        &(0..20_000)
            .map(|n| (key(n).to_vec(), value.to_vec()))
            .collect(),
    );
}

/// A block that began with the end of the range was taken for a part of it.
pub fn points_that_divide_a_range_lie_in_it(kv: &impl Kv) {
    for n in 0..=255_u8 {
        kv.put([n], [b'v'; 100]).unwrap();
    }
    kv.flush().unwrap();
    for end in 1..=255_u8 {
        for point in kv.split_points(..[end], 1000).unwrap() {
            assert!(*point < [end][..], "{point:?} is not before {end}");
        }
    }
}
