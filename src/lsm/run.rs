//! Walking a sorted run: tables with disjoint extents, in key order, as one sequence.

use std::sync::Arc;

use super::entry::{Entry, EntryCursor, seek_word};
use super::offset_value::{Direction, NOWHERE, code_over};
use super::sorted_run::SortedRun;
use super::table::{Approach, Purpose, TableCursor};

use crate::error::Result;
use crate::types::SeqNo;

/// A cursor over a sorted run. Opens a table only when it gets there.
pub(crate) struct RunCursor {
    run: Arc<SortedRun>,
    /// The table that `cursor` is in.
    at: usize,
    cursor: Option<TableCursor>,
    purpose: Purpose,
}

impl RunCursor {
    /// A cursor over `run`, standing nowhere.
    pub(crate) fn new(run: Arc<SortedRun>, purpose: Purpose) -> Self {
        Self {
            run,
            at: 0,
            cursor: None,
            purpose,
        }
    }

    /// The cursor of table `at`.
    fn open(&mut self, at: usize) -> &mut TableCursor {
        if self.at != at {
            self.cursor = None;
            self.at = at;
        }
        let (table, purpose) = (self.run.tables()[at].table(), self.purpose);
        self.cursor.get_or_insert_with(|| table.cursor(purpose))
    }

    /// Stands nowhere.
    fn leave(&mut self) -> Result<()> {
        self.cursor = None;
        Ok(())
    }

    /// While the cursor stands nowhere, goes on to the start of the next table: a table may
    /// hold range tombstones only.
    fn skip_forward(&mut self) -> Result<()> {
        while !self.is_valid() {
            if self.at + 1 >= self.run.tables().len() {
                return self.leave();
            }
            self.open(self.at + 1).seek_first()?;
        }
        Ok(())
    }

    /// As [`RunCursor::skip_forward`], the other way.
    fn skip_backward(&mut self) -> Result<()> {
        while !self.is_valid() {
            if self.at == 0 {
                return self.leave();
            }
            self.open(self.at - 1).seek_last()?;
        }
        Ok(())
    }
}

impl RunCursor {
    /// The first part of a seek, as [`TableCursor::approach`]; `None` if it ends behind all tables.
    pub(crate) fn approach(&mut self, key: &[u8], word: u64) -> Option<Approach> {
        let at = self.run.first_not_before(key);
        if at == self.run.tables().len() {
            self.cursor = None;
            return None;
        }
        Some(self.open(at).approach(key, word))
    }

    /// The second part of a seek, as [`TableCursor::arrive`].
    pub(crate) fn arrive(
        &mut self,
        approach: Option<Approach>,
        key: &[u8],
        seq: SeqNo,
    ) -> Result<()> {
        let (Some(approach), Some(cursor)) = (approach, &mut self.cursor) else {
            return self.leave();
        };
        cursor.arrive(approach, key, seq)?;
        self.skip_forward()
    }

    /// Goes to the entry beside this one; returns the code of its key over this one's, or
    /// [`NOWHERE`].
    #[inline]
    pub(crate) fn step(&mut self, direction: Direction) -> Result<u64> {
        let cursor = self.cursor.as_mut().expect("only on a valid cursor");
        let code = cursor.step(direction)?;
        match code {
            NOWHERE => self.step_into_another_table(direction),
            code => Ok(code),
        }
    }

    #[cold]
    fn step_into_another_table(&mut self, direction: Direction) -> Result<u64> {
        let left = match &self.cursor {
            Some(cursor) => cursor.left().to_vec(),
            None => Vec::new(),
        };
        match direction {
            Direction::Forward => self.skip_forward()?,
            Direction::Backward => self.skip_backward()?,
        }
        Ok(match self.is_valid() {
            true => code_over(self.key(), &left, direction),
            false => NOWHERE,
        })
    }
}

impl EntryCursor for RunCursor {
    fn seek_first(&mut self) -> Result<()> {
        if self.run.tables().is_empty() {
            return Ok(());
        }
        self.open(0).seek_first()?;
        self.skip_forward()
    }

    fn seek_last(&mut self) -> Result<()> {
        let Some(last) = self.run.tables().len().checked_sub(1) else {
            return Ok(());
        };
        self.open(last).seek_last()?;
        self.skip_backward()
    }

    fn seek(&mut self, key: &[u8], seq: SeqNo) -> Result<()> {
        let approach = self.approach(key, seek_word(seq));
        self.arrive(approach, key, seq)
    }

    fn seek_before(&mut self, key: &[u8]) -> Result<()> {
        let Some(at) = self.run.last_before(key) else {
            return self.leave();
        };
        self.open(at).seek_before(key)?;
        self.skip_backward()
    }

    #[inline]
    fn next(&mut self) -> Result<()> {
        self.step(Direction::Forward).map(drop)
    }

    #[inline]
    fn prev(&mut self) -> Result<()> {
        self.step(Direction::Backward).map(drop)
    }

    #[inline]
    fn is_valid(&self) -> bool {
        self.cursor.as_ref().is_some_and(TableCursor::is_valid)
    }

    #[inline]
    fn entry(&self) -> Entry<'_> {
        self.cursor
            .as_ref()
            .expect("only on a valid cursor")
            .entry()
    }

    #[inline]
    fn key(&self) -> &[u8] {
        self.cursor.as_ref().expect("only on a valid cursor").key()
    }
}
