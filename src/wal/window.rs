//! Reading a segment, or a file that was one, a piece at a time.

use super::segment::{Record, claimed_len, claimed_numbers, record_in};
use crate::error::Result;
use crate::fs::File;
use crate::types::SeqNo;

/// The piece of a segment that was read last.
#[derive(Debug)]
pub(super) struct Window<'a> {
    file: &'a dyn File,
    file_bytes: u64,
    /// So many bytes are read at once, but for longer records.
    piece_bytes: u64,
    bytes: Vec<u8>,
    /// Where it begins in the file.
    at: u64,
}

impl<'a> Window<'a> {
    /// Of a file of `file_bytes`. Nothing is read yet.
    pub(super) fn new(file: &'a dyn File, file_bytes: u64, piece_bytes: u64) -> Self {
        Self {
            file,
            file_bytes,
            piece_bytes,
            bytes: Vec::new(),
            at: 0,
        }
    }

    pub(super) fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    #[cfg(test)]
    pub(super) fn held_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// What is here of the bytes from `at` of the file on.
    pub(super) fn from(&self, at: u64) -> &[u8] {
        let here = at
            .checked_sub(self.at)
            .and_then(|here| usize::try_from(here).ok());
        here.and_then(|here| self.bytes.get(here..)).unwrap_or(&[])
    }

    /// The record at `at` of the file, if it is here as a whole, and intact. Its
    /// [`next_at`](Record::next_at) is relative to `at`.
    pub(super) fn record(&self, at: u64, seed: u64) -> Option<Record<'_>> {
        record_in(self.from(at), 0, seed, at)
    }

    /// True if what claims to be a record at `at` is here as a whole.
    pub(super) fn has_claimed(&self, at: u64) -> bool {
        let bytes = self.from(at);
        claimed_len(bytes).is_some_and(|len_bytes| len_bytes <= bytes.len() as u64)
    }

    /// Up to where everything was durable, as what claims to be a record at `at` says, and its
    /// length, if the file is long enough for it.
    pub(super) fn claim(&self, at: u64) -> Option<(SeqNo, u64)> {
        let (_, _, synced) = claimed_numbers(self.from(at))?;
        let len_bytes = claimed_len(self.from(at))?;
        (len_bytes <= self.file_bytes - at).then_some((synced, len_bytes))
    }

    /// Reads the piece that begins with the record at `at`, and all of that if it is longer.
    /// `pace` is told of the bytes.
    pub(super) fn read_record(
        &mut self,
        at: u64,
        pace: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<()> {
        self.read(at, pace)?;
        match claimed_len(&self.bytes) {
            Some(len_bytes) if len_bytes > self.piece_bytes => self.read_bytes(at, len_bytes, pace),
            _ => Ok(()),
        }
    }

    /// Reads the piece that begins at `at`.
    pub(super) fn read(&mut self, at: u64, pace: &mut dyn FnMut(u64) -> Result<()>) -> Result<()> {
        self.read_bytes(at, self.piece_bytes, pace)
    }

    /// Reads so many bytes from `at` on, or up to the end of the file.
    fn read_bytes(
        &mut self,
        at: u64,
        len_bytes: u64,
        pace: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<()> {
        let len_bytes = len_bytes.min(self.file_bytes.saturating_sub(at));
        // Nothing, if it fails.
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.resize(len_bytes as usize, 0);
        self.file.read_exact_at(&mut bytes, at)?;
        (self.bytes, self.at) = (bytes, at);
        pace(len_bytes)
    }
}
