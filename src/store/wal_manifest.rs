//! The WAL manifest: what the log reaches from and to, and what the catalogue and the keyspaces had
//! persisted when the rest was deleted.
//!
//! One small file, `WAL-MANIFEST`, made with the store, and replaced as a whole before segments of
//! the log are deleted and when the store is closed (docs/format.md, "WAL manifest").
//!
//! It is the witness of what no other file can tell. A keyspace's own files say up to where they
//! hold its operations. Intact files of an earlier moment say less; while the log goes back so far,
//! replay makes up for it. The WAL manifest tells when it no longer does: the file of an idle
//! keyspace may lag behind the log by any number of operations of other keyspaces, so its number
//! alone proves nothing. And the last records of the log are followed by none that would say that
//! they were durable: when they are damaged, they look like writes that a power loss cut short.
//!
//! Invariants:
//! - H1: what is in the file is true of the disk: a keyspace's watermark was durable in its own
//!   files before it was written here, and never falls.
//! - H2: a segment is deleted only after a WAL manifest is durable that says so. So every operation
//!   that the log lacks is at or below the watermark of its keyspace, and a keyspace that says less
//!   than its watermark has lost something.
//! - H3: every store has the file: it is there before the catalogue, which makes a directory a
//!   store. So a store without it has lost something, and may have lost the end of its log with it.
//! - H4: everything up to the end was durable in the log before it was written here.
//! - H5: the catalogue has a watermark, too: its last change of keyspaces. The watermarks are those
//!   of keyspaces that it listed, so an older catalogue is noticed before it is acted on.
//! - H6: what an opening reads here is true, but need not be durable: the process that wrote it may
//!   have failed to sync its name, and a power loss then brings the one before it back. So nothing
//!   is deleted because of it before it is written again.

use std::path::Path;

use crate::error::{Error, Result};
use crate::format::checksum::seed_of;
use crate::format::coding::{Malformed, Reader};
use crate::format::small_file::{ENVELOPE_LEN_BYTES, SmallFile};
use crate::fs;
use crate::fs::{Fs, LockGuard, OpenMode};
use crate::types::{KeyspaceId, MAX_KEYSPACES, SeqNo};
use crate::util::mutants::mutated;

/// Name of the file.
pub(crate) const WAL_MANIFEST_FILE: &str = "WAL-MANIFEST";
/// Name of the file while it is written.
pub(crate) const WAL_MANIFEST_TEMPORARY: &str = "WAL-MANIFEST.tmp";
const FORMAT: SmallFile = SmallFile {
    name: "WAL manifest",
    magic: b"hdgrWALM",
    version: 2,
};
/// The envelope, store id, first, end, catalogue and count.
const FIXED_LEN_BYTES: usize = ENVELOPE_LEN_BYTES + 8 + 8 + 8 + 8 + 4;
/// Keyspace and watermark.
const WATERMARK_LEN_BYTES: usize = 4 + 8;

/// The content of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WalManifest {
    /// The log holds every operation from here on.
    pub(crate) first: SeqNo,
    /// The log was durable up to here.
    pub(crate) end: SeqNo,
    /// The last change of keyspaces that the catalogue had.
    pub(crate) catalog: SeqNo,
    /// What each keyspace had persisted, rising by keyspace.
    pub(crate) watermarks: Vec<(KeyspaceId, SeqNo)>,
}

impl Default for WalManifest {
    fn default() -> Self {
        Self {
            first: SeqNo::ZERO.next(),
            end: SeqNo::ZERO,
            catalog: SeqNo::ZERO,
            watermarks: Vec::new(),
        }
    }
}

/// The WAL manifest of an open store.
#[derive(Debug)]
pub(crate) struct OpenWalManifest {
    pub(crate) content: WalManifest,
    /// This process has written it (H6).
    is_durable: bool,
}

impl OpenWalManifest {
    /// What an opening has read.
    pub(super) fn found(content: WalManifest) -> Self {
        Self {
            content,
            is_durable: false,
        }
    }

    /// What this process has written.
    pub(super) fn written(content: WalManifest) -> Self {
        Self {
            content,
            is_durable: true,
        }
    }

    /// True if a power loss leaves it, as it is, in its place.
    pub(super) fn is_durable(&self) -> bool {
        self.is_durable || mutated!("wal-manifest-that-was-read-taken-for-durable")
    }
}

impl WalManifest {
    /// Reads the WAL manifest of store `store_id` in `dir`.
    pub(crate) fn load(fs: &dyn Fs, dir: &Path, store_id: u64) -> Result<Self> {
        let path = dir.join(WAL_MANIFEST_FILE);
        if !fs.exists(&path)? {
            if mutated!("missing-wal-manifest-taken-for-none") {
                return Ok(Self::default());
            }
            return Err(Error::corruption(
                &path,
                0,
                "the file is missing, and every store has one: it says what the log must hold",
            ));
        }
        let file = fs.open(&path, OpenMode::Read)?;
        let limit = FIXED_LEN_BYTES + MAX_KEYSPACES * WATERMARK_LEN_BYTES;
        Self::decode(&fs::read_all(&*file, limit as u64)?, &path, store_id)
    }

    /// Replaces the WAL manifest of store `store_id` in `dir`, durably, while its lock is held.
    pub(crate) fn store(
        &self,
        fs: &dyn Fs,
        dir: &Path,
        store_id: u64,
        guard: &LockGuard,
    ) -> Result<()> {
        guard.check()?;
        // After a failure it is unknown which of them is there. Both are true (H1).
        Ok(fs::replace_file(
            fs,
            dir,
            WAL_MANIFEST_FILE,
            &self.encode(store_id),
        )?)
    }

    /// What `keyspace` must have persisted.
    pub(crate) fn persisted_watermark(&self, keyspace: KeyspaceId) -> SeqNo {
        let at = self
            .watermarks
            .binary_search_by_key(&keyspace, |(id, _)| *id);
        at.map_or(SeqNo::ZERO, |at| self.watermarks[at].1)
    }

    /// Compares with `log_first`, the first operation of the log in `log_dir`, if that has any
    /// segment.
    pub(crate) fn check_log(&self, log_dir: &Path, log_first: Option<SeqNo>) -> Result<()> {
        if log_first.is_some_and(|first| first <= self.first) {
            return Ok(());
        }
        let starts = match log_first {
            Some(first) => format!("begins with operation {first}"),
            // Nothing was ever in it, when the opening that made the store was cut short.
            None if *self == Self::default() => return Ok(()),
            None => "has no segment".into(),
        };
        Err(Error::corruption(
            log_dir,
            0,
            format!(
                "the log {starts}, but operation {} was kept: its oldest segments are missing",
                self.first
            ),
        ))
    }

    fn encode(&self, store_id: u64) -> Vec<u8> {
        let mut body = Vec::new();
        body.extend_from_slice(&store_id.to_le_bytes());
        body.extend_from_slice(&self.first.0.to_le_bytes());
        body.extend_from_slice(&self.end.0.to_le_bytes());
        body.extend_from_slice(&self.catalog.0.to_le_bytes());
        body.extend_from_slice(&(self.watermarks.len() as u32).to_le_bytes());
        for (keyspace, watermark) in &self.watermarks {
            body.extend_from_slice(&keyspace.0.to_le_bytes());
            body.extend_from_slice(&watermark.0.to_le_bytes());
        }
        FORMAT.encode(seed(store_id), &body)
    }

    fn decode(bytes: &[u8], path: &Path, store_id: u64) -> Result<Self> {
        let opened = FORMAT.open(bytes, path, seed(store_id))?;
        let mut reader = Reader::new(opened.body());
        let owner = reader.u64().map_err(|Malformed| opened.malformed(0))?;
        if owner != store_id {
            let what = format!(
                "the WAL manifest is of store {owner:016x}, the catalogue of {store_id:016x}"
            );
            return Err(opened.damaged(0, what));
        }
        match opened.check(seed(store_id)) {
            Err(error) if !mutated!("wal-manifest-checksum-ignored") => return Err(error),
            _ => {}
        }
        Self::decode_body(&mut reader).map_err(|Malformed| opened.malformed(reader.position()))
    }

    fn decode_body(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let seq = |reader: &mut Reader<'_>| match SeqNo(reader.u64()?) {
            seq if seq <= SeqNo::MAX => Ok(seq),
            _ => Err(Malformed),
        };
        let first = seq(reader)?;
        let end = seq(reader)?;
        let catalog = seq(reader)?;
        let count = reader.u32()?;
        let mut watermarks: Vec<(KeyspaceId, SeqNo)> = Vec::new();
        for _ in 0..count {
            let keyspace = KeyspaceId(reader.u32()?);
            if watermarks.last().is_some_and(|(last, _)| *last >= keyspace) {
                return Err(Malformed);
            }
            watermarks.push((keyspace, seq(reader)?));
        }
        if !reader.is_empty() || first < Self::default().first {
            return Err(Malformed);
        }
        Ok(Self {
            first,
            end,
            catalog,
            watermarks,
        })
    }
}

/// Decodes a WAL manifest and encodes it again.
#[cfg(feature = "internals")]
pub(crate) fn round_trip(bytes: &[u8], path: &Path) -> Result<Vec<u8>> {
    let store_id = Reader::new(bytes.get(12..).unwrap_or_default())
        .u64()
        .unwrap_or_default();
    WalManifest::decode(bytes, path, store_id).map(|wal_manifest| wal_manifest.encode(store_id))
}

fn seed(store_id: u64) -> u64 {
    seed_of(&[u64::from_le_bytes(*FORMAT.magic), store_id])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::checksum::checksum;
    use crate::format::coding::get_u32;

    const STORE: u64 = 0x0102_0304_0506_0708;

    fn sample() -> WalManifest {
        WalManifest {
            first: SeqNo(300),
            end: SeqNo(500),
            catalog: SeqNo(4),
            watermarks: vec![(KeyspaceId(1), SeqNo(299)), (KeyspaceId(4), SeqNo(7))],
        }
    }

    fn decode(bytes: &[u8]) -> Result<WalManifest> {
        WalManifest::decode(bytes, Path::new(WAL_MANIFEST_FILE), STORE)
    }

    #[test]
    fn golden_bytes() {
        let bytes = sample().encode(STORE);
        let expected: &[u8] =
            b"hdgrWALM\x02\0\0\0\x08\x07\x06\x05\x04\x03\x02\x01\x2c\x01\0\0\0\0\0\0\
            \xf4\x01\0\0\0\0\0\0\x04\0\0\0\0\0\0\0\x02\0\0\0\x01\0\0\0\x2b\x01\0\0\0\0\0\0\x04\0\0\0\x07\0\0\0\0\0\0\0";
        assert_eq!(&bytes[..bytes.len() - 4], expected);
        let sum = checksum(seed(STORE), expected);
        assert_eq!(get_u32(&bytes, bytes.len() - 4), sum);
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let bytes = sample().encode(STORE);
        assert_eq!(decode(&bytes).unwrap(), sample());
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&damaged).is_err(), "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert!(decode(&bytes[..len]).is_err(), "cut to {len}");
        }
    }

    #[test]
    fn malformed_contents_are_refused() {
        let first = SeqNo(2);
        let watermarks = |watermarks: &[(u32, u64)]| {
            let watermarks = watermarks
                .iter()
                .map(|(id, seq)| (KeyspaceId(*id), SeqNo(*seq)));
            watermarks.collect::<Vec<_>>()
        };
        let refused = [
            (SeqNo::ZERO, watermarks(&[])),
            (SeqNo(u64::MAX), watermarks(&[])),
            (first, watermarks(&[(1, u64::MAX)])),
            (first, watermarks(&[(2, 5), (1, 5)])),
            (first, watermarks(&[(2, 5), (2, 5)])),
        ];
        for (first, watermarks) in refused {
            let end = first;
            let bytes = WalManifest {
                first,
                end,
                catalog: end,
                watermarks,
            }
            .encode(STORE);
            assert!(decode(&bytes).unwrap_err().is_corruption(), "{bytes:x?}");
        }
    }

    #[test]
    fn other_versions_are_refused_by_name() {
        for version in [1, 9] {
            let other = SmallFile { version, ..FORMAT };
            let refused = decode(&other.encode(seed(STORE), &[0; 28])).unwrap_err();
            assert!(matches!(
                refused,
                Error::UnsupportedFormat { found, supported: 2, .. } if found == version
            ));
        }
    }

    #[test]
    fn floors_of_keyspaces_that_are_not_listed_are_zero() {
        let wal_manifest = sample();
        let watermarks =
            [0, 1, 2, 4, 5].map(|id| wal_manifest.persisted_watermark(KeyspaceId(id)).0);
        assert_eq!(watermarks, [0, 299, 0, 7, 0]);
    }

    #[test]
    fn a_log_that_lacks_its_front_is_damage() {
        let blamed = |wal_manifest: &WalManifest, first: Option<u64>| {
            let checked = wal_manifest.check_log(Path::new("wal"), first.map(SeqNo));
            match checked {
                Ok(()) => false,
                Err(Error::Corruption { file, .. }) => file == Path::new("wal"),
                Err(other) => panic!("{other}"),
            }
        };
        let none = WalManifest::default();
        assert!(!blamed(&none, None));
        assert!(!blamed(&none, Some(1)));
        assert!(blamed(&none, Some(2)));
        let some = sample();
        assert!(!blamed(&some, Some(300)));
        assert!(!blamed(&some, Some(12)));
        assert!(blamed(&some, Some(301)));
        assert!(blamed(&some, None));
    }

    /// A store without the file was taken for one whose log had never been cut.
    #[test]
    fn a_missing_file_is_damage() {
        let fs = crate::fs::SimFs::new();
        let dir = Path::new("/");
        match WalManifest::load(&fs, dir, STORE) {
            Err(Error::Corruption { file, what, .. }) => {
                assert_eq!(file, dir.join(WAL_MANIFEST_FILE));
                assert!(what.contains("missing"), "{what}");
            }
            other => panic!("{other:?}"),
        }
        WalManifest::default()
            .store(&fs, dir, STORE, &LockGuard::default())
            .unwrap();
        let found = WalManifest::load(&fs, dir, STORE).unwrap();
        assert_eq!(found, WalManifest::default());
    }
}
