//! Folding on reading: what a key has whose newest entry is a merge.
//!
//! # Invariants
//!
//! - **LG1** A merge says from where on the older state of the key counts: at [`Merged::since`],
//!   which is below its own number. Between the two its operand has all that happened.
//! - **LG2** In what is older than the source of a merge, that key has nothing above its `since`.
//!   For merges are combined within one memtable or one job, from the newest on, and what a job
//!   takes follows one another in age.
//!
//! So the state at `since` is found as any other state is, by a lookup; and since older sources
//! keep what a read above all of their numbers sees, it is there whatever snapshots there are.

use std::path::Path;

use super::entry::{Entry, EntryKind, merge_parts};
use super::version::Version;
use crate::error::{Error, Result};
use crate::resolve::Resolver;
use crate::types::SeqNo;
use crate::values::ValueFiles;

/// A merge that was found.
#[derive(Debug)]
pub(super) struct Merged {
    pub(super) since: SeqNo,
    pub(super) operand: Vec<u8>,
    /// Its bytes are not those of a merge.
    is_malformed: bool,
}

impl Merged {
    /// Of an entry that is a merge.
    pub(super) fn of(entry: &Entry<'_>) -> Self {
        Self::new(entry.value, entry.seq)
    }

    /// Of an entry with this value and number.
    pub(super) fn new(value: &[u8], seq: SeqNo) -> Self {
        let parts = merge_parts(value, seq);
        let (since, operand) = parts.unwrap_or((SeqNo::ZERO, &[]));
        Self {
            since,
            operand: operand.to_vec(),
            is_malformed: parts.is_none(),
        }
    }
}

/// What a lookup below a merge found.
enum Below {
    Nothing,
    Value(Vec<u8>),
    Apart(Vec<u8>),
    Merge(Merged),
}

/// What folding needs: `find` finds the newest entry of the key at or below a number in what has
/// the tables of `version`.
pub(super) struct Folding<'a, F> {
    pub(super) version: &'a Version,
    pub(super) resolver: &'a Resolver,
    pub(super) values: &'a ValueFiles,
    pub(super) find: F,
}

impl<F> Folding<'_, F>
where
    F: Fn(SeqNo, &mut dyn FnMut(&Entry<'_>)) -> Result<bool>,
{
    /// The value of `key`, whose newest entry is this merge.
    pub(super) fn fold(&self, key: &[u8], newest: &Merged) -> Result<Vec<u8>> {
        self.check(newest)?;
        let mut operands = vec![newest.operand.clone()];
        let mut since = newest.since;
        let base = loop {
            match self.below(since)? {
                Below::Nothing => break None,
                Below::Value(value) => break Some(value),
                Below::Apart(reference) => break Some(self.values.get(&reference)?.to_vec()),
                Below::Merge(merged) => {
                    self.check(&merged)?;
                    since = merged.since;
                    operands.push(merged.operand);
                }
            }
        };
        let oldest_first: Vec<&[u8]> = operands.iter().rev().map(Vec::as_slice).collect();
        Ok(self.resolver.fold(key, base.as_deref(), &oldest_first))
    }

    fn below(&self, since: SeqNo) -> Result<Below> {
        let mut below = Below::Nothing;
        (self.find)(since, &mut |entry| {
            below = match entry.kind {
                EntryKind::Put => Below::Value(entry.value.to_vec()),
                EntryKind::PutRef => Below::Apart(entry.value.to_vec()),
                EntryKind::Merge => Below::Merge(Merged::of(entry)),
                EntryKind::Delete => Below::Nothing,
            };
        })?;
        Ok(below)
    }

    /// A block is checked as a whole when it is verified; a read meets what a hostile file has.
    fn check(&self, merged: &Merged) -> Result<()> {
        if !merged.is_malformed {
            return Ok(());
        }
        let table = self.version.tables().next();
        let dir = table.and_then(|(_, table)| table.table().path().parent());
        let dir = dir.unwrap_or(Path::new("."));
        Err(Error::corruption(dir, 0, "a merge in a table is malformed"))
    }
}
