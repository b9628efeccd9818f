//! Every store commits what serializability permits, and refuses the rest.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hedgerow_bench::{Result, TargetOptions};

use super::stores::{Kind, all};
use super::workload::{self, Size};
use super::{Attempt, Body, Transactional, Tx};

const SIZE: Size = Size {
    accounts: 50,
    value_len_bytes: 64,
};

#[test]
fn every_store_is_one_of_the_comparison_without_transactions() {
    for contender in all() {
        assert!(!contender.version().is_empty(), "{}", contender.name);
    }
}

fn number(tx: &mut dyn Tx, key: &[u8]) -> u8 {
    let mut number = None;
    tx.get(key, &mut |value| number = Some(value[0])).unwrap();
    number.expect("the key is there")
}

/// Runs a transaction that reads `reads` and sets `writes` to 2, within which `between` is run
/// after the reads.
fn interrupted(
    store: &dyn Transactional,
    reads: [&[u8]; 2],
    writes: &[u8],
    between: &mut dyn FnMut(),
) -> Attempt {
    let mut body = |tx: &mut dyn Tx| {
        assert_eq!(reads.map(|key| number(tx, key)), [1, 1]);
        between();
        tx.put(writes, &[2])
    };
    store.attempt(&mut body).unwrap()
}

#[test]
fn optimistic_stores_refuse_lost_updates_and_write_skew_and_no_more() {
    for contender in all() {
        if contender.kind == Kind::OneWriter {
            continue;
        }
        // What the transaction within writes, and what becomes of the one around it, which reads
        // "a" and "b" and writes "a".
        for (written, expected) in [
            (&b"a"[..], Attempt::Refused),
            (b"b", Attempt::Refused),
            (b"c", Attempt::Committed),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let store = (contender.open)(dir.path(), &TargetOptions::default()).unwrap();
            let mut fill = |tx: &mut dyn Tx| {
                let keys = [b"a", b"b", b"c"];
                keys.iter().try_for_each(|&key| tx.put(key, &[1]))
            };
            assert_eq!(store.attempt(&mut fill).unwrap(), Attempt::Committed);
            let mut between = || {
                let within = interrupted(&*store, [b"a", b"b"], written, &mut || {});
                assert_eq!(within, Attempt::Committed, "{}", contender.name);
            };
            let around = interrupted(&*store, [b"a", b"b"], b"a", &mut between);
            let (name, key) = (contender.name, written.escape_ascii());
            assert_eq!(around, expected, "{name}, {key}");
            let mut read = |tx: &mut dyn Tx| {
                let after = [b"a", b"b", b"c"].map(|key| number(tx, key));
                let a = 1 + u8::from(expected == Attempt::Committed || written == b"a");
                let (b, c) = (1 + u8::from(written == b"b"), 1 + u8::from(written == b"c"));
                assert_eq!(after, [a, b, c], "{name}, {key}");
                Ok(())
            };
            store.attempt(&mut read).unwrap();
        }
    }
}

#[test]
fn every_workload_runs_on_every_store() {
    for contender in all() {
        for durability in [hedgerow::Durability::Buffered, hedgerow::Durability::Sync] {
            let options = TargetOptions {
                durability,
                ..TargetOptions::default()
            };
            let dir = tempfile::tempdir().unwrap();
            let store = (contender.open)(dir.path(), &options).unwrap();
            workload::fill(&*store, SIZE).unwrap();
            for name in ["transfer", "transfer:zipfian", "read-mostly:zipfian"] {
                let workload = name.parse().unwrap();
                let short = Duration::from_millis(50);
                let outcome = workload::run(&*store, &workload, SIZE, 3, short, 7);
                let sample = outcome.unwrap().to_json(&workload, 3);
                assert!(
                    sample["committed_per_s"].as_f64().unwrap() > 0.0,
                    "{sample}"
                );
                if contender.kind == Kind::OneWriter {
                    assert_eq!(sample["refused_share"], 0.0, "{}", contender.name);
                }
            }
        }
    }
}

/// A store that loses one write in a hundred.
#[derive(Default)]
struct Careless {
    writes: AtomicU64,
    entries: Mutex<HashMap<Vec<u8>, Vec<u8>>>,
}

impl Transactional for Careless {
    fn attempt(&self, body: Body<'_>) -> Result<Attempt> {
        body(&mut &*self)?;
        Ok(Attempt::Committed)
    }

    fn wait_idle(&self) -> Result<()> {
        Ok(())
    }
}

impl Tx for &Careless {
    fn get(&mut self, key: &[u8], read: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let entries = self.entries.lock().unwrap();
        let value = entries.get(key);
        if let Some(value) = value {
            read(value);
        }
        Ok(value.is_some())
    }

    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let before = self.writes.fetch_add(1, Ordering::Relaxed);
        if before % 100 != 99 {
            let mut entries = self.entries.lock().unwrap();
            entries.insert(key.into(), value.into());
        }
        Ok(())
    }
}

#[test]
fn a_run_that_loses_a_write_ends_with_an_error() {
    for name in ["transfer", "read-mostly"] {
        let store = Careless::default();
        workload::fill(&store, SIZE).unwrap();
        let workload = name.parse().unwrap();
        let outcome = workload::run(&store, &workload, SIZE, 1, Duration::from_millis(50), 7);
        let error = outcome.unwrap_err().to_string();
        assert!(error.contains("WRONG RESULT"), "{error}");
    }
}
