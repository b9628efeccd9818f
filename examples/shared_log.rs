//! A log that many threads append to without a counter, and readers that miss nothing.
//! docs/recipes.md explains the layout.
//!
//! `cargo run --example shared_log`

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering};

use hedgerow::{Db, Durability, EngineKind, KeyBuilder, Keyspace, Options, Result, SeqNo};

const THREADS: u32 = 4;
const EVENTS: u32 = 500;

struct SharedLog {
    db: Db,
    /// (stream, number of the commit, place in the commit) -> event
    events: Keyspace,
    /// stream -> the number of its last commit
    heads: Keyspace,
    /// (reader, stream) -> the key up to which it has read
    positions: Keyspace,
}

/// What all keys of a stream begin with.
fn stream_prefix(stream: &str) -> Vec<u8> {
    KeyBuilder::new().str(stream).into_vec()
}

impl SharedLog {
    fn open(db: Db, engine: EngineKind) -> Result<Self> {
        Ok(Self {
            events: db.keyspace("events", engine)?,
            heads: db.keyspace("heads", EngineKind::BTree)?,
            positions: db.keyspace("positions", EngineKind::BTree)?,
            db,
        })
    }

    /// Appends events from any thread, all of them in one place of the order. Reads nothing.
    fn append(&self, stream: &str, events: &[String]) -> Result<SeqNo> {
        let mut batch = self.db.batch();
        for (place, event) in (0_u32..).zip(events) {
            let prefix = stream_prefix(stream);
            batch.put_versionstamped_key(&self.events, prefix, place.to_be_bytes(), event);
        }
        batch.put_versionstamped_value(&self.heads, stream, "", "");
        self.db.write(batch, Durability::Buffered)
    }

    /// Hands further events to `process`, and moves the position of `reader` in the same commit as
    /// what `process` writes: exactly once.
    fn read(
        &self,
        reader: &str,
        stream: &str,
        mut process: impl FnMut(&hedgerow::Transaction, &[u8]) -> Result<()>,
    ) -> Result<u64> {
        let position_key = KeyBuilder::new().str(reader).str(stream);
        self.db.transact(|tx| {
            let first = stream_prefix(stream);
            let position = tx.get(&self.positions, &position_key)?;
            let after = position.as_deref().unwrap_or(&first);
            // What comes behind the last event does not matter to the commit.
            let log = tx.untracked(&self.events);
            let (mut count, mut last) = (0, None);
            for entry in log.range((Bound::Excluded(after), Bound::Unbounded)) {
                let (key, event) = entry?;
                if !key.starts_with(&first) {
                    break;
                }
                process(tx, &event)?;
                (count, last) = (count + 1, Some(key));
            }
            if let Some(last) = last {
                tx.put(&self.positions, &position_key, last)?;
            }
            Ok(count)
        })
    }

    /// Removes the events of `stream` before the commit `end`.
    fn retain_since(&self, stream: &str, end: SeqNo) -> Result<()> {
        let first = stream_prefix(stream);
        let end = [&first[..], &end.0.to_be_bytes()].concat();
        self.events.delete_range(first..end).map(|_| ())
    }
}

fn main() -> Result<()> {
    for engine in EngineKind::ALL {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let options = Options::new().durability(Durability::Buffered);
        let log = SharedLog::open(options.open(dir.path().join("my.db"))?, engine)?;
        let seen = log.db.keyspace("seen", EngineKind::BTree)?;
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| -> Result<()> {
            let append = |thread: u32| -> Result<SeqNo> {
                let mut last = SeqNo(0);
                for n in 0..EVENTS {
                    let events = [
                        format!("{thread} {n} first"),
                        format!("{thread} {n} second"),
                    ];
                    let seq = log.append("orders", &events)?;
                    assert!(seq > last);
                    last = seq;
                }
                Ok(last)
            };
            let writers: Vec<_> = (0..THREADS)
                .map(|thread| scope.spawn(move || append(thread)))
                .collect();
            let reader = scope.spawn(|| -> Result<u64> {
                let mut count = 0;
                loop {
                    let is_last = is_over.load(Ordering::SeqCst);
                    count += log.read("billing", "orders", |tx, event| {
                        assert!(!tx.contains_key(&seen, event)?, "an event was read twice");
                        tx.put(&seen, event, "")
                    })?;
                    if is_last {
                        return Ok(count);
                    }
                }
            });
            let mut lasts = BTreeSet::new();
            for writer in writers {
                lasts.insert(writer.join().expect("it appends")?);
            }
            is_over.store(true, Ordering::SeqCst);
            let count = reader.join().expect("it reads")?;
            // It was never behind a number that came later.
            assert_eq!(count, u64::from(2 * THREADS * EVENTS));
            let head = log.heads.get("orders")?.expect("there is one");
            let last = lasts.last().expect("there is one");
            assert_eq!(head, last.0.to_be_bytes());

            log.retain_since("orders", *last)?;
            assert_eq!(log.events.len()?, 2);
            Ok(())
        })?;
        println!("{engine}: each event was read once, in the order of the commits");
        log.db.close()?;
    }
    Ok(())
}
