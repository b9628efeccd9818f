//! The tree as a whole: what readers share, and beside it the writer, the views and the
//! checkpoints.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};

use super::checkpoint::checkpointer::Checkpointer;
use super::compact::compactor::Compactor;
use super::file::pager::Pager;
use super::read::held_files::HeldFiles;
use super::read::shared::{SharedParts, SharedTree};
use super::read::view::View;
use super::read::view_cache::ViewCache;
use super::write::finger::Fingers;
use super::write::state::WriterState;
use crate::engine::{EngineHost, ReadView, SnapshotTracker, ValueUsage};
use crate::options::KeyspaceSettings;
use crate::resolve::Resolver;
use crate::types::{KeyspaceId, SeqNo};
use crate::util::mutants::mutated;
use crate::util::sharded::shard_of_thread;

/// A B-tree: nodes in memory over a file.
///
/// # Thread safety
///
/// - Constant: `shared` (which looks after itself), `host`, `settings`, `read_only`, `keyspace`.
/// - `writer`: held by `apply`, and for moments to freeze the tree or to publish a checkpoint.
///   Never held over I/O, but for pages that `prepare` read before and that memory has lost since.
/// - `checkpointer`: held for a whole checkpoint, over I/O; never waited for by reads or `apply`.
///   Locked before `writer`.
/// - `compactor`: held for a compaction, or a unit of one in the background. Locked before
///   `checkpointer`.
/// - `before_batch`: locked for moments, after `writer` or alone.
/// - `view_cache`, `fingers`: their shards are locked for moments, after `writer` or alone; a
///   finger also by `prepare`, over I/O, which nothing waits for.
/// - Counters are atomics; each says where it is stored.
pub(super) struct Tree {
    /// What views share. They hold nothing of the rest, so the tree may hold views.
    pub(super) shared: Arc<SharedTree>,
    pub(super) host: Arc<dyn EngineHost>,
    /// Size that memory for changes should not exceed.
    pub(super) settings: Arc<KeyspaceSettings>,
    pub(super) read_only: bool,
    keyspace: KeyspaceId,

    pub(super) writer: Mutex<WriterState>,
    pub(super) fingers: Fingers,
    view_cache: ViewCache,
    /// The tree before a large batch that is not published, for reads that cannot wait for it.
    before_batch: Mutex<Option<BeforeBatch>>,
    /// There is one.
    has_before_batch: AtomicBool,
    pub(super) checkpointer: Mutex<Checkpointer>,
    pub(super) compactor: Mutex<Compactor>,

    /// Link to the root of the file's tree; stored with `writer` held.
    pub(super) disk_root: AtomicU64,
    /// Last operation of the file's tree; stored with `writer` held.
    pub(super) persisted_seq: AtomicU64,
    /// A bulk load is in the tree and not in the file's; stored with `writer` held.
    pub(super) has_load: AtomicBool,
    /// The thread that finishes a bulk load has the free space locked, and attaches its pages.
    pub(super) is_finishing_load: AtomicBool,
    /// First operation that is not in the file's tree, 0 for none; stored with `writer` held.
    pub(super) oldest_unpersisted: AtomicU64,
    /// Bytes of the nodes in memory that the next checkpoint writes; stored with `writer` held.
    pub(super) dirty_bytes: AtomicU64,
    /// Of the file's tree; stored with `checkpointer` held.
    pub(super) value_usage: Mutex<Arc<ValueUsage>>,
    pub(super) counters: Counters,
    /// The host was woken for a checkpoint, which has not been done since, nor found not to be due.
    pub(super) announced: AtomicBool,
}

/// The tree before a large batch. There is none for a smaller one: the first change after a freeze
/// copies the nodes on its way, which costs the batch more than it is worth to reads.
struct BeforeBatch {
    view: Arc<View>,
    /// From when this operation is published on, the view is an old one.
    until: Option<SeqNo>,
}

/// How long a thread waits for the writer's mutex before it looks once more whether a large batch
/// is being applied.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(1);

/// Figures since open.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) checkpoint_bytes: AtomicU64,
    pub(super) checkpoints: AtomicU64,
    pub(super) compaction_bytes: AtomicU64,
    pub(super) compactions: AtomicU64,
    pub(super) entries: AtomicU64,
    pub(super) free_units: AtomicU64,
    /// Units of nodes in the file's tree.
    pub(super) used_units: AtomicU64,
    /// Leaves that checkpoints have written less than a quarter full since the last compaction.
    pub(super) sparse_leaves: AtomicU64,
    pub(super) height: AtomicU64,
}

impl fmt::Debug for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tree")
            .field("shared", &self.shared)
            .finish_non_exhaustive()
    }
}

/// Everything that opening a file finds out.
pub(super) struct TreeParts {
    pub(super) pager: Pager,
    pub(super) held_files: HeldFiles,
    pub(super) snapshot_tracker: Arc<SnapshotTracker>,
    pub(super) host: Arc<dyn EngineHost>,
    pub(super) settings: Arc<KeyspaceSettings>,
    pub(super) resolver: Arc<Resolver>,
    pub(super) read_only: bool,
    pub(super) keyspace: KeyspaceId,
    pub(super) checkpointer: Checkpointer,
}

impl Tree {
    pub(super) fn new(parts: TreeParts) -> Self {
        let meta = parts.checkpointer.meta().clone();
        let counters = Counters::default();
        counters.entries.store(meta.entries, Ordering::Relaxed);
        counters
            .height
            .store(u64::from(meta.height), Ordering::Relaxed);
        counters
            .free_units
            .store(parts.checkpointer.free_units(), Ordering::Relaxed);
        counters
            .used_units
            .store(parts.checkpointer.node_units(), Ordering::Relaxed);
        let shared = SharedTree::new(SharedParts {
            pager: parts.pager,
            held_files: parts.held_files,
            settings: Arc::clone(&parts.settings),
            resolver: parts.resolver,
            snapshot_tracker: parts.snapshot_tracker,
            host: Arc::clone(&parts.host),
            meta: &meta,
        });
        shared.count_leaves(parts.checkpointer.node_units());
        Self {
            shared: Arc::new(shared),
            host: parts.host,
            settings: parts.settings,
            read_only: parts.read_only,
            keyspace: parts.keyspace,
            writer: Mutex::new(WriterState::new(meta.persisted_seq)),
            value_usage: Mutex::new(Arc::new(parts.checkpointer.value_usage())),
            fingers: Fingers::default(),
            view_cache: ViewCache::default(),
            before_batch: Mutex::default(),
            has_before_batch: AtomicBool::new(false),
            checkpointer: Mutex::new(parts.checkpointer),
            compactor: Mutex::default(),
            disk_root: AtomicU64::new(meta.root.bits()),
            persisted_seq: AtomicU64::new(meta.persisted_seq.0),
            has_load: AtomicBool::new(false),
            is_finishing_load: AtomicBool::new(false),
            oldest_unpersisted: AtomicU64::new(0),
            dirty_bytes: AtomicU64::new(0),
            counters,
            announced: AtomicBool::new(false),
        }
    }

    /// True when there is enough to write for a checkpoint, when scans would gain more by one than
    /// it costs, or when a bulk load is in the log only.
    pub(super) fn flush_is_due(&self) -> bool {
        self.buffer_is_full()
            || (!self.read_only
                && (self.shared.merge_cost.is_due() || self.has_load.load(Ordering::Relaxed)))
    }

    /// True when there is enough to write for a checkpoint.
    pub(super) fn buffer_is_full(&self) -> bool {
        !self.read_only
            && self.dirty_bytes.load(Ordering::Relaxed) >= self.settings.write_buffer_bytes()
    }

    /// Wakes the host if a checkpoint is due that it was not woken for.
    #[inline]
    pub(super) fn wake_if_due(&self) {
        let announced = &self.announced;
        let is_new =
            || !announced.load(Ordering::Relaxed) && !announced.swap(true, Ordering::AcqRel);
        if self.flush_is_due() && is_new() {
            self.host.wake();
        }
    }

    /// A checkpoint that became due while another ran could not begin, and may have been announced
    /// then: wakes the host if one is due.
    pub(super) fn announce_checkpoint(&self) {
        if self.flush_is_due() {
            self.host.wake();
        }
    }

    /// A checkpoint has ended, for good or ill, or was found not to be due.
    pub(super) fn checkpoint_was_done(&self) {
        self.announced.store(false, Ordering::Release);
    }

    /// The last operation applied.
    pub(super) fn applied(&self) -> SeqNo {
        self.writer.lock().applied
    }

    /// Has views show the tree as it is now, without waiting for what is about to be applied: until
    /// the operation `until` is published, or [`Tree::forget_view_before_batch`] is told that it is
    /// over.
    pub(super) fn keep_view_before(&self, writer: &mut WriterState, until: Option<SeqNo>) {
        writer.freeze();
        let view = View::of_frozen(&self.shared, writer.applied, writer.checkpointing);
        *self.before_batch.lock() = Some(BeforeBatch {
            view: Arc::new(view),
            until,
        });
        self.has_before_batch.store(true, Ordering::Release);
    }

    /// The tree before what is being applied, if it was kept.
    pub(super) fn view_before_batch(&self) -> Option<Arc<View>> {
        if !self.has_before_batch.load(Ordering::Acquire) {
            return None;
        }
        let before = self.before_batch.lock();
        // A read that begins after the publication sees the batch.
        let before = before.as_ref();
        let is_old = |until| self.shared.is_published(until);
        let before = before.filter(|before| !before.until.is_some_and(is_old));
        before.map(|before| Arc::clone(&before.view))
    }

    /// Drops what [`Tree::view_before_batch`] gives, if there is anything, and it is an old view by
    /// now, or `is_over` says that nothing is being applied.
    pub(super) fn forget_view_before_batch(&self, is_over: bool) {
        if self.has_before_batch.load(Ordering::Acquire) {
            let is_past = |until: Option<SeqNo>| {
                is_over || until.is_some_and(|until| self.shared.is_published(until))
            };
            let mut before_batch = self.before_batch.lock();
            let before = before_batch.take_if(|before| is_past(before.until));
            self.has_before_batch
                .store(before_batch.is_some(), Ordering::Release);
            drop(before_batch);
            drop(before);
        }
    }

    /// The writer's mutex, or the tree before a large batch that the mutex may be held for.
    fn lock_writer(&self) -> Result<MutexGuard<'_, WriterState>, Arc<View>> {
        loop {
            if let Some(view) = self.view_before_batch() {
                return Err(view);
            }
            if let Some(writer) = self.writer.try_lock_for(LOOK_AGAIN_AFTER) {
                return Ok(writer);
            }
        }
    }

    /// A view of everything that was applied so far, but for what views do not wait for.
    pub(super) fn latest_view(&self) -> Arc<View> {
        if self.shared.merge_cost.is_due() {
            self.wake_if_due();
        }
        let number = shard_of_thread();
        let shard = self.view_cache.shard(number);
        if let Some(view) = &*shard.lock() {
            return Arc::clone(view);
        }
        let mut writer = match self.lock_writer() {
            Ok(writer) => writer,
            Err(before) => return before,
        };
        let mut shard = shard.lock();
        if let Some(view) = &*shard {
            // Of a thread that shares the shard.
            return Arc::clone(view);
        }
        writer.freeze_for_view();
        let view = View::of_frozen(&self.shared, writer.applied, writer.checkpointing);
        let view = shard.insert(Arc::new(view));
        writer.cached_views |= 1 << number;
        Arc::clone(view)
    }

    /// The tree is about to go on with operation `next`: snapshots that may yet ask for it as it is
    /// are given a view.
    #[inline]
    pub(super) fn hand_over_view(&self, writer: &mut WriterState, next: SeqNo) {
        let applied = writer.applied;
        let snapshots = &self.shared.snapshot_tracker;
        if snapshots.may_ask_for(applied, next) {
            writer.freeze();
            let view = View::of_frozen(&self.shared, applied, writer.checkpointing);
            let view: Arc<dyn ReadView> = Arc::new(view);
            snapshots.hand_over(self.keyspace, applied, next, &view);
        }
    }

    /// The tree is about to be changed: drops the cached views, and undoes the freeze if no reader
    /// has one any more (BV2).
    pub(super) fn begin_change(&self, writer: &mut WriterState) {
        if writer.cached_views != 0 && !mutated!("scan-of-an-older-tree") {
            let freeze = writer.view_freeze();
            // The root is the tree's too, so dropping them frees no nodes.
            let mut views = self.take_cached_views(writer).into_iter();
            let all_ended = views.all(|view| Arc::into_inner(view).is_some());
            if let Some(freeze) = freeze
                && (all_ended || mutated!("freeze-undone-under-a-view"))
            {
                writer.undo_freeze(freeze);
            }
        }
        writer.begin_change();
    }

    /// Takes out the cached views; the freeze can no longer be undone, because some of them may
    /// live on. The caller drops them when it holds no lock, if that may free many nodes.
    pub(super) fn take_cached_views(&self, writer: &mut WriterState) -> Vec<Arc<View>> {
        mutated!("views-dropped-and-forgotten", (), writer.keep_freeze());
        self.view_cache
            .take(std::mem::take(&mut writer.cached_views))
    }
}
