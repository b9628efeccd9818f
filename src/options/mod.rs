//! How a store and its keyspaces are configured.

mod compression;
mod keyspace;
mod setters;
mod trace;

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::fs::{Fs, StdFs};
use crate::resolve::{Clock, CompactionFilter, MergeOperator, READY, SystemClock};
use setters::setters;

pub use compression::Compression;
pub(crate) use compression::ZSTD_FEATURE;
pub use keyspace::KeyspaceOptions;
pub(crate) use keyspace::KeyspaceSettings;
pub use trace::{KeyMode, Recording, Sampling, TraceOptions, ValueMode};

/// Which engine stores a keyspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EngineKind {
    /// A log-structured merge tree: cheap writes, compression, small on disk;
    /// reads merge several sorted runs.
    Lsm,
    /// A page-oriented B+tree: one place per key, fast reads and scans, even latency;
    /// writes rewrite whole pages.
    BTree,
}

impl EngineKind {
    /// Both engines.
    pub const ALL: [Self; 2] = [Self::Lsm, Self::BTree];

    /// `"lsm"` or `"btree"`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Lsm => "lsm",
            Self::BTree => "btree",
        }
    }
}

impl fmt::Display for EngineKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for EngineKind {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "lsm" => Ok(Self::Lsm),
            "btree" => Ok(Self::BTree),
            _ => Err(Error::invalid(format!(
                "unknown engine {name:?}: use lsm or btree"
            ))),
        }
    }
}

/// What a commit survives once it has returned.
///
/// After any crash the store holds a prefix of commit order, whatever the mix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Durability {
    /// Power loss. The commit returns after the log reached the device;
    /// concurrent commits share one flush.
    #[default]
    Sync,
    /// The end of the process, in any way. The operating system holds the bytes; a
    /// background sync bounds what a power loss can take
    /// ([`Options::background_sync_ms`]).
    ///
    /// Commits become visible in their order over all keyspaces, so a commit that comes behind one
    /// that is `Sync` returns when that one is durable.
    Buffered,
}

/// The ordered index of an LSM keyspace's memtables; see
/// [`KeyspaceOptions::memtable`](KeyspaceOptions#structfield.memtable). Only memory is concerned:
/// files do not depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum MemtableKind {
    /// A B+tree in an arena, with the heads of keys beside each other: the faster one.
    #[default]
    BTree,
    /// crossbeam's lock-free skip list, as it is given.
    SkipList,
}

/// Defines the numbers that stand for the variants of an enum in files.
macro_rules! codes {
    ($type:ident { $($variant:ident = $code:literal),* $(,)? }) => {
        impl $type {
            /// The number in files.
            pub(crate) const fn code(self) -> u8 {
                match self { $(Self::$variant => $code,)* }
            }

            /// The variant of that number.
            pub(crate) const fn from_code(code: u8) -> Option<Self> {
                match code { $($code => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

codes!(EngineKind { Lsm = 0, BTree = 1 });
codes!(MemtableKind { BTree = 0, SkipList = 1 });

/// How a store is opened. `Options::default()` suits a machine with a few GiB of
/// memory; every field may be changed from one open to the next.
///
/// ```
/// use std::sync::Arc;
/// use std::time::Duration;
/// use hedgerow::fs::SimFs;
/// use hedgerow::{Durability, Options};
///
/// let db = Options::new()
///     .create_if_missing(true)
///     .read_only(false)
///     .durability(Durability::Buffered)
///     .background_sync_ms(500)
///     .cache_bytes(64 << 20)
///     .max_open_files(64)
///     .write_buffer_bytes(16 << 20)
///     .log_segment_bytes(16 << 20)
///     .log_limit_bytes(64 << 20)
///     .value_space_amplification(1.5)
///     .mmap_reads(false)
///     .mmap_log(false)
///     .background_threads(1)
///     .scrub_period(Some(Duration::from_secs(7 * 24 * 3600)))
///     .fs(Arc::new(SimFs::new())) // in memory
///     .open("/store")?;
/// # db.close()?;
/// # Ok::<(), hedgerow::Error>(())
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Options {
    /// Create the store if the directory does not hold one. Default: true.
    pub create_if_missing: bool,
    /// Open without changing any file. Several processes may have a store
    /// open read-only while none has it open for writing. Default: false.
    pub read_only: bool,
    /// Durability of commits that do not name one. Default: [`Durability::Sync`].
    pub durability: Durability,
    /// How often, in milliseconds, buffered commits are synced in the background; 0 for never.
    /// Without background threads, by [`Db::run_background_once`](crate::Db::run_background_once)
    /// when it is called. Default: 1000.
    pub background_sync_ms: u64,
    /// Budget of the cache of blocks and pages, in bytes, for all keyspaces; at most 1 TiB.
    /// Default: 256 MiB.
    pub cache_bytes: u64,
    /// Budget of memtables and dirty pages, in bytes, for each keyspace that does not set
    /// its own; 16 KiB to 1 TiB. Writers are slowed when background work cannot keep to it, and
    /// opening a store keeps to it too, unless that is for reading only: then it takes what the
    /// log holds.
    /// Default: 64 MiB.
    pub write_buffer_bytes: u64,
    /// Size of a log segment, in bytes; 64 KiB to 1 GiB. Default: 64 MiB.
    pub log_segment_bytes: u64,
    /// When the log holds more than this, all keyspaces that need its oldest segment are
    /// flushed. Bounds recovery time. Default: 128 MiB.
    pub log_limit_bytes: u64,
    /// How many times the bytes of the values in them the files of values that are stored apart may
    /// take, besides two segments of the log; at least 1.1. When they take more, live values are
    /// written again, so that a file goes. See
    /// [`KeyspaceOptions::value_threshold_bytes`](crate::KeyspaceOptions#structfield.value_threshold_bytes).
    /// Default: 1.5.
    pub value_space_amplification: f64,
    /// Files of keyspaces that are kept open at most, for all keyspaces; 2 to 1,000,000. A mapped
    /// table or page file needs no open file. Where they are not mapped, those that were read last
    /// stay open, and to read another one takes an `open`. Besides these, each thread that reads,
    /// flushes, checkpoints or compacts has up to two files open, and the log up to ten: those of
    /// segments that wait for a sync. `flush` uses a quarter as many threads, up to 16. Default:
    /// 32.
    pub max_open_files: usize,
    /// Read tables of LSM trees and page files of B-trees through memory maps where the platform
    /// has them; a medium that cannot be read ends the process then ([`fs`](crate::fs)).
    /// Default: true.
    pub mmap_reads: bool,
    /// Append to the log through a memory map on Linux, on file systems that overwrite in place
    /// (ext4, XFS, tmpfs), and with system calls elsewhere. Default: true.
    pub mmap_log: bool,
    /// Threads for flushes, checkpoints and compactions, for all keyspaces, at most 64; 0 leaves
    /// that work, and what else is done in the background, syncs of the log among it, to calls of
    /// [`Db::run_background_once`](crate::Db::run_background_once). A writer that would have to
    /// wait for a flush or a compaction of its keyspace does that itself then.
    /// Default: 2.
    pub background_threads: usize,
    /// Read everything that lies in the files of keyspaces and of the log from storage once within
    /// this time, again and again, in a thread of its own and at an even pace, and check it; at
    /// least a second. What is damaged is named by [`DbStats::background_error`](crate::DbStats)
    /// and counted by [`DbStats::scrub`](crate::DbStats). The time counts while the store is open,
    /// for writing and with background threads. Default: `None`, for never: reading as much as the
    /// store has costs what others need of the device.
    pub scrub_period: Option<Duration>,
    /// Where to record a trace of all operations, and how. Default: nowhere.
    pub recording: Option<Recording>,
    /// The file system. Default: [`StdFs`].
    pub fs: Arc<dyn Fs>,
    /// How often background work sweeps a B-tree keyspace whose values may expire, or that has a
    /// filter, and an LSM keyspace that has a filter and a merge operator: it walks through all
    /// entries, a thousand at a time, and deletes what is to go. While nothing is written to the
    /// store it waits until an eighth of the values that it saw has expired, else for ten such
    /// periods at most. 10 ms to a year. Any other LSM tree drops what is to go when it compacts,
    /// and rewrites tables of which half has expired. Default: a minute.
    pub sweep_period: Duration,
    /// Set by [`Options::clock`].
    pub(crate) clock: Arc<dyn Clock>,
    /// Set by [`Options::merge_operator`].
    pub(crate) merge_operators: Vec<Arc<dyn MergeOperator>>,
    /// Set by [`Options::compaction_filter`].
    pub(crate) compaction_filters: Vec<Arc<dyn CompactionFilter>>,
    /// A batch of so many operations that can be staged becomes visible before engines have it.
    pub(crate) large_batch_ops: usize,
}

#[cold]
fn not_registered(keyspace: &str, what: &str, name: &str) -> Error {
    Error::invalid(format!(
        "keyspace {keyspace:?} has the {what} {name:?}, which is not registered with the options"
    ))
}

/// To apply so many operations takes tens of milliseconds.
const LARGE_BATCH_OPS: usize = 16 << 10;

impl Default for Options {
    fn default() -> Self {
        Self {
            create_if_missing: true,
            read_only: false,
            durability: Durability::Sync,
            background_sync_ms: 1000,
            cache_bytes: 256 << 20,
            write_buffer_bytes: 64 << 20,
            log_segment_bytes: 64 << 20,
            log_limit_bytes: 128 << 20,
            value_space_amplification: 1.5,
            max_open_files: 32,
            mmap_reads: true,
            mmap_log: true,
            background_threads: 2,
            scrub_period: None,
            recording: None,
            fs: Arc::new(StdFs::new()),
            sweep_period: Duration::from_secs(60),
            clock: Arc::new(SystemClock),
            merge_operators: READY.iter().map(|make| make()).collect(),
            compaction_filters: Vec::new(),
            large_batch_ops: LARGE_BATCH_OPS,
        }
    }
}

impl Options {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    setters! {
        /// Sets [`Options::create_if_missing`](#structfield.create_if_missing).
        create_if_missing: bool,
        /// Sets [`Options::read_only`](#structfield.read_only).
        read_only: bool,
        /// Sets [`Options::durability`](#structfield.durability).
        durability: Durability,
        /// Sets [`Options::background_sync_ms`](#structfield.background_sync_ms).
        background_sync_ms: u64,
        /// Sets [`Options::cache_bytes`](#structfield.cache_bytes).
        cache_bytes: u64,
        /// Sets [`Options::write_buffer_bytes`](#structfield.write_buffer_bytes).
        write_buffer_bytes: u64,
        /// Sets [`Options::log_segment_bytes`](#structfield.log_segment_bytes).
        log_segment_bytes: u64,
        /// Sets [`Options::log_limit_bytes`](#structfield.log_limit_bytes).
        log_limit_bytes: u64,
        /// Sets [`Options::value_space_amplification`](#structfield.value_space_amplification).
        value_space_amplification: f64,
        /// Sets [`Options::max_open_files`](#structfield.max_open_files).
        max_open_files: usize,
        /// Sets [`Options::mmap_reads`](#structfield.mmap_reads).
        mmap_reads: bool,
        /// Sets [`Options::mmap_log`](#structfield.mmap_log).
        mmap_log: bool,
        /// Sets [`Options::background_threads`](#structfield.background_threads).
        background_threads: usize,
        /// Sets [`Options::scrub_period`](#structfield.scrub_period).
        scrub_period: Option<Duration>,
        /// Sets [`Options::fs`](#structfield.fs).
        fs: Arc<dyn Fs>,
        /// Sets [`Options::sweep_period`](#structfield.sweep_period).
        sweep_period: Duration,
    }

    /// Sets the clock by which values expire. Default: [`SystemClock`].
    #[must_use]
    pub fn clock(mut self, clock: impl Clock + 'static) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Registers an operator that keyspaces may be made with
    /// ([`KeyspaceOptions::merge_operator`](KeyspaceOptions#structfield.merge_operator)), in the
    /// place of one of the same name.
    #[must_use]
    pub fn merge_operator(mut self, operator: impl MergeOperator + 'static) -> Self {
        let operators = &mut self.merge_operators;
        operators.retain(|other| other.name() != operator.name());
        operators.push(Arc::new(operator));
        self
    }

    /// Registers a filter that keyspaces may have
    /// ([`KeyspaceOptions::compaction_filter`](KeyspaceOptions#structfield.compaction_filter)), in
    /// the place of one of the same name.
    #[must_use]
    pub fn compaction_filter(mut self, filter: impl CompactionFilter + 'static) -> Self {
        let filters = &mut self.compaction_filters;
        filters.retain(|other| other.name() != filter.name());
        filters.push(Arc::new(filter));
        self
    }

    /// The operator that `keyspace` names, if it names one; an error if it is not registered.
    pub(crate) fn operator_of(
        &self,
        keyspace: &str,
        name: Option<&str>,
    ) -> Result<Option<Arc<dyn MergeOperator>>> {
        let Some(name) = name else {
            return Ok(None);
        };
        let mut all = self.merge_operators.iter();
        match all.find(|operator| operator.name() == name) {
            Some(operator) => Ok(Some(Arc::clone(operator))),
            None => Err(not_registered(keyspace, "merge operator", name)),
        }
    }

    /// The same of the filter.
    pub(crate) fn filter_of(
        &self,
        keyspace: &str,
        name: Option<&str>,
    ) -> Result<Option<Arc<dyn CompactionFilter>>> {
        let name = name.unwrap_or_default();
        if name.is_empty() {
            return Ok(None);
        }
        let mut all = self.compaction_filters.iter();
        match all.find(|filter| filter.name() == name) {
            Some(filter) => Ok(Some(Arc::clone(filter))),
            None => Err(not_registered(keyspace, "compaction filter", name)),
        }
    }

    /// Records every operation on the store, from opening to closing, to the file `path`, which
    /// must not exist yet and must not lie in the directory of the store. See
    /// [`trace`](crate::trace).
    #[must_use]
    pub fn record_to(mut self, path: impl Into<PathBuf>, options: TraceOptions) -> Self {
        self.recording = Some(Recording {
            path: path.into(),
            options,
        });
        self
    }

    /// Refuses impossible values.
    pub(crate) fn check(&self) -> Result<()> {
        if let Some(recording) = &self.recording {
            recording.options.check()?;
        }
        if !(64 << 10..=1 << 30).contains(&self.log_segment_bytes) {
            return Err(Error::invalid("log_segment_bytes must be 64 KiB to 1 GiB"));
        }
        if !(16 << 10..=1 << 40).contains(&self.write_buffer_bytes) {
            return Err(Error::invalid("write_buffer_bytes must be 16 KiB to 1 TiB"));
        }
        if !(1.1..=1e6).contains(&self.value_space_amplification) {
            return Err(Error::invalid(
                "value_space_amplification must be 1.1 to 1,000,000",
            ));
        }
        if self.cache_bytes > 1 << 40 {
            return Err(Error::invalid("cache_bytes must be at most 1 TiB"));
        }
        if !(2..=1_000_000).contains(&self.max_open_files) {
            return Err(Error::invalid("max_open_files must be 2 to 1,000,000"));
        }
        if self
            .scrub_period
            .is_some_and(|period| period < Duration::from_secs(1))
        {
            return Err(Error::invalid("scrub_period must be at least a second"));
        }
        if !(Duration::from_millis(10)..=Duration::from_secs(366 * 24 * 3600))
            .contains(&self.sweep_period)
        {
            return Err(Error::invalid("sweep_period must be 10 ms to a year"));
        }
        if self.background_threads > 64 {
            return Err(Error::invalid("background_threads must be at most 64"));
        }
        Ok(())
    }
}
