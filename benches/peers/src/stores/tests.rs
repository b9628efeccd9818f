//! Every adapter answers as the model does, whichever store is behind it.

use hedgerow::{Compression, Durability};
use hedgerow_bench::{Direction, ModelTarget, Rng, Target, TargetOptions};

use super::all;

const KEYS: u64 = 300;

fn key(number: u64) -> Vec<u8> {
    format!("key{number:05}").into_bytes()
}

fn value(rng: &mut Rng) -> Vec<u8> {
    let number = rng.below(1 << 40);
    // Some are as long as a page, so that they do not share one.
    format!("{number:x}")
        .repeat(1 + (number % 400) as usize)
        .into_bytes()
}

/// The entries of one scan.
fn entries(
    target: &dyn Target,
    start: Option<&[u8]>,
    direction: Direction,
    limit: u64,
) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut entries = Vec::new();
    let seen = target
        .scan(start, direction, limit, &mut |key, value| {
            entries.push((key.to_vec(), value.to_vec()));
        })
        .unwrap();
    assert_eq!(seen, entries.len() as u64);
    entries
}

/// Every kind of read on both, which must give the same.
fn assert_same(target: &dyn Target, model: &dyn Target, when: &str) {
    let get = |target: &dyn Target, key: &[u8]| {
        let mut value = None;
        let found = target
            .get(key, &mut |bytes| value = Some(bytes.to_vec()))
            .unwrap();
        assert_eq!(found, value.is_some(), "{} {when}", target.name());
        value
    };
    for number in 0..=KEYS {
        let key = key(number);
        assert!(
            get(target, &key) == get(model, &key),
            "{} {when}: {}",
            target.name(),
            key.escape_ascii()
        );
    }
    let starts = [None, Some(key(0)), Some(key(KEYS / 2)), Some(key(KEYS + 7))];
    for start in &starts {
        for direction in [Direction::Forward, Direction::Reverse] {
            for limit in [0, 1, 10, u64::MAX] {
                let scan = |target| entries(target, start.as_deref(), direction, limit);
                assert!(
                    scan(target) == scan(model),
                    "{} {when}: scan from {start:?}, {direction:?}, of {limit}",
                    target.name()
                );
            }
        }
    }
}

#[test]
fn every_store_answers_as_the_model() {
    for store in all() {
        let dir = tempfile::tempdir().unwrap();
        let model = ModelTarget::open(dir.path(), &TargetOptions::default()).unwrap();
        let mut rng = Rng::new(7);
        // Opened twice, so that what the first wrote is there for the second, on disk as well.
        for (durability, compression) in [
            (Durability::Buffered, Compression::Lz4),
            (Durability::Sync, Compression::None),
        ] {
            let options = TargetOptions {
                durability,
                compression,
                cache_bytes: 32 << 20,
                write_buffer_bytes: 1 << 20,
                ..TargetOptions::default()
            };
            let target = (store.open)(dir.path(), &options).unwrap();
            assert_eq!(target.name(), store.subject.name);
            assert!(!target.settings().is_empty());
            assert_same(&*target, &*model, "after it was opened");
            let both = [&*target, &*model];
            for _ in 0..100 {
                let (key, value) = (key(rng.below(KEYS)), value(&mut rng));
                for target in both {
                    target.put(&key, &value).unwrap();
                }
            }
            let batch: Vec<_> = (0..KEYS)
                .step_by(3)
                .map(|number| (key(number), value(&mut rng)))
                .collect();
            for target in both {
                target.put_batch(&batch).unwrap();
            }
            for _ in 0..50 {
                let key = key(rng.below(KEYS));
                for target in both {
                    target.delete(&key).unwrap();
                }
            }
            assert_same(&*target, &*model, "after writes");
            target.wait_idle().unwrap();
            assert_same(&*target, &*model, "at rest");
        }
    }
}

#[test]
fn threads_that_write_the_same_keys_all_succeed() {
    const THREADS: u64 = 4;
    for store in all() {
        let dir = tempfile::tempdir().unwrap();
        let target = (store.open)(dir.path(), &TargetOptions::default()).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let target = &target;
                scope.spawn(move || {
                    for number in 0..200 {
                        let value = format!("{thread} {number}");
                        target.put(&key(number % 2), value.as_bytes()).unwrap();
                    }
                });
            }
        });
        // The last commit of each key is the last one of some thread.
        for number in [0, 1] {
            let mut last = Vec::new();
            let found = target
                .get(&key(number), &mut |value| last = value.to_vec())
                .unwrap();
            let ends = (0..THREADS).map(|thread| format!("{thread} {}", 198 + number));
            assert!(found, "{}", store.subject.name);
            assert!(
                ends.map(String::into_bytes).any(|end| end == last),
                "{}: {}",
                store.subject.name,
                last.escape_ascii()
            );
        }
    }
}
