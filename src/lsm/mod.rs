//! The log-structured merge tree.

mod compaction;
mod cursor;
mod engine;
pub(crate) mod entry;
mod files;
mod flush;
mod manifest;
pub(crate) mod memtable;
mod merge;
mod output;
mod retention;
mod run;
pub(crate) mod table;
#[cfg(test)]
mod test_util;
mod tombstones;
mod version;
mod view;

pub(crate) use engine::LsmEngine;
