//! Filters: code of the user that looks at entries as background work comes by.

use std::fmt;

/// What a [`CompactionFilter`] says of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// It stays as it is.
    Keep,
    /// It goes, as if it were deleted.
    Drop,
    /// It has this value from now on. When it expires stays as it is. Cut to the longest value of
    /// the keyspace. The same value again counts as [`Verdict::Keep`].
    Replace(Vec<u8>),
}

/// Looks at the entries of a keyspace when background work comes by them, and decides what becomes
/// of them. Registered with [`Options::compaction_filter`](crate::Options::compaction_filter), and
/// chosen by its name with
/// [`KeyspaceOptions::compaction_filter`](crate::KeyspaceOptions#structfield.compaction_filter).
///
/// **When.** In an LSM tree, when a compaction rewrites the entry; in a B-tree, and in an LSM tree
/// with a merge operator, when a sweep comes by
/// ([`Options::sweep_period`](crate::Options#structfield.sweep_period)). Both look at all that
/// there is when [`Keyspace::compact`](crate::Keyspace::compact) is called. Until then the entry
/// shows as it was written, and an entry may be looked at many times, or, if it is overwritten
/// before, never.
///
/// **What sees it.** A snapshot that lived when the filter looked at an entry sees the entry as it
/// was, as does a scan that had begun. A snapshot or a read that begins later sees what the filter
/// made of it. What a compaction of an LSM tree decides is not in the log: if the power fails
/// before its end, the filter is asked again.
///
/// It is called by background threads, and by those that compact, without a lock, and must not
/// write to the store; nor close it, but on a thread of the store's, where
/// [`Db::close`](crate::Db::close) begins to close and does not wait. A panic in it stops the
/// writes of the store if it is in a thread of the store's; in a call of
/// [`Keyspace::compact`](crate::Keyspace::compact) or
/// [`Db::run_background_once`](crate::Db::run_background_once), or in a write that does background
/// work where there are no such threads, it goes on to the caller.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// use hedgerow::{CompactionFilter, EngineKind, KeyspaceOptions, Options, Verdict};
///
/// /// Events of before 2020 are not kept.
/// #[derive(Debug)]
/// struct Since2020;
///
/// impl CompactionFilter for Since2020 {
///     fn name(&self) -> &str {
///         "since-2020"
///     }
///
///     fn judge(&self, key: &[u8], _value: &[u8]) -> Verdict {
///         match key < b"2020".as_slice() {
///             true => Verdict::Drop,
///             false => Verdict::Keep,
///         }
///     }
/// }
///
/// let options = Options::new().compaction_filter(Since2020);
/// let db = options.open(dir.path().join("my.db"))?;
/// for engine in EngineKind::ALL {
///     let filtered = KeyspaceOptions::new(engine).compaction_filter("since-2020");
///     let events = db.keyspace_with(engine.name(), filtered)?;
///     events.put("2019-12-31", "old")?;
///     events.put("2020-01-01", "new")?;
///     events.compact()?;
///     assert_eq!(events.first()?.unwrap().0, "2020-01-01");
/// }
/// # Ok::<(), hedgerow::Error>(())
/// ```
pub trait CompactionFilter: fmt::Debug + Send + Sync {
    /// What keyspaces call it by, stored with them. At most 255 bytes.
    fn name(&self) -> &str;

    /// What becomes of an entry. Of a merge it sees the value, never an operand.
    fn judge(&self, key: &[u8], value: &[u8]) -> Verdict;
}
