//! Collection: the files of values that were mostly overwritten go.
//!
//! A value file goes by itself when nothing refers to it any more. Two things keep one whose values
//! are mostly dead: the few that live, and references in tables that compaction has not removed
//! yet. So when the value files take more than the store allows for what lives in them, a thread
//! does one of two things, each a unit of background work:
//!
//! - **collect** the file with the smallest share of live bytes: walk its records, and write every
//!   value again whose key still has exactly the reference to it. That is a commit like any other,
//!   on the condition that the key was not written meanwhile; the file goes by itself after that;
//! - **merge** the trees whose tables refer to what is dead, or has been collected.
//!
//! Damage ends the collection of its file. It is reported as that of any job, and the file stays as
//! it is until the store is opened again: values in front of the damage may have moved, those
//! behind it can still be read, and the others are collected.
//!
//! What lives is known for sure only of the last level of a tree: what lies above it may be another
//! version of the same keys. So the bound holds against the bytes that the last levels refer to.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::catalog_change::CatalogChange;
use super::commit::{Condition, Outcome};
use super::keyspaces::OpenKeyspace;
use super::load_record::LoggedLoad;
use super::shared::Shared;
use super::streamed_put::LoggedStreamedPut;
use crate::engine::{EngineHost, Pressure};
use crate::error::{Error, Result};
use crate::fs::OpenMode;
use crate::kv::{Batch, decode_payload};
use crate::options::Durability;
use crate::types::{KeySet, KeyspaceId, Op, SeqNo};
use crate::util::mutants::mutated;
use crate::values::{MIN_VALUE_THRESHOLD_BYTES, Postponed, ValueFileFacts};
use crate::wal::{self, RecordReader};

/// Value files may always take so many segments more than the bound says: the last ones are mostly
/// alive, and what is in them is merged by and by.
const SLACK_SEGMENTS: u64 = 2;

/// A collection commits at most so many bytes of values at once, or a longer one alone.
const COMMIT_BYTES: usize = 256 << 10;

/// How long the collection of a file is left alone of which something could not be written again;
/// twice as long each time.
const POSTPONED_FOR: Duration = Duration::from_millis(100);
const POSTPONED_FOR_MAX: Duration = Duration::from_secs(30);

/// What there is to do about value files.
#[derive(Debug)]
pub(super) enum ValueWork {
    /// Write again what lives in that file. Some of it could not be when that was tried last.
    Collect(u64, Option<Postponed>),
    /// Merge these trees.
    Merge(Vec<Arc<OpenKeyspace>>),
}

/// The value files, and what refers to them.
#[derive(Debug, Default)]
pub(super) struct ValueFigures {
    pub(super) files: Vec<ValueFileFacts>,
    /// Bytes that tables refer to, by file.
    pub(super) referred: BTreeMap<u64, u64>,
    /// Bytes that live for sure.
    settled_bytes: u64,
}

impl ValueFigures {
    /// Those that have left the log.
    pub(super) fn value_files(&self) -> impl Iterator<Item = &ValueFileFacts> {
        self.files.iter().filter(|file| file.has_left_log)
    }

    /// Bytes of a file that tables refer to.
    pub(super) fn referred_in(&self, file: &ValueFileFacts) -> u64 {
        self.referred.get(&file.number).copied().unwrap_or_default()
    }

    /// Bytes of a file that count in the bound on space. One for a streamed value that no table
    /// refers to has the value of an operation in memory, as a segment of the log has, or goes as
    /// soon as no reader has it.
    fn counted_bytes(&self, file: &ValueFileFacts) -> u64 {
        match file.is_streamed && self.referred_in(file) == 0 {
            true => 0,
            false => file.len_bytes,
        }
    }
}

/// True for the payload of a batch: no other record has values in it.
fn is_batch(payload: &[u8]) -> bool {
    !CatalogChange::is_change(payload)
        && !LoggedLoad::is_load(payload)
        && !LoggedStreamedPut::is_one(payload)
}

/// Keyspaces that could not take their values of a file again.
#[derive(Default)]
struct LeftOut(Vec<KeyspaceId>);

impl LeftOut {
    fn has(&self, id: KeyspaceId) -> bool {
        self.0.contains(&id)
    }

    /// What came out of something that was done for that keyspace; if it failed, that is noted as
    /// the keyspace's own trouble, and it is left out from now on. An error if nothing is to be
    /// done any more.
    fn unless_fails<T>(
        &mut self,
        shared: &Shared,
        keyspace: &OpenKeyspace,
        outcome: Result<Option<T>>,
    ) -> Result<Option<T>> {
        match outcome {
            Err(Error::Closed) => Err(Error::Closed),
            Err(error) if mutated!("keyspace-that-fails-stops-a-collection") => Err(error),
            Err(error) => {
                self.0.push(keyspace.id);
                shared.note::<()>(&keyspace.collect, &Err(error));
                Ok(None)
            }
            found => found,
        }
    }
}

/// A value that may have to be written again.
struct Candidate<'a> {
    key: &'a [u8],
    value: &'a [u8],
    reference: Vec<u8>,
}

impl Shared {
    /// The value files and what refers to them, now.
    pub(super) fn value_figures(&self) -> ValueFigures {
        let mut figures = ValueFigures {
            files: self.values.facts(),
            ..ValueFigures::default()
        };
        for keyspace in self.keyspaces.all().iter() {
            let usage = keyspace.engine.value_usage();
            figures.settled_bytes += usage.settled_bytes;
            for (file, bytes) in &usage.files {
                *figures.referred.entry(*file).or_default() += bytes;
            }
        }
        figures
    }

    /// What is to be done about value files, if anything.
    pub(super) fn value_work(&self) -> Option<ValueWork> {
        if !self.values.has_value_files() || self.pipeline.is_none() {
            return None;
        }
        let figures = self.value_figures();
        // One that is damaged stays, whatever is done.
        let intact = || figures.value_files().filter(|file| !file.is_damaged);
        let total: u64 = intact().map(|file| figures.counted_bytes(file)).sum();
        let slack = SLACK_SEGMENTS * self.options.log_segment_bytes;
        let excess = self.options.value_space_amplification - 1.0;
        // Of what is allowed besides the live bytes, so much is used after a round.
        let allowed = |share: f64| {
            let besides = figures.settled_bytes as f64 * excess * share;
            figures.settled_bytes + slack + besides as u64
        };
        if total <= allowed(1.0) {
            return None;
        }
        let collected = intact().filter(|file| file.is_collected);
        let collected_bytes: u64 = collected.map(|file| file.len_bytes).sum();
        let referred: u64 = figures.referred.values().sum();
        let unsettled = referred.saturating_sub(figures.settled_bytes);
        let merge_if = |is_due: bool| {
            let is_worth_it = |keyspace: &&Arc<OpenKeyspace>| {
                let usage = keyspace.engine.value_usage();
                let referred: u64 = usage.files.values().sum();
                let gain = referred.saturating_sub(usage.settled_bytes) + collected_bytes;
                referred > 0 && usage.tables_bytes <= gain
            };
            let all = self.keyspaces.all();
            let trees: Vec<_> = all.iter().filter(is_worth_it).cloned().collect();
            (is_due && !trees.is_empty()).then_some(ValueWork::Merge(trees))
        };
        let merge = || merge_if(total >= self.merge_values_from.load(Ordering::Relaxed));
        let owed_merge = || merge_if(self.owes_merge_of_values.load(Ordering::Relaxed));
        // First what costs little: it says how much of each file is alive.
        if unsettled as f64 > figures.settled_bytes as f64 * excess / 2.0
            && let Some(merge) = merge()
        {
            return Some(merge);
        }
        if total - collected_bytes > allowed(0.8) {
            let least_alive = intact()
                // A streamed value goes with its file.
                .filter(|file| !file.is_collected && !file.is_streamed)
                .map(|file| (figures.referred_in(file), file))
                // Moving what is alive as a whole frees nothing.
                .filter(|(alive, file)| *alive < file.len_bytes - file.len_bytes / 8)
                .min_by(|(a, x), (b, y)| {
                    let (left, right) = (a * (y.len_bytes >> 10), b * (x.len_bytes >> 10));
                    // Those that have to wait in the order in which they are worth a try.
                    let due = |file: &ValueFileFacts| {
                        let keeps_turn = mutated!("postponed-file-keeps-its-turn");
                        file.postponed.map(|it| it.until).filter(|_| !keeps_turn)
                    };
                    (due(x).cmp(&due(y)))
                        .then(left.cmp(&right))
                        .then(x.number.cmp(&y.number))
                });
            if let Some((_, file)) = least_alive {
                let collect = ValueWork::Collect(file.number, file.postponed);
                return match file.postponed {
                    None => Some(collect),
                    Some(_) => merge().or_else(owed_merge).or(Some(collect)),
                };
            }
        }
        merge().or_else(owed_merge)
    }

    /// Does one unit of work on value files, if there is any to do.
    pub(super) fn run_values_once(&self) -> Result<bool> {
        let health = &self.log_jobs.collect;
        if self.options.background_threads > 0 && health.pause().is_some() {
            return Ok(false);
        }
        // One thread at a time.
        let Some(_turn) = self.collecting.try_lock() else {
            return Ok(false);
        };
        let done = match self.value_work() {
            None => {
                // What failed is wanted no more.
                self.owes_merge_of_values.store(false, Ordering::Relaxed);
                self.note(health, &Ok(()));
                for keyspace in self.keyspaces.all().iter() {
                    self.note(&keyspace.collect, &Ok(()));
                }
                return Ok(false);
            }
            Some(ValueWork::Collect(_, Some(postponed)))
                if self.options.background_threads > 0 && Instant::now() < postponed.until =>
            {
                return Ok(false);
            }
            Some(ValueWork::Collect(number, before)) => self.collect_file(number, before),
            Some(ValueWork::Merge(trees)) => self.merge_trees(&trees),
        };
        match done {
            // All writers have to wait, and it with them.
            Ok(false) if !mutated!("nothing-to-do-ends-an-error") => {}
            Ok(true) if self.owes_merge_of_values.load(Ordering::Relaxed) => {
                health.note_other_work();
            }
            _ => self.note(health, &done),
        }
        done
    }

    fn merge_trees(&self, trees: &[Arc<OpenKeyspace>]) -> Result<bool> {
        let mut merged = Ok(());
        for keyspace in trees {
            self.coordinator.check_running()?;
            if keyspace.check_alive().is_ok() {
                // One that fails keeps no other from it, nor the collections that come next.
                let outcome = keyspace.engine.compact();
                if mutated!("tree-that-cannot-be-merged-stops-all-others") {
                    outcome?;
                } else {
                    merged = merged.and(outcome);
                }
            }
        }
        while self.values.remove_unheld()? {}
        // Snapshots may keep what is dead. Not again before there is more of it.
        let figures = self.value_figures();
        let left = figures.value_files();
        let total: u64 = left.map(|file| figures.counted_bytes(file)).sum();
        let next = total + total / 8 + self.options.log_segment_bytes;
        self.merge_values_from.store(next, Ordering::Relaxed);
        // What may be over when it is tried again, a full disk say, stays wanted, after all else.
        // To meet damage again costs all that is written before it.
        let is_owed = merged.as_ref().is_err_and(|error| !error.is_corruption());
        self.owes_merge_of_values.store(is_owed, Ordering::Relaxed);
        merged.map(|()| true)
    }

    /// Writes again what lives in file `number`. A keyspace that cannot take it, or that fails,
    /// does not keep that of others: the file is postponed then. False if it was `before`, or all
    /// writers have to wait now. Of the file a piece is in memory, or a record that is longer.
    fn collect_file(&self, number: u64, before: Option<Postponed>) -> Result<bool> {
        let Ok(hold) = self.values.hold(number) else {
            // It went by itself.
            return Ok(true);
        };
        let path = self.values.path(&hold);
        let file = self.options.fs.open(&path, OpenMode::Read)?;
        let end = self.values.end(&hold).or_else(|| self.end_of(number));
        // Of the file, that is; a tree that is damaged is none of its business.
        let note_damage = |error: Error| {
            if error.is_corruption() && !mutated!("damaged-value-file-is-tried-again") {
                self.values.note_damaged(number);
            }
            error
        };
        let records = RecordReader::new(&*file, self.store_id, number, end);
        let mut records = records.map_err(note_damage)?;
        let mut left_out = LeftOut::default();
        while let Some(record) = records.next().map_err(note_damage)? {
            if !is_batch(record.payload) {
                continue;
            }
            let mut found: BTreeMap<KeyspaceId, Vec<Candidate<'_>>> = BTreeMap::new();
            let decoded = decode_payload(record.payload, |id, op, end| {
                if let Op::Put { key, value } = op
                    && value.len() >= MIN_VALUE_THRESHOLD_BYTES as usize
                    && !left_out.has(id)
                    && let Some(keyspace) = self.keyspaces.by_id(id)
                    && let Some(reference) =
                        left_out.unless_fails(self, &keyspace, keyspace.value_ref(key))?
                {
                    let at = record.offset + (end - value.len()) as u64;
                    let same = self.values.digest(value).place(number, at);
                    if reference == same.as_bytes() {
                        found.entry(id).or_default().push(Candidate {
                            key,
                            value,
                            reference,
                        });
                    }
                }
                Ok(())
            })?;
            if let Err(at) = decoded {
                let what = "a record of the file is malformed";
                let error = Error::corruption(&path, record.offset + at as u64, what);
                return Err(note_damage(error));
            }
            for (id, mut candidates) in found {
                if let Some(keyspace) = self.keyspaces.by_id(id)
                    && !left_out.has(id)
                {
                    let written = self.write_again(&keyspace, &mut candidates);
                    let written = left_out.unless_fails(self, &keyspace, written.map(Some))?;
                    match written {
                        Some(true) => self.note(&keyspace.collect, &Ok(())),
                        Some(false) => left_out.0.push(id),
                        None => {}
                    }
                }
                self.coordinator.check_writable()?;
                if self.coordinator.log_is_too_long() {
                    return Ok(false);
                }
            }
        }
        if let Some(by) = left_out.0.first() {
            let wait = before.map_or(POSTPONED_FOR, |before| 2 * before.wait);
            let wait = wait.min(POSTPONED_FOR_MAX);
            let until = Instant::now() + wait;
            let postponed = Postponed {
                until,
                wait,
                by: *by,
            };
            return Ok(self.values.postpone(number, postponed));
        }
        self.values.note_collected(number);
        // A merge lets it go, and those that are collected with it.
        self.merge_values_from.store(0, Ordering::Relaxed);
        Ok(true)
    }

    /// Number behind the last operation in file `number`, if the next segment of the log is a file,
    /// too: it begins there.
    fn end_of(&self, number: u64) -> Option<SeqNo> {
        let (next, path) = self.values.following(number)?;
        let file = self.options.fs.open(&path, OpenMode::Read).ok()?;
        // What is wrong with that one is found when its turn comes.
        let (first, previous) = wal::begin_of(&*file, self.store_id, next).ok()?;
        (previous == number).then_some(first)
    }

    /// Has the values of `candidates` written again whose keys still have the same reference. False
    /// if writers have to wait now, and a collection with them.
    fn write_again(
        &self,
        keyspace: &Arc<OpenKeyspace>,
        candidates: &mut Vec<Candidate<'_>>,
    ) -> Result<bool> {
        let pipeline = self.takes_writes()?;
        while !candidates.is_empty() {
            self.coordinator.check_running()?;
            if keyspace.engine.pressure() == Pressure::Stop || self.coordinator.log_is_too_long() {
                return Ok(false);
            }
            // What a compaction judges now, and its filter drops, would come back.
            let without_filter = keyspace.resolver.without_filter();
            if without_filter.is_none() && !mutated!("value-moved-while-a-filter-judges-it") {
                return Ok(false);
            }
            let watch = pipeline.watch();
            let mut batch = Batch::new();
            let mut keys = KeySet::default();
            let mut taken = 0;
            for candidate in &*candidates {
                if taken > 0 && batch.len_bytes() + candidate.value.len() > COMMIT_BYTES {
                    break;
                }
                taken += 1;
                let current = keyspace.value_ref(candidate.key)?;
                if current.as_ref() == Some(&candidate.reference)
                    || mutated!("collection-overwrites-newer-values")
                {
                    batch.put(candidate.key, candidate.value);
                    keys.insert_key(candidate.key);
                }
            }
            if batch.is_empty() {
                candidates.drain(..taken);
                continue;
            }
            let condition = Condition {
                since: watch.since(),
                reads: &[(keyspace.id, keys)],
                is_unseen: !mutated!("moved-value-is-a-conflict"),
            };
            let parts = vec![(Arc::clone(keyspace), batch)];
            // No sync: the file stays as long as a table on the disk refers to it.
            match pipeline.commit_if(parts, Durability::Buffered, &condition, &|_| ()) {
                Ok(Outcome::Committed(_)) => drop(candidates.drain(..taken)),
                // Written meanwhile: look again.
                Ok(Outcome::Conflict(_)) => {}
                Err(Error::NoSuchKeyspace { .. }) => return Ok(true),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::fs::SimFs;
    use crate::options::{EngineKind, KeyspaceOptions, Options};
    use crate::store::commit::Change;

    /// A collection finds what lives in a piece of a file, and writes it again later.
    #[test]
    fn a_value_that_was_overwritten_since_it_was_found_is_not_written_again() {
        for engine in [EngineKind::Lsm, EngineKind::BTree] {
            let fs = Arc::new(SimFs::new());
            let options = Options::new().fs(fs).background_threads(0);
            let store = crate::store::open(Path::new("/store"), options).unwrap();
            let shared = &store.shared;
            let asked = KeyspaceOptions::new(engine).value_threshold_bytes(1024);
            let keyspace = shared.keyspace_with("a", &asked).unwrap();
            let put = |key: &[u8], value: &[u8]| {
                let op = Op::Put { key, value };
                let keyspace = &keyspace;
                let change = Change::One { keyspace, op };
                shared.commit(change, Durability::Buffered).unwrap();
            };
            let (old, new) = ([1; 5000], [2; 5000]);
            for key in [b"lives", b"goes."] {
                put(key, &old);
            }
            let found = |key: &'static [u8]| Candidate {
                key,
                value: &old,
                reference: keyspace.value_ref(key).unwrap().unwrap(),
            };
            let mut candidates = vec![found(b"lives"), found(b"goes.")];
            let before = candidates[0].reference.clone();
            put(b"goes.", &new);
            assert!(shared.write_again(&keyspace, &mut candidates).unwrap());
            assert!(candidates.is_empty());
            assert_eq!(keyspace.get_value(b"goes.").unwrap().unwrap(), new);
            assert_eq!(keyspace.get_value(b"lives").unwrap().unwrap(), old);
            assert_ne!(keyspace.value_ref(b"lives").unwrap().unwrap(), before);
        }
    }
}
