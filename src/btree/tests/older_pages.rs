//! Pages as they were earlier: writes that the disk reported as done and lost. Each is intact by itself, at its
//! place and with its fences, so nothing but the fingerprint in the reference tells it from the present one.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::btree::engine::FILE_NAME;
use crate::btree::node::inner::Inner;
use crate::btree::node::leaf::Leaf;
use crate::btree::node::{Link, NodeKind};
use crate::coding::get_u64;

const PAGE: usize = 1024;
const KEYS: u32 = 900;
const ROUNDS: u32 = 40;

fn bytes_of(fs: &dyn Fs, path: &Path) -> Vec<u8> {
    let file = fs.open(path, OpenMode::Read).unwrap();
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

/// A tree of three levels whose pages were used many times.
struct Aged {
    bench: Bench,
    path: PathBuf,
    /// The file after each checkpoint.
    files: Vec<Vec<u8>>,
}

impl Aged {
    fn new(fs: Arc<dyn Fs>, dir: &Path, use_mmap: bool) -> Self {
        let mut bench = Bench::new(fs, dir, PAGE as u32, use_mmap);
        let mut random = Random(5);
        let path = dir.join(FILE_NAME);
        let mut files = Vec::new();
        for round in 0..ROUNDS {
            // All keys in the first round; afterwards other values of the same length, so that nodes keep their fences.
            let changes = if round == 0 { KEYS } else { 12 };
            for i in 0..changes {
                let key = match round {
                    0 => i,
                    _ => random.below(KEYS.into()) as u32,
                };
                bench.put(&key.to_be_bytes(), &[round as u8; 40]);
            }
            bench.engine.flush().unwrap();
            files.push(bytes_of(&*bench.fs, &path));
        }
        Self { bench, path, files }
    }

    fn last(&self) -> &[u8] {
        self.files.last().unwrap()
    }

    /// The engine over a copy of the file, changed.
    fn open(&self, fs: Arc<dyn Fs>, dir: &Path, bytes: &[u8]) -> Result<Arc<dyn Engine>> {
        fs.create_dir_all(dir).unwrap();
        let file = fs.open(&dir.join(FILE_NAME), OpenMode::CreateNew).unwrap();
        file.write_all_at(bytes, 0).unwrap();
        let Bench {
            options,
            visibility,
            front,
            use_mmap,
            ..
        } = &self.bench;
        BTreeEngine::open(context(&fs, dir, options, visibility, front, *use_mmap))
    }

    /// Pages of the nodes in the tree of the last file.
    fn reachable(&self) -> BTreeSet<usize> {
        let mut found = BTreeSet::new();
        let mut todo = vec![Link::from_bits(get_u64(self.last(), 48))];
        while let Some(link) = todo.pop() {
            let page = link.page().0 as usize;
            found.insert(page);
            let image = &self.last()[page * PAGE..(page + 1) * PAGE];
            assert!(link.means(image));
            if node::kind(image) == Some(NodeKind::Inner) {
                let inner = Inner::from_image(image);
                todo.extend((0..inner.child_count()).map(|i| inner.child(i)));
            }
        }
        found
    }

    /// Versions of `page` other than the last one that are nodes with its level and fences.
    fn doubles(&self, page: usize) -> Vec<&[u8]> {
        let range = page * PAGE..(page + 1) * PAGE;
        let last = &self.last()[range.clone()];
        let mut found: BTreeMap<&[u8], ()> = BTreeMap::new();
        for file in &self.files {
            let older = file.get(range.clone()).unwrap_or_default();
            if !older.is_empty()
                && older != last
                && node::kind(older) == node::kind(last)
                && node::level(older) == node::level(last)
                && fences(older) == fences(last)
            {
                found.insert(older, ());
            }
        }
        found.into_keys().collect()
    }
}

fn fences(image: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let mut upper = Vec::new();
    let lower = if node::kind(image) == Some(NodeKind::Leaf) {
        let leaf = Leaf::from_image(image);
        leaf.write_upper_fence(&mut upper);
        leaf.lower_fence().to_vec()
    } else {
        let inner = Inner::from_image(image);
        inner.write_upper_fence(&mut upper);
        inner.lower_fence().to_vec()
    };
    (lower, upper)
}

/// What the keys hold: nothing but errors of damage, and what `map` says. Returns how many are errors.
fn check_values(engine: &Arc<dyn Engine>, map: &Map) -> usize {
    let mut errors = 0;
    for (key, value) in map {
        match engine.get_value(key) {
            Ok(found) => assert_eq!(found.as_deref(), Some(value.as_slice()), "key {key:?}"),
            Err(error) => {
                assert!(error.is_corruption(), "{error}");
                errors += 1;
            }
        }
    }
    errors
}

/// Puts older versions of nodes of this kind back, each alone.
fn put_back(aged: &Aged, kind: NodeKind, fs: impl Fn() -> (Arc<dyn Fs>, PathBuf)) -> u32 {
    let mut tried = 0;
    for page in aged.reachable() {
        for older in aged.doubles(page).into_iter().take(2) {
            if node::kind(older) != Some(kind) {
                continue;
            }
            let mut bytes = aged.last().to_vec();
            bytes[page * PAGE..(page + 1) * PAGE].copy_from_slice(older);
            let (fs, dir) = fs();
            let engine = aged.open(fs, &dir, &bytes).unwrap();
            assert!(check_values(&engine, &aged.bench.map) > 0, "page {page}");
            let mut cursor = engine.view().unwrap().cursor();
            let mut scanned = cursor.seek_first();
            while scanned.is_ok() && cursor.is_valid() {
                let (key, value) = cursor.entry().unwrap();
                assert_eq!(aged.bench.map[key], value);
                scanned = cursor.next();
            }
            assert!(scanned.unwrap_err().is_corruption(), "page {page}");
            let problems = engine.verify().unwrap().problems;
            let offset = format!("byte {}", page * PAGE);
            let named = |problem: &&String| problem.contains(&offset) && problem.contains("older");
            assert!(problems.iter().find(named).is_some(), "{problems:#?}");
            tried += 1;
        }
    }
    tried
}

/// A leaf of an earlier checkpoint stood at its page again, and lookups took its values for the present ones.
#[test]
fn an_older_leaf_in_its_old_place_is_noticed() {
    let aged = Aged::new(Arc::new(SimFs::new()), Path::new("/ks"), false);
    let fresh = || -> (Arc<dyn Fs>, PathBuf) { (Arc::new(SimFs::new()), "/ks".into()) };
    assert!(put_back(&aged, NodeKind::Leaf, fresh) > 5);
}

/// The same of an inner node: everything below it is of an earlier moment too, where it was not overwritten.
#[test]
fn an_older_inner_node_in_its_old_place_is_noticed() {
    let aged = Aged::new(Arc::new(SimFs::new()), Path::new("/ks"), false);
    let fresh = || -> (Arc<dyn Fs>, PathBuf) { (Arc::new(SimFs::new()), "/ks".into()) };
    assert!(put_back(&aged, NodeKind::Inner, fresh) > 2);
}

#[test]
fn older_nodes_are_noticed_through_maps() {
    let dir = tempfile::tempdir().unwrap();
    let aged = Aged::new(Arc::new(StdFs::new()), &dir.path().join("ks"), true);
    let number = AtomicU64::new(0);
    let fresh = || -> (Arc<dyn Fs>, PathBuf) {
        let number = number.fetch_add(1, Ordering::Relaxed);
        (Arc::new(StdFs::new()), dir.path().join(number.to_string()))
    };
    assert!(put_back(&aged, NodeKind::Leaf, fresh) > 5);
    assert!(put_back(&aged, NodeKind::Inner, fresh) > 2);
}

/// Both meta pages of an earlier checkpoint, over pages that have been used again since. The tree of that
/// checkpoint is there as a whole, or the damage shows; it is not mixed with later pages.
#[test]
fn older_meta_pages_over_pages_used_again_are_noticed() {
    let aged = Aged::new(Arc::new(SimFs::new()), Path::new("/ks"), false);
    let (mut whole, mut noticed) = (0, 0);
    for older in &aged.files {
        let mut bytes = aged.last().to_vec();
        bytes[..2 * PAGE].copy_from_slice(&older[..2 * PAGE]);
        let engine = match aged.open(Arc::new(SimFs::new()), Path::new("/ks"), &bytes) {
            Ok(engine) => engine,
            Err(error) => {
                assert!(error.is_corruption(), "{error}");
                noticed += 1;
                continue;
            }
        };
        let errors = check_values(&engine, &aged.bench.map_at(engine.persisted_seq()));
        assert_eq!(errors == 0, engine.verify().unwrap().is_clean());
        if errors == 0 {
            whole += 1;
        } else {
            noticed += 1;
        }
    }
    // The last one, and perhaps the one before it.
    assert!((1..4).contains(&whole) && noticed > 30, "{whole} {noticed}");
}

/// Two parents that refer to one page and mean different versions of it, as hostile files may have it: the
/// first visit must not open the page for the second.
#[test]
fn a_page_that_one_parent_means_does_not_pass_for_another() {
    let dir = tempfile::tempdir().unwrap();
    for use_mmap in [false, true] {
        let fs: Arc<dyn Fs> = match use_mmap {
            true => Arc::new(StdFs::new()),
            false => Arc::new(SimFs::new()),
        };
        let home = dir.path().join(use_mmap.to_string());
        let mut bench = Bench::new(Arc::clone(&fs), &home.join("a"), PAGE as u32, use_mmap);
        bench.put(b"k", b"1");
        bench.engine.flush().unwrap();
        let bytes = bytes_of(&*fs, &home.join("a").join(FILE_NAME));
        let link = Link::from_bits(get_u64(&bytes, 48));
        let other = Link::new(link.page(), link.fingerprint() ^ 1);
        let file = fs
            .open(&home.join("a").join(FILE_NAME), OpenMode::Read)
            .unwrap();
        let pager = crate::btree::pager::Pager::new(
            file,
            PAGE,
            77,
            KeyspaceId(5),
            Arc::new(BlockCache::new(1 << 20)),
            use_mmap,
            (bytes.len() / PAGE) as u64,
        )
        .unwrap();
        let guard = crossbeam_epoch::pin();
        for _ in 0..2 {
            assert!(pager.node(link, &guard).is_ok());
            let refused = pager.node(other, &guard).err().unwrap();
            assert!(refused.to_string().contains("older"), "{refused}");
            assert!(pager.owned_node(other, &guard).is_err());
        }
    }
}
