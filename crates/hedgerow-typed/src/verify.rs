//! Checking that a table can be read, and that its indexes agree with it.

use std::borrow::Borrow;
use std::ops::Bound::Unbounded;

use crate::codec::Codec;
use crate::core::{Core, IndexPart, index_entry};
use crate::error::{Error, Result};
use crate::key::Key;
use crate::source::{Moment, Source};
use crate::table::Table;

/// Problems that a report describes; of others it has the number.
const DESCRIBED: usize = 100;

/// What [`Table::verify`] has found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct TableReport {
    /// Rows that were read.
    pub rows: u64,
    /// Entries of all indexes.
    pub index_entries: u64,
    /// How many problems there are.
    pub problems: u64,
    /// The first hundred of them.
    pub descriptions: Vec<String>,
}

impl TableReport {
    /// True if there are no problems.
    pub fn is_clean(&self) -> bool {
        self.problems == 0
    }

    fn add(&mut self, what: impl FnOnce() -> String) {
        self.problems += 1;
        if self.descriptions.len() < DESCRIBED {
            self.descriptions.push(what());
        }
    }
}

impl<K: Key, V: ?Sized, C: Codec<V>, S: Source> Table<K, V, C, S> {
    /// Reads everything and checks that all keys and values can be decoded, that every row has its
    /// entries in the indexes, and that these have no others. All of one moment; it takes as long
    /// as reading every row, with a look-up for each entry of an index.
    ///
    /// # Errors
    ///
    /// Those of reading the store. What is wrong with rows and entries is in the report.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = hedgerow::Db::open(dir.path().join("my.db"))?;
    /// use hedgerow_typed::TableDefinition;
    ///
    /// let years = TableDefinition::<u64, u32>::new("years").open(&db)?;
    /// years.put(1, &1815)?;
    /// assert!(years.verify()?.is_clean());
    /// years.keyspace().put("x", "past the table")?;
    /// assert_eq!(years.verify()?.problems, 1);
    /// # Ok::<(), hedgerow_typed::Error>(())
    /// ```
    pub fn verify(&self) -> Result<TableReport> {
        let moment = self.source.moment();
        let core = &self.core;
        let mut report = TableReport::default();
        // Entries that rows have in each index and that are there.
        let mut expected = vec![0; core.indexes.len()];
        let mut scan = moment.reader(&core.data).range((Unbounded, Unbounded));
        while let Some((key, value)) = scan.next_entry()? {
            report.rows += 1;
            let row = match core
                .key(key)
                .and_then(|row| Ok((row, core.value(key, value)?)))
            {
                Ok(row) => row,
                Err(error) => {
                    report.add(|| format!("{error}: {}", source_of(&error)));
                    continue;
                }
            };
            for (index, count) in core.indexes.iter().zip(&mut expected) {
                *count +=
                    core.check_row(&moment, index, (key, &row.0, row.1.borrow()), &mut report)?;
            }
        }
        for (index, expected) in core.indexes.iter().zip(expected) {
            let bounds = (Unbounded, Unbounded);
            let entries = moment.reader(&index.keyspace).range(bounds).try_count()?;
            report.index_entries += entries;
            // All that are expected and there are different ones; so the others are too many.
            for _ in expected..entries {
                report.add(|| format!("index {:?} has an entry of no row", index.name));
            }
        }
        Ok(report)
    }
}

fn source_of(error: &Error) -> String {
    std::error::Error::source(error).map_or_else(String::new, ToString::to_string)
}

impl<K: Key, V: ?Sized, C: Codec<V>> Core<K, V, C> {
    /// Looks for the entries of a row in an index; returns how many are there.
    fn check_row(
        &self,
        moment: &Moment<'_>,
        index: &IndexPart<K, V>,
        (key, row, value): (&[u8], &K, &V),
        report: &mut TableReport,
    ) -> Result<u64> {
        let reader = moment.reader(&index.keyspace);
        let mut found = 0;
        for index_key in self.keys_in(index, key, row, value)? {
            let (entry, content) = index_entry(index.is_unique, &index_key, key);
            match reader.get(&entry)? {
                Some(stored) if stored == content => found += 1,
                other => report.add(|| {
                    let what = match other {
                        Some(_) => "has the key of the row for another one",
                        None => "lacks the row",
                    };
                    format!("index {:?} {what} \"{}\"", index.name, key.escape_ascii())
                }),
            }
        }
        Ok(found)
    }
}
