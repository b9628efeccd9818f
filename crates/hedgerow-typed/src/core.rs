//! An open table: its keyspaces and indexes, and what is common to reading and writing.

use std::borrow::Borrow;
use std::marker::PhantomData;
use std::sync::Arc;

use hedgerow::{Durability, Keyspace, Transaction};

use crate::codec::Codec;
use crate::error::{Error, Result, check_key_len};
use crate::index::KeysOfRow;
use crate::key::{Key, key_of_bytes};
use crate::record::Record;

/// An index of an open table.
pub(crate) struct IndexPart<K, V: ?Sized> {
    pub(crate) name: String,
    pub(crate) is_unique: bool,
    pub(crate) keyspace: Keyspace,
    pub(crate) keys: Arc<KeysOfRow<K, V>>,
}

/// An open table.
pub(crate) struct Core<K, V: ?Sized, C> {
    pub(crate) name: String,
    pub(crate) catalog: Keyspace,
    pub(crate) data: Keyspace,
    /// That of the record when it was opened: TC3.
    pub(crate) generation: u64,
    pub(crate) indexes: Vec<IndexPart<K, V>>,
    /// All that a write uses.
    pub(crate) keyspaces: Vec<Keyspace>,
    pub(crate) durability: Option<Durability>,
    pub(crate) marker: PhantomData<fn() -> C>,
}

/// The keys of a row in each index, each list sorted and without repetitions.
pub(crate) type RowKeys = Vec<Vec<Vec<u8>>>;

impl<K: Key, V: ?Sized, C: Codec<V>> Core<K, V, C> {
    /// Checks that a snapshot or a transaction shows the table as it was opened: its record at that
    /// moment is given.
    ///
    /// # Errors
    ///
    /// [`Error::OtherMoment`] if the table became what it is later, [`Error::TableChanged`] if it
    /// is something else by then.
    pub(crate) fn check_moment(&self, record: Option<&[u8]>) -> Result<()> {
        let table = self.name.clone();
        match record.and_then(Record::generation_of) {
            Some(generation) if generation == self.generation => Ok(()),
            Some(generation) if generation > self.generation => Err(Error::TableChanged { table }),
            _ => Err(Error::OtherMoment { table }),
        }
    }

    /// The transaction depends on the table being as it was opened.
    ///
    /// # Errors
    ///
    /// [`Error::TableChanged`] if it is not.
    pub(crate) fn check(&self, tx: &Transaction) -> Result<()> {
        let record = tx.get_for_update(&self.catalog, &self.name)?;
        let generation = record.and_then(|bytes| Record::generation_of(&bytes));
        match generation == Some(self.generation) {
            true => Ok(()),
            false => Err(Error::TableChanged {
                table: self.name.clone(),
            }),
        }
    }

    pub(crate) fn key(&self, bytes: &[u8]) -> Result<K> {
        key_of_bytes(bytes).map_err(|error| Error::of_key(&self.name, bytes, error))
    }

    pub(crate) fn value(&self, key: &[u8], bytes: &[u8]) -> Result<C::Owned> {
        C::decode(bytes).map_err(|error| Error::of_value(&self.name, key, error))
    }

    pub(crate) fn encode(&self, key: &[u8], value: &V) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        C::encode(value, &mut bytes).map_err(|error| Error::of_value(&self.name, key, error))?;
        Ok(bytes)
    }

    /// The name of an index, for errors.
    pub(crate) fn index_name(&self, index: &IndexPart<K, V>) -> String {
        format!("{}.{}", self.name, index.name)
    }

    /// The keys of a row in all indexes.
    pub(crate) fn row_keys(&self, key: &[u8], value: &V) -> Result<RowKeys> {
        if self.indexes.is_empty() {
            return Ok(Vec::new());
        }
        let row = self.key(key)?;
        let keys = self.indexes.iter();
        keys.map(|index| self.keys_in(index, key, &row, value))
            .collect()
    }

    /// The keys of a row in one index.
    pub(crate) fn keys_in(
        &self,
        index: &IndexPart<K, V>,
        key: &[u8],
        row: &K,
        value: &V,
    ) -> Result<Vec<Vec<u8>>> {
        let mut keys = Vec::new();
        (index.keys)(row, value, &mut keys);
        keys.sort_unstable();
        keys.dedup();
        for index_key in &keys {
            check_key_len(index_key.len() + key.len(), || self.index_name(index))?;
        }
        Ok(keys)
    }

    /// The keys of a stored row in all indexes.
    pub(crate) fn stored_row_keys(&self, key: &[u8], value: &[u8]) -> Result<RowKeys> {
        if self.indexes.is_empty() {
            return Ok(Vec::new());
        }
        self.row_keys(key, self.value(key, value)?.borrow())
    }
}

/// The entry of an index for a row: of a unique one the key alone, with the row's key as its value;
/// else both as the key.
pub(crate) fn index_entry(is_unique: bool, index_key: &[u8], row: &[u8]) -> (Vec<u8>, Vec<u8>) {
    match is_unique {
        true => (index_key.to_vec(), row.to_vec()),
        false => ([index_key, row].concat(), Vec::new()),
    }
}
