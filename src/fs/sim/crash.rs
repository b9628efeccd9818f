//! The states that a power loss may leave.
//!
//! # How states are made
//!
//! A [`Frame`] is the file system at one moment: what is durable, and the pending changes, ordered into
//! *chains*. A chain is something that the disk holds one version of: a sector, the length of a
//! file, whether a name change has taken place. Version 0 is the durable one. A state is a version
//! for each chain; a *unit* is the step from one version of a chain to the next.
//!
//! If there are few states, all are made. If there are many: those that keep everything up to a
//! moment (also in the middle of a write), those that lack one unit, those that have one, and random ones.
//! A unit that changes nothing (zeros over zeros) is none.

use std::collections::{BTreeMap, HashMap, hash_map};
use std::fmt::Write as _;
use std::sync::Arc;

use super::SimFs;
use super::content::Content;
use super::tree::{DataOp, Dir, DirId, Entry, FileState, NameChange, Names, Node, ROOT, Tree};
use crate::checksum::mix64;

/// What a disk writes whole or not at all.
const SECTOR_LEN_BYTES: u64 = 512;

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

/// Which of the states that a power loss may leave are made.
#[derive(Debug, Clone, Copy)]
pub struct CrashPolicy {
    exhaustive_max: u64,
    each_max: usize,
    random: usize,
    seed: u64,
}

impl Default for CrashPolicy {
    /// Everything up to 256 states; else up to 64 states of each regular kind, and 32 random ones.
    fn default() -> Self {
        Self {
            exhaustive_max: 256,
            each_max: 64,
            random: 32,
            seed: 0,
        }
    }
}

impl CrashPolicy {
    /// The default.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes all states if there are no more than this.
    #[must_use]
    pub fn exhaustive_max(mut self, states: u64) -> Self {
        self.exhaustive_max = states;
        self
    }

    /// Else makes up to so many states of each kind: prefixes, all but one unit, only one unit.
    #[must_use]
    pub fn each_max(mut self, states: usize) -> Self {
        self.each_max = states;
        self
    }

    /// And so many random ones.
    #[must_use]
    pub fn random(mut self, states: usize) -> Self {
        self.random = states;
        self
    }

    /// Where the choices that are not forced come from.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Up to `each_max` of `0..count`, evenly spread, but not always the same.
    fn some_of(&self, count: usize, salt: u64) -> Vec<usize> {
        if count <= self.each_max {
            return (0..count).collect();
        }
        let mut random = Random(self.seed ^ salt);
        (0..self.each_max)
            .map(|at| {
                let (from, to) = (at * count / self.each_max, (at + 1) * count / self.each_max);
                from + (random.next() % (to - from) as u64) as usize
            })
            .collect()
    }
}

/// A file system as a power loss may leave it.
#[derive(Debug)]
pub struct CrashState {
    /// Which of the states of its moment it is.
    pub number: usize,
    /// Differs, all but certainly, between file systems with different names or bytes.
    pub hash: u64,
    /// The file system; everything in it is durable.
    pub fs: SimFs,
}

/// The states that a power loss at one moment may leave, made one by one.
///
/// ```
/// use hedgerow::fs::{CrashPolicy, Fs, OpenMode, SimFs};
/// # fn main() -> hedgerow::Result<()> {
/// let fs = SimFs::new();
/// let file = fs.open("/a".as_ref(), OpenMode::CreateNew)?;
/// fs.sync_dir("/".as_ref())?;
/// file.write_all_at(b"new", 0)?;
///
/// // The length is there or not, and so are the bytes.
/// let mut lengths = Vec::new();
/// for state in fs.crash_states(&CrashPolicy::new()) {
///     lengths.push(state.fs.open("/a".as_ref(), OpenMode::Read)?.len()?);
/// }
/// assert_eq!(lengths, [0, 3, 0, 3]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct CrashStates {
    frame: Frame,
    choices: Vec<Choice>,
    next: usize,
}

/// One way to choose a version for each chain.
#[derive(Debug, Clone, Copy)]
enum Choice {
    /// The state of that number, counting through all.
    Nth(u64),
    /// The first so many units.
    First(usize),
    /// All units but one, and those that build on it.
    Without(usize),
    /// One unit, and those that it builds on.
    Only(usize),
    Random(u64),
}

/// The file system at one moment.
struct Frame {
    dirs: BTreeMap<DirId, FrozenDir>,
    next_dir: DirId,
    files: Vec<FrozenFile>,
    by_node: HashMap<*const Node, usize>,
    /// Number of versions after the durable one, for each chain, and to which group it belongs.
    chains: Vec<Chain>,
    /// In the order in which they happened.
    units: Vec<Unit>,
}

#[derive(Debug, Clone, Copy)]
struct Chain {
    versions: u16,
    /// Chains of one file, or of one directory's names, mostly share their fate.
    group: u32,
}

#[derive(Debug, Clone, Copy)]
struct Unit {
    moment: u64,
    chain: usize,
    /// The version of the chain that it brings.
    version: u16,
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
    fn new(tree: &Tree) -> Self {
        let mut frame = Self {
            dirs: BTreeMap::new(),
            next_dir: tree.next_dir,
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
            let added = dir.pending.iter().filter_map(|change| change.add.as_ref());
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
    fn count(&self, max: u64) -> Option<u64> {
        self.chains.iter().try_fold(1_u64, |count, chain| {
            let count = count.checked_mul(u64::from(chain.versions) + 1)?;
            (count <= max).then_some(count)
        })
    }

    fn choices(&self, policy: &CrashPolicy) -> Vec<Choice> {
        if let Some(count) = self.count(policy.exhaustive_max.max(1)) {
            return (0..count).map(Choice::Nth).collect();
        }
        let count = self.units.len();
        let mut choices = vec![Choice::First(0), Choice::First(count)];
        let firsts = policy.some_of(count - 1, 1);
        choices.extend(firsts.iter().map(|at| Choice::First(at + 1)));
        choices.extend(policy.some_of(count, 2).into_iter().map(Choice::Without));
        choices.extend(policy.some_of(count, 3).into_iter().map(Choice::Only));
        let mut random = Random(policy.seed);
        choices.extend((0..policy.random).map(|_| Choice::Random(random.next())));
        choices
    }

    fn versions(&self, choice: Choice) -> Vec<u16> {
        let newest = || self.chains.iter().map(|chain| chain.versions);
        let mut versions = vec![0; self.chains.len()];
        match choice {
            Choice::Nth(mut n) => {
                for (version, newest) in versions.iter_mut().zip(newest()) {
                    let radix = u64::from(newest) + 1;
                    *version = (n % radix) as u16;
                    n /= radix;
                }
            }
            Choice::First(count) => {
                for unit in &self.units[..count] {
                    versions[unit.chain] = unit.version;
                }
            }
            Choice::Without(at) => {
                versions = newest().collect();
                let unit = self.units[at];
                versions[unit.chain] = unit.version - 1;
            }
            Choice::Only(at) => {
                let unit = self.units[at];
                versions[unit.chain] = unit.version;
            }
            Choice::Random(seed) => {
                let mut random = Random(seed);
                let mut chances: HashMap<u32, u64> = HashMap::new();
                for (version, chain) in versions.iter_mut().zip(&self.chains) {
                    let chance = *chances
                        .entry(chain.group)
                        .or_insert_with(|| random.chance());
                    while *version < chain.versions && random.keeps(chance) {
                        *version += 1;
                    }
                }
            }
        }
        versions
    }

    /// The file system in the state of these versions, and its hash.
    fn build(&self, versions: &[u16]) -> (Tree, u64) {
        let mut tree = Tree {
            next_dir: self.next_dir,
            dirs: BTreeMap::new(),
            ..Tree::empty()
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
                },
            );
        }
        (tree, hash)
    }

    /// What is in a directory and what happens to it, for people.
    fn describe(&self, versions: &[u16]) -> String {
        let mut text = String::new();
        let mut todo = vec![(ROOT, String::new())];
        let mut seen = Vec::new();
        while let Some((id, path)) = todo.pop() {
            if seen.contains(&id) {
                continue;
            }
            seen.push(id);
            let dir = &self.dirs[&id];
            let added = dir.changes.iter().filter_map(|change| change.add.as_ref());
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
                let gone = change.remove.as_deref().unwrap_or("");
                let came = change.add.as_ref().map_or("", |(name, _)| name);
                let _ = writeln!(text, "  {path}/: {gone:?} -> {came:?} {fate}");
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

impl CrashStates {
    pub(super) fn new(tree: &Tree, policy: &CrashPolicy) -> Self {
        let frame = Frame::new(tree);
        let choices = frame.choices(policy);
        Self {
            frame,
            choices,
            next: 0,
        }
    }

    /// The state of that number. Panics if there is none.
    pub fn state(&self, number: usize) -> CrashState {
        let versions = self.frame.versions(self.choices[number]);
        let (tree, hash) = self.frame.build(&versions);
        CrashState {
            number,
            hash,
            fs: SimFs::with_tree(tree),
        }
    }

    /// What has become, in the state of that number, of everything that was pending.
    pub fn describe(&self, number: usize) -> String {
        let choice = self.choices[number];
        let versions = self.frame.versions(choice);
        format!("{choice:?}\n{}", self.frame.describe(&versions))
    }

    /// Unsynced steps of sectors, lengths and names.
    pub fn units(&self) -> usize {
        self.frame.units.len()
    }
}

impl Iterator for CrashStates {
    type Item = CrashState;

    fn next(&mut self) -> Option<CrashState> {
        let number = self.next;
        self.choices.get(number)?;
        self.next += 1;
        Some(self.state(number))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.choices.len() - self.next;
        (left, Some(left))
    }
}

impl ExactSizeIterator for CrashStates {}

/// The tree after a power loss that keeps nothing, or what `seed` decides, of what is pending.
pub(super) fn image(tree: &Tree, seed: Option<u64>) -> Tree {
    let mut random = seed.map(Random);
    let mut image = Tree {
        next_dir: tree.next_dir,
        dirs: BTreeMap::new(),
        ..Tree::empty()
    };
    // One file may survive under two names, when half of a move between directories did.
    let mut nodes: HashMap<*const Node, Arc<Node>> = HashMap::new();
    let mut todo = vec![ROOT];
    while let Some(id) = todo.pop() {
        if image.dirs.contains_key(&id) {
            continue;
        }
        let dir = &tree.dirs[&id];
        let mut names = Names::clone(&dir.durable);
        if let Some(random) = &mut random {
            let chance = random.chance();
            for change in &dir.pending {
                if random.keeps(chance) {
                    change.apply(&mut names);
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
                                survivor(&state, random, chance)
                            }
                        };
                        Node::new(FileState::settled(content))
                    });
                    *node = Arc::clone(copy);
                }
            }
        }
        let names = Arc::new(names);
        image.dirs.insert(
            id,
            Dir {
                durable: Arc::clone(&names),
                visible: names,
                pending: Vec::new(),
            },
        );
    }
    image
}

/// The content after a power loss that keeps each pending change, sector by sector, with
/// the given chance in 256.
fn survivor(state: &FileState, random: &mut Random, chance: u64) -> Content {
    let mut content = state.durable.clone();
    for change in &state.pending {
        let (offset, len) = match &change.what {
            DataOp::SetLen(len) => {
                if random.keeps(chance) {
                    content.set_len(*len);
                }
                continue;
            }
            DataOp::Write { offset, bytes } => (*offset, bytes.len() as u64),
            DataOp::Zeros { offset, len } => (*offset, *len),
        };
        let end = offset + len;
        // The length is metadata: it may be lost though the data came through, and the data
        // then cannot be reached.
        if end > content.len && random.keeps(chance) {
            content.set_len(end);
        }
        let end = end.min(content.len);
        let mut at = offset;
        while at < end {
            let next = ((at / SECTOR_LEN_BYTES + 1) * SECTOR_LEN_BYTES).min(end);
            if random.keeps(chance) {
                match &change.what {
                    DataOp::Write { bytes, .. } => {
                        let (from, to) = ((at - offset) as usize, (next - offset) as usize);
                        content.write(&bytes[from..to], at);
                    }
                    _ => content.write_zeros(next - at, at),
                }
            }
            at = next;
        }
    }
    content
}
