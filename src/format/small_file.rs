//! The envelope of small files that are replaced as a whole: magic, version, body, checksum.
//!
//! ```text
//! magic: 8 bytes | version: u32 | body | checksum of everything before it: u32
//! ```
//!
//! A body says what it holds; who wraps it chooses the seed of the checksum, which binds the file
//! to its place (docs/format.md, "Small files").

use std::path::Path;

use super::checksum::checksum;
use super::coding::get_u32;
use crate::error::{Error, Result};
use crate::util::mutants::mutated;

/// Bytes in front of the body: magic and version.
pub(crate) const HEAD_LEN_BYTES: usize = 8 + 4;
/// Bytes around the body.
pub(crate) const ENVELOPE_LEN_BYTES: usize = HEAD_LEN_BYTES + 4;

/// One kind of small file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SmallFile {
    /// What the file is called in messages.
    pub(crate) name: &'static str,
    pub(crate) magic: &'static [u8; 8],
    /// The version that is written, and the only one that is read.
    pub(crate) version: u32,
}

impl SmallFile {
    /// The file with `body`.
    pub(crate) fn encode(&self, seed: u64, body: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(body.len() + ENVELOPE_LEN_BYTES);
        out.extend_from_slice(self.magic);
        out.extend_from_slice(&self.version.to_le_bytes());
        out.extend_from_slice(body);
        out.extend_from_slice(&checksum(seed, &out).to_le_bytes());
        out
    }

    /// Checks all but the checksum, which only tells here whether another version is what was
    /// written: another version may compute it in another way, so the version comes before it; but
    /// where everything else is as this version would have it, only the version can be damaged.
    pub(crate) fn open<'a>(
        &self,
        bytes: &'a [u8],
        path: &'a Path,
        seed: u64,
    ) -> Result<Opened<'a>> {
        let name = self.name;
        let damaged = |at: usize, what: String| Err(Error::corruption(path, at as u64, what));
        if bytes.len() < ENVELOPE_LEN_BYTES {
            return damaged(bytes.len(), format!("the {name} is too short"));
        }
        if &bytes[..8] != self.magic {
            return damaged(0, format!("this is not a hedgerow {name}"));
        }
        let found = get_u32(bytes, 8);
        if found != self.version && !mutated!("damaged-version-accepted") {
            let (covered, sum) = bytes.split_at(bytes.len() - 4);
            let mut mended = covered.to_vec();
            mended[8..HEAD_LEN_BYTES].copy_from_slice(&self.version.to_le_bytes());
            if checksum(seed, &mended) == get_u32(sum, 0) {
                return damaged(8, format!("the version of the {name} reads {found}"));
            }
        }
        Error::check_version(path, found, self.version)?;
        Ok(Opened { name, bytes, path })
    }
}

/// A file of the right kind and version.
#[derive(Debug)]
pub(crate) struct Opened<'a> {
    name: &'static str,
    bytes: &'a [u8],
    path: &'a Path,
}

impl<'a> Opened<'a> {
    /// The body, whether or not the checksum is right.
    pub(crate) fn body(&self) -> &'a [u8] {
        &self.bytes[HEAD_LEN_BYTES..self.bytes.len() - 4]
    }

    /// An error if the checksum is wrong.
    pub(crate) fn check(&self, seed: u64) -> Result<()> {
        let (covered, sum) = self.bytes.split_at(self.bytes.len() - 4);
        if checksum(seed, covered) == get_u32(sum, 0) {
            return Ok(());
        }
        let what = format!("the checksum of the {} does not match", self.name);
        Err(Error::corruption(self.path, 0, what))
    }

    /// Damage at byte `at` of the body.
    pub(crate) fn damaged(&self, at: usize, what: impl Into<String>) -> Error {
        Error::corruption(self.path, (HEAD_LEN_BYTES + at) as u64, what)
    }

    /// The body cannot be what was written, at byte `at` of it.
    pub(crate) fn malformed(&self, at: usize) -> Error {
        self.damaged(at, format!("the {} is malformed", self.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: SmallFile = SmallFile {
        name: "sample",
        magic: b"hdgrTEST",
        version: 7,
    };

    #[test]
    fn golden_bytes() {
        let bytes = KIND.encode(1, b"body");
        assert_eq!(&bytes[..16], b"hdgrTEST\x07\0\0\0body");
        assert_eq!(get_u32(&bytes, 16), checksum(1, &bytes[..16]));
        let opened = KIND.open(&bytes, Path::new("f"), 1).unwrap();
        assert_eq!(opened.body(), b"body");
        opened.check(1).unwrap();
        assert!(opened.check(2).unwrap_err().is_corruption());
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let bytes = KIND.encode(1, b"body");
        let accepts = |bytes: &[u8]| {
            let opened = KIND.open(bytes, Path::new("f"), 1);
            opened.and_then(|opened| opened.check(1)).is_ok()
        };
        assert!(accepts(&bytes));
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(!accepts(&damaged), "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert!(!accepts(&bytes[..len]), "cut to {len}");
        }
    }

    #[test]
    fn another_version_is_named_before_anything_else_is_read() {
        let later = SmallFile { version: 6, ..KIND };
        // Whether or not its checksum is one of ours.
        for seed in [1, 2] {
            match KIND.open(&later.encode(seed, b"body"), Path::new("f"), 1) {
                Err(Error::UnsupportedFormat {
                    found, supported, ..
                }) => assert_eq!((found, supported), (6, 7)),
                other => panic!("{other:?}"),
            }
        }
    }

    /// A flipped bit of the version read as a file of another build.
    #[test]
    fn a_damaged_version_is_damage() {
        for bit in 0..32 {
            let mut bytes = KIND.encode(1, b"body");
            bytes[8 + bit / 8] ^= 1 << (bit % 8);
            let refused = KIND.open(&bytes, Path::new("f"), 1).unwrap_err();
            assert!(refused.is_corruption(), "bit {bit}: {refused}");
        }
    }
}
