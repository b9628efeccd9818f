//! Packs: leaves that stay where they are, and what is written instead of them.

use std::ops::RangeInclusive;

use super::*;
use crate::btree::file::meta::{META_BYTES, Meta};
use crate::btree::node::packs::Packs;
use crate::engine::{Figure, InspectDetail, VerifyReport, Work};
use crate::types::Value;

/// Of a file with pages of 16 KiB.
const UNIT: u64 = 4096;

fn key(number: u32) -> Vec<u8> {
    let mut key = b"key-".to_vec();
    key.extend_from_slice(&number.to_be_bytes());
    key
}

/// `count` entries of `len` bytes, flushed.
fn filled(page_size: u32, count: u32, len: usize) -> (SimFs, Bench) {
    let (fs, mut bench) = Bench::in_memory(page_size);
    for first in (0..count).step_by(100) {
        let numbers = first..(first + 100).min(count);
        let ops = numbers.map(|i| OwnedOp::Put(key(i), vec![1; len]));
        bench.apply(ops.collect());
    }
    bench.engine.compact().unwrap();
    (fs, bench)
}

/// Changes one in `every` keys, from `first` on, and flushes. Returns the bytes written.
fn change(bench: &mut Bench, first: u32, every: usize, count: u32, len: usize) -> u64 {
    let before = bench.engine.stats().flush_bytes_written;
    let numbers = (first..count).step_by(every);
    bench.apply(
        numbers
            .map(|i| OwnedOp::Put(key(i), vec![first as u8; len]))
            .collect(),
    );
    bench.engine.flush().unwrap();
    bench.engine.stats().flush_bytes_written - before
}

/// A figure of the parts that `inspect` calls `kind`, added up.
pub(super) fn figure(bench: &Bench, kind: &str, name: &str) -> u64 {
    let parts = bench.engine.inspect(InspectDetail::Levels).unwrap();
    let of_kind = parts.iter().filter(|part| part.kind == kind);
    let figures = of_kind.flat_map(|part| &part.figures);
    let number = |(_, figure): &(_, Figure)| match figure {
        Figure::Number(number) => *number,
        _ => 0,
    };
    figures.filter(|figure| figure.0 == name).map(number).sum()
}

pub(super) fn packs(bench: &Bench) -> u64 {
    figure(bench, "packs", "packs")
}

#[test]
fn few_changes_in_each_leaf_write_no_leaves() {
    let (fs, mut bench) = filled(16 << 10, 20_000, 100);
    let disk_bytes = bench.engine.stats().disk_bytes;
    assert_eq!(packs(&bench), 0);
    // Each leaf has a change.
    let written = change(&mut bench, 7, 60, 20_000, 100);
    assert!(written * 20 < disk_bytes, "{written} of {disk_bytes}");
    assert!(packs(&bench) > 1);
    bench.check_all();
    bench.verify();
    for i in [0, 7, 67, 127, 19_999] {
        bench.check_get(&key(i));
    }
    let bench = bench.recover(Arc::new(fs.crash()));
    for i in [0, 7, 67, 127, 19_999] {
        bench.check_get(&key(i));
    }
    assert!(packs(&bench) > 1);
}

/// Whatever the share of changed entries, each round writes less than the leaves, and in the long
/// run each leaf is written once for many changes.
#[test]
fn what_is_written_follows_what_is_changed() {
    const COUNT: u32 = 20_000;
    let data = u64::from(COUNT) * 108;
    for (every, most) in [(100, 9), (30, 6), (10, 6), (4, 5)] {
        let (_, mut bench) = filled(16 << 10, COUNT, 100);
        let (mut written, mut put) = (0, 0);
        for round in 0..3 * every as u32 {
            let first = round % every as u32;
            written += change(&mut bench, first, every, COUNT, 100);
            put += u64::from(COUNT) / every as u64 * 108;
        }
        assert!(put > data);
        assert!(written < most * put, "{every}: {written} for {put}");
        bench.check_all();
        bench.verify();
        let stats = bench.engine.stats();
        let live = stats.disk_bytes - stats.free_bytes;
        assert!(live < data * 5 / 2, "{every}: {live} for {data}");
    }
}

/// What one read looks at: the leaf, an old pack, and recent ones that lie in one piece.
#[test]
fn a_leaf_and_its_packs_are_in_three_pieces() {
    let (fs, mut bench) = filled(16 << 10, 20_000, 100);
    for round in 0..40 {
        change(&mut bench, round % 90, 90, 20_000, 100);
        if round % 4 != 0 {
            continue;
        }
        let mut pieces = 0;
        for number in (0..20_000).step_by(501) {
            pieces = pieces.max(pieces_of(&fs, &bench, &key(number)));
        }
        assert!((1..=3).contains(&pieces), "{pieces} in round {round}");
    }
    bench.verify();
}

/// Contiguous pieces of the file that hold the leaf for a key and its packs.
fn pieces_of(fs: &SimFs, bench: &Bench, key: &[u8]) -> usize {
    use crate::btree::node::inner::Inner;
    use crate::btree::node::{Link, NodeKind, kind, unit_count};
    let file = fs
        .open(&bench.dir.join("tree.hdb"), OpenMode::Read)
        .unwrap();
    let mut meta = [0; META_BYTES];
    file.read_exact_at(&mut meta, 0).unwrap();
    let read = |link: Link| {
        let mut image = vec![0; UNIT as usize];
        let at = link.page().0 * UNIT;
        file.read_exact_at(&mut image, at).unwrap();
        image.resize(unit_count(&image) as usize * UNIT as usize, 0);
        file.read_exact_at(&mut image, at).unwrap();
        image
    };
    let mut link = Link::from_bits(crate::format::coding::get_u64(&meta, 48));
    loop {
        let image = read(link);
        if kind(&image) == Some(NodeKind::Leaf) {
            return 1;
        }
        let inner = Inner::from_image(&image);
        let i = inner.find_child(key);
        link = inner.child(i);
        if let Some(leaf) = inner.packed(i) {
            let packs = leaf.packs.as_slice().iter();
            let extents = packs.map(|link| {
                let start = link.page().0;
                start..=start + u64::from(unit_count(&read(*link)))
            });
            let mut extents: Vec<RangeInclusive<u64>> = extents.collect();
            extents.sort_by_key(|extent| *extent.start());
            // Recent packs of other leaves of the group may lie between.
            let gaps = extents
                .windows(2)
                .filter(|pair| *pair[1].start() > pair[0].end() + 24);
            return 2 + gaps.count();
        }
    }
}

/// Deletes, lengths that change, ranges, splits and merges, beside views and checkpoints that fail.
#[test]
fn packs_agree_with_an_ordered_map() {
    with_seeds(8, |seed| {
        let page_size = [1024, 4096, 16_384, 2048][seed as usize % 4];
        let count = [400, 3000, 9000][seed as usize % 3];
        let (fs, mut bench) = filled(page_size, count, 40);
        let mut random = Random(seed);
        let mut snapshots: Vec<(Arc<dyn ReadView>, Map)> = Vec::new();
        let mut had_packs = false;
        for round in 0..24 {
            let changes = [3, 30, 150, 400][random.below(4) as usize];
            let some_ops = |random: &mut Random| -> Vec<OwnedOp> {
                let ops = (0..random.below(changes) + 1).map(|_| {
                    let number = random.below(u64::from(count) * 5 / 4) as u32;
                    match random.below(12) {
                        0..=1 => OwnedOp::Delete(key(number)),
                        2 => OwnedOp::Put(key(number), vec![2; random.below(120) as usize]),
                        3 if random.one_in(200) => {
                            let end = number + random.below(300) as u32;
                            OwnedOp::DeleteRange(key(number), Some(key(end)))
                        }
                        4 if random.one_in(60) => OwnedOp::Put(key(number), vec![3; 20_000]),
                        _ => OwnedOp::Put(key(number), vec![round; 40]),
                    }
                });
                ops.collect()
            };
            let ops = some_ops(&mut random);
            if random.one_in(3) {
                // One by one: each finds its leaf by itself.
                ops.into_iter().for_each(|op| bench.apply(vec![op]));
            } else {
                bench.apply(ops);
            }
            let fails = random.one_in(6);
            let is_busy = random.one_in(2);
            let flushed = bench.flush_meanwhile(|bench| {
                if is_busy {
                    bench.apply(some_ops(&mut random));
                    bench.check_all();
                }
                if random.one_in(3) {
                    let view = bench.engine.snapshot_view(SeqNo(bench.seq)).unwrap();
                    snapshots.push((view, bench.map.clone()));
                }
                match fails {
                    true => Err(Error::invalid("the log could not be synced")),
                    false => Ok(()),
                }
            });
            assert_eq!(flushed.is_err(), fails);
            bench.check_all();
            bench.verify();
            had_packs |= packs(&bench) > 0;
            check_many(&bench, &mut random, count);
            let view = bench.engine.view().unwrap();
            check_walk(&view, &bench.map, &mut random, count);
            for (view, map) in &snapshots {
                check_scan(view, map);
            }
            if snapshots.len() > 3 {
                snapshots.remove(0);
            }
            if random.one_in(5) {
                bench.engine.flush().unwrap();
                bench = bench.recover(Arc::new(fs.crash()));
                snapshots.clear();
                let view = bench.engine.view().unwrap();
                check_scan(&view, &bench.map);
                return_to(&fs, &mut bench);
            }
        }
        assert!(had_packs, "seed {seed} makes no packs");
        bench.engine.compact().unwrap();
        assert_eq!(packs(&bench), 0);
        bench.check_all();
        bench.verify();
    });
}

/// Reads of single keys and of many at once, of the current tree and of a view, agree with the map.
fn check_many(bench: &Bench, random: &mut Random, count: u32) {
    let keys: Vec<_> = (0..40)
        .map(|_| key(random.below(u64::from(count)) as u32))
        .collect();
    let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
    let expected: Vec<_> = keys.iter().map(|key| bench.map.get(*key)).collect();
    let is_right = |found: &[Option<Value>]| {
        let found = found.iter().map(Option::as_deref);
        found.eq(expected.iter().map(|value| value.map(Vec::as_slice)))
    };
    let view = bench.engine.view().unwrap();
    assert!(is_right(&bench.engine.multi_get(&keys).unwrap()));
    assert!(is_right(&view.multi_get(&keys).unwrap()));
    for (key, value) in keys.iter().zip(&expected) {
        bench.check_get(key);
        assert_eq!(bench.engine.contains(key).unwrap(), value.is_some());
        assert_eq!(view.contains(key).unwrap(), value.is_some());
    }
}

/// Steps in both directions from a few keys.
fn check_walk(view: &Arc<dyn ReadView>, map: &Map, random: &mut Random, count: u32) {
    let mut cursor = Arc::clone(view).cursor();
    for _ in 0..4 {
        let from = key(random.below(u64::from(count)) as u32);
        cursor.seek(&from).unwrap();
        for (key, value) in map.range(from.clone()..).take(30) {
            assert_eq!(cursor.entry().unwrap(), (key.as_slice(), value.as_slice()));
            cursor.next().unwrap();
        }
        cursor.seek_before(&from).unwrap();
        for (key, value) in map.range(..from).rev().take(30) {
            assert_eq!(cursor.entry().unwrap(), (key.as_slice(), value.as_slice()));
            cursor.prev().unwrap();
        }
    }
}

/// The engine again, on the file system that crashes are made of.
fn return_to(fs: &SimFs, bench: &mut Bench) {
    *bench = bench.recover(Arc::new(fs.clone()));
}

/// Repacking reuses nothing that a view looks at.
#[test]
fn packs_are_kept_for_the_views_that_see_them() {
    let (_, mut bench) = filled(16 << 10, 5000, 100);
    let mut views = Vec::new();
    for round in 0..60 {
        change(&mut bench, round % 50, 50, 5000, 100);
        if round % 6 == 0 {
            let view = bench.engine.snapshot_view(SeqNo(bench.seq)).unwrap();
            views.push((view, bench.map.clone()));
        }
        if views.len() > 4 {
            views.remove(1);
        }
        for (view, map) in &views {
            check_scan(view, map);
        }
    }
    bench.verify();
}

/// A store that is written to without end keeps its size.
#[test]
fn packs_are_freed_with_what_they_hold() {
    let (_, mut bench) = filled(16 << 10, 5000, 100);
    let mut sizes = Vec::new();
    for round in 0..300 {
        change(&mut bench, round * 7 % 50, 50, 5000, 100);
        if round % 100 == 99 {
            sizes.push(bench.engine.stats().disk_bytes);
        }
    }
    bench.verify();
    assert!(sizes[2] < sizes[0] * 5 / 4, "{sizes:?}");
    bench.apply(vec![OwnedOp::DeleteRange(Vec::new(), None)]);
    bench.engine.compact().unwrap();
    bench.verify();
    assert!(bench.engine.stats().disk_bytes < 64 << 10);
}

/// How long a pack is was estimated with fences of ordinary length. One with longer fences was
/// written beyond the end of its area, over whatever lay there.
#[test]
fn a_pack_that_is_longer_than_expected_does_not_leave_its_area() {
    const COUNT: u32 = 576;
    with_seeds(8, |seed| {
        let mut random = Random(seed);
        let (_, mut bench) = Bench::in_memory(16 << 10);
        let filler = vec![b'f'; 1300 + 25 * seed as usize];
        // Keys of a family differ in their last bytes, and families in the first: the fences of a
        // pack are as long as keys, and have no common prefix.
        let key = |number: u32| {
            let family = (number / 48).to_be_bytes();
            [&family[..], &filler, &number.to_be_bytes()].concat()
        };
        for first in (0..COUNT).step_by(12) {
            let ops = (first..first + 12).map(|i| OwnedOp::Put(key(i), vec![1; 20]));
            bench.apply(ops.collect());
        }
        bench.engine.flush().unwrap();
        let mut had_packs = false;
        for round in 0..30 {
            let mut ops = Vec::new();
            let mut number = random.below(12) as u32;
            while number < COUNT {
                let value = vec![round; random.below(20) as usize];
                ops.push(OwnedOp::Put(key(number), value));
                number += 6 + random.below(14) as u32;
            }
            bench.apply(ops);
            bench.engine.flush().unwrap();
            bench.verify();
            had_packs |= packs(&bench) > 0;
        }
        assert!(had_packs);
        bench.check_all();
    });
}

/// Whether no checkpoint met a contradiction, up to the last but one.
fn adds_up(fs: &SimFs, bench: &Bench) -> bool {
    let path = bench.dir.join("tree.hdb");
    let file = fs.open(&path, OpenMode::Read).unwrap();
    let mut bytes = [0; META_BYTES];
    file.read_exact_at(&mut bytes, 0).unwrap();
    let meta = Meta::decode(&bytes, 77, KeyspaceId(5), &path, 0);
    meta.unwrap().adds_up
}

/// What packs take is freed when the node that they belong to is loaded. Nodes that are merged
/// afterwards bring the packs along, which must not be freed once more.
#[test]
fn packs_of_nodes_that_are_merged_are_freed_once() {
    with_seeds(12, |seed| {
        let mut random = Random(seed);
        let (fs, mut bench) = filled(1024, 4000, 40);
        for round in 0..3 {
            change(&mut bench, round, 20, 4000, 40);
        }
        assert!(packs(&bench) > 0);
        // Few leaves are left of each node, and those have packs.
        let from = random.below(60) as u32;
        for start in (from..4000).step_by(80) {
            let end = start + 40 + random.below(35) as u32;
            bench.apply(vec![OwnedOp::DeleteRange(key(start), Some(key(end)))]);
        }
        for round in 3..6 {
            bench.engine.flush().unwrap();
            bench.verify();
            bench.check_all();
            // A page that is freed twice is freed once, and noted as a contradiction.
            assert!(adds_up(&fs, &bench), "seed {seed}, round {round}");
            change(&mut bench, round, 20, 4000, 40);
        }
        bench.recover(Arc::new(fs.crash()));
    });
}

/// A delete finds out from the packs, too, whether its key is there: also one that only they have.
#[test]
fn deletes_look_into_packs() {
    let (_, mut bench) = filled(16 << 10, 5000, 100);
    // Keys beside those that are there, in packs only.
    let between = |number: u32| [key(number), vec![7]].concat();
    let numbers = || (0..5000).step_by(50);
    bench.apply(
        numbers()
            .map(|i| OwnedOp::Put(between(i), vec![7; 100]))
            .collect(),
    );
    bench.engine.flush().unwrap();
    assert!(packs(&bench) > 0);
    let absent = numbers().map(|i| OwnedOp::Delete([key(i), vec![8]].concat()));
    bench.apply(absent.collect());
    let written = bench.engine.stats().flush_bytes_written;
    bench.engine.flush().unwrap();
    let written = bench.engine.stats().flush_bytes_written - written;
    assert!(written < 16 << 10, "{written} bytes for nothing");
    bench.apply(numbers().map(|i| OwnedOp::Delete(between(i))).collect());
    bench.check_all();
    bench.engine.flush().unwrap();
    bench.verify();
    for i in numbers() {
        bench.check_get(&between(i));
        bench.check_get(&key(i));
    }
}

/// Scans pay for packs at each leaf. A checkpoint that is due because of scans leaves none to the
/// leaves that it writes.
#[test]
fn a_checkpoint_for_scans_writes_whole_leaves() {
    let (_, mut bench) = filled(16 << 10, 5000, 100);
    bench.engine.flush().unwrap();
    let mut ops = Vec::new();
    ops.extend(
        (0..5000)
            .step_by(20)
            .map(|i| OwnedOp::Put(key(i), vec![9; 100])),
    );
    bench.apply(ops);
    let is_due = (0..10_000).any(|_| {
        scan(&bench.engine.view().unwrap());
        bench.engine.work_due() == Some(Work::Flush)
    });
    assert!(is_due);
    bench.engine.flush().unwrap();
    assert_eq!(packs(&bench), 0);
    // The next one has no such reason.
    change(&mut bench, 3, 50, 5000, 100);
    assert!(packs(&bench) > 0);
    // Scans over packs give no reason either: a checkpoint would not change them.
    for _ in 0..300 {
        scan(&bench.engine.view().unwrap());
        assert_ne!(bench.engine.work_due(), Some(Work::Flush));
    }
}

/// Damage in a pack is reported by `verify`, the scrub and reads of the leaves that it changes, and
/// by nothing else.
#[test]
fn a_damaged_pack_is_noticed() {
    let (fs, mut bench) = filled(16 << 10, 5000, 100);
    change(&mut bench, 3, 50, 5000, 100);
    bench.engine.flush().unwrap();
    let (name, dir) = ("tree.hdb", bench.dir.clone());
    let file = fs.open(&dir.join(name), OpenMode::ReadWrite).unwrap();
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    let starts = packs_in(&bytes);
    assert!(!starts.is_empty());
    for start in starts.iter().take(3) {
        let at = start * UNIT as usize + 60;
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        file.write_all_at(&damaged, 0).unwrap();
        let again = bench.recover_unverified(Arc::new(fs.clone()));
        let at_pack = |report: VerifyReport| {
            let page = start * UNIT as usize;
            let is_there = |problem: &Problem| problem.offset == Some(page as u64);
            assert!(
                report.problems.iter().any(is_there),
                "{:#?}",
                report.problems
            );
        };
        at_pack(again.engine.verify().unwrap());
        at_pack(again.engine.scrub(&mut |_| Ok(())).unwrap());
        let mut failed = 0;
        for (key, value) in &bench.map {
            match again.engine.get_value(key) {
                Ok(found) => assert_eq!(found.as_deref(), Some(value.as_slice())),
                Err(error) => {
                    assert!(error.is_corruption());
                    failed += 1;
                }
            }
        }
        assert!(failed > 0);
    }
}

/// Units at which packs start that the tree of a file refers to.
fn packs_in(file: &[u8]) -> Vec<usize> {
    let groups = branches_of(file).into_iter().flat_map(|packs| packs.groups);
    let packs = groups.flat_map(|group| [group.old, group.recent].concat());
    packs.map(|pack| pack.link.page().0 as usize).collect()
}

/// What the nodes of level 1 of a file know of packs.
pub(super) fn branches_of(file: &[u8]) -> Vec<Packs> {
    use crate::btree::node::inner::Inner;
    use crate::btree::node::{Link, NodeKind, kind};
    use crate::format::coding::{get_u32, get_u64};
    let unit = get_u32(file, 104) as usize;
    let mut todo = vec![Link::from_bits(get_u64(file, 48))];
    let mut found = Vec::new();
    while let Some(link) = todo.pop() {
        let image = &file[link.page().0 as usize * unit..];
        if kind(image) != Some(NodeKind::Inner) {
            continue;
        }
        let inner = Inner::from_image(image);
        todo.extend((0..inner.child_count()).map(|i| inner.child(i)));
        found.extend(inner.packs().map(|packs| packs.decode()));
    }
    found
}

/// Leaves kept their packs for as long as nothing changed them, and every read paid for those.
#[test]
fn reads_that_have_paid_for_packs_get_whole_leaves() {
    for is_scan in [true, false] {
        let (_, mut bench) = filled(16 << 10, 5000, 100);
        change(&mut bench, 3, 50, 5000, 100);
        assert!(packs(&bench) > 0);
        let read = || match is_scan {
            true => drop(scan(&bench.engine.view().unwrap())),
            false => (3..5000).step_by(50).for_each(|i| bench.check_get(&key(i))),
        };
        assert_eq!(bench.engine.work_due(), None);
        let is_due = (0..1000).any(|_| {
            read();
            bench.engine.work_due() == Some(Work::Compact)
        });
        assert!(is_due);
        let before = bench.engine.stats();
        run_compactions(&bench);
        assert_eq!(packs(&bench), 0);
        let after = bench.engine.stats();
        assert!(after.compaction_bytes_written > before.compaction_bytes_written);
        assert_eq!(after.flush_bytes_written, before.flush_bytes_written);
        bench.check_all();
        bench.verify();
        // Without packs no read pays.
        (0..1000).for_each(|_| read());
        assert_eq!(bench.engine.work_due(), None);
    }
}

/// A compaction that gains nothing, because a view holds what is free, is followed by another one
/// only after some checkpoints; reads do not cause those, and paid on and on.
#[test]
fn reads_get_whole_leaves_though_there_is_no_space_to_gain() {
    const COUNT: u32 = 80_000;
    let (_, mut bench) = filled(4096, COUNT, 100);
    let view = bench.engine.view().unwrap();
    bench.apply(vec![OwnedOp::DeleteRange(key(COUNT / 2), None)]);
    bench.engine.flush().unwrap();
    for _ in 0..4 {
        run_compactions(&bench);
        while bench.engine.work_due().is_none() {
            change(&mut bench, 3, COUNT as usize, COUNT, 100);
        }
    }
    run_compactions(&bench);
    change(&mut bench, 3, 50, COUNT / 20, 100);
    assert!(packs(&bench) > 0);
    assert_eq!(bench.engine.work_due(), None);
    for _ in 0..1200 {
        let paying = (3..COUNT / 20).step_by(50);
        paying.for_each(|i| bench.check_get(&key(i)));
    }
    assert_eq!(bench.engine.work_due(), Some(Work::Compact));
    run_compactions(&bench);
    assert_eq!(packs(&bench), 0);
    drop(view);
    bench.check_all();
    bench.verify();
}

/// Those in the background, until none is due.
fn run_compactions(bench: &Bench) {
    let units = (0..1000).take_while(|_| bench.engine.work_due().is_some());
    for _ in units {
        bench.engine.run_once(Work::Compact).unwrap();
    }
    assert_eq!(bench.engine.work_due(), None);
}

/// While commits came, though few, reads paid for packs on and on.
#[test]
fn reads_get_whole_leaves_beside_few_commits() {
    let (_, mut bench) = filled(16 << 10, 5000, 100);
    for is_stream in [true, false] {
        change(&mut bench, 3, 50, 5000, 100);
        assert!(packs(&bench) > 0);
        let was_settled = (0..1000).any(|round| {
            (3..5000).step_by(50).for_each(|i| bench.check_get(&key(i)));
            if is_stream {
                // Packs of all leaves.
                change(&mut bench, 3 + round % 40, 50, 5000, 100);
            } else {
                bench.put(&key(0), &[5; 100]);
            }
            bench.engine.run_once(Work::Compact).unwrap();
            packs(&bench) == 0
        });
        assert_eq!(was_settled, !is_stream);
    }
    bench.check_all();
    bench.verify();
}

/// An explicit compaction has written all leaves whole, so what was paid before it is settled.
#[test]
fn a_compaction_that_was_asked_for_settles_what_reads_paid() {
    let (_, mut bench) = filled(16 << 10, 5000, 100);
    change(&mut bench, 3, 50, 5000, 100);
    while bench.engine.work_due().is_none() {
        bench.check_get(&key(3));
    }
    bench.engine.compact().unwrap();
    assert_eq!(packs(&bench), 0);
    assert_eq!(bench.engine.work_due(), None);
    change(&mut bench, 3, 5000, 5000, 100);
    assert_eq!(bench.engine.work_due(), None);
}
