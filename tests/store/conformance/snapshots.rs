//! Snapshots: what was committed before stays, what comes later is not seen.

use hedgerow::{Batch, Durability, Kv, KvRead};
use support::random::{Random, Source};

use super::helpers::{
    Entry, Map, assert_holds, backward, contents, forward, load_mixed, with_values,
};

#[track_caller]
fn assert_snapshot(snapshot: &impl KvRead, expected: &Map) {
    let wanted: Vec<Entry> = expected.clone().into_iter().collect();
    assert_eq!(forward(snapshot.iter()), wanted);
    assert_eq!(backward(snapshot.iter()), wanted);
    for (key, value) in expected {
        assert_eq!(
            snapshot.get(key).unwrap().as_deref(),
            Some(value.as_slice())
        );
    }
    let keys: Vec<_> = expected.keys().collect();
    let found = snapshot.multi_get(&keys).unwrap();
    assert!(
        found
            .iter()
            .zip(expected.values())
            .all(|(a, b)| a.as_deref() == Some(b))
    );
}

pub fn a_snapshot_of_nothing_stays_empty(kv: &impl Kv) {
    let snapshot = kv.snapshot();
    kv.put(b"a", b"1").unwrap();
    kv.flush().unwrap();
    kv.put(b"b", b"1").unwrap();
    assert_snapshot(&snapshot, &Map::new());
    assert_eq!(snapshot.get(b"a").unwrap(), None);
    assert!(!snapshot.contains_key(b"b").unwrap());
}

pub fn stable_across_overwrites_and_deletes(kv: &impl Kv) {
    let entries = with_values((0..500u32).map(|n| format!("{n:03}").into_bytes()));
    load_mixed(kv, &entries);
    let snapshot = kv.snapshot();
    for n in 0..500u32 {
        let key = format!("{n:03}");
        match n % 3 {
            0 => kv.put(&key, b"overwritten").unwrap(),
            1 => kv.delete(&key).unwrap(),
            _ => kv.put(key + "+", b"added").unwrap(),
        };
    }
    assert_snapshot(&snapshot, &entries);
    kv.flush().unwrap();
    assert_snapshot(&snapshot, &entries);
    for n in 0..500u32 {
        kv.put(format!("{n:03}"), b"again").unwrap();
    }
    kv.flush().unwrap();
    assert_snapshot(&snapshot, &entries);
}

pub fn stable_across_range_deletes(kv: &impl Kv) {
    let entries = with_values((0..400u32).map(|n| format!("{n:03}").into_bytes()));
    load_mixed(kv, &entries);
    let before = kv.snapshot();
    kv.delete_range("100".."300").unwrap();
    let mut cut = entries.clone();
    cut.retain(|key, _| !(b"100"[..] <= key[..] && key[..] < b"300"[..]));
    let after = kv.snapshot();
    kv.put("200", "back").unwrap();
    kv.delete_range(..).unwrap();
    for _ in 0..2 {
        assert_snapshot(&before, &entries);
        assert_snapshot(&after, &cut);
        assert_eq!(after.get("200").unwrap(), None);
        assert!(kv.iter().next().is_none());
        kv.flush().unwrap();
    }
}

pub fn a_snapshot_between_two_operations_of_one_key(kv: &impl Kv) {
    let mut taken = Vec::new();
    for round in 0..40u32 {
        if round % 5 == 4 {
            kv.delete(b"key").unwrap();
            taken.push((kv.snapshot(), None));
        } else {
            kv.put(b"key", round.to_le_bytes()).unwrap();
            taken.push((kv.snapshot(), Some(round)));
        }
        if round % 9 == 3 {
            kv.flush().unwrap();
        }
    }
    for (snapshot, expected) in &taken {
        let found = snapshot.get(b"key").unwrap();
        assert_eq!(
            found.as_deref(),
            expected.map(u32::to_le_bytes).as_ref().map(|b| &b[..])
        );
        assert_eq!(snapshot.iter().count(), usize::from(expected.is_some()));
    }
}

pub fn a_snapshot_sees_whole_batches(kv: &impl Kv) {
    for round in 0..50u32 {
        let mut batch = Batch::new();
        batch.put(b"left", round.to_le_bytes());
        batch.put(b"right", round.to_le_bytes());
        kv.write_with(batch, Durability::Buffered).unwrap();
        let snapshot = kv.snapshot();
        assert_eq!(
            snapshot.get(b"left").unwrap(),
            snapshot.get(b"right").unwrap()
        );
        assert_eq!(snapshot.get(b"left").unwrap().unwrap(), round.to_le_bytes());
    }
}

pub fn scans_of_a_snapshot_outlive_it(kv: &impl Kv) {
    let entries = with_values((0..200u32).map(|n| n.to_be_bytes().to_vec()));
    load_mixed(kv, &entries);
    let snapshot = kv.snapshot();
    let scan = snapshot.iter();
    let part = snapshot.prefix([0, 0, 0]);
    drop(snapshot);
    kv.delete_range(..).unwrap();
    kv.flush().unwrap();
    assert_eq!(
        forward(scan),
        entries.clone().into_iter().collect::<Vec<_>>()
    );
    assert_eq!(backward(part).len(), 200);
}

/// Snapshots taken and dropped in random order while the store changes, each compared with
/// the state that it was taken of.
pub fn many_snapshots_taken_and_dropped(kv: &impl Kv) {
    let mut random = Random::new(13);
    let mut now = Map::new();
    let mut held = Vec::new();
    for round in 0..1200u32 {
        let n = random.below(150) as u32;
        match random.weighted(&[20, 6, 1, 1]) {
            0 => {
                kv.put(n.to_be_bytes(), round.to_le_bytes()).unwrap();
                now.insert(n.to_be_bytes().to_vec(), round.to_le_bytes().to_vec());
            }
            1 => {
                kv.delete(n.to_be_bytes()).unwrap();
                now.remove(&n.to_be_bytes()[..]);
            }
            2 => {
                let end = n + random.below(40) as u32;
                kv.delete_range(n.to_be_bytes()..end.to_be_bytes()).unwrap();
                now.retain(|key, _| {
                    !(n.to_be_bytes()[..] <= key[..] && key[..] < end.to_be_bytes()[..])
                });
            }
            _ => kv.flush().unwrap(),
        }
        if random.one_in(30) {
            held.push((kv.snapshot(), now.clone()));
        }
        if held.len() > 8 || (!held.is_empty() && random.one_in(40)) {
            let at = random.below(held.len() as u64) as usize;
            let (snapshot, state) = held.swap_remove(at);
            assert_snapshot(&snapshot, &state);
        }
    }
    for (snapshot, state) in &held {
        assert_snapshot(snapshot, state);
    }
    drop(held);
    assert_holds(kv, &now);
    assert_eq!(contents(kv), now);
}
