//! Reading: point reads, views of one moment, and the cursor over a view.

pub(crate) mod ahead;
pub(crate) mod cursor;
mod estimate;
pub(crate) mod held_files;
pub(crate) mod many;
pub(crate) mod merge_cost;
pub(crate) mod pack_cost;
pub(crate) mod point;
pub(crate) mod readers;
pub(crate) mod rising;
pub(crate) mod shared;
pub(crate) mod view;
pub(crate) mod view_cache;
