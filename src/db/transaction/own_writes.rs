//! What a transaction has written to one keyspace.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use crate::engine::{Laid, Overlay, OwnEntry};
use crate::kv::{Batch, Expiry};
use crate::resolve::MergeOperator;
use crate::types::{Inserted, KeyRange, KeySet, Value};

/// The longest that an operation can be in a batch, beside its keys and values.
const OP_COST_BYTES: usize = 16;

/// What a transaction has done to a key.
#[derive(Debug, Clone)]
pub(super) enum Own {
    /// It was given a value, which may expire.
    Put(Value, Option<Expiry>),
    Deleted,
    /// These operands, oldest first, were merged into what the store has.
    Merged(Vec<Value>),
}

impl Own {
    /// What it takes in a batch, at most.
    pub(super) fn cost(&self, key: &[u8]) -> usize {
        match self {
            Self::Put(value, _) => OP_COST_BYTES + key.len() + value.len(),
            Self::Deleted => OP_COST_BYTES + key.len(),
            Self::Merged(operands) => operands.iter().map(|it| operand_cost(key, it)).sum(),
        }
    }
}

/// What a merge takes in a batch, at most.
pub(super) fn operand_cost(key: &[u8], operand: &[u8]) -> usize {
    OP_COST_BYTES + key.len() + operand.len()
}

/// A key that was written, and what was done to it.
pub(super) type Write = (Vec<u8>, Own);

/// What a transaction has written to one keyspace: the outcome, not the operations one by one.
#[derive(Debug, Clone, Default)]
pub(super) struct OwnWrites {
    /// Keys written after the ranges that have them were deleted.
    keys: BTreeMap<Vec<u8>, Own>,
    /// Ranges that were deleted. What is in `keys` has precedence.
    removed: KeySet,
    /// What `keys` take.
    bytes: usize,
    /// That of the keyspace, once it is needed, and the longest value there.
    operator: Option<(Arc<dyn MergeOperator>, usize)>,
}

/// How to take a write back.
#[derive(Debug)]
pub(super) enum Undo {
    /// The key had this before, if it was written at all.
    Key(Vec<u8>, Option<Own>),
    /// One more operand was merged into the key, as into those before it.
    Operand(Vec<u8>),
    /// The deletion of a range.
    Range(Option<Inserted>, Vec<Write>),
}

fn put((key, own): (&Vec<u8>, &Own)) -> Option<OwnEntry> {
    match own {
        Own::Put(value, _) => Some((key.clone(), Some(value.clone()))),
        Own::Merged(_) => Some((key.clone(), None)),
        Own::Deleted => None,
    }
}

impl OwnWrites {
    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.removed.is_empty()
    }

    /// Bytes that they take in a batch, at most.
    pub(super) fn len_bytes(&self) -> usize {
        self.bytes + self.removed.len_bytes()
    }

    /// Bytes more in a batch, at most, if this is done to a key.
    pub(super) fn growth(&self, key: &[u8], own: &Own) -> usize {
        let old = self.keys.get(key).map_or(0, |old| old.cost(key));
        own.cost(key).saturating_sub(old)
    }

    /// Does this to a key.
    pub(super) fn write(&mut self, key: &[u8], own: Own) -> Undo {
        self.bytes += own.cost(key);
        let old = self.keys.insert(key.to_vec(), own);
        if let Some(old) = &old {
            self.bytes -= old.cost(key);
        }
        Undo::Key(key.to_vec(), old)
    }

    /// What a merge of `operand` makes of what was done to a key, cut to `limit_bytes`; `None` if
    /// it is an operand more, for [`OwnWrites::push_operand`].
    pub(super) fn merged(
        &self,
        operator: &dyn MergeOperator,
        limit_bytes: usize,
        key: &[u8],
        operand: &[u8],
    ) -> Option<Own> {
        let onto = |value: Option<&[u8]>| {
            let mut merged = operator.merge(key, value, &[operand]);
            merged.truncate(limit_bytes);
            Value::from(merged)
        };
        match self.keys.get(key) {
            Some(Own::Put(value, expiry)) => Some(Own::Put(onto(Some(value)), *expiry)),
            Some(Own::Deleted) => Some(Own::Put(onto(None), None)),
            Some(Own::Merged(_)) => None,
            None if self.removed.contains(key) => Some(Own::Put(onto(None), None)),
            None => Some(Own::Merged(vec![Value::copy_from(operand)])),
        }
    }

    /// Merges `operand` into a key into which others were merged.
    pub(super) fn push_operand(&mut self, key: &[u8], operand: &[u8]) -> Undo {
        if let Some(Own::Merged(operands)) = self.keys.get_mut(key) {
            operands.push(Value::copy_from(operand));
            self.bytes += operand_cost(key, operand);
        }
        Undo::Operand(key.to_vec())
    }

    /// The operator that [`Overlay::merge`] needs, whose values are cut to `limit_bytes`.
    pub(super) fn use_operator(&mut self, operator: &Arc<dyn MergeOperator>, limit_bytes: usize) {
        self.operator
            .get_or_insert_with(|| (Arc::clone(operator), limit_bytes));
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
            let own = self.keys.remove(&key).expect("it was found");
            self.bytes -= own.cost(&key);
            (key, own)
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
                        self.bytes += old.cost(&key);
                        self.keys.insert(key.clone(), old)
                    }
                    None => self.keys.remove(&key),
                };
                self.bytes -= new.map_or(0, |new| new.cost(&key));
            }
            Undo::Operand(key) => {
                if let Some(Own::Merged(operands)) = self.keys.get_mut(&key)
                    && let Some(operand) = operands.pop()
                {
                    self.bytes -= operand_cost(&key, &operand);
                }
            }
            Undo::Range(inserted, entries) => {
                if let Some(inserted) = inserted {
                    self.removed.undo(inserted);
                }
                for (key, own) in entries {
                    self.bytes += own.cost(&key);
                    self.keys.insert(key, own);
                }
            }
        }
    }

    /// What the transaction has done to a key.
    pub(super) fn get(&self, key: &[u8]) -> Laid<&Value> {
        match self.keys.get(key) {
            Some(Own::Put(value, _)) => Laid::Put(value),
            Some(Own::Deleted) => Laid::Deleted,
            Some(Own::Merged(_)) => Laid::Merged,
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
        for (key, own) in &self.keys {
            match own {
                Own::Put(value, None) => batch.put(key, value),
                Own::Put(value, Some(expiry)) => batch.put_expiring(key, value, *expiry),
                Own::Deleted => batch.delete(key),
                Own::Merged(operands) => operands.iter().for_each(|it| batch.merge(key, it)),
            }
        }
        batch
    }

    /// Adds every key and range to `set` that was written, and may not have been written by others
    /// under snapshot isolation. A merge goes over whatever is there.
    pub(super) fn add_to(&self, set: &mut KeySet) {
        for range in self.removed.ranges() {
            set.insert(range);
        }
        for (key, own) in &self.keys {
            if !matches!(own, Own::Merged(_)) {
                set.insert_key(key);
            }
        }
    }
}

impl Overlay for OwnWrites {
    fn over(&self, key: &[u8]) -> Laid<&[u8]> {
        self.get(key).map(|value| &**value)
    }

    fn merge(&self, key: &[u8], below: Option<&[u8]>) -> Vec<u8> {
        match (self.keys.get(key), &self.operator) {
            (Some(Own::Merged(operands)), Some((operator, limit_bytes))) => {
                let operands: Vec<&[u8]> = operands.iter().map(|it| &**it).collect();
                let mut merged = operator.merge(key, below, &operands);
                merged.truncate(*limit_bytes);
                merged
            }
            _ => unreachable!("it has operands over the key"),
        }
    }

    fn removed_range(&self, key: &[u8]) -> Option<KeyRange> {
        self.removed.range_of(key)
    }

    fn first_put(&self, start: Bound<&[u8]>) -> Option<OwnEntry> {
        let mut from = self.keys.range::<[u8], _>((start, Bound::Unbounded));
        from.find_map(put)
    }

    fn last_put(&self, end: Bound<&[u8]>) -> Option<OwnEntry> {
        let upto = self.keys.range::<[u8], _>((Bound::Unbounded, end));
        upto.rev().find_map(put)
    }
}
