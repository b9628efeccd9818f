//! A store that lives: what is done to it in each phase.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use hedgerow::{Db, Durability, Keyspace, KeyspaceOptions, Options};

use super::plan::{PHASES, Plan, Until};
use super::records::{Own, check_entry, key_of, write_value};
use crate::error::{Error, Result};
use crate::histogram::Histogram;
use crate::rng::Rng;
use crate::stop;

const MAIN: &str = "records";
const QUEUE: &str = "queue";
/// Entries of the queue, for each record.
const QUEUE_SHARE: u64 = 16;
/// Records of a keyspace that comes and goes.
const PASSING: u64 = 200;

/// A store, and what must be in it.
pub(super) struct Life<'p> {
    plan: &'p Plan,
    dir: PathBuf,
    /// None while it is being reopened.
    open: Option<Open>,
    own: Vec<Own>,
    /// The first and the next number in the queue.
    queue: (u64, u64),
    records: u64,
    /// Phases that were lived through, for seeds.
    lived: u64,
}

struct Open {
    db: Db,
    main: Keyspace,
    queue: Keyspace,
}

impl Open {
    fn new(plan: &Plan, dir: &Path) -> Result<Self> {
        // A fixed share of the size, so that everything happens often.
        let buffer = (plan.size_bytes / 16).clamp(64 << 10, 64 << 20);
        let db = Options::new()
            .durability(Durability::Buffered)
            .write_buffer_bytes(buffer)
            .cache_bytes((plan.size_bytes / 8).max(1 << 20))
            .log_segment_bytes(buffer.max(64 << 10))
            .log_limit_bytes(4 * buffer)
            .open(dir)?;
        let main = db.keyspace_with(MAIN, KeyspaceOptions::new(plan.engine))?;
        let queue = db.keyspace_with(QUEUE, KeyspaceOptions::new(plan.engine))?;
        Ok(Self { db, main, queue })
    }
}

/// Times operations.
struct Timed(Histogram);

impl Timed {
    fn call<T>(&mut self, call: impl FnOnce() -> Result<T>) -> Result<T> {
        let begun = Instant::now();
        let done = call()?;
        self.0.record(begun.elapsed().as_nanos() as u64);
        Ok(done)
    }
}

impl<'p> Life<'p> {
    /// Makes the store and fills it.
    pub(super) fn begin(plan: &'p Plan, dir: &Path) -> Result<Self> {
        let threads = plan.threads.max(1) as u64;
        let records = (plan.size_bytes / (plan.value_bytes as u64 + 20)).max(16 * threads);
        let own = |first| Own::new(first, threads, records, plan.value_bytes);
        let mut life = Self {
            plan,
            dir: dir.to_path_buf(),
            open: Some(Open::new(plan, dir)?),
            own: (0..threads).map(own).collect(),
            queue: (0, 0),
            records,
            lived: 0,
        };
        life.in_threads(|main, own, _, _| {
            for n in 0..own.len() {
                if n.is_multiple_of(64) {
                    stop::check()?;
                }
                own.put(main, n)?;
            }
            Ok(())
        })?;
        life.settle()?;
        Ok(life)
    }

    fn open(&self) -> &Open {
        self.open.as_ref().expect("open between phases")
    }

    /// Lives through a phase, and says how long its operations took.
    pub(super) fn phase(&mut self, phase: usize, until: Until) -> Result<Histogram> {
        self.lived += 1;
        let lived = match phase {
            0 => self.overwrite(until),
            1 => self.queue(until),
            2 => self.read(until),
            3 => self.scan(until),
            4 => self.delete_ranges(until),
            5 => self.keyspaces(until),
            _ => self.reopen(),
        };
        lived.map_err(|error| error.during(format!("{}: {}", self.plan.engine, PHASES[phase])))
    }

    /// Returns when nothing is left to do in the background.
    pub(super) fn settle(&self) -> Result<()> {
        Ok(self.open().db.wait_idle()?)
    }

    /// Bytes of the log that are needed.
    pub(super) fn log_bytes(&self) -> u64 {
        self.open().db.stats().log_live_bytes
    }

    /// Closes the store.
    pub(super) fn end(mut self) -> Result<()> {
        let open = self.open.take().expect("open between phases");
        Ok(open.db.close()?)
    }

    /// Has each thread do `work` with its own records.
    fn in_threads(
        &mut self,
        work: impl Fn(&Keyspace, &mut Own, &mut Rng, &mut Timed) -> Result<()> + Sync,
    ) -> Result<Histogram> {
        let (main, work) = (
            &self.open.as_ref().expect("open between phases").main,
            &work,
        );
        let seed = self.plan.seed ^ self.lived << 8;
        thread::scope(|scope| {
            let threads: Vec<_> = (0..)
                .zip(&mut self.own)
                .map(|(number, own)| {
                    scope.spawn(move || {
                        let mut timed = Timed(Histogram::new());
                        let mut rng = Rng::of_stream(seed, number);
                        work(main, own, &mut rng, &mut timed)?;
                        Ok(timed.0)
                    })
                })
                .collect();
            let mut all = Histogram::new();
            for thread in threads {
                let one: Result<Histogram> = thread
                    .join()
                    .unwrap_or_else(|_| Err(Error::failed("a thread panicked")));
                all.merge(&one?);
            }
            Ok(all)
        })
    }

    /// Puts, a few deletes, and reads of what was just written.
    fn overwrite(&mut self, until: Until) -> Result<Histogram> {
        self.in_threads(|main, own, rng, timed| {
            let mut done = 0;
            while until.goes_on(done)? {
                let n = rng.below(own.len());
                match rng.below(8) {
                    // What was removed comes back, so that there are always as many.
                    0 if own.is_there(n) => {
                        timed.call(|| own.delete(main, n))?;
                        own.check(main, n)?;
                        own.put(main, n)?;
                    }
                    1 => own.check(main, n)?,
                    _ => timed.call(|| own.put(main, n))?,
                }
                done += 1;
            }
            Ok(())
        })
    }

    /// Entries come at the end and leave at the beginning.
    fn queue(&mut self, until: Until) -> Result<Histogram> {
        let queue = self.open().queue.clone();
        let len = (self.records / QUEUE_SHARE).max(16);
        let (mut first, mut next) = self.queue;
        let mut timed = Timed(Histogram::new());
        let (mut value, mut done) = (Vec::new(), 0);
        while until.goes_on(done)? {
            write_value(next, 1, self.plan.value_bytes / 4, &mut value);
            timed.call(|| Ok(queue.put(key_of(next), &value)?))?;
            next += 1;
            if next - first > len {
                let popped = timed.call(|| Ok(queue.pop_first()?))?;
                let found = popped.map(|(key, value)| check_entry(&key, &value));
                if found.transpose()? != Some((first, 1)) {
                    return Err(Error::wrong(format!(
                        "the queue does not begin with {first}"
                    )));
                }
                first += 1;
            }
            done += 1;
        }
        self.queue = (first, next);
        Ok(timed.0)
    }

    fn read(&mut self, until: Until) -> Result<Histogram> {
        self.in_threads(|main, own, rng, timed| {
            let mut done = 0;
            while until.goes_on(done)? {
                let n = rng.below(own.len());
                if rng.below(4) == 0 {
                    // The record, if it is there, and some after it.
                    timed.call(|| {
                        let start = key_of(own.record(n));
                        for item in main.range(&start[..]..).take(20) {
                            let (key, value) = item?;
                            check_entry(&key, &value)?;
                        }
                        Ok(())
                    })?;
                } else {
                    timed.call(|| own.check(main, n))?;
                }
                done += 1;
            }
            Ok(())
        })
    }

    /// A scan of everything and a snapshot live while others write.
    fn scan(&mut self, until: Until) -> Result<Histogram> {
        let Open { db, main, .. } = self.open();
        let (db, main) = (db.clone(), main.clone());
        let expected: u64 = self.own.iter().map(Own::present).sum();
        let snapshot = db.snapshot();
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            let reader = scope.spawn(|| {
                loop {
                    let mut seen = 0;
                    let mut last = None;
                    for item in snapshot.iter(&main) {
                        let (key, value) = item?;
                        let (record, _) = check_entry(&key, &value)?;
                        if last.is_some_and(|last| last >= record) {
                            return Err(Error::wrong("a scan is out of order"));
                        }
                        (last, seen) = (Some(record), seen + 1);
                    }
                    if seen != expected {
                        let story = format!("a snapshot has {seen} entries of {expected}");
                        return Err(Error::wrong(story));
                    }
                    if is_over.load(Ordering::Relaxed) {
                        return Ok(());
                    }
                }
            });
            let written = self.overwrite(until);
            is_over.store(true, Ordering::Relaxed);
            let read = reader.join();
            read.unwrap_or_else(|_| Err(Error::failed("a thread panicked")))?;
            written
        })
    }

    /// A stretch of records goes at once, and comes back one by one.
    fn delete_ranges(&mut self, until: Until) -> Result<Histogram> {
        let main = self.open().main.clone();
        let mut rng = Rng::of_stream(self.plan.seed, self.lived);
        let mut timed = Timed(Histogram::new());
        let stretch = (self.records / 20).clamp(1, 500);
        let mut done = 0;
        while until.goes_on(done)? {
            let low = rng.below(self.records - stretch + 1);
            let high = low + stretch;
            timed.call(|| Ok(main.delete_range(&key_of(low)[..]..&key_of(high)[..])?))?;
            for own in &mut self.own {
                own.removed(low..high);
            }
            if main
                .range(&key_of(low)[..]..&key_of(high)[..])
                .next()
                .is_some()
            {
                return Err(Error::wrong("a range that was deleted has entries"));
            }
            for record in low..high {
                for own in &mut self.own {
                    if let Some(n) = own.place_of(record) {
                        own.put(&main, n)?;
                    }
                }
            }
            // Its puts count, or a phase would be a life.
            done += 1 + stretch;
            done = done.next_multiple_of(32);
        }
        Ok(timed.0)
    }

    /// Keyspaces are made, filled, read and dropped.
    fn keyspaces(&mut self, until: Until) -> Result<Histogram> {
        let db = &self.open().db;
        let mut timed = Timed(Histogram::new());
        let (mut value, mut done) = (Vec::new(), 0);
        while until.goes_on(done)? {
            let name = format!("passing {done}");
            let options = KeyspaceOptions::new(self.plan.engine);
            let passing = timed.call(|| Ok(db.keyspace_with(&name, options)?))?;
            for record in 0..PASSING {
                write_value(record, 1, self.plan.value_bytes / 4, &mut value);
                passing.put(key_of(record), &value)?;
            }
            if done.is_multiple_of(2) {
                passing.flush()?;
            }
            let found = passing.len()?;
            if found != PASSING {
                let story = format!("a new keyspace has {found} entries of {PASSING}");
                return Err(Error::wrong(story));
            }
            drop(passing);
            timed.call(|| Ok(db.drop_keyspace(&name)?))?;
            done = (done + 1 + PASSING).next_multiple_of(32);
        }
        Ok(timed.0)
    }

    /// Closes and opens the store, verifies it, and compares every record.
    fn reopen(&mut self) -> Result<Histogram> {
        let mut timed = Timed(Histogram::new());
        let open = self.open.take().expect("open between phases");
        open.db.close()?;
        drop(open);
        let open = timed.call(|| Open::new(self.plan, &self.dir))?;
        let report = open.db.verify()?;
        if !report.is_clean() {
            let story = format!("verify finds {:?}", report.problems);
            return Err(Error::wrong(story));
        }
        let mut seen = 0;
        for item in &open.main {
            let (key, value) = item?;
            let (record, _) = check_entry(&key, &value)?;
            let mut owners = self.own.iter();
            let owner = owners.find_map(|own| Some((own, own.place_of(record)?)));
            let (own, n) = owner.ok_or_else(|| Error::wrong("a record of no thread"))?;
            own.check_found(n, Some(&value))?;
            seen += 1;
        }
        let expected: u64 = self.own.iter().map(Own::present).sum();
        let queued = open.queue.len()?;
        let (first, next) = self.queue;
        self.open = Some(open);
        if (seen, queued) != (expected, next - first) {
            return Err(Error::wrong(format!(
                "{seen} records of {expected}, and {queued} of {} in the queue",
                next - first
            )));
        }
        Ok(timed.0)
    }
}
