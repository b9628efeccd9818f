//! The real data set: the cities of the world, from GeoNames.
//!
//! `data/cities.tsv.lz4` is an LZ4 frame (`lz4 -dc` reads it) of a table described in
//! `data/README.md`. This file is its only decoder.

use std::io::Read;

/// The compressed table.
const COMPRESSED: &[u8] = include_bytes!("../data/cities.tsv.lz4");

/// Length of the table, in bytes.
const TABLE_LEN_BYTES: usize = 7_117_804;

/// Number of records in the table.
pub const CITIES: usize = 135_233;

/// Columns that make a city's key, joined with `/`: the cities of a country, and of a region in
/// it, share a prefix, and the number keeps namesakes apart.
pub const KEY_COLUMNS: [usize; 4] = [0, 1, 2, 3];

/// A city as a key and a value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct City {
    /// `country/admin/name/id`, such as `AD/07/Andorra la Vella/3041563`.
    pub key: Vec<u8>,
    /// The whole line of the table, without its end.
    pub value: Vec<u8>,
}

/// The table as text: a line of column names, then a line for each city, tabs between columns.
pub fn table() -> String {
    let mut text = String::with_capacity(TABLE_LEN_BYTES);
    lz4_flex::frame::FrameDecoder::new(COMPRESSED)
        .read_to_string(&mut text)
        .expect("the data set in the repository is an intact LZ4 frame");
    text
}

/// All cities in the order of their keys, each key once.
pub fn cities() -> Vec<City> {
    let table = table();
    let cities: Vec<City> = table
        .lines()
        .skip(1)
        .map(|line| {
            let columns: Vec<&str> = line.split('\t').collect();
            City {
                key: KEY_COLUMNS.map(|at| columns[at]).join("/").into_bytes(),
                value: line.as_bytes().to_vec(),
            }
        })
        .collect();
    assert_eq!(cities.len(), CITIES);
    debug_assert!(cities.is_sorted_by(|a, b| a.key < b.key));
    cities
}
