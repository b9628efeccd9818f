//! Views of the current tree, cached for the next thread that asks for one.
//!
//! Freezing a tree is cheap; what follows is not: the first change afterwards copies every node
//! that it touches. So scans share one frozen tree until something changes, and if all of them have
//! ended by then, the freeze is undone and nothing is copied.
//!
//! Each thread has a view in a shard of its own, as long as there are no more threads than shards:
//! short scans on several threads would otherwise spend their time on the counts of one view.
//!
//! # Invariants
//!
//! - **BV1** A cached view shows the current tree. A thread that changes the tree takes all views
//!   out first, and a thread that puts one in has just made it, both under the writer's mutex. So a
//!   reader that finds one has in it everything that was published before.
//! - **BV2** A freeze is undone only if no reader can look at the frozen tree any more: all views
//!   of it were cached here, each is found to have no other owner, and no checkpoint or
//!   verification froze the tree since.
//! - **BV3** A shard is locked for moments only, and the writer's mutex is never taken after it.
//!
//! A cached view keeps pages of the file and nodes in memory, like any view: a checkpoint drops it
//! when it begins and when it ends.

use std::sync::Arc;

use parking_lot::Mutex;

use super::view::View;
use crate::util::sharded::SHARDS;

/// The cached views, by shards of threads.
#[derive(Default)]
pub(crate) struct ViewCache([Shard; SHARDS]);

/// Two cache lines of its own, since processors fetch them in pairs.
#[derive(Default)]
#[repr(align(128))]
struct Shard(Mutex<Option<Arc<View>>>);

const _: () = assert!(
    u16::BITS as usize >= SHARDS,
    "a mask has a bit for each shard"
);

impl ViewCache {
    /// What shard `number` holds. A view is put there with the writer's mutex held.
    #[inline]
    pub(crate) fn shard(&self, number: usize) -> &Mutex<Option<Arc<View>>> {
        &self.0[number].0
    }

    /// Takes the views out of the shards of which `mask` has the bits.
    pub(crate) fn take(&self, mask: u16) -> Vec<Arc<View>> {
        let shards = self.0.iter().enumerate();
        shards
            .filter(|(number, _)| mask >> number & 1 != 0)
            .filter_map(|(_, shard)| shard.0.lock().take())
            .collect()
    }
}
