//! Views of keyspaces that are pinned at one moment: what snapshots share.
//!
//! A view is taken when the snapshot begins, or *late*, when its keyspace is used for the first
//! time: see [`HandedViews`]. Late ones spare a snapshot the keyspaces that it never uses.
//! Transactions that may write take theirs late: they have the log locked for a moment anyway,
//! which orders their registration before all that comes after it. For other snapshots that lock is
//! worth while in a store of many keyspaces only. Views of keyspaces that compactions filter are
//! always taken at once.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::engine::{EngineHost, HandedViews, ReadView, Registered};
use crate::error::{Error, Result};
use crate::store::{OpenKeyspace, Store};
use crate::types::{KeyspaceId, SeqNo};
use crate::util::gate::Stay;
use crate::util::keyed_list::KeyedList;
use crate::util::mutants::mutated;

/// Up to so many keyspaces a snapshot of all takes its views at once: that costs as much as locking
/// the log, and other threads wait for none of it.
const AT_ONCE_UPTO: usize = 8;

/// Views of some keyspaces at one sequence number, which stays registered while they live; or why
/// there are none.
#[derive(Debug, Clone)]
pub(crate) struct PinnedViews {
    inner: Result<Arc<Inner>>,
    store: Arc<Store>,
}

#[derive(Debug)]
struct Inner {
    /// Fields drop in order: the views before what they need.
    views: Views,
    registration: Registration,
    /// The directory stays locked.
    stay: Arc<Stay>,
}

#[derive(Debug)]
enum Views {
    /// Ordered by keyspace.
    AtOnce(Vec<PinnedView>),
    Late {
        /// Those that there were, ordered by number.
        keyspaces: Arc<Vec<Arc<OpenKeyspace>>>,
        /// Those that were used so far.
        taken: Mutex<KeyedList<KeyspaceId, Arc<dyn ReadView>>>,
    },
}

type PinnedView = (KeyspaceId, Arc<dyn ReadView>);

#[derive(Debug)]
struct Registration {
    at: Registered,
    /// Of one that takes its views late.
    handed: Option<Arc<HandedViews>>,
    store: Arc<Store>,
}

impl Drop for Registration {
    fn drop(&mut self) {
        let shared = &self.store.shared;
        let is_awaited = match self.handed {
            Some(_) => shared.snapshot_tracker.unregister_late(self.at),
            None => shared.snapshot_tracker.unregister(self.at),
        };
        if is_awaited && !mutated!("gone-snapshot-wakes-no-thread") {
            shared.coordinator.wake();
        }
    }
}

impl PinnedViews {
    /// Views of every keyspace.
    pub(crate) fn of_all(store: &Arc<Store>) -> Self {
        let shared = &store.shared;
        let stay = shared.stay();
        if stay.is_ok()
            && shared.keyspaces.all().len() > AT_ONCE_UPTO
            && let Ok(pipeline) = shared.takes_writes()
            && let Some((at, handed)) = pipeline.late_snapshot()
        {
            return Self::late(store, stay, at, handed);
        }
        Self::take(store, stay, || shared.keyspaces.all())
    }

    /// Views of every keyspace `at` a moment that was registered as late.
    pub(crate) fn of_registered(
        store: &Arc<Store>,
        at: Registered,
        handed: Arc<HandedViews>,
    ) -> Self {
        Self::late(store, store.shared.stay(), at, handed)
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
        let taken = Self::take(store, stay, || Arc::clone(&one));
        match keyspace.check_alive() {
            Ok(()) => taken,
            // Before its moment, perhaps.
            Err(dropped) => Self::take(store, Err(dropped), || Arc::clone(&one)),
        }
    }

    fn late(
        store: &Arc<Store>,
        stay: Result<Stay>,
        at: Registered,
        handed: Arc<HandedViews>,
    ) -> Self {
        let registration = Registration {
            at,
            handed: Some(handed),
            store: Arc::clone(store),
        };
        let inner = stay.map(|stay| {
            let filtered = mutated!("filtered-keyspaces-used-late", Arc::default(), {
                store.shared.keyspaces.filtered()
            });
            let view = |open: &Arc<OpenKeyspace>| (open.id, registration.take_view(open));
            Arc::new(Inner {
                views: Views::Late {
                    keyspaces: store.shared.keyspaces.all(),
                    taken: Mutex::new(filtered.iter().map(view).collect()),
                },
                registration,
                stay: Arc::new(stay),
            })
        });
        Self {
            inner,
            store: Arc::clone(store),
        }
    }

    /// `keyspaces` says of which.
    fn take(
        store: &Arc<Store>,
        stay: Result<Stay>,
        keyspaces: impl Fn() -> Arc<Vec<Arc<OpenKeyspace>>>,
    ) -> Self {
        let inner = stay.and_then(|stay| {
            let (views, registration) = Self::take_views(store, keyspaces)?;
            Ok(Arc::new(Inner {
                views: Views::AtOnce(views),
                registration,
                stay: Arc::new(stay),
            }))
        });
        Self {
            inner,
            store: Arc::clone(store),
        }
    }

    fn take_views(
        store: &Arc<Store>,
        keyspaces: impl Fn() -> Arc<Vec<Arc<OpenKeyspace>>>,
    ) -> Result<(Vec<PinnedView>, Registration)> {
        let shared = &store.shared;
        let attempt = || {
            let at = shared.snapshot_tracker.register();
            let registration = Registration {
                at,
                handed: None,
                store: Arc::clone(store),
            };
            let view = |open: &Arc<OpenKeyspace>| Some((open.id, open.snapshot_view(at)?));
            let views: Option<Vec<_>> = keyspaces().iter().map(view).collect();
            Some((views?, registration))
        };
        match shared.takes_writes() {
            Ok(pipeline) => pipeline.between_commits(attempt),
            Err(_) => Ok(attempt().expect("nothing is committed")),
        }
    }

    /// The moment: everything up to this sequence number is visible.
    pub(crate) fn seq(&self) -> SeqNo {
        match &self.inner {
            Ok(inner) => inner.registration.at.seq,
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
    pub(crate) fn view(&self, keyspace: &OpenKeyspace) -> Result<Option<Arc<dyn ReadView>>> {
        self.store.shared.owner.check()?;
        let inner = match &self.inner {
            Ok(inner) => inner,
            Err(error) => return Err(Error::clone(error)),
        };
        match inner.view(keyspace.id) {
            Some(view) => Ok(Some(view)),
            None => keyspace.check_alive().map(|()| None),
        }
    }
}

impl Inner {
    /// The view of a keyspace, if it existed at that moment.
    fn view(&self, id: KeyspaceId) -> Option<Arc<dyn ReadView>> {
        let (keyspaces, taken) = match &self.views {
            Views::AtOnce(views) => {
                let at = views.binary_search_by_key(&id, |(id, _)| *id).ok()?;
                return Some(Arc::clone(&views[at].1));
            }
            Views::Late { keyspaces, taken } => (keyspaces, taken),
        };
        let mut taken = taken.lock();
        if let Some(view) = taken.get(id) {
            return Some(Arc::clone(view));
        }
        let at = keyspaces.binary_search_by_key(&id, |open| open.id).ok()?;
        let view = self.registration.take_view(&keyspaces[at]);
        taken.add(id, Arc::clone(&view));
        Some(view)
    }
}

impl Registration {
    /// A view, now, of how a keyspace was at that moment.
    fn take_view(&self, open: &OpenKeyspace) -> Arc<dyn ReadView> {
        let handed = || {
            let view = self.handed.as_ref()?.of(open.id)?;
            Some(open.unexpired_at(view, self.at))
        };
        // An engine that goes beyond the moment while it is asked has handed a view over by then.
        handed()
            .or_else(|| open.snapshot_view(self.at))
            .or_else(handed)
            .expect("an engine that has gone on has handed a view over")
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::PinnedViews;
    use crate::fs::SimFs;
    use crate::options::{EngineKind, Options};
    use crate::testing::comparisons_of;

    /// Each read looked through the keyspaces that were read before.
    #[test]
    fn a_snapshot_finds_each_of_many_used_keyspaces_with_few_comparisons() {
        const COUNT: usize = 200;
        let options = Options::new().fs(Arc::new(SimFs::new()));
        let db = options.open(Path::new("/store")).unwrap();
        let keyspace = |n: usize| db.keyspace(&n.to_string(), EngineKind::BTree).unwrap();
        let keyspaces: Vec<_> = (0..COUNT).map(keyspace).collect();
        let views = PinnedViews::of_all(&db.store);
        let view = |n: usize| views.view(keyspaces[n].open()).unwrap().unwrap();
        let mut first = Vec::new();
        let compared = comparisons_of(|| first.extend((0..COUNT).map(view)));
        assert!((COUNT..8 * COUNT).contains(&compared), "{compared}");
        let compared = comparisons_of(|| {
            let is_same = |n: usize| Arc::ptr_eq(&view(n), &first[n]);
            assert!((0..COUNT).all(is_same));
        });
        assert!((COUNT..4 * COUNT).contains(&compared), "{compared}");
    }

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
