//! Applying operations to the tree.

pub(crate) mod editor;
