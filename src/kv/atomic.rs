//! What reading, changing and writing back in one step is made of.
//!
//! A caller begins a watch, reads, decides, and commits what it decided on the condition that what
//! it read was not written meanwhile. On a conflict it begins anew. No lock is held while it reads
//! or while code of the user runs, so nothing else waits, and a thread that is interrupted in the
//! middle harms no other. Of threads that compete for one key, one succeeds in each round.

use super::batch::Batch;
use crate::error::Result;
use crate::types::{KeySet, SeqNo};

/// How a conditional commit ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Committed {
    /// It is committed; its last operation has this number.
    At(SeqNo),
    /// Nothing was written: the condition did not hold.
    Conflict,
}

/// A watch: reads that begin during it see everything up to [`Watching::since`].
pub trait Watching {
    /// The number up to which everything is visible.
    fn since(&self) -> SeqNo;
}

/// Conditional commits. It seals [`Kv`](crate::Kv), too.
pub trait Atomic {
    /// What [`Atomic::watch`] returns.
    type Watch<'a>: Watching
    where
        Self: 'a;

    /// Begins a watch.
    #[doc(hidden)]
    fn watch(&self) -> Result<Self::Watch<'_>>;

    /// Commits `batch` with the handle's durability if no key in `reads` was written since the
    /// watch began.
    #[doc(hidden)]
    fn commit_if_unchanged(
        &self,
        watch: &Self::Watch<'_>,
        reads: KeySet,
        batch: Batch,
    ) -> Result<Committed>;
}
