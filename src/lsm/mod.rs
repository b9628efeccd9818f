//! See docs/architecture.md.

pub(crate) mod entry;
pub(crate) mod memtable;
pub(crate) mod merge;
pub(crate) mod table;
#[cfg(test)]
pub(crate) mod test_util;
pub(crate) mod tombstones;
