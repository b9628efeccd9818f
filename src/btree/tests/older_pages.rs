//! Pages as they were earlier: writes that the disk reported as done and lost. Each is intact by
//! itself, at its place and with its fences, so nothing but the fingerprint in the reference tells
//! it from the current one.

use std::collections::BTreeSet;
use std::sync::atomic::AtomicU64;

use super::*;
use crate::btree::file::new_file::FILE_NAME;
use crate::btree::node::inner::Inner;
use crate::btree::node::leaf::Leaf;
use crate::btree::node::{Link, NodeKind};
use crate::format::coding::get_u64;

const PAGE: usize = 1024;
const KEYS: u32 = 900;
const ROUNDS: u32 = 40;
/// Versions of nodes of one kind that are put in others' places in a test.
const ENOUGH: u32 = 5;

fn bytes_of(fs: &dyn Fs, path: &Path) -> Vec<u8> {
    let file = fs.open(path, OpenMode::Read).unwrap();
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

/// A tree of three levels whose pages were used many times.
struct Aged {
    bench: Bench,
    /// The file after each checkpoint, and what it holds.
    moments: Vec<(Vec<u8>, Map)>,
}

impl Aged {
    fn new(fs: Arc<dyn Fs>, dir: &Path, use_mmap: bool) -> Self {
        let mut bench = Bench::new(fs, dir, PAGE as u32, use_mmap);
        let mut random = Random(5);
        let path = dir.join(FILE_NAME);
        let mut moments = Vec::new();
        for round in 0..ROUNDS {
            // All keys in the first round; afterwards other values of the same length, so that
            // nodes keep their fences.
            // Every other time in the same few leaves, so that these are written, and not packs for
            // them.
            let changes = if round == 0 { KEYS } else { 24 };
            for i in 0..changes {
                let key = match round {
                    0 => i,
                    _ if round % 2 == 0 => KEYS / 3 + i,
                    _ => random.below(KEYS.into()) as u32,
                };
                bench.put(&key.to_be_bytes(), &[round as u8; 40]);
            }
            bench.engine.flush().unwrap();
            moments.push((bytes_of(&*bench.fs, &path), bench.map.clone()));
        }
        Self { bench, moments }
    }

    /// The engine over these bytes.
    fn open(&self, fs: Arc<dyn Fs>, dir: &Path, bytes: &[u8]) -> Result<Arc<dyn Engine>> {
        fs.create_dir_all(dir).unwrap();
        let file = fs.open(&dir.join(FILE_NAME), OpenMode::CreateNew).unwrap();
        file.write_all_at(bytes, 0).unwrap();
        let Bench {
            options,
            snapshot_tracker,
            host,
            use_mmap,
            ..
        } = &self.bench;
        BTreeEngine::open(context(
            &fs,
            dir,
            options,
            snapshot_tracker,
            host,
            *use_mmap,
        ))
    }

    /// Other versions of a page that is `now` a node, which are nodes of the same level and fences.
    fn doubles<'a>(&'a self, page: usize, now: &[u8]) -> BTreeSet<&'a [u8]> {
        let versions = self.moments.iter().filter_map(|(file, _)| {
            let other = file.get(page * PAGE..page * PAGE + now.len())?;
            let is_double = other != now
                && node::kind(other) == node::kind(now)
                && node::unit_count(other) == node::unit_count(now)
                && node::level(other) == node::level(now)
                && fences(other) == fences(now);
            is_double.then_some(other)
        });
        versions.collect()
    }
}

/// The node at a page.
fn node_at(file: &[u8], page: usize) -> &[u8] {
    let units = node::unit_count(&file[page * PAGE..]) as usize;
    &file[page * PAGE..(page + units) * PAGE]
}

/// Pages of the nodes in the tree of a file.
fn reachable(file: &[u8]) -> BTreeSet<usize> {
    let mut found = BTreeSet::new();
    let mut todo = vec![Link::from_bits(get_u64(file, 48))];
    while let Some(link) = todo.pop() {
        let page = link.page().0 as usize;
        found.insert(page);
        let image = node_at(file, page);
        assert!(link.means(image));
        if node::kind(image) == Some(NodeKind::Inner) {
            let inner = Inner::from_image(image);
            todo.extend((0..inner.child_count()).map(|i| inner.child(i)));
            let groups = inner
                .packs()
                .map_or_else(Vec::new, |packs| packs.decode().groups);
            let packs = groups
                .iter()
                .flat_map(|group| group.old.iter().chain(&group.recent));
            todo.extend(packs.map(|pack| pack.link));
        }
    }
    found
}

fn fences(image: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let mut upper = Vec::new();
    // Those of a pack stand where those of a leaf do.
    let lower = if node::kind(image) != Some(NodeKind::Inner) {
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

/// What the keys hold: nothing but errors of damage, and what `map` says. Returns how many are
/// errors.
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

/// Puts another version of a node of this kind in its place, of several nodes in turn, each alone.
fn put_back(aged: &Aged, kind: NodeKind, fs: impl Fn() -> (Arc<dyn Fs>, PathBuf)) {
    let mut tried = 0;
    for (file, map) in aged.moments.iter().rev() {
        for page in reachable(file) {
            let now = node_at(file, page);
            if node::kind(now) != Some(kind) || tried == ENOUGH {
                continue;
            }
            let Some(other) = aged.doubles(page, now).pop_first() else {
                continue;
            };
            let mut bytes = file.clone();
            bytes[page * PAGE..page * PAGE + other.len()].copy_from_slice(other);
            let (fs, dir) = fs();
            let engine = aged.open(fs, &dir, &bytes).unwrap();
            assert!(check_values(&engine, map) > 0, "page {page}");
            let mut cursor = engine.view().unwrap().cursor();
            let mut scanned = cursor.seek_first();
            while scanned.is_ok() && cursor.is_valid() {
                let (key, value) = cursor.entry().unwrap();
                assert_eq!(map[key], value);
                scanned = cursor.next();
            }
            assert!(scanned.unwrap_err().is_corruption(), "page {page}");
            let problems = engine.verify().unwrap().problems;
            let offset = Some((page * PAGE) as u64);
            let named =
                |problem: &Problem| problem.offset == offset && problem.what.contains("older");
            assert!(problems.iter().any(named), "{problems:#?}");
            tried += 1;
        }
    }
    assert_eq!(tried, ENOUGH);
}

/// A leaf of an earlier checkpoint stood at its page again, and lookups took its values for the
/// current ones.
#[test]
fn an_older_leaf_in_its_old_place_is_noticed() {
    let aged = Aged::new(Arc::new(SimFs::new()), Path::new("/ks"), false);
    let fresh = || -> (Arc<dyn Fs>, PathBuf) { (Arc::new(SimFs::new()), "/ks".into()) };
    put_back(&aged, NodeKind::Leaf, fresh);
}

/// The same of an inner node: everything below it is of an earlier moment too, where it was not
/// overwritten.
#[test]
fn an_older_inner_node_in_its_old_place_is_noticed() {
    let aged = Aged::new(Arc::new(SimFs::new()), Path::new("/ks"), false);
    let fresh = || -> (Arc<dyn Fs>, PathBuf) { (Arc::new(SimFs::new()), "/ks".into()) };
    put_back(&aged, NodeKind::Inner, fresh);
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
    put_back(&aged, NodeKind::Leaf, fresh);
    put_back(&aged, NodeKind::Inner, fresh);
}

/// Both meta pages of an earlier checkpoint and its freelist, over pages that have been used again
/// since. The tree of that checkpoint is there as a whole, or the damage shows; it is not mixed
/// with later pages.
#[test]
fn older_meta_pages_over_pages_used_again_are_noticed() {
    let aged = Aged::new(Arc::new(SimFs::new()), Path::new("/ks"), false);
    let (mut whole, mut noticed) = (0, 0);
    let (last, _) = aged.moments.last().unwrap();
    for (older, map) in &aged.moments {
        let mut bytes = last.clone();
        let [freelist, len] = [72, 80].map(|at| get_u64(older, at) as usize);
        let freelist = freelist * PAGE..freelist * PAGE + len;
        for range in [0..2 * PAGE, freelist] {
            bytes[range.clone()].copy_from_slice(&older[range]);
        }
        let engine = match aged.open(Arc::new(SimFs::new()), Path::new("/ks"), &bytes) {
            Ok(engine) => engine,
            Err(error) => {
                assert!(error.is_corruption(), "{error}");
                continue;
            }
        };
        let errors = check_values(&engine, map);
        assert_eq!(errors == 0, engine.verify().unwrap().is_clean());
        if errors == 0 {
            whole += 1;
        } else {
            noticed += 1;
        }
    }
    // Whole is the last one, and perhaps those just before it.
    assert!(whole > 0 && noticed > 10, "{whole} {noticed}");
}

/// Two parents that refer to one page and mean different versions of it, as hostile files may have
/// it: the first visit must not open the page for the second.
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
        let context = bench.context_on(&fs, use_mmap);
        let pages = (bytes.len() / PAGE) as u64;
        let pager = crate::btree::file::pager::Pager::new(&context, &*file, None, pages).unwrap();
        let guard = crossbeam_epoch::pin();
        for _ in 0..2 {
            assert!(pager.node(link, &guard).is_ok());
            let refused = pager.node(other, &guard).err().unwrap();
            assert!(refused.to_string().contains("older"), "{refused}");
            assert!(pager.owned_node(other, &guard).is_err());
        }
    }
}
