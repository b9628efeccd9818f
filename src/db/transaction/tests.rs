//! The cursor of a transaction against an ordered map: where it stands, and what it says that it
//! has passed.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;

use super::own_writes::{Own, OwnWrites, Undo};
use super::read_set::ReadSet;
use super::view::transaction_view;
use crate::db::{Db, Keyspace};
use crate::engine::{Cursor, Overlay, ReadView};
use crate::fs::SimFs;
use crate::kv::Kv;
use crate::options::{EngineKind, Options};
use crate::resolve::Append;
use crate::testing::Random;
use crate::types::{KeyRange, Value};

type Map = BTreeMap<Vec<u8>, Value>;

/// Keys of the test. Others lie between them.
fn key(n: u64) -> Vec<u8> {
    vec![b'a' + n as u8]
}

const KEYS: u64 = 16;

/// The keys that are in a range.
fn within(range: &KeyRange) -> BTreeSet<Vec<u8>> {
    let has = |key: &Vec<u8>| *key >= range.start && range.end.as_ref().is_none_or(|end| key < end);
    (0..KEYS).map(key).filter(has).collect()
}

struct Case {
    base: Arc<dyn ReadView>,
    own: OwnWrites,
    map: Map,
}

/// A snapshot with random entries, and random writes over it.
fn random_case(keyspace: &Keyspace, random: &mut Random) -> Case {
    keyspace.clear().unwrap();
    let mut map = Map::new();
    for n in 0..KEYS {
        if random.one_in(2) {
            keyspace.put(key(n), [n as u8]).unwrap();
            map.insert(key(n), Value::copy_from(&[n as u8]));
        }
    }
    let base = Arc::new(Kv::snapshot(keyspace));
    let mut own = OwnWrites::default();
    for _ in 0..random.below(8) {
        let at = random.below(KEYS);
        match random.below(6) {
            0 => {
                own.write(&key(at), Own::Deleted);
                map.remove(&key(at));
            }
            1 => {
                let range = KeyRange::new(&(key(at)..key(at + random.below(5))));
                for key in within(&range) {
                    map.remove(&key);
                }
                own.remove(range);
            }
            2 | 3 => {
                let operand = [200 + at as u8];
                match own.merged(&Append, usize::MAX, &key(at), &operand) {
                    Some(merged) => own.write(&key(at), merged),
                    None => own.push_operand(&key(at), &operand),
                };
                own.use_operator(&(Arc::new(Append) as _), 10_000);
                let old = map.get(&key(at)).map_or(&[][..], |value| value);
                let value = Value::from([old, &operand].concat());
                map.insert(key(at), value);
            }
            _ => {
                let value = Value::copy_from(&[100 + at as u8]);
                own.write(&key(at), Own::Put(value.clone(), None));
                map.insert(key(at), value);
            }
        }
    }
    Case { base, own, map }
}

/// Where a move of a cursor looks for an entry.
type Bounds = (Bound<Vec<u8>>, Bound<Vec<u8>>);

/// Moves a cursor that stands at `at` at random, as scans do, which are positioned within their
/// range. Returns whether that was forwards, and where it looked.
fn step(
    cursor: &mut dyn Cursor,
    at: Option<&Vec<u8>>,
    range: &KeyRange,
    random: &mut Random,
) -> Option<(bool, Bounds)> {
    let target = key(random.below(KEYS)).max(range.start.clone());
    let target = match &range.end {
        Some(end) => target.min(end.clone()),
        None => target,
    };
    Some(match (random.below(6), at) {
        (0, _) if range.start.is_empty() => {
            cursor.seek_first().unwrap();
            (true, (Bound::Unbounded, Bound::Unbounded))
        }
        (1, _) if range.end.is_none() => {
            cursor.seek_last().unwrap();
            (false, (Bound::Unbounded, Bound::Unbounded))
        }
        (2, _) => {
            cursor.seek(&target).unwrap();
            (true, (Bound::Included(target), Bound::Unbounded))
        }
        (3, _) => {
            cursor.seek_before(&target).unwrap();
            (false, (Bound::Unbounded, Bound::Excluded(target)))
        }
        (4, Some(at)) => {
            cursor.prev().unwrap();
            (false, (Bound::Unbounded, Bound::Excluded(at.clone())))
        }
        (5, Some(at)) => {
            cursor.next().unwrap();
            (true, (Bound::Excluded(at.clone()), Bound::Unbounded))
        }
        _ => return None,
    })
}

/// Moves a cursor at random within `range`, and returns the keys that it has passed.
fn walk(
    cursor: &mut dyn Cursor,
    map: &Map,
    range: &KeyRange,
    random: &mut Random,
) -> BTreeSet<Vec<u8>> {
    let keys = within(range);
    let mut passed = BTreeSet::new();
    let mut at: Option<Vec<u8>> = None;
    for _ in 0..16 {
        let Some((is_forward, looked)) = step(cursor, at.as_ref(), range, random) else {
            continue;
        };
        let mut beyond = map.range::<Vec<u8>, _>(looked.clone());
        let expected = match is_forward {
            true => beyond.next(),
            false => beyond.next_back(),
        };
        // Outside of the range the cursor may stand nowhere.
        let expected = expected.filter(|(key, _)| keys.contains(*key));
        let stands = cursor.is_valid() && keys.contains(cursor.key());
        assert_eq!(stands, expected.is_some());
        if let Some((key, value)) = expected {
            assert_eq!(cursor.entry().unwrap(), (&key[..], &value[..]));
        }
        at = expected.map(|(key, _)| key.clone());
        let end = at.clone().map_or(Bound::Unbounded, Bound::Included);
        let (from, upto) = match is_forward {
            true => (looked.0, end),
            false => (end, looked.1),
        };
        let has = |key: &&Vec<u8>| {
            let is_behind = match &from {
                Bound::Included(from) => *key >= from,
                Bound::Excluded(from) => *key > from,
                Bound::Unbounded => true,
            };
            is_behind
                && match &upto {
                    Bound::Included(upto) => *key <= upto,
                    Bound::Excluded(upto) => *key < upto,
                    Bound::Unbounded => true,
                }
        };
        passed.extend(keys.iter().filter(has).cloned());
    }
    passed
}

fn check(engine: EngineKind) {
    let options = Options::new().fs(Arc::new(SimFs::new()));
    let db: Db = options.open(Path::new("/store")).unwrap();
    let keyspace = db.keyspace("a", engine).unwrap();
    let id = keyspace.open().id;
    for seed in 0..1500 {
        let mut random = Random::new(seed);
        let Case { base, own, map } = random_case(&keyspace, &mut random);
        let reads = Arc::new(ReadSet::default());
        let own = (!own.is_empty()).then(|| Arc::new(own));
        let view = transaction_view(base, own, Some((Arc::clone(&reads), id)));
        let mut cursor = view.cursor();
        let low = random.below(KEYS);
        let range = match random.below(3) {
            0 => KeyRange::new(&..),
            1 => KeyRange::new(&(key(low)..)),
            _ => KeyRange::new(&(key(low)..key(low + 1 + random.below(KEYS - low)))),
        };
        cursor.keep_within(&range);
        let passed = walk(&mut *cursor, &map, &range, &mut random);
        if random.one_in(2) {
            drop(cursor);
        }
        let tracked = reads.take();
        let is_tracked = |key: &Vec<u8>| tracked.iter().any(|(_, keys)| keys.contains(key));
        let tracked: BTreeSet<_> = (0..KEYS).map(key).filter(is_tracked).collect();
        assert_eq!(tracked, passed, "seed {seed}");
    }
}

#[test]
fn cursors_over_an_lsm_tree() {
    check(EngineKind::Lsm);
}

#[test]
fn cursors_over_a_btree() {
    check(EngineKind::BTree);
}

/// Each merge copied all operands, and after a savepoint the copies stayed.
#[test]
fn merges_are_taken_back_one_by_one() {
    let mut own = OwnWrites::default();
    let mut undos = Vec::new();
    for n in 0..1000_u32 {
        undos.push(
            match own.merged(&Append, usize::MAX, b"k", &n.to_le_bytes()) {
                Some(merged) => own.write(b"k", merged),
                None => own.push_operand(b"k", &n.to_le_bytes()),
            },
        );
    }
    let copies = undos.iter().filter(|undo| matches!(undo, Undo::Key(..)));
    assert_eq!(copies.count(), 1, "only the first wrote the key anew");
    let of_all = own.len_bytes();
    undos.drain(400..).rev().for_each(|undo| own.undo(undo));
    assert_eq!(own.len_bytes(), of_all / 1000 * 400);
    own.use_operator(&(Arc::new(Append) as _), 10_000);
    assert_eq!(Overlay::merge(&own, b"k", None).len(), 4 * 400);
    undos.into_iter().rev().for_each(|undo| own.undo(undo));
    assert!(own.is_empty());
    assert_eq!(own.len_bytes(), 0);
}
