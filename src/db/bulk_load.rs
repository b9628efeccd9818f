//! Sorted loads into a keyspace.

use std::fmt::Write as _;
use std::sync::Arc;

use crate::engine::EngineLoad;
use crate::error::{Error, Result};
use crate::kv::check_op;
use crate::store::{OpenKeyspace, Store};
use crate::types::{Op, SeqNo};
use crate::util::gate::{Pass, Stay};

/// A load of entries in the order of their keys, which go straight into the files of the keyspace:
/// several times as fast as batches of puts. Made by
/// [`Keyspace::bulk_load`](crate::Keyspace::bulk_load).
///
/// - **At once.** Nothing of it is visible before [`finish`](BulkLoad::finish), and then all of it
///   is. Dropping it instead undoes it, and so does a crash before `finish` returns, or the load is
///   there whole.
/// - **In order of commits.** The load comes after everything that was committed to the keyspace
///   before `finish` was called. It replaces what is there under the same keys, and leaves the rest
///   alone. Snapshots that were taken before see nothing of it. For
///   [`update`](crate::Kv::update) and its like, every key from the first to the last counts as
///   written.
/// - **Durable** when `finish` returns, whatever the durability of the handle.
/// - **Beside other work.** The keyspace can be read and written meanwhile. Commits to it wait
///   while `finish` makes the load a part of the tree; commits to other keyspaces do not.
///
/// Memory is bounded, whatever the size of the load. An LSM tree writes tables, and places each at
/// the lowest level where nothing older lies above it. A B-tree writes full leaves; if it holds
/// anything already, `finish` writes all of it again, merged with the load, which takes as long as
/// that takes and twice the space meanwhile; values that were stored apart are in leaves then. So a
/// small load into a large B-tree is a case for
/// [`write`](crate::Kv::write).
///
/// Values stay in the tables or leaves whatever
/// [`value_threshold_bytes`](crate::KeyspaceOptions::value_threshold_bytes) says. A load is not part
/// of what [`Options::record_to`](crate::Options::record_to) records.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let db = hedgerow::Db::open(dir.path().join("my.db"))?;
/// use hedgerow::EngineKind;
///
/// let squares = db.keyspace("squares", EngineKind::BTree)?;
/// let mut load = squares.bulk_load()?;
/// for n in 0..1000_u64 {
///     load.put(n.to_be_bytes(), (n * n).to_string())?;
/// }
/// assert!(load.put(7_u64.to_be_bytes(), "again").is_err()); // not in order, and left out
/// assert_eq!((load.len(), squares.is_empty()?), (1000, true));
/// load.finish()?;
/// assert_eq!(squares.get(7_u64.to_be_bytes())?.as_deref(), Some(&b"49"[..]));
/// # Ok::<(), hedgerow::Error>(())
/// ```
#[derive(Debug)]
#[must_use = "a load that is not finished is undone"]
pub struct BulkLoad {
    // Dropped first: the files are the keyspace's, whose directory stays locked as long as this
    // stays.
    load: Option<Box<dyn EngineLoad>>,
    _stay: Stay,
    open: Arc<OpenKeyspace>,
    store: Arc<Store>,
    last: Vec<u8>,
    entries: u64,
    failure: Option<Error>,
}

impl BulkLoad {
    pub(super) fn new(
        store: &Arc<Store>,
        open: &Arc<OpenKeyspace>,
        load: Box<dyn EngineLoad>,
        stay: Stay,
    ) -> Self {
        Self {
            load: Some(load),
            _stay: stay,
            open: Arc::clone(open),
            store: Arc::clone(store),
            last: Vec::new(),
            entries: 0,
            failure: None,
        }
    }

    /// Entries so far.
    pub fn len(&self) -> u64 {
        self.entries
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// Adds an entry.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] if the key does not come after that of the last entry, or if key
    /// or value are longer than [`MAX_KEY_LEN_BYTES`](crate::MAX_KEY_LEN_BYTES) or
    /// [`MAX_VALUE_LEN_BYTES`](crate::MAX_VALUE_LEN_BYTES). The entry is left out, and the load can
    /// go on. After any other error it cannot: further calls give the same error.
    pub fn put(&mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        let (key, value) = (key.as_ref(), value.as_ref());
        let Self {
            load,
            open,
            store,
            last,
            failure,
            ..
        } = self;
        let _pass = enter_to_write(store, open)?;
        check_op(&Op::Put { key, value })?;
        if self.entries > 0 && key <= &last[..] {
            return Err(out_of_order(key, last));
        }
        if let Some(error) = failure {
            return Err(error.clone());
        }
        let stored = open.with_stored_form(|form| form.of_value(key, value))?;
        let load = load.as_mut().expect("only finishing takes it");
        if let Err(error) = load.put(key, &stored) {
            *failure = Some(error.clone());
            return Err(error);
        }
        last.clear();
        last.extend_from_slice(key);
        self.entries += 1;
        Ok(())
    }

    /// Makes the load a part of the keyspace, durably and at once. Returns its sequence number, or,
    /// without entries, that of the last commit.
    ///
    /// # Errors
    ///
    /// After an error nothing of it is visible, and if the store still takes writes nothing will
    /// be. If it does not, because the log could not be synced, the load may be there, whole, when
    /// the store is opened again. [`Error::NoSuchKeyspace`] if the keyspace was dropped meanwhile,
    /// [`Error::Closed`] if the store was closed.
    pub fn finish(mut self) -> Result<SeqNo> {
        if let Some(error) = self.failure.take() {
            return Err(error);
        }
        let load = self.load.take().expect("taken once");
        let shared = &self.store.shared;
        if self.entries == 0 {
            let _pass = enter_to_write(&self.store, &self.open)?;
            let seq = shared.snapshot_tracker.published();
            shared.wait_durable(seq)?;
            return Ok(seq);
        }
        shared.finish_load(&self.open, load)
    }
}

fn enter_to_write<'a>(store: &'a Store, open: &OpenKeyspace) -> Result<Pass<'a>> {
    let (_, pass) = store.shared.enter_to_write()?;
    open.check_alive()?;
    Ok(pass)
}

#[cold]
fn out_of_order(key: &[u8], last: &[u8]) -> Error {
    let how = match key == last {
        true => "is there twice",
        false => "comes before the last one",
    };
    let mut what = format!(
        "a bulk load takes keys in rising order, and \"{}\" {how}",
        shown(key)
    );
    if key != last {
        let _ = write!(what, ", \"{}\"", shown(last));
    }
    Error::invalid(what)
}

/// The beginning of a key, for people.
fn shown(key: &[u8]) -> String {
    const SHOWN_BYTES: usize = 64;
    let cut = key.len().min(SHOWN_BYTES);
    let more = if cut < key.len() { "..." } else { "" };
    format!("{}{more}", key[..cut].escape_ascii())
}
