//! What a transaction consists of.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::options::{Isolation, TransactionOptions};
use super::read_set::ReadSet;
use super::write_set::WriteSet;
use crate::db::keyspace::Keyspace;
use crate::db::keyspace_snapshot::KeyspaceSnapshot;
use crate::db::pinned_views::PinnedViews;
use crate::error::{Error, Result};
use crate::options::Durability;
use crate::store::{Condition, Conflict, OpenKeyspace, Outcome, Store};
use crate::types::{KeyspaceId, SeqNo};
use crate::util::mutants::mutated;

/// A transaction that has not ended.
#[derive(Debug)]
pub(super) struct State {
    store: Arc<Store>,
    views: PinnedViews,
    /// None in one that only reads.
    watch: Option<Watch>,
    isolation: Isolation,
    durability: Durability,
    /// The only ones that it uses, if it has said so. Sorted.
    keyspaces: Option<Vec<KeyspaceId>>,
    pub(super) reads: Arc<ReadSet>,
    pub(super) writes: Mutex<WriteSet>,
}

/// While it lives, the store remembers what is written.
#[derive(Debug)]
struct Watch {
    store: Arc<Store>,
    since: SeqNo,
}

impl Watch {
    fn begin(store: &Arc<Store>) -> Result<Self> {
        let (pipeline, _pass) = store.shared.enter_to_write()?;
        Ok(Self {
            store: Arc::clone(store),
            since: pipeline.begin_watch(),
        })
    }

    /// With views of all keyspaces at the same moment, each taken when it is needed.
    fn begin_with_views(store: &Arc<Store>) -> Result<(Self, PinnedViews)> {
        let (pipeline, _pass) = store.shared.enter_to_write()?;
        let (at, handed) = pipeline.begin_watched_snapshot()?;
        let since = at.seq;
        let views = PinnedViews::of_registered(store, at, handed);
        let watch = Self {
            store: Arc::clone(store),
            since,
        };
        Ok((watch, views))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(pipeline) = &self.store.shared.pipeline {
            pipeline.end_watch(self.since);
        }
    }
}

impl State {
    /// Begins a transaction at what is visible now.
    pub(super) fn begin(store: &Arc<Store>, options: &TransactionOptions) -> Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let mut named = Vec::new();
        for keyspace in options.keyspaces.iter().flatten() {
            check_store(store, keyspace)?;
            keyspace.open().check_alive()?;
            named.push(Arc::clone(keyspace.open()));
        }
        named.sort_by_key(|open| open.id);
        named.dedup_by_key(|open| open.id);
        let is_all = options.keyspaces.is_none();
        // A watch begins before the views are taken: what comes after their moment is remembered.
        let (watch, views) = match options.read_only {
            true => {
                drop(store.shared.enter()?);
                (None, is_all.then(|| PinnedViews::of_all(store)))
            }
            false if is_all => {
                let (watch, views) = Watch::begin_with_views(store)?;
                (Some(watch), Some(views))
            }
            false => (Some(Watch::begin(store)?), None),
        };
        let views = views.unwrap_or_else(|| PinnedViews::of_some(store, &named));
        // Again: one may have been dropped before the moment that is read. Of a later drop the
        // commit knows.
        if !mutated!("keyspace-dropped-before-the-moment-is-read") {
            named.iter().try_for_each(|open| open.check_alive())?;
        }
        let keyspaces = options.keyspaces.as_ref();
        Ok(Self {
            store: Arc::clone(store),
            views,
            watch,
            isolation: options.isolation,
            durability: options
                .durability
                .unwrap_or(store.shared.options.durability),
            keyspaces: keyspaces.map(|_| named.iter().map(|open| open.id).collect()),
            reads: Arc::default(),
            writes: Mutex::new(WriteSet::new(NEXT.fetch_add(1, Ordering::Relaxed))),
        })
    }

    /// The moment that it reads.
    pub(super) fn seq(&self) -> SeqNo {
        self.views.seq()
    }

    /// Whether its commit depends on everything that it reads.
    pub(super) fn tracks_reads(&self) -> bool {
        self.isolation == Isolation::Serializable && self.watch.is_some()
    }

    /// An error if it may not use `keyspace`.
    fn check_uses(&self, keyspace: &Keyspace) -> Result<()> {
        check_store(&self.store, keyspace)?;
        match &self.keyspaces {
            Some(ids) if ids.binary_search(&keyspace.open().id).is_err() => {
                Err(Error::invalid(format!(
                    "keyspace {:?} is not among those that the transaction is said to use",
                    keyspace.name()
                )))
            }
            _ => Ok(()),
        }
    }

    /// An error if it may not write to `keyspace`.
    pub(super) fn check_writes(&self, keyspace: &Keyspace) -> Result<()> {
        if self.watch.is_none() {
            return Err(Error::invalid(
                "the transaction was begun to read only, and takes no writes",
            ));
        }
        self.check_uses(keyspace)?;
        keyspace.open().check_alive()
    }

    /// The keyspace at the moment that the transaction reads.
    pub(super) fn snapshot(&self, keyspace: &Keyspace) -> KeyspaceSnapshot {
        let views = self.views.clone();
        match self.check_uses(keyspace) {
            Ok(()) => KeyspaceSnapshot::new(views, keyspace.store(), keyspace.open()),
            Err(error) => KeyspaceSnapshot::failed(views, keyspace.open(), error),
        }
    }

    /// Commits what was written, if nothing was changed that this depends on.
    pub(super) fn commit(self, durability: Option<Durability>) -> Result<SeqNo> {
        let durability = durability.unwrap_or(self.durability);
        let writes = self.writes.into_inner();
        let parts = writes.to_batches();
        let since = self.views.seq();
        // Without a view an engine need not copy what the commit changes.
        drop(self.views);
        let Some(watch) = self.watch.filter(|_| !parts.is_empty()) else {
            return Ok(since);
        };
        let mut reads = self.reads.take();
        if self.isolation == Isolation::Snapshot && !mutated!("first-writer-does-not-win") {
            writes.add_to(&mut reads);
        }
        let keyspaces: Vec<_> = parts.iter().map(|(open, _)| Arc::clone(open)).collect();
        drop(writes);
        let condition = Condition {
            since,
            reads: &reads,
            is_unseen: false,
        };
        let outcome = self.store.shared.commit_if(parts, durability, &condition)?;
        drop(watch);
        match outcome {
            Outcome::Committed(seq) => Ok(seq),
            Outcome::Conflict(conflict) => Err(conflict_error(&self.store, &keyspaces, conflict)),
        }
    }
}

fn check_store(store: &Arc<Store>, keyspace: &Keyspace) -> Result<()> {
    if Arc::ptr_eq(store, keyspace.store()) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "keyspace {:?} belongs to another store than the transaction",
        keyspace.name()
    )))
}

/// What the user is told. `written` has the keyspaces that the transaction wrote to.
fn conflict_error(store: &Store, written: &[Arc<OpenKeyspace>], conflict: Conflict) -> Error {
    let Some((id, key)) = conflict.place else {
        return Error::TransactionTooOld;
    };
    let open = store.shared.keyspaces.by_id(id);
    let open = open.or_else(|| written.iter().find(|open| open.id == id).cloned());
    Error::Conflict {
        // One that was dropped since has no name any more.
        keyspace: open.map_or_else(|| format!("#{id}"), |open| open.name().to_string()),
        key: cfg!(debug_assertions).then_some(key),
    }
}
