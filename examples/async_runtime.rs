//! hedgerow from an async runtime. The core blocks, on purpose: a read is over in less than the
//! time a task switch takes, most of the time. What may wait for a disk goes to the runtime's
//! pool of blocking threads, and commits made at once share one flush of the device.
//!
//! `cargo run --example async_runtime`

use std::time::Instant;

use hedgerow::{Db, EngineKind, Keyspace, Result, SeqNo, Value};
use tokio::task::{JoinSet, spawn_blocking};

/// A keyspace for async code. Handles are cheap to clone, so each call takes one along.
#[derive(Clone)]
struct AsyncKeyspace(Keyspace);

impl AsyncKeyspace {
    async fn get(&self, key: impl Into<Vec<u8>>) -> Result<Option<Value>> {
        let (keyspace, key) = (self.0.clone(), key.into());
        blocking(move || keyspace.get(&key)).await
    }

    async fn put(&self, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Result<SeqNo> {
        let (keyspace, key, value) = (self.0.clone(), key.into(), value.into());
        blocking(move || keyspace.put(&key, &value)).await
    }
}

/// Runs `work` where blocking is allowed.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    spawn_blocking(work).await.expect("the work does not panic")
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("events.db");
    let db = blocking(move || Db::open(path)).await?;
    let events = AsyncKeyspace(db.keyspace("events", EngineKind::Lsm)?);

    // Sixty-four tasks, each with its own durable commits.
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for task in 0..64_u32 {
        let events = events.clone();
        tasks.spawn(async move {
            for event in 0..10 {
                events
                    .put(format!("{task:02}/{event}"), "something happened")
                    .await?;
            }
            Ok::<_, hedgerow::Error>(())
        });
    }
    while let Some(finished) = tasks.join_next().await {
        finished.expect("no task panics")?;
    }

    let value = events.get("07/3").await?.expect("it was put");
    println!("07/3: {}", String::from_utf8_lossy(&value));
    let stats = db.stats();
    println!(
        "{} durable commits took {} flushes of the device and {:.0} ms",
        stats.commits,
        stats.log_syncs,
        began.elapsed().as_secs_f64() * 1e3,
    );
    blocking(move || db.close()).await
}
