//! The record of a bulk load in the log.
//!
//! The entries of a load are in files of its engine; the record names them, in a form that is the
//! engine's own. It is the commit of the load. Its tag is one that no batch and no change of the
//! keyspaces begins with (docs/format.md, "Bulk load").

use crate::format::coding::{Malformed, Reader, put_varint};
use crate::types::KeyspaceId;

/// A build that does not know it takes it for a change of the keyspaces of a later build, and
/// refuses the store.
const TAG_LOAD: u8 = 0x20;

/// A load, as the log has it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LoggedLoad<'a> {
    pub(super) keyspace: KeyspaceId,
    /// For the engine.
    pub(super) content: &'a [u8],
}

impl<'a> LoggedLoad<'a> {
    /// True for the payload of a load.
    pub(super) fn is_load(payload: &[u8]) -> bool {
        payload.first() == Some(&TAG_LOAD)
    }

    /// What comes before the content.
    pub(super) fn heading(keyspace: KeyspaceId) -> Vec<u8> {
        let mut out = vec![TAG_LOAD];
        put_varint(&mut out, keyspace.0.into());
        out
    }

    /// The load in a payload that [is one](Self::is_load).
    pub(super) fn decode(payload: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(payload);
        reader.u8()?;
        let id = u32::try_from(reader.varint()?).map_err(|_| Malformed)?;
        Ok(Self {
            keyspace: KeyspaceId(id),
            content: &payload[reader.position()..],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes() {
        let payload = [&LoggedLoad::heading(KeyspaceId(300))[..], b"abc"].concat();
        assert_eq!(payload, b"\x20\xac\x02abc");
        assert!(LoggedLoad::is_load(&payload));
        let load = LoggedLoad {
            keyspace: KeyspaceId(300),
            content: b"abc",
        };
        assert_eq!(LoggedLoad::decode(&payload), Ok(load));
        assert_eq!(LoggedLoad::decode(&payload[..2]), Err(Malformed));
        assert!(LoggedLoad::decode(b"\x20\xff\xff\xff\xff\xff\x01").is_err());
    }
}
