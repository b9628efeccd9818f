//! Small tools that know nothing of a store.

pub(crate) mod gate;
pub(crate) mod key_prefix;
pub(crate) mod keyed_list;
pub(crate) mod mutants;
pub(crate) mod patience;
pub(crate) mod prefetch;
pub(crate) mod residency;
pub(crate) mod sharded;
pub(crate) mod sync;
