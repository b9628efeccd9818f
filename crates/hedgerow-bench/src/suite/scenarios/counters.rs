//! The trade-off run of counters: merges beside reading, changing and writing back.

use std::thread;
use std::time::Instant;

use ::hedgerow::{AddI64, Db, Durability, EngineKind, Keyspace, KeyspaceOptions};

use super::run::{Figure, Run, figure};
use crate::error::{Error, Result};
use crate::targets::hedgerow::HedgerowTarget;
use crate::verdict::Unit;

/// Threads that count.
const THREADS: u64 = 8;
/// Counters, where there are several.
const MANY: u64 = 1000;
/// Increments between two looks at the time.
const STEP: u64 = 64;

/// How a counter is incremented.
#[derive(Debug, Clone, Copy)]
enum Way {
    Merge,
    Update,
}

impl Way {
    fn increment(self, counters: &Keyspace, counter: u64) -> Result<()> {
        let key = counter.to_be_bytes();
        match self {
            Self::Merge => counters.merge(key, 1i64.to_le_bytes())?,
            Self::Update => {
                let next = |old: Option<&[u8]>| {
                    let old = old.map_or(0, AddI64::decode);
                    Some((old + 1).to_le_bytes())
                };
                counters.update(key, next)?.seq
            }
        };
        Ok(())
    }
}

impl Run<'_> {
    /// Increments a second of all threads, of `count` counters.
    fn count(&self, db: &Db, engine: EngineKind, way: Way, count: u64) -> Result<f64> {
        let name = format!("{way:?} {count}");
        let options = KeyspaceOptions::new(engine).merge_operator("add-i64");
        let counters = db.keyspace_with(&name, options)?;
        let counters = counters.with_durability(Durability::Buffered);
        let share = (self.params.records / THREADS).max(STEP);
        let began = Instant::now();
        let work = |thread: u64| -> Result<u64> {
            let mut done = 0;
            while done < share && (done == 0 || !self.is_late(began)) {
                for at in done..done + STEP {
                    way.increment(&counters, (at * THREADS + thread) % count)?;
                }
                done += STEP;
            }
            Ok(done)
        };
        let done = thread::scope(|scope| {
            let work = &work;
            let threads: Vec<_> = (0..THREADS)
                .map(|thread| scope.spawn(move || work(thread)))
                .collect();
            let joined = threads.into_iter().map(|thread| {
                let panicked = |_| Error::failed("a thread panicked");
                thread.join().map_err(panicked)?
            });
            joined.sum::<Result<u64>>()
        })?;
        let elapsed = began.elapsed().as_secs_f64();
        let mut sum = 0;
        for value in counters.values() {
            sum += AddI64::decode(&value?);
        }
        if sum != done as i64 {
            return Err(Error::wrong("increments were lost"));
        }
        Ok(done as f64 / elapsed)
    }

    pub(super) fn counters(&self) -> Result<Vec<Figure>> {
        let variant = self.contestant.variant.ok_or_else(|| {
            let store = self.contestant.subject;
            Error::usage(format!(
                "counters are those of hedgerow, and not of {store}"
            ))
        })?;
        let dir = self.store_dir("counters")?;
        let target = HedgerowTarget::open(&dir, variant, &self.options)?;
        let engine = variant.engine();
        let cases = [
            ("merge_one", "merge, one counter", Way::Merge, 1),
            ("update_one", "update, one counter", Way::Update, 1),
            ("merge_many", "merge, 1,000 counters", Way::Merge, MANY),
            ("update_many", "update, 1,000 counters", Way::Update, MANY),
        ];
        let mut figures = Vec::new();
        for (id, label, way, count) in cases {
            let rate = self.count(target.db(), engine, way, count)?;
            figures.push(figure(id, label, Unit::PerSecond, rate));
        }
        Ok(figures)
    }
}
