//! Typed tables over the embedded key-value store [`hedgerow`]: keys of Rust types in their order,
//! values by serde or as bytes, secondary indexes, multimaps, and migrations of a table's version.
//!
//! ```
//! # let dir = tempfile::tempdir().unwrap();
//! # let path = dir.path().join("shop.db");
//! use hedgerow::Db;
//! use hedgerow_typed::{Error, Index, TableDefinition};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Debug, Serialize, Deserialize)]
//! struct User {
//!     email: String,
//!     city: String,
//! }
//!
//! // Orders of a user are beside each other, in the order of their numbers.
//! const ORDERS: TableDefinition<(u64, u32), String> = TableDefinition::new("orders");
//!
//! let db = Db::open(&path)?;
//! let orders = ORDERS.open(&db)?;
//! let by_email = Index::unique("by email", |_: &u64, user: &User| [user.email.clone()]);
//! let by_city = Index::new("by city", |_: &u64, user: &User| [user.city.clone()]);
//! let users = TableDefinition::<u64, User>::new("users")
//!     .index(&by_email)
//!     .index(&by_city)
//!     .open(&db)?;
//!
//! users.put(1, &User { email: "ada@example.org".into(), city: "London".into() })?;
//! let (id, user) = users.by(&by_email)?.get("ada@example.org")?.unwrap();
//! assert_eq!((id, &*user.city), (1, "London"));
//!
//! // Serializable, over any number of tables; run again after a conflict.
//! db.transact(|tx| {
//!     let orders = orders.within(tx)?;
//!     let last = orders.prefix((id,)).keys().next_back().transpose()?;
//!     let number = last.map_or(1, |(_, number)| number + 1);
//!     orders.put((id, number), &"a hedge".to_owned())?;
//!     users.within(tx)?.update(id, |user| {
//!         if let Some(user) = user {
//!             user.city = "Ockham".into();
//!         }
//!     })
//! })?;
//! assert_eq!(users.by(&by_city)?.get_all("Ockham").count(), 1);
//!
//! for order in orders.prefix((1,)) {
//!     let ((_, number), what) = order?;
//!     assert_eq!((number, &*what), (1, "a hedge"));
//! }
//! # Ok::<(), Error>(())
//! ```
//!
//! # Where things are in this crate
//!
//! | for | see |
//! | --- | --- |
//! | what a table is: types, version, indexes, migrations | [`TableDefinition`] |
//! | reading and writing | [`Table`], [`Rows`] |
//! | in a transaction, at a snapshot | [`Table::within`], [`Table::at`] |
//! | several writes that need no reads in between | [`TableBatch`], [`Table::extend`] |
//! | types of keys, and their bytes | [`Key`], [`key_struct!`], [`RawKey`] |
//! | borrowed keys, prefixes and ranges | [`AsKey`], [`AsPrefix`], [`StartsWith`], [`Bounds`] |
//! | how values are stored | [`Codec`]: [`Postcard`], [`Raw`], [`AsKeys`] |
//! | other orders of a table | [`Index`], [`Table::by`] |
//! | several values for a key | [`Multimap`] |
//! | checks | [`Table::verify`] |
//! | all tables of a store | [`tables()`], [`rename_table`], [`drop_table`] |
//! | what can go wrong | [`Error`] |
//!
//! # What is promised
//!
//! - Keys are in the order of their values. Bytes that no key or value has are an error that names
//!   the table and the key, never a panic and never another value.
//! - A table opens with the types, the version and the indexes that it was stored with, or says
//!   what differs.
//! - An index has the entries that its function gives for the rows of the table, in every commit,
//!   snapshot and state after a crash; a unique one has one row for a key, whatever is written at
//!   the same time.
//! - A snapshot or a transaction shows a table as it was opened, or refuses it
//!   ([`Error::OtherMoment`]): never one that is empty because it was migrated later.
//! - A handle that was opened before a table was migrated, renamed, dropped, or given an index does
//!   not write to it ([`Error::TableChanged`]).
//!
//! That holds for what is written by tables. A keyspace of a table that something else writes to is
//! checked when it is read, and by [`Table::verify`].
//!
//! # What it costs
//!
//! A key is its parts without tags; a row is one entry, and so is each of its keys in an index,
//! in a keyspace of its own. A call that writes is a transaction of the store, which depends on the
//! record of the table: some microseconds more than a put into the keyspace. In an indexed table it
//! reads the old row, and looks up new keys of unique indexes. A call that reads is a read of the
//! keyspace, and nothing more.
//!
//! [Recipes](https://github.com/hedgerow-db/hedgerow/blob/main/docs/typed-recipes.md) build a queue, a
//! cache, full-text search and others of tables. The
//! [design](https://github.com/hedgerow-db/hedgerow/blob/main/docs/typed.md) has the format, the
//! alternatives, and what users of redb and heed find where.
//!
//! # Dependencies
//!
//! Beside hedgerow: `serde`, and `postcard`, whose format has been fixed since its version 1, is
//! documented, and is about as small as one without a schema can be. Of the others `bincode` is no
//! longer maintained, and `rmp` and CBOR store the names of fields or their positions with every
//! value. `uuid`, `time` and `chrono` are features, off by default, for keys of their types.
#![deny(unsafe_code)]

mod admin;
mod batch;
mod bounds;
mod build;
mod by_index;
mod catalog;
mod codec;
mod copy_options;
mod core;
mod definition;
mod error;
mod index;
mod key;
mod migration;
mod multimap;
mod open;
mod record;
mod rows;
mod source;
mod table;
mod upkeep;
mod verify;
mod write;

pub use admin::{TableInfo, drop_table, rename_table, tables};
pub use batch::TableBatch;
pub use bounds::Bounds;
pub use by_index::{ByIndex, IndexKeys, IndexRows, RowsWithKey};
pub use codec::{AsKeys, Codec, Postcard, Raw};
pub use definition::TableDefinition;
pub use error::{CodecError, Error, Result};
pub use index::Index;
pub use key::{
    AsKey, AsPrefix, Delimited, Fields, Key, KeyDecoder, KeyError, RawKey, StartsWith, StructKey,
    key_bytes, key_of_bytes,
};
pub use multimap::{Multimap, MultimapDefinition, Pairs, ValuesOfKey};
pub use rows::Rows;
pub use source::{Sink, Source};
pub use table::Table;
pub use verify::TableReport;

/// The code in docs/typed-recipes.md runs.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/typed-recipes.md")]
pub struct Recipes;
