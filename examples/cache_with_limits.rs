//! A cache on disk whose entries expire, and which keeps within a size. docs/recipes.md explains
//! the layout.
//!
//! `cargo run --example cache_with_limits`

use std::sync::atomic::{AtomicI64, Ordering};

use hedgerow::{
    Db, Durability, EngineKind, Error, KeyBuilder, KeyReader, Keyspace, Options, Result,
    Transaction, Value,
};

struct Cache {
    db: Db,
    /// key -> (time of its end, 8 bytes; content)
    entries: Keyspace,
    /// (time of its end, key) -> bytes that the entry takes
    by_end: Keyspace,
    /// Of all entries. In memory: in the store, every transaction would conflict over it.
    bytes: AtomicI64,
    bytes_max: i64,
}

impl Cache {
    fn open(db: Db, engine: EngineKind, bytes_max: i64) -> Result<Self> {
        let by_end = db.keyspace("cache by end", engine)?;
        let mut bytes = 0;
        for len in by_end.values() {
            bytes += len_of(&len?);
        }
        Ok(Self {
            entries: db.keyspace("cache", engine)?,
            by_end,
            bytes: AtomicI64::new(bytes),
            bytes_max,
            db,
        })
    }

    /// The content of `key`, unless its time is over.
    fn get(&self, key: &str, now: u64) -> Result<Option<Vec<u8>>> {
        let content = self.entries.get_with(key, |value| {
            let (end, content) = split(value);
            (end > now).then(|| content.to_vec())
        })?;
        Ok(content.flatten())
    }

    fn put(&self, key: &str, content: &[u8], end: u64) -> Result<()> {
        let value = [&end.to_be_bytes(), content].concat();
        let len = (key.len() + value.len()) as i64;
        let grown = self.db.transact(|tx| {
            let freed = match tx.get(&self.entries, key)? {
                Some(old) => self.remove(tx, key, split(&old).0)?,
                None => 0,
            };
            tx.put(&self.entries, key, &value)?;
            let by_end = KeyBuilder::new().u64(end).str(key);
            tx.put(&self.by_end, by_end, len.to_be_bytes())?;
            Ok::<_, Error>(len - freed)
        })?;
        self.bytes.fetch_add(grown, Ordering::Relaxed);
        while self.bytes.load(Ordering::Relaxed) > self.bytes_max {
            if !self.evict(u64::MAX)? {
                break;
            }
        }
        Ok(())
    }

    /// Removes what has expired; how many entries.
    fn sweep(&self, now: u64) -> Result<u64> {
        let mut count = 0;
        while self.evict(now)? {
            count += 1;
        }
        Ok(count)
    }

    /// Removes the entry that ends first, if it does so up to `end`.
    fn evict(&self, end: u64) -> Result<bool> {
        let freed = self.db.transact(|tx| {
            let Some((key, _)) = tx.keyspace(&self.by_end).first()? else {
                return Ok(None);
            };
            let mut parts = KeyReader::new(&key);
            let (its_end, key) = (parts.u64()?, parts.str()?);
            match its_end <= end {
                true => self.remove(tx, &key, its_end).map(Some),
                false => Ok(None),
            }
        })?;
        self.bytes.fetch_sub(freed.unwrap_or(0), Ordering::Relaxed);
        Ok(freed.is_some())
    }

    /// Removes an entry and its place in the order of ends; how many bytes it took.
    fn remove(&self, tx: &Transaction, key: &str, end: u64) -> Result<i64> {
        let by_end = KeyBuilder::new().u64(end).str(key);
        let len = tx.get(&self.by_end, &by_end)?;
        tx.delete(&self.by_end, by_end)?;
        tx.delete(&self.entries, key)?;
        Ok(len.map_or(0, |len| len_of(&len)))
    }
}

fn len_of(value: &Value) -> i64 {
    i64::from_be_bytes(value[..].try_into().expect("eight bytes were put"))
}

/// The time of its end, and the content.
fn split(value: &[u8]) -> (u64, &[u8]) {
    let (end, content) = value.split_first_chunk().expect("eight bytes at least");
    (u64::from_be_bytes(*end), content)
}

fn main() -> Result<()> {
    for engine in EngineKind::ALL {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("my.db");
        // A cache that is lost with the power is no harm.
        let options = Options::new().durability(Durability::Buffered);
        let cache = Cache::open(options.clone().open(&path)?, engine, 20_000)?;

        cache.put("page", b"first", 100)?;
        assert_eq!(cache.get("page", 99)?.unwrap(), b"first");
        assert_eq!(cache.get("page", 100)?, None, "its time is over");
        cache.put("page", b"second", 200)?;
        assert_eq!(cache.get("page", 150)?.unwrap(), b"second");
        assert_eq!((cache.sweep(199)?, cache.sweep(200)?), (0, 1));
        assert!(cache.entries.is_empty()? && cache.by_end.is_empty()?);
        assert_eq!(cache.bytes.load(Ordering::Relaxed), 0);

        // Four threads put more than there is room for: what ends first goes.
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let cache = &cache;
                scope.spawn(move || {
                    for n in (thread..400).step_by(4) {
                        let content = [b'x'; 200];
                        cache
                            .put(&format!("page {n}"), &content, 1_000 + n)
                            .unwrap();
                    }
                });
            }
        });
        assert!(cache.bytes.load(Ordering::Relaxed) <= 20_000);
        assert!(cache.get("page 399", 0)?.is_some() && cache.get("page 0", 0)?.is_none());

        // The size is counted anew when the cache is opened.
        let bytes = cache.bytes.load(Ordering::Relaxed);
        cache.db.close()?;
        let cache = Cache::open(options.open(&path)?, engine, 20_000)?;
        assert_eq!(cache.bytes.load(Ordering::Relaxed), bytes);
        assert_eq!(cache.entries.len()?, cache.by_end.len()?);
        println!("{engine}: {} pages in {bytes} bytes", cache.entries.len()?);
    }
    Ok(())
}
