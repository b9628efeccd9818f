//! Which keys a table cannot contain.

/// Hash of a key for filters. Part of the format: it never changes.
#[inline]
pub(crate) fn filter_hash(key: &[u8]) -> u64 {
    todo!()
}
