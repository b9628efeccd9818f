//! The shared side of the log: syncing, retention, and making segments ready in advance.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use super::segment::{
    ACTIVATION_AT, Activation, HEADER_LEN_BYTES, Header, encode_header, segment_path,
    temporary_path,
};
use super::sink::{Sink, open_sink};
use super::{WalConfig, discard_file, failed_before};
use crate::error::{Error, Result};
use crate::fs::{File, Fs, OpenMode};
use crate::types::SeqNo;
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

/// What the log has done since it was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct LogStats {
    /// Bytes of records, with their headers.
    pub(crate) bytes_appended: u64,
    /// Records appended.
    pub(crate) appends: u64,
    /// Rounds of syncing, each of one file or more.
    pub(crate) syncs: u64,
    /// Segments made from nothing.
    pub(crate) segments_created: u64,
    /// Segments made from retired ones.
    pub(crate) segments_recycled: u64,
    /// Times an append had to make its segment itself.
    pub(crate) segments_awaited: u64,
    /// Bytes of all the log's files now: live, prepared and waiting for reuse.
    pub(crate) disk_bytes: u64,
}

/// The log as everybody but the writer sees it.
#[derive(Debug)]
pub(crate) struct Log {
    // Constant.
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    store_id: u64,
    config: WalConfig,

    // Written by the writer, read by all.
    appended: AtomicU64,
    appended_bytes: AtomicU64,
    appends: AtomicU64,
    /// Bytes used in the active segment.
    active_used_bytes: AtomicU64,
    active_len_bytes: AtomicU64,

    // Written by syncs.
    synced: AtomicU64,
    syncs: AtomicU64,
    has_failed: AtomicBool,
    failure: OnceLock<Error>,

    created: AtomicU64,
    recycled: AtomicU64,
    awaited: AtomicU64,
    has_prepared: AtomicBool,
    /// Somebody has been told to prepare and has not answered.
    preparing: AtomicBool,

    /// Held for moments only, never over I/O.
    segments: Mutex<Segments>,
    /// One sync at a time; whoever waited finds itself covered.
    sync_turn: Mutex<()>,
    /// One maker of segments at a time, so that numbers rise along the chain.
    prepare_turn: Mutex<PrepareState>,
    retire_turn: Mutex<RetireState>,
}

#[derive(Debug, Default)]
struct RetireState {
    /// A name went, and the directory could not be synced.
    owes_sync: bool,
}

#[derive(Debug)]
struct Segments {
    /// The chain, oldest first; the last one is active.
    live: VecDeque<LiveSegment>,
    /// Those with records or an activation that no sync covered; the last one is active.
    unsynced: VecDeque<UnsyncedSegment>,
    prepared: Option<ReadySegment>,
    /// Files to make segments from.
    pool: Vec<PathBuf>,
    /// Closed maps: unmapping takes time that appends do not have.
    closed: Vec<ReadySegment>,
    /// Temporary names must differ; apart from that their numbers mean nothing.
    next_temporary: u64,
}

#[derive(Debug)]
struct PrepareState {
    next_number: u64,
    /// Length of the segment made last; 0 before the first, and after a failure.
    last_len_bytes: u64,
}

impl PrepareState {
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

/// A segment of the chain.
#[derive(Debug)]
pub(super) struct LiveSegment {
    pub(super) number: u64,
    pub(super) path: PathBuf,
    pub(super) len_bytes: u64,
    /// First number that counts here.
    pub(super) first: SeqNo,
    /// The activation is durable.
    pub(super) is_anchored: bool,
}

#[derive(Debug, Clone)]
struct UnsyncedSegment {
    number: u64,
    file: Arc<dyn File>,
}

/// A segment that can take records.
#[derive(Debug)]
pub(super) struct ReadySegment {
    pub(super) number: u64,
    pub(super) path: PathBuf,
    pub(super) len_bytes: u64,
    pub(super) file: Arc<dyn File>,
    pub(super) sink: Box<dyn Sink>,
}

/// What recovery hands over.
#[derive(Debug)]
pub(super) struct Inheritance {
    /// Older segments of the chain and whatever must go with them, oldest first.
    pub(super) live: VecDeque<LiveSegment>,
    /// A prepared segment that was never used.
    pub(super) spare: Option<PathBuf>,
    pub(super) next_number: u64,
    pub(super) last: SeqNo,
    pub(super) previous: u64,
}

impl Log {
    /// Opens a new segment behind what recovery found (W5).
    pub(super) fn start(
        fs: Arc<dyn Fs>,
        dir: &Path,
        store_id: u64,
        config: WalConfig,
        inheritance: Inheritance,
    ) -> Result<(Arc<Self>, ReadySegment)> {
        let Inheritance {
            live,
            spare,
            next_number,
            last,
            previous,
        } = inheritance;
        let log = Self {
            fs,
            dir: dir.to_path_buf(),
            store_id,
            config,
            appended: AtomicU64::new(last.0),
            appended_bytes: AtomicU64::new(0),
            appends: AtomicU64::new(0),
            active_used_bytes: AtomicU64::new(HEADER_LEN_BYTES as u64),
            active_len_bytes: AtomicU64::new(0),
            synced: AtomicU64::new(last.0),
            syncs: AtomicU64::new(0),
            has_failed: AtomicBool::new(false),
            failure: OnceLock::new(),
            created: AtomicU64::new(0),
            recycled: AtomicU64::new(0),
            awaited: AtomicU64::new(0),
            has_prepared: AtomicBool::new(false),
            preparing: AtomicBool::new(false),
            segments: Mutex::new(Segments {
                live,
                unsynced: VecDeque::new(),
                prepared: None,
                pool: Vec::from_iter(spare),
                closed: Vec::new(),
                next_temporary: next_number,
            }),
            sync_turn: Mutex::new(()),
            prepare_turn: Mutex::new(PrepareState {
                next_number,
                last_len_bytes: 0,
            }),
            retire_turn: Mutex::new(RetireState::default()),
        };
        let first = last.next();
        let activation = Activation {
            first,
            previous,
            synced: last,
        };
        let active = {
            let mut turn = log.prepare_turn.lock();
            let len_bytes = log.next_len(&mut turn);
            log.make(&mut turn, len_bytes, Some(&activation))?
        };
        log.active_len_bytes
            .store(active.len_bytes, Ordering::Relaxed);
        {
            let mut segments = log.segments.lock();
            segments.live.push_back(LiveSegment {
                is_anchored: true,
                ..live_segment(&active, first)
            });
            segments.unsynced.push_back(unsynced_segment(&active));
        }
        Ok((Arc::new(log), active))
    }

    pub(super) fn store_id(&self) -> u64 {
        self.store_id
    }

    /// Last sequence number appended.
    pub(crate) fn appended_seq(&self) -> SeqNo {
        SeqNo(self.appended.load(Ordering::Acquire))
    }

    /// Everything up to here survives a power loss.
    pub(crate) fn synced_seq(&self) -> SeqNo {
        SeqNo(self.synced.load(Ordering::Acquire))
    }

    /// Bytes of the log that are still needed.
    pub(crate) fn live_bytes(&self) -> u64 {
        let segments = self.segments.lock();
        let older = segments.live.len().saturating_sub(1);
        let older_bytes: u64 = segments.live.iter().take(older).map(|s| s.len_bytes).sum();
        older_bytes + self.active_used_bytes.load(Ordering::Relaxed)
    }

    fn disk_bytes(&self) -> u64 {
        let segments = self.segments.lock();
        let live: u64 = segments.live.iter().map(|s| s.len_bytes).sum();
        let prepared = segments.prepared.as_ref().map_or(0, |s| s.len_bytes);
        live + prepared + segments.pool.len() as u64 * self.config.segment_len()
    }

    /// True if a segment can go once `seq`, the oldest number needed, is needed no more: it
    /// is not in the active segment, which always stays.
    pub(crate) fn would_retire_after(&self, seq: SeqNo) -> bool {
        let segments = self.segments.lock();
        segments.live.back().expect("one is active").first > seq
    }

    /// First sequence number in the oldest segment that [`retire`](Self::retire) would keep.
    pub(crate) fn first_after_retiring(&self, oldest_needed: SeqNo) -> SeqNo {
        let segments = self.segments.lock();
        let later = segments.live.iter().skip(1);
        let front = segments.live.front().expect("one is active");
        later
            .map(|segment| segment.first)
            .take_while(|first| *first <= oldest_needed)
            .last()
            .unwrap_or(front.first)
    }

    /// First sequence number in the oldest live segment.
    #[cfg(test)]
    pub(crate) fn oldest_seq(&self) -> SeqNo {
        let segments = self.segments.lock();
        segments.live.front().expect("one is active").first
    }

    /// Counters since the log was opened.
    pub(crate) fn stats(&self) -> LogStats {
        LogStats {
            bytes_appended: self.appended_bytes.load(Ordering::Relaxed),
            appends: self.appends.load(Ordering::Relaxed),
            syncs: self.syncs.load(Ordering::Relaxed),
            segments_created: self.created.load(Ordering::Relaxed),
            segments_recycled: self.recycled.load(Ordering::Relaxed),
            segments_awaited: self.awaited.load(Ordering::Relaxed),
            disk_bytes: self.disk_bytes(),
        }
    }

    // ---- for the writer ----

    /// W6.
    pub(super) fn check_not_failed(&self) -> Result<()> {
        if self.has_failed.load(Ordering::Acquire) {
            return Err(failed_before(
                self.failure.get().expect("set before the flag"),
            ));
        }
        Ok(())
    }

    /// Publishes an append.
    pub(super) fn note_append(&self, last: SeqNo, len_bytes: u64, used_bytes: u64) {
        // One writer: no read-modify-write needed.
        let add = |counter: &AtomicU64, n| {
            counter.store(counter.load(Ordering::Relaxed) + n, Ordering::Relaxed);
        };
        add(&self.appended_bytes, len_bytes);
        add(&self.appends, 1);
        self.active_used_bytes.store(used_bytes, Ordering::Relaxed);
        self.appended.store(last.0, Ordering::Release);
    }

    /// The prepared segment, if it has room for `len_bytes`; else a new one, made now.
    pub(super) fn take_ready(&self, len_bytes: u64) -> Result<ReadySegment> {
        let take = || {
            let mut segments = self.segments.lock();
            let fits = |ready: &mut ReadySegment| ready.len_bytes >= len_bytes;
            let taken = segments.prepared.take_if(fits);
            if taken.is_some() {
                self.has_prepared.store(false, Ordering::Release);
            }
            taken
        };
        if let Some(ready) = take() {
            return Ok(ready);
        }
        self.awaited.fetch_add(1, Ordering::Relaxed);
        // Somebody may be at it: wait and look again.
        let mut turn = self.prepare_turn.lock();
        if let Some(ready) = take() {
            return Ok(ready);
        }
        // What is prepared has a lower number than what is made now, so it
        // can no longer follow in the chain.
        let outrun = self.segments.lock().prepared.take();
        self.has_prepared.store(false, Ordering::Release);
        if let Some(outrun) = outrun {
            self.discard(outrun);
        }
        let len_bytes = len_bytes.max(self.next_len(&mut turn));
        self.make(&mut turn, len_bytes, None)
    }

    /// Keeps the file of a segment that will not be used under its number, if it has the usual length.
    pub(super) fn discard(&self, segment: ReadySegment) {
        if segment.len_bytes != self.config.segment_len() {
            // It took no record, so its number need not be remembered (W2).
            let _ = discard_file(&*self.fs, &segment.path);
            return;
        }
        let mut segments = self.segments.lock();
        segments.pool.push(segment.path.clone());
        segments.closed.push(segment);
    }

    /// `active` has been activated in place of `old`.
    pub(super) fn note_switch(&self, active: &ReadySegment, first: SeqNo, old: ReadySegment) {
        self.active_len_bytes
            .store(active.len_bytes, Ordering::Relaxed);
        let mut segments = self.segments.lock();
        segments.live.push_back(live_segment(active, first));
        segments.unsynced.push_back(unsynced_segment(active));
        segments.closed.push(old);
    }

    // ---- syncing ----

    /// Makes everything appended before the call durable and returns the last sequence number
    /// covered. One caller syncs for all that wait. A failed sync is never repeated (W6).
    pub(crate) fn sync(&self) -> Result<SeqNo> {
        let wanted = self.appended_seq();
        self.check_not_failed()?;
        if self.synced_seq() >= wanted {
            return Ok(self.synced_seq());
        }
        let _turn = self.sync_turn.lock();
        self.check_not_failed()?;
        if self.synced_seq() >= wanted {
            return Ok(self.synced_seq());
        }
        self.sync_segments()
    }

    /// Syncs the segments that need it, in order. The caller has the turn.
    fn sync_segments(&self) -> Result<SeqNo> {
        // This order: a segment is listed before a record in it is published, so the list
        // covers `target`.
        let target = self.appended_seq();
        let list: Vec<UnsyncedSegment> = {
            let segments = self.segments.lock();
            segments.unsynced.iter().cloned().collect()
        };
        for segment in &list {
            let is_active = Some(segment.number) == list.last().map(|last| last.number);
            if mutated!("older-segment-not-synced") && !is_active {
                continue;
            }
            if let Err(e) = segment.file.sync_data() {
                if !mutated!("writes-go-on-after-a-failed-sync") {
                    let _ = self.failure.set(e.clone());
                    self.has_failed.store(true, Ordering::Release);
                }
                return Err(e);
            }
        }
        self.syncs.fetch_add(1, Ordering::Relaxed);
        let mut segments = self.segments.lock();
        // The last one was active when the list was made and may have grown since.
        for _ in 1..list.len() {
            segments.unsynced.pop_front();
        }
        let newest = list.last().expect("one is active").number;
        for segment in segments.live.iter_mut().rev() {
            if segment.is_anchored {
                break;
            }
            segment.is_anchored = segment.number <= newest;
        }
        drop(segments);
        self.synced.fetch_max(target.0, Ordering::AcqRel);
        Ok(target)
    }

    // ---- retention ----

    /// Lets go of segments whose records are all below `oldest_needed` (of all but the active one, if
    /// `None`). Their files are kept for reuse or removed.
    pub(crate) fn retire(&self, oldest_needed: Option<SeqNo>) -> Result<()> {
        let mut turn = self.retire_turn.lock();
        loop {
            // One durably before the next (W3).
            if turn.owes_sync {
                self.fs.sync_dir(&self.dir)?;
                turn.owes_sync = false;
            }
            let (segment, temporary, next_is_anchored) = {
                let mut segments = self.segments.lock();
                let Some(next) = segments.live.get(1) else {
                    return Ok(());
                };
                if oldest_needed.is_some_and(|needed| next.first > needed) {
                    return Ok(());
                }
                let next_is_anchored = next.is_anchored;
                let front = segments.live.front().expect("there is a next one");
                let reuse = front.len_bytes == self.config.segment_len()
                    && segments.pool.len() < POOL_LEN_MAX;
                let segment = (front.number, front.path.clone());
                let temporary = reuse.then(|| {
                    segments.next_temporary += 1;
                    temporary_path(&self.dir, segments.next_temporary)
                });
                (segment, temporary, next_is_anchored)
            };
            if !next_is_anchored && !mutated!("segment-unlinked-before-the-next-is-durable") {
                // Without the next activation nothing would tell where
                // numbers go on.
                self.check_not_failed()?;
                let _turn = self.sync_turn.lock();
                self.check_not_failed()?;
                self.sync_segments()?;
            }
            let (number, path) = segment;
            let temporary = match temporary {
                Some(temporary) => match self.fs.rename(&path, &temporary) {
                    Ok(()) => Some(temporary),
                    // An earlier attempt reported an error and had worked all the same. Where the
                    // file is now nobody knows; the next recovery removes it.
                    Err(e) if e.is_not_found() => None,
                    Err(e) => return Err(e),
                },
                None => {
                    discard_file(&*self.fs, &path)?;
                    None
                }
            };
            {
                let mut segments = self.segments.lock();
                let gone = segments.live.pop_front();
                debug_assert_eq!(gone.map(|s| s.number), Some(number));
                segments.pool.extend(temporary);
            }
            turn.owes_sync = true;
        }
    }

    // ---- preparation ----

    /// True if [`prepare`](Self::prepare) has something to do: the active segment is half full
    /// and none is ready to follow it.
    fn prepare_is_due(&self) -> bool {
        !self.has_prepared.load(Ordering::Acquire)
            && 2 * self.active_used_bytes.load(Ordering::Relaxed)
                >= self.active_len_bytes.load(Ordering::Relaxed)
    }

    /// True once when preparation becomes due: the caller has it done.
    #[inline]
    pub(crate) fn claim_prepare(&self) -> bool {
        self.prepare_is_due()
            && !self.preparing.load(Ordering::Relaxed)
            && !self.preparing.swap(true, Ordering::Relaxed)
    }

    /// Makes the next segment ready, so that no append has to. Returns whether there was something to do. A failure
    /// (a full disk, say) leaves the log as it was.
    pub(crate) fn prepare(&self) -> Result<bool> {
        // The claim is answered first: one that comes while this runs is answered by the next call.
        self.preparing.store(false, Ordering::Relaxed);
        let closed = std::mem::take(&mut self.segments.lock().closed);
        drop(closed);
        if !self.prepare_is_due() {
            return Ok(false);
        }
        let mut turn = self.prepare_turn.lock();
        if !self.prepare_is_due() {
            return Ok(false);
        }
        let len_bytes = self.next_len(&mut turn);
        let ready = self.make(&mut turn, len_bytes, None)?;
        self.segments.lock().prepared = Some(ready);
        self.has_prepared.store(true, Ordering::Release);
        Ok(true)
    }

    /// Length of the next segment if no record needs more. A file that waits for reuse has full length, and takes no
    /// room on the disk.
    fn next_len(&self, turn: &mut PrepareState) -> u64 {
        let full_len = self.config.segment_len();
        if self.segments.lock().pool.is_empty() {
            turn.next_len(full_len)
        } else {
            full_len
        }
    }

    /// Makes a segment of `len_bytes` under the next number, durable in content and name. The name comes last: a crash on
    /// the way leaves a temporary file, which the next recovery removes.
    fn make(
        &self,
        turn: &mut PrepareState,
        len_bytes: u64,
        activation: Option<&Activation>,
    ) -> Result<ReadySegment> {
        let number = turn.next_number;
        turn.next_number += 1;
        let full_len = self.config.segment_len();
        let allocate = len_bytes <= full_len;
        let source = if len_bytes == full_len {
            self.segments.lock().pool.pop()
        } else {
            None
        };
        let temporary = {
            let mut segments = self.segments.lock();
            segments.next_temporary = segments.next_temporary.max(number) + 1;
            temporary_path(&self.dir, segments.next_temporary)
        };
        let header = Header {
            number,
            len_bytes,
            opened_active: activation.is_some(),
        };
        let path = segment_path(&self.dir, number);
        let made = match &source {
            Some(source) => self.reuse(source, &temporary),
            None => self.create(&temporary, len_bytes, allocate),
        }
        .and_then(|file| {
            file.write_all_at(&encode_header(self.store_id, &header, activation), 0)?;
            if !mutated!("segment-renamed-before-sync") {
                file.sync_data()?;
            }
            drop(file);
            self.fs.rename(&temporary, &path)?;
            if !mutated!("segment-name-not-synced") {
                self.fs.sync_dir(&self.dir)?;
            }
            let file = self.fs.open(&path, OpenMode::ReadWrite)?;
            let sink = open_sink(&file, len_bytes, self.config.use_mmap && allocate)?;
            Ok((file, sink))
        });
        let (file, sink) = made.inspect_err(|_| {
            // Best effort: what stays is removed by the next recovery.
            let _ = discard_file(&*self.fs, &temporary);
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
            file,
            sink,
        })
    }

    /// Takes an old file. Its old name goes durably before its old header does; otherwise a crash could show a
    /// segment's name with another one's header.
    fn reuse(&self, source: &Path, temporary: &Path) -> Result<Arc<dyn File>> {
        self.fs.rename(source, temporary)?;
        if !mutated!("old-name-of-a-recycled-segment-not-synced") {
            self.fs.sync_dir(&self.dir)?;
        }
        self.fs.open(temporary, OpenMode::ReadWrite)
    }

    /// Creates a file of `len_bytes`; really allocated if it will be mapped and used again and again.
    fn create(&self, temporary: &Path, len_bytes: u64, allocate: bool) -> Result<Arc<dyn File>> {
        let file = self.fs.open(temporary, OpenMode::CreateNew)?;
        if !allocate {
            // It takes one huge record; writing zeros first would double that.
            file.set_len(len_bytes)?;
            return Ok(file);
        }
        let zeros = [0; ZERO_CHUNK_LEN_BYTES];
        let mut at = 0;
        while at < len_bytes {
            let len = (len_bytes - at).min(ZERO_CHUNK_LEN_BYTES as u64);
            file.write_all_at(&zeros[..len as usize], at)?;
            at += len;
        }
        Ok(file)
    }
}

fn live_segment(ready: &ReadySegment, first: SeqNo) -> LiveSegment {
    LiveSegment {
        number: ready.number,
        path: ready.path.clone(),
        len_bytes: ready.len_bytes,
        first,
        is_anchored: false,
    }
}

fn unsynced_segment(ready: &ReadySegment) -> UnsyncedSegment {
    UnsyncedSegment {
        number: ready.number,
        file: Arc::clone(&ready.file),
    }
}

const _: () = assert!(ACTIVATION_AT < HEADER_LEN_BYTES);
