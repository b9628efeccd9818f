//! The reference index: crossbeam's skip list.
//!
//! Safe and simple; the tests compare the other index with it. Key, value and word share one
//! allocation. A cursor remembers its record and finds its neighbour anew at each step, so it
//! needs no pointer into the list, and a step costs a search.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crossbeam_skiplist::SkipSet;

use super::index::MemtableIndex;
use crate::error::Result;
use crate::lsm::entry::{Entry, EntryCursor, seek_word, split_word};
use crate::types::SeqNo;

/// An index on crossbeam's skip list.
#[derive(Debug, Default)]
pub(crate) struct SkipListIndex {
    records: SkipSet<Record>,
    bytes: AtomicUsize,
}

/// What a record costs besides its bytes: the node's tower, lengths, the allocations' heads.
const RECORD_OVERHEAD_BYTES: usize = 96;

/// Key and value in one piece.
#[derive(Debug, Clone)]
struct Record {
    bytes: Arc<[u8]>,
    key_len: usize,
    word: u64,
}

impl Record {
    fn entry(&self) -> Entry<'_> {
        let (seq, kind) = split_word(self.word).expect("made from an entry");
        let (key, value) = self.bytes.split_at(self.key_len);
        Entry {
            key,
            seq,
            kind,
            value,
        }
    }
}

/// What records are ordered by; as a trait object, so that a search needs no record.
trait Position {
    fn position(&self) -> (&[u8], u64);
}

impl Position for Record {
    fn position(&self) -> (&[u8], u64) {
        (&self.bytes[..self.key_len], self.word)
    }
}

impl Position for (&[u8], u64) {
    fn position(&self) -> (&[u8], u64) {
        *self
    }
}

impl<'a> Borrow<dyn Position + 'a> for Record {
    fn borrow(&self) -> &(dyn Position + 'a) {
        self
    }
}

fn compare(a: (&[u8], u64), b: (&[u8], u64)) -> Ordering {
    a.0.cmp(b.0).then(b.1.cmp(&a.1))
}

macro_rules! order_by_position {
    ($($type:ty),*) => {$(
        impl PartialEq for $type {
            fn eq(&self, other: &Self) -> bool {
                self.position() == other.position()
            }
        }
        impl Eq for $type {}
        impl PartialOrd for $type {
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }
        impl Ord for $type {
            fn cmp(&self, other: &Self) -> Ordering {
                compare(self.position(), other.position())
            }
        }
    )*};
}

order_by_position!(Record, dyn Position + '_);

impl SkipListIndex {
    fn at_or_after(&self, key: &[u8], word: u64) -> Option<Record> {
        let position: &dyn Position = &(key, word);
        let found = self.records.lower_bound(Bound::Included(position))?;
        Some(found.value().clone())
    }

    fn before(&self, key: &[u8], word: u64) -> Option<Record> {
        let position: &dyn Position = &(key, word);
        let found = self.records.upper_bound(Bound::Excluded(position))?;
        Some(found.value().clone())
    }

    fn after(&self, key: &[u8], word: u64) -> Option<Record> {
        let position: &dyn Position = &(key, word);
        let found = self.records.lower_bound(Bound::Excluded(position))?;
        Some(found.value().clone())
    }
}

impl MemtableIndex for SkipListIndex {
    fn insert(&self, key: &[u8], word: u64, value: &[u8]) {
        let mut bytes = Vec::with_capacity(key.len() + value.len());
        bytes.extend_from_slice(key);
        bytes.extend_from_slice(value);
        self.bytes
            .fetch_add(bytes.len() + RECORD_OVERHEAD_BYTES, Relaxed);
        self.records.insert(Record {
            bytes: bytes.into(),
            key_len: key.len(),
            word,
        });
    }

    fn get(&self, key: &[u8], word: u64, read: &mut dyn FnMut(&Entry<'_>)) -> bool {
        let position: &dyn Position = &(key, word);
        match self.records.lower_bound(Bound::Included(position)) {
            Some(found) if found.value().position().0 == key => {
                read(&found.value().entry());
                true
            }
            _ => false,
        }
    }

    fn cursor(self: Arc<Self>) -> Box<dyn EntryCursor> {
        Box::new(SkipListCursor {
            index: self,
            at: None,
        })
    }

    fn memory_bytes(&self) -> usize {
        self.bytes.load(Relaxed)
    }
}

struct SkipListCursor {
    index: Arc<SkipListIndex>,
    at: Option<Record>,
}

impl SkipListCursor {
    fn record(&self) -> &Record {
        self.at.as_ref().expect("only on a valid cursor")
    }
}

impl EntryCursor for SkipListCursor {
    fn seek_first(&mut self) -> Result<()> {
        self.at = self
            .index
            .records
            .front()
            .map(|found| found.value().clone());
        Ok(())
    }

    fn seek_last(&mut self) -> Result<()> {
        self.at = self.index.records.back().map(|found| found.value().clone());
        Ok(())
    }

    fn seek(&mut self, key: &[u8], seq: SeqNo) -> Result<()> {
        self.at = self.index.at_or_after(key, seek_word(seq));
        Ok(())
    }

    fn seek_before(&mut self, key: &[u8]) -> Result<()> {
        self.at = self.index.before(key, u64::MAX);
        Ok(())
    }

    fn next(&mut self) -> Result<()> {
        let (key, word) = self.record().position();
        self.at = self.index.after(key, word);
        Ok(())
    }

    fn prev(&mut self) -> Result<()> {
        let (key, word) = self.record().position();
        self.at = self.index.before(key, word);
        Ok(())
    }

    fn is_valid(&self) -> bool {
        self.at.is_some()
    }

    fn entry(&self) -> Entry<'_> {
        self.record().entry()
    }
}
