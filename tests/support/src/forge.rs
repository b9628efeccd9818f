//! Files made by hand, byte by byte, that no store would write.

use super::repair::{Owner, current, filter_at, manifest, table};

pub fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn head<const N: usize>(key: &[u8]) -> [u8; N] {
    let mut head = [0; N];
    let len = key.len().min(N);
    head[..len].copy_from_slice(&key[..len]);
    head.reverse();
    head
}

/// The body of a block that holds these entries, in this order: key, sequence number, value.
pub fn body(entries: &[(Vec<u8>, u64, Vec<u8>)]) -> Vec<u8> {
    let mut out = (entries.len() as u32).to_le_bytes().to_vec();
    out.extend_from_slice(&[0, 0, 8, 4]);
    out.extend_from_slice(&[0; 8]);
    for (key, _, _) in entries {
        out.extend_from_slice(&head::<4>(key));
    }
    let mut records = Vec::new();
    let records_at = out.len() + 4 * entries.len();
    for (key, seq, value) in entries {
        out.extend_from_slice(&((records_at + records.len()) as u32).to_le_bytes());
        records.extend_from_slice(&(seq << 8 | 1).to_le_bytes());
        bytes(&mut records, key);
        records.extend_from_slice(value);
    }
    out.extend(records);
    out
}

/// A block in its frame; the checksum comes later.
pub struct Block {
    pub separator: Vec<u8>,
    pub tag: u8,
    pub bytes: Vec<u8>,
}

/// A table and what the manifest says about it.
pub struct Table {
    pub blocks: Vec<Block>,
    pub smallest: Vec<u8>,
    pub largest: Vec<u8>,
    pub seqs: (u64, u64),
    pub entries: u64,
    /// Encoded, with their count.
    pub tombstones: Vec<u8>,
    pub range_tombstones: u64,
}

impl Table {
    fn meta(&self, number: u64, len: u64) -> Vec<u8> {
        let mut out = number.to_le_bytes().to_vec();
        out.extend_from_slice(&len.to_le_bytes());
        bytes(&mut out, &self.smallest);
        if self.range_tombstones > 0 {
            out.push(0);
        } else {
            out.push(1);
            bytes(&mut out, &self.largest);
        }
        for field in [
            self.seqs.0,
            self.seqs.1,
            self.entries,
            0,
            self.range_tombstones,
            0,
            0,
        ] {
            varint(&mut out, field);
        }
        out
    }

    /// The file, and its meta.
    pub fn file(&self, owner: Owner, number: u64) -> (Vec<u8>, Vec<u8>) {
        let mut out = Vec::new();
        let mut starts = Vec::new();
        for block in &self.blocks {
            starts.push(out.len() as u64);
            out.extend_from_slice(&[0, 0, 0, 0, block.tag, 0, 0, 0]);
            out.extend_from_slice(&block.bytes);
        }
        let blocks_end = out.len() as u64;
        starts.push(blocks_end);
        out.resize(filter_at(blocks_end) as usize, 0);
        out.extend_from_slice(&[0; 8]);
        let index_at = out.len() as u64;
        out.extend_from_slice(&[0; 8]);
        out.extend_from_slice(&(self.blocks.len() as u32).to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        for block in &self.blocks {
            out.extend_from_slice(&head::<8>(&block.separator));
        }
        for start in starts {
            out.extend_from_slice(&start.to_le_bytes());
        }
        let mut suffix_at = 0u32;
        for block in &self.blocks {
            out.extend_from_slice(&suffix_at.to_le_bytes());
            suffix_at += block.separator.len() as u32;
        }
        out.extend_from_slice(&suffix_at.to_le_bytes());
        for block in &self.blocks {
            out.extend_from_slice(&block.separator);
        }
        let tombstones_at = out.len() as u64;
        out.extend_from_slice(&[0; 8]);
        out.extend_from_slice(&self.tombstones);
        let properties_at = out.len() as u64;
        let compressed = self.blocks.iter().filter(|block| block.tag == 1).count() as u64;
        let mut counts = Vec::new();
        varint(&mut counts, self.blocks.len() as u64);
        varint(&mut counts, compressed);
        let meta_len = self.meta(number, 0).len();
        let len = properties_at + (8 + meta_len + counts.len() + 64) as u64;
        let meta = self.meta(number, len);
        out.extend_from_slice(&[0; 8]);
        out.extend_from_slice(&meta);
        out.extend(counts);
        for field in [
            number,
            blocks_end,
            index_at,
            tombstones_at,
            properties_at,
            0,
        ] {
            out.extend_from_slice(&field.to_le_bytes());
        }
        out.extend_from_slice(&2u32.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(b"HEDGETBL");
        table(&mut out, owner, number);
        (out, meta)
    }
}

/// `CURRENT` and `MANIFEST-1` of a tree with these tables: level and meta.
pub fn manifest_of(
    owner: Owner,
    persisted: u64,
    tables: &[(u8, Vec<u8>)],
) -> [(String, Vec<u8>); 2] {
    let mut pointer = b"hgrwCURR\x01\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0".to_vec();
    current(&mut pointer, owner);
    let mut out = b"hgrwMANI\x01\0\0\0".to_vec();
    out.extend_from_slice(&(owner.keyspace as u32).to_le_bytes());
    out.extend_from_slice(&owner.store.to_le_bytes());
    out.extend_from_slice(&1u64.to_le_bytes());
    out.extend_from_slice(&256u32.to_le_bytes());
    out.resize(48, 0);
    let mut edit = vec![1];
    varint(&mut edit, persisted);
    edit.push(2);
    varint(&mut edit, 1000);
    for (level, meta) in tables {
        edit.extend_from_slice(&[3, *level]);
        edit.extend_from_slice(meta);
    }
    for payload in [&edit[..], &[0]] {
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
        out.extend_from_slice(payload);
    }
    manifest(&mut out, owner, 1);
    [
        ("CURRENT".into(), pointer),
        (format!("MANIFEST-{:016x}", 1), out),
    ]
}

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

/// A leaf; a value is its bytes, or page, length and checksum of one that lies outside.
pub enum Value {
    Here(Vec<u8>),
    There(u64, u32),
}

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

/// A page file: meta pages, and pages from number 2 on. Pages refer to each other by their numbers; the fingerprints
/// come later.
pub fn tree(owner: Owner, persisted: u64, height: u32, root: u64, pages: &[Vec<u8>]) -> Vec<u8> {
    let mut meta = b"HDGBTREE\x02\0\0\0".to_vec();
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
    meta.resize(PAGE, 0);
    let mut out = [meta.clone(), meta].concat();
    for page in pages {
        out.extend_from_slice(page);
    }
    super::repair::tree(&mut out, owner, PAGE);
    out
}
