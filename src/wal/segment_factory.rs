//! Making segments: of nothing, or of files that the chain no longer needs.
//!
//! A segment is made ready in advance, when the active one is half full; an append that finds none
//! makes it itself. A segment is durable in content and
//! name before it is handed out (WL1), and its number is higher than any before it (WL2).

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::cut::free_max_bytes;
use super::segment::{
    Activation, HEADER_LEN_BYTES, Header, NUMBER_END, encode_header, segment_path, temporary_path,
    values_path,
};
use super::sink::{Sink, open_sink};
use super::{WalConfig, discard_file};
use crate::error::{Error, Result};
use crate::fs::{File, Fs, LockGuard, OpenMode};
use crate::util::mutants::mutated;
use crate::util::sync::Mutex;
use crate::util::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Unit of zero-writing. With larger ones the page cache uses large folios, and every sync of a few
/// mapped stores writes back a whole folio.
const ZERO_CHUNK_LEN_BYTES: usize = 64 << 10;
/// Files kept for reuse besides the prepared one.
const POOL_LEN_MAX: usize = 1;
/// Length of the first segment after opening. Making a segment of full length takes tens of
/// milliseconds, and a store that is written to little should be small.
const FIRST_LEN_BYTES: u64 = 1 << 20;
/// How much longer each segment is than the one before, up to full length: the log reaches it
/// after 21 MiB, and a small store takes a few times what it was given.
const GROWTH: u64 = 4;

/// Makes the segments of a log.
#[derive(Debug)]
pub(super) struct SegmentFactory {
    // Constant.
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    store_id: u64,
    config: WalConfig,
    guard: LockGuard,

    created: AtomicU64,
    recycled: AtomicU64,
    awaited: AtomicU64,
    has_prepared: AtomicBool,

    /// Held for moments only, never over I/O.
    stock: Mutex<Stock>,
    /// One thread makes segments at a time, so that numbers rise along the chain.
    turn: Mutex<MakerState>,
}

/// What is there for the next segments.
#[derive(Debug)]
struct Stock {
    prepared: Option<ReadySegment>,
    /// Files to make segments from.
    pool: Vec<PathBuf>,
    /// Closed maps: unmapping takes time that appends do not have.
    closed: Vec<ReadySegment>,
    /// Temporary names must differ; apart from that their numbers mean nothing.
    next_temporary: u64,
}

#[derive(Debug)]
struct MakerState {
    next_number: u64,
    /// Length of the segment made last; 0 before the first, and after a failure.
    last_len_bytes: u64,
}

impl MakerState {
    /// Length of the next segment if no record needs more, and nothing waits for reuse.
    fn next_len(&mut self, full_len: u64) -> u64 {
        let len_bytes = match self.last_len_bytes {
            0 => FIRST_LEN_BYTES,
            last => last.saturating_mul(GROWTH),
        };
        self.last_len_bytes = len_bytes.min(full_len);
        self.last_len_bytes
    }
}

/// A segment that can take records.
#[derive(Debug)]
pub(super) struct ReadySegment {
    pub(super) number: u64,
    pub(super) path: PathBuf,
    pub(super) len_bytes: u64,
    /// See [`Header::is_sparse`].
    pub(super) is_sparse: bool,
    pub(super) file: Arc<dyn File>,
    pub(super) sink: Box<dyn Sink>,
}

/// A file that a value is streamed into.
#[derive(Debug)]
pub(super) struct StreamedParts {
    pub(super) number: u64,
    pub(super) file: Arc<dyn File>,
    pub(super) temporary: PathBuf,
}

/// Segments made since the log was opened.
#[derive(Debug, Clone, Copy)]
pub(super) struct Made {
    /// Of nothing.
    pub(super) created: u64,
    /// Of retired ones.
    pub(super) recycled: u64,
    /// By an append, since none was ready.
    pub(super) awaited: u64,
}

/// Segments that are written to no more and still open, at most.
const CLOSED_MAX: usize = 2;

impl SegmentFactory {
    /// Makes segments in `dir` from `next_number` on. `spare` is a file to make one from.
    pub(super) fn new(
        fs: Arc<dyn Fs>,
        dir: &Path,
        store_id: u64,
        config: WalConfig,
        next_number: u64,
        spare: Option<PathBuf>,
        guard: LockGuard,
    ) -> Self {
        Self {
            fs,
            dir: dir.to_path_buf(),
            store_id,
            config,
            guard,
            created: AtomicU64::new(0),
            recycled: AtomicU64::new(0),
            awaited: AtomicU64::new(0),
            has_prepared: AtomicBool::new(false),
            stock: Mutex::new(Stock {
                prepared: None,
                pool: Vec::from_iter(spare),
                closed: Vec::new(),
                next_temporary: next_number,
            }),
            turn: Mutex::new(MakerState {
                next_number,
                last_len_bytes: 0,
            }),
        }
    }

    pub(super) fn store_id(&self) -> u64 {
        self.store_id
    }

    pub(super) fn made(&self) -> Made {
        Made {
            created: self.created.load(Ordering::Relaxed),
            recycled: self.recycled.load(Ordering::Relaxed),
            awaited: self.awaited.load(Ordering::Relaxed),
        }
    }

    /// Bytes of the files that are prepared or wait for reuse.
    pub(super) fn stock_bytes(&self) -> u64 {
        let stock = self.stock.lock();
        let prepared = stock.prepared.as_ref().map_or(0, |s| s.len_bytes);
        prepared + stock.pool.len() as u64 * self.config.segment_len()
    }

    /// True if a segment is ready.
    pub(super) fn has_prepared(&self) -> bool {
        self.has_prepared.load(Ordering::Acquire)
    }

    /// Makes the log's first segment, which is active from the start.
    pub(super) fn make_active(&self, activation: &Activation) -> Result<ReadySegment> {
        let mut turn = self.turn.lock();
        let len_bytes = self.next_len(&mut turn);
        self.make(&mut turn, len_bytes, false, Some(activation))
    }

    /// The segment that recovery goes on in, which has `len_bytes`, and of which all but what was
    /// written has just been allocated.
    pub(super) fn resume(
        &self,
        number: u64,
        len_bytes: u64,
        is_sparse: bool,
    ) -> Result<ReadySegment> {
        let path = segment_path(&self.dir, number);
        let file = self.fs.open(&path, OpenMode::ReadWrite)?;
        let sink = open_sink(&file, len_bytes, len_bytes, self.config.use_mmap)?;
        self.turn.lock().last_len_bytes = len_bytes;
        Ok(ReadySegment {
            number,
            path,
            len_bytes,
            is_sparse,
            file,
            sink,
        })
    }

    /// Makes a segment of the length of the first one ready, in place of the one that is, if that
    /// is longer. Those after it grow again.
    pub(super) fn prepare_small(&self) -> Result<()> {
        let mut turn = self.turn.lock();
        let small = self.small_len();
        if let Some(prepared) = &self.stock.lock().prepared
            && prepared.len_bytes <= small
        {
            return Ok(());
        }
        turn.last_len_bytes = 0;
        let len_bytes = turn.next_len(self.config.segment_len());
        let ready = self.make(&mut turn, len_bytes, false, None)?;
        let longer = self.stock_up(ready);
        if let Some(longer) = longer {
            self.discard(longer);
        }
        Ok(())
    }

    /// Length of the first segment after opening.
    pub(super) fn small_len(&self) -> u64 {
        FIRST_LEN_BYTES.min(self.config.segment_len())
    }

    /// How much of its last segment a log keeps that is not written to.
    pub(super) fn free_max_bytes(&self) -> u64 {
        free_max_bytes(self.config.segment_len())
    }

    /// Removes the files that wait for reuse, and the prepared segment if `with_prepared`.
    pub(super) fn free(&self, with_prepared: bool) -> Result<()> {
        self.guard.check()?;
        let (pool, prepared) = {
            let mut stock = self.stock.lock();
            let prepared = stock.prepared.take_if(|_| with_prepared);
            if prepared.is_some() {
                self.has_prepared.store(false, Ordering::Release);
            }
            (std::mem::take(&mut stock.pool), prepared)
        };
        self.free_closed();
        // It took no record, so its number need not be remembered (WL2).
        for path in pool.iter().chain(prepared.as_ref().map(|s| &s.path)) {
            discard_file(&*self.fs, path)?;
        }
        Ok(())
    }

    /// Makes the next segment ready, if `is_due` still says so when this thread may make one.
    /// Returns whether it was made. It is for values mostly if `for_values`.
    pub(super) fn prepare_if(&self, is_due: impl Fn() -> bool, for_values: bool) -> Result<bool> {
        if !is_due() {
            return Ok(false);
        }
        let mut turn = self.turn.lock();
        if !is_due() {
            return Ok(false);
        }
        let len_bytes = self.next_len(&mut turn);
        let ready = self.make(&mut turn, len_bytes, for_values, None)?;
        let longer = self.stock_up(ready);
        debug_assert!(longer.is_none(), "it was due");
        Ok(true)
    }

    /// Has a segment in stock, in place of the one that is returned.
    fn stock_up(&self, ready: ReadySegment) -> Option<ReadySegment> {
        let mut stock = self.stock.lock();
        let before = stock.prepared.replace(ready);
        // With the lock: a writer that takes it says that there is none.
        self.has_prepared.store(true, Ordering::Release);
        before
    }

    /// The prepared segment, if `len_bytes` fit into it; else a new one, made now. It is for values
    /// mostly if `for_values`.
    pub(super) fn take_ready(&self, len_bytes: u64, for_values: bool) -> Result<ReadySegment> {
        let take = || {
            let mut stock = self.stock.lock();
            let fits = |ready: &mut ReadySegment| ready.len_bytes >= len_bytes;
            let taken = stock.prepared.take_if(fits);
            if taken.is_some() {
                self.has_prepared.store(false, Ordering::Release);
            }
            taken
        };
        if let Some(ready) = take() {
            return Ok(ready);
        }
        self.awaited.fetch_add(1, Ordering::Relaxed);
        // Another thread may be making one: wait and look again.
        let mut turn = self.turn.lock();
        if let Some(ready) = take() {
            return Ok(ready);
        }
        // What is prepared has a lower number than what is made now, so it
        // can no longer follow in the chain.
        let outrun = {
            let mut stock = self.stock.lock();
            self.has_prepared.store(false, Ordering::Release);
            stock.prepared.take()
        };
        if let Some(outrun) = outrun {
            self.discard(outrun);
        }
        let len_bytes = len_bytes.max(self.next_len(&mut turn));
        self.make(&mut turn, len_bytes, for_values, None)
    }

    /// Keeps the file of a segment that will not be used under its number, if it has the usual
    /// length.
    pub(super) fn discard(&self, segment: ReadySegment) {
        if segment.len_bytes != self.config.segment_len() || segment.is_sparse {
            // It took no record, so its number need not be remembered (WL2).
            let _ = discard_file(&*self.fs, &segment.path);
            return;
        }
        let mut stock = self.stock.lock();
        stock.pool.push(segment.path.clone());
        stock.closed.push(segment);
    }

    /// Takes a segment that is written to no more. It is unmapped by
    /// [`free_closed`](Self::free_closed).
    pub(super) fn close(&self, segment: ReadySegment) {
        let mut stock = self.stock.lock();
        stock.closed.push(segment);
        // Where no thread does it, or one that is busy, it must not be put off forever: each has
        // a file open.
        if stock.closed.len() > CLOSED_MAX && !mutated!("unsynced-files-without-end") {
            drop(stock);
            self.free_closed();
        }
    }

    /// Unmaps what was closed.
    pub(super) fn free_closed(&self) {
        let closed = std::mem::take(&mut self.stock.lock().closed);
        drop(closed);
    }

    /// Takes the file of a retired segment out of the chain: under a temporary name if it is to be
    /// [kept](Self::keep) for reuse, which is returned, else it is removed. `reusable` is its
    /// length, if it was allocated and can be used again.
    pub(super) fn recycle(&self, path: &Path, reusable: Option<u64>) -> Result<Option<PathBuf>> {
        self.guard_check()?;
        let temporary = {
            let mut stock = self.stock.lock();
            let reuse =
                reusable == Some(self.config.segment_len()) && stock.pool.len() < POOL_LEN_MAX;
            reuse.then(|| {
                stock.next_temporary += 1;
                temporary_path(&self.dir, stock.next_temporary)
            })
        };
        match temporary {
            Some(temporary) => match self.fs.rename_new(path, &temporary) {
                Ok(()) => Ok(Some(temporary)),
                // An earlier attempt reported an error and had worked all the same. Where the
                // file is now is not known; the next recovery removes it.
                Err(e) if e.is_not_found() => Ok(None),
                Err(e) => Err(e),
            },
            None => {
                discard_file(&*self.fs, path)?;
                Ok(None)
            }
        }
    }

    /// Another process may have opened the store, and need its files.
    pub(super) fn guard_check(&self) -> Result<()> {
        self.guard.check()
    }

    /// Keeps a recycled file for the next segment.
    pub(super) fn keep(&self, recycled: PathBuf) {
        self.stock.lock().pool.push(recycled);
    }

    /// Length of the next segment if no record needs more. A file that waits for reuse has full
    /// length, and takes no more space on the disk.
    fn next_len(&self, turn: &mut MakerState) -> u64 {
        let full_len = self.config.segment_len();
        if self.stock.lock().pool.is_empty() {
            turn.next_len(full_len)
        } else {
            full_len
        }
    }

    /// Makes a segment of `len_bytes` under the next number, durable in content and name. The name
    /// comes last: a crash on the way leaves a temporary file, which the next recovery removes.
    /// No file that is there is replaced, and a failure leaves none of its own behind.
    fn make(
        &self,
        turn: &mut MakerState,
        len_bytes: u64,
        for_values: bool,
        activation: Option<&Activation>,
    ) -> Result<ReadySegment> {
        self.guard_check()?;
        let number = self.take_number(turn)?;
        let full_len = self.config.segment_len();
        let source = if len_bytes == full_len {
            self.stock.lock().pool.pop()
        } else {
            None
        };
        // Zeros would be written to storage once more than the values: in a segment for them they
        // are written shortly before the values, if at all.
        let is_huge = len_bytes > full_len;
        let is_sparse = source.is_none() && (is_huge || for_values);
        let temporary = self.new_temporary(number);
        let header = Header {
            number,
            len_bytes,
            opened_active: activation.is_some(),
            is_sparse,
        };
        let header = encode_header(self.store_id, &header, activation);
        let path = segment_path(&self.dir, number);
        let made = match &source {
            Some(source) => self.reuse(source, &temporary, &header),
            None => self.create(&temporary, len_bytes, !is_sparse, &header),
        }
        .and_then(|()| self.publish(&temporary, &path))
        .and_then(|()| {
            let opened = self.fs.open(&path, OpenMode::ReadWrite).and_then(|file| {
                let allocated_bytes = match is_sparse {
                    true => HEADER_LEN_BYTES as u64,
                    false => len_bytes,
                };
                let use_mmap = self.config.use_mmap && !is_huge;
                let sink = open_sink(&file, len_bytes, allocated_bytes, use_mmap)?;
                Ok((file, sink))
            });
            opened.inspect_err(|_| {
                let _ = discard_file(&*self.fs, &path);
            })
        });
        let (file, sink) = made.inspect_err(|_| {
            // The disk may be full: the next try asks for as little as it can.
            turn.last_len_bytes = 0;
        })?;
        let counter = if source.is_some() {
            &self.recycled
        } else {
            &self.created
        };
        counter.fetch_add(1, Ordering::Relaxed);
        Ok(ReadySegment {
            number,
            path,
            len_bytes,
            is_sparse,
            file,
            sink,
        })
    }

    fn take_number(&self, turn: &mut MakerState) -> Result<u64> {
        let number = turn.next_number;
        if number >= NUMBER_END {
            let path = segment_path(&self.dir, number);
            return Err(Error::corruption(&path, 0, "the log has no number left"));
        }
        turn.next_number += 1;
        Ok(number)
    }

    /// Makes a file under a temporary name that a value is to be streamed into.
    pub(super) fn begin_streamed(&self) -> Result<StreamedParts> {
        self.guard_check()?;
        let number = self.take_number(&mut self.turn.lock())?;
        let temporary = self.new_temporary(number);
        let opened = self.fs.open(&temporary, OpenMode::CreateNew);
        let file = opened.inspect_err(|error| self.discard_unless_foreign(&temporary, error))?;
        Ok(StreamedParts {
            number,
            file,
            temporary,
        })
    }

    /// Gives a file that a value was streamed into its name, durably. What it holds is durable.
    pub(super) fn publish_streamed(&self, parts: &StreamedParts) -> Result<PathBuf> {
        self.guard_check()?;
        let path = values_path(&self.dir, parts.number);
        self.publish(&parts.temporary, &path)?;
        Ok(path)
    }

    /// Removes a file that a value was to be streamed into. One that cannot be removed is removed
    /// by the next recovery.
    pub(super) fn discard_streamed(&self, parts: &StreamedParts) {
        if self.guard_check().is_ok() && !mutated!("unfinished-stream-stays") {
            let _ = discard_file(&*self.fs, &parts.temporary);
        }
    }

    /// A name for a file in the making.
    fn new_temporary(&self, number: u64) -> PathBuf {
        let mut stock = self.stock.lock();
        stock.next_temporary = stock.next_temporary.max(number) + 1;
        temporary_path(&self.dir, stock.next_temporary)
    }

    /// Takes an old file. Its old name goes durably before its old header does; otherwise a crash
    /// could show a segment's name with another one's header.
    fn reuse(
        &self,
        source: &Path,
        temporary: &Path,
        header: &[u8; HEADER_LEN_BYTES],
    ) -> Result<()> {
        let renamed = self.fs.rename_new(source, temporary);
        renamed.inspect_err(|error| {
            // Best effort, here and below: what stays is removed by the next recovery.
            let _ = discard_file(&*self.fs, source);
            self.discard_unless_foreign(temporary, error);
        })?;
        let reused = (|| {
            if !mutated!("old-name-of-a-recycled-segment-not-synced") {
                self.fs.sync_dir(&self.dir)?;
            }
            let file = self.fs.open(temporary, OpenMode::ReadWrite)?;
            write_header(&*file, header)
        })();
        reused.inspect_err(|_| {
            let _ = discard_file(&*self.fs, temporary);
        })
    }

    /// Gives the segment `temporary` its name, durably.
    fn publish(&self, temporary: &Path, path: &Path) -> Result<()> {
        let renamed = if mutated!("segment-renamed-over-another") {
            self.fs.rename(temporary, path)
        } else {
            self.fs.rename_new(temporary, path)
        };
        if renamed.is_err() {
            let _ = discard_file(&*self.fs, temporary);
        }
        renamed?;
        let synced = mutated!(
            "segment-name-not-synced",
            Ok(()),
            self.fs.sync_dir(&self.dir)
        );
        synced.inspect_err(|_| {
            // It took no record, so its number need not be remembered (WL2).
            let _ = discard_file(&*self.fs, path);
        })
    }

    /// Creates a file of `len_bytes`; really allocated if it will be mapped and used again and
    /// again.
    fn create(
        &self,
        temporary: &Path,
        len_bytes: u64,
        allocate: bool,
        header: &[u8; HEADER_LEN_BYTES],
    ) -> Result<()> {
        let created = self
            .fs
            .open(temporary, OpenMode::CreateNew)
            .and_then(|file| {
                if allocate {
                    write_zeros(&*file, 0..len_bytes)?;
                } else {
                    // It takes one huge record or many values; writing zeros first would double
                    // that.
                    file.set_len(len_bytes)?;
                }
                write_header(&*file, header)
            });
        created.inspect_err(|error| self.discard_unless_foreign(temporary, error))
    }

    /// Removes a file whose making failed with `error`, if that does not say that another one made
    /// it.
    fn discard_unless_foreign(&self, temporary: &Path, error: &Error) {
        if error.io_kind() != Some(io::ErrorKind::AlreadyExists) {
            let _ = discard_file(&*self.fs, temporary);
        }
    }
}

/// Writes zeros to `range` of a file.
pub(super) fn write_zeros(file: &dyn File, range: Range<u64>) -> Result<()> {
    let zeros = [0; ZERO_CHUNK_LEN_BYTES];
    let mut at = range.start;
    while at < range.end {
        let len = (range.end - at).min(ZERO_CHUNK_LEN_BYTES as u64);
        file.write_all_at(&zeros[..len as usize], at)?;
        at += len;
    }
    Ok(())
}

fn write_header(file: &dyn File, header: &[u8; HEADER_LEN_BYTES]) -> Result<()> {
    file.write_all_at(header, 0)?;
    mutated!("segment-renamed-before-sync", Ok(()), file.sync_data())
}
