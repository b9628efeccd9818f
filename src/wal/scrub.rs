//! The scrub of the log: the records that are durable, read from storage again.
//!
//! It takes no lock that an append waits for. A segment may be deleted, and its file used again,
//! while it is being read: what looks wrong then is no damage. So a finding counts only if the
//! segment was still a part of the chain afterwards.

use super::log::Log;
use super::segment::{ActivationState, HEADER_LEN_BYTES, decode_header, segment_seed};
use super::segment_chain::Span;
use super::window::Window;
use crate::error::{Error, Result};
use crate::fs::Fs;
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
    let mut window = Window::new(&*file, span.len_bytes, PIECE_BYTES);
    window.read(0, pace)?;
    let damaged = |at: u64, what: &str| Err(Error::corruption(&span.path, at, what));
    let Some(header) = window.from(0).first_chunk::<HEADER_LEN_BYTES>() else {
        return damaged(window.from(0).len() as u64, "the header is cut off");
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
        if !window.has_claimed(at) {
            window.read_record(at, pace)?;
        }
        match window.record(at, seed) {
            Some(record) if record.first == next => {
                (next, at) = (record.last.next(), at + record.next_at as u64);
            }
            _ => {
                let what = format!("the record of sequence number {next} is damaged or missing");
                return damaged(at, &what);
            }
        }
    }
    Ok(())
}
