//! The records that a comparison works on, and everything drawn from them beforehand.

use std::ops::Range;

use crate::error::{Error, Result};
use crate::rng::Rng;

/// Records in a short scan.
pub const SHORT_SCAN: usize = 10;
/// Records that a prefix is chosen to cover, at least.
const PREFIX_COVERS_MIN: usize = 50;
/// Seed of every random draw, so that each run does the same work.
const SEED: u64 = 0x6865_6467_6572_6F77;

/// A key and a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The key.
    pub key: Vec<u8>,
    /// The value.
    pub value: Vec<u8>,
}

/// What is loaded, read and checked. Draws are made here, so that no measure pays for them.
pub struct Data {
    /// In the order of their keys, each key once.
    pub records: Vec<Record>,
    /// Positions of all records, shuffled: the order of writing.
    pub write_order: Vec<usize>,
    /// Positions of all records, shuffled anew: the order of reading.
    pub read_order: Vec<usize>,
    /// Keys that are not there, each a neighbour of one that is.
    pub absent: Vec<Vec<u8>>,
    /// Prefixes with the positions of the records that they cover.
    pub prefixes: Vec<(Vec<u8>, Range<usize>)>,
    /// Bytes of all keys and values.
    pub user_bytes: u64,
}

/// Which value a key has by now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// The record's own.
    Original,
    /// The record's value turned left by one byte: as long and as compressible as the original.
    Turned,
}

impl Record {
    /// True if `found` is the value of this version.
    pub fn is(&self, version: Version, found: &[u8]) -> bool {
        match (version, self.value.split_first(), found.split_last()) {
            (Version::Original, ..) => found == self.value,
            (Version::Turned, Some((first, rest)), Some((last, start))) => {
                last == first && start == rest
            }
            (Version::Turned, None, None) => true,
            (Version::Turned, ..) => false,
        }
    }

    /// Puts the value of this version in `out`.
    pub fn write(&self, version: Version, out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(&self.value);
        if version == Version::Turned && !out.is_empty() {
            out.rotate_left(1);
        }
    }
}

impl Data {
    /// Prepares `records`, of which the last one of a key counts; at most `limit` of them, spread
    /// evenly.
    pub fn new(mut records: Vec<Record>, limit: Option<usize>) -> Result<Self> {
        // Stable, so the last of equal keys is the one that a store would keep.
        records.sort_by(|a, b| a.key.cmp(&b.key));
        records.reverse();
        records.dedup_by(|a, b| a.key == b.key);
        records.reverse();
        if let Some(limit) = limit
            && limit < records.len()
        {
            let all = records.len();
            let mut position = 0;
            records.retain(|_| {
                // Keeps a record whenever the share of `limit` that is due reaches a whole one.
                let due = (position + 1) * limit / all > position * limit / all;
                position += 1;
                due
            });
        }
        if records.is_empty() {
            return Err(Error::failed("there are no records to compare with"));
        }

        let mut random = Rng::new(SEED);
        let write_order = permutation(&mut random, records.len());
        let read_order = permutation(&mut random, records.len());
        let absent = read_order
            .iter()
            .map(|at| absent_near(&records, *at))
            .collect();
        let prefixes = prefixes(&records, &read_order);
        let user_bytes = records
            .iter()
            .map(|r| (r.key.len() + r.value.len()) as u64)
            .sum();
        Ok(Self {
            records,
            write_order,
            read_order,
            absent,
            prefixes,
            user_bytes,
        })
    }
}

/// A key right behind record `at` that no record has.
fn absent_near(records: &[Record], at: usize) -> Vec<u8> {
    let mut key = records[at].key.clone();
    let mut may_grow = true;
    loop {
        // A key as long as the limit cannot grow; from then on its last byte goes instead.
        may_grow &= key.len() < hedgerow::MAX_KEY_LEN_BYTES;
        if !may_grow {
            key.pop();
        }
        for step in 0..=u8::MAX {
            key.push(b'~'.wrapping_add(step));
            let found = records.binary_search_by(|record| record.key.cmp(&key));
            if found.is_err() {
                return key;
            }
            key.pop();
        }
        // Every byte is taken behind it: one of those keys is the next to be continued.
        if may_grow {
            key.push(b'~');
        }
    }
}

/// Prefixes of randomly drawn records that cover a few dozen records each: what "the places of a
/// region" is in the default data, for keys of any form. In all they cover about every record once.
fn prefixes(records: &[Record], order: &[usize]) -> Vec<(Vec<u8>, Range<usize>)> {
    let mut prefixes = Vec::new();
    let mut covered = 0;
    for &start in order {
        if covered >= records.len() {
            break;
        }
        let last = (start + PREFIX_COVERS_MIN - 1).min(records.len() - 1);
        let (a, b) = (&records[start].key, &records[last].key);
        let len = a.iter().zip(b).take_while(|(a, b)| a == b).count();
        let prefix = a[..len].to_vec();
        let first = records.partition_point(|record| record.key < prefix);
        let behind = records[first..].partition_point(|record| record.key.starts_with(&prefix));
        covered += behind;
        prefixes.push((prefix, first..first + behind));
    }
    prefixes
}

/// The numbers below `len`, shuffled (Fisher and Yates).
fn permutation(random: &mut Rng, len: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..len).collect();
    for at in (1..len).rev() {
        order.swap(at, random.below(at as u64 + 1) as usize);
    }
    order
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use super::*;

    pub fn records(keys: &[&str]) -> Vec<Record> {
        keys.iter()
            .enumerate()
            .map(|(at, key)| Record {
                key: key.as_bytes().to_vec(),
                value: at.to_string().into_bytes(),
            })
            .collect()
    }

    #[test]
    fn the_last_record_of_a_key_counts() {
        let data = Data::new(records(&["b", "a", "b"]), None).unwrap();
        let pairs: Vec<_> = data
            .records
            .iter()
            .map(|r| (&r.key[..], &r.value[..]))
            .collect();
        assert_eq!(pairs, [(&b"a"[..], &b"1"[..]), (b"b", b"2")]);
    }

    #[test]
    fn a_limit_spreads_evenly() {
        let data = Data::new(records(&["a", "b", "c", "d", "e", "f"]), Some(2)).unwrap();
        let keys: Vec<_> = data.records.iter().map(|r| &r.key[..]).collect();
        assert_eq!(keys, [b"c", b"f"]);
        assert!(Data::new(Vec::new(), None).is_err());
    }

    #[test]
    fn draws_are_what_they_claim() {
        let keys: Vec<String> = (0..500).map(|n| format!("{:03}", n * 7 % 1000)).collect();
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        let data = Data::new(records(&keys), None).unwrap();
        let mut sorted = data.write_order.clone();
        sorted.sort_unstable();
        assert!(sorted.into_iter().eq(0..data.records.len()));
        let has = |key: &[u8]| data.records.iter().any(|record| record.key == key);
        assert!(data.absent.iter().all(|key| !has(key)));
        assert!(!data.prefixes.is_empty());
        for (prefix, range) in &data.prefixes {
            for (at, record) in data.records.iter().enumerate() {
                assert_eq!(record.key.starts_with(prefix), range.contains(&at));
            }
        }
    }

    /// The search went round and round where a key has every continuation by one byte.
    #[test]
    fn keys_with_all_their_neighbours_have_absent_ones() {
        let (sender, ended) = mpsc::channel();
        thread::spawn(move || {
            for len in [1, hedgerow::MAX_KEY_LEN_BYTES - 1] {
                let start = vec![b'k'; len];
                let with = |byte| [&start[..], &[byte]].concat();
                let mut keys: Vec<_> = (0..=255).map(with).collect();
                keys.insert(0, start.clone());
                let records: Vec<_> = keys
                    .iter()
                    .map(|key| Record {
                        key: key.clone(),
                        value: Vec::new(),
                    })
                    .collect();
                for at in [0, 1, 256] {
                    let absent = absent_near(&records, at);
                    assert!(!keys.contains(&absent));
                    assert!((1..=hedgerow::MAX_KEY_LEN_BYTES).contains(&absent.len()));
                }
            }
            sender.send(()).unwrap();
        });
        ended
            .recv_timeout(Duration::from_secs(60))
            .expect("it ends");
    }

    #[test]
    fn versions_differ_and_are_recognised() {
        for (value, turned) in [("", ""), ("a", "a"), ("abc", "bca")] {
            let record = Record {
                key: Vec::new(),
                value: value.as_bytes().to_vec(),
            };
            let mut out = Vec::new();
            record.write(Version::Turned, &mut out);
            assert_eq!(out, turned.as_bytes());
            assert!(record.is(Version::Turned, &out));
            assert!(record.is(Version::Original, value.as_bytes()));
            assert_eq!(record.is(Version::Original, &out), value == turned);
            assert!(!record.is(Version::Turned, b"longer"));
        }
    }
}
