//! How a transaction behaves.

use crate::db::keyspace::Keyspace;
use crate::options::Durability;

/// What a transaction is isolated from; see [`Transaction`](crate::Transaction).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Isolation {
    /// Committed transactions are as if each had run alone, in the order of their commits: nothing
    /// that one of them read was changed by another before its commit.
    #[default]
    Serializable,
    /// A transaction reads one moment, and of two that write the same key at once one fails. What
    /// it only reads may have changed by the time it commits, but for what it read with
    /// [`get_for_update`](crate::Transaction::get_for_update).
    Snapshot,
}

/// Options of a transaction; for [`Db::transaction_with`](crate::Db::transaction_with) and
/// [`Db::transact_with`](crate::Db::transact_with).
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let db = hedgerow::Db::open(dir.path().join("my.db"))?;
/// use hedgerow::{Durability, EngineKind, Isolation, TransactionOptions};
///
/// let users = db.keyspace("users", EngineKind::BTree)?;
/// let options = TransactionOptions::new()
///     .isolation(Isolation::Snapshot)
///     .durability(Durability::Buffered)
///     .keyspaces([&users])
///     .attempts(10);
/// db.transact_with(options, |tx| tx.put(&users, "ada", "1815"))?;
///
/// let reader = db.transaction_with(TransactionOptions::new().read_only(true))?;
/// assert_eq!(reader.get(&users, "ada")?.unwrap(), "1815");
/// assert!(reader.put(&users, "bob", "1970").is_err());
/// # Ok::<(), hedgerow::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct TransactionOptions {
    pub(super) isolation: Isolation,
    pub(super) durability: Option<Durability>,
    pub(super) read_only: bool,
    pub(super) keyspaces: Option<Vec<Keyspace>>,
    pub(super) attempts: u32,
}

impl Default for TransactionOptions {
    fn default() -> Self {
        Self {
            isolation: Isolation::default(),
            durability: None,
            read_only: false,
            keyspaces: None,
            attempts: 100,
        }
    }
}

impl TransactionOptions {
    /// The default options.
    pub fn new() -> Self {
        Self::default()
    }

    /// What the transaction is isolated from. [`Isolation::Serializable`] by default.
    #[must_use]
    pub fn isolation(mut self, isolation: Isolation) -> Self {
        self.isolation = isolation;
        self
    }

    /// What its commit survives. That of [`Options::durability`](crate::Options) by default.
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = Some(durability);
        self
    }

    /// Whether it only reads. Then it costs what a snapshot costs, never meets a conflict, works in
    /// a store that was opened read-only, and refuses writes. `false` by default.
    #[must_use]
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.read_only = read_only;
        self
    }

    /// The only keyspaces that it uses; others are refused, and keep no older state for it while it
    /// lives. All by default: those that it does not use cost it nothing, but for LSM trees with a
    /// compaction filter, of each of which it takes a view.
    #[must_use]
    pub fn keyspaces<'a>(mut self, keyspaces: impl IntoIterator<Item = &'a Keyspace>) -> Self {
        self.keyspaces = Some(keyspaces.into_iter().cloned().collect());
        self
    }

    /// How often [`Db::transact_with`](crate::Db::transact_with) runs it at most, the first time
    /// included; at least once. 100 by default.
    #[must_use]
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts;
        self
    }
}
