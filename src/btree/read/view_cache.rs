//! The views of the present tree, kept for whoever asks for one next.
//!
//! Sealing a tree is cheap; what follows is not: the first change afterwards copies every node that it
//! touches. So scans share one seal until something changes, and if all of them have ended by then, the
//! seal is taken back and nothing is copied.
//!
//! Each thread keeps a view in a shard of its own, as long as there are no more threads than shards:
//! short scans on several threads would otherwise spend their time on the counts of one view.
//!
//! # Invariants
//!
//! - **V1** A view that is kept shows the present tree. Whoever changes the tree takes all of them out
//!   first, and whoever keeps one has just made it, both under the writer's mutex. So whoever finds
//!   one has in it everything that was published before.
//! - **V2** A seal is taken back only if nobody can look at the sealed tree any more: all views of it
//!   were kept here, each is found to have no other owner, and no checkpoint or verification sealed
//!   the tree since ([`crate::btree::write::state::Writer::seal`]).
//! - **V3** A shard is locked for moments only; never the writer's mutex after it.
//!
//! A kept view holds the tree that keeps it: the engine lets go of them when it is dropped. It keeps pages of
//! the file and nodes in memory, like any view: a checkpoint lets go of it when it begins and when it ends.

use std::sync::Arc;

use parking_lot::Mutex;

use super::shared::Tree;
use super::view::View;
use crate::btree::write::state::Writer;
use crate::util::mutants::mutated;
use crate::util::sharded::{SHARDS, shard_of_thread};

/// The views that are kept, by shards of threads.
#[derive(Default)]
pub(crate) struct Latest([Shard; SHARDS]);

/// Two cache lines of its own, since processors fetch them in pairs.
#[derive(Default)]
#[repr(align(128))]
struct Shard(Mutex<Option<Arc<View>>>);

/// Which shards keep a view: a bit each, guarded by the writer's mutex.
pub(crate) type Kept = u16;

const _: () = assert!(Kept::BITS as usize >= SHARDS);

impl Tree {
    /// A view of everything that was applied so far.
    pub(crate) fn latest_view(self: &Arc<Self>) -> Arc<View> {
        let number = shard_of_thread();
        let shard = &self.latest.0[number].0;
        if let Some(view) = &*shard.lock() {
            return Arc::clone(view);
        }
        let mut writer = self.writer.lock();
        let mut shard = shard.lock();
        if let Some(view) = &*shard {
            // Of a thread that shares the shard.
            return Arc::clone(view);
        }
        let view = shard.insert(Arc::new(View::seal(self, &mut writer)));
        writer.kept |= 1 << number;
        Arc::clone(view)
    }

    /// The tree is about to be changed: lets go of the views that are kept, and takes the seal back if nobody
    /// else has one (V2).
    pub(crate) fn begin_change(&self, writer: &mut Writer) {
        if writer.kept != 0 && !mutated!("scan-of-an-older-tree") {
            let seal = writer.seal_of_views();
            // The root is the tree's too, so dropping them frees no nodes.
            let mut views = self.take_latest(writer).into_iter();
            let all_ended = views.all(|view| Arc::into_inner(view).is_some());
            if let Some(seal) = seal
                && (all_ended || mutated!("seal-taken-back-under-a-view"))
            {
                writer.take_back(seal);
            }
        }
        writer.begin_change();
    }

    /// Takes out the views that are kept; the seal can no longer be taken back, because some of them may live
    /// on. The caller drops them when it holds no lock, if that may free many nodes.
    pub(crate) fn take_latest(&self, writer: &mut Writer) -> Vec<Arc<View>> {
        if !mutated!("views-let-go-and-forgotten") {
            writer.keep_seal();
        }
        let kept = std::mem::take(&mut writer.kept);
        let shards = self.latest.0.iter().enumerate();
        shards
            .filter(|(number, _)| kept >> number & 1 != 0)
            .filter_map(|(_, shard)| shard.0.lock().take())
            .collect()
    }

    /// Lets go of the views that are kept.
    pub(crate) fn forget_latest(&self) {
        let views = self.take_latest(&mut self.writer.lock());
        drop(views);
    }
}
