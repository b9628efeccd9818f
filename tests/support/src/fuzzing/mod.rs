//! What the fuzz targets do with their bytes. Shared between the targets (fuzz/fuzz_targets) and
//! the replay of their seeds on the stable tool chain (corpus.rs).
//!
//! # Rules that every target keeps
//!
//! - It checks something: no panic, no hang, no allocation out of proportion (fuzz/src/lib.rs
//!   refuses a single one above 64 MiB), what was encoded is decoded again, reads give the right
//!   data or an error.
//! - It bounds its own work, in operations, in steps of scans and in sizes, so that an input of
//!   4 KiB cannot take longer than about a second with a sanitizer.
//! - An input always does the same: stores are in memory, without threads, and their random
//!   numbers are replaced (`stores.rs`).
//! - Where there are checksums, the first byte of the input says whether the harness makes them
//!   right (`crate::repair`) before the store sees the bytes. Without that no fuzzer gets past
//!   them; with that only, what happens to wrong ones would go untested.

pub mod assemble;
pub mod decoders;
pub mod files;
pub mod hostile;
pub mod images;
pub mod keys;
pub mod operations;
pub mod pages;
pub mod seeds;
pub mod stores;

pub use operations::{crashes, operations};

use crate::random::{Random, Source};

/// A fuzz target: its name, which is that of its corpus, and what it does with an input.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: &[Target] = &[
    ("operations", operations),
    ("crashes", crashes),
    ("log_record", decoders::log_record),
    ("batch", decoders::batch),
    ("block", decoders::block),
    ("index", decoders::index),
    ("filter", decoders::filter),
    ("decompress", decoders::decompress),
    ("btree_page", pages::btree_page),
    ("key_order", keys::key_order),
    ("catalog", files::catalog),
    ("manifest", files::manifest),
    ("table_file", files::table_file),
    ("tree_file", files::tree_file),
    ("log_recovery", files::log_recovery),
    ("trace", files::trace),
    ("hostile_dir", hostile::hostile_dir),
];

/// A fuzzer's bytes as a source of decisions: one byte decides among up to 256 things. An empty
/// source answers zero.
#[derive(Debug, Clone, Copy)]
pub struct Bytes<'a>(pub &'a [u8]);

impl<'a> Bytes<'a> {
    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    /// The next two bytes as a number.
    pub fn u16(&mut self) -> u16 {
        u16::from(self.byte()) << 8 | u16::from(self.byte())
    }

    /// Up to `len` bytes, as many as are left.
    pub fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// A string of bytes after its length in one byte.
    pub fn short(&mut self) -> &'a [u8] {
        let len = usize::from(self.byte());
        self.take(len)
    }

    /// True if nothing is left.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Source for Bytes<'_> {
    fn bits(&mut self) -> u64 {
        (0..8).fold(0, |bits, _| bits << 8 | u64::from(self.byte()))
    }

    fn below(&mut self, limit: u64) -> u64 {
        match limit {
            0..=256 => u64::from(self.byte()) % limit,
            257..=65_536 => u64::from(self.u16()) % limit,
            _ => self.bits() % limit,
        }
    }
}

/// Decisions of a seed, and the input that stands for them.
#[derive(Debug)]
pub(crate) struct Recording {
    random: Random,
    /// What [`Bytes`] read as the same decisions.
    pub(crate) bytes: Vec<u8>,
}

impl Recording {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            random: Random::new(seed),
            bytes: Vec::new(),
        }
    }

    fn record(&mut self, count: usize) -> u64 {
        let bytes = self.random.bytes(count);
        self.bytes.extend_from_slice(&bytes);
        bytes
            .iter()
            .fold(0, |bits, byte| bits << 8 | u64::from(*byte))
    }
}

impl Source for Recording {
    fn bits(&mut self) -> u64 {
        self.record(8)
    }

    fn below(&mut self, limit: u64) -> u64 {
        let count = match limit {
            0..=256 => 1,
            257..=65_536 => 2,
            _ => 8,
        };
        self.record(count) % limit
    }
}

/// The flags in front of an input of bytes with checksums.
#[derive(Debug, Clone, Copy)]
pub struct Flags(pub u8);

impl Flags {
    /// The harness makes the checksums right.
    pub const REPAIRED: u8 = 1;
    /// The second meaning, which each target gives it.
    pub const OTHER: u8 = 2;
    /// The third meaning, of the target `table_file`.
    pub const ASSEMBLED: u8 = 4;

    /// The flags of an input, and the rest of it.
    pub fn split(input: &[u8]) -> Option<(Self, &[u8])> {
        let (flags, rest) = input.split_first()?;
        Some((Self(*flags), rest))
    }

    /// Whether the harness makes the checksums right.
    pub fn repaired(self) -> bool {
        self.0 & Self::REPAIRED != 0
    }

    /// The bytes say what the file is made of, and are not the file.
    pub fn assembled(self) -> bool {
        self.0 & Self::ASSEMBLED != 0
    }

    /// Whether the input has the target's second meaning.
    pub fn other(self) -> bool {
        self.0 & Self::OTHER != 0
    }
}
