//! [`Kv`]: reading from and writing to an ordered map of byte strings.

use std::io::Read;
use std::time::{Duration, SystemTime};

use super::atomic::{Atomic, Committed, Watching};
use super::batch::{Batch, check_op};
use super::read::KvRead;
use super::value_reader::source_error;
use crate::engine::EngineStats;
use crate::error::Result;
use crate::options::Durability;
use crate::types::{KeyBounds, KeyRange, KeySet, MAX_VALUE_LEN_BYTES, Op, SeqNo, Value};

/// Entries that [`Kv::retain`] looks at between two commits.
const RETAIN_ENTRIES: usize = 1000;
/// Bytes of keys and values that it looks at, likewise.
const RETAIN_BYTES: usize = 1 << 20;

/// What an [`update`](Kv::update) did.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Update {
    /// The value before; `None` if the key was absent.
    pub old: Option<Value>,
    /// The value afterwards; `None` if the key is absent now.
    pub new: Option<Value>,
    /// The commit; where nothing changed, one up to which the answer holds.
    pub seq: SeqNo,
}

/// Why [`compare_and_swap`](Kv::compare_and_swap) or [`put_if_absent`](Kv::put_if_absent) wrote
/// nothing: the key has another value.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Mismatch {
    /// The value that the key has; `None` if it is absent.
    pub current: Option<Value>,
}

/// Reading from and writing to an ordered map of byte strings.
///
/// Code that is generic over `Kv` runs on a [`Keyspace`](crate::Keyspace) of either engine and on
/// the in-memory [`Model`](crate::Model). Both have the same methods without the trait. It cannot
/// be implemented elsewhere.
///
/// Every write returns the sequence number of its commit: what has it or a lower one is durable
/// once [`Db::durable_seq`](crate::Db::durable_seq) has reached it. Commits have the durability of
/// the handle ([`Keyspace::with_durability`](crate::Keyspace::with_durability)).
///
/// Limits are checked before anything is written: keys up to
/// [`MAX_KEY_LEN_BYTES`](crate::MAX_KEY_LEN_BYTES), values up to
/// [`MAX_VALUE_LEN_BYTES`], batches up to
/// [`MAX_BATCH_LEN_BYTES`](crate::MAX_BATCH_LEN_BYTES); beyond them the error is
/// [`Error::InvalidArgument`](crate::Error::InvalidArgument).
///
/// A counter that many threads may increment at once:
///
/// ```
/// use hedgerow::{Kv, Model, Result};
///
/// fn increment(kv: &impl Kv, counter: &str) -> Result<u64> {
///     let mut count = 0;
///     kv.update(counter, |old| {
///         let old = old.and_then(|bytes| bytes.try_into().ok());
///         count = old.map_or(0, u64::from_le_bytes) + 1;
///         Some(count.to_le_bytes())
///     })?;
///     Ok(count)
/// }
///
/// let kv = Model::new();
/// increment(&kv, "visits")?;
/// assert_eq!(increment(&kv, "visits")?, 2);
/// # Ok::<(), hedgerow::Error>(())
/// ```
///
/// The other ways to write:
///
/// ```
/// # use hedgerow::{Batch, Model};
/// let kv = Model::new();
/// let first = kv.put("ada", "1815")?;
/// let second = kv.put("bob", "1970")?;
/// assert!(second > first);
/// kv.put_from("ada", &b"1815"[..])?;
/// kv.delete("bob")?;
/// assert_eq!(kv.remove("ada")?, Some("1815".into()));
///
/// assert!(kv.put_if_absent("ada", "1815")?.is_ok());
/// let taken = kv.put_if_absent("ada", "1816")?.unwrap_err();
/// assert_eq!(taken.current, Some("1815".into()));
/// assert!(kv.compare_and_swap("ada", Some("1815"), Some("1852"))?.is_ok());
///
/// let mut batch = Batch::new();
/// batch.put("eve", "1");
/// batch.delete_range(.."b");
/// kv.write(batch)?;
/// assert_eq!(kv.pop_first()?.unwrap().0, "eve");
/// assert_eq!(kv.pop_last()?, None);
///
/// for n in 0..10 {
///     kv.put(n.to_string(), "")?;
/// }
/// assert_eq!(kv.retain(|key, _| key < b"5".as_slice())?, 5);
/// kv.delete_range("3"..)?;
/// assert_eq!(kv.len()?, 3);
/// let before = kv.snapshot();
/// kv.clear()?;
/// assert!(kv.is_empty()? && before.len()? == 3);
/// kv.flush()?;
/// # Ok::<(), hedgerow::Error>(())
/// ```
pub trait Kv: KvRead + Atomic {
    /// What [`Kv::snapshot`] returns.
    type Snapshot: KvRead;

    /// Sets `key` to `value`.
    #[doc(alias = "insert")]
    #[doc(alias = "set")]
    fn put(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<SeqNo>;

    /// Sets `key` to all that `source` gives. A [`Keyspace`](crate::Keyspace) whose values neither
    /// expire nor are merged does not have it in memory as a whole: see
    /// [`ValueWriter`](crate::ValueWriter), with which it does this. Nothing waits for the source,
    /// and nothing is written if that fails, or gives more than [`MAX_VALUE_LEN_BYTES`].
    ///
    /// # Errors
    ///
    /// An error of the source is the `source` of an [`Error::Io`](crate::Error::Io), unless there
    /// is an error of the store in it, as in those of a [`ValueReader`](crate::ValueReader).
    fn put_from(&self, key: impl AsRef<[u8]>, source: impl Read) -> Result<SeqNo> {
        let key = key.as_ref();
        check_op(&Op::Put { key, value: &[] })?;
        let mut value = Vec::new();
        let mut source = source.take(MAX_VALUE_LEN_BYTES as u64 + 1);
        source.read_to_end(&mut value).map_err(source_error)?;
        self.put(key, value)
    }

    /// Removes `key`, which may be absent. Does not read: [`Kv::remove`] returns what was there.
    fn delete(&self, key: impl AsRef<[u8]>) -> Result<SeqNo>;

    /// Sets `key` to `value`, which expires `ttl` after the commit: reads that begin then do not
    /// see it any more, as if it had been deleted. Whole milliseconds count.
    ///
    /// A snapshot, a transaction and a scan look at the clock once, when they begin: what has not
    /// expired then does not while they live. An entry expires whole, with its key; a later write
    /// to the key decides anew. What has expired leaves the disk in background work
    /// ([`Options::sweep_period`](crate::Options#structfield.sweep_period)).
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if the keyspace was made without
    /// [`expiry`](crate::KeyspaceOptions#structfield.expiry), or `ttl` is less than a millisecond.
    fn put_with_ttl(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        ttl: Duration,
    ) -> Result<SeqNo> {
        let mut batch = Batch::new();
        batch.put_with_ttl(key, value, ttl);
        self.write(batch)
    }

    /// The same with the time at which the value expires.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if the keyspace was made without
    /// [`expiry`](crate::KeyspaceOptions#structfield.expiry), or the time has passed.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// use std::time::{Duration, SystemTime};
    ///
    /// use hedgerow::{EngineKind, Kv, KvRead, KeyspaceOptions, Options};
    ///
    /// // B-tree keyspaces are looked through for what has expired once in an hour, at most.
    /// let options = Options::new().sweep_period(Duration::from_secs(3600));
    /// let db = options.open(dir.path().join("my.db"))?;
    /// let week = Duration::from_secs(7 * 24 * 3600);
    /// let options = KeyspaceOptions::new(EngineKind::BTree).expiry(true).default_ttl(week);
    /// let sessions = db.keyspace_with("sessions", options)?;
    /// sessions.put("alder", "for a week")?;
    /// let midnight = SystemTime::UNIX_EPOCH + Duration::from_secs(4_102_444_800);
    /// sessions.put_until("birch", "until the year 2100", midnight)?;
    /// assert_eq!(sessions.expires_at("birch")?, Some(midnight));
    /// assert!(sessions.expires_at("alder")?.unwrap() > SystemTime::now());
    /// # Ok::<(), hedgerow::Error>(())
    /// ```
    fn put_until(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        time: SystemTime,
    ) -> Result<SeqNo> {
        let mut batch = Batch::new();
        batch.put_until(key, value, time);
        self.write(batch)
    }

    /// When the value of `key` expires; `None` if it never does, or there is none.
    fn expires_at(&self, key: impl AsRef<[u8]>) -> Result<Option<SystemTime>>;

    /// Has the operator of the keyspace make a new value of the one that `key` has, or of none, and
    /// `operand`. Nothing is read: many threads may merge into one key, and none of them conflicts
    /// with another. A transaction that has read the key conflicts with a merge as with a put.
    ///
    /// Where values expire, a merge keeps the time at which the value does; where there is none, or
    /// it has expired by the time of the commit, the keyspace's
    /// [`default_ttl`](crate::KeyspaceOptions#structfield.default_ttl) counts.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if the keyspace has no
    /// [operator](crate::KeyspaceOptions#structfield.merge_operator), the operator refuses the
    /// operand, or that is longer than [`MAX_VALUE_LEN_BYTES`] less 64.
    fn merge(&self, key: impl AsRef<[u8]>, operand: impl AsRef<[u8]>) -> Result<SeqNo>;

    /// Removes every key in `bounds`. Empty or inverted bounds remove nothing.
    fn delete_range(&self, bounds: impl KeyBounds) -> Result<SeqNo>;

    /// Commits all operations of `batch`, or none, with the durability of the handle.
    fn write(&self, batch: Batch) -> Result<SeqNo>;

    /// Commits all operations of `batch`, or none, with the durability named.
    fn write_with(&self, batch: Batch, durability: Durability) -> Result<SeqNo>;

    /// An immutable view of everything committed so far.
    fn snapshot(&self) -> Self::Snapshot;

    /// Brings everything committed so far into the engine's own files, durably.
    fn flush(&self) -> Result<()>;

    /// Figures about the keyspace, now.
    fn stats(&self) -> EngineStats;

    /// Removes every key.
    fn clear(&self) -> Result<SeqNo> {
        self.delete_range(..)
    }

    /// Replaces the value of `key` by what `f` makes of it, in one step: no other write to the key
    /// comes between. `f` is given `None` if the key is absent, and returns `None` to remove it.
    ///
    /// No lock is held while `f` runs. It is called again, with the new value, if the key was
    /// written meanwhile; so it should have no other effect than its result. An unchanged value is
    /// not written.
    fn update<V: AsRef<[u8]>>(
        &self,
        key: impl AsRef<[u8]>,
        mut f: impl FnMut(Option<&[u8]>) -> Option<V>,
    ) -> Result<Update> {
        let key = key.as_ref();
        check_op(&Op::Delete { key })?;
        let range = KeyRange::one(key);
        loop {
            let watch = self.watch()?;
            let old = self.get(key)?;
            let new = f(old.as_deref());
            let new_bytes = new.as_ref().map(AsRef::as_ref);
            if old.as_deref() == new_bytes {
                // What was read may be of a commit behind the watch.
                let seq = self.watch()?.since();
                return Ok(Update {
                    new: old.clone(),
                    old,
                    seq,
                });
            }
            let mut batch = Batch::new();
            match new_bytes {
                Some(value) => batch.put(key, value),
                None => batch.delete(key),
            }
            let reads = KeySet::of(&range);
            if let Committed::At(seq) = self.commit_if_unchanged(&watch, reads, batch)? {
                let new = new_bytes.map(Value::copy_from);
                return Ok(Update { old, new, seq });
            }
        }
    }

    /// Sets `key` to `new` if its value is `expected`, in one step; `None` is an absent key on
    /// either side. Otherwise nothing is written, and the inner error says what is there.
    fn compare_and_swap(
        &self,
        key: impl AsRef<[u8]>,
        expected: Option<impl AsRef<[u8]>>,
        new: Option<impl AsRef<[u8]>>,
    ) -> Result<Result<SeqNo, Mismatch>> {
        let expected = expected.as_ref().map(AsRef::as_ref);
        let new = new.as_ref().map(AsRef::as_ref);
        let mut fits = false;
        let update = self.update(key, |old| {
            fits = old == expected;
            match fits {
                true => new.map(<[u8]>::to_vec),
                false => old.map(<[u8]>::to_vec),
            }
        })?;
        Ok(match fits {
            true => Ok(update.seq),
            false => Err(Mismatch {
                current: update.old,
            }),
        })
    }

    /// Sets `key` to `value` if it is absent, in one step. Otherwise nothing is written, and the
    /// inner error says what is there.
    fn put_if_absent(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
    ) -> Result<Result<SeqNo, Mismatch>> {
        self.compare_and_swap(key, None::<&[u8]>, Some(value))
    }

    /// Removes `key` and returns the value that it had, in one step.
    #[doc(alias = "take")]
    fn remove(&self, key: impl AsRef<[u8]>) -> Result<Option<Value>> {
        Ok(self.update(key, |_| None::<&[u8]>)?.old)
    }

    /// Removes the entry with the lowest key and returns it, in one step: two threads never get
    /// the same entry.
    fn pop_first(&self) -> Result<Option<(Value, Value)>> {
        loop {
            let watch = self.watch()?;
            let Some((key, value)) = self.first()? else {
                return Ok(None);
            };
            let range = KeyRange::new(&..=&key);
            let mut batch = Batch::new();
            batch.delete(&key);
            let reads = KeySet::of(&range);
            if let Committed::At(_) = self.commit_if_unchanged(&watch, reads, batch)? {
                return Ok(Some((key, value)));
            }
        }
    }

    /// Removes the entry with the highest key and returns it, in one step.
    fn pop_last(&self) -> Result<Option<(Value, Value)>> {
        loop {
            let watch = self.watch()?;
            let Some((key, value)) = self.last()? else {
                return Ok(None);
            };
            let range = KeyRange::new(&(&key..));
            let mut batch = Batch::new();
            batch.delete(&key);
            let reads = KeySet::of(&range);
            if let Committed::At(_) = self.commit_if_unchanged(&watch, reads, batch)? {
                return Ok(Some((key, value)));
            }
        }
    }

    /// Removes every entry for which `keep` returns false; returns how many.
    ///
    /// Entries are looked at in key order and removed some hundred at a time: each such commit is
    /// atomic, the whole is not. An entry is only removed with the value that `keep` was given; it
    /// is called again for entries near one of those that was written meanwhile. No lock is held
    /// while it runs. After an error, what was removed stays removed.
    fn retain(&self, mut keep: impl FnMut(&[u8], &[u8]) -> bool) -> Result<u64> {
        let mut removed = 0;
        let mut start = Vec::new();
        loop {
            let watch = self.watch()?;
            let mut scan = self.range(start.as_slice()..);
            let mut batch = Batch::new();
            // What stays may be written meanwhile, again and again.
            let mut reads = KeySet::default();
            let mut last = Vec::new();
            let (mut entries, mut bytes) = (0, 0);
            while entries < RETAIN_ENTRIES && bytes < RETAIN_BYTES {
                let seen = scan.next_with(|key, value| {
                    if !keep(key, value) {
                        batch.delete(key);
                        reads.insert_key(key);
                    }
                    bytes += key.len() + value.len();
                    last.clear();
                    last.extend_from_slice(key);
                })?;
                if seen.is_none() {
                    break;
                }
                entries += 1;
            }
            if entries == 0 {
                return Ok(removed);
            }
            let count = batch.len() as u64;
            if count > 0 {
                match self.commit_if_unchanged(&watch, reads, batch)? {
                    Committed::At(_) => removed += count,
                    Committed::Conflict => continue,
                }
            }
            start = last;
            start.push(0);
        }
    }
}
