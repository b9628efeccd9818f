//! Keys of types: bytes whose order is that of the values.
//!
//! Invariants, for every [`Key`] type `K` and all of its values `a` and `b`:
//! - KE1: the bytes of `a` are below those of `b` exactly if `a < b` (floats: by `total_cmp`).
//! - KE2: decoding the bytes of `a` gives `a`; bytes that no value has are an error.
//! - KE3: if `K` is [`Delimited`], the bytes of `a` are no prefix of the bytes of another value.
//!
//! By KE3 a tuple is its parts one after the other: it is in order, can be taken apart, and the
//! first parts of a tuple are a prefix of its bytes. The kinds of the parts are not stored.

mod decoder;
mod net;
mod numbers;
mod optional;
#[cfg(any(feature = "chrono", feature = "time", feature = "uuid"))]
mod other_crates;
mod raw;
mod strings;
mod structs;
mod times;
mod tuples;

pub use decoder::{KeyDecoder, KeyError};
pub use raw::RawKey;
pub use strings::StartsWith;
pub use structs::{Fields, StructKey};

/// A type of which there are keys.
///
/// | type | bytes | order |
/// | --- | --- | --- |
/// | `u8` to `u128` | big-endian | of numbers |
/// | `i8` to `i128` | big-endian, the highest bit turned over | of numbers |
/// | `f32`, `f64` | the bits; of positive ones the highest, of negative ones all turned over | `total_cmp` |
/// | `bool` | 0 or 1 | false first |
/// | `char` | as `u32` | of code points |
/// | `String` | UTF-8, each byte 0 as `00 FF`, then `00 01` | of bytes |
/// | `Vec<u8>` | the same | of bytes |
/// | `[u8; N]` | its bytes | of bytes |
/// | `Option<K>` | 0, or 1 and the key | `None` first |
/// | `Reverse<K>` | those of `K`, every bit turned over | the opposite |
/// | tuples of up to eight | one part after the other | of tuples |
/// | `SystemTime` | seconds since 1970 as `i64`, nanoseconds as `u32` | of time |
/// | `Duration` | seconds as `u64`, nanoseconds as `u32` | of length |
/// | `Ipv4Addr`, `Ipv6Addr` | their octets | of octets |
/// | `IpAddr` | 4 or 6, and the octets | version 4 first |
/// | [`RawKey`] | as they are; last in a tuple | of bytes |
/// | a struct ([`StructKey`]) | its fields, one after the other | as derived |
/// | `Uuid` (feature `uuid`) | its 16 bytes | of bytes |
///
/// With the features `time` and `chrono` there are also keys of dates and times of these crates.
/// Floats keep every bit: `-0.0` is a key of its own, below `0.0`, and so is each NaN; those with
/// the sign bit come first of all, the others last. There are no keys of `usize`, whose size
/// differs between machines.
///
/// Where `KeyBuilder` of the crate hedgerow has the type, its bytes are the same.
///
/// A type of your own is a newtype or a [struct of fields](StructKey); or implement this trait,
/// [`AsKey`], [`AsPrefix`] and, if it holds, [`Delimited`], out of types that have them:
///
/// ```
/// use hedgerow_typed::{AsKey, AsPrefix, Delimited, Key, KeyDecoder, KeyError};
///
/// #[derive(Debug, PartialEq)]
/// struct UserId(u64);
///
/// impl Key for UserId {
///     fn decode(input: &mut KeyDecoder<'_>) -> Result<Self, KeyError> {
///         u64::decode(input).map(Self)
///     }
///     fn schema() -> String {
///         "UserId".into()
///     }
/// }
/// impl AsKey<UserId> for UserId {
///     fn encode(&self, out: &mut Vec<u8>) {
///         AsKey::<u64>::encode(&self.0, out);
///     }
/// }
/// impl AsPrefix<UserId> for UserId {
///     fn encode_prefix(&self, out: &mut Vec<u8>) {
///         self.encode(out);
///     }
/// }
/// impl Delimited for UserId {}
///
/// let bytes = hedgerow_typed::key_bytes::<(UserId, String), _>((UserId(7), "ada"));
/// let key: (UserId, String) = hedgerow_typed::key_of_bytes(&bytes)?;
/// assert_eq!(key, (UserId(7), "ada".into()));
/// # Ok::<(), KeyError>(())
/// ```
pub trait Key: Sized + AsKey<Self> {
    /// Reads a value from the front of `input`.
    ///
    /// # Errors
    ///
    /// If no value has such bytes.
    fn decode(input: &mut KeyDecoder<'_>) -> Result<Self, KeyError>;

    /// A name of the type and its encoding, which a table keeps: it opens with keys of no other
    /// name.
    fn schema() -> String;
}

/// What can stand for a key of type `K`: the key, a reference to it, its borrowed form (`str` for
/// `String`, `[u8]` for `Vec<u8>`), a tuple of such.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no key of type `{K}`",
    note = "a key is given as it is, by reference, or in its borrowed form: `str` for `String`, \
            `[u8]` for `Vec<u8>`, a tuple of these"
)]
pub trait AsKey<K: ?Sized> {
    /// Appends the bytes of the key to `out`.
    fn encode(&self, out: &mut Vec<u8>);
}

/// What can stand for the beginning of keys of type `K`: a key; the first parts of a tuple as a
/// tuple, `(a,)` of `(A, B, C)`; [`StartsWith`] for a string, also as the last of such parts;
/// [`Fields`] for a struct.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no prefix of keys of type `{K}`",
    note = "a prefix is a key, a tuple of the first parts of a key, or `StartsWith` of a string"
)]
pub trait AsPrefix<K: ?Sized> {
    /// Whether it names one key, rather than all that begin like it.
    const IS_WHOLE: bool = true;

    /// Appends the bytes with which such keys begin to `out`.
    fn encode_prefix(&self, out: &mut Vec<u8>);
}

/// Keys none of which begins like another one, byte for byte (KE3): something may follow them, in
/// a tuple and in an index. All types but [`RawKey`].
pub trait Delimited: Key {}

impl<K: ?Sized, T: AsKey<K> + ?Sized> AsKey<K> for &T {
    fn encode(&self, out: &mut Vec<u8>) {
        (**self).encode(out);
    }
}

impl<K: ?Sized, T: AsPrefix<K> + ?Sized> AsPrefix<K> for &T {
    const IS_WHOLE: bool = T::IS_WHOLE;

    fn encode_prefix(&self, out: &mut Vec<u8>) {
        (**self).encode_prefix(out);
    }
}

/// The bytes of a key.
///
/// ```
/// use hedgerow_typed::key_bytes;
///
/// assert_eq!(key_bytes::<(String, i8), _>(("a", 1)), b"a\x00\x01\x81");
/// ```
pub fn key_bytes<K: Key, Q: AsKey<K>>(key: Q) -> Vec<u8> {
    encoded(key)
}

/// The bytes of what stands for a key.
pub(crate) fn encoded<K>(key: impl AsKey<K>) -> Vec<u8> {
    let mut out = Vec::new();
    key.encode(&mut out);
    out
}

/// The key that has these bytes, all of them.
///
/// # Errors
///
/// If none has.
///
/// ```
/// use hedgerow_typed::key_of_bytes;
///
/// assert_eq!(key_of_bytes::<u16>(&[1, 0])?, 256);
/// assert!(key_of_bytes::<u16>(&[1]).is_err());
/// assert!(key_of_bytes::<bool>(&[2]).is_err());
/// # Ok::<(), hedgerow_typed::KeyError>(())
/// ```
pub fn key_of_bytes<K: Key>(bytes: &[u8]) -> Result<K, KeyError> {
    let mut input = KeyDecoder::new(bytes);
    let key = K::decode(&mut input)?;
    input.finish()?;
    Ok(key)
}
