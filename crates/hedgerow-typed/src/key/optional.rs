//! Keys that may be absent, and keys in the opposite order.

use std::cmp::Reverse;

use super::{AsKey, AsPrefix, Delimited, Key, KeyDecoder, KeyError};

const NONE: u8 = 0;
const SOME: u8 = 1;

impl<K, Q: AsKey<K>> AsKey<Option<K>> for Option<Q> {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            None => out.push(NONE),
            Some(key) => {
                out.push(SOME);
                key.encode(out);
            }
        }
    }
}

impl<K, Q: AsPrefix<K>> AsPrefix<Option<K>> for Option<Q> {
    const IS_WHOLE: bool = Q::IS_WHOLE;

    fn encode_prefix(&self, out: &mut Vec<u8>) {
        match self {
            None => out.push(NONE),
            Some(key) => {
                out.push(SOME);
                key.encode_prefix(out);
            }
        }
    }
}

impl<K: Key> Key for Option<K> {
    fn decode(input: &mut KeyDecoder<'_>) -> Result<Self, KeyError> {
        match input.byte()? {
            NONE => Ok(None),
            SOME => K::decode(input).map(Some),
            other => Err(input.error(format!("{other} stands for neither none nor some"))),
        }
    }

    fn schema() -> String {
        format!("option<{}>", K::schema())
    }
}

impl<K: Delimited> Delimited for Option<K> {}

impl<K, Q: AsKey<K>> AsKey<Reverse<K>> for Reverse<Q> {
    fn encode(&self, out: &mut Vec<u8>) {
        let from = out.len();
        self.0.encode(out);
        turn_over(&mut out[from..]);
    }
}

impl<K, Q: AsPrefix<K>> AsPrefix<Reverse<K>> for Reverse<Q> {
    const IS_WHOLE: bool = Q::IS_WHOLE;

    fn encode_prefix(&self, out: &mut Vec<u8>) {
        let from = out.len();
        self.0.encode_prefix(out);
        turn_over(&mut out[from..]);
    }
}

// Bytes none of which are a prefix of others are in the opposite order with all bits turned over.
impl<K: Delimited> Key for Reverse<K> {
    fn decode(input: &mut KeyDecoder<'_>) -> Result<Self, KeyError> {
        input.reversed(K::decode).map(Reverse)
    }

    fn schema() -> String {
        format!("reverse<{}>", K::schema())
    }
}

impl<K: Delimited> Delimited for Reverse<K> {}

fn turn_over(bytes: &mut [u8]) {
    for byte in bytes {
        *byte = !*byte;
    }
}
