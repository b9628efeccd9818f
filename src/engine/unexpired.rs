//! Views of keyspaces whose values expire: what has expired is not there, and values come without
//! their stamps.

use std::sync::Arc;

use super::cursor::{Cursor, Entry, Piece, ReadView};
use crate::error::Result;
use crate::resolve::Resolver;
use crate::types::{KeyRange, Value, is_from};

/// A view as it is at some time.
#[derive(Debug)]
pub(crate) struct UnexpiredView {
    base: Arc<dyn ReadView>,
    resolver: Arc<Resolver>,
    now_ms: u64,
}

impl UnexpiredView {
    pub(crate) fn new(base: Arc<dyn ReadView>, resolver: Arc<Resolver>, now_ms: u64) -> Self {
        Self {
            base,
            resolver,
            now_ms,
        }
    }
}

impl ReadView for UnexpiredView {
    fn get(&self, key: &[u8], read: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let mut is_there = false;
        self.base.get(key, &mut |stored| {
            if let Some(value) = self.resolver.visible(stored, self.now_ms) {
                is_there = true;
                read(value);
            }
        })?;
        Ok(is_there)
    }

    fn multi_get(&self, keys: &[&[u8]]) -> Result<Vec<Option<Value>>> {
        let stored = self.base.multi_get(keys)?;
        Ok(unexpired(stored, &self.resolver, self.now_ms))
    }

    fn pieces(self: Arc<Self>, range: &KeyRange, at_least: usize) -> Result<Vec<Piece>> {
        Arc::clone(&self.base).pieces(range, at_least)
    }

    fn cursor(self: Arc<Self>) -> Box<dyn Cursor> {
        Box::new(UnexpiredCursor {
            cursor: Arc::clone(&self.base).cursor(),
            view: self,
            within: KeyRange::new(&..),
            is_outside: true,
        })
    }
}

/// What has not expired of values as stored.
fn unexpired(stored: Vec<Option<Value>>, resolver: &Resolver, now_ms: u64) -> Vec<Option<Value>> {
    let value = |stored: Value| resolver.visible(&stored, now_ms).map(Value::copy_from);
    stored.into_iter().map(|it| it.and_then(value)).collect()
}

/// The entries of a view that have not expired.
struct UnexpiredCursor {
    cursor: Box<dyn Cursor>,
    view: Arc<UnexpiredView>,
    within: KeyRange,
    /// It has left what is wanted, and stands nowhere.
    is_outside: bool,
}

impl UnexpiredCursor {
    /// True if it stands on an entry that has expired.
    fn is_on_expired(&mut self) -> Result<bool> {
        if !self.cursor.is_valid() {
            return Ok(false);
        }
        let (_, stored) = self.cursor.entry()?;
        Ok(self
            .view
            .resolver
            .visible(stored, self.view.now_ms)
            .is_none())
    }

    /// Goes on to what has not expired.
    fn settle(&mut self, moved: Result<()>) -> Result<()> {
        self.is_outside = true;
        moved?;
        while self.is_on_expired()? {
            let end = self.within.end.as_ref();
            if end.is_some_and(|end| self.cursor.key() >= end.as_slice()) {
                return Ok(());
            }
            self.cursor.next()?;
        }
        self.is_outside = false;
        Ok(())
    }

    /// The same backwards.
    fn settle_back(&mut self, moved: Result<()>) -> Result<()> {
        self.is_outside = true;
        moved?;
        while self.is_on_expired()? {
            if !is_from(self.cursor.key(), &self.within.start) {
                return Ok(());
            }
            self.cursor.prev()?;
        }
        self.is_outside = false;
        Ok(())
    }
}

impl Cursor for UnexpiredCursor {
    fn keep_within(&mut self, range: &KeyRange) {
        self.within = range.clone();
        self.cursor.keep_within(range);
    }

    fn seek_first(&mut self) -> Result<()> {
        let moved = self.cursor.seek_first();
        self.settle(moved)
    }

    fn seek_last(&mut self) -> Result<()> {
        let moved = self.cursor.seek_last();
        self.settle_back(moved)
    }

    fn seek(&mut self, key: &[u8]) -> Result<()> {
        let moved = self.cursor.seek(key);
        self.settle(moved)
    }

    fn seek_before(&mut self, key: &[u8]) -> Result<()> {
        let moved = self.cursor.seek_before(key);
        self.settle_back(moved)
    }

    fn next(&mut self) -> Result<()> {
        let moved = self.cursor.next();
        self.settle(moved)
    }

    fn prev(&mut self) -> Result<()> {
        let moved = self.cursor.prev();
        self.settle_back(moved)
    }

    fn is_valid(&self) -> bool {
        !self.is_outside && self.cursor.is_valid()
    }

    fn key(&self) -> &[u8] {
        self.cursor.key()
    }

    fn entry(&mut self) -> Result<Entry<'_>> {
        let (key, stored) = self.cursor.entry()?;
        // It was looked at when the cursor came here.
        let value = self.view.resolver.visible(stored, self.view.now_ms);
        Ok((key, value.unwrap_or_default()))
    }
}
