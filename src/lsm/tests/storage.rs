//! What a tree does to its files: what it reads again, joins and gives back.

use super::*;
use crate::engine::{Cursor, LoadFailed, Pressure, Work};
use crate::fs::OpenMode;
use crate::lsm::obsolete_files::{FileName, parse_name};
use crate::types::KeyRange;

/// Applies and publishes what comes.
pub(super) struct Live {
    pub(super) engine: Arc<LsmEngine>,
    snapshot_tracker: Arc<SnapshotTracker>,
    seq: AtomicU64,
}

impl Live {
    pub(super) fn new(world: &World) -> Self {
        Self::of(world, LsmEngine::create(world.context()).unwrap())
    }

    pub(super) fn of(world: &World, engine: Arc<LsmEngine>) -> Self {
        Self {
            seq: AtomicU64::new(engine.persisted_seq().0),
            engine,
            snapshot_tracker: Arc::clone(&world.snapshot_tracker),
        }
    }

    pub(super) fn commit(&self, op: Op<'_>) {
        let seq = SeqNo(self.seq.fetch_add(1, Ordering::Relaxed) + 1);
        self.engine.apply(&[SequencedOp::new(seq, op)]).unwrap();
        self.snapshot_tracker.publish(seq);
    }

    pub(super) fn put(&self, key: &[u8], value: &[u8]) {
        self.commit(Op::Put { key, value });
    }

    fn delete_range(&self, start: &[u8], end: Option<&[u8]>) {
        self.commit(Op::DeleteRange { start, end });
    }

    pub(super) fn flush(&self) {
        self.engine.flush().unwrap();
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        get_of(&self.engine.view().unwrap())(key)
    }

    pub(super) fn entries(&self) -> Map {
        let mut entries = Map::new();
        let mut cursor = self.engine.view().unwrap().cursor();
        cursor.seek_first().unwrap();
        while cursor.is_valid() {
            let (key, value) = cursor.entry().unwrap();
            entries.insert(key.to_vec(), value.to_vec());
            cursor.next().unwrap();
        }
        entries
    }

    /// Does background work until there is none.
    pub(super) fn settle(&self) {
        while let Some(work) = self.engine.work_due() {
            self.engine.run_once(work).unwrap();
        }
    }

    pub(super) fn tables(&self) -> u64 {
        self.engine.stats().files
    }
}

pub(super) fn on_disk() -> (tempfile::TempDir, World) {
    let scratch = tempfile::tempdir().unwrap();
    let world = World::new(Arc::new(StdFs::new()), &scratch.path().join("tree"));
    (scratch, world)
}

pub(super) fn in_memory() -> World {
    World::new(Arc::new(SimFs::new()), Path::new("/store/tree"))
}

pub(super) fn key_of(number: u64) -> [u8; 8] {
    number.to_be_bytes()
}

/// The paths of the tables in the directory.
fn table_paths(world: &World) -> Vec<PathBuf> {
    let names = world.fs.read_dir(&world.dir).unwrap();
    let tables = names
        .iter()
        .filter(|name| matches!(parse_name(name), Some(FileName::Table(_))));
    tables.map(|name| world.dir.join(name)).collect()
}

/// Changes a byte in the midst of the blocks of the file, and back again.
fn flip(world: &World, path: &Path) {
    let file = world.fs.open(path, OpenMode::ReadWrite).unwrap();
    let at = file.len().unwrap() / 4;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

/// Mapped blocks are verified once and then trusted; a compaction wrote bytes that had changed
/// since into its outputs, with checksums that matched.
#[test]
fn damage_gets_no_new_checksum_from_a_compaction() {
    for use_mmap in [true, false] {
        let (_scratch, world) = on_disk();
        let mut context = world.context();
        context.use_mmap = use_mmap;
        let live = Live::of(&world, LsmEngine::create(context).unwrap());
        for number in 0..100 {
            live.put(&key_of(number), &[b'v'; 40]);
        }
        live.flush();
        let before = live.entries();
        assert_eq!(before.len(), 100);

        let paths = table_paths(&world);
        let path = paths[0].clone();
        flip(&world, &path);
        match live.engine.compact() {
            Err(Error::Corruption { file, .. }) => assert_eq!(file, path),
            other => panic!("{other:?}"),
        }
        assert_eq!(table_paths(&world), paths);

        flip(&world, &path);
        live.engine.compact().unwrap();
        assert_eq!(live.entries(), before);
    }
}

/// Each batch of rising keys went to the last level as a table of its own, and stayed one: 500
/// flushes left 125 tables.
#[test]
fn tables_of_rising_keys_are_joined_and_rewritten_a_few_times_only() {
    for compression in [Compression::None, Compression::Lz4] {
        let mut world = in_memory();
        world.options = world
            .options
            .table_size_bytes(1 << 20)
            .compression(compression);
        let live = Live::new(&world);
        let mut random = Random::new(3);
        let flushes = 500;
        for flush in 0..flushes {
            for number in 0..4 {
                live.put(&key_of(flush * 4 + number), &random.bytes(90));
            }
            live.flush();
            live.settle();
            assert!(live.tables() <= 4 + 2 * 10, "{} tables", live.tables());
        }
        let stats = live.engine.stats();
        assert!(stats.compactions > 100, "{stats:?}");
        // Quadrupled from one batch of level 0 to all of it: five times, and a move.
        let rewritten = stats.compaction_bytes_written as f64 / stats.flush_bytes_written as f64;
        assert!(rewritten < 6.0, "{rewritten}");
        assert_eq!(live.entries().len(), 4 * flushes as usize);
        assert!(live.engine.verify().unwrap().is_clean());
    }
}

/// A join counted its blocks as they are before they are compressed, cut its output where they
/// were as long as a table, and so made the tables that it had begun with, again and again.
#[test]
fn tables_that_compress_well_are_joined_once() {
    let live = Live::new(&in_memory());
    for number in 0..24 {
        live.put(&key_of(number), &[number as u8; 40_000]);
        live.flush();
        for _ in 0..20 {
            live.engine.run_once(Work::Compact).unwrap();
        }
    }
    assert!(live.tables() <= 8, "{}", live.tables());
    let compactions = live.engine.stats().compactions;
    assert!(compactions <= 24, "{compactions}");
    assert_eq!(live.engine.work_due(), None);
    assert_eq!(live.entries().len(), 24);
}

/// The 33rd queue of a keyspace pushed the range of another one out of the list, so every take
/// walked over all earlier ones: 75 times slower than 32 queues.
#[test]
fn many_queues_of_a_keyspace_are_as_fast_as_few() {
    const LENGTH: u64 = 300;
    const TAKES: u64 = 200;
    let name = |queue: u64, number: u64| [queue.to_be_bytes(), number.to_be_bytes()].concat();
    let average = |queues: u64| {
        let live = Live::new(&in_memory());
        for queue in 0..queues {
            for number in 0..LENGTH {
                live.put(&name(queue, number), b"of some length");
            }
        }
        live.engine.compact().unwrap();
        let mut random = Random::new(queues);
        let mut taken = vec![0; queues as usize];
        let before = live.engine.stats().blocks_read;
        for _ in 0..queues * TAKES {
            let queue = random.below(queues);
            let first = &mut taken[queue as usize];
            if *first == LENGTH {
                continue;
            }
            let mut cursor = live.engine.view().unwrap().cursor();
            cursor.seek(&name(queue, 0)).unwrap();
            assert_eq!(cursor.key(), name(queue, *first));
            live.commit(Op::Delete {
                key: &name(queue, *first),
            });
            live.put(&name(queue, LENGTH + *first), b"of some length");
            *first += 1;
        }
        (live.engine.stats().blocks_read - before) as f64 / (queues * TAKES) as f64
    };
    let (few, many) = (average(16), average(48));
    assert!(
        many < 1.5 * few + 2.0,
        "{few} blocks a take with 16 queues, {many} with 48"
    );
}

/// The last scan over tables that a compaction had replaced ended their maps, which can take long,
/// on the thread of the reader.
#[test]
fn a_reader_that_drops_the_last_view_leaves_the_tables_to_background_work() {
    let (_scratch, world) = on_disk();
    let live = Live::new(&world);
    live.put(b"key", b"value");
    live.flush();
    let scan = live.engine.view().unwrap().cursor();
    let table = {
        let version = Arc::clone(&live.engine.superversion().version);
        let (_, table) = version.tables().next().unwrap();
        Arc::downgrade(table.table())
    };
    let paths = table_paths(&world);
    live.put(b"key", b"other");
    live.engine.compact().unwrap();
    live.settle();
    assert!(world.fs.exists(&paths[0]).unwrap());
    drop(scan);
    assert!(table.upgrade().is_some(), "it is still mapped");
    assert!(live.engine.work_due().is_some());
    live.settle();
    assert!(table.upgrade().is_none());
    assert!(!world.fs.exists(&paths[0]).unwrap());
}

/// Each table held its range tombstones twice, and an index of them held each key twice again.
#[test]
fn range_tombstones_are_held_once_and_counted() {
    const COUNT: u64 = 1000;
    let mut world = in_memory();
    world.options = world.options.write_buffer_bytes(1 << 20);
    let live = Live::new(&world);
    live.put(b"first", b"");
    live.flush();
    let before = live.engine.stats().pinned_bytes;
    let key = |number: u64| [&number.to_be_bytes()[..], &[7; 192]].concat();
    for number in 0..COUNT {
        live.delete_range(&key(2 * number), Some(&key(2 * number + 1)));
    }
    live.flush();
    let pinned = live.engine.stats().pinned_bytes - before;
    // Two keys of 200 bytes each in memory, and once more as they are stored, since no file of the
    // simulator is mapped.
    let keys = COUNT * 2 * 200;
    assert!(
        (2 * keys..2 * keys + 200 * COUNT).contains(&pinned),
        "{pinned} of {keys}"
    );
}

/// One range tombstone anywhere made every scan visit every table for its tombstones.
#[test]
fn a_scan_asks_levels_and_not_tables_for_range_tombstones() {
    let live = Live::new(&in_memory());
    let mut random = Random::new(7);
    for number in 0..4000 {
        live.put(&key_of(number), &random.bytes(100));
    }
    live.engine.compact().unwrap();
    assert!(live.tables() > 20, "{}", live.tables());
    let sources = || {
        live.engine
            .superversion()
            .scan(SeqNo::MAX)
            .tombstone_sources()
    };
    assert_eq!(sources(), 0);
    // A snapshot keeps the tombstones, and a part of them is in every table.
    let snapshot = live.snapshot_tracker.register();
    for number in 0..400 {
        live.delete_range(&key_of(10 * number), Some(&key_of(10 * number + 5)));
    }
    live.engine.compact().unwrap();
    let version = Arc::clone(&live.engine.superversion().version);
    let with_tombstones = version
        .tables()
        .filter(|(_, table)| !table.tombstones().is_empty());
    assert!(with_tombstones.count() > 20);
    assert_eq!(sources(), 1);
    assert_eq!(live.entries().len(), 2000);
    let _ = live.snapshot_tracker.unregister(snapshot);
}

/// The end of a range never reached the cursor: a scan of ten keys in front of 200,000 deleted ones
/// walked through all of those to find that its range had ended.
#[test]
fn a_scan_does_not_look_for_entries_beyond_its_end() {
    let mut world = in_memory();
    world.options = world.options.write_buffer_bytes(4 << 20);
    let live = Live::new(&world);
    let key = |number: u64| key_of(1000 + number);
    for number in 0..20_000 {
        live.put(&key(number), b"value");
    }
    live.engine.compact().unwrap();
    for number in (0..20_000).filter(|number| !(10_000..10_010).contains(number)) {
        live.commit(Op::Delete { key: &key(number) });
    }
    live.flush();
    let range = KeyRange {
        start: key(10_000).to_vec(),
        end: Some(key(10_010).to_vec()),
    };
    let blocks_of = |scan: &mut dyn FnMut(&mut Box<dyn Cursor>)| {
        // As if the tree had been opened again.
        live.engine.empty_ranges.clear();
        let mut cursor = live.engine.view().unwrap().cursor();
        cursor.keep_within(&range);
        let before = live.engine.stats().blocks_read;
        scan(&mut cursor);
        assert!(!cursor.is_valid());
        live.engine.stats().blocks_read - before
    };
    let forward = blocks_of(&mut |cursor| {
        cursor.seek(&range.start).unwrap();
        for number in 10_000..10_010 {
            assert_eq!(cursor.key(), key(number));
            cursor.next().unwrap();
        }
    });
    let backward = blocks_of(&mut |cursor| {
        cursor.seek_before(&key(10_010)).unwrap();
        for number in (10_000..10_010).rev() {
            assert_eq!(cursor.key(), key(number));
            cursor.prev().unwrap();
        }
    });
    assert!(
        forward.max(backward) < 20,
        "{forward} and {backward} blocks"
    );
    // What such a walk records as empty is empty: the keys that the range does not have.
    let mut cursor = live.engine.view().unwrap().cursor();
    cursor.keep_within(&KeyRange::new(&..&key(5_000)[..]));
    cursor.seek_first().unwrap();
    assert!(!cursor.is_valid());
    live.put(&key(0), b"again");
    assert_eq!(live.entries().len(), 11);
    assert_eq!(live.entries().keys().next().unwrap(), &key(0));
}

/// Nine tenths of a tree, deleted as a range, stayed on the disk until the fourth flush after it.
#[test]
fn space_of_a_range_delete_comes_back_without_further_writes() {
    let live = Live::new(&in_memory());
    let mut random = Random::new(9);
    for number in 0..2000 {
        live.put(&key_of(number), &random.bytes(100));
    }
    live.engine.compact().unwrap();
    let full = live.engine.stats().disk_bytes;
    // A small one is not worth it.
    live.delete_range(&key_of(7), Some(&key_of(8)));
    live.flush();
    live.settle();
    assert_eq!(live.engine.stats().levels[0].files, 1);
    live.delete_range(&key_of(100), Some(&key_of(1900)));
    live.flush();
    live.settle();
    let left = live.engine.stats();
    assert!(left.disk_bytes < full / 5, "{} of {full}", left.disk_bytes);
    assert_eq!(live.entries().len(), 199);
    // Nothing is left to do: nothing is written again.
    live.settle();
    assert_eq!(live.engine.stats().compactions, left.compactions);
}

/// What was in level 0 stayed, for good if nothing was written any more: a tree of three flushes
/// looked at the levels below only.
#[test]
fn space_of_what_is_deleted_in_level_0_comes_back_without_further_writes() {
    for use_ranges in [false, true] {
        let mut world = in_memory();
        world.options = world.options.write_buffer_bytes(4 << 20);
        let live = Live::new(&world);
        let mut random = Random::new(9);
        // A table that overlaps nothing may go further down at once.
        live.put(&key_of(0), b"first");
        live.put(&key_of(1999), b"first");
        live.flush();
        for number in 0..2000 {
            live.put(&key_of(number), &random.bytes(100));
        }
        live.flush();
        live.settle();
        let full = live.engine.stats();
        assert_eq!(full.levels[0].files, 2);
        match use_ranges {
            true => live.delete_range(&key_of(100), Some(&key_of(1900))),
            false => (100..1900).for_each(|number| {
                live.commit(Op::Delete {
                    key: &key_of(number),
                });
            }),
        }
        live.flush();
        live.settle();
        let left = live.engine.stats();
        assert!(left.disk_bytes < full.disk_bytes / 5, "{left:?}");
        assert_eq!(live.entries().len(), 200);
        live.settle();
        assert_eq!(live.engine.stats().compactions, left.compactions);
    }
}

/// The same for nine of ten entries, deleted one by one: the tree held 11 times what lived.
#[test]
fn space_of_many_deletes_comes_back_without_further_writes() {
    for write_buffer_bytes in [16 << 10, 4 << 20] {
        let mut world = in_memory();
        world.options = world.options.write_buffer_bytes(write_buffer_bytes);
        let live = Live::new(&world);
        let mut random = Random::new(9);
        for number in 0..20_000 {
            live.put(&key_of(number), &random.bytes(100));
        }
        live.engine.compact().unwrap();
        let full = live.engine.stats().disk_bytes;
        let delete = |number| {
            live.commit(Op::Delete {
                key: &key_of(number),
            })
        };
        // A few are not worth it.
        (0..20_000).step_by(2000).for_each(delete);
        live.flush();
        live.settle();
        assert_eq!(live.engine.stats().levels[0].files, 1);
        (0..20_000)
            .filter(|number| number % 10 != 3)
            .for_each(delete);
        live.flush();
        live.settle();
        let left = live.engine.stats();
        assert!(left.disk_bytes < full / 8, "{} of {full}", left.disk_bytes);
        assert_eq!(live.entries().len(), 2000);
        live.settle();
        assert_eq!(live.engine.stats().compactions, left.compactions);
    }
}

/// What a snapshot held stayed when it was gone, tombstones above all: they were in the last level,
/// where nothing looked again.
#[test]
fn space_that_a_snapshot_held_comes_back_when_it_is_gone() {
    for use_ranges in [false, true] {
        let live = Live::new(&in_memory());
        let mut random = Random::new(9);
        for number in 0..2000 {
            live.put(&key_of(number), &random.bytes(100));
        }
        live.engine.compact().unwrap();
        let full = live.engine.stats().disk_bytes;
        let snapshot = live.snapshot_tracker.register();
        if use_ranges {
            live.delete_range(&key_of(100), Some(&key_of(1900)));
        } else {
            for number in 100..1900 {
                live.commit(Op::Delete {
                    key: &key_of(number),
                });
            }
        }
        live.engine.compact().unwrap();
        live.settle();
        let held = live.engine.stats();
        assert!(
            held.disk_bytes > full * 9 / 10,
            "{} of {full}",
            held.disk_bytes
        );
        live.settle();
        let now = live.engine.stats();
        assert_eq!(
            now.compactions, held.compactions,
            "no work while the snapshot lives"
        );
        assert_eq!(live.engine.work_due(), None);

        let _ = live.snapshot_tracker.unregister(snapshot);
        assert!(live.engine.work_due().is_some());
        live.settle();
        let left = live.engine.stats();
        assert!(left.disk_bytes < full / 5, "{} of {full}", left.disk_bytes);
        assert!(left.compaction_bytes_written - held.compaction_bytes_written < 2 * full);
        assert_eq!(live.entries().len(), 200);
        live.settle();
        assert_eq!(live.engine.stats().compactions, left.compactions);
    }
}

/// What a snapshot held was forgotten when the store was closed, and stayed for good.
#[test]
fn what_a_snapshot_held_is_known_after_reopening() {
    let world = in_memory();
    let live = Live::new(&world);
    let mut random = Random::new(9);
    let snapshot = {
        for number in 0..1000 {
            live.put(&key_of(number), &random.bytes(100));
        }
        let snapshot = live.snapshot_tracker.register();
        for number in 0..1000 {
            live.put(&key_of(number), &random.bytes(100));
        }
        snapshot
    };
    live.engine.compact().unwrap();
    live.settle();
    let (full, entries) = (live.engine.stats().disk_bytes, live.entries());
    assert!(full > 200_000, "{full}");
    drop(live);
    let _ = world.snapshot_tracker.unregister(snapshot);
    let live = Live::of(&world, LsmEngine::open(world.context()).unwrap());
    live.settle();
    let left = live.engine.stats();
    assert!(
        left.disk_bytes < full * 6 / 10,
        "{} of {full}",
        left.disk_bytes
    );
    assert_eq!(live.entries(), entries);
    live.settle();
    assert_eq!(live.engine.stats().compactions, left.compactions);
    assert!(live.engine.verify().unwrap().is_clean());
}

/// One damaged block: the job that met it was begun again at once, and wrote what it had written
/// before, 100 MiB a second without end, while no other compaction of the tree came to be.
#[test]
fn a_job_that_cannot_be_done_is_not_begun_again_and_again() {
    let (_scratch, mut world) = on_disk();
    world.options = world.options.compression(Compression::None);
    let live = Live::new(&world);
    let mut random = Random::new(4);
    // Two tables in the last level, of which one is damaged, and what overlaps each.
    let low = |number: u64| key_of(number);
    let high = |number: u64| key_of((1 << 32) + number);
    for number in 0..100 {
        live.put(&low(number), &random.bytes(100));
    }
    live.engine.compact().unwrap();
    let damaged = table_paths(&world).remove(0);
    let tick = || {
        live.put(&high(0), b"");
        live.flush();
    };
    flip(&world, &damaged);
    let fill = |random: &mut Random| {
        for number in 0..4 {
            live.put(&low(10 * number), &random.bytes(10));
            live.flush();
        }
    };
    fill(&mut random);
    let mut failures = 0;
    for _ in 0..1000 {
        failures += u32::from(live.engine.run_once(Work::Compact).is_err());
    }
    assert_eq!(failures, 1);
    assert_eq!(live.engine.work_due(), None);
    // It is tried again, ever more rarely, as other work is done.
    for _ in 0..200 {
        tick();
        for _ in 0..10 {
            failures += u32::from(live.engine.run_once(Work::Compact).is_err());
        }
    }
    assert!((3..8).contains(&failures), "{failures}");
    // And at once by a call of `compact`.
    assert!(live.engine.compact().is_err());
    flip(&world, &damaged);
    live.engine.compact().unwrap();
    assert!(live.engine.verify().unwrap().is_clean());
    assert_eq!(live.entries().len(), 101);
}

/// Damage in one part of a tree does not keep another from being compacted.
#[test]
fn a_damaged_table_leaves_other_jobs_of_the_tree_alone() {
    let (_scratch, mut world) = on_disk();
    world.options = world.options.table_size_bytes(64 << 10);
    let live = Live::new(&world);
    let mut random = Random::new(4);
    for number in 0..100 {
        live.put(&key_of(number), &random.bytes(100));
    }
    live.engine.compact().unwrap();
    let damaged = table_paths(&world).remove(0);
    flip(&world, &damaged);
    // Small neighbours, which come to be joined, the damaged one among them.
    let mut failures = 0;
    for batch in 1..=40 {
        for number in 0..4 {
            live.put(&key_of(1000 * batch + number), &random.bytes(100));
        }
        live.flush();
        while let Some(work) = live.engine.work_due() {
            failures += u32::from(live.engine.run_once(work).is_err());
        }
    }
    assert!((1..6).contains(&failures), "{failures}");
    assert!(live.tables() < 12, "{}", live.tables());
    assert_eq!(live.engine.stats().levels[0].files, 0);
}

/// A damaged table in level 0 kept all others there, for good, and writers were slowed for good.
#[test]
fn a_damaged_table_of_level_0_keeps_only_what_would_pass_it() {
    for damage_below in [false, true] {
        let (_scratch, mut world) = on_disk();
        world.options = world.options.compression(Compression::None);
        let live = Live::new(&world);
        let mut random = Random::new(4);
        let high = |number: u64| key_of((1 << 32) + number);
        let mut expected = Map::new();
        let put = |expected: &mut Map, key: [u8; 8], value: Vec<u8>| {
            live.put(&key, &value);
            expected.insert(key.to_vec(), value);
        };
        for number in 0..100 {
            put(&mut expected, key_of(number), random.bytes(100));
        }
        match damage_below {
            true => live.engine.compact().unwrap(),
            false => live.flush(),
        }
        let damaged = table_paths(&world).remove(0);
        flip(&world, &damaged);
        let mut failures = 0;
        let mut most = 0;
        for batch in 0..300 {
            match batch % 3 {
                // Over the damaged one: newer versions, and deletes of what it has.
                0 => put(&mut expected, key_of(random.below(50)), random.bytes(100)),
                1 => {
                    let key = key_of(50 + random.below(50));
                    live.commit(Op::Delete { key: &key });
                    expected.remove(&key[..]);
                }
                // Beside it.
                _ => put(&mut expected, high(batch), random.bytes(100)),
            }
            live.flush();
            while let Some(work) = live.engine.work_due() {
                failures += u32::from(live.engine.run_once(work).is_err());
            }
            most = most.max(live.engine.stats().levels[0].files);
            assert_eq!(live.engine.pressure(), Pressure::None, "batch {batch}");
        }
        assert!((1..8).contains(&failures), "{failures}");
        assert!(most < 24, "{most}");
        let levels = live.engine.stats().levels;
        assert!(levels[6].bytes > 100 * 100 || !damage_below, "{levels:?}");
        // Nothing has passed the damaged table: once it can be read, all is there.
        flip(&world, &damaged);
        assert_eq!(live.entries(), expected);
        live.engine.compact().unwrap();
        assert!(live.engine.verify().unwrap().is_clean());
        assert_eq!(live.entries(), expected);
    }
}

/// A last level of about 400 kB.
fn fill_last_level(live: &Live, random: &mut Random) {
    for number in 0..400 {
        live.put(&key_of(number), &random.bytes(1000));
    }
    live.engine.compact().unwrap();
}

/// They were taken for what snapshots had held: their table was rewritten again and again.
#[test]
fn merges_that_are_not_combined_are_not_rewritten_again_and_again() {
    let mut world = in_memory();
    world.resolver = appending(AppendInFull);
    let live = Live::new(&world);
    let mut random = Random::new(9);
    fill_last_level(&live, &mut random);
    for _ in 0..4 {
        for number in 100..104 {
            live.commit(Op::Merge {
                key: &key_of(number),
                operand: b"more",
            });
        }
        // The last one is enough for a compaction.
        live.flush();
    }
    for _ in 0..50 {
        let Some(work) = live.engine.work_due() else {
            break;
        };
        live.engine.run_once(work).unwrap();
    }
    let stats = live.engine.stats();
    assert_eq!(stats.levels[5].files, 1, "{stats:?}");
    assert_eq!(live.engine.work_due(), None, "{stats:?}");
    let value = live.get(&key_of(100)).unwrap();
    assert_eq!(value.len(), 1016);
    assert!(value.ends_with(b"moremoremoremore"));
    assert!(live.engine.verify().unwrap().is_clean());
}

/// What lies before the first key of a job counted as overlapped: its first output had one entry.
#[test]
fn the_first_output_of_a_job_overlaps_nothing_before_its_first_key() {
    let world = in_memory();
    let live = Live::new(&world);
    let mut random = Random::new(9);
    fill_last_level(&live, &mut random);
    for _ in 0..4 {
        for number in 380..400 {
            live.put(&key_of(number), &random.bytes(100));
        }
        live.flush();
    }
    live.settle();
    let stats = live.engine.stats();
    let files = (stats.levels[0].files, stats.levels[5].files);
    assert_eq!(files, (0, 1), "{stats:?}");
}

/// A load whose record was refused, on a full disk say, kept its tables until the store was opened
/// again, and so did each retry.
#[test]
fn a_load_whose_record_was_not_written_removes_its_tables() {
    for may_be_logged in [false, true] {
        let world = in_memory();
        let live = Live::new(&world);
        let mut load = Arc::clone(&live.engine).begin_load().unwrap();
        for number in 0..100 {
            load.put(&key_of(number), b"value").unwrap();
        }
        load.close().unwrap();
        assert_eq!(table_paths(&world).len(), 1);
        let refused = load.finish(&mut |_| {
            Err(LoadFailed {
                error: Error::invalid("no room"),
                may_be_logged,
            })
        });
        assert!(matches!(refused, Err(Error::InvalidArgument { .. })));
        live.settle();
        assert_eq!(table_paths(&world).len(), usize::from(may_be_logged));
        assert!(live.entries().is_empty());
    }
}

/// Values were not moved beside any compaction, though nothing asked a filter.
#[test]
fn a_compaction_without_a_filter_keeps_no_value_from_being_moved() {
    let live = Live::new(&in_memory());
    let (_boundaries, _held) = live.engine.boundaries_of_compaction();
    assert!(live.engine.ctx.resolver.without_filter().is_some());
}
