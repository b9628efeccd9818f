//! What a merge walks: memtables, tables and runs of tables, in one type.
//!
//! A scan asks its sources several times for each entry. One type instead of a trait object lets
//! these calls be resolved when the program is compiled, and a scan's sources lie side by side.

use std::sync::Arc;

use super::entry::{Entry, EntryCursor, seek_word};
use super::memtable::{BTreeCursor, Memtable, MemtableIndex, MemtableKinds};
use super::offset_value::{Direction, NOWHERE, code_over};
use super::run::RunCursor;
use super::table::{Approach, TableCursor};
use crate::error::Result;
use crate::types::SeqNo;

/// A sorted sequence of entries.
pub(crate) enum Source {
    /// A memtable on the default index.
    Memtable(BTreeCursor),
    /// A table.
    Table(TableCursor),
    /// Tables with disjoint extents.
    Run(RunCursor),
    /// Anything else.
    Other(OtherCursor),
}

/// A cursor of any type, which is given codes from outside.
pub(crate) struct OtherCursor {
    cursor: Box<dyn EntryCursor>,
    /// The last key, while the cursor moves on.
    base: Vec<u8>,
}

/// Calls the same method of whatever the source is.
macro_rules! each {
    ($source:expr, $cursor:ident => $call:expr) => {
        match $source {
            Source::Memtable($cursor) => $call,
            Source::Table($cursor) => $call,
            Source::Run($cursor) => $call,
            Source::Other(OtherCursor {
                cursor: $cursor, ..
            }) => $call,
        }
    };
}

impl Source {
    /// The entries of a memtable.
    pub(crate) fn of_memtable(memtable: &Memtable) -> Self {
        match memtable.index() {
            MemtableKinds::BTree(index) => Self::Memtable(Arc::clone(index).walk()),
            MemtableKinds::SkipList(index) => Self::other(Arc::clone(index).cursor()),
        }
    }

    /// What `cursor` walks.
    pub(crate) fn other(cursor: Box<dyn EntryCursor>) -> Self {
        Self::Other(OtherCursor {
            cursor,
            base: Vec::new(),
        })
    }

    /// The first part of a seek: finds out where in its file the seek leads, and asks for it.
    pub(crate) fn approach(&mut self, key: &[u8], seq: SeqNo) -> Option<Approach> {
        match self {
            Self::Table(cursor) => Some(cursor.approach(key, seek_word(seq))),
            Self::Run(cursor) => cursor.approach(key, seek_word(seq)),
            Self::Memtable(_) | Self::Other(_) => None,
        }
    }

    /// The second part of a seek. `approach` is what the first gave, for the same place.
    pub(crate) fn arrive(
        &mut self,
        approach: Option<Approach>,
        key: &[u8],
        seq: SeqNo,
    ) -> Result<()> {
        match (self, approach) {
            (Self::Table(cursor), Some(approach)) => cursor.arrive(approach, key, seq),
            (Self::Run(cursor), approach) => cursor.arrive(approach, key, seq),
            (source, _) => source.seek(key, seq),
        }
    }

    /// Goes to the next entry; returns the code of its key over the one before, or [`NOWHERE`].
    #[inline]
    pub(crate) fn next_coded(&mut self) -> Result<u64> {
        match self {
            Self::Memtable(cursor) => Ok(cursor.step(Direction::Forward)),
            Self::Table(cursor) => cursor.step(Direction::Forward),
            Self::Run(cursor) => cursor.step(Direction::Forward),
            Self::Other(cursor) => cursor.step(Direction::Forward),
        }
    }

    /// Goes to the previous entry; as [`Source::next_coded`], for a walk backward.
    #[inline]
    pub(crate) fn prev_coded(&mut self) -> Result<u64> {
        match self {
            Self::Memtable(cursor) => Ok(cursor.step(Direction::Backward)),
            Self::Table(cursor) => cursor.step(Direction::Backward),
            Self::Run(cursor) => cursor.step(Direction::Backward),
            Self::Other(cursor) => cursor.step(Direction::Backward),
        }
    }
}

impl OtherCursor {
    fn step(&mut self, direction: Direction) -> Result<u64> {
        self.base.clear();
        self.base.extend_from_slice(self.cursor.key());
        match direction {
            Direction::Forward => self.cursor.next()?,
            Direction::Backward => self.cursor.prev()?,
        }
        Ok(match self.cursor.is_valid() {
            true => code_over(self.cursor.key(), &self.base, direction),
            false => NOWHERE,
        })
    }
}

impl EntryCursor for Source {
    fn seek_first(&mut self) -> Result<()> {
        each!(self, cursor => cursor.seek_first())
    }

    fn seek_last(&mut self) -> Result<()> {
        each!(self, cursor => cursor.seek_last())
    }

    fn seek(&mut self, key: &[u8], seq: SeqNo) -> Result<()> {
        each!(self, cursor => cursor.seek(key, seq))
    }

    fn seek_before(&mut self, key: &[u8]) -> Result<()> {
        each!(self, cursor => cursor.seek_before(key))
    }

    fn next(&mut self) -> Result<()> {
        each!(self, cursor => cursor.next())
    }

    fn prev(&mut self) -> Result<()> {
        each!(self, cursor => cursor.prev())
    }

    #[inline]
    fn is_valid(&self) -> bool {
        each!(self, cursor => cursor.is_valid())
    }

    #[inline]
    fn entry(&self) -> Entry<'_> {
        each!(self, cursor => cursor.entry())
    }

    #[inline]
    fn key(&self) -> &[u8] {
        each!(self, cursor => cursor.key())
    }
}
