//! A key in two pieces: a node's prefix and the suffix in a record.

use crate::util::key_prefix::head32;

/// A key whose bytes lie in two places. Rebuilding a node moves the border
/// between prefix and suffix, which this does without copying.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeyParts<'a> {
    prefix: &'a [u8],
    suffix: &'a [u8],
}

impl<'a> KeyParts<'a> {
    pub(crate) fn new(prefix: &'a [u8], suffix: &'a [u8]) -> Self {
        Self { prefix, suffix }
    }

    pub(crate) fn whole(key: &'a [u8]) -> Self {
        Self::new(&[], key)
    }

    /// What follows the prefix it was made with.
    pub(crate) fn suffix(self) -> &'a [u8] {
        self.suffix
    }

    pub(crate) fn len(self) -> usize {
        self.prefix.len() + self.suffix.len()
    }

    /// Without its first `count` bytes.
    pub(crate) fn skip(self, count: usize) -> Self {
        let from_prefix = count.min(self.prefix.len());
        Self::new(
            &self.prefix[from_prefix..],
            &self.suffix[count - from_prefix..],
        )
    }

    /// Fills `out`, which has the key's length.
    pub(crate) fn copy_to(self, out: &mut [u8]) {
        let (prefix, suffix) = out.split_at_mut(self.prefix.len());
        prefix.copy_from_slice(self.prefix);
        suffix.copy_from_slice(self.suffix);
    }

    pub(crate) fn to_vec(self) -> Vec<u8> {
        [self.prefix, self.suffix].concat()
    }

    pub(crate) fn head(self) -> u32 {
        if self.prefix.is_empty() {
            return head32(self.suffix);
        }
        let mut start = [0; 4];
        let bytes = self.prefix.iter().chain(self.suffix);
        for (to, from) in start.iter_mut().zip(bytes) {
            *to = *from;
        }
        u32::from_be_bytes(start)
    }
}
