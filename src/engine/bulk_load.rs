//! Sorted loads: what an engine writes beside the tree, and makes a part of it at once.

use std::fmt;

use crate::error::{Error, Result};
use crate::types::SeqNo;

/// What the log says of a load: with it the engine finds what was written, and makes it a part of
/// its tree.
#[derive(Debug)]
pub(crate) struct LoadRecord<'a> {
    /// For [`Engine::apply_load`](super::Engine::apply_load). A format of the engine's own.
    pub(crate) content: &'a [u8],
    /// Sequence numbers that the load takes.
    pub(crate) numbers: u64,
    /// The first and the last key.
    pub(crate) first: &'a [u8],
    pub(crate) last: &'a [u8],
}

/// Why a load was not committed.
#[derive(Debug)]
pub(crate) struct LoadFailed {
    pub(crate) error: Error,
    /// The log may have the record even so, which the next open finds: what the load wrote stays.
    pub(crate) may_be_logged: bool,
}

/// Commits a load, and returns the last of its numbers.
pub(crate) type CommitLoad<'a> = dyn FnMut(&LoadRecord<'_>) -> Result<SeqNo, LoadFailed> + 'a;

/// A load that is under way. Dropping it removes what it wrote.
pub(crate) trait EngineLoad: fmt::Debug + Send {
    /// Adds an entry, whose key comes after that of the last one and is within the limits.
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()>;

    /// No more entries come: does what takes long and need not wait for [`EngineLoad::finish`].
    fn close(&mut self) -> Result<()>;

    /// Makes the load a part of the tree: has everything durable that is to be, then calls
    /// `commit`, which logs the record durably and has it applied. There is at least one entry.
    /// Until this returns, no commit of the keyspace is on its way or begins.
    fn finish(self: Box<Self>, commit: &mut CommitLoad<'_>) -> Result<SeqNo>;
}
