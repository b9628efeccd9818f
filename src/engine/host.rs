//! What an engine is given, and what it may ask of its host.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use super::snapshot_tracker::SnapshotTracker;
use crate::cache::BlockCache;
use crate::error::Result;
use crate::fs::{Fs, OpenFiles};
use crate::options::KeyspaceSettings;
use crate::resolve::Resolver;
use crate::types::{KeyspaceId, SeqNo};
use crate::util::mutants::mutated;
use crate::values::ValueFiles;

/// What an engine is given when it is opened.
#[derive(Debug, Clone)]
pub(crate) struct EngineContext {
    /// The file system.
    pub(crate) fs: Arc<dyn Fs>,
    /// Which files of the store's trees are open.
    pub(crate) open_files: Arc<OpenFiles>,
    /// The keyspace's own directory; nothing else writes to it. It may not be there before the
    /// first file is made, which is when the engine has something to persist: a keyspace that
    /// nothing was written to has no files.
    pub(crate) dir: PathBuf,
    /// Makes `dir`, and keeps the files in it, also when the keyspace is dropped: an engine that
    /// opens files when it needs them lends it to its views.
    pub(crate) keep: Arc<dyn Keep>,
    /// Random number of the store; seeds every checksum, so that files of
    /// another store are told apart.
    pub(crate) store_id: u64,
    /// Number of the keyspace; seeds every checksum too.
    pub(crate) keyspace: KeyspaceId,
    /// What is published, and which snapshots live.
    pub(crate) snapshot_tracker: Arc<SnapshotTracker>,
    /// Where the values are that are stored apart from their keys.
    pub(crate) values: Arc<ValueFiles>,
    /// The store's one cache of blocks and pages.
    pub(crate) cache: Arc<BlockCache>,
    /// How the keyspace was configured.
    pub(crate) options: Arc<KeyspaceSettings>,
    /// What values may do besides being there.
    pub(crate) resolver: Arc<Resolver>,
    /// Use memory maps for reading where the file system has them.
    pub(crate) use_mmap: bool,
    /// No file may be created, changed or removed; `apply` still works, in memory.
    pub(crate) read_only: bool,
    /// What the keyspace must have persisted: the log may lack operations up to here. An engine
    /// that finds less in its files has lost something, and says so before it changes anything. If
    /// it is zero, the log has everything, and having no files is as good as having empty ones.
    pub(crate) persisted_watermark: SeqNo,
    /// What the engine may ask of the store.
    pub(crate) host: Arc<dyn EngineHost>,
}

impl EngineContext {
    /// True if the keyspace may have no files: then it persisted nothing that the log lacks.
    pub(crate) fn may_lack_files(&self) -> bool {
        self.persisted_watermark == SeqNo::ZERO || mutated!("missing-files-taken-for-none")
    }
}

/// What keeps files as long as it is there.
pub(crate) trait Keep: fmt::Debug + Send + Sync {
    /// Makes the directory of the files, durably and empty. An engine that has persisted nothing
    /// calls it before it makes its first file; cheap when that is repeated.
    fn make_dir(&self) -> Result<()>;
}

/// What an engine may ask of the store.
pub(crate) trait EngineHost: fmt::Debug + Send + Sync {
    /// Returns once every operation up to `seq` would survive a power loss (E3).
    fn make_durable(&self, seq: SeqNo) -> Result<()>;

    /// [`Error::Closed`](crate::Error::Closed) once the store is being closed. Long work that may
    /// be given up, such as a compaction, asks before each block, and is given up then.
    fn check_running(&self) -> Result<()>;

    /// Background work has become due. Must be cheap: it is called on the
    /// write path.
    fn wake(&self);

    /// `persisted_seq` has risen or pressure has fallen: log segments may be
    /// deleted and waiting writers may go on.
    fn progressed(&self);
}
