//! `load`: records of a file into a keyspace.

use std::cell::RefCell;
use std::collections::HashSet;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Instant;

use clap::{Args, ValueEnum};
use hedgerow::{Batch, BulkLoad, Db, Durability, EngineKind, Keyspace};
use hedgerow_bench::format::{bytes, counted, thousands};
use hedgerow_bench::stop;
use indicatif::ProgressBar;
use serde_json::json;

use crate::failure::{Failure, Result};
use crate::interrupt;
use crate::output::{Output, byte_progress};
use crate::records::{self, Shape, Tally};
use crate::store::{self, Access, DurabilityArg, EngineArg, KeyspaceArg, StoreArg};

/// A batch is committed at this size even if it has few records.
const BATCH_BYTES_MAX: usize = 8 << 20;

/// Records in a batch, unless that is set.
const BATCH_RECORDS: u64 = 1000;

/// Bytes of keys and values that are sorted, which are all in memory.
const SORTED_BYTES_MAX: usize = 1 << 30;

/// Load records from a file
///
/// Creates the store and the keyspace if they do not exist, at the first commit. Records are
/// committed in batches, and whenever the input pauses; those that come in the order of their keys
/// are written straight to the files of the engine instead, several times as fast, and committed in
/// one. Reading stops at the first bad record, and the error says how many were committed before.
#[derive(Debug, Args)]
pub struct Load {
    #[command(flatten)]
    store: StoreArg,
    /// File to read; - is standard input. What is compressed with gzip or LZ4 is decompressed
    file: PathBuf,
    #[command(flatten)]
    keyspace: KeyspaceArg,
    /// Engine of a keyspace that does not exist yet [default: lsm]
    #[arg(long, value_enum)]
    engine: Option<EngineArg>,
    #[command(flatten)]
    shape: Shape,
    /// What to do with a record whose key is there already, from the file or from before
    #[arg(long, value_enum, default_value = "last")]
    on_duplicate: OnDuplicate,
    /// Records in a commit [default: 1000, or all of them in one if they are sorted]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    batch: Option<u64>,
    /// Sort the records by their keys before they are put: at most 1 GiB of keys and values, in
    /// memory
    #[arg(long)]
    sort: bool,
    /// Durability of each commit; everything is synced before the command ends
    #[arg(long, value_enum, default_value = "buffered")]
    durability: DurabilityArg,
}

/// What becomes of a record whose key is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum OnDuplicate {
    /// Stop
    Error,
    /// Keep the record that is there
    First,
    /// Replace the record that is there
    Last,
}

/// The store and keyspace that records go to. What does not exist is not made before the first
/// commit, so that a mistake in the arguments or in the first records leaves nothing behind.
struct Destination {
    store: StoreArg,
    arg: KeyspaceArg,
    engine: Option<EngineArg>,
    durability: Durability,
    db: Option<Db>,
    keyspace: Option<Keyspace>,
}

impl Destination {
    /// Opens what exists of it.
    fn find(load: &Load) -> Result<Self> {
        let mut found = Self {
            store: load.store.clone(),
            arg: load.keyspace.clone(),
            engine: load.engine,
            durability: load.durability.into(),
            db: None,
            keyspace: None,
        };
        if let Some(db) = store::open_if_there(&found.store)? {
            let keyspace = store::find_to_write(&db, &found.arg, found.engine)?;
            found.keyspace = keyspace.ok();
            found.db = Some(db);
        }
        Ok(found)
    }

    /// The keyspace, made if it does not exist.
    fn create(&mut self) -> Result<&Keyspace> {
        if self.keyspace.is_none() {
            if self.db.is_none() {
                self.db = Some(store::open(&self.store, Access::Create)?);
            }
            let db = self.db.as_ref().expect("it was just opened");
            self.keyspace = Some(store::existing_or_new(db, &self.arg, self.engine)?);
        }
        Ok(self.keyspace.as_ref().expect("it was just made"))
    }

    fn write(&mut self, batch: Batch) -> Result<()> {
        let durability = self.durability;
        self.create()?.write_with(batch, durability)?;
        Ok(())
    }

    fn contains(&self, key: &[u8]) -> Result<bool> {
        match &self.keyspace {
            Some(keyspace) => Ok(keyspace.contains_key(key)?),
            None => Ok(false),
        }
    }

    /// A load of what comes in the order of keys, if that is of use: a B-tree that has something is
    /// written anew by it.
    fn begin_bulk(&mut self) -> Result<Option<BulkLoad>> {
        let keyspace = self.create()?;
        let is_of_use = keyspace.engine() == EngineKind::Lsm || keyspace.is_empty()?;
        Ok(match is_of_use {
            true => Some(keyspace.bulk_load()?),
            false => None,
        })
    }

    fn largest_key(&self) -> Result<Option<Vec<u8>>> {
        let Some(keyspace) = &self.keyspace else {
            return Ok(None);
        };
        Ok(keyspace.iter().next_back_with(|key, _| key.to_vec())?)
    }
}

/// Records by what became of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Counts {
    /// Put, under a key that was not there.
    new: u64,
    /// Put, in place of a record that was there.
    replaced: u64,
    /// Not put, because a record was there.
    kept: u64,
    /// Bytes of keys and values that were put.
    bytes: u64,
}

/// How records are committed.
enum Way {
    /// These are the first ones. If as many as make a batch are in order, all that follow are taken
    /// to be.
    Undecided(Vec<(Vec<u8>, Vec<u8>)>),
    Batches,
    Bulk(Bulk),
}

/// Records in the order of their keys.
struct Bulk {
    load: BulkLoad,
    /// The last one, which the next may replace.
    last: (Vec<u8>, Vec<u8>),
    records: u64,
    bytes: u64,
}

impl Bulk {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        if *key != *self.last.0 {
            self.load.put(&self.last.0, &self.last.1)?;
            self.last.0 = key.to_vec();
        }
        self.last.1 = value.to_vec();
        self.records += 1;
        self.bytes += (key.len() + value.len()) as u64;
        Ok(())
    }
}

/// Fills and commits batches, and counts what is committed.
struct Loader {
    destination: Destination,
    on_duplicate: OnDuplicate,
    records_max: u64,
    way: Way,
    batch: Batch,
    batch_bytes: usize,
    /// The keys of `batch`.
    batch_keys: HashSet<Vec<u8>>,
    /// The largest key there is, in the keyspace or in `batch`: a key above it is new, and needs no
    /// lookup. So files in the order of keys load without any.
    largest: Option<Vec<u8>>,
    counts: Counts,
    /// Records that are committed.
    committed: u64,
    /// How many of them came in the order of their keys, and were committed in one.
    bulk_loaded: u64,
    /// Why a commit failed that was made because the input was idle.
    idle_failure: Option<Failure>,
}

impl Loader {
    /// Commits batches of so many records, or of the usual number and what is sorted in one.
    fn new(
        destination: Destination,
        on_duplicate: OnDuplicate,
        records_max: Option<u64>,
    ) -> Result<Self> {
        interrupt::committed(0);
        Ok(Self {
            largest: destination.largest_key()?,
            destination,
            on_duplicate,
            way: match records_max {
                Some(_) => Way::Batches,
                None => Way::Undecided(Vec::new()),
            },
            records_max: records_max.unwrap_or(BATCH_RECORDS),
            batch: Batch::new(),
            batch_bytes: 0,
            batch_keys: HashSet::new(),
            counts: Counts::default(),
            committed: 0,
            bulk_loaded: 0,
            idle_failure: None,
        })
    }

    fn add(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        stop::check()?;
        if matches!(&self.way, Way::Bulk(bulk) if *key < *bulk.last.0) {
            // They were not in order after all.
            self.commit()?;
        }
        if self.is_there(key)? {
            match self.on_duplicate {
                OnDuplicate::Error => {
                    return Err(Failure::error(format!(
                        "the key {} is there already",
                        crate::bytes::escape(key)
                    )));
                }
                OnDuplicate::First => {
                    self.counts.kept += 1;
                    return Ok(());
                }
                OnDuplicate::Last => self.counts.replaced += 1,
            }
        } else {
            self.counts.new += 1;
        }
        if let Way::Bulk(bulk) = &mut self.way {
            return bulk.put(key, value);
        }
        self.batch_keys.insert(key.to_vec());
        self.batch_bytes += key.len() + value.len();
        let records = match &mut self.way {
            Way::Undecided(first) if first.last().is_none_or(|(last, _)| **last <= *key) => {
                first.push((key.to_vec(), value.to_vec()));
                first.len()
            }
            _ => {
                self.decide_on_batches();
                self.batch.put(key, value);
                self.batch.len()
            }
        };
        if records as u64 >= self.records_max || self.batch_bytes >= BATCH_BYTES_MAX {
            match self.way {
                Way::Undecided(_) => self.decide_on_bulk()?,
                _ => self.commit()?,
            }
        }
        Ok(())
    }

    /// The first records go into a batch, and so do those that follow.
    fn decide_on_batches(&mut self) {
        if let Way::Undecided(first) = std::mem::replace(&mut self.way, Way::Batches) {
            for (key, value) in first {
                self.batch.put(key, value);
            }
        }
    }

    /// The first records are in order.
    fn decide_on_bulk(&mut self) -> Result<()> {
        let Some(load) = self.destination.begin_bulk()? else {
            self.decide_on_batches();
            return self.commit();
        };
        if let Way::Undecided(first) = std::mem::replace(&mut self.way, Way::Batches) {
            let mut first = first.into_iter();
            let last = first.next().expect("a batch of them");
            let mut bulk = Bulk {
                load,
                records: 1,
                bytes: (last.0.len() + last.1.len()) as u64,
                last,
            };
            first.try_for_each(|(key, value)| bulk.put(&key, &value))?;
            self.way = Way::Bulk(bulk);
        }
        self.batch_keys.clear();
        self.batch_bytes = 0;
        Ok(())
    }

    fn commit_bulk(&mut self, mut bulk: Bulk) -> Result<()> {
        bulk.load.put(&bulk.last.0, &bulk.last.1)?;
        bulk.load.finish()?;
        self.counts.bytes += bulk.bytes;
        self.committed += bulk.records;
        self.bulk_loaded += bulk.records;
        interrupt::committed(self.committed);
        Ok(())
    }

    /// Reading has failed: what was read in order before counts. The failure that is reported is
    /// that of reading.
    fn keep_bulk(&mut self) {
        if let Way::Bulk(bulk) = std::mem::replace(&mut self.way, Way::Batches) {
            let _ = self.commit_bulk(bulk);
        }
    }

    /// True if `key` has a value, in the keyspace or in what is not committed.
    fn is_there(&mut self, key: &[u8]) -> Result<bool> {
        let is_last = matches!(&self.way, Way::Bulk(bulk) if *key == *bulk.last.0);
        match &mut self.largest {
            Some(largest) if key <= &largest[..] => {
                Ok(is_last || self.batch_keys.contains(key) || self.destination.contains(key)?)
            }
            largest => {
                *largest = Some(key.to_vec());
                Ok(false)
            }
        }
    }

    fn commit(&mut self) -> Result<()> {
        match std::mem::replace(&mut self.way, Way::Batches) {
            Way::Bulk(bulk) => return self.commit_bulk(bulk),
            // Nothing has come yet.
            Way::Undecided(first) if first.is_empty() => self.way = Way::Undecided(first),
            first @ Way::Undecided(_) => {
                self.way = first;
                self.decide_on_batches();
            }
            Way::Batches => {}
        }
        let batch = std::mem::take(&mut self.batch);
        let records = batch.len() as u64;
        if records > 0 {
            self.destination.write(batch)?;
        }
        self.batch_keys.clear();
        self.counts.bytes += std::mem::take(&mut self.batch_bytes) as u64;
        self.committed += records;
        interrupt::committed(self.committed);
        Ok(())
    }

    /// Commits what there is while the input pauses. False if that failed.
    fn commit_idle(&mut self) -> bool {
        self.idle_failure = self.commit().err();
        self.idle_failure.is_none()
    }

    /// Commits the rest, and brings everything into the files of the engine, so that later commands
    /// need not read it out of the log.
    fn finish(&mut self) -> Result<()> {
        self.commit()?;
        Ok(self.destination.create()?.flush()?)
    }

    /// Syncs and closes the store, if there is one.
    fn close(&self) -> Result<()> {
        match &self.destination.db {
            Some(db) => Ok(db.sync().and_then(|()| db.close())?),
            None => Ok(()),
        }
    }
}

impl Load {
    /// Runs the command.
    pub fn run(&self, out: &mut Output) -> Result<()> {
        // The file first: a misspelt name must not leave an empty store behind.
        self.shape.check(&self.file)?;
        let file = records::open(&self.file)?;
        let destination = Destination::find(self)?;

        interrupt::take_time();
        let began = Instant::now();
        let loader = Loader::new(destination, self.on_duplicate, self.batch)?;
        let loader = Rc::new(RefCell::new(loader));
        let progress = byte_progress(out.json, records::length(&self.file));
        let read = self.read(file, &loader, &progress);
        let mut loader = loader.borrow_mut();
        let read = match loader.idle_failure.take() {
            Some(failure) => Err(failure),
            None if read.is_err() => {
                loader.keep_bulk();
                read
            }
            None => read.and_then(|tally| loader.finish().map(|()| tally)),
        };
        progress.finish_and_clear();

        // What was committed is synced even if reading failed; the first failure is reported.
        let closed = loader.close();
        let tally = read.and_then(|tally| closed.map(|()| tally));
        let tally = tally.map_err(|failure| failure.after_commits(loader.committed))?;
        self.report(&loader, &tally, began, out)
    }

    /// Reads the file into `loader`, but for the last batch.
    fn read(
        &self,
        file: records::File,
        loader: &Rc<RefCell<Loader>>,
        progress: &ProgressBar,
    ) -> Result<Tally> {
        let idle = Rc::clone(loader);
        let idle = move || idle.borrow_mut().commit_idle();
        let input = records::decompressed(file, &self.file, progress, idle)?;
        if !self.sort {
            return records::for_each(&self.file, input, &self.shape, |_, key, value| {
                loader.borrow_mut().add(key, value)
            });
        }
        let (mut sorted, mut bytes) = (Vec::new(), 0);
        let tally = records::for_each(&self.file, input, &self.shape, |_, key, value| {
            stop::check()?;
            bytes += key.len() + value.len();
            if bytes > SORTED_BYTES_MAX {
                return Err(Failure::error(
                    "there is more than 1 GiB to sort: sort the file before, or load it without \
                     --sort",
                ));
            }
            sorted.push((key.to_vec(), value.to_vec()));
            Ok(())
        })?;
        // Stable: of records with the same key the order counts.
        sorted.sort_by(|(a, _), (b, _)| a.cmp(b));
        let mut loader = loader.borrow_mut();
        for (key, value) in &sorted {
            loader.add(key, value)?;
        }
        Ok(tally)
    }

    fn report(
        &self,
        loader: &Loader,
        tally: &Tally,
        began: Instant,
        out: &mut Output,
    ) -> Result<()> {
        let keyspace = loader.destination.keyspace.as_ref();
        let keyspace = keyspace.expect("it was made when the last batch was committed");
        let counts = &loader.counts;
        let elapsed = began.elapsed();
        let rate = (tally.records as f64 / elapsed.as_secs_f64().max(1e-9)) as u64;
        if out.json {
            let first = tally.first_skipped.as_ref();
            return out.value(&json!({
                "keyspace": keyspace.name(),
                "engine": keyspace.engine().name(),
                "records_read": tally.records,
                "records": loader.committed,
                "bulk_loaded": loader.bulk_loaded,
                "new_keys": counts.new,
                "replaced": counts.replaced,
                "kept": counts.kept,
                "skipped_missing": tally.missing,
                "skipped_errors": tally.skipped,
                "first_skipped": first.map(|(line, what)| json!({ "line": line, "error": what })),
                "record_bytes": counts.bytes,
                "elapsed_ms": elapsed.as_secs_f64() * 1e3,
                "durability": self.durability.name(),
            }));
        }
        out.line(format!(
            "{} read, {}, {}, into {:?} ({}) in {:.2} s: {} records/s",
            counted(tally.records, "record"),
            match counts.new {
                1 => "1 new key".to_owned(),
                new => format!("{} new keys", thousands(new)),
            },
            bytes(counts.bytes),
            keyspace.name(),
            keyspace.engine(),
            elapsed.as_secs_f64(),
            thousands(rate),
        ))?;
        for (count, what) in [
            (counts.replaced, "replaced one with the same key"),
            (counts.kept, "not put: their keys were there already"),
            (tally.missing, "skipped: a column was missing"),
            (tally.skipped, "skipped: it could not be used"),
        ] {
            if count > 0 {
                out.line(format!("{} {what}", counted(count, "record")))?;
            }
        }
        match &tally.first_skipped {
            Some((line, what)) => {
                out.line(format!("the first record skipped: line {line}: {what}"))
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loader(dir: &std::path::Path, on_duplicate: OnDuplicate) -> Loader {
        let destination = Destination {
            store: StoreArg {
                path: dir.join("db"),
            },
            arg: KeyspaceArg { keyspace: None },
            engine: None,
            durability: Durability::Buffered,
            db: None,
            keyspace: None,
        };
        Loader::new(destination, on_duplicate, Some(2)).unwrap()
    }

    #[test]
    fn batches_fill_by_records_and_by_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let mut loader = loader(dir.path(), OnDuplicate::Last);
        loader.add(b"a", b"1").unwrap();
        assert!(!dir.path().join("db").exists());
        loader.add(b"b", b"2").unwrap();
        assert_eq!(loader.committed, 2);
        loader.add(b"c", &vec![0; BATCH_BYTES_MAX]).unwrap();
        assert_eq!(loader.committed, 3);
        loader.add(b"d", b"4").unwrap();
        assert!(!loader.destination.contains(b"d").unwrap());
        assert!(loader.commit_idle());
        assert!(loader.destination.contains(b"d").unwrap());
    }

    #[test]
    fn duplicates_are_counted_within_a_batch_and_across() {
        let dir = tempfile::tempdir().unwrap();
        let mut last = loader(dir.path(), OnDuplicate::Last);
        for key in ["b", "b", "a", "c", "b", "a", "0"] {
            last.add(key.as_bytes(), b"").unwrap();
        }
        last.finish().unwrap();
        assert_eq!((last.counts.new, last.counts.replaced), (4, 3));
        assert_eq!(last.committed, 7);
        let dir = tempfile::tempdir().unwrap();
        let mut first = loader(dir.path(), OnDuplicate::First);
        for key in ["b", "a", "b", "a", "c"] {
            first.add(key.as_bytes(), b"").unwrap();
        }
        assert_eq!((first.counts.new, first.counts.kept), (3, 2));
        let mut error = loader(&dir.path().join("other"), OnDuplicate::Error);
        error.add(b"b", b"").unwrap();
        let failure = error.add(b"b", b"").unwrap_err();
        assert!(failure.to_string().contains("the key b is there already"));
    }

    /// A pipe that was quiet at first was taken for records that are not in order.
    #[test]
    fn what_comes_late_in_order_is_loaded_in_bulk() {
        let dir = tempfile::tempdir().unwrap();
        let destination = loader(dir.path(), OnDuplicate::Last).destination;
        let mut loader = Loader::new(destination, OnDuplicate::Last, None).unwrap();
        loader.commit_idle();
        for n in 0..1000_u32 {
            loader.add(&n.to_be_bytes(), b"value").unwrap();
        }
        loader.finish().unwrap();
        assert_eq!(loader.bulk_loaded, 1000);
    }
}
