//! The header that leaves and inner nodes share.
use crate::types::{PageId, SeqNo};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NodeKind {
    Leaf,
    Inner,
}

/// Sets the checksum. `seed` binds it to store, keyspace and page number.
pub(crate) fn seal(_image: &mut [u8], _seed: u64) {
    todo!()
}
/// Verifies the checksum.
pub(crate) fn check(_image: &[u8], _seed: u64) -> Result<(), String> {
    todo!()
}
/// `None` on bytes that are no node.
pub(crate) fn kind(_image: &[u8]) -> Option<NodeKind> {
    todo!()
}
/// 0 for leaves.
pub(crate) fn level(_image: &[u8]) -> u8 {
    todo!()
}
/// Pages in the image, as its first page says (also of an unverified first page; check against the file's length).
pub(crate) fn page_count(_first_page: &[u8]) -> u32 {
    todo!()
}
pub(crate) fn page_id(_image: &[u8]) -> PageId {
    todo!()
}
pub(crate) fn set_page_id(_image: &mut [u8], _page: PageId) {
    todo!()
}
/// Number of the last change of the node's content.
pub(crate) fn last_seq(_image: &[u8]) -> SeqNo {
    todo!()
}
pub(crate) fn set_last_seq(_image: &mut [u8], _seq: SeqNo) {
    todo!()
}
