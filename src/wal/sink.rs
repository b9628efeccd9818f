//! The two ways into a segment file: stores through a map, and `write`.

use std::fmt;
use std::sync::Arc;

use super::segment::RECORD_HEADER_LEN_BYTES;
use crate::error::Result;
use crate::fs;
use crate::fs::{File, MappingMut};
use crate::util::mutants::mutated;

/// Puts bytes into one segment. What it has taken survives the end of the process; durable it
/// becomes with `sync_data` of the file.
pub(super) trait Sink: fmt::Debug + Send + Sync {
    /// Writes `header` and then `parts` at `at`. After an error the place may hold anything.
    fn write(
        &mut self,
        at: u64,
        header: &[u8; RECORD_HEADER_LEN_BYTES],
        parts: &[&[u8]],
    ) -> Result<()>;

    /// Writes a few bytes at `at`.
    fn write_bytes(&mut self, at: u64, bytes: &[u8]) -> Result<()>;
}

/// The sink for `file`. With `use_mmap` its `len_bytes` must be allocated (WL1).
pub(super) fn open_sink(
    file: &Arc<dyn File>,
    len_bytes: u64,
    use_mmap: bool,
) -> Result<Box<dyn Sink>> {
    if use_mmap && let Some(map) = fs::map_mut(&**file, len_bytes)? {
        return Ok(Box::new(MappedSink { map }));
    }
    Ok(Box::new(FileSink {
        file: Arc::clone(file),
        buffer: Vec::new(),
    }))
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
    /// Header and parts side by side, for one system call a record.
    buffer: Vec<u8>,
}

impl Sink for FileSink {
    fn write(
        &mut self,
        at: u64,
        header: &[u8; RECORD_HEADER_LEN_BYTES],
        parts: &[&[u8]],
    ) -> Result<()> {
        self.buffer.clear();
        self.buffer.extend_from_slice(header);
        for part in parts {
            self.buffer.extend_from_slice(part);
        }
        let outcome = self.file.write_all_at(&self.buffer, at);
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
