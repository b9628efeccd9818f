//! Compaction: what to rewrite ([`picker`], pure) and rewriting it ([`job`]).

pub(crate) mod job;
pub(crate) mod picker;
