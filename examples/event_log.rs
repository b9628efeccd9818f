//! A log of events with retention, and readers that go on where they were. docs/recipes.md explains
//! the layout.
//!
//! `cargo run --example event_log`

use std::ops::Bound;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hedgerow::{
    Db, Durability, EngineKind, KeyBuilder, KeyReader, Keyspace, Options, Result, Value,
};

struct EventLog {
    db: Db,
    /// (stream, time, number) -> event
    events: Keyspace,
    /// (reader, stream) -> the key up to which it has read
    positions: Keyspace,
    /// Keeps apart what happened at the same time.
    next: u32,
}

impl EventLog {
    /// The log of a program that appends from one thread.
    fn open(db: Db, engine: EngineKind) -> Result<Self> {
        Ok(Self {
            events: db.keyspace("events", engine)?,
            positions: db.keyspace("positions", EngineKind::BTree)?,
            next: 0,
            db,
        })
    }

    fn append(&mut self, stream: &str, at: SystemTime, events: &[&str]) -> Result<()> {
        let mut batch = self.db.batch();
        for event in events {
            let key = KeyBuilder::new().str(stream).time(at).u32(self.next);
            batch.put(&self.events, key, event);
            self.next = self.next.wrapping_add(1);
        }
        self.db.write(batch, Durability::Buffered)?;
        Ok(())
    }

    /// The events of `stream` since `from`, with their times.
    fn since(&self, stream: &str, from: SystemTime) -> Result<Vec<(SystemTime, Value)>> {
        let first = KeyBuilder::new().str(stream).time(from);
        let mut events = Vec::new();
        for entry in self.events.range(first..).take_while(is_of(stream)) {
            let (key, event) = entry?;
            let mut parts = KeyReader::new(&key);
            let (_, at) = (parts.str()?, parts.time()?);
            events.push((at, event));
        }
        Ok(events)
    }

    /// Hands up to `most` further events to `process`, and notes that `reader` has read them. If
    /// the program ends in between, they are handed out again.
    fn read(
        &self,
        reader: &str,
        stream: &str,
        most: usize,
        mut process: impl FnMut(&[u8]),
    ) -> Result<usize> {
        let position_key = KeyBuilder::new().str(reader).str(stream);
        let first = KeyBuilder::new().str(stream).into_vec();
        let position = self.positions.get(&position_key)?;
        let after = position.as_deref().unwrap_or(&first);
        let events = self
            .events
            .range((Bound::Excluded(after), Bound::Unbounded));
        let (mut count, mut last) = (0, None);
        for entry in events.take_while(is_of(stream)).take(most) {
            let (key, event) = entry?;
            process(&event);
            (count, last) = (count + 1, Some(key));
        }
        if let Some(last) = last {
            self.positions.put(position_key, last)?;
        }
        Ok(count)
    }

    /// Removes the events of `stream` before `end`.
    fn retain_since(&self, stream: &str, end: SystemTime) -> Result<()> {
        let all = KeyBuilder::new().str(stream);
        self.events
            .delete_range(all.clone()..all.time(end))
            .map(|_| ())
    }
}

/// True for entries of that stream.
fn is_of(stream: &str) -> impl Fn(&Result<(Value, Value)>) -> bool + use<> {
    let stream = KeyBuilder::new().str(stream);
    move |entry| match entry {
        Ok((key, _)) => key.starts_with(stream.as_ref()),
        // To be seen by the loop.
        Err(_) => true,
    }
}

fn main() -> Result<()> {
    let day = |n: u64| UNIX_EPOCH + Duration::from_secs(n * 86_400);
    for engine in EngineKind::ALL {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let options = Options::new().durability(Durability::Buffered);
        let db = options.open(dir.path().join("my.db"))?;
        let mut log = EventLog::open(db, engine)?;
        for n in 0..1_000 {
            log.append("orders", day(n), &["placed", "paid"])?;
            log.append("visits", day(n), &["seen"])?;
        }
        assert_eq!(log.since("orders", day(998))?.len(), 4);
        assert_eq!(log.since("visits", day(998))?.len(), 2);
        let (at, event) = &log.since("orders", day(999))?[1];
        assert!(*at == day(999) && event == "paid");

        // Two readers, each at its own pace.
        let mut paid = 0;
        let mut count_paid = |event: &[u8]| paid += usize::from(event == b"paid");
        assert_eq!(
            log.read("billing", "orders", 1_500, &mut count_paid)?,
            1_500
        );
        assert_eq!(log.read("billing", "orders", 1_500, &mut count_paid)?, 500);
        assert_eq!(log.read("billing", "orders", 1_500, &mut count_paid)?, 0);
        assert_eq!(paid, 1_000);
        assert_eq!(log.read("report", "orders", 10, |_| ())?, 10);

        // What is older than 30 days goes. A reader that was behind goes on with what is left.
        log.retain_since("orders", day(970))?;
        assert_eq!(log.since("orders", UNIX_EPOCH)?.len(), 60);
        assert_eq!(log.since("visits", UNIX_EPOCH)?.len(), 1_000);
        assert_eq!(log.read("report", "orders", 100, |_| ())?, 60);
        log.append("orders", day(1_000), &["placed"])?;
        assert_eq!(log.read("report", "orders", 100, |_| ())?, 1);
        println!("{engine}: three years of events, a month of one stream kept");
        log.db.close()?;
    }
    Ok(())
}
