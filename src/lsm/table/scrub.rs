//! Reading a whole table from storage again.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use super::reader::Table;
use crate::engine::VerifyReport;
use crate::error::Result;
use crate::fs::{File, Fs};

/// Bytes that are read at once.
const PIECE_BYTES: u64 = 256 << 10;

impl Table {
    /// As [`Table::verify`], from storage and at the pace of the caller: `pace` is told of the
    /// bytes of each piece that was read, and ends the reading with an error.
    pub(crate) fn scrub(
        &self,
        fs: &dyn Fs,
        pace: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<VerifyReport> {
        let mut pieces = Pieces {
            file: fs.open_uncached(self.path())?,
            file_bytes: self.meta().size_bytes,
            bytes: Vec::new(),
            at: 0,
        };
        self.check_all(&mut |range| {
            if !pieces.has(range) {
                pieces.read(range)?;
                pace(pieces.bytes.len() as u64)?;
            }
            let from = (range.start - pieces.at) as usize;
            let len = (range.end - range.start) as usize;
            Ok(Cow::Owned(pieces.bytes[from..from + len].to_vec()))
        })
    }
}

/// The piece of a file that was read last.
struct Pieces {
    file: Arc<dyn File>,
    file_bytes: u64,
    bytes: Vec<u8>,
    at: u64,
}

impl Pieces {
    fn has(&self, range: &Range<u64>) -> bool {
        self.at <= range.start && range.end <= self.at + self.bytes.len() as u64
    }

    /// Reads the piece that begins with `range`, which lies in the file.
    fn read(&mut self, range: &Range<u64>) -> Result<()> {
        let end = (range.start + PIECE_BYTES)
            .min(self.file_bytes)
            .max(range.end);
        // Nothing, if it fails.
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.resize((end - range.start) as usize, 0);
        self.file.read_exact_at(&mut bytes, range.start)?;
        (self.bytes, self.at) = (bytes, range.start);
        Ok(())
    }
}
