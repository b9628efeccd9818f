//! Transactions: optimistic, over keyspaces of both engines.
//!
//! A transaction begins a *watch*, which has the store remember what is written from then on, and
//! takes a snapshot. It reads the snapshot, with what it has written itself in the place of what
//! the store has, and notes what it reads ([`read_set`]). What it writes stays in memory
//! ([`write_set`]). Its commit is one batch, on the condition that nothing in the read set was
//! written after the moment of the snapshot. That is decided under the log lock, where commits get
//! their order ([`store/conflicts`](crate::store)). docs/transactions.md argues why committed
//! transactions are serializable.
//!
//! ```text
//!   begin: watch -> snapshot        read: own writes, else snapshot -> read set
//!   commit: batch -> [log lock: read set against what was committed since -> sequence, append]
//! ```
//!
//! Invariants:
//! - T1: of two operations of a transaction the later one sees the earlier one.
//! - T2: for every read of the store, of a key, of an absent one or of a range, the read set has
//!   what the answer follows from, or more, before the commit is validated.
//! - T3: the watch began at or before the moment of the snapshot, and lives until the commit is
//!   validated.
//!
//! A [`Transaction`] is [`State`] behind the methods that users call; a [`TransactionKeyspace`]
//! borrows it.

mod keyspace;
mod options;
mod own_writes;
mod read_set;
mod retry;
mod state;
#[cfg(all(test, not(shuttle)))]
mod tests;
mod tracking_cursor;
mod view;
mod write_set;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::db::keyspace::Keyspace;
use crate::error::Result;
use crate::kv::Scan;
use crate::options::Durability;
use crate::store::Store;
use crate::types::{KeyBounds, SeqNo, Value};
use state::State;

pub use keyspace::TransactionKeyspace;
pub use options::{Isolation, TransactionOptions};
pub use retry::Transacted;
pub(super) use retry::transact;
pub use write_set::Savepoint;

/// A transaction over any number of keyspaces of both engines: it reads one moment, with what it
/// has written itself, and commits all of its writes or none.
///
/// Made by [`Db::transaction`](crate::Db::transaction);
/// [`Db::transact`](crate::Db::transact) runs a closure with one, again if there is a conflict, and
/// is what most programs want. Dropping a transaction rolls it back.
///
/// **Isolation.** Transactions are [serializable](Isolation::Serializable) unless they ask for
/// less: the commit fails with [`Error::Conflict`](crate::Error::Conflict), and writes nothing, if
/// a key that it has read, present or absent, or a key in a range that it has scanned, was written
/// by another commit since it began. Of a scan the part counts that was walked through. What is
/// written without being read conflicts with nothing. A transaction that has written nothing always
/// commits. Writes outside of transactions are transactions of one step.
///
/// **Cost.** No lock is held between calls, so nothing waits for a transaction that takes long.
/// While one lives that may write, the store remembers the keys of all commits, 16 MiB of them at
/// most; when one transaction lives beside more than that (some 300,000 writes of short keys),
/// it ends with [`Error::TransactionTooOld`](crate::Error::TransactionTooOld). What it reads is
/// tracked exactly up to 4 MiB of keys and bounds; of more, neighbours are joined, so that keys
/// between them count as read. Its snapshot keeps old versions and pages, as every snapshot does.
/// What it writes is in memory until it commits, and is limited as a batch is:
/// [`MAX_BATCH_LEN_BYTES`](crate::MAX_BATCH_LEN_BYTES).
///
/// Methods take `&self`, and a transaction may be moved to, and used from, other threads. A scan
/// sees what was written before it began, and may be kept while the transaction goes on.
///
/// The doctors of a hospital: at least one stays on call. Both look at the same time, and see two
/// on call; one of them may leave.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let db = hedgerow::Db::open(dir.path().join("my.db"))?;
/// use hedgerow::{EngineKind, Error};
///
/// let on_call = db.keyspace("on call", EngineKind::BTree)?;
/// on_call.put("ada", "")?;
/// on_call.put("bob", "")?;
///
/// let (ada, bob) = (db.transaction()?, db.transaction()?);
/// for (tx, doctor) in [(&ada, "ada"), (&bob, "bob")] {
///     if tx.iter(&on_call).try_count()? > 1 {
///         tx.delete(&on_call, doctor)?;
///     }
/// }
/// ada.commit()?;
/// let error = bob.commit().unwrap_err();
/// assert!(matches!(error, Error::Conflict { ref keyspace, .. } if keyspace == "on call"));
/// assert!(error.is_conflict() && error.is_retryable());
/// assert_eq!(on_call.len()?, 1);
/// # Ok::<(), hedgerow::Error>(())
/// ```
///
/// Savepoints, reads that the commit does not depend on, and durability:
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let db = hedgerow::Db::open(dir.path().join("my.db"))?;
/// use hedgerow::{Durability, EngineKind};
///
/// let users = db.keyspace("users", EngineKind::BTree)?;
/// let events = db.keyspace("events", EngineKind::Lsm)?;
/// let tx = db.transaction()?;
/// tx.put(&users, "ada", "1815")?;
/// let savepoint = tx.savepoint();
/// tx.delete_range(&users, ..)?;
/// tx.delete(&events, "2019")?;
/// assert_eq!(tx.get(&users, "ada")?, None);
/// tx.rollback_to(savepoint)?;
/// assert_eq!(tx.range(&users, "a"..).next().unwrap()?.1, "1815");
///
/// // Another commit may change these without harm.
/// assert!(tx.get_untracked(&events, "2026")?.is_none());
/// assert_eq!(tx.untracked(&events).len()?, 0);
/// // This one has to stay as it is.
/// assert!(tx.get_for_update(&events, "2027")?.is_none());
/// assert!(!tx.contains_key(&events, "2028")?);
/// assert_eq!(tx.prefix(&events, "20").try_count()?, 0);
///
/// let began = tx.seq();
/// let committed = tx.commit_with(Durability::Buffered)?;
/// assert!(committed > began);
/// assert_eq!(users.get("ada")?.unwrap(), "1815");
/// # Ok::<(), hedgerow::Error>(())
/// ```
#[derive(Debug)]
pub struct Transaction {
    state: State,
}

impl Transaction {
    pub(crate) fn begin(store: &Arc<Store>, options: &TransactionOptions) -> Result<Self> {
        State::begin(store, options).map(|state| Self { state })
    }

    /// The moment that it reads: everything up to this sequence number is visible.
    pub fn seq(&self) -> SeqNo {
        self.state.seq()
    }

    /// The keyspace as this transaction sees it. A keyspace that was created after the transaction
    /// began is empty; of one that belongs to another store every read and write fails.
    pub fn keyspace<'a>(&'a self, keyspace: &'a Keyspace) -> TransactionKeyspace<'a> {
        TransactionKeyspace::new(&self.state, keyspace, self.state.tracks_reads())
    }

    /// The same, for reads on which the commit does not depend: what they find may have changed by
    /// then. They see what the transaction has written.
    pub fn untracked<'a>(&'a self, keyspace: &'a Keyspace) -> TransactionKeyspace<'a> {
        TransactionKeyspace::new(&self.state, keyspace, false)
    }

    /// The value of `key` in `keyspace`.
    pub fn get(&self, keyspace: &Keyspace, key: impl AsRef<[u8]>) -> Result<Option<Value>> {
        self.keyspace(keyspace).get(key)
    }

    /// The value of `key` in `keyspace`, on which the commit does not depend.
    pub fn get_untracked(
        &self,
        keyspace: &Keyspace,
        key: impl AsRef<[u8]>,
    ) -> Result<Option<Value>> {
        self.untracked(keyspace).get(key)
    }

    /// The value of `key` in `keyspace`, on which the commit depends whatever the
    /// [isolation](Isolation): if the key is written by another commit, this one fails, as if the
    /// transaction had written the key itself.
    ///
    /// # Errors
    ///
    /// As those of [`Transaction::put`].
    pub fn get_for_update(
        &self,
        keyspace: &Keyspace,
        key: impl AsRef<[u8]>,
    ) -> Result<Option<Value>> {
        self.keyspace(keyspace).get_for_update(key)
    }

    /// True if `key` has a value in `keyspace`.
    pub fn contains_key(&self, keyspace: &Keyspace, key: impl AsRef<[u8]>) -> Result<bool> {
        self.keyspace(keyspace).contains_key(key)
    }

    /// The entries of `keyspace` with keys in `bounds`, in key order, from both ends.
    pub fn range(&self, keyspace: &Keyspace, bounds: impl KeyBounds) -> Scan {
        self.keyspace(keyspace).range(bounds)
    }

    /// The entries of `keyspace` whose keys start with `prefix`, in key order, from both ends.
    pub fn prefix(&self, keyspace: &Keyspace, prefix: impl AsRef<[u8]>) -> Scan {
        self.keyspace(keyspace).prefix(prefix)
    }

    /// All entries of `keyspace` in key order, from both ends.
    pub fn iter(&self, keyspace: &Keyspace) -> Scan {
        self.keyspace(keyspace).iter()
    }

    /// Sets `key` to `value` in `keyspace`. Later reads of this transaction see it, and no others
    /// before the commit.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if a limit is exceeded, the
    /// keyspace belongs to another store or is not among those that were
    /// [named](TransactionOptions::keyspaces), or the transaction was begun to
    /// [read only](TransactionOptions::read_only);
    /// [`Error::NoSuchKeyspace`](crate::Error::NoSuchKeyspace) if it was dropped. The transaction
    /// is as before then, and may go on.
    pub fn put(
        &self,
        keyspace: &Keyspace,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
    ) -> Result<()> {
        self.keyspace(keyspace).put(key, value)
    }

    /// Sets the key that consists of `prefix`, the number of the commit and `suffix` to `value` in
    /// `keyspace`: see [`Batch::put_versionstamped_key`](crate::Batch::put_versionstamped_key). The
    /// number is the one that [`Transaction::commit`] returns.
    ///
    /// What is put so happens at the commit, after everything else that the transaction writes.
    /// Reads of the transaction do not see it, since the number is not known yet.
    ///
    /// # Errors
    ///
    /// As those of [`Transaction::put`].
    pub fn put_versionstamped_key(
        &self,
        keyspace: &Keyspace,
        prefix: impl AsRef<[u8]>,
        suffix: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
    ) -> Result<()> {
        self.keyspace(keyspace)
            .put_versionstamped_key(prefix, suffix, value)
    }

    /// Sets `key` in `keyspace` to the value that consists of `prefix`, the number of the commit
    /// and `suffix`. As [`Transaction::put_versionstamped_key`] in everything else.
    ///
    /// # Errors
    ///
    /// As those of [`Transaction::put`].
    pub fn put_versionstamped_value(
        &self,
        keyspace: &Keyspace,
        key: impl AsRef<[u8]>,
        prefix: impl AsRef<[u8]>,
        suffix: impl AsRef<[u8]>,
    ) -> Result<()> {
        self.keyspace(keyspace)
            .put_versionstamped_value(key, prefix, suffix)
    }

    /// Sets `key` to `value` in `keyspace`, which expires `ttl` after the commit; until then the
    /// transaction sees it. See [`Kv::put_with_ttl`](crate::Kv::put_with_ttl).
    ///
    /// # Errors
    ///
    /// As those of [`Transaction::put`], and if no value of the keyspace can expire.
    pub fn put_with_ttl(
        &self,
        keyspace: &Keyspace,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        ttl: Duration,
    ) -> Result<()> {
        self.keyspace(keyspace).put_with_ttl(key, value, ttl)
    }

    /// Sets `key` to `value` in `keyspace`, which expires at `time`; until the commit the
    /// transaction sees it. See [`Kv::put_until`](crate::Kv::put_until).
    ///
    /// # Errors
    ///
    /// As those of [`Transaction::put_with_ttl`], and if the time has passed.
    pub fn put_until(
        &self,
        keyspace: &Keyspace,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        time: SystemTime,
    ) -> Result<()> {
        self.keyspace(keyspace).put_until(key, value, time)
    }

    /// Merges `operand` into the value of `key` in `keyspace`, without reading it: the commit does
    /// not depend on what is there, under either isolation, and two transactions that merge into
    /// one key do not conflict. A read of the key by this transaction sees the operand, and depends
    /// on what is there. See [`Kv::merge`](crate::Kv::merge).
    ///
    /// # Errors
    ///
    /// As those of [`Transaction::put`], and if the keyspace has no operator, or that refuses the
    /// operand.
    pub fn merge(
        &self,
        keyspace: &Keyspace,
        key: impl AsRef<[u8]>,
        operand: impl AsRef<[u8]>,
    ) -> Result<()> {
        self.keyspace(keyspace).merge(key, operand)
    }

    /// Removes `key`, which may be absent, from `keyspace`.
    ///
    /// # Errors
    ///
    /// As those of [`Transaction::put`].
    pub fn delete(&self, keyspace: &Keyspace, key: impl AsRef<[u8]>) -> Result<()> {
        self.keyspace(keyspace).delete(key)
    }

    /// Removes every key in `bounds` from `keyspace`: those that the transaction sees, and those
    /// that other commits add before this one. Empty or inverted bounds remove nothing.
    ///
    /// # Errors
    ///
    /// As those of [`Transaction::put`].
    pub fn delete_range(&self, keyspace: &Keyspace, bounds: impl KeyBounds) -> Result<()> {
        self.keyspace(keyspace).delete_range(bounds)
    }

    /// A place to which [`Transaction::rollback_to`] returns. From the first one on the transaction
    /// remembers how to take its writes back, which takes as much memory as they do.
    pub fn savepoint(&self) -> Savepoint {
        self.state.writes.lock().savepoint()
    }

    /// Takes back everything that was written after `savepoint`. It can be used again; savepoints
    /// made after it are gone. What was read meanwhile stays read: the commit depends on it.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if the savepoint is gone, or of
    /// another transaction; nothing is taken back then.
    pub fn rollback_to(&self, savepoint: Savepoint) -> Result<()> {
        self.state.writes.lock().rollback_to(savepoint)
    }

    /// Commits all writes, with the durability of the [options](TransactionOptions::durability), or
    /// none. Returns the sequence number of the last one: its place in the order of commits. One
    /// that has written nothing writes nothing, syncs nothing, meets no conflict, and returns
    /// [`Transaction::seq`].
    ///
    /// # Errors
    ///
    /// [`Error::Conflict`](crate::Error::Conflict) and
    /// [`Error::TransactionTooOld`](crate::Error::TransactionTooOld), for which
    /// [`Error::is_conflict`](crate::Error::is_conflict) is true: run the transaction again;
    /// [`Error::NoSuchKeyspace`](crate::Error::NoSuchKeyspace) if a keyspace that it wrote to was
    /// dropped; [`Error::Closed`](crate::Error::Closed). Nothing is written after these. The errors
    /// of writing and syncing the log are those of [`Db::write`](crate::Db::write).
    pub fn commit(self) -> Result<SeqNo> {
        self.state.commit(None)
    }

    /// The same with the durability named.
    pub fn commit_with(self, durability: Durability) -> Result<SeqNo> {
        self.state.commit(Some(durability))
    }

    /// Ends the transaction without writing anything, as dropping it does.
    pub fn rollback(self) {}
}
