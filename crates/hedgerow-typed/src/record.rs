//! What is stored about a table.
//!
//! ```text
//! record    format u8 = 2, generation u64, version u32, key schema, value schema, keyspace u32,
//!           number of indexes u32, index..., copy, number of dropped keyspaces u32, u32...
//! index     name, keyspace u32, unique u8, key schema, 0 or (1, next key): until it is built
//! copy      0 or (1, version u32, key schema, value schema, keyspace u32, next key): of a migration
//! ```
//!
//! Numbers, strings and bytes are encoded as in keys. Keyspaces are named by their numbers, which
//! are never used twice, so renaming one changes nothing.

use crate::error::{Error, Result};
use crate::key::{AsKey, Key, KeyDecoder, KeyError};

/// The version of the format of records.
const FORMAT: u8 = 2;

/// What is stored about a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    /// Changes whenever handles of the table must be opened anew.
    pub(crate) generation: u64,
    pub(crate) version: u32,
    pub(crate) key: String,
    pub(crate) value: String,
    /// Where the rows are.
    pub(crate) keyspace: u32,
    pub(crate) indexes: Vec<IndexRecord>,
    /// A migration that is on its way.
    pub(crate) copy: Option<CopyRecord>,
    /// Keyspaces that are no longer used, to be dropped.
    pub(crate) dropped: Vec<u32>,
}

/// What is stored about an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IndexRecord {
    pub(crate) name: String,
    pub(crate) keyspace: u32,
    pub(crate) is_unique: bool,
    pub(crate) key: String,
    /// The first row that it lacks, until it is built.
    pub(crate) next: Option<Vec<u8>>,
}

/// How far a migration has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CopyRecord {
    /// The version that it leads to.
    pub(crate) version: u32,
    /// The types that the new rows have: a later attempt may want others.
    pub(crate) key: String,
    pub(crate) value: String,
    /// Where the new rows are.
    pub(crate) keyspace: u32,
    /// The first row that was not converted.
    pub(crate) next: Vec<u8>,
}

fn put<K: AsKey<K>>(out: &mut Vec<u8>, part: &K) {
    part.encode(out);
}

fn put_len(out: &mut Vec<u8>, len: usize) {
    put(out, &u32::try_from(len).unwrap_or(u32::MAX));
}

/// Reads as many as it says, and no more than there can be.
fn list<T>(
    input: &mut KeyDecoder<'_>,
    mut read: impl FnMut(&mut KeyDecoder<'_>) -> Result<T, KeyError>,
) -> Result<Vec<T>, KeyError> {
    let len = u32::decode(input)?;
    let mut items = Vec::new();
    for _ in 0..len {
        items.push(read(input)?);
    }
    Ok(items)
}

impl Record {
    /// Every keyspace that it names.
    pub(crate) fn keyspaces(&self) -> impl Iterator<Item = u32> {
        let indexes = self.indexes.iter().map(|index| index.keyspace);
        let copy = self.copy.iter().map(|copy| copy.keyspace);
        let dropped = self.dropped.iter().copied();
        std::iter::once(self.keyspace)
            .chain(indexes)
            .chain(copy)
            .chain(dropped)
    }

    pub(crate) fn index(&mut self, name: &str) -> Option<&mut IndexRecord> {
        self.indexes.iter_mut().find(|index| index.name == name)
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![FORMAT];
        put(&mut out, &self.generation);
        put(&mut out, &self.version);
        put(&mut out, &self.key);
        put(&mut out, &self.value);
        put(&mut out, &self.keyspace);
        put_len(&mut out, self.indexes.len());
        for index in &self.indexes {
            put(&mut out, &index.name);
            put(&mut out, &index.keyspace);
            put(&mut out, &index.is_unique);
            put(&mut out, &index.key);
            put(&mut out, &index.next);
        }
        put(&mut out, &self.copy.is_some());
        if let Some(copy) = &self.copy {
            put(&mut out, &copy.version);
            put(&mut out, &copy.key);
            put(&mut out, &copy.value);
            put(&mut out, &copy.keyspace);
            put(&mut out, &copy.next);
        }
        put_len(&mut out, self.dropped.len());
        for keyspace in &self.dropped {
            put(&mut out, keyspace);
        }
        out
    }

    /// Reads the record of `table`.
    pub(crate) fn decode(table: &str, bytes: &[u8]) -> Result<Self> {
        if bytes.first().is_some_and(|format| *format != FORMAT) {
            return Err(Error::Catalog {
                table: table.into(),
                what: format!("it has format {}, this is {FORMAT}", bytes[0]),
            });
        }
        Self::read(bytes).map_err(|error| Error::Catalog {
            table: table.into(),
            what: error.to_string(),
        })
    }

    fn read(bytes: &[u8]) -> Result<Self, KeyError> {
        let mut input = KeyDecoder::new(bytes);
        if input.byte()? != FORMAT {
            return Err(input.error("there is no such format"));
        }
        let record = Self {
            generation: u64::decode(&mut input)?,
            version: u32::decode(&mut input)?,
            key: String::decode(&mut input)?,
            value: String::decode(&mut input)?,
            keyspace: u32::decode(&mut input)?,
            indexes: list(&mut input, |input| {
                Ok(IndexRecord {
                    name: String::decode(input)?,
                    keyspace: u32::decode(input)?,
                    is_unique: bool::decode(input)?,
                    key: String::decode(input)?,
                    next: Option::decode(input)?,
                })
            })?,
            copy: match bool::decode(&mut input)? {
                true => Some(CopyRecord {
                    version: u32::decode(&mut input)?,
                    key: String::decode(&mut input)?,
                    value: String::decode(&mut input)?,
                    keyspace: u32::decode(&mut input)?,
                    next: Vec::decode(&mut input)?,
                }),
                false => None,
            },
            dropped: list(&mut input, u32::decode)?,
        };
        input.finish()?;
        Ok(record)
    }

    /// The generation of a record, without reading the rest.
    pub(crate) fn generation_of(bytes: &[u8]) -> Option<u64> {
        let mut input = KeyDecoder::new(bytes);
        let format = input.byte().ok()?;
        let generation = u64::decode(&mut input).ok()?;
        (format == FORMAT).then_some(generation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            generation: 7,
            version: 2,
            key: "u64".into(),
            value: "raw text".into(),
            keyspace: 3,
            indexes: vec![IndexRecord {
                name: "by name".into(),
                keyspace: 4,
                is_unique: true,
                key: "str".into(),
                next: Some(vec![0, 1]),
            }],
            copy: Some(CopyRecord {
                version: 3,
                key: "u8".into(),
                value: "raw".into(),
                keyspace: 5,
                next: Vec::new(),
            }),
            dropped: vec![6],
        }
    }

    #[test]
    fn the_bytes_are_those_of_the_format() {
        let golden = b"\x02\0\0\0\0\0\0\0\x07\0\0\0\x02u64\0\x01raw text\0\x01\0\0\0\x03\
            \0\0\0\x01by name\0\x01\0\0\0\x04\x01str\0\x01\x01\0\xFF\x01\0\x01\
            \x01\0\0\0\x03u8\0\x01raw\0\x01\0\0\0\x05\0\x01\0\0\0\x01\0\0\0\x06";
        assert_eq!(record().encode(), golden);
        assert_eq!(Record::decode("t", golden).unwrap(), record());
        assert_eq!(Record::generation_of(golden), Some(7));
        assert_eq!(record().keyspaces().collect::<Vec<_>>(), [3, 4, 5, 6]);
    }

    #[test]
    fn damage_is_an_error() {
        let bytes = record().encode();
        for cut in 0..bytes.len() {
            assert!(Record::decode("t", &bytes[..cut]).is_err());
        }
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << bit;
                // No panic; what can be read is another record.
                if let Ok(other) = Record::decode("t", &flipped) {
                    assert_ne!(other, record());
                }
            }
        }
        for format in [1, 3] {
            let other = Record::decode("t", &[format]).unwrap_err().to_string();
            assert!(other.contains(&format!("format {format}")), "{other}");
        }
    }
}
