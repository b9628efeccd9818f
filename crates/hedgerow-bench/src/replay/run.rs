//! Replaying a plan on a fresh store of one engine, and measuring it.
//!
//! One thread does the events in the order of time. Loading what must be there first is not
//! measured: the store is flushed and idle when the clock starts. The cost of a workload includes
//! what it leaves for later, so bytes, CPU time and the size on disk are taken after a flush and
//! `wait_idle`, and the rate is given with that time and without.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::path::Path;
use std::time::{Duration, Instant};

use hedgerow::trace::{Change, Event, Key, Op};
use hedgerow::{Db, Durability, EngineKind, Keyspace, MAX_VALUE_LEN_BYTES, Options, Value};
use serde_json::{Map, Value as Json, json};

use super::plan::{Plan, ops_of};
use crate::data::{ValueSize, Values};
use crate::error::{Error, Result};
use crate::histogram::Histogram;
use crate::machine::Usage;
use crate::rng::Rng;
use crate::stop;

/// Values are cut from a pool of at least this length.
const POOL_BYTES: usize = 1 << 20;
/// What they compress to, as in db_bench.
const COMPRESSED_FRACTION: f64 = 0.5;
/// Records committed together while loading.
const LOAD_BATCH: usize = 1000;

/// How to replay.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Wait for the recorded time of each event; otherwise go as fast as possible.
    pub recorded_speed: bool,
    /// Budget of the cache of blocks and pages, in bytes.
    pub cache_bytes: u64,
    /// Budget of memtables and dirty pages, in bytes.
    pub write_buffer_bytes: u64,
    /// Stop after this time.
    pub limit: Option<Duration>,
    /// Stop after so many events: where another engine's replay stopped.
    pub limit_events: Option<usize>,
}

/// What a replay cost.
#[derive(Debug)]
pub struct Measured {
    /// The engine.
    pub engine: EngineKind,
    /// Operations done.
    pub ops: u64,
    /// The events they came in.
    pub events: usize,
    /// True if a limit of time came before the end.
    pub cut: bool,
    /// Time until the last operation.
    pub busy: Duration,
    /// Time until all background work was done.
    pub settled: Duration,
    /// Latencies in nanoseconds per kind of operation.
    pub latencies: BTreeMap<&'static str, Histogram>,
    /// Bytes of keys and values that the operations wrote.
    pub user_bytes: u64,
    /// Bytes written to files for them.
    pub written_bytes: u64,
    /// Bytes of the keyspaces' files.
    pub disk_bytes: u64,
    /// Bytes of the keys and values in them.
    pub live_bytes: u64,
    /// CPU time, until all background work was done.
    pub cpu: Option<Duration>,
    /// Buffers, cache and pinned indexes after the last operation.
    pub memory_bytes: u64,
    /// How long writers were slowed or stopped, in milliseconds.
    pub stalled_ms: u64,
}

impl Measured {
    /// Nothing so far.
    fn new(engine: EngineKind) -> Self {
        Self {
            engine,
            ops: 0,
            events: 0,
            cut: false,
            busy: Duration::ZERO,
            settled: Duration::ZERO,
            latencies: BTreeMap::new(),
            user_bytes: 0,
            written_bytes: 0,
            disk_bytes: 0,
            live_bytes: 0,
            cpu: None,
            memory_bytes: 0,
            stalled_ms: 0,
        }
    }

    /// Operations a second, without the work left for later.
    pub fn rate(&self) -> f64 {
        self.ops as f64 / self.busy.as_secs_f64().max(1e-9)
    }

    /// Operations a second, until the store was idle.
    pub fn settled_rate(&self) -> f64 {
        self.ops as f64 / self.settled.as_secs_f64().max(1e-9)
    }

    /// Bytes written to files for each byte that the operations wrote.
    pub fn write_amplification(&self) -> Option<f64> {
        (self.user_bytes > 0).then(|| self.written_bytes as f64 / self.user_bytes as f64)
    }

    /// Bytes on disk for each byte of keys and values.
    pub fn space_amplification(&self) -> Option<f64> {
        (self.live_bytes > 0).then(|| self.disk_bytes as f64 / self.live_bytes as f64)
    }

    /// One figure for latency, in nanoseconds: over the kinds of operations, weighted by their
    /// number, the geometric mean of median and 99th percentile.
    pub fn latency(&self) -> f64 {
        let count: u64 = self.latencies.values().map(Histogram::count).sum();
        let logs = self.latencies.values().map(|histogram| {
            let (p50, p99) = (histogram.percentile(50.0), histogram.percentile(99.0));
            let log = ((p50.max(1) as f64).ln() + (p99.max(1) as f64).ln()) / 2.0;
            log * histogram.count() as f64
        });
        (logs.sum::<f64>() / count.max(1) as f64).exp()
    }

    /// The figures for programs.
    pub fn to_json(&self) -> Json {
        let latencies: Map<String, Json> = self
            .latencies
            .iter()
            .map(|(kind, histogram)| {
                let figures = json!({
                    "count": histogram.count(),
                    "p50_ns": histogram.percentile(50.0),
                    "p99_ns": histogram.percentile(99.0),
                    "p999_ns": histogram.percentile(99.9),
                    "max_ns": histogram.max(),
                });
                ((*kind).to_owned(), figures)
            })
            .collect();
        json!({
            "ops": self.ops,
            "ops_per_s": self.rate(),
            "ops_per_s_until_idle": self.settled_rate(),
            "cpu_s": self.cpu.map(|cpu| cpu.as_secs_f64()),
            "memory_bytes": self.memory_bytes,
            "user_bytes": self.user_bytes,
            "bytes_written": self.written_bytes,
            "write_amplification": self.write_amplification(),
            "disk_bytes": self.disk_bytes,
            "live_bytes": self.live_bytes,
            "space_amplification": self.space_amplification(),
            "stalled_ms": self.stalled_ms,
            "latencies": latencies,
        })
    }
}

/// Replays `plan` on `engine`, in a store in `dir`, which must not exist.
pub fn run(plan: &Plan, engine: EngineKind, dir: &Path, settings: &Settings) -> Result<Measured> {
    let db = Options::new()
        .durability(Durability::Buffered)
        .cache_bytes(settings.cache_bytes)
        .write_buffer_bytes(settings.write_buffer_bytes)
        .open(dir)?;
    let replayer = Replayer::new(plan, engine, &db)?;
    let measured = replayer.measure(plan, engine, &db, settings);
    db.close()?;
    measured.map_err(|error| error.during(format!("replaying on {engine}")))
}

struct Replayer {
    keyspaces: HashMap<u32, Keyspace>,
    /// Half-compressible bytes that values are cut from.
    pool: Vec<u8>,
}

impl Replayer {
    fn new(plan: &Plan, engine: EngineKind, db: &Db) -> Result<Self> {
        let mut keyspaces = HashMap::new();
        for (id, name) in &plan.keyspaces {
            // The number keeps apart keyspaces of one name that lived one after the other.
            let mut name = name.clone();
            if db.existing_keyspace(&name)?.is_some() {
                name = format!("#{id}");
            }
            keyspaces.insert(*id, db.keyspace(&name, engine)?);
        }
        let len = (POOL_BYTES + plan.value_len_max as usize).min(MAX_VALUE_LEN_BYTES);
        let values = Values::new(ValueSize::fixed(len), COMPRESSED_FRACTION, 1)?;
        let mut pool = Vec::new();
        values.write(b"", &mut Rng::new(1), &mut pool);
        Ok(Self { keyspaces, pool })
    }

    fn keyspace(&self, id: u32) -> Result<&Keyspace> {
        self.keyspaces
            .get(&id)
            .ok_or_else(|| Error::failed(format!("keyspace #{id} is not in the trace")))
    }

    /// The value number `n`, of `len` bytes.
    fn value(&self, n: u64, len: u64) -> &[u8] {
        let len = (len as usize).min(self.pool.len());
        // A step that is coprime to most lengths, so that neighbours differ.
        let start = n.wrapping_mul(7919) as usize % (self.pool.len() - len + 1);
        &self.pool[start..start + len]
    }

    fn measure(
        &self,
        plan: &Plan,
        engine: EngineKind,
        db: &Db,
        settings: &Settings,
    ) -> Result<Measured> {
        self.load(plan, db)?;
        let written_before = db.stats().bytes_written();
        let stalled = |db: &Db| {
            let stats = db.stats();
            stats.slowed_ms + stats.stopped_ms
        };
        let stalled_before = stalled(db);
        let usage_before = Usage::now();
        let mut measured = Measured::new(engine);

        let began = Instant::now();
        self.events(plan, db, settings, began, &mut measured)?;
        measured.busy = began.elapsed();
        measured.memory_bytes = memory(db);
        db.flush()?;
        db.wait_idle()?;
        measured.settled = began.elapsed();
        measured.cpu = Usage::now().since(&usage_before).cpu;
        let stats = db.stats();
        measured.written_bytes = stats.bytes_written() - written_before;
        measured.disk_bytes = stats.keyspaces.iter().map(|ks| ks.stats.disk_bytes).sum();
        measured.stalled_ms = stalled(db) - stalled_before;
        for keyspace in self.keyspaces.values() {
            let mut scan = keyspace.iter();
            while let Some(bytes) = scan.next_with(|key, value| key.len() + value.len())? {
                measured.live_bytes += bytes as u64;
            }
        }
        Ok(measured)
    }

    /// Loads what must be there first, in random order: a store that has lived was not written in
    /// the order of keys.
    fn load(&self, plan: &Plan, db: &Db) -> Result<()> {
        let mut order: Vec<&(u32, Value, u64)> = plan.preload.iter().collect();
        // Preloads come from hash tables; sorting first makes the order the same in every run.
        order.sort_unstable();
        let mut rng = Rng::new(2);
        for at in (1..order.len()).rev() {
            order.swap(at, rng.below(at as u64 + 1) as usize);
        }
        for (part, chunk) in order.chunks(LOAD_BATCH).enumerate() {
            stop::check()?;
            let mut batch = db.batch();
            for (at, (id, key, len)) in chunk.iter().enumerate() {
                let n = (part * LOAD_BATCH + at) as u64;
                batch.put(self.keyspace(*id)?, key, self.value(n, *len));
                if batch.len_bytes() > 64 << 20 {
                    db.write(std::mem::take(&mut batch), Durability::Buffered)?;
                }
            }
            db.write(batch, Durability::Buffered)?;
        }
        db.flush()?;
        Ok(db.wait_idle()?)
    }

    fn events(
        &self,
        plan: &Plan,
        db: &Db,
        settings: &Settings,
        began: Instant,
        measured: &mut Measured,
    ) -> Result<()> {
        let first_us = plan.events.first().map_or(0, |event| event.time_us);
        let limit = settings.limit_events.unwrap_or(usize::MAX);
        let mut last = began;
        for (at, event) in plan.events.iter().enumerate().take(limit) {
            if at % 1024 == 0 {
                stop::check()?;
                if settings.limit.is_some_and(|limit| began.elapsed() >= limit) {
                    measured.cut = true;
                    break;
                }
            }
            // At the recorded speed, latency counts from when the event was due, not from when a
            // slow store let it begin.
            let start = if settings.recorded_speed {
                let due = began + Duration::from_micros(event.time_us - first_us);
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                due
            } else {
                last
            };
            let kind = self.event(event, at as u64, db, measured)?;
            last = Instant::now();
            let nanos = last.saturating_duration_since(start).as_nanos() as u64;
            measured.latencies.entry(kind).or_default().record(nanos);
            measured.ops += ops_of(&event.op);
            measured.events += 1;
        }
        Ok(())
    }

    /// Does one event and says of which kind it was.
    fn event(
        &self,
        event: &Event,
        n: u64,
        db: &Db,
        measured: &mut Measured,
    ) -> Result<&'static str> {
        Ok(match &event.op {
            Op::Get {
                keyspace, lookup, ..
            } => {
                let found = self
                    .keyspace(*keyspace)?
                    .get_with(bytes(&lookup.key), touch)?;
                if found.is_some() {
                    "get hit"
                } else {
                    "get miss"
                }
            }
            Op::Contains { keyspace, key, .. } => {
                self.keyspace(*keyspace)?.contains_key(bytes(key))?;
                "contains"
            }
            Op::MultiGet {
                keyspace, lookups, ..
            } => {
                let keys: Vec<&[u8]> = lookups.iter().map(|lookup| bytes(&lookup.key)).collect();
                self.keyspace(*keyspace)?.multi_get(&keys)?;
                "multi_get"
            }
            Op::Write {
                durability,
                changes,
                batch: false,
                ..
            } if changes.len() == 1 => {
                measured.user_bytes += change_bytes(&changes[0]);
                self.single(&changes[0], *durability, n)?
            }
            Op::Write {
                durability,
                changes,
                ..
            } => {
                let mut batch = db.batch();
                for (change, n) in changes.iter().zip(n..) {
                    measured.user_bytes += change_bytes(change);
                    let keyspace = self.keyspace(change.keyspace())?;
                    match change {
                        Change::Put {
                            key,
                            value_len_bytes,
                            value,
                            ..
                        } => {
                            let made = || self.value(n, *value_len_bytes);
                            batch.put(keyspace, bytes(key), value.as_deref().unwrap_or_else(made));
                        }
                        Change::Delete { key, .. } => batch.delete(keyspace, bytes(key)),
                        Change::DeleteRange { start, end, .. } => {
                            batch.delete_range(keyspace, bounds(start, end.as_ref()));
                        }
                    }
                }
                db.write(batch, *durability)?;
                "batch"
            }
            Op::Scan {
                keyspace,
                start,
                end,
                forward,
                backward,
                ..
            } => {
                let mut scan = self.keyspace(*keyspace)?.range(bounds(start, end.as_ref()));
                for _ in 0..*forward {
                    if scan.next_with(|_, value| touch(value))?.is_none() {
                        break;
                    }
                }
                for _ in 0..*backward {
                    if scan.next_back_with(|_, value| touch(value))?.is_none() {
                        break;
                    }
                }
                "scan"
            }
            Op::Snapshot { keyspace } => {
                match keyspace {
                    Some(id) => drop(self.keyspace(*id)?.snapshot()),
                    None => drop(db.snapshot()),
                }
                "snapshot"
            }
            Op::Flush { keyspace } => {
                match keyspace {
                    Some(id) => self.keyspace(*id)?.flush()?,
                    None => db.flush()?,
                }
                "flush"
            }
            Op::Compact { keyspace } => {
                match keyspace {
                    Some(id) => self.keyspace(*id)?.compact()?,
                    None => db.compact()?,
                }
                "compact"
            }
            Op::Sync => {
                db.sync()?;
                "sync"
            }
            other => return Err(Error::failed(format!("cannot replay {other:?}"))),
        })
    }

    fn single(&self, change: &Change, durability: Durability, n: u64) -> Result<&'static str> {
        let keyspace = self
            .keyspace(change.keyspace())?
            .with_durability(durability);
        Ok(match change {
            Change::Put {
                key,
                value_len_bytes,
                value,
                ..
            } => {
                let made = || self.value(n, *value_len_bytes);
                keyspace.put(bytes(key), value.as_deref().unwrap_or_else(made))?;
                "put"
            }
            Change::Delete { key, .. } => {
                keyspace.delete(bytes(key))?;
                "delete"
            }
            Change::DeleteRange { start, end, .. } => {
                keyspace.delete_range(bounds(start, end.as_ref()))?;
                "delete_range"
            }
        })
    }
}

/// The bytes of a key of a plan.
fn bytes(key: &Key) -> &[u8] {
    match key {
        Key::Contents(bytes) => bytes,
        Key::Hashed { .. } => unreachable!("plans give every key its bytes"),
    }
}

fn bounds<'a>(start: &'a Key, end: Option<&'a Key>) -> (Bound<&'a [u8]>, Bound<&'a [u8]>) {
    let end = end.map_or(Bound::Unbounded, |end| Bound::Excluded(bytes(end)));
    (Bound::Included(bytes(start)), end)
}

fn change_bytes(change: &Change) -> u64 {
    match change {
        Change::Put {
            key,
            value_len_bytes,
            ..
        } => key.len_bytes() as u64 + value_len_bytes,
        Change::Delete { key, .. } => key.len_bytes() as u64,
        Change::DeleteRange { start, end, .. } => {
            (start.len_bytes() + end.as_ref().map_or(0, Key::len_bytes)) as u64
        }
    }
}

/// Looks at a value as a program would: at its first byte and its last.
fn touch(value: &[u8]) -> u8 {
    std::hint::black_box(value.first().copied().unwrap_or(0) ^ value.last().copied().unwrap_or(0))
}

fn memory(db: &Db) -> u64 {
    let stats = db.stats();
    let engines = stats.keyspaces.iter();
    let engines = engines.map(|ks| ks.stats.write_buffer_bytes + ks.stats.pinned_bytes);
    stats.cache_used_bytes + engines.sum::<u64>()
}

#[cfg(test)]
mod tests {
    use super::super::profile::tests::{event, put};
    use super::*;

    /// What was done to one keyspace was done to all of them.
    #[test]
    fn what_is_flushed_alone_is_flushed_alone() {
        for (is_one, expected) in [(true, [true, false]), (false, [true, true])] {
            let home = tempfile::tempdir().unwrap();
            let db = Db::open(home.path().join("store")).unwrap();
            let plan = Plan {
                keyspaces: vec![(1, "a".to_owned()), (2, "b".to_owned())],
                value_len_max: 10,
                ..Plan::default()
            };
            let replayer = Replayer::new(&plan, EngineKind::Lsm, &db).unwrap();
            replayer.keyspaces[&2].put("k", "v").unwrap();
            let keyspace = is_one.then_some(1);
            let mut measured = Measured::new(EngineKind::Lsm);
            for op in [
                put("k", 10),
                Op::Flush { keyspace },
                Op::Compact { keyspace },
            ] {
                let event = event(0, op);
                replayer.event(&event, 0, &db, &mut measured).unwrap();
            }
            let has_files = |id: u32| replayer.keyspaces[&id].stats().files > 0;
            assert_eq!([has_files(1), has_files(2)], expected);
        }
    }
}
