//! The key of the entry on which a cursor stands.

use crate::btree::node::leaf::{Leaf, Record};

/// Keys whose part after the prefix is no longer than this are copied as if it were this long: a
/// move of a fixed length takes two instructions, and of any other a call.
const SHORT_KEY_BYTES: usize = 16;

/// The key of an entry: the prefix that all keys in a leaf share, and what follows it.
pub(super) struct KeyBuffer {
    /// Has [`SHORT_KEY_BYTES`] behind the prefix.
    bytes: Vec<u8>,
    prefix_len: usize,
    len: usize,
}

/// Space for an ordinary key, allocated at once: a short scan costs little more than its
/// allocations.
const KEY_LEN_BYTES: usize = 64;

impl KeyBuffer {
    pub(super) fn new() -> Self {
        Self {
            bytes: Vec::with_capacity(KEY_LEN_BYTES),
            prefix_len: 0,
            len: 0,
        }
    }

    pub(super) fn set_prefix(&mut self, prefix: &[u8]) {
        self.bytes.clear();
        self.bytes.extend_from_slice(prefix);
        self.bytes.resize(prefix.len() + SHORT_KEY_BYTES, 0);
        self.prefix_len = prefix.len();
        self.len = prefix.len();
    }

    #[inline(always)]
    pub(super) fn set_suffix_of(&mut self, leaf: Leaf<'_>, record: Record) {
        let short = leaf.short_key_suffix_of::<SHORT_KEY_BYTES>(record);
        let to = self.bytes.get_mut(self.prefix_len..);
        if let Some((bytes, len)) = short
            && let Some(to) = to.and_then(|to| to.first_chunk_mut())
        {
            *to = *bytes;
            self.len = self.prefix_len + len;
        } else {
            self.set_suffix(leaf.key_suffix_of(record));
        }
    }

    /// Takes `key`, which has the prefix.
    pub(super) fn set_key(&mut self, key: &[u8]) {
        self.set_suffix(&key[self.prefix_len..]);
    }

    fn set_suffix(&mut self, suffix: &[u8]) {
        self.len = self.prefix_len + suffix.len();
        if self.bytes.len() < self.len {
            self.bytes.resize(self.len, 0);
        }
        self.bytes[self.prefix_len..self.len].copy_from_slice(suffix);
    }

    #[inline]
    pub(super) fn key(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}
