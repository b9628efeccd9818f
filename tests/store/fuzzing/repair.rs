//! Makes the checksums of a store's files right, whatever else their bytes say.
//!
//! Written from docs/format.md, not from the code that it tests. Every function takes bytes as
//! they come and leaves alone what it cannot find its way through.

use std::path::{Component, Path};

use hedgerow::internals::{checksum, seed_of};

use crate::image::Image;

/// Length of a frame's header: checksum and length.
const FRAME_LEN: usize = 8;

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = bytes.get(at..at.checked_add(8)?)?;
    Some(u64::from_le_bytes(bytes.try_into().ok()?))
}

fn put(bytes: &mut [u8], at: usize, new: &[u8]) {
    if let Some(old) = bytes.get_mut(at..at + new.len()) {
        old.copy_from_slice(new);
    }
}

fn word(text: &[u8; 8]) -> u64 {
    u64::from_le_bytes(*text)
}

/// `CATALOG`.
pub fn catalog(bytes: &mut [u8]) {
    if let Some(body) = bytes.len().checked_sub(4) {
        let sum = checksum(seed_of(&[word(b"hdgrCATL")]), &bytes[..body]);
        put(bytes, body, &sum.to_le_bytes());
    }
}

/// `HORIZON`.
pub fn horizon(bytes: &mut [u8], store: u64) {
    if let Some(body) = bytes.len().checked_sub(4) {
        let sum = checksum(seed_of(&[word(b"hdgrHRZN"), store]), &bytes[..body]);
        put(bytes, body, &sum.to_le_bytes());
    }
}

/// Frames that follow each other from `at` on: `aligned` to so many bytes.
fn frames(bytes: &mut [u8], mut at: usize, seed: u64, aligned: usize) {
    while let Some(len) = u32_at(bytes, at + 4) {
        let end = at + FRAME_LEN + len as usize;
        if len == 0 || end > bytes.len() {
            break;
        }
        let sum = checksum(seed_of(&[seed, at as u64]), &bytes[at + 4..end]);
        put(bytes, at, &sum.to_le_bytes());
        at = end.next_multiple_of(aligned);
    }
}

/// `CURRENT` of an LSM.
pub fn current(bytes: &mut [u8], store: u64, keyspace: u32) {
    if bytes.len() >= 24 {
        let seed = seed_of(&[word(b"current "), store, keyspace.into()]);
        let sum = checksum(seed, &bytes[..20]);
        put(bytes, 20, &sum.to_le_bytes());
    }
}

/// The seed of manifest `number`.
pub fn manifest_seed(store: u64, keyspace: u32, number: u64) -> u64 {
    seed_of(&[word(b"manifest"), store, keyspace.into(), number])
}

/// A manifest: its header, and all frames behind it.
pub fn manifest(bytes: &mut [u8], store: u64, keyspace: u32, number: u64) {
    let seed = manifest_seed(store, keyspace, number);
    if bytes.len() >= 48 {
        let sum = checksum(seed, &bytes[..44]);
        put(bytes, 44, &sum.to_le_bytes());
        frames(bytes, 48, seed, 1);
    }
}

/// A segment of the log: its header, its activation, and all records from the first on.
pub fn segment(bytes: &mut [u8], store: u64, number: u64) {
    if bytes.len() < 128 {
        return;
    }
    let version = u32_at(bytes, 8).unwrap_or_default();
    let sum = checksum(seed_of(&[version.into()]), &bytes[16..64]);
    put(bytes, 12, &sum.to_le_bytes());
    let seed = seed_of(&[store, number]);
    if bytes[64..128].iter().any(|byte| *byte != 0) {
        let sum = checksum(seed, &bytes[68..128]);
        put(bytes, 64, &sum.to_le_bytes());
    }
    frames(bytes, 128, seed, 8);
}

/// A table: its footer, and the frame of every section and block that they lead to.
pub fn table(bytes: &mut [u8], store: u64, keyspace: u32, file: u64) {
    let seed = seed_of(&[word(b"lsmtable"), store, keyspace.into()]);
    let seed = seed_of(&[seed, file]);
    let Some(footer) = bytes.len().checked_sub(64) else {
        return;
    };
    let field = |bytes: &[u8], n: usize| u64_at(bytes, footer + 8 * n).map(|at| at as usize);
    let (Some(blocks_end), Some(index), Some(tombstones), Some(properties)) = (
        field(bytes, 1),
        field(bytes, 2),
        field(bytes, 3),
        field(bytes, 4),
    ) else {
        return;
    };
    let seal = |bytes: &mut [u8], from: usize, to: usize| {
        if to <= footer && from.checked_add(FRAME_LEN).is_some_and(|start| start <= to) {
            let sum = checksum(seed_of(&[seed, from as u64]), &bytes[from + 4..to]);
            put(bytes, from, &sum.to_le_bytes());
        }
    };
    let sum = checksum(seed_of(&[seed, footer as u64]), &bytes[footer..footer + 52]);
    put(bytes, footer + 52, &sum.to_le_bytes());
    if blocks_end > footer {
        return;
    }
    let filter = (blocks_end + FRAME_LEN).next_multiple_of(64) - FRAME_LEN;
    for (from, to) in [
        (filter, index),
        (index, tombstones),
        (tombstones, properties),
        (properties, footer),
    ] {
        seal(bytes, from, to);
    }
    // Where the blocks are, the index says.
    let Some(blocks) = index
        .checked_add(FRAME_LEN)
        .and_then(|at| u32_at(bytes, at))
    else {
        return;
    };
    let offsets = index + FRAME_LEN + 8 + 8 * blocks as usize;
    for no in 0..blocks.min(bytes.len() as u32 / 8) as usize {
        let from = u64_at(bytes, offsets + 8 * no);
        let to = u64_at(bytes, offsets + 8 * no + 8);
        if let (Some(from), Some(to)) = (from, to)
            && to <= blocks_end as u64
            && from < to
        {
            seal(bytes, from as usize, to as usize);
        }
    }
}

/// The file of a B-tree: meta pages, the freelist, every page that says it is a node, and the
/// overflow values that leaves refer to.
pub fn tree(bytes: &mut [u8], store: u64, keyspace: u32, page_size: usize) {
    let base = seed_of(&[store, keyspace.into()]);
    let pages = bytes.len() / page_size;
    let mut page = 2;
    while page < pages {
        let at = page * page_size;
        let count = u32_at(bytes, at + 8).unwrap_or_default() as usize;
        let is_node = matches!(bytes[at + 4], 1 | 2) && count > 0 && count <= pages - page;
        if is_node {
            let end = at + count * page_size;
            if bytes[at + 4] == 1 {
                overflow_values(bytes, at, end, base, page_size);
            }
            let sum = checksum(seed_of(&[base, page as u64]), &bytes[at + 4..end]);
            put(bytes, at, &sum.to_le_bytes());
        }
        page += if is_node { count } else { 1 };
    }
    let seed = seed_of(&[store, keyspace.into(), word(b"HDGBTREE")]);
    for at in [0, page_size] {
        if bytes.len() < at + 124 {
            break;
        }
        let first = u64_at(bytes, at + 72).unwrap_or_default();
        let runs = u64_at(bytes, at + 80).unwrap_or_default();
        let from = (first as usize).saturating_mul(page_size);
        let to = from.saturating_add((runs as usize).saturating_mul(16));
        if runs > 0 && to <= bytes.len() {
            let sum = checksum(seed_of(&[base, first]), &bytes[from..to]);
            put(bytes, at + 60, &sum.to_le_bytes());
        }
        let sum = checksum(seed, &bytes[at..at + 120]);
        put(bytes, at + 120, &sum.to_le_bytes());
    }
}

/// The references of the leaf at `at..end` to values outside.
fn overflow_values(bytes: &mut [u8], at: usize, end: usize, base: u64, page_size: usize) {
    let field = |bytes: &[u8], offset: usize| u32_at(bytes, at + offset).unwrap_or(0) as usize;
    let (count, capacity) = (field(bytes, 12), field(bytes, 16));
    let upper = match field(bytes, 28) {
        0xFFFF_FFFF => 0,
        len => len,
    };
    let heads = (56 + field(bytes, 24) + upper).next_multiple_of(4);
    for slot in 0..count.min(page_size) {
        let Some(record) = u32_at(bytes, at + heads + 4 * capacity + 4 * slot) else {
            return;
        };
        let record = at + record as usize;
        if record + 6 > end || u32_at(bytes, record + 2) != Some(1 << 31) {
            continue;
        }
        let key_len = usize::from(u16::from_le_bytes([bytes[record], bytes[record + 1]]));
        let reference = record + 6 + key_len;
        if reference + 16 > end {
            continue;
        }
        let page = u64_at(bytes, reference).unwrap_or_default();
        let len = u32_at(bytes, reference + 8).unwrap_or_default() as usize;
        let from = (page as usize).saturating_mul(page_size);
        let to = from.saturating_add(len);
        if to <= bytes.len() {
            let sum = checksum(seed_of(&[base, page]), &bytes[from..to]);
            put(bytes, reference + 12, &sum.to_le_bytes());
        }
    }
}

/// A trace of a workload: its header and all frames.
pub fn trace(bytes: &mut [u8]) {
    if bytes.len() < 64 {
        return;
    }
    let sum = checksum(seed_of(&[1]), &bytes[16..64]);
    put(bytes, 12, &sum.to_le_bytes());
    let id = u64_at(bytes, 16).unwrap_or_default();
    frames(bytes, 64, seed_of(&[id]), 1);
}

/// The number at the end of a name, in hexadecimal digits.
fn number_in(name: &str, prefix: &str, suffix: &str) -> Option<u64> {
    let digits = name.strip_prefix(prefix)?.strip_suffix(suffix)?;
    u64::from_str_radix(digits, 16).ok()
}

/// Every file of a store, by its name. Files whose names mean nothing stay as they are.
pub fn image(image: &mut Image, page_size: usize) {
    let Some(store) = image
        .files
        .get(Path::new("CATALOG"))
        .and_then(|bytes| u64_at(bytes, 12))
    else {
        return;
    };
    for (path, bytes) in &mut image.files {
        let mut names = path.components().filter_map(|part| match part {
            Component::Normal(name) => name.to_str(),
            _ => None,
        });
        let (first, second) = (names.next().unwrap_or_default(), names.next());
        match (first, second) {
            ("CATALOG", None) => catalog(bytes),
            ("HORIZON", None) => horizon(bytes, store),
            ("wal", Some(name)) => {
                if let Some(number) = number_in(name, "", ".log") {
                    segment(bytes, store, number);
                }
            }
            (dir, Some(name)) => {
                let Some(keyspace) = dir.strip_prefix("ks-").and_then(|id| id.parse().ok()) else {
                    continue;
                };
                if name == "CURRENT" {
                    current(bytes, store, keyspace);
                } else if name == "tree.hdb" {
                    tree(bytes, store, keyspace, page_size);
                } else if let Some(number) = number_in(name, "MANIFEST-", "") {
                    manifest(bytes, store, keyspace, number);
                } else if let Some(number) = number_in(name, "TABLE-", "") {
                    table(bytes, store, keyspace, number);
                }
            }
            _ => {}
        }
    }
}

/// Gives the store another random number: every file that names it, and all checksums.
pub fn rebind(image: &mut Image, store: u64, page_size: usize) {
    let store = store.to_le_bytes();
    for (path, bytes) in &mut image.files {
        let name = path.file_name().and_then(|name| name.to_str());
        match name.unwrap_or_default() {
            "CATALOG" | "HORIZON" => put(bytes, 12, &store),
            "tree.hdb" => {
                put(bytes, 16, &store);
                put(bytes, page_size + 16, &store);
            }
            name if name.starts_with("MANIFEST-") || name.ends_with(".log") => {
                put(bytes, 16, &store);
            }
            _ => {}
        }
    }
    self::image(image, page_size);
}
