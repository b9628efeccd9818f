//! The records of a file that has left the log, read a piece at a time.

use super::cut::Head;
use super::segment::{
    ACTIVATION_AT, ALIGN_BYTES, ActivationState, HEADER_LEN_BYTES, RECORD_HEADER_LEN_BYTES,
    segment_seed,
};
use super::window::Window;
use crate::error::{Error, Result};
use crate::fs::File;
use crate::types::SeqNo;
use crate::util::mutants::mutated;

/// Bytes that are read at once, but for longer records.
const PIECE_BYTES: u64 = 1 << 20;

/// Reads records in order.
#[derive(Debug)]
pub(crate) struct RecordReader<'a> {
    file: &'a dyn File,
    window: Window<'a>,
    seed: u64,
    /// Where the next record begins.
    at: u64,
    /// Number of its first operation.
    next: SeqNo,
    /// Records go up to this number, which is not in the file, if that is known.
    end: Option<SeqNo>,
}

/// The payload of a record, and where in the file it begins.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PlacedPayload<'a> {
    pub(crate) payload: &'a [u8],
    pub(crate) offset: u64,
}

impl<'a> RecordReader<'a> {
    /// Of `file`, which was segment `number` of the log of store `store_id`. `end` is the number
    /// behind its last operation, if that is known.
    pub(crate) fn new(
        file: &'a dyn File,
        store_id: u64,
        number: u64,
        end: Option<SeqNo>,
    ) -> Result<Self> {
        Self::in_pieces(file, store_id, number, end, PIECE_BYTES)
    }

    pub(super) fn in_pieces(
        file: &'a dyn File,
        store_id: u64,
        number: u64,
        end: Option<SeqNo>,
        piece_bytes: u64,
    ) -> Result<Self> {
        let (first, _) = begin_of(file, store_id, number)?;
        Ok(Self {
            file,
            window: Window::new(file, file.len()?, piece_bytes),
            seed: segment_seed(store_id, number),
            at: HEADER_LEN_BYTES as u64,
            next: first,
            end,
        })
    }

    /// The next record; `None` behind the last one. Damage is an error, if anything knows that it
    /// is not the end: `end`, or a later record that says that the next one was durable.
    pub(crate) fn next(&mut self) -> Result<Option<PlacedPayload<'_>>> {
        if !self.window.has_claimed(self.at) {
            self.window.read_record(self.at, &mut |_| Ok(()))?;
        }
        let record = self.window.record(self.at, self.seed);
        let found = record.filter(|record| record.first == self.next);
        let Some((last, next_at, len)) = found.map(|it| (it.last, it.next_at, it.payload.len()))
        else {
            self.check_end()?;
            return Ok(None);
        };
        let offset = self.at + RECORD_HEADER_LEN_BYTES as u64;
        self.at += next_at as u64;
        self.next = last.next();
        Ok(Some(PlacedPayload {
            payload: &self.window.from(offset)[..len],
            offset,
        }))
    }

    /// Bytes of the file that are in memory.
    #[cfg(test)]
    pub(super) fn held_bytes(&self) -> usize {
        self.window.held_bytes()
    }

    /// An error if there were more records.
    fn check_end(&mut self) -> Result<()> {
        let lacks_records = self.end.is_some_and(|end| self.next < end);
        if (lacks_records || self.has_witness()?) && !mutated!("damage-ends-a-collection-silently")
        {
            let what = format!("the record of sequence number {} is damaged", self.next);
            return Err(Error::corruption(self.file.path(), self.at, what));
        }
        Ok(())
    }

    /// True if a record behind the last one says that the next was durable (WL4). The work is
    /// bounded, because hostile bytes could claim a long record everywhere; exhausting the bound
    /// counts as a witness.
    fn has_witness(&mut self) -> Result<bool> {
        let mut budget_bytes = 8 * self.window.file_bytes() + PIECE_BYTES;
        let mut at = self.at;
        while at + RECORD_HEADER_LEN_BYTES as u64 <= self.window.file_bytes() {
            if self.window.from(at).len() < RECORD_HEADER_LEN_BYTES {
                self.window.read(at, &mut |_| Ok(()))?;
            }
            let claim = self.window.claim(at);
            if let Some((synced, len_bytes)) = claim
                && synced >= self.next
            {
                if len_bytes > budget_bytes {
                    return Ok(true);
                }
                budget_bytes -= len_bytes;
                if !self.window.has_claimed(at) {
                    self.window.read_record(at, &mut |_| Ok(()))?;
                }
                if self.window.record(at, self.seed).is_some() {
                    return Ok(true);
                }
            }
            at += ALIGN_BYTES as u64;
        }
        Ok(false)
    }
}

/// The first sequence number of segment `number` of the log, or of a file that was that, and the
/// number of the segment before it.
pub(crate) fn begin_of(file: &dyn File, store_id: u64, number: u64) -> Result<(SeqNo, u64)> {
    let ActivationState::Active(activation) = Head::read(file, store_id, number)?.state else {
        let what = "the activation is not intact";
        return Err(Error::corruption(file.path(), ACTIVATION_AT as u64, what));
    };
    Ok((activation.first, activation.previous))
}
