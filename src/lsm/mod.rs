//! The log-structured merge tree.
//!
//! Writes go to a sorted table in memory; full ones are written to sorted files, and files are
//! merged into fewer and larger ones in the background. A write costs an insertion in memory and a
//! few sequential rewrites later; a read asks several sorted runs, newest first.
//!
//! ```text
//!            apply                                       get, scan
//!              │                                             │
//!              ▼                                             ▼
//!   ┌─────────────────────┐   one atomic pointer   ┌───────────────────┐
//!   │ memtable (active)   │◄───────────────────────│   Superversion    │ superversion
//!   │ memtables (full)    │                        └───────────────────┘
//!   └──────────┬──────────┘                                  │
//!              │ flush                                       ▼
//!              ▼                                    ┌───────────────────┐
//!   L0  ▭ ▭ ▭ ▭       newest first, may overlap     │      Version      │ version
//!   L1..L6  ▭▭▭▭▭▭    disjoint, compacted downward  └───────────────────┘
//!              │                                             ▲
//!              └── compaction: picker (pure), job ───────────┤ manifest: one edit at a time
//! ```
//!
//! Where to read on: [`state`] puts the parts together and has the locks; [`contract`] is what the
//! store calls, [`open`] and [`verify`] are the ends of a tree's life, [`scrub`] reads tables
//! again meanwhile, [`inspect`] shows what is inside; [`superversion`], [`multi_get`] and [`scan`]
//! are reading; [`memtable`], [`flush`], [`compaction`] and [`table_writer`] are the way of a
//! write, [`bulk_load`] the shorter one of sorted input, and [`pressure`] says how fast it may be;
//! [`version`] and [`manifest`] say which tables count, [`sorted_run`] and [`table_handle`] hold
//! them; [`retention`] says which versions of a key may be dropped; [`tombstones`] and [`covers`]
//! are about range deletes, [`empty_ranges`] about what they leave; [`merge`], [`source`] and
//! [`run`] walk several tables as one, and [`offset_value`] says how they are compared; [`table`]
//! is the file format.
//!
//! Lacking on purpose: the log, the threads and the files of values that are stored apart (all are
//! the store's), tiered compaction.

mod bulk_load;
mod compaction;
mod contract;
mod covers;
mod empty_ranges;
pub(crate) mod entry;
mod estimate;
mod flush;
mod fold;
mod inspect;
mod kept_entries;
mod lookup;
pub(crate) mod manifest;
pub(crate) mod memtable;
pub(crate) mod merge;
mod multi_get;
mod obsolete_files;
mod offset_value;
mod open;
mod pressure;
mod resolution;
mod retention;
mod run;
mod scan;
mod scrub;
mod sorted_run;
pub(crate) mod source;
mod state;
mod superversion;
pub(crate) mod table;
mod table_handle;
mod table_writer;
#[cfg(test)]
mod tests;
mod tombstones;
mod verify;
mod version;

pub(crate) use obsolete_files::{CURRENT, is_own_file};
pub(crate) use state::LsmEngine;
