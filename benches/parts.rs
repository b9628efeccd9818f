//! The parts of the store, one at a time: what a change to one of them costs or gains shows here
//! first, and not through the noise of everything else.
//!
//! `cargo bench --bench parts` takes about three minutes; add `-- memtable` to run one group,
//! `-- --test` to run everything once without measuring. `engines` has both engines as a whole.
//!
//! Keys have 16 bytes and values 100, as in `engines`. Reads of a part go over all of its
//! keys in a scattered order, so that the processor's caches hold what they would in use.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use hedgerow::MemtableKind;
use hedgerow::fs::{Fs, StdFs};
use hedgerow::internals::lsm::{Entry, Memtable, merge};
use hedgerow::internals::page::{
    Leaf, LeafMut, LeafSplit, PageValue, inner_build, inner_find_child, new_leaf, split_leaf,
};
use hedgerow::internals::table::{
    Block, BlockBuilder, FilterBuilder, filter_hash, filter_may_contain,
};
use hedgerow::internals::wal::Writer;
use hedgerow::internals::{Op, checksum, decode_batch, encode_batch, seed_of};
use parking_lot::Mutex;
use support::order::Order;

const VALUE: [u8; 100] = [b'v'; 100];

/// Sixteen bytes that order like the number.
fn key(number: u64) -> [u8; 16] {
    let mut key = *b"user\0\0\0\0\0\0\0\0\0\0\0\0";
    key[8..].copy_from_slice(&number.to_be_bytes());
    key
}

fn entry(key: &[u8; 16], seq: u64) -> Entry<'_> {
    Entry {
        key,
        seq,
        value: Some(&VALUE),
    }
}

/// Entries of a memtable: some ten megabytes.
const MEMTABLE_ENTRIES: u64 = 80_000;

fn filled(kind: MemtableKind, count: u64, mut number: impl FnMut(u64) -> u64) -> Memtable {
    let memtable = Memtable::new(kind);
    for n in 0..count {
        memtable.insert(entry(&key(number(n)), n + 1));
    }
    memtable
}

fn memtable(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("memtable");
    for (name, kind) in [
        ("btree", MemtableKind::BTree),
        ("skiplist", MemtableKind::SkipList),
    ] {
        group.throughput(Throughput::Elements(MEMTABLE_ENTRIES));
        group.sample_size(10);
        group.bench_function(BenchmarkId::new("insert-ascending", name), |bencher| {
            bencher.iter_with_large_drop(|| filled(kind, MEMTABLE_ENTRIES, |n| n));
        });
        group.bench_function(BenchmarkId::new("insert-random", name), |bencher| {
            bencher.iter_with_large_drop(|| {
                let mut order = Order::new(MEMTABLE_ENTRIES);
                filled(kind, MEMTABLE_ENTRIES, |_| order.step())
            });
        });
        let full = filled(kind, MEMTABLE_ENTRIES, |n| n * 7919 % MEMTABLE_ENTRIES);
        let mut order = Order::new(MEMTABLE_ENTRIES);
        group.throughput(Throughput::Elements(1)).sample_size(50);
        group.bench_function(BenchmarkId::new("get", name), |bencher| {
            bencher.iter(|| {
                let mut len = 0;
                let found = full.get(&key(order.step()), u64::MAX >> 8, |entry| {
                    len = entry.value.map_or(0, <[u8]>::len);
                });
                assert!(found && len == VALUE.len());
            });
        });
        group.throughput(Throughput::Elements(MEMTABLE_ENTRIES));
        group.sample_size(20);
        group.bench_function(BenchmarkId::new("walk", name), |bencher| {
            bencher.iter(|| {
                let mut cursor = full.cursor();
                cursor.seek_first().expect("memory");
                let mut count = 0;
                while cursor.is_valid() {
                    black_box(cursor.entry());
                    count += 1;
                    cursor.next().expect("memory");
                }
                assert_eq!(count, MEMTABLE_ENTRIES);
            });
        });
    }
    group.finish();
}

/// A log in a temporary directory, which goes last.
struct TestLog {
    writer: Writer,
    _dir: tempfile::TempDir,
}

impl TestLog {
    fn new(use_mmap: bool) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let fs: Arc<dyn Fs> = Arc::new(StdFs::new());
        let writer = Writer::open(&fs, dir.path(), 1, 16 << 20, use_mmap).expect("a new log");
        writer.syncer().prepare().expect("a segment");
        Self { writer, _dir: dir }
    }
}

fn log(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("log");
    let key = key(1);
    let put = Op::Put {
        key: &key,
        value: &VALUE,
    };
    let payload = encode_batch(&[(1, put)]);
    group.throughput(Throughput::Bytes(payload.len() as u64));
    for (name, use_mmap) in [("mapped", true), ("written", false)] {
        group.bench_function(BenchmarkId::new("append", name), |bencher| {
            bencher.iter_custom(|rounds| {
                let mut log = TestLog::new(use_mmap);
                let syncer = log.writer.syncer();
                let mut spent = Duration::ZERO;
                for round in 0..rounds {
                    if round % 4096 == 0 {
                        // The next segment is made ready by background work in a store.
                        syncer.prepare().expect("a segment");
                        let seq = round.max(1);
                        syncer.retire(Some(seq)).expect("segments go");
                    }
                    let began = Instant::now();
                    log.writer.append(1, &payload).expect("an append");
                    spent += began.elapsed();
                }
                spent
            });
        });
    }
    group.throughput(Throughput::Elements(1)).sample_size(10);
    for writers in [1, 4, 16] {
        group.bench_function(BenchmarkId::new("group-commit", writers), |bencher| {
            bencher.iter_custom(|rounds| group_commit(writers, rounds, &payload));
        });
    }
    group.finish();
}

/// `rounds` durable commits by `writers` threads: they append in turn, and those that wait for one
/// another's sync share it.
fn group_commit(writers: u64, rounds: u64, payload: &[u8]) -> Duration {
    let log = TestLog::new(true);
    let syncer = log.writer.syncer();
    let writer = Mutex::new(log.writer);
    let left = AtomicU64::new(rounds);
    let take = |left: u64| left.checked_sub(1);
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..writers {
            scope.spawn(|| {
                while left
                    .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
                    .is_ok()
                {
                    let seq = writer.lock().append(1, payload).expect("an append");
                    assert!(syncer.sync().expect("a sync") >= seq);
                }
            });
        }
    });
    began.elapsed()
}

/// About a block of four KiB.
const BLOCK_ENTRIES: u64 = 32;

fn block(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("block");
    let keys: Vec<_> = (0..BLOCK_ENTRIES).map(|n| key(n * 3)).collect();
    let build = |builder: &mut BlockBuilder, out: &mut Vec<u8>| {
        builder.clear();
        out.clear();
        for (n, key) in keys.iter().enumerate() {
            builder.add(entry(key, n as u64 + 1));
        }
        builder.encode(out);
    };
    let (mut builder, mut out) = (BlockBuilder::default(), Vec::new());
    group.throughput(Throughput::Elements(BLOCK_ENTRIES));
    group.bench_function("build", |bencher| {
        bencher.iter(|| {
            build(&mut builder, &mut out);
            black_box(out.len())
        });
    });
    build(&mut builder, &mut out);
    let mut order = Order::new(BLOCK_ENTRIES - 1);
    group.throughput(Throughput::Elements(1));
    group.bench_function("search", |bencher| {
        bencher.iter(|| {
            let number = order.step();
            let block = Block::parse(&out).expect("a block");
            let found = block.lower_bound(&key(number * 3), u64::MAX >> 8);
            assert_eq!(found, Ok(number as u32));
            black_box(block.record(number as u32).expect("a record"))
        });
    });
    group.throughput(Throughput::Bytes(out.len() as u64));
    group.bench_function("checksum", |bencher| {
        bencher.iter(|| checksum(seed_of(&[1, 2]), black_box(&out)));
    });
    group.finish();
}

fn filter(criterion: &mut Criterion) {
    const KEYS: u64 = 100_000;
    let mut group = criterion.benchmark_group("filter");
    let hashes: Vec<_> = (0..KEYS).map(|n| filter_hash(&key(2 * n))).collect();
    let build = || {
        let mut builder = FilterBuilder::default();
        hashes.iter().for_each(|hash| builder.add(*hash));
        builder.finish(10)
    };
    group.throughput(Throughput::Elements(KEYS)).sample_size(20);
    group.bench_function("build", |bencher| bencher.iter(build));
    let (lines, probes) = build();
    group.throughput(Throughput::Elements(1)).sample_size(50);
    let mut order = Order::new(KEYS);
    group.bench_function("query-present", |bencher| {
        bencher.iter(|| {
            let hash = filter_hash(&key(2 * order.step()));
            assert!(filter_may_contain(&lines, probes, hash));
        });
    });
    group.bench_function("query-absent", |bencher| {
        bencher.iter(|| {
            let hash = filter_hash(&key(2 * order.step() + 1));
            black_box(filter_may_contain(&lines, probes, hash))
        });
    });
    group.finish();
}

const PAGE_SIZE: usize = 16 << 10;

/// A leaf with every even number below twice `count`, which grew as leaves do: unit by unit.
fn leaf_of(count: u64) -> Box<[u8]> {
    let mut image = new_leaf(PAGE_SIZE);
    for n in 0..count {
        let (at, key) = (n as usize, key(2 * n));
        if !LeafMut::from_image(&mut image).insert(at, &key, &VALUE) {
            image = match split_leaf(&image, at, false, &key, &VALUE, PAGE_SIZE) {
                LeafSplit::One(larger) => larger,
                LeafSplit::Two(..) => panic!("{count} entries are more than a page holds"),
            };
        }
    }
    image
}

fn page(criterion: &mut Criterion) {
    const ENTRIES: u64 = 100;
    let mut group = criterion.benchmark_group("page");
    let image = leaf_of(ENTRIES);
    let mut order = Order::new(ENTRIES);
    group.throughput(Throughput::Elements(1));
    group.bench_function("search", |bencher| {
        bencher.iter(|| {
            let number = order.step();
            let leaf = Leaf::from_image(&image);
            let at = leaf.search(&key(2 * number)).expect("it is there");
            match leaf.value(at) {
                PageValue::Inline(value) => assert_eq!(value.len(), VALUE.len()),
                PageValue::Overflow(..) | PageValue::Apart(_) => unreachable!("values are short"),
            }
        });
    });
    group.bench_function("insert", |bencher| {
        bencher.iter_batched_ref(
            || (image.clone(), key(2 * order.step() + 1)),
            |(image, key)| {
                let at = Leaf::from_image(image).search(key).expect_err("it is new");
                assert!(LeafMut::from_image(image).insert(at, key, &VALUE));
            },
            BatchSize::SmallInput,
        );
    });
    group.bench_function("replace", |bencher| {
        let mut image = image.clone();
        bencher.iter(|| {
            let key = key(2 * order.step());
            let at = Leaf::from_image(&image).search(&key).expect("it is there");
            assert!(LeafMut::from_image(&mut image).set_value(at, &VALUE));
        });
    });
    let keys: Vec<_> = (0..200).map(|n| key(n * 100)).collect();
    let separators: Vec<&[u8]> = keys.iter().map(|key| &key[..]).collect();
    let inner = inner_build(&separators, PAGE_SIZE);
    let mut order = Order::new(20_000);
    group.bench_function("find-child", |bencher| {
        bencher.iter(|| {
            let number = order.step();
            let child = inner_find_child(&inner, &key(number));
            assert_eq!(child, number as usize / 100 + 1);
        });
    });
    group.finish();
}

fn merged(criterion: &mut Criterion) {
    const ENTRIES: u64 = 40_000;
    let mut group = criterion.benchmark_group("merge");
    group
        .throughput(Throughput::Elements(ENTRIES))
        .sample_size(20);
    for runs in [2, 8, 32] {
        let tables: Vec<_> = (0..runs)
            .map(|run| {
                // Keys are dealt out in turn, so that almost every step changes the run.
                filled(MemtableKind::BTree, ENTRIES / runs, |n| n * runs + run)
            })
            .collect();
        group.bench_function(BenchmarkId::new("walk", runs), |bencher| {
            bencher.iter(|| {
                let mut all = merge(tables.iter().map(Memtable::cursor).collect());
                all.seek_first().expect("memory");
                let mut count = 0;
                while all.is_valid() {
                    black_box(all.entry());
                    count += 1;
                    all.next().expect("memory");
                }
                assert_eq!(count, ENTRIES / runs * runs);
            });
        });
        let mut order = Order::new(ENTRIES);
        let mut all = merge(tables.iter().map(Memtable::cursor).collect());
        group.throughput(Throughput::Elements(1));
        group.bench_function(BenchmarkId::new("seek", runs), |bencher| {
            bencher.iter(|| {
                all.seek(&key(order.step()), u64::MAX >> 8).expect("memory");
                black_box(all.is_valid())
            });
        });
        group.throughput(Throughput::Elements(ENTRIES));
    }
    group.finish();
}

fn batch(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("batch");
    let keys: Vec<_> = (0..100).map(key).collect();
    let ops: Vec<_> = keys
        .iter()
        .map(|key| (1, Op::Put { key, value: &VALUE }))
        .collect();
    group.throughput(Throughput::Elements(ops.len() as u64));
    group.bench_function("encode", |bencher| bencher.iter(|| encode_batch(&ops)));
    let bytes = encode_batch(&ops);
    group.bench_function("decode", |bencher| {
        bencher.iter(|| {
            let ops = decode_batch(&bytes).expect("a batch");
            black_box(ops.len())
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = memtable, log, block, filter, page, merged, batch
}
criterion_main!(benches);
