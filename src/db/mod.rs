//! The store: a thin handle that owns the shared.

mod bulk_load;
mod durable;
mod keyspace;
mod keyspace_snapshot;
mod pinned_views;
mod snapshot;
#[cfg(all(test, not(shuttle)))]
mod tests;
mod transaction;
mod value_writer;
mod write_batch;

use std::path::Path;
use std::sync::Arc;

use crate::engine::{EngineHost, InspectDetail, Inspection, VerifyReport};
use crate::error::{Error, Result};
use crate::options::{Durability, EngineKind, KeyspaceOptions, Options};
use crate::store;
use crate::store::{Change, DbStats, Store};
use crate::trace::RecordingStats;
use crate::types::SeqNo;
use crate::util::mutants::mutated;

pub use bulk_load::BulkLoad;
pub use durable::Durable;
pub use keyspace::Keyspace;
pub use keyspace_snapshot::KeyspaceSnapshot;
pub use snapshot::Snapshot;
pub use transaction::{
    Isolation, Savepoint, Transacted, Transaction, TransactionKeyspace, TransactionOptions,
};
pub use value_writer::ValueWriter;
pub use write_batch::WriteBatch;

/// A store: a directory with a log and any number of keyspaces, each on the engine of its choice.
///
/// A handle is cheap to clone and may be used from any thread. The store closes when the last
/// handle (of the store, a keyspace or a snapshot) is dropped; nothing that was committed is lost
/// then, whatever its durability. [`Db::close`] does the same and reports errors.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("my.db");
/// use hedgerow::{Db, Durability, EngineKind, Kv, KvRead};
///
/// let db = Db::open(&path)?;
/// let users = db.keyspace("users", EngineKind::BTree)?;
/// let events = db.keyspace("events", EngineKind::Lsm)?;
///
/// users.put(b"ada", b"1815")?;
/// assert_eq!(users.get(b"ada")?.unwrap(), b"1815");
///
/// // One atomic commit across both engines.
/// let mut batch = db.batch();
/// batch.put(&users, b"bob", b"1970");
/// batch.delete_range(&events, "2020"..);
/// db.write(batch, Durability::Sync)?;
///
/// // Consistent over all keyspaces.
/// let snapshot = db.snapshot();
/// for item in snapshot.range(&users, "a".."c") {
///     let (key, value) = item?;
///     println!("{key:?} = {value:?}");
/// }
/// # Ok::<(), hedgerow::Error>(())
/// ```
///
/// Keyspaces come and go, and background work can be waited for, or be done by the caller:
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("my.db");
/// use hedgerow::{Db, EngineKind, InspectDetail, KeyspaceOptions, Options};
///
/// let db = Db::open_with(&path, Options::new().background_threads(0))?;
/// let options = KeyspaceOptions::new(EngineKind::Lsm).write_buffer_bytes(1 << 20);
/// db.keyspace_with("events", options)?.put("2026", "a hedge")?;
/// let events = db.existing_keyspace("events")?.unwrap();
/// assert_eq!(db.keyspaces()[0].name, events.name());
///
/// db.sync()?; // what is committed survives a power loss
/// db.flush()?; // it is in the files of its engine, too
/// while db.run_background_once()? {} // what threads would do otherwise
/// db.wait_idle()?;
/// db.compact()?;
/// assert!(db.verify()?.is_clean());
/// let whole = db.inspect(InspectDetail::Levels)?;
/// assert!(db.stats().disk_bytes() > 0 && db.recording().is_none());
/// assert_eq!(db.path(), path);
///
/// drop(events);
/// db.drop_keyspace("events")?;
/// db.close()?;
/// # drop(whole);
/// # Ok::<(), hedgerow::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Db {
    store: Arc<Store>,
}

/// A keyspace as listed by [`Db::keyspaces`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyspaceInfo {
    /// Its name.
    pub name: String,
    /// Its number; never used twice within a store.
    pub id: u32,
    /// Its engine.
    pub engine: EngineKind,
}

impl Options {
    /// Opens the store in directory `path` with these options.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path().join("my.db");
    /// use hedgerow::{Durability, Options};
    /// let db = Options::new().durability(Durability::Buffered).open(&path)?;
    /// # Ok::<(), hedgerow::Error>(())
    /// ```
    pub fn open(self, path: impl AsRef<Path>) -> Result<Db> {
        Db::open_with(path, self)
    }
}

impl Db {
    /// Opens the store in directory `path`, creating it if there is none, with default
    /// [`Options`].
    ///
    /// Recovers what was committed before a crash; there is no separate repair.
    ///
    /// # Errors
    ///
    /// [`Error::Locked`] if the store is open elsewhere, [`Error::Corruption`] if a file is
    /// damaged, [`Error::UnsupportedFormat`] if it is of another format version,
    /// [`Error::InvalidArgument`] if the directory holds something else.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(path, Options::default())
    }

    /// Opens the store in directory `path` with `options`. See [`Db::open`].
    pub fn open_with(path: impl AsRef<Path>, options: Options) -> Result<Self> {
        Ok(Self {
            store: store::open(path.as_ref(), options)?,
        })
    }

    /// The keyspace `name`, created on `engine` with default options if there is none; one that
    /// exists keeps its options.
    ///
    /// Creating one is a commit with the durability of [`Options::durability`], and has its place
    /// among the others: whatever survives a crash that was written to it, so does the keyspace.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] if it exists on the other engine, or the name is empty, longer
    /// than 255 bytes, or holds control characters.
    pub fn keyspace(&self, name: &str, engine: EngineKind) -> Result<Keyspace> {
        self.keyspace_with(name, KeyspaceOptions::new(engine))
    }

    /// The keyspace `name`, created with `options` if there is none. Of one that exists, the
    /// changeable options that are set in `options` are changed, durably and at once, for all
    /// handles; [`KeyspaceOptions`] says which are.
    ///
    /// # Errors
    ///
    /// As [`Db::keyspace`]; [`Error::InvalidArgument`] also if a fixed option is set to another
    /// value than the keyspace has, or an option is out of range or of the other engine.
    pub fn keyspace_with(&self, name: &str, options: KeyspaceOptions) -> Result<Keyspace> {
        let shared = &self.store.shared;
        let _pass = shared.enter()?;
        let open = shared.keyspace_with(name, &options)?;
        Ok(Keyspace::new(Arc::clone(&self.store), open))
    }

    /// The keyspace `name`, if there is one.
    pub fn existing_keyspace(&self, name: &str) -> Result<Option<Keyspace>> {
        let _pass = self.store.shared.enter()?;
        let open = self.store.shared.keyspaces.by_name(name);
        Ok(open.map(|open| Keyspace::new(Arc::clone(&self.store), open)))
    }

    /// All keyspaces, in the order of their creation.
    pub fn keyspaces(&self) -> Vec<KeyspaceInfo> {
        let all = self.store.shared.keyspaces.all();
        all.iter()
            .map(|open| KeyspaceInfo {
                name: open.name().to_string(),
                id: open.id.0,
                engine: open.options.engine(),
            })
            .collect()
    }

    /// Removes the keyspace `name` with everything in it. Its files go when the last
    /// handle, scan or snapshot that uses it does; handles of it fail with
    /// [`Error::NoSuchKeyspace`] from now on. The name may be used again at once.
    ///
    /// The removal and every commit that ended before are durable when this returns, whatever their
    /// durability: a power loss never undoes a commit and keeps the removal.
    ///
    /// After an error the keyspace is there as before, but for one of syncing the log: as after any
    /// such error it is unknown until the store is reopened whether the keyspace is gone, and the
    /// store takes no more writes.
    pub fn drop_keyspace(&self, name: &str) -> Result<()> {
        let (_, _pass) = self.store.shared.enter_to_write()?;
        self.store.shared.drop_keyspace(name)
    }

    /// Gives the keyspace `old` the name `new`, with the durability of
    /// [`Options::durability`]. Handles, scans and snapshots of it stay valid, and handles see the
    /// new name. `old` may be used again at once: [`Db::keyspace`] makes another keyspace then.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchKeyspace`] if there is no keyspace `old`, [`Error::InvalidArgument`] if there
    /// is one of the name `new` already, or the name is not allowed.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// use hedgerow::{Db, EngineKind};
    ///
    /// let db = Db::open(dir.path().join("my.db"))?;
    /// let next = db.keyspace("users-2", EngineKind::BTree)?;
    /// next.put("ada", "1815")?;
    /// db.rename_keyspace("users-2", "users")?;
    /// assert_eq!(next.name(), "users");
    /// assert!(db.existing_keyspace("users-2")?.is_none());
    /// # Ok::<(), hedgerow::Error>(())
    /// ```
    pub fn rename_keyspace(&self, old: &str, new: &str) -> Result<()> {
        let (_, _pass) = self.store.shared.enter_to_write()?;
        self.store.shared.rename_keyspace(old, new)
    }

    /// An empty batch for [`Db::write`].
    pub fn batch(&self) -> WriteBatch {
        WriteBatch::new()
    }

    /// Commits all operations of `batch`, or none, whatever the engines of its keyspaces.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] if a limit was exceeded or a keyspace belongs to another store;
    /// nothing is written then.
    pub fn write(&self, batch: WriteBatch, durability: Durability) -> Result<SeqNo> {
        let parts = batch.into_parts(&self.store)?;
        self.store.shared.commit(Change::Many(parts), durability)
    }

    /// Begins a serializable [`Transaction`] over all keyspaces, at what is committed now.
    ///
    /// # Errors
    ///
    /// [`Error::ReadOnly`] in a store that was opened read-only ([`Db::transaction_with`] and
    /// [`TransactionOptions::read_only`] begin one there), [`Error::Closed`].
    pub fn transaction(&self) -> Result<Transaction> {
        self.transaction_with(TransactionOptions::new())
    }

    /// Begins a transaction with `options`. See [`Db::transaction`].
    ///
    /// # Errors
    ///
    /// Also [`Error::InvalidArgument`] if a keyspace of the options belongs to another store,
    /// [`Error::NoSuchKeyspace`] if it was dropped.
    pub fn transaction_with(&self, options: TransactionOptions) -> Result<Transaction> {
        Transaction::begin(&self.store, &options)
    }

    /// Runs `run` in a serializable [`Transaction`] and commits it. After a conflict it runs it
    /// again, 100 times at most, with pauses between; so `run` should have no other effect than
    /// what it does with the transaction and returns. If `run` fails, nothing is written.
    ///
    /// Transfers between accounts lose no money, however many there are at once:
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = hedgerow::Db::open(dir.path().join("my.db"))?;
    /// use hedgerow::{Db, EngineKind, Keyspace, Transaction};
    ///
    /// #[derive(Debug)]
    /// enum TransferError {
    ///     NotEnough { balance: u64 },
    ///     Store(hedgerow::Error),
    /// }
    ///
    /// impl From<hedgerow::Error> for TransferError {
    ///     fn from(error: hedgerow::Error) -> Self {
    ///         Self::Store(error)
    ///     }
    /// }
    ///
    /// fn balance(tx: &Transaction, bank: &Keyspace, account: &str) -> hedgerow::Result<u64> {
    ///     let found = tx.get(bank, account)?;
    ///     Ok(found.map_or(0, |bytes| u64::from_le_bytes(bytes[..].try_into().unwrap())))
    /// }
    ///
    /// fn transfer(
    ///     db: &Db,
    ///     bank: &Keyspace,
    ///     (from, to): (&str, &str),
    ///     amount: u64,
    /// ) -> Result<(), TransferError> {
    ///     db.transact(|tx| {
    ///         let balance_before = balance(tx, bank, from)?;
    ///         let Some(left) = balance_before.checked_sub(amount) else {
    ///             return Err(TransferError::NotEnough { balance: balance_before });
    ///         };
    ///         tx.put(bank, from, left.to_le_bytes())?;
    ///         let other = balance(tx, bank, to)?;
    ///         tx.put(bank, to, (other + amount).to_le_bytes())?;
    ///         Ok(())
    ///     })
    /// }
    ///
    /// let bank = db.keyspace("bank", EngineKind::BTree)?;
    /// bank.put("ada", 100_u64.to_le_bytes())?;
    /// std::thread::scope(|scope| {
    ///     for _ in 0..4 {
    ///         scope.spawn(|| transfer(&db, &bank, ("ada", "bob"), 20).unwrap());
    ///     }
    /// });
    /// let refused = transfer(&db, &bank, ("ada", "bob"), 30).unwrap_err();
    /// assert!(matches!(refused, TransferError::NotEnough { balance: 20 }));
    /// assert_eq!(bank.get("bob")?.unwrap(), 80_u64.to_le_bytes());
    /// # Ok::<(), hedgerow::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Those of `run`; those of [`Db::transaction`]; those of [`Transaction::commit`], conflicts
    /// only when the last attempt met one.
    pub fn transact<T, E: From<Error>>(
        &self,
        run: impl FnMut(&Transaction) -> Result<T, E>,
    ) -> Result<T, E> {
        let transacted = self.transact_with(TransactionOptions::new(), run)?;
        Ok(transacted.value)
    }

    /// As [`Db::transact`] with `options`; also returns the place in the order of commits.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = hedgerow::Db::open(dir.path().join("my.db"))?;
    /// use hedgerow::{Durability, EngineKind, Error, TransactionOptions};
    ///
    /// let events = db.keyspace("events", EngineKind::Lsm)?;
    /// let options = TransactionOptions::new().durability(Durability::Buffered);
    /// let done = db.transact_with(options, |tx| {
    ///     let last = tx.keyspace(&events).last()?;
    ///     let next = last.map_or(0, |(key, _)| u64::from_be_bytes(key[..].try_into().unwrap()) + 1);
    ///     tx.put(&events, next.to_be_bytes(), "a hedge")?;
    ///     Ok::<_, Error>(next)
    /// })?;
    /// assert_eq!((done.value, done.conflicts), (0, 0));
    /// db.wait_durable(done.seq)?;
    /// # Ok::<(), hedgerow::Error>(())
    /// ```
    pub fn transact_with<T, E: From<Error>>(
        &self,
        options: TransactionOptions,
        run: impl FnMut(&Transaction) -> Result<T, E>,
    ) -> Result<Transacted<T>, E> {
        transaction::transact(&self.store, &options, run)
    }

    /// An immutable view of all keyspaces at this moment, consistent across them.
    pub fn snapshot(&self) -> Snapshot {
        if let Some(recorder) = &self.store.shared.recorder {
            recorder.snapshot(None);
        }
        Snapshot::new(&self.store)
    }

    /// Returns when every commit so far would survive a power loss.
    pub fn sync(&self) -> Result<()> {
        let _pass = self.store.shared.enter_to_write()?;
        if let Some(recorder) = &self.store.shared.recorder {
            recorder.sync();
        }
        self.store.shared.coordinator.sync_log()
    }

    /// Brings everything committed so far into the engines' own files, durably: memtables into
    /// tables, dirty pages into the page file. Makes the next open faster; nothing needs it. Of
    /// many keyspaces several are flushed at a time, with
    /// [`Options::background_threads`](crate::Options) above 0.
    pub fn flush(&self) -> Result<()> {
        let _pass = self.store.shared.enter_to_write()?;
        if let Some(recorder) = &self.store.shared.recorder {
            recorder.flush(None);
        }
        self.store.shared.flush_all()?;
        // Keyspaces that were made or renamed since are in the log alone.
        if !mutated!("flush-forgets-changes-of-keyspaces") {
            self.store.shared.coordinator.sync_log()?;
        }
        self.store.shared.coordinator.progressed();
        Ok(())
    }

    /// Brings all files into their best shape. See [`Keyspace::compact`].
    pub fn compact(&self) -> Result<()> {
        let _pass = self.store.shared.enter_to_write()?;
        if let Some(recorder) = &self.store.shared.recorder {
            recorder.compact(None);
        }
        for open in self.store.shared.keyspaces.all().iter() {
            match self.store.shared.compact(open) {
                // It was dropped meanwhile.
                Err(Error::NoSuchKeyspace { .. }) => {}
                done => done?,
            }
        }
        self.store.shared.coordinator.progressed();
        Ok(())
    }

    /// Returns when no flush, checkpoint or compaction is due or running: when the store has
    /// caught up.
    pub fn wait_idle(&self) -> Result<()> {
        drop(self.store.shared.enter_to_write()?);
        self.store.shared.wait_idle()
    }

    /// Does one unit of background work on the calling thread; false if none is due. For stores
    /// opened with [`Options::background_threads`] 0, where no thread does it.
    pub fn run_background_once(&self) -> Result<bool> {
        let _pass = self.store.shared.enter_to_write()?;
        self.store.shared.run_background_once()
    }

    /// Reads everything and checks every structural invariant. An `Err` is trouble with
    /// reading; damage is reported in the list.
    pub fn verify(&self) -> Result<VerifyReport> {
        let _stay = self.store.shared.stay()?;
        let mut report = VerifyReport::default();
        for open in self.store.shared.keyspaces.all().iter() {
            let mut part = open.engine.verify()?;
            for problem in &mut part.problems {
                problem.keyspace = Some(open.name().to_string());
            }
            report.merge(part);
        }
        self.store.shared.verify_own_files(&mut report)?;
        Ok(report)
    }

    /// What is inside: the catalogue, the WAL manifest, the log's segments, and each keyspace as
    /// [`Keyspace::inspect`] shows it, one after the other. Commits go on meanwhile; a flush, a
    /// checkpoint or an edit of a manifest that is running is waited for. Takes as much memory as
    /// what is looked at has parts. Damage is a figure of the part that has it.
    ///
    /// # Errors
    ///
    /// Trouble with reading, and [`Error::Closed`].
    pub fn inspect(&self, detail: InspectDetail) -> Result<Inspection> {
        let _stay = self.store.shared.stay()?;
        self.store.shared.inspect(detail)
    }

    /// Figures about the store and its keyspaces, now.
    pub fn stats(&self) -> DbStats {
        self.store.shared.stats()
    }

    /// Every commit up to this number survives a power loss. Writes return the numbers of their
    /// commits.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// use hedgerow::{Db, Durability, EngineKind};
    ///
    /// let db = Db::open(dir.path().join("my.db"))?;
    /// let events = db.keyspace("events", EngineKind::Lsm)?;
    /// let events = events.with_durability(Durability::Buffered);
    /// let seq = events.put("2026", "a hedge")?;
    /// db.wait_durable(seq)?;
    /// assert!(db.durable_seq() >= seq);
    /// # Ok::<(), hedgerow::Error>(())
    /// ```
    pub fn durable_seq(&self) -> SeqNo {
        self.store.shared.durable_seq()
    }

    /// Returns when the commit `seq`, and with it every earlier one, survives a power loss. Syncs
    /// the log on this thread if that is not so yet.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] if no commit has this number; the error of the sync, after which
    /// the store takes no more writes.
    pub fn wait_durable(&self, seq: SeqNo) -> Result<()> {
        self.store.shared.wait_durable(seq)
    }

    /// A future of [`Db::wait_durable`], for any runtime or none: the log is synced by the store's
    /// own thread, once for all who wait. With [`Options::background_threads`] 0 there is no such
    /// thread, and polling syncs.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    /// # runtime.block_on(async {
    /// # let db = hedgerow::Db::open(dir.path().join("my.db"))?;
    /// # let events = db.keyspace("events", hedgerow::EngineKind::Lsm)?;
    /// # let events = events.with_durability(hedgerow::Durability::Buffered);
    /// let seq = events.put("2026", "a hedge")?;
    /// db.durable(seq).await?;
    /// # Ok::<(), hedgerow::Error>(())
    /// # }).unwrap();
    /// ```
    pub fn durable(&self, seq: SeqNo) -> Durable {
        Durable::new(&self.store, seq)
    }

    /// Figures about the trace that is being recorded; `None` in a store that records none.
    pub fn recording(&self) -> Option<RecordingStats> {
        let recorder = self.store.shared.recorder.as_ref()?;
        Some(recorder.stats())
    }

    /// The directory of the store.
    pub fn path(&self) -> &Path {
        &self.store.shared.dir
    }

    /// Closes the store for all handles. Refuses what begins from now on with [`Error::Closed`],
    /// waits for calls of other threads that run, of which compactions are given up with that
    /// error, makes every commit durable, and releases the lock. A second call waits for the first
    /// and returns what it returned.
    ///
    /// Scans and snapshots that were taken before can still be read. While one of them lives, or a
    /// closure that was given to [`get_with`](Keyspace::get_with) or a
    /// [`verify`](Db::verify) runs, the directory stays locked: opening it fails with
    /// [`Error::Locked`].
    ///
    /// Called on a thread of the store's, by a [`CompactionFilter`](crate::CompactionFilter) say,
    /// it makes every commit durable and waits for nothing else: calls are refused from then on,
    /// and the lock is released by a call of another thread, or with the last handle.
    pub fn close(&self) -> Result<()> {
        self.store.close()
    }
}
