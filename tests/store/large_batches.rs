//! What goes on while a large batch is being applied.

use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hedgerow::fs::{File, Fs, OpenMode, SimFs};
use hedgerow::{Durability, EngineKind, Options, Result};
use support::rig::tiny;

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
/// And what read a part of it that was applied already waited for the others.
#[test]
fn a_large_batch_holds_up_neither_snapshots_nor_reads_of_any_keyspace() {
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
        // The third is small, and is applied last; the second is being applied when the hook is
        // called.
        for (keyspace, puts) in all.iter().zip([20_000, 18_000, 10]) {
            for _ in 0..puts {
                batch.put(keyspace, key(1), [2; 10]);
            }
            for n in 0..400 {
                batch.delete(keyspace, key(n));
            }
        }
        let (answer, answered) = channel();
        let reading = {
            let (db, all) = (db.clone(), all.clone());
            move || {
                let snapshot = db.snapshot();
                for keyspace in &all {
                    assert_eq!(snapshot.keyspace(keyspace).len().unwrap(), 400);
                    assert_eq!(keyspace.snapshot().len().unwrap(), 400);
                    assert_eq!(keyspace.get(key(1)).unwrap().unwrap(), [1; 100]);
                    assert_eq!(keyspace.iter().count(), 400);
                    let values = keyspace.multi_get(&[key(1), key(2)]).unwrap();
                    assert!(values.iter().all(Option::is_some));
                }
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
        for (n, keyspace) in all.iter().enumerate() {
            assert_eq!(keyspace.len().unwrap(), if n < 3 { 0 } else { 400 });
            assert_eq!(snapshot.keyspace(keyspace).len().unwrap(), 400);
        }
        assert_eq!(before.len().unwrap(), 400);
        drop((snapshot, before, all));
        assert!(db.verify().unwrap().is_clean());
    }
}
