//! The keyspace in which records of tables are, and keyspaces by their numbers.
//!
//! Invariants:
//! - TC1: a keyspace is named by the record of one table at most, in one place.
//! - TC2: what a record names as rows, index or copy is only dropped after the record has it among
//!   the dropped ones, durably; so a crash leaves records whose keyspaces are there, and keyspaces
//!   that a later opening drops.
//! - TC3: the generation of a record rises with every change after which handles that were opened
//!   before must not write; every write of a table depends on it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use hedgerow::{Db, EngineKind, Keyspace, KeyspaceOptions, Transaction};

use crate::error::{Error, Result};
use crate::record::Record;

/// The name of the keyspace of records.
pub(crate) const CATALOG: &str = "hedgerow.tables";

/// The version of a record whose table is being dropped.
pub(crate) const DROPPED: u32 = 0;

/// See [`lock_names`].
static NAMES: Mutex<()> = Mutex::new(());

/// Held while a keyspace is dropped or renamed, which is done by its name: between finding out the
/// name and using it, no other thread gives it to another keyspace. And held from looking for an
/// unused keyspace until a record names it, so that two threads do not both make one. One process
/// has a store open.
pub(crate) fn lock_names() -> MutexGuard<'static, ()> {
    NAMES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The catalogue, if the store has tables.
pub(crate) fn existing(db: &Db) -> Result<Option<Keyspace>> {
    Ok(db.existing_keyspace(CATALOG)?)
}

/// The catalogue.
pub(crate) fn create(db: &Db) -> Result<Keyspace> {
    Ok(db.keyspace(CATALOG, EngineKind::BTree)?)
}

/// The record of a table as it is now.
pub(crate) fn read(catalog: &Keyspace, table: &str) -> Result<Option<Record>> {
    let bytes = catalog.get(table)?;
    bytes.map(|bytes| Record::decode(table, &bytes)).transpose()
}

/// The record of a table in a transaction, which depends on it.
pub(crate) fn read_in(tx: &Transaction, catalog: &Keyspace, table: &str) -> Result<Option<Record>> {
    let bytes = tx.get_for_update(catalog, table)?;
    bytes.map(|bytes| Record::decode(table, &bytes)).transpose()
}

/// Replaces the record of a table.
pub(crate) fn write_in(
    tx: &Transaction,
    catalog: &Keyspace,
    table: &str,
    record: &Record,
) -> Result<()> {
    Ok(tx.put(catalog, table, record.encode())?)
}

/// All tables with their records, by name.
pub(crate) fn all(catalog: &Keyspace) -> Result<Vec<(String, Record)>> {
    decode_all(catalog.iter())
}

fn decode_all(scan: hedgerow::Scan) -> Result<Vec<(String, Record)>> {
    let mut tables = Vec::new();
    for entry in scan {
        let (name, bytes) = entry?;
        let name = String::from_utf8_lossy(&name).into_owned();
        let record = Record::decode(&name, &bytes)?;
        tables.push((name, record));
    }
    Ok(tables)
}

/// Whether a table names the keyspace, in a transaction, which depends on the answer.
pub(crate) fn is_claimed_in(tx: &Transaction, catalog: &Keyspace, keyspace: u32) -> Result<bool> {
    let tables = decode_all(tx.iter(catalog))?;
    Ok(names(&tables, keyspace))
}

fn names(tables: &[(String, Record)], keyspace: u32) -> bool {
    let mut named = tables.iter().flat_map(|(_, record)| record.keyspaces());
    named.any(|id| id == keyspace)
}

/// The keyspace with this number, if it is there.
pub(crate) fn by_id(db: &Db, id: u32) -> Result<Option<Keyspace>> {
    loop {
        let Some(info) = db.keyspaces().into_iter().find(|info| info.id == id) else {
            return Ok(None);
        };
        // Another one may have got its name meanwhile.
        match db.existing_keyspace(&info.name)? {
            Some(keyspace) if keyspace.id() == id => return Ok(Some(keyspace)),
            _ => continue,
        }
    }
}

/// The keyspace that a record of `table` names.
pub(crate) fn named(db: &Db, table: &str, id: u32) -> Result<Keyspace> {
    by_id(db, id)?.ok_or_else(|| Error::Catalog {
        table: table.into(),
        what: format!("its keyspace {id} was dropped"),
    })
}

/// An empty keyspace that no table names, whose name is `base` or begins like that; `None` if
/// `must_be_base`, and `base` holds something.
pub(crate) fn unused(
    db: &Db,
    catalog: &Keyspace,
    base: &str,
    options: &KeyspaceOptions,
    must_be_base: bool,
) -> Result<Option<Keyspace>> {
    let tables = all(catalog)?;
    for number in 1_u32.. {
        let name = match number {
            1 => base.to_owned(),
            number => format!("{base}~{number}"),
        };
        let Some(keyspace) = db.existing_keyspace(&name)? else {
            return Ok(Some(db.keyspace_with(&name, options.clone())?));
        };
        if names(&tables, keyspace.id()) {
            continue;
        }
        if keyspace.is_empty()? && keyspace.id() != catalog.id() {
            return Ok(Some(db.keyspace_with(&name, options.clone())?));
        }
        if must_be_base {
            return Ok(None);
        }
    }
    Ok(None)
}

/// Gives a keyspace a name, if no other one has it and it can be given.
pub(crate) fn rename(db: &Db, id: u32, name: &str) -> Result<()> {
    let _names = lock_names();
    let Some(keyspace) = by_id(db, id)? else {
        return Ok(());
    };
    if keyspace.name() == name || db.existing_keyspace(name)?.is_some() {
        return Ok(());
    }
    match db.rename_keyspace(&keyspace.name(), name) {
        // Another keyspace has got the name meanwhile, it is too long, or nothing can be written.
        Err(hedgerow::Error::InvalidArgument { .. } | hedgerow::Error::ReadOnly) => Ok(()),
        renamed => Ok(renamed?),
    }
}

/// Drops the keyspaces that a table no longer uses; of a table that is being dropped, also its
/// record.
pub(crate) fn sweep(db: &Db, catalog: &Keyspace, table: &str) -> Result<()> {
    let Some(record) = read(catalog, table)? else {
        return Ok(());
    };
    if record.dropped.is_empty() && record.version != DROPPED {
        return Ok(());
    }
    for id in &record.dropped {
        let _names = lock_names();
        if let Some(keyspace) = by_id(db, *id)? {
            db.drop_keyspace(&keyspace.name())?;
        }
    }
    db.transact(|tx| {
        let Some(mut now) = read_in(tx, catalog, table)? else {
            return Ok(());
        };
        now.dropped.retain(|id| !record.dropped.contains(id));
        if now.version == DROPPED && now.dropped.is_empty() {
            return Ok(tx.delete(catalog, table)?);
        }
        write_in(tx, catalog, table, &now)
    })
}
