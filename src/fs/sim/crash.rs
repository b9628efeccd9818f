//! The states that a power loss may leave.
//!
//! A state is a choice among the versions of everything that is pending ([`frame`](super::frame)).
//! If there are few states, all are made. If there are many: those that keep everything up to a
//! moment (also in the middle of a write), those that lack one unit, those that have one, and
//! random ones.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::SimFs;
use super::content::Content;
use super::frame::{Frame, SECTOR_LEN_BYTES};
use super::tree::{DataOp, Dir, Entry, FileState, Names, Node, ROOT, Tree};
use crate::format::checksum::mix64;

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

impl SimFs {
    /// The file system as after a power loss in which nothing survived that was not synced:
    /// unsynced writes are lost, unsynced names undone. Locks are gone. This one goes on unchanged.
    pub fn crash(&self) -> Self {
        // Exclusive: nothing happens while the picture is taken (FS2).
        Self::with_tree(image(&self.shared.tree.write(), None))
    }

    /// The file system as after a power loss that kept a random part of what was not synced:
    /// 512-byte sectors, lengths and names each survive or not. The same seed after the same
    /// history gives the same image. Harsher than the fault model above in one point: of two writes
    /// to one sector the second may survive without the first.
    pub fn crash_keeping(&self, seed: u64) -> Self {
        Self::with_tree(image(&self.shared.tree.write(), Some(seed)))
    }

    /// The states that a power loss at this moment may leave, or as many of them as `policy`
    /// asks for.
    pub fn crash_states(&self, policy: &CrashPolicy) -> CrashStates {
        CrashStates::new(&self.shared.tree.write(), policy)
    }
}

/// Which of the states that a power loss may leave are made.
///
/// ```
/// use hedgerow::fs::{CrashPolicy, Fs, OpenMode, SimFs};
///
/// let fs = SimFs::new();
/// fs.open("/a".as_ref(), OpenMode::CreateNew)?.write_all_at(b"new", 0)?;
/// let policy = CrashPolicy::new().exhaustive_max(16).each_max(4).random(2).seed(7);
/// let mut states = fs.crash_states(&policy);
/// println!("{} units may survive or not", states.units());
/// while let Some(state) = states.next() {
///     let kept = state.fs.exists("/a".as_ref())?;
///     println!("{}: {} {kept}", state.number, states.describe(state.number));
///     assert_eq!(states.state(state.number).hash, state.hash);
/// }
/// # Ok::<(), hedgerow::Error>(())
/// ```
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

impl Choice {
    /// What `policy` asks for.
    fn of(frame: &Frame, policy: &CrashPolicy) -> Vec<Self> {
        if let Some(count) = frame.count(policy.exhaustive_max.max(1)) {
            return (0..count).map(Self::Nth).collect();
        }
        let count = frame.units.len();
        let mut choices = vec![Self::First(0), Self::First(count)];
        let firsts = policy.some_of(count - 1, 1);
        choices.extend(firsts.iter().map(|at| Self::First(at + 1)));
        choices.extend(policy.some_of(count, 2).into_iter().map(Self::Without));
        choices.extend(policy.some_of(count, 3).into_iter().map(Self::Only));
        let mut random = Random(policy.seed);
        choices.extend((0..policy.random).map(|_| Self::Random(random.next())));
        choices
    }

    /// The version of each chain.
    fn versions(self, frame: &Frame) -> Vec<u16> {
        let newest = || frame.chains.iter().map(|chain| chain.versions);
        let mut versions = vec![0; frame.chains.len()];
        match self {
            Self::Nth(mut n) => {
                for (version, newest) in versions.iter_mut().zip(newest()) {
                    let radix = u64::from(newest) + 1;
                    *version = (n % radix) as u16;
                    n /= radix;
                }
            }
            Self::First(count) => {
                for unit in &frame.units[..count] {
                    versions[unit.chain] = unit.version;
                }
            }
            Self::Without(at) => {
                versions = newest().collect();
                let unit = frame.units[at];
                versions[unit.chain] = unit.version - 1;
            }
            Self::Only(at) => {
                let unit = frame.units[at];
                versions[unit.chain] = unit.version;
            }
            Self::Random(seed) => {
                let mut random = Random(seed);
                let mut chances: HashMap<u32, u64> = HashMap::new();
                for (version, chain) in versions.iter_mut().zip(&frame.chains) {
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
}

impl CrashStates {
    fn new(tree: &Tree, policy: &CrashPolicy) -> Self {
        let frame = Frame::new(tree);
        let choices = Choice::of(&frame, policy);
        Self {
            frame,
            choices,
            next: 0,
        }
    }

    /// The state of that number. Panics if there is none.
    pub fn state(&self, number: usize) -> CrashState {
        let versions = self.choices[number].versions(&self.frame);
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
        let versions = choice.versions(&self.frame);
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
fn image(tree: &Tree, seed: Option<u64>) -> Tree {
    let mut random = seed.map(Random);
    let mut image = Tree {
        next_dir: tree.next_dir,
        dirs: BTreeMap::new(),
        ..Tree::empty(tree.has_maps)
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
                lost: Vec::new(),
                locks: Arc::default(),
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
