//! A snapshot is one moment of the whole store, over all keyspaces and both engines. Readers of it
//! wait for nobody, and nobody waits for them.
//!
//! `cargo run --example snapshots`

use hedgerow::{Db, Durability, EngineKind, Result};

const ITEMS: u32 = 1000;

fn main() -> Result<()> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let db = Db::open(dir.path().join("shop.db"))?;
    let stock = db.keyspace("stock", EngineKind::BTree)?;
    let sold = db.keyspace("sold", EngineKind::Lsm)?;

    // Every item is in exactly one of the two keyspaces, at every moment.
    let mut batch = db.batch();
    for item in 0..ITEMS {
        batch.put(&stock, item.to_be_bytes(), b"");
    }
    db.write(batch, Durability::Buffered)?;

    std::thread::scope(|scope| {
        let seller = scope.spawn(|| -> Result<()> {
            for item in 0..ITEMS {
                let mut batch = db.batch();
                batch.delete(&stock, item.to_be_bytes());
                batch.put(&sold, item.to_be_bytes(), b"");
                db.write(batch, Durability::Buffered)?;
            }
            Ok(())
        });

        // Meanwhile, count. Two separate reads could see an item twice or not at all; a snapshot
        // cannot.
        loop {
            let finished = seller.is_finished();
            let moment = db.snapshot();
            let in_stock = moment.iter(&stock).count();
            let gone = moment.iter(&sold).count();
            println!("in stock {in_stock:4}, sold {gone:4}");
            assert_eq!(in_stock + gone, ITEMS as usize);
            if finished {
                return seller.join().expect("the seller does not panic");
            }
        }
    })?;

    // A snapshot keeps its moment as long as it lives, whatever is written later.
    let before = db.snapshot();
    let mut batch = db.batch();
    batch.delete_range(&sold, ..);
    db.write(batch, Durability::Sync)?;
    assert_eq!(before.iter(&sold).count(), ITEMS as usize);
    assert_eq!(sold.iter().count(), 0);
    println!(
        "the snapshot still has {} sold items",
        before.keyspace(&sold).iter().count()
    );
    db.close()
}
