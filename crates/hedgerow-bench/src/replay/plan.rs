//! What a replay does: the events of a trace, and the records that must be there before.
//!
//! A trace begins in the middle of a store's life. What it *found* and had not written must be
//! loaded first, or the replay would read absent keys where the program read values. So: keys that
//! a lookup found before the trace wrote them, with the size of their value; and for scans that
//! took more entries than are known by then, made-up keys within their bounds.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::path::Path;

use hedgerow::Value;
use hedgerow::trace::{Change, Event, Key, Lookup, Op, TraceKeyspace};

use super::shortcomings;
use crate::error::{Error, Result};
use crate::rng::Rng;
use crate::stop;

/// Made-up records at most, in all: a trace may tell of scans over more than fits here.
const MADE_UP_MAX: u64 = 2_000_000;

/// How often a filler key is drawn before one gets a number.
const DRAWS_MAX: usize = 4;

/// Which events of a trace to take.
#[derive(Debug, Clone, Copy, Default)]
pub struct Choice {
    /// Only this keyspace.
    pub keyspace: Option<u32>,
    /// Only one key of so many, by a hash, each with its whole history; 0 and 1 take all.
    pub one_in: u64,
    /// At most so many operations, from the start.
    pub limit: Option<u64>,
}

/// A workload ready to be replayed.
#[derive(Debug, Default)]
pub struct Plan {
    /// The keyspaces concerned.
    pub keyspaces: Vec<(u32, String)>,
    /// What to load first: keyspace, key, length of the value. In no order.
    pub preload: Vec<(u32, Value, u64)>,
    /// How many of these stand for entries that only scans saw.
    pub made_up: u64,
    /// What to do, in order. Every key has its bytes.
    pub events: Vec<Event>,
    /// Longest value.
    pub value_len_max: u64,
    /// What a reader of the result should know about the trace.
    pub notes: Vec<String>,
}

impl Plan {
    /// Reads the trace in file `path`, and completes every keyspace to `records` records.
    pub fn read(path: &Path, choice: Choice, records: Option<u64>) -> Result<Self> {
        let mut reader = super::open(path)?;
        let mut events = Vec::new();
        let mut taken = 0;
        let mut notes = Vec::new();
        for event in reader.by_ref() {
            if taken % 65_536 == 0 {
                stop::check()?;
            }
            if let Some(event) = choose(event?, &choice) {
                if choice.limit.is_some_and(|limit| taken >= limit) {
                    notes.push(format!("only the first {taken} operations are replayed"));
                    break;
                }
                taken += ops_of(&event.op);
                events.push(event);
            }
        }
        notes.extend(shortcomings(&reader));
        let mut plan = Self::new(reader.keyspaces(), events, records)?;
        notes.append(&mut plan.notes);
        plan.notes = notes;
        Ok(plan)
    }

    /// A plan for events whose keys have their bytes.
    fn new(known: &[TraceKeyspace], mut events: Vec<Event>, records: Option<u64>) -> Result<Self> {
        let mut plan = Self::default();
        for event in &events {
            for id in keyspaces_of(&event.op) {
                if plan.keyspaces.iter().all(|(other, _)| *other != id) {
                    let name = known.iter().find(|keyspace| keyspace.id == id);
                    let name = name.map_or_else(|| format!("#{id}"), |known| known.name.clone());
                    plan.keyspaces.push((id, name));
                }
            }
        }
        // Of a keyspace with which nothing else is done, there is nothing to flush or to compact.
        events.retain(|event| {
            let there = &plan.keyspaces;
            one_of(&event.op).is_none_or(|id| there.iter().any(|(other, _)| *other == id))
        });
        let mut live = found_before_written(&events);
        for (id, records) in &live {
            let all = records.iter().map(|(key, len)| (*id, key.clone(), *len));
            plan.preload.extend(all);
        }
        plan.complete_scans(&mut live, &events);
        if let Some(records) = records {
            plan.fill_up(&events, records);
        }
        let puts = events.iter().flat_map(|event| puts_of(&event.op));
        let lens = plan.preload.iter().map(|(_, _, len)| *len);
        plan.value_len_max = puts.map(|(_, _, len)| len).chain(lens).max().unwrap_or(0);
        if plan.value_len_max > hedgerow::MAX_VALUE_LEN_BYTES as u64 {
            return Err(Error::failed("the trace has a value beyond the limit"));
        }
        plan.events = events;
        Ok(plan)
    }

    /// Follows the trace and adds what scans took and nobody knows of.
    fn complete_scans(&mut self, live: &mut HashMap<u32, BTreeMap<Value, u64>>, events: &[Event]) {
        // Of the key that is made up next behind a start: the number.
        let mut next_numbers: HashMap<(u32, Value), u64> = HashMap::new();
        for event in events {
            match &event.op {
                Op::Write { changes, .. } => changes.iter().for_each(|change| apply(live, change)),
                Op::Scan {
                    keyspace,
                    start,
                    end,
                    forward,
                    backward,
                    bytes,
                    ..
                } => {
                    let known = live.entry(*keyspace).or_default();
                    let (start, end) = (start.to_value(), end.as_ref().map(Key::to_value));
                    let wanted = forward.saturating_add(*backward);
                    let there = in_range(known, &start, end.as_deref())
                        .take(wanted as usize)
                        .count() as u64;
                    let mean_len = bytes.checked_div(wanted).unwrap_or(0);
                    let mut missing = wanted - there;
                    let number = next_numbers.entry((*keyspace, start.clone())).or_default();
                    while missing > 0 && self.made_up < MADE_UP_MAX {
                        let key = key_behind(&start, *number);
                        // One before the start is one that would have been too long.
                        if key < start || end.as_ref().is_some_and(|end| key >= *end) {
                            break;
                        }
                        *number += 1;
                        let len = mean_len.saturating_sub(key.len() as u64);
                        if let Entry::Vacant(entry) = known.entry(key.clone()) {
                            entry.insert(len);
                            self.preload.push((*keyspace, key, len));
                            self.made_up += 1;
                            missing -= 1;
                        }
                    }
                }
                _ => {}
            }
        }
        if self.made_up >= MADE_UP_MAX {
            self.notes.push(format!(
                "scans took more entries than the {MADE_UP_MAX} that are made up for them"
            ));
        }
    }

    /// Adds records like the known ones until every keyspace begins with `records`. Their keys are
    /// new: what the trace puts or does not find is not there before.
    fn fill_up(&mut self, events: &[Event], records: u64) {
        let mut rng = Rng::new(0x6865_6467_6572_6F77);
        for (id, _) in &self.keyspaces {
            let mut models: Vec<(Value, u64)> = Vec::new();
            let loaded = self.preload.iter().filter(|(other, ..)| other == id);
            models.extend(loaded.map(|(_, key, len)| (key.clone(), *len)));
            let mut there = models.len() as u64;
            let mut taken: HashSet<Value> = models.iter().map(|(key, _)| key.clone()).collect();
            let named = events.iter().flat_map(|event| keys_of(&event.op));
            taken.extend(
                named
                    .filter(|(of, _)| of == id)
                    .map(|(_, key)| key.to_value()),
            );
            let put = events.iter().flat_map(|event| puts_of(&event.op));
            let put = put.filter(|(other, ..)| other == id).take(100_000);
            models.extend(put.map(|(_, key, len)| (key.to_value(), len)));
            if models.is_empty() {
                continue;
            }
            let mut number = 0;
            while there < records {
                let mut drawn = (0..DRAWS_MAX).map(|_| filler(&models, &mut rng));
                let new = drawn.find(|(key, _)| !taken.contains(key));
                let (key, len) = new.unwrap_or_else(|| {
                    let (key, len) = filler(&models, &mut rng);
                    number += 1;
                    (numbered(&key, number), len)
                });
                if taken.insert(key.clone()) {
                    self.preload.push((*id, key, len));
                    there += 1;
                }
            }
        }
    }

    /// Bytes of the keys and values to load first.
    pub fn preload_bytes(&self) -> u64 {
        let bytes = self
            .preload
            .iter()
            .map(|(_, key, len)| key.len() as u64 + len);
        bytes.sum()
    }
}

/// Operations in one event.
pub fn ops_of(op: &Op) -> u64 {
    match op {
        Op::MultiGet { lookups, .. } => lookups.len() as u64,
        Op::Write { changes, .. } => changes.len() as u64,
        _ => 1,
    }
}

/// The puts in an event.
fn puts_of(op: &Op) -> impl Iterator<Item = (u32, &Key, u64)> {
    let changes = match op {
        Op::Write { changes, .. } => &changes[..],
        _ => &[],
    };
    changes.iter().filter_map(|change| match change {
        Change::Put {
            keyspace,
            key,
            value_len_bytes,
            ..
        } => Some((*keyspace, key, *value_len_bytes)),
        _ => None,
    })
}

/// The keyspace that is flushed, compacted or looked at alone.
fn one_of(op: &Op) -> Option<u32> {
    match op {
        Op::Snapshot { keyspace } | Op::Flush { keyspace } | Op::Compact { keyspace } => *keyspace,
        _ => None,
    }
}

/// The keys that an event names, bounds of ranges aside.
fn keys_of(op: &Op) -> Vec<(u32, &Key)> {
    match op {
        Op::Get {
            keyspace, lookup, ..
        } => vec![(*keyspace, &lookup.key)],
        Op::Contains { keyspace, key, .. } => vec![(*keyspace, key)],
        Op::MultiGet {
            keyspace, lookups, ..
        } => {
            let keys = lookups.iter().map(|lookup| (*keyspace, &lookup.key));
            keys.collect()
        }
        Op::Write { changes, .. } => {
            let keys = changes.iter().filter_map(|change| match change {
                Change::Put { keyspace, key, .. } | Change::Delete { keyspace, key } => {
                    Some((*keyspace, key))
                }
                _ => None,
            });
            keys.collect()
        }
        _ => Vec::new(),
    }
}

fn keyspaces_of(op: &Op) -> Vec<u32> {
    match op {
        Op::Get { keyspace, .. }
        | Op::Contains { keyspace, .. }
        | Op::MultiGet { keyspace, .. }
        | Op::Scan { keyspace, .. } => vec![*keyspace],
        Op::Write { changes, .. } => changes.iter().map(Change::keyspace).collect(),
        _ => Vec::new(),
    }
}

/// The part of an event that is replayed, with keys as bytes; `None` if there is none.
fn choose(event: Event, choice: &Choice) -> Option<Event> {
    let this = |keyspace: u32| choice.keyspace.is_none_or(|only| only == keyspace);
    let sampled = |key: &Key| {
        let mut hasher = std::collections::hash_map::DefaultHasher::new();
        key.hash(&mut hasher);
        choice.one_in <= 1 || hasher.finish().is_multiple_of(choice.one_in)
    };
    let bytes = |key: Key| Key::Contents(key.to_value());
    let op = match event.op {
        Op::Get {
            keyspace,
            lookup,
            snapshot,
        } if this(keyspace) && sampled(&lookup.key) => Op::Get {
            keyspace,
            lookup: Lookup {
                key: bytes(lookup.key),
                ..lookup
            },
            snapshot,
        },
        Op::Contains {
            keyspace,
            key,
            hit,
            snapshot,
        } if this(keyspace) && sampled(&key) => Op::Contains {
            keyspace,
            key: bytes(key),
            hit,
            snapshot,
        },
        Op::MultiGet {
            keyspace,
            mut lookups,
            snapshot,
            continued,
        } if this(keyspace) => {
            lookups.retain(|lookup| sampled(&lookup.key));
            for lookup in &mut lookups {
                lookup.key = Key::Contents(lookup.key.to_value());
            }
            if lookups.is_empty() {
                return None;
            }
            Op::MultiGet {
                keyspace,
                lookups,
                snapshot,
                continued,
            }
        }
        Op::Write {
            durability,
            changes,
            batch,
            continued,
        } => {
            let changes: Vec<_> = changes
                .into_iter()
                .filter(|change| this(change.keyspace()))
                .filter_map(|change| {
                    Some(match change {
                        Change::Put {
                            keyspace,
                            key,
                            value_len_bytes,
                            value,
                        } if sampled(&key) => Change::Put {
                            keyspace,
                            key: bytes(key),
                            value_len_bytes,
                            value,
                        },
                        Change::Delete { keyspace, key } if sampled(&key) => Change::Delete {
                            keyspace,
                            key: bytes(key),
                        },
                        // The order of hashed keys means nothing: such a range would take others.
                        Change::DeleteRange {
                            keyspace,
                            start: start @ Key::Contents(_),
                            end,
                        } => Change::DeleteRange {
                            keyspace,
                            start,
                            end,
                        },
                        _ => return None,
                    })
                })
                .collect();
            if changes.is_empty() {
                return None;
            }
            Op::Write {
                durability,
                changes,
                batch,
                continued,
            }
        }
        Op::Scan {
            keyspace,
            start,
            end,
            forward,
            backward,
            bytes: entry_bytes,
            seeks,
            open_us,
            snapshot,
        } if this(keyspace) && sampled(&start) => Op::Scan {
            keyspace,
            // As above: the end of a range of hashed keys is anywhere.
            end: end.filter(|end| matches!(end, Key::Contents(_))),
            start: bytes(start),
            forward,
            backward,
            bytes: entry_bytes,
            seeks,
            open_us,
            snapshot,
        },
        op @ (Op::Snapshot { keyspace } | Op::Flush { keyspace } | Op::Compact { keyspace })
            if keyspace.is_none_or(this) =>
        {
            op
        }
        Op::Sync => Op::Sync,
        _ => return None,
    };
    Some(Event { op, ..event })
}

/// The keys that a lookup found before the trace wrote them.
fn found_before_written(events: &[Event]) -> HashMap<u32, BTreeMap<Value, u64>> {
    /// None: absent or written by the trace.
    type Known = HashMap<Value, Option<u64>>;
    let mut known: HashMap<u32, Known> = HashMap::new();
    let mut lens: HashMap<u32, (u64, u64)> = HashMap::new();
    // A key that was only asked whether it exists gets a value of the mean length, below.
    const UNKNOWN: u64 = u64::MAX;
    for event in events {
        let mut find = |keyspace: u32, key: &Key, len: Option<u64>| {
            let known = known.entry(keyspace).or_default();
            let entry = known.entry(key.to_value()).or_insert(len);
            if let (Some(UNKNOWN), Some(len)) = (&entry, len) {
                *entry = Some(len);
            }
            if let Some(len) = len.filter(|len| *len != UNKNOWN) {
                let (count, sum) = lens.entry(keyspace).or_default();
                (*count, *sum) = (*count + 1, *sum + len);
            }
        };
        match &event.op {
            Op::Get {
                keyspace, lookup, ..
            } => find(*keyspace, &lookup.key, lookup.value_len_bytes),
            Op::Contains {
                keyspace, key, hit, ..
            } => find(*keyspace, key, hit.then_some(UNKNOWN)),
            Op::MultiGet {
                keyspace, lookups, ..
            } => {
                for lookup in lookups {
                    find(*keyspace, &lookup.key, lookup.value_len_bytes);
                }
            }
            Op::Write { changes, .. } => {
                for change in changes {
                    if let Change::Put { keyspace, key, .. } | Change::Delete { keyspace, key } =
                        change
                    {
                        find(*keyspace, key, None);
                    }
                }
            }
            _ => {}
        }
    }
    known
        .into_iter()
        .map(|(id, known)| {
            let (count, sum) = lens.get(&id).copied().unwrap_or((0, 0));
            let mean = sum.checked_div(count).unwrap_or(100);
            let found = known.into_iter().filter_map(|(key, len)| match len? {
                UNKNOWN => Some((key, mean)),
                len => Some((key, len)),
            });
            (id, found.collect())
        })
        .collect()
}

fn apply(live: &mut HashMap<u32, BTreeMap<Value, u64>>, change: &Change) {
    let map = live.entry(change.keyspace()).or_default();
    match change {
        Change::Put {
            key,
            value_len_bytes,
            ..
        } => {
            map.insert(key.to_value(), *value_len_bytes);
        }
        Change::Delete { key, .. } => {
            map.remove(&key.to_value());
        }
        Change::DeleteRange { start, end, .. } => {
            let (start, end) = (start.to_value(), end.as_ref().map(Key::to_value));
            let covered: Vec<_> = in_range(map, &start, end.as_deref()).cloned().collect();
            for key in covered {
                map.remove(&key);
            }
        }
    }
}

fn in_range<'a>(
    map: &'a BTreeMap<Value, u64>,
    start: &Value,
    end: Option<&'a [u8]>,
) -> impl Iterator<Item = &'a Value> {
    map.range(start.clone()..)
        .map(|(key, _)| key)
        .take_while(move |key| end.is_none_or(|end| key[..] < *end))
}

/// A key and the length of its value like those of `models`: each byte of the second half is one
/// that some key has at that place, so filler keys look like the real ones and lie among them.
fn filler(models: &[(Value, u64)], rng: &mut Rng) -> (Value, u64) {
    let mut draw = || &models[rng.below(models.len() as u64) as usize];
    let (base, len) = draw();
    let mut key = base.to_vec();
    for at in key.len() / 2..key.len() {
        if let Some(byte) = draw().0.get(at) {
            key[at] = *byte;
        }
    }
    (key.into(), *len)
}

/// `key` with a number behind it.
fn numbered(key: &[u8], number: u64) -> Value {
    let number = number.to_string();
    let mut key = key.to_vec();
    key.truncate(hedgerow::MAX_KEY_LEN_BYTES - number.len());
    key.extend_from_slice(number.as_bytes());
    key.into()
}

/// A key that follows `start`; different for every number.
fn key_behind(start: &Value, number: u64) -> Value {
    let mut key = start.to_vec();
    key.truncate(hedgerow::MAX_KEY_LEN_BYTES - 9);
    key.push(0);
    key.extend_from_slice(&number.to_be_bytes());
    key.into()
}

#[cfg(test)]
mod tests {
    use super::super::profile::tests::{event, get, key, put, scan};
    use super::*;

    fn plan(ops: Vec<Op>, records: Option<u64>) -> Plan {
        let events = ops.into_iter().enumerate();
        let events = events.map(|(at, op)| event(at as u64, op)).collect();
        Plan::new(&[], events, records).unwrap()
    }

    fn preloaded(plan: &Plan) -> Vec<(String, u64)> {
        let mut found: Vec<_> = plan
            .preload
            .iter()
            .map(|(_, key, len)| (String::from_utf8_lossy(key).into_owned(), *len))
            .collect();
        found.sort();
        found
    }

    #[test]
    fn what_was_found_and_not_written_is_loaded_first() {
        let plan = plan(
            vec![
                get("old", Some(7)),
                put("new", 3),
                get("new", Some(3)),
                get("never", None),
                put("late", 1),
                put("old", 9),
            ],
            None,
        );
        assert_eq!(preloaded(&plan), [("old".to_owned(), 7)]);
        assert_eq!(plan.value_len_max, 9);
        assert_eq!(plan.keyspaces, [(1, "#1".to_owned())]);
    }

    #[test]
    fn scans_find_as_many_entries_as_they_took() {
        let plan = plan(
            vec![
                put("b", 1),
                scan("a", Some("c"), 4, 80),
                scan("a", Some("c"), 3, 60),
                scan("z", Some("z\0"), 1, 5),
            ],
            None,
        );
        // One was put, three are made up, and they serve the second scan too. Nothing fits between
        // "z" and its successor.
        assert_eq!((plan.made_up, plan.preload.len()), (3, 3));
        for (_, key, len) in &plan.preload {
            assert!(b"a"[..] <= key[..] && key[..] < b"c"[..]);
            assert_eq!(key.len() as u64 + len, 20);
        }
    }

    /// What an earlier scan from the same start had made up was made up again, and counted as new.
    #[test]
    fn longer_scans_from_one_start_find_as_many_entries_as_they_took() {
        let scans = [(100, None), (200, None), (150, None), (230, Some("b"))];
        let scans = scans.map(|(taken, end)| scan("a", end, taken, taken * 50));
        let plan = plan(scans.into(), None);
        assert_eq!(plan.made_up, 230);
        let keys: HashSet<_> = plan.preload.iter().map(|(_, key, _)| key).collect();
        assert_eq!(keys.len(), 230);
        assert!(
            plan.preload
                .iter()
                .all(|(_, key, len)| key.len() as u64 + len == 50)
        );
    }

    /// Behind a start that is as long as keys can be there is nothing to be made up.
    #[test]
    fn scans_behind_the_longest_keys_get_no_records_before_them() {
        let start = "k".repeat(hedgerow::MAX_KEY_LEN_BYTES);
        let plan = plan(vec![scan(&start, None, 5, 500)], None);
        assert_eq!(plan.made_up, 0);
    }

    #[test]
    fn keyspaces_are_filled_up_with_keys_like_the_known_ones() {
        let plan = plan(vec![put("user:0001", 5), put("user:9992", 6)], Some(50));
        assert_eq!(plan.preload.len(), 50);
        let mut all = plan.preload.iter();
        assert!(all.all(|(_, key, len)| key.starts_with(b"user") && (5..7).contains(len)));
    }

    /// Filler keys were drawn without looking: some were drawn twice, and some were those that the
    /// trace puts as new or does not find.
    #[test]
    fn keyspaces_are_filled_up_with_keys_that_are_new() {
        let named = [
            "user:0001",
            "user:0100",
            "user:1000",
            "user:1010",
            "user:1111",
        ];
        let mut ops = vec![
            put(named[0], 5),
            get(named[1], Some(8)),
            get(named[2], None),
        ];
        ops.push(Op::MultiGet {
            keyspace: 1,
            lookups: vec![Lookup {
                key: key(named[3]),
                value_len_bytes: None,
            }],
            snapshot: false,
            continued: false,
        });
        ops.push(put(named[4], 5));
        let plan = plan(ops, Some(2000));
        // Sixteen keys look like these: most get a number.
        let mut keys: Vec<_> = plan.preload.iter().map(|(_, key, _)| key.clone()).collect();
        keys.sort();
        keys.dedup();
        assert_eq!((keys.len(), plan.preload.len()), (2000, 2000));
        let loaded = |name: &&str| keys.iter().any(|key| **key == *name.as_bytes());
        assert_eq!(named.iter().filter(|name| loaded(name)).count(), 1);
        assert!(keys.iter().all(|key| key.starts_with(b"user")));
        assert!(keys.iter().filter(|key| key.len() == 9).count() > 5);
    }

    #[test]
    fn the_longest_keys_are_filled_up_as_well() {
        let longest = "k".repeat(hedgerow::MAX_KEY_LEN_BYTES);
        let plan = plan(vec![get(&longest, Some(1))], Some(10));
        let keys: HashSet<_> = plan.preload.iter().map(|(_, key, _)| key).collect();
        assert_eq!(keys.len(), 10);
        assert!(
            keys.iter()
                .all(|key| key.len() <= hedgerow::MAX_KEY_LEN_BYTES)
        );
    }

    #[test]
    fn flushes_of_other_keyspaces_are_left_out() {
        let ops = [Some(1), Some(2), None].map(|keyspace| Op::Flush { keyspace });
        let plan = plan([vec![put("a", 1)], ops.to_vec()].concat(), None);
        let flushes = plan.events.iter().filter_map(|event| match event.op {
            Op::Flush { keyspace } => Some(keyspace),
            _ => None,
        });
        assert_eq!(flushes.collect::<Vec<_>>(), [Some(1), None]);
    }

    #[test]
    fn choosing_keeps_histories_whole() {
        let choice = Choice {
            one_in: 3,
            ..Choice::default()
        };
        let mut taken = 0;
        for n in 0..300 {
            let name = format!("key {n}");
            let ops = [put(&name, 1), get(&name, Some(1)), scan(&name, None, 1, 1)];
            let kept = ops.map(|op| choose(event(0, op), &choice).is_some());
            assert_eq!(kept, [kept[0]; 3]);
            taken += usize::from(kept[0]);
        }
        assert!((60..140).contains(&taken), "{taken}");
        let other = Choice {
            keyspace: Some(2),
            ..Choice::default()
        };
        assert!(choose(event(0, put("a", 1)), &other).is_none());
    }

    #[test]
    fn hashed_keys_get_bytes_and_lose_their_order() {
        let hashed = Key::Hashed {
            hash: 5,
            len_bytes: 20,
        };
        let op = Op::Scan {
            keyspace: 1,
            start: hashed.clone(),
            end: Some(hashed),
            forward: 1,
            backward: 0,
            bytes: 9,
            seeks: 0,
            open_us: 0,
            snapshot: false,
        };
        let chosen = choose(event(0, op), &Choice::default()).unwrap();
        let Op::Scan { start, end, .. } = chosen.op else {
            panic!("a scan");
        };
        assert_eq!((start.to_value().len(), end), (20, None));
        assert_ne!(start, key("x"));
    }
}
