//! The B-tree engine.
mod checkpoint;
mod compact;
mod delta;
mod engine;
mod freespace;
mod mem;
mod meta;
mod node;
mod pager;
mod slot;
#[cfg(test)]
mod tests;
mod tree;
mod verify;
mod view;
mod writer;

pub(crate) use engine::BTreeEngine;
