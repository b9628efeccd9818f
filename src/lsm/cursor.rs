//! Scans: from all versions of all keys to the one that a reader sees.
//!
//! A [`ScanCursor`] walks a [`MergeCursor`] and collapses it: of each key the newest version at or below the
//! reader's number counts; if that is a delete, or a range tombstone covers it, the key does
//! not exist.
//!
//! # Invariants
//!
//! - **C1** Going forward, the merge stands on the entry that the cursor stands on; the entry is lent
//!   from there, nothing is copied.
//! - **C2** Going backward, a key's versions come oldest first, so the one that counts is only known when the
//!   merge has left the key. It is copied, and the merge stands before the key's first version.
//! - **C3** `gap` holds the keys around the last question that all have the answer `cover`.
//!
//! A key with very many versions is not walked through: after [`MAX_STEPS`] the cursor seeks.

use std::sync::Arc;

use super::entry::{EntryCursor, EntryKind};
use super::merge::MergeCursor;
use super::tombstones::TombstoneIndex;
use super::version::Version;
use crate::engine::Cursor;
use crate::error::Result;
use crate::types::SeqNo;

/// Versions of one key that are stepped over before a seek. A seek costs about as much as this many
/// steps.
const MAX_STEPS: usize = 16;

/// Copies of values above this length are not kept for reuse.
const MAX_KEPT_LEN_BYTES: usize = 1 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Stands nowhere.
    Nowhere,
    /// C1.
    Forward,
    /// C2.
    Backward,
}

/// A cursor over what reads at one number see.
pub(crate) struct ScanCursor {
    merge: MergeCursor,
    seq: SeqNo,
    state: State,
    /// Going forward: scratch. Going backward: the entry (C2).
    key: Vec<u8>,
    value: Vec<u8>,
    covers: Covers,
    /// Keeps the files of tables that are opened later.
    _version: Arc<Version>,
}

impl ScanCursor {
    /// A cursor that stands nowhere.
    pub(crate) fn new(
        merge: MergeCursor,
        seq: SeqNo,
        tombstones: Vec<Arc<TombstoneIndex>>,
        version: Arc<Version>,
    ) -> Self {
        Self {
            merge,
            seq,
            state: State::Nowhere,
            key: Vec::new(),
            value: Vec::new(),
            covers: Covers::new(tombstones),
            _version: version,
        }
    }

    /// From the merge's position on, stands on the first entry that is seen. If `skip`, versions of
    /// `self.key` are passed over.
    fn settle_forward(&mut self, mut skip: bool) -> Result<()> {
        let mut steps = 0;
        while self.merge.is_valid() {
            if skip && self.merge.key() == self.key {
                steps += 1;
                if steps > MAX_STEPS {
                    // To behind the last version: the lowest number that any has.
                    let key = std::mem::take(&mut self.key);
                    let sought = self.merge.seek(&key, SeqNo::ZERO);
                    self.key = key;
                    sought?;
                    steps = 0;
                    // A version numbered zero does not exist, but a damaged file may say so.
                    while self.merge.is_valid() && self.merge.entry().key == self.key {
                        self.merge.next()?;
                    }
                } else {
                    self.merge.next()?;
                }
                continue;
            }
            let entry = self.merge.entry();
            if entry.seq > self.seq {
                steps += 1;
                if steps > MAX_STEPS {
                    self.key.clear();
                    self.key.extend_from_slice(entry.key);
                    skip = false;
                    self.merge.seek(&self.key, self.seq)?;
                    steps = 0;
                } else {
                    self.merge.next()?;
                }
                continue;
            }
            if entry.kind == EntryKind::Put && !self.covers.hide(entry.key, entry.seq, self.seq) {
                self.state = State::Forward;
                return Ok(());
            }
            self.key.clear();
            self.key.extend_from_slice(entry.key);
            skip = true;
            steps = 0;
            self.merge.next()?;
        }
        Ok(())
    }

    /// From the merge's position backward, stands on the first entry that is seen.
    fn settle_backward(&mut self) -> Result<()> {
        while self.merge.is_valid() {
            // The oldest version of the next key.
            let entry = self.merge.entry();
            self.key.clear();
            self.key.extend_from_slice(entry.key);
            // The newest seen version so far.
            let mut newest: Option<(SeqNo, EntryKind)> = None;
            let mut steps = 0;
            while self.merge.is_valid() {
                let entry = self.merge.entry();
                if entry.key != self.key {
                    break;
                }
                steps += 1;
                if entry.seq <= self.seq {
                    newest = Some((entry.seq, entry.kind));
                    if entry.kind == EntryKind::Put {
                        self.value.clear();
                        self.value.extend_from_slice(entry.value);
                    }
                } else {
                    steps = MAX_STEPS + 1;
                }
                if steps > MAX_STEPS {
                    // Newer versions only, or too many: look from the other end.
                    newest = self.newest_by_seek()?;
                    self.merge.seek_before(&self.key)?;
                    break;
                }
                self.merge.prev()?;
            }
            if let Some((seq, EntryKind::Put)) = newest
                && !self.covers.hide(&self.key, seq, self.seq)
            {
                self.state = State::Backward;
                return Ok(());
            }
        }
        Ok(())
    }

    /// Finds the version of `self.key` that counts, and copies its value.
    fn newest_by_seek(&mut self) -> Result<Option<(SeqNo, EntryKind)>> {
        self.merge.seek(&self.key, self.seq)?;
        if !self.merge.is_valid() {
            return Ok(None);
        }
        let entry = self.merge.entry();
        if entry.key != self.key {
            return Ok(None);
        }
        self.value.clear();
        self.value.extend_from_slice(entry.value);
        Ok(Some((entry.seq, entry.kind)))
    }

    fn start(&mut self) {
        self.state = State::Nowhere;
        if self.value.capacity() > MAX_KEPT_LEN_BYTES {
            self.value = Vec::new();
        }
    }
}

impl Cursor for ScanCursor {
    fn seek_first(&mut self) -> Result<()> {
        self.start();
        self.merge.seek_first()?;
        self.settle_forward(false)
    }

    fn seek_last(&mut self) -> Result<()> {
        self.start();
        self.merge.seek_last()?;
        self.settle_backward()
    }

    fn seek(&mut self, key: &[u8]) -> Result<()> {
        self.start();
        self.merge.seek(key, self.seq)?;
        self.settle_forward(false)
    }

    fn seek_before(&mut self, key: &[u8]) -> Result<()> {
        self.start();
        self.merge.seek_before(key)?;
        self.settle_backward()
    }

    fn next(&mut self) -> Result<()> {
        match self.state {
            State::Forward => {
                self.key.clear();
                self.key.extend_from_slice(self.merge.key());
                self.state = State::Nowhere;
                self.merge.next()?;
            }
            // The merge stands before the key: come back to it, and over it.
            State::Backward => {
                self.start();
                self.merge.seek(&self.key, self.seq)?;
            }
            State::Nowhere => unreachable!("only on a valid cursor"),
        }
        self.settle_forward(true)
    }

    fn prev(&mut self) -> Result<()> {
        match self.state {
            State::Forward => {
                self.key.clear();
                self.key.extend_from_slice(self.merge.key());
                self.state = State::Nowhere;
                self.merge.seek_before(&self.key)?;
            }
            State::Backward => self.start(),
            State::Nowhere => unreachable!("only on a valid cursor"),
        }
        self.settle_backward()
    }

    #[inline]
    fn is_valid(&self) -> bool {
        self.state != State::Nowhere
    }

    #[inline]
    fn key(&self) -> &[u8] {
        match self.state {
            State::Forward => self.merge.key(),
            _ => &self.key,
        }
    }

    #[inline]
    fn entry(&mut self) -> Result<(&[u8], &[u8])> {
        Ok(match self.state {
            State::Forward => {
                let entry = self.merge.entry();
                (entry.key, entry.value)
            }
            _ => (&self.key, &self.value),
        })
    }
}

/// The range tombstones over a scan. Neighbouring keys mostly have the same answer, so the answer is kept
/// with the keys it is good for.
struct Covers {
    indexes: Vec<Arc<TombstoneIndex>>,
    /// C3; `None` before the first question.
    gap: Option<(Vec<u8>, Option<Vec<u8>>)>,
    cover: Option<SeqNo>,
}

impl Covers {
    fn new(indexes: Vec<Arc<TombstoneIndex>>) -> Self {
        Self {
            indexes,
            gap: None,
            cover: None,
        }
    }

    /// True if a tombstone at or below `at` hides version `seq` of `key`.
    #[inline]
    fn hide(&mut self, key: &[u8], seq: SeqNo, at: SeqNo) -> bool {
        if self.indexes.is_empty() {
            return false;
        }
        let known = self.gap.as_ref().is_some_and(|(start, end)| {
            **start <= *key && end.as_ref().is_none_or(|end| *key < **end)
        });
        if !known {
            self.ask(key, at);
        }
        self.cover.is_some_and(|cover| cover > seq)
    }

    fn ask(&mut self, key: &[u8], at: SeqNo) {
        self.cover = self
            .indexes
            .iter()
            .filter_map(|index| index.newest_covering(key, at))
            .max();
        let gaps = || self.indexes.iter().map(|index| index.gap(key));
        let start = gaps().filter_map(|gap| gap.start).max().unwrap_or_default();
        let end = gaps().filter_map(|gap| gap.end).min();
        self.gap = Some((start.to_vec(), end.map(<[u8]>::to_vec)));
    }
}
