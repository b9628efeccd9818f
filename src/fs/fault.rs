//! A file system whose operations can be made to fail.
//!
//! A [`FaultFs`] wraps any other file system, counts every operation by kind, and fails the one
//! that a [`FaultPlan`] names, in the way that it names: nothing happened and an error; a part
//! happened and an error; all of it happened and yet an error. It is how the tests drive every path
//! that a program has for errors that real disks show once in years.
//!
//! # Failed syncs
//!
//! What a failed `fsync` leaves differs between systems. Linux marks the pages that it could not
//! write as clean: they can still be read, they are never written again, and once they leave the
//! cache the old bytes are back. So there are three ways for a sync to fail:
//!
//! - [`Fault::SyncDropped`]: the bytes are gone at once; reads show what was durable before;
//! - [`Fault::SyncLost`]: the bytes can be read until [`FaultFs::evict`], and no later sync makes
//!   them durable;
//! - [`Fault::Arrived`]: the bytes are durable although the sync said otherwise.
//!
//! # Invariants
//!
//! - **FF1** `undo` of a file turns what readers see into what was there at its last sync that
//!   worked.
//! - **FF2** A file has a `shadow` from the first sync that lost bytes to the next eviction: the
//!   bytes on the disk, and the changes that are still to reach it.
//!
//! Thread safety: handles may be used from any thread. Lacking on purpose: maps for writing,
//! which would change files behind the counter's back; and failing accesses to a map for reading,
//! which the operating system answers with a signal.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::map::{MapFile, MapSource, Mapping, MappingMut};
use super::{File, Fs, FsLock, LockMode, OpenMode, map, read_all};
use crate::error::{Error, Result};

/// A kind of operation on a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum OpKind {
    /// [`Fs::open`] of a file that exists.
    Open,
    /// [`Fs::open`] with [`OpenMode::CreateNew`].
    Create,
    /// [`Fs::create_dir_all`].
    CreateDir,
    /// [`Fs::read_dir`].
    ReadDir,
    /// [`Fs::exists`].
    Exists,
    /// [`Fs::rename`] and [`Fs::rename_new`].
    Rename,
    /// [`Fs::remove_file`].
    Remove,
    /// [`Fs::remove_dir`].
    RemoveDir,
    /// [`Fs::sync_dir`].
    SyncDir,
    /// [`Fs::lock`] and [`Fs::lock_dir`].
    Lock,
    /// [`File::len`].
    Len,
    /// [`File::read_exact_at`].
    Read,
    /// [`File::write_all_at`].
    Write,
    /// [`File::set_len`].
    SetLen,
    /// [`File::sync_data`].
    Sync,
    /// Mapping a file for reading.
    Map,
    /// Mapping a file for writing.
    MapMut,
}

impl OpKind {
    /// All kinds.
    pub const ALL: [Self; 17] = [
        Self::Open,
        Self::Create,
        Self::CreateDir,
        Self::ReadDir,
        Self::Exists,
        Self::Rename,
        Self::Remove,
        Self::RemoveDir,
        Self::SyncDir,
        Self::Lock,
        Self::Len,
        Self::Read,
        Self::Write,
        Self::SetLen,
        Self::Sync,
        Self::Map,
        Self::MapMut,
    ];

    /// The kinds that take space on a disk, and fail when there is none.
    pub const TAKING_SPACE: [Self; 4] = [Self::Create, Self::CreateDir, Self::Write, Self::SetLen];

    /// True if the operation changes what is on the disk, or makes it durable.
    pub fn is_change(self) -> bool {
        !matches!(
            self,
            Self::Open
                | Self::ReadDir
                | Self::Exists
                | Self::Lock
                | Self::Len
                | Self::Read
                | Self::Map
                | Self::MapMut
        )
    }

    fn bit(self) -> u32 {
        1 << self as u32
    }
}

/// In which way an operation fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// Nothing happened; the device reports an error (`EIO`). A sync that fails in this way may be
    /// repeated with success, which Linux does not promise.
    Io,
    /// Nothing happened; there is no space left (`ENOSPC`).
    Full,
    /// Half of the bytes of a write arrived, then there was no space left. Other operations: as
    /// [`Fault::Full`].
    Short,
    /// Everything happened, and yet the device reports an error.
    Arrived,
    /// A sync failed, and the bytes are gone at once. Other operations: as [`Fault::Io`].
    SyncDropped,
    /// A sync failed; the bytes can be read until [`FaultFs::evict`] and will never be durable.
    /// Other operations: as [`Fault::Io`].
    SyncLost,
}

impl Fault {
    fn error(self) -> io::Error {
        match self {
            Self::Full | Self::Short => io::ErrorKind::StorageFull.into(),
            #[cfg(unix)]
            _ => io::Error::from_raw_os_error(rustix::io::Errno::IO.raw_os_error()),
            #[cfg(not(unix))]
            _ => io::Error::other("the device reports an error"),
        }
    }
}

/// Which operations fail, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FaultPlan {
    kinds: u32,
    nth: u64,
    lasting: u32,
    fault: Fault,
    within: Option<PathBuf>,
}

impl FaultPlan {
    /// The operation of one of these `kinds` before which there were `nth` others fails, once.
    /// Counting starts when the plan is given to the file system.
    pub fn once(kinds: &[OpKind], nth: u64, fault: Fault) -> Self {
        Self {
            kinds: mask(kinds),
            nth,
            lasting: 0,
            fault,
            within: None,
        }
    }

    /// Only operations on `dir` and what is in it are counted, and fail.
    #[must_use]
    pub fn within(mut self, dir: &Path) -> Self {
        self.within = Some(dir.to_path_buf());
        self
    }

    /// From then on all operations of these kinds fail as well.
    #[must_use]
    pub fn and_then_all(mut self, kinds: &[OpKind]) -> Self {
        self.lasting = mask(kinds);
        self
    }
}

fn mask(kinds: &[OpKind]) -> u32 {
    kinds.iter().fold(0, |mask, kind| mask | kind.bit())
}

/// A file system that fails as planned. Clones share everything.
///
/// ```
/// use std::path::Path;
/// use std::sync::Arc;
/// use hedgerow::fs::{Fault, FaultFs, FaultPlan, SimFs, OpKind};
/// use hedgerow::{Db, EngineKind, Kv, KvRead, Options};
///
/// # fn main() -> hedgerow::Result<()> {
/// let disk = FaultFs::new(Arc::new(SimFs::new()));
/// let db = Options::new().fs(Arc::new(disk.clone())).open("/store")?;
/// let pets = db.keyspace("pets", EngineKind::Lsm)?;
/// pets.put(b"cat", b"Mia")?;
///
/// disk.plan(FaultPlan::once(&[OpKind::Write], 0, Fault::Full));
/// assert!(pets.put(b"dog", b"Rex").is_err());
/// assert_eq!(pets.get(b"dog")?, None, "nothing is partly there");
/// pets.put(b"dog", b"Rex")?;
///
/// let plan = FaultPlan::once(&[OpKind::Create], 0, Fault::Full);
/// disk.plan(plan.within(Path::new("/store/ks-00000001")));
/// assert!(pets.flush().is_err(), "no file of the keyspace can be made");
/// # Ok(())
/// # }
/// ```
///
/// A sync whose bytes are lost although they can still be read, on a disk that is full from then
/// on:
///
/// ```
/// use std::sync::Arc;
/// use hedgerow::fs::{Fault, FaultFs, FaultPlan, Fs, OpKind, OpenMode, SimFs};
///
/// let disk = FaultFs::new(Arc::new(SimFs::new()));
/// let file = disk.open("/a".as_ref(), OpenMode::CreateNew)?;
/// file.write_all_at(b"bytes", 0)?;
/// let plan = FaultPlan::once(&[OpKind::Sync], 0, Fault::SyncLost);
/// disk.plan(plan.and_then_all(&OpKind::TAKING_SPACE));
/// assert!(file.sync_data().is_err() && file.set_len(9).is_err());
/// assert_eq!((disk.fired(), disk.count(OpKind::SetLen)), (2, 1));
/// assert!(OpKind::Sync.is_change() && !OpKind::Read.is_change());
///
/// disk.heal();
/// assert_eq!(file.len()?, 5);
/// disk.evict()?;
/// assert_eq!(file.len()?, 0);
/// # Ok::<(), hedgerow::Error>(())
/// ```
#[derive(Clone)]
pub struct FaultFs {
    shared: Arc<Shared>,
}

struct Shared {
    inner: Arc<dyn Fs>,
    counts: [AtomicU64; OpKind::ALL.len()],
    plan: Mutex<Armed>,
    /// The files that were opened and still have a name.
    files: Mutex<HashMap<PathBuf, Arc<Mutex<Tracked>>>>,
}

#[derive(Default)]
struct Armed {
    plan: Option<FaultPlan>,
    /// Operations of the plan's kinds so far.
    seen: u64,
    fired: u64,
}

/// What is known of a file beyond its bytes.
#[derive(Default)]
struct Tracked {
    /// FF1, oldest first.
    undo: Vec<Undo>,
    /// FF2.
    shadow: Option<Shadow>,
}

struct Undo {
    offset: u64,
    bytes: Vec<u8>,
    len: u64,
}

struct Shadow {
    disk: Vec<u8>,
    pending: Vec<Change>,
    /// A handle that can write.
    file: Arc<dyn File>,
}

enum Change {
    Write { offset: u64, bytes: Vec<u8> },
    SetLen(u64),
}

impl FaultFs {
    /// Wraps `inner`. Nothing fails before there is a plan.
    pub fn new(inner: Arc<dyn Fs>) -> Self {
        Self {
            shared: Arc::new(Shared {
                inner,
                counts: Default::default(),
                plan: Mutex::default(),
                files: Mutex::default(),
            }),
        }
    }

    /// Replaces the plan and starts counting for it at zero.
    pub fn plan(&self, plan: FaultPlan) {
        *self.shared.plan.lock() = Armed {
            plan: Some(plan),
            ..Armed::default()
        };
    }

    /// Nothing fails any more. What has failed stays as it is.
    pub fn heal(&self) {
        self.shared.plan.lock().plan = None;
    }

    /// How many operations the plan, or the last one before [`heal`](Self::heal), has failed.
    pub fn fired(&self) -> u64 {
        self.shared.plan.lock().fired
    }

    /// How many operations of a kind there were, failed ones included.
    pub fn count(&self, kind: OpKind) -> u64 {
        self.shared.counts[kind as usize].load(Ordering::Relaxed)
    }

    /// The operating system drops its cache: bytes that a failed sync lost
    /// ([`Fault::SyncLost`]) cannot be read any more, what the disk has is back.
    pub fn evict(&self) -> Result<()> {
        let files: Vec<_> = self.shared.files.lock().values().cloned().collect();
        for file in files {
            file.lock().evict()?;
        }
        Ok(())
    }

    /// Counts an operation, and says whether and how it fails.
    fn fault(&self, kind: OpKind, path: &Path) -> Option<Fault> {
        self.shared.counts[kind as usize].fetch_add(1, Ordering::Relaxed);
        let mut armed = self.shared.plan.lock();
        let plan = armed.plan.clone()?;
        if plan
            .within
            .as_ref()
            .is_some_and(|dir| !path.starts_with(dir))
        {
            return None;
        }
        let fails = if armed.fired > 0 {
            plan.lasting & kind.bit() != 0
        } else if plan.kinds & kind.bit() != 0 {
            armed.seen += 1;
            armed.seen == plan.nth + 1
        } else {
            false
        };
        armed.fired += u64::from(fails);
        fails.then_some(plan.fault)
    }

    /// Does `act`, unless its turn to fail has come.
    fn run<T>(
        &self,
        kind: OpKind,
        op: &'static str,
        path: &Path,
        act: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let Some(fault) = self.fault(kind, path) else {
            return act();
        };
        if fault == Fault::Arrived && kind.is_change() {
            act()?;
        }
        Err(Error::io(op, path, fault.error()))
    }

    /// What is known of a file goes with its name.
    fn note_rename(&self, from: &Path, to: &Path) {
        let mut files = self.shared.files.lock();
        match files.remove(from) {
            Some(tracked) => files.insert(to.to_path_buf(), tracked),
            None => files.remove(to),
        };
    }

    fn wrap(&self, path: &Path, inner: Arc<dyn File>) -> Arc<dyn File> {
        let tracked = Arc::clone(
            self.shared
                .files
                .lock()
                .entry(path.to_path_buf())
                .or_default(),
        );
        Arc::new(FaultFile {
            fs: self.clone(),
            inner,
            tracked,
        })
    }
}

impl fmt::Debug for FaultFs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultFs")
            .field("inner", &self.shared.inner)
            .finish_non_exhaustive()
    }
}

impl Fs for FaultFs {
    fn absolute(&self, path: &Path) -> Result<PathBuf> {
        self.shared.inner.absolute(path)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> Result<Arc<dyn File>> {
        let (kind, op) = match mode {
            OpenMode::CreateNew => (OpKind::Create, "create"),
            OpenMode::Read | OpenMode::ReadWrite => (OpKind::Open, "open"),
        };
        let file = self.run(kind, op, path, || self.shared.inner.open(path, mode))?;
        Ok(self.wrap(path, file))
    }

    fn create_dir_all(&self, path: &Path) -> Result<()> {
        self.run(OpKind::CreateDir, "create directory", path, || {
            self.shared.inner.create_dir_all(path)
        })
    }

    fn read_dir(&self, path: &Path) -> Result<Vec<String>> {
        self.run(OpKind::ReadDir, "read directory", path, || {
            self.shared.inner.read_dir(path)
        })
    }

    fn exists(&self, path: &Path) -> Result<bool> {
        self.run(OpKind::Exists, "stat", path, || {
            self.shared.inner.exists(path)
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.run(OpKind::Rename, "rename", from, || {
            self.shared.inner.rename(from, to)?;
            self.note_rename(from, to);
            Ok(())
        })
    }

    fn rename_new(&self, from: &Path, to: &Path) -> Result<()> {
        self.run(OpKind::Rename, "rename", from, || {
            self.shared.inner.rename_new(from, to)?;
            self.note_rename(from, to);
            Ok(())
        })
    }

    fn remove_file(&self, path: &Path) -> Result<()> {
        self.run(OpKind::Remove, "remove", path, || {
            self.shared.inner.remove_file(path)?;
            self.shared.files.lock().remove(path);
            Ok(())
        })
    }

    fn remove_dir(&self, path: &Path) -> Result<()> {
        self.run(OpKind::RemoveDir, "remove directory", path, || {
            self.shared.inner.remove_dir(path)
        })
    }

    fn sync_dir(&self, path: &Path) -> Result<()> {
        self.run(OpKind::SyncDir, "sync directory", path, || {
            self.shared.inner.sync_dir(path)
        })
    }

    fn lock(&self, path: &Path, mode: LockMode) -> Result<Box<dyn FsLock>> {
        self.run(OpKind::Lock, "lock", path, || {
            self.shared.inner.lock(path, mode)
        })
    }

    fn lock_dir(&self, path: &Path) -> Result<Option<Box<dyn FsLock>>> {
        self.run(OpKind::Lock, "lock", path, || {
            self.shared.inner.lock_dir(path)
        })
    }
}

/// An open file.
struct FaultFile {
    fs: FaultFs,
    inner: Arc<dyn File>,
    tracked: Arc<Mutex<Tracked>>,
}

impl fmt::Debug for FaultFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultFile")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}

impl Tracked {
    fn write(&mut self, file: &dyn File, bytes: &[u8], offset: u64) -> Result<()> {
        let len = file.len()?;
        let old_len = len.saturating_sub(offset).min(bytes.len() as u64);
        let mut old = vec![0; old_len as usize];
        if !old.is_empty() {
            file.read_exact_at(&mut old, offset)?;
        }
        file.write_all_at(bytes, offset)?;
        self.undo.push(Undo {
            offset,
            bytes: old,
            len,
        });
        if let Some(shadow) = &mut self.shadow {
            shadow.pending.push(Change::Write {
                offset,
                bytes: bytes.to_vec(),
            });
        }
        Ok(())
    }

    fn set_len(&mut self, file: &dyn File, new_len: u64) -> Result<()> {
        let len = file.len()?;
        let mut cut = vec![0; len.saturating_sub(new_len) as usize];
        if !cut.is_empty() {
            file.read_exact_at(&mut cut, new_len)?;
        }
        file.set_len(new_len)?;
        self.undo.push(Undo {
            offset: new_len.min(len),
            bytes: cut,
            len,
        });
        if let Some(shadow) = &mut self.shadow {
            shadow.pending.push(Change::SetLen(new_len));
        }
        Ok(())
    }

    /// A sync that worked.
    fn synced(&mut self) {
        self.undo.clear();
        if let Some(shadow) = &mut self.shadow {
            for change in shadow.pending.drain(..) {
                change.apply(&mut shadow.disk);
            }
        }
    }

    /// A sync that lost what was to become durable.
    fn lost(&mut self, file: &Arc<dyn File>) -> Result<()> {
        if let Some(shadow) = &mut self.shadow {
            shadow.pending.clear();
            self.undo.clear();
            return Ok(());
        }
        let mut disk = read_all(&**file, u64::MAX)?;
        for undo in self.undo.drain(..).rev() {
            // Bytes before the length, which the file had when they were read.
            disk.resize(disk.len().max(undo.len as usize), 0);
            let at = undo.offset as usize;
            disk[at..at + undo.bytes.len()].copy_from_slice(&undo.bytes);
            disk.truncate(undo.len as usize);
        }
        self.shadow = Some(Shadow {
            disk,
            pending: Vec::new(),
            file: Arc::clone(file),
        });
        Ok(())
    }

    /// What the disk has, and what is still to reach it, is all there is.
    fn evict(&mut self) -> Result<()> {
        let Some(shadow) = self.shadow.take() else {
            return Ok(());
        };
        let file = shadow.file;
        file.set_len(shadow.disk.len() as u64)?;
        file.write_all_at(&shadow.disk, 0)?;
        file.sync_data()?;
        self.undo.clear();
        for change in shadow.pending {
            match change {
                Change::Write { offset, bytes } => self.write(&*file, &bytes, offset)?,
                Change::SetLen(len) => self.set_len(&*file, len)?,
            }
        }
        Ok(())
    }
}

impl Change {
    fn apply(self, disk: &mut Vec<u8>) {
        match self {
            Self::Write { offset, bytes } => {
                let (at, end) = (offset as usize, offset as usize + bytes.len());
                disk.resize(disk.len().max(end), 0);
                disk[at..end].copy_from_slice(&bytes);
            }
            Self::SetLen(len) => disk.resize(len as usize, 0),
        }
    }
}

impl File for FaultFile {
    fn path(&self) -> &Path {
        self.inner.path()
    }

    fn len(&self) -> Result<u64> {
        self.fs
            .run(OpKind::Len, "stat", self.path(), || self.inner.len())
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        match self.fs.fault(OpKind::Read, self.path()) {
            None => self.inner.read_exact_at(buf, offset),
            Some(fault) => Err(Error::io_at("read", self.path(), offset, fault.error())),
        }
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        let fault = self.fs.fault(OpKind::Write, self.path());
        let arrives = match fault {
            None | Some(Fault::Arrived) => buf,
            Some(Fault::Short) => &buf[..buf.len() / 2],
            Some(_) => &[],
        };
        if !arrives.is_empty() {
            self.tracked.lock().write(&*self.inner, arrives, offset)?;
        }
        match fault {
            None => Ok(()),
            Some(fault) => Err(Error::io_at("write", self.path(), offset, fault.error())),
        }
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.fs.run(OpKind::SetLen, "set length", self.path(), || {
            self.tracked.lock().set_len(&*self.inner, len)
        })
    }

    fn sync_data(&self) -> Result<()> {
        let fault = self.fs.fault(OpKind::Sync, self.path());
        let mut tracked = self.tracked.lock();
        match fault {
            None | Some(Fault::Arrived) => {
                self.inner.sync_data()?;
                tracked.synced();
            }
            Some(Fault::SyncDropped) => {
                tracked.lost(&self.inner)?;
                tracked.evict()?;
            }
            Some(Fault::SyncLost) => tracked.lost(&self.inner)?,
            Some(Fault::Io | Fault::Full | Fault::Short) => {}
        }
        match fault {
            None => Ok(()),
            Some(fault) => Err(Error::io("sync", self.path(), fault.error())),
        }
    }

    fn map_source(&self) -> Option<MapSource<'_>> {
        Some(MapSource::new(self))
    }
}

impl MapFile for FaultFile {
    fn map(&self, len: u64) -> Result<Option<Mapping>> {
        self.fs
            .run(OpKind::Map, "map", self.path(), || map(&*self.inner, len))
    }

    fn map_mut(&self, _len: u64) -> Result<Option<MappingMut>> {
        self.fs.run(OpKind::MapMut, "map", self.path(), || Ok(None))
    }
}

#[cfg(test)]
mod tests;
