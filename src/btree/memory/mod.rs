//! Nodes in memory: what differs from the file, and the references to it.

pub(crate) mod children;
pub(crate) mod delta;
pub(crate) mod merged;
pub(crate) mod node;
pub(crate) mod slot;
