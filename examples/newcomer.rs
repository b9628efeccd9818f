//! What one writes on the first day: users with an index, counters, a queue, pages of a list.
//!
//! `cargo run --example newcomer`

use std::ops::Bound;
use std::thread;

use hedgerow::{Db, Durability, EngineKind, Keyspace, Result, Value};

/// A user, and the entry of the index by city that leads to it: both or neither.
fn add_user(db: &Db, users: &Keyspace, by_city: &Keyspace, name: &str, city: &str) -> Result<()> {
    let mut batch = db.batch();
    batch.put(users, name, city);
    batch.put(by_city, format!("{city}/{name}"), "");
    db.write(batch, Durability::Sync)?;
    Ok(())
}

fn increment(counters: &Keyspace, name: &str) -> Result<()> {
    counters.update(name, |old| {
        let count = old.map_or(0, |bytes| u64::from_be_bytes(bytes.try_into().unwrap()));
        Some((count + 1).to_be_bytes())
    })?;
    Ok(())
}

/// Up to `limit` keys behind `after`; the last of them is where the next page goes on.
fn page(list: &Keyspace, after: &[u8], limit: usize) -> Result<Vec<Value>> {
    let range = list.range((Bound::Excluded(after), Bound::Unbounded));
    let keys = range.take(limit).map(|entry| Ok(entry?.0));
    keys.collect()
}

fn main() -> Result<()> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let db = Db::open(dir.path().join("my.db"))?;
    let users = db.keyspace("users", EngineKind::BTree)?;
    let by_city = db.keyspace("users by city", EngineKind::BTree)?;
    for (name, city) in [("ada", "london"), ("alan", "london"), ("grace", "new york")] {
        add_user(&db, &users, &by_city, name, city)?;
    }
    let londoners = by_city.prefix("london/").try_count()?;
    println!("{londoners} of {} users live in London", users.len()?);
    assert_eq!(londoners, 2);

    // Four threads count together. None of them loses an update of another.
    let counters = db.keyspace("counters", EngineKind::BTree)?;
    let counters = counters.with_durability(Durability::Buffered);
    let count = || (0..1000).try_for_each(|_| increment(&counters, "visits"));
    thread::scope(|scope| {
        let threads = [(); 4].map(|()| scope.spawn(count));
        let mut threads = threads.into_iter();
        threads.try_for_each(|thread| thread.join().expect("no panic"))
    })?;
    let visits = counters.get("visits")?.expect("counted");
    println!(
        "{} visits",
        u64::from_be_bytes(visits[..].try_into().unwrap())
    );
    assert_eq!(visits, 4000_u64.to_be_bytes());

    // A queue: numbers in big-endian order sort as they should. No entry is taken twice.
    let queue = db.keyspace("queue", EngineKind::Lsm)?;
    for (number, job) in (0_u64..).zip(["wash", "rinse", "dry"]) {
        queue.put(number.to_be_bytes(), job)?;
    }
    while let Some((_, job)) = queue.pop_first()? {
        println!("job: {}", job.escape_ascii());
    }

    // Pages of two: each begins behind the last key of the one before.
    let mut last = Value::default();
    loop {
        let names = page(&users, &last, 2)?;
        let Some(end) = names.last() else { break };
        println!("page: {names:?}");
        last = end.clone();
    }
    db.close()
}
