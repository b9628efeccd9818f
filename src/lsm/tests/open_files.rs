//! How many files a tree, or many of them, keeps open.

use super::storage::{Live, key_of, on_disk};
use super::*;
use crate::fs::{File, FsLock, LockMode, MapSource, OpenMode};
use crate::lsm::obsolete_files::{FileName, parse_name};

/// Counts the files of another file system that are open.
#[derive(Debug)]
struct CountingFs {
    inner: Arc<dyn Fs>,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    open: AtomicU64,
    most: AtomicU64,
}

#[derive(Debug)]
struct CountedFile {
    inner: Arc<dyn File>,
    counts: Arc<Counts>,
}

impl Drop for CountedFile {
    fn drop(&mut self) {
        self.counts.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Fs for CountingFs {
    fn open(&self, path: &Path, mode: OpenMode) -> Result<Arc<dyn File>, Error> {
        let inner = self.inner.open(path, mode)?;
        let open = self.counts.open.fetch_add(1, Ordering::Relaxed) + 1;
        self.counts.most.fetch_max(open, Ordering::Relaxed);
        let counts = Arc::clone(&self.counts);
        Ok(Arc::new(CountedFile { inner, counts }))
    }

    fn create_dir_all(&self, path: &Path) -> Result<(), Error> {
        self.inner.create_dir_all(path)
    }

    fn read_dir(&self, path: &Path) -> Result<Vec<String>, Error> {
        self.inner.read_dir(path)
    }

    fn exists(&self, path: &Path) -> Result<bool, Error> {
        self.inner.exists(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), Error> {
        self.inner.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> Result<(), Error> {
        self.inner.remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> Result<(), Error> {
        self.inner.remove_dir(path)
    }

    fn sync_dir(&self, path: &Path) -> Result<(), Error> {
        self.inner.sync_dir(path)
    }

    fn lock(&self, path: &Path, mode: LockMode) -> Result<Box<dyn FsLock>, Error> {
        self.inner.lock(path, mode)
    }
}

impl File for CountedFile {
    fn path(&self) -> &Path {
        self.inner.path()
    }

    fn len(&self) -> Result<u64, Error> {
        self.inner.len()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<(), Error> {
        self.inner.read_exact_at(buf, offset)
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> Result<(), Error> {
        self.inner.write_all_at(buf, offset)
    }

    fn set_len(&self, len: u64) -> Result<(), Error> {
        self.inner.set_len(len)
    }

    fn sync_data(&self) -> Result<(), Error> {
        self.inner.sync_data()
    }

    fn map_source(&self) -> Option<MapSource<'_>> {
        self.inner.map_source()
    }
}

/// Each table took a descriptor for as long as it was there: a store of 5 MiB in small tables
/// could not be opened with 64 of them, nor compacted with 1024 once there were 850 tables.
#[test]
fn a_tree_of_many_tables_keeps_few_files_open() {
    const LIMIT: u64 = 8;
    for use_mmap in [false, true] {
        let (_scratch, mut world) = on_disk();
        let counts = Arc::new(Counts::default());
        world.fs = Arc::new(CountingFs {
            inner: Arc::clone(&world.fs),
            counts: Arc::clone(&counts),
        });
        let context = || EngineContext {
            use_mmap,
            ..world.context()
        };
        let mut live = Live::of(&world, LsmEngine::create(context()).unwrap());
        let mut random = Random::new(5);
        for _ in 0..3 {
            for _ in 0..1000 {
                live.put(&key_of(random.below(1 << 20)), &random.bytes(200));
            }
            live.settle();
        }
        live.engine.compact().unwrap();
        let expected = live.entries();
        assert!(live.tables() > 30, "{}", live.tables());
        for round in 0..2 {
            assert_eq!(live.entries(), expected);
            for key in expected.keys().step_by(97) {
                assert_eq!(live.get(key).as_ref(), expected.get(key));
            }
            live.put(&key_of(1 << 30), b"something to compact");
            live.engine.compact().unwrap();
            live.commit(Op::Delete {
                key: &key_of(1 << 30),
            });
            live.engine.compact().unwrap();
            assert!(live.engine.verify().unwrap().is_clean());
            // An output, and CURRENT or a file that is opened to be listed.
            let most = counts.most.load(Ordering::Relaxed);
            assert!(most <= LIMIT + 2, "{most} files open in round {round}");
            let open = counts.open.load(Ordering::Relaxed);
            let of_tables = if use_mmap { 1 } else { LIMIT };
            assert!(open <= of_tables, "{open} files stay open");
            drop(live);
            assert_eq!(counts.open.load(Ordering::Relaxed), 0);
            live = Live::of(&world, LsmEngine::open(context()).unwrap());
        }
    }
}

/// So does a store of many trees, whose manifests stay open where that is allowed; the others go
/// on in the file that they have, and not in a new one for each edit.
#[test]
fn many_trees_keep_few_manifests_open() {
    let counts = Arc::new(Counts::default());
    let memory = SimFs::new();
    let open_files = Arc::new(OpenFiles::new(8));
    let worlds: Vec<World> = (0..20)
        .map(|number| {
            let counts = Arc::clone(&counts);
            let inner: Arc<dyn Fs> = Arc::new(memory.clone());
            let fs = Arc::new(CountingFs { inner, counts });
            World::new(fs, &Path::new("/").join(number.to_string()))
        })
        .collect();
    let lives: Vec<Live> = worlds
        .iter()
        .map(|world| {
            let open_files = Arc::clone(&open_files);
            let context = EngineContext {
                open_files,
                ..world.context()
            };
            Live::of(world, LsmEngine::create(context).unwrap())
        })
        .collect();
    for flush in 0..3 {
        for live in &lives {
            live.put(&key_of(flush), b"value");
            live.flush();
        }
    }
    assert_eq!(open_files.count(), 4);
    assert_eq!(counts.open.load(Ordering::Relaxed), 4);
    for (world, live) in worlds.iter().zip(&lives) {
        let names = world.fs.read_dir(&world.dir).unwrap();
        let is_first = |name: &&String| parse_name(name) == Some(FileName::Manifest(1));
        assert_eq!(names.iter().filter(is_first).count(), 1, "{names:?}");
        assert!(live.engine.verify().unwrap().is_clean());
    }
    drop(lives);
    // What was appended through another handle is there after a power loss.
    for world in &worlds {
        let crashed = World {
            fs: Arc::new(memory.crash()),
            ..World::new(Arc::clone(&world.fs), &world.dir)
        };
        let engine = LsmEngine::open(crashed.context()).unwrap();
        assert_eq!(engine.persisted_seq(), SeqNo(3));
    }
}
