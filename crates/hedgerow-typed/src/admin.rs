//! The tables of a store: listing, renaming and dropping them.

use hedgerow::Db;

use crate::catalog::{self, DROPPED};
use crate::error::{Error, Result};

/// A table as listed by [`tables`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TableInfo {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: u32,
    /// The type of its keys, as it is stored.
    pub key_schema: String,
    /// The type of its values, as it is stored; `multimap` of a multimap.
    pub value_schema: String,
    /// The names of its indexes.
    pub indexes: Vec<String>,
    /// True while a migration, or an index, is not complete: opening the table goes on with it.
    pub is_changing: bool,
}

/// All tables and multimaps of a store, by name.
///
/// # Errors
///
/// Those of the store; [`Error::Catalog`].
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let db = hedgerow::Db::open(dir.path().join("my.db"))?;
/// use hedgerow_typed::{TableDefinition, drop_table, rename_table, tables};
///
/// let years = TableDefinition::<String, u32>::new("years").open(&db)?;
/// years.put("ada", &1815)?;
/// rename_table(&db, "years", "births")?;
/// assert!(years.put("bob", &1970).is_err()); // open it again
/// let births = TableDefinition::<String, u32>::new("births").open(&db)?;
/// assert_eq!(births.get("ada")?, Some(1815));
/// let all = tables(&db)?;
/// assert_eq!((&*all[0].name, &*all[0].key_schema), ("births", "str"));
///
/// drop_table(&db, "births")?;
/// assert!(tables(&db)?.is_empty());
/// # Ok::<(), hedgerow_typed::Error>(())
/// ```
pub fn tables(db: &Db) -> Result<Vec<TableInfo>> {
    let Some(records) = catalog::existing(db)? else {
        return Ok(Vec::new());
    };
    let mut all = catalog::all(&records)?;
    all.retain(|(_, record)| record.version != DROPPED);
    let infos = all.into_iter().map(|(name, record)| TableInfo {
        name,
        version: record.version,
        is_changing: record.copy.is_some()
            || record.indexes.iter().any(|index| index.next.is_some()),
        key_schema: record.key,
        value_schema: record.value,
        indexes: record.indexes.into_iter().map(|index| index.name).collect(),
    });
    Ok(infos.collect())
}

/// Drops a table or a multimap, with its indexes. Handles of it fail from now on.
///
/// # Errors
///
/// [`Error::NoTable`], and those of the store. A crash leaves it whole, or dropped; what is still
/// there of the latter goes when a table of this name is opened or dropped.
pub fn drop_table(db: &Db, name: &str) -> Result<()> {
    let no_table = || Error::NoTable { table: name.into() };
    let records = catalog::existing(db)?.ok_or_else(no_table)?;
    db.transact(|tx| {
        let record = catalog::read_in(tx, &records, name)?;
        let Some(mut record) = record else {
            return Err(no_table());
        };
        if record.version == DROPPED {
            return Ok(());
        }
        record.dropped = record.keyspaces().collect();
        record.indexes.clear();
        record.copy = None;
        record.version = DROPPED;
        record.generation += 1;
        catalog::write_in(tx, &records, name, &record)
    })?;
    catalog::sweep(db, &records, name)
}

/// Gives a table or a multimap another name. Handles of it can no longer write: open it again.
///
/// # Errors
///
/// [`Error::NoTable`]; [`Error::NameTaken`] if there is a table `new`; those of the store.
pub fn rename_table(db: &Db, old: &str, new: &str) -> Result<()> {
    let no_table = || Error::NoTable { table: old.into() };
    let records = catalog::existing(db)?.ok_or_else(no_table)?;
    if new.is_empty() {
        return Err(hedgerow::Error::invalid("a table has a name").into());
    }
    db.transact(|tx| {
        let mut record = match catalog::read_in(tx, &records, old)? {
            Some(record) if record.version != DROPPED => record,
            _ => return Err(no_table()),
        };
        if catalog::read_in(tx, &records, new)?.is_some() {
            return Err(Error::NameTaken { name: new.into() });
        }
        record.generation += 1;
        tx.delete(&records, old)?;
        catalog::write_in(tx, &records, new, &record)
    })?;
    // Its keyspace follows; if it cannot, as another one has the name, no harm is done.
    match catalog::read(&records, new)? {
        Some(record) => catalog::rename(db, record.keyspace, new),
        None => Ok(()),
    }
}
