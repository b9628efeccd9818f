//! The contract that both engines keep, and nothing more.
//!
//! An engine is an ordered map that is fed operations in commit order and
//! persists them in its own time. It never sees the log: the front sequences a
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
//!   [`EngineContext::make_durable`]`(s)`. Otherwise a power loss could keep an
//!   operation here and lose an earlier one, of another keyspace, from the log.
//! - **E4 visibility.** A read sees all operations up to some published sequence
//!   number, and none above it. Reads without a snapshot see at least everything that was
//!   published when they began.
//! - **E5 no waiting.** Taking a view or reading from memory never waits for I/O
//!   done by another thread.
//! - **E6 apply needs no disk** in the usual case: [`Engine::prepare`] runs first,
//!   outside every lock, and brings in what `apply` will touch. An error from
//!   `apply` is fatal to writing: the front turns the store read-only.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::cache::BlockCache;
use crate::error::Result;
use crate::fs::Fs;
use crate::key::is_from;
use crate::kv::Value;
use crate::options::{KeyspaceOptions, MemtableKind};
use crate::types::{KeyspaceId, SeqNo};
use crate::visibility::Visibility;

/// One operation, borrowed from a batch or a log record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op<'a> {
    /// Sets `key` to `value`.
    Put { key: &'a [u8], value: &'a [u8] },
    /// Removes `key`.
    Delete { key: &'a [u8] },
    /// Removes every key in `[start, end)`, or from `start` on. May be empty.
    DeleteRange {
        start: &'a [u8],
        end: Option<&'a [u8]>,
    },
}

/// An operation and its place in commit order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SequencedOp<'a> {
    pub(crate) seq: SeqNo,
    pub(crate) op: Op<'a>,
}

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

/// An ordered map that persists a prefix of the operations it is given.
pub(crate) trait Engine: fmt::Debug + Send + Sync {
    /// Brings into memory what applying `ops` will touch, and reports damage or I/O
    /// errors while nothing has been logged yet. Called without locks, by any
    /// thread, concurrently with everything.
    fn prepare(&self, ops: &[SequencedOp<'_>]) -> Result<()>;

    /// Applies the operations of one batch (E1). Not visible to reads until the
    /// front publishes the batch's last sequence number (E4).
    fn apply(&self, ops: &[SequencedOp<'_>]) -> Result<()>;

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
        let mut value = None;
        self.get(key, &mut |bytes| value = Some(Value::copy_from(bytes)))?;
        Ok(value)
    }

    /// The values of `keys`, in their order. All from one moment.
    fn multi_get(&self, keys: &[&[u8]]) -> Result<Vec<Option<Value>>>;

    /// An immutable view of everything published, for a scan.
    fn view(&self) -> Result<Arc<dyn ReadView>>;

    /// An immutable view at `seq`, which is the sequence number published at
    /// this moment. Called while no `apply` runs and after `seq` was registered
    /// with [`Visibility`]; the registration ends after the view is dropped.
    /// Must not wait for I/O.
    fn snapshot_view(&self, seq: SeqNo) -> Arc<dyn ReadView>;

    /// Makes everything applied so far durable in the engine's own files. Runs on the
    /// calling thread; background work for the same thing waits or is waited for.
    fn flush(&self) -> Result<()>;

    /// The most urgent background work that is due, if any.
    fn work_due(&self) -> Option<Work>;

    /// Does one unit of background work of that kind, if due; returns whether there was
    /// anything to do. Safe to call from several threads.
    fn run_once(&self, work: Work) -> Result<bool>;

    /// Brings the files into their best shape: everything flushed, an LSM compacted
    /// to its bottom level, a B-tree's free pages given back to the file system.
    fn compact(&self) -> Result<()>;

    /// How far background work is behind. Cheap: called for every commit.
    fn pressure(&self) -> Pressure;

    /// Figures about the engine, now.
    fn stats(&self) -> EngineStats;

    /// Checks every structural invariant of what is on disk and in memory, reading
    /// everything. An `Err` is I/O trouble; damage is reported in the list.
    fn verify(&self) -> Result<VerifyReport>;
}

/// An immutable view of one keyspace. Holding one keeps the files it needs.
pub(crate) trait ReadView: fmt::Debug + Send + Sync {
    /// As [`Engine::get`].
    fn get(&self, key: &[u8], read: &mut dyn FnMut(&[u8])) -> Result<bool>;

    /// As [`Engine::get_value`].
    fn get_value(&self, key: &[u8]) -> Result<Option<Value>> {
        let mut value = None;
        self.get(key, &mut |bytes| value = Some(Value::copy_from(bytes)))?;
        Ok(value)
    }

    /// A cursor over the view, positioned nowhere.
    fn cursor(self: Arc<Self>) -> Box<dyn Cursor>;
}

/// A position in a [`ReadView`].
///
/// A cursor stands on an entry or nowhere ([`Cursor::is_valid`]). After an
/// error it stands nowhere. `next` and `prev` may be mixed freely, and are only
/// called on a valid cursor.
pub(crate) trait Cursor: Send {
    /// Goes to the first entry.
    fn seek_first(&mut self) -> Result<()>;
    /// Goes to the last entry.
    fn seek_last(&mut self) -> Result<()>;
    /// Goes to the first entry whose key is `>= key`.
    fn seek(&mut self, key: &[u8]) -> Result<()>;
    /// Goes to the last entry whose key is `< key`.
    fn seek_before(&mut self, key: &[u8]) -> Result<()>;
    /// Goes to the next entry in key order.
    fn next(&mut self) -> Result<()>;
    /// Goes to the previous entry in key order.
    fn prev(&mut self) -> Result<()>;
    /// True if the cursor stands on an entry.
    fn is_valid(&self) -> bool;
    /// The key of the entry. Only on a valid cursor.
    fn key(&self) -> &[u8];
    /// The key and the value of the entry. Only on a valid cursor. May read: a large
    /// value is loaded when it is asked for.
    fn entry(&mut self) -> Result<Entry<'_>>;

    /// Goes to the next entry and lends it; `None` if there is none, or if its key is not below
    /// `end`. All that a step of a scan takes, in one call.
    fn next_below(&mut self, end: Option<&[u8]>) -> Result<Option<Entry<'_>>> {
        self.next()?;
        if !self.is_valid() || end.is_some_and(|end| self.key() >= end) {
            return Ok(None);
        }
        self.entry().map(Some)
    }

    /// Goes to the previous entry and lends it; `None` if there is none, or if its key is below `start`.
    fn prev_from(&mut self, start: &[u8]) -> Result<Option<Entry<'_>>> {
        self.prev()?;
        if !self.is_valid() || !is_from(self.key(), start) {
            return Ok(None);
        }
        self.entry().map(Some)
    }
}

/// A key and its value, lent.
pub(crate) type Entry<'a> = (&'a [u8], &'a [u8]);

/// What an engine is given when it is opened.
#[derive(Debug, Clone)]
pub(crate) struct EngineContext {
    /// The file system.
    pub(crate) fs: Arc<dyn Fs>,
    /// The keyspace's own directory. It exists, and nobody else writes to it.
    pub(crate) dir: PathBuf,
    /// Random number of the store; seeds every checksum, so that files of
    /// another store are told apart.
    pub(crate) store_id: u64,
    /// Number of the keyspace; seeds every checksum too.
    pub(crate) keyspace: KeyspaceId,
    /// What is published, and which snapshots live.
    pub(crate) visibility: Arc<Visibility>,
    /// The store's one cache of blocks and pages.
    pub(crate) cache: Arc<BlockCache>,
    /// How the keyspace was configured.
    pub(crate) options: KeyspaceOptions,
    /// Index of an LSM's memtables.
    pub(crate) memtable: MemtableKind,
    /// Use memory maps for reading where the file system has them.
    pub(crate) use_mmap: bool,
    /// No file may be created, changed or removed; `apply` still works, in memory.
    pub(crate) read_only: bool,
    /// What the keyspace must have persisted: the log may lack operations up to here. An engine that finds less
    /// in its files has lost something, and says so before it changes anything.
    pub(crate) floor: SeqNo,
    /// What the engine may ask of the front.
    pub(crate) front: Arc<dyn Front>,
}

/// What an engine may ask of the front.
pub(crate) trait Front: fmt::Debug + Send + Sync {
    /// Returns once every operation up to `seq` would survive a power loss (E3).
    fn make_durable(&self, seq: SeqNo) -> Result<()>;

    /// Background work has become due. Must be cheap: it is called on the
    /// write path.
    fn wake(&self);

    /// `persisted_seq` has risen or pressure has fallen: log segments may be
    /// let go and waiting writers may go on.
    fn progressed(&self);
}

/// Figures about one keyspace.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct EngineStats {
    /// Bytes of the keyspace's files.
    pub disk_bytes: u64,
    /// Bytes of file space that holds nothing and will be reused.
    pub free_bytes: u64,
    /// Bytes of memory in memtables or dirty pages.
    pub write_buffer_bytes: u64,
    /// Bytes of memory pinned by indexes, filters and inner pages.
    pub pinned_bytes: u64,
    /// Approximate number of entries; exact after `compact`.
    pub entries_estimate: u64,
    /// Number of files.
    pub files: u64,
    /// Bytes written by flushes or checkpoints since open.
    pub flush_bytes_written: u64,
    /// Bytes written by compactions since open.
    pub compaction_bytes_written: u64,
    /// Flushes or checkpoints done since open.
    pub flushes: u64,
    /// Compactions done since open.
    pub compactions: u64,
    /// Blocks or pages read by lookups and scans since open, from map, cache or file.
    pub blocks_read: u64,
    /// LSM: tables per level, from level 0. B-tree: pages per level, from the root;
    /// empty while unknown.
    pub levels: Vec<LevelStats>,
    /// B-tree: height of the tree in pages; 0 for an LSM.
    pub height: u32,
}

/// Figures about one level of an LSM tree or a B-tree.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LevelStats {
    /// Tables or pages.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// What a verification saw.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifyReport {
    /// Files read.
    pub files: u64,
    /// Blocks or pages whose checksum and structure were checked.
    pub blocks: u64,
    /// Entries seen.
    pub entries: u64,
    /// What is wrong, one line each, with file and offset; empty if all is well.
    pub problems: Vec<String>,
}

impl VerifyReport {
    /// True if nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.problems.is_empty()
    }

    /// Adds the figures and problems of another report.
    pub fn merge(&mut self, other: Self) {
        self.files += other.files;
        self.blocks += other.blocks;
        self.entries += other.entries;
        self.problems.extend(other.problems);
    }
}
