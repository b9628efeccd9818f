//! Keys of numbers, truth values and characters.

use super::{AsKey, Key, KeyDecoder, KeyError};

/// The last traits of a type whose keys stand for themselves.
macro_rules! whole_key {
    ($($type:ty),*) => {$(
        impl $crate::AsPrefix<$type> for $type {
            fn encode_prefix(&self, out: &mut Vec<u8>) {
                $crate::AsKey::<$type>::encode(self, out);
            }
        }

        impl $crate::Delimited for $type {}
    )*};
}
pub(super) use whole_key;

/// Each type, the integer that is stored for it, and the bits that are turned over.
macro_rules! integer_keys {
    ($($type:ident, $stored:ident, $flip:expr;)*) => {$(
        impl AsKey<$type> for $type {
            fn encode(&self, out: &mut Vec<u8>) {
                let stored = (*self as $stored) ^ $flip;
                out.extend_from_slice(&stored.to_be_bytes());
            }
        }

        impl Key for $type {
            fn decode(input: &mut KeyDecoder<'_>) -> Result<Self, KeyError> {
                let stored = $stored::from_be_bytes(input.take()?);
                Ok((stored ^ $flip) as $type)
            }

            fn schema() -> String {
                stringify!($type).into()
            }
        }

        whole_key!($type);
    )*};
}

integer_keys! {
    u8, u8, 0;
    u16, u16, 0;
    u32, u32, 0;
    u64, u64, 0;
    u128, u128, 0;
    i8, u8, 1 << 7;
    i16, u16, 1 << 15;
    i32, u32, 1 << 31;
    i64, u64, 1 << 63;
    i128, u128, 1 << 127;
}

/// Each type, its bits, and the highest of them.
macro_rules! float_keys {
    ($($type:ident, $bits:ident, $sign:expr;)*) => {$(
        impl AsKey<$type> for $type {
            fn encode(&self, out: &mut Vec<u8>) {
                let bits = self.to_bits();
                // Negative numbers fall as their bits rise.
                let stored = if bits & $sign == 0 { bits | $sign } else { !bits };
                out.extend_from_slice(&stored.to_be_bytes());
            }
        }

        impl Key for $type {
            fn decode(input: &mut KeyDecoder<'_>) -> Result<Self, KeyError> {
                let stored = $bits::from_be_bytes(input.take()?);
                let bits = if stored & $sign == 0 { !stored } else { stored & !$sign };
                Ok($type::from_bits(bits))
            }

            fn schema() -> String {
                stringify!($type).into()
            }
        }

        whole_key!($type);
    )*};
}

float_keys! {
    f32, u32, 1 << 31;
    f64, u64, 1 << 63;
}

impl AsKey<bool> for bool {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push((*self).into());
    }
}

impl Key for bool {
    fn decode(input: &mut KeyDecoder<'_>) -> Result<Self, KeyError> {
        match input.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(input.error(format!("{other} is no truth value"))),
        }
    }

    fn schema() -> String {
        "bool".into()
    }
}

impl AsKey<char> for char {
    fn encode(&self, out: &mut Vec<u8>) {
        AsKey::<u32>::encode(&u32::from(*self), out);
    }
}

impl Key for char {
    fn decode(input: &mut KeyDecoder<'_>) -> Result<Self, KeyError> {
        let code = u32::decode(input)?;
        char::from_u32(code).ok_or_else(|| input.error(format!("{code:#x} is no character")))
    }

    fn schema() -> String {
        "char".into()
    }
}

whole_key!(bool, char);
