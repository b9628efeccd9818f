//! See docs/architecture.md.

pub(crate) mod entry;
pub(crate) mod table;
