//! The write-ahead log: a chain of segment files that both engines share.
//!
//! In the data path it stands between the sequencer and the engines: a commit appends one record
//! (payload opaque), asks for [`Log::sync`] if it must survive a power loss, and is then applied.
//! At open, [`Recovery`] reads the records back in order. The bytes are described in
//! docs/format.md, "Log segment".
//!
//! ```text
//!              prepare()                append() is full              retire()
//!   (no file) ----------> N.log, blank ------------------> active ... live ------> K.tmp, pooled
//!                              ^                                                        |
//!                              +---------------------- prepare(), new number -----------+
//! ```
//!
//! A log that has nothing to keep shrinks to one small segment ([`Log::prepare_small`],
//! [`Writer::shorten`], [`Log::retire`], [`Log::free_stock`]), and the next opening goes on in it.
//! One that is closed, or found after a kill, cuts its last segment if much of it is free
//! ([`Writer::cut`]).
//!
//! # Invariants
//!
//! - **WL1 preallocated.** A segment has its full length, really written, synced and named durably,
//!   before a record enters it; so a sync moves data only. A *sparse* one, for values that engines
//!   refer to or for a record too large for any other, has its length only. A store through a
//!   mapping goes to bytes only that were written with a call, so it cannot find the disk full.
//! - **WL2 numbers are used once.** A segment's number is higher than that of any file that ever
//!   took records here: the file with the highest number goes only after a higher one is durable.
//!   Checksums are seeded with the number and the offset, so what a file held in an earlier life is
//!   never read.
//! - **WL3 one chain.** An active segment names its predecessor and the first sequence number it
//!   holds. Segments leave at the old end only, one durably before the next, so a gap in the chain
//!   is damage.
//! - **WL4 synced means synced.** Records and activations carry a sequence number up to which
//!   everything was durable when they were written. Where reading stops at `e`, any such number >=
//!   `e` further on proves damage; without one it is the torn tail of a power loss.
//! - **WL5 the cut.** Recovery makes durable what it found, then opens a new segment whose first
//!   number is the one after the last record found. What older segments hold from that number on
//!   is void: a later `first` overrules every earlier record. Recovery changes nothing else, and
//!   the new segment appears with one rename, so recovery may be interrupted anywhere and repeated.
//! - **WL7 going on.** It makes no new segment where others know that every record was durable (a
//!   store that was closed, or that has noted it after [`Recovery::make_durable`]), and the last
//!   one is in the newest segment, which is cut if much of it is free (WL8). Zeros are written
//!   behind it, so that they are allocated and nothing that is or was there can come back. If
//!   something is, the header of the next record goes durably before the rest: no interruption
//!   makes a torn record whole.
//! - **WL8 lengths.** A segment has the length that it was made with, or, if its note of that was
//!   durable before, the one that it was cut to. It is cut once (cut.rs).
//! - **WL6 no second sync.** After a failed sync every append and sync fails. The store must be
//!   reopened.
//!
//! Thread safety: [`Writer`] belongs to the thread that holds the commit lock; [`Log`] may be used
//! by any thread. No lock is held over I/O that an append needs, unless no segment was prepared in
//! time.
//!
//! Lacking on purpose: compression, records that span segments, several writers, archiving.
//!
//! What cannot be detected here: damage to records behind the last witness of WL4 looks like a torn
//! tail. The newest segment's activation is such a witness for everything that an earlier run of
//! the store left, and the caller that opens the log may know more ([`Recovery::replay`]).

use std::path::Path;

use crate::error::{Error, Result};

mod clock;
mod cut;
mod inspect;
mod log;
mod record_reader;
mod recovery;
mod scrub;
pub(crate) mod segment;
mod segment_chain;
mod segment_factory;
mod sink;
mod streamed;
mod window;
mod writer;

#[cfg(test)]
mod tests;

pub(crate) use clock::LogAges;
pub(crate) use inspect::{SegmentFacts, SegmentState, segments_in};
pub(crate) use log::Log;
pub(crate) use record_reader::{RecordReader, begin_of};
pub(crate) use recovery::{LogRecord, Recovery};
pub(crate) use streamed::{STREAMED_HEADER_LEN_BYTES, StreamedFile, check_value_file};
pub(crate) use writer::{PayloadPlace, Writer};

/// How a log is written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WalConfig {
    /// Length of a segment file.
    pub(crate) segment_bytes: u64,
    /// Append through a memory map where the file system allows it, else with `write`.
    pub(crate) use_mmap: bool,
}

impl WalConfig {
    /// The segment length that is used: enough for a small
    /// record at least, and a whole number of record units.
    fn segment_len(&self) -> u64 {
        self.segment_bytes.max(512) / segment::ALIGN_BYTES as u64 * segment::ALIGN_BYTES as u64
    }
}

/// The error of every append and sync after a failed sync.
fn failed_before(cause: &Error) -> Error {
    Error::writes_stopped(cause)
}

/// Removes a file that is of no use any more. That it stays when the removal fails does no harm:
/// the next recovery finds and removes it.
fn discard_file(fs: &dyn crate::fs::Fs, path: &Path) -> Result<()> {
    match fs.remove_file(path) {
        Err(e) if e.is_not_found() => Ok(()),
        other => other,
    }
}
