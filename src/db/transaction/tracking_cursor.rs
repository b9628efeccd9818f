//! A cursor that notes what it passes.

use super::read_set::Passed;
use crate::engine::{Cursor, Entry};
use crate::error::Result;
use crate::types::KeyRange;

/// A cursor that notes what it passes, entries and what lies between them, as far as it is within
/// the range that is asked for.
///
/// What it finds follows from what is between where it was positioned and where it stands, the key
/// included; and if it stands nowhere, from everything up to the end of the range.
pub(super) struct TrackingCursor {
    cursor: Box<dyn Cursor>,
    passed: Passed,
    within: KeyRange,
}

impl TrackingCursor {
    pub(super) fn new(cursor: Box<dyn Cursor>, passed: Passed) -> Self {
        Self {
            cursor,
            passed,
            within: KeyRange::new(&..),
        }
    }

    /// Where it stands, unless that is at or behind the end of the range.
    fn key_below_the_end(&self) -> Option<&[u8]> {
        let end = self.within.end.as_deref();
        let key = self.cursor.is_valid().then(|| self.cursor.key());
        key.filter(|key| end.is_none_or(|end| *key < end))
    }

    /// Where it stands, unless that is before the range.
    fn key_from_the_start(&self) -> Option<&[u8]> {
        let key = self.cursor.is_valid().then(|| self.cursor.key());
        key.filter(|key| *key >= self.within.start.as_slice())
    }

    /// It was positioned at the first entry from `start` on.
    fn begin(&self, start: &[u8]) {
        let start = start.max(&self.within.start).to_vec();
        let end = match self.key_below_the_end() {
            Some(key) => KeyRange::one(key).end,
            None => self.within.end.clone(),
        };
        self.passed.begin(KeyRange { start, end });
    }

    /// It was positioned at the last entry below `end`.
    fn begin_back(&self, end: Option<&[u8]>) {
        let start = self.key_from_the_start().unwrap_or(&self.within.start);
        let end = match (end, self.within.end.as_deref()) {
            (Some(end), Some(within)) => Some(end.min(within)),
            (end, within) => end.or(within),
        };
        self.passed.begin(KeyRange {
            start: start.to_vec(),
            end: end.map(<[u8]>::to_vec),
        });
    }
}

impl Cursor for TrackingCursor {
    fn keep_within(&mut self, range: &KeyRange) {
        self.within = range.clone();
        self.cursor.keep_within(range);
    }

    fn seek_first(&mut self) -> Result<()> {
        self.cursor.seek_first()?;
        self.begin(&[]);
        Ok(())
    }

    fn seek_last(&mut self) -> Result<()> {
        self.cursor.seek_last()?;
        self.begin_back(None);
        Ok(())
    }

    fn seek(&mut self, key: &[u8]) -> Result<()> {
        self.cursor.seek(key)?;
        self.begin(key);
        Ok(())
    }

    fn seek_before(&mut self, key: &[u8]) -> Result<()> {
        self.cursor.seek_before(key)?;
        self.begin_back(Some(key));
        Ok(())
    }

    fn next(&mut self) -> Result<()> {
        self.cursor.next()?;
        let end = self.within.end.as_deref();
        self.passed.extend_to(self.key_below_the_end(), end);
        Ok(())
    }

    fn prev(&mut self) -> Result<()> {
        self.cursor.prev()?;
        let key = self.key_from_the_start();
        self.passed
            .extend_back_to(key.unwrap_or(&self.within.start));
        Ok(())
    }

    fn is_valid(&self) -> bool {
        self.cursor.is_valid()
    }

    fn key(&self) -> &[u8] {
        self.cursor.key()
    }

    fn entry(&mut self) -> Result<Entry<'_>> {
        self.cursor.entry()
    }
}
