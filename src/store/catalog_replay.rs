//! Replaying the changes of the keyspaces over the catalogue's file.
//!
//! Recovery reads the log to its end for them before it opens an engine. So a keyspace that the log
//! drops is not opened: its files may be gone, in part. One that was made or renamed has its last
//! name and options from the beginning. And of a store whose log is damaged no other file is
//! touched.

use std::path::Path;

use super::catalog::{CATALOG_FILE, Catalog, Refused};
use super::catalog_change::CatalogChange;
use crate::error::{Error, Result};
use crate::types::SeqNo;
use crate::wal::LogRecord;

/// A replay that is under way.
pub(super) struct CatalogReplay<'a> {
    dir: &'a Path,
    log_dir: &'a Path,
    /// The catalogue as its file has it.
    stored: &'a Catalog,
    /// The catalogue with the changes that were replayed.
    current: Catalog,
    /// The first of them.
    oldest_unstored: Option<SeqNo>,
}

impl<'a> CatalogReplay<'a> {
    /// Begins with what the file in `dir` has.
    pub(super) fn begin(dir: &'a Path, log_dir: &'a Path, stored: &'a Catalog) -> Self {
        Self {
            dir,
            log_dir,
            stored,
            current: stored.clone(),
            oldest_unstored: None,
        }
    }

    /// Takes records of the log, which follow one another.
    pub(super) fn visit(&mut self, records: &[LogRecord<'_>]) -> Result<()> {
        let is_change = |record: &&LogRecord<'_>| CatalogChange::is_change(record.payload);
        records
            .iter()
            .filter(is_change)
            .try_for_each(|record| self.change(record))
    }

    /// The catalogue at the end of the log, and the first change that is not in the file.
    pub(super) fn finish(self) -> (Catalog, Option<SeqNo>) {
        (self.current, self.oldest_unstored)
    }

    fn malformed(&self, seq: SeqNo, what: &str) -> Error {
        let what = format!("the record of operation {seq}: {what}");
        Error::corruption(self.log_dir, 0, what)
    }

    /// As [`CatalogReplay::malformed`], of a record that contradicts the catalogue.
    fn mismatch(&self, seq: SeqNo, what: &str) -> Error {
        let file = self.dir.join(CATALOG_FILE);
        let has = self.current.seq;
        let what = format!(
            "{what}, by {} with the changes up to operation {has}",
            file.display()
        );
        self.malformed(seq, &what)
    }

    fn change(&mut self, record: &LogRecord<'_>) -> Result<()> {
        let seq = record.first;
        if record.last != seq {
            return Err(self.malformed(seq, "a change of the keyspaces has one number"));
        }
        let change = match CatalogChange::decode(record.payload) {
            Ok(change) => change,
            Err(Refused::Malformed) => {
                return Err(self.malformed(seq, "a malformed change of the keyspaces"));
            }
            Err(Refused::Unknown(what)) => {
                return Err(Error::UnsupportedFeature {
                    file: self.log_dir.to_path_buf(),
                    what: what.to_owned(),
                });
            }
        };
        if seq <= self.stored.seq {
            return match &change {
                CatalogChange::Create(entry) if entry.id.0 >= self.stored.next_id() => {
                    let what = format!("keyspace {} is made and never existed", entry.id);
                    Err(self.mismatch(seq, &what))
                }
                _ => Ok(()),
            };
        }
        if let Err(what) = change.apply_to(&mut self.current, seq) {
            return Err(self.mismatch(seq, &what));
        }
        self.oldest_unstored.get_or_insert(seq);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::{EngineKind, KeyspaceOptions};
    use crate::store::catalog::CatalogEntry;
    use crate::types::KeyspaceId;
    use crate::wal::PayloadPlace;

    fn create(id: u32) -> Vec<u8> {
        let options = KeyspaceOptions::new(EngineKind::Lsm);
        let name = format!("tenant {id}");
        CatalogChange::Create(CatalogEntry::new(KeyspaceId(id), &name, options)).encode()
    }

    fn replayed(stored: &Catalog, changes: &[(u64, Vec<u8>)]) -> Result<(Catalog, Option<SeqNo>)> {
        let (dir, log_dir) = (Path::new("/store"), Path::new("/store/wal"));
        let mut replay = CatalogReplay::begin(dir, log_dir, stored);
        for (seq, payload) in changes {
            replay.visit(&[LogRecord {
                first: SeqNo(*seq),
                last: SeqNo(*seq),
                payload,
                place: PayloadPlace {
                    segment: 1,
                    offset: 128,
                },
            }])?;
        }
        Ok(replay.finish())
    }

    #[test]
    fn changes_behind_the_file_are_applied_to_it() {
        let none = Catalog::new(7);
        let changes = [(1, create(1)), (4, create(2)), (6, b"\x11\x01".to_vec())];
        let (first, oldest) = replayed(&none, &changes[..1]).unwrap();
        assert_eq!((first.seq, oldest), (SeqNo(1), Some(SeqNo(1))));
        let (all, oldest) = replayed(&none, &changes).unwrap();
        assert_eq!((all.seq, oldest), (SeqNo(6), Some(SeqNo(1))));
        assert_eq!(all.entries().len(), 1);
        // From a later file it comes to the same, and from the last one nothing is left to do.
        assert_eq!(
            replayed(&first, &changes).unwrap(),
            (all.clone(), Some(SeqNo(4)))
        );
        assert_eq!(replayed(&all, &changes).unwrap(), (all.clone(), None));
    }

    #[test]
    fn a_log_and_a_catalogue_that_do_not_fit_are_both_named() {
        let mut later = Catalog::new(7);
        later.seq = SeqNo(9);
        for (stored, seq, payload) in [
            (Catalog::new(7), 3, create(2)),
            (Catalog::new(7), 3, b"\x11\x01".to_vec()),
            // The file says that it has this change, and does not know the keyspace.
            (later, 3, create(1)),
        ] {
            match replayed(&stored, &[(seq, payload)]) {
                Err(Error::Corruption { file, what, .. }) => {
                    assert_eq!(file, Path::new("/store/wal"));
                    assert!(what.contains("/store/CATALOG"), "{what}");
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn a_change_that_this_build_does_not_know_is_not_called_damage() {
        let refused = replayed(&Catalog::new(7), &[(1, vec![0x77, 1])]);
        assert!(matches!(refused, Err(Error::UnsupportedFeature { .. })));
    }
}
