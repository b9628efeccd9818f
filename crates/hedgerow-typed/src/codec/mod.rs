//! Values as bytes.

mod schema;

use std::borrow::Borrow;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::CodecError;
use crate::key::{Key, key_bytes, key_of_bytes};

/// How values of type `V` are stored. [`Postcard`] is the default of tables.
///
/// A codec of your own, as of JSON, a memory layout, or compressed values:
///
/// ```
/// use hedgerow_typed::{Codec, CodecError, TableDefinition};
///
/// /// Numbers as text.
/// enum Decimal {}
///
/// impl Codec<u64> for Decimal {
///     type Owned = u64;
///
///     fn encode(value: &u64, out: &mut Vec<u8>) -> Result<(), CodecError> {
///         out.extend_from_slice(value.to_string().as_bytes());
///         Ok(())
///     }
///
///     fn decode(bytes: &[u8]) -> Result<u64, CodecError> {
///         Ok(std::str::from_utf8(bytes)?.parse()?)
///     }
///
///     fn schema() -> String {
///         "decimal u64".into()
///     }
/// }
///
/// # let dir = tempfile::tempdir().unwrap();
/// # let db = hedgerow::Db::open(dir.path().join("my.db"))?;
/// let counts = TableDefinition::<String, u64, Decimal>::with_codec("counts").open(&db)?;
/// counts.put("visits", &7)?;
/// assert_eq!(counts.get("visits")?, Some(7));
/// # Ok::<(), hedgerow_typed::Error>(())
/// ```
pub trait Codec<V: ?Sized> {
    /// What reading gives: `V`, or an owned form of it.
    type Owned: Borrow<V>;

    /// Appends the bytes of `value` to `out`.
    ///
    /// # Errors
    ///
    /// If the value cannot be stored. The table reports it as
    /// [`Error::Value`](crate::Error::Value).
    fn encode(value: &V, out: &mut Vec<u8>) -> Result<(), CodecError>;

    /// The value that has these bytes.
    ///
    /// # Errors
    ///
    /// If none has.
    fn decode(bytes: &[u8]) -> Result<Self::Owned, CodecError>;

    /// A name of the type and its encoding, which a table keeps: it opens with values of no other
    /// name.
    fn schema() -> String;
}

/// Values by serde, in the format of the crate `postcard`: integers of variable length, no names,
/// no tags. Its [specification](https://postcard.jamesmunns.com) is fixed as of version 1.
///
/// As names are not stored, bytes mean nothing without their type. So the name by which a table
/// knows its values has what serde says about the type: for a struct its name and those of its
/// fields, for an enum its variants, not what the fields hold. After a change of a type give the
/// table a new version and a migration; if only names have changed, keep the old ones with
/// [`TableDefinition::value_schema`](crate::TableDefinition::value_schema).
///
/// Equal values have equal bytes, other than with fields whose order is left to chance, such as a
/// `HashMap`. What serializers may leave out by `skip_serializing_if` cannot be stored.
#[derive(Debug, Clone, Copy)]
pub enum Postcard {}

impl<V: Serialize + DeserializeOwned> Codec<V> for Postcard {
    type Owned = V;

    fn encode(value: &V, out: &mut Vec<u8>) -> Result<(), CodecError> {
        *out = postcard::to_extend(value, std::mem::take(out))?;
        Ok(())
    }

    fn decode(bytes: &[u8]) -> Result<V, CodecError> {
        let (value, rest) = postcard::take_from_bytes(bytes)?;
        match rest.len() {
            0 => Ok(value),
            more => Err(format!("{more} bytes are left over").into()),
        }
    }

    fn schema() -> String {
        format!("postcard {}", schema::of::<V>())
    }
}

/// Bytes and text as they are: values of type `[u8]`, `Vec<u8>`, `str`, `String` and
/// [`hedgerow::Value`], which is read without a copy more.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let db = hedgerow::Db::open(dir.path().join("my.db"))?;
/// use hedgerow_typed::{Raw, TableDefinition};
///
/// let notes = TableDefinition::<u64, str, Raw>::with_codec("notes").open(&db)?;
/// notes.put(1, "a hedge")?;
/// assert_eq!(notes.get(1)?.as_deref(), Some("a hedge"));
/// # Ok::<(), hedgerow_typed::Error>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub enum Raw {}

/// Types of values that are bytes: what reading gives, and the name.
macro_rules! raw_values {
    ($($type:ty, $owned:ty, $name:literal, $decode:expr;)*) => {$(
        impl Codec<$type> for Raw {
            type Owned = $owned;

            fn encode(value: &$type, out: &mut Vec<u8>) -> Result<(), CodecError> {
                out.extend_from_slice(value.as_ref());
                Ok(())
            }

            fn decode(bytes: &[u8]) -> Result<$owned, CodecError> {
                let decode: fn(&[u8]) -> Result<$owned, CodecError> = $decode;
                decode(bytes)
            }

            fn schema() -> String {
                $name.into()
            }
        }
    )*};
}

raw_values! {
    [u8], Vec<u8>, "raw bytes", |bytes| Ok(bytes.to_vec());
    Vec<u8>, Vec<u8>, "raw bytes", |bytes| Ok(bytes.to_vec());
    hedgerow::Value, hedgerow::Value, "raw bytes", |bytes| Ok(bytes.into());
    str, String, "raw text", |bytes| Ok(String::from_utf8(bytes.to_vec())?);
    String, String, "raw text", |bytes| Ok(String::from_utf8(bytes.to_vec())?);
}

/// Values in the encoding of [keys](Key): fixed sizes, and without serde.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let db = hedgerow::Db::open(dir.path().join("my.db"))?;
/// use hedgerow_typed::{AsKeys, TableDefinition};
///
/// let places = TableDefinition::<u64, (f64, f64), AsKeys>::with_codec("places").open(&db)?;
/// places.put(1, &(52.5, 13.4))?;
/// assert_eq!(places.get(1)?, Some((52.5, 13.4)));
/// # Ok::<(), hedgerow_typed::Error>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub enum AsKeys {}

impl<V: Key> Codec<V> for AsKeys {
    type Owned = V;

    fn encode(value: &V, out: &mut Vec<u8>) -> Result<(), CodecError> {
        out.extend_from_slice(&key_bytes::<V, _>(value));
        Ok(())
    }

    fn decode(bytes: &[u8]) -> Result<V, CodecError> {
        Ok(key_of_bytes(bytes)?)
    }

    fn schema() -> String {
        format!("key {}", V::schema())
    }
}
