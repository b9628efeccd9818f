//! Directories, names and files, each with what is visible, what is durable, and what lies between.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Component, Path};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

use parking_lot::Mutex;

use super::content::{Content, is_zero};
use super::maps::Mirror;

pub(super) const ROOT: DirId = 0;

pub(super) type DirId = u64;
pub(super) type Names = BTreeMap<Arc<str>, Entry>;

/// All directories. Files are reached through names and handles only, so a file that has neither
/// frees its memory.
pub(super) struct Tree {
    pub(super) dirs: BTreeMap<DirId, Dir>,
    pub(super) next_dir: DirId,
    /// Number of the last change of anything.
    pub(super) moment: AtomicU64,
    /// Files can be mapped.
    pub(super) has_maps: bool,
}

#[derive(Default)]
pub(super) struct Dir {
    /// Shared between images and with `visible` after a sync.
    pub(super) durable: Arc<Names>,
    pub(super) visible: Arc<Names>,
    pub(super) pending: Vec<NameChange>,
    /// What a failed sync has lost: visible, and not written before the directory changes again.
    pub(super) lost: Vec<NameStep>,
    pub(super) locks: Arc<Locks>,
}

/// Holders of shared locks; -1 for an exclusive one.
pub(super) type Locks = AtomicI32;

#[derive(Clone)]
pub(super) enum Entry {
    File(Arc<Node>),
    Dir(DirId),
}

/// A change of one directory's names. A rename within a directory is one change and thus atomic;
/// between directories it is an addition here and a removal there, and a crash may keep either.
#[derive(Clone)]
pub(super) struct NameChange {
    pub(super) moment: u64,
    /// One, behind those that failed syncs had lost.
    pub(super) steps: Vec<NameStep>,
}

/// A name that goes, one that comes, or both.
#[derive(Clone)]
pub(super) struct NameStep {
    pub(super) remove: Option<Arc<str>>,
    pub(super) add: Option<(Arc<str>, Entry)>,
}

impl NameChange {
    pub(super) fn apply(&self, names: &mut Names) {
        for NameStep { remove, add } in &self.steps {
            if let Some(name) = remove {
                names.remove(name);
            }
            if let Some((name, entry)) = add {
                names.insert(Arc::clone(name), entry.clone());
            }
        }
    }

    /// The names that come.
    pub(super) fn added(&self) -> impl Iterator<Item = &(Arc<str>, Entry)> {
        self.steps.iter().filter_map(|step| step.add.as_ref())
    }
}

/// A file, with or without a name.
pub(super) struct Node {
    pub(super) state: Mutex<FileState>,
    pub(super) locks: Arc<Locks>,
}

impl Node {
    pub(super) fn new(state: FileState) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(state),
            locks: Arc::default(),
        })
    }
}

#[derive(Clone, Default)]
pub(super) struct FileState {
    pub(super) durable: Content,
    pub(super) visible: Content,
    pub(super) pending: Vec<DataChange>,
    /// Bytes up to here were written with calls, as far as is known: a store beyond may find the
    /// disk full.
    pub(super) allocated: u64,
    /// What maps of the file show, once there was one.
    pub(super) mirror: Option<Arc<Mirror>>,
}

#[derive(Clone)]
pub(super) struct DataChange {
    pub(super) moment: u64,
    pub(super) what: DataOp,
}

#[derive(Clone)]
pub(super) enum DataOp {
    Write {
        offset: u64,
        bytes: Box<[u8]>,
    },
    /// A write of zeros, without the bytes.
    Zeros {
        offset: u64,
        len: u64,
    },
    SetLen(u64),
}

impl FileState {
    /// A file of which everything is durable.
    pub(super) fn settled(content: Content) -> Self {
        Self {
            durable: content.clone(),
            allocated: content.len,
            visible: content,
            pending: Vec::new(),
            mirror: None,
        }
    }

    pub(super) fn write(&mut self, moment: u64, bytes: &[u8], offset: u64) {
        if let Some(mirror) = &self.mirror {
            mirror.write(self.visible.len, bytes, offset);
        }
        let what = if is_zero(bytes) {
            let len = bytes.len() as u64;
            self.visible.write_zeros(len, offset);
            DataOp::Zeros { offset, len }
        } else {
            self.visible.write(bytes, offset);
            DataOp::Write {
                offset,
                bytes: bytes.into(),
            }
        };
        self.pending.push(DataChange { moment, what });
    }

    pub(super) fn set_len(&mut self, moment: u64, len: u64) {
        if let Some(mirror) = &self.mirror {
            mirror.set_len(self.visible.len, len);
        }
        self.visible.set_len(len);
        self.allocated = self.allocated.min(len);
        self.pending.push(DataChange {
            moment,
            what: DataOp::SetLen(len),
        });
    }

    /// Makes all pending changes durable. Costs what was written, not what the file holds.
    pub(super) fn sync(&mut self) {
        for change in std::mem::take(&mut self.pending) {
            match change.what {
                DataOp::Write { offset, bytes } => self.durable.write(&bytes, offset),
                DataOp::Zeros { offset, len } => self.durable.write_zeros(len, offset),
                DataOp::SetLen(len) => self.durable.set_len(len),
            }
        }
    }
}

/// The names on the way from the root, with `.` and `..` resolved.
pub(super) fn names_of(path: &Path) -> io::Result<Vec<&str>> {
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
    /// A root without anything in it.
    pub(super) fn empty(has_maps: bool) -> Self {
        Self {
            dirs: BTreeMap::from([(ROOT, Dir::default())]),
            next_dir: ROOT + 1,
            moment: AtomicU64::new(0),
            has_maps,
        }
    }

    /// A tree of its own with the same durable, visible and pending state, and no locks.
    pub(super) fn fork(&self) -> Self {
        let mut copies: HashMap<*const Node, Arc<Node>> = HashMap::new();
        let mut copy = |entry: &Entry| match entry {
            Entry::Dir(id) => Entry::Dir(*id),
            Entry::File(node) => {
                let made = || {
                    let mut state = node.state.lock().clone();
                    // Maps are those of the process.
                    state.mirror = None;
                    Node::new(state)
                };
                Entry::File(Arc::clone(
                    copies.entry(Arc::as_ptr(node)).or_insert_with(made),
                ))
            }
        };
        let mut dirs = BTreeMap::new();
        for (id, dir) in &self.dirs {
            let mut names = |names: &Names| {
                let copies = names.iter();
                Arc::new(
                    copies
                        .map(|(name, entry)| (Arc::clone(name), copy(entry)))
                        .collect(),
                )
            };
            let mut fork = Dir {
                durable: names(&dir.durable),
                visible: names(&dir.visible),
                pending: dir.pending.clone(),
                lost: dir.lost.clone(),
                locks: Arc::default(),
            };
            let pending = fork.pending.iter_mut().flat_map(|change| &mut change.steps);
            for step in pending.chain(&mut fork.lost) {
                if let Some((_, entry)) = &mut step.add {
                    *entry = copy(entry);
                }
            }
            dirs.insert(*id, fork);
        }
        Self {
            dirs,
            next_dir: self.next_dir,
            moment: AtomicU64::new(self.moment.load(Ordering::Relaxed)),
            has_maps: self.has_maps,
        }
    }

    pub(super) fn next_moment(&self) -> u64 {
        self.moment.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(super) fn walk(&self, names: &[&str]) -> io::Result<DirId> {
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

    pub(super) fn dir(&self, path: &Path) -> io::Result<&Dir> {
        let id = self.walk(&names_of(path)?)?;
        Ok(&self.dirs[&id])
    }

    /// The directory that holds the last name of `path`, and that name.
    pub(super) fn parent<'p>(&self, path: &'p Path) -> io::Result<(DirId, &'p str)> {
        let names = names_of(path)?;
        let (name, above) = names.split_last().ok_or(io::ErrorKind::InvalidInput)?;
        Ok((self.walk(above)?, name))
    }

    pub(super) fn entry(&self, path: &Path) -> io::Result<Entry> {
        let (dir, name) = self.parent(path)?;
        let entry = self.dirs[&dir].visible.get(name).cloned();
        entry.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn change(&mut self, dir: DirId, remove: Option<&str>, add: Option<(&str, Entry)>) {
        let step = NameStep {
            remove: remove.map(Arc::from),
            add: add.map(|(name, entry)| (Arc::from(name), entry)),
        };
        let moment = self.next_moment();
        let dir = self.dirs.get_mut(&dir).expect("a directory that was found");
        // The directory is written as a whole.
        let mut steps = std::mem::take(&mut dir.lost);
        steps.push(step);
        let change = NameChange { moment, steps };
        change.apply(Arc::make_mut(&mut dir.visible));
        dir.pending.push(change);
    }

    pub(super) fn create_file(&mut self, dir: DirId, name: &str) -> Arc<Node> {
        let node = Node::new(FileState::default());
        self.change(dir, None, Some((name, Entry::File(Arc::clone(&node)))));
        node
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let (from_dir, from_name) = self.parent(from)?;
        let (to_dir, to_name) = self.parent(to)?;
        let entry = self.entry(from)?;
        if let Some(Entry::Dir(_)) = self.dirs[&to_dir].visible.get(to_name) {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        if from_dir == to_dir && from_name == to_name {
            return Ok(());
        }
        if from_dir == to_dir {
            self.change(from_dir, Some(from_name), Some((to_name, entry)));
        } else {
            self.change(to_dir, None, Some((to_name, entry)));
            self.change(from_dir, Some(from_name), None);
        }
        Ok(())
    }

    pub(super) fn remove(&mut self, path: &Path, want_dir: bool) -> io::Result<()> {
        let (dir, name) = self.parent(path)?;
        match self.entry(path)? {
            Entry::File(_) if want_dir => return Err(io::ErrorKind::NotADirectory.into()),
            Entry::Dir(_) if !want_dir => return Err(io::ErrorKind::IsADirectory.into()),
            Entry::Dir(id) if !self.dirs[&id].visible.is_empty() => {
                return Err(io::ErrorKind::DirectoryNotEmpty.into());
            }
            _ => {}
        }
        self.change(dir, Some(name), None);
        Ok(())
    }

    pub(super) fn create_dirs(&mut self, path: &Path) -> io::Result<()> {
        let mut at = ROOT;
        for name in names_of(path)? {
            at = match self.dirs[&at].visible.get(name) {
                Some(Entry::Dir(id)) => *id,
                Some(Entry::File(_)) => return Err(io::ErrorKind::AlreadyExists.into()),
                None => {
                    let id = self.next_dir;
                    self.next_dir += 1;
                    self.dirs.insert(id, Dir::default());
                    self.change(at, None, Some((name, Entry::Dir(id))));
                    id
                }
            };
        }
        Ok(())
    }

    pub(super) fn sync_dir(&mut self, path: &Path) -> io::Result<()> {
        let id = self.walk(&names_of(path)?)?;
        let dir = self.dirs.get_mut(&id).expect("a directory that was found");
        if !dir.pending.is_empty() {
            dir.durable = Arc::clone(&dir.visible);
            dir.pending.clear();
        }
        Ok(())
    }

    /// The sync of a directory fails: what is pending stays visible, and another sync does not
    /// write it, unless the directory changes before.
    pub(super) fn fail_sync_dir(&mut self, path: &Path) -> io::Result<()> {
        let id = self.walk(&names_of(path)?)?;
        let dir = self.dirs.get_mut(&id).expect("a directory that was found");
        let steps = dir.pending.drain(..).flat_map(|change| change.steps);
        dir.lost.extend(steps);
        Ok(())
    }
}
