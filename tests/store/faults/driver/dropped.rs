//! Values that the operating system dropped when a sync of the log failed.
//!
//! A value that is stored apart from its key lies in the log, and memory has a reference to it.
//! So a sync that fails and drops what it was to keep takes such values, and reading them is an
//! error. That excuse is as narrow as it can be: [`Driver::was_dropped`].

use std::io::ErrorKind;
use std::path::Path;

use hedgerow::fs::{Fault, OpKind};
use hedgerow::{Durability, EngineKind, Error, Result, SeqNo};
use support::sizes::{Sizes, Variant, keyspace_options_with};

use super::{Commit, Driver, Edit, Position, ROOT, is_log_sync, key_of};

/// A value that is stored apart from its key. No other commit has the same.
pub(super) struct Apart {
    /// The commit that it came with.
    seq: SeqNo,
    value: Vec<u8>,
}

impl Driver {
    /// Notes the values of commit `seq` that are stored apart from their keys.
    pub(super) fn note_apart(&mut self, seq: SeqNo, commit: &Commit) {
        let options = keyspace_options_with(EngineKind::Lsm, Sizes::Tiny, self.memtable);
        let threshold = options.value_threshold_bytes.unwrap_or_default() as usize;
        for (_, edit) in commit {
            if let Edit::Set(_, Some(value)) = edit
                && threshold > 0
                && value.len() >= threshold
            {
                let value = value.clone();
                self.apart.push(Apart { seq, value });
            }
        }
    }

    /// As [`Driver::attempt`], of a read that must give one of `values`, or nothing if there is
    /// none.
    #[track_caller]
    pub(super) fn attempt_read<'a, T>(
        &self,
        what: &str,
        values: impl IntoIterator<Item = &'a [u8]>,
        act: impl FnOnce() -> Result<T>,
    ) -> Option<T> {
        let mut values = values.into_iter();
        let read = self.attempt(what, true, || match act() {
            Err(error) if values.any(|value| self.was_dropped(value, &error)) => Ok(None),
            other => other.map(Some),
        });
        read.flatten()
    }

    /// True if `error` is what reading `value` may end with after a failed sync of the log: the
    /// value is stored apart from its key and was written after the last sync that did not fail,
    /// and the error is about the segment whose bytes were dropped.
    fn was_dropped(&self, value: &[u8], error: &Error) -> bool {
        let (Error::Corruption { file, .. }, Some(db)) = (error, &self.db) else {
            return false;
        };
        let synced = db.durable_seq();
        let is_apart = |apart: &Apart| apart.value == value && apart.seq > synced;
        if !self.drops_at_once || !self.apart.iter().any(is_apart) {
            return false;
        }
        // A log that could not be synced is not synced again, and says why.
        let Err(Error::WritesStopped { cause, .. }) = db.sync() else {
            return false;
        };
        is_log_sync(&cause) && matches!(&*cause, Error::Io { path, .. } if path == file)
    }
}

/// What is excused, and nothing next to it.
#[test]
fn only_values_that_were_dropped_are_excused() {
    use Durability::Buffered;
    let variant = Variant::ALL[1];
    // Up to the sync that fails, with values by key: kept, too short, dropped, dropped.
    let live = |position| {
        let mut driver = Driver::new(variant, position);
        driver.make("main", EngineKind::Lsm);
        driver.make("other", EngineKind::BTree);
        driver.put("main", 1, 100, Buffered);
        driver.sync();
        driver.put("main", 2, 31, Buffered);
        driver.put("other", 3, 100, Buffered);
        driver.put("main", 4, 32, Buffered);
        driver
    };
    let (_, nth) = live(None).counts()[OpKind::Sync as usize];
    for fault in [Fault::SyncDropped, Fault::SyncLost] {
        let position = Position {
            kind: OpKind::Sync,
            nth,
            fault,
            lasting: &[],
        };
        let mut driver = live(Some(position));
        let segment = Path::new(ROOT).join("wal/0000000000000001.log");
        let damage = Error::corruption(&segment, 200, "the value differs from what was written");
        let (_, of) = driver.handle("main").unwrap();
        let dropped = driver.live[of][&key_of(4)].clone();
        assert!(!driver.was_dropped(&dropped, &damage), "no sync has failed");

        driver = live(Some(position));
        driver.sync();
        assert_eq!(driver.fired(), 1);
        for (name, key) in [("main", 1), ("main", 2), ("other", 3), ("main", 4)] {
            let (handle, of) = driver.handle(name).unwrap();
            let value = &driver.live[of][&key_of(key)];
            let is_dropped = key >= 3 && fault == Fault::SyncDropped;
            match handle.get(key_of(key)) {
                Ok(found) => assert!(!is_dropped && found.unwrap() == *value, "key {key}"),
                Err(error) => assert!(is_dropped && driver.was_dropped(value, &error), "{error}"),
            }
            assert_eq!(driver.was_dropped(value, &damage), is_dropped, "key {key}");
        }
        let elsewhere = Error::corruption(&segment.with_extension("val"), 200, "differs");
        let trouble = Error::io("read", &segment, ErrorKind::Other.into());
        for other in [elsewhere, trouble, Error::Closed] {
            assert!(!driver.was_dropped(&dropped, &other), "{other}");
        }
        // The log that is read from then on has what it says.
        driver.reopen(false);
        assert!(!driver.was_dropped(&dropped, &damage));
        driver.finish();
    }
}
