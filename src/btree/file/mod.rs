//! The page file: its pages, its meta pages, its free space.

pub(crate) mod freelist;
pub(crate) mod freespace;
pub(crate) mod known_leaves;
pub(crate) mod meta;
pub(crate) mod new_file;
pub(crate) mod pager;
pub(crate) mod value_table;
