//! Manifests of an LSM tree.

use super::varint;
use crate::repair::{self, Owner};

/// An edit that says up to which number the tree is persisted and which number the next file gets,
/// and that adds tables: level and meta.
pub fn edit(persisted: u64, next_file: u64, tables: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let mut edit = vec![1];
    varint(&mut edit, persisted);
    edit.push(2);
    varint(&mut edit, next_file);
    for (level, meta) in tables {
        edit.extend_from_slice(&[3, *level]);
        edit.extend_from_slice(meta);
    }
    edit
}

/// `CURRENT` and `MANIFEST-1` of a tree with these tables: level and meta.
pub fn manifest_of(
    owner: Owner,
    persisted: u64,
    tables: &[(u8, Vec<u8>)],
) -> [(String, Vec<u8>); 2] {
    let mut pointer = b"hgrwCURR\x04\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0".to_vec();
    repair::current(&mut pointer, owner);
    let mut out = b"hgrwMANI\x04\0\0\0".to_vec();
    out.extend_from_slice(&(owner.keyspace as u32).to_le_bytes());
    out.extend_from_slice(&owner.store.to_le_bytes());
    out.extend_from_slice(&1u64.to_le_bytes());
    out.extend_from_slice(&256u32.to_le_bytes());
    out.resize(48, 0);
    for payload in [&edit(persisted, 1000, tables)[..], &[0]] {
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
        out.extend_from_slice(payload);
    }
    repair::manifest(&mut out, owner, 1);
    [
        ("CURRENT".into(), pointer),
        (format!("MANIFEST-{:016x}", 1), out),
    ]
}
