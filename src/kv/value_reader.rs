//! Reading one value by and by.

use std::fmt;
use std::io::{self, BufRead, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::fs::fork::Owner;
use crate::types::Value;
use crate::util::gate::Stay;
use crate::util::mutants::mutated;
use crate::values::{OpenValue, PartOfValue};

/// Reads one value by and by: [`Read`], [`BufRead`] and [`Seek`], as a file does. Made by
/// [`KvRead::reader`](crate::KvRead::reader).
///
/// - **One version.** It is the value as of the call that made the reader, whatever happens
///   meanwhile: the key may be overwritten or deleted, the keyspace dropped, the store closed.
///   Until the reader is dropped, the space of a value that is stored apart is not given back, and
///   the directory of a store that was closed stays locked.
/// - **Nothing is given out unchecked.** A value that is stored apart from its key (see
///   [`KeyspaceOptions::value_threshold_bytes`](crate::KeyspaceOptions::value_threshold_bytes)) has
///   a checksum for each of its chunks, of 64 KiB; above 4 MiB, of a 64th of it, rounded up to a
///   power of two. The chunk at the position is read and checked before a byte of it is given out.
/// - **Memory.** Of such a value there is one chunk in memory, 4 MiB at most; with
///   [`Options::mmap_reads`](crate::Options::mmap_reads) that is a part of a map. A value that is
///   kept beside its key is in memory as a whole.
///
/// No lock is held between calls.
///
/// # Errors
///
/// Damage is [`io::ErrorKind::InvalidData`]; the position stays where it was, and bytes of other
/// chunks can be read. Each error has an [`Error`] inside
/// ([`io::Error::get_ref`]), with the file and the place.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let db = hedgerow::Db::open(dir.path().join("my.db"))?;
/// use std::io::{Read, Seek, SeekFrom};
/// use hedgerow::EngineKind;
///
/// let files = db.keyspace("files", EngineKind::Lsm)?;
/// files.put("report", vec![7; 1_000_000])?;
/// let mut reader = files.reader("report")?.unwrap();
/// files.delete("report")?;
/// assert_eq!(reader.len(), 1_000_000);
///
/// let mut end = Vec::new();
/// reader.seek(SeekFrom::End(-3)).unwrap();
/// reader.read_to_end(&mut end).unwrap();
/// assert_eq!(end, [7; 3]);
/// # Ok::<(), hedgerow::Error>(())
/// ```
pub struct ValueReader {
    /// The chunk that was read last, and where in the value it begins.
    chunk: Option<(usize, PartOfValue)>,
    value: OpenValue,
    len: usize,
    at: u64,
    /// The process that opened the store, unless the value is a copy of the reader's own.
    owner: Option<Owner>,
    // Dropped last: the files are the store's, whose directory stays locked as long as this stays.
    _stay: Option<Arc<Stay>>,
}

impl fmt::Debug for ValueReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ValueReader")
            .field("len", &self.len)
            .field("at", &self.at)
            .finish_non_exhaustive()
    }
}

impl ValueReader {
    /// `owner` is the process that opened the store.
    pub(crate) fn new(value: OpenValue, owner: Owner, stay: Option<Arc<Stay>>) -> Result<Self> {
        Ok(Self {
            chunk: None,
            len: value.len_bytes()?,
            value,
            at: 0,
            owner: Some(owner),
            _stay: stay,
        })
    }

    /// Of a value that is in memory.
    pub(crate) fn of(value: Value) -> Self {
        Self {
            chunk: None,
            len: value.len(),
            value: OpenValue::Whole(value),
            at: 0,
            owner: None,
            _stay: None,
        }
    }

    /// Length of the value, in bytes.
    pub fn len(&self) -> u64 {
        self.len as u64
    }

    /// True if the value has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What there is of the value from the position on, without reading more than a chunk.
    fn rest(&mut self) -> Result<&[u8]> {
        // Even of a chunk that is at hand: it may lie in a map of a file that is used again.
        self.owner.map_or(Ok(()), |owner| owner.check())?;
        let at = match usize::try_from(self.at) {
            Ok(at) if at < self.len => at,
            _ => return Ok(&[]),
        };
        let held = match &self.value {
            OpenValue::Whole(value) => return Ok(&value[at..]),
            OpenValue::Apart(held) => held,
        };
        let is_at = |(from, chunk): &(usize, PartOfValue)| {
            *from <= at && (at - from < chunk.len() || mutated!("reader-stays-in-its-first-chunk"))
        };
        if !self.chunk.as_ref().is_some_and(is_at) {
            // One is dropped before the next is loaded.
            self.chunk = None;
            self.chunk = Some(held.chunk_at(at)?);
        }
        let (from, chunk) = self.chunk.as_ref().expect("loaded above");
        Ok(&chunk[(at - from).min(chunk.len())..])
    }
}

/// The error of a reader or a writer, for [`Read`] and [`Write`](io::Write).
pub(crate) fn as_io_error(error: Error) -> io::Error {
    let kind = match &error {
        Error::Corruption { .. } => io::ErrorKind::InvalidData,
        Error::InvalidArgument { .. } => io::ErrorKind::InvalidInput,
        _ => error.io_kind().unwrap_or(io::ErrorKind::Other),
    };
    io::Error::new(kind, error)
}

/// The error of a source that a value was read from. One of the store's, as that of a reader is,
/// stays what it is.
pub(crate) fn source_error(error: io::Error) -> Error {
    match error.get_ref().and_then(|inner| inner.downcast_ref()) {
        Some(inner) => Error::clone(inner),
        None => Error::io("read the source of", Path::new("a value"), error),
    }
}

impl BufRead for ValueReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.rest().map_err(as_io_error)
    }

    fn consume(&mut self, amount: usize) {
        self.at += amount as u64;
    }
}

impl Read for ValueReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let rest = self.fill_buf()?;
        let len = rest.len().min(buffer.len());
        buffer[..len].copy_from_slice(&rest[..len]);
        self.consume(len);
        Ok(len)
    }
}

impl Seek for ValueReader {
    /// As of a file: a position behind the end is one, and nothing can be read there.
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self.len().checked_add_signed(by),
        };
        self.at = position.ok_or_else(|| {
            let what = "a position in front of the value, or beyond all numbers";
            io::Error::new(io::ErrorKind::InvalidInput, what)
        })?;
        Ok(self.at)
    }

    fn stream_position(&mut self) -> io::Result<u64> {
        Ok(self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_those_of_a_file() {
        let mut reader = ValueReader::of(Value::copy_from(b"0123456789"));
        let mut cursor = io::Cursor::new(b"0123456789");
        for to in [
            SeekFrom::End(-1),
            SeekFrom::Current(-9),
            SeekFrom::Current(-1),
            SeekFrom::End(5),
            SeekFrom::Current(3),
            SeekFrom::Start(10),
            SeekFrom::End(-11),
            SeekFrom::Start(u64::MAX),
            SeekFrom::Current(1),
            SeekFrom::Start(3),
        ] {
            let moved = (reader.seek(to).ok(), cursor.seek(to).ok());
            assert_eq!(moved.0, moved.1, "{to:?}");
            let mut bytes = ([0; 4], [0; 4]);
            let read = (reader.read(&mut bytes.0), cursor.read(&mut bytes.1));
            assert_eq!(read.0.unwrap(), read.1.unwrap());
            assert_eq!(bytes.0, bytes.1);
            assert_eq!(reader.stream_position().unwrap(), cursor.position());
        }
    }
}
