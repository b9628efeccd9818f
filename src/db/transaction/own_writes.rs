//! What a transaction has written to one keyspace.

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::engine::{Laid, Overlay};
use crate::kv::Batch;
use crate::types::{Inserted, KeyRange, KeySet, Value};

/// The longest that an operation can be in a batch, beside its keys and values.
const OP_COST_BYTES: usize = 16;

/// A key that was written, and its value; `None` if it was deleted.
pub(super) type Write = (Vec<u8>, Option<Value>);

/// What a transaction has written to one keyspace: the outcome, not the operations one by one.
#[derive(Debug, Clone, Default)]
pub(super) struct OwnWrites {
    /// Keys written after the ranges that have them were deleted.
    keys: BTreeMap<Vec<u8>, Option<Value>>,
    /// Ranges that were deleted. What is in `keys` has precedence.
    removed: KeySet,
    /// What `keys` take.
    bytes: usize,
}

/// How to take a write back.
#[derive(Debug)]
pub(super) enum Undo {
    /// The key had this before, if it was written at all.
    Key(Vec<u8>, Option<Option<Value>>),
    /// The deletion of a range.
    Range(Option<Inserted>, Vec<Write>),
}

fn put((key, value): (&Vec<u8>, &Option<Value>)) -> Option<(Vec<u8>, Value)> {
    Some((key.clone(), value.clone()?))
}

fn cost(key: &[u8], value: Option<&Value>) -> usize {
    OP_COST_BYTES + key.len() + value.map_or(0, |value| value.len())
}

impl OwnWrites {
    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.removed.is_empty()
    }

    /// Bytes that they take in a batch, at most.
    pub(super) fn len_bytes(&self) -> usize {
        self.bytes + self.removed.len_bytes()
    }

    /// Bytes more in a batch, at most, if this is written.
    pub(super) fn growth(&self, key: &[u8], value: Option<&[u8]>) -> usize {
        let old = self.keys.get(key);
        let old = old.map_or(0, |old| cost(key, old.as_ref()));
        (OP_COST_BYTES + key.len() + value.map_or(0, <[u8]>::len)).saturating_sub(old)
    }

    /// Writes a key.
    pub(super) fn write(&mut self, key: &[u8], value: Option<Value>) -> Undo {
        self.bytes += cost(key, value.as_ref());
        let old = self.keys.insert(key.to_vec(), value);
        if let Some(old) = &old {
            self.bytes -= cost(key, old.as_ref());
        }
        Undo::Key(key.to_vec(), old)
    }

    /// Deletes a range.
    pub(super) fn remove(&mut self, range: KeyRange) -> Undo {
        let mut covered = Vec::new();
        let mut next = self.keys.range(range.start.clone()..);
        while let Some((key, _)) = next.next()
            && range.end.as_ref().is_none_or(|end| key < end)
        {
            covered.push(key.clone());
        }
        let entries = covered.into_iter().map(|key| {
            let value = self.keys.remove(&key).expect("it was found");
            self.bytes -= cost(&key, value.as_ref());
            (key, value)
        });
        let entries = entries.collect();
        Undo::Range(self.removed.insert(range), entries)
    }

    /// Takes the last write that was not taken back.
    pub(super) fn undo(&mut self, undo: Undo) {
        match undo {
            Undo::Key(key, old) => {
                let new = match old {
                    Some(old) => {
                        self.bytes += cost(&key, old.as_ref());
                        self.keys.insert(key.clone(), old)
                    }
                    None => self.keys.remove(&key),
                };
                self.bytes -= new.map_or(0, |new| cost(&key, new.as_ref()));
            }
            Undo::Range(inserted, entries) => {
                if let Some(inserted) = inserted {
                    self.removed.undo(inserted);
                }
                for (key, value) in entries {
                    self.bytes += cost(&key, value.as_ref());
                    self.keys.insert(key, value);
                }
            }
        }
    }

    /// What the transaction has done to a key.
    pub(super) fn get(&self, key: &[u8]) -> Laid<&Value> {
        match self.keys.get(key) {
            Some(Some(value)) => Laid::Put(value),
            Some(None) => Laid::Deleted,
            None if self.removed.contains(key) => Laid::Deleted,
            None => Laid::Nothing,
        }
    }

    /// As a batch: first what is deleted in ranges.
    pub(super) fn to_batch(&self) -> Batch {
        let mut batch = Batch::with_capacity(self.len_bytes());
        for KeyRange { start, end } in self.removed.ranges() {
            match end {
                Some(end) => batch.delete_range(start..end),
                None => batch.delete_range(start..),
            }
        }
        for (key, value) in &self.keys {
            match value {
                Some(value) => batch.put(key, value),
                None => batch.delete(key),
            }
        }
        batch
    }

    /// Adds every key and range that was written to `set`.
    pub(super) fn add_to(&self, set: &mut KeySet) {
        for range in self.removed.ranges() {
            set.insert(range);
        }
        for key in self.keys.keys() {
            set.insert_key(key);
        }
    }
}

impl Overlay for OwnWrites {
    fn over(&self, key: &[u8]) -> Laid<&[u8]> {
        self.get(key).map(|value| &**value)
    }

    fn removed_range(&self, key: &[u8]) -> Option<KeyRange> {
        self.removed.range_of(key)
    }

    fn first_put(&self, start: Bound<&[u8]>) -> Option<(Vec<u8>, Value)> {
        let mut from = self.keys.range::<[u8], _>((start, Bound::Unbounded));
        from.find_map(put)
    }

    fn last_put(&self, end: Bound<&[u8]>) -> Option<(Vec<u8>, Value)> {
        let upto = self.keys.range::<[u8], _>((Bound::Unbounded, end));
        upto.rev().find_map(put)
    }
}
