//! Writing one value by and by.

use std::fmt;
use std::io::{self, Read, Write};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::kv::{as_io_error, check_op, source_error};
use crate::options::Durability;
use crate::store::{Change, OpenKeyspace, Store};
use crate::types::{MAX_VALUE_LEN_BYTES, Op, SeqNo};
use crate::util::gate::Stay;
use crate::values::{GrowingDigest, MAX_REF_LEN_BYTES};
use crate::wal::StreamedFile;

/// So much of a value is in memory. One that is not longer is put like any other.
const BUFFER_BYTES: usize = 256 << 10;

/// What is read of a source at once.
const PIECE_BYTES: usize = 64 << 10;

/// Writes one value by and by, with [`Write`]; [`finish`](ValueWriter::finish) puts it. Made by
/// [`Keyspace::writer`](crate::Keyspace::writer).
///
/// - **At once.** Nothing of it is visible before `finish`, and then all of it is. Dropping the
///   writer instead undoes it, and so does a crash. The order of commits is that of `finish`.
/// - **Durable** as any put: `finish` returns when the commit is as durable as the handle says. The
///   value itself is synced by `finish` in any case, if it is longer than 256 KiB.
/// - **Beside other work.** No lock is held between calls, however slow the source is, and no
///   other commit waits.
/// - **Memory.** 256 KiB. A longer value is written to a file of its own in the store's directory,
///   and stays there, whatever
///   [`value_threshold_bytes`](crate::KeyspaceOptions::value_threshold_bytes) says; one that is
///   not longer is put by `finish` like any other. In a B-tree with small pages and a long key,
///   which have no place for a reference of 300 bytes, and in a keyspace with a merge operator or
///   with expiry, the value is in memory as a whole, and put like any other.
///
/// Each value that is longer than 256 KiB is a file of its own until nothing refers to it any more,
/// and `finish` syncs that file and its directory. Now and then it also flushes the keyspace: when
/// more than [`Options::log_limit_bytes`](crate::Options::log_limit_bytes) of such values were put
/// since the last flush.
///
/// # Errors
///
/// [`MAX_VALUE_LEN_BYTES`] is the longest value. After an error the
/// writer takes no more: further calls, and `finish`, give the same error, and nothing is put. The
/// errors of [`Write`] have an [`Error`] inside ([`io::Error::get_ref`]).
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let db = hedgerow::Db::open(dir.path().join("my.db"))?;
/// use std::io::Write;
/// use hedgerow::EngineKind;
///
/// let files = db.keyspace("files", EngineKind::BTree)?;
/// let mut writer = files.writer("squares")?;
/// for n in 0..100_000_u64 {
///     writer.write_all(&(n * n).to_le_bytes()).unwrap();
/// }
/// assert!(writer.len() == 800_000 && !files.contains_key("squares")?);
/// writer.finish()?;
/// let last = files.get_range("squares", 799_992..)?.unwrap();
/// assert_eq!(last, 99_999_u64.pow(2).to_le_bytes());
/// # Ok::<(), hedgerow::Error>(())
/// ```
#[must_use = "a value that is not finished is not put"]
pub struct ValueWriter {
    // Dropped first: the file is the store's, whose directory stays locked as long as this stays.
    stream: Option<(StreamedFile, GrowingDigest)>,
    _stay: Stay,
    open: Arc<OpenKeyspace>,
    store: Arc<Store>,
    durability: Durability,
    key: Vec<u8>,
    /// What is not in the file yet.
    buffer: Vec<u8>,
    len: usize,
    /// The engine can keep a reference under the key.
    may_stream: bool,
    failure: Option<Error>,
}

impl fmt::Debug for ValueWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ValueWriter")
            .field("keyspace", &self.open.name())
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

impl ValueWriter {
    pub(super) fn begin(
        store: &Arc<Store>,
        open: &Arc<OpenKeyspace>,
        stay: Stay,
        key: &[u8],
        durability: Durability,
    ) -> Result<Self> {
        check_op(&Op::Put { key, value: &[] })?;
        store.shared.coordinator.check_writable()?;
        Ok(Self {
            stream: None,
            _stay: stay,
            open: Arc::clone(open),
            store: Arc::clone(store),
            durability,
            key: key.to_vec(),
            buffer: Vec::new(),
            len: 0,
            may_stream: !open.resolver.keeps_values()
                && open.engine.keeps_reference(key, MAX_REF_LEN_BYTES),
            failure: None,
        })
    }

    /// Bytes so far.
    pub fn len(&self) -> u64 {
        self.len as u64
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Puts the value. Returns the sequence number of the commit.
    ///
    /// # Errors
    ///
    /// After an error nothing of it is visible, and if the store still takes writes nothing will
    /// be. If it does not, because the log could not be synced, the value may be there, whole, when
    /// the store is opened again. [`Error::NoSuchKeyspace`] if the keyspace was dropped meanwhile,
    /// [`Error::Closed`] if the store was closed.
    pub fn finish(mut self) -> Result<SeqNo> {
        if let Some(error) = self.failure.take() {
            return Err(error);
        }
        if self.stream.is_some() {
            self.spill()?;
        }
        let shared = &self.store.shared;
        match self.stream.take() {
            None => {
                let op = Op::Put {
                    key: &self.key,
                    value: &self.buffer,
                };
                let keyspace = &self.open;
                shared.commit(Change::One { keyspace, op }, self.durability)
            }
            Some((file, digest)) => {
                let digest = digest.finish();
                shared.commit_stream(&self.open, &self.key, file, &digest, self.durability)
            }
        }
    }

    /// Takes all that `source` gives.
    pub(super) fn take_all(&mut self, mut source: impl Read) -> Result<()> {
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            match source.read(&mut piece) {
                Ok(0) => return Ok(()),
                Ok(len) => {
                    let read = piece.get(..len).ok_or_else(|| {
                        Error::invalid("the source of a value gave more than it was asked for")
                    })?;
                    self.add(read)?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(source_error(error)),
            }
        }
    }

    fn add(&mut self, bytes: &[u8]) -> Result<()> {
        if let Some(error) = &self.failure {
            return Err(error.clone());
        }
        let added = self.try_add(bytes);
        if let Err(error) = &added {
            self.failure = Some(error.clone());
            // It takes space, and the writer may live on.
            self.stream = None;
        }
        added
    }

    fn try_add(&mut self, mut bytes: &[u8]) -> Result<()> {
        if bytes.len() > MAX_VALUE_LEN_BYTES - self.len {
            return Err(Error::invalid(format!(
                "a value has more than {MAX_VALUE_LEN_BYTES} bytes"
            )));
        }
        self.len += bytes.len();
        while self.may_stream && self.buffer.len() + bytes.len() > BUFFER_BYTES {
            let (now, later) = bytes.split_at(BUFFER_BYTES - self.buffer.len());
            self.buffer.extend_from_slice(now);
            self.spill()?;
            bytes = later;
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    /// Writes what is in memory to the file.
    fn spill(&mut self) -> Result<()> {
        let shared = &self.store.shared;
        let (_, _pass) = shared.enter_to_write()?;
        self.open.check_alive()?;
        if self.stream.is_none() {
            self.stream = Some(shared.begin_stream()?);
        }
        if let Some((file, digest)) = &mut self.stream {
            file.write(&self.buffer)?;
            digest.update(&self.buffer);
        }
        self.buffer.clear();
        Ok(())
    }
}

impl Write for ValueWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.add(bytes).map_err(as_io_error)?;
        Ok(bytes.len())
    }

    /// Does nothing: what was written is durable when [`ValueWriter::finish`] says so.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
