//! Reading, changing and writing back in one step, and the numbers of commits.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use hedgerow::{Batch, Durability, Kv, KvRead, SeqNo};

use super::helpers::assert_holds;

pub fn every_write_returns_a_higher_number(kv: &impl Kv) {
    let mut last = SeqNo::ZERO;
    let mut rises = |seq: SeqNo, by: u64| {
        assert!(seq.0 >= last.0 + by, "{seq} after {last}");
        last = seq;
    };
    rises(kv.put("a", "1").unwrap(), 1);
    rises(kv.delete("b").unwrap(), 1);
    rises(kv.delete_range("x".."y").unwrap(), 1);
    let mut batch = Batch::new();
    batch.put("c", "1");
    batch.put("d", "1");
    rises(kv.write(batch.clone()).unwrap(), 2);
    rises(kv.write_with(batch, Durability::Buffered).unwrap(), 2);
    rises(kv.update("a", |_| Some("2")).unwrap().seq, 1);
    rises(kv.put_if_absent("e", "1").unwrap().unwrap(), 1);
    rises(kv.clear().unwrap(), 1);
    // What changes nothing has the number of what was there.
    rises(kv.delete_range("y".."x").unwrap(), 0);
    rises(kv.write(Batch::new()).unwrap(), 0);
    rises(kv.update("gone", |_| None::<&str>).unwrap().seq, 0);
}

pub fn update_makes_changes_and_removes(kv: &impl Kv) {
    let made = kv.update("n", |old| {
        assert_eq!(old, None);
        Some("1")
    });
    let made = made.unwrap();
    assert_eq!((made.old, made.new), (None, Some("1".into())));
    kv.flush().unwrap();
    let changed = kv
        .update("n", |old| Some([old.unwrap(), b"2"].concat()))
        .unwrap();
    assert_eq!(
        (changed.old, changed.new),
        (Some("1".into()), Some("12".into()))
    );
    let kept = kv.update("n", |old| old.map(<[u8]>::to_vec)).unwrap();
    assert_eq!(kept.old, kept.new);
    let removed = kv.update("n", |_| None::<&str>).unwrap();
    assert_eq!((removed.old, removed.new), (Some("12".into()), None));
    assert_eq!(kv.get("n").unwrap(), None);
    assert!(kv.update(vec![0; 65_536], |_| Some("v")).is_err());
    assert!(kv.is_empty().unwrap());
}

pub fn comparing_and_swapping(kv: &impl Kv) {
    let none = None::<&str>;
    assert!(kv.compare_and_swap("k", none, Some("1")).unwrap().is_ok());
    let taken = kv
        .compare_and_swap("k", none, Some("2"))
        .unwrap()
        .unwrap_err();
    assert_eq!(taken.current, Some("1".into()));
    let other = kv
        .compare_and_swap("k", Some("0"), Some("2"))
        .unwrap()
        .unwrap_err();
    assert_eq!(other.current, Some("1".into()));
    kv.flush().unwrap();
    assert!(
        kv.compare_and_swap("k", Some("1"), Some("2"))
            .unwrap()
            .is_ok()
    );
    assert!(
        kv.compare_and_swap("k", Some("2"), Some("2"))
            .unwrap()
            .is_ok()
    );
    assert!(kv.compare_and_swap("k", Some("2"), none).unwrap().is_ok());
    assert!(kv.compare_and_swap("k", none, none).unwrap().is_ok());
    let absent = kv
        .compare_and_swap("k", Some("2"), none)
        .unwrap()
        .unwrap_err();
    assert_eq!(absent.current, None);

    assert!(kv.put_if_absent("k", "3").unwrap().is_ok());
    let there = kv.put_if_absent("k", "4").unwrap().unwrap_err();
    assert_eq!(there.current, Some("3".into()));
    assert_eq!(kv.get("k").unwrap().unwrap(), "3");
}

pub fn remove_and_pops_return_what_was_there(kv: &impl Kv) {
    assert_eq!(kv.remove("a").unwrap(), None);
    assert_eq!(
        (kv.pop_first().unwrap(), kv.pop_last().unwrap()),
        (None, None)
    );
    for n in 0..100u8 {
        kv.put([n], [n; 3]).unwrap();
        if n == 50 {
            kv.flush().unwrap();
        }
    }
    assert_eq!(kv.remove([50]).unwrap().unwrap(), [50; 3]);
    assert_eq!(kv.remove([50]).unwrap(), None);
    for n in 0..50u8 {
        let (key, value) = kv.pop_first().unwrap().unwrap();
        assert_eq!((&*key, &*value), (&[n][..], &[n; 3][..]));
        if n < 49 {
            let (key, value) = kv.pop_last().unwrap().unwrap();
            assert_eq!((&*key, &*value), (&[99 - n][..], &[99 - n; 3][..]));
        }
    }
    assert_eq!(
        (kv.pop_first().unwrap(), kv.pop_last().unwrap()),
        (None, None)
    );
    assert!(kv.is_empty().unwrap());
}

pub fn retain_removes_what_is_not_wanted(kv: &impl Kv) {
    let entries = (0..3000u32).map(|n| (n.to_be_bytes().to_vec(), vec![n as u8; 40]));
    for (key, value) in entries.clone() {
        kv.put(key, value).unwrap();
    }
    let before = kv.snapshot();
    let mut seen = 0;
    let keep = |key: &[u8]| key[3].is_multiple_of(3);
    let removed = kv.retain(|key, value| {
        seen += 1;
        assert_eq!(value, [key[3]; 40]);
        keep(key)
    });
    let expected: std::collections::BTreeMap<_, _> = entries.filter(|(key, _)| keep(key)).collect();
    assert_eq!(removed.unwrap(), 3000 - expected.len() as u64);
    assert!(seen >= 3000);
    assert_holds(kv, &expected);
    assert_eq!(before.len().unwrap(), 3000);
    assert_eq!(kv.retain(|_, _| true).unwrap(), 0);
    assert_eq!(kv.retain(|_, _| false).unwrap(), expected.len() as u64);
    assert!(kv.is_empty().unwrap());
}

/// The example of `Kv` lost updates: 4 threads counted to 31,328 instead of 80,000.
pub fn threads_that_count_lose_nothing(kv: &(impl Kv + Sync)) {
    const THREADS: u64 = 4;
    const EACH: u64 = 300;
    let increment = |counter: &str| {
        kv.update(counter, |old| {
            let old = old.map_or(0, |old| u64::from_le_bytes(old.try_into().unwrap()));
            Some((old + 1).to_le_bytes())
        })
        .unwrap();
    };
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            scope.spawn(move || {
                for n in 0..EACH {
                    increment("shared");
                    increment(&format!("own {thread}"));
                    if n % 50 == 0 {
                        // A plain write beside them is not lost either.
                        kv.put(format!("plain {thread} {n}"), "").unwrap();
                    }
                }
            });
        }
    });
    let count =
        |key: &str| u64::from_le_bytes(kv.get(key).unwrap().unwrap()[..].try_into().unwrap());
    assert_eq!(count("shared"), THREADS * EACH);
    for thread in 0..THREADS {
        assert_eq!(count(&format!("own {thread}")), EACH);
    }
    assert_eq!(kv.prefix("plain").try_count().unwrap(), THREADS * EACH / 50);
}

pub fn no_entry_is_popped_twice(kv: &(impl Kv + Sync)) {
    const ENTRIES: u32 = 400;
    let taken = Mutex::new(BTreeSet::new());
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0..ENTRIES {
                kv.put(n.to_be_bytes(), "").unwrap();
            }
            is_over.store(true, Ordering::Release);
        });
        for thread in 0..3 {
            let (taken, is_over) = (&taken, &is_over);
            scope.spawn(move || {
                loop {
                    let over = is_over.load(Ordering::Acquire);
                    let popped = match thread {
                        0 => kv.pop_last().unwrap(),
                        _ => kv.pop_first().unwrap(),
                    };
                    match popped {
                        Some((key, _)) => assert!(taken.lock().unwrap().insert(key.to_vec())),
                        None if over => break,
                        None => std::thread::yield_now(),
                    }
                }
            });
        }
    });
    assert_eq!(taken.lock().unwrap().len(), ENTRIES as usize);
    assert!(kv.is_empty().unwrap());
}
