//! Writing a row together with its entries in the indexes.
//!
//! Invariants, in every state that a transaction can commit:
//! - TU1: an index has exactly the entries that its function gives for the rows of the table.
//! - TU2: a unique index has one row for a key.
//!
//! All that is checked is checked before the first write. What is written beside the row follows
//! from its old value, which the transaction reads, so that a change of it by another commit is a
//! conflict; the key of a unique index is read as well, be it absent.

use hedgerow::{Keyspace, MAX_VALUE_LEN_BYTES, Transaction};

use crate::codec::Codec;
use crate::core::{Core, IndexPart, RowKeys, index_entry};
use crate::error::{Error, Result, check_key_len};
use crate::key::Key;

/// A row that is to be written: its bytes, and its keys in the indexes.
#[derive(Debug, Clone)]
pub(crate) struct NewRow {
    pub(crate) value: Vec<u8>,
    pub(crate) keys: RowKeys,
}

/// A write within a transaction, and how to take it back.
struct Change<'a> {
    keyspace: &'a Keyspace,
    key: Vec<u8>,
    old: Option<Vec<u8>>,
    new: Option<Vec<u8>>,
}

impl Change<'_> {
    fn write(&self, tx: &Transaction, value: Option<&Vec<u8>>) -> hedgerow::Result<()> {
        match value {
            Some(value) => tx.put(self.keyspace, &self.key, value),
            None => tx.delete(self.keyspace, &self.key),
        }
    }
}

impl<K: Key, V: ?Sized, C: Codec<V>> Core<K, V, C> {
    /// Checks and encodes a row.
    pub(crate) fn prepare(&self, key: &[u8], value: &V) -> Result<NewRow> {
        check_key_len(key.len(), || self.name.clone())?;
        let bytes = self.encode(key, value)?;
        if bytes.len() > MAX_VALUE_LEN_BYTES {
            let what = format!("a value of {} bytes, of {MAX_VALUE_LEN_BYTES}", bytes.len());
            return Err(hedgerow::Error::invalid(what).into());
        }
        Ok(NewRow {
            value: bytes,
            keys: self.row_keys(key, value)?,
        })
    }

    /// Sets the row of `key` to `new`, or removes it. Reads the old one only if there are indexes.
    pub(crate) fn write(&self, tx: &Transaction, key: &[u8], new: Option<&NewRow>) -> Result<()> {
        let old = match self.indexes.is_empty() {
            true => None,
            false => tx.get(&self.data, key)?,
        };
        self.replace(tx, key, old.as_deref(), new)
    }

    /// The same where the old value has been read by the transaction.
    pub(crate) fn replace(
        &self,
        tx: &Transaction,
        key: &[u8],
        old: Option<&[u8]>,
        new: Option<&NewRow>,
    ) -> Result<()> {
        let mut changes = vec![Change {
            keyspace: &self.data,
            key: key.to_vec(),
            old: old.map(<[u8]>::to_vec),
            new: new.map(|row| row.value.clone()),
        }];
        let old_keys = match old {
            Some(value) => self.stored_row_keys(key, value)?,
            None => Vec::new(),
        };
        for (at, index) in self.indexes.iter().enumerate() {
            let old_keys = old_keys.get(at).map_or(&[][..], Vec::as_slice);
            let new_keys = new.map_or(&[][..], |row| row.keys[at].as_slice());
            self.change_index(tx, index, key, (old_keys, new_keys), &mut changes)?;
        }
        for (at, change) in changes.iter().enumerate() {
            if let Err(error) = change.write(tx, change.new.as_ref()) {
                // A limit of the transaction: it is as before, or its commit would break TU1. What
                // takes a write back needs no more room than there was.
                for done in changes[..at].iter().rev() {
                    done.write(tx, done.old.as_ref())?;
                }
                return Err(error.into());
            }
        }
        Ok(())
    }

    /// Adds what changes in an index, if that is possible.
    fn change_index<'a>(
        &self,
        tx: &Transaction,
        index: &'a IndexPart<K, V>,
        row: &[u8],
        (old, new): (&[Vec<u8>], &[Vec<u8>]),
        changes: &mut Vec<Change<'a>>,
    ) -> Result<()> {
        // Both are sorted.
        let gone = old.iter().filter(|key| new.binary_search(key).is_err());
        for index_key in gone {
            let (key, value) = index_entry(index.is_unique, index_key, row);
            changes.push(Change {
                keyspace: &index.keyspace,
                key,
                old: Some(value),
                new: None,
            });
        }
        let added = new.iter().filter(|key| old.binary_search(key).is_err());
        for index_key in added {
            if index.is_unique
                && let Some(taken_by) = tx.get_for_update(&index.keyspace, index_key)?
                && taken_by != row
            {
                return Err(Error::NotUnique {
                    index: self.index_name(index),
                    key: index_key.clone(),
                    taken_by: taken_by.to_vec(),
                });
            }
            let (key, value) = index_entry(index.is_unique, index_key, row);
            changes.push(Change {
                keyspace: &index.keyspace,
                key,
                old: None,
                new: Some(value),
            });
        }
        Ok(())
    }
}
