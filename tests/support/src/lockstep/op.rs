//! Operations: what they are, and how they are drawn.

use std::collections::BTreeMap;
use std::ops::Bound;

use hedgerow::{Batch, Durability, Keyspace, Kv, SeqNo, WriteBatch};

use crate::random::{Random, Source};

/// What a keyspace holds.
pub(super) type Map = BTreeMap<Vec<u8>, Vec<u8>>;

/// One of [`KEYS`] keys by its number, so that operations are small to draw and to print.
pub type KeyNumber = u16;

/// How many keys there are. Few enough that operations meet.
pub const KEYS: u64 = 1024;

/// The bytes of a key: short ones, long shared prefixes, zeros, 0xFF, the empty one, and a few
/// that are longer than a page.
pub fn key(number: KeyNumber) -> Vec<u8> {
    let (class, n) = (number % 8, (number / 8) as u8);
    match (class, n) {
        (7, 0) => Vec::new(),
        (7, 1) => vec![b'L'; 700],
        (7, 2) => vec![b'L'; 3000],
        (7, 3) => vec![b'L'; 65_535],
        (7, n) => [&vec![0xFF; usize::from(n % 12)][..], &[n]].concat(),
        (6, n) => [&vec![0; usize::from(n % 10)][..], &[n]].concat(),
        (5, n) => [
            &b"a prefix that is shared by quite a few of the keys/"[..],
            &[n],
        ]
        .concat(),
        (class, n) => vec![b'a' + class as u8, n],
    }
}

/// A value by its length and what it is filled with.
#[derive(Debug, Clone, Copy)]
pub struct Filling {
    len: u32,
    seed: u32,
}

impl Filling {
    fn draw(source: &mut impl Source) -> Self {
        let len = match source.weighted(&[60, 30, 6, 2, 1]) {
            0 => source.below(16),
            1 => source.below(120),
            2 => 240 + source.below(40),
            3 => 900 + source.below(1400),
            _ => source.below(9000),
        };
        Self {
            len: len as u32,
            seed: source.below(1 << 16) as u32,
        }
    }

    fn bytes(self) -> Vec<u8> {
        Random::new(self.seed.into()).bytes(self.len as usize)
    }
}

/// Bounds between numbered keys.
#[derive(Debug, Clone, Copy)]
pub struct Bounds(Bound<KeyNumber>, Bound<KeyNumber>);

impl Bounds {
    fn draw_one(source: &mut impl Source, number: u64) -> Bound<KeyNumber> {
        let number = (number % KEYS) as KeyNumber;
        match source.weighted(&[10, 4, 1]) {
            0 => Bound::Included(number),
            1 => Bound::Excluded(number),
            _ => Bound::Unbounded,
        }
    }

    fn draw(source: &mut impl Source) -> Self {
        let low = source.below(KEYS);
        let high = source.below(KEYS);
        Self(Self::draw_one(source, low), Self::draw_one(source, high))
    }

    /// Mostly a short stretch within one class of keys.
    fn draw_narrow(source: &mut impl Source) -> Self {
        if source.one_in(24) {
            return Self::draw(source);
        }
        let low = source.below(KEYS);
        let high = low + 8 * source.below(16);
        Self(
            Bound::Included((low % KEYS) as KeyNumber),
            Bound::Excluded((high % KEYS) as KeyNumber),
        )
    }

    pub(super) fn keys(self) -> (Bound<Vec<u8>>, Bound<Vec<u8>>) {
        (self.0.map(key), self.1.map(key))
    }
}

/// A change of one keyspace.
#[derive(Debug, Clone, Copy)]
pub enum Edit {
    /// Sets a key.
    Put(KeyNumber, Filling),
    /// Removes a key.
    Delete(KeyNumber),
    /// Appends to the value of a key. Not drawn: see [`Op::with_merges`].
    Merge(KeyNumber, Filling),
    /// Removes all keys between bounds.
    DeleteRange(Bounds),
}

impl Edit {
    /// Removes everything.
    pub(super) const DELETE_ALL: Self =
        Self::DeleteRange(Bounds(Bound::Unbounded, Bound::Unbounded));

    fn draw(source: &mut impl Source) -> Self {
        let number = source.below(KEYS) as KeyNumber;
        match source.weighted(&[30, 9, 1]) {
            0 => Self::Put(number, Filling::draw(source)),
            1 => Self::Delete(number),
            _ => Self::DeleteRange(Bounds::draw_narrow(source)),
        }
    }

    /// A merge in the place of some short puts.
    fn with_merges(self) -> Self {
        match self {
            Self::Put(number, filling) if filling.len < 120 && filling.seed.is_multiple_of(2) => {
                Self::Merge(number, filling)
            }
            edit => edit,
        }
    }

    pub(super) fn apply(self, kv: &impl Kv) -> hedgerow::Result<SeqNo> {
        match self {
            Self::Put(number, filling) => kv.put(key(number), filling.bytes()),
            Self::Delete(number) => kv.delete(key(number)),
            Self::Merge(number, filling) => kv.merge(key(number), filling.bytes()),
            Self::DeleteRange(bounds) => kv.delete_range(bounds.keys()),
        }
    }

    pub(super) fn add_to(self, batch: &mut Batch) {
        match self {
            Self::Put(number, filling) => batch.put(key(number), filling.bytes()),
            Self::Delete(number) => batch.delete(key(number)),
            Self::Merge(number, filling) => batch.merge(key(number), filling.bytes()),
            Self::DeleteRange(bounds) => batch.delete_range(bounds.keys()),
        }
    }

    pub(super) fn add_to_store_batch(self, batch: &mut WriteBatch, keyspace: &Keyspace) {
        match self {
            Self::Put(number, filling) => batch.put(keyspace, key(number), filling.bytes()),
            Self::Delete(number) => batch.delete(keyspace, key(number)),
            Self::Merge(number, filling) => batch.merge(keyspace, key(number), filling.bytes()),
            Self::DeleteRange(bounds) => batch.delete_range(keyspace, bounds.keys()),
        }
    }

    pub(super) fn apply_to_map(self, map: &mut Map) {
        match self {
            Self::Put(number, filling) => {
                map.insert(key(number), filling.bytes());
            }
            Self::Delete(number) => {
                map.remove(&key(number));
            }
            Self::Merge(number, filling) => {
                map.entry(key(number)).or_default().extend(filling.bytes());
            }
            Self::DeleteRange(bounds) => {
                let (low, high) = bounds.keys();
                map.retain(|key, _| {
                    let above = match &low {
                        Bound::Included(low) => key >= low,
                        Bound::Excluded(low) => key > low,
                        Bound::Unbounded => true,
                    };
                    let below = match &high {
                        Bound::Included(high) => key <= high,
                        Bound::Excluded(high) => key < high,
                        Bound::Unbounded => true,
                    };
                    !(above && below)
                });
            }
        }
    }
}

/// A step of a scan.
#[derive(Debug, Clone, Copy)]
pub enum Move {
    /// So many entries from the front.
    Front(u8),
    /// So many entries from the back.
    Back(u8),
    /// So many keys from the front.
    Keys(u8),
    /// A seek to a key.
    Seek(KeyNumber),
}

/// Which of the two keyspaces: an index into [`EngineKind::ALL`](hedgerow::EngineKind::ALL).
pub type Target = usize;

/// Something to do to the store.
#[derive(Debug, Clone)]
pub enum Op {
    /// A commit of one change, with the durability of the store.
    Edit(Target, Edit),
    /// A batch of one keyspace.
    Batch(Target, Vec<Edit>, Durability),
    /// One batch over both engines.
    CrossBatch(Vec<(Target, Edit)>, Durability),
    /// `get` and `contains`.
    Get(Target, KeyNumber),
    /// `multi_get`.
    MultiGet(Target, Vec<KeyNumber>),
    /// A scan between bounds.
    Scan(Target, Bounds, Vec<Move>),
    /// A scan of what starts like a key without so many of its last bytes.
    Prefix(Target, KeyNumber, u8),
    /// Takes a snapshot; of more than four the oldest goes.
    TakeSnapshot,
    /// Compares one of the snapshots.
    ReadSnapshot(usize, Target, Bounds),
    /// Drops one of the snapshots.
    DropSnapshot(usize),
    /// Flushes a keyspace.
    Flush(Target),
    /// Flushes the store.
    FlushAll,
    /// Makes everything durable.
    Sync,
    /// Compacts a keyspace, and compares everything.
    Compact(Target),
    /// Up to so many steps of background work.
    Background(u8),
    /// `verify` finds nothing.
    Verify,
    /// Compares everything.
    CompareAll,
    /// Drops the keyspace and makes it anew, with the other sizes and under another name first.
    Recreate(Target),
    /// Closes the store and opens it again.
    Reopen,
    /// Drops the store without closing it, and opens it again.
    Abandon,
    /// A power loss that takes everything that was not synced. Then recoveries that fail after so
    /// many changes of the file system, each followed by a power loss of its own.
    Crash(Vec<u64>),
    /// As [`Op::Crash`], but a part, chosen by the seed, of what was not synced is kept.
    CrashKeeping(u64, Vec<u64>),
    /// As [`Op::Crash`], to one of the states that the fault model allows, chosen by the seed.
    CrashState(u64, Vec<u64>),
    /// The process is killed, which loses nothing. The recovery is not interrupted, but a power
    /// loss follows.
    Kill,
}

impl Op {
    /// The same with merges in the place of some puts, for keyspaces whose operator appends.
    #[must_use]
    pub fn with_merges(&self) -> Self {
        match self {
            Self::Edit(target, edit) => Self::Edit(*target, edit.with_merges()),
            Self::Batch(target, edits, durability) => {
                let edits = edits.iter().map(|edit| edit.with_merges());
                Self::Batch(*target, edits.collect(), *durability)
            }
            Self::CrossBatch(edits, durability) => {
                let edits = edits
                    .iter()
                    .map(|(target, edit)| (*target, edit.with_merges()));
                Self::CrossBatch(edits.collect(), *durability)
            }
            other => other.clone(),
        }
    }

    /// The operations of a batch one by one; anything else as it is.
    pub fn taken_apart(&self) -> Vec<Self> {
        match self {
            Self::Batch(target, edits, _) => edits
                .iter()
                .map(|edit| Self::Edit(*target, *edit))
                .collect(),
            Self::CrossBatch(edits, _) => edits
                .iter()
                .map(|(target, edit)| Self::Edit(*target, *edit))
                .collect(),
            other => vec![other.clone()],
        }
    }
}

fn durability(source: &mut impl Source) -> Durability {
    if source.one_in(3) {
        Durability::Sync
    } else {
        Durability::Buffered
    }
}

/// Draws an operation.
pub fn draw(source: &mut impl Source) -> Op {
    const WEIGHTS: [u32; 22] = [
        1300, 80, 80, 500, 40, 200, 40, 12, 30, 10, 10, 3, 4, 3, 60, 2, 4, 1, 3, 2, 2, 2,
    ];
    let target = source.below(2) as usize;
    match source.weighted(&WEIGHTS) {
        0 => Op::Edit(target, Edit::draw(source)),
        1 => {
            let edits = (0..source.below(12)).map(|_| Edit::draw(source)).collect();
            Op::Batch(target, edits, durability(source))
        }
        2 => {
            let edits = (0..source.below(12))
                .map(|_| (source.below(2) as usize, Edit::draw(source)))
                .collect();
            Op::CrossBatch(edits, durability(source))
        }
        3 => Op::Get(target, source.below(KEYS) as KeyNumber),
        4 => {
            let keys = (0..source.below(24))
                .map(|_| source.below(KEYS) as KeyNumber)
                .collect();
            Op::MultiGet(target, keys)
        }
        5 => {
            let bounds = Bounds::draw(source);
            let moves = (0..1 + source.below(4))
                .map(|_| match source.weighted(&[3, 3, 1, 1]) {
                    0 => Move::Front(source.below(12) as u8),
                    1 => Move::Back(source.below(12) as u8),
                    2 => Move::Keys(source.below(12) as u8),
                    _ => Move::Seek(source.below(KEYS) as KeyNumber),
                })
                .collect();
            Op::Scan(target, bounds, moves)
        }
        6 => Op::Prefix(
            target,
            source.below(KEYS) as KeyNumber,
            source.below(4) as u8,
        ),
        7 => Op::TakeSnapshot,
        8 => Op::ReadSnapshot(source.below(8) as usize, target, Bounds::draw(source)),
        9 => Op::DropSnapshot(source.below(8) as usize),
        10 => Op::Flush(target),
        11 => Op::FlushAll,
        12 => Op::Sync,
        13 => Op::Compact(target),
        14 => Op::Background(1 + source.below(4) as u8),
        15 => Op::Verify,
        16 => Op::CompareAll,
        17 => Op::Recreate(target),
        18 => Op::Reopen,
        19 => Op::Abandon,
        20 => Op::Crash(recoveries(source)),
        _ => {
            let seed = source.below(1 << 16);
            let recoveries = recoveries(source);
            match seed % 4 {
                0 | 1 => Op::CrashKeeping(seed, recoveries),
                2 => Op::CrashState(seed, recoveries),
                _ => Op::Kill,
            }
        }
    }
}

/// After how many changes of the file system recoveries fail: mostly none does.
fn recoveries(source: &mut impl Source) -> Vec<u64> {
    let count = source.weighted(&[2, 1, 1]);
    (0..count).map(|_| source.below(40)).collect()
}
