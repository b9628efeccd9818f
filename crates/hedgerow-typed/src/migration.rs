//! Migrations: rows of an earlier version become rows of this one.
//!
//! Rows are converted into a keyspace of their own, some hundred in a commit that also notes how
//! far it has come, so that a crash or an error of the store loses no more than one commit. The
//! last commit makes the record name the new keyspace, and the old one as dropped: there is no
//! moment at which the table is partly old. From the first commit on, no handle can write to the
//! old rows (TC3), so none are missed. A row that expires does so when the one before would have.

use std::time::{Duration, SystemTime};

use hedgerow::{Db, Durability, Keyspace, KeyspaceOptions, Transaction, TransactionOptions};

use crate::catalog;
use crate::error::{Error, Result, check_key_len};
use crate::record::{CopyRecord, Record};

/// Rows in a commit, at most.
pub(crate) const STEP_ROWS: usize = 1000;
/// Bytes of rows in a commit, about.
pub(crate) const STEP_BYTES: usize = 1 << 20;

/// A row as it becomes, in bytes.
type Convert = dyn Fn(&[u8], &[u8]) -> Result<Option<(Vec<u8>, Vec<u8>)>> + Send + Sync;

/// How rows of one earlier version become rows of this one.
pub(crate) struct Migration {
    pub(crate) version: u32,
    pub(crate) key_schema: String,
    pub(crate) value_schema: String,
    pub(crate) convert: Box<Convert>,
}

/// What the table is to become.
pub(crate) struct Wanted<'a> {
    pub(crate) table: &'a str,
    pub(crate) version: u32,
    pub(crate) key_schema: String,
    pub(crate) value_schema: String,
    pub(crate) options: KeyspaceOptions,
}

/// Runs `step` in transactions that need not be durable at once: what follows them makes them so,
/// and a crash before that does no more than have steps done again.
pub(crate) fn transact<T>(db: &Db, step: impl FnMut(&Transaction) -> Result<T>) -> Result<T> {
    let options = TransactionOptions::new().durability(Durability::Buffered);
    Ok(db.transact_with(options, step)?.value)
}

/// Brings the table to the version wanted, from where an earlier call has come.
pub(crate) fn run(
    db: &Db,
    records: &Keyspace,
    migration: &Migration,
    wanted: &Wanted<'_>,
) -> Result<()> {
    let Some(record) = begin(db, records, migration, wanted)? else {
        return Ok(());
    };
    let Some(copy) = &record.copy else {
        return Ok(());
    };
    let from = catalog::named(db, wanted.table, record.keyspace)?;
    let to = catalog::named(db, wanted.table, copy.keyspace)?;
    let mut copying = Copying {
        records,
        migration,
        wanted,
        from_expires: from.options().expiry == Some(true),
        to_expires: to.options().expiry == Some(true),
        from,
        to,
        first_to_expire: None,
    };
    loop {
        match transact(db, |tx| copying.step(tx)) {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(Error::Store(hedgerow::Error::InvalidArgument { .. }))
                if copying.has_met_an_expiry()? => {}
            Err(error) => {
                // What was converted may be wrong as well; the next attempt begins anew. Unless the
                // store has failed, after which it goes on.
                if !matches!(error, Error::Store(_)) {
                    abandon(db, records, wanted.table)?;
                }
                return Err(error);
            }
        }
    }
}

/// Notes that the migration has begun, unless that was done. Returns the record, if the table still
/// has the old version.
fn begin(
    db: &Db,
    records: &Keyspace,
    migration: &Migration,
    wanted: &Wanted<'_>,
) -> Result<Option<Record>> {
    loop {
        let _names = catalog::lock_names();
        let Some(record) = catalog::read(records, wanted.table)? else {
            return Ok(None);
        };
        if record.version != migration.version {
            return Ok(None);
        }
        if is_on_the_way(&record, wanted) {
            return Ok(Some(record));
        }
        let options = &wanted.options;
        let unused = catalog::unused(db, records, wanted.table, options, false)?;
        let Some(target) = unused else {
            continue;
        };
        transact(db, |tx| {
            let Some(mut record) = catalog::read_in(tx, records, wanted.table)? else {
                return Ok(());
            };
            if record.version != migration.version
                || is_on_the_way(&record, wanted)
                || catalog::is_claimed_in(tx, records, target.id())?
            {
                return Ok(());
            }
            record
                .dropped
                .extend(record.copy.take().map(|copy| copy.keyspace));
            record.copy = Some(CopyRecord {
                version: wanted.version,
                key: wanted.key_schema.clone(),
                value: wanted.value_schema.clone(),
                keyspace: target.id(),
                next: Vec::new(),
            });
            record.generation += 1;
            catalog::write_in(tx, records, wanted.table, &record)
        })?;
    }
}

/// Whether what was converted so far is of the version wanted, with the same types.
fn is_on_the_way(record: &Record, wanted: &Wanted<'_>) -> bool {
    record.copy.as_ref().is_some_and(|copy| {
        let types = (&copy.key, &copy.value);
        copy.version == wanted.version && types == (&wanted.key_schema, &wanted.value_schema)
    })
}

/// Forgets what a migration has done so far.
pub(crate) fn abandon(db: &Db, records: &Keyspace, table: &str) -> Result<()> {
    transact(db, |tx| {
        let Some(mut record) = catalog::read_in(tx, records, table)? else {
            return Ok(());
        };
        let Some(copy) = record.copy.take() else {
            return Ok(());
        };
        record.dropped.push(copy.keyspace);
        record.generation += 1;
        catalog::write_in(tx, records, table, &record)
    })
}

/// A migration on its way from one keyspace to another.
struct Copying<'a> {
    records: &'a Keyspace,
    migration: &'a Migration,
    wanted: &'a Wanted<'a>,
    from: Keyspace,
    from_expires: bool,
    to: Keyspace,
    to_expires: bool,
    /// Of the rows that the last step has read, the one that expires first, and when.
    first_to_expire: Option<(SystemTime, Vec<u8>)>,
}

/// When a row expires.
enum Expiry {
    Never,
    At(SystemTime),
    /// It has, since the transaction began.
    Over,
}

impl Copying<'_> {
    /// Converts the next rows; true if there are none left, or another thread has finished.
    fn step(&mut self, tx: &Transaction) -> Result<bool> {
        self.first_to_expire = None;
        let table = self.wanted.table;
        let Some(mut record) = catalog::read_in(tx, self.records, table)? else {
            return Ok(true);
        };
        let Some(copy) = &mut record.copy else {
            return Ok(true);
        };
        if (record.keyspace, copy.keyspace) != (self.from.id(), self.to.id()) {
            return Ok(true);
        }
        let (mut rows, mut bytes) = (0, 0);
        let mut more = false;
        for entry in tx.range(&self.from, copy.next.as_slice()..) {
            let (key, value) = entry?;
            if rows >= STEP_ROWS || bytes >= STEP_BYTES {
                copy.next = key.to_vec();
                more = true;
                break;
            }
            self.convert(tx, &key, &value)?;
            rows += 1;
            bytes += key.len() + value.len();
        }
        if !more {
            let indexes = record.indexes.drain(..).map(|index| index.keyspace);
            record.dropped.extend(indexes);
            record.dropped.push(record.keyspace);
            record.keyspace = copy.keyspace;
            record.copy = None;
            record.version = self.wanted.version;
            record.key = self.wanted.key_schema.clone();
            record.value = self.wanted.value_schema.clone();
            record.generation += 1;
        }
        catalog::write_in(tx, self.records, table, &record)?;
        Ok(!more)
    }

    fn convert(&mut self, tx: &Transaction, key: &[u8], value: &[u8]) -> Result<()> {
        let table = self.wanted.table;
        let failed = |what: String| Error::Migration {
            table: table.into(),
            what: format!("row \"{}\": {what}", key.escape_ascii()),
        };
        let converted = (self.migration.convert)(key, value).map_err(|error| match error {
            Error::Migration { what, .. } => failed(what),
            other => other,
        })?;
        let Some((new_key, new_value)) = converted else {
            return Ok(());
        };
        check_key_len(new_key.len(), || table.into())?;
        if tx.contains_key(&self.to, &new_key)? {
            let new_key = new_key.escape_ascii();
            return Err(failed(format!(
                "another row has become \"{new_key}\" as well"
            )));
        }
        let time = match self.expiry(key)? {
            Expiry::Over => return Ok(()),
            Expiry::Never => never(),
            Expiry::At(time) => {
                let first = self.first_to_expire.as_ref();
                if first.is_none_or(|(first, _)| time < *first) {
                    self.first_to_expire = Some((time, key.to_vec()));
                }
                Some(time)
            }
        };
        match time.filter(|_| self.from_expires && self.to_expires) {
            Some(time) => Ok(tx.put_until(&self.to, &new_key, &new_value, time)?),
            None => Ok(tx.put(&self.to, &new_key, &new_value)?),
        }
    }

    /// When the row expires that the transaction has read. Its keyspace is not written meanwhile.
    fn expiry(&self, key: &[u8]) -> Result<Expiry> {
        if !self.from_expires {
            return Ok(Expiry::Never);
        }
        Ok(match self.from.expires_at(key)? {
            Some(time) => Expiry::At(time),
            None if self.from.contains_key(key)? => Expiry::Never,
            None => Expiry::Over,
        })
    }

    /// Whether a row of the last step has expired since it was read: the store refuses it then.
    /// Each further attempt has fewer such rows.
    fn has_met_an_expiry(&self) -> Result<bool> {
        match &self.first_to_expire {
            Some((_, key)) => Ok(!self.from.contains_key(key)?),
            None => Ok(false),
        }
    }
}

/// The time at which the store has values expire that never do, whatever its default is; `None`
/// where the operating system has no such time.
fn never() -> Option<SystemTime> {
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(u64::MAX))
}
