//! The scrub of the log: the records that are durable, read from storage again.
//!
//! It takes no lock that an append waits for. A segment may be deleted, and its file used again,
//! while it is being read: what looks wrong then is no damage. So a finding counts only if the
//! segment was still a part of the chain afterwards.

use super::log::Log;
use super::segment::{
    ActivationState, HEADER_LEN_BYTES, claimed_len, decode_header, record_in, segment_seed,
};
use super::segment_chain::Span;
use crate::error::{Error, Result};
use crate::fs::{File, Fs};
use crate::types::SeqNo;
use crate::util::mutants::mutated;

/// Bytes that are read at once, but for longer records.
const PIECE_BYTES: u64 = 256 << 10;

impl Log {
    /// Reads every durable record from storage and checks it. Returns what is damaged, or cannot be
    /// read. `pace` is told of the bytes of each piece that was read, and ends the call with an
    /// error.
    pub(crate) fn scrub(&self, pace: &mut dyn FnMut(u64) -> Result<()>) -> Result<Vec<Error>> {
        // In this order: what was durable before is in the segments that are listed then.
        let durable = self.synced_seq();
        let chain = self.chain();
        let mut problems = Vec::new();
        for span in chain.spans() {
            let end = span.end.min(durable.next());
            if span.first >= end || !chain.has(span.number) {
                continue;
            }
            let mut ended = None;
            let mut pace = |bytes: u64| pace(bytes).inspect_err(|e| ended = Some(e.clone()));
            let read = read_again(chain.fs(), self.store_id(), &span, end, &mut pace);
            if let Some(error) = ended {
                return Err(error);
            }
            let is_deleted = || {
                !chain.still_has(span.number)
                    && !mutated!("scrub-blames-a-segment-that-was-deleted")
            };
            match read {
                Err(error) if !is_deleted() => problems.push(error),
                _ => {}
            }
        }
        Ok(problems)
    }
}

/// Reads the operations of a segment from storage, up to `end`.
fn read_again(
    fs: &dyn Fs,
    store_id: u64,
    span: &Span,
    end: SeqNo,
    pace: &mut dyn FnMut(u64) -> Result<()>,
) -> Result<()> {
    let file = fs.open_uncached(&span.path)?;
    let mut window = Window {
        file: &*file,
        file_bytes: span.len_bytes,
        bytes: Vec::new(),
        at: 0,
    };
    window.read(0, PIECE_BYTES, pace)?;
    let damaged = |at: u64, what: &str| Err(Error::corruption(&span.path, at, what));
    let Some(header) = window.bytes.first_chunk::<HEADER_LEN_BYTES>() else {
        return damaged(window.bytes.len() as u64, "the header is cut off");
    };
    let (header, state) = decode_header(&span.path, store_id, header)?;
    let begins = match state {
        ActivationState::Active(activation) => activation.first,
        _ => SeqNo::ZERO,
    };
    if header.number != span.number || begins != span.first {
        return damaged(0, "the header is not the one that was written");
    }
    let seed = segment_seed(store_id, span.number);
    let mut at = HEADER_LEN_BYTES as u64;
    let mut next = span.first;
    while next < end {
        let record = match window.record(at, seed) {
            None => {
                window.read_record(at, pace)?;
                window.record(at, seed)
            }
            found => found,
        };
        match record {
            Some((first, last, next_at)) if first == next => (next, at) = (last.next(), next_at),
            _ => {
                let what = format!("the record of sequence number {next} is damaged or missing");
                return damaged(at, &what);
            }
        }
    }
    Ok(())
}

/// The piece of a segment that was read last.
struct Window<'a> {
    file: &'a dyn File,
    file_bytes: u64,
    bytes: Vec<u8>,
    /// Where it begins in the file.
    at: u64,
}

impl Window<'_> {
    /// First and last operation of the record at `at` of the file, and where the next one begins,
    /// if it is here as a whole, and intact.
    fn record(&self, at: u64, seed: u64) -> Option<(SeqNo, SeqNo, u64)> {
        let here = usize::try_from(at.checked_sub(self.at)?).ok()?;
        let record = record_in(&self.bytes, here, seed, at)?;
        let next_at = self.at + record.next_at as u64;
        Some((record.first, record.last, next_at))
    }

    /// Reads the piece that begins with the record at `at`, and all of that if it is longer.
    fn read_record(&mut self, at: u64, pace: &mut dyn FnMut(u64) -> Result<()>) -> Result<()> {
        self.read(at, PIECE_BYTES, pace)?;
        match claimed_len(&self.bytes) {
            Some(len_bytes) if len_bytes > PIECE_BYTES => self.read(at, len_bytes, pace),
            _ => Ok(()),
        }
    }

    /// Reads so many bytes from `at` on, or up to the end of the file.
    fn read(
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
