//! Views of keyspaces that are pinned at one moment: what snapshots share.

use std::sync::Arc;

use crate::engine::{EngineHost, ReadView};
use crate::error::{Error, Result};
use crate::store::{OpenKeyspace, Store};
use crate::types::{KeyspaceId, SeqNo};
use crate::util::gate::Stay;
use crate::util::mutants::mutated;

/// Views of some keyspaces at one sequence number, which stays registered while they live; or why
/// there are none.
#[derive(Debug, Clone)]
pub(crate) struct PinnedViews {
    inner: Result<Arc<Inner>>,
    store: Arc<Store>,
}

#[derive(Debug)]
struct Inner {
    /// Ordered by keyspace. Fields drop in order: the views before what they need.
    views: Vec<PinnedView>,
    registration: Registration,
    /// The directory stays locked.
    stay: Arc<Stay>,
}

type PinnedView = (KeyspaceId, Arc<dyn ReadView>);

#[derive(Debug)]
struct Registration {
    seq: SeqNo,
    store: Arc<Store>,
}

impl Drop for Registration {
    fn drop(&mut self) {
        let shared = &self.store.shared;
        let is_awaited = shared.snapshot_tracker.unregister(self.seq);
        if is_awaited && !mutated!("gone-snapshot-wakes-no-thread") {
            shared.coordinator.wake();
        }
    }
}

impl PinnedViews {
    /// Views of every keyspace.
    pub(crate) fn of_all(store: &Arc<Store>) -> Self {
        let stay = store.shared.stay();
        Self::take(store, stay, || store.shared.keyspaces.all())
    }

    /// Views of these, which are ordered by number.
    pub(crate) fn of_some(store: &Arc<Store>, keyspaces: &[Arc<OpenKeyspace>]) -> Self {
        let some = Arc::new(keyspaces.to_vec());
        Self::take(store, store.shared.stay(), || Arc::clone(&some))
    }

    /// A view of one keyspace.
    pub(crate) fn of_one(store: &Arc<Store>, keyspace: &Arc<OpenKeyspace>) -> Self {
        let stay = store
            .shared
            .stay()
            .and_then(|stay| keyspace.check_alive().map(|()| stay));
        let one = Arc::new(vec![Arc::clone(keyspace)]);
        Self::take(store, stay, || Arc::clone(&one))
    }

    /// `keyspaces` says of which.
    fn take(
        store: &Arc<Store>,
        stay: Result<Stay>,
        keyspaces: impl Fn() -> Arc<Vec<Arc<OpenKeyspace>>>,
    ) -> Self {
        let inner = stay.map(|stay| {
            let (views, registration) = Self::take_views(store, keyspaces);
            Arc::new(Inner {
                views,
                registration,
                stay: Arc::new(stay),
            })
        });
        Self {
            inner,
            store: Arc::clone(store),
        }
    }

    fn take_views(
        store: &Arc<Store>,
        keyspaces: impl Fn() -> Arc<Vec<Arc<OpenKeyspace>>>,
    ) -> (Vec<PinnedView>, Registration) {
        let shared = &store.shared;
        let attempt = || {
            let seq = shared.snapshot_tracker.register();
            let registration = Registration {
                seq,
                store: Arc::clone(store),
            };
            let view = |open: &Arc<OpenKeyspace>| Some((open.id, open.snapshot_view(seq)?));
            let views: Option<Vec<_>> = keyspaces().iter().map(view).collect();
            Some((views?, registration))
        };
        match shared.takes_writes() {
            Ok(pipeline) => pipeline.between_commits(attempt),
            Err(_) => attempt().expect("nothing is committed"),
        }
    }

    /// The moment: everything up to this sequence number is visible.
    pub(crate) fn seq(&self) -> SeqNo {
        match &self.inner {
            Ok(inner) => inner.registration.seq,
            Err(_) => self.store.shared.snapshot_tracker.published(),
        }
    }

    /// The store.
    pub(crate) fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// What keeps the directory locked, if there are views.
    pub(crate) fn stay(&self) -> Option<Arc<Stay>> {
        let inner = self.inner.as_ref().ok()?;
        Some(Arc::clone(&inner.stay))
    }

    /// The view of a keyspace of this store; `None` if it did not exist at that moment. An error
    /// if the store was closed by then, or the keyspace dropped.
    pub(crate) fn view(&self, keyspace: &OpenKeyspace) -> Result<Option<&Arc<dyn ReadView>>> {
        let views = match &self.inner {
            Ok(inner) => &inner.views,
            Err(error) => return Err(Error::clone(error)),
        };
        match views.binary_search_by_key(&keyspace.id, |(id, _)| *id) {
            Ok(at) => Ok(Some(&views[at].1)),
            Err(_) => keyspace.check_alive().map(|()| None),
        }
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use crate::fs::SimFs;
    use crate::options::{EngineKind, Options};

    /// Threads that wait for work are told when a snapshot goes that held something.
    #[test]
    fn a_snapshot_that_held_something_wakes_background_work_when_it_goes() {
        let options = Options::new()
            .fs(Arc::new(SimFs::new()))
            .background_threads(0);
        let db = options.open(Path::new("/store")).unwrap();
        let keyspace = db.keyspace("a", EngineKind::Lsm).unwrap();
        let announced = || db.store.shared.coordinator.work_count();
        let settle = || while db.run_background_once().unwrap() {};
        for round in 0..2 {
            keyspace.put("key", "1").unwrap();
            let snapshot = db.snapshot();
            keyspace.put("key", "2").unwrap();
            keyspace.compact().unwrap();
            settle();
            assert_eq!(keyspace.stats().entries_estimate, 2);
            let before = announced();
            // Nothing waits for a newer one.
            drop(db.snapshot());
            assert_eq!(announced(), before);
            drop(snapshot);
            assert!(announced() > before, "round {round}");
            settle();
            assert_eq!(keyspace.stats().entries_estimate, 1);
        }
    }
}
