//! What a workload has committed, and what that leaves.

use std::collections::BTreeMap;

pub type Map = BTreeMap<Vec<u8>, Vec<u8>>;

/// A change of one key or range. `None` deletes.
#[derive(Debug, Clone)]
pub enum Edit {
    Set(Vec<u8>, Option<Vec<u8>>),
    DeleteRange(Vec<u8>, Vec<u8>),
}

impl Edit {
    /// The key, or the first one.
    pub(super) fn key(&self) -> &[u8] {
        match self {
            Self::Set(key, _) | Self::DeleteRange(key, _) => key,
        }
    }

    fn apply(&self, map: &mut Map) {
        match self {
            Self::Set(key, Some(value)) => drop(map.insert(key.clone(), value.clone())),
            Self::Set(key, None) => drop(map.remove(key)),
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

pub fn key_of(n: u32) -> Vec<u8> {
    format!("key {n:05}").into_bytes()
}
