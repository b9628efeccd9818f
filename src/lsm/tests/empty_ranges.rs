//! Scans over what was deleted: what they cost, and that they miss nothing.

use super::*;
use crate::engine::Cursor;

/// An engine with the numbers that its operations get, publishing each.
struct Counted {
    engine: Arc<LsmEngine>,
    snapshot_tracker: Arc<SnapshotTracker>,
    last: AtomicU64,
    order: Mutex<()>,
}

impl Counted {
    fn new(world: &World) -> Self {
        Self {
            engine: LsmEngine::create(world.context()).unwrap(),
            snapshot_tracker: Arc::clone(&world.snapshot_tracker),
            last: AtomicU64::new(0),
            order: Mutex::default(),
        }
    }

    fn commit(&self, op: Op<'_>) {
        let _order = self.order.lock();
        let seq = SeqNo(self.last.fetch_add(1, Ordering::Relaxed) + 1);
        self.engine.apply(&[SequencedOp::new(seq, op)]).unwrap();
        self.snapshot_tracker.publish(seq);
    }

    fn put(&self, key: &str) {
        let (key, value) = (key.as_bytes(), key.as_bytes());
        self.commit(Op::Put { key, value });
    }

    fn delete(&self, key: &str) {
        self.commit(Op::Delete {
            key: key.as_bytes(),
        });
    }

    fn delete_range(&self, start: &str, end: &str) {
        let (start, end) = (start.as_bytes(), Some(end.as_bytes()));
        self.commit(Op::DeleteRange { start, end });
    }

    fn cursor(&self) -> Box<dyn Cursor> {
        self.engine.view().unwrap().cursor()
    }

    fn first(&self) -> Option<String> {
        let mut cursor = self.cursor();
        cursor.seek_first().unwrap();
        key_of(&*cursor)
    }

    fn first_from(&self, key: &str) -> Option<String> {
        let mut cursor = self.cursor();
        cursor.seek(key.as_bytes()).unwrap();
        key_of(&*cursor)
    }

    fn last(&self) -> Option<String> {
        let mut cursor = self.cursor();
        cursor.seek_last().unwrap();
        key_of(&*cursor)
    }

    /// Blocks that `scan` touches.
    fn blocks_of(&self, scan: impl FnOnce()) -> u64 {
        let before = self.engine.stats().blocks_read;
        scan();
        self.engine.stats().blocks_read - before
    }
}

fn key_of(cursor: &dyn Cursor) -> Option<String> {
    let key = cursor.is_valid().then(|| cursor.key().to_vec());
    key.map(|key| String::from_utf8(key).unwrap())
}

fn name(number: u64) -> String {
    format!("key {number:06}")
}

/// 20,000 keys in some 3,000 blocks on several levels.
fn filled(options: impl FnOnce(&mut World)) -> Counted {
    let mut world = World::new(Arc::new(SimFs::new()), Path::new("/lsm"));
    options(&mut world);
    let counted = Counted::new(&world);
    for number in 0..20_000 {
        counted.put(&name(number * 7919 % 20_000));
        if number % 512 == 0 {
            while let Some(work) = counted.engine.work_due() {
                counted.engine.run_once(work).unwrap();
            }
        }
    }
    counted.engine.flush().unwrap();
    counted
}

/// Once a tombstone over nine tenths of a store had every key below it walked over, one by one: the
/// first key after the delete took as long as a scan of everything.
#[test]
fn the_first_key_after_a_range_delete_is_found_without_a_walk() {
    let tables = filled(|_| {});
    let levels = tables.engine.stats().levels;
    assert!(levels.iter().filter(|level| level.files > 0).count() > 1);
    tables.delete_range(&name(1_000), &name(19_000));
    // A snapshot's view would find ranges of its time as well; so would a reopened tree, once it
    // has walked. The tombstone itself has to be enough.
    for ranges in [true, false] {
        if !ranges {
            tables.engine.empty_ranges.clear();
        }
        let expect = |seen: Option<String>, number: u64| assert_eq!(seen, Some(name(number)));
        let blocks = tables.blocks_of(|| {
            expect(tables.first_from(&name(1_000)), 19_000);
            expect(tables.first_from(&name(5_000)), 19_000);
            let mut cursor = tables.cursor();
            cursor.seek(name(999).as_bytes()).unwrap();
            expect(key_of(&*cursor), 999);
            cursor.next().unwrap();
            expect(key_of(&*cursor), 19_000);
            cursor.prev().unwrap();
            expect(key_of(&*cursor), 999);
            cursor.seek_before(name(19_000).as_bytes()).unwrap();
            expect(key_of(&*cursor), 999);
        });
        let sources = 2 + levels[0].files + 6;
        assert!(blocks < 6 * 4 * sources, "ranges {ranges}: {blocks} blocks");
    }
    // Everything, and nothing left behind it.
    tables.commit(Op::DeleteRange {
        start: b"",
        end: None,
    });
    for ranges in [true, false] {
        if !ranges {
            tables.engine.empty_ranges.clear();
        }
        let blocks = tables.blocks_of(|| {
            assert_eq!(tables.first(), None);
            assert_eq!(tables.last(), None);
        });
        assert!(blocks < 200, "ranges {ranges}: {blocks} blocks");
    }
    tables.put("last");
    assert_eq!(tables.first().as_deref(), Some("last"));
    assert_eq!(tables.last().as_deref(), Some("last"));
}

/// Once every take from a queue walked over all that had been taken before.
#[test]
fn a_take_from_a_queue_does_not_walk_over_earlier_takes() {
    let queue = filled(|_| {});
    let mut most = 0;
    for number in 0..10_000 {
        let blocks = queue.blocks_of(|| {
            assert_eq!(queue.first(), Some(name(number)));
        });
        queue.delete(&name(number));
        queue.put(&name(20_000 + number));
        // The first ones find no range yet.
        if number > 100 {
            most = most.max(blocks);
        }
    }
    assert!(most < 80, "{most} blocks for a take");
    // From the other end, in the same tree: a stack.
    let mut most = 0;
    for number in (22_000..30_000).rev() {
        let blocks = queue.blocks_of(|| {
            assert_eq!(queue.last(), Some(name(number)));
        });
        queue.delete(&name(number));
        if number < 29_900 {
            most = most.max(blocks);
        }
    }
    assert!(most < 80, "{most} blocks for a take from the top");
}

/// Puts race with scans behind the mark up to which everything is known to be deleted.
#[test]
fn a_put_into_an_empty_range_is_seen_at_once() {
    const TAKES: u64 = 20_000;
    let mut world = World::new(Arc::new(SimFs::new()), Path::new("/lsm"));
    world.options = world.options.clone().write_buffer_bytes(256 << 10);
    let queue = Counted::new(&world);
    (0..100).for_each(|number| queue.put(&name(number)));
    let head = AtomicU64::new(0);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        // Takes the first key that is its own and puts one at the end.
        scope.spawn(|| {
            let _over = OverAtEnd(&is_over);
            for number in 0..TAKES {
                let mut cursor = queue.cursor();
                cursor.seek_first().unwrap();
                while key_of(&*cursor).unwrap().ends_with('x') {
                    cursor.next().unwrap();
                }
                assert_eq!(key_of(&*cursor), Some(name(number)));
                queue.delete(&name(number));
                queue.put(&name(number + 100));
                head.store(number + 1, Ordering::Relaxed);
            }
        });
        // Puts a key among those that were taken, and looks for it from far below.
        scope.spawn(|| {
            let mut random = Random::new(9);
            while !is_over.load(Ordering::Relaxed) {
                let taken = head.load(Ordering::Relaxed);
                if taken == 0 {
                    continue;
                }
                let key = format!("{}x", name(random.below(taken)));
                queue.put(&key);
                let from = name(random.below(taken)).min(key.clone());
                assert_eq!(queue.first_from(&from).as_ref(), Some(&key));
                let mut cursor = queue.cursor();
                cursor.seek_before(name(taken).as_bytes()).unwrap();
                if key < name(taken) {
                    assert_eq!(key_of(&*cursor).as_ref(), Some(&key));
                }
                queue.delete(&key);
            }
        });
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                match queue.engine.work_due() {
                    Some(work) => drop(queue.engine.run_once(work).unwrap()),
                    None => thread::yield_now(),
                }
            }
        });
    });
    assert_eq!(queue.first(), Some(name(TAKES)));
}

/// A snapshot sees what was deleted after it, wherever ranges say that nothing is left.
#[test]
fn an_old_snapshot_walks_through_what_is_dead_by_now() {
    let tree = filled(|_| {});
    let seq = tree.snapshot_tracker.register();
    let view = tree.engine.snapshot_view(seq.seq).unwrap();
    tree.delete_range(&name(100), &name(19_900));
    for number in 0..100 {
        tree.delete(&name(number));
    }
    for _ in 0..3 {
        assert_eq!(tree.first(), Some(name(19_900)));
    }
    assert!(
        tree.engine
            .empty_ranges
            .find(name(50).as_bytes(), SeqNo::MAX, 0)
            .is_some()
    );
    for _ in 0..2 {
        let mut cursor = Arc::clone(&view).cursor();
        cursor.seek_first().unwrap();
        let mut seen = 0;
        while cursor.is_valid() {
            assert_eq!(key_of(&*cursor), Some(name(seen)));
            seen += 1;
            cursor.next().unwrap();
        }
        assert_eq!(seen, 20_000);
        // Flushed and compacted, it is the same.
        tree.engine.compact().unwrap();
    }
    drop(view);
    let _ = tree.snapshot_tracker.unregister(seq);
}

fn rotate(counted: &Counted) {
    let engine = &counted.engine;
    assert!(engine.superversion().active.first_seq().is_some());
    let recorder = engine.empty_ranges.recorder();
    engine.rotate(&recorder);
}

fn counted() -> Arc<Counted> {
    let world = World::new(Arc::new(SimFs::new()), Path::new("/lsm"));
    Arc::new(Counted::new(&world))
}

/// The number of a scan could be newer than its view. It recorded that there is nothing where a key
/// was that it could not see, and later scans missed it.
#[test]
fn a_scan_records_nothing_that_its_view_is_too_old_for() {
    let counted = counted();
    (0..20).for_each(|n| counted.put(&name(n)));
    (0..20).for_each(|n| counted.delete(&name(n)));
    counted.put(&name(50));
    let other = Arc::clone(&counted);
    crate::testing::first(move || {
        rotate(&other);
        other.put(&name(10));
    });
    counted.first();
    assert_eq!(counted.first(), Some(name(10)));
}

/// It passed over what a range delete had hidden, and did not see what the same batch had put.
#[test]
fn a_scan_uses_no_range_of_a_batch_that_it_does_not_see() {
    let counted = counted();
    (0..3).for_each(|n| counted.put(&name(n)));
    counted.delete(&name(0));
    let other = Arc::clone(&counted);
    crate::testing::first(move || {
        rotate(&other);
        let seq = other.last.fetch_add(2, Ordering::Relaxed) + 1;
        let (start, end) = (name(0), name(9));
        let put = Op::Put {
            key: b"moved",
            value: b"",
        };
        let delete = Op::DeleteRange {
            start: start.as_bytes(),
            end: Some(end.as_bytes()),
        };
        let ops = [(seq, put), (seq + 1, delete)];
        let ops = ops.map(|(seq, op)| SequencedOp::new(SeqNo(seq), op));
        other.engine.apply(&ops).unwrap();
        other.snapshot_tracker.publish(SeqNo(seq + 1));
    });
    let mut cursor = counted.cursor();
    cursor.seek_first().unwrap();
    let mut keys = Vec::new();
    while let Some(key) = key_of(&*cursor) {
        keys.push(key);
        cursor.next().unwrap();
    }
    assert!(keys == [name(1), name(2)] || keys == ["moved"], "{keys:?}");
}
