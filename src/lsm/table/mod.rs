//! Sorted tables: immutable files of entries in internal order.

mod block;
mod builder;
mod cursor;
mod filter;
mod footer;
mod index;
mod meta;
mod reader;
#[cfg(test)]
mod tests;
mod verify;

pub(crate) use builder::{TableBuilder, TableOptions};
pub(crate) use cursor::TableCursor;
pub(crate) use filter::filter_hash;
pub(crate) use meta::TableMeta;
pub(crate) use reader::{Table, TableContext};
