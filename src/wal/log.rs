//! The shared side of the log: syncing, retention, and having segments made in advance.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use super::clock::{Clock, LogAges};
use super::segment::{ACTIVATION_AT, Activation, HEADER_LEN_BYTES};
use super::segment_chain::{LiveSegment, SegmentChain};
use super::segment_factory::{ReadySegment, SegmentFactory, StreamedParts};
use super::{WalConfig, failed_before};
use crate::error::{Error, Result};
use crate::fs::{Fs, LockGuard};
use crate::types::SeqNo;
use crate::util::mutants::mutated;
use crate::util::sync::Mutex;
use crate::util::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::values::ValueFiles;

/// From so many segments on that no sync has covered, one is due: each keeps its file open, and a
/// process may have 64.
const UNSYNCED_MANY: usize = 4;

/// So many are not exceeded: who would begin another one syncs first.
const UNSYNCED_MAX: usize = 8;

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

/// The log as all threads but the writer's see it.
#[derive(Debug)]
pub(crate) struct Log {
    factory: SegmentFactory,
    chain: SegmentChain,

    // Written by the writer, read by all.
    appended: AtomicU64,
    appended_bytes: AtomicU64,
    appends: AtomicU64,
    /// Bytes used in the active segment.
    active_used_bytes: AtomicU64,
    /// Of them, those of values that engines refer to.
    active_value_bytes: AtomicU64,
    active_len_bytes: AtomicU64,
    /// Segments that were begun since the log was opened.
    switches: AtomicU64,

    // Written by syncs.
    synced: AtomicU64,
    syncs: AtomicU64,
    has_failed: AtomicBool,
    failure: OnceLock<Error>,

    /// A thread has been asked to prepare and has not answered.
    preparing: AtomicBool,

    /// One sync at a time; a thread that waited finds itself covered.
    sync_turn: Mutex<()>,

    clock: Mutex<Clock>,
}

/// What recovery hands over.
#[derive(Debug)]
pub(super) struct Inheritance {
    /// Older segments of the chain and the strays that must be deleted with them, oldest first.
    pub(super) live: VecDeque<LiveSegment>,
    /// A prepared segment that was never used.
    pub(super) spare: Option<PathBuf>,
    pub(super) next_number: u64,
    pub(super) last: SeqNo,
    pub(super) previous: u64,
    /// The segment to go on in, if it is not to be a new one (WL7).
    pub(super) resumed: Option<Resumed>,
    pub(super) guard: LockGuard,
    /// What engines may refer to, in a store with engines.
    pub(super) values: Option<Arc<ValueFiles>>,
}

/// A segment that recovery goes on in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Resumed {
    pub(super) number: u64,
    pub(super) len_bytes: u64,
    pub(super) is_sparse: bool,
    /// First number that it holds.
    pub(super) first: SeqNo,
    /// Where the next record goes.
    pub(super) end_bytes: u64,
}

impl Log {
    /// Opens a new segment behind what recovery found (WL5), or goes on in the last one (WL7).
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
            resumed,
            guard,
            values,
        } = inheritance;
        let chain = SegmentChain::new(Arc::clone(&fs), dir, live, values);
        let log = Self {
            factory: SegmentFactory::new(fs, dir, store_id, config, next_number, spare, guard),
            chain,
            appended: AtomicU64::new(last.0),
            appended_bytes: AtomicU64::new(0),
            appends: AtomicU64::new(0),
            active_used_bytes: AtomicU64::new(HEADER_LEN_BYTES as u64),
            active_value_bytes: AtomicU64::new(0),
            active_len_bytes: AtomicU64::new(0),
            switches: AtomicU64::new(0),
            synced: AtomicU64::new(last.0),
            syncs: AtomicU64::new(0),
            has_failed: AtomicBool::new(false),
            failure: OnceLock::new(),
            preparing: AtomicBool::new(false),
            sync_turn: Mutex::new(()),
            clock: Mutex::default(),
        };
        let (active, first) = match resumed {
            Some(resumed) => {
                log.active_used_bytes
                    .store(resumed.end_bytes, Ordering::Relaxed);
                let Resumed {
                    number,
                    len_bytes,
                    is_sparse,
                    ..
                } = resumed;
                let active = log.factory.resume(number, len_bytes, is_sparse)?;
                (active, resumed.first)
            }
            None => {
                let first = last.next();
                let activation = Activation {
                    first,
                    previous,
                    synced: last,
                };
                (log.factory.make_active(&activation)?, first)
            }
        };
        log.active_len_bytes
            .store(active.len_bytes, Ordering::Relaxed);
        log.chain.push(&active, first, true);
        Ok((Arc::new(log), active))
    }

    pub(super) fn store_id(&self) -> u64 {
        self.factory.store_id()
    }

    pub(super) fn chain(&self) -> &SegmentChain {
        &self.chain
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
        self.chain.older_bytes() + self.active_used_bytes.load(Ordering::Relaxed)
    }

    /// How often the log has gone on in another segment since it was opened.
    #[inline]
    pub(crate) fn switches(&self) -> u64 {
        self.switches.load(Ordering::Relaxed)
    }

    /// True if a segment can be deleted once `seq`, the oldest number needed, is needed no more: it
    /// is not in the active segment, which always stays.
    pub(crate) fn would_retire_after(&self, seq: SeqNo) -> bool {
        self.chain.would_retire_after(seq)
    }

    /// First sequence number in the oldest segment that [`retire`](Self::retire) would keep.
    pub(crate) fn first_after_retiring(&self, oldest_needed: SeqNo) -> SeqNo {
        self.chain.first_after_retiring(oldest_needed)
    }

    /// First sequence number in the oldest live segment.
    pub(crate) fn oldest_seq(&self) -> SeqNo {
        self.chain.oldest_seq()
    }

    /// Counters since the log was opened.
    pub(crate) fn stats(&self) -> LogStats {
        let made = self.factory.made();
        LogStats {
            bytes_appended: self.appended_bytes.load(Ordering::Relaxed),
            appends: self.appends.load(Ordering::Relaxed),
            syncs: self.syncs.load(Ordering::Relaxed),
            segments_created: made.created,
            segments_recycled: made.recycled,
            segments_awaited: made.awaited,
            disk_bytes: self.chain.disk_bytes() + self.factory.stock_bytes(),
        }
    }

    /// How long appends have waited for a sync, and how long there was none, as far as the calls
    /// of this know: ages are wrong by the time since the last call, towards the safe side.
    pub(crate) fn ages(&self, now: Instant) -> LogAges {
        // In this order: what is synced was appended before.
        let synced = self.synced_seq();
        let appended = self.appended_seq();
        self.clock.lock().look(appended, synced, now)
    }

    // ---- for the writer ----

    /// WL6.
    #[inline]
    pub(crate) fn check_not_failed(&self) -> Result<()> {
        if self.has_failed.load(Ordering::Acquire) {
            return Err(failed_before(
                self.failure.get().expect("set before the flag"),
            ));
        }
        Ok(())
    }

    /// Publishes an append.
    pub(super) fn note_append(
        &self,
        last: SeqNo,
        len_bytes: u64,
        used_bytes: u64,
        value_bytes: u64,
    ) {
        // One writer: no read-modify-write needed.
        let add = |counter: &AtomicU64, n| {
            counter.store(counter.load(Ordering::Relaxed) + n, Ordering::Relaxed);
        };
        add(&self.appended_bytes, len_bytes);
        add(&self.appends, 1);
        add(&self.active_value_bytes, value_bytes);
        self.active_used_bytes.store(used_bytes, Ordering::Relaxed);
        self.appended.store(last.0, Ordering::Release);
    }

    /// The prepared segment, if `len_bytes` fit into it; else a new one, made now.
    pub(super) fn take_ready(&self, len_bytes: u64) -> Result<ReadySegment> {
        self.factory.take_ready(len_bytes, self.takes_values())
    }

    /// Keeps the file of a segment that will not be used under its number, if it has the usual
    /// length.
    pub(super) fn discard(&self, segment: ReadySegment) {
        self.factory.discard(segment);
    }

    /// `active` has been activated in place of `old`.
    pub(super) fn note_switch(&self, active: &ReadySegment, first: SeqNo, old: ReadySegment) {
        self.active_used_bytes
            .store(HEADER_LEN_BYTES as u64, Ordering::Relaxed);
        self.active_value_bytes.store(0, Ordering::Relaxed);
        self.active_len_bytes
            .store(active.len_bytes, Ordering::Relaxed);
        self.chain.push(active, first, false);
        self.switches.fetch_add(1, Ordering::Relaxed);
        self.factory.close(old);
    }

    // ---- for values that are streamed ----

    pub(super) fn begin_streamed(&self) -> Result<StreamedParts> {
        self.check_not_failed()?;
        self.factory.begin_streamed()
    }

    pub(super) fn publish_streamed(&self, parts: &StreamedParts) -> Result<PathBuf> {
        self.factory.publish_streamed(parts)
    }

    pub(super) fn discard_streamed(&self, parts: &StreamedParts) {
        self.factory.discard_streamed(parts);
    }

    // ---- syncing ----

    /// Makes everything appended before the call durable and returns the last sequence number
    /// covered. One caller syncs for all that wait. A failed sync is never repeated (WL6).
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
        // This order: a segment is in the chain before a record in it is published, so the sync
        // covers `target`.
        let target = self.appended_seq();
        if let Err(e) = self.chain.sync() {
            if !mutated!("writes-go-on-after-a-failed-sync") {
                let _ = self.failure.set(e.clone());
                self.has_failed.store(true, Ordering::Release);
            }
            return Err(e);
        }
        self.syncs.fetch_add(1, Ordering::Relaxed);
        self.synced.fetch_max(target.0, Ordering::AcqRel);
        Ok(target)
    }

    /// True if a sync is due because of the files that are kept open for it.
    pub(crate) fn has_many_unsynced(&self) -> bool {
        self.chain.unsynced_count() >= UNSYNCED_MANY
    }

    /// Syncs if as many segments wait for that as may. For a writer that begins another one, and
    /// has the log locked: it comes to this only where nothing syncs in the background, or where
    /// that is far behind.
    pub(super) fn bound_unsynced(&self) -> Result<()> {
        match self.chain.unsynced_count() < UNSYNCED_MAX || mutated!("unsynced-files-without-end") {
            true => Ok(()),
            false => self.sync().map(drop),
        }
    }

    // ---- retention ----

    /// Deletes segments whose records are all below `oldest_needed` (all but the active one, if
    /// `None`). Their files are kept for reuse or removed.
    pub(crate) fn retire(&self, oldest_needed: Option<SeqNo>) -> Result<()> {
        self.chain.retire(oldest_needed, &self.factory, || {
            self.check_not_failed()?;
            let _turn = self.sync_turn.lock();
            self.check_not_failed()?;
            self.sync_segments().map(drop)
        })
    }

    // ---- giving back ----

    /// True if the log takes more than a log that has nothing to keep must.
    pub(crate) fn is_long(&self) -> bool {
        self.stats().disk_bytes > self.factory.small_len()
    }

    /// True if the active segment is longer than one after opening, or so full that another one is
    /// about to be prepared.
    pub(super) fn is_active_long(&self) -> bool {
        let len_bytes = self.active_len_bytes.load(Ordering::Relaxed);
        let used_bytes = self.active_used_bytes.load(Ordering::Relaxed);
        len_bytes > self.factory.small_len() || 2 * used_bytes >= len_bytes
    }

    /// Makes a small segment ready to follow a long active one, so that
    /// [`Writer::shorten`](super::Writer::shorten) need not wait for it.
    pub(crate) fn prepare_small(&self) -> Result<()> {
        match self.is_active_long() {
            true => self.factory.prepare_small(),
            false => Ok(()),
        }
    }

    /// Removes the file that waits for reuse, and the prepared segment if `with_prepared`: for a
    /// log that is not written to for a while.
    pub(crate) fn free_stock(&self, with_prepared: bool) -> Result<()> {
        self.factory.free(with_prepared)
    }

    /// The length that the active segment is to have when the log is closed, if its records end at
    /// `end_bytes`.
    pub(super) fn kept_len(&self, end_bytes: u64) -> u64 {
        end_bytes + self.factory.free_max_bytes()
    }

    /// Of segment `number`, the active one, only `len_bytes` will be there.
    pub(super) fn note_cut(&self, number: u64, len_bytes: u64) {
        self.active_len_bytes.store(len_bytes, Ordering::Relaxed);
        self.chain.note_cut(number, len_bytes);
    }

    /// Another process may have opened the store, and need its files.
    pub(super) fn check_lock(&self) -> Result<()> {
        self.factory.guard_check()
    }

    // ---- preparation ----

    /// True if most of what is logged is values that engines refer to: then a segment is not used
    /// again, and is written with calls into space that nothing was written to before.
    fn takes_values(&self) -> bool {
        let value_bytes = self.active_value_bytes.load(Ordering::Relaxed);
        2 * value_bytes >= self.active_used_bytes.load(Ordering::Relaxed)
    }

    /// True if [`prepare`](Self::prepare) has something to do: the active segment is half full
    /// and none is ready to follow it.
    fn prepare_is_due(&self) -> bool {
        !self.factory.has_prepared()
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

    /// Makes the next segment ready, so that no append has to. Returns whether there was something
    /// to do. A failure (a full disk, say) leaves the log as it was.
    pub(crate) fn prepare(&self) -> Result<bool> {
        // The claim is answered first: one that comes while this runs is answered by the next call.
        self.preparing.store(false, Ordering::Relaxed);
        self.factory.free_closed();
        let for_values = self.takes_values();
        self.factory
            .prepare_if(|| self.prepare_is_due(), for_values)
    }
}

const _: () = assert!(ACTIVATION_AT < HEADER_LEN_BYTES);
