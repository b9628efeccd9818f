//! Trade-off runs of hedgerow alone: deletion of ranges, snapshots, compaction, the log.

use std::path::PathBuf;
use std::time::Instant;

use ::hedgerow::{Db, Keyspace, KvRead};

use super::run::{Figure, Run, figure, milliseconds, workload};
use crate::data::KeyShape;
use crate::dataset::DataSet;
use crate::error::{Error, Result};
use crate::histogram::Histogram;
use crate::machine::Usage;
use crate::permutation::Permutation;
use crate::rng::Rng;
use crate::runner::run as run_workload;
use crate::suite::disk_space;
use crate::targets::hedgerow::HedgerowTarget;
use crate::verdict::Unit;

/// Entries that a queue holds.
const QUEUE_LENGTH: u64 = 1000;
/// Reads of a cold store.
const COLD_READS: u64 = 2000;
/// The store that is cold.
const COLD: &str = "cold";

/// An open store of one.
struct Store {
    target: HedgerowTarget,
    keyspace: Keyspace,
    dir: PathBuf,
}

impl Store {
    fn db(&self) -> &Db {
        self.target.db()
    }

    /// Flushes, and waits until nothing is left to do.
    fn settle(&self) -> Result<()> {
        self.db().flush()?;
        Ok(self.db().wait_idle()?)
    }

    /// Bytes on disk without the log, which both engines have alike.
    fn tree_bytes(&self) -> f64 {
        self.keyspace.stats().disk_bytes as f64
    }
}

impl Run<'_> {
    fn open(&self, name: &str) -> Result<Store> {
        let variant = self.contestant.variant.ok_or_else(|| {
            let store = self.contestant.subject;
            Error::usage(format!(
                "a trade-off run of hedgerow alone, and not of {store}"
            ))
        })?;
        let dir = self.store_dir(name)?;
        let target = HedgerowTarget::open(&dir, variant, &self.options)?;
        let keyspace = match target.db().keyspaces().first() {
            Some(info) => target.db().existing_keyspace(&info.name)?,
            None => None,
        };
        let keyspace = keyspace.ok_or_else(|| Error::failed("the store has no keyspace"))?;
        Ok(Store {
            target,
            keyspace,
            dir,
        })
    }

    /// Writes all records in random order, in batches, and settles.
    fn load(&self, store: &Store) -> Result<DataSet> {
        let mut data = DataSet::new(&self.params)?;
        let fill = workload("fillbatch")?;
        run_workload(&store.target, &store.dir, &fill, &mut data)?;
        store.settle()?;
        Ok(data)
    }

    pub(super) fn queue(&self) -> Result<Vec<Figure>> {
        let store = self.open("queue")?;
        let data = DataSet::new(&self.params)?;
        let mut rng = Rng::new(self.params.seed);
        let (mut key, mut value) = (data.keys().buffer(), Vec::new());
        let mut takes = Histogram::new();
        let began = Instant::now();
        let mut turns = 0u64;
        for number in 0..self.params.records {
            // A deadline, because some engine may do badly here: that is the question.
            // After a first turn, or there would be no rate.
            if turns > 0 && number % 64 == 0 && self.is_late(began) {
                break;
            }
            data.keys().write(number, &mut key);
            data.values().write(&key, &mut rng, &mut value);
            store.keyspace.put(&key, &value)?;
            if number < QUEUE_LENGTH {
                continue;
            }
            let taken = Instant::now();
            let first = store.keyspace.iter().next_key()?;
            let first = first.ok_or_else(|| Error::wrong("the queue is empty"))?;
            store.keyspace.delete(&first)?;
            takes.record(taken.elapsed().as_nanos() as u64);
            data.keys().write(number - QUEUE_LENGTH, &mut key);
            if first != key[..] {
                return Err(Error::wrong("the queue is out of order"));
            }
            turns += 1;
        }
        let elapsed = began.elapsed().as_secs_f64();
        store.settle()?;
        let disk = store.tree_bytes();
        let micros = |percent| takes.percentile(percent) as f64 / 1e3;
        Ok(vec![
            figure(
                "turns",
                "put one, take one",
                Unit::PerSecond,
                turns as f64 / elapsed,
            ),
            figure(
                "take_p50",
                "take the first, p50",
                Unit::Microseconds,
                micros(50.0),
            ),
            figure(
                "take_p99",
                "take the first, p99",
                Unit::Microseconds,
                micros(99.0),
            ),
            figure(
                "disk",
                "on disk, settled, without the log",
                Unit::Bytes,
                disk,
            ),
        ])
    }

    pub(super) fn bulk_delete(&self) -> Result<Vec<Figure>> {
        let store = self.open("bulk")?;
        let data = self.load(&store)?;
        let full = store.tree_bytes();
        let mut key = data.keys().buffer();
        // Of hashed keys the numbers are no range, but the first byte is spread evenly.
        let (mut first, mut last) = (Vec::new(), Vec::new());
        if self.params.key_shape == KeyShape::Hashed {
            last = vec![230];
        } else {
            data.keys().write(0, &mut key);
            first.clone_from(&key);
            data.keys().write(self.params.records * 9 / 10, &mut key);
            last.clone_from(&key);
        }
        let began = Instant::now();
        store.keyspace.delete_range(first..last)?;
        let deleted = milliseconds(began);
        let began = Instant::now();
        store.keyspace.iter().next_key()?;
        let found = milliseconds(began);
        store.settle()?;
        let after = store.tree_bytes();
        let began = Instant::now();
        store.db().compact()?;
        store.db().wait_idle()?;
        let compacted = milliseconds(began);
        Ok(vec![
            figure(
                "delete",
                "remove 90 % as one range",
                Unit::Milliseconds,
                deleted,
            ),
            figure(
                "first",
                "find the first key that is left",
                Unit::Milliseconds,
                found,
            ),
            figure(
                "kept",
                "space kept before compaction",
                Unit::Times,
                after / full.max(1.0),
            ),
            figure("compact", "compact", Unit::Milliseconds, compacted),
            figure(
                "kept_compacted",
                "space kept after compaction",
                Unit::Times,
                store.tree_bytes() / full.max(1.0),
            ),
        ])
    }

    pub(super) fn held_snapshot(&self) -> Result<Vec<Figure>> {
        let store = self.open("snapshot")?;
        let mut data = self.load(&store)?;
        let full = store.tree_bytes();
        let overwrite = workload("overwrite")?;
        let mut run = || run_workload(&store.target, &store.dir, &overwrite, &mut data);
        let free = run()?.settled_ops_per_s();
        let snapshot = store.keyspace.snapshot();
        let held = run()?.settled_ops_per_s();
        let held_bytes = store.tree_bytes();
        let began = Instant::now();
        let entries = count(&snapshot, self.params.records)?;
        let scan = entries as f64 / began.elapsed().as_secs_f64().max(1e-9);
        drop(snapshot);
        store.settle()?;
        store.db().compact()?;
        store.db().wait_idle()?;
        Ok(vec![
            figure(
                "free",
                "overwrite, no snapshot, settled",
                Unit::PerSecond,
                free,
            ),
            figure(
                "held",
                "overwrite, snapshot held, settled",
                Unit::PerSecond,
                held,
            ),
            figure(
                "scan",
                "scan of the old values, records",
                Unit::PerSecond,
                scan,
            ),
            figure(
                "space",
                "space while it is held",
                Unit::Times,
                held_bytes / full.max(1.0),
            ),
            figure(
                "space_after",
                "space afterwards, compacted",
                Unit::Times,
                store.tree_bytes() / full.max(1.0),
            ),
        ])
    }

    /// Fills the store that [`cold_open`](Self::cold_open) reads, and closes it.
    pub(super) fn fill_for_cold_open(&self) -> Result<()> {
        let store = self.open(COLD)?;
        self.load(&store)?;
        store.db().compact()?;
        Ok(store.db().wait_idle()?)
    }

    pub(super) fn cold_open(&self) -> Result<Vec<Figure>> {
        // What the process that filled it had mapped may stay in memory as long as that lives.
        let is_fresh = self.dir.join(COLD).is_dir();
        if !is_fresh {
            self.fill_for_cold_open()?;
        }
        let label = |fresh, same| if is_fresh { fresh } else { same };
        let data = DataSet::new(&self.params)?;
        disk_space::evict(self.dir)?;

        let order = Permutation::new(self.params.records, self.params.seed);
        let mut key = data.keys().buffer();
        let before = Usage::now();
        let began = Instant::now();
        let store = self.open(COLD)?;
        data.keys().write(order.at(0), &mut key);
        read(&store, &key)?;
        let opened = milliseconds(began);
        let reads = COLD_READS.min(self.params.records);
        let mut latencies = Histogram::new();
        for number in 1..reads {
            if number > 1 && self.is_late(began) {
                break;
            }
            data.keys().write(order.at(number), &mut key);
            let began = Instant::now();
            read(&store, &key)?;
            latencies.record(began.elapsed().as_nanos() as u64);
        }
        let mut figures = vec![
            figure(
                "open",
                label("open and read one", "open and read one, same process"),
                Unit::Milliseconds,
                opened,
            ),
            figure(
                "mean",
                label("cold read, mean", "cold read, same process, mean"),
                Unit::Microseconds,
                latencies.mean() / 1e3,
            ),
            figure(
                "p99",
                label("cold read, p99", "cold read, same process, p99"),
                Unit::Microseconds,
                latencies.percentile(99.0) as f64 / 1e3,
            ),
        ];
        if let Some(fetched) = Usage::now().since(&before).fetched_bytes {
            let each = fetched as f64 / (latencies.count() + 1) as f64;
            figures.push(figure(
                "fetched",
                label(
                    "fetched per cold read",
                    "fetched per cold read, same process",
                ),
                Unit::Bytes,
                each,
            ));
        }
        Ok(figures)
    }

    pub(super) fn recovery(&self) -> Result<Vec<Figure>> {
        let store = self.open("live")?;
        let data = self.load(&store)?;
        let order = Permutation::new(self.params.records, self.params.seed ^ 1);
        let mut rng = Rng::new(self.params.seed);
        let (mut key, mut value) = (data.keys().buffer(), Vec::new());
        let mut last = Vec::new();
        for number in 0..self.params.records {
            data.keys().write(order.at(number), &mut key);
            data.values().write(&key, &mut rng, &mut value);
            store.keyspace.put(&key, &value)?;
            last.clone_from(&key);
        }
        let log = store.db().stats().log_live_bytes;
        // What a killed process leaves behind is what the kernel holds of its files: a copy of the
        // directory, made while nobody writes, is that.
        store.db().wait_idle()?;
        disk_space::copy_dir(&store.dir, &self.dir.join("killed"))?;
        drop(store);

        let began = Instant::now();
        let store = self.open("killed")?;
        read(&store, &last)?;
        let opened = milliseconds(began);
        let began = Instant::now();
        drop(store);
        let closed = milliseconds(began);
        Ok(vec![
            figure(
                "open",
                "open after a kill, read one",
                Unit::Milliseconds,
                opened,
            ),
            figure(
                "log",
                "log that recovery read, at most",
                Unit::Bytes,
                log as f64,
            ),
            figure("close", "close", Unit::Milliseconds, closed),
        ])
    }
}

/// Reads a key that must be there, with the right value.
fn read(store: &Store, key: &[u8]) -> Result<()> {
    let right = |value: &[u8]| crate::data::is_value_of(key, value);
    match store.keyspace.get_with(key, right)? {
        Some(true) => Ok(()),
        _ => Err(Error::wrong(format!(
            "key {} is lost, or has a value never written",
            key.escape_ascii()
        ))),
    }
}

/// Counts the entries of a view, which must be `expected`.
fn count(view: &impl KvRead, expected: u64) -> Result<u64> {
    let mut scan = view.iter();
    let mut entries = 0;
    while scan
        .next_with(|_, value| std::hint::black_box(value.len()))?
        .is_some()
    {
        entries += 1;
    }
    if entries != expected {
        return Err(Error::wrong(format!(
            "a snapshot shows {entries} records of {expected}"
        )));
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subject::Variant;
    use crate::suite::contestant::Contestant;
    use crate::suite::scenarios::{FirstHalf, Trial};
    use crate::targets::TargetOptions;
    use crate::workload::Params;

    #[test]
    fn a_cold_read_in_the_process_that_filled_says_so() {
        for variant in Variant::ENGINES {
            let dir = tempfile::tempdir().unwrap();
            let contestant = Contestant::from(variant);
            let run = Run {
                dir: dir.path(),
                contestant: &contestant,
                options: TargetOptions::default(),
                params: Params {
                    records: 300,
                    ..Params::default()
                },
            };
            let figures = Trial::ColdOpen.run(&run).unwrap();
            let says_so = |figure: &Figure| figure.label.contains("same process");
            assert!(
                figures.len() >= 3 && figures.iter().all(says_so),
                "{figures:?}"
            );

            // Again with a first half, after which any other process can go on.
            std::fs::remove_dir_all(dir.path().join(COLD)).unwrap();
            let first_half = Trial::ColdOpen.first_half(&run).unwrap();
            assert!(matches!(first_half, Some(FirstHalf::Closed)));
            let ids: Vec<_> = figures.iter().map(|figure| figure.id).collect();
            let figures = Trial::ColdOpen.run(&run).unwrap();
            assert!(!figures.iter().any(says_so), "{figures:?}");
            assert!(figures.iter().map(|figure| figure.id).eq(ids));
            assert!(figures.iter().all(|figure| figure.value >= 0.0));
        }
    }
}
