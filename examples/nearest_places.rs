//! The places nearest to a point: a space-filling curve makes neighbours in the plane neighbours in
//! the order of keys. docs/recipes.md explains the layout.
//!
//! `cargo run --release --example nearest_places`

use hedgerow::{
    Batch, Db, Durability, EngineKind, KeyBuilder, KeyReader, Keyspace, Options, Result,
};

const EARTH_RADIUS_KM: f64 = 6_371.0;
/// Cells that a search looks into are so small that it takes no more than this many in a row.
const CELLS_IN_A_ROW: u64 = 3;

/// A point in degrees north and east.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Point {
    latitude: f64,
    longitude: f64,
}

impl Point {
    /// The distance on a sphere, in kilometres.
    fn distance_km(self, other: Self) -> f64 {
        let [a, b] = [self, other].map(|point| point.latitude.to_radians());
        let across = (other.longitude - self.longitude).to_radians();
        let half = |angle: f64| (angle / 2.0).sin().powi(2);
        let h = half(b - a) + a.cos() * b.cos() * half(across);
        2.0 * EARTH_RADIUS_KM * h.sqrt().min(1.0).asin()
    }

    /// Its row and column, of 2^32 each.
    fn place(self) -> [u64; 2] {
        let scaled = |part: f64| ((part * 4_294_967_296.0) as u64).min(u64::from(u32::MAX));
        [
            scaled((self.latitude + 90.0) / 180.0),
            scaled((self.longitude + 180.0) / 360.0),
        ]
    }
}

/// The number of a place on the curve of Morton: the bits of row and column in turns, so all that
/// lies in a cell of 2^-n by 2^-n of the world has the first 2n bits in common.
fn on_curve([row, column]: [u64; 2]) -> u64 {
    // Puts a zero before each bit, in halves, quarters and so on.
    let spread = |number: u64| {
        let steps = [
            (16, 0x0000_ffff_0000_ffff),
            (8, 0x00ff_00ff_00ff_00ff),
            (4, 0x0f0f_0f0f_0f0f_0f0f),
            (2, 0x3333_3333_3333_3333),
            (1, 0x5555_5555_5555_5555),
        ];
        let steps = steps.iter();
        steps.fold(number, |n, (by, mask)| (n | n << by) & mask)
    };
    spread(row) << 1 | spread(column)
}

struct Places {
    /// (number on the curve, id) -> latitude, longitude, name
    places: Keyspace,
}

impl Places {
    fn add(&self, places: &[(u64, Point, &str)]) -> Result<()> {
        let mut batch = Batch::new();
        for (id, point, name) in places {
            let key = KeyBuilder::new().u64(on_curve(point.place())).u64(*id);
            let value = KeyBuilder::new().f64(point.latitude).f64(point.longitude);
            batch.put(key, value.str(name));
        }
        self.places.write(batch)?;
        Ok(())
    }

    /// The `count` nearest places to `point`, with their distances in kilometres.
    fn nearest(&self, point: Point, count: usize) -> Result<Vec<(f64, String)>> {
        // All from one moment, though it looks several times.
        let places = self.places.snapshot();
        let mut radius_km = 5.0;
        loop {
            let mut found = Vec::new();
            for (first, last) in cells_around(point, radius_km) {
                let range =
                    KeyBuilder::new().u64(first)..=KeyBuilder::new().u64(last).u64(u64::MAX);
                for entry in places.range(range) {
                    let (_, value) = entry?;
                    let mut fields = KeyReader::new(&value);
                    let (latitude, longitude) = (fields.f64()?, fields.f64()?);
                    let place = Point {
                        latitude,
                        longitude,
                    };
                    found.push((point.distance_km(place), fields.str()?));
                }
            }
            found.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
            // Within the radius nothing is missing. Beyond half the circumference is nothing.
            let is_certain = found
                .get(count - 1)
                .is_some_and(|place| place.0 <= radius_km);
            if is_certain || radius_km > 4.0 * EARTH_RADIUS_KM {
                found.truncate(count);
                return Ok(found);
            }
            radius_km *= 2.0;
        }
    }
}

/// The first and the last number on the curve of each cell in which a place within the radius may
/// be: nine cells at most.
fn cells_around(point: Point, radius_km: f64) -> Vec<(u64, u64)> {
    // A little more, for what rounding takes.
    let angle = radius_km * 1.000_001 / EARTH_RADIUS_KM;
    let north = (point.latitude + angle.to_degrees()).min(90.0);
    let south = (point.latitude - angle.to_degrees()).max(-90.0);
    // Towards a pole the same distance is more degrees, and around it all of them.
    let across = match north < 90.0 && south > -90.0 {
        true => (angle.sin() / point.latitude.to_radians().cos())
            .asin()
            .to_degrees(),
        false => 180.0,
    };
    let place = |latitude, longitude| {
        Point {
            latitude,
            longitude,
        }
        .place()
    };
    // Columns go on behind the 180th meridian, where they are those of the other side.
    let west = (point.longitude - across + 180.0) / 360.0;
    let width = place(0.0, (2.0 * across).min(360.0) - 180.0)[1];
    let west = (west.rem_euclid(1.0) * 4_294_967_296.0) as u64;
    let [south, _] = place(south, 0.0);
    let [north, _] = place(north, 0.0);

    let mut level = 32;
    let cells = |from: u64, to: u64, level: u32| (to >> (32 - level)) - (from >> (32 - level)) + 1;
    while cells(south, north, level) > CELLS_IN_A_ROW
        || cells(west, west + width, level) > CELLS_IN_A_ROW.min(1 << level)
    {
        level -= 1;
        if level == 0 {
            return vec![(0, u64::MAX)];
        }
    }
    let mut found = Vec::new();
    for row in south >> (32 - level)..=north >> (32 - level) {
        for column in west >> (32 - level)..=(west + width) >> (32 - level) {
            let column = column % (1 << level);
            let first = on_curve([row << (32 - level), column << (32 - level)]);
            let rest = (1_u64 << (64 - 2 * level)) - 1;
            found.push((first, first | rest));
        }
    }
    found
}

fn main() -> Result<()> {
    let table = hedgerow_bench::cities::table();
    let cities: Vec<(u64, Point, &str)> = table
        .lines()
        .skip(1)
        .map(|line| {
            let columns: Vec<&str> = line.split('\t').collect();
            let [latitude, longitude] = [6, 7].map(|at| columns[at].parse().expect("degrees"));
            let id = columns[3].parse().expect("a number");
            (
                id,
                Point {
                    latitude,
                    longitude,
                },
                columns[2],
            )
        })
        .collect();
    for engine in EngineKind::ALL {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let options = Options::new().durability(Durability::Buffered);
        let db: Db = options.open(dir.path().join("my.db"))?;
        let places = Places {
            places: db.keyspace("places", engine)?,
        };
        for batch in cities.chunks(1_000) {
            places.add(batch)?;
        }

        // Berlin; Fiji, beside the 180th meridian; the South Pole; Spitsbergen; the Gulf of Guinea;
        // and two corners of the world.
        for (latitude, longitude) in [
            (52.52, 13.405),
            (-17.0, 179.95),
            (-90.0, 0.0),
            (78.22, 15.65),
            (0.0, 0.0),
            (90.0, 180.0),
            (-50.0, -180.0),
        ] {
            let point = Point {
                latitude,
                longitude,
            };
            let distance = |city: &(u64, Point, &str)| point.distance_km(city.1);
            let mut expected: Vec<_> = cities.iter().map(distance).collect();
            expected.sort_unstable_by(f64::total_cmp);
            let nearest = places.nearest(point, 10)?;
            let distances: Vec<_> = nearest.iter().map(|(distance, _)| *distance).collect();
            assert_eq!(distances, expected[..10], "{point:?}");
            let (distance, name) = &nearest[0];
            println!("{engine}: nearest to {latitude}, {longitude}: {name}, {distance:.0} km");
        }
        assert_eq!(places.nearest(cities[0].1, 1)?[0].0, 0.0);
        db.close()?;
    }
    Ok(())
}
