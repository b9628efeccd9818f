//! Adding indexes to a table that may have rows, and dropping them.
//!
//! An index is built in commits of some hundred rows, each of which notes how far it has come.
//! While it is on its way no handle can write to the table (TC3), so it needs no regard for rows
//! that change; it is read when it is complete.

use std::borrow::Borrow;

use hedgerow::{Db, Keyspace, KeyspaceOptions, Transaction};

use crate::catalog::{self, DROPPED};
use crate::codec::Codec;
use crate::core::{Core, IndexPart, index_entry};
use crate::error::{Error, Result};
use crate::key::Key;
use crate::migration::{STEP_BYTES, STEP_ROWS, transact};
use crate::record::{IndexRecord, Record};

/// What is to be stored about an index.
pub(crate) struct NewIndex<'a> {
    pub(crate) name: &'a str,
    pub(crate) is_unique: bool,
    pub(crate) key_schema: &'a str,
}

/// Notes an index that is to be built.
pub(crate) fn add(
    db: &Db,
    records: &Keyspace,
    table: &str,
    data: &Keyspace,
    index: &NewIndex<'_>,
) -> Result<()> {
    let _names = catalog::lock_names();
    let lacks_it =
        |record: &mut Record| record.version != DROPPED && record.index(index.name).is_none();
    let now = catalog::read(records, table)?;
    if !now.is_some_and(|mut record| lacks_it(&mut record)) {
        return Ok(());
    }
    let base = format!("{table}.{}", index.name);
    let options = KeyspaceOptions::new(data.engine());
    let Some(keyspace) = catalog::unused(db, records, &base, &options, false)? else {
        return Ok(());
    };
    transact(db, |tx| {
        let Some(mut record) = catalog::read_in(tx, records, table)? else {
            return Ok(());
        };
        // If another thread has changed something, what to do is decided again.
        if record.keyspace != data.id()
            || !lacks_it(&mut record)
            || catalog::is_claimed_in(tx, records, keyspace.id())?
        {
            return Ok(());
        }
        record.indexes.push(IndexRecord {
            name: index.name.into(),
            keyspace: keyspace.id(),
            is_unique: index.is_unique,
            key: index.key_schema.into(),
            next: Some(Vec::new()),
        });
        record.generation += 1;
        catalog::write_in(tx, records, table, &record)
    })
}

/// Notes that an index is no longer used.
pub(crate) fn remove(db: &Db, records: &Keyspace, table: &str, index: &str) -> Result<()> {
    transact(db, |tx| {
        let Some(mut record) = catalog::read_in(tx, records, table)? else {
            return Ok(());
        };
        let Some(at) = record.indexes.iter().position(|found| found.name == index) else {
            return Ok(());
        };
        let gone = record.indexes.remove(at);
        record.dropped.push(gone.keyspace);
        record.generation += 1;
        catalog::write_in(tx, records, table, &record)
    })
}

impl<K: Key, V: ?Sized, C: Codec<V>> Core<K, V, C> {
    /// Builds an index to its end, from where an earlier call has come.
    pub(crate) fn build(&self, db: &Db, index: &IndexPart<K, V>) -> Result<()> {
        while !transact(db, |tx| self.build_some(tx, index))? {}
        Ok(())
    }

    /// Adds the entries of the next rows; true if there are none left, or another thread has
    /// finished.
    fn build_some(&self, tx: &Transaction, index: &IndexPart<K, V>) -> Result<bool> {
        let Some(mut record) = catalog::read_in(tx, &self.catalog, &self.name)? else {
            return Ok(true);
        };
        if record.keyspace != self.data.id() {
            return Ok(true);
        }
        let Some(state) = record.index(&index.name) else {
            return Ok(true);
        };
        let Some(next) = state
            .next
            .take_if(|_| state.keyspace == index.keyspace.id())
        else {
            return Ok(true);
        };
        let (mut rows, mut bytes) = (0, 0);
        for entry in tx.range(&self.data, next.as_slice()..) {
            let (key, value) = entry?;
            if rows >= STEP_ROWS || bytes >= STEP_BYTES {
                state.next = Some(key.to_vec());
                break;
            }
            self.add_entries(tx, index, &key, &value)?;
            rows += 1;
            bytes += key.len() + value.len();
        }
        let is_over = state.next.is_none();
        record.generation += u64::from(is_over);
        catalog::write_in(tx, &self.catalog, &self.name, &record)?;
        Ok(is_over)
    }

    fn add_entries(
        &self,
        tx: &Transaction,
        index: &IndexPart<K, V>,
        key: &[u8],
        value: &[u8],
    ) -> Result<()> {
        let row = self.key(key)?;
        let value = self.value(key, value)?;
        let value = value.borrow();
        for index_key in self.keys_in(index, key, &row, value)? {
            if index.is_unique
                && let Some(taken_by) = tx.get(&index.keyspace, &index_key)?
            {
                return Err(Error::NotUnique {
                    index: self.index_name(index),
                    key: index_key,
                    taken_by: taken_by.to_vec(),
                });
            }
            let (entry, content) = index_entry(index.is_unique, &index_key, key);
            tx.put(&index.keyspace, entry, content)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use hedgerow::Options;
    use hedgerow::fs::SimFs;

    use super::*;
    use crate::TableDefinition;

    /// It was given to the record of a table that was being dropped, and outlived that.
    #[test]
    fn a_table_that_is_being_dropped_gets_no_index() {
        let options = Options::new().fs(Arc::new(SimFs::new()));
        let db = options.open("/store").unwrap();
        let table = TableDefinition::<u32, u32>::new("t").open(&db).unwrap();
        let records = catalog::existing(&db).unwrap().unwrap();
        // As `drop_table` leaves it before it sweeps.
        transact(&db, |tx| {
            let mut record = catalog::read_in(tx, &records, "t")?.unwrap();
            record.dropped = record.keyspaces().collect();
            record.version = DROPPED;
            record.generation += 1;
            catalog::write_in(tx, &records, "t", &record)
        })
        .unwrap();
        let new = NewIndex {
            name: "by value",
            is_unique: false,
            key_schema: "u32",
        };
        add(&db, &records, "t", table.keyspace(), &new).unwrap();
        assert!(
            catalog::read(&records, "t")
                .unwrap()
                .unwrap()
                .indexes
                .is_empty()
        );
        catalog::sweep(&db, &records, "t").unwrap();
        let left: Vec<_> = db.keyspaces().into_iter().map(|info| info.name).collect();
        assert_eq!(left, [catalog::CATALOG]);
    }
}
