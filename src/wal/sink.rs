//! The ways into a segment file: stores through a map, and calls.
//!
//! A store into a map costs no system call, but must not find the disk full. So it goes only to
//! bytes that were written with a call before: all of them when the segment was made, or, in a
//! sparse one, zeros a little ahead of the records ([`SparseSink`]).

use std::fmt;
use std::sync::Arc;

use super::segment::RECORD_HEADER_LEN_BYTES;
use crate::error::Result;
use crate::fs;
use crate::fs::{File, MappingMut};
use crate::util::mutants::mutated;

/// Parts of this length or more are written from where they are: to copy them first takes longer
/// than a call.
const LONG_LEN_BYTES: usize = 16 << 10;
/// So many zeros at most are written ahead of the records of a sparse segment at once. The page
/// cache takes them in few large pieces, which costs less than half of what it takes to write the
/// records one by one; with longer pieces it gets no better.
const AHEAD_LEN_MAX_BYTES: u64 = 128 << 10;
/// Zeros are written ahead if this many times their length was appended since the last sync, which
/// may have written the zeros before them to storage, once more than the records.
const RUN_PER_AHEAD: u64 = 16;

/// Puts bytes into one segment. What it has taken survives the end of the process; durable it
/// becomes with `sync_data` of the file.
pub(super) trait Sink: fmt::Debug + Send + Sync {
    /// Writes `header` and then `parts` at `at`, where or behind where the last record ended. After
    /// an error the place may hold anything. `unsynced_bytes` were appended to the log since it was
    /// synced last.
    fn write(
        &mut self,
        at: u64,
        header: &[u8; RECORD_HEADER_LEN_BYTES],
        parts: &[&[u8]],
        unsynced_bytes: u64,
    ) -> Result<()>;

    /// Writes a few bytes at `at`.
    fn write_bytes(&mut self, at: u64, bytes: &[u8]) -> Result<()>;
}

/// The sink for `file`, a segment of `len_bytes`. The first `allocated_bytes` are allocated, the
/// others were never written to (WL1).
pub(super) fn open_sink(
    file: &Arc<dyn File>,
    len_bytes: u64,
    allocated_bytes: u64,
    use_mmap: bool,
) -> Result<Box<dyn Sink>> {
    let file_sink = FileSink {
        file: Arc::clone(file),
        buffer: Vec::new(),
    };
    if use_mmap && let Some(map) = fs::map_mut(&**file, len_bytes)? {
        let mapped = MappedSink { map };
        if allocated_bytes >= len_bytes {
            return Ok(Box::new(mapped));
        }
        return Ok(Box::new(SparseSink::new(
            mapped,
            file_sink,
            len_bytes,
            allocated_bytes,
        )));
    }
    Ok(Box::new(file_sink))
}

#[derive(Debug)]
struct MappedSink {
    map: MappingMut,
}

impl Sink for MappedSink {
    fn write(
        &mut self,
        at: u64,
        header: &[u8; RECORD_HEADER_LEN_BYTES],
        parts: &[&[u8]],
        _unsynced_bytes: u64,
    ) -> Result<()> {
        let mut at = at as usize;
        self.map.write(header, at);
        at += header.len();
        for part in parts {
            self.map.write(part, at);
            at += part.len();
        }
        Ok(())
    }

    fn write_bytes(&mut self, at: u64, bytes: &[u8]) -> Result<()> {
        self.map.write(bytes, at as usize);
        Ok(())
    }
}

/// Keep no more buffer than this after a large record.
const BUFFER_KEPT_BYTES: usize = 1 << 20;

#[derive(Debug)]
struct FileSink {
    file: Arc<dyn File>,
    /// Header and parts side by side, for one system call a record; not a long last part.
    buffer: Vec<u8>,
}

impl FileSink {
    /// Writes what is in the buffer, and behind it `rest`, if there is some.
    fn write_both(&self, at: u64, rest: &[u8]) -> Result<()> {
        self.file.write_all_at(&self.buffer, at)?;
        match rest {
            [] => Ok(()),
            _ => self.file.write_all_at(rest, at + self.buffer.len() as u64),
        }
    }
}

impl Sink for FileSink {
    fn write(
        &mut self,
        at: u64,
        header: &[u8; RECORD_HEADER_LEN_BYTES],
        parts: &[&[u8]],
        _unsynced_bytes: u64,
    ) -> Result<()> {
        let (copied, rest) = match parts {
            [first @ .., last] if last.len() >= LONG_LEN_BYTES => (first, *last),
            _ => (parts, &[][..]),
        };
        self.buffer.clear();
        self.buffer.extend_from_slice(header);
        for part in copied {
            self.buffer.extend_from_slice(part);
        }
        let outcome = self.write_both(at, rest);
        if outcome.is_err() && !mutated!("failed-record-stays") {
            // The whole record may have arrived all the same. It must not be replayed, since its
            // commit failed; should this fail too, the next append overwrites it.
            let _ = self.file.write_all_at(&[0; RECORD_HEADER_LEN_BYTES], at);
        }
        self.buffer.shrink_to(BUFFER_KEPT_BYTES);
        outcome
    }

    fn write_bytes(&mut self, at: u64, bytes: &[u8]) -> Result<()> {
        self.file.write_all_at(bytes, at)
    }
}

/// The sink for a segment that was not allocated before it is used, but is mapped all the same.
///
/// To write short records into a hole one by one is slow: each call has the file system find a page
/// and space for it. Where much is appended between syncs, zeros are written ahead of the records,
/// many pages with one call, which also reports a full disk; then records are stored over them.
/// Else, and if a record is long, it is written with a call as it is.
#[derive(Debug)]
struct SparseSink {
    mapped: MappedSink,
    file: FileSink,
    len_bytes: u64,
    /// Bytes up to here were written with calls: only they are stored to.
    written_bytes: u64,
    /// So many at most are written ahead.
    ahead_bytes: u64,
    /// As many zeros, from the first time on that they are needed.
    zeros: Vec<u8>,
}

impl SparseSink {
    fn new(mapped: MappedSink, file: FileSink, len_bytes: u64, written_bytes: u64) -> Self {
        Self {
            mapped,
            file,
            len_bytes,
            written_bytes,
            ahead_bytes: (len_bytes / RUN_PER_AHEAD).clamp(1, AHEAD_LEN_MAX_BYTES),
            zeros: Vec::new(),
        }
    }

    /// Writes zeros behind what is written, up to `end` and then to the next border. If that fails
    /// they end before that: on a full disk there may still be space for the record.
    fn write_ahead(&mut self, end: u64) {
        self.zeros.resize(self.ahead_bytes as usize, 0);
        let upto = end.next_multiple_of(self.ahead_bytes).min(self.len_bytes);
        while self.written_bytes < upto {
            // Up to the next border: behind one that fails, no page is written in part.
            let border = (self.written_bytes + 1).next_multiple_of(self.ahead_bytes);
            let len = upto.min(border) - self.written_bytes;
            let zeros = &self.zeros[..len as usize];
            let written = mutated!(
                "store-into-what-was-not-written",
                Ok(()),
                self.file.file.write_all_at(zeros, self.written_bytes)
            );
            if written.is_err() {
                return;
            }
            self.written_bytes += len;
        }
    }
}

impl Sink for SparseSink {
    fn write(
        &mut self,
        at: u64,
        header: &[u8; RECORD_HEADER_LEN_BYTES],
        parts: &[&[u8]],
        unsynced_bytes: u64,
    ) -> Result<()> {
        let payload_len: usize = parts.iter().map(|part| part.len()).sum();
        let end = at + (header.len() + payload_len) as u64;
        if end > self.written_bytes
            && payload_len < LONG_LEN_BYTES
            && unsynced_bytes >= RUN_PER_AHEAD * self.ahead_bytes
        {
            self.write_ahead(end);
        }
        if end <= self.written_bytes {
            return self.mapped.write(at, header, parts, unsynced_bytes);
        }
        self.file.write(at, header, parts, unsynced_bytes)?;
        self.written_bytes = end;
        Ok(())
    }

    fn write_bytes(&mut self, at: u64, bytes: &[u8]) -> Result<()> {
        self.file.write_bytes(at, bytes)
    }
}
