//! Small stores to put hostile bytes into, and the use that is made of what opens.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use hedgerow::fs::SimFs;
use hedgerow::{Db, Durability, EngineKind, Keyspace, Options};

use super::images;
use crate::image::Image;
use crate::random::{Random, Source};
use crate::sizes::{Sizes, keyspace_options, single_threaded};

/// Where stores are.
pub const PATH: &str = "/store";
/// The random number of all these stores.
pub const STORE: u64 = 0x0FED_1E57_0123_4567;
/// Size of the pages of their B-trees.
pub const PAGE: usize = 1024;
/// Most steps of one scan. More than any of the stores has entries, and few enough to end.
const MAX_STEPS: usize = 400;

/// The options of all these stores: tiny, single-threaded, in memory.
pub fn options(fs: &SimFs, read_only: bool) -> Options {
    single_threaded(Arc::new(fs.clone()))
        .durability(Durability::Buffered)
        .read_only(read_only)
}

/// Makes a store of both engines, with the fixed number.
fn make(fill: impl Fn(&Db, &[Keyspace; 2])) -> Image {
    let fs = SimFs::new();
    let db = options(&fs, false).open(PATH).unwrap();
    let keyspaces = EngineKind::ALL.map(|engine| {
        let options = keyspace_options(engine, Sizes::Tiny);
        db.keyspace_with(engine.name(), options).unwrap()
    });
    fill(&db, &keyspaces);
    db.sync().unwrap();
    drop((keyspaces, db));
    let mut image = Image::of(&fs, Path::new(PATH));
    // The unused rest of a segment of the log is only long.
    for (path, bytes) in &mut image.files {
        if path.starts_with("wal") {
            let used = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0) + 1;
            bytes.truncate(used.next_multiple_of(8));
            let len = bytes.len() as u64;
            bytes[32..40].copy_from_slice(&len.to_le_bytes());
        }
    }
    images::rebind(&mut image, STORE, PAGE);
    image
}

/// A store with files of every kind, several of most, and a log with something to replay.
pub fn varied() -> &'static Image {
    static STORE: OnceLock<Image> = OnceLock::new();
    STORE.get_or_init(|| {
        make(|_, keyspaces| {
            for keyspace in keyspaces {
                let mut random = Random::new(30);
                for n in 0..150u32 {
                    let len = random.below(60) as usize;
                    let key = (n % 120).to_be_bytes();
                    keyspace.put(key, random.bytes(len)).unwrap();
                    if n == 100 {
                        keyspace.put(b"long", random.bytes(3000)).unwrap();
                        let gone = 10u32.to_be_bytes()..20u32.to_be_bytes();
                        keyspace.delete_range(gone).unwrap();
                        keyspace.flush().unwrap();
                    }
                    if n == 130 {
                        // A change in each leaf: in the B-tree they go into packs.
                        for n in (0..120u32).step_by(7) {
                            keyspace.put(n.to_be_bytes(), random.bytes(5)).unwrap();
                        }
                        keyspace.flush().unwrap();
                    }
                }
            }
        })
    })
}

/// Operations in the log of [`small`].
pub const SMALL_OPS: u64 = 2 * 27;

/// A store with so little in it that each of its files fits into an input.
pub fn small() -> &'static Image {
    static STORE: OnceLock<Image> = OnceLock::new();
    STORE.get_or_init(|| {
        make(|_, keyspaces| {
            for keyspace in keyspaces {
                for n in 0..24u8 {
                    keyspace.put([b'k', n], [n; 7]).unwrap();
                }
                keyspace.put(b"k\x05", b"newer").unwrap();
                keyspace.delete(b"k\x07").unwrap();
                keyspace.delete_range("k\x0a".."k\x0c").unwrap();
                keyspace.flush().unwrap();
            }
        })
    })
}

/// The one file of `image` whose path contains `part`.
pub fn file<'a>(image: &'a Image, part: &str) -> &'a [u8] {
    let mut found = image
        .files
        .iter()
        .filter(|(path, _)| path.to_string_lossy().contains(part));
    let (_, bytes) = found.next().unwrap_or_else(|| panic!("a file {part}"));
    bytes
}

/// Opens the store, first for reading only, and uses whatever opened. Returns whether it opened
/// for writing.
pub fn open_and_use(image: &Image) -> bool {
    let fs = SimFs::new();
    image.write(&fs, Path::new(PATH));
    let mut read = None;
    if let Ok(db) = options(&fs, true).open(PATH) {
        read = Some(read_everything(&db));
    }
    let Ok(db) = options(&fs, false).open(PATH) else {
        return false;
    };
    // What a store shows does not depend on how it was opened.
    if let Some(read) = read {
        assert_eq!(read, read_everything(&db), "read only and writable differ");
    }
    use_everything(&db);
    let _ = db.close();
    true
}

/// What a bounded scan of every keyspace finds, both ways, up to the first error; and point reads
/// of some keys. `None` stands for an error.
type Seen = Vec<Option<(Vec<u8>, Vec<u8>)>>;

fn read_everything(db: &Db) -> Seen {
    let mut seen = Seen::new();
    for info in db.keyspaces() {
        let Ok(Some(keyspace)) = db.existing_keyspace(&info.name) else {
            seen.push(None);
            continue;
        };
        let item = |item: hedgerow::Result<(hedgerow::Value, hedgerow::Value)>| {
            item.ok().map(|(key, value)| (key.to_vec(), value.to_vec()))
        };
        seen.extend(keyspace.iter().take(MAX_STEPS).map(item));
        seen.extend(keyspace.iter().rev().take(MAX_STEPS).map(item));
    }
    seen
}

/// Verifies, reads in other ways, writes and maintains whatever opened.
fn use_everything(db: &Db) {
    let sound = db.verify().is_ok_and(|report| report.is_clean());
    for info in db.keyspaces() {
        let Ok(Some(keyspace)) = db.existing_keyspace(&info.name) else {
            continue;
        };
        if sound {
            check_order(&keyspace);
        }
        for n in (0..120u32).step_by(7) {
            let _ = keyspace.get(n.to_be_bytes());
            let key = n.to_be_bytes();
            if keyspace.put(key, b"new").is_ok()
                && let Ok(found) = keyspace.get(key)
            {
                assert_eq!(found.as_deref(), Some(&b"new"[..]), "a put was lost");
            }
        }
        let _ = keyspace.multi_get(&[&b"k\x05"[..], b"long", b""]);
        let mut scan = keyspace.range(b"k\x02"..);
        let _ = (scan.next(), scan.next_back());
        scan.seek(b"k\x08");
        let _ = (scan.next_key(), scan.next_back());
        let _ = keyspace.delete_range(30u32.to_be_bytes()..90u32.to_be_bytes());
        let _ = keyspace.flush();
        let _ = keyspace.compact();
        let _ = keyspace.stats();
    }
    for _ in 0..20 {
        if !matches!(db.run_background_once(), Ok(true)) {
            break;
        }
    }
    let _ = db.stats();
}

/// In a store that `verify` found sound, a scan is sorted, the same both ways, and agrees with
/// point reads.
fn check_order(keyspace: &Keyspace) {
    let forward: hedgerow::Result<Vec<_>> = keyspace.iter().take(MAX_STEPS).collect();
    let backward: hedgerow::Result<Vec<_>> = keyspace.iter().rev().take(MAX_STEPS).collect();
    let (Ok(forward), Ok(mut backward)) = (forward, backward) else {
        panic!("a sound store gives an error");
    };
    assert!(forward.is_sorted_by(|a, b| *a.0 < *b.0), "out of order");
    if forward.len() < MAX_STEPS {
        backward.reverse();
        assert_eq!(forward, backward, "backwards is not forwards");
    }
    for (key, value) in forward.iter().take(50) {
        let found = keyspace.get(key).expect("a sound store gives an error");
        assert_eq!(found.as_ref(), Some(value), "a get differs from a scan");
    }
}
