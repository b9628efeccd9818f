//! Both engines over the main workloads, through the public API.
//!
//! `cargo bench --bench engines` takes about three minutes; `cargo bench --bench engines -- lsm/`
//! runs one engine, `-- --test` runs everything once without measuring. Names are those of
//! db_bench. Keys have 16 bytes, values 100 (half of them compressible), commits are single puts
//! with `Buffered`. Everything fits in memory: these benches watch the cost of the code, and
//! whether a change moved it. `hedgerow compare` puts the engines side by side.

use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use hedgerow::{Db, Durability, EngineKind, Keyspace, Options};
use support::order::Order;
use tempfile::TempDir;

/// Keys in the store that is read from.
const KEYS: u64 = 200_000;
const VALUE_LEN_BYTES: usize = 100;

/// A store in a temporary directory; the directory goes last.
struct Store {
    db: Db,
    keyspace: Keyspace,
    _dir: TempDir,
}

impl Store {
    fn new(engine: EngineKind) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let options = Options::new().durability(Durability::Buffered);
        let db = options
            .open(dir.path().join("store"))
            .expect("a new store opens");
        let keyspace = db.keyspace("bench", engine).expect("a new keyspace");
        Self {
            db,
            keyspace,
            _dir: dir,
        }
    }

    /// A store with all even-numbered keys below twice [`KEYS`], in its best shape.
    fn filled(engine: EngineKind) -> Self {
        let store = Self::new(engine);
        let mut order = Order::new(KEYS);
        let mut value = Values::new();
        for _ in 0..KEYS {
            store
                .keyspace
                .put(key(2 * order.step()), value.next())
                .expect("a put");
        }
        store.keyspace.compact().expect("compaction");
        store.db.wait_idle().expect("background work");
        store
    }
}

/// Sixteen bytes that order like the number.
fn key(number: u64) -> [u8; 16] {
    let mut key = *b"user\0\0\0\0\0\0\0\0\0\0\0\0";
    key[8..].copy_from_slice(&number.to_be_bytes());
    key
}

/// Values, half of whose bytes compress.
struct Values {
    state: u64,
    value: [u8; VALUE_LEN_BYTES],
}

impl Values {
    fn new() -> Self {
        Self {
            state: 1,
            value: [b'v'; VALUE_LEN_BYTES],
        }
    }

    fn next(&mut self) -> &[u8] {
        for word in self.value[..VALUE_LEN_BYTES / 2].chunks_exact_mut(8) {
            // xorshift64: fast, and good enough for bytes that must not compress.
            self.state ^= self.state << 13;
            self.state ^= self.state >> 7;
            self.state ^= self.state << 17;
            word.copy_from_slice(&self.state.to_le_bytes());
        }
        &self.value
    }
}

/// Puts per measured round of a fill; each round starts with an empty store.
const FILL: u64 = 50_000;

/// Fills an empty store over and over, measuring the puts and the debt they leave behind.
fn fill(rounds: u64, engine: EngineKind, mut number: impl FnMut(u64) -> u64) -> Duration {
    let mut spent = Duration::ZERO;
    for _ in 0..rounds {
        let store = Store::new(engine);
        let mut value = Values::new();
        let start = Instant::now();
        for n in 0..FILL {
            store
                .keyspace
                .put(key(number(n)), value.next())
                .expect("a put");
        }
        store.db.wait_idle().expect("background work");
        spent += start.elapsed();
    }
    spent
}

fn writes(criterion: &mut Criterion, engine: EngineKind) {
    let mut group = criterion.benchmark_group(engine.name());
    group.throughput(Throughput::Elements(FILL)).sample_size(10);
    group.bench_function("fillseq", |bencher| {
        bencher.iter_custom(|rounds| fill(rounds, engine, |n| n));
    });
    group.bench_function("fillrandom", |bencher| {
        bencher.iter_custom(|rounds| {
            let mut order = Order::new(FILL);
            fill(rounds, engine, |_| order.step())
        });
    });
    group.finish();
}

fn reads(criterion: &mut Criterion, engine: EngineKind) {
    let store = Store::filled(engine);
    let keyspace = &store.keyspace;
    let mut group = criterion.benchmark_group(engine.name());
    group.sample_size(20);
    group.throughput(Throughput::Elements(1));
    let mut order = Order::new(KEYS);
    group.bench_function("readrandom", |bencher| {
        bencher.iter(|| {
            let found = keyspace.get_with(key(2 * order.step()), |value| value.len());
            assert_eq!(found.expect("a read"), Some(VALUE_LEN_BYTES));
        });
    });
    group.bench_function("readmissing", |bencher| {
        bencher.iter(|| {
            let found = keyspace.contains_key(key(2 * order.step() + 1));
            assert!(!found.expect("a read"));
        });
    });
    group.throughput(Throughput::Elements(16));
    group.bench_function("multiget16", |bencher| {
        bencher.iter(|| {
            let keys: [_; 16] = std::array::from_fn(|_| key(2 * order.step()));
            let found = keyspace.multi_get(&keys).expect("a read");
            assert!(found.iter().all(Option::is_some));
        });
    });
    group.throughput(Throughput::Elements(1));
    group.bench_function("seek10", |bencher| {
        bencher.iter(|| {
            let mut scan = keyspace.range(key(2 * order.step())..);
            let mut bytes = 0;
            for _ in 0..10 {
                match scan.next_with(|_, value| value.len()).expect("a scan") {
                    Some(len) => bytes += len,
                    None => break,
                }
            }
            bytes
        });
    });
    group.sample_size(10);
    group.throughput(Throughput::Elements(KEYS));
    group.bench_function("readseq", |bencher| {
        bencher.iter(|| {
            let mut scan = keyspace.iter();
            let mut count = 0;
            while scan.next_with(|_, _| ()).expect("a scan").is_some() {
                count += 1;
            }
            assert_eq!(count, KEYS);
        });
    });
    group.bench_function("readreverse", |bencher| {
        bencher.iter(|| {
            let mut scan = keyspace.iter();
            let mut count = 0;
            while scan.next_back_with(|_, _| ()).expect("a scan").is_some() {
                count += 1;
            }
            assert_eq!(count, KEYS);
        });
    });
    // Last, because it changes the store's shape.
    group.throughput(Throughput::Elements(FILL));
    group.bench_function("overwrite", |bencher| {
        let mut value = Values::new();
        bencher.iter_custom(|rounds| {
            let start = Instant::now();
            for _ in 0..rounds {
                for _ in 0..FILL {
                    keyspace
                        .put(key(2 * order.step()), value.next())
                        .expect("a put");
                }
                store.db.wait_idle().expect("background work");
            }
            start.elapsed()
        });
    });
    group.finish();
}

/// One get and one put of one keyspace, in stores with more and more others, each with an entry.
fn transactions(criterion: &mut Criterion, engine: EngineKind) {
    let mut group = criterion.benchmark_group(engine.name());
    group.throughput(Throughput::Elements(1));
    for count in [1, 10, 100, 1000] {
        let store = Store::new(engine);
        for n in 1..count {
            let other = store.db.keyspace(&n.to_string(), engine);
            other.expect("a new keyspace").put("k", "v").expect("a put");
        }
        let (db, keyspace) = (&store.db, &store.keyspace);
        keyspace.put("k", "v").expect("a put");
        group.bench_function(format!("snapshot_of_{count}"), |bencher| {
            bencher.iter(|| db.snapshot().get(keyspace, "k").expect("a read"));
        });
        group.bench_function(format!("read_of_{count}"), |bencher| {
            bencher.iter(|| {
                let tx = db.transaction().expect("it begins");
                assert!(tx.contains_key(keyspace, "k").expect("a read"));
                tx.commit().expect("nothing was written")
            });
        });
        group.bench_function(format!("transaction_of_{count}"), |bencher| {
            bencher.iter(|| {
                let tx = db.transaction().expect("it begins");
                assert!(tx.contains_key(keyspace, "k").expect("a read"));
                tx.put(keyspace, "k", "v").expect("a put");
                tx.commit().expect("there is no other")
            });
        });
    }
    group.finish();
}

fn engines(criterion: &mut Criterion) {
    for engine in EngineKind::ALL {
        writes(criterion, engine);
        reads(criterion, engine);
        transactions(criterion, engine);
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(5));
    targets = engines
}
criterion_main!(benches);
