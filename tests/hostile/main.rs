//! Hostile files: bytes that somebody wrote on purpose, with every checksum right.
//!
//! Checksums are no tamper protection, so decoders must take whatever they are given: opening,
//! reading, scanning, verifying and maintaining such a store may fail, and must not panic, hang, or
//! take memory without bound. A store must not need more than [`HOSTILE_LIMIT_BYTES`] for files of
//! a few hundred kilobytes, neither in one allocation nor in all; and a scan gives keys in order
//! and comes to an end.
//!
//! A binary of its own, because it counts every allocation of its process; so it runs one test at a
//! time.

mod forged;
mod impossible;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use hedgerow::fs::{FaultFs, Fs, OpKind, SimFs, StdFs};
use hedgerow::{Compression, Db, Durability, EngineKind, InspectDetail, Options, Scan};
use support::alloc::{Counting, HOSTILE_LIMIT_BYTES, Taken, Watched, measure};
use support::forge::tree::PAGE;
use support::image::Image;
use support::random::{Random, Source};
use support::repair;
use support::rig::{self, effort, figure};
use support::sizes::{Sizes, keyspace_options, single_threaded};

#[global_allocator]
static ALLOCATOR: Watched<Counting> = Watched(Counting);

/// More keys than any of the hostile stores can hold.
const KEYS_MAX: usize = 400_000;
/// More reads than any use of one of the small stores needs.
const READS_MAX: u64 = 300_000;

fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn options(fs: Arc<dyn Fs>) -> Options {
    single_threaded(fs).durability(Durability::Buffered)
}

/// A small store with files of every kind: both engines, blocks compressed and not.
fn template() -> &'static Image {
    static TEMPLATE: OnceLock<Image> = OnceLock::new();
    TEMPLATE.get_or_init(|| {
        let fs = SimFs::new();
        let db = options(Arc::new(fs.clone())).open("/store").unwrap();
        let mut random = Random::new(30);
        for (name, engine) in [
            ("lsm", EngineKind::Lsm),
            ("btree", EngineKind::BTree),
            ("plain", EngineKind::Lsm),
        ] {
            let mut options = keyspace_options(engine, Sizes::Tiny);
            if name == "plain" {
                options = options.compression(Compression::None);
            }
            let keyspace = db.keyspace_with(name, options).unwrap();
            for n in 0..110u32 {
                let len = random.below(60) as usize;
                keyspace
                    .put((n % 90).to_be_bytes(), random.bytes(len))
                    .unwrap();
                if n == 95 {
                    keyspace.put(b"long", random.bytes(2500)).unwrap();
                    keyspace
                        .delete_range(10u32.to_be_bytes()..20u32.to_be_bytes())
                        .unwrap();
                    keyspace.flush().unwrap();
                }
                if n == 100 && engine == EngineKind::BTree {
                    // A change in each leaf: they go into packs.
                    for n in (0..90u32).step_by(8) {
                        keyspace.put(n.to_be_bytes(), random.bytes(9)).unwrap();
                    }
                    keyspace.flush().unwrap();
                    let tree = keyspace.inspect(InspectDetail::Levels).unwrap();
                    assert!(tree.parts.iter().any(|part| part.kind == "packs"));
                }
            }
        }
        db.sync().unwrap();
        drop(db);
        Image::of(&fs, Path::new("/store"))
    })
}

/// A small store with a tree whose values lie in a segment that has left the log.
fn template_with_values(engine: EngineKind) -> Image {
    let fs = SimFs::new();
    let db = options(Arc::new(fs.clone())).open("/store").unwrap();
    let mut random = Random::new(31);
    let options = keyspace_options(engine, Sizes::Tiny).value_threshold_bytes(16);
    let keyspace = db.keyspace_with("values", options).unwrap();
    for n in 0..90u32 {
        let len = random.below(200) as usize;
        keyspace.put(n.to_be_bytes(), random.bytes(len)).unwrap();
        if n == 70 {
            keyspace.put(b"long", random.bytes(60_000)).unwrap();
            keyspace.delete(b"long").unwrap();
            keyspace.put(b"long", random.bytes(2500)).unwrap();
            keyspace.flush().unwrap();
            db.wait_idle().unwrap();
        }
    }
    db.sync().unwrap();
    drop((keyspace, db));
    let image = Image::of(&fs, Path::new("/store"));
    let is_value_file = |path: &PathBuf| path.extension().is_some_and(|it| it == "val");
    assert!(image.files.keys().any(is_value_file));
    image
}

/// Reads a scan to its end. Keys must move in the direction of travel.
fn walk(scan: Scan, backward: bool) {
    let mut last: Option<Vec<u8>> = None;
    let mut scan = scan;
    for count in 0.. {
        assert!(count < KEYS_MAX, "a scan does not end");
        let item = if backward {
            scan.next_back()
        } else {
            scan.next()
        };
        let Some(Ok((key, _))) = item else { return };
        if let Some(last) = &last {
            let moved = if backward {
                key[..] < last[..]
            } else {
                key[..] > last[..]
            };
            assert!(moved, "a scan gives keys out of order");
        }
        last = Some(key.to_vec());
    }
}

/// Reads, verifies, writes and maintains whatever opens.
fn use_everything(fs: &Arc<dyn Fs>, root: &Path) {
    for read_only in [true, false] {
        let Ok(db) = options(Arc::clone(fs)).read_only(read_only).open(root) else {
            continue;
        };
        for info in db.keyspaces() {
            let Ok(Some(keyspace)) = db.existing_keyspace(&info.name) else {
                continue;
            };
            walk(keyspace.iter(), false);
            walk(keyspace.iter(), true);
            walk(keyspace.range(30u32.to_be_bytes()..), true);
            for n in (0..120u32).step_by(11) {
                let _ = keyspace.get(n.to_be_bytes());
            }
            let _ = keyspace.get(b"long");
            let _ = keyspace.stats();
        }
        let _ = db.verify();
        if read_only {
            continue;
        }
        maintain(&db);
        let _ = db.close();
    }
}

fn maintain(db: &Db) {
    for info in db.keyspaces() {
        let Ok(Some(keyspace)) = db.existing_keyspace(&info.name) else {
            continue;
        };
        for n in (0..120u32).step_by(17) {
            let _ = keyspace.put(n.to_be_bytes(), b"new");
        }
        let _ = keyspace.delete_range(30u32.to_be_bytes()..70u32.to_be_bytes());
        let _ = keyspace.flush();
        let _ = keyspace.compact();
        walk(keyspace.iter(), false);
        let _ = keyspace.delete_range(..);
        let _ = keyspace.flush();
    }
    for _ in 0..100 {
        if !matches!(db.run_background_once(), Ok(true)) {
            break;
        }
    }
}

/// Puts the image on a file system in memory (or a real one, which is mapped) and uses it.
#[track_caller]
fn suffer(story: &str, image: &Image, mapped: bool) -> Taken {
    let dir = mapped.then(|| tempfile::tempdir().unwrap());
    let (inner, root): (Arc<dyn Fs>, PathBuf) = match &dir {
        Some(dir) => (Arc::new(StdFs::new()), dir.path().join("store")),
        None => (Arc::new(SimFs::new()), "/store".into()),
    };
    image.write(&*inner, &root);
    let counting = FaultFs::new(inner);
    let fs: Arc<dyn Fs> = Arc::new(counting.clone());
    let (outcome, taken) =
        measure(|| catch_unwind(AssertUnwindSafe(|| use_everything(&fs, &root))));
    if let Err(panic) = outcome {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        panic!("{story}: {}", text.unwrap_or_default());
    }
    assert!(
        taken.largest <= HOSTILE_LIMIT_BYTES && taken.peak <= HOSTILE_LIMIT_BYTES,
        "{story}: {taken:?}"
    );
    let reads = counting.count(OpKind::Read);
    assert!(reads < READS_MAX, "{story}: {reads} reads");
    taken
}

/// Changes one place of a file: a field of one to eight bytes to an extreme or arbitrary value, or
/// a few bytes copied from elsewhere in the file.
fn mutate(bytes: &mut [u8], random: &mut Random) -> String {
    // The log is mostly empty.
    let used = bytes
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(1, |last| last + 1);
    let at = random.below(used as u64) as usize;
    let len = (*random.pick(&[1, 1, 2, 4, 4, 8])).min(bytes.len() - at);
    let how = random.below(8);
    let field = &mut bytes[at..at + len];
    match how {
        0 | 1 => field.fill(0xFF),
        2 => field.fill(0),
        3 => {
            field.fill(0xFF);
            field[len - 1] = 0x7F;
        }
        4 => {
            field.fill(0);
            field[0] = 1;
        }
        5 => field[0] = field[0].wrapping_add(1),
        6 => {
            let new = random.bytes(len);
            field.copy_from_slice(&new);
        }
        _ => {
            let from = random.below((used - len.min(used)) as u64 + 1) as usize;
            bytes.copy_within(from..(from + len).min(used), at.min(bytes.len() - len));
        }
    }
    format!("{len} bytes at {at}, way {how}")
}

#[test]
fn fields_at_their_extremes() {
    let _alone = alone();
    let mut random = Random::new(rig::from_env("HEDGEROW_SEED").unwrap_or(71));
    let mut worst = Taken::default();
    let mut mutants = 0;
    let [lsm, btree] = EngineKind::ALL.map(template_with_values);
    for template in [template(), &lsm, &btree] {
        let store = repair::store_id(&template.files[Path::new("CATALOG")]).unwrap();
        for (path, _) in template.data_files() {
            for n in 0..50 * effort() {
                let mut image = template.clone();
                let bytes = image.files.get_mut(path).expect("a file");
                let mut story = format!("{}:", path.display());
                for _ in 0..1 + random.below(3) {
                    story = format!("{story} {};", mutate(bytes, &mut random));
                }
                repair::file(path, bytes, store, PAGE);
                let taken = suffer(&story, &image, n % 16 == 15);
                worst.peak = worst.peak.max(taken.peak);
                worst.largest = worst.largest.max(taken.largest);
                mutants += 1;
            }
        }
    }
    figure("hostile files", mutants);
    figure("hostile peak bytes", worst.peak as u64);
    figure("hostile largest allocation bytes", worst.largest as u64);
}

/// The repairs are right: a file that nobody changed is still itself.
#[test]
fn a_repair_of_an_intact_file_changes_nothing() {
    let [lsm, btree] = EngineKind::ALL.map(template_with_values);
    for template in [template(), &lsm, &btree] {
        let store = repair::store_id(&template.files[Path::new("CATALOG")]).unwrap();
        for (path, bytes) in template.data_files() {
            let mut repaired = bytes.clone();
            repair::file(path, &mut repaired, store, PAGE);
            assert!(repaired == *bytes, "{}", path.display());
            if repaired.len() > 130 {
                // And one that was changed reads differently, not as damaged by its checksum.
                assert!(!path.ends_with("LOCK"));
            }
        }
    }
}
