//! The file system at one moment, from which states are made.
//!
//! A [`Frame`] holds what is durable, and the pending changes, ordered into *chains*. A chain is
//! something that the disk holds one version of: a sector, the length of a file, whether a name
//! change has taken place. Version 0 is the durable one. A state is a version for each chain; a
//! *unit* is the step from one version of a chain to the next. A step that changes nothing (zeros
//! over zeros) is none.

use std::collections::{BTreeMap, HashMap, hash_map};
use std::fmt::Write as _;
use std::sync::Arc;

use super::content::Content;
use super::tree::{
    DataOp, Dir, DirId, Entry, FileState, NameChange, NameStep, Names, Node, ROOT, Tree,
};
use crate::format::checksum::mix64;

/// What a disk writes whole or not at all.
pub(super) const SECTOR_LEN_BYTES: u64 = 512;

/// The file system at one moment.
pub(super) struct Frame {
    dirs: BTreeMap<DirId, FrozenDir>,
    next_dir: DirId,
    has_maps: bool,
    files: Vec<FrozenFile>,
    by_node: HashMap<*const Node, usize>,
    /// Number of versions after the durable one, for each chain, and to which group it belongs.
    pub(super) chains: Vec<Chain>,
    /// In the order in which they happened.
    pub(super) units: Vec<Unit>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Chain {
    pub(super) versions: u16,
    /// Chains of one file, or of one directory's names, mostly share their fate.
    pub(super) group: u32,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Unit {
    moment: u64,
    pub(super) chain: usize,
    /// The version of the chain that it brings.
    pub(super) version: u16,
}

struct FrozenDir {
    durable: Arc<Names>,
    /// Each is a chain.
    changes: Vec<NameChange>,
    first_chain: usize,
}

struct FrozenFile {
    durable: Content,
    /// Versions of the length.
    lengths: Vec<Length>,
    length_chain: usize,
    sectors: Vec<Sector>,
    first_sector_chain: usize,
}

struct Length {
    moment: u64,
    len: u64,
    is_cut: bool,
}

struct Sector {
    offset: u64,
    /// When, and all bytes.
    versions: Vec<(u64, [u8; SECTOR_LEN_BYTES as usize])>,
}

impl std::fmt::Debug for Frame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Frame")
            .field("files", &self.files.len())
            .field("chains", &self.chains)
            .field("units", &self.units)
            .finish_non_exhaustive()
    }
}

impl FrozenFile {
    fn new(state: &FileState) -> Self {
        let mut lengths = Vec::new();
        let mut sectors: BTreeMap<u64, Sector> = BTreeMap::new();
        let mut running = state.durable.clone();
        for change in &state.pending {
            let moment = change.moment;
            let old_len = running.len;
            let mut write = |running: &Content, bytes: &[u8], offset: u64| {
                let end = offset + bytes.len() as u64;
                let mut at = offset - offset % SECTOR_LEN_BYTES;
                while at < end {
                    let mut old = [0; SECTOR_LEN_BYTES as usize];
                    running.read(&mut old, at);
                    let mut new = old;
                    let (from, to) = (at.max(offset), (at + SECTOR_LEN_BYTES).min(end));
                    new[(from - at) as usize..(to - at) as usize]
                        .copy_from_slice(&bytes[(from - offset) as usize..(to - offset) as usize]);
                    if new != old {
                        let sector = sectors.entry(at).or_insert_with(|| Sector {
                            offset: at,
                            versions: Vec::new(),
                        });
                        sector.versions.push((moment, new));
                    }
                    at += SECTOR_LEN_BYTES;
                }
            };
            match &change.what {
                DataOp::Write { offset, bytes } => {
                    write(&running, bytes, *offset);
                    running.write(bytes, *offset);
                }
                DataOp::Zeros { offset, len } => {
                    let (mut at, end) = (*offset, offset + len);
                    while at < end {
                        let next = ((at / SECTOR_LEN_BYTES + 1) * SECTOR_LEN_BYTES).min(end);
                        if running.has_page_at(at) {
                            write(
                                &running,
                                &[0; SECTOR_LEN_BYTES as usize][..(next - at) as usize],
                                at,
                            );
                        }
                        at = next;
                    }
                    running.write_zeros(*len, *offset);
                }
                DataOp::SetLen(len) => running.set_len(*len),
            }
            if running.len != old_len {
                lengths.push(Length {
                    moment,
                    len: running.len,
                    is_cut: running.len < old_len,
                });
            }
        }
        Self {
            durable: state.durable.clone(),
            lengths,
            length_chain: 0,
            sectors: sectors.into_values().collect(),
            first_sector_chain: 0,
        }
    }

    /// The content in the state of these versions.
    fn content(&self, versions: &[u16]) -> Content {
        let mut content = self.durable.clone();
        let lengths = match versions.get(self.length_chain) {
            Some(version) if !self.lengths.is_empty() => &self.lengths[..usize::from(*version)],
            _ => &[],
        };
        for length in lengths {
            content.set_len(length.len);
        }
        let mut is_beyond = false;
        for (at, sector) in self.sectors.iter().enumerate() {
            let version = usize::from(versions[self.first_sector_chain + at]);
            let Some((moment, bytes)) = version.checked_sub(1).map(|at| &sector.versions[at])
            else {
                continue;
            };
            // What was cut off after it was written has not come back.
            let cuts = lengths.iter().filter(|l| l.is_cut && l.moment > *moment);
            let kept = cuts
                .map(|cut| cut.len.saturating_sub(sector.offset))
                .fold(SECTOR_LEN_BYTES, u64::min);
            content.put(&bytes[..kept as usize], sector.offset);
            is_beyond |= sector.offset + kept > content.len;
        }
        if is_beyond {
            content.clip();
        }
        content
    }
}

impl Frame {
    /// The tree as it is now.
    pub(super) fn new(tree: &Tree) -> Self {
        let mut frame = Self {
            dirs: BTreeMap::new(),
            next_dir: tree.next_dir,
            has_maps: tree.has_maps,
            files: Vec::new(),
            by_node: HashMap::new(),
            chains: Vec::new(),
            units: Vec::new(),
        };
        let mut todo = vec![ROOT];
        while let Some(id) = todo.pop() {
            if frame.dirs.contains_key(&id) {
                continue;
            }
            let dir = &tree.dirs[&id];
            let added = dir.pending.iter().flat_map(NameChange::added);
            let entries = added.map(|(_, entry)| entry).chain(dir.durable.values());
            for entry in entries {
                match entry {
                    Entry::Dir(child) => todo.push(*child),
                    Entry::File(node) => frame.add_file(node),
                }
            }
            let group = frame.dirs.len() as u32 * 2;
            let first_chain = frame.chains.len();
            for change in &dir.pending {
                frame.add_chain(group, std::iter::once(change.moment));
            }
            frame.dirs.insert(
                id,
                FrozenDir {
                    durable: Arc::clone(&dir.durable),
                    changes: dir.pending.clone(),
                    first_chain,
                },
            );
        }
        frame.units.sort_by_key(|unit| unit.moment);
        frame
    }

    fn add_file(&mut self, node: &Arc<Node>) {
        let number = self.files.len();
        // It may be known under another name.
        match self.by_node.entry(Arc::as_ptr(node)) {
            hash_map::Entry::Occupied(_) => return,
            hash_map::Entry::Vacant(place) => place.insert(number),
        };
        let mut file = FrozenFile::new(&node.state.lock());
        let group = number as u32 * 2 + 1;
        file.length_chain = self.chains.len();
        if !file.lengths.is_empty() {
            self.add_chain(group, file.lengths.iter().map(|length| length.moment));
        }
        file.first_sector_chain = self.chains.len();
        for sector in &file.sectors {
            self.add_chain(group, sector.versions.iter().map(|(moment, _)| *moment));
        }
        self.files.push(file);
    }

    fn add_chain(&mut self, group: u32, moments: impl Iterator<Item = u64>) {
        let chain = self.chains.len();
        let mut versions = 0;
        for moment in moments {
            versions += 1;
            self.units.push(Unit {
                moment,
                chain,
                version: versions,
            });
        }
        self.chains.push(Chain { versions, group });
    }

    /// How many states there are, or `None` if more than `max`.
    pub(super) fn count(&self, max: u64) -> Option<u64> {
        self.chains.iter().try_fold(1_u64, |count, chain| {
            let count = count.checked_mul(u64::from(chain.versions) + 1)?;
            (count <= max).then_some(count)
        })
    }

    /// The file system in the state of these versions, and its hash.
    pub(super) fn build(&self, versions: &[u16]) -> (Tree, u64) {
        let mut tree = Tree {
            next_dir: self.next_dir,
            dirs: BTreeMap::new(),
            ..Tree::empty(self.has_maps)
        };
        let mut hash = 0_u64;
        let mut nodes: Vec<Option<(Arc<Node>, u64)>> = vec![None; self.files.len()];
        let mut todo = vec![(ROOT, 1_u64)];
        while let Some((id, path_hash)) = todo.pop() {
            if tree.dirs.contains_key(&id) {
                continue;
            }
            let dir = &self.dirs[&id];
            let mut names = Names::clone(&dir.durable);
            for (at, change) in dir.changes.iter().enumerate() {
                if versions[dir.first_chain + at] == 1 {
                    change.apply(&mut names);
                }
            }
            for (name, entry) in &mut names {
                let name_hash = name.bytes().fold(path_hash, |hash, byte| {
                    (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
                });
                let content_hash = match entry {
                    Entry::Dir(child) => {
                        todo.push((*child, mix64(name_hash)));
                        1
                    }
                    Entry::File(node) => {
                        let number = self.by_node[&Arc::as_ptr(node)];
                        let (made, content_hash) = nodes[number].get_or_insert_with(|| {
                            let content = self.files[number].content(versions);
                            let hash = content.hash();
                            (Node::new(FileState::settled(content)), hash)
                        });
                        *node = Arc::clone(made);
                        *content_hash
                    }
                };
                hash = hash.wrapping_add(mix64(mix64(name_hash) ^ content_hash));
            }
            let names = Arc::new(names);
            tree.dirs.insert(
                id,
                Dir {
                    durable: Arc::clone(&names),
                    visible: names,
                    pending: Vec::new(),
                    lost: Vec::new(),
                    locks: Arc::default(),
                },
            );
        }
        (tree, hash)
    }

    /// What is in a directory and what happens to it, for people.
    pub(super) fn describe(&self, versions: &[u16]) -> String {
        let mut text = String::new();
        let mut todo = vec![(ROOT, String::new())];
        let mut seen = Vec::new();
        while let Some((id, path)) = todo.pop() {
            if seen.contains(&id) {
                continue;
            }
            seen.push(id);
            let dir = &self.dirs[&id];
            let added = dir.changes.iter().flat_map(NameChange::added);
            let entries = added
                .map(|(name, entry)| (name, entry))
                .chain(dir.durable.iter());
            let mut files = Vec::new();
            for (name, entry) in entries {
                let name = format!("{path}/{name}");
                match entry {
                    Entry::Dir(child) => todo.push((*child, name)),
                    Entry::File(node) => files.push((name, self.by_node[&Arc::as_ptr(node)])),
                }
            }
            for (at, change) in dir.changes.iter().enumerate() {
                let fate = fate(versions[dir.first_chain + at], 1);
                for NameStep { remove, add } in &change.steps {
                    let gone = remove.as_deref().unwrap_or("");
                    let came = add.as_ref().map_or("", |(name, _)| name);
                    let _ = writeln!(text, "  {path}/: {gone:?} -> {came:?} {fate}");
                }
            }
            for (name, number) in files {
                let file = &self.files[number];
                if !file.lengths.is_empty() {
                    let newest = file.lengths.len() as u16;
                    let fate = fate(versions[file.length_chain], newest);
                    let newest = file.lengths.last().map_or(0, |length| length.len);
                    let _ = writeln!(text, "  {name}: length to {newest} {fate}");
                }
                for (at, sector) in file.sectors.iter().enumerate() {
                    let version = versions[file.first_sector_chain + at];
                    let fate = fate(version, sector.versions.len() as u16);
                    let _ = writeln!(text, "  {name}: sector at {} {fate}", sector.offset);
                }
            }
        }
        text
    }
}

fn fate(version: u16, newest: u16) -> String {
    match version {
        0 => "lost".into(),
        version if version == newest => "kept".into(),
        version => format!("kept up to its version {version} of {newest}"),
    }
}
