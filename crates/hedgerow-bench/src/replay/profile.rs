//! What a workload is: figures about the events on one keyspace.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use hedgerow::Durability;
use hedgerow::trace::{Change, Event, Key, Op};
use serde_json::{Value, json};

use crate::histogram::Histogram;

/// Collects figures, event by event.
#[derive(Debug, Default)]
pub struct Profile {
    /// Lookups.
    pub gets: u64,
    /// Lookups that found something.
    pub get_hits: u64,
    /// Puts.
    pub puts: u64,
    /// Deletes of one key.
    pub deletes: u64,
    /// Range deletes.
    pub range_deletes: u64,
    /// Scans.
    pub scans: u64,
    /// Entries that scans took.
    pub scan_entries: u64,
    reverse_entries: u64,
    /// Commits.
    pub commits: u64,
    /// Commits with durability `Sync`.
    pub sync_commits: u64,
    batched_changes: u64,
    /// Puts of a key that an earlier event of the trace wrote or found.
    pub overwrites: u64,
    /// Puts of a key greater than that of the put before.
    ascending_puts: u64,
    last_put: Option<Key>,
    /// Lengths of the keys named, in bytes.
    pub key_len: Histogram,
    /// Lengths of the values read and written, in bytes.
    pub value_len: Histogram,
    /// Entries of each scan.
    pub scan_len: Histogram,
    keys: HashMap<u64, Touched>,
    first_us: Option<u64>,
    last_us: u64,
}

/// A key that was named, by its hash: collisions of 64 bits change no figure noticeably.
#[derive(Debug, Clone, Copy, Default)]
struct Touched {
    count: u32,
    /// Length of key and value, as last seen.
    bytes: u32,
    exists: bool,
}

/// The mix of operations, as shares of all.
#[derive(Debug, Clone, Copy)]
pub struct Mix {
    /// Lookups.
    pub reads: f64,
    /// Puts, deletes and range deletes.
    pub writes: f64,
    /// Scans.
    pub scans: f64,
}

fn share(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}

fn hash_of(key: &Key) -> u64 {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish()
}

impl Profile {
    /// Counts what `event` does to keyspace `id`.
    pub fn add(&mut self, id: u32, event: &Event) {
        let before = self.ops();
        match &event.op {
            Op::Get {
                keyspace, lookup, ..
            } if *keyspace == id => self.lookup(&lookup.key, lookup.value_len_bytes.map(Some)),
            Op::Contains {
                keyspace, key, hit, ..
            } if *keyspace == id => self.lookup(key, hit.then_some(None)),
            Op::MultiGet {
                keyspace, lookups, ..
            } if *keyspace == id => {
                for lookup in lookups {
                    self.lookup(&lookup.key, lookup.value_len_bytes.map(Some));
                }
            }
            Op::Write {
                durability,
                changes,
                batch,
                continued,
            } => {
                let mine = changes.iter().filter(|change| change.keyspace() == id);
                let count = mine.clone().map(|change| self.change(change)).count() as u64;
                if count > 0 && !continued {
                    self.commits += 1;
                    self.sync_commits += u64::from(*durability == Durability::Sync);
                }
                if *batch {
                    self.batched_changes += count;
                }
            }
            Op::Scan {
                keyspace,
                start,
                forward,
                backward,
                ..
            } if *keyspace == id => {
                self.scans += 1;
                self.scan_entries += forward + backward;
                self.reverse_entries += backward;
                self.scan_len.record(forward + backward);
                let touched = self.keys.entry(hash_of(start)).or_default();
                touched.count = touched.count.saturating_add(1);
            }
            _ => {}
        }
        if self.ops() > before {
            self.first_us.get_or_insert(event.time_us);
            self.last_us = event.time_us;
        }
    }

    /// A lookup that found nothing, something, or a value of known length.
    fn lookup(&mut self, key: &Key, found: Option<Option<u64>>) {
        self.gets += 1;
        self.key_len.record(key.len_bytes() as u64);
        let touched = self.keys.entry(hash_of(key)).or_default();
        touched.count = touched.count.saturating_add(1);
        if let Some(value_len) = found {
            self.get_hits += 1;
            touched.exists = true;
            if let Some(len) = value_len {
                self.value_len.record(len);
                touched.bytes = (key.len_bytes() as u64 + len).min(u64::from(u32::MAX)) as u32;
            }
        }
    }

    fn change(&mut self, change: &Change) {
        match change {
            Change::Put {
                key,
                value_len_bytes,
                ..
            } => {
                self.puts += 1;
                self.key_len.record(key.len_bytes() as u64);
                self.value_len.record(*value_len_bytes);
                let touched = self.keys.entry(hash_of(key)).or_default();
                touched.count = touched.count.saturating_add(1);
                self.overwrites += u64::from(touched.exists);
                touched.exists = true;
                let bytes = key.len_bytes() as u64 + value_len_bytes;
                touched.bytes = bytes.min(u64::from(u32::MAX)) as u32;
                if let (Key::Contents(now), Some(Key::Contents(before))) = (key, &self.last_put) {
                    self.ascending_puts += u64::from(now > before);
                }
                self.last_put = Some(key.clone());
            }
            Change::Delete { key, .. } => {
                self.deletes += 1;
                self.key_len.record(key.len_bytes() as u64);
                let touched = self.keys.entry(hash_of(key)).or_default();
                touched.count = touched.count.saturating_add(1);
                touched.exists = false;
            }
            Change::DeleteRange { .. } => self.range_deletes += 1,
        }
    }

    /// Operations: lookups, changes and scans.
    pub fn ops(&self) -> u64 {
        self.gets + self.changes() + self.scans
    }

    fn changes(&self) -> u64 {
        self.puts + self.deletes + self.range_deletes
    }

    /// The mix of operations.
    pub fn mix(&self) -> Mix {
        Mix {
            reads: share(self.gets, self.ops()),
            writes: share(self.changes(), self.ops()),
            scans: share(self.scans, self.ops()),
        }
    }

    /// Distinct keys named.
    pub fn distinct_keys(&self) -> u64 {
        self.keys.len() as u64
    }

    /// Bytes of the distinct keys named, with their values as last seen.
    pub fn working_set_bytes(&self) -> u64 {
        self.keys.values().map(|key| u64::from(key.bytes)).sum()
    }

    /// The share of all accesses that goes to the busiest 1 % of the keys: 0.01 if all are alike.
    pub fn skew(&self) -> f64 {
        let mut counts: Vec<u32> = self.keys.values().map(|key| key.count).collect();
        counts.sort_unstable_by(|a, b| b.cmp(a));
        let total: u64 = counts.iter().map(|count| u64::from(*count)).sum();
        let busiest = counts.len().div_ceil(100);
        let top = counts[..busiest].iter().map(|count| u64::from(*count));
        share(top.sum(), total)
    }

    /// The share of puts whose key is greater than the one before.
    pub fn ascending(&self) -> f64 {
        share(self.ascending_puts, self.puts.saturating_sub(1))
    }

    /// The share of puts of keys that existed.
    pub fn overwrite_rate(&self) -> f64 {
        share(self.overwrites, self.puts)
    }

    /// The share of lookups that found something.
    pub fn hit_rate(&self) -> f64 {
        share(self.get_hits, self.gets)
    }

    /// The share of commits that were durable.
    pub fn durable(&self) -> f64 {
        share(self.sync_commits, self.commits)
    }

    /// From the first operation to the last.
    pub fn seconds(&self) -> f64 {
        (self.last_us - self.first_us.unwrap_or(self.last_us)) as f64 / 1e6
    }

    /// Lines of figures, each with a name.
    pub fn lines(&self) -> Vec<(&'static str, String)> {
        use crate::format::{bytes, thousands};
        let percent = |share: f64| format!("{:.1} %", share * 100.0);
        let lens = |lens: &Histogram| {
            format!(
                "mean {:.0}, median {}, largest {} bytes",
                lens.mean(),
                lens.percentile(50.0),
                lens.max()
            )
        };
        let mix = self.mix();
        let mut lines = vec![
            (
                "operations",
                format!(
                    "{} in {:.1} s: {} reads, {} writes, {} scans",
                    thousands(self.ops()),
                    self.seconds(),
                    percent(mix.reads),
                    percent(mix.writes),
                    percent(mix.scans)
                ),
            ),
            ("keys", lens(&self.key_len)),
            ("values", lens(&self.value_len)),
            (
                "working set",
                format!(
                    "{} keys, {}",
                    thousands(self.distinct_keys()),
                    bytes(self.working_set_bytes())
                ),
            ),
            (
                "skew",
                format!("{} of accesses to 1 % of the keys", percent(self.skew())),
            ),
        ];
        if self.gets > 0 {
            let hits = format!("{} found something", percent(self.hit_rate()));
            lines.push(("lookups", hits));
        }
        if self.changes() > 0 {
            let writes = format!(
                "{} overwrites, {} in ascending order, {} deletes, {} range deletes",
                percent(self.overwrite_rate()),
                percent(self.ascending()),
                thousands(self.deletes),
                thousands(self.range_deletes)
            );
            lines.push(("writes", writes));
            let commits = format!(
                "{}, {} durable, {:.1} changes each",
                thousands(self.commits),
                percent(self.durable()),
                share(self.changes(), self.commits)
            );
            lines.push(("commits", commits));
        }
        if self.scans > 0 {
            let scans = format!(
                "mean {:.1}, median {}, p99 {} entries; {} of entries in reverse",
                self.scan_len.mean(),
                self.scan_len.percentile(50.0),
                self.scan_len.percentile(99.0),
                percent(share(self.reverse_entries, self.scan_entries))
            );
            lines.push(("scans", scans));
        }
        lines
    }

    /// The figures for programs.
    pub fn to_json(&self) -> Value {
        let mix = self.mix();
        let lens = |lens: &Histogram| json!({ "mean": lens.mean(), "p50": lens.percentile(50.0), "p99": lens.percentile(99.0), "max": lens.max() });
        json!({
            "ops": self.ops(),
            "seconds": self.seconds(),
            "read_share": mix.reads,
            "write_share": mix.writes,
            "scan_share": mix.scans,
            "hit_rate": self.hit_rate(),
            "skew_top_1_percent": self.skew(),
            "distinct_keys": self.distinct_keys(),
            "working_set_bytes": self.working_set_bytes(),
            "overwrite_rate": self.overwrite_rate(),
            "ascending_puts": self.ascending(),
            "deletes": self.deletes,
            "range_deletes": self.range_deletes,
            "commits": self.commits,
            "durable_share": self.durable(),
            "batched_changes": self.batched_changes,
            "key_len_bytes": lens(&self.key_len),
            "value_len_bytes": lens(&self.value_len),
            "scan_entries": lens(&self.scan_len),
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use hedgerow::trace::Lookup;

    pub fn key(name: &str) -> Key {
        Key::Contents(hedgerow::Value::copy_from(name.as_bytes()))
    }

    pub fn event(time_us: u64, op: Op) -> Event {
        Event {
            time_us,
            lane: 0,
            op,
        }
    }

    pub fn put(name: &str, value_len_bytes: u64) -> Op {
        Op::Write {
            durability: Durability::Sync,
            changes: vec![Change::Put {
                keyspace: 1,
                key: key(name),
                value_len_bytes,
                value: None,
            }],
            batch: false,
            continued: false,
        }
    }

    pub fn get(name: &str, value_len_bytes: Option<u64>) -> Op {
        Op::Get {
            keyspace: 1,
            lookup: Lookup {
                key: key(name),
                value_len_bytes,
            },
            snapshot: false,
        }
    }

    pub fn scan(start: &str, end: Option<&str>, forward: u64, bytes: u64) -> Op {
        Op::Scan {
            keyspace: 1,
            start: key(start),
            end: end.map(key),
            forward,
            backward: 0,
            bytes,
            seeks: 0,
            open_us: 1,
            snapshot: false,
        }
    }

    #[test]
    fn figures_are_what_was_done() {
        let mut profile = Profile::default();
        let ops = [
            put("a", 10),
            put("b", 20),
            put("a", 30),
            get("a", Some(30)),
            get("x", None),
            get("old", Some(5)),
            put("old", 5),
            scan("a", None, 3, 40),
        ];
        for (at, op) in ops.into_iter().enumerate() {
            profile.add(1, &event(at as u64 * 1_000_000, op));
        }
        profile.add(2, &event(99_000_000, get("a", None)));
        // One more on another keyspace was counted for that one only.
        assert_eq!(profile.ops(), 8);
        assert_eq!((profile.gets, profile.get_hits), (3, 2));
        assert_eq!((profile.puts, profile.overwrites), (4, 2));
        assert!((profile.ascending() - 2.0 / 3.0).abs() < 1e-9);
        assert_eq!(profile.distinct_keys(), 4);
        assert_eq!(profile.working_set_bytes(), 31 + 21 + 8);
        assert_eq!(profile.durable(), 1.0);
        assert_eq!(profile.seconds(), 7.0);
        assert_eq!(profile.scan_len.max(), 3);
    }
}
