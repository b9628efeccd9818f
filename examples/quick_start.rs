//! Open a store, write, read, scan: the whole of hedgerow in a page.
//!
//! `cargo run --example quick_start`

use hedgerow::{Batch, Db, Durability, EngineKind, Result};

fn main() -> Result<()> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let db = Db::open(dir.path().join("my.db"))?;

    // A keyspace is an ordered map with an engine of its own. The two engines share one interface.
    let born = db.keyspace("born", EngineKind::BTree)?;

    // By default a write survives a power loss once the call has returned.
    born.put("ada", "1815")?;
    born.put("grace", "1906")?;

    // A value that was read is cheap to clone and derefs to bytes; an absent key is `None`.
    assert_eq!(born.get("ada")?.unwrap(), b"1815");
    assert!(born.get("bob")?.is_none());

    // A batch is committed whole or not at all. `Buffered` does not wait for the disk: the commit
    // survives the end of the process, and a power loss a second later.
    let mut batch = Batch::new();
    for (name, year) in [("alan", "1912"), ("barbara", "1939"), ("edsger", "1930")] {
        batch.put(name, year);
    }
    batch.delete("grace");
    born.write_with(batch, Durability::Buffered)?;

    println!("everybody:");
    for entry in born.iter() {
        let (name, year) = entry?;
        println!("  {} {}", name.escape_ascii(), year.escape_ascii());
    }

    println!("those with an a, backwards:");
    for entry in born.prefix("a").rev() {
        let (name, _) = entry?;
        println!("  {}", name.escape_ascii());
    }

    // Ranges can be deleted as a whole; the LSM tree does that with one small record.
    born.delete_range("b"..)?;
    println!("before b: {} left", born.iter().count());

    db.close()
}
