//! Reading a trace: its events in the order of time, with bounded memory.

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use super::event::Event;
use super::format::{BlockReader, HEADER_LEN_BYTES, Header, MAX_PAYLOAD_BYTES};
use super::{KeyMode, Sampling, ValueMode, format};
use crate::error::{Error, Result};
use crate::format::coding::{Malformed, Reader as Bytewise, get_u32};
use crate::format::framing::{FRAME_HEADER_LEN_BYTES, frame_at};
use crate::fs::{File, Fs, OpenMode, StdFs};
use crate::options::EngineKind;

/// Events are given out at the latest when so many wait for a watermark. The recorder writes one
/// every tenth of a second; only a file that it did not write lacks them.
const MAX_WAITING: usize = 1 << 21;

/// A keyspace that was recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TraceKeyspace {
    /// Its number in the events.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// Its engine while it was recorded.
    pub engine: EngineKind,
    /// Its entries when recording began, approximately.
    pub entries: u64,
    /// Bytes of its files when recording began.
    pub disk_bytes: u64,
}

/// How a trace ends.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TraceEnd {
    /// The store was closed.
    Closed,
    /// The trace reached its limit of bytes; the store went on.
    Limit,
    /// The file breaks off, because the process ended or the file could not be written, or is
    /// damaged. What stands behind this byte was not read.
    Torn {
        /// Where in the file.
        offset: u64,
    },
}

/// Reads a trace: an iterator of its [`Event`]s in the order of time.
///
/// A trace of a process that was killed is read up to its last whole block;
/// [`Reader::end`] then says so. An `Err` is trouble with reading the file, or an intact block that
/// makes no sense; it is the last item.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let dir = dir.path();
/// use hedgerow::trace::{Op, Reader, TraceOptions};
/// use hedgerow::{EngineKind, KvRead, Options};
///
/// let options = Options::new().record_to(dir.join("my.trace"), TraceOptions::new());
/// let db = options.open(dir.join("my.db"))?;
/// db.keyspace("users", EngineKind::BTree)?.get("ada")?;
/// db.close()?;
///
/// let mut trace = Reader::open(dir.join("my.trace"))?;
/// let event = trace.next().unwrap()?;
/// assert!(matches!(event.op, Op::Get { keyspace, .. } if keyspace == trace.keyspaces()[0].id));
/// # Ok::<(), hedgerow::Error>(())
/// ```
///
/// What else a trace says of itself, here on a file system in memory:
///
/// ```
/// use std::sync::Arc;
/// use std::time::SystemTime;
/// use hedgerow::fs::SimFs;
/// use hedgerow::trace::{Sampling, Reader, TraceEnd, TraceOptions};
/// use hedgerow::Options;
///
/// let fs = SimFs::new();
/// let sampling = Sampling::Keys { one_in: 100 };
/// let options = TraceOptions::new().sampling(sampling);
/// let options = Options::new().fs(Arc::new(fs.clone())).record_to("/trace", options);
/// options.open("/store")?.close()?;
///
/// let mut trace = Reader::open_in(&fs, "/trace")?;
/// assert_eq!(trace.by_ref().count(), 0);
/// assert_eq!(trace.end(), Some(&TraceEnd::Closed));
/// assert_eq!(trace.sampling(), sampling);
/// assert!(trace.started() <= SystemTime::now());
/// assert!(trace.file_bytes() > 0 && trace.dropped() == 0);
/// # Ok::<(), hedgerow::Error>(())
/// ```
#[derive(Debug)]
pub struct Reader {
    file: Arc<dyn File>,
    len: u64,
    header: Header,
    /// Where the next frame is read.
    offset: u64,
    /// In the order of the file; the one with the smallest key is last, for cheap removal, once
    /// sorted.
    waiting: Vec<Waiting>,
    ready: VecDeque<Event>,
    keyspaces: Vec<TraceKeyspace>,
    dropped: u64,
    end: Option<TraceEnd>,
    failed: bool,
}

#[derive(Debug)]
struct Waiting {
    /// Time, lane, block and place in the block: the order of events.
    key: (u64, u16, u64, u32),
    event: Event,
}

impl Reader {
    /// Opens the trace in file `path`.
    ///
    /// # Errors
    ///
    /// [`Error::Corruption`] if the file is no trace, [`Error::UnsupportedFormat`] if it is one of
    /// another format version, [`Error::Io`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_in(&StdFs::new(), path)
    }

    /// Opens the trace in a file of `fs`.
    pub fn open_in(fs: &dyn Fs, path: impl AsRef<Path>) -> Result<Self> {
        let file = fs.open(path.as_ref(), OpenMode::Read)?;
        let len = file.len()?;
        let damaged = |what: &str| Err(Error::corruption(file.path(), 0, what));
        if len < HEADER_LEN_BYTES as u64 {
            return damaged("it is too short for a trace");
        }
        let mut bytes = [0; HEADER_LEN_BYTES];
        file.read_exact_at(&mut bytes, 0)?;
        if bytes[..8] != format::MAGIC {
            return damaged("it is not a trace");
        }
        let version = get_u32(&bytes, 8);
        Error::check_version(file.path(), version, format::VERSION)?;
        let header = match Header::decode(&bytes) {
            Ok(header) => header,
            Err(what) => return damaged(what),
        };
        Ok(Self {
            file,
            len,
            header,
            offset: HEADER_LEN_BYTES as u64,
            waiting: Vec::new(),
            ready: VecDeque::new(),
            keyspaces: Vec::new(),
            dropped: 0,
            end: None,
            failed: false,
        })
    }

    /// When recording began.
    pub fn started(&self) -> SystemTime {
        let since = Duration::from_micros(self.header.started_unix_us);
        UNIX_EPOCH.checked_add(since).unwrap_or(UNIX_EPOCH)
    }

    /// How keys were recorded.
    pub fn keys(&self) -> KeyMode {
        self.header.keys
    }

    /// How values were recorded.
    pub fn values(&self) -> ValueMode {
        self.header.values
    }

    /// Which operations were recorded.
    pub fn sampling(&self) -> Sampling {
        self.header.sampling
    }

    /// The keyspaces seen so far: those of an event are known once it was returned.
    pub fn keyspaces(&self) -> &[TraceKeyspace] {
        &self.keyspaces
    }

    /// The keyspace with that number, if it is known.
    pub fn keyspace(&self, id: u32) -> Option<&TraceKeyspace> {
        self.keyspaces.iter().find(|keyspace| keyspace.id == id)
    }

    /// Events that were lost while recording, as far as the trace was read.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// How the trace ends, once that was reached.
    pub fn end(&self) -> Option<&TraceEnd> {
        self.end.as_ref()
    }

    /// Length of the file in bytes.
    pub fn file_bytes(&self) -> u64 {
        self.len
    }

    /// Reads frames until events are ready or the trace has ended.
    fn fill(&mut self) -> Result<()> {
        while self.ready.is_empty() && self.end.is_none() {
            let offset = self.offset;
            match self.read_frame()? {
                Some(payload) => self.take_frame(payload).map_err(|Malformed| {
                    let what = "a block of the trace is malformed, though its checksum matches";
                    Error::corruption(self.file.path(), offset, what)
                })?,
                None => self.end = Some(TraceEnd::Torn { offset }),
            }
            if self.end.is_some() {
                self.release(None);
            } else if self.waiting.len() > MAX_WAITING {
                let half = self.waiting.len() / 2;
                self.waiting.sort_unstable_by_key(|waiting| waiting.key);
                let until = self.waiting[half].key.0;
                self.release(Some(until));
            }
        }
        Ok(())
    }

    /// The payload of the next frame; `None` if there is no intact one.
    fn read_frame(&mut self) -> Result<Option<Bytes>> {
        let left = self.len - self.offset;
        if left < FRAME_HEADER_LEN_BYTES as u64 {
            return Ok(None);
        }
        let mut head = [0; FRAME_HEADER_LEN_BYTES];
        self.file.read_exact_at(&mut head, self.offset)?;
        let payload_len = get_u32(&head, 4) as usize;
        let frame_len = payload_len + FRAME_HEADER_LEN_BYTES;
        if payload_len == 0 || payload_len > MAX_PAYLOAD_BYTES || frame_len as u64 > left {
            return Ok(None);
        }
        let mut frame = vec![0; frame_len];
        self.file.read_exact_at(&mut frame, self.offset)?;
        if frame_at(&frame, 0, self.header.seed(), self.offset).is_none() {
            return Ok(None);
        }
        self.offset += frame_len as u64;
        Ok(Some(Bytes::from(frame).slice(FRAME_HEADER_LEN_BYTES..)))
    }

    fn take_frame(&mut self, payload: Bytes) -> Result<(), Malformed> {
        let mut reader = Bytewise::new(&payload);
        match reader.u8()? {
            format::FRAME_EVENTS => self.take_block(&payload),
            format::FRAME_COMPRESSED => {
                let len = reader.u32()? as usize;
                if len > MAX_PAYLOAD_BYTES {
                    return Err(Malformed);
                }
                let packed = reader.take(reader.remaining())?;
                let mut block = vec![0; len];
                match lz4_flex::block::decompress_into(packed, &mut block) {
                    Ok(found) if found == len => self.take_block(&block.into()),
                    _ => Err(Malformed),
                }
            }
            format::FRAME_KEYSPACE => {
                let (id, engine, entries, disk_bytes, name) = format::decode_keyspace(&mut reader)?;
                self.keyspaces.retain(|known| known.id != id);
                self.keyspaces.push(TraceKeyspace {
                    id,
                    name,
                    engine,
                    entries,
                    disk_bytes,
                });
                Ok(())
            }
            format::FRAME_WATERMARK => {
                let until_us = reader.varint()?;
                self.release(Some(until_us));
                Ok(())
            }
            format::FRAME_END => {
                self.end = Some(match reader.u8()? {
                    format::END_CLOSED => TraceEnd::Closed,
                    format::END_LIMIT => TraceEnd::Limit,
                    _ => return Err(Malformed),
                });
                let (_time_us, _events) = (reader.varint()?, reader.varint()?);
                self.dropped = self.dropped.max(reader.varint()?);
                Ok(())
            }
            _ => Err(Malformed),
        }
    }

    fn take_block(&mut self, block: &Bytes) -> Result<(), Malformed> {
        let mut reader = BlockReader::new(block, self.header.keys)?;
        let heading = reader.heading;
        self.dropped = self.dropped.saturating_add(heading.dropped);
        let mut place = 0;
        while let Some(event) = reader.next()? {
            self.waiting.push(Waiting {
                key: (event.time_us, heading.lane, heading.number, place),
                event,
            });
            place += 1;
        }
        Ok(())
    }

    /// Gives out the events before a time, or all.
    fn release(&mut self, until_us: Option<u64>) {
        self.waiting
            .sort_unstable_by_key(|waiting| Reverse(waiting.key));
        let keep = match until_us {
            Some(until_us) => self
                .waiting
                .partition_point(|waiting| waiting.key.0 >= until_us),
            None => 0,
        };
        let released = self.waiting.drain(keep..).rev();
        self.ready.extend(released.map(|waiting| waiting.event));
    }
}

impl Iterator for Reader {
    type Item = Result<Event>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(event) = self.ready.pop_front() {
            return Some(Ok(event));
        }
        if self.failed {
            return None;
        }
        if let Err(error) = self.fill() {
            self.failed = true;
            return Some(Err(error));
        }
        self.ready.pop_front().map(Ok)
    }
}

impl std::iter::FusedIterator for Reader {}
