//! Files of a B-tree.

use super::head;
use crate::repair::{self, Owner};

/// Size of a page.
pub const PAGE: usize = 1024;

/// A node of one page. `records` are what its slots point to, each with the key it is found by.
fn node(
    level: u8,
    page: u64,
    fences: (&[u8], Option<&[u8]>),
    records: &[(Vec<u8>, Vec<u8>)],
    children: &[u64],
) -> Vec<u8> {
    let mut out = vec![0; PAGE];
    let put32 =
        |out: &mut Vec<u8>, at: usize, n: u32| out[at..at + 4].copy_from_slice(&n.to_le_bytes());
    out[4] = if level == 0 { 1 } else { 2 };
    out[5] = level;
    let (lower, upper) = fences;
    let upper_len = upper.map_or(0, <[u8]>::len);
    put32(&mut out, 8, 1);
    put32(&mut out, 12, records.len() as u32);
    put32(&mut out, 16, records.len() as u32);
    put32(&mut out, 24, lower.len() as u32);
    put32(
        &mut out,
        28,
        upper.map_or(u32::MAX, |upper| upper.len() as u32),
    );
    out[48..56].copy_from_slice(&page.to_le_bytes());
    out[56..56 + lower.len()].copy_from_slice(lower);
    out[56 + lower.len()..56 + lower.len() + upper_len].copy_from_slice(upper.unwrap_or_default());
    let heads_at = (56 + lower.len() + upper_len).next_multiple_of(4);
    let slots_at = heads_at + 4 * records.len();
    for (n, child) in children.iter().enumerate() {
        let at = slots_at + 4 * records.len() + 8 * n;
        out[at..at + 8].copy_from_slice(&child.to_le_bytes());
    }
    let mut at = PAGE;
    let mut live = 0;
    for (n, (key, record)) in records.iter().enumerate() {
        at -= record.len();
        live += record.len();
        out[at..at + record.len()].copy_from_slice(record);
        out[heads_at + 4 * n..][..4].copy_from_slice(&head::<4>(key));
        put32(&mut out, slots_at + 4 * n, at as u32);
    }
    put32(&mut out, 32, at as u32);
    put32(&mut out, 36, live as u32);
    out
}

/// An inner node of one page, with the numbers of its children's pages.
pub fn inner(
    level: u8,
    page: u64,
    fences: (&[u8], Option<&[u8]>),
    separators: &[Vec<u8>],
    children: &[u64],
) -> Vec<u8> {
    let records: Vec<_> = separators
        .iter()
        .map(|key| {
            let mut record = (key.len() as u32).to_le_bytes().to_vec();
            record.extend_from_slice(key);
            (key.clone(), record)
        })
        .collect();
    node(level, page, fences, &records, children)
}

/// A value in a leaf.
#[derive(Debug, Clone)]
pub enum Value {
    /// In the node.
    Here(Vec<u8>),
    /// Outside: page and length.
    There(u64, u32),
}

/// A leaf of one page.
pub fn leaf(page: u64, fences: (&[u8], Option<&[u8]>), entries: &[(Vec<u8>, Value)]) -> Vec<u8> {
    let records: Vec<_> = entries
        .iter()
        .map(|(key, value)| {
            let mut record = (key.len() as u16).to_le_bytes().to_vec();
            match value {
                Value::Here(bytes) => {
                    record.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
                    record.extend_from_slice(key);
                    record.extend_from_slice(bytes);
                }
                Value::There(page, len) => {
                    record.extend_from_slice(&(1u32 << 31).to_le_bytes());
                    record.extend_from_slice(key);
                    record.extend_from_slice(&page.to_le_bytes());
                    record.extend_from_slice(&len.to_le_bytes());
                    record.extend_from_slice(&0u32.to_le_bytes());
                }
            }
            (key.clone(), record)
        })
        .collect();
    node(0, page, fences, &records, &[])
}

/// A page file: meta pages, and pages from number 2 on. Pages refer to each other by their numbers;
/// the fingerprints come later.
pub fn tree(owner: Owner, persisted: u64, height: u32, root: u64, pages: &[Vec<u8>]) -> Vec<u8> {
    let mut meta = b"HDGBTREE\x03\0\0\0".to_vec();
    meta.extend_from_slice(&(PAGE as u32).to_le_bytes());
    meta.extend_from_slice(&owner.store.to_le_bytes());
    meta.extend_from_slice(&(owner.keyspace as u32).to_le_bytes());
    meta.extend_from_slice(&0u32.to_le_bytes());
    for field in [1, persisted, root] {
        meta.extend_from_slice(&u64::to_le_bytes(field));
    }
    meta.extend_from_slice(&height.to_le_bytes());
    meta.extend_from_slice(&0u32.to_le_bytes());
    for field in [pages.len() as u64 + 2, 0, 0, 0, 0] {
        meta.extend_from_slice(&field.to_le_bytes());
    }
    // The unit: pages this small are one.
    meta.extend_from_slice(&(PAGE as u32).to_le_bytes());
    meta.resize(PAGE, 0);
    let mut out = [meta.clone(), meta].concat();
    for page in pages {
        out.extend_from_slice(page);
    }
    repair::tree(&mut out, owner, PAGE);
    out
}
