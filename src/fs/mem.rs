//! A file system in memory that knows what a power loss would leave.
//!
//! Every file keeps two contents: what readers see, and what has been synced; every directory
//! keeps two maps of names likewise. Between the two lies a log of pending operations (writes,
//! length changes, names added and taken away). A sync empties the log of one file or one
//! directory; [`MemFs::crash`] throws all logs away; [`MemFs::crash_keeping`] applies a random part.
//!
//! # Invariants
//!
//! - **M1** visible content = durable content with all pending operations applied, except after
//!   a failed sync, which takes its operations out of the log without making them durable: what the
//!   Linux page cache does, and the reason why a failed sync is never retried.
//! - **M2** a crash image is taken at one moment: every operation holds the tree lock shared (files) or
//!   exclusively (names), and a crash holds it exclusively.
//! - **M3** an image shares pages with its origin but no state: writing to one never changes the other.
//!
//! Thread safety: handles and the file system may be used from any thread.
//!
//! Lacking on purpose: memory maps (so that tests drive the paths without them), permissions,
//! symbolic links, and sub-sector tearing: a 512-byte sector is written whole or not at all.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use parking_lot::{Mutex, RwLock};

use super::{File, Fs, FsLock, LockMode, Mapping, MappingMut, OpenMode};
use crate::checksum::mix64;
use crate::error::{Error, Result};

/// What a disk writes whole or not at all.
const SECTOR_LEN_BYTES: u64 = 512;
/// Unit of sharing between contents. A multiple of the sector.
const PAGE_LEN_BYTES: usize = 4096;
const ROOT: DirId = 0;

type Page = [u8; PAGE_LEN_BYTES];
type DirId = u64;

/// A file system in memory that can lose what was not synced.
///
/// Clones share the files. Paths are absolute or relative to the root, which always exists.
///
/// ```
/// use hedgerow::fs::{Fs, MemFs, OpenMode};
/// # fn main() -> hedgerow::Result<()> {
/// let fs = MemFs::new();
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
#[derive(Clone)]
pub struct MemFs {
    shared: Arc<Shared>,
}

struct Shared {
    tree: RwLock<Tree>,
    faults: Mutex<Faults>,
}

/// All directories. Files are reached through names and handles only, so a file that has neither
/// frees its memory.
struct Tree {
    dirs: HashMap<DirId, Dir>,
    next_dir: DirId,
}

#[derive(Default)]
struct Dir {
    durable: BTreeMap<String, Entry>,
    visible: BTreeMap<String, Entry>,
    pending: Vec<NameChange>,
}

#[derive(Clone)]
enum Entry {
    File(Arc<Node>),
    Dir(DirId),
}

/// A change of one directory's names. A rename within a directory is one change and thus atomic;
/// between directories it is an addition here and a removal there, and a crash may keep either.
#[derive(Clone)]
struct NameChange {
    remove: Option<String>,
    add: Option<(String, Entry)>,
}

impl NameChange {
    fn apply(self, names: &mut BTreeMap<String, Entry>) {
        if let Some(name) = self.remove {
            names.remove(&name);
        }
        if let Some((name, entry)) = self.add {
            names.insert(name, entry);
        }
    }
}

/// A file, with or without a name.
struct Node {
    state: Mutex<FileState>,
    /// Holders of shared locks; -1 for an exclusive one.
    locks: AtomicI32,
}

#[derive(Default)]
struct FileState {
    durable: Content,
    visible: Content,
    pending: Vec<DataChange>,
}

#[derive(Clone)]
enum DataChange {
    Write { offset: u64, bytes: Box<[u8]> },
    SetLen(u64),
}

/// The bytes of a file: pages that are shared until written, absent where all zero.
#[derive(Clone, Default)]
struct Content {
    pages: BTreeMap<u64, Arc<Page>>,
    len: u64,
}

impl Content {
    fn read(&self, mut buf: &mut [u8], mut offset: u64) {
        while !buf.is_empty() {
            let within = (offset % PAGE_LEN_BYTES as u64) as usize;
            let len = buf.len().min(PAGE_LEN_BYTES - within);
            let (now, rest) = buf.split_at_mut(len);
            match self.pages.get(&(offset / PAGE_LEN_BYTES as u64)) {
                Some(page) => now.copy_from_slice(&page[within..within + len]),
                None => now.fill(0),
            }
            buf = rest;
            offset += len as u64;
        }
    }

    fn write(&mut self, mut bytes: &[u8], mut offset: u64) {
        self.len = self.len.max(offset + bytes.len() as u64);
        while !bytes.is_empty() {
            let within = (offset % PAGE_LEN_BYTES as u64) as usize;
            let len = bytes.len().min(PAGE_LEN_BYTES - within);
            let page = self
                .pages
                .entry(offset / PAGE_LEN_BYTES as u64)
                .or_insert_with(|| Arc::new([0; PAGE_LEN_BYTES]));
            Arc::make_mut(page)[within..within + len].copy_from_slice(&bytes[..len]);
            bytes = &bytes[len..];
            offset += len as u64;
        }
    }

    fn set_len(&mut self, len: u64) {
        if len < self.len {
            let within = (len % PAGE_LEN_BYTES as u64) as usize;
            drop(self.pages.split_off(&len.div_ceil(PAGE_LEN_BYTES as u64)));
            // Growing again must show zeros, not what was cut.
            if within > 0
                && let Some(page) = self.pages.get_mut(&(len / PAGE_LEN_BYTES as u64))
            {
                Arc::make_mut(page)[within..].fill(0);
            }
        }
        self.len = len;
    }
}

impl FileState {
    /// Makes all pending changes durable. Costs what was written, not what the file holds, unless
    /// its length was set.
    fn sync(&mut self) {
        let pending = std::mem::take(&mut self.pending);
        if pending
            .iter()
            .any(|change| matches!(change, DataChange::SetLen(_)))
        {
            self.durable = self.visible.clone();
            return;
        }
        for change in pending {
            if let DataChange::Write { offset, bytes } = change {
                self.durable.write(&bytes, offset);
            }
        }
    }

    /// The content after a power loss that keeps each pending change, sector by sector, with
    /// the given chance in 256.
    fn survivor(&self, random: &mut Random, chance: u64) -> Content {
        let mut content = self.durable.clone();
        for change in &self.pending {
            match change {
                DataChange::SetLen(len) => {
                    if random.keeps(chance) {
                        content.set_len(*len);
                    }
                }
                DataChange::Write { offset, bytes } => {
                    let end = offset + bytes.len() as u64;
                    // The length is metadata: it may be lost though the data
                    // came through, and the data then cannot be reached.
                    if end > content.len && random.keeps(chance) {
                        content.set_len(end);
                    }
                    let end = end.min(content.len);
                    let mut at = *offset;
                    while at < end {
                        let next = ((at / SECTOR_LEN_BYTES + 1) * SECTOR_LEN_BYTES).min(end);
                        if random.keeps(chance) {
                            let from = (at - offset) as usize;
                            let to = (next - offset) as usize;
                            content.write(&bytes[from..to], at);
                        }
                        at = next;
                    }
                }
            }
        }
        content
    }
}

/// splitmix64: an image is a function of the seed and the history.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix64(self.0)
    }

    fn keeps(&mut self, chance: u64) -> bool {
        self.next() % 256 < chance
    }

    /// How much of one file or directory survives. The extremes are common, because they are what
    /// disks do: everything arrived, nothing did, all but one sector.
    fn chance(&mut self) -> u64 {
        [0, 16, 128, 240, 256][(self.next() % 5) as usize]
    }
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

impl MemFs {
    /// An empty file system.
    pub fn new() -> Self {
        Self::with_tree(Tree {
            dirs: HashMap::from([(ROOT, Dir::default())]),
            next_dir: ROOT + 1,
        })
    }

    fn with_tree(tree: Tree) -> Self {
        Self {
            shared: Arc::new(Shared {
                tree: RwLock::new(tree),
                faults: Mutex::new(Faults::default()),
            }),
        }
    }

    /// The file system as after a power loss in which nothing survived that was not synced:
    /// unsynced writes are lost, unsynced names undone. Locks are gone. This one goes on unchanged.
    pub fn crash(&self) -> Self {
        self.image(None)
    }

    /// The file system as after a power loss that kept a random part of what was not synced:
    /// 512-byte sectors, lengths and names each survive or not. The same seed after the same history
    /// gives the same image.
    pub fn crash_keeping(&self, seed: u64) -> Self {
        self.image(Some(Random(seed)))
    }

    /// Lets `n_ops` more changing operations (writes, length changes, syncs, creations,
    /// renames, removals) succeed and every later one fail with `kind`, until
    /// [`heal`](Self::heal). A failing sync loses what it was to make durable, for good.
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

    fn image(&self, mut random: Option<Random>) -> Self {
        // Exclusive: nothing happens while the picture is taken (M2).
        let tree = self.shared.tree.write();
        let mut image = Tree {
            dirs: HashMap::new(),
            next_dir: tree.next_dir,
        };
        // One file may survive under two names, when half of a move between directories did.
        let mut nodes: HashMap<*const Node, Arc<Node>> = HashMap::new();
        let mut todo = vec![ROOT];
        while let Some(id) = todo.pop() {
            if image.dirs.contains_key(&id) {
                continue;
            }
            let dir = &tree.dirs[&id];
            let mut names = dir.durable.clone();
            if let Some(random) = &mut random {
                let chance = random.chance();
                for change in &dir.pending {
                    if random.keeps(chance) {
                        change.clone().apply(&mut names);
                    }
                }
            }
            for entry in names.values_mut() {
                match entry {
                    Entry::Dir(child) => todo.push(*child),
                    Entry::File(node) => {
                        let copy = nodes.entry(Arc::as_ptr(node)).or_insert_with(|| {
                            let state = node.state.lock();
                            let content = match &mut random {
                                None => state.durable.clone(),
                                Some(random) => {
                                    let chance = random.chance();
                                    state.survivor(random, chance)
                                }
                            };
                            Arc::new(Node {
                                state: Mutex::new(FileState {
                                    durable: content.clone(),
                                    visible: content,
                                    pending: Vec::new(),
                                }),
                                locks: AtomicI32::new(0),
                            })
                        });
                        *node = Arc::clone(copy);
                    }
                }
            }
            image.dirs.insert(
                id,
                Dir {
                    durable: names.clone(),
                    visible: names,
                    pending: Vec::new(),
                },
            );
        }
        Self::with_tree(image)
    }

    /// Counts a changing operation, and fails it if its turn has come.
    fn change(&self, op: &'static str, path: &Path) -> Result<()> {
        self.shared
            .faults
            .lock()
            .check()
            .map_err(|e| Error::io(op, path, e))
    }
}

impl Default for MemFs {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemFs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemFs").finish_non_exhaustive()
    }
}

/// The names on the way from the root, with `.` and `..` resolved.
fn names_of(path: &Path) -> io::Result<Vec<&str>> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => {
                names.push(name.to_str().ok_or(io::ErrorKind::InvalidInput)?);
            }
            Component::ParentDir => {
                names.pop();
            }
            Component::Prefix(_) | Component::RootDir | Component::CurDir => {}
        }
    }
    Ok(names)
}

impl Tree {
    fn walk(&self, names: &[&str]) -> io::Result<DirId> {
        let mut at = ROOT;
        for name in names {
            at = match self.dirs[&at].visible.get(*name) {
                Some(Entry::Dir(id)) => *id,
                Some(Entry::File(_)) => return Err(io::ErrorKind::NotADirectory.into()),
                None => return Err(io::ErrorKind::NotFound.into()),
            };
        }
        Ok(at)
    }

    fn dir(&self, path: &Path) -> io::Result<&Dir> {
        let id = self.walk(&names_of(path)?)?;
        Ok(&self.dirs[&id])
    }

    /// The directory that holds the last name of `path`, and that name.
    fn parent<'p>(&self, path: &'p Path) -> io::Result<(DirId, &'p str)> {
        let names = names_of(path)?;
        let (name, above) = names.split_last().ok_or(io::ErrorKind::InvalidInput)?;
        Ok((self.walk(above)?, name))
    }

    fn entry(&self, path: &Path) -> io::Result<Entry> {
        let (dir, name) = self.parent(path)?;
        let entry = self.dirs[&dir].visible.get(name).cloned();
        entry.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn change(&mut self, dir: DirId, change: NameChange) {
        let dir = self.dirs.get_mut(&dir).expect("a directory that was found");
        change.clone().apply(&mut dir.visible);
        dir.pending.push(change);
    }

    fn create_file(&mut self, dir: DirId, name: &str) -> Arc<Node> {
        let node = Arc::new(Node {
            state: Mutex::new(FileState::default()),
            locks: AtomicI32::new(0),
        });
        self.change(
            dir,
            NameChange {
                remove: None,
                add: Some((name.to_owned(), Entry::File(Arc::clone(&node)))),
            },
        );
        node
    }

    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let (from_dir, from_name) = self.parent(from)?;
        let (to_dir, to_name) = self.parent(to)?;
        let entry = self.entry(from)?;
        if let Some(Entry::Dir(_)) = self.dirs[&to_dir].visible.get(to_name) {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        if from_dir == to_dir && from_name == to_name {
            return Ok(());
        }
        let remove = Some(from_name.to_owned());
        let add = Some((to_name.to_owned(), entry));
        if from_dir == to_dir {
            self.change(from_dir, NameChange { remove, add });
        } else {
            self.change(to_dir, NameChange { remove: None, add });
            self.change(from_dir, NameChange { remove, add: None });
        }
        Ok(())
    }

    fn remove(&mut self, path: &Path, want_dir: bool) -> io::Result<()> {
        let (dir, name) = self.parent(path)?;
        match self.entry(path)? {
            Entry::File(_) if want_dir => return Err(io::ErrorKind::NotADirectory.into()),
            Entry::Dir(_) if !want_dir => return Err(io::ErrorKind::IsADirectory.into()),
            Entry::Dir(id) if !self.dirs[&id].visible.is_empty() => {
                return Err(io::ErrorKind::DirectoryNotEmpty.into());
            }
            _ => {}
        }
        self.change(
            dir,
            NameChange {
                remove: Some(name.to_owned()),
                add: None,
            },
        );
        Ok(())
    }

    fn create_dirs(&mut self, path: &Path) -> io::Result<()> {
        let mut at = ROOT;
        for name in names_of(path)? {
            at = match self.dirs[&at].visible.get(name) {
                Some(Entry::Dir(id)) => *id,
                Some(Entry::File(_)) => return Err(io::ErrorKind::AlreadyExists.into()),
                None => {
                    let id = self.next_dir;
                    self.next_dir += 1;
                    self.dirs.insert(id, Dir::default());
                    self.change(
                        at,
                        NameChange {
                            remove: None,
                            add: Some((name.to_owned(), Entry::Dir(id))),
                        },
                    );
                    id
                }
            };
        }
        Ok(())
    }
}

impl Fs for MemFs {
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
        Ok(Arc::new(MemFile {
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
        Ok(dir.visible.keys().cloned().collect())
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
        self.change("sync directory", path)?;
        let mut tree = self.shared.tree.write();
        let id = names_of(path)
            .and_then(|names| tree.walk(&names))
            .map_err(failed)?;
        let dir = tree.dirs.get_mut(&id).expect("a directory that was found");
        dir.durable = dir.visible.clone();
        dir.pending.clear();
        Ok(())
    }

    fn lock(&self, path: &Path, mode: LockMode) -> Result<Box<dyn FsLock>> {
        let failed = |e| Error::io("lock", path, e);
        let mut tree = self.shared.tree.write();
        let (dir, name) = tree.parent(path).map_err(failed)?;
        let found = tree.dirs[&dir].visible.get(name).cloned();
        let node = match found {
            Some(Entry::File(node)) => node,
            Some(Entry::Dir(_)) => return Err(failed(io::ErrorKind::IsADirectory.into())),
            None if mode == LockMode::Shared => {
                return Err(failed(io::ErrorKind::NotFound.into()));
            }
            None => {
                self.change("lock", path)?;
                tree.create_file(dir, name)
            }
        };
        let take = |held: i32| match mode {
            LockMode::Exclusive => (held == 0).then_some(-1),
            LockMode::Shared => (held >= 0).then_some(held + 1),
        };
        if node
            .locks
            .fetch_update(Ordering::Acquire, Ordering::Relaxed, take)
            .is_err()
        {
            return Err(Error::Locked {
                path: path.to_path_buf(),
            });
        }
        Ok(Box::new(MemLock { node, mode }))
    }
}

struct MemLock {
    node: Arc<Node>,
    mode: LockMode,
}

impl FsLock for MemLock {}

impl Drop for MemLock {
    fn drop(&mut self) {
        let released = match self.mode {
            LockMode::Exclusive => 1,
            LockMode::Shared => -1,
        };
        self.node.locks.fetch_add(released, Ordering::Release);
    }
}

impl fmt::Debug for MemLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemLock").finish_non_exhaustive()
    }
}

/// An open file. It holds the node, so it outlives the name.
struct MemFile {
    fs: MemFs,
    node: Arc<Node>,
    path: PathBuf,
    writable: bool,
}

impl MemFile {
    /// Applies a change to the visible content and logs it, after the checks that every
    /// change passes.
    fn change(
        &self,
        op: &'static str,
        end: Option<u64>,
        offset: u64,
        apply: impl FnOnce(&mut FileState),
    ) -> Result<()> {
        let failed = |e| Error::io_at(op, &self.path, offset, e);
        if !self.writable {
            return Err(failed(io::ErrorKind::PermissionDenied.into()));
        }
        if end.is_none_or(|end| end > i64::MAX as u64) {
            return Err(failed(io::ErrorKind::InvalidInput.into()));
        }
        self.fs.shared.faults.lock().check().map_err(failed)?;
        // Shared: a crash waits until the change is whole (M2).
        let _moment = self.fs.shared.tree.read();
        apply(&mut self.node.state.lock());
        Ok(())
    }
}

impl fmt::Debug for MemFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemFile")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl File for MemFile {
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
        self.change("write", end, offset, |state| {
            if buf.is_empty() {
                return;
            }
            state.visible.write(buf, offset);
            state.pending.push(DataChange::Write {
                offset,
                bytes: buf.into(),
            });
        })
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.change("set length", Some(len), len, |state| {
            state.visible.set_len(len);
            state.pending.push(DataChange::SetLen(len));
        })
    }

    fn sync_data(&self) -> Result<()> {
        let outcome = self.fs.change("sync", &self.path);
        let _moment = self.fs.shared.tree.read();
        let mut state = self.node.state.lock();
        match outcome {
            Ok(()) => state.sync(),
            // The bytes stay visible and are never written again (M1).
            Err(_) => state.pending.clear(),
        }
        outcome
    }

    fn map(&self, _len: u64) -> Result<Option<Mapping>> {
        Ok(None)
    }

    fn map_mut(&self, _len: u64) -> Result<Option<MappingMut>> {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn create(fs: &MemFs, path: &str, bytes: &[u8]) -> Arc<dyn File> {
        let file = fs.open(path.as_ref(), OpenMode::CreateNew).unwrap();
        file.write_all_at(bytes, 0).unwrap();
        file
    }

    fn content(fs: &MemFs, path: &str) -> Option<Vec<u8>> {
        let file = fs.open(path.as_ref(), OpenMode::Read).ok()?;
        Some(crate::fs::read_all(&*file, 1 << 20).unwrap())
    }

    #[test]
    fn a_crash_keeps_what_was_synced_and_nothing_else() {
        let fs = MemFs::new();
        fs.create_dir_all("/d".as_ref()).unwrap();
        let a = create(&fs, "/d/a", b"one");
        a.sync_data().unwrap();
        assert_eq!(content(&fs.crash(), "/d/a"), None, "no name is synced");
        fs.sync_dir("/d".as_ref()).unwrap();
        assert_eq!(content(&fs.crash(), "/d/a"), None, "nor its directory's");
        fs.sync_dir("/".as_ref()).unwrap();
        assert_eq!(content(&fs.crash(), "/d/a"), Some(b"one".to_vec()));

        a.write_all_at(b"two and more", 0).unwrap();
        a.set_len(7).unwrap();
        fs.rename("/d/a".as_ref(), "/d/b".as_ref()).unwrap();
        assert_eq!(content(&fs, "/d/b"), Some(b"two and".to_vec()));
        assert_eq!(content(&fs.crash(), "/d/a"), Some(b"one".to_vec()));
        assert_eq!(content(&fs.crash(), "/d/b"), None);
        fs.sync_dir("/d".as_ref()).unwrap();
        assert_eq!(content(&fs.crash(), "/d/b"), Some(b"one".to_vec()));
        a.sync_data().unwrap();
        assert_eq!(content(&fs.crash(), "/d/b"), Some(b"two and".to_vec()));

        fs.remove_file("/d/b".as_ref()).unwrap();
        assert_eq!(content(&fs, "/d/b"), None);
        assert_eq!(content(&fs.crash(), "/d/b"), Some(b"two and".to_vec()));
        a.write_all_at(b"still open", 0).unwrap();
        assert_eq!(a.len().unwrap(), 10);
        fs.sync_dir("/d".as_ref()).unwrap();
        assert_eq!(content(&fs.crash(), "/d/b"), None);
    }

    #[test]
    fn a_partial_crash_keeps_whole_sectors_and_is_reproducible() {
        let fs = MemFs::new();
        let a = create(&fs, "/a", &[1; 2000]);
        a.sync_data().unwrap();
        fs.sync_dir("/".as_ref()).unwrap();
        a.write_all_at(&[2; 3000], 100).unwrap();
        let mut images = std::collections::BTreeSet::new();
        for seed in 0..300 {
            let image = content(&fs.crash_keeping(seed), "/a").unwrap();
            assert_eq!(content(&fs.crash_keeping(seed), "/a").unwrap(), image);
            assert!(image.len() == 2000 || image.len() == 3100, "seed {seed}");
            assert!(image[..100].iter().all(|b| *b == 1));
            for sector in image[512..].chunks(512) {
                let whole = sector[..sector.len().min(2000 % 512)].iter();
                assert!(whole.clone().all(|b| *b == sector[0]), "seed {seed}");
            }
            images.insert(image);
        }
        assert!(images.len() > 20, "many different images");
        assert!(images.contains(&content(&fs.crash(), "/a").unwrap()));
        assert!(images.contains(&content(&fs, "/a").unwrap()));
    }

    #[test]
    fn writing_to_an_image_leaves_the_origin_alone() {
        let fs = MemFs::new();
        let a = create(&fs, "/a", b"origin");
        a.sync_data().unwrap();
        fs.sync_dir("/".as_ref()).unwrap();
        let image = fs.crash();
        let b = image.open("/a".as_ref(), OpenMode::ReadWrite).unwrap();
        b.write_all_at(b"image!", 0).unwrap();
        assert_eq!(content(&fs, "/a"), Some(b"origin".to_vec()));
        a.write_all_at(b"again!", 0).unwrap();
        assert_eq!(content(&image, "/a"), Some(b"image!".to_vec()));
    }

    #[test]
    fn cut_bytes_do_not_come_back() {
        let fs = MemFs::new();
        let a = create(&fs, "/a", &[7; 9000]);
        a.set_len(10).unwrap();
        a.set_len(9000).unwrap();
        let bytes = content(&fs, "/a").unwrap();
        assert_eq!(bytes.iter().filter(|b| **b == 7).count(), 10);
        a.sync_data().unwrap();
        fs.sync_dir("/".as_ref()).unwrap();
        assert_eq!(content(&fs.crash(), "/a").unwrap(), bytes);
    }

    #[test]
    fn failures_come_when_planned_and_a_failed_sync_loses_its_bytes() {
        let fs = MemFs::new();
        let a = create(&fs, "/a", b"x");
        fs.sync_dir("/".as_ref()).unwrap();
        fs.fail_once_after(1, io::ErrorKind::StorageFull);
        a.write_all_at(b"y", 0).unwrap();
        assert!(matches!(a.sync_data(), Err(Error::Io { .. })));
        a.sync_data().unwrap();
        assert_eq!(content(&fs, "/a"), Some(b"y".to_vec()));
        assert_eq!(content(&fs.crash(), "/a"), Some(Vec::new()));

        fs.fail_after(0, io::ErrorKind::Other);
        assert!(a.write_all_at(b"z", 0).is_err());
        assert!(fs.remove_file("/a".as_ref()).is_err());
        fs.heal();
        a.write_all_at(b"z", 0).unwrap();
    }

    #[test]
    fn locks_exclude_and_do_not_survive_a_crash() {
        let fs = MemFs::new();
        let lock = fs.lock("/LOCK".as_ref(), LockMode::Exclusive).unwrap();
        assert!(matches!(
            fs.lock("/LOCK".as_ref(), LockMode::Exclusive),
            Err(Error::Locked { .. })
        ));
        fs.sync_dir("/".as_ref()).unwrap();
        drop(
            fs.crash()
                .lock("/LOCK".as_ref(), LockMode::Exclusive)
                .unwrap(),
        );
        drop(lock);
        drop(fs.lock("/LOCK".as_ref(), LockMode::Exclusive).unwrap());
    }
}
