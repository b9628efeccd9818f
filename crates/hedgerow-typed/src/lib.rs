//! Typed tables over the key-value store [`hedgerow`].
#![deny(unsafe_code)]

mod admin;
mod batch;
mod bounds;
mod build;
mod by_index;
mod catalog;
mod codec;
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
