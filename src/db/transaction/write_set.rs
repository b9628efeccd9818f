//! What a transaction has written, and how to take it back.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::own_writes::{Own, OwnWrites, Undo, operand_cost};
use crate::engine::Laid;
use crate::error::{Error, Result};
use crate::kv::{Batch, check_op};
use crate::store::{OpenKeyspace, place_among_reads};
use crate::types::{KeyRange, KeySet, KeyspaceId, MAX_BATCH_LEN_BYTES, Op, Value};
use crate::util::mutants::mutated;

/// What the commit takes beside its operations, for each keyspace and at most.
const PART_COST_BYTES: usize = 64;

/// A place in a transaction to which it can return; made by
/// [`Transaction::savepoint`](crate::Transaction::savepoint).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Savepoint {
    transaction: u64,
    serial: u64,
}

/// Writes to any number of keyspaces, with savepoints.
#[derive(Debug)]
pub(super) struct WriteSet {
    /// Which transaction it belongs to: its savepoints are no other's.
    transaction: u64,
    parts: BTreeMap<KeyspaceId, Part>,
    /// What all parts take in a batch, at most.
    bytes: usize,
    /// Since the first savepoint, oldest first.
    undo: Vec<(KeyspaceId, PartUndo)>,
    /// Serial numbers of savepoints, rising, each with how much there was to undo.
    savepoints: Vec<(u64, usize)>,
    next_serial: u64,
}

#[derive(Debug)]
struct Part {
    keyspace: Arc<OpenKeyspace>,
    /// Shared with scans, which see what was written before they began.
    own: Arc<OwnWrites>,
    /// What gets the number of the commit. It comes after everything else that is written.
    stamped: Batch,
}

/// How to take a write to a keyspace back.
#[derive(Debug)]
enum PartUndo {
    Own(Undo),
    /// To so many bytes and operations of what gets the number of the commit.
    Stamped(usize, usize),
}

impl Part {
    fn is_empty(&self) -> bool {
        self.own.is_empty() && self.stamped.is_empty()
    }

    fn len_bytes(&self) -> usize {
        self.own.len_bytes() + self.stamped.len_bytes()
    }

    fn to_batch(&self) -> Batch {
        let mut batch = self.own.to_batch();
        batch.append(&self.stamped);
        batch
    }

    /// Adds every key and range that was written to `set`, but for keys that no other commit can
    /// write: those that get the number of this one.
    fn add_to(&self, set: &mut KeySet) {
        self.own.add_to(set);
        for ((op, end), stamp) in self.stamped.iter_with_ends().zip(self.stamped.stamps()) {
            if let Op::Put { key, value } = op
                && *stamp >= end - value.len()
            {
                set.insert_key(key);
            }
        }
    }
}

impl WriteSet {
    pub(super) fn new(transaction: u64) -> Self {
        Self {
            transaction,
            parts: BTreeMap::new(),
            bytes: 0,
            undo: Vec::new(),
            savepoints: Vec::new(),
            next_serial: 0,
        }
    }

    /// What was written to a keyspace, if anything was.
    pub(super) fn own(&self, keyspace: KeyspaceId) -> Option<Arc<OwnWrites>> {
        let part = self.parts.get(&keyspace)?;
        (!part.own.is_empty()).then(|| Arc::clone(&part.own))
    }

    /// What was done to a key.
    pub(super) fn get(&self, keyspace: KeyspaceId, key: &[u8]) -> Laid<Value> {
        match self.parts.get(&keyspace) {
            Some(part) => part.own.get(key).map(Value::clone),
            None => Laid::Nothing,
        }
    }

    /// What an operand makes of what was done to a key: see [`OwnWrites::merged`]. It calls the
    /// operator, which is code of the user, and needs nothing that is locked.
    pub(super) fn merged(
        keyspace: &OpenKeyspace,
        own: Option<&OwnWrites>,
        key: &[u8],
        operand: &[u8],
    ) -> Result<Option<Own>> {
        check_op(&Op::Merge { key, operand })?;
        let operator = keyspace.resolver.operator();
        let operator = operator.expect("the keyspace takes merges");
        let none = OwnWrites::default();
        let limit_bytes = keyspace.resolver.max_value_len_bytes();
        let own = own.unwrap_or(&none);
        Ok(own.merged(&**operator, limit_bytes, key, operand))
    }

    /// True if `own` is what was written to a keyspace, still.
    pub(super) fn is_still(&self, keyspace: KeyspaceId, own: Option<&Arc<OwnWrites>>) -> bool {
        match (self.own(keyspace), own) {
            (Some(now), Some(own)) => Arc::ptr_eq(&now, own),
            (None, None) => true,
            _ => false,
        }
    }

    /// Merges an operand into a key, which makes `merged` of what was done to it. After an error
    /// nothing has changed.
    pub(super) fn merge(
        &mut self,
        keyspace: &Arc<OpenKeyspace>,
        key: &[u8],
        operand: &[u8],
        merged: Option<Own>,
    ) -> Result<()> {
        match merged {
            Some(merged) => self.change_key(keyspace, key, merged)?,
            None => {
                self.check_growth(operand_cost(key, operand))?;
                self.change(keyspace, |own| own.push_operand(key, operand));
            }
        }
        let part = self.parts.get_mut(&keyspace.id).expect("it was written to");
        let resolver = &keyspace.resolver;
        if let Some(operator) = resolver.operator() {
            let limit_bytes = resolver.max_value_len_bytes();
            Arc::make_mut(&mut part.own).use_operator(operator, limit_bytes);
        }
        Ok(())
    }

    /// Writes a key. After an error nothing has changed.
    pub(super) fn write(
        &mut self,
        keyspace: &Arc<OpenKeyspace>,
        key: &[u8],
        own: Own,
    ) -> Result<()> {
        match &own {
            Own::Put(value, _) => check_op(&Op::Put { key, value })?,
            _ => check_op(&Op::Delete { key })?,
        }
        self.change_key(keyspace, key, own)
    }

    fn change_key(&mut self, keyspace: &Arc<OpenKeyspace>, key: &[u8], own: Own) -> Result<()> {
        let growth = match self.parts.get(&keyspace.id) {
            Some(part) => part.own.growth(key, &own),
            None => PART_COST_BYTES + own.cost(key),
        };
        self.check_growth(growth)?;
        self.change(keyspace, |writes| writes.write(key, own));
        Ok(())
    }

    /// Deletes a range. After an error nothing has changed.
    pub(super) fn remove(&mut self, keyspace: &Arc<OpenKeyspace>, range: KeyRange) -> Result<()> {
        check_op(&Op::DeleteRange {
            start: &range.start,
            end: range.end.as_deref(),
        })?;
        if range.is_empty() {
            return Ok(());
        }
        self.check_growth(2 * PART_COST_BYTES + range.len_bytes())?;
        self.change(keyspace, |own| own.remove(range));
        Ok(())
    }

    /// Adds a put of a key or a value that gets the number of the commit. After an error nothing
    /// has changed.
    pub(super) fn put_stamped(&mut self, keyspace: &Arc<OpenKeyspace>, one: &Batch) -> Result<()> {
        one.check()?;
        self.check_growth(PART_COST_BYTES + one.len_bytes())?;
        self.bytes += one.len_bytes();
        let stamped = &mut self.part(keyspace).stamped;
        let undo = PartUndo::Stamped(stamped.len_bytes(), stamped.len());
        stamped.append(one);
        self.remember(keyspace.id, undo);
        Ok(())
    }

    fn check_growth(&self, growth: usize) -> Result<()> {
        if self.bytes + growth > MAX_BATCH_LEN_BYTES {
            return Err(Error::invalid(format!(
                "a transaction writes more than {MAX_BATCH_LEN_BYTES} bytes"
            )));
        }
        Ok(())
    }

    fn change(
        &mut self,
        keyspace: &Arc<OpenKeyspace>,
        change: impl FnOnce(&mut OwnWrites) -> Undo,
    ) {
        let part = self.part(keyspace);
        let before = part.own.len_bytes();
        // Copies what a scan that lives sees.
        let undo = change(Arc::make_mut(&mut part.own));
        let after = part.own.len_bytes();
        self.bytes = self.bytes - before + after;
        self.remember(keyspace.id, PartUndo::Own(undo));
    }

    fn part(&mut self, keyspace: &Arc<OpenKeyspace>) -> &mut Part {
        self.parts.entry(keyspace.id).or_insert_with(|| {
            self.bytes += PART_COST_BYTES;
            Part {
                keyspace: Arc::clone(keyspace),
                own: Arc::default(),
                stamped: Batch::new(),
            }
        })
    }

    fn remember(&mut self, keyspace: KeyspaceId, undo: PartUndo) {
        if !self.savepoints.is_empty() && !mutated!("write-after-a-savepoint-stays") {
            self.undo.push((keyspace, undo));
        }
    }

    /// Remembers what was written so far.
    pub(super) fn savepoint(&mut self) -> Savepoint {
        let serial = self.next_serial;
        self.next_serial += 1;
        self.savepoints.push((serial, self.undo.len()));
        Savepoint {
            transaction: self.transaction,
            serial,
        }
    }

    /// Takes back what was written after the savepoint, which stays. Later ones are gone.
    pub(super) fn rollback_to(&mut self, savepoint: Savepoint) -> Result<()> {
        let serial = |(serial, _): &(u64, usize)| *serial;
        let at = self
            .savepoints
            .binary_search_by_key(&savepoint.serial, serial);
        let at = match at {
            Ok(at) if savepoint.transaction == self.transaction => at,
            Ok(_) => {
                return Err(Error::invalid("the savepoint is of another transaction"));
            }
            Err(_) => {
                return Err(Error::invalid(
                    "the savepoint is gone: the transaction went back to an earlier one",
                ));
            }
        };
        self.savepoints.truncate(at + 1);
        for (keyspace, undo) in self.undo.drain(self.savepoints[at].1..).rev() {
            let part = self.parts.get_mut(&keyspace).expect("it was written to");
            let before = part.len_bytes();
            match undo {
                PartUndo::Own(undo) => Arc::make_mut(&mut part.own).undo(undo),
                PartUndo::Stamped(len_bytes, len) => part.stamped.truncate(len_bytes, len),
            }
            self.bytes = self.bytes - before + part.len_bytes();
        }
        Ok(())
    }

    fn written(&self) -> impl Iterator<Item = &Part> {
        self.parts.values().filter(|part| !part.is_empty())
    }

    /// Adds every key and range that was written to `reads`, as if it had been read. They are, and
    /// stay, ordered by keyspace.
    pub(super) fn add_to(&self, reads: &mut Vec<(KeyspaceId, KeySet)>) {
        let read = reads.len();
        for part in self.written() {
            let id = part.keyspace.id;
            let at = place_among_reads(&reads[..read], id).unwrap_or_else(|_| {
                reads.push((id, KeySet::default()));
                reads.len() - 1
            });
            part.add_to(&mut reads[at].1);
        }
        reads.sort_unstable_by_key(|(id, _)| *id);
    }

    /// What was written, as batches.
    pub(super) fn to_batches(&self) -> Vec<(Arc<OpenKeyspace>, Batch)> {
        self.written()
            .map(|part| (Arc::clone(&part.keyspace), part.to_batch()))
            .collect()
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::db::Keyspace;
    use crate::fs::SimFs;
    use crate::options::{EngineKind, Options};
    use crate::testing::{Random, comparisons_of};

    fn keyspaces() -> [Keyspace; 2] {
        let options = Options::new().fs(Arc::new(SimFs::new()));
        let db = options.open(Path::new("/store")).unwrap();
        ["a", "b"].map(|name| db.keyspace(name, EngineKind::BTree).unwrap())
    }

    fn put(byte: u8, len: usize) -> Own {
        Own::Put(vec![byte; len].into(), None)
    }

    /// What it would take as batches.
    fn encoded(writes: &WriteSet) -> usize {
        let batches = writes.to_batches();
        batches
            .iter()
            .map(|(_, batch)| batch.len_bytes() + 16)
            .sum()
    }

    #[test]
    fn the_limit_is_kept_whatever_is_written_and_taken_back() {
        let keyspaces = keyspaces();
        for seed in 0..300 {
            let mut random = Random::new(seed);
            let mut writes = WriteSet::new(seed);
            let mut savepoints = Vec::new();
            for _ in 0..40 {
                let open = keyspaces[random.index(2)].open();
                let key = [b'a' + random.below(20) as u8];
                match random.below(9) {
                    8 => {
                        let suffix = vec![7; random.index(20)];
                        let put = |batch: &mut Batch| match suffix.len() % 2 {
                            0 => batch.put_versionstamped_key(key, &suffix, "value"),
                            _ => batch.put_versionstamped_value(key, &suffix, "value"),
                        };
                        let mut one = Batch::new();
                        put(&mut one);
                        writes.put_stamped(open, &one).unwrap();
                    }
                    0..3 => {
                        writes.write(open, &key, put(7, random.index(50))).unwrap();
                    }
                    3 => writes.write(open, &key, Own::Deleted).unwrap(),
                    4 => {
                        let end = [key[0] + random.below(6) as u8];
                        writes.remove(open, KeyRange::new(&(key..end))).unwrap();
                    }
                    5 => savepoints.push((writes.savepoint(), writes.bytes, encoded(&writes))),
                    6 if !savepoints.is_empty() => {
                        savepoints.truncate(1 + random.index(savepoints.len()));
                        let (savepoint, bytes, encoded_then) = *savepoints.last().unwrap();
                        writes.rollback_to(savepoint).unwrap();
                        assert_eq!(encoded(&writes), encoded_then, "seed {seed}");
                        // A keyspace that it has written to is still known.
                        let known = writes.parts.len() * PART_COST_BYTES;
                        assert!(writes.bytes - bytes <= known, "seed {seed}");
                    }
                    _ => {}
                }
                assert!(writes.bytes >= encoded(&writes), "seed {seed}");
            }
        }
    }

    /// Each keyspace that was written to was looked up with a walk over those that were read.
    #[test]
    fn what_was_written_is_added_to_many_reads_with_few_comparisons() {
        const COUNT: u32 = 1000;
        let keyspaces = keyspaces();
        let mut writes = WriteSet::new(0);
        for keyspace in &keyspaces {
            writes.write(keyspace.open(), b"k", put(7, 1)).unwrap();
        }
        let [first, second] = keyspaces.each_ref().map(|keyspace| keyspace.open().id);
        // The first one is read, too.
        let ids = (first.0..=first.0 + 2 * COUNT).map(KeyspaceId);
        let ids = ids.filter(|id| *id != second);
        let mut reads: Vec<_> = ids
            .map(|id| (id, KeySet::of(&KeyRange::one(b"a"))))
            .collect();
        let mut expected = reads.clone();
        let compared = comparisons_of(|| writes.add_to(&mut reads));
        assert!((2..=24).contains(&compared), "{compared}");
        expected[0].1.insert_key(b"k");
        expected.push((second, KeySet::of(&KeyRange::one(b"k"))));
        expected.sort_by_key(|(id, _)| *id);
        let ranges = |reads: &[(KeyspaceId, KeySet)]| -> Vec<_> {
            let ranges = reads.iter();
            let ranges = ranges.map(|(id, keys)| (*id, keys.ranges().collect::<Vec<_>>()));
            ranges.collect()
        };
        assert_eq!(ranges(&reads), ranges(&expected));
    }

    #[test]
    fn a_write_beyond_the_limit_is_refused_and_changes_nothing() {
        let keyspaces = keyspaces();
        let open = keyspaces[0].open();
        let mut writes = WriteSet::new(0);
        writes.write(open, b"k", put(7, 1)).unwrap();
        // As if there were others.
        writes.bytes = MAX_BATCH_LEN_BYTES - 200;
        assert!(writes.write(open, b"l", put(7, 200)).is_err());
        assert!(writes.remove(open, KeyRange::one(&[7; 200])).is_err());
        let mut long = Batch::new();
        long.put_versionstamped_value("l", [7; 192], "");
        assert!(writes.put_stamped(open, &long).is_err());
        assert_eq!(writes.bytes, MAX_BATCH_LEN_BYTES - 200);
        writes.write(open, b"k", put(7, 150)).unwrap();
        // In the place of a long one there is room for another.
        writes.write(open, b"k", put(8, 150)).unwrap();
        assert!(writes.write(open, b"l", put(7, 150)).is_err());
    }
}
