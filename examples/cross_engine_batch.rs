//! One atomic commit over both engines: balances on the B-tree, where they are read at any moment,
//! and a journal on the LSM tree, which only ever grows.
//!
//! `cargo run --example cross_engine_batch`

use hedgerow::{Db, Durability, EngineKind, Keyspace, Result};

/// A tiny bank.
struct Bank {
    db: Db,
    balances: Keyspace,
    journal: Keyspace,
}

impl Bank {
    fn open(path: impl AsRef<std::path::Path>) -> Result<Self> {
        let db = Db::open(path)?;
        Ok(Self {
            balances: db.keyspace("balances", EngineKind::BTree)?,
            journal: db.keyspace("journal", EngineKind::Lsm)?,
            db,
        })
    }

    fn balance(&self, account: &str) -> Result<i64> {
        let found = self.balances.get_with(account, |bytes| {
            i64::from_be_bytes(bytes.try_into().expect("eight bytes were put"))
        })?;
        Ok(found.unwrap_or(0))
    }

    /// Both balances and the journal change together, or nothing does, whatever happens to the
    /// machine meanwhile. (This bank has one clerk; two transfers at once need
    /// [`Db::transact`].)
    fn transfer(&self, number: u64, from: &str, to: &str, amount: i64) -> Result<()> {
        let mut batch = self.db.batch();
        batch.put(
            &self.balances,
            from,
            (self.balance(from)? - amount).to_be_bytes(),
        );
        batch.put(
            &self.balances,
            to,
            (self.balance(to)? + amount).to_be_bytes(),
        );
        // Numbers in big-endian order sort as numbers.
        let entry = format!("{from} -> {to}: {amount}");
        batch.put(&self.journal, number.to_be_bytes(), entry);
        self.db.write(batch, Durability::Sync)?;
        Ok(())
    }
}

fn main() -> Result<()> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("bank.db");

    let bank = Bank::open(&path)?;
    bank.transfer(1, "mint", "ada", 100)?;
    bank.transfer(2, "ada", "grace", 30)?;
    bank.transfer(3, "grace", "alan", 5)?;
    bank.db.close()?;

    // After reopening, the journal and the balances still agree.
    let bank = Bank::open(&path)?;
    for entry in bank.journal.iter() {
        let (number, entry) = entry?;
        let number = u64::from_be_bytes(number[..].try_into().expect("eight bytes were put"));
        println!("{number}. {}", String::from_utf8_lossy(&entry));
    }
    let mut sum = 0;
    for account in ["mint", "ada", "grace", "alan"] {
        let balance = bank.balance(account)?;
        println!("{account}: {balance}");
        sum += balance;
    }
    assert_eq!(sum, 0, "money is neither made nor lost");
    bank.db.close()
}
