//! One key, its versions in the inputs of a job, and what reads see before and after.

use std::sync::Arc;

use super::*;
use crate::engine::LiveSnapshots;
use crate::fs::{Fs, SimFs};
use crate::lsm::entry::{RangeTombstone, merge_parts};
use crate::resolve::{Append, CompactionFilter, Judged, MergeOperator, Stamp, Verdict};
use crate::testing::{AppendInFull, Random, no_values};

/// An entry that owns its value.
type Owned = (u64, EntryKind, Vec<u8>);

/// What a read at `at` sees, of entries newest first, over `older`.
fn visible(
    resolver: &Resolver,
    entries: &[Owned],
    covers: &[u64],
    older: Option<&[u8]>,
    at: u64,
) -> Option<Vec<u8>> {
    let mut operands: Vec<&[u8]> = Vec::new();
    let mut seq = at;
    let base = loop {
        let newest = entries.iter().find(|(s, ..)| *s <= seq);
        let own = newest.map_or(0, |(s, ..)| *s);
        if covers.iter().any(|cover| *cover <= seq && *cover > own) {
            break None;
        }
        match newest {
            None => break older,
            Some((_, EntryKind::Delete, _)) => break None,
            Some((s, EntryKind::Merge, value)) => {
                let (since, operand) = merge_parts(value, SeqNo(*s)).unwrap();
                operands.insert(0, operand);
                seq = since.0;
            }
            Some((_, _, value)) => break Some(value.as_slice()),
        }
    };
    match operands.is_empty() {
        true => base.map(<[u8]>::to_vec),
        false => Some(resolver.fold(b"key", base, &operands)),
    }
}

fn passed_on(case: &Case, entries: &[Owned], resolver: &Resolver, is_bottom: bool) -> Vec<Owned> {
    passed_on_of(case, (entries, 0..u64::MAX), resolver, is_bottom)
}

struct Case {
    entries: Vec<Owned>,
    covers: Vec<u64>,
    boundaries: Boundaries,
    /// Numbers that reads may use.
    readable: Vec<u64>,
}

impl Case {
    fn random(random: &mut Random, time_ms: u64, value: impl Fn(u64) -> Vec<u8>) -> Self {
        let published = 5 + random.below(15);
        let (mut entries, mut covers) = (Vec::new(), Vec::new());
        for seq in (1..=25u64).rev() {
            let operand = vec![b'a' + seq as u8];
            match random.below(8) {
                0 => covers.push(seq),
                1 => entries.push((seq, EntryKind::Delete, vec![])),
                2 => entries.push((seq, EntryKind::Put, value(seq))),
                3..7 => {
                    let value = merge_value(SeqNo(seq - 1), &operand);
                    entries.push((seq, EntryKind::Merge, value));
                }
                _ => {}
            }
        }
        let snapshots: Vec<_> = (0..published).filter(|_| random.below(6) == 0).collect();
        let boundaries = Boundaries::new(LiveSnapshots {
            snapshots: snapshots.iter().copied().map(SeqNo).collect(),
            published: SeqNo(published),
            time_ms,
        });
        let readable = snapshots.into_iter().chain(published..=25).collect();
        Self {
            entries,
            covers,
            boundaries,
            readable,
        }
    }

    /// The range tombstones among those numbers.
    fn index(&self, within: std::ops::Range<u64>) -> TombstoneIndex {
        let tombstone = |seq: &u64| RangeTombstone {
            start: b"a".to_vec(),
            end: None,
            seq: SeqNo(*seq),
        };
        let covers = self.covers.iter().filter(|seq| within.contains(seq));
        TombstoneIndex::new(covers.map(tombstone).collect())
    }
}

/// What a job passes on of `entries`, which are newest first, and all that there is of those
/// numbers.
fn passed_on_of(
    case: &Case,
    (entries, within): (&[Owned], std::ops::Range<u64>),
    resolver: &Resolver,
    is_bottom: bool,
) -> Vec<Owned> {
    let fs: Arc<dyn Fs> = Arc::new(SimFs::new());
    let values = no_values(&fs);
    let index = case.index(within);
    let judged = Judged::default();
    let boundaries = case.boundaries.clone().filtering(resolver.filter());
    let mut resolution = Resolution::new(resolver, &values, &boundaries, &index, &judged);
    resolution.begin(b"key");
    for (seq, kind, value) in entries {
        resolution.take(&Entry {
            key: b"key",
            seq: SeqNo(*seq),
            kind: *kind,
            value,
        });
    }
    resolution.resolve(|_| is_bottom).unwrap();
    let kept = resolution.kept().iter();
    kept.map(|version| (version.seq.0, version.kind, version.value.clone()))
        .collect()
}

fn resolver_of(operator: impl MergeOperator + 'static) -> Resolver {
    Resolver::new(Some(Arc::new(operator)), None, false, 0, Arc::default())
}

#[test]
fn reads_at_every_boundary_see_the_same() {
    let resolvers = [resolver_of(Append), resolver_of(AppendInFull)];
    for seed in 0..2000 {
        let mut random = Random::new(seed);
        let case = Case::random(&mut random, 0, |seq| vec![b'A' + seq as u8]);
        let resolver = &resolvers[seed as usize % 2];
        for is_bottom in [false, true] {
            let older = (!is_bottom).then_some(&b"older"[..]);
            // In one job, or in two: the older part first, as the tables of a lower level.
            let whole = passed_on(&case, &case.entries, resolver, is_bottom);
            let (newer, lower) = case.entries.split_at(random.index(case.entries.len() + 1));
            let cut = lower.first().map_or(0, |(seq, ..)| seq + 1);
            let mut parts = passed_on_of(&case, (newer, cut..u64::MAX), resolver, false);
            parts.extend(passed_on_of(&case, (lower, 0..cut), resolver, is_bottom));
            let again = passed_on(&case, &parts, resolver, is_bottom);
            for kept in [&whole, &parts, &again] {
                assert!(kept.is_sorted_by(|a, b| a.0 > b.0), "seed {seed}: {kept:?}");
                for at in &case.readable {
                    assert_eq!(
                        visible(resolver, kept, &case.covers, older, *at),
                        visible(resolver, &case.entries, &case.covers, older, *at),
                        "seed {seed} at {at}, bottom {is_bottom}: {kept:?} of {:?}",
                        case.entries
                    );
                }
            }
            // At the bottom everything is known, and nothing is left to be folded but what is not
            // published yet.
            if is_bottom {
                let published = case.boundaries.as_slice().last().unwrap().0;
                let is_merge =
                    |(seq, kind, _): &&Owned| *kind == EntryKind::Merge && *seq <= published;
                assert_eq!(whole.iter().filter(is_merge).count(), 0, "seed {seed}");
            }
        }
    }
}

/// What has expired goes if no registered read sees it, and hides what is older as before.
#[test]
fn expired_values_become_deletes_where_they_hide_something() {
    let resolver = Resolver::new(None, None, true, 0, Arc::default());
    for seed in 0..2000 {
        let mut random = Random::new(seed);
        let time_ms = random.below(30);
        let value = |seq: u64| Stamp { expires_at_ms: seq }.put_behind(vec![b'A' + seq as u8]);
        let mut case = Case::random(&mut random, time_ms, value);
        case.entries
            .retain(|(_, kind, _)| *kind != EntryKind::Merge);
        for is_bottom in [false, true] {
            let older = (!is_bottom).then(|| value(40));
            let kept = passed_on(&case, &case.entries, &resolver, is_bottom);
            let see = |entries: &[Owned], at| {
                let stored = visible(&resolver, entries, &case.covers, older.as_deref(), at)?;
                resolver.visible(&stored, time_ms).map(<[u8]>::to_vec)
            };
            for at in &case.readable {
                assert_eq!(
                    see(&kept, *at),
                    see(&case.entries, *at),
                    "seed {seed} at {at}"
                );
            }
            let published = case.boundaries.as_slice().last().unwrap().0;
            let is_left = |(seq, kind, value): &&Owned| {
                *seq <= published
                    && *kind == EntryKind::Put
                    && resolver.visible(value, time_ms).is_none()
            };
            assert_eq!(kept.iter().filter(is_left).count(), 0, "seed {seed}");
        }
    }
}

#[derive(Debug)]
struct DropAll;

impl CompactionFilter for DropAll {
    fn name(&self) -> &str {
        "drop-all"
    }

    fn judge(&self, _key: &[u8], _value: &[u8]) -> Verdict {
        Verdict::Drop
    }
}

#[test]
fn a_filter_drops_nothing_that_a_snapshot_sees() {
    let resolver = Resolver::new(
        Some(Arc::new(Append)),
        Some(Arc::new(DropAll)),
        false,
        0,
        Arc::default(),
    );
    for seed in 0..2000 {
        let mut random = Random::new(seed);
        let case = Case::random(&mut random, 0, |seq| vec![b'A' + seq as u8]);
        let numbers = case.boundaries.as_slice();
        let published = numbers.last().unwrap().0;
        for is_bottom in [false, true] {
            let older = (!is_bottom).then_some(&b"older"[..]);
            let kept = passed_on(&case, &case.entries, &resolver, is_bottom);
            for at in case.readable.iter().filter(|at| **at < published) {
                assert_eq!(
                    visible(&resolver, &kept, &case.covers, older, *at),
                    visible(&resolver, &case.entries, &case.covers, older, *at),
                    "seed {seed} at {at}"
                );
            }
            // What only reads from now on see is gone, unless what it is made of lies elsewhere.
            let newest_snapshot = case.readable.iter().filter(|at| **at < published).max();
            let is_left = |(seq, kind, _): &&Owned| {
                let is_seen = newest_snapshot.is_some_and(|snapshot| seq <= snapshot);
                *kind == EntryKind::Put && *seq <= published && !is_seen
            };
            assert_eq!(kept.iter().filter(is_left).count(), 0, "seed {seed}");
        }
    }
}

/// Each of them held all that are older: a batch of so many merges that a flush met before it was
/// published took memory and time by the square.
#[test]
fn unpublished_merges_are_not_chained_for_each_of_them() {
    const COUNT: u64 = 500;
    let live = LiveSnapshots {
        snapshots: vec![],
        published: SeqNo(1),
        time_ms: 0,
    };
    let (boundaries, index) = (Boundaries::new(live), TombstoneIndex::new(vec![]));
    let fs: Arc<dyn Fs> = Arc::new(SimFs::new());
    let values = no_values(&fs);
    let (resolver, judged) = (resolver_of(AppendInFull), Judged::default());
    let mut resolution = Resolution::new(&resolver, &values, &boundaries, &index, &judged);
    resolution.begin(b"key");
    for seq in (2..2 + COUNT).rev() {
        resolution.take(&Entry {
            key: b"key",
            seq: SeqNo(seq),
            kind: EntryKind::Merge,
            value: &merge_value(SeqNo(seq - 1), b"operand"),
        });
    }
    let held = resolution.outcomes.iter().map(|it| it.chain.len());
    assert_eq!(held.sum::<usize>() as u64, COUNT);
    resolution.resolve(|_| false).unwrap();
    assert_eq!(resolution.kept().len() as u64, COUNT);
}
