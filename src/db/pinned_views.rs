//! Views of keyspaces that are pinned at one moment: what snapshots share.

use std::sync::Arc;

use crate::engine::ReadView;
use crate::store::{OpenKeyspace, Store};
use crate::types::{KeyspaceId, SeqNo};

/// Views of some keyspaces at one sequence number, which stays registered while they live.
#[derive(Debug, Clone)]
pub(crate) struct PinnedViews {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// Ordered by keyspace. Fields drop in order: the views before the registration.
    views: Vec<(KeyspaceId, Arc<dyn ReadView>)>,
    registration: Registration,
}

#[derive(Debug)]
struct Registration {
    seq: SeqNo,
    store: Arc<Store>,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.store.shared.snapshot_tracker.unregister(self.seq);
    }
}

impl PinnedViews {
    /// Views of every keyspace.
    pub(crate) fn of_all(store: &Arc<Store>) -> Self {
        Self::take(store, &store.shared.keyspaces.all())
    }

    /// A view of one keyspace.
    pub(crate) fn of_one(store: &Arc<Store>, keyspace: &Arc<OpenKeyspace>) -> Self {
        Self::take(store, std::slice::from_ref(keyspace))
    }

    fn take(store: &Arc<Store>, keyspaces: &[Arc<OpenKeyspace>]) -> Self {
        let shared = &store.shared;
        let take = || {
            let seq = shared.snapshot_tracker.register();
            let registration = Registration {
                seq,
                store: Arc::clone(store),
            };
            let view = |open: &Arc<OpenKeyspace>| (open.id, open.engine.snapshot_view(seq));
            Inner {
                views: keyspaces.iter().map(view).collect(),
                registration,
            }
        };
        let inner = match &shared.pipeline {
            // Between two commits every engine stands at the same sequence number.
            Some(pipeline) => pipeline.between_commits(take),
            None => take(),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// The moment: everything up to this sequence number is visible.
    pub(crate) fn seq(&self) -> SeqNo {
        self.inner.registration.seq
    }

    /// The store.
    pub(crate) fn store(&self) -> &Store {
        &self.inner.registration.store
    }

    /// The view of a keyspace; `None` if it did not exist at that moment.
    pub(crate) fn view(&self, keyspace: KeyspaceId) -> Option<&Arc<dyn ReadView>> {
        let views = &self.inner.views;
        let at = views.binary_search_by_key(&keyspace, |(id, _)| *id).ok()?;
        Some(&views[at].1)
    }
}
