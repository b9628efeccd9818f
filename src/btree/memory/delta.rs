//! Changes to a leaf that stays as it is: sorted puts and deletes over a page, or over a leaf that
//! a checkpoint is writing.
//!
//! A random put would otherwise load a whole page into memory, and a write buffer of 64 MiB
//! would hold 4,000 puts with 16 KiB pages. As changes, it holds hundreds of thousands, and a
//! checkpoint rewrites a page for many of them together.
//!
//! Records are appended to a heap; an index of (head, offset), sorted by key, finds them. A
//! replaced record is garbage until half of the heap is, then the heap is rewritten. It is also
//! rewritten, in key order, whenever it has to grow: the growing copies it anyway, and a scan over
//! records that lie in the order of their keys waits for memory less often.
//!
//! record := key_len:u32 word:u32 key value; the word is that of the value in a leaf, plus 1;
//! 0 marks a delete.

use std::cmp::Ordering;

use crate::btree::node::leaf::Stored;
use crate::btree::node::pack::Change;
use crate::format::coding::get_u32;
use crate::util::key_prefix::head64;

#[derive(Debug, Clone, Copy)]
struct IndexEntry {
    /// Head of the key after the base's prefix.
    head: u64,
    at: u32,
}

/// Sorted changes over a base leaf.
#[derive(Debug, Clone)]
pub(crate) struct Delta {
    index: Vec<IndexEntry>,
    heap: Vec<u8>,
    garbage_bytes: usize,
    /// Length of the prefix that all keys share.
    prefix_len: usize,
    deletes: usize,
}

const RECORD_HEADER_BYTES: usize = 8;

impl Delta {
    /// No changes yet, to a leaf whose keys all start with the same `prefix_len` bytes.
    pub(crate) fn new(prefix_len: usize) -> Self {
        Self {
            index: Vec::new(),
            heap: Vec::new(),
            garbage_bytes: 0,
            prefix_len,
            deletes: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }

    /// How many of the changes are deletes.
    pub(crate) fn deletes(&self) -> usize {
        self.deletes
    }

    /// Memory in use.
    pub(crate) fn size_bytes(&self) -> usize {
        self.heap.capacity() + self.index.capacity() * size_of::<IndexEntry>()
    }

    /// Bytes of the records that count.
    pub(crate) fn live_bytes(&self) -> usize {
        self.heap.len() - self.garbage_bytes
    }

    /// Length of the prefix that all keys share.
    pub(crate) fn prefix_len(&self) -> usize {
        self.prefix_len
    }

    /// `Ok(i)` of the change to `key`, or `Err(i)` where it would go.
    #[inline]
    pub(crate) fn search(&self, key: &[u8]) -> Result<usize, usize> {
        let head = self.head(key);
        let mut at = self.index.partition_point(|entry| entry.head < head);
        while let Some(entry) = self.index.get(at) {
            if entry.head != head {
                break;
            }
            match self.record(entry.at).0.cmp(key) {
                Ordering::Less => at += 1,
                Ordering::Equal => return Ok(at),
                Ordering::Greater => break,
            }
        }
        Err(at)
    }

    fn head(&self, key: &[u8]) -> u64 {
        head64(key.get(self.prefix_len..).unwrap_or_default())
    }

    /// First four bytes of key `i` after the prefix, as those of a leaf.
    #[inline]
    pub(crate) fn head32(&self, i: usize) -> u32 {
        (self.index[i].head >> 32) as u32
    }

    #[inline]
    fn record(&self, at: u32) -> Change<'_> {
        let at = at as usize;
        let key_len = get_u32(&self.heap, at) as usize;
        let key_at = at + RECORD_HEADER_BYTES;
        let key = &self.heap[key_at..key_at + key_len];
        match get_u32(&self.heap, at + 4) {
            0 => (key, None),
            word_plus_1 => {
                let value = Stored::at(&self.heap, key_at + key_len, word_plus_1 - 1);
                (key, Some(value))
            }
        }
    }

    fn record_len(&self, i: usize) -> usize {
        let (key, value) = self.get(i);
        RECORD_HEADER_BYTES + key.len() + value.map_or(0, Stored::len)
    }

    /// Key and new value of change `i`; `None` for a delete.
    #[inline]
    pub(crate) fn get(&self, i: usize) -> Change<'_> {
        self.record(self.index[i].at)
    }

    /// Key `i` after the prefix.
    #[inline]
    pub(crate) fn key_suffix(&self, i: usize) -> &[u8] {
        self.get(i).0.get(self.prefix_len..).unwrap_or_default()
    }

    /// All changes in key order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Change<'_>> {
        self.index.iter().map(|entry| self.record(entry.at))
    }

    /// Records a change at `place`, which [`Delta::search`] gave for `key`.
    pub(crate) fn set(
        &mut self,
        place: Result<usize, usize>,
        key: &[u8],
        value: Option<Stored<'_>>,
    ) {
        match place {
            Ok(i) => {
                let (_, old) = self.get(i);
                let was_delete = old.is_none();
                if let (Some(old), Some(new)) = (old, value)
                    && old.word() == new.word()
                {
                    let at = self.index[i].at as usize + RECORD_HEADER_BYTES + key.len();
                    self.heap[at..at + new.len()].copy_from_slice(new.bytes());
                    return;
                }
                self.deletes -= usize::from(was_delete);
                let replaced = self.record_len(i);
                self.index[i].at = self.append(key, value);
                self.garbage_bytes += replaced;
            }
            Err(i) => {
                let head = self.head(key);
                let at = self.append(key, value);
                if self.index.len() == self.index.capacity() {
                    self.index.reserve_exact((self.index.len() / 2).max(4));
                }
                self.index.insert(i, IndexEntry { head, at });
            }
        }
        self.deletes += usize::from(value.is_none());
        if self.garbage_bytes > 512 && self.garbage_bytes * 2 > self.heap.len() {
            self.rewrite(self.live_bytes() * 5 / 4);
        }
    }

    fn append(&mut self, key: &[u8], value: Option<Stored<'_>>) -> u32 {
        let len = RECORD_HEADER_BYTES + key.len() + value.map_or(0, Stored::len);
        if self.heap.capacity() - self.heap.len() < len {
            // Half again, not twice: this memory is counted against the write buffer.
            let live = self.live_bytes();
            self.rewrite(live + len.max(live / 2).max(3 * len));
        }
        let at = self.heap.len() as u32;
        self.heap
            .extend_from_slice(&(key.len() as u32).to_le_bytes());
        let word = value.map_or(0, |value| value.word() + 1);
        self.heap.extend_from_slice(&word.to_le_bytes());
        self.heap.extend_from_slice(key);
        let bytes = value.map(Stored::bytes).unwrap_or_default();
        self.heap.extend_from_slice(bytes);
        at
    }

    /// Copies the records that count, in key order, to a heap of `capacity` bytes.
    fn rewrite(&mut self, capacity: usize) {
        let mut heap = Vec::with_capacity(capacity);
        for i in 0..self.index.len() {
            let at = self.index[i].at as usize;
            let len = self.record_len(i);
            self.index[i].at = heap.len() as u32;
            heap.extend_from_slice(&self.heap[at..at + len]);
        }
        self.heap = heap;
        self.garbage_bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::format::checksum::mix64;

    #[test]
    fn agrees_with_an_ordered_map() {
        for seed in 0..20_u64 {
            let mut delta = Delta::new(2);
            let mut oracle: BTreeMap<Vec<u8>, Option<Vec<u8>>> = BTreeMap::new();
            for step in 0..400_u64 {
                let random = mix64(seed << 32 | step);
                let mut key = b"pp".to_vec();
                key.extend_from_slice(&vec![(random % 5) as u8; (random >> 8) as usize % 12]);
                key.push((random >> 16) as u8 % 8);
                let value = (random >> 24 & 3 != 0)
                    .then(|| vec![(random >> 32) as u8; (random >> 40) as usize % 40]);
                let stored = match random >> 60 {
                    0 => value.as_deref().map(Stored::Apart),
                    _ => value.as_deref().map(Stored::Inline),
                };
                delta.set(delta.search(&key), &key, stored);
                oracle.insert(key, value);
            }
            let found: Vec<_> = delta
                .iter()
                .map(|(key, value)| (key.to_vec(), value.map(|value| value.bytes().to_vec())))
                .collect();
            assert_eq!(
                found,
                oracle.clone().into_iter().collect::<Vec<_>>(),
                "seed {seed}"
            );
            assert_eq!(
                delta.deletes(),
                oracle.values().filter(|v| v.is_none()).count()
            );
            for (i, key) in oracle.keys().enumerate() {
                assert_eq!(delta.search(key), Ok(i), "seed {seed}");
            }
        }
    }
}
