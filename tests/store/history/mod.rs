//! Histories: threads read and write a few keys of both engines, note when each call began and
//! ended and what it gave, and [`checker`] looks for one order of all calls that explains it.
//!
//! The object is the whole store. So this checks that single keys are linearizable, that batches
//! over both engines and range deletes happen at once, that `multi_get`, scans and snapshots see
//! the state between two commits, and that no read goes back behind what another one saw.
//! Snapshots are kept and read again later: they must not have changed.
//!
//! A run is cut into rounds, between which no call is running.

mod checker;

use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};

use hedgerow::{Db, Durability, EngineKind, Keyspace, MemtableKind, Snapshot};
use support::random::{Random, Source};
use support::rig::{Place, Rig, Sizes, effort, figure};

use self::checker::{Call, Cells, Effect, KEYS, State, linearize};

const THREADS: usize = 5;
/// Calls of a thread in a round: all threads together stay below what the checker takes.
const CALLS: u64 = 48;
/// Rounds of each configuration at the lowest effort.
const ROUNDS: u64 = 100;
/// Keys of each of the two keyspaces.
const EACH: usize = KEYS / 2;
/// Other keys of each, which stay as they are.
const NEIGHBOURS: u64 = 40;

/// A clock that all threads share: it orders what happened after something else ended.
#[derive(Debug, Default)]
struct Clock(AtomicU64);

impl Clock {
    fn tick(&self) -> u64 {
        self.0.fetch_add(1, Ordering::SeqCst) + 1
    }
}

/// The store as the checker sees it: eight keys, four of each keyspace.
struct Object {
    db: Db,
    keyspaces: [Keyspace; 2],
    clock: Clock,
    /// Every value is written once.
    next_value: AtomicU64,
}

fn name(key: usize) -> String {
    // Neighbours, so that they share leaves and blocks.
    format!("key {}", key % EACH)
}

fn encode(value: u64) -> Vec<u8> {
    // Long enough to fill write buffers within a round or two.
    value.to_le_bytes().repeat(8)
}

fn decode(bytes: Option<&[u8]>) -> u64 {
    bytes.map_or(0, |bytes| {
        let value = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes"));
        assert_eq!(bytes, encode(value), "a torn value");
        value
    })
}

fn neighbour(n: u64) -> String {
    format!("a {n}")
}

/// What was found under the names of one keyspace's keys. All of their neighbours must be there,
/// and nothing else.
fn cells_of(keyspace: usize, found: impl Iterator<Item = (Vec<u8>, u64)>) -> Cells {
    let first = keyspace * EACH;
    let mut cells: Cells = (first..first + EACH).map(|key| (key, 0)).collect();
    let mut others = Vec::new();
    for (found, value) in found {
        let cell = cells
            .iter_mut()
            .find(|(key, _)| name(*key).as_bytes() == found);
        match cell {
            Some((_, cell)) => *cell = value,
            None => others.push((String::from_utf8_lossy(&found).into_owned(), value)),
        }
    }
    let mut neighbours: Vec<_> = (0..NEIGHBOURS).map(|n| (neighbour(n), n + 1)).collect();
    neighbours.sort();
    assert_eq!(others, neighbours, "what no call has changed");
    cells
}

impl Object {
    fn keyspace(&self, key: usize) -> &Keyspace {
        &self.keyspaces[key / EACH]
    }

    fn fresh(&self) -> u64 {
        self.next_value.fetch_add(1, Ordering::Relaxed)
    }

    /// Makes a call and notes when it ran.
    fn call(&self, thread: usize, run: impl FnOnce() -> Effect) -> Call {
        let invoked = self.clock.tick();
        let effect = run();
        Call {
            thread,
            invoked,
            returned: self.clock.tick(),
            effect,
        }
    }

    /// One random call.
    fn random_call(&self, thread: usize, random: &mut Random, held: &mut Held) -> Option<Call> {
        let key = random.below(KEYS as u64) as usize;
        let durability =
            *random.pick(&[Durability::Buffered, Durability::Buffered, Durability::Sync]);
        let keyspace = self.keyspace(key).with_durability(durability);
        Some(match random.weighted(&[30, 8, 12, 3, 30, 6, 5, 8, 1]) {
            0 => {
                let value = self.fresh();
                self.call(thread, || {
                    keyspace.put(name(key), encode(value)).unwrap();
                    Effect::Write(vec![(key, value)])
                })
            }
            1 => self.call(thread, || {
                keyspace.delete(name(key)).unwrap();
                Effect::Write(vec![(key, 0)])
            }),
            2 => {
                let mut cells = Cells::new();
                let mut batch = self.db.batch();
                for _ in 0..1 + random.below(4) {
                    let key = random.below(KEYS as u64) as usize;
                    if random.one_in(5) {
                        batch.delete(self.keyspace(key), name(key));
                        cells.push((key, 0));
                    } else {
                        let value = self.fresh();
                        batch.put(self.keyspace(key), name(key), encode(value));
                        cells.push((key, value));
                    }
                }
                self.call(thread, || {
                    self.db.write(batch, durability).unwrap();
                    Effect::Write(cells)
                })
            }
            3 => {
                // From this key to the last one of its keyspace.
                let end = (key / EACH + 1) * EACH;
                self.call(thread, || {
                    keyspace.delete_range(name(key)..).unwrap();
                    Effect::Write((key..end).map(|key| (key, 0)).collect())
                })
            }
            4 => self.call(thread, || {
                let value = keyspace.get(name(key)).unwrap();
                Effect::Read(vec![(key, decode(value.as_deref()))])
            }),
            5 => self.call(thread, || {
                let first = key / EACH * EACH;
                let names: Vec<_> = (first..first + EACH).map(name).collect();
                let values = keyspace.multi_get(&names).unwrap();
                let values = values.iter().map(|value| decode(value.as_deref()));
                Effect::Read((first..).zip(values).collect())
            }),
            6 => self.call(thread, || {
                let found = scan(keyspace.iter(), key.is_multiple_of(2));
                Effect::Read(cells_of(key / EACH, found))
            }),
            7 => {
                let mut taken = None;
                let call = self.call(thread, || {
                    let snapshot = self.db.snapshot();
                    let cells = self.read(&snapshot, key.is_multiple_of(2));
                    taken = Some((snapshot, cells.clone()));
                    Effect::Read(cells)
                });
                held.extend(taken);
                call
            }
            _ => {
                match random.below(3) {
                    0 => keyspace.flush().unwrap(),
                    1 => keyspace.compact().unwrap(),
                    _ => drop(self.db.run_background_once().unwrap()),
                }
                return None;
            }
        })
    }

    /// Everything in a snapshot, by scans or by point reads.
    fn read(&self, snapshot: &Snapshot, by_scans: bool) -> Cells {
        if !by_scans {
            return (0..KEYS)
                .map(|key| {
                    let value = snapshot.get(self.keyspace(key), name(key)).unwrap();
                    (key, decode(value.as_deref()))
                })
                .collect();
        }
        let cells = (0..2).map(|at| {
            let found = scan(snapshot.iter(&self.keyspaces[at]), at == 0);
            cells_of(at, found)
        });
        cells.collect::<Vec<_>>().concat()
    }
}

/// What a scan finds, in one direction or the other.
fn scan(scan: hedgerow::Scan, backwards: bool) -> impl Iterator<Item = (Vec<u8>, u64)> {
    let mut items: Vec<_> = if backwards {
        scan.rev().map(Result::unwrap).collect()
    } else {
        scan.map(Result::unwrap).collect()
    };
    if backwards {
        items.reverse();
    }
    assert!(items.is_sorted_by(|a, b| *a.0 < *b.0), "out of order");
    items
        .into_iter()
        .map(|(key, value)| (key.to_vec(), decode(Some(&value))))
}

/// Snapshots and what was in them.
type Held = Vec<(Snapshot, Cells)>;

/// One round: its calls, in no particular order.
fn round(object: &Object, seed: u64, held: &mut [Held; THREADS]) -> Vec<Call> {
    let start = Barrier::new(THREADS);
    let mut calls = std::thread::scope(|scope| {
        let threads: Vec<_> = held
            .iter_mut()
            .enumerate()
            .map(|(thread, held)| {
                let start = &start;
                scope.spawn(move || {
                    let mut random = Random::new(seed * THREADS as u64 + thread as u64);
                    start.wait();
                    // A snapshot of an earlier round, after what happened since.
                    if held.len() > 4 {
                        let (snapshot, cells) = held.remove(0);
                        let again = object.read(&snapshot, random.one_in(2));
                        assert_eq!(again, cells, "seed {seed}: a snapshot has changed");
                    }
                    (0..CALLS)
                        .filter_map(|_| object.random_call(thread, &mut random, held))
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        let mut calls = Vec::new();
        for thread in threads {
            match thread.join() {
                Ok(some) => calls.extend(some),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        calls
    });
    calls.push(object.call(THREADS, || {
        Effect::Read(object.read(&object.db.snapshot(), seed.is_multiple_of(2)))
    }));
    calls
}

/// Runs rounds on a store, and returns the number of calls.
fn run(mut rig: Rig, rounds: u64, first_seed: u64) -> u64 {
    let keyspaces = [
        rig.keyspace("lsm", EngineKind::Lsm),
        rig.keyspace("btree", EngineKind::BTree),
    ];
    // Neighbours that stay, so that there is something to flush, split and merge.
    for keyspace in &keyspaces {
        for n in 0..NEIGHBOURS {
            keyspace.put(neighbour(n), encode(n + 1)).unwrap();
        }
    }
    let object = Object {
        db: rig.db().clone(),
        keyspaces,
        clock: Clock::default(),
        next_value: AtomicU64::new(1000),
    };
    let mut held: [Held; THREADS] = Default::default();
    let mut state: State = [0; KEYS];
    let mut count = 0;
    for seed in first_seed..first_seed + rounds {
        let calls = round(&object, seed, &mut held);
        count += calls.len() as u64;
        match linearize(state, &calls) {
            Ok(after) => state = after,
            Err(reason) => panic!("seed {seed}: {reason}"),
        }
    }
    assert!(object.db.verify().unwrap().is_clean());
    count
}

/// An entry that no call has written is noticed, and so is one that is gone.
#[test]
fn cells_are_of_known_keys_alone() {
    let mut right: Vec<_> = (0..NEIGHBOURS)
        .map(|n| (neighbour(n).into_bytes(), n + 1))
        .collect();
    right.sort();
    right.push((name(EACH + 1).into_bytes(), 7));
    let read = |found: &[(Vec<u8>, u64)]| {
        let found = found.to_vec();
        std::panic::catch_unwind(|| cells_of(1, found.into_iter())).ok()
    };
    let cells = vec![(EACH, 0), (EACH + 1, 7), (EACH + 2, 0), (EACH + 3, 0)];
    assert_eq!(read(&right), Some(cells));
    let mut spurious = right.clone();
    spurious.push((b"key 9".to_vec(), 7));
    assert_eq!(read(&spurious), None);
    let mut old = right.clone();
    old[3].1 += 1;
    assert_eq!(read(&old), None);
    assert_eq!(read(&right[1..]), None);
}

#[test]
fn histories_are_linearizable() {
    let rounds = ROUNDS * effort();
    let tiny = |place| Rig::new(place, Sizes::Tiny);
    let mut count = run(tiny(Place::Memory), rounds, 0);
    count += run(
        tiny(Place::Memory)
            .with_memtable(MemtableKind::SkipList)
            .with(|options| options.background_threads(2).cache_bytes(0)),
        rounds,
        1 << 32,
    );
    // A disk makes those wait that sync, so there are fewer rounds with one.
    count += run(tiny(Place::Disk), rounds / 5, 2 << 32);
    figure("history operations", count);
}
