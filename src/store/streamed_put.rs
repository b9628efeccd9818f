//! The record of a put whose value was streamed into a file of its own.
//!
//! The value is durable before the record is appended; the record has the key and a reference. Its
//! tag is one that no batch and no change of the keyspaces begins with (docs/format.md, "Streamed
//! value").

use crate::format::coding::{Malformed, Reader, put_bytes, put_varint};
use crate::types::{KeyspaceId, MAX_KEY_LEN_BYTES};
use crate::values::ValueRef;

/// A build that does not know it takes it for a change of the keyspaces of a later build, and
/// refuses the store.
const TAG_STREAMED: u8 = 0x21;

/// A put of a streamed value, as the log has it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LoggedStreamedPut<'a> {
    pub(super) keyspace: KeyspaceId,
    pub(super) key: &'a [u8],
    /// Where the value is; well-formed.
    pub(super) reference: &'a [u8],
}

impl<'a> LoggedStreamedPut<'a> {
    /// True for the payload of such a put.
    pub(super) fn is_one(payload: &[u8]) -> bool {
        payload.first() == Some(&TAG_STREAMED)
    }

    /// The payload of the record.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = vec![TAG_STREAMED];
        put_varint(&mut out, self.keyspace.0.into());
        put_bytes(&mut out, self.key);
        out.extend_from_slice(self.reference);
        out
    }

    /// The put in a payload that [is one](Self::is_one).
    pub(super) fn decode(payload: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(payload);
        reader.u8()?;
        let id = u32::try_from(reader.varint()?).map_err(|_| Malformed)?;
        let len = reader.len(MAX_KEY_LEN_BYTES)?;
        let key = reader.take(len)?;
        let reference = &payload[reader.position()..];
        ValueRef::decode(reference)?;
        Ok(Self {
            keyspace: KeyspaceId(id),
            key,
            reference,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::values::Digest;

    #[test]
    fn golden_bytes() {
        let reference = Digest::new(7, b"value").place(300, 64);
        let put = LoggedStreamedPut {
            keyspace: KeyspaceId(300),
            key: b"abc",
            reference: reference.as_bytes(),
        };
        let payload = put.encode();
        assert_eq!(payload[..7], *b"\x21\xac\x02\x03abc");
        assert_eq!(payload[7..], *reference.as_bytes());
        assert!(LoggedStreamedPut::is_one(&payload));
        for len in 1..payload.len() {
            assert!(LoggedStreamedPut::decode(&payload[..len]).is_err(), "{len}");
        }
        let longer = [&payload[..], b"\0"].concat();
        assert!(LoggedStreamedPut::decode(&longer).is_err());
        assert_eq!(LoggedStreamedPut::decode(&payload), Ok(put));
    }
}
