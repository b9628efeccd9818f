//! The manifest: a log of version edits.
//!
//! It says which tables make up the tree and up to where operations are persisted. A new manifest
//! begins with a header and one edit that describes everything; each flush and compaction appends
//! an edit; when the edits outweigh what they describe, a new manifest is begun. The file `CURRENT`
//! names the manifest that counts. The bytes are described in docs/format.md, "LSM: manifest".
//!
//! # Why a crash at any moment is harmless
//!
//! - **LF1** An edit is appended after the tables that it adds, and their names, are durable, and
//!   it is acknowledged after it is durable itself. A crash before that leaves the tree as it was,
//!   and some orphan files.
//! - **LF2** A record is synced before the next is appended. So only the last record can be torn:
//!   it was never acknowledged, and is dropped. A bad record before a good one is damage.
//! - **LF3** To distinguish damage of the last edit from a torn write, an *acknowledgement* is
//!   appended once the edit is synced. It is not synced by itself but before the next edit, to keep
//!   LF2. If it is torn, the edit before it is intact, and nothing is lost.
//! - **LF4** A new manifest is written and synced whole before `CURRENT` is replaced atomically.
//!   Until then the old one counts, and is complete.
//! - **LF5** After a failed write or sync nothing is known about the file, so nothing is appended
//!   to it any more: the next edit begins a new manifest. Tables that the failed edit would have
//!   added are not removed before that has worked, because the edit may be durable after all.
//! - **LF6** What is read when a manifest is opened need not be on the disk: after a sync that
//!   failed in an earlier process it may be in the operating system's cache only, considered clean
//!   and never written. An edit without an acknowledgement is such a case, so a new manifest begins
//!   at once, before anything is built on the edit; the last acknowledgement may be one, so nothing
//!   is appended to a manifest that another process wrote.
//! - **LF7** Only so many manifests may stay open. Another one is closed after each edit, its
//!   acknowledgement synced: what is in it is known to be on the disk, so appending to it later,
//!   through another handle, is as good as if it had stayed open.
//! - **LF8** A keyspace that has persisted nothing needs no manifest. As long as `CURRENT` is not
//!   there, its other files are what a crash left of its first edit.
//!
//! One thread at a time; the engine guards it with a mutex that no reader or writer takes.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::obsolete_files::{CURRENT, manifest_name};
use super::table::TableMeta;
use super::version::LEVELS;
use crate::error::{Error, Result};
use crate::format::checksum::{checksum, seed_of};
use crate::format::coding::{Malformed, Reader, get_u32, get_u64, put_varint};
use crate::format::framing::{FRAME_HEADER_LEN_BYTES, RecordReader, Step, append_record};
use crate::fs::{File, Fs, Held, NotReplaced, OpenFiles, OpenMode, read_all, replace_file};
use crate::types::{FileId, KeyspaceId, SeqNo};
use crate::util::mutants::mutated;

/// First bytes of a manifest.
const MAGIC: [u8; 8] = *b"hgrwMANI";
/// First bytes of `CURRENT`.
const CURRENT_MAGIC: [u8; 8] = *b"hgrwCURR";
/// Numbers of manifests and tables are below this: a tree does not live to reach it.
pub(super) const NUMBER_END: u64 = 1 << 62;

/// The format that this build reads and writes.
const VERSION: u32 = 4;
/// Length of a manifest's header.
const HEADER_LEN_BYTES: usize = 48;
/// Length of `CURRENT`.
const CURRENT_LEN_BYTES: usize = 24;
/// Longest manifest that is read or written: a million tables with long keys fit.
const MAX_LEN_BYTES: u64 = if cfg!(test) { 1 << 19 } else { 1 << 30 };
/// A manifest is begun anew when its edits are longer than this and longer than four times its
/// first.
const REWRITE_LEN_BYTES: u64 = 256 << 10;

/// Separates the checksums of manifests from others'.
const SEED_MANIFEST: u64 = u64::from_le_bytes(*b"manifest");
const SEED_CURRENT: u64 = u64::from_le_bytes(*b"current ");

const TAG_ACKNOWLEDGED: u8 = 0;
const TAG_PERSISTED_SEQ: u8 = 1;
const TAG_NEXT_FILE: u8 = 2;
const TAG_ADD_TABLE: u8 = 3;
const TAG_REMOVE_TABLE: u8 = 4;

/// What never changes about a keyspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) store_id: u64,
    pub(crate) keyspace: KeyspaceId,
    /// Block size at creation; later opens keep to it.
    pub(crate) block_size_bytes: u32,
}

/// One step from a tree to the next, as it is stored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Edit {
    pub(crate) persisted_seq: Option<SeqNo>,
    /// No file with this number or a higher one has been acknowledged.
    pub(crate) next_file: Option<FileId>,
    pub(crate) removed: Vec<(usize, FileId)>,
    pub(crate) added: Vec<(usize, TableMeta)>,
}

/// The tree that a manifest describes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Contents {
    pub(crate) persisted_seq: SeqNo,
    pub(crate) next_file: FileId,
    /// Tables of each level, in no particular order.
    pub(crate) levels: [Vec<TableMeta>; LEVELS],
}

impl Default for Contents {
    fn default() -> Self {
        Self {
            persisted_seq: SeqNo::ZERO,
            next_file: FileId(1),
            levels: Default::default(),
        }
    }
}

impl Edit {
    /// The edit that makes `contents` out of nothing.
    pub(crate) fn snapshot(contents: &Contents) -> Self {
        let levels = contents.levels.iter().enumerate();
        Self {
            persisted_seq: Some(contents.persisted_seq),
            next_file: Some(contents.next_file),
            removed: Vec::new(),
            added: levels
                .flat_map(|(level, tables)| tables.iter().map(move |meta| (level, meta.clone())))
                .collect(),
        }
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        if let Some(seq) = self.persisted_seq {
            out.push(TAG_PERSISTED_SEQ);
            put_varint(&mut out, seq.0);
        }
        if let Some(id) = self.next_file {
            out.push(TAG_NEXT_FILE);
            put_varint(&mut out, id.0);
        }
        for (level, id) in &self.removed {
            out.extend_from_slice(&[TAG_REMOVE_TABLE, *level as u8]);
            put_varint(&mut out, id.0);
        }
        for (level, meta) in &self.added {
            out.extend_from_slice(&[TAG_ADD_TABLE, *level as u8]);
            meta.encode(&mut out);
        }
        out
    }

    fn decode(payload: &[u8]) -> Result<Self, Malformed> {
        let mut edit = Self::default();
        let mut reader = Reader::new(payload);
        let level = |reader: &mut Reader<'_>| match usize::from(reader.u8()?) {
            level if level < LEVELS => Ok(level),
            _ => Err(Malformed),
        };
        while !reader.is_empty() {
            match reader.u8()? {
                TAG_PERSISTED_SEQ => edit.persisted_seq = Some(SeqNo(reader.varint()?)),
                TAG_NEXT_FILE => edit.next_file = Some(FileId(reader.varint()?)),
                TAG_REMOVE_TABLE => {
                    edit.removed
                        .push((level(&mut reader)?, FileId(reader.varint()?)));
                }
                TAG_ADD_TABLE => {
                    edit.added
                        .push((level(&mut reader)?, TableMeta::decode(&mut reader)?));
                }
                _ => return Err(Malformed),
            }
        }
        Ok(edit)
    }
}

/// Contents that edits are applied to, one after the other. Knows where each table is, so that an
/// edit costs as much as it says, however many tables there are.
#[derive(Debug, Default)]
struct Replay {
    contents: Contents,
    /// Level of a table and its place there.
    places: HashMap<FileId, (usize, usize)>,
}

impl Replay {
    /// Applies an edit, or says why it does not fit.
    fn apply(&mut self, edit: Edit) -> Result<(), String> {
        let Self { contents, places } = self;
        for (level, id) in edit.removed {
            let Some((_, at)) = places.remove(&id).filter(|(known, _)| *known == level) else {
                return Err(format!("an edit removes table {} from level {level}", id.0));
            };
            let tables = &mut contents.levels[level];
            tables.swap_remove(at);
            if let Some(moved) = tables.get(at) {
                places.insert(moved.id, (level, at));
            }
        }
        let added = edit.added.len();
        let mut newest = FileId(0);
        for (level, meta) in edit.added {
            newest = newest.max(meta.id);
            let place = (level, contents.levels[level].len());
            if places.insert(meta.id, place).is_some() {
                return Err(format!("an edit adds table {} twice", meta.id.0));
            }
            contents.levels[level].push(meta);
        }
        if let Some(next) = edit.next_file {
            if next < contents.next_file {
                newest = places.keys().copied().max().unwrap_or(newest);
            }
            if next.0 > NUMBER_END {
                return Err(format!("no table can have the number {:#x}", next.0));
            }
            contents.next_file = next;
        }
        if let Some(seq) = edit.persisted_seq {
            if seq < contents.persisted_seq || seq > SeqNo::MAX {
                return Err(format!(
                    "persisted_seq changes from {} to {seq}",
                    contents.persisted_seq
                ));
            }
            contents.persisted_seq = seq;
        }
        if newest >= contents.next_file && (added > 0 || !places.is_empty()) {
            return Err(format!("table {} is above the next file number", newest.0));
        }
        Ok(())
    }
}

#[cfg(test)]
impl Contents {
    fn apply(&mut self, edit: Edit) -> Result<(), String> {
        let mut replay = Replay::default();
        replay.contents.next_file = self.next_file;
        let known = Edit::snapshot(self);
        replay.apply(known).expect("they fit");
        replay.apply(edit)?;
        *self = replay.contents;
        Ok(())
    }
}

/// The manifest that counts, open for appending.
#[derive(Debug)]
pub(crate) struct Manifest {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    identity: Identity,
    number: u64,
    /// Highest number that a file was begun under. The file of a failed attempt may be gone, or
    /// not: its name must not be used again.
    begun: u64,
    /// `None` after a failure (LF5), when the manifest was opened read-only, or if `is_closed`.
    file: Option<Arc<dyn File>>,
    /// The file can be appended to once it is opened again (LF7).
    is_closed: bool,
    /// Permission to keep the file open; `None` also if it was never asked for.
    held: Option<Held>,
    /// `None` for no limit of open files.
    open_files: Option<Arc<OpenFiles>>,
    len_bytes: u64,
    /// Length of header and first edit.
    first_len_bytes: u64,
    /// Edits in the file.
    edits: u64,
    /// An acknowledgement was appended and not synced (LF3).
    is_dirty: bool,
}

impl Manifest {
    /// The manifest of a new keyspace in `dir`. There is no file before the first edit begins one
    /// (LF8).
    pub(crate) fn unwritten(fs: Arc<dyn Fs>, dir: &Path, identity: Identity) -> Self {
        Self {
            fs,
            dir: dir.to_path_buf(),
            identity,
            number: 0,
            begun: 0,
            file: None,
            is_closed: false,
            held: None,
            open_files: None,
            len_bytes: 0,
            first_len_bytes: 0,
            edits: 0,
            is_dirty: false,
        }
    }

    /// True once there is a file.
    pub(crate) fn is_written(&self) -> bool {
        self.number != 0
    }

    /// Reads the manifest that counts, which must say that everything up to `watermark` is
    /// persisted. `identity.block_size_bytes` is taken from the file.
    pub(crate) fn open(
        fs: Arc<dyn Fs>,
        dir: &Path,
        identity: Identity,
        watermark: SeqNo,
        read_only: bool,
    ) -> Result<(Self, Contents)> {
        let number = read_current(&*fs, dir, &identity)?;
        let mode = if read_only {
            OpenMode::Read
        } else {
            OpenMode::ReadWrite
        };
        let path = dir.join(manifest_name(number));
        let file = match fs.open(&path, mode) {
            Err(error) if error.is_not_found() => {
                return Err(Error::corruption(
                    &path,
                    0,
                    "the manifest that CURRENT names is missing",
                ));
            }
            other => other?,
        };
        let bytes = read_all(&*file, MAX_LEN_BYTES)?;
        let identity = decode_header(&path, &bytes, &identity, number)?;

        let damage = |offset, what: &str| Err(Error::corruption(&path, offset, what));
        let mut replay = Replay::default();
        let seed = record_seed(&identity, number);
        let mut reader =
            RecordReader::new(&bytes[HEADER_LEN_BYTES..], seed, HEADER_LEN_BYTES as u64);
        let mut first_len_bytes = 0;
        let mut edits = 0;
        let mut is_acknowledged = false;
        loop {
            match reader.step() {
                Step::Record {
                    payload: [TAG_ACKNOWLEDGED],
                    ..
                } => is_acknowledged = true,
                Step::Record { offset, payload } => {
                    is_acknowledged = false;
                    let applied = Edit::decode(payload)
                        .map_err(|Malformed| "an edit is malformed".to_owned())
                        .and_then(|edit| replay.apply(edit));
                    if let Err(what) = applied {
                        return damage(offset, &what);
                    }
                    edits += 1;
                    if first_len_bytes == 0 {
                        first_len_bytes = reader.offset();
                    }
                }
                // CURRENT named this file after its first edit was durable (LF4).
                Step::End | Step::Torn { .. } if first_len_bytes == 0 => {
                    return damage(HEADER_LEN_BYTES as u64, "the first edit is damaged");
                }
                Step::End | Step::Torn { .. } => break,
                Step::Damaged { offset } => return damage(offset, "an edit is damaged"),
            }
        }
        let contents = replay.contents;
        if contents.persisted_seq < watermark && !mutated!("manifest-below-its-watermark-accepted")
        {
            // It was cut, or is of an earlier moment: the edits that are missing were acknowledged.
            let persisted = contents.persisted_seq;
            let what = format!(
                "the manifest ends with operation {persisted}, but operation {watermark} was persisted"
            );
            return damage(reader.offset(), &what);
        }
        let mut manifest = Self {
            fs,
            dir: dir.to_path_buf(),
            identity,
            number,
            begun: number,
            // The next edit begins a new manifest (LF6).
            file: None,
            is_closed: false,
            held: None,
            open_files: None,
            len_bytes: bytes.len() as u64,
            first_len_bytes,
            edits,
            is_dirty: false,
        };
        if !read_only && !is_acknowledged {
            manifest.begin(&contents)?;
        }
        Ok((manifest, contents))
    }

    /// What never changes.
    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Number of the file that counts; zero as long as there is none.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Edits in the file that counts, the one that describes everything included.
    pub(crate) fn edits(&self) -> u64 {
        self.edits
    }

    /// Length of the file that counts.
    pub(crate) fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    /// Makes `edit` durable. `contents` is the tree with the edit applied, asked for when a new
    /// manifest has to begin.
    pub(crate) fn append(
        &mut self,
        edit: &Edit,
        contents: impl FnOnce() -> Contents,
    ) -> Result<()> {
        let payload = edit.encode();
        // Together with what acknowledges it.
        let end = self.len_bytes + (2 * FRAME_HEADER_LEN_BYTES + payload.len() + 1) as u64;
        let is_long = self.len_bytes > REWRITE_LEN_BYTES.max(4 * self.first_len_bytes)
            || end > MAX_LEN_BYTES && !mutated!("manifest-grows-beyond-what-is-read");
        // Taken out, so that a failure on the way leaves none (LF5).
        let is_closed = std::mem::take(&mut self.is_closed);
        let file = match self.file.take() {
            _ if is_long => None,
            None if is_closed => {
                let path = self.dir.join(manifest_name(self.number));
                Some(self.fs.open(&path, OpenMode::ReadWrite)?)
            }
            file => file,
        };
        let Some(file) = file else {
            return self.begin(&contents());
        };
        if self.is_dirty {
            file.sync_data()?;
            self.is_dirty = false;
        }
        let mut record = Vec::new();
        let seed = record_seed(&self.identity, self.number);
        append_record(&mut record, seed, self.len_bytes, &payload);
        file.write_all_at(&record, self.len_bytes)?;
        if !mutated!("manifest-edit-not-synced") {
            file.sync_data()?;
        }
        self.len_bytes += record.len() as u64;
        self.edits += 1;
        self.acknowledge(file);
        Ok(())
    }

    /// Appends an acknowledgement of what was just synced (LF3). If that fails the edit is
    /// durable all the same; the next edit begins a new manifest.
    fn acknowledge(&mut self, file: Arc<dyn File>) {
        let mut record = Vec::new();
        let seed = record_seed(&self.identity, self.number);
        append_record(&mut record, seed, self.len_bytes, &[TAG_ACKNOWLEDGED]);
        if file.write_all_at(&record, self.len_bytes).is_ok() {
            self.len_bytes += record.len() as u64;
            self.is_dirty = true;
            self.file = Some(file);
            self.close_unless_allowed();
        }
    }

    /// Keeps no more files open than `open_files` allows, from now on (LF7).
    pub(crate) fn limit_open(&mut self, open_files: &Arc<OpenFiles>) {
        self.open_files = Some(Arc::clone(open_files));
        self.close_unless_allowed();
    }

    fn close_unless_allowed(&mut self) {
        let Some(open_files) = &self.open_files else {
            return;
        };
        if self.held.is_none() {
            self.held = open_files.hold();
        }
        if self.held.is_none()
            && let Some(file) = self.file.take()
        {
            // After a failure the next edit begins a new manifest (LF5).
            self.is_closed = file.sync_data().is_ok();
            self.is_dirty = false;
        }
    }

    /// Begins a new manifest that describes `contents`, and makes it the one that counts.
    fn begin(&mut self, contents: &Contents) -> Result<()> {
        self.file = None;
        self.is_closed = false;
        let old = self.number;
        // An earlier process may have failed likewise.
        let mut number = self.begun.max(old) + 1;
        while self.fs.exists(&self.dir.join(manifest_name(number)))? {
            number += 1;
        }
        if number >= NUMBER_END {
            return Err(Error::invalid(
                "the tree has used up the numbers of its manifests",
            ));
        }
        self.begun = number;
        let mut bytes = encode_header(&self.identity, number).to_vec();
        let payload = Edit::snapshot(contents).encode();
        let seed = record_seed(&self.identity, number);
        append_record(&mut bytes, seed, HEADER_LEN_BYTES as u64, &payload);
        let acknowledged_len = bytes.len() + FRAME_HEADER_LEN_BYTES + 1;
        if acknowledged_len as u64 > MAX_LEN_BYTES {
            return Err(Error::invalid(format!(
                "the tables of a keyspace are more than a manifest of {MAX_LEN_BYTES} bytes names"
            )));
        }
        let path = self.dir.join(manifest_name(number));
        let named = self
            .write_whole(&path, &bytes)
            .map_err(|error| NotReplaced {
                error,
                is_unknown: false,
            })
            .and_then(|file| {
                let current = encode_current(&self.identity, number);
                replace_file(&*self.fs, &self.dir, CURRENT, &current)?;
                Ok(file)
            });
        let file = named.map_err(|failure| {
            if !failure.is_unknown {
                // On a full disk this is tried again and again: no file may stay that takes space.
                let _ = self.fs.remove_file(&path);
            }
            failure.error
        })?;
        if old != 0 {
            // An orphan if this fails; the next open removes it.
            let _ = self.fs.remove_file(&self.dir.join(manifest_name(old)));
        }
        self.number = number;
        self.edits = 1;
        self.len_bytes = bytes.len() as u64;
        self.first_len_bytes = self.len_bytes;
        self.is_dirty = false;
        self.acknowledge(file);
        Ok(())
    }

    /// Makes a file of `bytes`, durable in content and name.
    fn write_whole(&self, path: &Path, bytes: &[u8]) -> Result<Arc<dyn File>> {
        let file = self.fs.open(path, OpenMode::CreateNew)?;
        file.write_all_at(bytes, 0)?;
        file.sync_data()?;
        self.fs.sync_dir(&self.dir)?;
        Ok(file)
    }
}

/// Decodes an edit and encodes it again; `None` if it is malformed.
#[cfg(feature = "internals")]
pub(crate) fn round_trip(payload: &[u8]) -> Option<Vec<u8>> {
    Edit::decode(payload).ok().map(|edit| edit.encode())
}

fn record_seed(identity: &Identity, number: u64) -> u64 {
    seed_of(&[
        SEED_MANIFEST,
        identity.store_id,
        identity.keyspace.0.into(),
        number,
    ])
}

fn encode_header(identity: &Identity, number: u64) -> [u8; HEADER_LEN_BYTES] {
    let mut header = [0; HEADER_LEN_BYTES];
    header[..8].copy_from_slice(&MAGIC);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    header[12..16].copy_from_slice(&identity.keyspace.0.to_le_bytes());
    header[16..24].copy_from_slice(&identity.store_id.to_le_bytes());
    header[24..32].copy_from_slice(&number.to_le_bytes());
    header[32..36].copy_from_slice(&identity.block_size_bytes.to_le_bytes());
    let sum = checksum(record_seed(identity, number), &header[..44]);
    header[44..].copy_from_slice(&sum.to_le_bytes());
    header
}

fn decode_header(path: &Path, bytes: &[u8], expected: &Identity, number: u64) -> Result<Identity> {
    let damage = |offset, what: &str| Err(Error::corruption(path, offset, what));
    if bytes.len() < HEADER_LEN_BYTES {
        return damage(bytes.len() as u64, "the manifest ends within its header");
    }
    if bytes[..8] != MAGIC {
        return damage(0, "this is not a manifest");
    }
    let found = get_u32(bytes, 8);
    // The checksum's place may differ in another version, so the version comes first.
    Error::check_version(path, found, VERSION)?;
    if get_u32(bytes, 44) != checksum(record_seed(expected, number), &bytes[..44]) {
        return damage(
            44,
            "the header is damaged, or belongs to another store or keyspace",
        );
    }
    let block_size_bytes = get_u32(bytes, 32);
    let identity = Identity {
        block_size_bytes,
        ..*expected
    };
    if encode_header(&identity, number)[..] != bytes[..HEADER_LEN_BYTES] {
        return damage(8, "the header names another store, keyspace or file");
    }
    if !(256..=65_536).contains(&block_size_bytes) {
        return damage(32, "the block size is outside 256 to 65,536");
    }
    Ok(identity)
}

fn current_seed(identity: &Identity) -> u64 {
    seed_of(&[SEED_CURRENT, identity.store_id, identity.keyspace.0.into()])
}

fn encode_current(identity: &Identity, number: u64) -> [u8; CURRENT_LEN_BYTES] {
    let mut bytes = [0; CURRENT_LEN_BYTES];
    bytes[..8].copy_from_slice(&CURRENT_MAGIC);
    bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
    bytes[12..20].copy_from_slice(&number.to_le_bytes());
    let sum = checksum(current_seed(identity), &bytes[..20]);
    bytes[20..].copy_from_slice(&sum.to_le_bytes());
    bytes
}

fn read_current(fs: &dyn Fs, dir: &Path, identity: &Identity) -> Result<u64> {
    let path = dir.join(CURRENT);
    let damage = |offset, what: &str| Err(Error::corruption(&path, offset, what));
    let file = match fs.open(&path, OpenMode::Read) {
        Err(error) if error.is_not_found() => return damage(0, "the file is missing"),
        other => other?,
    };
    let bytes = read_all(&*file, CURRENT_LEN_BYTES as u64)?;
    if bytes.len() < CURRENT_LEN_BYTES {
        return damage(bytes.len() as u64, "the file is too short");
    }
    if bytes[..8] != CURRENT_MAGIC {
        return damage(0, "this is not a pointer to a manifest");
    }
    let found = get_u32(&bytes, 8);
    Error::check_version(&path, found, VERSION)?;
    if get_u32(&bytes, 20) != checksum(current_seed(identity), &bytes[..20]) {
        return damage(
            20,
            "the file is damaged, or belongs to another store or keyspace",
        );
    }
    match get_u64(&bytes, 12) {
        number @ 1..NUMBER_END => Ok(number),
        number => damage(12, &format!("no manifest can have the number {number:#x}")),
    }
}

#[cfg(test)]
mod tests;
