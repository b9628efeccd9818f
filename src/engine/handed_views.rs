//! Views of trees that have gone on since a snapshot was taken, kept for it.
//!
//! A snapshot of all keyspaces need not take a view of each. An LSM tree has every version that the
//! snapshot can see as long as that is registered, so a view of it can be taken at any time (unless
//! compactions filter it: then the view is taken at once). A
//! B-tree has the current state only: it *hands over* a view of it to the snapshots that may yet
//! ask for one, just before it goes beyond their numbers
//! ([`SnapshotTracker::hand_over`](super::SnapshotTracker::hand_over)). So a keyspace costs a
//! snapshot nothing until it is used, or is a B-tree and changes.

use std::sync::Arc;

use super::cursor::ReadView;
use crate::types::KeyspaceId;
use crate::util::keyed_list::KeyedList;
use crate::util::sync::Mutex;

/// What the snapshots of one moment were handed.
#[derive(Debug, Default)]
pub(crate) struct HandedViews(Mutex<KeyedList<KeyspaceId, Arc<dyn ReadView>>>);

impl HandedViews {
    /// The view of a keyspace, if its engine has gone beyond the moment since.
    pub(crate) fn of(&self, keyspace: KeyspaceId) -> Option<Arc<dyn ReadView>> {
        self.0.lock().get(keyspace).map(Arc::clone)
    }

    /// Adds a view. What an engine has handed over before stays.
    pub(super) fn add(&self, keyspace: KeyspaceId, view: &Arc<dyn ReadView>) {
        self.0.lock().place_or_add(keyspace, || Arc::clone(view));
    }
}
