//! Iterators over keys alone and values alone.

use super::scan::Scan;
use crate::error::Result;
use crate::types::Value;

/// The keys of a scan, from both ends. Made by [`KvRead::keys`](crate::KvRead::keys), and from any
/// [`Scan`].
///
/// ```
/// # let kv = hedgerow::Model::new();
/// kv.put("ada", "1815")?;
/// let mut keys = hedgerow::Keys::from(kv.range("a"..));
/// assert_eq!(keys.next_back().unwrap()?, "ada");
/// # Ok::<(), hedgerow::Error>(())
/// ```
#[derive(Debug)]
pub struct Keys(pub(super) Scan);

impl From<Scan> for Keys {
    fn from(scan: Scan) -> Self {
        Self(scan)
    }
}

impl Iterator for Keys {
    type Item = Result<Value>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next_key().transpose()
    }
}

impl DoubleEndedIterator for Keys {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.0.next_back_key().transpose()
    }
}

impl std::iter::FusedIterator for Keys {}

/// The values of a scan, from both ends. Made by [`KvRead::values`](crate::KvRead::values), and
/// from any [`Scan`].
///
/// ```
/// # let kv = hedgerow::Model::new();
/// kv.put("ada", "1815")?;
/// let mut values = hedgerow::Values::from(kv.prefix("a"));
/// assert_eq!(values.next().unwrap()?, "1815");
/// # Ok::<(), hedgerow::Error>(())
/// ```
#[derive(Debug)]
pub struct Values(pub(super) Scan);

impl From<Scan> for Values {
    fn from(scan: Scan) -> Self {
        Self(scan)
    }
}

impl Iterator for Values {
    type Item = Result<Value>;

    fn next(&mut self) -> Option<Self::Item> {
        let value = self.0.next_with(|_, value| Value::copy_from(value));
        value.transpose()
    }
}

impl DoubleEndedIterator for Values {
    fn next_back(&mut self) -> Option<Self::Item> {
        let value = self.0.next_back_with(|_, value| Value::copy_from(value));
        value.transpose()
    }
}

impl std::iter::FusedIterator for Values {}
