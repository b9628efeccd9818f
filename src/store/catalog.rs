//! The catalogue: which keyspaces a store has.
//!
//! One small file, `CATALOG`, replaced as a whole when a keyspace is made or dropped
//! (docs/format.md, "Catalogue"). It is also what makes a directory a store: it holds the store's
//! random number, which seeds every checksum in every other file.
//!
//! Invariants:
//! - C1: numbers of keyspaces are never reused; `next_id` is above all of them. A log record for a
//!   number below `next_id` that is not listed belongs to a dropped keyspace.
//! - C2: a keyspace's directory is complete and durable before it is listed, and is removed
//!   only after it is no longer listed.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::format::checksum::{checksum, seed_of};
use crate::format::coding::{Malformed, Reader, get_u32, put_bytes};
use crate::fs;
use crate::fs::{Fs, NotReplaced, OpenMode};
use crate::options::{Compression, EngineKind, KeyspaceOptions};
use crate::types::{KeyspaceId, MAX_KEYSPACE_NAME_LEN_BYTES, MAX_KEYSPACES};
use crate::util::mutants::mutated;

/// Name of the file.
pub(crate) const CATALOG_FILE: &str = "CATALOG";
/// Name of the file while it is written.
pub(crate) const CATALOG_TEMPORARY: &str = "CATALOG.tmp";
const MAGIC: &[u8; 8] = b"hdgrCATL";
const VERSION: u32 = 2;
/// Magic, version, store id, next id, count, checksum.
const FIXED_LEN_BYTES: usize = 8 + 4 + 8 + 4 + 4 + 4;
/// Id, engine, compression, block size, table size, page size, name length and name.
const MAX_ENTRY_LEN_BYTES: usize = 4 + 1 + 1 + 4 + 8 + 4 + 2 + MAX_KEYSPACE_NAME_LEN_BYTES;

/// One keyspace of the catalogue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CatalogEntry {
    pub(crate) id: KeyspaceId,
    pub(crate) name: String,
    pub(crate) options: KeyspaceOptions,
}

/// The content of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Catalog {
    pub(crate) store_id: u64,
    pub(crate) next_id: u32,
    pub(crate) entries: Vec<CatalogEntry>,
}

impl Catalog {
    /// The catalogue of a new store.
    pub(crate) fn new(store_id: u64) -> Self {
        Self {
            store_id,
            next_id: 1,
            entries: Vec::new(),
        }
    }

    /// Reads the catalogue of the store in `dir`; `None` if there is no store.
    pub(crate) fn load(fs: &dyn Fs, dir: &Path) -> Result<Option<Self>> {
        let path = dir.join(CATALOG_FILE);
        if !fs.exists(&path)? {
            return Ok(None);
        }
        let file = fs.open(&path, OpenMode::Read)?;
        let limit = FIXED_LEN_BYTES + MAX_KEYSPACES * MAX_ENTRY_LEN_BYTES;
        let bytes = fs::read_all(&*file, limit as u64)?;
        Self::decode(&bytes, &path).map(Some)
    }

    /// Replaces the catalogue of the store in `dir`, durably.
    pub(crate) fn store(&self, fs: &dyn Fs, dir: &Path) -> Result<(), NotReplaced> {
        fs::replace_file(fs, dir, CATALOG_FILE, &self.encode())
    }

    /// Replaces this catalogue of the store in `dir` by `new`, durably, in memory and on the disk.
    /// If it is unknown afterwards which of them is on the disk, this one is put back there; if
    /// that fails too, `unknown` is told the error: whoever goes on with either could lose what is
    /// acknowledged.
    pub(crate) fn replace(
        &mut self,
        new: Self,
        fs: &dyn Fs,
        dir: &Path,
        unknown: impl FnOnce(&Error),
    ) -> Result<()> {
        if let Err(failure) = new.store(fs, dir) {
            if failure.is_unknown && self.store(fs, dir).is_err() {
                unknown(&failure.error);
            }
            return Err(failure.error);
        }
        *self = new;
        Ok(())
    }

    /// True if both would be stored alike: not every option is.
    pub(crate) fn is_stored_like(&self, other: &Self) -> bool {
        self.encode() == other.encode()
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&self.store_id.to_le_bytes());
        out.extend_from_slice(&self.next_id.to_le_bytes());
        out.extend_from_slice(&(self.entries.len() as u32).to_le_bytes());
        for entry in &self.entries {
            let options = &entry.options;
            out.extend_from_slice(&entry.id.0.to_le_bytes());
            out.push(match options.engine {
                EngineKind::Lsm => 0,
                EngineKind::BTree => 1,
            });
            out.push(match options.compression {
                Compression::None => 0,
                Compression::Lz4 => 1,
            });
            out.extend_from_slice(&options.block_size_bytes.to_le_bytes());
            out.extend_from_slice(&options.table_size_bytes.to_le_bytes());
            out.extend_from_slice(&options.page_size_bytes.to_le_bytes());
            put_bytes(&mut out, entry.name.as_bytes());
        }
        out.extend_from_slice(&checksum(catalog_seed(), &out).to_le_bytes());
        out
    }

    fn decode(bytes: &[u8], path: &Path) -> Result<Self> {
        let damaged = |at: usize, what: &str| Error::corruption(path, at as u64, what);
        if bytes.len() < FIXED_LEN_BYTES {
            return Err(damaged(bytes.len(), "the catalogue is too short"));
        }
        if &bytes[..8] != MAGIC {
            return Err(damaged(0, "this is not a hedgerow catalogue"));
        }
        let (body, sum) = bytes.split_at(bytes.len() - 4);
        let version = get_u32(bytes, 8);
        // Before the checksum: another version may compute it in another way.
        Error::check_version(path, version, VERSION)?;
        let is_intact = checksum(catalog_seed(), body) == get_u32(sum, 0);
        if !is_intact && !mutated!("catalogue-checksum-ignored") {
            return Err(damaged(0, "the checksum of the catalogue does not match"));
        }
        let mut reader = Reader::new(body);
        let _ = reader.take(12);
        Self::decode_body(&mut reader)
            .map_err(|Malformed| damaged(reader.position(), "the catalogue is malformed"))
    }

    fn decode_body(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let store_id = reader.u64()?;
        let next_id = reader.u32()?;
        let count = reader.u32()? as usize;
        if count > MAX_KEYSPACES {
            return Err(Malformed);
        }
        let mut entries: Vec<CatalogEntry> = Vec::new();
        for _ in 0..count {
            let id = KeyspaceId(reader.u32()?);
            let engine = match reader.u8()? {
                0 => EngineKind::Lsm,
                1 => EngineKind::BTree,
                _ => return Err(Malformed),
            };
            let mut options = KeyspaceOptions::new(engine);
            options.compression = match reader.u8()? {
                0 => Compression::None,
                1 => Compression::Lz4,
                _ => return Err(Malformed),
            };
            options.block_size_bytes = reader.u32()?;
            options.table_size_bytes = reader.u64()?;
            options.page_size_bytes = reader.u32()?;
            let name = std::str::from_utf8(reader.bytes()?).map_err(|_| Malformed)?;
            let known = entries
                .iter()
                .any(|other| other.id == id || other.name == name);
            if known || id.0 >= next_id || options.check().is_err() {
                return Err(Malformed);
            }
            entries.push(CatalogEntry {
                id,
                name: name.to_owned(),
                options,
            });
        }
        if !reader.is_empty() {
            return Err(Malformed);
        }
        Ok(Self {
            store_id,
            next_id,
            entries,
        })
    }
}

/// Decodes a catalogue and encodes it again.
#[cfg(feature = "internals")]
pub(crate) fn round_trip(bytes: &[u8], path: &Path) -> Result<Vec<u8>> {
    Catalog::decode(bytes, path).map(|catalog| catalog.encode())
}

/// The catalogue names the store, so its own checksum cannot be bound to the store.
fn catalog_seed() -> u64 {
    seed_of(&[u64::from_le_bytes(*MAGIC)])
}

/// Directory of a keyspace within the store's directory.
pub(crate) fn keyspace_dir(dir: &Path, id: KeyspaceId) -> PathBuf {
    dir.join(format!("ks-{:08}", id.0))
}

/// The keyspace whose directory has that name, if it is such a name.
pub(crate) fn parse_keyspace_dir(name: &str) -> Option<KeyspaceId> {
    let digits = name.strip_prefix("ks-")?;
    let all_digits = digits.len() >= 8 && digits.bytes().all(|b| b.is_ascii_digit());
    let id = all_digits.then(|| digits.parse().ok())??;
    (format!("{id:08}") == digits).then_some(KeyspaceId(id))
}

/// Refuses names that are empty, too long, or hold control characters.
pub(crate) fn check_name(name: &str) -> Result<()> {
    if name.is_empty() || name.len() > MAX_KEYSPACE_NAME_LEN_BYTES {
        return Err(Error::invalid(format!(
            "a keyspace name must have 1 to {MAX_KEYSPACE_NAME_LEN_BYTES} bytes"
        )));
    }
    if name.chars().any(char::is_control) {
        return Err(Error::invalid(
            "a keyspace name must not hold control characters",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Catalog {
        Catalog {
            store_id: 0x0102_0304_0506_0708,
            next_id: 3,
            entries: vec![CatalogEntry {
                id: KeyspaceId(2),
                name: "users".into(),
                options: KeyspaceOptions::new(EngineKind::BTree),
            }],
        }
    }

    #[test]
    fn golden_bytes() {
        let bytes = sample().encode();
        let expected: &[u8] =
            b"hdgrCATL\x02\0\0\0\x08\x07\x06\x05\x04\x03\x02\x01\x03\0\0\0\x01\0\0\0\
            \x02\0\0\0\x01\x01\0\x10\0\0\0\0\0\x04\0\0\0\0\0\x40\0\0\x05users";
        assert_eq!(&bytes[..bytes.len() - 4], expected);
        assert_eq!(
            get_u32(&bytes, bytes.len() - 4),
            checksum(catalog_seed(), expected)
        );
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let bytes = sample().encode();
        let path = Path::new("CATALOG");
        assert_eq!(Catalog::decode(&bytes, path).unwrap(), sample());
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Catalog::decode(&damaged, path).is_err(), "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert!(
                Catalog::decode(&bytes[..len], path).is_err(),
                "cut to {len}"
            );
        }
    }

    #[test]
    fn other_versions_are_refused_by_name() {
        let mut bytes = sample().encode();
        bytes[8] = 9;
        let body = bytes.len() - 4;
        let sum = checksum(catalog_seed(), &bytes[..body]);
        bytes[body..].copy_from_slice(&sum.to_le_bytes());
        let error = Catalog::decode(&bytes, Path::new("CATALOG")).unwrap_err();
        assert!(matches!(
            error,
            Error::UnsupportedFormat {
                found: 9,
                supported: 2,
                ..
            }
        ));
    }

    #[test]
    fn directory_names() {
        assert_eq!(parse_keyspace_dir("ks-00000007"), Some(KeyspaceId(7)));
        for foreign in [
            "ks-7",
            "ks-0000000a",
            "ks-000000007",
            "sk-00000007",
            "ks-99999999999",
        ] {
            assert_eq!(parse_keyspace_dir(foreign), None, "{foreign}");
        }
        assert_eq!(
            keyspace_dir(Path::new("d"), KeyspaceId(7)),
            Path::new("d/ks-00000007")
        );
    }
}
