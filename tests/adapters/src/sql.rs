//! GlueSQL on hedgerow: schemas in one keyspace, the rows of all tables in another, each table a
//! stretch of it. A statement is a batch.

use gluesql_core::data::{Key, Schema, Value};
use gluesql_core::error::{Error, Result};
use gluesql_core::store::{
    AlterTable, CustomFunction, CustomFunctionMut, Index, IndexMut, Metadata, Planner, RowIter,
    Store, StoreMut, Transaction,
};
use hedgerow::{Db, Durability, EngineKind, Keyspace};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The storage of a database.
pub struct Tables {
    db: Db,
    schemas: Keyspace,
    rows: Keyspace,
    /// The number that the next row without a primary key gets.
    numbers: Keyspace,
}

fn failed(error: impl std::fmt::Display) -> Error {
    Error::StorageMsg(format!("[hedgerow] {error}"))
}

fn encode(value: &impl Serialize) -> Result<Vec<u8>> {
    bincode::serialize(value).map_err(failed)
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    bincode::deserialize(bytes).map_err(failed)
}

/// The rows of a table begin with this; no name has a zero byte.
fn prefix_of(table: &str) -> Vec<u8> {
    [table.as_bytes(), &[0]].concat()
}

fn row_key(table: &str, key: &Key) -> Result<Vec<u8>> {
    Ok([prefix_of(table), key.to_cmp_be_bytes()?].concat())
}

impl Tables {
    /// A database in a store.
    pub fn new(db: Db, engine: EngineKind) -> hedgerow::Result<Self> {
        Ok(Self {
            schemas: db.keyspace("schemas", engine)?,
            rows: db.keyspace("rows", engine)?,
            numbers: db.keyspace("numbers", engine)?,
            db,
        })
    }

    fn put_rows(&self, table: &str, rows: Vec<(Key, Vec<Value>)>) -> Result<()> {
        let mut batch = self.db.batch();
        for (key, row) in rows {
            batch.put(&self.rows, row_key(table, &key)?, encode(&(key, row))?);
        }
        self.db
            .write(batch, Durability::Buffered)
            .map(drop)
            .map_err(failed)
    }
}

impl Store for Tables {
    fn fetch_schema(&self, table_name: &str) -> Result<Option<Schema>> {
        let found = self.schemas.get(table_name).map_err(failed)?;
        found.map(|bytes| decode(&bytes)).transpose()
    }

    fn fetch_all_schemas(&self) -> Result<Vec<Schema>> {
        let values = self.schemas.values();
        values
            .map(|value| decode(&value.map_err(failed)?))
            .collect()
    }

    fn fetch_data(&self, table_name: &str, key: &Key) -> Result<Option<Vec<Value>>> {
        let found = self.rows.get(row_key(table_name, key)?).map_err(failed)?;
        let row = found.map(|bytes| decode::<(Key, Vec<Value>)>(&bytes));
        Ok(row.transpose()?.map(|(_, row)| row))
    }

    fn scan_data<'a>(&'a self, table_name: &str) -> Result<RowIter<'a>> {
        let rows = self.rows.prefix(prefix_of(table_name));
        Ok(Box::new(rows.map(|item| {
            let (_, value) = item.map_err(failed)?;
            decode(&value)
        })))
    }
}

impl StoreMut for Tables {
    fn insert_schema(&mut self, schema: &Schema) -> Result<()> {
        let bytes = encode(schema)?;
        let put = self.schemas.put(&schema.table_name, bytes);
        put.map(drop).map_err(failed)
    }

    fn delete_schema(&mut self, table_name: &str) -> Result<()> {
        let prefix = prefix_of(table_name);
        let mut end = prefix.clone();
        end.pop();
        end.push(1);
        let mut batch = self.db.batch();
        batch.delete(&self.schemas, table_name);
        batch.delete_range(&self.rows, prefix..end);
        let written = self.db.write(batch, Durability::Buffered);
        written.map(drop).map_err(failed)
    }

    fn append_data(&mut self, table_name: &str, rows: Vec<Vec<Value>>) -> Result<()> {
        // A number is used once, also if two threads insert at once.
        let count = rows.len() as i64;
        let number_of = |bytes: Option<&[u8]>| {
            bytes
                .and_then(|bytes| Some(i64::from_le_bytes(bytes.try_into().ok()?)))
                .unwrap_or(0)
        };
        let next = self
            .numbers
            .update("next", |old| Some((number_of(old) + count).to_le_bytes()))
            .map_err(failed)?;
        let first = number_of(next.new.as_deref()) - count;
        let numbered = (first..).map(Key::I64).zip(rows).collect();
        self.put_rows(table_name, numbered)
    }

    fn insert_data(&mut self, table_name: &str, rows: Vec<(Key, Vec<Value>)>) -> Result<()> {
        self.put_rows(table_name, rows)
    }

    fn delete_data(&mut self, table_name: &str, keys: Vec<Key>) -> Result<()> {
        let mut batch = self.db.batch();
        for key in keys {
            batch.delete(&self.rows, row_key(table_name, &key)?);
        }
        let written = self.db.write(batch, Durability::Buffered);
        written.map(drop).map_err(failed)
    }
}

impl AlterTable for Tables {}
impl CustomFunction for Tables {}
impl CustomFunctionMut for Tables {}
impl Index for Tables {}
impl IndexMut for Tables {}
impl Metadata for Tables {}
impl Planner for Tables {}
impl Transaction for Tables {}
