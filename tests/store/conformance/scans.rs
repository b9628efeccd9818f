//! Scans: bounds of every kind, both directions, prefixes, seeks, lending.

use std::ops::Bound;

use hedgerow::Kv;
use support::random::{Random, Source};

use super::helpers::{Entry, Map, awkward_keys, backward, forward, keys, load_mixed, with_values};

/// What a map says about bounds, inverted ones included.
fn select(map: &Map, low: Bound<&[u8]>, high: Bound<&[u8]>) -> Vec<Entry> {
    let above = |key: &[u8]| match low {
        Bound::Included(low) => key >= low,
        Bound::Excluded(low) => key > low,
        Bound::Unbounded => true,
    };
    let below = |key: &[u8]| match high {
        Bound::Included(high) => key <= high,
        Bound::Excluded(high) => key < high,
        Bound::Unbounded => true,
    };
    map.iter()
        .filter(|(key, _)| above(key) && below(key))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

fn bounds_of(key: &[u8]) -> [Bound<&[u8]>; 2] {
    [Bound::Included(key), Bound::Excluded(key)]
}

pub fn every_kind_of_bounds(kv: &impl Kv) {
    let all = awkward_keys();
    // Every second key is present, so that bounds fall on keys and between them.
    let entries = with_values(all.iter().step_by(2).cloned());
    load_mixed(kv, &entries);
    let mut bounds = vec![Bound::Unbounded];
    bounds.extend(all.iter().flat_map(|key| bounds_of(key)));
    for low in &bounds {
        for high in &bounds {
            let wanted = select(&entries, *low, *high);
            assert_eq!(forward(kv.range((*low, *high))), wanted, "{low:?} {high:?}");
            assert_eq!(
                backward(kv.range((*low, *high))),
                wanted,
                "{low:?} {high:?} reversed"
            );
        }
    }
}

pub fn every_range_syntax(kv: &impl Kv) {
    for key in ["a", "b", "c", "d"] {
        kv.put(key, "").unwrap();
    }
    assert_eq!(keys(kv.range(..)), ["a", "b", "c", "d"]);
    assert_eq!(keys(kv.range("b"..)), ["b", "c", "d"]);
    assert_eq!(keys(kv.range(.."c")), ["a", "b"]);
    assert_eq!(keys(kv.range(..="c")), ["a", "b", "c"]);
    assert_eq!(keys(kv.range("b".."d")), ["b", "c"]);
    assert_eq!(keys(kv.range("b"..="d")), ["b", "c", "d"]);
    assert_eq!(
        keys(kv.range((Bound::Excluded("a"), Bound::Excluded("d")))),
        ["b", "c"]
    );
    assert_eq!(keys(kv.range("d".."a")), [""; 0]);
    assert_eq!(keys(kv.range("b".."b")), [""; 0]);
    assert_eq!(keys(kv.range("b"..="b")), ["b"]);
}

pub fn both_ends_meet_in_the_middle(kv: &impl Kv) {
    let entries = with_values((0..60u32).map(|n| format!("{n:02}").into_bytes()));
    load_mixed(kv, &entries);
    let wanted: Vec<Entry> = entries.into_iter().collect();
    let mut random = Random::new(9);
    for _ in 0..60 {
        let low = random.below(60) as usize;
        let high = low + random.below(61 - low as u64) as usize;
        let bounds = (
            Bound::Included(format!("{low:02}")),
            Bound::Excluded(format!("{high:02}")),
        );
        let mut scan = kv.range(bounds);
        let (mut front, mut back) = (Vec::new(), Vec::new());
        loop {
            let (side, item) = if random.one_in(2) {
                (&mut front, scan.next())
            } else {
                (&mut back, scan.next_back())
            };
            let Some(item) = item else { break };
            let (key, value) = item.unwrap();
            side.push((key.to_vec(), value.to_vec()));
        }
        assert!(scan.next().is_none() && scan.next_back().is_none(), "fused");
        back.reverse();
        front.extend(back);
        assert_eq!(front, wanted[low..high]);
    }
}

pub fn prefixes(kv: &impl Kv) {
    let mut all = awkward_keys();
    all.extend([
        b"abc\xFF".to_vec(),
        b"abc\xFF\xFF".to_vec(),
        b"abd".to_vec(),
    ]);
    let entries = with_values(all.iter().cloned());
    load_mixed(kv, &entries);
    let mut prefixes = all.clone();
    prefixes.extend([
        b"q".to_vec(),
        b"ppp".to_vec(),
        b"abcdefghijk".to_vec(),
        vec![0xFF; 20],
    ]);
    for prefix in &prefixes {
        let wanted: Vec<Entry> = entries
            .iter()
            .filter(|(key, _)| key.starts_with(prefix))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        assert_eq!(forward(kv.prefix(prefix)), wanted, "{prefix:?}");
        assert_eq!(backward(kv.prefix(prefix)), wanted, "{prefix:?} reversed");
    }
}

pub fn seek_jumps_ahead_and_never_back(kv: &impl Kv) {
    let entries = with_values((0..500u32).map(|n| format!("{:04}", n * 2).into_bytes()));
    load_mixed(kv, &entries);
    let mut scan = kv.range("0100".."0900");
    scan.seek("0005");
    assert_eq!(scan.next().unwrap().unwrap().0, b"0100");
    scan.seek("0301");
    assert_eq!(scan.next().unwrap().unwrap().0, b"0302");
    scan.seek("0200");
    assert_eq!(scan.next().unwrap().unwrap().0, b"0304");
    scan.seek("0304");
    assert_eq!(scan.next().unwrap().unwrap().0, b"0306");
    scan.seek("0308");
    scan.seek("0400");
    assert_eq!(scan.next_key().unwrap().unwrap(), b"0400");
    assert_eq!(scan.next_back().unwrap().unwrap().0, b"0898");
    scan.seek("0894");
    assert_eq!(scan.next().unwrap().unwrap().0, b"0894");
    assert_eq!(scan.next().unwrap().unwrap().0, b"0896");
    assert!(scan.next().is_none());
    let mut scan = kv.iter();
    scan.seek("zzz");
    assert!(scan.next().is_none());
    assert!(scan.next_back().is_none());
}

pub fn random_walks_agree_with_a_map(kv: &impl Kv) {
    let entries = with_values((0..400u32).map(|n| format!("{:04}", n * 5).into_bytes()));
    load_mixed(kv, &entries);
    let wanted: Vec<&Vec<u8>> = entries.keys().collect();
    let mut random = Random::new(10);
    for _ in 0..100 {
        let mut scan = kv.iter();
        let (mut low, mut high) = (0, wanted.len());
        for _ in 0..random.below(100) {
            match random.weighted(&[4, 4, 1]) {
                0 => {
                    let found = scan.next_key().unwrap();
                    let expected = (low < high).then(|| wanted[low]);
                    assert_eq!(found.as_deref(), expected.map(Vec::as_slice));
                    low += usize::from(low < high);
                }
                1 => {
                    let found = scan.next_back().transpose().unwrap();
                    let expected = (low < high).then(|| wanted[high - 1]);
                    assert_eq!(found.map(|(key, _)| key.to_vec()).as_ref(), expected);
                    high -= usize::from(low < high);
                }
                _ => {
                    let target = format!("{:04}", random.below(2000)).into_bytes();
                    scan.seek(&target);
                    low = low
                        .max(wanted.partition_point(|key| **key < target))
                        .min(high);
                }
            }
        }
    }
}

pub fn lending_and_owning_agree(kv: &impl Kv) {
    let entries = with_values(awkward_keys());
    load_mixed(kv, &entries);
    let wanted: Vec<Entry> = entries.clone().into_iter().collect();
    let mut scan = kv.iter();
    let mut lent = Vec::new();
    while let Some(entry) = scan.next_with(|k, v| (k.to_vec(), v.to_vec())).unwrap() {
        lent.push(entry);
    }
    assert_eq!(lent, wanted);
    assert_eq!(scan.next_with(|_, _| ()).unwrap(), None);
    let mut scan = kv.iter();
    let mut lent = Vec::new();
    while let Some(entry) = scan
        .next_back_with(|k, v| (k.to_vec(), v.to_vec()))
        .unwrap()
    {
        lent.push(entry);
    }
    lent.reverse();
    assert_eq!(lent, wanted);
    let mut scan = kv.iter();
    for key in entries.keys() {
        assert_eq!(scan.next_key().unwrap().unwrap(), *key);
    }
    assert_eq!(scan.next_key().unwrap(), None);
}

pub fn a_scan_does_not_see_later_writes(kv: &impl Kv) {
    let entries = with_values((0..300u32).map(|n| format!("{n:03}").into_bytes()));
    load_mixed(kv, &entries);
    let wanted: Vec<Entry> = entries.into_iter().collect();
    let mut ahead = kv.iter();
    let mut back = kv.iter();
    let mut seen = vec![];
    for _ in 0..10 {
        let (key, value) = ahead.next().unwrap().unwrap();
        seen.push((key.to_vec(), value.to_vec()));
    }
    for n in 0..300u32 {
        kv.put(format!("{n:03}"), b"changed").unwrap();
        kv.put(format!("{n:03}+"), b"added").unwrap();
        if n % 3 == 0 {
            kv.delete(format!("{n:03}")).unwrap();
        }
        if n % 100 == 50 {
            kv.flush().unwrap();
        }
    }
    kv.delete_range("100".."200").unwrap();
    kv.flush().unwrap();
    seen.extend(forward(ahead));
    assert_eq!(seen, wanted);
    // The second scan had not even begun.
    let mut seen = Vec::new();
    while let Some(item) = back.next_back() {
        let (key, value) = item.unwrap();
        seen.push((key.to_vec(), value.to_vec()));
    }
    seen.reverse();
    assert_eq!(seen, wanted);
}

pub fn deleting_while_scanning_drains_everything(kv: &impl Kv) {
    let entries = with_values((0..500u32).map(|n| n.to_be_bytes().to_vec()));
    load_mixed(kv, &entries);
    let mut seen = 0;
    for item in kv.iter() {
        kv.delete(item.unwrap().0).unwrap();
        seen += 1;
    }
    assert_eq!(seen, 500);
    assert!(kv.iter().next().is_none());
}

pub fn scans_over_deleted_stretches(kv: &impl Kv) {
    let entries = with_values((0..3000u32).map(|n| n.to_be_bytes().to_vec()));
    load_mixed(kv, &entries);
    for n in 10..2990u32 {
        kv.delete(n.to_be_bytes()).unwrap();
    }
    for _ in 0..2 {
        let found: Vec<u32> = kv
            .iter()
            .map(|item| u32::from_be_bytes(item.unwrap().0[..].try_into().unwrap()))
            .collect();
        let wanted: Vec<u32> = (0..10).chain(2990..3000).collect();
        assert_eq!(found, wanted);
        let mut scan = kv.range(9u32.to_be_bytes()..2991u32.to_be_bytes());
        assert_eq!(scan.next_back().unwrap().unwrap().0, 2990u32.to_be_bytes());
        assert_eq!(scan.next_back().unwrap().unwrap().0, 9u32.to_be_bytes());
        assert!(scan.next_back().is_none());
        kv.flush().unwrap();
    }
}
