//! Trade-off runs: what the textbooks claim about the engines and no workload of db_bench or YCSB
//! shows. Each makes stores of its own and gives a handful of figures.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use hedgerow::{Db, Keyspace, KvRead};

use super::disk_space;
use crate::data::ValueSize;
use crate::dataset::DataSet;
use crate::error::{Error, Result};
use crate::histogram::Histogram;
use crate::machine::Usage;
use crate::permutation::Permutation;
use crate::rng::Rng;
use crate::runner::run as run_workload;
use crate::subject::Variant;
use crate::targets::TargetOptions;
use crate::targets::hedgerow::HedgerowTarget;
use crate::verdict::Unit;
use crate::workload::{Params, Workload};

/// A trade-off run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Trial {
    /// A queue: append at one end, take from the other.
    Queue,
    /// Nine tenths of the keys are removed: what comes back of the space, and when?
    BulkDelete,
    /// Everything is overwritten while a snapshot wants the old values.
    HeldSnapshot,
    /// A store is opened and read that no cache knows.
    ColdOpen,
    /// A store is opened whose process was killed.
    Recovery,
    /// Values of one size, in bytes, with as many records as make the same amount of data.
    ValueSize(usize),
    /// Data of this many times the memory.
    MemoryRatio(f64),
}

/// A figure of a trade-off run.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    /// Its name for programs.
    pub id: &'static str,
    /// Its name for people.
    pub label: &'static str,
    /// What it counts.
    pub unit: Unit,
    /// How much.
    pub value: f64,
}

/// Entries that a queue holds.
const QUEUE_LENGTH: u64 = 1000;
/// Reads of a cold store.
const COLD_READS: u64 = 2000;

impl Trial {
    /// How trade-off runs are asked for.
    pub const NAMES: [&str; 7] = [
        "queue",
        "bulkdelete",
        "heldsnapshot",
        "coldopen",
        "recovery",
        "valuesize:BYTES",
        "memratio:TIMES",
    ];

    /// Parses a request; `None` if it is not one for a trade-off run.
    pub fn parse(request: &str) -> Result<Option<Self>> {
        let (name, argument) = match request.split_once(':') {
            Some((name, argument)) => (name, Some(argument)),
            None => (request, None),
        };
        let trial = match name {
            "queue" => Self::Queue,
            "bulkdelete" => Self::BulkDelete,
            "heldsnapshot" => Self::HeldSnapshot,
            "coldopen" => Self::ColdOpen,
            "recovery" => Self::Recovery,
            "valuesize" => match argument.map(str::parse) {
                Some(Ok(bytes)) if bytes <= hedgerow::MAX_VALUE_LEN_BYTES => {
                    return Ok(Some(Self::ValueSize(bytes)));
                }
                _ => {
                    return Err(Error::usage(format!(
                        "{request:?} needs a size in bytes, as valuesize:1000, of at most {}",
                        hedgerow::MAX_VALUE_LEN_BYTES
                    )));
                }
            },
            "memratio" => match argument.map(str::parse::<f64>) {
                Some(Ok(ratio)) if ratio > 0.0 && ratio <= 1000.0 => {
                    return Ok(Some(Self::MemoryRatio(ratio)));
                }
                _ => {
                    return Err(Error::usage(format!(
                        "{request:?} needs how many times the memory, as memratio:0.5"
                    )));
                }
            },
            _ => return Ok(None),
        };
        match argument {
            None => Ok(Some(trial)),
            Some(_) => Err(Error::usage(format!("{name} takes no argument"))),
        }
    }

    /// What it shows, in a line.
    pub fn about(self) -> &'static str {
        match self {
            Self::Queue => {
                "append at one end, take the first entry at the other: deletions pile up before \
                 the first live key"
            }
            Self::BulkDelete => "remove 90 % of the keys by one range, then by compaction",
            Self::HeldSnapshot => "overwrite everything while a snapshot wants the old values",
            Self::ColdOpen => "open and read a store of which nothing is in memory",
            Self::Recovery => "open a store that was killed, its last commits only in the log",
            Self::ValueSize(_) => "the same amount of data in values of one size",
            Self::MemoryRatio(_) => "data of so many times the memory",
        }
    }

    /// The figures that it runs with.
    pub fn params(self, params: &Params, memory_bytes: u64) -> Params {
        let mut own = Params {
            rate_per_s: None,
            ..params.clone()
        };
        match self {
            Self::ValueSize(bytes) => {
                let total = params.live_bytes();
                own.values = ValueSize::fixed(bytes);
                let each = (own.key_len_bytes + bytes).max(1) as u64;
                own.records = (total / each).max(100);
            }
            Self::MemoryRatio(ratio) => {
                own.records = params.records_in(memory_bytes as f64 * ratio)
            }
            _ => {}
        }
        own
    }

    /// Runs it on `variant` with its [own figures](Self::params), in a directory that exists and is
    /// empty.
    pub fn run(
        self,
        dir: &Path,
        variant: Variant,
        options: &TargetOptions,
        params: Params,
    ) -> Result<Vec<Figure>> {
        let trial = Run {
            dir,
            variant,
            options: *options,
            params,
        };
        match self {
            Self::Queue => trial.queue(),
            Self::BulkDelete => trial.bulk_delete(),
            Self::HeldSnapshot => trial.held_snapshot(),
            Self::ColdOpen => trial.cold_open(),
            Self::Recovery => trial.recovery(),
            Self::ValueSize(_) => trial.value_size(),
            Self::MemoryRatio(_) => trial.memory_ratio(),
        }
    }
}

impl fmt::Display for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Queue => "queue",
            Self::BulkDelete => "bulkdelete",
            Self::HeldSnapshot => "heldsnapshot",
            Self::ColdOpen => "coldopen",
            Self::Recovery => "recovery",
            Self::ValueSize(bytes) => return write!(f, "valuesize:{bytes}"),
            Self::MemoryRatio(ratio) => return write!(f, "memratio:{ratio}"),
        })
    }
}

/// A trade-off run on one variant.
struct Run<'a> {
    dir: &'a Path,
    variant: Variant,
    options: TargetOptions,
    params: Params,
}

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
        let dir = self.dir.join(name);
        if !dir.is_dir() {
            std::fs::create_dir(&dir).map_err(|source| Error::io("making", &dir, source))?;
        }
        let target = HedgerowTarget::open(&dir, self.variant, &self.options)?;
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

    fn queue(&self) -> Result<Vec<Figure>> {
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

    fn is_late(&self, began: Instant) -> bool {
        let limit = self.params.duration;
        limit.is_some_and(|limit| began.elapsed() > limit)
    }

    fn bulk_delete(&self) -> Result<Vec<Figure>> {
        let store = self.open("bulk")?;
        let data = self.load(&store)?;
        let full = store.tree_bytes();
        let mut key = data.keys().buffer();
        // Of hashed keys the numbers are no range, but the first byte is spread evenly.
        let (mut first, mut last) = (Vec::new(), Vec::new());
        if self.params.key_shape == crate::data::KeyShape::Hashed {
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

    fn held_snapshot(&self) -> Result<Vec<Figure>> {
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

    fn cold_open(&self) -> Result<Vec<Figure>> {
        let store = self.open("cold")?;
        let data = self.load(&store)?;
        store.db().compact()?;
        store.db().wait_idle()?;
        drop(store);
        disk_space::evict(self.dir)?;

        let order = Permutation::new(self.params.records, self.params.seed);
        let mut key = data.keys().buffer();
        let before = Usage::now();
        let began = Instant::now();
        let store = self.open("cold")?;
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
            figure("open", "open and read one", Unit::Milliseconds, opened),
            figure(
                "mean",
                "cold read, mean",
                Unit::Microseconds,
                latencies.mean() / 1e3,
            ),
            figure(
                "p99",
                "cold read, p99",
                Unit::Microseconds,
                latencies.percentile(99.0) as f64 / 1e3,
            ),
        ];
        if let Some(fetched) = Usage::now().since(&before).fetched_bytes {
            let each = fetched as f64 / (latencies.count() + 1) as f64;
            figures.push(figure(
                "fetched",
                "fetched per cold read",
                Unit::Bytes,
                each,
            ));
        }
        Ok(figures)
    }

    fn recovery(&self) -> Result<Vec<Figure>> {
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
        copy_dir(&store.dir, &self.dir.join("killed"))?;
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

    fn value_size(&self) -> Result<Vec<Figure>> {
        let store = self.open("values")?;
        let mut data = DataSet::new(&self.params)?;
        let mut run = |name: &str| {
            disk_space::settle_disk(&store.dir);
            run_workload(&store.target, &store.dir, &workload(name)?, &mut data)
        };
        let fill = run("fillrandom")?;
        let read = run("readrandom")?;
        let overwrite = run("overwrite")?;
        let mut figures = vec![
            figure(
                "fill",
                "fillrandom, settled",
                Unit::PerSecond,
                fill.settled_ops_per_s(),
            ),
            figure("read", "readrandom", Unit::PerSecond, read.ops_per_s()),
            figure(
                "overwrite",
                "overwrite, settled",
                Unit::PerSecond,
                overwrite.settled_ops_per_s(),
            ),
        ];
        let amplifications = [
            (
                "write_amplification",
                "write amplification of overwrite",
                overwrite.write_amplification(),
            ),
            (
                "space_amplification",
                "space amplification",
                overwrite.space_amplification(),
            ),
        ];
        for (id, label, amplification) in amplifications {
            if let Some(amplification) = amplification {
                figures.push(figure(id, label, Unit::Times, amplification));
            }
        }
        Ok(figures)
    }

    fn memory_ratio(&self) -> Result<Vec<Figure>> {
        let store = self.open("memory")?;
        // In order: the random fill of a store larger than memory has no end; see `overwrite`.
        let mut data = DataSet::new(&self.params)?;
        let mut run = |name: &str| {
            disk_space::settle_disk(&store.dir);
            run_workload(&store.target, &store.dir, &workload(name)?, &mut data)
        };
        let fill = run("fillseq")?;
        let read = run("readrandom")?;
        let seek = run("seekrandom")?;
        let overwrite = run("overwrite")?;
        let reread = run("readrandom")?;
        let mut figures = vec![
            figure(
                "fill",
                "fillseq, settled",
                Unit::PerSecond,
                fill.settled_ops_per_s(),
            ),
            figure("read", "readrandom", Unit::PerSecond, read.ops_per_s()),
            figure("seek", "seekrandom", Unit::PerSecond, seek.ops_per_s()),
            figure(
                "overwrite",
                "overwrite, settled",
                Unit::PerSecond,
                overwrite.settled_ops_per_s(),
            ),
            figure(
                "reread",
                "readrandom, after overwrite",
                Unit::PerSecond,
                reread.ops_per_s(),
            ),
        ];
        if let Some(fetched) = read.device_read_bytes {
            let each = fetched as f64 / read.ops.max(1) as f64;
            figures.push(figure(
                "fetched",
                "fetched per readrandom",
                Unit::Bytes,
                each,
            ));
        }
        if let Some(amplification) = overwrite.write_amplification() {
            figures.push(figure(
                "write_amplification",
                "write amplification of overwrite",
                Unit::Times,
                amplification,
            ));
        }
        Ok(figures)
    }
}

fn figure(id: &'static str, label: &'static str, unit: Unit, value: f64) -> Figure {
    Figure {
        id,
        label,
        unit,
        value,
    }
}

fn workload(request: &str) -> Result<Workload> {
    request.parse()
}

fn milliseconds(began: Instant) -> f64 {
    began.elapsed().as_secs_f64() * 1e3
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

fn copy_dir(from: &Path, to: &Path) -> Result<()> {
    let copy = || -> std::io::Result<()> {
        let mut pending = vec![(from.to_path_buf(), to.to_path_buf())];
        while let Some((from, to)) = pending.pop() {
            std::fs::create_dir(&to)?;
            for entry in std::fs::read_dir(&from)? {
                let entry = entry?;
                let copy = to.join(entry.file_name());
                if entry.file_type()?.is_dir() {
                    pending.push((entry.path(), copy));
                } else {
                    std::fs::copy(entry.path(), copy)?;
                }
            }
        }
        Ok(())
    };
    copy().map_err(|source| Error::io("copying the store to", to, source))
}
