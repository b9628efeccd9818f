//! Sorted tables: immutable files of entries in internal order.
//!
//! A flush or a compaction writes a table with [`TableBuilder`], syncs it, and hands its
//! [`TableMeta`] to the manifest; readers share it as an open [`Table`] until no version names it.
//! The bytes are described in docs/format.md, "LSM: table".
//!
//! A lookup goes filter -> index -> block: one cache line of the filter says that most absent keys
//! are absent; a binary search over eight-byte heads finds the one block that can hold the key; a
//! binary search over four-byte heads finds the entry in it. Each array is contiguous, so the
//! dependent cache misses are few, and the value is lent from where it lies.
//!
//! # Invariants
//!
//! - **LT1 order.** Entries are in internal order, within and across blocks; no two have the same
//!   key and sequence number.
//! - **LT2 separators.** The separator of a block is at or before its first entry and after the
//!   last entry before it. If a block starts in the midst of the versions of a key, its separator
//!   is that whole key.
//! - **LT3 filter.** The filter, if there is one, contains the key of every entry. It knows nothing
//!   of range tombstones.
//! - **LT4 heads.** The head of a key or separator is the start of what follows the common prefix.
//! - **LT5 agreement.** The properties are what the entries and tombstones add up to, and what the
//!   manifest says.
//! - **LT6 verified first.** No byte of a block or section is interpreted before its checksum,
//!   which is seeded with store, keyspace, file and offset, has matched once in this process. A
//!   mapped uncompressed block is checked on first touch and remembered in a bitmap; any other
//!   block when it is read and before it may enter the cache. What is rewritten is checked each
//!   time, as [`Purpose::Rewrite`] says, so that no damage gets a good checksum.
//! - **LT7 bytes are not trusted** even then: a decoder reports damage and never panics, loops,
//!   or allocates by a length that the bytes present do not make plausible.
//! - **LT8 numbers.** A table that was written by a bulk load was finished before the load had a
//!   number: its entries and properties have zero, which no operation has. Its number is in the
//!   manifest, and is that of every entry; there is one version of each key, and no delete.
//!
//! [`Table::verify`] and [`Table::scrub`] check LT1 to LT6 and LT8. A lookup in a table that breaks
//! LT1 to LT4 with good checksums may miss an entry; only a faulty writer makes such a table.
//!
//! # Thread safety
//!
//! An open table is immutable but for the bitmap, whose bits are only ever set. A
//! builder or a cursor belongs to one thread at a time.
//!
//! # What it lacks on purpose
//!
//! A second level of index: the heads of a 64 MiB table take 128 KiB. A hash index:
//! the filter's frame could be extended by it.

mod aligned;
pub(crate) mod block;
mod builder;
pub(crate) mod compression;
mod cursor;
pub(crate) mod filter;
pub(crate) mod footer;
mod form;
pub(crate) mod index;
mod inspect;
pub(crate) mod meta;
mod open;
mod reader;
mod scrub;
#[cfg(test)]
mod tests;
mod verify;
mod zstd;

pub(crate) use builder::{TableBuilder, TableOptions};
pub(crate) use cursor::{Approach, Purpose, TableCursor};
pub(crate) use filter::filter_hash;
pub(crate) use form::TableForm;
pub(crate) use meta::TableMeta;
pub(crate) use reader::{BlockBytes, Table, TableContext};
