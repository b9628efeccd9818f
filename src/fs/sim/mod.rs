//! A file system in memory that knows what a power loss could leave.
//!
//! Every file keeps two contents: what readers see, and what has been synced; every directory keeps
//! two maps of names likewise. Between the two lies a log of pending operations. A sync empties the
//! log of one file or one directory. From the logs every state can be made that the disk may be in
//! after a power loss *now*: [`SimFs::crash_states`] makes them, one after the other, each a file
//! system of its own that shares its pages with this one. [`SimFs::on_change`] tells the moments at
//! which to ask.
//!
//! # Fault model
//!
//! What a power loss may do, to every thing independently of every other:
//!
//! - **Sectors.** A sector of 512 bytes is written whole or not at all. Between its durable bytes
//!   and its visible ones it has had a version for each write that touched it; any of these may be
//!   what the disk holds. So a write may be lost, arrive in part (torn), or arrive before an
//!   earlier one to another sector (reordered).
//! - **Lengths.** A file may have any of the lengths that it has had since its last sync. What lies
//!   beyond the length is lost; what a longer length uncovers, and no sector write reached, is
//!   zero.
//! - **Names.** Each creation, removal and rename since the directory's last sync has taken place
//!   or not. A rename within a directory is one change, which takes place as a whole; between two
//!   directories it is a change of each, and the file may be found under both names or none.
//! - **A sync** of a file makes its bytes and length durable, not its name; a sync of a directory
//!   makes its names durable, neither the files' bytes nor the names in directories below.
//! - **A store into a map** ([`SimFs::with_maps`]) is a write that the disk may have the first half
//!   of, sectors apart: the operating system may take a page to it at any time.
//! - **A failed sync** takes its operations out of the log without making them durable, while
//!   readers go on to see them: what the Linux page cache does, and the reason why a failed sync is
//!   never retried. Names that were lost so are written with the next change of their directory,
//!   which is written as a whole; without one, further syncs of it do nothing.
//! - **A killed process** loses nothing: [`SimFs::killed`] keeps what is visible, and what is
//!   pending stays so.
//!
//! Not modelled: a sector that is torn within, bits that rot, a disk that lies about flushes.
//!
//! # Invariants
//!
//! - **FS1** visible content = durable content with all pending operations applied, except after
//!   a failed sync.
//! - **FS2** an image is taken at one moment: every operation holds the tree lock shared (files) or
//!   exclusively (names), and a thread that takes an image holds it exclusively.
//! - **FS3** an image shares pages with its origin but no state: writing to one never changes the
//!   other.
//! - **FS4** the states of a moment, and their order, follow from the history of operations and the
//!   policy.
//!
//! Thread safety: handles and the file system may be used from any thread.
//!
//! Without [`SimFs::with_maps`] there are no memory maps, so that tests drive the paths without
//! them. Lacking on purpose: permissions, symbolic links.
//!
//! ```text
//! content.rs   bytes of a file, as shared pages
//! tree.rs      directories, names, files, and their pending operations
//! frame.rs     one moment: what is durable, and what may have become so
//! maps.rs      memory maps
//! crash.rs     the states that a power loss may leave
//! ```

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};

use super::map::{MapFile, Mapping, MappingMut, Stores};
use super::{File, Fs, FsLock, LockMode, MapSource, OpenMode, name_taken};
use crate::error::{Error, LockHolder, Result};

mod content;
mod crash;
mod frame;
mod maps;
#[cfg(test)]
mod tests;
mod tree;

pub use crash::{CrashPolicy, CrashState, CrashStates};
use maps::Mirror;
use tree::{Entry, FileState, Locks, Node, Tree, names_of};

/// A file system in memory that can lose what was not synced.
///
/// Clones share the files. Paths are absolute or relative to the root, which always exists.
///
/// ```
/// use hedgerow::fs::{Fs, SimFs, OpenMode};
/// # fn main() -> hedgerow::Result<()> {
/// let fs = SimFs::new();
/// let file = fs.open("/a".as_ref(), OpenMode::CreateNew)?;
/// file.write_all_at(b"kept", 0)?;
/// file.sync_data()?;
/// fs.sync_dir("/".as_ref())?;
/// file.write_all_at(b"lost", 0)?;
///
/// let after = fs.crash();
/// let mut bytes = [0; 4];
/// after.open("/a".as_ref(), OpenMode::Read)?.read_exact_at(&mut bytes, 0)?;
/// assert_eq!(&bytes, b"kept");
/// # Ok(())
/// # }
/// ```
///
/// Moments to crash at, other ways to crash, and operations that fail:
///
/// ```
/// use std::io::ErrorKind;
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicU64, Ordering};
/// use hedgerow::fs::{Fs, SimFs, OpenMode};
/// # fn main() -> hedgerow::Result<()> {
/// let fs = SimFs::new();
/// let writes = Arc::new(AtomicU64::new(0));
/// let counter = Arc::clone(&writes);
/// fs.on_change(move |_before, change| {
///     counter.fetch_add(u64::from(change.op == "write"), Ordering::Relaxed);
/// });
/// let file = fs.open("/a".as_ref(), OpenMode::CreateNew)?;
/// file.write_all_at(b"bytes", 0)?;
/// fs.clear_hook();
/// assert_eq!(writes.load(Ordering::Relaxed), 1);
///
/// assert!(fs.killed().exists("/a".as_ref())?, "the process ended, the disk went on");
/// let some = fs.crash_keeping(7); // a random part of what was not synced
/// println!("it is there: {}", some.exists("/a".as_ref())?);
///
/// fs.fail_once_after(0, ErrorKind::Other);
/// assert!(file.sync_data().is_err() && file.set_len(9).is_ok());
/// fs.fail_after(1, ErrorKind::StorageFull);
/// assert!(file.set_len(1).is_ok() && file.set_len(2).is_err() && file.set_len(3).is_err());
/// fs.heal();
/// assert!(file.set_len(2).is_ok());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct SimFs {
    shared: Arc<Shared>,
}

struct Shared {
    tree: RwLock<Tree>,
    faults: Mutex<Faults>,
    operations: AtomicU64,
    has_hook: AtomicBool,
    hook: Mutex<Option<Arc<Hook>>>,
}

/// Called with a change before it happens.
type Hook = dyn Fn(&SimFs, &Operation<'_>) + Send + Sync;

/// A change that is about to happen.
#[derive(Debug, Clone, Copy)]
pub struct Operation<'a> {
    /// How many changes came before it.
    pub number: u64,
    /// What it is: `"write"`, `"sync"`, `"rename"`; as in error messages.
    pub op: &'static str,
    /// The file or directory, for a rename under its old name.
    pub path: &'a Path,
}

/// Which changing operation fails.
#[derive(Default)]
struct Faults {
    plan: Option<Plan>,
}

struct Plan {
    remaining: u64,
    kind: io::ErrorKind,
    once: bool,
}

impl Faults {
    fn check(&mut self) -> io::Result<()> {
        let Some(plan) = &mut self.plan else {
            return Ok(());
        };
        if plan.remaining > 0 {
            plan.remaining -= 1;
            return Ok(());
        }
        let kind = plan.kind;
        if plan.once {
            self.plan = None;
        }
        Err(kind.into())
    }
}

impl SimFs {
    /// An empty file system, in which nothing can be mapped.
    pub fn new() -> Self {
        Self::with_tree(Tree::empty(false))
    }

    /// An empty file system whose files can be mapped, for reading and for writing, on Linux; its
    /// images as well. A hook is called before each store into a map, as it is before a write, but
    /// none fails.
    ///
    /// ```
    /// use hedgerow::fs::{Fs, OpenMode, SimFs};
    ///
    /// let fs = SimFs::with_maps();
    /// let file = fs.open("/a".as_ref(), OpenMode::CreateNew)?;
    /// assert_eq!(file.map_source().is_some(), cfg!(target_os = "linux"));
    /// # Ok::<(), hedgerow::Error>(())
    /// ```
    pub fn with_maps() -> Self {
        Self::with_tree(Tree::empty(cfg!(target_os = "linux")))
    }

    fn with_tree(tree: Tree) -> Self {
        Self {
            shared: Arc::new(Shared {
                tree: RwLock::new(tree),
                faults: Mutex::new(Faults::default()),
                operations: AtomicU64::new(0),
                has_hook: AtomicBool::new(false),
                hook: Mutex::new(None),
            }),
        }
    }

    /// The file system as a killed process leaves it: what it wrote is there for the next one to
    /// read, and what was not synced can still be lost. Locks are gone. This one goes on unchanged.
    pub fn killed(&self) -> Self {
        Self::with_tree(self.shared.tree.write().fork())
    }

    /// Calls `hook` before every changing operation (writes, length changes, syncs, creations,
    /// renames, removals) from now on, in the thread that makes the change. The moment before a
    /// change is the moment after the one before it, so this is where to take crash states.
    /// Replaces an earlier hook. Images have none.
    pub fn on_change(&self, hook: impl Fn(&Self, &Operation<'_>) + Send + Sync + 'static) {
        *self.shared.hook.lock() = Some(Arc::new(hook));
        self.shared.has_hook.store(true, Ordering::Release);
    }

    /// Calls no hook any more.
    pub fn clear_hook(&self) {
        self.shared.has_hook.store(false, Ordering::Release);
        *self.shared.hook.lock() = None;
    }

    /// Lets `n_ops` more changing operations (writes, length changes, syncs, creations,
    /// renames, removals) succeed and every later one fail with `kind`, until
    /// [`heal`](Self::heal). A failing sync loses what it was to make durable, for good.
    ///
    /// [`FaultFs`](super::FaultFs) fails in more ways, but stands outside: only here does an image,
    /// of a killed process or a power loss, know which bytes a failed sync lost although they can
    /// still be read.
    pub fn fail_after(&self, n_ops: u64, kind: io::ErrorKind) {
        self.shared.faults.lock().plan = Some(Plan {
            remaining: n_ops,
            kind,
            once: false,
        });
    }

    /// As [`fail_after`](Self::fail_after), but only one operation fails.
    pub fn fail_once_after(&self, n_ops: u64, kind: io::ErrorKind) {
        self.shared.faults.lock().plan = Some(Plan {
            remaining: n_ops,
            kind,
            once: true,
        });
    }

    /// No operation fails any more.
    pub fn heal(&self) {
        self.shared.faults.lock().plan = None;
    }

    /// Announces a changing operation, and fails it if its turn has come. Called without locks.
    fn announce(&self, op: &'static str, path: &Path) -> io::Result<()> {
        self.call_hook(op, path);
        self.shared.faults.lock().check()
    }

    fn call_hook(&self, op: &'static str, path: &Path) {
        let number = self.shared.operations.fetch_add(1, Ordering::Relaxed);
        if self.shared.has_hook.load(Ordering::Acquire) {
            let hook = self.shared.hook.lock().clone();
            if let Some(hook) = hook {
                hook(self, &Operation { number, op, path });
            }
        }
    }

    /// As [`announce`](Self::announce), with the error of the whole operation.
    fn change(&self, op: &'static str, path: &Path) -> Result<()> {
        self.announce(op, path).map_err(|e| Error::io(op, path, e))
    }
}

impl Default for SimFs {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for SimFs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimFs").finish_non_exhaustive()
    }
}

impl Fs for SimFs {
    fn open(&self, path: &Path, mode: OpenMode) -> Result<Arc<dyn File>> {
        let node = if mode == OpenMode::CreateNew {
            let failed = |e| Error::io("create", path, e);
            self.change("create", path)?;
            let mut tree = self.shared.tree.write();
            let (dir, name) = tree.parent(path).map_err(failed)?;
            if tree.dirs[&dir].visible.contains_key(name) {
                return Err(failed(io::ErrorKind::AlreadyExists.into()));
            }
            tree.create_file(dir, name)
        } else {
            let failed = |e| Error::io("open", path, e);
            match self.shared.tree.read().entry(path).map_err(failed)? {
                Entry::File(node) => node,
                Entry::Dir(_) => return Err(failed(io::ErrorKind::IsADirectory.into())),
            }
        };
        Ok(Arc::new(SimFile {
            fs: self.clone(),
            node,
            path: path.to_path_buf(),
            writable: mode != OpenMode::Read,
        }))
    }

    fn create_dir_all(&self, path: &Path) -> Result<()> {
        self.change("create directory", path)?;
        let mut tree = self.shared.tree.write();
        tree.create_dirs(path)
            .map_err(|e| Error::io("create directory", path, e))
    }

    fn read_dir(&self, path: &Path) -> Result<Vec<String>> {
        let tree = self.shared.tree.read();
        let dir = tree
            .dir(path)
            .map_err(|e| Error::io("read directory", path, e))?;
        Ok(dir.visible.keys().map(|name| name.to_string()).collect())
    }

    fn exists(&self, path: &Path) -> Result<bool> {
        let tree = self.shared.tree.read();
        let found = match names_of(path) {
            Ok(names) if names.is_empty() => return Ok(true),
            Ok(_) => tree.entry(path),
            Err(e) => Err(e),
        };
        match found {
            Ok(_) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(Error::io("stat", path, e)),
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.change("rename", from)?;
        let mut tree = self.shared.tree.write();
        tree.rename(from, to)
            .map_err(|e| Error::io("rename", from, e))
    }

    fn rename_new(&self, from: &Path, to: &Path) -> Result<()> {
        self.change("rename", from)?;
        let mut tree = self.shared.tree.write();
        if tree.entry(from).is_ok() && tree.entry(to).is_ok() {
            return Err(name_taken(to));
        }
        tree.rename(from, to)
            .map_err(|e| Error::io("rename", from, e))
    }

    fn remove_file(&self, path: &Path) -> Result<()> {
        self.change("remove", path)?;
        let mut tree = self.shared.tree.write();
        tree.remove(path, false)
            .map_err(|e| Error::io("remove", path, e))
    }

    fn remove_dir(&self, path: &Path) -> Result<()> {
        self.change("remove directory", path)?;
        let mut tree = self.shared.tree.write();
        tree.remove(path, true)
            .map_err(|e| Error::io("remove directory", path, e))
    }

    fn sync_dir(&self, path: &Path) -> Result<()> {
        let failed = |e| Error::io("sync directory", path, e);
        let outcome = self.change("sync directory", path);
        let mut tree = self.shared.tree.write();
        match outcome {
            Ok(()) => tree.sync_dir(path).map_err(failed),
            Err(error) => {
                tree.fail_sync_dir(path).map_err(failed)?;
                Err(error)
            }
        }
    }

    fn lock(&self, path: &Path, mode: LockMode) -> Result<Box<dyn FsLock>> {
        let failed = |e| Error::io("lock", path, e);
        if mode == LockMode::Exclusive && !self.exists(path)? {
            self.change("lock", path)?;
        }
        let mut tree = self.shared.tree.write();
        let (dir, name) = tree.parent(path).map_err(failed)?;
        let found = tree.dirs[&dir].visible.get(name).cloned();
        let node = match found {
            Some(Entry::File(node)) => node,
            Some(Entry::Dir(_)) => return Err(failed(io::ErrorKind::IsADirectory.into())),
            None if mode == LockMode::Shared => {
                return Err(failed(io::ErrorKind::NotFound.into()));
            }
            None => tree.create_file(dir, name),
        };
        let locked = |_| Error::locked(path, LockHolder::ThisProcess);
        let file = SimLock::take(&node.locks, mode).map_err(locked)?;
        let dir = match mode {
            LockMode::Exclusive => {
                Some(SimLock::take(&tree.dirs[&dir].locks, mode).map_err(locked)?)
            }
            LockMode::Shared => None,
        };
        Ok(Box::new((file, dir)))
    }

    fn lock_dir(&self, path: &Path) -> Result<Option<Box<dyn FsLock>>> {
        let tree = self.shared.tree.read();
        let dir = tree.dir(path).map_err(|e| Error::io("lock", path, e))?;
        let lock = SimLock::take(&dir.locks, LockMode::Shared)
            .map_err(|_| Error::locked(path, LockHolder::ThisProcess))?;
        Ok(Some(Box::new((lock, None))))
    }
}

/// A lock on a file or a directory: how many hold it, and how.
struct SimLock {
    locks: Arc<Locks>,
    mode: LockMode,
}

/// It is held by others.
struct IsHeld;

impl SimLock {
    fn take(locks: &Arc<Locks>, mode: LockMode) -> Result<Self, IsHeld> {
        let take = |held: i32| match mode {
            LockMode::Exclusive => (held == 0).then_some(-1),
            LockMode::Shared => (held >= 0).then_some(held + 1),
        };
        locks
            .fetch_update(Ordering::Acquire, Ordering::Relaxed, take)
            .map_err(|_| IsHeld)?;
        let locks = Arc::clone(locks);
        Ok(Self { locks, mode })
    }
}

/// The lock on a file, and on its directory if it is exclusive; or on a directory alone.
impl FsLock for (SimLock, Option<SimLock>) {}

impl Drop for SimLock {
    fn drop(&mut self) {
        let released = match self.mode {
            LockMode::Exclusive => 1,
            LockMode::Shared => -1,
        };
        self.locks.fetch_add(released, Ordering::Release);
    }
}

impl fmt::Debug for SimLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimLock").finish_non_exhaustive()
    }
}

/// An open file. It holds the node, so it outlives the name.
#[derive(Clone)]
struct SimFile {
    fs: SimFs,
    node: Arc<Node>,
    path: PathBuf,
    writable: bool,
}

impl SimFile {
    /// Applies a change to the visible content and logs it, after the checks that every
    /// change passes.
    fn change(
        &self,
        op: &'static str,
        end: Option<u64>,
        offset: u64,
        apply: impl FnOnce(&mut FileState, u64),
    ) -> Result<()> {
        let failed = |e| Error::io_at(op, &self.path, offset, e);
        if !self.writable {
            return Err(failed(io::ErrorKind::PermissionDenied.into()));
        }
        if end.is_none_or(|end| end > i64::MAX as u64) {
            return Err(failed(io::ErrorKind::InvalidInput.into()));
        }
        self.fs.announce(op, &self.path).map_err(failed)?;
        // Shared: a crash waits until the change is whole (FS2).
        let tree = self.fs.shared.tree.read();
        apply(&mut self.node.state.lock(), tree.next_moment());
        Ok(())
    }
}

impl fmt::Debug for SimFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimFile")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl File for SimFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn len(&self) -> Result<u64> {
        Ok(self.node.state.lock().visible.len)
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let state = self.node.state.lock();
        let end = offset.checked_add(buf.len() as u64);
        if !buf.is_empty() && end.is_none_or(|end| end > state.visible.len) {
            return Err(Error::io_at(
                "read",
                &self.path,
                offset,
                io::ErrorKind::UnexpectedEof.into(),
            ));
        }
        state.visible.read(buf, offset);
        Ok(())
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        let end = offset.checked_add(buf.len() as u64);
        self.change("write", end, offset, |state, moment| {
            if !buf.is_empty() {
                state.write(moment, buf, offset);
                state.allocated = state.allocated.max(offset + buf.len() as u64);
            }
        })
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.change("set length", Some(len), len, |state, moment| {
            state.set_len(moment, len);
        })
    }

    fn sync_data(&self) -> Result<()> {
        let outcome = self.fs.change("sync", &self.path);
        let _moment = self.fs.shared.tree.read();
        let mut state = self.node.state.lock();
        match outcome {
            Ok(()) => state.sync(),
            // The bytes stay visible and are never written again (FS1).
            Err(_) => state.pending.clear(),
        }
        outcome
    }

    fn map_source(&self) -> Option<MapSource<'_>> {
        let has_maps = self.fs.shared.tree.read().has_maps;
        has_maps.then(|| MapSource::new(self))
    }
}

impl MapFile for SimFile {
    fn map(&self, len: u64) -> Result<Option<Mapping>> {
        let failed = |e| Error::io("map", &self.path, e);
        let mut state = self.node.state.lock();
        if len > state.visible.len {
            return Err(Error::corruption(
                &self.path,
                state.visible.len,
                format!(
                    "the file has {} bytes where {len} are needed",
                    state.visible.len
                ),
            ));
        }
        if len == 0 {
            return Ok(None);
        }
        if state.mirror.is_none() {
            state.mirror = Mirror::new(&state.visible).map_err(failed)?.map(Arc::new);
        }
        let mirror = state.mirror.as_ref();
        mirror
            .map(|mirror| mirror.map(len as usize))
            .transpose()
            .map_err(failed)
    }

    fn map_mut(&self, len: u64) -> Result<Option<MappingMut>> {
        if len == 0 || len > self.len()? {
            return Ok(None);
        }
        let file = self.clone();
        Ok(Some(MappingMut::simulated(Box::new(SimMap { file, len }))))
    }
}

/// The first bytes of a file, mapped for writing.
struct SimMap {
    file: SimFile,
    len: u64,
}

impl Stores for SimMap {
    fn len(&self) -> usize {
        self.len as usize
    }

    fn store(&self, bytes: &[u8], offset: usize) {
        let SimFile { fs, node, path, .. } = &self.file;
        fs.call_hook("store", path);
        let tree = fs.shared.tree.read();
        let mut state = node.state.lock();
        assert!(
            (offset + bytes.len()) as u64 <= state.allocated,
            "a store into a hole of {}: on a full disk it ends the process",
            path.display()
        );
        // The processor copies a few words at a time, and the disk may take what is there.
        let middle = bytes.len() / 16 * 8;
        for (part, at) in [
            (&bytes[..middle], offset),
            (&bytes[middle..], offset + middle),
        ] {
            if !part.is_empty() {
                state.write(tree.next_moment(), part, at as u64);
            }
        }
    }
}
