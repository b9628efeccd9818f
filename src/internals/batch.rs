//! Windows into the payloads of the log, the catalogue and the WAL manifest.

use std::path::Path;

use crate::error::Result;
use crate::store::{catalog, catalog_change, wal_manifest};
use crate::types::KeyspaceId;
use crate::{kv, types};

/// An operation of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op<'a> {
    /// Sets a key.
    Put {
        /// The key.
        key: &'a [u8],
        /// The value.
        value: &'a [u8],
    },
    /// Removes a key.
    Delete {
        /// The key.
        key: &'a [u8],
    },
    /// Merges an operand into the value of a key.
    Merge {
        /// The key.
        key: &'a [u8],
        /// The operand.
        operand: &'a [u8],
    },
    /// Removes `[start, end)`, or everything from `start` on.
    DeleteRange {
        /// The first key that goes.
        start: &'a [u8],
        /// The first key that stays.
        end: Option<&'a [u8]>,
    },
}

impl<'a> From<types::Op<'a>> for Op<'a> {
    fn from(op: types::Op<'a>) -> Self {
        match op {
            types::Op::Put { key, value } => Self::Put { key, value },
            types::Op::Delete { key } => Self::Delete { key },
            types::Op::Merge { key, operand } => Self::Merge { key, operand },
            types::Op::DeleteRange { start, end } => Self::DeleteRange { start, end },
        }
    }
}

impl<'a> From<Op<'a>> for types::Op<'a> {
    fn from(op: Op<'a>) -> Self {
        match op {
            Op::Put { key, value } => Self::Put { key, value },
            Op::Delete { key } => Self::Delete { key },
            Op::Merge { key, operand } => Self::Merge { key, operand },
            Op::DeleteRange { start, end } => Self::DeleteRange { start, end },
        }
    }
}

/// The operations of a payload of the log, each with the number of its keyspace; or the offset at
/// which the payload is malformed.
pub fn decode_batch(payload: &[u8]) -> Result<Vec<(u32, Op<'_>)>, usize> {
    let mut ops = Vec::new();
    kv::decode_payload(payload, |keyspace, op, _| {
        ops.push((keyspace.0, op.into()));
        Ok(())
    })
    .expect("the visitor never fails")
    .map(|()| ops)
}

/// The payload of those operations, with a heading before the first of every stretch on one
/// keyspace.
pub fn encode_batch(ops: &[(u32, Op<'_>)]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut current = None;
    for (keyspace, op) in ops {
        if current != Some(*keyspace) {
            kv::encode_keyspace(&mut out, KeyspaceId(*keyspace));
            current = Some(*keyspace);
        }
        kv::encode_op(&mut out, &(*op).into());
    }
    out
}

/// Decodes a change of the keyspaces, the payload of a record of the log, and encodes it again;
/// `None` if it is refused.
pub fn catalog_change_round_trip(payload: &[u8]) -> Option<Vec<u8>> {
    catalog_change::round_trip(payload)
}

/// Decodes a WAL manifest and encodes it again.
pub fn wal_manifest_round_trip(bytes: &[u8]) -> Result<Vec<u8>> {
    wal_manifest::round_trip(bytes, Path::new("WAL-MANIFEST"))
}

/// Decodes a catalogue and encodes it again.
pub fn catalog_round_trip(bytes: &[u8]) -> Result<Vec<u8>> {
    catalog::round_trip(bytes, Path::new("CATALOG"))
}
