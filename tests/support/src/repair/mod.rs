//! Makes the checksums of changed files right again, so that what is behind them is reached.
//!
//! Written from docs/format.md, not from the code of the store, and forgiving: what it cannot find
//! its way through stays as it is. Shared by the tests of hostile files, the fuzz targets, and the
//! B-tree's own tests.

mod tree;

use std::path::{Component, Path};

pub use tree::tree;

/// Length of a frame's header: checksum and length.
pub const FRAME_LEN: usize = 8;

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

/// The checksum of `bytes` bound to a seed.
pub fn checksum(seed: u64, bytes: &[u8]) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(&seed.to_le_bytes());
    sum.update(bytes);
    sum.finalize()
}

/// Eight letters as a number.
pub fn word(name: &[u8; 8]) -> u64 {
    u64::from_le_bytes(*name)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// The number at `at`; `None` if the bytes end before it does.
pub fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn put(bytes: &mut [u8], at: usize, new: &[u8]) {
    if let Some(old) = bytes.get_mut(at..at + new.len()) {
        old.copy_from_slice(new);
    }
}

/// Puts the checksum of `from..to` at `at`.
fn write_checksum(bytes: &mut [u8], at: usize, seed: u64, from: usize, to: usize) {
    let sum = checksum(seed, &bytes[from..to]);
    put(bytes, at, &sum.to_le_bytes());
}

/// Whose files they are.
#[derive(Debug, Clone, Copy)]
pub struct Owner {
    /// The random number of the store.
    pub store: u64,
    /// The number of the keyspace.
    pub keyspace: u64,
}

impl Owner {
    fn tables(self) -> u64 {
        seed_of(&[word(b"lsmtable"), self.store, self.keyspace])
    }

    fn pages(self) -> u64 {
        seed_of(&[self.store, self.keyspace])
    }

    /// The seed of manifest `number`.
    pub fn manifest(self, number: u64) -> u64 {
        seed_of(&[word(b"manifest"), self.store, self.keyspace, number])
    }
}

/// The store id in a catalogue.
pub fn store_id(catalogue: &[u8]) -> Option<u64> {
    u64_at(catalogue, 12)
}

/// The number at the end of a name, in hexadecimal digits.
fn number_in(name: &str, prefix: &str, suffix: &str) -> Option<u64> {
    let digits = name.strip_prefix(prefix)?.strip_suffix(suffix)?;
    u64::from_str_radix(digits, 16).ok()
}

/// The file at `path` in a store. One whose name means nothing stays as it is.
pub fn file(path: &Path, bytes: &mut [u8], store: u64, page_size: usize) {
    let mut names = path.components().filter_map(|part| match part {
        Component::Normal(name) => name.to_str(),
        _ => None,
    });
    match (names.next().unwrap_or_default(), names.next()) {
        ("CATALOG", None) => catalog(bytes),
        ("WAL-MANIFEST", None) => wal_manifest(bytes, store),
        ("wal", Some(name)) => {
            let number = number_in(name, "", ".log").or_else(|| number_in(name, "", ".val"));
            if let Some(number) = number {
                segment(bytes, store, number);
            }
        }
        (dir, Some(name)) => {
            let Some(keyspace) = dir.strip_prefix("ks-").and_then(|id| id.parse().ok()) else {
                return;
            };
            let owner = Owner { store, keyspace };
            if name == "CURRENT" {
                current(bytes, owner);
            } else if name == "tree.hdb" {
                tree(bytes, owner, page_size);
            } else if let Some(number) = number_in(name, "MANIFEST-", "") {
                manifest(bytes, owner, number);
            } else if let Some(number) = number_in(name, "TABLE-", "") {
                table(bytes, owner, number);
            }
        }
        _ => {}
    }
}

/// `CATALOG`.
pub fn catalog(bytes: &mut [u8]) {
    if let Some(end) = bytes.len().checked_sub(4) {
        write_checksum(bytes, end, seed_of(&[word(b"hdgrCATL")]), 0, end);
    }
}

/// `WAL-MANIFEST`.
pub fn wal_manifest(bytes: &mut [u8], store: u64) {
    if let Some(end) = bytes.len().checked_sub(4) {
        write_checksum(bytes, end, seed_of(&[word(b"hdgrWALM"), store]), 0, end);
    }
}

/// `CURRENT` of an LSM.
pub fn current(bytes: &mut [u8], owner: Owner) {
    if bytes.len() >= 24 {
        let seed = seed_of(&[word(b"current "), owner.store, owner.keyspace]);
        write_checksum(bytes, 20, seed, 0, 20);
    }
}

/// A manifest: its header, and all frames behind it.
pub fn manifest(bytes: &mut [u8], owner: Owner, number: u64) {
    if bytes.len() >= 48 {
        let seed = owner.manifest(number);
        write_checksum(bytes, 44, seed, 0, 44);
        frames(bytes, seed, 48, 1);
    }
}

/// Frames that follow each other from `at` on, each at a multiple of `align`.
fn frames(bytes: &mut [u8], seed: u64, mut at: usize, align: usize) {
    while let Some(len) = u32_at(bytes, at + 4) {
        let end = at + FRAME_LEN + len as usize;
        if len == 0 || end > bytes.len() {
            return;
        }
        write_checksum(bytes, at, seed_of(&[seed, at as u64]), at + 4, end);
        at = end.next_multiple_of(align);
    }
}

/// A segment of the log: its header, its activation, its cut note, and all records from the first
/// on. Of a file
/// for a streamed value, the header.
pub fn segment(bytes: &mut [u8], store: u64, number: u64) {
    if bytes.len() < 128 {
        return;
    }
    let version = u32_at(bytes, 8).unwrap_or_default();
    write_checksum(bytes, 12, seed_of(&[version.into()]), 16, 64);
    if bytes.starts_with(b"HEDGEVAL") {
        return;
    }
    let seed = seed_of(&[store, number]);
    for at in [64, 96] {
        if bytes[at..at + 32].iter().any(|byte| *byte != 0) {
            write_checksum(bytes, at, seed, at + 4, at + 32);
        }
    }
    frames(bytes, seed, 128, 8);
}

/// Where the filter's frame stands in a table.
pub fn filter_at(blocks_end: u64) -> u64 {
    (blocks_end.saturating_add(8))
        .checked_next_multiple_of(64)
        .unwrap_or(u64::MAX)
        - 8
}

/// A table: its footer, and the frame of every section and block that they lead to.
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
        if from < to && to <= footer_at as u64 && to - from >= FRAME_LEN as u64 {
            let (from, to) = (from as usize, to as usize);
            write_checksum(bytes, from, seed_of(&[seed, from as u64]), from + 4, to);
        }
    }
    let seed = seed_of(&[seed, footer_at as u64]);
    write_checksum(bytes, footer_at + 52, seed, footer_at, footer_at + 52);
}

/// A trace of a workload: its header and all frames.
pub fn trace(bytes: &mut [u8]) {
    if bytes.len() >= 64 {
        write_checksum(bytes, 12, seed_of(&[1]), 16, 64);
        let id = u64_at(bytes, 16).unwrap_or_default();
        frames(bytes, seed_of(&[id]), 64, 1);
    }
}
