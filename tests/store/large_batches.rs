//! What goes on while a large batch is being applied.

use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hedgerow::fs::{File, Fs, OpenMode, SimFs};
use hedgerow::{Durability, EngineKind, Options, Result};
use support::rig::{effort, tiny};

type Hook = Box<dyn FnOnce() + Send>;

/// Calls a function once: at the third read of the page file in `dir` behind a long record of the
/// log, which is when the batch of the record is being applied.
#[derive(Default)]
struct Watch {
    is_logged: AtomicBool,
    reads: AtomicU64,
    hook: Mutex<Option<Hook>>,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watch")
    }
}

/// A file system in memory that is watched.
#[derive(Debug, Clone, Default)]
struct WatchedFs {
    inner: SimFs,
    watch: Arc<Watch>,
}

#[derive(Debug)]
struct WatchedFile {
    inner: Arc<dyn File>,
    watch: Arc<Watch>,
}

impl Fs for WatchedFs {
    fn open(&self, path: &Path, mode: OpenMode) -> Result<Arc<dyn File>> {
        Ok(Arc::new(WatchedFile {
            inner: self.inner.open(path, mode)?,
            watch: Arc::clone(&self.watch),
        }))
    }

    support::forward_names!(inner);
}

impl File for WatchedFile {
    fn path(&self) -> &Path {
        self.inner.path()
    }

    fn len(&self) -> Result<u64> {
        self.inner.len()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let watch = &self.watch;
        if self.path().ends_with("ks-00000002/tree.hdb")
            && watch.is_logged.load(Ordering::SeqCst)
            && watch.reads.fetch_add(1, Ordering::SeqCst) == 2
            && let Some(hook) = watch.hook.lock().unwrap().take()
        {
            hook();
        }
        self.inner.read_exact_at(buf, offset)
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        if buf.len() > 100_000 && self.path().extension().is_some_and(|e| e == "log") {
            self.watch.is_logged.store(true, Ordering::SeqCst);
        }
        self.inner.write_all_at(buf, offset)
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.inner.set_len(len)
    }

    fn sync_data(&self) -> Result<()> {
        self.inner.sync_data()
    }
}

fn key(n: u32) -> [u8; 4] {
    n.to_be_bytes()
}

/// Snapshots waited for a batch that was being applied, however long: a million puts took a second.
/// So did what read a part of it that was applied already, and every commit behind it.
#[test]
fn a_large_batch_holds_up_neither_reads_nor_commits_to_other_keyspaces() {
    for durability in [Durability::Buffered, Durability::Sync] {
        let fs = WatchedFs::default();
        // Without a cache the pages that applying needs are read again.
        let options = tiny(Options::new().fs(Arc::new(fs.clone())))
            .background_threads(0)
            .cache_bytes(0);
        let db = options.clone().open("/store").unwrap();
        let names = ["first", "second", "third", "other"];
        for name in names {
            let engine = match name {
                "first" | "second" => EngineKind::BTree,
                _ => EngineKind::Lsm,
            };
            let keyspace = db.keyspace(name, engine).unwrap();
            for n in 0..400 {
                keyspace.put(key(n), [1; 100]).unwrap();
            }
        }
        db.flush().unwrap();
        db.close().unwrap();
        drop(db);

        let db = options.open("/store").unwrap();
        let all = names.map(|name| db.existing_keyspace(name).unwrap().unwrap());
        let mut batch = db.batch();
        // The second is being applied when the hook is called; the third is small, and is behind
        // it.
        for (keyspace, puts) in all.iter().zip([20_000, 18_000, 10]) {
            for n in 0..400 {
                batch.put(keyspace, key(n), [3; 10]);
            }
            batch.delete_range(keyspace, key(0)..key(300));
            for n in 300..400 {
                batch.delete(keyspace, key(n));
            }
            for n in 0..puts {
                batch.put(keyspace, key(1000 + n % 10), [2; 10]);
            }
        }
        let (answer, answered) = channel();
        let reading = {
            let (db, all) = (db.clone(), all.clone());
            move || {
                let snapshot = db.snapshot();
                for keyspace in &all[..3] {
                    let keys = || (1000..1010).map(|n| key(n).to_vec());
                    let of_snapshot = snapshot.keyspace(keyspace);
                    assert!(
                        of_snapshot
                            .keys()
                            .map(|key| key.unwrap().to_vec())
                            .eq(keys())
                    );
                    assert!(
                        keyspace
                            .keys()
                            .rev()
                            .map(|key| key.unwrap().to_vec())
                            .eq(keys().rev())
                    );
                    assert_eq!(keyspace.snapshot().len().unwrap(), 10);
                    assert_eq!(keyspace.get(key(1001)).unwrap().unwrap(), [2; 10]);
                    assert!(!keyspace.contains_key(key(1)).unwrap());
                    let values = keyspace.multi_get(&[key(1), key(1002)]).unwrap();
                    assert!(values[0].is_none() && values[1].is_some());
                }
                assert_eq!(all[3].len().unwrap(), 400);
                // Were the batch logged and not visible, this would be neither.
                all[3].put(key(0), [4; 10]).unwrap();
                assert_eq!(all[3].get(key(0)).unwrap().unwrap(), [4; 10]);
                answer.send(snapshot).unwrap();
            }
        };
        let (taken, snapshot) = channel();
        let hook = move || {
            let thread = std::thread::spawn(reading);
            // Should it wait for the batch, it must not do so forever.
            if let Ok(snapshot) = answered.recv_timeout(Duration::from_secs(60)) {
                thread.join().unwrap();
                taken.send(snapshot).unwrap();
            }
        };
        *fs.watch.hook.lock().unwrap() = Some(Box::new(hook));
        let before = all[0].snapshot();
        db.write(batch, durability).unwrap();
        let snapshot = snapshot.try_recv().expect("taken beside the batch");
        all[0].put(key(0), [5; 10]).unwrap();
        for (n, keyspace) in all.iter().enumerate() {
            let len = if n < 3 { 10 } else { 400 };
            assert_eq!(keyspace.len().unwrap(), len + u64::from(n == 0));
            assert_eq!(snapshot.keyspace(keyspace).len().unwrap(), len);
        }
        assert_eq!(before.len().unwrap(), 400);
        drop((snapshot, before, all));
        assert!(db.verify().unwrap().is_clean());
    }
}

/// Ends the threads that look at it, also when a test fails.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Every batch sets all keys of a keyspace of either engine to its number, but for those that it
/// deletes. Whatever reads more than one of them sees one batch.
#[test]
fn views_see_large_batches_whole() {
    const KEYS: u32 = 60;
    let rounds = 150 * effort() as u32;
    let db = tiny(Options::new().fs(Arc::new(SimFs::new())))
        .durability(Durability::Buffered)
        .open("/store")
        .unwrap();
    let keyspaces = EngineKind::ALL.map(|engine| db.keyspace(&engine.to_string(), engine).unwrap());
    let is_there = |round: u32, n: u32| !(n + round).is_multiple_of(5);
    let write = |round: u32| {
        let mut batch = db.batch();
        for keyspace in &keyspaces {
            // What comes of it is what comes last.
            batch.put(keyspace, key(round % KEYS), [9; 4]);
            batch.delete_range(keyspace, key(round % KEYS)..);
            for n in 0..KEYS {
                match is_there(round, n) {
                    true => batch.put(keyspace, key(n), round.to_be_bytes()),
                    false => batch.delete(keyspace, key(n)),
                }
            }
        }
        batch
    };
    let expected = |round: u32| {
        let entries = (0..KEYS).filter(move |n| is_there(round, *n));
        entries.map(move |n| (key(n).to_vec(), round.to_be_bytes().to_vec()))
    };
    let round_of = |value: &[u8]| u32::from_be_bytes(value.try_into().unwrap());
    let check = |scan: hedgerow::Scan, backward: bool| {
        let pair = |entry: Result<(hedgerow::Value, hedgerow::Value)>| {
            let (key, value) = entry.unwrap();
            (key.to_vec(), value.to_vec())
        };
        let mut found: Vec<_> = match backward {
            true => scan.rev().map(pair).collect(),
            false => scan.map(pair).collect(),
        };
        if backward {
            found.reverse();
        }
        let round = round_of(&found[0].1);
        assert!(
            found.into_iter().eq(expected(round)),
            "parts of batches beside {round}"
        );
        round
    };
    db.write(write(0), Durability::Buffered).unwrap();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let is_over = &is_over;
        for reader in 0..2 {
            let (db, keyspaces) = (&db, &keyspaces);
            scope.spawn(move || {
                let (mut reads, mut last) = (0, 0);
                while !is_over.load(Ordering::Relaxed) {
                    let keyspace = &keyspaces[(reads / 2 + reader) % 2];
                    let round = match reads % 3 {
                        0 => check(keyspace.iter(), reads % 2 == 0),
                        1 => {
                            let snapshot = db.snapshot();
                            let rounds = keyspaces.each_ref().map(|keyspace| {
                                check(snapshot.keyspace(keyspace).iter(), reads % 2 == 0)
                            });
                            assert_eq!(rounds[0], rounds[1]);
                            rounds[0]
                        }
                        _ => {
                            let keys: Vec<_> = (0..KEYS).map(key).collect();
                            let values = keyspace.multi_get(&keys).unwrap();
                            let found = values.iter().flatten().next().unwrap();
                            let round = round_of(found);
                            for (n, value) in (0..).zip(&values) {
                                let wanted = is_there(round, n).then(|| round.to_be_bytes());
                                assert_eq!(value.as_deref(), wanted.as_ref().map(|w| &w[..]));
                            }
                            round
                        }
                    };
                    assert!(round >= last, "{round} after {last}");
                    last = round;
                    reads += 1;
                }
            });
        }
        let _ends = Ends(is_over);
        for round in 1..rounds {
            db.write(write(round), Durability::Buffered).unwrap();
            if round % 20 == 0 {
                db.flush().unwrap();
            }
        }
    });
    assert!(db.verify().unwrap().is_clean());
}
