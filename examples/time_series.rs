//! Series of measurements: points in the order of time, sums for each hour kept beside them, and
//! points that are removed when they are old. docs/recipes.md explains the layout.
//!
//! `cargo run --example time_series`

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Range;

use hedgerow::{
    Db, Durability, EngineKind, KeyBuilder, KeyReader, Keyspace, Options, Result, Transaction,
};

const HOUR_S: u64 = 3_600;

/// What an hour comes to.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Hour {
    count: u64,
    sum: f64,
    min: f64,
    max: f64,
}

impl Hour {
    const EMPTY: Self = Self {
        count: 0,
        sum: 0.0,
        min: f64::INFINITY,
        max: f64::NEG_INFINITY,
    };

    fn add(&mut self, value: f64) {
        self.count += 1;
        self.sum += value;
        self.min = self.min.min(value);
        self.max = self.max.max(value);
    }

    fn encode(&self) -> Vec<u8> {
        let fields = KeyBuilder::new().u64(self.count).f64(self.sum);
        fields.f64(self.min).f64(self.max).into_vec()
    }

    fn decode(value: &[u8]) -> Result<Self> {
        let mut fields = KeyReader::new(value);
        Ok(Self {
            count: fields.u64()?,
            sum: fields.f64()?,
            min: fields.f64()?,
            max: fields.f64()?,
        })
    }
}

struct Series {
    db: Db,
    /// (series, second) -> value, 8 bytes
    points: Keyspace,
    /// (series, hour) -> count, sum, least and greatest
    hours: Keyspace,
}

impl Series {
    fn open(db: Db, engine: EngineKind) -> Result<Self> {
        Ok(Self {
            points: db.keyspace("points", engine)?,
            hours: db.keyspace("hours", engine)?,
            db,
        })
    }

    /// Adds points, each at a second of its own, and what they change in their hours. A point that
    /// is there already is left as it is: what was sent twice counts once.
    fn add(&self, series: u32, points: &[(u64, f64)]) -> Result<()> {
        self.db.transact(|tx| {
            let mut hours = BTreeMap::new();
            for &(second, value) in points {
                let key = KeyBuilder::new().u32(series).u64(second);
                if tx.contains_key(&self.points, &key)? {
                    continue;
                }
                tx.put(&self.points, key, value.to_be_bytes())?;
                let sums = match hours.entry(second / HOUR_S) {
                    Entry::Occupied(sums) => sums.into_mut(),
                    Entry::Vacant(hour) => {
                        let sums = self.hour(tx, series, *hour.key())?;
                        hour.insert(sums)
                    }
                };
                sums.add(value);
            }
            for (hour, sums) in hours {
                let key = KeyBuilder::new().u32(series).u64(hour);
                tx.put(&self.hours, key, sums.encode())?;
            }
            Ok(())
        })
    }

    /// What an hour comes to so far.
    fn hour(&self, tx: &Transaction, series: u32, hour: u64) -> Result<Hour> {
        let key = KeyBuilder::new().u32(series).u64(hour);
        let value = tx.get(&self.hours, key)?;
        value.map_or(Ok(Hour::EMPTY), |value| Hour::decode(&value))
    }

    /// The points of `seconds`.
    fn points(&self, series: u32, seconds: Range<u64>) -> Result<Vec<(u64, f64)>> {
        let of_series = KeyBuilder::new().u32(series);
        let range = of_series.clone().u64(seconds.start)..of_series.u64(seconds.end);
        let mut found = Vec::new();
        for entry in self.points.range(range) {
            let (key, value) = entry?;
            let mut parts = KeyReader::new(&key);
            let (_, second) = (parts.u32()?, parts.u64()?);
            let value = value[..].try_into().expect("eight bytes were put");
            found.push((second, f64::from_be_bytes(value)));
        }
        Ok(found)
    }

    /// The hours from the first to before the last, which may be years.
    fn hours(&self, series: u32, hours: Range<u64>) -> Result<Vec<(u64, Hour)>> {
        let of_series = KeyBuilder::new().u32(series);
        let range = of_series.clone().u64(hours.start)..of_series.u64(hours.end);
        let mut found = Vec::new();
        for entry in self.hours.range(range) {
            let (key, value) = entry?;
            let mut parts = KeyReader::new(&key);
            let (_, hour) = (parts.u32()?, parts.u64()?);
            found.push((hour, Hour::decode(&value)?));
        }
        Ok(found)
    }

    /// The newest point.
    fn last(&self, series: u32) -> Result<Option<u64>> {
        let mut of_series = self.points.prefix(KeyBuilder::new().u32(series));
        let Some((key, _)) = of_series.next_back().transpose()? else {
            return Ok(None);
        };
        let mut parts = KeyReader::new(&key);
        parts.u32()?;
        Ok(Some(parts.u64()?))
    }

    /// Removes the points of a series before `second`. Its hours stay.
    fn forget_before(&self, series: u32, second: u64) -> Result<()> {
        let of_series = KeyBuilder::new().u32(series);
        let range = of_series.clone()..of_series.u64(second);
        self.points.delete_range(range).map(|_| ())
    }
}

fn main() -> Result<()> {
    for engine in EngineKind::ALL {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let options = Options::new().durability(Durability::Buffered);
        let series = Series::open(options.open(dir.path().join("my.db"))?, engine)?;

        // Two sensors, each a point every ten seconds for ten hours, in batches of a hundred.
        for sensor in [1, 2] {
            let point = |n: u64| (n * 10, f64::from(sensor) + (n % 360) as f64 / 1_000.0);
            let points: Vec<_> = (0..3_600).map(point).collect();
            for batch in points.chunks(100) {
                series.add(sensor, batch)?;
            }
            series.add(sensor, &points[100..300])?;
        }
        assert_eq!(series.points(1, 100..120)?, [(100, 1.01), (110, 1.011)]);
        let hours = series.hours(2, 3..5)?;
        assert_eq!(hours.len(), 2);
        for (_, hour) in hours {
            assert_eq!((hour.count, hour.min, hour.max), (360, 2.0, 2.359));
            assert!((hour.sum / 360.0 - 2.1795).abs() < 1e-9);
        }
        assert_eq!(series.last(1)?, Some(35_990));
        assert_eq!(series.last(3)?, None);

        series.forget_before(1, 9 * HOUR_S)?;
        assert_eq!(series.points(1, 0..u64::MAX)?.len(), 360);
        assert_eq!(series.points(2, 0..u64::MAX)?.len(), 3_600);
        assert_eq!(series.hours(1, 0..u64::MAX)?.len(), 10);
        println!("{engine}: the last hour in points, ten hours in sums");
        series.db.close()?;
    }
    Ok(())
}
