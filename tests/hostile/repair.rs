//! Makes the checksums of changed files right again, so that what is behind them is reached.
//!
//! Written from docs/format.md, not from the code of the store, and forgiving: what cannot be made sense of
//! any more stays as it is.

use std::path::Path;

/// The running mix of docs/format.md's `seed_of`.
pub fn seed_of(parts: &[u64]) -> u64 {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    for part in parts {
        let z = state
            .wrapping_add(*part)
            .wrapping_mul(0xD6E8_FEB8_6659_FD93);
        let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        state = z ^ (z >> 31);
    }
    state
}

pub fn checksum(seed: u64, bytes: &[u8]) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(&seed.to_le_bytes());
    sum.update(bytes);
    sum.finalize()
}

pub fn word(name: &[u8; 8]) -> u64 {
    u64::from_le_bytes(*name)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn put_sum(bytes: &mut [u8], at: usize, sum: u32) {
    if let Some(place) = bytes.get_mut(at..at + 4) {
        place.copy_from_slice(&sum.to_le_bytes());
    }
}

/// Whose files they are.
#[derive(Debug, Clone, Copy)]
pub struct Owner {
    pub store: u64,
    pub keyspace: u64,
}

impl Owner {
    pub fn tables(self) -> u64 {
        seed_of(&[word(b"lsmtable"), self.store, self.keyspace])
    }

    fn pages(self) -> u64 {
        seed_of(&[self.store, self.keyspace])
    }
}

/// The store id in a catalogue.
pub fn store_id(catalogue: &[u8]) -> u64 {
    u64_at(catalogue, 12).expect("a catalogue")
}

/// Repairs the file `path` of a store.
pub fn repair(path: &Path, bytes: &mut [u8], store: u64) {
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    let keyspace = path
        .parent()
        .and_then(|dir| dir.to_str()?.strip_prefix("ks-")?.parse().ok())
        .unwrap_or(0);
    let owner = Owner { store, keyspace };
    let number = |digits: &str| u64::from_str_radix(digits, 16).unwrap_or(0);
    if name == "CATALOG" {
        if let Some(end) = bytes.len().checked_sub(4) {
            let sum = checksum(seed_of(&[word(b"hdgrCATL")]), &bytes[..end]);
            put_sum(bytes, end, sum);
        }
    } else if name == "HORIZON" {
        if let Some(end) = bytes.len().checked_sub(4) {
            let sum = checksum(seed_of(&[word(b"hdgrHRZN"), store]), &bytes[..end]);
            put_sum(bytes, end, sum);
        }
    } else if name == "CURRENT" {
        current(bytes, owner);
    } else if let Some(digits) = name.strip_prefix("MANIFEST-") {
        manifest(bytes, owner, number(digits));
    } else if let Some(digits) = name.strip_prefix("TABLE-") {
        table(bytes, owner, number(digits));
    } else if let Some(digits) = name.strip_suffix(".log") {
        log(bytes, store, number(digits));
    } else if name == "tree.hdb" {
        tree(bytes, owner);
    }
}

pub fn current(bytes: &mut [u8], owner: Owner) {
    if bytes.len() >= 24 {
        let seed = seed_of(&[word(b"current "), owner.store, owner.keyspace]);
        let sum = checksum(seed, &bytes[..20]);
        put_sum(bytes, 20, sum);
    }
}

pub fn manifest(bytes: &mut [u8], owner: Owner, number: u64) {
    let seed = seed_of(&[word(b"manifest"), owner.store, owner.keyspace, number]);
    if bytes.len() >= 48 {
        let sum = checksum(seed, &bytes[..44]);
        put_sum(bytes, 44, sum);
    }
    frames(bytes, seed, 48, 1);
}

/// Repairs frames that follow each other from `at` on, each at a multiple of `align`.
fn frames(bytes: &mut [u8], seed: u64, mut at: usize, align: usize) {
    while let Some(len) = u32_at(bytes, at + 4) {
        let end = at + 8 + len as usize;
        if len == 0 || end > bytes.len() {
            return;
        }
        let sum = checksum(seed_of(&[seed, at as u64]), &bytes[at + 4..end]);
        put_sum(bytes, at, sum);
        at = end.next_multiple_of(align);
    }
}

fn log(bytes: &mut [u8], store: u64, number: u64) {
    if bytes.len() < 128 {
        return;
    }
    let sum = checksum(seed_of(&[1]), &bytes[16..64]);
    put_sum(bytes, 12, sum);
    let seed = seed_of(&[store, number]);
    if bytes[64..128].iter().any(|byte| *byte != 0) {
        let sum = checksum(seed, &bytes[68..128]);
        put_sum(bytes, 64, sum);
    }
    frames(bytes, seed, 128, 8);
}

/// Where the filter's frame stands.
pub fn filter_at(blocks_end: u64) -> u64 {
    (blocks_end.saturating_add(8))
        .checked_next_multiple_of(64)
        .unwrap_or(u64::MAX)
        - 8
}

pub fn table(bytes: &mut [u8], owner: Owner, number: u64) {
    let seed = seed_of(&[owner.tables(), number]);
    let Some(footer_at) = bytes.len().checked_sub(64) else {
        return;
    };
    let field = |at: usize| u64_at(bytes, footer_at + at).unwrap_or(u64::MAX);
    let (blocks_end, index_at) = (field(8), field(16));
    let (tombstones_at, properties_at) = (field(24), field(32));
    let blocks = {
        let index_from = (index_at as usize).saturating_add(8);
        let count = u32_at(bytes, index_from).unwrap_or(0) as usize;
        let offsets_at = index_from.saturating_add(8 + count.saturating_mul(8));
        (0..count.min(bytes.len()))
            .map_while(|no| {
                Some((
                    u64_at(bytes, offsets_at + no * 8)?,
                    u64_at(bytes, offsets_at + no * 8 + 8)?,
                ))
            })
            .collect::<Vec<_>>()
    };
    let sections = [
        (filter_at(blocks_end), index_at),
        (index_at, tombstones_at),
        (tombstones_at, properties_at),
        (properties_at, footer_at as u64),
    ];
    for (from, to) in blocks.into_iter().chain(sections) {
        if from < to && to <= bytes.len() as u64 && to - from >= 8 {
            let (from, to) = (from as usize, to as usize);
            let sum = checksum(seed_of(&[seed, from as u64]), &bytes[from + 4..to]);
            put_sum(bytes, from, sum);
        }
    }
    let sum = checksum(
        seed_of(&[seed, footer_at as u64]),
        &bytes[footer_at..footer_at + 52],
    );
    put_sum(bytes, footer_at + 52, sum);
}

pub fn tree(bytes: &mut [u8], owner: Owner) {
    let Some(page_size) = u32_at(bytes, 12).map(|size| size as usize) else {
        return;
    };
    if !page_size.is_power_of_two() || !(1024..=65_536).contains(&page_size) {
        return;
    }
    let seed = owner.pages();
    let pages = bytes.len() / page_size;
    for page in 2..pages {
        let at = page * page_size;
        let len = u32_at(bytes, at + 8).unwrap_or(0) as usize;
        let fits = (1..=pages - page).contains(&len);
        if fits && matches!(bytes[at + 4], 1 | 2) && u64_at(bytes, at + 48) == Some(page as u64) {
            let end = at + len * page_size;
            let sum = checksum(seed_of(&[seed, page as u64]), &bytes[at + 4..end]);
            put_sum(bytes, at, sum);
        }
    }
    for page in 0..2.min(pages) {
        let at = page * page_size;
        let (freelist, runs) = (u64_at(bytes, at + 72), u64_at(bytes, at + 80));
        if let (Some(freelist), Some(runs)) = (freelist, runs) {
            let from = freelist.saturating_mul(page_size as u64);
            let to = from.saturating_add(runs.saturating_mul(16));
            if to <= bytes.len() as u64 && runs > 0 {
                let list = &bytes[from as usize..to as usize];
                let sum = checksum(seed_of(&[seed, freelist]), list);
                put_sum(bytes, at + 60, sum);
            }
        }
        let meta = seed_of(&[owner.store, owner.keyspace, word(b"HDGBTREE")]);
        let sum = checksum(meta, &bytes[at..at + 120]);
        put_sum(bytes, at + 120, sum);
    }
}
