//! What a tree does to its files: what it reads again, joins, gives back and keeps open.

use super::*;
use crate::fs::OpenMode;
use crate::lsm::obsolete_files::{FileName, parse_name};

/// Applies and publishes what comes.
struct Live {
    engine: Arc<LsmEngine>,
    snapshot_tracker: Arc<SnapshotTracker>,
    seq: AtomicU64,
}

impl Live {
    fn new(world: &World) -> Self {
        Self::of(world, LsmEngine::create(world.context()).unwrap())
    }

    fn of(world: &World, engine: Arc<LsmEngine>) -> Self {
        Self {
            seq: AtomicU64::new(engine.persisted_seq().0),
            engine,
            snapshot_tracker: Arc::clone(&world.snapshot_tracker),
        }
    }

    fn commit(&self, op: Op<'_>) {
        let seq = SeqNo(self.seq.fetch_add(1, Ordering::Relaxed) + 1);
        self.engine.apply(&[SequencedOp { seq, op }]).unwrap();
        self.snapshot_tracker.publish(seq);
    }

    fn put(&self, key: &[u8], value: &[u8]) {
        self.commit(Op::Put { key, value });
    }

    fn flush(&self) {
        self.engine.flush().unwrap();
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        get_of(&self.engine.view().unwrap())(key)
    }

    fn entries(&self) -> Map {
        let mut entries = Map::new();
        let mut cursor = self.engine.view().unwrap().cursor();
        cursor.seek_first().unwrap();
        while cursor.is_valid() {
            let (key, value) = cursor.entry().unwrap();
            entries.insert(key.to_vec(), value.to_vec());
            cursor.next().unwrap();
        }
        entries
    }

    /// Does background work until there is none.
    fn settle(&self) {
        while let Some(work) = self.engine.work_due() {
            self.engine.run_once(work).unwrap();
        }
    }

}

fn on_disk() -> (tempfile::TempDir, World) {
    let scratch = tempfile::tempdir().unwrap();
    let world = World::new(Arc::new(StdFs::new()), &scratch.path().join("tree"));
    (scratch, world)
}

fn in_memory() -> World {
    World::new(Arc::new(SimFs::new()), Path::new("/store/tree"))
}

fn key_of(number: u64) -> [u8; 8] {
    number.to_be_bytes()
}

/// The paths of the tables in the directory.
fn table_paths(world: &World) -> Vec<PathBuf> {
    let names = world.fs.read_dir(&world.dir).unwrap();
    let tables = names
        .iter()
        .filter(|name| matches!(parse_name(name), Some(FileName::Table(_))));
    tables.map(|name| world.dir.join(name)).collect()
}

/// Changes a byte in the midst of the blocks of the file, and back again.
fn flip(world: &World, path: &Path) {
    let file = world.fs.open(path, OpenMode::ReadWrite).unwrap();
    let at = file.len().unwrap() / 4;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

/// Mapped blocks are verified once and then trusted; a compaction wrote bytes that had changed
/// since into its outputs, with checksums that matched.
#[test]
fn damage_gets_no_new_checksum_from_a_compaction() {
    for use_mmap in [true, false] {
        let (_scratch, world) = on_disk();
        let mut context = world.context();
        context.use_mmap = use_mmap;
        let live = Live::of(&world, LsmEngine::create(context).unwrap());
        for number in 0..100 {
            live.put(&key_of(number), &[b'v'; 40]);
        }
        live.flush();
        let before = live.entries();
        assert_eq!(before.len(), 100);

        let paths = table_paths(&world);
        let path = paths[0].clone();
        flip(&world, &path);
        match live.engine.compact() {
            Err(Error::Corruption { file, .. }) => assert_eq!(file, path),
            other => panic!("{other:?}"),
        }
        assert_eq!(table_paths(&world), paths);

        flip(&world, &path);
        live.engine.compact().unwrap();
        assert_eq!(live.entries(), before);
    }
}
