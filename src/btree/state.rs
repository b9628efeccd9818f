//! The tree as a whole: what readers share, and beside it the writer, the views and the
//! checkpoints.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use super::checkpoint::checkpointer::Checkpointer;
use super::compact::compactor::Compactor;
use super::file::pager::Pager;
use super::read::shared::SharedTree;
use super::read::view::View;
use super::read::view_cache::ViewCache;
use super::write::finger::Fingers;
use super::write::state::WriterState;
use crate::engine::{EngineHost, SnapshotTracker};
use crate::options::KeyspaceSettings;
use crate::types::SeqNo;
use crate::util::mutants::mutated;
use crate::util::sharded::shard_of_thread;

/// A B-tree: nodes in memory over a file.
///
/// # Thread safety
///
/// - Constant: `shared` (which looks after itself), `host`, `settings`, `read_only`.
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

    pub(super) writer: Mutex<WriterState>,
    pub(super) fingers: Fingers,
    view_cache: ViewCache,
    /// The tree before the large batch that is being applied, for reads that cannot wait for it.
    before_batch: Mutex<Option<Arc<View>>>,
    pub(super) checkpointer: Mutex<Checkpointer>,
    pub(super) compactor: Mutex<Compactor>,

    /// Link to the root of the file's tree; stored with `writer` held.
    pub(super) disk_root: AtomicU64,
    /// First operation that is not in the file's tree, 0 for none; stored with `writer` held.
    pub(super) oldest_unpersisted: AtomicU64,
    /// Bytes of the nodes in memory that the next checkpoint writes; stored with `writer` held.
    pub(super) dirty_bytes: AtomicU64,
    pub(super) counters: Counters,
}

/// Figures since open.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) checkpoint_bytes: AtomicU64,
    pub(super) checkpoints: AtomicU64,
    pub(super) compaction_bytes: AtomicU64,
    pub(super) compactions: AtomicU64,
    pub(super) entries: AtomicU64,
    pub(super) free_pages: AtomicU64,
    /// Leaves that checkpoints have written less than a quarter full since the last compaction.
    pub(super) sparse_leaves: AtomicU64,
    pub(super) height: AtomicU64,
    /// The host was woken because a checkpoint is due; it is not woken again before one begins.
    pub(super) woken: AtomicBool,
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
    pub(super) snapshot_tracker: Arc<SnapshotTracker>,
    pub(super) host: Arc<dyn EngineHost>,
    pub(super) settings: Arc<KeyspaceSettings>,
    pub(super) read_only: bool,
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
            .free_pages
            .store(parts.checkpointer.free_pages(), Ordering::Relaxed);
        Self {
            shared: Arc::new(SharedTree::new(parts.pager, parts.snapshot_tracker, &meta)),
            host: parts.host,
            settings: parts.settings,
            read_only: parts.read_only,
            writer: Mutex::new(WriterState::new(meta.persisted_seq)),
            fingers: Fingers::default(),
            view_cache: ViewCache::default(),
            before_batch: Mutex::default(),
            checkpointer: Mutex::new(parts.checkpointer),
            compactor: Mutex::default(),
            disk_root: AtomicU64::new(meta.root.bits()),
            oldest_unpersisted: AtomicU64::new(0),
            dirty_bytes: AtomicU64::new(0),
            counters,
        }
    }

    /// True when there is enough to write for a checkpoint, or when scans would gain more by one
    /// than it costs.
    pub(super) fn flush_is_due(&self) -> bool {
        self.buffer_is_full() || (!self.read_only && self.shared.merge_cost.is_due())
    }

    /// True when there is enough to write for a checkpoint.
    pub(super) fn buffer_is_full(&self) -> bool {
        !self.read_only
            && self.dirty_bytes.load(Ordering::Relaxed) >= self.settings.write_buffer_bytes()
    }

    /// Wakes the host if a checkpoint is due, once before it begins.
    #[inline]
    pub(super) fn wake_if_due(&self) {
        if self.flush_is_due()
            && !self.counters.woken.load(Ordering::Relaxed)
            && !self.counters.woken.swap(true, Ordering::AcqRel)
        {
            self.host.wake();
        }
    }

    /// The last operation applied.
    pub(super) fn applied(&self) -> SeqNo {
        self.writer.lock().applied
    }

    /// Hides the tree from reads while a large batch is applied: they see the one before it, as
    /// long as what is returned is not taken back by [`Tree::end_large_batch`].
    pub(super) fn begin_large_batch(&self, writer: &mut WriterState) {
        writer.freeze();
        let view = View::of_frozen(&self.shared, writer.applied, writer.checkpointing);
        *self.before_batch.lock() = Some(Arc::new(view));
    }

    /// Reads see the tree as it is. The view that is returned may free many nodes when it is
    /// dropped.
    pub(super) fn end_large_batch(&self) -> Option<Arc<View>> {
        self.before_batch.lock().take()
    }

    /// The tree before the large batch that is being applied, if one is.
    pub(super) fn view_before_batch(&self) -> Option<Arc<View>> {
        self.before_batch.lock().clone()
    }

    /// A view of everything that was applied so far, but for a large batch that is being applied.
    pub(super) fn latest_view(&self) -> Arc<View> {
        if self.shared.merge_cost.is_due() {
            self.wake_if_due();
        }
        let number = shard_of_thread();
        let shard = self.view_cache.shard(number);
        if let Some(view) = &*shard.lock() {
            return Arc::clone(view);
        }
        if let Some(view) = self.view_before_batch() {
            return view;
        }
        let mut writer = self.writer.lock();
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
