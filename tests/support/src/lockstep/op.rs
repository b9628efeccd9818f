//! Operations: what they are, and how they are drawn.

use hedgerow::Durability;

use super::edit::{Bounds, Edit, Filling, KEYS, KeyNumber};
use super::one_step::OneStep;
use super::read::Read;
use crate::random::Source;

/// A step of a scan.
#[derive(Debug, Clone, Copy)]
pub enum Move {
    /// So many entries from the front.
    Front(u8),
    /// So many entries from the back.
    Back(u8),
    /// So many keys from the front.
    Keys(u8),
    /// So many keys from the back.
    BackKeys(u8),
    /// A seek to a key.
    Seek(KeyNumber),
    /// A seek from the back to a key.
    SeekBack(KeyNumber),
}

impl Move {
    pub(super) fn draw(source: &mut impl Source) -> Self {
        match source.weighted(&[6, 6, 2, 2, 2, 1]) {
            0 => Self::Front(source.below(12) as u8),
            1 => Self::Back(source.below(12) as u8),
            2 => Self::Keys(source.below(12) as u8),
            3 => Self::Seek(source.below(KEYS) as KeyNumber),
            4 => Self::BackKeys(source.below(12) as u8),
            _ => Self::SeekBack(source.below(KEYS) as KeyNumber),
        }
    }
}

/// What makes everything durable without bringing it into other files.
#[derive(Debug, Clone, Copy)]
pub enum Wait {
    /// `sync`.
    Sync,
    /// `wait_durable` for the last commit.
    Durable,
    /// The future of that.
    Polled,
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
    /// A sorted load of up to so many keys, from one on, which is finished or dropped.
    Load(Target, KeyNumber, u16, Filling, bool),
    /// Reads, decides and writes in one step, with the durability of the store.
    OneStep(Target, OneStep),
    /// `retain`, of entries whose length is no multiple.
    Retain(Target, u8),
    /// A read.
    Read(Target, Read),
    /// Takes a snapshot; of more than four the oldest goes.
    TakeSnapshot,
    /// Compares one of the snapshots.
    ReadSnapshot(usize, Target, Bounds, Read),
    /// Drops one of the snapshots.
    DropSnapshot(usize),
    /// Flushes a keyspace, which makes all commits to it durable.
    Flush(Target),
    /// Flushes the store.
    FlushAll,
    /// Makes everything durable.
    Sync(Wait),
    /// Compacts a keyspace, and compares everything.
    Compact(Target),
    /// Up to so many steps of background work.
    Background(u8),
    /// `verify` finds nothing.
    Verify,
    /// Compares everything.
    CompareAll,
    /// Changes one of the options of a keyspace, chosen by the seed.
    ChangeOption(Target, u64),
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
    const WEIGHTS: [u32; 26] = [
        1300, 80, 80, 500, 40, 200, 40, 12, 30, 10, 10, 3, 4, 3, 60, 2, 4, 1, 3, 2, 4, 8, 60, 60,
        2, 2,
    ];
    let target = source.below(2) as usize;
    match source.weighted(&WEIGHTS) {
        0 => Op::Edit(target, Edit::draw(source)),
        1 => {
            let edits = Edit::draw_batch(source);
            Op::Batch(target, edits, durability(source))
        }
        2 => {
            let edits = Edit::draw_batch(source).into_iter();
            let edits = edits.map(|edit| (source.below(2) as usize, edit)).collect();
            Op::CrossBatch(edits, durability(source))
        }
        3 => Op::Read(target, Read::Get(source.below(KEYS) as KeyNumber)),
        4 => Op::Read(target, Read::draw_multi_get(source)),
        5 => Op::Read(target, Read::draw_scan(source)),
        6 => Op::Read(target, Read::draw_prefix(source)),
        7 => Op::TakeSnapshot,
        8 => {
            let (which, bounds) = (source.below(8) as usize, Bounds::draw(source));
            Op::ReadSnapshot(which, target, bounds, Read::draw(source))
        }
        9 => Op::DropSnapshot(source.below(8) as usize),
        10 => Op::Flush(target),
        11 => Op::FlushAll,
        12 => Op::Sync(*source.pick(&[Wait::Sync, Wait::Durable, Wait::Polled])),
        13 => Op::Compact(target),
        14 => Op::Background(1 + source.below(4) as u8),
        15 => Op::Verify,
        16 => Op::CompareAll,
        17 => Op::Recreate(target),
        18 => Op::Reopen,
        19 => Op::Abandon,
        20 => draw_crash(source),
        21 => draw_load(source, target),
        22 => Op::Read(target, Read::draw_rare(source)),
        23 => Op::OneStep(target, OneStep::draw(source)),
        24 => Op::ChangeOption(target, source.below(1 << 16)),
        _ => Op::Retain(target, 2 + source.below(16) as u8),
    }
}

fn draw_load(source: &mut impl Source, target: Target) -> Op {
    let first = source.below(KEYS) as KeyNumber;
    let most = if source.one_in(3) { KEYS / 2 } else { 30 };
    let count = source.below(most) as u16;
    let filling = Filling::draw(source);
    Op::Load(target, first, count, filling, !source.one_in(4))
}

fn draw_crash(source: &mut impl Source) -> Op {
    let seed = source.below(1 << 16);
    let recoveries = recoveries(source);
    match seed % 8 {
        0..4 => Op::Crash(recoveries),
        4 | 5 => Op::CrashKeeping(seed, recoveries),
        6 => Op::CrashState(seed, recoveries),
        _ => Op::Kill,
    }
}

/// After how many changes of the file system recoveries fail: mostly none does.
fn recoveries(source: &mut impl Source) -> Vec<u64> {
    let count = source.weighted(&[2, 1, 1]);
    (0..count).map(|_| source.below(40)).collect()
}
