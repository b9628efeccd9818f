//! What a workload has committed, and what that leaves.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use hedgerow::{Keyspace, Result, SeqNo, Transaction, WriteBatch};

pub type Map = BTreeMap<Vec<u8>, Vec<u8>>;

/// A change of one key or range. `None` deletes.
#[derive(Debug, Clone)]
pub enum Edit {
    Set(Vec<u8>, Option<Vec<u8>>),
    /// For so many milliseconds. No other commit writes the same value.
    SetFor(Vec<u8>, Vec<u8>, u64),
    /// Appends.
    Merge(Vec<u8>, Vec<u8>),
    DeleteRange(Vec<u8>, Vec<u8>),
}

impl Edit {
    /// The key, or the first one.
    pub(super) fn key(&self) -> &[u8] {
        match self {
            Self::Set(key, _)
            | Self::SetFor(key, ..)
            | Self::Merge(key, _)
            | Self::DeleteRange(key, _) => key,
        }
    }

    /// Adds it to a batch.
    pub(super) fn add_to(&self, batch: &mut WriteBatch, handle: &Keyspace) {
        match self {
            Self::Set(key, Some(value)) => batch.put(handle, key, value),
            Self::Set(key, None) => batch.delete(handle, key),
            Self::SetFor(key, value, ms) => {
                batch.put_with_ttl(handle, key, value, Duration::from_millis(*ms));
            }
            Self::Merge(key, operand) => batch.merge(handle, key, operand),
            Self::DeleteRange(start, end) => batch.delete_range(handle, &start[..]..&end[..]),
        }
    }

    /// Makes it a commit of its own.
    pub(super) fn commit_to(&self, handle: &Keyspace) -> Result<SeqNo> {
        match self {
            Self::Set(key, Some(value)) => handle.put(key, value),
            Self::Set(key, None) => handle.delete(key),
            Self::SetFor(key, value, ms) => {
                handle.put_with_ttl(key, value, Duration::from_millis(*ms))
            }
            Self::Merge(key, operand) => handle.merge(key, operand),
            Self::DeleteRange(start, end) => handle.delete_range(&start[..]..&end[..]),
        }
    }

    /// Makes it a write of a transaction.
    pub(super) fn write_to(&self, tx: &Transaction, handle: &Keyspace) -> Result<()> {
        match self {
            Self::Set(key, Some(value)) => tx.put(handle, key, value),
            Self::Set(key, None) => tx.delete(handle, key),
            Self::SetFor(key, value, ms) => {
                tx.put_with_ttl(handle, key, value, Duration::from_millis(*ms))
            }
            Self::Merge(key, operand) => tx.merge(handle, key, operand),
            Self::DeleteRange(start, end) => tx.delete_range(handle, &start[..]..&end[..]),
        }
    }

    fn apply(&self, map: &mut Map) {
        match self {
            Self::Set(key, Some(value)) => drop(map.insert(key.clone(), value.clone())),
            Self::Set(key, None) => drop(map.remove(key)),
            Self::SetFor(..) | Self::Merge(..) => unreachable!("settled when it was committed"),
            Self::DeleteRange(start, end) => map.retain(|key, _| key < start || end <= key),
        }
    }
}

/// Every keyspace there ever was gets a number; making a dropped one again gives another.
pub(super) type Incarnation = usize;

pub(super) type Commit = Vec<(Incarnation, Edit)>;
pub(super) type State = Vec<Map>;

pub(super) fn apply(commit: &Commit, state: &mut State) {
    for (of, edit) in commit {
        if state.len() <= *of {
            state.resize(of + 1, Map::new());
        }
        edit.apply(&mut state[*of]);
    }
}

/// What time it is, and when entries expire, by key and value.
#[derive(Debug, Default)]
pub(super) struct Times {
    pub(super) now_ms: u64,
    expire_at_ms: HashMap<(Vec<u8>, Vec<u8>), u64>,
}

impl Times {
    /// What edits of a state come to: values, deletes and range deletes.
    pub(super) fn settle(&mut self, edits: &[(Incarnation, Edit)], state: &State) -> Commit {
        let mut state = state.clone();
        let mut commit = Commit::new();
        for (of, edit) in edits {
            let settled = match edit {
                Edit::SetFor(key, value, ms) => {
                    self.set(key, value, self.now_ms + ms);
                    Edit::Set(key.clone(), Some(value.clone()))
                }
                Edit::Merge(key, operand) => {
                    let old = state[*of].get(key).cloned().unwrap_or_default();
                    let new = [&old[..], operand].concat();
                    // It keeps the time of what it goes into.
                    if let Some(at_ms) = self.expire_at_ms.get(&(key.clone(), old)).copied() {
                        self.set(key, &new, at_ms);
                    }
                    Edit::Set(key.clone(), Some(new))
                }
                edit => edit.clone(),
            };
            settled.apply(&mut state[*of]);
            commit.push((*of, settled));
        }
        commit
    }

    fn set(&mut self, key: &[u8], value: &[u8], at_ms: u64) {
        let entry = (key.to_vec(), value.to_vec());
        self.expire_at_ms.insert(entry, at_ms);
    }

    /// Takes out what has expired by now.
    pub(super) fn expire(&self, map: &mut Map) {
        if self.expire_at_ms.is_empty() {
            return;
        }
        map.retain(|key, value| {
            let at_ms = self.expire_at_ms.get(&(key.clone(), value.clone()));
            at_ms.is_none_or(|at_ms| *at_ms > self.now_ms)
        });
    }
}

pub fn key_of(n: u32) -> Vec<u8> {
    format!("key {n:05}").into_bytes()
}
