//! Random operations with merges and values that expire, on both engines and the model, by one
//! clock.

use std::time::Duration;

use hedgerow::{Batch, EngineKind, Keyspace, KeyspaceOptions, Kv, KvRead, Model, Value};
use support::random::{Random, Source};
use support::rig::{effort, figure};

use super::{World, expiring, keyspace, tiny};

const CASES: u64 = 24;
const STEPS: u64 = 600;

fn key(random: &mut Random) -> Vec<u8> {
    format!("key {:02}", random.below(40)).into_bytes()
}

/// A write, the same for any store.
#[derive(Debug, Clone)]
enum Edit {
    Put(Vec<u8>, Vec<u8>),
    PutFor(Vec<u8>, Vec<u8>, u64),
    Merge(Vec<u8>, Vec<u8>),
    Delete(Vec<u8>),
    DeleteRange(Vec<u8>, Vec<u8>),
}

impl Edit {
    fn draw(random: &mut Random, step: u64) -> Self {
        let value = format!("{step}")
            .repeat(1 + random.below(6) as usize)
            .into_bytes();
        match random.below(20) {
            0..5 => Self::Put(key(random), value),
            5..9 => Self::PutFor(key(random), value, 1 + random.below(400)),
            9..17 => Self::Merge(key(random), value),
            17..19 => Self::Delete(key(random)),
            _ => Self::DeleteRange(key(random), key(random)),
        }
    }

    fn add_to(&self, batch: &mut Batch) {
        match self {
            Self::Put(key, value) => batch.put(key, value),
            Self::PutFor(key, value, ms) => {
                batch.put_with_ttl(key, value, Duration::from_millis(*ms));
            }
            Self::Merge(key, operand) => batch.merge(key, operand),
            Self::Delete(key) => batch.delete(key),
            Self::DeleteRange(start, end) => batch.delete_range(start..end),
        }
    }

    fn apply(&self, kv: &impl Kv) {
        match self {
            Self::Put(key, value) => kv.put(key, value),
            Self::PutFor(key, value, ms) => kv.put_with_ttl(key, value, Duration::from_millis(*ms)),
            Self::Merge(key, operand) => kv.merge(key, operand),
            Self::Delete(key) => kv.delete(key),
            Self::DeleteRange(start, end) => kv.delete_range(start..end),
        }
        .unwrap();
    }
}

fn entries(kv: &impl KvRead) -> Vec<(Value, Value)> {
    let forward: Vec<_> = kv.iter().map(Result::unwrap).collect();
    let mut backward: Vec<_> = kv.iter().rev().map(Result::unwrap).collect();
    backward.reverse();
    assert!(forward == backward);
    forward
}

#[track_caller]
fn compare(found: &impl KvRead, expected: &impl KvRead, random: &mut Random, label: &str) {
    match random.below(3) {
        0 => {
            let (a, b) = (key(random), key(random));
            let scan = |scan: hedgerow::Scan| -> Vec<_> { scan.map(Result::unwrap).collect() };
            let (found, expected) = (found.range(&a..&b), expected.range(&a..&b));
            assert_eq!(scan(found), scan(expected), "{label}");
        }
        1 => {
            let keys: Vec<_> = (0..10).map(|_| key(random)).collect();
            let wanted = expected.multi_get(&keys).unwrap();
            assert_eq!(found.multi_get(&keys).unwrap(), wanted, "{label}");
            assert_eq!(found.get(&keys[0]).unwrap(), wanted[0], "{label}");
        }
        _ => assert_eq!(entries(found), entries(expected), "{label}"),
    }
}

fn options(random: &mut Random, engine: EngineKind) -> KeyspaceOptions {
    let options = expiring(engine).merge_operator("append");
    match random.below(3) {
        0 => options,
        n => options.default_ttl(Duration::from_millis(200 * n)),
    }
}

fn live(engine: EngineKind, seed: u64) -> u64 {
    let mut random = Random::new(seed);
    let mut world = World::new();
    let mut db = world.open();
    let options = options(&mut random, engine);
    let mut data: Keyspace = keyspace(&db, options.clone());
    let model = Model::with_options(&world.options(), &options).unwrap();
    let mut snapshots = Vec::new();
    let mut operations = 0;
    for step in 0..STEPS {
        let label = format!("{engine} seed {seed} step {step}");
        match random.below(100) {
            0..55 => {
                let edit = Edit::draw(&mut random, step);
                edit.apply(&data);
                edit.apply(&model);
                operations += 1;
            }
            55..62 => {
                let mut batch = Batch::new();
                for _ in 0..random.below(12) {
                    Edit::draw(&mut random, step).add_to(&mut batch);
                    operations += 1;
                }
                data.write(batch.clone()).unwrap();
                model.write(batch).unwrap();
            }
            62..72 => world.advance_ms(random.below(60)),
            72..80 => compare(&data, &model, &mut random, &label),
            80..83 => snapshots.push((data.snapshot(), model.snapshot())),
            83..88 if !snapshots.is_empty() => {
                let at = random.below(snapshots.len() as u64) as usize;
                let (found, expected) = &snapshots[at];
                compare(found, expected, &mut random, &label);
                if random.one_in(2) {
                    snapshots.swap_remove(at);
                }
            }
            88..90 => data.flush().unwrap(),
            90 => data.compact().unwrap(),
            91..97 => {
                for _ in 0..random.below(4) {
                    db.run_background_once().unwrap();
                }
            }
            97 => assert_eq!(db.verify().unwrap().problems, [], "{label}"),
            98 => {
                // A crash that loses nothing, or the end of the process.
                snapshots.clear();
                db.sync().unwrap();
                let fs = match random.one_in(2) {
                    true => world.fs.crash(),
                    false => world.fs.clone(),
                };
                drop((data, db));
                world.fs = fs;
                db = world.open();
                data = keyspace(&db, tiny(engine));
                assert_eq!(entries(&data), entries(&model), "{label}");
            }
            _ => {
                let key = key(&mut random);
                let expected = model.expires_at(&key).unwrap();
                assert_eq!(data.expires_at(&key).unwrap(), expected, "{label}");
            }
        }
    }
    drop(snapshots);
    data.compact().unwrap();
    assert_eq!(entries(&data), entries(&model), "{engine} seed {seed}");
    let left = data.stats().entries_estimate;
    assert_eq!(
        left,
        model.len().unwrap(),
        "{engine} seed {seed}: nothing else is left"
    );
    operations
}

#[test]
fn both_engines_agree_with_the_model() {
    let cases = CASES * effort();
    let mut operations = 0;
    for seed in 0..cases {
        for engine in EngineKind::ALL {
            operations += live(engine, seed);
        }
    }
    figure("operations with merges and expiry", operations);
}
