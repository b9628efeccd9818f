//! Memory for the sections of a table that is not mapped.

use super::filter;

/// Bytes of which a chosen one is aligned to a cache line.
#[derive(Debug)]
pub(super) struct AlignedBytes {
    bytes: Vec<u8>,
    from: usize,
    len: usize,
}

impl AlignedBytes {
    /// `len` zeros, aligned at the one with index `aligned`.
    pub(super) fn zeroed(len: usize, aligned: usize) -> Self {
        let bytes = vec![0; len + filter::LINE_LEN_BYTES];
        let address = bytes.as_ptr() as usize + aligned;
        let from = address.next_multiple_of(filter::LINE_LEN_BYTES) - address;
        Self { bytes, from, len }
    }

    #[inline]
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[self.from..self.from + self.len]
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.from..self.from + self.len]
    }
}
