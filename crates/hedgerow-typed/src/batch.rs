//! Writes to several tables that are committed together.

use std::fmt;

use hedgerow::{Db, Keyspace, SeqNo, Transaction, TransactionOptions};

use crate::codec::Codec;
use crate::error::Result;
use crate::key::{AsKey, Key, encoded};
use crate::table::Table;

/// A write of a batch.
type Write = dyn Fn(&Transaction) -> Result<()> + Send + Sync;

/// Writes to any number of tables that are committed together, or not at all.
///
/// It is filled without a transaction and written in one, which keeps the indexes and runs again
/// after a conflict. Later writes win over earlier ones. Keys and values are checked and encoded as
/// they are added.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let db = hedgerow::Db::open(dir.path().join("my.db"))?;
/// use hedgerow_typed::{TableBatch, TableDefinition};
///
/// let years = TableDefinition::<String, u32>::new("years").open(&db)?;
/// let names = TableDefinition::<u32, String>::new("names").open(&db)?;
/// let mut batch = TableBatch::new();
/// batch.put(&years, "ada", &1815)?;
/// batch.put(&names, 1815, &"ada".to_owned())?;
/// batch.delete(&names, 1816);
/// assert!(batch.len() == 3 && !batch.is_empty());
/// batch.write(&db)?;
/// assert_eq!(names.get(1815)?.as_deref(), Some("ada"));
/// # Ok::<(), hedgerow_typed::Error>(())
/// ```
#[derive(Default)]
pub struct TableBatch {
    writes: Vec<Box<Write>>,
    keyspaces: Vec<Keyspace>,
}

impl fmt::Debug for TableBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TableBatch")
            .field("len", &self.writes.len())
            .finish_non_exhaustive()
    }
}

impl TableBatch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the value of `key` in `table`.
    ///
    /// # Errors
    ///
    /// Those of the key and the value alone, as of [`Table::put`]; the batch is as before then.
    pub fn put<K, V, C>(
        &mut self,
        table: &Table<K, V, C>,
        key: impl AsKey<K>,
        value: &V,
    ) -> Result<()>
    where
        K: Key + 'static,
        V: ?Sized + 'static,
        C: Codec<V> + 'static,
    {
        let key = encoded(key);
        let row = table.core.prepare(&key, value)?;
        self.add(table, move |table, tx| {
            table.core.write(tx, &key, Some(&row))
        });
        Ok(())
    }

    /// Removes the row of `key`, which may be absent, from `table`.
    pub fn delete<K, V, C>(&mut self, table: &Table<K, V, C>, key: impl AsKey<K>)
    where
        K: Key + 'static,
        V: ?Sized + 'static,
        C: Codec<V> + 'static,
    {
        let key = encoded(key);
        self.add(table, move |table, tx| table.core.write(tx, &key, None));
    }

    fn add<K, V, C>(
        &mut self,
        table: &Table<K, V, C>,
        write: impl Fn(&Table<K, V, C>, &Transaction) -> Result<()> + Send + Sync + 'static,
    ) where
        K: Key + 'static,
        V: ?Sized + 'static,
        C: Codec<V> + 'static,
    {
        for keyspace in &table.core.keyspaces {
            let is_same = |known: &Keyspace| known.id() == keyspace.id();
            if !self.keyspaces.iter().any(is_same) {
                self.keyspaces.push(keyspace.clone());
            }
        }
        let table = table.clone();
        self.writes.push(Box::new(move |tx| {
            table.core.check(tx)?;
            write(&table, tx)
        }));
    }

    /// Number of writes.
    pub fn len(&self) -> usize {
        self.writes.len()
    }

    /// True if there are no writes.
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    /// Commits all writes, or none, with the durability of the store. Returns the place in the
    /// order of commits. The batch may be written again.
    ///
    /// # Errors
    ///
    /// As those of [`Table::put`]; nothing is written then.
    pub fn write(&self, db: &Db) -> Result<SeqNo> {
        self.write_with(db, TransactionOptions::new())
    }

    /// The same with options, such as another durability. Their keyspaces are replaced by those of
    /// the batch.
    ///
    /// # Errors
    ///
    /// As those of [`TableBatch::write`].
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = hedgerow::Db::open(dir.path().join("my.db"))?;
    /// use hedgerow::{Durability, TransactionOptions};
    /// use hedgerow_typed::{TableBatch, TableDefinition};
    ///
    /// let years = TableDefinition::<String, u32>::new("years").open(&db)?;
    /// let mut batch = TableBatch::new();
    /// batch.put(&years, "ada", &1815)?;
    /// let options = TransactionOptions::new().durability(Durability::Buffered);
    /// let seq = batch.write_with(&db, options)?;
    /// db.wait_durable(seq)?;
    /// # Ok::<(), hedgerow_typed::Error>(())
    /// ```
    pub fn write_with(&self, db: &Db, options: TransactionOptions) -> Result<SeqNo> {
        let options = options.keyspaces(&self.keyspaces);
        let written = db.transact_with(options, |tx| {
            self.writes.iter().try_for_each(|write| write(tx))
        })?;
        Ok(written.seq)
    }
}
