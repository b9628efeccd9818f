//! What a transaction has read, of which its commit depends.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::types::{KeyRange, KeySet, KeyspaceId};
use crate::util::mutants::mutated;

/// From so many bytes on keys that are next to one another are joined, with what lies between them.
const MAX_BYTES: usize = 4 << 20;

/// Keys and ranges that were read, over any number of keyspaces. Exact, as long as they take less
/// than [`MAX_BYTES`].
#[derive(Debug, Default)]
pub(super) struct ReadSet {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    parts: Vec<(KeyspaceId, KeySet)>,
    /// What cursors that live have passed since they were positioned.
    passed: Vec<Option<(KeyspaceId, KeyRange)>>,
    /// Places among them of cursors that are gone.
    free: Vec<usize>,
}

impl ReadSet {
    /// A key was read, be it there or not.
    pub(super) fn note_key(&self, keyspace: KeyspaceId, key: &[u8]) {
        let mut inner = self.inner.lock();
        inner.part(keyspace).insert_key(key);
        inner.shrink();
    }

    /// Takes everything that was read: what is read from then on belongs to no commit.
    pub(super) fn take(&self) -> Vec<(KeyspaceId, KeySet)> {
        let mut inner = self.inner.lock();
        for at in 0..inner.passed.len() {
            inner.keep(at);
        }
        std::mem::take(&mut inner.parts)
    }
}

impl Inner {
    fn part(&mut self, keyspace: KeyspaceId) -> &mut KeySet {
        let found = self.parts.iter().rposition(|(id, _)| *id == keyspace);
        let at = found.unwrap_or_else(|| {
            self.parts.push((keyspace, KeySet::default()));
            self.parts.len() - 1
        });
        &mut self.parts[at].1
    }

    /// Adds what a cursor has passed.
    fn keep(&mut self, at: usize) {
        if let Some((keyspace, range)) = self.passed[at].take() {
            self.part(keyspace).insert(range);
            self.shrink();
        }
    }

    /// Makes the largest part coarser if they take too much. That ends: what is left of one in the
    /// end is the whole keyspace, and there are not so many keyspaces.
    fn shrink(&mut self) {
        let bytes = |parts: &[(KeyspaceId, KeySet)]| {
            let bytes = parts.iter().map(|(_, keys)| keys.len_bytes());
            bytes.sum::<usize>()
        };
        while bytes(&self.parts) > MAX_BYTES {
            let largest = self
                .parts
                .iter_mut()
                .max_by_key(|(_, keys)| keys.len_bytes());
            let (_, keys) = largest.expect("there is one");
            keys.coarsen();
        }
    }
}

/// What one cursor passes: from where it was positioned to where it has come.
#[derive(Debug)]
pub(super) struct Passed {
    reads: Arc<ReadSet>,
    keyspace: KeyspaceId,
    at: usize,
}

impl Passed {
    /// Nothing so far.
    pub(super) fn new(reads: &Arc<ReadSet>, keyspace: KeyspaceId) -> Self {
        let mut inner = reads.inner.lock();
        let at = inner.free.pop().unwrap_or_else(|| {
            inner.passed.push(None);
            inner.passed.len() - 1
        });
        Self {
            reads: Arc::clone(reads),
            keyspace,
            at,
        }
    }

    /// The cursor was positioned anew, and has passed this. A range without a key is one of which
    /// it is outside, and that it may come into.
    pub(super) fn begin(&self, range: KeyRange) {
        let mut inner = self.reads.inner.lock();
        inner.keep(self.at);
        inner.passed[self.at] = Some((self.keyspace, range));
    }

    /// It has come forwards to `key`; or to `end`, and found no other.
    pub(super) fn extend_to(&self, key: Option<&[u8]>, end: Option<&[u8]>) {
        if mutated!("range-read-not-tracked") {
            return;
        }
        let mut inner = self.reads.inner.lock();
        let Some((_, KeyRange { end: passed, .. })) = &mut inner.passed[self.at] else {
            return;
        };
        match (key, passed) {
            (None, passed) => *passed = end.map(<[u8]>::to_vec),
            // Not if it has turned round, and been there before.
            (Some(key), Some(passed)) if passed.as_slice() <= key => {
                passed.clear();
                passed.extend_from_slice(key);
                passed.push(0);
            }
            (Some(_), _) => {}
        }
    }

    /// It has come backwards to `key`.
    pub(super) fn extend_back_to(&self, key: &[u8]) {
        let mut inner = self.reads.inner.lock();
        if let Some((_, KeyRange { start, .. })) = &mut inner.passed[self.at]
            && key < start.as_slice()
        {
            start.clear();
            start.extend_from_slice(key);
        }
    }
}

impl Drop for Passed {
    fn drop(&mut self) {
        let mut inner = self.reads.inner.lock();
        inner.keep(self.at);
        inner.free.push(self.at);
    }
}
