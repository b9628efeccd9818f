//! A cursor over a snapshot and what a transaction has written over it.

use std::ops::Bound;
use std::sync::Arc;

use super::own_writes::{Own, OwnWrites};
use crate::engine::{Cursor, Entry};
use crate::error::Result;
use crate::types::{KeyRange, Value};
use crate::util::mutants::mutated;

/// Entries of a snapshot, with those of a transaction in their places.
///
/// Both stand, in the direction of the last move, at or behind the entry that the cursor is on. To
/// turn round is to be positioned anew.
pub(super) struct MergedCursor {
    base: Box<dyn Cursor>,
    own: Arc<OwnWrites>,
    at: At,
    /// The own entry that is next, or that the cursor is on.
    own_entry: Option<(Vec<u8>, Value)>,
    /// Nothing of the snapshot is left in the direction of the last move.
    base_is_over: bool,
    is_forward: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Nowhere,
    Base,
    Own,
}

fn owned((key, value): (&[u8], &Value)) -> (Vec<u8>, Value) {
    (key.to_vec(), value.clone())
}

impl MergedCursor {
    pub(super) fn new(base: Box<dyn Cursor>, own: Arc<OwnWrites>) -> Self {
        Self {
            base,
            own,
            at: At::Nowhere,
            own_entry: None,
            base_is_over: false,
            is_forward: true,
        }
    }

    fn has_base(&self) -> bool {
        !self.base_is_over && self.base.is_valid()
    }

    /// Moves the cursor of the snapshot forwards to an entry that the transaction has not changed.
    fn skip_changed(&mut self) -> Result<()> {
        while self.has_base() {
            let key = self.base.key();
            match self.own.get(key) {
                Own::Untouched => return Ok(()),
                Own::Put(_) => self.base.next()?,
                Own::Deleted => match self.own.removed_range(key) {
                    None => self.base.next()?,
                    Some(KeyRange { end: None, .. }) => self.base_is_over = true,
                    Some(KeyRange { end: Some(end), .. }) => self.base.seek(&end)?,
                },
            }
        }
        Ok(())
    }

    /// The same backwards.
    fn skip_changed_back(&mut self) -> Result<()> {
        while self.has_base() {
            let key = self.base.key();
            match self.own.get(key) {
                Own::Untouched => return Ok(()),
                Own::Put(_) => self.base.prev()?,
                Own::Deleted => match self.own.removed_range(key) {
                    None => self.base.prev()?,
                    Some(KeyRange { start, .. }) => self.base.seek_before(&start)?,
                },
            }
        }
        Ok(())
    }

    /// Stands on the first of both.
    fn settle(&mut self) -> Result<()> {
        self.skip_changed()?;
        self.at = match &self.own_entry {
            Some((own, _)) if !self.has_base() || own.as_slice() < self.base.key() => At::Own,
            _ if self.has_base() => At::Base,
            _ => At::Nowhere,
        };
        Ok(())
    }

    /// Stands on the last of both.
    fn settle_back(&mut self) -> Result<()> {
        self.skip_changed_back()?;
        self.at = match &self.own_entry {
            Some((own, _)) if !self.has_base() || own.as_slice() > self.base.key() => At::Own,
            _ if self.has_base() => At::Base,
            _ => At::Nowhere,
        };
        Ok(())
    }

    /// A move forwards begins: after an error in it the cursor stands nowhere.
    fn begin(&mut self, own_from: Bound<&[u8]>) {
        self.at = At::Nowhere;
        self.is_forward = true;
        self.own_entry = self.own.first_put(own_from).map(owned);
    }

    fn begin_back(&mut self, own_upto: Bound<&[u8]>) {
        self.at = At::Nowhere;
        self.is_forward = false;
        self.own_entry = match mutated!("own-writes-missed-by-a-backward-scan") {
            true => None,
            false => self.own.last_put(own_upto).map(owned),
        };
    }
}

impl Cursor for MergedCursor {
    fn keep_within(&mut self, range: &KeyRange) {
        self.base.keep_within(range);
    }

    fn seek_first(&mut self) -> Result<()> {
        self.begin(Bound::Unbounded);
        self.base_is_over = false;
        self.base.seek_first()?;
        self.settle()
    }

    fn seek_last(&mut self) -> Result<()> {
        self.begin_back(Bound::Unbounded);
        self.base_is_over = false;
        self.base.seek_last()?;
        self.settle_back()
    }

    fn seek(&mut self, key: &[u8]) -> Result<()> {
        self.begin(Bound::Included(key));
        self.base_is_over = false;
        self.base.seek(key)?;
        self.settle()
    }

    fn seek_before(&mut self, key: &[u8]) -> Result<()> {
        self.begin_back(Bound::Excluded(key));
        self.base_is_over = false;
        self.base.seek_before(key)?;
        self.settle_back()
    }

    fn next(&mut self) -> Result<()> {
        if !self.is_forward {
            let mut after = self.key().to_vec();
            after.push(0);
            return self.seek(&after);
        }
        match std::mem::replace(&mut self.at, At::Nowhere) {
            At::Own => {
                let (key, _) = self.own_entry.take().expect("it stands on it");
                self.begin(Bound::Excluded(&key));
            }
            _ => self.base.next()?,
        }
        self.settle()
    }

    fn prev(&mut self) -> Result<()> {
        if self.is_forward {
            let key = self.key().to_vec();
            return self.seek_before(&key);
        }
        match std::mem::replace(&mut self.at, At::Nowhere) {
            At::Own => {
                let (key, _) = self.own_entry.take().expect("it stands on it");
                self.begin_back(Bound::Excluded(&key));
            }
            _ => self.base.prev()?,
        }
        self.settle_back()
    }

    fn is_valid(&self) -> bool {
        self.at != At::Nowhere
    }

    fn key(&self) -> &[u8] {
        match (self.at, &self.own_entry) {
            (At::Own, Some((key, _))) => key,
            _ => self.base.key(),
        }
    }

    fn entry(&mut self) -> Result<Entry<'_>> {
        match (self.at, &self.own_entry) {
            (At::Own, Some((key, value))) => Ok((key, value)),
            _ => self.base.entry(),
        }
    }
}
