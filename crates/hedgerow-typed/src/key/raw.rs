//! Keys of bytes as they are.

use super::{AsKey, AsPrefix, Key, KeyDecoder, KeyError, StartsWith};

/// Bytes that are the key as they are, without an end: a whole key, or the last part of a tuple.
/// For keys that something else has made. `Vec<u8>` may stand anywhere.
///
/// ```
/// use hedgerow_typed::{RawKey, key_bytes};
///
/// assert_eq!(key_bytes::<(u8, RawKey), _>((1, b"ab")), [1, b'a', b'b']);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct RawKey(pub Vec<u8>);

impl AsRef<[u8]> for RawKey {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Key for RawKey {
    fn decode(input: &mut KeyDecoder<'_>) -> Result<Self, KeyError> {
        Ok(Self(input.rest()))
    }

    fn schema() -> String {
        "raw".into()
    }
}

/// What stands for raw keys, as bytes.
macro_rules! raw_keys {
    ($([$($generics:tt)*] $type:ty),*) => {$(
        impl<$($generics)*> AsKey<RawKey> for $type {
            fn encode(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(self.as_ref());
            }
        }

        impl<$($generics)*> AsPrefix<RawKey> for $type {
            fn encode_prefix(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(self.as_ref());
            }
        }
    )*};
}

raw_keys!([] RawKey, [] Vec<u8>, [] [u8], [] str, [] String, [const N: usize] [u8; N]);

impl<T: AsRef<[u8]>> AsPrefix<RawKey> for StartsWith<T> {
    const IS_WHOLE: bool = false;

    fn encode_prefix(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.0.as_ref());
    }
}
