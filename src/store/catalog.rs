//! The catalogue: which keyspaces a store has.
//!
//! Making, dropping and renaming a keyspace and changing its options are records of the log
//! ([`CatalogChange`](super::catalog_change::CatalogChange)). `CATALOG` is a checkpoint of them: a
//! small file, replaced as a whole (docs/format.md, "Catalogue"), that holds the keyspaces as they
//! were after one of these records. Recovery reads it and applies the records behind that one. It
//! is also what makes a directory a store: it holds the store's random number, which seeds every
//! checksum in every other file.
//!
//! Invariants:
//! - C1: numbers of keyspaces rise with their records and are never reused; `next_id` is above all
//!   of them. A log record for a number below `next_id` that is not listed belongs to a dropped
//!   keyspace.
//! - C2: the files of a keyspace are removed only after the record of its drop is durable.
//! - C3: everything up to `seq` was durable in the log before the file was written (as E3 asks of
//!   an engine), and the log keeps every change above `seq`.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::format::checksum::seed_of;
use crate::format::coding::{Malformed, Reader, put_bytes, put_varint};
use crate::format::small_file::{ENVELOPE_LEN_BYTES, SmallFile};
use crate::fs;
use crate::fs::{Fs, LockGuard, OpenMode};
use crate::options::{Compression, EngineKind, KeyspaceOptions, MemtableKind, ZSTD_FEATURE};
use crate::types::{KeyspaceId, MAX_KEYSPACE_NAME_LEN_BYTES, MAX_KEYSPACES, SeqNo};
use crate::util::mutants::mutated;

/// Name of the file.
pub(crate) const CATALOG_FILE: &str = "CATALOG";
/// Name of the file while it is written.
pub(crate) const CATALOG_TEMPORARY: &str = "CATALOG.tmp";
const FORMAT: SmallFile = SmallFile {
    name: "catalogue",
    magic: b"hdgrCATL",
    version: 5,
};
/// The envelope, store id, sequence number, next id and count.
const FIXED_LEN_BYTES: usize = ENVELOPE_LEN_BYTES + 8 + 8 + 4 + 4;
/// Options of one keyspace. Those that this build knows have 594 bytes at most.
const MAX_OPTIONS_LEN_BYTES: usize = 1024;
/// Id, length and name, length and options.
const MAX_ENTRY_LEN_BYTES: usize = 4 + 2 + MAX_KEYSPACE_NAME_LEN_BYTES + 2 + MAX_OPTIONS_LEN_BYTES;

/// Tags of options. A build that does not know a tag with `REQUIRED` refuses the store; one
/// without it is kept as it is. So a new option needs no new version of the file.
mod tag {
    pub(super) const REQUIRED: u8 = 0x80;
    pub(super) const WRITE_BUFFER: u8 = 0x01;
    pub(super) const TABLE_SIZE: u8 = 0x02;
    pub(super) const COMPRESSION: u8 = 0x03;
    pub(super) const MEMTABLE: u8 = 0x04;
    pub(super) const VALUE_THRESHOLD: u8 = 0x05;
    pub(super) const LAST_LEVEL_COMPRESSION: u8 = 0x06;
    pub(super) const FILTER_BITS: u8 = 0x07;
    pub(super) const LAST_LEVEL_FILTER_BITS: u8 = 0x08;
    pub(super) const DEFAULT_TTL: u8 = 0x09;
    pub(super) const COMPACTION_FILTER: u8 = 0x0A;
    pub(super) const ENGINE: u8 = REQUIRED | 0x01;
    pub(super) const BLOCK_SIZE: u8 = REQUIRED | 0x02;
    pub(super) const PAGE_SIZE: u8 = REQUIRED | 0x03;
    pub(super) const MERGE_OPERATOR: u8 = REQUIRED | 0x04;
    pub(super) const EXPIRY: u8 = REQUIRED | 0x05;
}

/// One keyspace of the catalogue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CatalogEntry {
    pub(crate) id: KeyspaceId,
    pub(crate) name: String,
    /// As stored: what is `None` has its default.
    pub(crate) options: KeyspaceOptions,
    /// Options that a later build stored and that this one need not know, by tag.
    pub(crate) unknown_options: Vec<(u8, Vec<u8>)>,
}

impl CatalogEntry {
    /// The entry of a new keyspace.
    pub(crate) fn new(id: KeyspaceId, name: &str, options: KeyspaceOptions) -> Self {
        Self {
            id,
            name: name.to_owned(),
            options,
            unknown_options: Vec::new(),
        }
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.id.0.to_le_bytes());
        put_bytes(out, self.name.as_bytes());
        put_bytes(out, &self.encode_options());
    }

    /// Tag, length and value of each option, rising by tag.
    fn encode_options(&self) -> Vec<u8> {
        let options = &self.options;
        let bytes_of_u64 = |value: u64| value.to_le_bytes().to_vec();
        let bytes_of_u32 = |value: u32| value.to_le_bytes().to_vec();
        let known = [
            (
                tag::WRITE_BUFFER,
                options.write_buffer_bytes.map(bytes_of_u64),
            ),
            (tag::TABLE_SIZE, options.table_size_bytes.map(bytes_of_u64)),
            (
                tag::COMPRESSION,
                options.compression.map(bytes_of_compression),
            ),
            (
                tag::MEMTABLE,
                options.memtable.map(|kind| vec![kind.code()]),
            ),
            (
                tag::VALUE_THRESHOLD,
                options.value_threshold_bytes.map(bytes_of_u32),
            ),
            (
                tag::LAST_LEVEL_COMPRESSION,
                options.last_level_compression.map(bytes_of_compression),
            ),
            (
                tag::FILTER_BITS,
                options.filter_bits_per_key.map(bytes_of_u32),
            ),
            (
                tag::LAST_LEVEL_FILTER_BITS,
                options.last_level_filter_bits_per_key.map(bytes_of_u32),
            ),
            (
                tag::DEFAULT_TTL,
                options
                    .default_ttl
                    .map(|_| bytes_of_u64(options.default_ttl_ms())),
            ),
            (
                tag::COMPACTION_FILTER,
                options.compaction_filter.as_ref().map(bytes_of_name),
            ),
            (tag::ENGINE, Some(vec![options.engine.code()])),
            (tag::BLOCK_SIZE, options.block_size_bytes.map(bytes_of_u32)),
            (tag::PAGE_SIZE, options.page_size_bytes.map(bytes_of_u32)),
            (
                tag::MERGE_OPERATOR,
                options.merge_operator.as_ref().map(bytes_of_name),
            ),
            // A build that does not know it may have the keyspace as long as it is not in use.
            (
                tag::EXPIRY,
                options.expiry.filter(|is_on| *is_on).map(|_| vec![1]),
            ),
        ];
        let known = known
            .into_iter()
            .filter_map(|(tag, value)| Some((tag, value?)));
        let mut all: Vec<(u8, Vec<u8>)> = known.chain(self.unknown_options.clone()).collect();
        all.sort_unstable_by_key(|(tag, _)| *tag);
        let mut out = Vec::new();
        for (tag, value) in all {
            out.push(tag);
            put_varint(&mut out, value.len() as u64);
            out.extend_from_slice(&value);
        }
        out
    }

    /// An error if the options are longer than what is read.
    pub(super) fn check_len(&self) -> Result<(), Error> {
        let len = self.encode_options().len();
        if len > MAX_OPTIONS_LEN_BYTES {
            return Err(Error::invalid(format!(
                "the options of keyspace {:?} take {len} bytes, more than {MAX_OPTIONS_LEN_BYTES}",
                self.name
            )));
        }
        Ok(())
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, Refused> {
        let id = KeyspaceId(reader.u32()?);
        let name = std::str::from_utf8(reader.bytes()?).map_err(|_| Malformed)?;
        let fields = reader.bytes()?;
        if fields.len() > MAX_OPTIONS_LEN_BYTES {
            return Err(Malformed.into());
        }
        // Until the engine is read, which may be behind other options.
        let mut entry = Self::new(id, name, KeyspaceOptions::new(EngineKind::Lsm));
        let mut engine = None;
        let mut last_tag = 0;
        let mut fields = Reader::new(fields);
        while !fields.is_empty() {
            let tag = fields.u8()?;
            if tag <= last_tag {
                return Err(Malformed.into());
            }
            last_tag = tag;
            let mut value = Reader::new(fields.bytes()?);
            let options = &mut entry.options;
            match tag {
                tag::WRITE_BUFFER => options.write_buffer_bytes = Some(value.u64()?),
                tag::TABLE_SIZE => options.table_size_bytes = Some(value.u64()?),
                tag::COMPRESSION => {
                    options.compression = Some(decode_compression(&mut value)?);
                }
                tag::MEMTABLE => {
                    let kind = MemtableKind::from_code(value.u8()?);
                    options.memtable = Some(kind.ok_or(Refused::Unknown("a memtable"))?);
                }
                tag::VALUE_THRESHOLD => options.value_threshold_bytes = Some(value.u32()?),
                tag::LAST_LEVEL_COMPRESSION => {
                    options.last_level_compression = Some(decode_compression(&mut value)?);
                }
                tag::FILTER_BITS => options.filter_bits_per_key = Some(value.u32()?),
                tag::LAST_LEVEL_FILTER_BITS => {
                    options.last_level_filter_bits_per_key = Some(value.u32()?);
                }
                tag::ENGINE => {
                    let kind = EngineKind::from_code(value.u8()?);
                    engine = Some(kind.ok_or(Refused::Unknown("an engine"))?);
                }
                tag::BLOCK_SIZE => options.block_size_bytes = Some(value.u32()?),
                tag::PAGE_SIZE => options.page_size_bytes = Some(value.u32()?),
                tag::DEFAULT_TTL => {
                    options.default_ttl = Some(Duration::from_millis(value.u64()?));
                }
                tag::COMPACTION_FILTER => {
                    options.compaction_filter = Some(decode_name(&mut value)?)
                }
                tag::MERGE_OPERATOR => options.merge_operator = Some(decode_name(&mut value)?),
                tag::EXPIRY => match value.u8()? {
                    1 => options.expiry = Some(true),
                    _ => return Err(Refused::Unknown("a kind of expiry")),
                },
                unknown if unknown & tag::REQUIRED != 0 => {
                    return Err(Refused::Unknown("an option of a keyspace"));
                }
                unknown => {
                    let bytes = value.take(value.remaining())?.to_vec();
                    entry.unknown_options.push((unknown, bytes));
                }
            }
            if !value.is_empty() {
                return Err(Malformed.into());
            }
        }
        entry.options.engine = engine.ok_or(Malformed)?;
        let checked = entry
            .options
            .check()
            .and_then(|()| entry.options.check_together());
        checked.map_err(|_| Malformed)?;
        check_name(name).map_err(|_| Malformed)?;
        Ok(entry)
    }
}

fn bytes_of_name(name: &String) -> Vec<u8> {
    name.as_bytes().to_vec()
}

fn decode_name(value: &mut Reader<'_>) -> Result<String, Malformed> {
    let bytes = value.take(value.remaining())?;
    String::from_utf8(bytes.to_vec()).map_err(|_| Malformed)
}

/// A byte for the kind, and for zstd another one for the level.
fn bytes_of_compression(kind: Compression) -> Vec<u8> {
    let [code, level] = kind.code();
    match kind {
        Compression::Zstd { .. } => vec![code, level],
        _ => vec![code],
    }
}

fn decode_compression(value: &mut Reader<'_>) -> Result<Compression, Refused> {
    let code = value.u8()?;
    let level = match value.is_empty() {
        true => 0,
        false => value.u8()?,
    };
    match Compression::from_code([code, level]) {
        Some(kind) if kind.is_available() => Ok(kind),
        Some(_) => Err(Refused::Unknown(ZSTD_FEATURE)),
        None => Err(Refused::Unknown("a compression")),
    }
}

/// Why a catalogue, or a change of it, is not taken.
#[derive(Debug)]
pub(super) enum Refused {
    Malformed,
    /// It is of a later build, which has something that this one has not.
    Unknown(&'static str),
}

impl From<Malformed> for Refused {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

/// The keyspaces after one of their changes: the content of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Catalog {
    pub(crate) store_id: u64,
    /// The last change that is in it; zero for none.
    pub(crate) seq: SeqNo,
    next_id: u32,
    entries: BTreeMap<KeyspaceId, CatalogEntry>,
    names: HashMap<String, KeyspaceId>,
}

impl Catalog {
    /// The catalogue of a new store.
    pub(crate) fn new(store_id: u64) -> Self {
        Self {
            store_id,
            seq: SeqNo::ZERO,
            next_id: 1,
            entries: BTreeMap::new(),
            names: HashMap::new(),
        }
    }

    /// Above the numbers of all keyspaces that there ever were.
    pub(crate) fn next_id(&self) -> u32 {
        self.next_id
    }

    /// The number of the next keyspace (C1).
    pub(crate) fn new_id(&self) -> Result<KeyspaceId> {
        if self.next_id == u32::MAX {
            return Err(Error::invalid(
                "the store has had 4,294,967,294 keyspaces, and no number is left for another",
            ));
        }
        Ok(KeyspaceId(self.next_id))
    }

    /// All keyspaces, in the order of their numbers.
    pub(crate) fn entries(&self) -> impl ExactSizeIterator<Item = &CatalogEntry> {
        self.entries.values()
    }

    /// The keyspace with that number.
    pub(crate) fn entry(&self, id: KeyspaceId) -> Option<&CatalogEntry> {
        self.entries.get(&id)
    }

    /// Adds a keyspace, or says why it cannot be one.
    pub(super) fn insert(&mut self, entry: CatalogEntry) -> Result<(), String> {
        let CatalogEntry { id, name, .. } = &entry;
        if id.0 != self.next_id || *id == KeyspaceId(u32::MAX) {
            return Err(format!(
                "keyspace {id} is made where the next one is {}",
                self.next_id
            ));
        }
        self.take_name(name.clone(), *id)?;
        self.next_id += 1;
        self.entries.insert(entry.id, entry);
        Ok(())
    }

    /// Takes a keyspace out, or says that there is none.
    pub(super) fn remove(&mut self, id: KeyspaceId) -> Result<(), String> {
        let Some(entry) = self.entries.remove(&id) else {
            return Err(format!("there is no keyspace {id} to drop"));
        };
        self.names.remove(&entry.name);
        Ok(())
    }

    /// Gives a keyspace another name, or says why not.
    pub(super) fn rename(&mut self, id: KeyspaceId, name: &str) -> Result<(), String> {
        let Some(entry) = self.entries.get_mut(&id) else {
            return Err(format!("there is no keyspace {id} to rename"));
        };
        let old = std::mem::replace(&mut entry.name, name.to_owned());
        self.names.remove(&old);
        self.take_name(name.to_owned(), id)
    }

    /// Gives a keyspace other options, or says why not.
    pub(super) fn set_options(&mut self, changed: &CatalogEntry) -> Result<(), String> {
        match self.entries.get_mut(&changed.id) {
            Some(entry)
                if entry.name == changed.name && entry.options.engine == changed.options.engine =>
            {
                entry.clone_from(changed);
                Ok(())
            }
            _ => Err(format!(
                "there is no keyspace {} of name {:?} whose options could change",
                changed.id, changed.name
            )),
        }
    }

    fn take_name(&mut self, name: String, id: KeyspaceId) -> Result<(), String> {
        match self.names.insert(name, id) {
            None => Ok(()),
            Some(other) => Err(format!("keyspaces {other} and {id} have the same name")),
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

    /// Replaces the catalogue of the store in `dir`, durably, while its lock is held.
    pub(crate) fn store(&self, fs: &dyn Fs, dir: &Path, guard: &LockGuard) -> Result<()> {
        guard.check()?;
        // After a failure it is unknown which of them is there. Both are true: the log has what
        // the older one lacks (C3).
        Ok(fs::replace_file(fs, dir, CATALOG_FILE, &self.encode())?)
    }

    fn encode(&self) -> Vec<u8> {
        let mut body = Vec::new();
        body.extend_from_slice(&self.store_id.to_le_bytes());
        body.extend_from_slice(&self.seq.0.to_le_bytes());
        body.extend_from_slice(&self.next_id.to_le_bytes());
        body.extend_from_slice(&(self.entries.len() as u32).to_le_bytes());
        for entry in self.entries.values() {
            entry.encode(&mut body);
        }
        FORMAT.encode(catalog_seed(), &body)
    }

    fn decode(bytes: &[u8], path: &Path) -> Result<Self> {
        let opened = FORMAT.open(bytes, path, catalog_seed())?;
        match opened.check(catalog_seed()) {
            Err(error) if !mutated!("catalogue-checksum-ignored") => return Err(error),
            _ => {}
        }
        let mut reader = Reader::new(opened.body());
        Self::decode_body(&mut reader).map_err(|refused| match refused {
            Refused::Malformed => opened.malformed(reader.position()),
            Refused::Unknown(what) => Error::UnsupportedFeature {
                file: path.to_path_buf(),
                what: what.to_owned(),
            },
        })
    }

    fn decode_body(reader: &mut Reader<'_>) -> Result<Self, Refused> {
        let mut catalog = Self::new(reader.u64()?);
        catalog.seq = SeqNo(reader.u64()?);
        let next_id = reader.u32()?;
        let count = reader.u32()? as usize;
        if count > MAX_KEYSPACES || catalog.seq > SeqNo::MAX {
            return Err(Malformed.into());
        }
        for _ in 0..count {
            let entry = CatalogEntry::decode(reader)?;
            if entry.id.0 < catalog.next_id {
                return Err(Malformed.into());
            }
            // Those in between were dropped.
            catalog.next_id = entry.id.0;
            catalog.insert(entry).map_err(|_| Malformed)?;
        }
        if !reader.is_empty() || next_id < catalog.next_id {
            return Err(Malformed.into());
        }
        catalog.next_id = next_id;
        Ok(catalog)
    }
}

/// Decodes a catalogue and encodes it again.
#[cfg(feature = "internals")]
pub(crate) fn round_trip(bytes: &[u8], path: &Path) -> Result<Vec<u8>> {
    Catalog::decode(bytes, path).map(|catalog| catalog.encode())
}

/// The catalogue names the store, so its own checksum cannot be bound to the store.
fn catalog_seed() -> u64 {
    seed_of(&[u64::from_le_bytes(*FORMAT.magic)])
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
        let options = KeyspaceOptions::new(EngineKind::BTree).page_size_bytes(1 << 14);
        let mut catalog = Catalog::new(0x0102_0304_0506_0708);
        catalog.seq = SeqNo(9);
        catalog.next_id = 2;
        let entry = CatalogEntry::new(KeyspaceId(2), "users", options);
        catalog.insert(entry).unwrap();
        catalog
    }

    /// A catalogue of one keyspace with these bytes as its options.
    fn with_options(options: &[u8]) -> Vec<u8> {
        let mut body = Vec::new();
        body.extend_from_slice(&7u64.to_le_bytes());
        body.extend_from_slice(&9u64.to_le_bytes());
        body.extend_from_slice(&3u32.to_le_bytes());
        body.extend_from_slice(&1u32.to_le_bytes());
        body.extend_from_slice(&2u32.to_le_bytes());
        put_bytes(&mut body, b"users");
        put_bytes(&mut body, options);
        FORMAT.encode(catalog_seed(), &body)
    }

    #[test]
    fn golden_bytes() {
        let bytes = sample().encode();
        let expected: &[u8] =
            b"hdgrCATL\x05\0\0\0\x08\x07\x06\x05\x04\x03\x02\x01\x09\0\0\0\0\0\0\0\
            \x03\0\0\0\x01\0\0\0\x02\0\0\0\x05users\x09\x81\x01\x01\x83\x04\0\x40\0\0";
        assert_eq!(&bytes[..bytes.len() - 4], expected);
        let all = KeyspaceOptions::new(EngineKind::Lsm)
            .write_buffer_bytes(1 << 20)
            .memtable(MemtableKind::SkipList)
            .compression(Compression::None)
            .table_size_bytes(1 << 24)
            .block_size_bytes(1 << 12);
        let entry = CatalogEntry::new(KeyspaceId(1), "k", all);
        let expected: &[u8] = b"\x01\x08\0\0\x10\0\0\0\0\0\x02\x08\0\0\0\x01\0\0\0\0\x03\x01\0\
            \x04\x01\x01\x81\x01\0\x82\x04\0\x10\0\0";
        assert_eq!(entry.encode_options(), expected);
    }

    #[test]
    fn unknown_options_are_kept_or_refused_as_their_tag_says() {
        let path = Path::new(CATALOG_FILE);
        let later = b"\x70\x03new\x7f\0\x81\x01\x01";
        let bytes = with_options(later);
        let catalog = Catalog::decode(&bytes, path).unwrap();
        let unknown = &catalog.entry(KeyspaceId(2)).unwrap().unknown_options;
        assert_eq!(unknown, &[(0x70, b"new".to_vec()), (0x7f, Vec::new())]);
        assert_eq!(catalog.encode(), bytes, "and written again");
        for required in [
            &b"\x81\x01\x01\xf0\x01\0"[..],
            b"\x81\x01\x02",
            b"\x03\x01\x09\x81\x01\0",
        ] {
            let refused = Catalog::decode(&with_options(required), path);
            assert!(
                matches!(refused, Err(Error::UnsupportedFeature { .. })),
                "{refused:?}"
            );
        }
    }

    #[test]
    fn malformed_options_are_refused() {
        let long = [&[0x70, 0xff, 0x07][..], &[0; 1023]].concat();
        let malformed: [&[u8]; 9] = [
            b"",
            // No engine, a tag twice, tags that fall, a short and a long value, a cut one.
            b"\x04\x01\x01",
            b"\x81\x01\x01\x81\x01\x01",
            b"\x81\x01\x01\x70\0",
            b"\x81\x01\x01\x83\x02\0\x40",
            b"\x81\x02\x01\x01",
            b"\x81\x01\x01\x83\x04\0",
            // A page size of 3 bytes.
            b"\x81\x01\x01\x83\x04\x03\0\0\0",
            &long,
        ];
        for options in malformed {
            let refused = Catalog::decode(&with_options(options), Path::new(CATALOG_FILE));
            assert!(
                refused.is_err_and(|error| error.is_corruption()),
                "{options:x?}"
            );
        }
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

    /// Each entry was compared with all before it: 65,536 took seconds.
    #[test]
    fn the_most_keyspaces_are_told_apart_from_the_first_to_the_last() {
        let count = MAX_KEYSPACES as u32;
        let mut body = Vec::new();
        body.extend_from_slice(&7u64.to_le_bytes());
        body.extend_from_slice(&9u64.to_le_bytes());
        body.extend_from_slice(&(count + 1).to_le_bytes());
        body.extend_from_slice(&count.to_le_bytes());
        let with_last = |id: u32, name: u32| {
            let mut body = body.clone();
            let ids = (1..count).map(|id| (id, id)).chain([(id, name)]);
            for (id, name) in ids {
                let options = KeyspaceOptions::new(EngineKind::Lsm);
                CatalogEntry::new(KeyspaceId(id), &format!("tenant {name}"), options)
                    .encode(&mut body);
            }
            Catalog::decode(&FORMAT.encode(catalog_seed(), &body), Path::new("CATALOG"))
        };
        let catalog = with_last(count, count).unwrap();
        assert_eq!(catalog.entries().len(), MAX_KEYSPACES);
        assert!(
            with_last(count, 1).unwrap_err().is_corruption(),
            "a name twice"
        );
        assert!(
            with_last(1, count).unwrap_err().is_corruption(),
            "a number twice"
        );
    }

    #[test]
    fn numbers_of_keyspaces_end_without_beginning_again() {
        let mut catalog = sample();
        catalog.next_id = u32::MAX - 1;
        assert_eq!(catalog.new_id().unwrap(), KeyspaceId(u32::MAX - 1));
        catalog.next_id = u32::MAX;
        let refused = catalog.new_id();
        assert!(matches!(refused, Err(Error::InvalidArgument { .. })));
    }

    #[test]
    fn other_versions_are_refused_by_name() {
        for version in [1, 2, 3, 4, 9] {
            let bytes = SmallFile { version, ..FORMAT }.encode(catalog_seed(), b"of that version");
            match Catalog::decode(&bytes, Path::new("CATALOG")) {
                Err(Error::UnsupportedFormat {
                    found, supported, ..
                }) => assert_eq!((found, supported), (version, FORMAT.version)),
                other => panic!("{other:?}"),
            }
        }
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
