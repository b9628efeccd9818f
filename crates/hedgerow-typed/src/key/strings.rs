//! Keys of strings, of text and of bytes.

use std::borrow::Cow;

use super::{AsKey, AsPrefix, Delimited, Key, KeyDecoder, KeyError};

/// Stands for a byte 0 inside a string.
const ESCAPED_ZERO: [u8; 2] = [0, 0xFF];
/// Ends a string: below everything that may follow in a longer one.
const END: [u8; 2] = [0, 1];

fn escape(bytes: &[u8], out: &mut Vec<u8>) {
    out.reserve(bytes.len() + END.len());
    let mut pieces = bytes.split(|byte| *byte == 0);
    out.extend_from_slice(pieces.next().unwrap_or_default());
    for piece in pieces {
        out.extend_from_slice(&ESCAPED_ZERO);
        out.extend_from_slice(piece);
    }
}

fn encode(bytes: &[u8], out: &mut Vec<u8>) {
    escape(bytes, out);
    out.extend_from_slice(&END);
}

fn decode(input: &mut KeyDecoder<'_>) -> Result<Vec<u8>, KeyError> {
    let mut bytes = Vec::new();
    loop {
        match input.byte()? {
            0 => match [0, input.byte()?] {
                END => return Ok(bytes),
                ESCAPED_ZERO => bytes.push(0),
                [_, other] => {
                    let what = format!("a byte 0 in a string is followed by {other:#04x}");
                    return Err(input.error(what));
                }
            },
            byte => bytes.push(byte),
        }
    }
}

/// What stands for keys of a type of strings, as bytes.
macro_rules! string_keys {
    ($key:ty: $([$($generics:tt)*] $type:ty),*) => {$(
        impl<$($generics)*> AsKey<$key> for $type {
            fn encode(&self, out: &mut Vec<u8>) {
                encode(self.as_ref(), out);
            }
        }

        impl<$($generics)*> AsPrefix<$key> for $type {
            fn encode_prefix(&self, out: &mut Vec<u8>) {
                encode(self.as_ref(), out);
            }
        }
    )*};
}

string_keys!(String: [] String, [] str);
string_keys!(Vec<u8>: [] Vec<u8>, [] [u8], [const N: usize] [u8; N]);

impl AsKey<String> for Cow<'_, str> {
    fn encode(&self, out: &mut Vec<u8>) {
        encode(self.as_bytes(), out);
    }
}

impl AsPrefix<String> for Cow<'_, str> {
    fn encode_prefix(&self, out: &mut Vec<u8>) {
        encode(self.as_bytes(), out);
    }
}

impl Key for String {
    fn decode(input: &mut KeyDecoder<'_>) -> Result<Self, KeyError> {
        let bytes = decode(input)?;
        Self::from_utf8(bytes).map_err(|_| input.error("a string ends here that is not UTF-8"))
    }

    fn schema() -> String {
        "str".into()
    }
}

impl Delimited for String {}

impl Key for Vec<u8> {
    fn decode(input: &mut KeyDecoder<'_>) -> Result<Self, KeyError> {
        decode(input)
    }

    fn schema() -> String {
        "bytes".into()
    }
}

impl Delimited for Vec<u8> {}

impl<const N: usize> AsKey<[u8; N]> for [u8; N] {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }
}

impl<const N: usize> AsPrefix<[u8; N]> for [u8; N] {
    fn encode_prefix(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }
}

impl<const N: usize> Key for [u8; N] {
    fn decode(input: &mut KeyDecoder<'_>) -> Result<Self, KeyError> {
        input.take()
    }

    fn schema() -> String {
        format!("bytes[{N}]")
    }
}

impl<const N: usize> Delimited for [u8; N] {}

/// All strings that start with this one, as a prefix of keys.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let db = hedgerow::Db::open(dir.path().join("my.db"))?;
/// use hedgerow_typed::{StartsWith, TableDefinition};
///
/// let years = TableDefinition::<(String, u32), u32>::new("years").open(&db)?;
/// years.put(("ada", 1), &1815)?;
/// years.put(("adam", 1), &1723)?;
/// assert_eq!(years.prefix((StartsWith("ad"),)).count(), 2);
/// assert_eq!(years.prefix(("ada",)).count(), 1);
/// # Ok::<(), hedgerow_typed::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StartsWith<T>(pub T);

impl<T: AsRef<str>> AsPrefix<String> for StartsWith<T> {
    const IS_WHOLE: bool = false;

    fn encode_prefix(&self, out: &mut Vec<u8>) {
        escape(self.0.as_ref().as_bytes(), out);
    }
}

impl<T: AsRef<[u8]>> AsPrefix<Vec<u8>> for StartsWith<T> {
    const IS_WHOLE: bool = false;

    fn encode_prefix(&self, out: &mut Vec<u8>) {
        escape(self.0.as_ref(), out);
    }
}
