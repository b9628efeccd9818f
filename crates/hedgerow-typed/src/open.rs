//! Opening a table: whatever is missing is done step by step, each step a commit that a crash may
//! follow, until the record is what the definition says.

use std::marker::PhantomData;
use std::sync::Arc;

use hedgerow::Error::NoSuchKeyspace;
use hedgerow::{Db, EngineKind, Keyspace, KeyspaceOptions};

use crate::build::{self, NewIndex};
use crate::catalog::{self, DROPPED};
use crate::codec::Codec;
use crate::copy_options::options_of_copy;
use crate::core::{Core, IndexPart};
use crate::definition::{IndexDefinition, TableDefinition};
use crate::error::{Error, Result};
use crate::key::Key;
use crate::migration::{self, Migration, Wanted};
use crate::record::{IndexRecord, Record};
use crate::table::Table;

/// What is to be done next.
enum Step<'a, K, V: ?Sized> {
    Create,
    FinishDropping,
    Migrate(&'a Migration),
    AbandonMigration,
    DropIndex(String),
    AddIndex(&'a IndexDefinition<K, V>),
    BuildIndex(&'a IndexDefinition<K, V>),
    Ready,
}

impl<K: Key, V: ?Sized, C: Codec<V>> TableDefinition<K, V, C> {
    /// Opens the table, and creates it if there is none.
    ///
    /// If the table has an earlier version, it is migrated, and indexes that it does not have yet
    /// are built; both in commits of some hundred rows, and from where they were if that was
    /// interrupted by an error or a crash. Until both are done no handle can write to the table:
    /// those that were opened before fail with [`Error::TableChanged`].
    ///
    /// # Errors
    ///
    /// [`Error::Schema`], [`Error::Version`] and [`Error::Index`] if the table is not what the
    /// definition says; [`Error::Migration`]; [`Error::NotUnique`] if rows have the same key in an
    /// index that is built (open the table without the index to change them); [`Error::NameTaken`]
    /// if a keyspace has the name, and entries. In a store that was opened read-only,
    /// [`ReadOnly`](hedgerow::Error::ReadOnly) if anything would have to be written.
    pub fn open(&self, db: &Db) -> Result<Table<K, V, C>> {
        Ok(Table {
            core: Arc::new(open(self, db)?),
            source: db.clone(),
        })
    }
}

fn open<K: Key, V: ?Sized, C: Codec<V>>(
    definition: &TableDefinition<K, V, C>,
    db: &Db,
) -> Result<Core<K, V, C>> {
    check(definition)?;
    let name = &*definition.name;
    let records = match catalog::existing(db)? {
        Some(records) => records,
        None => catalog::create(db)?,
    };
    loop {
        let record = catalog::read(&records, name)?;
        match advance(definition, db, &records, record.as_ref()) {
            Ok(Some(core)) => return Ok(core),
            Ok(None) => {}
            // A keyspace may be gone because another thread has opened the table meanwhile.
            Err(error @ (Error::Catalog { .. } | Error::Store(NoSuchKeyspace { .. }))) => {
                if catalog::read(&records, name)? == record {
                    return Err(error);
                }
            }
            Err(error) => return Err(error),
        }
    }
}

/// Does the next step; returns the table if there was nothing left to do.
fn advance<K: Key, V: ?Sized, C: Codec<V>>(
    definition: &TableDefinition<K, V, C>,
    db: &Db,
    records: &Keyspace,
    record: Option<&Record>,
) -> Result<Option<Core<K, V, C>>> {
    let name = &*definition.name;
    match (next_step(definition, record)?, record) {
        (Step::FinishDropping, _) => catalog::sweep(db, records, name)?,
        (Step::Create, _) | (_, None) => create(definition, db, records)?,
        (Step::Migrate(migration), Some(record)) => {
            let wanted = wanted(definition, db, records, record)?;
            migration::run(db, records, migration, &wanted)?;
        }
        (Step::AbandonMigration, _) => migration::abandon(db, records, name)?,
        (Step::DropIndex(index), _) => build::remove(db, records, name, &index)?,
        (Step::AddIndex(index), Some(record)) => {
            let data = catalog::named(db, name, record.keyspace)?;
            check_rows_stay(definition, &data.options())?;
            let new = NewIndex {
                name: index.name,
                is_unique: index.is_unique,
                key_schema: &index.key_schema,
            };
            build::add(db, records, name, &data, &new)?;
        }
        (Step::BuildIndex(index), Some(record)) => {
            let core = assemble(definition, db, records, record)?;
            let part = core.indexes.iter().find(|part| part.name == index.name);
            if let Some(part) = part {
                core.build(db, part)?;
            }
        }
        (Step::Ready, Some(record)) => {
            tidy_up(db, records, name, record)?;
            return assemble(definition, db, records, record).map(Some);
        }
    }
    Ok(None)
}

/// Checks what does not depend on the table.
fn check<K: Key, V: ?Sized, C: Codec<V>>(definition: &TableDefinition<K, V, C>) -> Result<()> {
    if definition.version == DROPPED {
        return Err(hedgerow::Error::invalid("versions of tables begin with 1").into());
    }
    for (at, index) in definition.indexes.iter().enumerate() {
        let is_same = |other: &IndexDefinition<K, V>| other.name == index.name;
        let what = if definition.indexes[..at].iter().any(is_same) {
            "two indexes have the name"
        } else if definition.without.iter().any(|name| name == index.name) {
            "it is both there and to be dropped"
        } else {
            continue;
        };
        return Err(index_error(definition, index.name, what));
    }
    match &definition.options {
        Some(options) => check_rows_stay(definition, options),
        None => Ok(()),
    }
}

/// Refuses indexes over rows that expire or are filtered: their entries in the indexes would stay.
fn check_rows_stay<K, V: ?Sized, C>(
    definition: &TableDefinition<K, V, C>,
    options: &KeyspaceOptions,
) -> Result<()> {
    let filter = options.compaction_filter.as_deref().unwrap_or_default();
    let what = match options.expiry {
        Some(true) => "its rows expire, which no index would notice",
        _ if !filter.is_empty() => "its rows are filtered, which no index would notice",
        _ => return Ok(()),
    };
    match definition.indexes.first() {
        Some(index) => Err(index_error(definition, index.name, what)),
        None => Ok(()),
    }
}

fn index_error<K, V: ?Sized, C>(
    definition: &TableDefinition<K, V, C>,
    index: &str,
    what: &str,
) -> Error {
    Error::Index {
        table: definition.name.clone().into_owned(),
        index: index.into(),
        what: what.into(),
    }
}

/// Decides from the record alone.
fn next_step<'a, K: Key, V: ?Sized, C: Codec<V>>(
    definition: &'a TableDefinition<K, V, C>,
    record: Option<&Record>,
) -> Result<Step<'a, K, V>> {
    let Some(record) = record else {
        return Ok(Step::Create);
    };
    if record.version == DROPPED {
        return Ok(Step::FinishDropping);
    }
    if record.version != definition.version {
        return migration_step(definition, record);
    }
    check_types(
        definition,
        record,
        &K::schema(),
        &definition.schema_of_values(),
    )?;
    if record.copy.is_some() {
        return Ok(Step::AbandonMigration);
    }
    for stored in &record.indexes {
        let mut defined = definition.indexes.iter();
        let defined = defined.find(|index| index.name == stored.name);
        let is_complete = stored.next.is_none();
        match defined {
            Some(index) if is_as_defined(stored, index) => {}
            Some(index) if is_complete => {
                let describe = |is_unique, key: &str| match is_unique {
                    true => format!("unique keys {key}"),
                    false => format!("keys {key}"),
                };
                return Err(Error::Schema {
                    table: format!("{}.{}", definition.name, stored.name),
                    stored: describe(stored.is_unique, &stored.key),
                    wanted: describe(index.is_unique, &index.key_schema),
                });
            }
            None if is_complete && !definition.without.iter().any(|name| *name == stored.name) => {
                let what = "the table has it, and was opened without it";
                return Err(index_error(definition, &stored.name, what));
            }
            // One that was never complete was never read.
            _ => return Ok(Step::DropIndex(stored.name.clone())),
        }
    }
    for index in &definition.indexes {
        let mut stored = record.indexes.iter();
        match stored.find(|stored| stored.name == index.name) {
            None => return Ok(Step::AddIndex(index)),
            Some(stored) if stored.next.is_some() => return Ok(Step::BuildIndex(index)),
            Some(_) => {}
        }
    }
    Ok(Step::Ready)
}

fn is_as_defined<K, V: ?Sized>(stored: &IndexRecord, index: &IndexDefinition<K, V>) -> bool {
    (stored.is_unique, &stored.key) == (index.is_unique, &index.key_schema)
}

fn migration_step<'a, K: Key, V: ?Sized, C: Codec<V>>(
    definition: &'a TableDefinition<K, V, C>,
    record: &Record,
) -> Result<Step<'a, K, V>> {
    let mut migrations = definition.migrations.iter();
    let migration = migrations.find(|migration| {
        migration.version == record.version && record.version < definition.version
    });
    let Some(migration) = migration else {
        return Err(Error::Version {
            table: definition.name.clone().into_owned(),
            stored: record.version,
            wanted: definition.version,
        });
    };
    check_types(
        definition,
        record,
        &migration.key_schema,
        &migration.value_schema,
    )?;
    Ok(Step::Migrate(migration))
}

fn check_types<K, V: ?Sized, C>(
    definition: &TableDefinition<K, V, C>,
    record: &Record,
    key: &str,
    value: &str,
) -> Result<()> {
    if (record.key.as_str(), record.value.as_str()) == (key, value) {
        return Ok(());
    }
    let describe = |key: &str, value: &str| format!("keys {key} with values {value}");
    Err(Error::Schema {
        table: definition.name.clone().into_owned(),
        stored: describe(&record.key, &record.value),
        wanted: describe(key, value),
    })
}

fn wanted<'a, K: Key, V: ?Sized, C: Codec<V>>(
    definition: &'a TableDefinition<K, V, C>,
    db: &Db,
    records: &Keyspace,
    record: &Record,
) -> Result<Wanted<'a>> {
    let data = catalog::named(db, &definition.name, record.keyspace)?;
    let asked = definition.options.as_ref();
    let options = options_of_copy(asked, data.options(), &records.options());
    check_rows_stay(definition, &options)?;
    Ok(Wanted {
        table: &definition.name,
        version: definition.version,
        key_schema: K::schema(),
        value_schema: definition.schema_of_values(),
        options,
    })
}

/// Makes the keyspace and the record of a new table.
fn create<K: Key, V: ?Sized, C: Codec<V>>(
    definition: &TableDefinition<K, V, C>,
    db: &Db,
    records: &Keyspace,
) -> Result<()> {
    let name = &*definition.name;
    let taken = || Error::NameTaken { name: name.into() };
    let _names = catalog::lock_names();
    if catalog::read(records, name)?.is_some() {
        return Ok(());
    }
    let options = definition.options.clone();
    let options = options.unwrap_or_else(|| KeyspaceOptions::new(EngineKind::BTree));
    let own = match db.existing_keyspace(name)? {
        Some(keyspace) if definition.adopts && keyspace.id() != records.id() => Some(keyspace),
        _ => None,
    };
    let keyspace = match own {
        Some(keyspace) => keyspace,
        None => catalog::unused(db, records, name, &options, true)?.ok_or_else(taken)?,
    };
    db.transact(|tx| {
        if catalog::read_in(tx, records, name)?.is_some() {
            return Ok(());
        }
        let is_claimed = catalog::is_claimed_in(tx, records, keyspace.id())?;
        if is_claimed || !(definition.adopts || tx.keyspace(&keyspace).is_empty()?) {
            return Err(taken());
        }
        let record = Record {
            // Another table of the name, later on, has other generations.
            generation: u64::from(keyspace.id()) << 32,
            version: definition.version,
            key: K::schema(),
            value: definition.schema_of_values(),
            keyspace: keyspace.id(),
            indexes: Vec::new(),
            copy: None,
            dropped: Vec::new(),
        };
        catalog::write_in(tx, records, name, &record)
    })
}

/// Drops what is no longer used, and gives the keyspace of the rows the name of the table: after a
/// migration it has another one.
fn tidy_up(db: &Db, records: &Keyspace, table: &str, record: &Record) -> Result<()> {
    match catalog::sweep(db, records, table) {
        // There are tables to read all the same.
        Err(Error::Store(hedgerow::Error::ReadOnly)) => return Ok(()),
        swept => swept?,
    }
    catalog::rename(db, record.keyspace, table)
}

/// The table that a record describes, with those of its indexes that are defined.
fn assemble<K: Key, V: ?Sized, C: Codec<V>>(
    definition: &TableDefinition<K, V, C>,
    db: &Db,
    records: &Keyspace,
    record: &Record,
) -> Result<Core<K, V, C>> {
    let name = &*definition.name;
    let data = catalog::named(db, name, record.keyspace)?;
    check_rows_stay(definition, &data.options())?;
    let mut keyspaces = vec![records.clone(), data.clone()];
    let mut indexes = Vec::new();
    for index in &definition.indexes {
        let mut stored = record.indexes.iter();
        let Some(stored) = stored.find(|stored| stored.name == index.name) else {
            continue;
        };
        let keyspace = catalog::named(db, name, stored.keyspace)?;
        keyspaces.push(keyspace.clone());
        indexes.push(IndexPart {
            name: stored.name.clone(),
            is_unique: stored.is_unique,
            keyspace,
            keys: Arc::clone(&index.keys),
        });
    }
    Ok(Core {
        name: name.to_owned(),
        catalog: records.clone(),
        data,
        generation: record.generation,
        indexes,
        keyspaces,
        durability: definition.durability,
        marker: PhantomData,
    })
}
