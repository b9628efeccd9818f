//! Counters that many threads add to, with totals for each day and for all days. docs/recipes.md
//! explains the layout.
//!
//! `cargo run --example counters`

use hedgerow::{
    Batch, Db, Durability, EngineKind, KeyBuilder, KeyReader, Keyspace, KvRead, Options, Result,
};

/// Each counter is divided into so many, so that threads seldom meet.
const SHARDS: u8 = 16;

struct Counters {
    /// (name, day, shard) -> count, 8 bytes
    counts: Keyspace,
}

impl Counters {
    /// Adds `n` to the counter of that day. A thread always uses the same shard.
    fn add(&self, name: &str, day: u32, shard: u8, n: u64) -> Result<()> {
        let key = KeyBuilder::new().str(name).u32(day).u8(shard % SHARDS);
        self.counts.update(key, |count| {
            let count = count.map_or(0, number);
            Some((count + n).to_be_bytes())
        })?;
        Ok(())
    }

    /// The count of one day.
    fn of_day(&self, name: &str, day: u32) -> Result<u64> {
        sum(&self.counts, KeyBuilder::new().str(name).u32(day))
    }

    /// The count of all days.
    fn total(&self, name: &str) -> Result<u64> {
        sum(&self.counts, KeyBuilder::new().str(name))
    }

    /// Makes one entry of all shards of days that are over: no thread adds to them any more.
    fn fold_before(&self, name: &str, end: u32) -> Result<()> {
        let of_name = KeyBuilder::new().str(name);
        let over = of_name.clone()..of_name.clone().u32(end);
        let mut days: Vec<(u32, u64)> = Vec::new();
        for entry in self.counts.range(over.clone()) {
            let (key, count) = entry?;
            let mut parts = KeyReader::new(&key);
            let (_, day) = (parts.str()?, parts.u32()?);
            match days.last_mut() {
                Some((last, sum)) if *last == day => *sum += number(&count),
                _ => days.push((day, number(&count))),
            }
        }
        // The range goes and its sums come in one commit, so no reader counts twice or not at all.
        let mut batch = Batch::new();
        batch.delete_range(over);
        for (day, sum) in days {
            batch.put(of_name.clone().u32(day).u8(0), sum.to_be_bytes());
        }
        self.counts.write(batch)?;
        Ok(())
    }
}

/// The sum of all counts whose keys begin with `prefix`, at one moment.
fn sum(counts: &impl KvRead, prefix: KeyBuilder) -> Result<u64> {
    let mut sum = 0;
    for entry in counts.prefix(prefix) {
        let (_, count) = entry?;
        sum += number(&count);
    }
    Ok(sum)
}

fn number(count: &[u8]) -> u64 {
    u64::from_be_bytes(count.try_into().expect("eight bytes were put"))
}

fn main() -> Result<()> {
    const EACH: u64 = 250;
    for engine in EngineKind::ALL {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let options = Options::new().durability(Durability::Buffered);
        let db = options.open(dir.path().join("my.db"))?;
        let counters = count(&db, engine, EACH)?;
        assert_eq!(counters.of_day("views", 1)?, 4 * EACH);
        assert_eq!(counters.total("views")?, 8 * EACH);
        assert_eq!(counters.total("view")?, 0, "another name");
        assert_eq!(counters.counts.len()?, 16);

        counters.fold_before("views", 2)?;
        assert_eq!(counters.counts.len()?, 9);
        assert_eq!(counters.of_day("views", 1)?, 4 * EACH);
        assert_eq!(counters.total("views")?, 8 * EACH);
        println!("{engine}: {} views", counters.total("views")?);
    }
    Ok(())
}

/// Eight threads that count, half of what they do on each of two days.
fn count(db: &Db, engine: EngineKind, each: u64) -> Result<Counters> {
    let counts = db.keyspace("counters", engine)?;
    let counters = Counters { counts };
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let counters = &counters;
            scope.spawn(move || {
                for n in 0..each {
                    let day = 1 + (n % 2) as u32;
                    counters.add("views", day, thread, 1).unwrap();
                }
            });
        }
    });
    Ok(counters)
}
