//! Snapshots: immutable views, consistent over keyspaces and engines.

use std::sync::Arc;

use super::keyspace::Keyspace;
use super::keyspace_snapshot::KeyspaceSnapshot;
use super::pinned_views::PinnedViews;
use crate::error::Result;
use crate::kv::Scan;
use crate::store::Store;
use crate::types::{KeyBounds, SeqNo, Value};

/// An immutable view of all keyspaces of a store at one moment.
///
/// Taking one cannot fail: of a store that was closed, every read of the snapshot fails.
///
/// Cheap to take and to clone, and may be used from any thread. While it lives, the engines keep
/// the old versions, files and pages that it can see; drop it when it is no longer needed
/// ([`DbStats::oldest_snapshot_age_ops`](crate::DbStats) shows forgotten ones).
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let db = hedgerow::Db::open(dir.path().join("my.db"))?;
/// use hedgerow::EngineKind;
///
/// let users = db.keyspace("users", EngineKind::BTree)?;
/// let seq = users.put("ada", "1815")?;
/// let snapshot = db.snapshot();
/// assert_eq!(snapshot.seq(), seq);
/// users.delete("ada")?;
/// assert_eq!(snapshot.get(&users, "ada")?.unwrap(), "1815");
/// assert_eq!(snapshot.range(&users, ..).count(), 1);
/// assert_eq!(snapshot.keyspace(&users).len()?, 1);
/// # Ok::<(), hedgerow::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Snapshot {
    views: PinnedViews,
}

impl Snapshot {
    pub(crate) fn new(store: &Arc<Store>) -> Self {
        Self {
            views: PinnedViews::of_all(store),
        }
    }

    /// The moment: everything up to this sequence number is visible.
    pub fn seq(&self) -> SeqNo {
        self.views.seq()
    }

    /// This snapshot's view of `keyspace`. A keyspace that was created later is empty; of one that
    /// had been dropped by then, or that belongs to another store, every read fails.
    pub fn keyspace(&self, keyspace: &Keyspace) -> KeyspaceSnapshot {
        KeyspaceSnapshot::new(self.views.clone(), keyspace.store(), keyspace.open())
    }

    /// As [`KvRead::get`](crate::KvRead::get) on a keyspace of the snapshot.
    pub fn get(&self, keyspace: &Keyspace, key: impl AsRef<[u8]>) -> Result<Option<Value>> {
        self.keyspace(keyspace).get(key)
    }

    /// As [`KvRead::range`](crate::KvRead::range) on a keyspace of the snapshot.
    pub fn range(&self, keyspace: &Keyspace, bounds: impl KeyBounds) -> Scan {
        self.keyspace(keyspace).range(bounds)
    }

    /// As [`KvRead::prefix`](crate::KvRead::prefix) on a keyspace of the snapshot.
    pub fn prefix(&self, keyspace: &Keyspace, prefix: impl AsRef<[u8]>) -> Scan {
        self.keyspace(keyspace).prefix(prefix)
    }

    /// As [`KvRead::iter`](crate::KvRead::iter) on a keyspace of the snapshot.
    pub fn iter(&self, keyspace: &Keyspace) -> Scan {
        self.keyspace(keyspace).iter()
    }
}
