//! Numbers, keys and places that cannot be, in files whose checksums are right: each is refused by
//! name, or does no harm, now and at the next opening.

use std::path::Path;
use std::sync::Arc;

use hedgerow::fs::{Fs, OpenMode, SimFs};
use hedgerow::{Db, EngineKind};
use support::forge::tree::{Value, leaf, tree};
use support::forge::varint;
use support::image::Image;
use support::repair;
use support::sizes::{Sizes, keyspace_options};

use super::forged::{entries, key, owner_of, plain, table, with_tables, with_tree};
use super::{alone, options, template};

const STORE: &str = "/store";

fn written(image: &Image) -> SimFs {
    let fs = SimFs::new();
    image.write(&fs, Path::new(STORE));
    fs
}

fn open(fs: &SimFs) -> hedgerow::Result<Db> {
    options(Arc::new(fs.clone())).open(STORE)
}

/// A number of zero means that there is no manifest: the first flush made the directory anew, and
/// all tables went.
#[test]
fn a_manifest_of_an_impossible_number_is_refused() {
    let _alone = alone();
    let owner = owner_of(1);
    let dir = Path::new("ks-00000001");
    for number in [0, 1 << 62, u64::MAX] {
        let one = table(vec![plain(0, &entries(0..10, 5))], 0, 9, 10);
        let mut image = with_tables(&[(1, one)]);
        let old = dir.join(format!("MANIFEST-{:016x}", 1));
        let mut manifest = image.files.remove(&old).unwrap();
        manifest[24..32].copy_from_slice(&u64::to_le_bytes(number));
        repair::manifest(&mut manifest, owner, number);
        let new = dir.join(format!("MANIFEST-{number:016x}"));
        image.files.insert(new, manifest);
        let pointer = image.files.get_mut(&dir.join("CURRENT")).unwrap();
        pointer[12..20].copy_from_slice(&u64::to_le_bytes(number));
        repair::current(pointer, owner);
        let opened = open(&written(&image));
        assert!(opened.is_err_and(|e| e.is_corruption()), "{number:#x}");
    }
}

/// A stray file with the last number had the next table get one that is refused.
#[test]
fn a_table_never_gets_a_number_that_is_refused() {
    let _alone = alone();
    let fs = written(template());
    let stray = Path::new("/store/ks-00000001/TABLE-3fffffffffffffff");
    fs.open(stray, OpenMode::CreateNew).unwrap();
    let db = open(&fs).unwrap();
    let keyspace = db.existing_keyspace("lsm").unwrap().unwrap();
    keyspace.put(b"x", b"y").unwrap();
    assert!(keyspace.flush().is_err());
    drop(keyspace);
    db.close().unwrap();
    let db = open(&fs).unwrap();
    let keyspace = db.existing_keyspace("lsm").unwrap().unwrap();
    assert_eq!(keyspace.get(b"x").unwrap().unwrap(), b"y"[..]);
    // The stray one was removed.
    keyspace.flush().unwrap();
}

/// The last log segment with a record of its own behind what it has.
fn with_streamed_put(engine: EngineKind, key_len: usize) -> Image {
    let fs = SimFs::new();
    let options = options(Arc::new(fs.clone())).log_segment_bytes(1 << 20);
    let db = options.open(STORE).unwrap();
    let asked = keyspace_options(engine, Sizes::Tiny);
    let keyspace = db.keyspace_with("k", asked).unwrap();
    keyspace.put(b"a", b"b").unwrap();
    drop(keyspace);
    db.close().unwrap();
    let mut image = Image::of(&fs, Path::new(STORE));
    let store = repair::store_id(&image.files[Path::new("CATALOG")]).unwrap();
    let len_at = |bytes: &[u8], at: usize| {
        u32::from_le_bytes(bytes[at + 4..at + 8].try_into().unwrap()) as usize
    };
    let logs = image.files.iter_mut().filter(|(path, bytes)| {
        path.extension().is_some_and(|it| it == "log") && len_at(bytes, 128) > 0
    });
    let (path, bytes) = logs.last().unwrap();
    let stem = path.file_stem().unwrap().to_str().unwrap();
    let number = u64::from_str_radix(stem, 16).unwrap();
    let (mut at, mut last) = (128, 0);
    while len_at(bytes, at) > 0 {
        last = repair::u64_at(bytes, at + 16).unwrap();
        at = (at + 8 + len_at(bytes, at)).next_multiple_of(8);
    }
    let mut payload = vec![0x21, 1];
    varint(&mut payload, key_len as u64);
    payload.resize(payload.len() + key_len, b'k');
    // A reference to one byte of that segment.
    varint(&mut payload, number);
    payload.extend_from_slice(&[0, 1, 0, 0, 0, 0]);
    let mut frame = vec![0; 4];
    frame.extend_from_slice(&(24 + payload.len() as u32).to_le_bytes());
    for field in [last + 1, last + 1, 0] {
        frame.extend_from_slice(&u64::to_le_bytes(field));
    }
    frame.extend_from_slice(&payload);
    bytes[at..at + frame.len()].copy_from_slice(&frame);
    repair::segment(bytes, store, number);
    image
}

/// A B-tree panicked whenever it was opened, and an LSM tree stored another key.
#[test]
fn a_streamed_put_of_an_impossible_key_is_refused() {
    let _alone = alone();
    for engine in EngineKind::ALL {
        let opened = open(&written(&with_streamed_put(engine, 70_000)));
        assert!(opened.is_err_and(|e| e.is_corruption()), "{engine:?}");
        // So it is not for something else.
        let fs = written(&with_streamed_put(engine, 1000));
        let db = open(&fs).unwrap();
        let keyspace = db.existing_keyspace("k").unwrap().unwrap();
        assert!(keyspace.contains_key([b'k'; 1000]).unwrap());
    }
}

/// Its pages got into the freelist, which contradicted itself: the store did not open any more.
#[test]
fn a_freed_extent_that_cannot_be_is_not_in_the_freelist() {
    let _alone = alone();
    for (page, len) in [(1 << 40, 5000), (0, 1), (2, 1)] {
        let root = [leaf(2, (b"", None), &[(key(200), Value::There(page, len))])];
        let fs = written(&with_tree(tree(owner_of(2), 50, 1, 2, &root)));
        let db = open(&fs).unwrap();
        let keyspace = db.existing_keyspace("btree").unwrap().unwrap();
        keyspace.delete(key(200)).unwrap();
        keyspace.put(key(201), b"acknowledged").unwrap();
        keyspace.flush().unwrap();
        drop(keyspace);
        db.close().unwrap();
        let db = open(&fs).unwrap();
        let keyspace = db.existing_keyspace("btree").unwrap().unwrap();
        let found = keyspace.get(key(201)).unwrap().unwrap();
        assert_eq!(found, b"acknowledged"[..], "{page}");
    }
}

/// Sums of what tables refer to overflowed.
#[test]
fn a_table_that_refers_to_all_bytes_there_are_is_refused() {
    let _alone = alone();
    let logs = template().files.keys();
    let mut logs = logs.filter(|path| path.extension().is_some_and(|it| it == "log"));
    let stem = logs
        .next_back()
        .unwrap()
        .file_stem()
        .unwrap()
        .to_str()
        .unwrap();
    let number = u64::from_str_radix(stem, 16).unwrap();
    let mut one = table(vec![plain(0, &entries(0..10, 5))], 0, 9, 10);
    one.value_files = vec![(number, u64::MAX)];
    let opened = open(&written(&with_tables(&[(1, one)])));
    assert!(opened.is_err_and(|e| e.is_corruption()));
}
