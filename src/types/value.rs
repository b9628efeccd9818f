//! Values: immutable bytes that were read.

use std::fmt;
use std::ops::{Deref, Range};

use bytes::Bytes;

/// A key or a value that was read: immutable bytes, cheap to clone, `Send + Sync`.
///
/// It owns its bytes (clones share them), so it keeps no page, block or snapshot alive.
///
/// ```
/// use hedgerow::Value;
///
/// let value = Value::copy_from(b"1815");
/// assert_eq!((value.len(), &value[..2]), (4, &b"18"[..]));
/// assert_eq!(value, "1815");
/// let bytes: bytes::Bytes = value.into_bytes();
/// assert_eq!(Value::from(bytes), "1815");
/// ```
#[derive(Clone, Default, Eq, PartialOrd, Ord)]
pub struct Value(Bytes);

impl Value {
    /// A value with a copy of `bytes`.
    pub fn copy_from(bytes: &[u8]) -> Self {
        Self(Bytes::copy_from_slice(bytes))
    }

    /// A value with a copy of `part` of `bytes`, as far as they reach.
    pub(crate) fn copy_part(bytes: &[u8], part: &Range<usize>) -> Self {
        let start = part.start.min(bytes.len());
        Self::copy_from(&bytes[start..part.end.clamp(start, bytes.len())])
    }

    /// The bytes, as the `bytes` crate's type, without copying.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }
}

impl Deref for Value {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for Value {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl From<Vec<u8>> for Value {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::copy_from(text.as_bytes())
    }
}

impl From<&[u8]> for Value {
    fn from(bytes: &[u8]) -> Self {
        Self::copy_from(bytes)
    }
}

impl From<Bytes> for Value {
    fn from(bytes: Bytes) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::hash::Hash for Value {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl<T: AsRef<[u8]> + ?Sized> PartialEq<T> for Value {
    fn eq(&self, other: &T) -> bool {
        self.0.as_ref() == other.as_ref()
    }
}
