//! Random transactions, and what they noted of each step.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;

use hedgerow::{
    Db, Durability, Isolation, Keyspace, Savepoint, Scan, SeqNo, Transaction, TransactionOptions,
};
use support::random::{Random, Source};

use super::fresh;

pub const KEYSPACES: usize = 3;
/// Keys of each keyspace; few enough for a set of them to be a number.
pub const KEYS: usize = 24;

/// A set of the keys of each keyspace.
pub type Sets = [u64; KEYSPACES];

/// The key of that number. Of different lengths, one of them a prefix of the others.
pub fn key(at: usize) -> String {
    format!("k{}{}", (b'a' + (at / 2) as u8) as char, "0".repeat(at % 2))
}

pub fn encode(value: u64) -> Vec<u8> {
    // Long enough to fill write buffers within a round or two.
    value.to_le_bytes().repeat(6)
}

pub fn decode(bytes: &[u8]) -> u64 {
    let value = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes"));
    assert_eq!(bytes, encode(value), "a torn value");
    value
}

/// The keys `low..high` as a set.
pub fn set_of(low: usize, high: usize) -> u64 {
    (low..high).map(|at| 1 << at).sum()
}

/// A step of a transaction, with what it gave. `Option<u64>` is a value, or none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    Get {
        keyspace: usize,
        key: usize,
        found: Option<u64>,
        is_tracked: bool,
    },
    Scan {
        keyspace: usize,
        low: usize,
        high: usize,
        is_backward: bool,
        found: Vec<(usize, u64)>,
        /// It was taken no further.
        is_cut: bool,
        is_tracked: bool,
    },
    Write {
        keyspace: usize,
        key: usize,
        value: Option<u64>,
    },
    DeleteRange {
        keyspace: usize,
        low: usize,
        high: usize,
    },
    /// With its number, from zero.
    Savepoint(usize),
    RollbackTo(usize),
}

/// A transaction that has ended, or another commit.
#[derive(Debug, Clone)]
pub struct Record {
    pub is_transaction: bool,
    pub isolation: Isolation,
    /// The moment that it read.
    pub began: SeqNo,
    /// Its place in the order of commits; `None` if it met a conflict.
    pub seq: Option<SeqNo>,
    pub steps: Vec<Step>,
    /// What its commit depends on.
    pub depends_on: Sets,
    /// What it has written.
    pub wrote: Sets,
}

/// What a transaction has written so far, and its savepoints.
#[derive(Default)]
struct Written {
    sets: Sets,
    savepoints: Vec<(usize, Savepoint, Sets)>,
    made: usize,
}

/// Runs transactions on a store.
pub struct Runner<'a> {
    pub db: &'a Db,
    pub keyspaces: &'a [Keyspace; KEYSPACES],
    pub next_value: &'a AtomicU64,
}

impl Runner<'_> {
    /// A put, a delete, an update or a range delete outside of a transaction.
    pub fn plain_write(&self, random: &mut Random, durability: Durability) -> Record {
        let keyspace = random.below(KEYSPACES as u64) as usize;
        let at = random.below(KEYS as u64) as usize;
        let handle = self.keyspaces[keyspace].with_durability(durability);
        let mut wrote = Sets::default();
        let (step, seq) = match random.weighted(&[6, 3, 1]) {
            0 => {
                let value = fresh(self.next_value);
                wrote[keyspace] = set_of(at, at + 1);
                let seq = handle.put(key(at), encode(value)).unwrap();
                let value = Some(value);
                let step = Step::Write {
                    keyspace,
                    key: at,
                    value,
                };
                (step, seq)
            }
            1 => {
                let value = fresh(self.next_value);
                wrote[keyspace] = set_of(at, at + 1);
                let update = handle.update(key(at), |_| Some(encode(value))).unwrap();
                let value = Some(value);
                let step = Step::Write {
                    keyspace,
                    key: at,
                    value,
                };
                (step, update.seq)
            }
            _ => {
                let high = at + 1 + random.below(4) as usize;
                let high = high.min(KEYS);
                wrote[keyspace] = set_of(at, high);
                let seq = handle.delete_range(bounds(at, high)).unwrap();
                let low = at;
                let step = Step::DeleteRange {
                    keyspace,
                    low,
                    high,
                };
                (step, seq)
            }
        };
        Record {
            is_transaction: false,
            isolation: Isolation::Serializable,
            began: seq,
            seq: Some(seq),
            steps: vec![step],
            depends_on: Sets::default(),
            wrote,
        }
    }

    /// A random transaction from its beginning to its end.
    pub fn transaction(
        &self,
        random: &mut Random,
        options: TransactionOptions,
        isolation: Isolation,
        read_only: bool,
    ) -> Record {
        let tx = self.db.transaction_with(options).unwrap();
        let mut record = Record {
            is_transaction: true,
            isolation,
            began: tx.seq(),
            seq: None,
            steps: Vec::new(),
            depends_on: Sets::default(),
            wrote: Sets::default(),
        };
        let mut written = Written::default();
        // Scans that live until the commit: what they have passed counts.
        let mut held = Vec::new();
        let reads_weight = if read_only { 0 } else { 1 };
        for _ in 0..1 + random.below(9) {
            if random.one_in(3) {
                std::thread::yield_now();
            }
            let weights = [10, 6, 12, 3, 2, 2].map(|weight| weight * reads_weight);
            let weights = [10, 6, weights[2], weights[3], weights[4], weights[5]];
            match random.weighted(&weights) {
                0 => self.get(&tx, random, &mut record, &written, read_only),
                1 => held.extend(self.scan(&tx, random, &mut record)),
                2 => self.write(&tx, random, &mut record, &mut written),
                3 => self.delete_range(&tx, random, &mut record, &mut written),
                4 => {
                    let at = written.made;
                    written.made += 1;
                    let sets = written.sets;
                    written.savepoints.push((at, tx.savepoint(), sets));
                    record.steps.push(Step::Savepoint(at));
                }
                _ => {
                    if written.savepoints.is_empty() {
                        continue;
                    }
                    let index = random.below(written.savepoints.len() as u64) as usize;
                    written.savepoints.truncate(index + 1);
                    let (at, savepoint, sets) = written.savepoints[index];
                    tx.rollback_to(savepoint).unwrap();
                    written.sets = sets;
                    record.steps.push(Step::RollbackTo(at));
                }
            }
        }
        record.wrote = written.sets;
        if isolation == Isolation::Snapshot {
            for (depends_on, wrote) in record.depends_on.iter_mut().zip(record.wrote) {
                *depends_on |= wrote;
            }
        }
        match tx.commit() {
            Ok(seq) => record.seq = Some(seq),
            Err(error) => assert!(error.is_conflict(), "{error:#}"),
        }
        record
    }

    fn get(
        &self,
        tx: &Transaction,
        random: &mut Random,
        record: &mut Record,
        written: &Written,
        read_only: bool,
    ) {
        let at = random.below(KEYSPACES as u64) as usize;
        let keyspace = &self.keyspaces[at];
        let number = random.below(KEYS as u64) as usize;
        let name = key(number);
        let mut is_tracked = record.isolation == Isolation::Serializable;
        let mut is_own = written.sets[at] & set_of(number, number + 1) != 0;
        let found = match random.weighted(&[6, 2, 2, 2, u32::from(!read_only) * 2, 2]) {
            0 => tx.get(keyspace, &name).unwrap(),
            1 => {
                let get = tx.keyspace(keyspace).get_with(&name, <[u8]>::to_vec);
                get.unwrap().map(Into::into)
            }
            2 => {
                let whole = tx.keyspace(keyspace).get_range(&name, ..).unwrap();
                let found = tx.contains_key(keyspace, &name).unwrap();
                assert_eq!(found, whole.is_some());
                whole
            }
            3 => {
                let found = tx.keyspace(keyspace).multi_get(&[&name]).unwrap();
                found[0].clone()
            }
            4 => {
                is_tracked = true;
                is_own = false;
                tx.get_for_update(keyspace, &name).unwrap()
            }
            _ => {
                is_tracked = false;
                tx.get_untracked(keyspace, &name).unwrap()
            }
        };
        if is_tracked && !is_own {
            record.depends_on[at] |= set_of(number, number + 1);
        }
        record.steps.push(Step::Get {
            keyspace: at,
            key: number,
            found: found.map(|value| decode(&value)),
            is_tracked,
        });
    }

    /// Returns the scan if it is to live on.
    fn scan(&self, tx: &Transaction, random: &mut Random, record: &mut Record) -> Option<Scan> {
        let at = random.below(KEYSPACES as u64) as usize;
        let keyspace = &self.keyspaces[at];
        let low = random.below(KEYS as u64) as usize;
        let high = low + 1 + random.below((KEYS - low) as u64) as usize;
        let is_untracked = random.one_in(5);
        let is_tracked = record.isolation == Isolation::Serializable && !is_untracked;
        let view = match is_untracked {
            true => tx.untracked(keyspace),
            false => tx.keyspace(keyspace),
        };
        let mut scan = view.range(bounds(low, high));
        let is_backward = random.one_in(2);
        let limit = match random.one_in(2) {
            true => random.below(4) as usize,
            false => usize::MAX,
        };
        let mut found = Vec::new();
        let mut is_cut = true;
        while found.len() < limit {
            let next = match is_backward {
                true => scan.next_back(),
                false => scan.next(),
            };
            let Some(entry) = next else {
                is_cut = false;
                break;
            };
            let (name, value) = entry.unwrap();
            let number = (0..KEYS).find(|at| key(*at).as_bytes() == &name[..]);
            found.push((number.expect("a key of the test"), decode(&value)));
        }
        if is_tracked {
            record.depends_on[at] |= match (found.last(), is_cut, is_backward) {
                (_, false, _) => set_of(low, high),
                (None, ..) => 0,
                (Some((last, _)), _, false) => set_of(low, last + 1),
                (Some((last, _)), _, true) => set_of(*last, high),
            };
        }
        record.steps.push(Step::Scan {
            keyspace: at,
            low,
            high,
            is_backward,
            found,
            is_cut,
            is_tracked,
        });
        random.one_in(3).then_some(scan)
    }

    fn write(
        &self,
        tx: &Transaction,
        random: &mut Random,
        record: &mut Record,
        written: &mut Written,
    ) {
        let at = random.below(KEYSPACES as u64) as usize;
        let number = random.below(KEYS as u64) as usize;
        let value = (!random.one_in(4)).then(|| fresh(self.next_value));
        match value {
            Some(value) => tx.put(&self.keyspaces[at], key(number), encode(value)),
            None => tx.delete(&self.keyspaces[at], key(number)),
        }
        .unwrap();
        written.sets[at] |= set_of(number, number + 1);
        record.steps.push(Step::Write {
            keyspace: at,
            key: number,
            value,
        });
    }

    fn delete_range(
        &self,
        tx: &Transaction,
        random: &mut Random,
        record: &mut Record,
        written: &mut Written,
    ) {
        let keyspace = random.below(KEYSPACES as u64) as usize;
        let low = random.below(KEYS as u64) as usize;
        let high = (low + 1 + random.below(6) as usize).min(KEYS);
        tx.delete_range(&self.keyspaces[keyspace], bounds(low, high))
            .unwrap();
        written.sets[keyspace] |= set_of(low, high);
        record.steps.push(Step::DeleteRange {
            keyspace,
            low,
            high,
        });
    }

    /// What goes on beside transactions.
    pub fn maintain(&self, random: &mut Random) {
        let keyspace = random.pick(self.keyspaces);
        match random.below(3) {
            0 => keyspace.flush().unwrap(),
            1 => keyspace.compact().unwrap(),
            _ => drop(self.db.run_background_once().unwrap()),
        }
    }
}

/// Bounds of the keys `low..high`.
fn bounds(low: usize, high: usize) -> std::ops::Range<String> {
    let end = match high {
        KEYS => "l".to_owned(),
        high => key(high),
    };
    key(low)..end
}

/// What one keyspace holds.
pub type Map = BTreeMap<usize, u64>;
