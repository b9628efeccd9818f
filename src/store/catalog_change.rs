//! Changes of the keyspaces, as records of the log.
//!
//! A change takes one sequence number, so making, dropping and renaming a keyspace and changing its
//! options have a place in commit order, and the durability that any commit has. The payload of its
//! record begins with a tag that no batch begins with (docs/format.md, "Change of the keyspaces").
//! A build that does not know a tag refuses the store, so a later one may have further changes.

use super::catalog::{Catalog, CatalogEntry, Refused, check_name};
use super::load_record::LoggedLoad;
use super::streamed_put::LoggedStreamedPut;
use crate::format::coding::{Malformed, Reader, put_bytes, put_varint};
use crate::types::{KeyspaceId, SeqNo};

/// The first tag: those below begin groups and operations of batches.
const TAG_FIRST: u8 = 0x10;
const TAG_CREATE: u8 = TAG_FIRST;
const TAG_DROP: u8 = 0x11;
const TAG_RENAME: u8 = 0x12;
const TAG_OPTIONS: u8 = 0x13;

/// One change of the keyspaces of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CatalogChange {
    /// A keyspace is made.
    Create(CatalogEntry),
    /// A keyspace goes, with everything in it.
    Drop(KeyspaceId),
    /// A keyspace has another name.
    Rename(KeyspaceId, String),
    /// The entry of a keyspace with other options.
    Options(CatalogEntry),
}

impl CatalogChange {
    /// True for the payload of a change, and false for that of a batch, of a bulk load, or of a put
    /// of a streamed value.
    pub(super) fn is_change(payload: &[u8]) -> bool {
        payload.first().is_some_and(|tag| *tag >= TAG_FIRST)
            && !LoggedLoad::is_load(payload)
            && !LoggedStreamedPut::is_one(payload)
    }

    /// The payload of the record.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Create(entry) => {
                out.push(TAG_CREATE);
                entry.encode(&mut out);
            }
            Self::Drop(id) => {
                out.push(TAG_DROP);
                put_varint(&mut out, id.0.into());
            }
            Self::Rename(id, name) => {
                out.push(TAG_RENAME);
                put_varint(&mut out, id.0.into());
                put_bytes(&mut out, name.as_bytes());
            }
            Self::Options(entry) => {
                out.push(TAG_OPTIONS);
                entry.encode(&mut out);
            }
        }
        out
    }

    /// The change in a payload that [is one](Self::is_change).
    pub(super) fn decode(payload: &[u8]) -> Result<Self, Refused> {
        let mut reader = Reader::new(payload);
        let id = |reader: &mut Reader<'_>| {
            let id = u32::try_from(reader.varint()?).map_err(|_| Malformed)?;
            Ok::<_, Malformed>(KeyspaceId(id))
        };
        let change = match reader.u8()? {
            TAG_CREATE => Self::Create(CatalogEntry::decode(&mut reader)?),
            TAG_DROP => Self::Drop(id(&mut reader)?),
            TAG_RENAME => {
                let id = id(&mut reader)?;
                let name = std::str::from_utf8(reader.bytes()?).map_err(|_| Malformed)?;
                check_name(name).map_err(|_| Malformed)?;
                Self::Rename(id, name.to_owned())
            }
            TAG_OPTIONS => Self::Options(CatalogEntry::decode(&mut reader)?),
            _ => return Err(Refused::Unknown("a change of the keyspaces")),
        };
        match reader.is_empty() {
            true => Ok(change),
            false => Err(Refused::Malformed),
        }
    }

    /// Applies the change, which has that number, to the catalogue before it; or says why it does
    /// not fit.
    pub(super) fn apply_to(&self, catalog: &mut Catalog, seq: SeqNo) -> Result<(), String> {
        match self {
            Self::Create(entry) => catalog.insert(entry.clone()),
            Self::Drop(id) => catalog.remove(*id),
            Self::Rename(id, name) => catalog.rename(*id, name),
            Self::Options(entry) => catalog.set_options(entry),
        }?;
        catalog.seq = seq;
        Ok(())
    }
}

/// Decodes a change and encodes it again; `None` if it is refused.
#[cfg(feature = "internals")]
pub(crate) fn round_trip(payload: &[u8]) -> Option<Vec<u8>> {
    CatalogChange::decode(payload)
        .ok()
        .map(|change| change.encode())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::{EngineKind, KeyspaceOptions};

    fn entry(id: u32, name: &str) -> CatalogEntry {
        let options = KeyspaceOptions::new(EngineKind::BTree);
        CatalogEntry::new(KeyspaceId(id), name, options)
    }

    #[test]
    fn golden_bytes() {
        let expected: [(CatalogChange, &[u8]); 4] = [
            (
                CatalogChange::Create(entry(2, "a")),
                b"\x10\x02\0\0\0\x01a\x03\x81\x01\x01",
            ),
            (CatalogChange::Drop(KeyspaceId(300)), b"\x11\xac\x02"),
            (
                CatalogChange::Rename(KeyspaceId(2), "bc".into()),
                b"\x12\x02\x02bc",
            ),
            (
                CatalogChange::Options(entry(2, "a").with_write_buffer(1 << 20)),
                b"\x13\x02\0\0\0\x01a\x0d\x01\x08\0\0\x10\0\0\0\0\0\x81\x01\x01",
            ),
        ];
        for (change, bytes) in expected {
            assert_eq!(change.encode(), bytes, "{change:?}");
            assert!(CatalogChange::is_change(bytes));
            assert_eq!(CatalogChange::decode(bytes).unwrap(), change);
            for len in 1..bytes.len() {
                assert!(CatalogChange::decode(&bytes[..len]).is_err());
            }
            let longer = [bytes, b"\0"].concat();
            assert!(CatalogChange::decode(&longer).is_err());
        }
    }

    #[test]
    fn changes_of_a_later_build_are_refused_and_not_taken_for_damage() {
        for tag in [0x14, 0x80, 0xff] {
            let refused = CatalogChange::decode(&[tag, 1, 2]);
            assert!(matches!(refused, Err(Refused::Unknown(_))), "{refused:?}");
        }
        for tag in 0..5 {
            assert!(!CatalogChange::is_change(&[tag]), "of a batch");
        }
        let load = LoggedLoad::heading(KeyspaceId(1));
        assert!(!CatalogChange::is_change(&load), "of a bulk load");
    }

    #[test]
    fn changes_that_do_not_fit_are_refused() {
        let mut catalog = Catalog::new(7);
        let mut next = 0;
        let mut apply = |change: CatalogChange| {
            next += 1;
            change.apply_to(&mut catalog, SeqNo(next))
        };
        let rename = |id, name: &str| CatalogChange::Rename(KeyspaceId(id), name.into());
        apply(CatalogChange::Create(entry(1, "a"))).unwrap();
        apply(CatalogChange::Create(entry(2, "b"))).unwrap();
        assert!(apply(CatalogChange::Create(entry(2, "c"))).is_err());
        assert!(apply(CatalogChange::Create(entry(4, "c"))).is_err());
        assert!(apply(CatalogChange::Drop(KeyspaceId(3))).is_err());
        assert!(apply(rename(3, "c")).is_err());
        assert!(apply(CatalogChange::Options(entry(1, "c"))).is_err());
        apply(rename(1, "c")).unwrap();
        apply(CatalogChange::Options(
            entry(1, "c").with_write_buffer(1 << 20),
        ))
        .unwrap();
        apply(rename(2, "a")).unwrap();
        apply(CatalogChange::Drop(KeyspaceId(2))).unwrap();
        apply(CatalogChange::Create(entry(3, "a"))).unwrap();
        assert_eq!(catalog.seq, SeqNo(next));
        let names: Vec<_> = catalog.entries().map(|entry| &entry.name[..]).collect();
        assert_eq!(names, ["c", "a"]);
        assert_eq!(catalog.next_id(), 4);
    }

    impl CatalogEntry {
        fn with_write_buffer(mut self, bytes: u64) -> Self {
            self.options.write_buffer_bytes = Some(bytes);
            self
        }
    }
}
