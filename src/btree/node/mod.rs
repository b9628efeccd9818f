//! Nodes of the B-tree: leaf and inner pages as images in byte buffers.
pub(crate) mod header;
pub(crate) mod inner;
pub(crate) mod leaf;

pub(crate) use header::{
    NodeKind, check, kind, last_seq, level, page_count, page_id, seal, set_last_seq, set_page_id,
};

/// Full structural check of untrusted bytes (leaf or inner). Never panics.
pub(crate) fn validate(_image: &[u8]) -> Result<(), String> {
    todo!()
}

/// What a rebuild that takes in one more entry gives: one node (which may have grown to
/// several pages) or two with the separator between them (`left < separator <= right`).
/// The images have page id 0; `last_seq` is carried over.
#[derive(Debug)]
pub(crate) enum Rebuilt {
    One(Box<[u8]>),
    Two {
        left: Box<[u8]>,
        separator: Vec<u8>,
        right: Box<[u8]>,
    },
}

/// The node has no room; nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full;
