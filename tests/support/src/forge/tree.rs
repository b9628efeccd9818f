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

/// Changes to leaves: a new value each, or none for a delete.
pub fn pack(
    page: u64,
    fences: (&[u8], Option<&[u8]>),
    changes: &[(Vec<u8>, Option<Vec<u8>>)],
) -> Vec<u8> {
    let records: Vec<_> = changes
        .iter()
        .map(|(key, value)| {
            let mut record = (key.len() as u16).to_le_bytes().to_vec();
            let word = value.as_ref().map_or(u32::MAX, |value| value.len() as u32);
            record.extend_from_slice(&word.to_le_bytes());
            record.extend_from_slice(key);
            record.extend_from_slice(value.as_deref().unwrap_or_default());
            (key.clone(), record)
        })
        .collect();
    let mut out = node(255, page, fences, &records, &[]);
    out[4] = 3;
    out
}

/// Neighbouring children of an inner node and the packs that they share.
#[derive(Debug, Clone, Default)]
pub struct Group {
    /// The first child.
    pub first: u16,
    /// Old packs: page, and the first child.
    pub old: Vec<(u64, u16)>,
    /// Recent packs, by their pages.
    pub recent: Vec<u64>,
    /// First unit, units, and units in use.
    pub area: (u64, u16, u16),
}

/// What packs hold for a child: the mask, whether it is an estimate, entries, growth and bytes.
pub type Held = (u8, u8, i16, i16, u16);

/// An inner node of [`inner`] that knows packs for its children.
pub fn with_packs(mut node: Vec<u8>, held: &[Held], groups: &[Group]) -> Vec<u8> {
    let field = |at: usize| u32::from_le_bytes(node[at..at + 4].try_into().expect("four")) as usize;
    let upper_len = match field(28) {
        0xFFFF_FFFF => 0,
        len => len,
    };
    let heads_at = (56 + field(24) + upper_len).next_multiple_of(4);
    let children_at = heads_at + 8 * field(12);
    let at = children_at + 8 * (field(12) + 1);
    let packs: usize = groups
        .iter()
        .map(|group| group.old.len() + group.recent.len())
        .sum();
    let mut section = (packs as u32).to_le_bytes().to_vec();
    for (mask, is_estimate, entries, growth, bytes) in held {
        section.extend_from_slice(&[*mask, *is_estimate]);
        section.extend_from_slice(&entries.to_le_bytes());
        section.extend_from_slice(&growth.to_le_bytes());
        section.extend_from_slice(&bytes.to_le_bytes());
    }
    let mut before = 0;
    for group in groups {
        let (start, units, used) = group.area;
        for field in [group.first, before, group.old.len() as u16, used, units, 0] {
            section.extend_from_slice(&field.to_le_bytes());
        }
        section.extend_from_slice(&start.to_le_bytes());
        before += (group.old.len() + group.recent.len()) as u16;
    }
    for group in groups {
        let recent = group.recent.iter().map(|page| (*page, 0));
        for (page, first) in group.old.iter().copied().chain(recent) {
            section.extend_from_slice(&page.to_le_bytes());
            section.extend_from_slice(&1u32.to_le_bytes());
            section.extend_from_slice(&u32::from(first).to_le_bytes());
        }
    }
    node[6..8].copy_from_slice(&(groups.len() as u16).to_le_bytes());
    node[at..at + section.len()].copy_from_slice(&section);
    node
}

/// A page file: meta pages, and pages from number 2 on. Pages refer to each other by their numbers;
/// the fingerprints come later.
pub fn tree(owner: Owner, persisted: u64, height: u32, root: u64, pages: &[Vec<u8>]) -> Vec<u8> {
    let mut meta = b"HDGBTREE\x06\0\0\0".to_vec();
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
