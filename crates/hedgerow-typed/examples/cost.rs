//! What typed tables cost beside the keyspace that they are in: microseconds for each row, of one
//! thread with `Buffered` commits.
//!
//! `cargo run --release --package hedgerow-typed --example cost [ROWS]`

use std::time::Instant;

use hedgerow::{Db, Durability, EngineKind, Options};
use hedgerow_typed::{Index, Result, TableDefinition};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct User {
    email: String,
    city: u32,
}

fn user(number: u64) -> User {
    User {
        email: format!("user{number}@example.org"),
        city: (number % 1000) as u32,
    }
}

/// Keys in an order that looks random.
fn key(number: u64) -> u64 {
    number.wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

/// Runs `step` for each row and prints what that takes.
fn measure(what: &str, rows: u64, mut step: impl FnMut(u64) -> Result<()>) -> Result<()> {
    let begun = Instant::now();
    for row in 0..rows {
        step(row)?;
    }
    let micros = begun.elapsed().as_secs_f64() * 1e6 / rows as f64;
    println!("  {what:<34} {micros:6.2}");
    Ok(())
}

fn compare(db: &Db, engine: EngineKind, rows: u64) -> Result<()> {
    let name = |what: &str| format!("{what} on {engine:?}");
    let keyspace = db.keyspace(&name("keyspace"), engine)?;
    let plain = TableDefinition::<u64, User>::named(name("plain")).engine(engine);
    let plain = plain.open(db)?;
    let by_email = Index::unique("by email", |_: &u64, user: &User| [user.email.clone()]);
    let by_city = Index::new("by city", |_: &u64, user: &User| [user.city]);
    let indexed = TableDefinition::<u64, User>::named(name("indexed")).engine(engine);
    let indexed = indexed.index(&by_email).index(&by_city).open(db)?;

    let value = |row: u64| format!("user{row}@example.org....");
    println!("{engine:?}");
    measure("put into the keyspace", rows, |row| {
        keyspace.put(key(row).to_be_bytes(), value(row))?;
        Ok(())
    })?;
    measure("the same in a transaction", rows, |row| {
        db.transact(|tx| tx.put(&keyspace, key(row).to_be_bytes(), value(row)))?;
        Ok(())
    })?;
    measure("put into a table", rows, |row| {
        plain.put(key(row), &user(row))
    })?;
    measure("put into a table with two indexes", rows, |row| {
        indexed.put(key(row), &user(row))
    })?;
    measure("get from the keyspace", rows, |row| {
        keyspace.get(key(row).to_be_bytes())?;
        Ok(())
    })?;
    measure("get from a table", rows, |row| {
        plain.get(key(row)).map(drop)
    })?;
    measure("get by a unique index", rows, |row| {
        indexed.by(&by_email)?.get(user(row).email).map(drop)
    })
}

fn main() -> Result<()> {
    let rows = std::env::args().nth(1).and_then(|rows| rows.parse().ok());
    let dir = tempfile::tempdir().expect("a temporary directory");
    let options = Options::new().durability(Durability::Buffered);
    let db = options.open(dir.path().join("cost.db"))?;
    for engine in [EngineKind::BTree, EngineKind::Lsm] {
        compare(&db, engine, rows.unwrap_or(100_000))?;
    }
    Ok(db.close()?)
}
