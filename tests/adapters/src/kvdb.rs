//! kvdb on hedgerow: a column is a keyspace, a transaction is a batch over them.

use std::io;
use std::sync::Mutex;
use std::time::Instant;

use hedgerow::{Db, Durability, EngineKind, Keyspace, Scan};
use kvdb::{DBKeyValue, DBOp, DBTransaction, DBValue, IoStats, IoStatsKind, KeyValueDB};

/// A store with a fixed number of columns.
pub struct Columns {
    db: Db,
    columns: Vec<Keyspace>,
    stats: Mutex<[IoStats; 2]>,
}

impl Columns {
    /// Makes the columns that are missing.
    pub fn new(db: Db, engine: EngineKind, count: u32) -> hedgerow::Result<Self> {
        let column = |n| db.keyspace(&format!("col{n}"), engine);
        let columns = (0..count).map(column).collect::<Result<_, _>>()?;
        Ok(Self {
            db,
            columns,
            stats: Mutex::new([IoStats::empty(), IoStats::empty()]),
        })
    }

    fn column(&self, number: u32) -> io::Result<&Keyspace> {
        let column = self.columns.get(number as usize);
        column.ok_or_else(|| io::Error::other(format!("there is no column {number}")))
    }

    fn count(&self, change: impl Fn(&mut IoStats)) {
        let mut stats = self.stats.lock().expect("no panic under this lock");
        stats.iter_mut().for_each(change);
    }

    fn entries<'a>(
        &self,
        column: u32,
        scan: impl FnOnce(&Keyspace) -> Scan,
    ) -> Box<dyn Iterator<Item = io::Result<DBKeyValue>> + 'a> {
        match self.column(column) {
            Ok(column) => Box::new(scan(column).map(|item| {
                let (key, value) = item.map_err(io::Error::other)?;
                Ok((key[..].into(), value.to_vec()))
            })),
            Err(error) => Box::new(std::iter::once(Err(error))),
        }
    }
}

impl KeyValueDB for Columns {
    fn get(&self, col: u32, key: &[u8]) -> io::Result<Option<DBValue>> {
        let found = self.column(col)?.get(key).map_err(io::Error::other)?;
        let bytes = key.len() + found.as_ref().map_or(0, |value| value.len());
        self.count(|stats| {
            stats.reads += 1;
            stats.bytes_read += bytes as u64;
        });
        Ok(found.map(|value| value.to_vec()))
    }

    fn get_by_prefix(&self, col: u32, prefix: &[u8]) -> io::Result<Option<DBValue>> {
        let first = self.column(col)?.prefix(prefix).next();
        let first = first.transpose().map_err(io::Error::other)?;
        Ok(first.map(|(_, value)| value.to_vec()))
    }

    fn write(&self, transaction: DBTransaction) -> io::Result<()> {
        let mut batch = self.db.batch();
        let mut bytes = 0;
        for op in &transaction.ops {
            let column = self.column(op.col())?;
            match op {
                DBOp::Insert { key, value, .. } => {
                    bytes += key.len() + value.len();
                    batch.put(column, key, value);
                }
                DBOp::Delete { key, .. } => batch.delete(column, key),
                DBOp::DeletePrefix { prefix, .. } => match kvdb::end_prefix(prefix) {
                    Some(end) => batch.delete_range(column, &prefix[..]..&end[..]),
                    None => batch.delete_range(column, &prefix[..]..),
                },
            }
        }
        self.db
            .write(batch, Durability::Sync)
            .map_err(io::Error::other)?;
        let writes = transaction.ops.len() as u64;
        self.count(|stats| {
            stats.transactions += 1;
            stats.writes += writes;
            stats.bytes_written += bytes as u64;
        });
        Ok(())
    }

    fn iter<'a>(&'a self, col: u32) -> Box<dyn Iterator<Item = io::Result<DBKeyValue>> + 'a> {
        self.entries(col, |column| column.iter())
    }

    fn iter_with_prefix<'a>(
        &'a self,
        col: u32,
        prefix: &'a [u8],
    ) -> Box<dyn Iterator<Item = io::Result<DBKeyValue>> + 'a> {
        self.entries(col, |column| column.prefix(prefix))
    }

    fn io_stats(&self, kind: IoStatsKind) -> IoStats {
        let mut stats = self.stats.lock().expect("no panic under this lock");
        let [overall, since] = &mut *stats;
        let mut asked = match kind {
            IoStatsKind::Overall => overall.clone(),
            IoStatsKind::SincePrevious => std::mem::replace(since, IoStats::empty()),
        };
        asked.span = Instant::now() - asked.started;
        asked
    }
}
