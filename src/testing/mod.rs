//! What the unit tests of several parts share: random numbers, operations that own their bytes, and
//! the store as an engine sees it.

#[cfg(not(shuttle))]
mod commits;
mod comparisons;
mod numbers;
mod pipeline;
mod running;
#[cfg(shuttle)]
mod schedules;
#[cfg(not(shuttle))]
mod woken;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender};

use parking_lot::Mutex;

use crate::engine::{EngineHost, Keep};
use crate::error::Result;
use crate::format::checksum::mix64;
use crate::fs::{Fs, OpenFiles};
use crate::resolve::{Append, MergeOperator, Resolver};
use crate::types::{Op, SeqNo};
use crate::values::ValueFiles;

#[cfg(not(shuttle))]
pub(crate) use commits::{before_a_commit_is_ordered, just_before_a_commit_is_ordered};
pub(crate) use comparisons::{comparisons_of, note_comparison};
pub(crate) use numbers::{
    first, just_after_a_number_was_taken, just_before_a_number_is_taken, then,
};
pub(crate) use pipeline::{DIR, LARGE_BATCH_OPS, PipelineRig, STORE};
pub(crate) use running::{OverAtEnd, alone, much};
#[cfg(not(shuttle))]
pub(crate) use woken::Woken;

/// splitmix64 (Steele, Lea, Flood 2014): small, seeded, good enough for tests. The field is the
/// seed as it is.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// From a mixed seed: neighbouring seeds would otherwise give one and the same sequence,
    /// shifted by a step.
    pub(crate) fn new(seed: u64) -> Self {
        Self(mix64(seed ^ 0x5EED))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix64(self.0)
    }

    /// Below `limit`, which is not zero.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// The same for lengths and places.
    pub(crate) fn index(&mut self, limit: usize) -> usize {
        self.below(limit as u64) as usize
    }

    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }
}

/// The value files of a store that has none.
pub(crate) fn no_values(fs: &Arc<dyn Fs>) -> Arc<ValueFiles> {
    let open_files = Arc::new(OpenFiles::new(8));
    Arc::new(ValueFiles::new(
        Arc::clone(fs),
        open_files,
        Path::new("/wal"),
        1,
        false,
    ))
}

/// What a sorted map holds.
pub(crate) type Map = BTreeMap<Vec<u8>, Vec<u8>>;

/// An operation that owns its bytes.
#[derive(Debug, Clone)]
pub(crate) enum OwnedOp {
    Put(Vec<u8>, Vec<u8>),
    Delete(Vec<u8>),
    DeleteRange(Vec<u8>, Option<Vec<u8>>),
    /// The operator appends.
    Merge(Vec<u8>, Vec<u8>),
}

impl OwnedOp {
    pub(crate) fn borrow(&self) -> Op<'_> {
        match self {
            Self::Put(key, value) => Op::Put { key, value },
            Self::Delete(key) => Op::Delete { key },
            Self::Merge(key, operand) => Op::Merge { key, operand },
            Self::DeleteRange(start, end) => Op::DeleteRange {
                start,
                end: end.as_deref(),
            },
        }
    }

    /// A merge in the place of every other short put.
    pub(crate) fn or_merge(self, random: &mut Random) -> Self {
        match self {
            Self::Put(key, value) if value.len() < 100 && random.one_in(2) => {
                let operand = value[..value.len() / 4].to_vec();
                Self::Merge(key, operand)
            }
            op => op,
        }
    }

    pub(crate) fn apply(&self, map: &mut Map) {
        match self {
            Self::Put(key, value) => {
                map.insert(key.clone(), value.clone());
            }
            Self::Delete(key) => {
                map.remove(key);
            }
            Self::Merge(key, operand) => {
                map.entry(key.clone()).or_default().extend(operand);
            }
            Self::DeleteRange(start, end) => {
                map.retain(|key, _| key < start || end.as_ref().is_some_and(|end| key >= end))
            }
        }
    }
}

/// What values may do in a keyspace whose merges append.
pub(crate) fn appending(operator: impl MergeOperator + 'static) -> Arc<Resolver> {
    let operator: Arc<dyn MergeOperator> = Arc::new(operator);
    Arc::new(Resolver::new(
        Some(operator),
        None,
        false,
        0,
        Arc::default(),
    ))
}

/// Appends, and says of no operand what two come to.
#[derive(Debug)]
pub(crate) struct AppendInFull;

impl MergeOperator for AppendInFull {
    fn name(&self) -> &str {
        "append-in-full"
    }

    fn merge(&self, key: &[u8], value: Option<&[u8]>, operands: &[&[u8]]) -> Vec<u8> {
        Append.merge(key, value, operands)
    }
}

/// A host whose log is durable as soon as it is asked to be. Remembers up to where it was asked.
#[derive(Debug, Default)]
pub(crate) struct FakeHost {
    pub(crate) durable: AtomicU64,
    pub(crate) gate: Mutex<Option<Gate>>,
    /// The same for the job that next asks whether it is to go on.
    pub(crate) job_gate: Mutex<Option<Gate>>,
    /// How often work was announced.
    pub(crate) wakes: AtomicU64,
}

/// Stops the thread that next asks for a durable log: one checkpoint or flush, between its writing
/// and its end.
#[derive(Debug)]
pub(crate) struct Gate {
    pub(crate) reached: Sender<()>,
    /// What then becomes of it.
    pub(crate) outcome: Receiver<Result<()>>,
}

impl Keep for FakeHost {
    fn make_dir(&self) -> Result<()> {
        Ok(())
    }
}

impl EngineHost for FakeHost {
    fn make_durable(&self, seq: SeqNo) -> Result<()> {
        let gate = self.gate.lock().take();
        if let Some(gate) = gate {
            gate.reached.send(()).unwrap();
            gate.outcome.recv().unwrap()?;
        }
        self.durable.fetch_max(seq.0, Ordering::SeqCst);
        Ok(())
    }

    fn check_running(&self) -> Result<()> {
        let gate = self.job_gate.lock().take();
        match gate {
            Some(gate) => {
                gate.reached.send(()).unwrap();
                gate.outcome.recv().unwrap()
            }
            None => Ok(()),
        }
    }

    fn wake(&self) {
        self.wakes.fetch_add(1, Ordering::SeqCst);
    }

    fn progressed(&self) {}
}
