//! The contract that both engines keep, and nothing more.
//!
//! An engine is an ordered map that is fed operations in commit order and
//! persists them in its own time. It never sees the log: the store sequences a
//! batch, logs it, calls [`Engine::apply`], and publishes. Recovery calls the
//! same `apply`.
//!
//! # Laws
//!
//! - **E1 order.** `apply` is called by one thread at a time, with rising
//!   sequence numbers.
//! - **E2 prefix.** An engine persists a prefix of what it was given: after a
//!   crash it holds exactly the operations up to [`Engine::persisted_seq`].
//! - **E3 log first.** Before an engine makes operations up to `s` durable, it calls
//!   [`EngineHost::make_durable`]`(s)`. Otherwise a power loss could keep an
//!   operation here and lose an earlier one, of another keyspace, from the log.
//! - **E4 visibility.** A read sees all operations up to some published sequence
//!   number, and none above it. Reads without a snapshot see at least everything that was
//!   published when they began. The exception are operations that are published before they are
//!   applied ([`Engine::apply_staged`]): until that is done, a read sees any part of them, the
//!   store lays all of them over what it sees, and nothing else is applied.
//! - **E5 no waiting.** Taking a view or reading from memory never waits for I/O
//!   done by another thread.
//! - **E6 apply needs no disk** in the usual case: [`Engine::prepare`] runs first,
//!   outside every lock, and loads what `apply` will touch. An error from
//!   `apply` is fatal to writing: the store takes no more writes.
//! - **E7 loads** are no exception to E2 and E3. The entries of a bulk load are durable in the
//!   engine's files, where nothing refers to them, and so is everything that was applied before,
//!   when the log gets a record of the load. That record is the commit: it is durable before the
//!   load is applied. [`Engine::apply_load`] makes the entries a part of the tree, in memory, when
//!   the load is committed, and again when its record is replayed. Until the engine has persisted
//!   that in its own files, the load counts as unpersisted, and the log keeps the record.

mod bulk_load;
mod cursor;
mod folded_merges;
mod handed_views;
mod host;
mod inspect;
mod key_order;
mod overlay;
mod snapshot_tracker;
mod stats;
mod unexpired;
mod verify_report;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use crate::error::Result;
use crate::types::{SeqNo, SequencedOp, Value};
use crate::values::OpenValue;

pub(crate) use bulk_load::{CommitLoad, EngineLoad, LoadFailed, LoadRecord};
pub use cursor::Piece;
pub(crate) use cursor::{Cursor, Entry, ReadView, entry_pieces};
pub(crate) use folded_merges::{FoldedMerges, with_folded};
pub(crate) use handed_views::HandedViews;
pub(crate) use host::{EngineContext, EngineHost, Keep};
pub use inspect::{Figure, InspectDetail, Inspection};
pub(crate) use key_order::{in_key_order, touch};
pub(crate) use overlay::{Laid, OverlaidView, Overlay, OwnEntry, over_many};
pub(crate) use snapshot_tracker::{LiveSnapshots, Registered, SnapshotTracker};
pub(crate) use stats::ValueUsage;
pub use stats::{EngineStats, LevelStats};
pub(crate) use unexpired::UnexpiredView;
pub use verify_report::{Problem, VerifyReport};

/// Kinds of background work, in order of urgency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Work {
    /// Persist what is in memory: a memtable flush or a checkpoint.
    Flush,
    /// Rewrite what is on disk: a compaction, giving back free pages.
    Compact,
}

/// How far behind the background work is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Pressure {
    /// Not behind.
    None,
    /// Behind: writers should be slowed, the more the closer to 1.
    Slow(f64),
    /// Out of room: writers must wait until background work catches up. That work
    /// never needs another write to make progress.
    Stop,
}

impl Pressure {
    /// Rate that writers are slowed to at the lowest pressure, in bytes a second: above what a log
    /// takes, so that the onset of slowing is not felt.
    pub(crate) const RATE_AT_ZERO: f64 = 512.0 * 1024.0 * 1024.0;
    /// Rate at the highest pressure.
    pub(crate) const RATE_AT_ONE: f64 = 2.0 * 1024.0 * 1024.0;

    /// What an operation counts for besides its bytes.
    pub(crate) const OP_COST_BYTES: u64 = 64;

    /// Rate at a pressure from 0 to 1. Falls geometrically: equal steps of pressure have equal
    /// ratios.
    pub(crate) fn rate(pressure: f64) -> f64 {
        Self::RATE_AT_ZERO * (Self::RATE_AT_ONE / Self::RATE_AT_ZERO).powf(pressure.clamp(0.0, 1.0))
    }

    /// The pressure that slows writers to a rate.
    pub(crate) fn for_rate(bytes_per_second: f64) -> f64 {
        let ratio = bytes_per_second / Self::RATE_AT_ZERO;
        (ratio.ln() / (Self::RATE_AT_ONE / Self::RATE_AT_ZERO).ln()).clamp(0.0, 1.0)
    }
}

/// An ordered map that persists a prefix of the operations it is given.
pub(crate) trait Engine: fmt::Debug + Send + Sync {
    /// Brings into memory what applying `ops` will touch, and reports damage or I/O
    /// errors while nothing has been logged yet. Called without locks, by any
    /// thread, concurrently with everything.
    fn prepare(&self, ops: &[SequencedOp<'_>]) -> Result<()>;

    /// Applies the operations of one batch (E1). Not visible to reads until the
    /// store publishes the batch's last sequence number (E4).
    fn apply(&self, ops: &[SequencedOp<'_>]) -> Result<()>;

    /// As [`Engine::prepare`], of puts and deletes of which `order` is what [`in_key_order`] gives.
    fn prepare_ordered(&self, ops: &[SequencedOp<'_>], order: &[u32]) -> Result<()>;

    /// As [`Engine::apply`], of operations as in [`Engine::prepare_ordered`].
    fn apply_ordered(&self, ops: &[SequencedOp<'_>], order: &[u32]) -> Result<()>;

    /// As [`Engine::apply`], of operations that are published already (E4), on different keys but
    /// for range deletes before them. Reads, views included, go on meanwhile without waiting.
    fn apply_staged(&self, ops: &[SequencedOp<'_>]) -> Result<()>;

    /// Begins a sorted load. Nothing of it is visible before it is applied, and what is left of it
    /// after a crash is removed.
    fn begin_load(self: Arc<Self>) -> Result<Box<dyn EngineLoad>>;

    /// Applies a load, whose record has `content` and the numbers from `first` to `last` (E1): all
    /// of its entries are put. As for [`Engine::apply`], nothing is visible before it is published.
    fn apply_load(&self, content: &[u8], first: SeqNo, last: SeqNo) -> Result<()>;

    /// Recovery has succeeded: all that the log has is applied. What opening has found and nothing
    /// needs can go now, what was written for a load that the log does not have among it. Not
    /// called in a read-only store.
    fn recovered(&self) -> Result<()> {
        Ok(())
    }

    /// Everything up to here is durable in the engine's own files (E2).
    fn persisted_seq(&self) -> SeqNo;

    /// The first applied operation that is not durable in the engine's own
    /// files; `None` if there is none, so an idle keyspace pins no log.
    fn oldest_unpersisted(&self) -> Option<SeqNo>;

    /// Calls `read` with the value of `key` and returns true, or returns false.
    /// `read` is called at most once.
    fn get(&self, key: &[u8], read: &mut dyn FnMut(&[u8])) -> Result<bool>;

    /// The value of `key`.
    fn get_value(&self, key: &[u8]) -> Result<Option<Value>> {
        cursor::copied(|read| self.get(key, read), Value::copy_from)
    }

    /// True if `key` has a value. Does not read a value that is stored apart from its key.
    fn contains(&self, key: &[u8]) -> Result<bool> {
        self.get(key, &mut |_| ())
    }

    /// `part` of the value of `key`, as far as the value has it.
    fn get_part(&self, key: &[u8], part: Range<usize>) -> Result<Option<Value>> {
        cursor::copied(
            |read| self.get(key, read),
            |bytes| Value::copy_part(bytes, &part),
        )
    }

    /// The value of `key`, to be read by and by.
    fn open_value(&self, key: &[u8]) -> Result<Option<OpenValue>> {
        Ok(self.get_value(key)?.map(OpenValue::Whole))
    }

    /// The values of `keys`, in their order. All from one moment.
    fn multi_get(&self, keys: &[&[u8]]) -> Result<Vec<Option<Value>>>;

    /// An immutable view of everything published, for a scan.
    fn view(&self) -> Result<Arc<dyn ReadView>>;

    /// An immutable view at `seq`, which is published and registered with [`SnapshotTracker`]; the
    /// registration ends after the view is dropped. `None` if the engine has gone beyond `seq`
    /// since, which it cannot have as long as no commit was published. Where it was registered as
    /// one that [takes views late](SnapshotTracker::register_late), an engine that gives `None` has
    /// [handed a view over](SnapshotTracker::hand_over) before.
    /// Must not wait for I/O, nor for a large batch that is being applied.
    fn snapshot_view(&self, seq: SeqNo) -> Option<Arc<dyn ReadView>>;

    /// The load that was applied last is published. What an engine keeps so that reads see the time
    /// before can go.
    fn published(&self) {}

    /// Makes everything applied so far durable in the engine's own files. Runs on the
    /// calling thread; background work for the same thing waits or is waited for.
    fn flush(&self) -> Result<()>;

    /// The most urgent background work that is due, if any.
    fn work_due(&self) -> Option<Work>;

    /// Options of the keyspace have changed, which may make work due.
    fn options_changed(&self) {}

    /// Does one unit of background work of that kind, if due; returns whether there was
    /// anything to do. Safe to call from several threads.
    fn run_once(&self, work: Work) -> Result<bool>;

    /// Asked where work of that kind has failed, after [`Engine::run_once`] has returned `worked`.
    /// True unless what failed has been done since, or is certain to be wanted no more: it may wait
    /// for a better moment, be left out for a while, or be what another thread is at.
    fn still_owes(&self, work: Work, worked: bool) -> bool {
        let _ = (work, worked);
        false
    }

    /// Brings the files into their best shape: everything flushed, an LSM compacted
    /// to its bottom level, a B-tree's free pages given back to the file system.
    fn compact(&self) -> Result<()>;

    /// How far background work is behind. Cheap: called for every commit.
    fn pressure(&self) -> Pressure;

    /// What the engine's files refer to among values that are stored apart.
    fn value_usage(&self) -> Arc<ValueUsage> {
        Arc::default()
    }

    /// True if a reference of `len_bytes` is kept in the place of the value of `key`, as the caller
    /// of [`Engine::apply`] asks. If not, the value is kept, which that must have then.
    fn keeps_reference(&self, key: &[u8], len_bytes: usize) -> bool {
        let _ = (key, len_bytes);
        true
    }

    /// The reference that `key` has, if its value is stored apart.
    fn value_ref(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let _ = key;
        Ok(None)
    }

    /// Brings figures up to date that only a look at the files gives. The caller is inside the
    /// gate: behind it the files may be those of a store that was opened after this one.
    fn refresh_stats(&self) {}

    /// Figures about the engine, now. Reads no file.
    fn stats(&self) -> EngineStats;

    /// What is inside: memory, files and what they are made of. Takes no lock over I/O and pins
    /// nothing for long, but may wait for a flush or a checkpoint that is running. Damage is a
    /// figure of the part that has it; an `Err` is I/O trouble.
    fn inspect(&self, detail: InspectDetail) -> Result<Vec<Inspection>>;

    /// Reads everything that is in the engine's files once more, from storage and past maps and
    /// caches, and checks it: what has changed since it was written shows. `pace` is told of the
    /// bytes of each piece that was read, while nothing is held that others need, and may take its
    /// time; an error of it ends the call. What cannot be read is reported like damage.
    fn scrub(&self, pace: &mut dyn FnMut(u64) -> Result<()>) -> Result<VerifyReport>;

    /// Checks every structural invariant of what is on disk and in memory, reading
    /// everything. An `Err` is I/O trouble; damage is reported in the list.
    fn verify(&self) -> Result<VerifyReport>;
}
